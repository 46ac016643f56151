/* watch.c - what must hold after every event, whatever the scenario: invariants of the core, and images that the mirror
 * calls equal being so. Declared in sim_mirror.h. */
#include <inttypes.h>
#include <string.h>

#include "base/crc32c.h"
#include "sim/node.h"
#include "sim/spoil.h"

#define STATUS_EVERY_NS (20 * NS_PER_MS) /* besides whenever the mirror says that it has changed */

/* A disk's cache was lost, and no I/O was there to tell of it yet. */
static bool image_is_untold(const struct sim_mirror *mirror, uint32_t i) {
  for (uint32_t v = 0; v < mirror->volume_count; v++)
    if (mirror->images[i].data[v].lost) return true;
  return false;
}

/* ---- places that no image can read ---- */

static bool page_is_unreadable(const struct sim_mirror *mirror, uint32_t v, uint64_t page) {
  const struct unreadable *list = mirror_unreadable(mirror->core);
  uint64_t start = mirror->layout.volume_base[v] + page * MEDIUM_PAGE;
  for (uint32_t r = 0; r < list->count; r++)
    if (list->ranges[r].start < start + MEDIUM_PAGE && start < list->ranges[r].start + list->ranges[r].length)
      return true;
  return false;
}

/* ---- images that were cut off hold the bytes of one moment ---- */

static uint32_t crc_of(const struct sim_mirror *mirror, uint32_t i, uint32_t v) {
  return crc32c(mirror->images[i].data[v].medium->visible, mirror->config.volumes[v].size_bytes);
}

static bool volumes_equal(const struct sim_mirror *mirror, uint32_t image, uint32_t other, uint32_t v) {
  const uint8_t *a = mirror->images[image].data[v].medium->visible, *b = mirror->images[other].data[v].medium->visible;
  uint64_t size = mirror->config.volumes[v].size_bytes;
  if (memcmp(a, b, size) == 0) return true;
  for (uint64_t at = 0; at < size; at += MEDIUM_PAGE)
    if (!page_is_unreadable(mirror, v, at / MEDIUM_PAGE) &&
        memcmp(a + at, b + at, min_u64(MEDIUM_PAGE, size - at)) != 0)
      return false;
  return true;
}

bool sim_mirror_images_equal(const struct sim_mirror *mirror, uint32_t image, uint32_t other) {
  for (uint32_t v = 0; v < mirror->volume_count; v++)
    if (mirror->images[image].data[v].medium->dirty_count > 0 || !volumes_equal(mirror, image, other, v)) return false;
  return true;
}

static bool is_still(const struct sim_mirror *mirror, uint32_t i) {
  const struct sim_image *image = &mirror->images[i];
  for (uint32_t v = 0; v < mirror->volume_count; v++)
    if (image->moment_crc[v] != crc_of(mirror, i, v)) return false;
  return image->had_moment;
}

/* The mirror calls it CONSISTENT from this event on: it holds all that was answered, and nothing that was not, since nothing is in
 * flight at this instant; and all of it is on stable storage. Or it was being brought back, and a crash came before that was
 * recorded: then nothing was written to it. */
static void moment_begins(struct sim_mirror *mirror, uint32_t i, const struct mirror_status *now) {
  struct sim_image *image = &mirror->images[i];
  mirror->world->counters.cut_off++;
  image->cut_off = true;
  if (is_still(mirror, i)) return;
  image->had_moment = true;
  for (uint32_t v = 0; v < mirror->volume_count; v++) image->moment_crc[v] = crc_of(mirror, i, v);
  for (uint32_t k = 0; k < mirror->image_count; k++) {
    if (now->images[k].state != IMAGE_SYNCHRONIZED || image_is_untold(mirror, k)) continue;
    if (!sim_mirror_images_equal(mirror, i, k))
      world_fail(mirror->world, "image %s is called CONSISTENT, but at that moment it is not what image %s is",
                 image->label, mirror->images[k].label);
  }
}

void sim_mirror_check_moments(struct sim_mirror *mirror) {
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    if (mirror->images[i].cut_off && !is_still(mirror, i))
      world_fail(mirror->world, "image %s was cut off, but it is not what it was at that moment",
                 mirror->images[i].label);
  }
}

