/* The NBD server with real sockets: who finds which export, the limit of sessions, and an export that is removed while
 * a client's request hangs in its disk. */
#include <endian.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "shell/client_reports.h"
#include "shell/nbd_server.h"
#include "unit.h"

/* A disk that hangs until it is told to go on. */
struct slow_disk {
  struct disk disk;
  struct disk_io *held;
  bool quick;
  uint64_t bytes;
};
static void slow_submit(struct disk *disk, struct disk_io *io) {
  struct slow_disk *slow = CONTAINER_OF(disk, struct slow_disk, disk);
  slow->bytes += io->length;
  if (slow->quick) disk_complete(io, TARN_OK);
  else slow->held = io;
}
static void slow_close(struct disk *disk) { (void)disk; }
static const struct disk_ops slow_ops = {.kind = "slow", .submit = slow_submit, .close = slow_close};

struct fixture {
  struct reactor *reactor;
  struct arena arena;
  struct buffer_pool pool;
  struct nbd_server *server;
  struct address address;
  char folder[32];
  struct slow_disk disk;
  struct nbd_server_export export;
  int removed, stopped;
  struct why why;
};
static struct fixture fixture;

static void removed(struct nbd_server_export *export) {
  assert_ptr_equal(export, &fixture.export);
  assert_int_equal(fixture.disk.disk.in_flight, 0); /* so that the owner may close the disk now */
  fixture.removed++;
}
static void stopped(void *owner) {
  assert_ptr_equal(owner, &fixture);
  fixture.stopped++;
}

static int setup(void **state) {
  (void)state;
  char path[64];
  fixture = (struct fixture){.folder = "/tmp/tarn-test-XXXXXX"};
  assert_non_null(mkdtemp(fixture.folder));
  snprintf(path, sizeof(path), "%s/nbd", fixture.folder);
  fixture.reactor = reactor_create(&fixture.why);
  assert_non_null(fixture.reactor);
  struct env *env = reactor_env(fixture.reactor);
  arena_init(&fixture.arena);
  assert_int_equal(buffer_pool_init(&fixture.pool, env, &fixture.arena, 4 << 20), TARN_OK);
  struct nbd_server_options options = {.reactor = fixture.reactor,
                                       .pool = &fixture.pool,
                                       .session_max = 2,
                                       .deaf_ns = 60 * NS_PER_S,
                                       .silent_ns = 3 * NS_PER_S,
                                       .handshake_ns = 3 * NS_PER_S};
  fixture.server = nbd_server_create(&options, &fixture.why);
  assert_non_null(fixture.server);
  assert_int_equal(address_unix(path, &fixture.address, &fixture.why), TARN_OK);
  assert_int_equal(nbd_server_listen(fixture.server, &fixture.address, &fixture.why), TARN_OK);
  fixture.disk.disk = (struct disk){.ops = &slow_ops, .env = env};
  fixture.disk.disk.caps =
      (struct disk_caps){.size_bytes = 1 << 20, .block_bytes = 1, .align_bytes = 1, .io_bytes_max = BUFFER_DATA_MAX};
  fixture.export = (struct nbd_server_export){.nbd = {.name = "vol", .disk = &fixture.disk.disk}, .alias = "vol/0"};
  assert_int_equal(nbd_server_add(fixture.server, &fixture.export), TARN_OK);
  return 0;
}

static void turns(int count) {
  for (int i = 0; i < count; i++) reactor_turn(fixture.reactor, NS_PER_MS);
}

static int teardown(void **state) {
  (void)state;
  nbd_server_stop(fixture.server, &fixture, stopped);
  turns(20);
  assert_int_equal(fixture.stopped, 1);
  listen_remove(&fixture.address);
  nbd_server_destroy(fixture.server);
  assert_true(buffer_pool_is_whole(&fixture.pool));
  arena_destroy(&fixture.arena);
  reactor_destroy(fixture.reactor);
  assert_int_equal(rmdir(fixture.folder), 0);
  return 0;
}

/* A client by hand. Its other end runs in this thread, so it never waits: it reads what is there after a few turns. */
static int client_open(void) {
  int fd;
  assert_int_equal(address_connect(&fixture.address, &fd, &fixture.why), TARN_OK);
  assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
  turns(5);
  return fd;
}
static ssize_t client_read(int fd, void *where, size_t bytes) {
  turns(5);
  return recv(fd, where, bytes, 0);
}
static void client_write(int fd, const void *data, size_t bytes) {
  assert_int_equal(send(fd, data, bytes, MSG_NOSIGNAL), bytes);
  turns(5);
}

