/* nbd_server.c - see nbd_server.h.
 *
 * Life of a connection:
 *
 *     free ── accept ──> open ── end of either side, export removed, server stopped ──> hanging up
 *                                                                                          │ shutdown(); the receive, send
 *                                                                                          │ and watch under way come back
 *     free <── session's `closed`, when its last disk request is done ── closing <─────────┘ nbd_session_close(), close()
 *
 * All that a connection does is decided in one place, pump(), which looks at what the session wants and what is under way.
 * It runs from the event queue: after each receive, send and watch, and when the session calls wake. */
#include "shell/nbd_server.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "shell/client_reports.h"
#include "shell/own_server.h"
#include "shell/undumped.h"

#define LISTENERS_MAX   16u
#define VECTORS_MAX     64u
#define RESERVE_SHARE   64u /* 1/64 of the places is for root and our own user */
#define FILES_KEPT      16u
#define ACCEPT_RETRY_NS (100 * NS_PER_MS) /* when descriptors are short */
#define FULL_REPORT_NS  NS_PER_S          /* a crowd at the door is one line a second */
#define LEAVE_TICK_NS   (5 * NS_PER_MS)   /* while a connection waits for the place of one that is leaving, */
#define LEAVE_NS        NS_PER_S          /* at most so long */

/* How long nothing may come, or go, while a connection holds buffers; see nbd_server.h. */
#define STALL_TICK_NS    (50 * NS_PER_MS)
#define STALL_NS         NS_PER_S
#define STALL_CROWDED_NS STALL_TICK_NS /* when others wait for buffers */
#define GIVE_BACK_NS     (4 * STALL_TICK_NS)
#define DEAF_NS          (10 * NS_PER_S)
#define SILENT_NS        (30 * NS_PER_S) /* inside a payload */
#define HANDSHAKE_NS     (10 * NS_PER_S)

struct connection {
  struct list link; /* in the server's free or used list */
  struct nbd_server *server;
  struct nbd_exports table;    /* what its session sees */
  struct nbd_session *session; /* NULL while free */
  void *memory;
  int fd; /* -1 once closed */
  bool used_before, hanging_up;
  bool gives_back; /* its send is taken back: others wait for what it holds */
  bool gave_back;  /* and nothing of its answers was taken since */
  struct reactor_op receive, send;
  struct reactor_op watch; /* hears of the end while nothing is received; stays armed when that goes on */
  uint64_t opened_ns;
  uint64_t receive_ns;     /* when that which is under way began */
  uint64_t send_ns;        /* ... or when something was taken for the last time */
  uint64_t offer_ns;       /* when the send that is under way began */
  uint64_t silent_ns;      /* how long nothing of a payload has come, as counted by ticks */
  uint64_t crowd_since_ns; /* since when somebody has waited for a buffer that it could give back; 0: nobody */
  struct event pump;
  struct msghdr message;
  struct iovec vectors[VECTORS_MAX];
  char peer_name[64];
  const struct listener *listener;
  struct peer peer;
};

struct listener {
  struct nbd_server *server;
  struct address address;
  struct reactor_op accept;
  struct timer retry;
  int fd;
  int caller; /* accepted, waits for the place of somebody who is leaving; -1: nobody */
  uint64_t caller_ns;
};

struct nbd_server {
  struct reactor *reactor;
  struct env *env;
  struct buffer_pool *pool;
  struct arena arena;
  struct list free, used; /* struct connection; used: in the order of coming */
  struct list exports;    /* struct nbd_server_export, in the order of adding */
  struct list removing;   /* those with sessions that are on their way out */
  struct event sweep;     /* a session is gone: who waited for that? */
  struct listener listeners[LISTENERS_MAX];
  uint32_t listener_count, session_count, session_max, reserve;
  uint64_t deaf_ns, silent_ns, handshake_ns;
  struct timer handshake; /* armed while anybody is at it, for the oldest */
  uint64_t leave_look_ns; /* until then nobody is asked again whether he leaves */
  struct timer stall;     /* armed while something is under way that holds buffers, or a payload is */
  uint64_t stall_tick_ns; /* when it fired last, or was armed */
  uint64_t full_report_ns;
  struct client_reports reports;
  bool stopping;
  void *stop_owner;
  void (*stopped)(void *owner);
};

