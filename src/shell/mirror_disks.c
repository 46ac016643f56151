#include "shell/mirror_disks.h"

#include "base/prng.h"
#include "shell/file_disk.h"

#define LOCK_RETRY_MS 250u

static tarn_err file_open(const struct mirror_disks *disks, const char *path, uint64_t size_bytes, struct disk **disk,
                          bool *has_data, struct why *why) {
  if (*disk) return TARN_OK; /* from an earlier try */
  struct file_identity identity;
  struct file_disk_options options = {.reactor = disks->reactor, .path = path, .size_bytes = size_bytes};
  tarn_err err = file_disk_open(&options, disk, &identity, why);
  require((err == TARN_OK) == (*disk != NULL));
  if (err == TARN_OK && has_data && identity.has_data) *has_data = true;
  return err;
}

/* The record in the state directory can be lost with that directory: the images tell then. */
static void home_open(struct mirror_disks *disks) {
  tarn_err err = file_open(disks, disks->record_path, RECORD_AREA_BYTES, &disks->home, NULL, &disks->home_why);
  if (err != TARN_NOT_FOUND) return;
  err = file_create(disks->record_path, RECORD_AREA_BYTES, &disks->home_why);
  if (err == TARN_OK)
    err = file_open(disks, disks->record_path, RECORD_AREA_BYTES, &disks->home, NULL, &disks->home_why);
}

static void image_open(struct mirror_disks *disks, uint32_t slot) {
  const struct mirror_file *file = disks->file;
  tarn_err err = file_open(disks, file->images[slot].meta, disks->meta_bytes, &disks->images[slot].meta, NULL,
                           &disks->images[slot].why);
  for (uint32_t i = 0; i < file->volume_count && err == TARN_OK; i++)
    err = file_open(disks, file->images[slot].paths[i], file->volumes[i].size_bytes, &disks->images[slot].data[i],
                    &disks->images[slot].has_data, &disks->images[slot].why);
  disks->images[slot].locked = err == TARN_FULL;
  if (err == TARN_OK) disks->images[slot].why.text[0] = 0;
}

static void open_all(struct reactor_work *work) {
  struct mirror_disks *disks = CONTAINER_OF(work, struct mirror_disks, work);
  if (!disks->home) home_open(disks);
  for (uint32_t slot = 0; slot < disks->file->slot_count; slot++)
    if (disks->file->images[slot].present) image_open(disks, slot);
}

static void opened(struct reactor_work *work);
static void open_again(struct timer *timer) {
  struct mirror_disks *disks = CONTAINER_OF(timer, struct mirror_disks, again);
  reactor_run_blocking(disks->reactor, &disks->work, open_all, opened);
}

static void opened(struct reactor_work *work) {
  struct mirror_disks *disks = CONTAINER_OF(work, struct mirror_disks, work);
  struct env *env = reactor_env(disks->reactor);
  bool retry = false;
  for (uint32_t slot = 0; slot < disks->file->slot_count; slot++) {
    if (!disks->images[slot].locked || !disks->wait_for_locks || env->now_ns >= disks->deadline_ns) continue;
    retry = true;
    if (!disks->told)
      report(env, REPORT_WARNING, disks->file->name, "image %s waits for a lock, up to %u s: %s",
             disks->file->images[slot].name, LOCK_WAIT_S, disks->images[slot].why.text);
  }
  disks->told = disks->told || retry;
  if (retry) timer_set(env, &disks->again, env->now_ns + LOCK_RETRY_MS * NS_PER_MS);
  else disks->opened(disks);
}

void mirror_disks_open(struct mirror_disks *disks) {
  require(disks->reactor && disks->file && disks->opened);
  require(disks->home == NULL);
  disks->deadline_ns = reactor_env(disks->reactor)->now_ns + LOCK_WAIT_S * NS_PER_S;
  timer_init(&disks->again, open_again);
  reactor_run_blocking(disks->reactor, &disks->work, open_all, opened);
}

void mirror_disks_hurry(struct mirror_disks *disks) {
  disks->wait_for_locks = false;
  if (disks->reactor && timer_is_armed(&disks->again)) timer_set(reactor_env(disks->reactor), &disks->again, 0);
}

static void close_one(struct disk **disk) {
  if (*disk) disk_close(*disk);
  *disk = NULL;
}

void mirror_disks_close(struct mirror_disks *disks) {
  close_one(&disks->home);
  for (uint32_t slot = 0; slot < IMAGES_MAX; slot++) {
    close_one(&disks->images[slot].meta);
    for (uint32_t i = 0; i < VOLUMES_MAX; i++) close_one(&disks->images[slot].data[i]);
  }
}

static void stamp_image(const struct mirror_disks *disks, uint32_t slot, bool as_opened, struct image_stamp *stamp) {
  *stamp = (struct image_stamp){0};
  bool known = true;
  if (!disks->file) return; /* never opened: a config is asked for before, for its sizes */
  for (uint32_t i = 0; i < disks->file->volume_count; i++) {
    const struct disk *disk = disks->images[slot].data[i];
    if (!disk) return;
    const struct file_identity *identity = file_disk_identity(disk);
    uint64_t modified = (uint64_t)(as_opened ? identity->mtime_ns : file_disk_modified_ns(disk));
    known = known && modified != 0 && !identity->is_block_device;
    /* Neither the device's number, which changes with the order of disks at boot, nor a block device's name. */
    stamp->identity = mix_u64(stamp->identity ^ mix_u64(identity->inode) ^ (uint64_t)identity->birth_ns) | 1;
    stamp->modified = mix_u64(stamp->modified ^ modified) | 1;
  }
  if (!known) stamp->modified = 0;
}

void mirror_disks_stamp(const struct mirror_disks *disks, uint32_t slot, struct image_stamp *stamp) {
  stamp_image(disks, slot, false, stamp);
}

void mirror_disks_found(const struct mirror_disks *disks, uint32_t slot, struct image_stamp *stamp) {
  stamp_image(disks, slot, true, stamp);
}
