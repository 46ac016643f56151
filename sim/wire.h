/* wire.h - a simulated NBD client's connection: real protocol bytes, in pieces, over virtual time, to a real nbd_session.
 *
 * Bytes travel as the kernel would carry them: the session's receive buffer and send vectors are taken at one instant and
 * filled or read at a later one, a drawn number of bytes at a time. Requests go out in order; answers come in any. */
#ifndef TARN_SIM_WIRE_H
#define TARN_SIM_WIRE_H

#include "nbd/session.h"
#include "sim/world.h"

enum wire_type {
  WIRE_READ = 0,
  WIRE_WRITE = 1,
  WIRE_DISC = 2,
  WIRE_FLUSH = 3,
  WIRE_TRIM = 4,
  WIRE_WRITE_ZEROES = 6,
  WIRE_BLOCK_STATUS = 7
};
enum wire_flag { WIRE_FUA = 1, WIRE_NO_HOLE = 2, WIRE_REQ_ONE = 8 };
#define WIRE_HEAD_BYTES 28u

struct wire_request {
  struct list link; /* the wire's: to be sent, or waiting for its answer */
  enum wire_type type;
  uint32_t flags;
  uint64_t offset;
  uint32_t length;
  void (*fill)(struct wire_request *request, uint64_t from, uint64_t bytes, uint8_t *out); /* payload of a write */
  uint8_t *data;                                                                           /* where a read goes */
  struct disk_extent *runs; /* where block status goes: DISK_EXTENTS_MAX of them */
  /* the answer */
  uint32_t run_count;
  uint32_t error; /* as on the wire; 0: success */
  /* private */
  uint64_t cookie;
  uint64_t sent;
  uint64_t received;
  uint8_t head[WIRE_HEAD_BYTES];
};

struct wire_options {
  struct world *world;
  struct buffer_pool *pool;
  struct nbd_exports *exports;
  const char *export_name;
  const char *peer;
  struct prng prng;
  bool structured;    /* ask for structured replies */
  bool contexts;      /* and, if so, for base:allocation */
  bool old_handshake; /* EXPORT_NAME in place of GO */
  bool whole;         /* never cut a message */
  bool stalls;        /* now and then stop in the middle of a payload: for a while, for good, or to hang up */
  struct prng stall_prng;
  void *owner;
};

enum wire_state {
  WIRE_GREETING,
  WIRE_OPTION_REPLY,
  WIRE_OPTION_DATA,
  WIRE_EXPORT_REPLY, /* handshake */
  WIRE_REPLY_MAGIC,
  WIRE_REPLY_REST,
  WIRE_CHUNK_HEAD,
  WIRE_PAYLOAD, /* transmission */
};

struct wire {
  struct wire_options options;
  struct nbd_session *session; /* NULL once it is closed */
  void *memory;
  struct sim_event pump;
  enum wire_state state;
  bool ready; /* in transmission */
  bool structured;
  uint32_t context; /* the id of base:allocation; 0: there is none */
  bool closing, leaving;
  uint64_t size_bytes;
  uint32_t transmission_flags;
  uint64_t cookie_next;
  struct list to_send, waiting; /* struct wire_request */
  /* bytes out */
  uint8_t control[256]; /* the handshake's */
  size_t control_bytes, control_sent;
  void *receive_at;
  size_t receive_bytes;
  struct sim_event stall;
  enum { STALL_NONE, STALL_SILENT, STALL_TAKEN_BACK } stalled;
  /* bytes in */
  struct nbd_vector vectors[8];
  size_t vector_count, send_bytes;
  uint8_t head[2048];
  size_t head_bytes, head_want;
  uint32_t option, option_reply;
  uint16_t chunk_type, chunk_flags;
  struct wire_request *current;
  uint64_t payload_left, payload_at;
  /* the owner's */
  void (*on_ready)(struct wire *wire);
  void (*on_answer)(struct wire *wire, struct wire_request *request); /* the request is the owner's again */
  void (*on_closed)(struct wire *wire, bool by_server);               /* the session is gone; so are all requests */
};

void wire_open(struct wire *wire, const struct wire_options *options);
void wire_send(struct wire *wire, struct wire_request *request);
/* Says DISC once nothing is open any more, then waits for on_closed. */
void wire_leave(struct wire *wire);
/* Hangs up now. on_closed follows when the session has ended what it had begun. */
void wire_drop(struct wire *wire);
/* Has the server been sent all of this request? */
bool wire_has_sent(const struct wire_request *request);
/* The server's process died: the session and its memory are gone. */
void wire_forget(struct wire *wire);

#endif
