/* src/shell/log_writer.h: a log whose reader has stopped reading. */
#include "shell/log_writer.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "unit.h"

static int ends[2];
static struct log_writer writer; /* its thread may outlive a test that fails */
static char text[256 * 1024];
static size_t bytes;

static int setup(void **state) {
  (void)state;
  bytes = 0;
  if (pipe2(ends, O_CLOEXEC) != 0 || fcntl(ends[0], F_SETFL, O_NONBLOCK) != 0) return -1;
  log_writer_start(&writer, ends[1]);
  return writer.runs ? 0 : -1;
}

static int teardown(void **state) {
  (void)state;
  close(ends[0]);
  log_writer_end(&writer);
  close(ends[1]);
  return 0;
}

static void read_some(void) {
  ssize_t got = read(ends[0], text + bytes, sizeof text - 1 - bytes);
  if (got > 0) bytes += (size_t)got;
  else usleep(1000);
  text[bytes] = 0;
}

static void lines_are_there_when_they_were_added(void **state) {
  (void)state;
  log_writer_add(&writer, "one\n");
  log_writer_add(&writer, "two\nthree\n");
  log_writer_end(&writer);
  read_some();
  assert_string_equal(text, "one\ntwo\nthree\n");
}

/* In order, with a note in place of those that found no room; and what comes later is whole again. */
static void a_reader_that_stops_keeps_nobody(void **state) {
  (void)state;
  char line[64];
  const unsigned count = 6000;
  for (unsigned i = 0; i < count; i++) {
    snprintf(line, sizeof line, "line %06u of a log that nobody reads\n", i);
    log_writer_add(&writer, line);
  }
  while (!strstr(text, "lines are left out here")) read_some();
  log_writer_add(&writer, "the last\n");
  while (!strstr(text, "the last\n")) read_some();
  unsigned next = 0;
  unsigned long long left_out = 0;
  for (char *at = text; strncmp(at, "the last\n", 9) != 0; at = strchr(at, '\n') + 1) {
    unsigned number;
    if (sscanf(at, "line %u", &number) == 1) assert_int_equal(number, next++);
    else assert_int_equal(sscanf(at, "(%llu lines are left out here", &left_out), 1);
  }
  assert_int_equal(next + left_out, count);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(lines_are_there_when_they_were_added, setup, teardown),
      cmocka_unit_test_setup_teardown(a_reader_that_stops_keeps_nobody, setup, teardown),
  };
  return cmocka_run_group_tests_name("log_writer", tests, NULL, NULL);
}
