/* require.h - assertions that stay on in release builds.
 *
 * require() is for our own mistakes: the process stops, loudly, before it can harm data. The outside world (a disk, a
 * peer, a client, an administrator) never trips one: its failures are a tarn_err. */
#ifndef TARN_BASE_REQUIRE_H
#define TARN_BASE_REQUIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Prints the broken promise on standard error and aborts. */
__attribute__((noreturn, cold)) void tarn_panic(const char *what, const char *file, int line);

#define require(c)                                                     \
  do {                                                                 \
    if (__builtin_expect(!(c), 0)) tarn_panic(#c, __FILE__, __LINE__); \
  } while (0)

#define implies(p, c) (!(p) || (c))

#define CONTAINER_OF(pointer, type, member) ((type *)(void *)((char *)(pointer)-offsetof(type, member)))
#define COUNT_OF(array)                     (sizeof(array) / sizeof((array)[0]))

static inline uint64_t align_down(uint64_t value, uint64_t unit) {
  return (unit & (unit - 1)) == 0 ? value & ~(unit - 1) : value - value % unit; /* a division costs as much as a call */
}
static inline uint64_t align_up(uint64_t value, uint64_t unit) { return align_down(value + unit - 1, unit); }
static inline uint64_t min_u64(uint64_t a, uint64_t b) { return a < b ? a : b; }
static inline uint64_t max_u64(uint64_t a, uint64_t b) { return a > b ? a : b; }
static inline bool is_power_of_two(uint64_t value) { return value != 0 && (value & (value - 1)) == 0; }
/* value / unit, for a unit that is a power of two. */
static inline uint64_t div_power(uint64_t value, uint64_t unit) { return value >> __builtin_ctzll(unit); }

#endif
