/* mirror_activate.c - format, activate, deactivate: the way in and out of service. mirror_judge.c says who is current.
 *
 * After a crash the marks of any one current image are complete (rule 2). They keep their slots, and of each log sector the
 * newest sound copy counts, so rewriting the logs is safe whatever part of it lands.
 */
#include <stdarg.h>
#include <string.h>

#include "base/text.h"
#include "core/mirror_int.h"

static void records_loaded(struct mirror *m);
static void conclude(struct mirror *m);

/* ---- the frame of an administrator's operation ---- */

static void admin_ended(struct event *event) {
  struct mirror *m = CONTAINER_OF(event, struct mirror, admin_event);
  m->admin = ADMIN_NONE;
  m->admin_done(m, m->admin_err, m->admin_why, m->admin_context);
}

bool admin_begin(struct mirror *m, enum admin admin, mirror_done *done, void *context) {
  if (m->admin != ADMIN_NONE) {
    done(m, TARN_REFUSED, "another operation on this mirror is running", context);
    return false;
  }
  m->admin = admin;
  m->admin_step = STEP_NONE;
  m->admin_done = done;
  m->admin_context = context;
  m->admin_why[0] = 0;
  return true;
}

void admin_explain(struct mirror *m, const char *format, ...) {
  size_t used = strlen(m->admin_why);
  if (used + sizeof "; " >= sizeof m->admin_why) return;
  if (used) {
    memcpy(m->admin_why + used, "; ", 2);
    used += 2;
  }
  va_list list;
  va_start(list, format);
  (void)text_set_list(m->admin_why + used, sizeof m->admin_why - used, format, list);
  va_end(list);
}

void admin_end(struct mirror *m, tarn_err err) {
  require(m->admin_step != STEP_ENDED);
  m->admin_step = STEP_ENDED;
  m->admin_err = err;
  event_init(&m->admin_event, admin_ended);
  event_post(&m->env->queue, &m->admin_event);
}

static void all_offline(struct mirror *m) {
  for (uint32_t i = 0; i < IMAGES_MAX; i++) m->images[i].online = false;
}

/* ---- loading, one part from many stores at once ---- */

static void store_loaded(struct store *store, tarn_err err) {
  struct mirror *m = store->owner;
  if (err != TARN_OK) {
    store->record_err = TARN_IO;
    if (store->slot != RECORD_SELF_HOME) m->load_failed |= 1u << store->slot;
  }
  require(m->admin_pending > 0);
  if (--m->admin_pending == 0) m->load_next(m);
}

static void load_records(struct mirror *m, void (*next)(struct mirror *m)) {
  m->load_failed = 0;
  m->load_next = next;
  m->admin_pending = 1;
  for (uint32_t i = 0; i < m->config.image_count; i++) {
    if (!m->config.images[i].meta) continue;
    m->admin_pending++;
    store_load_record(&m->images[i].store, store_loaded);
  }
  if (m->config.home) {
    m->admin_pending++;
    store_load_record(&m->home, store_loaded);
  }
  if (--m->admin_pending == 0) next(m);
}

static void load_part(struct mirror *m, enum store_step step, void (*next)(struct mirror *m)) {
  m->load_next = next;
  m->admin_pending = 1;
  for (uint32_t mask = m->load_sources & ~m->load_failed; mask != 0; mask &= mask - 1) {
    m->admin_pending++;
    store_load(&m->images[__builtin_ctz(mask)].store, step, &m->load_plan, &m->intent, store_loaded);
  }
  if (--m->admin_pending == 0) next(m);
}

/* ---- format ---- */

void random_uuid(struct mirror *m, uint8_t *uuid) {
  for (uint32_t k = 0; k < 2; k++) {
    uint64_t word = m->env->random(m->env);
    memcpy(uuid + 8 * k, &word, 8);
  }
  uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x40); /* RFC 4122, version 4 */
  uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
}