static void watch_moment(struct sim_mirror *mirror, uint32_t i, const struct mirror_status *now) {
  struct sim_image *image = &mirror->images[i];
  bool cut_off = now->images[i].present && now->images[i].state == IMAGE_CONSISTENT;
  if (!cut_off && image->cut_off) sim_mirror_check_moments(mirror);
  if (cut_off && !image->cut_off) moment_begins(mirror, i, now);
  image->cut_off = cut_off;
}

/* ---- the state, as the mirror shows it ---- */

/* Nobody is put out because of a line of ours: one of its disks had an I/O for as long as the shortest `hang` that is drawn (rule 7);
 * which one it was held against is known to the core only, since settings change. */
static void watch_hang(struct sim_mirror *mirror, const struct sim_image *image) {
  uint64_t hung_ns = sim_drive_hung_ns(&image->meta);
  for (uint32_t v = 0; v < mirror->volume_count; v++) hung_ns = max_u64(hung_ns, sim_drive_hung_ns(&image->data[v]));
  if (hung_ns < HANG_MIN_NS)
    world_fail(mirror->world, "image %s was put out as one that hangs, after no more than %" PRIu64 " us of an I/O",
               image->label, hung_ns / 1000);
}

static void watch_image(struct sim_mirror *mirror, uint32_t i, const struct mirror_image_status *now) {
  struct world *world = mirror->world;
  struct sim_image *image = &mirror->images[i];
  bool synced = now->present && now->state == IMAGE_SYNCHRONIZED;
  if (image->state != now->state)
    world_trace(world, "image %s is %s%s%s", image->label, image_state_name(now->state), now->reason[0] ? ": " : "",
                now->reason);
  if (!mirror->strange && strstr(now->reason, SIM_STRANGE_TEXT) && world->counters.data_rots == 0)
    world_fail(world, "image %s is what it was, and the mirror says: %s", image->label, now->reason);
  if (image->missing == MISSING_NONE && now->missing == MISSING_FAILED) {
    world->counters.image_failed++;
    if (strcmp(now->reason, "its disk does not answer") == 0) watch_hang(mirror, image);
  }
  if (image->state == IMAGE_SYNCHRONIZING && synced) world->counters.image_returned++;
  if (!synced) image->synced_ns = 0;
  else if (image->synced_ns == 0) image->synced_ns = max_u64(world_now(world), 1);
  image->state = now->state;
  image->missing = now->missing;
  image->was_out = !synced;
}

static void count_verdict(struct sim_counters *counters, const char *reason) {
  counters->judged_replaced += strstr(reason, "its file is another one") != NULL;
  counters->judged_edited += strstr(reason, "its file was written to") != NULL;
  counters->judged_apart += strstr(reason, "written apart") != NULL;
}

/* What the rules are about, as far as it shows in the status. */
static void count_rules(struct sim_mirror *mirror, const struct mirror_status *before) {
  struct sim_counters *counters = &mirror->world->counters;
  const struct mirror_status *now = &mirror->status;
  bool goes_on = before->state == MIRROR_ACTIVE && now->state == MIRROR_ACTIVE;
  counters->ops_full += now->in_flight >= mirror->limits.ops;
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    const struct mirror_image_status *image = &now->images[i];
    if (strcmp(image->reason, before->images[i].reason) != 0) count_verdict(counters, image->reason);
    bool out = image->present && image->missing != MISSING_NONE;
    counters->out_and_missing += goes_on && out && image->missed_bytes > before->images[i].missed_bytes;
    counters->master_left += goes_on && out && before->images[i].master && !image->master;
  }
}

