/* mirror_read.c - the path of a read.
 *
 * A read goes to the least loaded image that is fresh there. Two cases are special:
 *   - It overlaps a write in flight. Then it goes to the master, so that no two reads see new and then old. If the master
 *     has changed since that write was issued, or the read fails and is tried elsewhere, it waits for the write (a shared
 *     hold) instead: then all images are equal there again.
 *   - It touches a region that was marked at a crash and has not been copied yet. The images may differ there, and a later
 *     recovery could choose otherwise, so the region is copied first (rule 12).
 * While a crash may find another master, or recovers from another image, there is none: all is as at a slave.
 * A read at the master takes no lock: a write that starts meanwhile is concurrent with it, and so are the reads that see it
 * there. A read at a slave holds its range shared: otherwise it could see a write that starts meanwhile, be answered, and
 * the next read, at the master, could come too early and see the old bytes.
 *
 * A disk that hangs may still write into the buffer that a read gave it, long after another image has answered. So a buffer
 * that somebody else still holds is exchanged for another of its pool before the read is issued (disk.h); who has to wait for
 * one holds nothing that others wait for.
 *
 * Places that no image can read (struct unreadable) are answered with an error: what the images hold there is anything. */
#include "base/prng.h"
#include "core/mirror_int.h"

static void read_issue(struct op *op, uint32_t image);

/* ---- places that no image can read ---- */

const struct unreadable *mirror_unreadable(const struct mirror *m) { return &m->record.unreadable; }

bool op_is_unreadable(const struct op *op) {
  return op->m->record.unreadable.count != 0 && unreadable_overlaps(&op->m->record.unreadable, op->start, op->length);
}

bool merge_is_unreadable(const struct op *op, uint64_t block) {
  const struct unreadable *list = &op->m->record.unreadable;
  uint64_t end = min_u64(block + op->m->block, op->outer_start + op->outer_length), stop = op->start + op->length;
  if (list->count == 0) return false;
  if (block < op->start && unreadable_overlaps(list, block, min_u64(end, op->start) - block)) return true;
  return end > stop && unreadable_overlaps(list, max_u64(block, stop), end - max_u64(block, stop));
}

bool unreadable_may_write(const struct op *op, uint32_t *flags) {
  *flags = op->client->flags;
  if (!op_is_unreadable(op)) return true;
  *flags |= DISK_FUA;
  return unreadable_can_cut(&op->m->record.unreadable, op->start, op->length);
}

void unreadable_written(const struct op *op) {
  struct mirror *m = op->m;
  if (!op_is_unreadable(op)) return;
  /* There was room when it was issued. A copy has taken it meanwhile? Then the place stays unreadable for now, though it is
   * not any more: the next write of it finds room. */
  if (!unreadable_can_cut(&m->record.unreadable, op->start, op->length)) return;
  uint64_t bytes = unreadable_cut(&m->record.unreadable, op->start, op->length);
  m->record_dirty = true;
  m->healed_seq = PLANTED(healed_not_awaited) ? 0 : commit_want(m);
  report(m->env, REPORT_INFO, m->config.name, "%llu unreadable bytes of volume %s were written, and can be read again",
         (unsigned long long)bytes, m->config.volumes[op->volume].name);
  mirror_changed(m);
}

/* ---- where to read ---- */

uint32_t read_source(const struct mirror *m, uint64_t start, uint64_t length, uint32_t tried) {
  uint32_t candidates = mirror_current_mask(m) & ~tried;
  if (candidates == 0) return IMAGES_MAX;
  bool recovers =
      m->recover.set_count != 0 && bitmap_any_in(&m->recover, extent_first(m, start), extent_span(m, start, length));
  if (recovers && PLANTED(recover_from_any)) {
    uint64_t turn = mix_u64(start ^ m->recover_start_ns) % (uint32_t)__builtin_popcount(candidates);
    while (turn-- > 0) candidates &= candidates - 1;
    return (uint32_t)__builtin_ctz(candidates);
  }
  uint32_t first =
      recovers && m->record.recovery_source != RECORD_NO_SOURCE ? m->record.recovery_source : m->record.master;
  return candidates & 1u << first ? first : (uint32_t)__builtin_ctz(candidates);
}

