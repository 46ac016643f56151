/* The reactor with the real kernel: order, timers, sockets, blocking work, cancel. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "shell/reactor.h"
#include "unit.h"

/* A thread begins when the gate is open: as on a busy machine. */
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static int threads_made;

struct made {
  void *(*run)(void *);
  void *argument;
};
static void *made_run(void *argument) {
  struct made made = *(struct made *)argument;
  free(argument);
  pthread_mutex_lock(&gate);
  pthread_mutex_unlock(&gate);
  return made.run(made.argument);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument) {
  int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
  struct made *made = malloc(sizeof *made);
  *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
  *made = (struct made){.run = run, .argument = argument};
  threads_made++;
  return real(thread, attributes, made_run, made);
}

struct seen {
  struct reactor_op op;
  int result, calls;
};

static void seen_done(struct reactor_op *op, int result) {
  struct seen *seen = CONTAINER_OF(op, struct seen, op);
  seen->result = result;
  seen->calls++;
}

static struct reactor *reactor_new(void) {
  struct why why;
  struct reactor *reactor = reactor_create(&why);
  assert_non_null(reactor);
  return reactor;
}

static void turn_until(struct reactor *reactor, const int *calls, int wanted) {
  for (int i = 0; i < 10000 && *calls < wanted; i++) reactor_turn(reactor, 10 * NS_PER_MS);
  assert_int_equal(*calls, wanted);
}

static void test_done_never_runs_inside_the_call(void **state) {
  (void)state;
  struct reactor *reactor = reactor_new();
  struct seen receive, send;
  int pair[2];
  char text[8] = "";
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  memset(&receive, 0, sizeof(receive));
  memset(&send, 0, sizeof(send));
  reactor_op_init(&receive.op, seen_done);
  reactor_op_init(&send.op, seen_done);
  reactor_recv(reactor, &receive.op, pair[0], text, sizeof(text));
  reactor_send(reactor, &send.op, pair[1], "tarn", 5);
  assert_int_equal(receive.calls + send.calls, 0);
  turn_until(reactor, &receive.calls, 1);
  turn_until(reactor, &send.calls, 1);
  assert_int_equal(receive.result, 5);
  assert_int_equal(send.result, 5);
  assert_string_equal(text, "tarn");
  close(pair[0]);
  close(pair[1]);
  reactor_destroy(reactor);
}

static void test_a_cancelled_receive_comes_back(void **state) {
  (void)state;
  struct reactor *reactor = reactor_new();
  struct seen receive = {.calls = 0};
  int pair[2];
  char byte;
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  reactor_op_init(&receive.op, seen_done);
  reactor_cancel(reactor, &receive.op); /* harmless when not under way */
  reactor_recv(reactor, &receive.op, pair[0], &byte, 1);
  reactor_turn(reactor, 0);
  assert_int_equal(receive.calls, 0);
  reactor_cancel(reactor, &receive.op);
  turn_until(reactor, &receive.calls, 1);
  assert_int_equal(receive.result, -ECANCELED);
  close(pair[0]);
  close(pair[1]);
  reactor_destroy(reactor);
}

/* More operations than the ring has entries: none is lost. */
static void test_more_operations_than_ring_entries(void **state) {
  (void)state;
  enum { COUNT = 5000 };
  static struct seen seen[COUNT];
  struct reactor *reactor = reactor_new();
  int fd = eventfd(0, EFD_NONBLOCK), done = 0;
  for (int i = 0; i < COUNT; i++) {
    reactor_op_init(&seen[i].op, seen_done);
    reactor_poll(reactor, &seen[i].op, fd, POLLIN);
  }
  reactor_turn(reactor, 0);
  assert_int_equal(eventfd_write(fd, 1), 0);
  for (int turns = 0; turns < 1000 && done < COUNT; turns++) {
    reactor_turn(reactor, NS_PER_MS);
    done = 0;
    for (int i = 0; i < COUNT; i++) done += seen[i].calls;
  }
  assert_int_equal(done, COUNT);
  close(fd);
  reactor_destroy(reactor);
}

