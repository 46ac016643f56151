/* mirror_copy.c - recovery (marked regions, after a crash) and synchronisation (what an image misses).
 *
 * Both copy a range from one image to others, under the exclusive lock of that range, so that an older block never
 * overwrites a newer one (B11). They differ in what they clear afterwards:
 *   recovery   `recover` bits, in memory; the region's mark is what is durable, and it goes by the rules of intent.h: after
 *              a flush that was submitted when the copy had completed. Nothing of a client's is marked less for it.
 *   missed     `copied` bits of the target's map; a checkpoint (drain, flush, then clear, then commit) makes them good. A
 *              target joins when a checkpoint that leaves nothing missed is durable.
 * Several copies are in flight, so that the next read is under way while the last write is (C11). Reads that wait for a
 * region to be recovered come first.
 *
 * Recovery writes the source as well. What it holds may be in its cache only, and no flush need ever bring it down: a flush
 * that failed before (or before the crash, in another process) has left it so, and the next good flush proves nothing of it.
 *
 * Crash argument: a crash before the mark is cleared, or before the checkpoint's commit, finds the same bits set, and the
 * same source recorded (rule 12): the copy is done again. */
#include <string.h>

#include "core/mirror_int.h"

static void copy_run(struct event *event);
static void copy_piece(struct copy *copy);
static void copy_finish(struct copy *copy);

static void copy_timer_fired(struct timer *timer) { copy_pump(CONTAINER_OF(timer, struct mirror, copy_timer)); }

void copy_init(struct mirror *m) {
  timer_init(&m->copy_timer, copy_timer_fired);
  event_init(&m->copy_event, copy_run);
}

tarn_err copy_alloc(struct mirror *m, struct arena *arena) {
  if (!bitmap_new(&m->recover, arena, m->geometry.extent_count)) return TARN_FULL;
  for (uint32_t c = 0; c < COPY_COUNT; c++) {
    struct copy *copy = &m->copies[c];
    copy->m = m;
    copy->legs = ARENA_NEW(arena, struct copy_leg, IMAGES_MAX);
    if (!copy->legs || !buffer_new_private(&copy->buffer, arena, COPY_BYTES + BUFFER_ALIGN)) return TARN_FULL;
    disk_io_init(&copy->read);
    for (uint32_t i = 0; i < IMAGES_MAX; i++) {
      disk_io_init(&copy->legs[i].io);
      copy->legs[i].copy = copy;
    }
  }
  return TARN_OK;
}

void copy_pump(struct mirror *m) {
  if (m->running && !event_is_posted(&m->copy_event)) event_post(&m->env->queue, &m->copy_event);
}

bool copy_is_idle(const struct mirror *m) { return m->copies_busy == 0; }

void recover_set(struct mirror *m, uint64_t start, uint64_t length) {
  uint64_t first = extent_first(m, start), count = extent_span(m, start, length);
  bitmap_set_range(&m->recover, first, count);
  EACH_IMAGE(m, i) {
    if (image_is_current(m, i) || !missed_set(&m->images[i].map, first, count)) continue;
    for (uint64_t region = start / m->geometry.region_bytes; region <= (start + length - 1) / m->geometry.region_bytes;
         region++) {
      uint32_t slot = intent_find(&m->intent, region);
      require(slot != INTENT_NONE);
      m->intent.marks[slot].map_seq = m->commit.started + 1;
    }
  }
}

/* ---- one copy ---- */

static uint32_t syncing_mask(const struct mirror *m) { return mirror_online_mask(m) & ~mirror_current_mask(m); }

static uint32_t copy_targets(const struct copy *copy) {
  const struct mirror *m = copy->m;
  if (copy->recover) return mirror_current_mask(m); /* the source too: see the top */
  uint32_t targets = 0;
  for (uint32_t mask = syncing_mask(m); mask != 0; mask &= mask - 1) {
    uint32_t i = (uint32_t)__builtin_ctz(mask);
    if (!missed_is_fresh(&m->images[i].map, extent_first(m, copy->start),
                         extent_span(m, copy->start, copy->end - copy->start)))
      targets |= 1u << i;
  }
  return targets;
}

static bool still_wanted(const struct copy *copy) {
  const struct mirror *m = copy->m;
  if (!copy->recover) return copy_targets(copy) != 0;
  return bitmap_any_in(&m->recover, extent_first(m, copy->start), extent_span(m, copy->start, copy->end - copy->start));
}

