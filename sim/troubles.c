#include "sim/troubles.h"

#include "sim/node.h"
#include "sim/spoil.h"
#include "sim/strangers.h"

#define RECORDED_NS  (10 * NS_PER_S)
#define COPIED_NS    (900 * NS_PER_S)
#define HOLD_STEPS   20000 /* so long a life waits for its second trouble, */
#define AFTER_STEPS  4000  /* and goes on then */
#define TRIES_MAX    12
#define NEARLY_BYTES (64u << 10)
#define ANSWERED     4 /* writes, since the image has been flushed that joins */

static struct fault write_fails(enum fault_kind kind, uint64_t from_ns) {
  return (struct fault){
      .kind = kind, .ops = FAULT_WRITE, .from_ns = from_ns, .until_ns = UINT64_MAX, .end = UINT64_MAX, .err = TARN_IO};
}

static uint64_t now_of(const struct weather *weather) { return world_now(weather->mirror->world); }

static bool is_current(const struct sim_mirror *mirror, uint32_t i) {
  return mirror->status.images[i].present && mirror->status.images[i].state == IMAGE_SYNCHRONIZED;
}

static uint32_t current_count(struct sim_mirror *mirror) {
  uint32_t count = 0;
  (void)sim_mirror_status(mirror);
  for (uint32_t i = 0; i < mirror->image_count; i++) count += is_current(mirror, i);
  return count;
}

static void set_max_missing(struct sim_mirror *mirror, int32_t max_missing) {
  mirror->config.max_missing = max_missing;
  mirror_set_limits(mirror->core, max_missing, -1, mirror->config.read_master);
}

static void returns_after(struct weather *weather, uint64_t least_ns, uint64_t most_ns) {
  struct sim_mirror *mirror = weather->mirror;
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    struct image_policy *policy = &mirror->images[i].policy;
    policy->return_by_itself = true;
    policy->return_after_ns = prng_between(&weather->prng, least_ns, most_ns);
    if (mirror->images[i].configured) mirror_set_policy(mirror->core, i, policy);
  }
}

static void turn_at(struct weather *weather, uint64_t within_ns, void (*run)(struct sim_event *)) {
  struct world *world = weather->mirror->world;
  world_cancel(world, &weather->report);
  weather->report.run = run;
  world_at(world, &weather->report, world_now(world) + 1 + prng_below(&weather->prng, within_ns));
}

/* The clients wait meanwhile. */
static void wait_until_recovered(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  uint64_t deadline_ns = now_of(weather) + RECORDED_NS;
  while (mirror->serving && (mirror->recovering || current_count(mirror) < 2) && now_of(weather) < deadline_ns)
    node_step(mirror->node);
}

/* ---- a file is made shorter ---- */

static void spoil_turn(struct sim_event *event) {
  struct weather *weather = CONTAINER_OF(event, struct weather, report);
  struct sim_mirror *mirror = weather->mirror;
  if (!mirror->core || !mirror->serving) return;
  if (!mirror->recovering && sim_image_can_be_spoiled(mirror, weather->reported)) {
    sim_image_spoil(&mirror->images[weather->reported], &weather->prng);
    return;
  }
  if (weather->tries++ < 20) turn_at(weather, 40 * NS_PER_MS, spoil_turn);
}

static void strike_file(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  weather->reported = weather_next_member(mirror, (uint32_t)prng_below(&weather->prng, mirror->image_count));
  bool out = prng_one_in(&weather->prng, 4) && current_count(mirror) > 1;
  if (out) mirror_image_failed(mirror->core, weather->reported, "its file was removed");
  else set_max_missing(mirror, 0);
  turn_at(weather, 40 * NS_PER_MS, spoil_turn);
}

/* ---- an image fails in the commit of an activation ---- */

