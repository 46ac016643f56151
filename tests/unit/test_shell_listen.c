/* Addresses as people write them, and listening sockets. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "shell/listen.h"
#include "unit.h"

static void listen_close(const struct address *address, int fd) {
  listen_remove(address);
  close(fd);
}

static void test_addresses(void **state) {
  static const struct {
    const char *why, *text, *host, *port, *path, *says; /* says: part of the refusal */
  } rows[] = {
      {"a Unix socket", "unix:/run/tarn/nbd.sock", "", "", "/run/tarn/nbd.sock", NULL},
      {"a path may hold colons", "unix:/a:1", "", "", "/a:1", NULL},
      {"a name", "node-1.example:10809", "node-1.example", "10809", "", NULL},
      {"an IPv4 address", "127.0.0.1:0", "127.0.0.1", "0", "", NULL},
      {"an IPv6 address", "[::1]:10809", "::1", "10809", "", NULL},
      {"every address of this machine", "*:10809", "*", "10809", "", NULL},
      {"an IPv6 address without brackets could mean anything", "::1:10809", NULL, NULL, NULL, "[ADDRESS]:PORT"},
      {"no host", ":10809", NULL, NULL, NULL, "no host"},
      {"empty brackets", "[]:10809", NULL, NULL, NULL, "no host"},
      {"a bracket that is left open", "[n:0", NULL, NULL, NULL, "brackets"},
      {"brackets in brackets", "[[]]]:2", NULL, NULL, NULL, "brackets"},
      {"no port", "localhost", NULL, NULL, NULL, "none of unix:PATH"},
      {"an empty port", "localhost:", NULL, NULL, NULL, "port"},
      {"a port that is a name", "localhost:nbd", NULL, NULL, NULL, "port"},
      {"a port that is too high", "localhost:65536", NULL, NULL, NULL, "port"},
      {"a port that is far too high", "localhost:4294967297", NULL, NULL, NULL, "port"},
      {"a negative port", "localhost:-1", NULL, NULL, NULL, "port"},
      {"nothing", "", NULL, NULL, NULL, "none of unix:PATH"},
      {"no path", "unix:", NULL, NULL, NULL, "needs the path"},
      {"a path may hold commas", "unix:/a,b", "", "", "/a,b", NULL},
      {"a mode that is not octal", "unix:/a,mode=0680", NULL, NULL, NULL, "is octal"},
      {"a mode with more than rights", "unix:/a,mode=4755", NULL, NULL, NULL, "is octal"},
      {"an empty mode", "unix:/a,group=0,mode=", NULL, NULL, NULL, "is octal"},
      {"a group that is not there", "unix:/a,group=no-such-group,mode=0660", NULL, NULL, NULL,
       "no group 'no-such-group'"},
      {"who may connect", "n1:10809,allow=10.0.0.0/8,per-peer=4", "n1", "10809", "", NULL},
      {"an option that is not there", "n1:10809,mode=0600", NULL, NULL, NULL,
       "known are allow, connections, exports, per-peer"},
      {"an empty option", "n1:10809,", NULL, NULL, NULL, "unknown option ''"},
      {"options of a socket", "unix:/a,b,uid=0+1,per-peer=4,mode=0600", "", "", "/a,b", NULL},
      {"a wrong one", "unix:/a,uid=no-such-user,mode=0600", NULL, NULL, NULL, "no user 'no-such-user'"},
      {"an option that is not there, of a socket", "unix:/a,uids=0,mode=0600", NULL, NULL, NULL,
       "unknown option 'uids=0'; known are connections, exports, group, mode, per-peer, uid"},
      {"a folder may look like one", "unix:/a,x=1/b", "", "", "/a,x=1/b", NULL},
      {"an empty group", "unix:/a,group=", NULL, NULL, NULL, "no group ''"},
  };
  (void)state;
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct address address;
    struct why why;
    tarn_err err = address_parse(rows[i].text, &address, &why);
    row_true(rows[i].why, err == (rows[i].says ? TARN_INVALID : TARN_OK));
    if (err) {
      row_true(rows[i].why, strstr(why.text, rows[i].says));
      continue;
    }
    row_true(rows[i].why, strcmp(address.host, rows[i].host) == 0);
    row_true(rows[i].why, strcmp(address.port, rows[i].port) == 0);
    row_true(rows[i].why, strcmp(address.path, rows[i].path) == 0);
    row_true(rows[i].why, strncmp(address.text, rows[i].text, strlen(address.text)) == 0);
  }
}

