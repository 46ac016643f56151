/* mirror_judge.c - who is current (rules 9 and 10), from the records that activation has loaded.
 *
 * Activation reads the record of every store and takes the newest of home's line (`best`): the highest epoch, then the highest
 * generation in which anything was answered (is_better), then the highest generation, then the highest sequence (record_is_newer).
 * Every commit of a record reaches the home store and every online image, or takes the image out with the next record, before
 * anything that relies on it is answered; each record also says which commit was `completed` last. From that follows (rules 9
 * and 10):
 *   - an image that `best` calls SYNCHRONIZED and whose own record is at least as new as best's `completed` is current: it
 *     was online in every completed commit, and those that did not complete were not relied on;
 *   - one whose own record is older than that, or of another history, holds something old: it is copied in full;
 *   - one whose generation is too old to be remembered, and is not the one that it left with, is unknown: it is never taken
 *     for what it was, but copied in full, or, if it may have something of its own, left for the administrator;
 *   - an image that is absent may be ahead only if the home store does not confirm `best`; nor does a home store confirm anything
 *     that is old, or of another line (home_counts);
 *   - what an absent image misses is its map, and after a crash also every marked region.
 *
 * Two things are settled before that: images that somebody changed behind our back (settle_changed), and that none of those
 * that are here has the newest data (settle_none).
 *
 * All of this is asked twice where the disks turn out to hold other bytes than was recorded of them (mirror_witness.c): which
 * of the witnesses count can be told only when logs and maps are loaded, and from whom is the first answer.
 */
#include <string.h>

#include "base/text.h"
#include "core/mirror_int.h"

static bool same_generation(const struct generation *a, const struct generation *b) {
  return a->number == b->number && a->id == b->id;
}

/* What a record says of a generation. Numbers go up by one: one that is neither there nor too old to be remembered was given up by force (take_line),
 * and no more is known of it than of one that is forgotten. */
enum kinship { KINSHIP_KNOWN, KINSHIP_APART, KINSHIP_UNKNOWN };

static enum kinship kinship(const struct record *r, const struct generation *g) {
  if (g->number >= r->generation.number) return same_generation(&r->generation, g) ? KINSHIP_KNOWN : KINSHIP_APART;
  for (uint32_t h = 0; h < HISTORY_MAX && r->history[h].number != 0; h++)
    if (r->history[h].number == g->number) return r->history[h].id == g->id ? KINSHIP_KNOWN : KINSHIP_APART;
  return PLANTED(forgotten_is_past) ? KINSHIP_KNOWN : KINSHIP_UNKNOWN;
}

/* The record's generation, or one that it remembers? Too old to be remembered is not enough. */
static bool in_history(const struct record *r, const struct generation *g) { return kinship(r, g) == KINSHIP_KNOWN; }

/* Is it of our past, or what image i left with? */
static bool is_ours(const struct mirror *m, uint32_t i, const struct generation *g) {
  uint64_t left_id = m->record.images[i].left_id;
  return (left_id != 0 && left_id == g->id) || in_history(&m->record, g);
}

bool judge_knows(const struct mirror *m, uint32_t i, const struct record *own) {
  return is_ours(m, i, &own->generation);
}

/* Up to here, as far as this record knows, generations were relied on; the first one every store has from the beginning. */
static uint64_t settled_number(const struct record *r) { return max_u64(r->settled_number, 1); }

/* The last one in which anything was answered, as far as this record knows; NULL: that is forgotten, or was left out by a forced use. */
static const struct generation *last_relied_on(const struct record *r) {
  if (r->generation.number <= settled_number(r)) return &r->generation;
  for (uint32_t h = 0; h < HISTORY_MAX && r->history[h].number != 0; h++)
    if (r->history[h].number <= settled_number(r)) return &r->history[h];
  return NULL;
}

/* NULL: it is lost, or as good as that. */
static const struct record *home_record(const struct mirror *m) {
  return m->home.record_err == TARN_OK && last_relied_on(&m->home.record) ? &m->home.record : NULL;
}