static bool touches_recovery(const struct op *op) {
  const struct mirror *m = op->m;
  if (m->recover.set_count == 0 || PLANTED(read_unrecovered)) return false;
  uint32_t current = mirror_current_mask(m);
  if ((current & (current - 1)) == 0) return false; /* one image: every read, now and later, sees the same */
  return bitmap_any_in(&m->recover, extent_first(m, op->outer_start),
                       extent_span(m, op->outer_start, op->outer_length));
}

/* Would a crash find the same? Not before a change of it is recorded, nor while something is recovered from another image. */
static bool master_is_sure(const struct mirror *m) {
  uint8_t source = m->record.recovery_source;
  if (PLANTED(master_believed)) return true;
  return m->commit.done >= m->master_seq && (source == RECORD_NO_SOURCE || source == m->record.master);
}

enum overlap { OVERLAP_NONE, OVERLAP_MASTER, OVERLAP_WAIT };

/* What the writes in flight under this read ask of it. Those that still wait for the lock have touched nothing. */
static enum overlap overlap_of(const struct op *op) {
  const struct mirror *m = op->m;
  enum overlap overlap = OVERLAP_NONE;
  struct range_hold *hold = NULL;
  while ((hold = range_next_overlap(&m->lock, op->outer_start, op->outer_length, hold)) != NULL) {
    if (hold->tag == HOLD_READ || hold->blockers != 0) continue;
    if (hold->tag == HOLD_COPY) {
      enum copy_kind kind = CONTAINER_OF(hold, const struct copy, hold)->kind;
      if (kind == COPY_RECOVER || kind == COPY_REPAIR) return OVERLAP_WAIT; /* it writes where this may read */
      continue;
    }
    const struct op *write = CONTAINER_OF(hold, const struct op, hold);
    if (write->issued == 0) continue; /* still merging */
    if (write->master != m->record.master || !master_is_sure(m) || write->failed & 1u << write->master)
      return OVERLAP_WAIT;
    overlap = OVERLAP_MASTER;
  }
  return overlap;
}

static uint32_t least_loaded(struct op *op) {
  struct mirror *m = op->m;
  uint64_t first = extent_first(m, op->outer_start), count = extent_span(m, op->outer_start, op->outer_length);
  uint32_t best = IMAGES_MAX, turn = m->read_turn++ % m->config.image_count;
  for (uint32_t k = 0; k < m->config.image_count; k++) {
    uint32_t i = (turn + k) % m->config.image_count;
    const struct image *image = &m->images[i];
    if (!image->online || op->tried & 1u << i) continue;
    if (!missed_is_fresh(&image->map, first, count) && !PLANTED(half_built_read)) continue;
    /* What it has been given may differ there from what recovery will choose. */
    if (!image_is_current(m, i) && bitmap_any_in(&m->recover, first, count)) continue;
    if (best == IMAGES_MAX || image->in_flight < m->images[best].in_flight) best = i;
  }
  return best;
}

/* ---- another buffer ---- */

static void exchange(struct op *op, struct buffer *buffer) {
  struct disk_io *io = op->client;
  struct buffer *held = io->buffer;
  require(buffer->bytes - BUFFER_ALIGN >= io->length);
  io->buffer = buffer;
  io->data = buffer->base + io->offset % BUFFER_ALIGN;
  buffer_unref(held);
}

static void buffer_is_here(struct buffer_wait *wait) {
  struct op *op = CONTAINER_OF(wait, struct op, buffer_wait);
  list_remove(&op->link);
  exchange(op, wait->buffer);
  op_read(op);
}

