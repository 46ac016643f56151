/* What lands of the first commit of an activation; places that copies, and images used by force, have. */
#include "mirror_world.h"

#define MIB (1u << 20)

static void hold_metadata(uint32_t what) {
  w.home.holds = what;
  for (uint32_t i = 0; i < w.config.image_count; i++) w.meta[i].holds = what;
}

/* b failed while something was marked, which its log tells of. The process dies while c has not got what a has. Then
 * b is to be the master by force, and the process dies again in the first commit: of that the log has landed, and
 * the record has not. */
static void a_promotion_that_was_never_recorded_leaves_the_log_of_others(void **state) {
  (void)state;
  world_begin(&w, 3, MIB);
  assert_int_equal(world_write(&w, 5 * 65536, 4096), TARN_OK);
  mirror_image_failed(w.m, 1, "a test");
  world_run(&w);
  w.data[2].holds = RAM_WRITES;
  struct client_io cut;
  client_begin(&w, &cut, DISK_WRITE, 0, 4096, 0x55);
  world_run(&w);
  assert_int_equal(w.data[2].held_count, 1);
  world_die(&w);
  w.data[2].holds = 0;
  world_open(&w);
  hold_metadata(RAM_WRITES);
  mirror_activate(w.m, &(struct mirror_activation){.force = true, .promote = true, .image = 1}, world_done, &w);
  world_run(&w);
  world_land_all_but_the_record(&w, &w.meta[0]);
  world_land_all_but_the_record(&w, &w.meta[2]);
  assert_false(w.done);
  world_die(&w);
  hold_metadata(0);
  world_settle(&w);
  assert_memory_equal(w.data[0].bytes, w.data[2].bytes, MIB);
}

static void give_back(uint32_t i) {
  w.config.images[i].data[0] = &w.data[i].disk;
  w.config.images[i].meta = &w.meta[i].disk;
}

/* b and c are behind. While c is away b is to be the master by force; the process dies in the first commit, of which
 * the maps have landed and the record has not. c misses what it missed. */
static void a_promotion_that_was_never_recorded_leaves_the_maps_of_others(void **state) {
  (void)state;
  world_begin(&w, 3, MIB);
  mirror_image_failed(w.m, 1, "a test");
  mirror_image_failed(w.m, 2, "a test");
  world_run(&w);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_deactivate(&w);
  w.config.images[2].data[0] = w.config.images[2].meta = NULL;
  world_open(&w);
  hold_metadata(RAM_WRITES);
  mirror_activate(w.m, &(struct mirror_activation){.force = true, .promote = true, .image = 1}, world_done, &w);
  world_run(&w);
  world_land_all_but_the_record(&w, &w.meta[0]);
  assert_false(w.done);
  world_die(&w);
  hold_metadata(0);
  give_back(2);
  world_settle(&w);
  assert_int_equal(w.data[0].bytes[0], 0x55);
  assert_int_equal(w.data[2].bytes[0], 0x55);
}

/* b is behind, and at its path is another file. The process dies in the first commit of an activation, of which the
 * maps have landed and the record has not. Then b's own file is there again, and misses what it missed. */
static void a_file_that_was_another_for_a_while_leaves_the_map(void **state) {
  (void)state;
  world_init(&w, 2, MIB, 512);
  world_format(&w);
  world_settle(&w);
  mirror_image_failed(w.m, 1, "a test");
  world_run(&w);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_deactivate(&w);
  for (uint32_t store = 0; store < 3; store++) {
    uint8_t *bytes = store == 2 ? w.home.bytes : w.meta[store].bytes;
    for (uint32_t slot = 0; slot < 2; slot++) {
      struct record record;
      assert_int_equal(record_decode(&record, bytes + slot * RECORD_SLOT_BYTES), TARN_OK);
      record.images[1].stamp.identity = 7;
      record_encode(&record, bytes + slot * RECORD_SLOT_BYTES);
    }
  }
  w.config.images[1].found.identity = 8;
  world_open(&w);
  hold_metadata(RAM_WRITES);
  mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
  world_run(&w);
  world_land_all_but_the_record(&w, &w.meta[0]);
  assert_false(w.done);
  world_die(&w);
  hold_metadata(0);
  w.config.images[1].found.identity = 7;
  world_settle(&w);
  assert_int_equal(w.data[0].bytes[0], 0x55);
  assert_int_equal(w.data[1].bytes[0], 0x55);
}

/* A place that a cannot read is left behind when b is copied to. Then b fails, and the place is written. By force b
 * is used as it was when it left: it never had that place. */
