/* src/format/locator.h: there and back, every bit that flips, and where the copies lie. */
#include "format/locator.h"

#include "unit.h"

static const struct locator good = {.uuid = "0123456789abcde", .offset = 8 * LOCATOR_ALIGN, .length = LOCATOR_ALIGN};

static void there_and_back(void **state) {
  (void)state;
  static uint8_t block[LOCATOR_BYTES];
  struct locator again;
  locator_encode(&good, block);
  assert_int_equal(locator_decode(&again, block), TARN_OK);
  assert_memory_equal(&good, &again, sizeof good);
}

static void damage(void **state) {
  (void)state;
  static uint8_t block[LOCATOR_BYTES];
  struct locator again;
  for (size_t bit = 0; bit < LOCATOR_BYTES * 8; bit++) {
    locator_encode(&good, block);
    block[bit / 8] ^= (uint8_t)(1u << bit % 8);
    tarn_err wanted = bit < 64 ? TARN_NOT_FOUND : TARN_CORRUPT;
    assert_int_equal(locator_decode(&again, block), wanted);
  }
  memset(block, 0, sizeof block);
  assert_int_equal(locator_decode(&again, block), TARN_NOT_FOUND);
}

static void bounds(void **state) {
  (void)state;
  static const struct {
    const char *why;
    uint64_t offset, length;
    bool sound;
  } rows[] = {
      {"the least", LOCATOR_ALIGN, LOCATOR_ALIGN, true},
      {"over the volume's first bytes", 0, LOCATOR_ALIGN, false},
      {"not aligned", 4096, LOCATOR_ALIGN, false},
      {"empty", LOCATOR_ALIGN, 0, false},
      {"as long as can be", LOCATOR_ALIGN, LOCATOR_LENGTH_MAX, true},
      {"longer than metadata can be", LOCATOR_ALIGN, LOCATOR_LENGTH_MAX + LOCATOR_ALIGN, false},
      {"a sum that wraps", LOCATOR_ALIGN, 0xfffffffffff00000, false},
      {"two that wrap to a little", 0xfffffffffff00000, 0xfffffffffff00000, false},
      {"beyond every disk", INT64_MAX / LOCATOR_ALIGN * LOCATOR_ALIGN, LOCATOR_ALIGN, false},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct locator locator = {.offset = rows[i].offset, .length = rows[i].length};
    row_true(rows[i].why, (locator_check(&locator) == NULL) == rows[i].sound);
  }
}

static void places(void **state) {
  (void)state;
  /* The last bytes, where others keep theirs, are left alone. */
  assert_true(locator_place(10 * LOCATOR_ALIGN, 0) == 9 * LOCATOR_ALIGN);
  assert_true(locator_place(10 * LOCATOR_ALIGN + 512, 0) == 9 * LOCATOR_ALIGN);
  assert_true(locator_place(10 * LOCATOR_ALIGN, 1) == 9 * LOCATOR_ALIGN + LOCATOR_ALIGN / 2);
}

static void at_its_place(void **state) {
  (void)state;
  struct locator wraps = {.offset = LOCATOR_ALIGN, .length = 0xfffffffffff00000};
  assert_true(locator_is_at(&good, 9 * LOCATOR_ALIGN));
  assert_false(locator_is_at(&good, 8 * LOCATOR_ALIGN));
  assert_false(locator_is_at(&good, 10 * LOCATOR_ALIGN)); /* it would leave a gap */
  assert_false(locator_is_at(&wraps, 0));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(there_and_back), cmocka_unit_test(damage),
                                     cmocka_unit_test(bounds), cmocka_unit_test(places),
                                     cmocka_unit_test(at_its_place)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
