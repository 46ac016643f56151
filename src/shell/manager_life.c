/* The life of a mirror here:
 *
 *     closed -- managed_up() --> opening --> runs: for clients (ACTIVE), or quietly for an operation (shown as INACTIVE)
 *                                   |          |            `-- managed_down() --> clients leave, deactivated --> ending
 *                                   |          `-- it falls --> fallen: exports stay, their gates shut --> ending
 *                                   `-- refused --> ending
 *     ending -- idle, and no disk holds a request of it --> closed
 *            `- idle, and a disk keeps requests of it ----> closed, but for that disk: put aside (manager_aside.c)
 *
 * It is put aside when a disk has kept it for ASIDE_AFTER_NS, or when a command asks for what it is in the way of. A fallen mirror,
 * too; but not while the disk of each image that was current hangs, because nothing can be activated without any of them.
 *
 * A mirror that fell is closed by itself and tried again, from a new start that recovers as after a crash. But when the files
 * of its last good image are not at their paths any more, the open descriptors are the only way to the data: then it is kept
 * open until they are back, or the administrator gives it up (managed_is_kept). */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "shell/image_identity.h"
#include "shell/manager_internal.h"
#include "shell/undumped.h"

#define SETTLE_NS      (50 * NS_PER_MS)
#define ASIDE_AFTER_NS NS_PER_S
#define STEADY_NS      (60 * NS_PER_S) /* a mirror that fell after less than this is not tried again at once */

/* ---- what the core is given ---- */

void managed_policy(const struct mirror_file_image *image, struct image_policy *policy) {
  const int64_t *values = image->settings.values;
  *policy = (struct image_policy){.hang_ns = (uint64_t)values[SET_HANG] * NS_PER_S,
                                  .return_by_itself = values[SET_RETURN] != 0,
                                  .return_after_ns = (uint64_t)values[SET_RETURN_AFTER] * NS_PER_S,
                                  .rate = (uint64_t)values[SET_RATE]};
}

void managed_image_config(const struct managed *managed, uint32_t slot, struct mirror_image_config *config) {
  const struct image_disks *disks = &managed->disks.images[slot];
  *config = (struct mirror_image_config){.meta = disks->meta, .error = disks->why.text[0] ? disks->why.text : NULL};
  snprintf(config->name, sizeof config->name, "%s", managed->file.images[slot].name);
  snprintf(config->node, sizeof config->node, "%s", managed->manager->options.node);
  memcpy(config->data, disks->data, sizeof config->data);
  managed_policy(&managed->file.images[slot], &config->policy);
  uint64_t recorded = managed->has_record ? managed->record.images[slot].stamp.identity : 0;
  image_disks_found(disks, &managed->file, slot, recorded, &config->found);
}

void managed_config(const struct managed *managed, struct mirror_config *config) {
  const struct mirror_file *file = &managed->file;
  const int64_t *values = file->settings.values;
  *config = (struct mirror_config){.region_bytes = (uint32_t)values[SET_REGION],
                                   .extent_bytes = (uint32_t)values[SET_EXTENT],
                                   .mark_count = (uint32_t)values[SET_MARKS],
                                   .max_missing = (int32_t)values[SET_MAX_MISSING],
                                   .min_images = (int32_t)values[SET_MIN_IMAGES],
                                   .read_master = values[SET_READ] != 0,
                                   .volume_count = file->volume_count,
                                   .image_count = file->slot_count,
                                   .home = managed->disks.home};
  snprintf(config->name, sizeof config->name, "%s", file->name);
  snprintf(config->node, sizeof config->node, "%s", managed->manager->options.node);
  for (uint32_t i = 0; i < file->volume_count; i++) {
    snprintf(config->volumes[i].name, sizeof config->volumes[i].name, "%s", file->volumes[i].name);
    config->volumes[i].size_bytes = file->volumes[i].size_bytes;
  }
  for (uint32_t slot = 0; slot < file->slot_count; slot++) {
    if (file->images[slot].present) managed_image_config(managed, slot, &config->images[slot]);
    else config->images[slot].policy = image_policy_default;
  }
}

static void stamped(struct stamping *stamping) {
  const struct managed *managed = stamping->owner;
  mirror_stamped(managed->mirror, stamping->image, stamping->round, &stamping->stamp);
}

