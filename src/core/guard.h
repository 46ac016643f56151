/* guard.h - a disk between a mirror and one of its disks that bounds how long an I/O may take, and turns a hang, or a lost
 * connection, into one clear failure (rules 5 and 7).
 *
 *     alive --an I/O is not answered within `hang`--> dead (TARN_HUNG)
 *           --the disk answers TARN_GONE-----------> dead (TARN_GONE): a reconnect is a failure and a return, never silent
 *
 * Alive, it passes I/Os on and their answers back. When it dies, all I/Os in flight are answered with its error, and so is,
 * from then on, whatever is submitted: the disk below gets nothing more. What it still has in flight is *held*: each held
 * I/O keeps its place and a reference to its buffer until the disk has answered it; the answer goes nowhere. So:
 *   - the user of a dead guard must leave the bytes of a buffer alone while somebody else holds a reference to it
 *     (buffer->refs): a held WRITE may still read them, a held READ or EXTENTS may still change them;
 *   - the disk below must not be closed, nor be opened again for this image, before guard_is_quiet().
 * A guard dies once. It lives again by guard_attach() with a disk that was opened anew.
 *
 * Time is counted in steps of a quarter of `hang`, and a step counts only once per timer: a process that was stopped for an
 * hour finds its disks' answers before it judges them. In a process that runs, an I/O fails between hang and 1.5 x hang after the
 * disk has got it: what stands in a line of ours (disk_io_line()) does not age while that line moves, but fails with the I/Os that it
 * waits for; also where those are another mirror's, with a part of the same file, and its own guard waits longer.
 *
 * Long work, TRIM and WRITE_ZEROES, goes to the disk GUARD_LONG_MAX at a time, the rest waits here: a disk may take its time for each
 * piece, and does many one after the other, so that the last of them would look like a hang.
 *
 * A FUA that failed may have been told what a FLUSH was to be told: of a loss of older writes (disk.h); and so may a FLUSH, or another
 * FUA, of what a FUA wrote. So all that are under way then fail too, and after a FUA, if there was no FLUSH, the next one does; and
 * one that ends beside others is answered when those have been, too. A disk that sees to this itself is spared the wait.
 *
 * Memory: `slots` I/Os in flight at most; the user must not exceed it (required). Completions run from the event queue: of a
 * living guard in the same event as the disk's own, of a dead one posted. */
#ifndef TARN_CORE_GUARD_H
#define TARN_CORE_GUARD_H

#include "core/disk.h"

#define GUARD_LONG_MAX 2u

struct guard_io;
struct guard {
  /* What the user submits to. Its caps are those of the disk below, or of the last one; at first all that a disk can. */
  struct disk disk;
  struct disk *lower; /* NULL: detached */
  uint64_t hang_ns;
  bool dead;    /* or detached: everything is answered with `err` */
  tarn_err err; /* TARN_HUNG, TARN_GONE, or that of guard_kill(); of one that never died: TARN_GONE */
  uint64_t died_ns;
  bool held_failed; /* since it died the disk below has answered one of those that it held with an error */
  uint32_t held;    /* I/Os that the disk below still has, of a dead guard */
  void *owner;
  /* Called once for each death, from the event queue, before the answers of the I/Os. May be NULL. */
  void (*died)(struct guard *guard);
  /* Called when the last held I/O was answered, from the event queue, after the answers of the death; not if none was held.
   * May be NULL. Neither is called any more after guard_detach(). */
  void (*quiet)(struct guard *guard);
  /* private */
  struct guard_io *ios;
  uint32_t io_count;
  struct list free, active; /* active: in order of submission */
  struct list line;         /* long work that the disk below has not been given */
  uint32_t long_count;      /* that it has */
  struct list synced; /* FLUSHes and FUAs that the disk has done, in that order, but not all that were under way then */
  uint64_t sync_count; /* that it was given, ever */
  bool fua_failed;     /* and no FLUSH has told it */
  uint64_t step;
  bool late; /* the last step was not counted */
  struct timer timer;
  struct event died_event, quiet_event;
};

/* Takes `slots` places from the arena. Detached at first. TARN_FULL when the arena is short. */
CHECKED tarn_err guard_init(struct guard *guard, struct env *env, struct arena *arena, uint32_t slots);
/* Requires a detached guard. `disk` stays the caller's, and open until guard_detach(). */
void guard_attach(struct guard *guard, struct disk *disk, uint64_t hang_ns);
/* Lets go of the disk below. Requires a quiet guard with nothing in flight. */
void guard_detach(struct guard *guard);
/* A new patience, from now on, also for those in flight. Harmless on a dead or detached one. */
void guard_set_hang(struct guard *guard, uint64_t hang_ns);
/* Nothing may be in flight for long: asks the disk whether it is lost, and dies of it. */
void guard_look(struct guard *guard);
/* Declares it dead for a reason of the user's (the file was unlinked): as above, with `err`. Harmless on a dead or
 * detached one. Calls nothing back by itself: `died` is posted. */
void guard_kill(struct guard *guard, tarn_err err);
/* Spares the disk what it has not been given yet: long work that waits here ends with TARN_HUNG, as the disk has failed nothing. */
void guard_spare(struct guard *guard);
/* Nothing of ours is with the disk below. A detached guard is quiet. */
static inline bool guard_is_quiet(const struct guard *guard) { return list_is_empty(&guard->active); }
/* How long the oldest I/O in flight has waited, for people; 0: none. */
uint64_t guard_oldest_ns(const struct guard *guard);
/* May somebody else still read or write the buffer's bytes? */
static inline bool buffer_is_shared(const struct buffer *buffer) { return buffer->refs > 1; }

#endif
