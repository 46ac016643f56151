/* Property: an IMAGE that is accepted formats to a text that parses to the same. A disk keeps its parts when it is made absolute. The same for SIZE, and for KEY=VALUE, where
 * the texts are exact. */
#include <string.h>

#include "fuzz.h"
#include "shell/image_spec.h"
#include "shell/settings.h"
#include "shell/words.h"

#define TEXT_MAX 16384u

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
}

/* A disk that is accepted is made absolute without a change of its kind, its parts or their ranges. */
static void check_disk(const char *text) {
  static struct disk_text disk, absolute;
  char path[PATH_BYTES_MAX + 1], key[PATH_BYTES_MAX + 16];
  struct why why = {""};
  if (disk_text_parse(text, &disk, &why) != TARN_OK) {
    require(why.text[0] != 0);
    return;
  }
  if (disk.kind == DISK_KIND_NBD) nbd_text_key(text, key);
  strcpy(path, text);
  if (path_absolute(path, "/x;y%3B@0+4K", NULL) != TARN_OK) return;
  require(disk_text_parse(path, &absolute, NULL) == TARN_OK);
  require(absolute.kind == disk.kind && absolute.part_count == disk.part_count);
  for (uint32_t i = 0; i < disk.part_count; i++) {
    require(absolute.parts[i].path[0] == '/');
    require(absolute.parts[i].offset == disk.parts[i].offset && absolute.parts[i].length == disk.parts[i].length);
  }
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
  check_disk(text);
  check_size(text);
  check_setting(&mirror_settings, text);
  check_setting(&image_settings, text);
  return 0;
}
