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

/* How many bytes at `at` are a character that must not be shown; 0: none. */
static size_t is_control(const unsigned char *at) {
  if (at[0] < 0x20 || at[0] == 0x7f) return 1;
  if (at[0] == 0xc2 && at[1] >= 0x80 && at[1] <= 0x9f) return 2;
  bool mark = at[0] == 0xe2 && at[1] == 0x80 && (at[2] == 0x8e || at[2] == 0x8f); /* left-to-right and right-to-left */
  bool turn = at[0] == 0xe2 && at[1] == 0x80 && at[2] >= 0xa8 && at[2] <= 0xae;   /* also separators of lines */
  bool isolate = at[0] == 0xe2 && at[1] == 0x81 && at[2] >= 0xa6 && at[2] <= 0xa9;
  return mark || turn || isolate ? 3 : 0;
}

char *text_printable(char *text) {
  for (char *at = text; *at;) {
    size_t bytes = is_control((const unsigned char *)at);
    memset(at, '?', bytes);
    at += bytes ? bytes : 1;
  }
  return text;
}
