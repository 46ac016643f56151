/* file_disk.c - see file_disk.h.
 *
 * An I/O takes a slot from a fixed pool and goes through steps; every step is one system call: by the ring, by a thread of the disk's
 * lane or, for memory-backed files, made at once inside submit. A step's result leads to the next:
 *
 *     read, write    STEP_DATA, by the ring; where that would wait, once more by a thread; again for the rest after a short count;
 *                    then, for FUA where RWF_DSYNC is not known to be obeyed, STEP_SYNC
 *     flush          STEP_SYNC, by a thread
 *     trim, zeroes   STEP_PUNCH (or STEP_ZERO, when there must be no hole; where that is unknown STEP_PUNCH, STEP_ALLOCATE), by a
 *                    thread, then STEP_SYNC for FUA
 *
 * Behind a good STEP_SYNC the I/O keeps its slot, until all syncs that were under way then have ended (sync_waits). It is not under
 * way itself meanwhile, and what begins later is not waited for: so each waits for older ones only, never in a circle.
 *
 * EXTENTS takes no slot: one at a time is done by a thread, the others wait in line.
 *
 * A write that the ring gave back may have been done in part; the thread does all of it again, with the same bytes.
 *
 * Power lost at any point: nothing was promised before the last step's result, and what was promised, DSYNC or fdatasync
 * has put on stable storage. RWF_DSYNC is relied on only where it is known to be obeyed: Linux forgets it for a direct
 * write that completes asynchronously on FUSE (tests/system/power.py shows it), and other file systems may. No step
 * changes the size of a file, as long as nobody else does (call_check). */
#include "shell/file_disk.h"
#include "shell/trusted.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define IO_COUNT_DEFAULT 128u /* well below what a ring, and a device, take: the rest would wait there */
#define TRIES_MAX        100u
#define SEEK_BYTES_MAX   (64ull << 30) /* of one EXTENTS: it must not look like a hang; the first run may reach beyond */

enum step { STEP_DATA, STEP_PUNCH, STEP_ZERO, STEP_ALLOCATE, STEP_SYNC };

struct slot {
  struct list link; /* in the disk's `free`, `syncing` or `synced` */
  struct reactor_op op;
  struct reactor_work work;
  int result; /* of the call that a thread made */
  struct disk_io *io;
  enum step step;
  uint64_t done_bytes; /* of a read or write */
  uint32_t tries;      /* calls of a thread that were to be made again */
  uint64_t losses;     /* of the disk, when the I/O began */
  uint64_t sync;       /* in `syncing`: its number; in `synced`: that of the last one that it waits for */
  bool cut;            /* the file is shorter than its user needs it: this I/O fails */
};

/* A file that is being closed, by a thread; in `closings`. */
struct closing {
  struct list link;
  struct file_identity identity;
  int fd;
};

struct file_disk {
  struct disk disk;
  struct reactor *reactor;
  struct reactor_lane lane;
  int fd;
  bool direct;                /* open O_DIRECT */
  bool no_zero_range;         /* this file cannot ZERO_RANGE: found out by the first try */
  bool only_waits[2];         /* reads, writes are for threads: known from the start, or found out by the first try */
  uint64_t losses;            /* syncs that failed */
  uint64_t sync_count;        /* that were begun, ever */
  struct file_user only_user; /* of an I/O that does not say whose it is */
  struct file_identity identity;
  char *path;
  struct slot *slots;
  struct closing *closing; /* for the end */
  struct list free;        /* struct slot */
  struct list syncing; /* struct slot: with the kernel, or on the way, and it may be told of a loss; the oldest first */
  struct list synced;  /* struct slot: done well, while others of `syncing` may have been told what it was to be told */
  struct list waiting; /* struct disk_io, for a slot */
  uint64_t slots_moved; /* I/Os that have ended in a slot */
  struct {
    struct reactor_work work;
    struct disk_io *io; /* that a worker has; NULL: none */
    tarn_err err;
    bool cut;
    struct list waiting; /* struct disk_io, behind that one */
  } extents;
};

static struct file_disk *file_of(struct disk *disk) { return CONTAINER_OF(disk, struct file_disk, disk); }

/* ---- files that are cut ---- */

static struct file_user *user_of(struct file_disk *file, const struct disk_io *io) {
  return io->user ? CONTAINER_OF(io->user, struct file_user, user) : &file->only_user;
}

/* 0, or -errno: it cannot be told. From any thread. What the kernel knows, without asking a server: that is all that happens on this
 * machine. Only the size is asked for: to ask for the times as well makes the next write change them in full, which RWF_NOWAIT
 * refuses (on XFS every write became a thread's). */
