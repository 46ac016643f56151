/* Files come and go while a mirror runs: what the watch has seen of them (disk_watch.h), and opening an image's disks anew
 * when the core asks for it.
 *
 * Opening may hang with its file system. So a job has a copy of all it needs; when it takes too long, or the mirror must go on without
 * it, the core is answered that it failed, and the job, a stray from then on, closes what it has opened when it ends. Until then the
 * image is not opened again here: a mirror that falls over and over beside a file system that hangs would leave a thread each time. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shell/blank.h"
#include "shell/data_disk.h"
#include "shell/image_identity.h"
#include "shell/manager_internal.h"
#include "shell/tail.h"
#include "shell/trusted.h"

struct reopen {
  struct list link;        /* in managed->reopens, or in `strays` */
  struct managed *managed; /* NULL: a stray */
  struct manager *manager;
  struct reactor_work work;
  struct mirror_file file; /* a copy, for the worker */
  struct meta_sizes meta;
  uint32_t slot;
  bool make;         /* the administrator wants it back: metadata is made where there is none */
  bool anew;         /* ... and has said that what is there may go */
  uint8_t uuid[16];  /* the mirror's */
  uint64_t identity; /* that is recorded of the image's files; 0: none is */
  struct image_disks disks;
  struct timer again; /* armed: no worker has it, it waits for an NBD server to settle */
  struct timer limit; /* armed: a worker has it, and is waited for */
};

static struct list strays = {&strays, &strays}; /* the reactor's thread's */

static bool is_stray(const struct managed *managed, uint32_t slot) {
  LIST_EACH(&strays, node) {
    const struct reopen *reopen = LIST_ENTRY(node, struct reopen, link);
    if (reopen->slot == slot && strcmp(reopen->file.name, managed->file.name) == 0) return true;
  }
  return mirror_disks_are_stray(&managed->file, slot);
}

/* ---- what is there now is kept, until somebody says that it may go: the right disk may just not be mounted ---- */

static void keep(struct reopen *reopen, const char *what, const char *that_may_go) {
  struct why *why = &reopen->disks.why;
  because(why, TARN_REFUSED, "%s; if that may go, 'tarn image sync %s %s' %s", what, reopen->file.name,
          reopen->file.images[reopen->slot].name, that_may_go);
  image_disks_close(&reopen->disks);
  reopen->disks.settle_ns = 0;
}

static bool holds_data(int fd, const struct file_identity *identity) {
  return identity->is_block_device ? !blank_at_the_ends(fd, identity->size_bytes) : identity->has_data;
}

static bool path_holds_data(const char *path) {
  struct file_identity identity;
  int fd;
  if (trusted_open(path, O_RDONLY, TRUSTED_DATA, &fd, NULL) != TARN_OK) return true;
  bool holds = file_identify(fd, path, &identity, NULL) != TARN_OK || holds_data(fd, &identity);
  close(fd);
  return holds;
}

static void data_is_kept(struct reopen *reopen, const char *path) {
  struct why what;
  because(&what, TARN_REFUSED, "%s is not what it was, and holds data", path);
  keep(reopen, what.text, "copies over it");
}

/* Nobody knows which of them is another one: that may be one that is empty. */
static void one_of_several_is_kept(struct reopen *reopen, const char *path) {
  struct why what;
  because(&what, TARN_REFUSED, "one of the files of image %s is not what it was, and %s holds data",
          reopen->file.images[reopen->slot].name, path);
  keep(reopen, what.text, "copies over all of them");
}

static bool is_replaced(const struct reopen *reopen) {
  struct image_stamp found;
  image_disks_found(&reopen->disks, &reopen->file, reopen->slot, reopen->identity, &found);
  return reopen->identity != 0 && found.identity != 0 && found.identity != reopen->identity;
}

/* One of the image's files; NULL: none does. `count`: so many it has. */
static const char *file_with_data(const struct reopen *reopen, uint32_t *count) {
  const char *path = NULL;
  *count = 0;
  for (uint32_t v = 0; v < reopen->file.volume_count; v++) {
    struct data_file files[DISK_PARTS_MAX];
    uint32_t more = data_disk_files(reopen->disks.data[v], files);
    for (uint32_t i = 0; i < more && !path; i++)
      if (holds_data(file_disk_fd(files[i].file), file_disk_identity(files[i].file))) path = files[i].path;
    *count += more;
  }
  return path;
}

static bool keeps_data(struct reopen *reopen) {
  uint32_t count;
  if (reopen->anew || !is_replaced(reopen)) return false;
  const char *path = file_with_data(reopen, &count);
  if (!path) return false;
  if (count == 1) data_is_kept(reopen, path);
  else one_of_several_is_kept(reopen, path);
  return true;
}

