/* Histories (rule 9): an image that was served apart is told from one of ours however long it was away, and one of ours is known
 * however long it was away. */
#include "mirror_world.h"

#define BYTES (1u << 20)

/* Each time that image c goes and comes back makes a generation. */
static void pass_generations(uint32_t count) {
  for (uint32_t k = 0; k < count; k++) {
    world_activate(&w);
    world_pass(&w, 20 * NS_PER_S);
    assert_int_equal(world_image(&w, 2).state, IMAGE_SYNCHRONIZED);
    mirror_image_failed(w.m, 2, "for the test");
    assert_int_equal(client_do(&w, DISK_WRITE, k % 8 * 65536ull, 4096, (uint8_t)k), TARN_OK);
    world_pass(&w, NS_PER_S);
    world_deactivate(&w);
  }
}

enum leaves { LEAVES_CURRENT, LEAVES_COPIED, FAILS_COPIED };

/* What it missed of two regions is copied to b: of the second one not before it leaves. */
static void copy_begins(void) {
  struct image_policy *policy = &w.config.images[1].policy;
  policy->rate = 4096;
  mirror_set_policy(w.m, 1, policy);
  mirror_image_failed(w.m, 1, "for the test");
  assert_int_equal(world_write(&w, 0, 2 * 65536), TARN_OK);
  world_bring_back(&w, 1);
  world_pass(&w, NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZING);
  policy->rate = 0;
}

/* Image b leaves, and stays away for so many generations; it is not touched meanwhile. */
static void b_leaves(const struct mirror_limits *limits, enum leaves how, uint32_t generations) {
  world_init(&w, 3, BYTES, 512);
  w.config.limits = limits;
  for (uint32_t i = 0; i < 3; i++) w.config.images[i].blank = i != 0;
  world_format(&w);
  world_settle(&w);
  if (how != LEAVES_CURRENT) copy_begins();
  if (how == FAILS_COPIED) mirror_image_failed(w.m, 1, "for the test");
  world_deactivate(&w);
  world_take_away(&w, 1);
  pass_generations(generations);
}

static void b_returns(void) {
  world_give_back(&w, 1);
  world_activate(&w);
  world_pass(&w, 20 * NS_PER_S);
}

/* What another daemon would have left, with a copy of the state directory, that served b alone for a while. */
static void b_is_served_apart(void) {
  struct record own = world_record(w.meta[1].bytes);
  memmove(&own.history[1], &own.history[0], sizeof own.history[0] * 2);
  own.history[0] = own.generation;
  own.generation.number++;
  own.generation.id = 0xa9a27;
  own.sequence += 100;
  own.completed = own.sequence;
  own.settled_number = own.generation.number;
  own.images[1].state = IMAGE_SYNCHRONIZED;
  world_put_record(w.meta[1].bytes, &own);
  memset(w.data[1].bytes + 300000, 0x77, 4096);
}

static const struct {
  const char *why;
  const struct mirror_limits *limits;
  enum leaves how;
  uint32_t generations;
} rows[] = {
    {"while the history remembers", &mirror_limits_default, LEAVES_CURRENT, 5},
    {"longer than eight generations, which was all that was remembered", &mirror_limits_default, LEAVES_CURRENT, 12},
    {"longer than is remembered", &mirror_limits_default, LEAVES_CURRENT, 30},
    {"a short history", &mirror_limits_tiny, LEAVES_CURRENT, 6},
    {"it was being copied to when the mirror stopped", &mirror_limits_tiny, LEAVES_COPIED, 6},
    {"it was being copied to when it failed", &mirror_limits_tiny, FAILS_COPIED, 6},
};

static void one_of_ours_is_known_however_long_it_was_away(void **state) {
  (void)state;
  for (size_t r = 0; r < COUNT_OF(rows); r++) {
    b_leaves(rows[r].limits, rows[r].how, rows[r].generations);
    uint64_t before = w.data[1].bytes_written;
    b_returns();
    row_true(rows[r].why, world_image(&w, 1).state == IMAGE_SYNCHRONIZED);
    row_true(rows[r].why, memcmp(w.data[0].bytes, w.data[1].bytes, BYTES) == 0);
    row_true(rows[r].why, w.data[1].bytes_written - before < BYTES / 2); /* what it missed, no more */
    world_deactivate(&w);
    world_end(&w);
  }
}

static void one_that_was_served_apart_is_never_equal(void **state) {
  (void)state;
  for (size_t r = 0; r < COUNT_OF(rows); r++) {
    b_leaves(rows[r].limits, rows[r].how, rows[r].generations);
    b_is_served_apart();
    b_returns();
    row_true(rows[r].why, world_image(&w, 1).state == IMAGE_UNSYNCHRONIZED);
    row_true(rows[r].why, strstr(world_image(&w, 1).reason, "written apart") != NULL);
    mirror_image_do(w.m, 1, IMAGE_OP_RESTORE, false, world_done, &w); /* no more by command */
    while (!w.done) {
      world_pass(&w, NS_PER_S / 100);
      if (!(w.reopened & 1u << 1)) continue;
      w.reopened = 0;
      mirror_image_reopened(w.m, 1, &w.config.images[1]);
    }
    w.done = false;
    row_true(rows[r].why, w.err == TARN_REFUSED);
    row_true(rows[r].why, strstr(w.why, "written apart") != NULL);
    world_deactivate(&w);
    world_end(&w);
  }
}

