/* scenario.h - the stories that tarn-sim can run. A scenario returns when all went well, and fails the world otherwise. */
#ifndef TARN_SIM_SCENARIO_H
#define TARN_SIM_SCENARIO_H

#include "sim/node.h"

struct scenario {
  const char *name, *text;
  void (*run)(struct world *world, struct node *node);
  enum {
    SCENARIO_DRAWN,
    SCENARIO_COUNTED, /* after COUNTED_SEEDS every counter must be above zero */
    SCENARIO_SCRIPTED /* a story: it can be swept */
  } kind;
};
#define COUNTED_SEEDS 500

/* NULL past the end. The first is the default. */
const struct scenario *scenario_at(uint32_t index);
const struct scenario *scenario_find(const char *name);

/* scenario_mix.c */
void scenario_mix(struct world *world, struct node *node);
void scenario_crash_recovery(struct world *world, struct node *node);
void scenario_brink(struct world *world, struct node *node);
void scenario_source_lost(struct world *world, struct node *node);
void scenario_doubt(struct world *world, struct node *node);
void scenario_all_fail(struct world *world, struct node *node);
void scenario_home_fails(struct world *world, struct node *node);
void scenario_places(struct world *world, struct node *node);
void scenario_maps(struct world *world, struct node *node);
void scenario_reads(struct world *world, struct node *node);
void scenario_put_back(struct world *world, struct node *node);
void scenario_close(struct world *world, struct node *node);
void scenario_copy(struct world *world, struct node *node);
void scenario_apart(struct world *world, struct node *node);
void scenario_troubles(struct world *world, struct node *node);
void scenario_commands(struct world *world, struct node *node);
void scenario_fua(struct world *world, struct node *node);
void scenario_rounds(struct world *world, struct node *node);
void scenario_again(struct world *world, struct node *node);
void scenario_failing_image(struct world *world, struct node *node);
void scenario_full_marks(struct world *world, struct node *node);
void scenario_hung_disk(struct world *world, struct node *node);
/* scenario_verify.c */
void scenario_verify(struct world *world, struct node *node);
/* scenario_story.c */
void scenario_two_writes(struct world *world, struct node *node);
void scenario_write_fails(struct world *world, struct node *node);
void scenario_flush_fails(struct world *world, struct node *node);
void scenario_crash_in_flight(struct world *world, struct node *node);
void scenario_hang_and_return(struct world *world, struct node *node);
void scenario_last_image_hangs(struct world *world, struct node *node);
void scenario_fracture(struct world *world, struct node *node);
void scenario_stale_alone(struct world *world, struct node *node);
void scenario_half_built(struct world *world, struct node *node);
void scenario_read_repair(struct world *world, struct node *node);
void scenario_flush_doubt(struct world *world, struct node *node);
void scenario_self_test(struct world *world, struct node *node);

#endif
