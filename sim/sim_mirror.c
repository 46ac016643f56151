#include "sim/sim_mirror.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "sim/node.h"

#define GATE_SLOTS 64u /* fewer than clients may ask for */

static const char *const volume_names[SIM_VOLUMES_MAX] = {"vol0", "vol1"};

static void try_again(struct sim_event *event);

/* ---- made once ---- */

/* Streams of chance and names of disks differ between mirrors. */
static uint64_t stream_of(const struct sim_mirror *mirror, uint64_t index) { return mirror->index * 100000ull + index; }

static void fill_config(struct sim_mirror *mirror, const struct sim_mirror_options *options) {
  struct mirror_config *config = &mirror->config;
  snprintf(config->name, sizeof config->name, "%s", mirror->name);
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

static void drive_init(struct sim_mirror *mirror, struct sim_drive *drive, const char *name, uint64_t index,
                       uint64_t bytes, enum disk_role role) {
  char full[32];
  if (mirror->index == 0) snprintf(full, sizeof full, "%s", name);
  else snprintf(full, sizeof full, "%s:%s", mirror->name, name);
  sim_drive_init(drive, mirror->world, full, stream_of(mirror, index), bytes, role);
}

static void image_reopens(struct sim_event *event);

/* Patience is short, so that lives of seconds see its end. */
static void draw_policy(struct image_policy *policy, struct prng *prng) {
  policy->hang_ns = prng_between(prng, NS_PER_S / 10, 2 * NS_PER_S);
  policy->return_by_itself = !prng_one_in(prng, 5);
  policy->return_after_ns = prng_between(prng, NS_PER_S / 50, prng_one_in(prng, 2) ? NS_PER_S / 5 : 3 * NS_PER_S);
  policy->rate = prng_one_in(prng, 8) ? prng_between(prng, 1u << 20, 64u << 20) : 0;
}

static void image_init(struct sim_mirror *mirror, uint32_t i) {
  struct sim_image *image = &mirror->images[i];
  char name[TARN_NAME_MAX + 8];
  snprintf(image->name, sizeof image->name, "%c", 'a' + (int)i);
  snprintf(image->label, sizeof image->label, "%s%s%s", mirror->index ? mirror->name : "", mirror->index ? ":" : "",
           image->name);
  image->mirror = mirror;
  image->blank = true;
  image->reopening.run = image_reopens;
  struct prng policy = world_stream(mirror->world, "policy", stream_of(mirror, i));
  draw_policy(&image->policy, &policy);
  image->rots = prng_one_in(&policy, 2);
  struct prng prng = world_stream(mirror->world, "size", stream_of(mirror, i));
  for (uint32_t v = 0; v < mirror->volume_count; v++) {
    uint64_t larger = prng_one_in(&prng, 3) ? 4096 * prng_below(&prng, 9) : 0; /* than its volume */
    uint64_t bytes = align_up(mirror->config.volumes[v].size_bytes, MEDIUM_PAGE) + larger;
    snprintf(name, sizeof name, "%s.%s", image->name, volume_names[v]);
    drive_init(mirror, &image->data[v], name, i * 10 + v, bytes, ROLE_DATA);
    uint64_t pages = bytes / MEDIUM_PAGE;
    bitmap_init(&image->unverified[v], world_alloc(mirror->world, bitmap_bytes(pages)), pages);
  }
  snprintf(name, sizeof name, "%s.meta", image->name);
  drive_init(mirror, &image->meta, name, i * 10 + 9, align_up(mirror->layout.meta_bytes, MEDIUM_PAGE), ROLE_META);
  image->meta.layout = &mirror->layout;
}

void sim_mirror_init(struct sim_mirror *mirror, struct node *node, uint32_t index,
                     const struct sim_mirror_options *options) {
  struct world *world = node->world;
  require(options->image_count <= SIM_IMAGES_MAX);
  require(options->volume_count <= SIM_VOLUMES_MAX);
  memset(mirror, 0, sizeof *mirror);
  mirror->node = node;
  mirror->world = world;
  mirror->index = index;
  mirror->image_count = options->image_count;
  mirror->volume_count = options->volume_count;
  mirror->calm = options->calm;
  mirror->prng = world_stream(world, "mirror", stream_of(mirror, 0));
  mirror->again.run = try_again;
  mirror->suspend_ns = prng_one_in(&mirror->prng, 4) ? 0 : prng_between(&mirror->prng, NS_PER_MS, 10 * NS_PER_S);
  snprintf(mirror->name, sizeof mirror->name, "m%u", (index + 1) % 100);
  fill_config(mirror, options);
  const char *wrong = mirror_config_check(&mirror->config);
  if (wrong) world_fail(world, "the mirror's settings are refused: %s", wrong);
  geometry_init(&mirror->layout, options->volume_count, options->volume_bytes, mirror->config.region_bytes,
                mirror->config.extent_bytes, mirror->config.mark_count);
  require(mirror->layout.meta_bytes == mirror_meta_bytes(&mirror->config));
  for (uint32_t i = 0; i < mirror->image_count; i++) image_init(mirror, i);
  drive_init(mirror, &mirror->home, "home", 1000, RECORD_AREA_BYTES, ROLE_HOME);
  struct prng slow = world_stream(world, "slow metadata", stream_of(mirror, 0));
  if (prng_one_in(&slow, 3)) { /* data is written long before metadata is: the windows that matter are wide */
    for (uint32_t i = 0; i < mirror->image_count; i++) mirror->images[i].meta.latency_ns = 2 * NS_PER_MS;
    mirror->home.latency_ns = 2 * NS_PER_MS;
  }
  struct prng prng = world_stream(world, "workload", stream_of(mirror, 0));
  for (uint32_t v = 0; v < mirror->volume_count; v++) {
    uint64_t pages = (options->volume_bytes[v] + MEDIUM_PAGE - 1) / MEDIUM_PAGE;
    bitmap_init(&mirror->unreadable[v], world_alloc(world, bitmap_bytes(pages)), pages);
    mirror->models[v] = model_new(world, mirror->index * SIM_VOLUMES_MAX + v, options->volume_bytes[v], options->calm);
    workload_draw(&mirror->workloads[v], &prng, options->volume_bytes[v]);
    snprintf(mirror->export_names[v], sizeof mirror->export_names[v], "%s/%s", mirror->name, volume_names[v]);
  }
}

/* ---- the mirror object begins ---- */

/* The first thing when it falls: nobody's request reaches it any more. */
static void has_fallen(struct sim_mirror *mirror) {
  mirror->serving = false;
  mirror->fallen = true;
  mirror->world->counters.fallen++;
  if (!mirror->rules.errors_allowed)
    world_fail(mirror->world, "mirror %s stopped, and nothing excuses it", mirror->name);
  for (uint32_t v = 0; v < mirror->volume_count; v++) gate_shut(&mirror->gates[v], mirror->suspend_ns);
}

static void mirror_has_changed(struct mirror *core) {
  struct sim_mirror *mirror = mirror_owner(core);
  mirror->status_stale = true;
  if (mirror->serving && mirror_state_now(core) == MIRROR_ATTENTION) has_fallen(mirror);
}

static void open_image(struct sim_mirror *mirror, uint32_t i) {
  struct sim_image *image = &mirror->images[i];
  struct mirror_image_config *config = &mirror->config.images[i];
  image->open = !image->absent;
  config->blank = image->blank;
  config->policy = image->policy;
  config->meta = image->open ? sim_disk_open(&image->meta) : NULL;
  config->error = image->open ? NULL : "it was taken away";
  for (uint32_t v = 0; v < mirror->volume_count; v++)
    config->data[v] = image->open ? sim_disk_open(&image->data[v]) : NULL;
}

static void close_image(struct sim_mirror *mirror, uint32_t i) {
  struct mirror_image_config *config = &mirror->config.images[i];
  if (!mirror->images[i].open) return;
  mirror->images[i].open = false;
  disk_close(config->meta);
  for (uint32_t v = 0; v < mirror->volume_count; v++) disk_close(config->data[v]);
}

/* Opening takes a while, and may fail. */
static void mirror_reopens(struct mirror *core, uint32_t i, bool make) {
  struct sim_mirror *mirror = mirror_owner(core);
  struct sim_image *image = &mirror->images[i];
  (void)make; /* what is missing here is empty, and can be opened */
  mirror->world->counters.image_reopened++;
  world_trace(mirror->world, "image %s is opened anew", image->label);
  close_image(mirror, i);
  uint64_t delay_ns = prng_between(&mirror->prng, 1000, prng_one_in(&mirror->prng, 4) ? 2 * NS_PER_S : 5 * NS_PER_MS);
  world_at(mirror->world, &image->reopening, world_now(mirror->world) + delay_ns);
}

static void image_reopens(struct sim_event *event) {
  struct sim_image *image = CONTAINER_OF(event, struct sim_image, reopening);
  struct sim_mirror *mirror = image->mirror;
  uint32_t i = (uint32_t)(image - mirror->images);
  bool was_absent = image->absent;
  if (!mirror->healed && prng_one_in(&mirror->prng, 8)) image->absent = true; /* this time */
  open_image(mirror, i);
  image->absent = was_absent;
  mirror_image_reopened(mirror->core, i, &mirror->config.images[i]);
}

void sim_mirror_open(struct sim_mirror *mirror) {
  require(mirror->node->running);
  require(mirror->core == NULL);
  arena_init(&mirror->arena);
  for (uint32_t i = 0; i < mirror->image_count; i++) open_image(mirror, i);
  mirror->config.home = sim_disk_open(&mirror->home);
  struct mirror_options options = {.env = &mirror->world->env,
                                   .arena = &mirror->arena,
                                   .config = &mirror->config,
                                   .owner = mirror,
                                   .changed = mirror_has_changed,
                                   .reopen = mirror_reopens};
  mirror->core = mirror_open(&options);
  if (!mirror->core) world_fail(mirror->world, "no memory for the mirror");
  arena_freeze(&mirror->arena);
  mirror->status_stale = true;
}

void sim_mirror_start(struct sim_mirror *mirror) {
  for (uint32_t v = 0; v < mirror->volume_count; v++) {
    if (gate_init(&mirror->gates[v], &mirror->world->env, &mirror->node->arena, GATE_SLOTS) != TARN_OK)
      world_fail(mirror->world, "no memory for a gate");
    mirror->exports[v] = (struct nbd_export){.name = mirror->export_names[v], .disk = &mirror->gates[v].disk};
  }
}

/* ---- and ends ---- */

bool sim_mirror_can_close(const struct sim_mirror *mirror) {
  if (mirror->busy || !mirror_is_idle(mirror->core) || !mirror_is_quiet(mirror->core)) return false;
  for (uint32_t v = 0; v < mirror->volume_count; v++)
    if (!gate_is_idle(&mirror->gates[v])) return false;
  return true;
}

/* Nobody can know of a cache that was lost if the mirror asked nothing of that disk afterwards. */
static bool lost_untold(const struct sim_mirror *mirror) {
  for (uint32_t i = 0; i < mirror->image_count; i++)
    for (uint32_t v = 0; v < mirror->volume_count; v++)
      if (mirror->images[i].data[v].lost) return true;
  return false;
}

void sim_mirror_close(struct sim_mirror *mirror) {
  require(mirror->core != NULL);
  require(sim_mirror_can_close(mirror));
  require(!mirror->serving);
  if (mirror->fallen) mirror->lost |= mirror_may_have_lost(mirror->core);
  if (mirror->fallen) mirror->lost_untold |= lost_untold(mirror);
  mirror_close(mirror->core);
  mirror->core = NULL;
  mirror->fallen = mirror->recovering = false;
  for (uint32_t i = 0; i < mirror->image_count; i++) close_image(mirror, i);
  disk_close(mirror->config.home);
  arena_destroy(&mirror->arena);
}

/* A flush that failed in chaos, and that no client was told of before the process died. */
static void tell_doubt(struct sim_mirror *mirror) {
  uint64_t failures = 0;
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    for (uint32_t v = 0; v < mirror->volume_count; v++) {
      failures += mirror->images[i].data[v].flush_failures;
      mirror->images[i].data[v].flush_failures = 0;
    }
  }
  if (failures == 0 || !mirror->rules.errors_allowed) return;
  for (uint32_t v = 0; v < mirror->volume_count; v++) model_doubt(mirror->models[v]);
}

