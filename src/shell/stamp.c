#include "shell/stamp.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/prng.h"
#include "shell/data_disk.h"
#include "shell/image_identity.h"

/* Neither a device's number, which changes with the order of disks at boot, nor a block device's name. */
void stamp_identity_add(uint64_t *stamp, const struct file_identity *file, uint64_t device) {
  uint64_t which = file->is_block_device ? device : file->inode;
  *stamp = mix_u64(*stamp ^ mix_u64(which) ^ (uint64_t)file->birth_ns) | 1;
}

/* Adds one file of a disk. False: when it was changed cannot be told. */
static bool stamp_add(struct image_stamp *stamp, const struct file_identity *identity, uint64_t device, bool whole,
                      int64_t modified) {
  stamp_identity_add(&stamp->identity, identity, device);
  stamp->modified = mix_u64(stamp->modified ^ (uint64_t)modified) | 1;
  /* Other parts of a file may be written to by others. */
  return modified != 0 && !identity->is_block_device && whole;
}

/* An NBD server: it tells nothing of what it is. */
static bool stamp_add_unknown(struct image_stamp *stamp) {
  stamp->identity = mix_u64(stamp->identity) | 1;
  return false;
}

/* What is known of the device that such a file of the image's volume is. `fact`: as in image_device_number(); NO_FACT: as if
 * nothing were known of devices. */
#define NO_FACT DEVICE_FACTS_MAX
static uint64_t device_number(const struct image_disks *disks, const struct mirror_file_image *image, uint32_t volume,
                              const struct data_file *file, uint32_t fact) {
  const char *path = disk_text_kind(image->paths[volume]) == DISK_KIND_FILE ? image->paths[volume] : file->path;
  return fact == NO_FACT ? 0 : image_device_number(image->devices, disks->devices, path, fact);
}

static void found_by(const struct image_disks *disks, const struct mirror_file *file, uint32_t slot, uint32_t fact,
                     struct image_stamp *stamp) {
  *stamp = (struct image_stamp){0};
  bool known = true;
  for (uint32_t i = 0; i < file->volume_count; i++) {
    if (!disks->data[i]) return;
    struct data_file files[DISK_PARTS_MAX];
    uint32_t count = data_disk_files(disks->data[i], files);
    if (count == 0) known = stamp_add_unknown(stamp);
    for (uint32_t j = 0; j < count; j++) {
      const struct file_identity *identity = file_disk_identity(files[j].file);
      uint64_t device = device_number(disks, &file->images[slot], i, &files[j], fact);
      known = stamp_add(stamp, identity, device, files[j].whole, identity->mtime_ns) && known;
    }
  }
  if (!known) stamp->modified = 0;
}

void image_disks_found(const struct image_disks *disks, const struct mirror_file *file, uint32_t slot,
                       uint64_t recorded, struct image_stamp *stamp) {
  struct image_stamp maybe;
  found_by(disks, file, slot, 0, stamp);
  if (image_devices_compare(file->images[slot].devices, disks->devices) == DEVICE_OTHER) return;
  for (uint32_t fact = 1; fact <= NO_FACT && recorded != 0; fact++) {
    found_by(disks, file, slot, fact, &maybe);
    if (maybe.identity == recorded) stamp->identity = recorded;
  }
}

/* ---- by a thread ---- */

static void stamp_work(struct reactor_work *work) {
  struct stamping *stamping = CONTAINER_OF(work, struct stamping, work);
  struct image_stamp *stamp = &stamping->stamp;
  bool known = true;
  for (uint32_t i = 0; i < stamping->count; i++) {
    int fd = stamping->files[i].fd;
    int64_t modified = fd < 0 ? 0 : file_modified_ns(fd);
    if (fd >= 0) close(fd);
    if (stamping->files[i].remote) known = stamp_add_unknown(stamp);
    else
      known = stamp_add(stamp, &stamping->files[i].identity, stamping->files[i].device, stamping->files[i].whole,
                        modified) &&
              known;
  }
  if (!known) stamp->modified = 0;
}

static void stamp_worked(struct reactor_work *work) {
  struct stamping *stamping = CONTAINER_OF(work, struct stamping, work);
  list_remove(&stamping->link);
  if (stamping->done) stamping->done(stamping);
  free(stamping);
}

static void files_take(struct stamping *stamping, const struct image_disks *disks,
                       const struct mirror_file_image *image, uint32_t volume) {
  struct data_file files[DISK_PARTS_MAX];
  uint32_t count = data_disk_files(disks->data[volume], files);
  for (uint32_t j = 0; j < count; j++) {
    uint32_t i = stamping->count++;
    stamping->files[i].identity = *file_disk_identity(files[j].file);
    stamping->files[i].device = device_number(disks, image, volume, &files[j], 0);
    /* When a file was changed that others use too says nothing of our part: nobody waits for a sync of it. */
    stamping->files[i].fd = files[j].whole ? file_disk_fd_own(files[j].file) : -1;
    stamping->files[i].whole = files[j].whole;
  }
  if (count > 0) return;
  stamping->files[stamping->count].fd = -1;
  stamping->files[stamping->count++].remote = true;
}

bool stamping_start(struct reactor *reactor, const struct image_disks *disks, const struct mirror_file *file,
                    const struct stamping *as, struct list *list) {
  struct stamping *stamping = calloc(1, sizeof *stamping);
  if (!stamping) return false;
  stamping->owner = as->owner;
  stamping->image = as->image;
  stamping->round = as->round;
  stamping->done = as->done;
  bool whole = true;
  for (uint32_t i = 0; i < file->volume_count; i++) whole = whole && disks->data[i];
  for (uint32_t i = 0; i < file->volume_count && whole; i++) files_take(stamping, disks, &file->images[as->image], i);
  list_init(&stamping->link);
  list_push(list, &stamping->link);
  reactor_run_blocking(reactor, NULL, &stamping->work, stamp_work, stamp_worked);
  return true;
}

void stampings_forget(struct list *list) {
  for (struct list *node; (node = list_pop(list)) != NULL;) LIST_ENTRY(node, struct stamping, link)->done = NULL;
}
