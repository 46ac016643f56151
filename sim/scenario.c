#include "sim/scenario.h"

#include <string.h>

static const struct scenario scenarios[] = {
    {"mix", "everything, drawn from the seed: images, volumes, loads, faults, crashes, absences", scenario_mix, true},
    {"crash-recovery", "crash upon crash while marked regions are being copied; no disk fails", scenario_crash_recovery,
     false},
    {"failing-image", "images fail, leave and come back, one always stays whole", scenario_failing_image, false},
    {"full-marks", "writes all over a volume that is much larger than the marks", scenario_full_marks, false},
    {"verify", "data rots on an image; verify finds and repairs it while clients write", scenario_verify, false},
    {"two-writes", "two disjoint writes run together, two overlapping ones in order (a golden trace)",
     scenario_two_writes, false},
    {"self-test", "the checkers are shown wrong bytes, and must find them", scenario_self_test, false},
};

const struct scenario *scenario_at(uint32_t index) { return index < COUNT_OF(scenarios) ? &scenarios[index] : NULL; }

const struct scenario *scenario_find(const char *name) {
  for (uint32_t i = 0; i < COUNT_OF(scenarios); i++)
    if (strcmp(scenarios[i].name, name) == 0) return &scenarios[i];
  return NULL;
}
