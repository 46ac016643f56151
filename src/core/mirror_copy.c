/* mirror_copy.c - how one range is copied from one image to others, under the exclusive lock of that range, so that an older
 * block never overwrites a newer one (B11). What is copied next is decided in mirror_sync.c and mirror_repair.c.
 *
 *     copy_begin -> (a repair: mark, commit) -> copy_lock -> piece by piece: read from one image, write to the others
 *                                                         -> (a place was left behind: commit) -> copy_end
 *
 * The kinds differ in what they clear at the end:
 *   recovery   `recover` bits, in memory; the region's mark is what is durable, and it goes by the rules of intent.h: after
 *              a flush that was submitted when the copy had completed. Nothing of a client's is marked less for it.
 *   missed     `copied` bits of the target's map; a checkpoint (mirror_sync.c) makes them good.
 *   repair     nothing: the images were equal there before, or were said to be (verify).
 *
 * Recovery writes the source as well. What it holds may be in its cache only, and no flush need ever bring it down: a flush
 * that failed before (or before the crash, in another process) has left it so, and the next good flush proves nothing of it.
 *
 * A piece that no image can read is halved until a unit of UNIT_BYTES is left. A disk that reads nothing at all has no bad
 * block, it is ill as a whole, and may be well again: so the unit counts as unreadable only if each image that failed to read
 * it reads other places of the same disk, and still fails when asked again. Then it is left behind (rule 12): it is on the
 * list in the record, no read of it succeeds any more, and the copy goes on. Otherwise the copy is given up, and tried again
 * later.
 *
 * Crash argument: a crash before the mark is cleared, or before the checkpoint's commit, finds the same bits set, and the
 * same source recorded (rule 12): the copy is done again. The record that names a place left behind is durable before a bit
 * of its extent is cleared: so the place is on the list, or is found again. A copy never takes a place off the list, and does
 * not look at what is on it: what the images hold there is anything. */
#include <string.h>

#include "core/mirror_int.h"

#define UNIT_TRIES   3u /* so often a unit is read from every image before it is left behind */
#define PROBE_PLACES 5u /* where a disk is asked whether it reads at all */

static void copy_locked(struct range_hold *hold);
static void copy_piece(struct copy *copy);
static void copy_write(struct copy *copy);
static void piece_unread(struct copy *copy);
static void copy_finish(struct copy *copy);

/* ---- slots and buffers ---- */

tarn_err copy_alloc(struct mirror *m, struct arena *arena) {
  if (!bitmap_new(&m->recover, arena, m->geometry.extent_count)) return TARN_FULL;
  size_t bytes = m->limits.copy_bytes + BUFFER_ALIGN;
  uint8_t *memory = arena_take(arena, (size_t)COPY_BUFFERS * bytes, BUFFER_ALIGN);
  if (!memory) return TARN_FULL;
  for (uint32_t b = 0; b < COPY_BUFFERS; b++, memory += bytes)
    buffer_init_private(&m->copy_buffers[b].buffer, memory, (uint32_t)bytes);
  for (uint32_t c = 0; c < COPY_COUNT; c++) {
    struct copy *copy = &m->copies[c];
    copy->m = m;
    copy->legs = ARENA_NEW(arena, struct copy_leg, IMAGES_MAX);
    if (!copy->legs) return TARN_FULL;
    disk_io_init(&copy->read);
    for (uint32_t i = 0; i < IMAGES_MAX; i++) {
      disk_io_init(&copy->legs[i].io);
      copy->legs[i].copy = copy;
    }
  }
  return verify_alloc(m, arena);
}

bool copy_is_aside(const struct mirror *m) {
  uint32_t others = 0;
  for (uint32_t c = 0; c < COPY_COUNT; c++)
    others += m->copies[c].busy && m->copies[c].kind != COPY_RECOVER && m->copies[c].kind != COPY_MISSED;
  return others == 0;
}

bool copy_is_idle(const struct mirror *m) { return m->copies_busy == 0 && !verify_is_running(m); }

