/* fuzz.h - what a fuzz target is: one function that libFuzzer, or replay.c, calls with bytes of its choice. It holds its
 * property with require(), so that a broken one stops the process. */
#ifndef TARN_TESTS_FUZZ_H
#define TARN_TESTS_FUZZ_H

#include "base/require.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

#endif
