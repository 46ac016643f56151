#include "sim/sim_mirror.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/concat.h"
#include "sim/node.h"
#include "sim/spoil.h"
#include "sim/strangers.h"

/* Data is written long before metadata is, then: the windows that matter are wide. */
#define SLOW_METADATA_NS (2 * NS_PER_MS)

#define PART_SLOTS 64u /* of a disk made of parts: fewer than a mirror may use, so that some wait */

static const char *const volume_names[SIM_VOLUMES_MAX] = {"vol0", "vol1"};

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
  mirror->limits = options->tiny ? mirror_limits_tiny : mirror_limits_default;
  /* While no record is complete each image but the last may leave, and each makes a generation: neither that of home nor that of the
   * last image must be forgotten by that, as they never are with the 16 images and 48 generations that there are at most. */
  if (options->image_count > mirror->limits.history + 1) mirror->limits.history = options->image_count;
  if (!options->witnesses) mirror->limits.witnesses = 0;
  config->limits = &mirror->limits;
  config->volume_count = options->volume_count;
  for (uint32_t v = 0; v < options->volume_count; v++) {
    snprintf(config->volumes[v].name, sizeof config->volumes[v].name, "%s", volume_names[v]);
    config->volumes[v].size_bytes = options->volume_bytes[v];
  }
}

static void drive_init(struct sim_mirror *mirror, struct sim_drive *drive, const char *name, uint64_t index,
                       uint64_t bytes, enum disk_role role) {
  char full[32];
  if (mirror->index == 0) snprintf(full, sizeof full, "%s", name);
  else snprintf(full, sizeof full, "%s:%s", mirror->name, name);
  sim_drive_init(drive, mirror->world, full, stream_of(mirror, index), bytes, role);
}

/* Patience is short, so that lives of seconds see its end. */
static void draw_policy(struct image_policy *policy, struct prng *prng) {
  policy->hang_ns = prng_between(prng, HANG_MIN_NS, 2 * NS_PER_S);
  policy->return_by_itself = !prng_one_in(prng, 5);
  policy->return_after_ns = prng_between(prng, NS_PER_S / 50, prng_one_in(prng, 2) ? NS_PER_S / 5 : 3 * NS_PER_S);
  policy->rate = prng_one_in(prng, 8) ? prng_between(prng, 1u << 20, 64u << 20) : 0;
}

/* One image in four of such a mirror lies on disks made of parts. They are parts of one medium, each where
 * it would be anyway, so all else stays as it is; but an I/O over a boundary is several, and each of them may fail, hang or be
 * lost. */
static void draw_parts(struct sim_mirror *mirror, uint32_t i, uint32_t v, uint64_t bytes) {
  struct sim_image *image = &mirror->images[i];
  struct prng prng = world_stream(mirror->world, "parts", stream_of(mirror, i * 10 + v));
  uint64_t pages = bytes / CONCAT_ALIGN;
  image->part_count[v] = 1;
  if (!mirror->parts || bytes % CONCAT_ALIGN != 0 || pages < CONCAT_PARTS_MAX || !prng_one_in(&prng, 4)) return;
  image->part_count[v] = (uint32_t)prng_between(&prng, 2, CONCAT_PARTS_MAX);
  image->part_bytes[v] = prng_between(&prng, 1, pages / image->part_count[v]) * CONCAT_ALIGN;
}

/* One of small blocks may end within the volume's last block, which is another one's. */
static void draw_end(struct sim_image *image, uint32_t v, struct prng *prng) {
  struct disk_caps *caps = &image->data[v].caps;
  uint64_t bytes = image->mirror->config.volumes[v].size_bytes;
  bool ends = image->part_count[v] == 1 && caps->size_bytes - bytes < MEDIUM_PAGE && bytes % caps->align_bytes == 0;
  if (ends && prng_one_in(prng, 2)) caps->size_bytes = bytes;
}