/* Is image i's record of a commit that was never completed, and of no completed one that home does not know? Others did not go on with it if home
 * has another one of that kind, or records that the image is out. */
static bool is_stray(const struct record *home, const struct record *r, uint32_t i) {
  const struct generation *last = last_relied_on(r);
  if (last && !in_history(home, last)) return false;
  if (!in_history(r, &home->generation)) return true;
  return r->generation.number > home->generation.number && home->images[i].state != IMAGE_SYNCHRONIZED;
}

/* It is of another line than home: both went on from the same, or something else. Not so where it has given up home's generation, or forgotten it: then
 * home was used beside it, or is an old one, and is not believed (home_counts). */
static bool is_beside(const struct record *home, const struct record *r) {
  return kinship(r, last_relied_on(home)) == KINSHIP_APART;
}

/* Nothing was answered in a generation that was not relied on: what was counts first. */
static bool is_better(const struct record *a, const struct record *b) {
  const struct generation *last_a = last_relied_on(a), *last_b = last_relied_on(b);
  uint64_t number_a = last_a ? last_a->number : 0, number_b = last_b ? last_b->number : 0;
  if (a->epoch != b->epoch || number_a == number_b) return record_is_newer(a, b);
  return number_a > number_b;
}

/* The newest record. */
const struct record *judge_best(struct mirror *m) {
  const struct record *home = home_record(m), *best = home;
  for (uint32_t i = 0; i < m->config.image_count; i++) {
    const struct store *store = &m->images[i].store;
    if (!store->disk || store->record_err != TARN_OK) continue;
    if (home && memcmp(store->record.mirror_uuid, home->mirror_uuid, 16) != 0) continue;
    if (home && (is_stray(home, &store->record, i) || is_beside(home, &store->record))) continue;
    if (!best || is_better(&store->record, best)) best = &store->record;
  }
  return best;
}

/* Is there room for the second maps on every metadata disk that is here? */
static bool have_room_for_moments(const struct mirror *m) {
  uint64_t bytes = mirror_meta_bytes_best(&m->config);
  for (uint32_t i = 0; i < m->config.image_count; i++) {
    const struct disk *meta = m->config.images[i].meta;
    if (meta && meta->caps.size_bytes < bytes) return false;
  }
  return true;
}

struct record_layout judge_layout(const struct mirror *m) {
  return geometry_layout(&m->geometry, have_room_for_moments(m));
}

const char *judge_misfit(struct mirror *m, const struct record *best) {
  const struct mirror_config *c = &m->config;
  if (best->region_bytes != c->region_bytes || best->extent_bytes != c->extent_bytes ||
      best->mark_count != c->mark_count)
    return "its region, extent or marks are not those of the configuration";
  if (best->volume_count != c->volume_count) return "it has another number of volumes than the configuration";
  for (uint32_t v = 0; v < c->volume_count; v++)
    if (best->volumes[v].size_bytes != c->volumes[v].size_bytes)
      return "a volume's size is not that of the configuration";
  if (record_extent_count(best) != m->geometry.extent_count)
    return "it has address space set aside for volumes to grow, which this version of Tarn cannot use";
  struct record_layout layout = best->version == RECORD_VERSION_1 ? judge_layout(m) : best->layout;
  return geometry_place(&m->geometry, &layout);
}

enum verdict {
  VERDICT_NONE,
  VERDICT_CURRENT,
  VERDICT_CHANGED,
  VERDICT_BEHIND,
  VERDICT_OLD,
  VERDICT_APART,
  VERDICT_REPLACED, /* out before, and not the file, or not the bytes, that it was */
  VERDICT_ABSENT
};

bool image_is_replaced(const struct mirror *m, uint32_t i) {
  uint64_t was = m->record.images[i].stamp.identity, now = m->config.images[i].found.identity;
  return was != 0 && now != 0 && was != now;
}

