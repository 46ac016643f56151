/* An NBD export as a disk, against a small server in a thread that does as the test says: every byte, every ability, and every way
 * to lose the connection. */
#include "shell/nbd_disk.h"

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/prng.h"
#include "unit.h"

#define SIZE    (1u << 20)
#define IOS_MAX 512u

enum { CMD_READ, CMD_WRITE, CMD_DISC, CMD_FLUSH, CMD_TRIM, CMD_CACHE, CMD_ZEROES, CMD_COUNT };
enum { HAS_FLAGS = 1, READ_ONLY = 2, SEND_FLUSH = 4, SEND_FUA = 8, SEND_TRIM = 32, SEND_ZEROES = 64 };

/* ---- the server ---- */

struct server {
  char folder[64], path[96], uri[160];
  int listener;
  pthread_t thread;
  uint16_t flags;
  uint64_t size;
  uint8_t bytes[SIZE];
  atomic_bool mute;          /* takes requests, and answers none */
  atomic_int error;          /* answers all with it */
  atomic_uint hang_up_after; /* requests; 0: never */
  atomic_uint seen[CMD_COUNT], fua_seen, connections;
};

static bool get(int fd, void *out, size_t bytes) {
  for (uint8_t *at = out; bytes > 0;) {
    ssize_t got = recv(fd, at, bytes, 0);
    if (got <= 0) return false;
    at += got, bytes -= (size_t)got;
  }
  return true;
}
static bool put(int fd, const void *data, size_t bytes) {
  return send(fd, data, bytes, MSG_NOSIGNAL) == (ssize_t)bytes;
}

struct __attribute__((packed)) option_reply {
  uint64_t magic;
  uint32_t option, reply, length;
};
static bool put_reply(int fd, uint32_t option, uint32_t reply, const void *data, uint32_t length) {
  struct option_reply head = {htobe64(0x3e889045565a9), htonl(option), htonl(reply), htonl(length)};
  return put(fd, &head, sizeof head) && (length == 0 || put(fd, data, length));
}

static bool negotiate(struct server *server, int fd) {
  struct __attribute__((packed)) {
    uint64_t magic, version;
    uint16_t flags;
  } hello = {htobe64(0x4e42444d41474943), htobe64(0x49484156454f5054), htons(3)};
  uint32_t client_flags;
  if (!put(fd, &hello, sizeof hello) || !get(fd, &client_flags, 4)) return false;
  while (true) {
    struct __attribute__((packed)) {
      uint64_t magic;
      uint32_t option, length;
    } head;
    uint8_t data[4096];
    if (!get(fd, &head, sizeof head) || ntohl(head.length) > sizeof data || !get(fd, data, ntohl(head.length)))
      return false;
    uint32_t option = ntohl(head.option);
    if (option != 7) { /* NBD_OPT_GO */
      if (!put_reply(fd, option, 0x80000001u, NULL, 0)) return false;
      continue;
    }
    struct __attribute__((packed)) {
      uint16_t type;
      uint64_t size;
      uint16_t flags;
    } info = {htons(0), htobe64(server->size), htons(server->flags)};
    return put_reply(fd, option, 3, &info, sizeof info) && put_reply(fd, option, 1, NULL, 0);
  }
}

static bool serve_one(struct server *server, int fd) {
  static uint8_t data[SIZE];
  struct __attribute__((packed)) {
    uint32_t magic;
    uint16_t flags, type;
    uint64_t cookie, offset;
    uint32_t length;
  } request;
  if (!get(fd, &request, sizeof request)) return false;
  uint16_t type = ntohs(request.type);
  uint64_t offset = be64toh(request.offset);
  uint32_t length = ntohl(request.length);
  if (type == CMD_WRITE && !get(fd, data, length)) return false;
  server->seen[type]++;
  if (ntohs(request.flags) & 1) server->fua_seen++;
  if (type == CMD_DISC) return false;
  if (server->hang_up_after > 0 && --server->hang_up_after == 0) return false;
  if (server->mute) return true;
  struct __attribute__((packed)) {
    uint32_t magic, error;
    uint64_t cookie;
  } reply = {htonl(0x67446698), htonl((uint32_t)server->error), request.cookie};
  if (server->error == 0 && type == CMD_WRITE) memcpy(server->bytes + offset, data, length);
  if (server->error == 0 && (type == CMD_ZEROES || type == CMD_TRIM)) memset(server->bytes + offset, 0, length);
  if (!put(fd, &reply, sizeof reply)) return false;
  return type != CMD_READ || server->error != 0 || put(fd, server->bytes + offset, length);
}

