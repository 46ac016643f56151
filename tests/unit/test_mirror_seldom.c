/* What comes seldom: a master that is not the source of the recovery, a flush that is asked twice, a sector that cannot be read. */
#include "mirror_world.h"

#define MIB (1u << 20)

static uint8_t read_byte(uint64_t offset) {
  struct client_io read;
  client_begin(&w, &read, DISK_READ, offset, 4096, 0);
  for (uint32_t step = 0; step < 100 && !read.done; step++) world_pass(&w, NS_PER_S / 10);
  assert_true(read.done);
  assert_int_equal(read.io.err, TARN_OK);
  uint8_t byte = read.io.data[0];
  buffer_unref(read.io.buffer);
  return byte;
}

/* After a crash b is made master, and a is what is recovered from. Before it is recorded that this is over a write is seen at b, and not
 * yet on a; then comes another crash. */
static void what_is_seen_beside_a_recovery_stays(bool ended) {
  struct client_io write, read;
  world_begin(&w, 2, MIB);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_die(&w);
  w.data[1].holds = RAM_FLUSHES; /* the recovery does not come to its end */
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){.promote = true, .image = 1}, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  world_pass(&w, NS_PER_S);
  assert_true(world_image(&w, 1).master);
  w.meta[0].holds = w.meta[1].holds = w.home.holds = ended ? RAM_WRITES : 0;
  if (ended) ram_release(&w.data[1]);
  w.data[0].holds = RAM_WRITES;
  client_begin(&w, &write, DISK_WRITE, 0, 4096, 0x77);
  world_run(&w);
  assert_int_equal(w.data[0].held_count, 1);
  client_begin(&w, &read, DISK_READ, 0, 4096, 0);
  world_run(&w); /* it may as well wait for the write */
  bool seen = read.done && read.io.err == TARN_OK && read.io.data[0] == 0x77;
  world_die(&w);
  w.data[0].holds = w.data[1].holds = w.meta[0].holds = w.meta[1].holds = w.home.holds = 0;
  world_activate(&w);
  assert_true(!seen || read_byte(0) == 0x77);
}

static void what_is_seen_at_a_new_master_stays_though_another_is_the_source(void **state) {
  (void)state;
  what_is_seen_beside_a_recovery_stays(false);
}

static void what_is_seen_stays_though_the_end_of_the_recovery_is_not_recorded(void **state) {
  (void)state;
  what_is_seen_beside_a_recovery_stays(true);
}

/* b fails a flush, and is out; that cannot be recorded at home. Then a is gone, and the mirror falls. b, which the next activation may
 * believe alone, is flushed once more, and says yes: that proves nothing. */
static void a_flush_that_failed_before_a_fall_is_a_loss(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  world_pass(&w, 20 * NS_PER_S);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  w.home.fails = RAM_WRITES;
  w.data[1].fails = RAM_FLUSHES;
  assert_int_not_equal(world_flush(&w), TARN_OK);
  w.data[1].fails = 0; /* a kernel tells it once */
  assert_int_equal(world_image(&w, 1).state, IMAGE_UNSYNCHRONIZED);
  mirror_image_failed(w.m, 0, "a test");
  world_run(&w);
  assert_true(mirror_has_fallen(w.m));
  world_pass(&w, 5 * NS_PER_S);
  assert_true(mirror_is_idle(w.m) && mirror_is_quiet(w.m));
  bool lost = mirror_may_have_lost(w.m);
  world_close(&w);
  w.home.fails = 0;
  w.config.images[0].data[0] = NULL, w.config.images[0].meta = NULL; /* a is away */
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
  bool believed = world_wait(&w) == TARN_OK;
  assert_true(!believed || lost);
}

/* The same at a stop. */
static void a_flush_that_failed_before_a_stop_is_a_loss(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  world_pass(&w, 20 * NS_PER_S);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  w.home.fails = RAM_WRITES;
  w.data[1].fails = RAM_FLUSHES;
  assert_int_not_equal(world_flush(&w), TARN_OK);
  w.data[1].fails = 0; /* a kernel tells it once */
  mirror_deactivate(w.m, false, world_done, &w);
  (void)world_wait(&w);
  bool lost = mirror_may_have_lost(w.m);
  world_close(&w);
  w.home.fails = 0;
  w.config.images[0].data[0] = NULL, w.config.images[0].meta = NULL; /* a is away */
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
  bool believed = world_wait(&w) == TARN_OK;
  assert_true(!believed || lost);
}

/* One copy of a sector of the log cannot be read, on the only image that there is. */
static void one_copy_of_the_metadata_is_enough(uint64_t at) {
  world_begin(&w, 1, MIB);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_die(&w);
  ram_spoil(&w.meta[0], at, 4096, RAM_READS);
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  assert_int_equal(read_byte(0), 0x55);
}
static void a_log_of_which_one_copy_is_unreadable_is_enough(void **state) {
  (void)state;
  one_copy_of_the_metadata_is_enough(RECORD_AREA_BYTES);
}
static void a_record_of_which_one_copy_is_unreadable_is_enough(void **state) {
  (void)state;
  one_copy_of_the_metadata_is_enough(RECORD_SLOT_BYTES);
}
static void a_home_of_which_one_copy_is_unreadable_confirms(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_die(&w);
  ram_spoil(&w.home, 0, 4096, RAM_READS);
  w.config.images[1].data[0] = NULL, w.config.images[1].meta = NULL;
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
}

