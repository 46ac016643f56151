#include "shell/words.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

tarn_err name_check(const char *what, const char *text, struct why *why) {
  size_t bytes = strlen(text);
  if (bytes == 0) return because(why, TARN_INVALID, "the %s name is empty", what);
  if (bytes > TARN_NAME_MAX)
    return because(why, TARN_INVALID, "the %s name has %zu characters, at most %u are allowed", what, bytes,
                   TARN_NAME_MAX);
  if (!record_name_is_valid(text, bytes))
    return because(why, TARN_INVALID,
                   "the %s name '%.80s' has odd characters: it may have letters, digits, _ and -, and starts with a "
                   "letter or digit",
                   what, text);
  return TARN_OK;
}

/* Decimal digits at the start of `text`; returns how many, 0 also when the value passes `max`. */
static size_t digits_parse(const char *text, uint64_t max, uint64_t *value) {
  size_t count = 0;
  *value = 0;
  for (; text[count] >= '0' && text[count] <= '9'; count++) {
    uint64_t digit = (uint64_t)(text[count] - '0');
    if (*value > (max - digit) / 10) return 0;
    *value = *value * 10 + digit;
  }
  return count;
}

tarn_err size_parse(const char *text, uint64_t *bytes, struct why *why) {
  static const char units[] = "KMGTP";
  uint64_t value;
  size_t digits = digits_parse(text, INT64_MAX, &value);
  if (digits == 0) goto bad;
  unsigned shift = 0;
  if (text[digits] != 0) {
    const char *unit = strchr(units, toupper((unsigned char)text[digits]));
    if (!unit || text[digits + 1] != 0) goto bad;
    shift = 10u * (unsigned)(unit - units + 1);
  }
  if (value > (uint64_t)INT64_MAX >> shift) goto bad;
  if (value == 0) return because(why, TARN_INVALID, "a size of 0 is too small");
  *bytes = value << shift;
  return TARN_OK;
bad:
  return because(why, TARN_INVALID,
                 "'%.80s' is no size: write bytes, or a whole number with K, M, G, T or P, like 512M", text);
}

const char *size_text(uint64_t bytes, char *out) {
  static const char units[] = "\0KMGTPE";
  unsigned unit = 0;
  while (unit < 6 && bytes >> (10 * (unit + 1)) != 0) unit++;
  if (unit == 6 && bytes % (1ull << 60) == 0) unit--; /* what can be typed again is shown so, and nobody types E */
  uint64_t one = 1ull << (10 * unit);
  if (bytes % one == 0) snprintf(out, SIZE_TEXT, "%" PRIu64 "%.1s", bytes / one, &units[unit]);
  else snprintf(out, SIZE_TEXT, "%.1f%.1s", (double)bytes / (double)one, &units[unit]);
  return out;
}

const char *duration_text(uint64_t seconds, char *out) {
  uint64_t minutes = seconds / 60, hours = seconds / 3600;
  if (seconds < 100) snprintf(out, DURATION_TEXT, "%" PRIu64 " s", seconds);
  else if (minutes < 100) snprintf(out, DURATION_TEXT, "%" PRIu64 " min", minutes);
  else if (hours < 10 && minutes % 60)
    snprintf(out, DURATION_TEXT, "%" PRIu64 " h %" PRIu64 " min", hours, minutes % 60);
  else if (hours < 48) snprintf(out, DURATION_TEXT, "%" PRIu64 " h", hours);
  else snprintf(out, DURATION_TEXT, "%" PRIu64 " days", hours / 24);
  return out;
}

tarn_err number_parse(const char *text, int64_t *value, struct why *why) {
  bool negative = text[0] == '-';
  uint64_t magnitude;
  size_t digits = digits_parse(text + negative, INT64_MAX, &magnitude);
  if (digits == 0 || text[digits + negative] != 0)
    return because(why, TARN_INVALID, "'%.80s' is no whole number", text);
  *value = negative ? -(int64_t)magnitude : (int64_t)magnitude;
  return TARN_OK;
}

#define WORD_MAX 32u

/* Optimal string alignment: Levenshtein with swaps of neighbours. Case is no difference worth more than nothing. */
static unsigned edit_distance(const char *a, const char *b) {
  size_t a_bytes = strlen(a), b_bytes = strlen(b);
  if (a_bytes > WORD_MAX || b_bytes > WORD_MAX) return UINT16_MAX;
  unsigned rows[3][WORD_MAX + 1], *before = rows[0], *above = rows[1], *row = rows[2];
  for (unsigned j = 0; j <= b_bytes; j++) above[j] = before[j] = j;
  for (unsigned i = 1; i <= a_bytes; i++) {
    row[0] = i;
    for (unsigned j = 1; j <= b_bytes; j++) {
      bool equal = tolower((unsigned char)a[i - 1]) == tolower((unsigned char)b[j - 1]);
      unsigned best = above[j - 1] + !equal;
      if (above[j] + 1 < best) best = above[j] + 1;
      if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best)
        best = before[j - 2] + 1;
      row[j] = best;
    }
    unsigned *spare = before;
    before = above, above = row, row = spare;
  }
  return above[b_bytes];
}

const char *nearest_word(const char *text, const char *(*next)(const void *context, size_t index),
                         const void *context) {
  const char *nearest = NULL;
  unsigned nearest_distance = UINT16_MAX;
  const char *word;
  for (size_t i = 0; (word = next(context, i)) != NULL; i++) {
    unsigned distance = edit_distance(text, word);
    /* What shares its beginning is meant more often than what is as near by its letters alone: "act" for "activate". */
    if (distance > 2 && strlen(text) >= 3 && strncmp(text, word, strlen(text)) == 0) distance = 2;
    if (distance < nearest_distance) nearest = word, nearest_distance = distance;
  }
  size_t longest = nearest && strlen(nearest) > strlen(text) ? strlen(nearest) : strlen(text);
  return nearest && nearest_distance <= 1 + longest / 3 && nearest_distance < longest ? nearest : NULL;
}

const char *hint_text(const char *word, char *out) {
  out[0] = 0;
  if (word) snprintf(out, HINT_TEXT, " (did you mean '%.70s'?)", word);
  return out;
}

const char *option_word(char **argv, int index, const char *argument, int letter) {
  for (char **word = argv; letter > ' ' && letter < 127 && *word;
       word++) /* one dash: getopt is still inside that word */
    if ((*word)[0] == '-' && (*word)[1] == letter) return *word;
  return argv[argument && argument == argv[index - 1] ? index - 2 : index - 1];
}

bool option_is_whole(const char *word, const char *name) {
  size_t bytes = strlen(name);
  return strncmp(word, "--", 2) == 0 && strncmp(word + 2, name, bytes) == 0 &&
         (word[2 + bytes] == 0 || word[2 + bytes] == '=');
}
