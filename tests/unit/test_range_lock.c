/* The range lock: small stories as golden traces, then many random ones against a model that is too simple to be wrong. */
#include "core/range_lock.h"

#include "base/prng.h"
#include "unit.h"

static struct env env;
static struct range_lock lock;
static struct range_hold holds[26]; /* 'a' to 'z' */
static char trace[128];

static void say(char what, const struct range_hold *hold) {
  size_t length = strlen(trace);
  assert_true(length + 3 < sizeof(trace));
  snprintf(trace + length, sizeof(trace) - length, "%c%c ", what, (char)('a' + (hold - holds)));
}

static void granted(struct range_hold *hold) { say('+', hold); } /* from the queue */

static int setup(void **state) {
  (void)state;
  trace[0] = 0;
  env_init(&env);
  range_lock_init(&lock, &env);
  return 0;
}

/* ---- golden traces ----
 * Script: "X a 0 10" acquires exclusively [0, 10) as a, "S" shared, "R a" releases, "Q" runs the queue.
 * Trace: "!a" granted at once, "?a" must wait, "+a" granted from the queue. */

static void run_script(const char *script) {
  char op, name;
  uint64_t start, length;
  int used;
  while (sscanf(script, " %c%n", &op, &used) == 1) {
    script += used;
    if (op == 'Q') {
      while (event_run_one(&env.queue)) continue;
    } else if (op == 'R') {
      assert_int_equal(sscanf(script, " %c%n", &name, &used), 1);
      script += used;
      range_release(&lock, &holds[name - 'a']);
    } else {
      assert_int_equal(sscanf(script, " %c %lu %lu%n", &name, &start, &length, &used), 3);
      script += used;
      struct range_hold *hold = &holds[name - 'a'];
      bool now = range_acquire(&lock, hold, start, length, op == 'X' ? RANGE_EXCLUSIVE : RANGE_SHARED, 7, granted);
      assert_int_equal(hold->tag, 7);
      say(now ? '!' : '?', hold);
    }
    range_lock_check(&lock);
  }
}

static void stories(void **state) {
  static const struct {
    const char *why, *script, *trace;
  } rows[] = {
      {"two disjoint writes are in flight together", "X a 0 10 X b 10 10", "!a !b "},
      {"two overlapping ones go in order", "X a 0 10 X b 9 10 R a Q", "!a ?b +b "},
      {"readers share", "S a 0 10 S b 5 10 S c 0 100", "!a !b !c "},
      {"a writer waits for all readers", "S a 0 10 S b 5 10 X c 0 100 R a Q R b Q", "!a !b ?c +c "},
      {"a reader does not overtake a waiting writer", "S a 0 10 X b 0 10 S c 0 10 R a Q R b Q", "!a ?b ?c +b +c "},
      {"waiting ones that do not conflict are granted together", "X a 0 30 X b 0 10 X c 10 10 S d 20 5 S e 22 5 R a Q",
       "!a ?b ?c ?d ?e +b +c +d +e "},
      {"a long one waits for two, and a third waits for it", "X a 0 10 X b 20 10 X c 5 20 X d 12 2 R a Q R b Q R c Q",
       "!a !b ?c ?d +c +d "},
      {"who gives up waiting lets the next one through", "X a 0 10 X b 0 20 X c 15 5 R b Q R a Q", "!a ?b ?c +c "},
      {"granted, and released before it was told", "X a 0 10 X b 0 10 X c 0 10 R a R b Q", "!a ?b ?c +c "},
      {"the same range again, after its release", "X a 0 10 R a X a 0 10 R a X b 5 1", "!a !a !b "},
      {"the last byte there is", "X a 18446744073709551614 1 X b 0 18446744073709551615 R a Q", "!a ?b +b "},
      {"one byte", "X a 5 1 X b 6 1 X c 4 1 X d 5 1", "!a !b !c ?d "},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    setup(state);
    run_script(rows[i].script);
    if (strcmp(trace, rows[i].trace) != 0) fail_msg("row \"%s\": %s, expected %s", rows[i].why, trace, rows[i].trace);
  }
}