static int timer_calls;
static void timer_fired(struct timer *timer) {
  (void)timer;
  timer_calls++;
}

static void test_the_wait_ends_at_the_next_timer_and_not_before(void **state) {
  (void)state;
  struct reactor *reactor = reactor_new();
  struct env *env = reactor_env(reactor);
  struct timer timer;
  timer_calls = 0;
  timer_init(&timer, timer_fired);
  reactor_turn(reactor, 0);
  uint64_t deadline = env->now_ns + 20 * NS_PER_MS;
  timer_set(env, &timer, deadline);
  turn_until(reactor, &timer_calls, 1);
  assert_true(env->now_ns >= deadline);
  assert_true(env->wall_ns > 1600000000ull * NS_PER_S);
  assert_true(env->random(env) != env->random(env));
  reactor_destroy(reactor);
}

struct job {
  struct reactor_work work;
  int fd, ran, *done;
};
static void job_work(struct reactor_work *work) {
  struct job *job = CONTAINER_OF(work, struct job, work);
  char byte;
  job->ran = read(job->fd, &byte, 1) == 1; /* as blocking as it gets */
}
static void job_done(struct reactor_work *work) {
  struct job *job = CONTAINER_OF(work, struct job, work);
  assert_true(job->ran);
  (*job->done)++;
}

static void jobs_release(int pipe_in, int count) {
  for (int i = 0; i < count; i++) assert_int_equal(write(pipe_in, "x", 1), 1);
}

/* However much of one lane hangs, and however much stands behind it: another lane, and work without one, goes on. */
static void test_a_lane_that_hangs_keeps_its_own_threads_only(void **state) {
  (void)state;
  enum { LANES = 6, EACH = 20, MOST = 3, READY = 10 };
  struct reactor *reactor = reactor_new();
  static struct job hanging[LANES][EACH], jobs[READY];
  struct reactor_lane lanes[LANES], other;
  int hung[2], ready[2], hung_done = 0, ready_done = 0;
  assert_int_equal(pipe(hung), 0);
  assert_int_equal(pipe(ready), 0);
  reactor_lane_init(&other, 1);
  for (int l = 0; l < LANES; l++) {
    reactor_lane_init(&lanes[l], MOST);
    for (int i = 0; i < EACH; i++) {
      hanging[l][i] = (struct job){.fd = hung[0], .done = &hung_done};
      reactor_run_blocking(reactor, &lanes[l], &hanging[l][i].work, job_work, job_done);
    }
    assert_int_equal(lanes[l].busy, MOST);
  }
  for (int i = 0; i < READY; i++) {
    jobs[i] = (struct job){.fd = ready[0], .done = &ready_done};
    reactor_run_blocking(reactor, i % 2 ? &other : NULL, &jobs[i].work, job_work, job_done);
  }
  jobs_release(ready[1], READY);
  turn_until(reactor, &ready_done, READY);
  assert_int_equal(hung_done, 0);
  assert_true(reactor_has_work(reactor));
  jobs_release(hung[1], LANES * EACH); /* the line of each lane, too */
  turn_until(reactor, &hung_done, LANES * EACH);
  assert_false(reactor_has_work(reactor));
  for (int i = 0; i < 2; i++) {
    close(hung[i]);
    close(ready[i]);
  }
  reactor_destroy(reactor);
}

