/* Property: a sector whose CRC fits passes in the very place that it names and in no other, and encodes to the same
 * bytes; with a CRC that does not fit it never passes. */
#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "format/log_sector.h"
#include "fuzz.h"

#define CRC_OFFSET 4

static uint8_t sector[SECTOR_BYTES], payload[SECTOR_PAYLOAD_BYTES], again[SECTOR_BYTES];

static void set_crc(uint32_t crc) {
  struct writer writer;
  writer_init(&writer, sector + CRC_OFFSET, sizeof(uint32_t));
  put_le32(&writer, crc);
}

static void check(const struct sector_id *id, uint64_t sequence) {
  uint32_t crc = crc32c(sector + 8, SECTOR_BYTES - 8);
  set_crc(crc);
  require(sector_decode(id, sector, payload) == TARN_OK);
  sector_encode(id, sequence, payload, again);
  require(memcmp(sector, again, SECTOR_BYTES) == 0);

  struct sector_id other = *id;
  other.index++;
  require(sector_decode(&other, sector, payload) == TARN_CORRUPT);
  other = *id;
  other.kind = id->kind == SECTOR_LOG ? SECTOR_MAP : SECTOR_LOG;
  require(sector_decode(&other, sector, payload) == TARN_CORRUPT);
  set_crc(crc ^ 1);
  require(sector_decode(id, sector, payload) == TARN_CORRUPT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  if (bytes > SECTOR_BYTES) return -1;
  memset(sector, 0, sizeof(sector));
  if (bytes > 0) memcpy(sector, data, bytes);

  struct sector_id id;
  struct reader reader;
  reader_init(&reader, sector, sizeof(sector));
  reader_skip(&reader, 8);
  id.mirror = get_le64(&reader);
  id.index = get_le32(&reader);
  id.area = get_le32(&reader);
  uint64_t sequence = get_le64(&reader);

  for (int kind = SECTOR_LOG; kind <= SECTOR_MAP; kind++) {
    id.kind = (enum sector_kind)kind;
    require(sector_decode(&id, sector, payload) < TARN_ERR_COUNT); /* as it came: any answer will do */
    memcpy(sector, kind == SECTOR_LOG ? "TLOG" : "TMAP", 4);
    check(&id, sequence);
  }
  return 0;
}
