/* src/shell/door.h: who may connect to an address, as it is written. */
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shell/door.h"
#include "unit.h"

static struct in6_addr host(const char *text) {
  struct in6_addr host;
  struct sockaddr_in ipv4 = {.sin_family = AF_INET};
  if (inet_pton(AF_INET6, text, &host) == 1) return host;
  assert_int_equal(inet_pton(AF_INET, text, &ipv4.sin_addr), 1);
  return host_of((struct sockaddr *)&ipv4);
}

static void options(void **state) {
  (void)state;
  static const struct {
    const char *why;
    bool is_unix;
    const char *option;
    tarn_err err;
    const char *says;
  } rows[] = {
      {"one user", true, "uid=1000", TARN_OK, ""},
      {"users by name", true, "uid=root+1000+nobody", TARN_OK, ""},
      {"a user that is not there", true, "uid=root+no-such-user", TARN_INVALID, "no user 'no-such-user'"},
      {"an empty one", true, "uid=root+", TARN_INVALID, "no user ''"},
      {"the number that stands for none", true, "uid=4294967295", TARN_INVALID, "no user"},
      {"more than a list has", true, "uid=1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1+1", TARN_INVALID, "at most 16"},
      {"users on TCP", false, "uid=1000", TARN_NOT_FOUND, ""},
      {"hosts and networks", false, "allow=10.0.0.0/8+192.0.2.7+fd00::/8+::1", TARN_OK, ""},
      {"all", false, "allow=0.0.0.0/0+::/0", TARN_OK, ""},
      {"hosts on Unix", true, "allow=10.0.0.0/8", TARN_NOT_FOUND, ""},
      {"a host that looks like a network", false, "allow=10.0.0.1/8", TARN_INVALID, "bits set behind its first 8"},
      {"too many bits", false, "allow=10.0.0.0/33", TARN_INVALID, "from 0 to 32"},
      {"too many bits of IPv6", false, "allow=fd00::/129", TARN_INVALID, "from 0 to 128"},
      {"no bits", false, "allow=10.0.0.0/", TARN_INVALID, "'' is not a number of bits"},
      {"a name", false, "allow=localhost", TARN_INVALID, "'localhost' is no IPv4 or IPv6 address"},
      {"nothing", false, "allow=", TARN_INVALID, "no IPv4 or IPv6"},
      {"a number of connections", true, "connections=1", TARN_OK, ""},
      {"and of one peer's", false, "per-peer=16", TARN_OK, ""},
      {"none", false, "per-peer=0", TARN_INVALID, "from 1 to"},
      {"a negative one", false, "connections=-1", TARN_INVALID, "from 1 to"},
      {"mirrors, and one volume of another", true, "exports=vol0+vol1/data", TARN_OK, ""},
      {"mirrors on TCP", false, "exports=vol0", TARN_OK, ""},
      {"no mirror", true, "exports=", TARN_INVALID, "'' is neither MIRROR nor MIRROR/VOLUME"},
      {"a volume of none", true, "exports=vol0+/data", TARN_INVALID, "'/data' is neither"},
      {"no volume", true, "exports=vol0/", TARN_INVALID, "'vol0/' is neither"},
      {"too deep", true, "exports=vol0/data/x", TARN_INVALID, "neither MIRROR nor"},
      {"a path", true, "exports=../vol0", TARN_INVALID, "neither MIRROR nor"},
      {"an unknown option", false, "per-peers=1", TARN_NOT_FOUND, ""},
      {"no value", false, "per-peer", TARN_NOT_FOUND, ""},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct door door = {0};
    struct why why = {""};
    row_true(rows[i].why, door_option(&door, rows[i].is_unix, rows[i].option, &why) == rows[i].err);
    row_true(rows[i].why, strstr(why.text, rows[i].says));
  }
}

