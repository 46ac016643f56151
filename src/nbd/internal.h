/* internal.h - what the files of the NBD session share. Nobody else includes it.
 *
 *     session.c    the driver's side (session.h): open, close, bytes in, wake
 *     negotiate.c  the handshake and its options
 *     transmit.c   requests: parsed, judged, their payload received
 *     piece.c      requests cut into disk I/Os: buffers, submission, completion, what comes next
 *     reply.c      what is sent, in which order
 *     again.c      answers that their client does not take: given back, and read again
 *
 * A request is cut into pieces; a piece is one disk_io, one buffer and one place in the line of what is sent.
 *
 *     FREE -> WAITING (in line for a buffer) -> FILLING (WRITE only: payload arrives) -> IN_DISK -> FREE
 *                                          \-> IN_DISK -> READY (read too early for its turn) -> SENDING -> FREE
 *
 * A piece of a READ, TRIM or WRITE_ZEROES takes the request's next segment when it is done, and keeps its slot and
 * buffer for it: so a long request needs no new resource in its middle, while the answers of others may wait behind it.
 *
 * How memory is bounded. A session has fixed slots, its own receive buffer, and at most NBD_HELD_BYTES_MAX of the pool,
 * and no more than an eighth of it (one buffer it always may have). A WRITE takes a buffer only once NBD_COLLECT_BYTES
 * of its payload, or all of it, have arrived in the session's own memory; at most one buffer is partly filled. That one
 * too is given up when the driver says that nothing comes any more, by nbd_session_received(session, 0): what is here
 * of a short WRITE moves to the session's own memory, and a buffer is asked for again when all of it is here; of a long
 * one whole blocks go to the disk as a short piece, and the next buffer is asked for when NBD_COLLECT_BYTES more have
 * come. So 1000 clients that stall inside a payload hold no buffer once their driver has noticed, and before that at
 * most one each. A payload that does not go on for long ends its connection: that is the driver's affair
 * (nbd_session_in_payload).
 *
 * A client that asks for much and does not take it keeps its share of the pool only until its driver says that others
 * wait, by nbd_session_give_back(): then the data of its answers are dropped, and read again when it goes on (again.c). */
#ifndef TARN_NBD_INTERNAL_H
#define TARN_NBD_INTERNAL_H

#include "nbd/proto.h"
#include "nbd/session.h"

#define NBD_PIECES_MAX       NBD_REQUESTS_MAX    /* disk I/Os of one session */
#define NBD_WINDOW           4u                  /* of one READ, TRIM or WRITE_ZEROES */
#define NBD_HELD_BYTES_MAX   (8u << 20)          /* of the pool, by one session, and */
#define NBD_HELD_SHARE       8u                  /* at most 1/8 of it */
#define NBD_IN_BYTES         65536u              /* the session's own receive buffer: 15 writes of 4 KiB at once */
#define NBD_IN_LONG_BYTES    16384u              /* of it, while payloads are long: the rest of them is not copied */
#define NBD_COLLECT_BYTES    8192u               /* up to this a copy is cheaper than another system call */
#define NBD_WHOLE_BYTES      65536u              /* a WRITE up to this goes to the disk when all of it is here */
#define NBD_STATUS_MAX       1u                  /* BLOCK_STATUS that are with the disk, of one session; others wait */
#define NBD_STATUS_BYTES     4096u               /* of data that a buffer for BLOCK_STATUS is for, and */
#define NBD_STATUS_REPLY_AT  2048u               /* where in it the reply is made, behind what the disk says */
#define NBD_OPTION_BYTES_MAX 8192u               /* longer ones are skipped, and refused as too big */
#define NBD_OPTION_DROP_MAX  (1u << 20)          /* longer ones end the session */
#define NBD_HANDSHAKE_BYTES  (3u * NBD_NAME_MAX) /* of answer to one option; LIST goes on when they are sent */

enum nbd_phase {
  NBD_PHASE_HELLO,   /* the client's flags are next */
  NBD_PHASE_OPTION,  /* an option is next */
  NBD_PHASE_SKIP,    /* the data of an option that is too long */
  NBD_PHASE_LIST,    /* the answer to LIST is being made */
  NBD_PHASE_REQUEST, /* a request is next */
  NBD_PHASE_PAYLOAD, /* that of `writing` */
  NBD_PHASE_DRAIN,   /* nothing more is taken in; what is open is finished */
};

