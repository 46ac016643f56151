/* `tarn status --json`: what the core says of an open mirror; what its record said of a closed one. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "core/unreadable.h"
#include "shell/event_log.h"
#include "shell/manager_internal.h"
#include "shell/words.h"

#define MISSED_UNKNOWN UINT64_MAX /* of a closed mirror: the map that tells lies on the images */

/* A closed mirror, from its record. */
static void status_from_record(const struct managed *managed, struct mirror_status *status) {
  const struct mirror_file *file = &managed->file;
  const struct record *record = &managed->record;
  uint64_t bytes = 0;
  *status = (struct mirror_status){.state = MIRROR_INACTIVE, .image_count = file->slot_count};
  for (uint32_t i = 0; i < file->volume_count; i++) bytes += file->volumes[i].size_bytes;
  if (managed->has_record) {
    memcpy(status->uuid, record->mirror_uuid, sizeof status->uuid);
    status->generation = record->generation;
    status->epoch = record->epoch;
    snprintf(status->epoch_node, sizeof status->epoch_node, "%s", record->epoch_node);
    if (record->active && !record->clean && !managed->file.stay_inactive)
      snprintf(status->reason, sizeof status->reason,
               "it was ACTIVE when the daemon ended; activation makes its images equal");
  } else
    snprintf(status->reason, sizeof status->reason,
             "its record in the state directory is missing or damaged; activation reads its images'");
  for (uint32_t slot = 0; slot < file->slot_count; slot++) {
    struct mirror_image_status *image = &status->images[slot];
    const struct record_image *known = &record->images[slot];
    if (!managed->has_record || !known->present) continue;
    image->present = true;
    image->master = record->master == slot && !record->demoted;
    /* What was being copied to when its mirror was closed is not any more. */
    image->state = known->state == IMAGE_SYNCHRONIZING ? IMAGE_UNSYNCHRONIZED : known->state;
    image->missing = known->missing;
    image->missed_bytes = known->all_missed ? bytes : known->state == IMAGE_SYNCHRONIZED ? 0 : MISSED_UNKNOWN;
    image->unreadable_bytes = unreadable_bytes(&record->unreadable);
    if (known->state != IMAGE_SYNCHRONIZED) {
      image->out_since_ns = known->moment_ns;
      snprintf(image->reason, sizeof image->reason, "%s",
               known->missing == MISSING_FRACTURED ? "it was fractured: 'tarn image restore' brings it back"
               : known->all_missed                 ? "everything is still to be copied to it"
                                                   : "blocks are still to be copied to it");
    }
  }
  if (managed->has_record && record->demoted)
    snprintf(status->reason, sizeof status->reason, "it has no master: 'tarn image promote %s IMAGE' makes one",
             file->name);
}

/* And what its disks still hold now. When it could not be activated its maps were never read. */
static void status_when_it_fell(const struct managed *managed, struct mirror_status *status) {
  struct mirror_status now = {.image_count = 0};
  *status = managed->last;
  if (managed->mirror) mirror_status(managed->mirror, &now);
  for (uint32_t slot = 0; slot < IMAGES_MAX; slot++) {
    struct mirror_image_status *image = &status->images[slot];
    image->io_held = now.images[slot].io_held;
    bool unread = !managed->fallen && image->missed_bytes == 0;
    if (image->present && image->state != IMAGE_SYNCHRONIZED && unread) image->missed_bytes = MISSED_UNKNOWN;
  }
}

/* What its disks still hold is a reason of the mirror's (reason_of). */
static bool is_removed(const struct managed *managed, uint32_t slot) {
  return (managed->leaving & ~managed->undecided & 1u << slot) != 0;
}

