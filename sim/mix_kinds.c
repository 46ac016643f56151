#include "sim/mix.h"

#include <string.h>

/* ---- loads ---- */

/* Small writes about boundaries of regions, of which there are more than marks. */
static void set_boundaries(struct workload *workload, struct prng *prng, uint64_t region_bytes) {
  for (uint32_t i = 0; i < COUNT_OF(workload->hot); i++) {
    workload->hot[i].start = prng_between(prng, 1, workload->size_bytes / region_bytes - 1) * region_bytes - 16384;
    workload->hot[i].bytes = 32768;
  }
  workload->hot_percent = 70;
  workload->aligned_percent = 100;
  memcpy(workload->weight, (const uint32_t[]){20, 75, 0, 0, 5}, sizeof workload->weight);
}

/* Many reads, all of them at the master, and few writes, mostly of the same two places. */
static void set_reads_of_master(struct workload *workload, struct mirror_config *config) {
  config->read_master = true;
  for (uint32_t i = 0; i < COUNT_OF(workload->hot); i++) {
    workload->hot[i].start = i % 2 * (128u << 10) + (16u << 10);
    workload->hot[i].bytes = 16u << 10;
  }
  workload->hot_percent = 90;
  workload->aligned_percent = 60;
  workload->rest_one_in = 0;
  workload->write_bytes_max = 32u << 10;
  memcpy(workload->weight, (const uint32_t[]){85, 12, 0, 0, 3}, sizeof workload->weight);
}

/* The same of many places, a third of them written, so that a recovery takes a while. */
static void set_many_places(struct workload *workload, struct prng *prng) {
  for (uint32_t i = 0; i < COUNT_OF(workload->hot); i++)
    workload->hot[i].start = align_down(prng_below(prng, workload->size_bytes - workload->hot[i].bytes), 4096);
  workload->hot_percent = 60;
  memcpy(workload->weight, (const uint32_t[]){60, 36, 0, 0, 4}, sizeof workload->weight);
}

/* Large ones, which hold most marks, and small ones between them, all over the volume; and flushes. */
static void set_pressure(struct workload *workload) {
  workload->hot_percent = 0;
  workload->aligned_percent = 20;
  workload->write_bytes_max = 640u << 10;
  workload->rest_one_in = 0;
  memcpy(workload->weight, (const uint32_t[]){5, 70, 0, 0, 25}, sizeof workload->weight);
}

/* Small ones, and rests. */
static void set_changes(struct workload *workload) {
  workload->hot_percent = 20;
  workload->write_bytes_max = 16u << 10;
  workload->rest_one_in = 0;
  memcpy(workload->weight, (const uint32_t[]){25, 65, 0, 0, 10}, sizeof workload->weight);
}

/* Many of which are FUAs; and a flush now and then, when much is in caches. */
static void set_syncs(struct workload *workload) {
  workload->fua_percent = 20;
  workload->rest_one_in = 0;
  memcpy(workload->weight, (const uint32_t[]){40, 54, 0, 0, 6}, sizeof workload->weight);
}

/* Small ones, everywhere. */
static void set_small_writes(struct workload *workload) {
  workload->hot_percent = 0;
  workload->write_bytes_max = 16u << 10;
  memcpy(workload->weight, (const uint32_t[]){40, 55, 0, 0, 5}, sizeof workload->weight);
}

/* Much is written, and little flushed. */
static void set_caches(struct workload *workload) {
  workload->hot_percent = 30;
  workload->rest_one_in = 0;
  memcpy(workload->weight, (const uint32_t[]){40, 50, 0, 0, 10}, sizeof workload->weight);
}

