#include "shell/create_plan.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/mirror.h"
#include "shell/blank.h"
#include "shell/data_disk.h"
#include "shell/device_identity.h"
#include "shell/disk_space.h"
#include "shell/examine.h"
#include "shell/file_share.h"
#include "shell/mirror_disks.h"
#include "shell/nbd_disk.h"
#include "shell/reactor.h"
#include "shell/tail.h"
#include "shell/words.h"

/* ---- words ---- */

static tarn_err volume_add(struct mirror_file *file, const char *name, size_t name_bytes, const char *size,
                           struct why *why) {
  if (file->volume_count == VOLUMES_MAX)
    return because(why, TARN_INVALID, "a mirror has at most %u volumes", VOLUMES_MAX);
  char *copy = file->volumes[file->volume_count].name;
  snprintf(copy, TARN_NAME_MAX + 1, "%.*s", (int)name_bytes, name);
  if (!record_name_is_valid(name, name_bytes))
    return name_check("volume", name_bytes > TARN_NAME_MAX ? name : copy, why);
  for (uint32_t i = 0; i < file->volume_count; i++)
    if (strcmp(file->volumes[i].name, copy) == 0)
      return because(why, TARN_INVALID, "there are two volumes of the name '%s'", copy);
  uint64_t bytes = 0;
  if (size) {
    tarn_err err = size_parse(size, &bytes, why);
    if (err != TARN_OK) return err;
    if (bytes % 512 != 0) return because(why, TARN_INVALID, "the size %s is not a multiple of 512", size);
  }
  file->volumes[file->volume_count++].size_bytes = bytes;
  return TARN_OK;
}

static tarn_err volumes_parse(struct create_plan *plan, const struct request *request, struct why *why) {
  const char *size, *texts[VOLUMES_MAX];
  size_t count;
  tarn_err err = request_text(request, "size", &size, why);
  if (err == TARN_OK) err = request_texts(request, "volumes", texts, COUNT_OF(texts), &count, why);
  if (err != TARN_OK) return err;
  if (size && count > 0)
    return because(why, TARN_INVALID, "--size and --volume exclude each other: --volume VOL:SIZE says the size");
  plan->sized = size || count > 0;
  if (size) return volume_add(plan->file, "0", 1, size, why);
  for (size_t i = 0; i < count && err == TARN_OK; i++) {
    const char *colon = strchr(texts[i], ':');
    if (!colon) return because(why, TARN_INVALID, "'%.80s' is no volume: write VOL:SIZE, like data:10G", texts[i]);
    err = volume_add(plan->file, texts[i], (size_t)(colon - texts[i]), colon + 1, why);
  }
  return err;
}

static bool image_name_is_taken(const struct mirror_file *file, const char *name) {
  for (uint32_t i = 0; i < IMAGES_MAX; i++)
    if (file->images[i].present && strcmp(file->images[i].name, name) == 0) return true;
  return false;
}

/* The first free letter for an image without a name. */
static void image_name(struct mirror_file *file, uint32_t slot) {
  char letter[2] = "a";
  if (file->images[slot].name[0]) return;
  while (image_name_is_taken(file, letter)) letter[0]++;
  strcpy(file->images[slot].name, letter);
}

static tarn_err image_parse(struct create_plan *plan, uint32_t slot, const char *text, struct image_spec *spec,
                            struct why *why) {
  struct mirror_file *file = plan->file;
  tarn_err err = image_spec_parse(text, spec, why);
  if (err != TARN_OK) return err;
  if (spec->node[0] && strcmp(spec->node, plan->node) != 0)
    return because(why, TARN_INVALID, "image on node '%s': other nodes than this one (%s) are not supported yet",
                   spec->node, plan->node);
  for (uint32_t i = 0; file->volume_count < spec->path_count && slot == 0 && !plan->sized; i++) {
    char name[8];
    snprintf(name, sizeof name, "%u", i);
    err = volume_add(file, name, strlen(name), NULL, why);
    if (err != TARN_OK) return err;
  }
  if (spec->path_count != file->volume_count)
    return because(why, TARN_INVALID,
                   "image '%.120s' has %u path%s, but the mirror has %u volume%s: give a path per volume, PATH+PATH",
                   text, spec->path_count, spec->path_count == 1 ? "" : "s", file->volume_count,
                   file->volume_count == 1 ? "" : "s");
  if (spec->name[0] && image_name_is_taken(file, spec->name))
    return because(why, plan->adding ? TARN_EXISTS : TARN_INVALID, "there %s of the name '%s'",
                   plan->adding ? "is an image" : "are two images", spec->name);
  struct mirror_file_image *image = &file->images[slot];
  image->present = true;
  settings_defaults(&image_settings, image->settings.values);
  strcpy(image->name, spec->name);
  for (uint32_t i = 0; i < spec->path_count; i++) {
    err = disk_text_check(spec->paths[i], why);
    if (err != TARN_OK) return err;
    strcpy(image->paths[i], spec->paths[i]);
  }
  plan->places[slot].tail = strcmp(spec->meta, META_TAIL) == 0;
  if (spec->meta[0] && spec->meta[0] != '/' && !plan->places[slot].tail)
    return because(why, TARN_INVALID, "the path '%.120s' is not absolute", spec->meta);
  strcpy(image->meta, spec->meta);
  plan->overwrite[slot] = spec->overwrite;
  return TARN_OK;
}

static tarn_err images_parse(struct create_plan *plan, const struct request *request, struct why *why) {
  const char *texts[IMAGES_MAX];
  size_t count;
  tarn_err err = request_texts(request, "images", texts, COUNT_OF(texts), &count, why);
  if (err == TARN_OK && count == 0) err = because(why, TARN_INVALID, "a mirror needs at least one --image [NAME=]PATH");
  struct image_spec *spec = malloc(sizeof *spec);
  if (!spec) return because(why, TARN_FULL, "there is not enough memory");
  for (uint32_t i = 0; i < count && err == TARN_OK; i++) err = image_parse(plan, i, texts[i], spec, why);
  free(spec);
  if (err != TARN_OK) return err;
  plan->file->slot_count = plan->to = (uint32_t)count;
  for (uint32_t i = 0; i < count; i++) image_name(plan->file, i);
  return TARN_OK;
}