static void image_init(struct sim_mirror *mirror, uint32_t i) {
  struct sim_image *image = &mirror->images[i];
  char name[TARN_NAME_MAX + 8];
  struct mirror_image_config *config = &mirror->config.images[i];
  snprintf(image->name, sizeof image->name, "%c", 'a' + (int)i);
  memcpy(config->name, image->name, sizeof config->name);
  snprintf(config->node, sizeof config->node, "n1");
  if (mirror->index == 0) snprintf(image->label, sizeof image->label, "%c", 'a' + (int)i);
  else snprintf(image->label, sizeof image->label, "m%u:%c", (mirror->index + 1) % 100, 'a' + (int)i);
  image->mirror = mirror;
  image->blank = true;
  image->identity = i + 1;
  struct prng policy = world_stream(mirror->world, "policy", stream_of(mirror, i));
  draw_policy(&image->policy, &policy);
  image->rots = prng_one_in(&policy, 2);
  struct prng prng = world_stream(mirror->world, "size", stream_of(mirror, i));
  struct prng end = world_stream(mirror->world, "end", stream_of(mirror, i));
  for (uint32_t v = 0; v < mirror->volume_count; v++) {
    uint64_t larger = prng_one_in(&prng, 3) ? 4096 * prng_below(&prng, 9) : 0; /* than its volume */
    uint64_t bytes = align_up(mirror->config.volumes[v].size_bytes, MEDIUM_PAGE) + larger;
    snprintf(name, sizeof name, "%s.%s", image->name, volume_names[v]);
    drive_init(mirror, &image->data[v], name, i * 10 + v, bytes, ROLE_DATA);
    draw_parts(mirror, i, v, bytes);
    draw_end(image, v, &end);
    uint64_t pages = bytes / MEDIUM_PAGE;
    bitmap_init(&image->unverified[v], world_alloc(mirror->world, bitmap_bytes(pages)), pages);
  }
  snprintf(name, sizeof name, "%s.meta", image->name);
  drive_init(mirror, &image->meta, name, i * 10 + 9, align_up(mirror_meta_bytes_best(&mirror->config), MEDIUM_PAGE),
             ROLE_META);
  image->meta.layout = &mirror->layout;
  if (mirror->slow_metadata) image->meta.latency_ns = SLOW_METADATA_NS;
  for (uint32_t v = 0; v < mirror->volume_count; v++)
    if (image->data[v].depth == 1) image->policy.hang_ns = HANG_MIN_NS; /* its line is longer than that */
}

/* A sector of a volume is as large as the smallest of its disks. */
static void tell_sectors(struct sim_mirror *mirror) {
  for (uint32_t v = 0; v < mirror->volume_count; v++) {
    uint32_t bytes = MEDIUM_PAGE;
    for (uint32_t i = 0; i < mirror->image_count; i++)
      bytes = (uint32_t)min_u64(bytes, mirror->images[i].data[v].medium->sector_bytes);
    mirror->models[v]->sector_bytes = bytes;
    mirror->world->counters.sectors_large += bytes == MEDIUM_PAGE;
  }
}

