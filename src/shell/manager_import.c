/* `tarn mirror import`: examine the disks (worker) -> is the name free? -> config.json (worker).
 *
 * What was lost is config.json and the state directory's copy of the record; what the disks say brings the first one back. The
 * second one is left empty: it would vouch that no absent image is ahead of those that are here (mirror_judge.c), and nobody can.
 * So the core decides at activation, from the records on the disks alone, as it does whenever that copy is lost.
 *
 * Crash anywhere: nothing on the disks is touched. The mirror exists once config.json is there, whole, by one rename; a folder
 * without it is removed at the next start. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "shell/create_plan.h"
#include "shell/device_identity.h"
#include "shell/examine.h"
#include "shell/image_identity.h"
#include "shell/manager_internal.h"
#include "shell/words.h"

struct import {
  struct managed *managed;
  struct create_plan plan;
  struct claim claim;
  struct reactor_work work;
  bool force;
  char name[TARN_NAME_MAX + 1]; /* empty: as recorded */
  uint32_t count;
  struct image_spec specs[IMAGES_MAX];
  struct examined disks[IMAGES_MAX];
  bool compared; /* they belong together, and `best` has the newest record */
  uint32_t best;
  uint32_t missing;
  tarn_err err;
  struct why why;
};

static void import_free(struct import *import) {
  claim_end(&import->claim);
  plan_release(&import->plan);
  json_decref(import->plan.others);
  json_decref(import->plan.warnings);
  free(import);
}

/* ---- what the disks say ---- */

static const struct record *record_of(const struct import *import, uint32_t i) { return &import->disks[i].record; }
static const char *path_of(const struct import *import, uint32_t i) { return import->specs[i].paths[0]; }

static tarn_err disk_examine(struct import *import, uint32_t i, struct why *why) {
  const struct image_spec *spec = &import->specs[i];
  struct examined *disk = &import->disks[i];
  tarn_err err = TARN_OK;
  if (disk_text_kind(spec->paths[0]) != DISK_KIND_FILE && !spec->meta[0])
    return because(why, TARN_REFUSED, "%.120s: where the metadata of such a disk lies is to be said: ,meta=PATH",
                   spec->paths[0]);
  bool is_file = disk_text_kind(spec->paths[0]) == DISK_KIND_FILE;
  err = examine(is_file ? spec->paths[0] : spec->meta, spec->meta[0] ? spec->meta : NULL, disk, why);
  if (err != TARN_OK) return TARN_REFUSED;
  if (disk->where == EXAMINED_ITSELF || disk->record.self >= IMAGES_MAX)
    return because(why, TARN_REFUSED,
                   "%s is metadata, of mirror %s, and no disk: give the disk's path, and this as ,meta=PATH",
                   disk->meta, disk->record.name);
  return TARN_OK;
}

/* Is `g` what this record is, or one of its past? What is older than its history is left to the core. */
static bool is_known(const struct record *record, const struct generation *g) {
  uint64_t oldest = record->generation.number;
  if (oldest == g->number) return record->generation.id == g->id;
  for (uint32_t h = 0; h < HISTORY_MAX && record->history[h].number != 0; h++) {
    oldest = record->history[h].number;
    if (oldest == g->number) return record->history[h].id == g->id;
  }
  return g->number < oldest;
}

static bool is_same_disk(const struct file_identity *a, const struct file_identity *b) {
  return a->is_block_device == b->is_block_device && a->device == b->device &&
         (a->is_block_device || a->inode == b->inode);
}

