#include "sim/client.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
  NBD_FLAG_SEND_TRIM = 1 << 5,
  NBD_FLAG_SEND_ZEROES = 1 << 6,
  NBD_FLAG_SEND_FLUSH = 1 << 2,
  NBD_FLAG_SEND_FUA = 1 << 3
};

#define OPS_MAX (2 * CLIENT_DEPTH_MAX) /* of a session, and of one that lingers */
enum { ERROR_SHUTDOWN = 108 };         /* ESHUTDOWN, as on the wire */

#define WHOLE_BYTES 65536u /* a write up to this has not happened if its payload never came whole (nbd/session.h) */

struct client_op {
  struct list link;
  struct client *client;
  struct wire_request request;
  struct wire *wire;
  struct model_op op;
  bool busy;
  bool asks_extents; /* a read, for the model; its answer is block status */
  uint64_t begun_ns;
  uint64_t images_failed; /* when it was sent: world->counters.image_failed */
  uint8_t *data;
  struct disk_extent runs[DISK_EXTENTS_MAX];
};

static const char *const kind_names[] = {"read", "write", "zero", "trim", "flush"};

/* ---- what to ask for ---- */

void workload_draw(struct workload *workload, struct prng *prng, uint64_t size_bytes) {
  static const uint32_t weights[][5] = {
      {30, 45, 6, 5, 8}, {20, 60, 4, 4, 2}, {50, 30, 3, 3, 14}, {25, 40, 15, 15, 5}, {10, 80, 0, 0, 1}};
  *workload = (struct workload){.size_bytes = size_bytes};
  for (uint32_t i = 0; i < COUNT_OF(workload->hot); i++) {
    uint64_t bytes = min_u64(4096ull << prng_below(prng, 6), size_bytes);
    workload->hot[i].bytes = bytes;
    workload->hot[i].start = prng_below(prng, size_bytes - bytes + 1);
  }
  memcpy(workload->weight, weights[prng_below(prng, COUNT_OF(weights))], sizeof workload->weight);
  workload->hot_percent = (uint32_t)prng_between(prng, 10, 90);
  workload->fua_percent = (uint32_t)prng_below(prng, 20);
  workload->aligned_percent = (uint32_t)prng_between(prng, 20, 90);
  workload->write_bytes_max = min_u64(size_bytes, prng_one_in(prng, 3) ? 640u << 10 : 32u << 10);
  workload->rest_one_in = (uint32_t)prng_between(prng, 8, 60);
}

static uint64_t draw_length(struct client *client) {
  struct prng *prng = &client->prng;
  uint64_t most = client->workload->write_bytes_max;
  if (prng_below(prng, 100) < client->workload->aligned_percent) {
    uint64_t unit = prng_one_in(prng, 3) ? 512 : 4096;
    uint64_t units = prng_one_in(prng, 12) ? prng_between(prng, 1, max_u64(most / unit, 1)) : prng_between(prng, 1, 8);
    return units * unit;
  }
  switch (prng_below(prng, 4)) {
    case 0: return prng_between(prng, 1, 16);
    case 1: return prng_between(prng, 1, 511);
    case 2: return prng_between(prng, 1, 9000);
    default: return prng_between(prng, 1, prng_one_in(prng, 6) ? most : 30000);
  }
}

static void draw_range(struct client *client, struct model_op *op) {
  struct prng *prng = &client->prng;
  const struct workload *w = client->workload;
  uint64_t length = min_u64(draw_length(client), w->size_bytes);
  uint64_t unit = length % 4096 == 0 ? 4096 : length % 512 == 0 ? 512 : 1;
  uint64_t start = 0, room = w->size_bytes;
  if (prng_below(prng, 100) < w->hot_percent) {
    uint64_t spot = prng_below(prng, COUNT_OF(w->hot));
    start = w->hot[spot].start;
    room = w->hot[spot].bytes;
  }
  op->offset = align_down(start + prng_below(prng, room), unit);
  if (op->offset + length > w->size_bytes) op->offset = align_down(w->size_bytes - length, unit);
  op->length = length;
}

