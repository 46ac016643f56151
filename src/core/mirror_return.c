/* mirror_return.c - images that come back while the mirror runs, and when an image's disks are nobody's business any more.
 *
 * Coming back:  out --return-after is over, or asked--> reopen (the owner) --> load its record --> judge --> a read that works
 *               --> online, SYNCHRONIZING --> the commit that says so, with the whole log and all maps --> copied to
 * What it missed is known: this mirror has recorded it since the image left, if the image is still what it was then. An image
 * that cannot prove that is copied in full, and only when the administrator asked for it.
 *
 * Crash argument: nothing is written to it before the commit that says that it is being copied to is durable; until then its
 * record may say that it is CONSISTENT at its moment. So it is out again if the mirror stops before. It becomes a source by
 * image_join() alone, long after the commit that gave it the log. */
#include <string.h>

#include "base/text.h"
#include "core/mirror_int.h"

#define RELAPSES_MAX 6u /* return-after is doubled so often at most */
#define PROBE_BYTES  4096u

static void come_judge(struct mirror *m, uint32_t i);
static void come_probe(struct mirror *m, uint32_t i);

/* ---- quiet, idle ---- */

bool image_holds_nothing(const struct mirror *m, uint32_t i) {
  const struct image *image = &m->images[i];
  for (uint32_t v = 0; v < m->geometry.volume_count; v++)
    if (!guard_is_quiet(&image->data[v])) return false;
  return guard_is_quiet(&image->meta);
}

bool mirror_image_is_quiet(const struct mirror *m, uint32_t i) {
  const struct image *image = &m->images[i];
  return !image->online && image->coming == COMING_NOT && image->in_flight == 0 && !image->store.busy &&
         image_holds_nothing(m, i);
}

bool mirror_is_quiet(const struct mirror *m) {
  for (uint32_t i = 0; i < IMAGES_MAX; i++)
    if (!image_holds_nothing(m, i)) return false;
  return guard_is_quiet(&m->home_guard);
}

bool images_are_idle(const struct mirror *m) {
  for (uint32_t i = 0; i < IMAGES_MAX; i++)
    if (m->images[i].coming != COMING_NOT) return false;
  return true;
}