/* By somebody else, since we last had all of it. */
static bool was_written_to(const struct mirror *m, uint32_t i) {
  uint64_t was = m->record.images[i].stamp.modified, now = m->config.images[i].found.modified;
  return was != 0 && now != 0 && was != now;
}

/* It is out, and by its own record it was SYNCHRONIZED in commits that were completed since: somebody used it with an old state directory, in a
 * life that went on. A record tells of the last commit but one, and the one after the last that we knew to be completed may have been, too. */
static bool went_on_alone(const struct mirror *m, uint32_t i, const struct record *own) {
  const struct record_image *ri = &m->record.images[i];
  return ri->state != IMAGE_SYNCHRONIZED && own->images[i].state == IMAGE_SYNCHRONIZED &&
         own->completed > ri->seen_sequence + 1 && !PLANTED(gone_on_unseen);
}

/* What only it can have is what it was current with: a copy that was never finished has nothing. */
bool judge_apart(const struct mirror *m, uint32_t i, const struct record *own) {
  const struct generation *last = last_relied_on(own);
  if (own->images[i].state != IMAGE_SYNCHRONIZED) return false;
  bool is_apart = !judge_knows(m, i, own) && (!m->home_counts || !last || !is_ours(m, i, last));
  return is_apart || went_on_alone(m, i, own);
}

const char *judge_other(const struct mirror *m, uint32_t i, const struct record *own) {
  const struct record_image *ri = &m->record.images[i];
  if (image_is_replaced(m, i) && !PLANTED(replaced_known)) return "its file is another one than it was";
  if (own->sequence < ri->seen_sequence) return "it holds an older state than it left with";
  if (was_written_to(m, i)) return "its file was written to while it was away";
  return NULL;
}

/* It is the same file, and somebody wrote to it after a clean stop (after a crash that cannot be told). */
static bool was_edited(const struct mirror *m, uint32_t i) {
  return m->record.clean && !image_is_replaced(m, i) && was_written_to(m, i);
}

static bool holds_other(const struct mirror *m, uint32_t i) { return m->looked && witness_differs(m, i); }

/* What it should, as far as was looked; and somewhere it was. */
static bool holds_its_own(const struct mirror *m, uint32_t i) {
  return !witness_differs(m, i) && m->images[i].look.counted > 0;
}

/* Somebody replaced its files, or wrote to them, or it is another disk. */
static bool was_changed(struct mirror *m, uint32_t i) {
  struct image *image = &m->images[i];
  bool replaced = image_is_replaced(m, i), edited = was_edited(m, i), other = holds_other(m, i);
  const char *why = replaced ? "its file is another one than it was"
                    : edited ? "its file was written to while it was not in use"
                             : "";
  text_set(image->reason, sizeof image->reason, "%s", why);
  if (other && !edited) witness_explain(m, i, image->reason, sizeof image->reason);
  return ((replaced || edited) && !PLANTED(edited_counts)) || other;
}

