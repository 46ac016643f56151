/* test_nbd_world.h - an NBD session with everything around it: a disk in memory, a pool, exports, a driver, and a
 * client's eyes.
 *
 * The test appends bytes to `input`; world_run() carries them to the session in bites of `bite` bytes, lets the disk
 * complete in the chosen order, and collects what the session sends. world_replies() and world_handshake() turn that
 * into text, a line per message, and the disk keeps a log of its own: so a test quotes the story that it expects.
 *
 * The disk is as unkind as disk.h allows: it completes late and in any order, scribbles over the bytes around an
 * unaligned buffer's data, keeps a reference to buffers when told so, and refuses by require() what breaks the rules.
 *
 * The memory of a world that was freed serves the next one of its size: to have the kernel map and clear megabytes for
 * each of a thousand worlds took most of a test's time, and many times that on a busy machine. */
#ifndef TARN_TEST_NBD_WORLD_H
#define TARN_TEST_NBD_WORLD_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/prng.h"
#include "nbd/proto.h"
#include "nbd/session.h"

enum world_order { ORDER_FIRST, ORDER_LAST, ORDER_RANDOM, ORDER_HOLD };

struct world {
  struct env *env;
  struct buffer_pool *pool;
  struct env own_env;
  struct prng prng;
  struct nbd_exports exports;
  struct nbd_export export, other;
  struct nbd_session *session;
  bool closed;

  /* the driver: at most one receive and one send are under way, as on an asynchronous socket */
  bool pump_due, receiving, sending, shuffles; /* shuffles: what happens next is drawn */
  void *where;
  size_t room;
  struct nbd_vector vectors[16];
  size_t vector_count;

  struct disk disk;
  struct list in_disk;
  enum world_order order;
  uint32_t ios_done, fail_at; /* fail_at: the how manieth I/O fails, from 1; 0: none */
  tarn_err fail_err;
  bool fail_for_good;
  struct buffer *kept; /* the last one that somebody still hangs on */
  bool keep_buffers, keep_reads;
  bool log_on;

  size_t input_bytes, input_at, output_bytes, output_at; /* output_at: up to there it was decoded */
  size_t bite, send_bite;
  bool bites_vary;           /* anything up to those */
  uint32_t give_back_one_in; /* turns: answers that are not taken are given back; 0: never */

  /* what the next world of this size takes over as it is */
  uint64_t size, pool_bytes;
  struct arena arena;
  struct buffer_pool own_pool;
  uint8_t *bytes;                  /* of the disk */
  uint64_t dirty_start, dirty_end; /* of them, those that may differ from what they are at first */
  uint8_t *input, *output;
  size_t input_max, output_max; /* room for them; output grows */
  void *memory;                 /* of the session */
  char log[65536];              /* of the disk: "write 0+512 fua\n" */
  char text[1 << 20];
};

/* ---- the disk ---- */

__attribute__((format(printf, 3, 4))) static inline void text_add(char *text, size_t max, const char *format, ...) {
  size_t used = strlen(text);
  va_list args;
  va_start(args, format);
  (void)vsnprintf(text + used, max - used, format, args);
  va_end(args);
}

static inline void world_disk_submit(struct disk *disk, struct disk_io *io) {
  struct world *world = CONTAINER_OF(disk, struct world, disk);
  if (world->log_on) {
    text_add(world->log, sizeof world->log, "%s", disk_op_name(io->op));
    if (io->op != DISK_FLUSH)
      text_add(world->log, sizeof world->log, " %llu+%llu", (unsigned long long)io->offset,
               (unsigned long long)io->length);
    text_add(world->log, sizeof world->log, "%s%s\n", io->flags & DISK_FUA ? " fua" : "",
             io->flags & DISK_NO_HOLE ? " no-hole" : "");
  }
  list_push(&world->in_disk, &io->link);
}
static inline void world_disk_close(struct disk *disk) { (void)disk; }

/* Around the data, inside the aligned blocks that the disk may use. */
static inline void scribble(struct world *world, struct disk_io *io) {
  uint64_t align = world->disk.caps.align_bytes;
  uint8_t *start = (uint8_t *)align_down((uintptr_t)io->data, align);
  uint8_t *end = (uint8_t *)align_up((uintptr_t)io->data + io->length, align);
  memset(start, 0xd5, (size_t)(io->data - start));
  memset(io->data + io->length, 0xd5, (size_t)(end - (io->data + io->length)));
}

