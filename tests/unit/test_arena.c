/* Memory that is sized once: zeroed, aligned, counted, and refused after the freeze. */
#include "base/arena.h"

#include "base/prng.h"
#include "unit.h"

static void pieces_are_zeroed_aligned_and_apart(void **state) {
  (void)state;
  static const struct {
    const char *why;
    size_t bytes, align;
  } rows[] = {
      {"one byte", 1, 1},
      {"a struct", 24, 8},
      {"what a direct I/O needs", 4096, 4096},
      {"nothing at all", 0, 8},
      {"exactly a chunk", 64 * 1024, 8},
      {"more than a chunk gets one of its own", 300 * 1024, 4096},
      {"small again after a large one", 10, 1},
  };
  struct arena arena;
  arena_init(&arena);
  size_t total = 0;
  uint8_t *pieces[COUNT_OF(rows)];
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    pieces[i] = arena_take(&arena, rows[i].bytes, rows[i].align);
    row_true(rows[i].why, pieces[i] != NULL);
    row_true(rows[i].why, (uintptr_t)pieces[i] % rows[i].align == 0);
    for (size_t at = 0; at < rows[i].bytes; at++) row_true(rows[i].why, pieces[i][at] == 0);
    memset(pieces[i], (int)i + 1, rows[i].bytes);
    total += rows[i].bytes;
    assert_int_equal(arena.bytes, total);
  }
  for (size_t i = 0; i < COUNT_OF(rows); i++)
    for (size_t at = 0; at < rows[i].bytes; at++) row_true(rows[i].why, pieces[i][at] == i + 1);
  arena_destroy(&arena);
  assert_int_equal(arena.bytes, 0);
  assert_null(arena.chunks);
}

static void many_random_pieces_do_not_overlap(void **state) {
  (void)state;
  enum { COUNT = 2000 };
  static struct {
    uint8_t *at;
    size_t bytes;
  } pieces[COUNT];
  struct arena arena;
  arena_init(&arena);
  struct prng prng;
  prng_seed(&prng, 1);
  for (size_t i = 0; i < COUNT; i++) {
    pieces[i].bytes = (size_t)prng_below(&prng, prng_one_in(&prng, 50) ? 200000 : 300);
    pieces[i].at = arena_take(&arena, pieces[i].bytes, (size_t)1 << prng_below(&prng, 13));
    assert_non_null(pieces[i].at);
    memset(pieces[i].at, (int)(i % 251), pieces[i].bytes);
  }
  for (size_t i = 0; i < COUNT; i++)
    for (size_t at = 0; at < pieces[i].bytes; at++) assert_int_equal(pieces[i].at[at], i % 251);
  arena_destroy(&arena);
}

static void what_cannot_be_had_is_null(void **state) {
  (void)state;
  struct arena arena;
  arena_init(&arena);
  assert_null(arena_take(&arena, SIZE_MAX, 1));
  assert_null(arena_take(&arena, SIZE_MAX / 2, 4096));
  assert_int_equal(arena.bytes, 0);
  assert_non_null(arena_take(&arena, 8, 8)); /* and it still works */
  arena_destroy(&arena);
}

static size_t hidden;
static void hide(void *pages, size_t bytes) {
  assert_int_equal((uintptr_t)pages % ARENA_PAGE_BYTES, 0);
  hidden += bytes;
}

/* What is aligned to a page, and whole pages of it. */
static void pages_for_data_are_hidden(void **state) {
  (void)state;
  struct arena arena;
  arena_init(&arena);
  arena.hide = hide;
  hidden = 0;
  assert_non_null(arena_take(&arena, 8192, 8));
  assert_int_equal(hidden, 0);
  assert_non_null(arena_take(&arena, 8192, ARENA_PAGE_BYTES));
  assert_int_equal(hidden, 8192);
  assert_non_null(arena_take(&arena, 300001, ARENA_PAGE_BYTES));
  assert_int_equal(hidden, 8192 + 74 * 4096);
  arena_destroy(&arena);
}

static void take(void *arena) { (void)arena_take(arena, 1, 1); }
static void freeze(void *arena) { arena_freeze(arena); }
static void take_odd(void *arena) { (void)arena_take(arena, 1, 3); }
static void take_wide(void *arena) { (void)arena_take(arena, 1, 8192); }

static void a_frozen_arena_gives_nothing(void **state) {
  (void)state;
  struct arena arena;
  arena_init(&arena);
  assert_true(panics(take_odd, &arena));
  assert_true(panics(take_wide, &arena));
  assert_false(panics(take, &arena));
  arena_freeze(&arena);
  assert_true(panics(take, &arena));
  assert_true(panics(freeze, &arena));
  arena_destroy(&arena);
  assert_false(panics(take, &arena)); /* it is as new */
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(pieces_are_zeroed_aligned_and_apart), cmocka_unit_test(many_random_pieces_do_not_overlap),
      cmocka_unit_test(what_cannot_be_had_is_null),          cmocka_unit_test(pages_for_data_are_hidden),
      cmocka_unit_test(a_frozen_arena_gives_nothing),
  };
  return cmocka_run_group_tests_name("arena", tests, NULL, NULL);
}
