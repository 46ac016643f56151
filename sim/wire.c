/* The client's side of doc/proto.md, as much of it as the simulator speaks. */
#include "sim/wire.h"

#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"

#define MAGIC_GREETING     0x4e42444d41474943ull /* NBDMAGIC */
#define MAGIC_OPTION       0x49484156454f5054ull /* IHAVEOPT */
#define MAGIC_OPTION_REPLY 0x3e889045565a9ull
#define MAGIC_REQUEST      0x25609513u
#define MAGIC_SIMPLE       0x67446698u
#define MAGIC_STRUCTURED   0x668e33efu

enum { OPTION_EXPORT_NAME = 1, OPTION_GO = 7, OPTION_STRUCTURED = 8, OPTION_SET_CONTEXT = 10 };
enum { REPLY_ACK = 1, REPLY_INFO = 3, REPLY_CONTEXT = 4 };
enum {
  CHUNK_NONE = 0,
  CHUNK_DATA = 1,
  CHUNK_HOLE = 2,
  CHUNK_STATUS = 5,
  CHUNK_ERROR = 0x8001,
  CHUNK_ERROR_OFFSET = 0x8002
};
#define CHUNK_DONE 1u

#define STALL_ONE_IN    100u            /* of the deliveries that end inside a payload */
#define STALL_SILENT_NS (30 * NS_PER_S) /* then the server hangs up, src/shell/nbd_server.h */

static void wire_pump(struct sim_event *event);
static void wire_stall(struct sim_event *event);

static struct world *world_of(struct wire *wire) { return wire->options.world; }