/* Its left_id is not known (version 1 had none), and nobody remembers its generation: asked for, since it was current. */
static void one_that_nobody_remembers_is_not_taken_for_ours(void **state) {
  (void)state;
  b_leaves(&mirror_limits_tiny, LEAVES_CURRENT, 6);
  for (uint32_t store = 0; store < 3; store++) {
    uint8_t *bytes = store == 1 ? w.home.bytes : w.meta[store].bytes;
    struct record record = world_record(bytes);
    record.images[1].left_id = 0;
    world_put_record(bytes, &record);
  }
  b_returns();
  assert_int_equal(world_image(&w, 1).state, IMAGE_UNSYNCHRONIZED);
  world_deactivate(&w);
}

/* Home could not be written when b was put out, so nothing was answered from a's line, however many records a has of it. The
 * next process finds b alone, and serves it: that line counts. */
static void a_line_that_home_does_not_know_does_not_count(void **state) {
  (void)state;
  world_begin(&w, 2, BYTES);
  w.home.fails = RAM_WRITES;
  mirror_image_failed(w.m, 1, "for the test");
  world_pass(&w, 30 * NS_PER_S); /* it is tried over and over */
  assert_true(world_said(&w, "the state directory cannot be written"));
  world_die(&w);
  w.home.fails = 0;
  struct mirror_image_config a = w.config.images[0];
  w.config.images[0].data[0] = w.config.images[0].meta = NULL;
  world_activate(&w);
  assert_int_equal(world_write(&w, 65536, 4096), TARN_OK);
  world_deactivate(&w);
  assert_true(world_record(w.meta[0].bytes).sequence > world_record(w.meta[1].bytes).sequence);
  w.config.images[0] = a;
  world_activate(&w);
  assert_true(world_image(&w, 1).master);
  world_pass(&w, 10 * NS_PER_S);
  world_check_synchronized(&w);
  for (uint32_t i = 0; i < 2; i++) assert_int_equal(w.data[i].bytes[65536], 0x55);
  world_deactivate(&w);
}

/* That b is whole lands on b alone: then the process dies, and another daemon serves b, while a is served here without it. Neither side's
 * writes are taken for what comes after the other's. */
static void one_whose_join_nobody_else_knows_of_is_told_apart(void **state) {
  (void)state;
  world_begin(&w, 2, BYTES);
  mirror_image_failed(w.m, 1, "for the test");
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  w.data[1].holds = RAM_FLUSHES;
  world_bring_back(&w, 1);
  w.meta[0].holds = w.home.holds = RAM_WRITES;
  for (uint32_t step = 0; step < 1000 && world_image(&w, 1).state != IMAGE_SYNCHRONIZED; step++) {
    ram_answer_all(&w.data[1]);
    if (w.meta[0].held_count > 0) ram_answer(&w.meta[0]);
    else if (w.home.held_count > 0) ram_answer(&w.home);
    else world_pass(&w, NS_PER_S / 100);
    world_run(&w);
  }
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
  world_run(&w);
  world_die(&w);
  w.data[1].holds = w.meta[0].holds = w.home.holds = 0;
  assert_int_equal(world_record(w.meta[1].bytes).images[1].state, IMAGE_SYNCHRONIZED);
  assert_int_equal(world_record(w.meta[0].bytes).images[1].state, IMAGE_SYNCHRONIZING);
  struct mirror_image_config b = w.config.images[1];
  world_take_away(&w, 1);
  world_activate(&w);
  assert_int_equal(client_do(&w, DISK_WRITE, 0, 4096, 0x77), TARN_OK);
  world_deactivate(&w);
  b_is_served_apart();
  w.config.images[1] = b;
  world_activate(&w);
  world_pass(&w, 10 * NS_PER_S);
  assert_true(world_image(&w, 0).master);
  assert_int_equal(w.data[0].bytes[0], 0x77);
  assert_int_equal(w.data[1].bytes[300000], 0x77); /* and what it has is left for the administrator */
  world_deactivate(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(one_of_ours_is_known_however_long_it_was_away),
      WORLD_TEST(one_that_was_served_apart_is_never_equal),
      WORLD_TEST(one_that_nobody_remembers_is_not_taken_for_ours),
      WORLD_TEST(a_line_that_home_does_not_know_does_not_count),
      WORLD_TEST(one_whose_join_nobody_else_knows_of_is_told_apart),
  };
  return cmocka_run_group_tests_name("mirror_history", tests, NULL, NULL);
}
