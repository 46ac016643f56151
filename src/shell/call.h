/* call.h - one request under way, from the control socket to whoever carries it out and back.
 *
 * The handler of a command answers its call exactly once, at once or later, by call_done() or call_refuse(). The call is
 * the connection's and stays until then, also when its client has gone: what was begun is finished. A handler that has no
 * reason to go on without its client (verify), or has not begun, sets `gone` before it returns. */
#ifndef TARN_SHELL_CALL_H
#define TARN_SHELL_CALL_H

#include "base/list.h"
#include "shell/request.h"

struct call {
  struct request request;
  struct list link; /* the handler's, while the call waits for its turn */
  void (*again)(void *owner, struct call *call);
  const void *line; /* for what it waits */
  bool answered;
  bool ok, usage; /* usage: no state of the world would allow it; the client exits with 2 */
  struct why why;
  json_t *result;   /* may be NULL: {} */
  json_t *warnings; /* array of texts, or NULL */
  void (*done)(struct call *call);
  /* The handler's, or NULL: the client has gone. Called at most once, from the event queue; the call must still be answered. */
  void (*gone)(struct call *call);
  void *owner; /* the handler's */
};

/* Takes `result`, which may be NULL. */
void call_done(struct call *call, json_t *result);
__attribute__((format(printf, 2, 3))) void call_refuse(struct call *call, const char *format, ...);
/* Malformed: bad usage. */
__attribute__((format(printf, 2, 3))) void call_misused(struct call *call, const char *format, ...);
__attribute__((format(printf, 2, 3))) void call_warn(struct call *call, const char *format, ...);
/* A text for JSON, never NULL: strangers' bytes may be quoted in it, and what is not UTF-8 is shown with '?' in place of all that is not
 * ASCII. */
json_t *call_sentence(const char *text);
/* {"ok": true, "result": {...}, "warnings": [...]} or {"ok": false, "usage": false, "error": "..."}, one line with its
 * newline; free() it. Frees what the call holds. */
char *call_answer_text(struct call *call);

#endif