static void watch_status(struct sim_mirror *mirror) {
  struct world *world = mirror->world;
  const struct mirror_status *before = &mirror->status_before;
  mirror->status_before = mirror->status;
  mirror->status_stale = false;
  mirror->status_next_ns = world_now(world) + STATUS_EVERY_NS;
  mirror_status(mirror->core, &mirror->status);
  const struct mirror_status *now = &mirror->status;
  count_rules(mirror, before);
  bool runs = mirror->serving || mirror->quiet; /* before that nothing is known of the images */
  for (uint32_t i = 0; i < mirror->image_count && (runs || mirror->fallen); i++)
    watch_image(mirror, i, &now->images[i]);
  for (uint32_t i = 0; i < mirror->image_count && runs; i++) watch_moment(mirror, i, now);
  if (before->state != now->state)
    world_trace(world, "%s is %s%s%s", mirror->name, mirror_state_name(now->state), now->reason[0] ? ": " : "",
                now->reason);
  if (now->marked_regions >= mirror->config.mark_count) world->counters.marks_high++;
  if (now->marked_regions > mirror->config.mark_count) world_fail(world, "more marks than there is room for");
  bool recovering = now->recovered && now->recovery.running;
  if (recovering && !mirror->recovering) world->counters.recovery_started++;
  if (!recovering && mirror->recovering) world->counters.recovery_finished++;
  if (recovering != mirror->recovering)
    world_trace(world, "%s: recovery %s", mirror->name, recovering ? "begins" : "is done");
  mirror->recovering = recovering;
  uint64_t lost = now->images[0].unreadable_bytes, lost_before = before->images[0].unreadable_bytes;
  if (now->state == before->state && lost > lost_before) world->counters.place_left_behind++;
  if (now->state == before->state && lost < lost_before) world->counters.place_healed++;
  for (uint32_t i = 0; i < mirror->image_count; i++)
    if (now->images[i].repaired_blocks > before->images[i].repaired_blocks)
      world->counters.block_repaired += now->images[i].repaired_blocks - before->images[i].repaired_blocks;
}

/* The pages of the core's list, in `listed`. */
static void collect_listed(struct sim_mirror *mirror) {
  const struct unreadable *list = mirror_unreadable(mirror->core);
  for (uint32_t v = 0; v < mirror->volume_count; v++)
    if (mirror->places[v].listed.set_count != 0)
      bitmap_clear_range(&mirror->places[v].listed, 0, mirror->places[v].listed.bit_count);
  for (uint32_t r = 0; r < list->count; r++) {
    uint32_t v = geometry_volume_at(&mirror->layout, list->ranges[r].start);
    uint64_t offset = list->ranges[r].start - mirror->layout.volume_base[v];
    uint64_t first = offset / MEDIUM_PAGE, last = (offset + list->ranges[r].length - 1) / MEDIUM_PAGE;
    bitmap_set_range(&mirror->places[v].listed, first, last - first + 1);
    bitmap_set_range(&mirror->places[v].unreadable, first, last - first + 1);
  }
}

void sim_mirror_check_healed(struct sim_mirror *mirror) {
  collect_listed(mirror);
  for (uint32_t v = 0; v < mirror->volume_count; v++)
    for (uint64_t page = bitmap_next_set(&mirror->places[v].healed, 0); page < mirror->places[v].healed.bit_count;
         page = bitmap_next_set(&mirror->places[v].healed, page + 1))
      if (bitmap_test(&mirror->places[v].listed, page))
        world_fail(mirror->world,
                   "page %" PRIu64 " of %s was written and that was answered; it is called unreadable again", page,
                   mirror->config.volumes[v].name);
}

/* A place that is found anew is no longer one that was healed. */
static void watch_unreadable(struct sim_mirror *mirror) {
  if (!mirror->serving && !mirror->quiet) return;
  if (mirror_unreadable(mirror->core)->count == 0 &&
      mirror->places[0].listed.set_count + mirror->places[1].listed.set_count == 0)
    return;
  collect_listed(mirror);
  for (uint32_t v = 0; v < mirror->volume_count; v++)
    for (uint64_t page = bitmap_next_set(&mirror->places[v].listed, 0); page < mirror->places[v].listed.bit_count;
         page = bitmap_next_set(&mirror->places[v].listed, page + 1))
      bitmap_clear(&mirror->places[v].healed, page);
}

void sim_mirror_write_unreadable(struct sim_mirror *mirror) {
  for (uint32_t v = 0; v < mirror->volume_count; v++) {
    struct client *client = &mirror->clients[v];
    for (uint64_t page = 0; page < mirror->places[v].unreadable.bit_count; page++) {
      if (!page_is_unreadable(mirror, v, page)) continue;
      uint64_t offset = page * MEDIUM_PAGE;
      client_ask(client, MODEL_WRITE, offset, min_u64(MEDIUM_PAGE, client->model->size_bytes - offset), false);
      while (client->open > 0) node_step(mirror->node);
    }
    bitmap_clear_range(&mirror->places[v].unreadable, 0, mirror->places[v].unreadable.bit_count);
  }
  if (mirror_unreadable(mirror->core)->count != 0)
    world_fail(mirror->world, "what no image could read was written, and is still called unreadable");
}

const struct mirror_status *sim_mirror_status(struct sim_mirror *mirror) {
  watch_status(mirror);
  return &mirror->status;
}

