#include "shell/blank.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/require.h"

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

bool blank_at_the_ends(int fd, uint64_t bytes) {
  uint64_t at, first = min_u64(bytes, CHUNK_BYTES), last = align_down(bytes - first, ALIGN_BYTES);
  return blank_look(fd, 0, first, &at) == TARN_OK && at == first && blank_look(fd, last, bytes, &at) == TARN_OK &&
         at == bytes;
}
