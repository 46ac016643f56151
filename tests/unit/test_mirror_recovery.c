/* Places where images may differ, after a crash or a write that failed on all of them, are copied from one source before they are
 * read, and stay as they were read: rules 6 and 12. */
#include "mirror_world.h"

#define MIB (1u << 20)

static void hold_metadata(void) { w.meta[0].holds = w.meta[1].holds = w.home.holds = RAM_WRITES; }

/* A write is with all images, and a read that overlaps it with the master, where the write has taken effect already. */
static void begin_write_and_read(uint32_t images, struct client_io *write, struct client_io *read) {
  world_begin(&w, images, MIB);
  for (uint32_t i = 0; i < images; i++) w.data[i].holds = RAM_WRITES;
  w.data[0].holds |= RAM_READS;
  client_begin(&w, write, DISK_WRITE, 65536, 4096, 0x66);
  world_pass(&w, NS_PER_S / 100);
  client_begin(&w, read, DISK_READ, 65536, 4096, 0);
  world_pass(&w, NS_PER_S / 100);
  assert_int_equal(w.data[0].held_count, 2);
  memset(w.data[0].bytes + 65536, 0x66, 4096);
}

/* A write fails on every image, and has left something at one of them: a recovery decides what counts. A read that saw it there
 * while the write was in flight is not answered before that is on all images. */
static void a_read_does_not_tell_of_a_write_that_failed_everywhere(void **state) {
  (void)state;
  struct client_io write, read;
  begin_write_and_read(2, &write, &read);
  w.data[0].fails = w.data[1].fails = RAM_WRITES;
  ram_answer(&w.data[0]);
  ram_answer(&w.data[1]);
  world_run(&w);
  w.data[0].fails = w.data[1].fails = 0;
  ram_release(&w.data[0]);
  world_pass(&w, 5 * NS_PER_S);
  assert_int_equal(client_end(&w, &write), TARN_IO);
  assert_true(w.data[1].held_count > 0); /* the copy that makes b equal there */
  assert_false(read.done);
  ram_release(&w.data[1]);
  assert_int_equal(client_end(&w, &read), TARN_OK);
  assert_memory_equal(w.data[0].bytes + 65536, w.data[1].bytes + 65536, 4096);
  world_deactivate(&w);
}

/* A write fails on every image, and a read that overlapped it is so late that the recovery is over: it is asked again, of another
 * image, since the one that it was at is out. */
static void a_read_of_before_a_recovery_is_asked_again(void **state) {
  (void)state;
  struct client_io write, read;
  begin_write_and_read(3, &write, &read);
  mirror_image_failed(w.m, 0, "a test");
  for (uint32_t i = 0; i < 3; i++) {
    w.data[i].fails = RAM_WRITES;
    ram_answer(&w.data[i]);
  }
  world_run(&w);
  for (uint32_t i = 0; i < 3; i++) {
    w.data[i].fails = w.data[i].holds = 0;
    while (i > 0 && w.data[i].held_count > 0) ram_answer(&w.data[i]); /* the copy's */
  }
  world_pass(&w, 2 * NS_PER_S);
  ram_answer_all(&w.data[0]);
  assert_int_equal(client_end(&w, &write), TARN_IO);
  assert_int_equal(client_end(&w, &read), TARN_OK);
  assert_memory_equal(read.io.data, w.data[1].bytes + 65536, 4096);
  world_deactivate(&w);
}

/* The master has a write that overlaps, tells a read of it, and is put out; and while the read waits for the record that says so, the
 * write fails on the image that is left. Its client was told, so the read is asked again, there. */
static void a_read_that_waits_does_not_tell_of_a_write_that_has_failed(void **state) {
  (void)state;
  struct client_io write, read;
  begin_write_and_read(2, &write, &read);
  ram_answer(&w.data[0]);
  hold_metadata();
  mirror_image_failed(w.m, 0, "a test");
  ram_answer(&w.data[0]);
  world_run(&w);
  assert_false(read.done);
  w.data[1].fails = RAM_WRITES;
  ram_answer(&w.data[1]);
  world_run(&w);
  assert_int_equal(client_end(&w, &write), TARN_IO);
  assert_false(read.done);
  w.data[1].fails = 0;
  ram_release(&w.data[1]);
  ram_release(&w.meta[1]);
  ram_release(&w.home);
  assert_int_equal(client_end(&w, &read), TARN_OK);
  assert_memory_equal(read.io.data, w.data[1].bytes + 65536, 4096);
  w.data[0].holds = w.meta[0].holds = 0;
  world_deactivate(&w);
}

/* A recovery has read a, which leaves then; what it writes to b, the only image left, nobody reads before it is there: the next read
 * would see other bytes again. */
