/* Operations on images: what is said when they have begun, and --wait; verify. */
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "shell/tarn.h"
#include "shell/words.h"

/* ---- what an image is ---- */

static const json_t *image_of(const json_t *mirror, const char *name) {
  size_t index;
  const json_t *image, *images = json_object_get(mirror, "images");
  json_array_foreach((json_t *)images, index, image) if (strcmp(text_of(image, "name"), name) == 0) return image;
  return NULL;
}

/* An image that is added may get its name from the daemon. */
static const char *image_name(const json_t *mirror, const json_t *request) {
  bool added = strcmp(text_of(request, "command"), "image add") == 0;
  return added ? text_of(mirror, "added") : text_of(request, "image");
}

static bool is_copied_to(const json_t *image) {
  return strcmp(text_of(image, "state"), "SYNCHRONIZING") == 0 || json_is_true(json_object_get(image, "returning"));
}

static void image_draw(const struct tarn *tarn, const json_t *image, const char *verb) {
  const json_t *sync = json_object_get(image, "sync");
  char what[96], note[96] = "", speed[SIZE_TEXT], left[DURATION_TEXT];
  snprintf(what, sizeof what, "image %.63s%s", text_of(image, "name"),
           strcmp(verb, "remove") == 0 ? " is being removed" : "");
  const char *waiting = text_of(sync, "waiting_for");
  if (waiting[0] && strcmp(waiting, "its rate limit") != 0) snprintf(note, sizeof note, "waiting for %.70s", waiting);
  else if (json_is_object(sync))
    snprintf(note, sizeof note, "%s/s, %s left", size_text(number_of(sync, "bytes_per_second"), speed),
             duration_text(number_of(sync, "eta_seconds"), left));
  progress_draw(tarn, what, number_of(sync, "done_bytes"), number_of(sync, "total_bytes"), note);
}

/* ---- --wait ---- */

static int mirror_ask(const struct tarn *tarn, const char *name, json_t **mirror) {
  json_t *result;
  int status = tarn_ask(tarn, json_pack("{s:s, s:s}", "command", "status", "name", name), &result);
  *mirror = json_incref(json_array_get(json_object_get(result, "mirrors"), 0));
  json_decref(result);
  return status;
}

/* Until nothing is being done with the image any more. Takes over `mirror`, and leaves the newest there. */
static int image_wait(const struct tarn *tarn, const char *name, const char *verb, json_t **mirror) {
  char mirror_name[80];
  snprintf(mirror_name, sizeof mirror_name, "%s", text_of(*mirror, "name"));
  for (;;) {
    const json_t *image = image_of(*mirror, name);
    bool busy = text_of(*mirror, "busy")[0] || (image && is_copied_to(image));
    if (!busy) break;
    if (image) image_draw(tarn, image, verb);
    nanosleep(&(struct timespec){.tv_nsec = 200 * 1000 * 1000}, NULL);
    if (interrupted()) {
      progress_end();
      return tarn_fail(tarn, EXIT_REFUSED,
                       "the work goes on without this command; 'tarn status %s' shows how far it is", mirror_name);
    }
    json_decref(*mirror);
    int status = mirror_ask(tarn, mirror_name, mirror);
    if (status != EXIT_DONE) return status;
  }
  progress_end();
  return EXIT_DONE;
}

/* ---- what is said ---- */

/* Of an image that was added, synchronized or restored: how far its copy is. */
static void copy_show(const char *mirror, const json_t *image, const char *mirror_state, const char *verb) {
  const char *name = text_of(image, "name"), *state = text_of(image, "state");
  bool added = strcmp(verb, "add") == 0;
  if (strcmp(state, "SYNCHRONIZED") == 0)
    printf("image %s of mirror %s is %sSYNCHRONIZED\n", name, mirror, added ? "added, and " : "");
  else if (is_copied_to(image))
    printf("image %s of mirror %s is %sbeing copied to; 'tarn status %s' shows how far that is\n", name, mirror,
           added ? "added, and " : "", mirror);
  else
    printf("image %s of mirror %s is %s; the mirror is %s, and it is copied to once that is activated\n", name, mirror,
           added ? "added" : "to be copied to", mirror_state);
}

