/* mirror_sync.c - what is copied next: recovery (marked regions, after a crash) and synchronisation (what an image misses).
 *
 * In this order: regions that reads wait for; regions to be recovered; the flush that ends a recovery; then, side by side,
 * synchronisation, repairs (mirror_repair.c) and a verify (mirror_verify.c). Several copies are in flight, so that the next
 * read is under way while the last write is (C11); while clients are active synchronisation has one (B10), and the rate of an
 * image bounds it further.
 *
 * Synchronisation goes from checkpoint to checkpoint: drain (none of its copies in flight), flush, then clear what was copied, then
 * commit. One is due after so many bytes, or so long after the first of them (the tick looks): so a copy that is killed over and
 * over comes to its end at any rate. A target joins when a checkpoint that it took part in, and that leaves nothing missed, is
 * durable. */
#include "core/mirror_int.h"

#define CLIENTS_ACTIVE_NS (10 * NS_PER_MS) /* after their last I/O */

static void copy_run(struct event *event);

static void copy_timer_fired(struct timer *timer) { copy_pump(CONTAINER_OF(timer, struct mirror, copy_timer)); }

void copy_init(struct mirror *m) {
  timer_init(&m->copy_timer, copy_timer_fired);
  event_init(&m->copy_event, copy_run);
}

void copy_pump(struct mirror *m) {
  if (m->running && !event_is_posted(&m->copy_event)) event_post(&m->env->queue, &m->copy_event);
}

void end_line(struct list *line, tarn_err err) {
  struct list ended;
  list_init(&ended);
  list_splice(&ended, line);
  for (struct list *node = list_pop(&ended); node; node = list_pop(&ended))
    op_end(LIST_ENTRY(node, struct op, link), err);
}

void recover_set(struct mirror *m, uint64_t start, uint64_t length) {
  uint64_t first = extent_first(m, start), count = extent_span(m, start, length);
  bitmap_set_range(&m->recover, first, count);
  m->recover_sets++;
  m->recover_total = max_u64(m->recover_total, m->recover.set_count);
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

bool one_is_current(const struct mirror *m) {
  uint32_t current = mirror_current_mask(m);
  return (current & (current - 1)) == 0;
}

uint32_t syncing_mask(const struct mirror *m) {
  uint32_t mask = 0;
  EACH_IMAGE(m, i) {
    if (image_takes_data(m, i) && image_state_of(m, i) == IMAGE_SYNCHRONIZING) mask |= 1u << i;
  }
  return mask;
}

static uint32_t busy_count(const struct mirror *m, enum copy_kind kind) {
  uint32_t count = 0;
  for (uint32_t c = 0; c < COPY_COUNT; c++) count += m->copies[c].busy && m->copies[c].kind == kind;
  return count;
}

/* The end of the copy that starts at extent `e`: while `bits` are set, within one region and one volume. */
static uint64_t copy_stop_at(const struct mirror *m, const struct bitmap *bits, uint64_t e) {
  uint64_t extent = m->geometry.extent_bytes, start = e * extent;
  uint64_t stop = bitmap_next_clear_in(bits, e, e + m->geometry.region_bytes / extent) * extent;
  stop = min_u64(stop, start + max_u64(align_down(copy_io_max(m, start), extent), extent));
  stop = min_u64(stop, align_down(start, m->geometry.region_bytes) + m->geometry.region_bytes);
  return min_u64(stop, align_up(geometry_data_end(&m->geometry, start), m->block));
}

static void start_copy(struct copy *copy, enum copy_kind kind, uint64_t start, uint64_t end) {
  copy_begin(copy, kind, start, end);
  copy_lock(copy);
}

/* ---- recovery ---- */

static void recover_at(struct mirror *m, struct copy *copy, uint64_t e) {
  start_copy(copy, COPY_RECOVER, e * m->geometry.extent_bytes, copy_stop_at(m, &m->recover, e));
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
    struct copy *copy = copy_at(m, e * m->geometry.extent_bytes) ? NULL : copy_find(m, 0);
    if (copy) recover_at(m, copy, e);
  }
}

