/* image_identity.c - see image_identity.h. */
#include "shell/image_identity.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "shell/data_disk.h"
#include "shell/tail.h"

/* ---- JSON ---- */

bool image_devices_are_valid(const json_t *devices) {
  if (!json_is_array(devices)) return false;
  for (size_t i = 0; i < json_array_size(devices); i++) {
    const json_t *device = json_array_get(devices, i), *facts = json_object_get(device, "facts");
    if (!json_is_string(json_object_get(device, "path")) || !json_is_array(facts)) return false;
    if (json_array_size(facts) > DEVICE_FACTS_MAX) return false;
    for (size_t j = 0; j < json_array_size(facts); j++)
      if (!json_is_string(json_array_get(facts, j)) ||
          json_string_length(json_array_get(facts, j)) >= DEVICE_FACT_BYTES)
        return false;
  }
  return true;
}

static json_t *device_to_json(const char *path, const struct device_identity *identity) {
  json_t *facts = json_array();
  for (uint32_t i = 0; i < identity->count; i++) {
    json_t *fact = json_string(identity->facts[i]); /* NULL: not UTF-8; a vendor's odd bytes are no fact */
    if (fact) json_array_append_new(facts, fact);
  }
  return json_pack("{s:o, s:o}", "path", json_string_nocheck(path), "facts", facts);
}

static json_t *device_find(const json_t *devices, const char *path) {
  for (size_t i = 0; i < json_array_size(devices); i++) {
    json_t *device = json_array_get(devices, i);
    if (strcmp(json_string_value(json_object_get(device, "path")), path) == 0) return device;
  }
  return NULL;
}

static void identity_from_json(const json_t *device, struct device_identity *identity) {
  const json_t *facts = json_object_get(device, "facts");
  *identity = (struct device_identity){.count = (uint32_t)json_array_size(facts)};
  for (uint32_t i = 0; i < identity->count; i++)
    strcpy(identity->facts[i], json_string_value(json_array_get(facts, i)));
}

/* ---- reading ---- */

/* What we wrote there ourselves, in front of what others know. */
static void tail_add(const struct locator *tail, struct device_identity *identity) {
  struct device_identity known = *identity;
  char uuid[33];
  *identity = (struct device_identity){.count = 0};
  device_identity_add(identity, "tail", tail_uuid_text(tail->uuid, uuid));
  for (uint32_t i = 0; i < known.count && i < DEVICE_FACTS_MAX - 1; i++)
    strcpy(identity->facts[identity->count++], known.facts[i]);
}

/* Adds what is known of the device at the image's path, or its part's, unless it is there. */
static void device_add(json_t **devices, const char *path, dev_t device, const struct locator *tail) {
  struct device_identity identity;
  if (device_find(*devices, path)) return;
  device_identity_read("", device, &identity);
  if (tail) tail_add(tail, &identity);
  if (!*devices) *devices = json_array();
  json_array_append_new(*devices, device_to_json(path, &identity));
}

/* Where the tail is that the device of that volume has; or NULL. */
static const struct locator *tail_of(const struct mirror_file_image *image, uint32_t volume) {
  return volume == 0 && image->tail.length ? &image->tail : NULL;
}

json_t *image_devices_read(const struct mirror_file *file, uint32_t slot, struct disk *const *disks) {
  json_t *devices = NULL;
  for (uint32_t i = 0; i < file->volume_count; i++) {
    struct data_file files[DISK_PARTS_MAX];
    const char *text = file->images[slot].paths[i];
    uint32_t count = disks[i] ? data_disk_files(disks[i], files) : 0;
    for (uint32_t j = 0; j < count; j++) {
      const struct file_identity *found = file_disk_identity(files[j].file);
      const char *path = disk_text_kind(text) == DISK_KIND_FILE ? text : files[j].path;
      if (found->is_block_device) device_add(&devices, path, found->device, tail_of(&file->images[slot], i));
    }
  }
  return devices;
}

json_t *image_devices_look(const struct mirror_file *file, uint32_t slot) {
  const struct mirror_file_image *image = &file->images[slot];
  json_t *devices = NULL;
  struct disk_text *text = malloc(sizeof *text);
  for (uint32_t i = 0; text && i < file->volume_count; i++) {
    if (disk_text_parse(image->paths[i], text, NULL) != TARN_OK || text->kind == DISK_KIND_NBD) continue;
    for (uint32_t j = 0; j < text->part_count; j++) {
      struct stat info;
      const char *path = text->kind == DISK_KIND_FILE ? image->paths[i] : text->parts[j].path;
      if (stat(path, &info) == 0 && S_ISBLK(info.st_mode)) device_add(&devices, path, info.st_rdev, tail_of(image, i));
    }
  }
  free(text);
  return devices;
}

