/* mirror_verify.c - compares the images on line, range by range (C10, rule 15).
 *
 *     a shared hold of the range, which keeps writes out -> all current images are read, each unit's SHA-256 is kept
 *       -> the hold is given back -> units are grouped by hash, differences noted
 *       -> told from which image: each run of units that differ from it is repaired (mirror_repair.c), one after the other
 *       -> the next range; at the end a flush, if anything was repaired
 *
 * One range is in flight. A range that is still to be recovered is compared when that is done. Images that are out, or are
 * being copied to, are not compared, nor are places that no image can read.
 *
 * Nothing of this is stored: a verify that is cut off is begun anew. */
#include <string.h>

#include "base/hash.h"
#include "base/text.h"
#include "core/mirror_int.h"

#define VERIFY_BYTES (128u * 1024u)
#define VERIFY_UNITS (VERIFY_BYTES / UNIT_BYTES)

_Static_assert(VERIFY_UNITS <= 32, "a bit for each");

struct verify_leg {
  struct disk_io io;
  struct verify *verify;
  struct copy_buffer *buffer;
  uint64_t at, piece;
  bool by_unit; /* the range could not be read as a whole */
  uint32_t bad; /* by unit: could not be read */
  uint8_t digests[VERIFY_UNITS][HASH_BYTES];
};

struct verify {
  struct mirror *m;
  bool running, stopping;
  uint32_t source; /* repairs from it; IMAGES_MAX: none */
  mirror_done *done;
  void *context;
  tarn_err err;
  char why[160];
  uint64_t start_ns;
  /* the range */
  uint64_t start, end;
  struct copy *copy;    /* NULL: none is being read */
  uint64_t compared_ns; /* when reading began */
  uint32_t images, pending;
  bool repairing; /* the range was compared, and units from `unit` on may have to be repaired */
  bool in_repair;
  bool sourcing; /* waits until the image to repair from may become what a crash recovers from */
  struct range_hold hold;
  uint32_t unit;
  char groups[VERIFY_UNITS][IMAGES_MAX];
  struct verify_difference last; /* which the next one may continue */
  struct verify_result result;
  struct flush_wait flush;
  struct event event;
  struct verify_leg legs[IMAGES_MAX];
};

static void leg_next(struct verify_leg *leg);
static void range_read(struct verify *verify);
static void repair_next(struct verify *verify);

static void verify_ended(struct event *event) {
  struct verify *verify = CONTAINER_OF(event, struct verify, event);
  verify->running = false;
  if (verify->m->repair_sourced) repair_source_ends(verify->m);
  close_look(verify->m); /* it waits for this one, too */
  verify->done(verify->m, verify->err, verify->why, verify->context);
}

tarn_err verify_alloc(struct mirror *m, struct arena *arena) {
  m->verify = ARENA_NEW(arena, struct verify, 1);
  if (!m->verify) return TARN_FULL;
  m->verify->m = m;
  list_init(&m->verify->flush.link);
  event_init(&m->verify->event, verify_ended);
  for (uint32_t i = 0; i < IMAGES_MAX; i++) {
    m->verify->legs[i].verify = m->verify;
    disk_io_init(&m->verify->legs[i].io);
  }
  return TARN_OK;
}

bool verify_is_running(const struct mirror *m) { return m->verify->running; }
uint64_t verify_start_ns(const struct mirror *m) { return m->verify->start_ns; }
const struct verify_result *mirror_verify_result(const struct mirror *m) { return &m->verify->result; }

/* ---- begin and end ---- */

