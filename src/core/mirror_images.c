/* mirror_images.c - images that come, go and come back, by themselves and by command, while the mirror runs.
 *
 * Coming back:  out --return-after is over, or asked--> reopen (the owner) --> load its record --> judge --> a read that works
 *               --> online, SYNCHRONIZING --> the commit that says so, with the whole log and all maps --> copied to
 * What it missed is known: this mirror has recorded it since the image left, if the image is still what it was then. An image
 * that cannot prove that is copied in full, and only when the administrator asked for it.
 *
 * An operation that takes a sound image out (remove, fracture) first keeps new requests in line, waits for those in flight,
 * and flushes: then the image holds exactly what was answered so far, and nothing has to be recorded as missed. Requests go on
 * when the record that says it is out is durable, or when that could not be done and the image is in again.
 *
 * Crash argument: an image counts by the records only. Out: the record is durable before anything is answered that the image
 * has not got (drop_seq). In: it becomes a source by image_join() alone, long after the commit that gave it the log. */
#include <stdio.h>
#include <string.h>

#include "core/mirror_int.h"

#define RELAPSES_MAX 6u /* return-after is doubled so often at most */
#define PROBE_BYTES  4096u

static void come_judge(struct mirror *m, uint32_t i);
static void come_probe(struct mirror *m, uint32_t i);
static void image_recorded(struct mirror *m, tarn_err err);

/* ---- quiet, idle ---- */

static bool guards_are_quiet(const struct mirror *m, const struct image *image) {
  for (uint32_t v = 0; v < m->geometry.volume_count; v++)
    if (!guard_is_quiet(&image->data[v])) return false;
  return guard_is_quiet(&image->meta);
}

bool mirror_image_is_quiet(const struct mirror *m, uint32_t i) {
  const struct image *image = &m->images[i];
  return !image->online && image->coming == COMING_NOT && image->in_flight == 0 && !image->store.busy &&
         guards_are_quiet(m, image);
}

bool mirror_is_quiet(const struct mirror *m) {
  for (uint32_t i = 0; i < IMAGES_MAX; i++)
    if (!guards_are_quiet(m, &m->images[i])) return false;
  return guard_is_quiet(&m->home_guard);
}

bool images_are_idle(const struct mirror *m) {
  for (uint32_t i = 0; i < IMAGES_MAX; i++)
    if (m->images[i].coming != COMING_NOT) return false;
  return true;
}

static uint32_t held_count(const struct mirror *m, uint32_t i) {
  uint32_t count = m->images[i].meta.held;
  for (uint32_t v = 0; v < m->geometry.volume_count; v++) count += m->images[i].data[v].held;
  return count;
}

/* ---- coming back ---- */

void image_returns_later(struct mirror *m, uint32_t i) {
  struct image *image = &m->images[i];
  uint64_t after_ns = m->config.images[i].policy.return_after_ns;
  if (image->joined_ns != 0 && m->env->now_ns - image->joined_ns > 10 * after_ns) image->relapses = 0;
  image->return_at_ns = m->env->now_ns + (after_ns << image->relapses);
  if (image->relapses < RELAPSES_MAX) image->relapses++;
}

static bool admin_waits_for(const struct mirror *m, uint32_t i) {
  return m->admin == ADMIN_IMAGE && m->admin_step == STEP_RETURN && m->admin_image == i;
}

/* It stays out. Its disks stay attached until the next try, which opens them anew. */
static void come_failed(struct mirror *m, uint32_t i, const char *why) {
  struct image *image = &m->images[i];
  image->coming = COMING_NOT;
  if (why != image->reason) snprintf(image->reason, sizeof image->reason, "%s", why);
  image_returns_later(m, i);
  if (admin_waits_for(m, i)) {
    admin_explain(m, "image %s cannot be brought back: %s", image_name(m, i), why);
    admin_end(m, TARN_REFUSED);
  }
  mirror_changed(m);
  admin_check_idle(m);
}

static void detach(struct mirror *m, uint32_t i) {
  struct image *image = &m->images[i];
  for (uint32_t v = 0; v < m->geometry.volume_count; v++) {
    guard_let_go(&image->data[v]);
    m->config.images[i].data[v] = NULL;
  }
  guard_let_go(&image->meta);
  m->config.images[i].meta = NULL;
  store_attach(&image->store, NULL);
}

