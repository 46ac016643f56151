/* The table of commands: arguments, help, and how each shows its result. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shell/image_spec.h"
#include "shell/settings.h"
#include "shell/tarn.h"
#include "shell/words.h"

/* ---- checks of what was typed ---- */

static tarn_err check_mirror(char **text, struct why *why) { return name_check("mirror", *text, why); }

static tarn_err check_size(char **text, struct why *why) {
  uint64_t bytes;
  tarn_err err = size_parse(*text, &bytes, why);
  if (err == TARN_OK && bytes % 512 != 0)
    err = because(why, TARN_INVALID, "the size %.40s is not a multiple of 512", *text);
  return err;
}

static tarn_err check_image_name(char **text, struct why *why) { return name_check("image", *text, why); }

static tarn_err check_mirror_key(char **text, struct why *why) {
  unsigned index;
  return setting_find(&mirror_settings, *text, &index, why);
}
static tarn_err check_image_key(char **text, struct why *why) {
  unsigned index;
  return setting_find(&image_settings, *text, &index, why);
}

static tarn_err check_mirror_setting(char **text, struct why *why) {
  struct settings settings;
  unsigned index;
  return setting_assign(&mirror_settings, settings.values, *text, &index, why);
}
static tarn_err check_image_setting(char **text, struct why *why) {
  struct image_settings settings;
  unsigned index;
  return setting_assign(&image_settings, settings.values, *text, &index, why);
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
    if (spec->node[0] && disk_text_check(spec->paths[i], NULL) != TARN_OK)
      err = because(why, TARN_INVALID, "the path '%.80s' on node %s must be absolute", spec->paths[i], spec->node);
    else err = path_absolute(spec->paths[i], folder, why);
  }
  if (err == TARN_OK && spec->meta[0] && strcmp(spec->meta, META_TAIL) != 0)
    err = path_absolute(spec->meta, folder, why);
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
static void show_imported(const json_t *result, const json_t *request) {
  (void)request;
  const char *name = text_of(result, "name");
  printf("mirror %s is imported, INACTIVE; start it with: tarn mirror activate %s\n", name, name);
}
static void show_state(const json_t *result, const json_t *request) {
  (void)request;
  printf("mirror %s is %s\n", text_of(result, "name"), text_of(result, "state"));
}
static void show_destroyed(const json_t *result, const json_t *request) {
  (void)request;
  printf("mirror %s is destroyed; the data of its images is left in place\n", text_of(result, "name"));
}

static void show_deactivated(const json_t *result, const json_t *request) {
  bool busy = text_of(result, "busy")[0] && strcmp(text_of(result, "state"), "INACTIVE") != 0;
  if (busy)
    printf("mirror %s is being deactivated; 'tarn status %s' shows when it is INACTIVE\n", text_of(result, "name"),
           text_of(result, "name"));
  else show_state(result, request);
}

static void deactivate_tick(const struct tarn *tarn, const json_t *request) {
  char what[96];
  snprintf(what, sizeof what, "mirror %.63s is being deactivated", text_of(request, "name"));
  progress_draw(tarn, what, 0, 0, "");
}
static int deactivate_run(struct tarn *tarn, json_t *request) {
  json_t *result;
  if (json_object_get(request, "wait")) interrupt_watch();
  int status = tarn_ask_long(tarn, json_incref(request), &result, deactivate_tick,
                             "the deactivation goes on without this command; 'tarn status' shows when it is done");
  progress_end();
  if (status == EXIT_DONE && tarn->json) tarn_print_json(result, false);
  if (status == EXIT_DONE && !tarn->json) show_deactivated(result, request);
  json_decref(result);
  json_decref(request);
  return status;
}

static void value_text(const struct setting *setting, const json_t *value, char *out) {
  if (json_is_string(value)) snprintf(out, SETTING_TEXT, "%s", json_string_value(value));
  else setting_text(setting, json_integer_value(value), out);
}

