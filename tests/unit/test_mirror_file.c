/* src/shell/mirror_file.h: config.json, there and back. */
#include <errno.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include "shell/mirror_file.h"

#include "unit.h"

static const char good[] =
    "{\"version\":1,\"name\":\"vol0\",\"volumes\":[{\"name\":\"0\",\"size\":1048576}],"
    "\"images\":[{\"slot\":0,\"name\":\"a\",\"paths\":[\"/a\"],\"meta\":\"/"
    "a.tarn\"},{\"slot\":2,\"name\":\"c\",\"paths\":[\"/c\"],\"meta\":\"/c.tarn\","
    "\"settings\":{\"hang\":3},\"adding\":[\"/c\",\"tail:000102030405060708090a0b0c0d0e0f:8388608+1048576:/dev/c\"],"
    "\"tail\":{\"uuid\":\"000102030405060708090a0b0c0d0e0f\",\"offset\":8388608,\"length\":1048576},"
    "\"devices\":[{\"path\":\"/dev/c\",\"facts\":[\"wwid 1\"]}]},"
    "{\"slot\":3,\"name\":\"d\",\"unknown\":true}],"
    "\"settings\":{\"auto\":0},\"stay_inactive\":true,\"unmake\":[\"/a.tarn\"],"
    "\"differs\":{\"bytes\":4096,\"found_ns\":7}}";

static void there_and_back(void **state) {
  (void)state;
  static struct mirror_file file, again, copy;
  json_t *json = json_loads(good, 0, NULL);
  assert_int_equal(mirror_file_from_json(json, &file, NULL), TARN_OK);
  json_decref(json);
  assert_string_equal(file.name, "vol0");
  assert_int_equal(file.slot_count, 4);
  assert_false(file.images[1].present);
  assert_true(file.images[2].present && !file.images[2].unknown);
  assert_true(file.images[3].present && file.images[3].unknown);
  assert_int_equal(file.settings.values[SET_AUTO], 0);
  assert_int_equal(file.settings.values[SET_MARKS], mirror_settings.rows[SET_MARKS].value);
  assert_true(file.stay_inactive);
  assert_true(file.differs.bytes == 4096 && file.differs.found_ns == 7);
  assert_int_equal(file.images[2].settings.values[SET_HANG], 3);
  assert_int_equal(file.images[2].settings.values[SET_RETURN], 1);
  assert_int_equal(file.images[0].settings.values[SET_HANG], 10);
  assert_null(file.images[0].adding);
  mirror_file_copy(&copy, &file);
  json = mirror_file_to_json(&copy);
  assert_int_equal(mirror_file_from_json(json, &again, NULL), TARN_OK);
  assert_true(json_equal(file.unmake, again.unmake));
  assert_true(again.images[3].unknown && strcmp(again.images[3].name, "d") == 0);
  assert_memory_equal(&file.differs, &again.differs, sizeof file.differs);
  assert_true(json_equal(file.images[2].adding, again.images[2].adding));
  assert_true(json_equal(file.images[2].devices, again.images[2].devices));
  assert_true(file.images[2].tail.length == 1048576 && file.images[2].tail.uuid[15] == 15);
  assert_int_equal(json_integer_value(json_object_get(json, "version")), 2); /* it has a tail */
  assert_true(copy.unmake != file.unmake && copy.images[2].adding != file.images[2].adding);
  json_decref(json);
  mirror_file_release(&file);
  mirror_file_release(&copy);
  mirror_file_release(&again);
  assert_memory_equal(&file, &again, sizeof file);
}

