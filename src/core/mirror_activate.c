/* mirror_activate.c - format, activate, deactivate: who is current, and the way in and out of service.
 *
 * Activation reads the record of every store and takes the newest (`best`): the highest generation, then the highest
 * sequence. Every commit of a record reaches the home store and every online image, or takes the image out with the next
 * record, before anything that relies on it is answered; each record also says which commit was `completed` last. From that
 * follows (rules 9 and 10):
 *   - an image that `best` calls SYNCHRONIZED and whose own record is at least as new as best's `completed` is current: it
 *     was online in every completed commit, and those that did not complete were not relied on;
 *   - one whose own record is older than that, or of another history, holds something old: it is copied in full;
 *   - an image that is absent may be ahead only if the home store does not confirm `best`;
 *   - what an absent image misses is its map, and after a crash also every marked region.
 * After a crash the marks of any one current image are complete (rule 2). They keep their slots, and of each log sector the
 * newest sound copy counts, so rewriting the logs is safe whatever part of it lands.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/mirror_int.h"

static void records_loaded(struct mirror *m);
static void conclude(struct mirror *m);

/* ---- the frame of an administrator's operation ---- */

static void admin_ended(struct event *event) {
  struct mirror *m = CONTAINER_OF(event, struct mirror, admin_event);
  m->admin = ADMIN_NONE;
  m->admin_done(m, m->admin_err, m->admin_why, m->admin_context);
}

static bool admin_begin(struct mirror *m, enum admin admin, mirror_done *done, void *context) {
  if (m->admin != ADMIN_NONE) {
    done(m, TARN_REFUSED, "another operation on this mirror is running", context);
    return false;
  }
  m->admin = admin;
  m->admin_done = done;
  m->admin_context = context;
  m->admin_why[0] = 0;
  return true;
}

__attribute__((format(printf, 2, 3))) static void explain(struct mirror *m, const char *format, ...) {
  size_t used = strlen(m->admin_why);
  if (used + 1 >= sizeof m->admin_why) return;
  if (used) used += (size_t)snprintf(m->admin_why + used, sizeof m->admin_why - used, "; ");
  va_list list;
  va_start(list, format);
  if (used + 1 < sizeof m->admin_why) vsnprintf(m->admin_why + used, sizeof m->admin_why - used, format, list);
  va_end(list);
}

static void admin_end(struct mirror *m, tarn_err err) {
  m->admin_err = err;
  event_init(&m->admin_event, admin_ended);
  event_post(&m->env->queue, &m->admin_event);
}

static void all_offline(struct mirror *m) {
  for (uint32_t i = 0; i < IMAGES_MAX; i++) m->images[i].online = false;
}

static const char *image_name(const struct mirror *m, uint32_t i) { return m->config.images[i].name; }

static bool has_disks(const struct mirror *m, uint32_t i) {
  const struct mirror_image_config *config = &m->config.images[i];
  for (uint32_t v = 0; v < m->geometry.volume_count; v++)
    if (!config->data[v]) return false;
  return config->meta != NULL;
}