void mirror_verify(struct mirror *m, uint32_t source, mirror_done *done, void *context) {
  struct verify *verify = m->verify;
  char why[sizeof verify->why] = "";
  if (!m->running) text_set(why, sizeof why, "the mirror does not run");
  else if (verify->running) text_set(why, sizeof why, "a verify of this mirror is running already");
  else if (source < IMAGES_MAX && !m->images[source].present) text_set(why, sizeof why, "there is no such image");
  else if (source < IMAGES_MAX && !image_is_current(m, source))
    text_set(why, sizeof why, "image %s is %s: only a SYNCHRONIZED image is repaired from", image_name(m, source),
             image_state_name(image_state_of(m, source)));
  if (why[0]) {
    done(m, TARN_REFUSED, why, context);
    return;
  }
  verify->running = true;
  verify->stopping = verify->repairing = false;
  verify->source = source;
  verify->done = done;
  verify->context = context;
  verify->err = TARN_OK;
  verify->why[0] = 0;
  verify->start_ns = m->env->now_ns;
  verify->start = verify->end = 0;
  verify->last = (struct verify_difference){0};
  verify->result = (struct verify_result){.compared = UINT32_MAX};
  for (uint32_t v = 0; v < m->geometry.volume_count; v++) verify->result.total_bytes += m->geometry.volume_bytes[v];
  copy_pump(m);
}

static void repairs_flushed(struct mirror *m, tarn_err err) {
  struct verify *verify = m->verify;
  if (err != TARN_OK && verify->err == TARN_OK) {
    verify->err = err;
    text_set(verify->why, sizeof verify->why, "what was repaired could not be flushed: verify again");
  }
  event_post(&m->env->queue, &verify->event);
}

/* Nothing of it is in flight. */
static void verify_end(struct verify *verify, tarn_err err, const char *why) {
  struct mirror *m = verify->m;
  require(verify->running && !verify->copy && !verify->in_repair);
  if (list_is_linked(&verify->flush.link) || event_is_posted(&verify->event)) return; /* it ends already */
  verify->err = err;
  verify->repairing = false;
  text_set(verify->why, sizeof verify->why, "%s", why);
  if (m->repair_sourced && m->running) flush_all(m, &verify->flush, repairs_flushed);
  else event_post(&m->env->queue, &verify->event);
}

static void verify_stopped(struct verify *verify) { verify_end(verify, TARN_SHUTDOWN, "it was stopped"); }

void mirror_verify_stop(struct mirror *m) {
  struct verify *verify = m->verify;
  if (!verify->running) return;
  verify->stopping = true;
  if (verify->copy && verify->pending == 0) { /* it waits for the lock */
    struct copy *copy = verify->copy;
    verify->copy = NULL;
    copy_end(copy);
  }
  if (verify->sourcing) {
    verify->sourcing = false;
    range_release(&m->lock, &verify->hold);
  }
  if (!verify->copy && !verify->in_repair) verify_stopped(verify);
}

/* ---- a range: read ---- */

/* The data of the volume in which the range begins; 0 at the end of all. */
static uint64_t next_start(const struct mirror *m, uint64_t from) {
  for (uint32_t v = 0; v < m->geometry.volume_count; v++)
    if (from < m->geometry.volume_base[v] + m->geometry.volume_bytes[v])
      return max_u64(from, m->geometry.volume_base[v]);
  return UINT64_MAX;
}

void verify_run(struct mirror *m) {
  struct verify *verify = m->verify;
  if (!verify->running || verify->stopping || verify->copy || verify->in_repair || verify->sourcing) return;
  if (list_is_linked(&verify->flush.link) || event_is_posted(&verify->event)) return;
  if (verify->repairing) {
    repair_next(verify);
    return;
  }
  verify->start = next_start(m, verify->end);
  if (verify->start == UINT64_MAX) {
    verify_end(verify, TARN_OK, "");
    return;
  }
  struct copy *copy = copy_find(m, 1);
  if (!copy) return;
  uint64_t region = m->geometry.region_bytes,
           stop = verify->start + min_u64(VERIFY_BYTES, copy_io_max(m, verify->start));
  stop = min_u64(stop, align_down(verify->start, region) + region);
  stop = min_u64(stop, align_up(geometry_data_end(&m->geometry, verify->start), m->block));
  verify->copy = copy;
  verify->pending = 0;
  copy_begin(copy, COPY_VERIFY, verify->start, stop);
  copy_lock(copy);
}

