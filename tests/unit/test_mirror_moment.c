/* What an image keeps that was fractured, until it is recorded that it comes back. */
#include "mirror_world.h"

#define MIB (1u << 20)

/* The mirror falls while b is on its way back, and the record of that has not been begun. A write that waits for its mark is done all
 * the same, but not on b: if the process dies now, b is recorded as what it was when it was cut off. */
static void a_fall_writes_nothing_to_an_image_that_is_not_recorded_as_back(void **state) {
  (void)state;
  struct client_io write;
  world_begin(&w, 2, MIB);
  mirror_image_do(w.m, 1, IMAGE_OP_FRACTURE, false, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  assert_int_equal(world_image(&w, 1).state, IMAGE_CONSISTENT);
  world_pass(&w, 10 * NS_PER_S);
  mirror_image_do(w.m, 1, IMAGE_OP_RESTORE, false, world_done, &w);
  for (uint32_t step = 0; step < 1000 && !(w.reopened & 1u << 1); step++) world_pass(&w, NS_PER_MS);
  w.meta[0].holds = RAM_WRITES;
  client_begin(&w, &write, DISK_WRITE, 5 * 65536, 4096, 0x77);
  world_run(&w);
  assert_true(w.meta[0].held_count > 0); /* of the write's mark */
  mirror_image_reopened(w.m, 1, &w.config.images[1]);
  world_run(&w); /* it is on line, and the next round will say so */
  mirror_image_failed(w.m, 0, "a test");
  assert_true(mirror_has_fallen(w.m));
  assert_int_equal(world_wait(&w), TARN_REFUSED);                /* "the mirror stopped meanwhile" */
  w.data[0].holds = w.meta[1].holds = w.home.holds = RAM_WRITES; /* the round that says that b is back does not end */
  while (w.meta[0].held_count > 0 && w.data[0].held_count == 0) {
    ram_answer(&w.meta[0]);
    world_run(&w);
  }
  uint8_t found = w.data[1].bytes[5 * 65536];
  world_die(&w);
  w.data[0].holds = w.meta[0].holds = w.meta[1].holds = w.home.holds = 0;
  w.config.images[0].data[0] = NULL, w.config.images[0].meta = NULL; /* a is lost */
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){.force = true}, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  assert_non_null(strstr(w.why, "image b is used, as it was when it left"));
  assert_int_not_equal(found, 0x77);
}

/* The same at a clean stop: the next activation copies to it. */
static void a_stop_writes_nothing_to_an_image_that_is_not_recorded_as_back(void **state) {
  (void)state;
  struct client_io write;
  world_begin(&w, 2, MIB);
  mirror_image_failed(w.m, 1, "a test");
  world_pass(&w, 10 * NS_PER_S);
  for (uint32_t step = 0; step < 1000 && !(w.reopened & 1u << 1); step++) world_pass(&w, NS_PER_S / 10);
  w.meta[0].holds = RAM_WRITES;
  client_begin(&w, &write, DISK_WRITE, 5 * 65536, 4096, 0x77);
  world_run(&w);
  assert_true(w.meta[0].held_count > 0); /* of the write's mark */
  mirror_image_reopened(w.m, 1, &w.config.images[1]);
  world_run(&w); /* it is on line, and the next round will say so */
  w.done = false;
  mirror_deactivate(w.m, false, world_done, &w);
  w.data[0].holds = RAM_WRITES;
  while (w.meta[0].held_count > 0 && w.data[0].held_count == 0) {
    ram_answer(&w.meta[0]);
    world_run(&w);
  }
  assert_int_equal(w.data[0].held_count, 1);
  assert_int_not_equal(w.data[1].bytes[5 * 65536], 0x77);
  ram_release(&w.meta[0]);
  ram_release(&w.data[0]);
  assert_int_equal(world_wait(&w), TARN_OK);
  assert_int_equal(write.io.err, TARN_OK);
  world_close(&w);
  world_activate(&w);
  world_pass(&w, 20 * NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
  assert_int_equal(w.data[1].bytes[5 * 65536], 0x77);
  world_deactivate(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(a_fall_writes_nothing_to_an_image_that_is_not_recorded_as_back),
      WORLD_TEST(a_stop_writes_nothing_to_an_image_that_is_not_recorded_as_back),
  };
  return cmocka_run_group_tests_name("mirror_moment", tests, NULL, NULL);
}
