/* prng.h - a small, seeded, reproducible generator: xoshiro256** by Blackman and Vigna (2018), seeded by splitmix64.
 * Not for secrets. The same seed gives the same numbers on every machine. */
#ifndef TARN_BASE_PRNG_H
#define TARN_BASE_PRNG_H

#include "base/require.h"

struct prng {
  uint64_t state[4];
};

void prng_seed(struct prng *prng, uint64_t seed);
uint64_t prng_next(struct prng *prng);
/* Uniform in [0, bound); bound > 0. */
uint64_t prng_below(struct prng *prng, uint64_t bound);
/* True once in `n` on average; n > 0. */
bool prng_one_in(struct prng *prng, uint64_t n);
/* splitmix64's mixing step: a good hash of one word. */
uint64_t mix_u64(uint64_t value);

#endif