/* What is known of the devices that an image lies on. */
static void show_devices(const json_t *devices) {
  size_t index, at;
  json_t *device, *fact;
  json_array_foreach(devices, index, device) {
    json_array_foreach(json_object_get(device, "facts"), at, fact)
        printf("%s%s: %s\n", index == 0 && at == 0 ? "\n" : "", text_of(device, "path"), json_string_value(fact));
    if (at == 0) printf("%s%s: nothing is known of it\n", index == 0 ? "\n" : "", text_of(device, "path"));
  }
}

/* Of a mirror, or of an image. */
static void show_settings(const json_t *result, const json_t *request) {
  const struct settings_table *settings = json_object_get(result, "image") ? &image_settings : &mirror_settings;
  const json_t *values = json_object_get(result, "settings");
  struct table table = {.column_count = 5};
  table_add(&table, "SETTING", "VALUE", "DEFAULT", "ALLOWED", "");
  for (const struct setting *row = settings->rows; row < settings->rows + settings->count; row++) {
    const json_t *value = json_object_get(values, row->name);
    char text[SETTING_TEXT], first[SETTING_TEXT], range[SETTING_RANGE_TEXT];
    if (!value) continue;
    value_text(row, value, text);
    if (json_object_get(request, "key")) printf("%s\n", text);
    table_add(&table, row->name, text, setting_text(row, row->value, first), setting_range_text(row, range),
              row->at_create ? "fixed at create" : "");
  }
  if (!json_object_get(request, "key")) {
    table_print(&table, 0, stdout);
    show_devices(json_object_get(result, "devices"));
  }
  table_free(&table);
}
static void show_set(const json_t *result, const json_t *request) {
  const char *image = text_of(result, "image");
  (void)request;
  if (image[0]) printf("settings of image %s of mirror %s are changed\n", image, text_of(result, "mirror"));
  else printf("settings of mirror %s are changed\n", text_of(result, "name"));
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

/* ---- what an argument may be, for completion ---- */

enum argument_words argument_words(const struct tarn_command *command, const struct tarn_argument *argument) {
  static const struct {
    argument_check *check;
    enum argument_words words;
  } kinds[] = {{check_mirror, WORDS_MIRRORS},
               {check_image_name, WORDS_IMAGES},
               {check_mirror_key, WORDS_MIRROR_KEYS},
               {check_image_key, WORDS_IMAGE_KEYS},
               {check_mirror_setting, WORDS_MIRROR_SETTINGS},
               {check_image_setting, WORDS_IMAGE_SETTINGS}};
  if (strcmp(command->name, "mirror create") == 0 && argument->check == check_mirror)
    return WORDS_NONE; /* a new name */
  if (strcmp(command->name, "mirror import") == 0) return WORDS_NONE;
  if (argument->key && strcmp(argument->key, "fault") == 0) return WORDS_FAULTS;
  if (argument->key && strcmp(argument->key, "on") == 0) return WORDS_FAULT_OPS;
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0] && argument->check; i++)
    if (kinds[i].check == argument->check) return kinds[i].words;
  return WORDS_NONE;
}

/* ---- the table ---- */

#define NAME_ARGUMENT \
  { ARGUMENT_POSITIONAL, "NAME", "name", NULL, true, check_mirror, "the mirror" }
#define MIRROR_ARGUMENT \
  { ARGUMENT_POSITIONAL, "MIRROR", "mirror", NULL, true, check_mirror, "the mirror" }
#define IMAGE_ARGUMENT \
  { ARGUMENT_POSITIONAL, "IMAGE", "image", NULL, true, check_image_name, "its image, by name" }
#define WAIT_ARGUMENT \
  { ARGUMENT_FLAG, "--wait", NULL, NULL, false, NULL, "stay until it is done, and show progress" }