/* In this life, with a connection. An image that fell back so and was not taken out yet may become the source of the recovery:
 * the death of the process is like a power loss then. */
static bool cache_was_lost(struct sim_mirror *mirror) {
  uint64_t losses = 0;
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    for (uint32_t v = 0; v < mirror->volume_count; v++) {
      losses += mirror->images[i].data[v].cache_losses;
      mirror->images[i].data[v].cache_losses = 0;
    }
  }
  return losses > 0;
}

void sim_mirror_crash(struct sim_mirror *mirror, bool power) {
  if (mirror->recovering) mirror->world->counters.crash_in_recovery++;
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    for (uint32_t v = 0; v < mirror->volume_count; v++) sim_drive_crash(&mirror->images[i].data[v], power);
    sim_drive_crash(&mirror->images[i].meta, power);
    mirror->images[i].open = false;
    world_cancel(mirror->world, &mirror->images[i].reopening);
  }
  sim_drive_crash(&mirror->home, power);
  world_cancel(mirror->world, &mirror->again);
  mirror->serving = mirror->fallen = mirror->keep = mirror->lost = mirror->lost_untold = false;
  bool lost = power || cache_was_lost(mirror);
  for (uint32_t v = 0; v < mirror->volume_count; v++) model_crash(mirror->models[v], lost);
  tell_doubt(mirror);
  for (uint32_t c = 0; c < mirror->client_count; c++) client_forget(&mirror->clients[c]);
}

