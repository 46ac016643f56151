/* listen.c - see listen.h. */
#include "shell/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/require.h"
#include "shell/trusted.h"

#define LISTEN_BACKLOG 4096 /* a Unix client that does not wait is refused when it is full */
#define PATIENCE_MS    2000
#define TRY_MS         50

tarn_err address_unix(const char *path, struct address *address, struct why *why) {
  *address = (struct address){.is_unix = true, .patience_ms = PATIENCE_MS, .mode = 0600, .group = (gid_t)-1};
  if (path[0] == '\0') return because(why, TARN_INVALID, "unix: needs the path of a socket");
  if (strlen(path) >= sizeof(address->path))
    return because(why, TARN_INVALID, "the socket path %s is longer than the %zu bytes that the kernel allows", path,
                   sizeof(address->path) - 1);
  memcpy(address->path, path, strlen(path) + 1);
  (void)snprintf(address->text, sizeof(address->text), "unix:%s", address->path);
  return TARN_OK;
}

static tarn_err group_parse(const char *text, gid_t *group, struct why *why) {
  char *end;
  unsigned long number = strtoul(text, &end, 10);
  const struct group *found = getgrnam(text);
  if (found) *group = found->gr_gid;
  else if (text[0] >= '0' && text[0] <= '9' && *end == 0 && number < UINT32_MAX) *group = (gid_t)number;
  else return because(why, TARN_INVALID, "there is no group '%.80s'", text);
  return TARN_OK;
}

static tarn_err mode_parse(const char *text, mode_t *mode, struct why *why) {
  char *end;
  unsigned long number = strtoul(text, &end, 8);
  if (text[0] < '0' || text[0] > '7' || *end != 0 || number > 0777)
    return because(why, TARN_INVALID, "the mode of a socket is octal, from 0 to 0777, not '%.80s'", text);
  *mode = (mode_t)number;
  return TARN_OK;
}

/* One option. TARN_NOT_FOUND: it is none. */
static tarn_err option_parse(const char *option, struct address *address, struct why *why) {
  if (address->is_unix && strncmp(option, "mode=", 5) == 0) return mode_parse(option + 5, &address->mode, why);
  if (address->is_unix && strncmp(option, "group=", 6) == 0) return group_parse(option + 6, &address->group, why);
  return door_option(&address->door, address->is_unix, option, why);
}

/* A path may contain commas, but this is a mistyped option rather than the end of one. */
static bool is_like_an_option(const char *text) {
  size_t letters = strspn(text, "abcdefghijklmnopqrstuvwxyz-");
  return letters > 0 && text[letters] == '=' && !strchr(text, '/');
}

/* PATH[,OPTION...] */
static tarn_err unix_parse(const char *text, struct address *address, struct why *why) {
  char path[1024];
  struct address options = {.is_unix = true, .mode = 0600, .group = (gid_t)-1};
  if (strlen(text) >= sizeof(path)) return address_unix(text, address, why); /* which says that it is too long */
  strcpy(path, text);
  for (char *comma = strrchr(path, ','); comma; comma = strrchr(path, ',')) {
    tarn_err err = option_parse(comma + 1, &options, why);
    if (err == TARN_NOT_FOUND && is_like_an_option(comma + 1))
      return because(
          why, TARN_INVALID,
          "address 'unix:%s': unknown option '%.80s'; known are connections, exports, group, mode, per-peer, uid", path,
          comma + 1);
    if (err == TARN_NOT_FOUND) break;
    if (err != TARN_OK) return err;
    *comma = '\0';
  }
  tarn_err err = address_unix(path, address, why);
  address->mode = options.mode;
  address->group = options.group;
  address->door = options.door;
  return err;
}

static void tcp_text(struct address *address) {
  const char *format = strchr(address->host, ':') ? "[%s]:%s" : "%s:%s";
  (void)snprintf(address->text, sizeof(address->text), format, address->host, address->port);
}

