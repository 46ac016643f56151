/* How metadata comes to the disks, and what of it one damaged copy takes away: rules 1 and 4. */
#include "core/meta.h"
#include "mirror_world.h"

#define MIB (1u << 20)

/* What was found may be in the disk's cache only, or a flush of it has failed before, which makes the next one's success worth nothing; and
 * it was relied on. So one copy of the record is written again as it is, and flushed, before a byte is changed. */
static void what_was_found_is_made_durable_before_anything_is_changed(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  world_deactivate(&w);
  world_open(&w);
  struct ram_disk *stores[] = {&w.meta[0], &w.meta[1], &w.home};
  uint32_t writes[COUNT_OF(stores)], flushes[COUNT_OF(stores)];
  static uint8_t found[COUNT_OF(stores)][RECORD_AREA_BYTES];
  for (size_t i = 0; i < COUNT_OF(stores); i++) {
    stores[i]->holds = RAM_FLUSHES;
    writes[i] = stores[i]->writes;
    memcpy(found[i], stores[i]->bytes, RECORD_AREA_BYTES);
    flushes[i] = stores[i]->flushes;
  }
  mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
  world_run(&w);
  for (size_t i = 0; i < COUNT_OF(stores); i++) {
    assert_int_equal(stores[i]->flushes, flushes[i] + 1);
    assert_int_equal(stores[i]->writes, writes[i] + 1);
    assert_memory_equal(stores[i]->bytes, found[i], RECORD_AREA_BYTES);
    ram_release(stores[i]);
  }
  assert_int_equal(world_wait(&w), TARN_OK);
  world_deactivate(&w);
}

/* The first block of one of its copies, in the metadata of image `i`. */
static void spoil(uint32_t i, bool log, enum map_level level, uint32_t copy) {
  struct geometry geometry;
  uint64_t bytes = MIB;
  geometry_init(&geometry, 1, &bytes, w.config.region_bytes, w.config.extent_bytes, w.config.mark_count, NULL);
  uint64_t offset = log ? meta_log_offset(&geometry, copy, 0) : meta_map_offset(&geometry, 2, level, copy, 0);
  w.meta[i].bytes[offset + 100] ^= 1;
}

/* A process dies with a mark, and with an image that misses one region; then one copy of the log, or of the map, is
 * damaged wherever it is. The other one tells all of it. */
static void either_copy_is_enough(void **state) {
  (void)state;
  static const struct {
    const char *why;
    bool log;
    enum map_level level;
  } rows[] = {
      {"the log", true, MAP_TOP},
      {"the top of a map", false, MAP_TOP},
      {"a page of a map", false, MAP_PAGE},
  };
  for (size_t i = 0; i < COUNT_OF(rows) * 2; i++) {
    const char *why = rows[i / 2].why;
    struct mirror_status status;
    world_begin(&w, 3, MIB);
    mirror_image_failed(w.m, 2, "a test");
    assert_int_equal(world_write(&w, MIB / 2, 4096), TARN_OK);
    world_pass(&w, 2 * NS_PER_S); /* the map is durable, and the region still marked */
    world_die(&w);
    w.config.images[2].data[0] = NULL; /* so that it stays as it is */
    for (uint32_t image = 0; image < 2; image++) spoil(image, rows[i / 2].log, rows[i / 2].level, i % 2);
    world_activate(&w);
    row_true(why, !world_said(&w, "no image has a sound intent log"));
    row_true(why, world_image(&w, 2).missed_bytes == 65536);
    mirror_status(w.m, &status);
    row_true(why, status.marked_regions == 1);
    world_end(&w);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(what_was_found_is_made_durable_before_anything_is_changed),
      WORLD_TEST(either_copy_is_enough),
  };
  return cmocka_run_group_tests_name("mirror_commit", tests, NULL, NULL);
}
