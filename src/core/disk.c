/* disk.c - the rules of disk.h, enforced in the one place that every I/O passes. */
#include "core/disk.h"

static const struct {
  const char *name;
  uint32_t flags; /* that it may carry */
  bool writes;    /* changes bytes: not for a read-only disk */
} ops[DISK_OP_COUNT] = {
    [DISK_READ] = {"read", 0, false},
    [DISK_WRITE] = {"write", DISK_FUA, true},
    [DISK_FLUSH] = {"flush", 0, false},
    [DISK_TRIM] = {"trim", DISK_FUA, true},
    [DISK_WRITE_ZEROES] = {"write-zeroes", DISK_FUA | DISK_NO_HOLE, true},
    [DISK_EXTENTS] = {"extents", 0, false},
};

const char *disk_op_name(enum disk_op op) {
  require(op < DISK_OP_COUNT);
  return ops[op].name;
}

static bool is_aligned(uint64_t value, uint64_t unit) { return (value & (unit - 1)) == 0; } /* to a power of two */

static void require_caps(const struct disk_caps *caps) {
  require(is_power_of_two(caps->block_bytes));
  require(is_power_of_two(caps->align_bytes));
  require(caps->block_bytes <= caps->align_bytes);
  require(caps->align_bytes <= BUFFER_ALIGN);
  require(caps->io_bytes_max > 0);
  require(caps->io_bytes_max <= BUFFER_DATA_MAX);
  require(is_aligned(caps->io_bytes_max, caps->block_bytes));
  if (!caps->can_zero && !caps->can_trim) return;
  require(is_power_of_two(caps->zero_block_bytes));
  require(caps->zero_block_bytes <= BUFFER_ALIGN);
  require(caps->zero_bytes_max > 0);
  require(is_aligned(caps->zero_bytes_max, caps->zero_block_bytes));
}

static tarn_err check_range(const struct disk *disk, const struct disk_io *io, uint64_t unit, uint64_t bytes_max) {
  uint64_t size = disk->caps.size_bytes;
  if (io->offset > size || io->length > size - io->offset) return TARN_RANGE;
  if (io->length == 0 || io->length > bytes_max) return TARN_INVALID;
  if (!is_aligned(io->offset | io->length, unit)) return TARN_INVALID;
  return TARN_OK;
}

tarn_err disk_check(const struct disk *disk, const struct disk_io *io) {
  const struct disk_caps *caps = &disk->caps;
  if (io->op >= DISK_OP_COUNT) return TARN_INVALID;
  if (io->flags & ~ops[io->op].flags) return TARN_INVALID;
  if (caps->read_only && ops[io->op].writes) return TARN_UNSUPPORTED;
  switch (io->op) {
    case DISK_READ:
    case DISK_WRITE: return check_range(disk, io, caps->block_bytes, caps->io_bytes_max);
    case DISK_TRIM:
      if (!caps->can_trim) return TARN_UNSUPPORTED;
      return check_range(disk, io, caps->zero_block_bytes, caps->zero_bytes_max);
    case DISK_WRITE_ZEROES:
      if (!caps->can_zero) return TARN_UNSUPPORTED;
      return check_range(disk, io, caps->zero_block_bytes, caps->zero_bytes_max);
    case DISK_FLUSH: return TARN_OK;
    case DISK_EXTENTS: return caps->can_extents ? check_range(disk, io, 1, UINT64_MAX) : TARN_UNSUPPORTED;
    case DISK_OP_COUNT: break;
  }
  return TARN_INVALID;
}

/* Data lies so that the disk may widen the I/O to whole align_bytes blocks in place. */
static void require_placement(const struct disk_caps *caps, const struct disk_io *io) {
  require(io->buffer != NULL);
  require(io->buffer->refs > 0);
  uint64_t data = (uintptr_t)io->data, base = (uintptr_t)io->buffer->base;
  require(is_aligned(data ^ io->offset, caps->align_bytes));
  require(align_down(data, caps->align_bytes) >= base);
  require(align_up(data + io->length, caps->align_bytes) <= base + io->buffer->bytes);
}

