/* What a mirror tells of data and holes is true at some moment of the request, whatever else goes on; and what it says is marked,
 * missed and unreadable. */
#include "mirror_world.h"

#define MIB (1u << 20)

/* The first quarter of the volume is zero. */
static void begin(uint32_t images) {
  world_init(&w, images, MIB, 512);
  memset(w.data[0].bytes, 0, MIB / 4);
  world_format(&w);
  world_settle(&w);
}

static void end(void) {
  world_check_synchronized(&w);
  world_deactivate(&w);
}

/* Runs in KiB: "-64 128": a hole and data. */
static const char *runs_text(const struct disk_extent *runs, uint32_t count) {
  static char text[4096];
  size_t used = 0;
  text[0] = 0;
  for (uint32_t i = 0; i < count; i++) {
    assert_true(runs[i].flags == 0 || runs[i].flags == (EXTENT_HOLE | EXTENT_ZERO));
    used += (size_t)snprintf(text + used, sizeof text - used, "%s%s%llu", i ? " " : "", runs[i].flags ? "-" : "",
                             (unsigned long long)runs[i].length / 1024);
  }
  return text;
}

static bool ends_as(struct client_io *client, const char *expected) {
  assert_int_equal(client_end(&w, client), TARN_OK);
  const char *text =
      runs_text(disk_extents(&client->io), client->io.extent_count); /* the buffer is free, and as it was */
  bool equal = strcmp(text, expected) == 0;
  if (!equal) fprintf(stderr, "says \"%s\", expected \"%s\"\n", text, expected);
  return equal;
}

static bool says(uint64_t offset, uint64_t length, const char *expected) {
  struct client_io client;
  client_begin(&w, &client, DISK_EXTENTS, offset, length, 0);
  return ends_as(&client, expected);
}

static void answer_held(struct ram_disk *ram) {
  ram->holds = 0;
  while (ram->held_count > 0) ram_answer(ram);
}

static void an_image_says_it(void **state) {
  (void)state;
  begin(2);
  assert_true(says(0, MIB, "-256 768"));
  assert_true(says(MIB / 4 - 4096, 8192, "-4 4"));
  assert_int_equal(client_do(&w, DISK_WRITE_ZEROES, MIB / 2, 65536, 0), TARN_OK);
  assert_true(says(0, MIB, "-256 256 -64 448"));
  assert_int_equal(client_do(&w, DISK_WRITE, 4096, 4096, 0x55), TARN_OK);
  assert_true(says(0, MIB / 4, "-4 4 -248"));
  assert_int_equal(w.data[0].extents, 4); /* the master is asked */
  assert_int_equal(w.data[1].extents, 0);
  end();
}

static void one_that_cannot_say_is_not_asked_twice_nor_put_out(void **state) {
  (void)state;
  begin(3);
  w.data[0].fails = RAM_EXTENTS;
  assert_true(says(0, MIB, "-256 768"));
  assert_int_equal(w.data[0].extents, 1);
  assert_int_equal(w.data[1].extents, 1);
  w.data[1].fails = RAM_EXTENTS;
  w.data[2].fails = RAM_EXTENTS;
  assert_true(says(0, MIB, "1024"));
  assert_int_equal(w.data[2].extents, 1);
  for (uint32_t i = 0; i < 3; i++)
    assert_int_equal(world_image(&w, i).read_errors + world_image(&w, i).write_errors, 0);
  end();
}

static void disks_that_do_not_know_are_not_asked(void **state) {
  (void)state;
  world_init(&w, 2, MIB, 512);
  w.data[0].disk.caps.can_extents = false;
  memset(w.data[0].bytes, 0, MIB / 4);
  world_format(&w);
  world_activate(&w);
  world_pass(&w, 5 * NS_PER_S);
  assert_true(mirror_volume(w.m, 0)->caps.can_extents);
  assert_true(says(0, MIB, "-256 768"));
  assert_int_equal(w.data[1].extents, 1);
  end();
}