void sim_mirror_grow(struct sim_mirror *mirror, uint32_t count) {
  require(count <= SIM_IMAGES_MAX);
  while (mirror->image_count < count) image_init(mirror, mirror->image_count++);
  if (mirror->models[0]) tell_sectors(mirror);
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
  mirror->volume_count = options->volume_count;
  mirror->calm = options->calm;
  mirror->parts = options->parts;
  if (options->tiny) world->counters.tiny_limits++;
  if (options->tiny) world_trace(world, "tiny limits");
  mirror->prng = world_stream(world, "mirror", stream_of(mirror, 0));
  mirror->closed_prng = world_stream(world, "closed", stream_of(mirror, 0));
  mirror->suspend_ns = prng_one_in(&mirror->prng, 4) ? 0 : prng_between(&mirror->prng, NS_PER_MS, 10 * NS_PER_S);
  snprintf(mirror->name, sizeof mirror->name, "m%u", (index + 1) % 100);
  fill_config(mirror, options);
  geometry_init(&mirror->layout, options->volume_count, options->volume_bytes, mirror->config.region_bytes,
                mirror->config.extent_bytes, mirror->config.mark_count,
                &(struct sector_limits){mirror->config.limits->map_bits, mirror->config.limits->log_entries});
  require(mirror->layout.meta_bytes == mirror_meta_bytes(&mirror->config));
  struct prng slow = world_stream(world, "slow metadata", stream_of(mirror, 0));
  mirror->slow_metadata = prng_one_in(&slow, 3) || options->slow_metadata;
  sim_mirror_grow(mirror, options->image_count);
  for (uint32_t i = 0; i < mirror->image_count; i++) mirror->images[i].configured = true;
  mirror->config.image_count = mirror->image_count;
  const char *wrong = mirror_config_check(&mirror->config);
  if (wrong) world_fail(world, "the mirror's settings are refused: %s", wrong);
  drive_init(mirror, &mirror->home, "home", 1000, RECORD_AREA_BYTES, ROLE_HOME);
  if (mirror->slow_metadata) mirror->home.latency_ns = SLOW_METADATA_NS;
  struct prng prng = world_stream(world, "workload", stream_of(mirror, 0));
  for (uint32_t v = 0; v < mirror->volume_count; v++) {
    uint64_t pages = (options->volume_bytes[v] + MEDIUM_PAGE - 1) / MEDIUM_PAGE;
    bitmap_init(&mirror->places[v].unreadable, world_alloc(world, bitmap_bytes(pages)), pages);
    bitmap_init(&mirror->places[v].listed, world_alloc(world, bitmap_bytes(pages)), pages);
    bitmap_init(&mirror->places[v].healed, world_alloc(world, bitmap_bytes(pages)), pages);
    mirror->models[v] = model_new(world, mirror->index * SIM_VOLUMES_MAX + v, options->volume_bytes[v], options->calm);
    workload_draw(&mirror->workloads[v], &prng, options->volume_bytes[v]);
    snprintf(mirror->export_names[v], sizeof mirror->export_names[v], "%s/%s", mirror->name, volume_names[v]);
  }
  tell_sectors(mirror);
}

/* ---- the mirror object ---- */

static struct disk *data_open(struct sim_image *image, uint32_t v) {
  struct disk *below = image->whole[v] = sim_disk_open(&image->data[v]);
  struct concat_part parts[CONCAT_PARTS_MAX];
  uint32_t count = image->part_count[v];
  if (count == 1) return below;
  for (uint32_t part = 0; part < count; part++)
    parts[part] =
        (struct concat_part){.disk = below, .offset = part * image->part_bytes[v], .length = image->part_bytes[v]};
  parts[count - 1].length = below->caps.size_bytes - parts[count - 1].offset;
  const char *wrong;
  struct concat_options options = {.env = below->env, .parts = parts, .part_count = count, .slots = PART_SLOTS};
  tarn_err err = concat_new(&options, &image->parts[v], &wrong);
  if (err != TARN_OK) world_fail(image->mirror->world, "parts do not make a disk: %s", wrong);
  image->mirror->world->counters.disk_of_parts++;
  return image->parts[v];
}

static void data_close(struct sim_image *image, uint32_t v) {
  if (image->parts[v]) disk_close(image->parts[v]);
  image->parts[v] = NULL;
  disk_close(image->whole[v]);
}

/* The process died: no part answers any more, and the memory of who waits for them is gone. */
static void parts_forget(struct sim_image *image, uint32_t v) {
  if (image->parts[v]) image->parts[v]->ops->close(image->parts[v]);
  image->parts[v] = NULL;
}

/* A medium counts what was written to it, as a file's mtime does. */
struct image_stamp sim_image_stamp(const struct sim_image *image) {
  struct image_stamp stamp = {.identity = image->identity, .modified = 1};
  for (uint32_t v = 0; v < image->mirror->volume_count; v++) stamp.modified += image->data[v].medium->sequence;
  return image->mirror->stampless ? (struct image_stamp){0} : stamp;
}

static void stamp_image(struct mirror *core, uint32_t image, uint32_t round) {
  const struct sim_mirror *mirror = mirror_owner(core);
  struct image_stamp stamp = sim_image_stamp(&mirror->images[image]);
  mirror_stamped(core, image, round, &stamp);
}

