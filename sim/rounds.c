#include "sim/rounds.h"

#include "base/require.h"

#include "sim/commands.h"
#include "sim/strangers.h"

#define PATIENCE_NS  (30 * NS_PER_S) /* nobody hangs here */
#define CUT_MOST_NS  (NS_PER_S)      /* until the process dies, whatever has landed */
#define ROUNDS_MOST  12u             /* that pass before one is cut */
#define REST_MOST_NS (9 * NS_PER_S)  /* marks become idle, and witnesses are made */

void rounds_set_paces(struct sim_mirror *mirror, struct prng *prng) {
  static const uint64_t paces[] = {NS_PER_MS / 10, NS_PER_MS, 4 * NS_PER_MS, 20 * NS_PER_MS};
  uint64_t pace_ns = paces[prng_below(prng, COUNT_OF(paces))];
  mirror->home.latency_ns = pace_ns;
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    mirror->images[i].meta.latency_ns = pace_ns;
    mirror->images[i].data[0].latency_ns = NS_PER_MS / 100; /* much happens within a round */
    mirror->images[i].policy.hang_ns = PATIENCE_NS;
  }
}

/* ---- what changes metadata ---- */

static uint32_t current_images(const struct sim_mirror *mirror) {
  uint32_t current = 0;
  require(mirror->image_count <= IMAGES_MAX);
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    const struct mirror_image_status *image = &mirror->status.images[i];
    current |= (uint32_t)(image->present && image->state == IMAGE_SYNCHRONIZED) << i;
  }
  return current;
}

static bool is_one_of(uint32_t images, uint32_t i) { return images >> i & 1; }

static void ask_for_writes(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  for (uint32_t c = 0; c < mirror->client_count; c++)
    if (prng_one_in(&weather->prng, 2)) client_more(&mirror->clients[c], (uint32_t)prng_between(&weather->prng, 1, 30));
}

/* Somebody says that an image has failed; another one is whole. */
static void fail_one(struct weather *weather, uint32_t i) {
  struct sim_mirror *mirror = weather->mirror;
  uint32_t others = current_images(mirror) & ~(1u << i);
  if (mirror->calm || others == 0 || mirror->recovering) return;
  if (mirror->busy && (mirror->op_image == i || mirror->status.images[i].master)) return;
  mirror->operated = true;
  mirror_image_failed(mirror->core, i, "its file was removed");
}

/* It makes rounds of its own: often one of those is cut. */
static void aim(struct weather *weather) {
  if (!prng_one_in(&weather->prng, 3)) weather->rounds.left = (uint32_t)prng_below(&weather->prng, 4);
}

static void ask(struct weather *weather, uint32_t i, enum mirror_image_op op) {
  aim(weather);
  sim_mirror_image_do(weather->mirror, i, op, op == IMAGE_OP_REMOVE && prng_one_in(&weather->prng, 2));
}

/* He says that it is equal only if it is. */
static bool assume_one(struct weather *weather, uint32_t i) {
  struct sim_mirror *mirror = weather->mirror;
  uint32_t current = current_images(mirror);
  if (current == 0 || !sim_mirror_images_equal(mirror, i, (uint32_t)__builtin_ctz(current))) return false;
  ask(weather, i, IMAGE_OP_ASSUME);
  return true;
}

static void command_quiet(struct weather *weather, uint32_t i) {
  static const enum mirror_image_op ops[] = {IMAGE_OP_FRACTURE, IMAGE_OP_FRACTURE, IMAGE_OP_SYNC};
  struct prng *prng = &weather->prng;
  if (is_one_of(current_images(weather->mirror), i)) ask(weather, i, ops[prng_below(prng, COUNT_OF(ops))]);
  else if (!assume_one(weather, i)) ask(weather, i, prng_one_in(prng, 4) ? IMAGE_OP_SYNC : IMAGE_OP_RESTORE);
}