static tarn_err disk_fits(struct import *import, uint32_t i, struct why *why) {
  const struct record *mine = record_of(import, i), *best = record_of(import, import->best);
  const struct record_image *image = &best->images[mine->self];
  for (uint32_t k = 0; k < i; k++) {
    if (is_same_disk(&import->disks[k].identity, &import->disks[i].identity))
      return because(why, TARN_REFUSED, "%s and %s are the same disk: give each disk once", path_of(import, k),
                     path_of(import, i));
    if (record_of(import, k)->self == mine->self)
      return because(why, TARN_REFUSED, "%s and %s both say that they are image %s: one is a copy; give the right one",
                     path_of(import, k), path_of(import, i), mine->images[mine->self].name);
  }
  if (!is_known(best, &mine->generation))
    return because(why, TARN_REFUSED,
                   "%s and %s were written apart from each other: import the one that is to count, and add the other "
                   "to it with ',overwrite'",
                   path_of(import, i), path_of(import, import->best));
  if (!image->present || memcmp(image->uuid, mine->images[mine->self].uuid, sizeof image->uuid) != 0)
    return because(why, TARN_REFUSED, "%s was image %s, and was removed from the mirror since: leave it out",
                   path_of(import, i), mine->images[mine->self].name);
  if (import->specs[i].path_count != best->volume_count)
    return because(why, TARN_REFUSED, "image %s has %u volumes: give a path for each, PATH+PATH", image->name,
                   best->volume_count);
  return TARN_OK;
}

static tarn_err disks_compare(struct import *import, struct why *why) {
  const struct record *first = record_of(import, 0);
  tarn_err err = TARN_OK;
  for (uint32_t i = 1; i < import->count; i++) {
    if (memcmp(record_of(import, i)->mirror_uuid, first->mirror_uuid, sizeof first->mirror_uuid) != 0)
      return because(why, TARN_REFUSED, "%s belongs to mirror %s, and %s to %s %s: import one mirror at a time",
                     path_of(import, i), record_of(import, i)->name, path_of(import, 0),
                     strcmp(record_of(import, i)->name, first->name) == 0 ? "another one," : "mirror", first->name);
    if (record_is_newer(record_of(import, i), record_of(import, import->best))) import->best = i;
  }
  for (uint32_t i = 0; i < import->count && err == TARN_OK; i++) err = disk_fits(import, i, why);
  return err;
}

static tarn_err missing_name(struct import *import, struct why *why) {
  const struct record *best = record_of(import, import->best);
  char names[IMAGES_MAX * 8 + TARN_NAME_MAX] = "";
  for (uint32_t slot = 0; slot < IMAGES_MAX; slot++) {
    bool here = !best->images[slot].present;
    for (uint32_t i = 0; i < import->count; i++) here = here || record_of(import, i)->self == slot;
    if (here) continue;
    size_t used = strlen(names);
    import->missing |= 1u << slot;
    snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "", best->images[slot].name);
  }
  if (!import->missing || import->force) return TARN_OK;
  return because(why, TARN_REFUSED,
                 "of mirror %s no path was given for image %s, which may have newer data; give it, or --force to go on "
                 "without",
                 best->name, names);
}

/* ---- config.json ---- */

static tarn_err file_fill(struct import *import, struct why *why) {
  struct mirror_file *file = import->plan.file;
  const struct record *best = record_of(import, import->best);
  snprintf(file->name, sizeof file->name, "%s", import->name[0] ? import->name : best->name);
  settings_defaults(&mirror_settings, file->settings.values);
  file->settings.values[SET_REGION] = best->region_bytes;
  file->settings.values[SET_EXTENT] = best->extent_bytes;
  file->settings.values[SET_MARKS] = best->mark_count;
  file->volume_count = best->volume_count;
  for (uint32_t i = 0; i < best->volume_count; i++) {
    strcpy(file->volumes[i].name, best->volumes[i].name);
    file->volumes[i].size_bytes = best->volumes[i].size_bytes;
  }
  for (uint32_t i = 0; i < import->count; i++) {
    uint32_t slot = record_of(import, i)->self;
    const struct examined *disk = &import->disks[i];
    struct mirror_file_image *image = &file->images[slot];
    image->present = true;
    strcpy(image->name, best->images[slot].name);
    settings_defaults(&image_settings, image->settings.values);
    for (uint32_t v = 0; v < file->volume_count; v++) {
      tarn_err err = disk_text_check(import->specs[i].paths[v], why);
      if (err != TARN_OK) return err;
      strcpy(image->paths[v], import->specs[i].paths[v]);
    }
    if (disk->where == EXAMINED_TAIL) image->tail = disk->tail;
    snprintf(image->meta, sizeof image->meta, "%s", disk->meta);
    if (slot >= file->slot_count) file->slot_count = slot + 1;
  }
  for (uint32_t slot = 0; slot < IMAGES_MAX; slot++)
    if (import->missing & 1u << slot) mirror_file_unknown(file, slot, best->images[slot].name);
  return TARN_OK;
}

