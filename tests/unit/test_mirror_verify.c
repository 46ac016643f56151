/* Verify: what it finds, what it repairs, and how it ends. */
#include "mirror_world.h"

#define MIB (1u << 20)

/* All images hold what image a does. */
static void begin(uint32_t images, uint64_t bytes, uint32_t block) {
  world_init(&w, images, bytes, block);
  world_format(&w);
  world_settle(&w);
}

static const struct verify_result *verify(uint32_t source) {
  mirror_verify(w.m, source, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  assert_string_equal(w.why, "");
  return mirror_verify_result(w.m);
}

static bool difference_is(uint32_t index, uint64_t offset, uint64_t length, const char *groups) {
  const struct verify_difference *d = &mirror_verify_result(w.m)->differences[index];
  char all[IMAGES_MAX];
  memset(all, '-', sizeof all);
  memcpy(all, groups, strlen(groups));
  bool is = d->volume == 0 && d->offset == offset && d->length == length && memcmp(d->groups, all, sizeof all) == 0;
  if (!is)
    fprintf(stderr, "difference %u: %llu+%llu %.16s\n", index, (unsigned long long)d->offset,
            (unsigned long long)d->length, d->groups);
  return is;
}

static void equal_images(void **state) {
  (void)state;
  begin(3, MIB + 512 * 7, 512); /* the last unit is not whole */
  uint32_t writes = w.data[0].writes + w.data[1].writes + w.data[2].writes;
  const struct verify_result *result = verify(IMAGES_MAX);
  assert_int_equal(result->done_bytes, MIB + 512 * 7);
  assert_int_equal(result->total_bytes, MIB + 512 * 7);
  assert_int_equal(result->difference_count, 0);
  assert_int_equal(result->differing_bytes + result->repaired_bytes + result->unreadable_bytes, 0);
  result = verify(1); /* and again: there is nothing to repair */
  assert_int_equal(result->done_bytes, MIB + 512 * 7);
  assert_int_equal(w.data[0].writes + w.data[1].writes + w.data[2].writes, writes);
  world_deactivate(&w);
}

/* The exact blocks, who agrees with whom, neighbours as one. */
static void differences(void **state) {
  (void)state;
  begin(3, MIB + 512 * 7, 512);
  w.data[1].bytes[5000] ^= 1;                                                 /* one bit */
  for (uint64_t at = 61440; at < 73728; at += 4096) w.data[2].bytes[at] ^= 8; /* over the end of a region */
  w.data[0].bytes[200000] ^= 1;                                               /* all three differ */
  w.data[1].bytes[200001] ^= 1;
  w.data[1].bytes[MIB + 3583] ^= 1; /* the last byte */
  w.data[0].bytes[131071] ^= 1;     /* two neighbours with other groups */
  w.data[1].bytes[131072] ^= 1;
  const struct verify_result *result = verify(IMAGES_MAX);
  assert_int_equal(result->difference_count, 6);
  assert_true(difference_is(0, 4096, 4096, "ABA"));
  assert_true(difference_is(1, 61440, 12288, "AAB"));
  assert_true(difference_is(2, 126976, 4096, "ABB"));
  assert_true(difference_is(3, 131072, 4096, "ABA"));
  assert_true(difference_is(4, 196608, 4096, "ABC"));
  assert_true(difference_is(5, MIB, 3584, "ABA"));
  assert_int_equal(result->differing_bytes, 4096 * 7 + 3584);
  assert_int_equal(result->repaired_bytes, 0);
  world_check_synchronized(&w); /* it only says so */
  world_deactivate(&w);
}

static void repairs_from_the_image_that_it_is_told(void **state) {
  (void)state;
  for (uint32_t source = 0; source < 3; source++) {
    begin(3, MIB, 512);
    world_pass(&w, 20 * NS_PER_S);
    w.data[1].bytes[5000] ^= 1;
    for (uint64_t at = 61440; at < 73728; at += 4096) w.data[2].bytes[at] ^= 8;
    w.data[0].bytes[200000] ^= 1;
    w.data[1].bytes[200001] ^= 1;
    static uint8_t expected[MIB];
    memcpy(expected, w.data[source].bytes, MIB);
    uint32_t flushes = w.data[0].flushes;
    const struct verify_result *result = verify(source);
    assert_int_equal(result->differing_bytes, 5 * 4096);
    assert_int_equal(result->repaired_bytes, 5 * 4096);
    assert_true(w.data[0].flushes > flushes); /* before it says so */
    for (uint32_t i = 0; i < 3; i++) assert_memory_equal(w.data[i].bytes, expected, MIB);
    uint64_t repaired[3];
    for (uint32_t i = 0; i < 3; i++) repaired[i] = world_image(&w, i).repaired_blocks;
    static const uint64_t counts[3][3] = {{0, 2, 4}, {2, 0, 5}, {4, 5, 0}};
    assert_memory_equal(repaired, counts[source], sizeof repaired);
    result = verify(IMAGES_MAX);
    assert_int_equal(result->difference_count, 0);
    world_deactivate(&w);
    world_end(&w);
  }
  world_init(&w, 1, 65536, 512); /* for the teardown */
}

static void what_cannot_be_read(void **state) {
  (void)state;
  begin(3, MIB, 512);
  ram_spoil(&w.data[1], 9000, 10, RAM_READS);
  ram_spoil(&w.data[0], 50000, 10, RAM_READS);
  ram_spoil(&w.data[1], 50000, 10, RAM_READS);
  w.data[2].bytes[8192] ^= 1;
  const struct verify_result *result = verify(IMAGES_MAX);
  assert_int_equal(result->difference_count, 2);
  assert_true(difference_is(0, 8192, 4096, "A!B"));
  assert_true(difference_is(1, 49152, 4096, "!!A"));
  assert_int_equal(result->differing_bytes, 4096);
  assert_int_equal(result->unreadable_bytes, 8192);
  assert_int_equal(w.data[1].bad[0].what, RAM_READS); /* nothing is repaired without being told from which */
  result = verify(0);
  assert_int_equal(result->repaired_bytes, 4096);
  assert_int_equal(result->left_differing_bytes, 0);
  assert_int_equal(result->left_unreadable_bytes, 4096);
  assert_int_equal(w.data[1].bad[0].what, 0);
  assert_int_equal(w.data[1].bad[1].what, RAM_READS); /* the source cannot read that either */
  assert_true(difference_is(1, 49152, 4096, "!!A"));
  result = verify(2);
  assert_int_equal(result->difference_count, 1);
  assert_int_equal(result->repaired_bytes, 4096); /* of bytes that nobody called different */
  assert_int_equal(result->left_differing_bytes + result->left_unreadable_bytes, 0);
  assert_int_equal(verify(IMAGES_MAX)->difference_count, 0);
  world_deactivate(&w);
}

/* a is the master, has rotted, and is being repaired from b. */
static void a_repair_from_b_is_under_way(void) {
  begin(2, MIB, 512);
  world_pass(&w, 20 * NS_PER_S);
  w.data[0].bytes[5000] ^= 1;
  w.data[0].holds = RAM_WRITES;
  mirror_verify(w.m, 1, world_done, &w);
  world_run(&w);
  assert_int_equal(w.data[0].held_count, 1);
}

static void crash_and_recover(void) {
  w.data[0].holds = w.data[1].holds = 0;
  world_die(&w);
  world_activate(&w);
  world_pass(&w, 10 * NS_PER_S);
}

static void both_hold_what_b_did(uint8_t byte) {
  world_check_synchronized(&w);
  assert_int_equal(w.data[1].bytes[5000], byte);
  assert_memory_equal(w.data[0].bytes, w.data[1].bytes, MIB);
}

static void a_crash_in_a_repair_recovers_from_the_same_image(void **state) {
  (void)state;
  a_repair_from_b_is_under_way();
  uint8_t good = w.data[1].bytes[5000];
  crash_and_recover();
  both_hold_what_b_did(good);
}

/* ... which is over then: the master is the source again. */
static void after_a_repair_the_master_is_the_source(void **state) {
  (void)state;
  struct client_io write;
  a_repair_from_b_is_under_way();
  ram_release(&w.data[0]);
  assert_int_equal(world_wait(&w), TARN_OK);
  world_pass(&w, 10 * NS_PER_S);
  w.data[1].holds = RAM_WRITES;
  client_begin(&w, &write, DISK_WRITE, 8192, 4096, 9);
  world_run(&w);
  uint8_t written = w.data[0].bytes[8192];
  assert_int_not_equal(w.data[1].bytes[8192], written);
  crash_and_recover();
  assert_int_equal(w.data[1].bytes[8192], written);
}

/* No image can flush what was repaired: it is all written again, from b. */
static void a_flush_that_fails_everywhere_recovers_from_the_same_image(void **state) {
  (void)state;
  a_repair_from_b_is_under_way();
  uint8_t good = w.data[1].bytes[5000];
  w.data[0].fails = w.data[1].fails = RAM_FLUSHES;
  ram_release(&w.data[0]);
  assert_int_equal(world_wait(&w), TARN_IO);
  w.data[0].fails = w.data[1].fails = 0;
  world_pass(&w, 30 * NS_PER_S);
  both_hold_what_b_did(good);
}

/* A read is with the master when the source changes, and so it may see there a write that begins after that: it is asked again. */
static void a_read_at_the_master_is_asked_again_when_a_repair_begins(void **state) {
  (void)state;
  struct client_io write, read;
  begin(2, MIB, 512);
  world_pass(&w, 20 * NS_PER_S);
  mirror_set_limits(w.m, -1, -1, true);
  w.data[0].bytes[5000] ^= 1;
  w.data[0].holds = RAM_READS;
  mirror_verify(w.m, 1, world_done, &w);
  world_run(&w);
  client_begin(&w, &read, DISK_READ, MIB / 2, 4096, 0);
  world_run(&w);
  assert_int_equal(w.data[0].held_count, 2);
  ram_answer(&w.data[0]); /* what verify reads */
  world_run(&w);
  w.data[1].holds = RAM_WRITES;
  client_begin(&w, &write, DISK_WRITE, MIB / 2, 4096, 9);
  world_run(&w);
  assert_int_equal(w.data[1].held_count, 1);
  ram_answer(&w.data[0]); /* what the client reads: the master has the write already */
  world_run(&w);
  assert_false(read.done);
  ram_release(&w.data[1]);
  ram_release(&w.data[0]);
  assert_int_equal(client_end(&w, &write), TARN_OK);
  assert_int_equal(client_end(&w, &read), TARN_OK);
  assert_int_equal(world_wait(&w), TARN_OK);
}

/* Before the source changes all writes end: what a read has shown of one at the master is not undone by a crash that recovers from b. */
static void a_repair_undoes_no_read_that_was_answered_before_it(void **state) {
  (void)state;
  struct client_io write;
  begin(2, MIB, 512);
  world_pass(&w, 20 * NS_PER_S);
  w.data[0].bytes[5000] ^= 1;
  w.data[1].holds = RAM_WRITES;
  client_begin(&w, &write, DISK_WRITE, MIB / 2, 4096, 9);
  world_run(&w);
  struct client_io read;
  client_begin(&w, &read, DISK_READ, MIB / 2, 4096, 0);
  world_run(&w);
  assert_true(read.done); /* at the master, which has it */
  uint8_t seen = read.io.data[0];
  assert_int_equal(seen, w.data[0].bytes[MIB / 2]);
  assert_int_not_equal(seen, w.data[1].bytes[MIB / 2]);
  buffer_unref(read.io.buffer);
  mirror_verify(w.m, 1, world_done, &w);
  world_pass(&w, NS_PER_S);
  assert_false(write.done);
  crash_and_recover();
  world_check_synchronized(&w);
  assert_int_equal(w.data[0].bytes[MIB / 2], seen);
  assert_int_equal(w.data[1].bytes[MIB / 2], seen);
}

/* ... nor by a recovery. A write that is in flight when the source is to change fails on all images: what a read has shown of it at the
 * master is what all hold in the end. */
static void a_write_that_fails_before_a_repair_is_recovered_from_the_master(void **state) {
  (void)state;
  struct client_io write, read;
  begin(2, MIB, 512);
  world_pass(&w, 20 * NS_PER_S);
  w.data[0].bytes[5000] ^= 1;
  w.data[0].holds = w.data[1].holds = RAM_WRITES;
  client_begin(&w, &write, DISK_WRITE, MIB / 2, 4096, 9);
  world_run(&w);
  assert_int_equal(w.data[0].held_count, 1);
  memset(w.data[0].bytes + MIB / 2, 9, 4096); /* a has it, and will say that it failed */
  client_begin(&w, &read, DISK_READ, MIB / 2, 4096, 0);
  world_run(&w);
  assert_true(read.done);
  assert_int_equal(read.io.data[0], 9);
  buffer_unref(read.io.buffer);
  mirror_verify(w.m, 1, world_done, &w);
  world_run(&w);
  w.data[0].fails = w.data[1].fails = RAM_WRITES;
  ram_release(&w.data[0]);
  ram_release(&w.data[1]);
  w.data[0].fails = w.data[1].fails = 0;
  assert_int_equal(client_end(&w, &write), TARN_IO);
  world_pass(&w, 10 * NS_PER_S);
  world_check_synchronized(&w);
  assert_int_equal(client_do(&w, DISK_READ, MIB / 2, 4096, 0), TARN_OK);
  assert_int_equal(w.data[0].bytes[MIB / 2], 9);
  assert_int_equal(w.data[1].bytes[MIB / 2], 9);
}

/* A place on the list holds anything: it is named, and not compared, nor repaired. */
static void what_was_left_behind(void **state) {
  (void)state;
  world_init(&w, 2, MIB, 512);
  world_format(&w);
  ram_spoil(&w.data[0], 20480, 4096, RAM_READS);
  world_activate(&w);
  world_pass(&w, 5 * NS_PER_S);
  w.data[0].bad_count = 0;
  assert_memory_not_equal(w.data[0].bytes + 20480, w.data[1].bytes + 20480, 4096);
  for (uint32_t source = 0; source < 3; source++) {
    const struct verify_result *result = verify(source < 2 ? source : IMAGES_MAX);
    assert_int_equal(result->difference_count, 1);
    assert_true(difference_is(0, 20480, 4096, "!!"));
    assert_int_equal(result->unreadable_bytes, 4096);
    assert_int_equal(result->differing_bytes + result->repaired_bytes, 0);
  }
  assert_int_equal(client_do(&w, DISK_READ, 20480, 512, 0), TARN_IO);
  world_deactivate(&w);
}

static void images_that_are_away(void **state) {
  (void)state;
  begin(3, MIB, 512);
  mirror_image_failed(w.m, 1, "a test");
  w.data[1].bytes[5000] ^= 1;
  w.data[2].bytes[9000] ^= 1;
  const struct verify_result *result = verify(0);
  assert_int_equal(result->difference_count, 1);
  assert_true(difference_is(0, 8192, 4096, "A-B"));
  assert_int_equal(w.data[2].bytes[9000], w.data[0].bytes[9000]);
  /* What was repaired, the one that is away may hold wrongly. */
  assert_int_equal(world_image(&w, 1).missed_bytes, 16 << 10);
  mirror_verify(w.m, 1, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_REFUSED);
  assert_string_equal(w.why, "image b is UNSYNCHRONIZED: only a SYNCHRONIZED image is repaired from");
  mirror_verify(w.m, 7, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_REFUSED);
  world_deactivate(&w);
}

static void many_differences(void **state) {
  (void)state;
  begin(2, 2 * MIB, 512);
  for (uint32_t k = 0; k < 100; k++) w.data[1].bytes[k * 8192] ^= 1;
  const struct verify_result *result = verify(IMAGES_MAX);
  assert_int_equal(result->difference_count, 100);
  assert_true(difference_is(VERIFY_DIFFERENCES_MAX - 1, (VERIFY_DIFFERENCES_MAX - 1) * 8192, 4096, "AB"));
  assert_int_equal(result->differing_bytes, 100 * 4096);
  world_deactivate(&w);
}

/* Writes that come meanwhile wait for a range, or the range for them: none shows as a difference. */
static void beside_clients(void **state) {
  (void)state;
  begin(2, MIB, 512);
  mirror_verify(w.m, IMAGES_MAX, world_done, &w);
  w.data[0].holds = RAM_READS | RAM_WRITES;
  w.data[1].holds = RAM_WRITES;
  for (uint32_t k = 0; k < 40; k++) {
    struct client_io write, other;
    client_begin(&w, &write, DISK_WRITE, k * 1000 % 900 * 1024, 2048, (uint8_t)k);
    client_begin(&w, &other, DISK_WRITE, k * 4096, 100, (uint8_t)k);
    world_run(&w);
    while (!write.done || !other.done) {
      if (w.data[k % 2].held_count > 0) ram_answer(&w.data[k % 2]);
      else if (w.data[!(k % 2)].held_count > 0) ram_answer(&w.data[!(k % 2)]);
      world_run(&w);
    }
    assert_int_equal(client_end(&w, &write), TARN_OK);
    assert_int_equal(client_end(&w, &other), TARN_OK);
  }
  w.data[0].holds = w.data[1].holds = 0;
  for (uint32_t i = 0; i < 2; i++) ram_answer_all(&w.data[i]);
  assert_int_equal(world_wait(&w), TARN_OK);
  assert_int_equal(mirror_verify_result(w.m)->difference_count, 0);
  assert_int_equal(mirror_verify_result(w.m)->done_bytes, MIB);
  world_deactivate(&w);
}

static void one_at_a_time(void **state) {
  (void)state;
  begin(2, MIB, 512);
  w.data[0].holds = RAM_READS;
  mirror_verify(w.m, IMAGES_MAX, world_done, &w);
  world_run(&w);
  assert_int_equal(w.data[0].held_count, 1);
  assert_int_equal(world_image(&w, 0).sync.kind, SYNC_VERIFY);
  assert_int_equal(world_image(&w, 0).sync.total_bytes, MIB);
  struct mirror_world *again = &w;
  assert_false(w.done);
  mirror_verify(w.m, IMAGES_MAX, world_done, again);
  assert_true(w.done);
  assert_int_equal(w.err, TARN_REFUSED);
  assert_string_equal(w.why, "a verify of this mirror is running already");
  w.done = false;
  w.data[0].holds = 0;
  ram_answer(&w.data[0]);
  assert_int_equal(world_wait(&w), TARN_OK);
  assert_int_equal(world_image(&w, 0).sync.kind, SYNC_NONE);
  world_deactivate(&w);
}

/* With what is in flight, and no more. */
static void it_is_stopped(void **state) {
  (void)state;
  begin(2, MIB, 512);
  mirror_verify_stop(w.m); /* harmless */
  world_run(&w);
  w.data[0].holds = RAM_READS;
  mirror_verify(w.m, IMAGES_MAX, world_done, &w);
  world_run(&w);
  uint32_t reads = w.data[0].reads;
  mirror_verify_stop(w.m);
  mirror_verify_stop(w.m);
  world_run(&w);
  assert_false(w.done); /* a disk has still its read */
  ram_answer(&w.data[0]);
  assert_int_equal(world_wait(&w), TARN_SHUTDOWN);
  assert_int_equal(w.data[0].reads, reads);
  /* While it waits for the lock there is nothing to wait for. */
  w.data[0].holds = RAM_WRITES;
  struct client_io write;
  client_begin(&w, &write, DISK_WRITE, 0, 4096, 1);
  world_run(&w);
  mirror_verify(w.m, IMAGES_MAX, world_done, &w);
  world_run(&w);
  mirror_verify_stop(w.m);
  assert_int_equal(world_wait(&w), TARN_SHUTDOWN);
  w.data[0].holds = 0;
  ram_answer(&w.data[0]);
  assert_int_equal(client_end(&w, &write), TARN_OK);
  verify(IMAGES_MAX); /* and another one begins anew */
  assert_int_equal(mirror_verify_result(w.m)->done_bytes, MIB);
  world_deactivate(&w);
}

static bool verify_ended;
static tarn_err verify_err;
static void verify_done(struct mirror *m, tarn_err err, const char *why, void *context) {
  (void)m, (void)why, (void)context;
  verify_ended = true;
  verify_err = err;
}

static void the_mirror_is_deactivated(void **state) {
  (void)state;
  for (uint32_t source = 0; source < 2; source++) {
    begin(2, MIB, 512);
    w.data[1].bytes[5000] ^= 1;
    w.data[0].holds = source ? RAM_WRITES : RAM_READS; /* in a repair, or in a comparison */
    verify_ended = false;
    mirror_verify(w.m, source ? 1 : IMAGES_MAX, verify_done, &w);
    world_run(&w);
    assert_int_equal(w.data[0].held_count, 1);
    mirror_deactivate(w.m, false, world_done, &w);
    world_run(&w);
    assert_false(w.done);
    w.data[0].holds = 0;
    ram_answer(&w.data[0]);
    assert_int_equal(world_wait(&w), TARN_OK);
    assert_true(verify_ended);
    assert_int_equal(verify_err, TARN_SHUTDOWN);
    assert_true(mirror_is_idle(w.m));
    world_close(&w);
    world_end(&w);
  }
  world_init(&w, 1, 65536, 512); /* for the teardown */
}

static void the_mirror_falls(void **state) {
  (void)state;
  begin(2, MIB, 512);
  w.data[0].holds = w.data[1].holds = RAM_READS;
  verify_ended = false;
  mirror_verify(w.m, IMAGES_MAX, verify_done, &w);
  world_pass(&w, 60 * NS_PER_S); /* both disks hang */
  assert_int_equal(mirror_state_now(w.m), MIRROR_ATTENTION);
  assert_true(verify_ended);
  assert_int_equal(verify_err, TARN_SHUTDOWN);
  assert_true(mirror_is_idle(w.m));
  ram_answer(&w.data[0]);
  ram_answer(&w.data[1]);
  world_run(&w);
  assert_true(mirror_is_quiet(w.m));
  world_close(&w);
}

static void the_source_leaves(void **state) {
  (void)state;
  begin(3, MIB, 512);
  w.data[1].bytes[5000] ^= 1;
  w.data[1].bytes[500000] ^= 1;
  w.data[0].holds = RAM_READS;
  mirror_verify(w.m, 2, world_done, &w);
  world_run(&w);
  mirror_image_failed(w.m, 2, "a test");
  w.data[0].holds = 0;
  ram_answer(&w.data[0]);
  assert_int_equal(world_wait(&w), TARN_IO);
  assert_string_equal(w.why, "image c, to repair from, is no longer SYNCHRONIZED");
  world_deactivate(&w);
}

static void flush_of_a(bool good) {
  for (uint32_t step = 0; step < 100 && w.data[0].held_count == 0; step++) world_pass(&w, NS_PER_S / 10);
  assert_true(w.data[0].held_count > 0);
  w.data[0].fails = good ? 0 : RAM_FLUSHES;
  ram_answer_last(&w.data[0]);
  w.data[0].fails = 0;
  world_run(&w);
}

/* While a is repaired from b, b is to be copied in full itself. a, the only good one then, fails a flush, recovers, and fails the verify's
 * last one. The record does not name b as a source any more when b is removed. */
static void the_source_is_copied_in_full_and_removed(void **state) {
  struct client_io flush;
  (void)state;
  begin(2, 8 * MIB, 512);
  world_pass(&w, 20 * NS_PER_S);
  w.data[0].bytes[5000] ^= 1;
  w.data[0].bytes[5 * MIB] ^= 1;
  verify_ended = false;
  mirror_verify(w.m, 1, verify_done, NULL);
  for (uint32_t step = 0; step < 100000 && !world_said(&w, "were written again"); step++) event_run_one(&w.env.queue);
  w.data[0].holds = RAM_READS; /* it goes on, and is not over */
  world_run(&w);
  assert_true(world_said(&w, "were written again") && !verify_ended);
  mirror_image_do(w.m, 1, IMAGE_OP_SYNC, false, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  assert_false(verify_ended);
  w.data[0].holds |= RAM_FLUSHES;
  client_begin(&w, &flush, DISK_FLUSH, 0, 0, 0);
  world_run(&w);
  flush_of_a(false);
  w.data[0].holds = RAM_FLUSHES; /* reads go on: what failed is written again */
  while (w.data[0].held_count > 0) ram_answer(&w.data[0]);
  flush_of_a(true);  /* the end of that recovery */
  flush_of_a(false); /* and of the verify */
  mirror_image_do(w.m, 1, IMAGE_OP_REMOVE, false, world_done, &w);
  world_run(&w);
  ram_release(&w.data[0]);
  assert_int_equal(world_wait(&w), TARN_OK);
  world_pass(&w, 20 * NS_PER_S);
  assert_true(verify_ended && flush.done);
  world_deactivate(&w);
}

static void a_hung_image_is_left_out(void **state) {
  (void)state;
  begin(3, MIB, 512);
  w.data[1].holds = RAM_READS;
  w.data[2].bytes[5000] ^= 1;
  const struct verify_result *result = verify(IMAGES_MAX);
  assert_int_equal(result->done_bytes, MIB);
  assert_int_equal(result->difference_count, 1);
  assert_true(difference_is(0, 4096, 4096, "A-B"));
  assert_int_equal(world_image(&w, 1).state, IMAGE_UNSYNCHRONIZED);
  w.data[1].holds = 0;
  ram_answer(&w.data[1]);
  world_run(&w);
  world_deactivate(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(equal_images),
      WORLD_TEST(differences),
      WORLD_TEST(repairs_from_the_image_that_it_is_told),
      WORLD_TEST(a_crash_in_a_repair_recovers_from_the_same_image),
      WORLD_TEST(after_a_repair_the_master_is_the_source),
      WORLD_TEST(a_flush_that_fails_everywhere_recovers_from_the_same_image),
      WORLD_TEST(a_read_at_the_master_is_asked_again_when_a_repair_begins),
      WORLD_TEST(a_repair_undoes_no_read_that_was_answered_before_it),
      WORLD_TEST(a_write_that_fails_before_a_repair_is_recovered_from_the_master),
      WORLD_TEST(what_cannot_be_read),
      WORLD_TEST(what_was_left_behind),
      WORLD_TEST(images_that_are_away),
      WORLD_TEST(many_differences),
      WORLD_TEST(beside_clients),
      WORLD_TEST(one_at_a_time),
      WORLD_TEST(it_is_stopped),
      WORLD_TEST(the_mirror_is_deactivated),
      WORLD_TEST(the_mirror_falls),
      WORLD_TEST(the_source_leaves),
      WORLD_TEST(the_source_is_copied_in_full_and_removed),
      WORLD_TEST(a_hung_image_is_left_out),
  };
  return cmocka_run_group_tests_name("mirror_verify", tests, NULL, NULL);
}
