/* `tarn status`: the verdict, the table for people, and --watch. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "base/text.h"
#include "shell/tarn.h"
#include "shell/words.h"

/* "SYNCHRONIZING 40%" */
static void state_cell(const json_t *image, char *out, size_t bytes) {
  const json_t *sync = json_object_get(image, "sync");
  uint64_t done = number_of(sync, "done_bytes"), total = number_of(sync, "total_bytes");
  const char *missing = text_of(image, "missing");
  const char *state = text_of(image, "state");
  int used = snprintf(out, bytes, "%s", state[0] ? state : "?");
  if (json_is_object(sync) && total > 0 && strcmp(text_of(sync, "kind"), "verify") != 0)
    used +=
        snprintf(out + used, bytes - (size_t)used, " %" PRIu64 "%%", (uint64_t)((double)done / (double)total * 100));
  if (missing[0]) snprintf(out + used, bytes - (size_t)used, " (%s)", missing);
}

static void why_print(FILE *out, const char *what, const char *name, const char *why) {
  char text[2048];
  snprintf(text, sizeof text, "%s", why);
  if (why[0]) fprintf(out, "      %s%s%s: %s\n", what, name[0] ? " " : "", name, text_printable(text));
}

/* Of one that is good: what is wrong with the others stands above (tarn_verdict.c). */
static void remarks_print(FILE *out, const json_t *image) {
  uint64_t held = number_of(image, "held_requests");
  const char *name = text_of(image, "name");
  why_print(out, "image", name, text_of(image, "note"));
  if (strcmp(text_of(image, "state"), "SYNCHRONIZED") != 0) return;
  if (held > 0)
    fprintf(out, "      image %s: its disk has not answered %" PRIu64 " request%s\n", name, held, held == 1 ? "" : "s");
  why_print(out, "image", name, text_of(image, "reason"));
  if (strcmp(text_of(image, "reason"), text_of(image, "error")) != 0)
    why_print(out, "image", name, text_of(image, "error"));
}

static void images_print(FILE *out, const json_t *images) {
  struct table table = {.column_count = 8, .right_aligned = 0x78};
  table_add(&table, "IMAGE", "ROLE", "STATE", "READS", "WRITES", "ERRORS", "MISSED", "DISKS");
  for (size_t i = 0; i < json_array_size(images); i++) {
    const json_t *image = json_array_get(images, i), *disks = json_object_get(image, "disks");
    if (json_is_array(json_object_get(image, "places"))) disks = json_object_get(image, "places"); /* there they are */
    char state[80], reads[24], writes[24], errors[24], missed[SIZE_TEXT], paths[4096] = "";
    state_cell(image, state, sizeof state);
    snprintf(reads, sizeof reads, "%" PRIu64, number_of(image, "reads"));
    snprintf(writes, sizeof writes, "%" PRIu64, number_of(image, "writes"));
    snprintf(errors, sizeof errors, "%" PRIu64, number_of(image, "read_errors") + number_of(image, "write_errors"));
    for (size_t j = 0; j < json_array_size(disks); j++)
      snprintf(paths + strlen(paths), sizeof paths - strlen(paths), "%s%s", j ? " " : "",
               json_string_value(json_array_get(disks, j)));
    if (json_is_integer(json_object_get(image, "missed_bytes"))) size_text(number_of(image, "missed_bytes"), missed);
    else strcpy(missed, "?");
    const char *role = text_of(image, "role");
    table_add(&table, text_of(image, "name"), role[0] ? role : "?", state, reads, writes, errors, missed, paths);
  }
  table_print(&table, 4, out);
  table_free(&table);
  for (size_t i = 0; i < json_array_size(images); i++) remarks_print(out, json_array_get(images, i));
}

