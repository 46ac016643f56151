/* The end of a mirror: what is flushed before its disks are closed, and what it says may be lost (mirror_close.c; rule 6). */
#include "mirror_world.h"

#define MIB (1u << 20)

/* An answered write that no flush has come after; from now on the mirror falls when an image is missing. */
static void begin_brittle(uint32_t images) {
  world_begin(&w, images, MIB);
  mirror_set_limits(w.m, 0, -1, false);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
}

static void fall(void) {
  mirror_image_failed(w.m, 1, "its disk is gone");
  assert_true(mirror_has_fallen(w.m));
}

/* Nothing is left to do, so that its disks may be closed; is what was answered at risk by that? */
static void ends(const char *why, bool lost) {
  world_run(&w);
  row_true(why, mirror_is_idle(w.m) && mirror_is_quiet(w.m));
  row_true(why, mirror_may_have_lost(w.m) == lost);
  world_close(&w);
}

/* ---- a fall: what is flushed ---- */

/* The healthy image is flushed before the mirror is idle, and so before anybody may close its disks. */
static void a_mirror_that_falls_flushes_what_it_answered(void **state) {
  (void)state;
  begin_brittle(2);
  w.data[0].holds = RAM_FLUSHES;
  fall();
  assert_false(mirror_is_idle(w.m));
  world_run(&w);
  assert_false(mirror_is_idle(w.m));
  assert_int_equal(w.data[0].held_count, 1);
  ram_answer(&w.data[0]);
  ends("flushed", false);
}

/* Also if a verify is at work, which ends last of all. */
static void a_mirror_that_falls_during_a_verify_is_flushed(void **state) {
  (void)state;
  begin_brittle(2);
  w.data[0].holds = RAM_READS;
  mirror_verify(w.m, IMAGES_MAX, world_done, &w);
  world_run(&w);
  assert_true(w.data[0].held_count > 0);
  fall();
  world_run(&w); /* that b is out is recorded */
  uint32_t flushes = w.data[0].flushes;
  ram_release(&w.data[0]);
  world_run(&w);
  assert_true(w.done);
  assert_true(w.data[0].flushes > flushes);
  ends("after the verify", false);
}

/* Or an image is being added, whose metadata is slow. */
static void a_mirror_that_falls_while_an_image_is_added_is_flushed(void **state) {
  (void)state;
  world_init(&w, 3, MIB, 512);
  w.config.image_count = 2;
  world_format(&w);
  w.config.max_missing = 0;
  world_settle(&w);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  w.meta[2].holds = RAM_READS;
  mirror_image_add(w.m, 2, &w.config.images[2], world_done, &w);
  world_run(&w);
  assert_true(w.meta[2].held_count > 0);
  fall();
  world_run(&w);
  uint32_t flushes = w.data[0].flushes;
  ram_release(&w.meta[2]);
  world_run(&w);
  assert_true(w.done);
  assert_int_equal(w.err, TARN_REFUSED);
  assert_true(w.data[0].flushes > flushes);
  ends("after the addition", false);
}

/* A fall soon after a kill: nobody knows whether what the process before has answered was flushed, so it is. */
static void a_fall_flushes_what_the_process_before_answered(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_die(&w);
  w.config.max_missing = 0;
  world_activate(&w);
  w.data[0].holds = RAM_FLUSHES;
  fall();
  world_run(&w);
  assert_int_equal(w.data[0].held_count, 1);
  ram_answer(&w.data[0]);
  ends("flushed", false);
}

/* Volumes count one by one: which of them was written to, and whose flush fails. */
static void every_volume_is_flushed(void **state) {
  (void)state;
  static const struct {
    const char *why;
    uint32_t written, fails; /* 2: none */
  } rows[] = {
      {"the first was written to, and its flush fails", 0, 0},
      {"the last was", 1, 1},
      {"all flushes are good", 1, 2},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    world_init(&w, 2, MIB, 512);
    world_add_volume(&w);
    world_format(&w);
    world_settle(&w);
    mirror_set_limits(w.m, 0, -1, false);
    w.volume = rows[i].written;
    assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
    if (rows[i].fails == 0) w.data[0].fails = RAM_FLUSHES;
    if (rows[i].fails == 1) w.second[0].fails = RAM_FLUSHES;
    fall();
    ends(rows[i].why, rows[i].fails < 2);
    world_end(&w);
  }
}