/* ---- the table of exports ---- */

static bool export_is_named(const struct nbd_server_export *export, const char *name) {
  return strcmp(export->nbd.name, name) == 0 || (export->alias && strcmp(export->alias, name) == 0);
}

static struct nbd_server_export *export_find(const struct nbd_server *server, const char *name) {
  LIST_EACH(&server->exports, link) {
    struct nbd_server_export *export = LIST_ENTRY(link, struct nbd_server_export, link);
    if (export_is_named(export, name)) return export;
  }
  return NULL;
}

/* At the address where this client came in. */
static bool is_shown(const struct connection *connection, const struct nbd_server_export *export) {
  const struct door *door = &connection->listener->address.door;
  return door_exports(door, export->nbd.name) || (export->alias && door_exports(door, export->alias));
}

static struct nbd_export *table_at(struct nbd_exports *table, uint32_t index) {
  struct connection *connection = CONTAINER_OF(table, struct connection, table);
  LIST_EACH(&connection->server->exports, link) {
    struct nbd_server_export *export = LIST_ENTRY(link, struct nbd_server_export, link);
    if (is_shown(connection, export) && index-- == 0) return &export->nbd;
  }
  return NULL;
}

static struct nbd_export *table_find(struct nbd_exports *table, const char *name) {
  struct connection *connection = CONTAINER_OF(table, struct connection, table);
  struct nbd_server_export *export = export_find(connection->server, name);
  if (export && is_shown(connection, export)) return &export->nbd;
  return name[0] == '\0' && !table_at(table, 1) ? table_at(table, 0) : NULL; /* the only one */
}

tarn_err nbd_server_add(struct nbd_server *server, struct nbd_server_export *export) {
  require(export->nbd.name != NULL);
  require(export->nbd.disk != NULL);
  if (export_find(server, export->nbd.name)) return TARN_EXISTS;
  if (export->alias && export_find(server, export->alias)) return TARN_EXISTS;
  export->nbd.session_count = 0;
  export->removed = NULL;
  list_init(&export->link);
  list_push(&server->exports, &export->link);
  return TARN_OK;
}

/* ---- connections ---- */

static void blame(struct connection *connection, const char *why) {
  client_report(&connection->server->reports, connection->peer_name, why);
}

static void session_blamed(struct nbd_session *session, const char *why) { blame(nbd_session_owner(session), why); }

static void hang_up(struct connection *connection) {
  if (connection->hanging_up) return;
  connection->hanging_up = true;
  (void)shutdown(connection->fd, SHUT_RDWR); /* ends the receive and the send that may be under way */
  if (!event_is_posted(&connection->pump)) event_post(&connection->server->env->queue, &connection->pump);
}

/* ---- clients that do not come to the point ---- */

/* Whose place is looked at: who came in at this door, or from there; NULL: anybody. */
struct crowd {
  const struct listener *listener;
  const struct peer *peer;
};

static bool is_of(const struct crowd *crowd, const struct connection *connection) {
  if (crowd->listener && crowd->listener != connection->listener) return false;
  return !crowd->peer || peer_is_same(crowd->peer, &connection->peer);
}

/* The oldest of them who is still at the handshake; NULL: nobody. */
static struct connection *oldest_newcomer(const struct nbd_server *server, const struct crowd *crowd) {
  LIST_EACH(&server->used, link) {
    struct connection *connection = LIST_ENTRY(link, struct connection, link);
    if (!connection->hanging_up && !nbd_session_export(connection->session) && is_of(crowd, connection))
      return connection;
  }
  return NULL;
}

/* Who is on the way out does not count, unless a disk keeps its place. */
static uint32_t crowd_count(const struct nbd_server *server, const struct crowd *crowd) {
  uint32_t count = 0;
  LIST_EACH(&server->used, link) {
    const struct connection *connection = LIST_ENTRY(link, struct connection, link);
    count += (!connection->hanging_up || connection->fd < 0) && is_of(crowd, connection);
  }
  return count;
}

