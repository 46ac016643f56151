/* What is answered, and when, if writes or records fail: rules 5, 6 and 12. */
#include <stdlib.h>

#include "mirror_world.h"

#define MIB (1u << 20)

static struct mirror_world w;

static int teardown(void **state) {
  (void)state;
  world_end(&w);
  return 0;
}

static void begin(uint32_t images) {
  world_init(&w, images, MIB, 512);
  world_format(&w);
  world_settle(&w);
}

static tarn_err write_at(uint64_t offset, uint64_t length) { return client_do(&w, DISK_WRITE, offset, length, 0x55); }

/* A write fails on every image, and has left something at one of them: a recovery decides what counts. A read that saw it there
 * while the write was in flight is not answered before that is on all images. */
static void a_read_does_not_tell_of_a_write_that_failed_everywhere(void **state) {
  (void)state;
  begin(2);
  w.data[0].holds = RAM_READS | RAM_WRITES;
  w.data[1].holds = RAM_WRITES;
  struct client_io write, read;
  client_begin(&w, &write, DISK_WRITE, 65536, 4096, 0x66);
  world_pass(&w, NS_PER_S / 100);
  client_begin(&w, &read, DISK_READ, 65536, 4096, 0);
  world_pass(&w, NS_PER_S / 100);
  assert_int_equal(w.data[0].held_count, 2);
  memset(w.data[0].bytes + 65536, 0x66, 4096);
  w.data[0].fails = w.data[1].fails = RAM_WRITES;
  ram_answer(&w.data[0]);
  ram_answer(&w.data[1]);
  world_run(&w);
  w.data[0].fails = w.data[1].fails = 0;
  w.data[0].holds = 0;
  while (w.data[0].held_count > 0) ram_answer(&w.data[0]);
  world_pass(&w, 5 * NS_PER_S);
  assert_int_equal(client_end(&w, &write), TARN_IO);
  assert_true(w.data[1].held_count > 0); /* the copy that makes b equal there */
  assert_false(read.done);
  w.data[1].holds = 0;
  while (w.data[1].held_count > 0) ram_answer(&w.data[1]);
  assert_int_equal(client_end(&w, &read), TARN_OK);
  assert_memory_equal(w.data[0].bytes + 65536, w.data[1].bytes + 65536, 4096);
  world_deactivate(&w);
}

/* The write that finds that too few images are left is not done, though one of them has it: nor is a flush. */
static void a_write_is_not_done_on_too_few_images(void **state) {
  (void)state;
  static const struct {
    const char *why;
    enum disk_op op;
    uint64_t length;
    uint32_t fails;
  } rows[] = {
      {"write", DISK_WRITE, 4096, RAM_WRITES},
      {"zeroes", DISK_WRITE_ZEROES, 65536, RAM_WRITES},
      {"flush", DISK_FLUSH, 0, RAM_FLUSHES},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    begin(2);
    mirror_set_limits(w.m, 0, -1, false);
    w.data[1].fails = rows[i].fails;
    row_true(rows[i].why, client_do(&w, rows[i].op, 0, rows[i].length, 0x77) == TARN_SHUTDOWN);
    row_true(rows[i].why, mirror_has_fallen(w.m) && world_said(&w, "max-missing allows 0"));
    world_end(&w);
  }
}

/* Which places are unreadable is on every image: the state directory may learn of it later. */
static void a_healing_write_does_not_need_the_state_directory(void **state) {
  (void)state;
  world_init(&w, 2, MIB, 512);
  world_format(&w);
  ram_spoil(&w.data[0], 65536, 4096, RAM_READS);
  world_activate(&w);
  world_pass(&w, 5 * NS_PER_S);
  assert_int_equal(world_image(&w, 0).unreadable_bytes, 4096);
  w.home.fails = RAM_WRITES;
  assert_int_equal(write_at(65536, 4096), TARN_OK);
  assert_true(world_said(&w, "the state directory cannot be written"));
  world_die(&w);
  w.home.fails = 0;
  world_activate(&w);
  assert_int_equal(world_image(&w, 0).unreadable_bytes, 0);
  assert_int_equal(client_do(&w, DISK_READ, 65536, 4096, 0), TARN_OK);
  world_deactivate(&w);
}

