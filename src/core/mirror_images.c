/* mirror_images.c - operations on images, by command, while the mirror runs: remove, sync, fracture, restore, promote, demote,
 * assume, add.
 *
 * Each first tries to record, since nothing is answered while a change cannot be recorded. One that takes a sound image out
 * (remove, fracture), or moves the master, then keeps new requests in line, waits for those in flight, and flushes: so the image
 * holds exactly what was answered, and nothing has to be recorded as missed. Requests go on when the record that says it is out
 * is durable, or when that could not be done and the image is in again.
 *
 * Crash argument: an image counts by the records only. Out: the record is durable before anything is answered that the image
 * has not got (drop_seq). */
#include <string.h>

#include "base/text.h"
#include "core/mirror_int.h"

static void image_recorded(struct mirror *m, tarn_err err);

/* ---- operations ---- */

static const enum image_event op_events[IMAGE_OP_COUNT] = {
    [IMAGE_OP_REMOVE] = IMAGE_REMOVE,        [IMAGE_OP_SYNC] = IMAGE_SYNC,       [IMAGE_OP_FRACTURE] = IMAGE_FRACTURE,
    [IMAGE_OP_RESTORE] = IMAGE_COPY_STARTED, [IMAGE_OP_PROMOTE] = IMAGE_PROMOTE, [IMAGE_OP_DEMOTE] = IMAGE_PROMOTE,
    [IMAGE_OP_ASSUME] = IMAGE_ASSUME};

/* What was read of a write that failed, or was under way at a crash, was read at the master, or from the source of the recovery. Nobody
 * takes its place, and it does not leave by a command, before that is what all hold. */
static bool undoes_reads(const struct mirror *m, uint32_t i, enum mirror_image_op op) {
  bool is_source = m->recovering && m->record.recovery_source == i && image_is_current(m, i);
  if (PLANTED(source_leaves)) return false;
  if (op == IMAGE_OP_PROMOTE) return m->recover.set_count != 0 && !is_source && image_is_current(m, i);
  return is_source && (op == IMAGE_OP_REMOVE || op == IMAGE_OP_FRACTURE || op == IMAGE_OP_SYNC);
}

static bool in_recovery(const struct mirror *m, uint32_t i) {
  return m->recovering && image_is_current(m, i) && i != m->record.recovery_source;
}

/* Refuses what the state of mirror or image does not allow; false when refused. */
static bool op_allowed(struct mirror *m, uint32_t i, enum mirror_image_op op) {
  const char *name = i < m->config.image_count && m->images[i].present ? image_name(m, i) : "?";
  bool master = m->record.master == i;
  if (!m->running) admin_explain(m, "the mirror does not run");
  else if (i >= m->config.image_count || !m->images[i].present) admin_explain(m, "there is no such image");
  else if (m->images[i].coming != COMING_NOT)
    admin_explain(m, "image %s is just coming back: try again in a moment", name);
  else if ((op == IMAGE_OP_DEMOTE || op == IMAGE_OP_ASSUME) && !m->quiet)
    admin_explain(m, "this needs an INACTIVE mirror: deactivate it first");
  else if (op == IMAGE_OP_DEMOTE && m->record.demoted) admin_explain(m, "the mirror has no master already");
  else if (op == IMAGE_OP_DEMOTE && !master) admin_explain(m, "image %s is not the master", name);
  else if (op == IMAGE_OP_PROMOTE && master && !m->record.demoted)
    admin_explain(m, "image %s is the master already", name);
  else if (op == IMAGE_OP_PROMOTE && (!image_is_current(m, i) || in_recovery(m, i)))
    admin_explain(m, "image %s is %s: only a SYNCHRONIZED image becomes master while the mirror runs", name,
                  image_state_name(in_recovery(m, i) ? IMAGE_SYNCHRONIZING : image_state_of(m, i)));
  else if (master && (op == IMAGE_OP_REMOVE || op == IMAGE_OP_FRACTURE || op == IMAGE_OP_SYNC))
    admin_explain(m, "image %s is the master: promote another image first", name);
  else if (undoes_reads(m, i, op))
    admin_explain(m, "image %s: the mirror is recovering%s; try again when that is done", name,
                  op == IMAGE_OP_PROMOTE ? "" : " from it");
  else if (op == IMAGE_OP_FRACTURE && m->serving && m->images[i].online && m->config.max_missing >= 0 &&
           mirror_missing_count(m) >= (uint32_t)m->config.max_missing)
    admin_explain(m,
                  "max-missing allows no more than %d missing image%s: with image %s fractured the mirror would stop",
                  m->config.max_missing, m->config.max_missing == 1 ? "" : "s", name);
  else if (op == IMAGE_OP_ASSUME && m->recovering)
    admin_explain(m, "the mirror is recovering: try again when that is done");
  else {
    const char *refusal = image_refusal(in_recovery(m, i) ? IMAGE_SYNCHRONIZING : image_state_of(m, i), op_events[op]);
    if (refusal) admin_explain(m, "image %s %s", name, refusal);
  }
  return !m->admin_why[0];
}

