/* reply.c - what is sent, and in which order.
 *
 * Everything to send stands in one line, `out`. Each entry is a small header in the slot that it belongs to, and data
 * that stay in their pool buffer until they are sent.
 *
 * A READ of one piece is one entry. With structured replies each piece of a longer one is a chunk of its own, in any
 * order; the last carries DONE. Without them, and for a long DF read, all data must follow one header without a gap:
 * such a READ is `ordered`. It takes the line for itself (`stream`) and others' entries are `held` until its last piece
 * is in. To answer errors properly as often as possible its header is made when its whole first window has been read;
 * an error after that can only be told by hanging up, or, in a DF read, by zeroes in place of the rest and an error
 * chunk behind them. */
#include <string.h>

#include "base/bytes.h"
#include "nbd/internal.h"

static const uint8_t zeroes[4096];

/* ---- headers ---- */

static void put_simple(struct writer *writer, const struct nbd_request *request, enum nbd_error error) {
  put_be32(writer, NBD_MAGIC_SIMPLE);
  put_be32(writer, (uint32_t)error);
  put_be64(writer, request->cookie);
}

static void put_chunk(struct writer *writer, const struct nbd_request *request, enum nbd_chunk type, bool done,
                      uint64_t bytes) {
  put_be32(writer, NBD_MAGIC_STRUCTURED);
  put_be16(writer, done ? NBD_REPLY_FLAG_DONE : 0);
  put_be16(writer, (uint16_t)type);
  put_be64(writer, request->cookie);
  put_be32(writer, (uint32_t)bytes);
}

static void header_begin(struct nbd_out *out, struct writer *writer) {
  require(!list_is_linked(&out->link));
  writer_init(writer, out->header, sizeof out->header);
}

static void header_end(struct nbd_out *out, const struct writer *writer) {
  require(!writer->bad);
  out->header_bytes = (uint32_t)writer_used(writer);
}

/* Before `bytes` bytes of data from `offset` on. */
static void put_data_header(const struct nbd_session *session, struct writer *writer, const struct nbd_request *request,
                            uint64_t offset, uint64_t bytes, bool done) {
  if (session->structured) {
    put_chunk(writer, request, NBD_REPLY_TYPE_OFFSET_DATA, done, NBD_CHUNK_OFFSET_BYTES + bytes);
    put_be64(writer, offset);
  } else {
    put_simple(writer, request, NBD_OK);
  }
}

/* ---- the line ---- */

void nbd_out_push(struct nbd_session *session, struct nbd_request *request, struct nbd_out *out) {
  require(out->header_bytes + out->data_bytes + out->again_bytes > 0);
  require(!list_is_linked(&out->link));
  bool held = session->stream && session->stream != request;
  list_push(held ? &session->held : &session->out, &out->link);
}

static void push_piece(struct nbd_session *session, struct nbd_piece *piece, const uint8_t *data, uint64_t bytes) {
  piece->state = PIECE_SENDING;
  piece->out.data = piece->given_back ? NULL : data;
  piece->out.data_bytes = piece->given_back ? 0 : (uint32_t)bytes;
  piece->out.again_bytes = piece->given_back ? (uint32_t)bytes : 0;
  nbd_out_push(session, piece->request, &piece->out);
  if (piece->given_back) nbd_again_begin(session);
}

/* The end of a request that does not end with data. Simple replies are also allowed where structured ones were agreed
 * on, for what carries nothing: they are shorter. */
void nbd_reply_status(struct nbd_session *session, struct nbd_request *request) {
  require(!request->answered);
  require(request->active == 0);
  struct writer writer;
  header_begin(&request->status, &writer);
  if (session->structured && request->error) {
    put_chunk(&writer, request, NBD_REPLY_TYPE_ERROR, true, NBD_CHUNK_ERROR_BYTES);
    put_be32(&writer, (uint32_t)request->error);
    put_be16(&writer, 0);
  } else if (session->structured && request->command == NBD_CMD_READ) {
    put_chunk(&writer, request, NBD_REPLY_TYPE_NONE, true, 0);
  } else {
    put_simple(&writer, request, request->error);
  }
  header_end(&request->status, &writer);
  request->answered = true;
  request->holds++;
  nbd_out_push(session, request, &request->status);
}

/* ---- data that streams ---- */

static struct nbd_piece *ready_piece_at(struct nbd_request *request, uint64_t offset) {
  LIST_EACH(&request->ready, node) {
    struct nbd_piece *piece = LIST_ENTRY(node, struct nbd_piece, link);
    if (piece->io.offset == offset) return piece;
  }
  return NULL;
}

static void stream_end(struct nbd_session *session) {
  require(session->stream->streamed == session->stream->offset + session->stream->length);
  session->stream = NULL;
  list_splice(&session->out, &session->held);
}

