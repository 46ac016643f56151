/* Scripted scenarios: stories whose trace a test quotes, and the tests of the checkers in place. */
#include <inttypes.h>

#include "sim/scenario.h"

/* ---- a small world in which everything takes a known time ---- */

static struct sim_mirror *quiet_mirror(struct world *world, struct node *node, uint32_t image_count) {
  struct sim_mirror_options options = {.image_count = image_count,
                                       .volume_count = 1,
                                       .volume_bytes = {1u << 20},
                                       .extent_bytes = 4096,
                                       .mark_count = 16,
                                       .calm = true};
  node_init(node, world, 4u << 20);
  node->mirror_count = 1;
  struct sim_mirror *mirror = &node->mirrors[0];
  sim_mirror_init(mirror, node, 0, &options);
  for (uint32_t i = 0; i < image_count; i++) {
    mirror->images[i].meta.traced = false;
    mirror->images[i].data[0].latency_ns = 0;
    mirror->images[i].data[0].caps.block_bytes = mirror->images[i].data[0].caps.align_bytes = 512;
  }
  mirror->home.traced = false;
  mirror->client_count = 1;
  struct client_options client = {.name = "client",
                                  .model = mirror->models[0],
                                  .workload = &mirror->workloads[0],
                                  .rules = &mirror->rules,
                                  .recovering = &mirror->recovering};
  client_init(&mirror->clients[0], world, &client);
  mirror->clients[0].drop_one_in = 0;
  return mirror;
}

static void serve(struct sim_mirror *mirror) {
  struct node *node = mirror->node;
  struct wire_options wire = {
      .pool = &node->pool, .exports = &node->exports, .export_name = mirror->export_names[0], .whole = true};
  node_start(node);
  sim_mirror_open(mirror);
  sim_mirror_format(mirror);
  (void)sim_mirror_wait(mirror, UINT64_MAX);
  sim_mirror_close(mirror);
  sim_mirror_open(mirror);
  sim_mirror_activate(mirror, NULL);
  (void)sim_mirror_wait(mirror, UINT64_MAX);
  if (mirror->err != TARN_OK) world_fail(mirror->world, "activation failed: %s", mirror->why);
  client_start(&mirror->clients[0], &wire, 0);
  while (!mirror->clients[0].wire.ready) node_step(node);
}

static void run_until_answered(struct sim_mirror *mirror) {
  while (mirror->clients[0].open > 0) node_step(mirror->node);
}

static void stop_serving(struct sim_mirror *mirror) {
  sim_mirror_clients_leave(mirror);
  while (!sim_mirror_clients_gone(mirror)) node_step(mirror->node);
  sim_mirror_deactivate(mirror);
  (void)sim_mirror_wait(mirror, UINT64_MAX);
  sim_mirror_close(mirror);
  node_stop(mirror->node);
}

/* ---- two writes ---- */

void scenario_two_writes(struct world *world, struct node *node) {
  struct sim_mirror *mirror = quiet_mirror(world, node, 2);
  serve(mirror);
  struct client *client = &mirror->clients[0];
  client_ask(client, MODEL_WRITE, 0, 512, false); /* marks the region, so that what follows has no wait for that */
  run_until_answered(mirror);
  world_trace(world, "-- two disjoint writes");
  client_ask(client, MODEL_WRITE, 4096, 4096, false);
  client_ask(client, MODEL_WRITE, 12288, 4096, false);
  run_until_answered(mirror);
  world_trace(world, "-- two overlapping writes");
  client_ask(client, MODEL_WRITE, 4096, 4096, false);
  client_ask(client, MODEL_WRITE, 6144, 4096, false);
  run_until_answered(mirror);
  world_trace(world, "-- the end");
  stop_serving(mirror);
  sim_mirror_compare_all(mirror);
}

/* ---- the checkers are shown wrong bytes ---- */

/* Runs `wrong` in a copy of the failure path: it must fail the world. */
static void must_fail(struct sim_mirror *mirror, const char *what, void (*wrong)(struct sim_mirror *mirror)) {
  struct world *world = mirror->world;
  sigjmp_buf here, *outer = world->failed;
  volatile bool found = true;
  world->failed = &here;
  if (sigsetjmp(here, 0) == 0) {
    wrong(mirror);
    found = false;
  }
  world->failed = outer;
  if (!found) world_fail(world, "not found: %s", what);
  world_trace(world, "found %s: %s", what, world->failure);
}

static void flip(struct sim_mirror *mirror, uint32_t image, uint64_t offset) {
  struct medium *medium = mirror->images[image].data[0].medium;
  medium->visible[offset] ^= 0x10;
  bitmap_set(&medium->touched, offset / MEDIUM_PAGE);
}

static void wait_for_comparison(struct sim_mirror *mirror) {
  uint64_t deadline_ns = world_now(mirror->world) + 30 * NS_PER_S;
  while (world_now(mirror->world) < deadline_ns) node_step(mirror->node);
}

static void read_back(struct sim_mirror *mirror) {
  client_ask(&mirror->clients[0], MODEL_READ, 0, 65536, false);
  run_until_answered(mirror);
}

void scenario_self_test(struct world *world, struct node *node) {
  struct prng prng = world_stream(world, "self-test", 0);
  struct sim_mirror *mirror = quiet_mirror(world, node, 2);
  serve(mirror);
  client_ask(&mirror->clients[0], MODEL_WRITE, 0, 65536, false);
  run_until_answered(mirror);
  uint64_t offset = prng_below(&prng, 65536);
  wait_for_comparison(mirror);
  flip(mirror, 1, offset);
  must_fail(mirror, "a byte that differs between images called equal", wait_for_comparison);
  flip(mirror, 0, offset); /* now both are wrong, and equal */
  wait_for_comparison(mirror);
  must_fail(mirror, "a byte that nobody wrote", read_back);
}
