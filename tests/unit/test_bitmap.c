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
  uint64_t end = first + count;
  assert_int_equal(bitmap_next_set_in(bitmap, first, end), min_u64(model_next(model, first, true), end));
  assert_int_equal(bitmap_next_clear_in(bitmap, first, end), min_u64(model_next(model, first, false), end));
  assert_int_equal(bitmap_next_set_in(bitmap, first, UINT64_MAX), model_next(model, first, true));
  assert_int_equal(bitmap_next_clear_in(bitmap, first, UINT64_MAX), model_next(model, first, false));
}

static void searches_of_two(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 200; seed++) {
    uint64_t words[2][(BITS_MAX + 63) / 64] = {0};
    struct bitmap bits, without;
    struct prng prng;
    prng_seed(&prng, seed);
    uint64_t count = 1 + prng_below(&prng, BITS_MAX);
    bitmap_init(&bits, words[0], count);
    bitmap_init(&without, words[1], count);
    for (uint64_t i = 0; i < count; i++) {
      if (prng_one_in(&prng, 2)) bitmap_set(&bits, i);
      if (!prng_one_in(&prng, 8)) bitmap_set(&without, i);
    }
    for (uint64_t from = 0; from <= count; from++) {
      uint64_t end = from + prng_below(&prng, count - from + 1), expected = from;
      while (expected < end && (!bitmap_test(&bits, expected) || bitmap_test(&without, expected))) expected++;
      assert_int_equal(bitmap_next_set_without(&bits, &without, from, end), expected);
    }
  }
}

static void whole_words(void **state) {
  (void)state;
  static const struct {
    const char *why;
    uint64_t bits, first, count, words[2], set_count;
  } rows[] = {
      {"one word", 128, 64, 1, {5}, 2},
      {"what is set already counts once", 128, 0, 1, {3}, 2},
      {"two", 300, 128, 2, {UINT64_MAX, 1}, 65},
      {"bits past the end are left out", 70, 64, 1, {UINT64_MAX}, 6},
      {"and words", 70, 64, 2, {1, UINT64_MAX}, 1},
      {"all past the end", 70, 128, 1, {UINT64_MAX}, 0},
      {"none", 70, 0, 0, {UINT64_MAX}, 0},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    uint64_t words[(BITS_MAX + 63) / 64] = {0};
    struct bitmap bitmap;
    bitmap_init(&bitmap, words, rows[i].bits);
    for (int again = 0; again < 2; again++) bitmap_set_words(&bitmap, rows[i].first, rows[i].words, rows[i].count);
    row_true(rows[i].why, bitmap.set_count == rows[i].set_count);
    uint64_t counted = 0;
    for (uint64_t bit = 0; bit < rows[i].bits; bit++) {
      uint64_t word = bit / 64 - rows[i].first / 64;
      bool given = bit >= rows[i].first && word < rows[i].count && rows[i].words[word] >> bit % 64 & 1;
      row_true(rows[i].why, bitmap_test(&bitmap, bit) == given);
      counted += given;
    }
    row_true(rows[i].why, counted == rows[i].set_count);
  }
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
      cmocka_unit_test(searches_of_two),
      cmocka_unit_test(whole_words),
      cmocka_unit_test(bits_past_the_end_stay_clear),
      cmocka_unit_test(empty_bitmap_and_empty_ranges),
      cmocka_unit_test(outside_is_a_bug_of_ours),
  };
  return cmocka_run_group_tests_name("bitmap", tests, NULL, NULL);
}
