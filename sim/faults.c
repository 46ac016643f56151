#include "sim/faults.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *const kind_names[] = {"once",  "for a while", "for good", "bad sector",
                                         "flaky", "slow",        "hang",     "misdirect"};

void faults_init(struct faults *faults, struct world *world, const char *name, enum disk_role role) {
  *faults = (struct faults){.world = world, .name = name, .role = role, .prng = world_stream(world, name, 0)};
}

static bool fault_is_over(const struct faults *faults, const struct fault *fault) {
  return fault->spent || fault->until_ns <= world_now(faults->world);
}

static void trace_fault(const struct faults *faults, const struct fault *fault) {
  static const char *const ops[] = {"",        "reads",          "writes",          "reads, writes",
                                    "flushes", "reads, flushes", "writes, flushes", "all"};
  struct world *world = faults->world;
  char where[64] = "", when[64] = "";
  if (!world->traced) return;
  if (fault->end != UINT64_MAX)
    snprintf(where, sizeof where, ", %" PRIu64 "+%" PRIu64, fault->start, fault->end - fault->start);
  if (fault->from_ns > world_now(world)) snprintf(when, sizeof when, ", from %.3f ms on", (double)fault->from_ns / 1e6);
  size_t used = strlen(when);
  if (fault->until_ns != UINT64_MAX)
    snprintf(when + used, sizeof when - used, ", until %.3f ms", (double)fault->until_ns / 1e6);
  world_trace(world, "fault on %s: %s, %s%s%s", faults->name, kind_names[fault->kind], ops[fault->ops & FAULT_ALL],
              where, when);
}

bool faults_add(struct faults *faults, const struct fault *fault) {
  require(fault->start < fault->end);
  uint32_t place = 0;
  while (place < faults->count && !fault_is_over(faults, &faults->list[place])) place++;
  if (place == FAULTS_MAX) return false;
  faults->list[place] = *fault;
  if (place == faults->count) faults->count++;
  trace_fault(faults, fault);
  return true;
}

void faults_heal(struct faults *faults) { faults->count = 0; }

static uint32_t op_class(enum disk_op op) {
  switch (op) {
    case DISK_READ:
    case DISK_EXTENTS: return FAULT_READ;
    case DISK_WRITE:
    case DISK_TRIM:
    case DISK_WRITE_ZEROES: return FAULT_WRITE;
    case DISK_FLUSH: return FAULT_FLUSH;
    case DISK_OP_COUNT: break;
  }
  require(!"an op");
  return 0;
}

static bool fault_strikes(const struct faults *faults, const struct fault *fault, const struct disk_io *io) {
  uint64_t now = world_now(faults->world);
  if (fault->kind == FAULT_SLOW || fault->spent || now < fault->from_ns || now >= fault->until_ns) return false;
  if (!(op_class(io->op) & fault->ops)) return false;
  if (fault->fua && !(io->flags & DISK_FUA)) return false;
  if (fault->kind == FAULT_MISDIRECT && io->op != DISK_WRITE) return false;
  return io->op == DISK_FLUSH || (io->offset < fault->end && fault->start < io->offset + io->length);
}

static void fault_count(struct faults *faults, const struct fault *fault, enum disk_op op) {
  struct sim_counters *counters = &faults->world->counters;
  switch (fault->kind) {
    case FAULT_ONCE: counters->io_fails_once++; break;
    case FAULT_WHILE: counters->io_fails_for_a_while++; break;
    case FAULT_GOOD: counters->io_fails_for_good++; break;
    case FAULT_BAD_SECTOR: counters->bad_sector++; break;
    case FAULT_FLAKY: counters->flaky_sector++; break;
    case FAULT_HANG: counters->io_hangs++; return;
    case FAULT_MISDIRECT: counters->meta_misdirected++; return;
    case FAULT_SLOW: return;
  }
  if (op == DISK_FLUSH) counters->flush_fails++;
  if (faults->role != ROLE_DATA && fault->kind == FAULT_BAD_SECTOR) counters->meta_unreadable++;
  if (faults->role == ROLE_META) counters->meta_fails++;
  if (faults->role == ROLE_HOME) counters->home_fails++;
  faults->struck++;
}

const struct fault *faults_judge(struct faults *faults, const struct disk_io *io) {
  for (uint32_t i = 0; i < faults->count; i++) {
    struct fault *fault = &faults->list[i];
    if (!fault_strikes(faults, fault, io)) continue;
    if (fault->kind == FAULT_FLAKY && !prng_one_in(&faults->prng, 3)) continue;
    if (fault->skip > 0) {
      fault->skip--;
      continue;
    }
    fault_count(faults, fault, io->op);
    if (fault->kind == FAULT_ONCE || fault->kind == FAULT_MISDIRECT) fault->spent = true;
    return fault;
  }
  return NULL;
}

void faults_written(struct faults *faults, uint64_t offset, uint64_t length) {
  for (uint32_t i = 0; i < faults->count; i++) {
    struct fault *fault = &faults->list[i];
    if (fault->kind != FAULT_BAD_SECTOR || fault->spent) continue;
    if (offset <= fault->start && fault->end <= offset + length) fault->spent = true;
  }
}

bool faults_slow(const struct faults *faults, enum disk_op op) {
  uint64_t now = world_now(faults->world);
  for (uint32_t i = 0; i < faults->count; i++) {
    const struct fault *fault = &faults->list[i];
    bool slow = fault->kind == FAULT_SLOW && (op_class(op) & fault->ops);
    if (slow && fault->from_ns <= now && now < fault->until_ns) return true;
  }
  return false;
}

bool faults_any(const struct faults *faults) {
  for (uint32_t i = 0; i < faults->count; i++)
    if (faults->list[i].kind != FAULT_SLOW && !fault_is_over(faults, &faults->list[i])) return true;
  return false;
}
