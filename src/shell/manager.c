/* The life of a mirror here:
 *
 *     closed -- managed_activate() --> opening --> open (ACTIVE) -- deactivate_begin() --> leaving --> closed (INACTIVE)
 *                                         `--> closed (ATTENTION), tried again every ATTENTION_RETRY_S if it is `wanted`
 *
 * Crash anywhere: config.json tells what there is, the records tell who is current and whether it was ACTIVE. */
#include "shell/manager.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shell/manager_internal.h"
#include "shell/words.h"

/* ---- the set of mirrors ---- */

static void retry_fire(struct timer *timer);

struct managed *managed_new(struct manager *manager, const char *name) {
  struct managed *managed = calloc(1, sizeof *managed);
  if (!managed) return NULL;
  list_init(&managed->link);
  timer_init(&managed->retry, retry_fire);
  managed->manager = manager;
  snprintf(managed->file.name, sizeof managed->file.name, "%s", name);
  snprintf(managed->folder, sizeof managed->folder, "%s/mirrors/%s", manager->options.state, name);
  return managed;
}

void managed_free(struct managed *managed) {
  require(managed->mirror == NULL && !managed->busy);
  timer_cancel(&managed->retry);
  list_remove(&managed->link);
  json_decref(managed->file.unmake);
  free(managed);
}

struct managed *managed_find(struct manager *manager, const char *name) {
  LIST_EACH(&manager->mirrors, node) {
    struct managed *managed = LIST_ENTRY(node, struct managed, link);
    if (strcmp(managed->file.name, name) == 0) return managed;
  }
  return NULL;
}

void managed_insert(struct managed *managed) {
  struct list *at = managed->manager->mirrors.next;
  while (at != &managed->manager->mirrors &&
         strcmp(LIST_ENTRY(at, struct managed, link)->file.name, managed->file.name) < 0)
    at = at->next;
  list_insert_before(at, &managed->link);
}

/* The better of the two slots. */
void managed_record_load(struct managed *managed) {
  char path[FOLDER_PATH_MAX + 16];
  uint8_t area[RECORD_AREA_BYTES];
  managed->has_record = false;
  snprintf(path, sizeof path, "%s/record", managed->folder);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  if (pread(fd, area, sizeof area, 0) == (ssize_t)sizeof area) {
    for (size_t slot = 0; slot < 2; slot++) {
      struct record record;
      if (record_decode(&record, area + slot * RECORD_SLOT_BYTES) != TARN_OK) continue;
      if (managed->has_record && record.sequence <= managed->record.sequence) continue;
      managed->record = record;
      managed->has_record = true;
    }
  }
  close(fd);
}

/* ---- operations: begin, wait, finish ---- */

void manager_wait(struct manager *manager, struct call *call, void (*again)(void *owner, struct call *call)) {
  list_init(&call->link);
  call->again = again;
  list_push(&manager->waiting, &call->link);
}

static void stop_next(struct manager *manager);
static void resume_run(struct event *event) {
  struct manager *manager = CONTAINER_OF(event, struct manager, resume);
  struct list turn;
  list_init(&turn);
  list_splice(&turn, &manager->waiting);
  struct list *node;
  while ((node = list_pop(&turn)) != NULL) {
    struct call *call = LIST_ENTRY(node, struct call, link);
    call->again(manager, call);
  }
  if (manager->started && manager->starting_count == 0) {
    void (*started)(void *) = manager->started;
    manager->started = NULL;
    started(manager->started_owner);
  }
  if (manager->stopping) stop_next(manager);
}

void manager_resume(struct manager *manager) {
  if (!event_is_posted(&manager->resume)) event_post(&manager->env->queue, &manager->resume);
}

void managed_begin(struct managed *managed, struct call *call, const char *busy) {
  require(!managed->busy);
  require(!managed->call);
  timer_cancel(&managed->retry);
  managed->busy = busy;
  managed->call = call;
}