/* A tail is told by its own uuid when it is opened; and what cannot be opened here cannot be opened later, which says why. */
static bool keeps_metadata(struct reopen *reopen) {
  const struct mirror_file_image *image = &reopen->file.images[reopen->slot];
  struct file_identity identity;
  struct why what;
  int fd;
  if (reopen->anew || image->tail.length) return false;
  if (trusted_open(image->meta, O_RDONLY, TRUSTED_OWN, &fd, NULL) != TARN_OK) return false;
  tarn_err err = file_identify(fd, image->meta, &identity, NULL);
  if (err == TARN_OK) err = blank_or_meta(fd, identity.is_block_device, identity.size_bytes);
  close(fd);
  if (err == TARN_EXISTS) {
    because(&what, err, "%s holds something other than metadata of Tarn", image->meta);
    keep(reopen, what.text, "writes over it");
  } else if (err != TARN_OK) {
    because(&reopen->disks.why, err, "%s cannot be read", image->meta);
    reopen->disks.settle_ns = 0;
  }
  return err != TARN_OK;
}

/* ---- metadata ---- */

/* On a disk that took the place of another: where it was, if there is nothing. */
static void tail_make_again(struct reopen *reopen) {
  const struct mirror_file *file = &reopen->file;
  uint32_t slot = reopen->slot;
  const struct mirror_file_image *image = &file->images[slot];
  char place[PATH_BYTES_MAX + 1];
  struct why note;
  struct file_identity identity;
  struct locator found;
  bool ours;
  if (image_place_find(file, slot, 0, place, &note) != PLACE_OWN) return; /* that is another image's */
  if (file_inspect(image->meta, &identity, NULL) != TARN_OK || identity.size_bytes < 2 * LOCATOR_ALIGN) return;
  if (image->tail.offset + image->tail.length > locator_place(identity.size_bytes, 0)) return;
  if (tail_is_empty(image->meta, identity.size_bytes, &image->tail, &ours, &found, NULL) != TARN_OK) return;
  if (!reopen->anew && path_holds_data(image->meta)) data_is_kept(reopen, image->meta);
  else (void)!tail_make(image->meta, &image->tail, NULL); /* opening it tells */
}

/* The administrator wants this image back: what its metadata needs is there, or is made, but never in place of a device. True: a file was
 * made. */
static bool metadata_make(struct reopen *reopen) {
  const struct mirror_file_image *image = &reopen->file.images[reopen->slot];
  const char *path = image->meta;
  struct file_identity identity;
  if (image->tail.length) {
    tail_make_again(reopen);
    return false;
  }
  tarn_err err = file_inspect(path, &identity, NULL);
  if (err == TARN_NOT_FOUND && !path_is_for_devices(path)) return file_create(path, reopen->meta.best, NULL) == TARN_OK;
  if (err == TARN_OK && !identity.is_block_device && identity.size_bytes < reopen->meta.least) {
    int fd;
    err = trusted_open(path, O_RDWR, TRUSTED_OWN, &fd, NULL);
    if (err == TARN_OK && ftruncate(fd, (off_t)reopen->meta.best) != 0) err = TARN_IO;
    if (fd >= 0) close(fd);
  }
  (void)err; /* opening it tells */
  return false;
}

/* Nothing came of it, or not yet: the right disk may just not be mounted there. A later try must not find the file open that has no name
 * any more; it makes another one. */
static void metadata_unmake(struct reopen *reopen) {
  struct image_disks *disks = &reopen->disks;
  if (disks->meta) disk_close(disks->meta);
  disks->meta = NULL;
  (void)!trusted_remove(reopen->file.images[reopen->slot].meta, NULL);
}

/* ---- opening ---- */

static void reopen_work(struct reactor_work *work) {
  struct reopen *reopen = CONTAINER_OF(work, struct reopen, work);
  const struct mirror_file_image *image = &reopen->file.images[reopen->slot];
  reopen->disks.why.text[0] = 0;
  bool make = reopen->make && !image->unknown;
  if (make && keeps_metadata(reopen)) return; /* before it is made longer, by whomever */
  bool made = make && metadata_make(reopen);
  if (reopen->disks.why.text[0]) return;
  image_disks_open(reopen->manager->options.reactor, &reopen->file, reopen->slot, &reopen->meta, &reopen->disks);
  image_disks_check(&reopen->file, reopen->slot, reopen->uuid, &reopen->disks);
  bool in_vain = reopen->disks.why.text[0] || (reopen->make && keeps_data(reopen));
  if (made && in_vain) metadata_unmake(reopen);
}

static uint64_t wait_s(const struct reopen *reopen) {
  return (uint64_t)reopen->file.images[reopen->slot].settings.values[SET_HANG] + LOCK_WAIT_MORE_S;
}

