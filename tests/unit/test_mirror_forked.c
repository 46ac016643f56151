/* Two lines that were both written, of which one has begun where the other one goes on: which of them counts is for the administrator to
 * say (rule 9). A copy of the state directory, or an old one that is put back, is all it takes. */
#include "mirror_world.h"

#define MIB (1u << 20)

struct state_directory {
  uint8_t bytes[RECORD_AREA_BYTES];
};

static struct state_directory here, elsewhere;

static void keep(struct state_directory *state) { memcpy(state->bytes, w.home.bytes, sizeof state->bytes); }
static void put(const struct state_directory *state) { memcpy(w.home.bytes, state->bytes, sizeof state->bytes); }

static tarn_err started(bool force) {
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){.force = force}, world_done, &w);
  return world_wait(&w);
}

/* Only image i is there. */
static void serves(uint32_t i, bool force, uint64_t at) {
  world_take_away(&w, 1 - i);
  assert_int_equal(started(force), TARN_OK);
  assert_int_equal(world_write(&w, at, 4096), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  world_deactivate(&w);
  world_give_back(&w, 1 - i);
}

static void has(uint32_t i, uint64_t at) { assert_int_equal(w.data[i].bytes[at], 0x55); }

/* a is out, and b goes on. */
static void b_is_alone(void) {
  world_begin(&w, 2, MIB);
  mirror_image_failed(w.m, 0, "a test");
  world_pass(&w, NS_PER_S);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_deactivate(&w);
}

/* b goes on in the generation that it is in. By another state directory, which knows that generation too, a is used by force. */
static void both_are_served(void) {
  b_is_alone();
  keep(&elsewhere);
  serves(1, false, 65536);
  serves(1, false, 3 * 65536);
  keep(&here);
  put(&elsewhere);
  serves(0, true, 2 * 65536);
  keep(&elsewhere);
}

static void nothing_is_copied_over(void) {
  world_pass(&w, 20 * NS_PER_S);
  has(1, 65536);
  has(1, 3 * 65536);
  has(0, 2 * 65536);
}

static void where_b_was_served_b_is(void **state) {
  (void)state;
  both_are_served();
  put(&here);
  assert_int_equal(started(false), TARN_OK);
  nothing_is_copied_over();
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
  assert_int_not_equal(world_image(&w, 0).state, IMAGE_SYNCHRONIZED);
  assert_non_null(strstr(world_image(&w, 0).reason, "written apart"));
  world_deactivate(&w);
}

static void where_a_was_used_a_is(void **state) {
  (void)state;
  both_are_served();
  assert_int_equal(started(false), TARN_OK);
  nothing_is_copied_over();
  assert_int_equal(world_image(&w, 0).state, IMAGE_SYNCHRONIZED);
  assert_int_not_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
  assert_non_null(strstr(world_image(&w, 1).reason, "written apart"));
  world_deactivate(&w);
}

/* b is found again while the mirror runs. */
static void one_that_comes_back_later_is_not_copied_over_either(void **state) {
  (void)state;
  both_are_served();
  world_take_away(&w, 1);
  assert_int_equal(started(false), TARN_OK);
  world_give_back(&w, 1);
  world_bring_back(&w, 1);
  nothing_is_copied_over();
  assert_non_null(strstr(world_image(&w, 1).reason, "written apart"));
  world_deactivate(&w);
}

static void without_a_state_directory_neither_is(void **state) {
  (void)state;
  both_are_served();
  memset(w.home.bytes, 0, RECORD_AREA_BYTES);
  assert_int_equal(started(false), TARN_REFUSED);
  assert_non_null(strstr(w.why, "written apart"));
}

/* The state directory of before a was used is put back, and b goes on by it. */
static void an_old_state_directory(void **state) {
  (void)state;
  b_is_alone();
  keep(&here);
  serves(0, true, 2 * 65536);
  keep(&elsewhere);
  put(&here);
  serves(1, false, 65536);
  serves(1, false, 3 * 65536);
  assert_int_equal(started(false), TARN_OK);
  nothing_is_copied_over();
  world_deactivate(&w);
  put(&elsewhere);
  assert_int_equal(started(false), TARN_OK);
  nothing_is_copied_over();
  world_deactivate(&w);
}

/* What a refused promotion says of an image that was whole when it left. */
static void one_that_left_whole_is_called_so(void **state) {
  (void)state;
  b_is_alone();
  world_take_away(&w, 1);
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){.promote = true, .image = 0}, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_REFUSED);
  assert_non_null(
      strstr(w.why, "image a has not the newest data (it holds what was there when it left); --force makes it"));
}

