/* why.h - a sentence for people beside a tarn_err: what failed, why, and what to do about it. */
#ifndef TARN_SHELL_WHY_H
#define TARN_SHELL_WHY_H

#include "base/error.h"

struct why {
  char text[480];
};

/* Writes the sentence and returns `err`, so that a function can say `return because(why, TARN_REFUSED, "...")`. A text
 * that is too long is cut, at the start of a letter. `why` may be NULL. */
__attribute__((format(printf, 3, 4))) tarn_err because(struct why *why, tarn_err err, const char *format, ...);

#endif