/* True when the server let it in. */
static bool client_attach(int fd, const char *name) {
  uint8_t greeting[18], option[64], answer[10];
  uint32_t flags = htobe32(3), number = htobe32(1), length = htobe32((uint32_t)strlen(name)); /* NBD_OPT_EXPORT_NAME */
  assert_int_equal(client_read(fd, greeting, sizeof(greeting)), sizeof(greeting));
  client_write(fd, &flags, 4);
  memcpy(option, "IHAVEOPT", 8);
  memcpy(option + 8, &number, 4);
  memcpy(option + 12, &length, 4);
  memcpy(option + 16, name, strlen(name));
  client_write(fd, option, 16 + strlen(name));
  return client_read(fd, answer, sizeof(answer)) == (ssize_t)sizeof(answer);
}

static void client_ask(int fd, uint16_t command, uint32_t bytes) {
  uint8_t request[28] = {0};
  uint32_t magic = htobe32(0x25609513), length = htobe32(bytes);
  memcpy(request, &magic, 4);
  request[7] = (uint8_t)command;
  memcpy(request + 24, &length, 4);
  client_write(fd, request, sizeof(request));
}

static void wait_until(bool (*condition)(void));

static void test_names(void **state) {
  static const struct {
    const char *why, *name;
    bool found;
  } rows[] = {
      {"its name", "vol", true},
      {"its alias", "vol/0", true},
      {"the empty name stands for the only one", "", true},
      {"another name", "vol0", false},
  };
  (void)state;
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    int fd = client_open();
    row_true(rows[i].why, client_attach(fd, rows[i].name) == rows[i].found);
    close(fd);
    turns(5);
    row_true(rows[i].why, nbd_server_session_count(fixture.server) == 0);
  }
  struct nbd_server_export other = {.nbd = {.name = "vol/0", .disk = &fixture.disk.disk}};
  assert_int_equal(nbd_server_add(fixture.server, &other), TARN_EXISTS);
  other.nbd.name = "other";
  assert_int_equal(nbd_server_add(fixture.server, &other), TARN_OK);
  int fd = client_open();
  assert_false(client_attach(fd, "")); /* there are two now */
  close(fd);
  list_remove(&other.link);
}

static void test_a_session_too_many_is_hung_up_on(void **state) {
  (void)state;
  char byte;
  int first = client_open(), second = client_open();
  assert_true(client_attach(first, "vol") && client_attach(second, "vol"));
  int third = client_open();
  assert_int_equal(nbd_server_session_count(fixture.server), 2);
  turns(20);
  assert_int_equal(client_read(third, &byte, 1), 0);
  close(first);
  turns(5);
  assert_int_equal(nbd_server_session_count(fixture.server), 1);
  int fourth = client_open();
  assert_int_equal(client_read(fourth, &byte, 1), 1);
  close(second);
  close(third);
  close(fourth);
}

/* Who is still at the handshake yields to whoever comes, the oldest first; who is attached does not. */
static void test_who_does_not_come_to_the_point_gives_way(void **state) {
  (void)state;
  char byte;
  int attached = client_open();
  assert_true(client_attach(attached, "vol"));
  int idle = client_open(), next = client_open();
  turns(20);
  assert_int_equal(nbd_server_session_count(fixture.server), 2);
  assert_true(client_attach(next, "vol"));
  while (client_read(idle, &byte, 1) > 0) continue;
  assert_int_equal(client_read(idle, &byte, 1), 0);
  assert_int_equal(client_read(attached, &byte, 1), -1); /* there is nothing to read, and it is open */
  close(attached);
  close(idle);
  close(next);
}

/* A client of 127.0.0.`host`. */
static int client_from(const struct address *address, uint8_t host) {
  struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(0x7f000000u + host)};
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof(name)), 0);
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  name.sin_port = htons((uint16_t)atoi(address->port));
  assert_int_equal(connect(fd, (struct sockaddr *)&name, sizeof(name)), 0);
  assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
  turns(5);
  return fd;
}

static bool is_hung_up(int fd) {
  uint8_t bytes[64];
  ssize_t got;
  while ((got = client_read(fd, bytes, sizeof(bytes))) > 0) continue;
  return got == 0;
}