/* ---- operations ---- */

static void operation_done(struct mirror *core, tarn_err err, const char *why, void *context) {
  struct sim_mirror *mirror = context;
  require(mirror->core == core);
  require(mirror->busy);
  mirror->busy = false;
  mirror->err = err;
  snprintf(mirror->why, sizeof mirror->why, "%s", why ? why : "");
  world_trace(mirror->world, "%s: %s%s%s", mirror->name, tarn_err_text(err), mirror->why[0] ? ": " : "", mirror->why);
}

static void operation_begin(struct sim_mirror *mirror, const char *what) {
  require(!mirror->busy);
  mirror->busy = true;
  world_trace(mirror->world, "%s: %s", mirror->name, what);
}

static void verify_done(struct mirror *core, tarn_err err, const char *why, void *context) {
  struct sim_mirror *mirror = context;
  struct world *world = mirror->world;
  const struct verify_result *result = mirror_verify_result(core);
  world_trace(world, "%s: verify of %" PRIu64 " of %" PRIu64 ": %s%s%s", mirror->name, result->done_bytes,
              result->total_bytes, tarn_err_text(err), why[0] ? ": " : "", why);
  if (result->differing_bytes > 0) {
    const struct verify_difference *d = &result->differences[0];
    for (uint32_t k = 0; k + 1 < result->difference_count && memchr(d->groups, 'B', IMAGES_MAX) == NULL; k++) d++;
    world_fail(world, "%s: verify finds a difference in volume %u at %" PRIu64 "+%" PRIu64 ": %.*s", mirror->name,
               d->volume, d->offset, d->length, SIM_IMAGES_MAX, d->groups);
  }
  if (err != TARN_OK) return;
  if (result->done_bytes != result->total_bytes) world_fail(world, "%s: verify has not seen all", mirror->name);
  world->counters.verified++;
}

