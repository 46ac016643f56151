/* {"version": 1, "name": "vol0", "volumes": [{"name": "0", "size": 1073741824}],
 *  "images": [{"slot": 0, "name": "a", "paths": ["/srv/a.img"], "meta": "/srv/a.img.tarn", "settings": {"hang": 10, ...},
 *              "tail": {"uuid": "0f...", "offset": 1072693248, "length": 1048576},
 *              "devices": [{"path": "/dev/sdb", "facts": ["wwid naa.5000c500a1b2c3d4"]}], "adding": ["/srv/a.img"]},
 *             {"slot": 1, "name": "b", "unknown": true, "settings": {...}}],
 *  "settings": {"auto": 1, ...}, "stay_inactive": false, "unmake": ["/srv/a.img.tarn"]} */
#include "shell/mirror_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shell/image_identity.h"
#include "shell/tail.h"
#include "shell/trusted.h"
#include "shell/words.h"

#define MIRROR_FILE_VERSION 2
#define VERSION_WITH_TAILS \
  2 /* of a file that has some, or unknown images; others are written as 1, which older daemons read too */

void mirror_file_copy(struct mirror_file *to, const struct mirror_file *from) {
  *to = *from;
  to->unmake = json_deep_copy(from->unmake);
  for (uint32_t slot = 0; slot < IMAGES_MAX; slot++) {
    to->images[slot].adding = json_deep_copy(from->images[slot].adding);
    to->images[slot].devices = json_deep_copy(from->images[slot].devices);
  }
}

const char *unmake_tail_text(const struct locator *tail, const char *path, char *out) {
  char uuid[33];
  snprintf(out, UNMAKE_TEXT_BYTES, UNMAKE_TAIL "%s:%" PRIu64 "+%" PRIu64 ":%s", tail_uuid_text(tail->uuid, uuid),
           tail->offset, tail->length, path);
  return out;
}

const char *mirror_file_meta_text(const struct mirror_file_image *image, char *out) {
  return image->tail.length ? unmake_tail_text(&image->tail, image->meta, out) : image->meta;
}

/* Digits up to `end`. NULL: they are none; else what follows. */
static const char *digits_read(const char *text, char end, uint64_t *out) {
  char *behind;
  errno = 0;
  *out = text[0] >= '0' && text[0] <= '9' ? strtoull(text, &behind, 10) : 0;
  return *out > 0 && errno == 0 && *behind == end ? behind + 1 : NULL;
}

const char *unmake_text_path(const char *text, struct locator *tail) {
  size_t before = strlen(UNMAKE_TAIL);
  *tail = (struct locator){.length = 0};
  if (strncmp(text, UNMAKE_TAIL, before) != 0) return text[0] == '/' ? text : NULL;
  text += before;
  if (!tail_uuid_parse(text, tail->uuid) || text[32] != ':') return NULL;
  text = digits_read(text + 33, '+', &tail->offset);
  if (text) text = digits_read(text, ':', &tail->length);
  return text && text[0] == '/' && !locator_check(tail) ? text : NULL;
}

void mirror_file_image_release(struct mirror_file_image *image) {
  json_decref(image->adding);
  json_decref(image->devices);
  image->adding = image->devices = NULL;
}

void mirror_file_release(struct mirror_file *file) {
  json_decref(file->unmake);
  file->unmake = NULL;
  for (uint32_t slot = 0; slot < IMAGES_MAX; slot++) mirror_file_image_release(&file->images[slot]);
}

void mirror_file_unknown(struct mirror_file *file, uint32_t slot, const char *name) {
  struct mirror_file_image *image = &file->images[slot];
  *image = (struct mirror_file_image){.present = true, .unknown = true};
  snprintf(image->name, sizeof image->name, "%s", name);
  settings_defaults(&image_settings, image->settings.values);
  if (slot >= file->slot_count) file->slot_count = slot + 1;
}

static json_t *settings_to_json(const struct settings_table *table, const int64_t *values) {
  json_t *settings = json_object();
  for (unsigned i = 0; i < table->count; i++)
    json_object_set_new(settings, table->rows[i].name, json_integer(values[i]));
  return settings;
}

