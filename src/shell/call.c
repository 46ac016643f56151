#include "shell/call.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

static void answer(struct call *call, bool ok) {
  require(!call->answered);
  call->answered = true;
  call->ok = ok;
  call->done(call);
}

void call_done(struct call *call, json_t *result) {
  call->result = result;
  answer(call, true);
}

json_t *call_sentence(const char *text) {
  json_t *json = json_string(text);
  if (json) return json;
  char plain[sizeof((struct why){}).text];
  snprintf(plain, sizeof plain, "%s", text);
  for (char *at = plain; *at; at++)
    if ((unsigned char)*at >= 0x80) *at = '?';
  return json_string(plain);
}

#define FORMAT_WHY(call, format)                                                      \
  do {                                                                                \
    va_list arguments;                                                                \
    va_start(arguments, format);                                                      \
    (void)text_set_list((call)->why.text, sizeof(call)->why.text, format, arguments); \
    va_end(arguments);                                                                \
  } while (0)

void call_refuse(struct call *call, const char *format, ...) {
  FORMAT_WHY(call, format);
  answer(call, false);
}

void call_misused(struct call *call, const char *format, ...) {
  FORMAT_WHY(call, format);
  call->usage = true;
  answer(call, false);
}

void call_warn(struct call *call, const char *format, ...) {
  FORMAT_WHY(call, format);
  if (!call->warnings) call->warnings = json_array();
  json_array_append_new(call->warnings, call_sentence(call->why.text));
}

char *call_answer_text(struct call *call) {
  require(call->answered);
  json_t *json = json_object();
  json_object_set_new(json, "ok", json_boolean(call->ok));
  if (call->ok) {
    json_object_set_new(json, "result", call->result ? call->result : json_object());
    json_object_set_new(json, "warnings", call->warnings ? call->warnings : json_array());
  } else {
    json_object_set_new(json, "usage", json_boolean(call->usage));
    json_object_set_new(json, "error", call_sentence(call->why.text));
    json_decref(call->warnings);
  }
  call->result = call->warnings = NULL;
  char *text = json_dumps(json, JSON_COMPACT);
  json_decref(json);
  request_free(&call->request);
  if (!text) return NULL;
  size_t bytes = strlen(text);
  char *line = realloc(text, bytes + 2);
  if (!line) { /* an answer without its end would be waited for */
    free(text);
    return NULL;
  }
  memcpy(line + bytes, "\n", 2);
  return line;
}