static int size_look(const struct file_disk *file, uint64_t need_bytes, bool *cut) {
  struct statx status;
  if (file->identity.is_block_device) return 0; /* no write makes it longer */
  if (statx(file->fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_SIZE, &status) != 0) return -errno;
  if (status.stx_size < need_bytes) *cut = true;
  return 0;
}

/* By whoever makes the call, right before it. 0: it may be made. */
static int call_check(struct file_disk *file, struct slot *slot) {
  int error = 0;
  if (slot->step == STEP_DATA && slot->io->op == DISK_WRITE && !slot->cut)
    error = size_look(file, user_of(file, slot->io)->need_bytes, &slot->cut);
  return slot->cut ? -EIO : error;
}

static void cut_tell(struct file_disk *file, struct file_user *user) {
  if (user->cut) return;
  user->cut = true;
  if (user->told && !event_is_posted(user->told)) event_post(&file->disk.env->queue, user->told);
}

/* ---- steps ---- */

static tarn_err error_of(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT: return TARN_NO_SPACE;
    case ENODEV:
    case ENXIO: return TARN_GONE;
    case EOPNOTSUPP: return TARN_UNSUPPORTED;
    default: return TARN_IO;
  }
}

static int fallocate_mode(enum step step) {
  switch (step) {
    case STEP_PUNCH: return FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    case STEP_ZERO: return FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
    case STEP_ALLOCATE: return FALLOC_FL_KEEP_SIZE;
    case STEP_DATA:
    case STEP_SYNC: break;
  }
  require(false);
  return 0;
}

static enum step step_first(const struct file_disk *file, const struct disk_io *io) {
  switch (io->op) {
    case DISK_READ:
    case DISK_WRITE: return STEP_DATA;
    case DISK_FLUSH: return STEP_SYNC;
    case DISK_TRIM: return STEP_PUNCH;
    case DISK_WRITE_ZEROES: return (io->flags & DISK_NO_HOLE) && !file->no_zero_range ? STEP_ZERO : STEP_PUNCH;
    case DISK_EXTENTS:
    case DISK_OP_COUNT: break;
  }
  require(false);
  return STEP_SYNC;
}

/* What follows a fallocate that ended with `result`; false when nothing does and *err is the end. */
static bool zero_next(struct file_disk *file, struct slot *slot, int result, tarn_err *err) {
  const struct disk_io *io = slot->io;
  bool keep = io->op == DISK_WRITE_ZEROES && (io->flags & DISK_NO_HOLE);
  bool unsupported = result == -EOPNOTSUPP;
  switch (slot->step) {
    case STEP_PUNCH:
      if (unsupported && file->identity.is_block_device) { /* it can, but not by itself: the kernel writes zeroes */
        slot->step = STEP_ZERO;
        return true;
      }
      if (result == 0 && keep && !file->identity.is_block_device) {
        slot->step = STEP_ALLOCATE;
        return true;
      }
      break;
    case STEP_ZERO:
      if (unsupported && !file->identity.is_block_device) {
        file->no_zero_range = true;
        slot->step = STEP_PUNCH;
        return true;
      }
      break;
    case STEP_ALLOCATE:
      if (unsupported) result = 0; /* the zeroes are there; this file system just does not do reservations */
      break;
    case STEP_DATA:
    case STEP_SYNC: require(false);
  }
  *err = result < 0 ? error_of(-result) : TARN_OK;
  if (*err || !(io->flags & DISK_FUA)) return false;
  slot->step = STEP_SYNC;
  return true;
}

static bool is_forced(const struct disk_io *io) { return io->op == DISK_WRITE && io->flags & DISK_FUA; }

static bool data_next(struct file_disk *file, struct slot *slot, int result, tarn_err *err) {
  *err = TARN_OK;
  if (result < 0) {
    *err = error_of(-result);
    return false;
  }
  /* A short count is continued at a block's start. None at all: the file was made shorter behind our back. */
  slot->done_bytes += align_down((uint64_t)result, file->disk.caps.block_bytes);
  require(slot->done_bytes <= slot->io->length);
  if (slot->done_bytes == slot->io->length) {
    slot->step = STEP_SYNC;
    return is_forced(slot->io) && !file->identity.keeps_dsync;
  }
  if ((uint32_t)result >= file->disk.caps.block_bytes) return true;
  if (slot->io->op == DISK_READ && !file->identity.is_block_device) /* a device that is gone reads so, too */
    slot->cut = user_of(file, slot->io)->need_bytes > 0;
  *err = TARN_IO;
  return false;
}

