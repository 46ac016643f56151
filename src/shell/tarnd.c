/* tarnd - the daemon's main: arguments, the state directory and its lock, then one reactor with an NBD server, a manager of
 * mirrors and a control socket on it. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "shell/config.h"
#include "shell/control.h"
#include "shell/log_writer.h"
#include "shell/manager.h"
#include "shell/service.h"
#include "shell/standard.h"
#include "shell/trusted.h"
#include "shell/undumped.h"
#include "shell/words.h"

#define TAKE_OVER_MS 2000 /* from a daemon that was just killed */
/* ... sockets in the state directory, which is locked by then: only who was killed can be there */
#define OWN_PLACE_MS 10000
#define TRY_MS       50
#define MAP_BYTES    (64 * 1024)
#define EXIT_FAILED  1
#define EXIT_USAGE   2

/* The program itself: one per process, because env->report has no other way to find it. */
static struct tarnd {
  struct config config;
  int lock_fd;
  struct reactor *reactor;
  struct env *env;
  struct arena arena;
  struct buffer_pool pool;
  struct nbd_server *nbd;
  struct manager *manager;
  struct control *control;
  struct event_log *events;
  struct service_sockets passed;
  struct service_voice voice;
  struct log_writer log;
  bool stopping;
  struct address control_address;
  struct reactor_work removal;   /* of our socket files */
  struct timer removal_patience; /* armed: that is waited for */
} tarnd;

/* ---- reporting ---- */

