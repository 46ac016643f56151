/* file_disk.h - a regular file or a block device as a disk.
 *
 * Chosen at open:
 *   memory-backed (tmpfs, ramfs)  plain pread/pwrite inside submit, the completion posted as an event; any alignment
 *   O_DIRECT where it exists      block_bytes and align_bytes are the device's logical block
 *   elsewhere                     through the page cache; any alignment. Also when the size is not a multiple of the logical block
 * FLUSH is fdatasync (nothing on memory-backed files), FUA is RWF_DSYNC on block devices, ext4, XFS and Btrfs, and a write
 * with fdatasync behind it elsewhere. TRIM and WRITE_ZEROES are fallocate; what works is tried at open, on a range beyond the
 * end that leaves no trace, so can_zero and can_trim are true. EXTENTS is SEEK_DATA and SEEK_HOLE: a hole is
 * EXTENT_HOLE | EXTENT_ZERO, all else is data; block devices do not know it.
 *
 * A disk that hangs holds nothing that another could want (thesis 8). Reads and writes are tried by io_uring with RWF_NOWAIT: the
 * kernel has them without a thread, or says that they would wait. What waits, and fdatasync, fallocate and EXTENTS always, is a
 * plain call in one of up to FILE_THREADS_MAX threads of the disk's own lane (reactor.h), so that the kernel's pool of threads, which
 * is one for all files, is never used. Of I/Os io_count_max are begun at once. What is not begun stands in a line of the disk's own,
 * and does not count as being with the disk as long as that line moves (disk_io_line()).
 *
 * RWF_NOWAIT is not enough where the I/O changes the file's times, for which a file system may wait for its journal, and so for a disk
 * that hangs. ext4 does so at a write, whatever is asked: there all writes are a thread's. So are FUA writes through the page cache
 * everywhere: the kernel ends them with a sync, whatever is asked. A read changes no time: the file is opened
 * with O_NOATIME, and where that is not allowed (it is somebody else's, and we are not root) reads are a thread's, too.
 *
 * A sync that fails is told to all whom it may concern. The kernel tells a lost write-back once to a descriptor, and it
 * is one that has all our I/O: so when a FLUSH or FUA fails, those under way at that moment fail too, and so does the next FLUSH
 * of each user of the disk (struct disk_user) that has not been told. The one that is told may come back last: so a FLUSH that the
 * kernel has done, or a FUA, is answered when the syncs of the file that were under way then have ended, and fails if one of them does.
 * (A FUA of a direct write with RWF_DSYNC is answered at once: nobody else is told of that.) So a sync that hangs holds those of the
 * file's other users, whose guards call the disk hung then: it is one file.
 *
 * A file never grows. One that somebody makes shorter while it is open (truncate) is *cut*: what it held behind its new end is lost, and
 * a write there would make it long again, with zeroes in place of that. So before each write we look how long the file is, and one that
 * is too short is not written to. From the first such look on, or the first read behind the end, everything that the user of the
 * disk asks for fails, for good, and whoever listens (struct file_user) is told before that I/O is answered. The look takes about
 * a microsecond, and asks no server: on XFS and Btrfs it is made in submit. Where it might wait, writes are a thread's. What
 * remains: a write that has been looked at and is not done yet when the file is cut makes it grow. The next write sees that, unless
 * this one reached the old end. And nobody sees it when somebody else makes the file long again before we look, or when it was cut
 * on another machine (NFS) or by the server itself (FUSE), of which the kernel knows nothing yet.
 *
 * The lock is an OFD lock for writing on the whole file, on the descriptor that does the I/O, so that a killed daemon's
 * last I/O still holds it; QEMU's byte locks conflict with it. Block devices are also opened O_EXCL. A file that is opened
 * read-only takes a lock for reading.
 *
 * file_disk_open() may block: call it from reactor_run_blocking(). It touches nothing of the reactor. Everything else is
 * for the reactor's thread. disk_close() gives the lock back before it returns, but for a file system that hangs: after a moment
 * (FILE_CLOSE_MS, of a second, for all disks together) the rest is left to a thread, and an open of the same file by this process waits
 * for it; so does file_disk_closed_wait(). */
#ifndef TARN_SHELL_FILE_DISK_H
#define TARN_SHELL_FILE_DISK_H

#include "core/disk.h"
#include "shell/file_identity.h"
#include "shell/reactor.h"

#define FILE_THREADS_MAX 16u
#define FILE_CLOSE_MS    100u

/* One of the users of an open file, who know nothing of each other: who has all of it, or a part (file_share.h). `io->user` of an I/O
 * is the `user` in one of these. */
struct file_user {
  struct disk_user user;
  uint64_t need_bytes; /* the file must be so long, or it was cut */
  bool cut;            /* it was: for the reactor's thread */
  struct event *told;  /* posted when `cut` is set, before the I/O that found it is answered; NULL: nobody listens */
};

struct file_disk_options {
  struct reactor *reactor;
  const char *path;    /* copied */
  uint64_t size_bytes; /* 0: all of it. Else the disk is this long, and a file that is shorter is refused */
  bool whole;          /* size_bytes is the least: the disk is as long as the file */
  uint64_t
      grow_bytes; /* a regular file of at least size_bytes that is shorter than this is made so long, sparse, under the
                          * lock; where that cannot be it stays as it is */
  uint32_t io_count_max; /* I/Os begun at once, the rest waits in line; 0: 128 */
  bool read_only;
  bool may_grow;  /* one that was cut is written to all the same: what it holds is checked by who reads it */
  bool own;       /* metadata: it must be nobody else's (TRUSTED_OWN) */
  bool no_direct; /* through the page cache, whatever is possible: small metadata on odd file systems, tests */
};

/* TARN_OK and the disk; identity (may be NULL) is that of the file that was opened. Otherwise the reason in `why`, and
 *   TARN_FULL       in use: locked by another process, or by another disk of this one. Wait and try again (rule 7)
 *   TARN_NOT_FOUND  missing        TARN_INVALID  a directory or the like, too small, size no multiple of 512
 *   TARN_REFUSED   not writable, or not to be trusted (trusted.h)   TARN_IO       anything else */
CHECKED tarn_err file_disk_open(const struct file_disk_options *options, struct disk **disk,
                                struct file_identity *identity, struct why *why);
/* Until this process has closed what it is just closing of the file at `path`, and has no lock on it by that. May wait as long as a
 * close hangs: for workers. */
void file_disk_closed_wait(const char *path);
const char *file_disk_path(const struct disk *disk);
const struct file_identity *file_disk_identity(const struct disk *disk);
/* Who has all of it: the user of an I/O that names none. */
struct file_user *file_disk_user(struct disk *disk);
/* The losses that its syncs have told: where a new user of an open disk begins. */
uint64_t file_disk_losses(const struct disk *disk);
/* A descriptor of the same open file, of the caller's own, for file_modified_ns() in a worker; -1: none, nor for a block device. It
 * keeps neither the disk from being closed nor its lock held. */
int file_disk_fd_own(const struct disk *disk);
/* By a worker: the time of the file's last change, once that is on stable storage; 0 where it cannot be told. What this finds lost
 * is told to the next FLUSH all the same. */
int64_t file_modified_ns(int fd);
/* The descriptor, for fstat by the owner from a worker. Stays the disk's. */
int file_disk_fd(const struct disk *disk);

#endif