enum way { FAILED, FAILED_UNRECORDED, REMOVED_UNRECORDED };

static void leave_and_come_back(enum way way) {
  if (way == REMOVED_UNRECORDED) {
    world_begin_removal(&w, 1, false);
    w.home.fails = RAM_WRITES;
    ram_release(&w.home);
    assert_int_equal(world_wait(&w), TARN_IO);
  } else {
    w.home.fails = way == FAILED_UNRECORDED ? RAM_WRITES : 0;
    mirror_image_failed(w.m, 1, "a test");
    world_bring_back(&w, 1);
  }
  w.home.fails = 0;
  world_pass(&w, 5 * NS_PER_S);
  world_check_synchronized(&w);
}

/* An image that was out, and is back, counts as any other: also if it could not be recorded that it had left. */
static void an_image_that_came_back_is_flushed(void **state) {
  (void)state;
  static const struct {
    const char *why;
    enum way way;
  } rows[] = {
      {"it had failed", FAILED},
      {"which could not be recorded", FAILED_UNRECORDED},
      {"it was to be removed", REMOVED_UNRECORDED},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    world_begin(&w, 2, MIB);
    leave_and_come_back(rows[i].way);
    assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
    mirror_set_limits(w.m, 0, -1, false);
    uint32_t flushes = w.data[1].flushes;
    mirror_image_failed(w.m, 0, "a test");
    assert_true(mirror_has_fallen(w.m));
    ends(rows[i].why, false);
    row_true(rows[i].why, w.data[1].flushes == flushes + 1);
    world_end(&w);
  }
}

/* ---- and what it says may be lost ---- */

/* The flush of an image fails, which matters if the next activation may believe that image. */
static void a_mirror_that_falls_says_what_it_may_have_lost(void **state) {
  (void)state;
  static const struct {
    const char *why;
    uint32_t unflushed; /* the image whose flush at the end fails */
    bool flushed, home_fails, lost;
  } rows[] = {
      {"the one that is left", 0, false, false, true},
      {"all was flushed before", 0, true, false, false},
      {"one that is recorded as out", 1, false, false, false},
      {"one of which that could not be recorded", 1, false, true, true},
      {"and that a flush was good since without it does not count", 1, true, true, true},
      {"one that is put out after the fall, and recorded as out", 2, false, false, false},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    world_begin(&w, 3, MIB);
    assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
    w.home.fails = rows[i].home_fails ? RAM_WRITES : 0;
    mirror_image_failed(w.m, 1, "its disk is gone");
    if (rows[i].flushed) row_true(rows[i].why, (world_flush(&w) == TARN_OK) == !rows[i].home_fails);
    w.data[rows[i].unflushed].fails = RAM_FLUSHES;
    w.meta[2].fails = rows[i].unflushed == 2 ? RAM_WRITES : 0;
    mirror_set_limits(w.m, 0, -1, false);
    assert_true(mirror_has_fallen(w.m));
    ends(rows[i].why, rows[i].lost);
    world_end(&w);
  }
}

/* It falls while an image is being removed by force, which cannot be recorded: that one is flushed like the others. */
static void an_image_whose_removal_is_not_recorded_is_flushed(void **state) {
  (void)state;
  for (uint32_t fails = 0; fails < 2; fails++) {
    world_begin(&w, 2, MIB);
    assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
    world_begin_removal(&w, 1, true);
    mirror_image_failed(w.m, 0, "its disk is gone");
    assert_true(mirror_has_fallen(w.m));
    w.data[1].fails = fails ? RAM_FLUSHES : 0;
    w.home.fails = RAM_WRITES;
    uint32_t flushes = w.data[1].flushes;
    ram_release(&w.home);
    assert_int_equal(world_wait(&w), TARN_IO);
    ends(fails ? "its flush fails" : "its flush is good", fails);
    assert_int_equal(w.data[1].flushes, flushes + 1);
    world_end(&w);
  }
}