/* A server that breaks the protocol is a failure of the run. */
#define WIRE_EXPECT(wire, c)                                                                \
  do {                                                                                      \
    if (!(c)) world_fail(world_of(wire), "%s: protocol broken: " #c, (wire)->options.peer); \
  } while (0)

static void wire_wake(struct wire *wire) {
  if (!wire->session || world_is_set(&wire->pump)) return;
  uint64_t delay = prng_between(&wire->options.prng, 1000, prng_one_in(&wire->options.prng, 20) ? 200000 : 8000);
  world_at(world_of(wire), &wire->pump, world_now(world_of(wire)) + delay);
}

static void session_wake(struct nbd_session *session) { wire_wake(nbd_session_owner(session)); }

static void session_closed(struct nbd_session *session) {
  struct wire *wire = nbd_session_owner(session);
  require(wire->session == session);
  wire->session = NULL;
  world_cancel(world_of(wire), &wire->pump);
  world_cancel(world_of(wire), &wire->stall);
  list_init(&wire->to_send);
  list_init(&wire->waiting);
  world_free(wire->memory);
  wire->memory = NULL;
  wire->on_closed(wire, !wire->closing && !wire->leaving);
}

void wire_open(struct wire *wire, const struct wire_options *options) {
  wire->options = *options;
  wire->pump.run = wire_pump;
  wire->stall.run = wire_stall;
  wire->state = WIRE_GREETING;
  wire->head_want = 18;
  list_init(&wire->to_send);
  list_init(&wire->waiting);
  wire->memory = world_alloc(options->world, nbd_session_bytes() + 16);
  void *aligned = (void *)(uintptr_t)align_up((uintptr_t)wire->memory, 16);
  struct nbd_session_options session = {.env = &options->world->env,
                                        .pool = options->pool,
                                        .exports = options->exports,
                                        .peer = options->peer,
                                        .owner = wire,
                                        .wake = session_wake,
                                        .closed = session_closed};
  wire->session = nbd_session_open(aligned, &session);
  require(wire->session != NULL);
  wire_wake(wire);
}

void wire_send(struct wire *wire, struct wire_request *request) {
  require(wire->ready);
  require(!wire->closing);
  struct writer writer;
  request->cookie = ++wire->cookie_next;
  request->sent = request->received = 0;
  request->error = request->run_count = 0;
  writer_init(&writer, request->head, sizeof request->head);
  put_be32(&writer, MAGIC_REQUEST);
  put_be16(&writer, (uint16_t)request->flags);
  put_be16(&writer, (uint16_t)request->type);
  put_be64(&writer, request->cookie);
  put_be64(&writer, request->offset);
  put_be32(&writer, request->length);
  require(!writer.bad);
  list_init(&request->link);
  list_push(&wire->to_send, &request->link);
  wire_wake(wire);
}

void wire_leave(struct wire *wire) {
  wire->leaving = true;
  wire_wake(wire);
}

void wire_drop(struct wire *wire) {
  if (!wire->session || wire->closing) return;
  wire->closing = true;
  wire->receive_bytes = 0;
  world_cancel(world_of(wire), &wire->stall);
  if (wire->send_bytes > 0) { /* a send that is under way ends before the session is closed */
    wire->send_bytes = 0;
    nbd_session_sent(wire->session, 1);
  }
  if (wire->session) nbd_session_close(wire->session);
}

void wire_forget(struct wire *wire) {
  world_cancel(world_of(wire), &wire->pump);
  world_cancel(world_of(wire), &wire->stall);
  world_free(wire->memory);
  wire->memory = NULL;
  wire->session = NULL;
}

/* ---- bytes out ---- */

static void put_option(struct wire *wire, uint32_t option, const uint8_t *data, uint32_t bytes) {
  struct writer writer;
  writer_init(&writer, wire->control + wire->control_bytes, sizeof wire->control - wire->control_bytes);
  put_be64(&writer, MAGIC_OPTION);
  put_be32(&writer, option);
  put_be32(&writer, bytes);
  put_bytes(&writer, data, bytes);
  require(!writer.bad);
  wire->control_bytes += writer_used(&writer);
  wire->option = option;
}

static void put_go(struct wire *wire) {
  const char *name = wire->options.export_name;
  uint32_t bytes = (uint32_t)strlen(name);
  uint8_t data[128];
  if (wire->options.old_handshake) {
    put_option(wire, OPTION_EXPORT_NAME, (const uint8_t *)name, bytes);
    wire->state = WIRE_EXPORT_REPLY;
    wire->head_want = 10; /* we asked for no zeroes */
    return;
  }
  struct writer writer;
  writer_init(&writer, data, sizeof data);
  put_be32(&writer, bytes);
  put_bytes(&writer, name, bytes);
  put_be16(&writer, 0);
  require(!writer.bad);
  put_option(wire, OPTION_GO, data, (uint32_t)writer_used(&writer));
  wire->state = WIRE_OPTION_REPLY;
  wire->head_want = 20;
}

static void put_set_context(struct wire *wire) {
  static const char query[] = "base:allocation";
  const char *name = wire->options.export_name;
  uint8_t data[160];
  struct writer writer;
  writer_init(&writer, data, sizeof data);
  put_be32(&writer, (uint32_t)strlen(name));
  put_bytes(&writer, name, strlen(name));
  put_be32(&writer, 1);
  put_be32(&writer, sizeof query - 1);
  put_bytes(&writer, query, sizeof query - 1);
  require(!writer.bad);
  put_option(wire, OPTION_SET_CONTEXT, data, (uint32_t)writer_used(&writer));
}

static uint64_t request_bytes(const struct wire_request *request) {
  return WIRE_HEAD_BYTES + (request->type == WIRE_WRITE ? request->length : 0);
}

bool wire_has_sent(const struct wire_request *request) { return request->sent == request_bytes(request); }

static uint64_t bytes_to_send(struct wire *wire) {
  uint64_t bytes = wire->control_bytes - wire->control_sent;
  LIST_EACH(&wire->to_send, node) {
    const struct wire_request *request = LIST_ENTRY(node, struct wire_request, link);
    bytes += request_bytes(request) - request->sent;
    if (bytes > (1u << 20)) break;
  }
  return bytes;
}

static size_t emit_request(struct wire_request *request, uint8_t *out, size_t room) {
  size_t done = 0;
  if (request->sent < WIRE_HEAD_BYTES) {
    done = min_u64(WIRE_HEAD_BYTES - request->sent, room);
    memcpy(out, request->head + request->sent, done);
    request->sent += done;
  }
  size_t payload = min_u64(request_bytes(request) - request->sent, room - done);
  if (payload > 0) {
    request->fill(request, request->sent - WIRE_HEAD_BYTES, payload, out + done);
    request->sent += payload;
  }
  return done + payload;
}

/* Fills exactly `bytes`, which are there to be sent. */
static void emit(struct wire *wire, uint8_t *out, size_t bytes) {
  size_t control = min_u64(wire->control_bytes - wire->control_sent, bytes);
  memcpy(out, wire->control + wire->control_sent, control);
  wire->control_sent += control;
  if (wire->control_sent == wire->control_bytes) wire->control_sent = wire->control_bytes = 0;
  for (size_t at = control; at < bytes;) {
    struct list *node = list_first(&wire->to_send);
    require(node != NULL);
    struct wire_request *request = LIST_ENTRY(node, struct wire_request, link);
    at += emit_request(request, out + at, bytes - at);
    if (request->sent < request_bytes(request)) continue;
    list_remove(node);
    list_push(&wire->waiting, node);
  }
}

/* ---- bytes in ---- */

static void expect_head(struct wire *wire, enum wire_state state, size_t bytes) {
  WIRE_EXPECT(wire, bytes <= sizeof wire->head);
  wire->state = state;
  wire->head_bytes = 0;
  wire->head_want = bytes;
}

static void wire_set_ready(struct wire *wire) {
  wire->ready = true;
  expect_head(wire, WIRE_REPLY_MAGIC, 4);
  wire->on_ready(wire);
}

static void option_replied(struct wire *wire) {
  if (wire->option == OPTION_STRUCTURED) {
    wire->structured = wire->option_reply == REPLY_ACK;
    expect_head(wire, WIRE_OPTION_REPLY, 20);
    if (wire->options.contexts) put_set_context(wire);
    else put_go(wire);
    return;
  }
  if (wire->option == OPTION_SET_CONTEXT) {
    WIRE_EXPECT(wire, wire->option_reply == REPLY_ACK || wire->option_reply == REPLY_CONTEXT);
    expect_head(wire, WIRE_OPTION_REPLY, 20);
    if (wire->option_reply == REPLY_ACK) put_go(wire);
    return;
  }
  WIRE_EXPECT(wire, wire->option_reply == REPLY_ACK || wire->option_reply == REPLY_INFO);
  if (wire->option_reply == REPLY_ACK) wire_set_ready(wire);
  else expect_head(wire, WIRE_OPTION_REPLY, 20);
}

static void option_data(struct wire *wire) {
  struct reader reader;
  reader_init(&reader, wire->head, wire->head_bytes);
  if (wire->option_reply == REPLY_INFO && get_be16(&reader) == 0) {
    wire->size_bytes = get_be64(&reader);
    wire->transmission_flags = get_be16(&reader);
    WIRE_EXPECT(wire, !reader.bad);
  }
  if (wire->option_reply == REPLY_CONTEXT) {
    wire->context = get_be32(&reader);
    WIRE_EXPECT(wire, wire->context != 0 && !reader.bad);
  }
  option_replied(wire);
}

static struct wire_request *find_waiting(struct wire *wire, uint64_t cookie) {
  LIST_EACH(&wire->waiting, node) {
    struct wire_request *request = LIST_ENTRY(node, struct wire_request, link);
    if (request->cookie == cookie) return request;
  }
  return NULL;
}

static void request_answered(struct wire *wire, struct wire_request *request) {
  WIRE_EXPECT(wire, implies(request->type == WIRE_READ && !request->error, request->received == request->length));
  WIRE_EXPECT(wire, implies(request->type == WIRE_BLOCK_STATUS && !request->error, request->run_count > 0));
  list_remove(&request->link);
  wire->current = NULL;
  expect_head(wire, WIRE_REPLY_MAGIC, 4);
  wire->on_answer(wire, request);
}

static void expect_payload(struct wire *wire, uint64_t at, uint64_t bytes) {
  WIRE_EXPECT(wire, at <= wire->current->length);
  WIRE_EXPECT(wire, bytes > 0 && bytes <= wire->current->length - at);
  wire->state = WIRE_PAYLOAD;
  wire->payload_at = at;
  wire->payload_left = bytes;
}

static void simple_reply(struct wire *wire) {
  struct reader reader;
  reader_init(&reader, wire->head, wire->head_bytes);
  reader_skip(&reader, 4);
  uint32_t error = get_be32(&reader);
  struct wire_request *request = find_waiting(wire, get_be64(&reader));
  WIRE_EXPECT(wire, request != NULL);
  WIRE_EXPECT(wire, implies(wire->structured, request->type != WIRE_READ && request->type != WIRE_BLOCK_STATUS));
  wire->current = request;
  request->error = error;
  wire->chunk_flags = CHUNK_DONE;
  if (request->type == WIRE_READ && error == 0) expect_payload(wire, 0, request->length);
  else request_answered(wire, request);
}

static void chunk_done(struct wire *wire) {
  struct wire_request *request = wire->current;
  if (wire->chunk_flags & CHUNK_DONE) request_answered(wire, request);
  else expect_head(wire, WIRE_REPLY_MAGIC, 4);
}

static void structured_reply(struct wire *wire) {
  struct reader reader;
  reader_init(&reader, wire->head, wire->head_bytes);
  reader_skip(&reader, 4);
  wire->chunk_flags = get_be16(&reader);
  wire->chunk_type = get_be16(&reader);
  wire->current = find_waiting(wire, get_be64(&reader));
  uint32_t bytes = get_be32(&reader);
  WIRE_EXPECT(wire, wire->structured);
  WIRE_EXPECT(wire, wire->current != NULL);
  wire->payload_left = 0;
  if (wire->chunk_type == CHUNK_NONE) {
    WIRE_EXPECT(wire, bytes == 0 && (wire->chunk_flags & CHUNK_DONE));
    chunk_done(wire);
  } else if (wire->chunk_type == CHUNK_DATA) {
    WIRE_EXPECT(wire, bytes > 8 && wire->current->type == WIRE_READ);
    wire->payload_left = bytes - 8;
    expect_head(wire, WIRE_CHUNK_HEAD, 8);
  } else expect_head(wire, WIRE_CHUNK_HEAD, bytes);
}

/* Runs that describe a prefix of what was asked about. */
static void status_chunk(struct wire *wire, struct reader *reader) {
  struct wire_request *request = wire->current;
  uint64_t bytes = 0;
  WIRE_EXPECT(wire, request->type == WIRE_BLOCK_STATUS && request->run_count == 0);
  WIRE_EXPECT(wire, get_be32(reader) == wire->context);
  while (reader_left(reader) > 0 && !reader->bad) {
    struct disk_extent run = {.length = get_be32(reader)};
    run.flags = get_be32(reader);
    bytes += run.length;
    WIRE_EXPECT(wire, run.length > 0 && bytes <= request->length);
    WIRE_EXPECT(wire, request->run_count < DISK_EXTENTS_MAX);
    request->runs[request->run_count++] = run;
  }
  WIRE_EXPECT(wire, implies(request->flags & WIRE_REQ_ONE, request->run_count == 1));
}

static void chunk_head(struct wire *wire) {
  struct wire_request *request = wire->current;
  struct reader reader;
  reader_init(&reader, wire->head, wire->head_bytes);
  if (wire->chunk_type == CHUNK_DATA) {
    uint64_t offset = get_be64(&reader);
    WIRE_EXPECT(wire, offset >= request->offset);
    expect_payload(wire, offset - request->offset, wire->payload_left);
    return;
  }
  if (wire->chunk_type == CHUNK_HOLE) {
    uint64_t offset = get_be64(&reader);
    uint32_t bytes = get_be32(&reader);
    WIRE_EXPECT(wire, request->type == WIRE_READ && offset >= request->offset);
    WIRE_EXPECT(wire, offset - request->offset + bytes <= request->length);
    memset(request->data + (offset - request->offset), 0, bytes);
    request->received += bytes;
  } else if (wire->chunk_type == CHUNK_STATUS) {
    status_chunk(wire, &reader);
  } else {
    WIRE_EXPECT(wire, wire->chunk_type == CHUNK_ERROR || wire->chunk_type == CHUNK_ERROR_OFFSET);
    request->error = get_be32(&reader);
    WIRE_EXPECT(wire, request->error != 0);
  }
  WIRE_EXPECT(wire, !reader.bad);
  chunk_done(wire);
}

static void greeting(struct wire *wire) {
  struct reader reader;
  reader_init(&reader, wire->head, wire->head_bytes);
  WIRE_EXPECT(wire, get_be64(&reader) == MAGIC_GREETING);
  WIRE_EXPECT(wire, get_be64(&reader) == MAGIC_OPTION);
  WIRE_EXPECT(wire, (get_be16(&reader) & 3) == 3); /* fixed newstyle, no zeroes */
  struct writer writer;
  writer_init(&writer, wire->control, sizeof wire->control);
  put_be32(&writer, 3);
  wire->control_bytes = 4;
  expect_head(wire, WIRE_OPTION_REPLY, 20);
  if (wire->options.structured) put_option(wire, OPTION_STRUCTURED, NULL, 0);
  else put_go(wire);
}

static void option_reply(struct wire *wire) {
  struct reader reader;
  reader_init(&reader, wire->head, wire->head_bytes);
  WIRE_EXPECT(wire, get_be64(&reader) == MAGIC_OPTION_REPLY);
  WIRE_EXPECT(wire, get_be32(&reader) == wire->option);
  wire->option_reply = get_be32(&reader);
  uint32_t bytes = get_be32(&reader);
  if (bytes == 0) option_replied(wire);
  else expect_head(wire, WIRE_OPTION_DATA, bytes);
}

static void head_done(struct wire *wire) {
  struct reader reader;
  reader_init(&reader, wire->head, wire->head_bytes);
  switch (wire->state) {
    case WIRE_GREETING: greeting(wire); break;
    case WIRE_OPTION_REPLY: option_reply(wire); break;
    case WIRE_OPTION_DATA: option_data(wire); break;
    case WIRE_EXPORT_REPLY:
      wire->size_bytes = get_be64(&reader);
      wire->transmission_flags = get_be16(&reader);
      wire_set_ready(wire);
      break;
    case WIRE_REPLY_MAGIC: {
      uint32_t magic = get_be32(&reader);
      WIRE_EXPECT(wire, magic == MAGIC_SIMPLE || magic == MAGIC_STRUCTURED);
      wire->state = WIRE_REPLY_REST;
      wire->head_want = magic == MAGIC_SIMPLE ? 16 : 20;
      break;
    }
    case WIRE_REPLY_REST:
      if (wire->head_want == 16) simple_reply(wire);
      else structured_reply(wire);
      break;
    case WIRE_CHUNK_HEAD: chunk_head(wire); break;
    case WIRE_PAYLOAD: require(!"reached"); break;
  }
}

static void wire_input(struct wire *wire, const uint8_t *data, size_t bytes) {
  while (bytes > 0 && !wire->closing) {
    size_t take;
    if (wire->state == WIRE_PAYLOAD) {
      take = min_u64(bytes, wire->payload_left);
      memcpy(wire->current->data + wire->payload_at, data, take);
      wire->payload_at += take;
      wire->payload_left -= take;
      wire->current->received += take;
      if (wire->payload_left == 0) chunk_done(wire);
    } else {
      take = min_u64(bytes, wire->head_want - wire->head_bytes);
      memcpy(wire->head + wire->head_bytes, data, take);
      wire->head_bytes += take;
      if (wire->head_bytes == wire->head_want) head_done(wire);
    }
    data += take;
    bytes -= take;
  }
}

/* ---- the pump: what was begun at the last beat is ended, and the next is begun ---- */

static size_t cut(struct wire *wire, uint64_t bytes) {
  struct prng *prng = &wire->options.prng;
  if (wire->options.whole || !prng_one_in(prng, 3)) return bytes;
  uint64_t most = prng_one_in(prng, 2) ? 40 : 20000;
  uint64_t some = prng_between(prng, 1, min_u64(bytes, most));
  if (some < bytes) world_of(wire)->counters.bytes_fragmented++;
  return some;
}

static void end_receive(struct wire *wire) {
  if (wire->receive_bytes == 0) return;
  size_t bytes = wire->receive_bytes;
  emit(wire, wire->receive_at, bytes);
  wire->receive_bytes = 0;
  nbd_session_received(wire->session, bytes);
}

static void end_send(struct wire *wire) {
  if (wire->send_bytes == 0) return;
  size_t left = wire->send_bytes;
  for (size_t i = 0; i < wire->vector_count && left > 0 && !wire->closing; i++) {
    size_t bytes = min_u64(left, wire->vectors[i].bytes);
    wire_input(wire, wire->vectors[i].data, bytes);
    left -= bytes;
  }
  if (wire->closing) return; /* hung up in the middle: wire_drop() has ended the send */
  size_t sent = wire->send_bytes;
  wire->send_bytes = 0;
  nbd_session_sent(wire->session, sent);
}

/* ---- stalls ---- */

static bool is_in_payload(const struct wire *wire) {
  struct list *node = list_first(&wire->to_send);
  const struct wire_request *request = node ? LIST_ENTRY(node, struct wire_request, link) : NULL;
  return request && request->sent > WIRE_HEAD_BYTES && !wire_has_sent(request);
}

static void stall_until(struct wire *wire, uint64_t low_ns, uint64_t high_ns) {
  uint64_t delay = prng_between(&wire->options.stall_prng, low_ns, high_ns);
  world_at(world_of(wire), &wire->stall, world_now(world_of(wire)) + delay);
}

/* Nothing comes any more: first the driver takes its receive back, then the client goes on, hangs up, or is hung up on.
 * */
static bool stall_begins(struct wire *wire) {
  if (wire->stalled) return true;
  if (!wire->options.stalls || !is_in_payload(wire) || !prng_one_in(&wire->options.stall_prng, STALL_ONE_IN))
    return false;
  wire->stalled = STALL_SILENT;
  world_of(wire)->counters.client_stalled++;
  world_trace(world_of(wire), "%s stalls in the middle of a payload", wire->options.peer);
  stall_until(wire, NS_PER_S / 20, NS_PER_S);
  return true;
}

static void stall_taken_back(struct wire *wire) {
  void *where;
  wire->stalled = STALL_TAKEN_BACK;
  if (nbd_session_recv_buffer(wire->session, &where) > 0) nbd_session_received(wire->session, 0);
  bool for_long = prng_one_in(&wire->options.stall_prng, 8);
  if (for_long) stall_until(wire, NS_PER_S, STALL_SILENT_NS);
  else stall_until(wire, NS_PER_MS, NS_PER_S);
}

static void wire_stall(struct sim_event *event) {
  struct wire *wire = CONTAINER_OF(event, struct wire, stall);
  if (!wire->session || wire->closing) return;
  if (wire->stalled == STALL_SILENT) {
    stall_taken_back(wire);
    return;
  }
  wire->stalled = STALL_NONE;
  if (prng_one_in(&wire->options.stall_prng, 2)) {
    world_of(wire)->counters.client_died_in_payload++;
    world_trace(world_of(wire), "%s hangs up in the middle of a payload", wire->options.peer);
    wire_drop(wire);
  } else {
    wire_wake(wire);
  }
}

static void begin_receive(struct wire *wire) {
  uint64_t have = bytes_to_send(wire);
  if (have == 0 || stall_begins(wire)) return;
  size_t room = nbd_session_recv_buffer(wire->session, &wire->receive_at);
  if (room > 0) wire->receive_bytes = cut(wire, min_u64(room, have));
}

static void begin_send(struct wire *wire) {
  wire->vector_count = nbd_session_send_vectors(wire->session, wire->vectors, COUNT_OF(wire->vectors));
  uint64_t bytes = 0;
  for (size_t i = 0; i < wire->vector_count; i++) bytes += wire->vectors[i].bytes;
  if (bytes > 0) wire->send_bytes = cut(wire, bytes);
}

static void say_disc(struct wire *wire) {
  if (!wire->leaving || !wire->ready) return;
  if (!list_is_empty(&wire->to_send) || !list_is_empty(&wire->waiting)) return;
  if (wire->control_bytes > 0 || wire->cookie_next == UINT64_MAX) return;
  struct writer writer;
  writer_init(&writer, wire->control, sizeof wire->control);
  put_be32(&writer, MAGIC_REQUEST);
  put_be16(&writer, 0);
  put_be16(&writer, WIRE_DISC);
  put_zeroes(&writer, 20);
  wire->control_bytes = writer_used(&writer);
  wire->cookie_next = UINT64_MAX;
}

static void wire_pump(struct sim_event *event) {
  struct wire *wire = CONTAINER_OF(event, struct wire, pump);
  require(wire->session != NULL);
  end_receive(wire);
  if (wire->session) end_send(wire);
  if (!wire->session || wire->closing) return;
  say_disc(wire);
  begin_receive(wire);
  begin_send(wire);
  unsigned wants = nbd_session_wants(wire->session);
  if ((wants & NBD_CLOSE) && wire->send_bytes == 0) {
    nbd_session_close(wire->session);
    return;
  }
  if (wire->receive_bytes > 0 || wire->send_bytes > 0) wire_wake(wire);
}