static void fail_in_activation(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  struct prng *prng = &weather->prng;
  uint32_t victim = weather_next_member(mirror, (uint32_t)prng_below(prng, mirror->image_count));
  struct fault fault = write_fails(prng_one_in(prng, 3) ? FAULT_GOOD : FAULT_ONCE, now_of(weather));
  fault.skip = fault.kind == FAULT_ONCE ? (uint32_t)prng_below(prng, 3) : 0;
  mirror->config.max_missing = 0;
  (void)faults_add(&mirror->images[victim].meta.faults, &fault);
}

/* ---- the mirror falls while an image joins ---- */

static void strike_joining(struct weather *weather) {
  weather->hold = HOLD_STEPS;
  returns_after(weather, NS_PER_MS, 20 * NS_PER_MS);
  weather->armed = true;
}

/* All are well: one leaves, to come back soon. */
static void lose_one(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  if (weather->tries == TRIES_MAX || mirror->recovering || current_count(mirror) < 2) return;
  weather->tries++;
  weather->reported = weather_next_member(mirror, weather_master(mirror));
  for (uint32_t c = 0; c < mirror->client_count; c++) client_more(&mirror->clients[c], 30);
  mirror_image_failed(mirror->core, weather->reported, "its file was removed");
}

/* The others are away for a while. */
static void leave_it_alone(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    struct sim_image *image = &mirror->images[i];
    if (i == weather->reported || !image->configured) continue;
    world_cancel(mirror->world, &image->plugging);
    image->absent = true;
    sim_image_plug(image, now_of(weather) + prng_between(&weather->prng, NS_PER_S, 20 * NS_PER_S));
  }
}

static void watch_joining(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  if (!weather->armed || !mirror->core || !mirror->serving || mirror->fallen) return;
  if (mirror->images[weather->reported].state == IMAGE_SYNCHRONIZED) {
    lose_one(weather);
    return;
  }
  if (mirror->images[weather->reported].state != IMAGE_SYNCHRONIZING) return;
  const struct mirror_image_status *image = &sim_mirror_status(mirror)->images[weather->reported];
  for (uint32_t c = 0; c < mirror->client_count && image->missed_bytes <= NEARLY_BYTES; c++)
    if (client_is_done(&mirror->clients[c])) client_more(&mirror->clients[c], 10); /* so that there is much in caches */
  bool joins = image->state == IMAGE_SYNCHRONIZING && image->missed_bytes == 0 && mirror_round_runs(mirror->core);
  uint64_t done = mirror->status.changes_done;
  if (!joins) weather->done_before = done;
  if (!joins || done < weather->done_before + ANSWERED || !prng_one_in(&weather->prng, 6)) return;
  weather->armed = false;
  mirror->world->counters.fell_joining++;
  world_trace(mirror->world, "image %s is about to join, and all others are gone",
              mirror->images[weather->reported].label);
  for (uint32_t i = 0; i < mirror->image_count && !mirror_has_fallen(mirror->core); i++)
    if (i != weather->reported && mirror->images[i].configured)
      mirror_image_failed(mirror->core, i, "its file was removed");
  leave_it_alone(weather);
  for (uint32_t c = 0; c < mirror->client_count; c++) client_more(&mirror->clients[c], 60);
  weather->hold = AFTER_STEPS;
}

/* ---- the source of a recovery is to leave ---- */

/* All is slow, so that the recovery takes a while. */
static void strike_source(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  struct fault fault = write_fails(FAULT_SLOW, now_of(weather));
  fault.ops = FAULT_READ;
  fault.until_ns = fault.from_ns + prng_between(&weather->prng, NS_PER_S / 20, NS_PER_S);
  for (uint32_t i = 0; i < mirror->image_count; i++) (void)faults_add(&mirror->images[i].data[0].faults, &fault);
  weather->armed = true;
}

