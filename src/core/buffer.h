/* buffer.h - the memory that data passes through, from a client's socket to the disks and back, without a copy.
 *
 * A pool is sized once. Buffers come in three classes (BUFFER_CLASS_BYTES). Who finds a class empty takes a larger one,
 * or waits in line: first come, first served in each class and account, and accounts take turns. A buffer is shared by
 * reference: a write whose client was answered keeps its buffer while one image still hangs on it (rule 7), and the
 * pool gets it back at the last buffer_unref().
 *
 * Quotas. Each mirror has an account, to which the buffers are charged that its clients' I/Os use. When an image hangs,
 * what its disks keep stays charged, as held (buffer_hold). In each class an account may take another buffer only while
 *
 *     2 x used + held < 2 x free
 *
 * So a mirror alone uses up to half of a class. When one of its images then hangs with all of that, the mirror goes on
 * with half of what was left, on its other images; and whatever its images do, it and they together leave a third of the
 * class to others. With k mirrors that all hang, 1/(2k+1) of a class stays free, and an account with nothing charged can
 * always take from it. Nothing has to be configured: the quota follows from the size of the pool, which is set at start,
 * and from what is free at the moment. An account that has used up its quota waits, even while buffers are free, and
 * nobody else stands behind it.
 *
 * Why nobody waits in a circle. A circle needs somebody who keeps a buffer until he gets another one, and there is none.
 * What a session holds comes back without a further buffer: a piece that is with the disk, when the disk or its guard
 * answers; an answer on its way out, when the client has taken it or is hung up on; a payload that is being received,
 * when it is complete or its client stalls (nbd/internal.h). A READ that streams may need another buffer for its next
 * piece: it does without, or waits until it stands first in its line, and its session holds no other answer
 * (nbd/again.c). A read of the mirror whose buffer is held by a dead disk asks for another one and keeps nothing that could
 * serve somebody else: that buffer is held anyway, and `held` bounds those.
 *
 * Placement rule (see disk.h): for data of volume offset `o` use `base + o % BUFFER_ALIGN`. A buffer of class size S holds
 * S - BUFFER_ALIGN bytes of data at any offset, so that the whole aligned block around each end belongs to the buffer and
 * a read-modify-write merges in place. */
#ifndef TARN_CORE_BUFFER_H
#define TARN_CORE_BUFFER_H

#include "base/arena.h"
#include "core/env.h"

#define BUFFER_ALIGN       4096u
#define BUFFER_CLASS_COUNT 3
/* The longest READ or WRITE anywhere in the system: 256 KiB of a client, at any offset, and what a disk of 4 KiB blocks needs of
 * the blocks at both ends. */
#define BUFFER_DATA_MAX ((256u + 4u) * 1024u)
extern const uint32_t buffer_class_bytes[BUFFER_CLASS_COUNT]; /* 8 KiB, 68 KiB, 264 KiB */

/* What one mirror has of a pool. Its owner's; must stay until all its buffers are back (buffer_account_is_empty). */
struct buffer_account {
  uint32_t used[BUFFER_CLASS_COUNT]; /* by I/Os that are under way */
  uint32_t held[BUFFER_CLASS_COUNT]; /* by disks that hang */
  /* private */
  struct list link;                        /* in the pool, while somebody waits */
  struct list waiting[BUFFER_CLASS_COUNT]; /* struct buffer_wait, by the smallest class that will do */
};

struct buffer_pool;
struct buffer {
  struct list link; /* in its pool while free */
  struct buffer_pool *pool;
  struct buffer_account *account; /* while it is in use */
  bool held;
  uint8_t *base; /* aligned to BUFFER_ALIGN */
  uint32_t bytes;
  uint32_t refs;
};

/* Who waits: `ready` is called from the event queue and owns one reference to `buffer`. */
struct buffer_wait {
  struct list link;
  uint32_t data_bytes;
  struct buffer_account *account;
  struct buffer *buffer;
  struct event event;
  void (*ready)(struct buffer_wait *wait);
};

struct buffer_pool {
  struct env *env;
  struct list free[BUFFER_CLASS_COUNT];
  struct list accounts;         /* struct buffer_account: those in which somebody waits, whose turn it is first */
  struct buffer_account nobody; /* has no quota: for who names no account */
  uint32_t free_count[BUFFER_CLASS_COUNT], total_count[BUFFER_CLASS_COUNT];
  uint64_t waits; /* how often somebody had to wait */
};

/* Takes about `bytes` from the arena: half of it large buffers, a quarter each of the others, at least 4 of each.
 * TARN_FULL when the arena cannot give it. */
CHECKED tarn_err buffer_pool_init(struct buffer_pool *pool, struct env *env, struct arena *arena, uint64_t bytes);
void buffer_account_init(struct buffer_account *account);
/* Nothing is charged to it, and nobody waits. */
bool buffer_account_is_empty(const struct buffer_account *account);
/* A buffer with refs = 1 for `data_bytes` (1..BUFFER_DATA_MAX) at any offset; NULL when the caller must wait. `account`
 * NULL: no quota. */
struct buffer *buffer_get_for(struct buffer_pool *pool, struct buffer_account *account, uint32_t data_bytes);
static inline struct buffer *buffer_get(struct buffer_pool *pool, uint32_t data_bytes) {
  return buffer_get_for(pool, NULL, data_bytes);
}
/* Requires a wait that is not queued. Answers through wait->ready, also when a buffer is free at once. */
void buffer_wait_for(struct buffer_pool *pool, struct buffer_account *account, struct buffer_wait *wait,
                     uint32_t data_bytes);
static inline void buffer_wait(struct buffer_pool *pool, struct buffer_wait *wait, uint32_t data_bytes) {
  buffer_wait_for(pool, NULL, wait, data_bytes);
}
/* Takes the wait back, with the buffer that may be on its way. Harmless when not waiting. */
void buffer_wait_cancel(struct buffer_pool *pool, struct buffer_wait *wait);
void buffer_wait_init(struct buffer_wait *wait, void (*ready)(struct buffer_wait *wait));
/* A buffer of its owner's own, in no pool and with one reference for ever; false when the arena is short. */
CHECKED bool buffer_new_private(struct buffer *buffer, struct arena *arena, uint32_t bytes);
/* The same in memory that the caller took, aligned to BUFFER_ALIGN: for many at once, most of which will never be touched. */
void buffer_init_private(struct buffer *buffer, uint8_t *memory, uint32_t bytes);
void buffer_ref(struct buffer *buffer);
/* A disk that hangs keeps it, for nobody knows how long. Harmless for one that is held already, or of no pool. */
void buffer_hold(struct buffer *buffer);
void buffer_unref(struct buffer *buffer);
/* Does anybody wait for what this account (NULL: whoever) has: since no buffer is left, or because the quota is its
 * own? */
bool buffer_pool_is_crowded(const struct buffer_pool *pool, const struct buffer_account *account);
/* All buffers are back in the pool: what a clean end, and every quiet moment of the simulator, must find. */
bool buffer_pool_is_whole(const struct buffer_pool *pool);

#endif
