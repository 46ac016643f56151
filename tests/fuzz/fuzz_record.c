/* Property: whatever record_decode() accepts obeys record_check(), and encodes to the same bytes.
 *
 * The bytes are tried twice: as they are, and with a CRC that fits, because no fuzzer guesses one. Short inputs are
 * padded with zeroes: most of a record is. */
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "format/record.h"
#include "fuzz.h"

#define CRC_OFFSET     12
#define SECTOR_CONTENT 508
#define SECTOR_COUNT   16

static void check(const uint8_t *bytes) {
  static struct record record;
  static uint8_t again[RECORD_BYTES];
  if (record_decode(&record, bytes) != TARN_OK) return;
  require(record_check(&record) == NULL);
  record_encode(&record, again);
  require(memcmp(bytes, again, RECORD_BYTES) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  static uint8_t block[RECORD_BYTES];
  if (bytes > RECORD_BYTES) return -1;
  memset(block, 0, sizeof(block));
  if (bytes > 0) memcpy(block, data, bytes);
  check(block);

  static uint8_t content[SECTOR_COUNT * SECTOR_CONTENT];
  memset(block + CRC_OFFSET, 0, sizeof(uint32_t));
  for (size_t i = 0; i < SECTOR_COUNT; i++) memcpy(content + i * SECTOR_CONTENT, block + i * 512, SECTOR_CONTENT);
  uint32_t crc = crc32c(content, sizeof content);
  struct writer writer;
  for (size_t i = 0; i < SECTOR_COUNT; i++) {
    writer_init(&writer, block + i * 512 + SECTOR_CONTENT, sizeof crc);
    put_le32(&writer, crc);
  }
  writer_init(&writer, block + CRC_OFFSET, sizeof crc);
  put_le32(&writer, crc);
  check(block);
  return 0;
}
