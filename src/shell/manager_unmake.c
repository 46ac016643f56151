/* Removing what a mirror, or an image of it, has on disk. The order is the crash argument: config.json with its list `unmake`,
 * or with the image, goes last, so that whatever a crash leaves behind is found and removed at the next start.
 *
 * A path in such a list may lead to something else by then: a crash came before the file was made, or somebody has put his data there.
 * A file goes only if nothing is in it, or metadata of this mirror; and not while another process has it locked: the same mirror may
 * have been imported by another daemon, which serves it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shell/blank.h"
#include "shell/file_disk.h"
#include "shell/manager_internal.h"
#include "shell/tail.h"
#include "shell/trusted.h"

void unmake_add(struct mirror_file *file, const char *path) {
  if (!file->unmake) file->unmake = json_array();
  json_array_append_new(file->unmake, json_string_nocheck(path));
}

/* ---- is it ours to remove ---- */

/* What lies there has been out of our hands: since a crash, or for as long as a disk hung. So it is looked at once more. */
enum content { CONTENT_NONE, CONTENT_OURS, CONTENT_FOREIGN, CONTENT_DATA };

#define WHOSE_BYTES (TARN_NAME_MAX + 32)

static bool is_of_mirror(const struct record *record, const struct unmake_owner *owner) {
  if (owner->has_uuid) return memcmp(record->mirror_uuid, owner->uuid, sizeof owner->uuid) == 0;
  return !owner->name || strcmp(record->name, owner->name) == 0;
}

/* Files of two images may have changed places. */
static bool is_of_another_image(const struct record *record, const struct unmake_owner *owner) {
  return owner->one_image && record->self != owner->slot && record->self < IMAGES_MAX &&
         record->images[record->self].present;
}

static enum content content_of(const struct record *record, const struct unmake_owner *owner, char *whose) {
  if (!is_of_mirror(record, owner)) snprintf(whose, WHOSE_BYTES, "mirror %s", record->name);
  else if (is_of_another_image(record, owner))
    snprintf(whose, WHOSE_BYTES, "image %s of this mirror", record->images[record->self].name);
  else return CONTENT_OURS;
  return CONTENT_FOREIGN;
}

/* One slot of a record. One that is damaged, or was torn, is told by its magic alone. */
static enum content slot_look(const uint8_t *in, const struct unmake_owner *owner, char *whose) {
  struct record record;
  tarn_err err = record_decode(&record, in);
  if (err == TARN_NOT_FOUND || (err == TARN_CORRUPT && memcmp(in, "TARNREC1", 8) == 0)) return CONTENT_NONE;
  if (err != TARN_OK) return CONTENT_DATA; /* that of a newer version, too */
  return content_of(&record, owner, whose);
}

static enum content record_look(int fd, const struct unmake_owner *owner, char *whose) {
  uint8_t area[RECORD_AREA_BYTES];
  enum content worst = CONTENT_NONE;
  if (pread(fd, area, sizeof area, 0) != (ssize_t)sizeof area) return CONTENT_DATA;
  for (size_t slot = 0; slot < 2; slot++) {
    enum content content = slot_look(area + slot * RECORD_SLOT_BYTES, owner, whose);
    if (content > worst) worst = content;
  }
  return worst;
}

/* Of a file: all of it. */
static enum content file_content(int fd, const struct unmake_owner *owner, char *whose) {
  struct stat info;
  if (fstat(fd, &info) != 0) return CONTENT_DATA;
  uint64_t size = (uint64_t)info.st_size, at = size < RECORD_AREA_BYTES ? 0 : RECORD_AREA_BYTES;
  enum content content = at > 0 ? record_look(fd, owner, whose) : CONTENT_NONE;
  return content == CONTENT_NONE && !blank_file_for_meta(fd, at, size) ? CONTENT_DATA : content;
}

static tarn_err left(enum content content, const char *path, const char *whose, struct why *why) {
  if (content == CONTENT_FOREIGN)
    return because(why, TARN_EXISTS, "%s is left in place: it belongs to %s", path, whose);
  return because(
      why, TARN_EXISTS,
      "%s is left in place: it holds something other than metadata of this mirror; if it is of no use, remove "
      "it by hand",
      path);
}

