/* mirror_extents.c - where a volume has data and where it has holes, from one image; and what of it is marked, missed or
 * unreadable, from memory.
 *
 * EXTENTS is a read of which only "all zero" matters, and it is answered without the range lock. Why what it calls zero is
 * zero: *doubtful* is a place that a write is under way to, that has still to be recovered, that is being repaired, or that no
 * image can read. Doubtful places are left out when the request begins, before an image is asked, and again when it has
 * answered. So of every byte that is left
 *   - no write was under way when the request began: all current images held the same there;
 *   - whatever changed it since has begun and has ended well within the request: it was old, or new, on the image when that
 *     looked, and both were the volume's at some moment of the request;
 *   - a write that failed everywhere meanwhile has left it to be recovered. If that was done at once, too, recover_sets tells.
 * An image that is not current when it answers, because it was put out meanwhile, is not believed. As of a read, what was seen
 * may be of a write that is not answered yet: the record that puts an image out comes first.
 *
 * One is with an image at a time, the others stand in line here, where no guard waits for them: a disk may take long to look,
 * and many that look one after the other must not pass for a disk that hangs.
 *
 * Errors of EXTENTS say nothing about an image. A disk that hangs is its guard's matter, as for any I/O; until it answers it
 * keeps the buffer, and the request goes on with another one. */
#include "core/mirror_int.h"

#define LOOK_EXTENTS 262144u /* of a map, at most, for one request: 4 GiB of the default extents, 32 KiB of memory */
#define RUN_EXTENTS  8192u   /* the same for one run of mirror_range_runs(), */
#define RUN_STEPS    1024u   /* and as many runs, before they are joined */

/* ---- doubtful places ---- */

struct place {
  uint64_t start, end; /* mirror addresses; empty: none */
};

/* The earlier one counts. What is added is made wider to whole units, and cut to the range that was asked about. */
static void place_add(struct place *first, uint64_t low, uint64_t high, uint64_t start, uint64_t end) {
  start = max_u64(align_down(start, UNIT_BYTES), low);
  end = min_u64(align_up(end, UNIT_BYTES), high);
  require(start < end);
  if (first->start < first->end && start >= first->start) return;
  *first = (struct place){.start = start, .end = end};
}

static bool hold_is_doubtful(const struct range_hold *hold) {
  if (hold->tag == HOLD_READ || hold->blockers != 0) return false;
  if (hold->tag == HOLD_WRITE) return CONTAINER_OF(hold, const struct op, hold)->issued != 0;
  enum copy_kind kind = CONTAINER_OF(hold, const struct copy, hold)->kind;
  return kind == COPY_RECOVER || kind == COPY_REPAIR;
}

static struct place place_doubtful(const struct mirror *m, uint64_t low, uint64_t high) {
  struct place first = {.start = high, .end = high};
  uint64_t bytes = m->geometry.extent_bytes, extent = extent_first(m, low),
           end = extent + extent_span(m, low, high - low);
  if (m->recover.set_count != 0) {
    uint64_t e = bitmap_next_set_in(&m->recover, extent, end);
    if (e < end) place_add(&first, low, high, e * bytes, bitmap_next_clear_in(&m->recover, e, end) * bytes);
  }
  const struct unreadable *list = &m->record.unreadable;
  for (uint32_t i = 0; i < list->count; i++) {
    uint64_t stop = list->ranges[i].start + list->ranges[i].length;
    if (list->ranges[i].start < high && stop > low) place_add(&first, low, high, list->ranges[i].start, stop);
  }
  for (struct range_hold *hold = NULL; (hold = range_next_overlap(&m->lock, low, high - low, hold)) != NULL;)
    if (hold_is_doubtful(hold)) place_add(&first, low, high, hold->start, hold->end);
  return first;
}

/* ---- the answer ---- */

/* A dead disk that was asked before may still write to the client's buffer. False: there is no other one. */
static bool extents_own_buffer(struct op *op) {
  struct disk_io *io = op->client;
  if (!buffer_is_shared(io->buffer)) return true;
  struct buffer *held = io->buffer;
  uint32_t bytes = DISK_EXTENTS_MAX * sizeof(struct disk_extent);
  struct buffer *buffer = held->pool ? buffer_get_for(held->pool, held->account, bytes) : NULL;
  if (!buffer) return false;
  io->buffer = buffer;
  io->data = buffer->base;
  buffer_unref(held);
  return true;
}

/* Of the first `length` bytes nothing is sure. */
static void extents_unknown(struct op *op, uint64_t length) {
  if (!extents_own_buffer(op)) {
    op_end(op, TARN_IO);
    return;
  }
  disk_extents_unknown(op->client, length);
  op->tick = op->m->recover_sets; /* whatever fails from now on, too */
  read_answer(op, TARN_OK);
}

/* Whatever becomes of it, its end is the next one's beginning; so the line needs no other end. */
static void extents_line_run(struct mirror *m) {
  for (struct list *node; !m->extents_busy && (node = list_pop(&m->extents_line)) != NULL;)
    op_extents(LIST_ENTRY(node, struct op, link));
}

static void extents_told(struct op *op, struct disk_io *io, uint32_t image);

static void extents_done(struct disk_io *io) {
  struct leg *leg = CONTAINER_OF(io, struct leg, io);
  struct op *op = leg->op;
  struct mirror *m = op->m;
  uint32_t image = leg->image;
  leg_ended(m, image, io);
  op->pending = 0;
  m->extents_busy = false;
  disk_io_pass_back(op->client, io);
  extents_told(op, io, image);
  extents_line_run(m);
}