static void op_commit(struct mirror *m) {
  m->admin_step = STEP_COMMIT;
  m->record_dirty = true;
  commit_admin(m, image_recorded);
}

static void resume(struct mirror *m) {
  m->paused = false;
  op_line_run(m);
}

static bool any_guard_dead(const struct mirror *m, const struct image *image) {
  bool dead = image->meta.dead;
  for (uint32_t v = 0; v < m->geometry.volume_count; v++) dead |= image->data[v].dead;
  return dead;
}

/* The change could not be recorded. What was done while requests waited is taken back: nothing was answered meanwhile that
 * the image has not got. What could not wait stands, and is recorded when that can be done again. */
static void undo(struct mirror *m, uint32_t i) {
  struct image *image = &m->images[i];
  struct record_image *ri = &m->record.images[i];
  uint64_t seen = ri->seen_sequence;
  switch (m->admin_op) {
    case IMAGE_OP_REMOVE:
      image->present = true;
      image->online = m->paused && m->admin_online;
      *ri = image->online ? m->admin_undo : m->admin_left;
      if (image->online) {
        image->left_seq = 0;
        break;
      }
      ri->all_missed = true; /* nobody noted what it missed since: marks stay until that is durable */
      LIST_EACH(&m->intent.used, node) { LIST_ENTRY(node, struct mark, link)->map_seq = m->commit.started + 1; }
      if (ri->missing == MISSING_NONE) { /* it was in */
        ri->missing = MISSING_FAILED;
        image_returns_later(m, i);
        mirror_check_missing(m);
      }
      break;
    case IMAGE_OP_FRACTURE:
      if (ri->state != IMAGE_CONSISTENT) break;
      *ri = m->admin_undo;
      image->online = true;
      image->reason[0] = 0;
      break;
    case IMAGE_OP_PROMOTE:
    case IMAGE_OP_DEMOTE:
      /* If the images have it, a crash finds it so: it stands, or what is read meanwhile would be undone then. */
      if (m->commit.done == m->commit.started) break;
      m->master_seq = commit_want(m);
      if (image_is_current(m, m->admin_master)) m->record.master = m->admin_master;
      m->record.demoted = m->admin_demoted;
      break;
    case IMAGE_OP_ASSUME: /* of one that was just added, too */
      /* The others failed in this very round, and one must stay. */
      if (mirror_current_mask(m) == 1u << i) break;
      *ri = m->admin_undo;
      ri->seen_sequence = max_u64(seen, ri->seen_sequence); /* it took part, and its record may say so */
      image->present = ri->present;
      image->online = m->admin_online;
      ri->all_missed = ri->present;
      break;
    case IMAGE_OP_SYNC:
    case IMAGE_OP_RESTORE:
    case IMAGE_OP_COUNT: break;
  }
  m->record_dirty = true;
  if (image->online && any_guard_dead(m, image)) image_drop(m, i, MISSING_FAILED, "its disk does not answer", NULL);
  if (m->admin_failed & 1u << i) image_drop(m, i, MISSING_FAILED, "its metadata cannot be written", NULL);
  image_told_again(m, i);
}