static void warn(struct import *import, const char *image, const char *text) {
  json_array_append_new(import->plan.warnings, image ? json_sprintf("image %s %s", image, text) : json_string(text));
}

/* Are its files and devices those that were recorded? By any fact that is known of a device, and then `*by` is the index of that;
 * DEVICE_FACTS_MAX: by none. What nobody can tell counts as the same. */
static bool is_recorded(const struct import *import, uint32_t slot, uint32_t *by) {
  const struct create_plan *plan = &import->plan;
  uint64_t recorded = record_of(import, import->best)->images[slot].stamp.identity;
  *by = 0;
  if (recorded == 0 || plan->file->images[slot].tail.length) return true; /* a tail has been found by what lies on it */
  for (uint32_t fact = 0; fact <= DEVICE_FACTS_MAX; fact++) {
    uint64_t stamp = 0;
    for (uint32_t i = 0; i < plan->file->volume_count; i++) {
      const struct plan_disk *disk = &plan->data[slot][i];
      if (disk->kind == DISK_KIND_NBD) return *by = 0, true;
      for (uint32_t j = disk->first; j < disk->first + disk->count; j++) {
        const struct file_identity *file = &plan->files[j].identity;
        struct device_identity identity = {.count = 0};
        if (file->is_block_device) device_identity_read("", file->device, &identity);
        stamp_identity_add(&stamp, file, device_identity_number(&identity, fact));
      }
    }
    *by = fact;
    if (stamp == recorded) return true;
  }
  *by = 0;
  return false;
}

/* An image that is out is not opened at activation, which would learn this. Nothing is kept where the record knows of no devices: its
 * stamp would not be that of the record. */
static void devices_keep(struct import *import, uint32_t slot, uint32_t by) {
  struct mirror_file_image *image = &import->plan.file->images[slot];
  if (by == DEVICE_FACTS_MAX) return;
  image->devices = image_devices_look(import->plan.file, slot);
  image_devices_prefer(image->devices, by);
}

/* What it could not verify. */
static void limits_tell(struct import *import) {
  const struct record *best = record_of(import, import->best);
  for (uint32_t slot = 0; slot < IMAGES_MAX; slot++) {
    const char *name = best->images[slot].name;
    uint32_t by = 0;
    bool here = best->images[slot].present && !(import->missing & 1u << slot);
    bool recorded = !here || is_recorded(import, slot, &by);
    if (here) devices_keep(import, slot, by);
    if (import->missing & 1u << slot)
      warn(import, name, "was not given: activation asks for --force, since it may have newer data");
    else if (!recorded)
      warn(import, name, "is not on the file or device that was recorded (a copy?): activation asks for --force");
    else if (best->images[slot].present && best->images[slot].state != IMAGE_SYNCHRONIZED)
      warn(import, name, "was not SYNCHRONIZED when that was recorded: it is copied to after activation");
  }
  if (!best->clean)
    warn(import, NULL, "it was not stopped cleanly: what was being written is copied from one image at activation");
  if (strcmp(import->plan.file->name, best->name) != 0)
    warn(import, NULL, "its disks go on giving it the name that it had");
  warn(import, NULL,
       "its settings are the defaults; and its data was not looked at: 'tarn mirror verify' compares the images");
}

