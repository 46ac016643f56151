/* concat.h - a disk made of parts of disks, one behind the other (A12).
 *
 * Byte 0 of the first part is byte 0 of the concat. An I/O that lies in one part is passed on as it is; one that crosses into the
 * next is split, and its pieces run at the same time. A flush goes to every disk below, once each. EXTENTS is answered for as
 * much of the range as lies in its first part; a part that cannot answer it counts as data.
 *
 * Capabilities are those of the least able part. Every part but the last is a multiple of CONCAT_ALIGN long, and begins at one
 * in its disk, so that blocks of any size fit together.
 *
 * The error of a piece is the error of the I/O: TARN_GONE before any other, so that whoever judges hears of a lost disk. An I/O
 * is answered when all its pieces are. A part that hangs keeps the I/Os that touch it, and FANS - 1 others that cross at most;
 * I/Os inside the other parts go on.
 *
 * Ownership: the disks below stay open until the concat is closed, which tells its owner by `closed`. They must not
 * exchange the buffer of a READ that crosses (disk.h: only a mirror does that). A disk below may be in several parts, and have
 * other users beside.
 *
 * Memory: taken when it is made. `slots` I/Os are below at once, CONCAT_FANS of them may cross or be flushes; the rest waits in
 * line, first come first served among its kind. */
#ifndef TARN_CORE_CONCAT_H
#define TARN_CORE_CONCAT_H

#include "base/arena.h"
#include "core/disk.h"

#define CONCAT_PARTS_MAX 32u
#define CONCAT_ALIGN     BUFFER_ALIGN
#define CONCAT_FANS      8u

struct concat_part {
  struct disk *disk;
  uint64_t offset, length; /* in that disk; length is not 0 */
  struct disk_user *user;  /* who the concat is there; NULL: nobody else uses it */
};

struct concat_options {
  struct env *env;
  const struct concat_part *parts; /* copied */
  uint32_t part_count;
  uint64_t size_bytes; /* 0: all of the parts; else so much of them */
  uint32_t slots;
  void (*closed)(void *owner); /* it is closed, and uses its parts no more; may be NULL */
  void *owner;                 /* for `closed`, and concat_owner() */
};

/* TARN_INVALID: the parts do not fit together (an offset or a length that is not aligned, or beyond its disk; a size that is
 * larger than the parts, or no multiple of their block), with what is wrong as a sentence in *wrong. TARN_FULL: no memory. On an
 * error the parts are the caller's still. */
CHECKED tarn_err concat_new(const struct concat_options *options, struct disk **disk, const char **wrong);
/* Is it one? */
bool disk_is_concat(const struct disk *disk);
void *concat_owner(const struct disk *disk);

#endif
