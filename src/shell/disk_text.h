/* disk_text.h - one PATH of an image: how people write a disk.
 *
 *     /path                                  a file or a block device (also ./path and ../path, for the client)
 *     concat:PART;PART...                    parts of files and devices, in this order, as one disk;
 *                                            PART = PATH[@OFFSET+LENGTH], sizes as everywhere (1048576, 1M)
 *     nbd://HOST[:PORT]/EXPORT               an export of an NBD server
 *     nbd+unix:///EXPORT?socket=PATH         the same on a Unix socket
 *
 * In a PART's path `;` is written %3B, an `@` that would start a range %40, and a % that would start one of these %25. An NBD
 * address is a URI, and as such encoded by itself. OFFSET and LENGTH are multiples of PART_ALIGN, so that parts of devices of
 * any block size fit together; no two parts overlap as far as the text tells (disk_space.h finds the rest).
 *
 * Pure. What parses here may still not exist. */
#ifndef TARN_SHELL_DISK_TEXT_H
#define TARN_SHELL_DISK_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "shell/why.h"

#define PATH_BYTES_MAX 1023u /* of one disk's text; leaves room for what is put behind it, like .tarn */
#define DISK_PARTS_MAX 32u
#define PART_ALIGN     4096u
#define NBD_PORT       10809u

enum disk_kind { DISK_KIND_FILE, DISK_KIND_CONCAT, DISK_KIND_NBD };

struct disk_part {
  char path[PATH_BYTES_MAX + 1];
  uint64_t offset, length; /* length 0: the whole file */
};

/* One allocation's worth: about 33 KiB. */
struct disk_text {
  enum disk_kind kind;
  uint32_t part_count; /* of a file: 1, the whole of it; of NBD: 0 */
  struct disk_part parts[DISK_PARTS_MAX];
};

/* The kind of a text that starts as a disk does; false: it is none. `text` need not end with a NUL. */
bool disk_text_starts(const char *text, size_t bytes, enum disk_kind *kind);
/* TARN_INVALID with a sentence. */
CHECKED tarn_err disk_text_parse(const char *text, struct disk_text *disk, struct why *why);
/* As above, and with nothing that is relative: what the daemon takes. */
CHECKED tarn_err disk_text_check(const char *text, struct why *why);
/* Makes every path in `text` absolute in place by putting `folder` before it; a leading ./ is dropped, .. stays for the
 * kernel. Takes a path as well as a disk. */
CHECKED tarn_err path_absolute(char text[PATH_BYTES_MAX + 1], const char *folder, struct why *why);
/* The same text for every way to write the same export: NBD addresses that differ here may still lead to one place. */
void nbd_text_key(const char *text, char key[PATH_BYTES_MAX + 16]);

static inline enum disk_kind disk_text_kind(const char *text) {
  enum disk_kind kind = DISK_KIND_FILE;
  (void)disk_text_starts(text, __builtin_strlen(text), &kind);
  return kind;
}

#endif
