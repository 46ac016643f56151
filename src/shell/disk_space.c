#include "shell/disk_space.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/require.h"

/* One line of /sys about a block device; false when there is no such file: it is no partition, for one. */
static bool sys_read(uint64_t device, const char *name, char *text, size_t bytes) {
  char path[128];
  (void)snprintf(path, sizeof path, "/sys/dev/block/%u:%u/%s", major(device), minor(device), name);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  ssize_t got = read(fd, text, bytes - 1);
  close(fd);
  text[got > 0 ? got : 0] = 0;
  return got > 0;
}

/* Of a partition: the device that it is a part of, and where. */
static bool partition_of(uint64_t device, uint64_t *whole, uint64_t *begin, uint64_t *bytes) {
  char text[64];
  unsigned major_number, minor_number;
  if (!sys_read(device, "partition", text, sizeof text)) return false;
  if (!sys_read(device, "start", text, sizeof text)) return false;
  *begin = strtoull(text, NULL, 10) * 512; /* sectors of 512 bytes, whatever the device's are */
  if (!sys_read(device, "size", text, sizeof text)) return false;
  *bytes = strtoull(text, NULL, 10) * 512;
  if (!sys_read(device, "../dev", text, sizeof text)) return false;
  if (sscanf(text, "%u:%u", &major_number, &minor_number) != 2) return false;
  *whole = makedev(major_number, minor_number);
  return true;
}

void disk_space_of(const struct file_identity *identity, uint64_t offset, uint64_t length, struct disk_space *space) {
  uint64_t whole, begin, bytes;
  *space = (struct disk_space){
      .file = *identity, .begin = offset, .end = length && length < UINT64_MAX - offset ? offset + length : UINT64_MAX};
  if (!identity->is_block_device || !partition_of(identity->device, &whole, &begin, &bytes)) return;
  space->file.device = whole;
  space->end = min_u64(space->end, bytes) + begin;
  space->begin += begin;
}

bool disk_space_overlap(const struct disk_space *a, const struct disk_space *b) {
  return file_identity_same(&a->file, &b->file) && a->begin < b->end && b->begin < a->end;
}
