/* mirror_write.c - the path of a write, a zeroing and a flush.
 *
 *   place among the writes
 *   -> scratch (if edges are merged) -> marks -> commit, if one is new, or an image was dropped -> range lock -> merge
 *                                                                     -> all images at once -> judgement
 *                                                                     -> release -> commit, if an image was dropped -> answer
 *
 * Crash argument: the marks are durable on every image before any image is touched, so after a crash every block that the
 * images may hold differently lies in a marked region, and recovery makes them equal. A mark outlives the write until a
 * later flush has succeeded on every image; what an absent image misses is durable in its map before the mark goes. */
#include <string.h>

#include "core/mirror_int.h"

static void take_marks(struct op *op);
static void merge_next(struct op *op);
static void issue(struct op *op);
static void judge(struct op *op);

/* ---- I/O on one image ---- */

void leg_submit(struct mirror *m, uint32_t image, struct disk_io *io, enum disk_op op, uint32_t flags, uint64_t start,
                uint64_t length, struct buffer *buffer, uint8_t *data, void (*done)(struct disk_io *io)) {
  uint32_t v = geometry_volume_at(&m->geometry, start);
  require(v < m->geometry.volume_count);
  struct disk *disk = &m->images[image].data[v].disk;
  io->op = op;
  io->flags = flags;
  io->offset = start - m->geometry.volume_base[v];
  /* The last block of a volume may be longer than an image that has smaller blocks. */
  io->length = op == DISK_FLUSH ? 0 : min_u64(length, disk->caps.size_bytes - io->offset);
  if (op == DISK_FLUSH) io->offset = 0;
  /* What is read from an image that ends within the block is written to others, as a copy or at the edge of a write. */
  if (op == DISK_READ && io->length < length) memset(data + io->length, 0, length - io->length);
  io->buffer = buffer;
  io->data = data;
  io->done = done;
  m->images[image].in_flight++;
  if (op == DISK_READ) m->images[image].reads++;
  else if (op != DISK_EXTENTS) m->images[image].writes++;
  disk_submit(disk, io);
}

void leg_ended(struct mirror *m, uint32_t image, const struct disk_io *io) {
  struct image *im = &m->images[image];
  require(im->in_flight > 0);
  im->in_flight--;
  if (io->err == TARN_OK) return;
  im->sync_failed |= io->err != TARN_HUNG && (io->op == DISK_FLUSH || io->flags & DISK_FUA);
  if (!error_is_of_place(io->err)) return; /* a hang, or a lost connection, is not a disk error */
  if (io->op == DISK_READ) im->read_errors++;
  else if (io->op != DISK_EXTENTS) im->write_errors++;
}

/* ---- marks ---- */

static bool region_recovers(const struct mirror *m, uint64_t region) {
  uint64_t per_region = m->geometry.region_bytes / m->geometry.extent_bytes;
  return m->recover.set_count != 0 && bitmap_any_in(&m->recover, region * per_region, per_region);
}

/* Whoever waits for marks gets the error: no room can be made when flushes or commits fail everywhere. */
void mark_line_fail(struct mirror *m, tarn_err err) {
  struct list failed;
  list_init(&failed);
  list_splice(&failed, &m->mark_line);
  for (struct list *node = list_pop(&failed); node; node = list_pop(&failed))
    op_end(LIST_ENTRY(node, struct op, link), err);
}

static void room_flushed(struct mirror *m, tarn_err err) {
  if (err == TARN_OK || err == TARN_FULL)
    mark_line_run(m); /* FULL: it was overtaken, and who came since has lost nothing: once more */
  else mark_line_fail(m, err);
}

static void flush_for_room(struct mirror *m) {
  if (!list_is_linked(&m->room_flush.link)) flush_all(m, &m->room_flush, room_flushed);
}

/* Clears up to `count` marks, oldest use first, that are older than `before_ns`; sees to it that more can be cleared
 * later. Returns how many. */