/* What an image is, by the best record and its own; image->reason says why it is not current. */
static enum verdict judge_image(struct mirror *m, uint32_t i) {
  struct image *image = &m->images[i];
  const struct mirror_image_config *c = &m->config.images[i];
  const struct store *store = &image->store;
  const char *why = NULL;
  if (!image_is_complete(m, &m->config.images[i])) why = c->error ? c->error : "a disk is absent";
  else if (m->load_failed & 1u << i) why = "its metadata cannot be read";
  else if (store->record_err == TARN_VERSION) why = "its metadata is of a newer version";
  else if (store->record_err == TARN_NOT_FOUND) why = "its metadata is empty";
  else if (store->record_err != TARN_OK) why = "its metadata is damaged";
  else if (memcmp(store->record.mirror_uuid, m->record.mirror_uuid, 16) != 0) why = "its metadata is of another mirror";
  else if (c->meta->caps.size_bytes < m->geometry.meta_bytes) why = "its metadata has no room for the maps";
  for (uint32_t v = 0; v < m->geometry.volume_count && !why; v++)
    if (c->data[v]->caps.size_bytes < m->geometry.volume_bytes[v]) why = "it is smaller than its volume";
  text_set(image->reason, sizeof image->reason, "%s", why ? why : "");
  if (why) return VERDICT_ABSENT;
  if (judge_apart(m, i, &store->record)) {
    text_set(image->reason, sizeof image->reason,
             "it was written apart from the others: 'tarn image sync' gives up what only it has");
    return VERDICT_APART;
  }
  if (!judge_knows(m, i, &store->record)) {
    text_set(image->reason, sizeof image->reason,
             "it holds a change that was never completed, or was away for longer than is remembered");
    return VERDICT_OLD;
  }
  if (m->record.images[i].state != IMAGE_SYNCHRONIZED) {
    /* The map says what it misses of what it had when it left: not of something older, nor of something else. */
    const char *other = judge_other(m, i, &store->record);
    if (!other && !holds_other(m, i)) return VERDICT_BEHIND;
    if (other) text_set(image->reason, sizeof image->reason, "%s", other);
    else witness_explain(m, i, image->reason, sizeof image->reason);
    return image_is_replaced(m, i) || !other ? VERDICT_REPLACED : VERDICT_OLD;
  }
  if (store->record.sequence >= m->record.completed) return was_changed(m, i) ? VERDICT_CHANGED : VERDICT_CURRENT;
  text_set(image->reason, sizeof image->reason, "it holds an older state than was recorded of it");
  return VERDICT_OLD;
}

/* Home went on alone in another line than this record's, if it has a later one and does not know of a commit that was completed before. */
static bool home_is_beside(const struct record *home, const struct record *r) {
  return r->sequence <= home->sequence && r->completed > home->completed;
}

/* Home took part in the last completed commit. An older one, or one of another line, counts no more than one that is lost. */
static bool home_counts(const struct mirror *m) {
  const struct record *home = home_record(m);
  return home && in_history(&m->record, last_relied_on(home)) &&
         (home->sequence >= m->record.completed || PLANTED(old_home_confirms));
}

/* Home confirms that nobody absent is ahead of `best`. */
static bool home_confirms(const struct mirror *m) {
  EACH_IMAGE(m, i) {
    bool has_one = m->judged & 1u << i;
    if (has_one && home_is_beside(&m->home.record, &m->images[i].store.record)) return false;
  }
  return m->home_counts;
}

/* Image i, which the record calls online, may have this generation for its last: one that was never relied on it need not have. If it was only
 * being copied to it may then still have what it left with; by its own record it has nothing of its own else. */
static void leaves_with(struct mirror *m, uint32_t i) {
  struct record_image *ri = &m->record.images[i];
  const struct generation *last = last_relied_on(&m->record);
  if (ri->state == IMAGE_SYNCHRONIZING && ri->left_id != 0 && last != &m->record.generation) return;
  ri->left_id = last ? last->id : m->record.generation.id;
}

void image_fell_behind(struct mirror *m, uint32_t i) {
  struct record_image *ri = &m->record.images[i];
  bool took_part = ri->state == IMAGE_SYNCHRONIZED || ri->state == IMAGE_SYNCHRONIZING;
  if (took_part) ri->seen_sequence = max_u64(ri->seen_sequence, m->record.completed);
  if (took_part) leaves_with(m, i);
  if (ri->state == IMAGE_SYNCHRONIZED) {
    ri->left_number = m->record.generation.number;
    ri->moment_ns = m->env->wall_ns;
  }
  image_move(m, i, IMAGE_FELL_BEHIND);
  if (ri->missing == MISSING_NONE) ri->missing = MISSING_FAILED;
}

static uint32_t count_of(const enum verdict *verdicts, enum verdict verdict) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < IMAGES_MAX; i++) count += verdicts[i] == verdict;
  return count;
}