static tarn_err host_port_parse(const char *text, struct address *address, struct why *why) {
  *address = (struct address){.patience_ms = PATIENCE_MS};
  const char *colon = strrchr(text, ':');
  if (!colon) return because(why, TARN_INVALID, "address '%s' is none of unix:PATH, HOST:PORT, [IPv6]:PORT", text);

  const char *host = text;
  size_t host_bytes = (size_t)(colon - text);
  if (host_bytes >= 2 && host[0] == '[' && host[host_bytes - 1] == ']') {
    host++;
    host_bytes -= 2;
  } else if (memchr(host, ':', host_bytes)) {
    return because(why, TARN_INVALID, "address '%s': an IPv6 address is written [ADDRESS]:PORT", text);
  }
  if (host_bytes == 0)
    return because(why, TARN_INVALID, "address '%s' has no host; * stands for all of this machine", text);
  if (host_bytes >= sizeof(address->host))
    return because(why, TARN_INVALID, "address '%.80s...': the host is too long", text);

  if (memchr(host, '[', host_bytes) || memchr(host, ']', host_bytes))
    return because(why, TARN_INVALID, "address '%s': brackets stand around an IPv6 address only", text);

  const char *port = colon + 1;
  size_t digits = strspn(port, "0123456789");
  if (digits == 0 || port[digits] != '\0' || digits >= sizeof(address->port) || atoi(port) > 65535)
    return because(why, TARN_INVALID, "address '%s': the port is not a number from 0 to 65535", text);
  memcpy(address->host, host, host_bytes);
  memcpy(address->port, port, digits);
  tcp_text(address);
  return TARN_OK;
}

/* HOST:PORT[,OPTION...] */
static tarn_err tcp_parse(const char *text, struct address *address, struct why *why) {
  char word[1024];
  if (strlen(text) >= sizeof(word)) return because(why, TARN_INVALID, "address '%.80s...' is too long", text);
  strcpy(word, text);
  char *options = strchr(word, ',');
  if (options) *options++ = '\0';
  tarn_err err = host_port_parse(word, address, why);
  for (char *option = options, *next; option && err == TARN_OK; option = next) {
    next = strchr(option, ',');
    if (next) *next++ = '\0';
    err = option_parse(option, address, why);
    if (err == TARN_NOT_FOUND)
      err = because(why, TARN_INVALID,
                    "address '%s': unknown option '%.80s'; known are allow, connections, exports, per-peer",
                    address->text, option);
  }
  return err;
}

tarn_err address_parse(const char *text, struct address *address, struct why *why) {
  return strncmp(text, "unix:", 5) == 0 ? unix_parse(text + 5, address, why) : tcp_parse(text, address, why);
}

/* ---- listening ---- */

static void unix_name(const struct address *address, struct sockaddr_un *name) {
  *name = (struct sockaddr_un){.sun_family = AF_UNIX};
  _Static_assert(sizeof(name->sun_path) == sizeof(address->path), "the kernel's limit");
  memcpy(name->sun_path, address->path, sizeof(name->sun_path));
}

/* Is anybody behind the socket file? Only a file that is a socket, and that refuses us, is a leftover. */
static bool unix_is_stale(const struct sockaddr_un *name) {
  struct stat status;
  if (lstat(name->sun_path, &status) != 0 || !S_ISSOCK(status.st_mode)) return false;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return false;
  bool stale = connect(fd, (const struct sockaddr *)name, sizeof(*name)) != 0 && errno == ECONNREFUSED;
  close(fd);
  return stale;
}

/* Whoever may change the folder, or put a link in its place, may have done so since: what is elsewhere is not removed, nor what is no
 * socket. */
static tarn_err socket_remove(const char *path, struct why *why) {
  struct statx status;
  tarn_err err = trusted_look(path, &status, why);
  if (err == TARN_OK && !S_ISSOCK(status.stx_mode)) err = because(why, TARN_REFUSED, "%s is not a socket", path);
  return err == TARN_OK ? trusted_remove(path, why) : err;
}