static uint32_t clear_marks(struct mirror *m, uint32_t count, uint64_t before_ns) {
  uint32_t cleared = 0;
  bool flush = false, commit = false;
  /* Nobody notes what an image misses whose removal is being recorded, and perhaps taken back. */
  if (m->admin == ADMIN_IMAGE && m->admin_op == IMAGE_OP_REMOVE && m->admin_step == STEP_COMMIT) return 0;
  LIST_EACH(&m->intent.used, node) {
    struct mark *mark = LIST_ENTRY(node, struct mark, link);
    uint32_t slot = (uint32_t)(mark - m->intent.marks);
    if (cleared == count || mark->used_ns > before_ns) break;
    if (region_recovers(m, mark->region)) continue;
    witness_drop(m, mark->region);
    if (intent_can_clear(&m->intent, slot, m->commit.done)) {
      witness_note(m, mark);
      intent_clear(&m->intent, slot);
      cleared++;
    } else if (intent_wants_flush(&m->intent, slot)) {
      flush = true;
    } else if (mark->refs == 0) {
      commit = true;
    }
  }
  if (flush && cleared == 0) flush_for_room(m);
  if (commit || cleared) commit_want(m);
  return cleared;
}

void marks_tick(struct timer *timer) {
  struct mirror *m = CONTAINER_OF(timer, struct mirror, tick);
  uint64_t now = m->env->now_ns;
  clear_marks(m, UINT32_MAX, now > MARK_IDLE_NS ? now - MARK_IDLE_NS : 0);
  bool dirty = m->record_dirty || m->intent.dirty.set_count != 0;
  for (uint32_t i = 0; i < m->config.image_count; i++) dirty |= missed_is_dirty(&m->images[i].map);
  if (dirty) commit_want(m);
  mark_line_run(m);
  witness_tick(m);
  images_tick(m);
  copy_pump(m);
  timer_set(m->env, &m->tick, now + TICK_NS);
}

/* All marks that the op needs, or none: who held some while waiting for more could wait in a circle. */
static bool try_marks(struct op *op) {
  struct mirror *m = op->m;
  uint64_t first = div_power(op->start, m->geometry.region_bytes);
  uint64_t last = div_power(op->start + op->length - 1, m->geometry.region_bytes);
  require(last - first < OP_MARKS_MAX);
  uint32_t needed = 0, slots[OP_MARKS_MAX];
  for (uint64_t region = first; region <= last; region++) {
    slots[region - first] = intent_find(&m->intent, region);
    needed += slots[region - first] == INTENT_NONE;
  }
  if (needed > intent_free_count(&m->intent)) return false;
  if (needed) commit_want(m);
  for (uint64_t region = first; region <= last; region++) {
    uint32_t slot = slots[region - first];
    if (slot == INTENT_NONE) slot = intent_acquire(&m->intent, region, m->commit.started + 1, m->env->now_ns);
    else intent_acquire_slot(&m->intent, slot, m->env->now_ns);
    op->marks[op->mark_count++] = slot;
  }
  return true;
}

static void lock_granted(struct range_hold *hold) {
  struct op *op = CONTAINER_OF(hold, struct op, hold);
  if (op->scratch) merge_next(op);
  else issue(op);
}

static void place_give(struct op *op) {
  if (!op->ordered) return;
  op->ordered = false;
  range_release(&op->m->write_order, &op->place);
}

static void lock(struct op *op) {
  op->holding = true;
  bool granted = range_acquire(&op->m->lock, &op->hold, op->outer_start, op->outer_length, RANGE_EXCLUSIVE, HOLD_WRITE,
                               lock_granted);
  place_give(op); /* from here on the lock keeps the order */
  if (granted) lock_granted(&op->hold);
}

static void marks_durable(struct op *op, tarn_err err) {
  if (err != TARN_OK) {
    op_end(op, err);
    return;
  }
  /* An image that failed in the very commit of these marks does not have them, and must not pass for current after a crash:
   * the record that puts it out comes first. */
  uint64_t seq = PLANTED(drop_after_answer) ? 0 : commit_wait_for(op->m, op->m->drop_seq);
  if (seq != 0) {
    commit_wait(op->m, op, seq, marks_durable);
    return;
  }
  if (PLANTED(rmw_unlocked) && op->scratch) {
    merge_next(op);
    return;
  }
  lock(op);
}

