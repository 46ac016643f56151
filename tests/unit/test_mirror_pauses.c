/* What an image gets while a recovery pauses. */
#include "mirror_world.h"

#define MIB (1u << 20)

/* b is out, and a, the last good image, has a block that cannot be written any more, as a client has found. */
static void begin_with_a_bad_block(void) {
  world_begin(&w, 2, MIB);
  mirror_image_failed(w.m, 1, "a test");
  world_pass(&w, NS_PER_S);
  ram_spoil(&w.data[0], 65536, 4096, RAM_WRITES);
  assert_int_equal(world_write(&w, 65536, 4096), TARN_IO);
}

/* A write of the last good image has failed, and a copy is made of it while the recovery pauses. Later its bytes there are others: of
 * what failed more lands, or the page cache, which keeps what a failed write-back has not brought down, forgets it. Recovery takes what
 * is there then; and the copy must have that, too. */
static void what_recovery_chooses_is_what_a_copy_has(void **state) {
  (void)state;
  begin_with_a_bad_block();
  world_pass(&w, 3 * NS_PER_S);
  w.data[1].holds = RAM_FLUSHES; /* of the checkpoint by which b joins */
  world_restore(&w, 1);
  for (uint32_t step = 0; step < 5000 && w.data[1].held_count == 0; step++) world_pass(&w, NS_PER_MS);
  assert_int_equal(w.data[1].held_count, 1);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZING);
  memset(w.data[0].bytes + 65536, 0x55, 1024); /* a part of the write lands */
  w.data[0].bad_count = 0;                     /* and writes are good again */
  world_pass(&w, 4 * NS_PER_S);                /* recovery tries again */
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZING);
  ram_release(&w.data[1]);
  world_pass(&w, 60 * NS_PER_S);
  world_check_synchronized(&w);
  assert_true(mirror_image_is_equal(w.m, 0) && mirror_image_is_equal(w.m, 1));
  assert_memory_equal(w.data[0].bytes, w.data[1].bytes, MIB);
}

/* b is being copied to, and has still to write what was read from a, when a flush fails on a, which loses what it had in its cache.
 * Recovery takes what is there now; and so must b. */
static void what_was_read_before_a_flush_failed_does_not_count(void **state) {
  (void)state;
  static uint8_t before[4096];
  world_begin(&w, 2, MIB);
  mirror_image_failed(w.m, 1, "a test");
  world_pass(&w, NS_PER_S);
  memcpy(before, w.data[0].bytes + 65536, sizeof before);
  assert_int_equal(world_write(&w, 65536, 4096), TARN_OK); /* in a's cache */
  w.data[1].holds = RAM_WRITES;
  world_restore(&w, 1);
  for (uint32_t step = 0; step < 1000 && w.data[1].held_count == 0; step++) world_pass(&w, NS_PER_MS);
  assert_int_equal(w.data[1].held_count, 1);
  w.data[0].fails = RAM_FLUSHES;
  assert_int_equal(world_flush(&w), TARN_IO);
  memcpy(w.data[0].bytes + 65536, before, sizeof before); /* and never comes down */
  w.data[0].fails = 0;
  ram_release(&w.data[1]);
  world_pass(&w, 60 * NS_PER_S);
  world_check_synchronized(&w);
  assert_true(mirror_image_is_equal(w.m, 0) && mirror_image_is_equal(w.m, 1));
  assert_memory_equal(w.data[0].bytes, w.data[1].bytes, MIB);
}

/* The last good image cannot write a block, and cannot flush. What is copied from it is copied again, since its flush has failed: now and
 * then, not without a break. */
static void a_flush_that_fails_is_not_tried_without_a_break(void **state) {
  (void)state;
  begin_with_a_bad_block();
  world_pass(&w, 3 * NS_PER_S);
  w.data[0].fails = RAM_FLUSHES;
  mirror_image_do(w.m, 1, IMAGE_OP_RESTORE, false, world_done, &w);
  world_bring_back(&w, 1);
  uint32_t before = w.data[0].flushes, events = 0;
  while (events < 100000 && event_run_one(&w.env.queue)) events++; /* time stands still */
  assert_true(w.data[0].flushes - before < 10);
  assert_true(events < 100000);
}

/* The last good image has a block that cannot be written any more, and a client has tried. A new copy is what is needed now. */
static void a_block_that_cannot_be_written_keeps_no_image_from_its_copy(void **state) {
  (void)state;
  begin_with_a_bad_block();
  assert_int_equal(world_write(&w, 8 * 65536, 4096), TARN_OK);
  assert_int_equal(client_do(&w, DISK_READ, 65536, 4096, 0), TARN_OK); /* it can be read */
  world_restore(&w, 1);
  for (uint32_t k = 0; k < 60; k++) world_pass(&w, 60 * NS_PER_S);
  struct mirror_image_status b = world_image(&w, 1);
  assert_int_equal(b.state, IMAGE_SYNCHRONIZED);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(a_block_that_cannot_be_written_keeps_no_image_from_its_copy),
      WORLD_TEST(what_recovery_chooses_is_what_a_copy_has),
      WORLD_TEST(what_was_read_before_a_flush_failed_does_not_count),
      WORLD_TEST(a_flush_that_fails_is_not_tried_without_a_break),
  };
  return cmocka_run_group_tests_name("mirror_pauses", tests, NULL, NULL);
}