void sim_mirror_verify(struct sim_mirror *mirror) {
  struct prng prng = world_stream(mirror->world, "verify", mirror->world->steps);
  uint32_t source = (uint32_t)prng_below(&prng, 2 * mirror->image_count);
  mirror_verify(mirror->core, source < mirror->image_count ? source : IMAGES_MAX, verify_done, mirror);
}

void sim_mirror_format(struct sim_mirror *mirror) {
  operation_begin(mirror, "format");
  mirror_format(mirror->core, false, operation_done, mirror);
}

/* Requests that waited go on. From here on a client may see what the fall has changed. */
static void serve(struct sim_mirror *mirror) {
  bool again = mirror->gates[0].opened;
  mirror->serving = true;
  if (again) mirror->world->counters.served_again++;
  for (uint32_t v = 0; v < mirror->volume_count; v++) {
    if (again) model_fall(mirror->models[v], mirror->lost || mirror->lost_untold);
    if (!gate_fits(&mirror->gates[v], mirror_volume(mirror->core, v)))
      world_fail(mirror->world, "mirror %s came back as another one than its clients know", mirror->name);
    gate_open(&mirror->gates[v], mirror_volume(mirror->core, v), mirror->lost);
  }
  if (again) tell_doubt(mirror);
  mirror->lost = mirror->lost_untold = false;
}

static void activated(struct mirror *core, tarn_err err, const char *why, void *context) {
  struct sim_mirror *mirror = context;
  if (err == TARN_OK) mirror->world->counters.activated++;
  else mirror->world->counters.refused++;
  operation_done(core, err, why, context);
  mirror->fallen = err != TARN_OK;
  if (err == TARN_OK) serve(mirror);
}

void sim_mirror_activate(struct sim_mirror *mirror) {
  operation_begin(mirror, "activate");
  mirror_activate(mirror->core, &(struct mirror_activation){0}, activated, mirror);
}

static void deactivated(struct mirror *core, tarn_err err, const char *why, void *context) {
  struct sim_mirror *mirror = context;
  if (err == TARN_OK) mirror->world->counters.deactivated++;
  operation_done(core, err, why, context);
}

