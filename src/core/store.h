/* store.h - one place that keeps metadata (an image's metadata disk, or the home store), and the two things done with it:
 * load it at activation, commit changes to it.
 *
 * A commit is a round over all stores at once; what it writes is described by one `struct commit_plan` that the mirror
 * freezes at the start (which blocks, and the record). Each store walks the plan:
 *
 *     a record slot and the log and map blocks (both copies), a few in flight -> flush -> the other record slot -> flush
 *
 * (the first commit after a load begins with a flush; the last two steps only if the plan has a record, the home store has
 * nothing but the record). Blocks are encoded when they are submitted, from memory that is always allowed to be durable
 * (intent.h, missed.h say why); only the record is encoded from the plan, so that both slots are equal.
 *
 * Loading reads the record; later, if the mirror asks, both copies of the log, of the tops, of the pages that matter.
 *
 * A store has buffers of its own and one operation at a time. Any error ends the operation and is reported; it is the
 * mirror that decides what a failed store means. */
#ifndef TARN_CORE_STORE_H
#define TARN_CORE_STORE_H

#include "core/disk.h"
#include "core/intent.h"
#include "core/missed.h"

#define STORE_DEPTH      4u
#define STORE_LOAD_BYTES 65536u

struct commit_plan {
  const struct geometry *geometry;
  uint64_t mirror_id;
  uint64_t sequence;
  const struct record *record; /* NULL: not in this round */
  const struct intent *intent;
  struct missed *const *maps; /* by image slot; NULL where there is none */
  struct bitmap log_blocks;
  struct bitmap page_blocks[IMAGES_MAX], top_blocks[IMAGES_MAX];
};

enum store_step {
  STORE_AGAIN_READ,
  STORE_AGAIN_WRITE,
  STORE_SETTLE,
  STORE_BLOCKS,
  STORE_FLUSH_1,
  STORE_SLOT_2,
  STORE_FLUSH_2, /* of a commit */
  STORE_LOAD_RECORD,
  STORE_LOAD_LOG,
  STORE_LOAD_TOPS,
  STORE_LOAD_PAGES /* each a load of its own */
};

struct store;
typedef void store_done(struct store *store, tarn_err err);

struct store {
  struct disk *disk; /* NULL: absent */
  uint32_t slot;     /* image slot, or RECORD_SELF_HOME */
  void *owner;
  /* the running operation */
  bool busy;
  tarn_err err;
  store_done *done;
  const struct commit_plan *plan;
  enum store_step step;
  uint32_t first_slot; /* of the record: the one that may be overwritten, since the other is durable */
  bool settled;        /* what was found at the load has been flushed */
  bool twins;          /* both copies were of one commit then */
  struct {
    enum { CURSOR_RECORD, CURSOR_LOG, CURSOR_TOP, CURSOR_PAGE, CURSOR_END } area;
    uint32_t slot, copy;
    uint64_t block;
  } cursor;
  uint32_t in_flight;
  struct store_io {
    struct disk_io io;
    struct store *store;
    struct buffer buffer;
    bool busy;
  } ios[STORE_DEPTH];
  struct buffer load_buffer;
  uint64_t load_offset; /* of what is read into it */
  uint32_t load_bytes;
  bool load_by_blocks; /* since it could not be read at once: */
  uint32_t load_at, load_bad;
  /* what loading found */
  struct record record;
  tarn_err record_err;
  bool slot_damaged; /* the other copy of the record is damage: a torn one, or, after a clean stop, a disk that rots */
  struct intent *intent; /* receives the log */
  uint64_t writes, flushes;
};

CHECKED tarn_err store_init(struct store *store, struct arena *arena, struct disk *disk, uint32_t slot, void *owner);
/* Another disk, opened anew (NULL: none): what was learned of the one before is forgotten. Requires an idle store. */
void store_attach(struct store *store, struct disk *disk);
/* Reads both record slots; `record` and `record_err` hold the better one. The error is that of the disk. */
void store_load_record(struct store *store, store_done *done);
/* Reads one part: STORE_LOAD_LOG into `intent`, or the tops or the pages of plan->maps. Damage is no error: what is not
 * sound is not fed (intent.h, missed.h). `done` may be called from within. */
void store_load(struct store *store, enum store_step step, const struct commit_plan *plan, struct intent *intent,
                store_done *done);
/* The plan stays as it is until `done`, which may be called from within. */
void store_commit(struct store *store, const struct commit_plan *plan, store_done *done);

#endif
