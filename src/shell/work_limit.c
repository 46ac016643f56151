/* work_limit.c - see work_limit.h. */
#include "shell/work_limit.h"

static void look(struct timer *timer) {
  struct work_limit *limit = CONTAINER_OF(timer, struct work_limit, timer);
  if (reactor_work_steps(limit->work) == limit->steps) limit->over(limit);
  else work_limit_set(limit, limit->allowed_ns);
}

void work_limit_init(struct work_limit *limit, struct env *env, const struct reactor_work *work,
                     void (*over)(struct work_limit *limit)) {
  *limit = (struct work_limit){.env = env, .work = work, .over = over};
  timer_init(&limit->timer, look);
}

void work_limit_set(struct work_limit *limit, uint64_t allowed_ns) {
  limit->allowed_ns = allowed_ns;
  limit->steps = reactor_work_steps(limit->work);
  timer_set(limit->env, &limit->timer, limit->env->now_ns + allowed_ns);
}

void work_limit_cancel(struct work_limit *limit) { timer_cancel(&limit->timer); }
bool work_limit_is_set(const struct work_limit *limit) { return timer_is_armed(&limit->timer); }