static void stamp_images(struct mirror *m) {
  EACH_IMAGE(m, i) {
    if (m->images[i].online && m->stamp) m->stamp(m, i, &m->record.images[i].stamp);
  }
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

static void random_uuid(struct mirror *m, uint8_t *uuid) {
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

static void formatted(struct mirror *m, tarn_err err) {
  all_offline(m);
  if (err != TARN_OK) explain(m, "the metadata could not be written");
  admin_end(m, err);
}

static void format_write(struct mirror *m) {
  first_record(m);
  for (uint32_t i = 0; i < m->config.image_count; i++) {
    m->images[i].present = m->images[i].online = true;
    missed_dirty_all(&m->images[i].map);
  }
  stamp_images(m);
  bitmap_set_range(&m->intent.dirty, 0, m->geometry.log_blocks);
  m->record_dirty = true;
  commit_admin(m, formatted);
}

static void format_loaded(struct mirror *m) {
  for (uint32_t i = 0; i < m->config.image_count; i++) {
    if (m->load_failed & 1u << i) explain(m, "the metadata of image %s cannot be read", image_name(m, i));
    else if (m->images[i].store.record_err != TARN_NOT_FOUND && !m->admin_force)
      explain(m, "the metadata of image %s is in use already", image_name(m, i));
  }
  if (m->admin_why[0]) admin_end(m, TARN_EXISTS);
  else format_write(m);
}

void mirror_format(struct mirror *m, bool overwrite, mirror_done *done, void *context) {
  if (!admin_begin(m, ADMIN_FORMAT, done, context)) return;
  require(m->state == MIRROR_INACTIVE);
  m->admin_force = overwrite;
  for (uint32_t i = 0; i < m->config.image_count; i++)
    if (!has_disks(m, i)) explain(m, "image %s is absent", image_name(m, i));
  if (!m->config.home) explain(m, "there is no state directory");
  if (m->admin_why[0]) admin_end(m, TARN_REFUSED);
  else load_records(m, format_loaded);
}

/* ---- activate: who is current ---- */

static void refuse(struct mirror *m) {
  all_offline(m);
  m->commit.wanted = false;
  event_cancel(&m->commit.start);
  mirror_set_state(m, MIRROR_ATTENTION, m->admin_why);
  admin_end(m, TARN_REFUSED);
}

static bool same_generation(const struct generation *a, const struct generation *b) {
  return a->number == b->number && a->id == b->id;
}

/* Is `g` this record's generation, or one that it knows as its past, or too old to be remembered? */
static bool in_history(const struct record *r, const struct generation *g) {
  if (same_generation(&r->generation, g)) return true;
  for (uint32_t h = 0; h < HISTORY_MAX; h++) {
    if (r->history[h].number == g->number) return r->history[h].id == g->id;
    if (r->history[h].number == 0) return false;
  }
  return g->number < r->history[HISTORY_MAX - 1].number;
}

static bool is_newer(const struct record *a, const struct record *b) {
  if (a->generation.number != b->generation.number) return a->generation.number > b->generation.number;
  return a->sequence > b->sequence;
}

/* The newest record. Home took part in every commit that was completed, so a record that does not descend from home's is
 * of a commit that was not, and of a line that nothing was answered from. */
static const struct record *best_record(struct mirror *m) {
  const struct record *home = m->home.record_err == TARN_OK ? &m->home.record : NULL;
  const struct record *best = home;
  for (uint32_t i = 0; i < m->config.image_count; i++) {
    const struct store *store = &m->images[i].store;
    if (!store->disk || store->record_err != TARN_OK) continue;
    if (home && memcmp(store->record.mirror_uuid, home->mirror_uuid, 16) != 0) continue;
    if (home && !in_history(&store->record, &home->generation)) continue;
    if (!best || is_newer(&store->record, best)) best = &store->record;
  }
  return best;
}

static const char *misfit(const struct mirror *m, const struct record *best) {
  const struct mirror_config *c = &m->config;
  if (best->region_bytes != c->region_bytes || best->extent_bytes != c->extent_bytes ||
      best->mark_count != c->mark_count)
    return "its region, extent or marks are not those of the configuration";
  if (best->volume_count != c->volume_count) return "it has another number of volumes than the configuration";
  for (uint32_t v = 0; v < c->volume_count; v++)
    if (best->volumes[v].size_bytes != c->volumes[v].size_bytes)
      return "a volume's size is not that of the configuration";
  return NULL;
}

enum verdict {
  VERDICT_NONE,
  VERDICT_CURRENT,
  VERDICT_CHANGED,
  VERDICT_BEHIND,
  VERDICT_OLD,
  VERDICT_APART,
  VERDICT_ABSENT
};

/* Somebody replaced its files, or wrote to them after a clean stop (after a crash that cannot be told). */
static bool was_changed(struct mirror *m, uint32_t i) {
  const struct record_image *ri = &m->record.images[i];
  struct image_stamp now = m->config.images[i].found;
  bool replaced = ri->stamp.identity != 0 && now.identity != 0 && ri->stamp.identity != now.identity;
  bool written = m->record.clean && ri->stamp.modified != 0 && now.modified != 0 && ri->stamp.modified != now.modified;
  const char *why = replaced  ? "its file is another one than it was"
                    : written ? "its file was written to while it was not in use"
                              : "";
  snprintf(m->images[i].reason, sizeof m->images[i].reason, "%s", why);
  return replaced || written;
}

/* What an image is, by the best record and its own; image->reason says why it is not current. */
static enum verdict judge_image(struct mirror *m, uint32_t i) {
  struct image *image = &m->images[i];
  const struct mirror_image_config *c = &m->config.images[i];
  const struct store *store = &image->store;
  const char *why = NULL;
  if (!has_disks(m, i)) why = c->error ? c->error : "a disk is absent";
  else if (m->load_failed & 1u << i) why = "its metadata cannot be read";
  else if (store->record_err == TARN_VERSION) why = "its metadata is of a newer version";
  else if (store->record_err == TARN_NOT_FOUND) why = "its metadata is empty";
  else if (store->record_err != TARN_OK) why = "its metadata is damaged";
  else if (memcmp(store->record.mirror_uuid, m->record.mirror_uuid, 16) != 0) why = "its metadata is of another mirror";
  for (uint32_t v = 0; v < m->geometry.volume_count && !why; v++)
    if (c->data[v]->caps.size_bytes < m->geometry.volume_bytes[v]) why = "it is smaller than its volume";
  snprintf(image->reason, sizeof image->reason, "%s", why ? why : "");
  if (why) return VERDICT_ABSENT;
  if (!in_history(&m->record, &store->record.generation)) {
    snprintf(image->reason, sizeof image->reason, "it was written apart from the others");
    return m->home.record_err == TARN_OK ? VERDICT_OLD : VERDICT_APART;
  }
  if (m->record.images[i].state != IMAGE_SYNCHRONIZED) return VERDICT_BEHIND;
  if (store->record.sequence >= m->record.completed) return was_changed(m, i) ? VERDICT_CHANGED : VERDICT_CURRENT;
  snprintf(image->reason, sizeof image->reason, "it holds an older state than was recorded of it");
  return VERDICT_OLD;
}

/* Home confirms that nobody absent is ahead of `best` if it took part in the last completed commit. */
static bool home_confirms(const struct mirror *m) {
  return m->home.record_err == TARN_OK && in_history(&m->record, &m->home.record.generation) &&
         m->home.record.sequence >= m->record.completed;
}

static void fell_behind(struct mirror *m, uint32_t i) {
  struct record_image *ri = &m->record.images[i];
  if (ri->state == IMAGE_SYNCHRONIZED) {
    ri->left_number = m->record.generation.number;
    ri->moment_ns = m->env->wall_ns;
  }
  ri->state = IMAGE_UNSYNCHRONIZED;
  ri->missing = MISSING_FAILED;
}

static uint32_t count_of(const enum verdict *verdicts, enum verdict verdict) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < IMAGES_MAX; i++) count += verdicts[i] == verdict;
  return count;
}