/* A step ended. True: there is another one to do now. False: the I/O is over, with *err. */
static bool step_next(struct file_disk *file, struct slot *slot, int result, tarn_err *err) {
  if (slot->cut) {
    *err = TARN_IO;
    return false;
  }
  /* Once more; but no clock runs for who begins again, and a FUSE server may answer so for ever. */
  if ((result == -EINTR || result == -EAGAIN) && slot->tries++ < TRIES_MAX) return true;
  switch (slot->step) {
    case STEP_DATA: return data_next(file, slot, result, err);
    case STEP_PUNCH:
    case STEP_ZERO:
    case STEP_ALLOCATE: return zero_next(file, slot, result, err);
    case STEP_SYNC: *err = result < 0 ? error_of(-result) : TARN_OK; return false;
  }
  return false;
}

/* ---- extents ---- */

/* The end of the run that begins at `at`, at most `end`, and what it is; 0: that cannot be told. */
static uint64_t seek_run(int fd, uint64_t at, uint64_t end, uint32_t *flags) {
  off_t data = lseek(fd, (off_t)at, SEEK_DATA);
  if (data < 0 && errno != ENXIO) return 0;
  if (data < 0 || (uint64_t)data > at) { /* ENXIO: no data up to the end */
    *flags = EXTENT_HOLE | EXTENT_ZERO;
    return data < 0 ? end : min_u64((uint64_t)data, end);
  }
  off_t hole = lseek(fd, (off_t)at, SEEK_HOLE);
  *flags = 0;
  return hole < 0 ? 0 : min_u64((uint64_t)hole, end);
}

/* By a thread, to which the I/O and its buffer are lent. The descriptor's position is nobody's: all else says where. */
static void extents_look(struct reactor_work *work) {
  struct file_disk *file = CONTAINER_OF(work, struct file_disk, extents.work);
  struct disk_io *io = file->extents.io;
  disk_io_set_line(io, NULL);
  uint64_t at = io->offset, end = io->offset + io->length;
  bool room = true;
  file->extents.err = TARN_OK;
  file->extents.cut = false;
  for (uint64_t stop = min_u64(end, at + SEEK_BYTES_MAX); room && at < stop;) {
    uint32_t flags;
    uint64_t next = seek_run(file->fd, at, end, &flags);
    if (next <= at) {
      file->extents.err = TARN_IO;
      return;
    }
    room = disk_extents_add(io, next - at, flags);
    at = next;
  }
  /* Behind the end of a file there is no hole: it was made shorter behind our back, and a read fails there. */
  if (size_look(file, user_of(file, io)->need_bytes, &file->extents.cut) != 0) file->extents.err = TARN_IO;
}

static void extents_looked(struct reactor_work *work);

static void extents_start(struct file_disk *file, struct disk_io *io) {
  file->extents.io = io;
  io->under = NULL;
  LIST_EACH(&file->extents.waiting, node) LIST_ENTRY(node, struct disk_io, link)->under = io;
  disk_io_set_line(io, &file->lane.moved);
  reactor_run_blocking(file->reactor, &file->lane, &file->extents.work, extents_look, extents_looked);
}

static void extents_looked(struct reactor_work *work) {
  struct file_disk *file = CONTAINER_OF(work, struct file_disk, extents.work);
  struct disk_io *io = file->extents.io;
  struct file_user *user = user_of(file, io);
  if (file->extents.cut) cut_tell(file, user);
  tarn_err err = user->cut ? TARN_IO : file->extents.err;
  file->extents.io = NULL;
  struct list *next = list_pop(&file->extents.waiting);
  if (next) extents_start(file, LIST_ENTRY(next, struct disk_io, link));
  disk_complete(io, err);
}

static void submit_extents(struct file_disk *file, struct disk_io *io) {
  if (!file->extents.io) {
    extents_start(file, io);
    return;
  }
  io->under = file->extents.io;
  list_push(&file->extents.waiting, &io->link);
}

/* Does the file system tell holes from data? One that does not calls everything data, and is not worth asking. */
static void extents_set(struct file_disk *file) {
  if (file->identity.is_block_device) return;
  file->disk.caps.can_extents = lseek(file->fd, 0, SEEK_HOLE) >= 0;
}

/* ---- syncs that fail ---- */

static bool syncs(const struct disk_io *io) { return io->op == DISK_FLUSH || (io->flags & DISK_FUA); }

static bool is_dsync(const struct file_disk *file, const struct disk_io *io) {
  return is_forced(io) && file->identity.keeps_dsync;
}

/* A step that may be told of a loss begins; perhaps once more. */
static void sync_begin(struct file_disk *file, struct slot *slot) {
  if (list_is_linked(&slot->link) || (slot->step != STEP_SYNC && !is_dsync(file, slot->io))) return;
  slot->sync = ++file->sync_count;
  list_push(&file->syncing, &slot->link);
}

