/* The buffer pool: classes, references, and a line that nobody jumps. */
#include "core/buffer.h"

#include "base/prng.h"
#include "unit.h"

enum { SMALL = 4096, MIDDLE = 65536, LARGE = 262144 };

static struct env env;
static struct arena arena;
static struct buffer_pool pool; /* 4 of each class, unless a test makes its own */

static int setup(void **state) {
  (void)state;
  env_init(&env);
  arena_init(&arena);
  return buffer_pool_init(&pool, &env, &arena, 0) == TARN_OK ? 0 : -1;
}

static int teardown(void **state) {
  (void)state;
  bool whole = buffer_pool_is_whole(&pool);
  arena_destroy(&arena);
  return whole ? 0 : -1;
}

static void drain(void) {
  while (event_run_one(&env.queue)) continue;
}

static void the_bytes_are_shared_out(void **state) {
  (void)state;
  struct arena mine;
  struct buffer_pool big;
  arena_init(&mine);
  assert_int_equal(buffer_pool_init(&big, &env, &mine, 64 << 20), TARN_OK);
  assert_int_equal(big.total_count[2], (32 << 20) / (264 * 1024));
  assert_int_equal(big.total_count[1], (16 << 20) / (68 * 1024));
  assert_int_equal(big.total_count[0], (16 << 20) / (8 * 1024));
  assert_true(mine.bytes < 65 << 20);
  assert_true(buffer_pool_is_whole(&big));
  arena_destroy(&mine);
  for (int i = 0; i < BUFFER_CLASS_COUNT; i++) assert_int_equal(pool.total_count[i], 4); /* the least */
}

static void each_length_gets_the_smallest_class_that_holds_it_at_any_offset(void **state) {
  (void)state;
  static const struct {
    const char *why;
    uint32_t data_bytes, expected;
  } rows[] = {
      {"one byte", 1, 8 << 10},
      {"a small one, full", SMALL, 8 << 10},
      {"just more", SMALL + 1, 68 << 10},
      {"a middle one, full", MIDDLE, 68 << 10},
      {"just more", MIDDLE + 1, 264 << 10},
      {"the longest piece", BUFFER_DATA_MAX, 264 << 10},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct buffer *buffer = buffer_get(&pool, rows[i].data_bytes);
    row_true(rows[i].why, buffer != NULL && buffer->bytes == rows[i].expected);
    row_true(rows[i].why, buffer->refs == 1);
    row_true(rows[i].why, (uintptr_t)buffer->base % BUFFER_ALIGN == 0);
    row_true(rows[i].why, align_up(BUFFER_ALIGN - 1 + rows[i].data_bytes, BUFFER_ALIGN) <= buffer->bytes);
    memset(buffer->base, 0x55, buffer->bytes);
    buffer_unref(buffer);
  }
}

static void an_empty_class_borrows_from_a_larger_one(void **state) {
  (void)state;
  struct buffer *taken[12];
  for (unsigned i = 0; i < 12; i++) {
    taken[i] = buffer_get(&pool, 1);
    assert_non_null(taken[i]);
    assert_int_equal(taken[i]->bytes, buffer_class_bytes[i / 4]);
  }
  assert_null(buffer_get(&pool, 1));
  assert_false(buffer_pool_is_whole(&pool));
  for (unsigned i = 0; i < 12; i++) buffer_unref(taken[i]);
  assert_true(buffer_pool_is_whole(&pool));
}

static void a_buffer_goes_back_at_the_last_reference(void **state) {
  (void)state;
  struct buffer *buffer = buffer_get(&pool, 1);
  buffer_ref(buffer);
  buffer_ref(buffer);
  buffer_unref(buffer);
  buffer_unref(buffer);
  assert_int_equal(pool.free_count[0], 3);
  buffer_unref(buffer);
  assert_int_equal(pool.free_count[0], 4);
}

/* ---- waiting ---- */

struct waiter {
  struct buffer_wait wait;
  char name;
};
static char served[32];

