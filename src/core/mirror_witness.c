/* mirror_witness.c - witnesses: a few places of the mirror, with a hash of what lies there, in the record. By them activation, and
 * an image that comes back, notice that a disk does not hold what the metadata tells of: disks that have changed places, a disk or
 * the metadata that went back to an earlier state (rule 16). It is a sample.
 *
 * A witness is one unit (UNIT_BYTES, or what is left of its volume). It says what every SYNCHRONIZED image holds there, and any
 * other one whose map does not call that extent missed. It says nothing where its region is marked or still to be recovered, or
 * where no image can read; and one that cannot be read says nothing either.
 *
 *     a mark is to be cleared --> its region's witnesses are dropped --> the record without them is durable --> the mark goes
 *        --> idle, or a clean stop: what was written last is read under a shared hold, and is a witness if there is no mark
 *
 * Crash argument. To be shown: a witness of a durable record whose region is unmarked in the durable log is true.
 *   - It is true when it is made: an unmarked region is equal, and flushed, on every current image; the hold keeps writes out
 *     while it is read. What an image that is away does not get is in its map, under a mark until that is durable (rule 1).
 *   - A mark that is taken after that is durable before its write is issued, and then the witness does not count. If both go out in
 *     one round, any part of it may land: the mark without the witness, or the witness without a mark, under which nothing was
 *     written.
 *   - The mark goes only when the record without the witness is durable on every image (map_seq). One round for both would not do:
 *     of its blocks the cleared mark could land, and the record not.
 *   - A clean stop does the same in two commits: without the witnesses of what is marked; then without marks, and filled up. */
#include <string.h>

#include "base/hash.h"
#include "base/text.h"
#include "core/mirror_int.h"

#define QUIET_EVERY_NS (5 * NS_PER_S)  /* between two renewals, each of which costs a record; */
#define BUSY_EVERY_NS  (60 * NS_PER_S) /* while clients write */
#define RENEW_MAX      8u              /* places that are read in one of them */

static void look_next(struct witness_leg *leg);
static void renew_next(struct mirror *m);

tarn_err witness_alloc(struct mirror *m, struct arena *arena) {
  m->renewal.m = m;
  for (uint32_t i = 0; i < IMAGES_MAX; i++) {
    struct witness_look *look = &m->images[i].look;
    if (!buffer_new_private(&look->buffer, arena, WITNESS_DEPTH * UNIT_BYTES)) return TARN_FULL;
    for (uint32_t k = 0; k < WITNESS_DEPTH; k++) {
      look->legs[k].image = &m->images[i];
      disk_io_init(&look->legs[k].io);
    }
  }
  return TARN_OK;
}

/* ---- the list, by address ---- */

static uint64_t region_of(const struct mirror *m, uint64_t address) {
  return div_power(address, m->geometry.region_bytes);
}

/* How many bytes of a unit belong to its volume. */
static uint32_t unit_bytes(const struct mirror *m, uint64_t address) {
  return (uint32_t)min_u64(UNIT_BYTES, geometry_data_end(&m->geometry, address) - address);
}

static void digest(const struct mirror *m, uint64_t address, const uint8_t *data, uint8_t *hash) {
  uint8_t whole[HASH_BYTES];
  hash_sha256(data, unit_bytes(m, address), whole);
  memcpy(hash, whole, WITNESS_BYTES);
}

/* The first one at or after this address. */
static uint32_t place_of(const struct mirror *m, uint64_t address) {
  uint32_t w = 0;
  while (w < m->record.witness_count && m->record.witnesses[w].address < address) w++;
  return w;
}

static bool is_listed(const struct mirror *m, uint64_t address) {
  uint32_t w = place_of(m, address);
  return w < m->record.witness_count && m->record.witnesses[w].address == address;
}

/* No mark there goes before that is recorded. */
static void remove_at(struct mirror *m, uint32_t w) {
  struct record *r = &m->record;
  require(w < r->witness_count);
  uint32_t slot = intent_find(&m->intent, region_of(m, r->witnesses[w].address));
  if (slot != INTENT_NONE) m->intent.marks[slot].map_seq = m->commit.started + 1;
  r->witness_count--;
  memmove(&r->witnesses[w], &r->witnesses[w + 1], (r->witness_count - w) * sizeof r->witnesses[0]);
  r->witnesses[r->witness_count] = (struct witness){0};
  m->record_dirty = true;
}