/* Places that we would not list: between two volumes there is nothing to be read. */
void keep_to_volumes(const struct mirror *m, struct unreadable *list) {
  struct unreadable all = *list;
  list->count = 0;
  for (uint32_t r = 0; r < all.count; r++) {
    uint64_t start = all.ranges[r].start, end = start + all.ranges[r].length;
    for (uint32_t v = 0; v < m->geometry.volume_count; v++) {
      uint64_t base = m->geometry.volume_base[v];
      uint64_t from = max_u64(start, base), to = min_u64(end, base + m->geometry.volume_bytes[v]);
      if (from < to && !unreadable_add(list, from, to - from)) return;
    }
  }
}

/* Others are given up: the mirror goes on from the last generation in which image i was current by its own record, not from the newest that is
 * known. What lies between is not in the history, so that those who go on in it elsewhere do not take this line for their future (rule 9). */
static void take_line(struct mirror *m, uint32_t i) {
  const struct record *own = &m->images[i].store.record;
  struct record *r = &m->record;
  struct generation newest = r->generation;
  bool was_current = own->images[i].state == IMAGE_SYNCHRONIZED;
  uint64_t until = was_current ? own->generation.number : own->images[i].left_number;
  r->generation = own->generation;
  memcpy(r->history, own->history, sizeof r->history);
  mirror_new_generation(m);
  uint32_t kept = 0;
  for (uint32_t h = 0; h < HISTORY_MAX; h++) {
    struct generation g = r->history[h];
    if (g.number <= until && !same_generation(&g, &newest)) r->history[kept++] = g;
  }
  memset(&r->history[kept], 0, sizeof r->history[0] * (HISTORY_MAX - kept));
  r->generation.number = max_u64(r->generation.number, newest.number + 1);
}

/* Uses image `i` as it is, and copies it over all others: what the maps say of them no longer holds. */
static void use_as_it_is(struct mirror *m, enum verdict *verdicts, uint32_t i) {
  const struct store *own = &m->images[i].store;
  verdicts[i] = VERDICT_CURRENT;
  m->as_it_is = true;
  image_move(m, i, IMAGE_PROMOTE);
  m->images[i].reason[0] = 0;
  m->record.images[i].missing = MISSING_NONE;
  m->record.images[i].all_missed = false;
  m->record.master = (uint8_t)i;
  m->record.recovery_source = RECORD_NO_SOURCE;
  if (own->record_err == TARN_OK) {
    m->line = i;
    m->record.unreadable = own->record.unreadable; /* what it has, and what it never had */
    keep_to_volumes(m, &m->record.unreadable);
  }
  for (uint32_t k = 0; k < IMAGES_MAX; k++) {
    struct record_image *other = &m->record.images[k];
    if (k == i || !other->present) continue;
    other->all_missed = true;
    if (other->state == IMAGE_SYNCHRONIZED || other->state == IMAGE_SYNCHRONIZING) leaves_with(m, k);
    if (verdicts[k] == VERDICT_CURRENT || verdicts[k] == VERDICT_CHANGED) verdicts[k] = VERDICT_OLD;
  }
}

static uint32_t changed_master(const struct mirror *m, const enum verdict *verdicts) {
  if (verdicts[m->record.master] == VERDICT_CHANGED) return m->record.master;
  uint32_t i = 0;
  while (verdicts[i] != VERDICT_CHANGED) i++;
  return i;
}

/* Images that were changed behind our back. An only copy is used as it is. Where there are others, here or away, one side
 * loses something, so it is for the administrator to say: by force the unchanged ones count. False: refuse. */
