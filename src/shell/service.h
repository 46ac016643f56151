/* service.h - what a service manager (systemd, or whatever does as it does) gives this process, and wants to hear from it. No
 * library: both protocols are a few environment variables.
 *
 *     LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES     sockets that it has opened for us, from descriptor 3 on (sd_listen_fds(3))
 *     NOTIFY_SOCKET                              where it listens for READY=1, STATUS=..., STOPPING=1 (sd_notify(3))
 *     WATCHDOG_USEC, WATCHDOG_PID                how often it wants to hear WATCHDOG=1 (sd_watchdog_enabled(3))
 *
 * A socket's name says what it is for: `control`, else `nbd`; one without a name is for NBD. Any other name is a mistake: clients
 * must not find a door that was meant for something else. */
#ifndef TARN_SHELL_SERVICE_H
#define TARN_SHELL_SERVICE_H

#include "core/env.h"
#include "shell/listen.h"

#define SERVICE_NBD_MAX 16u

/* Sockets that were passed on. */
struct service_sockets {
  uint32_t nbd_count;
  struct address nbd[SERVICE_NBD_MAX];
  bool has_control;
  struct address control;
};
/* Takes them from the environment, which is cleaned of them. None when there are none, or when they are meant for another
 * process. TARN_INVALID with a sentence that names the descriptor. */
CHECKED tarn_err service_sockets_take(struct service_sockets *sockets, struct why *why);

/* Raises the limit of open files as far as this process may. `have` and `want`: what it is now, and what full tables of clients
 * and one mirror of 16 images with 8 volumes take. */
void service_files_raise(uint64_t *have, uint64_t *want);

/* ---- telling ---- */

struct service_voice {
  int fd; /* -1: nobody wants to hear anything */
  uint64_t watchdog_ns;
  struct env *env;
  struct timer timer;
  bool stopping;
  char told[200];
  void *owner;
  void (*summary)(void *owner, char *out, size_t bytes);
};
/* Finds the socket. A wrong one is said to nobody: silence is what a manager sees then. */
void service_voice_open(struct service_voice *voice);
/* "READY=1"; with the status that `summary` writes from now on each second if it has changed, and WATCHDOG=1. */
void service_voice_ready(struct service_voice *voice, struct env *env, void *owner,
                         void (*summary)(void *owner, char *out, size_t bytes));
/* "STOPPING=1"; `summary` is not called any more, the watchdog is told on. */
void service_voice_stopping(struct service_voice *voice);
void service_voice_close(struct service_voice *voice);

#endif
