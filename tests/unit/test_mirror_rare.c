/* What comes rarely: an old loss that another image's recovery forgets, a new image that is bad from the start, disks of unlike blocks. */
#include "mirror_world.h"

#define MIB (1u << 20)

/* The flush that ends a recovery fails on b, which is out, and that cannot be recorded. Then a is gone, too. b is flushed once more, and says
 * yes, which proves nothing; and the next activation believes it alone. */
static void a_recoverys_end_does_not_forget_what_b_has_failed(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_die(&w);
  w.data[1].holds = RAM_FLUSHES;
  world_activate(&w);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_pass(&w, NS_PER_S / 2);
  assert_int_equal(w.data[1].held_count, 1); /* the flush that ends the recovery */
  w.home.fails = RAM_WRITES;
  w.data[1].fails = RAM_FLUSHES;
  ram_release(&w.data[1]);
  world_run(&w);
  w.data[1].fails = 0; /* a kernel tells it once */
  assert_int_equal(world_image(&w, 1).state, IMAGE_UNSYNCHRONIZED);
  mirror_image_failed(w.m, 0, "a test");
  world_pass(&w, 5 * NS_PER_S);
  assert_true(mirror_has_fallen(w.m));
  assert_true(mirror_is_idle(w.m) && mirror_is_quiet(w.m));
  bool lost = mirror_may_have_lost(w.m);
  world_close(&w);
  w.home.fails = 0;
  w.config.images[0].data[0] = NULL, w.config.images[0].meta = NULL; /* a is away */
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
  bool believed = world_wait(&w) == TARN_OK;
  assert_true(!believed || lost);
}

/* No image may be missing, and none is. A new one is added whose metadata cannot be written: that is the command's affair, and clients
 * notice nothing. */
static void a_new_image_that_cannot_be_written_stops_nobody(void **state) {
  (void)state;
  world_init(&w, 3, MIB, 512);
  w.config.image_count = 2;
  world_format(&w);
  world_settle(&w);
  mirror_set_limits(w.m, 0, -1, false);
  struct mirror_image_config c = {
      .name = "c", .node = "n1", .data = {&w.data[2].disk}, .meta = &w.meta[2].disk, .policy = image_policy_default};
  w.meta[2].fails = RAM_WRITES;
  mirror_image_add(w.m, 2, &c, world_done, &w);
  tarn_err err = world_wait(&w);
  world_pass(&w, NS_PER_S);
  assert_int_equal(err, TARN_REFUSED);
  assert_string_equal(w.why, "image c cannot be added: its metadata cannot be written");
  assert_false(mirror_has_fallen(w.m));
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
}

/* The volume ends within a block of b's disk, as a partition does that is copied to a disk of blocks of 4096 bytes; a's ends with it. What
 * is recovered there are zeroes, which a cannot be told to write but for whole blocks. */
static void zeroes_at_an_odd_end_are_copied(void **state) {
  (void)state;
  uint64_t bytes = MIB + 512;
  world_init(&w, 2, bytes, 512);
  ram_init(&w.data[1], &w.disks, align_up(bytes, 4096), 4096);
  w.data[1].disk.env = &w.env;
  memset(w.data[0].bytes + MIB - 65536, 0, 65536 + 512);
  world_format(&w);
  world_settle(&w);
  assert_int_equal(client_do(&w, DISK_WRITE, MIB, 512, 0), TARN_OK); /* the last region is marked */
  world_die(&w);
  world_settle(&w);
  world_deactivate(&w);
}

/* ... and what lies behind it on b is not what had been read to the same place in memory before. */
static void nothing_is_written_behind_an_odd_end(void **state) {
  (void)state;
  uint64_t bytes = MIB + 512;
  world_init(&w, 2, bytes, 512);
  ram_init(&w.data[1], &w.disks, align_up(bytes, 4096), 4096);
  w.data[1].disk.env = &w.env;
  w.limits.copies = 2; /* one after the other */
  world_format(&w);
  world_settle(&w);
  for (uint64_t at = 0; at < MIB; at += 65536) assert_int_equal(world_write(&w, at, 65536), TARN_OK);
  assert_int_equal(world_write(&w, 512, 512), TARN_OK);
  for (uint32_t life = 0; life < 2; life++) {
    assert_int_equal(world_write(&w, MIB, 512), TARN_OK);
    for (uint64_t at = bytes; at < align_up(bytes, 4096); at++) assert_int_equal(w.data[1].bytes[at], 0);
    world_die(&w);
    world_settle(&w);
    for (uint64_t at = bytes; at < align_up(bytes, 4096); at++) assert_int_equal(w.data[1].bytes[at], 0);
  }
  world_deactivate(&w);
}

