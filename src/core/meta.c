#include "core/meta.h"

#include <string.h>

#include "base/bytes.h"

static uint64_t blocks_for(uint64_t sectors) { return (sectors + META_SECTORS_PER_BLOCK - 1) / META_SECTORS_PER_BLOCK; }
static uint64_t sectors_for(const struct geometry *geometry, uint64_t bits) {
  return (bits + geometry->sector.map_bits - 1) / geometry->sector.map_bits;
}

const struct sector_limits sector_limits_default = {.map_bits = MAP_BITS_PER_SECTOR,
                                                    .log_entries = LOG_ENTRIES_PER_SECTOR};

void geometry_init(struct geometry *geometry, uint32_t volume_count, const uint64_t *volume_bytes,
                   uint32_t region_bytes, uint32_t extent_bytes, uint32_t mark_count,
                   const struct sector_limits *sector) {
  require(volume_count >= 1 && volume_count <= VOLUMES_MAX);
  require(is_power_of_two(region_bytes) && is_power_of_two(extent_bytes) && extent_bytes <= region_bytes);
  memset(geometry, 0, sizeof *geometry);
  geometry->sector = sector ? *sector : sector_limits_default;
  require(geometry->sector.map_bits % 64 == 0);
  require(geometry->sector.map_bits >= 64 && geometry->sector.map_bits <= MAP_BITS_PER_SECTOR);
  require(geometry->sector.log_entries >= 1 && geometry->sector.log_entries <= LOG_ENTRIES_PER_SECTOR);
  geometry->volume_count = volume_count;
  geometry->region_bytes = region_bytes;
  geometry->extent_bytes = extent_bytes;
  geometry->mark_count = mark_count;
  uint64_t base = 0;
  for (uint32_t v = 0; v < volume_count; v++) {
    geometry->volume_base[v] = base;
    geometry->volume_bytes[v] = volume_bytes[v];
    base += align_up(volume_bytes[v], region_bytes);
  }
  geometry->region_count = base / region_bytes;
  geometry->extent_count = base / extent_bytes;
  geometry->log_blocks =
      (uint32_t)blocks_for((mark_count + geometry->sector.log_entries - 1) / geometry->sector.log_entries);
  geometry->page_sectors = sectors_for(geometry, geometry->extent_count);
  geometry->page_blocks = blocks_for(geometry->page_sectors);
  geometry->top_blocks = blocks_for(sectors_for(geometry, geometry->page_sectors));
  geometry->log_offset[0] = RECORD_AREA_BYTES;
  geometry->log_offset[1] = geometry->log_offset[0] + (uint64_t)geometry->log_blocks * META_BLOCK_BYTES;
  struct record_layout layout = geometry_layout(geometry, false);
  const char *wrong = geometry_place(geometry, &layout);
  require(!wrong);
}

static uint64_t log_end(const struct geometry *geometry) {
  return geometry->log_offset[1] + (uint64_t)geometry->log_blocks * META_BLOCK_BYTES;
}

/* Of all maps that have room for so many extents. */
static uint64_t maps_bytes(const struct geometry *geometry, uint64_t extents) {
  uint64_t sectors = sectors_for(geometry, extents);
  return IMAGES_MAX * 2 * (blocks_for(sectors) + blocks_for(sectors_for(geometry, sectors))) * META_BLOCK_BYTES;
}

struct record_layout geometry_layout(const struct geometry *geometry, bool moments) {
  struct record_layout layout = {.map_offset = log_end(geometry), .map_extents = geometry->extent_count};
  if (moments) layout.moment_offset = layout.map_offset + maps_bytes(geometry, layout.map_extents);
  return layout;
}

static bool areas_overlap(uint64_t a, uint64_t b, uint64_t bytes) { return a < b + bytes && b < a + bytes; }

const char *geometry_place(struct geometry *geometry, const struct record_layout *layout) {
  uint64_t bytes = maps_bytes(geometry, layout->map_extents), moment = layout->moment_offset;
  if (layout->map_extents < geometry->extent_count) return "its maps have no room for its volumes";
  if (layout->map_offset < log_end(geometry)) return "its maps lie over the log";
  if (moment != 0 && (moment < log_end(geometry) || areas_overlap(layout->map_offset, moment, bytes)))
    return "its second maps lie over something else";
  geometry->layout = *layout;
  geometry->map_page_blocks = blocks_for(sectors_for(geometry, layout->map_extents));
  geometry->map_top_blocks = blocks_for(sectors_for(geometry, sectors_for(geometry, layout->map_extents)));
  geometry->map_slot_bytes = bytes / IMAGES_MAX;
  geometry->meta_bytes = layout->map_offset + bytes;
  geometry->moment_bytes = moment ? moment + bytes : 0;
  return NULL;
}

uint32_t geometry_volume_at(const struct geometry *geometry, uint64_t address) {
  for (uint32_t v = geometry->volume_count; v-- > 0;) {
    if (address < geometry->volume_base[v]) continue;
    return address - geometry->volume_base[v] < geometry->volume_bytes[v] ? v : geometry->volume_count;
  }
  return geometry->volume_count;
}

