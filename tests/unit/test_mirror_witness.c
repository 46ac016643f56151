/* Disks that do not hold what the metadata tells of (rule 16): each story once, in memory. */
#include <stdlib.h>

#include "mirror_world.h"

#define MIB   (1u << 20)
#define BYTES (MIB + 512 * 5) /* the last unit is short */

static void begin(uint32_t images) {
  world_init(&w, images, BYTES, 512);
  w.limits.witnesses = WITNESSES_MAX;
  for (uint32_t i = 0; i < images; i++) w.config.images[i].policy.return_by_itself = false;
  world_format(&w);
  world_settle(&w);
}

static void write_at(uint64_t offset, uint64_t length, uint8_t fill) {
  assert_int_equal(client_do(&w, DISK_WRITE, offset, length, fill), TARN_OK);
}

static struct record record_of(uint32_t image) {
  struct record found[2];
  tarn_err errs[2];
  for (uint32_t slot = 0; slot < 2; slot++)
    errs[slot] = record_decode(&found[slot], w.meta[image].bytes + slot * RECORD_SLOT_BYTES);
  assert_true(errs[0] == TARN_OK || errs[1] == TARN_OK);
  bool first = errs[1] != TARN_OK || (errs[0] == TARN_OK && found[0].sequence > found[1].sequence);
  return found[first ? 0 : 1];
}

static bool has_witness(const struct record *record, uint64_t address) {
  for (uint32_t k = 0; k < record->witness_count; k++)
    if (record->witnesses[k].address == address) return true;
  return false;
}

static tarn_err activate(bool force) {
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){.force = force}, world_done, &w);
  return world_wait(&w);
}

static void refused(const char *because) {
  assert_int_equal(activate(false), TARN_REFUSED);
  assert_non_null(strstr(w.why, because));
  world_run(&w);
  world_close(&w);
}

static bool same(uint32_t image, uint32_t other) {
  return memcmp(w.data[image].bytes, w.data[other].bytes, BYTES) == 0;
}

static uint8_t *copy_of(const uint8_t *bytes, uint64_t length) {
  uint8_t *copy = malloc(length);
  assert_non_null(copy);
  memcpy(copy, bytes, length);
  return copy;
}

static void put_back(uint8_t *bytes, uint8_t *copy, uint64_t length) {
  memcpy(bytes, copy, length);
  free(copy);
}

static void swap_data(uint32_t image, uint32_t other) {
  uint8_t *copy = copy_of(w.data[image].bytes, BYTES);
  memcpy(w.data[image].bytes, w.data[other].bytes, BYTES);
  put_back(w.data[other].bytes, copy, BYTES);
}

/* ---- the list ---- */

static void a_clean_stop_fills_the_list(void **state) {
  (void)state;
  begin(2);
  write_at(3 * 65536 + 100, 5000, 1);
  write_at(BYTES - 600, 600, 2);
  world_deactivate(&w);
  struct record record = record_of(1);
  assert_true(record.witness_count > WITNESSES_MAX / 2);
  assert_true(has_witness(&record, 3 * 65536 + 4096));
  assert_true(has_witness(&record, MIB)); /* which is short */
  world_settle(&w);
  world_deactivate(&w);
}

static void a_mark_outlives_the_witnesses_of_its_region(void **state) {
  (void)state;
  begin(2);
  write_at(0, 4096, 1);
  world_deactivate(&w);
  world_settle(&w);
  struct record record = record_of(0);
  assert_true(has_witness(&record, 0));
  write_at(0, 4096, 2);
  record = record_of(0);
  assert_true(has_witness(&record, 0)); /* it does not count, and costs no record now */
  /* Whatever a crash leaves of any commit from now on, activation is not misled. */
  for (uint32_t step = 0; step < 400; step++) {
    world_pass(&w, NS_PER_S / 20);
    record = record_of(0);
    if (!has_witness(&record, 0)) break;
    world_die(&w);
    world_activate(&w);
    world_pass(&w, 2 * NS_PER_S);
  }
  assert_false(has_witness(&record, 0));
  write_at(0, 4096, 3);
  world_pass(&w, 20 * NS_PER_S);
  record = record_of(0);
  assert_true(has_witness(&record, 0)); /* of what was written last */
  world_die(&w);
  world_settle(&w);
  world_deactivate(&w);
}