static enum model_kind draw_kind(struct client *client) {
  uint32_t sum = 0;
  for (uint32_t i = 0; i < 5; i++) sum += client->workload->weight[i];
  uint64_t pick = prng_below(&client->prng, sum);
  uint32_t kind = 0;
  while (pick >= client->workload->weight[kind]) pick -= client->workload->weight[kind++];
  uint32_t flags = client->wire->transmission_flags;
  if (kind == MODEL_TRIM && !(flags & NBD_FLAG_SEND_TRIM)) return MODEL_WRITE;
  if (kind == MODEL_ZERO && !(flags & NBD_FLAG_SEND_ZEROES)) return MODEL_WRITE;
  return (enum model_kind)kind;
}

/* ---- asking ---- */

static void fill_payload(struct wire_request *request, uint64_t from, uint64_t bytes, uint8_t *out) {
  struct client_op *op = CONTAINER_OF(request, struct client_op, request);
  model_fill(op->client->model, op->op.tag, request->offset + from, bytes, out);
}

static void count_begin(struct client *client, const struct client_op *op, uint32_t flags) {
  struct sim_counters *counters = &client->world->counters;
  bool writes = op->op.kind == MODEL_WRITE || op->op.kind == MODEL_ZERO || op->op.kind == MODEL_TRIM;
  if (op->op.kind == MODEL_FLUSH) return;
  bool meets = model_write_pending(client->model, op->op.offset, op->op.length, &op->op);
  if (meets && writes) counters->write_overlapping_write++;
  if (meets && !writes && !op->asks_extents) counters->read_overlapping_write++;
  if (meets && op->asks_extents) counters->extents_in_flight++;
  if (writes && (op->op.offset % 512 || op->op.length % 512)) counters->write_unaligned++;
  if (writes && op->op.fua) counters->write_fua++;
  if (op->op.kind == MODEL_ZERO && (flags & WIRE_NO_HOLE)) counters->write_zeroes_no_hole++;
  if (op->op.kind == MODEL_ZERO && !(flags & WIRE_NO_HOLE)) counters->write_zeroes++;
  if (op->op.kind == MODEL_TRIM) counters->trim++;
}

static void op_send(struct client *client, struct client_op *op, bool no_hole) {
  static const enum wire_type types[] = {WIRE_READ, WIRE_WRITE, WIRE_WRITE_ZEROES, WIRE_TRIM, WIRE_FLUSH};
  struct wire_request *request = &op->request;
  *request = (struct wire_request){.type = types[op->op.kind], .offset = op->op.offset, .fill = fill_payload};
  request->length = (uint32_t)op->op.length;
  request->flags = (op->op.fua ? WIRE_FUA : 0u) | (no_hole ? WIRE_NO_HOLE : 0u);
  if (op->op.kind == MODEL_READ) {
    op->data = world_alloc(client->world, op->op.length);
    request->data = op->data;
  }
  op->busy = true;
  op->begun_ns = world_now(client->world);
  op->images_failed = client->world->counters.image_failed;
  client->open++;
  count_begin(client, op, request->flags);
  world_trace(client->world, "%s > #%" PRIu64 " %s %" PRIu64 "+%" PRIu64 "%s%s", client->name, op->op.id,
              kind_names[op->op.kind], op->op.offset, op->op.length, op->op.fua ? " fua" : "",
              no_hole ? " no-hole" : "");
  op->wire = client->wire;
  wire_send(client->wire, request);
}

static const char *op_name(const struct client_op *op) {
  return op->asks_extents ? "extents" : kind_names[op->op.kind];
}

static bool asks_for_holes(struct client *client) {
  return client->wire->context != 0 && (client->seen_bytes != 0 || prng_one_in(&client->extents_prng, 10));
}

