/* unreadable.h - the list of places that no image can read (rule 12; struct unreadable in format/record.h): pure functions.
 *
 * The ranges are in order and apart: two that would touch are one. UNREADABLE_MAX of them at most. */
#ifndef TARN_CORE_UNREADABLE_H
#define TARN_CORE_UNREADABLE_H

#include "format/record.h"

/* Each `length` is above 0. False, and nothing changed, when there is no room for one more. */
CHECKED bool unreadable_add(struct unreadable *list, uint64_t start, uint64_t length);
/* Taking out the middle of a range makes two of it: is there room for that? */
bool unreadable_can_cut(const struct unreadable *list, uint64_t start, uint64_t length);
/* Takes out what lies in the range. Requires room. Returns how many bytes those were. */
uint64_t unreadable_cut(struct unreadable *list, uint64_t start, uint64_t length);
bool unreadable_overlaps(const struct unreadable *list, uint64_t start, uint64_t length);
/* The whole of it. */
bool unreadable_covers(const struct unreadable *list, uint64_t start, uint64_t length);
uint64_t unreadable_bytes(const struct unreadable *list);

#endif
