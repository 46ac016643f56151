/* Property: a config.json, damaged or edited in whatever way, is refused with the reason, or is one that can be written again and
 * reads back the same, whose names differ, and of which a mirror can be made, or refused, without a broken promise. */
#include <string.h>

#include "core/mirror.h"
#include "fuzz.h"
#include "shell/mirror_file.h"

static bool same_names(const struct mirror_file *file) {
  for (uint32_t i = 0; i < file->volume_count; i++)
    for (uint32_t j = 0; j < i; j++)
      if (strcmp(file->volumes[i].name, file->volumes[j].name) == 0) return true;
  for (uint32_t i = 0; i < file->slot_count; i++)
    for (uint32_t j = 0; j < i; j++)
      if (file->images[i].present && file->images[j].present && strcmp(file->images[i].name, file->images[j].name) == 0)
        return true;
  return false;
}

static void check_again(const struct mirror_file *file) {
  static struct mirror_file again, copy;
  struct why why = {""};
  mirror_file_copy(&copy, file);
  json_t *json = mirror_file_to_json(&copy);
  require(json != NULL);
  require(mirror_file_from_json(json, &again, &why) == TARN_OK);
  json_t *json_again = mirror_file_to_json(&again);
  require(json_equal(json, json_again));
  char *text = json_dumps(json, JSON_INDENT(2));
  require(text != NULL); /* mirror_file_store() can write it */
  json_decref(json_loads(text, JSON_REJECT_DUPLICATES, NULL));
  free(text);
  json_decref(json);
  json_decref(json_again);
  mirror_file_release(&again);
  mirror_file_release(&copy);
}

/* As managed_config() does. */
static void check_mirror(const struct mirror_file *file) {
  static struct mirror_config config;
  const int64_t *values = file->settings.values;
  config = (struct mirror_config){.region_bytes = (uint32_t)values[SET_REGION],
                                  .extent_bytes = (uint32_t)values[SET_EXTENT],
                                  .mark_count = (uint32_t)values[SET_MARKS],
                                  .volume_count = file->volume_count,
                                  .image_count = file->slot_count};
  strcpy(config.name, file->name);
  for (uint32_t i = 0; i < file->volume_count; i++) config.volumes[i].size_bytes = file->volumes[i].size_bytes;
  uint64_t meta_bytes = mirror_meta_bytes(&config);
  if (!mirror_config_check(&config)) require(meta_bytes > RECORD_AREA_BYTES && meta_bytes % 4096 == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  static struct mirror_file file;
  struct why why = {""};
  if (bytes > 65536) return -1;
  json_t *json = json_loadb((const char *)data, bytes, JSON_REJECT_DUPLICATES, NULL);
  if (!json) return 0;
  if (mirror_file_from_json(json, &file, &why) == TARN_OK) {
    require(!same_names(&file));
    check_again(&file);
    check_mirror(&file);
    mirror_file_release(&file);
  } else require(why.text[0] != 0);
  require(file.unmake == NULL && file.images[0].adding == NULL);
  json_decref(json);
  return 0;
}
