/* undumped.c - see undumped.h. */
#include "shell/undumped.h"

#include <sys/mman.h>

static void hide(void *pages, size_t bytes) { (void)madvise(pages, bytes, MADV_DONTDUMP); }

void undumped_arena_init(struct arena *arena) {
  arena_init(arena);
  arena->hide = hide;
}
