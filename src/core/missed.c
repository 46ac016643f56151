/* Crash argument: a page and its top bit are set by the same commit. If only the top bit lands, the page is missing or old:
 * missing means all of it; old lacks bits whose commit did not complete, and those are still covered by durable marks, which
 * go only after it has (intent.h). If only the page lands, it is not read, and the same marks cover it. A page is cleared with its
 * top bit by one commit, too: if only the top bit lands, one copy of the page still names what the image has; it is passed over,
 * also where it is read with its neighbours. If only the page lands, the top names a page that is clean: both agree after the load. */
#include "core/missed.h"

#include <string.h>

#include "base/plant.h"

tarn_err missed_init(struct missed *map, struct arena *arena, const struct geometry *geometry, uint32_t slot) {
  map->geometry = geometry;
  map->slot = slot;
  uint64_t bits = geometry->sector.map_bits, top_sectors = (geometry->page_sectors + bits - 1) / bits;
  bool ok = bitmap_new(&map->missed, arena, geometry->extent_count) &&
            bitmap_new(&map->copied, arena, geometry->extent_count) &&
            bitmap_new(&map->copied_pages, arena, geometry->page_sectors) &&
            bitmap_new(&map->top, arena, geometry->page_sectors) &&
            bitmap_new(&map->page_dirty, arena, geometry->page_blocks) &&
            bitmap_new(&map->top_dirty, arena, geometry->top_blocks) &&
            bitmap_new(&map->page_kept, arena, geometry->page_sectors) &&
            bitmap_new(&map->page_seen, arena, geometry->page_sectors) &&
            bitmap_new(&map->top_seen, arena, top_sectors);
  return ok ? TARN_OK : TARN_FULL;
}

static uint64_t sector_bits(const struct missed *map) { return map->geometry->sector.map_bits; }

static void touch_page(struct missed *map, uint64_t sector) {
  bitmap_set(&map->page_kept, sector);
  bitmap_set(&map->page_dirty, sector / META_SECTORS_PER_BLOCK);
}

static void touch_top(struct missed *map, uint64_t sector) {
  bitmap_set(&map->top_dirty, sector / geometry_block_bits(map->geometry));
}

bool missed_set(struct missed *map, uint64_t first, uint64_t count) {
  require(count > 0);
  if (map->copied.set_count != 0 && !PLANTED(copied_kept)) bitmap_clear_range(&map->copied, first, count);
  if (bitmap_all_in(&map->missed, first, count)) return false;
  bitmap_set_range(&map->missed, first, count);
  for (uint64_t s = first / sector_bits(map); s <= (first + count - 1) / sector_bits(map); s++) {
    touch_page(map, s);
    if (bitmap_set(&map->top, s)) touch_top(map, s);
  }
  return true;
}

void missed_set_all(struct missed *map, uint32_t epoch) {
  const struct geometry *geometry = map->geometry;
  missed_forget_copied(map);
  map->epoch = epoch;
  bitmap_set_range(&map->missed, 0, geometry->extent_count);
  bitmap_set_range(&map->top, 0, geometry->page_sectors);
  bitmap_set_range(&map->top_dirty, 0, geometry->top_blocks);
  bitmap_clear_range(&map->page_kept, 0, geometry->page_sectors);
  bitmap_clear_range(&map->page_dirty, 0, geometry->page_blocks);
}

bool missed_is_fresh(const struct missed *map, uint64_t first, uint64_t count) {
  require(first + count <= map->geometry->extent_count);
  uint64_t end = first + count;
  return map->missed.set_count == 0 || bitmap_next_set_without(&map->missed, &map->copied, first, end) == end;
}

bool missed_is_stale(const struct missed *map, uint64_t first, uint64_t count) {
  return bitmap_all_in(&map->missed, first, count) && !bitmap_any_in(&map->copied, first, count);
}

/* What one page sector covers. */
struct page {
  uint64_t first, end;
};
static struct page page_at(const struct missed *map, uint64_t sector) {
  uint64_t first = sector * sector_bits(map);
  return (struct page){first, min_u64(first + sector_bits(map), map->geometry->extent_count)};
}

uint64_t missed_next(const struct missed *map, uint64_t from) {
  while (from < map->geometry->extent_count) {
    uint64_t sector = bitmap_next_set(&map->top, from / sector_bits(map));
    if (sector == map->top.bit_count) break;
    struct page page = page_at(map, sector);
    uint64_t extent = bitmap_next_set_without(&map->missed, &map->copied, max_u64(from, page.first), page.end);
    if (extent < page.end) return extent;
    from = page.end;
  }
  return map->geometry->extent_count;
}

void missed_copied(struct missed *map, uint64_t first, uint64_t count) {
  uint64_t end = first + count;
  for (uint64_t e = bitmap_next_set_in(&map->missed, first, end); e < end;
       e = bitmap_next_set_in(&map->missed, e, end)) {
    uint64_t stop = bitmap_next_clear_in(&map->missed, e, end);
    bitmap_set_range(&map->copied, e, stop - e);
    for (uint64_t s = e / sector_bits(map); s <= (stop - 1) / sector_bits(map); s++) bitmap_set(&map->copied_pages, s);
    e = stop;
  }
}

