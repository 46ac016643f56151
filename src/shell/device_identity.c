/* device_identity.c - see device_identity.h. */
#include "shell/device_identity.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/prng.h"
#include "base/require.h"

#define UDEV_BYTES 16384u
#define PATH_BYTES 4096u

/* In the order of their strength. */
static const char *const kinds[] = {"tail",   "dm",   "md",   "MD_UUID",   "wwid", "wwn",
                                    "serial", "udev", "file", "partition", "path"};
#define FIRST_WEAK 9u

static size_t kind_of(const char *fact) {
  size_t kind = 0;
  while (kind < COUNT_OF(kinds) &&
         !(strncmp(fact, kinds[kind], strlen(kinds[kind])) == 0 && fact[strlen(kinds[kind])] == ' '))
    kind++;
  return kind;
}

static const char *fact_of(const struct device_identity *identity, size_t kind) {
  for (uint32_t i = 0; i < identity->count; i++)
    if (kind_of(identity->facts[i]) == kind) return identity->facts[i];
  return NULL;
}

void device_identity_add(struct device_identity *identity, const char *kind, const char *value) {
  char fact[DEVICE_FACT_BYTES];
  (void)snprintf(fact, sizeof fact, "%s %s", kind, value);
  if (!value[0] || identity->count == DEVICE_FACTS_MAX || fact_of(identity, kind_of(fact))) return;
  memcpy(identity->facts[identity->count++], fact, sizeof fact);
}

/* ---- reading ---- */

/* The whole of a small file, without the blanks and line breaks around it; false when there is none, or nothing in it. */
static bool text_read(const char *path, char *text, size_t bytes) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  ssize_t got = read(fd, text, bytes - 1);
  close(fd);
  size_t length = got > 0 ? (size_t)got : 0, start = 0;
  while (length > 0 && isspace((unsigned char)text[length - 1])) length--;
  while (start < length && isspace((unsigned char)text[start])) start++;
  memmove(text, text + start, length - start);
  text[length - start] = 0;
  return length > start;
}

/* A device whose facts are read. */
struct look {
  const char *root;
  uint64_t device;
  unsigned partition; /* 0: it is the whole disk */
  char nsid[16];      /* of an NVMe namespace, else empty: all of a controller have one serial */
  struct device_identity *identity;
};

static bool sys_read(const struct look *look, const char *name, char *text, size_t bytes) {
  char path[PATH_BYTES];
  (void)snprintf(path, sizeof path, "%s/sys/dev/block/%u:%u/%s", look->root, major(look->device), minor(look->device),
                 name);
  return text_read(path, text, bytes);
}

/* What a disk says of itself says it of its partitions, with their number. */
static void disk_fact(const struct look *look, const char *kind, const char *value) {
  char text[DEVICE_FACT_BYTES], partition[16] = "";
  bool serial = look->nsid[0] && (strcmp(kind, "serial") == 0 || strcmp(kind, "udev") == 0);
  if (look->partition) (void)snprintf(partition, sizeof partition, "#%u", look->partition);
  (void)snprintf(text, sizeof text, "%.150s%s%s%s", value, serial ? "/" : "", serial ? look->nsid : "", partition);
  device_identity_add(look->identity, kind, text);
}

/* From the first of these files that there is. */
static void fact_from(const struct look *look, const char *kind, const char *const *names) {
  char text[DEVICE_FACT_BYTES], name[64];
  for (; *names; names++) {
    (void)snprintf(name, sizeof name, "%s%s", look->partition ? "../" : "", *names);
    if (!sys_read(look, name, text, sizeof text)) continue;
    disk_fact(look, kind, text);
    return;
  }
}

/* The rest of the line of udev's database that begins with `key`. */
static bool udev_find(const char *database, const char *key, char *value, size_t bytes) {
  size_t length = strlen(key);
  for (const char *line = database; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
    if (strncmp(line, key, length) != 0) continue;
    (void)snprintf(value, bytes, "%.*s", (int)strcspn(line + length, "\n"), line + length);
    return value[0] != 0;
  }
  return false;
}

static bool udev_read(const char *root, uint64_t device, char *database, size_t bytes) {
  char path[PATH_BYTES];
  (void)snprintf(path, sizeof path, "%s/run/udev/data/b%u:%u", root, major(device), minor(device));
  return text_read(path, database, bytes);
}

static void udev_facts(const struct look *look) {
  char database[UDEV_BYTES], value[DEVICE_FACT_BYTES];
  if (!udev_read(look->root, look->device, database, sizeof database)) return;
  if (udev_find(database, "E:DM_UUID=", value, sizeof value)) device_identity_add(look->identity, "dm", value);
  if (udev_find(database, "E:MD_UUID=", value, sizeof value)) device_identity_add(look->identity, "MD_UUID", value);
  if (udev_find(database, "E:ID_WWN_WITH_EXTENSION=", value, sizeof value) ||
      udev_find(database, "E:ID_WWN=", value, sizeof value))
    disk_fact(look, "wwn", value);
  if (udev_find(database, "E:ID_SERIAL=", value, sizeof value)) disk_fact(look, "udev", value);
  if (udev_find(database, "E:ID_PART_ENTRY_UUID=", value, sizeof value))
    device_identity_add(look->identity, "partition", value);
}

/* PARTUUID, without udev. */
static void partition_fact(const struct look *look) {
  char text[PATH_BYTES], value[DEVICE_FACT_BYTES];
  if (look->partition && sys_read(look, "uevent", text, sizeof text) &&
      udev_find(text, "PARTUUID=", value, sizeof value))
    device_identity_add(look->identity, "partition", value);
}

