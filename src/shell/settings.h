/* settings.h - every setting of a mirror and of an image, once: create, set, get, help and completion read these tables.
 *
 * A setting is in a table when it works. Values are integers; units decide how they are read and shown. */
#ifndef TARN_SHELL_SETTINGS_H
#define TARN_SHELL_SETTINGS_H

#include "base/require.h"
#include "shell/why.h"

/* WORD: one of `words`, the value is its index. SECONDS and COUNT are plain numbers. */
enum setting_unit { SETTING_WORD, SETTING_COUNT, SETTING_SECONDS, SETTING_BYTES };

enum mirror_setting {
  SET_AUTO,
  SET_SUSPEND,
  SET_MAX_MISSING,
  SET_MIN_IMAGES,
  SET_READ,
  SET_REGION,
  SET_MARKS,
  SET_EXTENT,
  MIRROR_SETTING_COUNT,
};

enum image_setting {
  SET_HANG,
  SET_RETURN,
  SET_RETURN_AFTER,
  SET_RATE,
  SET_NBD_SETTLE,
  IMAGE_SETTING_COUNT,
};

struct setting {
  const char *name;
  enum setting_unit unit;
  int64_t min, max, value; /* value: the default */
  const char *words[2];
  bool power_of_two;
  bool at_create; /* fixed from then on */
  const char *help;
};

/* The settings of one kind of thing. Values of one thing are an array of `count`, in the order of the rows. */
struct settings_table {
  const struct setting *rows;
  unsigned count;
};
extern const struct settings_table mirror_settings, image_settings;

struct settings {
  int64_t values[MIRROR_SETTING_COUNT];
};
struct image_settings {
  int64_t values[IMAGE_SETTING_COUNT];
};
void settings_defaults(const struct settings_table *table, int64_t *values);

/* The setting's index; TARN_NOT_FOUND with the nearest known name. */
CHECKED tarn_err setting_find(const struct settings_table *table, const char *name, unsigned *index, struct why *why);
/* TARN_INVALID with what is allowed. */
CHECKED tarn_err setting_parse(const struct setting *setting, const char *text, int64_t *value, struct why *why);
/* "KEY=VALUE". TARN_NOT_FOUND, TARN_INVALID. */
CHECKED tarn_err setting_assign(const struct settings_table *table, int64_t *values, const char *text, unsigned *index,
                                struct why *why);
/* Is it one that setting_parse() could have given? For what comes from a file. */
bool setting_is_valid(const struct setting *setting, int64_t value);
/* As it would be typed. `out` has SETTING_TEXT bytes. */
#define SETTING_TEXT 32
const char *setting_text(const struct setting *setting, int64_t value, char *out);
/* "off, on", "16 to 65536", "64K to 256M, a power of two". */
#define SETTING_RANGE_TEXT 64
const char *setting_range_text(const struct setting *setting, char *out);

#endif