/* Who is current is not: a crash, and the survivor away, would make the image current that the write has not reached. */
static void an_image_is_not_dropped_without_the_state_directory(void **state) {
  (void)state;
  begin(2);
  w.home.fails = RAM_WRITES;
  w.data[1].fails = RAM_WRITES;
  assert_int_equal(write_at(0, 4096), TARN_IO);
  assert_true(world_said(&w, "image b is out"));
  assert_int_equal(write_at(131072, 4096), TARN_IO);
  assert_int_equal(client_do(&w, DISK_READ, 262144, 4096, 0), TARN_OK); /* reads go on, */
  assert_int_equal(client_do(&w, DISK_READ, 0, 4096, 0), TARN_IO);      /* but not of what only one image has */
  w.home.fails = 0;
  world_pass(&w, 5 * NS_PER_S);
  assert_int_equal(client_do(&w, DISK_READ, 0, 4096, 0), TARN_OK);
  assert_int_equal(write_at(131072, 4096), TARN_OK);
  world_deactivate(&w);
}

/* The survivor cannot write its metadata, as on a file system that is full; home can, and says who is out: reads go on. */
static void reads_go_on_where_home_says_who_is_out(void **state) {
  (void)state;
  begin(2);
  assert_int_equal(write_at(0, 4096), TARN_OK);
  w.meta[0].fails = w.data[1].fails = RAM_WRITES;
  assert_int_equal(write_at(0, 4096), TARN_IO);
  assert_true(world_said(&w, "image b is out"));
  assert_true(world_said(&w, "no image can write its metadata"));
  assert_int_equal(client_do(&w, DISK_READ, 0, 4096, 0), TARN_OK);
  world_die(&w);
  w.meta[0].fails = w.data[1].fails = 0;
  w.config.images[0].data[0] = NULL; /* the next process finds only b */
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_REFUSED);
  mirror_close(w.m);
  world_die(&w);
}

/* A disk that rots is told of, as long as that harms nobody yet; a record that a crash has torn is not. */
static void a_damaged_copy_of_a_record_is_told_after_a_clean_stop(void **state) {
  (void)state;
  begin(2);
  world_deactivate(&w);
  w.meta[1].bytes[RECORD_SLOT_BYTES + 700] ^= 1;
  w.home.bytes[700] ^= 1;
  world_activate(&w);
  assert_true(world_said(&w, "the record in the metadata of image b is damaged"));
  assert_true(world_said(&w, "the record in the state directory is damaged"));
  assert_false(world_said(&w, "image a is damaged"));
  assert_int_equal(write_at(0, 4096), TARN_OK);
  world_die(&w);
  w.log[0] = 0;
  w.meta[1].bytes[RECORD_SLOT_BYTES + 700] ^= 1;
  world_activate(&w);
  assert_false(world_said(&w, "is damaged"));
  world_deactivate(&w);
}

static void keep(struct ram_disk *ram, uint8_t **kept) {
  *kept = realloc(*kept, ram->disk.caps.size_bytes);
  memcpy(*kept, ram->bytes, ram->disk.caps.size_bytes);
}

static void put_back(struct ram_disk *ram, const uint8_t *kept) { memcpy(ram->bytes, kept, ram->disk.caps.size_bytes); }

/* An image that is put back, with its metadata, to what it was before a clean stop or before the activation that a crash ended, is
 * told by its record alone: rules 10 and 16. */
static void an_image_that_was_put_back_is_old(void **state) {
  (void)state;
  static const struct {
    const char *why;
    bool kept_while_active, crash;
  } rows[] = {
      {"kept while it served, put back after a clean stop", true, false},
      {"kept after a clean stop, put back after a crash", false, true},
      {"kept before an activation, put back after its clean stop", false, false},
  };
  uint8_t *data = NULL, *meta = NULL;
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    begin(2);
    if (!rows[i].kept_while_active) world_deactivate(&w);
    keep(&w.data[0], &data);
    keep(&w.meta[0], &meta);
    if (!rows[i].kept_while_active) world_activate(&w);
    assert_int_equal(write_at(65536, 4096), TARN_OK);
    assert_int_equal(client_do(&w, DISK_FLUSH, 0, 0, 0), TARN_OK);
    if (rows[i].crash) world_die(&w);
    else world_deactivate(&w);
    put_back(&w.data[0], data);
    put_back(&w.meta[0], meta);
    world_activate(&w);
    row_true(rows[i].why, !world_image(&w, 0).master);
    world_pass(&w, 5 * NS_PER_S);
    world_check_synchronized(&w);
    row_true(rows[i].why, w.data[0].bytes[65536] == 0x55);
    world_end(&w);
  }
  free(data);
  free(meta);
}

/* A flush fails everywhere while one of ours and then a client's wait behind it. Ours goes on by itself: the client's waits
 * until what the failed one has left in doubt is written again, and is flushed. */