static void overlaps_are_walked_in_order_of_start(void **state) {
  (void)state;
  run_script("S a 0 100 S b 50 10 X c 20 10 S d 95 10 S e 200 10 S f 20 5");
  static const struct {
    const char *why;
    uint64_t start, length;
    const char *expected;
  } rows[] = {
      {"all", 0, 1000, "acfbde"},
      {"the long one is found from anywhere in it", 60, 5, "a"},
      {"ranges are half open", 100, 1, "d"},
      {"behind the last", 210, 10, ""},
      {"between", 105, 95, ""},
      {"one byte of two", 95, 1, "ad"},
      {"equal starts in order of asking", 22, 1, "acf"},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    char seen[8] = "";
    for (struct range_hold *hold = NULL;
         (hold = range_next_overlap(&lock, rows[i].start, rows[i].length, hold)) != NULL;)
      seen[strlen(seen)] = (char)('a' + (hold - holds));
    row_true(rows[i].why, strcmp(seen, rows[i].expected) == 0);
  }
}

/* ---- against the model: an array in order of asking; granted = no earlier one that conflicts ---- */

enum { MODEL_MAX = 64 };
struct model_hold {
  struct range_hold hold;
  uint64_t start, end;
  bool exclusive, told, by_queue;
};
static struct model_hold slots[MODEL_MAX];
static struct model_hold *order[MODEL_MAX]; /* in order of asking */
static int order_count;

static void model_granted(struct range_hold *hold) {
  struct model_hold *model = CONTAINER_OF(hold, struct model_hold, hold);
  assert_false(model->told);
  model->told = model->by_queue = true;
}

static bool model_is_free(const struct model_hold *model) {
  for (int i = 0; i < order_count; i++)
    if (order[i] == model) return false;
  return true;
}

static bool model_may_run(const struct model_hold *model) {
  for (int i = 0; order[i] != model; i++) {
    const struct model_hold *earlier = order[i];
    bool overlap = earlier->start < model->end && model->start < earlier->end;
    if (overlap && (earlier->exclusive || model->exclusive)) return false;
  }
  return true;
}

static void model_acquire(struct model_hold *model, struct prng *prng, uint64_t space) {
  uint64_t length = 1 + prng_below(prng, prng_one_in(prng, 8) ? space : space / 16 + 1);
  *model = (struct model_hold){.start = prng_below(prng, space), .exclusive = !prng_one_in(prng, 3)};
  model->end = model->start + length;
  order[order_count++] = model;
  enum range_mode mode = model->exclusive ? RANGE_EXCLUSIVE : RANGE_SHARED;
  model->told = range_acquire(&lock, &model->hold, model->start, length, mode, 0, model_granted);
  assert_int_equal(model->told, model_may_run(model));
}

static void model_release(struct model_hold *model) {
  int i = 0;
  while (order[i] != model) i++;
  order_count--;
  memmove(order + i, order + i + 1, (size_t)(order_count - i) * sizeof(order[0]));
  range_release(&lock, &model->hold);
}

static void model_compare(struct prng *prng, uint64_t space) {
  uint32_t waiting = 0;
  for (int i = 0; i < order_count; i++) {
    bool may_run = model_may_run(order[i]);
    assert_int_equal(order[i]->hold.blockers == 0, may_run);
    assert_true(implies(order[i]->told, may_run));
    waiting += !may_run;
  }
  assert_int_equal(lock.hold_count, order_count);
  assert_int_equal(lock.waiting_count, waiting);
  uint64_t start = prng_below(prng, space), length = 1 + prng_below(prng, space / 4), last_start = 0;
  int found = 0, expected = 0;
  for (struct range_hold *hold = NULL; (hold = range_next_overlap(&lock, start, length, hold)) != NULL; found++) {
    assert_true(hold->start < start + length && start < hold->end);
    assert_true(hold->start >= last_start);
    last_start = hold->start;
  }
  for (int i = 0; i < order_count; i++) expected += order[i]->start < start + length && start < order[i]->end;
  assert_int_equal(found, expected);
  range_lock_check(&lock);
}