/* Who has not gone on is no other line: what only b has is lost, as was said, and b is copied over. */
static void one_that_did_not_go_on_comes_back(void **state) {
  (void)state;
  b_is_alone();
  serves(0, true, 2 * 65536);
  world_activate(&w);
  world_pass(&w, 60 * NS_PER_S);
  world_check_synchronized(&w);
  assert_memory_equal(w.data[0].bytes, w.data[1].bytes, MIB);
  has(1, 2 * 65536);
  world_deactivate(&w);
}

/* ... nor one that has the record of a commit of which nobody knows that it was completed. */
static void one_that_knows_of_the_last_commit_comes_back(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  world_pass(&w, 20 * NS_PER_S);
  w.meta[0].holds = w.home.holds = RAM_WRITES; /* the last record lands on b alone */
  mirror_deactivate(w.m, false, world_done, &w);
  world_run(&w);
  assert_false(w.done);
  world_die(&w);
  w.meta[0].holds = w.home.holds = 0;
  world_take_away(&w, 1);
  assert_int_equal(started(false), TARN_OK);
  world_pass(&w, 20 * NS_PER_S);
  world_deactivate(&w);
  world_give_back(&w, 1);
  world_activate(&w);
  world_pass(&w, 60 * NS_PER_S);
  world_check_synchronized(&w);
  world_deactivate(&w);
}

/* The state directory is lost, and so is a, which was out: it may have been used by force since. */
static void an_absent_image_may_have_gone_on(void **state) {
  (void)state;
  b_is_alone();
  memset(w.home.bytes, 0, RECORD_AREA_BYTES);
  world_take_away(&w, 0);
  assert_int_equal(started(false), TARN_REFUSED);
  assert_non_null(strstr(w.why, "nothing confirms that no newer data is lost"));
  world_close(&w);
  assert_int_equal(started(true), TARN_OK);
  world_deactivate(&w);
  assert_int_equal(started(false), TARN_OK); /* it is known now */
  world_deactivate(&w);
}

/* No image can write its metadata here for a minute, and home goes on alone, record after record. Then the disks are served elsewhere, with a
 * home of its own; there one fails, and the other goes on. Back here, with the former alone: our home has a high sequence, and knows nothing of
 * that. */
static void home_went_on_alone(uint32_t left) {
  world_begin(&w, 2, MIB);
  for (uint32_t i = 0; i < 2; i++) w.meta[i].fails = RAM_WRITES;
  (void)world_write(&w, 500000, 4096); /* a mark, which cannot be recorded */
  for (uint32_t i = 0; i < 2; i++) w.data[i].fails = RAM_FLUSHES;
  (void)world_flush(&w);
  world_pass(&w, 60 * NS_PER_S);
  world_die(&w);
  for (uint32_t i = 0; i < 2; i++) w.meta[i].fails = w.data[i].fails = 0;
  keep(&here);
  memset(w.home.bytes, 0, RECORD_AREA_BYTES);
  world_activate(&w);
  world_pass(&w, 5 * NS_PER_S);
  mirror_image_failed(w.m, left, "a test");
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  world_pass(&w, NS_PER_S);
  world_deactivate(&w);
  put(&here);
  world_take_away(&w, 1 - left);
  assert_int_equal(started(false), TARN_REFUSED); /* or else what the other one alone has is not read */
}

static void a_home_that_went_on_alone_confirms_nothing(void **state) {
  (void)state;
  home_went_on_alone(0);
}