static const struct slot *sync_oldest(const struct file_disk *file) {
  struct list *oldest = list_first(&file->syncing);
  return oldest ? LIST_ENTRY(oldest, struct slot, link) : NULL;
}

/* The end of an I/O as its submitter gets it: a good sync means nothing when one failed that it may have been told instead of. */
static tarn_err losses_tell(struct file_disk *file, const struct slot *slot, tarn_err err) {
  const struct disk_io *io = slot->io;
  struct disk_user *user = &user_of(file, io)->user;
  if (!syncs(io) || slot->cut) return err;
  if (err != TARN_OK) __atomic_add_fetch(&file->losses, 1, __ATOMIC_RELAXED);
  bool lost = slot->losses != file->losses || (io->op == DISK_FLUSH && user->losses_told != file->losses);
  if (io->op == DISK_FLUSH) user->losses_told = file->losses;
  return err == TARN_OK && lost ? TARN_IO : err;
}

/* Does this one, which has ended well, depend on what others under way are told? A direct write has brought its own bytes to the
 * device, and the error of that nobody else gets. */
static bool sync_waits(struct file_disk *file, struct slot *slot) {
  const struct slot *oldest = sync_oldest(file);
  if (!oldest || !syncs(slot->io) || (is_dsync(file, slot->io) && file->direct)) return false;
  slot->sync = file->sync_count;
  slot->io->under = oldest->io; /* which may stand in a line still */
  list_push(&file->synced, &slot->link);
  return true;
}

/* ---- the calls themselves ---- */

/* Is it known from the start that the ring would wait, or only give it back? A write through the page cache is made durable by
 * a sync inside of the call. */
static bool must_wait(const struct file_disk *file, const struct slot *slot) {
  const struct disk_io *io = slot->io;
  if (slot->step != STEP_DATA || slot->cut) return true;
  return file->only_waits[io->op == DISK_WRITE] || (is_dsync(file, io) && !file->direct);
}

/* By the bare system call: pread() and pwrite() of the C library can be cancelled, and in a process with threads pay for that each
 * time what is a tenth of our own work for a write. */
_Static_assert(sizeof(long) == 8, "an offset is one argument of a system call");
static ssize_t data_call(const struct file_disk *file, const struct disk_io *io, uint8_t *data, size_t length,
                         off_t offset) {
  if (is_dsync(file, io))
    return pwritev2(file->fd, &(struct iovec){.iov_base = data, .iov_len = length}, 1, offset, RWF_DSYNC);
  return syscall(io->op == DISK_READ ? SYS_pread64 : SYS_pwrite64, file->fd, data, length, offset);
}

static int step_call(const struct file_disk *file, const struct slot *slot) {
  const struct disk_io *io = slot->io;
  uint8_t *data = io->data + slot->done_bytes;
  off_t offset = (off_t)(io->offset + slot->done_bytes);
  size_t length = io->length - slot->done_bytes;
  ssize_t result = 0;
  switch (slot->step) {
    case STEP_DATA: result = data_call(file, io, data, length, offset); break;
    case STEP_PUNCH:
    case STEP_ZERO:
    case STEP_ALLOCATE:
      result = fallocate(file->fd, fallocate_mode(slot->step), (off_t)io->offset, (off_t)io->length);
      break;
    case STEP_SYNC:
      if (!file->identity.is_memory) result = fdatasync(file->fd); /* there is nothing behind memory */
      break;
  }
  return result < 0 ? -errno : (int)result;
}

/* ---- by the ring, and by threads ---- */

static void slot_begin(struct file_disk *file, struct slot *slot, struct disk_io *io);

static void slot_free(struct file_disk *file, struct slot *slot, tarn_err err) {
  struct disk_io *io = slot->io;
  slot->io = NULL;
  file->slots_moved++;
  struct list *next = list_pop(&file->waiting);
  if (next) slot_begin(file, slot, LIST_ENTRY(next, struct disk_io, link));
  else list_push_front(&file->free, &slot->link); /* the warmest first */
  disk_complete(io, err);
}

/* A sync has ended: which of those that wait need not wait any more? */
static void synced_look(struct file_disk *file) {
  const struct slot *oldest = sync_oldest(file);
  LIST_EACH(&file->synced, node) {
    struct slot *slot = LIST_ENTRY(node, struct slot, link);
    bool waits = oldest && oldest->sync <= slot->sync && slot->losses == file->losses;
    slot->io->under = waits ? oldest->io : NULL;
    if (waits) continue;
    list_remove(node);
    slot_free(file, slot, losses_tell(file, slot, TARN_OK));
  }
}

