#include "sim/sim_disk.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/crc32c.h"
#include "sim/damage.h"

#define LATE_NS   (3 * NS_PER_S)  /* after this nobody waits for an I/O any more, whatever `hang` is */
#define HELD_NS   (NS_PER_MS / 4) /* is looked at again */
#define RECENT_NS (2 * NS_PER_S)  /* the watch has looked since, also where an activation kept it from that */

struct sim_io {
  struct list link;
  struct sim_event event;
  struct sim_disk *disk;
  struct disk_io *io;
  uint64_t begun_ns, complete_ns;
  tarn_err err;
  bool took_effect, hung, refused; /* refused: failed before it began */
  bool early;                      /* takes effect at once */
  bool late;                       /* a write that fails, and lands when that has been answered */
  enum { PART_UNKNOWN, PART_NONE, PART_RECORD, PART_REST } part; /* of a round of metadata, a new one */
  uint64_t misplaced;                                            /* where the write goes instead; 0: nowhere */
  uint32_t flush_mark;
  uint64_t syncs_failed; /* of its drive, when it began */
  uint32_t crc;          /* of the data of a write, while we own it */
};

struct sim_disk {
  struct disk disk;
  struct sim_drive *drive;
  struct list in_flight; /* struct sim_io */
  uint64_t line_moved;
  uint32_t begun;   /* of them; the disk may have no more than the drive's depth */
  struct list line; /* struct disk_io */
};

/* A write that failed, and is on its way all the same. */
struct late_write {
  struct list link;
  struct sim_event event;
  struct sim_drive *drive;
  uint64_t offset, length;
  bool zeroes;
  uint8_t data[];
};

static const struct disk_ops sim_disk_ops;
static void connection_lost(struct sim_event *event);

static void drive_draw_caps(struct sim_drive *drive, struct prng *prng, uint64_t size_bytes, enum disk_role role) {
  static const uint32_t blocks[] = {1, 512, 512, 4096}, io_max[] = {64u << 10, 128u << 10, BUFFER_DATA_MAX};
  struct disk_caps *caps = &drive->caps;
  caps->size_bytes = size_bytes;
  caps->block_bytes = blocks[prng_below(prng, role == ROLE_DATA ? 4 : 3)];
  caps->align_bytes = caps->block_bytes;
  if (prng_one_in(prng, 4)) caps->align_bytes = max_u64(caps->block_bytes, prng_one_in(prng, 2) ? 512 : 4096) & 8191u;
  caps->io_bytes_max = io_max[prng_below(prng, 3)];
  caps->can_zero = !prng_one_in(prng, 3);
  caps->can_trim = caps->can_zero && !prng_one_in(prng, 3);
  caps->zero_block_bytes = blocks[prng_below(prng, 4)];
  caps->zero_bytes_max = prng_one_in(prng, 2) ? align_down(UINT64_MAX / 2, 4096) : 256u << 10;
  caps->volatile_cache = !prng_one_in(prng, 4);
  caps->rotational = prng_one_in(prng, 4);
}

void sim_drive_init(struct sim_drive *drive, struct world *world, const char *name, uint64_t index, uint64_t size_bytes,
                    enum disk_role role) {
  static const uint64_t latencies[] = {10000, 50000, 100000, 400000};
  struct prng prng = world_stream(world, "drive", index);
  *drive = (struct sim_drive){.prng = world_stream(world, "latency", index),
                              .late_prng = world_stream(world, "late", index),
                              .short_from = UINT64_MAX};
  drive_draw_caps(drive, &prng, size_bytes, role);
  drive->latency_ns = latencies[prng_below(&prng, COUNT_OF(latencies))];
  drive->caps.can_extents = !prng_one_in(&prng, 4);
  struct prng depths = world_stream(world, "depth", index);
  if (prng_one_in(&depths, 3)) drive->depth = prng_one_in(&depths, 2) ? 1 : (uint32_t)prng_between(&depths, 2, 4);
  if (drive->depth == 1) drive->latency_ns = 6 * NS_PER_MS; /* its line may be longer than patience */
  drive->medium = medium_new(world, name, index, align_up(size_bytes, MEDIUM_PAGE), drive->caps.volatile_cache);
  if (drive->caps.block_bytes == MEDIUM_PAGE) drive->medium->sector_bytes = MEDIUM_PAGE;
  drive->loss.run = connection_lost;
  list_init(&drive->late);
  faults_init(&drive->faults, world, drive->medium->name, role);
}

