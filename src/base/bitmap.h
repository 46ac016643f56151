/* bitmap.h - the one bitmap: a flat array of bits with fast search. The memory is the caller's (bitmap_bytes()). */
#ifndef TARN_BASE_BITMAP_H
#define TARN_BASE_BITMAP_H

#include "base/arena.h"
#include "base/error.h"

struct bitmap {
  uint64_t *words;
  uint64_t bit_count;
  uint64_t set_count; /* kept exact by every call below */
};

static inline size_t bitmap_bytes(uint64_t bit_count) { return (size_t)((bit_count + 63) / 64 * 8); }
/* `words` is zeroed memory of bitmap_bytes(bit_count), aligned to 8. */
void bitmap_init(struct bitmap *bitmap, uint64_t *words, uint64_t bit_count);
/* The same with memory from an arena; false when that is short. */
CHECKED bool bitmap_new(struct bitmap *bitmap, struct arena *arena, uint64_t bit_count);
bool bitmap_test(const struct bitmap *bitmap, uint64_t bit);
/* Each returns true if that changed the bit. */
bool bitmap_set(struct bitmap *bitmap, uint64_t bit);
bool bitmap_clear(struct bitmap *bitmap, uint64_t bit);
/* Ranges are [first, first + count), all inside the bitmap. */
void bitmap_set_range(struct bitmap *bitmap, uint64_t first, uint64_t count);
void bitmap_clear_range(struct bitmap *bitmap, uint64_t first, uint64_t count);
/* Sets those of `count` words' bits that are set in `words`, from bit `first` (a multiple of 64) on; what lies past the end is
 * left out. */
void bitmap_set_words(struct bitmap *bitmap, uint64_t first, const uint64_t *words, uint64_t count);
bool bitmap_any_in(const struct bitmap *bitmap, uint64_t first, uint64_t count);
bool bitmap_all_in(const struct bitmap *bitmap, uint64_t first, uint64_t count);
/* First set (clear) bit at or after `from`; bit_count if there is none. */
uint64_t bitmap_next_set(const struct bitmap *bitmap, uint64_t from);
uint64_t bitmap_next_clear(const struct bitmap *bitmap, uint64_t from);
/* ... before `end`; `end` (or bit_count, if that is less) if there is none. For searches on the path of an I/O: a map of 16 TiB
 * is 128 MiB long. */
uint64_t bitmap_next_set_in(const struct bitmap *bitmap, uint64_t from, uint64_t end);
uint64_t bitmap_next_clear_in(const struct bitmap *bitmap, uint64_t from, uint64_t end);
/* First bit that is set here and clear in `without`, a bitmap of the same length. */
uint64_t bitmap_next_set_without(const struct bitmap *bitmap, const struct bitmap *without, uint64_t from,
                                 uint64_t end);
/* The count is exact, and no bit is set beyond the end. */
void bitmap_check(const struct bitmap *bitmap);

#endif