void verify_locked(struct copy *copy) {
  struct mirror *m = copy->m;
  struct verify *verify = m->verify;
  uint64_t first = extent_first(m, copy->start), count = extent_span(m, copy->start, copy->end - copy->start);
  require(verify->copy == copy);
  verify->compared_ns = m->env->now_ns;
  verify->images = mirror_current_mask(m) & ~copy->left;
  if (!m->running || bitmap_any_in(&m->recover, first, count)) verify->images = 0; /* later */
  verify->pending = 1;
  for (uint32_t mask = verify->images; mask != 0; mask &= mask - 1) {
    struct verify_leg *leg = &verify->legs[__builtin_ctz(mask)];
    leg->at = copy->start;
    leg->by_unit = false;
    leg->bad = 0;
    leg->buffer = copy_buffer_take(m);
    verify->pending++;
    leg_next(leg);
  }
  if (--verify->pending == 0) range_read(verify);
}

static uint32_t unit_of(const struct verify *verify, uint64_t address) {
  return (uint32_t)((address - verify->start) / UNIT_BYTES);
}

/* What a disk has behind its volume is not compared. */
static void hash_units(struct verify_leg *leg) {
  const struct verify *verify = leg->verify;
  const struct geometry *geometry = &verify->m->geometry;
  uint64_t end = min_u64(leg->at + leg->piece, geometry_data_end(geometry, verify->start));
  for (uint64_t at = leg->at; at < end; at += UNIT_BYTES)
    hash_sha256(copy_data(leg->buffer, leg->at) + (at - leg->at), min_u64(UNIT_BYTES, end - at),
                leg->digests[unit_of(verify, at)]);
}

static void leg_read(struct disk_io *io) {
  struct verify_leg *leg = CONTAINER_OF(io, struct verify_leg, io);
  struct verify *verify = leg->verify;
  struct mirror *m = verify->m;
  uint32_t i = (uint32_t)(leg - verify->legs);
  leg_ended(m, i, io);
  if (io->err == TARN_OK) {
    hash_units(leg);
    leg->at += leg->piece;
  } else if (!error_is_of_place(io->err)) {
    verify->images &= ~(1u << i);
  } else if (leg->piece > UNIT_BYTES) {
    leg->by_unit = true;
  } else {
    leg->bad |= 1u << unit_of(verify, leg->at);
    leg->at += leg->piece;
  }
  leg_next(leg);
}

static void leg_next(struct verify_leg *leg) {
  struct verify *verify = leg->verify;
  struct mirror *m = verify->m;
  struct copy *copy = verify->copy;
  uint32_t i = (uint32_t)(leg - verify->legs);
  bool out = !image_is_current(m, i) || copy->left & 1u << i;
  if (out) verify->images &= ~(1u << i);
  if (leg->at >= copy->end || !(verify->images & 1u << i) || verify->stopping || !m->running) {
    leg->buffer->used = false;
    require(verify->pending > 0);
    if (--verify->pending == 0) range_read(verify);
    return;
  }
  if (buffer_is_shared(&leg->buffer->buffer)) {
    leg->buffer->used = false;
    leg->buffer = copy_buffer_take(m);
  }
  leg->piece = leg->by_unit ? min_u64(UNIT_BYTES, copy->end - leg->at) : copy->end - leg->at;
  leg_submit(m, i, &leg->io, DISK_READ, 0, leg->at, leg->piece, &leg->buffer->buffer, copy_data(leg->buffer, leg->at),
             leg_read);
}

/* ---- a range: compare ---- */

static bool differs(const char *groups) { return memchr(groups, 'B', IMAGES_MAX) != NULL; }
static bool is_unread(const char *groups) { return memchr(groups, '!', IMAGES_MAX) != NULL; }

