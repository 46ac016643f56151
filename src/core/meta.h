/* meta.h - where things lie in an image's metadata, and how the address space of a mirror is divided.
 *
 * Mirror addresses: the volumes of a mirror stand one after the other in one linear address space, each starting at a
 * multiple of region_bytes, so that locks, marks and maps need no volume number. Regions (one mark each) and extents (one
 * map bit each) are numbered in that space.
 *
 * The metadata of an image, in bytes from its start; everything is written in blocks of META_BLOCK_BYTES:
 *     0                 the record, two slots (format/record.h)
 *     log_offset[0..1]  the write-intent log, twice: log_blocks blocks of 8 sectors (format/log_sector.h)
 *     map_offset        for each image slot 0..IMAGES_MAX-1, what that image misses, as this image knows it:
 *       top copy 0, top copy 1 (bit p: page sector p is not clean), pages copy 0, pages copy 1 (bit e: extent e is missed)
 *     moment_offset     the same once more: room for what changed since a moment; nothing is written there yet
 * Most of it is never written: the file is sparse.
 *
 * The record says where the maps lie and for how many extents they have room (struct record_layout), so that a later version can
 * move them, by one commit of the record, when volumes grow. Records of version 1 do not; there the maps follow the log. */
#ifndef TARN_CORE_META_H
#define TARN_CORE_META_H

#include "format/log_sector.h"
#include "format/record.h"

#define META_BLOCK_BYTES       4096u
#define META_SECTORS_PER_BLOCK (META_BLOCK_BYTES / SECTOR_BYTES)
#define META_WORDS_MAX         (MAP_BITS_PER_SECTOR / 64)

/* How much of a sector is used: all of it, but in the simulator, whose small mirrors are to have as many sectors as large ones have.
 * What is left is zero. */
struct sector_limits {
  uint32_t map_bits; /* a multiple of 64, so that a map in memory and its sectors share word boundaries */
  uint32_t log_entries;
};
extern const struct sector_limits sector_limits_default;
_Static_assert(MAP_BITS_PER_SECTOR % 64 == 0, "a map sector is whole words");

struct geometry {
  struct sector_limits sector;
  uint32_t volume_count;
  uint64_t volume_base[VOLUMES_MAX], volume_bytes[VOLUMES_MAX];
  uint32_t region_bytes, extent_bytes, mark_count;
  uint64_t region_count, extent_count;
  uint32_t log_blocks;
  uint64_t page_sectors, page_blocks; /* of one map, as much of it as is in use */
  uint64_t top_blocks;
  uint64_t log_offset[2];
  struct record_layout layout;
  uint64_t map_page_blocks, map_top_blocks, map_slot_bytes; /* that the layout has room for */
  uint64_t meta_bytes;   /* all that is in use: an image has a metadata disk of at least that */
  uint64_t moment_bytes; /* up to the end of the second maps; 0 without. A shorter disk has none of them */
};

/* Requires sizes and settings that record_check() accepts. `sector` NULL: the default. */
void geometry_init(struct geometry *geometry, uint32_t volume_count, const uint64_t *volume_bytes,
                   uint32_t region_bytes, uint32_t extent_bytes, uint32_t mark_count,
                   const struct sector_limits *sector);
static inline uint32_t geometry_block_entries(const struct geometry *geometry) {
  return META_SECTORS_PER_BLOCK * geometry->sector.log_entries;
}
static inline uint64_t geometry_block_bits(const struct geometry *geometry) {
  return META_SECTORS_PER_BLOCK * geometry->sector.map_bits;
}
/* The layout of a new mirror, and of one of version 1; `moments`: with room for the second maps. */
struct record_layout geometry_layout(const struct geometry *geometry, bool moments);
/* Takes the places from there; geometry_init() has taken them from geometry_layout() without second maps. NULL, or why it cannot
 * be, and nothing has changed. Requires a layout that record_check() accepts, or one of geometry_layout(). */
const char *geometry_place(struct geometry *geometry, const struct record_layout *layout);
/* The volume that holds a mirror address, or volume_count when it lies in the gap behind one. */
uint32_t geometry_volume_at(const struct geometry *geometry, uint64_t address);
/* End of the data of the volume that holds `address`: what an extent or region is cut to. */
uint64_t geometry_data_end(const struct geometry *geometry, uint64_t address);

/* Which map: `epoch` is that of its pages (format/record.h: map_epoch). */
struct map_name {
  uint64_t mirror_id;
  uint32_t slot, epoch;
};
enum map_level { MAP_PAGE, MAP_TOP };
uint64_t meta_log_offset(const struct geometry *geometry, uint32_t copy, uint64_t block);
uint64_t meta_map_offset(const struct geometry *geometry, uint32_t slot, enum map_level level, uint32_t copy,
                         uint64_t block);

/* The bits [block * geometry_block_bits(), ...) of `words`, as a block of map sectors; `bit_count` bounds them. */
void meta_map_encode(const struct geometry *geometry, const struct map_name *name, enum map_level level, uint64_t block,
                     const uint64_t *words, uint64_t bit_count, uint64_t sequence, uint8_t *out);
/* One sector of a map, as map_bits / 64 words: META_WORDS_MAX at most. TARN_OK, TARN_NOT_FOUND (never written) or TARN_CORRUPT. */
CHECKED tarn_err meta_map_decode_sector(const struct geometry *geometry, const struct map_name *name,
                                        enum map_level level, uint64_t sector_index, const uint8_t *in,
                                        uint64_t *words);
void meta_log_encode(const struct geometry *geometry, uint64_t mirror_id, uint32_t slot, uint64_t block,
                     const uint32_t *entries, uint64_t sequence, uint8_t *out);
/* `entries` receives log_entries values, LOG_ENTRIES_PER_SECTOR at most (region index + 1, or 0). */
CHECKED tarn_err meta_log_decode_sector(const struct geometry *geometry, uint64_t mirror_id, uint32_t slot,
                                        uint64_t sector_index, const uint8_t *in, uint32_t *entries);

#endif
