/* Property: an IMAGE that is accepted formats to a text that parses to the same. The same for SIZE, and for KEY=VALUE, where
 * the texts are exact. Each of its disks is within bounds: parts that are aligned, do not wrap, and do not overlap as far as the
 * text tells; made absolute it is taken by the daemon, and is the same once more; the key of an NBD address is one for all ways
 * to write it that are formatted the same. */
#include <string.h>

#include "fuzz.h"
#include "shell/image_spec.h"
#include "shell/settings.h"
#include "shell/words.h"

#define TEXT_MAX 16384u

static void check_parts(const struct disk_text *disk) {
  require(disk->part_count <= DISK_PARTS_MAX);
  require(disk->kind == DISK_KIND_NBD ? disk->part_count == 0 : disk->part_count >= 1);
  require(disk->kind != DISK_KIND_FILE || (disk->part_count == 1 && disk->parts[0].length == 0));
  for (uint32_t i = 0; i < disk->part_count; i++) {
    const struct disk_part *a = &disk->parts[i];
    require(a->path[0] != 0 && memchr(a->path, 0, sizeof a->path) != NULL);
    require(a->offset % PART_ALIGN == 0 && a->length % PART_ALIGN == 0);
    require(a->offset <= INT64_MAX && a->length <= INT64_MAX - a->offset);
    for (uint32_t j = 0; j < i; j++) {
      const struct disk_part *b = &disk->parts[j];
      bool apart = a->length && b->length && (a->offset >= b->offset + b->length || b->offset >= a->offset + a->length);
      require(apart || strcmp(a->path, b->path) != 0);
    }
  }
}

static void check_disk(const char *path) {
  static struct disk_text disk, again;
  static char text[PATH_BYTES_MAX + 1], twice[PATH_BYTES_MAX + 1];
  char key[PATH_BYTES_MAX + 16];
  struct why why = {""};
  require(disk_text_parse(path, &disk, &why) == TARN_OK);
  check_parts(&disk);
  strcpy(text, path);
  if (path_absolute(text, "/folder", &why) != TARN_OK) {
    require(why.text[0] != 0);
    return;
  }
  if (disk_text_check(text, &why) != TARN_OK) {
    require(why.text[0] != 0);
    return;
  }
  require(disk_text_parse(text, &again, &why) == TARN_OK);
  check_parts(&again);
  require(again.kind == disk.kind && again.part_count == disk.part_count);
  for (uint32_t i = 0; i < disk.part_count; i++)
    require(again.parts[i].offset == disk.parts[i].offset && again.parts[i].length == disk.parts[i].length);
  strcpy(twice, text);
  require(path_absolute(twice, "/elsewhere", &why) == TARN_OK);
  require(strcmp(twice, text) == 0);
  if (disk.kind == DISK_KIND_NBD) nbd_text_key(text, key);
}

static void check_image(const char *text) {
  static struct image_spec spec, again;
  static char out[IMAGE_SPEC_TEXT];
  struct why why = {""};
  if (image_spec_parse(text, &spec, &why) != TARN_OK) {
    require(why.text[0] != 0);
    return;
  }
  require(spec.path_count >= 1 && spec.path_count <= VOLUMES_MAX);
  image_spec_format(&spec, out);
  require(image_spec_parse(out, &again, &why) == TARN_OK);
  require(memcmp(&spec, &again, sizeof spec) == 0);
  for (uint32_t i = 0; i < spec.path_count; i++) check_disk(spec.paths[i]);
}

static void check_size(const char *text) {
  uint64_t bytes, again;
  char out[SIZE_TEXT];
  if (size_parse(text, &bytes, NULL) != TARN_OK) return;
  require(bytes > 0 && bytes <= INT64_MAX);
  if (!strchr(size_text(bytes, out), '.')) {
    require(size_parse(out, &again, NULL) == TARN_OK);
    require(again == bytes);
  }
}

static void check_setting(const struct settings_table *table, const char *text) {
  int64_t values[MIRROR_SETTING_COUNT + IMAGE_SETTING_COUNT], again;
  unsigned index;
  char out[SETTING_TEXT];
  struct why why = {""};
  settings_defaults(table, values);
  if (setting_assign(table, values, text, &index, &why) != TARN_OK) {
    require(why.text[0] != 0);
    return;
  }
  require(setting_parse(&table->rows[index], setting_text(&table->rows[index], values[index], out), &again, NULL) ==
          TARN_OK);
  require(again == values[index]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  static char text[TEXT_MAX + 1];
  if (bytes > TEXT_MAX) return -1;
  if (bytes > 0) memcpy(text, data, bytes);
  text[bytes] = 0;
  check_image(text);
  check_size(text);
  check_setting(&mirror_settings, text);
  check_setting(&image_settings, text);
  return 0;
}
