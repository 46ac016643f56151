#include "shell/blank.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/require.h"
#include "format/record.h"
#include "shell/reactor.h"

#define CHUNK_BYTES  (1u << 20)
#define ALIGN_BYTES  4096u
#define SECTOR_BYTES 512u

static bool is_zero(const uint8_t *bytes, size_t count) {
  return bytes[0] == 0 && memcmp(bytes, bytes + 1, count - 1) == 0;
}

static bool is_left_over(const uint8_t *sector) { return !memcmp(sector, "TLOG", 4) || !memcmp(sector, "TMAP", 4); }

/* The first byte that counts; `count`: none. */
static size_t first_of(const uint8_t *bytes, size_t count, bool for_meta) {
  if (is_zero(bytes, count)) return count;
  for (size_t i = 0; i < count; i++) {
    bool skips = for_meta && i % SECTOR_BYTES == 0 && count - i >= SECTOR_BYTES && is_left_over(bytes + i);
    if (skips) i += SECTOR_BYTES - 1;
    else if (bytes[i] != 0) return i;
  }
  return count;
}

static tarn_err look(int fd, uint64_t from, uint64_t end, bool for_meta, uint64_t *at) {
  uint8_t *chunk = aligned_alloc(ALIGN_BYTES, CHUNK_BYTES);
  tarn_err err = chunk ? TARN_OK : TARN_IO;
  for (*at = from; err == TARN_OK && *at < end;) {
    ssize_t got = pread(fd, chunk, (size_t)min_u64(CHUNK_BYTES, end - *at), (off_t)*at);
    if (got <= 0) err = TARN_IO;
    if (err != TARN_OK) break;
    reactor_work_step();
    size_t first = first_of(chunk, (size_t)got, for_meta);
    *at += first;
    if (first < (size_t)got) break;
  }
  free(chunk);
  return err;
}

tarn_err blank_look(int fd, uint64_t from, uint64_t end, uint64_t *at) { return look(fd, from, end, false, at); }

tarn_err blank_look_for_meta(int fd, uint64_t from, uint64_t end, uint64_t *at) {
  require(from % SECTOR_BYTES == 0 && end % SECTOR_BYTES == 0);
  return look(fd, from, end, true, at);
}

static tarn_err look_at_the_ends(int fd, uint64_t bytes, bool for_meta) {
  uint64_t at, first = min_u64(bytes, CHUNK_BYTES), last = align_down(bytes - first, ALIGN_BYTES);
  tarn_err err = look(fd, 0, first, for_meta, &at);
  if (err == TARN_OK && at < first) err = TARN_EXISTS;
  if (err == TARN_OK) err = look(fd, last, bytes, for_meta, &at);
  return err == TARN_OK && at < bytes ? TARN_EXISTS : err;
}

bool blank_at_the_ends(int fd, uint64_t bytes) { return look_at_the_ends(fd, bytes, false) == TARN_OK; }

/* ---- where metadata was ---- */

bool blank_file_for_meta(int fd, uint64_t at, uint64_t end) {
  while (at < end) {
    off_t data = lseek(fd, (off_t)at, SEEK_DATA), hole;
    if (data < 0) return errno == ENXIO;
    hole = lseek(fd, data, SEEK_HOLE);
    if (hole < 0) return false;
    uint64_t from = align_down((uint64_t)data, SECTOR_BYTES), to = min_u64((uint64_t)hole, end),
             whole = align_down(to, SECTOR_BYTES), odd;
    if (blank_look_for_meta(fd, from, whole, &odd) != TARN_OK || odd != whole) return false;
    if (blank_look(fd, whole, to, &odd) != TARN_OK || odd != to) return false;
    at = (uint64_t)hole;
  }
  return true;
}

static bool is_record(const uint8_t *sector, size_t at) {
  return (at == 0 || at == RECORD_SLOT_BYTES) && memcmp(sector, "TARNREC1", 8) == 0;
}

/* A device may have a file system by now, which was made around a log and maps of before. */
static bool has_meta(int fd, bool is_block_device) {
  uint8_t *chunk = aligned_alloc(ALIGN_BYTES, CHUNK_BYTES);
  ssize_t got = chunk ? pread(fd, chunk, CHUNK_BYTES, 0) : 0;
  bool has = false;
  for (size_t at = 0; (ssize_t)(at + SECTOR_BYTES) <= got && !has; at += SECTOR_BYTES)
    has = is_record(chunk + at, at) || (!is_block_device && is_left_over(chunk + at));
  free(chunk);
  return has;
}

tarn_err blank_or_meta(int fd, bool is_block_device, uint64_t bytes) {
  if (has_meta(fd, is_block_device)) return TARN_OK;
  if (is_block_device) return look_at_the_ends(fd, bytes, true);
  return blank_file_for_meta(fd, 0, bytes) ? TARN_OK : TARN_EXISTS;
}
