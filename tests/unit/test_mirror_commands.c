/* Commands beside a recovery, and while home fails: what they must not undo, or end. */
#include "mirror_world.h"

#define MIB (1u << 20)

/* A write is seen at the master while it is under way, and then it fails everywhere. While it cannot be recovered b is made master: what
 * was seen is not undone by that. */
static void a_promotion_beside_a_recovery_undoes_no_read(void **state) {
  (void)state;
  struct client_io write, read;
  world_begin(&w, 2, MIB);
  assert_int_equal(world_write(&w, 65536, 4096), TARN_OK);
  w.data[0].holds = w.data[1].holds = RAM_WRITES;
  client_begin(&w, &write, DISK_WRITE, 65536, 4096, 0x77);
  world_run(&w);
  assert_int_equal(w.data[0].held_count, 1);
  memset(w.data[0].bytes + 65536, 0x77, 4096); /* it lands on a, */
  client_begin(&w, &read, DISK_READ, 65536, 4096, 0);
  world_run(&w);
  assert_true(read.done && read.io.err == TARN_OK && read.io.data[0] == 0x77);
  buffer_unref(read.io.buffer);
  ram_spoil(&w.data[0], 65536, 4096, RAM_WRITES);
  ram_spoil(&w.data[1], 65536, 4096, RAM_WRITES);
  ram_release(&w.data[0]);
  ram_release(&w.data[1]);
  assert_int_equal(client_end(&w, &write), TARN_IO);
  mirror_image_do(w.m, 1, IMAGE_OP_PROMOTE, false, world_done, &w);
  (void)world_wait(&w); /* it may as well be refused */
  w.data[0].bad_count = w.data[1].bad_count = 0;
  world_pass(&w, 10 * NS_PER_S);
  client_begin(&w, &read, DISK_READ, 65536, 4096, 0);
  world_pass(&w, 5 * NS_PER_S);
  assert_true(read.done && read.io.err == TARN_OK);
  assert_int_equal(read.io.data[0], 0x77);
  buffer_unref(read.io.buffer);
}

/* Zeroes stand in line before b's disk when b is removed by force: the disk is somebody else's from then on. */
static void a_removed_image_gets_no_zeroes_any_more(void **state) {
  (void)state;
  struct client_io zeroes[4];
  world_begin(&w, 2, MIB);
  w.data[1].holds = RAM_WRITES;
  for (uint32_t i = 0; i < COUNT_OF(zeroes); i++) client_begin(&w, &zeroes[i], DISK_WRITE_ZEROES, i * 65536, 4096, 0);
  world_run(&w);
  uint32_t given = w.data[1].held_count;
  assert_true(given > 0 && given < COUNT_OF(zeroes));
  mirror_image_do(w.m, 1, IMAGE_OP_REMOVE, true, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  uint32_t writes = w.data[1].writes;
  ram_release(&w.data[1]);
  for (uint32_t i = 0; i < COUNT_OF(zeroes); i++) assert_int_equal(client_end(&w, &zeroes[i]), TARN_OK);
  assert_int_equal(w.data[1].writes, writes);
}

/* Home fails, b fails, and none may be missing. What has fallen is stopped: nothing is to be recorded any more. */
static void a_fallen_mirror_is_stopped_though_home_fails(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  mirror_set_limits(w.m, 0, -1, false);
  w.home.fails = RAM_WRITES;
  mirror_image_failed(w.m, 1, "a test");
  world_pass(&w, 5 * NS_PER_S);
  assert_true(mirror_has_fallen(w.m));
  mirror_deactivate(w.m, false, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
}

/* A write was seen at the master, a, before a crash, and was not answered. Then b is made master, and a, from which is recovered, is taken
 * out by command before that is done: what was seen is not undone by that. */
static void what_was_seen_before_a_crash_stays(enum mirror_image_op op) {
  struct client_io read;
  world_init(&w, 2, MIB, 512);
  w.limits.copies = 2;
  world_format(&w);
  world_settle(&w);
  for (uint32_t region = 0; region < 6; region++) assert_int_equal(world_write(&w, region * 65536, 4096), TARN_OK);
  struct client_io write;
  w.data[1].holds = RAM_WRITES;
  client_begin(&w, &write, DISK_WRITE, 5 * 65536, 4096, 0x77);
  world_run(&w);
  client_begin(&w, &read, DISK_READ, 5 * 65536, 4096, 0);
  world_run(&w);
  assert_true(read.done && read.io.err == TARN_OK && read.io.data[0] == 0x77);
  w.data[1].holds = 0;
  world_die(&w);
  w.data[0].holds = RAM_READS;
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){.promote = true, .image = 1}, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  world_run(&w);
  assert_true(w.data[0].held_count > 0);
  mirror_image_do(w.m, 0, op, false, world_done, &w);
  world_run(&w);
  ram_release(&w.data[0]);
  (void)world_wait(&w); /* it may as well be refused */
  client_begin(&w, &read, DISK_READ, 5 * 65536, 4096, 0);
  for (uint32_t step = 0; step < 100 && !read.done; step++) world_pass(&w, NS_PER_S / 10);
  assert_true(read.done && read.io.err == TARN_OK);
  assert_int_equal(read.io.data[0], 0x77);
  buffer_unref(read.io.buffer);
}
static void a_source_that_is_fractured_takes_nothing_back(void **state) {
  (void)state;
  what_was_seen_before_a_crash_stays(IMAGE_OP_FRACTURE);
}
static void a_source_that_is_removed_takes_nothing_back(void **state) {
  (void)state;
  what_was_seen_before_a_crash_stays(IMAGE_OP_REMOVE);
}
static void a_source_that_is_copied_in_full_takes_nothing_back(void **state) {
  (void)state;
  what_was_seen_before_a_crash_stays(IMAGE_OP_SYNC);
}

/* c is missing, which is more than may be, and the mirror serves since it was activated by force. A command that cannot be recorded takes
 * nothing out, and does not end that. */
static void a_command_that_is_not_recorded_ends_no_forced_service(void **state) {
  (void)state;
  world_begin(&w, 3, MIB);
  world_deactivate(&w);
  w.config.max_missing = 0;
  w.config.images[2].data[0] = NULL, w.config.images[2].meta = NULL;
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){.force = true}, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  world_pass(&w, 20 * NS_PER_S);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  w.home.holds = RAM_WRITES;
  mirror_image_do(w.m, 1, IMAGE_OP_PROMOTE, false, world_done, &w);
  for (uint32_t slot = 0; slot < 2; slot++) { /* that something can be recorded is tried first */
    world_run(&w);
    ram_answer(&w.home);
  }
  world_run(&w);
  w.home.fails = RAM_WRITES;
  ram_release(&w.home);
  assert_int_equal(world_wait(&w), TARN_IO);
  w.home.fails = 0;
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(a_removed_image_gets_no_zeroes_any_more),
      WORLD_TEST(a_fallen_mirror_is_stopped_though_home_fails),
      WORLD_TEST(a_command_that_is_not_recorded_ends_no_forced_service),
      WORLD_TEST(a_source_that_is_fractured_takes_nothing_back),
      WORLD_TEST(a_source_that_is_removed_takes_nothing_back),
      WORLD_TEST(a_source_that_is_copied_in_full_takes_nothing_back),
      WORLD_TEST(a_promotion_beside_a_recovery_undoes_no_read),
  };
  return cmocka_run_group_tests_name("mirror_commands", tests, NULL, NULL);
}
