/* unit.h - what every unit test includes: cmocka with the headers that it wants first, and two helpers.
 *
 * A test is a table of rows, a row per case, each saying why it is there; row_true() names the row that failed. */
#ifndef TARN_TESTS_UNIT_H
#define TARN_TESTS_UNIT_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h> /* after those */

#include "base/require.h"

#define row_true(why, c)                                       \
  do {                                                         \
    if (!(c)) fail_msg("row \"%s\": not true: %s", (why), #c); \
  } while (0)

/* Does `f(context)` trip a require()? It runs in a child, whose last words are thrown away. */
static inline bool panics(void (*f)(void *), void *context) {
  fflush(NULL);
  pid_t child = fork();
  if (child == 0) {
    signal(SIGABRT, SIG_DFL);
    if (!freopen("/dev/null", "w", stderr)) _exit(3);
    f(context);
    _exit(0);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) return false;
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

#endif