tarn_err plan_parse(struct create_plan *plan, const struct request *request, struct why *why) {
  static const char *const known[] = {"name", "size", "volumes", "images", "set", "activate", NULL};
  const char *name, *texts[2 * MIRROR_SETTING_COUNT];
  size_t count = 0;
  tarn_err err = request_only(request, known, why);
  if (err == TARN_OK) err = request_text(request, "name", &name, why);
  if (err == TARN_OK) err = name_check("mirror", name ? name : "", why);
  if (err != TARN_OK) return err;
  strcpy(plan->file->name, name);
  settings_defaults(&mirror_settings, plan->file->settings.values);
  err = volumes_parse(plan, request, why);
  if (err == TARN_OK) err = images_parse(plan, request, why);
  if (err == TARN_OK) err = request_texts(request, "set", texts, COUNT_OF(texts), &count, why);
  for (size_t i = 0; i < count && err == TARN_OK; i++) {
    unsigned index;
    err = setting_assign(&mirror_settings, plan->file->settings.values, texts[i], &index, why);
  }
  return err;
}

tarn_err plan_parse_image(struct create_plan *plan, const struct request *request, struct why *why) {
  struct mirror_file *file = plan->file;
  const char *text;
  uint32_t slot = 0;
  plan->adding = plan->sized = true;
  tarn_err err = request_text(request, "image", &text, why);
  if (err == TARN_OK) err = request_flag(request, "assume", &plan->assume, why);
  if (err == TARN_OK && !text) err = because(why, TARN_INVALID, "the image is missing: write [NAME=]PATH");
  if (err != TARN_OK) return err;
  while (slot < IMAGES_MAX && file->images[slot].present) slot++;
  if (slot == IMAGES_MAX) return because(why, TARN_REFUSED, "a mirror has at most %u images", IMAGES_MAX);
  struct image_spec *spec = malloc(sizeof *spec);
  if (!spec) return because(why, TARN_FULL, "there is not enough memory");
  file->images[slot] = (struct mirror_file_image){.present = false};
  err = image_parse(plan, slot, text, spec, why);
  free(spec);
  if (err != TARN_OK) return err;
  image_name(file, slot);
  plan->from = slot;
  plan->to = slot + 1;
  if (plan->to > file->slot_count) file->slot_count = plan->to;
  return TARN_OK;
}

/* ---- looking ---- */

/* What is at file->path. A missing file is no error here, a missing folder is. */
static tarn_err file_look(struct plan_file *file, struct why *why) {
  struct why inner;
  tarn_err err = file_inspect(file->path, &file->identity, &inner);
  reactor_work_step();
  if (err == TARN_OK) return TARN_OK;
  struct stat info;
  if (err != TARN_NOT_FOUND) return because(why, err, "%s: %s", file->owner, inner.text);
  if (lstat(file->path, &info) == 0)
    return because(why, TARN_REFUSED, "%s: %s is a symbolic link to nowhere", file->owner, file->path);
  char folder[META_PATH_BYTES_MAX + 1], resolved[PATH_MAX];
  strcpy(folder, file->path);
  char *slash = strrchr(folder, '/');
  slash[slash == folder] = 0;
  if (!realpath(folder, resolved))
    return because(why, TARN_REFUSED, "%s: the folder %s cannot be used: %s", file->owner, folder, strerror(errno));
  int bytes = snprintf(file->missing_at, sizeof file->missing_at, "%s/%s", strcmp(resolved, "/") == 0 ? "" : resolved,
                       strrchr(file->path, '/') + 1);
  if (bytes >= (int)sizeof file->missing_at)
    return because(why, TARN_REFUSED, "%s: the path %.80s... is too long", file->owner, file->path);
  if (path_is_for_devices(file->missing_at))
    return because(why, TARN_REFUSED, "%s: there is no device %s", file->owner, file->path);
  if (access(resolved, W_OK | X_OK) != 0)
    return because(why, TARN_REFUSED, "%s: %s is missing and cannot be made: the folder is not writable: %s",
                   file->owner, file->path, strerror(errno));
  return TARN_OK;
}
static bool is_missing(const struct plan_file *file) { return file->missing_at[0] != 0; }

/* Can it be opened for writing, and does nobody hold a lock on it? */
static tarn_err file_probe(const struct plan_file *file, struct why *why) {
  int fd;
  struct why inner;
  tarn_err err = trusted_open(file->path, O_RDWR | O_EXCL, file->whose, &fd, &inner);
  if (err != TARN_OK && errno == EBUSY)
    return because(why, TARN_REFUSED, "%s: %s is in use by another process or mounted", file->owner, file->path);
  if (err == TARN_REFUSED && (errno == EACCES || errno == EPERM || errno == EROFS))
    return because(why, TARN_REFUSED, "%s: %s is not writable: %s", file->owner, file->path, strerror(errno));
  if (err != TARN_OK) return because(why, TARN_REFUSED, "%s: %s", file->owner, inner.text);
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  bool locked = fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
  close(fd);
  if (locked && lock.l_pid > 0)
    return because(why, TARN_REFUSED, "%s: %s is in use: process %d holds a lock on it", file->owner, file->path,
                   (int)lock.l_pid);
  return locked ? because(why, TARN_REFUSED, "%s: %s is in use: another process holds a lock on it", file->owner,
                          file->path)
                : TARN_OK;
}

/* Do both use the same bytes? */
static bool files_clash(const struct plan_file *a, const struct plan_file *b) {
  if (is_missing(a) != is_missing(b)) return false;
  if (is_missing(a) && strcmp(a->missing_at, b->missing_at) != 0) return false;
  struct file_identity none = {0};
  struct disk_space x, y;
  disk_space_of(is_missing(a) ? &none : &a->identity, a->offset, a->length, &x);
  disk_space_of(is_missing(b) ? &none : &b->identity, b->offset, b->length, &y);
  return disk_space_overlap(&x, &y);
}

/* The next free place in plan->files. */
static struct plan_file *file_new(struct create_plan *plan, const char *path, struct why *why) {
  struct plan_file *files = realloc(plan->files, (plan->file_count + 1) * sizeof *files);
  if (!files) {
    (void)because(why, TARN_REFUSED, "there is not enough memory");
    return NULL;
  }
  plan->files = files;
  struct plan_file *file = &files[plan->file_count++];
  *file = (struct plan_file){.offset = 0};
  snprintf(file->path, sizeof file->path, "%s", path);
  return file;
}