void sim_mirror_deactivate(struct sim_mirror *mirror) {
  operation_begin(mirror, "deactivate");
  mirror->serving = mirror->keep = false;
  for (uint32_t v = 0; v < mirror->volume_count; v++) gate_fail(&mirror->gates[v]);
  mirror_deactivate(mirror->core, false, deactivated, mirror);
}

void sim_mirror_image_do(struct sim_mirror *mirror, uint32_t image, enum mirror_image_op op, bool force) {
  static const char *const names[IMAGE_OP_COUNT] = {"remove",  "sync",   "fracture", "restore",
                                                    "promote", "demote", "assume"};
  char what[TARN_NAME_MAX + 40];
  snprintf(what, sizeof what, "%s %s%s", names[op], mirror->images[image].name, force ? " by force" : "");
  operation_begin(mirror, what);
  mirror_image_do(mirror->core, image, op, force, operation_done, mirror);
}

void sim_mirror_tend(struct sim_mirror *mirror) {
  if (mirror->busy || mirror->tended_ns > world_now(mirror->world)) return;
  mirror->tended_ns = world_now(mirror->world) + NS_PER_S;
  for (uint32_t i = 0; i < mirror->image_count && !mirror->busy; i++) {
    const struct mirror_image_status *status = &mirror->status.images[i];
    if (status->present && status->missing != MISSING_NONE && !status->returning)
      sim_mirror_image_do(mirror, i, IMAGE_OP_RESTORE, false);
  }
}

static void try_again(struct sim_event *event) {
  struct sim_mirror *mirror = CONTAINER_OF(event, struct sim_mirror, again);
  sim_mirror_open(mirror);
  sim_mirror_activate(mirror);
}

void sim_mirror_keep(struct sim_mirror *mirror) {
  if (!mirror->core || !mirror->fallen || !sim_mirror_can_close(mirror)) return;
  sim_mirror_close(mirror);
  if (!mirror->keep) return;
  uint64_t delay_ns =
      prng_between(&mirror->prng, NS_PER_MS, prng_one_in(&mirror->prng, 2) ? 30 * NS_PER_MS : 3 * NS_PER_S);
  world_at(mirror->world, &mirror->again, world_now(mirror->world) + delay_ns);
}

bool sim_mirror_wait(struct sim_mirror *mirror, uint64_t steps) {
  uint64_t deadline_ns = world_now(mirror->world) + 600 * NS_PER_S;
  for (; mirror->busy; steps--) {
    if (steps == 0) return false;
    if (world_now(mirror->world) > deadline_ns)
      world_fail(mirror->world, "an operation on mirror %s takes for ever", mirror->name);
    node_step(mirror->node);
  }
  return true;
}

/* ---- clients ---- */

void sim_mirror_clients_start(struct sim_mirror *mirror, uint32_t budget) {
  for (uint32_t v = 0; v < mirror->volume_count; v++)
    bitmap_clear_range(&mirror->unreadable[v], 0, mirror->unreadable[v].bit_count);
  struct prng prng = world_stream(mirror->world, "wires", stream_of(mirror, mirror->world->counters.activated));
  for (uint32_t c = 0; c < mirror->client_count; c++) {
    struct client *client = &mirror->clients[c];
    uint32_t volume = c % mirror->volume_count;
    struct wire_options wire = {.pool = &mirror->node->pool,
                                .exports = &mirror->node->exports,
                                .export_name = mirror->export_names[volume],
                                .whole = prng_one_in(&prng, 3)};
    client_start(client, &wire, budget);
  }
}

void sim_mirror_clients_leave(struct sim_mirror *mirror) {
  for (uint32_t c = 0; c < mirror->client_count; c++) client_leave(&mirror->clients[c]);
}

bool sim_mirror_clients_done(const struct sim_mirror *mirror) {
  for (uint32_t c = 0; c < mirror->client_count; c++)
    if (!client_is_done(&mirror->clients[c])) return false;
  return true;
}

bool sim_mirror_clients_gone(const struct sim_mirror *mirror) {
  for (uint32_t c = 0; c < mirror->client_count; c++)
    if (!client_is_gone(&mirror->clients[c])) return false;
  return true;
}

void sim_mirror_heal(struct sim_mirror *mirror) {
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    for (uint32_t v = 0; v < mirror->volume_count; v++) sim_drive_heal(&mirror->images[i].data[v]);
    sim_drive_heal(&mirror->images[i].meta);
    mirror->images[i].absent = false;
  }
  sim_drive_heal(&mirror->home);
  mirror->healed = true;
  mirror->rules = (struct client_rules){0};
}