static void image_show(const json_t *mirror, const json_t *request, const char *name) {
  const char *verb = text_of(request, "command") + strlen("image "), *of = text_of(mirror, "name");
  const json_t *image = image_of(mirror, name);
  const char *state = text_of(mirror, "state");
  if (strcmp(verb, "remove") == 0 && image && text_of(mirror, "busy")[0])
    printf("image %s is being removed from mirror %s; 'tarn status %s' shows when it is gone\n", name, of, of);
  else if (strcmp(verb, "remove") == 0)
    printf("image %s is removed from mirror %s; its data is left in place\n", name, of);
  else if (strcmp(verb, "fracture") == 0 && strcmp(text_of(image, "state"), "CONSISTENT") != 0)
    printf(
        "image %s of mirror %s is fractured, but was not whole: it is of no use as a copy; 'tarn image restore %s %s' "
        "brings it back\n",
        name, of, of, name);
  else if (strcmp(verb, "fracture") == 0)
    printf("image %s of mirror %s is fractured: it stays as it is now; 'tarn image restore %s %s' brings it back\n",
           name, of, of, name);
  else if (strcmp(verb, "promote") == 0) printf("image %s is the master of mirror %s\n", name, of);
  else if (strcmp(verb, "demote") == 0)
    printf("mirror %s has no master; 'tarn image promote %s IMAGE' makes one\n", of, of);
  else if (image) copy_show(of, image, state, verb);
}

/* After --wait: has it come to the good end? An image that is added to a mirror that does not run need not be copied yet. */
static int wait_judge(const struct tarn *tarn, const json_t *mirror, const json_t *request, const char *name) {
  const char *verb = text_of(request, "command") + strlen("image "), *state = text_of(mirror, "state");
  const json_t *image = image_of(mirror, name);
  if (strcmp(verb, "remove") == 0) return EXIT_DONE;
  if (strcmp(text_of(image, "state"), "SYNCHRONIZED") == 0) return EXIT_DONE;
  if (strcmp(verb, "add") == 0 && strcmp(state, "ACTIVE") != 0 && image) return EXIT_DONE;
  return tarn_fail(tarn, EXIT_REFUSED, "image %s of mirror %s is %s: %s; 'tarn events' tells what happened", name,
                   text_of(mirror, "name"), image ? text_of(image, "state") : "gone",
                   text_of(image, "reason")[0] ? text_of(image, "reason") : "it was not copied to the end");
}

int image_run(struct tarn *tarn, json_t *request) {
  json_t *mirror;
  char name[80];
  if (tarn->wait) interrupt_watch();
  int status = tarn_ask(tarn, json_incref(request), &mirror);
  if (status == EXIT_DONE) {
    snprintf(name, sizeof name, "%s", image_name(mirror, request));
    if (tarn->wait) status = image_wait(tarn, name, text_of(request, "command") + strlen("image "), &mirror);
    if (status == EXIT_DONE && tarn->wait) status = wait_judge(tarn, mirror, request, name);
    if (status == EXIT_DONE && tarn->json) tarn_print_json(mirror, false);
    if (status == EXIT_DONE && !tarn->json) image_show(mirror, request, name);
  }
  json_decref(mirror);
  json_decref(request);
  return status;
}

/* ---- verify ---- */

static void verify_tick(const struct tarn *tarn, const json_t *request) {
  json_t *mirror;
  if (tarn->json) return;
  if (mirror_ask(tarn, text_of(request, "name"), &mirror) == EXIT_DONE) {
    const json_t *verify = json_object_get(mirror, "verify");
    uint64_t differing = number_of(verify, "differing_bytes");
    char note[64] = "", size[SIZE_TEXT];
    if (differing > 0) snprintf(note, sizeof note, "%s differ", size_text(differing, size));
    progress_draw(tarn, "comparing", number_of(verify, "done_bytes"), number_of(verify, "total_bytes"), note);
  }
  json_decref(mirror);
}

/* "a, c | b" */
static void groups_print(const json_t *images) {
  bool first_group = true;
  for (char letter = 'A'; letter <= 'P'; letter++) {
    bool first = true;
    const char *name;
    json_t *group;
    json_object_foreach((json_t *)images, name, group) {
      if (json_string_value(group)[0] != letter) continue;
      printf("%s%s", !first ? ", " : first_group ? "" : " | ", name);
      first = first_group = false;
    }
  }
  const char *name;
  json_t *group;
  json_object_foreach((json_t *)images, name, group) {
    if (json_string_value(group)[0] == '!') printf("; %s cannot be read", name);
    if (json_string_value(group)[0] == '-') printf("; %s was not compared", name);
  }
  printf("\n");
}