void plan_release(struct create_plan *plan) {
  free(plan->files);
  plan->files = NULL;
  plan->file_count = 0;
}

static tarn_err clash(const struct plan_file *a, const struct plan_file *b, struct why *why) {
  bool other_name = strcmp(a->path, b->path) != 0;
  if (a->length == 0 && b->length == 0)
    return because(why, TARN_REFUSED, "%s and %s are the same file: %s%s%s", b->owner, a->owner, b->path,
                   other_name ? " is " : "", other_name ? a->path : "");
  return because(why, TARN_REFUSED, "%s and %s overlap: both use the same part of %s%s%s", b->owner, a->owner, b->path,
                 other_name ? ", which is " : "", other_name ? a->path : "");
}

/* Does the plan use any part of this file of somebody else's? */
static tarn_err file_is_free(const struct create_plan *plan, const struct plan_file *other, const char *whose,
                             struct why *why) {
  for (uint32_t i = 0; i < plan->file_count; i++) {
    const struct plan_file *mine = &plan->files[i];
    if (!files_clash(mine, other)) continue;
    if (mine->length == 0 && other->length == 0)
      return because(why, TARN_REFUSED, "%s: %s belongs to %s", mine->owner, mine->path, whose);
    return because(why, TARN_REFUSED, "%s: %s overlaps with what belongs to %s", mine->owner, mine->path, whose);
  }
  return TARN_OK;
}

static tarn_err other_is_free(const struct create_plan *plan, const char *text, const char *whose,
                              struct disk_text *parsed, struct why *why) {
  struct plan_file other;
  if (disk_text_parse(text, parsed, NULL) != TARN_OK) { /* longer than what is typed: our own metadata */
    parsed->kind = DISK_KIND_FILE;
    parsed->part_count = 0;
    other = (struct plan_file){.offset = 0};
    snprintf(other.path, sizeof other.path, "%s", text);
    return file_look(&other, NULL) == TARN_OK ? file_is_free(plan, &other, whose, why) : TARN_OK;
  }
  for (uint32_t i = 0; i < parsed->part_count; i++) {
    other = (struct plan_file){.offset = parsed->parts[i].offset, .length = parsed->parts[i].length};
    snprintf(other.path, sizeof other.path, "%s", parsed->parts[i].path);
    if (file_look(&other, NULL) != TARN_OK) continue; /* not there: cannot be the same */
    tarn_err err = file_is_free(plan, &other, whose, why);
    if (err != TARN_OK) return err;
  }
  return TARN_OK;
}

static bool lies_in(const char *path, const char *folder) {
  size_t bytes = strlen(folder);
  return strncmp(path, folder, bytes) == 0 && path[bytes] == '/';
}

/* What lies in the state directory is the daemon's own, and comes and goes with its mirrors; metadata has a folder there. */
static tarn_err file_is_outside(const struct create_plan *plan, uint32_t index, struct why *why) {
  const struct plan_file *file = &plan->files[index];
  char resolved[PATH_MAX], metas[PATH_MAX];
  bool is_meta = false;
  for (uint32_t slot = plan->from; slot < plan->to; slot++) is_meta = is_meta || plan->meta[slot] == index;
  if (is_missing(file)) snprintf(resolved, sizeof resolved, "%s", file->missing_at);
  else if (!realpath(file->path, resolved)) return TARN_OK; /* gone meanwhile: the next look tells */
  snprintf(metas, sizeof metas, "%s/meta", plan->state);
  if (!lies_in(resolved, plan->state) || (is_meta && lies_in(resolved, metas))) return TARN_OK;
  return because(why, TARN_REFUSED, "%s: %s lies in the daemon's own state directory %s; put it elsewhere", file->owner,
                 file->path, plan->state);
}

static tarn_err files_are_distinct(struct create_plan *plan, struct why *why) {
  for (uint32_t i = 0; i < plan->file_count; i++) {
    tarn_err outside = file_is_outside(plan, i, why);
    if (outside != TARN_OK) return outside;
  }
  for (uint32_t i = 0; i < plan->file_count; i++)
    for (uint32_t j = 0; j < i; j++)
      if (files_clash(&plan->files[i], &plan->files[j])) return clash(&plan->files[i], &plan->files[j], why);
  struct disk_text *parsed = malloc(sizeof *parsed);
  if (!parsed) return because(why, TARN_REFUSED, "there is not enough memory");
  tarn_err err = TARN_OK;
  for (size_t k = 0; k < json_array_size(plan->others) && err == TARN_OK; k++) {
    const json_t *pair = json_array_get(plan->others, k);
    err = other_is_free(plan, json_string_value(json_array_get(pair, 0)), json_string_value(json_array_get(pair, 1)),
                        parsed, why);
  }
  free(parsed);
  return err;
}

/* An address that a mirror has already, in this plan or on this node. */
static tarn_err export_is_free(const struct create_plan *plan, uint32_t slot, uint32_t volume, struct why *why) {
  const struct mirror_file *file = plan->file;
  char key[PATH_BYTES_MAX + 16], other[PATH_BYTES_MAX + 16];
  nbd_text_key(file->images[slot].paths[volume], key);
  for (uint32_t i = 0; i < IMAGES_MAX; i++)
    for (uint32_t j = 0; j < file->volume_count; j++) {
      const char *text = file->images[i].paths[j];
      bool before = i < slot || (i == slot && j < volume);
      if (!before || !file->images[i].present || disk_text_kind(text) != DISK_KIND_NBD) continue;
      nbd_text_key(text, other);
      if (strcmp(key, other) == 0)
        return because(why, TARN_REFUSED, "image %s and image %s are the same export: %s", file->images[i].name,
                       file->images[slot].name, text);
    }
  for (size_t k = 0; k < json_array_size(plan->others); k++) {
    const json_t *pair = json_array_get(plan->others, k);
    const char *text = json_string_value(json_array_get(pair, 0));
    if (disk_text_kind(text) != DISK_KIND_NBD) continue;
    nbd_text_key(text, other);
    if (strcmp(key, other) == 0)
      return because(why, TARN_REFUSED, "image %s: %s belongs to %s", file->images[slot].name, text,
                     json_string_value(json_array_get(pair, 1)));
  }
  return TARN_OK;
}

/* ---- deciding ---- */

