#include "shell/disk_text.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/require.h"
#include "shell/words.h"

#define CONCAT   "concat:"
#define NBD_TCP  "nbd://"
#define NBD_UNIX "nbd+unix://"

bool disk_text_starts(const char *text, size_t bytes, enum disk_kind *kind) {
  static const struct {
    const char *prefix;
    enum disk_kind kind;
  } rows[] = {{"/", DISK_KIND_FILE},      {"./", DISK_KIND_FILE},   {"../", DISK_KIND_FILE},
              {CONCAT, DISK_KIND_CONCAT}, {NBD_TCP, DISK_KIND_NBD}, {NBD_UNIX, DISK_KIND_NBD}};
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    size_t length = strlen(rows[i].prefix);
    if (bytes < length || memcmp(text, rows[i].prefix, length) != 0) continue;
    *kind = rows[i].kind;
    return true;
  }
  return false;
}

static bool starts(const char *text, const char *prefix) { return strncmp(text, prefix, strlen(prefix)) == 0; }

/* ---- parts ---- */

static const struct {
  const char code[4];
  char meant;
} part_codes[] = {{"%3B", ';'}, {"%3b", ';'}, {"%40", '@'}, {"%25", '%'}};

/* The index of the code that `text` starts with, or -1. */
static int part_code(const char *text) {
  for (size_t i = 0; i < COUNT_OF(part_codes); i++)
    if (strncmp(text, part_codes[i].code, 3) == 0) return (int)i;
  return -1;
}

/* Decodes `text` in place. */
static void part_decode(char *text) {
  char *out = text;
  for (; *text; text++) {
    int code = *text == '%' ? part_code(text) : -1;
    *out++ = code < 0 ? *text : part_codes[code].meant;
    if (code >= 0) text += 2;
  }
  *out = 0;
}

static bool offset_parse(const char *text, uint64_t *bytes) {
  *bytes = 0;
  return strcmp(text, "0") == 0 || size_parse(text, bytes, NULL) == TARN_OK;
}

/* Takes @OFFSET+LENGTH off the end of `text`, if that is what it ends with. */
static tarn_err range_take(char *text, struct disk_part *part, struct why *why) {
  char *at = strrchr(text, '@'), *plus = at ? strchr(at, '+') : NULL;
  part->offset = part->length = 0;
  if (!plus || !isdigit((unsigned char)at[1]) || strchr(at, '/')) return TARN_OK; /* a part of the name */
  char start[SIZE_TEXT] = "";
  if ((size_t)(plus - at) <= sizeof start) memcpy(start, at + 1, (size_t)(plus - at) - 1);
  if (!offset_parse(start, &part->offset) || size_parse(plus + 1, &part->length, NULL) != TARN_OK)
    return because(why, TARN_INVALID,
                   "'%.60s' is no range: a part is written PATH@OFFSET+LENGTH, like /dev/sdb@1G+10G (an @ in a path "
                   "is written %%40)",
                   at);
  if (part->offset % PART_ALIGN != 0 || part->length % PART_ALIGN != 0)
    return because(why, TARN_INVALID,
                   "the part '%.60s' is not aligned: offset and length must be multiples of %u, like @%llu+%llu", at,
                   PART_ALIGN, (unsigned long long)align_down(part->offset, PART_ALIGN),
                   (unsigned long long)max_u64(align_down(part->length, PART_ALIGN), PART_ALIGN));
  if (part->offset > INT64_MAX - part->length)
    return because(why, TARN_INVALID, "the part '%.60s' ends beyond what a disk can have", at);
  *at = 0;
  return TARN_OK;
}

static tarn_err path_check(const char *path, struct why *why) {
  size_t bytes = strlen(path);
  enum disk_kind kind;
  if (bytes == 0) return because(why, TARN_INVALID, "a part of a concat: is empty: write concat:PATH;PATH");
  if (!disk_text_starts(path, bytes, &kind))
    return because(why, TARN_INVALID, "'%.80s' is no path: a path starts with /, ./ or ../", path);
  if (kind != DISK_KIND_FILE)
    return because(why, TARN_INVALID, "'%.80s' cannot be a part of a concat:, only files and block devices can", path);
  if (path[bytes - 1] == '/') return because(why, TARN_INVALID, "the path '%.80s' names a folder, not a file", path);
  return TARN_OK;
}

static bool parts_overlap(const struct disk_part *a, const struct disk_part *b) {
  if (strcmp(a->path, b->path) != 0) return false;
  if (a->length == 0 || b->length == 0) return true;
  return a->offset < b->offset + b->length && b->offset < a->offset + a->length;
}

