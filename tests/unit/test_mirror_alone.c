/* What landed of a commit on one image alone, which then is away for a while. */
#include "mirror_world.h"

#define MIB (1u << 20)

static void b_is_behind(void) {
  world_begin(&w, 2, MIB);
  mirror_image_failed(w.m, 1, "a test");
  world_run(&w);
  world_deactivate(&w);
}

/* a is away, and b is to be used by force; the state directory cannot be written. */
static void b_is_refused_by_home(void) {
  world_take_away(&w, 0);
  w.home.fails = RAM_WRITES;
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){.force = true}, world_done, &w);
  assert_int_not_equal(world_wait(&w), TARN_OK);
  world_die(&w);
  w.home.fails = 0;
}

static void a_serves_without_b(void) {
  world_take_away(&w, 1);
  world_activate(&w);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  world_deactivate(&w);
  world_give_back(&w, 1);
}

static void nothing_is_lost_when_both_are_here(void) {
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
  (void)world_wait(&w);
  world_pass(&w, 10 * NS_PER_S);
  assert_int_equal(w.data[0].bytes[0], 0x55);
}

/* b is behind, and is to be the master by force. The process dies in the first commit, which b alone has got. b is away then, and a serves,
 * from where it was. When b is there again what was answered since is not lost. */
static void a_promotion_that_b_alone_knows_of_undoes_nothing_that_was_answered_since(void **state) {
  (void)state;
  b_is_behind();
  world_open(&w);
  w.home.holds = w.meta[0].holds = RAM_WRITES;
  mirror_activate(w.m, &(struct mirror_activation){.force = true, .promote = true, .image = 1}, world_done, &w);
  world_run(&w);
  assert_false(w.done);
  world_die(&w);
  w.home.holds = w.meta[0].holds = 0;
  a_serves_without_b();
  nothing_is_lost_when_both_are_here();
}

/* The same without a crash: home cannot take it, so the command is refused. */
static void a_use_by_force_that_was_refused_undoes_nothing_that_was_answered_since(void **state) {
  (void)state;
  b_is_behind();
  b_is_refused_by_home();
  world_give_back(&w, 0); /* a is found, and used instead */
  a_serves_without_b();
  nothing_is_lost_when_both_are_here();
}

/* The same, and the mirror is activated again by itself, as one that is in ATTENTION is every few seconds: each time b gets one more record
 * that home does not. */
static void a_use_by_force_that_is_tried_again_and_again_undoes_nothing_either(void **state) {
  (void)state;
  b_is_behind();
  world_take_away(&w, 0);
  w.home.fails = RAM_WRITES;
  for (uint32_t try = 0; try < 12; try++) {
    world_open(&w);
    mirror_activate(w.m, &(struct mirror_activation){.force = try == 0}, world_done, &w);
    assert_int_not_equal(world_wait(&w), TARN_OK);
    world_die(&w);
  }
  w.home.fails = 0;
  world_give_back(&w, 0); /* a is found, and used instead */
  a_serves_without_b();
  nothing_is_lost_when_both_are_here();
}

/* ... nor where the state directory is lost in the end: what it would have told the images tell, or nobody goes on without being asked. */
static void nor_does_one_that_was_refused_when_home_is_lost(void **state) {
  (void)state;
  b_is_behind();
  b_is_refused_by_home();
  world_give_back(&w, 0);
  a_serves_without_b();
  memset(w.home.bytes, 0, RECORD_AREA_BYTES);
  nothing_is_lost_when_both_are_here();
}

/* The metadata of all images cannot be written here for a while, and home goes on alone: the same record again and again, each with a higher
 * sequence. Then the disks are served elsewhere, by another home, where b is away; and come back. */
