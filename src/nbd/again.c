/* again.c - answers that their client does not take.
 *
 * The driver says that others wait for memory. Then the data of all READs that stand in the line, or are ready for it, are
 * dropped; their entries stay where they are, with the headers that were made (`again_bytes`). When the client has taken all
 * that stands before such data, they are read again, for the first entry in the line only: so a client that is slow has one
 * buffer at a time, and its other answers wait on the disk.
 *
 * What is read again may be newer: the request is not answered yet, so either is right. But no block may be half old and half
 * new (rule 17): of a piece that was cut off, the rest of its block is kept, at least a byte and up to BUFFER_ALIGN, in the
 * memory of the handshake, which is over. That also is what the client is offered, so that the driver hears when it goes on.
 *
 * Nobody waits in a circle. While the first entry has data to be read again the session holds no other answer: what comes from
 * the disk meanwhile is dropped at once (nbd_again_spare), and no request is taken (nbd_request_step). Its reading goes
 * before all else that its session waits for, beyond the session's own limit by that one buffer. */
#include <string.h>

#include "nbd/internal.h"

_Static_assert(NBD_HANDSHAKE_BYTES >= BUFFER_ALIGN, "the rest of a block fits");

static struct nbd_piece *first_piece(const struct nbd_session *session) {
  struct list *node = list_first(&session->out);
  struct nbd_out *out = node ? LIST_ENTRY(node, struct nbd_out, link) : NULL;
  return out && out->kind == NBD_OUT_PIECE ? CONTAINER_OF(out, struct nbd_piece, out) : NULL;
}

/* Does it hold data of a READ that a client waits for? Not: zeroes in the place of what could not be read. */
static bool holds_answer(const struct nbd_piece *piece) {
  if (!piece->io.buffer || piece->io.op != DISK_READ || piece->request->command != NBD_CMD_READ) return false;
  return piece->state == PIECE_READY || (piece->state == PIECE_SENDING && piece->out.data);
}

static void drop(struct nbd_session *session, struct nbd_piece *piece) {
  if (piece->state == PIECE_SENDING) {
    piece->out.data = NULL;
    piece->out.data_bytes = 0;
    piece->out.again_bytes = (uint32_t)piece->io.length;
  }
  piece->given_back = true;
  session->given_back++;
  nbd_piece_drop_buffer(session, piece);
}

/* All that are not cut off in their middle. */
static void drop_all(struct nbd_session *session) {
  for (uint32_t i = 0; i < session->pieces_used; i++) {
    struct nbd_piece *piece = &session->pieces[i];
    if (piece->state != PIECE_FREE && holds_answer(piece)) drop(session, piece);
  }
}

/* The header of the first one in the line is sent, and some of its data may be: the rest of the block stays. */
static void cut(struct nbd_session *session, struct nbd_piece *piece) {
  struct nbd_out *out = &piece->out;
  uint64_t sent = session->out_sent - out->header_bytes;
  require(sent < out->data_bytes);
  uint64_t end = align_down(piece->io.offset + sent, BUFFER_ALIGN) + BUFFER_ALIGN - piece->io.offset;
  uint64_t kept_end = min_u64(end, out->data_bytes);
  memcpy(session->handshake_data, out->data + sent, kept_end - sent);
  piece->io.offset += kept_end;
  piece->io.length -= kept_end;
  out->header_bytes = 0;
  session->out_sent = 0;
  if (piece->io.length > 0) {
    drop(session, piece);
  } else {
    nbd_piece_drop_buffer(session, piece);
  }
  out->data = session->handshake_data;
  out->data_bytes = (uint32_t)(kept_end - sent);
}

void nbd_session_give_back(struct nbd_session *session) {
  if (session->closing || session->hung_up) return;
  struct nbd_piece *first = first_piece(session);
  if (first && holds_answer(first) && session->out_sent >= first->out.header_bytes) cut(session, first);
  drop_all(session);
}

void nbd_again_begin(struct nbd_session *session) {
  struct nbd_piece *piece = first_piece(session);
  if (!piece || piece->out.again_bytes == 0 || piece->again) return;
  if (session->out_sent < (uint64_t)piece->out.header_bytes + piece->out.data_bytes) return;
  session->out_sent = piece->out.header_bytes = piece->out.data_bytes = 0;
  drop_all(session);
  nbd_piece_read_again(session, piece);
}

void nbd_again_done(struct nbd_session *session, struct nbd_piece *piece) {
  struct nbd_request *request = piece->request;
  require(piece->again && piece->state == PIECE_READY);
  require(&piece->out.link == list_first(&session->out));
  require(piece->out.again_bytes == piece->io.length);
  piece->again = piece->given_back = false;
  session->given_back--;
  piece->state = PIECE_SENDING;
  request->active--;
  if (piece->io.err) {
    nbd_hang_up(session, "was cut off: the disk failed in an answer that it was slow to take");
    return;
  }
  piece->out.data = piece->io.data;
  piece->out.data_bytes = piece->out.again_bytes;
  piece->out.again_bytes = 0;
  nbd_request_settle(session, request);
}

void nbd_again_spare(struct nbd_session *session, struct nbd_piece *piece) {
  const struct nbd_piece *first = first_piece(session);
  if (first && first != piece && first->out.again_bytes > 0 && piece->state != PIECE_FREE && holds_answer(piece))
    drop(session, piece);
}