static bool part_has_data(const struct plan_file *part) {
  if (is_missing(part)) return false;
  int fd;
  if (trusted_open(part->path, O_RDONLY, part->whose, &fd, NULL) != TARN_OK) return true;
  bool has = file_range_has_data(fd, &part->identity, part->offset, part->length);
  close(fd);
  return has;
}

/* A whole file as a part is as long as it is; a range of a missing one is made. */
static tarn_err part_look(struct plan_file *part, struct plan_disk *disk, struct why *why) {
  tarn_err err = file_look(part, why);
  if (err != TARN_OK) return err;
  uint64_t have = part->identity.size_bytes, length = part->length ? part->length : have;
  if (is_missing(part) && part->length == 0)
    return because(why, TARN_REFUSED, "%s: %s does not exist; as a part with a range, %s@0+SIZE, it is made",
                   part->owner, part->path, part->path);
  if (!is_missing(part) && (length == 0 || length % PART_ALIGN != 0))
    return because(why, TARN_REFUSED,
                   "%s: %s has %llu bytes, no multiple of %u: say how much of it is a part, %s@0+%llu", part->owner,
                   part->path, (unsigned long long)have, PART_ALIGN, part->path,
                   (unsigned long long)align_down(have, PART_ALIGN));
  if (!is_missing(part) && part->offset + length > have)
    return because(why, TARN_REFUSED, "%s: %s is too small: it has %llu bytes, its part ends at %llu", part->owner,
                   part->path, (unsigned long long)have, (unsigned long long)(part->offset + length));
  disk->missing = disk->missing || is_missing(part);
  disk->has_data = disk->has_data || part_has_data(part);
  disk->size_bytes += length;
  return TARN_OK;
}

/* Of a file the file system knows where it has data; of a device nobody does, and it counts as full. */
static bool may_be_empty(const struct create_plan *plan, const struct plan_disk *disk) {
  if (disk->kind == DISK_KIND_NBD) return true;
  for (uint32_t i = 0; i < disk->count; i++)
    if (plan->files[disk->first + i].identity.is_block_device) return true;
  return false;
}

static tarn_err parts_look(struct create_plan *plan, const char *owner, const struct disk_text *text,
                           struct plan_disk *disk, struct why *why) {
  disk->first = plan->file_count;
  for (uint32_t i = 0; i < text->part_count; i++) {
    struct plan_file *part = file_new(plan, text->parts[i].path, why);
    if (!part) return TARN_REFUSED;
    strcpy(part->owner, owner);
    part->offset = text->parts[i].offset;
    part->length = text->parts[i].length;
    disk->count++;
    tarn_err err;
    if (text->kind == DISK_KIND_CONCAT) {
      err = part_look(part, disk, why);
    } else {
      err = file_look(part, why);
      disk->missing = is_missing(part);
      disk->has_data = !is_missing(part) && part->identity.has_data;
      disk->size_bytes = part->identity.size_bytes;
    }
    if (err != TARN_OK) return err;
  }
  return TARN_OK;
}

static tarn_err disk_look(struct create_plan *plan, uint32_t slot, uint32_t volume, struct disk_text *text,
                          struct why *why) {
  struct plan_disk *disk = &plan->data[slot][volume];
  char owner[sizeof plan->files->owner];
  struct why inner;
  *disk = (struct plan_disk){.text = plan->file->images[slot].paths[volume]};
  snprintf(owner, sizeof owner, "image %s", plan->file->images[slot].name);
  tarn_err err = disk_text_parse(disk->text, text, why);
  if (err != TARN_OK) return err;
  disk->kind = text->kind;
  if (text->kind != DISK_KIND_NBD) return parts_look(plan, owner, text, disk, why);
  err = export_is_free(plan, slot, volume, why);
  if (err != TARN_OK) return err;
  err = nbd_disk_probe(disk->text, &disk->size_bytes, &inner);
  disk->has_data = true;
  return err == TARN_OK ? err : because(why, TARN_REFUSED, "%s: %s", owner, inner.text);
}

static tarn_err data_look(struct create_plan *plan, uint32_t slot, struct why *why) {
  struct disk_text *text = malloc(sizeof *text);
  if (!text) return because(why, TARN_REFUSED, "there is not enough memory");
  tarn_err err = TARN_OK;
  for (uint32_t i = 0; i < plan->file->volume_count && err == TARN_OK; i++) err = disk_look(plan, slot, i, text, why);
  free(text);
  return err;
}

static tarn_err sizes_decide(struct create_plan *plan, struct why *why) {
  struct mirror_file *file = plan->file;
  for (uint32_t i = 0; i < file->volume_count && !plan->sized; i++) {
    const struct plan_disk *first = &plan->data[0][i];
    const char *owner = file->images[0].name;
    if (first->missing && first->size_bytes == 0)
      return because(why, TARN_REFUSED, "image %s: %s does not exist; with --size it is made", owner, first->text);
    if (first->size_bytes == 0)
      return because(why, TARN_REFUSED, "image %s: %s is empty (0 bytes)", owner, first->text);
    if (first->size_bytes % 512 != 0)
      return because(why, TARN_REFUSED,
                     "image %s: the size of %s, %llu, is not a multiple of 512; say with --size how much of it to use",
                     owner, first->text, (unsigned long long)first->size_bytes);
    file->volumes[i].size_bytes = first->size_bytes;
  }
  return TARN_OK;
}