static void image_recorded(struct mirror *m, tarn_err err) {
  uint32_t i = m->admin_image;
  if (err != TARN_OK) {
    if (m->running) undo(m, i);
    admin_explain(m, "the change to image %s could not be recorded; see 'tarn status'", image_name(m, i));
  } else if (m->admin_op == IMAGE_OP_ASSUME) {
    missed_dirty_all(&m->images[i].map);
    commit_want(m);
  } else if (m->admin_op == IMAGE_OP_SYNC && m->record.images[i].all_missed && m->images[i].online) {
    m->record.images[i].all_missed = false; /* the map that says so is durable */
    m->record_dirty = true;
    commit_want(m);
  }
  resume(m);
  mirror_changed(m);
  admin_end(m, err);
}

static void fracture_now(struct mirror *m, uint32_t i) {
  image_leave(m, i, IMAGE_FRACTURE, MISSING_FRACTURED);
  text_set(m->images[i].reason, sizeof m->images[i].reason, "it was fractured: 'tarn image restore' brings it back");
  m->drop_seq = commit_want(m);
  report(m->env, REPORT_INFO, m->config.name, "image %s is fractured", image_name(m, i));
  op_commit(m);
  mirror_check_missing(m);
}

/* It may not be equal to the others now: it is of no definite moment, and misses all that is marked. */
static void fracture_unequal(struct mirror *m, uint32_t i) {
  stamp_outdates(m, i); /* writes are still in flight */
  image_drop(m, i, MISSING_FRACTURED, "it was fractured before it was whole: 'tarn image restore' brings it back",
             NULL);
  op_commit(m);
}

static void remove_now(struct mirror *m, uint32_t i) {
  bool recovers = mirror_recovers(m);
  if (recovers) m->admin_online = false; /* it has not got what is recovered meanwhile */
  if (m->images[i].online) {
    bool was_current = image_is_current(m, i);
    image_leave(m, i, IMAGE_FAILED, MISSING_NONE);
    m->drop_seq = commit_want(m);
    if (was_current) m->images[i].left_seq = m->drop_seq;
  }
  m->admin_left = m->record.images[i];
  m->record.images[i] = (struct record_image){0};
  m->images[i].present = false;
  report(m->env, REPORT_INFO, m->config.name, "image %s is removed", image_name(m, i));
  op_commit(m);
}

static void promote_now(struct mirror *m, uint32_t i) {
  m->record.demoted = m->admin_op == IMAGE_OP_DEMOTE;
  m->record.master = (uint8_t)i;
  op_commit(m);
}

static void op_in_vain(struct mirror *m) {
  if (m->admin_op == IMAGE_OP_FRACTURE) { /* it is written to as before */
    m->record.images[m->admin_image].stamp = m->admin_undo.stamp;
    stamp_outdates(m, m->admin_image);
  }
  if (!m->admin_why[0]) admin_explain(m, "image %s failed meanwhile", image_name(m, m->admin_image));
  resume(m);
  admin_end(m, TARN_REFUSED);
}

/* ... and what its files are like is known, so that a write to it from now on is noticed. */
static void op_stamped(struct mirror *m) {
  uint32_t i = m->admin_image;
  /* Asked again: what is true now need not be what was when the operation began. */
  if (m->running && image_is_current(m, i) && op_allowed(m, i, m->admin_op)) {
    bool whole = m->admin_whole && m->record.unreadable.count == 0;
    if (m->admin_op == IMAGE_OP_FRACTURE && !whole) fracture_unequal(m, i);
    else if (m->admin_op == IMAGE_OP_FRACTURE) fracture_now(m, i);
    else if (m->admin_op == IMAGE_OP_REMOVE) remove_now(m, i);
    else promote_now(m, i);
    return;
  }
  op_in_vain(m);
}

