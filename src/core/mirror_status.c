/* mirror_status.c - what people see of a mirror. Reads only. */
#include <string.h>

#include "base/text.h"
#include "core/mirror_int.h"

/* Equal to the others, but until the marked regions are copied after a crash only the source counts (B9). */
static bool in_recovery(const struct mirror *m, uint32_t i) {
  return m->recovering && image_is_current(m, i) && i != m->record.recovery_source;
}

static void progress(struct mirror_image_status *status, uint64_t done, uint64_t total, uint64_t copied,
                     uint64_t elapsed_ns) {
  status->sync.done_bytes = done;
  status->sync.total_bytes = total;
  if (elapsed_ns > 0) status->sync.bytes_per_second = (uint64_t)((double)copied * 1e9 / (double)elapsed_ns);
  if (status->sync.bytes_per_second > 0) status->sync.eta_seconds = (total - done) / status->sync.bytes_per_second;
}

/* The last extent of a volume need not be whole, nor its last region. */
static uint64_t data_bytes(const struct mirror *m) {
  uint64_t bytes = 0;
  for (uint32_t v = 0; v < m->geometry.volume_count; v++) bytes += m->geometry.volume_bytes[v];
  return bytes;
}

static void waiting_for(const struct mirror *m, struct mirror_image_status *status) {
  if (m->copy_pause_ns > m->env->now_ns && m->copy_pause_why)
    text_set(status->sync.waiting_for, sizeof status->sync.waiting_for, "%s", m->copy_pause_why);
}

static void sync_status(const struct mirror *m, uint32_t i, struct mirror_image_status *status) {
  const struct image *image = &m->images[i];
  uint64_t extent = m->geometry.extent_bytes;
  if (in_recovery(m, i)) {
    status->sync.kind = SYNC_INTENT;
    uint64_t left = min_u64(m->recover.set_count, m->recover_total);
    progress(status, (m->recover_total - left) * extent, m->recover_total * extent, m->recover_copied,
             m->env->now_ns - m->recover_start_ns);
    waiting_for(m, status);
  } else if (image->online && image_state_of(m, i) == IMAGE_SYNCHRONIZING) {
    status->sync.kind = image->sync_full ? SYNC_FULL : SYNC_MISSED;
    uint64_t left = min_u64((image->map.missed.set_count - image->map.copied.set_count) * extent, data_bytes(m));
    uint64_t total = max_u64(min_u64(image->sync_total * extent, data_bytes(m)), left);
    progress(status, total - left, total, image->sync_copied, m->env->now_ns - image->sync_start_ns);
    if (m->recovering)
      text_set(status->sync.waiting_for, sizeof status->sync.waiting_for, "the recovery of marked regions");
    else if (image->copy_next_ns > m->env->now_ns)
      text_set(status->sync.waiting_for, sizeof status->sync.waiting_for, "its rate limit");
    else waiting_for(m, status);
  } else if (verify_is_running(m) && image_is_current(m, i)) {
    const struct verify_result *result = mirror_verify_result(m);
    status->sync.kind = SYNC_VERIFY;
    progress(status, result->done_bytes, result->total_bytes, result->done_bytes, m->env->now_ns - verify_start_ns(m));
    if (m->recovering)
      text_set(status->sync.waiting_for, sizeof status->sync.waiting_for, "the recovery of marked regions");
  }
}

/* The first place of all is named where there is nothing worse to say. */
static void unreadable_status(const struct mirror *m, struct mirror_image_status *status) {
  const struct unreadable *list = &m->record.unreadable;
  status->unreadable_bytes = unreadable_bytes(list);
  if (list->count == 0 || status->reason[0]) return;
  uint32_t v = geometry_volume_at(&m->geometry, list->ranges[0].start);
  if (v == m->geometry.volume_count) return;
  text_set(status->reason, sizeof status->reason,
           "%llu bytes of volume %s at %llu cannot be read from any image; writing them heals it",
           (unsigned long long)list->ranges[0].length, m->config.volumes[v].name,
           (unsigned long long)(list->ranges[0].start - m->geometry.volume_base[v]));
}

