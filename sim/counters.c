#include "sim/counters.h"

#include <inttypes.h>
#include <stdio.h>

static const struct {
  const char *name, *text;
  size_t offset;
} rows[COUNTER_COUNT] = {
#define X(name, text) {#name, text, offsetof(struct sim_counters, name)},
    SIM_COUNTERS(X)
#undef X
};

static uint64_t *counter_at(const struct sim_counters *counters, unsigned index) {
  require(index < COUNTER_COUNT);
  return (uint64_t *)(void *)((char *)(uintptr_t)counters + rows[index].offset);
}

void counters_add(struct sim_counters *sum, const struct sim_counters *part) {
  for (unsigned i = 0; i < COUNTER_COUNT; i++) *counter_at(sum, i) += *counter_at(part, i);
}

void counters_print(const struct sim_counters *counters) {
  for (unsigned i = 0; i < COUNTER_COUNT; i++)
    printf("%12" PRIu64 "  %-24s %s\n", *counter_at(counters, i), rows[i].name, rows[i].text);
}

unsigned counters_report_zero(const struct sim_counters *counters) {
  unsigned zero_count = 0;
  for (unsigned i = 0; i < COUNTER_COUNT; i++) {
    if (*counter_at(counters, i) != 0) continue;
    printf("never happened: %s (%s)\n", rows[i].name, rows[i].text);
    zero_count++;
  }
  return zero_count;
}