/* An address that other machines can reach is not listened on, unless that was asked for; one that is passed on to us neither. */
static void test_beyond_loopback(void **state) {
  static const struct {
    const char *why, *text;
    bool good;
  } rows[] = {
      {"all addresses", "*:0", false},           {"all of IPv4", "0.0.0.0:0", false},
      {"all of IPv6", "[::]:0", false},          {"all, as IPv6", "[::ffff:0:0]:0", false},
      {"loopback", "127.0.0.1:0", true},         {"another one", "127.1.2.3:0", true},
      {"by name", "localhost:0", true},          {"of IPv6", "[::1]:0", true},
      {"as IPv6", "[::ffff:127.0.0.1]:0", true},
  };
  (void)state;
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct address address, passed;
    struct why why = {""};
    int fd, again;
    tarn_err err = rows[i].good ? TARN_OK : TARN_INVALID;
    assert_int_equal(address_parse(rows[i].text, &address, &why), TARN_OK);
    row_true(rows[i].why, listen_check(&address, &why) == err);
    row_true(rows[i].why, listen_open(&address, &fd, &why) == err);
    row_true(rows[i].why, rows[i].good || strstr(why.text, "--nbd-insecure"));
    if (!rows[i].good) {
      address.exposed = true;
      row_true(rows[i].why, listen_check(&address, &why) == TARN_OK);
      row_true(rows[i].why, listen_open(&address, &fd, &why) == TARN_OK);
    }
    assert_int_equal(address_passed(fd, &passed, &why), TARN_OK);
    row_true(rows[i].why, listen_open(&passed, &again, &why) == err);
    close(fd);
  }
}

/* Whatever the umask is. */
static void test_modes_of_sockets(void **state) {
  static const struct {
    const char *options;
    mode_t mode;
    gid_t group;
  } rows[] = {{"", 0600, 0}, {",mode=0660,group=12345", 0660, 12345}, {",group=root,mode=666", 0666, 0}};
  (void)state;
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    char text[128];
    struct address address;
    struct stat status;
    struct why why;
    int fd;
    snprintf(text, sizeof(text), "unix:/tmp/tarn_listen.%d%s", (int)getpid(), rows[i].options);
    assert_int_equal(address_parse(text, &address, &why), TARN_OK);
    mode_t mask = umask(i % 2 ? 0777 : 0);
    assert_int_equal(listen_open(&address, &fd, &why), TARN_OK);
    umask(mask);
    assert_int_equal(stat(address.path, &status), 0);
    assert_int_equal(status.st_mode & 07777, rows[i].mode);
    assert_int_equal(status.st_gid, rows[i].group);
    listen_close(&address, fd);
  }
}

/* The bind() of this program: once the socket has its name, a stranger who may write to its folder does this. */
static void (*stranger)(const char *socket);
int bind(int fd, const struct sockaddr *name, socklen_t bytes) {
  int failed = (int)syscall(SYS_bind, fd, name, bytes);
  if (!failed && stranger) stranger(((const struct sockaddr_un *)name)->sun_path);
  return failed;
}

static char decoy[64], decoy_socket[64];
static void put_link(const char *socket) {
  assert_int_equal(unlink(socket), 0);
  assert_int_equal(symlink(decoy, socket), 0);
}
static void put_file(const char *socket) {
  assert_int_equal(unlink(socket), 0);
  assert_int_equal(link(decoy, socket), 0);
}
static void put_other_socket(const char *socket) {
  assert_int_equal(unlink(socket), 0);
  assert_int_equal(link(decoy_socket, socket), 0);
}

