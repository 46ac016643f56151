/* hash.h - SHA-256 (FIPS 180-4), by nettle: for comparing blocks where agreeing by chance must be out of the question. */
#ifndef TARN_BASE_HASH_H
#define TARN_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define HASH_BYTES 32u

void hash_sha256(const void *data, size_t bytes, uint8_t out[HASH_BYTES]);

#endif
