#include "shell/mirror_disks.h"

#include <stdlib.h>
#include <string.h>

#include "base/prng.h"
#include "shell/data_disk.h"
#include "shell/fault_disk.h"
#include "shell/image_identity.h"
#include "shell/nbd_disk.h"
#include "shell/tail.h"

#define LOCK_RETRY_MS 250u

/* Metadata, and the record of the state directory. */
static tarn_err file_open(struct reactor *reactor, const char *path, const struct meta_sizes *sizes, struct disk **disk,
                          struct why *why) {
  if (*disk) return TARN_OK; /* from an earlier try */
  struct file_disk_options options = {
      .reactor = reactor, .path = path, .size_bytes = sizes->least, .whole = true, .grow_bytes = sizes->best};
  tarn_err err = file_disk_open(&options, disk, NULL, why);
  require((err == TARN_OK) == (*disk != NULL));
  return err;
}

/* ---- one image ---- */

static void close_one(struct disk **disk) {
  if (*disk) disk_close(*disk);
  *disk = NULL;
}

/* Looks where the devices of disks that are not open yet are. */
static tarn_err places_find(const struct mirror_file *file, uint32_t slot, struct image_disks *disks) {
  char place[PATH_BYTES_MAX + 1];
  struct why note;
  for (uint32_t i = 0; i < file->volume_count; i++) {
    if (disks->data[i]) continue;
    enum image_place found = image_place_find(file, slot, i, place, &note);
    free(disks->places[i]);
    disks->places[i] = found == PLACE_FOUND ? strdup(place) : NULL;
    if (i == 0 || note.text[0]) disks->note = note;
    if (found == PLACE_NONE) return because(&disks->why, TARN_NOT_FOUND, "%s", note.text);
  }
  return TARN_OK;
}

static const char *place_of(const struct mirror_file_image *image, const struct image_disks *disks, uint32_t volume) {
  return disks->places[volume] ? disks->places[volume] : image->paths[volume];
}

/* Is the tail of this open device that of the image? */
static tarn_err tail_check(const struct locator *tail, struct disk *meta, const char *path, struct why *why) {
  struct data_file files[DISK_PARTS_MAX];
  struct locator found;
  uint32_t count = data_disk_files(meta, files);
  require(count == 1);
  tarn_err err = tail_find(file_disk_fd(files[0].file), file_disk_identity(files[0].file)->size_bytes, &found);
  if (err == TARN_NOT_FOUND) err = tail_find_behind(file_disk_fd(files[0].file), tail, &found); /* it has grown */
  if (err == TARN_OK && memcmp(&found, tail, sizeof found) == 0) return TARN_OK;
  return because(why, TARN_NOT_FOUND, "the tail of %s holds %s", path,
                 err == TARN_OK          ? "the metadata of another image, or of an earlier mirror"
                 : err == TARN_NOT_FOUND ? "no metadata: it is another disk, or was written over"
                                         : "metadata that cannot be read");
}

/* The first disk and the metadata behind it, by one descriptor. */
static tarn_err tail_open(struct reactor *reactor, const struct mirror_file *file, uint32_t slot,
                          const struct meta_sizes *meta, struct image_disks *disks) {
  const struct mirror_file_image *image = &file->images[slot];
  const char *path = place_of(image, disks, 0);
  uint64_t bytes = file->volumes[0].size_bytes;
  bool has_data;
  tarn_err err = TARN_OK;
  if (image->tail.length < meta->least)
    return because(&disks->why, TARN_INVALID, "the metadata in the tail of %s is too short: %llu bytes are needed",
                   path, (unsigned long long)meta->least);
  if (!disks->data[0])
    err = data_disk_open_part(reactor, path, 0, align_up(bytes, PART_ALIGN), bytes, &disks->data[0], &disks->has_data,
                              &disks->why);
  if (err == TARN_OK && !disks->meta)
    err = data_disk_open_part(reactor, path, image->tail.offset, image->tail.length, image->tail.length, &disks->meta,
                              &has_data, &disks->why);
  if (err == TARN_OK) err = tail_check(&image->tail, disks->meta, path, &disks->why);
  if (err == TARN_OK || err == TARN_FULL) return err;
  close_one(&disks->data[0]); /* whatever it is, it is none of ours */
  close_one(&disks->meta);
  return err;
}