static void first_record(struct mirror *m) {
  struct record *r = &m->record;
  const struct mirror_config *c = &m->config;
  memset(r, 0, sizeof *r);
  r->version = RECORD_VERSION;
  random_uuid(m, r->mirror_uuid);
  memcpy(r->name, c->name, sizeof r->name);
  memcpy(r->epoch_node, c->node, sizeof r->epoch_node);
  r->epoch = 1;
  r->layout = m->geometry.layout;
  r->generation = (struct generation){.number = 1, .id = m->env->random(m->env)};
  r->clean = true;
  r->recovery_source = RECORD_NO_SOURCE;
  r->region_bytes = c->region_bytes;
  r->extent_bytes = c->extent_bytes;
  r->mark_count = c->mark_count;
  r->volume_count = c->volume_count;
  for (uint32_t v = 0; v < c->volume_count; v++) {
    memcpy(r->volumes[v].name, c->volumes[v].name, sizeof r->volumes[v].name);
    random_uuid(m, r->volumes[v].uuid);
    r->volumes[v].size_bytes = c->volumes[v].size_bytes;
  }
  for (uint32_t i = 0; i < c->image_count; i++) {
    struct record_image *ri = &r->images[i];
    ri->present = true;
    memcpy(ri->name, c->images[i].name, sizeof ri->name);
    memcpy(ri->node, c->images[i].node, sizeof ri->node);
    random_uuid(m, ri->uuid);
    /* The mirror starts with what the first image holds; another is equal to it only if both hold nothing. */
    bool equal = i == 0 || (c->images[0].blank && c->images[i].blank);
    ri->state = equal ? IMAGE_SYNCHRONIZED : IMAGE_UNSYNCHRONIZED;
    ri->all_missed = !equal;
  }
}

static void explain_unwritten(struct mirror *m) {
  for (uint32_t i = 0; i < m->config.image_count; i++) {
    if (m->commit.failed & 1u << i)
      admin_explain(m, "the metadata of image %s could not be written: %s", image_name(m, i),
                    tarn_err_text(m->images[i].store.err));
  }
  if (m->commit.home_failed)
    admin_explain(m, "the state directory could not be written: %s", tarn_err_text(m->home.err));
  if (!m->admin_why[0]) admin_explain(m, "the metadata could not be written");
}

static void formatted(struct mirror *m, tarn_err err) {
  all_offline(m);
  if (err != TARN_OK) explain_unwritten(m);
  admin_end(m, err);
}

static void format_stamped(struct mirror *m) {
  m->record_dirty = true;
  commit_admin(m, formatted);
}

static void format_write(struct mirror *m) {
  struct record_layout layout = judge_layout(m);
  const char *wrong = geometry_place(&m->geometry, &layout);
  require(!wrong);
  first_record(m);
  for (uint32_t i = 0; i < m->config.image_count; i++) {
    m->images[i].present = m->images[i].online = true;
    missed_dirty_all(&m->images[i].map);
  }
  bitmap_set_range(&m->intent.dirty, 0, m->geometry.log_blocks);
  stamps_take(m, mirror_online_mask(m), format_stamped);
}

static void format_loaded(struct mirror *m) {
  for (uint32_t i = 0; i < m->config.image_count; i++) {
    if (m->load_failed & 1u << i) admin_explain(m, "the metadata of image %s cannot be read", image_name(m, i));
    else if (m->images[i].store.record_err != TARN_NOT_FOUND && !m->admin_force)
      admin_explain(m, "the metadata of image %s is in use already", image_name(m, i));
  }
  if (m->admin_why[0]) admin_end(m, TARN_EXISTS);
  else format_write(m);
}

void mirror_format(struct mirror *m, bool overwrite, mirror_done *done, void *context) {
  if (!admin_begin(m, ADMIN_FORMAT, done, context)) return;
  require(m->state == MIRROR_INACTIVE);
  m->admin_force = overwrite;
  for (uint32_t i = 0; i < m->config.image_count; i++)
    if (!image_is_complete(m, &m->config.images[i])) admin_explain(m, "image %s is absent", image_name(m, i));
    else if (m->config.images[i].meta->caps.size_bytes < m->geometry.meta_bytes)
      admin_explain(m, "the metadata of image %s has no room for the maps", image_name(m, i));
  if (!m->config.home) admin_explain(m, "there is no state directory");
  if (m->admin_why[0]) admin_end(m, TARN_REFUSED);
  else load_records(m, format_loaded);
}

