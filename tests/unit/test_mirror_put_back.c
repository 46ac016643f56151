/* A node that is put back from a backup, its state directory and its image, or a copy of a state directory, where something was cut off: what was
 * answered since is told by the generation (rule 9). */
#include "mirror_world.h"

#define MIB (1u << 20)

static uint8_t home_bytes[RECORD_AREA_BYTES], data_bytes[MIB], meta_bytes[1u << 20];

static void back_up_node(uint32_t i) {
  memcpy(home_bytes, w.home.bytes, RECORD_AREA_BYTES);
  memcpy(data_bytes, w.data[i].bytes, MIB);
  memcpy(meta_bytes, w.meta[i].bytes, mirror_meta_bytes(&w.config));
}

static void put_node_back(uint32_t i) {
  memcpy(w.home.bytes, home_bytes, RECORD_AREA_BYTES);
  memcpy(w.data[i].bytes, data_bytes, MIB);
  memcpy(w.meta[i].bytes, meta_bytes, mirror_meta_bytes(&w.config));
}

static tarn_err started(void) {
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
  return world_wait(&w);
}

static void has(uint32_t i, uint64_t at) { assert_int_equal(w.data[i].bytes[at], 0x55); }

/* Only a is here, and power is lost as that is recorded: a has the record, home has not. */
static void a_start_of_a_alone_is_cut_off(void) {
  world_take_away(&w, 1);
  w.home.holds = RAM_WRITES;
  world_die_starting(&w, (struct mirror_activation){0});
  w.home.holds = 0;
  world_give_back(&w, 1);
  struct record a = world_record(w.meta[0].bytes), home = world_record(w.home.bytes);
  assert_int_equal(a.generation.number, home.generation.number + 1);
  assert_true(a.settled_number < a.generation.number);
}

/* The generation of a start that was cut off is gone on in by two lines: by the mirror itself, and by its first node when that is put back
 * from a backup of that moment. */
static void two_lines_in_one_generation(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  world_deactivate(&w);
  a_start_of_a_alone_is_cut_off();
  back_up_node(0);
  for (uint32_t life = 0; life < 3; life++) {
    world_settle(&w);
    world_deactivate(&w);
  }
  world_activate(&w);
  mirror_image_failed(w.m, 0, "a test");
  world_pass(&w, NS_PER_S);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK); /* by b */
  world_deactivate(&w);
  put_node_back(0);
  world_take_away(&w, 1);
  assert_int_equal(started(), TARN_OK);
  assert_int_equal(world_write(&w, 65536, 4096), TARN_OK); /* by a */
  assert_int_equal(world_flush(&w), TARN_OK);
  world_deactivate(&w);
  world_give_back(&w, 1);
  if (started() == TARN_OK) {
    world_pass(&w, 20 * NS_PER_S);
    has(0, 65536);
    has(1, 0);
    assert_int_equal(world_image(&w, 0).state, IMAGE_SYNCHRONIZED); /* home's line */
    world_deactivate(&w);
  }
}

/* The same, but that a start of a alone was cut off before is not in it: what holds. */
static void two_lines_of_a_settled_generation(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  world_deactivate(&w);
  back_up_node(0);
  for (uint32_t life = 0; life < 3; life++) {
    world_settle(&w);
    world_deactivate(&w);
  }
  world_activate(&w);
  mirror_image_failed(w.m, 0, "a test");
  world_pass(&w, NS_PER_S);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_deactivate(&w);
  put_node_back(0);
  world_take_away(&w, 1);
  assert_int_equal(started(), TARN_OK);
  assert_int_equal(world_write(&w, 65536, 4096), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  world_deactivate(&w);
  world_give_back(&w, 1);
  assert_int_equal(started(), TARN_OK);
  world_pass(&w, 20 * NS_PER_S);
  has(0, 65536);
  has(1, 0);
  assert_int_equal(world_image(&w, 0).state, IMAGE_SYNCHRONIZED);
  assert_non_null(strstr(world_image(&w, 1).reason, "written apart"));
  world_deactivate(&w);
}

/* b's node, with the state directory, is put back from a backup, and serves while a is away. a comes back: it has what was answered after that
 * backup in the same generation. */
static void a_comes_back_to_a_node_that_was_put_back(bool cut_off) {
  world_begin(&w, 2, MIB);
  world_deactivate(&w);
  back_up_node(1);
  world_settle(&w);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  assert_int_equal(world_flush(&w), TARN_OK);
  world_deactivate(&w);
  if (cut_off) a_start_of_a_alone_is_cut_off();
  put_node_back(1);
  world_take_away(&w, 0);
  assert_int_equal(started(), TARN_OK);
  assert_int_equal(world_write(&w, 65536, 4096), TARN_OK);
  world_give_back(&w, 0);
  world_bring_back(&w, 0);
  world_pass(&w, 20 * NS_PER_S);
  has(0, 0);
  assert_non_null(strstr(world_image(&w, 0).reason, "written apart"));
  world_deactivate(&w);
}

static void a_is_kept(void **state) {
  (void)state;
  a_comes_back_to_a_node_that_was_put_back(false);
}

static void a_is_kept_where_a_start_of_it_was_cut_off(void **state) {
  (void)state;
  a_comes_back_to_a_node_that_was_put_back(true);
}

/* While the mirror stops a write is in flight, and a fails, so b alone has it: it is answered in a generation of which no record says that it
 * may be relied on. Then power is lost, and a is used with a copy of the state directory. */
static void what_is_answered_while_it_stops(bool stops) {
  world_begin(&w, 2, MIB);
  memcpy(home_bytes, w.home.bytes, RECORD_AREA_BYTES); /* a copy of it */
  w.data[0].holds = RAM_WRITES;
  struct client_io write;
  client_begin(&w, &write, DISK_WRITE, 0, 4096, 0x55);
  world_run(&w);
  assert_true(w.data[0].held_count > 0);
  if (stops) mirror_deactivate(w.m, false, world_done, &w);
  world_run(&w);
  w.data[0].fails = RAM_WRITES;
  w.data[0].holds = 0;
  ram_answer_all(&w.data[0]);
  while (!write.done) assert_true(event_run_one(&w.env.queue));
  assert_int_equal(write.io.err, TARN_OK);
  world_die(&w); /* power is lost */
  w.done = false;
  w.data[0].fails = 0;
  memcpy(w.home.bytes, home_bytes, RECORD_AREA_BYTES);
  world_take_away(&w, 1);
  assert_int_equal(started(), TARN_OK);
  assert_int_equal(world_write(&w, 65536, 4096), TARN_OK);
  world_deactivate(&w);
  world_give_back(&w, 1);
  assert_int_equal(started(), TARN_OK);
  world_pass(&w, 20 * NS_PER_S);
  has(1, 0); /* what was answered is shown, not copied over */
  assert_non_null(strstr(world_image(&w, 1).reason, "written apart"));
  world_deactivate(&w);
}

static void what_is_answered_as_it_stops_is_kept(void **state) {
  (void)state;
  what_is_answered_while_it_stops(true);
}

static void what_is_answered_while_it_serves_is_kept(void **state) {
  (void)state;
  what_is_answered_while_it_stops(false);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(two_lines_in_one_generation),
      WORLD_TEST(two_lines_of_a_settled_generation),
      WORLD_TEST(a_is_kept),
      WORLD_TEST(a_is_kept_where_a_start_of_it_was_cut_off),
      WORLD_TEST(what_is_answered_as_it_stops_is_kept),
      WORLD_TEST(what_is_answered_while_it_serves_is_kept),
  };
  return cmocka_run_group_tests_name("mirror_put_back", tests, NULL, NULL);
}
