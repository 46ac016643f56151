/* sweep.h - one fault, moved through a scripted story: the 1st, 2nd, 3rd ... I/O fails, once and then for good, until a run
 * has none left to fail. Every story must get through each, or end in peace: then all is healed, and must be well. */
#ifndef TARN_SIM_SWEEP_H
#define TARN_SIM_SWEEP_H

#include "sim/scenario.h"

enum sweep_kind { SWEEP_ONCE, SWEEP_DISK, SWEEP_ALL, SWEEP_KIND_COUNT };
const char *sweep_kind_name(enum sweep_kind kind); /* "once", "disk", "all" */

/* Runs the scenario with the `at`-th I/O failing (from 1 on): that one, or every one of its disk from then on, or every one of all
 * disks. True if it passed; *struck tells whether there were so many. world->failure says what went wrong. The caller has a
 * tarn_panic() that ends in world_fail() of this world. */
bool sweep_run(struct world *world, struct node *node, const struct scenario *scenario, enum sweep_kind kind,
               uint64_t at, bool traced, bool *struck);
/* All of them. Prints a line for each that fails, ending in `replay` and the arguments of one. Adds to the counts. */
void sweep_all(struct world *world, struct node *node, const struct scenario *scenario, const char *replay,
               uint64_t *passed, uint64_t *failed);

#endif
