/* model.h - what clients of one volume may see: the checker that everything else in sim/ exists for.
 *
 * A byte is an atomic register. The model keeps for every byte the *versions* that it may hold, one for each write that
 * could be seen now (`alive`), or that a power loss could bring back (not yet `gone`). It follows, by the order in which
 * requests begin and end, what must have happened:
 *
 *   - a write that was answered took effect between its begin and its end: whatever took effect before its begin is dead;
 *   - a read that returned version v proves that v was current at an instant of the read: whatever took effect before the
 *     read (or before v) began is dead; so no two reads see new and then old;
 *   - a write that failed, was cut off, or is a trim, is *optional*: it kills nothing until a read has returned it, and a
 *     read that begins after its end and returns something else kills it;
 *   - where one image is current a read may show what a write left that failed there (`lone`): reads agree with it, but
 *     until it is written over a power loss may undo it, whatever was flushed;
 *   - a flush that was answered makes versions gone which were dead, for sure, when it began; FUA does so for its bytes;
 *   - a power loss makes every version alive that is not gone; the death of a process revives only what was killed by the
 *     sight of a write that was never answered;
 *   - a flush that failed makes no version gone; another one that is answered does, also of what was written before the failure,
 *     and also if both were under way at once: the mirror must have written that again.
 *
 * With `calm` (no image ever fails or is absent in this run) two things more: a value once seen survives the death of the
 * process even if its write was not answered; and a value from before a power loss that was read after it survives the next.
 *
 * A mirror that falls and comes back is like the death of the process, but its clients stay, and so do their requests: each
 * of them may have happened, may happen once more, and may have been seen and be gone again until then. Until it is answered it
 * may be seen, overwritten by another such, and seen again.
 *
 * An aligned sector (`sector_bytes`: 512, or 4096 where all disks have such blocks) is one write's: a read that returns
 * it whole may not show a write at one byte of it, and, where that write has written too, something that is older than
 * it for sure; nor two writes each of which is the later one at some byte. A write whose payload never came whole has
 * not happened, if it was short (model_never).
 *
 * Data is told apart by its bytes: a write has a tag, and byte o of it is tag + salt(o), never zero. A tag is never given
 * twice among the versions that a byte has, so each byte of a read names its version. All zeroes are the tag TAG_ZERO.
 *
 * The model does no I/O and fails nothing: it says what is wrong, and is tested by being given wrong bytes. */
#ifndef TARN_SIM_MODEL_H
#define TARN_SIM_MODEL_H

#include "core/disk.h"
#include "sim/world.h"

#define TAG_ZERO            255u
#define MODEL_BLOCK         4096u
#define MODEL_VERSIONS_HIGH 48  /* trims, which settle nothing, are held back where a byte has so many versions, */
#define MODEL_VERSIONS_MAX  200 /* and other writes here: flush and read first */

enum model_kind { MODEL_READ, MODEL_WRITE, MODEL_ZERO, MODEL_TRIM, MODEL_FLUSH };

/* One request of a client, from begin to end; in the client's memory. */
struct model_op {
  struct list link;
  enum model_kind kind;
  uint64_t offset, length;
  bool fua;
  uint64_t id, begun; /* `begun` is a tick of the model: the order of begins and ends */
  uint64_t ended;     /* its session ended then, and the op goes on; 0: no */
  uint32_t tag;
  bool again;   /* a mirror had it that has fallen: it may be done once more until it is answered */
  bool must;    /* a write that cannot be held back, however many versions there are */
  bool excused; /* when it began, its place could not be read: not the model's affair */
  bool lone;    /* a read: while it was under way one image was current, or none. Set before model_end() */
};

struct model_block;
struct model {
  struct world *world;
  uint64_t size_bytes;
  uint32_t salt;         /* so that volumes differ */
  uint32_t sector_bytes; /* 512, unless the owner knows better */
  bool calm;
  struct model_block **blocks; /* NULL: all zero, durable, never written */
  uint64_t block_count;
  struct list pending; /* struct model_op */
  uint64_t tick, id_next, power_tick;
  uint64_t flush_failed_tick;
  uint32_t ended_count; /* pending ops whose session has ended */
  uint64_t loss_tick;   /* of the last fall that lost something */
  uint64_t fell_tick;   /* of the last fall */
  char error[400];
};

struct model *model_new(struct world *world, uint32_t volume, uint64_t size_bytes, bool calm);
/* The volume began with these bytes: those of a write with this tag. Before any op. */
void model_adopt(struct model *model, uint64_t offset, uint64_t length, uint32_t tag);

/* `kind`, `offset`, `length`, `fua`, `must` are set. Gives a writing op its tag. False: it cannot begin now, too many versions. */
bool model_begin(struct model *model, struct model_op *op);
/* The op was answered. `data` is what a read returned, NULL if it failed. NULL, or what is wrong. */
const char *model_end(struct model *model, struct model_op *op, bool ok, const uint8_t *data);
/* The same for an op of kind MODEL_READ that asked where the holes are: `runs` describe a prefix of it. What they call zero counts
 * as read. */
const char *model_end_extents(struct model *model, struct model_op *op, const struct disk_extent *runs, uint32_t count);
/* The op will never be answered, and has no effect from now on (its connection is gone, and so is its session). */
void model_abandon(struct model *model, struct model_op *op);
/* Its session has ended, and what the client asks on another one comes later: a write that begins from now on and is answered is
 * over this one. model_abandon() is still to come. */
void model_op_ended(struct model *model, struct model_op *op);
/* As model_abandon(), for a write that has no effect at all, ever. */
void model_never(struct model *model, struct model_op *op);
/* The process died: all pending ops are abandoned (their memory is the caller's again). */
void model_crash(struct model *model, bool power);
/* The mirror falls now: what is pending may have been done. */
void model_fell(struct model *model);
/* It will serve again: what is pending may be done from now on, or once more. `lost`: what was answered and
 * not flushed may be gone, also if the answer is still on its way. */
void model_fall(struct model *model, bool lost);

/* Would a read that begins and ends now be allowed to return these bytes? Changes nothing. */
const char *model_peek(struct model *model, uint64_t offset, uint64_t length, const uint8_t *data);
/* Does a pending op of a writing kind overlap this range? (`except` may be NULL.) */
bool model_write_pending(const struct model *model, uint64_t offset, uint64_t length, const struct model_op *except);

/* The bytes of a write: what a client sends. */
void model_fill(const struct model *model, uint32_t tag, uint64_t offset, uint64_t length, uint8_t *out);
void model_check(const struct model *model);

#endif
