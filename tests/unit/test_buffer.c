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
  assert_true(buffer_pool_is_crowded(&pool, NULL));
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
  assert_false(buffer_pool_is_crowded(&pool, NULL));
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

/* ---- quotas ---- */

static struct buffer_account one, two, three;
static void accounts_init(void) {
  buffer_account_init(&one);
  buffer_account_init(&two);
  buffer_account_init(&three);
}

/* Takes as many as it may; returns how many. */
static unsigned take_for(struct buffer_account *account, struct buffer **taken, uint32_t bytes) {
  unsigned count = 0;
  while ((taken[count] = buffer_get_for(&pool, account, bytes)) != NULL) count++;
  return count;
}
static void give(struct buffer **taken, unsigned count) {
  while (count > 0) buffer_unref(taken[--count]);
}

static void an_account_leaves_something_to_others(void **state) {
  (void)state;
  accounts_init();
  struct buffer *a[16], *b[16], *c[16];
  assert_int_equal(take_for(&one, a, LARGE), 2); /* half of four */
  assert_int_equal(take_for(&two, b, LARGE), 1); /* half of what is left */
  assert_int_equal(take_for(&three, c, LARGE), 1);
  give(c, 1);
  give(b, 1);
  give(a, 2);
  assert_true(buffer_account_is_empty(&one) && buffer_account_is_empty(&two) && buffer_account_is_empty(&three));
  assert_int_equal(take_for(&one, a, SMALL), 6); /* it borrows of the larger classes no more than that */
  give(a, 6);
  struct buffer *none[16];
  assert_int_equal(take_for(NULL, none, LARGE), 4); /* no account, no quota */
  give(none, 4);
}

/* A mirror whose images hang one after the other goes on while it may, and leaves a third to others. */
static void what_is_held_is_bounded(void **state) {
  (void)state;
  accounts_init();
  struct arena mine;
  struct buffer_pool big;
  arena_init(&mine);
  assert_int_equal(buffer_pool_init(&big, &env, &mine, 64 << 20), TARN_OK);
  static struct buffer *held[200];
  unsigned count = 0, total = big.total_count[2];
  for (int images = 0; images < 16; images++) {
    unsigned before = count;
    while ((held[count] = buffer_get_for(&big, &one, LARGE)) != NULL) count++;
    if (images == 0) assert_int_equal(count, total / 2);
    if (images == 1) assert_true(count - before >= total / 16); /* it goes on */
    for (unsigned i = before; i < count; i++) buffer_hold(held[i]);
    for (unsigned i = before; i < count; i++) buffer_hold(held[i]); /* once is enough */
    assert_int_equal(one.used[2], 0);
    assert_int_equal(one.held[2], count);
    assert_true(big.free_count[2] >= total / 3 - 1);
  }
  struct buffer *other = buffer_get_for(&big, &two, LARGE);
  assert_non_null(other);
  buffer_unref(other);
  give(held, count);
  assert_true(buffer_account_is_empty(&one));
  assert_true(buffer_pool_is_whole(&big));
  arena_destroy(&mine);
}

static void who_has_used_up_his_quota_waits_and_the_others_do_not(void **state) {
  (void)state;
  accounts_init();
  served[0] = 0;
  struct buffer *a[16];
  unsigned count = take_for(&one, a, LARGE);
  struct waiter w, x, y;
  waiter_init(&w, 'w');
  waiter_init(&x, 'x');
  waiter_init(&y, 'y');
  buffer_wait_for(&pool, &one, &w.wait, LARGE);
  assert_true(buffer_pool_is_crowded(&pool, &one));
  assert_false(buffer_pool_is_crowded(&pool, &two)); /* it has nothing that is waited for */
  buffer_wait_for(&pool, &two, &x.wait, LARGE);
  drain();
  assert_string_equal(served, "x");
  buffer_wait_for(&pool, &two, &y.wait, SMALL);
  drain();
  assert_string_equal(served, "xy");
  buffer_unref(a[--count]);
  drain();
  assert_string_equal(served, "xyw"); /* its own came back */
  buffer_unref(w.wait.buffer);
  buffer_unref(x.wait.buffer);
  buffer_unref(y.wait.buffer);
  give(a, count);
}