void mix_set_workload(struct mix *mix, struct sim_mirror *mirror) {
  struct workload *workload = &mirror->workloads[0];
  if (mix->brink) workload->weight[MODEL_FLUSH] += 20;
  if (mix->brink == BRINK_AGAIN) set_boundaries(workload, &mix->prng, mirror->config.region_bytes);
  if (mix->brink == BRINK_READS || mix->brink == BRINK_COMMANDS) set_reads_of_master(workload, &mirror->config);
  if (mix->brink == BRINK_COMMANDS) set_many_places(workload, &mix->prng);
  if (mix->brink == BRINK_MAPS) set_pressure(workload);
  if (mix->brink == BRINK_SOURCE) workload->aligned_percent = 30;
  if (mix->brink == BRINK_CLOSE || mix->brink == BRINK_TROUBLES) set_caches(workload);
  if (mix->brink == BRINK_FUA) set_syncs(workload);
  if (mix->brink == BRINK_ROUNDS) set_changes(workload);
  if (mix->brink == BRINK_COPY) set_small_writes(workload);
  if (mix->brink != BRINK_DOUBT) return;
  workload->hot_percent = 0; /* all over the volume, so that there is never room for marks */
  memcpy(workload->weight, (const uint32_t[]){5, 50, 0, 0, 40}, sizeof workload->weight);
}

/* ---- kinds ---- */

/* Recovery upon recovery, no disk fails. */
void mix_set_crash_recovery(struct mix *mix, struct sim_mirror_options *options) {
  options->calm = true;
  options->image_count = (uint32_t)prng_between(&mix->prng, 2, 3);
  mix->lives = 12;
  mix->quick_crash_percent = 80;
  mix->stop_percent = 5;
  mix->aimed_percent = 90;
}

/* The moments around the failure of the master: what stands in no record yet, what is flushed and in doubt. */
void mix_set_brink(struct mix *mix, struct sim_mirror_options *options) {
  options->image_count = 2;
  options->volume_count = 1;
  options->volume_bytes[0] = 256 << 10;
  options->slow_metadata = true;
  mix->brink = BRINK_MASTER;
  mix->storm_percent = 100;
  mix->chaos_percent = 0;
  mix->lives = 20;
  mix->quick_crash_percent = 10;
  mix->stop_percent = 5;
}

/* A FUA fails beside flushes. */
void mix_set_fua(struct mix *mix, struct sim_mirror_options *options) {
  mix_set_brink(mix, options);
  mix->brink = BRINK_FUA;
}

/* The same around the loss of a recovery's source, when often nothing can be recorded; around what all images fail at once; and so
 * on: the kinds of weather take turns. */
static void set_brink_of(struct mix *mix, struct sim_mirror_options *options, enum brink brink) {
  mix_set_brink(mix, options);
  options->image_count = (uint32_t)prng_between(&mix->prng, 2, 3);
  options->volume_bytes[0] = brink == BRINK_HOME ? 256u << 10 : 1u << 20;
  if (brink == BRINK_ALL) options->volume_bytes[0] = 256u << 10 >> prng_below(&mix->prng, 3); /* one mark, or a few */
  if (brink == BRINK_ALL || brink == BRINK_HOME) options->slow_metadata = prng_one_in(&mix->prng, 2);
  mix->brink = brink;
  mix->storm_percent = 0;
  mix->chaos_percent = 50;
}

void mix_set_source_lost(struct mix *mix, struct sim_mirror_options *options) {
  set_brink_of(mix, options, BRINK_SOURCE);
}
void mix_set_all_fail(struct mix *mix, struct sim_mirror_options *options) { set_brink_of(mix, options, BRINK_ALL); }
void mix_set_home_fails(struct mix *mix, struct sim_mirror_options *options) { set_brink_of(mix, options, BRINK_HOME); }
void mix_set_places(struct mix *mix, struct sim_mirror_options *options) { set_brink_of(mix, options, BRINK_PLACES); }
/* A flush fails on all images, with others behind it: clients', and ours, which room for marks is made with. */
void mix_set_doubt(struct mix *mix, struct sim_mirror_options *options) {
  set_brink_of(mix, options, BRINK_DOUBT);
  options->image_count = (uint32_t)prng_between(&mix->prng, 1, 2);
  options->volume_bytes[0] = 4 << 20;
  options->mark_count = 16;
  options->slow_metadata = false;
}

