/* The generator: equal on every machine, uniform enough, and within its bound. */
#include "base/prng.h"

#include "unit.h"

static void known_answers(void **state) {
  (void)state;
  /* splitmix64 from seed 1234567, the reference values of its author's test. */
  static const uint64_t expected[] = {6457827717110365317u, 3203168211198807973u, 9817491932198370423u,
                                      4593380528125082431u};
  uint64_t seed = 1234567;
  for (size_t i = 0; i < COUNT_OF(expected); i++) {
    assert_true(mix_u64(seed) == expected[i]);
    seed += 0x9e3779b97f4a7c15u;
  }
  /* xoshiro256** from the state 1, 2, 3, 4. */
  static const uint64_t numbers[] = {11520, 0, 1509978240, 1215971899390074240u};
  struct prng prng = {{1, 2, 3, 4}};
  for (size_t i = 0; i < COUNT_OF(numbers); i++) assert_true(prng_next(&prng) == numbers[i]);
}

static void the_same_seed_gives_the_same_numbers(void **state) {
  (void)state;
  struct prng a, b, c;
  prng_seed(&a, 42);
  prng_seed(&b, 42);
  prng_seed(&c, 43);
  int equal = 0;
  for (int i = 0; i < 1000; i++) {
    uint64_t value = prng_next(&a);
    assert_true(value == prng_next(&b));
    equal += value == prng_next(&c);
  }
  assert_int_equal(equal, 0);
}

static void below_stays_below_and_is_even(void **state) {
  (void)state;
  static const struct {
    const char *why;
    uint64_t bound;
  } rows[] = {{"only zero", 1}, {"a coin", 2}, {"no power of two", 10}, {"a power of two", 16}};
  struct prng prng;
  prng_seed(&prng, 0); /* a seed of zero is as good as any */
  for (size_t row = 0; row < COUNT_OF(rows); row++) {
    uint32_t seen[16] = {0};
    enum { DRAWS = 16000 };
    for (int i = 0; i < DRAWS; i++) {
      uint64_t value = prng_below(&prng, rows[row].bound);
      row_true(rows[row].why, value < rows[row].bound);
      seen[value]++;
    }
    uint64_t mean = DRAWS / rows[row].bound;
    for (uint64_t i = 0; i < rows[row].bound; i++) {
      row_true(rows[row].why, seen[i] > mean * 8 / 10);
      row_true(rows[row].why, seen[i] < mean * 12 / 10 + 1);
    }
  }
  for (int i = 0; i < 100; i++) assert_true(prng_below(&prng, UINT64_MAX) < UINT64_MAX);
  for (int i = 0; i < 100; i++) assert_true(prng_one_in(&prng, 1));
}

static void below_zero(void *prng) { (void)prng_below(prng, 0); }

static void nothing_is_below_zero(void **state) {
  (void)state;
  struct prng prng;
  prng_seed(&prng, 1);
  assert_true(panics(below_zero, &prng));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(known_answers),
      cmocka_unit_test(the_same_seed_gives_the_same_numbers),
      cmocka_unit_test(below_stays_below_and_is_even),
      cmocka_unit_test(nothing_is_below_zero),
  };
  return cmocka_run_group_tests_name("prng", tests, NULL, NULL);
}
