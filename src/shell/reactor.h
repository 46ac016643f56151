/* reactor.h - one thread, one io_uring: the only place where the daemon waits.
 *
 * A reactor owns an env (core/env.h) and runs its turn, over and over:
 *
 *     set the clock · run due timers · run events, at most REACTOR_EVENTS_PER_TURN, for about 100 µs at most · submit
 *     all that was asked for, in one system call, and wait until something completes or the next timer is due · post what
 *     completed as events
 *
 * So `done` of an operation always runs from the event queue, never inside the call that started it, and I/O is batched by
 * itself. All calls are for the reactor's own thread, before or inside reactor_run().
 *
 * An operation is a struct reactor_op inside its owner (nothing is allocated). From the call that starts it until `done`
 * runs it belongs to the reactor, with all memory that it points to. `result` is what the system call would return: a
 * count, a descriptor or 0; or a negative errno. An op may be used again from within its own `done`. */
#ifndef TARN_SHELL_REACTOR_H
#define TARN_SHELL_REACTOR_H

#include <sys/socket.h>
#include <sys/uio.h>

#include "core/env.h"
#include "shell/why.h"

#define REACTOR_EVENTS_PER_TURN 512

struct reactor;
struct reactor_op {
  struct event event;
  int result;
  size_t asked; /* of a send: how many bytes */
  bool busy;    /* started, and `done` has not been called yet */
  void (*done)(struct reactor_op *op, int result);
};

/* NULL with the reason when the kernel has no io_uring for us or memory is short. Blocks SIGTERM, SIGINT and SIGHUP for
 * the thread that calls (and the threads that it starts later), ignores SIGPIPE and SIGXFSZ: create it first thing. */
struct reactor *reactor_create(struct why *why);
/* Requires that no operation and no work is under way. */
void reactor_destroy(struct reactor *reactor);
struct env *reactor_env(struct reactor *reactor);
/* Turns until reactor_stop(). May be called again. */
void reactor_run(struct reactor *reactor);
void reactor_stop(struct reactor *reactor);
/* One turn; waits for at most `wait_ns`. For tests. */
void reactor_turn(struct reactor *reactor, uint64_t wait_ns);

static inline void reactor_op_init(struct reactor_op *op, void (*done)(struct reactor_op *op, int result)) {
  list_init(&op->event.link);
  op->result = 0;
  op->asked = 0;
  op->busy = false;
  op->done = done;
}

/* ---- sockets: all are done on a descriptor that is the caller's; one accept gives one connection (close-on-exec) ---- */
void reactor_accept(struct reactor *reactor, struct reactor_op *op, int fd);
void reactor_connect(struct reactor *reactor, struct reactor_op *op, int fd, const struct sockaddr *address,
                     socklen_t bytes);
void reactor_recv(struct reactor *reactor, struct reactor_op *op, int fd, void *where, size_t bytes);
void reactor_send(struct reactor *reactor, struct reactor_op *op, int fd, const void *data, size_t bytes);
void reactor_sendmsg(struct reactor *reactor, struct reactor_op *op, int fd, const struct msghdr *message);
/* Once, for any of `events` (POLLIN, ...). */
void reactor_poll(struct reactor *reactor, struct reactor_op *op, int fd, unsigned events);

/* ---- files; `rw_flags` is RWF_DSYNC or 0 ---- */
void reactor_read(struct reactor *reactor, struct reactor_op *op, int fd, void *where, size_t bytes, uint64_t offset);
void reactor_write(struct reactor *reactor, struct reactor_op *op, int fd, const void *data, size_t bytes,
                   uint64_t offset, int rw_flags);
void reactor_fdatasync(struct reactor *reactor, struct reactor_op *op, int fd);
void reactor_fallocate(struct reactor *reactor, struct reactor_op *op, int fd, int mode, uint64_t offset,
                       uint64_t bytes);

/* Asks the kernel to give an operation up: it ends with -ECANCELED, or as it would have. Harmless when it is not under
 * way. For socket operations; an I/O on a file is never cancelled. */
void reactor_cancel(struct reactor *reactor, struct reactor_op *op);

/* ---- work that may block (open, stat, close, fsync of a folder, getaddrinfo): a few threads run it ---- */
struct reactor_work {
  struct list link;
  struct event event;
  void (*work)(struct reactor_work *work); /* in another thread: touches only what its owner lent it */
  void (*done)(struct reactor_work *work); /* in the reactor's, from the event queue */
};
/* The struct must stay until `done`. Work that hangs keeps its thread; REACTOR_THREADS_MAX can hang at once. */
#define REACTOR_THREADS_MAX 16
void reactor_run_blocking(struct reactor *reactor, struct reactor_work *work, void (*run)(struct reactor_work *),
                          void (*done)(struct reactor_work *));

/* ---- signals: `caught` runs from the event queue for each SIGTERM, SIGINT, SIGHUP ---- */
void reactor_on_signal(struct reactor *reactor, void *owner, void (*caught)(void *owner, int signal_number));

#endif