/* ---- a failed write that lands later ---- */

static void late_land(struct late_write *late) {
  struct medium *medium = late->drive->medium;
  world_cancel(medium->world, &late->event);
  (void)medium_write_torn(medium, late->offset, late->length, late->zeroes ? NULL : late->data, false);
  medium->world->counters.failed_write_lands++;
  world_trace(medium->world, "%s: the write of %" PRIu64 "+%" PRIu64 " lands that had failed", medium->name,
              late->offset, late->length);
  list_remove(&late->link);
  world_free(late);
}

static void late_write_lands(struct sim_event *event) { late_land(CONTAINER_OF(event, struct late_write, event)); }

/* It is answered now. */
static void late_begin(struct sim_drive *drive, const struct disk_io *io) {
  static const uint64_t within_ns[] = {NS_PER_MS / 10, 5 * NS_PER_MS, NS_PER_S};
  struct world *world = drive->medium->world;
  struct late_write *late = world_alloc(world, sizeof *late + io->length);
  list_init(&late->link);
  list_push(&drive->late, &late->link);
  late->drive = drive;
  late->offset = io->offset;
  late->length = io->length;
  late->zeroes = io->op != DISK_WRITE;
  if (!late->zeroes) memcpy(late->data, io->data, io->length);
  late->event.run = late_write_lands;
  uint64_t most_ns = within_ns[prng_below(&drive->late_prng, COUNT_OF(within_ns))];
  world_at(world, &late->event, world_now(world) + prng_below(&drive->late_prng, most_ns));
}

/* Nobody opens a disk again while something is on its way to it (rule 7: nbd-settle, and a server's own patience). */
static void land_all_late(struct sim_drive *drive) {
  struct list *node;
  while ((node = list_first(&drive->late))) late_land(LIST_ENTRY(node, struct late_write, link));
}

static bool draws_late(struct sim_drive *drive, const struct disk_io *io) {
  return (io->op == DISK_WRITE || io->op == DISK_WRITE_ZEROES) && prng_one_in(&drive->late_prng, 2);
}

/* ---- open and closed ---- */

struct disk *sim_disk_open(struct sim_drive *drive) {
  require(drive->open == NULL);
  struct sim_disk *disk = world_alloc(drive->medium->world, sizeof *disk);
  disk->disk = (struct disk){.ops = &sim_disk_ops, .env = &drive->medium->world->env, .caps = drive->caps};
  disk->drive = drive;
  list_init(&disk->in_flight);
  list_init(&disk->line);
  drive->longest_ns = 0;
  drive->fua_failed = false;
  drive->told_ns = 0;
  drive->short_from = UINT64_MAX;
  drive->open = disk;
  return &disk->disk;
}

static void sim_disk_close(struct disk *base) {
  struct sim_disk *disk = CONTAINER_OF(base, struct sim_disk, disk);
  require(list_is_empty(&disk->in_flight));
  land_all_late(disk->drive);
  require(list_is_empty(&disk->line));
  world_cancel(disk->drive->medium->world, &disk->drive->loss);
  disk->drive->lost = false;
  disk->drive->open = NULL;
  world_free(disk);
}

/* ---- the rules of disk.h, required once more ---- */

static void require_data_rules(const struct disk_caps *caps, const struct disk_io *io) {
  require(io->offset % caps->block_bytes == 0);
  require(io->length % caps->block_bytes == 0);
  require(io->length >= 1);
  require(io->length <= caps->io_bytes_max);
  require(io->buffer != NULL);
  require(io->buffer->refs > 0);
  require((uintptr_t)io->data % caps->align_bytes == io->offset % caps->align_bytes);
  const uint8_t *first = io->data - io->offset % caps->align_bytes;
  uint64_t end = align_up(io->offset + io->length, caps->align_bytes);
  require(first >= io->buffer->base);
  require(io->data + (end - io->offset) <= io->buffer->base + io->buffer->bytes);
}

