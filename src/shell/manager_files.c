/* Which files, devices and exports are whose: what no new image may use.
 *
 * A command that is about to give disks to a mirror looks at them in a worker, which may take long, and only at its end does the
 * mirror have them. So it claims them first thing: a snapshot of what is in use, then its own claim, both in one turn of the reactor's
 * thread. Of two commands that want the same disk the later one finds the claim of the earlier, or the mirror that has it by then.
 * Disks are claimed as they were typed; that two names mean one disk is for create_plan.c to see. */
#include <stdio.h>
#include <string.h>

#include "shell/manager_internal.h"

/* Takes `whose`. */
static void pair_add(json_t *list, const char *disk, json_t *whose) {
  json_array_append_new(list, json_pack("[o, o]", json_string_nocheck(disk), whose));
}

static void mirror_add(json_t *list, const struct managed *managed) {
  static const char *const own[] = {"record", "config.json"};
  const struct mirror_file *file = &managed->file;
  char path[FOLDER_PATH_MAX + 32];
  for (size_t i = 0; i < COUNT_OF(own); i++) {
    snprintf(path, sizeof path, "%s/%s", managed->folder, own[i]);
    pair_add(list, path, json_sprintf("mirror %s, as its %s", file->name, own[i]));
  }
  for (uint32_t slot = 0; slot < file->slot_count; slot++) {
    const struct mirror_file_image *image = &file->images[slot];
    if (!image->present || image->unknown) continue;
    for (uint32_t i = 0; i < file->volume_count; i++)
      pair_add(list, image->paths[i], json_sprintf("image %s of mirror %s", image->name, file->name));
    if (image->tail.length) continue; /* on that disk */
    pair_add(list, image->meta, json_sprintf("image %s of mirror %s, as its metadata", image->name, file->name));
  }
}

json_t *manager_files(const struct manager *manager) {
  json_t *list = json_array();
  LIST_EACH(&manager->mirrors, node) mirror_add(list, LIST_ENTRY(node, struct managed, link));
  LIST_EACH(&manager->claims, node) json_array_extend(list, LIST_ENTRY(node, struct claim, link)->files);
  return list;
}

/* ---- claims ---- */

void claim_begin(struct manager *manager, struct claim *claim) {
  require(!claim->files);
  claim->files = json_array();
  list_init(&claim->link);
  list_push(&manager->claims, &claim->link);
}

void claim_end(struct claim *claim) {
  if (!claim->files) return;
  list_remove(&claim->link);
  json_decref(claim->files);
  claim->files = NULL;
}

void claim_disk(struct claim *claim, const char *disk, const char *whose) {
  pair_add(claim->files, disk, json_string(whose));
}

void claim_meta(struct claim *claim, const char *meta, const char *first_disk, const char *whose) {
  char beside[META_PATH_BYTES_MAX + 1];
  if (meta[0] == '/') claim_disk(claim, meta, whose);
  if (meta[0] || disk_text_kind(first_disk) != DISK_KIND_FILE) return; /* in the tail: on that disk */
  snprintf(beside, sizeof beside, "%s.tarn", first_disk);
  claim_disk(claim, beside, whose);
}

void claim_image(struct claim *claim, const struct mirror_file *file, uint32_t slot, const char *state,
                 const char *doing) {
  const struct mirror_file_image *image = &file->images[slot];
  char whose[2 * TARN_NAME_MAX + 64], home[META_PATH_BYTES_MAX + 1];
  snprintf(whose, sizeof whose, "image %s of mirror %s, which is being %s", image->name, file->name, doing);
  for (uint32_t i = 0; i < file->volume_count; i++) claim_disk(claim, image->paths[i], whose);
  claim_meta(claim, image->meta, image->paths[0], whose);
  if (image->meta[0]) return;
  snprintf(home, sizeof home, "%s/meta/%s-%s.tarn", state, file->name, image->name); /* if it cannot lie beside it */
  claim_disk(claim, home, whose);
}