/* Of the master that is all that may be asked: another image in its place. */
static void replace_master(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  uint32_t i = weather_next_member(mirror, weather_master(mirror));
  if (is_one_of(current_images(mirror), i) && i != weather_master(mirror)) ask(weather, i, IMAGE_OP_PROMOTE);
}

static void command(struct weather *weather, uint32_t i) {
  static const enum mirror_image_op ops[] = {IMAGE_OP_FRACTURE, IMAGE_OP_FRACTURE, IMAGE_OP_SYNC, IMAGE_OP_SYNC,
                                             IMAGE_OP_REMOVE};
  struct prng *prng = &weather->prng;
  if (is_one_of(current_images(weather->mirror), i)) ask(weather, i, ops[prng_below(prng, COUNT_OF(ops))]);
  else ask(weather, i, prng_one_in(prng, 2) ? IMAGE_OP_SYNC : IMAGE_OP_RESTORE);
}

static void stop(struct sim_mirror *mirror) {
  mirror->rules.stopping = true;
  sim_mirror_deactivate(mirror);
}

static void change_something(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  struct prng *prng = &weather->prng;
  (void)sim_mirror_status(mirror);
  uint32_t i = weather_next_member(mirror, (uint32_t)prng_below(prng, mirror->image_count));
  if (mirror->serving && prng_one_in(prng, 3)) fail_one(weather, i);
  else if (mirror->busy) return;
  else if (prng_one_in(prng, 20)) stop(mirror);
  else if (prng_one_in(prng, 3) && commands_add(mirror)) return;
  else if (mirror->status.images[i].master) replace_master(weather);
  else if (mirror->quiet) command_quiet(weather, i);
  else command(weather, i);
}

static void wait_for_turn(struct weather *weather) {
  struct world *world = weather->mirror->world;
  uint64_t most_ns = prng_one_in(&weather->prng, 4) ? REST_MOST_NS : NS_PER_MS << prng_below(&weather->prng, 9);
  world_at(world, &weather->report, world_now(world) + prng_between(&weather->prng, 1000, most_ns));
}

static void turn(struct sim_event *event) {
  struct weather *weather = CONTAINER_OF(event, struct weather, report);
  struct sim_mirror *mirror = weather->mirror;
  if (!mirror->core || !(mirror->serving || mirror->quiet)) return;
  wait_for_turn(weather);
  if (mirror->serving && prng_one_in(&weather->prng, 2)) ask_for_writes(weather);
  change_something(weather);
}

/* ---- the activation ---- */

/* IMAGES_MAX: none is. */
static uint32_t draw_behind(struct weather *weather, const struct record *home) {
  const struct sim_mirror *mirror = weather->mirror;
  uint32_t i = (uint32_t)prng_below(&weather->prng, mirror->image_count);
  for (uint32_t k = 0; k < mirror->image_count; k++, i = (i + 1) % mirror->image_count)
    if (mirror->images[i].configured && home->images[i].present && home->images[i].state != IMAGE_SYNCHRONIZED)
      return i;
  return IMAGES_MAX;
}

struct mirror_activation rounds_activation(struct weather *weather) {
  struct mirror_activation how = {0};
  struct sim_mirror *mirror = weather->mirror;
  struct prng *prng = &weather->prng;
  struct record home;
  weather->rounds.seen = 0;
  weather->rounds.cut = false;
  weather->rounds.left = (uint32_t)prng_below(prng, prng_one_in(prng, 4) ? 3 : ROUNDS_MOST);
  uint64_t kind = prng_below(prng, 8);
  how.quiet = kind == 0;
  if (kind < 4 || !sim_record_load(&mirror->home, RECORD_SELF_HOME, &home)) return how;
  how.image = draw_behind(weather, &home);
  how.promote = how.force = kind != 7 && how.image != IMAGES_MAX;
  if (how.force) weather->rounds.left = 0;
  if (kind != 7) return how;
  how.image = weather_next_member(mirror, home.master % mirror->image_count);
  how.promote = home.images[how.image].state == IMAGE_SYNCHRONIZED;
  return how;
}