void sim_image_open(struct sim_image *image) {
  struct sim_mirror *mirror = image->mirror;
  struct mirror_image_config *config = &mirror->config.images[sim_image_slot(image)];
  require(!image->open);
  image->open = image->configured && !image->absent;
  config->blank = image->blank;
  config->policy = image->policy;
  config->found = sim_image_stamp(image);
  config->meta = image->open ? sim_disk_open(&image->meta) : NULL;
  config->error = image->open ? NULL : image->configured ? "it was taken away" : "the slot is free";
  for (uint32_t v = 0; v < mirror->volume_count; v++) config->data[v] = image->open ? data_open(image, v) : NULL;
}

void sim_image_close(struct sim_image *image) {
  struct sim_mirror *mirror = image->mirror;
  struct mirror_image_config *config = &mirror->config.images[sim_image_slot(image)];
  if (!image->open) return;
  image->open = false;
  disk_close(config->meta);
  for (uint32_t v = 0; v < mirror->volume_count; v++) data_close(image, v);
}

static void image_comes_or_goes(struct sim_event *event) {
  struct sim_image *image = CONTAINER_OF(event, struct sim_image, plugging);
  struct world *world = image->mirror->world;
  uint64_t now = world_now(world);
  image->absent = !image->absent;
  world_trace(world, "image %s is %s", image->label, image->absent ? "taken away" : "there again");
  if (!image->absent) return;
  world->counters.image_unplugged++;
  for (uint32_t v = 0; v < image->mirror->volume_count; v++) sim_drive_lose(&image->data[v], now);
  sim_drive_lose(&image->meta, now);
  sim_image_plug(image, now + prng_between(&image->mirror->prng, NS_PER_MS, 5 * NS_PER_S));
}

void sim_image_plug(struct sim_image *image, uint64_t at_ns) {
  image->plugging.run = image_comes_or_goes;
  if (!world_is_set(&image->plugging)) world_at(image->mirror->world, &image->plugging, at_ns);
}

void sim_image_unplug(struct sim_image *image, uint64_t at_ns) {
  if (!image->absent) sim_image_plug(image, at_ns);
}

void sim_mirror_open(struct sim_mirror *mirror) {
  require(mirror->node->running);
  require(mirror->core == NULL);
  arena_init(&mirror->arena);
  mirror->config.image_count = 0;
  memset(&mirror->status, 0, sizeof mirror->status);
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    mirror->images[i].synced_ns = 0;
    mirror->images[i].state = IMAGE_UNSYNCHRONIZED;
    if (mirror->images[i].configured) mirror->config.image_count = i + 1;
    sim_image_open(&mirror->images[i]);
  }
  mirror->config.home = sim_disk_open(&mirror->home);
  struct mirror_options options = {.env = &mirror->world->env,
                                   .arena = &mirror->arena,
                                   .config = &mirror->config,
                                   .owner = mirror,
                                   .changed = sim_mirror_has_changed,
                                   .stamp = stamp_image,
                                   .reopen = sim_mirror_reopens};
  mirror->core = mirror_open(&options);
  mirror->done_at_fall = UINT64_MAX;
  mirror->served = mirror->stopped = false;
  mirror->ill_round = 0;
  if (!mirror->core) world_fail(mirror->world, "no memory for the mirror");
  arena_freeze(&mirror->arena);
  mirror->status_stale = true;
}

bool sim_mirror_can_close(const struct sim_mirror *mirror) {
  if (mirror->busy || mirror->verifying || mirror->probing || !mirror_is_idle(mirror->core) ||
      !mirror_is_quiet(mirror->core))
    return false;
  for (uint32_t v = 0; v < mirror->volume_count; v++)
    if (!gate_is_idle(&mirror->gates[v])) return false;
  return true;
}

/* Servers of disks restart while nobody has them open, and nobody sees it: what was not flushed is gone. Behind a fall, or a stop
 * that succeeded: one that was refused has flushed nothing, and says so; and before an activation that was refused a process may
 * have died, and what that has left in caches is not its affair. */