static void managed_status(const struct managed *managed, struct mirror_status *status) {
  bool open = managed->mirror != NULL && !managed->ending;
  if (open) mirror_status(managed->mirror, status);
  else if (managed->attention && managed->last.image_count > 0) status_when_it_fell(managed, status);
  else status_from_record(managed, status);
  for (uint32_t slot = 0; slot < IMAGES_MAX; slot++)
    if (is_removed(managed, slot)) status->images[slot].present = false;
  if (open && !managed->fallen && !managed->attention) return; /* the core knows, also while it is on its way down */
  status->state = managed->attention ? MIRROR_ATTENTION : MIRROR_INACTIVE;
}

#define REASON_TEXT 4096u /* several sentences */
static void reason_add(char *out, const char *text) {
  size_t used = strlen(out);
  if (text[0]) (void)text_set(out + used, REASON_TEXT - used, "%s%s", used ? "; " : "", text);
}

/* Why the state is not the good one, and what to do. */
static void reason_of(const struct managed *managed, const struct mirror_status *status, char *out) {
  struct why more;
  out[0] = 0;
  reason_add(out, managed->attention ? managed->attention_why.text : status->reason);
  if (managed->unmaking) reason_add(out, "what it has on disk is being removed");
  if (managed_explain(managed, &more)) reason_add(out, more.text);
  else if (!managed_runs(managed) && aside_explain(managed, &more)) reason_add(out, more.text);
  if (managed->loss_ns > 0) {
    char time[TIME_TEXT];
    because(&more, TARN_OK,
            "writes that were answered and not flushed may have been lost when it stopped (%s); the next flush of each "
            "client that was connected then fails",
            time_text(managed->loss_ns, time));
    reason_add(out, more.text);
  }
  for (uint32_t slot = 0; managed->attention && slot < managed->file.slot_count; slot++) {
    if (!managed->disks.images[slot].note.text[0]) continue;
    because(&more, TARN_OK, "image %s: %s", managed->file.images[slot].name, managed->disks.images[slot].note.text);
    reason_add(out, more.text);
  }
  for (uint32_t slot = 0; slot < managed->file.slot_count; slot++) {
    if (!(managed->leaving & 1u << slot)) continue;
    because(&more, TARN_OK,
            managed->undecided & 1u << slot
                ? "the next activation finds out whether image %s is added"
                : "image %s is removed, and its files are released once its disk has answered",
            managed->file.images[slot].name);
    reason_add(out, more.text);
  }
}

static json_t *text_or_null(const char *text) { return text && text[0] ? call_sentence(text) : json_null(); }

static json_t *sync_json(const struct mirror_image_status *image) {
  static const char *const kinds[] = {
      [SYNC_FULL] = "full", [SYNC_MISSED] = "missed", [SYNC_INTENT] = "intent", [SYNC_VERIFY] = "verify"};
  if (image->sync.kind == SYNC_NONE) return json_null();
  return json_pack("{s:s, s:I, s:I, s:I, s:I, s:o}", "kind", kinds[image->sync.kind], "done_bytes",
                   (json_int_t)image->sync.done_bytes, "total_bytes", (json_int_t)image->sync.total_bytes,
                   "bytes_per_second", (json_int_t)image->sync.bytes_per_second, "eta_seconds",
                   (json_int_t)image->sync.eta_seconds, "waiting_for", text_or_null(image->sync.waiting_for));
}

static json_t *missed_json(const struct mirror_image_status *image) {
  return image->missed_bytes == MISSED_UNKNOWN ? json_null() : json_integer((json_int_t)image->missed_bytes);
}

/* Until when it was equal, and how much it has missed since: of an image that is cut off in good order. */
static json_t *moment_json(const struct mirror_image_status *image) {
  char time[TIME_TEXT];
  if (image->state != IMAGE_CONSISTENT) return json_null();
  return json_pack("{s:o, s:o}", "time",
                   image->out_since_ns ? json_string(time_text(image->out_since_ns, time)) : json_null(),
                   "bytes_behind", missed_json(image));
}

static const char *error_of(const struct managed *managed, uint32_t slot) {
  bool tried = (managed->mirror && !managed->ending) || managed->attention;
  return tried ? managed->disks.images[slot].why.text : NULL;
}