/* ---- activate: who is current ---- */

static void refuse(struct mirror *m) {
  all_offline(m);
  m->running = false;
  m->commit.wanted = false;
  event_cancel(&m->commit.start);
  mirror_set_state(m, m->how.quiet ? m->state : mirror_next(m->state, MIRROR_ACTIVATION_REFUSED), m->admin_why);
  admin_end(m, TARN_REFUSED);
}

/* Sorts the images by this record. */
static bool judge_by(struct mirror *m, const struct record *best) {
  m->record = *best;
  m->record.version = RECORD_VERSION; /* the first commit writes it so, whole or not at all */
  m->record.layout = m->geometry.layout;
  m->completed_generation = best->generation;
  m->settled_number = best->settled_number;
  m->maps_moved = best->version == RECORD_VERSION_1;
  witness_loaded(m);
  keep_to_volumes(m, &m->record.unreadable);
  return judge_images(m);
}

/* Before anything that was recorded is believed: do the disks hold what that tells of? */
static void look_done(struct mirror *m, uint32_t i) {
  (void)i;
  require(m->admin_pending > 0);
  if (--m->admin_pending > 0) return;
  bool again = m->must_hold;
  EACH_IMAGE(m, k) again |= witness_differs(m, k);
  m->looked = true;
  if (again) { /* once more, with what is known now; what was loaded stays true */
    m->admin_why[0] = 0;
    if (!judge_by(m, judge_best(m))) {
      refuse(m);
      return;
    }
  }
  conclude(m);
}

static void look_at_all(struct mirror *m) {
  bool skipped = m->as_it_is || (!m->record.clean && !m->log_sound) || PLANTED(witness_ignored);
  m->admin_pending = 1;
  EACH_IMAGE(m, i) {
    if (skipped || !(m->judged & 1u << i)) continue;
    m->admin_pending++;
    witness_look(m, i, look_done);
  }
  look_done(m, 0);
}

static void pages_loaded(struct mirror *m) {
  m->load_torn = 0;
  for (uint32_t i = 0; i < IMAGES_MAX; i++)
    if (m->load_maps[i] && missed_load_done(m->load_maps[i])) m->load_torn |= 1u << i;
  for (uint32_t i = 0; i < IMAGES_MAX; i++)
    if (m->load_maps[i]) missed_check(m->load_maps[i]); /* rule 18 */
  if ((m->load_sources & m->load_failed) != 0 && (m->load_sources & ~m->load_failed) == 0) {
    admin_explain(m, "the metadata cannot be read");
    refuse(m);
    return;
  }
  if (!m->record.clean) m->log_sound = intent_load_done(&m->intent, m->commit.started + 1, m->env->now_ns);
  look_at_all(m);
}

static void tops_loaded(struct mirror *m) {
  for (uint32_t i = 0; i < IMAGES_MAX; i++)
    if (m->load_maps[i]) missed_load_tops(m->load_maps[i]);
  load_part(m, STORE_LOAD_PAGES, pages_loaded);
}

static void log_loaded(struct mirror *m) { load_part(m, STORE_LOAD_TOPS, tops_loaded); }

/* Both copies of the record were written before a clean stop was recorded: one that is damaged now was damaged since. */
static void report_rot(struct mirror *m, const struct store *store) {
  if (!store->disk || store->record_err != TARN_OK || !store->slot_damaged || !store->record.clean) return;
  bool home = store->slot == RECORD_SELF_HOME;
  report(m->env, REPORT_WARNING, m->config.name,
         "one of the two copies of the record %s%s is damaged, though the mirror was stopped cleanly; the other one is "
         "used, and the damaged one written anew; see to that disk",
         home ? "in the state directory" : "in the metadata of image ", home ? "" : image_name(m, store->slot));
}

