/* env.h - what the core is given instead of a kernel: an event queue, timers, a clock, random numbers, a reporter.
 *
 * One env belongs to one reactor (or to one simulated node) and to everything that lives on it. The owner of the env
 * (src/shell/reactor.c, sim/) runs this turn, over and over:
 *
 *     env->now_ns = the clock;  timers_run(env);  while (event_run_one(&env->queue)) ;  do the outside work
 *
 * Nothing in the core calls back from inside a call that it was given: a completion is posted to the queue and runs from
 * there. So stacks are bounded, and the order of events is visible. All of it is single-threaded. */
#ifndef TARN_CORE_ENV_H
#define TARN_CORE_ENV_H

#include "base/error.h"
#include "base/list.h"

/* ---- events: FIFO ---- */
struct event {
  struct list link;
  void (*run)(struct event *event);
};
struct event_queue {
  struct list events;
};
static inline void event_init(struct event *event, void (*run)(struct event *)) {
  list_init(&event->link);
  event->run = run;
}
static inline bool event_is_posted(const struct event *event) { return list_is_linked(&event->link); }
/* Requires an event that is initialised and not posted. It is the caller's, and must stay until it has run. */
static inline void event_post(struct event_queue *queue, struct event *event) {
  list_push(&queue->events, &event->link);
}
static inline void event_cancel(struct event *event) { list_remove(&event->link); }
/* Runs the oldest event; false when there was none. */
bool event_run_one(struct event_queue *queue);

/* ---- timers: fire once, from timers_run(), never early ---- */
struct timer {
  struct list link;
  uint64_t deadline_ns;
  void (*fire)(struct timer *timer);
};

/* ---- reports: what an administrator may want to know, one line each (the log, and `tarn events`) ---- */
enum report_level { REPORT_INFO, REPORT_WARNING, REPORT_ERROR };

struct env {
  struct event_queue queue;
  struct list timers; /* sorted by deadline */
  uint64_t now_ns;    /* monotonic; set by the owner each turn */
  uint64_t wall_ns;   /* since 1970, may jump; for people only */
  uint64_t (*random)(struct env *env);
  /* `subject` is a mirror's or image's name as shown to people, `text` a line without newline. May be NULL. */
  void (*report)(struct env *env, enum report_level level, const char *subject, const char *text);
};

void env_init(struct env *env);
void timer_init(struct timer *timer, void (*fire)(struct timer *));
/* (Re)arms: fires once now_ns >= deadline_ns. */
void timer_set(struct env *env, struct timer *timer, uint64_t deadline_ns);
void timer_cancel(struct timer *timer); /* harmless when not armed */
static inline bool timer_is_armed(const struct timer *timer) { return list_is_linked(&timer->link); }
/* UINT64_MAX when none is armed. */
uint64_t timers_next_ns(const struct env *env);
void timers_run(struct env *env);

__attribute__((format(printf, 4, 5))) void report(struct env *env, enum report_level level, const char *subject,
                                                  const char *format, ...);

#define NS_PER_S  1000000000ull
#define NS_PER_MS 1000000ull

#endif
