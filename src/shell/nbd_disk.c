/* nbd_disk.c - see nbd_disk.h.
 *
 * libnbd's state machine moves when it is called: by a new command, or when its socket is ready, which one poll on the ring
 * tells. Its callbacks run inside those calls and may not call libnbd; so they only note the result in the I/O's slot, and
 * harvest() ends the I/Os after the call.
 *
 *     slot: free --start()--> with libnbd --callback--> in `ended` --harvest()--> free; or, a flush for FUA: with libnbd again
 *
 * What libnbd or the kernel has not sent yet is not with the server, and must not look like a hang of it where the way there is slow. So
 * they get only what this way has just shown that it takes in a quarter of a second; the rest waits in a line of ours, which tells that it
 * moves (disk_io_line()).
 *
 * The poll is armed only while libnbd has commands, and the last I/O is not answered before it has ended: so a disk without
 * I/Os in flight can be closed at once.
 *
 * Power lost at the server: what was not flushed is in doubt, which the connection's end tells. Lost here: the requests that it
 * had may still be done by the server for a while. What it has not got yet must go with the connection: a kernel sends on for minutes
 * after the end of socket and process, and a network that is whole again would bring old writes over newer ones. So the end of a
 * connection is a reset (SO_LINGER of 0 s, see socket(7)), but for one that has nothing under way. */
#include "shell/nbd_disk.h"

#include <errno.h>
#include <libnbd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "shell/disk_text.h"
#include "shell/own_server.h"

#define SLOT_COUNT    128u /* more would only wait in the server */
#define BLOCK_DEFAULT 512u
#define ASK_BYTES_MAX (1u << 30) /* of block status */
#define REPLIES_MAX   64u        /* taken in a row before others get their turn */
#define ALLOCATION    "base:allocation"
#define KEEP_ALIVE_S  60 /* of silence; then so often, and so many times */
#define KEEP_ASKING_S 10
#define KEEP_ASKING   3
/* Of data on the way to the server, or from it: as much as came through in WAY_NS, and this always. */
#define WAY_BYTES_MIN (512u << 10)
#define WAY_NS        (NS_PER_S / 4)

struct slot {
  struct list link; /* free or ended; not linked: with libnbd */
  struct nbd_disk *nbd;
  struct disk_io *io;
  bool flushes; /* the flush behind a FUA write is under way, or is the next */
  int error;    /* what libnbd said */
};

struct nbd_disk {
  struct disk disk;
  struct reactor *reactor;
  struct nbd_handle *handle;
  char *uri;
  bool can_fua;
  bool gone;          /* the connection is lost */
  bool ending;        /* an answer said that it is, or will be */
  bool lost_requests; /* ... with requests under way */
  uint32_t sent;      /* commands that libnbd has */
  struct reactor_op poll;
  short poll_events;
  struct slot slots[SLOT_COUNT];
  struct list free, ended; /* struct slot */
  struct list waiting;     /* struct disk_io, for a slot */
  uint64_t line_moved;     /* what has ended in a slot */
  uint64_t way_bytes;      /* of the I/Os in slots */
  uint64_t way_since_ns;   /* since then */
  uint64_t way_ended;      /* so much has ended, */
  uint64_t way_before;     /* and in the WAY_NS before that */
};

static struct nbd_disk *nbd_of(const struct disk *disk) {
  return CONTAINER_OF((struct disk *)disk, struct nbd_disk, disk);
}

/* ---- exports that were left with requests under way ---- */

struct unsettled {
  struct list link;
  uint64_t since_ns;
  char key[];
};
static pthread_mutex_t unsettled_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct list unsettled_list = {&unsettled_list, &unsettled_list};

static uint64_t clock_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static struct unsettled *unsettled_find(const char *key) {
  LIST_EACH(&unsettled_list, node) {
    struct unsettled *one = LIST_ENTRY(node, struct unsettled, link);
    if (strcmp(one->key, key) == 0) return one;
  }
  return NULL;
}

void nbd_disk_unsettled(const char *uri) {
  char key[PATH_BYTES_MAX + 16];
  nbd_text_key(uri, key);
  pthread_mutex_lock(&unsettled_mutex);
  struct unsettled *one = unsettled_find(key);
  if (!one && (one = malloc(sizeof *one + strlen(key) + 1)) != NULL) {
    strcpy(one->key, key);
    list_init(&one->link);
    list_push(&unsettled_list, &one->link);
  }
  if (one) one->since_ns = clock_ns();
  pthread_mutex_unlock(&unsettled_mutex);
}

