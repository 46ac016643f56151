/* Two troubles at once, once more: what is undone, what is told early or late, who is waited for in vain, who has left meanwhile. */
#include "mirror_world.h"

#define MIB (1u << 20)

/* b is made master, and no image can flush its metadata just then, though what was written there lands. It is taken back; and a read that
 * sees a write at the master, while it is under way, is not undone by a crash. */
static void a_promotion_that_is_taken_back_undoes_no_read(void **state) {
  (void)state;
  struct client_io write, read;
  world_begin(&w, 2, MIB);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK); /* the region is marked */
  w.home.holds = RAM_WRITES;
  mirror_image_do(w.m, 1, IMAGE_OP_PROMOTE, false, world_done, &w);
  for (uint32_t slot = 0; slot < 2; slot++) { /* that something can be recorded is tried first */
    world_run(&w);
    ram_answer(&w.home);
  }
  w.meta[0].fails = w.meta[1].fails = RAM_FLUSHES;
  world_run(&w);
  ram_release(&w.home);
  assert_int_equal(world_wait(&w), TARN_IO);
  w.meta[0].fails = w.meta[1].fails = 0;
  uint32_t slave = world_image(&w, 0).master ? 1 : 0;
  w.data[slave].holds = RAM_WRITES;
  client_begin(&w, &write, DISK_WRITE, 0, 4096, 0x77);
  world_run(&w);
  if (w.data[slave].held_count == 1) {
    client_begin(&w, &read, DISK_READ, 0, 4096, 0);
    world_run(&w);
    bool seen = read.done && read.io.err == TARN_OK && read.io.data[0] == 0x77;
    world_die(&w);
    w.data[slave].holds = 0;
    world_activate(&w);
    client_begin(&w, &read, DISK_READ, 0, 4096, 0);
    for (uint32_t step = 0; step < 100 && !read.done; step++) world_pass(&w, NS_PER_S / 10);
    assert_int_equal(read.io.err, TARN_OK);
    if (seen) assert_int_equal(read.io.data[0], 0x77);
    buffer_unref(read.io.buffer);
  }
}

/* b is being copied to when it fails, and home cannot be written: who is current does not change by that. */
static void an_unfinished_copy_that_fails_while_home_fails_stops_no_writes(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  assert_int_equal(world_write(&w, 65536, 4096), TARN_OK);
  mirror_image_failed(w.m, 1, "a test");
  world_pass(&w, NS_PER_S);
  w.data[1].holds = RAM_WRITES;
  world_restore(&w, 1);
  for (uint32_t step = 0; step < 1000 && w.data[1].held_count == 0; step++) world_pass(&w, NS_PER_MS);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZING);
  w.home.fails = RAM_WRITES;
  mirror_image_failed(w.m, 1, "a test");
  ram_release(&w.data[1]);
  world_pass(&w, 5 * NS_PER_S);
  uint32_t failed = 0;
  for (uint32_t k = 0; k < 20; k++) {
    failed += world_write(&w, (4 + k % 12) * 65536, 4096) != TARN_OK;
    world_pass(&w, 10 * NS_PER_S);
  }
  assert_int_equal(failed, 0);
}

/* b is out, which is recorded; then home cannot be written, and b's file is made shorter. */
static void an_image_that_is_out_and_spoiled_while_home_fails_stops_no_writes(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  mirror_image_failed(w.m, 1, "a test");
  world_pass(&w, NS_PER_S);
  w.home.fails = RAM_WRITES;
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  mirror_image_spoiled(w.m, 1, "its file was made shorter");
  uint32_t failed = 0;
  for (uint32_t k = 0; k < 20; k++) {
    failed += world_write(&w, (4 + k % 12) * 65536, 4096) != TARN_OK;
    world_pass(&w, 10 * NS_PER_S);
  }
  assert_int_equal(failed, 0);
}

/* No image may be missing. b's removal, by force, is not recorded: then it is missing. */
static void an_image_whose_removal_is_not_recorded_is_missing(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  mirror_set_limits(w.m, 0, -1, false);
  world_begin_removal(&w, 1, true);
  w.home.fails = RAM_WRITES;
  ram_release(&w.home);
  assert_int_equal(world_wait(&w), TARN_IO);
  w.home.fails = 0;
  world_pass(&w, 5 * NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_UNSYNCHRONIZED);
  assert_int_not_equal(world_write(&w, 0, 4096), TARN_OK);
}