static void start_return(struct mirror *m, uint32_t i, bool asked, bool full) {
  struct image *image = &m->images[i];
  require(mirror_image_is_quiet(m, i));
  detach(m, i);
  image->coming = COMING_REOPEN;
  image->coming_asked = asked;
  image->coming_full = full;
  m->reopen(m, i, asked);
  mirror_changed(m);
}

void images_tick(struct mirror *m) {
  EACH_IMAGE(m, i) {
    const struct image *image = &m->images[i];
    bool wanted = m->reopen && m->config.images[i].policy.return_by_itself &&
                  m->record.images[i].missing == MISSING_FAILED && image->return_at_ns != 0 &&
                  m->env->now_ns >= image->return_at_ns;
    if (wanted && mirror_image_is_quiet(m, i)) start_return(m, i, false, false);
  }
}

/* Can these disks take what the clients were told that the volumes can? NULL, or why not. */
static const char *disks_misfit(const struct mirror *m, const struct mirror_image_config *config) {
  for (uint32_t v = 0; v < m->geometry.volume_count; v++) {
    const struct disk_caps *disk = &config->data[v]->caps, *volume = &m->volumes[v].disk.caps;
    uint32_t room = m->block > 1 ? m->block : 0;
    if (disk->size_bytes < m->geometry.volume_bytes[v]) return "it is smaller than its volume";
    if (disk->align_bytes > m->align || disk->block_bytes > m->block ||
        disk->io_bytes_max < volume->io_bytes_max + room)
      return "its blocks are larger than the mirror was opened for: deactivate and activate the mirror with it";
    if (!volume->can_zero) continue;
    if (!disk->can_zero || disk->zero_block_bytes > volume->zero_block_bytes ||
        disk->zero_bytes_max < volume->zero_bytes_max)
      return "it cannot write zeroes as the mirror was opened for: deactivate and activate the mirror with it";
  }
  return NULL;
}

static bool has_disks(const struct mirror *m, const struct mirror_image_config *config) {
  for (uint32_t v = 0; v < m->geometry.volume_count; v++)
    if (!config->data[v]) return false;
  return config->meta != NULL;
}

static void come_loaded(struct store *store, tarn_err err) {
  struct mirror *m = store->owner;
  uint32_t i = store->slot;
  require(m->images[i].coming == COMING_LOAD);
  if (!m->running) come_failed(m, i, "the mirror stopped meanwhile");
  else if (err != TARN_OK) come_failed(m, i, "its metadata cannot be read");
  else come_judge(m, i);
}

void mirror_image_reopened(struct mirror *m, uint32_t i, const struct mirror_image_config *config) {
  struct image *image = &m->images[i];
  struct mirror_image_config *mine = &m->config.images[i];
  require(image->coming == COMING_REOPEN);
  memcpy(mine->data, config->data, sizeof mine->data);
  mine->meta = config->meta;
  mine->error = config->error;
  mine->found = config->found;
  const char *wrong = !has_disks(m, config) ? (config->error ? config->error : "a disk is absent")
                      : !m->running         ? "the mirror stopped meanwhile"
                                            : disks_misfit(m, config);
  image_attach(m, i);
  if (wrong) {
    come_failed(m, i, wrong);
    return;
  }
  image->coming = COMING_LOAD;
  store_load_record(&image->store, come_loaded);
}

/* Is it what it was when it left? NULL: yes, or it is copied in full; else why it has to stay out. */
static const char *come_verdict(struct mirror *m, uint32_t i) {
  struct image *image = &m->images[i];
  const struct store *store = &image->store;
  bool replaced = image_is_replaced(m, i);
  bool unreadable = store->record_err == TARN_NOT_FOUND || store->record_err == TARN_CORRUPT;
  if (store->record_err == TARN_VERSION) return "its metadata is of a newer version";
  if (unreadable || replaced) {
    image->coming_full = true;
    if (image->coming_asked) return NULL;
    return replaced ? "its file is another one than it was: 'tarn image restore' copies it in full"
                    : "its metadata is damaged or empty: 'tarn image restore' copies it in full";
  }
  if (store->record_err != TARN_OK) return "its metadata cannot be read";
  if (memcmp(store->record.mirror_uuid, m->record.mirror_uuid, sizeof m->record.mirror_uuid) != 0)
    return "its metadata is of another mirror";
  if (judge_apart(m, &store->record) && !image->coming_full)
    return "it was written apart from the others: 'tarn image sync' gives up what only it has";
  if (!judge_knows(m, &store->record.generation)) image->coming_full = true;
  if (judge_other(m, i, &store->record)) image->coming_full = true;
  return NULL;
}

