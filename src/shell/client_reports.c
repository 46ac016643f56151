/* client_reports.c - see client_reports.h. */
#include "shell/client_reports.h"

void client_reports_end(struct client_reports *reports) {
  timer_cancel(&reports->over);
  if (reports->left_out > 0)
    report(reports->env, REPORT_WARNING, "nbd", "%u more client%s hung up on, within a minute; they are not listed",
           reports->left_out, reports->left_out == 1 ? " was" : "s were");
  reports->said = reports->left_out = 0;
}

static void over(struct timer *timer) { client_reports_end(CONTAINER_OF(timer, struct client_reports, over)); }

void client_reports_init(struct client_reports *reports, struct env *env) {
  *reports = (struct client_reports){.env = env};
  timer_init(&reports->over, over);
}

void client_report(struct client_reports *reports, const char *peer, const char *why) {
  if (!timer_is_armed(&reports->over))
    timer_set(reports->env, &reports->over, reports->env->now_ns + CLIENT_REPORTS_NS);
  if (reports->said == CLIENT_REPORTS_MAX) {
    reports->left_out++;
    return;
  }
  reports->said++;
  report(reports->env, REPORT_WARNING, peer, "the client %s; hanging up", why);
}