/* There is always one: see COPY_BUFFERS. What a dead disk still holds is passed over until the disk has answered. */
struct copy_buffer *copy_buffer_take(struct mirror *m) {
  for (uint32_t b = 0; b < COPY_BUFFERS; b++) {
    struct copy_buffer *buffer = &m->copy_buffers[b];
    if (buffer->used || buffer_is_shared(&buffer->buffer)) continue;
    buffer->used = true;
    return buffer;
  }
  tarn_panic("more buffers of copies are held than disks can hold", __FILE__, __LINE__);
}

/* Its own buffer, or another one instead of one that a dead disk may still read or write. */
static void fresh_buffer(struct copy *copy) {
  if (!buffer_is_shared(&copy->buffer->buffer)) return;
  copy->buffer->used = false;
  copy->buffer = copy_buffer_take(copy->m);
}

struct copy *copy_find(struct mirror *m, uint32_t reserve) {
  if (m->copies_busy + reserve >= m->limits.copies) return NULL;
  for (uint32_t c = 0; c < COPY_COUNT; c++)
    if (!m->copies[c].busy) return &m->copies[c];
  return NULL;
}

struct copy *copy_at(struct mirror *m, uint64_t address) {
  for (uint32_t c = 0; c < COPY_COUNT; c++) {
    struct copy *copy = &m->copies[c];
    bool clears = copy->kind == COPY_RECOVER || copy->kind == COPY_MISSED;
    if (copy->busy && clears && address >= copy->start && address < copy->end) return copy;
  }
  return NULL;
}

uint64_t copy_io_max(const struct mirror *m, uint64_t address) {
  const struct disk_caps *caps = &m->volumes[geometry_volume_at(&m->geometry, address)].disk.caps;
  uint64_t most = min_u64(caps->io_bytes_max + (m->block > 1 ? m->block : 0), m->limits.copy_bytes);
  return most >= UNIT_BYTES ? align_down(most, UNIT_BYTES) : most;
}

void copy_begin(struct copy *copy, enum copy_kind kind, uint64_t start, uint64_t end) {
  struct mirror *m = copy->m;
  require(!copy->busy && start < end);
  struct copy_leg *legs = copy->legs;
  *copy = (struct copy){.m = m, .legs = legs, .busy = true, .kind = kind, .start = start, .at = start, .end = end};
  disk_io_init(&copy->read);
  copy->only = IMAGES_MAX;
  copy->mark = INTENT_NONE;
  copy->piece_max = copy_io_max(m, start);
  if (kind != COPY_VERIFY) copy->buffer = copy_buffer_take(m);
  m->copies_busy++;
}

void copy_lock(struct copy *copy) {
  enum range_mode mode = copy->kind == COPY_VERIFY ? RANGE_SHARED : RANGE_EXCLUSIVE;
  require(!copy->holding);
  if (copy->kind == COPY_REPAIR && copy->piece == 0 && PLANTED(repair_unlocked)) {
    copy_piece(copy);
    return;
  }
  copy->holding = true;
  if (range_acquire(&copy->m->lock, &copy->hold, copy->start, copy->end - copy->start, mode, HOLD_COPY, copy_locked))
    copy_locked(&copy->hold);
}

void copy_give_up(struct copy *copy, const char *why) {
  require(why);
  if (!copy->given_up) copy->given_up = why;
}

/* ---- waiting for a commit ---- */

void copy_wait(struct copy *copy, uint64_t seq, void (*resume)(struct copy *copy, tarn_err err)) {
  require(seq > copy->m->commit.done);
  require(copy->wait_seq == 0);
  copy->wait_seq = seq;
  copy->resume = resume;
}

static void copy_wake(struct copy *copy, tarn_err err) {
  copy->wait_seq = 0;
  copy->resume(copy, err);
}