static void require_extents_placement(const struct disk_io *io) {
  require(io->buffer != NULL);
  require(io->data >= io->buffer->base);
  require((uintptr_t)io->data % _Alignof(struct disk_extent) == 0);
  uint64_t used = (uint64_t)(io->data - io->buffer->base);
  require(used + DISK_EXTENTS_MAX * sizeof(struct disk_extent) <= io->buffer->bytes);
}

/* Edges believe these. */
static void require_extents(const struct disk_io *io) {
  uint64_t bytes = 0;
  require(io->extent_count >= 1 && io->extent_count <= DISK_EXTENTS_MAX);
  for (uint32_t i = 0; i < io->extent_count; i++) {
    const struct disk_extent *extent = &disk_extents(io)[i];
    require(extent->length > 0 && extent->length <= io->length - bytes);
    bytes += extent->length;
  }
}

bool disk_extents_add(struct disk_io *io, uint64_t length, uint32_t flags) {
  struct disk_extent *extents = disk_extents(io);
  require(io->op == DISK_EXTENTS && length > 0);
  if (io->extent_count > 0 && extents[io->extent_count - 1].flags == flags) {
    extents[io->extent_count - 1].length += length;
    return true;
  }
  if (io->extent_count == DISK_EXTENTS_MAX) return false;
  extents[io->extent_count++] = (struct disk_extent){.length = length, .flags = flags};
  return true;
}

void disk_extents_unknown(struct disk_io *io, uint64_t length) {
  io->extent_count = 0;
  require(disk_extents_add(io, length, 0));
}

void disk_extents_cut(struct disk_io *io, uint64_t length) {
  uint64_t bytes = 0;
  require(length > 0);
  for (uint32_t i = 0; i < io->extent_count; i++) {
    struct disk_extent *extent = &disk_extents(io)[i];
    extent->length = min_u64(extent->length, length - bytes);
    bytes += extent->length;
    if (bytes == length) io->extent_count = i + 1;
  }
}

uint64_t disk_extents_bytes(const struct disk_io *io) {
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < io->extent_count; i++) bytes += disk_extents(io)[i].length;
  return bytes;
}

static void io_done(struct event *event) {
  struct disk_io *io = CONTAINER_OF(event, struct disk_io, event);
  if (io->op == DISK_EXTENTS && io->err == TARN_OK) require_extents(io);
  require(io->disk->in_flight > 0);
  io->disk->in_flight--;
  io->done(io);
}

void disk_submit(struct disk *disk, struct disk_io *io) {
  if (disk->in_flight == 0) require_caps(&disk->caps); /* they stay as they are while it is in use */
  require(disk_check(disk, io) == TARN_OK);
  if (io->op == DISK_READ || io->op == DISK_WRITE) require_placement(&disk->caps, io);
  if (io->op == DISK_EXTENTS) require_extents_placement(io);
  require(io->done != NULL);
  require(!list_is_linked(&io->link)); /* trips too when disk_io_init() was forgotten */
  require(!event_is_posted(&io->event));
  event_init(&io->event, io_done);
  io->err = TARN_OK;
  io->extent_count = 0;
  io->disk = disk;
  io->line = NULL;
  io->under = NULL;
  io->submitted_ns = disk->env->now_ns;
  disk->in_flight++;
  disk->ops->submit(disk, io);
}

void disk_complete(struct disk_io *io, tarn_err err) {
  require(err < TARN_ERR_COUNT);
  require(io->disk->in_flight > 0);
  require(!list_is_linked(&io->link)); /* the disk has let go of it */
  io->err = err;
  event_post(&io->disk->env->queue, &io->event);
}

void disk_complete_now(struct disk_io *io, tarn_err err) {
  require(err < TARN_ERR_COUNT);
  require(!list_is_linked(&io->link));
  require(!event_is_posted(&io->event));
  io->err = err;
  io_done(&io->event);
}

const uint64_t *disk_io_line(const struct disk_io *io) {
  while (io->under) io = io->under;
  return __atomic_load_n(&io->line, __ATOMIC_RELAXED);
}

bool disk_is_lost(struct disk *disk) { return disk->ops->is_lost && disk->ops->is_lost(disk); }

void disk_close(struct disk *disk) {
  require(disk->in_flight == 0);
  disk->ops->close(disk);
}
