/* own_server.c - see own_server.h. */
#include "shell/own_server.h"

#include <netinet/in.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/require.h"
#include "shell/door.h"

#define LISTENERS_MAX 64u

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int listeners[LISTENERS_MAX];
static uint32_t listener_count;

union name {
  struct sockaddr any;
  struct sockaddr_un un;
  struct sockaddr_in in;
  struct sockaddr_in6 in6;
};

static in_port_t port_of(const union name *name) {
  return name->any.sa_family == AF_INET ? name->in.sin_port : name->any.sa_family == AF_INET6 ? name->in6.sin6_port : 0;
}

static bool is_any_host(const union name *name) {
  return name->any.sa_family == AF_INET ? name->in.sin_addr.s_addr == htonl(INADDR_ANY)
                                        : IN6_IS_ADDR_UNSPECIFIED(&name->in6.sin6_addr) != 0;
}

/* A name that was never set is a socket without a path, or of another kind. */
static bool name_read(int fd, int (*get)(int, struct sockaddr *, socklen_t *), union name *name) {
  socklen_t bytes = sizeof *name;
  memset(name, 0, sizeof *name);
  return get(fd, &name->any, &bytes) == 0 && bytes > sizeof name->any.sa_family;
}
static int local_name(int fd, struct sockaddr *name, socklen_t *bytes) { return getsockname(fd, name, bytes); }
static int remote_name(int fd, struct sockaddr *name, socklen_t *bytes) { return getpeername(fd, name, bytes); }

/* Would a connection to `peer`, an address of this machine, be let in at `own`? */
static bool lets_in(const union name *own, const union name *peer) {
  if (own->any.sa_family == AF_UNIX || peer->any.sa_family == AF_UNIX)
    return own->any.sa_family == peer->any.sa_family &&
           memcmp(own->un.sun_path, peer->un.sun_path, sizeof own->un.sun_path) == 0;
  struct in6_addr own_host = host_of(&own->any), peer_host = host_of(&peer->any);
  return port_of(own) == port_of(peer) && (is_any_host(own) || memcmp(&own_host, &peer_host, sizeof own_host) == 0);
}

/* Who connects to an address of his own machine comes from that very address. */
static bool is_local(int fd, const union name *peer) {
  union name here;
  if (peer->any.sa_family == AF_UNIX) return true;
  if (!name_read(fd, local_name, &here)) return false;
  struct in6_addr here_host = host_of(&here.any), peer_host = host_of(&peer->any);
  return memcmp(&here_host, &peer_host, sizeof here_host) == 0;
}

void own_server_listens(int fd) {
  pthread_mutex_lock(&lock);
  require(listener_count < LISTENERS_MAX);
  listeners[listener_count++] = fd;
  pthread_mutex_unlock(&lock);
}

void own_server_ends(int fd) {
  pthread_mutex_lock(&lock);
  uint32_t i = 0;
  while (i < listener_count && listeners[i] != fd) i++;
  if (i < listener_count) listeners[i] = listeners[--listener_count];
  pthread_mutex_unlock(&lock);
}

bool own_server_is_at(int fd) {
  union name peer, own;
  bool found = false;
  if (!name_read(fd, remote_name, &peer) || !is_local(fd, &peer)) return false;
  pthread_mutex_lock(&lock);
  for (uint32_t i = 0; i < listener_count && !found; i++)
    found = name_read(listeners[i], local_name, &own) && lets_in(&own, &peer);
  pthread_mutex_unlock(&lock);
  return found;
}