/* Where are the holes? Where something has just been seen, of all there is, of one of the hot places, or somewhere. */
static void extents_send(struct client *client, struct client_op *op) {
  struct prng *prng = &client->extents_prng;
  const struct workload *w = client->workload;
  uint64_t size = client->model->size_bytes, spot = prng_below(prng, COUNT_OF(w->hot));
  op->asks_extents = true;
  op->op = (struct model_op){.kind = MODEL_READ, .length = size};
  if (client->seen_bytes != 0) {
    op->op.offset = client->seen_start;
    op->op.length = client->seen_bytes;
    client->seen_bytes = 0;
  } else if (prng_one_in(prng, 2)) {
    op->op.offset = w->hot[spot].start;
    op->op.length = w->hot[spot].bytes;
  } else if (!prng_one_in(prng, 3)) {
    op->op.offset = prng_below(prng, size);
    op->op.length = prng_between(prng, 1, size - op->op.offset);
  }
  require(model_begin(client->model, &op->op));
  op->request = (struct wire_request){.type = WIRE_BLOCK_STATUS,
                                      .flags = prng_one_in(prng, 4) ? WIRE_REQ_ONE : 0u,
                                      .offset = op->op.offset,
                                      .length = (uint32_t)op->op.length,
                                      .runs = op->runs};
  op->busy = true;
  op->begun_ns = world_now(client->world);
  op->images_failed = client->world->counters.image_failed;
  client->open++;
  count_begin(client, op, 0);
  world_trace(client->world, "%s > #%" PRIu64 " extents %" PRIu64 "+%" PRIu64 "%s", client->name, op->op.id,
              op->op.offset, op->op.length, op->request.flags & WIRE_REQ_ONE ? " one" : "");
  op->wire = client->wire;
  wire_send(client->wire, &op->request);
}

static struct client_op *op_take(struct client *client) {
  struct list *node = list_pop(&client->free_ops);
  return node ? LIST_ENTRY(node, struct client_op, link) : NULL;
}

static void op_give_back(struct client *client, struct client_op *op) {
  world_free(op->data);
  op->data = NULL;
  op->busy = op->asks_extents = false;
  list_push(&client->free_ops, &op->link);
}

/* What it has just read it reads once more, now and then. */
static bool draw_reread(struct client *client, struct model_op *op) {
  if (client->read_bytes == 0) return false;
  *op = (struct model_op){.kind = MODEL_READ, .offset = client->read_start, .length = client->read_bytes};
  client->read_bytes = 0;
  return true;
}

/* What it has asked for in the session that has ended, and was not answered, it asks for once more, more often than not: a page of
 * it, which need not wait for all that the whole waits for. */
static bool draw_again(struct client *client, struct model_op *op) {
  if (!client->lingers || prng_one_in(&client->prng, 4)) return false;
  uint64_t turn = prng_below(&client->prng, OPS_MAX);
  for (uint64_t k = 0; k < OPS_MAX; k++) {
    const struct client_op *old = &client->ops[(turn + k) % OPS_MAX];
    if (!old->busy || old->wire == client->wire || old->op.kind != MODEL_WRITE) continue;
    *op = (struct model_op){.kind = MODEL_WRITE, .offset = old->op.offset, .length = min_u64(old->op.length, 4096)};
    if (prng_one_in(&client->prng, 2)) op->offset += old->op.length - op->length;
    return true;
  }
  return false;
}