/* Likewise: a link is not followed, and only a socket of our own, with one name, gets the group. */
static int group_set(const char *path, gid_t group) {
  struct stat info;
  int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return -1;
  int failed = fstat(fd, &info);
  if (!failed && (!S_ISSOCK(info.st_mode) || info.st_uid != geteuid() || info.st_nlink != 1)) {
    errno = ESTALE;
    failed = -1;
  }
  if (!failed) failed = fchownat(fd, "", (uid_t)-1, group, AT_EMPTY_PATH);
  int error = errno;
  close(fd);
  errno = error;
  return failed;
}

/* Its file is made with its mode, so nothing is changed by name afterwards. The umask sees to that, as unix(7) has it; where the folder
 * has a default ACL, and the umask does not count, Linux gives it no more than the socket's own mode. That it gets its group a moment
 * later harms nobody: until listen() nobody can connect. At the start of a program, when it has one thread. */
static int bind_private(int fd, const struct sockaddr_un *name, const struct address *address) {
  if (fchmod(fd, address->mode) != 0) return -1;
  mode_t mask = umask(0777 & ~address->mode);
  int failed = bind(fd, (const struct sockaddr *)name, sizeof(*name));
  int error = errno;
  umask(mask);
  if (!failed && name->sun_path[0] && address->group != (gid_t)-1) {
    failed = group_set(name->sun_path, address->group);
    error = errno;
    if (failed) (void)!socket_remove(name->sun_path, NULL);
  }
  errno = error;
  return failed;
}

static tarn_err listen_unix(const struct address *address, int *fd, struct why *why) {
  struct sockaddr_un name;
  unix_name(address, &name);
  *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (*fd < 0) return because(why, TARN_REFUSED, "no socket for %s: %s", address->text, strerror(errno));
  int failed = bind_private(*fd, &name, address);
  if (failed && errno == EADDRINUSE && unix_is_stale(&name)) {
    struct why left;
    tarn_err err = socket_remove(name.sun_path, &left);
    if (err != TARN_OK && err != TARN_NOT_FOUND) {
      close(*fd);
      *fd = -1;
      return because(why, TARN_REFUSED, "cannot listen on %s: a socket was left there, and is not removed: %s",
                     address->text, left.text);
    }
    failed = bind_private(*fd, &name, address);
  }
  if (!failed) failed = listen(*fd, LISTEN_BACKLOG);
  if (!failed) return TARN_OK;
  int error = errno;
  close(*fd);
  *fd = -1;
  struct stat status;
  if (error == EADDRINUSE && lstat(name.sun_path, &status) == 0 && !S_ISSOCK(status.st_mode))
    return because(why, TARN_REFUSED, "cannot listen on %s: %s lies there; remove it, or choose another place",
                   address->text, S_ISDIR(status.st_mode) ? "a folder" : "a file that is not a socket");
  if (error == EADDRINUSE) return because(why, TARN_EXISTS, "%s is in use by another program", address->text);
  return because(why, TARN_REFUSED, "cannot listen on %s: %s", address->text, strerror(error));
}

/* One try on one of a name's addresses: 0 or an errno. */
static int listen_at(const struct addrinfo *info, int *fd) {
  int on = 1;
  *fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (*fd < 0) return errno;
  (void)setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (bind(*fd, info->ai_addr, info->ai_addrlen) == 0 && listen(*fd, LISTEN_BACKLOG) == 0) return 0;
  int error = errno;
  close(*fd);
  *fd = -1;
  return error;
}

static void picked_port(struct address *address, int fd) {
  struct sockaddr_storage name;
  socklen_t bytes = sizeof(name);
  if (getsockname(fd, (struct sockaddr *)&name, &bytes) != 0) return;
  unsigned port = name.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)&name)->sin6_port)
                                             : ntohs(((struct sockaddr_in *)&name)->sin_port);
  (void)snprintf(address->port, sizeof(address->port), "%u", port & 0xffffu);
  tcp_text(address);
}

static tarn_err resolve(const struct address *address, int flags, struct addrinfo **infos, struct why *why) {
  struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = flags | AI_NUMERICSERV};
  const char *host = strcmp(address->host, "*") == 0 ? NULL : address->host;
  int failed = getaddrinfo(host, address->port, &hints, infos);
  if (!failed) return TARN_OK;
  return because(why, TARN_REFUSED, "the host of %s is not known: %s", address->text,
                 failed == EAI_SYSTEM ? strerror(errno) : gai_strerror(failed));
}

