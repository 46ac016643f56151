/* intent.h - the write-intent log in memory: which regions the waited-for images may hold differently (rules 1 to 3).
 *
 * A mark is one slot of a bounded table, the same slot on disk. Its life:
 *
 *      free --acquire--> pending --the commit that carries it is durable on every image--> durable
 *       ^                                                                                     |
 *       +------- clear: no holder, flushed since its last write completed, maps durable ------+
 *
 * Writes hold a reference while they are in flight. From the moment that a mark is cleared here the region counts as
 * unmarked; a new write takes a new mark and waits for its commit, although the old bytes may still lie on the disks.
 *
 * "Flushed" is told by ticks: each event that matters takes the next tick. A mark remembers the tick at which its last
 * write completed; a flush remembers the tick at which it was submitted. A mark may go only if a flush with a later tick
 * has completed on every image of the set (rule 3).
 *
 * No I/O here: blocks that changed are dirty, and the mirror's commit writes them (mirror_commit.c). */
#ifndef TARN_CORE_INTENT_H
#define TARN_CORE_INTENT_H

#include "base/arena.h"
#include "base/bitmap.h"
#include "base/list.h"
#include "core/meta.h"

struct mark {
  struct list link; /* in free or in used (oldest use first) */
  uint32_t chain;   /* next slot of the hash chain + 1 */
  uint32_t refs;
  uint64_t region;
  bool used;
  uint64_t commit_seq;  /* durable once this commit is done */
  uint64_t map_seq;     /* what absent images miss of it is durable once this commit is done */
  uint64_t write_tick;  /* when its last write completed */
  uint64_t used_ns;     /* for "oldest first" and idle time */
  uint64_t written_end; /* where its last write ended; 0: not known */
};

struct intent {
  const struct geometry *geometry;
  struct mark *marks;
  uint32_t *entries; /* what the log says, slot by slot: region + 1 or 0; whole blocks */
  uint32_t *buckets; /* region -> first slot + 1 */
  uint32_t bucket_count;
  struct list free, used;
  uint32_t used_count;
  struct bitmap dirty;       /* log blocks to be written by the next commit */
  struct bitmap loaded;      /* while loading: log sectors of which a sound copy was found */
  uint64_t *loaded_sequence; /* of the newest such copy */
  uint64_t tick;
  uint64_t flushed_tick[VOLUMES_MAX];
};

#define INTENT_NONE UINT32_MAX

CHECKED tarn_err intent_init(struct intent *intent, struct arena *arena, const struct geometry *geometry);
/* The slot that marks the region, or INTENT_NONE. */
uint32_t intent_find(const struct intent *intent, uint64_t region);
static inline uint32_t intent_free_count(const struct intent *intent) {
  return intent->geometry->mark_count - intent->used_count;
}
/* Marks the region (a new mark is durable once commit `commit_seq` is done) and takes a reference. Requires a free slot if
 * the region is not marked. Returns the slot. */
uint32_t intent_acquire(struct intent *intent, uint64_t region, uint64_t commit_seq, uint64_t now_ns);
/* The same for the region that this slot marks: for who has just found it. */
void intent_acquire_slot(struct intent *intent, uint32_t slot, uint64_t now_ns);
/* A write that held the mark has ended. */
void intent_release(struct intent *intent, uint32_t slot, uint64_t now_ns);
/* May this mark go? `done_seq`: the last commit that is durable. */
bool intent_can_clear(const struct intent *intent, uint32_t slot, uint64_t done_seq);
/* Would it, after a flush of its volume? */
bool intent_wants_flush(const struct intent *intent, uint32_t slot);
void intent_clear(struct intent *intent, uint32_t slot);
/* A flush submitted at `tick` has completed on every image of the set. */
void intent_flushed(struct intent *intent, uint32_t volume, uint64_t tick);
static inline uint64_t intent_next_tick(struct intent *intent) { return ++intent->tick; }
/* Loading: feed every sound copy of every log sector of every current image; of each sector the newest counts, so a mark
 * keeps its slot, and rewriting the log at activation changes nothing that is true. Then intent_load_done() makes them
 * marks, durable once commit `commit_seq` is done. False, and no marks: a sector has no sound copy anywhere. */
void intent_load_sector(struct intent *intent, uint64_t sector, uint64_t sequence, const uint32_t *entries);
CHECKED bool intent_load_done(struct intent *intent, uint64_t commit_seq, uint64_t now_ns);
void intent_check(const struct intent *intent);

#endif