static void with_marks(struct op *op) {
  struct mirror *m = op->m;
  uint64_t seq = 0;
  for (uint32_t i = 0; i < op->mark_count; i++)
    seq = max_u64(seq, commit_wait_for(m, m->intent.marks[op->marks[i]].commit_seq));
  if (seq == 0 || PLANTED(answer_before_intent)) marks_durable(op, TARN_OK);
  else commit_wait(m, op, seq, marks_durable);
}

static void take_marks(struct op *op) {
  struct mirror *m = op->m;
  if (m->log_off) {
    marks_durable(op, TARN_OK);
    return;
  }
  if (list_is_empty(&m->mark_line) && try_marks(op)) {
    with_marks(op);
    return;
  }
  list_push(&m->mark_line, &op->link);
  mark_line_run(m);
}

void mark_line_run(struct mirror *m) {
  while (!list_is_empty(&m->mark_line)) {
    struct op *op = LIST_ENTRY(list_first(&m->mark_line), struct op, link);
    if (!m->serving) {
      list_remove(&op->link);
      op_end(op, TARN_SHUTDOWN);
      continue;
    }
    if (!try_marks(op)) {
      uint32_t quarter = m->geometry.mark_count / 4;
      if (clear_marks(m, quarter, UINT64_MAX) == 0) return; /* a release, a flush or a commit will come by */
      continue;
    }
    list_remove(&op->link);
    with_marks(op);
  }
}

/* ---- start ---- */

/* There is one for each that may be in use, and one more for each that a disk holds: it holds those of one moment at most, and
 * is not used again before it has answered. */
static struct buffer *scratch_take(struct mirror *m) {
  LIST_EACH(&m->held_scratch, node) {
    struct buffer *buffer = LIST_ENTRY(node, struct buffer, link);
    if (buffer_is_shared(buffer)) continue;
    list_remove(node);
    list_push(&m->free_scratch, node);
  }
  struct list *node = list_pop(&m->free_scratch);
  require(node != NULL);
  m->scratch_busy++;
  return LIST_ENTRY(node, struct buffer, link);
}

static void scratch_give(struct mirror *m, struct buffer *scratch) {
  require(m->scratch_busy > 0);
  m->scratch_busy--;
  list_push(buffer_is_shared(scratch) ? &m->held_scratch : &m->free_scratch, &scratch->link);
}

static void write_begins(struct op *op) {
  struct mirror *m = op->m;
  bool edges = op->outer_start != op->start || op->outer_length != op->length;
  if (op->kind == OP_WRITE && edges) {
    if (m->scratch_busy == m->limits.scratch) {
      list_push(&m->scratch_line, &op->link);
      return;
    }
    op->scratch = scratch_take(m);
  }
  take_marks(op);
}

static void place_granted(struct range_hold *place) {
  struct op *op = CONTAINER_OF(place, struct op, place);
  if (op->m->serving) write_begins(op);
  else op_end(op, TARN_SHUTDOWN);
}

void op_write(struct op *op) {
  op->ordered = !PLANTED(write_passes);
  if (!op->ordered || range_acquire(&op->m->write_order, &op->place, op->outer_start, op->outer_length, RANGE_EXCLUSIVE,
                                    HOLD_WRITE, place_granted))
    write_begins(op);
}

void scratch_line_stop(struct mirror *m) {
  for (struct list *node = list_pop(&m->scratch_line); node; node = list_pop(&m->scratch_line))
    op_end(LIST_ENTRY(node, struct op, link), TARN_SHUTDOWN);
}