static void lists(void **state) {
  (void)state;
  static const struct {
    const char *why, *allow, *from;
    bool may;
  } rows[] = {
      {"no list: whoever comes", NULL, "192.0.2.1", true},
      {"one host", "allow=192.0.2.1", "192.0.2.1", true},
      {"its neighbour", "allow=192.0.2.1", "192.0.2.0", false},
      {"the last of a network", "allow=10.4.0.0/14", "10.7.255.255", true},
      {"the one behind it", "allow=10.4.0.0/14", "10.8.0.0", false},
      {"the second of a list", "allow=10.0.0.0/8+fd00::/8", "fdff::1", true},
      {"none of a list", "allow=10.0.0.0/8+fd00::/8", "fe80::1", false},
      {"all of IPv4 is not all of IPv6", "allow=0.0.0.0/0", "::1", false},
      {"but the other way round", "allow=::/0", "10.0.0.1", true},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct door door = {0};
    struct peer peer = {.host = host(rows[i].from)};
    if (rows[i].allow) row_true(rows[i].why, door_option(&door, false, rows[i].allow, NULL) == TARN_OK);
    row_true(rows[i].why, door_knows(&door, &peer) == rows[i].may);
  }
  struct door door = {0};
  struct peer listed = {.is_unix = true, .uid = 1001}, other = {.is_unix = true, .uid = 1003},
              ours = {.is_unix = true, .is_ours = true};
  assert_true(door_knows(&door, &other));
  assert_int_equal(door_option(&door, true, "uid=1000+1001", NULL), TARN_OK);
  assert_true(door_knows(&door, &listed));
  assert_false(door_knows(&door, &other));
  assert_true(door_knows(&door, &ours));
}

static void same_peers(void **state) {
  (void)state;
  static const struct {
    const char *why, *a, *b;
    bool same;
  } rows[] = {
      {"a host", "192.0.2.1", "192.0.2.1", true},
      {"another host", "192.0.2.1", "192.0.2.2", false},
      {"IPv6: another address of the same network", "2001:db8::1", "2001:db8::ffff:1", true},
      {"another network", "2001:db8:0:1::1", "2001:db8:0:2::1", false},
      {"an IPv4 address is in no network of IPv6", "192.0.2.1", "::1", false},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct peer a = {.host = host(rows[i].a)}, b = {.host = host(rows[i].b)};
    row_true(rows[i].why, peer_is_same(&a, &b) == rows[i].same);
    row_true(rows[i].why, peer_is_same(&b, &a) == rows[i].same);
  }
  struct peer user = {.is_unix = true, .uid = 1}, other = {.is_unix = true, .uid = 2}, tcp = {.is_unix = false};
  assert_true(peer_is_same(&user, &user));
  assert_false(peer_is_same(&user, &other));
  assert_false(peer_is_same(&user, &tcp));
}

static void who_it_is(void **state) {
  (void)state;
  struct peer peer;
  int pair[2];
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
  peer_of(pair[0], &peer);
  assert_true(peer.is_unix && peer.is_ours && peer.uid == geteuid());
  close(pair[0]);
  close(pair[1]);
  peer_of(pair[0], &peer);
  assert_false(peer.is_ours);
}

static void exports(void **state) {
  (void)state;
  static const struct {
    const char *why, *exports, *name;
    bool is_there;
  } rows[] = {
      {"no list: all", NULL, "vol0", true},
      {"a mirror of one volume", "exports=vol0", "vol0", true},
      {"a volume of a mirror", "exports=vol0", "vol0/data", true},
      {"a name that only begins so", "exports=vol0", "vol01", false},
      {"the beginning of a name", "exports=vol0", "vol", false},
      {"one volume", "exports=vol0/data", "vol0/data", true},
      {"another one", "exports=vol0/data", "vol0/log", false},
      {"its mirror", "exports=vol0/data", "vol0", false},
      {"the second of a list", "exports=vol0+vol1", "vol1", true},
      {"the empty name", "exports=vol0", "", false},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct door door = {0};
    if (rows[i].exports) row_true(rows[i].why, door_option(&door, true, rows[i].exports, NULL) == TARN_OK);
    row_true(rows[i].why, door_exports(&door, rows[i].name) == rows[i].is_there);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(options), cmocka_unit_test(lists), cmocka_unit_test(same_peers),
                                     cmocka_unit_test(who_it_is), cmocka_unit_test(exports)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