static void require_rules(const struct disk_caps *caps, const struct disk_io *io) {
  require(io->done != NULL);
  if (io->op == DISK_FLUSH) return;
  require(io->offset <= caps->size_bytes);
  require(io->length <= caps->size_bytes - io->offset);
  if (io->op == DISK_READ || io->op == DISK_WRITE) {
    require_data_rules(caps, io);
    return;
  }
  if (io->op == DISK_EXTENTS) {
    require(caps->can_extents && io->length >= 1);
    require(io->buffer->refs > 0 && io->data >= io->buffer->base);
    require(io->data + DISK_EXTENTS_MAX * sizeof(struct disk_extent) <= io->buffer->base + io->buffer->bytes);
    return;
  }
  require(io->op == DISK_TRIM ? caps->can_trim : caps->can_zero);
  require(io->offset % caps->zero_block_bytes == 0);
  require(io->length % caps->zero_block_bytes == 0);
  require(io->length >= 1);
  require(io->length <= caps->zero_bytes_max);
}

/* The bytes of the aligned blocks around the data are the disk's to spoil. */
static void scribble(struct sim_disk *disk, const struct disk_io *io) {
  uint64_t align = disk->disk.caps.align_bytes;
  uint64_t head = io->offset % align;
  uint64_t tail = align_up(io->offset + io->length, align) - (io->offset + io->length);
  memset(io->data - head, 0xdb, head);
  memset(io->data + io->length, 0xdb, tail);
}

/* ---- what is held, so that a crash leaves a certain part of a round ---- */

static bool is_record_area(const struct disk_io *io) { return io->op == DISK_WRITE && io->offset < RECORD_AREA_BYTES; }

/* Newer than what is there: no copy of what a load has found, and not the second slot. */
static bool is_new_record(const struct sim_drive *drive, const struct disk_io *io) {
  struct record written, found;
  if (!is_record_area(io) || record_decode(&written, io->data) != TARN_OK) return false;
  for (uint32_t slot = 0; slot < 2; slot++) {
    tarn_err err = record_decode(&found, drive->medium->visible + slot * RECORD_SLOT_BYTES);
    if (err == TARN_OK && found.sequence >= written.sequence) return false;
  }
  return true;
}

static void find_part(struct sim_io *sim_io) {
  const struct disk_io *io = sim_io->io;
  if (io->op != DISK_WRITE) sim_io->part = PART_NONE;
  else if (!is_record_area(io)) sim_io->part = PART_REST;
  else sim_io->part = is_new_record(sim_io->disk->drive, io) ? PART_RECORD : PART_NONE;
}

static bool is_held(struct sim_io *sim_io) {
  const struct sim_drive *drive = sim_io->disk->drive;
  if (drive->cut == CUT_NOT) return false;
  if (sim_io->part == PART_UNKNOWN) find_part(sim_io);
  if (sim_io->io->op == DISK_FLUSH) return drive->cut_record || drive->cut_rest;
  switch (drive->cut) {
    case CUT_NOT:
    case CUT_ALL: return false;
    case CUT_NOTHING: return sim_io->part != PART_NONE;
    case CUT_BUT_RECORD: return sim_io->part == PART_RECORD;
    case CUT_RECORD_ALONE: return sim_io->part == PART_REST;
  }
  return false;
}

static void note_landing(const struct sim_io *sim_io) {
  struct sim_drive *drive = sim_io->disk->drive;
  drive->cut_record |= sim_io->part == PART_RECORD;
  drive->cut_rest |= sim_io->part == PART_REST;
}

static bool writes(const struct sim_drive *drive, bool record) {
  if (!drive->open) return false;
  LIST_EACH(&drive->open->in_flight, node) {
    const struct disk_io *io = LIST_ENTRY(node, struct sim_io, link)->io;
    if (io->op == DISK_WRITE && is_record_area(io) == record) return true;
  }
  LIST_EACH(&drive->open->line, node) {
    const struct disk_io *io = LIST_ENTRY(node, struct disk_io, link);
    if (io->op == DISK_WRITE && is_record_area(io) == record) return true;
  }
  return false;
}

bool sim_drive_writes_record(const struct sim_drive *drive) { return writes(drive, true); }
bool sim_drive_writes_rest(const struct sim_drive *drive) { return writes(drive, false); }

void sim_drive_cut(struct sim_drive *drive, enum round_cut cut) {
  drive->cut = cut;
  drive->cut_record = drive->cut_rest = false;
}

