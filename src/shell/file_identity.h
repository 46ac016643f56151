/* file_identity.h - which file is it: looks at files and devices without doing I/O on them, and makes new files.
 *
 * All of these may block: call them from reactor_run_blocking(). They need nothing but their arguments. */
#ifndef TARN_SHELL_FILE_IDENTITY_H
#define TARN_SHELL_FILE_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

#include "shell/why.h"

/* Which file it is, and what it was like when it was looked at. */
struct file_identity {
  uint64_t device, inode; /* of a block device: its number and 0, so that every name of it is equal */
  uint64_t size_bytes;
  int64_t birth_ns; /* 0 where the file system does not tell */
  int64_t mtime_ns;
  bool is_block_device;
  bool has_data;    /* any data extent; true for block devices, and where the file system cannot tell */
  bool is_memory;   /* tmpfs, ramfs */
  bool keeps_dsync; /* RWF_DSYNC is known to be obeyed, also by direct and asynchronous writes; see file_disk.c */
  bool
      writes_may_wait; /* for the journal (ext4) or for the file's size (all but XFS, Btrfs), whatever RWF_NOWAIT says */
};
/* The same file: device, inode, kind and birth. Not its size or times. */
bool file_identity_same(const struct file_identity *a, const struct file_identity *b);
/* Two paths on the same file system (for the warning when all copies of something share one). */
bool file_identity_neighbours(const struct file_identity *a, const struct file_identity *b);

/* What is at `path`, without opening it for I/O or locking it. TARN_NOT_FOUND, TARN_INVALID (a directory, socket, ...),
 * TARN_REFUSED (no permission), TARN_IO. */
CHECKED tarn_err file_inspect(const char *path, struct file_identity *identity, struct why *why);

/* Makes a sparse file of `size_bytes`, mode 0600, durable with its name before it returns. TARN_EXISTS when there is
 * something of that name, TARN_NOT_FOUND when its folder is missing, TARN_REFUSED, TARN_NO_SPACE, TARN_IO. */
CHECKED tarn_err file_create(const char *path, uint64_t size_bytes, struct why *why);

/* The same of an open file; `path` is for the sentence only. */
CHECKED tarn_err file_identify(int fd, const char *path, struct file_identity *identity, struct why *why);

/* Is the file that is open still the one at its path, and as long as the disk? May block. TARN_OK; with the reason TARN_GONE
 * when it was unlinked or replaced, TARN_CORRUPT when it was made shorter; TARN_IO when that cannot be told. `identity` and
 * `size_bytes` are what the open file had: copies, so that a worker needs nothing of the disk. */
CHECKED tarn_err file_still_there(const char *path, const struct file_identity *identity, uint64_t size_bytes,
                                  struct why *why);

/* Does the path lie in /dev? A file that is missing there is a device that is missing: a file made in its place would take
 * memory, and be gone after a restart. */
bool path_is_for_devices(const char *path);

/* A number that the kernel tells of the block device `device` (st_dev or st_rdev), or of the disk that it is a partition
 * of: "size", "queue/rotational". False where it does not say. */
bool file_device_number(uint64_t device, const char *name, uint64_t *value);

#endif