static tarn_err data_decide(struct create_plan *plan, uint32_t slot, uint32_t i, struct why *why) {
  const struct plan_disk *disk = &plan->data[slot][i];
  uint64_t volume_bytes = plan->file->volumes[i].size_bytes;
  const char *owner = plan->file->images[slot].name;
  bool first = slot == 0 && !plan->adding, made = disk->missing && disk->kind == DISK_KIND_FILE;
  if (disk->missing && plan->assume)
    return because(why, TARN_REFUSED, "image %s: %s does not exist, so it cannot be equal", owner, disk->text);
  if (disk->kind == DISK_KIND_CONCAT && volume_bytes % PART_ALIGN != 0)
    return because(why, TARN_REFUSED,
                   "image %s: the size of volume %s, %llu, is not a multiple of %u, which a disk made of parts needs",
                   owner, plan->file->volumes[i].name, (unsigned long long)volume_bytes, PART_ALIGN);
  if (!made && disk->size_bytes < volume_bytes)
    return because(why, TARN_REFUSED, "image %s: %s is too small: it has %llu bytes, volume %s has %llu", owner,
                   disk->text, (unsigned long long)disk->size_bytes, plan->file->volumes[i].name,
                   (unsigned long long)volume_bytes);
  if (!first && !plan->assume && disk->has_data && !plan->overwrite[slot])
    return because(why, TARN_REFUSED,
                   "image %s: %s %s, which would be lost; write ',overwrite' behind the image if that is meant", owner,
                   disk->text, may_be_empty(plan, disk) ? "may hold data" : "holds data");
  if (!made && disk->size_bytes > volume_bytes && !(i == 0 && plan->places[slot].tail)) /* the tail is written */
    json_array_append_new(
        plan->warnings,
        json_sprintf("image %s: %s is larger than volume %s; the %llu bytes behind its end are not touched", owner,
                     disk->text, plan->file->volumes[i].name, (unsigned long long)(disk->size_bytes - volume_bytes)));
  tarn_err err = TARN_OK;
  for (uint32_t j = 0; j < disk->count && err == TARN_OK; j++) {
    const struct plan_file *file = &plan->files[disk->first + j];
    /* What is open here for its parts is ours to share; what others use of it was looked at. */
    if (!is_missing(file) && !(disk->kind == DISK_KIND_CONCAT && file_share_has(&file->identity)))
      err = file_probe(file, why);
  }
  return err;
}

static struct meta_sizes meta_sizes(const struct create_plan *plan) {
  const struct mirror_file *file = plan->file;
  struct mirror_config config = {.region_bytes = (uint32_t)file->settings.values[SET_REGION],
                                 .extent_bytes = (uint32_t)file->settings.values[SET_EXTENT],
                                 .mark_count = (uint32_t)file->settings.values[SET_MARKS],
                                 .volume_count = file->volume_count,
                                 .image_count = file->slot_count};
  for (uint32_t i = 0; i < file->volume_count; i++) config.volumes[i].size_bytes = file->volumes[i].size_bytes;
  return (struct meta_sizes){mirror_meta_bytes(&config), mirror_meta_bytes_best(&config)};
}

/* The best of both slots: TARN_OK and the record, TARN_VERSION, TARN_CORRUPT, or TARN_NOT_FOUND when both are zero. */
static tarn_err record_read(const char *path, struct record *record) {
  uint8_t area[RECORD_AREA_BYTES] = {0};
  int fd;
  if (trusted_open(path, O_RDONLY, TRUSTED_OWN, &fd, NULL) != TARN_OK) return TARN_IO;
  ssize_t bytes = pread(fd, area, sizeof area, 0);
  close(fd);
  if (bytes < 0) return TARN_IO;
  tarn_err errs[2];
  for (size_t slot = 0; slot < 2; slot++) {
    errs[slot] = record_decode(record, area + slot * RECORD_SLOT_BYTES);
    if (errs[slot] == TARN_OK) return TARN_OK;
  }
  if (errs[0] == TARN_VERSION || errs[1] == TARN_VERSION) return TARN_VERSION;
  return errs[0] == TARN_NOT_FOUND && errs[1] == TARN_NOT_FOUND ? TARN_NOT_FOUND : TARN_CORRUPT;
}

/* Where metadata will lie, and no record lies yet: does that file hold anything that is not ours? */
static bool meta_holds_more(const struct create_plan *plan, const struct plan_file *meta) {
  uint64_t at, end = min_u64(meta->identity.size_bytes, meta_sizes(plan).best);
  if (!meta->identity.is_block_device) return meta->identity.has_data;
  int fd;
  if (trusted_open(meta->path, O_RDONLY, TRUSTED_OWN, &fd, NULL) != TARN_OK) return true;
  tarn_err err = blank_look_for_meta(fd, 0, end, &at);
  close(fd);
  return err != TARN_OK || at < end;
}

/* Metadata that is there already. */
static tarn_err meta_decide(struct create_plan *plan, uint32_t slot, struct why *why) {
  const struct plan_file *meta = &plan->files[plan->meta[slot]];
  static const char *const remedy = "to replace it write ',overwrite' behind the image, or remove the file";
  if (is_missing(meta)) return TARN_OK;
  if (meta->identity.is_block_device && meta->identity.size_bytes < meta_sizes(plan).least)
    return because(why, TARN_REFUSED, "%s: %s is too small: %llu bytes are needed", meta->owner, meta->path,
                   (unsigned long long)meta_sizes(plan).least);
  struct record record;
  tarn_err err = record_read(meta->path, &record);
  if (err == TARN_VERSION)
    return because(why, TARN_REFUSED, "%s: %s was written by a newer version of Tarn and is not replaced", meta->owner,
                   meta->path);
  if (err == TARN_OK && !plan->overwrite[slot]) {
    const char *image = record.self < IMAGES_MAX ? record.images[record.self].name : "?";
    return because(why, TARN_REFUSED, "%s: %s belongs to image %s of mirror %s; %s", meta->owner, meta->path, image,
                   record.name, remedy);
  }
  if (err == TARN_CORRUPT && !plan->overwrite[slot])
    return because(why, TARN_REFUSED, "%s: %s is damaged metadata, or no metadata at all; %s", meta->owner, meta->path,
                   remedy);
  if (err == TARN_NOT_FOUND && !plan->overwrite[slot] && meta_holds_more(plan, meta))
    return because(why, TARN_REFUSED, "%s: %s holds something that is no metadata; %s", meta->owner, meta->path,
                   remedy);
  return file_probe(meta, why);
}

/* In the tail of a device: where, is decided once the sizes are known. */
static tarn_err tail_look(struct create_plan *plan, uint32_t slot, struct why *why) {
  struct mirror_file_image *image = &plan->file->images[slot];
  const struct plan_disk *disk = &plan->data[slot][0];
  if (disk->kind != DISK_KIND_FILE || !plan->files[disk->first].identity.is_block_device)
    return because(why, TARN_REFUSED, "image %s: meta=tail is for a block device, and %s is none: leave it out",
                   image->name, image->paths[0]);
  strcpy(image->meta, image->paths[0]);
  struct plan_file *meta = file_new(plan, image->meta, why);
  if (!meta) return TARN_REFUSED;
  plan->meta[slot] = plan->file_count - 1;
  snprintf(meta->owner, sizeof meta->owner, "metadata of image %s", image->name);
  meta->whose = TRUSTED_OWN;
  return file_look(meta, why);
}

