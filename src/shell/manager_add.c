/* `tarn image add`: check (worker) -> open the mirror quietly, if it does not run -> config.json (worker) -> make files,
 * open them (worker) -> the core adds it -> config.json without the list of what was made (worker). manager_tidy.c has the
 * crash argument.
 *
 * The check is the first look at the new image's disks, which may hang, and it changes nothing. So it is given up when it
 * makes no progress, or when the daemon stops: then it is a stray, which ends when it ends.
 *
 * They may as well hang when the files are made. That is given up in the same way: the image keeps its place among those
 * that leave (manager_tidy.c), as one that was half added at a crash, and what was made is removed when the worker has
 * ended. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shell/create_plan.h"
#include "shell/manager_internal.h"

struct adding {
  struct managed *managed; /* NULL: a stray that checked */
  struct manager *manager;
  struct create_plan plan;
  struct claim claim;
  struct mirror_file file; /* the mirror's, with the image */
  struct meta_sizes meta;
  struct image_disks disks;
  struct reactor_work work;  /* the check, and the making of files */
  struct work_limit limit;   /* set: that is under way, and is waited for */
  bool makes;                /* ... files */
  struct mirror_file listed; /* what config.json has meanwhile */
  bool given_up;             /* that was */
  tarn_err err;
  struct why why;
};

static void adding_free(struct adding *adding) {
  claim_end(&adding->claim);
  plan_release(&adding->plan);
  json_decref(adding->plan.others);
  json_decref(adding->plan.warnings);
  mirror_file_release(&adding->file);
  mirror_file_release(&adding->listed);
  free(adding);
}

static void add_end(struct managed *managed) {
  struct image_task *task = managed->task;
  struct adding *adding = task->adding;
  bool done = task->err == TARN_OK;
  if (done) {
    struct call *call = managed->call;
    json_t *status = managed_status_json(managed);
    managed_warn(managed, json_incref(adding->plan.warnings));
    managed->call = NULL;
    json_object_set_new(status, "added", json_string(managed->file.images[task->slot].name));
    call_done(call, status);
  } else managed_fail(managed, task->why.text);
  if (adding) adding_free(adding);
  managed->task = NULL;
  free(task);
  managed_finish(managed);
  if (done) managed_retry(managed, 1);
}

/* ---- it is added, or not ---- */

static void undone(struct managed *managed) {
  struct adding *adding = managed->task->adding;
  image_task_acted(managed, adding->err, adding->why.text);
}

/* The image is in managed->file, with what was made for it; its files are open perhaps. */
static void add_undo(struct adding *adding) {
  require(adding->err != TARN_OK);
  image_release(adding->managed, undone);
}

static void stored(struct reactor_work *work) {
  struct managed *managed = CONTAINER_OF(work, struct managed, work);
  /* It is added all the same: the next start, or the next change, brings config.json up to date. */
  if (managed->work_err != TARN_OK)
    json_array_append_new(managed->task->adding->plan.warnings, json_string(managed->work_why.text));
  image_task_acted(managed, TARN_OK, "");
}

static void added(struct mirror *mirror, tarn_err err, const char *why, void *context) {
  struct adding *adding = context;
  struct managed *managed = adding->managed;
  struct mirror_file_image *image = &managed->file.images[managed->task->slot];
  require(managed->mirror == mirror);
  adding->err = err;
  if (err == TARN_IO) { /* some store may have it all the same, and then it is the newest record */
    struct why text;
    because(&text, err, "%s; the next activation finds out whether it is added",
            why && why[0] ? why : tarn_err_text(err));
    managed->leaving |= 1u << managed->task->slot;
    managed->undecided |= 1u << managed->task->slot;
    image_task_acted(managed, err, text.text);
    return;
  }
  if (err != TARN_OK) {
    because(&adding->why, err, "%s", why && why[0] ? why : tarn_err_text(err));
    add_undo(adding);
    return;
  }
  json_decref(image->adding);
  image->adding = NULL;
  watch_forget(managed, managed->task->slot);
  watch_image(managed, managed->task->slot);
  managed_work(managed, managed_store_work, stored);
}

/* ---- its files ---- */

