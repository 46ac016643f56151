#include "sim/world.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct world_block {
  struct list link;
  max_align_t data[];
};

static uint64_t world_random(struct env *env) {
  struct world *world = CONTAINER_OF(env, struct world, env);
  return prng_next(&world->core_random);
}

static void world_report(struct env *env, enum report_level level, const char *subject, const char *text) {
  static const char *const names[] = {"info", "warning", "error"};
  struct world *world = CONTAINER_OF(env, struct world, env);
  world_trace(world, "report %s %s: %s", names[level], subject ? subject : "-", text);
}

void world_init(struct world *world, uint64_t seed) {
  memset(world, 0, sizeof *world);
  env_init(&world->env);
  world->env.random = world_random;
  world->env.report = world_report;
  world->env.wall_ns = 1700000000ull * NS_PER_S;
  world->seed = seed;
  list_init(&world->blocks);
  world->core_random = world_stream(world, "core", 0);
}

void world_destroy(struct world *world) {
  struct list *node;
  while ((node = list_pop(&world->blocks))) free(LIST_ENTRY(node, struct world_block, link));
  free(world->heap);
  world->heap = NULL;
}

struct prng world_stream(const struct world *world, const char *purpose, uint64_t index) {
  uint64_t hash = mix_u64(world->seed + 0x7461726eull);
  for (const char *c = purpose; *c; c++) hash = mix_u64(hash ^ (uint8_t)*c);
  struct prng prng;
  prng_seed(&prng, mix_u64(hash ^ mix_u64(index)));
  return prng;
}

bool world_is_tiny(const struct world *world) {
  struct prng prng = world_stream(world, "limits", 0);
  return world->limits == LIMITS_DRAWN ? prng_one_in(&prng, 2) : world->limits == LIMITS_TINY;
}

uint64_t prng_between(struct prng *prng, uint64_t low, uint64_t high) {
  require(low <= high);
  return low + prng_below(prng, high - low + 1);
}

void *world_alloc(struct world *world, size_t bytes) {
  struct world_block *block = calloc(1, sizeof *block + bytes);
  require(block != NULL);
  list_init(&block->link);
  list_push(&world->blocks, &block->link);
  return block->data;
}

void world_free(void *memory) {
  if (!memory) return;
  struct world_block *block = CONTAINER_OF(memory, struct world_block, data);
  list_remove(&block->link);
  free(block);
}

/* ---- the heap: ordered by time, then by the order of asking ---- */

static bool heap_before(const struct sim_event *a, const struct sim_event *b) {
  return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void heap_put(struct world *world, uint32_t place, struct sim_event *event) {
  world->heap[place] = event;
  event->place = place + 1;
}

static void heap_sift(struct world *world, uint32_t place) {
  struct sim_event *event = world->heap[place];
  while (place > 0 && heap_before(event, world->heap[(place - 1) / 2])) {
    heap_put(world, place, world->heap[(place - 1) / 2]);
    place = (place - 1) / 2;
  }
  for (;;) {
    uint32_t child = 2 * place + 1;
    if (child >= world->heap_count) break;
    if (child + 1 < world->heap_count && heap_before(world->heap[child + 1], world->heap[child])) child++;
    if (!heap_before(world->heap[child], event)) break;
    heap_put(world, place, world->heap[child]);
    place = child;
  }
  heap_put(world, place, event);
}

void world_at(struct world *world, struct sim_event *event, uint64_t at_ns) {
  require(!world_is_set(event));
  require(event->run != NULL);
  if (world->heap_count == world->heap_capacity) {
    world->heap_capacity = world->heap_capacity ? 2 * world->heap_capacity : 256;
    world->heap = realloc(world->heap, world->heap_capacity * sizeof *world->heap);
    require(world->heap != NULL);
  }
  event->at_ns = max_u64(at_ns, world_now(world));
  event->order = world->order_next++;
  heap_put(world, world->heap_count, event);
  heap_sift(world, world->heap_count++);
}

void world_cancel(struct world *world, struct sim_event *event) {
  if (!world_is_set(event)) return;
  uint32_t place = event->place - 1;
  require(world->heap[place] == event);
  event->place = 0;
  world->heap_count--;
  if (place == world->heap_count) return;
  heap_put(world, place, world->heap[world->heap_count]);
  heap_sift(world, place);
}

/* ---- time ---- */

static void world_advance(struct world *world, uint64_t to_ns) {
  require(to_ns >= world->env.now_ns);
  world->env.wall_ns += to_ns - world->env.now_ns;
  world->env.now_ns = to_ns;
}

bool world_can_step(const struct world *world) {
  return world->heap_count > 0 || !list_is_empty(&world->env.queue.events) || timers_next_ns(&world->env) != UINT64_MAX;
}

bool world_step(struct world *world) {
  world->steps++;
  if (event_run_one(&world->env.queue)) return true;
  uint64_t timer_ns = timers_next_ns(&world->env);
  struct sim_event *first = world->heap_count ? world->heap[0] : NULL;
  if (!first && timer_ns == UINT64_MAX) return false;
  if (!first || timer_ns < first->at_ns) {
    world_advance(world, max_u64(timer_ns, world_now(world)));
    timers_run(&world->env);
    return true;
  }
  world_advance(world, first->at_ns);
  world_cancel(world, first);
  first->run(first);
  return true;
}

void world_forget_process(struct world *world) {
  list_init(&world->env.queue.events);
  list_init(&world->env.timers);
}

bool world_sweeps(struct world *world, const void *disk) {
  struct world_sweep *sweep = &world->sweep;
  if (!sweep->on) return false;
  bool strikes = ++sweep->count == sweep->at;
  if (strikes) sweep->victim = disk;
  return strikes || (sweep->victim && (sweep->all || (sweep->disk && sweep->victim == disk)));
}

/* ---- trace and failure ---- */

static void trace_text(struct world *world, const char *format, va_list args) {
  char line[1200];
  int head = snprintf(line, sizeof line, "[%10.3f] ", (double)world_now(world) / 1e6);
  require(head > 0);
  vsnprintf(line + head, sizeof line - (size_t)head, format, args);
  if (world->trace_line) world->trace_line(world, line);
  else puts(line);
}

void world_trace(struct world *world, const char *format, ...) {
  if (!world->traced) return;
  va_list args;
  va_start(args, format);
  trace_text(world, format, args);
  va_end(args);
}

void world_fail(struct world *world, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(world->failure, sizeof world->failure, format, args);
  va_end(args);
  world_trace(world, "FAILED: %s", world->failure);
  require(world->failed != NULL);
  siglongjmp(*world->failed, 1);
}
