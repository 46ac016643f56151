/* arena.h - memory that is sized once and then frozen.
 *
 * Everything that a mirror, a pool or a server needs is taken from an arena when it opens; then the arena is frozen and
 * no path of an I/O allocates. Memory is zeroed, and backed by pages only when touched (calloc). There is no free of a
 * part: arena_destroy() frees it all.
 *
 * What is aligned to a page is for data on its way, and told to `hide`, if the owner has set that: a core dump has no business with it. */
#ifndef TARN_BASE_ARENA_H
#define TARN_BASE_ARENA_H

#include "base/require.h"

#define ARENA_PAGE_BYTES 4096u

struct arena_chunk;
struct arena {
  struct arena_chunk *chunks;
  uint64_t bytes; /* handed out so far: what the daemon prints as its reserve */
  bool frozen;
  void (*hide)(void *pages, size_t bytes); /* whole pages; NULL: nothing is hidden */
};

void arena_init(struct arena *arena);
/* Zeroed memory aligned to `align` (a power of two, at most 4096). NULL when memory is short: the caller gives back the
 * whole arena and reports TARN_FULL. Requires an arena that is not frozen. */
void *arena_take(struct arena *arena, size_t bytes, size_t align);
void arena_freeze(struct arena *arena);
void arena_destroy(struct arena *arena);

#define ARENA_NEW(arena, type, count) ((type *)arena_take((arena), sizeof(type) * (size_t)(count), _Alignof(type)))

#endif
