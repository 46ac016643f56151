/* src/shell/settings.h: the table of settings, and what is typed for them. */
#include "shell/settings.h"
#include "unit.h"

static void table_is_sound(void **state) {
  (void)state;
  struct settings settings;
  settings_defaults(&settings);
  for (unsigned i = 0; i < MIRROR_SETTING_COUNT; i++) {
    const struct setting *setting = &mirror_settings[i];
    char text[SETTING_TEXT];
    unsigned found;
    int64_t value = -99;
    row_true(setting->name, setting->min <= setting->value && setting->value <= setting->max);
    row_true(setting->name, setting->help && setting->help[0]);
    row_true(setting->name, setting_find(setting->name, &found, NULL) == TARN_OK && found == i);
    row_true(setting->name, setting_parse(i, setting_text(i, setting->value, text), &value, NULL) == TARN_OK);
    row_true(setting->name, value == setting->value && settings.values[i] == value);
  }
}

static void assignments(void **state) {
  (void)state;
  static const struct {
    const char *why, *text;
    tarn_err err;
    unsigned index;
    int64_t value;
    const char *says;
  } rows[] = {
      {"on", "auto=on", TARN_OK, SET_AUTO, 1, ""},
      {"off", "auto=off", TARN_OK, SET_AUTO, 0, ""},
      {"neither", "auto=yes", TARN_INVALID, SET_AUTO, 0, "on, off"},
      {"switched off", "max-missing=-1", TARN_OK, SET_MAX_MISSING, -1, ""},
      {"below", "max-missing=-2", TARN_INVALID, SET_MAX_MISSING, 0, "-1"},
      {"the least", "region=64K", TARN_OK, SET_REGION, 65536, ""},
      {"the most", "region=256M", TARN_OK, SET_REGION, 256 << 20, ""},
      {"in bytes", "region=1048576", TARN_OK, SET_REGION, 1 << 20, ""},
      {"too little", "region=32K", TARN_INVALID, SET_REGION, 0, "64K to 256M"},
      {"too much", "region=512M", TARN_INVALID, SET_REGION, 0, "64K to 256M"},
      {"no power of two", "region=3M", TARN_INVALID, SET_REGION, 0, "power of two"},
      {"a count takes no unit", "marks=4K", TARN_INVALID, SET_MARKS, 0, "16"},
      {"nothing behind it", "marks=", TARN_INVALID, SET_MARKS, 0, "16"},
      {"no equals sign", "marks", TARN_INVALID, 0, 0, "KEY=VALUE"},
      {"unknown, with the nearest", "regoin=4M", TARN_NOT_FOUND, 0, 0, "'region'"},
      {"unknown, with none near", "zzzzzzzz=1", TARN_NOT_FOUND, 0, 0, "zzzzzzzz"},
      {"no key", "=1", TARN_NOT_FOUND, 0, 0, "setting"},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct settings settings;
    struct why why = {""};
    unsigned index = 99;
    settings_defaults(&settings);
    row_true(rows[i].why, setting_assign(&settings, rows[i].text, &index, &why) == rows[i].err);
    row_true(rows[i].why,
             rows[i].err != TARN_OK || (index == rows[i].index && settings.values[index] == rows[i].value));
    if (!strstr(why.text, rows[i].says))
      fail_msg("row \"%s\": '%s' does not say '%s'", rows[i].why, why.text, rows[i].says);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(table_is_sound), cmocka_unit_test(assignments)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
