/* The checksum: known answers, and isa-l against the definition written out. */
#include "base/crc32c.h"

#include "base/prng.h"
#include "unit.h"

static void known_answers(void **state) {
  (void)state;
  static uint8_t zeroes[32], ones[32], rising[32], falling[32];
  memset(ones, 0xff, sizeof(ones));
  for (uint8_t i = 0; i < 32; i++) {
    rising[i] = i;
    falling[i] = (uint8_t)(31 - i);
  }
  static const struct {
    const char *why;
    const void *data;
    size_t bytes;
    uint32_t crc;
  } rows[] = {
      {"the check value of the catalogue of CRCs", "123456789", 9, 0xe3069283},
      {"nothing", "", 0, 0},
      {"RFC 3720 B.4: 32 bytes of zeroes", zeroes, 32, 0x8a9136aa},
      {"RFC 3720 B.4: 32 bytes of ones", ones, 32, 0x62a8ab43},
      {"RFC 3720 B.4: rising", rising, 32, 0x46dd794e},
      {"RFC 3720 B.4: falling", falling, 32, 0x113fdb5c},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    row_true(rows[i].why, crc32c(rows[i].data, rows[i].bytes) == rows[i].crc);
    row_true(rows[i].why, crc32c_portable(rows[i].data, rows[i].bytes) == rows[i].crc);
  }
}

static void both_agree_at_every_length_and_alignment(void **state) {
  (void)state;
  static uint8_t bytes[9000];
  struct prng prng;
  prng_seed(&prng, 3);
  for (size_t i = 0; i < sizeof(bytes); i++) bytes[i] = (uint8_t)prng_next(&prng);
  for (size_t length = 0; length < 600; length++)
    for (size_t start = 0; start < 9; start++)
      assert_int_equal(crc32c(bytes + start, length), crc32c_portable(bytes + start, length));
  for (int i = 0; i < 200; i++) {
    size_t start = (size_t)prng_below(&prng, 64), length = (size_t)prng_below(&prng, sizeof(bytes) - 64);
    assert_int_equal(crc32c(bytes + start, length), crc32c_portable(bytes + start, length));
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(known_answers),
      cmocka_unit_test(both_agree_at_every_length_and_alignment),
  };
  return cmocka_run_group_tests_name("crc32c", tests, NULL, NULL);
}
