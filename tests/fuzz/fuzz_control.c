/* Property: a line on the control socket is a request or a refusal that says why; one that is accepted as the words of
 * `mirror create` gives a config.json that reads back the same. And no config.json, damaged in whatever way, is taken for a
 * good one that cannot be written again. */
#include <string.h>

#include "fuzz.h"
#include "shell/create_plan.h"
#include "shell/words.h"

#define LINE_MAX_BYTES 65536u

static void check_file(const struct mirror_file *file) {
  static struct mirror_file again;
  struct why why = {""};
  json_t *json = mirror_file_to_json(file);
  require(json != NULL);
  require(mirror_file_from_json(json, &again, &why) == TARN_OK);
  json_t *json_again = mirror_file_to_json(&again);
  require(json_equal(json, json_again));
  json_decref(json);
  json_decref(json_again);
  json_decref(again.unmake);
}

static void check_create(const struct request *request) {
  static struct create_plan plan;
  static struct mirror_file file;
  struct why why = {""};
  memset(&plan, 0, sizeof plan);
  memset(&file, 0, sizeof file);
  plan.file = &file;
  plan.node = "n1";
  plan.state = "/state";
  if (plan_parse(&plan, request, &why) != TARN_OK) {
    require(why.text[0] != 0);
    return;
  }
  require(record_name_is_valid(file.name, strlen(file.name)));
  for (uint32_t i = 0; i < file.volume_count; i++)
    if (!plan.sized) file.volumes[i].size_bytes = 512; /* as plan_check() would */
  for (uint32_t slot = 0; slot < file.slot_count; slot++)
    if (!file.images[slot].meta[0]) strcpy(file.images[slot].meta, "/meta");
  check_file(&file);
}

static void check_config(const json_t *json) {
  static struct mirror_file file;
  struct why why = {""};
  if (mirror_file_from_json(json, &file, &why) == TARN_OK) {
    check_file(&file);
    json_decref(file.unmake);
  } else require(why.text[0] != 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  struct request request;
  struct why why = {""};
  if (bytes > LINE_MAX_BYTES) return -1;
  if (request_parse((const char *)data, bytes, &request, &why) != TARN_OK) {
    require(why.text[0] != 0);
    require(request.json == NULL);
    return 0;
  }
  check_create(&request);
  check_config(request.json);
  request_free(&request);
  return 0;
}