/* What has been read and is next goes into the line; ends the stream with its last byte. */
static void stream_push(struct nbd_session *session) {
  struct nbd_request *request = session->stream;
  uint64_t end = request->offset + request->length;
  for (struct nbd_piece *piece; (piece = ready_piece_at(request, request->streamed)) != NULL;) {
    list_remove(&piece->link);
    struct writer writer;
    header_begin(&piece->out, &writer);
    if (request->streamed == request->offset) {
      put_data_header(session, &writer, request, request->offset, request->length, false);
    }
    header_end(&piece->out, &writer);
    push_piece(session, piece, piece->io.data, piece->io.length);
    request->streamed += piece->io.length;
  }
  if (request->streamed < end) return;
  stream_end(session);
  if (!session->structured) return;
  request->answered = false; /* the chunk could not say that it was the last: an error was possible still */
  nbd_request_settle(session, request);
}

static void streams_run(struct nbd_session *session) {
  if (session->stream) stream_push(session);
  while (!session->stream && !list_is_empty(&session->streams)) {
    struct nbd_request *request = LIST_ENTRY(list_pop(&session->streams), struct nbd_request, link);
    session->stream = request;
    stream_push(session);
  }
}

/* A piece of a stream could not be read. */
static void stream_fail(struct nbd_session *session, struct nbd_request *request, struct nbd_piece *piece) {
  if (!session->structured) {
    nbd_piece_free(session, piece);
    nbd_hang_up(session, "was cut off: the disk failed in the middle of a long read");
    return;
  }
  uint64_t end = request->offset + request->length;
  piece->out.header_bytes = 0;
  push_piece(session, piece, NULL, end - request->streamed);
  request->streamed = end;
  request->answered = false; /* the error chunk follows when its last piece is back */
  stream_end(session);
  streams_run(session);
}

static void ready_drop(struct nbd_session *session, struct nbd_request *request) {
  for (struct list *node; (node = list_first(&request->ready)) != NULL;)
    nbd_piece_free(session, LIST_ENTRY(node, struct nbd_piece, link));
}

static void reply_ordered(struct nbd_session *session, struct nbd_request *request, struct nbd_piece *piece) {
  if (!request->error) {
    list_push(&request->ready, &piece->link);
    bool begins = !request->answered && request->active == 0;
    if (begins) {
      request->answered = true;
      list_push(&session->streams, &request->link);
    }
    if (begins || session->stream == request) streams_run(session);
  } else if (session->stream == request) {
    stream_fail(session, request, piece);
    ready_drop(session, request);
  } else {
    nbd_piece_free(session, piece);
    ready_drop(session, request);
  }
}

void nbd_reply_data(struct nbd_session *session, struct nbd_request *request, struct nbd_piece *piece) {
  require(piece->io.op == DISK_READ);
  require(piece->state == PIECE_READY);
  if (request->ordered) return reply_ordered(session, request, piece);
  if (request->error) return nbd_piece_free(session, piece);
  bool last = request->active == 0 && request->cursor == request->end;
  struct writer writer;
  header_begin(&piece->out, &writer);
  put_data_header(session, &writer, request, piece->io.offset, piece->io.length, last);
  header_end(&piece->out, &writer);
  if (last) request->answered = true;
  push_piece(session, piece, piece->io.data, piece->io.length);
}

/* ---- block status ---- */

static void put_context(struct writer *writer, const struct nbd_request *request, enum nbd_context context, bool last,
                        const struct disk_extent *runs, uint32_t count) {
  if (request->flags & NBD_CMD_FLAG_REQ_ONE) count = 1;
  put_chunk(writer, request, NBD_REPLY_TYPE_BLOCK_STATUS, last, NBD_CHUNK_STATUS_BYTES + count * NBD_STATUS_RUN_BYTES);
  put_be32(writer, (uint32_t)context + 1);
  for (uint32_t i = 0; i < count; i++) {
    require(runs[i].length > 0 && runs[i].length <= request->length);
    put_be32(writer, (uint32_t)runs[i].length);
    put_be32(writer, runs[i].flags);
  }
}

/* The disk could not tell, or may still write to the buffer: all is data. That needs no buffer, for one run of each context fits
 * into the headers of the piece and of the status. */
static void reply_unknown(struct nbd_session *session, struct nbd_request *request, struct nbd_piece *piece,
                          const struct disk_extent *state) {
  struct disk_extent data = {.length = request->length, .flags = 0};
  bool allocation = session->contexts & 1u << NBD_CONTEXT_ALLOCATION;
  struct writer writer;
  header_begin(&request->status, &writer);
  if (state) put_context(&writer, request, NBD_CONTEXT_STATE, true, state, 1);
  else put_context(&writer, request, NBD_CONTEXT_ALLOCATION, true, &data, 1);
  header_end(&request->status, &writer);
  request->answered = true;
  request->holds++;
  if (state && allocation) {
    header_begin(&piece->out, &writer);
    put_context(&writer, request, NBD_CONTEXT_ALLOCATION, false, &data, 1);
    header_end(&piece->out, &writer);
    push_piece(session, piece, NULL, 0);
  } else {
    nbd_piece_free(session, piece);
  }
  nbd_out_push(session, request, &request->status);
}

