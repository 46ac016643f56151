/* session.h - one NBD connection as a pure state machine: bytes in, disk requests and bytes out.
 *
 * Source of the protocol: NetworkBlockDevice/nbd doc/proto.md. The session does no I/O of its own. Its driver (a socket in
 * the shell, a simulated client in sim/) does this, until nbd_session_wants() says NBD_CLOSE:
 *
 *     receive:  n = nbd_session_recv_buffer(s, &where); read up to n bytes of the connection to `where` (n == 0: do not
 *               read now, the session holds the client back); nbd_session_received(s, bytes_read).
 *     send:     n = nbd_session_send_vectors(s, vec, max); write them; nbd_session_sent(s, bytes_written).
 *               `where` and the vectors stay the driver's until it says received or sent, so a kernel may hold them.
 *     wake:     the session calls `wake` (given at open, from the event queue or from within the calls above) when it may
 *               have become ready to receive or to send.
 *     the end:  nbd_session_close(s) as soon as the connection has ended, also while nothing is received, unless
 *               nbd_session_drains(s): a write that the session has not taken up yet must not be done after the writes
 *               of whoever takes this client's place.
 *
 * Payload goes from the connection straight into pool buffers and from those to the disk: no copy. A request longer than
 * its disk takes is handled in pieces, cut at multiples of 4096 of the device, each submitted once its bytes are here;
 * a WRITE of up to 64 KiB touches the disk only once all of it is here, so one whose client dies in the middle has not
 * happened. Memory per session is fixed; a session that has NBD_REQUESTS_MAX requests open, or waits for a buffer, does
 * not receive.
 *
 * Errors of a client are answered as the protocol's text wants them, or end the session where it says so (bad magic).
 * nbd_session_close() may be called at any moment: nothing more is received or sent; the session is freed, and `closed`
 * called once, when the last disk request that it had submitted is done. */
#ifndef TARN_NBD_SESSION_H
#define TARN_NBD_SESSION_H

#include "core/buffer.h"
#include "core/disk.h"

#define NBD_REQUESTS_MAX 128u        /* open requests of one session; the client is held back beyond that */
#define NBD_PAYLOAD_MAX  (64u << 20) /* of one READ or WRITE */
#define NBD_NAME_MAX     4096u       /* the protocol's limit for strings */

/* What a session serves. Owned by the driver; an export stays until its session_count is 0.
 *
 * Metadata contexts (BLOCK_STATUS): `base:allocation` is there if the disk knows EXTENTS, whose flags are those of the context;
 * `tarn:state` if `state` is there, too. */
struct nbd_export {
  const char *name;        /* as clients name it */
  const char *description; /* may be NULL */
  struct disk *disk;
  struct buffer_account *account; /* to which its sessions' buffers are charged; NULL: none, and no quota */
  /* The runs of tarn:state from `offset` on: at most `max`, none reaches beyond `length`, a prefix will do. Returns how many;
   * 0: that is not known now. May be NULL. */
  uint32_t (*state)(const struct nbd_export *export, uint64_t offset, uint64_t length, struct disk_extent *runs,
                    uint32_t max);
  /* The session ends, and has no use for the answer of this I/O, which is with `disk`: it may be answered at once if nothing of it was
   * begun. May be NULL. */
  void (*withdraw)(struct disk *disk, struct disk_io *io);
  uint32_t session_count; /* sessions in transmission phase on it; kept by the session */
};

/* The export table, as the driver shows it. */
struct nbd_exports {
  /* NULL if there is none of that name. The empty name asks for the default export. */
  struct nbd_export *(*find)(struct nbd_exports *exports, const char *name);
  /* The index-th export for LIST; NULL past the end. Aliases may be left out. */
  struct nbd_export *(*at)(struct nbd_exports *exports, uint32_t index);
};

struct nbd_vector {
  const void *data;
  size_t bytes;
};

struct nbd_session;
struct nbd_session_options {
  struct env *env;
  struct buffer_pool *pool;
  struct nbd_exports *exports;
  const char *peer; /* for reports */
  void *owner;      /* the driver's */
  void (*wake)(struct nbd_session *session);
  void (*closed)(struct nbd_session *session); /* from the event queue; the session is gone after it returns */
  /* It does not go on with this client, who `why`: the driver reports it. May be NULL: then the session does. */
  void (*blamed)(struct nbd_session *session, const char *why);
};

/* Bytes of memory that a session needs, for the driver's arena of slots. */
size_t nbd_session_bytes(void);
/* `memory` is nbd_session_bytes() of zeroed memory aligned to 16; it is the driver's again after `closed`. */
struct nbd_session *nbd_session_open(void *memory, const struct nbd_session_options *options);
void *nbd_session_owner(const struct nbd_session *session);

enum nbd_wants { NBD_RECEIVE = 1, NBD_SEND = 2, NBD_CLOSE = 4 }; /* NBD_CLOSE: nothing is left to send, hang up */
unsigned nbd_session_wants(struct nbd_session *session);
size_t nbd_session_recv_buffer(struct nbd_session *session, void **where);
/* 0 bytes: the driver took its receive back. The session gives up the buffer that waits for more of a payload then, so
 * that a client that stalls holds none. */
void nbd_session_received(struct nbd_session *session, size_t bytes);
/* At most `max` vectors; they stay valid until nbd_session_sent() or nbd_session_close(). 0: nothing to send now. */
size_t nbd_session_send_vectors(struct nbd_session *session, struct nbd_vector *vectors, size_t max);
void nbd_session_sent(struct nbd_session *session, size_t bytes);
/* Its client does not take its answers, and others wait for memory: gives back the buffers that it holds for those. They are
 * read again when the client goes on. Requires that no send is under way: what was written of it was said to be sent. */
void nbd_session_give_back(struct nbd_session *session);
/* The connection is gone, or the driver wants it gone. While a send is under way in the kernel the driver keeps the
 * session alive by calling this only after that send has completed. */
void nbd_session_close(struct nbd_session *session);
/* Bytes of the pool that it holds: answers that the client has not taken, data on its way to and from the disk. */
uint64_t nbd_session_held_bytes(const struct nbd_session *session);
/* Among them is a buffer that waits for more of the client's bytes: nbd_session_received(session, 0) gives it back. */
bool nbd_session_fills(const struct nbd_session *session);
/* It waits for the rest of a payload, with a buffer or without one. */
bool nbd_session_in_payload(const struct nbd_session *session);
/* The client has said its last word (NBD_CMD_DISC). All that it asked for is taken up, and is done though it may be gone. */
bool nbd_session_drains(const struct nbd_session *session);
/* The export that it is attached to; NULL while it negotiates. */
struct nbd_export *nbd_session_export(const struct nbd_session *session);
uint32_t nbd_session_requests_open(const struct nbd_session *session);

#endif