static tarn_err tails_place(struct create_plan *plan, struct why *why) {
  uint64_t volume_bytes = plan->file->volumes[0].size_bytes;
  tarn_err err = TARN_OK;
  for (uint32_t slot = plan->from; slot < plan->to && err == TARN_OK; slot++) {
    struct locator *tail = &plan->file->images[slot].tail;
    struct plan_file *meta = &plan->files[plan->meta[slot]];
    struct why inner;
    if (!plan->places[slot].tail) continue;
    err = tail_plan(meta->path, meta->identity.size_bytes, volume_bytes, meta_sizes(plan).best, tail, &inner);
    if (err != TARN_OK)
      return because(why, TARN_REFUSED, "%s: %s; give a smaller --size, or meta=PATH", meta->owner, inner.text);
    meta->offset = tail->offset;
    meta->length = tail->length;
    plan->files[plan->data[slot][0].first].length = align_up(volume_bytes, PART_ALIGN);
  }
  return err;
}

/* A tail of Tarn's on a device of the image: of an earlier mirror, or of one of another node. It goes with `overwrite`. */
static const struct plan_file *old_tail(const struct create_plan *plan, uint32_t slot, struct locator *found) {
  for (uint32_t i = 0; i < plan->file->volume_count; i++) {
    const struct plan_disk *disk = &plan->data[slot][i];
    if (disk->kind != DISK_KIND_FILE) continue;
    const struct plan_file *file = &plan->files[disk->first];
    if (file->identity.is_block_device && tail_find_at(file->path, found) == TARN_OK) return file;
  }
  return NULL;
}

static tarn_err old_tail_decide(const struct create_plan *plan, uint32_t slot, struct why *why) {
  struct locator found;
  struct examined *seen = plan->overwrite[slot] ? NULL : malloc(sizeof *seen);
  const struct plan_file *file = seen ? old_tail(plan, slot, &found) : NULL;
  tarn_err err = TARN_OK;
  if (file) {
    static const char *const remedy = "to give that up write ',overwrite' behind the image";
    if (examine(file->path, NULL, seen, NULL) == TARN_OK && seen->record.self < IMAGES_MAX)
      err = because(why, TARN_REFUSED, "%s: the tail of %s has the metadata of image %s of mirror %s; %s", file->owner,
                    file->path, seen->record.images[seen->record.self].name, seen->record.name, remedy);
    else
      err = because(why, TARN_REFUSED, "%s: the tail of %s says that metadata of Tarn is in it, and there is none; %s",
                    file->owner, file->path, remedy);
  }
  free(seen);
  return err;
}

/* It is given up: nobody takes the device for what it was. What it names is left alone. */
static tarn_err old_tails_wipe(const struct create_plan *plan, uint32_t slot, struct why *why) {
  struct locator found;
  tarn_err err = TARN_OK;
  for (uint32_t i = 0; err == TARN_OK && plan->overwrite[slot] && i < plan->file->volume_count; i++) {
    const struct plan_file *file = old_tail(plan, slot, &found);
    if (file) err = tail_unlabel(file->path, why);
  }
  return err;
}

/* What lies there already. */
static tarn_err tail_decide(struct create_plan *plan, uint32_t slot, struct why *why) {
  const struct plan_file *meta = &plan->files[plan->meta[slot]];
  const struct locator *tail = &plan->file->images[slot].tail;
  struct locator found;
  struct why inner;
  bool ours;
  tarn_err err = tail_is_empty(meta->path, meta->identity.size_bytes, tail, &ours, &found, &inner);
  if (ours) plan->overwritten |= 1u << slot; /* old_tail_decide() has asked */
  if (err == TARN_OK || ours) return file_probe(meta, why);
  return because(why, TARN_REFUSED, "%s: %s; nothing is written over it: zero it if it is of no use, or give meta=PATH",
                 meta->owner, inner.text);
}

/* It was looked at before, and an old one is gone. */
static tarn_err tail_prepare(const struct create_plan *plan, uint32_t slot, struct why *why) {
  const struct plan_file *meta = &plan->files[plan->meta[slot]];
  const struct locator *tail = &plan->file->images[slot].tail;
  struct locator found;
  bool ours;
  tarn_err err = plan->overwritten & 1u << slot ? tail_clear(meta->path, tail, why) : TARN_OK;
  if (err == TARN_OK) err = tail_is_empty(meta->path, meta->identity.size_bytes, tail, &ours, &found, why);
  return err == TARN_OK ? tail_make(meta->path, tail, why) : err;
}

/* Names that move, and metadata that does not travel with its disk. */
static void image_advise(struct create_plan *plan, uint32_t slot) {
  const struct mirror_file *file = plan->file;
  const struct mirror_file_image *image = &file->images[slot];
  for (uint32_t i = plan->files_from[slot]; i <= plan->meta[slot]; i++) { /* its disks, then its metadata */
    const struct plan_file *one = &plan->files[i];
    char link[DEVICE_LINK_BYTES];
    if (is_missing(one) || !one->identity.is_block_device) continue;
    if (i == plan->meta[slot] && plan->places[slot].tail) continue;
    if (!device_name_moves("", one->path, one->identity.device, link)) continue;
    json_array_append_new(
        plan->warnings,
        json_sprintf("image %s: %s may be the name of another device after a restart; %s%s", image->name, one->path,
                     link[0] ? "this one stays: " : "there are names that stay in /dev/disk/by-id", link));
  }
  if (!plan->places[slot].at_home) return;
  const struct plan_disk *first = &plan->data[slot][0];
  bool device = first->kind == DISK_KIND_FILE; /* with a file it would lie beside it */
  struct locator tail;
  bool room = device && tail_plan("", first->size_bytes, file->volumes[0].size_bytes, meta_sizes(plan).best, &tail,
                                  NULL) == TARN_OK;
  json_array_append_new(
      plan->warnings,
      json_sprintf(
          "image %s: its metadata lies in the state directory: without that, 'tarn mirror import' cannot bring "
          "this image back%s",
          image->name, room ? "; the device has room for it: with ',meta=tail' it travels with the disk" : ""));
}

