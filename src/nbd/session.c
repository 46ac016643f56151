/* session.c - the driver's side of an NBD session: memory, bytes in, wake, close.
 *
 * Bytes are received into the session's own buffer `in` and parsed from there; a long payload goes directly into its
 * piece once what `in` held of it was copied. nbd_go_on() takes steps until one stops for want of bytes (then the
 * driver may receive) or of a resource (then it may not, and whoever frees the resource calls it again). */
#include <string.h>

#include "nbd/internal.h"

/* ---- memory: one block, cut here ---- */

static size_t aligned(size_t bytes) { return (size_t)align_up(bytes, 16); }
static size_t head_bytes(void) { return aligned(sizeof(struct nbd_session)); }
static size_t requests_bytes(void) { return aligned(NBD_REQUESTS_MAX * sizeof(struct nbd_request)); }
static size_t pieces_bytes(void) { return aligned(NBD_PIECES_MAX * sizeof(struct nbd_piece)); }

size_t nbd_session_bytes(void) {
  return head_bytes() + requests_bytes() + pieces_bytes() + NBD_IN_BYTES + NBD_HANDSHAKE_BYTES;
}

static uint64_t held_max(const struct buffer_pool *pool) {
  uint64_t bytes = 0;
  for (unsigned i = 0; i < BUFFER_CLASS_COUNT; i++) bytes += (uint64_t)pool->total_count[i] * buffer_class_bytes[i];
  return min_u64(NBD_HELD_BYTES_MAX, bytes / NBD_HELD_SHARE);
}

static void closed_run(struct event *event) {
  struct nbd_session *session = CONTAINER_OF(event, struct nbd_session, closed_event);
  require(session->closing);
  require(session->in_disk == 0);
  require(session->held_bytes == 0);
  if (session->export) {
    require(session->export->session_count > 0);
    session->export->session_count--;
  }
  session->options.closed(session);
}

struct nbd_session *nbd_session_open(void *memory, const struct nbd_session_options *options) {
  require((uintptr_t)memory % 16 == 0);
  require(options->wake && options->closed);
  struct nbd_session *session = memory;
  uint8_t *at = memory;
  *session = (struct nbd_session){.options = *options, .handshake.kind = NBD_OUT_HANDSHAKE};
  session->held_max = held_max(options->pool);
  session->requests = (void *)(at += head_bytes());
  session->pieces = (void *)(at += requests_bytes());
  session->in = at += pieces_bytes();
  session->in_max = NBD_IN_BYTES;
  session->handshake_data = at += NBD_IN_BYTES;
  require(at + NBD_HANDSHAKE_BYTES == (uint8_t *)memory + nbd_session_bytes());
  list_init(&session->out);
  list_init(&session->held);
  list_init(&session->streams);
  list_init(&session->waiting);
  list_init(&session->free_requests);
  list_init(&session->free_pieces);
  list_init(&session->handshake.link);
  buffer_wait_init(&session->buffer_wait, nbd_buffer_ready);
  event_init(&session->closed_event, closed_run);
  nbd_greet(session);
  nbd_go_on(session);
  return session;
}

void *nbd_session_owner(const struct nbd_session *session) { return session->options.owner; }
struct nbd_export *nbd_session_export(const struct nbd_session *session) {
  return session->export;
}
uint64_t nbd_session_held_bytes(const struct nbd_session *session) { return session->held_bytes; }
bool nbd_session_fills(const struct nbd_session *session) {
  return session->fill && session->fill->state == PIECE_FILLING;
}
bool nbd_session_in_payload(const struct nbd_session *session) {
  return session->phase == NBD_PHASE_PAYLOAD && session->needs_input;
}
bool nbd_session_drains(const struct nbd_session *session) { return session->phase == NBD_PHASE_DRAIN; }
uint32_t nbd_session_requests_open(const struct nbd_session *session) { return session->requests_open; }

/* ---- steps ---- */