/* An image that left, and that it did could not be recorded, was let go of: what its disks had in their caches nobody can ask for
 * any more, also when it is on its way back. */
static void what_was_let_go_may_be_lost(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  w.home.fails = RAM_WRITES;
  mirror_image_failed(w.m, 1, "a test");
  world_bring_back(&w, 1);
  world_run(&w);
  mirror_image_failed(w.m, 0, "a test");
  assert_true(mirror_has_fallen(w.m));
  ends("b was opened anew", true);
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
    world_begin(&w, 1, MIB);
    assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
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
    ram_release(&w.data[0]);
    ends(rows[i].why, fails);
    row_true(rows[i].why, w.data[0].flushes == flushes + !fails);
    world_end(&w);
  }
}

/* A disk hangs while the mirror stops, and answers well after all: the stop has not waited for it. Where another image is left it
 * is that one's flush that counts. */
static void a_stop_says_what_a_hang_may_have_lost(void **state) {
  (void)state;
  for (uint32_t images = 1; images <= 2; images++) {
    struct client_io held;
    struct ram_disk *ram = &w.data[images - 1];
    world_begin(&w, images, MIB);
    assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
    ram->holds = RAM_WRITES;
    client_begin(&w, &held, DISK_WRITE, 65536, 4096, 0x66);
    world_run(&w);
    mirror_deactivate(w.m, false, world_done, &w);
    assert_int_equal(world_wait(&w), images == 1 ? TARN_HUNG : TARN_OK);
    assert_int_equal(client_end(&w, &held), images == 1 ? TARN_HUNG : TARN_OK);
    ram_release(ram);
    ends(images == 1 ? "the last image hung" : "another one hung", images == 1);
    world_end(&w);
  }
}

/* ---- put aside beside a disk that hangs (rule 7) ---- */

/* It lets go of all but image b's disks. */
static struct mirror *put_aside(bool lost) {
  struct mirror *past = w.m;
  bool may_have_lost;
  world_run(&w);
  assert_true(mirror_can_be_put_aside(past));
  assert_false(mirror_is_quiet(past));
  assert_int_equal(mirror_put_aside(past, &may_have_lost), 1u << 1);
  assert_int_equal(may_have_lost, lost);
  return past;
}

/* A new object, in the same process. */
static void open_without_b(void) {
  w.config.images[1].data[0] = w.config.images[1].meta = NULL;
  struct mirror_options options = {
      .env = &w.env, .arena = &w.arena, .config = &w.config, .owner = &w, .reopen = world_reopen};
  w.m = mirror_open(&options);
  assert_non_null(w.m);
  mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
}

/* Image b's disk has answered, and nothing of the past is left. */
static void ends_aside(struct mirror *past, bool lost) {
  bool may_have_lost;
  world_run(&w);
  assert_true(mirror_is_idle(past) && mirror_is_quiet(past));
  assert_int_equal(mirror_put_aside(past, &may_have_lost), 0);
  assert_int_equal(may_have_lost, lost);
  mirror_close(past);
}

