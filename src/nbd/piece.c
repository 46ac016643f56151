/* piece.c - requests cut into disk I/Os.
 *
 * Cuts lie on multiples of BUFFER_ALIGN of the device (on every disk that takes so much at once, as each image's must),
 * so that of a long unaligned request only the two ends are merged with what is on the disk, its pieces do not meet in
 * one block, and no sector holds half of it.
 *
 * WRITE_ZEROES is the disk's own where the disk zeroes cheaply: whole zero blocks by DISK_WRITE_ZEROES, the edges by
 * writing zero bytes. Where it does not, all of it is written. Each such piece has a buffer of its own: the disk may
 * merge foreign bytes into the ends of one, so that none can be shared.
 *
 * CACHE reads, and drops what it has read: whatever the images' disks and machines keep of it is nearer then.
 *
 * Who needs a buffer and finds none, or holds too much of the pool already, waits in line; meanwhile the session takes
 * no new request. The one exception is a READ that streams: with its header sent nobody else's answer can pass, so
 * waiting for a buffer that those behind it hold would be for ever. It keeps the buffer that it has; if an image keeps
 * that, the piece is read when it is its turn to be sent, when those behind it hold none (again.c). */
#include <string.h>

#include "nbd/internal.h"

/* ---- slots and buffers ---- */

bool nbd_piece_available(const struct nbd_session *session) {
  return !list_is_empty(&session->free_pieces) || session->pieces_used < NBD_PIECES_MAX;
}

static void piece_done(struct disk_io *io);

static struct nbd_piece *piece_new(struct nbd_session *session, struct nbd_request *request) {
  require(nbd_piece_available(session));
  struct list *node = list_pop(&session->free_pieces);
  struct nbd_piece *piece = node ? LIST_ENTRY(node, struct nbd_piece, link) : &session->pieces[session->pieces_used++];
  *piece = (struct nbd_piece){.session = session, .request = request, .io.done = piece_done, .out.kind = NBD_OUT_PIECE};
  list_init(&piece->link);
  list_init(&piece->out.link);
  disk_io_init(&piece->io);
  request->holds++;
  return piece;
}

/* The bytes of data that the buffer of a piece must have room for. */
static uint64_t buffer_need(const struct nbd_piece *piece) {
  return piece->io.op == DISK_EXTENTS ? NBD_STATUS_BYTES : piece->io.length;
}

/* May the session hold one more buffer? One it always may. */
static bool may_hold(const struct nbd_session *session, uint64_t data_bytes) {
  return session->held_bytes == 0 || session->held_bytes + data_bytes + BUFFER_ALIGN <= session->held_max;
}

/* The first in line asks the pool, when the session may hold that much. */
static void line_go_on(struct nbd_session *session) {
  struct list *node = list_first(&session->waiting);
  if (!node || session->buffer_waits) return;
  const struct nbd_piece *piece = LIST_ENTRY(node, struct nbd_piece, link);
  if (!piece->again && !may_hold(session, buffer_need(piece))) return;
  session->buffer_waits = true;
  buffer_wait_for(session->options.pool, session->export->account, &session->buffer_wait, (uint32_t)buffer_need(piece));
}

static void buffer_take(struct nbd_session *session, struct nbd_piece *piece, struct buffer *buffer) {
  require(!piece->io.buffer);
  require(buffer->bytes - BUFFER_ALIGN >= buffer_need(piece));
  piece->io.buffer = buffer;
  piece->held_bytes = buffer->bytes;
  session->held_bytes += buffer->bytes;
}

/* A READ, or EXTENTS, may come back with another buffer (disk.h), of another size. */
static void buffer_came_back(struct nbd_session *session, struct nbd_piece *piece) {
  if (!piece->io.buffer) return;
  require(session->held_bytes >= piece->held_bytes);
  session->held_bytes -= piece->held_bytes;
  piece->held_bytes = piece->io.buffer->bytes;
  session->held_bytes += piece->held_bytes;
}

void nbd_piece_drop_buffer(struct nbd_session *session, struct nbd_piece *piece) {
  struct buffer *buffer = piece->io.buffer;
  if (!buffer) return;
  require(piece->held_bytes == buffer->bytes);
  require(session->held_bytes >= buffer->bytes);
  session->held_bytes -= buffer->bytes;
  piece->io.buffer = NULL;
  buffer_unref(buffer);
  if (!session->closing) line_go_on(session);
}

/* NULL: the caller must wait, or do without. */
static struct buffer *buffer_try(struct nbd_session *session, uint64_t data_bytes) {
  if (!list_is_empty(&session->waiting) || !may_hold(session, data_bytes)) return NULL;
  return buffer_get_for(session->options.pool, session->export->account, (uint32_t)data_bytes);
}