bool sim_drive_is_cut(const struct sim_drive *drive) {
  if (!drive->open || drive->cut == CUT_NOT) return true;
  LIST_EACH(&drive->open->in_flight, node) {
    if (!is_held(LIST_ENTRY(node, struct sim_io, link))) return false;
  }
  return true;
}

/* ---- an I/O takes effect, and completes ---- */

static void trim_some(struct sim_disk *disk, const struct disk_io *io) {
  struct medium *medium = disk->drive->medium;
  uint64_t block = max_u64(disk->disk.caps.zero_block_bytes, medium->sector_bytes);
  for (uint64_t at = io->offset, end = io->offset + io->length; at < end;) {
    uint64_t next = min_u64(align_down(at, block) + block, end);
    if (!prng_one_in(&medium->prng, 4)) medium_write(medium, at, next - at, NULL, io->flags & DISK_FUA);
    at = next;
  }
}

/* What is zero is a hole, as far as the disk knows: now and then it does not, or tells of a part only. */
static void tell_extents(struct sim_disk *disk, struct disk_io *io) {
  static const uint8_t zeroes[MEDIUM_SECTOR];
  uint8_t sector[MEDIUM_SECTOR];
  struct prng *prng = &disk->drive->prng;
  uint64_t at = io->offset, end = io->offset + io->length;
  if (prng_one_in(prng, 6)) end = at + prng_between(prng, 1, io->length);
  for (uint64_t next; at < end; at = next) {
    next = min_u64(align_down(at, MEDIUM_SECTOR) + MEDIUM_SECTOR, end);
    medium_read(disk->drive->medium, at, next - at, sector);
    bool hole = memcmp(sector, zeroes, next - at) == 0 && !prng_one_in(prng, 100);
    if (!disk_extents_add(io, next - at, hole ? EXTENT_HOLE | EXTENT_ZERO : 0)) return;
  }
}

/* Another block of the disk, but not the second copy of the one that was meant: that would be two faults. */
static uint64_t draw_misplaced(struct sim_drive *drive, const struct disk_io *io) {
  uint64_t room = (drive->caps.size_bytes - io->length) / META_BLOCK_BYTES;
  for (;;) {
    uint64_t offset = prng_between(&drive->prng, 1, room) * META_BLOCK_BYTES;
    bool hits_twin = drive->layout && meta_is_twin(drive->layout, io->offset, offset, io->length);
    if (offset != io->offset && !hits_twin) return offset;
  }
}

/* A FUA that fails may be the one that is told what a flush was to be told: older writes are lost, as by a flush that fails. */
static void fua_failed(const struct sim_io *sim_io) {
  struct sim_drive *drive = sim_io->disk->drive;
  if (sim_io->err != TARN_IO || !(sim_io->io->flags & DISK_FUA)) return;
  if (!sim_io->early && !prng_one_in(&drive->prng, 2)) return;
  drive->medium->world->counters.fua_poisons++;
  medium_flush_failed(drive->medium, sim_io->flush_mark);
}

/* One beside it that failed may have been told what this FUA was to be told: it looks good, and its bytes are in the cache. */
static bool makes_durable(const struct sim_io *sim_io) {
  struct sim_drive *drive = sim_io->disk->drive;
  if (!(sim_io->io->flags & DISK_FUA)) return false;
  if (sim_io->syncs_failed == drive->syncs_failed || !prng_one_in(&drive->prng, 2)) return true;
  drive->medium->world->counters.fua_untold++;
  return false;
}

static void write_takes_effect(struct sim_io *sim_io) {
  struct sim_drive *drive = sim_io->disk->drive;
  struct disk_io *io = sim_io->io;
  bool fua = makes_durable(sim_io);
  if (crc32c(io->data, io->length) != sim_io->crc) /* nobody else touches what the disk owns */
    world_fail(drive->medium->world, "the buffer of a %s write was changed", sim_io->hung ? "hung" : "submitted");
  uint64_t offset = sim_io->misplaced ? sim_io->misplaced : io->offset;
  if (sim_io->late) return;
  if (sim_io->err == TARN_OK) medium_write(drive->medium, offset, io->length, io->data, fua);
  else if (!sim_io->refused) (void)medium_write_torn(drive->medium, offset, io->length, io->data, fua);
  fua_failed(sim_io);
  if (sim_io->err == TARN_OK) faults_written(&drive->faults, offset, io->length);
  scribble(sim_io->disk, io);
}

