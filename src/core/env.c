/* env.c - events, timers, reports. */
#include "core/env.h"
#include "base/text.h"

#include <stdarg.h>
#include <string.h>

#include "base/plant.h"

#ifdef TARN_PLANTS
enum plant plant_active;
unsigned long plant_hits;
#endif

#define REPORT_BYTES_MAX 512

void env_init(struct env *env) {
  *env = (struct env){0};
  list_init(&env->queue.events);
  list_init(&env->timers);
}

bool event_run_one(struct event_queue *queue) {
  struct list *node = list_pop(&queue->events);
  if (!node) return false;
  struct event *event = LIST_ENTRY(node, struct event, link);
  require(event->run != NULL);
  event->run(event);
  return true;
}

void timer_init(struct timer *timer, void (*fire)(struct timer *)) {
  require(fire != NULL);
  list_init(&timer->link);
  timer->deadline_ns = 0;
  timer->fire = fire;
}

void timer_set(struct env *env, struct timer *timer, uint64_t deadline_ns) {
  require(timer->fire != NULL);
  list_remove(&timer->link);
  timer->deadline_ns = deadline_ns;
  /* From the tail: a new deadline is mostly the latest. Behind its equals, so that they fire in the order of setting. */
  struct list *at = env->timers.prev;
  while (at != &env->timers && LIST_ENTRY(at, struct timer, link)->deadline_ns > deadline_ns) at = at->prev;
  list_insert_before(at->next, &timer->link);
}

void timer_cancel(struct timer *timer) { list_remove(&timer->link); }

uint64_t timers_next_ns(const struct env *env) {
  struct list *node = list_first(&env->timers);
  return node ? LIST_ENTRY(node, struct timer, link)->deadline_ns : UINT64_MAX;
}

void timers_run(struct env *env) {
  /* First set aside what is due: a timer that sets itself again for now waits for the next turn, so this ends. */
  struct list due;
  list_init(&due);
  while (timers_next_ns(env) <= env->now_ns) {
    struct list *node = list_pop(&env->timers);
    if (!node) break; /* none armed, at the end of time */
    list_push(&due, node);
  }
  for (struct list *node; (node = list_pop(&due)) != NULL;) {
    struct timer *timer = LIST_ENTRY(node, struct timer, link);
    require(timer->deadline_ns <= env->now_ns);
    timer->fire(timer);
  }
}

void report(struct env *env, enum report_level level, const char *subject, const char *format, ...) {
  require(subject != NULL);
  if (!env->report) return;
  char text[REPORT_BYTES_MAX];
  va_list arguments;
  va_start(arguments, format);
  bool whole = text_set_list(text, sizeof(text), format, arguments);
  va_end(arguments);
  if (!whole) memcpy(text + sizeof(text) - 4, "...", 4);
  /* One line, whatever a stranger's name had in it. */
  for (char *at = text; *at; at++)
    if ((unsigned char)*at < 0x20 || *at == 0x7f) *at = '?';
  env->report(env, level, subject, text);
}