static void names_print(const json_t *names) {
  for (size_t i = 0; i < json_array_size(names); i++)
    printf("%s%s", i ? ", " : "", json_string_value(json_array_get(names, i)));
}

static void agreement_print(const json_t *result) {
  const json_t *compared = json_object_get(result, "compared"), *others = json_object_get(result, "not_compared");
  if (json_array_size(others) == 0) {
    printf("all images agree\n");
    return;
  }
  printf("no difference found");
  if (json_array_size(compared) > 1) {
    printf(" between ");
    names_print(compared);
  }
  printf("; not compared, or not everywhere: ");
  names_print(others);
  printf("\n");
}

static void verify_print(const json_t *result) {
  const json_t *differences = json_object_get(result, "differences");
  char size[SIZE_TEXT];
  uint64_t count = number_of(result, "difference_count"), listed = json_array_size(differences);
  printf("mirror %s: %s compared, ", text_of(result, "name"), size_text(number_of(result, "done_bytes"), size));
  if (count == 0) {
    agreement_print(result);
    return;
  }
  if (number_of(result, "differing_bytes") == 0) printf("what could be read agrees");
  else printf("%s differ", size_text(number_of(result, "differing_bytes"), size));
  if (number_of(result, "unreadable_bytes") > 0)
    printf(", %s cannot be read", size_text(number_of(result, "unreadable_bytes"), size));
  printf(" in %" PRIu64 " place%s", count, count == 1 ? "" : "s");
  if (number_of(result, "repaired_bytes") > 0)
    printf(", %s are repaired", size_text(number_of(result, "repaired_bytes"), size));
  printf("; images that agree stand on the same side of a |:\n");
  for (size_t i = 0; i < listed; i++) {
    const json_t *one = json_array_get(differences, i);
    printf("  volume %s, %" PRIu64 " bytes at %" PRIu64 ": ", text_of(one, "volume"), number_of(one, "length"),
           number_of(one, "offset"));
    groups_print(json_object_get(one, "images"));
  }
  if (count > listed) printf("  and %" PRIu64 " more\n", count - listed);
}

int verify_run(struct tarn *tarn, json_t *request) {
  json_t *result;
  interrupt_watch();
  int status = tarn_ask_long(tarn, json_incref(request), &result, verify_tick,
                             "the comparison is stopped, and says nothing; what was repaired stays repaired");
  progress_end();
  if (status == EXIT_DONE) {
    bool differs = number_of(result, "left_differing_bytes") > 0;
    bool unread = number_of(result, "left_unreadable_bytes") > 0;
    const char *name = text_of(result, "name");
    if (tarn->json) tarn_print_json(result, false);
    else verify_print(result);
    fflush(stdout);
    if (!differs && !unread && !json_is_true(json_object_get(result, "equal"))) {
      fprintf(
          stderr,
          "tarn: mirror %s had only one good copy for some of the time, so not all was compared; verify it again when "
          "'tarn status %s' shows more\n",
          name, name);
      status = EXIT_REFUSED;
    } else if (!differs && unread) {
      fprintf(
          stderr,
          "tarn: a part of mirror %s cannot be read on every image; 'tarn mirror verify %s --repair=IMAGE' writes it "
          "again where IMAGE can read it\n",
          name, name);
      status = EXIT_REFUSED;
    } else if (differs) {
      fprintf(stderr,
              "tarn: the images of mirror %s do not agree; 'tarn mirror verify %s --repair=IMAGE' copies IMAGE "
              "over the others where they differ\n",
              name, name);
      status = EXIT_REFUSED;
    }
  }
  json_decref(result);
  json_decref(request);
  return status;
}

/* ---- fault ---- */

void show_fault(const json_t *result, const json_t *request) {
  const json_t *faults = json_object_get(result, "faults");
  (void)request;
  if (!faults) {
    printf("the intent log of mirror %s is %s\n", text_of(result, "mirror"), text_of(result, "log"));
    return;
  }
  printf("image %s of mirror %s has ", text_of(result, "image"), text_of(result, "mirror"));
  if (json_array_size(faults) == 0) printf("no faults");
  for (size_t i = 0; i < json_array_size(faults); i++)
    printf("%s%s", i ? "; " : "", json_string_value(json_array_get(faults, i)));
  printf("\n");
}