/* Uses image `i` as it is, and copies it over all others: what the maps say of them no longer holds. */
static void use_as_it_is(struct mirror *m, enum verdict *verdicts, uint32_t i) {
  verdicts[i] = VERDICT_CURRENT;
  m->record.images[i].state = IMAGE_SYNCHRONIZED;
  m->record.images[i].missing = MISSING_NONE;
  m->record.images[i].all_missed = false;
  m->record.master = (uint8_t)i;
  m->record.recovery_source = RECORD_NO_SOURCE;
  for (uint32_t k = 0; k < IMAGES_MAX; k++) {
    if (k == i || !m->record.images[k].present) continue;
    m->record.images[k].all_missed = true;
    if (verdicts[k] == VERDICT_CURRENT || verdicts[k] == VERDICT_CHANGED) verdicts[k] = VERDICT_OLD;
  }
}

/* Images that were changed behind our back. The only copy is used as it is; of several the unchanged ones count, but that
 * throws something away, so it is for the administrator to say. False: refuse. */
static bool settle_changed(struct mirror *m, enum verdict *verdicts) {
  uint32_t changed = count_of(verdicts, VERDICT_CHANGED), sound = count_of(verdicts, VERDICT_CURRENT);
  if (changed == 0) return true;
  for (uint32_t i = 0; i < IMAGES_MAX; i++)
    if (verdicts[i] == VERDICT_CHANGED) explain(m, "image %s: %s", image_name(m, i), m->images[i].reason);
  if (changed == 1 && sound == 0) {
    for (uint32_t i = 0; i < IMAGES_MAX; i++)
      if (verdicts[i] == VERDICT_CHANGED) use_as_it_is(m, verdicts, i);
    return true;
  }
  explain(m, sound ? "--force copies the unchanged images over it" : "--force copies the master over the others");
  if (!m->admin_force) return false;
  if (sound == 0) use_as_it_is(m, verdicts, verdicts[m->record.master] == VERDICT_CHANGED ? m->record.master : 0);
  for (uint32_t i = 0; i < IMAGES_MAX; i++)
    if (verdicts[i] == VERDICT_CHANGED) verdicts[i] = VERDICT_OLD;
  return true;
}