static bool is_of_newer_version(const struct mirror *m) {
  bool newer = m->home.record_err == TARN_VERSION;
  for (uint32_t i = 0; i < m->config.image_count; i++) newer |= m->images[i].store.record_err == TARN_VERSION;
  return newer;
}

static void records_loaded(struct mirror *m) {
  report_rot(m, &m->home);
  for (uint32_t i = 0; i < m->config.image_count; i++) report_rot(m, &m->images[i].store);
  const struct record *best = judge_best(m);
  if (!best) {
    admin_explain(m, "%s",
                  is_of_newer_version(m)
                      ? "its metadata was written by a newer version of Tarn, and only that one can use it"
                      : "no image has readable metadata");
    refuse(m);
    return;
  }
  const char *wrong = judge_misfit(m, best);
  if (wrong) {
    admin_explain(m, "the recorded mirror does not fit: %s", wrong);
    refuse(m);
    return;
  }
  if (!judge_by(m, best)) {
    refuse(m);
    return;
  }
  m->load_plan = (struct commit_plan){.geometry = &m->geometry, .maps = m->load_maps};
  memcpy(&m->load_plan.mirror_id, m->record.mirror_uuid, sizeof m->load_plan.mirror_id);
  for (uint32_t i = 0; i < IMAGES_MAX; i++) {
    const struct record_image *ri = &m->record.images[i];
    /* The map of an image that has just fallen behind is empty; one that misses everything needs none. */
    bool known = ri->present && best->images[i].state != IMAGE_SYNCHRONIZED && ri->state != IMAGE_SYNCHRONIZED &&
                 !ri->all_missed;
    m->images[i].map.epoch = ri->map_epoch;
    m->load_maps[i] = known ? &m->images[i].map : NULL;
  }
  if (m->record.clean) log_loaded(m);
  else load_part(m, STORE_LOAD_LOG, log_loaded);
}

/* ---- activate: what to copy, and into service ---- */

static uint32_t recovery_source(const struct mirror *m) {
  uint32_t source = m->record.recovery_source;
  uint32_t others = mirror_current_mask(m) & ~(1u << (source & 31u));
  if (source != RECORD_NO_SOURCE && others != 0 && PLANTED(source_changed)) return (uint32_t)__builtin_ctz(others);
  return source != RECORD_NO_SOURCE && image_is_current(m, source) ? source : m->record.master;
}

/* No image can tell what was marked: the source is believed, the others miss everything. */
static void believe_source(struct mirror *m) {
  uint32_t source = recovery_source(m), others = mirror_current_mask(m) & ~(1u << source);
  report(m->env, REPORT_WARNING, m->config.name, "no image has a sound intent log: all is copied from image %s",
         image_name(m, source));
  m->log_lost = true;
  m->record.master = (uint8_t)source;
  m->record.recovery_source = RECORD_NO_SOURCE;
  if (others) mirror_new_generation(m);
  for (; others != 0; others &= others - 1) image_fell_behind(m, (uint32_t)__builtin_ctz(others));
  EACH_IMAGE(m, i) {
    if (!image_is_current(m, i)) m->record.images[i].all_missed = true;
  }
}

/* What was marked at the crash is copied among the current images, and missed by all others. */
static void recover_marked(struct mirror *m) {
  uint64_t per_region = m->geometry.region_bytes / m->geometry.extent_bytes;
  LIST_EACH(&m->intent.used, node) {
    uint64_t region = LIST_ENTRY(node, struct mark, link)->region;
    uint64_t start = region * m->geometry.region_bytes;
    uint64_t length = min_u64(m->geometry.region_bytes, geometry_data_end(&m->geometry, start) - start);
    m->recover_marked += length;
    recover_set(m, start, length);
    EACH_IMAGE(m, i) {
      if (!image_is_current(m, i)) missed_set(&m->images[i].map, region * per_region, per_region);
    }
  }
}

/* Disks that were lost while this went on, and that nothing was asked of since. */
static void mirror_see_dead(struct mirror *m) {
  EACH_IMAGE(m, i) {
    for (uint32_t v = 0; v < m->geometry.volume_count && m->images[i].online; v++)
      if (m->images[i].data[v].dead) mirror_image_failed(m, i, "its disk is gone");
  }
}

