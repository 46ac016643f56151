/* The table of commands: arguments, help, and how each shows its result. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shell/image_spec.h"
#include "shell/settings.h"
#include "shell/tarn.h"
#include "shell/words.h"

static const char *text_of(const json_t *json, const char *key) {
  const char *text = json_string_value(json_object_get(json, key));
  return text ? text : "";
}

/* ---- checks of what was typed ---- */

static tarn_err check_mirror(char **text, struct why *why) { return name_check("mirror", *text, why); }

static tarn_err check_size(char **text, struct why *why) {
  uint64_t bytes;
  tarn_err err = size_parse(*text, &bytes, why);
  if (err == TARN_OK && bytes % 512 != 0)
    err = because(why, TARN_INVALID, "the size %.40s is no multiple of 512", *text);
  return err;
}

static tarn_err check_key(char **text, struct why *why) {
  unsigned index;
  return setting_find(*text, &index, why);
}

static tarn_err check_assignment(char **text, struct why *why) {
  struct settings settings;
  unsigned index;
  return setting_assign(&settings, *text, &index, why);
}

/* Relative paths are this process's: the daemon's folder is another one. */
static tarn_err check_image(char **text, struct why *why) {
  char folder[PATH_BYTES_MAX + 1];
  struct image_spec *spec = malloc(sizeof *spec);
  char *out = malloc(IMAGE_SPEC_TEXT);
  if (!spec || !out) abort();
  tarn_err err = image_spec_parse(*text, spec, why);
  if (err == TARN_OK && !getcwd(folder, sizeof folder))
    err = because(why, TARN_IO, "the current folder has no usable name; give absolute paths");
  for (uint32_t i = 0; err == TARN_OK && i < spec->path_count; i++) {
    if (spec->node[0] && spec->paths[i][0] != '/')
      err = because(why, TARN_INVALID, "the path '%.80s' on node %s must be absolute", spec->paths[i], spec->node);
    else err = path_absolute(spec->paths[i], folder, why);
  }
  if (err == TARN_OK && spec->meta[0]) err = path_absolute(spec->meta, folder, why);
  if (err == TARN_OK) {
    image_spec_format(spec, out);
    free(*text);
    *text = strdup(out);
  }
  free(spec);
  free(out);
  return err;
}

/* ---- results ---- */

static void show_created(const json_t *result, const json_t *request) {
  (void)request;
  const char *name = text_of(result, "name"), *state = text_of(result, "state");
  bool inactive = strcmp(state, "INACTIVE") == 0;
  printf("mirror %s created, %s%s%s\n", name, state, inactive ? "; start it with: tarn mirror activate " : "",
         inactive ? name : "");
}
static void show_state(const json_t *result, const json_t *request) {
  (void)request;
  printf("mirror %s is %s\n", text_of(result, "name"), text_of(result, "state"));
}
static void show_destroyed(const json_t *result, const json_t *request) {
  (void)request;
  printf("mirror %s is destroyed; the data of its images is left in place\n", text_of(result, "name"));
}

static void value_text(unsigned index, const json_t *value, char *out) {
  if (json_is_string(value)) snprintf(out, SETTING_TEXT, "%s", json_string_value(value));
  else setting_text(index, json_integer_value(value), out);
}

static void show_settings(const json_t *result, const json_t *request) {
  const json_t *settings = json_object_get(result, "settings");
  struct table table = {.column_count = 5};
  table_add(&table, "SETTING", "VALUE", "DEFAULT", "ALLOWED", "");
  for (unsigned i = 0; i < MIRROR_SETTING_COUNT; i++) {
    const json_t *value = json_object_get(settings, mirror_settings[i].name);
    char text[SETTING_TEXT], first[SETTING_TEXT], range[SETTING_RANGE_TEXT];
    if (!value) continue;
    value_text(i, value, text);
    if (json_object_get(request, "key")) printf("%s\n", text);
    table_add(&table, mirror_settings[i].name, text, setting_text(i, mirror_settings[i].value, first),
              setting_range_text(i, range), mirror_settings[i].at_create ? "fixed at create" : "");
  }
  if (!json_object_get(request, "key")) table_print(&table, 0, stdout);
  table_free(&table);
}
static void show_set(const json_t *result, const json_t *request) {
  (void)request;
  printf("settings of mirror %s are changed\n", text_of(result, "name"));
}

static bool event_show(const struct tarn *tarn, const json_t *line) {
  const char *subject = text_of(line, "subject");
  if (tarn->json) tarn_print_json(line, true);
  else
    printf("%s %-7s %s%s%s\n", text_of(line, "time"), text_of(line, "level"), subject, subject[0] ? ": " : "",
           text_of(line, "text"));
  return fflush(stdout) == 0;
}
static int events_run(struct tarn *tarn, json_t *request) { return tarn_stream(tarn, request, event_show); }

