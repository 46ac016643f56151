/* What is told of an image once, while it is out for a moment, and cannot be acted upon then. */
#include "mirror_world.h"

#define MIB (1u << 20)

/* Its file is removed while it is read for the first time. That is told once, and it must not come back as if nothing were. */
static void one_that_is_gone_on_its_way_back_does_not_come(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  mirror_image_failed(w.m, 1, "a test");
  w.data[1].holds = RAM_READS;
  world_bring_back(&w, 1);
  world_run(&w);
  assert_int_equal(w.data[1].held_count, 1);
  mirror_image_failed(w.m, 1, "its file was removed");
  ram_release(&w.data[1]);
  world_pass(&w, 10 * NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_UNSYNCHRONIZED);
}

/* The same of one that was made shorter: what it holds counts no more, and the next try opens it anew. */
static void one_that_is_spoiled_on_its_way_back_comes_later_and_is_copied_in_full(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  assert_int_equal(world_write(&w, 0, 65536), TARN_OK);
  mirror_image_failed(w.m, 1, "a test");
  w.data[1].holds = RAM_READS;
  world_bring_back(&w, 1);
  world_run(&w);
  assert_int_equal(w.data[1].held_count, 1);
  memset(w.data[1].bytes, 0, MIB);
  mirror_image_spoiled(w.m, 1, "its file was made shorter");
  ram_release(&w.data[1]);
  world_pass(&w, NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_UNSYNCHRONIZED);
  world_pass(&w, 60 * NS_PER_S); /* it has to wait for longer now */
  world_bring_back(&w, 1);       /* what was told was of the disks of before */
  world_pass(&w, 10 * NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
  assert_memory_equal(w.data[0].bytes, w.data[1].bytes, MIB);
}

/* b's file is made shorter while its removal is being recorded, and that fails: it is not in again as if nothing were. */
static void an_image_that_is_spoiled_while_it_is_removed_is_not_good(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  world_pass(&w, 20 * NS_PER_S); /* no region is marked any more */
  world_begin_removal(&w, 1, false);
  memset(w.data[1].bytes + MIB / 2, 0, MIB / 2);
  mirror_image_spoiled(w.m, 1, "its file was made shorter");
  w.home.fails = RAM_WRITES;
  ram_release(&w.home);
  assert_int_equal(world_wait(&w), TARN_IO);
  w.home.fails = 0;
  world_pass(&w, 20 * NS_PER_S);
  struct mirror_image_status b = world_image(&w, 1);
  assert_true(b.state != IMAGE_SYNCHRONIZED || memcmp(w.data[0].bytes, w.data[1].bytes, MIB) == 0);
}

/* The same of one whose file is removed while it is being fractured: what is told once must not be forgotten. */
static void an_image_that_is_gone_while_it_is_fractured_is_not_good(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  w.home.holds = RAM_WRITES;
  mirror_image_do(w.m, 1, IMAGE_OP_FRACTURE, false, world_done, &w);
  for (uint32_t slot = 0; slot < 2; slot++) {
    world_run(&w);
    ram_answer(&w.home);
  }
  world_run(&w);
  assert_true(world_said(&w, "is fractured"));
  mirror_image_failed(w.m, 1, "its file was removed");
  w.home.fails = RAM_WRITES;
  ram_release(&w.home);
  assert_int_equal(world_wait(&w), TARN_IO);
  w.home.fails = 0;
  world_pass(&w, 20 * NS_PER_S);
  assert_int_not_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
}

/* Nobody may take it as equal: its disks are those of the file that is gone. */
static void one_that_is_gone_is_not_assumed(void **state) {
  (void)state;
  world_begin(&w, 2, MIB);
  w.config.images[1].policy.return_by_itself = false;
  world_deactivate(&w);
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){.quiet = true}, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  mirror_image_failed(w.m, 1, "its file was removed");
  world_pass(&w, NS_PER_S);
  mirror_image_do(w.m, 1, IMAGE_OP_ASSUME, false, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_REFUSED);
  assert_non_null(strstr(w.why, "its file was removed"));
  assert_int_equal(world_image(&w, 1).state, IMAGE_UNSYNCHRONIZED);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(one_that_is_gone_on_its_way_back_does_not_come),
      WORLD_TEST(one_that_is_spoiled_on_its_way_back_comes_later_and_is_copied_in_full),
      WORLD_TEST(an_image_that_is_spoiled_while_it_is_removed_is_not_good),
      WORLD_TEST(an_image_that_is_gone_while_it_is_fractured_is_not_good),
      WORLD_TEST(one_that_is_gone_is_not_assumed),
  };
  return cmocka_run_group_tests_name("mirror_told_once", tests, NULL, NULL);
}