/* Those who come later have as long from then on, so they are looked at when the oldest one's time is over. */
static void handshake_over(struct timer *timer) {
  struct nbd_server *server = CONTAINER_OF(timer, struct nbd_server, handshake);
  struct connection *oldest;
  /* We were stopped, or very busy: what they have sent meanwhile is still to be received. */
  uint64_t late_ns = server->env->now_ns - timer->deadline_ns;
  LIST_EACH(&server->used, link) {
    if (late_ns > NS_PER_S) LIST_ENTRY(link, struct connection, link)->opened_ns += late_ns + NS_PER_S;
  }
  while ((oldest = oldest_newcomer(server, &(struct crowd){NULL, NULL})) != NULL) {
    uint64_t until_ns = oldest->opened_ns + server->handshake_ns;
    if (server->env->now_ns < until_ns) {
      timer_set(server->env, &server->handshake, until_ns);
      return;
    }
    blame(oldest, "has not finished its handshake in time");
    hang_up(oldest);
  }
}

/* ---- clients that stall ---- */

static void stall_watch(struct nbd_server *server) {
  if (timer_is_armed(&server->stall)) return;
  server->stall_tick_ns = server->env->now_ns;
  timer_set(server->env, &server->stall, server->env->now_ns + STALL_TICK_NS);
}

/* A payload that does not go on: true while there is one. A tick that comes late counts as one, because we were
 * stopped, or busy, and what has come meanwhile is still to be received. */
static bool silence_check(struct connection *connection, uint64_t passed_ns) {
  struct nbd_server *server = connection->server;
  if (!connection->receive.busy || !nbd_session_in_payload(connection->session)) return false;
  connection->silent_ns += min_u64(passed_ns, 2 * STALL_TICK_NS);
  if (connection->silent_ns < server->silent_ns) return true;
  char why[80];
  snprintf(why, sizeof why, "sends nothing more of a write that it began %llu s ago",
           (unsigned long long)(connection->silent_ns / NS_PER_S));
  blame(connection, why);
  hang_up(connection);
  return false;
}

/* Others wait for what it holds: since when? 0: nobody does. */
static uint64_t crowd_look(struct connection *connection) {
  const struct nbd_server *server = connection->server;
  const struct nbd_export *export = nbd_session_export(connection->session);
  bool crowded = buffer_pool_is_crowded(server->pool, export ? export->account : NULL);
  if (!crowded) connection->crowd_since_ns = 0;
  else if (connection->crowd_since_ns == 0) connection->crowd_since_ns = server->env->now_ns;
  return connection->crowd_since_ns;
}

/* True if it holds buffers for the sake of its client, or waits for it, and has to be looked at again. */
static bool stall_check(struct connection *connection, uint64_t passed_ns) {
  struct nbd_server *server = connection->server;
  uint64_t now = server->env->now_ns;
  if (connection->fd < 0 || connection->hanging_up) return false;
  bool fills = connection->receive.busy && nbd_session_fills(connection->session);
  bool deaf = connection->send.busy && nbd_session_held_bytes(connection->session) > 0;
  uint64_t crowd_ns = fills || deaf ? crowd_look(connection) : 0;
  if (fills && now - connection->receive_ns >= (crowd_ns ? STALL_CROWDED_NS : STALL_NS))
    reactor_cancel(server->reactor, &connection->receive); /* receive_done() tells the session */
  if (deaf && crowd_ns && now - max_u64(connection->offer_ns, crowd_ns) >= GIVE_BACK_NS && !connection->gives_back) {
    connection->gives_back = true;
    reactor_cancel(server->reactor, &connection->send); /* send_done() tells the session */
  }
  if (deaf && crowd_ns && now - max_u64(connection->send_ns, crowd_ns) >= server->deaf_ns) {
    blame(connection, "takes nothing of its answers while others wait for memory");
    hang_up(connection);
    return false;
  }
  return silence_check(connection, passed_ns) || fills || deaf;
}

