/* locator.h - the block near the end of a device that says where in its tail an image's metadata lies (docs/disk-format.md).
 *
 *     0 ......... volume ......... | unused | metadata, `length` bytes from `offset` on | LOCATOR_AREA_BYTES | rest |
 *
 * The metadata begins and ends at a multiple of LOCATOR_ALIGN. Behind it, up to the device's size rounded down to LOCATOR_ALIGN,
 * are LOCATOR_AREA_BYTES that hold nothing but LOCATOR_COPIES copies of this block. So the places of the copies follow from the
 * device's size alone. They are written once, before the metadata is, and never changed.
 *
 * A locator is only believed where the metadata that it names ends at the copies (locator_is_at()). Anybody who can write to a device can
 * put one there; so nothing is ever zeroed because a locator that was found names it. */
#ifndef TARN_FORMAT_LOCATOR_H
#define TARN_FORMAT_LOCATOR_H

#include "base/error.h"
#include "base/require.h"

#define LOCATOR_BYTES      4096u
#define LOCATOR_ALIGN      1048576u
#define LOCATOR_AREA_BYTES LOCATOR_ALIGN
#define LOCATOR_COPIES     2u
#define LOCATOR_VERSION    1u
#define LOCATOR_LENGTH_MAX ((uint64_t)1 << 40) /* of metadata in a tail: that of petabytes */

struct locator {
  uint8_t uuid[16];        /* of this tail: made anew each time that one is */
  uint64_t offset, length; /* of the metadata */
};

/* Where copy `copy` lies in a device of that size. Requires at least 2 * LOCATOR_ALIGN. */
static inline uint64_t locator_place(uint64_t device_bytes, uint32_t copy) {
  require(device_bytes >= 2 * LOCATOR_ALIGN);
  return align_down(device_bytes, LOCATOR_ALIGN) - LOCATOR_AREA_BYTES + copy * (LOCATOR_AREA_BYTES / LOCATOR_COPIES);
}

/* Does the metadata end where the copies begin? */
static inline bool locator_is_at(const struct locator *locator, uint64_t place) {
  return place > locator->offset && place - locator->offset == locator->length;
}

/* NULL, or what is wrong with it as a sentence. */
const char *locator_check(const struct locator *locator);
/* `out` has LOCATOR_BYTES. Requires a sound one. */
void locator_encode(const struct locator *locator, uint8_t *out);
/* TARN_NOT_FOUND: no locator, whatever else it is. TARN_CORRUPT: damaged. TARN_VERSION: newer. */
CHECKED tarn_err locator_decode(struct locator *locator, const uint8_t *in);

#endif
