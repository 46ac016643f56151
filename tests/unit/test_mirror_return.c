/* Images that leave and come back: what is known of what they missed, and what they are taken for (rules 4, 9 and 13). */
#include "core/meta.h"
#include "mirror_world.h"

#define MIB (1u << 20)

/* From now on images come back by command only. */
static void begin_commanded(uint32_t images) {
  world_begin(&w, images, MIB);
  for (uint32_t i = 0; i < images; i++) {
    w.config.images[i].policy.return_by_itself = false;
    mirror_set_policy(w.m, i, &w.config.images[i].policy);
  }
}

/* Both copies of the page of image `of` in the metadata of image `i`, which has one. */
static void spoil_page(uint32_t i, uint32_t of) {
  struct geometry geometry;
  uint64_t bytes = MIB;
  geometry_init(&geometry, 1, &bytes, w.config.region_bytes, w.config.extent_bytes, w.config.mark_count, NULL);
  for (uint32_t copy = 0; copy < 2; copy++)
    w.meta[i].bytes[meta_map_offset(&geometry, of, MAP_PAGE, copy, 0) + 100] ^= 1;
}

/* What c misses is on a and b; then a leaves, and c misses more. b's page of it is damaged, so all of it counts as missed. a is back,
 * and has the page of before still: where b's is damaged, that must not be taken for all that c misses. */
static void an_old_page_does_not_stand_for_a_damaged_one(void **state) {
  (void)state;
  begin_commanded(3);
  for (uint32_t k = 0; k < 2; k++) {
    mirror_image_failed(w.m, k == 0 ? 2 : 0, "a test");
    assert_int_equal(world_write(&w, k * MIB / 2, 4096), TARN_OK);
    world_pass(&w, 10 * NS_PER_S);
  }
  world_deactivate(&w);
  spoil_page(1, 2);
  for (uint32_t life = 0; life < 2; life++) {
    world_activate(&w);
    assert_int_equal(world_image(&w, 2).missed_bytes, MIB);
    world_restore(&w, life == 0 ? 0 : 2);
    world_pass(&w, 10 * NS_PER_S);
    world_deactivate(&w);
  }
  assert_memory_equal(w.data[1].bytes, w.data[2].bytes, MIB);
}

static bool both_slots_say_that_c_is_out(void) {
  struct record slot;
  bool out = true;
  for (uint32_t k = 0; k < 2; k++)
    out &= record_decode(&slot, w.meta[1].bytes + k * RECORD_SLOT_BYTES) == TARN_OK &&
           slot.images[2].state != IMAGE_SYNCHRONIZED;
  return out;
}

