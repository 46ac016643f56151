/* watch.c - what must hold after every event, whatever the scenario: invariants of the core, and images that the mirror
 * calls equal being so. Declared in node.h. */
#include <inttypes.h>
#include <string.h>

#include "sim/node.h"

#define STEPS_MAX         5000000ull
#define STEPS_AT_ONCE_MAX 100000u          /* events without time passing */
#define STATUS_EVERY_NS   (20 * NS_PER_MS) /* besides whenever the mirror says that it has changed */

/* ---- the state, as the mirror shows it ---- */

static void watch_image(struct node *node, uint32_t i, const struct mirror_image_status *before,
                        const struct mirror_image_status *now) {
  struct world *world = node->world;
  struct node_image *image = &node->images[i];
  bool synced = now->state == IMAGE_SYNCHRONIZED;
  if (before->state != now->state)
    world_trace(world, "image %s is %s%s%s", image->name, image_state_name(now->state), now->reason[0] ? ": " : "",
                now->reason);
  if (before->missing == MISSING_NONE && now->missing == MISSING_FAILED) world->counters.image_failed++;
  if (before->state == IMAGE_SYNCHRONIZING && synced) world->counters.image_returned++;
  if (!synced) image->synced_ns = 0;
  else if (image->synced_ns == 0) image->synced_ns = max_u64(world_now(world), 1);
}

static void watch_status(struct node *node) {
  struct world *world = node->world;
  const struct mirror_status *before = &node->status_before;
  node->status_before = node->status;
  node->status_stale = false;
  node->status_next_ns = world_now(world) + STATUS_EVERY_NS;
  mirror_status(node->mirror, &node->status);
  const struct mirror_status *now = &node->status;
  for (uint32_t i = 0; i < node->image_count; i++) watch_image(node, i, &before->images[i], &now->images[i]);
  if (before->state != now->state)
    world_trace(world, "mirror is %s%s%s", mirror_state_name(now->state), now->reason[0] ? ": " : "", now->reason);
  if (now->marked_regions >= node->config.mark_count) world->counters.marks_high++;
  if (now->marked_regions > node->config.mark_count) world_fail(world, "more marks than there is room for");
  bool recovering = now->recovered && now->recovery.running;
  if (recovering && !node->recovering) world->counters.recovery_started++;
  if (!recovering && node->recovering) world->counters.recovery_finished++;
  if (recovering != node->recovering) world_trace(world, "recovery %s", recovering ? "begins" : "is done");
  node->recovering = recovering;
}

const struct mirror_status *node_status(struct node *node) {
  watch_status(node);
  return &node->status;
}

bool node_all_synchronized(struct node *node) {
  const struct mirror_status *status = node_status(node);
  if (status->state != MIRROR_ACTIVE || node->recovering || status->recovering_bytes > 0) return false;
  for (uint32_t i = 0; i < node->image_count; i++)
    if (status->images[i].state != IMAGE_SYNCHRONIZED || status->images[i].missed_bytes > 0) return false;
  return true;
}

/* ---- images that are called equal ---- */

/* What changed on any medium is from now on unverified on all images. */
static void collect_touched(struct node *node, uint32_t v) {
  for (uint32_t i = 0; i < node->image_count; i++) {
    struct bitmap *touched = &node->images[i].data[v].medium->touched;
    for (uint64_t page = bitmap_next_set(touched, 0); page < touched->bit_count;
         page = bitmap_next_set(touched, page + 1)) {
      bitmap_clear(touched, page);
      for (uint32_t j = 0; j < node->image_count; j++) {
        struct bitmap *unverified = &node->images[j].unverified[v];
        if (page < unverified->bit_count) bitmap_set(unverified, page);
      }
    }
  }
}