void managed_finish(struct managed *managed) {
  require(managed->busy != NULL);
  struct manager *manager = managed->manager;
  managed->busy = NULL;
  managed->call = NULL;
  if (managed->starting) managed->starting = false, manager->starting_count--;
  if (managed->attention && managed->wanted && managed->file.settings.values[SET_AUTO] && !manager->stopping)
    timer_set(manager->env, &managed->retry, manager->env->now_ns + ATTENTION_RETRY_S * NS_PER_S);
  manager_resume(manager);
}

void managed_refuse(struct managed *managed, const char *text) {
  struct call *call = managed->call;
  managed->call = NULL;
  if (call) call_refuse(call, "mirror %s %s", managed->file.name, text);
  else report(managed->manager->env, REPORT_ERROR, managed->file.name, "%s", text);
}

/* ---- activate ---- */

void managed_config(const struct managed *managed, struct mirror_config *config) {
  const struct mirror_file *file = &managed->file;
  *config = (struct mirror_config){
      .region_bytes = (uint32_t)file->settings.values[SET_REGION],
      .extent_bytes = (uint32_t)file->settings.values[SET_EXTENT],
      .mark_count = (uint32_t)file->settings.values[SET_MARKS],
      .max_missing = (int32_t)file->settings.values[SET_MAX_MISSING],
      .min_images = (int32_t)file->settings.values[SET_MIN_IMAGES],
      .volume_count = file->volume_count,
      .image_count = file->slot_count,
      .home = managed->disks.home,
  };
  snprintf(config->name, sizeof config->name, "%s", file->name);
  snprintf(config->node, sizeof config->node, "%s", managed->manager->options.node);
  for (uint32_t i = 0; i < file->volume_count; i++) {
    snprintf(config->volumes[i].name, sizeof config->volumes[i].name, "%s", file->volumes[i].name);
    config->volumes[i].size_bytes = file->volumes[i].size_bytes;
  }
  for (uint32_t slot = 0; slot < file->slot_count; slot++) {
    struct mirror_image_config *image = &config->images[slot];
    snprintf(image->name, sizeof image->name, "%s", file->images[slot].name);
    snprintf(image->node, sizeof image->node, "%s", managed->manager->options.node);
    memcpy(image->data, managed->disks.images[slot].data, sizeof image->data);
    image->meta = managed->disks.images[slot].meta;
    image->policy = image_policy_default;
    image->error = managed->disks.images[slot].why.text[0] ? managed->disks.images[slot].why.text : NULL;
    mirror_disks_found(&managed->disks, slot, &image->found);
  }
}

static void mirror_changed(struct mirror *mirror) {
  struct managed *managed = mirror_owner(mirror);
  if (mirror_state_now(mirror) != MIRROR_ATTENTION || managed->busy) return;
  if (!managed->file.settings.values[SET_AUTO] || timer_is_armed(&managed->retry)) return;
  timer_set(managed->manager->env, &managed->retry, managed->manager->env->now_ns + ATTENTION_RETRY_S * NS_PER_S);
}

void managed_stamp(struct mirror *mirror, uint32_t image, struct image_stamp *stamp) {
  const struct managed *managed = mirror_owner(mirror);
  mirror_disks_stamp(&managed->disks, image, stamp);
}

bool managed_open_mirror(struct managed *managed, struct why *why) {
  require(managed->mirror == NULL);
  struct mirror_config config;
  managed_config(managed, &config);
  const char *wrong = mirror_config_check(&config);
  if (wrong) return because(why, TARN_INVALID, "%s", wrong) == TARN_OK;
  struct mirror_options options = {.env = managed->manager->env,
                                   .arena = &managed->arena,
                                   .config = &config,
                                   .owner = managed,
                                   .changed = mirror_changed,
                                   .stamp = managed_stamp};
  managed->mirror = mirror_open(&options);
  if (managed->mirror) arena_freeze(&managed->arena);
  return managed->mirror || because(why, TARN_FULL, "there is not enough memory for this mirror's maps") == TARN_OK;
}

void managed_close(struct managed *managed) {
  require(managed->export_count == 0);
  require(managed->watch == NULL);
  if (managed->mirror) {
    require(mirror_is_idle(managed->mirror));
    mirror_close(managed->mirror);
  }
  managed->mirror = NULL;
  mirror_disks_close(&managed->disks);
  arena_destroy(&managed->arena);
  managed_record_load(managed);
}

