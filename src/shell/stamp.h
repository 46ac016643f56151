/* stamp.h - what an image's files are like, as one number each (core/mirror.h: stamp; format/record.h).
 *
 * The time of the last change counts once it is on stable storage, which may take long, or for ever: a thread looks, with descriptors
 * of its own, so that the disks may be closed meanwhile. A stamping is a work of its own; its owner is told once, or forgets it. */
#ifndef TARN_SHELL_STAMP_H
#define TARN_SHELL_STAMP_H

#include "shell/disk_text.h"
#include "shell/file_identity.h"
#include "shell/mirror_disks.h"

struct stamping {
  struct list link; /* in the owner's list, until it has ended */
  /* the owner's */
  void *owner;
  uint32_t image, round;
  struct image_stamp stamp; /* valid in `done`; zeroes: cannot be told */
  void (*done)(struct stamping *stamping);
  /* private */
  struct reactor_work work;
  uint32_t count;
  struct {
    struct file_identity identity;
    uint64_t device; /* what is known of a block device, as one number */
    int fd;          /* -1: what can be told is not when it was changed */
    bool remote;     /* no file: not even what it is */
    bool whole;
  } files[VOLUMES_MAX * DISK_PARTS_MAX];
};

/* Looks at the files as they are now; the struct, which `as` begins, is a copy, linked in `list`. `done` runs from the event queue.
 * False when memory is short. */
CHECKED bool stamping_start(struct reactor *reactor, const struct image_disks *disks, const struct mirror_file *file,
                            const struct stamping *as, struct list *list);
/* `done` of none of these is called any more. */
void stampings_forget(struct list *list);
/* What an image's files were like before they were opened. `recorded` is the identity that the mirror's record has of them: where
 * it is made of another fact that is true of them, or from before devices had any, that is what was found. */
void image_disks_found(const struct image_disks *disks, const struct mirror_file *file, uint32_t slot,
                       uint64_t recorded, struct image_stamp *stamp);
/* Adds a file to the identity of an image's stamp: of a device what image_device_number() says, or 0. */
void stamp_identity_add(uint64_t *stamp, const struct file_identity *file, uint64_t device);

#endif