/* Everything that was answered is on stable storage there, and nothing is in flight. */
static void op_flushed(struct mirror *m, tarn_err err) {
  uint32_t i = m->admin_image;
  if (err != TARN_OK || !image_is_current(m, i)) op_in_vain(m);
  else stamps_take(m, m->admin_op == IMAGE_OP_FRACTURE ? 1u << i : 0, op_stamped);
}

void images_check_idle(struct mirror *m) {
  if (m->admin != ADMIN_IMAGE || m->admin_step != STEP_DRAIN || m->ops_busy != 0 || !copy_is_aside(m)) return;
  m->admin_step = STEP_FLUSH;
  m->admin_whole = !mirror_recovers(m); /* of what is copied later the flush proves nothing */
  if (m->running) {
    flush_all(m, &m->admin_flush, op_flushed);
    return;
  }
  admin_explain(m, "the mirror stopped meanwhile");
  admin_end(m, TARN_REFUSED);
}

static void drain(struct mirror *m) {
  m->admin_step = STEP_DRAIN;
  m->paused = true;
  read_pause(m);
  images_check_idle(m);
}

static void op_return(struct mirror *m, uint32_t i, bool full) {
  uint32_t held = image_held_count(m, i);
  if (!m->reopen) admin_explain(m, "disks cannot be opened here");
  else if (held)
    admin_explain(m, "the disk of image %s still holds %u requests of before; try again when it has answered",
                  image_name(m, i), held);
  else if (!mirror_image_is_quiet(m, i))
    admin_explain(m, "image %s is still in use: try again in a moment", image_name(m, i));
  if (m->admin_why[0]) {
    admin_end(m, TARN_REFUSED);
    return;
  }
  m->admin_step = STEP_RETURN;
  image_return(m, i, true, full);
}

/* A full copy of an image that is on line: all of it counts as missed from now on. */
static void op_sync(struct mirror *m, uint32_t i) {
  struct record_image *ri = &m->record.images[i];
  bool was_current = image_is_current(m, i);
  if (was_current) {
    if (m->record.recovery_source == i) m->record.recovery_source = m->record.master;
    mirror_new_generation(m);
  }
  image_move(m, i, IMAGE_SYNC);
  ri->all_missed = true;
  missed_forget_copied(&m->images[i].map);
  image_start_syncing(m, i);
  m->drop_seq = commit_want(m);
  if (was_current) m->images[i].left_seq = m->drop_seq;
  report(m->env, REPORT_INFO, m->config.name, "image %s is copied in full", image_name(m, i));
  op_commit(m);
  copy_pump(m);
}

static void assume(struct mirror *m, uint32_t i) {
  struct missed *map = &m->images[i].map;
  missed_copied(map, 0, m->geometry.extent_count);
  missed_checkpoint(map);
  missed_hold_back(map); /* the empty map goes when the record says so */
  image_move(m, i, IMAGE_ASSUME);
  m->record.images[i].missing = MISSING_NONE;
  m->record.images[i].all_missed = false;
  m->images[i].reason[0] = 0;
  op_commit(m);
}

/* It has the log and the maps: it may count. */
static void assume_online(struct mirror *m, tarn_err err) {
  if (err == TARN_OK && m->images[m->admin_image].online) assume(m, m->admin_image);
  else image_recorded(m, err == TARN_OK ? TARN_IO : err);
}

static void op_assume(struct mirror *m, uint32_t i) {
  const struct store *store = &m->images[i].store;
  bool ours = store->record_err == TARN_OK &&
              memcmp(store->record.mirror_uuid, m->record.mirror_uuid, sizeof m->record.mirror_uuid) == 0;
  if (!image_is_complete(m, &m->config.images[i])) admin_explain(m, "a disk of image %s is absent", image_name(m, i));
  else if (!ours) admin_explain(m, "the metadata of image %s is not sound, or not of this mirror", image_name(m, i));
  else if (any_guard_dead(m, &m->images[i]) || !image_holds_nothing(m, i))
    admin_explain(m, "a disk of image %s does not answer, and may still do what it was asked", image_name(m, i));
  else if (m->images[i].told != TOLD_NOTHING) admin_explain(m, "image %s: %s", image_name(m, i), m->images[i].told_why);
  if (m->admin_why[0]) {
    admin_end(m, TARN_REFUSED);
    return;
  }
  m->images[i].online = true;
  bitmap_set_range(&m->intent.dirty, 0, m->geometry.log_blocks);
  EACH_IMAGE(m, k) missed_dirty_all(&m->images[k].map);
  m->record_dirty = true;
  m->admin_step = STEP_COMMIT;
  commit_admin(m, assume_online);
}

