/* mix.h - inside the mix: what makes one kind of seed differ from another.
 *
 * scenario_mix.c lives the lives; mix_kinds.c sets, before they begin, how many there are, how they end, in what weather, on what
 * disks and under what load. A setter is called after all was drawn, and once for each mirror. */
#ifndef TARN_SIM_MIX_H
#define TARN_SIM_MIX_H

#include "sim/brink.h"
#include "sim/edits.h"
#include "sim/node.h"
#include "sim/operator.h"
#include "sim/strangers.h"
#include "sim/weather.h"

struct mix {
  struct world *world;
  struct node *node;
  struct prng prng, strange, edits;
  struct weather weathers[NODE_MIRRORS_MAX]; /* of each mirror its own */
  struct operator operators[NODE_MIRRORS_MAX];
  uint32_t operator_percent; /* lives with an administrator at work */
  bool source_failed;        /* in this life, at its brink */
  bool flush_failed;         /* the same */
  bool crash_is_aimed;       /* the same */
  bool stopped;              /* the life before ended with a clean stop */
  struct kept kept;          /* BRINK_BACK: an image, as it was */
  uint64_t errors_before;    /* that clients were told of before this life */
  uint32_t lives;
  uint32_t storm_percent, chaos_percent; /* of the lives, unless the seed is calm throughout */
  uint32_t budget_max;
  uint32_t quick_crash_percent;                     /* crashes soon after an activation */
  uint32_t stop_percent;                            /* lives that end with a clean stop */
  uint32_t aimed_percent;                           /* lives whose crash is aimed: crash_sooner() */
  enum brink brink;                                 /* crash upon crash around one kind of moment: brink.h */
  enum { CRASH_ANY, CRASH_POWER, CRASH_KILL } next; /* the kind of crash that was aimed */
};

typedef void mix_setter(struct mix *mix, struct sim_mirror_options *options);
mix_setter mix_set_crash_recovery;
mix_setter mix_set_brink;
mix_setter mix_set_source_lost;
mix_setter mix_set_all_fail;
mix_setter mix_set_home_fails;
mix_setter mix_set_places;
mix_setter mix_set_doubt;
mix_setter mix_set_maps;
mix_setter mix_set_reads;
mix_setter mix_set_close;
mix_setter mix_set_copy;
mix_setter mix_set_apart;
mix_setter mix_set_back;
mix_setter mix_set_again;
mix_setter mix_set_troubles;
mix_setter mix_set_commands;
mix_setter mix_set_fua;
mix_setter mix_set_rounds;
mix_setter mix_set_failing_image;
mix_setter mix_set_full_marks;

/* The load of its first volume, by the mix's brink. */
void mix_set_workload(struct mix *mix, struct sim_mirror *mirror);

#endif