/* Sees to it that nobody else touches the buffer; false when the op waits for another one, or has ended. */
static bool own_buffer(struct op *op) {
  struct mirror *m = op->m;
  struct disk_io *io = op->client;
  if (!buffer_is_shared(io->buffer)) return true;
  if (!io->buffer->pool) { /* there are no others of its kind */
    op_end(op, TARN_IO);
    return false;
  }
  struct buffer *buffer = buffer_get_for(io->buffer->pool, io->buffer->account, (uint32_t)io->length);
  if (buffer) {
    exchange(op, buffer);
    return true;
  }
  if (op->holding) { /* a write that waits for this range may have the buffer that this read waits for */
    op->holding = false;
    range_release(&m->lock, &op->hold);
  }
  if (m->paused) {
    op_put_back(op);
    return false;
  }
  list_push(&m->buffer_line, &op->link);
  buffer_wait_init(&op->buffer_wait, buffer_is_here);
  buffer_wait_for(io->buffer->pool, io->buffer->account, &op->buffer_wait, (uint32_t)io->length);
  return false;
}

/* Those in line for the mirror may have all the buffers that these wait for. */
void read_pause(struct mirror *m) {
  for (struct list *node = list_pop(&m->buffer_line); node; node = list_pop(&m->buffer_line)) {
    struct op *op = LIST_ENTRY(node, struct op, link);
    buffer_wait_cancel(op->client->buffer->pool, &op->buffer_wait);
    op_put_back(op);
  }
}

void read_stop(struct mirror *m) {
  for (struct list *node = list_pop(&m->buffer_line); node; node = list_pop(&m->buffer_line)) {
    struct op *op = LIST_ENTRY(node, struct op, link);
    buffer_wait_cancel(op->client->buffer->pool, &op->buffer_wait);
    op_end(op, TARN_SHUTDOWN);
  }
}

/* ---- the read itself ---- */

static void read_locked(struct range_hold *hold) { op_read(CONTAINER_OF(hold, struct op, hold)); }

static void read_wait(struct op *op) {
  struct mirror *m = op->m;
  require(!op->holding);
  op->holding = true;
  if (range_acquire(&m->lock, &op->hold, op->outer_start, op->outer_length, RANGE_SHARED, HOLD_READ, read_locked))
    read_locked(&op->hold);
}

/* Keeps writes out while the read is at a slave; false, and nothing held, when one is waiting there already. */
static bool read_hold(struct op *op) {
  op->holding =
      range_acquire(&op->m->lock, &op->hold, op->outer_start, op->outer_length, RANGE_SHARED, HOLD_READ, read_locked);
  if (!op->holding) range_release(&op->m->lock, &op->hold);
  return op->holding;
}

/* Does an image lack something here that a crash would still find recorded as current? Not once home says that it is out: its
 * record is the newest then, whatever could be written elsewhere. */
static bool differs_unrecorded(const struct op *op) {
  const struct mirror *m = op->m;
  uint64_t recorded = max_u64(m->commit.done, m->commit.home_done);
  uint64_t first = extent_first(m, op->start), count = extent_span(m, op->start, op->length);
  for (uint32_t i = 0; i < IMAGES_MAX; i++) {
    const struct image *image = &m->images[i];
    if (image->left_seq <= recorded) continue;
    /* Of one that is removed nobody notes what it lacks. */
    bool unknown = !image->present || m->record.images[i].all_missed;
    if (unknown || bitmap_any_in(&image->map.missed, first, count)) return true;
  }
  return false;
}

/* A write has failed everywhere since the read was asked. What it saw of that need not be what recovery will choose, or has chosen
 * already, from another image. */
static bool failed_meanwhile(const struct op *op) {
  return op->tick != op->m->recover_sets && !PLANTED(read_over_recovery) && !PLANTED(read_not_repeated);
}

static void ask_again(struct op *op) {
  if (op->kind == OP_EXTENTS) op_extents(op);
  else op_read(op);
}

