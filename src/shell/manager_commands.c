/* Commands on a mirror that exists: each checks what may not be, then begins its operation. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shell/file_identity.h"
#include "shell/manager_internal.h"
#include "shell/words.h"

static const char *mirror_name_at(const void *context, size_t index) {
  const struct manager *manager = context;
  LIST_EACH(&manager->mirrors, node)
  if (index-- == 0) return LIST_ENTRY(node, struct managed, link)->file.name;
  return NULL;
}

/* The mirror that the call names, when its turn has come. NULL: the call was answered, or waits in line. */
static struct managed *call_mirror(struct manager *manager, struct call *call, const char *const *known,
                                   void (*again)(void *, struct call *)) {
  const char *name;
  struct why why;
  char hint[HINT_TEXT];
  if (manager->stopping) {
    call_refuse(call, "the daemon is stopping");
    return NULL;
  }
  if (request_only(&call->request, known, &why) != TARN_OK ||
      request_text(&call->request, "name", &name, &why) != TARN_OK ||
      name_check("mirror", name ? name : "", &why) != TARN_OK) {
    call_misused(call, "%s", why.text);
    return NULL;
  }
  struct managed *managed = managed_find(manager, name);
  if (!managed) {
    call_refuse(call, "there is no mirror '%s'%s; 'tarn status' lists them", name,
                hint_text(nearest_word(name, mirror_name_at, manager), hint));
    return NULL;
  }
  if (managed->busy) {
    manager_wait(manager, call, again);
    return NULL;
  }
  return managed;
}

/* ---- activate, deactivate ---- */

static void activate_again(void *owner, struct call *call) { manager_mirror_activate(owner, call); }
void manager_mirror_activate(struct manager *manager, struct call *call) {
  static const char *const known[] = {"name", "force", NULL};
  struct managed *managed = call_mirror(manager, call, known, activate_again);
  bool force;
  struct why why;
  if (!managed) return;
  if (request_flag(&call->request, "force", &force, &why) != TARN_OK) {
    call_misused(call, "%s", why.text);
    return;
  }
  if (managed->mirror && mirror_state_now(managed->mirror) == MIRROR_ACTIVE) {
    call_refuse(call, "mirror %s is ACTIVE already", managed->file.name);
    return;
  }
  managed_begin(managed, call, "is being activated");
  managed->force = force;
  managed->then_activate = managed->mirror != NULL;
  if (managed->mirror) managed_deactivate(managed, true);
  else managed_activate(managed, true);
}

/* "peer, peer" of all volumes; how many. */
static uint32_t clients_list(struct managed *managed, char *text, size_t bytes) {
  uint32_t count = 0;
  text[0] = 0;
  for (uint32_t i = 0; i < managed->export_count; i++) {
    size_t used = strlen(text);
    if (used + 16 < bytes && count > 0) used += (size_t)snprintf(text + used, bytes - used, ", ");
    uint32_t here =
        nbd_server_clients(managed->manager->options.nbd, &managed->exports[i].server, text + used, bytes - used);
    if (here == 0 && count > 0) text[used - 2] = 0;
    count += here;
  }
  return count;
}

static void stay_inactive_stored(struct reactor_work *work) {
  struct managed *managed = CONTAINER_OF(work, struct managed, work);
  struct call *call = managed->call;
  managed->call = NULL;
  if (managed->work_err != TARN_OK) call_refuse(call, "%s", managed->work_why.text);
  else call_done(call, managed_status_json(managed));
  managed_finish(managed);
}

