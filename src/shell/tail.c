/* tail.c - see tail.h. */
#include "shell/tail.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "shell/blank.h"
#include "shell/file_identity.h"
#include "shell/reactor.h"
#include "shell/trusted.h"

#define CHUNK_BYTES        (1u << 20)
#define LOCATOR_COPY_BYTES (LOCATOR_AREA_BYTES / LOCATOR_COPIES)

/* ---- reading ---- */

/* Room for direct I/O of `bytes`; free() it. */
static uint8_t *room_new(size_t bytes) { return aligned_alloc(LOCATOR_BYTES, bytes); }

/* The first sound one of the copies that begin at `place`. */
static tarn_err copies_read(int fd, uint64_t place, struct locator *locator) {
  tarn_err err = TARN_NOT_FOUND;
  uint8_t *block = room_new(LOCATOR_BYTES);
  if (!block) return TARN_IO;
  for (uint32_t copy = 0; copy < LOCATOR_COPIES; copy++) {
    tarn_err one = TARN_IO;
    if (pread(fd, block, LOCATOR_BYTES, (off_t)(place + copy * LOCATOR_COPY_BYTES)) == (ssize_t)LOCATOR_BYTES)
      one = locator_decode(locator, block);
    if (one == TARN_OK && !locator_is_at(locator, place)) one = TARN_CORRUPT;
    if (copy == 0 || one == TARN_OK || err == TARN_NOT_FOUND) err = one;
    if (err == TARN_OK) break;
  }
  free(block);
  return err;
}

tarn_err tail_find(int fd, uint64_t device_bytes, struct locator *locator) {
  if (device_bytes < 2 * LOCATOR_ALIGN) return TARN_NOT_FOUND;
  return copies_read(fd, locator_place(device_bytes, 0), locator);
}

tarn_err tail_find_behind(int fd, const struct locator *known, struct locator *locator) {
  return copies_read(fd, known->offset + known->length, locator);
}

tarn_err tail_find_at(const char *path, struct locator *locator) {
  struct file_identity identity;
  int fd;
  tarn_err err = trusted_open(path, O_RDONLY, TRUSTED_DATA, &fd, NULL);
  if (err != TARN_OK) return err;
  err = file_identify(fd, path, &identity, NULL);
  if (err == TARN_OK) err = tail_find(fd, identity.size_bytes, locator);
  close(fd);
  return err;
}

/* ---- what others keep there ---- */

/* At the end of a device of `size` bytes. */
static bool bytes_are(int fd, uint64_t size, uint64_t back, uint64_t align, const void *sign, size_t bytes) {
  uint8_t found[32];
  uint64_t end = align_down(size, align);
  require(bytes <= sizeof found);
  return end >= back && pread(fd, found, bytes, (off_t)(end - back)) == (ssize_t)bytes &&
         memcmp(found, sign, bytes) == 0;
}

/* Which of the known ones it is; NULL: none. */
static const char *what_is_there(int fd, uint64_t size) {
  static const struct {
    const char *what;
    uint64_t back, align; /* so far before the size rounded down */
    const char *sign;
    size_t bytes;
  } rows[] = {
      {"a backup partition table (GPT)", 512, 512, "EFI PART", 8},
      {"a backup partition table (GPT)", 4096, 4096, "EFI PART", 8},
      {"the superblock of an md array (metadata 1.0)", 8192, 4096, "\xfc\x4e\x2b\xa9", 4},
      {"the superblock of an md array (metadata 0.90)", 65536, 65536, "\xfc\x4e\x2b\xa9", 4},
      {"the superblock of an md array (metadata 0.90)", 65536, 65536, "\xa9\x2b\x4e\xfc", 4},
      {"metadata of an Intel RAID", 1024, 512, "Intel Raid ISM Cfg Sig.", 23},
      {"metadata of a hardware RAID (DDF)", 512, 512, "\xde\x11\xde\x11", 4},
      {"a label of ZFS", 262144 - 131072, 262144, "\x0c\xb1\xba\0\0\0\0\0", 8},
      {"a label of ZFS", 262144 - 131072, 262144, "\0\0\0\0\0\xba\xb1\x0c", 8},
      {"metadata of LVM", 1048576 - 4, 1048576, " LVM2 x[5A%r0N*>", 16},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++)
    if (bytes_are(fd, size, rows[i].back, rows[i].align, rows[i].sign, rows[i].bytes)) return rows[i].what;
  return NULL;
}

