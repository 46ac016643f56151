/* Images that are not of their mirror any more, or never became so. What counts is the mirror's record; config.json follows:
 *
 *     adding    config.json has the image with the list of what is made for it -> the files -> the record -> the list goes
 *     removing  the record -> its files are closed -> its metadata is removed -> config.json forgets it
 *
 * Only what writes config.json keeps the mirror for itself. Files are removed beside it: these may hang.
 *
 * Power lost anywhere: the next activation finds the newest record there is (the state directory's alone may lack a commit
 * that reached an image). An image that config.json has and that record has not was never added, or is removed: it is forgotten,
 * and what was made for it goes with it. A mirror that is not to be ACTIVE is opened quietly at start for that. An addition that
 * could not be recorded everywhere is settled in the same way. An image that the record has and config.json has not (somebody
 * restored an old one, or it was not named at import) is shown as unknown. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shell/image_identity.h"
#include "shell/manager_internal.h"

#define EMPTYING_S 5u /* an operation waits so long for the files of its image to be removed */

static void slots_count(struct mirror_file *file) {
  file->slot_count = 0;
  for (uint32_t slot = 0; slot < IMAGES_MAX; slot++)
    if (file->images[slot].present) file->slot_count = slot + 1;
}

static void image_clear(struct mirror_file *file, uint32_t slot) {
  mirror_file_image_release(&file->images[slot]);
  file->images[slot] = (struct mirror_file_image){.present = false};
  slots_count(file);
}

/* ---- forgetting ---- */

/* First its files go. These may hang, so nothing keeps the mirror busy for that: whoever waits goes on after a while, and
 * until they have answered the image keeps its place, and its name and disks are taken. */
struct emptying {
  struct managed *managed;
  uint32_t slot;
  struct mirror_file file; /* as it was */
  uint8_t uuid[16];
  json_t *warnings;
  struct reactor_work work;
};

static void empty_work(struct reactor_work *work) {
  struct emptying *emptying = CONTAINER_OF(work, struct emptying, work);
  const struct mirror_file_image *image = &emptying->file.images[emptying->slot];
  struct unmake_owner owner = {.has_uuid = true};
  memcpy(owner.uuid, emptying->uuid, sizeof owner.uuid);
  if (image->adding) unmake_files(image->adding, &owner, emptying->warnings);
  else if (!image->unknown) unmake_metadata(emptying->uuid, &emptying->file, emptying->slot, emptying->warnings);
}

static bool is_awaited(const struct managed *managed, uint32_t slot) {
  return managed->task && managed->task->released && managed->task->slot == slot;
}

/* Takes the warnings. */
static void empty_tell(struct managed *managed, uint32_t slot, json_t *warnings) {
  if (is_awaited(managed, slot)) {
    managed_warn(managed, warnings);
    return;
  }
  for (size_t i = 0; i < json_array_size(warnings); i++)
    report(managed->manager->env, REPORT_WARNING, managed->file.name, "%s",
           json_string_value(json_array_get(warnings, i)));
  json_decref(warnings);
}

static void emptied(struct reactor_work *work) {
  struct emptying *emptying = CONTAINER_OF(work, struct emptying, work);
  struct managed *managed = emptying->managed;
  managed->emptying &= ~(1u << emptying->slot);
  managed->emptied |= 1u << emptying->slot;
  empty_tell(managed, emptying->slot, emptying->warnings);
  managed_poke(managed);
  mirror_file_release(&emptying->file);
  free(emptying);
}

/* False when memory is short: later, then. */
static bool empty_begin(struct managed *managed, uint32_t slot) {
  struct emptying *emptying = calloc(1, sizeof *emptying);
  struct mirror_status status;
  if (!emptying) return false;
  if (managed->mirror) {
    if (managed->watch) disk_watch_set(managed->watch, slot, NULL, 0);
    image_disks_close(&managed->disks.images[slot]);
    mirror_status(managed->mirror, &status);
  }
  memcpy(emptying->uuid, managed->mirror ? status.uuid : managed->record.mirror_uuid, sizeof emptying->uuid);
  emptying->managed = managed;
  emptying->slot = slot;
  emptying->warnings = json_array();
  mirror_file_copy(&emptying->file, &managed->file);
  managed->emptying |= 1u << slot;
  reactor_run_blocking(managed->manager->options.reactor, NULL, &emptying->work, empty_work, emptied);
  return true;
}

