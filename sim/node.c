#include "sim/node.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static struct nbd_export *exports_find(struct nbd_exports *exports, const char *name) {
  struct node *node = CONTAINER_OF(exports, struct node, exports);
  for (uint32_t v = 0; v < node->volume_count; v++)
    if (strcmp(node->export_list[v].name, name) == 0) return &node->export_list[v];
  return NULL;
}

static struct nbd_export *exports_at(struct nbd_exports *exports, uint32_t index) {
  struct node *node = CONTAINER_OF(exports, struct node, exports);
  return index < node->volume_count ? &node->export_list[index] : NULL;
}

static const char *const volume_names[NODE_VOLUMES_MAX] = {"vol0", "vol1"};

static void fill_config(struct node *node, const struct node_options *options) {
  struct mirror_config *config = &node->config;
  snprintf(config->name, sizeof config->name, "m");
  snprintf(config->node, sizeof config->node, "n1");
  config->region_bytes = 64u << 10;
  config->extent_bytes = options->extent_bytes;
  config->mark_count = options->mark_count;
  config->max_missing = config->min_images = -1;
  config->volume_count = options->volume_count;
  config->image_count = options->image_count;
  for (uint32_t v = 0; v < options->volume_count; v++) {
    snprintf(config->volumes[v].name, sizeof config->volumes[v].name, "%s", volume_names[v]);
    config->volumes[v].size_bytes = options->volume_bytes[v];
  }
  for (uint32_t i = 0; i < options->image_count; i++) {
    snprintf(config->images[i].name, sizeof config->images[i].name, "%c", 'a' + (int)i);
    snprintf(config->images[i].node, sizeof config->images[i].node, "n1");
  }
}

static void image_init(struct node *node, uint32_t i, const struct node_options *options, uint64_t meta_bytes) {
  struct node_image *image = &node->images[i];
  char name[32];
  snprintf(image->name, sizeof image->name, "%c", 'a' + (int)i);
  image->blank = true;
  struct prng prng = world_stream(node->world, "size", i);
  for (uint32_t v = 0; v < options->volume_count; v++) {
    uint64_t larger =
        prng_one_in(&prng, 3) ? 4096 * prng_below(&prng, 9) : 0; /* a disk may be larger than its volume */
    uint64_t bytes = align_up(options->volume_bytes[v], MEDIUM_PAGE) + larger;
    snprintf(name, sizeof name, "%s.%s", image->name, volume_names[v]);
    sim_drive_init(&image->data[v], node->world, name, i * 10 + v, bytes, ROLE_DATA);
    uint64_t pages = bytes / MEDIUM_PAGE;
    bitmap_init(&image->unverified[v], world_alloc(node->world, bitmap_bytes(pages)), pages);
  }
  snprintf(name, sizeof name, "%s.meta", image->name);
  sim_drive_init(&image->meta, node->world, name, i * 10 + 9, align_up(meta_bytes, MEDIUM_PAGE), ROLE_META);
}

void node_init(struct node *node, struct world *world, const struct node_options *options) {
  require(options->image_count <= NODE_IMAGES_MAX);
  require(options->volume_count <= NODE_VOLUMES_MAX);
  memset(node, 0, sizeof *node);
  node->world = world;
  node->image_count = options->image_count;
  node->volume_count = options->volume_count;
  node->pool_bytes = options->pool_bytes;
  node->calm = options->calm;
  fill_config(node, options);
  const char *wrong = mirror_config_check(&node->config);
  if (wrong) world_fail(world, "the mirror's settings are refused: %s", wrong);
  uint64_t meta_bytes = mirror_meta_bytes(&node->config);
  for (uint32_t i = 0; i < node->image_count; i++) image_init(node, i, options, meta_bytes);
  sim_drive_init(&node->home, world, "home", 1000, RECORD_AREA_BYTES, ROLE_HOME);
  struct prng slow = world_stream(world, "slow metadata", 0);
  if (prng_one_in(&slow, 3)) { /* data is written long before metadata is: the windows that matter are wide */
    for (uint32_t i = 0; i < node->image_count; i++) node->images[i].meta.latency_ns = 2 * NS_PER_MS;
    node->home.latency_ns = 2 * NS_PER_MS;
  }
  node->exports = (struct nbd_exports){.find = exports_find, .at = exports_at};
  struct prng prng = world_stream(world, "workload", 0);
  for (uint32_t v = 0; v < node->volume_count; v++) {
    node->models[v] = model_new(world, v, options->volume_bytes[v], options->calm);
    workload_draw(&node->workloads[v], &prng, options->volume_bytes[v]);
  }
}

