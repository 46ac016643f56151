/* The one list of shared files is the process's: which descriptor holds a file's lock is a fact about the process. Workers join
 * and leave under its mutex, and never do anything that may block while they hold it. */
#include "shell/file_share.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "shell/trusted.h"

struct share {
  struct list link; /* in `shares`; not linked: dead, nobody joins it any more */
  struct file_identity identity;
  struct disk *disk; /* NULL: busy, being opened or closed */
  struct list uses;
};

struct file_use {
  struct list link; /* in share->uses */
  struct share *share;
  uint64_t offset, length;
  struct file_user user;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t settled = PTHREAD_COND_INITIALIZER;
static struct list shares = {&shares, &shares};

/* ---- under the mutex ---- */

static struct share *share_find(const struct file_identity *identity) {
  LIST_EACH(&shares, node) {
    struct share *share = LIST_ENTRY(node, struct share, link);
    if (file_identity_same(&share->identity, identity)) return share;
  }
  return NULL;
}

static bool is_used(const struct share *share, const struct file_use *use) {
  LIST_EACH(&share->uses, node) {
    const struct file_use *other = LIST_ENTRY(node, struct file_use, link);
    if (use->offset < other->offset + other->length && other->offset < use->offset + use->length) return true;
  }
  return false;
}

static void use_begin(struct share *share, struct file_use *use) {
  use->share = share;
  list_push(&share->uses, &use->link);
}

/* The share that has no use left is the caller's to free, outside of the mutex. Until then it stays in the list as one that is
 * busy, so that who comes waits for its lock to go instead of meeting it. */
static struct share *use_end(struct file_use *use, struct disk **disk) {
  struct share *share = use->share;
  list_remove(&use->link);
  use->share = NULL;
  *disk = NULL;
  if (!list_is_empty(&share->uses)) return NULL;
  *disk = share->disk;
  share->disk = NULL;
  return share;
}

static struct share *share_new(const struct file_identity *identity) {
  struct share *share = calloc(1, sizeof *share);
  if (!share) return NULL;
  share->identity = *identity;
  list_init(&share->link);
  list_init(&share->uses);
  list_push(&shares, &share->link);
  return share;
}

/* ---- joining and leaving ---- */

static void share_free(struct share *share, struct disk *disk) {
  if (!share) return;
  if (disk) disk_close(disk);
  pthread_mutex_lock(&mutex);
  list_remove(&share->link);
  pthread_cond_broadcast(&settled);
  pthread_mutex_unlock(&mutex);
  free(share);
}

/* What pread(2) says of the first block; -1: an error. */
static ssize_t first_block_read(int fd) {
  void *block;
  if (posix_memalign(&block, BUFFER_ALIGN, BUFFER_ALIGN) != 0) return -1;
  ssize_t got = pread(fd, block, BUFFER_ALIGN, 0);
  free(block);
  return got;
}

/* It is empty now, or was removed and is back: then who opens it now can read it. A block that nobody can read shows
 * neither: bad blocks are the mirror's business, wherever they lie. */
static bool is_dead(const struct disk *disk, const char *path) {
  ssize_t got = first_block_read(file_disk_fd(disk));
  if (got >= 0) return got == 0;
  int fd;
  bool back = trusted_open(path, O_RDONLY | O_DIRECT, TRUSTED_DATA, &fd, NULL) == TARN_OK && first_block_read(fd) > 0;
  if (fd >= 0) close(fd);
  return back;
}

/* Nobody joins it any more; who comes opens the file anew. */
static void share_give_up(struct file_use *use) {
  pthread_mutex_lock(&mutex);
  list_remove(&use->share->link);
  struct disk *disk;
  struct share *idle = use_end(use, &disk);
  pthread_mutex_unlock(&mutex);
  share_free(idle, disk);
}

static tarn_err open_new(struct reactor *reactor, const char *path, struct file_use *use, struct why *why) {
  struct file_disk_options options = {.reactor = reactor, .path = path};
  struct disk *disk = NULL, *none;
  struct share *share = use->share, *idle = NULL;
  tarn_err err = file_disk_open(&options, &disk, NULL, why);
  pthread_mutex_lock(&mutex);
  share->disk = disk;
  if (err == TARN_OK) share->identity = *file_disk_identity(disk);
  else idle = use_end(use, &none);
  pthread_cond_broadcast(&settled);
  pthread_mutex_unlock(&mutex);
  share_free(idle, NULL);
  return err;
}

/* TARN_STALE: there is a share, but it is dead. */
static tarn_err join_or_open(struct reactor *reactor, const char *path, struct file_use *use, struct why *why) {
  struct file_identity identity;
  tarn_err err = file_inspect(path, &identity, why);
  if (err != TARN_OK) return err;
  pthread_mutex_lock(&mutex);
  struct share *share;
  while ((share = share_find(&identity)) != NULL && !share->disk) pthread_cond_wait(&settled, &mutex);
  bool joins = share != NULL, used = joins && is_used(share, use);
  if (!joins) share = share_new(&identity);
  if (share && !used) use_begin(share, use);
  pthread_mutex_unlock(&mutex);
  if (!share) return because(why, TARN_IO, "no memory to open %s", path);
  if (used) return because(why, TARN_FULL, "%s is in use there by another image of this node", path);
  if (!joins) return open_new(reactor, path, use, why);
  if (!is_dead(share->disk, path)) return TARN_OK;
  share_give_up(use);
  return TARN_STALE;
}

tarn_err file_share_open(struct reactor *reactor, const char *path, uint64_t offset, uint64_t length,
                         struct file_use **out, struct why *why) {
  require(length > 0);
  struct file_use *use = calloc(1, sizeof *use);
  *out = NULL;
  if (!use) return because(why, TARN_IO, "no memory to open %s", path);
  use->offset = offset;
  use->length = length;
  use->user.need_bytes = offset + length;
  list_init(&use->link);
  tarn_err err;
  do err = join_or_open(reactor, path, use, why);
  while (err == TARN_STALE);
  if (err != TARN_OK) {
    free(use);
    return err;
  }
  uint64_t have = file_use_disk(use)->caps.size_bytes;
  if (offset > have || length > have - offset) {
    file_share_close(use);
    return because(why, TARN_INVALID, "%s is too small: it has %llu bytes, its part ends at %llu", path,
                   (unsigned long long)have, (unsigned long long)(offset + length));
  }
  use->user.user.losses_told = file_disk_losses(file_use_disk(use)); /* what was lost before is none of its */
  *out = use;
  return TARN_OK;
}

struct disk *file_use_disk(const struct file_use *use) {
  return use->share->disk;
}

struct file_user *file_use_user(struct file_use *use) {
  return &use->user;
}

void file_share_close(struct file_use *use) {
  struct disk *disk;
  pthread_mutex_lock(&mutex);
  struct share *idle = use_end(use, &disk);
  pthread_mutex_unlock(&mutex);
  share_free(idle, disk);
  free(use);
}

bool file_share_has(const struct file_identity *identity) {
  pthread_mutex_lock(&mutex);
  bool has = share_find(identity) != NULL;
  pthread_mutex_unlock(&mutex);
  return has;
}