bool emptying_image_explain(const struct managed *managed, uint32_t slot, struct why *why) {
  if (!(managed->emptying & 1u << slot)) return false;
  because(why, TARN_HUNG, "its files are being removed, and what they lie on has not answered yet");
  return true;
}

bool emptying_explain(const struct managed *managed, struct why *why) {
  struct why inner;
  for (uint32_t slot = 0; slot < IMAGES_MAX; slot++) {
    if (!emptying_image_explain(managed, slot, &inner)) continue;
    because(why, TARN_HUNG, "image %s is none of its images any more; %s", managed->file.images[slot].name, inner.text);
    return true;
  }
  return false;
}

/* Then config.json forgets it. */
static void forget_work(struct reactor_work *work) {
  struct managed *managed = CONTAINER_OF(work, struct managed, work);
  image_places_settle(&managed->file, managed->new_file);
  managed_store_work(work);
}

/* Images that were at the path of another one have it as theirs, as config.json says. */
static void places_take(struct managed *managed) {
  for (uint32_t slot = 0; slot < managed->new_file->slot_count; slot++) {
    struct mirror_file_image *image = &managed->file.images[slot], *now = &managed->new_file->images[slot];
    struct image_disks *disks = &managed->disks.images[slot];
    for (uint32_t i = 0; now->present && i < managed->file.volume_count; i++) {
      if (strcmp(image->paths[i], now->paths[i]) == 0) continue;
      report(managed->manager->env, REPORT_INFO, managed->file.name, "image %s: its path is %s from now on, not %s",
             image->name, now->paths[i], image->paths[i]);
      image_devices_rename(disks->devices, image->paths[i], now->paths[i]);
      image_devices_rename(image->devices, image->paths[i], now->paths[i]);
      strcpy(image->paths[i], now->paths[i]);
      strcpy(image->meta, now->meta);
      free(disks->places[i]);
      disks->places[i] = NULL;
      disks->note.text[0] = 0;
    }
  }
}

static void forgotten(struct reactor_work *work) {
  struct managed *managed = CONTAINER_OF(work, struct managed, work);
  struct image_task *task = managed->task;
  uint32_t slot = managed->forgetting;
  /* If config.json could not be written it is forgotten at the next start. */
  if (managed->work_err != TARN_OK) managed_warn(managed, json_pack("[s]", managed->work_why.text));
  places_take(managed);
  mirror_file_release(managed->new_file);
  free(managed->new_file);
  managed->new_file = NULL;
  faults_forget(managed, slot);
  image_clear(&managed->file, slot);
  managed->leaving &= ~(1u << slot);
  managed->emptied &= ~(1u << slot);
  watch_forget(managed, slot);
  if (task && task->released) {
    void (*released)(struct managed *) = task->released;
    task->released = NULL;
    released(managed);
  } else managed_finish(managed);
}

/* False when memory is short: later, then. */
static bool forget_prepare(struct managed *managed) {
  managed->new_file = malloc(sizeof *managed->new_file);
  return managed->new_file != NULL;
}

static void forget_begin(struct managed *managed, uint32_t slot) {
  if (managed->mirror) image_disks_close(&managed->disks.images[slot]); /* it may have been opened anew */
  mirror_file_copy(managed->new_file, &managed->file);
  image_clear(managed->new_file, slot);
  managed->forgetting = slot;
  managed_work(managed, forget_work, forgotten);
}

static void added_stored(struct reactor_work *work) {
  struct managed *managed = CONTAINER_OF(work, struct managed, work);
  if (managed->work_err != TARN_OK)
    report(managed->manager->env, REPORT_WARNING, managed->file.name, "%s", managed->work_why.text);
  managed_finish(managed);
}