void managed_stamp(struct mirror *mirror, uint32_t image, uint32_t round) {
  struct managed *managed = mirror_owner(mirror);
  struct stamping as = {.owner = managed, .image = image, .round = round, .done = stamped};
  if (!stamping_start(managed->manager->options.reactor, &managed->disks.images[image], &managed->file, &as,
                      &managed->stampings))
    mirror_stamped(mirror, image, round, &(struct image_stamp){0});
}

/* ---- which devices they are ---- */

void devices_note(struct managed *managed, uint32_t slot) {
  const char *note = managed->disks.images[slot].note.text;
  if (strcmp(note, managed->noted[slot].text) == 0) return;
  managed->noted[slot] = managed->disks.images[slot].note;
  if (note[0])
    report(managed->manager->env, REPORT_WARNING, managed->file.name, "image %s: %s", managed->file.images[slot].name,
           note);
}

/* What takes part again is what the image lies on from now on. */
static void devices_look(struct managed *managed) {
  struct mirror_status status;
  mirror_status(managed->mirror, &status);
  for (uint32_t slot = 0; slot < status.image_count; slot++) {
    const struct mirror_image_status *image = &status.images[slot];
    bool in = image->present && image->missing == MISSING_NONE &&
              (image->state == IMAGE_SYNCHRONIZED || image->state == IMAGE_SYNCHRONIZING);
    if (in && image_devices_adopt(&managed->file.images[slot].devices, managed->disks.images[slot].devices))
      managed->store_wanted = true;
  }
}

static bool is_kept(const struct mirror_disks *disks, uint32_t slot, struct why *why) {
  const struct managed *managed = CONTAINER_OF(disks, const struct managed, disks);
  return aside_image_explain(managed, slot, why) || emptying_image_explain(managed, slot, why);
}

void managed_disks_prepare(struct managed *managed, void (*opened)(struct mirror_disks *disks)) {
  struct mirror_config config;
  managed->disks = (struct mirror_disks){.file = &managed->file, .reactor = managed->manager->options.reactor};
  managed_config(managed, &config);
  managed->disks.meta = (struct meta_sizes){mirror_meta_bytes(&config), mirror_meta_bytes_best(&config)};
  managed->disks.opened = opened;
  managed->disks.strays = &managed->manager->strays;
  managed->disks.is_kept = is_kept;
  snprintf(managed->disks.record_path, sizeof managed->disks.record_path, "%s/record", managed->folder);
  undumped_arena_init(&managed->arena);
}

/* ---- it falls ---- */

static void settle_later(struct managed *managed) {
  timer_set(managed->manager->env, &managed->settle, managed->manager->env->now_ns + SETTLE_NS);
}

void managed_attention(struct managed *managed, const char *why) {
  if (!managed->attention) managed->attention_since_ns = managed->manager->env->wall_ns;
  managed->attention = true;
  because(&managed->attention_why, TARN_REFUSED, "%s", why);
}

/* Inside the core's own work: only what must not wait. The rest is managed_look()'s. */
static void fall(struct managed *managed) {
  managed->fallen = true;
  mirror_status(managed->mirror, &managed->last);
  managed->last_good = 0;
  for (uint32_t slot = 0; slot < managed->last.image_count; slot++)
    if (managed->last.images[slot].present && managed->last.images[slot].state == IMAGE_SYNCHRONIZED)
      managed->last_good |= 1u << slot;
  if (managed->service != SERVICE_CLIENTS) return;
  exports_shut(managed);
  managed_attention(managed, managed->last.reason);
}

static void mirror_changed(struct mirror *mirror) {
  struct managed *managed = mirror_owner(mirror);
  if (managed->service != SERVICE_NONE && !managed->fallen && mirror_has_fallen(mirror)) fall(managed);
  managed_poke(managed);
}

bool managed_is_kept(const struct managed *managed) {
  uint32_t lost = managed->gone | managed->spoiled;
  return managed->fallen && !managed->ending && managed->last_good != 0 && (managed->last_good & ~lost) == 0;
}

/* ---- closing ---- */

static bool can_close(const struct managed *managed) {
  return mirror_is_idle(managed->mirror) && mirror_is_quiet(managed->mirror) && exports_are_idle(managed);
}

