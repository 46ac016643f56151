/* settings.h - every setting of a mirror, once: create, set, get, help and completion read this table.
 *
 * A setting is in the table when it works. Values are integers; units decide how they are read and shown. */
#ifndef TARN_SHELL_SETTINGS_H
#define TARN_SHELL_SETTINGS_H

#include "base/require.h"
#include "shell/why.h"

enum setting_unit { SETTING_ON_OFF, SETTING_COUNT, SETTING_BYTES };

enum mirror_setting {
  SET_AUTO,
  SET_MAX_MISSING,
  SET_MIN_IMAGES,
  SET_REGION,
  SET_MARKS,
  SET_EXTENT,
  MIRROR_SETTING_COUNT,
};

struct setting {
  const char *name;
  enum setting_unit unit;
  int64_t min, max, value; /* value: the default */
  bool power_of_two;
  bool at_create;     /* fixed from then on */
  bool at_activation; /* a change while ACTIVE holds from the next activation */
  const char *help;
};
extern const struct setting mirror_settings[MIRROR_SETTING_COUNT];

/* All settings of one mirror. */
struct settings {
  int64_t values[MIRROR_SETTING_COUNT];
};
void settings_defaults(struct settings *settings);

/* The setting's index; TARN_NOT_FOUND with the nearest known name. */
CHECKED tarn_err setting_find(const char *name, unsigned *index, struct why *why);
/* TARN_INVALID with what is allowed. */
CHECKED tarn_err setting_parse(unsigned index, const char *text, int64_t *value, struct why *why);
/* "KEY=VALUE". TARN_NOT_FOUND, TARN_INVALID. */
CHECKED tarn_err setting_assign(struct settings *settings, const char *text, unsigned *index, struct why *why);
/* As it would be typed. `out` has SETTING_TEXT bytes. */
#define SETTING_TEXT 32
const char *setting_text(unsigned index, int64_t value, char *out);
/* "on, off", "16-65536", "64K-256M, a power of two". */
#define SETTING_RANGE_TEXT 64
const char *setting_range_text(unsigned index, char *out);

#endif