/* Failed: closes again, keeps what was seen for `tarn status`. `why` may be the mirror's, and go with it. */
static void activate_failed(struct managed *managed, const char *why) {
  struct why text;
  bool repeated = managed->attention && strcmp(managed->attention_why, why) == 0;
  because(&text, TARN_REFUSED, "cannot be activated: %s", why);
  snprintf(managed->attention_why, sizeof managed->attention_why, "%s", why);
  managed->attention = true;
  managed->last.image_count = 0;
  if (managed->mirror) mirror_status(managed->mirror, &managed->last);
  managed_close(managed);
  if (managed->call || !repeated) managed_refuse(managed, text.text);
  managed_finish(managed);
}

static void exports_add(struct managed *managed) {
  require(managed->export_count == 0);
  const struct mirror_file *file = &managed->file;
  for (uint32_t i = 0; i < file->volume_count; i++) {
    struct managed_export *export = &managed->exports[i];
    bool only = file->volume_count == 1;
    *export = (struct managed_export){.managed = managed};
    stpcpy(stpcpy(stpcpy(export->alias, file->name), "/"), file->volumes[i].name);
    strcpy(export->name, only ? file->name : export->alias);
    export->server.nbd = (struct nbd_export){.name = export->name, .disk = mirror_volume(managed->mirror, i)};
    export->server.alias = only ? export->alias : NULL;
    tarn_err err = nbd_server_add(managed->manager->options.nbd, &export->server);
    require(err == TARN_OK); /* mirror names are unique and hold no slash */
  }
  managed->export_count = file->volume_count;
}

static void activate_stored(struct reactor_work *work) {
  struct managed *managed = CONTAINER_OF(work, struct managed, work);
  if (managed->work_err != TARN_OK)
    report(managed->manager->env, REPORT_WARNING, managed->file.name, "%s", managed->work_why.text);
  managed_finish(managed);
}

void managed_store_work(struct reactor_work *work) {
  struct managed *managed = CONTAINER_OF(work, struct managed, work);
  managed->work_err =
      mirror_file_store(managed->folder, managed->new_file ? managed->new_file : &managed->file, &managed->work_why);
}

static void file_gone(void *owner, uint32_t slot, const char *why) {
  struct managed *managed = owner;
  mirror_image_failed(managed->mirror, slot, why);
}

static void activated(struct mirror *mirror, tarn_err err, const char *why, void *context) {
  struct managed *managed = context;
  require(managed->mirror == mirror);
  if (err != TARN_OK) {
    activate_failed(managed, why && why[0] ? why : tarn_err_text(err));
    return;
  }
  managed->attention = false;
  managed->wanted = true;
  exports_add(managed);
  managed->watch = disk_watch_start(&managed->disks, file_gone, managed);
  report(managed->manager->env, REPORT_INFO, managed->file.name, "is ACTIVE, exported as %s", managed->exports[0].name);
  struct call *call = managed->call;
  if (why && why[0]) report(managed->manager->env, REPORT_WARNING, managed->file.name, "%s", why);
  managed->call = NULL;
  if (call) {
    if (why && why[0]) call_warn(call, "%s", why);
    call_done(call, managed_status_json(managed));
  }
  if (!managed->file.stay_inactive) {
    managed_finish(managed);
    return;
  }
  managed->file.stay_inactive = false;
  reactor_run_blocking(managed->manager->options.reactor, &managed->work, managed_store_work, activate_stored);
}

static void activate_opened(struct mirror_disks *disks) {
  struct managed *managed = CONTAINER_OF(disks, struct managed, disks);
  struct why why;
  /* When stopping: what is not here now may just be locked, and must not be recorded as missing. */
  if (managed->manager->stopping) activate_failed(managed, "the daemon is stopping");
  else if (!disks->home) activate_failed(managed, disks->home_why.text);
  else if (!managed_open_mirror(managed, &why)) activate_failed(managed, why.text);
  else mirror_activate(managed->mirror, &(struct mirror_activation){.force = managed->force}, activated, managed);
}