static void a_flush_in_doubt_does_not_ride_along_with_ours(void **state) {
  (void)state;
  begin(2);
  assert_int_equal(write_at(0, 4096), TARN_OK);
  world_pass(&w, 45 * NS_PER_S / 10);
  w.data[0].holds = w.data[1].holds = RAM_FLUSHES;
  struct client_io failed, behind;
  client_begin(&w, &failed, DISK_FLUSH, 0, 0, 0);
  world_pass(&w, 3 * NS_PER_S); /* the mark is idle: a flush of ours is wanted */
  assert_int_equal(w.data[0].held_count, 1);
  client_begin(&w, &behind, DISK_FLUSH, 0, 0, 0);
  world_run(&w);
  w.data[0].fails = w.data[1].fails = RAM_FLUSHES;
  ram_answer(&w.data[0]);
  ram_answer(&w.data[1]);
  w.data[0].fails = w.data[1].fails = 0;
  w.data[0].holds = w.data[1].holds = RAM_FLUSHES | RAM_READS; /* nothing is copied yet */
  world_run(&w);
  assert_int_equal(client_end(&w, &failed), TARN_IO);
  uint64_t written = w.data[0].bytes_written;
  uint32_t flushes = w.data[0].flushes;
  while (w.data[0].held_count > 0) ram_answer(&w.data[0]);
  while (w.data[1].held_count > 0) ram_answer(&w.data[1]);
  world_run(&w);
  assert_false(behind.done);
  w.data[0].holds = w.data[1].holds = 0;
  while (w.data[0].held_count > 0) ram_answer(&w.data[0]);
  while (w.data[1].held_count > 0) ram_answer(&w.data[1]);
  assert_int_equal(client_end(&w, &behind), TARN_OK);
  assert_true(w.data[0].bytes_written > written); /* again, and */
  assert_true(w.data[0].flushes > flushes);
  world_deactivate(&w);
}

/* As above, but the read is so late that the recovery is over: from another image, since the one that it was at is out. */
static void a_read_of_before_a_recovery_is_asked_again(void **state) {
  (void)state;
  begin(3);
  w.data[0].holds = RAM_READS | RAM_WRITES;
  w.data[1].holds = w.data[2].holds = RAM_WRITES;
  struct client_io write, read;
  client_begin(&w, &write, DISK_WRITE, 65536, 4096, 0x66);
  world_pass(&w, NS_PER_S / 100);
  client_begin(&w, &read, DISK_READ, 65536, 4096, 0);
  world_pass(&w, NS_PER_S / 100);
  assert_int_equal(w.data[0].held_count, 2);
  memset(w.data[0].bytes + 65536, 0x66, 4096);
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
  while (w.data[0].held_count > 0) ram_answer(&w.data[0]);
  assert_int_equal(client_end(&w, &write), TARN_IO);
  assert_int_equal(client_end(&w, &read), TARN_OK);
  assert_memory_equal(read.io.data, w.data[1].bytes + 65536, 4096);
  world_deactivate(&w);
}

/* A write that spans a new region waits for its mark; one that overlaps it, where there is a mark, comes later and stays later. */
static void overlapping_writes_take_effect_in_order(void **state) {
  (void)state;
  begin(2);
  assert_int_equal(write_at(0, 4096), TARN_OK);
  w.meta[0].holds = RAM_WRITES;
  struct client_io first, second;
  client_begin(&w, &first, DISK_WRITE, 65536 - 4096, 8192, 0xaa);
  client_begin(&w, &second, DISK_WRITE, 65536 - 4096, 4096, 0xbb);
  world_run(&w);
  assert_false(first.done || second.done);
  w.meta[0].holds = 0;
  while (w.meta[0].held_count > 0) ram_answer(&w.meta[0]);
  assert_int_equal(client_end(&w, &first), TARN_OK);
  assert_int_equal(client_end(&w, &second), TARN_OK);
  for (uint32_t i = 0; i < 2; i++) {
    assert_int_equal(w.data[i].bytes[65536 - 4096], 0xbb);
    assert_int_equal(w.data[i].bytes[65536], 0xaa);
  }
  world_deactivate(&w);
}

/* A fall: the healthy image is flushed before the mirror is idle, and so before anybody may close its disks. */
static void a_mirror_that_falls_flushes_what_it_answered(void **state) {
  (void)state;
  world_init(&w, 2, MIB, 512);
  world_format(&w);
  w.config.max_missing = 0;
  world_settle(&w);
  assert_int_equal(write_at(0, 4096), TARN_OK);
  w.data[0].holds = RAM_FLUSHES;
  mirror_image_failed(w.m, 1, "its disk is gone");
  assert_true(mirror_has_fallen(w.m));
  assert_false(mirror_is_idle(w.m));
  world_run(&w);
  assert_false(mirror_is_idle(w.m));
  assert_int_equal(w.data[0].held_count, 1);
  ram_answer(&w.data[0]);
  world_run(&w);
  assert_true(mirror_is_idle(w.m) && mirror_is_quiet(w.m));
  assert_false(mirror_may_have_lost(w.m));
  mirror_close(w.m);
  world_die(&w);
}