void image_disks_open(struct reactor *reactor, const struct mirror_file *file, uint32_t slot,
                      const struct meta_sizes *meta, struct image_disks *disks) {
  const struct mirror_file_image *image = &file->images[slot];
  if (image->unknown) {
    because(&disks->why, TARN_NOT_FOUND,
            "its disk is unknown: it was not named at import, or config.json is an old one; 'tarn status %s' says what "
            "can be done",
            file->name);
    return;
  }
  uint64_t settle_ns = (uint64_t)image->settings.values[SET_NBD_SETTLE] * NS_PER_S;
  tarn_err err = places_find(file, slot, disks);
  if (err == TARN_OK)
    err = image->tail.length ? tail_open(reactor, file, slot, meta, disks)
                             : file_open(reactor, image->meta, meta, &disks->meta, &disks->why);
  disks->settle_ns = 0;
  for (uint32_t i = 0; i < file->volume_count; i++)
    if (!disks->data[i] && disk_text_kind(image->paths[i]) == DISK_KIND_NBD)
      disks->settle_ns = max_u64(disks->settle_ns, nbd_disk_settle_ns(image->paths[i], settle_ns));
  if (err == TARN_OK && disks->settle_ns > 0)
    err = because(&disks->why, TARN_IO, "its server may still be doing requests of a connection that was lost: %llu s",
                  (unsigned long long)((disks->settle_ns + NS_PER_S - 1) / NS_PER_S));
  for (uint32_t i = 0; i < file->volume_count && err == TARN_OK; i++)
    if (!disks->data[i])
      err = data_disk_open(reactor, place_of(image, disks, i), file->volumes[i].size_bytes, &disks->data[i],
                           &disks->has_data, &disks->why);
  disks->locked = err == TARN_FULL;
  if (err != TARN_OK) return;
  disks->why.text[0] = 0;
  json_decref(disks->devices);
  disks->devices = image_devices_read(file, slot, disks->data);
}

void image_disks_close(struct image_disks *disks) {
  close_one(&disks->meta);
  for (uint32_t i = 0; i < VOLUMES_MAX; i++) {
    close_one(&disks->data[i]);
    free(disks->places[i]);
    disks->places[i] = NULL;
  }
  json_decref(disks->devices);
  disks->devices = NULL;
}

void image_disks_abort(struct image_disks *disks) {
  for (uint32_t i = 0; i < VOLUMES_MAX; i++) {
    struct disk *disk = disks->data[i] ? fault_disk_lower(disks->data[i]) : NULL;
    if (disk && disk_is_nbd(disk)) nbd_disk_abort(disk);
  }
}

/* Neither a device's number, which changes with the order of disks at boot, nor a block device's name. */
void stamp_identity_add(uint64_t *stamp, const struct file_identity *file, uint64_t device) {
  uint64_t which = file->is_block_device ? device : file->inode;
  *stamp = mix_u64(*stamp ^ mix_u64(which) ^ (uint64_t)file->birth_ns) | 1;
}

/* Adds one file of a disk, of a device with what is known of it. False: when it was changed cannot be told. */
static bool stamp_add(struct image_stamp *stamp, const struct data_file *file, uint64_t device, bool as_opened) {
  const struct file_identity *identity = file_disk_identity(file->file);
  uint64_t modified = (uint64_t)(as_opened ? identity->mtime_ns : file_disk_modified_ns(file->file));
  stamp_identity_add(&stamp->identity, identity, device);
  stamp->modified = mix_u64(stamp->modified ^ modified) | 1;
  /* Other parts of a file may be written to by others. */
  return modified != 0 && !identity->is_block_device && file->whole;
}

/* `fact`: as in image_device_number(); NO_FACT: as if nothing were known of devices. */
#define NO_FACT DEVICE_FACTS_MAX
static void stamp_image(const struct image_disks *disks, const struct mirror_file *file, uint32_t slot, uint32_t fact,
                        bool as_opened, struct image_stamp *stamp) {
  const struct mirror_file_image *image = &file->images[slot];
  *stamp = (struct image_stamp){0};
  bool known = true;
  for (uint32_t i = 0; i < file->volume_count; i++) {
    if (!disks->data[i]) return;
    struct data_file files[DISK_PARTS_MAX];
    uint32_t count = data_disk_files(disks->data[i], files);
    for (uint32_t j = 0; j < count; j++) {
      const char *path = disk_text_kind(image->paths[i]) == DISK_KIND_FILE ? image->paths[i] : files[j].path;
      uint64_t device = fact == NO_FACT ? 0 : image_device_number(image->devices, disks->devices, path, fact);
      known = stamp_add(stamp, &files[j], device, as_opened) && known;
    }
    if (count > 0) continue;
    stamp->identity = mix_u64(stamp->identity) | 1; /* an NBD server: it tells nothing of what it is */
    known = false;
  }
  if (!known) stamp->modified = 0;
}

void image_disks_stamp(const struct image_disks *disks, const struct mirror_file *file, uint32_t slot,
                       struct image_stamp *stamp) {
  stamp_image(disks, file, slot, 0, false, stamp);
}

void image_disks_found(const struct image_disks *disks, const struct mirror_file *file, uint32_t slot,
                       uint64_t recorded, struct image_stamp *stamp) {
  struct image_stamp maybe;
  stamp_image(disks, file, slot, 0, true, stamp);
  if (image_devices_compare(file->images[slot].devices, disks->devices) == DEVICE_OTHER) return;
  for (uint32_t fact = 1; fact <= NO_FACT && recorded != 0; fact++) {
    stamp_image(disks, file, slot, fact, true, &maybe);
    if (maybe.identity == recorded) stamp->identity = recorded;
  }
}

