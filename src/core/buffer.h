/* buffer.h - the memory that data passes through, from a client's socket to the disks and back, without a copy.
 *
 * A pool is sized once. Buffers come in three classes (BUFFER_CLASS_BYTES). Who finds a class empty takes a larger one, if nobody
 * waits for that, or waits in line, first come first served in each class: who needs little does not stand behind those who
 * need much, and takes nothing from them. A buffer is shared by reference: a write whose client was answered keeps its
 * buffer while one image still hangs on it (rule 7), and the pool gets it back at the last buffer_unref().
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

struct buffer_pool;
struct buffer {
  struct list link; /* in its pool while free */
  struct buffer_pool *pool;
  uint8_t *base; /* aligned to BUFFER_ALIGN */
  uint32_t bytes;
  uint32_t refs;
};

/* Who waits: `ready` is called from the event queue and owns one reference to `buffer`. */
struct buffer_wait {
  struct list link;
  uint32_t data_bytes;
  struct buffer *buffer;
  struct event event;
  void (*ready)(struct buffer_wait *wait);
};

struct buffer_pool {
  struct env *env;
  struct list free[BUFFER_CLASS_COUNT];
  struct list waiting[BUFFER_CLASS_COUNT]; /* struct buffer_wait, by the smallest class that will do */
  uint32_t free_count[BUFFER_CLASS_COUNT], total_count[BUFFER_CLASS_COUNT];
  uint64_t waits; /* how often somebody had to wait */
};

/* Takes about `bytes` from the arena: half of it large buffers, a quarter each of the others, at least 4 of each.
 * TARN_FULL when the arena cannot give it. */
CHECKED tarn_err buffer_pool_init(struct buffer_pool *pool, struct env *env, struct arena *arena, uint64_t bytes);
/* A buffer with refs = 1 for `data_bytes` (1..BUFFER_DATA_MAX) at any offset; NULL when the caller must wait. */
struct buffer *buffer_get(struct buffer_pool *pool, uint32_t data_bytes);
/* Requires a wait that is not queued. Answers through wait->ready, also when a buffer is free at once. */
void buffer_wait(struct buffer_pool *pool, struct buffer_wait *wait, uint32_t data_bytes);
/* Takes the wait back, with the buffer that may be on its way. Harmless when not waiting. */
void buffer_wait_cancel(struct buffer_pool *pool, struct buffer_wait *wait);
void buffer_wait_init(struct buffer_wait *wait, void (*ready)(struct buffer_wait *wait));
/* A buffer of its owner's own, in no pool and with one reference for ever; false when the arena is short. */
CHECKED bool buffer_new_private(struct buffer *buffer, struct arena *arena, uint32_t bytes);
/* The same in memory that the caller took, aligned to BUFFER_ALIGN: for many at once, most of which will never be touched. */
void buffer_init_private(struct buffer *buffer, uint8_t *memory, uint32_t bytes);
void buffer_ref(struct buffer *buffer);
void buffer_unref(struct buffer *buffer);
/* Is anybody waiting? */
bool buffer_pool_is_crowded(const struct buffer_pool *pool);
/* All buffers are back in the pool: what a clean end, and every quiet moment of the simulator, must find. */
bool buffer_pool_is_whole(const struct buffer_pool *pool);

#endif
