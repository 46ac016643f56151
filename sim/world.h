/* world.h - virtual time, seeded streams of chance, the event heap, memory of one run, the trace, and how a run fails.
 *
 * One world is one seed's run. It owns the env that the core lives in, and everything the simulator allocates. Chance comes
 * in separate streams, one per purpose and object (world_stream()), so that a mistake in the core which changes one
 * stream's use does not shift the others. The same seed gives the same run, byte for byte.
 *
 * A run fails by world_fail(): it does not return, and neither does a broken require() in the core (main.c catches it). */
#ifndef TARN_SIM_WORLD_H
#define TARN_SIM_WORLD_H

#include <setjmp.h>

#include "base/prng.h"
#include "core/env.h"
#include "sim/counters.h"

/* Something outside the core that will happen at a known time. In the memory of its owner. */
struct sim_event {
  uint64_t at_ns, order;
  void (*run)(struct sim_event *event);
  uint32_t place; /* in the heap, + 1; 0: not set */
};

/* The one fault of a sweep (sweep.h). */
struct world_sweep {
  bool on;
  uint64_t at, count; /* the I/O that fails; those so far */
  bool disk, all;     /* and then every one of its disk, of all */
  const void *victim; /* its disk */
};

struct world_block;
struct world {
  struct env env;
  uint64_t seed;
  uint64_t order_next;
  struct sim_event **heap;
  uint32_t heap_count, heap_capacity;
  struct prng core_random; /* what env.random gives */
  struct sim_counters counters;
  struct list blocks; /* world_alloc() */
  struct world_sweep sweep;
  uint64_t steps;
  enum { LIMITS_DRAWN, LIMITS_NORMAL, LIMITS_TINY } limits; /* of mirrors: drawn from the seed, unless it is told */
  bool traced;
  void (*trace_line)(struct world *world, const char *line); /* NULL: standard output */
  void *trace_context;
  sigjmp_buf *failed; /* where world_fail() goes */
  char failure[1024]; /* what went wrong */
};

void world_init(struct world *world, uint64_t seed);
void world_destroy(struct world *world);
/* Have mirrors of this run tiny limits (core/mirror.h)? Half of all seeds; all else of a seed is drawn as ever. */
bool world_is_tiny(const struct world *world);
/* A stream of chance of its own: the same for the same seed, purpose and index. */
struct prng world_stream(const struct world *world, const char *purpose, uint64_t index);
/* Uniform in [low, high]. */
uint64_t prng_between(struct prng *prng, uint64_t low, uint64_t high);

/* Zeroed; freed with the world at the latest. */
void *world_alloc(struct world *world, size_t bytes);
void world_free(void *memory); /* NULL is fine */

void world_at(struct world *world, struct sim_event *event, uint64_t at_ns);
void world_cancel(struct world *world, struct sim_event *event);
static inline bool world_is_set(const struct sim_event *event) { return event->place != 0; }
static inline uint64_t world_now(const struct world *world) { return world->env.now_ns; }

/* Runs one event of the core, or, if its queue is empty, lets time pass to the next timer or sim_event and runs that. False
 * when there is nothing left that could ever happen. */
bool world_step(struct world *world);
bool world_can_step(const struct world *world);
/* A process dies: its queue and timers are forgotten. Its sim_events are its owners' to cancel. */
void world_forget_process(struct world *world);

/* Does this I/O of this disk fail, by the sweep? */
bool world_sweeps(struct world *world, const void *disk);
__attribute__((noreturn, cold, format(printf, 2, 3))) void world_fail(struct world *world, const char *format, ...);
__attribute__((format(printf, 2, 3))) void world_trace(struct world *world, const char *format, ...);

#endif