static void *serve(void *context) {
  struct server *server = context;
  int fd;
  while ((fd = accept(server->listener, NULL, NULL)) >= 0) {
    server->connections++;
    if (negotiate(server, fd))
      while (serve_one(server, fd)) continue;
    close(fd);
  }
  return NULL;
}

static struct server *server_start(uint16_t flags, uint64_t size) {
  struct server *server = calloc(1, sizeof *server);
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strcpy(server->folder, "/tmp/tarn-test-XXXXXX");
  assert_non_null(mkdtemp(server->folder));
  snprintf(server->path, sizeof server->path, "%s/s", server->folder);
  snprintf(server->uri, sizeof server->uri, "nbd+unix:///x?socket=%s", server->path);
  strcpy(address.sun_path, server->path);
  server->flags = HAS_FLAGS | flags;
  server->size = size;
  server->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_int_equal(bind(server->listener, (struct sockaddr *)&address, sizeof address), 0);
  assert_int_equal(listen(server->listener, 8), 0);
  assert_int_equal(pthread_create(&server->thread, NULL, serve, server), 0);
  return server;
}

static void server_stop(struct server *server) {
  shutdown(server->listener, SHUT_RDWR);
  pthread_join(server->thread, NULL);
  close(server->listener);
  unlink(server->path);
  rmdir(server->folder);
  free(server);
}

/* ---- a submitter ---- */

struct one {
  struct disk_io io;
  bool done;
};
static void one_done(struct disk_io *io) { CONTAINER_OF(io, struct one, io)->done = true; }

struct fixture {
  struct reactor *reactor;
  struct arena arena;
  struct buffer_pool pool;
  struct buffer *buffer;
  struct disk *disk;
  struct one ones[IOS_MAX];
  uint32_t count;
};

static tarn_err disk_open(struct fixture *fixture, const struct server *server, uint64_t size, struct why *why) {
  struct nbd_disk_options options = {.reactor = fixture->reactor, .uri = server->uri, .size_bytes = size};
  return nbd_disk_open(&options, &fixture->disk, why);
}

static struct fixture *fixture_new(const struct server *server) {
  struct fixture *fixture = calloc(1, sizeof *fixture);
  struct why why;
  fixture->reactor = reactor_create(&why);
  assert_non_null(fixture->reactor);
  arena_init(&fixture->arena);
  assert_int_equal(buffer_pool_init(&fixture->pool, reactor_env(fixture->reactor), &fixture->arena, 8 << 20), TARN_OK);
  fixture->buffer = buffer_get(&fixture->pool, BUFFER_DATA_MAX);
  if (server) assert_int_equal(disk_open(fixture, server, 0, &why), TARN_OK);
  return fixture;
}

static void fixture_free(struct fixture *fixture) {
  if (fixture->disk) disk_close(fixture->disk);
  buffer_unref(fixture->buffer);
  assert_true(buffer_pool_is_whole(&fixture->pool));
  arena_destroy(&fixture->arena);
  reactor_destroy(fixture->reactor);
  free(fixture);
}

static struct one *submit(struct fixture *fixture, enum disk_op op, uint64_t offset, uint64_t length, uint32_t flags) {
  require(fixture->count < IOS_MAX);
  struct one *one = &fixture->ones[fixture->count++];
  *one = (struct one){.done = false};
  disk_io_init(&one->io);
  one->io.op = op;
  one->io.flags = flags;
  one->io.offset = offset;
  one->io.length = length;
  one->io.done = one_done;
  if (op == DISK_READ || op == DISK_WRITE) {
    one->io.buffer = fixture->buffer;
    one->io.data = fixture->buffer->base + offset % BUFFER_ALIGN;
  }
  disk_submit(fixture->disk, &one->io);
  assert_false(one->done); /* never inside */
  return one;
}