static void stall_tick(struct timer *timer) {
  struct nbd_server *server = CONTAINER_OF(timer, struct nbd_server, stall);
  bool again = false;
  uint64_t passed_ns = server->env->now_ns - server->stall_tick_ns;
  LIST_EACH(&server->used, link) again |= stall_check(LIST_ENTRY(link, struct connection, link), passed_ns);
  if (again) stall_watch(server);
}

static void receive_start(struct connection *connection) {
  void *where;
  size_t bytes = nbd_session_recv_buffer(connection->session, &where);
  if (bytes == 0) return;
  reactor_recv(connection->server->reactor, &connection->receive, connection->fd, where, bytes);
  connection->receive_ns = connection->server->env->now_ns;
  if (nbd_session_in_payload(connection->session)) stall_watch(connection->server);
}

static void send_start(struct connection *connection) {
  struct nbd_vector vectors[VECTORS_MAX];
  size_t count = nbd_session_send_vectors(connection->session, vectors, VECTORS_MAX);
  if (count == 0) return;
  require(count <= VECTORS_MAX);
  for (size_t i = 0; i < count; i++)
    connection->vectors[i] =
        (struct iovec){.iov_base = (void *)(uintptr_t)vectors[i].data, .iov_len = vectors[i].bytes};
  connection->message = (struct msghdr){.msg_iov = connection->vectors, .msg_iovlen = count};
  reactor_sendmsg(connection->server->reactor, &connection->send, connection->fd, &connection->message);
  connection->offer_ns = connection->server->env->now_ns;
  if (!connection->gave_back) connection->send_ns = connection->offer_ns;
  if (nbd_session_held_bytes(connection->session) > 0) stall_watch(connection->server);
}

/* Its session holds its client back. Only a receive would tell that the client is gone, so somebody else must: what that one has sent
 * is not done any more then. */
static bool is_held_back(const struct connection *connection) {
  return !connection->receive.busy && !nbd_session_drains(connection->session);
}

static void end_watch(struct connection *connection) {
  if (is_held_back(connection) && !connection->watch.busy)
    reactor_poll(connection->server->reactor, &connection->watch, connection->fd, POLLRDHUP);
}

static void pump(struct connection *connection) {
  require(connection->session != NULL);
  if (connection->fd < 0) return; /* closing: the session waits for its disk */
  if (!connection->hanging_up) {
    unsigned wants = nbd_session_wants(connection->session);
    if (wants & NBD_CLOSE && !connection->send.busy) {
      hang_up(connection);
    } else if (!(wants & NBD_CLOSE)) {
      if (wants & NBD_RECEIVE && !connection->receive.busy) receive_start(connection);
      if (wants & NBD_SEND && !connection->send.busy) send_start(connection);
      end_watch(connection);
    }
    return;
  }
  if (connection->receive.busy || connection->send.busy || connection->watch.busy) return;
  close(connection->fd);
  connection->fd = -1;
  nbd_session_close(connection->session); /* may call session_closed(): the connection may be free after this */
}

static void pump_event(struct event *event) { pump(CONTAINER_OF(event, struct connection, pump)); }

static void session_wake(struct nbd_session *session) {
  struct connection *connection = nbd_session_owner(session);
  if (!event_is_posted(&connection->pump)) event_post(&connection->server->env->queue, &connection->pump);
}

static void session_closed(struct nbd_session *session) {
  struct connection *connection = nbd_session_owner(session);
  struct nbd_server *server = connection->server;
  require(connection->fd < 0);
  require(server->session_count > 0);
  event_cancel(&connection->pump);
  connection->session = NULL;
  server->session_count--;
  list_remove(&connection->link);
  list_push_front(&server->free, &connection->link);
  if (!event_is_posted(&server->sweep)) event_post(&server->env->queue, &server->sweep);
}

static void receive_done(struct reactor_op *op, int result) {
  struct connection *connection = CONTAINER_OF(op, struct connection, receive);
  bool stalls = result == -ECANCELED; /* stall_check() */
  if (result > 0) connection->silent_ns = 0;
  if ((result > 0 || stalls) && !connection->hanging_up)
    nbd_session_received(connection->session, stalls ? 0 : (size_t)result);
  else if (result != -EINTR && result != -EAGAIN) hang_up(connection);
  pump(connection);
}

