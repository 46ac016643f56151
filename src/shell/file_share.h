/* file_share.h - parts of one file, used by disks that know nothing of each other.
 *
 * A file or device is open and locked once (file_disk.h: exclusively, as a whole), however many of its parts are in use in this
 * daemon: by one concat, or by images of different mirrors. Each use has a range of its own; two that overlap are refused.
 * Other processes see one lock on the whole file.
 *
 * What hangs in the file hangs for all of its users. A file that is empty when somebody joins, or whose device was removed
 * and is back under the same number, is opened anew for who comes, and stays with those who have it.
 *
 * file_share_open() blocks: for workers. file_share_close() may be called from any thread, by a user with no I/O in flight. */
#ifndef TARN_SHELL_FILE_SHARE_H
#define TARN_SHELL_FILE_SHARE_H

#include "shell/file_disk.h"

struct file_use;
/* The use of `length` bytes from `offset` on, of the file at `path`. Errors are those of file_disk_open(); TARN_FULL also when
 * another use overlaps, TARN_INVALID also when the file ends before the range does. */
CHECKED tarn_err file_share_open(struct reactor *reactor, const char *path, uint64_t offset, uint64_t length,
                                 struct file_use **use, struct why *why);
/* The whole file's disk, not to be closed. */
struct disk *file_use_disk(const struct file_use *use);
/* Who this use is there, for each of its I/Os: so that a flush that fails for another use is told to this one too, and a file that
 * is cut behind this use's part (file_disk.h) is none of its business. */
struct file_user *file_use_user(struct file_use *use);
void file_share_close(struct file_use *use);
/* Is this file open here, for its parts? Then its lock is ours, and says nothing of others. */
bool file_share_has(const struct file_identity *identity);

#endif
