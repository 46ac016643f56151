/* mirror_repair.c - what one image could not read is written to it again from another one (C10).
 *
 *     a client's read failed on it, and another image served it -> a place in the table -> the region's mark, durable (rule 2)
 *       -> the exclusive lock -> the block is read again from a good image, and written -> failed? then the image is out
 *
 * What the client got may be old by the time of the write, therefore the read under the lock. The table is small: who finds no
 * room is forgotten, and the next read that fails asks again. One repair is under way at a time, and none while there are
 * regions to be recovered, since recovery writes all images anyway.
 *
 * A verify that was told from which image repairs what differs by the same way. Then the images were not equal before, and
 * one that is away, or being copied to, may hold what is wrong: it misses the range from now on. So may one that was being copied to
 * when the range was compared, and has joined since: it is repaired as well. From its first repair on to the last flush a crash
 * recovers from the same image: the mirror's own source may hold just what is to be repaired.
 *
 * Crash argument: the mark is durable before any image is written, so what a crash leaves different is recovered; and so is that it
 * is recovered from the image that others are repaired from. The source goes when what was repaired is flushed, or is to be recovered
 * itself. */
#include "core/mirror_int.h"

static void repair_marked(struct copy *copy, tarn_err err);

/* The whole units, as far as there is data; together with what waits already, if that is the same images' and touches it. */
void repair_ask(struct mirror *m, uint32_t images, uint64_t start, uint64_t length) {
  uint64_t end =
      min_u64(align_up(start + length, UNIT_BYTES), align_up(geometry_data_end(&m->geometry, start), m->block));
  images &= mirror_current_mask(m);
  start = align_down(start, UNIT_BYTES);
  if (images == 0) return;
  for (uint32_t r = 0; r < m->repair_count; r++) {
    struct repair *repair = &m->repairs[r];
    if (repair->images != images || repair->start > end || repair->end < start) continue;
    repair->start = min_u64(repair->start, start);
    repair->end = max_u64(repair->end, end);
    return;
  }
  if (m->repair_count == REPAIRS_MAX) return;
  m->repairs[m->repair_count++] = (struct repair){.start = start, .end = end, .images = images};
  copy_pump(m);
}

/* A reference to the region's mark; INTENT_NONE when there is none to be had, or others wait for one. */
static uint32_t take_mark(struct mirror *m, uint64_t region) {
  if (intent_find(&m->intent, region) == INTENT_NONE) {
    if (intent_free_count(&m->intent) == 0 || !list_is_empty(&m->mark_line)) return INTENT_NONE;
    commit_want(m);
  }
  return intent_acquire(&m->intent, region, m->commit.started + 1, m->env->now_ns);
}

/* No write is in flight, of which a read may have shown what a crash would not find any more; reads that are under way are asked again. */
void repair_source_begins(struct mirror *m, uint32_t source) {
  m->repair_sourced = true;
  m->record.recovery_source = (uint8_t)source;
  m->recover_sets++;
  m->record_dirty = true;
  m->repair_seq = commit_want(m);
}

void repair_source_ends(struct mirror *m) {
  m->repair_sourced = false;
  if (m->recovering || !m->running) return; /* their end sees to it */
  m->record.recovery_source = RECORD_NO_SOURCE;
  m->record_dirty = true;
  m->master_seq = commit_want(m);
}

bool repair_start(struct mirror *m, const struct repair *repair, uint32_t source, void (*done)(struct copy *copy)) {
  uint64_t region = repair->start / m->geometry.region_bytes;
  require((repair->end - 1) / m->geometry.region_bytes == region);
  bool other = source < IMAGES_MAX && m->recovering; /* a crash may have to recover from another image */
  struct copy *copy = m->repairing || m->paused || other ? NULL : copy_find(m, 1);
  uint32_t mark = copy ? take_mark(m, region) : INTENT_NONE;
  if (mark == INTENT_NONE) return false;
  copy_begin(copy, COPY_REPAIR, repair->start, repair->end);
  m->repairing = true;
  copy->targets = repair->images;
  copy->compared_ns = repair->compared_ns;
  copy->only = source;
  copy->done = done;
  copy->mark = mark;
  uint64_t seq = commit_wait_for(m, m->intent.marks[mark].commit_seq);
  if (seq != 0) copy_wait(copy, seq, repair_marked);
  else repair_marked(copy, TARN_OK);
  return true;
}