static void come_judge(struct mirror *m, uint32_t i) {
  const char *why = come_verdict(m, i);
  if (why) {
    come_failed(m, i, why);
    return;
  }
  m->images[i].coming = COMING_PROBE;
  m->images[i].probe = 0;
  come_probe(m, i);
}

/* Everything that its metadata needs goes with the next commit. Nothing is written to it before that is durable: until then
 * its record may say that it is CONSISTENT at its moment. What it missed is copied from then on. */
static void come_online(struct mirror *m, uint32_t i) {
  struct image *image = &m->images[i];
  struct record_image *ri = &m->record.images[i];
  image->coming = COMING_COMMIT;
  image->online = true;
  if (image->coming_full) ri->all_missed = true;
  image_start_syncing(m, i);
  ri->stamp = m->config.images[i].found;
  bitmap_set_range(&m->intent.dirty, 0, m->geometry.log_blocks);
  EACH_IMAGE(m, k) missed_dirty_all(&m->images[k].map);
  m->record_dirty = true;
  image->come_seq = commit_want(m);
  report(m->env, REPORT_INFO, m->config.name, "image %s is back: %s is copied to it", image_name(m, i),
         ri->all_missed ? "everything" : "what it missed");
  mirror_changed(m);
}

static void come_probed(struct disk_io *io) {
  struct image *image = CONTAINER_OF(io, struct image, probe_io);
  struct mirror *m = image->m;
  uint32_t i = (uint32_t)(image - m->images);
  leg_ended(m, i, io);
  if (io->err != TARN_OK) come_failed(m, i, "it cannot be read");
  else if (!m->running) come_failed(m, i, "the mirror stopped meanwhile");
  else {
    image->probe++;
    come_probe(m, i);
  }
}

static void come_probe(struct mirror *m, uint32_t i) {
  struct image *image = &m->images[i];
  if (image->probe == m->geometry.volume_count) {
    come_online(m, i);
    return;
  }
  uint64_t bytes = min_u64(PROBE_BYTES, image->data[image->probe].disk.caps.size_bytes);
  struct buffer *buffer = &image->store.load_buffer;
  leg_submit(m, i, &image->probe_io, DISK_READ, 0, m->geometry.volume_base[image->probe],
             align_down(bytes, image->data[image->probe].disk.caps.block_bytes), buffer, buffer->base, come_probed);
}

/* A round has ended. */
void images_committed(struct mirror *m, tarn_err err) {
  EACH_IMAGE(m, i) {
    struct image *image = &m->images[i];
    if (image->coming != COMING_COMMIT) continue;
    if (!image->online) {
      come_failed(m, i, image->reason);
      continue;
    }
    if (err != TARN_OK && admin_waits_for(m, i)) { /* it goes on trying */
      admin_explain(m, "that image %s is back could not be recorded yet", image_name(m, i));
      admin_end(m, err);
    }
    if (m->commit.done < image->come_seq && m->running) continue;
    image->coming = COMING_NOT;
    image->since_tick = intent_next_tick(&m->intent);
    copy_pump(m);
    if (m->record.images[i].all_missed &&
        m->commit.done >= image->come_seq) { /* the map that says "all" is durable: the copy's progress counts */
      m->record.images[i].all_missed = false;
      m->record_dirty = true;
      commit_want(m);
    }
    if (admin_waits_for(m, i)) admin_end(m, TARN_OK);
    admin_check_idle(m);
  }
}

/* ---- operations ---- */

