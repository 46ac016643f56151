/* client_reports.h - what clients do wrong, as events.
 *
 * Whoever can reach a socket can cause such lines, as fast as it can connect. They must not push what an administrator needs out
 * of the events, nor out of a journal that drops lines when there are many. So at most CLIENT_REPORTS_MAX are reported in each
 * CLIENT_REPORTS_NS; how many were left out is reported when that time is over. */
#ifndef TARN_SHELL_CLIENT_REPORTS_H
#define TARN_SHELL_CLIENT_REPORTS_H

#include "core/env.h"

#define CLIENT_REPORTS_MAX 10u
#define CLIENT_REPORTS_NS  (60 * NS_PER_S)

struct client_reports {
  struct env *env;
  struct timer over; /* armed from the first report on, until its time is over */
  uint32_t said, left_out;
};

void client_reports_init(struct client_reports *reports, struct env *env);
/* "the client <why>; hanging up", about `peer`, or one more that is left out. */
void client_report(struct client_reports *reports, const char *peer, const char *why);
/* Reports now how many were left out, if any were. */
void client_reports_end(struct client_reports *reports);

#endif