static bool is_free(const struct managed *managed, uint32_t slot) {
  return !aside_has(managed, slot) && (!managed->mirror || mirror_image_is_quiet(managed->mirror, slot));
}

/* The next step for an image that leaves: true, it is one that keeps the mirror. */
static bool release_step(struct managed *managed, uint32_t slot) {
  if (managed->emptying & 1u << slot || !is_free(managed, slot)) return false;
  if (managed->emptied & 1u << slot) return forget_prepare(managed);
  if (empty_begin(managed, slot) && is_awaited(managed, slot))
    managed->task->release_deadline_ns = managed->manager->env->now_ns + EMPTYING_S * NS_PER_S;
  return false;
}

/* The operation under way waits for its image. */
static void release_look(struct managed *managed) {
  struct image_task *task = managed->task;
  if (managed->new_file) return; /* it is being forgotten */
  if (release_step(managed, task->slot)) {
    forget_begin(managed, task->slot);
  } else if (managed->manager->env->now_ns >= task->release_deadline_ns) {
    void (*released)(struct managed *) = task->released;
    task->released = NULL;
    released(managed);
  }
}

void leaving_look(struct managed *managed) {
  if (managed->task && managed->task->released) {
    release_look(managed);
    return;
  }
  if (managed->busy || managed->manager->stopping) return;
  if (memcmp(&managed->file.differs, &managed->differs, sizeof managed->differs) != 0) {
    managed->file.differs = managed->differs;
    managed->store_wanted = true;
  }
  if (managed->store_wanted) {
    managed->store_wanted = false;
    managed_begin(managed, NULL, "is being changed");
    managed_work(managed, managed_store_work, added_stored);
    return;
  }
  for (uint32_t slot = 0; slot < IMAGES_MAX; slot++) {
    if (!(managed->leaving & ~managed->undecided & 1u << slot) || !release_step(managed, slot)) continue;
    managed_begin(managed, NULL, "is being changed");
    forget_begin(managed, slot);
    return;
  }
}

void image_release(struct managed *managed, void (*released)(struct managed *)) {
  struct image_task *task = managed->task;
  task->released = released;
  task->release_deadline_ns = managed->manager->env->now_ns + GRACE_S * NS_PER_S / 2;
  managed->leaving |= 1u << task->slot;
  managed_poke(managed);
}

/* ---- after a crash ---- */

void image_unknown(struct managed *managed, uint32_t slot, const char *name) {
  struct mirror_file *file = &managed->file;
  mirror_file_unknown(file, slot, name);
  report(managed->manager->env, REPORT_WARNING, file->name,
         "has an image %s whose disk is unknown, and may have newer data; 'tarn status %s' says what can be done", name,
         file->name);
}

void reconcile(struct managed *managed) {
  struct mirror_file *file = &managed->file;
  struct mirror_status status;
  mirror_status(managed->mirror, &status);
  for (uint32_t slot = 0; slot < file->slot_count; slot++) {
    struct mirror_file_image *image = &file->images[slot];
    if (!image->present || managed->leaving & ~managed->undecided & 1u << slot) continue;
    managed->leaving &= ~(1u << slot);
    if (slot < status.image_count && status.images[slot].present) {
      managed->store_wanted = managed->store_wanted || image->adding;
      json_decref(image->adding);
      image->adding = NULL;
    } else {
      report(managed->manager->env, REPORT_WARNING, file->name,
             "image %s was being added or removed, and is not in its record: it is forgotten", image->name);
      managed->leaving |= 1u << slot;
    }
  }
  managed->undecided = 0;
}

bool reconcile_wanted(struct managed *managed) {
  bool wanted = false;
  for (uint32_t slot = 0; slot < IMAGES_MAX; slot++) {
    const struct record_image *known = &managed->record.images[slot];
    wanted = wanted || managed->file.images[slot].adding;
    if (managed->has_record && known->present && !managed->file.images[slot].present)
      image_unknown(managed, slot, known->name);
  }
  return wanted;
}
