/* why.c - see why.h. */
#include "shell/why.h"

#include <stdarg.h>

#include "base/require.h"
#include "base/text.h"

tarn_err because(struct why *why, tarn_err err, const char *format, ...) {
  require(err < TARN_ERR_COUNT);
  if (!why) return err;
  va_list args;
  va_start(args, format);
  (void)text_set_list(why->text, sizeof(why->text), format, args);
  va_end(args);
  return err;
}