static void deactivate_again(void *owner, struct call *call) { manager_mirror_deactivate(owner, call); }
void manager_mirror_deactivate(struct manager *manager, struct call *call) {
  static const char *const known[] = {"name", "force", NULL};
  struct managed *managed = call_mirror(manager, call, known, deactivate_again);
  bool force;
  struct why why;
  char clients[240];
  if (!managed) return;
  if (request_flag(&call->request, "force", &force, &why) != TARN_OK) {
    call_misused(call, "%s", why.text);
    return;
  }
  if (!managed->mirror && !managed->attention) {
    call_refuse(call, "mirror %s is INACTIVE already", managed->file.name);
    return;
  }
  uint32_t count = managed->mirror ? clients_list(managed, clients, sizeof clients) : 0;
  if (count > 0 && !force) {
    call_refuse(call, "mirror %s has %u client%s connected: %s; disconnect them, or hang up on them with --force",
                managed->file.name, count, count == 1 ? "" : "s", clients);
    return;
  }
  managed_begin(managed, call, "is being deactivated");
  if (managed->mirror) {
    managed_deactivate(managed, false);
    return;
  }
  /* Its record says ACTIVE and cannot be changed on its images: what the administrator wants is kept beside it. */
  managed->attention = false;
  managed->wanted = false;
  managed->file.stay_inactive = true;
  reactor_run_blocking(manager->options.reactor, &managed->work, managed_store_work, stay_inactive_stored);
}

/* ---- destroy ---- */

/* Does the metadata at `path` belong to another mirror by now? */
static bool is_foreign(const struct managed *managed, const char *path) {
  uint8_t area[RECORD_AREA_BYTES];
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || !managed->has_record) return false;
  bool foreign = false;
  ssize_t bytes = pread(fd, area, sizeof area, 0);
  close(fd);
  for (size_t slot = 0; slot < 2 && bytes == (ssize_t)sizeof area; slot++) {
    struct record record;
    if (record_decode(&record, area + slot * RECORD_SLOT_BYTES) == TARN_OK)
      foreign = memcmp(record.mirror_uuid, managed->record.mirror_uuid, sizeof record.mirror_uuid) != 0;
  }
  return foreign;
}

static void destroy_work(struct reactor_work *work) {
  struct managed *managed = CONTAINER_OF(work, struct managed, work);
  for (uint32_t slot = 0; slot < managed->file.slot_count; slot++) {
    const char *meta = managed->file.images[slot].meta;
    if (!managed->file.images[slot].present) continue;
    if (is_foreign(managed, meta))
      json_array_append_new(managed->work_warnings,
                            json_sprintf("%s is left in place: it belongs to another mirror", meta));
    else unmake_add(&managed->file, meta);
  }
  if (!managed->file.unmake) managed->file.unmake = json_array();
  managed->work_err = mirror_file_store(managed->folder, &managed->file, &managed->work_why);
  if (managed->work_err == TARN_OK) unmake(managed->folder, &managed->file, managed->work_warnings);
  else json_decref(managed->file.unmake), managed->file.unmake = NULL;
}

static void destroy_worked(struct reactor_work *work) {
  struct managed *managed = CONTAINER_OF(work, struct managed, work);
  struct call *call = managed->call;
  bool gone = managed->work_err == TARN_OK;
  for (size_t i = 0; i < json_array_size(managed->work_warnings); i++)
    call_warn(call, "%s", json_string_value(json_array_get(managed->work_warnings, i)));
  json_decref(managed->work_warnings);
  managed->work_warnings = NULL;
  managed->call = NULL;
  if (gone) {
    report(managed->manager->env, REPORT_INFO, managed->file.name,
           "is destroyed; the data of its images is left in place");
    call_done(call, json_pack("{s:s, s:b}", "name", managed->file.name, "destroyed", 1));
  } else call_refuse(call, "%s", managed->work_why.text);
  managed_finish(managed);
  if (gone) managed_free(managed);
}

static void destroy_again(void *owner, struct call *call) { manager_mirror_destroy(owner, call); }
void manager_mirror_destroy(struct manager *manager, struct call *call) {
  static const char *const known[] = {"name", NULL};
  struct managed *managed = call_mirror(manager, call, known, destroy_again);
  if (!managed) return;
  if (managed->mirror || managed->attention) {
    call_refuse(call, "mirror %s is %s, only an INACTIVE one can be destroyed: 'tarn mirror deactivate %s' first",
                managed->file.name,
                managed->mirror ? mirror_state_name(mirror_state_now(managed->mirror)) : "in ATTENTION",
                managed->file.name);
    return;
  }
  managed_begin(managed, call, "is being destroyed");
  managed->work_warnings = json_array();
  reactor_run_blocking(manager->options.reactor, &managed->work, destroy_work, destroy_worked);
}