/* Pages of zeroes are holes. */
static inline void world_extents(const struct world *world, struct disk_io *io) {
  static const uint8_t zeroes[4096];
  uint64_t at = io->offset, end = io->offset + io->length;
  for (uint64_t next; at < end; at = next) {
    next = min_u64(align_down(at, sizeof zeroes) + sizeof zeroes, end);
    bool zero = memcmp(world->bytes + at, zeroes, (size_t)(next - at)) == 0;
    if (!disk_extents_add(io, next - at, zero ? EXTENT_HOLE | EXTENT_ZERO : 0)) return;
  }
}

/* Of the first export only: what lies in odd 64 KiB is marked, the first page is missed. */
static inline uint32_t world_state(const struct nbd_export *export, uint64_t offset, uint64_t length,
                                   struct disk_extent *runs, uint32_t max) {
  uint32_t count = 0;
  for (uint64_t at = offset, end = offset + length, next; at < end && count < max; at = next) {
    next = min_u64(at < 4096 ? 4096 : align_down(at, 65536) + 65536, end);
    runs[count++] =
        (struct disk_extent){.length = next - at, .flags = (at < 4096 ? 2u : 0u) | (at / 65536 % 2 ? 1u : 0u)};
  }
  require(export->state != NULL);
  return count;
}

static inline void world_dirty(struct world *world, uint64_t start, uint64_t length) {
  world->dirty_start = min_u64(world->dirty_start, start);
  world->dirty_end = max_u64(world->dirty_end, start + length);
}
/* The disk holds zeroes there. */
static inline void world_zero(struct world *world, uint64_t start, uint64_t length) {
  world_dirty(world, start, length);
  memset(world->bytes + start, 0, length);
}
/* Byte i of the disk is a function of i again. */
static inline void world_fill(struct world *world) {
  static uint8_t pattern[65536];
  if (pattern[1] == 0)
    for (uint32_t i = 0; i < sizeof pattern; i++) pattern[i] = (uint8_t)(i * 7 + i / 256);
  for (uint64_t at = world->dirty_start, next; at < world->dirty_end; at = next) {
    next = min_u64(align_down(at, sizeof pattern) + sizeof pattern, world->dirty_end);
    memcpy(world->bytes + at, pattern + at % sizeof pattern, (size_t)(next - at));
  }
  world->dirty_start = world->size;
  world->dirty_end = 0;
}

static inline void world_disk_apply(struct world *world, struct disk_io *io) {
  switch (io->op) {
    case DISK_READ:
      memcpy(io->data, world->bytes + io->offset, io->length);
      scribble(world, io);
      break;
    case DISK_WRITE:
      world_dirty(world, io->offset, io->length);
      memcpy(world->bytes + io->offset, io->data, io->length);
      scribble(world, io);
      break;
    case DISK_TRIM:
    case DISK_WRITE_ZEROES: world_zero(world, io->offset, io->length); break;
    case DISK_EXTENTS: world_extents(world, io); break;
    case DISK_FLUSH:
    case DISK_OP_COUNT: break;
  }
}

/* One I/O is done; false when there is none. */
static inline bool world_disk_step(struct world *world, enum world_order order) {
  if (list_is_empty(&world->in_disk) || order == ORDER_HOLD) return false;
  struct list *node = order == ORDER_LAST ? world->in_disk.prev : world->in_disk.next;
  if (order == ORDER_RANDOM)
    for (uint64_t skip = prng_below(&world->prng, 8); skip > 0 && node->next != &world->in_disk; skip--)
      node = node->next;
  struct disk_io *io = LIST_ENTRY(node, struct disk_io, link);
  list_remove(node);
  world->ios_done++;
  bool fails =
      world->fail_at && (world->fail_for_good ? world->ios_done >= world->fail_at : world->ios_done == world->fail_at);
  if (!fails) world_disk_apply(world, io);
  if ((world->keep_buffers && io->op == DISK_WRITE) || (world->keep_reads && io->op == DISK_READ)) {
    if (world->kept) buffer_unref(world->kept);
    world->kept = io->buffer;
    buffer_ref(world->kept);
  }
  disk_complete(io, fails ? world->fail_err : TARN_OK);
  return true;
}