static void watch_done(struct reactor_op *op, int result) {
  struct connection *connection = CONTAINER_OF(op, struct connection, watch);
  if (result > 0 && is_held_back(connection)) hang_up(connection);
  pump(connection);
}

static void send_done(struct reactor_op *op, int result) {
  struct connection *connection = CONTAINER_OF(op, struct connection, send);
  bool gives_back = connection->gives_back;
  connection->gives_back = false;
  if (result > 0) connection->gave_back = false;
  if (result >= 0 && !connection->hanging_up) nbd_session_sent(connection->session, (size_t)result);
  else if (result != -EINTR && result != -EAGAIN && !(gives_back && result == -ECANCELED)) hang_up(connection);
  if (gives_back && result <= 0 && !connection->hanging_up) {
    connection->gave_back = true;
    nbd_session_give_back(connection->session);
  }
  pump(connection);
}

static void socket_tune(int fd) {
  /* Harmless on Unix sockets. A client whose machine vanished is noticed after about a minute. */
  static const struct {
    int level, name, value;
  } options[] = {
      {IPPROTO_TCP, TCP_NODELAY, 1},    {SOL_SOCKET, SO_KEEPALIVE, 1}, {IPPROTO_TCP, TCP_KEEPIDLE, 30},
      {IPPROTO_TCP, TCP_KEEPINTVL, 10}, {IPPROTO_TCP, TCP_KEEPCNT, 3},
  };
  for (size_t i = 0; i < COUNT_OF(options); i++)
    (void)setsockopt(fd, options[i].level, options[i].name, &options[i].value, sizeof(options[i].value));
}

static bool may_report_full(struct nbd_server *server) {
  if (server->env->now_ns < server->full_report_ns) return false;
  server->full_report_ns = server->env->now_ns + FULL_REPORT_NS;
  return true;
}

/* Is anybody on the way out? One whose other end is closed already may not have been heard of yet. All are asked, but once in a while
 * only, for the sake of a crowd at the door: until then somebody may be. */
static bool somebody_leaves(struct nbd_server *server) {
  bool asks = server->env->now_ns >= server->leave_look_ns;
  if (asks) server->leave_look_ns = server->env->now_ns + LEAVE_TICK_NS;
  LIST_EACH(&server->used, link) {
    const struct connection *connection = LIST_ENTRY(link, struct connection, link);
    struct pollfd ask = {.fd = connection->fd, .events = POLLRDHUP};
    if (connection->hanging_up) return true;
    if (asks && poll(&ask, 1, 0) == 1 && ask.revents & (POLLRDHUP | POLLHUP | POLLERR)) return true;
  }
  return !asks;
}

static void connection_refuse(struct nbd_server *server, int fd) {
  if (may_report_full(server))
    report(server->env, REPORT_WARNING, "nbd", "a connection was refused: all %u sessions are in use",
           server->session_count);
  close(fd);
}

/* The last descriptors are not for clients: disks are opened again with them, and the administrator gets in. (The kernel gives
 * the lowest number that is free.) */
static bool is_of_the_last(int fd) {
  struct rlimit limit;
  return getrlimit(RLIMIT_NOFILE, &limit) == 0 && (rlim_t)fd + FILES_KEPT >= limit.rlim_cur;
}