static void a_read_does_not_pass_what_recovers_its_place(void **state) {
  (void)state;
  struct client_io read;
  world_begin(&w, 2, MIB);
  assert_int_equal(world_write(&w, 65536, 4096), TARN_OK);
  world_die(&w);
  memset(w.data[1].bytes + 65536, 0xbb, 4096);
  w.data[1].holds = RAM_WRITES;
  world_activate(&w);
  world_run(&w);
  assert_int_equal(w.data[1].held_count, 1); /* the copy of a's bytes */
  mirror_image_failed(w.m, 0, "a test");
  client_begin(&w, &read, DISK_READ, 65536, 4096, 0);
  world_pass(&w, NS_PER_S);
  assert_false(read.done);
  ram_release(&w.data[1]);
  assert_int_equal(client_end(&w, &read), TARN_OK);
  assert_int_equal(w.data[1].bytes[65536], 0x55);
  world_deactivate(&w);
}

/* The master has a write that is under way, tells a read of it, and leaves. No later read is answered from the new
 * master before that has the write, too: it would go back behind the first one. */
static void no_read_goes_back_when_the_master_leaves(void **state) {
  (void)state;
  struct client_io write, read;
  begin_write_and_read(2, &write, &read);
  ram_answer_last(&w.data[0]); /* the first read */
  assert_int_equal(client_end(&w, &read), TARN_OK);
  assert_int_equal(read.io.data[0], 0x66);
  w.data[0].holds = RAM_WRITES;
  mirror_image_failed(w.m, 0, "a test");
  client_begin(&w, &read, DISK_READ, 65536, 4096, 0);
  world_pass(&w, NS_PER_S);
  assert_false(read.done);
  ram_release(&w.data[0]);
  ram_release(&w.data[1]);
  assert_int_equal(client_end(&w, &write), TARN_OK);
  assert_int_equal(client_end(&w, &read), TARN_OK);
  assert_int_equal(read.io.data[0], 0x66);
  world_deactivate(&w);
}

/* A write is under way, so the master is asked, and cannot read: the read waits for the write, and another image is
 * asked then. */
static void a_read_that_fails_beside_a_write_is_tried_elsewhere(void **state) {
  (void)state;
  struct client_io write, read;
  begin_write_and_read(2, &write, &read);
  w.data[0].fail_once = 1;
  ram_answer_last(&w.data[0]);
  world_pass(&w, NS_PER_S);
  assert_false(read.done);
  ram_release(&w.data[0]);
  ram_release(&w.data[1]);
  assert_int_equal(client_end(&w, &write), TARN_OK);
  assert_int_equal(client_end(&w, &read), TARN_OK);
  assert_int_equal(read.io.data[0], 0x66);
  world_check_synchronized(&w);
  world_deactivate(&w);
}

/* What c misses there is to be copied when a write that was under way fails on a and b, which differ then: c gets it
 * after the recovery. If a were copied to c at once, and left, b would be recovered from itself, and never be equal
 * to c. */
static void nothing_is_copied_to_an_image_before_it_is_recovered(void **state) {
  (void)state;
  struct client_io write;
  world_begin(&w, 3, MIB);
  mirror_image_failed(w.m, 2, "a test");
  assert_int_equal(world_write(&w, 65536, 4096), TARN_OK);
  world_pass(&w, 20 * NS_PER_S);
  w.config.images[2].policy.return_after_ns = NS_PER_S;
  mirror_set_policy(w.m, 2, &w.config.images[2].policy);
  w.data[0].holds = w.data[1].holds = RAM_WRITES;
  client_begin(&w, &write, DISK_WRITE, 65536, 4096, 0x66);
  world_bring_back(&w, 2);
  world_run(&w);
  assert_int_equal(world_image(&w, 2).state, IMAGE_SYNCHRONIZING);
  memset(w.data[0].bytes + 65536, 0x66, 4096); /* which has it, and says that it failed */
  w.data[0].fails = w.data[1].fails = RAM_WRITES;
  w.data[2].holds = RAM_WRITES;
  ram_answer(&w.data[0]);
  ram_answer(&w.data[1]);
  world_run(&w);
  assert_int_equal(client_end(&w, &write), TARN_IO);
  w.data[0].fails = w.data[1].fails = 0;
  mirror_image_failed(w.m, 0, "a test");
  for (uint32_t i = 0; i < 3; i++) ram_release(&w.data[i]);
  world_pass(&w, 10 * NS_PER_S);
  assert_int_equal(world_image(&w, 2).state, IMAGE_SYNCHRONIZED);
  assert_memory_equal(w.data[1].bytes, w.data[2].bytes, MIB);
  world_deactivate(&w);
}

/* A write fails on the only current image, and is good on one that is being copied to and had that place already: it is copied there
 * once more. That outlives a crash: the place is in the map, durably, before its mark may go, however soon others want the mark. */