/* Beside a file; in the state directory of what no file can lie beside, and of what others may have parts of too. */
static tarn_err meta_look(struct create_plan *plan, uint32_t slot, struct why *why) {
  struct mirror_file *file = plan->file;
  struct mirror_file_image *image = &file->images[slot];
  const struct plan_disk *disk = &plan->data[slot][0];
  if (plan->places[slot].tail) return tail_look(plan, slot, why);
  bool beside = disk->kind == DISK_KIND_FILE && !plan->files[disk->first].identity.is_block_device;
  struct plan_file *meta = file_new(plan, image->meta, why);
  if (!meta) return TARN_REFUSED;
  plan->meta[slot] = plan->file_count - 1;
  plan->places[slot].at_home = !image->meta[0] && !beside;
  if (!image->meta[0] && !beside)
    snprintf(meta->path, sizeof meta->path, "%s/meta/%s-%s.tarn", plan->state, file->name, image->name);
  else if (!image->meta[0]) snprintf(meta->path, sizeof meta->path, "%s.tarn", image->paths[0]);
  strcpy(image->meta, meta->path);
  snprintf(meta->owner, sizeof meta->owner, "metadata of image %s", image->name);
  return file_look(meta, why);
}

static tarn_err all_look(struct create_plan *plan, struct why *why) {
  tarn_err err = TARN_OK;
  for (uint32_t slot = plan->from; slot < plan->to && err == TARN_OK; slot++) {
    plan->files_from[slot] = plan->file_count;
    err = data_look(plan, slot, why);
    if (err == TARN_OK) err = meta_look(plan, slot, why);
  }
  return err;
}

tarn_err plan_check(struct create_plan *plan, struct why *why) {
  struct mirror_file *file = plan->file;
  struct stat info;
  if (!plan->adding && lstat(plan->folder, &info) == 0)
    return because(why, TARN_EXISTS, "the folder %s exists already: move it away if it is of no use", plan->folder);
  tarn_err err = all_look(plan, why);
  if (err == TARN_OK) err = sizes_decide(plan, why);
  if (err == TARN_OK) err = tails_place(plan, why);
  if (err == TARN_OK) err = files_are_distinct(plan, why);
  for (uint32_t slot = plan->from; slot < plan->to && err == TARN_OK; slot++) {
    for (uint32_t i = 0; i < file->volume_count && err == TARN_OK; i++) err = data_decide(plan, slot, i, why);
    if (err == TARN_OK) err = old_tail_decide(plan, slot, why);
    if (err == TARN_OK) err = plan->places[slot].tail ? tail_decide(plan, slot, why) : meta_decide(plan, slot, why);
    if (err == TARN_OK) image_advise(plan, slot);
  }
  return err;
}

/* ---- importing ---- */

static tarn_err import_look(struct create_plan *plan, uint32_t slot, struct why *why) {
  const struct mirror_file_image *image = &plan->file->images[slot];
  tarn_err err = data_look(plan, slot, why);
  struct plan_file *meta = err == TARN_OK ? file_new(plan, image->meta, why) : NULL;
  if (!meta) return TARN_REFUSED;
  plan->meta[slot] = plan->file_count - 1;
  snprintf(meta->owner, sizeof meta->owner, "metadata of image %s", image->name);
  meta->offset = image->tail.offset;
  meta->length = image->tail.length;
  meta->whose = TRUSTED_OWN;
  if (image->tail.length)
    plan->files[plan->data[slot][0].first].length = align_up(plan->file->volumes[0].size_bytes, PART_ALIGN);
  return file_look(meta, why);
}

static tarn_err import_decide(const struct create_plan *plan, uint32_t slot, struct why *why) {
  const struct mirror_file *file = plan->file;
  for (uint32_t i = 0; i < file->volume_count; i++) {
    const struct plan_disk *disk = &plan->data[slot][i];
    if (disk->missing)
      return because(why, TARN_REFUSED, "image %s: %s does not exist", file->images[slot].name, disk->text);
    if (disk->size_bytes < file->volumes[i].size_bytes)
      return because(why, TARN_REFUSED, "image %s: %s is too small: it has %llu bytes, volume %s has %llu",
                     file->images[slot].name, disk->text, (unsigned long long)disk->size_bytes, file->volumes[i].name,
                     (unsigned long long)file->volumes[i].size_bytes);
    for (uint32_t j = disk->first; j < disk->first + disk->count; j++) {
      if (disk->kind == DISK_KIND_CONCAT && file_share_has(&plan->files[j].identity)) continue;
      tarn_err err = file_probe(&plan->files[j], why);
      if (err != TARN_OK) return err;
    }
  }
  return file_probe(&plan->files[plan->meta[slot]], why);
}

tarn_err plan_check_import(struct create_plan *plan, struct why *why) {
  const struct mirror_file *file = plan->file;
  tarn_err err = TARN_OK;
  plan->to = file->slot_count;
  for (uint32_t slot = 0; slot < file->slot_count && err == TARN_OK; slot++)
    if (file->images[slot].present && !file->images[slot].unknown) err = import_look(plan, slot, why);
  if (err == TARN_OK) err = files_are_distinct(plan, why);
  for (uint32_t slot = 0; slot < file->slot_count && err == TARN_OK; slot++)
    if (file->images[slot].present && !file->images[slot].unknown) err = import_decide(plan, slot, why);
  return err;
}

/* ---- making ---- */

/* All copies of the metadata on one file system, and the data not: losing that one would lose what is known of all images. */
static void warn_of_one_file_system(struct create_plan *plan) {
  const struct mirror_file *file = plan->file;
  bool one = true, data_elsewhere = false;
  uint32_t count = 0;
  struct file_identity first, identity;
  const char *shared = file->images[plan->from].meta;
  if (file_inspect(shared, &first, NULL) != TARN_OK) return;
  for (uint32_t slot = 0; slot < file->slot_count; slot++) {
    if (!file->images[slot].present || file->images[slot].unknown) continue;
    if (file_inspect(file->images[slot].meta, &identity, NULL) != TARN_OK) return;
    one = one && !identity.is_block_device && file_identity_neighbours(&first, &identity);
    count++;
  }
  for (uint32_t slot = plan->from; slot < plan->to; slot++)
    data_elsewhere = data_elsewhere || plan->data[slot][0].kind != DISK_KIND_FILE ||
                     plan->files[plan->data[slot][0].first].identity.is_block_device;
  if (one && count > 1 && data_elsewhere)
    json_array_append_new(
        plan->warnings,
        json_sprintf("all copies of the metadata share one file system (that of %s); give meta=PATH to spread them",
                     shared));
}