bool sim_mirror_all_synchronized(struct sim_mirror *mirror) {
  const struct mirror_status *status = sim_mirror_status(mirror);
  if (status->state != MIRROR_ACTIVE || mirror->recovering || status->recovering_bytes > 0) return false;
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    const struct mirror_image_status *image = &status->images[i];
    if (image->present && (image->state != IMAGE_SYNCHRONIZED || image->missed_bytes > 0)) return false;
  }
  return true;
}

/* ---- images that are called equal ---- */

/* What changed on any medium is from now on unverified on all images. */
static void collect_touched(struct sim_mirror *mirror, uint32_t v) {
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    struct bitmap *touched = &mirror->images[i].data[v].medium->touched;
    for (uint64_t page = bitmap_next_set(touched, 0); page < touched->bit_count;
         page = bitmap_next_set(touched, page + 1)) {
      bitmap_clear(touched, page);
      for (uint32_t j = 0; j < mirror->image_count; j++) {
        struct bitmap *unverified = &mirror->images[j].unverified[v];
        if (page < unverified->bit_count) bitmap_set(unverified, page);
      }
    }
  }
}

static void compare_page(struct sim_mirror *mirror, uint32_t v, uint64_t page, uint32_t set) {
  uint64_t offset = page * MEDIUM_PAGE;
  uint64_t bytes = min_u64(MEDIUM_PAGE, mirror->config.volumes[v].size_bytes - offset);
  uint32_t first = (uint32_t)__builtin_ctz(set);
  const uint8_t *expected = mirror->images[first].data[v].medium->visible + offset;
  for (uint32_t i = first; i < mirror->image_count; i++) {
    if (!(set >> i & 1)) continue;
    const uint8_t *found = mirror->images[i].data[v].medium->visible + offset;
    bitmap_clear(&mirror->images[i].unverified[v], page);
    if (memcmp(expected, found, bytes) == 0) continue;
    uint64_t at = 0;
    while (expected[at] == found[at]) at++;
    world_fail(mirror->world, "images %s and %s are called equal, but %s differs at byte %" PRIu64 ": %02x and %02x",
               mirror->images[first].label, mirror->images[i].label, mirror->config.volumes[v].name, offset + at,
               expected[at], found[at]);
  }
}

static uint64_t compare_volume(struct sim_mirror *mirror, uint32_t v, uint32_t set) {
  uint64_t compared = 0;
  uint64_t page_count = (mirror->config.volumes[v].size_bytes + MEDIUM_PAGE - 1) / MEDIUM_PAGE;
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    if (!(set >> i & 1)) continue;
    const struct bitmap *unverified = &mirror->images[i].unverified[v];
    for (uint64_t page = bitmap_next_set(unverified, 0); page < page_count;
         page = bitmap_next_set(unverified, page + 1)) {
      if (page_is_unreadable(mirror, v, page)) continue; /* until it is written */
      compare_page(mirror, v, page, set);
      compared++;
    }
  }
  return compared;
}

static uint32_t equal_set(const struct sim_mirror *mirror) {
  uint32_t set = 0;
  for (uint32_t i = 0; i < mirror->image_count; i++)
    if (mirror_image_is_equal(mirror->core, i) && !image_is_untold(mirror, i)) set |= 1u << i;
  return set;
}

uint32_t sim_mirror_compare(struct sim_mirror *mirror) {
  uint32_t set = equal_set(mirror);
  if (__builtin_popcount(set) < 2 || mirror->rotten) return 0;
  uint64_t compared = 0;
  for (uint32_t v = 0; v < mirror->volume_count; v++) {
    collect_touched(mirror, v);
    compared += compare_volume(mirror, v, set);
  }
  if (compared > 0) mirror->world->counters.images_compared++;
  return (uint32_t)__builtin_popcount(set);
}

static void require_rest_untouched(struct sim_mirror *mirror, uint32_t i, uint32_t v) {
  const struct medium *medium = mirror->images[i].data[v].medium;
  for (uint64_t at = mirror->config.volumes[v].size_bytes; at < medium->size_bytes; at++)
    if (medium->visible[at] != 0)
      world_fail(mirror->world, "image %s was written beyond its volume, at %" PRIu64, mirror->images[i].name, at);
}

uint32_t sim_mirror_members(const struct sim_mirror *mirror) {
  uint32_t members = 0;
  for (uint32_t i = 0; i < mirror->image_count; i++) members |= (uint32_t)mirror->images[i].configured << i;
  return members;
}

