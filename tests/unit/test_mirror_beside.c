/* What happens beside something else: a copy beside a fracture, a flush that fails beside a FUA, a flush that is asked again. */
#include "mirror_world.h"

#define MIB (1u << 20)

/* A write fails on both images, though a has it. While that place is being copied b is fractured: the flush of the fracture is with b
 * when the copy writes there, and so it proves nothing of that. b loses power. What it lost is not taken for equal when it is back. */
static void a_fracture_beside_the_copy_of_a_failed_write(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  uint8_t old[4096];
  memcpy(old, w.data[1].bytes, sizeof old);
  w.data[0].fails = w.data[1].fails = RAM_WRITES;
  assert_int_not_equal(world_write(&w, 0, 4096), TARN_OK);
  memset(w.data[0].bytes, 0x55, 4096);
  w.data[0].fails = w.data[1].fails = 0;
  w.data[1].holds = RAM_FLUSHES;
  mirror_image_do(w.m, 1, IMAGE_OP_FRACTURE, false, world_done, &w);
  world_run(&w);
  assert_int_equal(w.data[1].held_count, 1);
  world_pass(&w, 2 * NS_PER_S); /* the copy is tried again, and done */
  assert_int_equal(w.data[1].bytes[0], 0x55);
  ram_release(&w.data[1]);
  assert_int_equal(world_wait(&w), TARN_OK);
  memcpy(w.data[1].bytes, old, sizeof old); /* what was not flushed */
  assert_int_equal(world_flush(&w), TARN_OK);
  world_pass(&w, 20 * NS_PER_S); /* the mark goes */
  world_restore(&w, 1);
  world_pass(&w, 5 * NS_PER_S);
  world_check_synchronized(&w);
  assert_memory_equal(w.data[0].bytes, w.data[1].bytes, MIB);
}

/* A flush fails on a, and a FUA beside it is good there: the kernel, or the server, of a disk tells a loss once, and may have told the
 * flush of what the FUA wrote. b has not answered the flush yet when the process dies, so nobody knows that a has failed. */
static void a_fua_beside_a_flush_that_fails(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  struct client_io fua, flush;
  uint8_t old[4096];
  memcpy(old, w.data[0].bytes, sizeof old);
  w.data[0].holds = RAM_WRITES | RAM_FLUSHES;
  w.data[1].holds = RAM_FLUSHES;
  client_begin_with(&w, &fua, DISK_WRITE, DISK_FUA, 0, 4096, 0x55);
  world_run(&w);
  client_begin(&w, &flush, DISK_FLUSH, 0, 0, 0);
  world_run(&w);
  assert_int_equal(w.data[0].held_count, 2);
  w.data[0].fails = RAM_FLUSHES;
  ram_answer_last(&w.data[0]);
  w.data[0].fails = 0;
  ram_answer(&w.data[0]);
  world_run(&w);
  bool answered = fua.done && fua.io.err == TARN_OK;
  assert_false(flush.done);
  world_die(&w);
  w.data[0].holds = w.data[1].holds = 0;
  memcpy(w.data[0].bytes, old, sizeof old); /* the loss that the flush was told of */
  world_settle(&w);
  assert_true(!answered || w.data[0].bytes[0] == 0x55);
  assert_memory_equal(w.data[0].bytes, w.data[1].bytes, MIB);
}

/* A flush of the first volume fails on b, which is out; and as one of the second has failed everywhere meanwhile it is asked again
 * later. b is back by then, and has failed nothing. */
static void a_flush_that_is_asked_again_forgets_who_failed_it(void **state) {
  (void)state;
  world_init(&w, 2, MIB, 512);
  world_add_volume(&w);
  w.config.images[1].policy.return_after_ns = NS_PER_S;
  world_format(&w);
  world_settle(&w);
  w.volume = 1;
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  w.volume = 0;
  struct client_io flush, other;
  w.data[0].holds = RAM_FLUSHES;
  w.data[1].fails = RAM_FLUSHES;
  client_begin(&w, &flush, DISK_FLUSH, 0, 0, 0);
  world_run(&w);
  w.volume = 1;
  w.second[0].fails = w.second[1].fails = RAM_FLUSHES;
  w.second[0].holds = RAM_WRITES; /* what is written again takes a while */
  client_begin(&w, &other, DISK_FLUSH, 0, 0, 0);
  world_run(&w);
  assert_int_not_equal(client_end(&w, &other), TARN_OK);
  w.data[1].fails = w.second[0].fails = w.second[1].fails = 0;
  ram_release(&w.data[0]);
  world_run(&w);
  assert_int_equal(world_image(&w, 1).state, IMAGE_UNSYNCHRONIZED);
  assert_false(flush.done);
  world_bring_back(&w, 1);
  world_pass(&w, NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZING);
  ram_release(&w.second[0]);
  assert_int_equal(client_end(&w, &flush), TARN_OK);
  world_pass(&w, 5 * NS_PER_S);
  assert_int_equal(w.reopened, 0);
  world_check_synchronized(&w);
}

static void run_a_while(void *context) {
  (void)context;
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
  world_pass(&w, 5 * NS_PER_S); /* served, or refused */
}

/* Metadata with a good checksum, written by a version that has other ideas, or by a stranger: the list of unreadable places names one
 * behind the end of the volume, within its last region. */
static void an_unreadable_place_behind_the_end_ends_nobody(void **state) {
  (void)state;
  world_init(&w, 2, MIB + 4096, 512);
  world_format(&w);
  struct ram_disk *stores[] = {&w.home, &w.meta[0], &w.meta[1]};
  for (size_t s = 0; s < COUNT_OF(stores); s++)
    for (uint32_t slot = 0; slot < 2; slot++) {
      struct record record;
      uint8_t *at = stores[s]->bytes + slot * RECORD_SLOT_BYTES;
      assert_int_equal(record_decode(&record, at), TARN_OK);
      record.unreadable.count = 1;
      record.unreadable.ranges[0].start = MIB + 8192;
      record.unreadable.ranges[0].length = 4096;
      record_encode(&record, at);
    }
  assert_false(panics(run_a_while, NULL)); /* b is copied to */
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(a_fracture_beside_the_copy_of_a_failed_write),
      WORLD_TEST(a_fua_beside_a_flush_that_fails),
      WORLD_TEST(a_flush_that_is_asked_again_forgets_who_failed_it),
      WORLD_TEST(an_unreadable_place_behind_the_end_ends_nobody),
  };
  return cmocka_run_group_tests_name("mirror_beside", tests, NULL, NULL);
}
