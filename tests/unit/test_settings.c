/* src/shell/settings.h: the table of settings, and what is typed for them. */
#include "shell/settings.h"
#include "unit.h"

static void table_is_sound(const struct settings_table *table) {
  int64_t values[MIRROR_SETTING_COUNT + IMAGE_SETTING_COUNT];
  settings_defaults(table, values);
  for (unsigned i = 0; i < table->count; i++) {
    const struct setting *setting = &table->rows[i];
    char text[SETTING_RANGE_TEXT];
    unsigned found;
    int64_t value = -99;
    row_true(setting->name, setting->min <= setting->value && setting->value <= setting->max);
    row_true(setting->name, setting->help && setting->help[0]);
    row_true(setting->name, setting_find(table, setting->name, &found, NULL) == TARN_OK && found == i);
    row_true(setting->name,
             setting_parse(setting, setting_text(setting, setting->value, text), &value, NULL) == TARN_OK);
    row_true(setting->name, value == setting->value && values[i] == value);
    row_true(setting->name, setting_range_text(setting, text)[0] != 0);
  }
}

static void tables_are_sound(void **state) {
  (void)state;
  table_is_sound(&mirror_settings);
  table_is_sound(&image_settings);
}

static void assignments(void **state) {
  (void)state;
  static const struct {
    const char *why;
    const struct settings_table *table;
    const char *text;
    tarn_err err;
    unsigned index;
    int64_t value;
    const char *says;
  } rows[] = {
      {"seconds for an NBD server to settle", &image_settings, "nbd-settle=0", TARN_OK, SET_NBD_SETTLE, 0, ""},
      {"... not for ever", &image_settings, "nbd-settle=601", TARN_INVALID, SET_NBD_SETTLE, 0, "0 to 600"},
      {"on", &mirror_settings, "auto=on", TARN_OK, SET_AUTO, 1, ""},
      {"off", &mirror_settings, "auto=off", TARN_OK, SET_AUTO, 0, ""},
      {"neither", &mirror_settings, "auto=yes", TARN_INVALID, SET_AUTO, 0, "off, on"},
      {"switched off", &mirror_settings, "max-missing=-1", TARN_OK, SET_MAX_MISSING, -1, ""},
      {"below", &mirror_settings, "max-missing=-2", TARN_INVALID, SET_MAX_MISSING, 0, "-1"},
      {"the least", &mirror_settings, "region=64K", TARN_OK, SET_REGION, 65536, ""},
      {"the most", &mirror_settings, "region=256M", TARN_OK, SET_REGION, 256 << 20, ""},
      {"in bytes", &mirror_settings, "region=1048576", TARN_OK, SET_REGION, 1 << 20, ""},
      {"too little", &mirror_settings, "region=32K", TARN_INVALID, SET_REGION, 0, "64K to 256M"},
      {"too much", &mirror_settings, "region=512M", TARN_INVALID, SET_REGION, 0, "64K to 256M"},
      {"no power of two", &mirror_settings, "region=3M", TARN_INVALID, SET_REGION, 0, "power of two"},
      {"a count takes no unit", &mirror_settings, "marks=4K", TARN_INVALID, SET_MARKS, 0, "16"},
      {"nothing behind it", &mirror_settings, "marks=", TARN_INVALID, SET_MARKS, 0, "16"},
      {"no equals sign", &mirror_settings, "marks", TARN_INVALID, 0, 0, "KEY=VALUE"},
      {"unknown, with the nearest", &mirror_settings, "regoin=4M", TARN_NOT_FOUND, 0, 0, "'region'"},
      {"unknown, with none near", &mirror_settings, "zzzzzzzz=1", TARN_NOT_FOUND, 0, 0, "zzzzzzzz"},
      {"no key", &mirror_settings, "=1", TARN_NOT_FOUND, 0, 0, "setting"},
      {"the longest wait", &mirror_settings, "suspend=86400", TARN_OK, SET_SUSPEND, 86400, ""},
      {"no wait", &mirror_settings, "suspend=0", TARN_OK, SET_SUSPEND, 0, ""},
      {"longer than a day", &mirror_settings, "suspend=86401", TARN_INVALID, 0, 0, "0 to 86400"},
      {"a word", &mirror_settings, "read=master", TARN_OK, SET_READ, 1, ""},
      {"a word that comes later", &mirror_settings, "read=assigned", TARN_INVALID, 0, 0, "nearest, master"},
      {"an image's setting is none of a mirror", &mirror_settings, "hang=5", TARN_NOT_FOUND, 0, 0, "hang"},
      {"the shortest hang", &image_settings, "hang=1", TARN_OK, SET_HANG, 1, ""},
      {"never a hang", &image_settings, "hang=0", TARN_INVALID, 0, 0, "1 to 600"},
      {"by hand", &image_settings, "return=manual", TARN_OK, SET_RETURN, 0, ""},
      {"at once", &image_settings, "return-after=0", TARN_OK, SET_RETURN_AFTER, 0, ""},
      {"no limit", &image_settings, "rate=0", TARN_OK, SET_RATE, 0, ""},
      {"with a unit", &image_settings, "rate=10M", TARN_OK, SET_RATE, 10 << 20, ""},
      {"below zero", &image_settings, "rate=-1", TARN_INVALID, 0, 0, "0 or more"},
      {"a mirror's setting is none of an image", &image_settings, "suspend=5", TARN_NOT_FOUND, 0, 0, "suspend"},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    int64_t values[MIRROR_SETTING_COUNT + IMAGE_SETTING_COUNT];
    struct why why = {""};
    unsigned index = 99;
    settings_defaults(rows[i].table, values);
    row_true(rows[i].why, setting_assign(rows[i].table, values, rows[i].text, &index, &why) == rows[i].err);
    row_true(rows[i].why, rows[i].err != TARN_OK || (index == rows[i].index && values[index] == rows[i].value));
    if (!strstr(why.text, rows[i].says))
      fail_msg("row \"%s\": '%s' does not say '%s'", rows[i].why, why.text, rows[i].says);
  }
}

static void odd_sizes_are_shown_exactly(void **state) {
  (void)state;
  char text[SETTING_TEXT];
  assert_string_equal(setting_text(&image_settings.rows[SET_RATE], 1500000, text), "1500000");
  assert_string_equal(setting_text(&image_settings.rows[SET_RATE], 3 << 20, text), "3M");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(tables_are_sound), cmocka_unit_test(odd_sizes_are_shown_exactly),
                                     cmocka_unit_test(assignments)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