static void damage(void **state) {
  (void)state;
  static const struct {
    const char *why, *key, *value;
    tarn_err err;
  } rows[] = {
      {"a newer version", "version", "3", TARN_VERSION},
      {"no version", "version", "null", TARN_CORRUPT},
      {"a name that climbs", "name", "\"..\"", TARN_CORRUPT},
      {"no volume", "volumes", "[]", TARN_CORRUPT},
      {"a size that is no multiple of 512", "volumes", "[{\"name\":\"0\",\"size\":100}]", TARN_CORRUPT},
      {"a negative size", "volumes", "[{\"name\":\"0\",\"size\":-512}]", TARN_CORRUPT},
      {"no image", "images", "[]", TARN_CORRUPT},
      {"a slot twice", "images",
       "[{\"slot\":0,\"name\":\"a\",\"paths\":[\"/a\"],\"meta\":\"/m\"},{\"slot\":0,\"name\":\"b\",\"paths\":[\"/"
       "b\"],\"meta\":\"/n\"}]",
       TARN_CORRUPT},
      {"a slot beyond", "images", "[{\"slot\":16,\"name\":\"a\",\"paths\":[\"/a\"],\"meta\":\"/m\"}]", TARN_CORRUPT},
      {"fewer paths than volumes", "images", "[{\"slot\":0,\"name\":\"a\",\"paths\":[],\"meta\":\"/m\"}]",
       TARN_CORRUPT},
      {"a relative path", "images", "[{\"slot\":0,\"name\":\"a\",\"paths\":[\"a\"],\"meta\":\"/m\"}]", TARN_CORRUPT},
      {"a relative part", "images", "[{\"slot\":0,\"name\":\"a\",\"paths\":[\"concat:/a;./b\"],\"meta\":\"/m\"}]",
       TARN_CORRUPT},
      {"a part of nothing", "images", "[{\"slot\":0,\"name\":\"a\",\"paths\":[\"concat:/a@0+0\"],\"meta\":\"/m\"}]",
       TARN_CORRUPT},
      {"an NBD address without a host", "images",
       "[{\"slot\":0,\"name\":\"a\",\"paths\":[\"nbd:///x\"],\"meta\":\"/m\"}]", TARN_CORRUPT},
      {"an image's setting out of range", "images",
       "[{\"slot\":0,\"name\":\"a\",\"paths\":[\"/a\"],\"meta\":\"/m\",\"settings\":{\"hang\":0}}]", TARN_CORRUPT},
      {"a list of what was made that is none", "images",
       "[{\"slot\":0,\"name\":\"a\",\"paths\":[\"/a\"],\"meta\":\"/m\",\"adding\":\"/a\"}]", TARN_CORRUPT},
      {"a tail over the volume", "images",
       "[{\"slot\":0,\"name\":\"a\",\"paths\":[\"/a\"],\"meta\":\"/a\",\"tail\":{\"uuid\":"
       "\"000102030405060708090a0b0c0d0e0f\",\"offset\":0,\"length\":1048576}}]",
       TARN_CORRUPT},
      {"a tail without its uuid", "images",
       "[{\"slot\":0,\"name\":\"a\",\"paths\":[\"/a\"],\"meta\":\"/a\",\"tail\":{\"uuid\":\"0g\",\"offset\":1048576,"
       "\"length\":1048576}}]",
       TARN_CORRUPT},
      {"an unknown image with a path", "images",
       "[{\"slot\":0,\"name\":\"a\",\"unknown\":true,\"paths\":[\"/a\"],\"meta\":\"/m\"}]", TARN_CORRUPT},
      {"a device without facts", "images",
       "[{\"slot\":0,\"name\":\"a\",\"paths\":[\"/a\"],\"meta\":\"/a\",\"devices\":[{\"path\":\"/a\"}]}]",
       TARN_CORRUPT},
      {"two images of one name", "images",
       "[{\"slot\":0,\"name\":\"a\",\"paths\":[\"/a\"],\"meta\":\"/m\"},{\"slot\":1,\"name\":\"a\",\"paths\":[\"/"
       "b\"],\"meta\":\"/n\"}]",
       TARN_CORRUPT},
      {"two volumes of one name", "volumes", "[{\"name\":\"0\",\"size\":512},{\"name\":\"0\",\"size\":512}]",
       TARN_CORRUPT},
      {"extents larger than regions", "settings", "{\"region\":65536,\"extent\":131072}", TARN_CORRUPT},
      {"a setting out of range", "settings", "{\"marks\":1}", TARN_CORRUPT},
      {"differences that are no object", "differs", "4096", TARN_CORRUPT},
      {"differences of no bytes", "differs", "{\"bytes\":0,\"found_ns\":0}", TARN_CORRUPT},
      {"differences of before time", "differs", "{\"bytes\":1,\"found_ns\":-1}", TARN_CORRUPT},
      {"a list of files that is none", "unmake", "{}", TARN_CORRUPT},
      {"a relative file to remove", "unmake", "[\"a\"]", TARN_CORRUPT},
      {"a tail to remove without its uuid", "unmake", "[\"tail:/dev/a\"]", TARN_CORRUPT},
      {"a tail to remove without its place", "unmake", "[\"tail:000102030405060708090a0b0c0d0e0f:/dev/a\"]",
       TARN_CORRUPT},
      {"a tail to remove that cannot be", "unmake", "[\"tail:000102030405060708090a0b0c0d0e0f:0+1048576:/dev/a\"]",
       TARN_CORRUPT},
  };
  static struct mirror_file file;
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct why why = {""};
    json_t *json = json_loads(good, 0, NULL);
    json_object_set_new(json, rows[i].key, json_loads(rows[i].value, JSON_DECODE_ANY, NULL));
    row_true(rows[i].why, mirror_file_from_json(json, &file, &why) == rows[i].err);
    row_true(rows[i].why, strstr(why.text, rows[i].err == TARN_VERSION ? "newer" : rows[i].key));
    row_true(rows[i].why, file.unmake == NULL && file.images[0].adding == NULL);
    json_decref(json);
  }
}