static void examine_work(struct reactor_work *work) {
  struct import *import = CONTAINER_OF(work, struct import, work);
  struct why *why = &import->why;
  import->err = TARN_OK;
  for (uint32_t i = 0; i < import->count && import->err == TARN_OK; i++) import->err = disk_examine(import, i, why);
  if (import->err == TARN_OK) import->err = disks_compare(import, why);
  import->compared = import->err == TARN_OK;
  if (import->err == TARN_OK) import->err = missing_name(import, why);
  if (import->err == TARN_OK) import->err = file_fill(import, why);
  if (import->err == TARN_OK) import->err = plan_check_import(&import->plan, why);
  if (import->err == TARN_OK) limits_tell(import);
}

static void store_work(struct reactor_work *work) {
  struct import *import = CONTAINER_OF(work, struct import, work);
  const char *folder = import->managed->folder;
  if (mkdir(folder, 0700) != 0) {
    import->err = because(&import->why, TARN_IO, "the folder %s cannot be made: move away what is there", folder);
    return;
  }
  import->err = folder_sync(folder, &import->why);
  if (import->err == TARN_OK) import->err = mirror_file_store(folder, import->plan.file, &import->why);
  if (import->err != TARN_OK)
    unmake(folder, import->plan.file, &(struct unmake_owner){.name = NULL}, import->plan.warnings);
}

/* ---- the command ---- */

static void import_end(struct import *import) {
  struct managed *managed = import->managed;
  struct manager *manager = managed->manager;
  struct call *call = make_end(managed); /* NULL: it was given up */
  if (import->err == TARN_OK) {
    for (size_t i = 0; call && i < json_array_size(import->plan.warnings); i++)
      call_warn(call, "%s", json_string_value(json_array_get(import->plan.warnings, i)));
    mirror_file_unsettled(&managed->file,
                          NULL); /* metadata may be an old copy: nobody knows how the last daemon ended */
    managed_insert(managed);
    for (uint32_t slot = 0; slot < IMAGES_MAX; slot++)
      if (import->missing & 1u << slot) image_unknown(managed, slot, managed->record.images[slot].name);
    report(manager->env, REPORT_INFO, managed->file.name, "is imported, with %u image%s", import->count,
           import->count == 1 ? "" : "s");
    if (call) call_done(call, managed_status_json(managed));
  } else {
    if (call) call_refuse(call, "%s", import->why.text);
    else if (managed->making != MAKING_NOTHING)
      report(manager->env, REPORT_WARNING, "tarnd", "an import that was given up has ended: %s", import->why.text);
    managed_free(managed);
  }
  import_free(import);
}

static void stored(struct reactor_work *work) { import_end(CONTAINER_OF(work, struct import, work)); }

/* No mirror in this list is it under another name. */
static tarn_err is_new(struct import *import, const struct list *mirrors) {
  const struct record *best = record_of(import, import->best);
  LIST_EACH(mirrors, node) {
    struct managed *other = LIST_ENTRY(node, struct managed, link);
    if (other->has_record && memcmp(other->record.mirror_uuid, best->mirror_uuid, sizeof best->mirror_uuid) == 0)
      return because(&import->why, TARN_EXISTS, "mirror %s of this node is this one already", other->file.name);
  }
  return TARN_OK;
}

/* Whatever else is wrong: who imports what is here already needs no other advice. */
static void look_for_it(struct import *import) {
  const struct manager *manager = import->managed->manager;
  tarn_err err = is_new(import, &manager->mirrors);
  if (err == TARN_OK) err = is_new(import, &manager->given_up);
  if (err != TARN_OK) import->err = err;
}

static tarn_err name_is_free(struct import *import) {
  const char *name = import->plan.file->name;
  struct why why;
  if (make_name_check(import->managed->manager, name, &why) == TARN_OK) return TARN_OK;
  return because(&import->why, TARN_EXISTS, "%s: give another NAME behind the paths", why.text);
}

