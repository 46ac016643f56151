/* require.c - the one way in which the process ends by our own mistake. */
#include "base/require.h"

#include <stdio.h>
#include <stdlib.h>

void tarn_panic(const char *what, const char *file, int line) {
  fprintf(stderr, "tarn: panic: broken promise: %s (%s:%d)\n", what, file, line);
  abort();
}
