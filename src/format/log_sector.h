/* log_sector.h - the two 512-byte sectors of the metadata that are updated in place: marks of the write-intent log, and
 * pages of a missed map (and of its top level).
 *
 * Each sector stands for itself: identity, place, CRC32C. A disk writes a sector whole or not at all; one that fails its
 * check anyway is damage, and counts as "everything it could have said" (rule 4). Both kinds are kept twice.
 *
 *   0  u32 magic   "TLOG" / "TMAP"      4  u32 crc32c of bytes 8..511
 *   8  u64 mirror  first 8 bytes of the mirror's uuid, so that a foreign sector never passes
 *  16  u32 index   of the sector in its area, so that a misdirected one never passes
 *  20  u32 area    LOG: image slot it belongs to;  MAP: (slot of the image that misses) | level << 8 (0 page, 1 top) | epoch << 9 (of a page)
 *  24  u64 sequence  of the commit that wrote it; it only grows, so the newest copy of a log sector is known
 *  32  480 bytes of payload: LOG 120 x u32 (region index + 1, 0 free);  MAP 3840 bits, bit i of byte i/8 = extent */
#ifndef TARN_FORMAT_LOG_SECTOR_H
#define TARN_FORMAT_LOG_SECTOR_H

#include "base/error.h"
#include "base/require.h"

#define SECTOR_BYTES           512u
#define SECTOR_PAYLOAD_BYTES   480u
#define LOG_ENTRIES_PER_SECTOR 120u
#define MAP_BITS_PER_SECTOR    3840u

enum sector_kind { SECTOR_LOG, SECTOR_MAP };
struct sector_id {
  enum sector_kind kind;
  uint64_t mirror;
  uint32_t index;
  uint32_t area;
};

/* `payload` is SECTOR_PAYLOAD_BYTES; `out` SECTOR_BYTES. */
void sector_encode(const struct sector_id *id, uint64_t sequence, const uint8_t *payload, uint8_t *out);
/* Copies the payload. TARN_NOT_FOUND: all zero, never written (and `payload` is zeroed). TARN_CORRUPT: anything else that
 * is not this very sector. */
CHECKED tarn_err sector_decode(const struct sector_id *id, const uint8_t *in, uint8_t *payload);
/* The sequence of a sector that sector_decode() has accepted. */
uint64_t sector_sequence(const uint8_t *in);

#endif