static void examined(struct reactor_work *work) {
  struct import *import = CONTAINER_OF(work, struct import, work);
  struct managed *managed = import->managed;
  if (import->compared) look_for_it(import);
  if (import->err == TARN_OK) import->err = name_is_free(import);
  if (import->err == TARN_OK) import->err = make_next(managed, MAKING_MIRROR, &import->why);
  if (import->err != TARN_OK) {
    import_end(import);
    return;
  }
  snprintf(managed->folder, sizeof managed->folder, "%s/mirrors/%s", managed->manager->options.state,
           managed->file.name);
  managed->record = *record_of(import, import->best); /* to be shown, until it is activated */
  managed->has_record = true;
  make_limit(managed, 1);
  reactor_run_blocking(managed->manager->options.reactor, NULL, &import->work, store_work, stored);
}

static tarn_err import_parse(struct import *import, const struct request *request, struct why *why) {
  static const char *const known[] = {"images", "name", "force", NULL};
  const char *texts[IMAGES_MAX], *name = NULL;
  size_t count;
  tarn_err err = request_only(request, known, why);
  if (err == TARN_OK) err = request_texts(request, "images", texts, COUNT_OF(texts), &count, why);
  if (err == TARN_OK) err = request_text(request, "name", &name, why);
  if (err == TARN_OK) err = request_flag(request, "force", &import->force, why);
  if (err == TARN_OK && name) err = name_check("mirror", name, why);
  if (err == TARN_OK && name)
    strcpy(import->name, name); /* the request may be answered, and gone, before the workers end */
  if (err == TARN_OK && count == 0) err = because(why, TARN_INVALID, "give at least one PATH");
  for (size_t i = 0; err == TARN_OK && i < count; i++) {
    struct image_spec *spec = &import->specs[i];
    err = image_spec_parse(texts[i], spec, why);
    if (err == TARN_OK && (spec->name[0] || spec->node[0] || spec->overwrite))
      err = because(why, TARN_INVALID, "'%.120s': only PATH[+PATH...][,meta=PATH] is imported; its name is recorded",
                    texts[i]);
    if (err == TARN_OK && strcmp(spec->meta, META_TAIL) == 0) spec->meta[0] = 0; /* that is where it looks first */
    import->count++;
  }
  return err;
}

static void import_claim(struct import *import) {
  static const char *const whose = "a mirror that is being imported";
  claim_begin(import->managed->manager, &import->claim);
  for (uint32_t i = 0; i < import->count; i++) {
    const struct image_spec *spec = &import->specs[i];
    for (uint32_t v = 0; v < spec->path_count; v++) claim_disk(&import->claim, spec->paths[v], whose);
    claim_meta(&import->claim, spec->meta, spec->paths[0], whose);
  }
}

static void import_again(void *owner, struct call *call) { manager_mirror_import(owner, call); }
void manager_mirror_import(struct manager *manager, struct call *call) {
  struct why why;
  if (make_waits(manager, call, import_again)) return;
  struct import *import = calloc(1, sizeof *import);
  struct managed *managed = import ? managed_new(manager, "") : NULL;
  if (!managed || import_parse(import, &call->request, &why) != TARN_OK) {
    if (managed) call_misused(call, "%s", why.text);
    else call_refuse(call, "there is not enough memory");
    if (managed) managed_free(managed);
    free(import);
    return;
  }
  make_begin(managed, call, &import->work);
  import->managed = managed;
  import->plan.file = &managed->file;
  import->plan.state = manager->options.state;
  import->plan.node = manager->options.node;
  import->plan.warnings = json_array();
  import->plan.others = manager_files(manager);
  import_claim(import);
  make_limit(managed, import->count);
  reactor_run_blocking(manager->options.reactor, NULL, &import->work, examine_work, examined);
}