/* Gives back lock, marks and scratch, and starts who waits for them. */
void op_release(struct op *op) {
  struct mirror *m = op->m;
  if (op->holding) {
    op->holding = false;
    range_release(&m->lock, &op->hold);
  }
  place_give(op);
  bool marked = op->mark_count != 0;
  for (uint32_t i = 0; i < op->mark_count; i++) {
    struct mark *mark = &m->intent.marks[op->marks[i]];
    if (op->issued != 0)
      mark->written_end = min_u64(op->start + op->length, (mark->region + 1) * m->geometry.region_bytes);
    intent_release(&m->intent, op->marks[i], m->env->now_ns);
  }
  op->mark_count = 0;
  if (op->scratch) {
    scratch_give(m, op->scratch);
    op->scratch = NULL;
    struct list *node = list_pop(&m->scratch_line);
    if (node) {
      struct op *next = LIST_ENTRY(node, struct op, link);
      next->scratch = scratch_take(m);
      take_marks(next);
    }
  }
  if (marked) mark_line_run(m);
}

/* ---- merge: the blocks at the edges of an unaligned write are read, under the lock, and completed ---- */

static uint64_t op_stop(const struct op *op) { return op->start + op->length; }
static uint64_t outer_stop(const struct op *op) { return op->outer_start + op->outer_length; }

/* The placement rule of disk.h. */
static uint8_t *scratch_at(const struct op *op, uint64_t block) { return op->scratch->base + block % BUFFER_ALIGN; }

static void merged(struct op *op, uint64_t block) {
  uint64_t stop = min_u64(block + op->m->block, outer_stop(op));
  uint8_t *data = op->client->data, *old = scratch_at(op, block);
  if (block < op->start) memcpy(data - (op->start - block), old, op->start - block);
  if (stop > op_stop(op)) memcpy(data + op->length, old + (op_stop(op) - block), stop - op_stop(op));
}

static void merge_read_done(struct disk_io *io) {
  struct leg *leg = CONTAINER_OF(io, struct leg, io);
  struct op *op = leg->op;
  struct mirror *m = op->m;
  uint32_t image = leg->image;
  leg_ended(m, image, io);
  /* An image that was put out meanwhile: another was read from since, and its bytes count. */
  if (io->err != TARN_OK || !image_is_current(m, image)) {
    op->tried |= 1u << image;
    if (buffer_is_shared(op->scratch)) { /* that disk may still write to it */
      scratch_give(m, op->scratch);
      op->scratch = scratch_take(m);
    }
  } else {
    uint64_t block = m->geometry.volume_base[op->volume] + io->offset;
    merged(op, block);
    op->unread |= 1u << image;
    op->tick = block + m->block; /* merged up to here */
  }
  merge_next(op);
}

/* op->tick serves as the position: blocks before it are merged. All over again when an image that was read from is out: where something
 * is still to be recovered the others, which a read may have shown meanwhile, may hold other bytes. */
static void merge_next(struct op *op) {
  struct mirror *m = op->m;
  uint64_t head = op->outer_start, tail = align_down(op_stop(op) - 1, m->block);
  uint64_t block;
  if (head < op->start && op->tick <= head) block = head;
  else if (outer_stop(op) > op_stop(op) && op->tick <= tail) block = tail;
  else if (op->unread & ~mirror_current_mask(m)) {
    op->unread = 0;
    op->tick = 0;
    merge_next(op);
    return;
  } else {
    if (PLANTED(rmw_unlocked) && !op->holding) {
      op->tick = UINT64_MAX;
      lock(op);
      return;
    }
    issue(op);
    return;
  }
  uint32_t source = merge_is_unreadable(op, block) ? IMAGES_MAX : read_source(m, block, m->block, op->tried);
  if (source == IMAGES_MAX) {
    op_end(op, TARN_IO);
    return;
  }
  leg_submit(m, source, &op_leg(op, source)->io, DISK_READ, 0, block, min_u64(m->block, outer_stop(op) - block),
             op->scratch, scratch_at(op, block), merge_read_done);
}

/* ---- all images at once ---- */

