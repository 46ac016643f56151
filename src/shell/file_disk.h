/* file_disk.h - a regular file or a block device as a disk.
 *
 * Chosen at open:
 *   memory-backed (tmpfs, ramfs)  plain pread/pwrite inside submit, the completion posted as an event; any alignment
 *   O_DIRECT where it exists      io_uring; block_bytes and align_bytes are the device's logical block
 *   elsewhere                     io_uring through the page cache; any alignment. Also when the size is no multiple of the
 *                                 logical block
 * FLUSH is fdatasync (nothing on memory-backed files), FUA is RWF_DSYNC on block devices, ext4, XFS and Btrfs, and a write
 * with fdatasync behind it elsewhere. TRIM and WRITE_ZEROES are fallocate; what works is tried at open, on a range beyond the
 * end that leaves no trace, so can_zero and can_trim are true. A file never grows. EXTENTS is SEEK_DATA and SEEK_HOLE, in a
 * worker thread: a hole is EXTENT_HOLE | EXTENT_ZERO, all else is data; block devices do not know it.
 *
 * The lock is an OFD lock for writing on the whole file, on the descriptor that does the I/O, so that a killed daemon's
 * last I/O still holds it; QEMU's byte locks conflict with it. Block devices are also opened O_EXCL. A file that is opened
 * read-only takes a lock for reading.
 *
 * file_disk_open() may block: call it from reactor_run_blocking(). It touches nothing of the reactor. Everything else is
 * for the reactor's thread. disk_close() gives the lock back before it returns. */
#ifndef TARN_SHELL_FILE_DISK_H
#define TARN_SHELL_FILE_DISK_H

#include "core/disk.h"
#include "shell/file_identity.h"
#include "shell/reactor.h"

struct file_disk_options {
  struct reactor *reactor;
  const char *path;    /* copied */
  uint64_t size_bytes; /* 0: all of it. Else the disk is this long, and a file that is shorter is refused */
  bool whole;          /* size_bytes is the least: the disk is as long as the file */
  uint64_t
      grow_bytes; /* a regular file of at least size_bytes that is shorter than this is made so long, sparse, under the
                          * lock; where that cannot be it stays as it is */
  uint32_t io_count_max; /* I/Os given to the kernel at once, the rest waits in line; 0: 1024 */
  bool read_only;
  bool no_direct; /* through the page cache, whatever is possible: small metadata on odd file systems, tests */
};

/* TARN_OK and the disk; identity (may be NULL) is that of the file that was opened. Otherwise the reason in `why`, and
 *   TARN_FULL       in use: locked by another process, or by another disk of this one. Wait and try again (rule 7)
 *   TARN_NOT_FOUND  missing        TARN_INVALID  a directory or the like, too small, size no multiple of 512
 *   TARN_REFUSED    not writable   TARN_IO       anything else */
CHECKED tarn_err file_disk_open(const struct file_disk_options *options, struct disk **disk,
                                struct file_identity *identity, struct why *why);
const char *file_disk_path(const struct disk *disk);
const struct file_identity *file_disk_identity(const struct disk *disk);
/* Time of the file's last change, once that is on stable storage; 0 for a block device, and where it cannot be told. May
 * block: for the moments when a mirror comes and goes. */
int64_t file_disk_modified_ns(const struct disk *disk);
/* The descriptor, for fstat by the owner from a worker. Stays the disk's. */
int file_disk_fd(const struct disk *disk);

#endif
