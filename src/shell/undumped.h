/* undumped.h - memory that a core dump leaves out: the buffers through which clients' data pass.
 *
 * A core is read by others than those who may read the disks: it is sent to a developer, kept by a crash handler. What is left out are
 * the pages for data of an arena (base/arena.h): the pool, NBD sessions' receive buffers, what a mirror copies and merges in. Its
 * tables, the stacks and the heap are in a core as before. */
#ifndef TARN_SHELL_UNDUMPED_H
#define TARN_SHELL_UNDUMPED_H

#include "base/arena.h"

/* arena_init() for an arena that data will pass through. Where the kernel cannot do it the pages stay in the dump. */
void undumped_arena_init(struct arena *arena);

#endif