static tarn_err exposure_refuse(const struct address *address, struct why *why) {
  return because(
      why, TARN_INVALID,
      "%s can be reached from other machines, and NBD has no authentication and no TLS here: whoever gets there "
      "can read and write every mirror, and whoever is on the way can read along; listen on loopback, or give "
      "--nbd-insecure",
      address->text);
}

/* A name may have several addresses: it will not do if one of them is not ours alone. */
static bool is_loopback(const struct addrinfo *infos) {
  for (const struct addrinfo *at = infos; at; at = at->ai_next) {
    struct in6_addr host = host_of(at->ai_addr);
    if (!host_is_loopback(&host)) return false;
  }
  return true;
}

static tarn_err listen_tcp(struct address *address, int *fd, struct why *why) {
  struct addrinfo *infos;
  tarn_err err = resolve(address, AI_PASSIVE, &infos, why);
  if (err) return err;
  if (!address->exposed && !is_loopback(infos)) {
    freeaddrinfo(infos);
    return exposure_refuse(address, why);
  }
  int error = EADDRNOTAVAIL;
  for (const struct addrinfo *at = infos; at && error && error != EADDRINUSE; at = at->ai_next)
    error = listen_at(at, fd);
  freeaddrinfo(infos);
  if (error == EADDRINUSE) return because(why, TARN_EXISTS, "%s is in use by another program", address->text);
  if (error) return because(why, TARN_REFUSED, "cannot listen on %s: %s", address->text, strerror(error));
  picked_port(address, *fd);
  return TARN_OK;
}

static tarn_err passed_unix(const struct sockaddr_un *name, socklen_t bytes, struct address *address, struct why *why) {
  size_t path_bytes = bytes - offsetof(struct sockaddr_un, sun_path);
  address->is_unix = true;
  if (bytes <= offsetof(struct sockaddr_un, sun_path))
    return because(why, TARN_INVALID, "is a Unix socket without a name");
  if (path_bytes == sizeof(address->path) && name->sun_path[0]) path_bytes--; /* the kernel may leave the 0 out */
  memcpy(address->path, name->sun_path, path_bytes);
  if (!address->path[0]) address->path[0] = '@'; /* as it is written: the abstract name space */
  (void)snprintf(address->text, sizeof(address->text), "unix:%s", address->path);
  return TARN_OK;
}

static int socket_option(int fd, int option) {
  int value = -1;
  socklen_t bytes = sizeof(value);
  return getsockopt(fd, SOL_SOCKET, option, &value, &bytes) == 0 ? value : -1;
}