static void mirror_print(FILE *out, const json_t *mirror) {
  const json_t *volumes = json_object_get(mirror, "volumes"), *recovery = json_object_get(mirror, "last_recovery");
  uint64_t marked = number_of(mirror, "marked_regions");
  uint64_t waiting = number_of(mirror, "waiting_requests");
  const json_t *verify = json_object_get(mirror, "verify");
  const char *busy = text_of(mirror, "busy");
  fprintf(out, "mirror %s  %s%s%s%s\n", text_of(mirror, "name"), text_of(mirror, "state"), busy[0] ? " (" : "", busy,
          busy[0] ? ")" : "");
  if (strcmp(text_of(mirror, "state"), "ATTENTION") != 0) why_print(out, "why", "", text_of(mirror, "reason"));
  for (size_t i = 0; i < json_array_size(volumes); i++) {
    const json_t *volume = json_array_get(volumes, i);
    char size[SIZE_TEXT];
    uint64_t clients = number_of(volume, "clients");
    fprintf(out, "  volume %s  %s, NBD export '%s', %" PRIu64 " client%s", text_of(volume, "name"),
            size_text(number_of(volume, "size"), size), text_of(volume, "export"), clients, clients == 1 ? "" : "s");
    if (i == 0 && marked > 0) fprintf(out, ", %" PRIu64 " region%s marked", marked, marked == 1 ? "" : "s");
    if (i == 0 && waiting > 0) fprintf(out, ", %" PRIu64 " request%s waiting", waiting, waiting == 1 ? "" : "s");
    fputc('\n', out);
  }
  if (json_is_object(verify)) {
    char done[SIZE_TEXT], total[SIZE_TEXT], differing[SIZE_TEXT];
    fprintf(out, "  verify: %s of %s compared, %s differ\n", size_text(number_of(verify, "done_bytes"), done),
            size_text(number_of(verify, "total_bytes"), total),
            size_text(number_of(verify, "differing_bytes"), differing));
  }
  if (json_is_object(recovery)) {
    char in_marks[SIZE_TEXT], copied[SIZE_TEXT];
    fprintf(out, "  recovery after %s: %s marked, %s copied, %.1f s%s\n", text_of(recovery, "reason"),
            size_text(number_of(recovery, "bytes_marked"), in_marks),
            size_text(number_of(recovery, "bytes_copied"), copied),
            json_real_value(json_object_get(recovery, "seconds")),
            json_is_true(json_object_get(recovery, "running")) ? ", running" : "");
  }
  images_print(out, json_object_get(mirror, "images"));
}

static void status_print(FILE *out, const json_t *status, const struct look *look) {
  const json_t *mirrors = json_object_get(status, "mirrors");
  verdict_print(out, status, look);
  for (size_t i = 0; i < json_array_size(mirrors); i++) trouble_print(out, status, json_array_get(mirrors, i), look);
  fprintf(out, "\nnode %s, tarnd %s\n", text_of(status, "node"), text_of(status, "version"));
  for (size_t i = 0; i < json_array_size(mirrors); i++) {
    fputc('\n', out);
    mirror_print(out, json_array_get(mirrors, i));
  }
  if (json_array_size(mirrors) == 0)
    fprintf(out,
            "\nno mirrors yet; make one with: tarn mirror create NAME --size 1G --image /PATH/a.img --image "
            "/PATH/b.img --activate\n");
}

/* How many lines of a terminal of this width the text takes; colours take no room. */
static unsigned lines_taken(const char *text, unsigned width) {
  unsigned lines = 0, column = 0;
  for (; *text; text++) {
    if (*text == '\033') {
      text += strcspn(text, "m");
      continue;
    }
    bool new_line = *text == '\n';
    column = new_line ? 0 : column + 1;
    lines += new_line || column > width;
    if (column > width) column = 1;
  }
  return lines;
}

/* Draws over what the last call drew; what stands above it on the screen stays. */
static void screen_draw(const char *text) {
  static unsigned drawn;
  struct winsize size;
  bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 && size.ws_col > 0;
  if (!known) size = (struct winsize){.ws_row = 24, .ws_col = 80};
  if (drawn >= size.ws_row) printf("\033[H\033[2J");
  else if (drawn > 0) printf("\033[%uA\r\033[J", drawn);
  drawn = lines_taken(text, size.ws_col);
  fputs(text, stdout);
}

/* Colours and wrapped lines are for eyes alone; NO_COLOR (no-color.org) and a dumb terminal do without colours. */
static struct look look_find(void) {
  struct winsize size;
  const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
  struct look look = {.colour = false};
  if (!isatty(STDOUT_FILENO)) return look;
  look.colour = !(no_color && no_color[0]) && term && strcmp(term, "dumb") != 0;
  look.width = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
  return look;
}

static void status_show(const struct tarn *tarn, const json_t *result, bool again) {
  if (tarn->json) {
    tarn_print_json(result, tarn->watch);
    return;
  }
  char *text = NULL;
  size_t bytes;
  FILE *out = open_memstream(&text, &bytes);
  if (!out) abort();
  struct look look = look_find();
  status_print(out, result, &look);
  bool screen = tarn->watch && isatty(STDOUT_FILENO);
  if (screen) fprintf(out, "\nCtrl-C ends this view.\n");
  fclose(out);
  if (screen) screen_draw(text);
  else printf("%s%s", again ? "\n" : "", text);
  free(text);
}

int status_run(struct tarn *tarn, json_t *request) {
  json_t *result;
  int status;
  if (tarn->watch) interrupt_watch();
  for (bool again = false; (status = tarn_ask(tarn, json_incref(request), &result)) == EXIT_DONE; again = true) {
    status_show(tarn, result, again);
    json_decref(result);
    bool written = fflush(stdout) == 0;
    struct timespec second = {.tv_sec = 1};
    if (tarn->watch && written && !interrupted()) nanosleep(&second, NULL);
    if (!tarn->watch || !written || interrupted()) break;
  }
  json_decref(request);
  return interrupted() ? EXIT_DONE : status;
}
