/* faults.h - the faults of one disk: when, on what, for how long. Drawn by the atlas (weather.h), asked by sim_disk.c. */
#ifndef TARN_SIM_FAULTS_H
#define TARN_SIM_FAULTS_H

#include "core/disk.h"
#include "sim/world.h"

enum fault_kind {
  FAULT_ONCE,
  FAULT_WHILE,
  FAULT_GOOD,
  FAULT_BAD_SECTOR,
  FAULT_FLAKY,     /* one read in three of a range fails, written or not */
  FAULT_SLOW,      /* I/Os of these kinds take twenty times as long */
  FAULT_HANG,      /* what is submitted then is kept, and lands at a moment of its own, or never */
  FAULT_MISDIRECT, /* once: a write goes to another place of the disk */
};
enum fault_ops { FAULT_READ = 1, FAULT_WRITE = 2, FAULT_FLUSH = 4, FAULT_ALL = 7 };

struct fault {
  enum fault_kind kind;
  uint32_t ops;               /* enum fault_ops */
  uint64_t from_ns, until_ns; /* strikes in between */
  uint64_t start, end;        /* I/Os that overlap this range; a flush counts as overlapping */
  tarn_err err;
  uint32_t skip; /* FAULT_ONCE, FAULT_MISDIRECT: so many I/Os pass first */
  bool never;    /* FAULT_HANG: what it keeps does not land before the process is gone, or all is healed */
  bool fua;      /* strikes writes with FUA only, which lose at once what they lose, and are answered late */
  bool whole;    /* a write that fails has no effect at all; else any part of it may land */
  bool spent;
};

#define FAULTS_MAX 16
enum disk_role { ROLE_DATA, ROLE_META, ROLE_HOME };
struct faults {
  struct world *world;
  const char *name; /* of the disk */
  enum disk_role role;
  struct fault list[FAULTS_MAX];
  uint32_t count;
  struct prng prng;
  uint64_t struck; /* how many I/Os failed so far */
};

void faults_init(struct faults *faults, struct world *world, const char *name, enum disk_role role);
/* Returns false when there are FAULTS_MAX already. */
bool faults_add(struct faults *faults, const struct fault *fault);
void faults_heal(struct faults *faults);
/* What becomes of this I/O, submitted now: NULL, or the fault that strikes it. Counts, and uses up what strikes once. */
const struct fault *faults_judge(struct faults *faults, const struct disk_io *io);
/* A write that was done makes a bad sector good again. */
void faults_written(struct faults *faults, uint64_t offset, uint64_t length);
bool faults_slow(const struct faults *faults, enum disk_op op);
/* May an I/O fail from now on? */
bool faults_any(const struct faults *faults);

#endif