static void image_status(const struct mirror *m, uint32_t i, struct mirror_image_status *status) {
  const struct image *image = &m->images[i];
  const struct record_image *ri = &m->record.images[i];
  status->present = image->present;
  status->io_held = image->meta.held;
  for (uint32_t v = 0; v < m->geometry.volume_count; v++) status->io_held += image->data[v].held;
  status->returning = image->coming != COMING_NOT;
  if (m->running && image->present && !image->online && ri->missing == MISSING_FAILED &&
      m->config.images[i].policy.return_by_itself && m->reopen)
    status->return_in_ns = image->return_at_ns > m->env->now_ns ? image->return_at_ns - m->env->now_ns : 1;
  if (!image->online && ri->state != IMAGE_SYNCHRONIZED) status->out_since_ns = ri->moment_ns;
  memcpy(status->name, m->config.images[i].name, sizeof status->name);
  memcpy(status->node, m->config.images[i].node, sizeof status->node);
  status->master = m->record.master == i;
  status->state = in_recovery(m, i) ? IMAGE_SYNCHRONIZING : ri->state;
  status->missing = ri->missing;
  memcpy(status->reason, image->reason, sizeof status->reason);
  if (!image->reason[0] && in_recovery(m, i))
    text_set(status->reason, sizeof status->reason, "regions that were being written at the crash are being copied");
  if (!image->reason[0] && status->state == IMAGE_SYNCHRONIZING && !in_recovery(m, i))
    text_set(status->reason, sizeof status->reason, "what it misses is being copied");
  status->missed_bytes = min_u64(image->map.missed.set_count * m->geometry.extent_bytes, data_bytes(m));
  if (ri->all_missed && !image->online) status->missed_bytes = data_bytes(m);
  if (image->present) unreadable_status(m, status);
  status->reads = image->reads;
  status->writes = image->writes;
  status->read_errors = image->read_errors;
  status->write_errors = image->write_errors;
  status->repaired_blocks = image->repaired_blocks;
  status->io_in_flight = image->in_flight;
  if (m->running) sync_status(m, i, status);
}

/* Between two tries it fails still. */
static const char *recovery_waits_for(const struct mirror *m) {
  bool recovers = m->running && mirror_recovers(m);
  return recovers && m->copy_pause_why && m->env->now_ns < m->copy_pause_ns + RETRY_NS ? m->copy_pause_why : NULL;
}

void mirror_status(const struct mirror *m, struct mirror_status *status) {
  memset(status, 0, sizeof *status);
  status->state = m->state;
  memcpy(status->reason, m->reason, sizeof status->reason);
  memcpy(status->uuid, m->record.mirror_uuid, sizeof status->uuid);
  status->generation = m->record.generation;
  status->epoch = m->record.epoch;
  memcpy(status->epoch_node, m->record.epoch_node, sizeof status->epoch_node);
  status->image_count = m->config.image_count;
  for (uint32_t i = 0; i < m->config.image_count; i++) image_status(m, i, &status->images[i]);
  status->marked_regions = m->intent.used_count;
  status->recovering_bytes = m->recover.set_count * m->geometry.extent_bytes;
  status->reads_done = m->reads_done;
  status->changes_done = m->changes_done;
  status->in_flight = m->ops_busy;
  status->log_writes = m->commit.started;
  status->log_off = m->log_off;
  status->home_in_trouble = m->commit.home_in_trouble;
  status->recovery_waits_for = recovery_waits_for(m);
  status->flushes_fail = status->recovery_waits_for && m->record.doubt;
  status->recovered = m->recovered;
  status->recovery.reason = "crash";
  status->recovery.bytes_marked = m->recover_marked;
  status->recovery.bytes_copied = m->recover_copied;
  status->recovery.running = m->recovering;
  status->recovery.duration_ns = (m->recovering ? m->env->now_ns : m->recover_end_ns) - m->recover_start_ns;
}
