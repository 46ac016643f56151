/* examine.c - see examine.h. */
#include "shell/examine.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shell/tail.h"
#include "shell/trusted.h"

/* ---- looking ---- */

/* Both slots of the record at `offset`. True: one is sound. */
static bool record_look(const char *path, uint64_t offset, struct examined *examined) {
  static const size_t slots = COUNT_OF(examined->slots);
  uint8_t area[RECORD_AREA_BYTES] = {0};
  int fd;
  tarn_err err = trusted_open(path, O_RDONLY, TRUSTED_DATA, &fd, NULL);
  ssize_t got = err == TARN_OK ? pread(fd, area, sizeof area, (off_t)offset) : -1;
  if (fd >= 0) close(fd);
  examined->has_record = false;
  for (size_t slot = 0; slot < slots; slot++) {
    struct record record;
    examined->slots[slot] = got < 0 ? TARN_IO : record_decode(&record, area + slot * RECORD_SLOT_BYTES);
    if (examined->slots[slot] != TARN_OK) continue;
    if (examined->has_record && record.sequence <= examined->record.sequence) continue;
    examined->record = record;
    examined->has_record = true;
  }
  return examined->has_record;
}

/* By its lock alone: to ask for a device by itself (O_EXCL) would for a moment take it from a daemon that opens it. */
static bool is_in_use(const char *path) {
  int fd;
  if (trusted_open(path, O_RDONLY, TRUSTED_DATA, &fd, NULL) != TARN_OK) return false;
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  bool locked = fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
  close(fd);
  return locked;
}

static tarn_err found_at(struct examined *examined, enum examined_where where, const char *path, uint64_t offset,
                         struct why *why) {
  examined->where = where;
  (void)snprintf(examined->meta, sizeof examined->meta, "%s", path);
  if (record_look(path, offset, examined)) return TARN_OK;
  for (size_t slot = 0; slot < COUNT_OF(examined->slots); slot++)
    if (examined->slots[slot] == TARN_VERSION)
      return because(why, TARN_VERSION, "the metadata in %s was written by a newer version of Tarn", path);
  if (examined->slots[0] == TARN_NOT_FOUND && examined->slots[1] == TARN_NOT_FOUND)
    return because(why, TARN_NOT_FOUND, "the metadata in %s is empty: it was never used", path);
  return because(why, TARN_CORRUPT, "the metadata in %s is damaged: neither copy of its record is sound", path);
}

/* Nowhere else: is the file itself metadata? */
static tarn_err look_inside(const char *path, struct examined *examined, struct why *why) {
  if (record_look(path, 0, examined)) return found_at(examined, EXAMINED_ITSELF, path, 0, why);
  bool newer = examined->slots[0] == TARN_VERSION || examined->slots[1] == TARN_VERSION;
  if (newer) return found_at(examined, EXAMINED_ITSELF, path, 0, why);
  return because(
      why, TARN_NOT_FOUND,
      "%s has no metadata of Tarn, neither beside it (%s.tarn) nor in its tail: it is no disk of a mirror, or "
      "its metadata lies elsewhere (',meta=PATH' for import), or lay in a state directory that is lost",
      path, path);
}

tarn_err examine(const char *path, const char *meta, struct examined *examined, struct why *why) {
  char beside[EXAMINED_PATH_BYTES];
  *examined = (struct examined){.where = EXAMINED_NOWHERE, .slots = {TARN_NOT_FOUND, TARN_NOT_FOUND}};
  tarn_err err = file_inspect(path, &examined->identity, why);
  if (err != TARN_OK) return err;
  examined->in_use = is_in_use(path);
  if (meta) return found_at(examined, EXAMINED_GIVEN, meta, 0, why);
  (void)snprintf(beside, sizeof beside, "%s.tarn", path);
  bool is_beside = access(beside, F_OK) == 0;
  if (is_beside && !examined->identity.is_block_device) return found_at(examined, EXAMINED_BESIDE, beside, 0, why);
  err = tail_find_at(path, &examined->tail);
  if (err == TARN_OK) return found_at(examined, EXAMINED_TAIL, path, examined->tail.offset, why);
  if (err == TARN_CORRUPT || err == TARN_VERSION)
    return because(why, err, "the locator in the tail of %s is %s", path,
                   err == TARN_CORRUPT ? "damaged" : "of a newer version of Tarn");
  if (is_beside) return found_at(examined, EXAMINED_BESIDE, beside, 0, why);
  return look_inside(path, examined, why);
}

