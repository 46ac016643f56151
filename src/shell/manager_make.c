/* What `mirror create` and `mirror import` share: one mirror at a time is made, and a disk that hangs keeps the next one waiting for a
 * while only.
 *
 *     waits in line --> its turn (manager->creating) -- ends --> in the table, or freed
 *                                `- it comes to a standstill, or the daemon stops --> given up, its call answered
 *     given up -- its disks answer --> undone and freed; or, if its config.json was being written, in the table if it is written
 *              `- the daemon ends --> the next start undoes it: config.json has the list of what was made */
#include <string.h>

#include "shell/manager_internal.h"

bool make_waits(struct manager *manager, struct call *call, void (*again)(void *owner, struct call *call)) {
  if (manager->stopping) call_refuse(call, "the daemon is stopping");
  else if (manager->creating) manager_wait(manager, call, NULL, again);
  else return false;
  return true;
}

/* How it ended, and what is to be done. Before files are made it has no name here, which a worker may just be writing. */
static void give_up_why(struct managed *managed, bool stops, struct why *why) {
  const char *stopping = stops ? ", and the daemon is stopping" : "";
  if (managed->making == MAKING_NOTHING)
    because(
        why, TARN_HUNG,
        "nothing was made: a disk of the new mirror, or of one that is there and has to be compared with it, does not "
        "answer%s; try again when it does",
        stopping);
  else if (managed->making == MAKING_MIRROR && !managed->refused)
    because(why, TARN_HUNG,
            "mirror %s: the state directory does not answer%s: 'tarn status' tells %s whether it was made",
            managed->file.name, stopping, stops ? "at its next start" : "later");
  else {
    if (!managed->refused)
      because(&managed->work_why, TARN_HUNG, "mirror %s is not made: what it lies on does not answer",
              managed->file.name);
    because(why, TARN_HUNG, "%s%s; %s", managed->work_why.text, stopping,
            stops
                ? "its next start removes what was made of it"
                : "what was made of it is removed when that answers, and until then its name and its disks are taken");
  }
}

static void give_up_tell(struct managed *managed, bool stops) {
  struct call *call = managed->call;
  struct why why;
  give_up_why(managed, stops, &why);
  managed->call = NULL;
  report(managed->manager->env, REPORT_WARNING, managed->making == MAKING_NOTHING ? "tarnd" : managed->file.name, "%s",
         why.text);
  call_refuse(call, "%s", why.text);
}

static void give_up(struct manager *manager, bool stops) {
  struct managed *managed = manager->creating;
  if (!managed) return;
  work_limit_cancel(&manager->make_limit);
  manager->creating = NULL;
  list_push(&manager->given_up, &managed->link);
  give_up_tell(managed, stops);
  managed->refused = managed->refused || managed->making != MAKING_MIRROR;
  manager_resume(manager);
}

static void too_late(struct work_limit *limit) { give_up(CONTAINER_OF(limit, struct manager, make_limit), false); }
void make_stop(struct manager *manager) { give_up(manager, true); }

void make_begin(struct managed *managed, struct call *call, const struct reactor_work *work) {
  struct manager *manager = managed->manager;
  require(!manager->creating);
  manager->creating = managed;
  managed->call = call;
  work_limit_init(&manager->make_limit, manager->env, work, too_late);
}

/* Its images have no settings of their own yet. */
void make_limit(struct managed *managed, uint32_t places) {
  struct manager *manager = managed->manager;
  int64_t values[IMAGE_SETTING_COUNT];
  settings_defaults(&image_settings, values);
  uint64_t seconds = places * (uint64_t)values[SET_HANG] + LOCK_WAIT_MORE_S;
  if (manager->creating == managed) work_limit_set(&manager->make_limit, seconds * NS_PER_S);
}

void make_unlimited(struct managed *managed) {
  if (managed->manager->creating == managed) work_limit_cancel(&managed->manager->make_limit);
}

void make_failed(struct managed *managed, const struct why *why) {
  if (!managed->refused) managed->work_why = *why;
  managed->refused = true;
  make_limit(managed, 1);
}

tarn_err make_next(struct managed *managed, enum making making, struct why *why) {
  if (managed->refused) return because(why, TARN_REFUSED, "what it lies on did not answer in time");
  managed->making = making;
  return TARN_OK;
}

struct call *make_end(struct managed *managed) {
  struct call *call = managed->call;
  make_unlimited(managed);
  if (managed->manager->creating == managed) managed->manager->creating = NULL;
  list_remove(&managed->link);
  managed->call = NULL;
  manager_resume(managed->manager);
  return call;
}

tarn_err make_name_check(struct manager *manager, const char *name, struct why *why) {
  if (managed_find(manager, name)) return because(why, TARN_EXISTS, "a mirror '%s' exists already", name);
  LIST_EACH(&manager->given_up, node) {
    const struct managed *managed = LIST_ENTRY(node, struct managed, link);
    if (managed->making != MAKING_NOTHING && strcmp(managed->file.name, name) == 0)
      return because(why, TARN_EXISTS,
                     "a mirror '%s' that could not be made is still being removed: what it lies on does not answer",
                     name);
  }
  return TARN_OK;
}
