/* A watch is one allocation that outlives its owner's interest while a look is under way: disk_watch_stop() marks it, and the
 * end of the look frees it. An image's files are an allocation that nobody changes; a look holds on to those that it looks
 * at, so that they may be replaced meanwhile: what it found about others than the present ones is not told. */
#include "shell/disk_watch.h"

#include <stdlib.h>
#include <string.h>

#include "shell/data_disk.h"

#define LOOK_EVERY_NS NS_PER_S

struct watched {
  uint32_t refs, count;
  struct {
    char *path;
    struct file_identity identity;
    uint64_t size_bytes;
  } files[]; /* of all parts of all disks */
};

struct disk_watch {
  struct reactor *reactor;
  struct reactor_work work;
  struct timer again;
  disk_watch_saw *saw;
  void *owner;
  bool looking, stopped;
  struct {
    struct watched *files;
    enum watch_verdict told;
    /* the worker's, during a look */
    struct watched *looked_at;
    enum watch_verdict verdict;
    bool unsure; /* what cannot be told is no reason to drop an image, nor to call it back */
    struct why why;
  } slots[IMAGES_MAX];
};

static void watched_drop(struct watched *watched) {
  if (!watched || --watched->refs > 0) return;
  for (uint32_t i = 0; i < watched->count; i++) free(watched->files[i].path);
  free(watched);
}

static void watch_free(struct disk_watch *watch) {
  require(!watch->looking);
  timer_cancel(&watch->again);
  for (uint32_t slot = 0; slot < IMAGES_MAX; slot++) watched_drop(watch->slots[slot].files);
  free(watch);
}

static void look_at(struct disk_watch *watch, uint32_t slot) {
  const struct watched *watched = watch->slots[slot].looked_at;
  enum watch_verdict verdict = WATCH_THERE;
  struct why why;
  watch->slots[slot].unsure = false;
  for (uint32_t i = 0; watched && i < watched->count; i++) {
    tarn_err err =
        file_still_there(watched->files[i].path, &watched->files[i].identity, watched->files[i].size_bytes, &why);
    enum watch_verdict found = err == TARN_GONE ? WATCH_GONE : err == TARN_CORRUPT ? WATCH_SPOILED : WATCH_THERE;
    watch->slots[slot].unsure |= err != TARN_OK && found == WATCH_THERE;
    if (found <= verdict) continue;
    verdict = found;
    watch->slots[slot].why = why;
  }
  watch->slots[slot].unsure &= verdict == WATCH_THERE;
  watch->slots[slot].verdict = verdict;
}

static void look(struct reactor_work *work) {
  struct disk_watch *watch = CONTAINER_OF(work, struct disk_watch, work);
  for (uint32_t slot = 0; slot < IMAGES_MAX; slot++) look_at(watch, slot);
}

static void looked(struct reactor_work *work) {
  struct disk_watch *watch = CONTAINER_OF(work, struct disk_watch, work);
  for (uint32_t slot = 0; slot < IMAGES_MAX; slot++) {
    struct watched *watched = watch->slots[slot].looked_at;
    bool present = watched && watched == watch->slots[slot].files && !watch->slots[slot].unsure;
    watch->slots[slot].looked_at = NULL;
    watched_drop(watched);
    if (!present || watch->stopped || watch->slots[slot].verdict == watch->slots[slot].told) continue;
    watch->slots[slot].told = watch->slots[slot].verdict;
    watch->saw(watch->owner, slot, watch->slots[slot].verdict, watch->slots[slot].why.text);
  }
  watch->looking = false;
  if (watch->stopped) watch_free(watch);
  else timer_set(reactor_env(watch->reactor), &watch->again, reactor_env(watch->reactor)->now_ns + LOOK_EVERY_NS);
}

static void look_again(struct timer *timer) {
  struct disk_watch *watch = CONTAINER_OF(timer, struct disk_watch, again);
  watch->looking = true;
  for (uint32_t slot = 0; slot < IMAGES_MAX; slot++) {
    watch->slots[slot].looked_at = watch->slots[slot].files;
    if (watch->slots[slot].files) watch->slots[slot].files->refs++;
  }
  reactor_run_blocking(watch->reactor, &watch->work, look, looked);
}

static bool watched_add(struct watched *watched, struct disk *opened) {
  struct data_file files[DISK_PARTS_MAX];
  uint32_t count = opened ? data_disk_files(opened, files) : 0;
  for (uint32_t i = 0; i < count; i++) {
    watched->files[watched->count].path = strdup(files[i].path);
    if (!watched->files[watched->count].path) return false;
    watched->files[watched->count].identity = *file_disk_identity(files[i].file);
    watched->files[watched->count].size_bytes = files[i].size_bytes;
    watched->count++;
  }
  return true;
}

bool disk_watch_set(struct disk_watch *watch, uint32_t slot, const struct image_disks *disks, uint32_t volume_count) {
  watched_drop(watch->slots[slot].files);
  watch->slots[slot].files = NULL;
  watch->slots[slot].told = WATCH_THERE;
  if (!disks) return true;
  size_t most = (size_t)volume_count * DISK_PARTS_MAX + 1;
  struct watched *watched = calloc(1, sizeof *watched + most * sizeof watched->files[0]);
  if (!watched) return false;
  watched->refs = 1;
  bool good = true;
  for (uint32_t i = 0; i < volume_count; i++) good = good && watched_add(watched, disks->data[i]);
  good = good && watched_add(watched, disks->meta);
  if (good) watch->slots[slot].files = watched;
  else watched_drop(watched);
  return good;
}

struct disk_watch *disk_watch_start(struct reactor *reactor, disk_watch_saw *saw, void *owner) {
  struct disk_watch *watch = calloc(1, sizeof *watch);
  if (!watch) return NULL;
  watch->reactor = reactor;
  watch->saw = saw;
  watch->owner = owner;
  timer_init(&watch->again, look_again);
  timer_set(reactor_env(reactor), &watch->again, reactor_env(reactor)->now_ns + LOOK_EVERY_NS);
  return watch;
}

void disk_watch_stop(struct disk_watch *watch) {
  if (!watch) return;
  watch->stopped = true;
  timer_cancel(&watch->again);
  if (!watch->looking) watch_free(watch);
}
