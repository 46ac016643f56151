/* Two troubles at once: while one thing goes wrong, another one happens. */
#include "mirror_world.h"

#define MIB (1u << 20)

static bool verify_ended;
static void verify_done(struct mirror *m, tarn_err err, const char *why, void *context) {
  (void)m, (void)err, (void)why, (void)context;
  verify_ended = true;
}

/* c missed region 0, and all of it is copied; the flush of the checkpoint by which it joins is held by c's disk. */
static void c_is_about_to_join(void) {
  assert_int_equal(world_write(&w, 16384, 4096), TARN_OK);
  mirror_image_failed(w.m, 2, "a test");
  world_run(&w);
  w.data[0].bytes[5000] ^= 1; /* a rots, before it is copied from */
  mirror_image_do(w.m, 2, IMAGE_OP_RESTORE, false, world_done, &w);
  world_bring_back(&w, 2);
  w.data[2].holds = RAM_FLUSHES;
  assert_int_equal(world_wait(&w), TARN_OK);
  for (uint32_t step = 0; step < 100 && w.data[2].held_count == 0; step++) world_pass(&w, NS_PER_MS);
  assert_int_equal(w.data[2].held_count, 1);
  assert_int_equal(world_image(&w, 2).state, IMAGE_SYNCHRONIZING);
}

/* A verify repairs from b, and c, copied from a while that was wrong, joins between the comparison and the repair. */
static void an_image_that_joins_before_a_repair_is_repaired(void **state) {
  (void)state;
  struct client_io write;
  world_begin(&w, 3, MIB);
  c_is_about_to_join();
  assert_int_equal(w.data[2].bytes[5000], w.data[0].bytes[5000]);
  verify_ended = false;
  w.data[1].holds = RAM_READS;
  mirror_verify(w.m, 1, verify_done, &w);
  world_run(&w);
  assert_int_equal(w.data[1].held_count, 1); /* a and b are being compared */
  w.data[0].holds = RAM_WRITES;
  client_begin(&w, &write, DISK_WRITE, 7168, 512, 9); /* stands before the repair */
  world_run(&w);
  ram_release(&w.data[1]);
  world_run(&w);
  assert_int_equal(w.data[0].held_count, 1);
  ram_release(&w.data[2]); /* c joins */
  world_run(&w);
  assert_int_equal(world_image(&w, 2).state, IMAGE_SYNCHRONIZED);
  ram_release(&w.data[0]);
  assert_int_equal(client_end(&w, &write), TARN_OK);
  world_pass(&w, 5 * NS_PER_S);
  assert_true(verify_ended);
  assert_int_equal(mirror_verify_result(w.m)->repaired_bytes, 4096);
  assert_int_equal(mirror_verify_result(w.m)->left_differing_bytes, 0);
  world_check_synchronized(&w);
  assert_memory_equal(w.data[0].bytes, w.data[1].bytes, MIB);
  assert_memory_equal(w.data[2].bytes, w.data[1].bytes, MIB);
  world_deactivate(&w);
}

/* The commit by which c would join ends after a fall. Then the next activation would believe it, alone, and what its cache had is neither
 * flushed nor told as lost. */
static void no_image_joins_after_a_fall(void **state) {
  (void)state;
  world_begin(&w, 3, MIB);
  c_is_about_to_join();
  w.meta[0].holds = RAM_WRITES;
  ram_release(&w.data[2]);
  world_run(&w);
  assert_true(w.meta[0].held_count > 0); /* of the commit by which c joins */
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  mirror_set_limits(w.m, 0, -1, false);
  assert_false(mirror_has_fallen(w.m)); /* c is being copied to, nobody is missing */
  mirror_image_failed(w.m, 1, "a test");
  assert_true(mirror_has_fallen(w.m));
  ram_release(&w.meta[0]);
  world_run(&w);
  assert_true(mirror_is_idle(w.m) && mirror_is_quiet(w.m));
  assert_int_equal(world_image(&w, 2).state, IMAGE_SYNCHRONIZING);
  world_close(&w);
  w.config.images[0].data[0] = NULL, w.config.images[0].meta = NULL; /* a is away */
  w.config.max_missing = -1;
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_REFUSED); /* its own record does not call it SYNCHRONIZED */
  world_close(&w);
  w.open = false;
}

