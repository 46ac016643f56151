/* src/shell/tail.h, on a file that stands for a device. */
#include "shell/tail.h"

#include <fcntl.h>
#include <stdlib.h>

#include "unit.h"

#define DEVICE_BYTES (12 * (uint64_t)LOCATOR_ALIGN + 512)
#define DATA_BYTES   (4 * (uint64_t)LOCATOR_ALIGN)

static char path[64];

static int set_up(void **state) {
  (void)state;
  strcpy(path, "/tmp/tarn_tail.XXXXXX");
  int fd = mkstemp(path);
  if (fd < 0 || ftruncate(fd, (off_t)DEVICE_BYTES) != 0) return 1;
  return close(fd);
}
static int tear_down(void **state) {
  (void)state;
  return unlink(path);
}

static void put(uint64_t offset, const char *text, size_t bytes) {
  int fd = open(path, O_RDWR);
  assert_int_equal(pwrite(fd, text, bytes, (off_t)offset), bytes);
  close(fd);
}

static void a_life(void **state) {
  (void)state;
  struct locator tail, found;
  bool ours;
  struct why why;
  struct locator other;
  assert_int_equal(tail_find_at(path, &found), TARN_NOT_FOUND);
  assert_int_equal(tail_plan(path, DEVICE_BYTES, DATA_BYTES, 100, &tail, &why), TARN_OK);
  assert_true(tail.offset == 10 * LOCATOR_ALIGN && tail.length == LOCATOR_ALIGN);
  assert_int_equal(tail_is_empty(path, DEVICE_BYTES, &tail, &ours, &found, &why), TARN_OK);
  assert_int_equal(tail_make(path, &tail, &why), TARN_OK);
  assert_int_equal(tail_find_at(path, &found), TARN_OK);
  assert_memory_equal(&tail, &found, sizeof tail);
  assert_int_equal(tail_is_empty(path, DEVICE_BYTES, &tail, &ours, &found, &why), TARN_EXISTS);
  assert_true(ours);

  put(locator_place(DEVICE_BYTES, 0) + 20, "rot", 3);
  assert_int_equal(tail_find_at(path, &found), TARN_OK); /* the other copy */
  assert_int_equal(truncate(path, (off_t)(2 * DEVICE_BYTES)), 0);
  int fd = open(path, O_RDONLY);
  assert_int_equal(tail_find(fd, 2 * DEVICE_BYTES, &found), TARN_NOT_FOUND); /* it has grown */
  assert_int_equal(tail_find_behind(fd, &tail, &found), TARN_OK);
  close(fd);
  assert_int_equal(truncate(path, (off_t)DEVICE_BYTES), 0);
  put(tail.offset, "metadata", 8);
  other = tail;
  other.uuid[0] ^= 1;
  assert_int_equal(tail_wipe(path, &other, &why), TARN_NOT_FOUND); /* not of that uuid */
  assert_int_equal(tail_find_at(path, &found), TARN_OK);
  assert_true(tail_is_at(path, &tail));
  assert_int_equal(truncate(path, (off_t)(2 * DEVICE_BYTES)), 0);
  assert_int_equal(tail_wipe(path, &tail, &why), TARN_OK); /* it has grown */
  assert_int_equal(tail_wipe(path, &tail, &why), TARN_NOT_FOUND);
  assert_int_equal(truncate(path, (off_t)DEVICE_BYTES), 0);
  assert_int_equal(tail_is_empty(path, DEVICE_BYTES, &tail, &ours, &found, &why), TARN_OK);

  assert_int_equal(tail_make(path, &tail, &why), TARN_OK);
  put(locator_place(DEVICE_BYTES, 0) + 20, "rot", 3);
  put(locator_place(DEVICE_BYTES, 1) + 20, "rot", 3);
  assert_int_equal(tail_find_at(path, &found), TARN_CORRUPT);
}

