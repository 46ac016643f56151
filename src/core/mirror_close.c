/* mirror_close.c - the last flush of a mirror that has fallen.
 *
 * A write that was answered is on every image that the next activation may believe; but perhaps in a disk's cache only, and
 * once its disks are closed nobody would see that a server restarts, and loses it. So before a fallen mirror is idle, each of
 * those images is flushed, once, when nothing is in flight any more and its disks hold nothing:
 *
 *     image_matters: it was current at the fall, or that it is out is not durably recorded
 *       CLOSE_NOT --its disks are well, or have answered well what they held--> CLOSE_FLUSH --> CLOSE_FLUSHED
 *           |                                                                        `-- fails, hangs --> CLOSE_UNFLUSHED
 *           `--gone, closed meanwhile, failed what they held, or a flush before----------------------------^
 *
 * An image that was not flushed may have lost what was written since the last good flush: mirror_may_have_lost() says so, and the
 * owner has the next flush of every client fail (gate_lose()). While a disk keeps what it was given its image is left at CLOSE_NOT,
 * and the mirror is not quiet; that counts as lost, too, if it is asked then.
 *
 * A crash in here is a crash of a fallen mirror: connections end with it, and what was not flushed is as after a power loss. */
#include "core/mirror_int.h"

/* Also of one that is being removed, and that is not recorded: it is not present any more. */
static bool image_matters(const struct mirror *m, uint32_t i) {
  const struct image *image = &m->images[i];
  return image->left_seq > m->commit.done || (m->close_current & 1u << i && image->left_seq == 0);
}

/* Has anything been written that no good flush has come after? Of an image that is not recorded as out: ever, because the
 * flushes since were good without it. */
static bool image_at_risk(const struct mirror *m, uint32_t i) {
  bool doubt = m->record.doubt && m->doubt_is_loss;
  for (uint32_t v = 0; v < m->geometry.volume_count; v++) {
    uint64_t written = m->volumes[v].written_tick;
    if (written != 0 && (doubt || m->images[i].left_seq != 0 || written >= m->intent.flushed_tick[v])) return true;
  }
  return false;
}

static bool guard_is_still(const struct guard *guard) { return guard_is_quiet(guard) && guard->disk.in_flight == 0; }

static bool image_is_due(const struct mirror *m, uint32_t i) {
  if (m->images[i].closing != CLOSE_NOT || !image_matters(m, i)) return false;
  for (uint32_t v = 0; v < m->geometry.volume_count; v++)
    if (!guard_is_still(&m->images[i].data[v])) return false;
  return true;
}

bool close_is_over(const struct mirror *m) {
  if (!m->fallen) return true;
  if (event_is_posted(&m->close_event)) return false;
  for (uint32_t i = 0; i < IMAGES_MAX; i++) {
    if (m->images[i].closing == CLOSE_FLUSH || image_is_due(m, i)) return false;
  }
  return true;
}

bool close_may_have_lost(const struct mirror *m, uint32_t images) {
  bool lost = false;
  bool doubt = m->record.doubt && m->doubt_is_loss; /* which no flush resolves */
  for (uint32_t i = 0; i < IMAGES_MAX; i++) {
    if (!(images & 1u << i) || !image_matters(m, i) || !image_at_risk(m, i)) continue;
    lost |= doubt || m->images[i].closing != CLOSE_FLUSHED;
  }
  return lost && !PLANTED(loss_untold);
}

/* A disk that hung, and has answered all of it well on the same connection, is asked once more. */
static bool guard_revives(struct mirror *m, uint32_t i, struct guard *guard) {
  if (!guard->dead) return true;
  struct disk *lower = guard->lower;
  if (!lower || guard->err != TARN_HUNG || guard->held_failed) return false;
  guard_detach(guard);
  guard_attach(guard, lower, m->config.images[i].policy.hang_ns);
  return true;
}