static void compare_page(struct node *node, uint32_t v, uint64_t page, uint32_t set) {
  uint64_t offset = page * MEDIUM_PAGE;
  uint64_t bytes = min_u64(MEDIUM_PAGE, node->config.volumes[v].size_bytes - offset);
  uint32_t first = (uint32_t)__builtin_ctz(set);
  const uint8_t *expected = node->images[first].data[v].medium->visible + offset;
  for (uint32_t i = first; i < node->image_count; i++) {
    if (!(set >> i & 1)) continue;
    const uint8_t *found = node->images[i].data[v].medium->visible + offset;
    bitmap_clear(&node->images[i].unverified[v], page);
    if (memcmp(expected, found, bytes) == 0) continue;
    uint64_t at = 0;
    while (expected[at] == found[at]) at++;
    world_fail(node->world, "images %s and %s are called equal, but %s differs at byte %" PRIu64 ": %02x and %02x",
               node->images[first].name, node->images[i].name, node->config.volumes[v].name, offset + at, expected[at],
               found[at]);
  }
}

static uint64_t compare_volume(struct node *node, uint32_t v, uint32_t set) {
  uint64_t compared = 0;
  uint64_t page_count = (node->config.volumes[v].size_bytes + MEDIUM_PAGE - 1) / MEDIUM_PAGE;
  for (uint32_t i = 0; i < node->image_count; i++) {
    if (!(set >> i & 1)) continue;
    const struct bitmap *unverified = &node->images[i].unverified[v];
    for (uint64_t page = bitmap_next_set(unverified, 0); page < page_count;
         page = bitmap_next_set(unverified, page + 1)) {
      compare_page(node, v, page, set);
      compared++;
    }
  }
  return compared;
}

static uint32_t equal_set(const struct node *node) {
  uint32_t set = 0;
  for (uint32_t i = 0; i < node->image_count; i++)
    if (mirror_image_is_equal(node->mirror, i)) set |= 1u << i;
  return set;
}

uint32_t node_compare_images(struct node *node) {
  uint32_t set = equal_set(node);
  if (__builtin_popcount(set) < 2) return 0;
  uint64_t compared = 0;
  for (uint32_t v = 0; v < node->volume_count; v++) {
    collect_touched(node, v);
    compared += compare_volume(node, v, set);
  }
  if (compared > 0) node->world->counters.images_compared++;
  return (uint32_t)__builtin_popcount(set);
}

static void require_rest_untouched(struct node *node, uint32_t i, uint32_t v) {
  const struct medium *medium = node->images[i].data[v].medium;
  for (uint64_t at = node->config.volumes[v].size_bytes; at < medium->size_bytes; at++)
    if (medium->visible[at] != 0)
      world_fail(node->world, "image %s was written beyond its volume, at %" PRIu64, node->images[i].name, at);
}

void node_compare_all(struct node *node) {
  for (uint32_t v = 0; v < node->volume_count; v++) {
    uint64_t size = node->config.volumes[v].size_bytes;
    for (uint32_t i = 0; i < node->image_count; i++) {
      const uint8_t *bytes = node->images[i].data[v].medium->visible;
      const char *wrong = model_peek(node->models[v], 0, size, bytes);
      if (wrong)
        world_fail(node->world, "at the end image %s of %s: %s", node->images[i].name, node->config.volumes[v].name,
                   wrong);
      if (memcmp(bytes, node->images[0].data[v].medium->visible, size) != 0)
        world_fail(node->world, "at the end images a and %s differ", node->images[i].name);
      require_rest_untouched(node, i, v);
    }
  }
}

/* ---- one event ---- */

void node_step(struct node *node) {
  struct world *world = node->world;
  if (!world_step(world)) world_fail(world, "nothing can ever happen any more, and something is waited for");
  if (world->steps > STEPS_MAX) world_fail(world, "the run does not end");
  if (world_now(world) != node->step_ns) node->steps_at_once = 0;
  node->step_ns = world_now(world);
  if (++node->steps_at_once > STEPS_AT_ONCE_MAX) world_fail(world, "events follow events, and time stands still");
  if (!node->mirror) return;
  mirror_check(node->mirror);
  if (node->status_stale || world_now(world) >= node->status_next_ns) watch_status(node);
  if (list_is_empty(&world->env.queue.events)) (void)node_compare_images(node);
}
