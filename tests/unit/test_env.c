/* Events, timers and reports. */
#include "core/env.h"

#include "base/plant.h"
#include "unit.h"

/* What ran, in order: one letter each. */
static char trace[64];

struct step {
  struct event event;
  struct timer timer;
  char name;
  struct env *env;
  struct step *posts;   /* this one is posted when it runs */
  struct step *cancels; /* this one's event and timer are cancelled */
  uint64_t again_ns;    /* its timer is set again for then; 0 not */
};

static void ran(struct step *step) {
  size_t length = strlen(trace);
  assert_true(length + 1 < sizeof(trace));
  trace[length] = step->name;
  trace[length + 1] = 0;
  if (step->posts) event_post(&step->env->queue, &step->posts->event);
  if (step->cancels) {
    event_cancel(&step->cancels->event);
    timer_cancel(&step->cancels->timer);
  }
  if (step->again_ns) timer_set(step->env, &step->timer, step->again_ns);
}
static void step_event(struct event *event) { ran(CONTAINER_OF(event, struct step, event)); }
static void step_timer(struct timer *timer) { ran(CONTAINER_OF(timer, struct step, timer)); }

static void step_init(struct step *step, struct env *env, char name) {
  *step = (struct step){.name = name, .env = env};
  event_init(&step->event, step_event);
  timer_init(&step->timer, step_timer);
}

static struct env env;
static struct step a, b, c;

static int setup(void **state) {
  (void)state;
  trace[0] = 0;
  env_init(&env);
  step_init(&a, &env, 'a');
  step_init(&b, &env, 'b');
  step_init(&c, &env, 'c');
  return 0;
}

static void drain(void) {
  while (event_run_one(&env.queue)) continue;
}

static void events_run_in_the_order_of_posting(void **state) {
  (void)state;
  assert_false(event_run_one(&env.queue));
  event_post(&env.queue, &b.event);
  event_post(&env.queue, &a.event);
  event_post(&env.queue, &c.event);
  assert_true(event_is_posted(&a.event));
  assert_true(event_run_one(&env.queue));
  assert_string_equal(trace, "b");
  drain();
  assert_string_equal(trace, "bac");
  assert_false(event_is_posted(&a.event));
}

static void an_event_may_post_itself_and_others(void **state) {
  (void)state;
  a.posts = &a;
  event_post(&env.queue, &a.event);
  event_post(&env.queue, &b.event);
  for (int i = 0; i < 4; i++) assert_true(event_run_one(&env.queue));
  assert_string_equal(trace, "abaa"); /* behind what was posted before */
}

static void a_cancelled_event_does_not_run(void **state) {
  (void)state;
  a.cancels = &b;
  event_post(&env.queue, &a.event);
  event_post(&env.queue, &b.event);
  event_post(&env.queue, &c.event);
  drain();
  assert_string_equal(trace, "ac");
  event_cancel(&b.event); /* harmless */
}

static void post_twice(void *context) {
  (void)context;
  event_post(&env.queue, &a.event);
  event_post(&env.queue, &a.event);
}

static void an_event_is_posted_once(void **state) {
  (void)state;
  assert_true(panics(post_twice, NULL));
}

static void run_at(uint64_t now_ns) {
  env.now_ns = now_ns;
  timers_run(&env);
}

static void timers_fire_by_deadline_and_never_early(void **state) {
  (void)state;
  assert_true(timers_next_ns(&env) == UINT64_MAX);
  timer_set(&env, &a.timer, 300);
  timer_set(&env, &b.timer, 100);
  timer_set(&env, &c.timer, 300);
  assert_true(timers_next_ns(&env) == 100);
  run_at(99);
  assert_string_equal(trace, "");
  run_at(100);
  assert_string_equal(trace, "b");
  assert_false(timer_is_armed(&b.timer));
  assert_true(timers_next_ns(&env) == 300);
  run_at(1000);
  assert_string_equal(trace, "bac"); /* equal deadlines: in the order of setting */
  run_at(2000);
  assert_string_equal(trace, "bac");
}

