/* event_log.h - the recent events: what `tarn events` shows first, and where its live readers read on.
 *
 * A ring of EVENTS_KEPT lines, numbered from 1. A reader keeps the number of the next line that it wants; no reader holds
 * anything back, one that fell behind the ring learns how many lines it lost. */
#ifndef TARN_SHELL_EVENT_LOG_H
#define TARN_SHELL_EVENT_LOG_H

#include <stdio.h>

#include "core/env.h"

#define EVENTS_KEPT 1024u

struct event_line {
  uint64_t number;
  uint64_t wall_ns;
  enum report_level level;
  char subject[136]; /* a mirror, or mirror/image; "" the daemon itself */
  char text[488];
};

struct event_log {
  uint64_t next; /* number of the next line */
  struct event_line lines[EVENTS_KEPT];
};

void event_log_init(struct event_log *log);
const struct event_line *event_log_add(struct event_log *log, uint64_t wall_ns, enum report_level level,
                                       const char *subject, const char *text);
/* The line of that number, or NULL when it is not there yet. `number` is moved to the oldest line that is kept, and
 * the number of lines that this skips is added to `lost`. */
const struct event_line *event_log_at(const struct event_log *log, uint64_t *number, uint64_t *lost);

const char *report_level_name(enum report_level level); /* "info" */
/* "2026-11-20T13:43:32.123Z"; `out` has TIME_TEXT bytes. */
#define TIME_TEXT 32
const char *time_text(uint64_t wall_ns, char *out);

#endif