static void decoy_socket_make(void) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  strcpy(name.sun_path, decoy_socket);
  assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof(name)), 0);
  assert_int_equal(chmod(decoy_socket, 0600), 0);
  close(fd);
}

static void check_untouched(const char *row, const char *path) {
  struct stat status;
  assert_int_equal(stat(path, &status), 0);
  row_true(row, (status.st_mode & 07777) == 0600);
  row_true(row, status.st_gid == 0);
}

/* Neither its mode nor its group is given to what a stranger has put in its place. */
static void test_a_name_that_is_exchanged(void **state) {
  static const struct {
    const char *why, *options;
    void (*stranger)(const char *socket);
    tarn_err err;
  } rows[] = {
      {"a link, the mode alone", ",mode=0666", put_link, TARN_OK}, /* it listens, under no name */
      {"a link, and a group", ",mode=0666,group=12345", put_link, TARN_REFUSED},
      {"a file", ",mode=0666,group=12345", put_file, TARN_REFUSED},
      {"the socket of another program", ",mode=0666,group=12345", put_other_socket, TARN_REFUSED},
  };
  (void)state;
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    char folder[] = "/tmp/tarn-test-XXXXXX", text[128];
    struct address address;
    struct why why;
    int fd;
    assert_non_null(mkdtemp(folder));
    snprintf(decoy, sizeof(decoy), "%s/decoy", folder);
    snprintf(decoy_socket, sizeof(decoy_socket), "%s/decoy.sock", folder);
    close(open(decoy, O_CREAT | O_WRONLY, 0600));
    decoy_socket_make();
    snprintf(text, sizeof(text), "unix:%s/socket%s", folder, rows[i].options);
    assert_int_equal(address_parse(text, &address, &why), TARN_OK);
    stranger = rows[i].stranger;
    row_true(rows[i].why, listen_open(&address, &fd, &why) == rows[i].err);
    stranger = NULL;
    check_untouched(rows[i].why, decoy);
    check_untouched(rows[i].why, decoy_socket);
    if (fd >= 0) listen_close(&address, fd);
    unlink(address.path); /* what he has put there stays, unless it is a socket */
    unlink(decoy);
    unlink(decoy_socket);
    assert_int_equal(rmdir(folder), 0);
  }
}

static void test_a_path_must_fit_the_kernels_limit(void **state) {
  (void)state;
  struct address address;
  struct why why;
  char path[200];
  memset(path, 'x', sizeof(path));
  path[108] = '\0';
  assert_int_equal(address_unix(path, &address, &why), TARN_INVALID);
  path[107] = '\0';
  assert_int_equal(address_unix(path, &address, &why), TARN_OK);
}

static void test_a_port_is_picked_and_found_in_use(void **state) {
  (void)state;
  struct address address, again;
  struct why why;
  int listening, connected, accepted, second;
  char text[64];
  assert_int_equal(address_parse("127.0.0.1:0", &address, &why), TARN_OK);
  assert_int_equal(listen_open(&address, &listening, &why), TARN_OK);
  assert_string_not_equal(address.port, "0");
  assert_int_equal(address_parse(address.text, &again, &why), TARN_OK);
  assert_int_equal(listen_open(&again, &second, &why), TARN_EXISTS);
  assert_int_equal(address_connect(&address, &connected, &why), TARN_OK);
  accepted = accept(listening, NULL, NULL);
  assert_true(accepted >= 0);
  peer_text(accepted, text, sizeof(text));
  assert_int_equal(strncmp(text, "127.0.0.1:", 10), 0);
  close(accepted); /* the server hangs up first: its port is in TIME_WAIT, and can be had at once all the same */
  close(connected);
  listen_close(&address, listening);
  assert_int_equal(listen_open(&again, &second, &why), TARN_OK);
  listen_close(&again, second);
  assert_int_equal(address_connect(&again, &connected, &why), TARN_NOT_FOUND);
}