/* The first byte of the file that is not zero, from `from` on. */
static uint64_t next_byte(uint64_t from) {
  static uint8_t chunk[LOCATOR_ALIGN];
  int fd = open(path, O_RDONLY);
  uint64_t at = from;
  for (ssize_t got, i; at < DEVICE_BYTES; at += (uint64_t)got) {
    got = pread(fd, chunk, sizeof chunk, (off_t)at);
    assert_true(got > 0);
    for (i = 0; i < got && chunk[i] == 0;) i++;
    if (i == got) continue;
    at += (uint64_t)i;
    break;
  }
  close(fd);
  return at;
}

/* A locator that somebody put there is not believed, or given up without touching what it names. */
static void planted(void **state) {
  (void)state;
  static const struct {
    const char *why;
    uint64_t offset, length;
    tarn_err err;
  } rows[] = {
      {"all of the device before it", LOCATOR_ALIGN, 10 * LOCATOR_ALIGN, TARN_OK},
      {"an end before it", LOCATOR_ALIGN, 8 * LOCATOR_ALIGN, TARN_CORRUPT},
      {"an end behind it", LOCATOR_ALIGN, 11 * LOCATOR_ALIGN, TARN_CORRUPT},
  };
  uint64_t place = locator_place(DEVICE_BYTES, 0);
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct locator tail = {.offset = rows[i].offset, .length = rows[i].length}, planned, found;
    static uint8_t block[LOCATOR_BYTES];
    struct why why;
    locator_encode(&tail, block);
    put(place, (const char *)block, sizeof block);
    put(DATA_BYTES - 1, "d", 1);
    row_true(rows[i].why, tail_find_at(path, &found) == rows[i].err);
    assert_int_equal(tail_plan(path, DEVICE_BYTES, DATA_BYTES, 100, &planned, &why), TARN_OK);
    put(planned.offset, "m", 1);
    assert_int_equal(tail_unlabel(path, &why), TARN_OK);
    row_true(rows[i].why, tail_find_at(path, &found) == TARN_NOT_FOUND);
    row_true(rows[i].why, next_byte(DATA_BYTES) == planned.offset);
    assert_int_equal(tail_clear(path, &planned, &why), TARN_OK);
    row_true(rows[i].why, next_byte(DATA_BYTES) == DEVICE_BYTES && next_byte(DATA_BYTES - 1) == DATA_BYTES - 1);
  }
}

static void room(void **state) {
  (void)state;
  static const struct {
    const char *why;
    uint64_t device_bytes, data_bytes, meta_bytes;
    tarn_err err;
  } rows[] = {
      {"just enough", 3 * LOCATOR_ALIGN, LOCATOR_ALIGN, 1, TARN_OK},
      {"a volume that ends a little later", 3 * LOCATOR_ALIGN, LOCATOR_ALIGN + 512, 1, TARN_FULL},
      {"a device that ends a little earlier", 3 * LOCATOR_ALIGN - 512, LOCATOR_ALIGN, 1, TARN_FULL},
      {"metadata that is a little longer", 3 * LOCATOR_ALIGN, LOCATOR_ALIGN, LOCATOR_ALIGN + 1, TARN_FULL},
      {"a volume that is larger than the device", LOCATOR_ALIGN, 9 * LOCATOR_ALIGN, 1, TARN_FULL},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct locator tail;
    struct why why;
    tarn_err err = tail_plan("/dev/x", rows[i].device_bytes, rows[i].data_bytes, rows[i].meta_bytes, &tail, &why);
    row_true(rows[i].why, err == rows[i].err);
    if (err == TARN_OK) row_true(rows[i].why, tail.offset >= rows[i].data_bytes);
  }
}

static void words(void **state) {
  (void)state;
  uint8_t uuid[16] = {0x01, 0xef}, again[16];
  char text[33];
  assert_string_equal(tail_uuid_text(uuid, text), "01ef0000000000000000000000000000");
  assert_true(tail_uuid_parse(text, again));
  assert_memory_equal(uuid, again, sizeof uuid);
  assert_false(tail_uuid_parse("01ef", again));
  assert_false(tail_uuid_parse("01EF0000000000000000000000000000", again));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(a_life, set_up, tear_down), cmocka_unit_test(room),
                                     cmocka_unit_test(words),
                                     cmocka_unit_test_setup_teardown(planted, set_up, tear_down)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
