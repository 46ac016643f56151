/* transmit.c - the transmission phase, inwards: requests are parsed and judged, the payload of a WRITE is received.
 *
 *     magic(32) flags(16) type(16) cookie(64) offset(64) length(32), then `length` bytes if it is a WRITE
 *
 * What is wrong with a request is answered before anything is touched; the payload of a WRITE that failed, early or in
 * its middle, is still taken from the connection, and then the error is sent.
 *
 * No sector is torn. A WRITE of up to NBD_WHOLE_BYTES goes to the disk when its last byte is here, whatever the number
 * of its pieces: of one whose payload never comes whole nothing is done. A longer one is cut at multiples of
 * BUFFER_ALIGN of the device, and each piece is submitted when its bytes are here. So a client that stalls, or dies, in
 * the middle leaves whole blocks of the old or of the new. */
#include <string.h>

#include "base/bytes.h"
#include "base/plant.h"
#include "nbd/internal.h"

/* ---- slots ---- */

static bool request_available(const struct nbd_session *session) {
  return !list_is_empty(&session->free_requests) || session->requests_used < NBD_REQUESTS_MAX;
}

struct nbd_request *nbd_request_new(struct nbd_session *session) {
  require(request_available(session));
  struct list *node = list_pop(&session->free_requests);
  struct nbd_request *request =
      node ? LIST_ENTRY(node, struct nbd_request, link) : &session->requests[session->requests_used++];
  *request = (struct nbd_request){.holds = 1, .losses = session->export->disk->losses, .status.kind = NBD_OUT_REQUEST};
  list_init(&request->link);
  list_init(&request->ready);
  list_init(&request->status.link);
  session->requests_open++;
  return request;
}

void nbd_request_put(struct nbd_session *session, struct nbd_request *request) {
  require(request->holds > 0);
  if (--request->holds > 0) return;
  require(request->answered);
  require(request->active == 0);
  require(list_is_empty(&request->ready));
  session->requests_open--;
  list_push_front(&session->free_requests, &request->link);
}

void nbd_request_fail(struct nbd_request *request, enum nbd_error error) {
  require(error != NBD_OK);
  if (request->error) return;
  request->error = error;
  request->cursor = request->end; /* no new pieces */
}

void nbd_request_settle(struct nbd_session *session, struct nbd_request *request) {
  if (request->answered || request->active > 0 || session->writing == request) return;
  if (request->cursor < request->end) return; /* a piece that is being sent will carry on */
  nbd_reply_status(session, request);
}

/* ---- what may be asked ---- */

static const struct {
  bool known, writes, ranged;
  uint16_t flags;
} commands[] = {
    [NBD_CMD_READ] = {.known = true, .ranged = true, .flags = NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_DF},
    [NBD_CMD_WRITE] = {.known = true, .ranged = true, .writes = true, .flags = NBD_CMD_FLAG_FUA},
    [NBD_CMD_FLUSH] = {.known = true, .flags = NBD_CMD_FLAG_FUA},
    [NBD_CMD_TRIM] = {.known = true, .ranged = true, .writes = true, .flags = NBD_CMD_FLAG_FUA},
    [NBD_CMD_CACHE] = {.known = true, .ranged = true, .flags = NBD_CMD_FLAG_FUA},
    [NBD_CMD_BLOCK_STATUS] = {.known = true, .ranged = true, .flags = NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE},
    [NBD_CMD_WRITE_ZEROES] = {.known = true,
                              .ranged = true,
                              .writes = true,
                              .flags = NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO},
};

static enum nbd_error request_judge_range(const struct nbd_request *request, const struct disk_caps *caps) {
  uint64_t size = align_down(caps->size_bytes, caps->block_bytes);
  bool grows = request->command == NBD_CMD_WRITE || request->command == NBD_CMD_WRITE_ZEROES;
  if (request->offset > size || request->length > size - request->offset) return grows ? NBD_ENOSPC : NBD_EINVAL;
  if (request->offset % caps->block_bytes != 0) return NBD_EINVAL;
  if (request->length % caps->block_bytes != 0) return NBD_EINVAL;
  return NBD_OK;
}

static enum nbd_error request_judge(const struct nbd_session *session, const struct nbd_request *request) {
  const struct disk_caps *caps = &session->export->disk->caps;
  unsigned command = request->command, flags = request->flags;
  if (command >= COUNT_OF(commands) || !commands[command].known) return NBD_EINVAL;
  if (flags & ~(unsigned)commands[command].flags) return NBD_EINVAL;
  if (flags & NBD_CMD_FLAG_DF && !session->structured) return NBD_EINVAL;
  if (!commands[command].ranged) return request->offset || request->length ? NBD_EINVAL : NBD_OK;
  if (commands[command].writes && caps->read_only) return NBD_EPERM;
  if (command == NBD_CMD_TRIM && !caps->can_trim) return NBD_EINVAL;
  if (command == NBD_CMD_READ && request->length > NBD_PAYLOAD_MAX) return NBD_EINVAL;
  if (command == NBD_CMD_BLOCK_STATUS && (session->contexts == 0 || request->length == 0)) return NBD_EINVAL;
  enum nbd_error error = request_judge_range(request, caps);
  if (error) return error;
  if (flags & NBD_CMD_FLAG_FAST_ZERO && !caps->can_zero) return NBD_ENOTSUP;
  return NBD_OK;
}

