/* Waits and conditions whose absence no seed of the simulator shows. */
#include "mirror_world.h"

#define MIB (1u << 20)

static void die_and_recover(void) {
  for (uint32_t i = 0; i < WORLD_IMAGES; i++) w.data[i].holds = w.second[i].holds = w.meta[i].holds = 0;
  w.home.holds = 0;
  world_die(&w);
  world_activate(&w);
  world_pass(&w, 10 * NS_PER_S);
}

/* What a read has shown; its buffer goes with the process. */
static bool shown(const struct client_io *read, uint8_t *byte) {
  *byte = read->done && read->io.err == TARN_OK ? read->io.data[0] : 0;
  return read->done && read->io.err == TARN_OK;
}

/* a is the master, and has rotted; a verify repairs it from b. A round of metadata is under way when that begins, so that the mark of the
 * repair and the record that says from which image a crash recovers would go in one round, of which only the log lands. */
static void a_mark_of_a_repair_does_not_land_before_the_record_of_its_source(void **state) {
  (void)state;
  struct client_io write;
  world_begin(&w, 2, MIB);
  world_pass(&w, 20 * NS_PER_S);
  uint8_t good = w.data[1].bytes[5000];
  w.data[0].bytes[5000] ^= 1;
  w.meta[0].holds = w.meta[1].holds = w.home.holds = RAM_WRITES;
  client_begin(&w, &write, DISK_WRITE, MIB / 2, 4096, 9); /* needs a mark */
  world_run(&w);
  assert_true(w.meta[0].held_count > 0);
  mirror_verify(w.m, 1, world_done, &w);
  world_run(&w);
  uint32_t before = w.home.writes;
  for (uint32_t step = 0; step < 10 && w.home.writes == before; step++) { /* that round ends, and the next one begins */
    ram_answer_all(&w.meta[0]);
    ram_answer_all(&w.meta[1]);
    world_run(&w);
  }
  assert_true(w.home.writes > before);
  while (w.meta[0].held_count > 1) ram_answer_last(&w.meta[0]); /* all but the record */
  die_and_recover();
  world_check_synchronized(&w);
  assert_int_equal(w.data[1].bytes[5000], good);
}

/* The last repair is flushed, and the master is what a crash recovers from again: but not before that is recorded. A read at the master
 * shows of a write in flight nothing that a crash would undo till then. */
static void after_a_repair_reads_hold_their_range_until_its_end_is_recorded(void **state) {
  (void)state;
  struct client_io write, read;
  uint8_t seen;
  world_begin(&w, 2, MIB);
  world_pass(&w, 20 * NS_PER_S);
  w.data[0].bytes[5000] ^= 1;
  w.data[0].holds = RAM_WRITES;
  mirror_verify(w.m, 1, world_done, &w);
  world_run(&w);
  assert_int_equal(w.data[0].held_count, 1);
  w.meta[0].holds = w.meta[1].holds = w.home.holds = RAM_WRITES;
  ram_release(&w.data[0]);
  assert_int_equal(world_wait(&w), TARN_OK);
  world_run(&w);
  w.data[1].holds = RAM_WRITES;
  client_begin(&w, &write, DISK_WRITE, 8192, 4096, 9); /* in the region that the repair has marked */
  world_run(&w);
  assert_int_equal(w.data[0].bytes[8192], 9);
  client_begin(&w, &read, DISK_READ, 8192, 4096, 0);
  world_run(&w);
  bool answered = shown(&read, &seen);
  die_and_recover();
  world_check_synchronized(&w);
  assert_int_equal(w.data[0].bytes[8192], w.data[1].bytes[8192]);
  if (answered) assert_int_equal(w.data[0].bytes[8192], seen);
}

/* Before a repair from b begins the writes of all volumes end, also of those in which nothing is to be repaired. */
static void a_repair_in_one_volume_undoes_no_read_of_another(void **state) {
  (void)state;
  struct client_io write, read;
  uint8_t seen;
  world_init(&w, 2, MIB, 512);
  world_add_volume(&w);
  world_format(&w);
  world_settle(&w);
  world_pass(&w, 20 * NS_PER_S);
  w.data[0].bytes[5000] ^= 1;
  w.volume = 1;
  w.second[1].holds = RAM_WRITES;
  client_begin(&w, &write, DISK_WRITE, 0, 4096, 9);
  world_run(&w);
  client_begin(&w, &read, DISK_READ, 0, 4096, 0);
  world_run(&w);
  assert_true(shown(&read, &seen)); /* at the master, which has it */
  assert_int_equal(seen, 9);
  buffer_unref(read.io.buffer);
  mirror_verify(w.m, 1, world_done, &w);
  world_pass(&w, NS_PER_S);
  assert_false(write.done);
  die_and_recover();
  world_check_synchronized(&w);
  assert_int_equal(w.second[0].bytes[0], seen);
  assert_int_equal(w.second[1].bytes[0], seen);
}

