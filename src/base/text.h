/* text.h - sentences into memory of a fixed size, for the layers that print nothing. */
#ifndef TARN_BASE_TEXT_H
#define TARN_BASE_TEXT_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

/* As snprintf(3) and vsnprintf(3): `out` of `bytes` (at least 1) always ends with 0. False: it was cut to fit, at the start of a letter:
 * what was UTF-8 is UTF-8 still. */
__attribute__((format(printf, 3, 4))) bool text_set(char *out, size_t bytes, const char *format, ...);
__attribute__((format(printf, 3, 0))) bool text_set_list(char *out, size_t bytes, const char *format, va_list list);

/* What a stranger has put into a text does nothing to a terminal or a log: control characters (also those of two bytes, U+0080 to U+009F),
 * ends of lines and what turns the direction of writing become '?', in place. Returns `text`. */
char *text_printable(char *text);

#endif
