/* SHA-256: the examples of FIPS 180-2 and of NIST's test files. */
#include "base/hash.h"
#include "unit.h"

static void expect(const char *why, const void *data, size_t bytes, const char *hex) {
  uint8_t digest[HASH_BYTES];
  char text[2 * HASH_BYTES + 1];
  hash_sha256(data, bytes, digest);
  for (size_t i = 0; i < HASH_BYTES; i++) snprintf(text + 2 * i, 3, "%02x", digest[i]);
  row_true(why, strcmp(text, hex) == 0);
}

static void known_digests(void **state) {
  (void)state;
  static const struct {
    const char *why, *text, *hex;
  } rows[] = {
      {"nothing", "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
      {"one block", "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
      {"two blocks", "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
       "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) expect(rows[i].why, rows[i].text, strlen(rows[i].text), rows[i].hex);
  static char million[1000000];
  memset(million, 'a', sizeof million);
  expect("a million times a", million, sizeof million,
         "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

static void every_bit_counts(void **state) {
  (void)state;
  static uint8_t block[4096];
  uint8_t before[HASH_BYTES], after[HASH_BYTES];
  hash_sha256(block, sizeof block, before);
  for (size_t bit = 0; bit < 8 * sizeof block; bit += 97) {
    block[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    hash_sha256(block, sizeof block, after);
    assert_memory_not_equal(before, after, HASH_BYTES);
    block[bit / 8] ^= (uint8_t)(1u << (bit % 8));
  }
  hash_sha256(block, sizeof block, after);
  assert_memory_equal(before, after, HASH_BYTES);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(known_digests),
      cmocka_unit_test(every_bit_counts),
  };
  return cmocka_run_group_tests_name("hash", tests, NULL, NULL);
}