static void insert(struct mirror *m, const struct witness *witness) {
  struct record *r = &m->record;
  uint32_t w = place_of(m, witness->address);
  require(!is_listed(m, witness->address) && r->witness_count < WITNESSES_MAX);
  memmove(&r->witnesses[w + 1], &r->witnesses[w], (r->witness_count - w) * sizeof r->witnesses[0]);
  r->witnesses[w] = *witness;
  r->witness_count++;
  m->record_dirty = true;
}

/* Those that go are drawn: so some of what was written long ago stay. */
static void make_room(struct mirror *m, uint32_t count) {
  struct record *r = &m->record;
  while (r->witness_count > 0 && r->witness_count + count > m->limits.witnesses)
    remove_at(m, (uint32_t)(m->env->random(m->env) % r->witness_count));
}

uint32_t mirror_witness_count(const struct mirror *m) { return m->record.witness_count; }

void witness_drop(struct mirror *m, uint64_t region) {
  uint32_t w = place_of(m, region * m->geometry.region_bytes);
  if (PLANTED(witness_outlives_mark)) return;
  while (w < m->record.witness_count && region_of(m, m->record.witnesses[w].address) == region) remove_at(m, w);
}

void witness_drop_all(struct mirror *m) {
  if (m->record.witness_count != 0) m->record_dirty = true;
  m->record.witness_count = 0;
  memset(m->record.witnesses, 0, sizeof m->record.witnesses);
}

void witness_drop_marked(struct mirror *m) {
  LIST_EACH(&m->intent.used, node) { witness_drop(m, LIST_ENTRY(node, struct mark, link)->region); }
}

void witness_check(const struct mirror *m) {
  const struct record *r = &m->record;
  require(r->witness_count <= WITNESSES_MAX);
  for (uint32_t w = 0; w < r->witness_count; w++) {
    require(r->witnesses[w].address % UNIT_BYTES == 0);
    require(geometry_volume_at(&m->geometry, r->witnesses[w].address) < m->geometry.volume_count);
    require(w == 0 || r->witnesses[w - 1].address < r->witnesses[w].address);
  }
}

/* A record may name places that we would not: they tell nothing. */
void witness_loaded(struct mirror *m) {
  for (uint32_t w = m->record.witness_count; w-- > 0;) {
    uint64_t address = m->record.witnesses[w].address;
    if (address % UNIT_BYTES != 0 || geometry_volume_at(&m->geometry, address) >= m->geometry.volume_count)
      remove_at(m, w);
  }
}

/* ---- what images hold there ---- */

static bool is_marked(const struct mirror *m, uint64_t address) {
  return intent_find(&m->intent, region_of(m, address)) != INTENT_NONE && !PLANTED(marked_witness_counts);
}

/* Does a witness at this place tell what image `i` must hold? */
static bool counts(const struct mirror *m, uint32_t i, uint64_t address) {
  const struct record_image *ri = &m->record.images[i];
  if (is_marked(m, address) || unreadable_overlaps(&m->record.unreadable, address, unit_bytes(m, address)))
    return false;
  if (ri->state == IMAGE_SYNCHRONIZED || PLANTED(missed_witness_counts)) return true;
  return !ri->all_missed && !bitmap_test(&m->images[i].map.missed, extent_first(m, address));
}

/* The list may have changed since this one was read. */
static void judge(struct witness_leg *leg) {
  struct image *image = leg->image;
  struct mirror *m = image->m;
  struct witness_look *look = &image->look;
  uint32_t w = place_of(m, leg->witness.address);
  bool same = memcmp(leg->witness.hash, leg->found, WITNESS_BYTES) == 0;
  if (w == m->record.witness_count || memcmp(&m->record.witnesses[w], &leg->witness, sizeof leg->witness) != 0) return;
  look->same |= (uint32_t)same << w;
  if (!counts(m, (uint32_t)(image - m->images), leg->witness.address)) return;
  look->counted++;
  if (same) return;
  if (look->differs == 0) look->first = leg->witness.address;
  look->differs |= 1u << w;
}

static void looked(struct disk_io *io) {
  struct witness_leg *leg = CONTAINER_OF(io, struct witness_leg, io);
  struct image *image = leg->image;
  struct mirror *m = image->m;
  leg_ended(m, (uint32_t)(image - m->images), io);
  if (io->err == TARN_OK) {
    digest(m, leg->witness.address, io->data, leg->found);
    judge(leg);
  }
  look_next(leg);
}