static void an_image_that_is_used_by_force_has_no_place_that_it_never_had(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  mirror_image_failed(w.m, 1, "a test");
  assert_int_equal(world_write(&w, 4 * 65536, 65536), TARN_OK);
  world_pass(&w, 20 * NS_PER_S);
  ram_spoil(&w.data[0], 4 * 65536, 4096, RAM_READS);
  world_bring_back(&w, 1);
  world_pass(&w, 20 * NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
  assert_true(mirror_is_unreadable(w.m, 0, 4 * 65536, 4096));
  mirror_image_failed(w.m, 1, "a test");
  assert_int_equal(client_do(&w, DISK_WRITE, 4 * 65536, 4096, 0x66), TARN_OK);
  assert_false(mirror_is_unreadable(w.m, 0, 4 * 65536, 4096));
  world_pass(&w, NS_PER_S);
  world_deactivate(&w);
  w.config.images[0].data[0] = w.config.images[0].meta = NULL;
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){.force = true}, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  struct client_io read;
  client_begin(&w, &read, DISK_READ, 4 * 65536, 4096, 0);
  tarn_err err = client_end(&w, &read);
  assert_true(err != TARN_OK || read.io.data[0] == 0x55);
}

/* b and c are being copied to. What c misses a cannot read, and b has: it was there when that was written, and a
 * read gets it from there. */
static void what_an_image_that_is_being_copied_to_has_is_not_left_behind(void **state) {
  (void)state;
  world_begin(&w, 3, MIB);
  mirror_image_failed(w.m, 2, "a test");
  assert_int_equal(world_write(&w, 4 * 65536, 4096), TARN_OK);
  world_pass(&w, 7 * NS_PER_S); /* that is flushed, and not marked any more */
  mirror_image_failed(w.m, 1, "a test");
  for (uint32_t k = 8; k < 12; k += 2) assert_int_equal(world_write(&w, k * 65536, 65536), TARN_OK);
  struct image_policy policy = w.config.images[1].policy;
  policy.rate = 4096;
  mirror_set_policy(w.m, 1, &policy);
  ram_spoil(&w.data[0], 4 * 65536, 4096, RAM_READS);
  mirror_image_do(w.m, 1, IMAGE_OP_RESTORE, false, world_done, &w);
  world_bring_back(&w, 1);
  assert_int_equal(world_wait(&w), TARN_OK);
  assert_int_equal(client_do(&w, DISK_READ, 4 * 65536, 4096, 0), TARN_OK);
  mirror_image_do(w.m, 2, IMAGE_OP_RESTORE, false, world_done, &w);
  world_bring_back(&w, 2);
  assert_int_equal(world_wait(&w), TARN_OK);
  world_pass(&w, 60 * NS_PER_S);
  world_check_synchronized(&w);
  assert_int_equal(w.data[1].bytes[4 * 65536], 0x55);
  assert_int_equal(client_do(&w, DISK_READ, 4 * 65536, 4096, 0), TARN_OK);
}

/* b failed. Since then a place of a has been left behind, which b has. By force b is used as it is: with that place. */
static void an_image_that_is_used_by_force_has_every_place_that_it_had(void **state) {
  (void)state;
  world_begin(&w, 3, MIB);
  mirror_image_failed(w.m, 1, "a test");
  mirror_image_failed(w.m, 2, "a test");
  assert_int_equal(world_write(&w, 4 * 65536, 65536), TARN_OK);
  world_pass(&w, 7 * NS_PER_S);
  ram_spoil(&w.data[0], 4 * 65536, 4096, RAM_READS);
  mirror_image_do(w.m, 2, IMAGE_OP_RESTORE, false, world_done, &w);
  world_bring_back(&w, 2);
  assert_int_equal(world_wait(&w), TARN_OK);
  world_pass(&w, 20 * NS_PER_S);
  assert_true(mirror_is_unreadable(w.m, 0, 4 * 65536, 4096));
  world_deactivate(&w);
  uint8_t had = w.data[1].bytes[4 * 65536];
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){.force = true, .promote = true, .image = 1}, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  world_pass(&w, 20 * NS_PER_S);
  assert_int_equal(w.data[1].bytes[4 * 65536], had);
  assert_int_equal(client_do(&w, DISK_READ, 4 * 65536, 4096, 0), TARN_OK);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(a_promotion_that_was_never_recorded_leaves_the_log_of_others),
      WORLD_TEST(a_promotion_that_was_never_recorded_leaves_the_maps_of_others),
      WORLD_TEST(a_file_that_was_another_for_a_while_leaves_the_map),
      WORLD_TEST(an_image_that_is_used_by_force_has_no_place_that_it_never_had),
      WORLD_TEST(what_an_image_that_is_being_copied_to_has_is_not_left_behind),
      WORLD_TEST(an_image_that_is_used_by_force_has_every_place_that_it_had),
  };
  return cmocka_run_group_tests_name("mirror_landed", tests, NULL, NULL);
}