/* Metadata contexts: bits of a set; the id on the wire is the number of the bit, from 1. */
enum nbd_context { NBD_CONTEXT_ALLOCATION, NBD_CONTEXT_STATE, NBD_CONTEXT_COUNT };
_Static_assert(NBD_WHOLE_BYTES <= NBD_IN_BYTES, "a short WRITE that stalls fits into the session's own memory");
_Static_assert(NBD_STATUS_REPLY_AT >= DISK_EXTENTS_MAX * sizeof(struct disk_extent), "behind what the disk says");
_Static_assert(NBD_STATUS_REPLY_AT + NBD_CONTEXT_COUNT * (NBD_CHUNK_BYTES + NBD_CHUNK_STATUS_BYTES +
                                                          DISK_EXTENTS_MAX * NBD_STATUS_RUN_BYTES) <=
                   NBD_STATUS_BYTES + BUFFER_ALIGN,
               "the chunks of all contexts fit into what a buffer has");

/* Go on; it needs bytes; it needs a slot, a buffer or the line. */
enum nbd_step { NBD_STEP_AGAIN, NBD_STEP_INPUT, NBD_STEP_BLOCKED };

/* Something to send: its header, then data that stays where it is. */
enum nbd_out_kind { NBD_OUT_HANDSHAKE, NBD_OUT_REQUEST, NBD_OUT_PIECE };
struct nbd_out {
  struct list link;
  enum nbd_out_kind kind;
  uint32_t header_bytes, data_bytes;
  const uint8_t *data;  /* NULL: zeroes */
  uint32_t again_bytes; /* of data behind those, which are to be read again first */
  uint8_t header[32];
};
_Static_assert(sizeof(((struct nbd_out *)0)->header) >= NBD_CHUNK_BYTES + NBD_CHUNK_OFFSET_BYTES,
               "a chunk's header fits");
_Static_assert(sizeof(((struct nbd_out *)0)->header) >= NBD_CHUNK_BYTES + NBD_CHUNK_STATUS_BYTES + NBD_STATUS_RUN_BYTES,
               "and block status of one run");

struct nbd_request {
  struct list link; /* free, or in line to stream */
  uint64_t cookie, offset, length;
  uint64_t cursor, end; /* what no piece has taken yet */
  uint16_t command, flags;
  enum nbd_error error;  /* the first one wins */
  uint32_t io_flags;     /* enum disk_flag of its pieces */
  uint32_t holds;        /* who still needs this slot: the parser, its pieces, its status on its way out */
  uint32_t active;       /* pieces that the client or the disk has yet to finish */
  uint64_t losses;       /* of its disk, when it came */
  bool flush_after;      /* FUA on several pieces: one flush when all are done */
  bool answered;         /* its last reply is made, or streams */
  bool ordered;          /* a READ whose data follows one header, in order: it streams */
  uint64_t streamed;     /* ordered: up to here it is in the line */
  struct list ready;     /* ordered: pieces read too early */
  struct nbd_out status; /* the reply without data */
};

enum nbd_piece_state { PIECE_FREE, PIECE_WAITING, PIECE_FILLING, PIECE_IN_DISK, PIECE_READY, PIECE_SENDING };
struct nbd_piece {
  struct disk_io io;
  struct list link; /* free, waiting or ready */
  struct nbd_session *session;
  struct nbd_request *request;
  enum nbd_piece_state state;
  uint32_t held_bytes; /* of its buffer, as counted in the session */
  bool given_back;     /* its data were; they are read again for its place in the line */
  bool again;          /* now */
  struct nbd_out out;
};

struct nbd_session {
  struct nbd_session_options options;
  struct nbd_export *export; /* from transmission on */
  enum nbd_phase phase;
  bool no_zeroes, structured; /* as negotiated */
  uint32_t contexts;          /* set of enum nbd_context, chosen for this export; compared only: it may be gone */
  const struct nbd_export *contexts_of;
  bool needs_input; /* the last step stopped for bytes, not for resources */
  bool hung_up;     /* the protocol was broken, or cannot be kept: close at once */
  bool closing;     /* by the driver */
  struct event closed_event;

  /* bytes in */
  uint8_t *in;
  uint32_t in_start, in_end, in_max; /* in_max: so much is received into it at once */
  bool receives_in_place;            /* the last receive buffer handed out was the piece's, not ours */
  uint32_t option, option_index;
  uint64_t skip_bytes;

  /* the WRITE whose payload is being received */
  struct nbd_request *writing;
  struct nbd_piece *fill;
  uint32_t fill_bytes;
  uint64_t payload_left; /* not yet in a piece */
  bool flows;            /* the last buffer was filled: the next may be asked for before its bytes are here */
  bool stalled;          /* its client did, once */

