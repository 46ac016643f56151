/* words.h - the small grammar that everything typed by people shares: names, sizes, counts, and the nearest known word.
 *
 * Pure functions. Errors are TARN_INVALID with a sentence in `why`. */
#ifndef TARN_SHELL_WORDS_H
#define TARN_SHELL_WORDS_H

#include "format/record.h"
#include "shell/why.h"

/* record_name_is_valid() as a sentence; `what` is "mirror", "image", ... */
CHECKED tarn_err name_check(const char *what, const char *text, struct why *why);

/* Bytes, or a number with K M G T P (powers of 1024, any case). At least 1, below 2^63. */
CHECKED tarn_err size_parse(const char *text, uint64_t *bytes, struct why *why);
/* "4M", "1.5G", "1000": exact where a unit divides it, else one decimal. `out` has SIZE_TEXT bytes. */
#define SIZE_TEXT 24
const char *size_text(uint64_t bytes, char *out);
/* "40 s", "14 min", "3 h 20 min", "5 days": short, and never more exact than anybody wants to know. `out` has DURATION_TEXT. */
#define DURATION_TEXT 32
const char *duration_text(uint64_t seconds, char *out);
/* A decimal integer, all of `text`. */
CHECKED tarn_err number_parse(const char *text, int64_t *value, struct why *why);

/* The word nearest to `text` by edit distance (insert, delete, replace, swap of neighbours: each 1), where it is near
 * enough to be meant; else NULL. `next(context, i)` is the i-th known word, NULL past the end. */
const char *nearest_word(const char *text, const char *(*next)(const void *context, size_t index), const void *context);
/* " (did you mean 'X'?)", or "" when `word` is NULL. `out` has HINT_TEXT bytes. */
#define HINT_TEXT 96
const char *hint_text(const char *word, char *out);

/* The word that getopt_long() has just handled; call it with its argv, optind, optarg, and optopt (0: no error). */
const char *option_word(char **argv, int index, const char *argument, int letter);
/* Is `--name` or `--name=value` typed in full? getopt_long() also takes the beginning of one, which would stop to work, or
 * mean another, once there are more options. */
bool option_is_whole(const char *word, const char *name);

#endif