/* Not read anew from the state directory, whose file system may hang. */
void managed_take_record(struct managed *managed) {
  const struct record *record = managed->mirror ? mirror_recorded(managed->mirror) : NULL;
  if (!record) return;
  managed->record = *record;
  managed->has_record = true;
}

static void close_now(struct managed *managed) {
  require(list_is_empty(&managed->reopens));
  require(!managed->verifying);
  disk_watch_stop(managed->watch);
  managed->watch = NULL;
  stampings_forget(&managed->stampings);
  managed_take_record(managed);
  if (managed->mirror) {
    if (mirror_may_have_lost(managed->mirror)) exports_lose(managed);
    mirror_close(managed->mirror);
  }
  managed->mirror = NULL;
  mirror_disks_close(&managed->disks);
  arena_destroy(&managed->arena);
  timer_cancel(&managed->settle);
  managed->service = SERVICE_NONE;
  managed->fallen = managed->ending = false;
  managed->aside_at_ns = 0;
  managed->gone = managed->spoiled = 0;
}

/* It is over, and only disks that hang are in the way. */
static bool can_put_aside(const struct managed *managed) {
  return !managed->close_wholly && !managed->verifying && list_is_empty(&managed->reopens) &&
         mirror_can_be_put_aside(managed->mirror) && exports_are_idle(managed);
}

/* All that answers is closed. */
static bool put_aside(struct managed *managed) {
  if (!can_put_aside(managed)) return false;
  managed_take_record(managed);
  if (!aside_put(managed)) return false;
  close_now(managed);
  return true;
}

/* The same, when the disks have had a while to answer: most that hang for a moment are best waited for. */
static bool put_aside_in_time(struct managed *managed) {
  uint64_t now_ns = managed->manager->env->now_ns;
  if (!can_put_aside(managed)) managed->aside_at_ns = 0;
  else if (managed->aside_at_ns == 0) managed->aside_at_ns = now_ns + ASIDE_AFTER_NS;
  else if (now_ns >= managed->aside_at_ns) return put_aside(managed);
  return false;
}

void held_name(char *names, size_t bytes, const char *image, uint32_t requests) {
  size_t used = strlen(names);
  snprintf(names + used, bytes - used, "%simage %s (%u request%s)", used ? ", " : "", image, requests,
           requests == 1 ? "" : "s");
}

void held_tell(const char *names, struct why *why) {
  because(why, TARN_REFUSED, "a disk has not answered yet, and its files stay open until it does: %s", names);
}

static void held_explain(const struct managed *managed, struct why *why) {
  struct mirror_status status;
  char names[sizeof why->text - 120] = "";
  mirror_status(managed->mirror, &status);
  for (uint32_t slot = 0; slot < status.image_count; slot++)
    if (status.images[slot].io_held > 0)
      held_name(names, sizeof names, managed->file.images[slot].name, status.images[slot].io_held);
  if (names[0]) held_tell(names, why);
  else because(why, TARN_REFUSED, "not all requests have ended yet: try again in a moment");
}

bool managed_explain(const struct managed *managed, struct why *why) {
  if (!managed->mirror || !(managed->fallen || managed->ending)) return false;
  if (managed_is_kept(managed)) kept_explain(managed, why);
  else held_explain(managed, why);
  return true;
}

bool managed_is_stuck(struct managed *managed, struct why *why) {
  bool over = managed->mirror && (managed->fallen || managed->ending) && !managed_is_kept(managed);
  if (over && can_close(managed) && list_is_empty(&managed->reopens) && !managed->verifying) close_now(managed);
  else if (over) (void)put_aside(managed);
  return managed_explain(managed, why);
}

/* Its end has begun: is it idle, may it be closed? */
static void settle(struct managed *managed) {
  struct env *env = managed->manager->env;
  if (!managed->mirror || can_close(managed)) {
    bool late = managed->mirror && !managed->closed;
    close_now(managed);
    if (late) report(env, REPORT_INFO, managed->file.name, "its disks have answered; its files are closed");
    managed_retry(managed, 1);
  } else if (!managed->closed && put_aside_in_time(managed)) managed_retry(managed, 1);
  else settle_later(managed);
  void (*closed)(struct managed *) = managed->closed;
  if (managed->manager->stopping) manager_resume(managed->manager); /* which may wait for no more than this */
  if (!closed || (managed->mirror && (managed->close_wholly || !mirror_is_idle(managed->mirror)))) return;
  managed->closed = NULL;
  if (managed->mirror) {
    struct why why;
    held_explain(managed, &why);
    report(env, REPORT_WARNING, managed->file.name, "%s", why.text);
  }
  closed(managed);
}

