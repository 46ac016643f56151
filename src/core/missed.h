/* missed.h - what one image has not got: a bit for each extent, durable on every other image (rules 1 and 4, B16).
 *
 * `missed` is what the disks say, or will say after the next commit. `copied` are those of them that a copy has written to
 * the image but no flush has secured: readable and written through, yet still missed after a crash. missed_checkpoint()
 * moves them over, and may be called only after a flush of the image that was submitted when all those copies had
 * completed (rule 13).
 *
 * When everything is missed that is said by the top alone: a new epoch begins, pages of another epoch count as missing, and one
 * is written when it first differs from "all of it". So that costs next to nothing, however large the volume.
 *
 * On disk a map has two levels. The top has a bit for each page sector that is not clean; only those pages are read at
 * start. A page that the top names and that is missing or damaged in both copies counts as all of it; a damaged top sector
 * counts as all that it covers. Setting bits early is always safe; clearing happens in memory only when it is true.
 *
 * The top and the pages say the same at every moment outside a load (rule 18): a page sector has a bit set if and only if its top
 * bit is. A bit under a clear top bit would be missed by every search, and never be copied; it is what a page says that a crash
 * has left behind, its top already cleared, and that is read because another page of its block is named. */
#ifndef TARN_CORE_MISSED_H
#define TARN_CORE_MISSED_H

#include "base/arena.h"
#include "base/bitmap.h"
#include "core/meta.h"

struct missed {
  const struct geometry *geometry;
  uint32_t slot;
  struct bitmap missed, copied;
  struct bitmap copied_pages;          /* page sectors in which a bit may be copied: a checkpoint looks only there */
  struct bitmap top;                   /* page sectors with a bit set */
  struct bitmap page_dirty, top_dirty; /* blocks for the next commit */
  struct bitmap page_kept;             /* page sectors that are on disk, or will be, in this epoch; others: all of it */
  uint32_t epoch;                      /* the record's map_epoch */
  struct bitmap page_seen, top_seen;   /* sectors found sound while loading */
  bool loading;                        /* pages that the top names are still to come */
};

CHECKED tarn_err missed_init(struct missed *map, struct arena *arena, const struct geometry *geometry, uint32_t slot);
/* True if a bit changed. */
bool missed_set(struct missed *map, uint64_t first, uint64_t count);
/* All of it, from now on in another epoch. Nobody may rely on the map's disk copy before the commit of both is done. */
void missed_set_all(struct missed *map, uint32_t epoch);
/* Every extent of the range may be read from the image. */
bool missed_is_fresh(const struct missed *map, uint64_t first, uint64_t count);
/* No extent of the range may: a write there can be left to the copy. */
bool missed_is_stale(const struct missed *map, uint64_t first, uint64_t count);
/* First extent at or after `from` that has still to be copied; extent_count if there is none. */
uint64_t missed_next(const struct missed *map, uint64_t from);
void missed_copied(struct missed *map, uint64_t first, uint64_t count);
void missed_forget_copied(struct missed *map);
void missed_checkpoint(struct missed *map);
/* A store that was away takes part again: the next commit writes all that is not clean. */
void missed_dirty_all(struct missed *map);
/* Nothing of it is written by the next commit: missed_dirty_all() makes up for that. */
void missed_hold_back(struct missed *map);
static inline bool missed_is_dirty(const struct missed *map) {
  return map->page_dirty.set_count + map->top_dirty.set_count != 0;
}

/* Loading: set `epoch` from the record, feed every top sector of every store, then missed_load_tops(), then pages, of which those
 * count that missed_page_wanted() names, then missed_load_done(). */
void missed_load_sector(struct missed *map, uint64_t mirror_id, enum map_level level, uint64_t sector,
                        const uint8_t *in);
void missed_load_tops(struct missed *map);
bool missed_page_wanted(const struct missed *map, uint64_t sector);
/* True if a page was in no store: then the map needs another epoch. */
CHECKED bool missed_load_done(struct missed *map);
/* Linear in the number of extents: for tests and the simulator. */
void missed_check(const struct missed *map);

#endif