void copy_committed(struct mirror *m) {
  uint64_t ended = m->commit.started; /* done, or failed */
  for (uint32_t c = 0; c < COPY_COUNT; c++) {
    struct copy *copy = &m->copies[c];
    if (!copy->busy || copy->wait_seq == 0 || copy->wait_seq > ended) continue;
    copy_wake(copy, copy->wait_seq <= m->commit.done ? TARN_OK : TARN_IO);
  }
  sync_committed(m);
}

void copy_stop(struct mirror *m) {
  end_line(&m->recover_line, TARN_SHUTDOWN);
  end_line(&m->doubt_line, TARN_SHUTDOWN);
  read_stop(m);
  mirror_verify_stop(m);
  for (uint32_t c = 0; c < COPY_COUNT; c++)
    if (m->copies[c].busy && m->copies[c].wait_seq != 0) copy_wake(&m->copies[c], TARN_SHUTDOWN);
}

void copy_image_left(struct mirror *m, uint32_t image) {
  for (uint32_t c = 0; c < COPY_COUNT; c++)
    if (m->copies[c].busy) m->copies[c].left |= 1u << image;
  m->checkpoint_images &= ~(1u << image);
}

/* ---- the lock is held ---- */

static uint32_t missed_targets(const struct copy *copy) {
  const struct mirror *m = copy->m;
  uint32_t targets = 0;
  for (uint32_t mask = syncing_mask(m); mask != 0; mask &= mask - 1) {
    uint32_t i = (uint32_t)__builtin_ctz(mask);
    if (m->images[i].copy_next_ns > m->env->now_ns) continue; /* its rate allows no more now */
    if (!missed_is_fresh(&m->images[i].map, extent_first(m, copy->start),
                         extent_span(m, copy->start, copy->end - copy->start)))
      targets |= 1u << i;
  }
  return targets & ~copy->left;
}

static bool is_to_be_recovered(const struct copy *copy) {
  const struct mirror *m = copy->m;
  return bitmap_any_in(&m->recover, extent_first(m, copy->start), extent_span(m, copy->start, copy->end - copy->start));
}

static void nothing_to_do(struct copy *copy) {
  copy->end = copy->start;
  copy_end(copy);
}

static void recover_locked(struct copy *copy) {
  struct mirror *m = copy->m;
  if (!is_to_be_recovered(copy)) { /* somebody else did it */
    nothing_to_do(copy);
    return;
  }
  uint64_t region = copy->start / m->geometry.region_bytes;
  require(intent_find(&m->intent, region) != INTENT_NONE);
  /* Exactly what is still to be copied: a read that could not wait may have had a part of it copied. */
  uint64_t extent = m->geometry.extent_bytes, e = bitmap_next_set(&m->recover, extent_first(m, copy->start));
  copy->start = copy->at = max_u64(copy->start, e * extent);
  copy->end = min_u64(copy->end, bitmap_next_clear(&m->recover, e) * extent);
  copy->issue_tick = intent_next_tick(&m->intent);
  copy->mark = intent_acquire(&m->intent, region, 0, m->env->now_ns);
  copy_piece(copy);
}

static void missed_locked(struct copy *copy) {
  copy->targets = missed_targets(copy);
  /* Where several are current they may differ there: what is read now need not be what recovery chooses, nor what is shown when its source
   * has left. */
  if (copy->targets == 0 || (is_to_be_recovered(copy) && !one_is_current(copy->m))) nothing_to_do(copy);
  else copy_piece(copy);
}

static void copy_locked(struct range_hold *hold) {
  struct copy *copy = CONTAINER_OF(hold, struct copy, hold);
  switch (copy->kind) {
    case COPY_RECOVER: recover_locked(copy); return;
    case COPY_MISSED: missed_locked(copy); return;
    case COPY_REPAIR:
      if (!repair_locked(copy)) nothing_to_do(copy);
      else if (PLANTED(repair_unlocked)) copy_write(copy);
      else copy_piece(copy);
      return;
    case COPY_VERIFY: verify_locked(copy); return;
  }
}

/* ---- a piece: read ---- */

/* Sets `piece` to what is to be copied next; false at the end. Places on the list of the unreadable are passed over, as far
 * as whole blocks allow. */