static void nor_when_the_second_image_is_the_one_that_left(void **state) {
  (void)state;
  home_went_on_alone(1);
}

/* b was not stopped cleanly: nobody knows whether it has gone on. */
static void what_was_given_up_and_did_not_stop_may_have_gone_on(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  mirror_image_failed(w.m, 0, "a test");
  world_pass(&w, NS_PER_S);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_die(&w);
  keep(&here);
  serves(0, true, 2 * 65536);
  put(&here);
  assert_int_equal(started(false), TARN_REFUSED);
  assert_string_equal(w.why,
                      "image b may have gone on without the others; the state directory here is older than what the "
                      "images hold, or they were used with "
                      "another one; nothing confirms that no newer data is lost; --force goes on without it");
  world_close(&w);
  assert_int_equal(started(true), TARN_OK);
  world_pass(&w, 60 * NS_PER_S);
  world_check_synchronized(&w);
  has(1, 2 * 65536);
  world_deactivate(&w);
}

/* a is used by force, as b is away, and serves. Then the state directory of before that is restored from a backup, and b is found. b has
 * not gone on: what it has is what the administrator gave up. What was answered from a since is the newest data. */
static void an_old_state_directory_does_not_make_what_was_given_up_the_newest(void **state) {
  (void)state;
  b_is_alone();
  keep(&here);
  serves(0, true, 2 * 65536);
  serves(0, false, 4 * 65536);
  put(&here);
  assert_int_equal(started(false), TARN_OK);
  world_pass(&w, 60 * NS_PER_S);
  world_check_synchronized(&w); /* b has nothing that was not given up */
  has(1, 2 * 65536);
  has(1, 4 * 65536);
  world_deactivate(&w);
}

/* As before, and b was copied over in full since: both are equal, and nothing is missing but the newest state directory. */
static void an_old_state_directory_keeps_no_whole_mirror_from_starting(void **state) {
  (void)state;
  b_is_alone();
  keep(&here);
  serves(0, true, 2 * 65536);
  world_activate(&w);
  world_pass(&w, 60 * NS_PER_S);
  world_check_synchronized(&w);
  world_deactivate(&w);
  put(&here);
  assert_int_equal(started(false), TARN_OK);
  world_check_synchronized(&w);
  world_deactivate(&w);
}

