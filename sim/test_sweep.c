/* Sweeps of every story, a sample of them: each `STRIDE`th I/O fails, once and then for good. `tarn-sim --sweep` takes all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <string.h>

#include "sim/sweep.h"

#define STRIDE 7u

static struct world world;
static struct node node;

/* A broken promise of the core fails the run, as in tarn-sim. */
void tarn_panic(const char *what, const char *file, int line) {
  const char *slash = strrchr(file, '/');
  world_fail(&world, "require(%s) at %s:%d", what, slash ? slash + 1 : file, line);
}

static void test_story(void **state) {
  const struct scenario *scenario = *state;
  for (enum sweep_kind kind = SWEEP_ONCE; kind < SWEEP_KIND_COUNT; kind++) {
    bool struck = true;
    for (uint64_t at = 1 + kind; struck; at += STRIDE)
      if (!sweep_run(&world, &node, scenario, kind, at, false, &struck))
        fail_msg("%s  replay: tarn-sim --scenario %s --strike %s:%" PRIu64 " --trace", world.failure, scenario->name,
                 sweep_kind_name(kind), at);
  }
}

int main(void) {
  static struct CMUnitTest tests[32];
  size_t count = 0;
  for (uint32_t i = 0; scenario_at(i); i++) {
    if (scenario_at(i)->kind != SCENARIO_SCRIPTED) continue;
    tests[count++] = (struct CMUnitTest){
        .name = scenario_at(i)->name, .test_func = test_story, .initial_state = (void *)(uintptr_t)scenario_at(i)};
  }
  return _cmocka_run_group_tests("sweep", tests, count, NULL, NULL);
}