/* ---- planning ---- */

tarn_err tail_plan(const char *path, uint64_t device_bytes, uint64_t data_bytes, uint64_t meta_bytes,
                   struct locator *locator, struct why *why) {
  uint64_t length = align_up(meta_bytes, LOCATOR_ALIGN), from = align_up(data_bytes, LOCATOR_ALIGN);
  uint64_t end = align_down(device_bytes, LOCATOR_ALIGN);
  *locator = (struct locator){.length = length};
  if (length > LOCATOR_LENGTH_MAX)
    return because(why, TARN_FULL, "its metadata is too long for a tail: %llu bytes", (unsigned long long)length);
  if (end < from || end - from < length + LOCATOR_AREA_BYTES)
    return because(
        why, TARN_FULL,
        "%s has no room for metadata in its tail: it has %llu bytes, and needs %llu behind its volume's %llu", path,
        (unsigned long long)device_bytes, (unsigned long long)(length + 2 * LOCATOR_AREA_BYTES),
        (unsigned long long)data_bytes);
  locator->offset = end - LOCATOR_AREA_BYTES - length;
  if (getrandom(locator->uuid, sizeof locator->uuid, 0) != (ssize_t)sizeof locator->uuid)
    return because(why, TARN_IO, "the kernel gives no random bytes");
  require(locator_check(locator) == NULL);
  return TARN_OK;
}

tarn_err tail_is_empty(const char *path, uint64_t device_bytes, const struct locator *locator, bool *ours,
                       struct locator *found, struct why *why) {
  uint64_t at;
  *ours = false;
  int fd;
  tarn_err err = trusted_open(path, O_RDONLY, TRUSTED_DATA, &fd, why);
  if (err != TARN_OK) return err;
  err = blank_look(fd, locator->offset, device_bytes, &at);
  const char *what = err == TARN_OK && at < device_bytes ? what_is_there(fd, device_bytes) : NULL;
  if (err == TARN_OK && at < device_bytes && !what) *ours = tail_find(fd, device_bytes, found) == TARN_OK;
  close(fd);
  if (err != TARN_OK) return because(why, TARN_IO, "the tail of %s cannot be read", path);
  if (at == device_bytes) return TARN_OK;
  if (what) return because(why, TARN_EXISTS, "the tail of %s holds %s", path, what);
  if (*ours) return because(why, TARN_EXISTS, "the tail of %s holds metadata of Tarn", path);
  return because(why, TARN_EXISTS, "the tail of %s is not empty: there is something at byte %llu", path,
                 (unsigned long long)at);
}

/* ---- writing ---- */

static tarn_err open_alone(const char *path, int *fd, uint64_t *bytes, struct why *why) {
  struct file_identity identity;
  tarn_err err = trusted_open(path, O_RDWR | O_EXCL, TRUSTED_DATA, fd, why);
  if (err != TARN_OK) return err;
  err = file_identify(*fd, path, &identity, why);
  *bytes = identity.size_bytes;
  if (err != TARN_OK) close(*fd);
  return err;
}

static bool write_at(int fd, const uint8_t *data, size_t bytes, uint64_t offset) {
  return pwrite(fd, data, bytes, (off_t)offset) == (ssize_t)bytes;
}

tarn_err tail_make(const char *path, const struct locator *locator, struct why *why) {
  uint8_t block[LOCATOR_BYTES];
  uint64_t device_bytes;
  int fd;
  tarn_err err = open_alone(path, &fd, &device_bytes, why);
  if (err != TARN_OK) return err;
  locator_encode(locator, block);
  uint64_t place = locator->offset + locator->length;
  bool good = place <= locator_place(device_bytes, 0);
  for (uint32_t copy = 0; copy < LOCATOR_COPIES && good; copy++)
    good = write_at(fd, block, sizeof block, place + copy * LOCATOR_COPY_BYTES);
  good = good && fsync(fd) == 0;
  int error = errno;
  close(fd);
  return good ? TARN_OK : because(why, TARN_IO, "the tail of %s cannot be written: %s", path, strerror(error));
}