void image_devices_prefer(json_t *devices, uint32_t index) {
  for (size_t i = 0; i < json_array_size(devices); i++) {
    json_t *facts = json_object_get(json_array_get(devices, i), "facts"), *fact = json_array_get(facts, index);
    if (!fact) continue;
    json_array_insert(facts, 0, fact);
    json_array_remove(facts, index + 1);
  }
}

/* ---- comparing ---- */

enum device_sameness image_device_compare(const json_t *kept, const json_t *now, const char *path) {
  struct device_identity was, is;
  identity_from_json(device_find(kept, path), &was);
  identity_from_json(device_find(now, path), &is);
  return device_identity_compare(&was, &is);
}

enum device_sameness image_devices_compare(const json_t *kept, const json_t *now) {
  enum device_sameness sameness = DEVICE_SAME;
  for (size_t i = 0; i < json_array_size(kept); i++) {
    const char *path = json_string_value(json_object_get(json_array_get(kept, i), "path"));
    enum device_sameness one = image_device_compare(kept, now, path);
    if (one == DEVICE_OTHER) return DEVICE_OTHER;
    if (one == DEVICE_UNKNOWN) sameness = DEVICE_UNKNOWN;
  }
  return sameness;
}

uint64_t image_device_number(const json_t *kept, const json_t *now, const char *path, uint32_t index) {
  struct device_identity identity;
  identity_from_json(device_find(kept, path), &identity);
  if (identity.count > 0 && image_device_compare(kept, now, path) != DEVICE_OTHER)
    return device_identity_number(&identity, 0);
  identity_from_json(device_find(now, path), &identity);
  return device_identity_number(&identity, index);
}

/* Facts of kinds that were not known before. */
static bool facts_add(json_t *kept, const json_t *now) {
  struct device_identity was, is;
  identity_from_json(kept, &was);
  identity_from_json(now, &is);
  uint32_t before = was.count;
  for (uint32_t i = 0; i < is.count; i++) {
    char *space = strchr(is.facts[i], ' ');
    if (!space) continue;
    *space = 0;
    device_identity_add(&was, is.facts[i], space + 1);
  }
  for (uint32_t i = before; i < was.count; i++)
    json_array_append_new(json_object_get(kept, "facts"), json_string(was.facts[i]));
  return was.count > before;
}

bool image_devices_adopt(json_t **kept, const json_t *now) {
  bool changed = false;
  for (size_t i = 0; i < json_array_size(now); i++) {
    json_t *device = json_array_get(now, i);
    const char *path = json_string_value(json_object_get(device, "path"));
    json_t *known = device_find(*kept, path);
    if (known && image_device_compare(*kept, now, path) != DEVICE_OTHER) {
      changed = facts_add(known, device) || changed;
      continue;
    }
    if (!*kept) *kept = json_array();
    if (known) json_object_set_new(known, "facts", json_deep_copy(json_object_get(device, "facts")));
    else json_array_append_new(*kept, json_deep_copy(device));
    changed = true;
  }
  return changed;
}

/* ---- devices that have changed places ---- */

/* What is at a path; also what lies in its tail, if that is `wanted`. False: no block device. */
static bool device_look(const char *path, bool wanted, struct device_identity *identity) {
  struct locator tail;
  struct stat info;
  if (stat(path, &info) != 0 || !S_ISBLK(info.st_mode)) return false;
  device_identity_read("", info.st_rdev, identity);
  if (wanted && tail_find_at(path, &tail) == TARN_OK) tail_add(&tail, identity);
  return true;
}

static bool has_tail(const struct device_identity *identity) {
  return identity->count > 0 && strncmp(identity->facts[0], "tail ", 5) == 0;
}

/* The first of the mirror's paths from (*slot, *volume) on that holds the device of these facts. */
static const char *path_holding(const struct mirror_file *file, const struct device_identity *wanted, const char *but,
                                uint32_t *slot, uint32_t *volume) {
  for (; *slot < file->slot_count; ++*slot, *volume = 0) {
    const struct mirror_file_image *image = &file->images[*slot];
    for (; image->present && !image->unknown && *volume < file->volume_count; ++*volume) {
      struct device_identity found;
      const char *path = image->paths[*volume];
      if (strcmp(path, but) == 0 || disk_text_kind(path) != DISK_KIND_FILE) continue;
      if (device_look(path, has_tail(wanted), &found) && device_identity_compare(wanted, &found) == DEVICE_SAME)
        return path;
    }
  }
  return NULL;
}