/* No image has the newest data. By force the one that fell behind last is used. */
static bool settle_none(struct mirror *m, enum verdict *verdicts) {
  if (count_of(verdicts, VERDICT_CURRENT) != 0) return true;
  uint32_t best = IMAGES_MAX;
  for (uint32_t i = 0; i < IMAGES_MAX; i++) {
    if (verdicts[i] != VERDICT_BEHIND && verdicts[i] != VERDICT_OLD) continue;
    if (best == IMAGES_MAX || m->record.images[i].left_number > m->record.images[best].left_number) best = i;
  }
  explain(m, "no image that is here has the newest data");
  if (best == IMAGES_MAX) return false;
  explain(m,
          m->admin_force ? "image %s is used as it was in generation %llu; what was written since is lost"
                         : "--force would use image %s as it was in generation %llu and lose what was written since",
          image_name(m, best), (unsigned long long)m->record.images[best].left_number);
  if (!m->admin_force) return false;
  use_as_it_is(m, verdicts, best);
  return true;
}

static bool conditions_hold(struct mirror *m, const enum verdict *verdicts, bool unsure) {
  uint32_t missing = count_of(verdicts, VERDICT_ABSENT), current = count_of(verdicts, VERDICT_CURRENT);
  bool too_many = m->config.max_missing >= 0 && missing > (uint32_t)m->config.max_missing;
  bool too_few = m->config.min_images > 0 && current < (uint32_t)m->config.min_images;
  if (unsure) explain(m, "nothing confirms that no newer data is lost; --force goes on without it");
  if (too_many) explain(m, "%u images are missing, max-missing allows %d", missing, m->config.max_missing);
  if (too_few) explain(m, "%u images are current, min-images asks for %d", current, m->config.min_images);
  return !unsure && !too_many && !too_few;
}

/* What the verdict on an image means for the record and for this activation. */
static void apply_verdict(struct mirror *m, uint32_t i, enum verdict verdict) {
  struct image *image = &m->images[i];
  image->online = verdict != VERDICT_NONE && verdict != VERDICT_ABSENT;
  if (verdict == VERDICT_CURRENT) {
    m->load_sources |= 1u << i;
    return;
  }
  if (verdict == VERDICT_OLD || verdict == VERDICT_APART) m->record.images[i].all_missed = true;
  if (verdict != VERDICT_BEHIND) fell_behind(m, i);
}

/* Sorts the images; false when activation must not go on. */
static bool judge_images(struct mirror *m) {
  enum verdict verdicts[IMAGES_MAX] = {VERDICT_NONE};
  uint32_t were_current = 0;
  bool unsure = false;
  m->load_sources = 0;
  for (uint32_t i = 0; i < m->config.image_count; i++) {
    m->images[i].present = m->record.images[i].present;
    if (!m->images[i].present) continue;
    if (m->record.images[i].state == IMAGE_SYNCHRONIZED) were_current |= 1u << i;
    verdicts[i] = judge_image(m, i);
    if (verdicts[i] == VERDICT_APART) unsure = true; /* and no home to say which line was answered from */
    if (verdicts[i] == VERDICT_APART) explain(m, "image %s was written apart from the others", image_name(m, i));
    if (verdicts[i] != VERDICT_ABSENT || !(were_current & 1u << i)) continue;
    explain(m, "image %s is absent: %s", image_name(m, i), m->images[i].reason);
    unsure = unsure || !home_confirms(m);
  }
  if (!settle_changed(m, verdicts) || !settle_none(m, verdicts)) return false;
  if (!conditions_hold(m, verdicts, unsure) && !m->admin_force) return false;
  uint32_t current = 0;
  EACH_IMAGE(m, i) {
    apply_verdict(m, i, verdicts[i]);
    if (verdicts[i] == VERDICT_CURRENT) current |= 1u << i;
  }
  if (current != were_current) mirror_new_generation(m);
  return true;
}

static void pages_loaded(struct mirror *m) {
  for (uint32_t i = 0; i < IMAGES_MAX; i++)
    if (m->load_maps[i]) missed_load_done(m->load_maps[i]);
  conclude(m);
}