static void random_stories_equal_the_model(void **state) {
  static const struct {
    const char *why;
    uint64_t space, seeds;
    int holds_max;
  } rows[] = {
      {"crowded: nearly all conflict", 20, 60, 12},
      {"some conflict", 1000, 60, MODEL_MAX},
      {"sparse, a deep tree", 100000, 30, MODEL_MAX},
  };
  for (size_t row = 0; row < COUNT_OF(rows); row++) {
    for (uint64_t seed = 1; seed <= rows[row].seeds; seed++) {
      setup(state);
      order_count = 0;
      struct prng prng;
      prng_seed(&prng, seed);
      for (int step = 0; step < 300; step++) {
        struct model_hold *model = &slots[prng_below(&prng, (uint64_t)rows[row].holds_max)];
        if (model_is_free(model)) model_acquire(model, &prng, rows[row].space);
        else model_release(model);
        if (prng_one_in(&prng, 2)) event_run_one(&env.queue);
        model_compare(&prng, rows[row].space);
      }
      while (event_run_one(&env.queue)) continue;
      for (int i = 0; i < order_count; i++) assert_int_equal(order[i]->told, model_may_run(order[i]));
      /* Progress: releasing what runs, in any order, serves everybody. */
      while (order_count > 0) {
        struct model_hold *model = order[prng_below(&prng, (uint64_t)order_count)];
        if (!model->told) continue;
        model_release(model);
        while (event_run_one(&env.queue)) continue;
        model_compare(&prng, rows[row].space);
      }
      assert_null(lock.root);
    }
  }
}

static void the_tree_stays_shallow(void **state) {
  (void)state;
  enum { COUNT = 10000 };
  static struct range_hold many[COUNT];
  for (uint64_t i = 0; i < COUNT; i++)
    assert_true(range_acquire(&lock, &many[i], i * 10, 10, RANGE_EXCLUSIVE, 0, granted));
  int deepest = 0;
  for (uint64_t i = 0; i < COUNT; i++) {
    int depth = 0;
    for (const struct range_hold *hold = &many[i]; hold; hold = hold->parent) depth++;
    if (depth > deepest) deepest = depth;
  }
  assert_true(deepest < 50); /* ascending starts would make a plain tree 10000 deep */
  for (uint64_t i = 0; i < COUNT; i++) range_release(&lock, &many[i]);
  assert_null(lock.root);
}

static void acquire_nothing(void *context) { (void)range_acquire(&lock, context, 5, 0, RANGE_SHARED, 0, granted); }
static void acquire_beyond(void *context) {
  (void)range_acquire(&lock, context, 5, UINT64_MAX, RANGE_SHARED, 0, granted);
}
static void acquire_twice(void *context) { (void)range_acquire(&lock, context, 0, 5, RANGE_SHARED, 0, granted); }
static void release_once_more(void *context) { range_release(&lock, context); }

static void wrong_use_is_a_bug_of_ours(void **state) {
  (void)state;
  assert_true(panics(acquire_nothing, &holds[1]));
  assert_true(panics(acquire_beyond, &holds[1]));
  run_script("X a 0 10");
  assert_true(panics(acquire_twice, &holds[0]));
  range_release(&lock, &holds[0]);
  assert_true(panics(release_once_more, &holds[0]));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(stories, setup),
      cmocka_unit_test_setup(overlaps_are_walked_in_order_of_start, setup),
      cmocka_unit_test_setup(random_stories_equal_the_model, setup),
      cmocka_unit_test_setup(the_tree_stays_shallow, setup),
      cmocka_unit_test_setup(wrong_use_is_a_bug_of_ours, setup),
  };
  return cmocka_run_group_tests_name("range_lock", tests, NULL, NULL);
}