/* Until all that was submitted is answered; with what `err`. */
static void wait_all(struct fixture *fixture, tarn_err err) {
  for (uint32_t i = 0; i < fixture->count; i++) {
    for (uint32_t turn = 0; !fixture->ones[i].done && turn < 1000000; turn++) reactor_turn(fixture->reactor, 20000);
    assert_true(fixture->ones[i].done);
    assert_int_equal(fixture->ones[i].io.err, err);
  }
  fixture->count = 0;
}

static void wait_seen(const struct server *server, uint32_t type, uint32_t count, struct fixture *fixture) {
  for (uint32_t turn = 0; server->seen[type] < count && turn < 1000000; turn++) reactor_turn(fixture->reactor, 20000);
  assert_true(server->seen[type] >= count);
}

/* ---- bytes ---- */

static void random_load(void **state) {
  (void)state;
  static uint8_t model[SIZE];
  static const uint16_t abilities[] = {SEND_FLUSH, SEND_FLUSH | SEND_FUA,
                                       SEND_FLUSH | SEND_FUA | SEND_ZEROES | SEND_TRIM};
  for (size_t row = 0; row < COUNT_OF(abilities); row++) {
    struct server *server = server_start(abilities[row], SIZE);
    struct fixture *fixture = fixture_new(server);
    struct prng prng;
    uint32_t fua = 0;
    prng_seed(&prng, row);
    memset(model, 0, sizeof model);
    assert_int_equal(fixture->disk->caps.size_bytes, SIZE);
    assert_int_equal(fixture->disk->caps.can_zero, (abilities[row] & SEND_ZEROES) != 0);
    assert_true(fixture->disk->caps.volatile_cache);
    for (uint32_t round = 0; round < 2000; round++) {
      static const enum disk_op ops[] = {DISK_READ, DISK_WRITE, DISK_FLUSH, DISK_WRITE_ZEROES, DISK_TRIM};
      enum disk_op op = ops[prng_below(&prng, fixture->disk->caps.can_zero ? 5 : 3)];
      uint64_t block = fixture->disk->caps.block_bytes, blocks = 1 + prng_below(&prng, 128);
      uint64_t offset = prng_below(&prng, SIZE / block - blocks) * block, length = blocks * block;
      uint32_t flags = op != DISK_READ && op != DISK_FLUSH && prng_one_in(&prng, 4) ? DISK_FUA : 0;
      fua += flags != 0;
      uint8_t *data = fixture->buffer->base + offset % BUFFER_ALIGN;
      for (uint64_t i = 0; i < length && op == DISK_WRITE; i += 8) {
        uint64_t word = prng_next(&prng);
        memcpy(data + i, &word, 8);
        memcpy(model + offset + i, &word, 8);
      }
      if (op == DISK_TRIM || op == DISK_WRITE_ZEROES) memset(model + offset, 0, length);
      uint32_t flushes = server->seen[CMD_FLUSH];
      submit(fixture, op, offset, length, flags);
      wait_all(fixture, TARN_OK);
      if (op == DISK_READ) assert_memory_equal(data, model + offset, length);
      if (op == DISK_FLUSH || (flags && !(abilities[row] & SEND_FUA)))
        assert_int_equal(server->seen[CMD_FLUSH], flushes + 1); /* what FUA is where the server has none */
    }
    assert_memory_equal(server->bytes, model, SIZE);
    assert_int_equal(server->fua_seen, abilities[row] & SEND_FUA ? fua : 0);
    assert_int_equal(server->seen[CMD_TRIM], 0); /* NBD's promises nothing */
    fixture_free(fixture);
    server_stop(server);
  }
}

static void more_than_the_server_gets_at_once(void **state) {
  (void)state;
  struct server *server = server_start(SEND_FLUSH, SIZE);
  struct fixture *fixture = fixture_new(server);
  for (uint32_t round = 0; round < 4; round++) {
    for (uint32_t i = 0; i < IOS_MAX; i++)
      submit(fixture, i % 2 ? DISK_READ : DISK_WRITE, (i % 200) * 4096, round % 2 ? 4096 : 65536, 0);
    wait_all(fixture, TARN_OK);
  }
  fixture_free(fixture);
  server_stop(server);
}

/* ---- losing it ---- */