/* The file is shorter than that. */
static void judge_end(struct sim_io *sim_io) {
  const struct disk_io *io = sim_io->io;
  bool reads = io->op == DISK_READ || io->op == DISK_EXTENTS;
  if (!reads || sim_io->err != TARN_OK || io->offset + io->length <= sim_io->disk->drive->short_from) return;
  sim_io->err = TARN_IO;
  if (!sim_io->hung) sim_io->disk->drive->ill_count++;
}

static void take_effect(struct sim_io *sim_io) {
  struct sim_disk *disk = sim_io->disk;
  struct medium *medium = disk->drive->medium;
  struct disk_io *io = sim_io->io;
  judge_end(sim_io);
  bool whole = sim_io->err == TARN_OK;
  sim_io->took_effect = true;
  switch (io->op) {
    case DISK_READ:
      if (whole) medium_read(medium, io->offset, io->length, io->data);
      else memset(io->data, 0xee, io->length);
      scribble(disk, io);
      break;
    case DISK_WRITE: write_takes_effect(sim_io); break;
    case DISK_WRITE_ZEROES:
      if (whole) medium_write(medium, io->offset, io->length, NULL, makes_durable(sim_io));
      else if (!sim_io->late) (void)medium_write_torn(medium, io->offset, io->length, NULL, io->flags & DISK_FUA);
      fua_failed(sim_io);
      break;
    case DISK_TRIM: trim_some(disk, io); break;
    case DISK_FLUSH:
      if (whole) medium_flush_done(medium, sim_io->flush_mark);
      else medium_flush_failed(medium, sim_io->flush_mark); /* also when the process dies before it hears of it */
      break;
    case DISK_EXTENTS:
      io->extent_count = 0;
      if (whole) tell_extents(disk, io);
      else memset(io->data, 0xee, DISK_EXTENTS_MAX * sizeof(struct disk_extent));
      break;
    case DISK_OP_COUNT: require(!"an op");
  }
  bool syncs = io->op == DISK_FLUSH || io->flags & DISK_FUA;
  disk->drive->syncs_failed += syncs && !whole;
}

/* ---- the trace ---- */

static bool is_record(const struct sim_drive *drive, const struct disk_io *io) {
  return drive->faults.role != ROLE_DATA && io->op == DISK_WRITE && io->offset < RECORD_AREA_BYTES;
}

static void trace_io(const struct sim_drive *drive, const struct disk_io *io, const char *after, const char *why) {
  struct world *world = drive->medium->world;
  char place[48] = "";
  if (!world->traced || drive->trace == TRACE_NOTHING) return;
  if (drive->trace == TRACE_RECORDS && (!is_record(drive, io) || !after[0])) return;
  if (io->op != DISK_FLUSH && drive->faults.role != ROLE_DATA)
    damage_place(drive->layout, io->offset, place, sizeof place);
  else if (io->op != DISK_FLUSH) snprintf(place, sizeof place, " %" PRIu64 "+%" PRIu64, io->offset, io->length);
  world_trace(world, "%s %s%s%s%s%s", drive->medium->name, disk_op_name(io->op), place,
              io->flags & DISK_FUA && !after[0] ? " fua" : "", after, why);
}

static void trace_begin(const struct sim_drive *drive, const struct sim_io *sim_io) {
  if (sim_io->hung || sim_io->misplaced) trace_io(drive, sim_io->io, sim_io->hung ? " hangs" : " goes astray", "");
  else trace_io(drive, sim_io->io, "", "");
}

static void trace_done(const struct sim_io *sim_io) {
  trace_io(sim_io->disk->drive, sim_io->io, sim_io->err ? " done: " : " done",
           sim_io->err ? tarn_err_text(sim_io->err) : "");
}

static void sim_io_begin(struct sim_disk *disk, struct disk_io *io);

