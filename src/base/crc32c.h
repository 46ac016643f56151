/* crc32c.h - CRC-32C (Castagnoli), reflected, initial and final value 0xffffffff: RFC 3720 appendix B.4.
 * By isa-l; crc32c_portable() is the same function written out, for the cross-check in the tests. */
#ifndef TARN_BASE_CRC32C_H
#define TARN_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

uint32_t crc32c(const void *data, size_t bytes);
uint32_t crc32c_portable(const void *data, size_t bytes);

#endif