/* ---- exports, session ---- */

static inline struct nbd_export *world_find(struct nbd_exports *exports, const char *name) {
  struct world *world = CONTAINER_OF(exports, struct world, exports);
  if (name[0] == '\0' || strcmp(name, world->export.name) == 0) return &world->export;
  return strcmp(name, world->other.name) == 0 ? &world->other : NULL;
}
static inline struct nbd_export *world_at(struct nbd_exports *exports, uint32_t index) {
  struct world *world = CONTAINER_OF(exports, struct world, exports);
  return index == 0 ? &world->export : index == 1 ? &world->other : NULL;
}
static inline void world_wake(struct nbd_session *session) {
  ((struct world *)nbd_session_owner(session))->pump_due = true;
}
static inline void world_closed(struct nbd_session *session) {
  ((struct world *)nbd_session_owner(session))->closed = true;
}

static inline void world_session_open(struct world *world) {
  memset(world->memory, 0, nbd_session_bytes());
  struct nbd_session_options options = {.env = world->env,
                                        .pool = world->pool,
                                        .exports = &world->exports,
                                        .peer = "test",
                                        .owner = world,
                                        .wake = world_wake,
                                        .closed = world_closed};
  world->closed = world->receiving = world->sending = false;
  world->pump_due = true;
  world->input_bytes = world->input_at = world->output_bytes = world->output_at = 0;
  world->session = nbd_session_open(world->memory, &options);
}

/* The one that was freed last, if it lived in an env and a pool of its own; its pool is whole. */
static struct world *world_spare;

static inline void world_release(struct world *world) {
  if (!world) return;
  arena_destroy(&world->arena);
  free(world->bytes);
  free(world->input);
  free(world->output);
  free(world->memory);
  free(world);
}

static inline struct world *world_alloc(struct world *neighbour, uint64_t size, uint64_t pool_bytes) {
  struct world *world = calloc(1, sizeof *world);
  require(world != NULL);
  arena_init(&world->arena);
  env_init(&world->own_env);
  if (!neighbour) require(buffer_pool_init(&world->own_pool, &world->own_env, &world->arena, pool_bytes) == TARN_OK);
  world->size = size;
  world->pool_bytes = pool_bytes;
  world->bytes = malloc(size);
  world->dirty_end = size;
  world->input_max = world->output_max = 3 * size + (2 << 20);
  world->input = malloc(world->input_max);
  world->output = malloc(world->output_max);
  world->memory = aligned_alloc(16, align_up(nbd_session_bytes(), 16));
  require(world->bytes && world->input && world->output && world->memory);
  return world;
}

static inline void world_reuse(struct world *world) {
  memset(world, 0, offsetof(struct world, size));
  world->log[0] = world->text[0] = '\0';
  env_init(&world->own_env);
}

/* A disk of `size` bytes whose byte i is a function of i; `pool_bytes` 0 gives the smallest pool. With a neighbour the
 * session lives in the neighbour's env and pool. */
static inline struct world *world_new_beside(struct world *neighbour, uint64_t size, uint64_t pool_bytes) {
  struct world *world = neighbour ? NULL : world_spare;
  if (world && world->size == size && world->pool_bytes == pool_bytes) {
    world_spare = NULL;
    world_reuse(world);
  } else {
    world = world_alloc(neighbour, size, pool_bytes);
  }
  world->env = neighbour ? neighbour->env : &world->own_env;
  world->pool = neighbour ? neighbour->pool : &world->own_pool;
  prng_seed(&world->prng, 1);
  list_init(&world->in_disk);
  static const struct disk_ops ops = {.kind = "test", .submit = world_disk_submit, .close = world_disk_close};
  world->disk = (struct disk){.ops = &ops,
                              .env = world->env,
                              .caps = {.size_bytes = size,
                                       .block_bytes = 1,
                                       .align_bytes = 4096,
                                       .io_bytes_max = BUFFER_DATA_MAX - BUFFER_ALIGN, /* as a gate tells */
                                       .zero_block_bytes = 4096,
                                       .zero_bytes_max = 1 << 30,
                                       .can_zero = true,
                                       .can_trim = true,
                                       .can_extents = true,
                                       .volatile_cache = true}};
  world_fill(world);
  world->exports = (struct nbd_exports){.find = world_find, .at = world_at};
  world->export =
      (struct nbd_export){.name = "vol0", .description = "the first", .disk = &world->disk, .state = world_state};
  world->other = (struct nbd_export){.name = "vol1", .disk = &world->disk};
  world->bite = world->send_bite = SIZE_MAX;
  world->log_on = true;
  world->fail_err = TARN_IO;
  world_session_open(world);
  return world;
}

