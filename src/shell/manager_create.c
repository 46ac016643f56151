/* `tarn mirror create`: check (worker) -> make files (worker) -> open, format, close -> store config.json (worker).
 *
 * config.json is stored with the list of what will be made before the first file is made, and without it at the end: a
 * crash before that is undone at the next start, after it the mirror exists. A refusal undoes what was made. When a disk hangs it is
 * given up between any two of these (manager_make.c), and what it is in the middle of ends by itself. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shell/create_plan.h"
#include "shell/manager_internal.h"

struct create {
  struct managed *managed;
  struct create_plan plan;
  struct claim claim;
  struct reactor_work work;
  bool activate;
  tarn_err err;
  struct why why;
};

static void create_free(struct create *create) {
  claim_end(&create->claim);
  plan_release(&create->plan);
  json_decref(create->plan.others);
  json_decref(create->plan.warnings);
  free(create);
}

/* Its call was answered before this was known. */
static void given_up_tell(const struct create *create) {
  struct env *env = create->managed->manager->env;
  const char *name = create->managed->file.name;
  for (size_t i = 0; i < json_array_size(create->plan.warnings); i++)
    report(env, REPORT_WARNING, name, "%s", json_string_value(json_array_get(create->plan.warnings, i)));
  report(env, REPORT_INFO, name, "its disks have answered, and what was made of it is removed");
}

/* Ends it: the mirror is in the table, or is gone. */
static void create_end(struct create *create) {
  struct managed *managed = create->managed;
  struct manager *manager = managed->manager;
  struct call *call = make_end(managed); /* NULL: it was given up */
  if (create->err != TARN_OK) {
    if (call && create->err == TARN_INVALID) call_misused(call, "%s", create->why.text);
    else if (call) call_refuse(call, "%s", create->why.text);
    else if (managed->making != MAKING_NOTHING) given_up_tell(create);
    managed_free(managed);
  } else {
    for (size_t i = 0; call && i < json_array_size(create->plan.warnings); i++)
      call_warn(call, "%s", json_string_value(json_array_get(create->plan.warnings, i)));
    managed_insert(managed);
    report(manager->env, REPORT_INFO, managed->file.name, "is created with %u image%s", managed->file.slot_count,
           managed->file.slot_count == 1 ? "" : "s");
    if (create->activate && !manager->stopping) {
      managed_begin(managed, call, "is being activated");
      managed->force = false;
      managed_activate(managed, false);
    } else if (call) {
      call_done(call, managed_status_json(managed));
    }
  }
  create_free(create);
}

/* A worker writes to its images and the state directory, or looks at them. */
static void create_run(struct create *create, void (*run)(struct reactor_work *), void (*done)(struct reactor_work *)) {
  make_limit(create->managed, create->managed->file.slot_count + 1);
  reactor_run_blocking(create->managed->manager->options.reactor, NULL, &create->work, run, done);
}

static void undo_work(struct reactor_work *work) {
  struct create *create = CONTAINER_OF(work, struct create, work);
  struct unmake_owner owner;
  unmake_owner_find(create->plan.folder, create->plan.file, &owner);
  unmake(create->plan.folder, create->plan.file, &owner, create->plan.warnings);
}
static void undone(struct reactor_work *work) {
  struct create *create = CONTAINER_OF(work, struct create, work);
  if (create->err == TARN_INVALID) create->err = TARN_REFUSED;
  create_end(create);
}
static void create_undo(struct create *create) {
  require(create->err != TARN_OK);
  json_array_clear(create->plan.warnings); /* of what it would have been like */
  make_failed(create->managed, &create->why);
  reactor_run_blocking(create->managed->manager->options.reactor, NULL, &create->work, undo_work, undone);
}

static void finish_work(struct reactor_work *work) {
  struct create *create = CONTAINER_OF(work, struct create, work);
  json_t *unmake_list = create->plan.file->unmake;
  create->plan.file->unmake = NULL;
  create->err = mirror_file_store(create->plan.folder, create->plan.file, &create->why);
  if (create->err != TARN_OK) create->plan.file->unmake = unmake_list;
  else json_decref(unmake_list);
}
static void finished(struct reactor_work *work) {
  struct create *create = CONTAINER_OF(work, struct create, work);
  if (create->err != TARN_OK) create_undo(create);
  else create_end(create);
}

static void create_closed(struct managed *managed) {
  struct create *create = managed->creator;
  managed->close_wholly = false;
  if (create->err == TARN_OK) create->err = make_next(managed, MAKING_MIRROR, &create->why);
  if (create->err != TARN_OK) create_undo(create);
  else create_run(create, finish_work, finished);
}

/* What is undone must be closed, so this waits until no disk holds a request. */
static void create_close(struct create *create) {
  if (create->err == TARN_OK) make_limit(create->managed, 1);
  else make_failed(create->managed, &create->why);
  create->managed->close_wholly = true;
  managed_close(create->managed, create_closed);
}

static void formatted(struct mirror *mirror, tarn_err err, const char *why, void *context) {
  struct create *create = context;
  require(create->managed->mirror == mirror);
  create->err = err;
  if (err != TARN_OK)
    because(&create->why, err, "the metadata cannot be written: %s", why && why[0] ? why : tarn_err_text(err));
  create_close(create);
}