static void watch_source(struct weather *weather) {
  static const enum mirror_image_op ops[] = {IMAGE_OP_REMOVE, IMAGE_OP_FRACTURE, IMAGE_OP_SYNC};
  struct sim_mirror *mirror = weather->mirror;
  struct record home;
  if (!weather->armed || mirror->busy || !mirror->serving || !mirror->recovering) return;
  if (!sim_record_load(&mirror->home, RECORD_SELF_HOME, &home)) return;
  uint32_t source = home.recovery_source;
  if (source >= mirror->image_count || !is_current(mirror, source) || mirror->status.images[source].master) return;
  if (prng_one_in(&weather->prng, 2)) return;
  weather->armed = weather->tries++ < 3;
  mirror->world->counters.source_asked++;
  sim_mirror_image_do(mirror, source, ops[prng_below(&weather->prng, COUNT_OF(ops))], prng_one_in(&weather->prng, 3));
}

/* ---- a block that cannot be written ---- */

static void strike_block(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  const struct workload *workload = &mirror->workloads[0];
  uint32_t spot = (uint32_t)prng_below(&weather->prng, COUNT_OF(workload->hot)), left = weather_master(mirror);
  struct fault fault = write_fails(FAULT_GOOD, now_of(weather));
  wait_until_recovered(weather);
  if (!mirror->serving || current_count(mirror) < 2) return;
  returns_after(weather, NS_PER_S / 10, NS_PER_S);
  fault.start = align_down(workload->hot[spot].start + prng_below(&weather->prng, workload->hot[spot].bytes), 4096);
  fault.end = min_u64(fault.start + 4096, mirror->config.volumes[0].size_bytes);
  for (uint32_t i = 0; i < mirror->image_count; i++)
    if (i != left && mirror->images[i].configured) mirror_image_failed(mirror->core, i, "its file was removed");
  (void)faults_add(&mirror->images[left].data[0].faults, &fault);
  weather->reported = left;
  weather->armed = true;
}

/* Somebody else has become good. */
static void settle_block(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  uint64_t deadline_ns = now_of(weather) + COPIED_NS;
  while (weather->armed && mirror->core && mirror->serving) {
    (void)sim_mirror_status(mirror);
    for (uint32_t i = 0; i < mirror->image_count; i++)
      if (i != weather->reported && is_current(mirror, i)) weather->armed = false;
    if (!weather->armed) mirror->world->counters.copied_past_block++;
    if (now_of(weather) > deadline_ns)
      world_fail(mirror->world, "a block of image %s cannot be written, and no other image becomes good",
                 mirror->images[weather->reported].label);
    if (weather->armed) node_step(mirror->node);
  }
}

/* ---- home alone ---- */

static void command_turn(struct sim_event *event) {
  static const enum mirror_image_op ops[] = {IMAGE_OP_FRACTURE, IMAGE_OP_RESTORE, IMAGE_OP_PROMOTE, IMAGE_OP_SYNC,
                                             IMAGE_OP_REMOVE};
  struct weather *weather = CONTAINER_OF(event, struct weather, report);
  struct sim_mirror *mirror = weather->mirror;
  if (!mirror->core || !mirror->serving) return;
  turn_at(weather, NS_PER_S, command_turn);
  if (mirror->busy) return;
  uint32_t i = weather_next_member(mirror, (uint32_t)prng_below(&weather->prng, mirror->image_count));
  mirror->world->counters.home_alone_commands++;
  sim_mirror_image_do(mirror, i, ops[prng_below(&weather->prng, COUNT_OF(ops))], false);
}

static bool is_recorded_as_out(const struct sim_mirror *mirror, uint32_t i) {
  struct record home;
  return sim_record_load(&mirror->home, RECORD_SELF_HOME, &home) && home.images[i].state != IMAGE_SYNCHRONIZED &&
         !mirror_round_runs(mirror->core);
}

