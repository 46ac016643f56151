/* trusted.c - see trusted.h.
 *
 * A path is walked by descriptors, name by name, so that what was looked at is what is gone through. The last name is opened from
 * its folder without following, and looked at again once it is open: nothing lies between but what opening does by itself. */
#include "shell/trusted.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/require.h"

#define LINKS_MAX 40u /* as the kernel */

tarn_err path_error(struct why *why, const char *path, int error) {
  switch (error) {
    case ENOENT: return because(why, TARN_NOT_FOUND, "%s does not exist", path);
    case ENOTDIR: return because(why, TARN_NOT_FOUND, "%s does not exist: a part of the path is not a folder", path);
    case EEXIST: return because(why, TARN_EXISTS, "%s exists already", path);
    case EISDIR: return because(why, TARN_INVALID, "%s is a directory", path);
    case EACCES:
    case EPERM: return because(why, TARN_REFUSED, "%s: permission denied", path);
    case EROFS: return because(why, TARN_REFUSED, "%s is on a read-only file system", path);
    case EWOULDBLOCK: return because(why, TARN_REFUSED, "%s: another process holds a lease on it", path);
    case ENOSPC:
    case EDQUOT: return because(why, TARN_NO_SPACE, "%s: no space left", path);
    case ENODEV:
    case ENXIO: return because(why, TARN_NOT_FOUND, "%s: the device is not there", path);
    default: return because(why, TARN_IO, "%s: %s", path, strerror(error));
  }
}

/* What no system call has said: `errno` tells it all the same. */
static tarn_err path_refused(struct why *why, const char *path, int error) {
  tarn_err err = path_error(why, path, error);
  errno = error;
  return err;
}

/* ---- whose is it ---- */

static bool is_ours(uid_t user) { return user == 0 || user == geteuid(); }

static bool others_write(mode_t mode) { return (mode & (S_IWGRP | S_IWOTH)) != 0; }

/* May a stranger have put this link where it is? */
static bool link_is_trusted(const struct stat *folder, const struct stat *link) {
  if (!is_ours(folder->st_uid)) return false;
  return !others_write(folder->st_mode) || (folder->st_mode & S_ISVTX && is_ours(link->st_uid));
}

/* ---- the way ---- */

/* Where a path has led to: the folder, and the last name in it, which is not a link. */
struct place {
  int folder; /* open; -1: none */
  char name[NAME_MAX + 1];
  char rest[PATH_MAX]; /* that is still to go */
  uint32_t links;
  bool strict; /* no folder on the way may be open */
};

static void place_close(struct place *place) {
  int error = errno;
  if (place->folder >= 0) close(place->folder);
  place->folder = -1;
  errno = error;
}