static bool piece_next(struct copy *copy) {
  const struct mirror *m = copy->m;
  const struct unreadable *list = &m->record.unreadable;
  uint64_t stop = copy->end;
  for (uint32_t r = 0; r < list->count && copy->at < copy->end; r++) {
    uint64_t start = align_up(list->ranges[r].start, m->block);
    uint64_t end = align_down(list->ranges[r].start + list->ranges[r].length, m->block);
    if (list->ranges[r].start + list->ranges[r].length == geometry_data_end(&m->geometry, list->ranges[r].start))
      end = align_up(list->ranges[r].start + list->ranges[r].length, m->block);
    if (end <= copy->at || start >= end) continue;
    if (start > copy->at) {
      stop = min_u64(stop, start);
      break;
    }
    copy->at = min_u64(end, copy->end);
  }
  if (copy->at >= copy->end) return false;
  uint64_t unit = min_u64(UNIT_BYTES, copy->piece_max);
  copy->piece = min_u64(stop - copy->at, align_down(copy->at, unit) + copy->piece_max - copy->at);
  return true;
}

/* For whom the range is copied, now. */
static uint32_t targets_now(const struct copy *copy) {
  const struct mirror *m = copy->m;
  uint32_t out = copy->failed | copy->left;
  switch (copy->kind) {
    case COPY_RECOVER: return mirror_current_mask(m) & ~out; /* the source too: see the top */
    case COPY_MISSED: return copy->targets & syncing_mask(m) & ~out;
    case COPY_REPAIR: return copy->targets & mirror_current_mask(m) & ~out;
    case COPY_VERIFY: break;
  }
  return 0;
}

/* Has one that is being copied to got this piece already? Only what it misses counts: where something is to be recovered what it has been
 * given may not be what is chosen. */
static bool has_piece(const struct copy *copy, uint32_t i) {
  const struct mirror *m = copy->m;
  uint64_t first = extent_first(m, copy->at), count = extent_span(m, copy->at, copy->piece);
  return copy->kind == COPY_MISSED && syncing_mask(m) & 1u << i && missed_is_fresh(&m->images[i].map, first, count) &&
         !bitmap_any_in(&m->recover, first, count);
}

/* When no current image is left to ask. */
static uint32_t piece_holder(const struct copy *copy, uint32_t out) {
  uint32_t i = 0;
  while (i < IMAGES_MAX && (out & 1u << i || !has_piece(copy, i))) i++;
  return i;
}

static uint32_t piece_source(const struct copy *copy) {
  const struct mirror *m = copy->m;
  uint32_t out = copy->tried | copy->left;
  if (copy->kind == COPY_REPAIR && copy->only != IMAGES_MAX)
    return image_is_current(m, copy->only) && !(out & 1u << copy->only) ? copy->only : IMAGES_MAX;
  if (copy->kind == COPY_REPAIR) out |= copy->targets;
  uint32_t source = read_source(m, copy->at, copy->piece, out);
  return source == IMAGES_MAX ? piece_holder(copy, out) : source;
}

static void copy_read_done(struct disk_io *io) {
  struct copy *copy = CONTAINER_OF(io, struct copy, read);
  struct mirror *m = copy->m;
  uint32_t bit = 1u << copy->source;
  leg_ended(m, copy->source, io);
  /* A source that was put out meanwhile: another was read from since, and its bytes count. */
  bool has = image_is_current(m, copy->source) || has_piece(copy, copy->source);
  if (io->err != TARN_OK || (copy->left & bit) || !has) {
    copy->tried |= bit;
    if (error_is_of_place(io->err)) copy->unread |= bit;
    copy_piece(copy);
  } else if (!copy->holding) {
    copy_lock(copy);
  } else {
    copy_write(copy);
  }
}

