#include "shell/settings.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "shell/words.h"

#define KIB 1024
#define MIB (1024 * 1024)
#define DAY 86400

static const struct setting mirror_rows[MIRROR_SETTING_COUNT] = {
    [SET_AUTO] = {"auto",
                  SETTING_WORD,
                  0,
                  1,
                  1,
                  {"off", "on"},
                  .help = "active again by itself at start and when conditions hold again"},
    [SET_SUSPEND] = {"suspend", SETTING_SECONDS, 0, DAY, 30,
                     .help = "seconds that clients' requests wait in ATTENTION before they fail"},
    [SET_MAX_MISSING] = {"max-missing", SETTING_COUNT, -1, IMAGES_MAX, -1,
                         .help = "images that may be missing at most; -1: any number"},
    [SET_MIN_IMAGES] = {"min-images", SETTING_COUNT, -1, IMAGES_MAX, -1,
                        .help = "images that activation needs, the master counts; -1: any number"},
    [SET_READ] = {"read",
                  SETTING_WORD,
                  0,
                  1,
                  0,
                  {"nearest", "master"},
                  .help = "where reads are served: by the least loaded image, or by the master alone"},
    [SET_REGION] = {"region", SETTING_BYTES, 64 * KIB, 256 * MIB, 4 * MIB, .power_of_two = true, .at_create = true,
                    .help = "bytes that one mark of the intent log covers"},
    [SET_MARKS] = {"marks", SETTING_COUNT, 16, 65536, 4096, .at_create = true,
                   .help = "regions that may be marked at once; times region: most that a crash copies"},
    [SET_EXTENT] = {"extent", SETTING_BYTES, 4 * KIB, 1 * MIB, 16 * KIB, .power_of_two = true, .at_create = true,
                    .help = "bytes per bit of a map of missed blocks"},
};
const struct settings_table mirror_settings = {mirror_rows, MIRROR_SETTING_COUNT};

static const struct setting image_rows[IMAGE_SETTING_COUNT] = {
    [SET_HANG] = {"hang", SETTING_SECONDS, 1, 600, 10, .help = "seconds until an I/O of its disks counts as failed"},
    [SET_RETURN] = {"return",
                    SETTING_WORD,
                    0,
                    1,
                    1,
                    {"manual", "auto"},
                    .help = "comes back by itself after a failure, or waits for 'tarn image restore'"},
    [SET_RETURN_AFTER] = {"return-after", SETTING_SECONDS, 0, DAY, 60,
                          .help = "quiet seconds before it comes back; doubled after each relapse"},
    [SET_RATE] = {"rate", SETTING_BYTES, 0, INT64_MAX, 0,
                  .help = "bytes per second that are copied to it; 0: no limit"},
    [SET_NBD_SETTLE] = {"nbd-settle", SETTING_SECONDS, 0, 600, 5,
                        .help = "seconds between a lost connection to its NBD server and writing there again"},
};
const struct settings_table image_settings = {image_rows, IMAGE_SETTING_COUNT};

void settings_defaults(const struct settings_table *table, int64_t *values) {
  for (unsigned i = 0; i < table->count; i++) values[i] = table->rows[i].value;
}

static const char *setting_name(const void *context, size_t index) {
  const struct settings_table *table = context;
  return index < table->count ? table->rows[index].name : NULL;
}

tarn_err setting_find(const struct settings_table *table, const char *name, unsigned *index, struct why *why) {
  for (unsigned i = 0; i < table->count; i++) {
    if (strcmp(name, table->rows[i].name) != 0) continue;
    *index = i;
    return TARN_OK;
  }
  char hint[HINT_TEXT];
  return because(why, TARN_NOT_FOUND, "unknown setting '%.80s'%s", name,
                 hint_text(nearest_word(name, setting_name, table), hint));
}

static bool word_parse(const struct setting *setting, const char *text, int64_t *value) {
  for (size_t i = 0; i < COUNT_OF(setting->words); i++) {
    if (strcmp(text, setting->words[i]) != 0) continue;
    *value = (int64_t)i;
    return true;
  }
  return false;
}

/* Sizes begin at 1, because a size of nothing is a mistake nearly everywhere. */
static bool bytes_parse(const char *text, int64_t *value) {
  uint64_t bytes = 0;
  bool good = strcmp(text, "0") == 0 || size_parse(text, &bytes, NULL) == TARN_OK;
  *value = (int64_t)bytes;
  return good;
}

bool setting_is_valid(const struct setting *setting, int64_t value) {
  if (value < setting->min || value > setting->max) return false;
  return !setting->power_of_two || is_power_of_two((uint64_t)value);
}

tarn_err setting_parse(const struct setting *setting, const char *text, int64_t *value, struct why *why) {
  int64_t parsed = 0;
  bool good = false;
  switch (setting->unit) {
    case SETTING_WORD: good = word_parse(setting, text, &parsed); break;
    case SETTING_COUNT:
    case SETTING_SECONDS: good = number_parse(text, &parsed, NULL) == TARN_OK; break;
    case SETTING_BYTES: good = bytes_parse(text, &parsed); break;
  }
  char range[SETTING_RANGE_TEXT];
  if (!good || !setting_is_valid(setting, parsed))
    return because(why, TARN_INVALID, "%s='%.40s' is out of range: allowed is %s", setting->name, text,
                   setting_range_text(setting, range));
  *value = parsed;
  return TARN_OK;
}

tarn_err setting_assign(const struct settings_table *table, int64_t *values, const char *text, unsigned *index,
                        struct why *why) {
  const char *equals = strchr(text, '=');
  char name[40] = "";
  if (!equals) return because(why, TARN_INVALID, "'%.80s' is no setting: write KEY=VALUE", text);
  snprintf(name, sizeof name, "%.*s", (int)min_u64((uint64_t)(equals - text), sizeof name - 1), text);
  tarn_err err = setting_find(table, name, index, why);
  return err == TARN_OK ? setting_parse(&table->rows[*index], equals + 1, &values[*index], why) : err;
}

const char *setting_text(const struct setting *setting, int64_t value, char *out) {
  require(setting_is_valid(setting, value));
  switch (setting->unit) {
    case SETTING_WORD: snprintf(out, SETTING_TEXT, "%s", setting->words[value]); break;
    case SETTING_COUNT:
    case SETTING_SECONDS: snprintf(out, SETTING_TEXT, "%" PRId64, value); break;
    case SETTING_BYTES:
      size_text((uint64_t)value, out);
      if (strchr(out, '.')) snprintf(out, SETTING_TEXT, "%" PRId64, value); /* "1.5M" is for reading only */
      break;
  }
  return out;
}

const char *setting_range_text(const struct setting *setting, char *out) {
  char min[SETTING_TEXT], max[SETTING_TEXT];
  if (setting->unit == SETTING_WORD) snprintf(out, SETTING_RANGE_TEXT, "%s, %s", setting->words[0], setting->words[1]);
  else if (setting->max == INT64_MAX)
    snprintf(out, SETTING_RANGE_TEXT, "%s or more", setting_text(setting, setting->min, min));
  else
    snprintf(out, SETTING_RANGE_TEXT, "%s to %s%s", setting_text(setting, setting->min, min),
             setting_text(setting, setting->max, max), setting->power_of_two ? ", a power of two" : "");
  return out;
}