static void tops_loaded(struct mirror *m) {
  for (uint32_t i = 0; i < IMAGES_MAX; i++)
    if (m->load_maps[i]) missed_load_tops(m->load_maps[i]);
  load_part(m, STORE_LOAD_PAGES, pages_loaded);
}

static void log_loaded(struct mirror *m) { load_part(m, STORE_LOAD_TOPS, tops_loaded); }

static void records_loaded(struct mirror *m) {
  const struct record *best = best_record(m);
  if (!best) {
    explain(m, "no image has readable metadata");
    refuse(m);
    return;
  }
  const char *wrong = misfit(m, best);
  if (wrong) {
    explain(m, "the recorded mirror does not fit: %s", wrong);
    refuse(m);
    return;
  }
  m->record = *best;
  if (!judge_images(m)) {
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
    m->load_maps[i] = known ? &m->images[i].map : NULL;
  }
  if (m->record.clean) log_loaded(m);
  else load_part(m, STORE_LOAD_LOG, log_loaded);
}

/* ---- activate: what to copy, and into service ---- */

static uint32_t recovery_source(const struct mirror *m) {
  uint32_t source = m->record.recovery_source;
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
  for (; others != 0; others &= others - 1) fell_behind(m, (uint32_t)__builtin_ctz(others));
  EACH_IMAGE(m, i) {
    if (!image_is_current(m, i)) m->record.images[i].all_missed = true;
  }
}

/* What was marked at the crash is copied among the current images, and missed by all others. */
static void recover_marked(struct mirror *m) {
  uint64_t per_region = m->geometry.region_bytes / m->geometry.extent_bytes;
  bool alone = m->config.image_count == 1 && !m->record.doubt; /* one copy is equal to itself */
  LIST_EACH(&m->intent.used, node) {
    uint64_t region = LIST_ENTRY(node, struct mark, link)->region;
    uint64_t start = region * m->geometry.region_bytes;
    uint64_t length = min_u64(m->geometry.region_bytes, geometry_data_end(&m->geometry, start) - start);
    m->recover_marked += length;
    if (!alone) recover_set(m, start, length);
    EACH_IMAGE(m, i) {
      if (!image_is_current(m, i)) missed_set(&m->images[i].map, region * per_region, per_region);
    }
  }
  m->recovering = m->recover.set_count != 0 || m->record.doubt;
  m->record.recovery_source = m->recovering ? (uint8_t)recovery_source(m) : RECORD_NO_SOURCE;
}

static void serve(struct mirror *m) {
  m->serving = true;
  mirror_set_state(m, MIRROR_ACTIVE, NULL);
  timer_set(m->env, &m->tick, m->env->now_ns + TICK_NS);
  copy_pump(m);
  admin_end(m, TARN_OK);
}

static void activated(struct mirror *m, tarn_err err) {
  if (err != TARN_OK || mirror_current_mask(m) == 0) {
    explain(m, "the metadata could not be written");
    refuse(m);
    return;
  }
  if (m->log_lost) { /* only now that the record says so may the damaged logs go */
    m->log_lost = false;
    bitmap_set_range(&m->intent.dirty, 0, m->geometry.log_blocks);
    commit_admin(m, activated);
    return;
  }
  EACH_IMAGE(m, i) {
    struct record_image *ri = &m->record.images[i];
    /* The map that says "all" is durable now: from here on the copy's progress counts. */
    if (m->images[i].online && ri->state == IMAGE_SYNCHRONIZING && ri->all_missed) {
      ri->all_missed = false;
      m->record_dirty = true;
    }
  }
  serve(m);
}

static void start_syncing(struct mirror *m, uint32_t i) {
  struct image *image = &m->images[i];
  if (m->record.images[i].all_missed) missed_set_all(&image->map);
  m->record.images[i].state = IMAGE_SYNCHRONIZING;
  m->record.images[i].missing = MISSING_NONE;
  image->sync_total = image->map.missed.set_count;
  image->sync_start_ns = m->env->now_ns;
  image->sync_copied = 0;
}