/* In pieces, so that no single call of the kernel takes long. */
static bool zero_range(int fd, uint64_t offset, uint64_t bytes) {
  static const uint8_t zeroes[CHUNK_BYTES];
  bool good = true;
  for (uint64_t done = 0; done < bytes && good; done += CHUNK_BYTES) {
    uint64_t range[2] = {offset + done, min_u64(CHUNK_BYTES, bytes - done)};
    good = ioctl(fd, BLKZEROOUT, range) == 0 || write_at(fd, zeroes, (size_t)range[1], range[0]);
    reactor_work_step();
  }
  return good;
}

/* Closes it. */
static tarn_err zeroed(int fd, bool good, const char *path, struct why *why) {
  good = good && fsync(fd) == 0;
  int error = errno;
  close(fd);
  return good ? TARN_OK
              : because(why, TARN_IO, "the tail of %s cannot be zeroed, do it by hand: %s", path, strerror(error));
}

tarn_err tail_unlabel(const char *path, struct why *why) {
  struct locator found;
  uint64_t device_bytes;
  uint8_t block[LOCATOR_BYTES];
  int fd;
  tarn_err err = open_alone(path, &fd, &device_bytes, why);
  if (err != TARN_OK) return err;
  bool good = true;
  for (uint32_t copy = 0; copy < LOCATOR_COPIES && good && device_bytes >= 2 * LOCATOR_ALIGN; copy++) {
    uint64_t place = locator_place(device_bytes, copy);
    good = pread(fd, block, sizeof block, (off_t)place) == (ssize_t)sizeof block;
    if (good && locator_decode(&found, block) == TARN_OK) good = zero_range(fd, place, LOCATOR_BYTES);
  }
  return zeroed(fd, good, path, why);
}

tarn_err tail_clear(const char *path, const struct locator *planned, struct why *why) {
  uint64_t device_bytes;
  int fd;
  tarn_err err = open_alone(path, &fd, &device_bytes, why);
  if (err != TARN_OK) return err;
  return zeroed(fd, zero_range(fd, planned->offset, planned->length + LOCATOR_AREA_BYTES), path, why);
}

bool tail_is_at(const char *path, const struct locator *known) {
  struct locator found;
  int fd;
  if (trusted_open(path, O_RDONLY, TRUSTED_DATA, &fd, NULL) != TARN_OK) return false;
  tarn_err err = tail_find_behind(fd, known, &found);
  close(fd);
  return err == TARN_OK && memcmp(&found, known, sizeof found) == 0;
}

tarn_err tail_wipe(const char *path, const struct locator *known, struct why *why) {
  uint64_t device_bytes;
  int fd;
  if (!tail_is_at(path, known)) return because(why, TARN_NOT_FOUND, "that tail is not on %s", path);
  tarn_err err = open_alone(path, &fd, &device_bytes, why);
  if (err != TARN_OK) return err;
  bool good = zero_range(fd, known->offset, known->length) && fsync(fd) == 0;
  good = good && zero_range(fd, known->offset + known->length, LOCATOR_AREA_BYTES);
  return zeroed(fd, good, path, why);
}

/* ---- words ---- */

const char *tail_uuid_text(const uint8_t uuid[16], char out[33]) {
  for (uint32_t i = 0; i < 16; i++) (void)snprintf(out + 2 * i, 3, "%02x", uuid[i]);
  return out;
}

static int digit(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

bool tail_uuid_parse(const char *text, uint8_t uuid[16]) {
  for (uint32_t i = 0; i < 16; i++) {
    int high = digit(text[2 * i]), low = high < 0 ? -1 : digit(text[2 * i + 1]);
    if (low < 0) return false;
    uuid[i] = (uint8_t)(16 * high + low);
  }
  return true;
}