static void sim_io_end(struct sim_io *sim_io) {
  struct sim_disk *disk = sim_io->disk;
  uint64_t now_ns = world_now(disk->drive->medium->world), took_ns = now_ns - sim_io->begun_ns;
  if (took_ns > disk->drive->longest_ns || now_ns - disk->drive->longest_at_ns > RECENT_NS) {
    disk->drive->longest_ns = took_ns;
    disk->drive->longest_at_ns = now_ns;
  }
  disk->begun--;
  disk->line_moved++;
  list_remove(&sim_io->link);
  world_free(sim_io);
  struct list *next = list_pop(&disk->line);
  if (next) sim_io_begin(disk, LIST_ENTRY(next, struct disk_io, link));
}

static bool has_fua(const struct sim_disk *disk) {
  LIST_EACH(&disk->in_flight, node) {
    if (LIST_ENTRY(node, struct sim_io, link)->io->flags & DISK_FUA) return true;
  }
  return false;
}

/* The next flush must not be believed: trouble lasts until it has ended, and is judged. Of a FUA that was cut the first piece may have failed,
 * and the rest be under way: it is not known above before that has ended, and then the flush after it is to fail. */
static void note_fua(struct sim_drive *drive, const struct sim_io *sim_io) {
  bool syncs = sim_io->io->op == DISK_FLUSH || sim_io->io->flags & DISK_FUA;
  bool tells = (sim_io->io->op == DISK_FLUSH && drive->fua_failed) || (syncs && sim_io->err != TARN_OK);
  if (tells) drive->told_ns = world_now(drive->medium->world);
  if (sim_io->io->op == DISK_FLUSH) drive->fua_failed &= has_fua(drive->open);
  else if (sim_io->err != TARN_OK && sim_io->io->flags & DISK_FUA) drive->fua_failed = true;
}

static bool syncs(const struct disk_io *io, uint64_t until_ns) {
  return (io->op == DISK_FLUSH || io->flags & DISK_FUA) && io->submitted_ns <= until_ns;
}

bool sim_drive_syncs(const struct sim_drive *drive, uint64_t until_ns) {
  if (!drive->open) return false;
  LIST_EACH(&drive->open->in_flight, node) {
    if (syncs(LIST_ENTRY(node, struct sim_io, link)->io, until_ns)) return true;
  }
  LIST_EACH(&drive->open->line, node) {
    if (syncs(LIST_ENTRY(node, struct disk_io, link), until_ns)) return true;
  }
  return false;
}

static void sim_io_run(struct sim_event *event) {
  struct sim_io *sim_io = CONTAINER_OF(event, struct sim_io, event);
  struct sim_disk *disk = sim_io->disk;
  struct world *world = disk->drive->medium->world;
  struct disk_io *io = sim_io->io;
  if (!sim_io->took_effect && is_held(sim_io)) {
    sim_io->complete_ns = world_now(world) + 2 * HELD_NS;
    world_at(world, &sim_io->event, world_now(world) + HELD_NS);
    return;
  }
  if (!sim_io->took_effect) {
    if (disk->drive->cut != CUT_NOT) note_landing(sim_io);
    take_effect(sim_io);
    world_at(world, &sim_io->event, sim_io->complete_ns);
    return;
  }
  trace_done(sim_io);
  tarn_err err = sim_io->err;
  if (err == TARN_GONE) disk->drive->lost = false;
  if (sim_io->hung && world_now(world) - io->submitted_ns > LATE_NS) world->counters.hung_io_lands_late++;
  if (sim_io->late) late_begin(disk->drive, io);
  if (sim_io->hung || err != TARN_OK) disk->drive->ill_count--;
  note_fua(disk->drive, sim_io);
  sim_io_end(sim_io);
  disk_complete(io, err);
}

static uint64_t draw_latency(struct sim_drive *drive, enum disk_op op) {
  if (drive->steady_ns) return drive->steady_ns;
  uint64_t latency = prng_between(&drive->prng, drive->latency_ns / 2, drive->latency_ns * 2);
  if (prng_one_in(&drive->prng, 16)) latency *= 8;
  if (faults_slow(&drive->faults, op)) {
    latency *= 20;
    drive->medium->world->counters.slow_disk++;
  }
  return latency;
}