static void slot_end(struct file_disk *file, struct slot *slot, tarn_err err) {
  bool synced = list_is_linked(&slot->link);
  list_remove(&slot->link);
  err = losses_tell(file, slot, err);
  if (slot->cut) cut_tell(file, user_of(file, slot->io));
  if (err != TARN_OK || !sync_waits(file, slot)) slot_free(file, slot, err);
  if (synced || err != TARN_OK) synced_look(file);
}

static void slot_start(struct file_disk *file, struct slot *slot);

static void slot_step(struct slot *slot, int result) {
  struct file_disk *file = file_of(slot->io->disk);
  tarn_err err;
  if (step_next(file, slot, result, &err)) slot_start(file, slot);
  else slot_end(file, slot, err);
}

static void thread_call(struct reactor_work *work) {
  struct slot *slot = CONTAINER_OF(work, struct slot, work);
  struct file_disk *file = file_of(slot->io->disk);
  disk_io_set_line(slot->io, NULL);
  slot->result = call_check(file, slot);
  if (slot->result == 0) slot->result = step_call(file, slot);
}

static void thread_called(struct reactor_work *work) {
  struct slot *slot = CONTAINER_OF(work, struct slot, work);
  slot_step(slot, slot->result);
}

static void thread_start(struct file_disk *file, struct slot *slot) {
  disk_io_set_line(slot->io, &file->lane.moved);
  reactor_run_blocking(file->reactor, &file->lane, &slot->work, thread_call, thread_called);
}

static void ring_done(struct reactor_op *op, int result) {
  struct slot *slot = CONTAINER_OF(op, struct slot, op);
  struct file_disk *file = file_of(slot->io->disk);
  if (result == -EOPNOTSUPP) file->only_waits[slot->io->op == DISK_WRITE] = true;
  if (result == -EAGAIN || result == -EOPNOTSUPP) thread_start(file, slot);
  else slot_step(slot, result);
}

static void ring_start(struct file_disk *file, struct slot *slot) {
  const struct disk_io *io = slot->io;
  uint8_t *data = io->data + slot->done_bytes;
  uint64_t offset = io->offset + slot->done_bytes, length = io->length - slot->done_bytes;
  int flags = RWF_NOWAIT | (is_dsync(file, io) ? RWF_DSYNC : 0);
  if (io->op == DISK_READ) reactor_read(file->reactor, &slot->op, file->fd, data, length, offset, flags);
  else reactor_write(file->reactor, &slot->op, file->fd, data, length, offset, flags);
}

static void slot_start(struct file_disk *file, struct slot *slot) {
  sync_begin(file, slot);
  /* What fails ends by a thread, which does nothing: never within submit. */
  if (must_wait(file, slot) || call_check(file, slot) != 0) thread_start(file, slot);
  else ring_start(file, slot);
}

static void slot_begin(struct file_disk *file, struct slot *slot, struct disk_io *io) {
  disk_io_set_line(io, NULL);
  slot->io = io;
  slot->done_bytes = 0;
  slot->tries = 0;
  slot->losses = file->losses;
  slot->step = step_first(file, io);
  slot->cut = user_of(file, io)->cut;
  slot_start(file, slot);
}

static void submit_ring(struct disk *disk, struct disk_io *io) {
  struct file_disk *file = file_of(disk);
  if (io->op == DISK_EXTENTS) {
    submit_extents(file, io);
    return;
  }
  struct list *link = list_pop(&file->free);
  if (link) {
    slot_begin(file, LIST_ENTRY(link, struct slot, link), io);
    return;
  }
  disk_io_set_line(io, &file->slots_moved);
  list_push(&file->waiting, &io->link);
}

/* ---- at once, for memory ---- */

static void submit_memory(struct disk *disk, struct disk_io *io) {
  struct file_disk *file = file_of(disk);
  if (io->op == DISK_EXTENTS) { /* the kernel may have to look at each of its pages */
    submit_extents(file, io);
    return;
  }
  struct file_user *user = user_of(file, io);
  struct slot slot = {.io = io, .step = step_first(file, io), .cut = user->cut};
  tarn_err err;
  int result;
  do {
    result = call_check(file, &slot);
    if (result == 0) result = step_call(file, &slot);
  } while (step_next(file, &slot, result, &err));
  if (slot.cut) cut_tell(file, user);
  disk_complete(io, err);
}

/* ---- open and close ---- */

static pthread_mutex_t closing_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t closed = PTHREAD_COND_INITIALIZER;
static struct list closings = {&closings, &closings};

static void close_unlocked(int fd) {
  /* By name: after a killed I/O the kernel may keep the descriptor for a moment longer than we do. */
  struct flock unlock = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
  (void)fcntl(fd, F_OFD_SETLK, &unlock);
  close(fd);
}

