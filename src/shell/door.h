/* door.h - who may connect to an address that we listen on, how often, and to what: the options behind an NBD address.
 *
 *     allow=PREFIX[+PREFIX...]   TCP: only these may; PREFIX is ADDRESS or ADDRESS/BITS, IPv4 or IPv6
 *     uid=USER[+USER...]         Unix: only these users may, beside root and ours; a number or a name
 *     connections=N              so many of all clients there at once
 *     per-peer=N                 so many of one peer at once, wherever it connects
 *     exports=NAME[+NAME...]     no others are there; NAME is MIRROR, for all its volumes, or MIRROR/VOLUME
 *
 * A peer is a user of this machine, or a host: an IPv4 address, or the 64 bits of an IPv6 address that name its network, in which any
 * host may take as many addresses as it likes. Root and our own user could do anything to us: they are ours, and no list and no number
 * keeps them out. What an address exports is the same for all who come there.
 *
 * What an address says of a TCP peer is as good as the network: whoever can send with another's address, or read on the way, is not
 * kept out by a list. */
#ifndef TARN_SHELL_DOOR_H
#define TARN_SHELL_DOOR_H

#include "shell/why.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define DOOR_LIST_MAX        16u
#define DOOR_CONNECTIONS_MAX 1000000u
#define DOOR_NAME_BYTES      128u /* of MIRROR/VOLUME, with its 0 */

struct prefix {
  struct in6_addr host; /* an IPv4 address in its place among those of IPv6 */
  uint32_t bits;
};

struct door {
  uint32_t allow_count, uid_count; /* 0: no list, whoever comes may */
  struct prefix allow[DOOR_LIST_MAX];
  uid_t uids[DOOR_LIST_MAX];
  uint32_t connections, per_peer; /* 0: not said */
  uint32_t export_count;          /* 0: all are there */
  char exports[DOOR_LIST_MAX][DOOR_NAME_BYTES];
};

struct peer {
  bool is_unix, is_ours;
  uid_t uid;
  struct in6_addr host;
};

/* `option` is NAME=VALUE. TARN_NOT_FOUND: it is none for such an address. TARN_INVALID with the reason. */
CHECKED tarn_err door_option(struct door *door, bool is_unix, const char *option, struct why *why);

/* The other end of a connection. One that cannot be told, since it is gone already, is nobody of any list. */
void peer_of(int fd, struct peer *peer);
bool peer_is_same(const struct peer *a, const struct peer *b);
/* By the lists. */
bool door_knows(const struct door *door, const struct peer *peer);
/* Is an export of this name there? */
bool door_exports(const struct door *door, const char *name);

/* Of an IPv4 address, its place among those of IPv6; of an IPv6 address, itself. */
struct in6_addr host_of(const struct sockaddr *name);
bool host_is_loopback(const struct in6_addr *host);

#endif