static const enum image_event op_events[IMAGE_OP_COUNT] = {
    [IMAGE_OP_REMOVE] = IMAGE_REMOVE,        [IMAGE_OP_SYNC] = IMAGE_SYNC,       [IMAGE_OP_FRACTURE] = IMAGE_FRACTURE,
    [IMAGE_OP_RESTORE] = IMAGE_COPY_STARTED, [IMAGE_OP_PROMOTE] = IMAGE_PROMOTE, [IMAGE_OP_DEMOTE] = IMAGE_PROMOTE,
    [IMAGE_OP_ASSUME] = IMAGE_ASSUME};

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
  switch (m->admin_op) {
    case IMAGE_OP_REMOVE:
      *ri = m->admin_undo;
      image->present = true;
      image->online = m->paused && m->admin_online;
      if (!image->online) { /* nobody noted what it missed since */
        ri->state = image_next(ri->state, IMAGE_FAILED);
        ri->missing = MISSING_FAILED;
        ri->all_missed = true;
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
      if (image_is_current(m, m->admin_master)) m->record.master = m->admin_master;
      m->record.demoted = m->admin_demoted;
      break;
    case IMAGE_OP_ASSUME: /* of one that was just added, too */
      *ri = m->admin_undo;
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
}

static void image_recorded(struct mirror *m, tarn_err err) {
  uint32_t i = m->admin_image;
  if (err != TARN_OK) {
    if (m->running) undo(m, i);
    admin_explain(m, "the change to image %s could not be recorded; see 'tarn status'", image_name(m, i));
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
  if (m->stamp) m->stamp(m, i, &m->record.images[i].stamp); /* so that a write to it from now on is noticed */
  snprintf(m->images[i].reason, sizeof m->images[i].reason, "it was fractured: 'tarn image restore' brings it back");
  m->drop_seq = commit_want(m);
  report(m->env, REPORT_INFO, m->config.name, "image %s is fractured", image_name(m, i));
  op_commit(m);
  mirror_check_missing(m);
}

/* It may not be equal to the others now: it is of no definite moment, and misses all that is marked. */
static void fracture_unequal(struct mirror *m, uint32_t i) {
  m->record.images[i].stamp.modified = 0; /* writes are still in flight: no stamp would be right */
  image_drop(m, i, MISSING_FRACTURED, "it was fractured before it was whole: 'tarn image restore' brings it back",
             NULL);
  op_commit(m);
}

static void remove_now(struct mirror *m, uint32_t i) {
  if (m->images[i].online) {
    image_leave(m, i, IMAGE_FAILED, MISSING_NONE);
    m->drop_seq = commit_want(m);
  }
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

/* Everything that was answered is on stable storage there, and nothing is in flight. */
static void op_flushed(struct mirror *m, tarn_err err) {
  uint32_t i = m->admin_image;
  /* Asked again: what is true now need not be what was when the operation began. */
  if (err == TARN_OK && image_is_current(m, i) && op_allowed(m, i, m->admin_op)) {
    bool whole = !m->recovering && m->recover.set_count == 0 && m->record.unreadable.count == 0;
    if (m->admin_op == IMAGE_OP_FRACTURE && !whole) fracture_unequal(m, i);
    else if (m->admin_op == IMAGE_OP_FRACTURE) fracture_now(m, i);
    else if (m->admin_op == IMAGE_OP_REMOVE) remove_now(m, i);
    else promote_now(m, i);
    return;
  }
  if (!m->admin_why[0]) admin_explain(m, "image %s failed meanwhile", image_name(m, i));
  resume(m);
  admin_end(m, TARN_REFUSED);
}

void images_check_idle(struct mirror *m) {
  if (m->admin != ADMIN_IMAGE || m->admin_step != STEP_DRAIN || m->ops_busy != 0 || !copy_is_aside(m)) return;
  m->admin_step = STEP_FLUSH;
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
  images_check_idle(m);
}

static void op_return(struct mirror *m, uint32_t i, bool full) {
  uint32_t held = held_count(m, i);
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
  start_return(m, i, true, full);
}

/* A full copy of an image that is on line: all of it counts as missed from now on. */
static void op_sync(struct mirror *m, uint32_t i) {
  struct record_image *ri = &m->record.images[i];
  if (image_is_current(m, i)) {
    if (m->record.recovery_source == i) m->record.recovery_source = m->record.master;
    mirror_new_generation(m);
  }
  image_move(m, i, IMAGE_SYNC);
  ri->all_missed = true;
  missed_forget_copied(&m->images[i].map);
  image_start_syncing(m, i);
  m->drop_seq = commit_want(m);
  report(m->env, REPORT_INFO, m->config.name, "image %s is copied in full", image_name(m, i));
  op_commit(m);
  copy_pump(m);
}

static void assume(struct mirror *m, uint32_t i) {
  struct missed *map = &m->images[i].map;
  missed_copied(map, 0, m->geometry.extent_count);
  missed_checkpoint(map);
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
  if (!has_disks(m, &m->config.images[i])) admin_explain(m, "a disk of image %s is absent", image_name(m, i));
  else if (!ours) admin_explain(m, "the metadata of image %s is not sound, or not of this mirror", image_name(m, i));
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

static void add_failed(struct mirror *m, uint32_t i, const char *why) {
  admin_explain(m, "image %s cannot be added: %s", image_name(m, i), why);
  m->images[i].coming = COMING_NOT;
  admin_end(m, TARN_REFUSED);
}

static void add_recorded(struct mirror *m, tarn_err err) {
  uint32_t i = m->admin_image;
  struct image *image = &m->images[i];
  image->coming = COMING_NOT;
  if (err == TARN_OK && image->online && m->config.images[i].assumed) {
    assume(m, i);
    return;
  }
  if (err == TARN_OK) {
    if (image->online) m->record.images[i].all_missed = false;
    m->record_dirty = true;
    commit_want(m);
    report(m->env, REPORT_INFO, m->config.name, "image %s is added", image_name(m, i));
  } else {
    image->online = image->present = false;
    image->coming = COMING_NOT;
    m->record.images[i] = (struct record_image){0};
    m->record_dirty = true;
    admin_explain(m, "the change could not be recorded, so nothing was changed");
    if (mirror_image_is_quiet(m, i)) detach(m, i);
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
  if (!m->running || err != TARN_OK || store->record_err != TARN_NOT_FOUND) {
    add_failed(m, i,
               !m->running      ? "the mirror stopped meanwhile"
               : err != TARN_OK ? "its metadata cannot be read"
                                : "its metadata is in use already");
    return;
  }
  struct record_image *ri = &m->record.images[i];
  *ri = (struct record_image){.present = true, .state = IMAGE_UNSYNCHRONIZED, .all_missed = true};
  memcpy(ri->name, config->name, sizeof ri->name);
  memcpy(ri->node, config->node, sizeof ri->node);
  random_uuid(m, ri->uuid);
  ri->stamp = config->found;
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
  require(has_disks(m, config));
  if (!admin_begin(m, ADMIN_IMAGE, done, context)) return;
  const char *misfit = disks_misfit(m, config);
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
  detach(m, i);
  m->config.images[i] = *config;
  if (i >= m->config.image_count) m->config.image_count = i + 1;
  m->admin_image = i;
  m->admin_op = IMAGE_OP_ASSUME;
  m->admin_step = STEP_NONE;
  image_attach(m, i);
  m->images[i].coming = COMING_LOAD;
  store_load_record(&m->images[i].store, add_loaded);
}

/* ---- settings that hold at once ---- */

void mirror_set_policy(struct mirror *m, uint32_t i, const struct image_policy *policy) {
  struct image_policy *mine = &m->config.images[i].policy;
  struct image *image = &m->images[i];
  if (policy->return_after_ns != mine->return_after_ns && image->present && !image->online) {
    image->relapses = 0;
    image->return_at_ns = m->env->now_ns + policy->return_after_ns;
  }
  if (policy->rate != mine->rate) image->copy_next_ns = 0;
  *mine = *policy;
  copy_pump(m);
  for (uint32_t v = 0; v < m->geometry.volume_count; v++) guard_set_hang(&image->data[v], policy->hang_ns);
  guard_set_hang(&image->meta, policy->hang_ns);
}

void mirror_set_limits(struct mirror *m, int32_t max_missing, int32_t min_images, bool read_master) {
  m->config.max_missing = max_missing;
  m->config.min_images = min_images;
  m->config.read_master = read_master;
  mirror_check_missing(m);
}