static json_t *image_to_json(const struct mirror_file *file, uint32_t slot) {
  const struct mirror_file_image *image = &file->images[slot];
  if (image->unknown)
    return json_pack("{s:i, s:s, s:b, s:o}", "slot", (int)slot, "name", image->name, "unknown", 1, "settings",
                     settings_to_json(&image_settings, image->settings.values));
  json_t *paths = json_array();
  for (uint32_t i = 0; i < file->volume_count; i++) json_array_append_new(paths, json_string_nocheck(image->paths[i]));
  json_t *json = json_pack("{s:i, s:s, s:o, s:o, s:o}", "slot", (int)slot, "name", image->name, "paths", paths, "meta",
                           json_string_nocheck(image->meta), "settings",
                           settings_to_json(&image_settings, image->settings.values));
  char uuid[33];
  if (json && image->tail.length)
    json_object_set_new(json, "tail",
                        json_pack("{s:s, s:I, s:I}", "uuid", tail_uuid_text(image->tail.uuid, uuid), "offset",
                                  (json_int_t)image->tail.offset, "length", (json_int_t)image->tail.length));
  if (json && image->devices) json_object_set(json, "devices", image->devices);
  if (json && image->adding) json_object_set(json, "adding", image->adding);
  return json;
}

json_t *mirror_file_to_json(const struct mirror_file *file) {
  json_t *volumes = json_array(), *images = json_array();
  for (uint32_t i = 0; i < file->volume_count; i++)
    json_array_append_new(volumes, json_pack("{s:s, s:I}", "name", file->volumes[i].name, "size",
                                             (json_int_t)file->volumes[i].size_bytes));
  int version = 1;
  for (uint32_t slot = 0; slot < file->slot_count; slot++) {
    if (!file->images[slot].present) continue;
    json_array_append_new(images, image_to_json(file, slot));
    if (file->images[slot].tail.length || file->images[slot].unknown) version = VERSION_WITH_TAILS;
  }
  json_t *json = json_pack("{s:i, s:s, s:o, s:o, s:o, s:b}", "version", version, "name", file->name, "volumes", volumes,
                           "images", images, "settings", settings_to_json(&mirror_settings, file->settings.values),
                           "stay_inactive", file->stay_inactive);
  if (json && file->unmake) json_object_set(json, "unmake", file->unmake);
  if (json && file->differs.bytes > 0)
    json_object_set_new(json, "differs",
                        json_pack("{s:I, s:I}", "bytes", (json_int_t)file->differs.bytes, "found_ns",
                                  (json_int_t)file->differs.found_ns));
  return json;
}

static bool text_copy(const json_t *json, char *out, size_t bytes) {
  const char *text = json_string_value(json);
  if (!text || json_string_length(json) >= bytes || strlen(text) != json_string_length(json)) return false;
  strcpy(out, text);
  return true;
}
static bool name_copy(const json_t *json, char out[TARN_NAME_MAX + 1]) {
  return text_copy(json, out, TARN_NAME_MAX + 1) && record_name_is_valid(out, strlen(out));
}
static bool path_copy(const json_t *json, char *out, size_t bytes) {
  return text_copy(json, out, bytes) && out[0] == '/';
}
static bool disk_copy(const json_t *json, char out[PATH_BYTES_MAX + 1]) {
  return text_copy(json, out, PATH_BYTES_MAX + 1) && disk_text_check(out, NULL) == TARN_OK;
}

static bool volume_is_new(const struct mirror_file *file, size_t i) {
  for (size_t j = 0; j < i; j++)
    if (strcmp(file->volumes[i].name, file->volumes[j].name) == 0) return false;
  return true;
}

static bool volumes_read(const json_t *json, struct mirror_file *file) {
  size_t count = json_array_size(json);
  if (count < 1 || count > VOLUMES_MAX) return false;
  for (size_t i = 0; i < count; i++) {
    const json_t *one = json_array_get(json, i);
    json_int_t size = json_integer_value(json_object_get(one, "size"));
    if (!name_copy(json_object_get(one, "name"), file->volumes[i].name) || size <= 0 || size % 512 != 0) return false;
    if (!volume_is_new(file, i)) return false;
    file->volumes[i].size_bytes = (uint64_t)size;
  }
  file->volume_count = (uint32_t)count;
  return true;
}

static bool settings_read(const json_t *json, const struct settings_table *table, int64_t *values) {
  settings_defaults(table, values);
  for (unsigned i = 0; i < table->count; i++) {
    const json_t *value = json_object_get(json, table->rows[i].name);
    if (!value) continue; /* newer than the file: the default */
    if (!json_is_integer(value)) return false;
    values[i] = json_integer_value(value);
    if (!setting_is_valid(&table->rows[i], values[i])) return false;
  }
  return true;
}

static bool mirror_settings_read(const json_t *json, int64_t *values) {
  return settings_read(json, &mirror_settings, values) && values[SET_EXTENT] <= values[SET_REGION];
}

static bool tail_text_is_valid(const json_t *json) {
  struct locator tail;
  const char *text = json_string_value(json);
  return text && unmake_text_path(text, &tail) && tail.length > 0;
}