static void op_draw(struct client *client, struct client_op *op) {
  if (!draw_again(client, &op->op) && !draw_reread(client, &op->op)) {
    op->op = (struct model_op){.kind = draw_kind(client)};
    if (op->op.kind != MODEL_FLUSH) draw_range(client, &op->op);
  }
  bool writes = op->op.kind == MODEL_WRITE || op->op.kind == MODEL_ZERO || op->op.kind == MODEL_TRIM;
  op->op.fua = writes && prng_below(&client->prng, 100) < client->workload->fua_percent;
  bool no_hole = op->op.kind == MODEL_ZERO && prng_one_in(&client->prng, 2);
  if (!model_begin(client->model, &op->op)) { /* too much is open about these bytes: read them instead */
    op->op.kind = MODEL_READ;
    op->op.fua = no_hole = false;
    require(model_begin(client->model, &op->op));
  }
  op_send(client, op, no_hole);
}

static void client_go_on(struct client *client) {
  while (client->wire->ready && !client->wire->closing && !client->resting && client->budget > 0 &&
         client->open < client->depth) {
    struct client_op *op = op_take(client);
    if (!op) return;
    client->budget--;
    if (asks_for_holes(client)) extents_send(client, op);
    else op_draw(client, op);
  }
  if (client->leaving && client->open == 0 && client->wire->ready && !client->wire->closing) wire_leave(client->wire);
}

void client_ask(struct client *client, enum model_kind kind, uint64_t offset, uint64_t length, bool fua) {
  require(client->wire->ready);
  struct client_op *op = op_take(client);
  require(op != NULL);
  op->op = (struct model_op){.kind = kind, .offset = offset, .length = length, .fua = fua, .must = true};
  bool begun = model_begin(client->model, &op->op);
  if (!begun && kind == MODEL_WRITE) { /* every tag is taken by some byte there; zeroes need none */
    op->op.kind = MODEL_ZERO;
    begun = model_begin(client->model, &op->op);
  }
  require(begun);
  op_send(client, op, false);
}

/* ---- answers ---- */

/* A write of a part of a page may have to read the rest. */
static bool is_unreadable(const struct client *client, const struct model_op *op) {
  if (op->excused) return true;
  if (!client->places || client->places->unreadable.set_count == 0 || op->kind == MODEL_FLUSH) return false;
  uint64_t first = op->offset / MODEL_BLOCK, last = (op->offset + op->length - 1) / MODEL_BLOCK;
  return bitmap_any_in(&client->places->unreadable, first, last - first + 1);
}

/* Some fault has struck since it was sent, or what that has left was not over. */
static bool met_trouble(const struct client *client, const struct client_op *op) {
  return client->rules->errors_allowed && op->begun_ns <= client->rules->troubled_ns;
}

/* A read whose first bytes are out can only be ended by hanging up when the disk fails (simple replies). */
static bool hang_up_is_fine(const struct client *client) {
  if (client->rules->stopping) return true;
  for (uint32_t i = 0; i < OPS_MAX; i++)
    if (client->ops[i].busy && (met_trouble(client, &client->ops[i]) || is_unreadable(client, &client->ops[i].op)))
      return true;
  return false;
}

/* Nothing excuses an error there any more, except to those who had asked before. */
static void page_is_healed(struct client *client, uint64_t page) {
  struct places *places = client->places;
  if (!bitmap_test(&places->unreadable, page) || bitmap_test(&places->listed, page)) return;
  bitmap_clear(&places->unreadable, page);
  bitmap_set(&places->healed, page);
  LIST_EACH(&client->model->pending, node) {
    struct model_op *op = LIST_ENTRY(node, struct model_op, link);
    uint64_t start = page * MODEL_BLOCK;
    op->excused |= op->kind != MODEL_FLUSH && op->offset < start + MODEL_BLOCK && start < op->offset + op->length;
  }
}

/* The pages that an answered write has covered. */
static void places_written(struct client *client, const struct model_op *op) {
  if (!client->places || client->places->unreadable.set_count == 0) return;
  if (op->kind != MODEL_WRITE && op->kind != MODEL_ZERO) return;
  uint64_t end = op->offset + op->length, first = (op->offset + MODEL_BLOCK - 1) / MODEL_BLOCK;
  uint64_t stop = end == client->model->size_bytes ? (end + MODEL_BLOCK - 1) / MODEL_BLOCK : end / MODEL_BLOCK;
  for (uint64_t page = first; page < stop; page++) page_is_healed(client, page);
}

