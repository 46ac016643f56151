#include "sim/sim_disk.h"

#include <inttypes.h>
#include <string.h>

#include "base/crc32c.h"

struct sim_io {
  struct list link;
  struct sim_event event;
  struct sim_disk *disk;
  struct disk_io *io;
  uint64_t complete_ns;
  tarn_err err;
  bool took_effect;
  uint32_t flush_mark;
  uint32_t crc; /* of the data of a write, while we own it */
};

struct sim_disk {
  struct disk disk;
  struct sim_drive *drive;
  struct list in_flight; /* struct sim_io */
};

static const struct disk_ops sim_disk_ops;

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
  *drive = (struct sim_drive){.prng = world_stream(world, "latency", index)};
  drive_draw_caps(drive, &prng, size_bytes, role);
  drive->latency_ns = latencies[prng_below(&prng, COUNT_OF(latencies))];
  drive->medium = medium_new(world, name, index, align_up(size_bytes, MEDIUM_PAGE), drive->caps.volatile_cache);
  drive->traced = true;
  faults_init(&drive->faults, world, drive->medium->name, role);
}

struct disk *sim_disk_open(struct sim_drive *drive) {
  require(drive->open == NULL);
  struct sim_disk *disk = world_alloc(drive->medium->world, sizeof *disk);
  disk->disk = (struct disk){.ops = &sim_disk_ops, .env = &drive->medium->world->env, .caps = drive->caps};
  disk->drive = drive;
  list_init(&disk->in_flight);
  drive->open = disk;
  return &disk->disk;
}

static void sim_disk_close(struct disk *base) {
  struct sim_disk *disk = CONTAINER_OF(base, struct sim_disk, disk);
  require(list_is_empty(&disk->in_flight));
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

/* ---- an I/O takes effect, and completes ---- */

static void trim_some(struct sim_disk *disk, const struct disk_io *io) {
  struct medium *medium = disk->drive->medium;
  uint64_t block = max_u64(disk->disk.caps.zero_block_bytes, MEDIUM_SECTOR);
  for (uint64_t at = io->offset, end = io->offset + io->length; at < end;) {
    uint64_t next = min_u64(align_down(at, block) + block, end);
    if (!prng_one_in(&medium->prng, 4)) medium_write(medium, at, next - at, NULL, io->flags & DISK_FUA);
    at = next;
  }
}

static void take_effect(struct sim_io *sim_io) {
  struct sim_disk *disk = sim_io->disk;
  struct medium *medium = disk->drive->medium;
  struct disk_io *io = sim_io->io;
  bool fua = io->flags & DISK_FUA;
  bool whole = sim_io->err == TARN_OK;
  sim_io->took_effect = true;
  switch (io->op) {
    case DISK_READ:
      if (whole) medium_read(medium, io->offset, io->length, io->data);
      else memset(io->data, 0xee, io->length);
      scribble(disk, io);
      break;
    case DISK_WRITE:
      require(crc32c(io->data, io->length) == sim_io->crc); /* nobody else touches what the disk owns */
      if (whole) medium_write(medium, io->offset, io->length, io->data, fua);
      else (void)medium_write_torn(medium, io->offset, io->length, io->data, fua);
      if (whole) faults_written(&disk->drive->faults, io->offset, io->length);
      scribble(disk, io);
      break;
    case DISK_WRITE_ZEROES:
      if (whole) medium_write(medium, io->offset, io->length, NULL, fua);
      else (void)medium_write_torn(medium, io->offset, io->length, NULL, fua);
      break;
    case DISK_TRIM: trim_some(disk, io); break;
    case DISK_FLUSH:
      if (whole) medium_flush_done(medium, sim_io->flush_mark);
      else medium_flush_failed(medium, sim_io->flush_mark); /* also when the process dies before it hears of it */
      break;
    case DISK_OP_COUNT: require(!"an op");
  }
}

static void sim_io_run(struct sim_event *event) {
  struct sim_io *sim_io = CONTAINER_OF(event, struct sim_io, event);
  struct sim_disk *disk = sim_io->disk;
  struct world *world = disk->drive->medium->world;
  struct disk_io *io = sim_io->io;
  if (!sim_io->took_effect) {
    take_effect(sim_io);
    world_at(world, &sim_io->event, sim_io->complete_ns);
    return;
  }
  if (disk->drive->traced)
    world_trace(world, "%s %s %" PRIu64 "+%" PRIu64 " done%s%s", disk->drive->medium->name, disk_op_name(io->op),
                io->op == DISK_FLUSH ? 0 : io->offset, io->op == DISK_FLUSH ? 0 : io->length, sim_io->err ? ": " : "",
                sim_io->err ? tarn_err_text(sim_io->err) : "");
  tarn_err err = sim_io->err;
  list_remove(&sim_io->link);
  world_free(sim_io);
  disk_complete(io, err);
}

static uint64_t draw_latency(struct sim_drive *drive) {
  if (drive->latency_ns == 0) return 100000;
  uint64_t latency = prng_between(&drive->prng, drive->latency_ns / 2, drive->latency_ns * 2);
  if (prng_one_in(&drive->prng, 16)) latency *= 8;
  if (faults_slow(&drive->faults)) {
    latency *= 20;
    drive->medium->world->counters.slow_disk++;
  }
  return latency;
}

static void sim_disk_submit(struct disk *base, struct disk_io *io) {
  struct sim_disk *disk = CONTAINER_OF(base, struct sim_disk, disk);
  struct sim_drive *drive = disk->drive;
  struct world *world = drive->medium->world;
  require_rules(&base->caps, io);
  struct sim_io *sim_io = world_alloc(world, sizeof *sim_io);
  list_init(&sim_io->link);
  list_push(&disk->in_flight, &sim_io->link);
  sim_io->disk = disk;
  sim_io->io = io;
  sim_io->event.run = sim_io_run;
  sim_io->err = faults_judge(&drive->faults, io);
  sim_io->flush_mark = medium_flush_mark(drive->medium);
  if (io->op == DISK_WRITE) sim_io->crc = crc32c(io->data, io->length);
  if (io->op == DISK_FLUSH && sim_io->err) drive->flush_failures++;
  uint64_t latency = draw_latency(drive);
  uint64_t effect = drive->latency_ns == 0 ? latency / 2 : prng_below(&drive->prng, latency + 1);
  sim_io->complete_ns = world_now(world) + latency;
  if (drive->traced)
    world_trace(world, "%s %s %" PRIu64 "+%" PRIu64 "%s", drive->medium->name, disk_op_name(io->op),
                io->op == DISK_FLUSH ? 0 : io->offset, io->op == DISK_FLUSH ? 0 : io->length,
                io->flags & DISK_FUA ? " fua" : "");
  world_at(world, &sim_io->event, world_now(world) + effect);
}

static const struct disk_ops sim_disk_ops = {.kind = "sim", .submit = sim_disk_submit, .close = sim_disk_close};

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
    if (writes && !sim_io->took_effect) {
      const uint8_t *data = io->op == DISK_WRITE ? io->data : NULL;
      if (medium_write_torn(medium, io->offset, io->length, data, io->flags & DISK_FUA)) world->counters.write_torn++;
    }
    list_remove(&sim_io->link);
    world_free(sim_io);
  }
}

void sim_drive_crash(struct sim_drive *drive, bool power) {
  struct world *world = drive->medium->world;
  if (drive->open) {
    land_in_flight(drive->open);
    world_free(drive->open);
    drive->open = NULL;
  }
  if (power) world->counters.sector_lost += medium_power_loss(drive->medium);
}
