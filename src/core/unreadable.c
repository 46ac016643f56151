#include "core/unreadable.h"

#include <string.h>

static uint64_t end_of(const struct unreadable *list, uint32_t i) {
  return list->ranges[i].start + list->ranges[i].length;
}

static void check(const struct unreadable *list) {
  require(list->count <= UNREADABLE_MAX);
  for (uint32_t i = 0; i < list->count; i++) {
    require(list->ranges[i].length > 0);
    require(implies(i > 0, end_of(list, i - 1) < list->ranges[i].start));
  }
}

/* The ranges [from, to) become `count` new ones, whose places are the caller's to fill; what is behind moves. */
static void replace(struct unreadable *list, uint32_t from, uint32_t to, uint32_t count) {
  require(list->count - (to - from) + count <= UNREADABLE_MAX);
  memmove(&list->ranges[from + count], &list->ranges[to], (list->count - to) * sizeof list->ranges[0]);
  list->count = list->count - (to - from) + count;
  memset(&list->ranges[list->count], 0, (UNREADABLE_MAX - list->count) * sizeof list->ranges[0]);
}

bool unreadable_add(struct unreadable *list, uint64_t start, uint64_t length) {
  require(length > 0);
  require(start + length > start);
  uint64_t end = start + length;
  uint32_t from = 0, to;
  while (from < list->count && end_of(list, from) < start) from++;
  for (to = from; to < list->count && list->ranges[to].start <= end; to++) {
    start = min_u64(start, list->ranges[to].start);
    end = max_u64(end, end_of(list, to));
  }
  if (from == to && list->count == UNREADABLE_MAX) return false;
  replace(list, from, to, 1);
  list->ranges[from].start = start;
  list->ranges[from].length = end - start;
  check(list);
  return true;
}

/* The ranges that overlap: [*from, *to). */
static void overlapping(const struct unreadable *list, uint64_t start, uint64_t length, uint32_t *from, uint32_t *to) {
  require(length > 0);
  require(start + length > start);
  *from = 0;
  while (*from < list->count && end_of(list, *from) <= start) ++*from;
  *to = *from;
  while (*to < list->count && list->ranges[*to].start < start + length) ++*to;
}

bool unreadable_can_cut(const struct unreadable *list, uint64_t start, uint64_t length) {
  uint32_t from, to;
  overlapping(list, start, length, &from, &to);
  bool splits = to - from == 1 && list->ranges[from].start < start && end_of(list, from) > start + length;
  return !splits || list->count < UNREADABLE_MAX;
}

uint64_t unreadable_cut(struct unreadable *list, uint64_t start, uint64_t length) {
  require(unreadable_can_cut(list, start, length));
  uint64_t before = unreadable_bytes(list), end = start + length;
  uint32_t from, to;
  overlapping(list, start, length, &from, &to);
  if (from == to) return 0;
  uint64_t first = list->ranges[from].start, last = end_of(list, to - 1);
  uint32_t left = first<start, right = last> end;
  replace(list, from, to, left + right);
  if (left) {
    list->ranges[from].start = first;
    list->ranges[from].length = start - first;
  }
  if (right) {
    list->ranges[from + left].start = end;
    list->ranges[from + left].length = last - end;
  }
  check(list);
  return before - unreadable_bytes(list);
}

bool unreadable_overlaps(const struct unreadable *list, uint64_t start, uint64_t length) {
  uint32_t from, to;
  overlapping(list, start, length, &from, &to);
  return from < to;
}

bool unreadable_covers(const struct unreadable *list, uint64_t start, uint64_t length) {
  uint32_t from, to;
  overlapping(list, start, length, &from, &to);
  return to - from == 1 && list->ranges[from].start <= start && end_of(list, from) >= start + length;
}

uint64_t unreadable_bytes(const struct unreadable *list) {
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < list->count; i++) bytes += list->ranges[i].length;
  return bytes;
}
