/* What was said of all of an image before it was durable; and requests that grow when they are aligned out. */
#include "mirror_world.h"

#define MIB (1u << 20)
#define KIB 1024u

/* b is out, and is to be copied in full. While a slow round of metadata is under way it comes back: all of it is
 * missed, in memory. What is written now is no news to its map, so its mark goes with the very round that says
 * "all", of which a crash lets only the log land. */
static void a_mark_does_not_go_with_the_record_that_all_is_missed(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  mirror_image_failed(w.m, 1, "a test");
  world_run(&w);
  assert_int_equal(client_do(&w, DISK_WRITE, 0, 4096, 0x11), TARN_OK); /* marked, and missed */
  assert_int_equal(world_flush(&w), TARN_OK);
  world_pass(&w, 2 * NS_PER_S);
  mirror_image_do(w.m, 1, IMAGE_OP_SYNC, false, world_done, &w);
  for (uint32_t step = 0; step < 10 && !(w.reopened & 2u); step++) world_pass(&w, NS_PER_S / 100);
  assert_int_equal(w.reopened, 2);
  w.reopened = 0;
  struct client_io other;
  w.meta[0].holds = RAM_WRITES;
  client_begin(&w, &other, DISK_WRITE, 64 * KIB, 4096, 0x22); /* needs a mark: a round begins */
  world_run(&w);
  assert_true(w.meta[0].held_count > 0);
  mirror_image_reopened(w.m, 1, &w.config.images[1]);
  world_run(&w);
  assert_true(world_said(&w, "everything is copied to it"));
  assert_int_equal(client_do(&w, DISK_WRITE, 16 * KIB, 4096, 0x33), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  world_pass(&w, 7 * NS_PER_S); /* the mark is idle, and flushed */
  w.home.holds = w.meta[1].holds = RAM_WRITES;
  uint32_t before = w.meta[0].writes;
  while (w.meta[0].held_count > 0 && w.meta[0].writes == before) { /* that round ends, and the next one begins */
    ram_answer(&w.meta[0]);
    world_run(&w);
  }
  assert_int_equal(w.meta[0].held_count, 4); /* the record, and both copies of the log among them */
  for (uint32_t k = 0; k < 3; k++) ram_answer_last(&w.meta[0]);
  world_die(&w);
  w.meta[0].holds = w.meta[1].holds = w.home.holds = 0;
  world_activate(&w);
  world_pass(&w, 90 * NS_PER_S);
  world_check_synchronized(&w);
  assert_int_equal(w.data[0].bytes[16 * KIB], 0x33);
  assert_int_equal(w.data[1].bytes[16 * KIB], 0x33);
}

/* There is one witness, in a region that is written to; room is made for a newer one. Before that is recorded the
 * region's mark is cleared, and goes in the same round, of which a crash lets only the log land. Nobody has
 * changed anything behind our back. */
static void a_mark_does_not_go_with_a_witness_that_made_room(void **state) {
  (void)state;
  world_init(&w, 2, 2 * MIB, 512);
  w.limits.witnesses = 1;
  world_format(&w);
  world_settle(&w);
  world_pass(&w, 20 * NS_PER_S);
  assert_int_equal(mirror_recorded(w.m)->witness_count, 1);
  uint64_t place = mirror_recorded(w.m)->witnesses[0].address, region = 64 * KIB, at = place / region;
  assert_int_equal(world_write(&w, (at + 1) % 32 * region, 4096), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  /* Until that one's mark is cleared: a place for a witness, once there is time. */
  for (uint32_t step = 0; step < 35; step++) {
    assert_int_equal(world_write(&w, place, 4096), TARN_OK);
    world_pass(&w, NS_PER_S / 5);
  }
  for (uint32_t k = 2; k < 17; k++) assert_int_equal(world_write(&w, (at + k) % 32 * region, 4096), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  w.data[0].holds = RAM_READS;
  for (uint32_t step = 0; step < 100 && w.data[0].held_count == 0; step++) world_pass(&w, NS_PER_S / 20);
  assert_int_equal(w.data[0].held_count, 1); /* the new witness is being read */
  assert_int_equal(mirror_witness_count(w.m), 0);
  assert_int_equal(mirror_recorded(w.m)->witness_count, 1);
  w.home.holds = w.meta[0].holds = w.meta[1].holds = RAM_WRITES;
  struct client_io other;
  client_begin(&w, &other, DISK_WRITE, (at + 20) % 32 * region, 4096, 0x22); /* there is no mark left for it */
  world_run(&w);
  assert_int_equal(w.meta[0].held_count, 3); /* the record, and both copies of the log */
  for (uint32_t k = 0; k < 2; k++) ram_answer_last(&w.meta[0]);
  world_die(&w);
  w.data[0].holds = w.meta[0].holds = w.meta[1].holds = w.home.holds = 0;
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
  tarn_err err = world_wait(&w);
  assert_string_equal(w.why, "");
  assert_int_equal(err, TARN_OK);
}

/* b is behind, and is to be the master by force. The process dies in the first commit, of which the maps have
 * landed and the record has not: nothing has been promoted. So b misses what it missed. */
static void a_promotion_that_was_never_recorded_leaves_the_map(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  mirror_image_failed(w.m, 1, "a test");
  world_run(&w);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  world_pass(&w, NS_PER_S);
  world_deactivate(&w);
  world_open(&w);
  w.home.holds = w.meta[0].holds = w.meta[1].holds = RAM_WRITES;
  mirror_activate(w.m, &(struct mirror_activation){.force = true, .promote = true, .image = 1}, world_done, &w);
  world_run(&w);
  world_land_all_but_the_record(&w, &w.meta[0]);
  assert_false(w.done);
  world_die(&w);
  w.home.holds = w.meta[0].holds = w.meta[1].holds = 0;
  world_settle(&w);
  assert_int_equal(w.data[0].bytes[0], 0x55);
  assert_int_equal(w.data[1].bytes[0], 0x55);
}

/* The process dies while c has not got what a has. Then b, which was behind, is to be the master by force, and the
 * process dies again in the first commit: the log, as b knew it, has landed, and the record has not. a and c are
 * current still, and what was marked counts. */
static void a_promotion_that_was_never_recorded_leaves_the_log(void **state) {
  (void)state;
  world_begin(&w, 3, MIB);
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
  w.home.holds = w.meta[0].holds = w.meta[1].holds = w.meta[2].holds = RAM_WRITES;
  mirror_activate(w.m, &(struct mirror_activation){.force = true, .promote = true, .image = 1}, world_done, &w);
  world_run(&w);
  world_land_all_but_the_record(&w, &w.meta[0]);
  world_land_all_but_the_record(&w, &w.meta[2]);
  assert_false(w.done);
  world_die(&w);
  w.home.holds = w.meta[0].holds = w.meta[1].holds = w.meta[2].holds = 0;
  world_settle(&w);
  assert_memory_equal(w.data[0].bytes, w.data[2].bytes, MIB);
}

/* One disk takes requests of a size that is not a multiple of the other's blocks. The longest one that clients may
 * send is aligned out at both ends. */
static void the_longest_request_fits_when_it_is_aligned_out(void **state) {
  (void)state;
  world_init(&w, 2, MIB, 512);
  w.data[0].disk.caps.io_bytes_max = 64 * KIB - 512;
  ram_init(&w.data[1], &w.disks, MIB, 4096);
  w.data[1].disk.env = &w.env;
  world_format(&w);
  world_settle(&w);
  uint32_t most = mirror_volume(w.m, 0)->caps.io_bytes_max;
  assert_int_equal(client_do(&w, DISK_WRITE, 4096 - 512, most, 0x11), TARN_OK);
  assert_int_equal(client_do(&w, DISK_READ, 4096 - 512, most, 0), TARN_OK);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(a_mark_does_not_go_with_the_record_that_all_is_missed),
      WORLD_TEST(a_mark_does_not_go_with_a_witness_that_made_room),
      WORLD_TEST(a_promotion_that_was_never_recorded_leaves_the_map),
      WORLD_TEST(a_promotion_that_was_never_recorded_leaves_the_log),
      WORLD_TEST(the_longest_request_fits_when_it_is_aligned_out),
  };
  return cmocka_run_group_tests_name("mirror_places", tests, NULL, NULL);
}