static void test_socket_files(void **state) {
  (void)state;
  struct address address;
  struct why why;
  int first, second, connected;
  char folder[] = "/tmp/tarn-test-XXXXXX", path[64];
  assert_non_null(mkdtemp(folder));
  snprintf(path, sizeof(path), "%s/socket", folder);
  assert_int_equal(address_unix(path, &address, &why), TARN_OK);
  address.patience_ms = 60;
  assert_int_equal(listen_open(&address, &first, &why), TARN_OK);
  assert_int_equal(listen_open(&address, &second, &why), TARN_EXISTS); /* somebody listens */
  assert_int_equal(address_connect(&address, &connected, &why), TARN_OK);
  close(connected);
  close(first); /* as a killed daemon leaves it */
  assert_int_equal(address_connect(&address, &connected, &why), TARN_NOT_FOUND);
  assert_int_equal(listen_open(&address, &second, &why), TARN_OK);
  listen_close(&address, second);
  assert_int_equal(access(path, F_OK), -1);

  int fd = open(path, O_CREAT | O_WRONLY, 0600); /* a file that is not a socket is never removed */
  close(fd);
  assert_int_equal(listen_open(&address, &second, &why), TARN_REFUSED);
  assert_int_equal(access(path, F_OK), 0);
  unlink(path);
  rmdir(folder);
}

/* What a service manager passes on. */
static void test_passed_sockets(void **state) {
  (void)state;
  struct address address, passed;
  struct why why;
  int fd, again, pair[2];
  char folder[] = "/tmp/tarn-test-XXXXXX", path[64];
  assert_non_null(mkdtemp(folder));
  snprintf(path, sizeof(path), "%s/socket", folder);
  assert_int_equal(address_unix(path, &address, &why), TARN_OK);
  assert_int_equal(listen_open(&address, &fd, &why), TARN_OK);
  fcntl(fd, F_SETFL, O_NONBLOCK);
  fcntl(fd, F_SETFD, 0);
  assert_int_equal(address_passed(fd, &passed, &why), TARN_OK);
  assert_true(passed.is_unix);
  assert_string_equal(passed.path, path);
  assert_string_equal(passed.text, address.text);
  assert_int_equal(fcntl(fd, F_GETFL) & O_NONBLOCK, 0); /* io_uring would answer EAGAIN, again and again */
  assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
  assert_int_equal(listen_open(&passed, &again, &why), TARN_OK);
  assert_int_equal(again, fd);
  listen_close(&passed, fd);
  assert_int_equal(access(path, F_OK), 0); /* its owner goes on listening there */
  unlink(path);

  assert_int_equal(address_parse("[::1]:0", &address, &why), TARN_OK);
  assert_int_equal(listen_open(&address, &fd, &why), TARN_OK);
  assert_int_equal(address_passed(fd, &passed, &why), TARN_OK);
  assert_string_equal(passed.text, address.text);
  assert_false(passed.is_unix);
  close(fd);
  assert_int_equal(address_passed(fd, &passed, &why), TARN_INVALID);
  assert_string_equal(why.text, "is not open");
  fd = open(folder, O_RDONLY);
  assert_int_equal(address_passed(fd, &passed, &why), TARN_INVALID);
  assert_string_equal(why.text, "is not a socket");
  close(fd);
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  assert_int_equal(address_passed(pair[0], &passed, &why), TARN_INVALID);
  assert_string_equal(why.text, "is a socket that does not listen");
  close(pair[0]);
  close(pair[1]);
  assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
  assert_int_equal(address_passed(pair[0], &passed, &why), TARN_INVALID);
  assert_string_equal(why.text, "is no stream socket");
  close(pair[0]);
  close(pair[1]);
  rmdir(folder);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_addresses),
      cmocka_unit_test(test_beyond_loopback),
      cmocka_unit_test(test_modes_of_sockets),
      cmocka_unit_test(test_a_name_that_is_exchanged),
      cmocka_unit_test(test_a_path_must_fit_the_kernels_limit),
      cmocka_unit_test(test_a_port_is_picked_and_found_in_use),
      cmocka_unit_test(test_socket_files),
      cmocka_unit_test(test_passed_sockets),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