static bool settle_changed(struct mirror *m, enum verdict *verdicts) {
  uint32_t changed = count_of(verdicts, VERDICT_CHANGED), sound = count_of(verdicts, VERDICT_CURRENT);
  if (changed == 0) return true;
  for (uint32_t i = 0; i < IMAGES_MAX; i++)
    if (verdicts[i] == VERDICT_CHANGED) admin_explain(m, "image %s: %s", image_name(m, i), m->images[i].reason);
  uint32_t recorded = 0, images = 0;
  for (uint32_t i = 0; i < IMAGES_MAX; i++) {
    images += m->record.images[i].present;
    recorded += m->record.images[i].present && m->record.images[i].state == IMAGE_SYNCHRONIZED;
  }
  /* Where there are others, or the file is another one, bytes that nobody is known to have written may be those of another disk. */
  uint32_t i = changed_master(m, verdicts);
  bool meant = was_edited(m, i) || (images == 1 && !image_is_replaced(m, i));
  m->must_hold = recorded == 1 && !meant;
  if (recorded == 1 && (meant || !m->looked || holds_its_own(m, i))) {
    use_as_it_is(m, verdicts, i);
    m->as_it_is = meant; /* else its witnesses are asked */
    return true;
  }
  admin_explain(m, "%s",
                sound         ? "--force copies the unchanged images over it"
                : images == 1 ? "--force uses it as it is"
                              : "--force copies it over the others, also those that are away");
  if (!m->admin_force) return false;
  if (sound == 0) use_as_it_is(m, verdicts, changed_master(m, verdicts));
  for (uint32_t k = 0; k < IMAGES_MAX; k++)
    if (verdicts[k] == VERDICT_CHANGED) verdicts[k] = VERDICT_OLD;
  return true;
}

/* No image has the newest data. By force the one that fell behind last is used. */
static bool settle_none(struct mirror *m, enum verdict *verdicts) {
  if (count_of(verdicts, VERDICT_CURRENT) != 0) return true;
  uint32_t best = IMAGES_MAX;
  for (uint32_t i = 0; i < IMAGES_MAX; i++) {
    if (verdicts[i] != VERDICT_BEHIND && verdicts[i] != VERDICT_OLD) continue; /* a replaced one: by promote only */
    if (best == IMAGES_MAX || m->record.images[i].left_number > m->record.images[best].left_number) best = i;
  }
  admin_explain(m, "no image that is here has the newest data");
  if (best == IMAGES_MAX) return false;
  bool mixture = m->record.images[best].left_number == 0 || verdicts[best] == VERDICT_OLD;
  const char *what = mixture ? "though it is of no definite moment, a copy that was never finished or something older"
                             : "as it was when it left";
  admin_explain(m,
                m->admin_force ? "image %s is used, %s; what was written since is lost"
                               : "--force would use image %s, %s, and lose what was written since",
                image_name(m, best), what);
  if (!m->admin_force && !PLANTED(stale_activated)) return false;
  use_as_it_is(m, verdicts, best);
  return true;
}

/* The administrator wants image `i` to be the master (B15). One that has not the newest data becomes it by force only, and
 * the others lose what only they have. */
static bool settle_promoted(struct mirror *m, enum verdict *verdicts, uint32_t i) {
  if (verdicts[i] == VERDICT_NONE || verdicts[i] == VERDICT_ABSENT) {
    const char *why = m->images[i].reason;
    admin_explain(m, "image %s cannot be the master: %s", image_name(m, i), why[0] ? why : "it is not recorded");
    return false;
  }
  m->record.demoted = false;
  if (verdicts[i] == VERDICT_CURRENT) {
    /* What was read at the master during a write must not be undone: recovery goes on from the old one. */
    if (!m->record.clean && m->record.recovery_source == RECORD_NO_SOURCE &&
        verdicts[m->record.master] == VERDICT_CURRENT)
      m->record.recovery_source = m->record.master;
    m->record.master = (uint8_t)i;
    return true;
  }
  enum image_state state = image_state_of(m, i);
  const char *what = state == IMAGE_CONSISTENT ? "holds what was there when it was cut off"
                     : verdicts[i] == VERDICT_APART || verdicts[i] == VERDICT_OLD || verdicts[i] == VERDICT_CHANGED
                         ? m->images[i].reason
                     : m->record.images[i].left_number != 0 ? "holds what was there when it left"
                                                            : "is a copy that was never finished";
  admin_explain(m,
                m->admin_force
                    ? "image %s is the master now (it %s); all others are copied over in full"
                    : "image %s has not the newest data (it %s); --force makes it the master all the same, and "
                      "what only the others have is lost",
                image_name(m, i), what);
  if (!m->admin_force) return false;
  use_as_it_is(m, verdicts, i);
  return true;
}