/* After it left, an image is put back, with its metadata, to what it was one record before that: no map tells what it lost by it. */
static void one_that_was_put_back_by_one_record_is_copied_in_full(void **state) {
  (void)state;
  static uint8_t data[MIB];
  struct client_io client;
  begin_commanded(3);
  uint8_t *meta = test_malloc(w.meta[1].disk.caps.size_bytes);
  assert_int_equal(world_write(&w, 65536, 4096), TARN_OK);
  w.meta[1].holds = RAM_WRITES;
  mirror_image_failed(w.m, 2, "a test");
  client_begin(&w, &client, DISK_READ, 0, 4096, 0); /* which waits for the record that says so */
  for (world_run(&w); !both_slots_say_that_c_is_out(); world_run(&w)) ram_answer_all(&w.meta[1]);
  assert_true(w.meta[1].held_count > 0); /* of the next record, which says that this one is complete */
  assert_false(client.done);
  memcpy(data, w.data[1].bytes, MIB);
  memcpy(meta, w.meta[1].bytes, w.meta[1].disk.caps.size_bytes);
  ram_release(&w.meta[1]);
  assert_int_equal(client_end(&w, &client), TARN_OK);
  assert_int_equal(world_write(&w, 65536 + 8192, 4096), TARN_OK);
  world_pass(&w, 20 * NS_PER_S); /* no region is marked any more */
  mirror_image_failed(w.m, 1, "a test");
  world_pass(&w, NS_PER_S);
  memcpy(w.data[1].bytes, data, MIB);
  memcpy(w.meta[1].bytes, meta, w.meta[1].disk.caps.size_bytes);
  test_free(meta);
  world_restore(&w, 1);
  world_pass(&w, 10 * NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
  assert_memory_equal(w.data[0].bytes, w.data[1].bytes, MIB);
  world_deactivate(&w);
}

/* A mirror that stops, or falls, takes no image back, however far it has come. */
static void an_image_does_not_come_back_to_a_mirror_that_stops(void **state) {
  (void)state;
  static const struct {
    const char *why;
    bool meta;
    uint32_t reads; /* that are answered before */
  } rows[] = {
      {"its record is being read", true, 0},
      {"it is tried whether it can be read", false, 0},
      {"its witnesses are asked", false, 1},
  };
  for (size_t i = 0; i < COUNT_OF(rows) * 2; i++) {
    bool falls = i % 2;
    const char *why = rows[i / 2].why;
    struct ram_disk *ram = rows[i / 2].meta ? &w.meta[1] : &w.data[1];
    world_init(&w, 2, MIB, 512);
    w.limits.witnesses = WITNESSES_MAX;
    world_format(&w);
    world_settle(&w);
    world_deactivate(&w); /* which makes witnesses */
    world_settle(&w);
    mirror_image_failed(w.m, 1, "a test");
    world_run(&w);
    ram->holds = RAM_READS;
    world_bring_back(&w, 1);
    world_run(&w);
    for (uint32_t k = 0; k < rows[i / 2].reads; k++) ram_answer(ram);
    world_run(&w);
    row_true(why, ram->held_count > 0);
    if (falls) mirror_set_limits(w.m, 0, -1, false);
    else mirror_deactivate(w.m, false, world_done, &w);
    ram_release(ram);
    if (!falls) row_true(why, world_wait(&w) == TARN_OK);
    world_pass(&w, NS_PER_S);
    row_true(why, world_image(&w, 1).state == IMAGE_UNSYNCHRONIZED);
    row_true(why, strcmp(world_image(&w, 1).reason, "the mirror stopped meanwhile") == 0);
    mirror_close(w.m);
    world_end(&w);
  }
}

/* An image is on its way back when the process dies, or when it fails again: it has not got the record that says so. That is no
 * older state than it left with: what it missed is copied, not all. */
static void an_image_that_comes_back_twice_is_not_old(void **state) {
  (void)state;
  for (uint32_t dies = 0; dies < 2; dies++) {
    begin_commanded(2);
    mirror_image_failed(w.m, 1, "a test");
    assert_int_equal(world_write(&w, 65536, 4096), TARN_OK);
    world_pass(&w, 10 * NS_PER_S);
    w.meta[1].holds = RAM_WRITES;
    mirror_image_do(w.m, 1, IMAGE_OP_RESTORE, false, world_done, &w);
    world_bring_back(&w, 1);
    world_run(&w);
    assert_true(w.meta[1].held_count > 0);
    if (dies) {
      world_die(&w);
      w.meta[1].holds = 0;
      world_activate(&w);
    } else {
      w.meta[1].fails = RAM_WRITES;
      ram_release(&w.meta[1]);
      assert_int_equal(world_wait(&w), TARN_REFUSED);
      w.meta[1].fails = 0;
      world_restore(&w, 1);
    }
    assert_int_equal(world_image(&w, 1).sync.kind, SYNC_MISSED);
    world_pass(&w, 10 * NS_PER_S);
    world_check_synchronized(&w);
    assert_memory_equal(w.data[0].bytes, w.data[1].bytes, MIB);
    world_deactivate(&w);
    world_end(&w);
  }
}

/* The commit that is to say what b misses fails, and the next one is good: all of the map goes with that, its top as
 * well as its pages. So it is still known when the mark is gone, in the next life. */
static void what_a_failed_commit_was_to_say_of_a_map_is_said_by_the_next(void **state) {
  (void)state;
  begin_commanded(2);
  assert_int_equal(world_write(&w, MIB / 2, 4096), TARN_OK); /* its region is marked */
  w.meta[0].fails = RAM_WRITES;
  mirror_image_failed(w.m, 1, "a test");
  world_run(&w);
  assert_true(world_said(&w, "no image can write its metadata"));
  w.meta[0].fails = 0;
  assert_int_equal(client_do(&w, DISK_WRITE, MIB / 2, 4096, 0x77), TARN_OK);
  world_pass(&w, 20 * NS_PER_S); /* no region is marked any more */
  world_deactivate(&w);
  world_activate(&w);
  assert_int_equal(world_image(&w, 1).missed_bytes, 65536);
  world_restore(&w, 1);
  world_pass(&w, 10 * NS_PER_S);
  assert_memory_equal(w.data[0].bytes, w.data[1].bytes, MIB);
  world_deactivate(&w);
}

/* What c misses only a knows, until b is back. Then b knows it, too: a may leave. */
static void one_that_comes_back_is_told_what_others_miss(void **state) {
  (void)state;
  begin_commanded(3);
  mirror_image_failed(w.m, 2, "a test");
  mirror_image_failed(w.m, 1, "a test");
  assert_int_equal(world_write(&w, MIB / 2, 4096), TARN_OK);
  world_pass(&w, 20 * NS_PER_S); /* no region is marked any more */
  world_restore(&w, 1);
  world_pass(&w, 10 * NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
  mirror_image_failed(w.m, 0, "a test");
  world_pass(&w, 10 * NS_PER_S);
  world_deactivate(&w);
  world_activate(&w);
  assert_true(world_image(&w, 2).missed_bytes > 0);
  world_restore(&w, 2);
  world_pass(&w, 10 * NS_PER_S);
  assert_int_equal(world_image(&w, 2).state, IMAGE_SYNCHRONIZED);
  assert_memory_equal(w.data[1].bytes, w.data[2].bytes, MIB);
  world_deactivate(&w);
}

/* b comes back to a region that is marked since it was out, and gets the whole log: it knows of that mark when a write
 * is under way there and the process dies, and b alone is there afterwards. */
static void one_that_comes_back_is_told_what_is_marked(void **state) {
  (void)state;
  struct client_io write;
  begin_commanded(2);
  mirror_image_failed(w.m, 1, "a test");
  assert_int_equal(world_write(&w, MIB / 2, 4096), TARN_OK);
  world_restore(&w, 1);
  world_pass(&w, NS_PER_S);
  world_check_synchronized(&w);
  w.data[1].holds = RAM_WRITES;
  client_begin(&w, &write, DISK_WRITE, MIB / 2, 4096, 0x77); /* which only a gets */
  world_run(&w);
  assert_int_equal(w.data[0].bytes[MIB / 2], 0x77);
  world_die(&w);
  w.data[1].holds = 0;
  struct mirror_image_config a = w.config.images[0];
  w.config.images[0].data[0] = w.config.images[0].meta = NULL;
  world_activate(&w);
  world_pass(&w, 20 * NS_PER_S); /* no region is marked any more */
  world_deactivate(&w);
  w.config.images[0] = a;
  world_activate(&w);
  world_restore(&w, 0);
  world_pass(&w, 10 * NS_PER_S);
  world_check_synchronized(&w);
  assert_memory_equal(w.data[0].bytes, w.data[1].bytes, MIB);
  world_deactivate(&w);
}

/* All of b is to be copied, and the process dies when only a little of it is: a page that its map had before does not
 * stand for all that it misses. */
static void what_was_missed_before_does_not_stand_for_all(void **state) {
  (void)state;
  begin_commanded(2);
  mirror_image_failed(w.m, 1, "a test");
  assert_int_equal(world_write(&w, MIB / 2, 4096), TARN_OK);
  world_pass(&w, 20 * NS_PER_S); /* which is in a page of its map */
  memset(w.data[1].bytes, 0xbb, MIB);
  w.config.images[1].policy.rate = 4096;
  mirror_set_policy(w.m, 1, &w.config.images[1].policy);
  mirror_image_do(w.m, 1, IMAGE_OP_SYNC, false, world_done, &w);
  world_bring_back(&w, 1);
  assert_int_equal(world_wait(&w), TARN_OK);
  world_pass(&w, 2 * NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZING);
  world_die(&w);
  w.config.images[1].policy.rate = 0;
  world_activate(&w);
  world_pass(&w, 10 * NS_PER_S);
  world_check_synchronized(&w);
  assert_memory_equal(w.data[0].bytes, w.data[1].bytes, MIB);
  world_deactivate(&w);
}

/* b, which is behind, is used by force, because a is away. a is copied over in full when it is there again: nobody
 * knows what it has that b has not. */
static void one_that_was_away_when_another_was_used_is_copied_in_full(void **state) {
  (void)state;
  begin_commanded(2);
  mirror_image_failed(w.m, 1, "a test");
  assert_int_equal(world_write(&w, MIB / 2, 4096), TARN_OK);
  world_pass(&w, 20 * NS_PER_S); /* no region is marked any more */
  world_deactivate(&w);
  struct mirror_image_config a = w.config.images[0];
  w.config.images[0].data[0] = w.config.images[0].meta = NULL;
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){.force = true}, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  assert_int_equal(world_image(&w, 0).missed_bytes, MIB);
  world_deactivate(&w);
  w.config.images[0] = a;
  world_activate(&w);
  world_restore(&w, 0);
  world_pass(&w, 10 * NS_PER_S);
  world_check_synchronized(&w);
  assert_int_not_equal(w.data[0].bytes[MIB / 2], 0x55);
  assert_memory_equal(w.data[0].bytes, w.data[1].bytes, MIB);
  world_deactivate(&w);
}

/* An image fails a request, leaves, and is back before another image has answered: that it failed is over and done
 * with. Also of a write that had to be merged into whole blocks. */
static void one_that_came_back_is_not_put_out_for_what_it_failed_before(void **state) {
  (void)state;
  static const struct {
    const char *why;
    enum disk_op op;
    uint64_t offset, length;
    uint32_t what;
  } rows[] = {
      {"whole blocks", DISK_WRITE, MIB / 2, 4096, RAM_WRITES},
      {"a part of a block", DISK_WRITE, MIB / 2 + 100, 100, RAM_WRITES},
      {"zeroes", DISK_WRITE_ZEROES, MIB / 2, 4096, RAM_WRITES},
      {"a flush", DISK_FLUSH, 0, 0, RAM_FLUSHES},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct client_io client;
    world_begin(&w, 2, MIB);
    w.config.images[1].policy.return_after_ns = NS_PER_S;
    mirror_set_policy(w.m, 1, &w.config.images[1].policy);
    w.data[0].holds = w.data[1].fails = rows[i].what;
    client_begin(&w, &client, rows[i].op, rows[i].offset, rows[i].length, 0x77);
    world_run(&w);
    row_true(rows[i].why, w.data[0].held_count == 1);
    mirror_image_failed(w.m, 1, "a test");
    w.data[1].fails = 0;
    world_bring_back(&w, 1);
    world_run(&w);
    row_true(rows[i].why, world_image(&w, 1).state == IMAGE_SYNCHRONIZING);
    ram_release(&w.data[0]);
    row_true(rows[i].why, client_end(&w, &client) == TARN_OK);
    row_true(rows[i].why, world_image(&w, 1).state != IMAGE_UNSYNCHRONIZED);
    world_pass(&w, 10 * NS_PER_S);
    world_check_synchronized(&w);
    assert_memory_equal(w.data[0].bytes, w.data[1].bytes, MIB);
    world_deactivate(&w);
    world_end(&w);
  }
}

static void give_to_another_mirror(uint8_t *meta) {
  struct record record;
  assert_int_equal(record_decode(&record, meta), TARN_OK);
  record.mirror_uuid[0] ^= 1;
  for (uint32_t slot = 0; slot < 2; slot++) record_encode(&record, meta + slot * RECORD_SLOT_BYTES);
}

/* At an image's place is another file, which a command would copy over in full; but its metadata says whose it is. */
static void an_image_of_another_mirror_is_not_copied_over(void **state) {
  (void)state;
  begin_commanded(2);
  w.config.images[1].found.identity = 1;
  mirror_image_failed(w.m, 1, "a test");
  world_pass(&w, 10 * NS_PER_S);
  world_restore(&w, 1);
  world_pass(&w, 10 * NS_PER_S);
  mirror_image_failed(w.m, 1, "a test");
  world_pass(&w, 10 * NS_PER_S);
  w.config.images[1].found.identity = 2;
  give_to_another_mirror(w.meta[1].bytes);
  memset(w.data[1].bytes, 0x77, MIB);
  mirror_image_do(w.m, 1, IMAGE_OP_RESTORE, false, world_done, &w);
  world_bring_back(&w, 1);
  assert_int_not_equal(world_wait(&w), TARN_OK);
  assert_non_null(strstr(w.why, "another mirror"));
  world_pass(&w, 10 * NS_PER_S);
  for (uint32_t at = 0; at < MIB; at++) assert_int_equal(w.data[1].bytes[at], 0x77);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(an_old_page_does_not_stand_for_a_damaged_one),
      WORLD_TEST(one_that_was_put_back_by_one_record_is_copied_in_full),
      WORLD_TEST(an_image_does_not_come_back_to_a_mirror_that_stops),
      WORLD_TEST(an_image_that_comes_back_twice_is_not_old),
      WORLD_TEST(one_that_came_back_is_not_put_out_for_what_it_failed_before),
      WORLD_TEST(what_a_failed_commit_was_to_say_of_a_map_is_said_by_the_next),
      WORLD_TEST(one_that_comes_back_is_told_what_others_miss),
      WORLD_TEST(one_that_comes_back_is_told_what_is_marked),
      WORLD_TEST(what_was_missed_before_does_not_stand_for_all),
      WORLD_TEST(one_that_was_away_when_another_was_used_is_copied_in_full),
      WORLD_TEST(an_image_of_another_mirror_is_not_copied_over),
  };
  return cmocka_run_group_tests_name("mirror_return", tests, NULL, NULL);
}