static void copy_locked(struct range_hold *hold) {
  struct copy *copy = CONTAINER_OF(hold, struct copy, hold);
  struct mirror *m = copy->m;
  if (!still_wanted(copy)) {
    copy->end = copy->start; /* somebody else did it */
    copy_finish(copy);
    return;
  }
  if (copy->recover) {
    uint64_t region = copy->start / m->geometry.region_bytes;
    require(intent_find(&m->intent, region) != INTENT_NONE);
    /* Exactly what is still to be copied: a read that could not wait may have had a part of it copied. */
    uint64_t extent = m->geometry.extent_bytes, e = bitmap_next_set(&m->recover, extent_first(m, copy->start));
    copy->start = copy->at = max_u64(copy->start, e * extent);
    copy->end = min_u64(copy->end, bitmap_next_clear(&m->recover, e) * extent);
    copy->issue_tick = intent_next_tick(&m->intent);
    copy->mark = intent_acquire(&m->intent, region, 0, m->env->now_ns);
  } else {
    copy->targets = copy_targets(copy);
  }
  copy_piece(copy);
}

static void copy_start(struct copy *copy, bool recover, uint64_t start, uint64_t end) {
  struct mirror *m = copy->m;
  require(!copy->busy && start < end);
  copy->busy = true;
  m->copies_busy++;
  copy->recover = recover;
  copy->start = copy->at = start;
  copy->end = end;
  copy->failed = copy->tried = copy->targets = 0;
  copy->unreadable = false;
  copy->mark = INTENT_NONE;
  if (range_acquire(&m->lock, &copy->hold, start, end - start, RANGE_EXCLUSIVE, HOLD_COPY, copy_locked))
    copy_locked(&copy->hold);
}

static void piece_written(struct copy *copy) {
  copy->at += copy->piece;
  if (copy->at < copy->end) copy_piece(copy);
  else copy_finish(copy);
}

static void copy_write_done(struct disk_io *io) {
  struct copy_leg *leg = CONTAINER_OF(io, struct copy_leg, io);
  struct copy *copy = leg->copy;
  uint32_t image = (uint32_t)(leg - copy->legs);
  leg_ended(copy->m, image, io);
  if (io->err != TARN_OK) copy->failed |= 1u << image;
  require(copy->pending > 0);
  if (--copy->pending == 0) piece_written(copy);
}

static bool all_zero(const uint8_t *data, uint64_t bytes) {
  return bytes != 0 && data[0] == 0 && memcmp(data, data + 1, bytes - 1) == 0;
}

/* Zeroes are copied as zeroes, so that holes stay holes (rule 14). */
static void copy_write(struct copy *copy) {
  struct mirror *m = copy->m;
  const struct disk_caps *caps = &m->volumes[geometry_volume_at(&m->geometry, copy->at)].disk.caps;
  bool zero = caps->can_zero && copy->piece % caps->zero_block_bytes == 0 && copy->piece <= caps->zero_bytes_max &&
              all_zero(copy->buffer.base, copy->piece);
  uint32_t targets = copy->recover ? copy_targets(copy) : copy->targets & syncing_mask(m);
  targets &= ~copy->failed;
  if (targets == 0) {
    piece_written(copy);
    return;
  }
  copy->targets |= targets;
  copy->pending = (uint32_t)__builtin_popcount(targets);
  for (; targets != 0; targets &= targets - 1) {
    uint32_t i = (uint32_t)__builtin_ctz(targets);
    if (zero)
      leg_submit(m, i, &copy->legs[i].io, DISK_WRITE_ZEROES, 0, copy->at, copy->piece, NULL, NULL, copy_write_done);
    else
      leg_submit(m, i, &copy->legs[i].io, DISK_WRITE, 0, copy->at, copy->piece, &copy->buffer, copy->buffer.base,
                 copy_write_done);
  }
}

static void copy_read_done(struct disk_io *io) {
  struct copy *copy = CONTAINER_OF(io, struct copy, read);
  leg_ended(copy->m, copy->source, io);
  /* A source that was put out meanwhile: another was read from since, and its bytes count. */
  if (io->err != TARN_OK || !image_is_current(copy->m, copy->source)) {
    copy->tried |= 1u << copy->source;
    copy_piece(copy);
    return;
  }
  copy_write(copy);
}