/* An image's file is removed while it is added; that is told once. */
static void one_that_is_gone_while_it_is_added_is_not_good(void **state) {
  (void)state;
  world_init(&w, 3, MIB, 512);
  w.config.image_count = 2;
  world_format(&w);
  world_settle(&w);
  struct mirror_image_config c = {
      .name = "c", .node = "n1", .data = {&w.data[2].disk}, .meta = &w.meta[2].disk, .policy = image_policy_default};
  w.meta[2].holds = RAM_READS;
  mirror_image_add(w.m, 2, &c, world_done, &w);
  world_run(&w);
  assert_true(w.meta[2].held_count > 0);
  mirror_image_failed(w.m, 2, "its file was removed");
  ram_release(&w.meta[2]);
  (void)world_wait(&w);
  world_pass(&w, 20 * NS_PER_S);
  assert_int_not_equal(world_image(&w, 2).state, IMAGE_SYNCHRONIZED);
}

/* The same of one that is made shorter while the mirror is being activated. */
static void one_that_is_spoiled_during_an_activation_is_not_good(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  world_deactivate(&w);
  w.meta[1].holds = RAM_WRITES;
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
  world_run(&w);
  assert_true(w.meta[1].held_count > 0);
  memset(w.data[1].bytes + MIB / 2, 0, MIB / 2);
  mirror_image_spoiled(w.m, 1, "its file was made shorter");
  ram_release(&w.meta[1]);
  assert_int_equal(world_wait(&w), TARN_OK);
  world_pass(&w, 20 * NS_PER_S);
  struct mirror_image_status b = world_image(&w, 1);
  assert_true(b.state != IMAGE_SYNCHRONIZED || memcmp(w.data[0].bytes, w.data[1].bytes, MIB) == 0);
}

/* And during a stop. */
static void one_that_is_spoiled_during_a_stop_is_not_good(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  world_pass(&w, 20 * NS_PER_S);
  w.data[0].holds = RAM_FLUSHES;
  mirror_deactivate(w.m, false, world_done, &w);
  world_run(&w);
  assert_int_equal(w.data[0].held_count, 1);
  memset(w.data[1].bytes + MIB / 2, 0, MIB / 2);
  mirror_image_spoiled(w.m, 1, "its file was made shorter");
  ram_release(&w.data[0]);
  (void)world_wait(&w);
  world_close(&w);
  world_activate(&w);
  world_pass(&w, 20 * NS_PER_S);
  struct mirror_image_status b = world_image(&w, 1);
  assert_true(b.state != IMAGE_SYNCHRONIZED || memcmp(w.data[0].bytes, w.data[1].bytes, MIB) == 0);
}

/* The last good image, a, could not write a block, and b, which was copied from it while the recovery paused, joins while what recovery
 * has chosen is being written to a: b must have that, too. */
static void an_image_that_joins_during_a_recovery_has_what_that_chooses(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  mirror_image_failed(w.m, 1, "a test");
  world_pass(&w, NS_PER_S);
  ram_spoil(&w.data[0], 65536, 4096, RAM_WRITES);
  assert_int_equal(world_write(&w, 65536, 4096), TARN_IO);
  world_pass(&w, 3 * NS_PER_S);
  w.data[1].holds = RAM_FLUSHES; /* of the checkpoint by which b joins */
  world_restore(&w, 1);
  for (uint32_t step = 0; step < 5000 && w.data[1].held_count == 0; step++) world_pass(&w, NS_PER_MS);
  assert_int_equal(w.data[1].held_count, 1);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZING);
  memset(w.data[0].bytes + 65536, 0x55, 1024); /* a part of the write lands */
  w.data[0].bad_count = 0;                     /* and writes are good again */
  w.data[0].holds = RAM_WRITES;
  for (uint32_t step = 0; step < 5000 && w.data[0].held_count == 0; step++) world_pass(&w, NS_PER_MS);
  assert_int_equal(w.data[0].held_count, 1); /* recovery's */
  ram_release(&w.data[1]);
  world_run(&w);
  ram_release(&w.data[0]);
  world_pass(&w, 60 * NS_PER_S);
  world_check_synchronized(&w);
  assert_true(mirror_image_is_equal(w.m, 0) && mirror_image_is_equal(w.m, 1));
  assert_memory_equal(w.data[0].bytes, w.data[1].bytes, MIB);
}