/* Three images, c away since before; a and b are equal, and newer. */
static void nor_does_it_make_a_third_one_the_newest(void **state) {
  (void)state;
  world_begin(&w, 3, MIB);
  mirror_image_failed(w.m, 0, "a test");
  world_pass(&w, NS_PER_S);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_deactivate(&w); /* b and c are current */
  keep(&here);
  world_take_away(&w, 1);
  world_take_away(&w, 2);
  w.config.images[2].policy.return_by_itself = false;
  assert_int_equal(started(true), TARN_OK); /* a by force */
  assert_int_equal(world_write(&w, 2 * 65536, 4096), TARN_OK);
  world_deactivate(&w);
  world_give_back(&w, 1);
  world_activate(&w); /* b is copied over */
  world_pass(&w, 60 * NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
  assert_int_equal(world_write(&w, 4 * 65536, 4096), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  world_deactivate(&w);
  world_give_back(&w, 2);
  w.config.images[2].policy.return_by_itself = true;
  put(&here);
  assert_int_equal(started(false), TARN_OK);
  assert_int_equal(world_image(&w, 0).state, IMAGE_SYNCHRONIZED);
}

static void b_is_half_copied(void) {
  world_begin(&w, 2, MIB);
  mirror_image_failed(w.m, 1, "a test");
  for (uint64_t at = 0; at < MIB; at += 65536) assert_int_equal(world_write(&w, at, 65536), TARN_OK);
  world_pass(&w, 20 * NS_PER_S);
  w.data[1].holds = RAM_WRITES; /* a copy of which nothing lands */
  world_bring_back(&w, 1);
  world_run(&w);
  world_pass(&w, NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZING);
  mirror_image_failed(w.m, 1, "a test");
  world_pass(&w, NS_PER_S / 10);
  ram_release(&w.data[1]);
  world_pass(&w, NS_PER_S / 10);
  world_deactivate(&w);
}

/* a goes on here, in the generation in which b was copied to. Elsewhere b, a copy that was never finished, is used by force. */
static void where_a_is_served_an_unfinished_copy_is_not_served_instead(void **state) {
  (void)state;
  b_is_half_copied();
  keep(&elsewhere);
  serves(0, false, 65536);
  keep(&here);
  put(&elsewhere);
  serves(1, true, 2 * 65536);
  put(&here);
  assert_int_equal(started(false), TARN_OK);
  assert_int_equal(world_image(&w, 0).state, IMAGE_SYNCHRONIZED);
}

/* b's join lands on b alone, and the process dies; b is not there at the next start. It has nothing that a has not: it comes back. */
static void one_whose_join_nobody_else_knows_of_comes_back(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
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
  world_run(&w);
  world_die(&w);
  w.data[1].holds = w.meta[0].holds = w.home.holds = 0;
  assert_int_equal(world_record(w.meta[1].bytes).images[1].state, IMAGE_SYNCHRONIZED);
  assert_int_equal(world_record(w.meta[0].bytes).images[1].state, IMAGE_SYNCHRONIZING);
  world_take_away(&w, 1);
  world_activate(&w);
  assert_int_equal(client_do(&w, DISK_WRITE, 0, 4096, 0x77), TARN_OK);
  world_deactivate(&w);
  world_give_back(&w, 1);
  world_activate(&w);
  world_pass(&w, 60 * NS_PER_S);
  world_check_synchronized(&w);
}

/* a is lost; b, which left before, is used by force, while c, to which was being copied, is here; the process dies in the first commit,
 * of which c gets nothing. c has nothing of its own: it is copied to. */
static void one_that_was_being_copied_to_comes_back(void **state) {
  (void)state;
  world_begin(&w, 3, MIB);
  mirror_image_failed(w.m, 1, "a test");
  world_pass(&w, NS_PER_S);
  world_deactivate(&w);
  world_take_away(&w, 1);
  world_activate(&w);
  mirror_image_failed(w.m, 2, "a test");
  for (uint64_t at = 0; at < MIB; at += 65536) assert_int_equal(world_write(&w, at, 65536), TARN_OK);
  w.data[2].holds = RAM_WRITES;
  world_bring_back(&w, 2);
  world_run(&w);
  world_pass(&w, NS_PER_S);
  assert_int_equal(world_image(&w, 2).state, IMAGE_SYNCHRONIZING);
  world_die(&w); /* with a's node */
  w.data[2].holds = 0;
  world_give_back(&w, 1);
  world_take_away(&w, 0);
  w.meta[2].holds = RAM_WRITES;
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){.force = true}, world_done, &w);
  world_run(&w);
  assert_false(w.done);
  world_die(&w);
  w.meta[2].holds = 0;
  tarn_err err = started(false);
  if (err == TARN_OK) {
    world_pass(&w, 60 * NS_PER_S);
    assert_int_equal(world_image(&w, 2).state, IMAGE_SYNCHRONIZED);
  }
}