uint64_t nbd_disk_settle_ns(const char *uri, uint64_t settle_ns) {
  char key[PATH_BYTES_MAX + 16];
  uint64_t left_ns = 0;
  nbd_text_key(uri, key);
  pthread_mutex_lock(&unsettled_mutex);
  const struct unsettled *one = unsettled_find(key);
  uint64_t passed_ns = one ? clock_ns() - one->since_ns : settle_ns;
  if (passed_ns < settle_ns) left_ns = settle_ns - passed_ns;
  pthread_mutex_unlock(&unsettled_mutex);
  return left_ns;
}

/* ---- commands ---- */

static tarn_err error_of(const struct nbd_disk *nbd, int error) {
  if (nbd->gone) return TARN_GONE;
  switch (error) {
    case 0: return TARN_OK;
    case ENOSPC:
    case EDQUOT: return TARN_NO_SPACE;
    case EOPNOTSUPP: return TARN_UNSUPPORTED;
    default: return TARN_IO;
  }
}

/* Inside libnbd: the command has ended. 1: it may forget it. */
static int command_ended(void *context, int *error) {
  struct slot *slot = context;
  struct nbd_disk *nbd = slot->nbd;
  require(nbd->sent > 0);
  nbd->sent--;
  slot->error = *error;
  nbd->ending = nbd->ending || *error == ESHUTDOWN || *error == ENOTCONN;
  list_push(&nbd->ended, &slot->link);
  return 1;
}

/* The part of a run of extents that was asked for: the server may tell of more, before it (the start was aligned down) and
 * behind. */
static int extents_came(void *context, const char *metacontext, uint64_t offset, uint32_t *entries, size_t count,
                        int *error) {
  struct disk_io *io = ((struct slot *)context)->io;
  uint64_t at = offset, end = io->offset + io->length;
  (void)error;
  if (strcmp(metacontext, ALLOCATION) != 0) return 0;
  io->extent_count = 0;
  for (size_t i = 0; i + 1 < count; i += 2) {
    uint64_t start = max_u64(at, io->offset);
    at += entries[i];
    uint64_t stop = min_u64(at, end);
    if (stop > start && !disk_extents_add(io, stop - start, entries[i + 1] & (EXTENT_HOLE | EXTENT_ZERO))) break;
  }
  return 0;
}

static int64_t command_send(struct slot *slot, nbd_completion_callback ended) {
  struct nbd_disk *nbd = slot->nbd;
  struct disk_io *io = slot->io;
  struct nbd_handle *handle = nbd->handle;
  uint32_t fua = (io->flags & DISK_FUA) && nbd->can_fua ? LIBNBD_CMD_FLAG_FUA : 0;
  uint32_t keep = io->flags & DISK_NO_HOLE ? LIBNBD_CMD_FLAG_NO_HOLE : 0;
  if (slot->flushes) return nbd_aio_flush(handle, ended, 0);
  switch (io->op) {
    case DISK_READ: return nbd_aio_pread(handle, io->data, io->length, io->offset, ended, 0);
    case DISK_WRITE: return nbd_aio_pwrite(handle, io->data, io->length, io->offset, ended, fua);
    case DISK_FLUSH: return nbd_aio_flush(handle, ended, 0);
    case DISK_TRIM:
    case DISK_WRITE_ZEROES: return nbd_aio_zero(handle, io->length, io->offset, ended, fua | keep);
    case DISK_EXTENTS: {
      uint64_t start = align_down(io->offset, nbd->disk.caps.block_bytes);
      uint64_t end = align_up(io->offset + min_u64(io->length, ASK_BYTES_MAX), nbd->disk.caps.block_bytes);
      nbd_extent_callback came = {.callback = extents_came, .user_data = slot};
      return nbd_aio_block_status(handle, end - start, start, came, ended, 0);
    }
    case DISK_OP_COUNT: break;
  }
  require(false);
  return -1;
}