/* b has failed a FUA, which may have been told of older writes; then it hangs for a while, and the mirror falls. It has answered all that
 * it held, and is flushed: that it says yes proves nothing. */
static void a_fua_that_failed_before_a_hang_is_a_loss(void **state) {
  (void)state;
  struct client_io write, fua;
  world_begin(&w, 2, MIB);
  world_pass(&w, 20 * NS_PER_S);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  w.home.fails = RAM_WRITES;
  w.data[1].holds = RAM_WRITES;
  client_begin(&w, &write, DISK_WRITE, 8192, 4096, 1);
  client_begin_with(&w, &fua, DISK_WRITE, DISK_FUA, 16384, 4096, 1);
  world_run(&w);
  assert_int_equal(w.data[1].held_count, 2);
  ram_spoil(&w.data[1], 16384, 4096, RAM_WRITES);
  ram_answer_last(&w.data[1]);
  world_run(&w);
  assert_int_equal(world_image(&w, 1).state, IMAGE_UNSYNCHRONIZED);
  mirror_image_failed(w.m, 0, "a test");
  world_pass(&w, 30 * NS_PER_S); /* what b holds counts as hanging */
  ram_release(&w.data[1]);
  world_pass(&w, 5 * NS_PER_S);
  assert_true(mirror_has_fallen(w.m));
  assert_true(mirror_is_idle(w.m) && mirror_is_quiet(w.m));
  assert_true(mirror_may_have_lost(w.m));
}

/* b cannot write its metadata just when a record is due: it has what it had, and what it misses is known. */
static void one_that_fails_in_a_records_round_is_not_copied_in_full(void **state) {
  (void)state;
  world_begin(&w, 3, MIB);
  w.meta[1].fails = RAM_WRITES;
  mirror_image_failed(w.m, 2, "a test");
  world_pass(&w, 2 * NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_UNSYNCHRONIZED);
  w.meta[1].fails = 0;
  world_restore(&w, 1);
  assert_false(world_said(&w, "image b is back: everything"));
}

/* c was fractured, and holds its moment; later b's file was cut. With neither of them is there the newest data, and by force the one is
 * used that holds something: not b, as if it were as it was when it left. */
static void force_uses_no_spoiled_image(void **state) {
  (void)state;
  world_begin(&w, 3, MIB);
  mirror_image_do(w.m, 2, IMAGE_OP_FRACTURE, false, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  memset(w.data[1].bytes + MIB / 2, 0, MIB / 2);
  mirror_image_spoiled(w.m, 1, "its file was made shorter");
  world_pass(&w, NS_PER_S);
  world_die(&w);
  w.config.images[0].data[0] = NULL, w.config.images[0].meta = NULL; /* a is away */
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){.force = true}, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  assert_null(strstr(w.why, "image b is used, as it was when it left"));
  assert_true(world_image(&w, 2).master);
}

/* A sector of b's metadata cannot be read any more, but can be written; a full copy is asked for, which writes all of it anew. */
static void one_whose_metadata_is_unreadable_can_be_copied_in_full(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  mirror_image_failed(w.m, 1, "a test");
  world_pass(&w, NS_PER_S);
  ram_spoil(&w.meta[1], 4096, 4096, RAM_READS);
  mirror_image_do(w.m, 1, IMAGE_OP_SYNC, false, world_done, &w);
  world_bring_back(&w, 1);
  assert_int_equal(world_wait(&w), TARN_OK);
  world_pass(&w, 10 * NS_PER_S);
  world_check_synchronized(&w);
}

/* The log is off, as for a measurement: where a write fails everywhere nothing is marked that could be recovered. */
static void a_write_that_fails_without_a_mark_stops_the_mirror(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  mirror_image_failed(w.m, 1, "a test");
  world_pass(&w, NS_PER_S);
  mirror_set_log(w.m, false);
  ram_spoil(&w.data[0], 65536, 4096, RAM_WRITES);
  assert_int_equal(world_write(&w, 65536, 4096), TARN_SHUTDOWN);
  assert_true(mirror_has_fallen(w.m));
  assert_non_null(strstr(w.log, "the intent log was off"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(what_is_seen_at_a_new_master_stays_though_another_is_the_source),
      WORLD_TEST(what_is_seen_stays_though_the_end_of_the_recovery_is_not_recorded),
      WORLD_TEST(a_flush_that_failed_before_a_fall_is_a_loss),
      WORLD_TEST(a_flush_that_failed_before_a_stop_is_a_loss),
      WORLD_TEST(a_fua_that_failed_before_a_hang_is_a_loss),
      WORLD_TEST(one_that_fails_in_a_records_round_is_not_copied_in_full),
      WORLD_TEST(force_uses_no_spoiled_image),
      WORLD_TEST(a_log_of_which_one_copy_is_unreadable_is_enough),
      WORLD_TEST(a_record_of_which_one_copy_is_unreadable_is_enough),
      WORLD_TEST(one_whose_metadata_is_unreadable_can_be_copied_in_full),
      WORLD_TEST(a_home_of_which_one_copy_is_unreadable_confirms),
      WORLD_TEST(a_write_that_fails_without_a_mark_stops_the_mirror),
  };
  return cmocka_run_group_tests_name("mirror_seldom", tests, NULL, NULL);
}