static void *close_thread(void *argument) {
  struct closing *closing = argument;
  close_unlocked(closing->fd);
  pthread_mutex_lock(&closing_mutex);
  list_remove(&closing->link);
  pthread_cond_broadcast(&closed);
  pthread_mutex_unlock(&closing_mutex);
  free(closing);
  return NULL;
}

/* Is this one under way, or one of that file? Under the mutex. */
static bool is_closing(const struct closing *one, const struct file_identity *identity) {
  LIST_EACH(&closings, node) {
    const struct closing *closing = LIST_ENTRY(node, struct closing, link);
    if (closing == one || (identity && file_identity_same(&closing->identity, identity))) return true;
  }
  return false;
}

static uint64_t clock_now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* How long closings may still be waited for: FILE_CLOSE_MS, and as much again after each second. Many files are closed one after the
 * other, and together they may hang for no longer than one. Under the mutex. */
static uint64_t patience_ns = FILE_CLOSE_MS * NS_PER_MS, patience_at_ns;

static uint64_t patience(void) {
  uint64_t now_ns = clock_now_ns(), most_ns = FILE_CLOSE_MS * NS_PER_MS;
  patience_ns = min_u64(most_ns, patience_ns + (now_ns - patience_at_ns) / (NS_PER_S / most_ns));
  patience_at_ns = now_ns;
  return patience_ns;
}

/* It takes microseconds, or else the file system hangs: close() sends a message there, or writes something back. Then
 * it goes on without us. Under the mutex. */
static void closing_watch(const struct closing *closing) {
  uint64_t left_ns = patience(), began_ns = patience_at_ns;
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  uint64_t end_ns = (uint64_t)until.tv_nsec + left_ns;
  until.tv_sec += (time_t)(end_ns / NS_PER_S);
  until.tv_nsec = (long)(end_ns % NS_PER_S);
  int error = 0;
  while (!error && is_closing(closing, NULL))
    error = pthread_cond_clockwait(&closed, &closing_mutex, CLOCK_MONOTONIC, &until);
  uint64_t took_ns = error ? left_ns : clock_now_ns() - began_ns;
  patience_ns -= min_u64(patience_ns, took_ns);
}

static void close_soon(struct closing *closing) {
  pthread_t thread;
  pthread_mutex_lock(&closing_mutex);
  list_push(&closings, &closing->link);
  int error = pthread_create(&thread, NULL, close_thread, closing);
  if (error) list_remove(&closing->link);
  else {
    pthread_detach(thread);
    closing_watch(closing);
  }
  pthread_mutex_unlock(&closing_mutex);
  if (!error) return;
  close_unlocked(closing->fd);
  free(closing);
}

static void file_close(struct disk *disk) {
  struct file_disk *file = file_of(disk);
  require(list_is_empty(&file->waiting));
  require(list_is_empty(&file->syncing) && list_is_empty(&file->synced));
  require(!file->extents.io);
  if (file->fd >= 0) {
    *file->closing = (struct closing){.identity = file->identity, .fd = file->fd};
    list_init(&file->closing->link);
    close_soon(file->closing);
  } else free(file->closing);
  free(file->slots);
  free(file->path);
  free(file);
}

static const struct disk_ops ring_ops = {.kind = "file", .submit = submit_ring, .close = file_close};
static const struct disk_ops memory_ops = {.kind = "file", .submit = submit_memory, .close = file_close};

static void closing_wait(const struct file_identity *identity) {
  pthread_mutex_lock(&closing_mutex);
  while (is_closing(NULL, identity)) pthread_cond_wait(&closed, &closing_mutex);
  pthread_mutex_unlock(&closing_mutex);
}

void file_disk_closed_wait(const char *path) {
  struct file_identity identity;
  if (file_inspect(path, &identity, NULL) == TARN_OK) closing_wait(&identity);
}

/* Who held it has been asked to give it back by our try. */
static tarn_err leased(const char *path, struct why *why) {
  return because(why, TARN_FULL, "%s is in use: another process holds a lease on it", path);
}

