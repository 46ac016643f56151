/* Scripted scenarios: stories whose trace a test quotes, and the tests of the checkers in place. */
#include <inttypes.h>

#include "sim/scenario.h"

/* ---- a small world in which everything takes a known time ---- */

static void quiet_node(struct world *world, struct node *node, uint32_t image_count) {
  struct node_options options = {.image_count = image_count,
                                 .volume_count = 1,
                                 .volume_bytes = {1u << 20},
                                 .extent_bytes = 4096,
                                 .mark_count = 16,
                                 .pool_bytes = 4u << 20,
                                 .calm = true};
  node_init(node, world, &options);
  for (uint32_t i = 0; i < image_count; i++) {
    node->images[i].meta.traced = false;
    node->images[i].data[0].latency_ns = 0;
    node->images[i].data[0].caps.block_bytes = node->images[i].data[0].caps.align_bytes = 512;
  }
  node->home.traced = false;
  node->client_count = 1;
  struct client_options client = {.name = "client",
                                  .model = node->models[0],
                                  .workload = &node->workloads[0],
                                  .rules = &node->rules,
                                  .recovering = &node->recovering};
  client_init(&node->clients[0], world, &client);
  node->clients[0].drop_one_in = 0;
}

static void serve(struct node *node) {
  struct wire_options wire = {.pool = &node->pool, .exports = &node->exports, .export_name = "vol0", .whole = true};
  node_start(node);
  node_format(node);
  node_stop(node);
  node_start(node);
  node_activate(node, UINT64_MAX);
  if (node->err != TARN_OK) world_fail(node->world, "activation failed: %s", node->why);
  client_start(&node->clients[0], &wire, 0);
  while (!node->clients[0].wire.ready) node_step(node);
}

static void run_until_answered(struct node *node) {
  while (node->clients[0].open > 0) node_step(node);
}

static void stop_serving(struct node *node) {
  node_clients_leave(node);
  while (!node_clients_gone(node)) node_step(node);
  node_deactivate(node, UINT64_MAX);
  node_stop(node);
}

/* ---- two writes ---- */

void scenario_two_writes(struct world *world, struct node *node) {
  quiet_node(world, node, 2);
  serve(node);
  struct client *client = &node->clients[0];
  client_ask(client, MODEL_WRITE, 0, 512, false); /* marks the region, so that what follows has no wait for that */
  run_until_answered(node);
  world_trace(world, "-- two disjoint writes");
  client_ask(client, MODEL_WRITE, 4096, 4096, false);
  client_ask(client, MODEL_WRITE, 12288, 4096, false);
  run_until_answered(node);
  world_trace(world, "-- two overlapping writes");
  client_ask(client, MODEL_WRITE, 4096, 4096, false);
  client_ask(client, MODEL_WRITE, 6144, 4096, false);
  run_until_answered(node);
  world_trace(world, "-- the end");
  stop_serving(node);
  node_compare_all(node);
}

/* ---- the checkers are shown wrong bytes ---- */

/* Runs `wrong` in a copy of the failure path: it must fail the world. */
static void must_fail(struct world *world, struct node *node, const char *what, void (*wrong)(struct node *node)) {
  sigjmp_buf here, *outer = world->failed;
  volatile bool found = true;
  world->failed = &here;
  if (sigsetjmp(here, 0) == 0) {
    wrong(node);
    found = false;
  }
  world->failed = outer;
  if (!found) world_fail(world, "not found: %s", what);
  world_trace(world, "found %s: %s", what, world->failure);
}

static void flip(struct node *node, uint32_t image, uint64_t offset) {
  struct medium *medium = node->images[image].data[0].medium;
  medium->visible[offset] ^= 0x10;
  bitmap_set(&medium->touched, offset / MEDIUM_PAGE);
}

static void wait_for_comparison(struct node *node) {
  uint64_t deadline_ns = world_now(node->world) + 30 * NS_PER_S;
  while (world_now(node->world) < deadline_ns) node_step(node);
}

static void read_back(struct node *node) {
  client_ask(&node->clients[0], MODEL_READ, 0, 65536, false);
  run_until_answered(node);
}

void scenario_self_test(struct world *world, struct node *node) {
  struct prng prng = world_stream(world, "self-test", 0);
  quiet_node(world, node, 2);
  serve(node);
  client_ask(&node->clients[0], MODEL_WRITE, 0, 65536, false);
  run_until_answered(node);
  uint64_t offset = prng_below(&prng, 65536);
  wait_for_comparison(node);
  flip(node, 1, offset);
  must_fail(world, node, "a byte that differs between images called equal", wait_for_comparison);
  flip(node, 0, offset); /* now both are wrong, and equal */
  wait_for_comparison(node);
  must_fail(world, node, "a byte that nobody wrote", read_back);
}