void nbd_piece_free(struct nbd_session *session, struct nbd_piece *piece) {
  struct nbd_request *request = piece->request;
  require(piece->state != PIECE_FREE);
  require(piece->state != PIECE_IN_DISK);
  require(!list_is_linked(&piece->out.link));
  if (piece->given_back) session->given_back--;
  piece->given_back = false;
  piece->state = PIECE_FREE;
  piece->request = NULL;
  list_remove(&piece->link);
  list_push_front(&session->free_pieces, &piece->link);
  nbd_piece_drop_buffer(session, piece);
  nbd_request_put(session, request);
}

/* ---- segments: what a piece does next ---- */

static uint64_t data_piece_bytes(const struct disk_caps *caps, uint64_t offset, uint64_t left) {
  if (left <= caps->io_bytes_max) return left;
  uint64_t cut = align_down(offset + caps->io_bytes_max, BUFFER_ALIGN);
  return cut > offset ? cut - offset : caps->io_bytes_max;
}

struct segment {
  enum disk_op op;
  uint64_t length;
};

static struct segment segment_of_zeroes(const struct disk_caps *caps, uint64_t offset, uint64_t left) {
  uint64_t data_bytes = data_piece_bytes(caps, offset, left);
  if (!caps->can_zero) return (struct segment){DISK_WRITE, data_bytes};
  uint64_t unit = caps->zero_block_bytes, edge = min_u64(align_up(offset, unit) - offset, left);
  if (edge == 0 && left < unit) edge = left;
  if (edge > 0) return (struct segment){DISK_WRITE, min_u64(edge, data_bytes)};
  return (struct segment){DISK_WRITE_ZEROES, min_u64(align_down(left, unit), caps->zero_bytes_max)};
}

static struct segment segment_next(const struct nbd_session *session, const struct nbd_request *request) {
  const struct disk_caps *caps = &session->export->disk->caps;
  uint64_t left = request->end - request->cursor;
  require(left > 0);
  switch (request->command) {
    case NBD_CMD_BLOCK_STATUS: return (struct segment){DISK_EXTENTS, left};
    case NBD_CMD_CACHE:
    case NBD_CMD_READ: return (struct segment){DISK_READ, data_piece_bytes(caps, request->cursor, left)};
    case NBD_CMD_WRITE: return (struct segment){DISK_WRITE, data_piece_bytes(caps, request->cursor, left)};
    case NBD_CMD_TRIM: return (struct segment){DISK_TRIM, min_u64(left, caps->zero_bytes_max)};
    case NBD_CMD_WRITE_ZEROES: return segment_of_zeroes(caps, request->cursor, left);
    default: tarn_panic("a command without segments", __FILE__, __LINE__);
  }
}

uint64_t nbd_first_piece_bytes(const struct nbd_session *session, const struct nbd_request *request) {
  return segment_next(session, request).length;
}

static bool needs_buffer(enum disk_op op) { return op == DISK_READ || op == DISK_WRITE || op == DISK_EXTENTS; }

static void segment_take(struct nbd_piece *piece, struct segment segment) {
  struct nbd_request *request = piece->request;
  require(segment.length > 0);
  piece->io.op = segment.op;
  piece->io.offset = request->cursor;
  piece->io.length = segment.length;
  request->cursor += segment.length;
  request->active++;
  if (segment.op == DISK_EXTENTS) piece->session->asking++;
}

/* ---- to the disk ---- */

/* Its buffer is here: a piece of a WRITE takes bytes from the client now, any other goes to the disk. */
static void piece_equipped(struct nbd_session *session, struct nbd_piece *piece) {
  if (needs_buffer(piece->io.op)) {
    require(piece->io.buffer != NULL);
    piece->io.data = piece->io.buffer->base + (piece->io.op == DISK_EXTENTS ? 0 : piece->io.offset % BUFFER_ALIGN);
  }
  if (piece->request->command == NBD_CMD_WRITE && piece->io.op == DISK_WRITE) piece->state = PIECE_FILLING;
  else nbd_piece_submit(session, piece);
}

static void piece_equip_or_wait(struct nbd_session *session, struct nbd_piece *piece) {
  if (needs_buffer(piece->io.op) && !piece->io.buffer) {
    struct buffer *buffer = buffer_try(session, buffer_need(piece));
    if (!buffer) {
      piece->state = PIECE_WAITING;
      list_push(&session->waiting, &piece->link);
      line_go_on(session);
      return;
    }
    buffer_take(session, piece, buffer);
  }
  piece_equipped(session, piece);
}