static void close_flushed(struct disk_io *io) {
  struct leg *leg = CONTAINER_OF(io, struct leg, io);
  struct mirror *m = leg->op->m;
  struct image *image = &m->images[leg->image];
  leg_ended(m, leg->image, io);
  image->close_failed |= io->err != TARN_OK;
  require(image->close_pending > 0);
  if (--image->close_pending > 0) return;
  image->closing = image->close_failed ? CLOSE_UNFLUSHED : CLOSE_FLUSHED;
  if (image->close_failed)
    report(m->env, REPORT_WARNING, m->config.name,
           "image %s could not be flushed before it was closed: what was written since the last good flush may be lost",
           image_name(m, leg->image));
  mirror_changed(m);
}

static void close_image(struct mirror *m, uint32_t i) {
  struct image *image = &m->images[i];
  bool well = !image->let_go && !image->sync_failed;
  for (uint32_t v = 0; v < m->geometry.volume_count && well; v++) well = guard_revives(m, i, &image->data[v]);
  image->closing = well ? CLOSE_FLUSHED : CLOSE_UNFLUSHED;
  if (!well || !image_at_risk(m, i) || PLANTED(close_unflushed)) return;
  image->closing = CLOSE_FLUSH;
  image->close_failed = false;
  image->close_pending = m->geometry.volume_count;
  for (uint32_t v = 0; v < m->geometry.volume_count; v++)
    leg_submit(m, i, &op_leg(&m->flush_ops[v], i)->io, DISK_FLUSH, 0, m->geometry.volume_base[v], 0, NULL, NULL,
               close_flushed);
}

static void close_run(struct event *event) {
  struct mirror *m = CONTAINER_OF(event, struct mirror, close_event);
  if (m->ops_busy != 0 || !copy_is_idle(m) || !images_are_idle(m) || !no_commit_or_flush(m)) return;
  for (uint32_t i = 0; i < IMAGES_MAX; i++) {
    if (image_is_due(m, i)) close_image(m, i);
  }
  mirror_changed(m);
}

void close_init(struct mirror *m) { event_init(&m->close_event, close_run); }

void close_look(struct mirror *m) {
  if (m->fallen && !event_is_posted(&m->close_event)) event_post(&m->env->queue, &m->close_event);
}

void close_begin(struct mirror *m) { m->close_current = mirror_current_mask(m); }

void close_guard_is_quiet(struct guard *guard) {
  struct image *image = guard->owner;
  close_look(image->m);
}

/* ---- aside ---- */

static uint32_t held_mask(const struct mirror *m) {
  uint32_t mask = 0;
  for (uint32_t i = 0; i < IMAGES_MAX; i++)
    if (!image_holds_nothing(m, i)) mask |= 1u << i;
  return mask;
}

bool mirror_can_be_put_aside(const struct mirror *m) {
  uint32_t held = held_mask(m);
  return held && mirror_is_idle(m) && guard_is_quiet(&m->home_guard) && implies(m->fallen, m->close_current & ~held);
}

/* Nobody hears of it any more, and nothing begins by itself but the last flush of an image that has answered. */
static void aside_begin(struct mirror *m) {
  require(mirror_can_be_put_aside(m));
  m->aside = true;
  m->aside_images = UINT32_MAX;
  m->changed = NULL;
  m->reopen = NULL;
  m->stamp = NULL;
  timer_cancel(&m->tick);
  timer_cancel(&m->copy_timer);
  event_cancel(&m->copy_event);
  guard_let_go(&m->home_guard);
}

uint32_t mirror_put_aside(struct mirror *m, bool *lost) {
  bool begins = !m->aside;
  if (begins) aside_begin(m);
  require(mirror_is_idle(m));
  uint32_t held = held_mask(m), free = m->aside_images & ~held;
  /* One that was deactivated knows at its end already. */
  *lost = m->fallen ? close_may_have_lost(m, free) : begins && mirror_may_have_lost(m);
  m->aside_images = held;
  for (uint32_t i = 0; i < IMAGES_MAX; i++) {
    if (!(free & 1u << i)) continue;
    for (uint32_t v = 0; v < m->geometry.volume_count; v++) guard_let_go(&m->images[i].data[v]);
    guard_let_go(&m->images[i].meta);
  }
  return held;
}