static void lost(void **state) {
  (void)state;
  static const struct {
    const char *why;
    enum { HANG_UP, ABORT, ANSWER_SHUTDOWN } how;
  } rows[] = {
      {"the server hangs up", HANG_UP}, {"its owner gives up", ABORT}, {"it says that it shuts down", ANSWER_SHUTDOWN}};
  for (size_t row = 0; row < COUNT_OF(rows); row++) {
    struct server *server = server_start(SEND_FLUSH, SIZE);
    struct fixture *fixture = fixture_new(server);
    submit(fixture, DISK_WRITE, 0, 4096, 0);
    wait_all(fixture, TARN_OK);
    server->mute = rows[row].how != ANSWER_SHUTDOWN;
    if (rows[row].how == HANG_UP) server->hang_up_after = 100;
    if (rows[row].how == ANSWER_SHUTDOWN) server->error = 108; /* NBD_ESHUTDOWN */
    for (uint32_t i = 0; i < 200; i++) submit(fixture, i % 2 ? DISK_READ : DISK_WRITE, i * 4096, 4096, 0);
    if (rows[row].how == ABORT) {
      wait_seen(server, CMD_WRITE, 2, fixture);
      nbd_disk_abort(fixture->disk);
      nbd_disk_abort(fixture->disk);
    }
    wait_all(fixture, TARN_GONE);
    server->mute = false;
    server->error = 0;
    for (uint32_t i = 0; i < 3; i++) submit(fixture, i ? DISK_READ : DISK_FLUSH, 0, 4096, 0);
    wait_all(fixture, TARN_GONE); /* for good: never a silent reconnect */
    row_true(rows[row].why, server->connections == 1);
    row_true(rows[row].why, nbd_disk_settle_ns(server->uri, 3600 * NS_PER_S) == 0);
    disk_close(fixture->disk);
    fixture->disk = NULL;
    uint64_t left_ns = nbd_disk_settle_ns(server->uri, 3600 * NS_PER_S);
    row_true(rows[row].why, left_ns > 3000 * NS_PER_S && left_ns <= 3600 * NS_PER_S);
    row_true(rows[row].why, nbd_disk_settle_ns(server->uri, 0) == 0);
    row_true(rows[row].why,
             disk_open(fixture, server, 0, NULL) == TARN_OK); /* who waits for it is the owner's affair */
    submit(fixture, DISK_READ, 0, 4096, 0);
    wait_all(fixture, TARN_OK);
    fixture_free(fixture);
    server_stop(server);
  }
}

static void lost_while_idle(void **state) {
  (void)state;
  struct server *server = server_start(SEND_FLUSH, SIZE);
  struct fixture *fixture = fixture_new(server);
  server->hang_up_after = 2;
  submit(fixture, DISK_FLUSH, 0, 0, 0);
  wait_all(fixture, TARN_OK);
  nbd_disk_abort(fixture->disk);
  submit(fixture, DISK_FLUSH, 0, 0, 0);
  wait_all(fixture, TARN_GONE); /* what was not flushed there may be lost: that is said */
  fixture_free(fixture);
  server_stop(server);
}

/* The connection dies inside a call of ours, with the poll armed for others: the last answer comes when the disk can be closed. */
static void closed_as_soon_as_answered(void **state) {
  (void)state;
  struct server *server = server_start(SEND_FLUSH, SIZE);
  for (uint32_t round = 0; round < 20; round++) {
    struct fixture *fixture = fixture_new(server);
    server->mute = true;
    server->seen[CMD_READ] = 0;
    for (uint32_t i = 0; i < 3; i++) submit(fixture, DISK_READ, 0, 4096, 0);
    wait_seen(server, CMD_READ, 3, fixture);
    nbd_disk_abort(fixture->disk);
    submit(fixture, DISK_WRITE, 0, 4096, 0);
    wait_all(fixture, TARN_GONE);
    fixture_free(fixture);
    server->mute = false;
  }
  server_stop(server);
}

static void closed_in_peace(void **state) {
  (void)state;
  struct server *server = server_start(SEND_FLUSH, SIZE);
  struct fixture *fixture = fixture_new(server);
  submit(fixture, DISK_WRITE, 0, 4096, 0);
  wait_all(fixture, TARN_OK);
  disk_close(fixture->disk);
  fixture->disk = NULL;
  assert_int_equal(nbd_disk_settle_ns(server->uri, 3600 * NS_PER_S), 0); /* nothing is under way there */
  wait_seen(server, CMD_DISC, 1, fixture);
  nbd_disk_unsettled(server->uri);
  assert_true(nbd_disk_settle_ns(server->uri, 3600 * NS_PER_S) > 0);
  fixture_free(fixture);
  server_stop(server);
}