void managed_close(struct managed *managed, void (*closed)(struct managed *)) {
  require(!managed->ending && !managed->closed);
  managed->ending = true;
  managed->service = SERVICE_NONE;
  managed->closed = closed;
  settle(managed);
}

/* It fell: closes it as soon as that is possible, to try it again. */
static void fallen_look(struct managed *managed) {
  uint64_t ran_ns = managed->manager->env->now_ns - managed->up_ns;
  reopens_give_up(managed, "the mirror is in ATTENTION");
  if (managed->verifying) mirror_verify_stop(managed->mirror);
  bool waits = managed->busy || managed->verifying || managed_is_kept(managed);
  if (!waits && can_close(managed)) close_now(managed);
  else if (waits || !put_aside_in_time(managed)) {
    settle_later(managed);
    return;
  }
  managed_retry(managed, ran_ns < STEADY_NS ? ATTENTION_RETRY_S * NS_PER_S : 1);
}

void managed_look(struct managed *managed) {
  if (managed->mirror) reopens_look(managed);
  if (managed_runs(managed) && !managed->busy) devices_look(managed); /* busy: a worker may be writing it down */
  if (managed->ending) settle(managed);
  else if (managed->fallen) fallen_look(managed);
  if (managed->leaving & ~managed->undecided) settle_later(managed);
  leaving_look(managed);
  if (!managed->busy && managed->service == SERVICE_QUIET && !managed->manager->stopping) image_look(managed);
}

/* ---- up ---- */

static void up_closed(struct managed *managed) {
  managed_done *done = managed->up_done;
  struct why why = managed->end_why;
  managed->up_done = NULL;
  done(managed, managed->end_err, why.text);
}

/* `why` may be the mirror's, and go with it. */
static void up_failed(struct managed *managed, tarn_err err, const char *why) {
  require(err != TARN_OK);
  managed->end_err = err;
  because(&managed->end_why, err, "%s", why && why[0] ? why : tarn_err_text(err));
  managed->last.image_count = 0;
  if (managed->mirror) mirror_status(managed->mirror, &managed->last);
  managed_close(managed, up_closed);
}

static void up_open(struct managed *managed) {
  managed_done *done = managed->up_done;
  struct why why = managed->end_why;
  managed->up_done = NULL;
  done(managed, TARN_OK, why.text);
}

static void up_activated(struct mirror *mirror, tarn_err err, const char *why, void *context) {
  struct managed *managed = context;
  struct mirror_status status;
  require(managed->mirror == mirror);
  if (err == TARN_OK && mirror_has_fallen(mirror)) {
    mirror_status(mirror, &status);
    err = TARN_REFUSED;
    why = status.reason;
  }
  if (err != TARN_OK) {
    up_failed(managed, err, why);
    return;
  }
  because(&managed->end_why, TARN_OK, "%s", why ? why : "");
  managed->service = managed->how.quiet ? SERVICE_QUIET : SERVICE_CLIENTS;
  managed->up_ns = managed->manager->env->now_ns;
  managed->life++;
  managed->quiet_for = 0;
  if (managed->how.force) managed->lost = true;
  watch_start(managed);
  reconcile(managed);
  if (managed->how.quiet) up_open(managed);
  else exports_open(managed, up_open);
}

static tarn_err up_mirror(struct managed *managed, struct why *why) {
  require(managed->mirror == NULL);
  struct mirror_config config;
  managed_config(managed, &config);
  const char *wrong = mirror_config_check(&config);
  if (wrong) return because(why, TARN_INVALID, "%s", wrong);
  struct mirror_options options = {.env = managed->manager->env,
                                   .arena = &managed->arena,
                                   .config = &config,
                                   .owner = managed,
                                   .changed = mirror_changed,
                                   .stamp = managed_stamp,
                                   .reopen = managed_reopen};
  managed->mirror = mirror_open(&options);
  if (managed->mirror) arena_freeze(&managed->arena);
  return managed->mirror ? TARN_OK : because(why, TARN_FULL, "there is not enough memory for this mirror's maps");
}

