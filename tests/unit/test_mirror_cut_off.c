/* Starts that are cut off, of which some image, or home, alone has the first commit: nothing was answered in it, and what was answered before by the
 * same line is neither forgotten nor copied over (rule 9). */
#include "mirror_world.h"

#define MIB (1u << 20)

static tarn_err started(bool force) {
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){.force = force}, world_done, &w);
  return world_wait(&w);
}

static void keep_a(uint8_t *data, uint8_t *meta) {
  memcpy(data, w.data[0].bytes, MIB);
  memcpy(meta, w.meta[0].bytes, mirror_meta_bytes(&w.config));
}

/* a, restored from a backup of its disks, is promoted by force; of the first commit only home has anything when the process dies. */
static void a_promotion_by_force_is_cut_off(void) {
  static uint8_t data[MIB], meta[1 << 20];
  world_begin(&w, 2, MIB);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_deactivate(&w);
  keep_a(data, meta);
  for (int k = 0; k < 2; k++) {
    assert_int_equal(started(false), TARN_OK);
    assert_int_equal(client_do(&w, DISK_WRITE, 2 * 65536, 4096, 0x77), TARN_OK);
    world_deactivate(&w);
  }
  memcpy(w.data[0].bytes, data, MIB);
  memcpy(w.meta[0].bytes, meta, mirror_meta_bytes(&w.config));
  w.meta[0].holds = w.meta[1].holds = RAM_WRITES;
  world_die_starting(&w, (struct mirror_activation){.force = true, .promote = true, .image = 0});
  w.meta[0].holds = w.meta[1].holds = 0;
}

/* All that is here is what was here: a plain start goes on with a, as was said, or with b; it does not refuse. */
static void a_promotion_that_is_cut_off_refuses_nothing(void **state) {
  (void)state;
  a_promotion_by_force_is_cut_off();
  assert_int_equal(started(false), TARN_OK);
}

/* By --force the image that the administrator had made the master is used, if any. */
static void nor_does_force_take_the_other(void **state) {
  (void)state;
  a_promotion_by_force_is_cut_off();
  if (started(false) == TARN_OK) return;
  world_close(&w);
  assert_int_equal(started(true), TARN_OK);
  assert_int_equal(world_image(&w, 0).state, IMAGE_SYNCHRONIZED);
}

/* c is out. The commit that makes a life's generation reaches home and b, and the process dies: a, current, has the one before. a is away
 * until that one is forgotten, and nothing was ever used apart. */
static void one_that_had_not_the_last_generation_comes_back(void **state) {
  (void)state;
  world_init(&w, 3, MIB, 512);
  w.config.limits = &mirror_limits_tiny;
  world_format(&w);
  world_settle(&w);
  w.config.images[2].policy.return_by_itself = false;
  mirror_image_failed(w.m, 2, "a test");
  world_pass(&w, NS_PER_S);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_deactivate(&w);
  w.meta[0].holds = RAM_WRITES;
  world_die_starting(&w, (struct mirror_activation){0});
  w.meta[0].holds = 0;
  world_take_away(&w, 0);
  for (uint64_t k = 0; k < 8; k++) {
    assert_int_equal(started(false), TARN_OK);
    assert_int_equal(world_write(&w, k * 65536, 4096), TARN_OK);
    world_deactivate(&w);
  }
  world_give_back(&w, 0);
  assert_int_equal(started(false), TARN_OK);
  world_pass(&w, 60 * NS_PER_S);
  assert_int_equal(world_image(&w, 0).state, IMAGE_SYNCHRONIZED);
}

/* b is out as the node of a is backed up: its state directory, and a. b joins, what is written is answered, a leaves, b goes on, and is
 * killed in the first commit of an activation. The backup is restored. b has answered, and is there. */