static void waiter_ready(struct buffer_wait *wait) {
  struct waiter *waiter = CONTAINER_OF(wait, struct waiter, wait);
  assert_non_null(wait->buffer);
  assert_true(wait->buffer->bytes - BUFFER_ALIGN >= wait->data_bytes);
  size_t length = strlen(served);
  served[length] = waiter->name;
  served[length + 1] = 0;
}

static void waiter_init(struct waiter *waiter, char name) {
  buffer_wait_init(&waiter->wait, waiter_ready);
  waiter->name = name;
}

static void take_all(struct buffer **taken) {
  for (unsigned i = 0; i < 12; i++) assert_non_null(taken[i] = buffer_get(&pool, 1));
}
static void give_all(struct buffer **taken) {
  for (unsigned i = 0; i < 12; i++)
    if (taken[i]) buffer_unref(taken[i]);
}

static void who_waits_is_answered_from_the_queue_also_at_once(void **state) {
  (void)state;
  served[0] = 0;
  struct waiter a;
  waiter_init(&a, 'a');
  buffer_wait(&pool, &a.wait, 100);
  assert_string_equal(served, ""); /* never inside the call */
  drain();
  assert_string_equal(served, "a");
  assert_true(pool.waits == 0);       /* it was free: nobody had to wait */
  buffer_wait_cancel(&pool, &a.wait); /* harmless after it was answered: the buffer is the waiter's */
  assert_int_equal(a.wait.buffer->refs, 1);
  buffer_unref(a.wait.buffer);
}

static void the_line_is_first_come_first_served(void **state) {
  (void)state;
  served[0] = 0;
  struct buffer *taken[12];
  take_all(taken);
  struct waiter a, b, c, d;
  waiter_init(&a, 'a');
  waiter_init(&b, 'b');
  waiter_init(&c, 'c');
  waiter_init(&d, 'd');
  buffer_wait(&pool, &a.wait, 1);
  buffer_wait(&pool, &b.wait, LARGE);
  buffer_wait(&pool, &c.wait, 1);
  buffer_wait(&pool, &d.wait, 1);
  assert_true(pool.waits == 4);
  assert_true(buffer_pool_is_crowded(&pool));
  buffer_unref(taken[0]);
  buffer_unref(taken[1]);
  taken[0] = taken[1] = NULL;
  drain();
  assert_string_equal(served, "ac"); /* who needs a small one does not wait for b, who needs a large one; */
  assert_null(buffer_get(&pool, 1)); /* strangers stand behind d, */
  buffer_unref(taken[8]);
  taken[8] = NULL;
  drain();
  assert_string_equal(served, "acb"); /* and a large one goes to b, though d came ... */
  buffer_unref(taken[9]);
  taken[9] = NULL;
  drain();
  assert_string_equal(served, "acbd"); /* ... and would do with it */
  assert_false(buffer_pool_is_crowded(&pool));
  buffer_unref(a.wait.buffer);
  buffer_unref(b.wait.buffer);
  buffer_unref(c.wait.buffer);
  buffer_unref(d.wait.buffer);
  give_all(taken);
}

static void who_leaves_the_line_lets_the_next_one_up(void **state) {
  (void)state;
  served[0] = 0;
  struct buffer *taken[12];
  take_all(taken);
  struct waiter a, b;
  waiter_init(&a, 'a');
  waiter_init(&b, 'b');
  buffer_wait(&pool, &a.wait, LARGE);
  buffer_wait(&pool, &b.wait, 1);
  assert_null(buffer_get(&pool, LARGE));
  buffer_unref(taken[8]);
  taken[8] = NULL;
  buffer_wait_cancel(&pool, &a.wait); /* with it on its way */
  drain();
  assert_string_equal(served, "b");
  buffer_wait_cancel(&pool, &a.wait);
  drain();
  assert_string_equal(served, "b");
  buffer_wait_cancel(&pool, &a.wait); /* harmless */
  buffer_unref(b.wait.buffer);
  give_all(taken);
}