static tarn_err open_locked(struct file_disk *file, bool read_only, enum trusted whose, struct why *why) {
  tarn_err err = file_inspect(file->path, &file->identity, why);
  if (err != TARN_OK && errno == EWOULDBLOCK) return leased(file->path, why);
  if (err) return err;
  closing_wait(&file->identity);
  int flags = (read_only ? O_RDONLY : O_RDWR) | O_EXCL;
  err = trusted_open(file->path, flags | O_NOATIME, whose, &file->fd, why);
  if (err == TARN_REFUSED && errno == EPERM) {
    err = trusted_open(file->path, flags, whose, &file->fd, why);
    file->only_waits[0] = !file->identity.is_block_device;
  }
  if (err != TARN_OK && errno == EWOULDBLOCK) return leased(file->path, why);
  if (err != TARN_OK && errno == EBUSY)
    return because(why, TARN_FULL, "%s is in use: mounted, or part of something else", file->path);
  if (err != TARN_OK && (errno == EACCES || errno == EPERM || errno == EROFS || errno == ETXTBSY))
    return because(why, TARN_REFUSED, "%s is not writable: %s", file->path, strerror(errno));
  if (err != TARN_OK) return err;

  struct flock lock = {.l_type = read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};
  if (fcntl(file->fd, F_OFD_SETLK, &lock) != 0) {
    if (errno == EAGAIN || errno == EACCES)
      return because(why, TARN_FULL, "%s is in use (locked) by another process", file->path);
    return because(why, TARN_IO, "%s cannot be locked: %s", file->path, strerror(errno));
  }
  err = file_identify(file->fd, file->path, &file->identity, why); /* of what is open, and locked, now */
  file->only_waits[1] = file->identity.writes_may_wait;
  return err;
}

static void grow(struct file_disk *file, const struct file_disk_options *options) {
  struct file_identity *identity = &file->identity;
  if (identity->is_block_device || options->read_only || identity->size_bytes < options->size_bytes ||
      identity->size_bytes >= options->grow_bytes)
    return;
  if (ftruncate(file->fd, (off_t)options->grow_bytes) == 0) identity->size_bytes = options->grow_bytes;
}

static tarn_err size_check(const struct file_disk *file, uint64_t wanted, bool whole, uint64_t *size, struct why *why) {
  uint64_t have = file->identity.size_bytes;
  if (wanted > have)
    return because(why, TARN_INVALID, "%s is too small: it has %llu bytes, %llu are needed", file->path,
                   (unsigned long long)have, (unsigned long long)wanted);
  *size = wanted && !whole ? wanted : whole ? align_down(have, BUFFER_ALIGN) : have;
  if (*size == 0) return because(why, TARN_INVALID, "%s is empty", file->path);
  if (*size % 512 != 0)
    return because(why, TARN_INVALID, "the size of %s, %llu bytes, is not a multiple of 512", file->path,
                   (unsigned long long)*size);
  return TARN_OK;
}

/* The unit of direct I/O on this file; 0 when there is none. */
static uint32_t direct_unit(const struct file_disk *file) {
#ifdef STATX_DIOALIGN
  struct statx status;
  if (statx(file->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0 && (status.stx_mask & STATX_DIOALIGN))
    return (uint32_t)max_u64(status.stx_dio_offset_align, status.stx_dio_offset_align ? status.stx_dio_mem_align : 0);
#endif
  int sector;
  if (file->identity.is_block_device)
    return ioctl(file->fd, BLKSSZGET, &sector) == 0 && sector > 0 ? (uint32_t)sector : 0;
  /* Kernels before 6.1 and file systems that do not say: a page suits all. */
  return 4096;
}

/* Switches to O_DIRECT where it exists and the size allows it, and sets what follows from that. */
static void direct_set(struct file_disk *file, bool allowed) {
  struct disk_caps *caps = &file->disk.caps;
  caps->block_bytes = caps->align_bytes = 1;
  caps->tells_losses = true; /* losses_tell() */
  if (!allowed || file->identity.is_memory) return;
  uint32_t unit = direct_unit(file);
  if (!is_power_of_two(unit) || unit > BUFFER_ALIGN || caps->size_bytes % unit != 0) return;
  int flags = fcntl(file->fd, F_GETFL);
  if (flags < 0 || fcntl(file->fd, F_SETFL, flags | O_DIRECT) != 0) return;
  caps->block_bytes = caps->align_bytes = unit;
  file->direct = true;
}

static void zero_set(struct file_disk *file) {
  struct disk_caps *caps = &file->disk.caps;
  uint64_t number;
  bool can;
  caps->zero_block_bytes = BUFFER_ALIGN; /* whole pages: the kernel never has to zero a part of one */
  caps->zero_bytes_max = DISK_ZERO_BYTES_MAX;
  if (caps->read_only) return;
  if (file->identity.is_block_device) {
    can = file_device_number(file->identity.device, "queue/write_zeroes_max_bytes", &number) && number > 0;
  } else { /* try it, well beyond the end: that changes nothing */
    off_t beyond = (off_t)align_up(file->identity.size_bytes, BUFFER_ALIGN) + (1 << 20);
    can = fallocate(file->fd, fallocate_mode(STEP_PUNCH), beyond, BUFFER_ALIGN) == 0;
    /* But for the time of change, which tells whether somebody wrote to the file while it was not in use. */
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT},
                                {.tv_sec = file->identity.mtime_ns / (int64_t)NS_PER_S,
                                 .tv_nsec = file->identity.mtime_ns % (int64_t)NS_PER_S}};
    if (can && futimens(file->fd, times) != 0) file->identity.mtime_ns = 0;
  }
  caps->can_zero = caps->can_trim = can;
}

