#include "shell/event_log.h"

#include <string.h>
#include <time.h>

#include "base/text.h"

void event_log_init(struct event_log *log) { log->next = 1; }

const struct event_line *event_log_add(struct event_log *log, uint64_t wall_ns, enum report_level level,
                                       const char *subject, const char *text) {
  require(log->next > 0);
  struct event_line *line = &log->lines[log->next % EVENTS_KEPT];
  line->number = log->next++;
  line->wall_ns = wall_ns;
  line->level = level;
  (void)text_set(line->subject, sizeof line->subject, "%s", subject ? subject : "");
  (void)text_set(line->text, sizeof line->text, "%s", text);
  (void)text_printable(line->subject);
  (void)text_printable(line->text); /* one line, whatever was quoted in it */
  return line;
}

const struct event_line *event_log_at(const struct event_log *log, uint64_t *number, uint64_t *lost) {
  uint64_t oldest = log->next > EVENTS_KEPT ? log->next - EVENTS_KEPT : 1;
  if (*number < oldest) {
    if (*number > 0) *lost += oldest - *number;
    *number = oldest;
  }
  if (*number >= log->next) return NULL;
  const struct event_line *line = &log->lines[*number % EVENTS_KEPT];
  require(line->number == *number);
  return line;
}

const char *report_level_name(enum report_level level) {
  switch (level) {
    case REPORT_INFO: return "info";
    case REPORT_WARNING: return "warning";
    case REPORT_ERROR: return "error";
  }
  return "?";
}

const char *time_text(uint64_t wall_ns, char *out) {
  time_t seconds = (time_t)(wall_ns / NS_PER_S);
  struct tm parts;
  gmtime_r(&seconds, &parts);
  size_t used = strftime(out, TIME_TEXT, "%Y-%m-%dT%H:%M:%S", &parts);
  snprintf(out + used, TIME_TEXT - used, ".%03uZ", (unsigned)(wall_ns / NS_PER_MS % 1000));
  return out;
}