void nbd_piece_read_again(struct nbd_session *session, struct nbd_piece *piece) {
  require(piece->given_back && !piece->again);
  require(piece->io.op == DISK_READ && !piece->io.buffer);
  piece->again = true;
  piece->request->active++;
  struct buffer *buffer = buffer_get_for(session->options.pool, session->export->account, (uint32_t)buffer_need(piece));
  if (buffer) {
    buffer_take(session, piece, buffer);
    piece_equipped(session, piece);
    return;
  }
  piece->state = PIECE_WAITING;
  buffer_wait_cancel(session->options.pool, &session->buffer_wait); /* who waits so far stands behind it */
  session->buffer_waits = false;
  list_push_front(&session->waiting, &piece->link);
  line_go_on(session);
}

void nbd_buffer_ready(struct buffer_wait *wait) {
  struct nbd_session *session = CONTAINER_OF(wait, struct nbd_session, buffer_wait);
  require(session->buffer_waits);
  require(!session->closing);
  session->buffer_waits = false;
  struct nbd_piece *piece = LIST_ENTRY(list_pop(&session->waiting), struct nbd_piece, link);
  require(piece->state == PIECE_WAITING);
  buffer_take(session, piece, wait->buffer);
  struct nbd_request *request = piece->request;
  if (request->error && session->fill != piece && !piece->again) { /* another piece has failed meanwhile */
    request->active--;
    nbd_request_settle(session, request);
    nbd_piece_free(session, piece);
  } else {
    piece_equipped(session, piece);
  }
  line_go_on(session);
  nbd_advance(session);
}

void nbd_piece_submit(struct nbd_session *session, struct nbd_piece *piece) {
  struct disk_io *io = &piece->io;
  unsigned allowed = io->op == DISK_WRITE || io->op == DISK_TRIM ? DISK_FUA : 0;
  if (io->op == DISK_WRITE_ZEROES) allowed = DISK_FUA | DISK_NO_HOLE;
  io->flags = piece->request->io_flags & allowed;
  if (piece->request->command == NBD_CMD_WRITE_ZEROES && io->op == DISK_WRITE) memset(io->data, 0, io->length);
  piece->state = PIECE_IN_DISK;
  session->in_disk++;
  disk_submit(session->export->disk, io);
}

/* More pieces at once, as far as nothing must be waited for. */
static void window_open(struct nbd_session *session, struct nbd_request *request) {
  for (unsigned count = 1; count < NBD_WINDOW && request->cursor < request->end; count++) {
    struct segment segment = segment_next(session, request);
    if (!nbd_piece_available(session)) return;
    struct buffer *buffer = needs_buffer(segment.op) ? buffer_try(session, segment.length) : NULL;
    if (needs_buffer(segment.op) && !buffer) return;
    struct nbd_piece *piece = piece_new(session, request);
    segment_take(piece, segment);
    if (buffer) buffer_take(session, piece, buffer);
    piece_equipped(session, piece);
  }
}

static void piece_flush(struct nbd_session *session, struct nbd_piece *piece) {
  nbd_piece_drop_buffer(session, piece);
  piece->io.op = DISK_FLUSH;
  piece->io.offset = piece->io.length = 0;
  piece->io.data = NULL;
  piece->request->active++;
  nbd_piece_submit(session, piece);
}

void nbd_pieces_start(struct nbd_session *session, struct nbd_request *request) {
  require(request->command != NBD_CMD_WRITE);
  struct nbd_piece *piece = piece_new(session, request);
  if (request->command == NBD_CMD_FLUSH) return piece_flush(session, piece);
  segment_take(piece, segment_next(session, request));
  piece_equip_or_wait(session, piece);
  window_open(session, request);
}

struct nbd_piece *nbd_piece_fill(struct nbd_session *session, struct nbd_request *request) {
  require(request->command == NBD_CMD_WRITE);
  struct nbd_piece *piece = piece_new(session, request);
  segment_take(piece, segment_next(session, request));
  piece_equip_or_wait(session, piece);
  return piece;
}

/* ---- and back ---- */

static enum nbd_error error_of(tarn_err err, const struct nbd_request *request) {
  switch (err) {
    case TARN_OK: return NBD_OK;
    case TARN_NO_SPACE: return NBD_ENOSPC;
    case TARN_SHUTDOWN: return NBD_ESHUTDOWN;
    case TARN_REFUSED: return NBD_EPERM;
    case TARN_INVALID:
    case TARN_RANGE: return NBD_EINVAL;
    case TARN_UNSUPPORTED: /* which a WRITE_ZEROES that did not ask to be fast must not be told */
      if (request->command == NBD_CMD_WRITE_ZEROES && !(request->flags & NBD_CMD_FLAG_FAST_ZERO)) return NBD_EIO;
      return NBD_ENOTSUP;
    case TARN_IO:
    case TARN_CORRUPT:
    case TARN_STALE:
    case TARN_FULL:
    case TARN_GONE:
    case TARN_HUNG:
    case TARN_NOT_FOUND:
    case TARN_EXISTS:
    case TARN_VERSION:
    case TARN_ERR_COUNT: break;
  }
  return NBD_EIO;
}