static void slot_send(struct slot *slot) {
  struct nbd_disk *nbd = slot->nbd;
  nbd_completion_callback ended = {.callback = command_ended, .user_data = slot};
  nbd->sent++;
  if (nbd->gone || command_send(slot, ended) == -1) {
    if (list_is_linked(&slot->link)) return; /* it was taken, and ended with the connection */
    nbd->sent--;
    slot->error = nbd->gone ? ENOTCONN : nbd_get_errno() ? nbd_get_errno() : EIO;
    list_push(&nbd->ended, &slot->link);
  }
}

/* ---- the way there ---- */

static uint64_t way_bytes(const struct disk_io *io) {
  return io->op == DISK_READ || io->op == DISK_WRITE ? io->length : 0;
}

static bool way_has_room(const struct nbd_disk *nbd, const struct disk_io *io) {
  uint64_t most = max_u64(max_u64(nbd->way_ended, nbd->way_before), WAY_BYTES_MIN);
  return nbd->way_bytes + way_bytes(io) <= most || nbd->way_bytes == 0;
}

/* Has come through. */
static void way_ended(struct nbd_disk *nbd, const struct disk_io *io) {
  uint64_t now_ns = nbd->disk.env->now_ns;
  nbd->way_bytes -= way_bytes(io);
  if (now_ns - nbd->way_since_ns >= WAY_NS) {
    nbd->way_before = nbd->way_ended;
    nbd->way_ended = 0;
    nbd->way_since_ns = now_ns;
  }
  nbd->way_ended += way_bytes(io);
}

static void slot_start(struct slot *slot, struct disk_io *io) {
  disk_io_set_line(io, NULL);
  slot->nbd->way_bytes += way_bytes(io);
  slot->io = io;
  slot->flushes = false;
  slot_send(slot);
}

static void waiting_start(struct nbd_disk *nbd) {
  while (!list_is_empty(&nbd->waiting) && !list_is_empty(&nbd->free)) {
    struct disk_io *next = LIST_ENTRY(list_first(&nbd->waiting), struct disk_io, link);
    if (!way_has_room(nbd, next)) return;
    list_remove(&next->link);
    slot_start(LIST_ENTRY(list_pop(&nbd->free), struct slot, link), next);
  }
}

/* ---- what has ended ---- */

static bool wants_flush(const struct slot *slot) {
  return (slot->io->flags & DISK_FUA) && !slot->nbd->can_fua && !slot->flushes;
}

static void slot_finish(struct slot *slot) {
  struct nbd_disk *nbd = slot->nbd;
  struct disk_io *io = slot->io;
  tarn_err err = error_of(nbd, slot->error);
  if (err == TARN_OK && wants_flush(slot)) {
    slot->flushes = true;
    slot_send(slot);
    return;
  }
  if (io->op == DISK_EXTENTS && err == TARN_OK && io->extent_count == 0)
    (void)disk_extents_add(io, io->length, 0); /* it said nothing: data */
  slot->io = NULL;
  nbd->line_moved++;
  way_ended(nbd, io);
  list_push_front(&nbd->free, &slot->link);
  waiting_start(nbd);
  disk_complete(io, err);
}

/* A connection that is lost, or that the server is about to end, is as good as none. */
static void look_for_death(struct nbd_disk *nbd) {
  if (nbd->gone || !(nbd->ending || nbd_aio_is_dead(nbd->handle) || nbd_aio_is_closed(nbd->handle))) return;
  nbd->gone = true;
  nbd->lost_requests = true;
  int fd = nbd_aio_get_fd(nbd->handle);
  if (fd >= 0) (void)shutdown(fd, SHUT_RDWR);
}