static void copy_piece(struct copy *copy) {
  struct mirror *m = copy->m;
  copy->piece = min_u64(copy->end - copy->at, COPY_BYTES);
  copy->source = read_source(m, copy->at, copy->piece, copy->tried);
  if (copy->source == IMAGES_MAX) {
    copy->unreadable = true;
    copy_finish(copy);
    return;
  }
  leg_submit(m, copy->source, &copy->read, DISK_READ, 0, copy->at, copy->piece, &copy->buffer, copy->buffer.base,
             copy_read_done);
}

static void end_line(struct list *line, tarn_err err) {
  struct list ended;
  list_init(&ended);
  list_splice(&ended, line);
  for (struct list *node = list_pop(&ended); node; node = list_pop(&ended))
    op_end(LIST_ENTRY(node, struct op, link), err);
}

/* Reads that wait for what cannot be copied get their error, and flushes that wait for all of it, and writes that wait for
 * the marks that it holds. */
static void fail_waiting(struct copy *copy) {
  struct mirror *m = copy->m;
  if (copy->recover) {
    end_line(&m->doubt_line, TARN_IO);
    mark_line_fail(m, TARN_IO);
  }
  struct list failed;
  list_init(&failed);
  LIST_EACH(&m->recover_line, node) {
    struct op *op = LIST_ENTRY(node, struct op, link);
    if (op->outer_start >= copy->end || op->outer_start + op->outer_length <= copy->start) continue;
    list_remove(node);
    list_push(&failed, node);
  }
  end_line(&failed, TARN_IO);
}

static void copy_succeeded(struct copy *copy) {
  struct mirror *m = copy->m;
  uint64_t first = extent_first(m, copy->start), count = extent_span(m, copy->start, copy->end - copy->start);
  uint64_t bytes = copy->end - copy->start;
  if (copy->recover) {
    uint32_t current = mirror_current_mask(m);
    if (copy->issue_tick < m->doubt_tick) return; /* a flush has failed meanwhile: once more */
    if ((current & ~copy->failed) == 0) {         /* rule 8 */
      copy->unreadable = true;
      return;
    }
    bitmap_clear_range(&m->recover, first, count);
    m->recover_copied += bytes;
  } else {
    for (uint32_t mask = copy->targets & ~copy->failed & syncing_mask(m); mask != 0; mask &= mask - 1) {
      struct image *image = &m->images[__builtin_ctz(mask)];
      missed_copied(&image->map, first, count);
      if (PLANTED(clear_copied_unflushed)) missed_checkpoint(&image->map);
      image->sync_copied += bytes;
      uint64_t rate = m->config.images[__builtin_ctz(mask)].policy.rate;
      if (rate) image->copy_next_ns = max_u64(m->env->now_ns, image->copy_next_ns) + bytes * NS_PER_S / rate;
    }
    m->checkpoint_bytes += bytes;
  }
  EACH_IMAGE(m, i) {
    if (copy->failed & 1u << i) image_drop(m, i, MISSING_FAILED, "a write of a copy failed", NULL);
  }
}

static void copy_finish(struct copy *copy) {
  struct mirror *m = copy->m;
  if (copy->end > copy->start && !copy->unreadable) copy_succeeded(copy);
  if (copy->unreadable) {
    m->copy_pause_ns = m->env->now_ns + RETRY_NS;
    timer_set(m->env, &m->copy_timer, m->copy_pause_ns);
    fail_waiting(copy);
  }
  if (copy->mark != INTENT_NONE) {
    intent_release(&m->intent, copy->mark, m->env->now_ns);
    mark_line_run(m);
  }
  range_release(&m->lock, &copy->hold);
  copy->busy = false;
  m->copies_busy--;
  copy_pump(m);
  admin_check_idle(m);
}

/* ---- choosing what to copy ---- */

static struct copy *free_copy(struct mirror *m, uint32_t reserve) {
  if (m->copies_busy + reserve >= COPY_COUNT) return NULL;
  for (uint32_t c = 0; c < COPY_COUNT; c++)
    if (!m->copies[c].busy) return &m->copies[c];
  return NULL;
}

static struct copy *copy_at(struct mirror *m, uint64_t address) {
  for (uint32_t c = 0; c < COPY_COUNT; c++)
    if (m->copies[c].busy && address >= m->copies[c].start && address < m->copies[c].end) return &m->copies[c];
  return NULL;
}