static void node_end_process(struct node *node) {
  arena_destroy(&node->arena);
  world_forget_process(node->world);
  node->mirror = NULL;
  node->running = node->busy = node->recovering = false;
}

void node_destroy(struct node *node) {
  if (node->running) node_end_process(node);
}

/* ---- the process begins ---- */

static void mirror_has_changed(struct mirror *mirror) {
  struct node *node = mirror_owner(mirror);
  node->status_stale = true;
}

static void open_image(struct node *node, uint32_t i) {
  struct node_image *image = &node->images[i];
  struct mirror_image_config *config = &node->config.images[i];
  config->blank = image->blank;
  config->policy = image_policy_default;
  config->meta = image->absent ? NULL : sim_disk_open(&image->meta);
  config->error = image->absent ? "it was taken away" : NULL;
  for (uint32_t v = 0; v < node->volume_count; v++)
    config->data[v] = image->absent ? NULL : sim_disk_open(&image->data[v]);
}

void node_start(struct node *node) {
  require(!node->running);
  arena_init(&node->arena);
  if (buffer_pool_init(&node->pool, &node->world->env, &node->arena, node->pool_bytes) != TARN_OK)
    world_fail(node->world, "no memory for the pool");
  for (uint32_t i = 0; i < node->image_count; i++) open_image(node, i);
  node->config.home = sim_disk_open(&node->home);
  struct mirror_options options = {.env = &node->world->env,
                                   .arena = &node->arena,

                                   .config = &node->config,
                                   .owner = node,
                                   .changed = mirror_has_changed};
  node->running = true;
  node->mirror = mirror_open(&options);
  if (!node->mirror) world_fail(node->world, "no memory for the mirror");
  arena_freeze(&node->arena);
  node->status_stale = true;
  for (uint32_t v = 0; v < node->volume_count; v++)
    node->export_list[v] = (struct nbd_export){.name = volume_names[v], .disk = mirror_volume(node->mirror, v)};
}

/* ---- the process ends ---- */

void node_stop(struct node *node) {
  require(node->running);
  require(!node->busy);
  if (!mirror_is_idle(node->mirror)) world_fail(node->world, "the mirror is not idle, though it was stopped");
  mirror_close(node->mirror);
  node->mirror = NULL;
  if (!buffer_pool_is_whole(&node->pool)) world_fail(node->world, "buffers are missing from the pool after a stop");
  for (uint32_t i = 0; i < node->image_count; i++) {
    if (node->images[i].absent) continue;
    disk_close(node->config.images[i].meta);
    for (uint32_t v = 0; v < node->volume_count; v++) disk_close(node->config.images[i].data[v]);
  }
  disk_close(node->config.home);
  node_end_process(node);
}

/* A flush that failed in chaos, and that no client was told of before the process died. */
static void tell_doubt(struct node *node) {
  uint64_t failures = 0;
  for (uint32_t i = 0; i < node->image_count; i++) {
    for (uint32_t v = 0; v < node->volume_count; v++) {
      failures += node->images[i].data[v].flush_failures;
      node->images[i].data[v].flush_failures = 0;
    }
  }
  if (failures == 0 || !node->rules.errors_allowed) return;
  for (uint32_t v = 0; v < node->volume_count; v++) model_doubt(node->models[v]);
}

