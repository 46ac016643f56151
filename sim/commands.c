#include "sim/commands.h"

#include "sim/damage.h"
#include "sim/strangers.h"

#define WITHIN_MOST 7u /* milliseconds to the next command, as a power of two */

static bool is_current(const struct sim_mirror *mirror, uint32_t i) {
  return mirror->status.images[i].present && mirror->status.images[i].state == IMAGE_SYNCHRONIZED;
}

/* The image that is recovered from, if it may leave by a command but for that; else IMAGES_MAX. */
static uint32_t source_of(struct sim_mirror *mirror) {
  struct record home;
  if (!mirror->recovering || !sim_record_load(&mirror->home, RECORD_SELF_HOME, &home)) return IMAGES_MAX;
  uint32_t source = home.recovery_source;
  bool leaves = source < mirror->image_count && is_current(mirror, source) && !mirror->status.images[source].master;
  return leaves ? source : IMAGES_MAX;
}

/* ---- one command ---- */

static void ask(struct weather *weather, uint32_t i, enum mirror_image_op op) {
  bool force = op == IMAGE_OP_REMOVE && prng_one_in(&weather->prng, 2);
  sim_mirror_image_do(weather->mirror, i, op, force);
}

bool commands_add(struct sim_mirror *mirror) {
  uint32_t images = (uint32_t)__builtin_popcount(sim_mirror_members(mirror));
  for (uint32_t i = 0; i < mirror->image_count && images <= mirror->limits.history; i++) {
    if (mirror->images[i].configured || mirror->images[i].open) continue;
    sim_mirror_image_add(mirror, i, false);
    return true;
  }
  return false;
}

static void ask_any(struct weather *weather) {
  static const enum mirror_image_op leaves[] = {IMAGE_OP_FRACTURE, IMAGE_OP_FRACTURE, IMAGE_OP_SYNC, IMAGE_OP_REMOVE};
  struct sim_mirror *mirror = weather->mirror;
  struct prng *prng = &weather->prng;
  uint32_t i = weather_next_member(mirror, (uint32_t)prng_below(prng, mirror->image_count));
  if (prng_one_in(prng, 3) && commands_add(mirror)) return;
  if (!is_current(mirror, i)) ask(weather, i, prng_one_in(prng, 20) ? IMAGE_OP_SYNC : IMAGE_OP_RESTORE);
  else if (mirror->status.images[i].master || prng_one_in(prng, 2))
    ask(weather, weather_next_member(mirror, weather_master(mirror)), IMAGE_OP_PROMOTE);
  else ask(weather, i, leaves[prng_below(prng, COUNT_OF(leaves))]);
}

static void command_turn(struct sim_event *event) {
  static const enum mirror_image_op ops[] = {IMAGE_OP_SYNC, IMAGE_OP_REMOVE, IMAGE_OP_FRACTURE};
  struct weather *weather = CONTAINER_OF(event, struct weather, report);
  struct sim_mirror *mirror = weather->mirror;
  struct prng *prng = &weather->prng;
  if (!mirror->core || !mirror->serving) return;
  world_at(
      mirror->world, &weather->report,
      world_now(mirror->world) + prng_between(prng, NS_PER_MS / 10, NS_PER_MS << prng_below(prng, WITHIN_MOST + 1)));
  if (mirror->busy) return;
  (void)sim_mirror_status(mirror);
  uint32_t source = source_of(mirror);
  if (source == IMAGES_MAX || (!weather->seen_before && prng_one_in(prng, 3))) {
    ask_any(weather);
    return;
  }
  mirror->world->counters.source_asked++;
  if (weather->seen_before) mirror->world->counters.source_asked_seen++;
  /* A full copy waits for nothing. */
  ask(weather, source, ops[prng_below(prng, weather->seen_before ? 1 : COUNT_OF(ops))]);
}

/* ---- the moments of a life ---- */

/* A crash may have torn the other copy of a record: that would be two faults. */
static void spoil(struct sim_drive *drive, const struct fault *fault) {
  struct record record;
  uint64_t other = fault->start < RECORD_SLOT_BYTES ? RECORD_SLOT_BYTES : 0;
  if (fault->start < RECORD_AREA_BYTES && record_decode(&record, drive->medium->visible + other) != TARN_OK) return;
  (void)faults_add(&drive->faults, fault);
}

void commands_spoil(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  struct fault fault = {.kind = FAULT_BAD_SECTOR, .ops = FAULT_READ, .until_ns = UINT64_MAX, .err = TARN_IO};
  if (!prng_one_in(&weather->prng, 4)) return;
  fault.start = damage_draw_block(&mirror->layout, &weather->prng);
  fault.end = fault.start + META_BLOCK_BYTES;
  for (uint32_t i = 0; i < mirror->image_count; i++) spoil(&mirror->images[i].meta, &fault);
  if (fault.start < RECORD_AREA_BYTES) spoil(&mirror->home, &fault);
}

struct mirror_activation commands_activation(struct weather *weather) {
  struct mirror_activation how = {0};
  struct record home;
  const struct sim_mirror *mirror = weather->mirror;
  uint64_t seen = mirror->world->counters.seen_cut_off;
  weather->seen_before = seen != weather->seen_cut_off;
  weather->seen_cut_off = seen;
  if (prng_one_in(&weather->prng, weather->seen_before ? 4 : 2) ||
      !sim_record_load(&mirror->home, RECORD_SELF_HOME, &home))
    return how;
  uint32_t i = weather_next_member(mirror, home.master % mirror->image_count);
  if (home.images[i].state != IMAGE_SYNCHRONIZED) return how;
  how.promote = true;
  how.image = i;
  return how;
}

void commands_begin(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  uint64_t within_ns = weather->seen_before || prng_one_in(&weather->prng, 2) ? 100 : 4 * NS_PER_MS;
  world_cancel(mirror->world, &weather->report);
  weather->report.run = command_turn;
  world_at(mirror->world, &weather->report, world_now(mirror->world) + 1 + prng_below(&weather->prng, within_ns));
}

void commands_end(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  world_cancel(mirror->world, &weather->report);
  mirror->world->counters.ended_beside_source += mirror->serving && source_of(mirror) != IMAGES_MAX;
}

bool commands_watch(struct weather *weather, const struct sim_counters *before) {
  const struct sim_mirror *mirror = weather->mirror;
  bool sees = mirror->world->counters.read_sees_pending != before->read_sees_pending;
  return sees && mirror->serving && prng_one_in(&weather->prng, 4);
}