/* Is there a master, or one to be? */
static bool settle_master(struct mirror *m, enum verdict *verdicts) {
  if (m->how.promote) return settle_promoted(m, verdicts, m->how.image);
  if (!m->record.demoted || m->how.quiet) return true;
  admin_explain(m, "it has no master: image %s was demoted; make one by 'tarn image promote'",
                image_name(m, m->record.master));
  return false;
}

/* Does an image that is here and behind come back by itself? */
static bool comes_back(const struct mirror *m, uint32_t i) {
  const struct record_image *ri = &m->record.images[i];
  if (ri->missing == MISSING_FRACTURED) return false;
  return ri->missing == MISSING_NONE || m->config.images[i].policy.return_by_itself;
}

static bool conditions_hold(struct mirror *m, const enum verdict *verdicts, bool unsure) {
  uint32_t missing = 0, current = count_of(verdicts, VERDICT_CURRENT);
  EACH_IMAGE(m, i)
  missing += verdicts[i] == VERDICT_ABSENT || verdicts[i] == VERDICT_REPLACED || verdicts[i] == VERDICT_APART ||
             (verdicts[i] != VERDICT_CURRENT && !comes_back(m, i));
  bool too_many = m->config.max_missing >= 0 && missing > (uint32_t)m->config.max_missing && !m->how.quiet;
  bool too_few = m->config.min_images > 0 && current < (uint32_t)m->config.min_images && !m->how.quiet;
  if (unsure) admin_explain(m, "nothing confirms that no newer data is lost; --force goes on without it");
  if (too_many)
    admin_explain(m, "%u image%s missing, max-missing allows %d", missing, missing == 1 ? " is" : "s are",
                  m->config.max_missing);
  if (too_few) admin_explain(m, "%u images are current, min-images asks for %d", current, m->config.min_images);
  return !unsure && !too_many && !too_few;
}

/* What the verdict on an image means for the record and for this activation. */
static void apply_verdict(struct mirror *m, uint32_t i, enum verdict verdict) {
  struct image *image = &m->images[i];
  image->online = verdict == VERDICT_CURRENT;
  if (verdict == VERDICT_CURRENT) {
    m->load_sources |= 1u << i;
    return;
  }
  /* What only it has is kept until the administrator gives it up. */
  bool kept = verdict == VERDICT_REPLACED || verdict == VERDICT_APART;
  bool knows_no_moment =
      verdict == VERDICT_OLD || verdict == VERDICT_APART || verdict == VERDICT_CHANGED || verdict == VERDICT_REPLACED;
  bool was_current = m->record.images[i].state == IMAGE_SYNCHRONIZED;
  if (knows_no_moment) m->record.images[i].all_missed = true;
  if (knows_no_moment || (verdict == VERDICT_ABSENT && image_state_of(m, i) != IMAGE_CONSISTENT))
    image_fell_behind(m, i);
  /* What was recorded as current and is not is copied at once: nobody was asked when it left. */
  image->online = verdict != VERDICT_ABSENT && !kept && (was_current || comes_back(m, i));
  if (image->online || verdict == VERDICT_ABSENT || verdict == VERDICT_APART) return;
  char what[sizeof image->reason - 48];
  text_set(what, sizeof what, "%s",
           verdict == VERDICT_REPLACED                        ? image->reason
           : m->record.images[i].missing == MISSING_FRACTURED ? "it was fractured"
                                                              : "it failed");
  text_set(image->reason, sizeof image->reason, "%s: 'tarn image restore' brings it back", what);
}

/* While an image is out each life has a generation of its own: another one, by another state directory, goes on in another. So does who was
 * killed as it recorded that an image is whole: that image may be the only one to know. But starts that are cut off, one after the other, do not use up
 * the history before the last one that was relied on: then they go on in the same. */