static tarn_err parts_parse(const char *text, struct disk_text *disk, struct why *why) {
  while (true) {
    const char *end = strchrnul(text, ';');
    if (disk->part_count == DISK_PARTS_MAX)
      return because(why, TARN_INVALID, "a concat: has at most %u parts", DISK_PARTS_MAX);
    struct disk_part *part = &disk->parts[disk->part_count];
    if ((size_t)(end - text) > PATH_BYTES_MAX)
      return because(why, TARN_INVALID, "a path is longer than %u bytes", PATH_BYTES_MAX);
    memcpy(part->path, text, (size_t)(end - text));
    part->path[end - text] = 0;
    tarn_err err = range_take(part->path, part, why);
    if (err == TARN_OK) part_decode(part->path);
    if (err == TARN_OK) err = path_check(part->path, why);
    if (err != TARN_OK) return err;
    for (uint32_t i = 0; i < disk->part_count; i++)
      if (parts_overlap(part, &disk->parts[i]))
        return because(why, TARN_INVALID, "two parts of a concat: overlap, both in %.120s", part->path);
    disk->part_count++;
    if (!*end) return TARN_OK;
    text = end + 1;
  }
}

/* ---- NBD ---- */

static tarn_err tcp_check(const char *rest, struct why *why) {
  const char *host_end = rest[0] == '[' ? strchr(rest, ']') : rest + strcspn(rest, ":/?");
  const char *after = host_end ? host_end + (rest[0] == '[') : rest;
  if (!host_end || host_end == rest + (rest[0] == '['))
    return because(why, TARN_INVALID, "an NBD address needs a host: nbd://HOST[:PORT]/EXPORT");
  if (*after == ':') {
    char *end;
    unsigned long port = isdigit((unsigned char)after[1]) ? strtoul(after + 1, &end, 10) : 0;
    if (port < 1 || port > 65535 || (*end && *end != '/'))
      return because(why, TARN_INVALID, "the port in 'nbd://%.80s' is no number from 1 to 65535", rest);
    after = end;
  }
  if ((*after && *after != '/') || strchr(after, '?') || strchr(after, '#'))
    return because(why, TARN_INVALID, "'nbd://%.80s' is no NBD address: write nbd://HOST[:PORT]/EXPORT", rest);
  return TARN_OK;
}

static tarn_err unix_check(const char *rest, bool absolute, struct why *why) {
  const char *query = strchr(rest, '?');
  if (rest[0] != '/' || !query || !starts(query, "?socket=") || strpbrk(query, "&#"))
    return because(why, TARN_INVALID,
                   "'nbd+unix://%.80s' is no NBD address: write nbd+unix:///EXPORT?socket=/path/to/socket", rest);
  const char *path = query + strlen("?socket=");
  if (absolute && path[0] != '/' && !starts(path, "%2F") && !starts(path, "%2f"))
    return because(why, TARN_INVALID, "the socket '%.80s' of an NBD address is not absolute", path);
  return *path ? TARN_OK : because(why, TARN_INVALID, "the socket of an NBD address is empty: ?socket=/path/to/socket");
}

static int hex_digit(char c) {
  static const char digits[] = "0123456789abcdef";
  const char *at = c ? strchr(digits, tolower((unsigned char)c)) : NULL;
  return at ? (int)(at - digits) : -1;
}

/* Decodes %XX from `text` up to `end`; a NUL never comes out of it. Returns the end of `out`. */
static char *uri_decode(const char *text, const char *end, char *out) {
  for (; text < end; text++) {
    int high = *text == '%' && end - text >= 3 ? hex_digit(text[1]) : -1, low = high >= 0 ? hex_digit(text[2]) : -1;
    bool code = low >= 0 && (high || low);
    *out++ = code ? (char)(high * 16 + low) : *text;
    if (code) text += 2;
  }
  *out = 0;
  return out;
}

void nbd_text_key(const char *text, char key[PATH_BYTES_MAX + 16]) {
  if (starts(text, NBD_UNIX)) {
    const char *export = text + strlen(NBD_UNIX), *query = strchrnul(export, '?'), *socket = strchrnul(query, '=');
    char *out = uri_decode(export, query, stpcpy(key, "unix:"));
    if (*socket) uri_decode(socket + 1, socket + strlen(socket), stpcpy(out, "?"));
    return;
  }
  const char *host = text + strlen(NBD_TCP);
  const char *slash = strchrnul(host, '/'), *bracket = host[0] == '[' ? strchrnul(host, ']') : host;
  const char *colon = memchr(bracket, ':', (size_t)(slash > bracket ? slash - bracket : 0));
  const char *host_end = colon ? colon : slash;
  unsigned long port = colon ? strtoul(colon + 1, NULL, 10) : NBD_PORT;
  char *out = stpcpy(key, "tcp:");
  for (; host < host_end; host++) *out++ = (char)tolower((unsigned char)*host);
  out += sprintf(out, ":%lu/", port % 100000);
  uri_decode(*slash ? slash + 1 : slash, slash + strlen(slash), out);
}