static void extents_told(struct op *op, struct disk_io *io, uint32_t image) {
  struct mirror *m = op->m;
  if (io->err != TARN_OK) {
    op->tried |= 1u << image;
    op_extents(op);
    return;
  }
  uint64_t bytes = disk_extents_bytes(io);
  struct place doubtful = place_doubtful(m, op->start, op->start + bytes);
  if (!image_is_current(m, image) || op->tick != m->recover_sets) {
    extents_unknown(op, bytes);
  } else if (doubtful.start == op->start) {
    extents_unknown(op, doubtful.end - op->start);
  } else {
    disk_extents_cut(op->client, doubtful.start - op->start);
    read_answer(op, TARN_OK);
  }
}

/* The master, or else any image that could tell. */
static uint32_t extents_source(const struct op *op) {
  const struct mirror *m = op->m;
  uint32_t candidates = 0;
  for (uint32_t i = 0; i < m->config.image_count; i++)
    if (image_is_current(m, i) && m->images[i].data[op->volume].disk.caps.can_extents) candidates |= 1u << i;
  candidates &= ~op->tried;
  if (candidates == 0) return IMAGES_MAX;
  return candidates & 1u << m->record.master ? m->record.master : (uint32_t)__builtin_ctz(candidates);
}

/* Also where it goes on after an image that could not tell, and from the line: what is doubtful is asked anew. */
void op_extents(struct op *op) {
  struct mirror *m = op->m;
  if (!m->serving) {
    op_end(op, TARN_SHUTDOWN);
    return;
  }
  if (m->extents_busy) {
    list_push(&m->extents_line, &op->link);
    return;
  }
  op->length = min_u64(op->length, (uint64_t)LOOK_EXTENTS * m->geometry.extent_bytes);
  op->tick = m->recover_sets;
  struct place doubtful = place_doubtful(m, op->start, op->start + op->length);
  if (doubtful.start == op->start) {
    extents_unknown(op, doubtful.end - doubtful.start);
    return;
  }
  op->length = doubtful.start - op->start;
  uint32_t image = extents_source(op);
  if (image == IMAGES_MAX) {
    extents_unknown(op, op->length);
    return;
  }
  if (!extents_own_buffer(op)) {
    op_end(op, TARN_IO);
    return;
  }
  op->pending = 1;
  m->extents_busy = true;
  leg_submit(m, image, &op_leg(op, image)->io, DISK_EXTENTS, 0, op->start, op->length, op->client->buffer,
             op->client->data, extents_done);
}

/* ---- what is marked, missed, unreadable ---- */

struct run {
  uint64_t end;
  uint32_t flags;
};

static void run_of_unreadable(const struct mirror *m, uint64_t at, struct run *run) {
  const struct unreadable *list = &m->record.unreadable;
  for (uint32_t i = 0; i < list->count; i++) {
    uint64_t start = list->ranges[i].start, end = start + list->ranges[i].length;
    if (end <= at) continue;
    if (start <= at) run->flags |= MIRROR_RANGE_UNREADABLE;
    run->end = min_u64(run->end, start <= at ? end : start);
    return;
  }
}

static void run_of_missed(const struct mirror *m, uint32_t i, uint64_t at, struct run *run) {
  const struct bitmap *missed = &m->images[i].map.missed;
  uint64_t first = extent_first(m, at), end = first + extent_span(m, at, run->end - at);
  if (m->record.images[i].all_missed && !m->images[i].online) {
    run->flags |= MIRROR_RANGE_MISSED;
  } else if (missed->set_count != 0) {
    bool is_missed = bitmap_test(missed, first);
    if (is_missed) run->flags |= MIRROR_RANGE_MISSED;
    uint64_t next = is_missed ? bitmap_next_clear_in(missed, first, end) : bitmap_next_set_in(missed, first, end);
    run->end = min_u64(run->end, next * m->geometry.extent_bytes);
  }
}

static struct run run_at(const struct mirror *m, uint64_t at, uint64_t end) {
  struct run run = {.end = min_u64(end, (extent_first(m, at) + RUN_EXTENTS) * m->geometry.extent_bytes)};
  if (m->intent.used_count != 0) {
    uint64_t region = at / m->geometry.region_bytes;
    if (intent_find(&m->intent, region) != INTENT_NONE) run.flags |= MIRROR_RANGE_MARKED;
    run.end = min_u64(run.end, (region + 1) * m->geometry.region_bytes);
  }
  run_of_unreadable(m, at, &run);
  EACH_IMAGE(m, i) run_of_missed(m, i, at, &run);
  require(run.end > at);
  return run;
}

uint32_t mirror_range_runs(const struct mirror *m, uint32_t volume, uint64_t offset, uint64_t length,
                           struct disk_extent *runs, uint32_t max) {
  require(volume < m->geometry.volume_count);
  require(length > 0 && max > 0);
  require(offset < m->geometry.volume_bytes[volume] && length <= m->geometry.volume_bytes[volume] - offset);
  uint64_t at = m->geometry.volume_base[volume] + offset, end = at + length;
  uint32_t count = 0;
  for (uint32_t steps = 0; at < end && steps < RUN_STEPS; steps++) {
    struct run run = run_at(m, at, end);
    if (count > 0 && runs[count - 1].flags == run.flags) {
      runs[count - 1].length += run.end - at;
    } else {
      if (count == max) break;
      runs[count++] = (struct disk_extent){.length = run.end - at, .flags = run.flags};
    }
    at = run.end;
  }
  return count;
}