static void lose_closed_caches(struct sim_mirror *mirror, bool recovered) {
  struct prng *prng = &mirror->closed_prng;
  uint64_t sectors = 0;
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    if (!prng_one_in(prng, 2)) continue;
    for (uint32_t v = 0; v < mirror->volume_count; v++) sectors += medium_power_loss(mirror->images[i].data[v].medium);
    sectors += medium_power_loss(mirror->images[i].meta.medium);
  }
  if (sectors == 0) return;
  /* What the process before had answered, when a flush failed it that nobody could record, is proved by no flush: only a recovery writes
   * it again. Those who were answered that are gone with it. */
  mirror->lost |= !recovered;
  mirror->world->counters.closed_cache_lost++;
  world_trace(mirror->world, "%s is closed, and %" PRIu64 " sectors are lost in caches", mirror->name, sectors);
}

/* What was answered and not flushed may be gone: whoever is connected is told by a flush that fails. */
static void tell_loss(struct sim_mirror *mirror) {
  struct record home;
  mirror->lost = true;
  mirror->rules.in_doubt = sim_record_load(&mirror->home, RECORD_SELF_HOME, &home) && home.doubt;
  for (uint32_t v = 0; v < mirror->volume_count; v++) gate_lose(&mirror->gates[v]);
  for (uint32_t c = 0; c < mirror->client_count; c++) client_lose(&mirror->clients[c]);
}

void sim_mirror_close(struct sim_mirror *mirror) {
  require(mirror->core != NULL);
  require(sim_mirror_can_close(mirror));
  require(!mirror->serving);
  if (mirror_may_have_lost(mirror->core)) tell_loss(mirror);
  else if (mirror_has_fallen(mirror->core)) mirror->world->counters.fallen_whole++;
  bool flushed = mirror_has_fallen(mirror->core) || mirror->stopped, recovered = !mirror->recovering;
  sim_mirror_undo_spoiled(mirror);
  sim_mirror_check_moments(mirror);
  mirror_close(mirror->core);
  mirror->core = NULL;
  mirror->fallen = mirror->quiet = mirror->recovering = false;
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    sim_image_close(&mirror->images[i]);
    if (mirror->served) mirror->images[i].cache_lost = false; /* what that has lost was told, or is flushed */
  }
  disk_close(mirror->config.home);
  arena_destroy(&mirror->arena);
  if (flushed) lose_closed_caches(mirror, recovered);
}

/* An image that lost its cache with a connection may become the source of the recovery, so the death of the process is like a power
 * loss; until it is recorded as out where every activation looks. */
static bool cache_was_lost(struct sim_mirror *mirror) {
  struct record home;
  bool known = sim_record_load(&mirror->home, RECORD_SELF_HOME, &home), excused = false;
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    if (!mirror->images[i].cache_lost) continue;
    mirror->images[i].cache_lost = false;
    bool out = known && home.images[i].state != IMAGE_SYNCHRONIZED;
    excused |= !out;
    if (out) mirror->world->counters.loss_recorded++;
  }
  return excused;
}

void sim_mirror_crash(struct sim_mirror *mirror, bool power) {
  if (mirror->recovering) mirror->world->counters.crash_in_recovery++;
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    for (uint32_t v = 0; v < mirror->volume_count; v++) {
      sim_drive_crash(&mirror->images[i].data[v], power); /* what is in flight may be the parts' */
      parts_forget(&mirror->images[i], v);
    }
    sim_drive_crash(&mirror->images[i].meta, power);
    mirror->images[i].open = false;
    mirror->world->counters.crash_half_built += mirror->core && mirror->images[i].state == IMAGE_SYNCHRONIZING;
    world_cancel(mirror->world, &mirror->images[i].plugging);
  }
  sim_drive_crash(&mirror->home, power);
  sim_mirror_undo_spoiled(mirror);
  bool lost = power || mirror->lost;
  lost |= cache_was_lost(mirror);
  for (uint32_t v = 0; v < mirror->volume_count; v++) model_crash(mirror->models[v], lost);
  for (uint32_t c = 0; c < mirror->client_count; c++) client_forget(&mirror->clients[c]);
  sim_mirror_forget(mirror);
  sim_mirror_check_moments(mirror);
}

/* ---- clients ---- */