/* One that has as many as it may loses its own who have not come to the point, else it is refused; others come in. */
static void test_a_peer_has_so_many_connections(void **state) {
  (void)state;
  struct address address;
  assert_int_equal(address_parse("127.0.0.1:0,per-peer=1", &address, &fixture.why), TARN_OK);
  assert_int_equal(nbd_server_listen(fixture.server, &address, &fixture.why), TARN_OK);
  int idle = client_from(&address, 1), first = client_from(&address, 1);
  assert_true(is_hung_up(idle));
  assert_true(client_attach(first, "vol"));
  int second = client_from(&address, 1), other = client_from(&address, 2);
  assert_true(is_hung_up(second));
  assert_true(client_attach(other, "vol"));
  close(first);
  turns(5);
  int again = client_from(&address, 1);
  assert_true(client_attach(again, "vol"));
  close(idle);
  close(second);
  close(other);
  close(again);
}

static void test_an_address_has_so_many_connections(void **state) {
  (void)state;
  struct address address;
  assert_int_equal(address_parse("127.0.0.1:0,connections=1", &address, &fixture.why), TARN_OK);
  assert_int_equal(nbd_server_listen(fixture.server, &address, &fixture.why), TARN_OK);
  int first = client_from(&address, 1), unix_client = client_open();
  assert_true(client_attach(first, "vol"));
  int second = client_from(&address, 2);
  assert_true(is_hung_up(second));
  assert_true(client_attach(unix_client, "vol"));
  close(first);
  close(second);
  close(unix_client);
}

static void test_who_is_not_in_the_list_is_refused(void **state) {
  (void)state;
  struct address address;
  assert_int_equal(address_parse("127.0.0.1:0,allow=127.0.0.4/31", &address, &fixture.why), TARN_OK);
  assert_int_equal(nbd_server_listen(fixture.server, &address, &fixture.why), TARN_OK);
  int stranger = client_from(&address, 3), listed = client_from(&address, 5);
  assert_true(is_hung_up(stranger));
  assert_true(client_attach(listed, "vol"));
  close(stranger);
  close(listed);
}

static bool nobody_is_here(void) { return nbd_server_session_count(fixture.server) == 0; }

/* ... and not for longer than the handshake may take, also when nobody else comes. */
static void test_a_handshake_that_does_not_end_is_ended(void **state) {
  (void)state;
  int first = client_open(), second = client_open();
  wait_until(nobody_is_here);
  close(first);
  close(second);
}

/* One that vanishes, and comes back at once, finds its place. */
static void test_who_leaves_makes_room_at_once(void **state) {
  (void)state;
  int fds[2] = {client_open(), client_open()};
  for (int round = 0; round < 20; round++) {
    for (int i = 0; i < 2; i++) {
      int next;
      char byte;
      close(fds[i]);
      assert_int_equal(address_connect(&fixture.address, &next, &fixture.why),
                       TARN_OK); /* before the server has turned */
      assert_int_equal(fcntl(next, F_SETFL, O_NONBLOCK), 0);
      ssize_t got = -1;
      for (int k = 0; k < 100 && got < 0; k++) got = client_read(next, &byte, 1);
      assert_int_equal(got, 1);
      fds[i] = next;
    }
  }
  close(fds[0]);
  close(fds[1]);
}

static void wait_until(bool (*condition)(void)) {
  for (int i = 0; i < 100000 && !condition(); i++) turns(1);
  assert_true(condition());
}
static bool pool_is_whole(void) { return buffer_pool_is_whole(&fixture.pool); }
static bool one_session_is_left(void) { return nbd_server_session_count(fixture.server) == 1; }

/* Inside a payload: whole blocks of what has come go to the disk, the buffer goes back, and the client may go on. */
static void test_a_client_that_stalls_holds_no_buffer(void **state) {
  (void)state;
  static uint8_t payload[100000];
  uint8_t answer[16];
  fixture.disk.quick = true;
  int fd = client_open();
  assert_true(client_attach(fd, "vol"));
  client_ask(fd, 1, sizeof payload);
  client_write(fd, payload, 40000);
  turns(20);
  assert_false(pool_is_whole());
  wait_until(pool_is_whole);
  assert_true(fixture.disk.bytes > 30000 && fixture.disk.bytes <= 40000);
  client_write(fd, payload, 30000);
  wait_until(pool_is_whole);
  client_write(fd, payload, 30000);
  turns(20);
  assert_int_equal(client_read(fd, answer, sizeof answer), sizeof answer);
  assert_int_equal(answer[7], 0); /* no error */
  assert_int_equal(fixture.disk.bytes, sizeof payload);
  close(fd);
}