static void home_goes_on_alone(void) {
  for (uint32_t i = 0; i < 2; i++) w.meta[i].fails = RAM_WRITES;
  for (uint32_t i = 0; i < 2; i++) w.data[i].fails = RAM_FLUSHES;
  assert_int_not_equal(world_flush(&w), TARN_OK);
  world_pass(&w, 60 * NS_PER_S);
  world_die(&w);
  for (uint32_t i = 0; i < 2; i++) w.meta[i].fails = w.data[i].fails = 0;
}

static void a_is_served_elsewhere(void) {
  static uint8_t home[RECORD_AREA_BYTES];
  memcpy(home, w.home.bytes, sizeof home);
  memset(w.home.bytes, 0, sizeof home);
  world_take_away(&w, 1);
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){.force = true}, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  world_deactivate(&w);
  memcpy(w.home.bytes, home, sizeof home);
  world_give_back(&w, 1);
}

static void check_served_from_there(void) {
  struct client_io read;
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
  tarn_err err = world_wait(&w);
  assert_string_equal(w.why, "");
  assert_int_equal(err, TARN_OK);
  client_begin(&w, &read, DISK_READ, 0, 4096, 0);
  world_pass(&w, NS_PER_S);
  assert_int_equal(read.io.err, TARN_OK);
  assert_int_equal(read.io.data[0], 0x55);
  assert_int_equal(client_end(&w, &read), TARN_OK);
}

static void a_home_that_went_on_alone_hides_no_line_that_was_relied_on(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  home_goes_on_alone();
  a_is_served_elsewhere();
  check_served_from_there();
}

/* b was out before. */
static void a_home_that_went_on_alone_keeps_the_newest_image_in(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  w.config.images[1].policy.return_by_itself = false;
  mirror_set_policy(w.m, 1, &w.config.images[1].policy);
  mirror_image_failed(w.m, 1, "a test");
  world_pass(&w, NS_PER_S);
  home_goes_on_alone();
  a_is_served_elsewhere();
  check_served_from_there();
}

/* What another daemon would have left, with a state directory of its own, that served b alone for a while. */
static void b_is_served_apart(void) {
  struct record own = world_record(w.meta[1].bytes);
  memmove(&own.history[1], &own.history[0], sizeof own.history[0] * 2);
  own.history[0] = own.generation;
  own.generation.number++;
  own.generation.id = 0xa9a27;
  own.sequence += 100;
  own.completed = own.sequence;
  own.settled_number = own.generation.number;
  world_put_record(w.meta[1].bytes, &own);
  memset(w.data[1].bytes + 300000, 0x77, 4096);
}

/* b is taken as equal. That lands on b alone: then the process dies, and another daemon serves b, while a is served here without it.
 * Neither side's writes are taken for what comes after the other's. */
static void one_that_was_assumed_and_nobody_else_knows_of_is_told_apart(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  mirror_image_failed(w.m, 1, "a test");
  world_run(&w);
  w.config.images[1].policy.return_by_itself = false;
  world_deactivate(&w);
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){.quiet = true}, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  mirror_image_do(w.m, 1, IMAGE_OP_ASSUME, false, world_done, &w);
  for (uint32_t step = 0; step < 10000 && world_image(&w, 1).state != IMAGE_SYNCHRONIZED; step++)
    assert_true(event_run_one(&w.env.queue));
  w.home.holds = w.meta[0].holds = RAM_WRITES;
  world_run(&w);
  assert_false(w.done);
  world_die(&w);
  w.home.holds = w.meta[0].holds = 0;
  assert_int_equal(world_record(w.meta[1].bytes).images[1].state, IMAGE_SYNCHRONIZED);
  assert_int_equal(world_record(w.meta[0].bytes).images[1].state, IMAGE_UNSYNCHRONIZED);
  world_take_away(&w, 1);
  world_activate(&w);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  world_deactivate(&w);
  b_is_served_apart();
  world_give_back(&w, 1);
  nothing_is_lost_when_both_are_here();
  assert_int_equal(w.data[1].bytes[300000], 0x77);
}