/* ---- JSON ---- */

static const char *slot_text(tarn_err err) {
  return err == TARN_OK          ? "sound"
         : err == TARN_NOT_FOUND ? "empty"
         : err == TARN_VERSION   ? "newer"
         : err == TARN_IO        ? "unreadable"
                                 : "damaged";
}

static json_t *uuid_json(const uint8_t uuid[16]) {
  char text[40], *at = text;
  for (int i = 0; i < 16; i++) at += sprintf(at, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", uuid[i]);
  return json_string(text);
}

static const char *role_of(const struct record *record, uint32_t slot) {
  return slot == record->master && !record->demoted ? "master" : "slave";
}

static json_t *image_json(const struct record *record, uint32_t slot) {
  const struct record_image *image = &record->images[slot];
  const char *missing = image_missing_name(image->missing);
  return json_pack("{s:s, s:s, s:s, s:o}", "name", image->name, "role", role_of(record, slot), "state",
                   image_state_name(image->state), "missing", missing ? json_string(missing) : json_null());
}

static void record_json(const struct record *record, json_t *json) {
  json_t *volumes = json_array(), *images = json_array();
  char id[24];
  for (uint32_t i = 0; i < record->volume_count; i++)
    json_array_append_new(volumes, json_pack("{s:s, s:I}", "name", record->volumes[i].name, "size",
                                             (json_int_t)record->volumes[i].size_bytes));
  for (uint32_t slot = 0; slot < IMAGES_MAX; slot++)
    if (record->images[slot].present) json_array_append_new(images, image_json(record, slot));
  bool known = record->self < IMAGES_MAX && record->images[record->self].present;
  (void)snprintf(id, sizeof id, "%016" PRIx64, record->generation.id);
  json_object_set_new(json, "mirror",
                      json_pack("{s:s, s:o}", "name", record->name, "uuid", uuid_json(record->mirror_uuid)));
  json_object_set_new(json, "image", known ? image_json(record, record->self) : json_null());
  json_object_set_new(json, "generation",
                      json_pack("{s:I, s:s}", "number", (json_int_t)record->generation.number, "id", id));
  json_object_set_new(json, "sequence", json_integer((json_int_t)record->sequence));
  json_object_set_new(json, "clean", json_boolean(record->clean));
  json_object_set_new(json, "was_active", json_boolean(record->active));
  json_object_set_new(json, "volumes", volumes);
  json_object_set_new(json, "images", images);
}

json_t *examined_json(const char *path, const struct examined *examined, const char *why) {
  static const char *const wheres[] = {
      [EXAMINED_GIVEN] = "given", [EXAMINED_TAIL] = "tail", [EXAMINED_BESIDE] = "beside", [EXAMINED_ITSELF] = "itself"};
  bool found = examined->where != EXAMINED_NOWHERE;
  json_t *json = json_pack(
      "{s:o, s:I, s:b, s:b, s:o, s:o, s:[ss], s:o}", "path", json_string_nocheck(path), "size",
      (json_int_t)examined->identity.size_bytes, "block_device", examined->identity.is_block_device, "in_use",
      examined->in_use, "metadata", found ? json_string_nocheck(examined->meta) : json_null(), "where",
      found ? json_string(wheres[examined->where]) : json_null(), "record_slots", slot_text(examined->slots[0]),
      slot_text(examined->slots[1]), "error", why ? json_string(why) : json_null());
  if (json && examined->has_record) record_json(&examined->record, json);
  return json;
}
