/* `tarn mirror verify`: no operation that others wait for. It runs beside them, and ends when its client goes away, when the
 * mirror stops, or when all is compared. */
#include <string.h>

#include "shell/manager_internal.h"

static json_t *difference_json(const struct managed *managed, const struct verify_difference *difference) {
  json_t *images = json_object();
  for (uint32_t slot = 0; slot < managed->file.slot_count; slot++) {
    char group[2] = {difference->groups[slot], 0};
    if (managed->file.images[slot].present && group[0])
      json_object_set_new(images, managed->file.images[slot].name, json_string(group));
  }
  return json_pack("{s:s, s:I, s:I, s:o}", "volume", managed->file.volumes[difference->volume].name, "offset",
                   (json_int_t)difference->offset, "length", (json_int_t)difference->length, "images", images);
}

static json_t *progress_json(const struct verify_result *result) {
  return json_pack("{s:I, s:I, s:I, s:I, s:I}", "done_bytes", (json_int_t)result->done_bytes, "total_bytes",
                   (json_int_t)result->total_bytes, "differing_bytes", (json_int_t)result->differing_bytes,
                   "repaired_bytes", (json_int_t)result->repaired_bytes, "unreadable_bytes",
                   (json_int_t)result->unreadable_bytes);
}

static uint32_t images_of(const struct managed *managed) {
  uint32_t images = 0;
  for (uint32_t slot = 0; slot < managed->file.slot_count; slot++)
    if (managed->file.images[slot].present) images |= 1u << slot;
  return images;
}

/* One image agrees with itself; of several, two at least were there all the time. */
static bool is_comparison(const struct managed *managed, const struct verify_result *result) {
  uint32_t images = images_of(managed), compared = images & result->compared;
  return images == compared || (compared & (compared - 1)) != 0;
}

static json_t *names_json(const struct managed *managed, uint32_t images) {
  json_t *names = json_array();
  for (uint32_t slot = 0; slot < managed->file.slot_count; slot++)
    if (images & 1u << slot) json_array_append_new(names, json_string(managed->file.images[slot].name));
  return names;
}

static json_t *result_json(const struct managed *managed, const struct verify_result *result) {
  json_t *json = progress_json(result), *differences = json_array();
  uint32_t images = images_of(managed);
  json_object_set_new(json, "compared", names_json(managed, images & result->compared));
  json_object_set_new(json, "not_compared", names_json(managed, images & ~result->compared));
  json_object_set_new(json, "left_differing_bytes", json_integer((json_int_t)result->left_differing_bytes));
  json_object_set_new(json, "left_unreadable_bytes", json_integer((json_int_t)result->left_unreadable_bytes));
  for (uint32_t i = 0; i < result->difference_count && i < VERIFY_DIFFERENCES_MAX; i++)
    json_array_append_new(differences, difference_json(managed, &result->differences[i]));
  json_object_set_new(json, "name", json_string(managed->file.name));
  json_object_set_new(json, "difference_count", json_integer(result->difference_count));
  json_object_set_new(json, "differences", differences);
  json_object_set_new(json, "equal",
                      json_boolean(result->left_differing_bytes == 0 && result->left_unreadable_bytes == 0 &&
                                   is_comparison(managed, result)));
  return json;
}

json_t *verify_json(const struct managed *managed) {
  const struct verify_result *result = managed->verifying ? mirror_verify_result(managed->mirror) : NULL;
  return result ? progress_json(result) : json_null();
}