/* The state directory cannot be written, which harms nobody as long as all stay where they are; and then b comes back by itself. */
static void an_image_that_comes_back_while_home_fails_stops_no_writes(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  mirror_image_failed(w.m, 1, "a test");
  world_pass(&w, NS_PER_S);
  w.home.fails = RAM_WRITES;
  for (uint32_t k = 0; k < 4; k++) {
    assert_int_equal(world_write(&w, k * 65536, 4096), TARN_OK);
    assert_int_equal(world_flush(&w), TARN_OK);
  }
  world_bring_back(&w, 1);
  uint32_t failed = 0;
  for (uint32_t k = 0; k < 60; k++) {
    failed += world_write(&w, (4 + k % 12) * 65536, 4096) != TARN_OK;
    world_pass(&w, 10 * NS_PER_S);
  }
  assert_int_equal(failed, 0);
  w.home.fails = 0;
  world_deactivate(&w);
}

/* An image's metadata fails in the very round of the activation: then more are missing than may. */
static void an_activation_that_loses_an_image_asks_how_many_may_miss(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  world_deactivate(&w);
  w.config.max_missing = 0;
  w.meta[1].fails = RAM_WRITES;
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
  tarn_err err = world_wait(&w);
  if (err == TARN_OK) {
    world_pass(&w, 30 * NS_PER_S);
    assert_int_equal(world_image(&w, 1).state, IMAGE_UNSYNCHRONIZED);
    assert_int_equal(world_write(&w, 0, 4096), TARN_SHUTDOWN);
    assert_int_equal(mirror_state_now(w.m), MIRROR_ATTENTION);
  }
}

/* b's file is made shorter, which makes the mirror fall; when somebody has made it as long as before the mirror is activated again. */
static void a_spoiled_image_is_copied_in_full_also_after_a_fall(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  world_pass(&w, 20 * NS_PER_S); /* no region is marked any more */
  mirror_set_limits(w.m, 0, -1, false);
  memset(w.data[1].bytes + MIB / 2, 0, MIB / 2);
  mirror_image_spoiled(w.m, 1, "its file was made shorter");
  assert_true(mirror_has_fallen(w.m));
  world_run(&w);
  assert_true(mirror_is_idle(w.m) && mirror_is_quiet(w.m));
  world_close(&w);
  world_activate(&w);
  world_pass(&w, 30 * NS_PER_S);
  world_check_synchronized(&w);
  assert_memory_equal(w.data[0].bytes, w.data[1].bytes, MIB);
  world_deactivate(&w);
}

/* b is to be removed while something has still to be recovered, and that cannot be recorded: it is in again, and has not got what was
 * recovered meanwhile. */
static void one_whose_removal_is_not_recorded_gets_what_was_recovered(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  for (uint32_t i = 0; i < 2; i++) ram_spoil(&w.data[i], 0, 4096, RAM_WRITES);
  assert_int_equal(world_write(&w, 0, 4096), TARN_IO);
  for (uint32_t i = 0; i < 2; i++) w.data[i].bad_count = 0;
  w.data[0].bytes[100] = 0xaa; /* a part of it has landed on a */
  world_begin_removal(&w, 1, false);
  world_pass(&w, 5 * NS_PER_S); /* it is written again, to a alone */
  w.home.fails = RAM_WRITES;
  ram_release(&w.home);
  assert_int_equal(world_wait(&w), TARN_IO);
  w.home.fails = 0;
  if (world_image(&w, 1).state == IMAGE_UNSYNCHRONIZED) world_restore(&w, 1);
  world_pass(&w, 20 * NS_PER_S);
  world_check_synchronized(&w);
  assert_true(mirror_image_is_equal(w.m, 0) && mirror_image_is_equal(w.m, 1));
  assert_memory_equal(w.data[0].bytes, w.data[1].bytes, MIB);
}

/* The state directory cannot be written; a command that is refused for that reason costs no client its write. */
static void a_command_that_is_refused_while_home_fails_fails_no_write(void **state) {
  (void)state;
  struct client_io write;
  world_begin(&w, 2, MIB);
  w.home.fails = RAM_WRITES;
  assert_int_equal(world_write(&w, 65536, 4096), TARN_OK);
  mirror_image_do(w.m, 1, IMAGE_OP_FRACTURE, false, world_done, &w);
  client_begin(&w, &write, DISK_WRITE, 2 * 65536, 4096, 1);
  assert_int_equal(client_end(&w, &write), TARN_OK);
  assert_int_equal(world_wait(&w), TARN_IO);
  w.home.fails = 0;
  world_deactivate(&w);
}

