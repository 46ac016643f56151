/* What lies at the end of a disk, and beside it, is anybody's: a guest, an earlier mirror, another system. Properties: what tail_find()
 * believes is sound and ends where it was found; tail_unlabel() zeroes whole locators that were sound, leaves none, and changes no
 * other byte; examine() says of whatever it is either what record it found, or why not, and that can be shown.
 *
 * The input: a byte of switches, then what is put into the file, in pieces: where (a byte: which of the places that count), how many
 * bytes (two), and those. A locator, and a record, get the CRC that fits, because no fuzzer guesses one. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "format/record.h"
#include "fuzz.h"
#include "shell/examine.h"
#include "shell/tail.h"

#define DEVICE_BYTES  (4 * (uint64_t)LOCATOR_ALIGN)
#define LOCATOR_CRC   12
#define SEAL_LOCATORS 1
#define IS_ODD        2 /* the device does not end at a multiple of LOCATOR_ALIGN */

static const uint64_t places[] = {
    3 * (uint64_t)LOCATOR_ALIGN,                          /* copy 0 of a locator */
    3 * (uint64_t)LOCATOR_ALIGN + LOCATOR_AREA_BYTES / 2, /* copy 1 */
    2 * (uint64_t)LOCATOR_ALIGN,                          /* the metadata that it should name */
    LOCATOR_ALIGN,                                        /* and what it might */
    2 * (uint64_t)LOCATOR_ALIGN + LOCATOR_AREA_BYTES / 2, /* copy 1 of a smaller device */
    0,                                                    /* a file that is metadata */
    DEVICE_BYTES - 4096,                                  /* a backup GPT */
    DEVICE_BYTES - 65536,                                 /* an array's */
};

static char path[40]; /* of memory */
static uint8_t before[DEVICE_BYTES], after[DEVICE_BYTES];

static void seal(uint8_t *block) {
  struct writer writer;
  memset(block + LOCATOR_CRC, 0, sizeof(uint32_t));
  uint32_t crc = crc32c(block, LOCATOR_BYTES);
  writer_init(&writer, block + LOCATOR_CRC, sizeof crc);
  put_le32(&writer, crc);
}

/* Fills `before`. */
static void device_make(const uint8_t *data, size_t bytes, uint8_t switches) {
  memset(before, 0, sizeof before);
  while (bytes >= 3) {
    uint64_t place = places[data[0] % COUNT_OF(places)];
    size_t count = min_u64((size_t)data[1] + 256u * data[2], bytes - 3);
    count = min_u64(count, DEVICE_BYTES - place);
    memcpy(before + place, data + 3, count);
    data += 3 + count;
    bytes -= 3 + count;
  }
  for (size_t i = 0; switches & SEAL_LOCATORS && i < 2; i++)
    if (memcmp(before + places[i], "TARNTAIL", 8) == 0) seal(before + places[i]);
}

static void device_store(int fd, uint64_t bytes) {
  require(ftruncate(fd, 0) == 0 && ftruncate(fd, (off_t)bytes) == 0);
  for (size_t i = 0; i < COUNT_OF(places); i++) {
    size_t count = (size_t)min_u64(66000, bytes > places[i] ? bytes - places[i] : 0);
    if (count > 0) require(pwrite(fd, before + places[i], count, (off_t)places[i]) == (ssize_t)count);
  }
}

static bool is_locator(const uint8_t *block) {
  struct locator locator;
  return locator_decode(&locator, block) == TARN_OK;
}

static void check_find(int fd, uint64_t bytes) {
  struct locator found;
  if (tail_find(fd, bytes, &found) != TARN_OK) return;
  require(locator_check(&found) == NULL);
  require(locator_is_at(&found, locator_place(bytes, 0)));
  require(found.offset + found.length + LOCATOR_AREA_BYTES <= bytes);
  struct locator again;
  require(tail_find_behind(fd, &found, &again) == TARN_OK && memcmp(&found, &again, sizeof found) == 0);
  require(tail_is_at(path, &found));
}

static void check_examine(void) {
  static struct examined examined;
  struct why why = {.text = ""};
  tarn_err err = examine(path, NULL, &examined, &why);
  require((err == TARN_OK) == examined.has_record);
  require(err == TARN_OK || why.text[0] != 0);
  json_t *json = examined_json(path, &examined, err == TARN_OK ? NULL : why.text);
  require(json != NULL);
  char *text = json_dumps(json, 0);
  require(text != NULL);
  free(text);
  json_decref(json);
}

static void check_unlabel(int fd, uint64_t bytes) {
  struct why why;
  struct locator found;
  require(pread(fd, before, bytes, 0) == (ssize_t)bytes);
  require(tail_unlabel(path, &why) == TARN_OK);
  require(pread(fd, after, bytes, 0) == (ssize_t)bytes);
  require(tail_find(fd, bytes, &found) != TARN_OK);
  for (uint32_t copy = 0; copy < LOCATOR_COPIES; copy++) {
    uint8_t *block = before + locator_place(bytes, copy);
    if (is_locator(block)) memset(block, 0, LOCATOR_BYTES);
  }
  require(memcmp(before, after, bytes) == 0);
}

static void path_remove(void) { (void)unlink(path); }

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  static int fd = -1;
  if (bytes < 1) return -1;
  if (fd < 0) {
    strcpy(path, "/dev/shm/tarn_fuzz_tail.XXXXXX");
    fd = mkstemp(path);
    require(fd >= 0);
    atexit(path_remove);
  }
  uint64_t device_bytes = DEVICE_BYTES - (data[0] & IS_ODD ? 512 : 0);
  device_make(data + 1, bytes - 1, data[0]);
  device_store(fd, device_bytes);
  check_find(fd, device_bytes);
  check_examine();
  check_unlabel(fd, device_bytes);
  return 0;
}