/* Is kept until a comparison of all images leaves nothing different: also while the mirror is closed, or the daemon. */
static void differs_note(struct managed *managed, const struct verify_result *result, bool ended) {
  struct env *env = managed->manager->env;
  const char *name = managed->file.name;
  uint64_t bytes = result->left_differing_bytes;
  if (bytes > 0) {
    uint64_t found_ns = managed->differs.bytes > 0 ? managed->differs.found_ns : env->wall_ns;
    managed->differs = (struct mirror_differs){.bytes = bytes, .found_ns = found_ns};
    report(env, REPORT_ERROR, name, "its images do not agree: %llu bytes differ; 'tarn mirror verify %s' lists them",
           (unsigned long long)bytes, name);
  } else if (ended && (images_of(managed) & ~result->compared) == 0) {
    managed->differs = (struct mirror_differs){.bytes = 0};
    report(env, REPORT_INFO, name, "its images were compared: %s",
           result->left_unreadable_bytes > 0 ? "they agree where they can be read"
           : result->repaired_bytes > 0      ? "they agree now"
                                             : "they agree");
  }
}

static void verified(struct mirror *mirror, tarn_err err, const char *why, void *context) {
  struct managed *managed = context;
  struct call *call = managed->verify_call;
  void (*ended)(struct managed *) = managed->verify_ended;
  require(managed->verifying && managed->mirror == mirror);
  managed->verifying = false;
  managed->verify_call = NULL;
  managed->verify_ended = NULL;
  if (err != TARN_REFUSED) differs_note(managed, mirror_verify_result(mirror), err == TARN_OK);
  if (err == TARN_OK) call_done(call, result_json(managed, mirror_verify_result(mirror)));
  else
    call_refuse(call, "mirror %s: the comparison has not come to its end: %s", managed->file.name,
                why && why[0] ? why : tarn_err_text(err));
  if (ended) ended(managed);
  managed_poke(managed);
}

void verify_end(struct managed *managed, void (*ended)(struct managed *)) {
  if (!managed->verifying) {
    ended(managed);
    return;
  }
  managed->verify_ended = ended;
  mirror_verify_stop(managed->mirror);
}

/* Its client has gone. */
static void client_gone(struct call *call) {
  struct manager *manager = call->owner;
  LIST_EACH(&manager->mirrors, node) {
    struct managed *managed = LIST_ENTRY(node, struct managed, link);
    if (managed->verify_call == call) mirror_verify_stop(managed->mirror);
  }
}

/* One of several, and no other is whole: it would agree with itself. */
static bool is_the_only_good(const struct managed *managed, const char **name) {
  struct mirror_status status;
  uint32_t present = 0, good = 0;
  mirror_status(managed->mirror, &status);
  for (uint32_t slot = 0; slot < status.image_count; slot++) {
    present += status.images[slot].present;
    if (!status.images[slot].present || status.images[slot].state != IMAGE_SYNCHRONIZED) continue;
    *name = managed->file.images[slot].name;
    good++;
  }
  return present > 1 && good == 1 && !status.recovery.running;
}

static void verify_again(void *owner, struct call *call) { manager_mirror_verify(owner, call); }
void manager_mirror_verify(struct manager *manager, struct call *call) {
  static const char *const known[] = {"name", "repair", NULL};
  call->owner = manager;
  call->gone = client_gone;
  struct managed *managed = call_mirror(manager, call, "name", known, verify_again);
  const char *repair, *only;
  struct why why;
  uint32_t source = IMAGES_MAX;
  if (!managed) return;
  const char *name = managed->file.name;
  if (request_text(&call->request, "repair", &repair, &why) != TARN_OK) {
    call_misused(call, "%s", why.text);
    return;
  }
  if (repair && !call_image(managed, call, "repair", &source)) return;
  if (managed->service != SERVICE_CLIENTS || managed->fallen)
    call_refuse(call, "mirror %s is not ACTIVE: its images are compared while it is; 'tarn mirror activate %s' first",
                name, name);
  else if (managed->verifying) call_refuse(call, "mirror %s is being verified already", name);
  else if (!repair && is_the_only_good(managed, &only))
    call_refuse(call,
                "mirror %s: image %s is its only good copy now, so there is nothing to compare; 'tarn status %s' "
                "shows when there is another",
                name, only, name);
  else {
    managed->verifying = true;
    managed->verify_call = call;
    mirror_verify(managed->mirror, source, verified, managed);
  }
}