/* An image is away, and marks are scarce and slow. */
void mix_set_maps(struct mix *mix, struct sim_mirror_options *options) {
  set_brink_of(mix, options, BRINK_MAPS);
  options->image_count = 2;
  options->volume_bytes[0] = 3 << 20;
  options->mark_count = 16;
}
/* What was being read when a write failed everywhere and the master was lost. */
void mix_set_reads(struct mix *mix, struct sim_mirror_options *options) {
  set_brink_of(mix, options, BRINK_READS);
  options->volume_bytes[0] = 256 << 10;
}
/* Disks are closed, with something in their caches. */
void mix_set_close(struct mix *mix, struct sim_mirror_options *options) {
  set_brink_of(mix, options, BRINK_CLOSE);
  mix->stop_percent = 70;
}
/* Writes fail on all images but one that is copied to. */
void mix_set_copy(struct mix *mix, struct sim_mirror_options *options) {
  set_brink_of(mix, options, BRINK_COPY);
  options->tiny = false; /* so that no checkpoint comes in between */
}
/* Images stay away while generations go by, and one is served apart meanwhile. */
void mix_set_apart(struct mix *mix, struct sim_mirror_options *options) {
  options->tiny = true;                            /* so that generations are forgotten */
  options->witnesses = prng_one_in(&mix->prng, 4); /* which know better */
  options->image_count = (uint32_t)prng_between(&mix->prng, 2, 4);
  options->volume_count = 1;
  options->volume_bytes[0] = 3 << 20; /* of which little is missed */
  mix->lives = 24;
  mix->storm_percent = 90;
  mix->chaos_percent = 0;
}
/* An image goes back in time. */
void mix_set_back(struct mix *mix, struct sim_mirror_options *options) {
  set_brink_of(mix, options, BRINK_BACK);
  mix->chaos_percent = 0;
  mix->stop_percent = 60;
}
/* While one thing goes wrong another one happens. */
void mix_set_troubles(struct mix *mix, struct sim_mirror_options *options) {
  set_brink_of(mix, options, BRINK_TROUBLES);
}
/* Commands beside recoveries, and crashes between them. */
void mix_set_commands(struct mix *mix, struct sim_mirror_options *options) {
  set_brink_of(mix, options, BRINK_COMMANDS);
  options->calm = true;
  options->slow_metadata = false;
  mix->chaos_percent = 0;
  mix->quick_crash_percent = 30;
}
/* Changes of metadata, and crashes in the rounds that carry them: more regions than marks, so that these come and go. */
void mix_set_rounds(struct mix *mix, struct sim_mirror_options *options) {
  set_brink_of(mix, options, BRINK_ROUNDS);
  options->calm = prng_one_in(&mix->prng, 2); /* else images are failed by word */
  options->volume_bytes[0] = prng_between(&mix->prng, 1, 3) << 20;
  options->mark_count = 16;
  options->slow_metadata = false;
  mix->chaos_percent = 0;
  mix->lives = 14;
  mix->budget_max = 40;
  mix->quick_crash_percent = 0;
}
/* Clients that hang up have more to ask. */
void mix_set_again(struct mix *mix, struct sim_mirror_options *options) {
  set_brink_of(mix, options, BRINK_AGAIN);
  mix->chaos_percent = 0;
  options->volume_bytes[0] = 3 << 20;
  options->mark_count = 16;
}

void mix_set_failing_image(struct mix *mix, struct sim_mirror_options *options) {
  options->image_count = (uint32_t)prng_between(&mix->prng, 2, 4);
  mix->storm_percent = 70;
}

void mix_set_full_marks(struct mix *mix, struct sim_mirror_options *options) {
  bool sectors = prng_one_in(&mix->prng, 2); /* so many marks that the log has several sectors */
  options->calm = true;
  options->image_count = 2;
  options->volume_count = 1;
  options->volume_bytes[0] = sectors ? 24u << 20 : 8u << 20;
  options->mark_count = sectors ? 300 : 16;
}
