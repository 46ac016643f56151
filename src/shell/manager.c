/* The set of mirrors on this node, the operations on them, start and stop. manager_life.c has one mirror's life.
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
#include "shell/trusted.h"
#include "shell/words.h"

/* ---- the set of mirrors ---- */

/* A mirror that fell out of ACTIVE, or could not come back: another try, by itself. */
static void retry_fire(struct timer *timer) {
  struct managed *managed = CONTAINER_OF(timer, struct managed, retry);
  if (managed->busy || managed->mirror || managed->manager->stopping) return;
  managed_begin(managed, NULL, "is being activated");
  managed->force = false;
  managed_activate(managed, false);
}

/* The start does not wait for it any more. */
static void start_without(struct managed *managed) {
  report(managed->manager->env, REPORT_WARNING, managed->file.name,
         "what is left of it does not answer, and is removed when it does");
  managed->starting = false;
  managed->manager->starting_count--;
  manager_resume(managed->manager);
}

/* It takes long: what was asked for has begun, and goes on by itself. */
static void grace_fire(struct timer *timer) {
  struct managed *managed = CONTAINER_OF(timer, struct managed, grace);
  if (managed->call) managed_answer(managed);
  else if (managed->unmaking && managed->starting) start_without(managed);
}

static void settle_fire(struct timer *timer) { managed_look(CONTAINER_OF(timer, struct managed, settle)); }
static void look_run(struct event *event) { managed_look(CONTAINER_OF(event, struct managed, look)); }

struct managed *managed_new(struct manager *manager, const char *name) {
  struct managed *managed = calloc(1, sizeof *managed);
  if (!managed) return NULL;
  list_init(&managed->link);
  list_init(&managed->reopens);
  buffer_account_init(&managed->account);
  list_init(&managed->stampings);
  timer_init(&managed->retry, retry_fire);
  timer_init(&managed->grace, grace_fire);
  timer_init(&managed->settle, settle_fire);
  event_init(&managed->look, look_run);
  managed->manager = manager;
  snprintf(managed->file.name, sizeof managed->file.name, "%s", name);
  snprintf(managed->folder, sizeof managed->folder, "%s/mirrors/%s", manager->options.state, name);
  return managed;
}