/* ---- a request begins ---- */

/* FUA on one piece is the disk's own. On several it is one flush after the last of them: as durable, because a flush
 * covers all that was completed before it was submitted, and cheaper than having each piece on stable storage by
 * itself. */
static void request_plan_fua(struct nbd_request *request, bool one_piece) {
  if (!(request->flags & NBD_CMD_FLAG_FUA)) return;
  if (one_piece) request->io_flags |= DISK_FUA;
  else request->flush_after = true;
}

static void request_plan(const struct nbd_session *session, struct nbd_request *request) {
  const struct disk_caps *caps = &session->export->disk->caps;
  request->cursor = request->offset;
  request->end = request->offset + request->length;
  if (request->command == NBD_CMD_TRIM) { /* inwards: what is only partly covered stays */
    request->cursor = align_up(request->cursor, caps->zero_block_bytes);
    request->end = max_u64(align_down(request->end, caps->zero_block_bytes), request->cursor);
  }
  if (request->cursor == request->end) return;
  bool one_piece = nbd_first_piece_bytes(session, request) == request->end - request->cursor;
  if (request->command == NBD_CMD_READ) {
    request->streamed = request->offset;
    request->ordered = !one_piece && (!session->structured || request->flags & NBD_CMD_FLAG_DF);
    return;
  }
  if (!commands[request->command].writes) return;
  request_plan_fua(request, one_piece);
  if (request->flags & NBD_CMD_FLAG_NO_HOLE) request->io_flags |= DISK_NO_HOLE;
}

static void request_begin(struct nbd_session *session, struct nbd_request *request) {
  enum nbd_error error = request_judge(session, request);
  if (error) nbd_request_fail(request, error);
  else request_plan(session, request);
  if (request->command == NBD_CMD_WRITE && request->length > 0) {
    session->writing = request; /* which keeps the parser's hold until the payload is here */
    session->payload_left = request->length;
    session->in_max = request->length > NBD_IN_LONG_BYTES ? NBD_IN_LONG_BYTES : NBD_IN_BYTES;
    session->flows = session->stalled = false;
    session->phase = NBD_PHASE_PAYLOAD;
    return;
  }
  bool touches = !error && (request->command == NBD_CMD_FLUSH || request->cursor < request->end);
  if (touches) nbd_pieces_start(session, request);
  nbd_request_settle(session, request);
  nbd_request_put(session, request);
}

enum nbd_step nbd_request_step(struct nbd_session *session) {
  require(session->phase == NBD_PHASE_REQUEST);
  require(!session->writing);
  if (!request_available(session) || !nbd_piece_available(session)) return NBD_STEP_BLOCKED;
  if (!list_is_empty(&session->waiting) || session->given_back > 0) return NBD_STEP_BLOCKED;
  if (nbd_in_bytes(session) < NBD_REQUEST_BYTES) return NBD_STEP_INPUT;
  struct reader reader;
  reader_init(&reader, session->in + session->in_start, NBD_REQUEST_BYTES);
  uint32_t magic = get_be32(&reader);
  uint16_t flags = get_be16(&reader), command = get_be16(&reader);
  /* Images answer these one after the other: a crowd of one client's would stand in everybody's way. */
  if (command == NBD_CMD_BLOCK_STATUS && session->asking == NBD_STATUS_MAX) return NBD_STEP_BLOCKED;
  session->in_start += NBD_REQUEST_BYTES;
  uint64_t cookie = get_be64(&reader), offset = get_be64(&reader);
  uint32_t length = get_be32(&reader);
  if (magic != NBD_MAGIC_REQUEST) {
    nbd_hang_up(session, "sent something that is no request");
  } else if (command == NBD_CMD_WRITE && length > NBD_PAYLOAD_MAX) {
    nbd_hang_up(session, "sent a payload over the limit");
  } else if (command == NBD_CMD_DISC) {
    session->phase = NBD_PHASE_DRAIN;
  } else {
    struct nbd_request *request = nbd_request_new(session);
    request->command = command;
    request->flags = flags;
    request->cookie = cookie;
    request->offset = offset;
    request->length = length;
    request_begin(session, request);
  }
  return NBD_STEP_AGAIN;
}

/* ---- the payload of a WRITE ---- */

static enum nbd_step payload_end(struct nbd_session *session) {
  struct nbd_request *request = session->writing;
  require(!session->fill);
  session->writing = NULL;
  session->phase = NBD_PHASE_REQUEST;
  nbd_request_settle(session, request);
  nbd_request_put(session, request);
  return NBD_STEP_AGAIN;
}