static void make_work(struct reactor_work *work) {
  struct adding *adding = CONTAINER_OF(work, struct adding, work);
  uint32_t slot = adding->plan.from;
  adding->err = plan_make(&adding->plan, &adding->why);
  if (adding->err != TARN_OK) return;
  image_disks_open(adding->manager->options.reactor, &adding->file, slot, &adding->meta, &adding->disks);
  if (adding->disks.why.text[0])
    adding->err =
        because(&adding->why, TARN_REFUSED, "image %s: %s", adding->file.images[slot].name, adding->disks.why.text);
  else if (adding->disks.has_data && !adding->plan.overwrite[slot] && !adding->plan.assume)
    adding->err = because(&adding->why, TARN_REFUSED, "image %s was just written to by somebody else",
                          adding->file.images[slot].name);
}

/* The image is in managed->file from now on, with the list of what was made. */
static void add_prepared(struct adding *adding) {
  struct managed *managed = adding->managed;
  uint32_t slot = adding->plan.from;
  struct mirror_image_config config;
  mirror_file_release(&managed->file);
  mirror_file_copy(&managed->file, &adding->file);
  faults_wrap(managed, slot, &adding->disks);
  managed->disks.images[slot] = adding->disks;
  managed->file.images[slot].devices = json_deep_copy(adding->disks.devices);
  for (uint32_t i = 0; i < managed->file.volume_count && adding->err == TARN_OK; i++)
    if (!adding->disks.data[i]) adding->err = because(&adding->why, TARN_FULL, "there is not enough memory");
  if (adding->err != TARN_OK) {
    add_undo(adding);
    return;
  }
  managed_image_config(managed, slot, &config);
  config.assumed = adding->plan.assume;
  mirror_image_add(managed->mirror, slot, &config, added, adding);
}

/* Nobody waits for it any more. managed->file may just be written down by a worker, and has the whole list. */
static void make_left(struct adding *adding) {
  struct managed *managed = adding->managed;
  image_disks_close(&adding->disks);
  managed->emptying &= ~(1u << adding->plan.from);
  report(managed->manager->env, REPORT_INFO, managed->file.name,
         "image %s: its disks have answered, and what was made of it is being removed",
         managed->file.images[adding->plan.from].name);
  managed_poke(managed);
  adding_free(adding);
}

static void made(struct reactor_work *work) {
  struct adding *adding = CONTAINER_OF(work, struct adding, work);
  work_limit_cancel(&adding->limit);
  if (adding->given_up) make_left(adding);
  else add_prepared(adding);
}

static void limit_begin(struct adding *adding, bool makes) {
  uint64_t hang_s = (uint64_t)adding->file.images[adding->plan.from].settings.values[SET_HANG];
  adding->makes = makes;
  work_limit_set(&adding->limit, (hang_s + LOCK_WAIT_MORE_S) * NS_PER_S);
}

static void list_work(struct reactor_work *work) {
  struct adding *adding = CONTAINER_OF(work, struct managed, work)->task->adding;
  adding->err = plan_list(&adding->plan, &adding->why);
}

static void listed(struct reactor_work *work) {
  struct managed *managed = CONTAINER_OF(work, struct managed, work);
  struct adding *adding = managed->task->adding;
  if (adding->err != TARN_OK) {
    add_prepared(adding);
    return;
  }
  mirror_file_copy(&adding->listed, &adding->file);
  limit_begin(adding, true);
  reactor_run_blocking(managed->manager->options.reactor, NULL, &adding->work, make_work, made);
}

static void add_act(struct managed *managed) {
  struct adding *adding = managed->task->adding;
  struct mirror_file_image image = adding->file.images[managed->task->slot];
  mirror_file_release(&adding->file); /* opening the mirror may have settled something */
  mirror_file_copy(&adding->file, &managed->file);
  adding->file.images[managed->task->slot] = image;
  if (adding->file.slot_count < adding->plan.to) adding->file.slot_count = adding->plan.to;
  adding->meta = managed->disks.meta;
  managed_work(managed, list_work, listed);
}

static void check_work(struct reactor_work *work) {
  struct adding *adding = CONTAINER_OF(work, struct adding, work);
  adding->err = plan_check(&adding->plan, &adding->why);
}

static void checked(struct reactor_work *work) {
  struct adding *adding = CONTAINER_OF(work, struct adding, work);
  struct managed *managed = adding->managed;
  work_limit_cancel(&adding->limit);
  if (!managed) {
    adding->manager->strays--;
    manager_resume(adding->manager);
    adding_free(adding);
    return;
  }
  if (adding->err == TARN_OK) {
    image_task_run(managed);
    return;
  }
  managed->task->err = adding->err;
  managed->task->why = adding->why;
  managed->task->end(managed);
}