/* What images that are away do not get is missed; durable in their maps before the marks go. */
static void note_missed(struct op *op) {
  struct mirror *m = op->m;
  EACH_IMAGE(m, i) {
    if (image_takes_data(m, i)) continue;
    if (!missed_set(&m->images[i].map, extent_first(m, op->start), extent_span(m, op->start, op->length))) continue;
    for (uint32_t k = 0; k < op->mark_count; k++) m->intent.marks[op->marks[k]].map_seq = m->commit.started + 1;
  }
}

static void leg_done(struct disk_io *io) {
  struct leg *leg = CONTAINER_OF(io, struct leg, io);
  struct op *op = leg->op;
  uint32_t image = leg->image;
  leg_ended(op->m, image, io);
  if (io->err != TARN_OK) {
    op->failed |= 1u << image;
    if (io->err == TARN_HUNG) op->hung |= 1u << image;
    if (op->err == TARN_OK || op->err == TARN_NO_SPACE) op->err = io->err;
  }
  require(op->pending > 0);
  if (--op->pending == 0) judge(op);
}

static void issue(struct op *op) {
  struct mirror *m = op->m;
  if (!unreadable_may_write(op, &op->flags)) {
    op_end(op, TARN_IO);
    return;
  }
  note_missed(op);
  op->master = m->record.master;
  op->issue_tick = intent_next_tick(&m->intent);
  uint32_t targets = 0;
  EACH_IMAGE(m, i) {
    if (!image_takes_data(m, i)) continue;
    /* An image that is being copied to gets it at once where it has been copied already; else the copy brings it. */
    if (image_is_current(m, i) ||
        !missed_is_stale(&m->images[i].map, extent_first(m, op->start), extent_span(m, op->start, op->length)))
      targets |= 1u << i;
  }
  require(targets != 0);
  op->issued = targets;
  op->pending = (uint32_t)__builtin_popcount(targets);
  struct disk_io *io = op->client;
  for (; targets != 0; targets &= targets - 1) {
    uint32_t i = (uint32_t)__builtin_ctz(targets);
    if (op->kind == OP_ZERO)
      leg_submit(m, i, &op_leg(op, i)->io, DISK_WRITE_ZEROES, op->flags, op->start, op->length, NULL, NULL, leg_done);
    else
      leg_submit(m, i, &op_leg(op, i)->io, DISK_WRITE, op->flags, op->outer_start, op->outer_length, io->buffer,
                 io->data - (op->start - op->outer_start), leg_done);
  }
}

/* ---- flush ---- */

static void flush_issue(struct op *op) {
  struct mirror *m = op->m;
  struct volume *volume = &m->volumes[op->volume];
  require(!volume->flushing);
  volume->flushing = true;
  list_splice(&op->group, &volume->flush_line);
  op->tick = intent_next_tick(&m->intent);
  op->failed = op->hung = 0; /* of the first time, if it is asked again */
  op->err = TARN_OK;
  op->issued = mirror_online_mask(m);
  op->pending = (uint32_t)__builtin_popcount(op->issued);
  require(op->pending > 0);
  for (uint32_t targets = op->issued; targets != 0; targets &= targets - 1) {
    uint32_t i = (uint32_t)__builtin_ctz(targets);
    leg_submit(m, i, &op_leg(op, i)->io, DISK_FLUSH, 0, m->geometry.volume_base[op->volume], 0, NULL, NULL, leg_done);
  }
}

/* No flush of a client's is answered before what a failed one has left in doubt is written again. */
static bool flush_in_doubt(const struct op *op) {
  return op->client && op->m->record.doubt && !PLANTED(flush_in_doubt);
}

/* At most one flush of a volume is under way: of two that overlap a kernel may tell only one of a failure, and the other's
 * success would prove nothing. Those that come meanwhile share the next one. */
void op_flush(struct op *op) {
  struct mirror *m = op->m;
  struct volume *volume = &m->volumes[op->volume];
  if (flush_in_doubt(op) && !m->serving) {
    op_end(op, TARN_SHUTDOWN);
  } else if (flush_in_doubt(op)) {
    list_push(&m->doubt_line, &op->link);
    copy_pump(m);
  } else if (volume->flushing) {
    list_push(&volume->flush_line, &op->link);
  } else {
    flush_issue(op);
  }
}

