/* intent.h: what is made of the logs that activation finds. */
#include "core/intent.h"

#include "unit.h"

#define REGION_BYTES 65536u

/* Of two copies of a sector the newer counts, in whichever order they are found. */
static void of_each_sector_the_newest_copy_counts(void **state) {
  (void)state;
  for (uint32_t newest = 0; newest < 2; newest++) {
    struct arena arena;
    struct geometry geometry;
    struct intent intent = {0};
    uint64_t size = 64 * REGION_BYTES;
    arena_init(&arena);
    geometry_init(&geometry, 1, &size, REGION_BYTES, 4096, 16, NULL);
    assert_int_equal(intent_init(&intent, &arena, &geometry), TARN_OK);
    for (uint64_t sector = 0; sector < intent.loaded.bit_count; sector++) {
      for (uint32_t copy = 0; copy < 2; copy++) {
        uint32_t entries[LOG_ENTRIES_PER_SECTOR] = {0};
        if (sector == 0) entries[3] = copy == newest ? 8 : 6; /* regions 7 and 5 */
        intent_load_sector(&intent, sector, copy == newest ? 21 : 20, entries);
      }
    }
    assert_true(intent_load_done(&intent, 1, 0));
    intent_check(&intent);
    assert_int_equal(intent.used_count, 1);
    assert_int_equal(intent_find(&intent, 7), 3); /* in its old slot */
    arena_destroy(&arena);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(of_each_sector_the_newest_copy_counts)};
  return cmocka_run_group_tests_name("intent", tests, NULL, NULL);
}
