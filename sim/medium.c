#include "sim/medium.h"

#include <stdio.h>
#include <string.h>

#define OLDER_MAX 6 /* versions between durable and visible that are remembered of a sector */

/* One that is forgotten leaves its place to the next newer one: what a flush had to make durable becomes durable so, or
 * something later. */
struct medium_version {
  struct medium_version *older;
  uint32_t sequence, since; /* since: of the oldest one that it stands for */
  bool doubtful;
  uint8_t data[]; /* a sector */
};

struct medium_sector {
  struct medium_version *older; /* newest first; not the visible one */
  uint32_t sequence, since;     /* of the visible version, while dirty */
  uint32_t dirty_place;         /* in medium->dirty, + 1 */
  uint8_t older_count;
  bool doubtful; /* the visible version */
};

struct medium *medium_new(struct world *world, const char *name, uint64_t index, uint64_t size_bytes,
                          bool volatile_cache) {
  require(size_bytes % MEDIUM_PAGE == 0);
  struct medium *medium = world_alloc(world, sizeof *medium);
  uint64_t sector_count = size_bytes / MEDIUM_SECTOR, page_count = size_bytes / MEDIUM_PAGE;
  medium->world = world;
  snprintf(medium->name, sizeof medium->name, "%s", name);
  medium->size_bytes = size_bytes;
  medium->sector_bytes = MEDIUM_SECTOR;
  medium->volatile_cache = volatile_cache;
  medium->visible = world_alloc(world, size_bytes);
  medium->durable = world_alloc(world, size_bytes);
  medium->sectors = world_alloc(world, sector_count * sizeof *medium->sectors);
  medium->dirty = world_alloc(world, sector_count * sizeof *medium->dirty);
  bitmap_init(&medium->touched, world_alloc(world, bitmap_bytes(page_count)), page_count);
  medium->prng = world_stream(world, "medium", index);
  return medium;
}

void medium_read(const struct medium *medium, uint64_t offset, uint64_t length, uint8_t *out) {
  require(offset + length <= medium->size_bytes);
  memcpy(out, medium->visible + offset, length);
}

static void sector_drop_older(struct medium_sector *sector) {
  while (sector->older) {
    struct medium_version *version = sector->older;
    sector->older = version->older;
    world_free(version);
  }
  sector->older_count = 0;
}

static void sector_set_dirty(struct medium *medium, uint32_t index) {
  struct medium_sector *sector = &medium->sectors[index];
  if (sector->dirty_place) return;
  medium->dirty[medium->dirty_count++] = index;
  sector->dirty_place = medium->dirty_count;
}

static void sector_set_clean(struct medium *medium, uint32_t index) {
  struct medium_sector *sector = &medium->sectors[index];
  sector_drop_older(sector);
  sector->doubtful = false;
  if (!sector->dirty_place) return;
  uint32_t last = medium->dirty[--medium->dirty_count];
  medium->dirty[sector->dirty_place - 1] = last;
  medium->sectors[last].dirty_place = sector->dirty_place;
  sector->dirty_place = 0;
}

static uint8_t *sector_visible(const struct medium *medium, uint32_t index) {
  return medium->visible + (uint64_t)index * medium->sector_bytes;
}
static uint8_t *sector_durable(const struct medium *medium, uint32_t index) {
  return medium->durable + (uint64_t)index * medium->sector_bytes;
}

/* The visible version of a dirty sector is about to be replaced: a power loss may still bring it back. */
static void sector_keep_older(struct medium *medium, uint32_t index) {
  struct medium_sector *sector = &medium->sectors[index];
  if (sector->older_count == OLDER_MAX) {
    uint64_t victim = prng_below(&medium->prng, OLDER_MAX);
    struct medium_version **at = &sector->older;
    uint32_t *newer_since = &sector->since;
    while (victim-- > 0) {
      newer_since = &(*at)->since;
      at = &(*at)->older;
    }
    struct medium_version *gone = *at;
    *at = gone->older;
    if (!gone->doubtful) *newer_since = gone->since;
    world_free(gone);
    sector->older_count--;
  }
  struct medium_version *version = world_alloc(medium->world, sizeof *version + medium->sector_bytes);
  version->sequence = sector->sequence;
  version->since = sector->since;
  version->doubtful = sector->doubtful;
  memcpy(version->data, sector_visible(medium, index), medium->sector_bytes);
  version->older = sector->older;
  sector->older = version;
  sector->older_count++;
}

/* Bytes within one sector. */
static void sector_write(struct medium *medium, uint64_t offset, uint64_t length, const uint8_t *data, bool durable) {
  uint32_t index = (uint32_t)(offset / medium->sector_bytes);
  struct medium_sector *sector = &medium->sectors[index];
  if (!durable && sector->dirty_place) sector_keep_older(medium, index);
  if (data) memcpy(medium->visible + offset, data, length);
  else memset(medium->visible + offset, 0, length);
  bitmap_set(&medium->touched, offset / MEDIUM_PAGE);
  sector->sequence = sector->since = ++medium->sequence;
  sector->doubtful = false;
  if (durable) {
    memcpy(sector_durable(medium, index), sector_visible(medium, index), medium->sector_bytes);
    sector_set_clean(medium, index);
  } else sector_set_dirty(medium, index);
}