/* Those that came meanwhile: one flush for all, but for clients' whose writes are in doubt by now. They must not ride along
 * with one of ours, which proves nothing of what the failed flush has lost. */
static void flush_line_run(struct volume *volume) {
  struct list line;
  struct op *first = NULL;
  list_init(&line);
  list_splice(&line, &volume->flush_line);
  for (struct list *node = list_pop(&line); node; node = list_pop(&line)) {
    struct op *op = LIST_ENTRY(node, struct op, link);
    if (flush_in_doubt(op) && !(first && PLANTED(flush_rides_along))) op_flush(op);
    else if (!first) first = op;
    else list_push(&volume->flush_line, &op->link);
  }
  if (first) op_flush(first);
}

static void flush_op_done(struct op *op);

static void flush_start(struct mirror *m) {
  list_splice(&m->flush_running, &m->flush_waiting);
  m->flush_err = TARN_OK;
  m->flush_pending = m->geometry.volume_count;
  for (uint32_t v = 0; v < m->geometry.volume_count; v++) {
    struct op *op = &m->flush_ops[v];
    *op = (struct op){.m = m, .index = op->index, .kind = OP_FLUSH, .volume = v, .done = flush_op_done};
    list_init(&op->link);
    list_init(&op->group);
  }
  for (uint32_t v = 0; v < m->geometry.volume_count; v++) op_flush(&m->flush_ops[v]);
}

static void flush_op_done(struct op *op) {
  struct mirror *m = op->m;
  if (op->err != TARN_OK && (m->flush_err == TARN_OK || m->flush_err == TARN_FULL)) m->flush_err = op->err;
  require(m->flush_pending > 0);
  if (--m->flush_pending != 0) return;
  tarn_err err = m->flush_err; /* whoever is told may begin the next one */
  struct list ended;
  list_init(&ended);
  list_splice(&ended, &m->flush_running);
  for (struct list *node = list_pop(&ended); node; node = list_pop(&ended)) {
    struct flush_wait *wait = LIST_ENTRY(node, struct flush_wait, link);
    wait->done(m, err);
  }
  if (list_is_empty(&m->flush_running) && !list_is_empty(&m->flush_waiting)) flush_start(m);
  admin_check_idle(m);
}

void flush_all(struct mirror *m, struct flush_wait *wait, void (*done)(struct mirror *m, tarn_err err)) {
  wait->done = done;
  list_push(&m->flush_waiting, &wait->link);
  if (list_is_empty(&m->flush_running)) flush_start(m);
}

/* ---- the judgement: when all images have answered (rule 6) ---- */

/* Nothing can be told of the images here: they are made equal from one source before this is read again. */
static void failed_everywhere(struct op *op) {
  struct mirror *m = op->m;
  if (m->log_was_off) {
    mirror_fall(m, "a write or a flush failed, and nothing tells what was written while the intent log was off");
    return;
  }
  if (op->kind != OP_FLUSH && !(op->flags & DISK_FUA)) {
    recover_set(m, op->start, op->length);
    return;
  }
  /* What was written since the last good flush may never come down, and no later flush proves that it did: all of it is
   * written again, and until that is flushed no flush is answered, also by the next process. */
  m->record.doubt = true;
  m->doubt_is_loss |= op->failed != op->hung;
  m->doubt_tick = intent_next_tick(&m->intent);
  m->recovering = true;
  if (m->record.recovery_source == RECORD_NO_SOURCE) m->record.recovery_source = m->record.master;
  m->record_dirty = true;
  commit_want(m);
  LIST_EACH(&m->intent.used, node) {
    const struct mark *mark = LIST_ENTRY(node, struct mark, link);
    uint64_t start = mark->region * m->geometry.region_bytes;
    if (geometry_volume_at(&m->geometry, start) == op->volume)
      recover_set(m, start, min_u64(m->geometry.region_bytes, geometry_data_end(&m->geometry, start) - start));
  }
}