void managed_activate(struct managed *managed, bool wait_for_locks) {
  require(managed->busy && !managed->mirror);
  struct mirror_config config;
  managed->disks = (struct mirror_disks){.file = &managed->file};
  managed_config(managed, &config);
  managed->disks.reactor = managed->manager->options.reactor;
  managed->disks.meta_bytes = mirror_meta_bytes(&config);
  managed->disks.wait_for_locks = wait_for_locks;
  managed->disks.opened = activate_opened;
  snprintf(managed->disks.record_path, sizeof managed->disks.record_path, "%s/record", managed->folder);
  arena_init(&managed->arena);
  mirror_disks_open(&managed->disks);
}

/* ---- deactivate ---- */

static void deactivated(struct mirror *mirror, tarn_err err, const char *why, void *context) {
  struct managed *managed = context;
  require(managed->mirror == mirror);
  struct why text; /* `why` goes with the mirror */
  because(&text, err, "%s", why && why[0] ? why : tarn_err_text(err));
  managed->export_count = 0;
  managed->wanted = managed->stay;
  managed->attention = false;
  managed_close(managed);
  if (managed->then_activate) {
    managed->then_activate = false;
    managed_activate(managed, false);
    return;
  }
  struct call *call = managed->call;
  managed->call = NULL;
  if (err == TARN_OK)
    report(managed->manager->env, REPORT_INFO, managed->file.name,
           managed->stay ? "is closed cleanly, to be ACTIVE again at the next start" : "is INACTIVE");
  else
    report(managed->manager->env, REPORT_ERROR, managed->file.name,
           "is closed, but could not be deactivated cleanly: %s", text.text);
  if (call && err == TARN_OK) call_done(call, managed_status_json(managed));
  if (call && err != TARN_OK)
    call_refuse(call, "mirror %s is closed, but could not be deactivated cleanly: %s", managed->file.name, text.text);
  managed_finish(managed);
}

static void export_removed(struct nbd_server_export *export) {
  struct managed *managed = CONTAINER_OF(export, struct managed_export, server)->managed;
  require(managed->exports_leaving > 0);
  if (--managed->exports_leaving == 0) mirror_deactivate(managed->mirror, managed->stay, deactivated, managed);
}

void managed_deactivate(struct managed *managed, bool stay) {
  require(managed->busy && managed->mirror);
  require(managed->export_count > 0);
  managed->stay = stay;
  disk_watch_stop(managed->watch);
  managed->watch = NULL;
  managed->exports_leaving = managed->export_count;
  for (uint32_t i = 0; i < managed->export_count; i++)
    nbd_server_remove(managed->manager->options.nbd, &managed->exports[i].server, export_removed);
}

/* A mirror that fell out of ACTIVE, or could not come back: another try, quietly. */
static void retry_fire(struct timer *timer) {
  struct managed *managed = CONTAINER_OF(timer, struct managed, retry);
  if (managed->busy || managed->manager->stopping) return;
  managed->force = false;
  if (managed->mirror && mirror_state_now(managed->mirror) != MIRROR_ATTENTION) return;
  managed_begin(managed, NULL, "is being activated");
  managed->then_activate = managed->mirror != NULL;
  if (managed->mirror) managed_deactivate(managed, true);
  else managed_activate(managed, false);
}

/* ---- start and stop ---- */

struct manager *manager_create(const struct manager_options *options) {
  struct manager *manager = calloc(1, sizeof *manager);
  if (!manager) return NULL;
  manager->options = *options;
  manager->env = reactor_env(options->reactor);
  list_init(&manager->mirrors);
  list_init(&manager->waiting);
  event_init(&manager->resume, resume_run);
  return manager;
}

void manager_destroy(struct manager *manager) {
  event_cancel(&manager->resume);
  require(list_is_empty(&manager->waiting));
  LIST_EACH(&manager->mirrors, node) managed_free(LIST_ENTRY(node, struct managed, link));
  free(manager);
}

static void unmake_at_start(struct managed *managed) {
  json_t *warnings = json_array();
  report(managed->manager->env, REPORT_WARNING, managed->file.name,
         "was being made or destroyed when the daemon ended: removing what is left of it");
  unmake(managed->folder, &managed->file, warnings);
  for (size_t i = 0; i < json_array_size(warnings); i++)
    report(managed->manager->env, REPORT_WARNING, managed->file.name, "%s",
           json_string_value(json_array_get(warnings, i)));
  json_decref(warnings);
}