static void run_recovery(struct mirror *m) {
  for (struct copy *copy = copy_find(m, 1); copy; copy = copy_find(m, 1)) {
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

static void flush_pauses(struct mirror *m) {
  m->copy_pause_ns = m->env->now_ns + RETRY_NS;
  m->copy_pause_why = "a flush that fails";
  m->recovery_pauses = false;
  timer_set(m->env, &m->copy_timer, m->copy_pause_ns);
}

bool mirror_recovers(const struct mirror *m) { return m->recovering || m->recover.set_count != 0; }

static void recovery_flushed(struct mirror *m, tarn_err err) {
  m->finishing = false;
  if (err != TARN_OK) {
    flush_pauses(m);
    end_line(&m->doubt_line, err);
  }
  if (err != TARN_OK || m->recover.set_count != 0) return;
  if (m->finish_sets != m->recover_sets) { /* copied since this flush began, which proves nothing of that */
    copy_pump(m);
    return;
  }
  m->recovering = false;
  m->recover_end_ns = m->env->now_ns;
  if (!m->repair_sourced) m->record.recovery_source = RECORD_NO_SOURCE;
  m->record.doubt = m->doubt_is_loss = false;
  /* All is written again there, and flushed. */
  EACH_IMAGE(m, i) m->images[i].sync_failed &= !image_is_current(m, i);
  m->record_dirty = true;
  m->master_seq = commit_want(m);
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

/* Bits in the gap behind a volume stand for nothing, and count as copied from the start. */
void sync_begin(struct mirror *m, uint32_t i) {
  struct image *image = &m->images[i];
  uint64_t extent = m->geometry.extent_bytes, data_extents = 0;
  for (uint32_t v = 0; v < m->geometry.volume_count; v++) {
    uint64_t bytes = m->geometry.volume_bytes[v], first = m->geometry.volume_base[v] / extent;
    uint64_t count = (bytes + extent - 1) / extent, all = align_up(bytes, m->geometry.region_bytes) / extent;
    data_extents += count;
    if (all > count) missed_copied(&image->map, first + count, all - count);
  }
  image->sync_total = image->map.missed.set_count - image->map.copied.set_count;
  image->sync_full = image->sync_total == data_extents;
  image->sync_start_ns = m->env->now_ns;
  image->sync_copied = 0;
  image->copy_next_ns = 0;
}

/* Those that were set since. */
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
  uint64_t best = m->geometry.extent_count, later_ns = UINT64_MAX;
  const struct bitmap *bits = NULL;
  for (uint32_t mask = syncing_mask(m); mask != 0; mask &= mask - 1) {
    struct image *image = &m->images[__builtin_ctz(mask)];
    if (image->copy_next_ns > m->env->now_ns) {
      later_ns = min_u64(later_ns, image->copy_next_ns);
      continue;
    }
    uint64_t e = missed_next(&image->map, m->sync_cursor);
    while (e < m->geometry.extent_count && (skip_gap(m, &image->map, e) || copy_at(m, e * m->geometry.extent_bytes)))
      e = missed_next(&image->map, e + 1);
    if (e >= best) continue;
    best = e;
    bits = &image->map.missed;
  }
  if (later_ns != UINT64_MAX) timer_set(m->env, &m->copy_timer, later_ns);
  if (!bits) return false;
  *start = best * m->geometry.extent_bytes;
  *end = copy_stop_at(m, bits, best);
  return true;
}

static void checkpoint_flushed(struct mirror *m, tarn_err err) {
  require(m->checkpoint == CHECKPOINT_FLUSH);
  for (uint32_t mask = m->checkpoint_images & syncing_mask(m); mask != 0; mask &= mask - 1) {
    struct missed *map = &m->images[__builtin_ctz(mask)].map;
    if (err == TARN_OK) missed_checkpoint(map);
    else missed_forget_copied(map); /* a failed flush proves nothing of them */
  }
  if (err != TARN_OK) flush_pauses(m);
  m->checkpoint_bytes = 0;
  m->checkpoint = CHECKPOINT_COMMIT;
  m->checkpoint_seq = commit_want(m);
}

void sync_committed(struct mirror *m) {
  if (m->checkpoint == CHECKPOINT_COMMIT && m->commit.done >= m->checkpoint_seq) {
    m->checkpoint = CHECKPOINT_NONE;
    for (uint32_t mask = m->checkpoint_images & syncing_mask(m); mask != 0; mask &= mask - 1) {
      uint32_t i = (uint32_t)__builtin_ctz(mask);
      /* Not after a fall: it would be believed from then on, and is not among those whose last flush counts. */
      bool joins = !m->fallen || PLANTED(joins_fallen);
      /* Nor beside a recovery's copy, which may have chosen for whom it writes: that is missed then, and copied. */
      if (busy_count(m, COPY_RECOVER) != 0) joins = false;
      if (m->images[i].map.missed.set_count == 0 && joins) image_join(m, i);
    }
  }
  copy_pump(m);
}

static bool checkpoint_is_due(const struct mirror *m) {
  return m->checkpoint_bytes >= m->limits.checkpoint_bytes ||
         (m->checkpoint_bytes > 0 && m->env->now_ns >= m->checkpoint_at_ns);
}

static void run_checkpoint(struct mirror *m) {
  bool done = false;
  for (uint32_t mask = syncing_mask(m); mask != 0; mask &= mask - 1)
    done |= image_is_copied(m, (uint32_t)__builtin_ctz(mask));
  if (busy_count(m, COPY_RECOVER) != 0) done = false; /* nobody could join */
  if (m->checkpoint == CHECKPOINT_NONE && (done || checkpoint_is_due(m))) m->checkpoint = CHECKPOINT_DRAIN;
  if (m->checkpoint != CHECKPOINT_DRAIN || busy_count(m, COPY_MISSED) != 0 || list_is_linked(&m->copy_flush.link))
    return;
  m->checkpoint = CHECKPOINT_FLUSH;
  m->checkpoint_images = syncing_mask(m);
  flush_all(m, &m->copy_flush, checkpoint_flushed);
}

static bool clients_are_active(struct mirror *m) {
  uint64_t seen = m->reads_done + m->changes_done;
  if (m->ops_busy != 0 || seen != m->clients_seen) m->clients_active_ns = m->env->now_ns + CLIENTS_ACTIVE_NS;
  m->clients_seen = seen;
  return m->clients_active_ns > m->env->now_ns;
}

static void run_sync(struct mirror *m) {
  if (syncing_mask(m) == 0) return;
  run_checkpoint(m);
  uint32_t most = clients_are_active(m) ? 1 : m->limits.copies - 1;
  while (m->checkpoint == CHECKPOINT_NONE && busy_count(m, COPY_MISSED) < most) {
    struct copy *copy = copy_find(m, 1); /* one is kept for reads that wait for recovery */
    uint64_t start, end;
    if (!copy) return;
    if (!sync_next(m, &start, &end)) {
      if (m->sync_cursor == 0) return;
      m->sync_cursor = 0;
      continue;
    }
    start_copy(copy, COPY_MISSED, start, end);
    m->sync_cursor =
        min_u64((end + m->geometry.extent_bytes - 1) / m->geometry.extent_bytes, m->geometry.extent_count - 1);
  }
}

/* ---- what is next ---- */

static void copy_run(struct event *event) {
  struct mirror *m = CONTAINER_OF(event, struct mirror, copy_event);
  if (!m->running) return;
  run_waiting_reads(m);
  bool pauses = m->copy_pause_ns > m->env->now_ns;
  /* What the last good image cannot write again keeps no other from becoming good: then that one is out, and the recovery ends. */
  if (pauses && m->recovery_pauses && one_is_current(m) && !m->paused && !PLANTED(recovery_first)) run_sync(m);
  if (pauses) return;
  if (m->recover.set_count != 0) {
    run_recovery(m);
    return;
  }
  if (m->recovering && !m->finishing && busy_count(m, COPY_RECOVER) == 0) {
    m->finishing = true;
    m->finish_sets = m->recover_sets;
    flush_all(m, &m->recover_flush, recovery_flushed);
  }
  if (m->paused) return; /* an operation waits until nothing is in flight */
  run_sync(m);
  repair_run(m);
  verify_run(m);
}