/* A disk that hangs may still hold the buffer; then, as if it could not be read. */
static bool witness_can_read(const struct mirror *m, uint32_t i, uint64_t address) {
  const struct witness_look *look = &m->images[i].look;
  const struct disk *disk = &m->images[i].data[geometry_volume_at(&m->geometry, address)].disk;
  return look->pending == 0 && !buffer_is_shared(&look->buffer) && disk->caps.io_bytes_max >= UNIT_BYTES;
}

static void unit_read(struct mirror *m, uint32_t i, struct witness_leg *leg, uint64_t address,
                      void (*done)(struct disk_io *io)) {
  struct witness_look *look = &m->images[i].look;
  uint64_t length = min_u64(UNIT_BYTES, align_up(geometry_data_end(&m->geometry, address) - address, m->block));
  uint8_t *data = look->buffer.base + (size_t)(leg - look->legs) * UNIT_BYTES;
  leg_submit(m, i, &leg->io, DISK_READ, 0, address, length, &look->buffer, data, done);
}

static void look_next(struct witness_leg *leg) {
  struct image *image = leg->image;
  struct mirror *m = image->m;
  struct witness_look *look = &image->look;
  uint32_t i = (uint32_t)(image - m->images), w = place_of(m, look->next);
  if (w < m->record.witness_count && look->readable) {
    leg->witness = m->record.witnesses[w];
    look->next = leg->witness.address + 1;
    unit_read(m, i, leg, leg->witness.address, looked);
    return;
  }
  require(look->pending > 0);
  if (--look->pending == 0) look->done(m, i);
}

void witness_look(struct mirror *m, uint32_t i, void (*done)(struct mirror *m, uint32_t i)) {
  struct witness_look *look = &m->images[i].look;
  require(look->pending == 0);
  look->readable = witness_can_read(m, i, 0);
  look->pending = WITNESS_DEPTH + 1;
  look->next = 0;
  look->counted = look->same = look->differs = 0;
  look->done = done;
  for (uint32_t k = 0; k < WITNESS_DEPTH; k++) look_next(&look->legs[k]);
  if (--look->pending == 0) done(m, i);
}

bool witness_differs(const struct mirror *m, uint32_t i) { return m->images[i].look.differs != 0; }

/* Who holds all that image `i` should hold, and does not, but should not hold it; IMAGES_MAX: nobody. */
static uint32_t holder_of(const struct mirror *m, uint32_t i) {
  uint32_t wanted = m->images[i].look.differs;
  EACH_IMAGE(m, k) {
    bool should = m->record.images[k].state == IMAGE_SYNCHRONIZED && !witness_differs(m, k);
    if (k != i && !should && (m->images[k].look.same & wanted) == wanted) return k;
  }
  return IMAGES_MAX;
}

void witness_explain(const struct mirror *m, uint32_t i, char *text, size_t bytes) {
  const struct witness_look *look = &m->images[i].look;
  uint32_t v = geometry_volume_at(&m->geometry, look->first), holder = holder_of(m, i);
  require(look->differs != 0 && v < m->geometry.volume_count);
  if (holder < IMAGES_MAX)
    text_set(text, bytes,
             "it holds other bytes than were recorded of it; image %s holds them: have their disks "
             "changed places?",
             image_name(m, holder));
  else
    text_set(text, bytes,
             "it holds other bytes than were recorded of it, at %u of %u places that were looked at, the "
             "first at %llu of volume %s",
             (uint32_t)__builtin_popcount(look->differs), look->counted,
             (unsigned long long)(look->first - m->geometry.volume_base[v]), m->config.volumes[v].name);
}

/* ---- renewal: what was written last, and some places drawn over all volumes ---- */

void witness_note(struct mirror *m, const struct mark *mark) {
  struct witness_renewal *renewal = &m->renewal;
  if (mark->written_end == 0) return;
  if (renewal->noted == WITNESSES_MAX)
    memmove(&renewal->notes[0], &renewal->notes[1], --renewal->noted * sizeof renewal->notes[0]);
  renewal->notes[renewal->noted++] = align_down(mark->written_end - 1, UNIT_BYTES);
}

bool witness_is_idle(const struct mirror *m) { return !m->renewal.running; }

/* Any unit of any volume. */
static uint64_t draw_address(struct mirror *m) {
  uint32_t v = (uint32_t)(m->env->random(m->env) % m->geometry.volume_count);
  uint64_t units = (m->geometry.volume_bytes[v] + UNIT_BYTES - 1) / UNIT_BYTES;
  return m->geometry.volume_base[v] + m->env->random(m->env) % units * UNIT_BYTES;
}

