/* blank.h - does something lie there that somebody could miss? Before Tarn writes where it has not written yet, on a device that was
 * given to it by its name alone. Blocks: for workers. `fd` may be open for direct I/O if the range allows it. */
#ifndef TARN_SHELL_BLANK_H
#define TARN_SHELL_BLANK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

/* The first byte of [from, end) that is not zero; `end`: there is none. */
CHECKED tarn_err blank_look(int fd, uint64_t from, uint64_t end, uint64_t *at);
/* The same of sectors of 512 bytes, where those of a log or a map count as empty: without a record nobody needs them. Requires
 * multiples of 512. */
CHECKED tarn_err blank_look_for_meta(int fd, uint64_t from, uint64_t end, uint64_t *at);
/* Do the first and the last MiB hold nothing? There is where partition tables, file systems and RAID members have their labels. */
bool blank_at_the_ends(int fd, uint64_t bytes);
/* Is [at, end) of a file blank_look_for_meta()'s kind of empty? Holes are not read. */
bool blank_file_for_meta(int fd, uint64_t at, uint64_t end);
/* May the metadata of an image be written over what is at its path? TARN_OK: that is metadata of Tarn, of whatever mirror and however
 * damaged, as the magic of one of the two records tells, in a file also that of a sector of the log or of a map in the first MiB; or it is
 * empty, as above, of a device at the ends. TARN_EXISTS: it is something else. TARN_IO. */
CHECKED tarn_err blank_or_meta(int fd, bool is_block_device, uint64_t bytes);

#endif
