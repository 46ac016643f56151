/* Operations on an image. While the mirror runs they go straight to the core. While it is closed (INACTIVE, or waiting in
 * ATTENTION) it is opened quietly, for the operation only; or, when that leads to a long copy, until the image is copied. So
 * an administrator gets out of ATTENTION: what stopped the mirror is removed, restored, or another image promoted. */
#include <stdlib.h>
#include <string.h>

#include "shell/manager_internal.h"

/* ---- the frame ---- */

static void task_closed(struct managed *managed) { managed->task->end(managed); }

static void task_down(struct managed *managed, tarn_err err, const char *why) {
  struct image_task *task = managed->task;
  if (err != TARN_OK) {
    struct why text;
    because(&text, err, "it is closed again, but not cleanly: %s", why);
    managed_warn(managed, json_pack("[s]", text.text));
  }
  if (task->err == TARN_OK && !managed->wanted) managed->attention = false;
  task_closed(managed);
}

void image_task_acted(struct managed *managed, tarn_err err, const char *why) {
  struct image_task *task = managed->task;
  bool stays = err == TARN_OK && task->stays;
  task->err = err;
  because(&task->why, err, "%s", why && why[0] ? why : err == TARN_OK ? "" : tarn_err_text(err));
  if (stays && managed->service == SERVICE_QUIET) managed->quiet_for |= 1u << task->slot;
  if (task->opened && !stays && managed->mirror) managed_down(managed, managed->wanted, false, task_down);
  else task_closed(managed);
}

static void task_up(struct managed *managed, tarn_err err, const char *why) {
  struct image_task *task = managed->task;
  if (err != TARN_OK) {
    task->err = err;
    because(&task->why, err, "it cannot be opened for this: %s", why);
    task->end(managed);
    return;
  }
  task->opened = true;
  if (why[0]) managed_warn(managed, json_pack("[s]", why));
  task->act(managed);
}

/* It ran quietly for something else; what this needs can be decided at an activation only. */
static void task_again(struct managed *managed, tarn_err err, const char *why) {
  struct image_task *task = managed->task;
  struct why text;
  (void)err, (void)why;
  if (managed_is_stuck(managed, &text)) {
    task->err = because(&task->why, TARN_REFUSED, "%s", text.text);
    task->end(managed);
  } else managed_up(managed, &task->how, true, task_up);
}

void image_task_run(struct managed *managed) {
  struct image_task *task = managed->task;
  require(managed->busy && task);
  if (!managed_runs(managed)) managed_up(managed, &task->how, true, task_up);
  else if (managed->service == SERVICE_QUIET && task->how.promote)
    managed_down(managed, managed->wanted, false, task_again);
  else task->act(managed);
}

static void quiet_ended(struct managed *managed, tarn_err err, const char *why) {
  if (err == TARN_OK) report(managed->manager->env, REPORT_INFO, managed->file.name, "is closed again after the copy");
  else
    report(managed->manager->env, REPORT_ERROR, managed->file.name, "is closed again after the copy, not cleanly: %s",
           why);
  if (!managed->wanted) managed->attention = false;
  managed_finish(managed);
}

void image_look(struct managed *managed) {
  struct mirror_status status;
  uint32_t copying = 0;
  if (managed->fallen) return;
  mirror_status(managed->mirror, &status);
  for (uint32_t slot = 0; slot < status.image_count; slot++) {
    const struct mirror_image_status *image = &status.images[slot];
    if (image->present && (image->state == IMAGE_SYNCHRONIZING || image->returning)) copying |= 1u << slot;
  }
  managed->quiet_for &= copying;
  if (managed->quiet_for) return;
  managed_begin(managed, NULL, "is being closed");
  managed_down(managed, managed->wanted, false, quiet_ended);
}

/* ---- the operations ---- */

static const struct {
  const char *command;
  enum mirror_image_op op;
  const char *busy;
  bool forceable, stays;
} operations[] = {
    {"image remove", IMAGE_OP_REMOVE, "is having an image removed", true, false},
    {"image sync", IMAGE_OP_SYNC, "is having an image synchronized", false, true},
    {"image fracture", IMAGE_OP_FRACTURE, "is having an image fractured", false, false},
    {"image restore", IMAGE_OP_RESTORE, "is having an image restored", false, true},
    {"image promote", IMAGE_OP_PROMOTE, "is having an image promoted", true, false},
    {"image demote", IMAGE_OP_DEMOTE, "is having its master demoted", true, false},
};

/* What the core does not report. */
static void operation_report(const struct managed *managed) {
  const struct image_task *task = managed->task;
  const char *image = managed->file.images[task->slot].name;
  if (task->op == IMAGE_OP_PROMOTE)
    report(managed->manager->env, REPORT_INFO, managed->file.name, "image %s is the master", image);
  if (task->op == IMAGE_OP_DEMOTE)
    report(managed->manager->env, REPORT_INFO, managed->file.name, "image %s is not the master any more: there is none",
           image);
}