static void repair_marked(struct copy *copy, tarn_err err) {
  struct mirror *m = copy->m;
  /* As in marks_durable(): an image that failed in the very commit of the mark does not have it. */
  uint64_t seq = err == TARN_OK ? commit_wait_for(m, m->drop_seq) : 0;
  if (err != TARN_OK) {
    copy_give_up(copy, "the metadata");
    copy_end(copy);
  } else if (seq != 0) {
    copy_wait(copy, seq, repair_marked);
  } else {
    copy_lock(copy);
  }
}

/* They were copied from whoever could be read, perhaps from an image that was wrong. */
static uint32_t joined_since(const struct mirror *m, uint64_t time_ns) {
  uint32_t joined = 0;
  EACH_IMAGE(m, i) {
    bool is = image_is_current(m, i) && m->images[i].joined_ns != 0 && m->images[i].joined_ns >= time_ns;
    if (is) joined |= 1u << i;
  }
  return joined;
}

/* What has to be recovered is written by recovery. */
bool repair_locked(struct copy *copy) {
  struct mirror *m = copy->m;
  uint64_t first = extent_first(m, copy->start), count = extent_span(m, copy->start, copy->end - copy->start);
  if (!m->running || bitmap_any_in(&m->recover, first, count)) return false;
  if ((copy->targets & mirror_current_mask(m) & ~copy->left) == 0) return false;
  if (copy->only == IMAGES_MAX) return true;
  if (!PLANTED(joined_unrepaired)) copy->targets |= joined_since(m, copy->compared_ns) & ~(1u << copy->only);
  EACH_IMAGE(m, i) {
    if (image_is_current(m, i) || !missed_set(&m->images[i].map, first, count)) continue;
    m->intent.marks[copy->mark].map_seq = m->commit.started + 1;
  }
  return true;
}

static void say_what_was_repaired(const struct copy *copy) {
  struct mirror *m = copy->m;
  uint32_t v = geometry_volume_at(&m->geometry, copy->start);
  for (uint32_t mask = copy->targets & ~copy->failed & ~copy->left; mask != 0; mask &= mask - 1)
    report(m->env, REPORT_WARNING, m->config.name, "image %s: %llu bytes of volume %s at %llu were written again%s",
           image_name(m, (uint32_t)__builtin_ctz(mask)), (unsigned long long)copy->repaired_bytes,
           m->config.volumes[v].name, (unsigned long long)(copy->start - m->geometry.volume_base[v]),
           copy->only == IMAGES_MAX ? ", since they could not be read" : ", since they differed");
}

void repair_ended(struct copy *copy) {
  copy->m->repairing = false;
  if (copy->repaired_bytes > 0) say_what_was_repaired(copy);
  if (copy->done) copy->done(copy);
}

void repair_run(struct mirror *m) {
  while (m->repair_count > 0 && !m->repairing) {
    struct repair *first = &m->repairs[0], part = *first;
    uint64_t region_bytes = m->geometry.region_bytes;
    part.images &= mirror_current_mask(m);
    part.end = min_u64(part.end, align_down(part.start, region_bytes) + region_bytes);
    part.end = min_u64(part.end, part.start + copy_io_max(m, part.start));
    bool useless = part.images == 0 || part.images == mirror_current_mask(m); /* nobody to repair, or to repair from */
    if (!useless && !repair_start(m, &part, IMAGES_MAX, NULL)) return;        /* the tick comes by */
    if (!useless && part.end < first->end) {
      first->start = part.end;
      continue;
    }
    *first = m->repairs[--m->repair_count];
  }
}
