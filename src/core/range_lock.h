/* range_lock.h - the one range lock: serialises operations that conflict, lets all others run.
 *
 * Used by client writes, read-modify-write, copies, repair, and later by verify, parallel apply and snapshots. A hold is a
 * half-open byte range with a mode; two holds conflict when they overlap and at least one is exclusive. Holds are granted
 * in the order they were asked for: one that conflicts with an earlier hold, granted or waiting, waits for it, so nobody
 * starves. An operation takes one hold at a time and has reserved all else that it needs before (thesis 5), so there is no
 * deadlock.
 *
 * How: all holds, granted and waiting, are nodes of one intrusive interval tree (a treap ordered by start and ticket, each
 * node knowing the largest end below it; priorities are a hash of the ticket, so runs are reproducible). A hold counts the
 * earlier holds that it conflicts with; a release lowers the count of the later ones; at zero a hold is granted.
 * Acquire and release cost O(log n + overlaps). No allocation. */
#ifndef TARN_CORE_RANGE_LOCK_H
#define TARN_CORE_RANGE_LOCK_H

#include "core/env.h"

enum range_mode { RANGE_SHARED, RANGE_EXCLUSIVE };

struct range_hold {
  /* readable while held or waiting */
  uint64_t start, end;
  uint64_t ticket;
  enum range_mode mode;
  uint32_t tag;      /* the caller's: what kind of operation this hold is part of */
  uint32_t blockers; /* earlier conflicting holds; 0: granted */
  /* private */
  struct range_hold *left, *right, *parent;
  uint64_t end_max, priority;
  struct event event;
  void (*granted)(struct range_hold *hold);
};

struct range_lock {
  struct env *env;
  struct range_hold *root;
  uint64_t next_ticket;
  uint32_t hold_count, waiting_count;
};

void range_lock_init(struct range_lock *lock, struct env *env);
/* True: granted at once, and `granted` is not called. False: `granted` will be called from the event queue. length > 0. */
bool range_acquire(struct range_lock *lock, struct range_hold *hold, uint64_t start, uint64_t length,
                   enum range_mode mode, uint32_t tag, void (*granted)(struct range_hold *hold));
/* Ends a hold, granted or still waiting (then `granted` is not called any more). */
void range_release(struct range_lock *lock, struct range_hold *hold);
/* Walks the holds, granted and waiting, that overlap the range, in order of start: pass NULL first, then the last one. */
struct range_hold *range_next_overlap(const struct range_lock *lock, uint64_t start, uint64_t length,
                                      const struct range_hold *after);
/* Checks order, heap property, end_max and blocker counts of the whole tree: O(n^2), for tests and the simulator. */
void range_lock_check(const struct range_lock *lock);

#endif