void node_crash(struct node *node, bool power) {
  struct world *world = node->world;
  world_trace(world, "---- %s ----", power ? "power is lost" : "the process dies");
  if (power) world->counters.crash_power++;
  else world->counters.crash_kill++;
  if (node->recovering) world->counters.crash_in_recovery++;
  for (uint32_t i = 0; i < node->image_count; i++) {
    for (uint32_t v = 0; v < node->volume_count; v++) sim_drive_crash(&node->images[i].data[v], power);
    sim_drive_crash(&node->images[i].meta, power);
  }
  sim_drive_crash(&node->home, power);
  for (uint32_t v = 0; v < node->volume_count; v++) model_crash(node->models[v], power);
  tell_doubt(node);
  for (uint32_t c = 0; c < node->client_count; c++) client_forget(&node->clients[c]);
  if (node->running) node_end_process(node);
}

/* ---- operations ---- */

static void operation_done(struct mirror *mirror, tarn_err err, const char *why, void *context) {
  struct node *node = context;
  require(node->mirror == mirror);
  require(node->busy);
  node->busy = false;
  node->err = err;
  snprintf(node->why, sizeof node->why, "%s", why ? why : "");
  world_trace(node->world, "mirror: %s%s%s", tarn_err_text(err), node->why[0] ? ": " : "", node->why);
}

static bool run_operation(struct node *node, uint64_t steps) {
  uint64_t deadline_ns = world_now(node->world) + 600 * NS_PER_S;
  for (; node->busy; steps--) {
    if (steps == 0) return false;
    if (world_now(node->world) > deadline_ns) world_fail(node->world, "an operation on the mirror takes for ever");
    node_step(node);
  }
  return true;
}

bool node_format(struct node *node) {
  world_trace(node->world, "format");
  node->busy = true;
  mirror_format(node->mirror, false, operation_done, node);
  return run_operation(node, UINT64_MAX);
}

bool node_activate(struct node *node, uint64_t steps) {
  world_trace(node->world, "activate");
  node->busy = true;
  mirror_activate(node->mirror, &(struct mirror_activation){0}, operation_done, node);
  if (!run_operation(node, steps)) {
    node->world->counters.crash_in_activation++;
    return false;
  }
  if (node->err == TARN_OK) node->world->counters.activated++;
  else node->world->counters.refused++;
  return true;
}

bool node_deactivate(struct node *node, uint64_t steps) {
  world_trace(node->world, "deactivate");
  node->busy = true;
  mirror_deactivate(node->mirror, false, operation_done, node);
  if (!run_operation(node, steps)) return false;
  if (node->err == TARN_OK) node->world->counters.deactivated++;
  return true;
}

/* ---- clients ---- */

void node_clients_start(struct node *node, uint32_t budget) {
  struct prng prng = world_stream(node->world, "wires", node->world->counters.activated);
  for (uint32_t c = 0; c < node->client_count; c++) {
    struct client *client = &node->clients[c];
    uint32_t volume = c % node->volume_count;
    struct wire_options wire = {.pool = &node->pool,
                                .exports = &node->exports,
                                .export_name = volume_names[volume],
                                .whole = prng_one_in(&prng, 3)};
    client_start(client, &wire, budget);
  }
}

void node_clients_leave(struct node *node) {
  for (uint32_t c = 0; c < node->client_count; c++) client_leave(&node->clients[c]);
}

bool node_clients_done(const struct node *node) {
  for (uint32_t c = 0; c < node->client_count; c++)
    if (!client_is_done(&node->clients[c])) return false;
  return true;
}

bool node_clients_gone(const struct node *node) {
  for (uint32_t c = 0; c < node->client_count; c++)
    if (!client_is_gone(&node->clients[c])) return false;
  return true;
}

void node_heal(struct node *node) {
  for (uint32_t i = 0; i < node->image_count; i++) {
    for (uint32_t v = 0; v < node->volume_count; v++) faults_heal(&node->images[i].data[v].faults);
    faults_heal(&node->images[i].meta.faults);
    node->images[i].absent = false;
  }
  faults_heal(&node->home.faults);
  node->rules = (struct client_rules){0};
}
