/* disk.h - everything that keeps bytes is a disk: submit one I/O, get one completion.
 *
 * A file, a block device, a concatenation, a remote image, a RAID volume, and a mirror made of other disks are all a
 * `struct disk`; so are the wrappers that inject faults, throttle or trace. A new kind is one file that fills in
 * `struct disk_ops` and `struct disk_caps`, and nothing else changes.
 *
 * Order and meaning
 *   - I/Os may be done, and complete, in any order; who needs order waits for the completion. Two overlapping writes in
 *     flight leave either's bytes, or a mix. (A mirror volume does better: it serialises them.)
 *   - WRITE, WRITE_ZEROES, TRIM are done when they complete: a later READ sees them. They are on stable storage only after
 *     a FLUSH that was submitted after they completed has completed with TARN_OK, or when they carried DISK_FUA.
 *   - A write that fails, or never completes, may have left any mix of old and new in its range, now or later.
 *   - A FLUSH that fails leaves everything since the last good FLUSH in doubt; a later good FLUSH proves nothing of it, and
 *     neither does one that was under way at the same time (a kernel may tell only one of them of the failure).
 *   - WRITE_ZEROES leaves zeroes; without DISK_NO_HOLE it may deallocate. TRIM is a WRITE_ZEROES that may also do nothing
 *     at all: what it leaves is old bytes or zeroes, block by block, and on a mirror the same on all images.
 *
 * Ownership
 *   - From disk_submit() until `done` runs, the disk_io, its buffer reference and data belong to the disk. `done` always
 *     runs from the event queue of the disk's env, exactly once, never inside disk_submit().
 *   - A disk that takes only so many at a time keeps the others in a line of its own, and says so (disk_io_line()).
 *   - There is no cancel. A disk that hangs keeps the I/O; the submitter may judge it failed, answer its own client and
 *     go on, but it must leave the disk_io and the buffer alone until `done` has run (rule 7). That is why `buffer` is
 *     reference counted and why a disk_io lives in its owner's pool rather than on its client.
 *   - A READ, or EXTENTS, may come back with another buffer than it was given: `buffer` and `data` have changed then, and
 *     the submitter's reference is to the new one; the old one stays with a disk that hangs. Only buffers of a pool are
 *     exchanged.
 *   - disk_close() needs in_flight == 0.
 *
 * Addressing
 *   - offset and length of READ and WRITE are multiples of caps.block_bytes; length is in 1..caps.io_bytes_max.
 *   - `data` is congruent to `offset` modulo caps.align_bytes, and the whole align_bytes blocks around both ends of the
 *     data lie in `buffer`; the disk may overwrite those surrounding bytes. So an unaligned write merges in place.
 *   - offset and length of TRIM and WRITE_ZEROES are multiples of caps.zero_block_bytes, length in 1..caps.zero_bytes_max.
 *   - EXTENTS has a buffer of a pool too, whose `data` holds up to DISK_EXTENTS_MAX of struct disk_extent: so a disk that hangs may
 *     still write there. offset and length are any range; the answer, io->extent_count of them, describes a prefix of it, at
 *     least one byte, in order and without gaps, and none reaches beyond it. What it calls zero has read as zeroes at some moment
 *     between submission and completion. When it fails nothing is known: all is data.
 *   - Everything lies inside caps.size_bytes. The submitter checks; the disk requires it.
 *
 * A disk and its I/Os belong to one env (one reactor). docs/architecture.md says how a remote image, a RAID volume, a
 * mirror over two reactors and a disk that hangs fit this interface. */
#ifndef TARN_CORE_DISK_H
#define TARN_CORE_DISK_H

#include "core/buffer.h"
#include "core/env.h"

enum disk_op { DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_TRIM, DISK_WRITE_ZEROES, DISK_EXTENTS, DISK_OP_COUNT };

enum disk_flag {
  DISK_FUA = 1 << 0,     /* WRITE, WRITE_ZEROES, TRIM: on stable storage before the completion */
  DISK_NO_HOLE = 1 << 1, /* WRITE_ZEROES: allocate, do not punch */
};

/* What EXTENTS tells of a run of bytes; a disk that does not know says 0: data. The numbers are those of NBD's base:allocation. */
enum extent_flag {
  EXTENT_HOLE = 1 << 0, /* no space is taken */
  EXTENT_ZERO = 1 << 1, /* reads as zeroes */
};
struct disk_extent {
  uint64_t length; /* bytes, not 0 */
  uint32_t flags;  /* enum extent_flag */
};
#define DISK_EXTENTS_MAX 128u

/* So that whoever cuts a request can cut at multiples of 4096, with room for a block that is merged. */
#define DISK_IO_MIN (2 * BUFFER_ALIGN)

/* What a disk of the shell tells as zero_bytes_max at most, and all else that takes a while is cut into: a piece of it must not take
 * so long that it looks like a hang. */
#define DISK_ZERO_BYTES_MAX (16u << 20)

/* What a disk can do: known once it is open, constant while it is. */
struct disk_caps {
  uint64_t size_bytes;   /* of an image's disk a multiple of align_bytes */
  uint32_t block_bytes;  /* power of two, 1..4096 */
  uint32_t align_bytes;  /* power of two, block_bytes..4096 */
  uint32_t io_bytes_max; /* multiple of block_bytes, at most BUFFER_DATA_MAX; of an image's disk at least DISK_IO_MIN */
  uint32_t zero_block_bytes; /* power of two, 1..4096; meaningful when can_zero */
  uint64_t zero_bytes_max;   /* multiple of zero_block_bytes */
  bool read_only;
  bool can_zero;       /* WRITE_ZEROES is done without writing the bytes: cheap, whatever the length */
  bool can_trim;       /* TRIM frees space */
  bool can_extents;    /* EXTENTS is answered; else all counts as data */
  bool volatile_cache; /* FLUSH matters */
  bool rotational;
  bool tells_losses; /* where a FLUSH or FUA fails so do all beside it, and the next FLUSH, each user's */
};

