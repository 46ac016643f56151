/* bytes.c - all multi-byte values go through two loops, one per byte order; the compiler turns them into single moves. */
#include "base/bytes.h"

#include <string.h>

/* ---- reading ---- */

void reader_init(struct reader *reader, const void *data, size_t bytes) {
  require(data != NULL || bytes == 0);
  *reader = (struct reader){.at = data, .end = data ? (const uint8_t *)data + bytes : NULL};
}

size_t reader_left(const struct reader *reader) {
  require(reader->at <= reader->end);
  return (size_t)(reader->end - reader->at);
}

/* The next `bytes` bytes, or NULL and bad. */
static const uint8_t *take(struct reader *reader, size_t bytes) {
  if (reader->bad || reader_left(reader) < bytes) {
    reader->bad = true;
    return NULL;
  }
  const uint8_t *at = reader->at;
  if (bytes > 0) reader->at += bytes;
  return at;
}

void reader_skip(struct reader *reader, size_t bytes) { (void)take(reader, bytes); }

void get_bytes(struct reader *reader, void *out, size_t bytes) {
  if (bytes == 0) return;
  const uint8_t *at = take(reader, bytes);
  if (at) memcpy(out, at, bytes);
  else memset(out, 0, bytes);
}

void get_text(struct reader *reader, char *out, size_t bytes) {
  get_bytes(reader, out, bytes);
  out[bytes] = 0;
  for (size_t i = strlen(out); i < bytes; i++)
    if (out[i] != 0) reader->bad = true;
  if (reader->bad) memset(out, 0, bytes);
}

static uint64_t get_le(struct reader *reader, size_t bytes) {
  const uint8_t *at = take(reader, bytes);
  uint64_t value = 0;
  for (size_t i = 0; at && i < bytes; i++) value |= (uint64_t)at[i] << (8 * i);
  return value;
}

static uint64_t get_be(struct reader *reader, size_t bytes) {
  const uint8_t *at = take(reader, bytes);
  uint64_t value = 0;
  for (size_t i = 0; at && i < bytes; i++) value = value << 8 | at[i];
  return value;
}

uint8_t get_u8(struct reader *reader) { return (uint8_t)get_le(reader, 1); }
uint16_t get_le16(struct reader *reader) { return (uint16_t)get_le(reader, 2); }
uint32_t get_le32(struct reader *reader) { return (uint32_t)get_le(reader, 4); }
uint64_t get_le64(struct reader *reader) { return get_le(reader, 8); }
uint16_t get_be16(struct reader *reader) { return (uint16_t)get_be(reader, 2); }
uint32_t get_be32(struct reader *reader) { return (uint32_t)get_be(reader, 4); }
uint64_t get_be64(struct reader *reader) { return get_be(reader, 8); }

/* ---- writing ---- */

void writer_init(struct writer *writer, void *data, size_t bytes) {
  require(data != NULL || bytes == 0);
  *writer = (struct writer){.start = data, .at = data, .end = data ? (uint8_t *)data + bytes : NULL};
}

size_t writer_used(const struct writer *writer) {
  require(writer->start <= writer->at);
  return (size_t)(writer->at - writer->start);
}

/* Room for the next `bytes` bytes, or NULL and bad. */
static uint8_t *reserve(struct writer *writer, size_t bytes) {
  require(writer->at <= writer->end);
  if (writer->bad || (size_t)(writer->end - writer->at) < bytes) {
    writer->bad = true;
    return NULL;
  }
  uint8_t *at = writer->at;
  if (bytes > 0) writer->at += bytes;
  return at;
}

void put_zeroes(struct writer *writer, size_t bytes) {
  uint8_t *at = reserve(writer, bytes);
  if (at) memset(at, 0, bytes);
}

void put_bytes(struct writer *writer, const void *data, size_t bytes) {
  uint8_t *at = reserve(writer, bytes);
  if (at && bytes > 0) memcpy(at, data, bytes);
}

void put_text(struct writer *writer, const char *text, size_t bytes) {
  size_t length = strlen(text);
  if (length > bytes) {
    writer->bad = true;
    return;
  }
  uint8_t *at = reserve(writer, bytes);
  if (!at) return;
  memset(at, 0, bytes);
  memcpy(at, text, length);
}

static void put_le(struct writer *writer, uint64_t value, size_t bytes) {
  uint8_t *at = reserve(writer, bytes);
  for (size_t i = 0; at && i < bytes; i++) at[i] = (uint8_t)(value >> (8 * i));
}

static void put_be(struct writer *writer, uint64_t value, size_t bytes) {
  uint8_t *at = reserve(writer, bytes);
  for (size_t i = 0; at && i < bytes; i++) at[i] = (uint8_t)(value >> (8 * (bytes - 1 - i)));
}

void put_u8(struct writer *writer, uint8_t value) { put_le(writer, value, 1); }
void put_le16(struct writer *writer, uint16_t value) { put_le(writer, value, 2); }
void put_le32(struct writer *writer, uint32_t value) { put_le(writer, value, 4); }
void put_le64(struct writer *writer, uint64_t value) { put_le(writer, value, 8); }
void put_be16(struct writer *writer, uint16_t value) { put_be(writer, value, 2); }
void put_be32(struct writer *writer, uint32_t value) { put_be(writer, value, 4); }
void put_be64(struct writer *writer, uint64_t value) { put_be(writer, value, 8); }