/* What was read may be of a write that is not answered yet, because the record that puts a failed image out is not durable:
 * a crash could still undo it. If that record cannot be written the write is not answered, and neither is a read of what that
 * image lacks: the next process may find that image alone, and take it for current. Other reads go on, but for those during a
 * recovery, or of a mirror that has fallen. No sequence is known that needs these two: whatever may differ then is marked, and so
 * among what that image misses. They stay because the next process may choose another source then, and nothing should hang on this
 * argument alone. And while a read waits for that record a write that it saw at the image which is out may fail on those that are
 * left: its client is told so, and the read is asked again. */
void read_answer(struct op *op, tarn_err err) {
  struct mirror *m = op->m;
  uint64_t seq = err == TARN_OK && !PLANTED(read_before_drop) ? commit_wait_for(m, answer_seq(m)) : 0;
  bool refused =
      err != TARN_OK && (m->fallen || m->recovering || (differs_unrecorded(op) && !PLANTED(read_unrecorded)));
  if (seq != 0) commit_wait(m, op, seq, read_answer);
  else if (refused) op_end(op, err);
  else if (failed_meanwhile(op)) ask_again(op);
  else op_end(op, TARN_OK);
}

static void read_done(struct disk_io *io) {
  struct leg *leg = CONTAINER_OF(io, struct leg, io);
  struct op *op = leg->op;
  uint32_t image = leg->image;
  leg_ended(op->m, image, io);
  op->pending = 0;
  if (io->err == TARN_OK) {
    if (io->buffer != op->client->buffer) { /* a disk below has exchanged it */
      op->client->buffer = io->buffer;
      op->client->data = io->data + (op->start - op->outer_start);
    }
    if (op->unread) repair_ask(op->m, op->unread, op->outer_start, op->outer_length);
    bool in_doubt = touches_recovery(op) && !PLANTED(read_not_repeated);
    if (in_doubt || failed_meanwhile(op)) op_read(op);
    else read_answer(op, TARN_OK);
    return;
  }
  op->err = io->err;
  op->tried |= 1u << image;
  if (error_is_of_place(io->err)) op->unread |= 1u << image;
  if (op->holding) op_read(op);
  else read_wait(op);
}

static void read_issue(struct op *op, uint32_t image) {
  struct disk_io *io = op->client;
  op->pending = 1;
  op->tick = op->m->recover_sets;
  leg_submit(op->m, image, &op_leg(op, image)->io, DISK_READ, 0, op->outer_start, op->outer_length, io->buffer,
             io->data - (op->start - op->outer_start), read_done);
}

/* Also where a read goes on after each of its waits. */
void op_read(struct op *op) {
  struct mirror *m = op->m;
  if (!m->serving) {
    op_end(op, TARN_SHUTDOWN);
    return;
  }
  if (touches_recovery(op)) {
    /* The copy needs the lock that this read may hold. */
    if (op->holding) {
      op->holding = false;
      range_release(&m->lock, &op->hold);
    }
    list_push(&m->recover_line, &op->link);
    copy_pump(m);
    return;
  }
  if (op_is_unreadable(op)) {
    op_end(op, TARN_IO);
    return;
  }
  enum overlap overlap = op->holding ? OVERLAP_NONE : overlap_of(op);
  bool master_failed = op->tried & 1u << m->record.master;
  if (overlap == OVERLAP_WAIT || (overlap == OVERLAP_MASTER && master_failed)) {
    read_wait(op);
    return;
  }
  bool from_master = overlap == OVERLAP_MASTER || (m->config.read_master && !master_failed);
  uint32_t image = from_master ? m->record.master : least_loaded(op);
  bool held = (image != m->record.master || !master_is_sure(m)) && image != IMAGES_MAX;
  if (held && !op->holding && !PLANTED(slave_unheld) && !read_hold(op)) {
    if (!master_is_sure(m) || master_failed) {
      read_wait(op);
      return;
    }
    image = m->record.master;
  }
  if (image == IMAGES_MAX || op->tried & 1u << image) {
    op_end(op, op->err != TARN_OK ? op->err : TARN_IO);
    return;
  }
  if (own_buffer(op)) read_issue(op, image);
}
