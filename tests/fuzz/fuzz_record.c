/* Property: whatever record_decode() accepts obeys record_check(), and encodes to the same bytes.
 *
 * The bytes are tried twice: as they are, and with a CRC that fits, because no fuzzer guesses one. Short inputs are
 * padded with zeroes: most of a record is. */
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "format/record.h"
#include "fuzz.h"

#define CRC_OFFSET 12

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

  memset(block + CRC_OFFSET, 0, sizeof(uint32_t));
  struct writer writer;
  writer_init(&writer, block + CRC_OFFSET, sizeof(uint32_t));
  put_le32(&writer, crc32c(block, RECORD_BYTES));
  check(block);
  return 0;
}