static bool all_sessions_are_gone(void) { return nbd_server_session_count(fixture.server) == 0; }

/* The connection ends, and the write has not happened. Between requests a client may be silent. */
static void test_a_payload_that_does_not_come_ends_its_connection(void **state) {
  (void)state;
  static uint8_t payload[20000];
  char byte;
  fixture.disk.quick = true;
  int fd = client_open(), idle = client_open();
  assert_true(client_attach(fd, "vol"));
  assert_true(client_attach(idle, "vol"));
  client_ask(fd, 1, sizeof payload);
  client_write(fd, payload, sizeof payload - 1);
  turns(20);
  assert_int_equal(nbd_server_session_count(fixture.server), 2);
  wait_until(one_session_is_left);
  assert_int_equal(recv(fd, &byte, 1, 0), 0);
  assert_int_equal(fixture.disk.bytes, 0);
  client_ask(idle, 3, 0); /* a flush is answered */
  uint8_t answer[16];
  assert_int_equal(client_read(idle, answer, sizeof answer), sizeof answer);
  close(fd);
  close(idle);
  wait_until(all_sessions_are_gone);
}

static struct buffer_wait stranger;
static void stranger_is_served(struct buffer_wait *wait) { require(wait->buffer != NULL); }

static bool stranger_has_its_buffer(void) { return stranger.buffer != NULL; }

static uint64_t client_take(int fd, uint64_t bytes) {
  static uint8_t room[65536];
  uint64_t taken = 0;
  for (int idle = 0; taken < bytes && idle < 1000; idle++) {
    ssize_t got = client_read(fd, room, min_u64(sizeof(room), bytes - taken));
    if (got <= 0) continue;
    taken += (uint64_t)got;
    idle = 0;
  }
  return taken;
}

/* Answers that nobody takes: that is the client's own affair until others wait for memory. Then they are given back; and read again when
 * it takes them. */
static void test_a_deaf_client_gives_way_to_others(void **state) {
  (void)state;
  struct buffer *taken[64];
  uint32_t count = 0;
  uint64_t answers = 8 * (16 + (1 << 20));
  fixture.disk.quick = true;
  int deaf = client_open(), idle = client_open();
  assert_true(client_attach(deaf, "vol"));
  for (int i = 0; i < 8; i++) client_ask(deaf, 0, 1 << 20);
  turns(400);
  uint32_t held = fixture.pool.total_count[2] - fixture.pool.free_count[2];
  assert_true(held > 0);
  while ((taken[count] = buffer_get(&fixture.pool, BUFFER_DATA_MAX)) != NULL) count++;
  buffer_wait_init(&stranger, stranger_is_served);
  buffer_wait(&fixture.pool, &stranger, BUFFER_DATA_MAX);
  wait_until(stranger_has_its_buffer);
  turns(5);
  buffer_unref(stranger.buffer);
  while (count > 0) buffer_unref(taken[--count]);
  assert_int_equal(nbd_server_session_count(fixture.server), 2);
  assert_int_equal(client_take(deaf, answers + 1), answers);
  assert_true(fixture.disk.bytes > 8 << 20); /* some of it was read twice */
  close(deaf);
  close(idle);
}

static void test_removal_waits_for_a_request_that_hangs(void **state) {
  (void)state;
  char text[200], byte;
  int fd = client_open(), idle = client_open();
  assert_true(client_attach(fd, "vol"));
  client_ask(fd, 0, 512);
  assert_non_null(fixture.disk.held);
  assert_int_equal(nbd_server_clients(fixture.server, &fixture.export, text, sizeof(text)), 1);
  assert_non_null(strstr(text, "pid"));
  assert_int_equal(nbd_server_clients(fixture.server, &fixture.export, text, 10), 1);
  assert_string_equal(text + 6, "...");

  nbd_server_remove(fixture.server, &fixture.export, removed);
  turns(20);
  assert_int_equal(recv(fd, &byte, 1, 0), 0); /* the client was hung up on ... */
  assert_int_equal(fixture.removed, 0);       /* ... but the disk still has its buffer */
  assert_false(client_attach(idle, "vol"));   /* nobody new finds it */
  assert_int_equal(nbd_server_clients(fixture.server, &fixture.export, text, sizeof(text)), 1);
  assert_non_null(strstr(text, "hangs"));

  disk_complete(fixture.disk.held, TARN_OK);
  turns(5);
  assert_int_equal(fixture.removed, 1);
  close(fd);
  close(idle);
}