/* b, from which a verify repairs, leaves and is back before it has come to where a has rotted: b has got that from a. c is not repaired
 * with it. */
static void a_source_that_was_away_repairs_nobody(void **state) {
  (void)state;
  world_begin(&w, 3, MIB);
  world_pass(&w, 20 * NS_PER_S);
  assert_int_equal(world_write(&w, 900 * 1024, 4096), TARN_OK); /* marked: b misses the region when it leaves */
  uint8_t good = w.data[2].bytes[910 * 1024];
  w.data[0].bytes[910 * 1024] ^= 1;
  w.data[2].holds = RAM_READS;
  mirror_verify(w.m, 1, world_done, &w);
  world_run(&w);
  assert_int_equal(w.data[2].held_count, 1);
  world_pass(&w, 1); /* it was begun before */
  mirror_image_failed(w.m, 1, "a test");
  w.config.images[1].policy.return_after_ns = NS_PER_S / 100;
  mirror_set_policy(w.m, 1, &w.config.images[1].policy);
  world_bring_back(&w, 1);
  for (uint32_t step = 0; step < 20 && world_image(&w, 1).state != IMAGE_SYNCHRONIZED; step++)
    world_pass(&w, NS_PER_S / 10);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
  assert_int_not_equal(w.data[1].bytes[910 * 1024], good);
  ram_release(&w.data[2]);
  (void)world_wait(&w);
  assert_string_equal(w.why, "image b, to repair from, is no longer SYNCHRONIZED");
  assert_int_equal(w.data[2].bytes[910 * 1024], good);
}

static void when_a_was_written_to(struct ram_disk *store, uint64_t time) {
  struct record record = world_record(store->bytes);
  record.images[0].stamp.modified = time;
  world_put_record(store->bytes, &record);
}

/* As nor_does_one_that_was_refused_when_home_is_lost (test_mirror_alone), with images that are files: by the time of a's file somebody has
 * written to it since, as b's record sees it. That was the mirror, which went on without b. */
static void one_that_went_on_is_not_old_because_its_file_was_written_to(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  mirror_image_failed(w.m, 1, "a test");
  world_run(&w);
  world_deactivate(&w);
  when_a_was_written_to(&w.home, 5);
  when_a_was_written_to(&w.meta[0], 5);
  world_take_away(&w, 0);
  w.home.fails = RAM_WRITES;
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){.force = true}, world_done, &w);
  assert_int_not_equal(world_wait(&w), TARN_OK);
  world_die(&w);
  w.home.fails = 0;
  world_give_back(&w, 0);
  w.config.images[0].found.modified = 5;
  world_take_away(&w, 1);
  world_activate(&w);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  world_deactivate(&w);
  w.config.images[0].found.modified = 6;
  world_give_back(&w, 1);
  memset(w.home.bytes, 0, RECORD_AREA_BYTES);
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
  (void)world_wait(&w);
  world_pass(&w, 10 * NS_PER_S);
  assert_int_equal(w.data[0].bytes[0], 0x55);
}

/* A write touches two regions, of which the second is marked. It waits for the first one's mark, too. */
static void a_write_waits_for_each_of_its_marks(void **state) {
  (void)state;
  struct client_io write;
  world_begin(&w, 2, MIB);
  assert_int_equal(world_write(&w, 65536, 4096), TARN_OK);
  w.meta[0].holds = w.meta[1].holds = RAM_WRITES;
  client_begin(&w, &write, DISK_WRITE, 65536 - 4096, 8192, 9);
  world_run(&w);
  assert_true(w.meta[0].held_count > 0);
  assert_int_not_equal(w.data[0].bytes[65536 - 4096], 9);
  assert_int_not_equal(w.data[1].bytes[65536], 9);
  ram_release(&w.meta[0]);
  ram_release(&w.meta[1]);
  assert_int_equal(client_end(&w, &write), TARN_OK);
}

