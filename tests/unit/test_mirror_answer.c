/* What is answered, and when, if writes or records fail: rules 5, 6 and 12. */
#include <stdlib.h>

#include "mirror_world.h"

#define MIB (1u << 20)

static void begin(uint32_t images) { world_begin(&w, images, MIB); }

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
  assert_int_equal(world_write(&w, 65536, 4096), TARN_OK);
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
  assert_int_equal(world_write(&w, 65536, 4096), TARN_IO);
  assert_true(world_said(&w, "image b is out"));
  assert_int_equal(world_write(&w, 131072, 4096), TARN_IO);
  assert_int_equal(client_do(&w, DISK_READ, 262144, 4096, 0), TARN_OK); /* reads go on, */
  assert_int_equal(client_do(&w, DISK_READ, 65536, 4096, 0), TARN_IO);  /* but not of what only one image has, */
  assert_int_equal(client_do(&w, DISK_READ, 61440, 8192, 0), TARN_IO);  /* not even at their end */
  w.home.fails = 0;
  world_pass(&w, 5 * NS_PER_S);
  assert_int_equal(client_do(&w, DISK_READ, 65536, 4096, 0), TARN_OK);
  assert_int_equal(world_write(&w, 131072, 4096), TARN_OK);
  world_deactivate(&w);
}

/* The survivor cannot write its metadata, as on a file system that is full; home can, and says who is out: reads go on. */
static void reads_go_on_where_home_says_who_is_out(void **state) {
  (void)state;
  begin(2);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  w.meta[0].fails = w.data[1].fails = RAM_WRITES;
  assert_int_equal(world_write(&w, 0, 4096), TARN_IO);
  assert_true(world_said(&w, "image b is out"));
  assert_true(world_said(&w, "no image can write its metadata"));
  assert_int_equal(client_do(&w, DISK_READ, 0, 4096, 0), TARN_OK);
  world_die(&w);
  w.meta[0].fails = w.data[1].fails = 0;
  w.config.images[0].data[0] = NULL; /* the next process finds only b */
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_REFUSED);
  world_close(&w);
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
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
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
    assert_int_equal(world_write(&w, 65536, 4096), TARN_OK);
    assert_int_equal(world_flush(&w), TARN_OK);
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

/* A write that spans a new region waits for its mark; one that overlaps it, where there is a mark, comes later and stays later. */
static void overlapping_writes_take_effect_in_order(void **state) {
  (void)state;
  begin(2);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  w.meta[0].holds = RAM_WRITES;
  struct client_io first, second;
  client_begin(&w, &first, DISK_WRITE, 65536 - 4096, 8192, 0xaa);
  client_begin(&w, &second, DISK_WRITE, 65536 - 4096, 4096, 0xbb);
  world_run(&w);
  assert_false(first.done || second.done);
  ram_release(&w.meta[0]);
  assert_int_equal(client_end(&w, &first), TARN_OK);
  assert_int_equal(client_end(&w, &second), TARN_OK);
  for (uint32_t i = 0; i < 2; i++) {
    assert_int_equal(w.data[i].bytes[65536 - 4096], 0xbb);
    assert_int_equal(w.data[i].bytes[65536], 0xaa);
  }
  world_deactivate(&w);
}

/* One that is removed by force, which cannot be recorded then, lacks what is written from then on; and the next process may find it
 * alone: nobody reads what it lacks. */
static void what_a_removed_image_lacks_is_not_read_unrecorded(void **state) {
  (void)state;
  struct client_io before, write, read;
  begin(2);
  w.data[1].holds = RAM_WRITES;
  client_begin(&w, &before, DISK_WRITE, 0, 4096, 0x55);
  world_run(&w);
  client_begin(&w, &write, DISK_WRITE, 0, 4096, 0x77); /* which waits for the one before */
  world_begin_removal(&w, 1, true);
  ram_release(&w.data[1]);
  world_run(&w);
  client_begin(&w, &read, DISK_READ, 0, 4096, 0);
  world_run(&w);
  assert_int_equal(w.data[0].bytes[0], 0x77);
  assert_int_equal(w.data[1].bytes[0], 0x55);
  w.home.fails = RAM_WRITES;
  ram_release(&w.home);
  assert_int_equal(world_wait(&w), TARN_IO);
  assert_int_equal(client_end(&w, &before), TARN_IO);
  assert_int_equal(client_end(&w, &write), TARN_IO);
  assert_int_equal(client_end(&w, &read), TARN_IO);
  assert_int_equal(client_do(&w, DISK_READ, 0, 4096, 0), TARN_IO);
  w.home.fails = 0;
  world_pass(&w, 5 * NS_PER_S);
  assert_int_equal(client_do(&w, DISK_READ, 0, 4096, 0), TARN_OK);
  world_deactivate(&w);
}

/* b fails: nothing is answered before each store says that the generation without it may be relied on. Who has one of which none says so has
 * answered nothing in it. */
static void nothing_is_answered_in_a_generation_that_is_not_settled(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  mirror_image_failed(w.m, 1, "a test");
  w.meta[0].holds = RAM_WRITES;
  struct client_io read;
  client_begin(&w, &read, DISK_READ, 0, 4096, 0);
  for (world_run(&w); w.meta[0].held_count > 0; world_run(&w)) {
    struct record own = world_record(w.meta[0].bytes);
    if (own.settled_number < own.generation.number) assert_false(read.done);
    ram_answer_all(&w.meta[0]);
  }
  w.meta[0].holds = 0;
  assert_int_equal(client_end(&w, &read), TARN_OK);
  assert_true(world_record(w.meta[0].bytes).settled_number == world_record(w.meta[0].bytes).generation.number);
  world_deactivate(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(a_healing_write_does_not_need_the_state_directory),
      WORLD_TEST(a_write_is_not_done_on_too_few_images),
      WORLD_TEST(an_image_is_not_dropped_without_the_state_directory),
      WORLD_TEST(reads_go_on_where_home_says_who_is_out),
      WORLD_TEST(what_a_removed_image_lacks_is_not_read_unrecorded),
      WORLD_TEST(overlapping_writes_take_effect_in_order),
      WORLD_TEST(a_damaged_copy_of_a_record_is_told_after_a_clean_stop),
      WORLD_TEST(an_image_that_was_put_back_is_old),
      WORLD_TEST(nothing_is_answered_in_a_generation_that_is_not_settled),
  };
  return cmocka_run_group_tests_name("mirror_answer", tests, NULL, NULL);
}