/* Also if a verify is at work, which ends last of all. */
static void a_mirror_that_falls_during_a_verify_is_flushed(void **state) {
  (void)state;
  world_init(&w, 2, MIB, 512);
  world_format(&w);
  w.config.max_missing = 0;
  world_settle(&w);
  assert_int_equal(write_at(0, 4096), TARN_OK);
  w.data[0].holds = RAM_READS;
  mirror_verify(w.m, IMAGES_MAX, world_done, &w);
  world_run(&w);
  assert_true(w.data[0].held_count > 0);
  mirror_image_failed(w.m, 1, "its disk is gone");
  assert_true(mirror_has_fallen(w.m));
  world_run(&w); /* that b is out is recorded */
  uint32_t flushes = w.data[0].flushes;
  w.data[0].holds = 0;
  while (w.data[0].held_count > 0) ram_answer(&w.data[0]);
  world_pass(&w, NS_PER_S);
  assert_true(w.done);
  assert_true(w.data[0].flushes > flushes);
  assert_true(mirror_is_idle(w.m) && mirror_is_quiet(w.m));
  assert_false(mirror_may_have_lost(w.m));
  mirror_close(w.m);
  world_die(&w);
}

/* Or an image is being added, whose metadata is slow. */
static void a_mirror_that_falls_while_an_image_is_added_is_flushed(void **state) {
  (void)state;
  world_init(&w, 3, MIB, 512);
  w.config.image_count = 2;
  world_format(&w);
  w.config.max_missing = 0;
  world_settle(&w);
  assert_int_equal(write_at(0, 4096), TARN_OK);
  w.meta[2].holds = RAM_READS;
  mirror_image_add(w.m, 2, &w.config.images[2], world_done, &w);
  world_run(&w);
  assert_true(w.meta[2].held_count > 0);
  mirror_image_failed(w.m, 1, "its disk is gone");
  assert_true(mirror_has_fallen(w.m));
  world_run(&w);
  uint32_t flushes = w.data[0].flushes;
  w.meta[2].holds = 0;
  while (w.meta[2].held_count > 0) ram_answer(&w.meta[2]);
  world_pass(&w, NS_PER_S);
  assert_true(w.done);
  assert_int_equal(w.err, TARN_REFUSED);
  assert_true(w.data[0].flushes > flushes);
  assert_true(mirror_is_idle(w.m) && mirror_is_quiet(w.m));
  mirror_close(w.m);
  world_die(&w);
}

/* Where that fails it says so; not if all was flushed before. */
static void a_mirror_that_falls_says_what_it_may_have_lost(void **state) {
  (void)state;
  for (uint32_t flushed = 0; flushed < 2; flushed++) {
    world_init(&w, 2, MIB, 512);
    world_format(&w);
    w.config.max_missing = 0;
    world_settle(&w);
    assert_int_equal(write_at(0, 4096), TARN_OK);
    if (flushed) assert_int_equal(client_do(&w, DISK_FLUSH, 0, 0, 0), TARN_OK);
    w.data[0].fails = RAM_FLUSHES;
    mirror_image_failed(w.m, 1, "its disk is gone");
    world_pass(&w, NS_PER_S);
    assert_true(mirror_is_idle(w.m) && mirror_is_quiet(w.m));
    assert_int_equal(mirror_may_have_lost(w.m), !flushed);
    mirror_close(w.m);
    world_end(&w);
  }
}

/* The last image hangs, and its disk answers after all: it is asked once more, and nothing is lost. Or it fails one of those that
 * it held: then who knows. */
