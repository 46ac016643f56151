/* Metadata of other versions: what version 1 wrote is read and written anew; what a newer one wrote is left alone; and maps that
 * a later daemon has moved are found by the record's layout. */
#include "base/crc32c.h"
#include "mirror_world.h"

#define BYTES  (1u << 20)
#define BLOCKS (BYTES / 4096)

/* ---- records on the disks ---- */

static uint8_t *store_bytes(uint32_t store) {
  return store < w.config.image_count ? w.meta[store].bytes : w.home.bytes;
}

static struct record record_of(uint32_t store, uint32_t slot) {
  struct record record;
  assert_int_equal(record_decode(&record, store_bytes(store) + slot * RECORD_SLOT_BYTES), TARN_OK);
  return record;
}

/* Both slots of every store. */
static void rewrite_records(void (*change)(struct record *record)) {
  for (uint32_t store = 0; store <= w.config.image_count; store++)
    for (uint32_t slot = 0; slot < 2; slot++) {
      struct record record = record_of(store, slot);
      change(&record);
      record_encode(&record, store_bytes(store) + slot * RECORD_SLOT_BYTES);
    }
}

static void to_version_1(struct record *record) {
  record->version = RECORD_VERSION_1;
  record->layout = (struct record_layout){0};
  for (uint32_t i = 0; i < IMAGES_MAX; i++) record->images[i].left_id = 0;
}

/* Image b is behind by two blocks; the mirror is stopped. */
static void make_one_behind(void) {
  world_init(&w, 2, BYTES, 512);
  w.config.images[1].policy.return_by_itself = false;
  world_format(&w);
  world_settle(&w);
  mirror_image_failed(w.m, 1, "for the test");
  assert_int_equal(client_do(&w, DISK_WRITE, 8192, 4096, 5), TARN_OK);
  assert_int_equal(client_do(&w, DISK_WRITE, BYTES - 4096, 4096, 6), TARN_OK);
  world_pass(&w, 20 * NS_PER_S);
  world_deactivate(&w);
}

/* It comes back by what its map says, and by no more. */
static void check_what_was_missed_is_copied(void) {
  w.config.images[1].policy.return_by_itself = true;
  uint64_t writes = w.data[1].writes;
  world_settle(&w);
  assert_memory_equal(w.data[0].bytes, w.data[1].bytes, BYTES);
  assert_true(w.data[1].writes - writes < BLOCKS / 4);
}

static void version_1_is_read_and_written_anew(void **state) {
  (void)state;
  make_one_behind();
  rewrite_records(to_version_1);
  check_what_was_missed_is_copied();
  for (uint32_t store = 0; store <= w.config.image_count; store++)
    for (uint32_t slot = 0; slot < 2; slot++) {
      struct record record = record_of(store, slot);
      assert_int_equal(record.version, RECORD_VERSION);
      assert_int_equal(record.layout.map_extents, record_extent_count(&record));
      assert_int_equal(record.layout.moment_offset, 0); /* these disks are as long as version 1 made them */
    }
  world_deactivate(&w);
  world_end(&w);
}

/* A daemon of version 1 that has died in the midst of its writes: what it marked is recovered. */
static void version_1_after_a_crash(void **state) {
  (void)state;
  world_init(&w, 2, BYTES, 512);
  world_format(&w);
  world_settle(&w);
  assert_int_equal(client_do(&w, DISK_WRITE, 8192, 4096, 5), TARN_OK);
  world_die(&w);
  memset(w.data[1].bytes + 8192, 9, 4096);
  rewrite_records(to_version_1);
  world_settle(&w);
  assert_memory_equal(w.data[0].bytes, w.data[1].bytes, BYTES);
  world_deactivate(&w);
  world_end(&w);
}

static void second_maps_where_there_is_room(void **state) {
  (void)state;
  world_init(&w, 2, BYTES, 512);
  for (uint32_t i = 0; i < 2; i++) {
    ram_init(&w.meta[i], &w.disks, mirror_meta_bytes_best(&w.config), 512);
    w.meta[i].disk.env = &w.env;
  }
  world_format(&w);
  struct record record = record_of(0, 0);
  assert_int_equal(record.layout.moment_offset, mirror_meta_bytes(&w.config));
  world_end(&w);
}

/* ---- what a later version may have done ---- */

#define MOVED_TO 524288u