static void what_failed_is_copied_again_to_an_image_that_had_it(void **state) {
  (void)state;
  struct client_io failed, others[16];
  world_init(&w, 2, 2 * MIB, 512);
  w.pool_bytes = 4 * MIB;
  world_format(&w);
  world_settle(&w);
  w.config.images[1].policy.rate = 4096;
  mirror_set_policy(w.m, 1, &w.config.images[1].policy);
  mirror_image_failed(w.m, 1, "a test");
  assert_int_equal(world_write(&w, MIB, 2 * 65536), TARN_OK); /* the second half of which is copied a minute later */
  world_bring_back(&w, 1);
  world_pass(&w, NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZING);
  w.data[0].holds = w.data[1].holds = RAM_WRITES;
  for (uint32_t k = 0; k < 15; k++)
    client_begin(&w, &others[k], DISK_WRITE, k * 65536, 512, 1); /* in use: all marks but one */
  world_run(&w);
  w.data[1].holds = 0;
  client_begin(&w, &failed, DISK_WRITE, 31 * 65536, 4096, 0x77);
  world_run(&w);
  assert_int_equal(w.data[0].held_count, 16);
  w.data[0].holds = 0;
  w.data[0].fails = RAM_WRITES;
  ram_answer_last(&w.data[0]);
  w.data[0].fails = 0;
  hold_metadata();
  client_begin(&w, &others[15], DISK_WRITE, 15 * 65536, 512, 1); /* which wants the last one */
  world_run(&w);
  assert_int_equal(failed.io.err, TARN_IO);
  assert_int_equal(w.data[1].bytes[31 * 65536], 0x77);
  assert_false(others[15].done);
  ram_answer(&w.meta[0]); /* no more of that commit */
  world_die(&w);
  w.meta[0].holds = w.meta[1].holds = w.home.holds = 0;
  w.config.images[1].policy = image_policy_default;
  world_activate(&w);
  world_pass(&w, 10 * NS_PER_S);
  world_check_synchronized(&w);
  assert_memory_equal(w.data[0].bytes, w.data[1].bytes, 2 * MIB);
  world_deactivate(&w);
}

/* A write over the border of two regions, which b misses, as it did others there before. Neither mark is cleared
 * before that is durable in b's map, however soon others want the marks. */
static void every_mark_of_a_write_waits_for_the_map(void **state) {
  (void)state;
  struct client_io others[14], last;
  world_init(&w, 2, 2 * MIB, 512);
  w.pool_bytes = 4 * MIB;
  world_format(&w);
  world_settle(&w);
  mirror_image_failed(w.m, 1, "a test");
  world_pass(&w, 20 * NS_PER_S); /* no region is marked any more */
  for (uint32_t k = 30; k < 32; k++) assert_int_equal(world_write(&w, k * 65536 + 20480, 4096), TARN_OK);
  world_pass(&w, 2 * NS_PER_S); /* which is in its map */
  w.data[0].holds = RAM_WRITES;
  for (uint32_t k = 0; k < 14; k++)
    client_begin(&w, &others[k], DISK_WRITE, k * 65536, 512, 1); /* in use: all marks but two */
  world_run(&w);
  w.data[0].holds = 0;
  assert_int_equal(world_write(&w, 31 * 65536 - 4096, 8192), TARN_OK);
  hold_metadata();
  client_begin(&w, &last, DISK_WRITE, 20 * 65536, 512, 1); /* which wants one of them */
  world_run(&w);
  assert_false(last.done);
  for (uint32_t k = 0; k < 2; k++) ram_answer(&w.meta[0]); /* both copies of the log, and no more of that commit */
  world_die(&w);
  w.meta[0].holds = w.meta[1].holds = w.home.holds = 0;
  world_activate(&w);
  world_pass(&w, 10 * NS_PER_S);
  world_check_synchronized(&w);
  assert_memory_equal(w.data[0].bytes, w.data[1].bytes, 2 * MIB);
  world_deactivate(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(a_read_does_not_tell_of_a_write_that_failed_everywhere),
      WORLD_TEST(a_read_of_before_a_recovery_is_asked_again),
      WORLD_TEST(a_read_that_waits_does_not_tell_of_a_write_that_has_failed),
      WORLD_TEST(a_read_does_not_pass_what_recovers_its_place),
      WORLD_TEST(no_read_goes_back_when_the_master_leaves),
      WORLD_TEST(a_read_that_fails_beside_a_write_is_tried_elsewhere),
      WORLD_TEST(nothing_is_copied_to_an_image_before_it_is_recovered),
      WORLD_TEST(what_failed_is_copied_again_to_an_image_that_had_it),
      WORLD_TEST(every_mark_of_a_write_waits_for_the_map),
  };
  return cmocka_run_group_tests_name("mirror_recovery", tests, NULL, NULL);
}
