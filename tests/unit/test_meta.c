/* Where things lie in the metadata: the arithmetic of docs/disk-format.md. */
#include "core/meta.h"
#include "unit.h"

static void the_example_of_the_documentation(void **state) {
  (void)state;
  struct geometry geometry;
  uint64_t size = 1 << 30;
  geometry_init(&geometry, 1, &size, 4 << 20, 16 << 10, 4096, NULL);
  assert_int_equal(geometry.region_count, 256);
  assert_int_equal(geometry.extent_count, 65536);
  assert_int_equal(meta_log_offset(&geometry, 0, 0), 16384);
  assert_int_equal(meta_log_offset(&geometry, 1, 0), 16384 + 20480);
  assert_int_equal(meta_map_offset(&geometry, 0, MAP_TOP, 0, 0), 57344);
  assert_int_equal(meta_map_offset(&geometry, 0, MAP_TOP, 1, 0), 57344 + 4096);
  assert_int_equal(meta_map_offset(&geometry, 0, MAP_PAGE, 0, 0), 57344 + 8192);
  assert_int_equal(meta_map_offset(&geometry, 0, MAP_PAGE, 1, 0), 57344 + 8192 + 12288);
  assert_int_equal(meta_map_offset(&geometry, 1, MAP_TOP, 0, 0), 57344 + 32768);
  assert_int_equal(geometry.meta_bytes, 581632);
  assert_int_equal(geometry.moment_bytes, 0);
  struct record_layout layout = geometry_layout(&geometry, true);
  assert_int_equal(layout.moment_offset, 581632);
  assert_null(geometry_place(&geometry, &layout));
  assert_int_equal(geometry.meta_bytes, 581632);
  assert_int_equal(geometry.moment_bytes, 1105920);
}

/* A later version may have moved the maps, and given them more room: places come from the record. */
static void a_layout_moves_the_maps(void **state) {
  (void)state;
  struct geometry g;
  uint64_t size = 1 << 30;
  geometry_init(&g, 1, &size, 4 << 20, 16 << 10, 4096, NULL);
  struct record_layout layout = {.map_offset = 1 << 20, .map_extents = 65536 * 2};
  assert_null(geometry_place(&g, &layout));
  assert_int_equal(g.page_blocks, 3); /* as many as are in use */
  assert_int_equal(g.map_page_blocks, 5);
  assert_int_equal(meta_map_offset(&g, 0, MAP_PAGE, 1, 0), (1 << 20) + 8192 + 5 * 4096);
  assert_int_equal(meta_map_offset(&g, 1, MAP_TOP, 0, 0), (1 << 20) + 8192 + 2 * 5 * 4096);
  assert_int_equal(g.meta_bytes, (1 << 20) + 16 * (8192 + 2 * 5 * 4096));
  assert_int_equal(meta_log_offset(&g, 1, 0), 16384 + 20480); /* the log keeps its place */
  static const struct {
    const char *why;
    struct record_layout layout;
    bool good;
  } rows[] = {
      {"the place of a new mirror", {57344, 65536, 0}, true},
      {"over the log", {57344 - 4096, 65536, 0}, false},
      {"no room for the volumes", {57344, 65535, 0}, false},
      {"second maps behind the first", {57344, 65536, 581632}, true},
      {"second maps over the first", {57344, 65536, 581632 - 4096}, false},
      {"second maps before the first", {57344 + 524288, 65536, 57344}, true},
      {"first maps over the second", {57344 + 524288 - 4096, 65536, 57344}, false},
      {"second maps over the log", {1 << 20, 65536, 57344 - 4096}, false},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct geometry now = g;
    row_true(rows[i].why, (geometry_place(&now, &rows[i].layout) == NULL) == rows[i].good);
    row_true(rows[i].why, now.layout.map_offset == (rows[i].good ? rows[i].layout.map_offset : 1 << 20));
  }
}

