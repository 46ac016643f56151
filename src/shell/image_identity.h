/* image_identity.h - which devices an image lies on: what config.json keeps of them, against what is at their paths now.
 *
 * `devices` is a JSON array with an entry for each block device among an image's disks:
 *
 *     [{"path": "/dev/sdb", "facts": ["wwid naa.5000c500a1b2c3d4", ...]}, ...]       facts as in device_identity.h
 *
 * The path is the one that the image names. What is *kept* of an image is what was there when it was last taken into the mirror;
 * facts that are learned later are added behind. NULL: nothing is kept (only files, or from before this was known).
 *
 * All but the reading is pure. What reads may block: for workers. */
#ifndef TARN_SHELL_IMAGE_IDENTITY_H
#define TARN_SHELL_IMAGE_IDENTITY_H

#include "core/disk.h"
#include "shell/device_identity.h"
#include "shell/mirror_file.h"

/* Is this a list of devices as above? */
bool image_devices_are_valid(const json_t *devices);
/* Of an image's open disks. A new reference; NULL: no block device is among them. */
json_t *image_devices_read(const struct mirror_file *file, uint32_t slot, struct disk *const *disks);
/* The same of an image that is not open, from what is at its paths. */
json_t *image_devices_look(const struct mirror_file *file, uint32_t slot);
/* The fact of that index, which a record's stamp was made of, goes to the front: the image's next stamp is made of it too. */
void image_devices_prefer(json_t *devices, uint32_t index);

/* Of the device at that path (an image's own name for it). */
enum device_sameness image_device_compare(const json_t *kept, const json_t *now, const char *path);
/* One OTHER makes it OTHER; all SAME, or nothing kept: SAME. */
enum device_sameness image_devices_compare(const json_t *kept, const json_t *now);
/* For the image's stamp: the kept device's strongest fact, as long as nothing says that it is another; else, and when nothing is
 * kept, the present one's fact of that index. 0: nothing is known. */
uint64_t image_device_number(const json_t *kept, const json_t *now, const char *path, uint32_t index);
/* The image lies on these now: `*kept` takes them over, and the facts that it has not got. True: it has changed. */
bool image_devices_adopt(json_t **kept, const json_t *now);

/* Where an image's disk is now. A device whose path holds another one is looked for at the other paths of its mirror, as after a
 * restart that gave sdb and sdc each other's names. */
enum image_place {
  PLACE_OWN,   /* where it should be, or nobody knows where; then `note` says what is wrong, or is empty */
  PLACE_FOUND, /* at exactly one of the others for certain, which `place` names; `note` says it */
  PLACE_NONE,  /* its path holds what belongs to another image of the mirror, which `note` names: not to be opened */
};
enum image_place image_place_find(const struct mirror_file *file, uint32_t slot, uint32_t volume,
                                  char place[PATH_BYTES_MAX + 1], struct why *note);
/* An image was removed since `before`: whose device is at a path that is no image's any more, as that one's was, would be looked for
 * there no more. So it has that path for its own from now on. */
void image_places_settle(const struct mirror_file *before, struct mirror_file *file);
/* The entry of that path, if there is one. */
void image_devices_rename(json_t *devices, const char *from, const char *to);

#endif