static void connection_open(const struct listener *listener, int fd, const struct peer *peer) {
  struct nbd_server *server = listener->server;
  if (is_of_the_last(fd)) {
    if (may_report_full(server))
      report(server->env, REPORT_WARNING, "nbd", "a connection was refused: nearly all files that may be open are");
    close(fd);
    return;
  }
  struct list *link = list_pop(&server->free);
  require(link != NULL);
  struct connection *connection = LIST_ENTRY(link, struct connection, link);
  connection->fd = fd;
  connection->listener = listener;
  connection->peer = *peer;
  connection->hanging_up = connection->gives_back = connection->gave_back = false;
  connection->silent_ns = connection->crowd_since_ns = 0;
  connection->opened_ns = server->env->now_ns;
  if (!timer_is_armed(&server->handshake))
    timer_set(server->env, &server->handshake, connection->opened_ns + server->handshake_ns);
  if (connection->used_before) memset(connection->memory, 0, nbd_session_bytes());
  connection->used_before = true;
  list_push(&server->used, &connection->link);
  server->session_count++;
  socket_tune(fd);
  peer_text(fd, connection->peer_name, sizeof(connection->peer_name));
  struct nbd_session_options options = {
      .env = server->env,
      .pool = server->pool,
      .exports = &connection->table,
      .peer = connection->peer_name,
      .owner = connection,
      .wake = session_wake,
      .closed = session_closed,
      .blamed = session_blamed,
  };
  connection->session = nbd_session_open(connection->memory, &options);
  pump(connection);
}

uint32_t nbd_server_clients(const struct nbd_server *server, const struct nbd_server_export *export, char *text,
                            size_t bytes) {
  uint32_t count = 0;
  size_t used = 0;
  require(bytes >= 4);
  text[0] = '\0';
  LIST_EACH(&server->used, link) {
    const struct connection *connection = LIST_ENTRY(link, struct connection, link);
    if (nbd_session_export(connection->session) != &export->nbd) continue;
    if (used < bytes)
      used += (size_t)snprintf(text + used, bytes - used, "%s%s%s", count ? ", " : "", connection->peer_name,
                               connection->fd < 0 ? " (gone, its last request hangs)" : "");
    count++;
  }
  if (used >= bytes) memcpy(text + bytes - 4, "...", 4);
  return count;
}

uint32_t nbd_server_session_count(const struct nbd_server *server) { return server->session_count; }

/* ---- listening ---- */

static void turn_away(struct listener *listener, int fd, const char *why) {
  char name[64];
  peer_text(fd, name, sizeof(name));
  client_report(&listener->server->reports, name, why);
  close(fd);
}

/* Has this crowd as many places as it may? One of its own who has not come to the point makes room then, at once: nobody behind waits for
 * that. */
static bool is_too_many(struct nbd_server *server, const struct crowd *crowd, uint32_t max) {
  if (crowd_count(server, crowd) < max) return false;
  struct connection *newcomer = oldest_newcomer(server, crowd);
  if (!newcomer) return true;
  blame(newcomer, "has not finished its handshake, and others of its kind want to come in");
  hang_up(newcomer);
  return false;
}

/* By what its address says; else the reason is said. */
static bool is_welcome(struct listener *listener, int fd, const struct peer *peer) {
  struct nbd_server *server = listener->server;
  const struct door *door = &listener->address.door;
  const char *why = NULL;
  char text[120];
  uint32_t per_peer = door->per_peer ? door->per_peer : (uint32_t)max_u64(server->session_max / 2, 1);
  if (!door_knows(door, peer)) {
    why = "is not in the list of those who may connect there";
  } else if (peer->is_ours) {
    return true;
  } else if (is_too_many(server, &(struct crowd){.peer = peer}, per_peer)) {
    snprintf(text, sizeof text, "has %u connections already, and may have no more", per_peer);
    why = text;
  } else if (door->connections && is_too_many(server, &(struct crowd){.listener = listener}, door->connections)) {
    snprintf(text, sizeof text, "comes to an address that has all its %u connections already", door->connections);
    why = text;
  }
  if (why) turn_away(listener, fd, why);
  return !why;
}

/* False: it waits, and so does everybody behind it. */
static bool let_in(struct listener *listener, int fd) {
  struct nbd_server *server = listener->server;
  uint64_t now = server->env->now_ns;
  struct peer peer;
  peer_of(fd, &peer);
  if (listener->caller < 0 && !is_welcome(listener, fd, &peer)) return true;
  if (server->session_count + (peer.is_ours ? 0 : server->reserve) < server->session_max) {
    connection_open(listener, fd, &peer);
    return true;
  }
  if (listener->caller < 0) listener->caller_ns = now;
  bool waits = now - listener->caller_ns < LEAVE_NS && somebody_leaves(server);
  struct connection *newcomer = waits ? NULL : oldest_newcomer(server, &(struct crowd){NULL, NULL});
  if (newcomer) {
    blame(newcomer, "has not finished its handshake, and others want to come in");
    hang_up(newcomer);
    listener->caller_ns = now;
  } else if (!waits) {
    listener->caller = -1;
    connection_refuse(server, fd);
    return true;
  }
  listener->caller = fd;
  timer_set(server->env, &listener->retry, now + LEAVE_TICK_NS);
  return false;
}