static inline struct world *world_new(uint64_t size, uint64_t pool_bytes) {
  return world_new_beside(NULL, size, pool_bytes);
}

/* ---- the driver ----
 *
 * When it has received it asks only whether to receive again, when it has sent only whether to send; for all else it
 * relies on being woken, so that a wake that is missing shows. */

static inline void world_pump(struct world *world, unsigned ways) {
  unsigned wants = nbd_session_wants(world->session);
  if (wants & NBD_CLOSE) return;
  wants &= ways;
  if (wants & NBD_RECEIVE && !world->receiving) {
    world->room = nbd_session_recv_buffer(world->session, &world->where);
    require(world->room > 0);
    world->receiving = true;
  }
  if (wants & NBD_SEND && !world->sending) {
    world->vector_count = nbd_session_send_vectors(world->session, world->vectors, COUNT_OF(world->vectors));
    require(world->vector_count > 0);
    world->sending = true;
  }
}

static inline size_t world_bite(struct world *world, size_t bite) {
  return world->bites_vary ? 1 + (size_t)prng_below(&world->prng, min_u64(bite, 70000)) : bite;
}

static inline bool world_receive(struct world *world) {
  size_t left = world->input_bytes - world->input_at;
  if (!world->receiving || left == 0) return false;
  size_t bytes = (size_t)min_u64(min_u64(world->room, left), world_bite(world, world->bite));
  memcpy(world->where, world->input + world->input_at, bytes);
  world->input_at += bytes;
  world->receiving = false;
  nbd_session_received(world->session, bytes);
  world_pump(world, NBD_RECEIVE);
  return true;
}

static inline bool world_send(struct world *world) {
  if (!world->sending) return false;
  size_t total = 0, limit = world_bite(world, world->send_bite);
  for (size_t i = 0; i < world->vector_count && total < limit; i++) {
    size_t bytes = (size_t)min_u64(world->vectors[i].bytes, limit - total);
    if (world->output_bytes + bytes > world->output_max) {
      world->output_max = 2 * (world->output_max + bytes);
      require((world->output = realloc(world->output, world->output_max)) != NULL);
    }
    memcpy(world->output + world->output_bytes, world->vectors[i].data, bytes);
    world->output_bytes += bytes;
    total += bytes;
  }
  world->sending = false;
  nbd_session_sent(world->session, total);
  world_pump(world, NBD_SEND);
  return true;
}

/* Nothing has come for a while: the driver takes its receive back and says so. */
static inline void world_stall(struct world *world) {
  world->receiving = false;
  nbd_session_received(world->session, 0);
  world_pump(world, NBD_RECEIVE);
}

/* The client does not take what it was offered, and others wait for memory: the driver takes its send back and says so. */
static inline void world_give_back(struct world *world) {
  world->sending = false;
  nbd_session_give_back(world->session);
  world_pump(world, NBD_SEND);
}

/* One turn; false when nothing is left to do. */
static inline bool world_turn(struct world *world) {
  bool did = false;
  while (event_run_one(&world->env->queue)) did = true;
  if (world->pump_due && !world->closed) {
    world->pump_due = false;
    world_pump(world, NBD_RECEIVE | NBD_SEND);
    did = true;
  }
  if (world->give_back_one_in && world->sending && !world->closed && prng_one_in(&world->prng, world->give_back_one_in))
    world_give_back(world);
  uint64_t what = world->shuffles ? prng_below(&world->prng, 4) : 3;
  if ((what == 0 || what == 3) && !world->closed && world_receive(world)) did = true;
  if ((what == 1 || what == 3) && !world->closed && world_send(world)) did = true;
  if ((what == 2 || what == 3) && world_disk_step(world, world->order)) did = true;
  if (did || what == 3) return did;
  world->shuffles = false;
  did = world_turn(world);
  world->shuffles = true;
  return did;
}
static inline void world_run(struct world *world) {
  while (world_turn(world)) continue;
}
static inline bool world_hangs_up(struct world *world) { return (nbd_session_wants(world->session) & NBD_CLOSE) != 0; }