static void piece_read(struct copy *copy, uint32_t image, uint64_t start, uint64_t length,
                       void (*done)(struct disk_io *io)) {
  fresh_buffer(copy);
  copy->source = image;
  leg_submit(copy->m, image, &copy->read, DISK_READ, 0, start, length, &copy->buffer->buffer,
             copy_data(copy->buffer, start), done);
}

static void copy_piece(struct copy *copy) {
  struct mirror *m = copy->m;
  if (!m->running) copy_give_up(copy, "the mirror stops");
  if (copy->given_up || !piece_next(copy)) {
    copy_finish(copy);
    return;
  }
  uint32_t source = piece_source(copy);
  if (source == IMAGES_MAX) piece_unread(copy);
  else piece_read(copy, source, copy->at, copy->piece, copy_read_done);
}

static void piece_over(struct copy *copy) {
  copy->at += copy->piece;
  copy->tried = copy->unread = copy->tries = 0;
  copy->piece_max = min_u64(2 * copy->piece_max, copy_io_max(copy->m, copy->start));
  copy_piece(copy);
}

/* ---- a piece: write ---- */

static void piece_written(struct copy *copy) {
  struct mirror *m = copy->m;
  uint32_t good = targets_now(copy);
  if (copy->kind == COPY_REPAIR && good != 0) {
    for (uint32_t mask = good; mask != 0; mask &= mask - 1)
      m->images[__builtin_ctz(mask)].repaired_blocks += (copy->piece + UNIT_BYTES - 1) / UNIT_BYTES;
    copy->repaired_bytes += copy->piece;
  }
  /* A source that was in need of another is not written to by this copy. */
  if (copy->kind == COPY_MISSED && copy->unread != 0) repair_ask(m, copy->unread, copy->at, copy->piece);
  piece_over(copy);
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

/* Every disk can be told to zero it: also one that ends within the volume's last block. */
static bool piece_can_zero(const struct copy *copy) {
  const struct mirror *m = copy->m;
  uint32_t v = geometry_volume_at(&m->geometry, copy->at);
  const struct disk_caps *caps = &m->volumes[v].disk.caps;
  uint64_t end = m->geometry.volume_base[v] + m->geometry.volume_bytes[v];
  return caps->can_zero && copy->at % caps->zero_block_bytes == 0 && copy->piece % caps->zero_block_bytes == 0 &&
         copy->piece <= caps->zero_bytes_max && copy->at + copy->piece <= end;
}

/* Zeroes are copied as zeroes, so that holes stay holes (rule 14). */
static void copy_write(struct copy *copy) {
  struct mirror *m = copy->m;
  uint8_t *data = copy_data(copy->buffer, copy->at);
  bool zero = piece_can_zero(copy) && all_zero(data, copy->piece);
  uint32_t targets = targets_now(copy);
  if (targets == 0) {
    piece_over(copy);
    return;
  }
  copy->targets |= targets;
  copy->pending = (uint32_t)__builtin_popcount(targets);
  for (; targets != 0; targets &= targets - 1) {
    uint32_t i = (uint32_t)__builtin_ctz(targets);
    if (zero)
      leg_submit(m, i, &copy->legs[i].io, DISK_WRITE_ZEROES, 0, copy->at, copy->piece, NULL, NULL, copy_write_done);
    else
      leg_submit(m, i, &copy->legs[i].io, DISK_WRITE, 0, copy->at, copy->piece, &copy->buffer->buffer, data,
                 copy_write_done);
  }
}

/* ---- a piece that no image can read ---- */

static void say_what_was_lost(const struct copy *copy) {
  struct mirror *m = copy->m;
  if (copy->lost_bytes == 0) return;
  uint32_t v = geometry_volume_at(&m->geometry, copy->lost_start);
  report(m->env, REPORT_ERROR, m->config.name,
         "%llu bytes of volume %s at %llu cannot be read from any image: they are left behind until they are written",
         (unsigned long long)copy->lost_bytes, m->config.volumes[v].name,
         (unsigned long long)(copy->lost_start - m->geometry.volume_base[v]));
}

static void leave_behind(struct copy *copy) {
  struct mirror *m = copy->m;
  uint64_t length = min_u64(copy->at + copy->piece, geometry_data_end(&m->geometry, copy->at)) - copy->at;
  if (!unreadable_add(&m->record.unreadable, copy->at, length)) {
    copy_give_up(copy, "room in the list of unreadable places");
    copy_finish(copy);
    return;
  }
  if (copy->lost_start + copy->lost_bytes != copy->at) { /* another place than the one before */
    say_what_was_lost(copy);
    copy->lost_start = copy->at;
    copy->lost_bytes = 0;
  }
  copy->lost_bytes += length;
  m->record_dirty = true;
  m->unreadable_seq = commit_want(m);
  mirror_changed(m);
  piece_over(copy);
}

/* A place of the same disk, not of the unit itself; false when there is none left to try. */
static bool probe_place(struct copy *copy, uint64_t *start, uint64_t *length) {
  const struct mirror *m = copy->m;
  uint32_t v = geometry_volume_at(&m->geometry, copy->at);
  uint64_t base = m->geometry.volume_base[v], size = m->geometry.volume_bytes[v];
  while (copy->probes < PROBE_PLACES) {
    uint64_t distance = ++copy->probes * (size / (PROBE_PLACES + 1));
    *start = base + align_down((copy->at - base + distance) % size, UNIT_BYTES);
    *length = min_u64(UNIT_BYTES, align_up(base + size, m->block) - *start);
    if (*start != align_down(copy->at, UNIT_BYTES)) return true;
  }
  return false;
}

static void probe_next(struct copy *copy);

static void probe_done(struct disk_io *io) {
  struct copy *copy = CONTAINER_OF(io, struct copy, read);
  uint32_t bit = 1u << copy->source;
  leg_ended(copy->m, copy->source, io);
  if (io->err == TARN_OK || (copy->left & bit)) {
    copy->probing &= ~bit;
    copy->probes = 0;
  }
  probe_next(copy);
}

static void probe_next(struct copy *copy) {
  struct mirror *m = copy->m;
  uint64_t start, length;
  copy->probing &= mirror_online_mask(m) & ~copy->left;
  if (!m->running) {
    copy_piece(copy);
  } else if (copy->probing == 0) { /* each of them reads; what about this place? */
    copy->tried = copy->unread = 0;
    if (++copy->tries < UNIT_TRIES) copy_piece(copy);
    else leave_behind(copy);
  } else if (probe_place(copy, &start, &length)) {
    piece_read(copy, (uint32_t)__builtin_ctz(copy->probing), start, length, probe_done);
  } else {
    copy_give_up(copy, "a disk that cannot be read");
    copy_finish(copy);
  }
}

static void piece_unread(struct copy *copy) {
  if (copy->kind != COPY_REPAIR && (mirror_current_mask(copy->m) & copy->left) != 0) {
    copy_give_up(copy, "an image that has just come back"); /* nobody has asked it */
    copy_finish(copy);
  } else if (copy->piece > UNIT_BYTES) {
    copy->piece_max = max_u64(align_down(copy->piece / 2, UNIT_BYTES), UNIT_BYTES);
    copy->tried = copy->unread = 0;
    copy_piece(copy);
  } else if (copy->kind == COPY_REPAIR) {
    piece_over(copy); /* it stays as it is */
  } else {
    copy->probing = copy->tried;
    copy->probes = 0;
    probe_next(copy);
  }
}

/* ---- the end ---- */

static void drop_failed(struct copy *copy, uint32_t failed) {
  struct mirror *m = copy->m;
  const char *why =
      copy->kind == COPY_REPAIR ? "what it could not read could not be written again" : "a write of a copy failed";
  EACH_IMAGE(m, i) {
    if (failed & 1u << i) image_drop(m, i, MISSING_FAILED, why, NULL);
  }
}

static void copy_succeeded(struct copy *copy) {
  struct mirror *m = copy->m;
  uint64_t first = extent_first(m, copy->start), count = extent_span(m, copy->start, copy->end - copy->start);
  uint64_t bytes = copy->end - copy->start;
  uint32_t failed = copy->failed & ~copy->left, current = mirror_current_mask(m);
  if (copy->kind == COPY_RECOVER && copy->issue_tick < m->doubt_tick)
    return;                                      /* a flush has failed meanwhile: once more */
  if (failed != 0 && (current & ~failed) == 0) { /* rule 8 */
    copy_give_up(copy, "a block that cannot be written");
    return;
  }
  if (copy->kind == COPY_RECOVER) {
    bitmap_clear_range(&m->recover, first, count);
    m->recover_copied += bytes;
    /* An image that is being copied to may have got something else meanwhile, that was read before. */
    EACH_IMAGE(m, i) {
      if (!image_is_current(m, i) && missed_set(&m->images[i].map, first, count))
        m->intent.marks[copy->mark].map_seq = m->commit.started + 1;
    }
  } else if (copy->kind == COPY_MISSED) {
    for (uint32_t mask = copy->targets & syncing_mask(m) & ~copy->failed & ~copy->left; mask != 0; mask &= mask - 1) {
      struct image *image = &m->images[__builtin_ctz(mask)];
      missed_copied(&image->map, first, count);
      if (PLANTED(clear_copied_unflushed)) missed_checkpoint(&image->map);
      image->sync_copied += bytes;
      uint64_t rate = m->config.images[__builtin_ctz(mask)].policy.rate;
      if (rate) image->copy_next_ns = max_u64(m->env->now_ns, image->copy_next_ns) + bytes * NS_PER_S / rate;
    }
    if (m->checkpoint_bytes == 0) m->checkpoint_at_ns = m->env->now_ns + CHECKPOINT_NS;
    m->checkpoint_bytes += bytes;
  }
  drop_failed(copy, failed);
}

/* Reads that wait for what cannot be copied get their error, and flushes that wait for all of it, and writes that wait for
 * the marks that it holds. */
static void fail_waiting(struct copy *copy) {
  struct mirror *m = copy->m;
  if (copy->kind == COPY_RECOVER) {
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

static void lost_recorded(struct copy *copy, tarn_err err) {
  if (err != TARN_OK) copy_give_up(copy, "the metadata");
  copy_end(copy);
}

/* All pieces are done, or it was given up. What it has passed over is on the list, and must be so durably: also when another
 * copy put it there, and could not record it. */
static void copy_finish(struct copy *copy) {
  struct mirror *m = copy->m;
  say_what_was_lost(copy);
  bool listed = unreadable_overlaps(&m->record.unreadable, copy->start, copy->end - copy->start);
  uint64_t seq = listed && !copy->given_up ? commit_wait_for(m, m->unreadable_seq) : 0;
  if (seq != 0) copy_wait(copy, seq, lost_recorded);
  else copy_end(copy);
}

void copy_end(struct copy *copy) {
  struct mirror *m = copy->m;
  require(copy->pending == 0 && copy->wait_seq == 0);
  if (copy->end > copy->start && !copy->given_up) copy_succeeded(copy);
  if (copy->given_up && m->running && (copy->kind == COPY_RECOVER || copy->kind == COPY_MISSED)) {
    m->copy_pause_ns = m->env->now_ns + RETRY_NS;
    m->copy_pause_why = copy->given_up;
    m->recovery_pauses = copy->kind == COPY_RECOVER;
    timer_set(m->env, &m->copy_timer, m->copy_pause_ns);
    fail_waiting(copy);
  }
  if (copy->mark != INTENT_NONE) {
    intent_release(&m->intent, copy->mark, m->env->now_ns);
    mark_line_run(m);
  }
  if (copy->holding) range_release(&m->lock, &copy->hold);
  if (copy->buffer) copy->buffer->used = false;
  copy->holding = copy->busy = false;
  m->copies_busy--;
  if (copy->kind == COPY_REPAIR) repair_ended(copy);
  copy_pump(m);
  admin_check_idle(m);
}