/* TARN_EXISTS: it is to be left, and why. */
static tarn_err file_look(int fd, const char *path, const struct unmake_owner *owner, struct why *why) {
  char whose[WHOSE_BYTES];
  enum content content = file_content(fd, owner, whose);
  return content >= CONTENT_FOREIGN ? left(content, path, whose, why) : TARN_OK;
}

/* ---- removing ---- */

/* Metadata on a device cannot be removed, only made to say nothing. What is mounted or in use now, or is not our metadata, is not
 * touched. */
static tarn_err wipe(const char *path, const struct unmake_owner *owner, struct why *why) {
  static const uint8_t zeroes[RECORD_AREA_BYTES];
  char whose[WHOSE_BYTES];
  int fd;
  tarn_err err = trusted_open(path, O_RDWR | O_EXCL, TRUSTED_OWN, &fd, why);
  if (err != TARN_OK) return err;
  enum content content = record_look(fd, owner, whose);
  bool wanted = content == CONTENT_OURS;
  if (content == CONTENT_FOREIGN) err = left(content, path, whose, why);
  else if (wanted && (pwrite(fd, zeroes, sizeof zeroes, 0) != (ssize_t)sizeof zeroes || fsync(fd) != 0))
    err = path_error(why, path, errno);
  close(fd);
  return err;
}

/* Also by a link, as in /dev/disk/by-id, which is none of ours. */
static bool is_block_device(const char *path) {
  struct statx status;
  return trusted_look(path, &status, NULL) == TARN_OK && S_ISBLK(status.stx_mode);
}

/* For as long as `fd` is open: nobody begins to use the file between the look at it and its removal. TARN_EXISTS: it is in use, by
 * somebody else: this daemon has closed it. */
static tarn_err file_lock(int fd, const char *path, struct why *why) {
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  if (fcntl(fd, F_OFD_SETLK, &lock) == 0) return TARN_OK;
  if (errno != EAGAIN && errno != EACCES) return path_error(why, path, errno);
  return because(why, TARN_EXISTS,
                 "%s is left in place: it is in use (locked) by another process, which may serve it as part of a "
                 "mirror; if it is of no use, remove it by hand",
                 path);
}

static tarn_err file_remove(const char *path, const struct unmake_owner *owner, struct why *why) {
  int fd;
  tarn_err err = trusted_open(path, O_RDWR, TRUSTED_DATA, &fd, why);
  if (err != TARN_OK) return err;
  err = file_lock(fd, path, why);
  if (err == TARN_OK) err = file_look(fd, path, owner, why);
  if (err == TARN_OK) err = trusted_remove(path, why);
  close(fd);
  return err;
}

static void remove_one(const char *text, const struct unmake_owner *owner, json_t *warnings) {
  struct why why, inner;
  struct locator tail;
  const char *path = unmake_text_path(text, &tail);
  require(path != NULL);
  file_disk_closed_wait(path); /* our own lock must not look like that of somebody else */
  if (tail.length) {
    tarn_err err = tail_wipe(path, &tail, &why); /* none: not made yet, or wiped before a crash */
    if (err != TARN_OK && err != TARN_NOT_FOUND) json_array_append_new(warnings, json_string(why.text));
    return;
  }
  tarn_err err = is_block_device(path) ? wipe(path, owner, &inner) : file_remove(path, owner, &inner);
  if (err == TARN_NOT_FOUND) return;
  if (err == TARN_OK) {
    if (folder_sync(path, &why) == TARN_OK) return;
  } else if (err == TARN_EXISTS) why = inner;
  else because(&why, err, "%s cannot be removed, remove it by hand: %s", path, inner.text);
  json_array_append_new(warnings, json_string(why.text));
}

void unmake_files(const json_t *paths, const struct unmake_owner *owner, json_t *warnings) {
  for (size_t i = 0; i < json_array_size(paths); i++)
    remove_one(json_string_value(json_array_get(paths, i)), owner, warnings);
}