static void what_comes_to_be_held_lets_a_waiter_go_on(void **state) {
  (void)state;
  accounts_init();
  served[0] = 0;
  struct buffer *a[16];
  unsigned count = take_for(&one, a, LARGE);
  struct waiter w;
  waiter_init(&w, 'w');
  buffer_wait_for(&pool, &one, &w.wait, LARGE);
  drain();
  assert_string_equal(served, "");
  buffer_hold(a[0]);
  drain();
  assert_string_equal(served, "w");
  buffer_unref(w.wait.buffer);
  give(a, count);
}

static void accounts_take_turns(void **state) {
  (void)state;
  accounts_init();
  served[0] = 0;
  struct buffer *taken[12];
  take_all(taken);
  struct waiter waiters[6];
  struct buffer_account *const accounts[] = {&one, &one, &one, &two, &two, &three};
  for (int i = 0; i < 6; i++) {
    waiter_init(&waiters[i], (char)('a' + i));
    buffer_wait_for(&pool, accounts[i], &waiters[i].wait, 1);
  }
  for (int i = 0; i < 12; i++) buffer_unref(taken[i]);
  drain();
  assert_string_equal(served, "adfbec");
  for (int i = 0; i < 6; i++) buffer_unref(waiters[i].wait.buffer);
}

/* Whatever others do, who uses nothing gets a buffer while there is one; and when all is given back nobody waits. */
static void random_use_of_accounts(void **state) {
  (void)state;
  enum { COUNT = 30, STEPS = 3000 };
  for (uint64_t seed = 1; seed <= 20; seed++) {
    accounts_init();
    struct buffer_account *const accounts[] = {&one, &two, &three};
    struct waiter waiters[COUNT];
    bool busy[COUNT] = {false};
    struct prng prng;
    prng_seed(&prng, seed);
    for (int i = 0; i < COUNT; i++) waiter_init(&waiters[i], 'w');
    for (int i = 0; i < STEPS + COUNT; i++) {
      uint64_t k = i < STEPS ? prng_below(&prng, COUNT) : (uint64_t)(i - STEPS);
      struct buffer_wait *wait = &waiters[k].wait;
      bool waits = list_is_linked(&wait->link) || event_is_posted(&wait->event);
      if (i >= STEPS && !busy[k]) continue;
      if (!busy[k]) buffer_wait_for(&pool, accounts[k % 3], wait, 1 + (uint32_t)prng_below(&prng, BUFFER_DATA_MAX));
      else if (waits && i < STEPS) continue;
      else if (waits) buffer_wait_cancel(&pool, wait);
      else if (i < STEPS && prng_one_in(&prng, 3)) {
        buffer_hold(wait->buffer);
        continue;
      } else buffer_unref(wait->buffer);
      busy[k] = !busy[k];
      served[0] = 0;
      if (prng_one_in(&prng, 2)) event_run_one(&env.queue);
      for (unsigned size_class = 0; size_class < BUFFER_CLASS_COUNT; size_class++) {
        if (pool.free_count[size_class] == 0) continue;
        struct buffer_account fresh;
        buffer_account_init(&fresh);
        struct buffer *buffer = buffer_get_for(&pool, &fresh, buffer_class_bytes[size_class] - BUFFER_ALIGN);
        assert_non_null(buffer);
        buffer_unref(buffer);
      }
    }
    drain();
    assert_true(buffer_pool_is_whole(&pool));
    for (int i = 0; i < 3; i++) assert_true(buffer_account_is_empty(accounts[i]));
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
      cmocka_unit_test_setup_teardown(an_account_leaves_something_to_others, setup, teardown),
      cmocka_unit_test_setup_teardown(what_is_held_is_bounded, setup, teardown),
      cmocka_unit_test_setup_teardown(who_has_used_up_his_quota_waits_and_the_others_do_not, setup, teardown),
      cmocka_unit_test_setup_teardown(what_comes_to_be_held_lets_a_waiter_go_on, setup, teardown),
      cmocka_unit_test_setup_teardown(accounts_take_turns, setup, teardown),
      cmocka_unit_test_setup_teardown(random_use_of_accounts, setup, teardown),
      cmocka_unit_test_setup_teardown(wrong_use_is_a_bug_of_ours, setup, teardown),
  };
  return cmocka_run_group_tests_name("buffer", tests, NULL, NULL);
}
