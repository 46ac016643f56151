/* prng.c - xoshiro256** (Blackman and Vigna, 2018), seeded by splitmix64. */
#include "base/prng.h"

#define SPLITMIX_STEP 0x9e3779b97f4a7c15ull

uint64_t mix_u64(uint64_t value) {
  value += SPLITMIX_STEP;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
  return value ^ (value >> 31);
}

static uint64_t rotate_left(uint64_t value, unsigned bits) {
  require(bits > 0 && bits < 64);
  return (value << bits) | (value >> (64 - bits));
}

void prng_seed(struct prng *prng, uint64_t seed) {
  for (unsigned i = 0; i < COUNT_OF(prng->state); i++) {
    prng->state[i] = mix_u64(seed);
    seed += SPLITMIX_STEP;
  }
  /* All zero is the one state that it never leaves; splitmix64 gives no four zeroes in a row. */
  require((prng->state[0] | prng->state[1] | prng->state[2] | prng->state[3]) != 0);
}

uint64_t prng_next(struct prng *prng) {
  uint64_t *s = prng->state;
  uint64_t result = rotate_left(s[1] * 5, 7) * 9;
  uint64_t shifted = s[1] << 17;
  s[2] ^= s[0];
  s[3] ^= s[1];
  s[1] ^= s[2];
  s[0] ^= s[3];
  s[2] ^= shifted;
  s[3] = rotate_left(s[3], 45);
  return result;
}

uint64_t prng_below(struct prng *prng, uint64_t bound) {
  require(bound > 0);
  /* The numbers below `rest` = 2^64 mod bound would make small results likelier: draw again. */
  uint64_t rest = (0 - bound) % bound;
  uint64_t value;
  do value = prng_next(prng);
  while (value < rest);
  return value % bound;
}

bool prng_one_in(struct prng *prng, uint64_t n) {
  require(n > 0);
  return prng_below(prng, n) == 0;
}
