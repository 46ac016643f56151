#include "shell/mirror_disks.h"

#include <stdlib.h>
#include <string.h>

#include "shell/data_disk.h"
#include "shell/examine.h"
#include "shell/fault_disk.h"
#include "shell/image_identity.h"
#include "shell/nbd_disk.h"
#include "shell/tail.h"

#define LOCK_RETRY_MS 250u

/* Metadata, and the record of the state directory. */
static tarn_err file_open(struct reactor *reactor, const char *path, const struct meta_sizes *sizes, bool may_grow,
                          struct disk **disk, struct why *why) {
  if (*disk) return TARN_OK; /* from an earlier try */
  struct file_disk_options options = {.reactor = reactor,
                                      .path = path,
                                      .size_bytes = sizes->least,
                                      .whole = true,
                                      .own = true,
                                      .may_grow = may_grow,
                                      .grow_bytes = sizes->best};
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
                             : file_open(reactor, image->meta, meta, false, &disks->meta, &disks->why);
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

/* A name says nothing: an imported mirror may have another one than its images remember. */
static bool is_of_another(const struct record *record, uint32_t slot, const uint8_t *uuid) {
  if (record->self >= IMAGES_MAX || !record->images[record->self].present) return false;
  return record->self != slot || (uuid && memcmp(record->mirror_uuid, uuid, sizeof record->mirror_uuid) != 0);
}

void image_disks_check(const struct mirror_file *file, uint32_t slot, const uint8_t *uuid, struct image_disks *disks) {
  const struct mirror_file_image *image = &file->images[slot];
  struct examined *found = disks->meta && !image->tail.length ? malloc(sizeof *found) : NULL;
  if (!found) return;
  if (examine(image->meta, image->meta, found, NULL) == TARN_OK && is_of_another(&found->record, slot, uuid)) {
    const struct record *record = &found->record;
    image_disks_close(disks);
    disks->locked = false;
    because(&disks->why, TARN_REFUSED, "%s is the metadata of image %s of mirror %s: have files changed places?",
            image->meta, record->images[record->self].name, record->name);
  }
  free(found);
}

void image_disks_abort(struct image_disks *disks) {
  for (uint32_t i = 0; i < VOLUMES_MAX; i++) {
    struct disk *disk = disks->data[i] ? fault_disk_lower(disks->data[i]) : NULL;
    if (disk && disk_is_nbd(disk)) nbd_disk_abort(disk);
  }
}

/* ---- all of a mirror ---- */

/* An image that took part until a clean stop had been flushed then, so its server had answered all. */
static bool is_vouched_for(const struct record *record, uint32_t slot) {
  const struct record_image *image = &record->images[slot];
  return record->clean && image->present && image->state == IMAGE_SYNCHRONIZED && image->missing == MISSING_NONE;
}

void mirror_file_unsettled(const struct mirror_file *file, const struct record *record) {
  for (uint32_t slot = 0; slot < file->slot_count; slot++) {
    if (record && is_vouched_for(record, slot)) continue;
    for (uint32_t i = 0; i < file->volume_count; i++)
      if (disk_text_kind(file->images[slot].paths[i]) == DISK_KIND_NBD) nbd_disk_unsettled(file->images[slot].paths[i]);
  }
}

/* ---- opening, each image by itself: a thread, with copies of all that it needs ---- */

#define HOME IMAGES_MAX /* the place of the state directory among the images */

/* The opening of one image's disks, or of the record at home. It outlives its owner's interest: then it is a stray, and closes what
 * it has opened when it ends. */
struct opening {
  struct list link; /* of a stray, in `strays` */
  struct reactor_work work;
  struct mirror_disks *owner; /* NULL: a stray */
  struct reactor *reactor;
  uint32_t *stray_count;
  uint32_t slot;
  struct meta_sizes meta;
  struct mirror_file file;
  char record_path[META_PATH_BYTES_MAX + 64];
  struct image_disks disks; /* of home: `meta` */
};

static struct list strays = {&strays, &strays}; /* the reactor's thread's */

/* The record in the state directory can be lost with that directory: the images tell then. */
static void home_open(struct opening *opening) {
  struct image_disks *home = &opening->disks;
  const struct meta_sizes sizes = {RECORD_AREA_BYTES, RECORD_AREA_BYTES};
  const char *path = opening->record_path;
  tarn_err err = file_open(opening->reactor, path, &sizes, true, &home->meta, &home->why);
  /* What is left of one that was cut may be older than what it was: it must not vouch for anything. */
  struct why cut = home->why;
  if (err == TARN_INVALID)
    because(&home->why, err, "%s; move it away: then the records of the images tell who is current", cut.text);
  if (err != TARN_NOT_FOUND) return;
  err = file_create(path, RECORD_AREA_BYTES, &home->why);
  if (err == TARN_OK) err = file_open(opening->reactor, path, &sizes, true, &home->meta, &home->why);
}

static void open_work(struct reactor_work *work) {
  struct opening *opening = CONTAINER_OF(work, struct opening, work);
  if (opening->slot == HOME) home_open(opening);
  else {
    image_disks_open(opening->reactor, &opening->file, opening->slot, &opening->meta, &opening->disks);
    image_disks_check(&opening->file, opening->slot, NULL, &opening->disks);
  }
}

static void opening_free(struct opening *opening) {
  mirror_file_release(&opening->file);
  free(opening);
}

static void opened(struct mirror_disks *disks);

static struct image_disks *opening_place(struct mirror_disks *disks, uint32_t slot) {
  return slot == HOME ? &disks->opening_home : &disks->opening[slot];
}

static void open_worked(struct reactor_work *work) {
  struct opening *opening = CONTAINER_OF(work, struct opening, work);
  struct mirror_disks *disks = opening->owner;
  if (disks) {
    *opening_place(disks, opening->slot) = opening->disks;
    disks->jobs[opening->slot] = NULL;
  } else {
    list_remove(&opening->link);
    image_disks_close(&opening->disks);
    --*opening->stray_count;
  }
  opening_free(opening);
  if (disks && --disks->pending == 0) opened(disks);
}

bool mirror_disks_are_stray(const struct mirror_file *file, uint32_t slot) {
  LIST_EACH(&strays, node) {
    const struct opening *opening = LIST_ENTRY(node, struct opening, link);
    if (opening->slot == slot && strcmp(opening->file.name, file->name) == 0) return true;
  }
  return false;
}

static void opening_start(struct mirror_disks *disks, uint32_t slot) {
  struct image_disks *place = opening_place(disks, slot);
  if (slot != HOME && disks->is_kept && disks->is_kept(disks, slot, &place->why)) return;
  struct opening *opening = mirror_disks_are_stray(disks->file, slot) ? NULL : calloc(1, sizeof *opening);
  if (!opening) {
    because(&place->why, TARN_IO, "%s",
            mirror_disks_are_stray(disks->file, slot)
                ? "what it lies on does not answer: an earlier try to open its files still waits"
                : "no memory to open its files");
    return;
  }
  opening->owner = disks;
  opening->reactor = disks->reactor;
  opening->stray_count = disks->strays;
  opening->slot = slot;
  opening->meta = disks->meta;
  opening->disks = *place;
  mirror_file_copy(&opening->file, disks->file);
  memcpy(opening->record_path, disks->record_path, sizeof opening->record_path);
  list_init(&opening->link);
  disks->jobs[slot] = opening;
  disks->pending++;
  reactor_run_blocking(disks->reactor, NULL, &opening->work, open_work, open_worked);
}

/* An image whose files do not open in time is not there. */
static void opening_give_up(struct mirror_disks *disks, uint32_t slot) {
  struct opening *opening = disks->jobs[slot];
  if (!opening) return;
  disks->jobs[slot] = NULL;
  opening->owner = NULL;
  list_push(&strays, &opening->link);
  ++*disks->strays;
  *opening_place(disks, slot) = (struct image_disks){.locked = false};
  because(&opening_place(disks, slot)->why, TARN_HUNG,
          "what it lies on does not answer: its files did not open in %llu s", (unsigned long long)disks->wait_s);
}

static void open_too_late(struct timer *timer) {
  struct mirror_disks *disks = CONTAINER_OF(timer, struct mirror_disks, limit);
  for (uint32_t slot = 0; slot <= HOME; slot++) opening_give_up(disks, slot);
  disks->pending = 0;
  opened(disks);
}

static void open_all(struct mirror_disks *disks) {
  struct env *env = reactor_env(disks->reactor);
  disks->pending = 1; /* so that none ends it before all have begun */
  if (!disks->opening_home.meta) opening_start(disks, HOME);
  for (uint32_t slot = 0; slot < disks->file->slot_count; slot++)
    if (disks->file->images[slot].present) opening_start(disks, slot);
  timer_set(env, &disks->limit, env->now_ns + (disks->hurry ? 1 : disks->wait_s) * NS_PER_S);
  if (--disks->pending == 0) timer_set(env, &disks->limit, env->now_ns); /* the answer comes later */
}

static void open_again(struct timer *timer) { open_all(CONTAINER_OF(timer, struct mirror_disks, again)); }

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

static void opened(struct mirror_disks *disks) {
  struct env *env = reactor_env(disks->reactor);
  bool retry = false;
  timer_cancel(&disks->limit);
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
  disks->home = disks->opening_home.meta;
  disks->home_why = disks->opening_home.why;
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
  timer_init(&disks->limit, open_too_late);
  open_all(disks);
}

void mirror_disks_hurry(struct mirror_disks *disks) {
  disks->wait_for_locks = false;
  disks->hurry = true;
  if (!disks->reactor) return;
  struct env *env = reactor_env(disks->reactor);
  if (timer_is_armed(&disks->again)) timer_set(env, &disks->again, 0);
  if (timer_is_armed(&disks->limit))
    timer_set(env, &disks->limit, min_u64(disks->limit.deadline_ns, env->now_ns + NS_PER_S));
}

void mirror_disks_close(struct mirror_disks *disks) {
  close_one(&disks->home);
  for (uint32_t slot = 0; slot < IMAGES_MAX; slot++) image_disks_close(&disks->images[slot]);
}