void sim_mirror_clients_start(struct sim_mirror *mirror, uint32_t budget) {
  for (uint32_t v = 0; v < mirror->volume_count; v++)
    bitmap_clear_range(&mirror->places[v].unreadable, 0, mirror->places[v].unreadable.bit_count);
  struct prng prng = world_stream(mirror->world, "wires", stream_of(mirror, mirror->world->counters.activated));
  for (uint32_t c = 0; c < mirror->client_count; c++) {
    struct client *client = &mirror->clients[c];
    uint32_t volume = c % mirror->volume_count;
    struct wire_options wire = {.pool = &mirror->node->pool,
                                .exports = &mirror->node->exports,
                                .export_name = mirror->export_names[volume],
                                .whole = prng_one_in(&prng, 3),
                                .stalls = mirror->stalls};
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
    world_cancel(mirror->world, &mirror->images[i].plugging);
  }
  sim_drive_heal(&mirror->home);
  mirror->healed = true;
  mirror->rules = (struct client_rules){0};
}

static bool drive_is_troubled(const struct sim_drive *drive) {
  return drive->lost || drive->fua_failed || drive->ill_count > 0 || faults_any(&drive->faults);
}

/* One I/O has failed: those who wait for the round, also whoever comes later, are told when it is over everywhere. */
static bool round_is_ill(struct sim_mirror *mirror) {
  uint64_t ended = mirror->core ? mirror_rounds_ended(mirror->core) : 0;
  bool runs = mirror->core && mirror_round_runs(mirror->core);
  bool ill = mirror->home.ill_count > 0;
  for (uint32_t i = 0; i < mirror->image_count; i++) ill |= mirror->images[i].meta.ill_count > 0;
  if (ill && runs) mirror->ill_round = ended + 1;
  return mirror->core && mirror->ill_round > ended;
}

/* A flush that is to fail has ended at one disk, but not at all of those that it is for; or others beside one that failed have not. */
static bool is_being_told(struct sim_mirror *mirror) {
  for (uint32_t v = 0; v < mirror->volume_count; v++) {
    uint64_t told_ns = 0;
    for (uint32_t i = 0; i < mirror->image_count; i++) told_ns = max_u64(told_ns, mirror->images[i].data[v].told_ns);
    for (uint32_t i = 0; i < mirror->image_count && told_ns != 0; i++)
      if (sim_drive_syncs(&mirror->images[i].data[v], told_ns)) return true;
    for (uint32_t i = 0; i < mirror->image_count; i++) mirror->images[i].data[v].told_ns = 0;
  }
  return false;
}

bool sim_mirror_is_troubled(struct sim_mirror *mirror) {
  bool troubled = round_is_ill(mirror) || !mirror->serving || mirror->fallen || mirror->recovering;
  troubled |= drive_is_troubled(&mirror->home) || is_being_told(mirror);
  for (uint32_t i = 0; i < mirror->image_count && !troubled; i++) {
    const struct sim_image *image = &mirror->images[i];
    troubled = drive_is_troubled(&image->meta);
    for (uint32_t v = 0; v < mirror->volume_count; v++) troubled |= drive_is_troubled(&image->data[v]);
  }
  return troubled;
}

/* ---- a round is cut ---- */

void sim_mirror_cut(struct sim_mirror *mirror, enum round_cut cut) {
  sim_drive_cut(&mirror->home, cut);
  for (uint32_t i = 0; i < mirror->image_count; i++) sim_drive_cut(&mirror->images[i].meta, cut);
}

bool sim_mirror_is_cut(const struct sim_mirror *mirror) {
  if (!list_is_empty(&mirror->world->env.queue.events)) return false;
  bool landed = sim_drive_is_cut(&mirror->home);
  for (uint32_t i = 0; i < mirror->image_count; i++) landed &= sim_drive_is_cut(&mirror->images[i].meta);
  return landed;
}

bool sim_mirror_writes_rest(const struct sim_mirror *mirror) {
  bool writes = false;
  for (uint32_t i = 0; i < mirror->image_count; i++) writes |= sim_drive_writes_rest(&mirror->images[i].meta);
  return writes;
}