static bool wants_to_fork(const struct mirror *m) {
  const struct record *r = &m->record;
  bool out = false, settled = last_relied_on(r) == &r->generation;
  uint32_t since = 0;
  EACH_IMAGE(m, i) out |= image_state_of(m, i) != IMAGE_SYNCHRONIZED;
  while (since < m->limits.history && r->history[since].number > settled_number(r)) since++;
  return out && (settled || since + 1 < m->limits.history);
}

/* Without home nobody tells whether this image went on in the generation that was given up, until it was killed. */
static bool may_have_gone_on(const struct mirror *m, uint32_t i, enum verdict verdict) {
  const struct record *own = &m->images[i].store.record;
  if (m->home_counts || (verdict != VERDICT_BEHIND && verdict != VERDICT_OLD)) return false;
  return own->images[i].state == IMAGE_SYNCHRONIZED && !own->clean && !in_history(&m->record, &own->generation);
}

/* Who may have data that is newer than what `record` knows of? */
static bool is_unsure_of(struct mirror *m, uint32_t i, enum verdict verdict) {
  bool was_current = m->record.images[i].state == IMAGE_SYNCHRONIZED;
  if (verdict == VERDICT_APART && (was_current || !m->home_counts)) { /* which line was answered from? */
    admin_explain(m, "image %s was written apart from the others", image_name(m, i));
    return true;
  }
  if (may_have_gone_on(m, i, verdict)) {
    admin_explain(m, "image %s may have gone on without the others", image_name(m, i));
    return true;
  }
  /* One that is out may have been used by force since: home would know. */
  if (verdict != VERDICT_ABSENT || (!was_current && m->home_counts)) return false;
  admin_explain(m, "image %s is absent: %s", image_name(m, i), m->images[i].reason);
  return !home_confirms(m);
}

/* One that is not recorded any more was current by a home store that does not count: it may have gone on by that. */
static bool is_forgotten(struct mirror *m, uint32_t i) {
  const struct record *home = home_record(m);
  if (m->record.images[i].present || m->home_counts || !home || !home->images[i].present) return false;
  if (home->images[i].state != IMAGE_SYNCHRONIZED) return false;
  admin_explain(m, "image %s is not known to the others any more", home->images[i].name);
  return true;
}

/* Sorts the images; false when activation must not go on. */
bool judge_images(struct mirror *m) {
  enum verdict verdicts[IMAGES_MAX] = {VERDICT_NONE};
  uint32_t were_current = 0;
  bool unsure = false;
  m->load_sources = m->judged = 0;
  m->as_it_is = m->must_hold = false;
  m->line = IMAGES_MAX;
  m->home_counts = home_counts(m);
  for (uint32_t i = 0; i < m->config.image_count; i++) {
    m->images[i].present = m->record.images[i].present;
    if (!m->images[i].present) continue;
    if (m->record.images[i].state == IMAGE_SYNCHRONIZED) were_current |= 1u << i;
    verdicts[i] = judge_image(m, i);
    if (verdicts[i] != VERDICT_ABSENT) m->judged |= 1u << i;
  }
  EACH_IMAGE(m, i) unsure |= is_unsure_of(m, i, verdicts[i]);
  for (uint32_t i = 0; i < IMAGES_MAX; i++) unsure |= is_forgotten(m, i);
  if (unsure && m->home.record_err == TARN_OK && !m->home_counts)
    admin_explain(m, "the state directory here is older than what the images hold, or they were used with another one");
  if (!settle_changed(m, verdicts) || !settle_master(m, verdicts) || !settle_none(m, verdicts)) return false;
  if (!conditions_hold(m, verdicts, unsure) && !m->admin_force) return false;
  bool forks = wants_to_fork(m);
  uint32_t current = 0;
  EACH_IMAGE(m, i) {
    apply_verdict(m, i, verdicts[i]);
    if (verdicts[i] == VERDICT_CURRENT) current |= 1u << i;
  }
  bool gives_up = m->line < IMAGES_MAX && were_current & ~(1u << m->line);
  if (gives_up) take_line(m, m->line);
  else if (current != were_current || forks) mirror_new_generation(m);
  return true;
}
