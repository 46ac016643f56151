/* An image that was taken as equal, and that cannot be recorded. */
#include "mirror_world.h"

#define MIB (1u << 20)

/* b is taken as equal, and in the round that says so a, which was the only good one, and home fail. One of the two is good. */
static void an_image_that_was_assumed_is_not_taken_back_when_it_is_the_last(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  w.config.images[1].policy.return_by_itself = false;
  mirror_set_policy(w.m, 1, &w.config.images[1].policy);
  mirror_image_failed(w.m, 1, "a test");
  world_pass(&w, NS_PER_S);
  world_deactivate(&w);
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){.quiet = true}, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  w.home.holds = RAM_WRITES;
  mirror_image_do(w.m, 1, IMAGE_OP_ASSUME, false, world_done, &w);
  for (uint32_t slot = 0; slot < 4; slot++) {
    world_run(&w);
    ram_answer(&w.home);
  }
  w.home.fails = w.meta[0].fails = RAM_WRITES;
  world_run(&w);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
  ram_release(&w.home);
  (void)world_wait(&w);
  w.home.fails = w.meta[0].fails = 0;
  world_pass(&w, 5 * NS_PER_S);
  assert_true(world_image(&w, 0).state == IMAGE_SYNCHRONIZED || world_image(&w, 1).state == IMAGE_SYNCHRONIZED);
  world_deactivate(&w);
  world_activate(&w);
}

/* The mirror is INACTIVE, and open for an operation. b's disk has hung, and b is out: it has writes of ours still, which may land at any
 * time (rule 7). */
static void an_image_whose_disk_hangs_is_not_assumed(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK);
  world_die(&w);
  w.config.images[1].policy.return_by_itself = false;
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){.quiet = true}, world_done, &w);
  w.data[1].holds = RAM_WRITES; /* of the recovery */
  assert_int_equal(world_wait(&w), TARN_OK);
  world_pass(&w, 40 * NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_UNSYNCHRONIZED);
  assert_true(world_image(&w, 1).io_held > 0);
  mirror_image_do(w.m, 1, IMAGE_OP_ASSUME, false, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_REFUSED);
  assert_string_equal(w.why, "a disk of image b does not answer, and may still do what it was asked");
  assert_int_equal(world_image(&w, 1).state, IMAGE_UNSYNCHRONIZED);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(an_image_that_was_assumed_is_not_taken_back_when_it_is_the_last),
      WORLD_TEST(an_image_whose_disk_hangs_is_not_assumed),
  };
  return cmocka_run_group_tests_name("mirror_assumed", tests, NULL, NULL);
}
