/* The simulated disk keeps what it must and loses what it may. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "sim/medium.h"

#define SIZE   65536u
#define ROUNDS 200

static struct world world;

static struct medium *fresh(uint64_t seed, bool volatile_cache) {
  world_init(&world, seed);
  return medium_new(&world, "disk", 0, SIZE, volatile_cache);
}

static void put(struct medium *medium, uint8_t value, bool fua) {
  uint8_t data[SIZE];
  memset(data, value, sizeof data);
  medium_write(medium, 0, SIZE, data, fua);
}

/* The set of values found in all sectors, as bits; a sector of two values fails. */
static uint32_t values(const struct medium *medium) {
  uint8_t data[SIZE];
  uint32_t set = 0;
  medium_read(medium, 0, SIZE, data);
  for (uint32_t at = 0; at < SIZE; at += MEDIUM_SECTOR) {
    for (uint32_t i = 0; i < MEDIUM_SECTOR; i++) assert_int_equal(data[at], data[at + i]);
    set |= 1u << data[at];
  }
  return set;
}

enum { W1 = '1', W2, W3, FUA4, FLUSH = 'F', FLUSH_FAILS = 'X', MARK = 'm', FLUSH_MARKED = 'f' };
static const struct {
  const char *why, *story;
  bool volatile_cache;
  uint32_t seen;  /* before the power loss */
  uint32_t after; /* all of these occur in 200 power losses, and nothing else */
} rows[] = {
    {"unflushed is old or new", "1", true, 1u << 1, 1u << 0 | 1u << 1},
    {"without a cache it is new", "1", false, 1u << 1, 1u << 1},
    {"any version since the durable one", "123", true, 1u << 3, 15},
    {"flushed stays", "12F", true, 1u << 2, 1u << 2},
    {"written after the flush: from the flushed one on", "1F23", true, 1u << 3, 14},
    {"FUA is durable at once", "14", true, 1u << 4, 1u << 4},
    {"a flush covers what was there when it was submitted", "1m2f", true, 1u << 2, 1u << 1 | 1u << 2},
    {"and it does so however often that is overwritten meanwhile", "1m23232323232323f", true, 1u << 3, 14},
    {"a failed flush saves some, and a good one does not save the rest", "1XF", true, 1u << 1, 1u << 0 | 1u << 1},
    {"written again after a failed flush, a good one saves it", "1X2F", true, 1u << 2, 1u << 2},
};

static void tell(struct medium *medium, const char *story) {
  uint32_t mark = 0;
  for (const char *c = story; *c; c++) {
    switch (*c) {
      case FLUSH: medium_flush_done(medium, medium_flush_mark(medium)); break;
      case FLUSH_FAILS: medium_flush_failed(medium, medium_flush_mark(medium)); break;
      case MARK: mark = medium_flush_mark(medium); break;
      case FLUSH_MARKED: medium_flush_done(medium, mark); break;
      default: put(medium, (uint8_t)(*c - '0'), *c == FUA4);
    }
  }
}

static void test_power_loss(void **state) {
  (void)state;
  for (size_t row = 0; row < COUNT_OF(rows); row++) {
    uint32_t after = 0;
    for (uint64_t seed = 0; seed < ROUNDS; seed++) {
      struct medium *medium = fresh(seed, rows[row].volatile_cache);
      tell(medium, rows[row].story);
      if (values(medium) != rows[row].seen) fail_msg("%s: %s", rows[row].story, rows[row].why);
      (void)medium_power_loss(medium);
      uint32_t once = values(medium);
      (void)medium_power_loss(medium);
      assert_int_equal(values(medium), once); /* what is there after a power loss is durable */
      after |= once;
      world_destroy(&world);
    }
    if (after != rows[row].after)
      fail_msg("%s: %s: %x, not %x", rows[row].story, rows[row].why, after, rows[row].after);
  }
}

static void test_torn_write(void **state) {
  (void)state;
  uint32_t whole = 0, none = 0, torn = 0;
  for (uint64_t seed = 0; seed < ROUNDS; seed++) {
    struct medium *medium = fresh(seed, true);
    uint8_t data[SIZE];
    memset(data, 1, sizeof data);
    bool said = medium_write_torn(medium, 0, SIZE, data, false);
    uint32_t set = values(medium);
    assert_int_equal(said, set == 3);
    whole += set == 2;
    none += set == 1;
    torn += set == 3;
    world_destroy(&world);
  }
  assert_true(whole > 0 && none > 0 && torn > 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_power_loss), cmocka_unit_test(test_torn_write)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