/* The other image of the mirror whose device this is; NULL: none's. */
static const char *owner_of(const struct mirror_file *file, uint32_t slot, const struct device_identity *device) {
  for (uint32_t other = 0; other < file->slot_count; other++) {
    const struct mirror_file_image *image = &file->images[other];
    for (size_t i = 0; other != slot && image->present && i < json_array_size(image->devices); i++) {
      struct device_identity kept;
      identity_from_json(json_array_get(image->devices, i), &kept);
      if (device_identity_compare(&kept, device) == DEVICE_SAME) return image->name;
    }
  }
  return NULL;
}

/* Nothing is kept of the image's own device; but this one may be another image's. */
static enum image_place place_of_unknown(const struct mirror_file *file, uint32_t slot, const char *path,
                                         struct why *note) {
  struct device_identity is;
  const char *owner = device_look(path, true, &is) ? owner_of(file, slot, &is) : NULL;
  if (!owner) return PLACE_OWN;
  (void)because(note, TARN_NOT_FOUND, "%s holds the device of image %s (%s); where its own is, is not known", path,
                owner, device_identity_text(&is));
  return PLACE_NONE;
}

enum image_place image_place_find(const struct mirror_file *file, uint32_t slot, uint32_t volume,
                                  char place[PATH_BYTES_MAX + 1], struct why *note) {
  const struct mirror_file_image *image = &file->images[slot];
  const char *path = image->paths[volume];
  const json_t *kept = device_find(image->devices, path);
  struct device_identity was, is = {.count = 0};
  uint32_t at_slot = 0, at_volume = 0;
  note->text[0] = 0;
  if (disk_text_kind(path) != DISK_KIND_FILE) return PLACE_OWN;
  if (!kept) return place_of_unknown(file, slot, path, note);
  identity_from_json(kept, &was);
  bool there = device_look(path, has_tail(&was), &is);
  if (there && device_identity_compare(&was, &is) != DEVICE_OTHER) return PLACE_OWN;
  const char *found = path_holding(file, &was, path, &at_slot, &at_volume);
  const char *owner = found ? file->images[at_slot].name : "";
  at_volume++;
  if (found && !path_holding(file, &was, path, &at_slot, &at_volume)) {
    strcpy(place, found);
    (void)because(note, TARN_OK,
                  "its device (%s) is at %s now, the path of image %s, and is used there; give images names that stay, "
                  "from /dev/disk/by-id",
                  device_identity_text(&was), found, owner);
    return PLACE_FOUND;
  }
  if (!there) return PLACE_OWN;
  owner = owner_of(file, slot, &is);
  if (owner)
    (void)because(note, TARN_NOT_FOUND,
                  "%s holds the device of image %s (%s); its own (%s) is at no path of this mirror", path, owner,
                  device_identity_text(&is), device_identity_text(&was));
  else
    (void)because(note, TARN_OK, "%s is another device than it was: it was '%s', now it is '%s'", path,
                  device_identity_text(&was), device_identity_text(&is));
  return owner ? PLACE_NONE : PLACE_OWN;
}

/* ---- after an image was removed ---- */

void image_devices_rename(json_t *devices, const char *from, const char *to) {
  json_t *device = device_find(devices, from);
  if (device) json_object_set_new(device, "path", json_string_nocheck(to));
}

static bool path_is_named(const struct mirror_file *file, const char *path) {
  for (uint32_t slot = 0; slot < file->slot_count; slot++)
    for (uint32_t i = 0; file->images[slot].present && i < file->volume_count; i++)
      if (strcmp(file->images[slot].paths[i], path) == 0) return true;
  return false;
}

/* True: the disk is at another path from now on. */
static bool place_settle(const struct mirror_file *before, struct mirror_file *file, uint32_t slot, uint32_t volume) {
  struct mirror_file_image *image = &file->images[slot];
  const char *was = before->images[slot].paths[volume];
  char place[PATH_BYTES_MAX + 1];
  struct why note;
  if (!image->present || image->unknown || strcmp(image->paths[volume], was) != 0) return false;
  if (image_place_find(before, slot, volume, place, &note) != PLACE_FOUND || path_is_named(file, place)) return false;
  image_devices_rename(image->devices, was, place);
  strcpy(image->paths[volume], place);
  if (volume == 0 && image->tail.length) strcpy(image->meta, place);
  return true;
}

/* Each that settles leaves a path behind, which may have been the place of another one. */
void image_places_settle(const struct mirror_file *before, struct mirror_file *file) {
  for (bool changed = true; changed;) {
    changed = false;
    for (uint32_t slot = 0; slot < file->slot_count; slot++)
      for (uint32_t i = 0; i < file->volume_count; i++) changed = place_settle(before, file, slot, i) || changed;
  }
}