tarn_err address_passed(int fd, struct address *address, struct why *why) {
  union {
    struct sockaddr_storage any;
    struct sockaddr_un local;
  } name = {0};
  struct stat status;
  socklen_t bytes = sizeof(name.any);
  *address = (struct address){.passed = true, .passed_fd = fd};
  if (fstat(fd, &status) != 0) return because(why, TARN_INVALID, "is not open");
  if (!S_ISSOCK(status.st_mode)) return because(why, TARN_INVALID, "is not a socket");
  if (socket_option(fd, SO_TYPE) != SOCK_STREAM) return because(why, TARN_INVALID, "is no stream socket");
  if (socket_option(fd, SO_ACCEPTCONN) != 1) return because(why, TARN_INVALID, "is a socket that does not listen");
  if (getsockname(fd, (struct sockaddr *)&name.any, &bytes) != 0)
    return because(why, TARN_INVALID, "has no address: %s", strerror(errno));
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) != 0)
    return because(why, TARN_INVALID, "cannot be used: %s", strerror(errno));
  if (name.any.ss_family == AF_UNIX) return passed_unix(&name.local, bytes, address, why);
  if ((name.any.ss_family != AF_INET && name.any.ss_family != AF_INET6) ||
      getnameinfo((struct sockaddr *)&name.any, bytes, address->host, sizeof(address->host), address->port,
                  sizeof(address->port), NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    return because(why, TARN_INVALID, "is neither a Unix nor a TCP socket");
  tcp_text(address);
  return TARN_OK;
}

static bool passed_is_loopback(const struct address *address) {
  struct sockaddr_storage name;
  socklen_t bytes = sizeof(name);
  if (getsockname(address->passed_fd, (struct sockaddr *)&name, &bytes) != 0) return false;
  struct in6_addr host = host_of((struct sockaddr *)&name);
  return host_is_loopback(&host);
}

tarn_err listen_check(const struct address *address, struct why *why) {
  struct addrinfo *infos = NULL;
  if (address->is_unix || address->exposed) return TARN_OK;
  if (!address->passed && resolve(address, AI_PASSIVE, &infos, NULL) != TARN_OK)
    return TARN_OK; /* listen_open() says so */
  bool good = address->passed ? passed_is_loopback(address) : is_loopback(infos);
  if (infos) freeaddrinfo(infos);
  return good ? TARN_OK : exposure_refuse(address, why);
}

tarn_err listen_open(struct address *address, int *fd, struct why *why) {
  *fd = -1;
  if (address->passed) {
    require(address->passed_fd >= 0);
    tarn_err err = listen_check(address, why);
    if (err) return err;
    *fd = address->passed_fd;
    return TARN_OK;
  }
  for (uint32_t waited_ms = 0;; waited_ms += TRY_MS) {
    tarn_err err = address->is_unix ? listen_unix(address, fd, why) : listen_tcp(address, fd, why);
    require((err == TARN_OK) == (*fd >= 0));
    if (err != TARN_EXISTS || waited_ms >= address->patience_ms) return err;
    usleep(TRY_MS * 1000);
  }
}

void listen_remove(const struct address *address) {
  if (address->is_unix && !address->passed) (void)!socket_remove(address->path, NULL);
}

/* ---- connecting ---- */

tarn_err address_connect(const struct address *address, int *fd, struct why *why) {
  struct sockaddr_un name;
  struct addrinfo local, *infos = NULL;
  *fd = -1;
  if (address->is_unix) {
    unix_name(address, &name);
    local = (struct addrinfo){.ai_family = AF_UNIX, .ai_addr = (struct sockaddr *)&name, .ai_addrlen = sizeof(name)};
  } else {
    tarn_err err = resolve(address, 0, &infos, why);
    if (err) return err;
  }
  int error = EADDRNOTAVAIL;
  for (const struct addrinfo *at = infos ? infos : &local; at && *fd < 0; at = at->ai_next) {
    int try = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (try >= 0 && connect(try, at->ai_addr, at->ai_addrlen) == 0) {
      *fd = try;
      break;
    }
    error = errno;
    if (try >= 0) close(try);
  }
  if (infos) freeaddrinfo(infos);
  if (*fd >= 0) return TARN_OK;
  if (error == ECONNREFUSED || error == ENOENT)
    return because(why, TARN_NOT_FOUND, "nobody listens on %s", address->text);
  return because(why, TARN_REFUSED, "cannot connect to %s: %s", address->text, strerror(error));
}

void peer_text(int fd, char *text, unsigned bytes) {
  struct sockaddr_storage name;
  socklen_t name_bytes = sizeof(name);
  char host[INET6_ADDRSTRLEN + 16], port[8];
  require(bytes > 0);
  (void)snprintf(text, bytes, "unknown");
  if (getpeername(fd, (struct sockaddr *)&name, &name_bytes) != 0) return;
  if (name.ss_family == AF_UNIX) {
    struct ucred who;
    socklen_t who_bytes = sizeof(who);
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &who_bytes) == 0)
      (void)snprintf(text, bytes, "unix (pid %d, uid %u)", (int)who.pid, (unsigned)who.uid);
  } else if (getnameinfo((struct sockaddr *)&name, name_bytes, host, sizeof(host), port, sizeof(port),
                         NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
    (void)snprintf(text, bytes, name.ss_family == AF_INET6 ? "[%s]:%s" : "%s:%s", host, port);
  }
}