/* Under the locks: what the images hold is looked at once more, for that is what counts. */
static tarn_err create_format(struct create *create) {
  struct managed *managed = create->managed;
  struct mirror_file *file = &managed->file;
  bool all_blank = true, overwrite = false;
  if (!managed->disks.home) return because(&create->why, TARN_IO, "%s", managed->disks.home_why.text);
  for (uint32_t slot = 0; slot < file->slot_count; slot++) {
    if (managed->disks.images[slot].why.text[0])
      return because(&create->why, TARN_REFUSED, "image %s: %s", file->images[slot].name,
                     managed->disks.images[slot].why.text);
    if (managed->disks.images[slot].has_data && slot > 0 && !create->plan.overwrite[slot])
      return because(&create->why, TARN_REFUSED, "image %s was just written to by somebody else",
                     file->images[slot].name);
    all_blank = all_blank && !managed->disks.images[slot].has_data;
    overwrite = overwrite || create->plan.overwrite[slot];
    file->images[slot].devices = json_deep_copy(managed->disks.images[slot].devices);
  }
  struct mirror_config config;
  managed_config(managed, &config);
  /* Blank only when all are: else an overwritten image with data would be taken for the master. */
  for (uint32_t slot = 0; slot < file->slot_count; slot++) config.images[slot].blank = all_blank;
  struct mirror_options options = {.env = managed->manager->env,
                                   .arena = &managed->arena,
                                   .config = &config,
                                   .owner = managed,
                                   .stamp = managed_stamp};
  managed->mirror = mirror_open(&options);
  if (!managed->mirror) return because(&create->why, TARN_REFUSED, "there is not enough memory for this mirror's maps");
  mirror_format(managed->mirror, overwrite, formatted, create);
  return TARN_OK;
}

static void create_opened(struct mirror_disks *disks) {
  struct create *create = CONTAINER_OF(disks, struct managed, disks)->creator;
  create->err = make_next(create->managed, MAKING_FILES, &create->why);
  if (create->err == TARN_OK) create->err = create_format(create);
  if (create->err != TARN_OK) create_close(create);
}

static void prepare_work(struct reactor_work *work) {
  struct create *create = CONTAINER_OF(work, struct create, work);
  create->err = plan_list(&create->plan, &create->why);
  if (create->err == TARN_OK) create->err = plan_make(&create->plan, &create->why);
}

static void prepared(struct reactor_work *work) {
  struct create *create = CONTAINER_OF(work, struct create, work);
  struct managed *managed = create->managed;
  if (create->err == TARN_OK) create->err = make_next(managed, MAKING_FILES, &create->why);
  if (create->err != TARN_OK) {
    create_undo(create);
    return;
  }
  make_unlimited(managed);
  managed_disks_prepare(managed, create_opened);
  mirror_disks_open(&managed->disks);
}

static void check_work(struct reactor_work *work) {
  struct create *create = CONTAINER_OF(work, struct create, work);
  struct mirror_config config;
  create->err = plan_check(&create->plan, &create->why);
  if (create->err != TARN_OK) return;
  managed_config(create->managed, &config);
  const char *wrong = mirror_config_check(&config);
  if (wrong) create->err = because(&create->why, TARN_REFUSED, "%s", wrong);
}

static void checked(struct reactor_work *work) {
  struct create *create = CONTAINER_OF(work, struct create, work);
  if (create->err == TARN_INVALID) create->err = TARN_REFUSED; /* of a file, not of the words */
  if (create->err == TARN_OK) create->err = make_next(create->managed, MAKING_FILES, &create->why);
  if (create->err == TARN_OK) create_run(create, prepare_work, prepared);
  else create_end(create);
}

static void create_again(void *owner, struct call *call) { manager_mirror_create(owner, call); }
void manager_mirror_create(struct manager *manager, struct call *call) {
  if (make_waits(manager, call, create_again)) return;
  struct create *create = calloc(1, sizeof *create);
  struct managed *managed = create ? managed_new(manager, "") : NULL;
  if (!managed) {
    free(create);
    call_refuse(call, "there is not enough memory");
    return;
  }
  make_begin(managed, call, &create->work);
  managed->creator = create;
  create->managed = managed;
  create->plan.file = &managed->file;
  create->plan.state = manager->options.state;
  create->plan.node = manager->options.node;
  create->plan.warnings = json_array();
  create->plan.others = manager_files(manager);
  create->err = plan_parse(&create->plan, &call->request, &create->why);
  if (create->err == TARN_OK) create->err = request_flag(&call->request, "activate", &create->activate, &create->why);
  if (create->err == TARN_OK) create->err = make_name_check(manager, managed->file.name, &create->why);
  if (create->err != TARN_OK) {
    create_end(create);
    return;
  }
  claim_begin(manager, &create->claim);
  for (uint32_t slot = 0; slot < managed->file.slot_count; slot++)
    claim_image(&create->claim, &managed->file, slot, manager->options.state, "created");
  snprintf(managed->folder, sizeof managed->folder, "%s/mirrors/%s", manager->options.state, managed->file.name);
  snprintf(create->plan.folder, sizeof create->plan.folder, "%s", managed->folder);
  create_run(create, check_work, checked);
}
