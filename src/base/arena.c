/* arena.c - chunks from calloc, each cut up from its start.
 *
 * What is small shares a chunk of CHUNK_BYTES; what is large gets a chunk of its own, which the C library maps straight
 * from the kernel: zero without being touched. */
#include "base/arena.h"

#include <stdlib.h>

#define CHUNK_BYTES (64u * 1024u)
#define ALIGN_MAX   ARENA_PAGE_BYTES

struct arena_chunk {
  struct arena_chunk *next;
  size_t used, total; /* of the whole allocation, this header included */
};

void arena_init(struct arena *arena) { *arena = (struct arena){0}; }

/* Where a piece would start in `chunk`, as an offset from it; 0 if it does not fit. */
static size_t place(const struct arena_chunk *chunk, size_t bytes, size_t align) {
  uintptr_t base = (uintptr_t)chunk;
  size_t offset = (size_t)(align_up(base + chunk->used, align) - base);
  return offset <= chunk->total && bytes <= chunk->total - offset ? offset : 0;
}

static struct arena_chunk *chunk_new(size_t bytes, size_t align) {
  size_t overhead = sizeof(struct arena_chunk) + align;
  if (bytes > SIZE_MAX / 2 - overhead) return NULL;
  size_t total = bytes + overhead > CHUNK_BYTES ? bytes + overhead : CHUNK_BYTES;
  struct arena_chunk *chunk = calloc(1, total);
  if (!chunk) return NULL;
  chunk->used = sizeof(*chunk);
  chunk->total = total;
  return chunk;
}

/* The first chunk is the one that small pieces are cut from; one that was made for a large piece goes behind it. */
static void chunk_link(struct arena *arena, struct arena_chunk *chunk) {
  struct arena_chunk **at = &arena->chunks;
  if (*at && chunk->total > CHUNK_BYTES) at = &(*at)->next;
  chunk->next = *at;
  *at = chunk;
}

void *arena_take(struct arena *arena, size_t bytes, size_t align) {
  require(!arena->frozen);
  require(is_power_of_two(align));
  require(align <= ALIGN_MAX);
  struct arena_chunk *chunk = arena->chunks;
  size_t offset = chunk ? place(chunk, bytes, align) : 0;
  if (offset == 0) {
    chunk = chunk_new(bytes, align);
    if (!chunk) return NULL;
    chunk_link(arena, chunk);
    offset = place(chunk, bytes, align);
    require(offset != 0);
  }
  chunk->used = offset + bytes;
  arena->bytes += bytes;
  if (arena->hide && align == ARENA_PAGE_BYTES)
    arena->hide((char *)chunk + offset, (size_t)align_up(bytes, ARENA_PAGE_BYTES));
  return (char *)chunk + offset;
}

void arena_freeze(struct arena *arena) {
  require(!arena->frozen);
  arena->frozen = true;
}

void arena_destroy(struct arena *arena) {
  while (arena->chunks) {
    struct arena_chunk *chunk = arena->chunks;
    arena->chunks = chunk->next;
    free(chunk);
  }
  arena_init(arena);
}