static void areas_follow_each_other_without_gap_or_overlap(void **state) {
  (void)state;
  static const struct {
    const char *why;
    uint32_t volume_count;
    uint64_t sizes[3];
    uint32_t region, extent, marks;
  } rows[] = {
      {"the smallest", 1, {512}, 64 << 10, 4 << 10, 16},
      {"several volumes, none a multiple of a region",
       3,
       {512, (1 << 20) + 512, 70000 * 512ull},
       1 << 20,
       4 << 10,
       961},
      {"a large one", 1, {1ull << 44}, 64 << 10, 4 << 10, 65536},
      {"an extent per region", 2, {1ull << 36, 512}, 64 << 10, 64 << 10, 120},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct geometry g;
    geometry_init(&g, rows[i].volume_count, rows[i].sizes, rows[i].region, rows[i].extent, rows[i].marks, NULL);
    row_true(rows[i].why, g.log_blocks * geometry_block_entries(&g) >= rows[i].marks);
    row_true(rows[i].why, g.page_blocks * geometry_block_bits(&g) >= g.extent_count);
    row_true(rows[i].why, g.top_blocks * geometry_block_bits(&g) >= g.page_sectors);
    uint64_t at = RECORD_AREA_BYTES;
    for (uint32_t copy = 0; copy < 2; copy++, at += g.log_blocks * (uint64_t)META_BLOCK_BYTES)
      row_true(rows[i].why, meta_log_offset(&g, copy, 0) == at);
    for (uint32_t slot = 0; slot < IMAGES_MAX; slot++) {
      for (uint32_t copy = 0; copy < 2; copy++, at += g.top_blocks * META_BLOCK_BYTES)
        row_true(rows[i].why, meta_map_offset(&g, slot, MAP_TOP, copy, 0) == at);
      for (uint32_t copy = 0; copy < 2; copy++, at += g.page_blocks * META_BLOCK_BYTES)
        row_true(rows[i].why, meta_map_offset(&g, slot, MAP_PAGE, copy, 0) == at);
    }
    row_true(rows[i].why, g.meta_bytes == at);
  }
}

static void addresses_belong_to_volumes(void **state) {
  (void)state;
  static const uint64_t sizes[] = {512, 3 << 20, 1 << 20};
  struct geometry g;
  geometry_init(&g, 3, sizes, 2 << 20, 4 << 10, 16, NULL);
  static const struct {
    const char *why;
    uint64_t address;
    uint32_t volume;
  } rows[] = {
      {"the first byte", 0, 0},
      {"the last byte of a volume", 511, 0},
      {"the gap behind it belongs to none", 512, 3},
      {"the next one starts at a region", 2 << 20, 1},
      {"its last byte", (5 << 20) - 1, 1},
      {"its gap", 5 << 20, 3},
      {"the third", 6 << 20, 2},
      {"behind all", 7 << 20, 3},
      {"far behind all", UINT64_MAX, 3},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    row_true(rows[i].why, geometry_volume_at(&g, rows[i].address) == rows[i].volume);
    if (rows[i].volume == 3) continue;
    row_true(rows[i].why,
             geometry_data_end(&g, rows[i].address) == g.volume_base[rows[i].volume] + sizes[rows[i].volume]);
  }
  assert_int_equal(g.region_count, 1 + 2 + 1);
}

