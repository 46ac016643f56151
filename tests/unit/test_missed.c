/* missed.h against two arrays of bools, extent by extent, over several page sectors. */
#include "core/missed.h"

#include "base/prng.h"
#include "unit.h"

#define EXTENT_BYTES 4096u
#define EXTENTS      (2 * MAP_BITS_PER_SECTOR + 500u) /* two whole page sectors, and a part of one */

static struct arena arena;
static struct geometry geometry;
static struct missed map;
static bool is_missed[EXTENTS], is_copied[EXTENTS];

static int setup_with(const struct sector_limits *limits) {
  arena_init(&arena);
  uint64_t size = (uint64_t)EXTENTS * EXTENT_BYTES;
  geometry_init(&geometry, 1, &size, 65536, EXTENT_BYTES, 16, limits);
  memset(is_missed, 0, sizeof is_missed);
  memset(is_copied, 0, sizeof is_copied);
  map = (struct missed){0};
  return missed_init(&map, &arena, &geometry, 0) == TARN_OK ? 0 : -1;
}

static int setup(void **state) {
  (void)state;
  return setup_with(NULL);
}

/* A page of the map is 64 extents, so there are many. */
static int setup_tiny(void **state) {
  (void)state;
  return setup_with(&(struct sector_limits){64, 4});
}

static int teardown(void **state) {
  (void)state;
  arena_destroy(&arena);
  return 0;
}

static void compare(void) {
  uint64_t missed = 0, copied = 0, next = geometry.extent_count;
  for (uint64_t e = EXTENTS; e-- > 0;) {
    assert_int_equal(bitmap_test(&map.missed, e), is_missed[e]);
    assert_int_equal(bitmap_test(&map.copied, e), is_copied[e]);
    missed += is_missed[e];
    copied += is_copied[e];
    if (is_missed[e] && !is_copied[e]) next = e;
    if (e % 97 == 0 || e == next) assert_int_equal(missed_next(&map, e), next);
  }
  assert_int_equal(map.missed.set_count, missed);
  assert_int_equal(map.copied.set_count, copied);
  missed_check(&map);
}

static void step(struct prng *prng) {
  uint64_t first = prng_below(prng, EXTENTS);
  uint64_t count = 1 + prng_below(prng, prng_one_in(prng, 2) ? 8 : EXTENTS - first);
  count = min_u64(count, EXTENTS - first);
  switch (prng_below(prng, 8)) {
    case 0:
    case 1: {
      bool changed = false;
      for (uint64_t e = first; e < first + count; e++) {
        changed |= !is_missed[e];
        is_missed[e] = true;
        is_copied[e] = false;
      }
      assert_int_equal(missed_set(&map, first, count), changed);
      break;
    }
    case 2:
    case 3:
    case 4:
      missed_copied(&map, first, count);
      for (uint64_t e = first; e < first + count; e++) is_copied[e] |= is_missed[e];
      break;
    case 5:
      missed_checkpoint(&map);
      for (uint64_t e = 0; e < EXTENTS; e++) {
        is_missed[e] &= !is_copied[e];
        is_copied[e] = false;
      }
      break;
    case 6:
      if (prng_one_in(prng, 4)) missed_forget_copied(&map);
      else break;
      memset(is_copied, 0, sizeof is_copied);
      break;
    default: {
      bool fresh = true, stale = true;
      for (uint64_t e = first; e < first + count; e++) {
        fresh &= !is_missed[e] || is_copied[e];
        stale &= is_missed[e] && !is_copied[e];
      }
      assert_int_equal(missed_is_fresh(&map, first, count), fresh);
      assert_int_equal(missed_is_stale(&map, first, count), stale);
    }
  }
}

static void random_steps_equal_the_model(void **state) {
  (void)state;
  for (uint64_t seed = 1; seed <= 8; seed++) {
    struct prng prng;
    prng_seed(&prng, seed);
    for (int i = 0; i < 250; i++) {
      step(&prng);
      compare();
    }
  }
}

