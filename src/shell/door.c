/* door.c - see door.h. */
#include "shell/door.h"

#include <arpa/inet.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "format/record.h"

_Static_assert(DOOR_NAME_BYTES == 2 * (TARN_NAME_MAX + 1), "two names and a slash");

#define IPV4_BITS   96u /* before an IPv4 address in its place among those of IPv6 */
#define SUBNET_BITS 64u

/* ---- hosts ---- */

static struct in6_addr host_of_ipv4(struct in_addr ipv4) {
  struct in6_addr host = {0};
  host.s6_addr[10] = host.s6_addr[11] = 0xff;
  memcpy(&host.s6_addr[12], &ipv4, 4);
  return host;
}

struct in6_addr host_of(const struct sockaddr *name) {
  struct sockaddr_in ipv4;
  struct sockaddr_in6 ipv6;
  memcpy(&ipv6, name, name->sa_family == AF_INET6 ? sizeof ipv6 : sizeof ipv4);
  if (name->sa_family == AF_INET6) return ipv6.sin6_addr;
  memcpy(&ipv4, name, sizeof ipv4);
  return host_of_ipv4(ipv4.sin_addr);
}

bool host_is_loopback(const struct in6_addr *host) {
  return IN6_IS_ADDR_LOOPBACK(host) || (IN6_IS_ADDR_V4MAPPED(host) && host->s6_addr[12] == 127);
}

/* Are the first `bits` the same? */
static bool host_matches(const struct in6_addr *a, const struct in6_addr *b, uint32_t bits) {
  uint32_t bytes = bits / 8, rest = bits % 8;
  if (memcmp(a, b, bytes) != 0) return false;
  return rest == 0 || (a->s6_addr[bytes] ^ b->s6_addr[bytes]) >> (8 - rest) == 0;
}

/* ---- options ---- */

static bool number_parse(const char *text, uint32_t max, uint32_t *number) {
  char *end;
  unsigned long value = strtoul(text, &end, 10);
  if (text[0] < '0' || text[0] > '9' || *end != 0 || value > max) return false;
  *number = (uint32_t)value;
  return true;
}

static bool host_parse(const char *text, struct in6_addr *host, uint32_t *base_bits) {
  struct in_addr ipv4;
  *base_bits = 0;
  if (inet_pton(AF_INET6, text, host) == 1) return true;
  *base_bits = IPV4_BITS;
  if (inet_pton(AF_INET, text, &ipv4) != 1) return false;
  *host = host_of_ipv4(ipv4);
  return true;
}

static tarn_err prefix_add(struct door *door, char *text, struct why *why) {
  struct prefix *prefix = &door->allow[door->allow_count];
  char *slash = strchr(text, '/');
  uint32_t base_bits;
  if (slash) *slash = 0;
  if (!host_parse(text, &prefix->host, &base_bits))
    return because(why, TARN_INVALID, "'%.60s' is no IPv4 or IPv6 address, as in allow=10.1.0.0/16+fd00::5", text);
  prefix->bits = 128 - base_bits;
  if (slash && !number_parse(slash + 1, 128 - base_bits, &prefix->bits))
    return because(why, TARN_INVALID, "'%.10s' is not a number of bits from 0 to %u", slash + 1, 128 - base_bits);
  prefix->bits += base_bits;
  /* 10.1.2.3/8 may be meant as one host, or as one sixteenth of a million: better to ask. */
  for (uint32_t bit = prefix->bits; bit < 128; bit++)
    if (prefix->host.s6_addr[bit / 8] & 0x80 >> bit % 8)
      return because(why, TARN_INVALID, "%.60s/%s has bits set behind its first %s: give the network's own address",
                     text, slash + 1, slash + 1);
  door->allow_count++;
  return TARN_OK;
}

static tarn_err uid_add(struct door *door, char *text, struct why *why) {
  uint32_t number;
  const struct passwd *found = getpwnam(text);
  if (!found && !number_parse(text, UINT32_MAX - 1, &number))
    return because(why, TARN_INVALID, "there is no user '%.80s'", text);
  door->uids[door->uid_count++] = found ? found->pw_uid : number;
  return TARN_OK;
}