/* When does an I/O that hangs land? UINT64_MAX: it does not. */
static uint64_t draw_landing(struct sim_drive *drive, const struct fault *fault) {
  static const uint64_t within_ns[] = {NS_PER_S / 10, NS_PER_S, 4 * NS_PER_S, 30 * NS_PER_S, 300 * NS_PER_S};
  if (fault->never) return UINT64_MAX;
  return world_now(drive->medium->world) +
         prng_below(&drive->prng, within_ns[prng_below(&drive->prng, COUNT_OF(within_ns))]);
}

static void judge(struct sim_drive *drive, struct sim_io *sim_io) {
  const struct fault *fault = faults_judge(&drive->faults, sim_io->io);
  if (world_sweeps(drive->medium->world, drive)) sim_io->err = TARN_IO;
  if (drive->lost) {
    sim_io->err = TARN_GONE;
  } else if (fault && fault->kind == FAULT_HANG) {
    sim_io->hung = true;
    sim_io->complete_ns = draw_landing(drive, fault);
    if (prng_one_in(&drive->prng, 3) && !drive->steady_ns) sim_io->err = TARN_IO;
  } else if (fault && fault->kind == FAULT_MISDIRECT) {
    sim_io->misplaced = draw_misplaced(drive, sim_io->io);
  } else if (fault) {
    sim_io->err = fault->err;
    sim_io->refused = fault->whole;
    sim_io->early = fault->fua;
    sim_io->late = drive->lands_late && !fault->whole && draws_late(drive, sim_io->io);
  }
}

static void sim_io_begin(struct sim_disk *disk, struct disk_io *io) {
  struct sim_drive *drive = disk->drive;
  struct world *world = drive->medium->world;
  disk_io_set_line(io, NULL);
  disk->begun++;
  struct sim_io *sim_io = world_alloc(world, sizeof *sim_io);
  list_init(&sim_io->link);
  list_push(&disk->in_flight, &sim_io->link);
  sim_io->disk = disk;
  sim_io->io = io;
  sim_io->begun_ns = world_now(world);
  sim_io->event.run = sim_io_run;
  sim_io->flush_mark = medium_flush_mark(drive->medium);
  sim_io->syncs_failed = drive->syncs_failed;
  if (io->op == DISK_WRITE) sim_io->crc = crc32c(io->data, io->length);
  uint64_t latency = draw_latency(drive, io->op);
  uint64_t effect = drive->steady_ns ? latency / 2 : prng_below(&drive->prng, latency + 1);
  sim_io->complete_ns = world_now(world) + latency;
  judge(drive, sim_io);
  trace_begin(drive, sim_io);
  drive->ill_count += sim_io->hung || sim_io->err != TARN_OK;
  if (!sim_io->hung) world_at(world, &sim_io->event, world_now(world) + (sim_io->early ? 0 : effect));
  else if (sim_io->complete_ns != UINT64_MAX) world_at(world, &sim_io->event, sim_io->complete_ns);
}

static void sim_disk_submit(struct disk *base, struct disk_io *io) {
  struct sim_disk *disk = CONTAINER_OF(base, struct sim_disk, disk);
  struct sim_drive *drive = disk->drive;
  struct world *world = drive->medium->world;
  require_rules(&base->caps, io);
  if (drive->forbidden && io->op != DISK_READ && io->op != DISK_EXTENTS)
    world_fail(world, "%s is no part of the mirror any more, and was asked to %s", drive->medium->name,
               disk_op_name(io->op));
  if (drive->depth == 0 || drive->steady_ns || disk->begun < drive->depth) {
    sim_io_begin(disk, io);
    return;
  }
  world->counters.io_in_line++;
  disk_io_set_line(io, &disk->line_moved);
  list_push(&disk->line, &io->link);
}

uint64_t sim_drive_hung_ns(const struct sim_drive *drive) {
  uint64_t now_ns = world_now(drive->medium->world);
  uint64_t longest_ns = now_ns - drive->longest_at_ns > RECENT_NS ? 0 : drive->longest_ns;
  if (!drive->open) return longest_ns;
  LIST_EACH(&drive->open->in_flight, node) {
    longest_ns = max_u64(longest_ns, now_ns - LIST_ENTRY(node, struct sim_io, link)->begun_ns);
  }
  return longest_ns;
}

/* That is told once, as an I/O would. */
static bool sim_disk_is_lost(struct disk *disk) {
  struct sim_drive *drive = CONTAINER_OF(disk, struct sim_disk, disk)->drive;
  bool lost = drive->lost;
  drive->lost = false;
  drive->medium->world->counters.loss_seen_idle += lost;
  return lost;
}

