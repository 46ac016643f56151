#include "sim/node.h"

#include <string.h>

#define STEPS_MAX         5000000ull
#define STEPS_AT_ONCE_MAX 100000u /* events without time passing */

static struct nbd_export *exports_find(struct nbd_exports *exports, const char *name) {
  struct node *node = CONTAINER_OF(exports, struct node, exports);
  EACH_MIRROR(node, mirror)
  for (uint32_t v = 0; v < mirror->volume_count; v++)
    if (strcmp(mirror->export_names[v], name) == 0) return &mirror->exports[v];
  return NULL;
}

static struct nbd_export *exports_at(struct nbd_exports *exports, uint32_t index) {
  struct node *node = CONTAINER_OF(exports, struct node, exports);
  EACH_MIRROR(node, mirror) {
    if (index < mirror->volume_count) return &mirror->exports[index];
    index -= mirror->volume_count;
  }
  return NULL;
}

void node_init(struct node *node, struct world *world, uint64_t pool_bytes) {
  memset(node, 0, sizeof *node);
  node->world = world;
  node->pool_bytes = pool_bytes;
  node->exports = (struct nbd_exports){.find = exports_find, .at = exports_at};
}

void node_start(struct node *node) {
  require(!node->running);
  arena_init(&node->arena);
  if (buffer_pool_init(&node->pool, &node->world->env, &node->arena, node->pool_bytes) != TARN_OK)
    world_fail(node->world, "no memory for the pool");
  EACH_MIRROR(node, mirror) sim_mirror_start(mirror);
  arena_freeze(&node->arena);
  node->running = true;
}

static void end_process(struct node *node) {
  EACH_MIRROR(node, mirror) {
    if (mirror->core) arena_destroy(&mirror->arena);
    mirror->core = NULL;
    mirror->busy = mirror->recovering = false;
  }
  arena_destroy(&node->arena);
  world_forget_process(node->world);
  node->running = false;
}

void node_destroy(struct node *node) {
  if (node->running) end_process(node);
}

void node_stop(struct node *node) {
  require(node->running);
  EACH_MIRROR(node, mirror) require(mirror->core == NULL);
  if (!buffer_pool_is_whole(&node->pool)) world_fail(node->world, "buffers are missing from the pool after a stop");
  end_process(node);
}

void node_crash(struct node *node, bool power) {
  struct world *world = node->world;
  world_trace(world, "---- %s ----", power ? "power is lost" : "the process dies");
  if (power) world->counters.crash_power++;
  else world->counters.crash_kill++;
  EACH_MIRROR(node, mirror) sim_mirror_crash(mirror, power);
  if (node->running) end_process(node);
}

bool node_can_step(const struct node *node) { return world_can_step(node->world); }

void node_step(struct node *node) {
  struct world *world = node->world;
  if (!world_step(world)) world_fail(world, "nothing can ever happen any more, and something is waited for");
  if (world->steps > STEPS_MAX) world_fail(world, "the run does not end");
  if (world_now(world) != node->step_ns) node->steps_at_once = 0;
  node->step_ns = world_now(world);
  if (++node->steps_at_once > STEPS_AT_ONCE_MAX) world_fail(world, "events follow events, and time stands still");
  EACH_MIRROR(node, mirror) {
    sim_mirror_watch(mirror);
    sim_mirror_keep(mirror);
  }
}