static enum nbd_step payload_discard(struct nbd_session *session) {
  uint32_t bytes = (uint32_t)min_u64(session->payload_left, nbd_in_bytes(session));
  if (bytes == 0) return NBD_STEP_INPUT;
  session->in_start += bytes;
  session->payload_left -= bytes;
  return NBD_STEP_AGAIN;
}

/* A WRITE of up to NBD_WHOLE_BYTES touches the disk only when all of it is here. */
static bool is_taken_whole(const struct nbd_request *request) { return request->length <= NBD_WHOLE_BYTES; }

/* So many bytes of the payload must be here before a buffer is asked for: a few, since a client that has begun goes on
 * as a rule. All of it where more than one piece depends on it, or where the client has stalled already. */
static uint64_t payload_wanted(const struct nbd_session *session) {
  const struct nbd_request *request = session->writing;
  bool one_piece = nbd_first_piece_bytes(session, request) == request->length;
  bool all = is_taken_whole(request) && (session->stalled || !one_piece);
  return all ? session->payload_left : min_u64(session->payload_left, NBD_COLLECT_BYTES);
}

/* Asks for the next buffer once enough bytes for it are here, or when the client is known to be sending. */
static enum nbd_step payload_next_piece(struct nbd_session *session) {
  bool flows = session->flows && session->payload_left > NBD_COLLECT_BYTES;
  if (nbd_in_bytes(session) < payload_wanted(session) && !flows) return NBD_STEP_INPUT;
  if (!nbd_piece_available(session) || !list_is_empty(&session->waiting)) return NBD_STEP_BLOCKED;
  session->fill = nbd_piece_fill(session, session->writing);
  session->fill_bytes = 0;
  return NBD_STEP_AGAIN;
}

/* `fill` has all its bytes: to the disk with it, unless the request has failed meanwhile. */
static void payload_piece_full(struct nbd_session *session) {
  struct nbd_piece *piece = session->fill;
  require(piece->state == PIECE_FILLING);
  require(session->fill_bytes == piece->io.length);
  session->fill = NULL;
  if (session->writing->error) {
    session->writing->active--;
    nbd_piece_free(session, piece);
  } else {
    nbd_piece_submit(session, piece);
  }
}

enum nbd_step nbd_payload_step(struct nbd_session *session) {
  struct nbd_request *request = session->writing;
  struct nbd_piece *piece = session->fill;
  require(session->phase == NBD_PHASE_PAYLOAD);
  require(request != NULL);
  if (!piece) {
    if (session->payload_left == 0) return payload_end(session);
    return request->error ? payload_discard(session) : payload_next_piece(session);
  }
  if (piece->state == PIECE_WAITING) return NBD_STEP_BLOCKED;
  uint32_t bytes = (uint32_t)min_u64(piece->io.length - session->fill_bytes, nbd_in_bytes(session));
  memcpy(piece->io.data + session->fill_bytes, session->in + session->in_start, bytes);
  session->in_start += bytes;
  session->fill_bytes += bytes;
  session->payload_left -= bytes;
  if (session->fill_bytes < piece->io.length) return NBD_STEP_INPUT;
  payload_piece_full(session);
  session->flows = true;
  return NBD_STEP_AGAIN;
}

/* How many bytes of the piece that is being filled may go to the disk by themselves: up to a multiple of BUFFER_ALIGN
 * of the device, so that no sector is torn; none of a WRITE that is taken whole. */
static uint32_t payload_part(const struct nbd_session *session) {
  const struct nbd_piece *piece = session->fill;
  if (PLANTED(torn_payload)) return (uint32_t)align_down(session->fill_bytes, session->export->disk->caps.block_bytes);
  if (is_taken_whole(session->writing)) return 0;
  uint64_t cut = align_down(piece->io.offset + session->fill_bytes, BUFFER_ALIGN);
  return cut > piece->io.offset ? (uint32_t)(cut - piece->io.offset) : 0;
}

/* Nothing comes any more: what may go to the disk of a piece does so as a shorter piece, the rest moves to our own
 * memory, and the buffer is not kept waiting. */
void nbd_payload_stalled(struct nbd_session *session) {
  struct nbd_piece *piece = session->fill;
  session->flows = false;
  if (!piece || piece->state != PIECE_FILLING || session->in_start != session->in_end) return;
  uint32_t part = payload_part(session), rest = session->fill_bytes - part;
  require(rest < NBD_IN_BYTES);
  memcpy(session->in, piece->io.data + part, rest);
  session->in_start = 0;
  session->in_end = rest;
  session->payload_left += rest;
  session->fill_bytes = part;
  session->stalled = true;
  if (!session->writing->error) session->writing->cursor = piece->io.offset + part;
  piece->io.length = part;
  if (part > 0) return payload_piece_full(session);
  session->fill = NULL;
  session->writing->active--;
  nbd_piece_free(session, piece);
}