/* ---- all of it ---- */

static tarn_err parse(const char *text, bool absolute, struct disk_text *disk, struct why *why) {
  size_t bytes = strlen(text);
  disk->part_count = 0;
  if (!disk_text_starts(text, bytes, &disk->kind))
    return because(why, TARN_INVALID, "'%.80s' is no path: a path starts with /, ./ or ../", text);
  if (bytes > PATH_BYTES_MAX) return because(why, TARN_INVALID, "a path is longer than %u bytes", PATH_BYTES_MAX);
  tarn_err err = TARN_OK;
  switch (disk->kind) {
    case DISK_KIND_FILE:
      disk->part_count = 1;
      disk->parts[0].offset = disk->parts[0].length = 0;
      strcpy(disk->parts[0].path, text);
      err = path_check(text, why);
      break;
    case DISK_KIND_CONCAT: err = parts_parse(text + strlen(CONCAT), disk, why); break;
    case DISK_KIND_NBD:
      if (starts(text, NBD_TCP)) return tcp_check(text + strlen(NBD_TCP), why);
      return unix_check(text + strlen(NBD_UNIX), absolute, why);
  }
  for (uint32_t i = 0; i < disk->part_count && absolute && err == TARN_OK; i++)
    if (disk->parts[i].path[0] != '/')
      err = because(why, TARN_INVALID, "the path '%.120s' is not absolute", disk->parts[i].path);
  return err;
}

tarn_err disk_text_parse(const char *text, struct disk_text *disk, struct why *why) {
  return parse(text, false, disk, why);
}

tarn_err disk_text_check(const char *text, struct why *why) {
  struct disk_text *disk = malloc(sizeof *disk);
  if (!disk) return because(why, TARN_FULL, "there is not enough memory");
  tarn_err err = parse(text, true, disk, why);
  free(disk);
  return err;
}

/* ---- absolute paths ---- */

struct text_out {
  char *at, *end;
  bool full;
};

static void put(struct text_out *out, const char *text, size_t bytes) {
  out->full = out->full || (size_t)(out->end - out->at) < bytes;
  if (out->full) return;
  memcpy(out->at, text, bytes);
  out->at += bytes;
}

/* The folder as a part of a PART. */
static void put_folder(struct text_out *out, const char *folder, bool encode) {
  for (; *folder; folder++) {
    if (encode && *folder == ';') put(out, "%3B", 3);
    else if (encode && *folder == '%' && part_code(folder) >= 0) put(out, "%25", 3);
    else put(out, folder, 1);
  }
}

/* One path, up to `end`. Only "./" is dropped: folding ".." by text would be wrong behind a symbolic link. */
static void put_absolute(struct text_out *out, const char *path, const char *end, const char *folder, bool encode) {
  if (path[0] == '.') {
    while (path[0] == '.' && path[1] == '/') path += 2;
    if (strcmp(folder, "/") != 0) put_folder(out, folder, encode);
    put(out, "/", 1);
  }
  put(out, path, (size_t)(end - path));
}

tarn_err path_absolute(char text[PATH_BYTES_MAX + 1], const char *folder, struct why *why) {
  char joined[PATH_BYTES_MAX];
  struct text_out out = {joined, joined + sizeof joined, false};
  bool concat = disk_text_kind(text) == DISK_KIND_CONCAT;
  if (text[0] == '/' || disk_text_kind(text) == DISK_KIND_NBD) return TARN_OK;
  require(folder[0] == '/');
  const char *at = text;
  if (concat) put(&out, CONCAT, strlen(CONCAT)), at += strlen(CONCAT);
  while (true) {
    const char *end = concat ? strchrnul(at, ';') : at + strlen(at);
    put_absolute(&out, at, end, folder, concat);
    if (!*end) break;
    put(&out, ";", 1);
    at = end + 1;
  }
  if (out.full)
    return because(why, TARN_INVALID, "the path '%.80s' is longer than %u bytes once it is absolute", text,
                   PATH_BYTES_MAX);
  memcpy(text, joined, (size_t)(out.at - joined));
  text[out.at - joined] = 0;
  return TARN_OK;
}
