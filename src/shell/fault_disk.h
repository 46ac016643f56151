/* fault_disk.h - a disk that wraps another and does to its I/Os what `tarn fault` asks for (tarnd --enable-faults only).
 *
 * What is asked for belongs to an image, as `struct faults`, which lives as long as the image is known: its disks may be closed
 * and opened again meanwhile, and are as faulty as before. Each data disk of it is a fault disk. With nothing injected that
 * passes everything on: capabilities, errors, buffers.
 *
 *   fail      the I/O does not reach the disk and ends with TARN_IO
 *   hang      it is kept until faults_heal(), and goes to the disk then: a write lands late. Until then the disk cannot be closed
 *   delay     it goes to the disk that much later
 *   corrupt   a read that succeeds returns one wrong bit in each sector; what was written since the fault was injected is read
 *             back right, as on a disk with bad places. (Of ranges beyond 4 GiB the places get coarser: what does not cover one in
 *             full heals nothing.) The stored bytes are never touched
 *
 * An I/O that meets several is kept by `hang`; else it waits for the longest `delay`, and fails then if it meets `fail`. Which
 * it meets is judged when it is submitted; a read is corrupted by what holds when it comes back.
 *
 * All of it is for the reactor's thread. Faults are never stored. */
#ifndef TARN_SHELL_FAULT_DISK_H
#define TARN_SHELL_FAULT_DISK_H

#include "base/bitmap.h"
#include "core/disk.h"
#include "format/record.h"
#include "shell/why.h"

enum fault_kind { FAULT_FAIL, FAULT_HANG, FAULT_DELAY, FAULT_CORRUPT };
enum fault_on { FAULT_ON_READ = 1, FAULT_ON_WRITE = 2, FAULT_ON_FLUSH = 4 }; /* write: trim and write-zeroes too */

struct fault_spec {
  enum fault_kind kind;
  uint32_t on; /* enum fault_on; 0: what it is wanted for mostly. corrupt: reads; with a range: no flushes; else all */
  uint64_t offset,
      length; /* of each volume; length 0: everywhere. A flush has no place: it meets a fault that is `on` flushes */
  uint64_t delay_ns; /* FAULT_DELAY */
};

#define FAULTS_MAX          16u
#define FAULT_DELAY_NS_MAX  (86400 * NS_PER_S)
#define FAULT_SPEC_TEXT_MAX 120u

struct fault {
  struct fault_spec spec; /* `on` is never 0 */
  struct fault_written {  /* FAULT_CORRUPT: where its disk, by volume, has been written to since */
    struct bitmap units;
    uint64_t first, unit_bytes; /* of the disk */
  } written[VOLUMES_MAX];
};
struct faults {
  struct fault list[FAULTS_MAX];
  uint32_t count;
  struct list disks; /* those that are open */
};

void faults_init(struct faults *faults);
/* Heals. Requires that none of its disks is open. */
void faults_destroy(struct faults *faults);
/* In force at once, on the open disks and on those to come. One that differs from an active one in nothing but the delay takes its
 * place. TARN_INVALID with the reason; TARN_FULL: FAULTS_MAX are active, or no memory. Then nothing has changed. */
CHECKED tarn_err faults_inject(struct faults *faults, const struct fault_spec *spec, struct why *why);
/* Ends all faults; what is kept goes to the disks, oldest first. */
void faults_heal(struct faults *faults);
/* I/Os that are kept by a hang. */
uint32_t faults_kept(const struct faults *faults);
/* As `tarn fault` would be told: "fail --range 0+4096 --on read,write". */
void fault_spec_text(const struct fault_spec *spec, char text[FAULT_SPEC_TEXT_MAX]);

/* `lower` is the fault disk's from then on, and closed with it; of an image's `volume`-th volume. TARN_FULL without memory: then
 * `lower` is the caller's still. */
CHECKED tarn_err fault_disk_new(struct faults *faults, uint32_t volume, struct disk *lower, struct disk **disk);
/* What it wraps, for who must know more of it than that it is a disk; of any other disk: itself. */
struct disk *fault_disk_lower(struct disk *disk);

#endif
