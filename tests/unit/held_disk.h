/* held_disk.h - a disk that keeps what it is given until the test answers it, and the turns of an env around it.
 *
 * For tests of what stands between a submitter and a disk (guard, gate, fault disk). */
#ifndef TARN_TESTS_HELD_DISK_H
#define TARN_TESTS_HELD_DISK_H

#include <stdio.h>
#include <string.h>

#include "core/disk.h"

struct held_disk {
  struct disk disk;
  struct list ios; /* in order of arrival */
  uint32_t count, submitted;
};

static void held_disk_submit(struct disk *disk, struct disk_io *io) {
  struct held_disk *held = CONTAINER_OF(disk, struct held_disk, disk);
  list_push(&held->ios, &io->link);
  held->count++;
  held->submitted++;
}
static void held_disk_close(struct disk *disk) { (void)disk; }

static inline void held_disk_init(struct held_disk *held, struct env *env) {
  static const struct disk_ops ops = {.kind = "held", .submit = held_disk_submit, .close = held_disk_close};
  *held = (struct held_disk){.disk = {.ops = &ops,
                                      .env = env,
                                      .caps = {.size_bytes = 1 << 20,
                                               .block_bytes = 512,
                                               .align_bytes = 512,
                                               .io_bytes_max = 65536,
                                               .zero_block_bytes = 512,
                                               .zero_bytes_max = 1 << 20,
                                               .can_zero = true,
                                               .can_trim = true,
                                               .can_extents = true,
                                               .volatile_cache = true}}};
  list_init(&held->ios);
}

/* What it has, by age: 0 is the oldest. */
static inline struct disk_io *held_disk_io(const struct held_disk *held, uint32_t index) {
  require(index < held->count);
  struct list *node = held->ios.next;
  while (index-- > 0) node = node->next;
  return LIST_ENTRY(node, struct disk_io, link);
}

/* The answer is posted, as every disk does it. EXTENTS that goes well finds a hole, unless the test has said what. */
static inline void held_disk_answer(struct held_disk *held, uint32_t index, tarn_err err) {
  struct disk_io *io = held_disk_io(held, index);
  list_remove(&io->link);
  if (io->op == DISK_EXTENTS && !err && io->extent_count == 0)
    (void)disk_extents_add(io, io->length, EXTENT_HOLE | EXTENT_ZERO);
  held->count--;
  disk_complete(io, err);
}

/* ---- what happened, in order: an I/O's letter and its error's, "a:ok b:hung ", and what the test adds ---- */

static struct disk_io ios[16]; /* letter a, b, ... */
static char said[256];

static inline void say(const char *what) { strncat(said, what, sizeof said - strlen(said) - 1); }
/* And it is forgotten. */
static inline bool said_so(const char *expected) {
  bool equal = strcmp(said, expected) == 0;
  if (!equal) fprintf(stderr, "said \"%s\", expected \"%s\"\n", said, expected);
  said[0] = 0;
  return equal;
}
static inline void io_done(struct disk_io *io) {
  char text[24];
  const char *err = io->err == TARN_OK         ? "ok"
                    : io->err == TARN_IO       ? "io"
                    : io->err == TARN_HUNG     ? "hung"
                    : io->err == TARN_GONE     ? "gone"
                    : io->err == TARN_SHUTDOWN ? "shutdown"
                                               : "other";
  snprintf(text, sizeof text, "%c:%s ", (char)('a' + (io - ios)), err);
  say(text);
}

/* Does the disk below have what was submitted above? */
static inline bool is_passed_on(const struct disk_io *below, const struct disk_io *io) {
  return below->op == io->op && below->flags == io->flags && below->offset == io->offset &&
         below->length == io->length && below->buffer == io->buffer && below->data == io->data;
}

/* ---- turns ---- */

static inline void run_events(struct env *env) {
  while (event_run_one(&env->queue)) continue;
}

/* One turn, however late. */
static inline void turn_at(struct env *env, uint64_t now_ns) {
  env->now_ns = now_ns;
  timers_run(env);
  run_events(env);
}

/* Time passes in a process that runs: each timer fires when it is due. */
static inline void pass(struct env *env, uint64_t ns) {
  uint64_t end = env->now_ns + ns;
  while (timers_next_ns(env) <= end) turn_at(env, timers_next_ns(env));
  turn_at(env, end);
}

#endif