/* Few writes in many regions: the record must not be written again and again. */
static void the_cost_is_bounded(void **state) {
  (void)state;
  begin(2);
  world_deactivate(&w);
  world_settle(&w);
  uint64_t before = record_of(0).sequence;
  for (uint32_t k = 0; k < 400; k++) write_at(k % 17 * 65536, 512, (uint8_t)k);
  assert_true(record_of(0).sequence - before <= 2 * WITNESSES_MAX);
  world_deactivate(&w);
}

/* ---- disks that changed places ---- */

static void one_behind(void) {
  mirror_image_failed(w.m, 1, "a test");
  write_at(65536, 4096, 7);
  write_at(MIB - 4096, 4096, 8);
}

static void swapped_disks(void **state) {
  (void)state;
  begin(2);
  one_behind();
  world_deactivate(&w);
  swap_data(0, 1);
  uint8_t *before = copy_of(w.meta[0].bytes, w.meta[0].disk.caps.size_bytes);
  refused("image b holds them: have their disks changed places?");
  assert_memory_equal(before, w.meta[0].bytes, w.meta[0].disk.caps.size_bytes); /* nothing has changed */
  free(before);
  swap_data(0, 1);
  world_activate(&w);
  assert_int_equal(w.data[0].bytes[65536], 7);
  world_deactivate(&w);
}

static void swapped_disks_after_a_crash(void **state) {
  (void)state;
  begin(2);
  one_behind();
  world_pass(&w, 20 * NS_PER_S); /* the marks are gone, and there are witnesses again */
  write_at(0, 512, 9);
  world_die(&w);
  swap_data(0, 1);
  refused("it holds other bytes than were recorded of it");
  swap_data(0, 1);
  world_activate(&w);
  world_deactivate(&w);
}

/* Equal disks may change places. */
static void equal_disks_change_places(void **state) {
  (void)state;
  begin(2);
  write_at(0, 4096, 3);
  world_deactivate(&w);
  swap_data(0, 1);
  world_settle(&w);
  world_deactivate(&w);
}

/* ---- what went back to an earlier state ---- */

static void one_disk_goes_back(void **state) {
  (void)state;
  begin(2);
  uint8_t *old = copy_of(w.data[1].bytes, BYTES);
  write_at(65536, 4096, 7);
  world_deactivate(&w);
  put_back(w.data[1].bytes, old, BYTES);
  refused("image b: it holds other bytes");
  assert_int_equal(activate(true), TARN_OK); /* the sound one is copied over it */
  world_pass(&w, 5 * NS_PER_S);
  world_check_synchronized(&w);
  assert_true(same(0, 1));
  assert_int_equal(w.data[1].bytes[65536], 7);
  world_deactivate(&w);
}

/* The state directory, with all metadata of devices, goes back to the last stop; the disks have gone on. */
static void all_metadata_goes_back(void **state) {
  (void)state;
  begin(2);
  write_at(65536, 4096, 5);
  world_deactivate(&w);
  uint64_t length = w.meta[0].disk.caps.size_bytes;
  uint8_t *old[3] = {copy_of(w.meta[0].bytes, length), copy_of(w.meta[1].bytes, length),
                     copy_of(w.home.bytes, RECORD_AREA_BYTES)};
  world_settle(&w);
  one_behind(); /* so that the images differ, and that is forgotten */
  world_deactivate(&w);
  for (uint32_t i = 0; i < 2; i++) put_back(w.meta[i].bytes, old[i], length);
  put_back(w.home.bytes, old[2], RECORD_AREA_BYTES);
  refused("it holds other bytes");
  assert_int_equal(activate(true), TARN_OK);
  world_pass(&w, 5 * NS_PER_S);
  world_check_synchronized(&w);
  assert_true(same(0, 1));
  world_deactivate(&w);
  world_settle(&w); /* no witness of before is left */
  world_deactivate(&w);
}