/* One may have failed in the commit. */
static void ask_again(struct mirror *m) {
  uint32_t current = (uint32_t)__builtin_popcount(mirror_current_mask(m));
  mirror_check_missing(m);
  if (m->serving && m->config.min_images > 0 && current < (uint32_t)m->config.min_images)
    mirror_fall(m, "%u images are current, min-images asks for %d", current, m->config.min_images);
}

static void serve(struct mirror *m) {
  m->running = true;
  m->quiet = m->how.quiet;
  m->serving = !m->quiet;
  mirror_set_state(m, m->quiet ? m->state : mirror_next(m->state, MIRROR_ACTIVATED), NULL);
  EACH_IMAGE(m, i) {
    if (!m->images[i].online) image_returns_later(m, i);
  }
  timer_set(m->env, &m->tick, m->env->now_ns + TICK_NS);
  copy_pump(m);
  mirror_see_dead(m);
  EACH_IMAGE(m, i) image_told_again(m, i);
  if (!m->admin_force && !PLANTED(conditions_unasked)) ask_again(m);
  if (m->fallen) admin_explain(m, "%s", m->reason);
  admin_end(m, m->fallen ? TARN_REFUSED : TARN_OK);
}

static bool activation_fails(struct mirror *m, tarn_err err) {
  if (err == TARN_OK && mirror_current_mask(m) != 0) return false;
  explain_unwritten(m);
  if (m->how.promote || m->admin_force)
    admin_explain(
        m, "what was asked for may be recorded in part all the same: then the next activation goes on from there");
  refuse(m);
  return true;
}

static void tell(struct mirror *m);

/* Once more, if an image has left while it was told: nothing is answered in a generation of which no record says that it is relied on. */
static void told(struct mirror *m, tarn_err err) {
  if (activation_fails(m, err)) return;
  if (m->plan_record.settled_number != m->completed_generation.number) tell(m);
  else serve(m);
}

/* One more record, which says that the one before is complete. Without it an image that is put back to what it was before
 * this activation would pass for current after a crash: it is as new as the last commit that the others know to be complete. */
static void tell(struct mirror *m) {
  m->record_dirty = true;
  commit_admin(m, told);
}

static void activated(struct mirror *m, tarn_err err) {
  if (activation_fails(m, err)) return;
  if (m->log_waits) {
    m->log_waits = false;
    bitmap_set_range(&m->intent.dirty, 0, m->geometry.log_blocks);
    commit_admin(m, activated);
    return;
  }
  if (PLANTED(completed_untold)) serve(m);
  else tell(m);
}

void image_new_epoch(struct mirror *m, uint32_t i) {
  struct record_image *ri = &m->record.images[i];
  uint32_t epoch = (uint32_t)m->env->random(m->env) & MAP_EPOCH_MAX;
  ri->map_epoch = epoch != ri->map_epoch ? epoch : epoch ^ 1;
  m->images[i].map.epoch = ri->map_epoch;
  m->record_dirty = true;
}

/* A write from now on changes nothing in its map, so no mark may go before that map is durable. */
static void image_miss_all(struct mirror *m, uint32_t i) {
  image_new_epoch(m, i);
  missed_set_all(&m->images[i].map, m->record.images[i].map_epoch);
  LIST_EACH(&m->intent.used, node) { LIST_ENTRY(node, struct mark, link)->map_seq = m->commit.started + 1; }
}

void image_start_syncing(struct mirror *m, uint32_t i) {
  struct image *image = &m->images[i];
  if (m->record.images[i].all_missed) image_miss_all(m, i);
  if (image_state_of(m, i) != IMAGE_SYNCHRONIZING) image_move(m, i, IMAGE_COPY_STARTED);
  m->record.images[i].missing = MISSING_NONE;
  m->record.images[i].left_number = 0; /* left_id stays: until that is durable it may still have that record */
  image->reason[0] = 0;
  sync_begin(m, i);
}