static void reopened(struct reactor_work *work);
static void reopen_start(struct reopen *reopen) {
  struct env *env = reopen->manager->env;
  timer_set(env, &reopen->limit, env->now_ns + wait_s(reopen) * NS_PER_S);
  reactor_run_blocking(reopen->manager->options.reactor, NULL, &reopen->work, reopen_work, reopened);
}

static void reopen_again(struct timer *timer) { reopen_start(CONTAINER_OF(timer, struct reopen, again)); }

static void reopen_free(struct reopen *reopen) {
  require(!timer_is_armed(&reopen->again) && !timer_is_armed(&reopen->limit));
  mirror_file_release(&reopen->file);
  free(reopen);
}

static void reopened(struct reactor_work *work) {
  struct reopen *reopen = CONTAINER_OF(work, struct reopen, work);
  struct managed *managed = reopen->managed;
  uint32_t slot = reopen->slot;
  timer_cancel(&reopen->limit);
  if (!managed) {
    list_remove(&reopen->link);
    image_disks_close(&reopen->disks);
    reopen->manager->strays--;
    manager_resume(reopen->manager);
    reopen_free(reopen);
    return;
  }
  struct mirror_image_config config;
  if (reopen->disks.why.text[0] && reopen->disks.settle_ns > 0) {
    timer_set(managed->manager->env, &reopen->again, managed->manager->env->now_ns + reopen->disks.settle_ns);
    return;
  }
  list_remove(&reopen->link);
  if (reopen->disks.why.text[0]) image_disks_close(&reopen->disks); /* some of them is no use */
  else {
    faults_wrap(managed, slot, &reopen->disks);
    watch_forget(managed, slot);
  }
  managed->disks.images[slot] = reopen->disks;
  reopen_free(reopen);
  devices_note(managed, slot);
  watch_image(managed, slot);
  managed_image_config(managed, slot, &config);
  mirror_image_reopened(managed->mirror, slot, &config);
}

static void too_late(struct timer *timer);
void managed_reopen(struct mirror *mirror, uint32_t slot, bool make) {
  struct managed *managed = mirror_owner(mirror);
  struct mirror_status status;
  if (managed->watch) disk_watch_set(managed->watch, slot, NULL, 0);
  image_disks_close(&managed->disks.images[slot]);
  bool can = managed_runs(managed) && !aside_has(managed, slot) && !is_stray(managed, slot);
  struct reopen *reopen = can ? calloc(1, sizeof *reopen) : NULL;
  if (!reopen) { /* the answer must come later */
    managed->reopen_refused |= 1u << slot;
    managed_poke(managed);
    return;
  }
  reopen->managed = managed;
  reopen->manager = managed->manager;
  reopen->slot = slot;
  reopen->make = make;
  const struct record *recorded = mirror_recorded(mirror);
  reopen->anew = make && managed->task && managed->task->op == IMAGE_OP_SYNC;
  reopen->identity = recorded ? recorded->images[slot].stamp.identity : 0;
  mirror_status(mirror, &status);
  memcpy(reopen->uuid, status.uuid, sizeof reopen->uuid);
  reopen->meta = managed->disks.meta;
  mirror_file_copy(&reopen->file, &managed->file);
  list_init(&reopen->link);
  timer_init(&reopen->again, reopen_again);
  timer_init(&reopen->limit, too_late);
  list_push(&managed->reopens, &reopen->link);
  reopen_start(reopen);
}

static void refusal(const struct managed *managed, uint32_t slot, struct why *why) {
  if (!managed_runs(managed)) because(why, TARN_REFUSED, "the mirror is stopping");
  else if (is_stray(managed, slot))
    because(why, TARN_HUNG, "what it lies on does not answer: an earlier try to open its files still waits");
  else if (!aside_image_explain(managed, slot, why)) because(why, TARN_REFUSED, "there is not enough memory");
}

static void reopen_refuse(struct managed *managed, uint32_t slot, const char *why) {
  struct mirror_image_config config;
  managed->disks.images[slot] = (struct image_disks){.locked = false};
  because(&managed->disks.images[slot].why, TARN_REFUSED, "%s", why);
  managed_image_config(managed, slot, &config);
  mirror_image_reopened(managed->mirror, slot, &config);
}

/* A worker has it, and nobody waits for that any more. */
static void reopen_leave(struct reopen *reopen) {
  timer_cancel(&reopen->limit);
  reopen->managed = NULL;
  list_push(&strays, &reopen->link);
  reopen->manager->strays++;
}

static void too_late(struct timer *timer) {
  struct reopen *reopen = CONTAINER_OF(timer, struct reopen, limit);
  struct managed *managed = reopen->managed;
  struct why why;
  because(&why, TARN_HUNG, "what it lies on does not answer: its files did not open in %llu s",
          (unsigned long long)wait_s(reopen));
  list_remove(&reopen->link);
  reopen_leave(reopen);
  reopen_refuse(managed, reopen->slot, why.text);
}