static void errors(void **state) {
  (void)state;
  static const struct {
    const char *why;
    int error;
    tarn_err err;
  } rows[] = {{"EIO", EIO, TARN_IO}, {"ENOSPC", ENOSPC, TARN_NO_SPACE}, {"EPERM", EPERM, TARN_IO}};
  struct server *server = server_start(SEND_FLUSH | SEND_FUA, SIZE);
  struct fixture *fixture = fixture_new(server);
  for (size_t row = 0; row < COUNT_OF(rows); row++) {
    server->error = rows[row].error;
    submit(fixture, DISK_WRITE, 0, 4096, DISK_FUA);
    submit(fixture, DISK_READ, 0, 4096, 0);
    submit(fixture, DISK_FLUSH, 0, 0, 0);
    wait_all(fixture, rows[row].err);
    server->error = 0;
    submit(fixture, DISK_READ, 0, 4096, 0); /* one error is not the end */
    wait_all(fixture, TARN_OK);
  }
  fixture_free(fixture);
  server_stop(server);
}

/* ---- what is refused ---- */

static void refused(void **state) {
  (void)state;
  static const struct {
    const char *why;
    uint16_t flags;
    uint64_t size, wanted;
    tarn_err err;
    const char *says;
  } rows[] = {
      {"it cannot flush", SEND_FUA, SIZE, 0, TARN_REFUSED, "flush"},
      {"for reading only", SEND_FLUSH | READ_ONLY, SIZE, 0, TARN_REFUSED, "reading only"},
      {"too small", SEND_FLUSH, SIZE, SIZE + 512, TARN_INVALID, "too small"},
      {"empty", SEND_FLUSH, 0, 0, TARN_INVALID, "empty"},
      {"an odd size", SEND_FLUSH, SIZE - 1, 0, TARN_INVALID, "multiple"},
      {"a size beyond all", SEND_FLUSH, UINT64_MAX, 0, TARN_INVALID, "size"},
  };
  for (size_t row = 0; row < COUNT_OF(rows); row++) {
    struct server *server = server_start(rows[row].flags, rows[row].size);
    struct fixture *fixture = fixture_new(NULL);
    struct why why = {""};
    row_true(rows[row].why, disk_open(fixture, server, rows[row].wanted, &why) == rows[row].err);
    row_true(rows[row].why, fixture->disk == NULL);
    if (!strstr(why.text, rows[row].says)) fail_msg("row \"%s\": %s", rows[row].why, why.text);
    fixture_free(fixture);
    server_stop(server);
  }
  struct fixture *fixture = fixture_new(NULL);
  struct server nobody = {.uri = "nbd+unix:///x?socket=/nonexistent/s"};
  uint64_t size;
  assert_int_equal(disk_open(fixture, &nobody, 0, NULL), TARN_NOT_FOUND);
  assert_int_equal(nbd_disk_probe(nobody.uri, &size, NULL), TARN_NOT_FOUND);
  fixture_free(fixture);
}

static void smaller_than_the_export(void **state) {
  (void)state;
  struct server *server = server_start(SEND_FLUSH, SIZE);
  struct fixture *fixture = fixture_new(NULL);
  uint64_t size = 0;
  assert_int_equal(nbd_disk_probe(server->uri, &size, NULL), TARN_OK);
  assert_int_equal(size, SIZE);
  assert_int_equal(disk_open(fixture, server, SIZE / 2, NULL), TARN_OK);
  assert_int_equal(fixture->disk->caps.size_bytes, SIZE / 2);
  assert_true(disk_is_nbd(fixture->disk));
  fixture_free(fixture);
  server_stop(server);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(random_load),
      cmocka_unit_test(more_than_the_server_gets_at_once),
      cmocka_unit_test(lost),
      cmocka_unit_test(lost_while_idle),
      cmocka_unit_test(closed_as_soon_as_answered),
      cmocka_unit_test(closed_in_peace),
      cmocka_unit_test(errors),
      cmocka_unit_test(refused),
      cmocka_unit_test(smaller_than_the_export),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