static void test_an_export_without_clients_is_removed_at_once(void **state) {
  (void)state;
  nbd_server_remove(fixture.server, &fixture.export, removed);
  assert_int_equal(fixture.removed, 0); /* but from the event queue */
  turns(2);
  assert_int_equal(fixture.removed, 1);
}

/* ---- what clients do wrong ---- */

static struct {
  int lines;
  char subject[64], text[200]; /* of the last one */
} reported;

static void keep_report(struct env *env, enum report_level level, const char *subject, const char *text) {
  (void)env, (void)level;
  reported.lines++;
  snprintf(reported.subject, sizeof reported.subject, "%s", subject);
  snprintf(reported.text, sizeof reported.text, "%s", text);
}

/* Each of a crowd sends garbage: the events have room for other things, all the same. */
static void test_a_crowd_of_bad_clients_is_not_all_reported(void **state) {
  (void)state;
  reported.lines = 0;
  reactor_env(fixture.reactor)->report = keep_report;
  for (uint32_t i = 0; i < CLIENT_REPORTS_MAX + 5; i++) {
    int fd = client_open();
    client_write(fd, "\0\0\0\3GET / HTTP/1.1\r\n", 20);
    close(fd);
    turns(2);
  }
  assert_int_equal(reported.lines, CLIENT_REPORTS_MAX);
  assert_string_equal(reported.text, "the client does not speak NBD; hanging up");
}

static void test_how_many_were_left_out_is_reported(void **state) {
  (void)state;
  struct env env;
  struct client_reports reports;
  env_init(&env);
  env.report = keep_report;
  client_reports_init(&reports, &env);
  reported.lines = 0;
  for (uint32_t i = 0; i < CLIENT_REPORTS_MAX; i++) client_report(&reports, "peer", "sings");
  assert_string_equal(reported.subject, "peer");
  assert_string_equal(reported.text, "the client sings; hanging up");
  env.now_ns += CLIENT_REPORTS_NS;
  timers_run(&env);
  assert_int_equal(reported.lines, CLIENT_REPORTS_MAX); /* nothing was left out: there is nothing to add */

  for (uint32_t i = 0; i < CLIENT_REPORTS_MAX + 2; i++) client_report(&reports, "peer", "sings");
  assert_int_equal(reported.lines, 2 * CLIENT_REPORTS_MAX);
  env.now_ns += CLIENT_REPORTS_NS;
  timers_run(&env);
  assert_int_equal(reported.lines, 2 * CLIENT_REPORTS_MAX + 1);
  assert_string_equal(reported.text, "2 more clients were hung up on, within a minute; they are not listed");
  client_report(&reports, "peer", "sings");
  assert_int_equal(reported.lines, 2 * CLIENT_REPORTS_MAX + 2); /* the next minute begins anew */
  client_reports_end(&reports);
  assert_int_equal(reported.lines, 2 * CLIENT_REPORTS_MAX + 2);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_names, setup, teardown),
      cmocka_unit_test_setup_teardown(test_a_session_too_many_is_hung_up_on, setup, teardown),
      cmocka_unit_test_setup_teardown(test_who_does_not_come_to_the_point_gives_way, setup, teardown),
      cmocka_unit_test_setup_teardown(test_a_peer_has_so_many_connections, setup, teardown),
      cmocka_unit_test_setup_teardown(test_an_address_has_so_many_connections, setup, teardown),
      cmocka_unit_test_setup_teardown(test_who_is_not_in_the_list_is_refused, setup, teardown),
      cmocka_unit_test_setup_teardown(test_a_handshake_that_does_not_end_is_ended, setup, teardown),
      cmocka_unit_test_setup_teardown(test_who_leaves_makes_room_at_once, setup, teardown),
      cmocka_unit_test_setup_teardown(test_a_client_that_stalls_holds_no_buffer, setup, teardown),
      cmocka_unit_test_setup_teardown(test_a_payload_that_does_not_come_ends_its_connection, setup, teardown),
      cmocka_unit_test_setup_teardown(test_a_deaf_client_gives_way_to_others, setup, teardown),
      cmocka_unit_test_setup_teardown(test_removal_waits_for_a_request_that_hangs, setup, teardown),
      cmocka_unit_test_setup_teardown(test_an_export_without_clients_is_removed_at_once, setup, teardown),
      cmocka_unit_test_setup_teardown(test_a_crowd_of_bad_clients_is_not_all_reported, setup, teardown),
      cmocka_unit_test(test_how_many_were_left_out_is_reported),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
