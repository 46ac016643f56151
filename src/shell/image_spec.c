#include "shell/image_spec.h"

#include <stdlib.h>
#include <string.h>

#include "shell/words.h"

/* A part of the text that is parsed. */
struct span {
  const char *at, *end;
};
static size_t span_bytes(struct span span) { return (size_t)(span.end - span.at); }
static bool span_starts(struct span span, const char *prefix) {
  size_t bytes = strlen(prefix);
  return span_bytes(span) >= bytes && memcmp(span.at, prefix, bytes) == 0;
}
static const char *span_find(struct span span, char c) {
  return span_bytes(span) == 0 ? NULL : memchr(span.at, c, span_bytes(span));
}
/* For %.*s: cut, because the text is a stranger's. */
#define SPAN_SHOW(span) (int)min_u64(span_bytes(span), 80), (span).at

/* Decodes %2B %2C %25 into `out`; an NBD address is encoded in its own way, and stays as it is. */
static tarn_err path_decode(struct span text, char out[PATH_BYTES_MAX + 1], struct why *why) {
  size_t used = 0;
  enum disk_kind kind = DISK_KIND_FILE;
  (void)disk_text_starts(text.at, span_bytes(text), &kind);
  for (const char *at = text.at; at < text.end; at++) {
    char c = *at;
    if (kind != DISK_KIND_NBD && c == '%' && text.end - at >= 3 && at[1] == '2') {
      static const char codes[] = "BbCc5", meant[] = "++,,%";
      const char *code = at[2] ? strchr(codes, at[2]) : NULL;
      if (code) c = meant[code - codes], at += 2;
    }
    if (c == '\n' || c == '\0') return because(why, TARN_INVALID, "a path may not contain a line break");
    if (used == PATH_BYTES_MAX) return because(why, TARN_INVALID, "a path is longer than %u bytes", PATH_BYTES_MAX);
    out[used++] = c;
  }
  out[used] = 0;
  require(used > 0);
  return TARN_OK;
}

/* Takes NAME= or NODE: off the front of `text`, if it is one and a path follows (`after` says whether). */
static bool label_take(struct span *text, char separator, char out[TARN_NAME_MAX + 1], bool (*after)(struct span)) {
  const char *mark = span_find(*text, separator);
  if (!mark || !record_name_is_valid(text->at, (size_t)(mark - text->at))) return false;
  struct span rest = {mark + 1, text->end};
  if (!after(rest)) return false;
  memcpy(out, text->at, (size_t)(mark - text->at));
  out[mark - text->at] = 0;
  text->at = mark + 1;
  return true;
}
static bool is_path(struct span text) {
  enum disk_kind kind;
  return disk_text_starts(text.at, span_bytes(text), &kind);
}
static bool is_path_or_node(struct span text) {
  char node[TARN_NAME_MAX + 1];
  return is_path(text) || label_take(&text, ':', node, is_path);
}

/* The + that ends the path at the start of `text`; NULL: none does. That of nbd+unix: does not, nor one before a LENGTH. */
static const char *path_end(struct span text) {
  struct span rest = text;
  bool concat = span_starts(text, "concat:");
  if (span_starts(text, "nbd+unix:")) rest.at += strlen("nbd+unix:");
  while (true) {
    const char *plus = span_find(rest, '+');
    if (!plus || !concat || plus + 1 == text.end || plus[1] < '0' || plus[1] > '9') return plus;
    rest.at = plus + 1;
  }
}

static tarn_err text_check(const char *text, struct why *why) {
  struct disk_text *disk = malloc(sizeof *disk);
  if (!disk) return because(why, TARN_FULL, "there is not enough memory");
  tarn_err err = disk_text_parse(text, disk, why);
  free(disk);
  return err;
}

static tarn_err paths_parse(struct span text, struct image_spec *spec, struct why *why) {
  while (true) {
    if (!is_path(text))
      return because(
          why, TARN_INVALID,
          "'%.*s' is no path: a path starts with /, ./ or ../ (a + inside one is written %%2B, a comma %%2C)",
          SPAN_SHOW(text));
    const char *plus = path_end(text);
    struct span one = {text.at, plus ? plus : text.end};
    if (spec->path_count == VOLUMES_MAX)
      return because(why, TARN_INVALID, "an image has at most %u paths, one per volume", VOLUMES_MAX);
    tarn_err err = path_decode(one, spec->paths[spec->path_count], why);
    if (err == TARN_OK) err = text_check(spec->paths[spec->path_count], why);
    if (err != TARN_OK) return err;
    spec->path_count++;
    if (!plus) return TARN_OK;
    text.at = plus + 1;
  }
}

static const char *const key_names[] = {"policy", "meta", "overwrite"};
static const char *key_name(const void *context, size_t index) {
  (void)context;
  return index < COUNT_OF(key_names) ? key_names[index] : NULL;
}

