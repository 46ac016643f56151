/* Commands on a mirror that exists: each checks what may not be, then begins its operation. */
#include <stdio.h>
#include <string.h>

#include "core/states.h"
#include "shell/manager_internal.h"

/* ---- activate ---- */

/* The quiet service that was in the way has ended. */
static void activate_quiet_ended(struct managed *managed, tarn_err err, const char *why) {
  struct why text;
  if (managed_is_stuck(managed, &text)) {
    managed_refuse(managed, text.text);
    managed_finish(managed);
    return;
  }
  if (err != TARN_OK) report(managed->manager->env, REPORT_WARNING, managed->file.name, "%s", why);
  managed_activate(managed, true);
}

static void activate_again(void *owner, struct call *call) { manager_mirror_activate(owner, call); }
void manager_mirror_activate(struct manager *manager, struct call *call) {
  static const char *const known[] = {"name", "force", NULL};
  struct managed *managed = call_mirror(manager, call, "name", known, activate_again);
  bool force;
  struct why why;
  if (!managed) return;
  if (request_flag(&call->request, "force", &force, &why) != TARN_OK) call_misused(call, "%s", why.text);
  else if (managed->service == SERVICE_CLIENTS && !managed->fallen)
    call_refuse(call, "mirror %s %s", managed->file.name, mirror_refusal(MIRROR_ACTIVE, MIRROR_ACTIVATED));
  else if (managed_is_stuck(managed, &why))
    call_refuse(call, "mirror %s cannot be activated now: %s", managed->file.name, why.text);
  else {
    managed_begin(managed, call, "is being activated");
    managed->force = force;
    if (managed->mirror) managed_down(managed, managed->wanted, false, activate_quiet_ended);
    else managed_activate(managed, true);
  }
}

/* ---- deactivate ---- */

static void deactivate_end(struct managed *managed) {
  struct why why;
  if (managed->end_err != TARN_OK) {
    because(&why, managed->end_err, "is closed, but could not be deactivated cleanly: %s", managed->end_why.text);
    report(managed->manager->env, REPORT_ERROR, managed->file.name, "%s", why.text);
    managed_refuse(managed, why.text);
  } else {
    report(managed->manager->env, REPORT_INFO, managed->file.name, "is INACTIVE");
    bool hangs = managed_is_stuck(managed, &why) || aside_explain(managed, &why);
    if (hangs && managed->call) call_warn(managed->call, "%s", why.text);
    managed_answer(managed);
  }
  managed_finish(managed);
}

static void stay_inactive_stored(struct reactor_work *work) {
  struct managed *managed = CONTAINER_OF(work, struct managed, work);
  if (managed->work_err != TARN_OK && managed->end_err == TARN_OK) {
    managed->end_err = managed->work_err;
    managed->end_why = managed->work_why;
  }
  deactivate_end(managed);
}

/* It is closed. A record that says ACTIVE, and cannot be changed any more, is contradicted beside it. */
static void deactivate_closed(struct managed *managed) {
  managed->attention = managed->wanted = false;
  managed_take_record(managed); /* a disk that hangs may keep the mirror */
  if (!managed->has_record || !managed->record.active || managed->file.stay_inactive) {
    deactivate_end(managed);
    return;
  }
  managed->file.stay_inactive = true;
  managed_work(managed, managed_store_work, stay_inactive_stored);
}

static void deactivated(struct managed *managed, tarn_err err, const char *why) {
  managed->end_err = err;
  because(&managed->end_why, err, "%s", why);
  deactivate_closed(managed);
}

static void deactivate_left(struct managed *managed) { deactivated(managed, TARN_OK, ""); }

/* Its clients are in the way. */
static bool deactivate_refused(struct managed *managed, struct call *call, bool force) {
  char clients[240];
  uint32_t count = force ? 0 : exports_clients(managed, clients, sizeof clients);
  if (count > 0)
    call_refuse(call, "mirror %s has %u client%s connected: %s; disconnect them, or hang up on them with --force",
                managed->file.name, count, count == 1 ? "" : "s", clients);
  return count > 0;
}

/* An operation that waits for files which do not open must not keep the mirror from being closed; unless that is refused, which changes
 * nothing. False: it was. */
static bool unblock(struct manager *manager, struct call *call, bool force) {
  const char *name;
  if (request_text(&call->request, "name", &name, NULL) != TARN_OK || !name) return true;
  struct managed *managed = managed_find(manager, name);
  if (!managed || !managed->busy || list_is_empty(&managed->reopens)) return true;
  if (deactivate_refused(managed, call, force)) return false;
  reopens_give_up(managed, "the mirror is to be deactivated");
  return true;
}

static void deactivate_again(void *owner, struct call *call) { manager_mirror_deactivate(owner, call); }
void manager_mirror_deactivate(struct manager *manager, struct call *call) {
  static const char *const known[] = {"name", "force", "wait", NULL};
  bool force, wait;
  struct why why;
  if (request_flag(&call->request, "force", &force, &why) != TARN_OK ||
      request_flag(&call->request, "wait", &wait, &why) != TARN_OK) {
    call_misused(call, "%s", why.text);
    return;
  }
  if (!unblock(manager, call, force)) return;
  struct managed *managed = call_mirror(manager, call, "name", known, deactivate_again);
  if (!managed) return;
  bool open = managed->mirror && !managed->ending;
  if (!open && !managed->attention) {
    call_refuse(call, "mirror %s %s", managed->file.name, mirror_refusal(MIRROR_INACTIVE, MIRROR_DEACTIVATE));
    return;
  }
  if (deactivate_refused(managed, call, force)) return;
  managed_begin(managed, call, "is being deactivated");
  if (!wait) managed_grace(managed);
  if (open) managed_down(managed, false, true, deactivated);
  else exports_remove(managed, deactivate_left);
}

