/* crc32c.c - CRC-32C by isa-l (which picks the fastest code for this CPU), and once more written out. */
#include "base/crc32c.h"

#include <isa-l/crc.h>

#include "base/require.h"

#define CHUNK_BYTES (1u << 30) /* isa-l takes the length as an int */

uint32_t crc32c(const void *data, size_t bytes) {
  require(data != NULL || bytes == 0);
  const uint8_t *at = data;
  uint32_t crc = UINT32_MAX; /* isa-l neither sets the initial value nor inverts the final one */
  while (bytes > 0) {
    int chunk = (int)min_u64(bytes, CHUNK_BYTES);
    crc = crc32_iscsi((unsigned char *)(uintptr_t)at, chunk, crc); /* it only reads; its prototype forgot to say so */
    at += chunk;
    bytes -= (size_t)chunk;
  }
  return ~crc;
}

uint32_t crc32c_portable(const void *data, size_t bytes) {
  require(data != NULL || bytes == 0);
  const uint8_t *at = data;
  uint32_t crc = UINT32_MAX;
  for (size_t i = 0; i < bytes; i++) {
    crc ^= at[i];
    for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ ((crc & 1) ? 0x82f63b78u : 0);
  }
  return ~crc;
}