static bool medium_write_some(struct medium *medium, uint64_t offset, uint64_t length, const uint8_t *data,
                              bool durable, uint64_t lose_one_in) {
  require(offset + length <= medium->size_bytes);
  bool kept = false, lost = false;
  for (uint64_t at = offset; at < offset + length;) {
    uint64_t end = min_u64(align_down(at, medium->sector_bytes) + medium->sector_bytes, offset + length);
    if (lose_one_in && prng_one_in(&medium->prng, lose_one_in)) lost = true;
    else {
      sector_write(medium, at, end - at, data ? data + (at - offset) : NULL, durable);
      kept = true;
    }
    at = end;
  }
  return kept && lost;
}

void medium_write(struct medium *medium, uint64_t offset, uint64_t length, const uint8_t *data, bool durable) {
  (void)medium_write_some(medium, offset, length, data, durable || !medium->volatile_cache, 0);
}

bool medium_write_torn(struct medium *medium, uint64_t offset, uint64_t length, const uint8_t *data, bool durable) {
  static const uint64_t lose_one_in[] = {1, 2, 2, 8, 64, 0}; /* none of it ... all of it */
  uint64_t chance = lose_one_in[prng_below(&medium->prng, COUNT_OF(lose_one_in))];
  return medium_write_some(medium, offset, length, data, durable || !medium->volatile_cache, chance);
}

uint32_t medium_flush_mark(const struct medium *medium) { return medium->sequence; }

/* The newest version up to `mark` that is not in doubt becomes the durable one. */
static void sector_flush(struct medium *medium, uint32_t index, uint32_t mark) {
  struct medium_sector *sector = &medium->sectors[index];
  if (sector->since <= mark && !sector->doubtful) {
    memcpy(sector_durable(medium, index), sector_visible(medium, index), medium->sector_bytes);
    sector_set_clean(medium, index);
    return;
  }
  struct medium_version **at = &sector->older;
  while (*at && ((*at)->since > mark || (*at)->doubtful)) at = &(*at)->older;
  if (!*at) return;
  memcpy(sector_durable(medium, index), (*at)->data, medium->sector_bytes);
  while (*at) {
    struct medium_version *gone = *at;
    *at = gone->older;
    world_free(gone);
    sector->older_count--;
  }
}

void medium_flush_done(struct medium *medium, uint32_t mark) {
  for (uint32_t i = medium->dirty_count; i-- > 0;) sector_flush(medium, medium->dirty[i], mark);
}

void medium_flush_failed(struct medium *medium, uint32_t mark) {
  for (uint32_t i = medium->dirty_count; i-- > 0;) {
    uint32_t index = medium->dirty[i];
    struct medium_sector *sector = &medium->sectors[index];
    if (prng_one_in(&medium->prng, 3)) {
      sector_flush(medium, index, mark);
      continue;
    }
    if (sector->sequence <= mark) sector->doubtful = true;
    for (struct medium_version *v = sector->older; v; v = v->older)
      if (v->sequence <= mark) v->doubtful = true;
  }
}

void medium_flip(struct medium *medium, uint64_t offset, uint8_t mask) {
  require(offset < medium->size_bytes);
  struct medium_sector *sector = &medium->sectors[offset / medium->sector_bytes];
  medium->visible[offset] ^= mask;
  medium->durable[offset] ^= mask;
  for (struct medium_version *v = sector->older; v; v = v->older) v->data[offset % medium->sector_bytes] ^= mask;
  bitmap_set(&medium->touched, offset / MEDIUM_PAGE);
}

void medium_put(struct medium *medium, const uint8_t *bytes, uint64_t length) {
  require(medium->dirty_count == 0);
  require(length <= medium->size_bytes);
  memcpy(medium->visible, bytes, length);
  memcpy(medium->durable, bytes, length);
  bitmap_set_range(&medium->touched, 0, medium->touched.bit_count);
}

void medium_erase(struct medium *medium) {
  while (medium->dirty_count > 0) sector_set_clean(medium, medium->dirty[medium->dirty_count - 1]);
  memset(medium->visible, 0, medium->size_bytes);
  memset(medium->durable, 0, medium->size_bytes);
  bitmap_set_range(&medium->touched, 0, medium->touched.bit_count);
}

uint64_t medium_power_loss(struct medium *medium) {
  uint64_t fell_back = 0;
  uint64_t lean = prng_below(&medium->prng, 4); /* one loss in four keeps nearly all, one loses nearly all */
  while (medium->dirty_count > 0) {
    uint32_t index = medium->dirty[medium->dirty_count - 1];
    struct medium_sector *sector = &medium->sectors[index];
    uint64_t choice = prng_below(&medium->prng, sector->older_count + 2u); /* 0: visible; 1..: older; last: durable */
    if (lean < 2 && !prng_one_in(&medium->prng, 16)) choice = lean == 0 ? 0 : sector->older_count + 1u;
    const uint8_t *data = sector_durable(medium, index);
    if (choice == 0) data = sector_visible(medium, index);
    else if (choice <= sector->older_count) {
      struct medium_version *version = sector->older;
      while (--choice > 0) version = version->older;
      data = version->data;
    }
    if (data != sector_visible(medium, index)) {
      memcpy(sector_visible(medium, index), data, medium->sector_bytes);
      bitmap_set(&medium->touched, (uint64_t)index * medium->sector_bytes / MEDIUM_PAGE);
      fell_back++;
    }
    memcpy(sector_durable(medium, index), sector_visible(medium, index), medium->sector_bytes);
    sector_set_clean(medium, index);
  }
  return fell_back;
}