static bool error_is_fine(const struct client *client, const struct client_op *op, uint32_t error) {
  if (met_trouble(client, op) || is_unreadable(client, &op->op)) return true;
  bool may_tell = client->rules->errors_allowed || client->rules->in_doubt;
  if (may_tell && client->untold && op->op.kind == MODEL_FLUSH) return true;
  return client->rules->stopping && error == ERROR_SHUTDOWN;
}

static void count_end(struct client *client, const struct client_op *op, bool ok) {
  struct sim_counters *counters = &client->world->counters;
  if (!ok) counters->client_error++;
  else if (op->asks_extents) counters->extents_checked++;
  else if (op->op.kind == MODEL_READ) counters->read_checked++;
  else if (op->op.kind == MODEL_FLUSH) counters->flush_ok++;
  for (uint32_t i = 0; i < op->request.run_count; i++)
    counters->extents_zero += op->runs[i].flags & EXTENT_ZERO ? 1u : 0u;
  if (ok && op->op.kind == MODEL_READ && !op->asks_extents && *client->recovering) counters->read_in_recovery++;
}

/* No image left meanwhile: all have failed it. */
static void count_error(struct client *client, const struct client_op *op) {
  bool writes = op->op.kind == MODEL_WRITE || op->op.kind == MODEL_ZERO || op->op.kind == MODEL_TRIM;
  if (writes && op->request.error != ERROR_SHUTDOWN && op->images_failed == client->world->counters.image_failed)
    client->world->counters.failed_together++;
}

static void client_rest(struct client *client) {
  const struct workload *w = client->workload;
  if (w->rest_one_in == 0 || client->resting || !prng_one_in(&client->prng, w->rest_one_in)) return;
  uint64_t ns = prng_one_in(&client->prng, 5) ? prng_between(&client->prng, NS_PER_S, 9 * NS_PER_S)
                                              : prng_between(&client->prng, NS_PER_MS / 10, 20 * NS_PER_MS);
  client->resting = true;
  world_at(client->world, &client->rest, world_now(client->world) + ns);
}

/* A mirror that is not ACTIVE is not worth a thousand requests. */
static void client_pause(struct client *client) {
  if (client->resting) return;
  client->resting = true;
  uint64_t ns = prng_between(&client->prng, NS_PER_MS, prng_one_in(&client->prng, 3) ? NS_PER_S : 20 * NS_PER_MS);
  world_at(client->world, &client->rest, world_now(client->world) + ns);
}

/* The first flush after a loss fails, whoever's it is; one that was answered before may still be on its way. */
static void watch_loss(struct client *client, const struct client_op *op, bool ok) {
  if (op->op.kind != MODEL_FLUSH || !client->untold) return;
  if (ok && op->op.begun > client->untold_tick)
    world_fail(client->world, "%s: a flush is good, though what was answered before may be lost", client->name);
  if (ok) return;
  client->untold = false;
  client->world->counters.loss_told++;
}

static void client_connect(struct client *client);

/* It has hung up, and comes again while its requests of before are still under way: what they write must not land on what it writes
 * now. */
static void fail_over(struct client *client) {
  if (client->leaving || client->budget == 0) return;
  for (uint32_t i = 0; i < OPS_MAX; i++)
    if (client->ops[i].busy) model_op_ended(client->model, &client->ops[i].op);
  client->world->counters.failed_over++;
  world_trace(client->world, "%s fails over", client->name);
  world_cancel(client->world, &client->rest);
  client->resting = client->untold = false;
  client->lingers = true;
  client->open = 0;
  client->wire = client->wire == &client->wires[0] ? &client->wires[1] : &client->wires[0];
  client_connect(client);
}