static void maps_and_logs_round_trip_by_sector(void **state) {
  (void)state;
  struct geometry g;
  uint64_t size = 1 << 30;
  geometry_init(&g, 1, &size, 4 << 20, 16 << 10, 4096, NULL);
  static uint64_t words[65536 / 64], back[META_WORDS_MAX];
  for (uint64_t i = 0; i < 65536 / 64; i++) words[i] = i * 0x9e3779b97f4a7c15u;
  const struct map_name name = {7, 3, 5}, other = {7, 4, 5}, past = {7, 3, 4};
  uint8_t block[META_BLOCK_BYTES];
  for (uint64_t b = 0; b < g.page_blocks; b++) {
    meta_map_encode(&g, &name, MAP_PAGE, b, words, g.extent_count, 1, block);
    for (uint32_t s = 0; s < META_SECTORS_PER_BLOCK; s++) {
      uint64_t sector = b * META_SECTORS_PER_BLOCK + s;
      assert_int_equal(meta_map_decode_sector(&g, &name, MAP_PAGE, sector, block + s * SECTOR_BYTES, back), TARN_OK);
      for (uint64_t w = 0; w < META_WORDS_MAX; w++) {
        uint64_t word = sector * META_WORDS_MAX + w;
        assert_true(back[w] == (word < 65536 / 64 ? words[word] : 0));
      }
      assert_int_equal(meta_map_decode_sector(&g, &other, MAP_PAGE, sector, block + s * SECTOR_BYTES, back),
                       TARN_CORRUPT);
      assert_int_equal(meta_map_decode_sector(&g, &past, MAP_PAGE, sector, block + s * SECTOR_BYTES, back),
                       TARN_CORRUPT);
      assert_int_equal(meta_map_decode_sector(&g, &name, MAP_TOP, sector, block + s * SECTOR_BYTES, back),
                       TARN_CORRUPT);
    }
  }
  static uint32_t entries[(META_SECTORS_PER_BLOCK * LOG_ENTRIES_PER_SECTOR)], entries_back[LOG_ENTRIES_PER_SECTOR];
  for (uint32_t i = 0; i < (META_SECTORS_PER_BLOCK * LOG_ENTRIES_PER_SECTOR); i++) entries[i] = i * 3;
  meta_log_encode(&g, 7, 3, 2, entries, 1, block);
  for (uint32_t s = 0; s < META_SECTORS_PER_BLOCK; s++) {
    uint64_t sector = 2 * META_SECTORS_PER_BLOCK + s;
    assert_int_equal(meta_log_decode_sector(&g, 7, 3, sector, block + s * SECTOR_BYTES, entries_back), TARN_OK);
    assert_memory_equal(entries_back, entries + s * LOG_ENTRIES_PER_SECTOR, sizeof(entries_back));
    assert_int_equal(meta_log_decode_sector(&g, 7, 2, sector, block + s * SECTOR_BYTES, entries_back), TARN_CORRUPT);
  }
}

/* Small sectors: what is left of them is zero, and the next index goes on where the one before ended. */
static void tiny_sectors_round_trip(void **state) {
  (void)state;
  struct geometry g;
  uint64_t size = 4 << 20;
  geometry_init(&g, 1, &size, 64 << 10, 4 << 10, 64, &(struct sector_limits){64, 4});
  assert_int_equal(g.page_sectors, 16);
  assert_int_equal(g.page_blocks, 2);
  assert_int_equal(g.log_blocks, 2);
  const uint64_t words[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  uint64_t back[META_WORDS_MAX];
  uint32_t entries[32], entries_back[LOG_ENTRIES_PER_SECTOR];
  for (uint32_t i = 0; i < 32; i++) entries[i] = 100 + i;
  uint8_t block[META_BLOCK_BYTES];
  const struct map_name name = {7, 3, 5};
  meta_map_encode(&g, &name, MAP_PAGE, 1, words, g.extent_count, 1, block);
  for (uint32_t s = 0; s < META_SECTORS_PER_BLOCK; s++) {
    assert_int_equal(meta_map_decode_sector(&g, &name, MAP_PAGE, 8 + s, block + s * SECTOR_BYTES, back), TARN_OK);
    assert_int_equal(back[0], 9 + s);
    for (uint32_t i = 40; i < SECTOR_BYTES; i++) assert_int_equal(block[s * SECTOR_BYTES + i], 0);
  }
  meta_log_encode(&g, 7, 3, 1, entries, 1, block);
  for (uint32_t s = 0; s < META_SECTORS_PER_BLOCK; s++) {
    assert_int_equal(meta_log_decode_sector(&g, 7, 3, 8 + s, block + s * SECTOR_BYTES, entries_back), TARN_OK);
    assert_memory_equal(entries_back, entries + s * 4ul, 4 * sizeof *entries);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_example_of_the_documentation),
      cmocka_unit_test(a_layout_moves_the_maps),
      cmocka_unit_test(areas_follow_each_other_without_gap_or_overlap),
      cmocka_unit_test(addresses_belong_to_volumes),
      cmocka_unit_test(maps_and_logs_round_trip_by_sector),
      cmocka_unit_test(tiny_sectors_round_trip),
  };
  return cmocka_run_group_tests_name("meta", tests, NULL, NULL);
}
