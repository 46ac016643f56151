/* file_identity.c - see file_identity.h. */
#include "shell/file_identity.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/require.h"
#include "shell/trusted.h"

static int64_t statx_ns(struct statx_timestamp time) { return time.tv_sec * 1000000000ll + time.tv_nsec; }

/* Everything but what needs the file to be open. */
static tarn_err identify_stat(const struct statx *status, const char *path, struct file_identity *identity,
                              struct why *why) {
  unsigned mode = status->stx_mode;
  *identity = (struct file_identity){.has_data = true, .mtime_ns = statx_ns(status->stx_mtime)};
  if (S_ISBLK(mode)) {
    identity->is_block_device = true;
    identity->device = makedev(status->stx_rdev_major, status->stx_rdev_minor);
    return TARN_OK;
  }
  if (!S_ISREG(mode)) return because(why, TARN_INVALID, "%s is not a file or block device", path);
  identity->device = makedev(status->stx_dev_major, status->stx_dev_minor);
  identity->inode = status->stx_ino;
  identity->size_bytes = status->stx_size;
  if (status->stx_mask & STATX_BTIME) identity->birth_ns = statx_ns(status->stx_btime);
  return TARN_OK;
}

tarn_err file_identify(int fd, const char *path, struct file_identity *identity, struct why *why) {
  struct statx status;
  if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &status) != 0) return path_error(why, path, errno);
  tarn_err err = identify_stat(&status, path, identity, why);
  if (err) return err;
  identity->keeps_dsync = identity->is_block_device;
  if (identity->is_block_device) {
    if (ioctl(fd, BLKGETSIZE64, &identity->size_bytes) != 0) return path_error(why, path, errno);
    return TARN_OK;
  }
  struct statfs system;
  if (fstatfs(fd, &system) != 0) return path_error(why, path, errno);
  identity->is_memory = system.f_type == TMPFS_MAGIC || system.f_type == RAMFS_MAGIC;
  bool looks_at_once = system.f_type == XFS_SUPER_MAGIC || system.f_type == BTRFS_SUPER_MAGIC;
  identity->keeps_dsync = looks_at_once || system.f_type == EXT4_SUPER_MAGIC;
  identity->writes_may_wait = !looks_at_once;
  identity->has_data = !(lseek(fd, 0, SEEK_DATA) < 0 && errno == ENXIO);
  return TARN_OK;
}

tarn_err file_inspect(const char *path, struct file_identity *identity, struct why *why) {
  int fd;
  tarn_err err = trusted_open(path, O_RDONLY, TRUSTED_DATA, &fd, why);
  if (err != TARN_OK) return err;
  err = file_identify(fd, path, identity, why);
  close(fd);
  return err;
}

bool file_identity_same(const struct file_identity *a, const struct file_identity *b) {
  return a->device == b->device && a->inode == b->inode && a->is_block_device == b->is_block_device &&
         a->birth_ns == b->birth_ns;
}

bool file_identity_neighbours(const struct file_identity *a, const struct file_identity *b) {
  return a->device == b->device;
}

tarn_err file_still_there(const char *path, const struct file_identity *identity, uint64_t size_bytes,
                          struct why *why) {
  struct statx status;
  tarn_err err = trusted_look(path, &status, why);
  if (err == TARN_NOT_FOUND) return because(why, TARN_GONE, "%s was removed or renamed", path);
  if (err == TARN_REFUSED && errno == 0) return because(why, TARN_GONE, "%s was replaced by a symbolic link", path);
  if (err != TARN_OK) return err == TARN_IO ? TARN_IO : because(why, TARN_IO, "%s cannot be looked at any more", path);
  struct file_identity now;
  if (identify_stat(&status, path, &now, why)) return because(why, TARN_GONE, "%s was replaced", path);
  if (!file_identity_same(&now, identity)) return because(why, TARN_GONE, "%s was replaced by another file", path);
  uint64_t sectors;
  if (now.is_block_device)
    now.size_bytes = file_device_number(now.device, "size", &sectors) ? sectors * 512 : size_bytes;
  if (now.size_bytes < size_bytes)
    return because(why, TARN_CORRUPT, "%s was made shorter: it has %llu bytes instead of %llu", path,
                   (unsigned long long)now.size_bytes, (unsigned long long)size_bytes);
  return TARN_OK;
}

bool path_is_for_devices(const char *path) {
  return strncmp(path, "/dev/", 5) == 0 && strncmp(path, "/dev/shm/", 9) != 0;
}

bool file_device_number(uint64_t device, const char *name, uint64_t *value) {
  /* A partition has no queue of its own: its disk's is one folder up. */
  static const char *const formats[] = {"/sys/dev/block/%u:%u/%s", "/sys/dev/block/%u:%u/../%s"};
  for (size_t i = 0; i < COUNT_OF(formats); i++) {
    char path[128], text[32] = "";
    (void)snprintf(path, sizeof(path), formats[i], major(device), minor(device), name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) continue;
    ssize_t got = read(fd, text, sizeof(text) - 1);
    close(fd);
    char *end;
    *value = strtoull(text, &end, 10);
    if (got > 0 && end != text) return true;
  }
  return false;
}

/* The name is in the folder for good only once the folder is on stable storage. */
static int folder_sync(const char *path) {
  char folder[4096];
  const char *slash = strrchr(path, '/');
  size_t length = slash ? (size_t)(slash - path) : 0;
  if (length >= sizeof(folder)) return ENAMETOOLONG;
  if (!slash) {
    memcpy(folder, ".", 2);
  } else if (length == 0) {
    memcpy(folder, "/", 2);
  } else {
    memcpy(folder, path, length);
    folder[length] = '\0';
  }
  int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return errno;
  int error = fsync(fd) == 0 ? 0 : errno;
  close(fd);
  return error;
}

tarn_err file_create(const char *path, uint64_t size_bytes, struct why *why) {
  require(size_bytes <= INT64_MAX);
  int fd;
  tarn_err err = trusted_open(path, O_RDWR | O_CREAT | O_EXCL, TRUSTED_DATA, &fd, why);
  if (err == TARN_NOT_FOUND) return because(why, err, "%s cannot be made: its folder does not exist", path);
  if (err != TARN_OK) return err;

  int error = ftruncate(fd, (off_t)size_bytes) == 0 ? 0 : errno;
  if (!error && fsync(fd) != 0) error = errno;
  if (!error) error = folder_sync(path);
  if (close(fd) != 0 && !error) error = errno;
  if (!error) return TARN_OK;
  (void)!trusted_remove(path, NULL);
  if (error == EFBIG)
    return because(why, TARN_NO_SPACE, "%s cannot be made: %llu bytes are more than its file system allows for a file",
                   path, (unsigned long long)size_bytes);
  return path_error(why, path, error);
}
