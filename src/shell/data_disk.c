#include "shell/data_disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/concat.h"
#include "shell/fault_disk.h"
#include "shell/file_share.h"
#include "shell/nbd_disk.h"

#define CONCAT_SLOTS 1024u

_Static_assert(DISK_PARTS_MAX <= CONCAT_PARTS_MAX, "what can be written can be opened");
_Static_assert(PART_ALIGN == CONCAT_ALIGN, "what can be written fits together");

/* The owner of a concat: what it is made of. */
struct made_of {
  uint32_t count;
  struct {
    struct file_use *use;
    char *path;
    uint64_t end;
    bool whole;
  } parts[DISK_PARTS_MAX];
};

bool file_range_has_data(int fd, const struct file_identity *identity, uint64_t offset, uint64_t length) {
  if (!identity->has_data) return false;
  if (identity->is_block_device) return true;
  off_t at = lseek(fd, (off_t)offset, SEEK_DATA);
  if (at < 0) return errno != ENXIO;
  return length == 0 || (uint64_t)at < offset + length;
}

/* ---- parts ---- */

static void made_of_free(void *owner) {
  struct made_of *made = owner;
  for (uint32_t i = 0; i < made->count; i++) {
    file_share_close(made->parts[i].use);
    free(made->parts[i].path);
  }
  free(made);
}

/* How long a part is that was given without a range: all of its file. */
static tarn_err whole_length(const struct disk_part *part, uint64_t *length, struct why *why) {
  struct file_identity identity;
  tarn_err err = file_inspect(part->path, &identity, why);
  if (err != TARN_OK) return err;
  *length = identity.size_bytes;
  if (*length > 0 && *length % PART_ALIGN == 0) return TARN_OK;
  return because(why, TARN_INVALID, "%s has %llu bytes, no multiple of %u: say how much of it is a part, %s@0+%llu",
                 part->path, (unsigned long long)*length, PART_ALIGN, part->path,
                 (unsigned long long)align_down(*length, PART_ALIGN));
}

static tarn_err part_open(struct reactor *reactor, const struct disk_part *part, struct made_of *made,
                          struct concat_part *out, bool *has_data, struct why *why) {
  uint64_t length = part->length;
  tarn_err err = length ? TARN_OK : whole_length(part, &length, why);
  struct file_use *use;
  if (err == TARN_OK) err = file_share_open(reactor, part->path, part->offset, length, &use, why);
  if (err != TARN_OK) return err;
  made->parts[made->count].use = use;
  made->parts[made->count].path = strdup(part->path);
  made->parts[made->count].end = part->offset + length;
  made->parts[made->count].whole = part->length == 0;
  if (!made->parts[made->count++].path) return because(why, TARN_IO, "no memory to open %s", part->path);
  *out = (struct concat_part){
      .disk = file_use_disk(use), .offset = part->offset, .length = length, .user = &file_use_user(use)->user};
  if (file_range_has_data(file_disk_fd(out->disk), file_disk_identity(out->disk), part->offset, length))
    *has_data = true;
  return TARN_OK;
}

static tarn_err parts_open(struct reactor *reactor, const struct disk_text *text, uint64_t size_bytes,
                           struct disk **disk, bool *has_data, struct why *why) {
  struct made_of *made = calloc(1, sizeof *made);
  if (!made) return because(why, TARN_IO, "no memory to open it");
  struct concat_part parts[DISK_PARTS_MAX];
  struct concat_options options = {.env = reactor_env(reactor),
                                   .parts = parts,
                                   .part_count = text->part_count,
                                   .size_bytes = size_bytes,
                                   .slots = CONCAT_SLOTS,
                                   .closed = made_of_free,
                                   .owner = made};
  tarn_err err = TARN_OK;
  const char *wrong;
  for (uint32_t i = 0; i < text->part_count && err == TARN_OK; i++)
    err = part_open(reactor, &text->parts[i], made, &parts[i], has_data, why);
  if (err == TARN_OK) {
    err = concat_new(&options, disk, &wrong);
    if (err != TARN_OK)
      err = because(why, err == TARN_FULL ? TARN_IO : err, "%s%s: %s", text->parts[0].path,
                    text->part_count > 1 ? " and the parts behind it" : "", wrong);
  }
  if (err != TARN_OK) made_of_free(made);
  return err;
}

/* ---- any kind ---- */

static tarn_err file_open(struct reactor *reactor, const char *path, uint64_t size_bytes, struct disk **disk,
                          bool *has_data, struct why *why) {
  struct file_identity identity;
  struct file_disk_options options = {.reactor = reactor, .path = path, .size_bytes = size_bytes};
  tarn_err err = file_disk_open(&options, disk, &identity, why);
  if (err == TARN_OK && identity.has_data) *has_data = true;
  return err;
}

tarn_err data_disk_open(struct reactor *reactor, const char *text, uint64_t size_bytes, struct disk **disk,
                        bool *has_data, struct why *why) {
  struct disk_text *parsed = malloc(sizeof *parsed);
  *disk = NULL;
  if (!parsed) return because(why, TARN_IO, "no memory to open %s", text);
  tarn_err err = disk_text_parse(text, parsed, why);
  if (err == TARN_OK) {
    switch (parsed->kind) {
      case DISK_KIND_FILE: err = file_open(reactor, text, size_bytes, disk, has_data, why); break;
      case DISK_KIND_CONCAT: err = parts_open(reactor, parsed, size_bytes, disk, has_data, why); break;
      case DISK_KIND_NBD:
        err = nbd_disk_open(&(struct nbd_disk_options){.reactor = reactor, .uri = text, .size_bytes = size_bytes}, disk,
                            why);
        *has_data = true;
        break;
    }
  }
  free(parsed);
  require((err == TARN_OK) == (*disk != NULL));
  return err;
}

tarn_err data_disk_open_part(struct reactor *reactor, const char *path, uint64_t offset, uint64_t length,
                             uint64_t size_bytes, struct disk **disk, bool *has_data, struct why *why) {
  struct disk_text *text = calloc(1, sizeof *text);
  *disk = NULL;
  if (!text) return because(why, TARN_IO, "no memory to open %s", path);
  text->kind = DISK_KIND_CONCAT;
  text->part_count = 1;
  text->parts[0].offset = offset;
  text->parts[0].length = length;
  require(strlen(path) < sizeof text->parts[0].path);
  strcpy(text->parts[0].path, path);
  tarn_err err = parts_open(reactor, text, size_bytes, disk, has_data, why);
  free(text);
  return err;
}

uint32_t data_disk_files(struct disk *disk, struct data_file files[DISK_PARTS_MAX]) {
  disk = fault_disk_lower(disk);
  if (disk_is_nbd(disk)) return 0;
  if (!disk_is_concat(disk)) {
    files[0] = (struct data_file){.path = file_disk_path(disk),
                                  .file = disk,
                                  .user = file_disk_user(disk),
                                  .size_bytes = disk->caps.size_bytes,
                                  .whole = true};
    return 1;
  }
  const struct made_of *made = concat_owner(disk);
  for (uint32_t i = 0; i < made->count; i++)
    files[i] = (struct data_file){.path = made->parts[i].path,
                                  .file = file_use_disk(made->parts[i].use),
                                  .user = file_use_user(made->parts[i].use),
                                  .size_bytes = made->parts[i].end,
                                  .whole = made->parts[i].whole};
  return made->count;
}