static void loop_facts(const struct look *look) {
  char file[PATH_BYTES], offset[32], path[PATH_BYTES * 2], value[DEVICE_FACT_BYTES];
  struct statx status;
  if (!sys_read(look, "loop/backing_file", file, sizeof file)) return;
  if (!sys_read(look, "loop/offset", offset, sizeof offset)) strcpy(offset, "0");
  bool begins = strcmp(offset, "0") == 0;
  (void)snprintf(path, sizeof path, "%s%s", look->root, file);
  if (statx(AT_FDCWD, path, 0, STATX_BASIC_STATS | STATX_BTIME, &status) == 0) {
    (void)snprintf(value, sizeof value, "%llu.%lld.%u%s%s", (unsigned long long)status.stx_ino,
                   (long long)(status.stx_mask & STATX_BTIME ? status.stx_btime.tv_sec : 0),
                   status.stx_mask & STATX_BTIME ? status.stx_btime.tv_nsec : 0, begins ? "" : "@",
                   begins ? "" : offset);
    device_identity_add(look->identity, "file", value);
  }
  (void)snprintf(value, sizeof value, "%.150s%s%s", file, begins ? "" : "@", begins ? "" : offset);
  device_identity_add(look->identity, "path", value);
}

static int by_strength(const void *a, const void *b) {
  size_t x = kind_of(a), y = kind_of(b);
  return x < y ? -1 : x > y;
}

void device_identity_read(const char *root, uint64_t device, struct device_identity *identity) {
  struct look look = {.root = root, .device = device, .identity = identity};
  char text[32];
  *identity = (struct device_identity){.count = 0};
  if (sys_read(&look, "partition", text, sizeof text)) look.partition = (unsigned)strtoul(text, NULL, 10);
  if (!sys_read(&look, look.partition ? "../nsid" : "nsid", look.nsid, sizeof look.nsid)) look.nsid[0] = 0;
  fact_from(&look, "dm", (const char *const[]){"dm/uuid", NULL});
  fact_from(&look, "md", (const char *const[]){"md/uuid", NULL});
  fact_from(&look, "wwid", (const char *const[]){"wwid", "device/wwid", NULL});
  fact_from(&look, "serial", (const char *const[]){"serial", "device/serial", NULL});
  partition_fact(&look);
  udev_facts(&look);
  loop_facts(&look);
  qsort(identity->facts, identity->count, sizeof identity->facts[0], by_strength);
}

/* ---- comparing ---- */

static enum device_sameness compare_kinds(const struct device_identity *a, const struct device_identity *b, size_t from,
                                          size_t to) {
  enum device_sameness sameness = DEVICE_UNKNOWN;
  for (size_t kind = from; kind < to; kind++) {
    const char *x = fact_of(a, kind), *y = fact_of(b, kind);
    if (!x || !y) continue;
    if (strcmp(x, y) == 0) return DEVICE_SAME;
    sameness = DEVICE_OTHER;
  }
  return sameness;
}

enum device_sameness device_identity_compare(const struct device_identity *a, const struct device_identity *b) {
  /* What we wrote there ourselves decides alone: of two copies of a disk one is a copy. */
  if (fact_of(a, 0) && fact_of(b, 0)) return compare_kinds(a, b, 0, 1);
  enum device_sameness sameness = compare_kinds(a, b, 1, FIRST_WEAK);
  return sameness != DEVICE_UNKNOWN ? sameness : compare_kinds(a, b, FIRST_WEAK, COUNT_OF(kinds));
}

uint64_t device_identity_number(const struct device_identity *identity, uint32_t index) {
  if (index >= identity->count) return 0;
  uint64_t number = 0;
  for (const char *at = identity->facts[index]; *at; at++) number = mix_u64(number ^ (unsigned char)*at);
  return number | 1;
}

const char *device_identity_text(const struct device_identity *identity) {
  return identity->count > 0 ? identity->facts[0] : "nothing is known of it";
}

/* ---- names ---- */

/* A link of that folder, from udev's database: "S:disk/by-id/..."; of several the first that is no bare number. */
static void link_find(const char *database, char *link) {
  static const char prefix[] = "S:disk/by-id/";
  link[0] = 0;
  for (const char *line = database; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
    if (strncmp(line, prefix, sizeof prefix - 1) != 0) continue;
    const char *name = line + sizeof prefix - 1;
    bool bare = strncmp(name, "wwn-", 4) == 0 || strncmp(name, "nvme-eui.", 9) == 0;
    if (link[0] && bare) continue;
    (void)snprintf(link, DEVICE_LINK_BYTES, "/dev/disk/by-id/%.*s", (int)strcspn(name, "\n"), name);
    if (!bare) return;
  }
}

bool device_name_moves(const char *root, const char *path, uint64_t device, char *link) {
  char database[UDEV_BYTES], sys[PATH_BYTES], target[PATH_BYTES];
  link[0] = 0;
  /* The kernel's own name for it: the last part of what the number's link in sysfs leads to. */
  (void)snprintf(sys, sizeof sys, "%s/sys/dev/block/%u:%u", root, major(device), minor(device));
  ssize_t bytes = readlink(sys, target, sizeof target - 1);
  if (strncmp(path, "/dev/", 5) != 0 || bytes <= 0) return false;
  target[bytes] = 0;
  const char *name = strrchr(target, '/');
  if (!name || strcmp(path + 5, name + 1) != 0) return false;
  if (udev_read(root, device, database, sizeof database)) link_find(database, link);
  return true;
}
