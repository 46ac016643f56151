/* Golden traces: stories that are told by the trace of a scripted scenario, quoted here and compared line by line. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "sim/scenario.h"

struct captured {
  const char *from, *to; /* the lines after `from`, before `to` */
  bool on;
  char text[16384];
  size_t used;
};

/* Keeps the line without its time. */
static void capture(struct world *world, const char *line) {
  struct captured *captured = world->trace_context;
  const char *text = strstr(line, "] ") + 2;
  if (strcmp(text, captured->to) == 0) captured->on = false;
  if (captured->on) {
    int bytes = snprintf(captured->text + captured->used, sizeof captured->text - captured->used, "%s\n", text);
    captured->used += (size_t)bytes;
    require(captured->used < sizeof captured->text);
  }
  if (strcmp(text, captured->from) == 0) captured->on = true;
}

static void expect_trace(const char *scenario, const char *from, const char *to, const char *expected) {
  static struct world world;
  static struct node node;
  static struct captured captured;
  static sigjmp_buf failed;
  captured = (struct captured){.from = from, .to = to};
  memset(&node, 0, sizeof node);
  world_init(&world, 1);
  world.failed = &failed;
  world.traced = true;
  world.trace_line = capture;
  world.trace_context = &captured;
  if (sigsetjmp(failed, 0) != 0) fail_msg("%s", world.failure);
  scenario_find(scenario)->run(&world, &node);
  node_destroy(&node);
  world_destroy(&world);
  assert_string_equal(captured.text, expected);
}

/* Both are at both images before either is done; nobody waits for anybody. */
static void test_disjoint_writes_run_together(void **state) {
  (void)state;
  expect_trace("two-writes", "-- two disjoint writes", "-- two overlapping writes",
               "client > #2 write 4096+4096\n"
               "client > #3 write 12288+4096\n"
               "a.vol0 write 4096+4096\n"
               "b.vol0 write 4096+4096\n"
               "a.vol0 write 12288+4096\n"
               "b.vol0 write 12288+4096\n"
               "a.vol0 write 4096+4096 done\n"
               "b.vol0 write 4096+4096 done\n"
               "a.vol0 write 12288+4096 done\n"
               "b.vol0 write 12288+4096 done\n"
               "client < #2 write done\n"
               "client < #3 write done\n");
}

/* The second reaches the images only when the first is done on both. */
static void test_overlapping_writes_run_in_order(void **state) {
  (void)state;
  expect_trace("two-writes", "-- two overlapping writes", "-- the end",
               "client > #4 write 4096+4096\n"
               "client > #5 write 6144+4096\n"
               "a.vol0 write 4096+4096\n"
               "b.vol0 write 4096+4096\n"
               "a.vol0 write 4096+4096 done\n"
               "b.vol0 write 4096+4096 done\n"
               "a.vol0 write 6144+4096\n"
               "b.vol0 write 6144+4096\n"
               "client < #4 write done\n"
               "a.vol0 write 6144+4096 done\n"
               "b.vol0 write 6144+4096 done\n"
               "client < #5 write done\n");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_disjoint_writes_run_together),
      cmocka_unit_test(test_overlapping_writes_run_in_order),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