static void op_start(struct mirror *m) {
  uint32_t i = m->admin_image;
  enum mirror_image_op op = m->admin_op;
  m->admin_undo = m->record.images[i];
  m->admin_online = m->images[i].online;
  m->admin_master = m->record.master;
  m->admin_demoted = m->record.demoted;
  m->admin_failed = 0;
  bool sound = image_is_current(m, i) && !in_recovery(m, i);
  switch (op) {
    case IMAGE_OP_REMOVE:
      if (sound && !m->admin_force) drain(m);
      else remove_now(m, i);
      return;
    case IMAGE_OP_FRACTURE:
      if (sound) {
        drain(m);
        return;
      }
      fracture_unequal(m, i);
      return;
    case IMAGE_OP_SYNC:
      if (m->images[i].online) op_sync(m, i);
      else op_return(m, i, true);
      return;
    case IMAGE_OP_RESTORE: op_return(m, i, false); return;
    case IMAGE_OP_PROMOTE:
    case IMAGE_OP_DEMOTE:
      /* Reads at the master take no lock. One that sees a write there before the write is answered would be followed by one at
       * the new master that does not: so none is in flight when the master changes. */
      drain(m);
      return;
    case IMAGE_OP_ASSUME: op_assume(m, i); return;
    case IMAGE_OP_COUNT: break;
  }
}

/* A record can be written: asked before anything is changed, since nothing is answered while a change cannot be recorded. */
static void op_tried(struct mirror *m, tarn_err err) {
  if (err != TARN_OK) admin_explain(m, "nothing can be recorded now, so nothing was changed; see 'tarn status'");
  if (err == TARN_OK && op_allowed(m, m->admin_image, m->admin_op)) op_start(m);
  else admin_end(m, err == TARN_OK ? TARN_REFUSED : err);
}

void mirror_image_do(struct mirror *m, uint32_t i, enum mirror_image_op op, bool force, mirror_done *done,
                     void *context) {
  require(op < IMAGE_OP_COUNT);
  if (!admin_begin(m, ADMIN_IMAGE, done, context)) return;
  m->admin_image = i;
  m->admin_op = op;
  m->admin_force = force;
  m->admin_step = STEP_TRY;
  if (!op_allowed(m, i, op)) {
    admin_end(m, TARN_REFUSED);
    return;
  }
  m->record_dirty = true;
  commit_admin(m, op_tried);
}

/* ---- add ---- */

bool image_is_being_added(const struct mirror *m, uint32_t i) {
  return m->admin == ADMIN_IMAGE && m->admin_step == STEP_COMMIT && m->admin_image == i &&
         m->images[i].coming == COMING_COMMIT;
}

static void add_failed(struct mirror *m, uint32_t i, const char *why) {
  admin_explain(m, "image %s cannot be added: %s", image_name(m, i), why);
  m->images[i].coming = COMING_NOT;
  close_look(m);
  admin_end(m, TARN_REFUSED);
}