static const struct disk_ops sim_disk_ops = {
    .kind = "sim", .submit = sim_disk_submit, .close = sim_disk_close, .is_lost = sim_disk_is_lost};

/* ---- the connection is lost for a moment ---- */

void sim_drive_lose(struct sim_drive *drive, uint64_t at_ns) {
  if (drive->open && !world_is_set(&drive->loss)) world_at(drive->medium->world, &drive->loss, at_ns);
}

static void connection_lost(struct sim_event *event) {
  struct sim_drive *drive = CONTAINER_OF(event, struct sim_drive, loss);
  struct world *world = drive->medium->world;
  require(drive->open != NULL);
  bool cut = drive->faults.role == ROLE_DATA && prng_one_in(&drive->late_prng, 3);
  world->counters.connection_lost++;
  LIST_EACH(&drive->open->in_flight, node) {
    struct sim_io *sim_io = LIST_ENTRY(node, struct sim_io, link);
    drive->ill_count += !sim_io->hung && sim_io->err == TARN_OK;
    sim_io->err = TARN_GONE;
    sim_io->late = cut && !sim_io->took_effect && draws_late(drive, sim_io->io);
    if (!sim_io->took_effect) take_effect(sim_io);
    sim_io->complete_ns = world_now(world) + prng_below(&drive->prng, drive->latency_ns + 1);
    world_cancel(world, &sim_io->event);
    world_at(world, &sim_io->event, sim_io->complete_ns);
  }
  uint64_t sectors = cut ? 0 : medium_power_loss(drive->medium);
  drive->lost = true;
  drive->cache_losses += sectors > 0;
  world->counters.sector_lost += sectors;
  world_trace(world, "the connection to %s is lost, and %" PRIu64 " sectors with it", drive->medium->name, sectors);
}

void sim_drive_heal(struct sim_drive *drive) {
  struct world *world = drive->medium->world;
  faults_heal(&drive->faults);
  world_cancel(world, &drive->loss);
  drive->lost = false;
  if (!drive->open) return;
  LIST_EACH(&drive->open->in_flight, node) {
    struct sim_io *sim_io = LIST_ENTRY(node, struct sim_io, link);
    if (!sim_io->hung || sim_io->took_effect) continue;
    sim_io->complete_ns = world_now(world) + draw_latency(drive, sim_io->io->op);
    world_cancel(world, &sim_io->event);
    world_at(world, &sim_io->event, sim_io->complete_ns);
  }
}

/* ---- the end of the process ---- */

/* Some of what was on its way still lands: by sector, any of it. */
static void land_in_flight(struct sim_disk *disk) {
  struct medium *medium = disk->drive->medium;
  struct world *world = medium->world;
  LIST_EACH(&disk->in_flight, node) {
    struct sim_io *sim_io = LIST_ENTRY(node, struct sim_io, link);
    struct disk_io *io = sim_io->io;
    bool writes = io->op == DISK_WRITE || io->op == DISK_WRITE_ZEROES || io->op == DISK_TRIM;
    world_cancel(world, &sim_io->event);
    if (writes && !sim_io->took_effect && !is_held(sim_io)) {
      const uint8_t *data = io->op == DISK_WRITE ? io->data : NULL;
      if (medium_write_torn(medium, io->offset, io->length, data, io->flags & DISK_FUA)) world->counters.write_torn++;
    }
    list_remove(&sim_io->link);
    world_free(sim_io);
  }
  while (list_pop(&disk->line)) continue; /* nobody has begun these */
}

void sim_drive_crash(struct sim_drive *drive, bool power) {
  struct world *world = drive->medium->world;
  world_cancel(world, &drive->loss);
  drive->lost = false;
  land_all_late(drive);
  if (drive->open) {
    land_in_flight(drive->open);
    world_free(drive->open);
    drive->open = NULL;
    drive->ill_count = 0;
  }
  if (power && drive->cut != CUT_NOT) medium_flush_done(drive->medium, medium_flush_mark(drive->medium));
  else if (power) world->counters.sector_lost += medium_power_loss(drive->medium);
  drive->cut = CUT_NOT;
}