static void stamped(struct mirror *m) {
  /* A page that nobody here has may be on a store that is away, and old: it must not count when that comes back. */
  for (uint32_t i = 0; i < IMAGES_MAX; i++)
    if (m->load_torn & 1u << i) image_new_epoch(m, i);
  if (!image_is_current(m, m->record.master)) m->record.master = (uint8_t)__builtin_ctz(mirror_current_mask(m));
  EACH_IMAGE(m, i) {
    if (m->images[i].online) stamp_outdates(m, i);
  }
  m->recovered = !m->record.clean;
  m->recover_start_ns = m->recover_end_ns = m->env->now_ns;
  m->recover_copied = m->recover_marked = 0;
  /* A flush may have failed in the last moments of the process before, and nobody was left to record it: no flush is answered
   * before what was marked is written again. What was written before is at risk when the disks are closed, and lost until then if
   * that process has recorded such a flush. */
  if (m->recovered) {
    m->doubt_is_loss = m->record.doubt;
    m->record.doubt = true;
    for (uint32_t v = 0; v < m->geometry.volume_count; v++) m->volumes[v].written_tick = intent_next_tick(&m->intent);
  }
  if (m->recovered) {
    if (m->log_sound) recover_marked(m);
    else believe_source(m);
    report(m->env, REPORT_WARNING, m->config.name, "recovering after a crash: %u marked regions, source image %s",
           m->intent.used_count, image_name(m, recovery_source(m)));
  }
  if (m->as_it_is || m->log_lost) witness_drop_all(m);
  else witness_drop_marked(m);
  m->recover_total = m->recover.set_count;
  m->recovering = m->recover_total != 0 || m->record.doubt;
  m->record.recovery_source = m->recovering ? (uint8_t)recovery_source(m) : RECORD_NO_SOURCE;
  EACH_IMAGE(m, i) {
    if (m->images[i].online && m->record.images[i].state != IMAGE_SYNCHRONIZED) {
      m->images[i].coming =
          COMING_COMMIT; /* as one that comes back later: nothing is written to it before it is recorded */
      m->images[i].come_seq = m->commit.started + 1;
      image_start_syncing(m, i);
    }
  }
  /* What was loaded is written anew, for those that have come back. A map that was not is empty, and may not land where the record that
   * says why does not: it stays as it is on the disks, which is more than it says. Where maps lie elsewhere from now on all are written. */
  EACH_IMAGE(m, i) {
    bool empty = m->record.images[i].all_missed && m->images[i].coming != COMING_COMMIT;
    if (m->load_maps[i] || m->maps_moved || PLANTED(promoted_too_early)) missed_dirty_all(&m->images[i].map);
    else if (empty) missed_hold_back(&m->images[i].map);
  }
  /* Logs that are damaged, or not of the image that is used as it is, go when the record says so. */
  m->log_waits = m->log_lost || (m->as_it_is && !PLANTED(promoted_too_early));
  if (m->log_waits) bitmap_clear_range(&m->intent.dirty, 0, m->geometry.log_blocks);
  else bitmap_set_range(&m->intent.dirty, 0, m->geometry.log_blocks);
  if (!m->how.quiet) m->record.active = true;
  m->record.clean = false;
  m->record_dirty = true;
  commit_admin(m, activated);
}

static void conclude(struct mirror *m) { stamps_take(m, mirror_online_mask(m), stamped); }

void mirror_activate(struct mirror *m, const struct mirror_activation *how, mirror_done *done, void *context) {
  if (!admin_begin(m, ADMIN_ACTIVATE, done, context)) return;
  require(!m->running && m->state != MIRROR_ACTIVE);
  m->admin_force = how->force;
  m->looked = false;
  m->how = *how;
  load_records(m, records_loaded);
}

/* ---- deactivate ---- */