/* ---- all of a mirror ---- */

void mirror_file_unsettled(const struct mirror_file *file) {
  for (uint32_t slot = 0; slot < file->slot_count; slot++)
    for (uint32_t i = 0; i < file->volume_count; i++)
      if (disk_text_kind(file->images[slot].paths[i]) == DISK_KIND_NBD) nbd_disk_unsettled(file->images[slot].paths[i]);
}

/* The record in the state directory can be lost with that directory: the images tell then. */
static void home_open(struct mirror_disks *disks) {
  struct reactor *reactor = disks->reactor;
  const struct meta_sizes sizes = {RECORD_AREA_BYTES, RECORD_AREA_BYTES};
  tarn_err err = file_open(reactor, disks->record_path, &sizes, &disks->home, &disks->home_why);
  if (err != TARN_NOT_FOUND) return;
  err = file_create(disks->record_path, RECORD_AREA_BYTES, &disks->home_why);
  if (err == TARN_OK) err = file_open(reactor, disks->record_path, &sizes, &disks->home, &disks->home_why);
}

static void open_all(struct reactor_work *work) {
  struct mirror_disks *disks = CONTAINER_OF(work, struct mirror_disks, work);
  if (!disks->home) home_open(disks);
  for (uint32_t slot = 0; slot < disks->file->slot_count; slot++)
    if (disks->file->images[slot].present)
      image_disks_open(disks->reactor, disks->file, slot, &disks->meta, &disks->opening[slot]);
}

static void opened(struct reactor_work *work);
static void open_again(struct timer *timer) {
  struct mirror_disks *disks = CONTAINER_OF(timer, struct mirror_disks, again);
  reactor_run_blocking(disks->reactor, &disks->work, open_all, opened);
}

/* An NBD server is given the time that its image's setting says; without it its image is not there. */
static bool settle_wait(struct mirror_disks *disks) {
  struct env *env = reactor_env(disks->reactor);
  uint64_t wait_ns = 0;
  for (uint32_t slot = 0; slot < disks->file->slot_count; slot++)
    if (disks->opening[slot].why.text[0]) wait_ns = max_u64(wait_ns, disks->opening[slot].settle_ns);
  if (wait_ns == 0 || disks->hurry) return false;
  report(env, REPORT_INFO, disks->file->name,
         "waits %llu s for an NBD server to be done with old requests (nbd-settle)",
         (unsigned long long)((wait_ns + NS_PER_S - 1) / NS_PER_S));
  timer_set(env, &disks->again, env->now_ns + wait_ns);
  return true;
}

static void opened(struct reactor_work *work) {
  struct mirror_disks *disks = CONTAINER_OF(work, struct mirror_disks, work);
  struct env *env = reactor_env(disks->reactor);
  bool retry = false;
  if (settle_wait(disks)) return;
  for (uint32_t slot = 0; slot < disks->file->slot_count; slot++) {
    if (!disks->opening[slot].locked || !disks->wait_for_locks || env->now_ns >= disks->deadline_ns) continue;
    retry = true;
    if (!disks->told)
      report(env, REPORT_WARNING, disks->file->name, "image %s waits for a lock, up to %llu s: %s",
             disks->file->images[slot].name, (unsigned long long)disks->wait_s, disks->opening[slot].why.text);
  }
  disks->told = disks->told || retry;
  if (retry) {
    timer_set(env, &disks->again, env->now_ns + LOCK_RETRY_MS * NS_PER_MS);
    return;
  }
  memcpy(disks->images, disks->opening, sizeof disks->images);
  memset(disks->opening, 0, sizeof disks->opening);
  disks->opened(disks);
}

void mirror_disks_open(struct mirror_disks *disks) {
  require(disks->reactor && disks->file && disks->opened);
  require(disks->home == NULL);
  int64_t hang_s = 0;
  for (uint32_t slot = 0; slot < disks->file->slot_count; slot++) {
    const struct mirror_file_image *image = &disks->file->images[slot];
    if (image->present && image->settings.values[SET_HANG] > hang_s) hang_s = image->settings.values[SET_HANG];
  }
  disks->wait_s = (uint64_t)hang_s + LOCK_WAIT_MORE_S;
  disks->deadline_ns = reactor_env(disks->reactor)->now_ns + disks->wait_s * NS_PER_S;
  timer_init(&disks->again, open_again);
  reactor_run_blocking(disks->reactor, &disks->work, open_all, opened);
}

void mirror_disks_hurry(struct mirror_disks *disks) {
  disks->wait_for_locks = false;
  disks->hurry = true;
  if (disks->reactor && timer_is_armed(&disks->again)) timer_set(reactor_env(disks->reactor), &disks->again, 0);
}

void mirror_disks_close(struct mirror_disks *disks) {
  close_one(&disks->home);
  for (uint32_t slot = 0; slot < IMAGES_MAX; slot++) image_disks_close(&disks->images[slot]);
}