static void conclude(struct mirror *m) {
  if ((m->load_sources & m->load_failed) != 0 && (m->load_sources & ~m->load_failed) == 0) {
    explain(m, "the metadata cannot be read");
    refuse(m);
    return;
  }
  if (!image_is_current(m, m->record.master)) m->record.master = (uint8_t)__builtin_ctz(mirror_current_mask(m));
  m->recovered = !m->record.clean;
  m->recover_start_ns = m->recover_end_ns = m->env->now_ns;
  m->recover_copied = m->recover_marked = 0;
  if (m->recovered) {
    if (intent_load_done(&m->intent, m->commit.started + 1, m->env->now_ns)) recover_marked(m);
    else believe_source(m);
    report(m->env, REPORT_WARNING, m->config.name, "recovering after a crash: %u marked regions, source image %s",
           m->intent.used_count, image_name(m, recovery_source(m)));
  }
  m->recover_total = m->recover.set_count;
  EACH_IMAGE(m, i) {
    if (m->images[i].online && m->record.images[i].state != IMAGE_SYNCHRONIZED) start_syncing(m, i);
    missed_dirty_all(&m->images[i].map);
  }
  if (!m->log_lost) bitmap_set_range(&m->intent.dirty, 0, m->geometry.log_blocks);
  stamp_images(m);
  m->record.active = true;
  m->record.clean = false;
  m->record_dirty = true;
  commit_admin(m, activated);
}

void mirror_activate(struct mirror *m, bool force, mirror_done *done, void *context) {
  if (!admin_begin(m, ADMIN_ACTIVATE, done, context)) return;
  require(m->state != MIRROR_ACTIVE);
  m->admin_force = force;
  load_records(m, records_loaded);
}

/* ---- deactivate ---- */

static void deactivated(struct mirror *m, tarn_err err) {
  if (err != TARN_OK) explain(m, "the end could not be recorded: the next activation recovers as after a crash");
  all_offline(m);
  m->commit.wanted = false;
  event_cancel(&m->commit.start);
  event_cancel(&m->copy_event);
  timer_cancel(&m->copy_timer);
  mirror_set_state(m, MIRROR_INACTIVE, NULL);
  admin_end(m, err);
}

/* What absent images miss is durable now, so the marks may go. */
static void deactivate_record(struct mirror *m, tarn_err err) {
  if (err == TARN_OK) {
    uint64_t per_region = m->geometry.region_bytes / m->geometry.extent_bytes;
    LIST_EACH(&m->intent.used, node) {
      struct mark *mark = LIST_ENTRY(node, struct mark, link);
      if (bitmap_any_in(&m->recover, mark->region * per_region, per_region)) continue;
      uint32_t slot = (uint32_t)(mark - m->intent.marks);
      if (intent_can_clear(&m->intent, slot, m->commit.done)) intent_clear(&m->intent, slot);
    }
  }
  stamp_images(m);
  m->record.active = m->admin_stay;
  m->record.clean = m->intent.used_count == 0;
  m->record_dirty = true;
  commit_admin(m, deactivated);
}

static void deactivate_flushed(struct mirror *m, tarn_err err) {
  if (err == TARN_OK && m->recover.set_count == 0) { /* a recovery that only wanted this flush */
    m->record.recovery_source = RECORD_NO_SOURCE;
    m->record.doubt = false;
  }
  for (uint32_t i = 0; i < m->config.image_count; i++) {
    if (!m->images[i].online || image_is_current(m, i)) continue;
    if (err == TARN_OK) missed_checkpoint(&m->images[i].map);
    else missed_forget_copied(&m->images[i].map);
  }
  commit_admin(m, deactivate_record);
}

void admin_check_idle(struct mirror *m) {
  if (!m->admin_draining || m->ops_busy != 0 || m->copies_busy != 0) return;
  m->admin_draining = false;
  flush_all(m, &m->admin_flush, deactivate_flushed);
}

void mirror_deactivate(struct mirror *m, bool stay, mirror_done *done, void *context) {
  if (!admin_begin(m, ADMIN_DEACTIVATE, done, context)) return;
  if (m->state != MIRROR_ACTIVE) { /* nothing to stop: it was ATTENTION */
    mirror_set_state(m, MIRROR_INACTIVE, NULL);
    admin_end(m, TARN_OK);
    return;
  }
  m->admin_stay = stay;
  m->serving = false;
  timer_cancel(&m->tick);
  m->admin_draining = true;
  copy_stop(m);
  op_line_run(m);
  mark_line_run(m);
  scratch_line_stop(m);
  admin_check_idle(m);
}