static void up_opened(struct mirror_disks *disks) {
  struct managed *managed = CONTAINER_OF(disks, struct managed, disks);
  struct why why;
  tarn_err err = TARN_OK;
  for (uint32_t slot = 0; slot < managed->file.slot_count; slot++) {
    faults_wrap(managed, slot, &disks->images[slot]);
    devices_note(managed, slot);
  }
  /* When stopping: what is not here now may just be locked, and must not be recorded as missing. */
  if (managed->manager->stopping) err = because(&why, TARN_REFUSED, "the daemon is stopping");
  else if (!disks->home) err = because(&why, TARN_REFUSED, "%s", disks->home_why.text);
  if (err == TARN_OK && !managed->how.quiet) err = exports_prepare(managed, &why);
  if (err == TARN_OK) err = up_mirror(managed, &why);
  if (err == TARN_OK) mirror_activate(managed->mirror, &managed->how, up_activated, managed);
  else up_failed(managed, err, why.text);
}

void managed_up(struct managed *managed, const struct mirror_activation *how, bool wait_for_locks, managed_done *done) {
  require(managed->busy && !managed->mirror);
  require(!managed->up_done);
  managed->how = *how;
  managed->up_done = done;
  managed_disks_prepare(managed, up_opened);
  managed->disks.wait_for_locks = wait_for_locks || managed->manager->strays > 0;
  mirror_disks_open(&managed->disks);
}

/* ---- down ---- */

static void down_closed(struct managed *managed) {
  managed_done *done = managed->down_done;
  struct why why = managed->end_why;
  managed->down_done = NULL;
  done(managed, managed->end_err, why.text);
}

static void down_deactivated(struct mirror *mirror, tarn_err err, const char *why, void *context) {
  struct managed *managed = context;
  require(managed->mirror == mirror);
  managed->end_err = err;
  because(&managed->end_why, err, "%s", why && why[0] ? why : tarn_err_text(err));
  managed_close(managed, down_closed);
}

static void down_verified(struct managed *managed) {
  reopens_give_up(managed, "the mirror is being deactivated");
  managed->service = SERVICE_NONE;
  mirror_deactivate(managed->mirror, managed->stay, down_deactivated, managed);
}

static void down_left(struct managed *managed) { verify_end(managed, down_verified); }

void managed_down(struct managed *managed, bool stay, bool hang_up, managed_done *done) {
  require(managed->busy && managed->mirror && !managed->ending);
  require(!managed->down_done);
  managed->stay = stay;
  managed->down_done = done;
  if (hang_up) exports_remove(managed, down_left);
  else down_left(managed);
}

/* ---- activation, by command and by itself ---- */

static void activate_failed(struct managed *managed, const char *why) {
  struct why text;
  bool repeated = managed->attention && strcmp(managed->attention_why.text, why) == 0;
  because(&text, TARN_REFUSED, "cannot be activated: %s", why);
  managed_attention(managed, why);
  if (managed->call || !repeated) managed_refuse(managed, text.text);
  managed_finish(managed);
}

static void activate_stored(struct reactor_work *work) {
  struct managed *managed = CONTAINER_OF(work, struct managed, work);
  if (managed->work_err != TARN_OK)
    report(managed->manager->env, REPORT_WARNING, managed->file.name, "%s", managed->work_why.text);
  managed_finish(managed);
}

static void activated(struct managed *managed, tarn_err err, const char *why) {
  if (err != TARN_OK) {
    activate_failed(managed, why);
    return;
  }
  struct manager *manager = managed->manager;
  managed->wanted = true;
  managed->attention = managed->fallen; /* already again */
  report(manager->env, REPORT_INFO, managed->file.name, "is ACTIVE, exported as %s", managed->exports[0].name);
  if (why[0]) report(manager->env, REPORT_WARNING, managed->file.name, "%s", why);
  if (why[0] && managed->call) call_warn(managed->call, "%s", why);
  managed_answer(managed);
  if (!managed->file.stay_inactive) {
    managed_finish(managed);
    return;
  }
  managed->file.stay_inactive = false;
  managed_work(managed, managed_store_work, activate_stored);
}

void managed_activate(struct managed *managed, bool wait_for_locks) {
  managed_up(managed, &(struct mirror_activation){.force = managed->force}, wait_for_locks, activated);
}