static void a_disk_that_hung_is_flushed_when_it_answers(void **state) {
  (void)state;
  static const struct {
    const char *why;
    enum disk_op op;
    uint32_t holds, fails;
  } rows[] = {
      {"a write that is done in the end", DISK_WRITE, RAM_WRITES, 0},
      {"a write that fails in the end", DISK_WRITE, RAM_WRITES, RAM_WRITES},
      {"a flush that is done in the end", DISK_FLUSH, RAM_FLUSHES, 0},
      {"a flush that fails in the end", DISK_FLUSH, RAM_FLUSHES, RAM_FLUSHES},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    bool fails = rows[i].fails != 0;
    begin(1);
    assert_int_equal(write_at(0, 4096), TARN_OK);
    w.data[0].holds = rows[i].holds;
    struct client_io held;
    client_begin(&w, &held, rows[i].op, rows[i].op == DISK_WRITE ? 65536 : 0, rows[i].op == DISK_WRITE ? 4096 : 0,
                 0x66);
    world_pass(&w, 30 * NS_PER_S);
    assert_true(mirror_has_fallen(w.m));
    row_true(rows[i].why, client_end(&w, &held) == TARN_SHUTDOWN);
    assert_false(mirror_is_quiet(w.m));
    uint32_t flushes = w.data[0].flushes;
    w.data[0].fails = rows[i].fails;
    w.data[0].holds = 0;
    while (w.data[0].held_count > 0) ram_answer(&w.data[0]);
    world_run(&w);
    assert_true(mirror_is_idle(w.m) && mirror_is_quiet(w.m));
    row_true(rows[i].why, w.data[0].flushes == flushes + !fails);
    row_true(rows[i].why, mirror_may_have_lost(w.m) == fails);
    mirror_close(w.m);
    world_end(&w);
  }
}

/* A fall soon after a kill: nobody knows whether what the process before has answered was flushed, so it is. */
static void a_fall_flushes_what_the_process_before_answered(void **state) {
  (void)state;
  begin(2);
  assert_int_equal(write_at(0, 4096), TARN_OK);
  world_die(&w);
  w.config.max_missing = 0;
  world_activate(&w);
  w.data[0].holds = RAM_FLUSHES;
  mirror_image_failed(w.m, 1, "its disk is gone");
  assert_true(mirror_has_fallen(w.m));
  world_run(&w);
  assert_int_equal(w.data[0].held_count, 1);
  ram_answer(&w.data[0]);
  world_run(&w);
  assert_true(mirror_is_idle(w.m) && mirror_is_quiet(w.m));
  assert_false(mirror_may_have_lost(w.m));
  mirror_close(w.m);
  world_die(&w);
}

/* A flush fails everywhere, and the mirror stops, in this life or in the next one, before what that has left in doubt is written
 * again: the flush of the stop is good, and proves nothing of it. */
static void a_stop_says_what_it_leaves_in_doubt(void **state) {
  (void)state;
  for (uint32_t killed = 0; killed < 2; killed++) {
    begin(2);
    assert_int_equal(write_at(0, 4096), TARN_OK);
    w.data[0].holds = RAM_READS; /* nothing is recovered */
    w.data[0].fails = w.data[1].fails = RAM_FLUSHES;
    assert_int_equal(client_do(&w, DISK_FLUSH, 0, 0, 0), TARN_IO);
    world_run(&w);
    w.data[0].fails = w.data[1].fails = 0;
    if (killed) {
      while (w.data[0].held_count > 0) ram_answer(&w.data[0]);
      world_die(&w);
      world_activate(&w);
    }
    mirror_deactivate(w.m, false, world_done, &w);
    world_run(&w);
    w.data[0].holds = 0;
    while (w.data[0].held_count > 0) ram_answer(&w.data[0]);
    assert_int_equal(world_wait(&w), TARN_OK);
    assert_true(mirror_may_have_lost(w.m));
    mirror_close(w.m);
    world_end(&w);
  }
}

#define TEST(name) cmocka_unit_test_teardown(name, teardown)

int main(void) {
  const struct CMUnitTest tests[] = {
      TEST(a_read_does_not_tell_of_a_write_that_failed_everywhere),
      TEST(a_healing_write_does_not_need_the_state_directory),
      TEST(a_write_is_not_done_on_too_few_images),
      TEST(an_image_is_not_dropped_without_the_state_directory),
      TEST(reads_go_on_where_home_says_who_is_out),
      TEST(a_flush_in_doubt_does_not_ride_along_with_ours),
      TEST(a_read_of_before_a_recovery_is_asked_again),
      TEST(overlapping_writes_take_effect_in_order),
      TEST(a_mirror_that_falls_flushes_what_it_answered),
      TEST(a_mirror_that_falls_during_a_verify_is_flushed),
      TEST(a_mirror_that_falls_while_an_image_is_added_is_flushed),
      TEST(a_mirror_that_falls_says_what_it_may_have_lost),
      TEST(a_disk_that_hung_is_flushed_when_it_answers),
      TEST(a_fall_flushes_what_the_process_before_answered),
      TEST(a_stop_says_what_it_leaves_in_doubt),
      TEST(a_damaged_copy_of_a_record_is_told_after_a_clean_stop),
      TEST(an_image_that_was_put_back_is_old),
  };
  return cmocka_run_group_tests_name("mirror_answer", tests, NULL, NULL);
}
