/* file_disk.h: many files are closed one after the other on the reactor, and where close() hangs they hold it up for no longer than one
 * does. close() hangs here, in threads, until it is told otherwise; and whoever waits for that for a while does not: what he would
 * have waited for at most is added up. For whoever waits as long as it takes it ends. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "shell/file_disk.h"
#include "shell/manager_internal.h"
#include "unit.h"

#define FILES 40

static pthread_t main_thread;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool hangs;
static uint64_t waited_ns;

static void hang(void) {
  pthread_mutex_lock(&mutex);
  while (hangs && !pthread_equal(pthread_self(), main_thread))
    pthread_cond_timedwait(&changed, &mutex, &(struct timespec){.tv_sec = INT32_MAX});
  pthread_mutex_unlock(&mutex);
}

int close(int fd) {
  hang();
  return (int)syscall(SYS_close, fd);
}

/* A thread that is to close a file, and has not come to that yet: it has its lock. */
int fcntl(int fd, int command, ...) {
  va_list arguments;
  va_start(arguments, command);
  void *argument = va_arg(arguments, void *);
  va_end(arguments);
  if (command == F_OFD_SETLK && ((struct flock *)argument)->l_type == F_UNLCK) hang();
  return (int)syscall(SYS_fcntl, fd, command, argument);
}

static int64_t ns_of(const struct timespec *time) { return time->tv_sec * (int64_t)NS_PER_S + time->tv_nsec; }

int pthread_cond_clockwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict its, clockid_t clock,
                           const struct timespec *restrict until) {
  struct timespec now, wall;
  clock_gettime(clock, &now);
  int64_t left_ns = ns_of(until) - ns_of(&now);
  if (hangs && pthread_equal(pthread_self(), main_thread)) {
    if (left_ns > 0) waited_ns += (uint64_t)left_ns;
    return ETIMEDOUT;
  }
  clock_gettime(CLOCK_REALTIME, &wall);
  int64_t end_ns = ns_of(&wall) + left_ns;
  wall = (struct timespec){.tv_sec = end_ns / (int64_t)NS_PER_S, .tv_nsec = end_ns % (int64_t)NS_PER_S};
  return pthread_cond_timedwait(cond, its, &wall);
}

static void set_hangs(bool value) {
  pthread_mutex_lock(&mutex);
  hangs = value;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&mutex);
}

int pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *its) {
  if (pthread_equal(pthread_self(), main_thread)) set_hangs(false);
  return pthread_cond_timedwait(cond, its, &(struct timespec){.tv_sec = INT32_MAX});
}

static void many_hang_for_no_longer_than_one(void **state) {
  (void)state;
  struct why why;
  struct reactor *reactor = reactor_create(&why);
  struct disk *disks[FILES];
  char paths[FILES][40];
  assert_non_null(reactor);
  for (int i = 0; i < FILES; i++) {
    strcpy(paths[i], "/tmp/tarn-test-close-XXXXXX");
    int fd = mkstemp(paths[i]);
    assert_true(fd >= 0 && ftruncate(fd, 65536) == 0);
    close(fd);
    struct file_disk_options options = {.reactor = reactor, .path = paths[i]};
    assert_int_equal(file_disk_open(&options, &disks[i], NULL, &why), TARN_OK);
  }
  set_hangs(true);
  for (int i = 0; i < FILES; i++) disk_close(disks[i]);
  assert_true(waited_ns > 0);
  assert_true(waited_ns < 5 * FILE_CLOSE_MS * NS_PER_MS); /* it may be waited for again after a while */
  set_hangs(false);
  for (int i = 0; i < FILES; i++) { /* who opens one again waits until it is closed, and so until its lock is free */
    struct file_disk_options options = {.reactor = reactor, .path = paths[i]};
    assert_int_equal(file_disk_open(&options, &disks[i], NULL, &why), TARN_OK);
    disk_close(disks[i]);
    unlink(paths[i]);
  }
  reactor_destroy(reactor);
}

/* An image is removed, its files are closed, and its metadata goes: what we are just closing ourselves is in nobody's use. */
static void what_we_close_ourselves_can_be_removed(void **state) {
  (void)state;
  struct why why;
  struct reactor *reactor = reactor_create(&why);
  struct disk *disk;
  char path[] = "/tmp/tarn-test-close-XXXXXX";
  json_t *warnings = json_array(), *paths = json_array();
  int fd = mkstemp(path);
  assert_true(fd >= 0 && ftruncate(fd, 65536) == 0);
  close(fd);
  struct file_disk_options options = {.reactor = reactor, .path = path};
  assert_int_equal(file_disk_open(&options, &disk, NULL, &why), TARN_OK);
  set_hangs(true);
  disk_close(disk);
  json_array_append_new(paths, json_string(path));
  unmake_files(paths, &(struct unmake_owner){.name = NULL}, warnings);
  set_hangs(false);
  assert_int_equal(json_array_size(warnings), 0);
  assert_int_equal(access(path, F_OK), -1);
  json_decref(warnings);
  json_decref(paths);
  reactor_destroy(reactor);
}

int main(void) {
  main_thread = pthread_self();
  const struct CMUnitTest tests[] = {cmocka_unit_test(many_hang_for_no_longer_than_one),
                                     cmocka_unit_test(what_we_close_ourselves_can_be_removed)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