/* Home takes that something can be recorded, and no longer what the command does. */
static void begin_unrecorded(uint32_t i, enum mirror_image_op op) {
  w.home.holds = RAM_WRITES;
  mirror_image_do(w.m, i, op, false, world_done, &w);
  for (uint32_t slot = 0; slot < 2; slot++) {
    world_run(&w);
    ram_answer(&w.home);
  }
  w.home.fails = RAM_WRITES;
  world_run(&w);
  ram_release(&w.home);
  assert_int_equal(world_wait(&w), TARN_IO);
  w.home.fails = 0;
}

/* b was fractured, to keep a moment. It cannot be removed now: then it stays what it is, and is not copied over by itself. */
static void a_fractured_image_that_cannot_be_removed_keeps_its_moment(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  mirror_image_do(w.m, 1, IMAGE_OP_FRACTURE, false, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  assert_int_equal(world_image(&w, 1).state, IMAGE_CONSISTENT);
  assert_int_equal(world_write(&w, 0, 65536), TARN_OK); /* what b keeps is no longer anywhere else */
  begin_unrecorded(1, IMAGE_OP_REMOVE);
  w.reopened = 0;
  world_pass(&w, 600 * NS_PER_S);
  if (w.reopened & 1u << 1) { /* nobody has asked for it */
    mirror_image_reopened(w.m, 1, &w.config.images[1]);
    world_pass(&w, 60 * NS_PER_S);
  }
  assert_int_not_equal(w.data[1].bytes[0], 0x55);
  assert_int_equal(world_image(&w, 1).state, IMAGE_CONSISTENT);
}

/* b is made master, and home does not take that; the images have. A read that sees a write at the master, while it is under way, is
 * not undone by a crash. */
static void a_promotion_that_is_not_recorded_undoes_no_read(void **state) {
  (void)state;
  struct client_io write, read;
  world_begin(&w, 2, MIB);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK); /* the region is marked */
  begin_unrecorded(1, IMAGE_OP_PROMOTE);
  uint32_t slave = world_image(&w, 0).master ? 1 : 0;
  w.data[slave].holds = RAM_WRITES;
  client_begin(&w, &write, DISK_WRITE, 0, 4096, 0x77);
  world_run(&w);
  assert_int_equal(w.data[slave].held_count, 1);
  client_begin(&w, &read, DISK_READ, 0, 4096, 0);
  world_run(&w);
  assert_true(read.done);
  assert_int_equal(read.io.err, TARN_OK);
  assert_int_equal(read.io.data[0], 0x77);
  world_die(&w);
  w.data[slave].holds = 0;
  world_activate(&w);
  client_begin(&w, &read, DISK_READ, 0, 4096, 0);
  for (uint32_t step = 0; step < 100 && !read.done; step++) world_pass(&w, NS_PER_S / 10);
  assert_int_equal(read.io.err, TARN_OK);
  assert_int_equal(read.io.data[0], 0x77);
  buffer_unref(read.io.buffer);
  world_deactivate(&w);
}

/* The state directory cannot be written, and the image fails again before home has taken that it is back: nothing was written to it, so
 * nobody need wait for a record of that. */
static void one_that_fails_on_its_way_back_stops_no_writes(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  mirror_image_failed(w.m, 1, "a test");
  world_pass(&w, NS_PER_S);
  w.home.fails = RAM_WRITES;
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_bring_back(&w, 1);
  world_pass(&w, 5 * NS_PER_S);
  assert_int_equal(world_write(&w, 65536, 4096), TARN_OK);
  mirror_image_failed(w.m, 1, "a test");
  world_pass(&w, 5 * NS_PER_S);
  assert_int_equal(world_write(&w, 2 * 65536, 4096), TARN_OK);
  w.home.fails = 0;
  world_deactivate(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(an_image_that_joins_before_a_repair_is_repaired),
      WORLD_TEST(no_image_joins_after_a_fall),
      WORLD_TEST(an_image_that_comes_back_while_home_fails_stops_no_writes),
      WORLD_TEST(a_spoiled_image_is_copied_in_full_also_after_a_fall),
      WORLD_TEST(one_whose_removal_is_not_recorded_gets_what_was_recovered),
      WORLD_TEST(a_command_that_is_refused_while_home_fails_fails_no_write),
      WORLD_TEST(an_activation_that_loses_an_image_asks_how_many_may_miss),
      WORLD_TEST(a_fractured_image_that_cannot_be_removed_keeps_its_moment),
      WORLD_TEST(a_promotion_that_is_not_recorded_undoes_no_read),
      WORLD_TEST(one_that_fails_on_its_way_back_stops_no_writes),
  };
  return cmocka_run_group_tests_name("mirror_two_troubles", tests, NULL, NULL);
}
