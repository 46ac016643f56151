/* `tarn image examine`: read by this process, so that it works where no daemon does. */
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "shell/examine.h"
#include "shell/tarn.h"
#include "shell/words.h"

static void show_images(const json_t *images) {
  size_t index;
  json_t *image;
  printf("  images      ");
  json_array_foreach(images, index, image) printf(
      "%s%s %s%s%s", index ? ", " : "", text_of(image, "name"), text_of(image, "state"),
      strcmp(text_of(image, "role"), "master") == 0 ? " master" : "", text_of(image, "missing")[0] ? " missing" : "");
  printf("\n");
}

static void show_volumes(const json_t *volumes) {
  size_t index;
  json_t *volume;
  char size[SIZE_TEXT];
  printf("  volumes     ");
  json_array_foreach(volumes, index, volume)
      printf("%s%s %s", index ? ", " : "", text_of(volume, "name"), size_text(number_of(volume, "size"), size));
  printf("\n");
}

static void show_slots(const json_t *disk) {
  const json_t *slots = json_object_get(disk, "record_slots");
  const char *first = json_string_value(json_array_get(slots, 0)),
             *second = json_string_value(json_array_get(slots, 1));
  char path[EXAMINED_PATH_BYTES];
  snprintf(path, sizeof path, "%s", text_of(disk, "metadata"));
  printf("  metadata    %s%s, its record: first copy %s, second %s\n",
         strcmp(text_of(disk, "where"), "tail") == 0 ? "in the tail of " : "", text_printable(path), first, second);
}

static void show_record(const json_t *disk) {
  const json_t *mirror = json_object_get(disk, "mirror"), *image = json_object_get(disk, "image");
  const json_t *generation = json_object_get(disk, "generation");
  printf("  mirror      %s, uuid %s\n", text_of(mirror, "name"), text_of(mirror, "uuid"));
  if (json_is_object(image))
    printf("  image       %s, %s, %s%s%s\n", text_of(image, "name"), text_of(image, "role"), text_of(image, "state"),
           text_of(image, "missing")[0] ? ", " : "", text_of(image, "missing"));
  else printf("  image       none: this is the record of a state directory\n");
  printf("  generation  %llu (%s), record %llu\n", (unsigned long long)number_of(generation, "number"),
         text_of(generation, "id"), (unsigned long long)number_of(disk, "sequence"));
  printf("  stopped     %s\n", json_is_true(json_object_get(disk, "clean"))
                                   ? "cleanly"
                                   : "not cleanly: it is running, or crashed and is recovered at the next activation");
  show_volumes(json_object_get(disk, "volumes"));
  show_images(json_object_get(disk, "images"));
}

static void show_disk(const json_t *disk) {
  char path[EXAMINED_PATH_BYTES], size[SIZE_TEXT];
  snprintf(path, sizeof path, "%s", text_of(disk, "path"));
  printf("%s  %s%s\n", text_printable(path), size_text(number_of(disk, "size"), size),
         json_is_true(json_object_get(disk, "block_device")) ? ", block device" : "");
  if (json_object_get(disk, "mirror")) show_record(disk);
  if (json_is_string(json_object_get(disk, "metadata"))) show_slots(disk);
  if (json_is_true(json_object_get(disk, "in_use")))
    printf(
        "  in use      by a process, perhaps a tarnd, which may know newer things: 'tarn status', or stop it first\n");
}

int examine_run(struct tarn *tarn, json_t *request) {
  json_t *disks = json_array(), *path;
  size_t index;
  int status = EXIT_DONE;
  json_array_foreach(json_object_get(request, "paths"), index, path) {
    static struct examined examined;
    struct why why;
    const char *text = json_string_value(path);
    tarn_err err = examine(text, NULL, &examined, &why);
    json_t *disk = examined_json(text, &examined, err == TARN_OK ? NULL : why.text);
    if (!tarn->json && (err == TARN_OK || examined.where != EXAMINED_NOWHERE)) show_disk(disk);
    json_array_append_new(disks, disk);
    if (err == TARN_OK) continue;
    fflush(stdout);
    fprintf(stderr, "tarn: %s\n", text_printable(why.text));
    status = EXIT_REFUSED;
  }
  if (tarn->json) tarn_print_json(disks, false);
  json_decref(disks);
  json_decref(request);
  return status;
}
