/* device_identity.h - which block device is it: what the kernel and udev know of one, beyond a name and a number that may belong
 * to another device after a restart.
 *
 * An identity is a list of *facts*, a text each, "KIND VALUE", the strongest first:
 *
 *     tail U        the uuid in the locator of its tail (format/locator.h): we have written it there ourselves
 *     dm U, md U    uuid of a device-mapper device (LVM, multipath, LUKS), of an md array; MD_UUID U: as udev writes that
 *     wwid W        the World Wide Identifier of a SCSI or NVMe disk; with "#N" behind it of its partition N; wwn W: as udev writes it
 *     serial S      what a disk says of itself; also with #N; udev S: ID_SERIAL, as udev makes it of that. With "/N" behind it of
 *                   namespace N of an NVMe controller: all of its namespaces say the same
 *     file I.B      of a loop device: inode and birth time of the file behind it; with "@OFFSET" when it does not begin at 0
 *     partition U   PARTUUID: a copy of a whole disk has it too, so it counts only where nothing above is known on both sides
 *     path P        of a loop device: the path of its file; as weak
 *
 * Which facts are known changes with drivers, udev, and how far the system has started. So two lists are compared by those kinds
 * that both have: one that is equal says the same, else one that differs says other; none: nobody can tell.
 *
 * Reads files of sysfs and of udev's database, and looks at a loop device's file; nothing here opens a device. May block: for
 * workers. */
#ifndef TARN_SHELL_DEVICE_IDENTITY_H
#define TARN_SHELL_DEVICE_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DEVICE_FACT_BYTES 192u
#define DEVICE_FACTS_MAX  12u
#define DEVICE_LINK_BYTES 256u

struct device_identity {
  uint32_t count;
  char facts[DEVICE_FACTS_MAX][DEVICE_FACT_BYTES];
};

/* Of the block device with this number (st_rdev). `root` stands before /sys, /run/udev and a loop device's path: "" but in tests. */
void device_identity_read(const char *root, uint64_t device, struct device_identity *identity);
/* Adds a fact behind those that there are; harmless when it has one of that kind, or is full. */
void device_identity_add(struct device_identity *identity, const char *kind, const char *value);

enum device_sameness { DEVICE_UNKNOWN, DEVICE_SAME, DEVICE_OTHER };
enum device_sameness device_identity_compare(const struct device_identity *a, const struct device_identity *b);
/* A fact as a number, the strongest first; 0: there is none of that index. */
uint64_t device_identity_number(const struct device_identity *identity, uint32_t index);
/* The strongest fact, for people; "nothing is known of it". */
const char *device_identity_text(const struct device_identity *identity);

/* Is `path` a name that another device may have after a restart, as /dev/sdb is? Then `link` is a name in /dev/disk/by-id that
 * stays, or empty. `link` has DEVICE_LINK_BYTES. */
bool device_name_moves(const char *root, const char *path, uint64_t device, char *link);

#endif