static void answer(struct op *op, tarn_err err) {
  struct mirror *m = op->m;
  uint64_t seq = err == TARN_OK && !PLANTED(drop_after_answer) ? commit_wait_for(m, answer_seq(m)) : 0;
  if (seq == 0) op_end(op, err);
  else commit_wait(m, op, seq, answer);
}

/* `overtaken`: a flush that failed everywhere came meanwhile, and this one's success proves nothing any more. */
static void flush_answer(struct op *op, tarn_err err, bool overtaken) {
  if (op->client && overtaken && op->m->serving) {
    op_flush(op); /* once all is written again */
    return;
  }
  op->err = !overtaken ? err : op->client ? TARN_IO : TARN_FULL;
  if (op->client) answer(op, op->err);
  else op_end(op, op->err);
}

/* For the leader of a group and all that it was for; then those that came meanwhile have their turn. */
static void flush_judged(struct op *op, tarn_err err) {
  struct mirror *m = op->m;
  struct volume *volume = &m->volumes[op->volume];
  bool overtaken = err == TARN_OK && op->tick < m->doubt_tick;
  if (err == TARN_OK && !overtaken) intent_flushed(&m->intent, op->volume, op->tick);
  struct list group;
  list_init(&group);
  list_splice(&group, &op->group);
  volume->flushing = false;
  flush_line_run(volume);
  mark_line_run(m);
  flush_answer(op, err, overtaken);
  for (struct list *node = list_pop(&group); node; node = list_pop(&group))
    flush_answer(LIST_ENTRY(node, struct op, link), err, overtaken);
}

static const char *failure_text(const struct op *op) {
  switch (op->kind) {
    case OP_READ:
    case OP_EXTENTS: return "a read failed";
    case OP_WRITE: return op->err == TARN_NO_SPACE ? "a write failed: no space left" : "a write failed";
    case OP_ZERO: return "zeroing failed";
    case OP_FLUSH: return "a flush failed";
  }
  return "";
}

/* An image that has failed a request is out, but for one that came back since the request was made. */
static bool failed_in_this_life(const struct op *op, uint32_t image) {
  uint64_t tick = op->kind == OP_FLUSH ? max_u64(op->issue_tick, op->tick) : op->issue_tick;
  return tick >= op->m->images[image].since_tick;
}

static void judge(struct op *op) {
  struct mirror *m = op->m;
  uint32_t current = mirror_current_mask(m);
  uint32_t good = op->issued & ~op->failed & current;
  tarn_err err = TARN_OK;
  uint32_t out = op->failed;
  if (good == 0) {
    err = op->err != TARN_OK ? op->err : TARN_IO;
    out &= ~current;
    failed_everywhere(op);
  }
  if (PLANTED(flush_error_ignored) && op->kind == OP_FLUSH) out = 0;
  EACH_IMAGE(m, i) {
    if (out & 1u << i && failed_in_this_life(op, i)) image_drop(m, i, MISSING_FAILED, failure_text(op), op);
  }
  if (op->kind != OP_FLUSH && err == TARN_OK && m->recover.set_count != 0 &&
      (op->issue_tick > m->doubt_tick || PLANTED(write_ends_doubt))) {
    /* Extents that were written whole are equal now on every current image. */
    uint64_t first = align_up(op->start, m->geometry.extent_bytes) / m->geometry.extent_bytes;
    uint64_t last = (op->start + op->length) / m->geometry.extent_bytes;
    if (first < last) bitmap_clear_range(&m->recover, first, last - first);
  }
  if (op->kind != OP_FLUSH && err == TARN_OK) unreadable_written(op);
  if (op->kind != OP_FLUSH && !(op->flags & DISK_FUA))
    m->volumes[op->volume].written_tick = intent_next_tick(&m->intent);
  op->err = err;
  op_release(op);
  copy_pump(m);
  if (op->kind == OP_FLUSH) flush_judged(op, err);
  else answer(op, err);
}