/* Disks of every kind are kept as they were written. */
static void kinds(void **state) {
  (void)state;
  static const char *const disks[] = {"/a", "concat:/a@4K+1M;/b%3B", "nbd://host:10810/x", "nbd+unix:///x?socket=/s"};
  static struct mirror_file file, again;
  for (size_t i = 0; i < COUNT_OF(disks); i++) {
    json_t *json = json_loads(good, 0, NULL), *image = json_array_get(json_object_get(json, "images"), 0);
    json_object_set_new(image, "paths", json_pack("[s]", disks[i]));
    json_object_set_new(image, "settings", json_pack("{s:i}", "nbd-settle", 7));
    row_true(disks[i], mirror_file_from_json(json, &file, NULL) == TARN_OK);
    json_decref(json);
    json = mirror_file_to_json(&file);
    row_true(disks[i], mirror_file_from_json(json, &again, NULL) == TARN_OK);
    json_decref(json);
    row_true(disks[i], strcmp(again.images[0].paths[0], disks[i]) == 0);
    row_true(disks[i], again.images[0].settings.values[SET_NBD_SETTLE] == 7);
    mirror_file_release(&file);
    mirror_file_release(&again);
  }
}

static void stored(void **state) {
  (void)state;
  static struct mirror_file file, again;
  char folder[] = "/tmp/tarn-test-XXXXXX", path[64];
  assert_non_null(mkdtemp(folder));
  assert_int_equal(mirror_file_load(folder, &file, NULL), TARN_NOT_FOUND);
  json_t *json = json_loads(good, 0, NULL);
  assert_int_equal(mirror_file_from_json(json, &file, NULL), TARN_OK);
  json_decref(json);
  assert_int_equal(mirror_file_store(folder, &file, NULL), TARN_OK);
  assert_int_equal(mirror_file_load(folder, &again, NULL), TARN_OK);
  assert_string_equal(again.images[2].paths[0], "/c");
  snprintf(path, sizeof path, "%s/config.json.new", folder);
  assert_int_not_equal(access(path, F_OK), 0); /* nothing temporary stays */
  snprintf(path, sizeof path, "%s/config.json", folder);
  assert_int_equal(truncate(path, 20), 0);
  mirror_file_release(&again);
  assert_int_equal(mirror_file_load(folder, &again, NULL), TARN_CORRUPT);
  mirror_file_release(&file);
  unlink(path);
  rmdir(folder);
}

/* Where it may be read through a link it may be written, too: then it is a file of its own. */
static void stored_in_place_of_a_link(void **state) {
  (void)state;
  static struct mirror_file file, again;
  char folder[] = "/tmp/tarn-test-XXXXXX", path[64], target[64];
  struct stat info;
  assert_non_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/config.json", folder);
  snprintf(target, sizeof target, "%s/elsewhere.json", folder);
  json_t *json = json_loads(good, 0, NULL);
  assert_int_equal(mirror_file_from_json(json, &file, NULL), TARN_OK);
  json_decref(json);
  assert_int_equal(mirror_file_store(folder, &file, NULL), TARN_OK);
  assert_int_equal(rename(path, target), 0);
  assert_int_equal(symlink("elsewhere.json", path), 0);
  assert_int_equal(mirror_file_load(folder, &again, NULL), TARN_OK);
  assert_int_equal(mirror_file_store(folder, &again, NULL), TARN_OK);
  assert_int_equal(lstat(path, &info), 0);
  assert_true(S_ISREG(info.st_mode));
  mirror_file_release(&again);
  mirror_file_release(&file);
  unlink(path);
  unlink(target);
  assert_int_equal(rmdir(folder), 0);
}

/* A file system on which no folder can be synced. */
static bool folders_fail;
int fsync(int fd) {
  struct stat info;
  if (!folders_fail || fstat(fd, &info) != 0 || !S_ISDIR(info.st_mode)) return (int)syscall(SYS_fsync, fd);
  errno = EIO;
  return -1;
}

static void what_cannot_be_synced_is_not_there(void **state) {
  (void)state;
  static struct mirror_file file, again;
  char folder[] = "/tmp/tarn-test-XXXXXX", path[64];
  struct why why;
  assert_non_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/config.json", folder);
  json_t *json = json_loads(good, 0, NULL);
  assert_int_equal(mirror_file_from_json(json, &file, NULL), TARN_OK);
  json_decref(json);
  folders_fail = true;
  assert_int_equal(mirror_file_store(folder, &file, NULL), TARN_IO);
  assert_int_not_equal(access(path, F_OK), 0); /* a mirror that was not created */
  folders_fail = false;
  file.settings.values[SET_AUTO] = 0;
  assert_int_equal(mirror_file_store(folder, &file, NULL), TARN_OK);
  folders_fail = true;
  file.settings.values[SET_AUTO] = 1; /* a setting that was refused */
  assert_int_equal(mirror_file_store(folder, &file, &why), TARN_IO);
  folders_fail = false;
  assert_non_null(strstr(why.text, "cannot be synced"));
  assert_int_equal(mirror_file_load(folder, &again, NULL), TARN_OK);
  assert_int_equal(again.settings.values[SET_AUTO], 0);
  mirror_file_release(&again);
  mirror_file_release(&file);
  unlink(path);
  assert_int_equal(rmdir(folder), 0); /* nothing temporary stays */
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(there_and_back),
                                     cmocka_unit_test(damage),
                                     cmocka_unit_test(kinds),
                                     cmocka_unit_test(stored),
                                     cmocka_unit_test(stored_in_place_of_a_link),
                                     cmocka_unit_test(what_cannot_be_synced_is_not_there)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