static void returns_by_itself(void) {
  w.config.images[1].policy.return_by_itself = true;
  if (w.open) mirror_set_policy(w.m, 1, &w.config.images[1].policy);
}

static void is_copied_in_full(void) {
  assert_int_equal(world_image(&w, 1).sync.kind, SYNC_FULL);
  world_pass(&w, 5 * NS_PER_S);
  world_check_synchronized(&w);
  assert_true(same(0, 1));
  world_deactivate(&w);
}

/* It is not what it was when it left: nothing is copied to it before somebody asks for that; then everything is, also if no witness
 * tells by then that it is another one. */
static void an_image_that_is_behind_goes_back(void **state) {
  (void)state;
  begin(2);
  uint8_t *old = copy_of(w.data[1].bytes, BYTES);
  write_at(5 * 65536, 4096, 6);
  world_deactivate(&w);
  world_settle(&w);
  mirror_image_failed(w.m, 1, "a test");
  write_at(65536, 4096, 7);
  world_deactivate(&w);
  put_back(w.data[1].bytes, old, BYTES);
  returns_by_itself();
  world_activate(&w); /* without it */
  assert_non_null(strstr(world_image(&w, 1).reason, "it holds other bytes"));
  uint32_t writes = w.data[1].writes;
  write_at(5 * 65536 + 32768, 4096, 8); /* another extent of the region whose witness has told */
  world_pass(&w, 20 * NS_PER_S);
  assert_int_equal(w.data[1].writes, writes);
  world_restore(&w, 1);
  is_copied_in_full();
}

/* The same while the mirror serves: by itself it stays out, asked back it is copied in full. */
static void an_image_comes_back_with_other_bytes(void **state) {
  (void)state;
  begin(2);
  write_at(5 * 65536, 4096, 6);
  world_pass(&w, 20 * NS_PER_S);
  returns_by_itself();
  mirror_image_failed(w.m, 1, "a test");
  write_at(65536, 4096, 7);
  memset(w.data[1].bytes + 5 * 65536, 0x55, 4096);
  world_bring_back(&w, 1);
  world_run(&w);
  assert_int_equal(world_image(&w, 1).state, IMAGE_UNSYNCHRONIZED);
  assert_non_null(strstr(world_image(&w, 1).reason, "'tarn image restore' copies it in full"));
  world_restore(&w, 1);
  is_copied_in_full();
}

/* ---- who may change it, and what says nothing ---- */

static void an_only_image_may_be_edited(void **state) {
  (void)state;
  begin(1);
  write_at(0, 4096, 1);
  world_deactivate(&w);
  memset(w.data[0].bytes, 0x77, BYTES);
  world_activate(&w);
  world_deactivate(&w);
  world_activate(&w);
  world_deactivate(&w);
}

/* The only current one, or the only one of all, is on another device now: that it was looked at in vain does not speak for it, nor
 * do other bytes. */
static void another_device_must_hold_something(void **state) {
  (void)state;
  static const struct {
    const char *why;
    uint32_t images;
    bool told, same, good;
  } rows[] = {
      {"a copy of it, by all that is known", 2, true, true, true},
      {"nothing is known of what it held", 2, false, true, false},
      {"the same of a mirror of one image", 1, true, true, true},
      {"nothing is known of an only image", 1, false, true, false},
      {"an only image is another disk", 1, true, false, false},
  };
  for (size_t row = 0; row < COUNT_OF(rows); row++) {
    begin(rows[row].images);
    if (rows[row].images == 2) one_behind();
    world_deactivate(&w);
    struct record record = record_of(0);
    record.images[0].stamp.identity = 1;
    if (!rows[row].told) {
      record.witness_count = 0;
      memset(record.witnesses, 0, sizeof record.witnesses);
    }
    for (uint32_t i = 0; i <= rows[row].images; i++) {
      bool home = i == rows[row].images;
      record.self = home ? RECORD_SELF_HOME : (uint8_t)i;
      uint8_t *bytes = home ? w.home.bytes : w.meta[i].bytes;
      for (uint32_t slot = 0; slot < 2; slot++) record_encode(&record, bytes + slot * RECORD_SLOT_BYTES);
    }
    w.config.images[0].found.identity = 2;
    if (!rows[row].same) memset(w.data[0].bytes, 0x77, w.data[0].disk.caps.size_bytes);
    if (rows[row].good) {
      row_true(rows[row].why, activate(false) == TARN_OK);
    } else {
      refused(rows[row].same ? "image a: its file is another one than it was" : "image a: it holds other bytes");
      row_true(rows[row].why, activate(true) == TARN_OK);
    }
    world_deactivate(&w);
    world_end(&w);
  }
}