/* A client must not hear "zero" of what it was told is not. */
static void a_write_under_way_is_data(void **state) {
  (void)state;
  begin(2);
  struct client_io write;
  w.data[0].holds = RAM_WRITES;
  client_begin(&w, &write, DISK_WRITE, 65536 + 512, 512, 0x55);
  world_pass(&w, NS_PER_S / 10);
  assert_int_equal(w.data[0].held_count, 1);
  assert_true(says(0, MIB, "-64"));           /* up to there */
  assert_true(says(65536, MIB - 65536, "4")); /* in whole units */
  assert_true(says(65536 + 600, 200, "0"));   /* 200 bytes */
  assert_true(says(69632, 8192, "-8"));
  answer_held(&w.data[0]);
  assert_int_equal(client_end(&w, &write), TARN_OK);
  assert_true(says(0, MIB / 4, "-64 4 -188"));
  end();
}

static void one_that_begins_meanwhile_is_data(void **state) {
  (void)state;
  begin(2);
  struct client_io extents, write;
  w.data[0].holds = RAM_EXTENTS | RAM_WRITES;
  client_begin(&w, &extents, DISK_EXTENTS, 0, MIB, 0);
  world_pass(&w, NS_PER_S / 100);
  client_begin(&w, &write, DISK_WRITE_ZEROES, MIB / 2, 65536, 0);
  world_pass(&w, NS_PER_S / 10);
  memset(w.data[0].bytes + MIB / 2, 0, 65536); /* the master has done it, and has not said so */
  w.data[0].holds = 0;
  ram_answer(&w.data[0]);
  assert_true(ends_as(&extents, "-256 256"));
  answer_held(&w.data[0]);
  assert_int_equal(client_end(&w, &write), TARN_OK);
  end();
}

/* The master fails a write while it looks for holes: what it holds there is not the volume's any more. */
static void an_image_that_is_put_out_is_not_believed(void **state) {
  (void)state;
  begin(2);
  struct client_io extents;
  w.data[0].holds = RAM_EXTENTS;
  client_begin(&w, &extents, DISK_EXTENTS, 0, MIB, 0);
  world_pass(&w, NS_PER_S / 100);
  w.data[0].fails = RAM_WRITES;
  assert_int_equal(client_do(&w, DISK_WRITE, 0, 4096, 0x55), TARN_OK);
  assert_int_equal(client_do(&w, DISK_WRITE, 8192, 4096, 0x55), TARN_OK);
  assert_int_not_equal(world_image(&w, 0).state, IMAGE_SYNCHRONIZED);
  answer_held(&w.data[0]);
  assert_true(ends_as(&extents, "1024"));
  assert_true(says(0, 16384, "4 -4 4 -4")); /* of the new master */
  w.data[0].fails = 0;
  world_deactivate(&w);
}

/* It failed on every image, and has left zeroes on the one that was asked. */
static void a_write_that_failed_everywhere_is_data(void **state) {
  (void)state;
  begin(2);
  struct client_io extents, write;
  w.data[0].holds = RAM_EXTENTS;
  client_begin(&w, &extents, DISK_EXTENTS, MIB / 2, 65536, 0);
  world_pass(&w, NS_PER_S / 100);
  w.data[0].fails = w.data[1].fails = RAM_WRITES;
  client_begin(&w, &write, DISK_WRITE_ZEROES, MIB / 2, 65536, 0);
  assert_int_equal(client_end(&w, &write), TARN_IO);
  w.data[0].fails = w.data[1].fails = 0;
  world_pass(&w, 5 * NS_PER_S); /* it is recovered, from the master */
  struct mirror_status status;
  mirror_status(w.m, &status);
  assert_int_equal(status.recovering_bytes, 0);
  memset(w.data[0].bytes + MIB / 2, 0, 4096);
  w.data[0].holds = 0;
  ram_answer(&w.data[0]);
  assert_true(ends_as(&extents, "64"));
  memset(w.data[0].bytes + MIB / 2, 0x33, 4096);
  world_deactivate(&w);
}

