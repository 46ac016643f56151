/* mirror_disks.h - all files of one mirror, opened together and closed together; or those of one image by themselves.
 *
 * Opening runs in threads, one for each image and one for the record at home, so that none waits for what another lies on. A file
 * that cannot be opened leaves its disk NULL and says why, so that the mirror goes on without that image; so does one that has not
 * opened after hang + 5 s (its file system, device or server does not answer): what is opened later is closed at once, and until
 * then the image is not opened again. One that is locked by another process is tried again until its last I/O must be over (rule 7:
 * hang + 5 s after a kill), which is reported; only then it counts as absent. An NBD server that may still be doing requests of
 * a lost connection is waited for, as long as `nbd-settle` says. */
#ifndef TARN_SHELL_MIRROR_DISKS_H
#define TARN_SHELL_MIRROR_DISKS_H

#include "core/mirror.h"
#include "shell/file_identity.h"
#include "shell/mirror_file.h"
#include "shell/reactor.h"

#define LOCK_WAIT_MORE_S 5u /* than the longest `hang` of an image */

/* How long metadata is: at least, and a file best (core/mirror.h). */
struct meta_sizes {
  uint64_t least, best;
};

/* The disks of one image. */
struct image_disks {
  struct disk *data[VOLUMES_MAX], *meta;
  bool has_data;      /* some volume's file has a data extent */
  bool locked;        /* not all are open, because of another process's lock */
  uint64_t settle_ns; /* not all are open, because an NBD server must be left alone for so long (nbd-settle) */
  struct why why;     /* empty when all are open */
  json_t *devices;    /* what is known of the devices among them (image_identity.h), or NULL */
  char
      *places[VOLUMES_MAX]; /* opened there instead of at its path, which holds another device now; NULL: at its path */
  struct why note;          /* that, or that a device is another than it was and nobody knows where that is; or empty */
};
/* Opens what is not open yet, as `file` has it. Blocks: for a worker, with `file` and `disks` lent to it. */
void image_disks_open(struct reactor *reactor, const struct mirror_file *file, uint32_t slot,
                      const struct meta_sizes *meta, struct image_disks *disks);
/* What is open belongs to another image, because files have changed places: then all is closed again, and `why` says whose it is.
 * `uuid`: the mirror's, or NULL while that is not known. For metadata in files; a tail is known by its own uuid. Blocks. */
void image_disks_check(const struct mirror_file *file, uint32_t slot, const uint8_t *uuid, struct image_disks *disks);
/* Requires disks with no I/O in flight. */
void image_disks_close(struct image_disks *disks);
/* The image has failed, and what its disks still have is given up: those that can be cut off are (NBD connections). */
void image_disks_abort(struct image_disks *disks);
/* A daemon before this one may have left requests under way on NBD servers: they settle from now on. `record`: what it wrote down last,
 * which vouches for the images that took part until a clean stop; NULL: nothing vouches for any. */
void mirror_file_unsettled(const struct mirror_file *file, const struct record *record);

struct mirror_disks {
  /* the owner's; unchanged until `opened` */
  struct reactor *reactor;
  const struct mirror_file *file;
  char record_path[META_PATH_BYTES_MAX + 64];
  struct meta_sizes meta;
  bool wait_for_locks;
  uint32_t *strays; /* counts openings that nobody waits for any more */
  /* Must the disks of this image not be opened, because something of before is still with them? `why`: as part of a sentence. May be
   * NULL: no. */
  bool (*is_kept)(const struct mirror_disks *disks, uint32_t slot, struct why *why);
  void (*opened)(struct mirror_disks *disks);
  /* what was found, from `opened` on */
  struct disk *home;
  struct why home_why; /* when home is NULL */
  struct image_disks images[IMAGES_MAX];
  /* private */
  struct image_disks opening[IMAGES_MAX], opening_home; /* as far as they are open */
  struct opening *jobs[IMAGES_MAX + 1];
  uint32_t pending;
  struct timer again, limit;
  uint64_t wait_s, deadline_ns;
  bool told, hurry;
};

/* Requires a struct whose owner's part is set and whose rest is zero. `opened` runs from the event queue. */
void mirror_disks_open(struct mirror_disks *disks);
/* Waits for no lock any more: `opened` comes soon. Harmless at any moment of its owner's life, once it was opened. */
void mirror_disks_hurry(struct mirror_disks *disks);
/* Does a thread still wait for the disks of that image to open, for which nobody waits any more? */
bool mirror_disks_are_stray(const struct mirror_file *file, uint32_t slot);
/* Closes what is open, and with it gives the locks back. Requires disks with no I/O in flight. */
void mirror_disks_close(struct mirror_disks *disks);

#endif