/* ---- set, get ---- */

static json_t *setting_json(unsigned index, int64_t value) {
  return mirror_settings[index].unit == SETTING_ON_OFF ? json_string(value ? "on" : "off") : json_integer(value);
}

static json_t *settings_json(const struct managed *managed) {
  json_t *json = json_object();
  for (unsigned i = 0; i < MIRROR_SETTING_COUNT; i++)
    json_object_set_new(json, mirror_settings[i].name, setting_json(i, managed->file.settings.values[i]));
  return json_pack("{s:s, s:o}", "name", managed->file.name, "settings", json);
}

static void set_stored(struct reactor_work *work) {
  struct managed *managed = CONTAINER_OF(work, struct managed, work);
  struct call *call = managed->call;
  managed->call = NULL;
  if (managed->work_err == TARN_OK) {
    managed->file.settings = managed->new_file->settings;
    report(managed->manager->env, REPORT_INFO, managed->file.name, "settings were changed");
    call_done(call, settings_json(managed));
  } else call_refuse(call, "%s", managed->work_why.text);
  free(managed->new_file);
  managed->new_file = NULL;
  managed_finish(managed);
}

/* Parses the call's settings into `settings`; false when the call was answered. */
static bool set_parse(struct managed *managed, struct call *call, struct settings *settings) {
  const char *texts[2 * MIRROR_SETTING_COUNT];
  size_t count;
  struct why why;
  tarn_err err = request_texts(&call->request, "set", texts, COUNT_OF(texts), &count, &why);
  if (err == TARN_OK && count == 0) err = because(&why, TARN_INVALID, "nothing to set: give KEY=VALUE");
  for (size_t i = 0; i < count && err == TARN_OK; i++) {
    unsigned index;
    err = setting_assign(settings, texts[i], &index, &why);
    if (err != TARN_OK) break;
    bool differs = settings->values[index] != managed->file.settings.values[index];
    if (differs && mirror_settings[index].at_create) {
      call_refuse(call, "'%s' is fixed when a mirror is created", mirror_settings[index].name);
      return false;
    }
    if (differs && mirror_settings[index].at_activation && managed->mirror)
      call_warn(call, "the new '%s' holds from the next activation of mirror %s", mirror_settings[index].name,
                managed->file.name);
  }
  if (err != TARN_OK) call_misused(call, "%s", why.text);
  return err == TARN_OK;
}

static void set_again(void *owner, struct call *call) { manager_mirror_set(owner, call); }
void manager_mirror_set(struct manager *manager, struct call *call) {
  static const char *const known[] = {"name", "set", NULL};
  struct managed *managed = call_mirror(manager, call, known, set_again);
  if (!managed) return;
  struct settings settings = managed->file.settings;
  if (!set_parse(managed, call, &settings)) return;
  struct mirror_file *file = malloc(sizeof *file);
  if (!file) {
    call_refuse(call, "there is not enough memory");
    return;
  }
  *file = managed->file;
  file->settings = settings;
  managed_begin(managed, call, "is being changed");
  managed->new_file = file;
  reactor_run_blocking(manager->options.reactor, &managed->work, managed_store_work, set_stored);
}

static void get_again(void *owner, struct call *call) { manager_mirror_get(owner, call); }
void manager_mirror_get(struct manager *manager, struct call *call) {
  static const char *const known[] = {"name", "key", NULL};
  struct managed *managed = call_mirror(manager, call, known, get_again);
  const char *key;
  struct why why;
  unsigned index;
  if (!managed) return;
  if (request_text(&call->request, "key", &key, &why) != TARN_OK || (key && setting_find(key, &index, &why) != TARN_OK))
    call_misused(call, "%s", why.text);
  else if (!key) call_done(call, settings_json(managed));
  else
    call_done(call, json_pack("{s:s, s:{s:o}}", "name", managed->file.name, "settings", key,
                              setting_json(index, managed->file.settings.values[index])));
}