  /* bytes out */
  struct list out, held;      /* the line; who waits while `stream` has it for itself */
  uint64_t out_sent;          /* bytes of the first one in the line */
  struct nbd_request *stream; /* the ordered READ whose data are in the line, until the last is */
  struct list streams;        /* ordered READs ready for their turn */
  uint32_t given_back;        /* pieces */
  struct nbd_out handshake;

  /* resources */
  struct list waiting; /* pieces in line for a buffer */
  struct buffer_wait buffer_wait;
  bool buffer_waits;             /* for the first of them */
  uint64_t held_bytes, held_max; /* of the pool */
  uint32_t in_disk;              /* pieces */
  uint32_t asking;               /* of them, EXTENTS, or on their way there */
  uint32_t requests_open;
  uint64_t losses; /* of its disk that its client was told of, by a flush that failed */
  struct list free_requests, free_pieces;
  uint32_t requests_used, pieces_used; /* slots that were ever taken: an idle session touches no page of the others */
  uint8_t *handshake_data;
  struct nbd_request *requests;
  struct nbd_piece *pieces;
};

static inline uint32_t nbd_in_bytes(const struct nbd_session *session) { return session->in_end - session->in_start; }

/* session.c */
void nbd_hang_up(struct nbd_session *session, const char *why);
/* Goes on with what has arrived, as far as bytes and resources reach. */
void nbd_go_on(struct nbd_session *session);
/* The same after an event, and wakes the driver. */
void nbd_advance(struct nbd_session *session);
void nbd_close_check(struct nbd_session *session);

/* negotiate.c */
void nbd_greet(struct nbd_session *session);
enum nbd_step nbd_negotiate_step(struct nbd_session *session);

/* transmit.c */
enum nbd_step nbd_request_step(struct nbd_session *session);
enum nbd_step nbd_payload_step(struct nbd_session *session);
void nbd_payload_stalled(struct nbd_session *session);
struct nbd_request *nbd_request_new(struct nbd_session *session);
void nbd_request_put(struct nbd_session *session, struct nbd_request *request);
void nbd_request_fail(struct nbd_request *request, enum nbd_error error);
/* Makes the status reply when everything is done and no reply was made yet. */
void nbd_request_settle(struct nbd_session *session, struct nbd_request *request);

/* piece.c */
bool nbd_piece_available(const struct nbd_session *session);
/* Of a request that touches bytes and has a cursor before its end. */
uint64_t nbd_first_piece_bytes(const struct nbd_session *session, const struct nbd_request *request);
/* FLUSH, and READ, TRIM, WRITE_ZEROES with cursor < end. Requires an available piece. */
void nbd_pieces_start(struct nbd_session *session, struct nbd_request *request);
/* The next piece of the payload of a WRITE, FILLING or WAITING. Requires an available piece. */
struct nbd_piece *nbd_piece_fill(struct nbd_session *session, struct nbd_request *request);
void nbd_piece_submit(struct nbd_session *session, struct nbd_piece *piece);
void nbd_piece_free(struct nbd_session *session, struct nbd_piece *piece);
void nbd_piece_sent(struct nbd_session *session, struct nbd_piece *piece);
void nbd_pieces_abandon(struct nbd_session *session);
void nbd_buffer_ready(struct buffer_wait *wait);
/* Its buffer goes back; who waits in line may have its turn. */
void nbd_piece_drop_buffer(struct nbd_session *session, struct nbd_piece *piece);
/* The piece, which has its place in the line of what is sent, is read again, before all others of its session. */
void nbd_piece_read_again(struct nbd_session *session, struct nbd_piece *piece);

/* reply.c */
void nbd_out_push(struct nbd_session *session, struct nbd_request *request, struct nbd_out *out);
void nbd_reply_status(struct nbd_session *session, struct nbd_request *request);
/* The EXTENTS of a BLOCK_STATUS is done, well or not. */
void nbd_reply_block_status(struct nbd_session *session, struct nbd_request *request, struct nbd_piece *piece);
/* A piece of a READ is done, well or not. */
void nbd_reply_data(struct nbd_session *session, struct nbd_request *request, struct nbd_piece *piece);

/* again.c */
/* Has all been sent that stands before data that have to be read again? Then they are. */
void nbd_again_begin(struct nbd_session *session);
/* It was, well or not. */
void nbd_again_done(struct nbd_session *session, struct nbd_piece *piece);
/* An answer is there; if it stands behind one that has to be read again it keeps no buffer. */
void nbd_again_spare(struct nbd_session *session, struct nbd_piece *piece);

#endif