static void to_moved_maps(struct record *record) {
  record->layout = (struct record_layout){.map_offset = MOVED_TO, .map_extents = 5 * 8 * 3840};
}

static void moved_maps_are_found(void **state) {
  (void)state;
  make_one_behind();
  const uint64_t maps = record_of(0, 0).layout.map_offset, room = 5;
  for (uint32_t i = 0; i < 2; i++) {
    const uint8_t *old = w.meta[i].bytes + maps; /* of each slot: a block of top twice, a block of pages twice */
    struct ram_disk moved;
    ram_init(&moved, &w.disks, MOVED_TO + IMAGES_MAX * 2 * (1 + room) * 4096, 512);
    memcpy(moved.bytes, w.meta[i].bytes, maps);
    for (uint32_t slot = 0; slot < IMAGES_MAX; slot++) {
      uint8_t *to = moved.bytes + MOVED_TO + slot * 2 * (1 + room) * 4096;
      memcpy(to, old + slot * 4 * 4096ul, 3 * 4096);
      memcpy(to + (2 + room) * 4096, old + (slot * 4 + 3) * 4096ul, 4096);
    }
    w.meta[i].bytes = moved.bytes;
    w.meta[i].disk.caps.size_bytes = moved.disk.caps.size_bytes;
  }
  rewrite_records(to_moved_maps);
  check_what_was_missed_is_copied();
  world_deactivate(&w);
  assert_int_equal(record_of(1, 0).layout.map_offset, MOVED_TO);
  world_end(&w);
}

static void refused(const char *why) {
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){.force = true}, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_REFUSED);
  row_true(why, strstr(w.why, why) != NULL);
  world_close(&w);
}

static void to_more_space(struct record *record) {
  record->volumes[0].space_bytes = 2 * BYTES;
  record->layout.map_extents *= 2;
}

static void to_maps_over_the_log(struct record *record) { record->layout.map_offset = RECORD_AREA_BYTES; }

static void a_layout_that_is_not_for_us(void **state) {
  (void)state;
  make_one_behind();
  uint8_t before[RECORD_AREA_BYTES];
  rewrite_records(to_more_space);
  memcpy(before, w.meta[0].bytes, sizeof before);
  refused("address space set aside");
  assert_memory_equal(before, w.meta[0].bytes, sizeof before);
  world_end(&w);
  make_one_behind();
  rewrite_records(to_maps_over_the_log);
  refused("maps lie over the log");
  world_end(&w);
}

static void a_newer_version_is_left_alone(void **state) {
  (void)state;
  make_one_behind();
  for (uint32_t store = 0; store <= w.config.image_count; store++)
    for (uint32_t slot = 0; slot < 2; slot++) {
      uint8_t *bytes = store_bytes(store) + slot * RECORD_SLOT_BYTES, content[16 * 508];
      bytes[8] = RECORD_VERSION + 1;
      memset(bytes + 12, 0, 4);
      for (size_t s = 0; s < 16; s++) memcpy(content + s * 508, bytes + s * 512, 508);
      uint32_t crc = crc32c(content, sizeof content);
      for (size_t s = 0; s < 16; s++) memcpy(bytes + s * 512 + 508, &crc, sizeof crc);
      memcpy(bytes + 12, &crc, sizeof crc);
    }
  uint8_t before[RECORD_AREA_BYTES];
  memcpy(before, w.home.bytes, sizeof before);
  refused("newer version of Tarn");
  assert_memory_equal(before, w.home.bytes, sizeof before);
  world_end(&w);
}

static void metadata_without_room_for_the_maps(void **state) {
  (void)state;
  make_one_behind();
  w.meta[1].disk.caps.size_bytes -= 4096;
  world_activate(&w);
  assert_true(strstr(world_image(&w, 1).reason, "no room for the maps") != NULL);
  world_deactivate(&w);
  w.meta[0].disk.caps.size_bytes -= 4096;
  refused("no room for the maps");
  world_end(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(version_1_is_read_and_written_anew), WORLD_TEST(version_1_after_a_crash),
      WORLD_TEST(second_maps_where_there_is_room),    WORLD_TEST(moved_maps_are_found),
      WORLD_TEST(a_layout_that_is_not_for_us),        WORLD_TEST(a_newer_version_is_left_alone),
      WORLD_TEST(metadata_without_room_for_the_maps),
  };
  return cmocka_run_group_tests_name("mirror_version", tests, NULL, NULL);
}