static tarn_err value_parse(unsigned key, struct span value, struct image_spec *spec, struct why *why) {
  switch (key) {
    case 0:
      if (span_bytes(value) == 4 && span_starts(value, "sync")) return TARN_OK;
      return because(why, TARN_INVALID, "policy='%.*s' is not known: images have policy=sync", SPAN_SHOW(value));
    case 1: {
      enum disk_kind kind;
      if (span_bytes(value) == strlen(META_TAIL) && span_starts(value, META_TAIL)) {
        strcpy(spec->meta, META_TAIL);
        return TARN_OK;
      }
      if (!disk_text_starts(value.at, span_bytes(value), &kind) || kind != DISK_KIND_FILE)
        return because(why, TARN_INVALID, "meta='%.*s' is neither a path, which starts with /, ./ or ../, nor 'tail'",
                       SPAN_SHOW(value));
      tarn_err err = path_decode(value, spec->meta, why);
      return err == TARN_OK ? text_check(spec->meta, why) : err;
    }
    default: spec->overwrite = true; return TARN_OK;
  }
}

static tarn_err keys_parse(struct span text, struct image_spec *spec, struct why *why) {
  bool given[COUNT_OF(key_names)] = {false};
  while (true) {
    const char *comma = span_find(text, ',');
    struct span item = {text.at, comma ? comma : text.end};
    const char *equals = span_find(item, '=');
    struct span key = {item.at, equals ? equals : item.end}, value = {equals ? equals + 1 : item.end, item.end};
    unsigned index = 0;
    while (index < COUNT_OF(key_names) &&
           !(span_bytes(key) == strlen(key_names[index]) && span_starts(key, key_names[index])))
      index++;
    if (index == COUNT_OF(key_names)) {
      char word[33] = "", hint[HINT_TEXT];
      if (span_bytes(key) < sizeof word) memcpy(word, key.at, span_bytes(key));
      return because(why, TARN_INVALID, "unknown key '%.*s' of an image%s; keys are policy=, meta= and overwrite",
                     SPAN_SHOW(key), hint_text(nearest_word(word, key_name, NULL), hint));
    }
    bool is_flag = index == 2;
    if (given[index]) return because(why, TARN_INVALID, "the key '%s' is given twice", key_names[index]);
    if (is_flag && equals) return because(why, TARN_INVALID, "the key '%s' takes no value", key_names[index]);
    if (!is_flag && span_bytes(value) == 0)
      return because(why, TARN_INVALID, "the key '%s' needs a value: %s=...", key_names[index], key_names[index]);
    given[index] = true;
    tarn_err err = value_parse(index, value, spec, why);
    if (err != TARN_OK || !comma) return err;
    text.at = comma + 1;
  }
}

tarn_err image_spec_parse(const char *text, struct image_spec *spec, struct why *why) {
  *spec = (struct image_spec){.path_count = 0};
  struct span all = {text, text + strlen(text)};
  if (span_bytes(all) == 0) return because(why, TARN_INVALID, "an image is empty: write [NAME=]PATH");
  if (!is_path(all)) label_take(&all, '=', spec->name, is_path_or_node);
  if (!is_path(all)) label_take(&all, ':', spec->node, is_path);
  if (!is_path(all)) {
    struct span first = {text, all.end};
    const char *comma = span_find(first, ',');
    if (comma) first.end = comma;
    return because(why, TARN_INVALID,
                   "'%.*s' is no image: it is written [NAME=]PATH, and a path starts with /, ./, ../, concat:, nbd:// "
                   "or nbd+unix://",
                   SPAN_SHOW(first));
  }
  const char *comma = span_find(all, ',');
  struct span paths = {all.at, comma ? comma : all.end};
  tarn_err err = paths_parse(paths, spec, why);
  if (err == TARN_OK && comma) err = keys_parse((struct span){comma + 1, all.end}, spec, why);
  return err;
}

/* Appends `path`, escaped. */
static char *path_encode(const char *path, char *out) {
  bool uri = disk_text_kind(path) == DISK_KIND_NBD;
  if (strncmp(path, "nbd+", 4) == 0) out = stpcpy(out, "nbd+"), path += 4;
  for (; *path; path++) {
    bool starts_code = !uri && *path == '%' && path[1] == '2' && path[2] && strchr("BbCc5", path[2]);
    const char *code = *path == '+' ? "%2B" : *path == ',' ? "%2C" : starts_code ? "%25" : NULL;
    if (code) out = stpcpy(out, code);
    else *out++ = *path;
  }
  *out = 0;
  return out;
}

void image_spec_format(const struct image_spec *spec, char *out) {
  require(spec->path_count > 0 && spec->path_count <= VOLUMES_MAX);
  if (spec->name[0]) out = stpcpy(stpcpy(out, spec->name), "=");
  if (spec->node[0]) out = stpcpy(stpcpy(out, spec->node), ":");
  for (uint32_t i = 0; i < spec->path_count; i++) {
    if (i > 0) *out++ = '+';
    out = path_encode(spec->paths[i], out);
  }
  if (spec->meta[0]) out = path_encode(spec->meta, stpcpy(out, ",meta="));
  if (spec->overwrite) out = stpcpy(out, ",overwrite");
  *out = 0;
}
