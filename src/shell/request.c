#include "shell/request.h"

#include <string.h>

/* How many keys and values it can have, if it is JSON: one more than there are separators and brackets outside of texts. */
static size_t items_count(const char *line, size_t bytes) {
  size_t count = 1;
  bool quoted = false;
  for (size_t i = 0; i < bytes; i++) {
    if (quoted && line[i] == '\\') i++;
    else if (line[i] == '"') quoted = !quoted;
    else if (!quoted && memchr(",:[{", line[i], 4)) count++;
  }
  return count;
}

tarn_err request_parse(const char *line, size_t bytes, struct request *request, struct why *why) {
  *request = (struct request){.json = NULL};
  json_error_t error;
  if (bytes > REQUEST_LINE_MAX)
    return because(why, TARN_INVALID, "a request is longer than %u bytes", REQUEST_LINE_MAX);
  if (items_count(line, bytes) > REQUEST_ITEMS_MAX)
    return because(why, TARN_INVALID, "a request has more than %u keys and values", REQUEST_ITEMS_MAX);
  json_t *json = json_loadb(line, bytes, JSON_REJECT_DUPLICATES, &error);
  if (!json) return because(why, TARN_INVALID, "this is no JSON: %s", error.text);
  const char *command = json_string_value(json_object_get(json, "command"));
  if (!command) {
    json_decref(json);
    return because(why, TARN_INVALID, "a request is an object with a text \"command\"");
  }
  *request = (struct request){.json = json, .command = command};
  return TARN_OK;
}

void request_free(struct request *request) {
  json_decref(request->json);
  *request = (struct request){.json = NULL};
}

tarn_err request_text(const struct request *request, const char *key, const char **text, struct why *why) {
  const json_t *value = json_object_get(request->json, key);
  *text = NULL;
  if (!value || json_is_null(value)) return TARN_OK;
  if (!json_is_string(value)) return because(why, TARN_INVALID, "\"%s\" is no text", key);
  *text = json_string_value(value);
  return TARN_OK;
}

tarn_err request_flag(const struct request *request, const char *key, bool *flag, struct why *why) {
  const json_t *value = json_object_get(request->json, key);
  *flag = json_is_true(value);
  return !value || json_is_boolean(value) ? TARN_OK
                                          : because(why, TARN_INVALID, "\"%s\" is neither true nor false", key);
}

tarn_err request_texts(const struct request *request, const char *key, const char **texts, size_t max, size_t *count,
                       struct why *why) {
  const json_t *value = json_object_get(request->json, key);
  *count = 0;
  if (!value) return TARN_OK;
  if (!json_is_array(value)) return because(why, TARN_INVALID, "\"%s\" is no list", key);
  if (json_array_size(value) > max) return because(why, TARN_INVALID, "\"%s\" has more than %zu entries", key, max);
  for (size_t i = 0; i < json_array_size(value); i++) {
    texts[i] = json_string_value(json_array_get(value, i));
    if (!texts[i]) return because(why, TARN_INVALID, "\"%s\" has an entry that is no text", key);
  }
  *count = json_array_size(value);
  return TARN_OK;
}

tarn_err request_only(const struct request *request, const char *const *known, struct why *why) {
  for (void *at = json_object_iter(request->json); at; at = json_object_iter_next(request->json, at)) {
    const char *key = json_object_iter_key(at);
    size_t i = 0;
    while (known[i] && strcmp(known[i], key) != 0) i++;
    if (!known[i] && strcmp(key, "command") != 0) return because(why, TARN_INVALID, "unknown argument \"%.80s\"", key);
  }
  return TARN_OK;
}
