/* data_disk.h - a disk of an image as its text has it (disk_text.h): a file, parts of files, or an NBD export.
 *
 * Who must know more of an open one than that it is a disk asks for the files that it lies on. */
#ifndef TARN_SHELL_DATA_DISK_H
#define TARN_SHELL_DATA_DISK_H

#include "shell/disk_text.h"
#include "shell/file_disk.h"

/* `size_bytes` as in file_disk.h. `has_data` is set, never cleared: there is a data extent, or nobody can tell. Errors are those of
 * file_disk_open(), file_share_open() and nbd_disk_open(). Blocks: for a worker. */
CHECKED tarn_err data_disk_open(struct reactor *reactor, const char *text, uint64_t size_bytes, struct disk **disk,
                                bool *has_data, struct why *why);

/* The first `size_bytes` of a part of a file or device, which others may use parts of too. */
CHECKED tarn_err data_disk_open_part(struct reactor *reactor, const char *path, uint64_t offset, uint64_t length,
                                     uint64_t size_bytes, struct disk **disk, bool *has_data, struct why *why);

struct data_file {
  const char *path;        /* as its owner names it; valid as long as the disk is open */
  const struct disk *file; /* file_disk.h */
  struct file_user *user;  /* who the disk is there */
  uint64_t size_bytes;     /* that it must have */
  bool whole;              /* nobody else uses it */
};
/* The files that an open disk lies on (it may be wrapped in a fault disk); a file of several parts comes as often. Returns how
 * many; 0: it is no file. */
uint32_t data_disk_files(struct disk *disk, struct data_file files[DISK_PARTS_MAX]);

/* Does the range hold a data extent? True where nobody can tell. */
bool file_range_has_data(int fd, const struct file_identity *identity, uint64_t offset, uint64_t length);

#endif