uint64_t geometry_data_end(const struct geometry *geometry, uint64_t address) {
  uint32_t v = geometry_volume_at(geometry, address);
  require(v < geometry->volume_count);
  return geometry->volume_base[v] + geometry->volume_bytes[v];
}

uint64_t meta_log_offset(const struct geometry *geometry, uint32_t copy, uint64_t block) {
  require(copy < 2);
  require(block < geometry->log_blocks);
  return geometry->log_offset[copy] + block * META_BLOCK_BYTES;
}

uint64_t meta_map_offset(const struct geometry *geometry, uint32_t slot, enum map_level level, uint32_t copy,
                         uint64_t block) {
  require(slot < IMAGES_MAX && copy < 2);
  uint64_t blocks = level == MAP_TOP ? geometry->map_top_blocks : geometry->map_page_blocks;
  require(block < (level == MAP_TOP ? geometry->top_blocks : geometry->page_blocks));
  uint64_t first = level == MAP_TOP ? 0 : 2 * geometry->map_top_blocks;
  return geometry->layout.map_offset + slot * geometry->map_slot_bytes +
         (first + copy * blocks + block) * META_BLOCK_BYTES;
}

static struct sector_id map_id(const struct map_name *name, enum map_level level, uint64_t sector) {
  require(name->epoch <= MAP_EPOCH_MAX);
  return (struct sector_id){.kind = SECTOR_MAP,
                            .mirror = name->mirror_id,
                            .index = (uint32_t)sector,
                            .area = name->slot | (level == MAP_TOP ? 1u << 8 : name->epoch << 9)};
}

void meta_map_encode(const struct geometry *geometry, const struct map_name *name, enum map_level level, uint64_t block,
                     const uint64_t *words, uint64_t bit_count, uint64_t sequence, uint8_t *out) {
  require(block < (level == MAP_TOP ? geometry->top_blocks : geometry->page_blocks));
  uint64_t word_count = (bit_count + 63) / 64, sector_words = geometry->sector.map_bits / 64;
  for (uint32_t s = 0; s < META_SECTORS_PER_BLOCK; s++) {
    uint64_t sector = block * META_SECTORS_PER_BLOCK + s;
    uint8_t payload[SECTOR_PAYLOAD_BYTES];
    struct writer writer;
    writer_init(&writer, payload, sizeof payload);
    for (uint64_t w = sector * sector_words; w < (sector + 1) * sector_words; w++)
      put_le64(&writer, w < word_count ? words[w] : 0);
    put_zeroes(&writer, sizeof payload - writer_used(&writer));
    require(!writer.bad);
    struct sector_id id = map_id(name, level, sector);
    sector_encode(&id, sequence, payload, out + s * SECTOR_BYTES);
  }
}

tarn_err meta_map_decode_sector(const struct geometry *geometry, const struct map_name *name, enum map_level level,
                                uint64_t sector_index, const uint8_t *in, uint64_t *words) {
  uint8_t payload[SECTOR_PAYLOAD_BYTES];
  struct sector_id id = map_id(name, level, sector_index);
  tarn_err err = sector_decode(&id, in, payload);
  if (err != TARN_OK) return err;
  struct reader reader;
  reader_init(&reader, payload, sizeof payload);
  for (uint32_t w = 0; w < geometry->sector.map_bits / 64; w++) words[w] = get_le64(&reader);
  require(!reader.bad);
  return TARN_OK;
}

void meta_log_encode(const struct geometry *geometry, uint64_t mirror_id, uint32_t slot, uint64_t block,
                     const uint32_t *entries, uint64_t sequence, uint8_t *out) {
  for (uint32_t s = 0; s < META_SECTORS_PER_BLOCK; s++) {
    uint8_t payload[SECTOR_PAYLOAD_BYTES];
    struct writer writer;
    writer_init(&writer, payload, sizeof payload);
    const uint32_t count = geometry->sector.log_entries;
    for (uint32_t e = 0; e < count; e++) put_le32(&writer, entries[s * count + e]);
    put_zeroes(&writer, sizeof payload - writer_used(&writer));
    require(!writer.bad);
    struct sector_id id = {
        .kind = SECTOR_LOG, .mirror = mirror_id, .index = (uint32_t)(block * META_SECTORS_PER_BLOCK + s), .area = slot};
    sector_encode(&id, sequence, payload, out + s * SECTOR_BYTES);
  }
}

tarn_err meta_log_decode_sector(const struct geometry *geometry, uint64_t mirror_id, uint32_t slot,
                                uint64_t sector_index, const uint8_t *in, uint32_t *entries) {
  uint8_t payload[SECTOR_PAYLOAD_BYTES];
  struct sector_id id = {.kind = SECTOR_LOG, .mirror = mirror_id, .index = (uint32_t)sector_index, .area = slot};
  tarn_err err = sector_decode(&id, in, payload);
  if (err != TARN_OK) return err;
  struct reader reader;
  reader_init(&reader, payload, sizeof payload);
  for (uint32_t e = 0; e < geometry->sector.log_entries; e++) entries[e] = get_le32(&reader);
  return TARN_OK;
}