/* b is fractured while a commit is under way, whose marks it then fails to write; and the fracture cannot be recorded at home, so it is taken
 * back. b lacks those marks: it does not count as if nothing had been. */
static void one_that_fails_while_a_command_has_it_out_is_not_taken_back(void **state) {
  (void)state;
  world_begin(&w, 3, MIB);
  w.data[0].holds = RAM_FLUSHES;
  mirror_image_do(w.m, 1, IMAGE_OP_FRACTURE, false, world_done, &w);
  world_run(&w);
  assert_int_equal(w.data[0].held_count, 1); /* all has come to rest, and is flushed */
  w.meta[1].holds = RAM_WRITES;
  mirror_image_failed(w.m, 2, "a test");
  world_run(&w);
  assert_true(w.meta[1].held_count > 0); /* of the commit that says so */
  ram_release(&w.data[0]);
  world_run(&w);
  assert_int_equal(world_image(&w, 1).state, IMAGE_CONSISTENT);
  w.meta[1].fails = w.home.fails = RAM_WRITES;
  ram_release(&w.meta[1]);
  assert_int_not_equal(world_wait(&w), TARN_OK);
  assert_int_equal(world_image(&w, 1).state, IMAGE_UNSYNCHRONIZED);
}

/* A restore that is refused is not the image's fault: by itself it is tried again as soon as after the first. */
static void a_restore_in_vain_is_no_relapse(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  mirror_image_failed(w.m, 1, "a test");
  world_run(&w);
  uint64_t after_ns = 0;
  for (uint32_t k = 0; k < 4; k++) {
    mirror_image_do(w.m, 1, IMAGE_OP_RESTORE, false, world_done, &w);
    for (uint32_t step = 0; step < 100 && !(w.reopened & 2u); step++) world_pass(&w, NS_PER_MS);
    w.reopened = 0;
    struct mirror_image_config none = w.config.images[1];
    none.data[0] = none.meta = NULL;
    none.error = "a test";
    mirror_image_reopened(w.m, 1, &none);
    assert_int_equal(world_wait(&w), TARN_REFUSED);
    if (k == 0) after_ns = world_image(&w, 1).return_in_ns;
    else assert_true(world_image(&w, 1).return_in_ns <= after_ns);
  }
}

/* Whoever is told that an activation could not be recorded is told where, and why. */
static void what_could_not_be_written_is_named(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  world_deactivate(&w);
  w.meta[0].fails = w.meta[1].fails = w.home.fails = RAM_WRITES;
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
  assert_int_not_equal(world_wait(&w), TARN_OK);
  assert_string_equal(w.why,
                      "the metadata of image a could not be written: the disk failed to do it; "
                      "the metadata of image b could not be written: the disk failed to do it; "
                      "the state directory could not be written: the disk failed to do it");
}

/* Home takes the first commit of a promotion by force not, and the images do. */
static void a_promotion_that_home_does_not_take_is_told_to_be_open(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  mirror_image_failed(w.m, 1, "a test");
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_deactivate(&w);
  w.home.fails = RAM_WRITES;
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){.force = true, .promote = true, .image = 1}, world_done, &w);
  assert_int_not_equal(world_wait(&w), TARN_OK);
  assert_non_null(strstr(w.why, "; what was asked for may be recorded in part all the same"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(a_promotion_that_home_does_not_take_is_told_to_be_open),
      WORLD_TEST(a_recoverys_end_does_not_forget_what_b_has_failed),
      WORLD_TEST(a_new_image_that_cannot_be_written_stops_nobody),
      WORLD_TEST(zeroes_at_an_odd_end_are_copied),
      WORLD_TEST(nothing_is_written_behind_an_odd_end),
      WORLD_TEST(a_restore_in_vain_is_no_relapse),
      WORLD_TEST(what_could_not_be_written_is_named),
      WORLD_TEST(one_that_fails_while_a_command_has_it_out_is_not_taken_back),
  };
  return cmocka_run_group_tests_name("mirror_rare", tests, NULL, NULL);
}
