/* request.h - what arrives on the control socket: one JSON object per line, with "command" and that command's arguments.
 *
 * Pure: the edge where strangers' bytes become typed values. */
#ifndef TARN_SHELL_REQUEST_H
#define TARN_SHELL_REQUEST_H

#include <jansson.h>

#include "base/require.h"
#include "shell/why.h"

#define REQUEST_LINE_MAX  (1u << 20)
#define REQUEST_ITEMS_MAX 1000u /* keys and values; the longest command that makes sense has about a hundred */

struct request {
  json_t *json; /* the whole object */
  const char *command;
};

/* TARN_INVALID with a sentence. On success request_free() is due. Whatever the line holds, this takes no longer than a look at its
 * bytes: a line of many items, which would keep the reactor, is refused before it is parsed. */
CHECKED tarn_err request_parse(const char *line, size_t bytes, struct request *request, struct why *why);
void request_free(struct request *request);

/* Arguments by key. A missing one is NULL, 0 or false and no error; a wrong type is TARN_INVALID. Texts are the request's. */
CHECKED tarn_err request_text(const struct request *request, const char *key, const char **text, struct why *why);
CHECKED tarn_err request_flag(const struct request *request, const char *key, bool *flag, struct why *why);
/* An array of at most `max` texts. */
CHECKED tarn_err request_texts(const struct request *request, const char *key, const char **texts, size_t max,
                               size_t *count, struct why *why);
/* Refuses keys that are not in `known` (a list that ends with NULL; "command" is always known). */
CHECKED tarn_err request_only(const struct request *request, const char *const *known, struct why *why);

#endif
