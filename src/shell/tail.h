/* tail.h - an image's metadata in the tail of its device (meta=tail), so that it travels with the disk. format/locator.h has the
 * layout.
 *
 * Nothing is ever written over what somebody else has at the end of a device: a backup GPT, the superblock of an array, labels of
 * LVM or ZFS, any byte that is not zero. Only a tail of ours is replaced, when that is asked for.
 *
 * Crash argument: the list of what is to be undone names the tail by its uuid, and is stored first; then the locator is written,
 * then the metadata. tail_wipe() does nothing where there is not this very locator, and removes it last.
 *
 * What a locator that was found says is not trusted: zeroed are the blocks of locators themselves, and the places that were planned
 * here or are known from config.json.
 *
 * All of these block: for workers. They open the device by its path; where it is open already, by us, tail_find() takes the
 * descriptor. */
#ifndef TARN_SHELL_TAIL_H
#define TARN_SHELL_TAIL_H

#include "format/locator.h"
#include "shell/why.h"

/* The first sound copy. TARN_NOT_FOUND: there is none, or the device is too small for one; TARN_CORRUPT, TARN_VERSION, TARN_IO.
 * `fd` may be open for direct I/O. */
CHECKED tarn_err tail_find(int fd, uint64_t device_bytes, struct locator *locator);
/* The same where it is known where the metadata lies: a device that was made larger has its locator behind that still. */
CHECKED tarn_err tail_find_behind(int fd, const struct locator *known, struct locator *locator);
/* The same as tail_find() of a device, or a file, that is not open. */
CHECKED tarn_err tail_find_at(const char *path, struct locator *locator);

/* Where a tail for that much metadata would lie, with a uuid of its own. TARN_FULL: there is no room behind `data_bytes`. */
CHECKED tarn_err tail_plan(const char *path, uint64_t device_bytes, uint64_t data_bytes, uint64_t meta_bytes,
                           struct locator *locator, struct why *why);
/* Is everything zero from `locator->offset` to the end of the device? TARN_EXISTS, and what is there: with `*ours` set it is a tail
 * of Tarn's, with that uuid. TARN_IO. */
CHECKED tarn_err tail_is_empty(const char *path, uint64_t device_bytes, const struct locator *locator, bool *ours,
                               struct locator *found, struct why *why);
/* What lies there is given up. Zeroes the sound locators of the device, whatever they name, and nothing else. */
CHECKED tarn_err tail_unlabel(const char *path, struct why *why);
/* Zeroes where this planned tail is to be, from its metadata to the end of the copies. */
CHECKED tarn_err tail_clear(const char *path, const struct locator *planned, struct why *why);
/* Writes the locator behind its metadata. Requires an empty tail. Durable when it returns. */
CHECKED tarn_err tail_make(const char *path, const struct locator *locator, struct why *why);
/* Is it this one that lies there, where it was made? */
bool tail_is_at(const char *path, const struct locator *known);
/* Zeroes it. TARN_NOT_FOUND: that one is not there. */
CHECKED tarn_err tail_wipe(const char *path, const struct locator *known, struct why *why);

/* "0123..." with 33 bytes; and back, false: it is none. */
const char *tail_uuid_text(const uint8_t uuid[16], char out[33]);
bool tail_uuid_parse(const char *text, uint8_t uuid[16]);

#endif
