/* What a flush that failed on every image leaves in doubt, and until when: rule 5. */
#include "mirror_world.h"

#define MIB (1u << 20)

static void both_hold(uint32_t what) { w.data[0].holds = w.data[1].holds = what; }
static void both_fail(uint32_t what) { w.data[0].fails = w.data[1].fails = what; }

/* What both images hold; `fails`: of it. */
static void both_answer(uint32_t fails) {
  both_fail(fails);
  ram_answer_all(&w.data[0]);
  ram_answer_all(&w.data[1]);
  both_fail(0);
}

/* A flush fails everywhere while one of ours and then a client's wait behind it. Ours goes on by itself: the client's waits
 * until what the failed one has left in doubt is written again, and is flushed. */
static void a_flush_in_doubt_does_not_ride_along_with_ours(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_pass(&w, 45 * NS_PER_S / 10);
  both_hold(RAM_FLUSHES);
  struct client_io failed, behind;
  client_begin(&w, &failed, DISK_FLUSH, 0, 0, 0);
  world_pass(&w, 3 * NS_PER_S); /* the mark is idle: a flush of ours is wanted */
  assert_int_equal(w.data[0].held_count, 1);
  client_begin(&w, &behind, DISK_FLUSH, 0, 0, 0);
  world_run(&w);
  both_answer(RAM_FLUSHES);
  both_hold(RAM_FLUSHES | RAM_READS); /* nothing is copied yet */
  world_run(&w);
  assert_int_equal(client_end(&w, &failed), TARN_IO);
  uint64_t written = w.data[0].bytes_written;
  uint32_t flushes = w.data[0].flushes;
  both_answer(0);
  world_run(&w);
  assert_false(behind.done);
  both_hold(0);
  both_answer(0);
  assert_int_equal(client_end(&w, &behind), TARN_OK);
  assert_true(w.data[0].bytes_written > written); /* again, and */
  assert_true(w.data[0].flushes > flushes);
  world_deactivate(&w);
}

/* A flush is with both images. A FUA write that comes behind it fails on both, before the flush is answered; or (`one_is_good`) it
 * comes when image a alone has answered that. */
static void fua_fails(bool one_is_good) {
  struct client_io fua;
  both_hold(RAM_FLUSHES | RAM_WRITES);
  if (one_is_good) ram_answer(&w.data[0]);
  world_run(&w);
  client_begin_with(&w, &fua, DISK_WRITE, DISK_FUA, 4096, 4096, 0x66);
  world_run(&w);
  assert_int_equal(w.data[1].held_count, 2);
  both_fail(RAM_WRITES);
  ram_answer_last(&w.data[0]);
  ram_answer_last(&w.data[1]);
  both_fail(0);
  both_hold(RAM_FLUSHES);
  assert_int_equal(client_end(&w, &fua), TARN_IO);
}

/* A flush that is for two is good at one image before a FUA fails on both, which may have been told of what the flush was to be
 * told of: it proves nothing to either of the two, and they are told so. */
static void an_overtaken_flush_is_answered_to_nobody(void **state) {
  (void)state;
  struct client_io before, flushes[2];
  world_begin(&w, 2, MIB);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  both_hold(RAM_FLUSHES);
  client_begin(&w, &before, DISK_FLUSH, 0, 0, 0);
  for (uint32_t k = 0; k < 2; k++) client_begin(&w, &flushes[k], DISK_FLUSH, 0, 0, 0);
  world_run(&w);
  both_answer(0);
  assert_int_equal(client_end(&w, &before), TARN_OK);
  assert_int_equal(w.data[0].held_count, 1); /* one for both of them */
  fua_fails(true);
  ram_answer(&w.data[1]);
  world_run(&w);
  for (uint32_t k = 0; k < 2; k++) assert_false(flushes[k].done); /* all is written again first */
  ram_release(&w.data[0]);
  for (uint32_t k = 0; k < 2; k++) assert_int_equal(client_end(&w, &flushes[k]), TARN_IO);
  assert_int_equal(world_flush(&w), TARN_OK);
  world_deactivate(&w);
}

/* The flush that is to end a recovery stands behind one that fails: what is written again after it began, it does not prove. */
static void begin_second_recovery(void) {
  struct client_io failed;
  world_begin(&w, 2, MIB);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  both_hold(RAM_FLUSHES);
  client_begin(&w, &failed, DISK_FLUSH, 0, 0, 0);
  world_run(&w);
  fua_fails(false);
  assert_int_equal(w.data[0].held_count, 1);
  both_answer(0); /* which a disk may not say any more: the guards have it fail */
  assert_int_equal(client_end(&w, &failed), TARN_IO);
  assert_int_equal(w.data[0].held_count, 1); /* ours */
  both_answer(0);
  world_run(&w);
}

static void a_recovery_ends_with_a_flush_of_all_of_it(void **state) {
  (void)state;
  begin_second_recovery();
  assert_false(world_said(&w, "recovery is complete"));
  assert_int_equal(w.data[0].held_count, 1); /* another one */
  both_hold(0);
  both_answer(0);
  world_run(&w);
  assert_true(world_said(&w, "recovery is complete"));
  assert_int_equal(world_flush(&w), TARN_OK);
  world_deactivate(&w);
}

static void a_fall_before_that_may_lose_it(void **state) {
  (void)state;
  begin_second_recovery();
  both_hold(0);
  both_answer(RAM_FLUSHES);
  mirror_set_limits(w.m, 0, -1, false);
  mirror_image_failed(w.m, 1, "a test");
  world_run(&w);
  assert_true(mirror_has_fallen(w.m) && mirror_is_idle(w.m));
  assert_true(mirror_may_have_lost(w.m));
  world_close(&w);
}

