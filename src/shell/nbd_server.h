/* nbd_server.h - NBD sessions on sockets: drives nbd/session.h over a reactor, and keeps the table of exports.
 *
 * Memory for all sessions is taken when the server is created. Who has not finished the handshake within ten seconds is hung up on. When
 * all session_max places are taken, the oldest of those who are still at it yields to whoever comes. Else a connection is closed at
 * once, with a report; unless somebody is just leaving: then it waits, up to a second, for that place. Per connection one receive and one
 * send are under way at most.
 *
 * Who is gone is hung up on at once, also while its session takes up nothing more because the mirror waits. What it had sent and the
 * session has not taken up is dropped: it would be done when the mirror goes on, after the writes of whoever has taken its place (a guest
 * that is killed, and started again). Only what an NBD_CMD_DISC that was taken up stands behind is finished.
 *
 * Who may connect, how often, and to which exports, is said by each address (door.h). Without a word one peer may have half of all places: a host with 32
 * exports has 16 connections for each of them then, and a stranger alone does not keep others out. Whoever has as many as he may loses the
 * oldest that has not finished its handshake, or is refused. The last 1/64 of the places is for root and our own user.
 *
 * A client that stalls costs the others nothing. Inside a payload: its buffer is taken back, after a second, or at once when
 * others wait for buffers; what it holds after that is its session's own memory. It may go on, but a payload of which
 * nothing comes for 30 seconds ends its connection: such a client is dead or broken, and has a write open whose outcome
 * nobody learns. With answers that it does not take: when it has taken nothing for 0.2 s, and others wait for buffers,
 * theirs are taken back, and read again when it goes on (nbd/again.c). What it holds still, it is hung up on for if it has
 * taken nothing for ten seconds and others wait for buffers all that time. Between requests it may be silent for ever.
 *
 * Clients that break the protocol are reported, but not more than a few each minute (client_reports.h).
 *
 * An export is a struct inside its owner. It is in the table from nbd_server_add() on; nbd_server_remove() takes it out, so
 * that nobody new finds it, hangs up on the clients that it has, and says when the last one is gone: only then may its
 * disk be closed. While a client's request hangs in a disk its session is not gone. */
#ifndef TARN_SHELL_NBD_SERVER_H
#define TARN_SHELL_NBD_SERVER_H

#include "nbd/session.h"
#include "shell/listen.h"
#include "shell/reactor.h"

struct nbd_server;
struct nbd_server_export {
  struct nbd_export nbd; /* name, description, disk: set by the owner before nbd_server_add(), and must stay */
  const char *alias;     /* a second name that clients may use, not listed; or NULL */
  /* the server's */
  struct list link;
  struct event gone;
  void (*removed)(struct nbd_server_export *export);
};

#define NBD_SESSIONS_DEFAULT 1024u
struct nbd_server_options {
  struct reactor *reactor;
  struct buffer_pool *pool;
  uint32_t session_max;  /* 0: NBD_SESSIONS_DEFAULT */
  uint32_t reserve;      /* of them, for root and our own user; 0: session_max / 64 */
  uint64_t deaf_ns;      /* 0: 10 s, see above */
  uint64_t silent_ns;    /* 0: 30 s, see above */
  uint64_t handshake_ns; /* 0: 10 s, see above */
};

struct nbd_server *nbd_server_create(const struct nbd_server_options *options, struct why *why);
/* Bytes that it reserved, for the line that the daemon prints at start. */
uint64_t nbd_server_reserved_bytes(const struct nbd_server *server);
/* Listens there too (at most 16 addresses). `address` is updated as by listen_open(). */
CHECKED tarn_err nbd_server_listen(struct nbd_server *server, struct address *address, struct why *why);
/* Stops listening and hangs up on everybody; `stopped` runs from the event queue when the last session is gone. Socket
 * files stay: listen_remove() before. */
void nbd_server_stop(struct nbd_server *server, void *owner, void (*stopped)(void *owner));
/* Requires a stopped server (or one that never listened). */
void nbd_server_destroy(struct nbd_server *server);

/* TARN_EXISTS when its name or alias is taken. */
CHECKED tarn_err nbd_server_add(struct nbd_server *server, struct nbd_server_export *export);
/* `removed` runs once, from the event queue, when no session is attached any more; at once if none is. */
void nbd_server_remove(struct nbd_server *server, struct nbd_server_export *export,
                       void (*removed)(struct nbd_server_export *export));
/* Who is connected to it: writes "peer, peer, ..." (cut with "..." when too long), returns how many. */
uint32_t nbd_server_clients(const struct nbd_server *server, const struct nbd_server_export *export, char *text,
                            size_t bytes);
uint32_t nbd_server_session_count(const struct nbd_server *server);

#endif