static tarn_err slots_new(struct file_disk *file, uint32_t count) {
  file->slots = calloc(count, sizeof(*file->slots));
  if (!file->slots) return TARN_FULL;
  for (uint32_t i = 0; i < count; i++) {
    list_init(&file->slots[i].link);
    reactor_op_init(&file->slots[i].op, ring_done);
    list_push(&file->free, &file->slots[i].link);
  }
  return TARN_OK;
}

tarn_err file_disk_open(const struct file_disk_options *options, struct disk **disk, struct file_identity *identity,
                        struct why *why) {
  require(options->reactor != NULL);
  require(options->path != NULL);
  *disk = NULL;
  struct file_disk *file = calloc(1, sizeof(*file));
  if (!file) return because(why, TARN_IO, "no memory to open %s", options->path);
  struct disk_caps *caps = &file->disk.caps;
  tarn_err err;
  file->fd = -1;
  file->reactor = options->reactor;
  file->path = strdup(options->path);
  file->closing = calloc(1, sizeof *file->closing);
  reactor_lane_init(&file->lane, FILE_THREADS_MAX);
  list_init(&file->free);
  list_init(&file->syncing);
  list_init(&file->synced);
  list_init(&file->waiting);
  list_init(&file->extents.waiting);
  list_init(&file->extents.work.link);
  if (!file->path || !file->closing ||
      slots_new(file, options->io_count_max ? options->io_count_max : IO_COUNT_DEFAULT)) {
    err = because(why, TARN_IO, "no memory to open %s", options->path);
    goto out;
  }
  err = open_locked(file, options->read_only, options->own ? TRUSTED_OWN : TRUSTED_DATA, why);
  if (err) goto out;
  grow(file, options);
  err = size_check(file, options->size_bytes, options->whole, &caps->size_bytes, why);
  if (err) goto out;
  file->only_user.need_bytes = options->may_grow ? 0 : caps->size_bytes;

  file->disk.env = reactor_env(options->reactor);
  file->disk.ops = file->identity.is_memory ? &memory_ops : &ring_ops;
  caps->io_bytes_max = BUFFER_DATA_MAX;
  caps->read_only = options->read_only;
  caps->volatile_cache = !file->identity.is_memory;
  uint64_t rotational;
  caps->rotational = file_device_number(file->identity.device, "queue/rotational", &rotational) && rotational;
  direct_set(file, !options->no_direct);
  zero_set(file);
  extents_set(file);
  require(file->disk.in_flight == 0);
  *disk = &file->disk;
  if (identity) *identity = file->identity;
  return TARN_OK;

out:
  file_close(&file->disk);
  return err;
}

const char *file_disk_path(const struct disk *disk) { return file_of((struct disk *)disk)->path; }
const struct file_identity *file_disk_identity(const struct disk *disk) {
  return &file_of((struct disk *)disk)->identity;
}
struct file_user *file_disk_user(struct disk *disk) {
  return &file_of(disk)->only_user;
}
uint64_t file_disk_losses(const struct disk *disk) {
  return __atomic_load_n(&file_of((struct disk *)disk)->losses, __ATOMIC_RELAXED);
}
int file_disk_fd(const struct disk *disk) { return file_of((struct disk *)disk)->fd; }
int file_disk_fd_own(const struct disk *disk) {
  const struct file_disk *file = file_of((struct disk *)disk);
  /* Another descriptor of a device would keep it ours (O_EXCL) beyond disk_close(). */
  return file->identity.is_block_device ? -1 : fcntl(file->fd, F_DUPFD_CLOEXEC, 0);
}
int64_t file_modified_ns(int fd) {
  char name[40];
  struct stat st;
  /* The file is opened once more: the kernel tells a lost write-back once to each open file, and that of `fd` is the one that the
   * disk's syncs are told by. */
  snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
  int own = open(name, O_RDONLY | O_NOCTTY | O_CLOEXEC);
  if (own < 0) return 0;
  bool known = fsync(own) == 0 && fstat(own, &st) == 0;
  close(own);
  return known ? st.st_mtim.tv_sec * (int64_t)NS_PER_S + st.st_mtim.tv_nsec : 0;
}