static void at_the_edges_of_pages(void **state) {
  (void)state;
  static const uint64_t extents[] = {0, MAP_BITS_PER_SECTOR - 1, MAP_BITS_PER_SECTOR, 2 * MAP_BITS_PER_SECTOR,
                                     EXTENTS - 1};
  missed_set(&map, 0, EXTENTS); /* every page is named ... */
  missed_copied(&map, 0, EXTENTS);
  for (size_t i = 0; i < COUNT_OF(extents); i++) { /* ... and one extent is left */
    missed_set(&map, extents[i], 1);
    for (uint64_t from = 0; from <= EXTENTS; from++)
      assert_int_equal(missed_next(&map, from), from <= extents[i] ? extents[i] : geometry.extent_count);
    missed_copied(&map, extents[i], 1);
  }
}

/* What the next commit has to write: the blocks of what changed, no others. */
static void a_checkpoint_touches_what_it_changes(void **state) {
  (void)state;
  missed_set(&map, 0, EXTENTS);
  bitmap_clear_range(&map.page_dirty, 0, map.page_dirty.bit_count);
  bitmap_clear_range(&map.top_dirty, 0, map.top_dirty.bit_count);
  missed_copied(&map, 5, 10);
  assert_false(missed_is_dirty(&map)); /* nothing is durable yet */
  missed_forget_copied(&map);
  missed_checkpoint(&map);
  assert_false(missed_is_dirty(&map)); /* and nothing was copied after all */
  missed_copied(&map, 5, 10);
  missed_set(&map, 5, 10); /* missed again before the flush */
  missed_checkpoint(&map);
  assert_false(missed_is_dirty(&map));
  missed_copied(&map, 5, 10);
  missed_checkpoint(&map);
  assert_int_equal(map.page_dirty.set_count, 1);
  assert_int_equal(map.top_dirty.set_count, 0); /* its sector still has others */
  missed_copied(&map, 0, MAP_BITS_PER_SECTOR);
  missed_checkpoint(&map);
  assert_false(bitmap_test(&map.top, 0));
  assert_true(bitmap_test(&map.top, 1));
  assert_int_equal(map.top_dirty.set_count, 1);
}

/* What a store would read back of one page block: the map as it was when it was written, under that epoch. */
static void load_page_block(struct missed *to, const struct missed *from, uint64_t block) {
  uint8_t bytes[META_BLOCK_BYTES];
  const struct map_name name = {7, 0, from->epoch};
  meta_map_encode(&geometry, &name, MAP_PAGE, block, from->missed.words, from->missed.bit_count, 1, bytes);
  for (uint32_t s = 0; s < META_SECTORS_PER_BLOCK; s++)
    missed_load_sector(to, 7, MAP_PAGE, block * META_SECTORS_PER_BLOCK + s, bytes + s * SECTOR_BYTES);
}

static struct missed *map_of_epoch(uint32_t epoch) {
  static struct missed loaded;
  loaded = (struct missed){0};
  assert_int_equal(missed_init(&loaded, &arena, &geometry, 0), TARN_OK);
  loaded.epoch = epoch;
  bitmap_set_range(&loaded.top, 0, geometry.page_sectors);
  return &loaded;
}

static void everything_is_missed_without_a_page_written(void **state) {
  (void)state;
  missed_set_all(&map, 5);
  assert_int_equal(map.page_dirty.set_count, 0);
  assert_int_equal(map.top_dirty.set_count, geometry.top_blocks);
  missed_dirty_all(&map); /* nor when another store joins */
  assert_int_equal(map.page_dirty.set_count, 0);
  missed_copied(&map, 5, 10);
  missed_checkpoint(&map);
  assert_int_equal(map.page_dirty.set_count, 1); /* the first that differs from "all of it" */
  missed_dirty_all(&map);
  assert_int_equal(map.page_dirty.set_count, 1);
  missed_set_all(&map, 6);
  assert_false(bitmap_any_in(&map.page_dirty, 0, map.page_dirty.bit_count));
}

static void pages_of_another_epoch_count_as_all_of_it(void **state) {
  (void)state;
  missed_set_all(&map, 5);
  missed_copied(&map, 5, 10);
  missed_checkpoint(&map);
  struct missed *same = map_of_epoch(5);
  load_page_block(same, &map, 0);
  assert_false(missed_load_done(same));
  assert_int_equal(same->missed.set_count, geometry.extent_count - 10);
  struct missed *later = map_of_epoch(6);
  load_page_block(later, &map, 0);
  assert_true(missed_load_done(later));
  assert_int_equal(later->missed.set_count, geometry.extent_count);
  assert_int_equal(later->page_dirty.set_count, 0);
}

