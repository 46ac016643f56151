/* The default mix, and narrower ones made of the same parts: a mirror is formatted and lives several lives, each from an
 * activation to a crash or a stop, under a load and in some weather; then the world is healed, and must be well. */
#include <inttypes.h>

#include "sim/scenario.h"
#include "sim/weather.h"

#define READ_ALL_BYTES (128u << 10)
#define HEAL_NS        (900 * NS_PER_S)

struct mix {
  struct world *world;
  struct node *node;
  struct prng prng;
  struct weather weather;
  uint32_t lives;
  uint32_t storm_percent, chaos_percent; /* of the lives, unless the seed is calm throughout */
  uint32_t budget_max;
  uint32_t quick_crash_percent; /* crashes soon after an activation */
  uint32_t stop_percent;        /* lives that end with a clean stop */
  uint32_t aimed_percent;       /* lives whose crash is aimed: crash_sooner() */
};

/* ---- what is drawn once for a seed ---- */

static void draw_node(struct mix *mix, struct node_options *options) {
  static const uint32_t images[] = {1, 2, 2, 2, 2, 3, 3, 3, 4, 8};
  static const uint64_t volumes[] = {256u << 10, 512u << 10, 1u << 20, 2u << 20, (3u << 20) + 512 * 7};
  static const uint32_t marks[] = {16, 16, 24, 64}, extents[] = {4096, 4096, 16384};
  static const uint64_t pools[] = {1500u << 10, 4u << 20, 8u << 20};
  struct prng *prng = &mix->prng;
  options->image_count = images[prng_below(prng, COUNT_OF(images))];
  options->volume_count = prng_one_in(prng, 4) ? 2 : 1;
  for (uint32_t v = 0; v < NODE_VOLUMES_MAX; v++)
    options->volume_bytes[v] = volumes[prng_below(prng, COUNT_OF(volumes))];
  options->mark_count = marks[prng_below(prng, COUNT_OF(marks))];
  options->extent_bytes = extents[prng_below(prng, COUNT_OF(extents))];
  options->pool_bytes = pools[prng_below(prng, COUNT_OF(pools))];
}

/* The first image is adopted with data on it; the others hold something old, or nothing. */
static void adopt_data(struct mix *mix) {
  struct node *node = mix->node;
  uint8_t page[4096];
  if (!prng_one_in(&mix->prng, 4)) return;
  bool junk = prng_one_in(&mix->prng, 2);
  for (uint32_t v = 0; v < node->volume_count; v++) {
    uint64_t size = align_down(node->config.volumes[v].size_bytes, 4096);
    for (uint64_t at = 0; at < size; at += 4096) {
      uint32_t tag = (uint32_t)prng_below(&mix->prng, 255);
      model_adopt(node->models[v], at, 4096, tag);
      model_fill(node->models[v], tag, at, 4096, page);
      medium_write(node->images[0].data[v].medium, at, 4096, page, true);
      for (uint32_t i = 1; i < node->image_count && junk; i++) {
        model_fill(node->models[v], (tag + i) % 255, at, 4096, page);
        medium_write(node->images[i].data[v].medium, at, 4096, page, true);
      }
    }
  }
  for (uint32_t i = 0; i < node->image_count; i++) node->images[i].blank = false;
}

static void add_clients(struct mix *mix) {
  static const char *const names[NODE_CLIENTS_MAX] = {"client0", "client1", "client2", "client3", "client4", "client5"};
  struct node *node = mix->node;
  node->client_count = (uint32_t)prng_between(&mix->prng, node->volume_count, NODE_CLIENTS_MAX);
  for (uint32_t c = 0; c < node->client_count; c++) {
    uint32_t volume = c % node->volume_count;
    struct client_options options = {.name = names[c],
                                     .model = node->models[volume],
                                     .workload = &node->workloads[volume],
                                     .rules = &node->rules,
                                     .recovering = &node->recovering,
                                     .index = c};
    client_init(&node->clients[c], mix->world, &options);
  }
}

static void mix_begin(struct mix *mix, const struct node_options *options) {
  struct node *node = mix->node;
  node_init(node, mix->world, options);
  adopt_data(mix);
  add_clients(mix);
  weather_init(&mix->weather, node);
  mix->weather.storm_percent = mix->storm_percent;
  mix->weather.chaos_percent = mix->chaos_percent;
  node_start(node);
  node_format(node);
  if (node->err != TARN_OK) world_fail(mix->world, "format failed: %s", node->why);
  node_stop(node);
}

/* ---- one life ---- */

static void crash(struct mix *mix) {
  bool power = prng_one_in(&mix->prng, 2);
  weather_end(&mix->weather, false);
  node_crash(mix->node, power);
}

