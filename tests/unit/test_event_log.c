/* src/shell/event_log.h: the ring of recent events. */
#include "shell/event_log.h"
#include "unit.h"

static struct event_log events;

static void reading(void **state) {
  (void)state;
  uint64_t number = 1, lost = 0;
  event_log_init(&events);
  assert_null(event_log_at(&events, &number, &lost));
  event_log_add(&events, 5, REPORT_INFO, "vol0", "first");
  event_log_add(&events, 6, REPORT_ERROR, NULL, "two\nlines");
  const struct event_line *line = event_log_at(&events, &number, &lost);
  assert_string_equal(line->text, "first");
  assert_string_equal(line->subject, "vol0");
  number++;
  line = event_log_at(&events, &number, &lost);
  assert_string_equal(line->text, "two?lines"); /* an event is one line */
  number++;
  assert_null(event_log_at(&events, &number, &lost));
  assert_int_equal(lost, 0);
}

static void overrun(void **state) {
  (void)state;
  uint64_t slow = 1, fresh = 1, lost = 0;
  event_log_init(&events);
  for (unsigned i = 0; i < EVENTS_KEPT; i++) event_log_add(&events, i, REPORT_INFO, "", "x");
  assert_non_null(event_log_at(&events, &slow, &lost)); /* exactly full: nothing is lost */
  assert_int_equal(lost, 0);
  for (unsigned i = 0; i < 10; i++) event_log_add(&events, i, REPORT_INFO, "", "y");
  assert_non_null(event_log_at(&events, &slow, &lost));
  assert_int_equal(lost, 10);
  assert_int_equal(slow, 11);
  (void)fresh;
}

static void times(void **state) {
  (void)state;
  char text[TIME_TEXT];
  assert_string_equal(time_text(0, text), "1970-01-01T00:00:00.000Z");
  assert_string_equal(time_text(1000000000123456789ull, text), "2001-09-09T01:46:40.123Z");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(reading), cmocka_unit_test(overrun), cmocka_unit_test(times)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