/* Images with the same letter agree. */
static void group_unit(struct verify *verify, uint32_t unit, bool listed, char *groups) {
  uint32_t letters = 0, first_of[IMAGES_MAX];
  memset(groups, '-', IMAGES_MAX);
  for (uint32_t mask = verify->images; mask != 0; mask &= mask - 1) {
    uint32_t i = (uint32_t)__builtin_ctz(mask), letter = 0;
    const struct verify_leg *leg = &verify->legs[i];
    groups[i] = '!';
    if (listed || leg->bad & 1u << unit) continue;
    while (letter < letters &&
           memcmp(verify->legs[first_of[letter]].digests[unit], leg->digests[unit], HASH_BYTES) != 0)
      letter++;
    if (letter == letters) first_of[letters++] = i;
    groups[i] = (char)('A' + letter);
  }
}

/* Neighbours with the same groups are one. */
static void note_difference(struct verify *verify, uint64_t start, uint64_t length, const char *groups) {
  struct mirror *m = verify->m;
  struct verify_result *result = &verify->result;
  uint32_t v = geometry_volume_at(&m->geometry, start);
  uint64_t offset = start - m->geometry.volume_base[v];
  struct verify_difference *last = &verify->last;
  bool goes_on = last->length != 0 && last->volume == v && last->offset + last->length == offset &&
                 memcmp(last->groups, groups, IMAGES_MAX) == 0;
  if (goes_on) {
    last->length += length;
  } else {
    *last = (struct verify_difference){.volume = v, .offset = offset, .length = length};
    memcpy(last->groups, groups, IMAGES_MAX);
    result->difference_count++;
  }
  if (result->difference_count <= VERIFY_DIFFERENCES_MAX) result->differences[result->difference_count - 1] = *last;
}

static void compare(struct verify *verify) {
  struct mirror *m = verify->m;
  verify->result.compared &= verify->images;
  uint64_t data_end = geometry_data_end(&m->geometry, verify->start);
  for (uint64_t at = verify->start; at < verify->end && at < data_end; at += UNIT_BYTES) {
    uint64_t length = min_u64(UNIT_BYTES, min_u64(verify->end, data_end) - at);
    uint32_t unit = unit_of(verify, at);
    char *groups = verify->groups[unit];
    group_unit(verify, unit, unreadable_overlaps(&m->record.unreadable, at, length), groups);
    verify->result.done_bytes += length;
    if (differs(groups)) verify->result.differing_bytes += length, verify->result.left_differing_bytes += length;
    if (is_unread(groups)) verify->result.unreadable_bytes += length, verify->result.left_unreadable_bytes += length;
    if (differs(groups) || is_unread(groups)) note_difference(verify, at, length, groups);
  }
}

/* All images have answered: the lock goes back. */
static void range_read(struct verify *verify) {
  struct mirror *m = verify->m;
  struct copy *copy = verify->copy;
  uint64_t end = copy->end;
  verify->images &= mirror_current_mask(m) & ~copy->left;
  verify->copy = NULL;
  copy_end(copy);
  if (verify->stopping || !m->running) {
    verify_stopped(verify);
  } else if (verify->images ==
             0) { /* it is still to be recovered, or nobody has answered: once more; the tick comes by */
    verify->end = verify->start;
  } else {
    verify->end = end;
    compare(verify);
    verify->unit = 0;
    verify->repairing = verify->source < IMAGES_MAX;
    copy_pump(m);
  }
}

/* ---- a range: repair ---- */

/* Who differs there from the source, or could not be read, though the source could. */
static uint32_t to_repair(const struct verify *verify, uint32_t unit) {
  const char *groups = verify->groups[unit];
  char good = groups[verify->source];
  uint32_t images = 0;
  if (good == '!' || good == '-') return 0;
  for (uint32_t i = 0; i < IMAGES_MAX; i++)
    if (groups[i] != '-' && groups[i] != good) images |= 1u << i;
  return images;
}