static void bring_b_back(void) {
  w.config.images[1].data[0] = &w.data[1].disk;
  w.config.images[1].meta = &w.meta[1].disk;
  world_bring_back(&w, 1);
  world_pass(&w, 10 * NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
  assert_memory_equal(w.data[0].bytes, w.data[1].bytes, MIB);
}

/* Image b hangs for good, with a write to its data, or with a record or its log; then the last good one fails for a moment. The next
 * life serves without b, and the late write lands on what is newer elsewhere. When b is back it holds what a does. */
static void the_next_life_goes_on_beside_a_disk_that_hangs(void **state) {
  (void)state;
  for (uint32_t meta = 0; meta < 2; meta++) {
    for (uint32_t stops = 0; stops < 2; stops++) {
      struct client_io held;
      world_begin(&w, 2, MIB);
      struct ram_disk *ram = meta ? &w.meta[1] : &w.data[1];
      ram->holds = RAM_WRITES;
      client_begin(&w, &held, DISK_WRITE, 65536, 4096, 0x66);
      world_pass(&w, 30 * NS_PER_S);
      assert_int_equal(client_end(&w, &held), TARN_OK);
      assert_true(ram->held_count > 0);
      if (stops) {
        mirror_deactivate(w.m, false, world_done, &w);
        assert_int_equal(world_wait(&w), TARN_OK);
      } else mirror_image_failed(w.m, 0, "a test");
      struct mirror *past = put_aside(false);
      open_without_b();
      assert_int_equal(world_write(&w, 65536, 4096), TARN_OK);
      world_pass(&w, 20 * NS_PER_S); /* no region is marked any more */
      assert_false(mirror_is_quiet(past));
      ram_release(ram);
      ends_aside(past, false);
      if (!meta) assert_memory_not_equal(w.data[0].bytes, w.data[1].bytes, MIB);
      bring_b_back();
      world_deactivate(&w);
      world_end(&w);
    }
  }
}

/* Image b hangs, and that makes the mirror fall, which nobody can record. What b may have lost counts no sooner than it has answered, and is flushed: if nobody
 * has gone on without it, it is believed again. */
static void one_that_is_aside_is_flushed_when_it_answers(void **state) {
  (void)state;
  for (uint32_t fails = 0; fails < 2; fails++) {
    struct client_io held;
    begin_brittle(2);
    w.data[1].holds = RAM_WRITES;
    client_begin(&w, &held, DISK_WRITE, 65536, 4096, 0x66);
    world_run(&w);
    w.home.fails = RAM_WRITES;
    world_pass(&w, 30 * NS_PER_S);
    assert_true(mirror_has_fallen(w.m));
    (void)client_end(&w, &held);
    struct mirror *past = put_aside(false);
    uint32_t flushes = w.data[1].flushes;
    w.data[1].fails = fails ? RAM_WRITES : 0;
    ram_release(&w.data[1]);
    ends_aside(past, fails);
    assert_int_equal(w.data[1].flushes, flushes + !fails);
    w.m = NULL;
    world_end(&w);
  }
}

/* Nothing is won when no image is left, or when the state directory hangs. */
static void what_is_not_put_aside(void **state) {
  (void)state;
  for (uint32_t home = 0; home < 2; home++) {
    struct client_io held;
    world_begin(&w, home + 1, MIB);
    struct ram_disk *ram = home ? &w.home : &w.data[0];
    ram->holds = RAM_WRITES;
    if (home) mirror_image_failed(w.m, 1, "a test");
    client_begin(&w, &held, DISK_WRITE, 65536, 4096, 0x66);
    world_pass(&w, 60 * NS_PER_S);
    (void)client_end(&w, &held);
    assert_true(mirror_has_fallen(w.m));
    assert_true(ram->held_count > 0);
    assert_false(mirror_can_be_put_aside(w.m));
    ram_release(ram);
    world_run(&w);
    assert_false(mirror_can_be_put_aside(w.m)); /* it can be closed */
    assert_true(mirror_is_idle(w.m) && mirror_is_quiet(w.m));
    world_close(&w);
    world_end(&w);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(a_mirror_that_falls_flushes_what_it_answered),
      WORLD_TEST(a_mirror_that_falls_during_a_verify_is_flushed),
      WORLD_TEST(a_mirror_that_falls_while_an_image_is_added_is_flushed),
      WORLD_TEST(a_mirror_that_falls_says_what_it_may_have_lost),
      WORLD_TEST(every_volume_is_flushed),
      WORLD_TEST(an_image_that_came_back_is_flushed),
      WORLD_TEST(an_image_whose_removal_is_not_recorded_is_flushed),
      WORLD_TEST(what_was_let_go_may_be_lost),
      WORLD_TEST(a_disk_that_hung_is_flushed_when_it_answers),
      WORLD_TEST(a_fall_flushes_what_the_process_before_answered),
      WORLD_TEST(a_stop_says_what_a_hang_may_have_lost),
      WORLD_TEST(the_next_life_goes_on_beside_a_disk_that_hangs),
      WORLD_TEST(one_that_is_aside_is_flushed_when_it_answers),
      WORLD_TEST(what_is_not_put_aside),
  };
  return cmocka_run_group_tests_name("mirror_close", tests, NULL, NULL);
}