/* Makes it, and counts it; what is not counted is not ours to remove. */
static tarn_err file_make(const struct plan_file *file, uint64_t bytes, size_t *made, struct why *why) {
  tarn_err err = file_create(file->path, bytes, why);
  *made += err == TARN_OK;
  reactor_work_step();
  return err;
}

/* A device keeps what an earlier mirror has left there until it is written over: its record must not be taken for ours. */
static tarn_err device_give_up(const struct plan_file *meta, struct why *why) {
  static const uint8_t zeroes[RECORD_AREA_BYTES];
  int fd;
  tarn_err err = trusted_open(meta->path, O_RDWR | O_EXCL, TRUSTED_OWN, &fd, why);
  if (err != TARN_OK) return err;
  bool good = pwrite(fd, zeroes, sizeof zeroes, 0) == (ssize_t)sizeof zeroes && fsync(fd) == 0;
  int error = errno;
  close(fd);
  return good ? TARN_OK
              : because(why, TARN_IO, "%s: %s cannot be written: %s", meta->owner, meta->path, strerror(error));
}

static tarn_err meta_prepare(const struct plan_file *meta, bool overwrite, uint64_t bytes, size_t *made,
                             struct why *why) {
  if (is_missing(meta)) return file_make(meta, bytes, made, why);
  if (meta->identity.is_block_device) return overwrite ? device_give_up(meta, why) : TARN_OK;
  int fd;
  tarn_err err = trusted_open(meta->path, O_RDWR, TRUSTED_OWN, &fd, why);
  if (err != TARN_OK) return err;
  if (!overwrite && lseek(fd, 0, SEEK_DATA) >= 0) {
    close(fd);
    return because(why, TARN_REFUSED, "%s: %s was just written to by somebody else", meta->owner, meta->path);
  }
  bool good = ftruncate(fd, 0) == 0 && ftruncate(fd, (off_t)bytes) == 0;
  int error = errno;
  close(fd);
  return good ? TARN_OK
              : because(why, TARN_IO, "%s: %s cannot be resized: %s", meta->owner, meta->path, strerror(error));
}

/* A file that is missing is made once, long enough for all of its parts. 0: not here, an earlier part has it. */
static uint64_t bytes_to_make(const struct create_plan *plan, uint32_t index, uint64_t whole_bytes) {
  const struct plan_file *file = &plan->files[index];
  uint64_t bytes = file->length ? 0 : whole_bytes;
  for (uint32_t i = 0; i < plan->file_count; i++) {
    const struct plan_file *part = &plan->files[i];
    if (!is_missing(part) || strcmp(part->missing_at, file->missing_at) != 0) continue;
    if (i < index) return 0;
    bytes = max_u64(bytes, part->length ? part->offset + part->length : 0);
  }
  return bytes;
}

/* In the order of plan->files. */
static tarn_err files_make(struct create_plan *plan, size_t *made, struct why *why) {
  struct mirror_file *file = plan->file;
  uint64_t bytes = meta_sizes(plan).best;
  tarn_err err = TARN_OK;
  for (uint32_t slot = plan->from; slot < plan->to && err == TARN_OK; slot++) {
    for (uint32_t i = 0; i < file->volume_count; i++) {
      const struct plan_disk *disk = &plan->data[slot][i];
      for (uint32_t j = disk->first; j < disk->first + disk->count && err == TARN_OK; j++) {
        uint64_t size = is_missing(&plan->files[j]) ? bytes_to_make(plan, j, file->volumes[i].size_bytes) : 0;
        if (size > 0) err = file_make(&plan->files[j], size, made, why);
      }
    }
    if (err == TARN_OK) err = old_tails_wipe(plan, slot, why);
    if (err == TARN_OK && plan->places[slot].tail) err = tail_prepare(plan, slot, why);
    else if (err == TARN_OK)
      err = meta_prepare(&plan->files[plan->meta[slot]], plan->overwrite[slot], bytes, made, why);
  }
  return err;
}

/* The folder of a new mirror, with its record. */
static tarn_err folder_make(const struct create_plan *plan, struct why *why) {
  char record[sizeof plan->folder + 16];
  if (mkdir(plan->folder, 0700) != 0)
    return because(why, TARN_IO, "the folder %s cannot be made: %s", plan->folder, strerror(errno));
  tarn_err err = folder_sync(plan->folder, why);
  if (err == TARN_OK) err = mirror_file_store(plan->folder, plan->file, why);
  snprintf(record, sizeof record, "%s/record", plan->folder);
  return err == TARN_OK ? file_create(record, RECORD_AREA_BYTES, why) : err;
}

static json_t **list_of(const struct create_plan *plan) {
  return plan->adding ? &plan->file->images[plan->from].adding : &plan->file->unmake;
}

tarn_err plan_list(struct create_plan *plan, struct why *why) {
  json_t **list = list_of(plan);
  require(!*list);
  *list = json_array();
  for (uint32_t i = 0; i < plan->file_count; i++)
    if (is_missing(&plan->files[i]) && bytes_to_make(plan, i, 1) > 0)
      json_array_append_new(*list, json_string_nocheck(plan->files[i].path));
  /* What has the uuid of a new tail is ours to undo, whether it was made or not. */
  for (uint32_t slot = plan->from; slot < plan->to; slot++) {
    char text[UNMAKE_TEXT_BYTES];
    if (!plan->places[slot].tail) continue;
    json_array_append_new(*list, json_string_nocheck(mirror_file_meta_text(&plan->file->images[slot], text)));
    plan->tails++;
  }
  tarn_err err = plan->adding ? mirror_file_store(plan->folder, plan->file, why) : folder_make(plan, why);
  while (err != TARN_OK && json_array_size(*list) > plan->tails) json_array_remove(*list, 0);
  return err;
}

tarn_err plan_make(struct create_plan *plan, struct why *why) {
  json_t *list = *list_of(plan);
  size_t made = 0;
  tarn_err err = files_make(plan, &made, why);
  if (err == TARN_OK) warn_of_one_file_system(plan);
  while (err != TARN_OK && json_array_size(list) > made + plan->tails) json_array_remove(list, made);
  return err;
}
