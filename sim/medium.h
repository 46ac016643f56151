/* medium.h - the bytes of a simulated disk, and what becomes of them when power is lost. It outlives processes.
 *
 * A medium is sectors of 512 bytes, or 4096. Each has a visible version (what reads see), a durable version, and,
 * between the two, the versions that a write cache went through. Flush and FUA make versions durable; a power loss
 * leaves each sector with any of its versions from the durable one on, drawn by chance. docs/fault-model.md is the
 * specification.
 *
 * After a flush that failed the versions it should have saved are `doubtful`: no later flush makes them durable, only
 * another write of that sector does. */
#ifndef TARN_SIM_MEDIUM_H
#define TARN_SIM_MEDIUM_H

#include "base/bitmap.h"
#include "sim/world.h"

#define MEDIUM_SECTOR 512u
#define MEDIUM_PAGE   4096u

struct medium_version;
struct medium {
  struct world *world;
  char name[24];
  uint64_t size_bytes;   /* a multiple of MEDIUM_PAGE */
  uint32_t sector_bytes; /* MEDIUM_SECTOR, unless the owner of a fresh one says MEDIUM_PAGE */
  bool volatile_cache;
  uint8_t *visible, *durable;
  struct medium_sector *sectors;
  uint32_t *dirty; /* indexes of sectors whose visible version is not durable */
  uint32_t dirty_count;
  uint32_t sequence;     /* of the latest version anywhere */
  struct bitmap touched; /* pages whose visible bytes changed since the checker looked */
  struct prng prng;
};

struct medium *medium_new(struct world *world, const char *name, uint64_t index, uint64_t size_bytes,
                          bool volatile_cache);

void medium_read(const struct medium *medium, uint64_t offset, uint64_t length, uint8_t *out);
/* `data` NULL: zeroes. With `durable` (FUA, or no volatile cache) the touched sectors are on stable storage at once. */
void medium_write(struct medium *medium, uint64_t offset, uint64_t length, const uint8_t *data, bool durable);
/* The same, of some of the sectors only, drawn by chance: a write that was cut short. Returns true if some but not all. */
bool medium_write_torn(struct medium *medium, uint64_t offset, uint64_t length, const uint8_t *data, bool durable);

/* A flush covers what was visible when it was submitted: take a mark then, and end with it. */
uint32_t medium_flush_mark(const struct medium *medium);
void medium_flush_done(struct medium *medium, uint32_t mark);
void medium_flush_failed(struct medium *medium, uint32_t mark);

/* Rot: the bits of `mask` are flipped in this byte, in every version of it. */
void medium_flip(struct medium *medium, uint64_t offset, uint8_t mask);
/* Its first bytes are these, and durable. Requires that all is durable. */
void medium_put(struct medium *medium, const uint8_t *bytes, uint64_t length);
/* All zero, and durable. */
void medium_erase(struct medium *medium);

/* Every sector falls to one of its versions; all is durable then. Returns how many sectors fell back. */
uint64_t medium_power_loss(struct medium *medium);

#endif