/* One image is out, and that is recorded everywhere; then home fails. */
static void strike_home_alone(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  uint32_t i = weather_next_member(mirror, weather->anchor);
  if (i == weather->anchor || !sim_mirror_all_synchronized(mirror)) return;
  returns_after(weather, NS_PER_MS, NS_PER_S);
  mirror_image_failed(mirror->core, i, "its file was removed");
  uint64_t deadline_ns = now_of(weather) + RECORDED_NS;
  while (!is_recorded_as_out(mirror, i)) {
    if (now_of(weather) > deadline_ns)
      world_fail(mirror->world, "nobody records that image %s is out", mirror->images[i].label);
    node_step(mirror->node);
  }
  struct fault fault = write_fails(FAULT_GOOD, now_of(weather));
  fault.ops = FAULT_WRITE | FAULT_FLUSH;
  (void)faults_add(&mirror->home.faults, &fault);
  weather->home_troubled = true;
  mirror->world->counters.home_alone++;
  turn_at(weather, 100 * NS_PER_MS, command_turn);
}

/* ---- the moments of a life ---- */

void troubles_draw(struct weather *weather) {
  static const char *const names[] = {"a file is made shorter",    "an image fails in an activation",
                                      "a fall beside a join",      "a source is to leave",
                                      "a block cannot be written", "home alone"};
  bool quiet = weather->lives % 2 == 0;
  weather->trouble = (enum trouble)prng_below(&weather->prng, TROUBLE_COUNT);
  if (weather->trouble == TROUBLE_HOME && (!weather->settled || weather->anchor == NO_ANCHOR))
    weather->trouble = TROUBLE_SPOILED;
  weather->kind = quiet ? WEATHER_CALM : weather->trouble == TROUBLE_HOME ? WEATHER_STORM : WEATHER_CHAOS;
  weather->armed = false;
  weather->tries = weather->hold = 0;
  if (!quiet) world_trace(weather->mirror->world, "two troubles: %s", names[weather->trouble]);
}

void troubles_begin(struct weather *weather) {
  weather->mirror->config.max_missing = -1;
  if (weather->kind == WEATHER_CHAOS && weather->trouble == TROUBLE_ACTIVATION) fail_in_activation(weather);
}

struct mirror_activation troubles_activation(const struct weather *weather) {
  struct mirror_activation how = {0};
  struct record home;
  const struct sim_mirror *mirror = weather->mirror;
  bool promotes = weather->kind == WEATHER_CHAOS && weather->trouble == TROUBLE_SOURCE;
  if (!promotes || !sim_record_load(&mirror->home, RECORD_SELF_HOME, &home)) return how;
  how.promote = true; /* so that the source is not the master */
  how.image = weather_next_member(mirror, home.master % mirror->image_count);
  return how;
}

void troubles_strike(struct weather *weather) {
  if (weather->kind == WEATHER_CALM) return;
  switch (weather->trouble) {
    case TROUBLE_SPOILED: strike_file(weather); break;
    case TROUBLE_JOIN: strike_joining(weather); break;
    case TROUBLE_SOURCE: strike_source(weather); break;
    case TROUBLE_BLOCK: strike_block(weather); break;
    case TROUBLE_HOME: strike_home_alone(weather); break;
    case TROUBLE_ACTIVATION:
    case TROUBLE_COUNT: break;
  }
}

bool troubles_hold(struct weather *weather) {
  bool waits = weather->kind != WEATHER_CALM && weather->hold > 0 && node_can_step(weather->mirror->node);
  weather->hold -= waits;
  return waits;
}

void troubles_watch(struct weather *weather) {
  if (weather->kind == WEATHER_CALM) return;
  if (weather->trouble == TROUBLE_JOIN) watch_joining(weather);
  if (weather->trouble == TROUBLE_SOURCE) watch_source(weather);
}

/* So that the next life has much to recover. */
static void leave_a_mess(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  for (uint32_t c = 0; c < mirror->client_count; c++) client_more(&mirror->clients[c], 30);
  for (uint64_t steps = prng_between(&weather->prng, 100, 600); steps > 0; steps--) node_step(mirror->node);
}

void troubles_settle(struct weather *weather) {
  if (weather->kind == WEATHER_CALM && weather->mirror->serving && node_can_step(weather->mirror->node))
    leave_a_mess(weather);
  if (weather->kind != WEATHER_CALM && weather->trouble == TROUBLE_BLOCK) settle_block(weather);
}