static tarn_err list_parse(struct door *door, const char *value, uint32_t *count,
                           tarn_err (*add)(struct door *, char *, struct why *), struct why *why) {
  char word[256];
  *count = 0;
  for (const char *at = value, *end; at; at = *end ? end + 1 : NULL) {
    end = at + strcspn(at, "+");
    if ((size_t)(end - at) >= sizeof word) return because(why, TARN_INVALID, "'%.40s...' is too long", at);
    if (*count == DOOR_LIST_MAX) return because(why, TARN_INVALID, "at most %u in one list", DOOR_LIST_MAX);
    memcpy(word, at, (size_t)(end - at));
    word[end - at] = 0;
    tarn_err err = add(door, word, why);
    if (err != TARN_OK) return err;
  }
  return TARN_OK;
}

static tarn_err connections_parse(const char *option, const char *value, uint32_t *number, struct why *why) {
  if (number_parse(value, DOOR_CONNECTIONS_MAX, number) && *number > 0) return TARN_OK;
  return because(why, TARN_INVALID, "'%.80s' is not followed by a number from 1 to %u", option, DOOR_CONNECTIONS_MAX);
}

/* MIRROR or MIRROR/VOLUME. They need not be there yet. */
static tarn_err export_add(struct door *door, char *text, struct why *why) {
  const char *slash = strchr(text, '/');
  size_t mirror_bytes = slash ? (size_t)(slash - text) : strlen(text);
  if (!record_name_is_valid(text, mirror_bytes) || (slash && !record_name_is_valid(slash + 1, strlen(slash + 1))))
    return because(why, TARN_INVALID, "'%.130s' is neither MIRROR nor MIRROR/VOLUME, as in exports=vol0+vol1/data",
                   text);
  strcpy(door->exports[door->export_count++], text);
  return TARN_OK;
}

/* NULL: it is another one. */
static const char *value_of(const char *option, const char *name) {
  size_t bytes = strlen(name);
  return strncmp(option, name, bytes) == 0 && option[bytes] == '=' ? option + bytes + 1 : NULL;
}

tarn_err door_option(struct door *door, bool is_unix, const char *option, struct why *why) {
  const char *value;
  if ((value = value_of(option, "connections"))) return connections_parse(option, value, &door->connections, why);
  if ((value = value_of(option, "per-peer"))) return connections_parse(option, value, &door->per_peer, why);
  if ((value = value_of(option, "exports"))) return list_parse(door, value, &door->export_count, export_add, why);
  if (is_unix && (value = value_of(option, "uid"))) return list_parse(door, value, &door->uid_count, uid_add, why);
  if (!is_unix && (value = value_of(option, "allow")))
    return list_parse(door, value, &door->allow_count, prefix_add, why);
  return TARN_NOT_FOUND;
}

/* ---- peers ---- */

void peer_of(int fd, struct peer *peer) {
  union {
    struct sockaddr any;
    struct sockaddr_storage room;
  } name = {0};
  struct ucred who;
  socklen_t bytes = sizeof name, who_bytes = sizeof who;
  *peer = (struct peer){.uid = (uid_t)-1};
  if (getsockname(fd, &name.any, &bytes) == 0) peer->is_unix = name.any.sa_family == AF_UNIX;
  bytes = sizeof name;
  if (!peer->is_unix) {
    if (getpeername(fd, &name.any, &bytes) == 0) peer->host = host_of(&name.any);
  } else if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &who_bytes) == 0) {
    peer->uid = who.uid;
    peer->is_ours = who.uid == 0 || who.uid == geteuid();
  }
}

bool peer_is_same(const struct peer *a, const struct peer *b) {
  if (a->is_unix || b->is_unix) return a->is_unix == b->is_unix && a->uid == b->uid;
  bool exactly = IN6_IS_ADDR_V4MAPPED(&a->host) || IN6_IS_ADDR_V4MAPPED(&b->host);
  return host_matches(&a->host, &b->host, exactly ? 128 : SUBNET_BITS);
}

bool door_knows(const struct door *door, const struct peer *peer) {
  if (peer->is_ours || (peer->is_unix ? door->uid_count : door->allow_count) == 0) return true;
  if (peer->is_unix) {
    for (uint32_t i = 0; i < door->uid_count; i++)
      if (door->uids[i] == peer->uid) return true;
    return false;
  }
  for (uint32_t i = 0; i < door->allow_count; i++)
    if (host_matches(&door->allow[i].host, &peer->host, door->allow[i].bits)) return true;
  return false;
}

bool door_exports(const struct door *door, const char *name) {
  for (uint32_t i = 0; i < door->export_count; i++) {
    size_t bytes = strlen(door->exports[i]);
    if (strncmp(door->exports[i], name, bytes) == 0 && (name[bytes] == 0 || name[bytes] == '/')) return true;
  }
  return door->export_count == 0;
}