static void wire_answered(struct wire *wire, struct wire_request *request) {
  struct client *client = wire->options.owner;
  struct client_op *op = CONTAINER_OF(request, struct client_op, request);
  bool ok = request->error == 0;
  world_trace(client->world, "%s < #%" PRIu64 " %s %s%.0u", client->name, op->op.id, op_name(op),
              ok ? "done" : "error ", request->error);
  if (!ok && !error_is_fine(client, op, request->error))
    world_fail(client->world, "%s: %s %" PRIu64 "+%" PRIu64 " was answered with error %u, and nothing excuses it",
               client->name, op_name(op), op->op.offset, op->op.length, request->error);
  count_end(client, op, ok);
  if (!ok) count_error(client, op);
  watch_loss(client, op, ok);
  bool read = op->op.kind == MODEL_READ;
  op->op.lone = op->begun_ns <= client->rules->lone_ns;
  const char *wrong = op->asks_extents
                          ? model_end_extents(client->model, &op->op, op->runs, ok ? request->run_count : 0)
                          : model_end(client->model, &op->op, ok, ok && read ? op->data : NULL);
  if (wrong)
    world_fail(client->world, "%s: #%" PRIu64 " %s %" PRIu64 "+%" PRIu64 ": %s", client->name, op->op.id, op_name(op),
               op->op.offset, op->op.length, wrong);
  if (ok && read && !op->asks_extents && prng_one_in(&client->extents_prng, 4)) {
    client->seen_start = op->op.offset;
    client->seen_bytes = op->op.length;
  }
  if (ok && read && !op->asks_extents && prng_one_in(&client->extents_prng, 4)) {
    client->read_start = op->op.offset;
    client->read_bytes = op->op.length;
  }
  if (ok) places_written(client, &op->op);
  op_give_back(client, op);
  client->open--;
  client->answered++;
  if (client->drop_one_in && client->open > 0 && prng_one_in(&client->prng, client->drop_one_in)) {
    client->world->counters.connection_dropped++;
    world_trace(client->world, "%s hangs up with %u open", client->name, client->open);
    wire_drop(wire);
    if (!client->lingers && prng_one_in(&client->prng, 2)) fail_over(client);
    return;
  }
  if (!ok && request->error == ERROR_SHUTDOWN) client_pause(client);
  else client_rest(client);
  client_go_on(client);
}

static void wire_is_ready(struct wire *wire) {
  struct client *client = wire->options.owner;
  if (wire->size_bytes != client->model->size_bytes)
    world_fail(client->world, "%s: wrong size of export", client->name);
  if (!(wire->transmission_flags & NBD_FLAG_SEND_FLUSH) || !(wire->transmission_flags & NBD_FLAG_SEND_FUA))
    world_fail(client->world, "%s: no flush or FUA offered", client->name);
  client_go_on(client);
}

/* The session has ended all that it had begun: what was open may have happened or not, and is over. */
static void abandon_open(struct client *client, const struct wire *wire) {
  for (uint32_t i = 0; i < OPS_MAX; i++) {
    struct client_op *op = &client->ops[i];
    if (!op->busy || op->wire != wire) continue;
    bool never = op->op.kind == MODEL_WRITE && op->op.length <= WHOLE_BYTES && !wire_has_sent(&op->request);
    if (never) model_never(client->model, &op->op);
    else model_abandon(client->model, &op->op);
    op_give_back(client, op);
  }
  if (wire == client->wire) client->open = 0;
}

static void connect_soon(struct client *client) {
  client->resting = true;
  world_at(client->world, &client->rest, world_now(client->world) + prng_between(&client->prng, 1000, 3 * NS_PER_MS));
}