void rounds_begin(struct weather *weather) {
  if (weather->mirror->how.force)
    world_fail(weather->mirror->world, "an image became the master that was behind, though no record of it has landed");
  if (world_is_set(&weather->report)) return;
  weather->report.run = turn;
  wait_for_turn(weather);
}

/* ---- a round is cut ---- */

static enum round_cut draw_cut(struct weather *weather) {
  static const enum round_cut cuts[] = {CUT_NOT,        CUT_NOTHING,      CUT_ALL,
                                        CUT_ALL,        CUT_BUT_RECORD,   CUT_BUT_RECORD,
                                        CUT_BUT_RECORD, CUT_RECORD_ALONE, CUT_RECORD_ALONE};
  if (weather->mirror->how.force) return prng_one_in(&weather->prng, 4) ? CUT_NOTHING : CUT_BUT_RECORD;
  return cuts[prng_below(&weather->prng, COUNT_OF(cuts))];
}

static void cut(struct weather *weather) {
  static const char *const names[] = {"any part", "nothing", "all", "all but the record", "the record alone"};
  struct sim_mirror *mirror = weather->mirror;
  struct prng *prng = &weather->prng;
  enum round_cut common = draw_cut(weather);
  sim_mirror_cut(mirror, common);
  bool alike = prng_below(prng, 4) != 0;
  if (!alike && prng_one_in(prng, 2)) sim_drive_cut(&mirror->home, draw_cut(weather));
  for (uint32_t i = 0; i < mirror->image_count && !alike; i++)
    if (prng_one_in(prng, 2)) sim_drive_cut(&mirror->images[i].meta, draw_cut(weather));
  world_trace(mirror->world, "of this round lands: %s%s", names[common], alike ? "" : ", or something else");
  weather->rounds.cut = true;
  weather->rounds.in_command = mirror->busy;
  weather->rounds.cut_ns = world_now(mirror->world);
}

/* One that carries a record, and something else, is worth it. */
static bool is_worth_it(struct weather *weather) {
  const struct sim_mirror *mirror = weather->mirror;
  bool record = sim_drive_writes_record(&mirror->home);
  if (!mirror->served) return true; /* what was found is read again first */
  if (record && sim_mirror_writes_rest(mirror)) return true;
  return prng_one_in(&weather->prng, record ? 4 : 16);
}

static void look_for_round(struct weather *weather) {
  const struct sim_mirror *mirror = weather->mirror;
  uint64_t round = mirror_rounds_ended(mirror->core) + 1;
  if (!mirror_round_runs(mirror->core) || round == weather->rounds.seen) return;
  weather->rounds.seen = round;
  if (!is_worth_it(weather)) return;
  if (weather->rounds.left == 0) cut(weather);
  else weather->rounds.left--;
}

static void count(const struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  struct sim_counters *counters = &mirror->world->counters;
  bool record = mirror->home.cut_record, rest = false, held = sim_mirror_writes_rest(mirror);
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    record |= mirror->images[i].meta.cut_record;
    rest |= mirror->images[i].meta.cut_rest;
  }
  bool but_record = rest && !record && sim_drive_writes_record(&mirror->home), alone = record && !rest && held;
  counters->round_but_record += but_record;
  counters->round_record_alone += alone;
  counters->round_in_command += (but_record || alone) && weather->rounds.in_command && mirror->served;
  counters->round_promoting += but_record && mirror->how.force && !mirror->served;
}

bool rounds_watch(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  if (!mirror->core) return false;
  if (!weather->rounds.cut) {
    look_for_round(weather);
    return false;
  }
  bool late = world_now(mirror->world) - weather->rounds.cut_ns > CUT_MOST_NS;
  if (!late && !sim_mirror_is_cut(mirror)) return false;
  count(weather);
  return true;
}

void rounds_end(struct weather *weather, bool dies) {
  world_cancel(weather->mirror->world, &weather->report);
  if (weather->rounds.cut && !dies) sim_mirror_cut(weather->mirror, CUT_NOT);
}