/* Fewer are current than must be, since one has failed in the very round of the activation. */
static void an_activation_that_loses_an_image_asks_how_many_must_be(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  world_deactivate(&w);
  w.config.min_images = 2;
  w.meta[1].fails = RAM_WRITES;
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
  assert_int_not_equal(world_wait(&w), TARN_OK);
}

/* b's removal is not recorded, and it stays out for longer than generations are remembered: it is known all the same. */
static void an_image_whose_removal_is_not_recorded_is_known_for_ever(void **state) {
  (void)state;
  world_init(&w, 3, MIB, 512);
  w.limits.history = 3;
  world_format(&w);
  world_settle(&w);
  world_begin_removal(&w, 1, true);
  w.home.fails = RAM_WRITES;
  ram_release(&w.home);
  assert_int_equal(world_wait(&w), TARN_IO);
  w.home.fails = 0;
  for (uint32_t k = 0; k < 100 && !(w.reopened & 1u << 1); k++)
    world_pass(&w, NS_PER_S); /* its disk takes long to open */
  assert_true(w.reopened & 1u << 1);
  for (uint32_t k = 0; k < 5; k++) {
    mirror_image_failed(w.m, 2, "a test");
    world_pass(&w, NS_PER_S);
    world_restore(&w, 2);
    world_pass(&w, 5 * NS_PER_S);
    assert_int_equal(world_image(&w, 2).state, IMAGE_SYNCHRONIZED);
  }
  mirror_image_reopened(w.m, 1, &w.config.images[1]);
  world_pass(&w, 10 * NS_PER_S);
  assert_string_equal(world_image(&w, 1).reason, "");
  world_check_synchronized(&w);
}

/* A write of a client has read the block at its head from a, the source of the recovery, and the one at its tail when a is out: b holds
 * other bytes at the head, and a read may have shown them since. */
static void a_write_that_has_read_from_who_has_left_reads_again(void **state) {
  (void)state;
  struct client_io write;
  world_init(&w, 2, MIB, 4096);
  world_format(&w);
  world_settle(&w);
  for (uint32_t region = 0; region < 6; region++) assert_int_equal(world_write(&w, region * 65536, 8192), TARN_OK);
  world_die(&w);
  memset(w.data[1].bytes + 5 * 65536, 0xbb, 8192); /* a write was under way: b has it */
  w.data[0].holds = RAM_READS;
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
  for (uint32_t step = 0; step < 100 && !w.done; step++) {
    ram_answer_all(&w.data[0]); /* witnesses */
    world_run(&w);
  }
  assert_int_equal(world_wait(&w), TARN_OK);
  world_run(&w);
  client_begin(&w, &write, DISK_WRITE, 5 * 65536 + 1024, 6144, 0x77);
  world_run(&w);
  assert_true(w.data[0].held_count > 1);
  ram_answer_last(&w.data[0]); /* the head */
  world_run(&w);
  assert_true(w.data[0].held_count > 1);
  mirror_image_failed(w.m, 0, "a test");
  ram_release(&w.data[0]);
  assert_int_equal(client_end(&w, &write), TARN_OK);
  assert_int_equal(w.data[1].bytes[5 * 65536], 0xbb);
  assert_int_equal(w.data[1].bytes[5 * 65536 + 1024], 0x77);
  assert_int_equal(w.data[1].bytes[5 * 65536 + 8191], 0xbb);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(an_image_whose_removal_is_not_recorded_is_known_for_ever),
      WORLD_TEST(a_write_that_has_read_from_who_has_left_reads_again),
      WORLD_TEST(an_activation_that_loses_an_image_asks_how_many_must_be),
      WORLD_TEST(an_image_that_joins_during_a_recovery_has_what_that_chooses),
      WORLD_TEST(a_promotion_that_is_taken_back_undoes_no_read),
      WORLD_TEST(an_unfinished_copy_that_fails_while_home_fails_stops_no_writes),
      WORLD_TEST(an_image_that_is_out_and_spoiled_while_home_fails_stops_no_writes),
      WORLD_TEST(an_image_whose_removal_is_not_recorded_is_missing),
      WORLD_TEST(one_that_is_gone_while_it_is_added_is_not_good),
      WORLD_TEST(one_that_is_spoiled_during_an_activation_is_not_good),
      WORLD_TEST(one_that_is_spoiled_during_a_stop_is_not_good),
  };
  return cmocka_run_group_tests_name("mirror_more_troubles", tests, NULL, NULL);
}