/* The end of the copy that starts at extent `e`: while `bits` are set, within one region and one volume. */
static uint64_t copy_stop_at(const struct mirror *m, const struct bitmap *bits, uint64_t e) {
  uint64_t start = e * m->geometry.extent_bytes;
  uint64_t stop = bitmap_next_clear(bits, e) * m->geometry.extent_bytes;
  stop = min_u64(stop, start + max_u64(COPY_BYTES, m->geometry.extent_bytes));
  stop = min_u64(stop, align_down(start, m->geometry.region_bytes) + m->geometry.region_bytes);
  return min_u64(stop, align_up(geometry_data_end(&m->geometry, start), m->block));
}

static void recover_at(struct mirror *m, struct copy *copy, uint64_t e) {
  copy_start(copy, true, e * m->geometry.extent_bytes, copy_stop_at(m, &m->recover, e));
}

static void run_waiting_reads(struct mirror *m) {
  struct list line;
  list_init(&line);
  list_splice(&line, &m->recover_line);
  for (struct list *node = list_pop(&line); node; node = list_pop(&line)) {
    struct op *op = LIST_ENTRY(node, struct op, link);
    uint64_t first = extent_first(m, op->outer_start), end = first + extent_span(m, op->outer_start, op->outer_length);
    uint64_t e = bitmap_next_set(&m->recover, first);
    if (e >= end) {
      op_read(op);
      continue;
    }
    list_push(&m->recover_line, &op->link);
    struct copy *copy = copy_at(m, e * m->geometry.extent_bytes) ? NULL : free_copy(m, 0);
    if (copy) recover_at(m, copy, e);
  }
}

static void run_recovery(struct mirror *m) {
  for (struct copy *copy = free_copy(m, 1); copy; copy = free_copy(m, 1)) {
    uint64_t e = bitmap_next_set(&m->recover, m->recover_cursor);
    const struct copy *busy;
    while (e < m->recover.bit_count && (busy = copy_at(m, e * m->geometry.extent_bytes)) != NULL)
      e = bitmap_next_set(&m->recover, min_u64((busy->end + m->geometry.extent_bytes - 1) / m->geometry.extent_bytes,
                                               m->recover.bit_count));
    if (e >= m->recover.bit_count) {
      if (m->recover_cursor == 0) return;
      m->recover_cursor = 0;
      continue;
    }
    recover_at(m, copy, e);
    m->recover_cursor = (copy->end + m->geometry.extent_bytes - 1) / m->geometry.extent_bytes;
    if (m->recover_cursor >= m->recover.bit_count) m->recover_cursor = 0;
    if (m->copy_pause_ns > m->env->now_ns) return;
  }
}

static void recovery_flushed(struct mirror *m, tarn_err err) {
  m->finishing = false;
  if (err != TARN_OK) {
    m->copy_pause_ns = m->env->now_ns + RETRY_NS;
    timer_set(m->env, &m->copy_timer, m->copy_pause_ns);
    end_line(&m->doubt_line, err);
  }
  if (err != TARN_OK || m->recover.set_count != 0) return;
  m->recovering = false;
  m->recover_end_ns = m->env->now_ns;
  m->record.recovery_source = RECORD_NO_SOURCE;
  m->record.doubt = false;
  m->record_dirty = true;
  commit_want(m);
  report(m->env, REPORT_INFO, m->config.name, "recovery is complete: %llu bytes copied",
         (unsigned long long)m->recover_copied);
  mirror_changed(m);
  struct list waiting;
  list_init(&waiting);
  list_splice(&waiting, &m->doubt_line);
  for (struct list *node = list_pop(&waiting); node; node = list_pop(&waiting))
    op_flush(LIST_ENTRY(node, struct op, link));
  copy_pump(m);
  admin_check_idle(m);
}

/* ---- synchronisation ---- */

/* Bits in the gap behind a volume stand for nothing. */
static bool skip_gap(struct mirror *m, struct missed *map, uint64_t e) {
  if (geometry_volume_at(&m->geometry, e * m->geometry.extent_bytes) < m->geometry.volume_count) return false;
  missed_copied(map, e, 1);
  return true;
}

static bool image_is_copied(const struct mirror *m, uint32_t i) {
  return missed_next(&m->images[i].map, 0) >= m->geometry.extent_count;
}