static void a_timer_can_be_moved_and_cancelled(void **state) {
  (void)state;
  timer_set(&env, &a.timer, 100);
  timer_set(&env, &b.timer, 200);
  timer_set(&env, &a.timer, 300);
  assert_true(timers_next_ns(&env) == 200);
  timer_cancel(&b.timer);
  timer_cancel(&b.timer); /* harmless */
  assert_true(timers_next_ns(&env) == 300);
  timer_set(&env, &a.timer, 50);
  run_at(60);
  assert_string_equal(trace, "a");
}

static void a_timer_set_again_for_now_waits_for_the_next_turn(void **state) {
  (void)state;
  a.again_ns = 100;
  timer_set(&env, &a.timer, 100);
  run_at(100);
  assert_string_equal(trace, "a");
  assert_true(timer_is_armed(&a.timer));
  run_at(100);
  assert_string_equal(trace, "aa");
}

static void a_timer_may_cancel_one_that_is_due_with_it(void **state) {
  (void)state;
  a.cancels = &b;
  timer_set(&env, &a.timer, 100);
  timer_set(&env, &b.timer, 100);
  timer_set(&env, &c.timer, 100);
  run_at(500);
  assert_string_equal(trace, "ac");
  assert_false(timer_is_armed(&b.timer));
}

static void the_end_of_time(void **state) {
  (void)state;
  run_at(UINT64_MAX); /* with none armed */
  timer_set(&env, &a.timer, UINT64_MAX);
  run_at(UINT64_MAX);
  assert_string_equal(trace, "a");
}

static char reported[1024];
static enum report_level reported_level;

static void keep_report(struct env *of, enum report_level level, const char *subject, const char *text) {
  assert_ptr_equal(of, &env);
  reported_level = level;
  snprintf(reported, sizeof(reported), "%s: %s", subject, text);
}

static void reports_are_one_bounded_line(void **state) {
  (void)state;
  report(&env, REPORT_ERROR, "vol0", "nobody listens");
  env.report = keep_report;
  report(&env, REPORT_WARNING, "vol0", "image %s failed: %d", "b", 5);
  assert_int_equal(reported_level, REPORT_WARNING);
  assert_string_equal(reported, "vol0: image b failed: 5");
  report(&env, REPORT_INFO, "x", "a name\nfrom a \x1bstranger\x7f");
  assert_string_equal(reported, "x: a name?from a ?stranger?");
  char text[900];
  memset(text, 'y', sizeof(text) - 1);
  text[sizeof(text) - 1] = 0;
  report(&env, REPORT_INFO, "x", "%s", text);
  assert_int_equal(strlen(reported), 3 + 511);
  assert_string_equal(reported + strlen(reported) - 4, "y...");
}

static void no_mistake_is_planted_in_the_honest_build(void **state) {
  (void)state;
  assert_false(PLANTED(rmw_unlocked));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(events_run_in_the_order_of_posting, setup),
      cmocka_unit_test_setup(an_event_may_post_itself_and_others, setup),
      cmocka_unit_test_setup(a_cancelled_event_does_not_run, setup),
      cmocka_unit_test_setup(an_event_is_posted_once, setup),
      cmocka_unit_test_setup(timers_fire_by_deadline_and_never_early, setup),
      cmocka_unit_test_setup(a_timer_can_be_moved_and_cancelled, setup),
      cmocka_unit_test_setup(a_timer_set_again_for_now_waits_for_the_next_turn, setup),
      cmocka_unit_test_setup(a_timer_may_cancel_one_that_is_due_with_it, setup),
      cmocka_unit_test_setup(the_end_of_time, setup),
      cmocka_unit_test_setup(reports_are_one_bounded_line, setup),
      cmocka_unit_test(no_mistake_is_planted_in_the_honest_build),
  };
  return cmocka_run_group_tests_name("env", tests, NULL, NULL);
}
