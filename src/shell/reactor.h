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

/* ---- files. `rw_flags` are RWF_NOWAIT, and RWF_DSYNC or not. What would wait ends with -EAGAIN, or with -EOPNOTSUPP where
 * the file system cannot tell: it is for a thread (below). Without RWF_NOWAIT the kernel would use threads of its own, which all
 * files share. ---- */
void reactor_read(struct reactor *reactor, struct reactor_op *op, int fd, void *where, size_t bytes, uint64_t offset,
                  int rw_flags);
void reactor_write(struct reactor *reactor, struct reactor_op *op, int fd, const void *data, size_t bytes,
                   uint64_t offset, int rw_flags);

/* Asks the kernel to give an operation up: it ends with -ECANCELED, or as it would have. Harmless when it is not under
 * way. For socket operations; an I/O on a file is never cancelled. */
void reactor_cancel(struct reactor *reactor, struct reactor_op *op);

/* ---- work that may block (open, stat, fsync, getaddrinfo, and I/O that the kernel cannot do without waiting): in other threads.
 *
 * A *lane* is whatever may hang as a whole: a disk, an image's files, a mirror's. Of the work of one lane at most `most` runs at once,
 * the rest stands in the lane's own line, first come first served. Threads are made on demand, and end when there is nothing for
 * them to do for a while; so a lane that hangs keeps `most` threads, and no other lane waits for it. What is bounded is each lane: a
 * process whose threads are limited from outside (RLIMIT_NPROC, a cgroup) can run out of them when many lanes hang, and work
 * waits then until one of them ends. ---- */
struct reactor_lane {
  uint32_t most, busy; /* busy: given to the threads and not yet ended */
  struct list waiting; /* struct reactor_work */
  uint64_t moved;      /* how much of its work has ended: for the reactor's thread */
};
struct reactor_work {
  struct list link;
  struct event event;
  _Atomic uint64_t steps;
  struct reactor_lane *lane;
  void (*work)(struct reactor_work *work); /* in another thread: touches only what its owner lent it */
  void (*done)(struct reactor_work *work); /* in the reactor's, from the event queue */
};
/* The lane is the owner's, and stays until the last `done` of its work has begun. But for `moved` its fields are private. */
void reactor_lane_init(struct reactor_lane *lane, uint32_t most);
/* The struct must stay until `done`. A lane belongs to one reactor; this is for the reactor's thread. Without a lane (NULL) it runs
 * at once: for work of which its owner never has more than one, such as the operation on a mirror, or the opening of an image. */
void reactor_run_blocking(struct reactor *reactor, struct reactor_lane *lane, struct reactor_work *work,
                          void (*run)(struct reactor_work *), void (*done)(struct reactor_work *));

/* For the thread that does long work: it has come a step further, a chunk of so many. In any other thread nothing happens. */
void reactor_work_step(void);
/* How many steps it has made, in all its runs. For the reactor's thread. */
uint64_t reactor_work_steps(const struct reactor_work *work);

/* Is there work whose `done` has not run? For the end: what hangs cannot be waited for. */
bool reactor_has_work(const struct reactor *reactor);

/* ---- signals: `caught` runs from the event queue for each SIGTERM, SIGINT, SIGHUP ---- */
void reactor_on_signal(struct reactor *reactor, void *owner, void (*caught)(void *owner, int signal_number));

#endif