/* b is removed while a write waits for a mark: the removal waits for the write, and so marks go while it does. */
static void a_removal_waits_for_no_write_that_waits_for_it(void **state) {
  (void)state;
  struct client_io write;
  world_begin(&w, 2, 2 * MIB);
  world_pass(&w, 20 * NS_PER_S);
  w.data[0].holds = RAM_FLUSHES;
  for (uint64_t region = 0; region < 16; region++)
    assert_int_equal(client_do(&w, DISK_WRITE, region * 65536, 4096, 9), TARN_OK);
  client_begin(&w, &write, DISK_WRITE, MIB, 4096, 9);
  world_run(&w);
  assert_int_equal(w.data[0].held_count, 1); /* the flush by which there will be room */
  mirror_image_do(w.m, 1, IMAGE_OP_REMOVE, false, world_done, &w);
  world_run(&w);
  ram_release(&w.data[0]);
  world_pass(&w, 30 * NS_PER_S);
  assert_true(write.done);
  assert_int_equal(client_end(&w, &write), TARN_OK);
  assert_int_equal(world_wait(&w), TARN_OK);
}

/* A flush fails on b, which loses what was answered before. That b is out lands on a alone when the process dies. */
static void what_is_out_by_one_image_s_record_alone_is_not_the_source(void **state) {
  (void)state;
  struct client_io flush;
  uint8_t old[4096];
  world_begin(&w, 2, MIB);
  memcpy(old, w.data[1].bytes, sizeof old);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  memcpy(w.data[1].bytes, old, sizeof old);
  w.data[1].fails = RAM_FLUSHES;
  w.home.holds = RAM_WRITES;
  client_begin(&w, &flush, DISK_FLUSH, 0, 0, 0);
  world_run(&w);
  assert_false(flush.done);
  assert_int_equal(w.home.held_count, 1);
  w.data[1].fails = 0;
  die_and_recover();
  world_check_synchronized(&w);
  assert_int_equal(w.data[0].bytes[0], 0x55);
  assert_int_equal(w.data[1].bytes[0], 0x55);
}

/* b is away, and holds what is repaired on c. All marks are in use, so that of the repair goes as soon as there was a flush; but not with
 * the round that says what b misses: of that only the log lands. */
static void a_mark_of_a_repair_does_not_go_before_what_others_miss_is_durable(void **state) {
  (void)state;
  struct client_io writes[16];
  world_init(&w, 3, 2 * MIB, 512);
  w.pool_bytes = 8 * MIB;
  world_format(&w);
  world_settle(&w);
  world_pass(&w, 20 * NS_PER_S);
  w.config.images[1].policy.return_by_itself = false;
  mirror_set_policy(w.m, 1, &w.config.images[1].policy);
  mirror_image_failed(w.m, 1, "a test");
  world_pass(&w, 20 * NS_PER_S);
  w.data[1].bytes[5000] ^= 1;
  w.data[2].bytes[5000] ^= 1;
  w.data[0].holds = RAM_WRITES;
  for (uint32_t k = 1; k < 16; k++) client_begin(&w, &writes[k], DISK_WRITE, k * 65536, 4096, 9);
  world_run(&w);
  assert_int_equal(w.data[0].held_count, 15);
  w.data[2].holds = RAM_WRITES;
  mirror_verify(w.m, 0, world_done, &w);
  world_run(&w);
  assert_int_equal(w.data[2].held_count, 1); /* the repair */
  client_begin(&w, &writes[0], DISK_WRITE, MIB, 4096, 9);
  world_run(&w);
  w.meta[0].holds = w.meta[2].holds = w.home.holds = RAM_WRITES;
  ram_release(&w.data[2]);
  world_run(&w);
  assert_true(w.meta[0].held_count > 0);
  ram_answer(&w.meta[0]); /* of the log, if that is in this round */
  w.config.images[1].policy.return_by_itself = true;
  die_and_recover();
  world_pass(&w, 90 * NS_PER_S);
  world_check_synchronized(&w);
  assert_int_equal(w.data[2].bytes[5000], w.data[0].bytes[5000]);
  assert_int_equal(w.data[1].bytes[5000], w.data[0].bytes[5000]);
}

/* a has rotted, and is repaired from b; the last flush fails on both, and a has lost the repair. What is written again comes from b also
 * when the verify, which has failed, is over before. */