static void repaired_whole(struct verify *verify, uint64_t start, uint64_t end) {
  end = min_u64(end, geometry_data_end(&verify->m->geometry, start));
  for (uint64_t at = start; at < end; at += UNIT_BYTES) {
    const char *groups = verify->groups[unit_of(verify, at)];
    uint64_t length = min_u64(UNIT_BYTES, end - at);
    if (differs(groups)) verify->result.left_differing_bytes -= length;
    if (is_unread(groups)) verify->result.left_unreadable_bytes -= length;
  }
}

static void range_repaired(struct copy *copy) {
  struct verify *verify = copy->m->verify;
  verify->in_repair = false;
  verify->result.repaired_bytes += copy->repaired_bytes;
  if (copy->repaired_bytes >= copy->end - copy->start) repaired_whole(verify, copy->start, copy->end);
  if (verify->stopping || !copy->m->running) verify_stopped(verify);
  else if (copy->given_up)
    verify_end(verify, TARN_IO, "what differs cannot be repaired: the metadata cannot be written");
  else copy_pump(copy->m);
}

static void source_granted(struct range_hold *hold) {
  struct verify *verify = CONTAINER_OF(hold, struct verify, hold);
  struct mirror *m = verify->m;
  verify->sourcing = false;
  if (m->running && !mirror_recovers(m) && image_is_current(m, verify->source)) repair_source_begins(m, verify->source);
  range_release(&m->lock, hold);
  copy_pump(m);
}

/* Reads at the master take no lock, and may have shown what a write in flight has written there, which a crash that recovers from another
 * image would undo. So all such writes end first, and from then on reads hold their range (master_is_sure). */
static void source_wait(struct verify *verify) {
  struct mirror *m = verify->m;
  uint64_t length = m->geometry.extent_count * m->geometry.extent_bytes;
  verify->sourcing = true;
  if (range_acquire(&m->lock, &verify->hold, 0, length, RANGE_SHARED, HOLD_READ, source_granted))
    source_granted(&verify->hold);
}

static void repair_next(struct verify *verify) {
  struct mirror *m = verify->m;
  uint32_t units = unit_of(verify, verify->end + UNIT_BYTES - 1), unit = verify->unit;
  uint64_t joined_ns = m->images[verify->source].joined_ns; /* who is back was copied from the others */
  if (!image_is_current(m, verify->source) || (joined_ns != 0 && joined_ns >= verify->start_ns)) {
    char why[sizeof verify->why];
    text_set(why, sizeof why, "image %s, to repair from, is no longer SYNCHRONIZED", image_name(m, verify->source));
    verify_end(verify, TARN_IO, why);
    return;
  }
  while (unit < units && to_repair(verify, unit) == 0) unit++;
  verify->unit = unit;
  if (unit == units) {
    verify->repairing = false;
    copy_pump(m);
    return;
  }
  if (m->record.recovery_source != verify->source && !PLANTED(repair_from_master)) {
    if (mirror_recovers(m)) return; /* what a read may have shown at the source of before; the tick comes by */
    if (verify->source == m->record.master) repair_source_begins(m, verify->source);
    else source_wait(verify);
    return;
  }
  /* Not in one round with the mark of a repair, of which the log might land alone. The end of the round comes by. */
  if (m->repair_seq > m->commit.done && !PLANTED(repair_beside_its_record)) return;
  struct repair repair = {.start = verify->start + unit * UNIT_BYTES,
                          .images = to_repair(verify, unit),
                          .compared_ns = verify->compared_ns};
  while (unit < units && to_repair(verify, unit) == repair.images) unit++;
  repair.end = min_u64(verify->start + unit * UNIT_BYTES, verify->end);
  uint32_t before = verify->unit;
  verify->unit = unit;
  verify->in_repair = true; /* it may end at once */
  if (repair_start(m, &repair, verify->source, range_repaired)) return;
  verify->unit = before; /* the tick comes by */
  verify->in_repair = false;
}