/* The next range that some image misses, from the cursor on; false when there is nothing (now). */
static bool sync_next(struct mirror *m, uint64_t *start, uint64_t *end) {
  uint64_t best = m->geometry.extent_count;
  const struct bitmap *bits = NULL;
  for (uint32_t mask = syncing_mask(m); mask != 0; mask &= mask - 1) {
    struct image *image = &m->images[__builtin_ctz(mask)];
    if (image->copy_next_ns > m->env->now_ns) {
      timer_set(m->env, &m->copy_timer, image->copy_next_ns);
      continue;
    }
    uint64_t e = missed_next(&image->map, m->sync_cursor);
    while (e < m->geometry.extent_count && (skip_gap(m, &image->map, e) || copy_at(m, e * m->geometry.extent_bytes)))
      e = missed_next(&image->map, e + 1);
    if (e >= best) continue;
    best = e;
    bits = &image->map.missed;
  }
  if (!bits) return false;
  *start = best * m->geometry.extent_bytes;
  *end = copy_stop_at(m, bits, best);
  return true;
}

static void checkpoint_flushed(struct mirror *m, tarn_err err) {
  require(m->checkpoint == CHECKPOINT_FLUSH);
  for (uint32_t mask = syncing_mask(m); mask != 0; mask &= mask - 1) {
    struct missed *map = &m->images[__builtin_ctz(mask)].map;
    if (err == TARN_OK) missed_checkpoint(map);
    else missed_forget_copied(map); /* a failed flush proves nothing of them */
  }
  m->checkpoint_bytes = 0;
  m->checkpoint = CHECKPOINT_COMMIT;
  m->checkpoint_seq = commit_want(m);
}

void copy_committed(struct mirror *m) {
  if (m->checkpoint == CHECKPOINT_COMMIT && m->commit.done >= m->checkpoint_seq) {
    m->checkpoint = CHECKPOINT_NONE;
    for (uint32_t mask = syncing_mask(m); mask != 0; mask &= mask - 1) {
      uint32_t i = (uint32_t)__builtin_ctz(mask);
      if (m->images[i].map.missed.set_count == 0) image_join(m, i);
    }
  }
  copy_pump(m);
}

static void run_checkpoint(struct mirror *m) {
  bool done = false;
  for (uint32_t mask = syncing_mask(m); mask != 0; mask &= mask - 1)
    done |= image_is_copied(m, (uint32_t)__builtin_ctz(mask));
  if (m->checkpoint == CHECKPOINT_NONE && (done || m->checkpoint_bytes >= CHECKPOINT_BYTES))
    m->checkpoint = CHECKPOINT_DRAIN;
  if (m->checkpoint != CHECKPOINT_DRAIN || m->copies_busy != 0 || list_is_linked(&m->copy_flush.link)) return;
  m->checkpoint = CHECKPOINT_FLUSH;
  flush_all(m, &m->copy_flush, checkpoint_flushed);
}

static void run_sync(struct mirror *m) {
  if (syncing_mask(m) == 0) return;
  run_checkpoint(m);
  while (m->checkpoint == CHECKPOINT_NONE) {
    struct copy *copy = free_copy(m, 1);
    uint64_t start, end;
    if (!copy) return;
    if (!sync_next(m, &start, &end)) {
      if (m->sync_cursor == 0) return;
      m->sync_cursor = 0;
      continue;
    }
    copy_start(copy, false, start, end);
    m->sync_cursor =
        min_u64((end + m->geometry.extent_bytes - 1) / m->geometry.extent_bytes, m->geometry.extent_count - 1);
  }
}

static void copy_run(struct event *event) {
  struct mirror *m = CONTAINER_OF(event, struct mirror, copy_event);
  if (!m->running) return;
  run_waiting_reads(m);
  if (m->copy_pause_ns > m->env->now_ns) return;
  if (m->recover.set_count != 0) {
    run_recovery(m);
    return;
  }
  if (m->recovering && !m->finishing && m->copies_busy == 0) {
    m->finishing = true;
    flush_all(m, &m->recover_flush, recovery_flushed);
  }
  run_sync(m);
}

void copy_stop(struct mirror *m) {
  end_line(&m->recover_line, TARN_SHUTDOWN);
  end_line(&m->doubt_line, TARN_SHUTDOWN);
}