void managed_free(struct managed *managed) {
  require(managed->mirror == NULL && !managed->busy && !aside_has_any(managed) && !managed->emptying);
  require(managed->export_count == 0 && list_is_empty(&managed->reopens));
  timer_cancel(&managed->retry);
  timer_cancel(&managed->grace);
  timer_cancel(&managed->settle);
  event_cancel(&managed->look);
  list_remove(&managed->link);
  exports_free(managed);
  for (uint32_t slot = 0; slot < IMAGES_MAX; slot++) faults_forget(managed, slot);
  mirror_file_release(&managed->file);
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

/* The better of the two slots. At the daemon's start only: it blocks. */
static void record_load(struct managed *managed) {
  char path[FOLDER_PATH_MAX + 16];
  uint8_t area[RECORD_AREA_BYTES];
  managed->has_record = false;
  snprintf(path, sizeof path, "%s/record", managed->folder);
  int fd;
  if (trusted_open(path, O_RDONLY, TRUSTED_OWN, &fd, NULL) != TARN_OK) return;
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

/* What it asked for has not begun. */
static void waiting_gone(struct call *call) {
  list_remove(&call->link);
  call_refuse(call, "nobody waits for this any more");
}

static uint32_t waiting_count(const struct manager *manager, const void *line) {
  uint32_t count = 0;
  LIST_EACH(&manager->waiting, node) count += LIST_ENTRY(node, struct call, link)->line == line;
  return count;
}

void manager_wait(struct manager *manager, struct call *call, const struct managed *managed,
                  void (*again)(void *owner, struct call *call)) {
  if (waiting_count(manager, managed) >= WAITING_MAX) {
    call_refuse(call, "%u commands wait already for %s%s; try again when some of them have ended", WAITING_MAX,
                managed ? "mirror " : "mirrors to be made one after the other", managed ? managed->file.name : "");
    return;
  }
  list_init(&call->link);
  call->line = managed;
  call->again = again;
  call->gone = waiting_gone;
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
    call->gone = NULL;
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

void managed_poke(struct managed *managed) {
  if (!event_is_posted(&managed->look)) event_post(&managed->manager->env->queue, &managed->look);
}

void managed_begin(struct managed *managed, struct call *call, const char *busy) {
  require(!managed->busy);
  require(!managed->call);
  timer_cancel(&managed->retry);
  managed->busy = busy;
  managed->call = call;
}

void managed_grace(struct managed *managed) {
  timer_set(managed->manager->env, &managed->grace, managed->manager->env->now_ns + GRACE_S * NS_PER_S);
}

void managed_retry(struct managed *managed, uint64_t delay_ns) {
  struct manager *manager = managed->manager;
  bool wanted = managed->attention && managed->wanted && managed->file.settings.values[SET_AUTO];
  if (wanted && !managed->mirror && !managed->busy && !manager->stopping)
    timer_set(manager->env, &managed->retry, manager->env->now_ns + delay_ns);
}

void managed_finish(struct managed *managed) {
  require(managed->busy != NULL);
  struct manager *manager = managed->manager;
  managed->busy = NULL;
  managed->call = NULL;
  timer_cancel(&managed->grace);
  if (managed->starting) managed->starting = false, manager->starting_count--;
  managed_retry(managed, ATTENTION_RETRY_S * NS_PER_S);
  managed_poke(managed);
  manager_resume(manager);
}

void managed_answer(struct managed *managed) {
  struct call *call = managed->call;
  managed->call = NULL;
  if (call) call_done(call, managed_status_json(managed));
}

void managed_refuse(struct managed *managed, const char *text) {
  struct call *call = managed->call;
  managed->call = NULL;
  if (call) call_refuse(call, "mirror %s %s", managed->file.name, text);
  else report(managed->manager->env, REPORT_ERROR, managed->file.name, "%s", text);
}

void managed_fail(struct managed *managed, const char *why) {
  struct call *call = managed->call;
  managed->call = NULL;
  if (call) call_refuse(call, "mirror %s: %s", managed->file.name, why);
  else report(managed->manager->env, REPORT_ERROR, managed->file.name, "%s", why);
}

void managed_warn(struct managed *managed, json_t *warnings) {
  for (size_t i = 0; i < json_array_size(warnings); i++) {
    const char *text = json_string_value(json_array_get(warnings, i));
    if (managed->call) call_warn(managed->call, "%s", text);
    else report(managed->manager->env, REPORT_WARNING, managed->file.name, "%s", text);
  }
  json_decref(warnings);
}

static void patience_begin(struct manager *manager) {
  manager->impatient = false;
  timer_set(manager->env, &manager->patience, manager->env->now_ns + STOP_PATIENCE_S * NS_PER_S);
}

static void worked(struct reactor_work *work) {
  struct managed *managed = CONTAINER_OF(work, struct managed, work);
  managed->working = false;
  if (!managed->left) managed->work_done(work);
}

void managed_work(struct managed *managed, void (*run)(struct reactor_work *), void (*done)(struct reactor_work *)) {
  require(!managed->working);
  managed->working = true;
  managed->work_done = done;
  if (managed->manager->stopping) patience_begin(managed->manager);
  reactor_run_blocking(managed->manager->options.reactor, NULL, &managed->work, run, worked);
}

void managed_store_work(struct reactor_work *work) {
  struct managed *managed = CONTAINER_OF(work, struct managed, work);
  managed->work_err =
      mirror_file_store(managed->folder, managed->new_file ? managed->new_file : &managed->file, &managed->work_why);
}

/* ---- what a call names ---- */

static const char *mirror_name_at(const void *context, size_t index) {
  const struct manager *manager = context;
  LIST_EACH(&manager->mirrors, node)
  if (index-- == 0) return LIST_ENTRY(node, struct managed, link)->file.name;
  return NULL;
}

struct managed *call_mirror(struct manager *manager, struct call *call, const char *key, const char *const *known,
                            void (*again)(void *, struct call *)) {
  const char *name;
  struct why why;
  char hint[HINT_TEXT];
  if (manager->stopping) {
    call_refuse(call, "the daemon is stopping");
    return NULL;
  }
  if (request_only(&call->request, known, &why) != TARN_OK ||
      request_text(&call->request, key, &name, &why) != TARN_OK ||
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
    manager_wait(manager, call, managed, again);
    return NULL;
  }
  return managed;
}

static const char *image_name_at(const void *context, size_t index) {
  const struct mirror_file *file = context;
  for (uint32_t slot = 0; slot < file->slot_count; slot++)
    if (file->images[slot].present && index-- == 0) return file->images[slot].name;
  return NULL;
}

bool managed_image(const struct managed *managed, const char *name, uint32_t *slot) {
  for (*slot = 0; *slot < managed->file.slot_count; (*slot)++)
    if (managed->file.images[*slot].present && strcmp(managed->file.images[*slot].name, name) == 0) return true;
  return false;
}

bool call_image(struct managed *managed, struct call *call, const char *key, uint32_t *slot) {
  const char *name;
  struct why why;
  char hint[HINT_TEXT];
  if (request_text(&call->request, key, &name, &why) != TARN_OK ||
      name_check("image", name ? name : "", &why) != TARN_OK) {
    call_misused(call, "%s", why.text);
    return false;
  }
  if (!managed_image(managed, name, slot)) {
    call_refuse(call, "mirror %s has no image '%s'%s; 'tarn status %s' lists them", managed->file.name, name,
                hint_text(nearest_word(name, image_name_at, &managed->file), hint), managed->file.name);
    return false;
  }
  if (!(managed->leaving & 1u << *slot)) return true;
  call_refuse(call, "image %s of mirror %s is removed already; its files are released once its disk has answered", name,
              managed->file.name);
  return false;
}

/* ---- start and stop ---- */

/* A worker hangs, which ends with the process, or before that. What it does may be cut off anywhere, as by a crash; the mirror itself
 * can be closed as ever. */
static void leave_working(struct managed *managed) {
  managed->left = true;
  managed_fail(managed,
               "what it lies on does not answer, and the daemon is stopping: 'tarn status' tells at its next "
               "start whether this was done");
  timer_cancel(&managed->grace);
  managed->busy = NULL;
}

static void lose_patience(struct timer *timer) {
  struct manager *manager = CONTAINER_OF(timer, struct manager, patience);
  manager->impatient = true;
  make_stop(manager);
  manager_resume(manager);
}

struct manager *manager_create(const struct manager_options *options) {
  struct manager *manager = calloc(1, sizeof *manager);
  if (!manager) return NULL;
  manager->options = *options;
  manager->env = reactor_env(options->reactor);
  list_init(&manager->mirrors);
  list_init(&manager->waiting);
  list_init(&manager->asides);
  list_init(&manager->claims);
  list_init(&manager->given_up);
  timer_init(&manager->patience, lose_patience);
  event_init(&manager->resume, resume_run);
  return manager;
}

void manager_destroy(struct manager *manager) {
  timer_cancel(&manager->patience);
  event_cancel(&manager->resume);
  require(list_is_empty(&manager->waiting));
  LIST_EACH(&manager->mirrors, node) managed_free(LIST_ENTRY(node, struct managed, link));
  free(manager);
}

static void unmake_work(struct reactor_work *work) {
  struct managed *managed = CONTAINER_OF(work, struct managed, work);
  struct unmake_owner owner;
  unmake_owner_find(managed->folder, &managed->file, &owner);
  unmake(managed->folder, &managed->file, &owner, managed->work_warnings);
}

static void unmade(struct reactor_work *work) {
  struct managed *managed = CONTAINER_OF(work, struct managed, work);
  managed_warn(managed, managed->work_warnings);
  managed->work_warnings = NULL;
  managed_finish(managed);
  managed_free(managed);
}

/* A disk of it may hang, so this is not waited for. Until it is done the mirror is there, and its files are not free. */
static void unmake_begin(struct managed *managed) {
  struct manager *manager = managed->manager;
  report(manager->env, REPORT_WARNING, managed->file.name,
         "was being made or destroyed when the daemon ended: removing what is left of it");
  managed_begin(managed, NULL, "is being removed");
  managed->unmaking = managed->starting = true;
  manager->starting_count++;
  managed->work_warnings = json_array();
  managed_grace(managed);
  managed_work(managed, unmake_work, unmade);
}

static tarn_err load_one(struct manager *manager, const char *name, struct why *why) {
  struct managed *managed = managed_new(manager, name);
  if (!managed) return because(why, TARN_FULL, "there is not enough memory");
  struct why damage;
  tarn_err err = mirror_file_load(managed->folder, &managed->file, &damage);
  bool keep = false;
  if (err == TARN_NOT_FOUND) {
    /* A folder from before its config.json was stored: nothing else was made yet, but for a part of that. */
    char half[FOLDER_PATH_MAX + 32];
    snprintf(half, sizeof half, "%s/config.json.new", managed->folder);
    unlink(half);
    rmdir(managed->folder);
  } else if (err != TARN_OK) {
    report(manager->env, REPORT_ERROR, name, "is left alone: %s", damage.text);
  } else if (strcmp(managed->file.name, name) != 0) {
    report(manager->env, REPORT_ERROR, name, "is left alone: its config.json is that of mirror %s", managed->file.name);
  } else if (managed->file.unmake) {
    keep = true;
    managed_insert(managed);
  } else {
    keep = true;
    managed->differs = managed->file.differs;
    record_load(managed);
    managed->wanted = managed->has_record && managed->record.active && !managed->file.stay_inactive;
    mirror_file_unsettled(&managed->file, managed->has_record ? &managed->record : NULL);
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
  tarn_err err = folder_sync(path, why); /* also what an earlier start has made, and not synced any more */
  if (err != TARN_OK) return err;
  snprintf(path, sizeof path, "%s/mirrors", manager->options.state);
  DIR *dir = opendir(path);
  if (!dir) return because(why, TARN_IO, "%s cannot be read: %s", path, strerror(errno));
  for (struct dirent *entry; err == TARN_OK && (entry = readdir(dir)) != NULL;)
    if (record_name_is_valid(entry->d_name, strlen(entry->d_name))) err = load_one(manager, entry->d_name, why);
  closedir(dir);
  return err;
}

static void settled(struct managed *managed, tarn_err err, const char *why) {
  if (err != TARN_OK)
    report(managed->manager->env, REPORT_WARNING, managed->file.name,
           "an image was being added or removed when the daemon ended; that is settled once it can be opened: %s", why);
  managed_finish(managed); /* if it is open: managed_look() closes it */
}

static void start_one(struct managed *managed) {
  struct manager *manager = managed->manager;
  if (managed->file.unmake) {
    unmake_begin(managed);
    return;
  }
  bool unsettled = reconcile_wanted(managed);
  if (managed->wanted && !managed->file.settings.values[SET_AUTO]) {
    report(manager->env, REPORT_INFO, managed->file.name, "was ACTIVE, and stays INACTIVE because of auto=off");
    managed->wanted = false;
  }
  if (!managed->wanted && !unsettled) return;
  manager->starting_count++;
  managed_begin(managed, NULL, managed->wanted ? "is being activated" : "is being settled");
  managed->starting = true;
  managed->force = false;
  if (managed->wanted) managed_activate(managed, true);
  else managed_up(managed, &(struct mirror_activation){.quiet = true}, true, settled);
}

void manager_start(struct manager *manager, void *owner, void (*started)(void *owner)) {
  manager->started_owner = owner;
  manager->started = started;
  LIST_EACH(&manager->mirrors, node) start_one(LIST_ENTRY(node, struct managed, link));
  manager_resume(manager);
}

static void stop_down(struct managed *managed, tarn_err err, const char *why) {
  bool stay = managed->wanted;
  if (err != TARN_OK)
    report(managed->manager->env, REPORT_ERROR, managed->file.name, "is closed, but not cleanly: %s", why);
  else if (managed->left) report(managed->manager->env, REPORT_INFO, managed->file.name, "is closed cleanly");
  else if (stay && !managed->attention)
    report(managed->manager->env, REPORT_INFO, managed->file.name,
           "is closed cleanly, to be ACTIVE again at the next start");
  managed_finish(managed);
}

static void stop_left(struct managed *managed) { managed_finish(managed); }

/* Begins to close this one; true: it is closed, or stays open only because a disk holds requests of it, or hangs, and nobody waits
 * for that any more. */
static bool stop_one(struct managed *managed) {
  bool open = managed->mirror && !managed->ending;
  timer_cancel(&managed->retry);
  if (managed->working && !managed->left && managed->manager->impatient) leave_working(managed);
  if (managed->busy) {
    mirror_disks_hurry(&managed->disks);
    reopens_give_up(managed, "the daemon is stopping");
    adding_give_up(managed);
    return false;
  }
  if (!open && managed->export_count == 0) return true;
  managed_begin(managed, NULL, "is being deactivated");
  if (open) managed_down(managed, managed->wanted, true, stop_down);
  else exports_remove(managed, stop_left);
  return false;
}

static void stop_next(struct manager *manager) {
  bool closed = !manager->creating;
  LIST_EACH(&manager->mirrors, node) closed = stop_one(LIST_ENTRY(node, struct managed, link)) && closed;
  if (!closed || !manager->stopped) return;
  void (*stopped)(void *) = manager->stopped;
  manager->stopped = NULL;
  stopped(manager->stopped_owner);
}

bool manager_is_quiet(const struct manager *manager) {
  LIST_EACH(&manager->mirrors, node) {
    const struct managed *managed = LIST_ENTRY(node, struct managed, link);
    if (managed->mirror || managed->left || managed->emptying) return false;
  }
  return manager->strays == 0 && list_is_empty(&manager->given_up) && list_is_empty(&manager->asides);
}

void manager_stop(struct manager *manager, void *owner, void (*stopped)(void *owner)) {
  if (manager->stopping) return;
  manager->stopping = true;
  manager->started = NULL;
  manager->stopped_owner = owner;
  manager->stopped = stopped;
  patience_begin(manager);
  manager_resume(manager);
}
