/* The small things of base: errors, require, alignment, the list. */
#include "base/error.h"
#include "base/list.h"
#include "base/text.h"
#include "unit.h"

static void every_error_has_a_text_of_its_own(void **state) {
  (void)state;
  for (unsigned i = 0; i < TARN_ERR_COUNT; i++) {
    assert_non_null(tarn_err_text((tarn_err)i));
    for (unsigned j = 0; j < i; j++) assert_string_not_equal(tarn_err_text((tarn_err)i), tarn_err_text((tarn_err)j));
  }
  assert_string_equal(tarn_err_text(TARN_OK), "success");
  assert_int_equal(TARN_OK, 0);
}

static void a_text_is_cut_between_letters(void **state) {
  (void)state;
  static const struct {
    const char *why, *text, *cut; /* to 7 bytes */
  } rows[] = {
      {"it fits", "abcd\xc3\xa9", "abcd\xc3\xa9"},
      {"plain letters", "abcdefgh", "abcdef"},
      {"the last byte that fits ends a letter", "abcd\xc3\xa9xyz", "abcd\xc3\xa9"},
      {"a letter of two bytes", "abcde\xc3\xa9", "abcde"},
      {"of three", "abcd\xe2\x82\xac", "abcd"},
      {"of four, three of them here", "abc\xf0\x9f\x98\x80", "abc"},
      {"of four, all here", "ab\xf0\x9f\x98\x80yz", "ab\xf0\x9f\x98\x80"},
      {"what is not UTF-8 stays", "\x80\x80\x80\x80\x80\x80\x80\x80", "\x80\x80\x80\x80\x80\x80"},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    char text[7];
    bool whole = text_set(text, sizeof text, "%s", rows[i].text);
    row_true(rows[i].why, strcmp(text, rows[i].cut) == 0);
    row_true(rows[i].why, whole == (strlen(rows[i].text) < sizeof text));
  }
}

static void text_of_no_error(void *context) {
  (void)context;
  (void)tarn_err_text(TARN_ERR_COUNT);
}
static void require_true(void *context) { require(context == NULL); }

static void require_stops_the_process(void **state) {
  (void)state;
  assert_false(panics(require_true, NULL));
  assert_true(panics(require_true, &state));
  assert_true(panics(text_of_no_error, NULL));
}

static void alignment(void **state) {
  (void)state;
  static const struct {
    const char *why;
    uint64_t value, unit, down, up;
  } rows[] = {
      {"zero", 0, 512, 0, 0},
      {"one", 1, 512, 0, 512},
      {"aligned stays", 1024, 512, 1024, 1024},
      {"the last byte", 511, 512, 0, 512},
      {"unit one changes nothing", 77, 1, 77, 77},
      {"any unit, not just powers of two", 3841, 3840, 3840, 7680},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    row_true(rows[i].why, align_down(rows[i].value, rows[i].unit) == rows[i].down);
    row_true(rows[i].why, align_up(rows[i].value, rows[i].unit) == rows[i].up);
  }
  static const uint64_t powers[] = {1, 2, 4096, 1ull << 63};
  static const uint64_t others[] = {0, 3, 4095, UINT64_MAX};
  for (size_t i = 0; i < 4; i++) {
    assert_true(is_power_of_two(powers[i]));
    assert_false(is_power_of_two(others[i]));
  }
}

struct item {
  int number;
  struct list link;
};

static void require_order(const struct list *head, const char *expected) {
  char seen[32] = "";
  LIST_EACH((struct list *)(uintptr_t)head, node) {
    size_t length = strlen(seen);
    snprintf(seen + length, sizeof(seen) - length, "%d", LIST_ENTRY(node, struct item, link)->number);
  }
  assert_string_equal(seen, expected);
}

static void lists_keep_their_order(void **state) {
  (void)state;
  struct list head, other;
  struct item items[6];
  list_init(&head);
  list_init(&other);
  for (int i = 0; i < 6; i++) {
    items[i].number = i;
    list_init(&items[i].link);
  }
  assert_null(list_first(&head));
  assert_null(list_pop(&head));
  list_push(&head, &items[1].link);
  list_push(&head, &items[2].link);
  list_push_front(&head, &items[0].link);
  require_order(&head, "012");
  list_push(&other, &items[4].link);
  list_push(&other, &items[5].link);
  list_insert_before(&items[4].link, &items[3].link);
  list_splice(&head, &other);
  require_order(&head, "012345");
  assert_true(list_is_empty(&other));
  list_splice(&head, &other); /* nothing to move */
  list_remove(&items[2].link);
  list_remove(&items[2].link); /* safe twice */
  assert_false(list_is_linked(&items[2].link));
  require_order(&head, "01345");
  LIST_EACH(&head, node) {
    if (LIST_ENTRY(node, struct item, link)->number % 2) list_remove(node);
  }
  require_order(&head, "04");
  assert_ptr_equal(list_pop(&head), &items[0].link);
  assert_ptr_equal(list_pop(&head), &items[4].link);
  assert_true(list_is_empty(&head));
}

static void push_twice(void *context) {
  struct list head, *node = context;
  list_init(&head);
  list_push(&head, node);
  list_push(&head, node);
}

static void a_node_is_in_one_list(void **state) {
  (void)state;
  struct list node;
  list_init(&node);
  assert_true(panics(push_twice, &node));
}

static void what_is_shown_does_nothing_to_a_terminal(void **state) {
  (void)state;
  static const struct {
    const char *why, *text, *shown;
  } rows[] = {
      {"controls of one byte", "a\x1b[1m\n\x7f b", "a?[1m?? b"},
      {"of two: U+009B begins a sequence, too",
       "a\xc2\x9b"
       "1m",
       "a??1m"},
      {"letters beside them are letters", "\xc2\xa0\xc3\xa4\xe2\x82\xac", "\xc2\xa0\xc3\xa4\xe2\x82\xac"},
      {"U+202E turns the line round",
       "gnp.\xe2\x80\xae"
       "exe",
       "gnp.???exe"},
      {"so does U+2066, and U+200F", "\xe2\x81\xa6\xe2\x80\x8f", "??????"},
      {"U+2028 ends it", "a\xe2\x80\xa8", "a???"},
      {"cut off", "a\xe2\x80", "a\xe2\x80"},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    char text[32];
    strcpy(text, rows[i].text);
    row_true(rows[i].why, strcmp(text_printable(text), rows[i].shown) == 0);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_error_has_a_text_of_its_own),
      cmocka_unit_test(a_text_is_cut_between_letters),
      cmocka_unit_test(what_is_shown_does_nothing_to_a_terminal),
      cmocka_unit_test(require_stops_the_process),
      cmocka_unit_test(alignment),
      cmocka_unit_test(lists_keep_their_order),
      cmocka_unit_test(a_node_is_in_one_list),
  };
  return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
