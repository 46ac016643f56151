/* log_writer.h - the daemon's log, written by a thread of its own: whoever reads it may stop reading (journald on a disk that hangs, a
 * terminal after Ctrl-S, a pipe), and no I/O of a client waits for that.
 *
 * Lines are written in their order. While they are taken at once each is written when log_writer_add() returns, so what is answered
 * after a report comes after it in the log; a reader that is slow is waited for LOG_WAIT_MS once, and not again before it has taken all.
 * LOG_ROOM_BYTES wait for it at most: the lines after that are left out, and the log says how many. `tarn events` has the last ones.
 *
 * One thread adds. An error of the file is nobody's: the lines are lost. */
#ifndef TARN_SHELL_LOG_WRITER_H
#define TARN_SHELL_LOG_WRITER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOG_ROOM_BYTES (64 * 1024)
#define LOG_WAIT_MS    50

struct log_writer {
  int fd;
  bool runs;
  pthread_t thread;
  pthread_mutex_t mutex;
  pthread_cond_t wanted, written;
  char room[LOG_ROOM_BYTES], out[LOG_ROOM_BYTES]; /* what waits, and what the thread writes now */
  size_t used;
  uint64_t left_out; /* lines that found no room */
  bool writing, slow, ends;
};

/* Where no thread can be started the lines are written by who adds them. The descriptor stays the caller's. */
void log_writer_start(struct log_writer *log, int fd);
/* A line, or several, each with its end. */
void log_writer_add(struct log_writer *log, const char *text);
/* Waits for what is still to be written, LOG_WAIT_MS at most. Nothing may be added any more; a thread that hangs is left behind, and so
 * `log` must live for as long as the process. */
void log_writer_end(struct log_writer *log);

#endif