static bool folder_enter(struct place *place, const char *name) {
  int folder = openat(place->folder, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (folder < 0) return false;
  if (place->folder >= 0) close(place->folder);
  place->folder = folder;
  return true;
}

/* Takes the first name from the rest. False: there is none, or it is too long (errno). */
static bool name_take(struct place *place) {
  const char *from = place->rest + strspn(place->rest, "/");
  size_t bytes = strcspn(from, "/");
  errno = bytes == 0 ? EISDIR : ENAMETOOLONG;
  if (bytes == 0 || bytes > NAME_MAX) return false;
  memcpy(place->name, from, bytes);
  place->name[bytes] = 0;
  memmove(place->rest, from + bytes, strlen(from + bytes) + 1);
  return true;
}

/* Back to the root, where the rest says so; from the working folder else. */
static bool begin_at(struct place *place) {
  if (place->rest[0] == '/') {
    place_close(place);
    place->folder = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  } else if (place->folder < 0) place->folder = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
  return place->folder >= 0;
}

static tarn_err link_follow(struct place *place, const char *path, const struct stat *link, struct why *why) {
  char target[PATH_MAX];
  struct stat folder;
  if (++place->links > LINKS_MAX) return path_refused(why, path, ELOOP);
  if (fstat(place->folder, &folder) != 0) return path_error(why, path, errno);
  if (!link_is_trusted(&folder, link)) {
    errno = 0;
    return because(why, TARN_REFUSED,
                   "%s: '%s' is a symbolic link in a folder that others may write to, and is not followed; give the "
                   "path of what is meant",
                   path, place->name);
  }
  ssize_t bytes = readlinkat(place->folder, place->name, target, sizeof target - 1);
  if (bytes < 0) return path_error(why, path, errno);
  target[bytes] = 0;
  if ((size_t)bytes + 1 + strlen(place->rest) >= sizeof place->rest) return path_refused(why, path, ENAMETOOLONG);
  memmove(place->rest + bytes, place->rest, strlen(place->rest) + 1);
  memcpy(place->rest, target, (size_t)bytes);
  return begin_at(place) ? TARN_OK : path_error(why, path, errno);
}

/* On the way it may be a sticky one: the next name in it is judged by itself. */
static tarn_err folder_judge(const struct place *place, const char *path, bool on_the_way, struct why *why) {
  struct stat info;
  if (fstat(place->folder, &info) != 0) return path_error(why, path, errno);
  errno = 0;
  if (!is_ours(info.st_uid))
    return because(why, TARN_REFUSED,
                   "%s, or a folder on the way to it, belongs to another user (%u), who could do "
                   "anything there",
                   path, (unsigned)info.st_uid);
  if (info.st_mode & S_IWOTH && !(on_the_way && info.st_mode & S_ISVTX))
    return because(why, TARN_REFUSED,
                   "everybody may write to %s, or to a folder on the way to it: chmod o-w, and look "
                   "what is there",
                   path);
  return TARN_OK;
}

static bool is_last(const struct place *place) { return place->rest[strspn(place->rest, "/")] == 0; }

/* Where `way` leads; `path` is what people know. TARN_NOT_FOUND, with place->folder open: only the last name is missing. */
static tarn_err place_find(const char *way, const char *path, struct place *place, struct stat *info, struct why *why) {
  place->folder = -1;
  if (strlen(way) >= sizeof place->rest) return path_refused(why, path, ENAMETOOLONG);
  strcpy(place->rest, way);
  tarn_err err = begin_at(place) ? TARN_OK : path_error(why, path, errno);
  while (err == TARN_OK) {
    if (place->strict) err = folder_judge(place, path, true, why);
    if (err != TARN_OK) break;
    bool last = false;
    if (!name_take(place)) err = path_error(why, path, errno);
    else if (fstatat(place->folder, place->name, info, AT_SYMLINK_NOFOLLOW) != 0) {
      err = path_error(why, path, errno);
      if (err == TARN_NOT_FOUND && is_last(place)) return err;
    } else if (S_ISLNK(info->st_mode)) err = link_follow(place, path, info, why);
    else if (is_last(place)) last = true;
    else if (!folder_enter(place, place->name)) err = path_refused(why, path, errno == ELOOP ? ENOTDIR : errno);
    if (last) return TARN_OK;
  }
  place_close(place);
  return err;
}

/* ---- what is there ---- */

static const char *kind_text(mode_t mode) {
  return S_ISDIR(mode)    ? "a directory"
         : S_ISCHR(mode)  ? "a character device"
         : S_ISFIFO(mode) ? "a pipe"
         : S_ISSOCK(mode) ? "a socket"
                          : "something odd";
}

static tarn_err kind_check(const char *path, const struct stat *info, struct why *why) {
  if (S_ISREG(info->st_mode) || S_ISBLK(info->st_mode)) return TARN_OK;
  errno = 0;
  return because(why, TARN_INVALID, "%s is %s, not a file or block device", path, kind_text(info->st_mode));
}

static tarn_err own_check(const char *path, const struct stat *info, struct why *why) {
  errno = 0;
  if (!is_ours(info->st_uid))
    return because(
        why, TARN_REFUSED,
        "%s belongs to another user (%u), who could write anything there, and is not used; chown it, or remove it",
        path, (unsigned)info->st_uid);
  if (!S_ISREG(info->st_mode)) return TARN_OK; /* that a group may write to a device is usual */
  if (info->st_nlink != 1)
    return because(
        why, TARN_REFUSED,
        "%s has other names (hard links), and is not used: remove those, or put a copy in its place ('cp', then 'mv')",
        path);
  if (others_write(info->st_mode))
    return because(why, TARN_REFUSED, "others may write to %s, so it is not used: chmod go-w, or remove it", path);
  return TARN_OK;
}

tarn_err trusted_look(const char *path, struct statx *status, struct why *why) {
  struct place place = {.strict = false};
  struct stat info;
  tarn_err err = place_find(path, path, &place, &info, why);
  if (err == TARN_OK &&
      statx(place.folder, place.name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, status) != 0)
    err = path_error(why, path, errno);
  place_close(&place);
  return err;
}

/* ---- opening ---- */

static tarn_err judge(const char *path, const struct stat *info, enum trusted whose, struct why *why) {
  tarn_err err = kind_check(path, info, why);
  return err == TARN_OK && whose == TRUSTED_OWN ? own_check(path, info, why) : err;
}

/* In place.folder. */
static tarn_err open_in(const struct place *place, const char *path, int flags, enum trusted whose, int *fd,
                        struct why *why) {
  struct stat info;
  *fd = openat(place->folder, place->name, flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0600);
  if (*fd < 0) return path_error(why, path, errno);
  tarn_err err = fstat(*fd, &info) == 0 ? judge(path, &info, whose, why) : path_error(why, path, errno);
  if (err == TARN_OK && fcntl(*fd, F_SETFL, flags & ~O_NONBLOCK) != 0) err = path_error(why, path, errno);
  if (err == TARN_OK) return TARN_OK;
  int error = errno;
  close(*fd);
  errno = error;
  *fd = -1;
  return err;
}

tarn_err trusted_open(const char *path, int flags, enum trusted whose, int *fd, struct why *why) {
  struct place place = {.strict = false};
  struct stat info;
  bool make = flags & O_CREAT;
  require(!(flags & O_TRUNC) && (!make || flags & O_EXCL));
  *fd = -1;
  tarn_err err = place_find(path, path, &place, &info, why);
  if (make && err == TARN_OK) err = path_refused(why, path, EEXIST);
  else if (make && err == TARN_NOT_FOUND && place.folder >= 0) err = open_in(&place, path, flags, whose, fd, why);
  else if (!make && err == TARN_OK) err = judge(path, &info, whose, why);
  if (!make && err == TARN_OK)
    err = open_in(&place, path, S_ISBLK(info.st_mode) ? flags : flags & ~O_EXCL, whose, fd, why);
  place_close(&place);
  return err;
}

tarn_err trusted_remove(const char *path, struct why *why) {
  char folder[PATH_MAX];
  const char *slash = strrchr(path, '/');
  struct place place = {.strict = false};
  struct stat info;
  /* The last name as it is: a link is removed, not what it leads to. */
  size_t bytes = slash ? (size_t)(slash - path) : 0;
  if (bytes >= sizeof folder - 2) return path_refused(why, path, ENAMETOOLONG);
  if (slash) (void)snprintf(folder, sizeof folder, "%.*s/.", (int)bytes, path);
  else strcpy(folder, "./.");
  tarn_err err = place_find(folder, path, &place, &info, why);
  if (err == TARN_OK && unlinkat(place.folder, slash ? slash + 1 : path, 0) != 0) err = path_error(why, path, errno);
  place_close(&place);
  return err;
}

tarn_err trusted_folder(const char *path, struct why *why) {
  struct place place = {.strict = true};
  struct stat info;
  char whole[PATH_MAX];
  if (snprintf(whole, sizeof whole, "%s/.", path) >= (int)sizeof whole) return path_refused(why, path, ENAMETOOLONG);
  tarn_err err = place_find(whole, path, &place, &info, why);
  if (err == TARN_OK) err = folder_judge(&place, path, false, why);
  place_close(&place);
  return err;
}
