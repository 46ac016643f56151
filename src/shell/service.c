/* service.c - see service.h. */
#include "shell/service.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "shell/control.h"
#include "shell/nbd_server.h"
#include "shell/words.h"

#define FIRST_FD    3
#define PASSED_MAX  ((int)SERVICE_NBD_MAX + 1)
#define FILES_BASE  64u /* the ring, the lock, standard streams, folders that are being read */
#define FILES_AMPLE 65536u

/* ---- sockets that were passed on ---- */

static bool is_mine(const char *pid_variable) {
  const char *text = getenv(pid_variable);
  int64_t pid;
  return text && number_parse(text, &pid, NULL) == TARN_OK && pid == getpid();
}

static tarn_err socket_take(struct service_sockets *sockets, int fd, const char *name, struct why *why) {
  struct address address;
  struct why inner;
  bool is_control = strcmp(name, "control") == 0;
  /* "unknown" is what sd_listen_fds_with_names(3) says of a socket without a name */
  if (!is_control && strcmp(name, "nbd") != 0 && name[0] && strcmp(name, "unknown") != 0)
    return because(
        why, TARN_INVALID,
        "the socket that was passed as descriptor %d has the name '%.60s': FileDescriptorName= in its unit must "
        "be 'nbd' or 'control'",
        fd, name);
  if (address_passed(fd, &address, &inner) != TARN_OK)
    return because(why, TARN_INVALID,
                   "descriptor %d, which was passed as a listening socket (LISTEN_FDS), %s; see the socket unit, or "
                   "unset LISTEN_FDS",
                   fd, inner.text);
  if (!is_control && sockets->nbd_count == SERVICE_NBD_MAX)
    return because(why, TARN_INVALID, "more than %u NBD sockets were passed on; take some out of the socket unit",
                   SERVICE_NBD_MAX);
  if (!is_control) sockets->nbd[sockets->nbd_count++] = address;
  else if (!address.is_unix)
    return because(
        why, TARN_INVALID,
        "the control socket that was passed as descriptor %d is %s: it must be a Unix socket, because who may "
        "reach it may do everything",
        fd, address.text);
  else if (sockets->has_control)
    return because(why, TARN_INVALID, "two control sockets were passed on; take one out of the socket unit");
  else sockets->control = address, sockets->has_control = true;
  return TARN_OK;
}

static tarn_err sockets_take(struct service_sockets *sockets, const char *count_text, const char *names,
                             struct why *why) {
  int64_t count;
  if (number_parse(count_text, &count, NULL) != TARN_OK || count < 0 || count > PASSED_MAX)
    return because(why, TARN_INVALID, "LISTEN_FDS='%.40s' is no number from 0 to %d", count_text, PASSED_MAX);
  for (int i = 0; i < count; i++) {
    char name[64] = "";
    size_t bytes = strcspn(names, ":");
    snprintf(name, sizeof name, "%.*s", (int)min_u64(bytes, sizeof name - 1), names);
    names += bytes + (names[bytes] == ':');
    tarn_err err = socket_take(sockets, FIRST_FD + i, name, why);
    if (err != TARN_OK) return err;
  }
  return TARN_OK;
}

tarn_err service_sockets_take(struct service_sockets *sockets, struct why *why) {
  const char *count = getenv("LISTEN_FDS"), *names = getenv("LISTEN_FDNAMES");
  tarn_err err = TARN_OK;
  *sockets = (struct service_sockets){.nbd_count = 0};
  if (count && is_mine("LISTEN_PID")) err = sockets_take(sockets, count, names ? names : "", why);
  unsetenv("LISTEN_FDS");
  unsetenv("LISTEN_PID");
  unsetenv("LISTEN_FDNAMES");
  return err;
}

/* ---- open files ---- */

void service_files_raise(uint64_t *have, uint64_t *want) {
  struct rlimit limit;
  *want =
      FILES_BASE + NBD_SESSIONS_DEFAULT + CONTROL_CONNECTIONS_MAX + SERVICE_NBD_MAX + IMAGES_MAX * (VOLUMES_MAX + 1);
  *have = *want;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  if (limit.rlim_max < FILES_AMPLE) { /* root may */
    struct rlimit more = {.rlim_cur = FILES_AMPLE, .rlim_max = FILES_AMPLE};
    if (setrlimit(RLIMIT_NOFILE, &more) == 0) limit = more;
  }
  struct rlimit all = {.rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max};
  if (limit.rlim_cur < limit.rlim_max && setrlimit(RLIMIT_NOFILE, &all) == 0) limit = all;
  *have = limit.rlim_cur;
}

/* ---- telling ---- */

static void tell(const struct service_voice *voice, const char *text) {
  if (voice->fd < 0) return;
  ssize_t ignored = send(voice->fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);
  (void)ignored;
}

void service_voice_open(struct service_voice *voice) {
  const char *path = getenv("NOTIFY_SOCKET"), *watchdog = getenv("WATCHDOG_USEC");
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  int64_t watchdog_us;
  *voice = (struct service_voice){.fd = -1};
  if (!path || (path[0] != '/' && path[0] != '@') || !path[1] || strlen(path) > sizeof address.sun_path) return;
  memcpy(address.sun_path, path, strlen(path));
  if (path[0] == '@') address.sun_path[0] = 0; /* the abstract name space */
  voice->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  socklen_t bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
  if (voice->fd >= 0 && connect(voice->fd, (struct sockaddr *)&address, bytes) != 0) {
    close(voice->fd);
    voice->fd = -1;
  }
  bool mine = !getenv("WATCHDOG_PID") || is_mine("WATCHDOG_PID");
  if (mine && watchdog && number_parse(watchdog, &watchdog_us, NULL) == TARN_OK && watchdog_us > 0 &&
      watchdog_us < INT64_MAX / 1000)
    voice->watchdog_ns = (uint64_t)watchdog_us * 1000;
}

/* What has changed since it was last told; at least half as often as the watchdog asks. */
static void voice_fire(struct timer *timer) {
  struct service_voice *voice = CONTAINER_OF(timer, struct service_voice, timer);
  uint64_t pause_ns = NS_PER_S;
  char status[sizeof voice->told] = "STATUS=";
  size_t used = strlen(status);
  if (!voice->stopping) voice->summary(voice->owner, status + used, sizeof status - used);
  if (!voice->stopping && strcmp(status, voice->told) != 0) {
    memcpy(voice->told, status, sizeof status);
    tell(voice, status);
  }
  if (voice->watchdog_ns > 0) tell(voice, "WATCHDOG=1");
  if (voice->watchdog_ns > 0) pause_ns = min_u64(pause_ns, voice->watchdog_ns / 2);
  timer_set(voice->env, timer, voice->env->now_ns + pause_ns);
}

void service_voice_ready(struct service_voice *voice, struct env *env, void *owner,
                         void (*summary)(void *owner, char *out, size_t bytes)) {
  if (voice->fd < 0) return;
  voice->env = env;
  voice->owner = owner;
  voice->summary = summary;
  timer_init(&voice->timer, voice_fire);
  tell(voice, "READY=1");
  voice_fire(&voice->timer);
}

void service_voice_stopping(struct service_voice *voice) {
  voice->stopping = true;
  tell(voice, "STOPPING=1\nSTATUS=finishing and flushing all writes");
}

void service_voice_close(struct service_voice *voice) {
  if (voice->env) timer_cancel(&voice->timer);
  if (voice->fd >= 0) close(voice->fd);
  voice->fd = -1;
}