/* One chunk for each context, all made behind the runs that the disk has put into the buffer. */
void nbd_reply_block_status(struct nbd_session *session, struct nbd_request *request, struct nbd_piece *piece) {
  struct disk_io *io = &piece->io;
  struct disk_extent runs[DISK_EXTENTS_MAX];
  uint32_t count = 0;
  require(io->op == DISK_EXTENTS && session->structured);
  bool with_state = session->contexts & 1u << NBD_CONTEXT_STATE;
  if (!request->error && with_state) {
    count = session->export->state(session->export, request->offset, request->length, runs, COUNT_OF(runs));
    if (count == 0) nbd_request_fail(request, NBD_ESHUTDOWN);
  }
  if (request->error) {
    nbd_piece_free(session, piece);
    return;
  }
  if (io->err) {
    reply_unknown(session, request, piece, with_state ? runs : NULL);
    return;
  }
  struct writer writer;
  uint8_t *reply = io->buffer->base + NBD_STATUS_REPLY_AT;
  writer_init(&writer, reply, io->buffer->bytes - NBD_STATUS_REPLY_AT);
  if (session->contexts & 1u << NBD_CONTEXT_ALLOCATION)
    put_context(&writer, request, NBD_CONTEXT_ALLOCATION, !with_state, disk_extents(io), io->extent_count);
  if (with_state) put_context(&writer, request, NBD_CONTEXT_STATE, true, runs, count);
  require(!writer.bad);
  request->answered = true;
  piece->out.header_bytes = 0;
  push_piece(session, piece, reply, writer_used(&writer));
}

/* ---- the driver's side ---- */

static size_t add_vectors(const struct nbd_out *out, uint64_t skip, struct nbd_vector *vectors, size_t max) {
  size_t count = 0;
  if (skip < out->header_bytes && count < max) {
    vectors[count++] = (struct nbd_vector){out->header + skip, out->header_bytes - skip};
    skip = out->header_bytes;
  }
  uint64_t from = skip - min_u64(skip, out->header_bytes);
  if (out->data && from < out->data_bytes && count < max) {
    vectors[count++] = (struct nbd_vector){out->data + from, out->data_bytes - from};
    from = out->data_bytes;
  }
  for (; from < out->data_bytes && count < max; count++) {
    uint64_t bytes = min_u64(sizeof zeroes, out->data_bytes - from);
    vectors[count] = (struct nbd_vector){zeroes, bytes};
    from += bytes;
  }
  return count;
}

size_t nbd_session_send_vectors(struct nbd_session *session, struct nbd_vector *vectors, size_t max) {
  if (session->closing || session->hung_up) return 0;
  size_t count = 0;
  uint64_t skip = session->out_sent;
  LIST_EACH(&session->out, node) {
    if (count == max) break;
    const struct nbd_out *out = LIST_ENTRY(node, struct nbd_out, link);
    count += add_vectors(out, skip, vectors + count, max - count);
    if (out->again_bytes > 0) break;
    skip = 0;
  }
  return count;
}

static void out_done(struct nbd_session *session, struct nbd_out *out) {
  switch (out->kind) {
    case NBD_OUT_HANDSHAKE: break; /* the next option may be taken up */
    case NBD_OUT_REQUEST: nbd_request_put(session, CONTAINER_OF(out, struct nbd_request, status)); break;
    case NBD_OUT_PIECE: nbd_piece_sent(session, CONTAINER_OF(out, struct nbd_piece, out)); break;
  }
}

void nbd_session_sent(struct nbd_session *session, size_t bytes) {
  if (session->closing || session->hung_up) return;
  session->out_sent += bytes;
  for (struct list *node; (node = list_first(&session->out)) != NULL;) {
    struct nbd_out *out = LIST_ENTRY(node, struct nbd_out, link);
    uint64_t total = (uint64_t)out->header_bytes + out->data_bytes;
    if (session->out_sent < total) break;
    if (out->again_bytes > 0) {
      nbd_again_begin(session);
      break;
    }
    session->out_sent -= total;
    list_remove(node);
    out_done(session, out);
  }
  require(implies(list_is_empty(&session->out), session->out_sent == 0)); /* the driver sent what it was given */
  bool was_waiting = !session->needs_input;
  nbd_go_on(session);
  unsigned wants = nbd_session_wants(session);
  if (wants & NBD_CLOSE || (was_waiting && wants & NBD_RECEIVE)) session->options.wake(session);
}