/* ---- the table ---- */

#define NAME_ARGUMENT \
  { ARGUMENT_POSITIONAL, "NAME", "name", NULL, true, check_mirror, "the mirror" }

const struct tarn_command tarn_commands[] = {
    {.name = "status",
     .summary = "mirrors, images, states, progress, errors, and why",
     .help = "States of a mirror: INACTIVE (closed to clients), ACTIVE (served), ATTENTION (something stops it; 'why' "
             "tells).\n"
             "States of an image: SYNCHRONIZED (has every answered write), SYNCHRONIZING (being copied to), CONSISTENT "
             "(equal\n"
             "to the master at some moment), UNSYNCHRONIZED (not usable by itself).\n",
     .arguments = {{ARGUMENT_POSITIONAL, "MIRROR", "name", NULL, false, check_mirror, "this mirror only"},
                   {ARGUMENT_FLAG, "--watch", NULL, NULL, false, NULL, "show it again each second, until Ctrl-C"}},
     .run = status_run},
    {.name = "events",
     .summary = "the event stream, a line each: recent ones, then what happens until Ctrl-C",
     .run = events_run},
    {.name = "mirror create",
     .summary = "make a mirror of files or block devices",
     .help =
         "IMAGE is [NAME=]PATH[+PATH...][,KEY=VALUE...]: one complete copy, a PATH per volume. NAME defaults to a, b, "
         "...\n"
         "A PATH starts with /, ./ or ../; + and , inside it are written %2B and %2C. Keys:\n"
         "  overwrite   the image may hold data, which is lost        meta=PATH   its metadata [PATH.tarn]\n"
         "\n"
         "The mirror starts with what the first image holds. A missing file is made, sparse, when the size is known.\n"
         "\n"
         "Examples:\n"
         "  tarn mirror create vol0 --size 10G --image /disk1/vol0.img --image /disk2/vol0.img --activate\n"
         "  tarn mirror create old --image ./adopt-me.img --image copy=/disk2/old.img\n"
         "  tarn mirror create db --volume data:10G --volume log:1G --image /a/data+/a/log --image /b/data+/b/log\n",
     .arguments = {NAME_ARGUMENT,
                   {ARGUMENT_VALUE, "--size", "size", "SIZE", false, check_size,
                    "bytes, or with K M G T P [size of the first image]"},
                   {ARGUMENT_LIST, "--volume", "volumes", "VOL:SIZE", false, NULL,
                    "a volume of its own name; again for more"},
                   {ARGUMENT_LIST, "--image", "images", "IMAGE", true, check_image, "a copy; the first is the master"},
                   {ARGUMENT_LIST, "--set", "set", "KEY=VALUE", false, check_assignment, "a setting"},
                   {ARGUMENT_FLAG, "--activate", "activate", NULL, false, NULL, "serve it at once"}},
     .show = show_created},
    {.name = "mirror activate",
     .summary = "open a mirror to its clients, recover it first if need be",
     .help = "Refused, naming the reason, unless the newest data is there for sure and no file was changed by others "
             "meanwhile;\n"
             "the mirror is in ATTENTION then.\n",
     .arguments = {NAME_ARGUMENT,
                   {ARGUMENT_FLAG, "--force", "force", NULL, false, NULL,
                    "go on with what is there; prints what may be lost"}},
     .show = show_state},
    {.name = "mirror deactivate",
     .summary = "close a mirror: finish writes, flush, release its files",
     .arguments = {NAME_ARGUMENT,
                   {ARGUMENT_FLAG, "--force", "force", NULL, false, NULL, "hang up on clients that are connected"}},
     .show = show_state},
    {.name = "mirror destroy",
     .summary = "forget an INACTIVE mirror; the data of its images is left in place",
     .arguments = {NAME_ARGUMENT},
     .show = show_destroyed},
    {.name = "mirror set",
     .summary = "change settings",
     .arguments = {NAME_ARGUMENT,
                   {ARGUMENT_REST, "KEY=VALUE", "set", NULL, true, check_assignment, "a setting; again for more"}},
     .show = show_set},
    {.name = "mirror get",
     .summary = "show settings",
     .arguments = {NAME_ARGUMENT,
                   {ARGUMENT_POSITIONAL, "KEY", "key", NULL, false, check_key, "this one only: just its value"}},
     .show = show_settings},
};
const size_t tarn_command_count = sizeof tarn_commands / sizeof tarn_commands[0];