static void what_has_still_to_be_recovered_is_data(void **state) {
  (void)state;
  begin(2);
  assert_int_equal(client_do(&w, DISK_WRITE, 65536, 4096, 0x55), TARN_OK);
  world_die(&w); /* with the region of that write marked */
  memset(w.data[0].bytes + 65536, 0, 4096);
  w.data[1].holds = RAM_WRITES; /* the copy does not get on */
  world_activate(&w);
  world_pass(&w, NS_PER_S / 10);
  assert_true(says(65536, 65536, "64"));
  assert_true(says(0, MIB / 4, "-64"));
  answer_held(&w.data[1]);
  world_pass(&w, 5 * NS_PER_S);
  assert_true(says(0, MIB / 4, "-256"));
  end();
}

static void what_nobody_can_read_is_data(void **state) {
  (void)state;
  world_init(&w, 2, MIB, 512);
  memset(w.data[0].bytes, 0, MIB);
  world_format(&w);
  ram_spoil(&w.data[0], 65536, 4096, RAM_READS);
  world_activate(&w);
  world_pass(&w, 5 * NS_PER_S);
  assert_int_equal(world_image(&w, 0).unreadable_bytes, 4096);
  assert_true(says(0, MIB, "-64"));
  assert_true(says(65536, MIB - 65536, "4"));
  assert_true(says(69632, MIB - 69632, "-956"));
  end();
}

/* The disk hangs with the client's buffer: another image answers, into another one. */
static void a_disk_that_hangs_keeps_the_buffer(void **state) {
  (void)state;
  begin(2);
  struct client_io extents;
  w.data[0].holds = RAM_EXTENTS;
  client_begin(&w, &extents, DISK_EXTENTS, 0, MIB, 0);
  struct buffer *given = extents.io.buffer;
  world_pass(&w, 20 * NS_PER_S);
  assert_true(extents.done);
  assert_ptr_not_equal(extents.io.buffer, given);
  assert_int_equal(given->refs, 1); /* the guard's */
  assert_true(ends_as(&extents, "-256 768"));
  assert_int_not_equal(world_image(&w, 0).state, IMAGE_SYNCHRONIZED); /* by its guard, as for any I/O */
  answer_held(&w.data[0]);
  world_run(&w);
  world_deactivate(&w);
}

/* A disk that takes long over each must not pass for one that hangs because many stand in line. */
static void one_at_a_time(void **state) {
  (void)state;
  begin(2);
  struct client_io extents[5];
  w.data[0].holds = RAM_EXTENTS;
  for (uint32_t i = 0; i < 5; i++) client_begin(&w, &extents[i], DISK_EXTENTS, i * 65536, MIB / 2, 0);
  for (uint32_t i = 0; i < 5; i++) {
    world_pass(&w, 9 * NS_PER_S); /* nearly `hang`, each */
    assert_int_equal(w.data[0].held_count, 1);
    assert_false(extents[i].done);
    ram_answer(&w.data[0]);
    world_run(&w);
    assert_true(extents[i].done);
  }
  w.data[0].holds = 0;
  static const char *const says_so[] = {"-256 256", "-192 320", "-128 384", "-64 448", "512"};
  for (uint32_t i = 0; i < 5; i++) assert_true(ends_as(&extents[i], says_so[i]));
  end();
}

/* The last image hangs: whoever stands in line learns that nothing was done. */
static void the_line_ends_with_the_mirror(void **state) {
  (void)state;
  begin(1);
  struct client_io extents[3];
  w.data[0].holds = RAM_EXTENTS;
  for (uint32_t i = 0; i < 3; i++) client_begin(&w, &extents[i], DISK_EXTENTS, 0, MIB, 0);
  world_pass(&w, 20 * NS_PER_S);
  assert_true(mirror_has_fallen(w.m));
  for (uint32_t i = 0; i < 3; i++) assert_int_equal(client_end(&w, &extents[i]), TARN_SHUTDOWN);
  assert_true(mirror_is_idle(w.m));
  answer_held(&w.data[0]);
  world_run(&w);
  assert_true(mirror_is_quiet(w.m));
}