/* A list of files, and of tails, to remove; there may be none. */
static bool files_read(const json_t *json, json_t **files) {
  char path[META_PATH_BYTES_MAX + 1];
  *files = NULL;
  if (!json) return true;
  if (!json_is_array(json)) return false;
  for (size_t i = 0; i < json_array_size(json); i++)
    if (!path_copy(json_array_get(json, i), path, sizeof path) && !tail_text_is_valid(json_array_get(json, i)))
      return false;
  *files = json_deep_copy(json);
  return *files != NULL;
}

static bool number_read(const json_t *json, uint64_t *out) {
  if (!json_is_integer(json) || json_integer_value(json) < 0) return false;
  *out = (uint64_t)json_integer_value(json);
  return true;
}

static bool differs_read(const json_t *json, struct mirror_differs *differs) {
  return !json || (number_read(json_object_get(json, "bytes"), &differs->bytes) && differs->bytes > 0 &&
                   number_read(json_object_get(json, "found_ns"), &differs->found_ns));
}

static bool tail_read(const json_t *json, struct locator *tail) {
  if (!json) return true;
  const char *uuid = json_string_value(json_object_get(json, "uuid"));
  return uuid && strlen(uuid) == 32 && tail_uuid_parse(uuid, tail->uuid) &&
         number_read(json_object_get(json, "offset"), &tail->offset) &&
         number_read(json_object_get(json, "length"), &tail->length) && locator_check(tail) == NULL;
}

/* Pure here: what they mean is image_identity.h's. */
static bool devices_read(const json_t *json, json_t **devices) {
  if (!json) return true;
  if (!image_devices_are_valid(json)) return false;
  *devices = json_deep_copy(json);
  return *devices != NULL;
}

/* Where its files and devices are. */
static bool image_places_read(const json_t *json, const struct mirror_file *file, struct mirror_file_image *image) {
  const json_t *paths = json_object_get(json, "paths");
  if (json_array_size(paths) != file->volume_count) return false;
  if (!path_copy(json_object_get(json, "meta"), image->meta, sizeof image->meta)) return false;
  for (size_t j = 0; j < file->volume_count; j++)
    if (!disk_copy(json_array_get(paths, j), image->paths[j])) return false;
  return files_read(json_object_get(json, "adding"), &image->adding) &&
         tail_read(json_object_get(json, "tail"), &image->tail) &&
         devices_read(json_object_get(json, "devices"), &image->devices);
}

static bool image_read(const json_t *json, struct mirror_file *file) {
  const json_t *slot = json_object_get(json, "slot");
  if (!json_is_integer(slot) || json_integer_value(slot) < 0 || json_integer_value(slot) >= IMAGES_MAX) return false;
  struct mirror_file_image *image = &file->images[json_integer_value(slot)];
  if (image->present || !name_copy(json_object_get(json, "name"), image->name)) return false;
  for (uint32_t other = 0; other < IMAGES_MAX; other++)
    if (file->images[other].present && strcmp(file->images[other].name, image->name) == 0) return false;
  if (!settings_read(json_object_get(json, "settings"), &image_settings, image->settings.values)) return false;
  image->unknown = json_is_true(json_object_get(json, "unknown"));
  if (image->unknown && json_object_get(json, "paths")) return false;
  if (!image->unknown && !image_places_read(json, file, image)) return false;
  image->present = true;
  if ((uint32_t)json_integer_value(slot) >= file->slot_count) file->slot_count = (uint32_t)json_integer_value(slot) + 1;
  return true;
}

static bool images_read(const json_t *json, struct mirror_file *file) {
  size_t count = json_array_size(json);
  bool good = count >= 1 && count <= IMAGES_MAX;
  for (size_t i = 0; i < count && good; i++) good = image_read(json_array_get(json, i), file);
  return good;
}

tarn_err mirror_file_from_json(const json_t *json, struct mirror_file *file, struct why *why) {
  *file = (struct mirror_file){.volume_count = 0};
  const json_t *version = json_object_get(json, "version");
  if (json_is_integer(version) && json_integer_value(version) > MIRROR_FILE_VERSION)
    return because(why, TARN_VERSION, "was written by a newer version of tarnd (format %d, this one knows %d)",
                   (int)json_integer_value(version), MIRROR_FILE_VERSION);
  const char *bad = NULL;
  if (!json_is_integer(version) || json_integer_value(version) < 1) bad = "version";
  else if (!name_copy(json_object_get(json, "name"), file->name)) bad = "name";
  else if (!volumes_read(json_object_get(json, "volumes"), file)) bad = "volumes";
  else if (!images_read(json_object_get(json, "images"), file)) bad = "images";
  else if (!mirror_settings_read(json_object_get(json, "settings"), file->settings.values)) bad = "settings";
  else if (!files_read(json_object_get(json, "unmake"), &file->unmake)) bad = "unmake";
  else if (!differs_read(json_object_get(json, "differs"), &file->differs)) bad = "differs";
  if (bad) {
    mirror_file_release(file);
    return because(why, TARN_CORRUPT, "has a wrong or missing '%s'", bad);
  }
  file->stay_inactive = json_is_true(json_object_get(json, "stay_inactive"));
  return TARN_OK;
}