/* One of several users of a disk who know nothing of each other (parts of one file): a loss that a flush tells is told to each. */
struct disk_user {
  uint64_t losses_told;
};

struct disk;
struct disk_io {
  /* set by the submitter */
  enum disk_op op;
  uint32_t flags; /* enum disk_flag */
  uint64_t offset, length;
  struct buffer *buffer; /* READ, WRITE, EXTENTS; the submitter's reference covers the I/O */
  uint8_t *data;
  void (*done)(struct disk_io *io);
  struct disk_user *user; /* NULL: there is one */
  /* set by the disk; disk_io_line() */
  const uint64_t *line; /* by any thread */
  /* of a disk that passes it on, or keeps it in a line behind others: the I/O that it depends on now, perhaps one of several */
  struct disk_io *under;
  /* set by the disk, when it is done */
  tarn_err err;
  uint32_t extent_count; /* of EXTENTS that is done well */
  struct disk *disk;
  struct event event;    /* the completion on its way */
  struct list link;      /* the disk's, while in flight */
  uint64_t submitted_ns; /* for hang detection and latency figures */
};

struct disk_ops {
  const char *kind;
  void (*submit)(struct disk *disk, struct disk_io *io);
  void (*close)(struct disk *disk);   /* frees the disk */
  bool (*is_lost)(struct disk *disk); /* disk_is_lost(); NULL: never, that I/Os would not tell */
};

struct disk {
  const struct disk_ops *ops;
  struct env *env;
  struct disk_caps caps;
  uint32_t in_flight; /* submitted and `done` not yet run */
  /* How often what was answered here and not flushed may have been lost. Only that of a gate grows (gate.h); who has seen less
   * must not take a flush for good. */
  uint64_t losses;
};

static inline void disk_io_init(struct disk_io *io) {
  list_init(&io->link);
  list_init(&io->event.link);
  io->user = NULL;
}
/* For a disk that passes I/Os on: asks the same of `io`; `done` is its own to set. */
static inline void disk_io_same(struct disk_io *io, const struct disk_io *as) {
  bool has_data = as->op == DISK_READ || as->op == DISK_WRITE || as->op == DISK_EXTENTS;
  io->op = as->op;
  io->flags = as->flags;
  io->offset = as->offset;
  io->length = as->length;
  io->buffer = has_data ? as->buffer : NULL;
  io->data = has_data ? as->data : NULL;
}
/* For a disk that passes I/Os on: `io` gets from the one below what it may have come back with. The error is passed on by
 * whoever completes it. */
static inline void disk_io_pass_back(struct disk_io *io, const struct disk_io *from) {
  if (from->op != DISK_READ && from->op != DISK_EXTENTS) return;
  io->buffer = from->buffer;
  io->data = from->data;
  io->extent_count = from->extent_count;
}
/* The line of ours that this I/O, which is in flight, stands in still: how often that has moved, which is for the reactor's thread to
 * read. Then no hardware, kernel or server has been asked, and it is not to be held against any that it takes long, as long as the
 * line moves. NULL: it stands in none. */
const uint64_t *disk_io_line(const struct disk_io *io);
/* For implementations: it stands in this line, or (NULL) in none any more. From any thread. `*moved` is the disk's, and goes up
 * whenever one of those that the line waits for has ended. */
static inline void disk_io_set_line(struct disk_io *io, const uint64_t *moved) {
  __atomic_store_n(&io->line, moved, __ATOMIC_RELAXED);
}
/* Requires an I/O within the rules above. */
void disk_submit(struct disk *disk, struct disk_io *io);
/* For implementations: ends an I/O by posting its completion. */
void disk_complete(struct disk_io *io, tarn_err err);
/* The same without a trip through the queue: `done` runs inside. Only from an event, as the last thing that it does: for a
 * disk that wraps another and passes its completion on. */
void disk_complete_now(struct disk_io *io, tarn_err err);
/* Is what it goes through cut, so that the next I/O would end with TARN_GONE? May be asked while nothing is in flight. */
bool disk_is_lost(struct disk *disk);
void disk_close(struct disk *disk);
/* Would disk_submit() accept it? TARN_RANGE beyond the end, TARN_INVALID misaligned, TARN_UNSUPPORTED. For edges that
 * take requests from strangers. */
CHECKED tarn_err disk_check(const struct disk *disk, const struct disk_io *io);
const char *disk_op_name(enum disk_op op);

static inline struct disk_extent *disk_extents(const struct disk_io *io) {
  return (struct disk_extent *)(void *)io->data;
}
/* For implementations: adds a run, joined with the one before it if they are alike; false, and nothing added, when there is no
 * room for it. */
bool disk_extents_add(struct disk_io *io, uint64_t length, uint32_t flags);
/* The answer of who knows nothing, of the first `length` bytes. What was added before is forgotten. */
void disk_extents_unknown(struct disk_io *io, uint64_t length);
/* Forgets what lies beyond the first `length` bytes, which are some. */
void disk_extents_cut(struct disk_io *io, uint64_t length);
uint64_t disk_extents_bytes(const struct disk_io *io);

/* Of what was asked, and not of the disk as a whole? */
static inline bool error_is_of_place(tarn_err err) {
  return err != TARN_OK && err != TARN_HUNG && err != TARN_GONE && err != TARN_SHUTDOWN;
}

#endif