static bool may_be_new(const struct mirror *m, uint64_t address) {
  return intent_find(&m->intent, region_of(m, address)) == INTENT_NONE && !is_listed(m, address) &&
         !unreadable_overlaps(&m->record.unreadable, address, unit_bytes(m, address));
}

/* Where to look next: the newest notes first. False: that is all. */
static bool renewal_draw(struct mirror *m) {
  struct witness_renewal *renewal = &m->renewal;
  while (renewal->left > 0 && m->record.witness_count < m->limits.witnesses) {
    renewal->left--;
    renewal->address = renewal->noted > 0 ? renewal->notes[--renewal->noted] : draw_address(m);
    if (may_be_new(m, renewal->address)) return true;
  }
  return false;
}

static void renewal_end(struct mirror *m) {
  struct witness_renewal *renewal = &m->renewal;
  void (*done)(struct mirror *) = renewal->done;
  if (renewal->holding) range_release(&m->lock, &renewal->hold);
  renewal->holding = renewal->running = false;
  renewal->done = NULL;
  if (m->record_dirty && m->running) commit_want(m);
  if (done) done(m);
  else admin_check_idle(m);
}

static void renewed(struct disk_io *io) {
  struct witness_leg *leg = CONTAINER_OF(io, struct witness_leg, io);
  struct mirror *m = leg->image->m;
  struct witness_renewal *renewal = &m->renewal;
  uint32_t i = (uint32_t)(leg->image - m->images);
  leg_ended(m, i, io);
  bool good = io->err == TARN_OK && image_is_current(m, i) && !m->log_off;
  if (good && may_be_new(m, leg->witness.address) && m->record.witness_count < m->limits.witnesses) {
    digest(m, leg->witness.address, io->data, leg->witness.hash);
    insert(m, &leg->witness);
  }
  if (renewal->holding) range_release(&m->lock, &renewal->hold);
  renewal->holding = false;
  if (good) renew_next(m);
  else renewal_end(m);
}

static void renew_locked(struct range_hold *hold) {
  struct witness_renewal *renewal = CONTAINER_OF(hold, struct witness_renewal, hold);
  struct mirror *m = renewal->m;
  uint64_t address = renewal->address;
  uint32_t source = read_source(m, address, unit_bytes(m, address), 0);
  bool stopped = renewal->holding && !m->running;
  if (stopped || source == IMAGES_MAX || !witness_can_read(m, source, address)) {
    renewal_end(m);
    return;
  }
  struct witness_leg *leg = &m->images[source].look.legs[0];
  leg->witness.address = address;
  unit_read(m, source, leg, address, renewed);
}

/* At a clean stop there is nobody to keep out. */
static void renew_next(struct mirror *m) {
  struct witness_renewal *renewal = &m->renewal;
  bool stops = renewal->done != NULL;
  if ((!stops && (!m->running || m->paused)) || !renewal_draw(m)) {
    renewal_end(m);
    return;
  }
  renewal->holding = !stops;
  if (stops || range_acquire(&m->lock, &renewal->hold, renewal->address, unit_bytes(m, renewal->address), RANGE_SHARED,
                             HOLD_READ, renew_locked))
    renew_locked(&renewal->hold);
}

static void renewal_begin(struct mirror *m, uint32_t most, void (*done)(struct mirror *m)) {
  struct witness_renewal *renewal = &m->renewal;
  require(!renewal->running);
  renewal->running = true;
  renewal->done = done;
  renewal->left = most;
  make_room(m, (uint32_t)min_u64(renewal->noted, min_u64(most, (m->limits.witnesses * 3 + 3) / 4)));
  renew_next(m);
}

void witness_fill(struct mirror *m, void (*done)(struct mirror *m)) {
  renewal_begin(m, m->log_off ? 0 : 2 * m->limits.witnesses, done);
}

void witness_tick(struct mirror *m) {
  struct witness_renewal *renewal = &m->renewal;
  bool busy = m->changes_done != renewal->changes_seen;
  uint64_t every_ns = busy ? BUSY_EVERY_NS : QUIET_EVERY_NS;
  renewal->changes_seen = m->changes_done;
  bool wanted = renewal->noted > 0 || m->record.witness_count < m->limits.witnesses;
  if (!wanted || renewal->running || m->paused || m->recovering || m->log_off) return;
  if (m->env->now_ns < renewal->last_ns + every_ns) return;
  renewal->last_ns = m->env->now_ns;
  renewal_begin(m, RENEW_MAX, NULL);
}
