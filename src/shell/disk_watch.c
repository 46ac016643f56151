/* A watch is one allocation that outlives its owner's interest while a look is under way: disk_watch_stop() marks it, and the
 * end of the look frees it. */
#include "shell/disk_watch.h"

#include <stdlib.h>
#include <string.h>

#include "shell/file_disk.h"

#define LOOK_EVERY_NS NS_PER_S

struct watched {
  char *path;
  uint32_t slot;
  struct file_identity identity;
  uint64_t size_bytes;
  tarn_err err; /* what the last look found */
  struct why why;
  bool told;
};

struct disk_watch {
  struct reactor *reactor;
  struct reactor_work work;
  struct timer again;
  disk_watch_gone *gone;
  void *owner;
  bool looking, stopped;
  uint32_t count;
  struct watched files[];
};

static void watch_free(struct disk_watch *watch) {
  require(!watch->looking);
  timer_cancel(&watch->again);
  for (uint32_t i = 0; i < watch->count; i++) free(watch->files[i].path);
  free(watch);
}

static void look(struct reactor_work *work) {
  struct disk_watch *watch = CONTAINER_OF(work, struct disk_watch, work);
  for (uint32_t i = 0; i < watch->count; i++) {
    struct watched *file = &watch->files[i];
    if (!file->told) file->err = file_still_there(file->path, &file->identity, file->size_bytes, &file->why);
  }
}

static void looked(struct reactor_work *work) {
  struct disk_watch *watch = CONTAINER_OF(work, struct disk_watch, work);
  for (uint32_t i = 0; i < watch->count && !watch->stopped; i++) {
    struct watched *file = &watch->files[i];
    if (file->told || file->err != TARN_GONE) continue; /* what cannot be told is no reason to drop an image */
    file->told = true;
    watch->gone(watch->owner, file->slot, file->why.text);
  }
  watch->looking = false;
  if (watch->stopped) watch_free(watch);
  else timer_set(reactor_env(watch->reactor), &watch->again, reactor_env(watch->reactor)->now_ns + LOOK_EVERY_NS);
}

static void look_again(struct timer *timer) {
  struct disk_watch *watch = CONTAINER_OF(timer, struct disk_watch, again);
  watch->looking = true;
  reactor_run_blocking(watch->reactor, &watch->work, look, looked);
}

static bool watch_add(struct disk_watch *watch, uint32_t slot, const struct disk *disk) {
  if (!disk) return true;
  struct watched *file = &watch->files[watch->count];
  *file = (struct watched){.slot = slot,
                           .identity = *file_disk_identity(disk),
                           .size_bytes = disk->caps.size_bytes,
                           .path = strdup(file_disk_path(disk))};
  if (!file->path) return false;
  watch->count++;
  return true;
}

struct disk_watch *disk_watch_start(const struct mirror_disks *disks, disk_watch_gone *gone, void *owner) {
  uint32_t most = disks->file->slot_count * (disks->file->volume_count + 1);
  struct disk_watch *watch = calloc(1, sizeof *watch + most * sizeof watch->files[0]);
  if (!watch) return NULL;
  watch->reactor = disks->reactor;
  watch->gone = gone;
  watch->owner = owner;
  timer_init(&watch->again, look_again);
  bool good = true;
  for (uint32_t slot = 0; slot < disks->file->slot_count; slot++) {
    good = good && watch_add(watch, slot, disks->images[slot].meta);
    for (uint32_t i = 0; i < disks->file->volume_count; i++)
      good = good && watch_add(watch, slot, disks->images[slot].data[i]);
  }
  if (good) {
    timer_set(reactor_env(watch->reactor), &watch->again, reactor_env(watch->reactor)->now_ns + LOOK_EVERY_NS);
    return watch;
  }
  watch_free(watch);
  return NULL;
}

void disk_watch_stop(struct disk_watch *watch) {
  if (!watch) return;
  watch->stopped = true;
  timer_cancel(&watch->again);
  if (!watch->looking) watch_free(watch);
}