static void add_recorded(struct mirror *m, tarn_err err) {
  uint32_t i = m->admin_image;
  struct image *image = &m->images[i];
  image->coming = COMING_NOT;
  image->since_tick =
      intent_next_tick(&m->intent); /* what fails on the image that had this slot before is none of its */
  if (err == TARN_OK && !image->online) {
    admin_explain(m, "image %s cannot be added: %s", image_name(m, i), image->reason);
    err = TARN_REFUSED;
  } else if (err != TARN_OK) {
    admin_explain(m, "the change could not be recorded, so nothing was changed");
  } else if (m->config.images[i].assumed) {
    assume(m, i);
    return;
  }
  m->record_dirty = true;
  commit_want(m);
  if (err == TARN_OK) {
    m->record.images[i].all_missed = false;
    report(m->env, REPORT_INFO, m->config.name, "image %s is added", image_name(m, i));
  } else {
    image->online = image->present = false;
    m->record.images[i] = (struct record_image){0};
    if (mirror_image_is_quiet(m, i)) image_detach(m, i);
  }
  mirror_changed(m);
  copy_pump(m);
  admin_end(m, err);
}

static void add_loaded(struct store *store, tarn_err err) {
  struct mirror *m = store->owner;
  uint32_t i = store->slot;
  struct image *image = &m->images[i];
  const struct mirror_image_config *config = &m->config.images[i];
  image->coming = COMING_NOT;
  bool told = image->told != TOLD_NOTHING;
  if (!m->running || err != TARN_OK || told || store->record_err != TARN_NOT_FOUND) {
    add_failed(m, i,
               !m->running      ? "the mirror stopped meanwhile"
               : err != TARN_OK ? "its metadata cannot be read"
               : told           ? image->told_why
                                : "its metadata is in use already");
    return;
  }
  struct record_image *ri = &m->record.images[i];
  *ri = (struct record_image){.present = true, .state = IMAGE_UNSYNCHRONIZED, .all_missed = true};
  memcpy(ri->name, config->name, sizeof ri->name);
  memcpy(ri->node, config->node, sizeof ri->node);
  random_uuid(m, ri->uuid);
  ri->stamp = config->found;
  stamp_outdates(m, i);
  m->admin_undo = (struct record_image){0};
  m->admin_online = false;
  image->present = image->online = true;
  image->relapses = 0;
  image->joined_ns = 0;
  image->reads = image->writes = image->read_errors = image->write_errors = image->repaired_blocks = 0;
  image->reason[0] = 0;
  image->coming = COMING_COMMIT; /* nothing is written to it before it is recorded */
  image->come_seq = UINT64_MAX;
  if (config->assumed) image_new_epoch(m, i);
  else image_start_syncing(m, i);
  bitmap_set_range(&m->intent.dirty, 0, m->geometry.log_blocks);
  EACH_IMAGE(m, k) missed_dirty_all(&m->images[k].map);
  m->record_dirty = true;
  m->admin_step = STEP_COMMIT;
  commit_admin(m, add_recorded);
}

void mirror_image_add(struct mirror *m, uint32_t i, const struct mirror_image_config *config, mirror_done *done,
                      void *context) {
  require(i < IMAGES_MAX);
  require(image_is_complete(m, config));
  if (!admin_begin(m, ADMIN_IMAGE, done, context)) return;
  const char *misfit = image_misfit(m, config);
  if (!m->running) admin_explain(m, "the mirror does not run");
  else if (m->images[i].present) admin_explain(m, "slot %u is in use by image %s", i, image_name(m, i));
  else if (!mirror_image_is_quiet(m, i)) admin_explain(m, "a removed image's disk still holds requests in this slot");
  else if (config->assumed && !m->quiet)
    admin_explain(m, "only an INACTIVE mirror takes an image as equal: deactivate it first");
  else if (config->assumed && m->recovering) admin_explain(m, "the mirror is recovering: try again when that is done");
  else if (misfit) admin_explain(m, "image %s cannot be added: %s", config->name, misfit);
  if (m->admin_why[0]) {
    admin_end(m, TARN_REFUSED);
    return;
  }
  image_detach(m, i);
  m->config.images[i] = *config;
  if (i >= m->config.image_count) m->config.image_count = i + 1;
  m->admin_image = i;
  m->admin_op = IMAGE_OP_ASSUME;
  m->admin_step = STEP_NONE;
  image_attach(m, i);
  m->images[i].coming = COMING_LOAD;
  store_load_record(&m->images[i].store, add_loaded);
}
