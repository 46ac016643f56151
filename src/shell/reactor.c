/* reactor.c - see reactor.h.
 *
 * The ring belongs to one thread (SINGLE_ISSUER), and completions are made in that thread when it asks for them
 * (DEFER_TASKRUN): no interrupt lands between two events, and one system call per turn submits, reaps and waits. Kernels
 * that refuse these flags get a plain ring; nothing else differs.
 *
 * Two descriptors are watched by a poll of our own that is armed again each time: the signals, and the event counter by
 * which the worker threads say that something is done. */
#include "shell/reactor.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#define RING_ENTRIES     1024u
#define RING_COMPLETIONS 8192u
#define RANDOM_WORDS     32u
#define THREAD_IDLE_S    10 /* a thread of ours that has nothing to do for so long ends; one stays */
/* Events go on posting events: then the sockets get their turn all the same. An image that is copied in memory, where an I/O is
 * done inside submit, made clients wait for 512 copies of 256 KiB. */
#define TURN_NS_MAX         (100 * 1000ull)
#define EVENTS_PER_LOOK_MAX 8u             /* at the clock, which costs a part of what a short event does; */
#define SLOW_NS             (20 * 1000ull) /* after each event while they take as long as a copy does */

/* The threads' side of blocking work; everything is under the lock, and so is what lanes have. */
struct workers {
  pthread_mutex_t lock;
  pthread_cond_t wanted, ended;
  struct list ready;                   /* struct reactor_work that may run, of any lane */
  struct list finished;                /* struct reactor_work */
  uint32_t ready_count, running_count; /* of work */
  uint32_t idle_count, thread_count;
  bool stop;
  int event_fd;
};

struct reactor {
  struct io_uring ring;
  struct env env;
  bool stop;
  bool polls_first; /* a send may ask to wait for room before it is tried */
  uint32_t events_per_look;
  uint32_t ops_busy;  /* in the kernel, with the two polls below */
  uint32_t work_busy; /* given to the workers, and `done` not yet run */
  struct reactor_op signal_poll, worker_poll;
  int signal_fd;
  void *signal_owner;
  void (*signal_caught)(void *owner, int signal_number);
  uint64_t random_words[RANDOM_WORDS];
  uint32_t random_left;
  struct workers workers;
};