static void wire_is_closed(struct wire *wire, bool by_server) {
  struct client *client = wire->options.owner;
  if (wire != client->wire) {
    abandon_open(client, wire);
    client->lingers = false;
    return;
  }
  if (by_server && !hang_up_is_fine(client)) world_fail(client->world, "%s: the server hung up", client->name);
  abandon_open(client, wire);
  client->connected = client->untold = false;
  wire->ready = false;
  world_cancel(client->world, &client->rest);
  client->resting = false;
  if (client->leaving || client->budget == 0) return;
  connect_soon(client);
}

static void client_connect(struct client *client) {
  struct wire_options *options = &client->wire_options;
  options->prng = world_stream(client->world, client->name, prng_next(&client->prng));
  options->stall_prng = world_stream(client->world, "stall", prng_next(&client->stall_prng));
  options->structured = prng_one_in(&client->prng, 2);
  options->contexts = client->asks_extents;
  options->old_handshake = prng_one_in(&client->prng, 6);
  *client->wire = (struct wire){.on_ready = wire_is_ready, .on_answer = wire_answered, .on_closed = wire_is_closed};
  client->connected = true;
  wire_open(client->wire, options);
}

static void client_rested(struct sim_event *event) {
  struct client *client = CONTAINER_OF(event, struct client, rest);
  client->resting = false;
  if (!client->connected) client_connect(client);
  else client_go_on(client);
}

/* ---- life ---- */

void client_init(struct client *client, struct world *world, const struct client_options *options) {
  *client = (struct client){.world = world,
                            .model = options->model,
                            .workload = options->workload,
                            .rules = options->rules,
                            .recovering = options->recovering,
                            .places = options->places,
                            .asks_extents = options->asks_extents};
  snprintf(client->name, sizeof client->name, "%s", options->name);
  client->prng = world_stream(world, "client", options->index);
  client->extents_prng = world_stream(world, "extents", options->index);
  client->stall_prng = world_stream(world, "stalls", options->index);
  client->depth = (uint32_t)prng_between(&client->prng, 1, CLIENT_DEPTH_MAX);
  client->drop_one_in = prng_one_in(&client->prng, 3) ? 80 : 0;
  client->rest.run = client_rested;
  client->wire = &client->wires[0];
  list_init(&client->free_ops);
  client->ops = world_alloc(world, OPS_MAX * sizeof *client->ops);
  for (uint32_t i = 0; i < OPS_MAX; i++) {
    client->ops[i].client = client;
    list_init(&client->ops[i].link);
    list_push(&client->free_ops, &client->ops[i].link);
  }
}

void client_start(struct client *client, const struct wire_options *wire, uint32_t budget) {
  require(!client->connected);
  client->wire_options = *wire;
  client->wire_options.world = client->world;
  client->wire_options.peer = client->name;
  client->wire_options.owner = client;
  client->budget = budget;
  client->leaving = client->resting = false;
  client_connect(client);
}

void client_more(struct client *client, uint32_t budget) {
  if (client->leaving) return;
  client->budget += budget;
  if (client->connected) client_go_on(client);
  else if (!client->resting) connect_soon(client); /* it had hung up with nothing more to ask */
}

void client_lose(struct client *client) {
  if (!client->connected || !client->wire->ready || client->wire->closing) return;
  client->untold = true;
  client->untold_tick = client->model->tick;
}

void client_leave(struct client *client) {
  client->budget = 0;
  client->leaving = true;
  if (client->connected) client_go_on(client);
  else {
    world_cancel(client->world, &client->rest);
    client->resting = false;
  }
}

void client_forget(struct client *client) {
  world_cancel(client->world, &client->rest);
  for (uint32_t k = 0; k < COUNT_OF(client->wires); k++) {
    const struct wire *wire = &client->wires[k];
    if (wire == client->wire ? client->connected : client->lingers) wire_forget(&client->wires[k]);
  }
  client->lingers = false;
  for (uint32_t i = 0; i < OPS_MAX; i++)
    if (client->ops[i].busy) op_give_back(client, &client->ops[i]);
  client->open = client->budget = 0;
  client->connected = client->resting = client->leaving = client->untold = false;
}
