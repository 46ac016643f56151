#include "sim/damage.h"

#include <inttypes.h>
#include <stdio.h>

struct area {
  uint64_t start, bytes;
};

static struct area log_area(const struct geometry *layout, uint32_t copy) {
  return (struct area){layout->log_offset[copy], (uint64_t)layout->log_blocks * META_BLOCK_BYTES};
}

void damage_place(const struct geometry *layout, uint64_t offset, char *text, size_t bytes) {
  if (offset < RECORD_AREA_BYTES || !layout) {
    snprintf(text, bytes, " record %" PRIu64, offset / RECORD_SLOT_BYTES);
  } else if (offset < layout->layout.map_offset) {
    uint64_t block = (offset - layout->log_offset[0]) / META_BLOCK_BYTES;
    snprintf(text, bytes, " log %" PRIu64 ":%" PRIu64, block / layout->log_blocks, block % layout->log_blocks);
  } else {
    uint64_t slot = (offset - layout->layout.map_offset) / layout->map_slot_bytes;
    uint64_t block = (offset - layout->layout.map_offset) % layout->map_slot_bytes / META_BLOCK_BYTES;
    bool top = block < 2 * layout->top_blocks;
    uint64_t blocks = top ? layout->top_blocks : layout->page_blocks;
    if (!top) block -= 2 * layout->top_blocks;
    snprintf(text, bytes, " %s of %c %" PRIu64 ":%" PRIu64, top ? "top" : "map", (char)('a' + slot), block / blocks,
             block % blocks);
  }
}

/* Flips a few bits within one sector of the area. */
static void rot_sector(struct medium *medium, struct area area, struct prng *prng) {
  uint64_t sector = area.start / MEDIUM_SECTOR + prng_below(prng, area.bytes / MEDIUM_SECTOR);
  for (uint64_t bits = prng_between(prng, 1, 8); bits > 0; bits--)
    medium_flip(medium, sector * MEDIUM_SECTOR + prng_below(prng, MEDIUM_SECTOR), (uint8_t)(1u << prng_below(prng, 8)));
}

/* Only a few blocks of a map are ever written: the rot is drawn to those of slots that are in use, and to their starts. */
static struct area draw_map_area(const struct geometry *layout, struct prng *prng) {
  uint32_t slot = (uint32_t)prng_below(prng, prng_one_in(prng, 2) ? 3 : IMAGES_MAX);
  enum map_level level = prng_one_in(prng, 3) ? MAP_TOP : MAP_PAGE;
  return (struct area){meta_map_offset(layout, slot, level, (uint32_t)prng_below(prng, 2), 0), MEDIUM_SECTOR};
}

void damage_rot(struct sim_drive *meta, uint32_t parts, struct prng *prng) {
  struct medium *medium = meta->medium;
  const struct geometry *layout = meta->layout;
  require(layout != NULL);
  medium->world->counters.meta_rots++;
  world_trace(medium->world, "%s rots: parts %u", medium->name, parts);
  for (uint64_t sectors = prng_between(prng, 1, 12); sectors > 0; sectors--) {
    uint32_t part = 1u << prng_below(prng, 4);
    if (!(parts & part)) continue;
    struct area area = {0, RECORD_AREA_BYTES};
    if (part == DAMAGE_LOG_0) area = log_area(layout, 0);
    if (part == DAMAGE_LOG_1) area = log_area(layout, 1);
    if (part == DAMAGE_MAPS) area = draw_map_area(layout, prng);
    rot_sector(medium, area, prng);
  }
}

uint64_t damage_draw_block(const struct geometry *layout, struct prng *prng) {
  struct area area = {0, RECORD_AREA_BYTES};
  uint64_t part = prng_below(prng, 3);
  if (part == 1) area = log_area(layout, (uint32_t)prng_below(prng, 2));
  if (part == 2) area = draw_map_area(layout, prng);
  return align_down(area.start + prng_below(prng, area.bytes), META_BLOCK_BYTES);
}

/* Two copies of `bytes` each, the second right behind the first. */
static bool twins(uint64_t first, uint64_t bytes, uint64_t meant, uint64_t offset, uint64_t length) {
  if (meant < first || meant >= first + 2 * bytes) return false;
  uint64_t twin = meant < first + bytes ? meant + bytes : meant - bytes;
  return offset < twin + length && twin < offset + length;
}

bool meta_is_twin(const struct geometry *layout, uint64_t meant, uint64_t offset, uint64_t length) {
  if (twins(0, RECORD_AREA_BYTES / 2, meant, offset, length)) return true;
  struct area log = log_area(layout, 0);
  if (twins(log.start, log.bytes, meant, offset, length)) return true;
  for (uint32_t slot = 0; slot < IMAGES_MAX; slot++)
    for (enum map_level level = MAP_PAGE; level <= MAP_TOP; level++) {
      uint64_t first = meta_map_offset(layout, slot, level, 0, 0);
      if (twins(first, meta_map_offset(layout, slot, level, 1, 0) - first, meant, offset, length)) return true;
    }
  return false;
}