/* What is with a disk that failed is given up where that can be done: else a server that never answers would keep its image
 * away, and the mirror from being closed, for ever. */
static void held_give_up(struct managed *managed) {
  struct mirror_status status;
  uint32_t remote = 0;
  for (uint32_t slot = 0; slot < managed->file.slot_count; slot++)
    for (uint32_t i = 0; i < managed->file.volume_count; i++)
      if (disk_text_kind(managed->file.images[slot].paths[i]) == DISK_KIND_NBD) remote |= 1u << slot;
  if (!remote || !managed->mirror) return;
  mirror_status(managed->mirror, &status);
  for (uint32_t slot = 0; slot < status.image_count; slot++)
    if (remote & 1u << slot && status.images[slot].io_held > 0) image_disks_abort(&managed->disks.images[slot]);
}

void reopens_look(struct managed *managed) {
  held_give_up(managed);
  while (managed->reopen_refused) {
    uint32_t slot = (uint32_t)__builtin_ctz(managed->reopen_refused);
    managed->reopen_refused &= managed->reopen_refused - 1;
    struct why why;
    refusal(managed, slot, &why);
    reopen_refuse(managed, slot, why.text);
  }
}

void reopens_give_up(struct managed *managed, const char *why) {
  struct list *node;
  while ((node = list_pop(&managed->reopens)) != NULL) {
    struct reopen *reopen = LIST_ENTRY(node, struct reopen, link);
    uint32_t slot = reopen->slot;
    if (timer_is_armed(&reopen->again)) {
      timer_cancel(&reopen->again);
      image_disks_close(&reopen->disks);
      reopen_free(reopen);
    } else reopen_leave(reopen);
    reopen_refuse(managed, slot, why);
  }
  if (managed->mirror) reopens_look(managed);
}

/* ---- watching ---- */

static void watch_saw(void *owner, uint32_t slot, enum watch_verdict verdict, const char *why) {
  struct managed *managed = owner;
  uint32_t bit = 1u << slot;
  bool stops = managed->down_done && managed->mirror && !managed->ending; /* its last record is still to come */
  if (verdict == WATCH_THERE) managed->gone &= ~bit;
  else managed->gone |= bit;
  if (verdict == WATCH_SPOILED) managed->spoiled |= bit;
  if (verdict == WATCH_THERE)
    report(managed->manager->env, REPORT_INFO, managed->file.name, "the files of image %s are at their paths again",
           managed->file.images[slot].name);
  else if ((managed_runs(managed) || stops) && verdict == WATCH_SPOILED)
    mirror_image_spoiled(managed->mirror, slot, why);
  else if (managed_runs(managed)) mirror_image_failed(managed->mirror, slot, why);
  managed_poke(managed);
}

void watch_forget(struct managed *managed, uint32_t slot) {
  managed->gone &= ~(1u << slot);
  managed->spoiled &= ~(1u << slot);
}

void watch_image(struct managed *managed, uint32_t slot) {
  if (!managed->watch) return;
  if (!disk_watch_set(managed->watch, slot, &managed->disks.images[slot], managed->file.volume_count))
    report(managed->manager->env, REPORT_WARNING, managed->file.name,
           "the files of image %s are not watched: there is not enough memory", managed->file.images[slot].name);
}

void watch_start(struct managed *managed) {
  managed->watch = disk_watch_start(managed->manager->options.reactor, watch_saw, managed);
  if (!managed->watch)
    report(managed->manager->env, REPORT_WARNING, managed->file.name,
           "its files are not watched: there is not enough memory");
  for (uint32_t slot = 0; slot < managed->file.slot_count; slot++)
    if (managed->file.images[slot].present) watch_image(managed, slot);
}

void kept_explain(const struct managed *managed, struct why *why) {
  uint32_t slot = (uint32_t)__builtin_ctz(managed->last_good);
  const char *name = managed->file.images[slot].name, *mirror = managed->file.name;
  struct disk *disk = managed->disks.images[slot].data[0];
  struct data_file files[DISK_PARTS_MAX];
  int pid = (int)getpid(), fd = disk && data_disk_files(disk, files) > 0 ? file_disk_fd(files[0].file) : -1;
  if (managed->spoiled & 1u << slot)
    because(why, TARN_REFUSED,
            "the file of image %s, the last good one, was made shorter, so a part of its data is lost; save the rest "
            "from /proc/%d/fd/%d, then 'tarn mirror deactivate %s'",
            name, pid, fd, mirror);
  else
    because(why, TARN_REFUSED,
            "a file of image %s, the last good one, is not at its path any more: put it back; or save its data from "
            "/proc/%d/fd/%d, then 'tarn mirror deactivate %s' gives it up",
            name, pid, fd, mirror);
}