static void a_buffer_on_its_way_can_be_refused(void **state) {
  (void)state;
  served[0] = 0;
  struct buffer *taken[12];
  take_all(taken);
  struct waiter a, b;
  waiter_init(&a, 'a');
  waiter_init(&b, 'b');
  buffer_wait(&pool, &a.wait, 1);
  buffer_wait(&pool, &b.wait, 1);
  buffer_unref(taken[5]);
  taken[5] = NULL;
  buffer_wait_cancel(&pool, &a.wait); /* its event is posted and has not run */
  drain();
  assert_string_equal(served, "b");
  buffer_unref(b.wait.buffer);
  give_all(taken);
}

static void random_use_ends_whole(void **state) {
  (void)state;
  enum { COUNT = 30, STEPS = 2000 };
  for (uint64_t seed = 1; seed <= 20; seed++) {
    served[0] = 0;
    struct waiter waiters[COUNT];
    bool busy[COUNT] = {false};
    struct prng prng;
    prng_seed(&prng, seed);
    for (int i = 0; i < COUNT; i++) waiter_init(&waiters[i], 'w');
    for (int i = 0; i < STEPS; i++) {
      uint64_t k = prng_below(&prng, COUNT);
      struct buffer_wait *wait = &waiters[k].wait;
      if (!busy[k]) {
        buffer_wait(&pool, wait, 1 + (uint32_t)prng_below(&prng, BUFFER_DATA_MAX));
      } else if (list_is_linked(&wait->link) || event_is_posted(&wait->event)) {
        buffer_wait_cancel(&pool, wait);
      } else {
        buffer_unref(wait->buffer);
      }
      busy[k] = !busy[k];
      served[0] = 0;
      if (prng_one_in(&prng, 2)) event_run_one(&env.queue);
    }
    for (int k = 0; k < COUNT; k++) {
      if (!busy[k]) continue;
      struct buffer_wait *wait = &waiters[k].wait;
      if (list_is_linked(&wait->link) || event_is_posted(&wait->event)) buffer_wait_cancel(&pool, wait);
      else buffer_unref(wait->buffer);
    }
    drain();
    assert_true(buffer_pool_is_whole(&pool));
  }
}

static void unref_free(void *buffer) { buffer_unref(buffer); }
static void ref_free(void *buffer) { buffer_ref(buffer); }
static void get_none(void *context) { (void)buffer_get(context, 0); }
static void get_too_much(void *context) { (void)buffer_get(context, BUFFER_DATA_MAX + 1); }

static void wrong_use_is_a_bug_of_ours(void **state) {
  (void)state;
  struct buffer *buffer = buffer_get(&pool, 1);
  buffer_unref(buffer);
  assert_true(panics(unref_free, buffer));
  assert_true(panics(ref_free, buffer));
  assert_true(panics(get_none, &pool));
  assert_true(panics(get_too_much, &pool));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(the_bytes_are_shared_out, setup, teardown),
      cmocka_unit_test_setup_teardown(each_length_gets_the_smallest_class_that_holds_it_at_any_offset, setup, teardown),
      cmocka_unit_test_setup_teardown(an_empty_class_borrows_from_a_larger_one, setup, teardown),
      cmocka_unit_test_setup_teardown(a_buffer_goes_back_at_the_last_reference, setup, teardown),
      cmocka_unit_test_setup_teardown(who_waits_is_answered_from_the_queue_also_at_once, setup, teardown),
      cmocka_unit_test_setup_teardown(the_line_is_first_come_first_served, setup, teardown),
      cmocka_unit_test_setup_teardown(who_leaves_the_line_lets_the_next_one_up, setup, teardown),
      cmocka_unit_test_setup_teardown(a_buffer_on_its_way_can_be_refused, setup, teardown),
      cmocka_unit_test_setup_teardown(random_use_ends_whole, setup, teardown),
      cmocka_unit_test_setup_teardown(wrong_use_is_a_bug_of_ours, setup, teardown),
  };
  return cmocka_run_group_tests_name("buffer", tests, NULL, NULL);
}
