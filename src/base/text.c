#include "base/text.h"

#include <stdio.h>

#include "base/require.h"

bool text_set_list(char *out, size_t bytes, const char *format, va_list list) {
  require(bytes > 0);
  int length = vsnprintf(out, bytes, format, list);
  require(length >= 0);
  return (size_t)length < bytes;
}

bool text_set(char *out, size_t bytes, const char *format, ...) {
  va_list list;
  va_start(list, format);
  bool whole = text_set_list(out, bytes, format, list);
  va_end(list);
  return whole;
}