/* True if the mirror serves; false if this life is over already. */
static bool life_begins(struct mix *mix) {
  struct node *node = mix->node;
  bool crash_early = prng_one_in(&mix->prng, 6);
  uint64_t steps = prng_between(&mix->prng, 1, prng_one_in(&mix->prng, 2) ? 60 : 1000);
  weather_begin(&mix->weather);
  node_start(node);
  if (!node_activate(node, crash_early ? steps : UINT64_MAX)) {
    crash(mix);
    return false;
  }
  if (node->err == TARN_OK) return true;
  if (weather_promises_activation(&mix->weather))
    world_fail(mix->world, "activation was refused, and nothing excuses it: %s", node->why);
  weather_end(&mix->weather, false);
  node_stop(node);
  return false;
}

/* False only in chaos, which promises no progress. */
static bool run_until_gone(struct mix *mix) {
  uint64_t deadline_ns = world_now(mix->world) + HEAL_NS;
  node_clients_leave(mix->node);
  while (!node_clients_gone(mix->node)) {
    bool late = world_now(mix->world) > deadline_ns;
    if (late && mix->weather.kind == WEATHER_CHAOS) return false;
    if (late) world_fail(mix->world, "a request is not answered");
    node_step(mix->node);
  }
  return true;
}

/* In chaos, or with a failing home store, nothing promises that a stop succeeds; then it is a crash. */
static void life_stops(struct mix *mix) {
  struct node *node = mix->node;
  bool under_load = prng_one_in(&mix->prng, 3);
  if (under_load) node->rules.stopping = true;
  else if (!run_until_gone(mix)) {
    crash(mix);
    return;
  }
  (void)node_deactivate(node, UINT64_MAX);
  if (node->err != TARN_OK && mix->weather.kind != WEATHER_CHAOS && !mix->weather.home_troubled)
    world_fail(mix->world, "deactivation failed: %s", node->why);
  bool gone = run_until_gone(mix);
  if (node->err == TARN_OK && gone) {
    weather_end(&mix->weather, true);
    node_stop(node);
  } else crash(mix);
}

static uint64_t faults_struck(const struct sim_counters *counters) {
  return counters->io_fails_once + counters->io_fails_for_a_while + counters->io_fails_for_good + counters->bad_sector;
}

/* Some moments are worth more crashes than chance would give them: after a fault, while an image is being taken out, and
 * while a client has seen what a recovery has not finished yet. Returns how many steps the life has left. */
static uint64_t crash_sooner(struct mix *mix, const struct sim_counters *before, uint64_t steps) {
  const struct sim_counters *now = &mix->world->counters;
  struct prng *prng = &mix->prng;
  uint64_t sooner = steps;
  if (now->image_failed != before->image_failed) sooner = prng_between(prng, 1, prng_one_in(prng, 2) ? 15 : 60);
  else if (faults_struck(now) != faults_struck(before) && prng_one_in(prng, 4)) sooner = prng_between(prng, 100, 200);
  else if (now->read_in_recovery != before->read_in_recovery && prng_one_in(prng, 8))
    sooner = prng_between(prng, 1, 40);
  return min_u64(steps, sooner);
}

/* After chaos a calm life lasts until all images are well, more often than not, so that there can be storms again. */
static void settle(struct mix *mix) {
  const struct weather *weather = &mix->weather;
  if (mix->node->calm || weather->kind != WEATHER_CALM || prng_one_in(&mix->prng, 4)) return;
  for (uint32_t steps = 0; steps < 20000 && !weather_all_sure(weather); steps++) node_step(mix->node);
}

static void life_of_mirror(struct mix *mix) {
  struct node *node = mix->node;
  if (!life_begins(mix)) return;
  bool aimed = prng_below(&mix->prng, 100) < mix->aimed_percent;
  bool quick = prng_below(&mix->prng, 100) < mix->quick_crash_percent;
  bool stop = prng_below(&mix->prng, 100) < mix->stop_percent;
  uint64_t steps = prng_between(&mix->prng, 1, quick ? 400 : 12000);
  weather_strike(&mix->weather);
  node_clients_start(node, (uint32_t)prng_between(&mix->prng, 10, mix->budget_max));
  uint64_t deadline_ns = world_now(mix->world) + HEAL_NS;
  for (; steps > 0 && !(stop && node_clients_done(node)); steps--) {
    if (mix->weather.kind != WEATHER_CHAOS && world_now(mix->world) > deadline_ns && !node_clients_done(node))
      world_fail(mix->world, "requests make no progress");
    struct sim_counters before = mix->world->counters;
    node_step(node);
    if (aimed && !stop) steps = crash_sooner(mix, &before, steps);
  }
  settle(mix);
  if (stop) life_stops(mix);
  else crash(mix);
}

/* ---- healed: it must be well ---- */

static void read_volume(struct mix *mix, uint32_t c) {
  struct node *node = mix->node;
  struct client *client = &node->clients[c];
  uint64_t size = client->model->size_bytes, deadline_ns = world_now(mix->world) + HEAL_NS;
  for (uint64_t at = 0; at < size;) {
    uint64_t bytes = min_u64(size - at, READ_ALL_BYTES);
    if (client->wire.ready && !client->wire.closing && client->open < CLIENT_DEPTH_MAX) {
      client_ask(client, MODEL_READ, at, bytes, false);
      at += bytes;
      continue;
    }
    if (!client->connected) world_fail(mix->world, "%s was lost while reading everything", client->name);
    if (world_now(mix->world) > deadline_ns) world_fail(mix->world, "reading everything takes for ever");
    node_step(node);
  }
}