static uint64_t clock_ns(clockid_t clock) {
  struct timespec now;
  int failed = clock_gettime(clock, &now);
  require(failed == 0);
  return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static void clock_update(struct reactor *reactor) {
  reactor->env.now_ns = clock_ns(CLOCK_MONOTONIC);
  reactor->env.wall_ns = clock_ns(CLOCK_REALTIME_COARSE); /* for people: a few milliseconds late is fine */
}

static uint64_t reactor_random(struct env *env) {
  struct reactor *reactor = CONTAINER_OF(env, struct reactor, env);
  if (reactor->random_left == 0) {
    ssize_t got = getrandom(reactor->random_words, sizeof(reactor->random_words), 0);
    require(got == (ssize_t)sizeof(reactor->random_words)); /* promised by getrandom(2) up to 256 bytes */
    reactor->random_left = RANDOM_WORDS;
  }
  return reactor->random_words[--reactor->random_left];
}

/* ---- operations ---- */

static struct io_uring_sqe *sqe_take(struct reactor *reactor) {
  struct io_uring_sqe *sqe = io_uring_get_sqe(&reactor->ring);
  while (!sqe) { /* the ring is full: hand over early. -EAGAIN and -EBUSY pass. */
    int submitted = io_uring_submit(&reactor->ring);
    require(submitted >= 0 || submitted == -EAGAIN || submitted == -EBUSY || submitted == -EINTR ||
            submitted == -ENOMEM);
    if (submitted < 0) (void)io_uring_get_events(&reactor->ring);
    sqe = io_uring_get_sqe(&reactor->ring);
  }
  return sqe;
}

static struct io_uring_sqe *op_start(struct reactor *reactor, struct reactor_op *op) {
  require(!op->busy);
  require(op->done != NULL);
  op->busy = true;
  reactor->ops_busy++;
  return sqe_take(reactor);
}

static void op_run(struct event *event) {
  struct reactor_op *op = CONTAINER_OF(event, struct reactor_op, event);
  require(op->busy);
  op->busy = false;
  op->done(op, op->result);
}

void reactor_accept(struct reactor *reactor, struct reactor_op *op, int fd) {
  struct io_uring_sqe *sqe = op_start(reactor, op);
  io_uring_prep_accept(sqe, fd, NULL, NULL, SOCK_CLOEXEC);
  io_uring_sqe_set_data(sqe, op);
}

void reactor_connect(struct reactor *reactor, struct reactor_op *op, int fd, const struct sockaddr *address,
                     socklen_t bytes) {
  struct io_uring_sqe *sqe = op_start(reactor, op);
  io_uring_prep_connect(sqe, fd, address, bytes);
  io_uring_sqe_set_data(sqe, op);
}

void reactor_recv(struct reactor *reactor, struct reactor_op *op, int fd, void *where, size_t bytes) {
  struct io_uring_sqe *sqe = op_start(reactor, op);
  io_uring_prep_recv(sqe, fd, where, bytes, 0);
  io_uring_sqe_set_data(sqe, op);
}

/* What a socket takes at once is sent at once: whoever waits for it need not wait for the end of this turn, and the turn need not
 * be followed by one that finds only this completion. False: the ring is to wait until there is room. */
static bool sent_at_once(struct reactor *reactor, struct reactor_op *op, int fd, const struct msghdr *message) {
  require(!op->busy);
  require(op->done != NULL);
  ssize_t sent = sendmsg(fd, message, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  op->busy = true;
  op->result = sent < 0 ? -errno : (int)sent;
  op->event.run = op_run;
  event_post(&reactor->env.queue, &op->event);
  return true;
}

/* A socket that did not take all of the last send is full. Whoever tries again at once gets rid of a little at a time, as fast as
 * the other side reads; the ring waits until there is room for much. */
static bool send_by_ring(struct reactor *reactor, struct reactor_op *op, int fd, const struct msghdr *message) {
  bool full = op->result >= 0 && (size_t)op->result < op->asked;
  op->asked = 0;
  for (size_t i = 0; i < message->msg_iovlen; i++) op->asked += message->msg_iov[i].iov_len;
  return full || !sent_at_once(reactor, op, fd, message);
}

static void send_prepared(struct reactor *reactor, struct reactor_op *op, struct io_uring_sqe *sqe) {
  if (reactor->polls_first) sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
  io_uring_sqe_set_data(sqe, op);
}

void reactor_send(struct reactor *reactor, struct reactor_op *op, int fd, const void *data, size_t bytes) {
  struct iovec vector = {.iov_base = (void *)(uintptr_t)data, .iov_len = bytes};
  struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
  if (!send_by_ring(reactor, op, fd, &message)) return;
  struct io_uring_sqe *sqe = op_start(reactor, op);
  io_uring_prep_send(sqe, fd, data, bytes, MSG_NOSIGNAL);
  send_prepared(reactor, op, sqe);
}

void reactor_sendmsg(struct reactor *reactor, struct reactor_op *op, int fd, const struct msghdr *message) {
  if (!send_by_ring(reactor, op, fd, message)) return;
  struct io_uring_sqe *sqe = op_start(reactor, op);
  io_uring_prep_sendmsg(sqe, fd, message, MSG_NOSIGNAL);
  send_prepared(reactor, op, sqe);
}

void reactor_poll(struct reactor *reactor, struct reactor_op *op, int fd, unsigned events) {
  struct io_uring_sqe *sqe = op_start(reactor, op);
  io_uring_prep_poll_add(sqe, fd, events);
  io_uring_sqe_set_data(sqe, op);
}

void reactor_read(struct reactor *reactor, struct reactor_op *op, int fd, void *where, size_t bytes, uint64_t offset,
                  int rw_flags) {
  require(bytes <= UINT32_MAX);
  struct io_uring_sqe *sqe = op_start(reactor, op);
  io_uring_prep_read(sqe, fd, where, (unsigned)bytes, offset);
  sqe->rw_flags = rw_flags;
  io_uring_sqe_set_data(sqe, op);
}

void reactor_write(struct reactor *reactor, struct reactor_op *op, int fd, const void *data, size_t bytes,
                   uint64_t offset, int rw_flags) {
  require(bytes <= UINT32_MAX);
  struct io_uring_sqe *sqe = op_start(reactor, op);
  io_uring_prep_write(sqe, fd, data, (unsigned)bytes, offset);
  sqe->rw_flags = rw_flags;
  io_uring_sqe_set_data(sqe, op);
}

void reactor_cancel(struct reactor *reactor, struct reactor_op *op) {
  if (!op->busy) return;
  struct io_uring_sqe *sqe = sqe_take(reactor);
  io_uring_prep_cancel(sqe, op, 0);
  io_uring_sqe_set_data(sqe, NULL); /* nobody wants to know how the cancel itself went */
}

/* ---- the turn ---- */

/* What completed becomes events, in the order of the kernel. */
static void completions_post(struct reactor *reactor) {
  struct io_uring_cqe *cqe;
  unsigned head, count = 0;
  io_uring_for_each_cqe(&reactor->ring, head, cqe) {
    struct reactor_op *op = io_uring_cqe_get_data(cqe);
    count++;
    if (!op) continue;
    require(op->busy);
    require(reactor->ops_busy > 0);
    reactor->ops_busy--;
    op->result = cqe->res;
    op->event.run = op_run;
    event_post(&reactor->env.queue, &op->event);
  }
  io_uring_cq_advance(&reactor->ring, count);
}

static void submit_and_wait(struct reactor *reactor, uint64_t wait_ns) {
  int result;
  if (wait_ns == 0) {
    result = io_uring_submit_and_get_events(&reactor->ring);
  } else {
    struct __kernel_timespec timeout = {.tv_sec = (long long)(wait_ns / NS_PER_S),
                                        .tv_nsec = (long long)(wait_ns % NS_PER_S)};
    struct io_uring_cqe *cqe;
    result = io_uring_submit_and_wait_timeout(&reactor->ring, &cqe, 1, &timeout, NULL);
  }
  /* What could not be submitted for want of memory stays in the ring for the next turn. */
  require(result >= 0 || result == -ETIME || result == -EINTR || result == -EAGAIN || result == -EBUSY ||
          result == -ENOMEM);
}

/* Returns how many it ran. */
static uint32_t run_events(struct reactor *reactor) {
  struct env *env = &reactor->env;
  uint64_t looked_ns = env->now_ns;
  uint32_t count = 0, look = reactor->events_per_look;
  while (count < REACTOR_EVENTS_PER_TURN && event_run_one(&env->queue)) {
    if (++count != look) continue;
    uint64_t now_ns = clock_ns(CLOCK_MONOTONIC);
    if (now_ns - looked_ns > SLOW_NS) reactor->events_per_look = 1;
    else if (reactor->events_per_look < EVENTS_PER_LOOK_MAX) reactor->events_per_look *= 2;
    if (now_ns - env->now_ns > TURN_NS_MAX) break;
    looked_ns = now_ns;
    look += reactor->events_per_look;
  }
  return count;
}

void reactor_turn(struct reactor *reactor, uint64_t wait_ns) {
  struct env *env = &reactor->env;
  clock_update(reactor);
  timers_run(env);
  uint32_t count = run_events(reactor);
  if (reactor->stop || !list_is_empty(&env->queue.events)) {
    wait_ns = 0;
  } else {
    uint64_t next_ns = timers_next_ns(env);
    uint64_t now_ns = count > 0 ? clock_ns(CLOCK_MONOTONIC) : env->now_ns;
    wait_ns = min_u64(wait_ns, next_ns > now_ns ? next_ns - now_ns : 0);
  }
  submit_and_wait(reactor, wait_ns);
  completions_post(reactor);
}

void reactor_run(struct reactor *reactor) {
  reactor->stop = false;
  while (!reactor->stop) reactor_turn(reactor, 3600 * NS_PER_S);
}

void reactor_stop(struct reactor *reactor) { reactor->stop = true; }

struct env *reactor_env(struct reactor *reactor) {
  return &reactor->env;
}

/* ---- blocking work ---- */

static void make_ready(struct workers *workers, struct reactor_work *work) {
  if (work->lane) work->lane->busy++;
  list_push(&workers->ready, &work->link);
  workers->ready_count++;
}

/* The next of this lane may run, behind what other lanes have. */
static void lane_next(struct workers *workers, struct reactor_lane *lane) {
  require(lane->busy > 0);
  lane->busy--;
  struct list *next = list_pop(&lane->waiting);
  if (next) make_ready(workers, LIST_ENTRY(next, struct reactor_work, link));
}

/* After this neither the work nor its lane is ours. True: the reactor is to be told. */
static bool work_ended(struct workers *workers, struct reactor_work *work) {
  workers->running_count--;
  if (work->lane) lane_next(workers, work->lane);
  bool first = list_is_empty(&workers->finished);
  list_push(&workers->finished, &work->link);
  return first;
}

/* Waits until there is something to do; false: this thread is to end. */
static bool worker_wait(struct workers *workers) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec += THREAD_IDLE_S;
  workers->idle_count++;
  int error = pthread_cond_clockwait(&workers->wanted, &workers->lock, CLOCK_MONOTONIC, &until);
  workers->idle_count--;
  return !list_is_empty(&workers->ready) || !(workers->stop || (error == ETIMEDOUT && workers->idle_count > 0));
}

static _Thread_local struct reactor_work *work_of_thread;

static void *worker_thread(void *argument) {
  struct workers *workers = argument;
  pthread_mutex_lock(&workers->lock);
  for (;;) {
    struct list *link = list_pop(&workers->ready);
    if (!link) {
      if (workers->stop || !worker_wait(workers)) break;
      continue;
    }
    workers->ready_count--;
    workers->running_count++;
    pthread_mutex_unlock(&workers->lock);
    struct reactor_work *work = LIST_ENTRY(link, struct reactor_work, link);
    work_of_thread = work;
    work->work(work);
    work_of_thread = NULL;
    pthread_mutex_lock(&workers->lock);
    if (!work_ended(workers, work)) continue;
    pthread_mutex_unlock(&workers->lock); /* the reactor wants it as soon as it knows */
    (void)eventfd_write(workers->event_fd, 1);
    pthread_mutex_lock(&workers->lock);
  }
  workers->thread_count--;
  pthread_cond_signal(&workers->ended);
  pthread_mutex_unlock(&workers->lock);
  return NULL;
}

static void work_run_done(struct event *event) {
  struct reactor_work *work = CONTAINER_OF(event, struct reactor_work, event);
  if (work->lane) work->lane->moved++;
  work->done(work);
}

/* In the reactor's thread, when a worker has finished something. */
static void worker_poll_done(struct reactor_op *op, int result) {
  struct reactor *reactor = CONTAINER_OF(op, struct reactor, worker_poll);
  struct workers *workers = &reactor->workers;
  struct list finished;
  eventfd_t count;
  (void)result;
  (void)eventfd_read(workers->event_fd, &count);
  list_init(&finished);
  pthread_mutex_lock(&workers->lock);
  list_splice(&finished, &workers->finished);
  pthread_mutex_unlock(&workers->lock);
  for (struct list *link; (link = list_pop(&finished));) {
    struct reactor_work *work = LIST_ENTRY(link, struct reactor_work, link);
    require(reactor->work_busy > 0);
    reactor->work_busy--;
    event_post(&reactor->env.queue, &work->event);
  }
  reactor_poll(reactor, op, workers->event_fd, POLLIN);
}

/* Under the lock, or before anybody else knows of it. 0 or an errno. */
static int worker_start(struct workers *workers) {
  pthread_t thread;
  int error = pthread_create(&thread, NULL, worker_thread, workers);
  if (error) return error;
  workers->thread_count++;
  pthread_detach(thread);
  return 0;
}

void reactor_lane_init(struct reactor_lane *lane, uint32_t most) {
  require(most > 0);
  *lane = (struct reactor_lane){.most = most};
  list_init(&lane->waiting);
}

void reactor_run_blocking(struct reactor *reactor, struct reactor_lane *lane, struct reactor_work *work,
                          void (*run)(struct reactor_work *), void (*done)(struct reactor_work *)) {
  struct workers *workers = &reactor->workers;
  require(!lane || lane->most > 0);
  list_init(&work->link);
  event_init(&work->event, work_run_done);
  work->lane = lane;
  work->work = run;
  work->done = done;
  reactor->work_busy++;
  pthread_mutex_lock(&workers->lock);
  bool ready = !lane || lane->busy < lane->most;
  if (ready) make_ready(workers, work);
  else list_push(&lane->waiting, &work->link);
  /* Who is on his way to look for work counts as one that is there: on a busy machine that takes a while. That there cannot be more
   * now is no error: it is tried again with the next work, and some thread ends its own. */
  if (workers->ready_count + workers->running_count > workers->thread_count) (void)worker_start(workers);
  bool wake = ready && workers->idle_count > 0;
  pthread_mutex_unlock(&workers->lock);
  if (wake) pthread_cond_signal(&workers->wanted);
}

void reactor_work_step(void) {
  if (work_of_thread) atomic_fetch_add_explicit(&work_of_thread->steps, 1, memory_order_relaxed);
}

uint64_t reactor_work_steps(const struct reactor_work *work) {
  return atomic_load_explicit(&work->steps, memory_order_relaxed);
}

bool reactor_has_work(const struct reactor *reactor) { return reactor->work_busy > 0; }

static void workers_init(struct workers *workers) {
  pthread_mutex_init(&workers->lock, NULL);
  pthread_cond_init(&workers->wanted, NULL);
  pthread_cond_init(&workers->ended, NULL);
  list_init(&workers->ready);
  list_init(&workers->finished);
}

static void workers_stop(struct workers *workers) {
  pthread_mutex_lock(&workers->lock);
  workers->stop = true;
  pthread_cond_broadcast(&workers->wanted);
  while (workers->thread_count > 0) pthread_cond_wait(&workers->ended, &workers->lock);
  pthread_mutex_unlock(&workers->lock);
  pthread_cond_destroy(&workers->ended);
  pthread_cond_destroy(&workers->wanted);
  pthread_mutex_destroy(&workers->lock);
}

/* ---- signals ---- */

static void signal_poll_done(struct reactor_op *op, int result) {
  struct reactor *reactor = CONTAINER_OF(op, struct reactor, signal_poll);
  struct signalfd_siginfo info;
  (void)result;
  while (read(reactor->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
    if (reactor->signal_caught) reactor->signal_caught(reactor->signal_owner, (int)info.ssi_signo);
  }
  reactor_poll(reactor, op, reactor->signal_fd, POLLIN);
}

void reactor_on_signal(struct reactor *reactor, void *owner, void (*caught)(void *owner, int signal_number)) {
  reactor->signal_owner = owner;
  reactor->signal_caught = caught;
}

static int signals_open(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGHUP);
  if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0) return -1;
  if (signal(SIGPIPE, SIG_IGN) == SIG_ERR) return -1;
  if (signal(SIGXFSZ, SIG_IGN) == SIG_ERR) return -1; /* a write beyond a limit on file sizes is an error like others */
  return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

/* ---- life ---- */

/* The best ring that this kernel gives. */
static int ring_open(struct io_uring *ring) {
  static const unsigned flags[] = {
      IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
      IORING_SETUP_COOP_TASKRUN,
      0,
  };
  int result = -EINVAL;
  for (size_t i = 0; i < COUNT_OF(flags) && result == -EINVAL; i++) {
    struct io_uring_params params = {.flags = flags[i] | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
                                     .cq_entries = RING_COMPLETIONS};
    result = io_uring_queue_init_params(RING_ENTRIES, ring, &params);
    if (result == 0 && !(params.features & IORING_FEAT_EXT_ARG)) { /* before 5.11: no wait with a timeout */
      io_uring_queue_exit(ring);
      return -ENOSYS;
    }
  }
  if (result < 0) return result;
  (void)io_uring_register_ring_fd(ring); /* saves a look-up per turn where it exists */
  return 0;
}

struct reactor *reactor_create(struct why *why) {
  struct reactor *reactor = calloc(1, sizeof(*reactor));
  if (!reactor) {
    (void)because(why, TARN_FULL, "no memory for the reactor");
    return NULL;
  }
  int result = ring_open(&reactor->ring);
  /* Which came with Linux 5.19; this flag with 6.1. */
  reactor->polls_first = result == 0 && (reactor->ring.flags & IORING_SETUP_DEFER_TASKRUN);
  if (result < 0) {
    (void)because(
        why, TARN_UNSUPPORTED,
        "io_uring is not available (%s): Linux 5.11 or newer, not disabled by kernel.io_uring_disabled or a container",
        strerror(-result));
    goto out_memory;
  }
  reactor->signal_fd = signals_open();
  reactor->workers.event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (reactor->signal_fd < 0 || reactor->workers.event_fd < 0) {
    (void)because(why, TARN_IO, "cannot watch signals and threads: %s", strerror(errno));
    goto out_files;
  }
  reactor->events_per_look = 1;
  env_init(&reactor->env);
  reactor->env.random = reactor_random;
  clock_update(reactor);
  workers_init(&reactor->workers);
  int error = worker_start(&reactor->workers);
  if (error) {
    (void)because(why, TARN_FULL, "no thread can be started (%s): the limit of processes, or of memory, is too small",
                  strerror(error));
    goto out_files;
  }
  reactor_op_init(&reactor->signal_poll, signal_poll_done);
  reactor_op_init(&reactor->worker_poll, worker_poll_done);
  reactor_poll(reactor, &reactor->signal_poll, reactor->signal_fd, POLLIN);
  reactor_poll(reactor, &reactor->worker_poll, reactor->workers.event_fd, POLLIN);
  return reactor;

out_files:
  if (reactor->signal_fd >= 0) close(reactor->signal_fd);
  if (reactor->workers.event_fd >= 0) close(reactor->workers.event_fd);
  io_uring_queue_exit(&reactor->ring);
out_memory:
  free(reactor);
  return NULL;
}

void reactor_destroy(struct reactor *reactor) {
  require(reactor->ops_busy <= 2); /* the two polls */
  require(reactor->work_busy == 0);
  workers_stop(&reactor->workers);
  io_uring_queue_exit(&reactor->ring);
  close(reactor->signal_fd);
  close(reactor->workers.event_fd);
  free(reactor);
}
