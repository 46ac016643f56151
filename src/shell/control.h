/* control.h - the control socket: one JSON request per line in, one JSON answer per line out; and the event stream.
 *
 * Bounded: CONTROL_CONNECTIONS_MAX connections, each with one line of at most REQUEST_LINE_MAX and one request under way;
 * what it sends meanwhile waits in its socket. A few descriptors are set aside for them. When all are in use, the one that has
 * been silent longest makes room for the next. A client that goes away in the middle of a command changes nothing about that
 * command. Readers of events stay, and so do commands that wait, or that hang: each have a share of the connections, and
 * what is left is kept for `status`, which answers at once. A reader that is more than EVENTS_KEPT lines behind is told so
 * and dropped.
 *
 * The table of commands is in control.c: name, handler. An answer is
 *     {"ok": true, "result": {...}, "warnings": [...]}    or    {"ok": false, "usage": false, "error": "..."}
 * After the answer to "events" each line is {"number", "time", "level", "subject", "text"}. */
#ifndef TARN_SHELL_CONTROL_H
#define TARN_SHELL_CONTROL_H

#include "shell/event_log.h"
#include "shell/listen.h"
#include "shell/manager.h"

#define CONTROL_CONNECTIONS_MAX 128u
#define CONTROL_STREAMS_MAX     32u
#define CONTROL_CALLS_MAX       88u /* under way at a time */

struct control;
struct control_options {
  struct reactor *reactor;
  struct manager *manager;
  const struct event_log *events;
};

/* NULL when memory is short. */
struct control *control_create(const struct control_options *options);
/* Listens at that Unix socket, mode 0600; or at one that was passed on to us, whose mode is not our business. */
CHECKED tarn_err control_listen(struct control *control, const struct address *address, struct why *why);
/* There are new lines in the event log. */
void control_events_added(struct control *control);
/* Stops listening and hangs up; `stopped` runs when all calls are answered and all connections closed. An answer that its
 * client has not taken after a second is not waited for: a client that reads nothing must not keep the daemon. The socket
 * file stays: listen_remove() before. */
void control_stop(struct control *control, void *owner, void (*stopped)(void *owner));
void control_destroy(struct control *control);

#endif