static void deactivated(struct mirror *m, tarn_err err) {
  /* An image has left while the last record was written; and it is told that what began with that is complete. */
  bool more = m->drop_seq > m->commit.done || m->plan_record.settled_number != m->completed_generation.number;
  if (err == TARN_OK && !m->admin_fallen && more) {
    m->record_dirty = true;
    commit_admin(m, deactivated);
    return;
  }
  if (err == TARN_OK && m->admin_flush_err != TARN_OK) {
    err = m->admin_flush_err;
    admin_explain(
        m, "the last flush failed, so what was written since the one before may be lost; the next activation recovers");
  } else if (err != TARN_OK)
    admin_explain(m, "the end could not be recorded: the next activation recovers as after a crash");
  all_offline(m);
  m->commit.wanted = false;
  event_cancel(&m->commit.start);
  event_cancel(&m->copy_event);
  timer_cancel(&m->copy_timer);
  if (m->state != MIRROR_INACTIVE) mirror_set_state(m, mirror_next(m->state, MIRROR_DEACTIVATE), NULL);
  admin_end(m, err);
}

static void deactivate_stamped(struct mirror *m) {
  m->record.active = m->admin_stay;
  m->record.clean = m->intent.used_count == 0;
  m->record_dirty = true;
  commit_admin(m, deactivated);
}

static void deactivate_record(struct mirror *m) { stamps_take(m, mirror_online_mask(m), deactivate_stamped); }

/* What absent images miss is durable now, and no witness is left of what is marked: so the marks may go. */
static void deactivate_marks(struct mirror *m, tarn_err err) {
  if (err != TARN_OK) {
    deactivate_record(m);
    return;
  }
  uint64_t per_region = m->geometry.region_bytes / m->geometry.extent_bytes;
  LIST_EACH(&m->intent.used, node) {
    struct mark *mark = LIST_ENTRY(node, struct mark, link);
    if (bitmap_any_in(&m->recover, mark->region * per_region, per_region)) continue;
    uint32_t slot = (uint32_t)(mark - m->intent.marks);
    if (!intent_can_clear(&m->intent, slot, m->commit.done)) continue;
    witness_note(m, mark);
    intent_clear(&m->intent, slot);
  }
  witness_fill(m, deactivate_record);
}

static void deactivate_flushed(struct mirror *m, tarn_err err) {
  m->admin_flush_err = err == TARN_FULL ? TARN_IO : err;
  witness_drop_marked(m);
  if (err == TARN_OK && m->recover.set_count == 0) { /* a recovery that only wanted this flush */
    m->record.recovery_source = RECORD_NO_SOURCE;
    m->record.doubt = m->doubt_is_loss = false;
  }
  for (uint32_t i = 0; i < m->config.image_count; i++) {
    if (!m->images[i].online || image_is_current(m, i)) continue;
    if (err == TARN_OK) missed_checkpoint(&m->images[i].map);
    else missed_forget_copied(&m->images[i].map);
  }
  /* With the record, so that the last one knows of a commit of this stop that is complete: see tell(). */
  m->record_dirty |= !PLANTED(completed_untold);
  commit_admin(m, deactivate_marks);
}

bool no_commit_or_flush(const struct mirror *m) {
  return !m->commit.running && !event_is_posted(&m->commit.start) && list_is_empty(&m->flush_running) &&
         list_is_empty(&m->flush_waiting);
}

void admin_check_idle(struct mirror *m) {
  images_check_idle(m);
  close_look(m);
  if (!m->admin_draining || m->ops_busy != 0 || m->copies_busy != 0 || !images_are_idle(m) || !witness_is_idle(m))
    return;
  if (m->admin_fallen && !no_commit_or_flush(m)) return;
  m->admin_draining = false;
  if (m->admin_fallen) deactivated(m, TARN_OK);
  else flush_all(m, &m->admin_flush, deactivate_flushed);
}

void mirror_deactivate(struct mirror *m, bool stay, mirror_done *done, void *context) {
  if (!admin_begin(m, ADMIN_DEACTIVATE, done, context)) return;
  m->admin_stay = stay;
  m->admin_flush_err = TARN_OK;
  m->admin_fallen = !m->running; /* nothing to record: what it fell with stands */
  m->running = m->serving = false;
  timer_cancel(&m->tick);
  m->admin_draining = true;
  images_stop(m);
  copy_stop(m);
  op_line_run(m);
  mark_line_run(m);
  scratch_line_stop(m);
  admin_check_idle(m);
}