static void operation_finish(struct managed *managed) {
  struct image_task *task = managed->task;
  bool done = task->err == TARN_OK;
  if (done) operation_report(managed);
  if (done) managed_answer(managed);
  else managed_fail(managed, task->why.text);
  managed->task = NULL;
  free(task);
  managed_finish(managed);
  if (done) managed_retry(managed, 1); /* what kept it in ATTENTION may be over */
}

static void operation_released(struct managed *managed) {
  if (managed->leaving & 1u << managed->task->slot && managed->call)
    call_warn(managed->call, "the files of image %s are released once its disk has answered what it was asked",
              managed->file.images[managed->task->slot].name);
  operation_finish(managed);
}

static void operation_end(struct managed *managed) {
  const struct image_task *task = managed->task;
  if (task->err == TARN_OK && task->why.text[0]) managed_warn(managed, json_pack("[s]", task->why.text));
  if (task->err == TARN_OK && task->op == IMAGE_OP_REMOVE) image_release(managed, operation_released);
  else operation_finish(managed);
}

static void operation_done(struct mirror *mirror, tarn_err err, const char *why, void *context) {
  struct managed *managed = context;
  require(managed->mirror == mirror);
  image_task_acted(managed, err, why);
}

static void operation_act(struct managed *managed) {
  const struct image_task *task = managed->task;
  if (task->op == IMAGE_OP_PROMOTE && task->opened) image_task_acted(managed, TARN_OK, ""); /* the activation did it */
  else mirror_image_do(managed->mirror, task->slot, task->op, task->force, operation_done, managed);
}

static void operation_begin(struct managed *managed, struct call *call, size_t row, uint32_t slot, bool force) {
  struct image_task *task = calloc(1, sizeof *task);
  if (!task) {
    call_refuse(call, "there is not enough memory");
    return;
  }
  enum mirror_image_op op = operations[row].op;
  /* `force` of a removal is no reason to go on without newer data. */
  *task = (struct image_task){
      .slot = slot,
      .op = op,
      .force = force,
      .stays = operations[row].stays,
      .how = {.quiet = true, .force = force && op != IMAGE_OP_REMOVE, .promote = op == IMAGE_OP_PROMOTE, .image = slot},
      .act = operation_act,
      .end = operation_end};
  managed_begin(managed, call, operations[row].busy);
  managed->task = task;
  if (op == IMAGE_OP_REMOVE) managed_grace(managed);
  image_task_run(managed);
}

/* What the record of a closed mirror says that it is already; else the core decides, when it is open. */
static bool is_done_already(const struct managed *managed, enum mirror_image_op op, uint32_t slot) {
  return op == IMAGE_OP_PROMOTE && !managed_runs(managed) && managed->has_record && managed->record.master == slot &&
         !managed->record.demoted;
}

static uint32_t images_count(const struct managed *managed) {
  uint32_t count = 0;
  for (uint32_t slot = 0; slot < managed->file.slot_count; slot++) count += managed->file.images[slot].present;
  return count;
}

static void operation_again(void *owner, struct call *call) { manager_image_operation(owner, call); }
void manager_image_operation(struct manager *manager, struct call *call) {
  static const char *const known[] = {"mirror", "image", NULL}, *const forceable[] = {"mirror", "image", "force", NULL};
  size_t row = 0;
  while (strcmp(operations[row].command, call->request.command) != 0) row++;
  struct managed *managed =
      call_mirror(manager, call, "mirror", operations[row].forceable ? forceable : known, operation_again);
  bool force;
  uint32_t slot;
  struct why why;
  if (!managed || !call_image(managed, call, "image", &slot)) return;
  const char *name = managed->file.name;
  bool active = managed->service == SERVICE_CLIENTS && !managed->fallen;
  if (request_flag(&call->request, "force", &force, &why) != TARN_OK) call_misused(call, "%s", why.text);
  else if (operations[row].op == IMAGE_OP_DEMOTE && active)
    call_refuse(call, "mirror %s is ACTIVE, its master can be demoted only while it is INACTIVE: deactivate it first",
                name);
  else if (managed_is_stuck(managed, &why)) call_refuse(call, "mirror %s: %s", name, why.text);
  else if (operations[row].op == IMAGE_OP_REMOVE && images_count(managed) == 1)
    call_refuse(call, "mirror %s: image %s is its only one; 'tarn mirror destroy %s' forgets the mirror", name,
                managed->file.images[slot].name, name);
  else if (!force && is_done_already(managed, operations[row].op, slot))
    call_refuse(call, "mirror %s: image %s is the master already", name, managed->file.images[slot].name);
  else operation_begin(managed, call, row, slot, force);
}