/* Where its disks are open, if not at the paths that `disks` names; else null. */
static json_t *places_json(const struct managed *managed, uint32_t slot) {
  const struct image_disks *disks = &managed->disks.images[slot];
  bool elsewhere = false;
  json_t *places = json_array();
  for (uint32_t i = 0; i < managed->file.volume_count; i++) {
    elsewhere = elsewhere || disks->places[i];
    json_array_append_new(
        places, json_string_nocheck(disks->places[i] ? disks->places[i] : managed->file.images[slot].paths[i]));
  }
  if (elsewhere) return places;
  json_decref(places);
  return json_null();
}

static json_t *image_json(const struct managed *managed, uint32_t slot, const struct mirror_image_status *image) {
  const struct mirror_file_image *kept = &managed->file.images[slot];
  char time[TIME_TEXT];
  json_t *disks = json_array();
  for (uint32_t i = 0; i < managed->file.volume_count && !kept->unknown; i++)
    json_array_append_new(disks, json_string_nocheck(kept->paths[i]));
  const char *missing = image_missing_name(image->missing);
  /* Without a record nobody knows. */
  const char *state = image->present ? image_state_name(image->state) : NULL;
  const char *role = image->present ? image->master ? "master" : "slave" : NULL;
  json_t *json = json_pack(
      "{s:s, s:s, s:s, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:o}", "name", kept->name, "return",
      kept->settings.values[SET_RETURN] ? "auto" : "manual", "node", managed->manager->options.node, "role",
      text_or_null(role), "policy", "sync", "state", text_or_null(state), "reason",
      kept->unknown && !managed_runs(managed) ? json_string("its disk is unknown, and may have newer data")
                                              : text_or_null(image->reason),
      "missing", missing ? json_string(missing) : json_null(), "error", text_or_null(error_of(managed, slot)), "disks",
      disks, "moment", moment_json(image), "out_since",
      image->out_since_ns ? json_string(time_text(image->out_since_ns, time)) : json_null(), "returning",
      image->returning, "return_in_seconds",
      image->return_in_ns ? json_integer((json_int_t)((image->return_in_ns + NS_PER_S - 1) / NS_PER_S)) : json_null());
  const struct {
    const char *key;
    uint64_t value;
  } numbers[] = {{"queued_bytes", 0},
                 {"unreadable_bytes", image->unreadable_bytes},
                 {"held_requests", image->io_held + aside_requests(managed, slot)},
                 {"reads", image->reads},
                 {"writes", image->writes},
                 {"read_errors", image->read_errors},
                 {"write_errors", image->write_errors},
                 {"repaired_blocks", image->repaired_blocks}};
  json_object_set_new(json, "missed_bytes", missed_json(image));
  json_object_set_new(json, "sync", sync_json(image));
  if (managed->manager->options.faults) json_object_set_new(json, "faults", faults_json(managed, slot));
  json_object_set_new(json, "meta", json_string_nocheck(kept->meta));
  json_object_set_new(json, "disk_unknown", json_boolean(kept->unknown));
  json_object_set_new(json, "meta_in_tail", json_boolean(kept->tail.length > 0));
  json_object_set_new(json, "devices", kept->devices ? json_deep_copy(kept->devices) : json_array());
  json_object_set_new(json, "places", places_json(managed, slot));
  json_object_set_new(json, "note",
                      text_or_null(error_of(managed, slot) ? managed->disks.images[slot].note.text : NULL));
  for (size_t i = 0; i < COUNT_OF(numbers); i++)
    json_object_set_new(json, numbers[i].key, json_integer((json_int_t)numbers[i].value));
  return json;
}