static void a_backup_does_not_undo_what_b_answered(bool cut) {
  static uint8_t data[MIB], meta[1 << 20], home[RECORD_AREA_BYTES];
  world_begin(&w, 2, MIB);
  mirror_image_failed(w.m, 1, "a test");
  world_pass(&w, NS_PER_S);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_deactivate(&w);
  keep_a(data, meta);
  memcpy(home, w.home.bytes, sizeof home);
  world_settle(&w);
  world_check_synchronized(&w);
  assert_int_equal(world_write(&w, 2 * 65536, 4096), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  world_deactivate(&w);
  world_take_away(&w, 0);
  for (int k = 0; k < 2; k++) {
    assert_int_equal(started(false), TARN_OK);
    assert_int_equal(world_write(&w, (4 + 2 * (uint64_t)k) * 65536, 4096), TARN_OK);
    assert_int_equal(world_flush(&w), TARN_OK);
    world_deactivate(&w);
  }
  if (cut) {
    w.home.holds = RAM_WRITES;
    world_die_starting(&w, (struct mirror_activation){0});
    w.home.holds = 0;
  }
  world_give_back(&w, 0);
  memcpy(w.home.bytes, home, sizeof home);
  memcpy(w.data[0].bytes, data, MIB);
  memcpy(w.meta[0].bytes, meta, mirror_meta_bytes(&w.config));
  if (started(false) == TARN_OK) {
    assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
    world_pass(&w, 60 * NS_PER_S);
  }
  assert_int_equal(w.data[1].bytes[2 * 65536], 0x55);
  assert_int_equal(w.data[1].bytes[4 * 65536], 0x55);
}

static void a_backup_does_not_undo_it(void **state) {
  (void)state;
  a_backup_does_not_undo_what_b_answered(false);
}

static void nor_when_b_was_killed_as_it_started(void **state) {
  (void)state;
  a_backup_does_not_undo_what_b_answered(true);
}

/* a, behind, is used by force while b is away; only home has the first commit. Then all is back. */
static void a_forced_start_that_is_cut_off_refuses_nothing(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  mirror_image_failed(w.m, 0, "a test");
  world_pass(&w, NS_PER_S);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_deactivate(&w);
  world_take_away(&w, 1);
  w.meta[0].holds = RAM_WRITES;
  world_die_starting(&w, (struct mirror_activation){.force = true});
  w.meta[0].holds = 0;
  world_give_back(&w, 1);
  assert_int_equal(started(false), TARN_OK);
}

/* a is out. By force a is used while b is away, and answers; its next life is killed in the first commit. The old state directory is put
 * back, and b is here: what a has answered is not copied over. */
static void what_was_used_by_force_is_not_copied_over(void **state) {
  (void)state;
  static uint8_t home[RECORD_AREA_BYTES];
  world_begin(&w, 2, MIB);
  mirror_image_failed(w.m, 0, "a test");
  world_pass(&w, NS_PER_S);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_deactivate(&w);
  memcpy(home, w.home.bytes, sizeof home);
  world_take_away(&w, 1);
  assert_int_equal(started(true), TARN_OK);
  assert_int_equal(world_write(&w, 2 * 65536, 4096), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  world_deactivate(&w);
  w.home.holds = RAM_WRITES;
  world_die_starting(&w, (struct mirror_activation){0});
  w.home.holds = 0;
  world_give_back(&w, 1);
  memcpy(w.home.bytes, home, sizeof home);
  if (started(false) == TARN_OK) world_pass(&w, 60 * NS_PER_S);
  assert_int_equal(w.data[0].bytes[2 * 65536], 0x55);
}

/* c is out. A start with a and c is cut off, of which c alone has the first commit: it says that b is out. Now b is here, and a is not. Nothing was
 * answered without b. */
static void a_start_that_one_image_alone_knows_of_puts_nobody_out(void **state) {
  (void)state;
  world_begin(&w, 3, MIB);
  mirror_image_failed(w.m, 2, "a test");
  world_pass(&w, NS_PER_S);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_deactivate(&w);
  world_take_away(&w, 1);
  w.home.holds = w.meta[0].holds = RAM_WRITES;
  world_die_starting(&w, (struct mirror_activation){0});
  w.home.holds = w.meta[0].holds = 0;
  assert_int_equal(world_record(w.meta[2].bytes).images[1].state, IMAGE_UNSYNCHRONIZED);
  world_give_back(&w, 1);
  world_take_away(&w, 0);
  w.config.images[0].policy.return_by_itself = false;
  assert_int_equal(started(false), TARN_OK);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
  world_pass(&w, 60 * NS_PER_S);
  assert_int_equal(world_image(&w, 2).state, IMAGE_SYNCHRONIZED);
  world_deactivate(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(a_backup_does_not_undo_it),
      WORLD_TEST(nor_when_b_was_killed_as_it_started),
      WORLD_TEST(a_forced_start_that_is_cut_off_refuses_nothing),
      WORLD_TEST(what_was_used_by_force_is_not_copied_over),
      WORLD_TEST(a_start_that_one_image_alone_knows_of_puts_nobody_out),
      WORLD_TEST(a_promotion_that_is_cut_off_refuses_nothing),
      WORLD_TEST(nor_does_force_take_the_other),
      WORLD_TEST(one_that_had_not_the_last_generation_comes_back),
  };
  return cmocka_run_group_tests_name("mirror_cut_off", tests, NULL, NULL);
}