static void accept_done(struct reactor_op *op, int result) {
  struct listener *listener = CONTAINER_OF(op, struct listener, accept);
  struct nbd_server *server = listener->server;
  if (server->stopping) {
    if (result >= 0) close(result);
    if (listener->caller >= 0) close(listener->caller);
    listener->caller = -1;
    own_server_ends(listener->fd);
    close(listener->fd);
    listener->fd = -1;
    if (!event_is_posted(&server->sweep)) event_post(&server->env->queue, &server->sweep);
    return;
  }
  if (result >= 0 && !let_in(listener, result)) return;
  if (result >= 0 || result == -ECONNABORTED || result == -EINTR) {
    reactor_accept(server->reactor, op, listener->fd);
    return;
  }
  if (may_report_full(server))
    report(server->env, REPORT_WARNING, "nbd", "a connection has to wait: %s", strerror(-result));
  timer_set(server->env, &listener->retry, server->env->now_ns + ACCEPT_RETRY_NS);
}

static void accept_again(struct timer *timer) {
  struct listener *listener = CONTAINER_OF(timer, struct listener, retry);
  int caller = listener->caller;
  if (caller >= 0) {
    if (!let_in(listener, caller)) return;
    listener->caller = -1;
  }
  reactor_accept(listener->server->reactor, &listener->accept, listener->fd);
}

tarn_err nbd_server_listen(struct nbd_server *server, struct address *address, struct why *why) {
  if (server->listener_count == LISTENERS_MAX)
    return because(why, TARN_FULL, "at most %u addresses to listen on", LISTENERS_MAX);
  struct listener *listener = &server->listeners[server->listener_count];
  int fd;
  tarn_err err = listen_open(address, &fd, why);
  if (err) return err;
  *listener = (struct listener){.server = server, .address = *address, .fd = fd, .caller = -1};
  reactor_op_init(&listener->accept, accept_done);
  timer_init(&listener->retry, accept_again);
  server->listener_count++;
  own_server_listens(fd);
  reactor_accept(server->reactor, &listener->accept, fd);
  return TARN_OK;
}

/* ---- removal, life ---- */

static void export_gone(struct event *event) {
  struct nbd_server_export *export = CONTAINER_OF(event, struct nbd_server_export, gone);
  require(export->nbd.session_count == 0);
  export->removed(export);
}

static bool is_stopped(const struct nbd_server *server) {
  if (server->session_count > 0) return false;
  for (uint32_t i = 0; i < server->listener_count; i++)
    if (server->listeners[i].fd >= 0) return false;
  return true;
}

static void sweep(struct event *event) {
  struct nbd_server *server = CONTAINER_OF(event, struct nbd_server, sweep);
  LIST_EACH(&server->removing, link) {
    struct nbd_server_export *export = LIST_ENTRY(link, struct nbd_server_export, link);
    if (export->nbd.session_count > 0) continue;
    list_remove(&export->link);
    event_post(&server->env->queue, &export->gone);
  }
  if (server->stopped && is_stopped(server)) {
    void (*stopped)(void *owner) = server->stopped;
    server->stopped = NULL;
    stopped(server->stop_owner); /* may destroy the server */
  }
}

void nbd_server_remove(struct nbd_server *server, struct nbd_server_export *export,
                       void (*removed)(struct nbd_server_export *export)) {
  require(list_is_linked(&export->link));
  require(export->removed == NULL);
  export->removed = removed;
  event_init(&export->gone, export_gone);
  list_remove(&export->link);
  list_push(&server->removing, &export->link);
  LIST_EACH(&server->used, link) {
    struct connection *connection = LIST_ENTRY(link, struct connection, link);
    if (connection->fd >= 0 && nbd_session_export(connection->session) == &export->nbd) hang_up(connection);
  }
  if (!event_is_posted(&server->sweep)) event_post(&server->env->queue, &server->sweep);
}

