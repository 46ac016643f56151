#include "base/hash.h"

#include <nettle/sha2.h>

#include "base/require.h"

_Static_assert(HASH_BYTES == SHA256_DIGEST_SIZE, "the whole digest");

void hash_sha256(const void *data, size_t bytes, uint8_t out[HASH_BYTES]) {
  require(data != NULL || bytes == 0);
  struct sha256_ctx context;
  sha256_init(&context);
  sha256_update(&context, bytes, data);
  sha256_digest(&context, HASH_BYTES, out);
}