static bool metadata_is_foreign(const uint8_t mirror_uuid[16], const struct mirror_file_image *image) {
  uint8_t area[RECORD_AREA_BYTES];
  int fd;
  if (trusted_open(image->meta, O_RDONLY, TRUSTED_OWN, &fd, NULL) != TARN_OK) return false;
  bool foreign = false;
  ssize_t bytes = pread(fd, area, sizeof area, 0);
  close(fd);
  for (size_t slot = 0; slot < 2 && bytes == (ssize_t)sizeof area; slot++) {
    struct record record;
    if (record_decode(&record, area + slot * RECORD_SLOT_BYTES) == TARN_OK)
      foreign = memcmp(record.mirror_uuid, mirror_uuid, sizeof record.mirror_uuid) != 0;
  }
  return foreign;
}

/* Where the image's tail lies: devices may have changed places. NULL: at no path of this mirror. */
static const char *tail_path(const struct mirror_file *file, const struct mirror_file_image *image) {
  if (tail_is_at(image->meta, &image->tail)) return image->meta;
  for (uint32_t slot = 0; slot < file->slot_count; slot++) {
    const struct mirror_file_image *other = &file->images[slot];
    for (uint32_t i = 0; other->present && !other->unknown && i < file->volume_count; i++)
      if (disk_text_kind(other->paths[i]) == DISK_KIND_FILE && tail_is_at(other->paths[i], &image->tail))
        return other->paths[i];
  }
  return NULL;
}

const char *metadata_text(const uint8_t mirror_uuid[16], const struct mirror_file *file, uint32_t slot, char *out,
                          json_t *warnings) {
  const struct mirror_file_image *image = &file->images[slot];
  const char *path = image->tail.length ? tail_path(file, image) : image->meta;
  if (!path)
    json_array_append_new(
        warnings, json_sprintf("image %s: the metadata in the tail of its device is left behind: that device is at no "
                               "path of this mirror (%s was the image's); where it turns up, 'tarn image examine' "
                               "shows it, and ',overwrite' gives it up",
                               image->name, image->paths[0]));
  else if (image->tail.length) return unmake_tail_text(&image->tail, path, out);
  else if (mirror_uuid && metadata_is_foreign(mirror_uuid, image))
    json_array_append_new(warnings, json_sprintf("%s is left in place: it belongs to another mirror", path));
  else return path;
  return NULL;
}

void unmake_metadata(const uint8_t mirror_uuid[16], const struct mirror_file *file, uint32_t slot, json_t *warnings) {
  char room[UNMAKE_TEXT_BYTES];
  const char *text = metadata_text(mirror_uuid, file, slot, room, warnings);
  struct unmake_owner owner = {.has_uuid = true, .one_image = true, .slot = slot};
  memcpy(owner.uuid, mirror_uuid, sizeof owner.uuid);
  if (text) remove_one(text, &owner, warnings);
}

void unmake_owner_find(const char *folder, const struct mirror_file *file, struct unmake_owner *owner) {
  char path[FOLDER_PATH_MAX + 32];
  uint8_t area[RECORD_AREA_BYTES];
  int fd;
  *owner = (struct unmake_owner){.name = file->name};
  snprintf(path, sizeof path, "%s/record", folder);
  if (trusted_open(path, O_RDONLY, TRUSTED_OWN, &fd, NULL) != TARN_OK) return;
  ssize_t bytes = pread(fd, area, sizeof area, 0);
  close(fd);
  for (size_t slot = 0; slot < 2 && bytes == (ssize_t)sizeof area; slot++) {
    struct record record;
    if (record_decode(&record, area + slot * RECORD_SLOT_BYTES) != TARN_OK) continue;
    owner->has_uuid = true;
    memcpy(owner->uuid, record.mirror_uuid, sizeof owner->uuid);
  }
}

void unmake(const char *folder, const struct mirror_file *file, const struct unmake_owner *owner, json_t *warnings) {
  static const char *const own[] = {"record", "config.json.new", "config.json"};
  unmake_files(file->unmake, owner, warnings);
  for (size_t i = 0; i < COUNT_OF(own); i++) {
    char path[FOLDER_PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/%s", folder, own[i]);
    if (unlink(path) != 0 && errno != ENOENT)
      json_array_append_new(warnings, json_sprintf("%s cannot be removed: %s", path, strerror(errno)));
  }
  struct why why;
  if (rmdir(folder) != 0 || folder_sync(folder, &why) != TARN_OK)
    json_array_append_new(warnings, json_sprintf("the folder %s cannot be removed: %s", folder, strerror(errno)));
}
