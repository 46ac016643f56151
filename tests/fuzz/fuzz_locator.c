/* Property: whatever locator_decode() accepts obeys locator_check(), and encodes to the same bytes. Tried as it is, and with a CRC
 * that fits, because no fuzzer guesses one. */
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "format/locator.h"
#include "fuzz.h"

#define CRC_OFFSET 12

static void check(const uint8_t *block) {
  struct locator locator;
  uint8_t again[LOCATOR_BYTES];
  if (locator_decode(&locator, block) != TARN_OK) return;
  require(locator_check(&locator) == NULL);
  locator_encode(&locator, again);
  require(memcmp(block, again, sizeof again) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  static uint8_t block[LOCATOR_BYTES];
  if (bytes > sizeof block) return -1;
  memset(block, 0, sizeof block);
  if (bytes > 0) memcpy(block, data, bytes);
  check(block);
  memset(block + CRC_OFFSET, 0, sizeof(uint32_t));
  struct writer writer;
  uint32_t crc = crc32c(block, sizeof block);
  writer_init(&writer, block + CRC_OFFSET, sizeof crc);
  put_le32(&writer, crc);
  check(block);
  return 0;
}