tarn_err mirror_file_load(const char *folder, struct mirror_file *file, struct why *why) {
  char path[META_PATH_BYTES_MAX + 64];
  snprintf(path, sizeof path, "%s/config.json", folder);
  int fd;
  tarn_err err = trusted_open(path, O_RDONLY, TRUSTED_OWN, &fd, why);
  if (err != TARN_OK) return err;
  FILE *stream = fdopen(fd, "r");
  if (!stream) {
    close(fd);
    return because(why, TARN_IO, "%s cannot be read", path);
  }
  json_error_t error;
  json_t *json = json_loadf(stream, JSON_REJECT_DUPLICATES, &error);
  fclose(stream);
  if (!json) return because(why, TARN_CORRUPT, "%s is damaged: line %d: %s", path, error.line, error.text);
  struct why inner;
  err = mirror_file_from_json(json, file, &inner);
  json_decref(json);
  return err == TARN_OK ? TARN_OK : because(why, err, "%s %s", path, inner.text);
}

tarn_err folder_sync(const char *path, struct why *why) {
  char folder[META_PATH_BYTES_MAX + 64];
  snprintf(folder, sizeof folder, "%s", path);
  char *slash = strrchr(folder, '/');
  require(slash != NULL);
  slash[slash == folder] = 0; /* "/x" lies in "/" */
  int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  bool good = fd >= 0 && fsync(fd) == 0;
  int error = errno;
  if (fd >= 0) close(fd);
  return good ? TARN_OK : because(why, TARN_IO, "%s cannot be synced: %s", folder, strerror(error));
}

static bool write_all(int fd, const char *text) {
  for (size_t left = strlen(text); left > 0;) {
    ssize_t wrote = write(fd, text, left);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return false;
    text += wrote, left -= (size_t)wrote;
  }
  return true;
}

/* The text becomes the file, whole or not at all; `errno` if not. */
static bool text_put(const char *path, const char *text, const char *end) {
  char temporary[META_PATH_BYTES_MAX + 72];
  snprintf(temporary, sizeof temporary, "%s.new", path);
  int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  bool good = fd >= 0 && write_all(fd, text) && write_all(fd, end) && fsync(fd) == 0;
  good = good && rename(temporary, path) == 0;
  int error = errno;
  if (fd >= 0) close(fd);
  if (fd >= 0 && !good) unlink(temporary);
  errno = error;
  return good;
}

/* Requires free(). NULL: it is not there, or cannot be read. */
static char *text_get(const char *path) {
  struct stat info;
  int fd;
  if (trusted_open(path, O_RDONLY, TRUSTED_OWN, &fd, NULL) != TARN_OK) return NULL; /* as it is loaded */
  char *text = fstat(fd, &info) == 0 ? calloc(1, (size_t)info.st_size + 1) : NULL;
  for (off_t have = 0; text && have < info.st_size;) {
    ssize_t bytes = pread(fd, text + have, (size_t)(info.st_size - have), have);
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes <= 0) free(text), text = NULL;
    else have += bytes;
  }
  close(fd);
  return text;
}

/* What could not be made durable is refused, so no later start may find it: it gets back what it had. */
static bool text_restore(const char *path, const char *old) {
  if (old ? !text_put(path, old, "") : unlink(path) != 0) return false;
  tarn_err err = folder_sync(path, NULL);
  (void)err; /* it has failed before: then a power cut decides which of both is found */
  return true;
}

tarn_err mirror_file_store(const char *folder, const struct mirror_file *file, struct why *why) {
  char path[META_PATH_BYTES_MAX + 64];
  struct why inner;
  snprintf(path, sizeof path, "%s/config.json", folder);
  json_t *json = mirror_file_to_json(file);
  char *text = json ? json_dumps(json, JSON_INDENT(2)) : NULL, *old = text_get(path);
  json_decref(json);
  tarn_err err = TARN_OK;
  if (!text) err = because(why, TARN_INVALID, "%s: a path or name in it is not UTF-8", path);
  else if (!old && access(path, F_OK) == 0) err = because(why, TARN_IO, "%s cannot be read", path);
  else if (!text_put(path, text, "\n")) err = because(why, TARN_IO, "%s cannot be written: %s", path, strerror(errno));
  else if (folder_sync(path, &inner) != TARN_OK)
    err = because(
        why, TARN_IO, "%s%s", inner.text,
        text_restore(path, old) ? "" : "; and what was refused is in config.json, and counts at the next start");
  free(text);
  free(old);
  return err;
}