static void check_leave(struct adding *adding, const char *why) {
  struct image_task *task = adding->managed->task;
  work_limit_cancel(&adding->limit);
  claim_end(&adding->claim); /* a stray looks, and does nothing */
  adding->manager->strays++;
  task->adding = NULL;
  task->err = because(&task->why, TARN_HUNG, "image %s is not added: %s", adding->file.images[task->slot].name, why);
  struct managed *managed = adding->managed;
  adding->managed = NULL;
  task->end(managed);
}

/* What was made is removed when the worker has ended, or by the next start. */
static void make_leave(struct adding *adding, const char *then) {
  struct managed *managed = adding->managed;
  uint32_t slot = adding->plan.from;
  struct why why;
  work_limit_cancel(&adding->limit);
  adding->given_up = true;
  mirror_file_release(&managed->file);
  managed->file = adding->listed;
  adding->listed = (struct mirror_file){.unmake = NULL};
  managed->leaving |= 1u << slot;
  managed->emptying |= 1u << slot;
  managed->task->adding = NULL;
  because(&why, TARN_HUNG, "image %s is not added: what it lies on does not answer%s", managed->file.images[slot].name,
          then);
  image_task_acted(managed, TARN_HUNG, why.text);
}

static void too_late(struct work_limit *limit) {
  struct adding *adding = CONTAINER_OF(limit, struct adding, limit);
  if (adding->makes)
    make_leave(adding,
               "; what was made of it is removed when that answers, and until then its name and its disks are taken");
  else check_leave(adding, "what it lies on does not answer");
}

void adding_give_up(struct managed *managed) {
  struct adding *adding = managed->task ? managed->task->adding : NULL;
  if (!adding || !work_limit_is_set(&adding->limit)) return;
  if (!adding->makes) check_leave(adding, "the daemon is stopping");
  else if (managed->manager->impatient)
    make_leave(adding, ", and the daemon is stopping; its next start removes what was made of it");
}

/* ---- the command ---- */

static void add_begin(struct managed *managed, struct call *call, struct adding *adding) {
  struct image_task *task = calloc(1, sizeof *task);
  if (!task) {
    call_refuse(call, "there is not enough memory");
    adding_free(adding);
    return;
  }
  *task = (struct image_task){
      .slot = adding->plan.from, .how = {.quiet = true}, .act = add_act, .end = add_end, .adding = adding};
  claim_begin(managed->manager, &adding->claim);
  claim_image(&adding->claim, &adding->file, task->slot, managed->manager->options.state, "added");
  managed_begin(managed, call, "is having an image added");
  managed->task = task;
  limit_begin(adding, false);
  reactor_run_blocking(managed->manager->options.reactor, NULL, &adding->work, check_work, checked);
}

static void add_again(void *owner, struct call *call) { manager_image_add(owner, call); }
void manager_image_add(struct manager *manager, struct call *call) {
  static const char *const known[] = {"mirror", "image", "assume", NULL};
  struct managed *managed = call_mirror(manager, call, "mirror", known, add_again);
  struct why why;
  if (!managed) return;
  if (managed_is_stuck(managed, &why)) {
    call_refuse(call, "mirror %s: %s", managed->file.name, why.text);
    return;
  }
  struct adding *adding = calloc(1, sizeof *adding);
  if (!adding) {
    call_refuse(call, "there is not enough memory");
    return;
  }
  adding->managed = managed;
  adding->manager = manager;
  work_limit_init(&adding->limit, manager->env, &adding->work, too_late);
  mirror_file_copy(&adding->file, &managed->file);
  adding->plan.file = &adding->file;
  adding->plan.state = manager->options.state;
  adding->plan.node = manager->options.node;
  adding->plan.warnings = json_array();
  adding->plan.others = manager_files(manager);
  snprintf(adding->plan.folder, sizeof adding->plan.folder, "%s", managed->folder);
  tarn_err err = plan_parse_image(&adding->plan, &call->request, &why);
  if (err == TARN_OK && adding->plan.assume && managed->service == SERVICE_CLIENTS)
    err = because(&why, TARN_REFUSED,
                  "only an INACTIVE mirror takes an image as equal: deactivate it first, or leave out "
                  "--assume-synchronized");
  if (err == TARN_OK) {
    add_begin(managed, call, adding);
    return;
  }
  if (err == TARN_INVALID) call_misused(call, "%s", why.text);
  else call_refuse(call, "mirror %s: %s", managed->file.name, why.text);
  adding_free(adding);
}