/* The next segment of its request, in the same slot. A buffer that a hung image still holds is not written into again.
 * */
static void piece_go_on(struct nbd_session *session, struct nbd_piece *piece) {
  struct nbd_request *request = piece->request;
  struct segment segment = segment_next(session, request);
  struct buffer *buffer = piece->io.buffer;
  if (buffer && (buffer->refs > 1 || !needs_buffer(segment.op) || buffer->bytes - BUFFER_ALIGN < segment.length))
    nbd_piece_drop_buffer(session, piece);
  segment_take(piece, segment);
  if (request->ordered && !piece->io.buffer) {
    struct buffer *other = buffer_try(session, segment.length);
    if (!other) { /* see above: it must not wait, but for its turn in the line */
      request->active--;
      piece->state = PIECE_READY;
      piece->given_back = true;
      session->given_back++;
      nbd_reply_data(session, request, piece);
      return;
    }
    buffer_take(session, piece, other);
  }
  piece_equip_or_wait(session, piece);
}

/* A piece of anything but a READ or a BLOCK_STATUS is done; true when it has found something else to do. */
static bool piece_carry_on(struct nbd_session *session, struct nbd_piece *piece) {
  struct nbd_request *request = piece->request;
  if (request->error || session->writing == request) return false;
  if (request->cursor < request->end) {
    piece_go_on(session, piece);
    return true;
  }
  if (!request->flush_after || request->active > 0) return false;
  request->flush_after = false;
  piece_flush(session, piece);
  return true;
}

/* A flush that is good says nothing of what was lost before: it fails, and the client knows. So does the one behind a write with
 * FUA, a part of which may be lost. */
static tarn_err flush_judged(struct nbd_session *session, const struct nbd_request *request, tarn_err err) {
  uint64_t losses = session->export->disk->losses;
  if (request->command != NBD_CMD_FLUSH) return err == TARN_OK && request->losses != losses ? TARN_IO : err;
  if (err == TARN_OK && session->losses != losses) err = TARN_IO;
  if (err != TARN_OK) session->losses = losses;
  return err;
}

static void piece_done(struct disk_io *io) {
  struct nbd_piece *piece = CONTAINER_OF(io, struct nbd_piece, io);
  struct nbd_session *session = piece->session;
  struct nbd_request *request = piece->request;
  require(piece->state == PIECE_IN_DISK);
  require(session->in_disk > 0);
  session->in_disk--;
  if (io->op == DISK_EXTENTS) session->asking--;
  piece->state = PIECE_READY;
  buffer_came_back(session, piece);
  if (session->closing) {
    nbd_piece_drop_buffer(session, piece);
    nbd_close_check(session);
    return;
  }
  if (piece->again) {
    nbd_again_done(session, piece);
    nbd_advance(session);
    return;
  }
  request->holds++; /* past the end of its last piece */
  request->active--;
  /* What an EXTENTS could not find out is data, unless it was not even tried. */
  tarn_err err = io->op == DISK_FLUSH ? flush_judged(session, request, io->err) : io->err;
  if (err && (io->op != DISK_EXTENTS || err == TARN_SHUTDOWN)) nbd_request_fail(request, error_of(err, request));
  if (request->command == NBD_CMD_READ) nbd_reply_data(session, request, piece);
  else if (request->command == NBD_CMD_BLOCK_STATUS) nbd_reply_block_status(session, request, piece);
  else if (!piece_carry_on(session, piece)) nbd_piece_free(session, piece);
  nbd_again_spare(session, piece);
  nbd_request_settle(session, request);
  nbd_request_put(session, request);
  nbd_advance(session);
}

void nbd_piece_sent(struct nbd_session *session, struct nbd_piece *piece) {
  struct nbd_request *request = piece->request;
  require(piece->state == PIECE_SENDING);
  require(request->command == NBD_CMD_READ || request->command == NBD_CMD_BLOCK_STATUS);
  if (request->cursor < request->end) piece_go_on(session, piece);
  else nbd_piece_free(session, piece);
}

/* The session closes: all buffers but those in the disk go back. Requests and slots are not looked at any more. */
void nbd_pieces_abandon(struct nbd_session *session) {
  require(session->closing);
  buffer_wait_cancel(session->options.pool, &session->buffer_wait);
  for (uint32_t i = 0; i < session->pieces_used; i++) {
    struct nbd_piece *piece = &session->pieces[i];
    if (piece->state != PIECE_IN_DISK) nbd_piece_drop_buffer(session, piece);
    else if (session->export->withdraw) session->export->withdraw(session->export->disk, &piece->io);
  }
}
