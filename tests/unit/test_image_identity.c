/* src/shell/image_identity.h: what is kept of devices, against what is found. */
#include "shell/image_identity.h"

#include "unit.h"

/* [{"path": "/dev/x", "facts": [...]}] of "fact fact", or NULL. */
static json_t *devices(const char *text) {
  json_t *json = text ? json_loads(text, 0, NULL) : NULL;
  assert_true(!text || json);
  return json;
}

#define ONE(facts) "[{\"path\":\"/dev/x\",\"facts\":[" facts "]}]"

static void compare_and_adopt(void **state) {
  (void)state;
  static const struct {
    const char *why, *kept, *now;
    enum device_sameness sameness;
    const char *adopted; /* NULL: as before */
  } rows[] = {
      {"nothing kept: it is what is there", NULL, ONE("\"wwid 1\""), DEVICE_SAME, ONE("\"wwid 1\"")},
      {"files only", NULL, NULL, DEVICE_SAME, NULL},
      {"the same", ONE("\"wwid 1\""), ONE("\"wwid 1\""), DEVICE_SAME, NULL},
      {"a fact that is learned goes behind the others, so that the number stays", ONE("\"serial 1\""),
       ONE("\"wwid 7\",\"serial 1\""), DEVICE_SAME, ONE("\"serial 1\",\"wwid 7\"")},
      {"nothing is known now: what was known stays", ONE("\"wwid 1\""), ONE(""), DEVICE_UNKNOWN, NULL},
      {"another device", ONE("\"wwid 1\""), ONE("\"wwid 2\""), DEVICE_OTHER, ONE("\"wwid 2\"")},
      {"not there", ONE("\"wwid 1\""), NULL, DEVICE_UNKNOWN, NULL},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    json_t *kept = devices(rows[i].kept), *now = devices(rows[i].now);
    row_true(rows[i].why, image_devices_compare(kept, now) == rows[i].sameness);
    row_true(rows[i].why, image_devices_adopt(&kept, now) == (rows[i].adopted != NULL));
    json_t *wanted = devices(rows[i].adopted ? rows[i].adopted : rows[i].kept);
    row_true(rows[i].why, (!kept && !wanted) || json_equal(kept, wanted));
    row_true(rows[i].why, !image_devices_adopt(&kept, now)); /* once */
    json_decref(wanted);
    json_decref(kept);
    json_decref(now);
  }
}

static void numbers(void **state) {
  (void)state;
  json_t *kept = devices(ONE("\"serial 1\"")), *now = devices(ONE("\"wwid 7\",\"serial 1\""));
  json_t *other = devices(ONE("\"serial 2\""));
  uint64_t number = image_device_number(kept, now, "/dev/x", 0);
  assert_true(number != 0);
  assert_true(number == image_device_number(kept, NULL, "/dev/x", 0)); /* nothing says that it is another */
  assert_true(number == image_device_number(NULL, now, "/dev/x", 1));  /* nothing kept: by any fact */
  assert_true(number != image_device_number(NULL, now, "/dev/x", 0));
  assert_true(number != image_device_number(kept, other, "/dev/x", 0));
  assert_true(image_device_number(kept, now, "/dev/y", 0) == 0);
  json_decref(kept);
  json_decref(now);
  json_decref(other);
}

static void validity(void **state) {
  (void)state;
  static const struct {
    const char *why, *text;
    bool valid;
  } rows[] = {
      {"good", ONE("\"wwid 1\""), true},
      {"nothing known", ONE(""), true},
      {"no list", "{}", false},
      {"no path", "[{\"facts\":[]}]", false},
      {"a fact that is no text", ONE("1"), false},
      {"too many", ONE("\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\""), false},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    json_t *json = devices(rows[i].text);
    row_true(rows[i].why, image_devices_are_valid(json) == rows[i].valid);
    json_decref(json);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(compare_and_adopt), cmocka_unit_test(numbers),
                                     cmocka_unit_test(validity)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
