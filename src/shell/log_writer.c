/* log_writer.c - see log_writer.h. The thread takes all that waits at once, and writes it without the lock. */
#include "shell/log_writer.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NOTE_BYTES 128 /* of the note on what was left out */

static void write_all(int fd, const char *text, size_t bytes) {
  while (bytes > 0) {
    ssize_t done = write(fd, text, bytes);
    if (done > 0) text += done, bytes -= (size_t)done;
    else if (done < 0 && errno == EAGAIN) (void)poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, -1);
    else if (done == 0 || errno != EINTR) return;
  }
}

/* With the lock. Returns the bytes in `out`. */
static size_t take(struct log_writer *log) {
  size_t bytes = log->used;
  memcpy(log->out, log->room, bytes);
  if (log->left_out > 0)
    bytes += (size_t)snprintf(log->out + bytes, NOTE_BYTES,
                              "(%llu lines are left out here: the log was not read; 'tarn events' has the last ones)\n",
                              (unsigned long long)log->left_out);
  log->used = 0;
  log->left_out = 0;
  return bytes;
}

static void *run(void *context) {
  struct log_writer *log = context;
  pthread_mutex_lock(&log->mutex);
  for (;;) {
    while (log->used == 0 && !log->ends) pthread_cond_wait(&log->wanted, &log->mutex);
    if (log->used == 0) break;
    size_t bytes = take(log);
    log->writing = true;
    pthread_mutex_unlock(&log->mutex);
    write_all(log->fd, log->out, bytes);
    pthread_mutex_lock(&log->mutex);
    log->writing = false;
    if (log->used > 0) continue;
    log->slow = false;
    pthread_cond_signal(&log->written);
  }
  pthread_mutex_unlock(&log->mutex);
  return NULL;
}

/* With the lock. False: it was not all written in time. */
static bool wait_written(struct log_writer *log) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_nsec += LOG_WAIT_MS * 1000000l;
  until.tv_sec += until.tv_nsec / 1000000000l;
  until.tv_nsec %= 1000000000l;
  int err = 0;
  while ((log->used > 0 || log->writing) && err == 0) err = pthread_cond_timedwait(&log->written, &log->mutex, &until);
  return log->used == 0 && !log->writing;
}

void log_writer_start(struct log_writer *log, int fd) {
  pthread_condattr_t monotonic;
  memset(log, 0, sizeof *log);
  log->fd = fd;
  pthread_mutex_init(&log->mutex, NULL);
  pthread_condattr_init(&monotonic);
  pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
  pthread_cond_init(&log->wanted, NULL);
  pthread_cond_init(&log->written, &monotonic);
  pthread_condattr_destroy(&monotonic);
  log->runs = pthread_create(&log->thread, NULL, run, log) == 0;
}

void log_writer_add(struct log_writer *log, const char *text) {
  size_t bytes = strlen(text);
  if (!log->runs) {
    write_all(log->fd, text, bytes);
    return;
  }
  pthread_mutex_lock(&log->mutex);
  if (log->left_out > 0 || bytes > sizeof log->room - NOTE_BYTES - log->used) {
    log->left_out++;
  } else {
    memcpy(log->room + log->used, text, bytes);
    log->used += bytes;
    pthread_cond_signal(&log->wanted);
  }
  if (!log->slow) log->slow = !wait_written(log);
  pthread_mutex_unlock(&log->mutex);
}

void log_writer_end(struct log_writer *log) {
  if (!log->runs) return;
  pthread_mutex_lock(&log->mutex);
  log->ends = true;
  pthread_cond_signal(&log->wanted);
  bool whole = wait_written(log);
  pthread_mutex_unlock(&log->mutex);
  log->runs = false;
  if (whole) pthread_join(log->thread, NULL);
  else pthread_detach(log->thread);
}
