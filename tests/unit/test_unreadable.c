/* The list of unreadable places: rows for each way that ranges meet, the limit, and a comparison with a plain bitmap. */
#include <string.h>

#include "base/prng.h"
#include "core/unreadable.h"
#include "unit.h"

#define LIST(...)                                                                 \
  {                                                                               \
    .count = sizeof((uint64_t[][2]){__VA_ARGS__}) / 16, .ranges = { __VA_ARGS__ } \
  }

static bool same(const struct unreadable *a, const struct unreadable *b) {
  return a->count == b->count && memcmp(a->ranges, b->ranges, sizeof a->ranges) == 0;
}

static void adding(void **state) {
  (void)state;
  static const struct {
    const char *why;
    struct unreadable before;
    uint64_t start, length;
    struct unreadable after;
  } rows[] = {
      {"the first", {0}, 10, 5, LIST({10, 5})},
      {"in front", LIST({10, 5}), 0, 9, LIST({0, 9}, {10, 5})},
      {"behind", LIST({10, 5}), 16, 1, LIST({10, 5}, {16, 1})},
      {"in between", LIST({10, 5}, {30, 5}), 20, 5, LIST({10, 5}, {20, 5}, {30, 5})},
      {"touching the one before", LIST({10, 5}, {30, 5}), 15, 5, LIST({10, 10}, {30, 5})},
      {"touching the one behind", LIST({10, 5}, {30, 5}), 25, 5, LIST({10, 5}, {25, 10})},
      {"filling a gap", LIST({10, 5}, {30, 5}), 15, 15, LIST({10, 25})},
      {"known already", LIST({10, 5}), 11, 3, LIST({10, 5})},
      {"larger than what is known", LIST({10, 5}, {20, 5}, {40, 1}), 5, 30, LIST({5, 30}, {40, 1})},
      {"overlapping two", LIST({10, 5}, {20, 5}), 14, 7, LIST({10, 15})},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct unreadable list = rows[i].before;
    row_true(rows[i].why, unreadable_add(&list, rows[i].start, rows[i].length));
    row_true(rows[i].why, same(&list, &rows[i].after));
  }
}

static void cutting(void **state) {
  (void)state;
  static const struct {
    const char *why;
    struct unreadable before;
    uint64_t start, length, bytes;
    struct unreadable after;
  } rows[] = {
      {"nothing there", {0}, 0, 100, 0, {0}},
      {"beside it", LIST({10, 5}), 15, 5, 0, LIST({10, 5})},
      {"all of one", LIST({10, 5}, {30, 5}), 10, 5, 5, LIST({30, 5})},
      {"more than all of one", LIST({10, 5}, {30, 5}), 0, 29, 5, LIST({30, 5})},
      {"its head", LIST({10, 5}), 5, 7, 2, LIST({12, 3})},
      {"its tail", LIST({10, 5}), 12, 50, 3, LIST({10, 2})},
      {"its middle: two are left", LIST({10, 5}, {30, 5}), 12, 1, 1, LIST({10, 2}, {13, 2}, {30, 5})},
      {"the tail of one and the head of another", LIST({10, 5}, {20, 1}, {30, 5}), 12, 20, 6, LIST({10, 2}, {32, 3})},
      {"everything", LIST({10, 5}, {20, 1}, {30, 5}), 0, 100, 11, {0}},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct unreadable list = rows[i].before;
    row_true(rows[i].why, unreadable_overlaps(&list, rows[i].start, rows[i].length) == (rows[i].bytes != 0));
    row_true(rows[i].why, unreadable_cut(&list, rows[i].start, rows[i].length) == rows[i].bytes);
    row_true(rows[i].why, same(&list, &rows[i].after));
  }
}

static void cut(void *context) { unreadable_cut(context, 1, 1); }

static void a_full_list(void **state) {
  (void)state;
  struct unreadable list = {0};
  for (uint32_t i = 0; i < UNREADABLE_MAX; i++) assert_true(unreadable_add(&list, 10ull * i, 5));
  struct unreadable full = list;
  assert_false(unreadable_add(&list, 10 * UNREADABLE_MAX, 1));
  assert_false(unreadable_add(&list, 6, 3));
  assert_true(same(&list, &full));
  assert_false(unreadable_can_cut(&list, 1, 1));
  assert_true(panics(cut, &list));
  assert_true(unreadable_can_cut(&list, 0, 1));
  assert_true(unreadable_add(&list, 5, 1)); /* what touches needs no room */
  assert_true(unreadable_add(&list, 6, 4)); /* and what joins two makes some */
  assert_int_equal(list.count, UNREADABLE_MAX - 1);
  assert_true(unreadable_can_cut(&list, 1, 1));
  assert_int_equal(unreadable_cut(&list, 1, 1), 1);
  assert_int_equal(list.count, UNREADABLE_MAX);
  assert_false(unreadable_can_cut(&list, 3, 1));
}

static void like_a_bitmap(void **state) {
  (void)state;
  enum { BYTES = 600 };
  struct prng prng;
  prng_seed(&prng, 11);
  struct unreadable list = {0};
  bool bytes[BYTES] = {false};
  for (uint32_t round = 0; round < 20000; round++) {
    uint64_t start = prng_below(&prng, BYTES - 20), length = 1 + prng_below(&prng, prng_one_in(&prng, 20) ? 20 : 2);
    bool any = false, all = true;
    for (uint64_t b = start; b < start + length; b++) any |= bytes[b], all &= bytes[b];
    assert_true(unreadable_overlaps(&list, start, length) == any);
    assert_true(unreadable_covers(&list, start, length) == all);
    bool add = prng_one_in(&prng, 2);
    bool done = add ? unreadable_add(&list, start, length) : unreadable_can_cut(&list, start, length);
    if (!add && done) unreadable_cut(&list, start, length);
    if (done) memset(&bytes[start], add, length);
    uint64_t count = 0;
    for (uint32_t b = 0; b < BYTES; b++) count += bytes[b];
    assert_true(unreadable_bytes(&list) == count);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(adding),
      cmocka_unit_test(cutting),
      cmocka_unit_test(a_full_list),
      cmocka_unit_test(like_a_bitmap),
  };
  return cmocka_run_group_tests_name("unreadable", tests, NULL, NULL);
}
