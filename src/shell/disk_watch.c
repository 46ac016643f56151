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
    struct file_user *user; /* the open disk's, for the reactor's thread; as long as these are the slot's files */
  } files[];                /* of all parts of all disks */
};

struct watch_slot {
  struct disk_watch *watch;
  struct watched *files;
  enum watch_verdict told;
  struct event cut; /* an I/O has found a file cut */
  struct reactor_work work;
  struct watched *looked_at; /* NULL: no look at them is under way */
  /* the thread's, during a look */
  enum watch_verdict verdict;
  bool unsure; /* as long as it cannot be told, an image is neither dropped nor called back */
  struct why why;
};

struct disk_watch {
  struct reactor *reactor;
  struct timer again;
  disk_watch_saw *saw;
  void *owner;
  bool stopped;
  uint32_t looking; /* slots */
  struct watch_slot slots[IMAGES_MAX];
};

static void watched_drop(struct watched *watched) {
  if (!watched || --watched->refs > 0) return;
  for (uint32_t i = 0; i < watched->count; i++) free(watched->files[i].path);
  free(watched);
}

static void listen_to(struct watched *watched, struct event *told) {
  for (uint32_t i = 0; i < watched->count; i++) watched->files[i].user->told = told;
}

static void files_forget(struct watch_slot *slot) {
  if (slot->files) listen_to(slot->files, NULL);
  event_cancel(&slot->cut);
  watched_drop(slot->files);
  slot->files = NULL;
}

static void watch_free(struct disk_watch *watch) {
  require(watch->looking == 0);
  timer_cancel(&watch->again);
  free(watch);
}

static void look(struct reactor_work *work) {
  struct watch_slot *slot = CONTAINER_OF(work, struct watch_slot, work);
  const struct watched *watched = slot->looked_at;
  struct why why;
  slot->verdict = WATCH_THERE;
  slot->unsure = false;
  for (uint32_t i = 0; i < watched->count; i++) {
    tarn_err err =
        file_still_there(watched->files[i].path, &watched->files[i].identity, watched->files[i].size_bytes, &why);
    enum watch_verdict found = err == TARN_GONE ? WATCH_GONE : err == TARN_CORRUPT ? WATCH_SPOILED : WATCH_THERE;
    slot->unsure |= err != TARN_OK && found == WATCH_THERE;
    if (found <= slot->verdict) continue;
    slot->verdict = found;
    slot->why = why;
  }
  slot->unsure &= slot->verdict == WATCH_THERE;
}

/* The first of the files that an I/O has found cut; what a look finds does not count any more then, for it may be as long as before. */
static const char *is_cut(const struct watched *watched) {
  for (uint32_t i = 0; i < watched->count; i++)
    if (watched->files[i].user->cut) return watched->files[i].path;
  return NULL;
}

static void cut_found(struct event *event) {
  struct watch_slot *slot = CONTAINER_OF(event, struct watch_slot, cut);
  struct disk_watch *watch = slot->watch;
  struct why why;
  if (slot->told == WATCH_SPOILED) return;
  slot->told = WATCH_SPOILED;
  because(&why, TARN_CORRUPT, "%s was made shorter", is_cut(slot->files));
  watch->saw(watch->owner, (uint32_t)(slot - watch->slots), WATCH_SPOILED, why.text);
}

static void looked(struct reactor_work *work) {
  struct watch_slot *slot = CONTAINER_OF(work, struct watch_slot, work);
  struct disk_watch *watch = slot->watch;
  bool present = slot->looked_at == slot->files && !slot->unsure && !watch->stopped;
  watched_drop(slot->looked_at);
  slot->looked_at = NULL;
  if (present && slot->verdict != slot->told && !is_cut(slot->files)) {
    slot->told = slot->verdict;
    watch->saw(watch->owner, (uint32_t)(slot - watch->slots), slot->verdict, slot->why.text);
  }
  watch->looking--; /* only now: it may have been stopped just then */
  if (watch->stopped && watch->looking == 0) watch_free(watch);
}

/* An image whose last look has not ended is looked at by it; the others are looked at all the same. */
static void look_again(struct timer *timer) {
  struct disk_watch *watch = CONTAINER_OF(timer, struct disk_watch, again);
  for (uint32_t i = 0; i < IMAGES_MAX; i++) {
    struct watch_slot *slot = &watch->slots[i];
    if (!slot->files || slot->looked_at) continue;
    slot->looked_at = slot->files;
    slot->looked_at->refs++;
    watch->looking++;
    reactor_run_blocking(watch->reactor, NULL, &slot->work, look, looked);
  }
  timer_set(reactor_env(watch->reactor), &watch->again, reactor_env(watch->reactor)->now_ns + LOOK_EVERY_NS);
}

static bool watched_add(struct watched *watched, struct disk *opened) {
  struct data_file files[DISK_PARTS_MAX];
  uint32_t count = opened ? data_disk_files(opened, files) : 0;
  for (uint32_t i = 0; i < count; i++) {
    watched->files[watched->count].path = strdup(files[i].path);
    if (!watched->files[watched->count].path) return false;
    watched->files[watched->count].identity = *file_disk_identity(files[i].file);
    watched->files[watched->count].size_bytes = files[i].size_bytes;
    watched->files[watched->count].user = files[i].user;
    watched->count++;
  }
  return true;
}

bool disk_watch_set(struct disk_watch *watch, uint32_t slot, const struct image_disks *disks, uint32_t volume_count) {
  files_forget(&watch->slots[slot]);
  watch->slots[slot].told = WATCH_THERE;
  if (!disks) return true;
  size_t most = (size_t)volume_count * DISK_PARTS_MAX + 1;
  struct watched *watched = calloc(1, sizeof *watched + most * sizeof watched->files[0]);
  if (!watched) return false;
  watched->refs = 1;
  bool good = true;
  for (uint32_t i = 0; i < volume_count; i++) good = good && watched_add(watched, disks->data[i]);
  good = good && watched_add(watched, disks->meta);
  if (!good) {
    watched_drop(watched);
    return false;
  }
  watch->slots[slot].files = watched;
  listen_to(watched, &watch->slots[slot].cut);
  if (is_cut(watched))
    event_post(&reactor_env(watch->reactor)->queue, &watch->slots[slot].cut); /* before we listened */
  return true;
}

struct disk_watch *disk_watch_start(struct reactor *reactor, disk_watch_saw *saw, void *owner) {
  struct disk_watch *watch = calloc(1, sizeof *watch);
  if (!watch) return NULL;
  watch->reactor = reactor;
  watch->saw = saw;
  watch->owner = owner;
  for (uint32_t i = 0; i < IMAGES_MAX; i++) {
    watch->slots[i].watch = watch;
    event_init(&watch->slots[i].cut, cut_found);
  }
  timer_init(&watch->again, look_again);
  timer_set(reactor_env(reactor), &watch->again, reactor_env(reactor)->now_ns + LOOK_EVERY_NS);
  return watch;
}

void disk_watch_stop(struct disk_watch *watch) {
  if (!watch) return;
  watch->stopped = true;
  for (uint32_t i = 0; i < IMAGES_MAX; i++) files_forget(&watch->slots[i]);
  timer_cancel(&watch->again);
  if (watch->looking == 0) watch_free(watch);
}
