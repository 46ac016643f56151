/* Removing what a mirror, or an image of it, has on disk. The order is the crash argument: config.json with its list `unmake`,
 * or with the image, goes last, so that whatever a crash leaves behind is found and removed at the next start. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shell/manager_internal.h"
#include "shell/tail.h"
#include "shell/trusted.h"

void unmake_add(struct mirror_file *file, const char *path) {
  if (!file->unmake) file->unmake = json_array();
  json_array_append_new(file->unmake, json_string_nocheck(path));
}

static bool holds_record(int fd) {
  uint8_t area[RECORD_AREA_BYTES];
  bool holds = false;
  if (pread(fd, area, sizeof area, 0) != (ssize_t)sizeof area) return false;
  for (size_t slot = 0; slot < 2; slot++) {
    struct record record;
    tarn_err err = record_decode(&record, area + slot * RECORD_SLOT_BYTES);
    holds = holds || err == TARN_OK || err == TARN_VERSION;
  }
  return holds;
}

/* Metadata on a device cannot be removed, only made to say nothing. Days may have passed since we wrote it: what is mounted or
 * in use now, or is no metadata, is not touched. */
static tarn_err wipe(const char *path, struct why *why) {
  static const uint8_t zeroes[RECORD_AREA_BYTES];
  int fd;
  tarn_err err = trusted_open(path, O_RDWR | O_EXCL, TRUSTED_OWN, &fd, why);
  if (err != TARN_OK) return err;
  bool good = !holds_record(fd) || (pwrite(fd, zeroes, sizeof zeroes, 0) == (ssize_t)sizeof zeroes && fsync(fd) == 0);
  if (!good) err = path_error(why, path, errno);
  close(fd);
  return err;
}

/* Also by a link, as in /dev/disk/by-id, which is none of ours. */
static bool is_block_device(const char *path) {
  struct statx status;
  return trusted_look(path, &status, NULL) == TARN_OK && S_ISBLK(status.stx_mode);
}

static void remove_one(const char *text, json_t *warnings) {
  struct why why, inner;
  struct locator tail;
  const char *path = unmake_text_path(text, &tail);
  require(path != NULL);
  if (tail.length) {
    tarn_err err = tail_wipe(path, &tail, &why); /* none: not made yet, or wiped before a crash */
    if (err != TARN_OK && err != TARN_NOT_FOUND) json_array_append_new(warnings, json_string(why.text));
    return;
  }
  tarn_err err = is_block_device(path) ? wipe(path, &inner) : trusted_remove(path, &inner);
  if (err == TARN_NOT_FOUND) return;
  if (err == TARN_OK) {
    if (folder_sync(path, &why) == TARN_OK) return;
  } else because(&why, err, "%s cannot be removed, remove it by hand: %s", path, inner.text);
  json_array_append_new(warnings, json_string(why.text));
}

void unmake_files(const json_t *paths, json_t *warnings) {
  for (size_t i = 0; i < json_array_size(paths); i++) remove_one(json_string_value(json_array_get(paths, i)), warnings);
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
  if (text) remove_one(text, warnings);
}

void unmake(const char *folder, const struct mirror_file *file, json_t *warnings) {
  static const char *const own[] = {"record", "config.json.new", "config.json"};
  unmake_files(file->unmake, warnings);
  for (size_t i = 0; i < COUNT_OF(own); i++) {
    char path[FOLDER_PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/%s", folder, own[i]);
    if (unlink(path) != 0 && errno != ENOENT) remove_one(path, warnings);
  }
  struct why why;
  if (rmdir(folder) != 0 || folder_sync(folder, &why) != TARN_OK)
    json_array_append_new(warnings, json_sprintf("the folder %s cannot be removed: %s", folder, strerror(errno)));
}