static void poll_arm(struct nbd_disk *nbd) {
  unsigned direction = nbd_aio_get_direction(nbd->handle);
  int fd = nbd_aio_get_fd(nbd->handle);
  short events = (short)((direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                         (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
  if (nbd->poll.busy) { /* what it waits for is not enough any more, or there is nothing to wait for */
    if (nbd->sent == 0 || (events & ~nbd->poll_events)) reactor_cancel(nbd->reactor, &nbd->poll);
    return;
  }
  if (nbd->sent == 0 || fd < 0) return;
  nbd->poll_events = events;
  reactor_poll(nbd->reactor, &nbd->poll, fd, (unsigned)events);
}

/* After each call of libnbd. Ends what has ended; the last of all only when nothing of ours is with the ring. */
static void harvest(struct nbd_disk *nbd) {
  look_for_death(nbd);
  while (!list_is_empty(&nbd->ended) && !(nbd->sent == 0 && nbd->poll.busy)) {
    slot_finish(LIST_ENTRY(list_pop(&nbd->ended), struct slot, link));
    look_for_death(nbd);
  }
  poll_arm(nbd);
}

static void poll_done(struct reactor_op *op, int result) {
  struct nbd_disk *nbd = CONTAINER_OF(op, struct nbd_disk, poll);
  struct pollfd ready = {.fd = nbd_aio_get_fd(nbd->handle), .revents = (short)(result > 0 ? result : 0)};
  /* A reply at a time is taken; those that are here already need no trip through the ring. */
  for (uint32_t i = 0; i < REPLIES_MAX && ready.fd >= 0 && ready.revents; i++) {
    unsigned direction = nbd_aio_get_direction(nbd->handle);
    if ((direction & LIBNBD_AIO_DIRECTION_READ) && (ready.revents & ~POLLOUT)) (void)nbd_aio_notify_read(nbd->handle);
    else if ((direction & LIBNBD_AIO_DIRECTION_WRITE) && (ready.revents & POLLOUT))
      (void)nbd_aio_notify_write(nbd->handle);
    else break;
    ready.fd = nbd_aio_get_fd(nbd->handle);
    direction = nbd_aio_get_direction(nbd->handle);
    ready.events = (short)((direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                           (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
    if (ready.fd < 0 || nbd->sent == 0 || poll(&ready, 1, 0) <= 0) break;
  }
  harvest(nbd);
}

static void nbd_submit(struct disk *disk, struct disk_io *io) {
  struct nbd_disk *nbd = nbd_of(disk);
  disk_io_set_line(io, &nbd->line_moved);
  list_push(&nbd->waiting, &io->link);
  waiting_start(nbd);
  harvest(nbd);
}

/* ---- close ---- */

/* A firewall between that forgets who is silent would make the next request look like a hang. */
static void keep_alive(struct nbd_handle *handle) {
  const struct {
    int level, option, value;
  } options[] = {{SOL_SOCKET, SO_KEEPALIVE, 1},
                 {IPPROTO_TCP, TCP_KEEPIDLE, KEEP_ALIVE_S},
                 {IPPROTO_TCP, TCP_KEEPINTVL, KEEP_ASKING_S},
                 {IPPROTO_TCP, TCP_KEEPCNT, KEEP_ASKING}};
  for (size_t i = 0; i < COUNT_OF(options); i++)
    (void)setsockopt(nbd_aio_get_fd(handle), options[i].level, options[i].option, &options[i].value, sizeof(int));
}

/* From now on its end drops what it has not sent: at close, at a crash. */
static void unsent_goes(struct nbd_handle *handle, bool goes) {
  const struct linger linger = {.l_onoff = goes};
  (void)setsockopt(nbd_aio_get_fd(handle), SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

static void nbd_free(struct nbd_disk *nbd) {
  if (nbd->handle) nbd_close(nbd->handle);
  free(nbd->uri);
  free(nbd);
}

static void nbd_disk_close(struct disk *disk) {
  struct nbd_disk *nbd = nbd_of(disk);
  require(nbd->sent == 0 && !nbd->poll.busy);
  require(list_is_empty(&nbd->ended));
  if (nbd->lost_requests) {
    nbd_disk_unsettled(nbd->uri);
  } else if (!nbd->gone) { /* the server need not wonder */
    unsent_goes(nbd->handle, false);
    (void)nbd_aio_disconnect(nbd->handle, 0);
  }
  nbd_free(nbd);
}

/* Nothing is asked of the server, so nothing can come from it but the end. */
static bool nbd_is_lost(struct disk *disk) {
  struct nbd_disk *nbd = nbd_of(disk);
  struct pollfd ready = {.fd = nbd_aio_get_fd(nbd->handle), .events = POLLIN};
  if (nbd->sent == 0 && !nbd->gone) nbd->gone = ready.fd < 0 || poll(&ready, 1, 0) > 0;
  return nbd->gone;
}

static const struct disk_ops nbd_ops = {
    .kind = "nbd", .submit = nbd_submit, .close = nbd_disk_close, .is_lost = nbd_is_lost};

bool disk_is_nbd(const struct disk *disk) { return disk->ops == &nbd_ops; }

void nbd_disk_abort(struct disk *disk) {
  struct nbd_disk *nbd = nbd_of(disk);
  int fd = nbd_aio_get_fd(nbd->handle);
  if (!nbd->gone && fd >= 0) (void)shutdown(fd, SHUT_RDWR); /* which the poll hears of */
}

/* ---- open ---- */

/* The last line of what libnbd says, without its own names in front. */
static const char *libnbd_reason(void) {
  const char *text = nbd_get_error();
  if (!text) return "it does not say why";
  static const char *const fronts[] = {
      "nbd_aio_connect_uri: ", "nbd_poll: ", "handshake: ", "connect: ", "getaddrinfo: "};
  for (size_t i = 0; i < COUNT_OF(fronts); i++)
    if (strncmp(text, fronts[i], strlen(fronts[i])) == 0) text += strlen(fronts[i]);
  return text;
}

static tarn_err connect_failed(const char *uri, struct why *why) {
  const char *reason = libnbd_reason();
  int error = nbd_get_errno();
  if (strstr(reason, "TLS"))
    return because(why, TARN_REFUSED, "%s: the server wants TLS, which is not supported yet", uri);
  if (error == 0 || error == ENOENT || error == ECONNREFUSED) /* 0: the name is not known */
    return because(why, TARN_NOT_FOUND, "%s: %s", uri, reason);
  return because(why, TARN_IO, "%s: no NBD connection: %s", uri, reason);
}

static tarn_err handle_connect(struct nbd_handle *handle, const char *uri, struct why *why) {
  uint64_t deadline_ns = clock_ns() + NBD_CONNECT_S * NS_PER_S;
  if (nbd_set_uri_allow_tls(handle, LIBNBD_TLS_DISABLE) == -1 || nbd_add_meta_context(handle, ALLOCATION) == -1 ||
      nbd_set_pread_initialize(handle, false) == -1 || nbd_aio_connect_uri(handle, uri) == -1)
    return connect_failed(uri, why);
  while (!nbd_aio_is_ready(handle)) {
    if (nbd_aio_is_dead(handle) || nbd_aio_is_closed(handle)) return connect_failed(uri, why);
    uint64_t now_ns = clock_ns();
    if (now_ns >= deadline_ns)
      return because(why, TARN_HUNG, "%s: the server does not answer within %u s", uri, NBD_CONNECT_S);
    if (nbd_poll(handle, (int)((deadline_ns - now_ns) / NS_PER_MS) + 1) == -1) return connect_failed(uri, why);
  }
  unsent_goes(handle, true);
  keep_alive(handle);
  if (own_server_is_at(nbd_aio_get_fd(handle)))
    return because(why, TARN_REFUSED,
                   "%s is served by this tarnd itself: a mirror cannot lie on its own daemon's export", uri);
  return TARN_OK;
}

/* What the server can do, as capabilities; or why that is not enough. */
static tarn_err caps_learn(struct nbd_handle *handle, const char *uri, struct disk_caps *caps, struct why *why) {
  int64_t size = nbd_get_size(handle);
  int64_t block = nbd_get_block_size(handle, LIBNBD_SIZE_MINIMUM),
          most = nbd_get_block_size(handle, LIBNBD_SIZE_MAXIMUM);
  if (size < 0) return because(why, TARN_INVALID, "%s: the server tells no size that can be: %s", uri, libnbd_reason());
  if (nbd_is_read_only(handle) != 0)
    return because(why, TARN_REFUSED, "%s: the server gives it for reading only, an image must be writable", uri);
  if (nbd_can_flush(handle) != 1)
    return because(why, TARN_REFUSED,
                   "%s: the server cannot flush, so it never promises that anything is stable; an image needs that",
                   uri);
  if (block > BUFFER_ALIGN || (block > 0 && !is_power_of_two((uint64_t)block)))
    return because(why, TARN_REFUSED, "%s: the server's blocks are %lld bytes, 4096 is the most that works", uri,
                   (long long)block);
  bool can_zero = nbd_can_zero(handle) == 1;
  *caps = (struct disk_caps){.size_bytes = (uint64_t)size,
                             .block_bytes = block > (int64_t)BLOCK_DEFAULT ? (uint32_t)block : BLOCK_DEFAULT,
                             .io_bytes_max = BUFFER_DATA_MAX,
                             .zero_bytes_max = DISK_ZERO_BYTES_MAX,
                             .can_zero = can_zero,
                             .can_trim = can_zero,
                             .can_extents = nbd_can_meta_context(handle, ALLOCATION) == 1,
                             .volatile_cache = true};
  caps->align_bytes = caps->zero_block_bytes = caps->block_bytes;
  if (most > 0 && most < (int64_t)DISK_IO_MIN)
    return because(why, TARN_REFUSED, "%s: the server takes requests of %lld bytes at most, an image needs %u", uri,
                   (long long)most, DISK_IO_MIN);
  if (most > 0)
    caps->io_bytes_max = (uint32_t)min_u64(caps->io_bytes_max, align_down((uint64_t)most, caps->block_bytes));
  return TARN_OK;
}

static tarn_err size_set(struct disk_caps *caps, const char *uri, uint64_t wanted, struct why *why) {
  if (wanted > caps->size_bytes)
    return because(why, TARN_INVALID, "%s is too small: it has %llu bytes, %llu are needed", uri,
                   (unsigned long long)caps->size_bytes, (unsigned long long)wanted);
  if (wanted > 0) caps->size_bytes = wanted;
  if (caps->size_bytes == 0) return because(why, TARN_INVALID, "%s is empty (0 bytes)", uri);
  if (caps->size_bytes % caps->block_bytes == 0) return TARN_OK;
  return because(why, TARN_INVALID, "%s: the size %llu is not a multiple of the server's blocks of %u bytes", uri,
                 (unsigned long long)caps->size_bytes, caps->block_bytes);
}

static struct nbd_disk *nbd_new(const char *uri) {
  struct nbd_disk *nbd = calloc(1, sizeof *nbd);
  if (!nbd) return NULL;
  nbd->uri = strdup(uri);
  nbd->handle = nbd_create();
  list_init(&nbd->free);
  list_init(&nbd->ended);
  list_init(&nbd->waiting);
  reactor_op_init(&nbd->poll, poll_done);
  for (uint32_t i = 0; i < SLOT_COUNT; i++) {
    nbd->slots[i].nbd = nbd;
    list_init(&nbd->slots[i].link);
    list_push(&nbd->free, &nbd->slots[i].link);
  }
  if (nbd->uri && nbd->handle) return nbd;
  nbd_free(nbd);
  return NULL;
}

tarn_err nbd_disk_open(const struct nbd_disk_options *options, struct disk **disk, struct why *why) {
  struct nbd_disk *nbd = nbd_new(options->uri);
  *disk = NULL;
  if (!nbd) return because(why, TARN_IO, "no memory to connect to %s", options->uri);
  tarn_err err = handle_connect(nbd->handle, options->uri, why);
  if (err == TARN_OK) err = caps_learn(nbd->handle, options->uri, &nbd->disk.caps, why);
  if (err == TARN_OK) err = size_set(&nbd->disk.caps, options->uri, options->size_bytes, why);
  if (err != TARN_OK) {
    nbd_free(nbd);
    return err;
  }
  nbd->can_fua = nbd_can_fua(nbd->handle) == 1;
  nbd->reactor = options->reactor;
  nbd->disk.env = reactor_env(options->reactor);
  nbd->disk.ops = &nbd_ops;
  *disk = &nbd->disk;
  return TARN_OK;
}

tarn_err nbd_disk_probe(const char *uri, uint64_t *size_bytes, struct why *why) {
  struct nbd_disk *nbd = nbd_new(uri);
  if (!nbd) return because(why, TARN_IO, "no memory to connect to %s", uri);
  tarn_err err = handle_connect(nbd->handle, uri, why);
  if (err == TARN_OK) err = caps_learn(nbd->handle, uri, &nbd->disk.caps, why);
  *size_bytes = nbd->disk.caps.size_bytes;
  if (err == TARN_OK) (void)nbd_aio_disconnect(nbd->handle, 0);
  nbd_free(nbd);
  return err;
}