void sim_mirror_compare_all(struct sim_mirror *mirror) {
  uint32_t members = sim_mirror_members(mirror), first = (uint32_t)__builtin_ctz(members);
  for (uint32_t v = 0; v < mirror->volume_count; v++) {
    uint64_t size = mirror->config.volumes[v].size_bytes;
    for (uint32_t i = first; i < mirror->image_count; i++) {
      if (!(members >> i & 1)) continue;
      const uint8_t *bytes = mirror->images[i].data[v].medium->visible;
      const char *wrong = model_peek(mirror->models[v], 0, size, bytes);
      if (wrong)
        world_fail(mirror->world, "at the end image %s of %s: %s", mirror->images[i].name,
                   mirror->config.volumes[v].name, wrong);
      if (memcmp(bytes, mirror->images[first].data[v].medium->visible, size) != 0)
        world_fail(mirror->world, "at the end images %s and %s differ", mirror->images[first].label,
                   mirror->images[i].label);
      require_rest_untouched(mirror, i, v);
    }
  }
}

/* ---- after every event ---- */

/* Its conditions do not hold any more: from then on it answers no write and no flush as done. */
static void watch_fallen(struct sim_mirror *mirror) {
  struct mirror_status now;
  if (!mirror_has_fallen(mirror->core)) return;
  mirror_status(mirror->core, &now);
  if (mirror->done_at_fall == UINT64_MAX) mirror->done_at_fall = now.changes_done;
  if (now.changes_done > mirror->done_at_fall)
    world_fail(mirror->world, "%s has fallen (%s), and answers a write or a flush as done", mirror->name, now.reason);
}

/* No more images are missing than may be, or it has fallen. */
static void watch_conditions(struct sim_mirror *mirror) {
  int32_t missing = 0;
  if (!mirror->serving || mirror->fallen || mirror->config.max_missing < 0) return;
  for (uint32_t i = 0; i < mirror->image_count; i++)
    missing += mirror->status.images[i].present && mirror->status.images[i].missing != MISSING_NONE;
  if (missing > mirror->config.max_missing)
    world_fail(mirror->world, "%s serves, though %d images are missing and no more than %d may", mirror->name, missing,
               mirror->config.max_missing);
}

/* How long a loss of its cache can matter: it was seen to be out, and then to be in again. */
static void watch_caches(struct sim_mirror *mirror) {
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    struct sim_image *image = &mirror->images[i];
    for (uint32_t v = 0; v < mirror->volume_count; v++) {
      if (image->data[v].cache_losses == 0) continue;
      image->data[v].cache_losses = 0;
      image->cache_lost = true;
      image->out_since = false;
    }
    if (!image->cache_lost) continue;
    bool in = image->state == IMAGE_SYNCHRONIZED, recovers = image->state == IMAGE_SYNCHRONIZING; /* or is copied to */
    if (!in && !recovers && mirror->serving) image->out_since = true;
    if (in && image->out_since) image->cache_lost = false;
  }
}

static void watch_witnesses(struct sim_mirror *mirror) {
  uint32_t count = mirror_witness_count(mirror->core), before = mirror->witness_count;
  mirror->witness_count = count;
  if (!mirror->serving) return;
  if (count < before) mirror->world->counters.witness_dropped += before - count;
  else mirror->world->counters.witness_made += count - before;
}

static bool is_lone(const struct sim_mirror *mirror) {
  uint32_t current = 0;
  for (uint32_t i = 0; i < mirror->image_count; i++) current += mirror->images[i].state == IMAGE_SYNCHRONIZED;
  return current <= 1;
}

void sim_mirror_watch(struct sim_mirror *mirror) {
  if (is_lone(mirror)) mirror->rules.lone_ns = world_now(mirror->world);
  if (sim_mirror_is_troubled(mirror)) mirror->rules.troubled_ns = world_now(mirror->world);
  if (!mirror->core) return;
  mirror_check(mirror->core);
  watch_unreadable(mirror);
  watch_fallen(mirror);
  watch_witnesses(mirror);
  watch_caches(mirror);
  sim_mirror_watch_spoiled(mirror);
  if (mirror->status_stale || world_now(mirror->world) >= mirror->status_next_ns) {
    watch_status(mirror);
    watch_conditions(mirror);
  }
  if (list_is_empty(&mirror->world->env.queue.events)) (void)sim_mirror_compare(mirror);
}
