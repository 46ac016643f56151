/* bitmap.c - 64 bits at a time. Bits past bit_count in the last word are always zero. */
#include "base/bitmap.h"

#define WORD_BITS 64u

void bitmap_init(struct bitmap *bitmap, uint64_t *words, uint64_t bit_count) {
  require(words != NULL || bit_count == 0);
  require((uintptr_t)words % sizeof(uint64_t) == 0);
  *bitmap = (struct bitmap){.words = words, .bit_count = bit_count};
}

bool bitmap_new(struct bitmap *bitmap, struct arena *arena, uint64_t bit_count) {
  uint64_t *words = arena_take(arena, bitmap_bytes(bit_count), sizeof(uint64_t));
  if (words) bitmap_init(bitmap, words, bit_count);
  return words != NULL;
}

static uint64_t bit_mask(uint64_t bit) { return 1ull << (bit % WORD_BITS); }
static uint64_t word_count(uint64_t bits) { return (bits + WORD_BITS - 1) / WORD_BITS; }

bool bitmap_test(const struct bitmap *bitmap, uint64_t bit) {
  require(bit < bitmap->bit_count);
  return (bitmap->words[bit / WORD_BITS] & bit_mask(bit)) != 0;
}

bool bitmap_set(struct bitmap *bitmap, uint64_t bit) {
  if (bitmap_test(bitmap, bit)) return false;
  bitmap->words[bit / WORD_BITS] |= bit_mask(bit);
  bitmap->set_count++;
  return true;
}

bool bitmap_clear(struct bitmap *bitmap, uint64_t bit) {
  if (!bitmap_test(bitmap, bit)) return false;
  require(bitmap->set_count > 0);
  bitmap->words[bit / WORD_BITS] &= ~bit_mask(bit);
  bitmap->set_count--;
  return true;
}

static void require_range(const struct bitmap *bitmap, uint64_t first, uint64_t count) {
  require(first <= bitmap->bit_count);
  require(count <= bitmap->bit_count - first);
}

/* The bits of word `word` that lie in [first, end). */
static uint64_t range_mask(uint64_t word, uint64_t first, uint64_t end) {
  uint64_t low = word * WORD_BITS, mask = UINT64_MAX;
  if (first > low) mask &= UINT64_MAX << (first - low);
  if (end - low < WORD_BITS) mask &= ~(UINT64_MAX << (end - low));
  return mask;
}

void bitmap_set_range(struct bitmap *bitmap, uint64_t first, uint64_t count) {
  require_range(bitmap, first, count);
  uint64_t end = first + count;
  for (uint64_t word = first / WORD_BITS; word * WORD_BITS < end; word++) {
    uint64_t added = range_mask(word, first, end) & ~bitmap->words[word];
    bitmap->words[word] |= added;
    bitmap->set_count += (uint64_t)__builtin_popcountll(added);
  }
  require(bitmap->set_count <= bitmap->bit_count);
}

void bitmap_clear_range(struct bitmap *bitmap, uint64_t first, uint64_t count) {
  require_range(bitmap, first, count);
  uint64_t end = first + count;
  for (uint64_t word = first / WORD_BITS; word * WORD_BITS < end; word++) {
    uint64_t gone = range_mask(word, first, end) & bitmap->words[word];
    if (gone == 0) continue; /* memory that was never written to stays so: no page is taken for zeroes */
    bitmap->words[word] &= ~gone;
    bitmap->set_count -= (uint64_t)__builtin_popcountll(gone);
  }
  require(bitmap->set_count <= bitmap->bit_count);
}

void bitmap_set_words(struct bitmap *bitmap, uint64_t first, const uint64_t *words, uint64_t count) {
  require(first % WORD_BITS == 0);
  for (uint64_t i = 0; i < count && first + i * WORD_BITS < bitmap->bit_count; i++) {
    uint64_t word = first / WORD_BITS + i, added = words[i] & range_mask(word, 0, bitmap->bit_count);
    added &= ~bitmap->words[word];
    if (added == 0) continue;
    bitmap->words[word] |= added;
    bitmap->set_count += (uint64_t)__builtin_popcountll(added);
  }
  require(bitmap->set_count <= bitmap->bit_count);
}

/* The bits of word `word` that a search looks for: those of `bitmap`, or with `flip` all ones the clear ones; without those
 * that are set in `without`. */
static uint64_t wanted(const struct bitmap *bitmap, const struct bitmap *without, uint64_t flip, uint64_t word) {
  uint64_t bits = bitmap->words[word] ^ flip;
  return without ? bits & ~without->words[word] : bits;
}

static uint64_t next_bit(const struct bitmap *bitmap, const struct bitmap *without, uint64_t flip, uint64_t from,
                         uint64_t end) {
  end = min_u64(end, bitmap->bit_count);
  if (from >= end) return end;
  uint64_t words = word_count(end), word = from / WORD_BITS;
  uint64_t found = wanted(bitmap, without, flip, word) & (UINT64_MAX << (from % WORD_BITS));
  while (found == 0 && ++word < words) found = wanted(bitmap, without, flip, word);
  if (found == 0) return end;
  /* What is found past the end counts as the end. */
  return min_u64(word * WORD_BITS + (uint64_t)__builtin_ctzll(found), end);
}

uint64_t bitmap_next_set(const struct bitmap *bitmap, uint64_t from) {
  return next_bit(bitmap, NULL, 0, from, UINT64_MAX);
}
uint64_t bitmap_next_clear(const struct bitmap *bitmap, uint64_t from) {
  return next_bit(bitmap, NULL, UINT64_MAX, from, UINT64_MAX);
}
uint64_t bitmap_next_set_in(const struct bitmap *bitmap, uint64_t from, uint64_t end) {
  return next_bit(bitmap, NULL, 0, from, end);
}
uint64_t bitmap_next_clear_in(const struct bitmap *bitmap, uint64_t from, uint64_t end) {
  return next_bit(bitmap, NULL, UINT64_MAX, from, end);
}
uint64_t bitmap_next_set_without(const struct bitmap *bitmap, const struct bitmap *without, uint64_t from,
                                 uint64_t end) {
  require(bitmap->bit_count == without->bit_count);
  return next_bit(bitmap, without, 0, from, end);
}

bool bitmap_any_in(const struct bitmap *bitmap, uint64_t first, uint64_t count) {
  require_range(bitmap, first, count);
  uint64_t end = first + count;
  for (uint64_t word = first / WORD_BITS; word * WORD_BITS < end; word++)
    if (bitmap->words[word] & range_mask(word, first, end)) return true;
  return false;
}

bool bitmap_all_in(const struct bitmap *bitmap, uint64_t first, uint64_t count) {
  require_range(bitmap, first, count);
  uint64_t end = first + count;
  for (uint64_t word = first / WORD_BITS; word * WORD_BITS < end; word++)
    if (~bitmap->words[word] & range_mask(word, first, end)) return false;
  return true;
}

void bitmap_check(const struct bitmap *bitmap) {
  uint64_t count = 0;
  for (uint64_t word = 0; word < word_count(bitmap->bit_count); word++) {
    count += (uint64_t)__builtin_popcountll(bitmap->words[word]);
    require((bitmap->words[word] & ~range_mask(word, 0, bitmap->bit_count)) == 0);
  }
  require(count == bitmap->set_count);
}
