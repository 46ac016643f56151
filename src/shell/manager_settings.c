/* Settings of mirrors and of images: stored first, then applied to what runs. */
#include <stdlib.h>
#include <string.h>

#include "shell/manager_internal.h"

#define SETTINGS_MAX 32u /* KEY=VALUE in one request */

static json_t *setting_json(const struct setting *setting, int64_t value) {
  return setting->unit == SETTING_WORD ? json_string(setting->words[value]) : json_integer(value);
}

/* All, or the one of that index. */
static json_t *settings_json(const struct settings_table *table, const int64_t *values, unsigned only) {
  json_t *json = json_object();
  for (unsigned i = 0; i < table->count; i++)
    if (only == table->count || only == i)
      json_object_set_new(json, table->rows[i].name, setting_json(&table->rows[i], values[i]));
  return json;
}

static json_t *mirror_json(const struct managed *managed, unsigned only) {
  return json_pack("{s:s, s:o}", "name", managed->file.name, "settings",
                   settings_json(&mirror_settings, managed->file.settings.values, only));
}

static json_t *image_json(const struct managed *managed, uint32_t slot, unsigned only) {
  const struct mirror_file_image *image = &managed->file.images[slot];
  return json_pack("{s:s, s:s, s:o, s:o}", "mirror", managed->file.name, "image", image->name, "settings",
                   settings_json(&image_settings, image->settings.values, only), "devices",
                   image->devices ? json_deep_copy(image->devices) : json_array());
}

/* Parses the call's settings into `values`; false when the call was answered. */
static bool set_parse(struct call *call, const struct settings_table *table, int64_t *values) {
  const char *texts[SETTINGS_MAX];
  size_t count;
  struct why why;
  tarn_err err = request_texts(&call->request, "set", texts, COUNT_OF(texts), &count, &why);
  if (err == TARN_OK && count == 0) err = because(&why, TARN_INVALID, "nothing to set: give KEY=VALUE");
  for (size_t i = 0; i < count && err == TARN_OK; i++) {
    unsigned index;
    int64_t before[MIRROR_SETTING_COUNT + IMAGE_SETTING_COUNT];
    memcpy(before, values, table->count * sizeof values[0]);
    err = setting_assign(table, values, texts[i], &index, &why);
    if (err != TARN_OK || !table->rows[index].at_create || values[index] == before[index]) continue;
    call_refuse(call, "'%s' is fixed when a mirror is created", table->rows[index].name);
    return false;
  }
  if (err != TARN_OK) call_misused(call, "%s", why.text);
  return err == TARN_OK;
}

/* The key that the call asks for; table->count: all. False when the call was answered. */
static bool get_parse(struct call *call, const struct settings_table *table, unsigned *index) {
  const char *key;
  struct why why;
  *index = table->count;
  if (request_text(&call->request, "key", &key, &why) == TARN_OK &&
      (!key || setting_find(table, key, index, &why) == TARN_OK))
    return true;
  call_misused(call, "%s", why.text);
  return false;
}

/* Takes what was stored into use. */
static void apply(struct managed *managed) {
  if (!managed->mirror || managed->ending) return;
  const int64_t *values = managed->file.settings.values;
  struct mirror_status status;
  mirror_status(managed->mirror, &status);
  for (uint32_t slot = 0; slot < managed->file.slot_count; slot++) {
    struct image_policy policy;
    managed_policy(&managed->file.images[slot], &policy);
    if (managed->file.images[slot].present && slot < status.image_count && status.images[slot].present)
      mirror_set_policy(managed->mirror, slot, &policy);
  }
  mirror_set_limits(managed->mirror, (int32_t)values[SET_MAX_MISSING], (int32_t)values[SET_MIN_IMAGES],
                    values[SET_READ] != 0);
}

static void set_stored(struct reactor_work *work) {
  struct managed *managed = CONTAINER_OF(work, struct managed, work);
  struct call *call = managed->call;
  uint32_t slot = managed->set_slot;
  managed->call = NULL;
  if (managed->work_err != TARN_OK) call_refuse(call, "%s", managed->work_why.text);
  else {
    managed->file.settings = managed->new_file->settings;
    for (uint32_t i = 0; i < IMAGES_MAX; i++) managed->file.images[i].settings = managed->new_file->images[i].settings;
    if (slot == IMAGES_MAX) report(managed->manager->env, REPORT_INFO, managed->file.name, "settings were changed");
    else
      report(managed->manager->env, REPORT_INFO, managed->file.name, "settings of image %s were changed",
             managed->file.images[slot].name);
    apply(managed);
    call_done(call, slot == IMAGES_MAX ? mirror_json(managed, MIRROR_SETTING_COUNT)
                                       : image_json(managed, slot, IMAGE_SETTING_COUNT));
  }
  mirror_file_release(managed->new_file);
  free(managed->new_file);
  managed->new_file = NULL;
  managed_finish(managed);
}

/* Stores the file with these settings of the mirror, or of an image. */
static void set_begin(struct managed *managed, struct call *call, uint32_t slot, const int64_t *values) {
  struct mirror_file *file = malloc(sizeof *file);
  if (!file) {
    call_refuse(call, "there is not enough memory");
    return;
  }
  mirror_file_copy(file, &managed->file);
  if (slot == IMAGES_MAX) memcpy(file->settings.values, values, sizeof file->settings.values);
  else memcpy(file->images[slot].settings.values, values, sizeof file->images[slot].settings.values);
  managed_begin(managed, call, "is being changed");
  managed->new_file = file;
  managed->set_slot = slot;
  managed_work(managed, managed_store_work, set_stored);
}

/* ---- of a mirror ---- */

static void mirror_set_again(void *owner, struct call *call) { manager_mirror_set(owner, call); }
void manager_mirror_set(struct manager *manager, struct call *call) {
  static const char *const known[] = {"name", "set", NULL};
  struct managed *managed = call_mirror(manager, call, "name", known, mirror_set_again);
  if (!managed) return;
  struct settings settings = managed->file.settings;
  if (set_parse(call, &mirror_settings, settings.values)) set_begin(managed, call, IMAGES_MAX, settings.values);
}

static void mirror_get_again(void *owner, struct call *call) { manager_mirror_get(owner, call); }
void manager_mirror_get(struct manager *manager, struct call *call) {
  static const char *const known[] = {"name", "key", NULL};
  struct managed *managed = call_mirror(manager, call, "name", known, mirror_get_again);
  unsigned index;
  if (managed && get_parse(call, &mirror_settings, &index)) call_done(call, mirror_json(managed, index));
}

/* ---- of an image ---- */

static void image_set_again(void *owner, struct call *call) { manager_image_set(owner, call); }
void manager_image_set(struct manager *manager, struct call *call) {
  static const char *const known[] = {"mirror", "image", "set", NULL};
  struct managed *managed = call_mirror(manager, call, "mirror", known, image_set_again);
  uint32_t slot;
  if (!managed || !call_image(managed, call, "image", &slot)) return;
  struct image_settings settings = managed->file.images[slot].settings;
  if (set_parse(call, &image_settings, settings.values)) set_begin(managed, call, slot, settings.values);
}

static void image_get_again(void *owner, struct call *call) { manager_image_get(owner, call); }
void manager_image_get(struct manager *manager, struct call *call) {
  static const char *const known[] = {"mirror", "image", "key", NULL};
  struct managed *managed = call_mirror(manager, call, "mirror", known, image_get_again);
  uint32_t slot;
  unsigned index;
  if (managed && call_image(managed, call, "image", &slot) && get_parse(call, &image_settings, &index))
    call_done(call, image_json(managed, slot, index));
}
