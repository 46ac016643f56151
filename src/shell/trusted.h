/* trusted.h - opens what a path names, and goes nowhere that a stranger has pointed it to.
 *
 * A *stranger* is everybody but root and the user that the daemon runs as. A folder is *open* to strangers when one owns it, or when its
 * group or others may write to it; in a sticky one (/tmp) they may make names, but not take away those of others. On the way to a file:
 *
 *   - a symbolic link in an open folder is not followed: whoever may change the folder may have put it there. In a sticky folder a
 *     link of root's or of our own is; elsewhere (/dev/disk/by-id) all links are;
 *   - nothing is opened that is neither a regular file nor a block device, so that a pipe keeps nobody waiting, and a lease that
 *     somebody holds on his file is an error;
 *   - TRUSTED_OWN, for what tells the daemon what to do (metadata, settings): only a file of root's or our own, with one name, to which
 *     nobody else may write.
 *
 * What a stranger may still do in his folder: take files away, and put others of his own in their place. That a file is the one it was
 * is for file_identity.h and the core to tell.
 *
 * Paths may be relative. All of these may block: for workers. Errors: TARN_NOT_FOUND (also a folder on the way, or a device that is not
 * there), TARN_REFUSED (permissions, and all of the above), TARN_INVALID (no file or device), TARN_EXISTS, TARN_NO_SPACE, TARN_IO; `errno` is
 * that of the system call (EWOULDBLOCK: a lease), 0 where we refuse. */
#ifndef TARN_SHELL_TRUSTED_H
#define TARN_SHELL_TRUSTED_H

#include <sys/stat.h>

#include "shell/why.h"

enum trusted {
  TRUSTED_DATA, /* anybody's */
  TRUSTED_OWN
};

/* Opens it with these flags (and O_CLOEXEC, O_NOCTTY). O_EXCL is for block devices, and dropped for files; or, with O_CREAT, both make
 * a new file of mode 0600, and nothing else. *fd is -1 after an error. */
CHECKED tarn_err trusted_open(const char *path, int flags, enum trusted whose, int *fd, struct why *why);
/* What is there, of whatever kind, without opening it (statx, with the time of birth). */
CHECKED tarn_err trusted_look(const char *path, struct statx *status, struct why *why);
/* Removes a file or a socket, or a link in its place. */
CHECKED tarn_err trusted_remove(const char *path, struct why *why);
/* May no stranger change what is in this folder, or put another one in its place? But for a group to whom it was given. `why`: who
 * may. */
CHECKED tarn_err trusted_folder(const char *path, struct why *why);

/* The sentence, and the kind, of an errno of a system call on a path. */
tarn_err path_error(struct why *why, const char *path, int error);

#endif