static void tarnd_report(struct env *env, enum report_level level, const char *subject, const char *text) {
  char time[TIME_TEXT];
  uint64_t wall_ns = env->wall_ns;
  if (wall_ns == 0) { /* before the first turn */
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    wall_ns = (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
  }
  const struct event_line *line = event_log_add(tarnd.events, wall_ns, level, subject, text);
  char text_line[TIME_TEXT + sizeof line->subject + sizeof line->text + 32];
  snprintf(text_line, sizeof text_line, "%s %s %s%s%s\n", time_text(wall_ns, time), report_level_name(level),
           line->subject, line->subject[0] ? ": " : "", line->text);
  log_writer_add(&tarnd.log, text_line);
  if (tarnd.control) control_events_added(tarnd.control);
}

/* One line, whatever was quoted in it. */
static int fail(int status, const char *text) {
  char line[sizeof((struct why){}).text];
  (void)text_set(line, sizeof line, "%s", text);
  fprintf(stderr, "tarnd: %s\n", text_printable(line));
  return status;
}

/* ---- the state directory ---- */

/* Makes it, in a folder that exists, and puts its absolute path into the config. */
static tarn_err state_open(struct config *config, struct why *why) {
  const char *path = config->state;
  char resolved[PATH_MAX];
  if (mkdir(path, 0700) != 0 && errno != EEXIST)
    return because(why, TARN_REFUSED, "the state directory %s cannot be made: %s", path, strerror(errno));
  if (!realpath(path, resolved))
    return because(why, TARN_REFUSED, "the state directory %s cannot be used: %s", path, strerror(errno));
  struct stat info;
  if (stat(resolved, &info) != 0 || !S_ISDIR(info.st_mode))
    return because(why, TARN_REFUSED, "%s is no directory", path);
  /* Who can write there says which data counts, gives options, and answers in our place: so nobody else may. */
  struct why inner;
  if (trusted_folder(path, &inner) != TARN_OK) return because(why, TARN_REFUSED, "the state directory %s", inner.text);
  if (strlen(resolved) >= CONFIG_STATE_MAX)
    return because(why, TARN_REFUSED, "the path of the state directory is too long");
  strcpy(config->state, resolved);
  return TARN_OK;
}

/* Is that process killed, and on its way out? It holds what it holds until the last of its I/Os has come back. */
static bool is_ending(const char *pid) {
  char path[64], text[4096] = "";
  snprintf(path, sizeof path, "/proc/%.20s/status", pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t bytes = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
  if (fd >= 0) close(fd);
  const char *state = bytes > 0 ? strstr(text, "\nState:\t") : NULL, *pending = strstr(text, "\nShdPnd:\t");
  if (state && (state[8] == 'Z' || state[8] == 'X')) return true;
  return pending && (strtoull(pending + 9, NULL, 16) & 1ull << (SIGKILL - 1)) != 0;
}

/* A daemon that was just killed may hold it for a moment while the kernel takes it down. */
static tarn_err state_lock(struct tarnd *daemon, struct why *why) {
  char path[CONFIG_STATE_MAX + 16], pid[32] = "";
  snprintf(path, sizeof path, "%s/lock", daemon->config.state);
  /* It is written to: so it must be our own file, and not a way to somebody else's. */
  daemon->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
  if (daemon->lock_fd < 0)
    return because(why, TARN_REFUSED, "%s cannot be opened: %s", path,
                   errno == ELOOP ? "it is a symbolic link; remove it" : strerror(errno));
  struct stat info;
  if (fstat(daemon->lock_fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_nlink != 1)
    return because(why, TARN_REFUSED, "%s is not a file of tarnd's own; remove it", path);
  for (int waited_ms = 0; flock(daemon->lock_fd, LOCK_EX | LOCK_NB) != 0; waited_ms += TRY_MS) {
    if (errno != EWOULDBLOCK) return because(why, TARN_REFUSED, "%s cannot be locked: %s", path, strerror(errno));
    if (waited_ms < TAKE_OVER_MS) {
      usleep(TRY_MS * 1000);
      continue;
    }
    ssize_t bytes = pread(daemon->lock_fd, pid, sizeof pid - 1, 0);
    pid[bytes > 0 ? strcspn(pid, "\n") : 0] = 0;
    if (is_ending(pid))
      return because(
          why, TARN_EXISTS,
          "the state directory %s is in use by another tarnd, process %s, which was killed, and cannot end before "
          "its disks have answered it; bring back the disk that hangs, or restart the machine",
          daemon->config.state, pid);
    return because(why, TARN_EXISTS,
                   "the state directory %s is in use by another tarnd%s%s; stop that one, or give --state",
                   daemon->config.state, pid[0] ? ", process " : "", pid);
  }
  int bytes = snprintf(pid, sizeof pid, "%d\n", (int)getpid());
  if (ftruncate(daemon->lock_fd, 0) != 0 || pwrite(daemon->lock_fd, pid, (size_t)bytes, 0) != bytes)
    return because(why, TARN_IO, "%s cannot be written: %s", path, strerror(errno));
  return TARN_OK;
}

/* ---- start ---- */

static tarn_err memory_reserve(struct tarnd *daemon, struct why *why) {
  char pool[SIZE_TEXT], nbd[SIZE_TEXT];
  undumped_arena_init(&daemon->arena);
  if (buffer_pool_init(&daemon->pool, daemon->env, &daemon->arena, daemon->config.memory_bytes) != TARN_OK)
    return because(why, TARN_FULL, "there is not enough memory for buffers of %s; give a smaller --memory",
                   size_text(daemon->config.memory_bytes, pool));
  arena_freeze(&daemon->arena);
  struct nbd_server_options options = {.reactor = daemon->reactor, .pool = &daemon->pool};
  daemon->nbd = nbd_server_create(&options, why);
  if (!daemon->nbd) return TARN_FULL;
  report(daemon->env, REPORT_INFO, "tarnd",
         "reserved %s for data on its way (memory), %s for NBD sessions; pages are used as they are needed",
         size_text(daemon->arena.bytes, pool), size_text(nbd_server_reserved_bytes(daemon->nbd), nbd));
  return TARN_OK;
}

/* The ring of a daemon that was killed keeps its sockets for a moment, on a busy machine for seconds. */
static void be_patient(const struct tarnd *daemon, struct address *address) {
  size_t bytes = strlen(daemon->config.state);
  if (strncmp(address->path, daemon->config.state, bytes) == 0 && address->path[bytes] == '/')
    address->patience_ms = OWN_PLACE_MS;
}

static tarn_err listen_check_all(const struct config *config, struct why *why) {
  tarn_err err = TARN_OK;
  for (uint32_t i = 0; i < config->nbd_count && err == TARN_OK; i++) err = listen_check(&config->nbd[i], why);
  return err;
}

static bool is_exposed(const struct address *address) {
  struct address strict = *address;
  strict.exposed = false;
  return listen_check(&strict, NULL) != TARN_OK;
}

static tarn_err control_open(struct tarnd *daemon, struct why *why) {
  char path[CONFIG_STATE_MAX + 16];
  struct address address = daemon->passed.control;
  snprintf(path, sizeof path, "%s/control.sock", daemon->config.state);
  tarn_err err = daemon->passed.has_control ? TARN_OK : address_unix(path, &address, why);
  be_patient(daemon, &address);
  if (err == TARN_OK) err = control_listen(daemon->control, &address, why);
  daemon->control_address = address;
  if (err == TARN_OK && address.passed)
    report(daemon->env, REPORT_INFO, "tarnd", "takes commands at %s, a socket that was passed on", address.text);
  return err;
}

static tarn_err listen_all(struct tarnd *daemon, struct why *why) {
  for (uint32_t i = 0; i < daemon->config.nbd_count; i++) {
    struct address *address = &daemon->config.nbd[i];
    be_patient(daemon, address);
    tarn_err err = nbd_server_listen(daemon->nbd, address, why);
    if (err != TARN_OK) return err;
    report(daemon->env, REPORT_INFO, "tarnd", "serves NBD at %s%s", address->text,
           address->passed ? ", a socket that was passed on" : "");
    if (is_exposed(address))
      report(daemon->env, REPORT_WARNING, "tarnd", "%s: whoever can connect is not authenticated (nbd-insecure)",
             address->text);
  }
  return control_open(daemon, why);
}

/* With too few, clients would be refused, and images not opened, when it is least wanted. */
static void files_reserve(struct tarnd *daemon) {
  uint64_t have, want;
  service_files_raise(&have, &want);
  if (have >= want) return;
  report(
      daemon->env, REPORT_WARNING, "tarnd",
      "only %" PRIu64 " files may be open, and %" PRIu64
      " can be needed: some clients or images will be refused; raise it with 'ulimit -Hn', or LimitNOFILE= in the unit",
      have, want);
}

static void summary(void *owner, char *out, size_t bytes) {
  manager_summary(((struct tarnd *)owner)->manager, out, bytes);
}

static void ready(void *owner) {
  struct tarnd *daemon = owner;
  if (daemon->stopping) return;
  report(daemon->env, REPORT_INFO, "tarnd", "ready");
  service_voice_ready(&daemon->voice, daemon->env, daemon, summary);
}

static tarn_err start(struct tarnd *daemon, struct why *why) {
  files_reserve(daemon);
  tarn_err err = memory_reserve(daemon, why);
  if (err != TARN_OK) return err;
  struct manager_options options = {.reactor = daemon->reactor,
                                    .pool = &daemon->pool,
                                    .nbd = daemon->nbd,
                                    .state = daemon->config.state,
                                    .node = daemon->config.name,
                                    .faults = daemon->config.faults};
  daemon->manager = manager_create(&options);
  if (!daemon->manager) return because(why, TARN_FULL, "there is not enough memory");
  err = manager_load(daemon->manager, why);
  if (err != TARN_OK) return err;
  struct control_options control = {.reactor = daemon->reactor, .manager = daemon->manager, .events = daemon->events};
  daemon->control = control_create(&control);
  if (!daemon->control) return because(why, TARN_FULL, "there is not enough memory");
  err = listen_all(daemon, why);
  if (err == TARN_OK) manager_start(daemon->manager, daemon, ready);
  return err;
}

/* ---- stop: clients, then mirrors, then the sockets ---- */

#define REMOVAL_WAIT_NS NS_PER_S /* a socket file that is left is replaced by the next start */

static void control_stopped(void *owner) { reactor_stop(((struct tarnd *)owner)->reactor); }
static void nbd_stopped(void *owner) {
  struct tarnd *daemon = owner;
  control_stop(daemon->control, daemon, control_stopped);
}

static void removal_work(struct reactor_work *work) {
  const struct tarnd *daemon = CONTAINER_OF(work, struct tarnd, removal);
  for (uint32_t i = 0; i < daemon->config.nbd_count; i++) listen_remove(&daemon->config.nbd[i]);
  listen_remove(&daemon->control_address);
}
static void sockets_stop(struct tarnd *daemon) { nbd_server_stop(daemon->nbd, daemon, nbd_stopped); }
static void removal_left(struct timer *timer) { sockets_stop(CONTAINER_OF(timer, struct tarnd, removal_patience)); }
static void removed(struct reactor_work *work) {
  struct tarnd *daemon = CONTAINER_OF(work, struct tarnd, removal);
  if (!timer_is_armed(&daemon->removal_patience)) return;
  timer_cancel(&daemon->removal_patience);
  sockets_stop(daemon);
}

/* They may lie on what hangs. */
static void manager_stopped(void *owner) {
  struct tarnd *daemon = owner;
  timer_init(&daemon->removal_patience, removal_left);
  timer_set(daemon->env, &daemon->removal_patience, daemon->env->now_ns + REMOVAL_WAIT_NS);
  reactor_run_blocking(daemon->reactor, NULL, &daemon->removal, removal_work, removed);
}

static void signalled(void *owner, int signal_number) {
  struct tarnd *daemon = owner;
  if (signal_number == SIGHUP) return;
  if (daemon->stopping) {
    report(daemon->env, REPORT_WARNING, "tarnd", "still stopping; SIGKILL would lose nothing that was answered");
    return;
  }
  daemon->stopping = true;
  report(daemon->env, REPORT_INFO, "tarnd", "stopping");
  service_voice_stopping(&daemon->voice);
  manager_stop(daemon->manager, daemon, manager_stopped);
}

int main(int argc, char **argv) {
  struct tarnd *daemon = &tarnd;
  struct why why;
  char path[CONFIG_STATE_MAX + 16];
  standard_files_open();
  /* A kernel that is short of memory must not write to a disk of ours to get some for us. Not allowed to everybody. */
  (void)prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0);
  /* What is large is mapped straight from the kernel, always: pages that are never used are never touched. By itself the C library
   * stops doing so for sizes that were freed once, and then zeroes all that a mirror reserves when it is opened again. */
  mallopt(M_MMAP_THRESHOLD, MAP_BYTES);
  config_init(&daemon->config);
  if (config_arguments(&daemon->config, argc, argv, &why) != TARN_OK) return fail(EXIT_USAGE, why.text);
  if (daemon->config.help) return fputs(config_help(), stdout) < 0;
  if (daemon->config.version) return printf("tarnd %s\n", TARN_BUILD_VERSION) < 0;
  if (service_sockets_take(&daemon->passed, &why) != TARN_OK) return fail(EXIT_USAGE, why.text);
  service_voice_open(&daemon->voice);
  daemon->reactor = reactor_create(&why); /* before anything that starts a thread: it sets up signals */
  if (!daemon->reactor) return fail(EXIT_FAILED, why.text);
  if (state_open(&daemon->config, &why) != TARN_OK) return fail(EXIT_FAILED, why.text);
  snprintf(path, sizeof path, "%.*s/tarnd.conf", (int)CONFIG_STATE_MAX - 1, daemon->config.state);
  if (config_file(&daemon->config, path, &why) != TARN_OK ||
      config_sockets(&daemon->config, daemon->passed.nbd, daemon->passed.nbd_count, &why) != TARN_OK ||
      config_complete(&daemon->config, &why) != TARN_OK || listen_check_all(&daemon->config, &why) != TARN_OK)
    return fail(EXIT_USAGE, why.text);
  if (state_lock(daemon, &why) != TARN_OK) return fail(EXIT_FAILED, why.text);
  daemon->events = calloc(1, sizeof *daemon->events);
  if (!daemon->events) return fail(EXIT_FAILED, "there is not enough memory");
  event_log_init(daemon->events);
  daemon->env = reactor_env(daemon->reactor);
  log_writer_start(&daemon->log, STDERR_FILENO);
  daemon->env->report = tarnd_report;
  report(daemon->env, REPORT_INFO, "tarnd", "tarnd %s, node %s, state %s", TARN_BUILD_VERSION, daemon->config.name,
         daemon->config.state);
  reactor_on_signal(daemon->reactor, daemon, signalled);
  if (start(daemon, &why) != TARN_OK) return fail(EXIT_FAILED, why.text);
  reactor_run(daemon->reactor);
  uint64_t deadline_ns = daemon->env->now_ns + NS_PER_S; /* a look at files that just began, and the like */
  while (reactor_has_work(daemon->reactor) && daemon->env->now_ns < deadline_ns)
    reactor_turn(daemon->reactor, 10 * NS_PER_MS);
  if (!manager_is_quiet(daemon->manager) ||
      reactor_has_work(daemon->reactor)) { /* what a dead disk still has cannot be waited for */
    report(daemon->env, REPORT_WARNING, "tarnd", "stopped; a disk has not answered all that it was asked");
    log_writer_end(&daemon->log);
    fflush(NULL);
    _exit(0);
  }
  service_voice_close(&daemon->voice);
  control_destroy(daemon->control);
  daemon->control = NULL;
  manager_destroy(daemon->manager);
  nbd_server_destroy(daemon->nbd);
  arena_destroy(&daemon->arena);
  report(daemon->env, REPORT_INFO, "tarnd", "stopped");
  log_writer_end(&daemon->log);
  reactor_destroy(daemon->reactor);
  free(daemon->events);
  close(daemon->lock_fd);
  return 0;
}