/* By force an image is used that lacks what was written since it left: so no witness of that time is true any more. */
static void what_is_used_as_it_is_needs_no_witness(void **state) {
  (void)state;
  begin(2);
  one_behind();
  world_deactivate(&w);
  w.config.images[0].data[0] = NULL;
  refused("no image that is here has the newest data");
  assert_int_equal(activate(true), TARN_OK);
  world_deactivate(&w);
  world_activate(&w);
  assert_true(world_image(&w, 1).master);
  world_deactivate(&w);
}

static void what_cannot_be_read_says_nothing(void **state) {
  (void)state;
  begin(2);
  write_at(65536, 4096, 7);
  world_deactivate(&w);
  w.data[1].fails = RAM_READS;
  world_activate(&w);
  w.data[1].fails = 0;
  world_deactivate(&w);
  w.data[1].holds = RAM_READS; /* it hangs */
  world_activate(&w);
  world_pass(&w, NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_UNSYNCHRONIZED);
  ram_release(&w.data[1]);
  world_run(&w);
  world_deactivate(&w);
}

/* After a crash a region's mark says that its bytes may be any: the witness there does not count. */
static void a_marked_region_has_no_witness(void **state) {
  (void)state;
  begin(2);
  write_at(65536, 4096, 7);
  world_deactivate(&w);
  world_activate(&w);
  write_at(65536, 4096, 8);
  world_die(&w);
  world_activate(&w);
  struct record record = record_of(0);
  assert_false(has_witness(&record, 65536));
  world_deactivate(&w);
}

/* Where no image can read they may hold anything, and may be read again one day. */
static void a_place_that_nobody_can_read_has_no_witness(void **state) {
  (void)state;
  begin(2);
  write_at(65536, 4096, 7);
  world_deactivate(&w);
  world_settle(&w);
  ram_spoil(&w.data[0], 65536, 4096, RAM_READS);
  mirror_image_do(w.m, 1, IMAGE_OP_SYNC, false, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  world_pass(&w, 5 * NS_PER_S);
  world_check_synchronized(&w);
  assert_int_equal(world_image(&w, 0).unreadable_bytes, 4096);
  world_deactivate(&w);
  struct record record = record_of(0);
  assert_true(has_witness(&record, 65536));
  w.data[0].bad_count = 0;
  memset(w.data[1].bytes + 65536, 0x99, 4096);
  world_activate(&w);
  world_check_synchronized(&w);
  world_deactivate(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(a_clean_stop_fills_the_list),
      WORLD_TEST(a_mark_outlives_the_witnesses_of_its_region),
      WORLD_TEST(the_cost_is_bounded),
      WORLD_TEST(swapped_disks),
      WORLD_TEST(swapped_disks_after_a_crash),
      WORLD_TEST(equal_disks_change_places),
      WORLD_TEST(one_disk_goes_back),
      WORLD_TEST(all_metadata_goes_back),
      WORLD_TEST(an_image_that_is_behind_goes_back),
      WORLD_TEST(an_image_comes_back_with_other_bytes),
      WORLD_TEST(an_only_image_may_be_edited),
      WORLD_TEST(another_device_must_hold_something),
      WORLD_TEST(what_is_used_as_it_is_needs_no_witness),
      WORLD_TEST(what_cannot_be_read_says_nothing),
      WORLD_TEST(a_marked_region_has_no_witness),
      WORLD_TEST(a_place_that_nobody_can_read_has_no_witness),
  };
  return cmocka_run_group_tests_name("mirror_witness", tests, NULL, NULL);
}