struct nbd_server *nbd_server_create(const struct nbd_server_options *options, struct why *why) {
  uint32_t count = options->session_max ? options->session_max : NBD_SESSIONS_DEFAULT;
  require(options->reactor != NULL);
  require(options->pool != NULL);
  struct arena arena;
  undumped_arena_init(&arena);
  struct nbd_server *server = ARENA_NEW(&arena, struct nbd_server, 1);
  struct connection *connections = ARENA_NEW(&arena, struct connection, count);
  /* In one piece, which is mapped and not touched: each by itself would come from the heap, and be zeroed. */
  uint8_t *memory = arena_take(&arena, count * nbd_session_bytes(), BUFFER_ALIGN);
  if (!server || !connections || !memory) {
    arena_destroy(&arena);
    (void)because(why, TARN_FULL, "no memory for %u NBD sessions", count);
    return NULL;
  }
  server->reactor = options->reactor;
  server->env = reactor_env(options->reactor);
  server->pool = options->pool;
  server->session_max = count;
  server->reserve = options->reserve ? options->reserve : count / RESERVE_SHARE;
  server->deaf_ns = options->deaf_ns ? options->deaf_ns : DEAF_NS;
  server->silent_ns = options->silent_ns ? options->silent_ns : SILENT_NS;
  server->handshake_ns = options->handshake_ns ? options->handshake_ns : HANDSHAKE_NS;
  list_init(&server->free);
  list_init(&server->used);
  list_init(&server->exports);
  list_init(&server->removing);
  event_init(&server->sweep, sweep);
  timer_init(&server->stall, stall_tick);
  timer_init(&server->handshake, handshake_over);
  client_reports_init(&server->reports, server->env);
  for (uint32_t i = 0; i < count; i++) {
    struct connection *connection = &connections[i];
    connection->server = server;
    connection->table = (struct nbd_exports){.find = table_find, .at = table_at};
    connection->memory = memory + i * nbd_session_bytes();
    connection->fd = -1;
    list_init(&connection->link);
    reactor_op_init(&connection->receive, receive_done);
    reactor_op_init(&connection->send, send_done);
    reactor_op_init(&connection->watch, watch_done);
    event_init(&connection->pump, pump_event);
    list_push(&server->free, &connection->link);
  }
  arena_freeze(&arena);
  server->arena = arena; /* a plain struct: it may move, what it gave out stays */
  return server;
}

uint64_t nbd_server_reserved_bytes(const struct nbd_server *server) { return server->arena.bytes; }

void nbd_server_stop(struct nbd_server *server, void *owner, void (*stopped)(void *owner)) {
  require(!server->stopping);
  server->stopping = true;
  server->stop_owner = owner;
  server->stopped = stopped;
  for (uint32_t i = 0; i < server->listener_count; i++) {
    struct listener *listener = &server->listeners[i];
    if (timer_is_armed(&listener->retry)) {
      timer_cancel(&listener->retry);
      if (listener->caller >= 0) close(listener->caller);
      listener->caller = -1;
      own_server_ends(listener->fd);
      close(listener->fd);
      listener->fd = -1;
    } else {
      reactor_cancel(server->reactor, &listener->accept);
    }
  }
  LIST_EACH(&server->used, link) {
    struct connection *connection = LIST_ENTRY(link, struct connection, link);
    if (connection->fd >= 0) hang_up(connection);
  }
  if (!event_is_posted(&server->sweep)) event_post(&server->env->queue, &server->sweep);
}

void nbd_server_destroy(struct nbd_server *server) {
  require(is_stopped(server));
  require(list_is_empty(&server->removing));
  event_cancel(&server->sweep);
  timer_cancel(&server->stall);
  timer_cancel(&server->handshake);
  client_reports_end(&server->reports);
  struct arena arena = server->arena;
  arena_destroy(&arena);
}
