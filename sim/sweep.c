#include "sim/sweep.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const char *sweep_kind_name(enum sweep_kind kind) {
  static const char *const names[SWEEP_KIND_COUNT] = {"once", "disk", "all"};
  require(kind < SWEEP_KIND_COUNT);
  return names[kind];
}

bool sweep_run(struct world *world, struct node *node, const struct scenario *scenario, enum sweep_kind kind,
               uint64_t at, bool traced, bool *struck) {
  static sigjmp_buf failed;
  require(scenario->kind == SCENARIO_SCRIPTED);
  world_init(world, 1);
  memset(node, 0, sizeof *node);
  world->traced = traced;
  world->failed = &failed;
  world->sweep = (struct world_sweep){.on = true, .at = at, .disk = kind == SWEEP_DISK, .all = kind == SWEEP_ALL};
  bool passed = sigsetjmp(failed, 0) == 0;
  if (passed) scenario->run(world, node);
  *struck = world->sweep.count >= at;
  node_destroy(node);
  world_destroy(world);
  return passed;
}

void sweep_all(struct world *world, struct node *node, const struct scenario *scenario, const char *replay,
               uint64_t *passed, uint64_t *failed) {
  for (enum sweep_kind kind = SWEEP_ONCE; kind < SWEEP_KIND_COUNT; kind++) {
    bool struck = true;
    for (uint64_t at = 1; struck; at++) {
      if (sweep_run(world, node, scenario, kind, at, false, &struck)) {
        ++*passed;
        continue;
      }
      ++*failed;
      printf("%s, %s:%" PRIu64 " failed: %s  replay: %s --scenario %s --strike %s:%" PRIu64 " --trace\n",
             scenario->name, sweep_kind_name(kind), at, world->failure, replay, scenario->name, sweep_kind_name(kind),
             at);
    }
  }
}