/* While a thread is on its way, no other one is made for the same work, though somebody else takes that first. */
static void test_no_thread_is_made_for_work_that_has_one(void **state) {
  (void)state;
  enum { JOBS = 12, MORE = 4 };
  struct reactor *reactor = reactor_new();
  struct job jobs[JOBS];
  int pipes[JOBS][2], done = 0, count = 0;
  for (int i = 0; i < JOBS; i++) {
    assert_int_equal(pipe(pipes[i]), 0);
    jobs[i] = (struct job){.fd = pipes[i][0], .done = &done};
  }
  jobs_release(pipes[0][1], 1);
  reactor_run_blocking(reactor, NULL, &jobs[count++].work, job_work, job_done);
  turn_until(reactor, &done, 1);
  pthread_mutex_lock(&gate);
  int made = threads_made;
  while (count + MORE < JOBS && threads_made == made) /* until all that there are have something to do */
    reactor_run_blocking(reactor, NULL, &jobs[count++].work, job_work, job_done);
  made = threads_made;
  for (int i = 1; i <= MORE; i++) { /* who has done one takes the next, and another one comes */
    jobs_release(pipes[i][1], 1);
    turn_until(reactor, &done, i + 1);
    reactor_run_blocking(reactor, NULL, &jobs[count++].work, job_work, job_done);
  }
  int made_since = threads_made - made;
  pthread_mutex_unlock(&gate);
  for (int i = MORE + 1; i < count; i++) jobs_release(pipes[i][1], 1);
  turn_until(reactor, &done, count);
  assert_int_equal(made_since, 0);
  for (int i = 0; i < JOBS; i++) {
    close(pipes[i][0]);
    close(pipes[i][1]);
  }
  reactor_destroy(reactor);
}

static int signal_calls;
static void signal_caught(void *owner, int signal_number) {
  assert_int_equal(signal_number, SIGTERM);
  signal_calls++;
  reactor_stop(owner);
}

static void test_a_signal_is_an_event(void **state) {
  (void)state;
  struct reactor *reactor = reactor_new();
  signal_calls = 0;
  reactor_on_signal(reactor, reactor, signal_caught);
  assert_int_equal(kill(getpid(), SIGTERM), 0);
  reactor_run(reactor);
  assert_int_equal(signal_calls, 1);
  reactor_destroy(reactor);
}

/* Work that makes more work: an event that takes a while and posts itself again. */
struct busy {
  struct event event;
  struct reactor *reactor;
  int runs;
};
static void busy_run(struct event *event) {
  struct busy *busy = CONTAINER_OF(event, struct busy, event);
  usleep(1000);
  busy->runs++;
  event_post(&reactor_env(busy->reactor)->queue, event);
}

static void test_events_leave_time_for_the_outside(void **state) {
  (void)state;
  struct reactor *reactor = reactor_new();
  struct busy busy = {.reactor = reactor};
  struct seen receive;
  char byte;
  int pair[2];
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  memset(&receive, 0, sizeof(receive));
  reactor_op_init(&receive.op, seen_done);
  reactor_recv(reactor, &receive.op, pair[0], &byte, 1);
  assert_int_equal(write(pair[1], "x", 1), 1);
  event_init(&busy.event, busy_run);
  event_post(&reactor_env(reactor)->queue, &busy.event);
  while (receive.calls == 0 && busy.runs < REACTOR_EVENTS_PER_TURN) reactor_turn(reactor, 0);
  assert_int_equal(receive.calls, 1);
  assert_true(busy.runs < REACTOR_EVENTS_PER_TURN);
  event_cancel(&busy.event);
  close(pair[0]);
  close(pair[1]);
  reactor_destroy(reactor);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_done_never_runs_inside_the_call),
      cmocka_unit_test(test_a_cancelled_receive_comes_back),
      cmocka_unit_test(test_more_operations_than_ring_entries),
      cmocka_unit_test(test_the_wait_ends_at_the_next_timer_and_not_before),
      cmocka_unit_test(test_a_lane_that_hangs_keeps_its_own_threads_only),
      cmocka_unit_test(test_no_thread_is_made_for_work_that_has_one),
      cmocka_unit_test(test_events_leave_time_for_the_outside),
      cmocka_unit_test(test_a_signal_is_an_event),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
