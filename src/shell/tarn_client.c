#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/text.h"
#include "shell/listen.h"
#include "shell/tarn.h"
#include "shell/words.h"

#define TICK_MS   300
#define STATUS_MS 15000 /* the daemon answers that at once, whatever its disks do */

int tarn_fail(const struct tarn *tarn, int status, const char *format, ...) {
  char text[1024];
  va_list arguments;
  if (tarn->quiet) return status;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  text_printable(text); /* one line, whatever was quoted in it */
  if (tarn->json) {
    json_t *message = json_string(text);
    json_t *json = json_pack("{s:b, s:o}", "ok", 0, "error",
                             message ? message : json_string("a name or path in this command is not UTF-8"));
    tarn_print_json(json, false);
    json_decref(json);
  }
  fflush(stdout);
  fprintf(stderr, "tarn: %s\n", text);
  return status;
}

void tarn_print_json(const json_t *json, bool one_line) {
  json_dumpf(json, stdout, one_line ? JSON_COMPACT : JSON_INDENT(2));
  putchar('\n');
}

/* A daemon that hangs up meanwhile may have said why: so what cannot be sent is seen when the answer is read. */
static void bytes_send(int fd, const char *bytes, size_t left) {
  while (left > 0) {
    ssize_t sent = send(fd, bytes, left, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return;
    bytes += sent;
    left -= (size_t)sent;
  }
}

/* A stream to the daemon, with the request sent; NULL after telling why not. */
static FILE *request_send(const struct tarn *tarn, json_t *request, int *status) {
  struct address address;
  struct why why;
  int fd = -1;
  char *text = json_dumps(request, JSON_COMPACT);
  json_decref(request);
  *status = EXIT_REFUSED;
  if (!text) {
    *status = tarn_fail(tarn, EXIT_USAGE, "a name or path in this command is not UTF-8");
    return NULL;
  }
  tarn_err err = address_unix(tarn->control, &address, &why);
  if (err == TARN_OK) err = address_connect(&address, &fd, &why);
  FILE *stream = err == TARN_OK ? fdopen(fd, "r+") : NULL;
  if (err == TARN_NOT_FOUND)
    tarn_fail(tarn, EXIT_REFUSED,
              "no daemon answers at %s, so nothing is served (and nothing that was answered is lost); start it with "
              "'systemctl start tarnd' or 'tarnd --state DIR', or say with --state DIR (or TARN_STATE) where it runs",
              tarn->control);
  else if (err != TARN_OK)
    tarn_fail(tarn, EXIT_REFUSED, "the daemon cannot be asked: %s%s", why.text,
              access(tarn->control, W_OK) != 0 && errno == EACCES ? "; only its owner may: try sudo" : "");
  if (stream) bytes_send(fd, text, strlen(text));
  if (stream) bytes_send(fd, "\n", 1);
  free(text);
  return stream;
}

/* The next line of the daemon as JSON; NULL at its end. */
static json_t *line_read(FILE *stream) {
  char *line = NULL;
  size_t room = 0;
  ssize_t bytes = getline(&line, &room, stream);
  json_t *json = bytes > 0 ? json_loadb(line, (size_t)bytes, 0, NULL) : NULL;
  free(line);
  return json;
}

/* The answer to a request: its result, or the refusal told. */
static int answer_read(const struct tarn *tarn, FILE *stream, json_t **result) {
  json_t *answer = line_read(stream);
  *result = NULL;
  if (!answer)
    return tarn_fail(tarn, EXIT_REFUSED,
                     "the daemon at %s ended before it answered; see its log, and 'tarn status' once it runs again",
                     tarn->control);
  int status = EXIT_DONE;
  if (json_is_true(json_object_get(answer, "ok"))) {
    const json_t *warnings = json_object_get(answer, "warnings");
    for (size_t i = 0; i < json_array_size(warnings); i++)
      fprintf(stderr, "tarn: warning: %s\n", json_string_value(json_array_get(warnings, i)));
    *result = json_incref(json_object_get(answer, "result"));
  } else {
    const char *error = json_string_value(json_object_get(answer, "error"));
    bool usage = json_is_true(json_object_get(answer, "usage"));
    status =
        tarn_fail(tarn, usage ? EXIT_USAGE : EXIT_REFUSED, "%s", error ? error : "the daemon's answer makes no sense");
  }
  json_decref(answer);
  return status;
}

int tarn_ask(const struct tarn *tarn, json_t *request, json_t **result) {
  return tarn_ask_long(tarn, request, result, NULL, NULL);
}

int tarn_ask_long(const struct tarn *tarn, json_t *request, json_t **result,
                  void (*tick)(const struct tarn *tarn, const json_t *request), const char *left) {
  int status;
  *result = NULL;
  FILE *stream = request_send(tarn, json_incref(request), &status);
  struct pollfd answer = {.fd = stream ? fileno(stream) : -1, .events = POLLIN};
  bool prompt = stream && strcmp(json_string_value(json_object_get(request, "command")), "status") == 0;
  bool silent = prompt && !tick && poll(&answer, 1, STATUS_MS) == 0;
  while (stream && tick && !interrupted() && poll(&answer, 1, TICK_MS) == 0) tick(tarn, request);
  json_decref(request);
  if (!stream) return status;
  if (silent) {
    fclose(stream);
    return tarn_fail(
        tarn, EXIT_REFUSED,
        "the daemon at %s is there, and does not answer within %u s: it is stopped or stuck; see its log, and if "
        "it stays so, kill it (kill -9) and start it again, which loses nothing that was answered",
        tarn->control, STATUS_MS / 1000);
  }
  if (tick && interrupted()) {
    progress_end();
    fclose(stream);
    return tarn_fail(tarn, EXIT_REFUSED, "%s", left);
  }
  status = answer_read(tarn, stream, result);
  fclose(stream);
  return status;
}

int tarn_stream(const struct tarn *tarn, json_t *request, bool (*line)(const struct tarn *tarn, const json_t *json)) {
  int status;
  json_t *json;
  FILE *stream = request_send(tarn, request, &status);
  if (!stream) return status;
  status = answer_read(tarn, stream, &json);
  json_decref(json);
  bool more = status == EXIT_DONE;
  while (more && (json = line_read(stream)) != NULL) {
    const char *error = json_string_value(json_object_get(json, "error"));
    if (error) status = tarn_fail(tarn, EXIT_REFUSED, "%s", error);
    more = !error && line(tarn, json);
    json_decref(json);
  }
  fclose(stream);
  return status;
}