static inline void world_session_close(struct world *world) {
  nbd_session_close(world->session);
  while (event_run_one(&world->env->queue) || world_disk_step(world, ORDER_FIRST)) continue;
  require(world->closed);
  require(world->export.session_count == 0);
}

/* Everything must be back where it came from. */
static inline void world_free(struct world *world) {
  if (!world->closed) world_session_close(world);
  if (world->kept) buffer_unref(world->kept);
  bool alone = world->pool == &world->own_pool;
  require(implies(alone, buffer_pool_is_whole(world->pool)));
  require(world->disk.in_flight == 0);
  if (alone) {
    world_release(world_spare);
    world_spare = world;
  } else {
    world_release(world);
  }
}

/* ---- what the client says ---- */

static inline void say_bytes(struct world *world, const void *data, size_t bytes) {
  require(world->input_bytes + bytes <= world->input_max);
  if (bytes > 0) memcpy(world->input + world->input_bytes, data, bytes);
  world->input_bytes += bytes;
}
static inline void say_flags(struct world *world, uint32_t flags) {
  uint8_t data[4];
  struct writer writer;
  writer_init(&writer, data, sizeof data);
  put_be32(&writer, flags);
  say_bytes(world, data, sizeof data);
}
static inline void say_option(struct world *world, uint32_t option, const void *data, size_t bytes) {
  uint8_t header[NBD_OPTION_HEADER_BYTES];
  struct writer writer;
  writer_init(&writer, header, sizeof header);
  put_be64(&writer, NBD_MAGIC_OPTION);
  put_be32(&writer, option);
  put_be32(&writer, (uint32_t)bytes);
  say_bytes(world, header, sizeof header);
  say_bytes(world, data, bytes);
}
/* INFO or GO for `name`, asking for the `count` types in `infos`. */
static inline void say_info(struct world *world, uint32_t option, const char *name, const uint16_t *infos,
                            size_t count) {
  uint8_t data[4096 + 64];
  struct writer writer;
  writer_init(&writer, data, sizeof data);
  put_be32(&writer, (uint32_t)strlen(name));
  put_bytes(&writer, name, strlen(name));
  put_be16(&writer, (uint16_t)count);
  for (size_t i = 0; i < count; i++) put_be16(&writer, infos[i]);
  require(!writer.bad);
  say_option(world, option, data, writer_used(&writer));
}
static inline void say_request(struct world *world, uint16_t flags, uint16_t command, uint64_t cookie, uint64_t offset,
                               uint32_t length) {
  uint8_t data[NBD_REQUEST_BYTES];
  struct writer writer;
  writer_init(&writer, data, sizeof data);
  put_be32(&writer, NBD_MAGIC_REQUEST);
  put_be16(&writer, flags);
  put_be16(&writer, command);
  put_be64(&writer, cookie);
  put_be64(&writer, offset);
  put_be32(&writer, length);
  say_bytes(world, data, sizeof data);
}
/* A WRITE whose payload is `byte`, over and over. */
static inline void say_write(struct world *world, uint16_t flags, uint64_t cookie, uint64_t offset, uint32_t length,
                             uint8_t byte) {
  say_request(world, flags, NBD_CMD_WRITE, cookie, offset, length);
  require(world->input_bytes + length <= world->input_max);
  memset(world->input + world->input_bytes, byte, length);
  world->input_bytes += length;
}
/* LIST or SET of metadata contexts, with up to two queries (NULL: not there). */
static inline void say_contexts(struct world *world, uint32_t option, const char *name, const char *one,
                                const char *two) {
  uint8_t data[1024];
  struct writer writer;
  const char *queries[] = {one, two};
  writer_init(&writer, data, sizeof data);
  put_be32(&writer, (uint32_t)strlen(name));
  put_bytes(&writer, name, strlen(name));
  put_be32(&writer, (one != NULL ? 1u : 0u) + (two != NULL ? 1u : 0u));
  for (size_t i = 0; i < 2 && queries[i]; i++) {
    put_be32(&writer, (uint32_t)strlen(queries[i]));
    put_bytes(&writer, queries[i], strlen(queries[i]));
  }
  require(!writer.bad);
  say_option(world, option, data, writer_used(&writer));
}
/* Through the handshake into transmission; what was sent until then counts as decoded. */
static inline void world_transmit(struct world *world, bool structured) {
  say_flags(world, NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES);
  if (structured) say_option(world, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
  say_info(world, NBD_OPT_GO, "vol0", NULL, 0);
  world_run(world);
  require(nbd_session_export(world->session) == &world->export);
  world->output_at = world->output_bytes;
}

/* ---- what the client sees ---- */

static inline const char *error_name(uint32_t error) {
  switch (error) {
    case NBD_OK: return "ok";
    case NBD_EPERM: return "EPERM";
    case NBD_EIO: return "EIO";
    case NBD_EINVAL: return "EINVAL";
    case NBD_ENOSPC: return "ENOSPC";
    case NBD_EOVERFLOW: return "EOVERFLOW";
    case NBD_ENOTSUP: return "ENOTSUP";
    case NBD_ESHUTDOWN: return "ESHUTDOWN";
    default: return "?";
  }
}

/* The replies since the last call, a line each: "simple 7 ok", "data 7 0+512 done". `length_of` says how many bytes
 * follow a simple reply without an error; NULL: none. With `image`, data must be equal to it at their offsets (simple
 * replies: `offset_of`). */
struct reply_reader {
  uint32_t (*length_of)(uint64_t cookie);
  uint64_t (*offset_of)(uint64_t cookie);
  const uint8_t *image;
};

static inline void read_data(struct world *world, struct reader *reader, const struct reply_reader *how,
                             uint64_t offset, size_t bytes) {
  if (how->image && reader_left(reader) >= bytes && memcmp(reader->at, how->image + offset, bytes) != 0)
    text_add(world->text, sizeof world->text, " WRONG");
  reader_skip(reader, bytes);
}

static inline const char *world_replies_with(struct world *world, const struct reply_reader *how) {
  struct reader reader;
  reader_init(&reader, world->output + world->output_at, world->output_bytes - world->output_at);
  world->output_at = world->output_bytes;
  char *text = world->text;
  size_t max = sizeof world->text;
  text[0] = '\0';
  while (reader_left(&reader) > 0 && !reader.bad) {
    uint32_t magic = get_be32(&reader);
    if (magic == NBD_MAGIC_SIMPLE) {
      uint32_t error = get_be32(&reader);
      uint64_t cookie = get_be64(&reader);
      text_add(text, max, "simple %llu %s", (unsigned long long)cookie, error_name(error));
      uint32_t length = how->length_of && !error ? how->length_of(cookie) : 0;
      if (length) text_add(text, max, " +%u", length);
      read_data(world, &reader, how, how->offset_of ? how->offset_of(cookie) : 0, length);
    } else if (magic == NBD_MAGIC_STRUCTURED) {
      uint16_t flags = get_be16(&reader), type = get_be16(&reader);
      uint64_t cookie = get_be64(&reader);
      uint32_t length = get_be32(&reader);
      if (type == NBD_REPLY_TYPE_NONE) {
        text_add(text, max, "none %llu", (unsigned long long)cookie);
        require(length == 0);
      } else if (type == NBD_REPLY_TYPE_OFFSET_DATA) {
        require(length > 8);
        uint64_t offset = get_be64(&reader);
        text_add(text, max, "data %llu %llu+%u", (unsigned long long)cookie, (unsigned long long)offset, length - 8);
        read_data(world, &reader, how, offset, length - 8);
      } else if (type == NBD_REPLY_TYPE_BLOCK_STATUS) {
        require(length > 4 && length % 8 == 4);
        text_add(text, max, "status %llu context %u:", (unsigned long long)cookie, get_be32(&reader));
        for (uint32_t i = 4; i < length; i += 8) {
          uint32_t run = get_be32(&reader);
          text_add(text, max, " %u=%u", run, get_be32(&reader));
        }
      } else {
        require(type == NBD_REPLY_TYPE_ERROR);
        require(length == 6);
        text_add(text, max, "error %llu %s", (unsigned long long)cookie, error_name(get_be32(&reader)));
        require(get_be16(&reader) == 0);
      }
      text_add(text, max, "%s", flags & NBD_REPLY_FLAG_DONE ? " done" : "");
    } else {
      text_add(text, max, "GARBAGE\n");
      break;
    }
    text_add(text, max, "\n");
  }
  if (reader.bad) text_add(text, max, "CUT OFF\n");
  return text;
}
static inline const char *world_replies(struct world *world) {
  return world_replies_with(world, &(struct reply_reader){0});
}

static inline void info_text(struct world *world, struct reader *data) {
  char name[4097] = "";
  uint16_t info = get_be16(data);
  size_t left = reader_left(data);
  if (info == NBD_INFO_EXPORT) {
    uint64_t size = get_be64(data);
    text_add(world->text, sizeof world->text, "export size=%llu flags=%03x", (unsigned long long)size, get_be16(data));
  } else if (info == NBD_INFO_BLOCK_SIZE) {
    uint32_t low = get_be32(data), middle = get_be32(data);
    text_add(world->text, sizeof world->text, "block-size %u %u %u", low, middle, get_be32(data));
  } else {
    get_bytes(data, name, left);
    text_add(world->text, sizeof world->text, "%s %s", info == NBD_INFO_NAME ? "name" : "description", name);
  }
}

/* The replies to options since the last call: "7 ack", "3 server vol0". The greeting, if it is there, is "greeting 3".
 * */
static inline const char *world_handshake(struct world *world) {
  struct reader reader;
  reader_init(&reader, world->output + world->output_at, world->output_bytes - world->output_at);
  char *text = world->text;
  size_t max = sizeof world->text;
  text[0] = '\0';
  if (world->output_at == 0 && reader_left(&reader) >= NBD_GREETING_BYTES) {
    require(get_be64(&reader) == NBD_MAGIC_INIT);
    require(get_be64(&reader) == NBD_MAGIC_OPTION);
    text_add(text, max, "greeting %x\n", get_be16(&reader));
  }
  world->output_at = world->output_bytes;
  while (reader_left(&reader) > 0 && !reader.bad) {
    require(get_be64(&reader) == NBD_MAGIC_REPLY);
    uint32_t option = get_be32(&reader), type = get_be32(&reader), bytes = get_be32(&reader);
    require(bytes <= reader_left(&reader));
    struct reader data;
    reader_init(&data, reader.at, bytes);
    reader_skip(&reader, bytes);
    text_add(text, max, "%u ", option);
    if (type == NBD_REP_ACK) text_add(text, max, "ack");
    else if (type == NBD_REP_INFO) info_text(world, &data);
    else if (type == NBD_REP_SERVER) {
      char name[8200] = "";
      uint32_t name_bytes = get_be32(&data);
      require(name_bytes <= reader_left(&data));
      get_bytes(&data, name, name_bytes);
      text_add(text, max, "server %s (%zu)", name, reader_left(&data));
      reader_skip(&data, reader_left(&data));
    } else if (type == NBD_REP_META_CONTEXT) {
      char name[256] = "";
      uint32_t id = get_be32(&data);
      require(reader_left(&data) < sizeof name);
      get_bytes(&data, name, reader_left(&data));
      text_add(text, max, "context %u %s", id, name);
    } else {
      require(type & NBD_REP_ERROR);
      text_add(text, max, "error %u", type & ~NBD_REP_ERROR);
      reader_skip(&data, reader_left(&data));
    }
    require(!data.bad);
    require(reader_left(&data) == 0);
    text_add(text, max, "\n");
  }
  require(!reader.bad);
  return text;
}

/* The disk's log since the last call. */
static inline const char *world_log(struct world *world) {
  static char text[sizeof world->log];
  memcpy(text, world->log, strlen(world->log) + 1);
  world->log[0] = '\0';
  return text;
}

#endif