/* Everything of `from` as a store has it: the top, and its pages, but for those of `old`, which did not land. */
static void load_sectors(struct missed *to, const struct missed *from, const struct missed *old) {
  uint8_t bytes[META_BLOCK_BYTES];
  const struct map_name name = {7, 0, from->epoch};
  meta_map_encode(&geometry, &name, MAP_TOP, 0, from->top.words, from->top.bit_count, 1, bytes);
  missed_load_sector(to, 7, MAP_TOP, 0, bytes);
  missed_load_tops(to);
  load_page_block(to, from, 0);
  load_page_block(to, old, 0);
  assert_false(missed_load_done(to));
}

static struct missed *empty_map(void) {
  static struct missed maps[3];
  static uint32_t turn;
  struct missed *empty = &maps[turn++ % 3];
  *empty = (struct missed){0};
  assert_int_equal(missed_init(empty, &arena, &geometry, 0), TARN_OK);
  return empty;
}

/* A checkpoint clears page 0 and its top bit. The top bit lands in both copies, the page in one: power is lost. Page 1, in the
 * same block, is named and so both are read. */
static void a_page_that_its_top_denies_does_not_count(void **state) {
  (void)state;
  missed_set(&map, 10, 3);
  missed_set(&map, MAP_BITS_PER_SECTOR + 5, 2);
  struct missed *old = empty_map();
  missed_set(old, 10, 3);
  missed_set(old, MAP_BITS_PER_SECTOR + 5, 2);
  missed_copied(&map, 10, 3);
  missed_checkpoint(&map);
  struct missed *loaded = empty_map();
  load_sectors(loaded, &map, old);
  missed_check(loaded);
  assert_int_equal(loaded->missed.set_count, 2);
  assert_false(missed_is_stale(loaded, 10, 3)); /* or a write there would be left to a copy that never comes */
  missed_copied(loaded, 0, EXTENTS);
  missed_checkpoint(loaded);
  assert_int_equal(loaded->missed.set_count, 0);
}

/* The other way round: the page has landed, and its top bit has not. */
static void a_top_that_its_page_denies_does_not_count(void **state) {
  (void)state;
  missed_set(&map, 10, 3);
  struct missed *loaded = empty_map();
  missed_copied(&map, 10, 3);
  missed_checkpoint(&map);
  bitmap_set(&map.top, 0); /* as it was */
  load_sectors(loaded, &map, &map);
  missed_check(loaded);
  assert_int_equal(loaded->missed.set_count, 0);
  assert_int_equal(loaded->top.set_count, 0);
}

static void spoil_top(void *context) {
  missed_set(context, 10, 3);
  bitmap_clear(&((struct missed *)context)->top, 0);
  missed_check(context);
}
static void spoil_page(void *context) {
  bitmap_set(&((struct missed *)context)->top, 1);
  missed_check(context);
}
static void spoil_copied(void *context) {
  bitmap_set(&((struct missed *)context)->copied, 10);
  missed_check(context);
}

static void the_check_sees_what_does_not_agree(void **state) {
  (void)state;
  assert_true(panics(spoil_top, empty_map()));
  assert_true(panics(spoil_page, empty_map()));
  assert_true(panics(spoil_copied, empty_map()));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(everything_is_missed_without_a_page_written, setup, teardown),
      cmocka_unit_test_setup_teardown(pages_of_another_epoch_count_as_all_of_it, setup, teardown),
      cmocka_unit_test_setup_teardown(a_page_that_its_top_denies_does_not_count, setup, teardown),
      cmocka_unit_test_setup_teardown(a_top_that_its_page_denies_does_not_count, setup, teardown),
      cmocka_unit_test_setup_teardown(the_check_sees_what_does_not_agree, setup, teardown),
      cmocka_unit_test_setup_teardown(random_steps_equal_the_model, setup, teardown),
      cmocka_unit_test_setup_teardown(random_steps_equal_the_model, setup_tiny, teardown),
      cmocka_unit_test_setup_teardown(at_the_edges_of_pages, setup, teardown),
      cmocka_unit_test_setup_teardown(a_checkpoint_touches_what_it_changes, setup, teardown),
  };
  return cmocka_run_group_tests_name("missed", tests, NULL, NULL);
}