static void a_recovery_goes_on_from_b_when_the_verify_is_over(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  world_pass(&w, 20 * NS_PER_S);
  uint8_t good = w.data[1].bytes[5000];
  w.data[0].bytes[5000] ^= 1;
  w.data[0].holds = w.data[1].holds = RAM_FLUSHES;
  mirror_verify(w.m, 1, world_done, &w);
  for (uint32_t step = 0; step < 100 && w.data[0].held_count == 0; step++) world_pass(&w, NS_PER_MS);
  assert_int_equal(w.data[0].held_count, 1);
  assert_int_equal(w.data[0].bytes[5000], good);
  w.data[0].bytes[5000] ^= 1;
  w.data[0].fails = w.data[1].fails = RAM_FLUSHES | RAM_WRITES; /* and nothing can be written again at once */
  ram_release(&w.data[0]);
  ram_release(&w.data[1]);
  world_run(&w);
  (void)world_wait(&w);
  w.data[0].fails = w.data[1].fails = 0;
  world_pass(&w, 60 * NS_PER_S);
  world_check_synchronized(&w);
  assert_int_equal(w.data[0].bytes[5000], good);
  assert_int_equal(w.data[1].bytes[5000], good);
}

/* A crash leaves a write on a alone. Nothing can be written when the mirror is started and stopped again: what was marked stays so. */
static void a_stop_in_a_recovery_keeps_its_marks(void **state) {
  (void)state;
  struct client_io write;
  world_begin(&w, 2, MIB);
  w.data[1].holds = RAM_WRITES;
  client_begin(&w, &write, DISK_WRITE, 0, 4096, 9);
  world_run(&w);
  assert_int_equal(w.data[0].bytes[0], 9);
  world_die(&w);
  w.data[1].holds = 0;
  w.data[0].fails = w.data[1].fails = RAM_WRITES;
  world_activate(&w);
  world_pass(&w, NS_PER_S / 2);
  mirror_deactivate(w.m, false, world_done, &w);
  (void)world_wait(&w);
  world_close(&w);
  w.data[0].fails = w.data[1].fails = 0;
  world_activate(&w);
  world_pass(&w, 10 * NS_PER_S);
  world_check_synchronized(&w);
  assert_memory_equal(w.data[0].bytes, w.data[1].bytes, MIB);
}

/* a hangs while a write merges the edge of a block with what it holds there; b is asked instead, and a answers at the same time as b, into
 * the memory that it was given. */
static void a_merge_gives_no_memory_that_a_hung_disk_still_has(void **state) {
  (void)state;
  struct client_io write;
  world_begin(&w, 2, MIB);
  uint8_t before = w.data[1].bytes[999];
  w.data[0].holds = w.data[1].holds = RAM_READS;
  client_begin(&w, &write, DISK_WRITE, 1000, 100, 9);
  world_run(&w);
  assert_int_equal(w.data[0].held_count, 1);
  for (uint32_t step = 0; step < 1000 && w.data[1].held_count == 0; step++) world_pass(&w, NS_PER_S / 10);
  assert_int_equal(w.data[1].held_count, 1);
  w.data[0].fails = RAM_READS;
  ram_answer(&w.data[1]);
  ram_answer(&w.data[0]);
  world_run(&w);
  w.data[0].fails = 0;
  ram_release(&w.data[1]);
  assert_int_equal(client_end(&w, &write), TARN_OK);
  assert_int_equal(w.data[1].bytes[1000], 9);
  assert_int_equal(w.data[1].bytes[999], before);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(a_mark_of_a_repair_does_not_land_before_the_record_of_its_source),
      WORLD_TEST(after_a_repair_reads_hold_their_range_until_its_end_is_recorded),
      WORLD_TEST(a_repair_in_one_volume_undoes_no_read_of_another),
      WORLD_TEST(a_source_that_was_away_repairs_nobody),
      WORLD_TEST(one_that_went_on_is_not_old_because_its_file_was_written_to),
      WORLD_TEST(a_write_waits_for_each_of_its_marks),
      WORLD_TEST(a_removal_waits_for_no_write_that_waits_for_it),
      WORLD_TEST(what_is_out_by_one_image_s_record_alone_is_not_the_source),
      WORLD_TEST(a_mark_of_a_repair_does_not_go_before_what_others_miss_is_durable),
      WORLD_TEST(a_recovery_goes_on_from_b_when_the_verify_is_over),
      WORLD_TEST(a_stop_in_a_recovery_keeps_its_marks),
      WORLD_TEST(a_merge_gives_no_memory_that_a_hung_disk_still_has),
  };
  return cmocka_run_group_tests_name("mirror_unseen", tests, NULL, NULL);
}
