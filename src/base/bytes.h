/* bytes.h - the one bounded reader and writer for everything that is on a disk or a wire.
 *
 * A reader or writer that runs past its end, or is given a value out of bounds, becomes `bad` and stays so; reads then
 * return zeroes and writes do nothing. A codec therefore checks once, at its end. No pointer leaves the buffer. */
#ifndef TARN_BASE_BYTES_H
#define TARN_BASE_BYTES_H

#include "base/require.h"

struct reader {
  const uint8_t *at, *end;
  bool bad;
};
struct writer {
  uint8_t *start, *at, *end;
  bool bad;
};

void reader_init(struct reader *reader, const void *data, size_t bytes);
size_t reader_left(const struct reader *reader);
void reader_skip(struct reader *reader, size_t bytes);
void get_bytes(struct reader *reader, void *out, size_t bytes);
/* Fixed-size field of `bytes` bytes holding a NUL-padded text; `out` has room for bytes + 1. Bytes after the first NUL
 * that are not NUL make it bad. */
void get_text(struct reader *reader, char *out, size_t bytes);
uint8_t get_u8(struct reader *reader);
uint16_t get_le16(struct reader *reader);
uint32_t get_le32(struct reader *reader);
uint64_t get_le64(struct reader *reader);
uint16_t get_be16(struct reader *reader);
uint32_t get_be32(struct reader *reader);
uint64_t get_be64(struct reader *reader);

void writer_init(struct writer *writer, void *data, size_t bytes);
size_t writer_used(const struct writer *writer);
void put_zeroes(struct writer *writer, size_t bytes);
void put_bytes(struct writer *writer, const void *data, size_t bytes);
/* NUL-padded; a text longer than the field makes it bad. */
void put_text(struct writer *writer, const char *text, size_t bytes);
void put_u8(struct writer *writer, uint8_t value);
void put_le16(struct writer *writer, uint16_t value);
void put_le32(struct writer *writer, uint32_t value);
void put_le64(struct writer *writer, uint64_t value);
void put_be16(struct writer *writer, uint16_t value);
void put_be32(struct writer *writer, uint32_t value);
void put_be64(struct writer *writer, uint64_t value);

#endif
