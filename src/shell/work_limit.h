/* work_limit.h - how long somebody waits for a worker (reactor.h) that reads and writes disks which may hang.
 *
 * A worker may take as long as it likes while it makes progress: large disks are looked at for minutes. It is given up
 * when it has made no step for as long as is allowed, or for up to twice as long. Then it goes on unwatched, and ends when
 * its disks answer. */
#ifndef TARN_SHELL_WORK_LIMIT_H
#define TARN_SHELL_WORK_LIMIT_H

#include "shell/reactor.h"

struct work_limit {
  struct timer timer;
  struct env *env;
  const struct reactor_work *work;
  uint64_t steps, allowed_ns;
  void (*over)(struct work_limit *limit);
};
/* `over` runs from the event queue, once for each work_limit_set(), unless that is cancelled before. */
void work_limit_init(struct work_limit *limit, struct env *env, const struct reactor_work *work,
                     void (*over)(struct work_limit *limit));
/* From now on. The work need not have begun, nor begin at all: then nothing makes steps. */
void work_limit_set(struct work_limit *limit, uint64_t allowed_ns);
/* Harmless twice. */
void work_limit_cancel(struct work_limit *limit);
bool work_limit_is_set(const struct work_limit *limit);

#endif