/* A flush fails everywhere while a write is under way beside one that was answered before: that one may be lost all
 * the same, and is written again before a flush is answered. */
static void a_write_under_way_does_not_hide_what_is_in_doubt(void **state) {
  (void)state;
  struct client_io write, flush;
  world_begin(&w, 2, MIB);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  both_hold(RAM_WRITES);
  client_begin(&w, &write, DISK_WRITE, 32768, 4096, 0x66); /* of the same region */
  world_run(&w);
  both_fail(RAM_FLUSHES);
  assert_int_equal(world_flush(&w), TARN_IO);
  both_fail(0);
  memset(w.data[1].bytes, 0xbb, 4096); /* it never came down */
  client_begin(&w, &flush, DISK_FLUSH, 0, 0, 0);
  world_run(&w);
  both_hold(0);
  both_answer(0);
  assert_int_equal(client_end(&w, &write), TARN_OK);
  assert_int_equal(client_end(&w, &flush), TARN_OK);
  assert_int_equal(w.data[1].bytes[0], 0x55);
  world_deactivate(&w);
}

static void last_answers(uint32_t fails) {
  both_fail(fails);
  ram_answer_last(&w.data[0]);
  ram_answer_last(&w.data[1]);
  both_fail(0);
  world_run(&w);
}

/* A recovery writes a place again, and before that is done a flush of ours fails everywhere: what the disks have of it
 * then may never come down, and it is written once more. */
static void what_was_written_again_before_a_failure_is_in_doubt_again(void **state) {
  (void)state;
  struct client_io other;
  world_begin(&w, 2, MIB);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_die(&w);
  both_hold(RAM_WRITES | RAM_FLUSHES);
  world_activate(&w);
  world_run(&w);
  uint32_t copies = w.data[0].held_count;
  assert_true(copies > 0);
  client_begin(&w, &other, DISK_WRITE, MIB / 2, 4096, 0x66);
  world_run(&w);
  last_answers(0);
  assert_int_equal(client_end(&w, &other), TARN_OK);
  world_pass(&w, 7 * NS_PER_S); /* its mark is idle */
  assert_int_equal(w.data[0].held_count, copies + 1);
  last_answers(RAM_FLUSHES);
  both_answer(0); /* the copies */
  world_run(&w);
  memset(w.data[1].bytes, 0xbb, 4096);
  both_hold(0);
  both_answer(0);
  assert_int_equal(world_flush(&w), TARN_OK);
  assert_int_equal(w.data[1].bytes[0], 0x55);
  world_deactivate(&w);
}

/* A flush fails everywhere, and the mirror stops, in this life or in the next one, before what that has left in doubt is written
 * again: the flush of the stop is good, and proves nothing of it. */
static void a_stop_says_what_it_leaves_in_doubt(void **state) {
  (void)state;
  for (uint32_t killed = 0; killed < 2; killed++) {
    world_begin(&w, 2, MIB);
    assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
    w.data[0].holds = RAM_READS; /* nothing is recovered */
    both_fail(RAM_FLUSHES);
    assert_int_equal(world_flush(&w), TARN_IO);
    world_run(&w);
    both_fail(0);
    if (killed) {
      ram_answer_all(&w.data[0]);
      world_die(&w);
      world_activate(&w);
    }
    mirror_deactivate(w.m, false, world_done, &w);
    world_run(&w);
    ram_release(&w.data[0]);
    assert_int_equal(world_wait(&w), TARN_OK);
    assert_true(mirror_may_have_lost(w.m));
    mirror_close(w.m);
    world_end(&w);
  }
}

/* A flush fails everywhere, and with it a FUA that had ended beside it. Meanwhile one of ours, for room in the log, is with the disks: it proves
 * nothing of what that FUA was to prove, but who waits for the room has nothing to do with it. */
static void who_waits_for_room_is_not_failed_by_a_fua(void **state) {
  (void)state;
  world_begin(&w, 2, 2 * MIB);
  for (uint32_t region = 0; region < w.config.mark_count; region++)
    assert_int_equal(world_write(&w, region * 65536, 4096), TARN_OK);
  both_hold(RAM_FLUSHES | RAM_WRITES);
  struct client_io flush, fua, waits;
  client_begin(&w, &flush, DISK_FLUSH, 0, 0, 0);
  client_begin_with(&w, &fua, DISK_WRITE, DISK_FUA, 4096, 4096, 0x66);
  world_run(&w);
  client_begin(&w, &waits, DISK_WRITE, w.config.mark_count * 65536, 4096, 0x66);
  world_run(&w);
  for (uint32_t i = 0; i < 2; i++) ram_answer_last(&w.data[i]);
  world_run(&w);
  assert_int_equal(w.data[0].held_count, 1);
  both_answer(RAM_FLUSHES);
  world_run(&w);
  assert_int_equal(client_end(&w, &flush), TARN_IO);
  assert_int_equal(client_end(&w, &fua), TARN_IO);
  assert_false(waits.done);
  both_hold(0);
  both_answer(0);
  assert_int_equal(client_end(&w, &waits), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  world_deactivate(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(a_flush_in_doubt_does_not_ride_along_with_ours),
      WORLD_TEST(who_waits_for_room_is_not_failed_by_a_fua),
      WORLD_TEST(an_overtaken_flush_is_answered_to_nobody),
      WORLD_TEST(a_recovery_ends_with_a_flush_of_all_of_it),
      WORLD_TEST(a_fall_before_that_may_lose_it),
      WORLD_TEST(a_write_under_way_does_not_hide_what_is_in_doubt),
      WORLD_TEST(what_was_written_again_before_a_failure_is_in_doubt_again),
      WORLD_TEST(a_stop_says_what_it_leaves_in_doubt),
  };
  return cmocka_run_group_tests_name("mirror_doubt", tests, NULL, NULL);
}