static enum nbd_step step(struct nbd_session *session) {
  switch (session->phase) {
    case NBD_PHASE_HELLO:
    case NBD_PHASE_OPTION:
    case NBD_PHASE_SKIP:
    case NBD_PHASE_LIST: return nbd_negotiate_step(session);
    case NBD_PHASE_REQUEST: return nbd_request_step(session);
    case NBD_PHASE_PAYLOAD: return nbd_payload_step(session);
    case NBD_PHASE_DRAIN: break;
  }
  return NBD_STEP_BLOCKED;
}

void nbd_go_on(struct nbd_session *session) {
  enum nbd_step last = NBD_STEP_AGAIN;
  session->needs_input = false;
  while (last == NBD_STEP_AGAIN && !session->hung_up && !session->closing) last = step(session);
  session->needs_input = last == NBD_STEP_INPUT;
  require(session->in_start <= session->in_end);
  require(implies(session->needs_input, nbd_in_bytes(session) < NBD_IN_BYTES));
}

/* The first one in the line may have nothing before what has to be read again. */
static bool can_send(const struct nbd_session *session) {
  struct list *node = list_first(&session->out);
  const struct nbd_out *first = node ? LIST_ENTRY(node, struct nbd_out, link) : NULL;
  return first && first->header_bytes + first->data_bytes > 0;
}

unsigned nbd_session_wants(struct nbd_session *session) {
  if (session->closing) return 0;
  if (session->hung_up) return NBD_CLOSE;
  unsigned wants = 0;
  if (session->needs_input) wants |= NBD_RECEIVE;
  if (can_send(session)) wants |= NBD_SEND;
  bool drained = session->phase == NBD_PHASE_DRAIN && session->requests_open == 0;
  if (drained && list_is_empty(&session->out)) wants |= NBD_CLOSE;
  return wants;
}

void nbd_advance(struct nbd_session *session) {
  nbd_go_on(session);
  if (nbd_session_wants(session)) session->options.wake(session);
}

/* ---- bytes in ---- */

size_t nbd_session_recv_buffer(struct nbd_session *session, void **where) {
  *where = NULL;
  session->receives_in_place = false;
  if (!session->needs_input || session->closing || session->hung_up) return 0;
  struct nbd_piece *piece = session->fill;
  if (piece && piece->io.length - session->fill_bytes > NBD_COLLECT_BYTES) {
    require(piece->state == PIECE_FILLING);
    require(nbd_in_bytes(session) == 0);
    session->receives_in_place = true;
    *where = piece->io.data + session->fill_bytes;
    return (size_t)(piece->io.length - session->fill_bytes);
  }
  /* Little is left over, and seldom: to the front with it. */
  uint32_t left = nbd_in_bytes(session);
  memmove(session->in, session->in + session->in_start, left);
  session->in_start = 0;
  session->in_end = left;
  *where = session->in + left;
  return min_u64(NBD_IN_BYTES - left, session->in_max);
}

void nbd_session_received(struct nbd_session *session, size_t bytes) {
  if (session->closing || session->hung_up) return;
  if (bytes == 0) {
    nbd_payload_stalled(session);
  } else if (session->receives_in_place) {
    require(bytes <= session->fill->io.length - session->fill_bytes);
    session->fill_bytes += (uint32_t)bytes;
    session->payload_left -= bytes;
  } else {
    require(bytes <= NBD_IN_BYTES - session->in_end);
    session->in_end += (uint32_t)bytes;
  }
  session->receives_in_place = false;
  nbd_go_on(session);
  if (nbd_session_wants(session) & (NBD_SEND | NBD_CLOSE)) session->options.wake(session);
}

/* ---- the end ---- */

void nbd_hang_up(struct nbd_session *session, const char *why) {
  if (session->hung_up) return;
  session->hung_up = true;
  session->needs_input = false;
  if (session->options.blamed) session->options.blamed(session, why);
  else report(session->options.env, REPORT_WARNING, session->options.peer, "the client %s; hanging up", why);
}

void nbd_close_check(struct nbd_session *session) {
  require(session->closing);
  if (session->in_disk == 0) event_post(&session->options.env->queue, &session->closed_event);
}

void nbd_session_close(struct nbd_session *session) {
  if (session->closing) return;
  session->closing = true;
  session->needs_input = false;
  nbd_pieces_abandon(session);
  nbd_close_check(session);
}