/* ---- marked, missed, unreadable ---- */

/* Runs in KiB with their flags: "64:1 192:0". */
static bool ranges(uint64_t offset, uint64_t length, const char *expected) {
  struct disk_extent runs[32];
  char text[512] = "";
  uint64_t at = offset, stop = offset + length;
  uint32_t last = UINT32_MAX;
  while (at < stop) {
    uint32_t count = mirror_range_runs(w.m, 0, at, stop - at, runs, 2);
    assert_in_range(count, 1, 2);
    for (uint32_t i = 0; i < count; i++) {
      assert_in_range(runs[i].length, 1, stop - at);
      at += runs[i].length;
      assert_true(last != runs[i].flags || i == 0); /* runs of one answer are joined */
      last = runs[i].flags;
      snprintf(text + strlen(text), sizeof text - strlen(text), "%s%llu:%u", text[0] ? " " : "",
               (unsigned long long)runs[i].length / 1024, last);
    }
  }
  bool equal = strcmp(text, expected) == 0;
  if (!equal) fprintf(stderr, "says \"%s\", expected \"%s\"\n", text, expected);
  return equal;
}

static void ranges_tell_what_is_marked_missed_and_unreadable(void **state) {
  (void)state;
  begin(2);
  assert_true(ranges(0, MIB, "1024:0"));
  assert_int_equal(client_do(&w, DISK_WRITE, 65536, 4096, 0x55), TARN_OK);
  assert_true(ranges(0, MIB, "64:0 64:1 896:0"));
  assert_true(ranges(65536 + 512, 512, "0:1"));
  assert_true(ranges(131071, 2, "0:1 0:0"));
  world_pass(&w, 30 * NS_PER_S); /* flushed, idle: cleared */
  assert_true(ranges(0, MIB, "1024:0"));
  w.data[1].fails = RAM_WRITES;
  assert_int_equal(client_do(&w, DISK_WRITE, 0, 4096, 0x55), TARN_OK);
  assert_true(ranges(0, MIB, "64:3 960:0")); /* all that is marked is missed when an image fails */
  assert_int_equal(client_do(&w, DISK_WRITE, MIB / 2, 4096, 0x55), TARN_OK);
  assert_true(ranges(0, MIB, "64:3 448:0 16:3 48:1 448:0"));
  world_pass(&w, 30 * NS_PER_S);
  assert_true(ranges(0, MIB, "64:2 448:0 16:2 496:0"));
  world_deactivate(&w);
  w.data[1].fails = 0;
}

static void ranges_name_unreadable_places(void **state) {
  (void)state;
  world_init(&w, 2, MIB, 512);
  world_format(&w);
  ram_spoil(&w.data[0], 69632, 4096, RAM_READS);
  world_activate(&w);
  world_pass(&w, 30 * NS_PER_S);
  assert_true(ranges(0, MIB, "68:0 4:4 952:0"));
  assert_true(ranges(69632 + 512, 512, "0:4"));
  world_deactivate(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(an_image_says_it),
      WORLD_TEST(one_that_cannot_say_is_not_asked_twice_nor_put_out),
      WORLD_TEST(disks_that_do_not_know_are_not_asked),
      WORLD_TEST(a_write_under_way_is_data),
      WORLD_TEST(one_that_begins_meanwhile_is_data),
      WORLD_TEST(an_image_that_is_put_out_is_not_believed),
      WORLD_TEST(a_write_that_failed_everywhere_is_data),
      WORLD_TEST(what_has_still_to_be_recovered_is_data),
      WORLD_TEST(what_nobody_can_read_is_data),
      WORLD_TEST(a_disk_that_hangs_keeps_the_buffer),
      WORLD_TEST(one_at_a_time),
      WORLD_TEST(the_line_ends_with_the_mirror),
      WORLD_TEST(ranges_tell_what_is_marked_missed_and_unreadable),
      WORLD_TEST(ranges_name_unreadable_places),
  };
  return cmocka_run_group_tests_name("mirror_extents", tests, NULL, NULL);
}