/* c is away when the mirror starts, and b, which was behind, comes back. The process dies in the first commit, which b alone has got. Then b
 * is away, and c there: a and c go on from where they were. When b is there again nobody has changed anything behind our back. */
static void a_leaving_that_b_alone_knows_of_is_none(void **state) {
  (void)state;
  world_init(&w, 3, 2 * MIB, 512);
  w.limits.witnesses = 8;
  world_format(&w);
  world_settle(&w);
  mirror_image_failed(w.m, 1, "a test");
  world_pass(&w, NS_PER_S);
  world_deactivate(&w);
  world_take_away(&w, 2);
  w.home.holds = w.meta[0].holds = RAM_WRITES;
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
  world_run(&w);
  assert_false(w.done);
  world_die(&w);
  w.home.holds = w.meta[0].holds = 0;
  world_give_back(&w, 2);
  world_take_away(&w, 1);
  world_activate(&w);
  for (uint64_t at = 0; at < 2 * MIB; at += 65536) assert_int_equal(world_write(&w, at, 65536), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  world_deactivate(&w);
  world_give_back(&w, 1);
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
  tarn_err err = world_wait(&w);
  assert_string_equal(w.why, "");
  assert_int_equal(err, TARN_OK);
  world_pass(&w, 30 * NS_PER_S);
  world_check_synchronized(&w);
  for (uint32_t i = 0; i < 3; i++) assert_memory_equal(w.data[i].bytes, w.data[0].bytes, 2 * MIB);
}

/* b is out, and is removed. While that is being recorded a write is answered, flushed, and its mark cleared. Then the record cannot be
 * written anywhere, so b is there again, and misses all; that goes out with the cleared mark, of which a crash lets only the log land. */
static void a_mark_does_not_go_with_a_removal_that_is_taken_back(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  w.config.images[1].policy.return_by_itself = false;
  mirror_set_policy(w.m, 1, &w.config.images[1].policy);
  mirror_image_failed(w.m, 1, "a test");
  world_run(&w);
  assert_int_equal(client_do(&w, DISK_WRITE, 0, 4096, 0x11), TARN_OK); /* marked, and missed */
  world_pass(&w, NS_PER_S);
  mirror_image_do(w.m, 1, IMAGE_OP_REMOVE, false, world_done, &w);
  for (uint32_t step = 0; step < 10000 && !world_said(&w, "is removed"); step++)
    assert_true(event_run_one(&w.env.queue));
  w.meta[0].holds = w.home.holds = RAM_WRITES;
  world_run(&w);
  assert_true(w.meta[0].held_count > 0);
  assert_int_equal(client_do(&w, DISK_WRITE, 16384, 4096, 0x33), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  world_pass(&w, 7 * NS_PER_S);
  w.meta[0].fails = w.home.fails = RAM_WRITES;
  ram_answer_all(&w.meta[0]);
  ram_answer_all(&w.home);
  world_run(&w);
  assert_int_not_equal(world_wait(&w), TARN_OK);
  assert_int_equal(world_image(&w, 1).state, IMAGE_UNSYNCHRONIZED);
  w.meta[0].fails = w.home.fails = 0;
  for (uint32_t step = 0; step < 100 && w.meta[0].held_count == 0; step++) world_pass(&w, NS_PER_S / 20);
  world_run(&w);
  assert_true(w.meta[0].held_count > 0); /* the record, and perhaps the log */
  while (w.meta[0].held_count > 1) ram_answer_last(&w.meta[0]);
  world_die(&w);
  w.meta[0].holds = w.home.holds = 0;
  w.config.images[1].policy.return_by_itself = true;
  world_activate(&w);
  world_pass(&w, 90 * NS_PER_S);
  world_check_synchronized(&w);
  assert_int_equal(w.data[0].bytes[16384], 0x33);
  assert_int_equal(w.data[1].bytes[16384], 0x33);
}

/* b fails, and the mirror stops, since none may be missing. Then its disks are served by another node, which has no record of its own: a says
 * that b is out, and home had that record. Nobody can have gone on without it. */
static void a_mirror_that_may_miss_none_goes_on_where_home_is_another(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  mirror_set_limits(w.m, 0, -1, false);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  mirror_image_failed(w.m, 1, "a test");
  world_pass(&w, 10 * NS_PER_S);
  assert_true(mirror_has_fallen(w.m));
  assert_true(mirror_is_idle(w.m));
  world_close(&w);
  memset(w.home.bytes, 0, RECORD_AREA_BYTES);
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
  tarn_err err = world_wait(&w);
  assert_string_equal(w.why, "");
  assert_int_equal(err, TARN_OK);
  world_pass(&w, 10 * NS_PER_S);
  world_check_synchronized(&w);
  assert_int_equal(w.data[0].bytes[0], 0x55);
}

/* ... nor where b fails in the very stop. */
static void a_stop_that_loses_an_image_leaves_nothing_open(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  w.meta[1].fails = RAM_WRITES;
  world_deactivate(&w);
  w.meta[1].fails = 0;
  memset(w.home.bytes, 0, RECORD_AREA_BYTES);
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
  tarn_err err = world_wait(&w);
  assert_string_equal(w.why, "");
  assert_int_equal(err, TARN_OK);
  world_pass(&w, 10 * NS_PER_S);
  world_check_synchronized(&w);
}

/* b's metadata fails in the first commit of an activation, so the generation that begins with its leaving is in the second one. What is answered
 * then is relied on. Another daemon, with a home of its own, serves b alone meanwhile: that a has something, too, is shown. */
static void what_an_activation_relied_on_is_told_when_it_was_written_apart(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  world_deactivate(&w);
  w.meta[1].fails = RAM_WRITES;
  world_activate(&w);
  assert_int_equal(world_image(&w, 1).state, IMAGE_UNSYNCHRONIZED);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  world_pass(&w, 5 * NS_PER_S);
  world_die(&w);
  w.meta[1].fails = 0;
  memset(w.home.bytes, 0, RECORD_AREA_BYTES);
  world_take_away(&w, 0);
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){.force = true}, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  assert_int_equal(client_do(&w, DISK_WRITE, 300000 / 4096 * 4096, 4096, 0x77), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  world_deactivate(&w);
  world_give_back(&w, 0);
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
  (void)world_wait(&w);
  world_pass(&w, 30 * NS_PER_S);
  assert_int_equal(w.data[0].bytes[0], 0x55);
  assert_int_equal(w.data[1].bytes[300000], 0x77);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(a_promotion_that_b_alone_knows_of_undoes_nothing_that_was_answered_since),
      WORLD_TEST(a_use_by_force_that_was_refused_undoes_nothing_that_was_answered_since),
      WORLD_TEST(a_use_by_force_that_is_tried_again_and_again_undoes_nothing_either),
      WORLD_TEST(nor_does_one_that_was_refused_when_home_is_lost),
      WORLD_TEST(a_home_that_went_on_alone_hides_no_line_that_was_relied_on),
      WORLD_TEST(a_home_that_went_on_alone_keeps_the_newest_image_in),
      WORLD_TEST(one_that_was_assumed_and_nobody_else_knows_of_is_told_apart),
      WORLD_TEST(a_leaving_that_b_alone_knows_of_is_none),
      WORLD_TEST(a_mark_does_not_go_with_a_removal_that_is_taken_back),
      WORLD_TEST(a_mirror_that_may_miss_none_goes_on_where_home_is_another),
      WORLD_TEST(a_stop_that_loses_an_image_leaves_nothing_open),
      WORLD_TEST(what_an_activation_relied_on_is_told_when_it_was_written_apart),
  };
  return cmocka_run_group_tests_name("mirror_alone", tests, NULL, NULL);
}