static json_t *volumes_json(const struct managed *managed) {
  const struct mirror_file *file = &managed->file;
  json_t *volumes = json_array();
  for (uint32_t i = 0; i < file->volume_count; i++) {
    char full[2 * TARN_NAME_MAX + 2], clients[8];
    snprintf(full, sizeof full, "%s/%s", file->name, file->volumes[i].name);
    uint32_t count =
        managed->export_count == 0
            ? 0
            : nbd_server_clients(managed->manager->options.nbd, &managed->exports[i].server, clients, sizeof clients);
    json_array_append_new(volumes, json_pack("{s:s, s:I, s:s, s:i}", "name", file->volumes[i].name, "size",
                                             (json_int_t)file->volumes[i].size_bytes, "export",
                                             file->volume_count == 1 ? file->name : full, "clients", (int)count));
  }
  return volumes;
}

static json_t *recovery_json(const struct mirror_status *status) {
  if (!status->recovered) return json_null();
  return json_pack("{s:s, s:I, s:I, s:f, s:b}", "reason", status->recovery.reason, "bytes_marked",
                   (json_int_t)status->recovery.bytes_marked, "bytes_copied", (json_int_t)status->recovery.bytes_copied,
                   "seconds", (double)status->recovery.duration_ns / (double)NS_PER_S, "running",
                   status->recovery.running);
}

