/* log_sector.c - the layout is in log_sector.h.
 *
 * Power lost while one is written: the disk leaves the old sector or the new one, and both are whole. A disk that tears
 * even a sector, loses it or puts it elsewhere leaves something that fails the CRC or names another place; the reader then
 * takes the other copy, or "everything it could have said". */
#include "format/log_sector.h"

#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"

#define CRC_FROM     8u /* what the CRC covers: bytes 8..511 */
#define HEADER_BYTES 32u

_Static_assert(HEADER_BYTES + SECTOR_PAYLOAD_BYTES == SECTOR_BYTES, "header and payload fill the sector");
_Static_assert(LOG_ENTRIES_PER_SECTOR * sizeof(uint32_t) == SECTOR_PAYLOAD_BYTES, "log entries fill the payload");
_Static_assert(MAP_BITS_PER_SECTOR == SECTOR_PAYLOAD_BYTES * 8, "map bits fill the payload");

static const char *magic_of(enum sector_kind kind) {
  switch (kind) {
    case SECTOR_LOG: return "TLOG";
    case SECTOR_MAP: return "TMAP";
  }
  tarn_panic("a sector of no kind", __FILE__, __LINE__);
}

void sector_encode(const struct sector_id *id, uint64_t sequence, const uint8_t *payload, uint8_t *out) {
  struct writer writer;
  writer_init(&writer, out, SECTOR_BYTES);
  put_bytes(&writer, magic_of(id->kind), 4);
  put_le32(&writer, 0);
  put_le64(&writer, id->mirror);
  put_le32(&writer, id->index);
  put_le32(&writer, id->area);
  put_le64(&writer, sequence);
  put_bytes(&writer, payload, SECTOR_PAYLOAD_BYTES);
  require(writer_used(&writer) == SECTOR_BYTES);
  require(!writer.bad);

  struct writer crc;
  writer_init(&crc, out + 4, 4);
  put_le32(&crc, crc32c(out + CRC_FROM, SECTOR_BYTES - CRC_FROM));
}

static bool is_all_zero(const uint8_t *in) { return in[0] == 0 && memcmp(in, in + 1, SECTOR_BYTES - 1) == 0; }

tarn_err sector_decode(const struct sector_id *id, const uint8_t *in, uint8_t *payload) {
  memset(payload, 0, SECTOR_PAYLOAD_BYTES);
  if (is_all_zero(in)) return TARN_NOT_FOUND;

  struct reader reader;
  reader_init(&reader, in, SECTOR_BYTES);
  char magic[5];
  get_text(&reader, magic, 4);
  if (strcmp(magic, magic_of(id->kind)) != 0) return TARN_CORRUPT;
  if (get_le32(&reader) != crc32c(in + CRC_FROM, SECTOR_BYTES - CRC_FROM)) return TARN_CORRUPT;
  if (get_le64(&reader) != id->mirror) return TARN_CORRUPT;
  if (get_le32(&reader) != id->index) return TARN_CORRUPT;
  if (get_le32(&reader) != id->area) return TARN_CORRUPT;
  (void)get_le64(&reader); /* sector_sequence() */
  get_bytes(&reader, payload, SECTOR_PAYLOAD_BYTES);
  require(!reader.bad);
  return TARN_OK;
}

uint64_t sector_sequence(const uint8_t *in) {
  struct reader reader;
  reader_init(&reader, in + 24, sizeof(uint64_t));
  return get_le64(&reader);
}