const struct tarn_command tarn_commands[] = {
    {.name = "status",
     .summary = "mirrors, images, states, progress, errors, and why",
     .help = "States of a mirror: INACTIVE (closed to clients), ACTIVE (served), ATTENTION (something stops it; 'why' "
             "tells).\n"
             "States of an image: SYNCHRONIZED (has every answered write), SYNCHRONIZING (being copied to), CONSISTENT "
             "(equal\n"
             "to the master at some moment), UNSYNCHRONIZED (not usable by itself).\n"
             "\n"
             "Examples:\n"
             "  tarn status\n"
             "  tarn status vol0 --watch\n"
             "  tarn --json status | jq .mirrors[].state\n",
     .arguments = {{ARGUMENT_POSITIONAL, "MIRROR", "name", NULL, false, check_mirror, "this mirror only"},
                   {ARGUMENT_FLAG, "--watch", NULL, NULL, false, NULL, "show it again each second, until Ctrl-C"}},
     .run = status_run},
    {.name = "events",
     .summary = "the event stream, a line each: recent ones, then what happens until Ctrl-C",
     .help = "The newest 1024 events of the running daemon. Each line has its time, how bad it is (info, warning, "
             "error), what it is "
             "about,\n"
             "and what happened. The daemon's log has the older ones. Up to 32 readers at once.\n"
             "\n"
             "Examples:\n"
             "  tarn events\n"
             "  tarn --json events\n",
     .run = events_run},
    {.name = "mirror create",
     .summary = "make a mirror of files, block devices, parts of them, or NBD exports",
     .help =
         "IMAGE is [NAME=]PATH[+PATH...][,KEY=VALUE...]: one complete copy, a PATH per volume. NAME defaults to a, b, "
         "...\n"
         "A PATH is a file or device and starts with /, ./ or ../; or 'concat:PART;PART...', parts of these as one "
         "disk,\n"
         "each PATH[@OFFSET+LENGTH]; or nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH. + and , inside it "
         "are\n"
         "written %2B and %2C. Keys:\n"
         "  overwrite   the image may hold data, which is lost        meta=PATH   its metadata [PATH.tarn]\n"
         "  meta=tail   its metadata behind the volume on the device itself, so that it travels with the disk\n"
         "\n"
         "The mirror starts with what the first image holds. A missing file is made, sparse, when the size is known.\n"
         "\n"
         "Examples:\n"
         "  tarn mirror create vol0 --size 10G --image /disk1/vol0.img --image /disk2/vol0.img --activate\n"
         "  tarn mirror create old --image ./adopt-me.img --image copy=/disk2/old.img\n"
         "  tarn mirror create db --volume data:10G --volume log:1G --image /a/data+/a/log --image /b/data+/b/log\n",
     .settings = &mirror_settings,
     .arguments = {NAME_ARGUMENT,
                   {ARGUMENT_VALUE, "--size", "size", "SIZE", false, check_size,
                    "bytes, or with K M G T P [size of the first image]"},
                   {ARGUMENT_LIST, "--volume", "volumes", "VOL:SIZE", false, NULL,
                    "a volume of its own name; again for more"},
                   {ARGUMENT_LIST, "--image", "images", "IMAGE", true, check_image, "a copy; the first is the master"},
                   {ARGUMENT_LIST, "--set", "set", "KEY=VALUE", false, check_mirror_setting, "a setting"},
                   {ARGUMENT_FLAG, "--activate", "activate", NULL, false, NULL, "serve it at once"}},
     .show = show_created},
    {.name = "mirror import",
     .summary = "rebuild a mirror from its disks, after the state directory is lost",
     .help = "PATH is a disk of one image: PATH[+PATH...][,meta=PATH], a PATH per volume. What the mirror was is read "
             "from its "
             "metadata,\n"
             "in PATH.tarn, in the tail of the disk, or where meta= says. NAME is the one that it had, if none is "
             "given. The "
             "mirror is\n"
             "INACTIVE then, with default settings. Nothing on the disks is changed.\n"
             "\n"
             "Refused: images that no path was given for (named; --force goes on without them), disks of different "
             "mirrors, "
             "images\n"
             "that were written apart from each other. Metadata that lay in the lost state directory is lost: such a "
             "disk is "
             "no\n"
             "image any more, but its data is whole ('tarn mirror create').\n"
             "\n"
             "Examples:\n"
             "  tarn mirror import /disk1/vol0.img /disk2/vol0.img\n"
             "  tarn mirror import /dev/disk/by-id/ata-DISK_7 /dev/disk/by-id/ata-DISK_8 vol0\n",
     .arguments = {{ARGUMENT_REST, "PATH", "images", NULL, true, check_image, "a disk of each image"},
                   {ARGUMENT_POSITIONAL, "NAME", "name", NULL, false, check_mirror, "its name from now on"},
                   {ARGUMENT_FLAG, "--force", "force", NULL, false, NULL, "without the images that are missing"}},
     .show = show_imported},
    {.name = "mirror activate",
     .summary = "open a mirror to its clients, recover it first if need be",
     .help = "Refused, naming the reason, unless the newest data is there for sure and no file was changed by others "
             "meanwhile;\n"
             "the mirror is in ATTENTION then.\n"
             "\n"
             "Examples:\n"
             "  tarn mirror activate vol0\n"
             "  tarn mirror activate --force vol0     after a disk is lost for good\n",
     .arguments = {NAME_ARGUMENT,
                   {ARGUMENT_FLAG, "--force", "force", NULL, false, NULL,
                    "go on with what is there; prints what may be lost"}},
     .show = show_state},
    {.name = "mirror deactivate",
     .summary = "close a mirror: finish writes, flush, release its files",
     .help = "When a disk takes long to finish, this returns after two seconds, and it goes on by itself.\n"
             "A disk that never answers keeps its files open until it does; 'tarn status' says so.\n"
             "\n"
             "Example:\n"
             "  tarn mirror deactivate vol0 --wait\n",
     .arguments = {NAME_ARGUMENT,
                   {ARGUMENT_FLAG, "--force", "force", NULL, false, NULL, "hang up on clients that are connected"},
                   {ARGUMENT_FLAG, "--wait", "wait", NULL, false, NULL, "stay until it is done"}},
     .run = deactivate_run},
    {.name = "mirror destroy",
     .summary = "forget an INACTIVE mirror; the data of its images is left in place",
     .help = "Refused while there are more images than the master: remove them first.\n"
             "\n"
             "Example:\n"
             "  tarn mirror destroy --force vol0\n",
     .arguments = {NAME_ARGUMENT,
                   {ARGUMENT_FLAG, "--force", "force", NULL, false, NULL, "with all images that it still has"}},
     .show = show_destroyed},
    {.name = "mirror set",
     .summary = "change settings",
     .help = "Example:\n"
             "  tarn mirror set vol0 suspend=600 max-missing=0\n",
     .settings = &mirror_settings,
     .arguments = {NAME_ARGUMENT,
                   {ARGUMENT_REST, "KEY=VALUE", "set", NULL, true, check_mirror_setting, "a setting; again for more"}},
     .show = show_set},
    {.name = "mirror get",
     .summary = "show settings",
     .help = "Examples:\n"
             "  tarn mirror get vol0\n"
             "  tarn mirror get vol0 suspend\n",
     .settings = &mirror_settings,
     .arguments = {NAME_ARGUMENT,
                   {ARGUMENT_POSITIONAL, "KEY", "key", NULL, false, check_mirror_key, "this one only: just its value"}},
     .show = show_settings},
    {.name = "mirror verify",
     .summary = "compare all images on line, while clients are served",
     .help = "Reads all images range by range and compares them by SHA-256. Exits with 1 if they differ, and shows "
             "where, and\n"
             "which of them agree. Tarn cannot know which one is right: --repair=IMAGE says it, and copies IMAGE over "
             "the others\n"
             "where they differ. It ends when this command does.\n"
             "\n"
             "Examples:\n"
             "  tarn mirror verify vol0\n"
             "  tarn mirror verify vol0 --repair=a\n",
     .arguments = {NAME_ARGUMENT,
                   {ARGUMENT_VALUE, "--repair", "repair", "IMAGE", false, check_image_name,
                    "the image that is right: copied over the others where they differ"}},
     .run = verify_run},
    {.name = "image examine",
     .summary = "what a disk is, from what lies on it and beside it",
     .help = "Mirror, image, role, state, generation, whether it was stopped cleanly, sizes, and which copies of the "
             "record are "
             "sound:\n"
             "from metadata in PATH.tarn, in the tail of the disk, or in the file itself. Needs no daemon and changes "
             "nothing. "
             "Exits\n"
             "with 1 if one of them holds nothing of Tarn, or cannot be read.\n"
             "\n"
             "Examples:\n"
             "  tarn image examine /disk1/vol0.img\n"
             "  tarn image examine /dev/disk/by-id/ata-DISK_7 --json\n",
     .arguments = {{ARGUMENT_REST, "PATH", "paths", NULL, true, NULL, "a file or block device"}},
     .run = examine_run},
    {.name = "image add",
     .summary = "give a mirror another image",
     .help = "IMAGE is as for 'tarn mirror create': [NAME=]PATH[+PATH...][,KEY=VALUE...]. A missing file is made, "
             "sparse. While\n"
             "the mirror is ACTIVE everything is copied to the image at once, and clients are served meanwhile; else "
             "when it is\n"
             "activated. An image that holds something is refused unless it carries ,overwrite.\n"
             "\n"
             "--assume-synchronized believes you that the image holds the same bytes already (you have copied them "
             "while the\n"
             "mirror was INACTIVE); nothing is copied. 'tarn mirror verify' finds out later.\n"
             "\n"
             "Examples:\n"
             "  tarn image add vol0 /disk3/vol0.img\n"
             "  tarn image add vol0 spare=/dev/disk/by-id/ata-DISK_7,overwrite --wait\n",
     .arguments = {MIRROR_ARGUMENT,
                   {ARGUMENT_POSITIONAL, "IMAGE", "image", NULL, true, check_image, "the new image: [NAME=]PATH"},
                   {ARGUMENT_FLAG, "--assume-synchronized", "assume", NULL, false, NULL,
                    "it is equal already (only while INACTIVE)"},
                   WAIT_ARGUMENT},
     .run = image_run},
    {.name = "image remove",
     .summary = "take an image out of a mirror for good; its data is left in place",
     .help = "Works while the mirror is ACTIVE. Writes under way finish first, so that the image holds what was "
             "answered. Its\n"
             "metadata is removed. The master cannot be removed: promote another image first; nor can the only "
             "image: destroy\n"
             "the mirror.\n"
             "\n"
             "Example:\n"
             "  tarn image remove vol0 b --wait\n",
     .arguments = {MIRROR_ARGUMENT,
                   IMAGE_ARGUMENT,
                   {ARGUMENT_FLAG, "--force", "force", NULL, false, NULL,
                    "at once, without finishing what is under way"},
                   WAIT_ARGUMENT},
     .run = image_run},
    {.name = "image sync",
     .summary = "copy everything to an image, whatever it holds",
     .help = "For an image that you do not trust. Works while the mirror is ACTIVE, and while it is INACTIVE: then its "
             "files are\n"
             "opened for the copy, and closed after it. 'tarn image fracture' stops it.\n"
             "\n"
             "Example:\n"
             "  tarn image sync vol0 b --wait\n",
     .arguments = {MIRROR_ARGUMENT, IMAGE_ARGUMENT, WAIT_ARGUMENT},
     .run = image_run},
    {.name = "image fracture",
     .summary = "stop updating an image: it stays as it is now",
     .help = "The image is CONSISTENT: equal to the master at this moment. What it misses from now on is recorded, so "
             "that\n"
             "'tarn image restore' copies only that.\n"
             "\n"
             "Example:\n"
             "  tarn image fracture vol0 b     then read b.img, a copy of this moment\n",
     .arguments = {MIRROR_ARGUMENT, IMAGE_ARGUMENT},
     .run = image_run},
    {.name = "image restore",
     .summary = "bring back an image that was fractured, failed or repaired",
     .help = "Opens its files anew, and copies only what it missed; everything, if it is not what it was. Another\n"
             "file, or another device, that holds data is left alone, if it can be told from the one before (a device\n"
             "without a serial and an NBD export cannot); so is anything but metadata where the metadata was.\n"
             "'tarn image sync' copies over both.\n"
             "\n"
             "Example:\n"
             "  tarn image restore vol0 b --wait\n",
     .arguments = {MIRROR_ARGUMENT, IMAGE_ARGUMENT, WAIT_ARGUMENT},
     .run = image_run},
    {.name = "image promote",
     .summary = "make an image the master",
     .help = "While the mirror is ACTIVE only a SYNCHRONIZED image. While it is INACTIVE or in ATTENTION also another, "
             "as it is;\n"
             "what may be lost by that needs --force, and is said. The other images are then copied from it.\n"
             "\n"
             "Example:\n"
             "  tarn image promote vol0 c     so that image a can be removed\n",
     .arguments = {MIRROR_ARGUMENT,
                   IMAGE_ARGUMENT,
                   {ARGUMENT_FLAG, "--force", "force", NULL, false, NULL, "though newer data may be lost"}},
     .run = image_run},
    {.name = "image demote",
     .summary = "leave a mirror without a master, until one is promoted",
     .help = "Only while the mirror is INACTIVE. It cannot be activated before an image is promoted.\n"
             "\n"
             "Example:\n"
             "  tarn image demote vol0 a\n",
     .arguments = {MIRROR_ARGUMENT,
                   IMAGE_ARGUMENT,
                   {ARGUMENT_FLAG, "--force", "force", NULL, false, NULL, "though newer data may be lost"}},
     .run = image_run},
    {.name = "image set",
     .summary = "change settings of an image",
     .help = "Example:\n"
             "  tarn image set vol0 b rate=50M return=manual\n",
     .settings = &image_settings,
     .arguments = {MIRROR_ARGUMENT,
                   IMAGE_ARGUMENT,
                   {ARGUMENT_REST, "KEY=VALUE", "set", NULL, true, check_image_setting, "a setting; again for more"}},
     .show = show_set},
    {.name = "image get",
     .summary = "show settings of an image",
     .help = "Examples:\n"
             "  tarn image get vol0 b\n"
             "  tarn image get vol0 b rate\n",
     .settings = &image_settings,
     .arguments = {MIRROR_ARGUMENT,
                   IMAGE_ARGUMENT,
                   {ARGUMENT_POSITIONAL, "KEY", "key", NULL, false, check_image_key, "this one only: just its value"}},
     .show = show_settings},
    {.name = "fault",
     .summary = "make an image's disks fail (only with tarnd --enable-faults)",
     .help =
         "To see what happens then, and for tests. FAULT is one of\n"
         "  fail        its I/Os fail\n"
         "  hang        they are not answered, until 'heal': then they are done, late\n"
         "  delay=MS    they take that many milliseconds longer\n"
         "  corrupt     reads return wrong bytes\n"
         "  heal        ends all faults of the image\n"
         "'log' instead of an image, and 'off' or 'on': writes take no marks in the intent log, until the mirror is\n"
         "closed. To measure what the log costs; what a crash then leaves different is never found.\n"
         "Nothing of this is stored, and it ends with the daemon.\n"
         "\n"
         "Examples:\n"
         "  tarn fault vol0 b fail --on write\n"
         "  tarn fault vol0 b corrupt --range 1M+64K\n"
         "  tarn fault vol0 b heal\n"
         "  tarn fault vol0 log off\n",
     .arguments = {MIRROR_ARGUMENT,
                   IMAGE_ARGUMENT,
                   {ARGUMENT_POSITIONAL, "FAULT", "fault", NULL, true, NULL,
                    "fail, hang, delay=MS, corrupt or heal; off or on"},
                   {ARGUMENT_VALUE, "--range", "range", "OFFSET+LENGTH", false, NULL,
                    "only there, in each volume [everywhere]"},
                   {ARGUMENT_VALUE, "--on", "on", "OPS", false, NULL, "read,write,flush: only these"}},
     .show = show_fault},
};
const size_t tarn_command_count = sizeof tarn_commands / sizeof tarn_commands[0];