static const char *uuid_text(const uint8_t uuid[16], char out[40]) {
  char *at = out;
  for (int i = 0; i < 16; i++) at += sprintf(at, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", uuid[i]);
  return out;
}

static json_t *seconds_until(const struct env *env, uint64_t deadline_ns) {
  uint64_t left_ns = deadline_ns > env->now_ns ? deadline_ns - env->now_ns : 0;
  return json_integer((json_int_t)((left_ns + NS_PER_S - 1) / NS_PER_S));
}

/* Until the requests that wait at its gates fail; 0: all fail that come. Null: they are served, or wait for as long as it takes. */
static json_t *patience_json(const struct managed *managed) {
  for (uint32_t i = 0; i < managed->export_count; i++) {
    const struct gate *gate = &managed->exports[i].gate;
    if (gate->state == GATE_FAILING) return json_integer(0);
    if (gate->state == GATE_SHUT && timer_is_armed(&gate->timer))
      return seconds_until(managed->manager->env, gate->timer.deadline_ns);
  }
  return json_null();
}

static void trouble_json(const struct managed *managed, const struct mirror_status *status, json_t *json) {
  char time[TIME_TEXT];
  bool open = managed->mirror != NULL && !managed->ending;
  bool since = managed->attention && managed->attention_since_ns > 0;
  json_object_set_new(json, "since", since ? json_string(time_text(managed->attention_since_ns, time)) : json_null());
  json_object_set_new(json, "retry_in_seconds",
                      managed->attention && timer_is_armed(&managed->retry)
                          ? seconds_until(managed->manager->env, managed->retry.deadline_ns)
                          : json_null());
  json_object_set_new(json, "auto", json_boolean(managed->file.settings.values[SET_AUTO]));
  json_object_set_new(json, "requests_fail_in_seconds", patience_json(managed));
  json_object_set_new(json, "may_have_lost_since",
                      managed->loss_ns > 0 ? json_string(time_text(managed->loss_ns, time)) : json_null());
  json_object_set_new(json, "state_unwritable", json_boolean(open && status->home_in_trouble));
  json_object_set_new(json, "recovery_waits_for", text_or_null(status->recovery_waits_for));
  json_object_set_new(json, "flushes_fail", json_boolean(status->flushes_fail));
  json_object_set_new(
      json, "unclean",
      json_boolean(status->state == MIRROR_INACTIVE && !(managed->has_record && managed->record.clean)));
  const struct mirror_differs *differs = &managed->differs;
  json_object_set_new(json, "differs",
                      differs->bytes == 0 ? json_null()
                                          : json_pack("{s:I, s:s}", "bytes", (json_int_t)differs->bytes, "found",
                                                      time_text(differs->found_ns, time)));
  json_object_set_new(json, "log_off", json_boolean(open && status->log_off));
}

json_t *managed_status_json(const struct managed *managed) {
  struct mirror_status status;
  char uuid[40], epoch[TARN_NAME_MAX + 32], reason[REASON_TEXT];
  managed_status(managed, &status);
  reason_of(managed, &status, reason);
  json_t *images = json_array();
  for (uint32_t slot = 0; slot < managed->file.slot_count; slot++)
    if (managed->file.images[slot].present && !is_removed(managed, slot) &&
        (status.images[slot].present || !managed_runs(managed)))
      json_array_append_new(images, image_json(managed, slot, &status.images[slot]));
  snprintf(epoch, sizeof epoch, "%" PRIu64 "@%s", status.epoch,
           status.epoch_node[0] ? status.epoch_node : managed->manager->options.node);
  json_t *json =
      json_pack("{s:s, s:s, s:s, s:o, s:b, s:s, s:o, s:o, s:I, s:o, s:i, s:o}", "name", managed->file.name, "uuid",
                uuid_text(status.uuid, uuid), "state", mirror_state_name(status.state), "reason", text_or_null(reason),
                "split", 0, "epoch", epoch, "volumes", volumes_json(managed), "images", images, "marked_regions",
                (json_int_t)status.marked_regions, "last_recovery", recovery_json(&status), "waiting_requests",
                (int)exports_waiting(managed), "verify", verify_json(managed));
  json_object_set_new(json, "log_writes", json_integer((json_int_t)status.log_writes)); /* rounds of metadata */
  if (managed->busy) json_object_set_new(json, "busy", json_string(managed->busy));
  trouble_json(managed, &status, json);
  return json;
}

void manager_status(struct manager *manager, struct call *call) {
  static const char *const known[] = {"name", NULL};
  const char *name;
  struct why why;
  if (request_only(&call->request, known, &why) != TARN_OK ||
      request_text(&call->request, "name", &name, &why) != TARN_OK) {
    call_misused(call, "%s", why.text);
    return;
  }
  if (name && !managed_find(manager, name)) {
    call_refuse(call, "there is no mirror '%.80s'; 'tarn status' lists them", name);
    return;
  }
  json_t *mirrors = json_array();
  LIST_EACH(&manager->mirrors, node) {
    struct managed *managed = LIST_ENTRY(node, struct managed, link);
    if (!name || strcmp(managed->file.name, name) == 0) json_array_append_new(mirrors, managed_status_json(managed));
  }
  char time[TIME_TEXT];
  json_t *place = json_string(manager->options.state); /* NULL when it is not UTF-8 */
  call_done(call, json_pack("{s:s, s:s, s:s, s:o, s:o}", "node", manager->options.node, "version", TARN_BUILD_VERSION,
                            "time", time_text(manager->env->wall_ns, time), "state_directory",
                            place ? place : json_null(), "mirrors", mirrors));
}

static void count_add(char *out, size_t bytes, unsigned count, const char *one, const char *many) {
  size_t used = strlen(out);
  if (count > 0) snprintf(out + used, bytes - used, "%s%u %s", used ? ", " : "", count, count == 1 ? one : many);
}

void manager_summary(const struct manager *manager, char *out, size_t bytes) {
  unsigned active = 0, attention = 0, inactive = 0, degraded = 0;
  LIST_EACH(&manager->mirrors, node) {
    struct mirror_status status;
    bool missing = false;
    managed_status(LIST_ENTRY(node, struct managed, link), &status);
    for (uint32_t i = 0; i < status.image_count; i++)
      missing |= status.images[i].present && status.images[i].state != IMAGE_SYNCHRONIZED;
    if (status.state == MIRROR_ACTIVE) active++, degraded += missing;
    else if (status.state == MIRROR_ATTENTION) attention++;
    else inactive++;
  }
  out[0] = 0;
  count_add(out, bytes, active, "mirror active", "mirrors active");
  count_add(out, bytes, degraded, "of them lacks a copy", "of them lack a copy");
  count_add(out, bytes, attention, "needs attention", "need attention");
  count_add(out, bytes, inactive, "inactive", "inactive");
  if (!out[0]) snprintf(out, bytes, "no mirrors yet");
}
