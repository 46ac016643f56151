/* Golden traces: stories that are told by the trace of a scripted scenario, as documentation in sim/golden/NAME.txt, and
 * compared line by line (without the times).
 *
 * A trace has changed, and rightly so? GOLDEN_WRITE=1 sim/test_golden writes the files; read the difference as a reviewer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/scenario.h"

static struct {
  bool on; /* from the first line of the story to its end */
  char text[65536];
  size_t used;
} captured;

static void capture(struct world *world, const char *line) {
  (void)world;
  const char *text = strstr(line, "] ") + 2;
  if (strncmp(text, "-- ", 3) == 0) captured.on = strcmp(text, "-- the end") != 0;
  if (!captured.on) return;
  int bytes = snprintf(captured.text + captured.used, sizeof captured.text - captured.used, "%s\n", text);
  captured.used += (size_t)bytes;
  require(captured.used < sizeof captured.text);
}

static void run_story(const char *name) {
  static struct world world;
  static struct node node;
  static sigjmp_buf failed;
  memset(&captured, 0, sizeof captured);
  memset(&node, 0, sizeof node);
  world_init(&world, 1);
  world.failed = &failed;
  world.traced = true;
  world.trace_line = capture;
  if (sigsetjmp(failed, 0) != 0) fail_msg("%s", world.failure);
  scenario_find(name)->run(&world, &node);
  node_destroy(&node);
  world_destroy(&world);
}

/* The line that a text goes on with, without its end; moves on to the next. NULL at the end. */
static const char *next_line(char **text) {
  char *line = *text, *end = strchr(line, '\n');
  if (!end) return NULL;
  *end = 0;
  *text = end + 1;
  return line;
}

static void compare_lines(const char *path, char *expected, char *found) {
  for (unsigned number = 1;; number++) {
    const char *e = next_line(&expected), *f = next_line(&found);
    if (!e && !f) return;
    if (e && f && strcmp(e, f) == 0) continue;
    fail_msg("%s:%u:\n  expected: %s\n  found:    %s", path, number, e ? e : "the end", f ? f : "the end");
  }
}

static void test_story(void **state) {
  static char expected[sizeof captured.text];
  const char *name = *state;
  char path[1024];
  run_story(name);
  snprintf(path, sizeof path, "%s/%s.txt", GOLDEN, name);
  FILE *file = fopen(path, getenv("GOLDEN_WRITE") ? "w" : "r");
  assert_non_null(file);
  if (getenv("GOLDEN_WRITE")) {
    fputs(captured.text, file);
  } else {
    expected[fread(expected, 1, sizeof expected - 1, file)] = 0;
    compare_lines(path, expected, captured.text);
  }
  fclose(file);
}

int main(void) {
  static struct CMUnitTest tests[32];
  size_t count = 0;
  for (uint32_t i = 0; scenario_at(i); i++) {
    if (scenario_at(i)->kind != SCENARIO_SCRIPTED) continue;
    tests[count++] = (struct CMUnitTest){.name = scenario_at(i)->name,
                                         .test_func = test_story,
                                         .initial_state = (void *)(uintptr_t)scenario_at(i)->name};
  }
  return _cmocka_run_group_tests("golden", tests, count, NULL, NULL);
}