static void wait_until_well(struct mix *mix) {
  struct node *node = mix->node;
  uint64_t deadline_ns = world_now(mix->world) + HEAL_NS;
  while (!node_clients_done(node)) {
    if (world_now(mix->world) > deadline_ns) world_fail(mix->world, "a request is not answered, though all is healed");
    node_step(node);
  }
  while (!node_all_synchronized(node)) {
    if (world_now(mix->world) > deadline_ns) {
      for (uint32_t i = 0; i < node->image_count; i++)
        world_trace(mix->world, "image %s: %s, misses %" PRIu64 ", %s", node->images[i].name,
                    image_state_name(node->status.images[i].state), node->status.images[i].missed_bytes,
                    node->status.images[i].sync.waiting_for);
      world_fail(mix->world, "the images do not become SYNCHRONIZED, though all is healed");
    }
    node_step(node);
  }
}

static void mix_end(struct mix *mix) {
  struct node *node = mix->node;
  node_heal(node);
  mix->weather.kind = WEATHER_CALM;
  world_trace(mix->world, "---- healed ----");
  node_start(node);
  (void)node_activate(node, UINT64_MAX);
  if (node->err != TARN_OK) world_fail(mix->world, "activation was refused, though all is healed: %s", node->why);
  for (uint32_t c = 0; c < node->client_count; c++) node->clients[c].drop_one_in = 0;
  node_clients_start(node, (uint32_t)prng_between(&mix->prng, 1, 40));
  wait_until_well(mix);
  for (uint32_t v = 0; v < node->volume_count; v++) read_volume(mix, v);
  (void)run_until_gone(mix);
  if (node_compare_images(node) < node->image_count && node->image_count > 1)
    world_fail(mix->world, "all is quiet, and the mirror does not call its images equal");
  (void)node_deactivate(node, UINT64_MAX);
  if (node->err != TARN_OK) world_fail(mix->world, "deactivation failed, though all is healed: %s", node->why);
  node_stop(node);
  node_compare_all(node);
}

/* ---- the scenarios ---- */

static void run_mix(struct mix *mix, const struct node_options *options) {
  mix_begin(mix, options);
  for (uint32_t life = 0; life < mix->lives; life++) life_of_mirror(mix);
  mix_end(mix);
}

static struct mix draw_mix(struct world *world, struct node *node) {
  struct mix mix = {.world = world, .node = node, .prng = world_stream(world, "mix", 0)};
  mix.lives = (uint32_t)prng_between(&mix.prng, 4, 16);
  mix.budget_max = prng_one_in(&mix.prng, 4) ? 600 : 200;
  mix.quick_crash_percent = 35;
  mix.stop_percent = 25;
  mix.aimed_percent = 50;
  return mix;
}

/* Recovery upon recovery, no disk fails. */
static void set_crash_recovery(struct mix *mix, struct node_options *options) {
  options->calm = true;
  options->image_count = (uint32_t)prng_between(&mix->prng, 2, 3);
  mix->lives = 12;
  mix->quick_crash_percent = 80;
  mix->stop_percent = 5;
  mix->aimed_percent = 90;
}

void scenario_mix(struct world *world, struct node *node) {
  struct mix mix = draw_mix(world, node);
  struct node_options options = {0};
  draw_node(&mix, &options);
  uint64_t pick = prng_below(&mix.prng, 5); /* two in five are calm throughout */
  options.calm = pick < 2;
  if (pick == 0) set_crash_recovery(&mix, &options);
  mix.storm_percent = 65;
  mix.chaos_percent = 15;
  run_mix(&mix, &options);
}

void scenario_crash_recovery(struct world *world, struct node *node) {
  struct mix mix = draw_mix(world, node);
  struct node_options options = {0};
  draw_node(&mix, &options);
  set_crash_recovery(&mix, &options);
  run_mix(&mix, &options);
}

void scenario_failing_image(struct world *world, struct node *node) {
  struct mix mix = draw_mix(world, node);
  struct node_options options = {.calm = false};
  draw_node(&mix, &options);
  options.image_count = (uint32_t)prng_between(&mix.prng, 2, 4);
  mix.storm_percent = 70;
  run_mix(&mix, &options);
}

void scenario_full_marks(struct world *world, struct node *node) {
  struct mix mix = draw_mix(world, node);
  struct node_options options = {.calm = true};
  draw_node(&mix, &options);
  options.image_count = 2;
  options.volume_count = 1;
  bool sectors = prng_one_in(&mix.prng, 2); /* so many marks that the log has several sectors */
  options.volume_bytes[0] = sectors ? 24u << 20 : 8u << 20;
  options.mark_count = sectors ? 300 : 16;
  run_mix(&mix, &options);
}
