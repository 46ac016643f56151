/* The bounded reader and writer: byte orders, texts, and that `bad` is for ever. */
#include "base/bytes.h"

#include "unit.h"

static void values_lie_in_the_documented_order(void **state) {
  (void)state;
  static const uint8_t expected[] = {0x01, 0x02, 0x01, 0x04, 0x03, 0x02, 0x01, 8, 7, 6, 5, 4, 3, 2, 1, /* little */
                                     0x01, 0x02, 0x01, 0x02, 0x03, 0x04, 1,    2, 3, 4, 5, 6, 7, 8};   /* big */
  uint8_t bytes[sizeof(expected)];
  struct writer writer;
  writer_init(&writer, bytes, sizeof(bytes));
  put_u8(&writer, 1);
  put_le16(&writer, 0x0102);
  put_le32(&writer, 0x01020304);
  put_le64(&writer, 0x0102030405060708);
  put_be16(&writer, 0x0102);
  put_be32(&writer, 0x01020304);
  put_be64(&writer, 0x0102030405060708);
  assert_false(writer.bad);
  assert_int_equal(writer_used(&writer), sizeof(expected));
  assert_memory_equal(bytes, expected, sizeof(expected));

  struct reader reader;
  reader_init(&reader, bytes, sizeof(bytes));
  assert_int_equal(get_u8(&reader), 1);
  assert_int_equal(get_le16(&reader), 0x0102);
  assert_int_equal(get_le32(&reader), 0x01020304);
  assert_int_equal(get_le64(&reader), 0x0102030405060708);
  assert_int_equal(get_be16(&reader), 0x0102);
  assert_int_equal(get_be32(&reader), 0x01020304);
  assert_int_equal(get_be64(&reader), 0x0102030405060708);
  assert_int_equal(reader_left(&reader), 0);
  assert_false(reader.bad);
}

static void texts_have_one_form(void **state) {
  (void)state;
  static const struct {
    const char *why;
    const char bytes[5]; /* the field is the first 4 */
    bool bad;
    const char *text;
  } rows[] = {
      {"empty", "\0\0\0\0", false, ""},
      {"padded", "ab\0\0", false, "ab"},
      {"fills its field", "abcd", false, "abcd"},
      {"something behind the first NUL could be read in two ways", "a\0b\0", true, ""},
      {"the last byte counts too", "\0\0\0x", true, ""},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    char text[5];
    struct reader reader;
    reader_init(&reader, rows[i].bytes, 4);
    get_text(&reader, text, 4);
    row_true(rows[i].why, reader.bad == rows[i].bad);
    row_true(rows[i].why, strcmp(text, rows[i].text) == 0);
    if (rows[i].bad) continue;
    char bytes[4];
    struct writer writer;
    writer_init(&writer, bytes, 4);
    put_text(&writer, text, 4);
    row_true(rows[i].why, !writer.bad && memcmp(bytes, rows[i].bytes, 4) == 0);
  }
  char bytes[8];
  struct writer writer;
  writer_init(&writer, bytes, 8);
  put_text(&writer, "abcde", 4);
  assert_true(writer.bad);
  assert_int_equal(writer_used(&writer), 0);
}

static void a_reader_past_its_end_is_bad_for_ever(void **state) {
  (void)state;
  const uint8_t bytes[4] = {1, 2, 3, 4};
  struct reader reader;
  reader_init(&reader, bytes, sizeof(bytes));
  assert_int_equal(get_le16(&reader), 0x0201);
  assert_int_equal(get_le32(&reader), 0);
  assert_true(reader.bad);
  assert_int_equal(get_u8(&reader), 0); /* it would fit, but nothing is trusted any more */
  uint8_t out[2] = {7, 7};
  get_bytes(&reader, out, 2);
  assert_int_equal(out[0] | out[1], 0);
  assert_true(reader.bad);

  reader_init(&reader, bytes, sizeof(bytes));
  reader_skip(&reader, SIZE_MAX);
  assert_true(reader.bad);
  reader_init(&reader, NULL, 0);
  get_bytes(&reader, NULL, 0);
  reader_skip(&reader, 0);
  assert_false(reader.bad);
  assert_int_equal(get_u8(&reader), 0);
  assert_true(reader.bad);
}

static void a_writer_past_its_end_writes_nothing_more(void **state) {
  (void)state;
  uint8_t bytes[5] = {9, 9, 9, 9, 9};
  struct writer writer;
  writer_init(&writer, bytes, 4);
  put_le16(&writer, 0x0201);
  put_le32(&writer, 0);
  assert_true(writer.bad);
  put_u8(&writer, 0);
  put_zeroes(&writer, 1);
  put_bytes(&writer, "x", 1);
  put_text(&writer, "x", 1);
  assert_int_equal(writer_used(&writer), 2);
  const uint8_t expected[5] = {1, 2, 9, 9, 9};
  assert_memory_equal(bytes, expected, sizeof(bytes));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(values_lie_in_the_documented_order),
      cmocka_unit_test(texts_have_one_form),
      cmocka_unit_test(a_reader_past_its_end_is_bad_for_ever),
      cmocka_unit_test(a_writer_past_its_end_writes_nothing_more),
  };
  return cmocka_run_group_tests_name("bytes", tests, NULL, NULL);
}