void missed_forget_copied(struct missed *map) {
  for (uint64_t s = bitmap_next_set(&map->copied_pages, 0); s < map->copied_pages.bit_count;
       s = bitmap_next_set(&map->copied_pages, s)) {
    struct page page = page_at(map, s);
    bitmap_clear_range(&map->copied, page.first, page.end - page.first);
    bitmap_clear(&map->copied_pages, s);
  }
  require(map->copied.set_count == 0);
}

static void checkpoint_page(struct missed *map, uint64_t sector) {
  struct page page = page_at(map, sector);
  uint64_t e = bitmap_next_set_in(&map->copied, page.first, page.end);
  if (e == page.end) return; /* missed again meanwhile */
  while (e < page.end) {
    uint64_t stop = bitmap_next_clear_in(&map->copied, e, page.end);
    bitmap_clear_range(&map->missed, e, stop - e);
    e = bitmap_next_set_in(&map->copied, stop, page.end);
  }
  touch_page(map, sector);
  bool clean = !bitmap_any_in(&map->missed, page.first, page.end - page.first);
  if (clean && bitmap_clear(&map->top, sector)) touch_top(map, sector);
}

void missed_checkpoint(struct missed *map) {
  for (uint64_t s = bitmap_next_set(&map->copied_pages, 0); s < map->copied_pages.bit_count;
       s = bitmap_next_set(&map->copied_pages, s + 1))
    checkpoint_page(map, s);
  missed_forget_copied(map);
}

void missed_dirty_all(struct missed *map) {
  bitmap_set_range(&map->top_dirty, 0, map->geometry->top_blocks);
  for (uint64_t s = bitmap_next_set(&map->top, 0); s < map->geometry->page_sectors;
       s = bitmap_next_set(&map->top, s + 1))
    if (bitmap_test(&map->page_kept, s)) touch_page(map, s);
}

void missed_hold_back(struct missed *map) {
  bitmap_clear_range(&map->top_dirty, 0, map->geometry->top_blocks);
  bitmap_clear_range(&map->page_dirty, 0, map->geometry->page_blocks);
}

void missed_load_sector(struct missed *map, uint64_t mirror_id, enum map_level level, uint64_t sector,
                        const uint8_t *in) {
  map->loading = true;
  if (level == MAP_PAGE && !missed_page_wanted(map, sector) && !PLANTED(clean_page_loaded)) return;
  struct bitmap *bits = level == MAP_TOP ? &map->top : &map->missed;
  struct bitmap *seen = level == MAP_TOP ? &map->top_seen : &map->page_seen;
  if (sector >= seen->bit_count) return; /* padding of the last block */
  const struct map_name name = {mirror_id, map->slot, map->epoch};
  uint64_t words[META_WORDS_MAX];
  if (meta_map_decode_sector(map->geometry, &name, level, sector, in, words) != TARN_OK) return;
  bitmap_set(seen, sector);
  uint64_t count = sector_bits(map);
  bitmap_set_words(bits, sector * count, words, count / 64);
}

/* A sector in which a set bit lies of which no store had a sound copy: all of it. */
static void damage(const struct missed *map, struct bitmap *bits, uint64_t sector) {
  if (PLANTED(damaged_map_clean)) return;
  uint64_t first = sector * sector_bits(map);
  bitmap_set_range(bits, first, min_u64(sector_bits(map), bits->bit_count - first));
}

void missed_load_tops(struct missed *map) {
  for (uint64_t s = bitmap_next_clear(&map->top_seen, 0); s < map->top_seen.bit_count;
       s = bitmap_next_clear(&map->top_seen, s + 1))
    damage(map, &map->top, s);
}

bool missed_page_wanted(const struct missed *map, uint64_t sector) {
  return sector < map->geometry->page_sectors && bitmap_test(&map->top, sector);
}

bool missed_load_done(struct missed *map) {
  bool absent = false;
  for (uint64_t s = bitmap_next_set(&map->top, 0); s < map->geometry->page_sectors;
       s = bitmap_next_set(&map->top, s + 1)) {
    struct page page = page_at(map, s);
    if (bitmap_test(&map->page_seen, s)) bitmap_set(&map->page_kept, s);
    else damage(map, &map->missed, s), absent = true;
    if (!bitmap_any_in(&map->missed, page.first, page.end - page.first)) bitmap_clear(&map->top, s);
  }
  map->loading = false;
  missed_dirty_all(map);
  return absent;
}

static void check_page(const struct missed *map, uint64_t sector) {
  struct page page = page_at(map, sector);
  bool missed = bitmap_any_in(&map->missed, page.first, page.end - page.first);
  bool copied = bitmap_any_in(&map->copied, page.first, page.end - page.first);
  require(implies(missed, bitmap_test(&map->top, sector)));
  require(implies(bitmap_test(&map->top, sector), missed || map->loading));
  require(implies(copied, bitmap_test(&map->copied_pages, sector)));
}

void missed_check(const struct missed *map) {
  bitmap_check(&map->missed);
  bitmap_check(&map->copied);
  bitmap_check(&map->copied_pages);
  bitmap_check(&map->top);
  for (uint64_t w = 0; w < bitmap_bytes(map->missed.bit_count) / sizeof(uint64_t); w++)
    require((map->copied.words[w] & ~map->missed.words[w]) == 0);
  for (uint64_t s = 0; s < map->geometry->page_sectors; s++) check_page(map, s);
}