/* ---- destroy ---- */

/* The first image whose disk nobody has named; NULL: there is none. */
static const struct mirror_file_image *image_unknown_first(const struct mirror_file *file) {
  for (uint32_t slot = 0; slot < file->slot_count; slot++)
    if (file->images[slot].present && file->images[slot].unknown) return &file->images[slot];
  return NULL;
}

/* What is to be removed, into file->unmake. While a disk is missing all metadata stays: with that disk it can be imported again. */
static void destroy_list(struct managed *managed) {
  const struct mirror_file *file = &managed->file;
  const struct mirror_file_image *unknown = image_unknown_first(file);
  for (uint32_t slot = 0; slot < file->slot_count && !unknown; slot++) {
    char room[UNMAKE_TEXT_BYTES];
    if (!file->images[slot].present) continue;
    const char *text = metadata_text(managed->has_record ? managed->record.mirror_uuid : NULL, file, slot, room,
                                     managed->work_warnings);
    if (text) unmake_add(&managed->file, text);
  }
  if (unknown)
    json_array_append_new(managed->work_warnings,
                          json_sprintf("the metadata of its images is left in place, because the disk of image %s is "
                                       "unknown: when it is found, 'tarn mirror import' with all disks brings the "
                                       "mirror back",
                                       unknown->name));
}

static void destroy_work(struct reactor_work *work) {
  struct managed *managed = CONTAINER_OF(work, struct managed, work);
  destroy_list(managed);
  if (!managed->file.unmake) managed->file.unmake = json_array();
  managed->work_err = mirror_file_store(managed->folder, &managed->file, &managed->work_why);
  struct unmake_owner owner = {.has_uuid = managed->has_record};
  if (managed->has_record) memcpy(owner.uuid, managed->record.mirror_uuid, sizeof owner.uuid);
  if (managed->work_err == TARN_OK) unmake(managed->folder, &managed->file, &owner, managed->work_warnings);
  else json_decref(managed->file.unmake), managed->file.unmake = NULL;
}

static void destroy_worked(struct reactor_work *work) {
  struct managed *managed = CONTAINER_OF(work, struct managed, work);
  struct call *call = managed->call;
  bool gone = managed->work_err == TARN_OK;
  managed_warn(managed, managed->work_warnings);
  managed->work_warnings = NULL;
  managed->call = NULL;
  if (gone) {
    report(managed->manager->env, REPORT_INFO, managed->file.name,
           "is destroyed; the data of its images is left in place");
    if (call) call_done(call, json_pack("{s:s, s:b}", "name", managed->file.name, "destroyed", 1));
  } else if (call) call_refuse(call, "%s", managed->work_why.text);
  managed->unmaking = false;
  managed_finish(managed);
  if (gone) managed_free(managed);
}

static void destroy_begin(struct managed *managed) {
  managed->unmaking = true;
  managed->work_warnings = json_array();
  managed_work(managed, destroy_work, destroy_worked);
}

static void destroy_quiet_ended(struct managed *managed, tarn_err err, const char *why) {
  struct why text;
  (void)err, (void)why;
  if (managed_is_stuck(managed, &text) || aside_explain(managed, &text) || emptying_explain(managed, &text)) {
    managed_fail(managed, text.text);
    managed_finish(managed);
  } else destroy_begin(managed);
}

/* "b, c": what there is beside the master. */
static uint32_t other_images(const struct managed *managed, char *text, size_t bytes) {
  uint32_t count = 0, keep = managed->has_record ? managed->record.master : 0;
  size_t used = 0;
  if (keep >= managed->file.slot_count || !managed->file.images[keep].present) keep = IMAGES_MAX;
  text[0] = 0;
  for (uint32_t slot = 0; slot < managed->file.slot_count; slot++) {
    if (!managed->file.images[slot].present) continue;
    if (keep == IMAGES_MAX) keep = slot;
    if (slot == keep) continue;
    if (used < bytes)
      used += (size_t)snprintf(text + used, bytes - used, "%s%s", count ? ", " : "", managed->file.images[slot].name);
    count++;
  }
  return count;
}

static void destroy_again(void *owner, struct call *call) { manager_mirror_destroy(owner, call); }
void manager_mirror_destroy(struct manager *manager, struct call *call) {
  static const char *const known[] = {"name", "force", NULL};
  struct managed *managed = call_mirror(manager, call, "name", known, destroy_again);
  struct why why;
  bool force;
  char others[200];
  if (!managed) return;
  const char *name = managed->file.name;
  bool active = managed->service == SERVICE_CLIENTS && !managed->fallen;
  if (request_flag(&call->request, "force", &force, &why) != TARN_OK) call_misused(call, "%s", why.text);
  else if (active || managed->attention)
    call_refuse(call, "mirror %s %s", name, mirror_refusal(active ? MIRROR_ACTIVE : MIRROR_ATTENTION, MIRROR_DESTROY));
  else if (!force && other_images(managed, others, sizeof others) > 0)
    call_refuse(call,
                "mirror %s has more images than its master: %s; remove them first with 'tarn image remove %s IMAGE', "
                "or destroy it with them with --force",
                name, others, name);
  else if (managed_is_stuck(managed, &why) || aside_explain(managed, &why) || emptying_explain(managed, &why))
    call_refuse(call, "mirror %s cannot be destroyed now: %s", name, why.text);
  else {
    managed_begin(managed, call, "is being destroyed");
    if (managed->mirror) managed_down(managed, false, true, destroy_quiet_ended);
    else destroy_begin(managed);
  }
}
