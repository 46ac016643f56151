/* disk_space.h - which bytes of which device a part of a file is, so that two names for the same place are found: another path, a
 * symbolic or hard link, a bind mount, a partition of a device.
 *
 * Not found: a file that lies on a device that is used by itself, and what lies behind a device mapper, RAID or a loop device. */
#ifndef TARN_SHELL_DISK_SPACE_H
#define TARN_SHELL_DISK_SPACE_H

#include "shell/file_identity.h"

struct disk_space {
  struct file_identity file; /* a partition's is that of its device */
  uint64_t begin, end;       /* bytes; end is UINT64_MAX for the whole of it */
};

/* `length` bytes from `offset` on; 0: all. */
void disk_space_of(const struct file_identity *identity, uint64_t offset, uint64_t length, struct disk_space *space);
bool disk_space_overlap(const struct disk_space *a, const struct disk_space *b);

#endif