uint32_t image_held_count(const struct mirror *m, uint32_t i) {
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

void mirror_image_answered(struct mirror *m, uint32_t i) {
  struct image *image = &m->images[i];
  bool waits = image->present && !image->online && m->record.images[i].missing == MISSING_FAILED;
  if (!m->running || !waits || image->return_at_ns == 0) return;
  text_set(image->reason, sizeof image->reason, "its disk did not answer for a while, and can be opened again");
  image->relapses = 0;
  image->return_at_ns = min_u64(image->return_at_ns, m->env->now_ns + m->config.images[i].policy.return_after_ns);
}

static bool admin_waits_for(const struct mirror *m, uint32_t i) {
  return m->admin == ADMIN_IMAGE && m->admin_step == STEP_RETURN && m->admin_image == i;
}

/* It stays out. Its disks stay attached until the next try, which opens them anew. */
static void come_failed(struct mirror *m, uint32_t i, const char *why) {
  struct image *image = &m->images[i];
  image->coming = COMING_NOT;
  if (why != image->reason) text_set(image->reason, sizeof image->reason, "%s", why);
  uint32_t relapses = image->relapses;
  image_returns_later(m, i);
  if (image->coming_asked) image->relapses = relapses; /* it has not tried by itself */
  if (admin_waits_for(m, i)) {
    admin_explain(m, "image %s cannot be brought back: %s", image_name(m, i), why);
    admin_end(m, TARN_REFUSED);
  }
  mirror_changed(m);
  admin_check_idle(m);
}

void image_detach(struct mirror *m, uint32_t i) {
  struct image *image = &m->images[i];
  image->let_go |= image->left_seq > m->commit.done;
  for (uint32_t v = 0; v < m->geometry.volume_count; v++) {
    guard_let_go(&image->data[v]);
    m->config.images[i].data[v] = NULL;
  }
  guard_let_go(&image->meta);
  m->config.images[i].meta = NULL;
  store_attach(&image->store, NULL);
}

void image_return(struct mirror *m, uint32_t i, bool asked, bool full) {
  struct image *image = &m->images[i];
  require(mirror_image_is_quiet(m, i));
  image_detach(m, i);
  image->coming = COMING_REOPEN;
  image->coming_asked = asked;
  image->coming_full = full;
  m->reopen(m, i, asked);
  mirror_changed(m);
}

void images_tick(struct mirror *m) {
  EACH_IMAGE(m, i) {
    const struct image *image = &m->images[i];
    for (uint32_t v = 0; v < m->geometry.volume_count; v++) guard_look(&m->images[i].data[v]);
    if (image->coming == COMING_COMMIT && m->commit.home_in_trouble) (void)commit_want(m); /* once more */
    bool wanted = m->reopen && m->config.images[i].policy.return_by_itself &&
                  m->record.images[i].missing == MISSING_FAILED && image->return_at_ns != 0 &&
                  m->env->now_ns >= image->return_at_ns;
    if (wanted && mirror_image_is_quiet(m, i)) image_return(m, i, false, false);
  }
}

/* Can these disks take what the clients were told that the volumes can? NULL, or why not. */
const char *image_misfit(const struct mirror *m, const struct mirror_image_config *config) {
  if (config->meta->caps.size_bytes < m->geometry.meta_bytes) return "its metadata has no room for the maps";
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

bool image_is_complete(const struct mirror *m, const struct mirror_image_config *config) {
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
  const char *wrong = !image_is_complete(m, config) ? (config->error ? config->error : "a disk is absent")
                      : !m->running                 ? "the mirror stopped meanwhile"
                                                    : image_misfit(m, config);
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
  bool foreign = store->record_err == TARN_OK &&
                 memcmp(store->record.mirror_uuid, m->record.mirror_uuid, sizeof m->record.mirror_uuid) != 0;
  if (foreign) return "its metadata is of another mirror";
  if (unreadable || replaced) {
    image->coming_full = true;
    if (image->coming_asked) return NULL;
    return replaced
               ? "its file is another one than it was: 'tarn image restore' copies it in full, or, if it holds data "
                 "that may go, 'tarn image sync'"
               : "its metadata is damaged or empty: 'tarn image restore' copies it in full, or, if something else is "
                 "there that may go, 'tarn image sync'";
  }
  if (store->record_err != TARN_OK) return "its metadata cannot be read";
  if (judge_apart(m, i, &store->record) && !image->coming_full)
    return "it was written apart from the others: 'tarn image sync' gives up what only it has";
  if (!judge_knows(m, i, &store->record)) image->coming_full = true;
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
  stamp_outdates(m, i);
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

/* What its map calls not missed is there, as far as can be seen; or all is copied to it, if somebody asked for it. */
static void come_looked(struct mirror *m, uint32_t i) {
  struct image *image = &m->images[i];
  char why[sizeof image->reason], differs[sizeof image->reason - 48];
  if (!m->running) {
    come_failed(m, i, "the mirror stopped meanwhile");
    return;
  }
  if (witness_differs(m, i) && !image->coming_full && !image->coming_asked) {
    witness_explain(m, i, differs, sizeof differs);
    text_set(why, sizeof why, "%s: 'tarn image restore' copies it in full", differs);
    come_failed(m, i, why);
    return;
  }
  if (image->told != TOLD_NOTHING) {
    come_failed(m, i, image->told_why);
    return;
  }
  image->coming_full |= witness_differs(m, i);
  come_online(m, i);
}

static void come_probe(struct mirror *m, uint32_t i) {
  struct image *image = &m->images[i];
  if (image->probe == m->geometry.volume_count) {
    image->coming = COMING_LOOK;
    witness_look(m, i, come_looked);
    return;
  }
  uint64_t bytes = min_u64(PROBE_BYTES, image->data[image->probe].disk.caps.size_bytes);
  struct buffer *buffer = &image->store.load_buffer;
  leg_submit(m, i, &image->probe_io, DISK_READ, 0, m->geometry.volume_base[image->probe],
             align_down(bytes, image->data[image->probe].disk.caps.block_bytes), buffer, buffer->base, come_probed);
}

void images_stop(struct mirror *m) {
  EACH_IMAGE(m, i) {
    struct image *image = &m->images[i];
    if (image->coming != COMING_COMMIT) continue;
    /* Writes that wait for their marks go on, and must not reach it; the next activation copies to it. */
    if (image->online && m->commit.done < image->come_seq) {
      image_leave(m, i, IMAGE_FAILED, MISSING_NONE);
      text_set(image->reason, sizeof image->reason, "the mirror stopped before it was recorded as back");
    }
    image->coming = COMING_NOT;
    if (!admin_waits_for(m, i)) continue;
    admin_explain(m, "the mirror stopped meanwhile");
    admin_end(m, TARN_REFUSED);
  }
}

void images_come_later(struct mirror *m) {
  EACH_IMAGE(m, i) {
    bool now = m->images[i].coming == COMING_COMMIT && m->images[i].come_seq <= m->commit.started;
    if (now) m->images[i].come_seq = m->commit.started + 1;
  }
}

/* A round has ended. */
void images_committed(struct mirror *m, tarn_err err) {
  EACH_IMAGE(m, i) {
    struct image *image = &m->images[i];
    if (image->coming != COMING_COMMIT || image_is_being_added(m, i)) continue;
    if (!image->online) {
      come_failed(m, i, image->reason);
      continue;
    }
    if ((err != TARN_OK || m->commit.home_failed) && admin_waits_for(m, i)) { /* it goes on trying */
      admin_explain(m, "that image %s is back could not be recorded yet", image_name(m, i));
      admin_end(m, TARN_IO);
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
