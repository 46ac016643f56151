#include "base/text.h"

#include <stdio.h>
#include <string.h>

#include "base/require.h"

/* Takes away a letter of UTF-8 that is not all there. */
static void letter_end(char *text) {
  size_t length = strlen(text), at = length;
  while (at > 0 && ((unsigned char)text[at - 1] & 0xc0) == 0x80) at--;
  if (at == 0 || (unsigned char)text[at - 1] < 0xc0) return; /* it ends with a letter of one byte, or is not UTF-8 */
  unsigned char first = (unsigned char)text[at - 1];
  size_t wanted = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (length - (at - 1) < wanted) text[at - 1] = 0;
}

bool text_set_list(char *out, size_t bytes, const char *format, va_list list) {
  require(bytes > 0);
  int length = vsnprintf(out, bytes, format, list);
  require(length >= 0);
  if ((size_t)length < bytes) return true;
  letter_end(out);
  return false;
}

bool text_set(char *out, size_t bytes, const char *format, ...) {
  va_list list;
  va_start(list, format);
  bool whole = text_set_list(out, bytes, format, list);
  va_end(list);
  return whole;
}