static tarn_err load_one(struct manager *manager, const char *name, struct why *why) {
  struct managed *managed = managed_new(manager, name);
  if (!managed) return because(why, TARN_FULL, "there is not enough memory");
  struct why damage;
  tarn_err err = mirror_file_load(managed->folder, &managed->file, &damage);
  bool keep = false;
  if (err == TARN_NOT_FOUND) {
    /* A folder from before its config.json was stored: nothing else was made yet. */
    rmdir(managed->folder);
  } else if (err != TARN_OK) {
    report(manager->env, REPORT_ERROR, name, "is left alone: %s", damage.text);
  } else if (strcmp(managed->file.name, name) != 0) {
    report(manager->env, REPORT_ERROR, name, "is left alone: its config.json is that of mirror %s", managed->file.name);
  } else if (managed->file.unmake) {
    unmake_at_start(managed);
  } else {
    keep = true;
    managed_record_load(managed);
    managed->wanted = managed->has_record && managed->record.active && !managed->file.stay_inactive;
    managed_insert(managed);
  }
  if (!keep) managed_free(managed);
  return TARN_OK;
}

tarn_err manager_load(struct manager *manager, struct why *why) {
  char path[FOLDER_PATH_MAX];
  const char *const folders[] = {"mirrors", "meta"};
  for (size_t i = 0; i < COUNT_OF(folders); i++) {
    snprintf(path, sizeof path, "%s/%s", manager->options.state, folders[i]);
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
      return because(why, TARN_IO, "%s cannot be made: %s", path, strerror(errno));
  }
  snprintf(path, sizeof path, "%s/mirrors", manager->options.state);
  DIR *dir = opendir(path);
  if (!dir) return because(why, TARN_IO, "%s cannot be read: %s", path, strerror(errno));
  tarn_err err = TARN_OK;
  for (struct dirent *entry; err == TARN_OK && (entry = readdir(dir)) != NULL;)
    if (record_name_is_valid(entry->d_name, strlen(entry->d_name))) err = load_one(manager, entry->d_name, why);
  closedir(dir);
  return err;
}

void manager_start(struct manager *manager, void *owner, void (*started)(void *owner)) {
  manager->started_owner = owner;
  manager->started = started;
  LIST_EACH(&manager->mirrors, node) {
    struct managed *managed = LIST_ENTRY(node, struct managed, link);
    if (!managed->wanted || managed->busy) continue;
    if (!managed->file.settings.values[SET_AUTO]) {
      report(manager->env, REPORT_INFO, managed->file.name, "was ACTIVE, and stays INACTIVE because of auto=off");
      managed->wanted = false;
      continue;
    }
    manager->starting_count++;
    managed_begin(managed, NULL, "is being activated");
    managed->starting = true;
    managed->force = false;
    managed_activate(managed, true);
  }
  manager_resume(manager);
}

/* Begins to close all that are open and idle; once all are closed, says so. */
static void stop_next(struct manager *manager) {
  bool closed = !manager->creating;
  LIST_EACH(&manager->mirrors, node) {
    struct managed *managed = LIST_ENTRY(node, struct managed, link);
    timer_cancel(&managed->retry);
    if (managed->mirror && !managed->busy) {
      managed_begin(managed, NULL, "is being deactivated");
      managed_deactivate(managed, true);
    } else if (managed->busy) {
      mirror_disks_hurry(&managed->disks);
    }
    closed = closed && !managed->busy;
  }
  if (!closed || !manager->stopped) return;
  void (*stopped)(void *) = manager->stopped;
  manager->stopped = NULL;
  stopped(manager->stopped_owner);
}

void manager_stop(struct manager *manager, void *owner, void (*stopped)(void *owner)) {
  if (manager->stopping) return;
  manager->stopping = true;
  manager->started = NULL;
  manager->stopped_owner = owner;
  manager->stopped = stopped;
  manager_resume(manager);
}
