#include "shell/settings.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "shell/words.h"

#define KIB 1024
#define MIB (1024 * 1024)

const struct setting mirror_settings[MIRROR_SETTING_COUNT] = {
    [SET_AUTO] = {"auto", SETTING_ON_OFF, 0, 1, 1,
                  .help = "active again by itself at start and when conditions hold again"},
    [SET_MAX_MISSING] = {"max-missing", SETTING_COUNT, -1, IMAGES_MAX, -1, .at_activation = true,
                         .help = "images that may be missing at most; -1: any number"},
    [SET_MIN_IMAGES] = {"min-images", SETTING_COUNT, -1, IMAGES_MAX, -1, .at_activation = true,
                        .help = "images that activation needs, the master counts; -1: any number"},
    [SET_REGION] = {"region", SETTING_BYTES, 64 * KIB, 256 * MIB, 4 * MIB, .power_of_two = true, .at_create = true,
                    .help = "bytes that one mark of the intent log covers"},
    [SET_MARKS] = {"marks", SETTING_COUNT, 16, 65536, 4096, .at_create = true,
                   .help = "regions that may be marked at once; times region: most that a crash copies"},
    [SET_EXTENT] = {"extent", SETTING_BYTES, 4 * KIB, 1 * MIB, 16 * KIB, .power_of_two = true, .at_create = true,
                    .help = "bytes per bit of a map of missed blocks"},
};

void settings_defaults(struct settings *settings) {
  for (unsigned i = 0; i < MIRROR_SETTING_COUNT; i++) settings->values[i] = mirror_settings[i].value;
}

static const char *setting_name(const void *context, size_t index) {
  (void)context;
  return index < MIRROR_SETTING_COUNT ? mirror_settings[index].name : NULL;
}

tarn_err setting_find(const char *name, unsigned *index, struct why *why) {
  for (unsigned i = 0; i < MIRROR_SETTING_COUNT; i++) {
    if (strcmp(name, mirror_settings[i].name) != 0) continue;
    *index = i;
    return TARN_OK;
  }
  char hint[HINT_TEXT];
  return because(why, TARN_NOT_FOUND, "unknown setting '%.80s'%s", name,
                 hint_text(nearest_word(name, setting_name, NULL), hint));
}

tarn_err setting_parse(unsigned index, const char *text, int64_t *value, struct why *why) {
  require(index < MIRROR_SETTING_COUNT);
  const struct setting *setting = &mirror_settings[index];
  int64_t parsed = 0;
  bool good = false;
  switch (setting->unit) {
    case SETTING_ON_OFF:
      parsed = strcmp(text, "on") == 0;
      good = parsed || strcmp(text, "off") == 0;
      break;
    case SETTING_COUNT: good = number_parse(text, &parsed, NULL) == TARN_OK; break;
    case SETTING_BYTES: good = size_parse(text, (uint64_t *)&parsed, NULL) == TARN_OK; break;
  }
  good = good && parsed >= setting->min && parsed <= setting->max;
  if (good && setting->power_of_two) good = is_power_of_two((uint64_t)parsed);
  char range[SETTING_RANGE_TEXT];
  if (!good)
    return because(why, TARN_INVALID, "%s='%.40s' is out of range: allowed is %s", setting->name, text,
                   setting_range_text(index, range));
  *value = parsed;
  return TARN_OK;
}

tarn_err setting_assign(struct settings *settings, const char *text, unsigned *index, struct why *why) {
  const char *equals = strchr(text, '=');
  char name[40] = "";
  if (!equals) return because(why, TARN_INVALID, "'%.80s' is no setting: write KEY=VALUE", text);
  snprintf(name, sizeof name, "%.*s", (int)min_u64((uint64_t)(equals - text), sizeof name - 1), text);
  tarn_err err = setting_find(name, index, why);
  return err == TARN_OK ? setting_parse(*index, equals + 1, &settings->values[*index], why) : err;
}

const char *setting_text(unsigned index, int64_t value, char *out) {
  require(index < MIRROR_SETTING_COUNT);
  switch (mirror_settings[index].unit) {
    case SETTING_ON_OFF: snprintf(out, SETTING_TEXT, "%s", value ? "on" : "off"); break;
    case SETTING_COUNT: snprintf(out, SETTING_TEXT, "%" PRId64, value); break;
    case SETTING_BYTES: size_text((uint64_t)value, out); break;
  }
  return out;
}

const char *setting_range_text(unsigned index, char *out) {
  require(index < MIRROR_SETTING_COUNT);
  const struct setting *setting = &mirror_settings[index];
  char min[SETTING_TEXT], max[SETTING_TEXT];
  if (setting->unit == SETTING_ON_OFF) snprintf(out, SETTING_RANGE_TEXT, "on, off");
  else
    snprintf(out, SETTING_RANGE_TEXT, "%s to %s%s", setting_text(index, setting->min, min),
             setting_text(index, setting->max, max), setting->power_of_two ? ", a power of two" : "");
  return out;
}
