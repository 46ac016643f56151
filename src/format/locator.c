/* locator.c - the layout:
 *
 *     0 magic "TARNTAIL"   8 version (4)   12 CRC32C of the block with this field zero (4)   16 uuid (16)
 *     32 offset (8)   40 length (8)   48 zeroes to the end
 *
 * Power lost while it is written: no copy is sound, or the other one is; nothing that counts lies in the tail yet. */
#include "format/locator.h"

#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"

#define MAGIC      "TARNTAIL"
#define CRC_OFFSET 12u
#define USED_BYTES 48u

const char *locator_check(const struct locator *locator) {
  if (locator->offset == 0 || locator->offset % LOCATOR_ALIGN != 0) return "its offset is not aligned";
  if (locator->length == 0 || locator->length % LOCATOR_ALIGN != 0) return "its length is not aligned";
  if (locator->length > LOCATOR_LENGTH_MAX) return "it is longer than metadata can be";
  if (locator->offset > (uint64_t)INT64_MAX - LOCATOR_LENGTH_MAX) return "it ends beyond what a disk can have";
  return NULL;
}

static uint32_t crc_of(const uint8_t *block) {
  uint8_t copy[LOCATOR_BYTES];
  memcpy(copy, block, sizeof copy);
  memset(copy + CRC_OFFSET, 0, sizeof(uint32_t));
  return crc32c(copy, sizeof copy);
}

void locator_encode(const struct locator *locator, uint8_t *out) {
  struct writer writer;
  require(locator_check(locator) == NULL);
  writer_init(&writer, out, LOCATOR_BYTES);
  put_bytes(&writer, MAGIC, 8);
  put_le32(&writer, LOCATOR_VERSION);
  put_le32(&writer, 0);
  put_bytes(&writer, locator->uuid, sizeof locator->uuid);
  put_le64(&writer, locator->offset);
  put_le64(&writer, locator->length);
  require(writer_used(&writer) == USED_BYTES);
  put_zeroes(&writer, LOCATOR_BYTES - USED_BYTES);
  require(!writer.bad);
  writer_init(&writer, out + CRC_OFFSET, sizeof(uint32_t));
  put_le32(&writer, crc_of(out));
}

tarn_err locator_decode(struct locator *locator, const uint8_t *in) {
  struct reader reader;
  uint8_t rest[LOCATOR_BYTES - USED_BYTES], magic[8];
  reader_init(&reader, in, LOCATOR_BYTES);
  *locator = (struct locator){.offset = 0};
  get_bytes(&reader, magic, sizeof magic);
  if (memcmp(magic, MAGIC, sizeof magic) != 0) return TARN_NOT_FOUND;
  uint32_t version = get_le32(&reader), crc = get_le32(&reader);
  if (crc != crc_of(in)) return TARN_CORRUPT;
  if (version > LOCATOR_VERSION) return TARN_VERSION;
  get_bytes(&reader, locator->uuid, sizeof locator->uuid);
  locator->offset = get_le64(&reader);
  locator->length = get_le64(&reader);
  get_bytes(&reader, rest, sizeof rest);
  require(!reader.bad);
  bool zero = rest[0] == 0 && memcmp(rest, rest + 1, sizeof rest - 1) == 0;
  return version == LOCATOR_VERSION && zero && !locator_check(locator) ? TARN_OK : TARN_CORRUPT;
}
