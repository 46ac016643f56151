/* The bitmap against an array of bools, bit by bit. */
#include "base/bitmap.h"

#include "base/prng.h"
#include "unit.h"

enum { BITS_MAX = 300 };

struct model {
  bool bits[BITS_MAX];
  uint64_t count;
};

static bool model_any(const struct model *model, uint64_t first, uint64_t count, bool value) {
  for (uint64_t i = first; i < first + count; i++)
    if (model->bits[i] == value) return true;
  return false;
}

static uint64_t model_next(const struct model *model, uint64_t from, bool value) {
  while (from < model->count && model->bits[from] != value) from++;
  return from < model->count ? from : model->count;
}

static uint64_t model_set_count(const struct model *model) {
  uint64_t sum = 0;
  for (uint64_t i = 0; i < model->count; i++) sum += model->bits[i];
  return sum;
}

static void compare(const struct bitmap *bitmap, const struct model *model, struct prng *prng) {
  assert_int_equal(bitmap->set_count, model_set_count(model));
  for (uint64_t i = 0; i < model->count; i++) {
    assert_int_equal(bitmap_test(bitmap, i), model->bits[i]);
    assert_int_equal(bitmap_next_set(bitmap, i), model_next(model, i, true));
    assert_int_equal(bitmap_next_clear(bitmap, i), model_next(model, i, false));
  }
  assert_int_equal(bitmap_next_set(bitmap, model->count), model->count);
  assert_int_equal(bitmap_next_clear(bitmap, model->count + 7), model->count);
  uint64_t first = prng_below(prng, model->count + 1), count = prng_below(prng, model->count - first + 1);
  assert_int_equal(bitmap_any_in(bitmap, first, count), model_any(model, first, count, true));
  assert_int_equal(bitmap_all_in(bitmap, first, count), !model_any(model, first, count, false));
}

static void step(struct bitmap *bitmap, struct model *model, struct prng *prng) {
  uint64_t first = prng_below(prng, model->count), count = prng_below(prng, model->count - first + 1);
  bool value = prng_one_in(prng, 2);
  if (prng_one_in(prng, 2)) {
    bool changed = value ? bitmap_set(bitmap, first) : bitmap_clear(bitmap, first);
    assert_int_equal(changed, model->bits[first] != value);
    model->bits[first] = value;
    return;
  }
  if (value) bitmap_set_range(bitmap, first, count);
  else bitmap_clear_range(bitmap, first, count);
  for (uint64_t i = first; i < first + count; i++) model->bits[i] = value;
}

static void random_steps_equal_the_model(void **state) {
  (void)state;
  static const struct {
    const char *why;
    uint64_t bits;
  } rows[] = {
      {"one bit", 1},
      {"one short of a word", 63},
      {"a word", 64},
      {"one more than a word", 65},
      {"whole words only", 128},
      {"several words and a bit", 257},
      {"the most", BITS_MAX},
  };
  for (size_t row = 0; row < COUNT_OF(rows); row++) {
    for (uint64_t seed = 1; seed <= 20; seed++) {
      uint64_t words[(BITS_MAX + 63) / 64] = {0};
      assert_true(bitmap_bytes(rows[row].bits) <= sizeof(words));
      struct model model = {.count = rows[row].bits};
      struct bitmap bitmap;
      struct prng prng;
      prng_seed(&prng, seed);
      bitmap_init(&bitmap, words, rows[row].bits);
      for (int i = 0; i < 60; i++) {
        step(&bitmap, &model, &prng);
        compare(&bitmap, &model, &prng);
      }
    }
  }
}

static void bits_past_the_end_stay_clear(void **state) {
  (void)state;
  uint64_t words[2] = {0};
  struct bitmap bitmap;
  bitmap_init(&bitmap, words, 70);
  bitmap_set_range(&bitmap, 0, 70);
  assert_int_equal(words[1], 0x3f);
  assert_int_equal(bitmap.set_count, 70);
  assert_true(bitmap_all_in(&bitmap, 0, 70));
  assert_int_equal(bitmap_next_clear(&bitmap, 0), 70);
}

static void empty_bitmap_and_empty_ranges(void **state) {
  (void)state;
  struct bitmap bitmap;
  bitmap_init(&bitmap, NULL, 0);
  assert_int_equal(bitmap_bytes(0), 0);
  assert_int_equal(bitmap_next_set(&bitmap, 0), 0);
  assert_false(bitmap_any_in(&bitmap, 0, 0));
  assert_true(bitmap_all_in(&bitmap, 0, 0));
}

static void test_past_end(void *bitmap) { (void)bitmap_test(bitmap, 70); }
static void set_past_end(void *bitmap) { bitmap_set_range(bitmap, 60, 11); }
static void clear_with_overflow(void *bitmap) { bitmap_clear_range(bitmap, 2, UINT64_MAX); }

static void outside_is_a_bug_of_ours(void **state) {
  (void)state;
  uint64_t words[2] = {0};
  struct bitmap bitmap;
  bitmap_init(&bitmap, words, 70);
  assert_true(panics(test_past_end, &bitmap));
  assert_true(panics(set_past_end, &bitmap));
  assert_true(panics(clear_with_overflow, &bitmap));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(random_steps_equal_the_model),
      cmocka_unit_test(bits_past_the_end_stay_clear),
      cmocka_unit_test(empty_bitmap_and_empty_ranges),
      cmocka_unit_test(outside_is_a_bug_of_ours),
  };
  return cmocka_run_group_tests_name("bitmap", tests, NULL, NULL);
}