/* The same, with the state directory copied while a is served, and a kill here: nobody knows whether a has gone on. */
static void nor_is_it_copied_over_what_was_answered_before_a_kill(void **state) {
  (void)state;
  b_is_half_copied();
  world_take_away(&w, 1);
  assert_int_equal(started(false), TARN_OK);
  world_pass(&w, NS_PER_S);
  keep(&elsewhere);
  assert_int_equal(client_do(&w, DISK_WRITE, 65536, 4096, 9), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  world_die(&w);
  world_give_back(&w, 1);
  keep(&here);
  put(&elsewhere);
  serves(1, true, 2 * 65536);
  put(&here);
  assert_int_equal(started(false), TARN_REFUSED);
  assert_int_equal(w.data[0].bytes[65536], 9);
}

/* As where_b_was_served_b_is, with a kill here. */
static void nor_is_b_where_it_was_served_and_killed(void **state) {
  (void)state;
  b_is_alone();
  world_take_away(&w, 0);
  assert_int_equal(started(false), TARN_OK);
  world_pass(&w, NS_PER_S);
  keep(&elsewhere);
  assert_int_equal(world_write(&w, 65536, 4096), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  world_die(&w);
  world_give_back(&w, 0);
  keep(&here);
  put(&elsewhere);
  serves(0, true, 2 * 65536);
  put(&here);
  assert_int_equal(started(false), TARN_REFUSED);
  has(1, 65536);
}

/* a is to be assumed equal, but home fails in the very record that says so, and it is taken back. a has nothing of its own. */
static void one_that_was_not_assumed_after_all_comes_back(void **state) {
  (void)state;
  b_is_alone();
  w.config.images[0].policy.return_by_itself = false;
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){.quiet = true}, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  w.home.holds = RAM_WRITES;
  mirror_image_do(w.m, 0, IMAGE_OP_ASSUME, false, world_done, &w);
  world_run(&w);
  for (uint32_t k = 0; k < 4; k++) { /* the try, and the one that gives it the log */
    ram_answer(&w.home);
    world_run(&w);
  }
  assert_false(w.done);
  w.home.fails = RAM_WRITES;
  ram_release(&w.home);
  assert_int_not_equal(world_wait(&w), TARN_OK);
  w.home.fails = 0;
  world_pass(&w, 5 * NS_PER_S);
  world_deactivate(&w);
  w.config.images[0].policy.return_by_itself = true;
  world_activate(&w);
  world_pass(&w, 60 * NS_PER_S);
  world_check_synchronized(&w);
}

/* b is fractured before an upgrade, which fails: back to b, by promote --force. Long after, a state directory of before is restored. */
static void an_old_state_directory_is_no_end_after_a_rollback(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  mirror_image_do(w.m, 1, IMAGE_OP_FRACTURE, false, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_deactivate(&w);
  keep(&here);
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){.force = true, .promote = true, .image = 1}, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  world_pass(&w, 60 * NS_PER_S);
  world_check_synchronized(&w);
  assert_int_equal(world_write(&w, 65536, 4096), TARN_OK);
  world_deactivate(&w);
  put(&here);
  assert_int_equal(started(false), TARN_OK);
  world_check_synchronized(&w);
}

/* b and c are current, a is out; that state directory is copied. a is used by force, for b and c are lost; b is copied over, and is found as equal. */
static void a_by_force_and_b_is_copied_over(void) {
  world_begin(&w, 3, MIB);
  mirror_image_failed(w.m, 0, "a test");
  world_pass(&w, NS_PER_S);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_deactivate(&w);
  keep(&here);
  world_take_away(&w, 1);
  world_take_away(&w, 2);
  w.config.images[2].policy.return_by_itself = w.config.images[1].policy.return_by_itself = false;
  assert_int_equal(started(true), TARN_OK);
  assert_int_equal(world_write(&w, 2 * 65536, 4096), TARN_OK);
  world_deactivate(&w);
  world_give_back(&w, 1);
  w.config.images[1].policy.return_by_itself = true;
  world_activate(&w);
  world_pass(&w, 60 * NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
  world_deactivate(&w);
}

static void a_goes_on_alone(void) {
  assert_int_equal(started(false), TARN_OK);
  world_pass(&w, NS_PER_S);
  assert_int_equal(world_write(&w, 4 * 65536, 4096), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  world_deactivate(&w);
}

static const uint64_t served_at = 4 * 65536;

/* What is read is not what was given up: refused, or what a has. */
static void c_is_not_served(void) {
  w.config.images[2].policy.return_by_itself = true;
  world_give_back(&w, 2);
  put(&here);
  tarn_err err = started(false);
  if (err != TARN_OK) return;
  struct client_io client;
  client_begin(&w, &client, DISK_READ, served_at, 4096, 0);
  for (uint32_t step = 0; step < 1000 && !client.done; step++) world_pass(&w, NS_PER_S / 100);
  assert_true(client.done);
  uint8_t read = *(uint8_t *)client.io.data;
  buffer_unref(client.io.buffer);
  assert_int_equal(read, 0x55);
  assert_int_equal(world_image(&w, 0).state, IMAGE_SYNCHRONIZED);
}

/* b has left once more, and is away. */
static void b_left_again(void **state) {
  (void)state;
  a_by_force_and_b_is_copied_over();
  world_take_away(&w, 1);
  w.config.images[1].policy.return_by_itself = false;
  a_goes_on_alone();
  c_is_not_served();
}

/* b never came back: it was removed by command, as it is lost. */
static void b_was_removed(void **state) {
  (void)state;
  a_by_force_and_b_is_copied_over();
  world_take_away(&w, 1);
  w.config.images[1].policy.return_by_itself = false;
  assert_int_equal(started(false), TARN_OK);
  world_pass(&w, NS_PER_S);
  mirror_image_do(w.m, 1, IMAGE_OP_REMOVE, true, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  assert_int_equal(world_write(&w, 4 * 65536, 4096), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  world_deactivate(&w);
  c_is_not_served();
}

/* The disk of b belongs to another mirror now. */
static void b_is_of_another_mirror(void **state) {
  (void)state;
  world_begin(&w, 3, MIB);
  mirror_image_failed(w.m, 0, "a test");
  world_pass(&w, NS_PER_S);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_deactivate(&w);
  keep(&here);
  world_take_away(&w, 1);
  world_take_away(&w, 2);
  assert_int_equal(started(true), TARN_OK);
  assert_int_equal(world_write(&w, 2 * 65536, 4096), TARN_OK);
  world_deactivate(&w);
  a_goes_on_alone();
  world_give_back(&w, 1);
  struct record other = world_record(w.meta[1].bytes);
  memset(other.mirror_uuid, 0x77, 16);
  other.generation.id = 0x123456789;
  memset(other.history, 0, sizeof other.history);
  world_put_record(w.meta[1].bytes, &other);
  c_is_not_served();
}

/* As v3, with b absent: the control, which is right. */
static void control(void **state) {
  (void)state;
  world_begin(&w, 3, MIB);
  mirror_image_failed(w.m, 0, "a test");
  world_pass(&w, NS_PER_S);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_deactivate(&w);
  keep(&here);
  world_take_away(&w, 1);
  world_take_away(&w, 2);
  assert_int_equal(started(true), TARN_OK);
  assert_int_equal(world_write(&w, 2 * 65536, 4096), TARN_OK);
  world_deactivate(&w);
  a_goes_on_alone();
  c_is_not_served();
}

/* Two images: b is copied over, leaves again, and is away as an old state directory is put back. a is all there is, and the newest. */
static void two_images_force_is_a_way_out(void **state) {
  (void)state;
  b_is_alone();
  keep(&here);
  serves(0, true, 2 * 65536);
  world_activate(&w);
  world_pass(&w, 60 * NS_PER_S);
  world_check_synchronized(&w);
  world_deactivate(&w);
  serves(0, false, 4 * 65536);
  world_take_away(&w, 1);
  put(&here);
  tarn_err err = started(false);
  if (err == TARN_OK) return;
  world_close(&w);
  err = started(true);
  assert_int_equal(err, TARN_OK);
}

/* b was never anything but absent since, but it was removed by command: it is lost. */
static void b_was_removed_at_once(void **state) {
  (void)state;
  world_begin(&w, 3, MIB);
  mirror_image_failed(w.m, 0, "a test");
  world_pass(&w, NS_PER_S);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_deactivate(&w);
  keep(&here);
  world_take_away(&w, 1);
  world_take_away(&w, 2);
  w.config.images[2].policy.return_by_itself = w.config.images[1].policy.return_by_itself = false;
  assert_int_equal(started(true), TARN_OK);
  mirror_image_do(w.m, 1, IMAGE_OP_REMOVE, true, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  assert_int_equal(world_write(&w, 4 * 65536, 4096), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  world_deactivate(&w);
  put(&here);
  assert_int_equal(started(false), TARN_REFUSED);
  assert_non_null(strstr(w.why, "image b is not known to the others any more"));
  world_close(&w);
  c_is_not_served();
}

/* The copy to b, which was given up, is cut off: b left with another generation, and is away. */
static void the_copy_to_b_was_cut_off(void **state) {
  (void)state;
  world_begin(&w, 3, MIB);
  mirror_image_failed(w.m, 0, "a test");
  world_pass(&w, NS_PER_S);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_deactivate(&w);
  keep(&here);
  world_take_away(&w, 1);
  world_take_away(&w, 2);
  w.config.images[2].policy.return_by_itself = w.config.images[1].policy.return_by_itself = false;
  assert_int_equal(started(true), TARN_OK);
  assert_int_equal(world_write(&w, 2 * 65536, 4096), TARN_OK);
  world_deactivate(&w);
  world_give_back(&w, 1);
  w.config.images[1].policy.return_by_itself = true;
  w.data[1].holds = RAM_WRITES;
  world_activate(&w);
  world_pass(&w, NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZING);
  mirror_image_failed(w.m, 1, "a test");
  w.config.images[1].policy.return_by_itself = false;
  world_pass(&w, NS_PER_S / 10);
  ram_release(&w.data[1]);
  assert_int_equal(world_write(&w, 4 * 65536, 4096), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  world_die(&w);
  world_take_away(&w, 1);
  c_is_not_served();
}

/* The whole mirror but b, which was removed, is here: a and c are equal. Only the state directory is old. */
static void a_whole_mirror_starts(void **state) {
  (void)state;
  world_begin(&w, 3, MIB);
  mirror_image_failed(w.m, 0, "a test");
  world_pass(&w, NS_PER_S);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_deactivate(&w);
  keep(&here);
  world_take_away(&w, 1);
  w.config.images[1].policy.return_by_itself = false;
  world_take_away(&w, 2);
  w.config.images[2].policy.return_by_itself = false;
  assert_int_equal(started(true), TARN_OK);
  mirror_image_do(w.m, 1, IMAGE_OP_REMOVE, true, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  world_deactivate(&w);
  world_give_back(&w, 2);
  w.config.images[2].policy.return_by_itself = true;
  assert_int_equal(started(false), TARN_OK);
  world_pass(&w, 60 * NS_PER_S);
  assert_int_equal(world_image(&w, 2).state, IMAGE_SYNCHRONIZED);
  world_deactivate(&w);
  put(&here);
  tarn_err err = started(false);
  if (err == TARN_OK) return;
  world_close(&w);
  err = started(true);
  assert_int_equal(err, TARN_OK);
}

/* A whole mirror of two: nothing was ever out but by a fracture. b is removed, and added anew, blank. */
static void b_was_replaced_by_a_blank_disk(void **state) {
  (void)state;
  a_by_force_and_b_is_copied_over();
  memset(w.meta[1].bytes, 0, mirror_meta_bytes(&w.config));
  memset(w.data[1].bytes, 0, MIB); /* it is replaced while the mirror is down */
  a_goes_on_alone();
  c_is_not_served();
}

/* b is copied over, and is current with a; it is only absent, with c back, when the old state directory is put back. */
static void b_is_current_and_absent(void **state) {
  (void)state;
  a_by_force_and_b_is_copied_over();
  assert_int_equal(started(false), TARN_OK);
  assert_int_equal(world_write(&w, served_at, 4096), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  world_deactivate(&w);
  world_take_away(&w, 1);
  c_is_not_served();
}

/* Two images, and the same: what a's record calls b by is no longer there. b, of before, comes back from a backup of its disks. */
static void b_is_restored_too(void **state) {
  (void)state;
  static uint8_t data[MIB], meta[1 << 20];
  b_is_alone();
  keep(&here);
  uint64_t bytes = mirror_meta_bytes(&w.config);
  require(bytes <= sizeof meta);
  memcpy(data, w.data[1].bytes, MIB);
  memcpy(meta, w.meta[1].bytes, bytes);
  serves(0, true, 2 * 65536);
  world_activate(&w);
  world_pass(&w, 60 * NS_PER_S);
  world_check_synchronized(&w);
  assert_int_equal(world_write(&w, served_at, 4096), TARN_OK);
  world_deactivate(&w);
  memcpy(w.data[1].bytes, data, MIB);
  memcpy(w.meta[1].bytes, meta, bytes);
  put(&here);
  tarn_err err = started(false);
  if (err != TARN_OK) return;
  assert_int_equal(world_image(&w, 0).state, IMAGE_SYNCHRONIZED);
}

/* By the state directory b took part in everything, and by its own record it is of another line: one of the two is not what it seems. */
static void one_that_is_current_here_and_of_another_line_is_asked_about(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  mirror_image_failed(w.m, 1, "a test");
  world_pass(&w, 60 * NS_PER_S);
  world_bring_back(&w, 1);
  world_pass(&w, 60 * NS_PER_S);
  world_check_synchronized(&w);
  world_deactivate(&w);
  struct record own = world_record(w.meta[1].bytes);
  assert_true(own.generation.number > 1 && own.settled_number == own.generation.number);
  own.generation.id ^= 1;
  world_put_record(w.meta[1].bytes, &own);
  assert_int_equal(started(false), TARN_REFUSED);
  assert_non_null(strstr(w.why, "image b was written apart from the others"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(control),
      WORLD_TEST(one_that_is_current_here_and_of_another_line_is_asked_about),
      WORLD_TEST(b_left_again),
      WORLD_TEST(b_was_removed),
      WORLD_TEST(b_is_of_another_mirror),
      WORLD_TEST(b_was_removed_at_once),
      WORLD_TEST(the_copy_to_b_was_cut_off),
      WORLD_TEST(a_whole_mirror_starts),
      WORLD_TEST(b_was_replaced_by_a_blank_disk),
      WORLD_TEST(b_is_current_and_absent),
      WORLD_TEST(b_is_restored_too),
      WORLD_TEST(two_images_force_is_a_way_out),
      WORLD_TEST(where_b_was_served_b_is),
      WORLD_TEST(where_a_was_used_a_is),
      WORLD_TEST(one_that_comes_back_later_is_not_copied_over_either),
      WORLD_TEST(without_a_state_directory_neither_is),
      WORLD_TEST(an_old_state_directory),
      WORLD_TEST(one_that_left_whole_is_called_so),
      WORLD_TEST(one_that_did_not_go_on_comes_back),
      WORLD_TEST(one_that_knows_of_the_last_commit_comes_back),
      WORLD_TEST(an_absent_image_may_have_gone_on),
      WORLD_TEST(a_home_that_went_on_alone_confirms_nothing),
      WORLD_TEST(nor_when_the_second_image_is_the_one_that_left),
      WORLD_TEST(what_was_given_up_and_did_not_stop_may_have_gone_on),
      WORLD_TEST(an_old_state_directory_does_not_make_what_was_given_up_the_newest),
      WORLD_TEST(an_old_state_directory_keeps_no_whole_mirror_from_starting),
      WORLD_TEST(nor_does_it_make_a_third_one_the_newest),
      WORLD_TEST(where_a_is_served_an_unfinished_copy_is_not_served_instead),
      WORLD_TEST(one_whose_join_nobody_else_knows_of_comes_back),
      WORLD_TEST(one_that_was_being_copied_to_comes_back),
      WORLD_TEST(nor_is_it_copied_over_what_was_answered_before_a_kill),
      WORLD_TEST(nor_is_b_where_it_was_served_and_killed),
      WORLD_TEST(one_that_was_not_assumed_after_all_comes_back),
      WORLD_TEST(an_old_state_directory_is_no_end_after_a_rollback),
  };
  return cmocka_run_group_tests_name("mirror_forked", tests, NULL, NULL);
}
