/* src/shell/words.h: names, sizes, numbers, and the nearest known word. */
#include "shell/words.h"
#include "unit.h"

static void names(void **state) {
  (void)state;
  static const struct {
    const char *why, *text;
    bool good;
  } rows[] = {
      {"one letter", "a", true},
      {"a digit may be first", "0", true},
      {"dash and underscore inside", "a-b_c-", true},
      {"63 characters", "123456789012345678901234567890123456789012345678901234567890123", true},
      {"64 are too many", "1234567890123456789012345678901234567890123456789012345678901234", false},
      {"empty", "", false},
      {"a dash first looks like an option", "-a", false},
      {"an underscore first", "_a", false},
      {"a slash separates mirror and volume", "a/b", false},
      {"a dot could climb folders", "..", false},
      {"a blank", "a b", false},
      {"a line break", "a\nb", false},
      {"letters are ASCII", "\xc3\xa4", false},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct why why = {""};
    row_true(rows[i].why, record_name_is_valid(rows[i].text, strlen(rows[i].text)) == rows[i].good);
    row_true(rows[i].why, (name_check("mirror", rows[i].text, &why) == TARN_OK) == rows[i].good);
    row_true(rows[i].why, rows[i].good || strstr(why.text, "mirror name"));
  }
}

static void sizes(void **state) {
  (void)state;
  static const struct {
    const char *why, *text;
    uint64_t bytes; /* 0: refused */
    const char *shown;
  } rows[] = {
      {"bytes", "512", 512, "512"},
      {"K", "4K", 4096, "4K"},
      {"M, small letter", "16m", 16 << 20, "16M"},
      {"G", "10G", 10ull << 30, "10G"},
      {"T", "2T", 2ull << 40, "2T"},
      {"P", "1P", 1ull << 50, "1P"},
      {"not a whole unit", "1536", 1536, "1.5K"},
      {"the largest", "9223372036854775807", INT64_MAX, "8.0E"},
      {"one more", "9223372036854775808", 0, NULL},
      {"beyond 64 bits", "18446744073709551616", 0, NULL},
      {"beyond 63 bits by its unit", "8192P", 0, NULL},
      {"a whole exbibyte, which nobody may type", "1024P", 1ull << 60, "1024P"},
      {"the last that fits", "8191P", 8191ull << 50, "8.0E"},
      {"nothing", "0", 0, NULL},
      {"empty", "", 0, NULL},
      {"unit alone", "M", 0, NULL},
      {"a fraction", "1.5M", 0, NULL},
      {"two letters", "1MB", 0, NULL},
      {"unknown unit", "1X", 0, NULL},
      {"negative", "-1M", 0, NULL},
      {"a plus", "+1M", 0, NULL},
      {"blank before the unit", "1 M", 0, NULL},
      {"hexadecimal", "0x200", 0, NULL},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    uint64_t bytes = 0;
    char text[SIZE_TEXT];
    tarn_err err = size_parse(rows[i].text, &bytes, NULL);
    row_true(rows[i].why, err == (rows[i].bytes ? TARN_OK : TARN_INVALID));
    row_true(rows[i].why, bytes == rows[i].bytes);
    row_true(rows[i].why, !rows[i].bytes || strcmp(size_text(bytes, text), rows[i].shown) == 0);
  }
}

static void durations(void **state) {
  (void)state;
  static const struct {
    uint64_t seconds;
    const char *shown;
  } rows[] = {{0, "0 s"},    {99, "99 s"},    {100, "1 min"},   {5999, "99 min"},   {6000, "1 h 40 min"},
              {7200, "2 h"}, {36000, "10 h"}, {172799, "47 h"}, {172800, "2 days"}, {31536000, "365 days"}};
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    char text[DURATION_TEXT];
    assert_string_equal(duration_text(rows[i].seconds, text), rows[i].shown);
  }
}

static void numbers(void **state) {
  (void)state;
  static const struct {
    const char *why, *text;
    bool good;
    int64_t value;
  } rows[] = {
      {"zero", "0", true, 0},
      {"negative", "-1", true, -1},
      {"empty", "", false, 0},
      {"a dash alone", "-", false, 0},
      {"letters behind", "1a", false, 0},
      {"beyond 63 bits", "9223372036854775808", false, 0},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    int64_t value = 0;
    row_true(rows[i].why, (number_parse(rows[i].text, &value, NULL) == TARN_OK) == rows[i].good);
    row_true(rows[i].why, value == rows[i].value);
  }
}

static const char *known_at(const void *context, size_t index) {
  static const char *const known[] = {"status", "events", "mirror create", "mirror activate", "mirror deactivate",
                                      "region", "marks"};
  (void)context;
  return index < COUNT_OF(known) ? known[index] : NULL;
}

static void nearest(void **state) {
  (void)state;
  static const struct {
    const char *why, *text, *word;
  } rows[] = {
      {"a letter is missing", "staus", "status"},
      {"neighbours swapped", "regoin", "region"},
      {"a letter too many", "statuss", "status"},
      {"another letter", "mirror crxate", "mirror create"},
      {"the beginning", "mirror act", "mirror activate"},
      {"case does not matter", "REGION", "region"},
      {"the shorter word wins by distance", "mirror activat", "mirror activate"},
      {"nothing like it", "zzzzzzzz", NULL},
      {"empty means nothing", "", NULL},
      {"longer than any word", "mirror createmirror createmirror createmirror create", NULL},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    const char *word = nearest_word(rows[i].text, known_at, NULL);
    row_true(rows[i].why, (word == NULL) == (rows[i].word == NULL));
    row_true(rows[i].why, !word || strcmp(word, rows[i].word) == 0);
  }
  char hint[HINT_TEXT];
  assert_string_equal(hint_text("region", hint), " (did you mean 'region'?)");
  assert_string_equal(hint_text(NULL, hint), "");
}

static void options(void **state) {
  (void)state;
  char dash[] = "-dash", state_word[] = "--state", value[] = "x", joined[] = "--state=x", beginning[] = "--stat";
  char *argv[] = {dash, state_word, value, joined, NULL};
  assert_string_equal(option_word(argv, 1, NULL, 'd'), "-dash"); /* getopt is still inside it */
  assert_string_equal(option_word(argv, 3, value, 0), "--state");
  assert_string_equal(option_word(argv, 4, joined + 8, 0), "--state=x");
  assert_true(option_is_whole(state_word, "state"));
  assert_true(option_is_whole(joined, "state"));
  assert_false(option_is_whole(beginning, "state"));
  assert_false(option_is_whole(state_word, "stat"));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(names),     cmocka_unit_test(sizes),   cmocka_unit_test(numbers),
                                     cmocka_unit_test(durations), cmocka_unit_test(nearest), cmocka_unit_test(options)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
