/* daemon.c - what a daemon does for a mirror: its gates, its operations, the disks of images that come back, and another try
 * after a fall. Declared in sim_mirror.h. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "sim/node.h"

#define GATE_SLOTS 64u /* fewer than clients may ask for */

static void try_again(struct sim_event *event);
static void image_reopens(struct sim_event *event);

/* ---- the process begins, and is gone ---- */

void sim_mirror_start(struct sim_mirror *mirror) {
  mirror->again.run = try_again;
  buffer_account_init(&mirror->account);
  /* The process before has ended in peace, but after a fall that nobody came back from. */
  for (uint32_t v = 0; v < mirror->volume_count && mirror->lost; v++) model_crash(mirror->models[v], true);
  mirror->lost = false;
  for (uint32_t v = 0; v < mirror->volume_count; v++) {
    if (gate_init(&mirror->gates[v], &mirror->world->env, &mirror->node->arena, GATE_SLOTS) != TARN_OK)
      world_fail(mirror->world, "no memory for a gate");
    mirror->exports[v] = (struct nbd_export){
        .name = mirror->export_names[v], .disk = &mirror->gates[v].disk, .account = &mirror->account};
  }
}

void sim_mirror_forget(struct sim_mirror *mirror) {
  world_cancel(mirror->world, &mirror->again);
  for (uint32_t i = 0; i < mirror->image_count; i++) world_cancel(mirror->world, &mirror->images[i].reopening);
  mirror->serving = mirror->fallen = mirror->keep = mirror->quiet = false;
  mirror->lost = mirror->verifying = mirror->probing = false;
}

/* ---- falls ---- */

/* The first thing when it falls: nobody's request reaches it any more. */
static void has_fallen(struct sim_mirror *mirror) {
  mirror->serving = false;
  mirror->fallen = true;
  mirror->world->counters.fallen++;
  if (!mirror->rules.errors_allowed) world_fail(mirror->world, "%s stopped, and nothing excuses it", mirror->name);
  for (uint32_t v = 0; v < mirror->volume_count; v++) model_fell(mirror->models[v]);
  for (uint32_t v = 0; v < mirror->volume_count; v++)
    if (mirror->gates[v].state == GATE_OPEN) gate_shut(&mirror->gates[v], mirror->suspend_ns);
}

void sim_mirror_has_changed(struct mirror *core) {
  struct sim_mirror *mirror = mirror_owner(core);
  mirror->status_stale = true;
  if (mirror_state_now(core) != MIRROR_ATTENTION) return;
  if (mirror->serving) has_fallen(mirror);
  else if (mirror->quiet) mirror->fallen = true;
}

static void try_again(struct sim_event *event) {
  struct sim_mirror *mirror = CONTAINER_OF(event, struct sim_mirror, again);
  sim_mirror_open(mirror);
  sim_mirror_activate(mirror, NULL);
}

static void close_removed(struct sim_mirror *mirror) {
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    struct sim_image *image = &mirror->images[i];
    if (!image->removed || !image->open || !mirror_image_is_quiet(mirror->core, i)) continue;
    sim_image_close(image);
    mirror->config.images[i].meta = NULL;
  }
}

void sim_mirror_keep(struct sim_mirror *mirror) {
  if (!mirror->core) return;
  if (mirror->busy && world_now(mirror->world) - mirror->busy_ns > 900 * NS_PER_S)
    world_fail(mirror->world, "an operation on %s takes for ever", mirror->name);
  close_removed(mirror);
  if (!mirror->fallen || !sim_mirror_can_close(mirror)) return;
  sim_mirror_close(mirror);
  if (!mirror->keep) return;
  uint64_t most_ns = prng_one_in(&mirror->prng, 2) ? 30 * NS_PER_MS : 3 * NS_PER_S;
  world_at(mirror->world, &mirror->again, world_now(mirror->world) + prng_between(&mirror->prng, NS_PER_MS, most_ns));
}

/* ---- images come back ---- */

/* Opening takes a while, and may fail. */
void sim_mirror_reopens(struct mirror *core, uint32_t i, bool make) {
  struct sim_mirror *mirror = mirror_owner(core);
  struct sim_image *image = &mirror->images[i];
  (void)make; /* what is missing here is empty, and can be opened */
  mirror->world->counters.image_reopened++;
  world_trace(mirror->world, "image %s is opened anew", image->label);
  sim_image_close(image);
  image->reopening.run = image_reopens;
  uint64_t delay_ns = prng_between(&mirror->prng, 1000, prng_one_in(&mirror->prng, 4) ? 2 * NS_PER_S : 5 * NS_PER_MS);
  world_at(mirror->world, &image->reopening, world_now(mirror->world) + delay_ns);
}

static void image_reopens(struct sim_event *event) {
  struct sim_image *image = CONTAINER_OF(event, struct sim_image, reopening);
  struct sim_mirror *mirror = image->mirror;
  bool was_absent = image->absent;
  if (!mirror->healed && prng_one_in(&mirror->prng, 8)) image->absent = true; /* this time */
  sim_image_open(image);
  image->absent = was_absent;
  mirror_image_reopened(mirror->core, sim_image_slot(image), &mirror->config.images[sim_image_slot(image)]);
}

/* ---- operations ---- */

static void operation_done(struct mirror *core, tarn_err err, const char *why, void *context) {
  struct sim_mirror *mirror = context;
  require(mirror->core == core);
  require(mirror->busy);
  mirror->busy = false;
  mirror->err = err;
  snprintf(mirror->why, sizeof mirror->why, "%s", why ? why : "");
  world_trace(mirror->world, "%s: %s%s%s", mirror->name, tarn_err_text(err), mirror->why[0] ? ": " : "", mirror->why);
}

static void operation_begin(struct sim_mirror *mirror, const char *what) {
  require(!mirror->busy);
  mirror->busy = true;
  mirror->busy_ns = world_now(mirror->world);
  world_trace(mirror->world, "%s: %s", mirror->name, what);
}

bool sim_mirror_wait(struct sim_mirror *mirror, uint64_t steps) {
  for (; mirror->busy; steps--) {
    if (steps == 0) return false;
    node_step(mirror->node);
  }
  return true;
}

void sim_mirror_format(struct sim_mirror *mirror) {
  operation_begin(mirror, "format");
  mirror_format(mirror->core, false, operation_done, mirror);
}

/* ---- which images there are ---- */

static void leave_alone(struct sim_image *image, bool forbidden) {
  image->removed = forbidden;
  image->configured = !forbidden;
  image->meta.forbidden = forbidden;
  for (uint32_t v = 0; v < image->mirror->volume_count; v++) image->data[v].forbidden = forbidden;
}

/* What the mirror's file says is what the mirror says: a crash, or an error, leaves it open whether an image was added or
 * removed. */
static void take_members(struct sim_mirror *mirror) {
  const struct mirror_status *status = sim_mirror_status(mirror);
  for (uint32_t i = 0; i < mirror->image_count; i++)
    if (status->images[i].present != mirror->images[i].configured)
      leave_alone(&mirror->images[i], !status->images[i].present);
}

/* ---- activate, deactivate ---- */

/* Requests that waited go on. From here on a client may see what the fall has changed. */
static void serve(struct sim_mirror *mirror) {
  bool again = mirror->gates[0].opened;
  mirror->serving = mirror->served = true;
  if (again) mirror->world->counters.served_again++;
  for (uint32_t v = 0; v < mirror->volume_count; v++) {
    if (again) model_fall(mirror->models[v], mirror->lost);
    if (!gate_fits(&mirror->gates[v], mirror_volume(mirror->core, v))) { /* its clients know another one */
      gate_fail(&mirror->gates[v]);
      mirror->rules.stopping = true;
      mirror->world->counters.gate_misfit++;
      continue;
    }
    gate_open(&mirror->gates[v], mirror_volume(mirror->core, v));
  }
  mirror->lost = false;
}

static void activated(struct mirror *core, tarn_err err, const char *why, void *context) {
  struct sim_mirror *mirror = context;
  if (err == TARN_OK) mirror->world->counters.activated++;
  else mirror->world->counters.refused++;
  if (err == TARN_OK && mirror->how.quiet) mirror->world->counters.op_quiet++;
  operation_done(core, err, why, context);
  if (!mirror->strange && strstr(mirror->why, SIM_STRANGE_TEXT))
    world_fail(mirror->world, "its disks are what they were, and it says: %s", mirror->why);
  mirror->world->counters.unconfirmed += err != TARN_OK && strstr(mirror->why, "nothing confirms");
  mirror->world->counters.lost_in_activation += err != TARN_OK && mirror_has_fallen(core);
  mirror->world->counters.none_newest += err != TARN_OK && strstr(mirror->why, "has the newest data");
  mirror->fallen = err != TARN_OK;
  if (err != TARN_OK && !mirror->rules.errors_allowed && !mirror->how.promote)
    world_fail(mirror->world, "activation was refused, and nothing excuses it: %s", mirror->why);
  if (err != TARN_OK) return;
  mirror->edited = false;
  sim_mirror_check_healed(mirror);
  take_members(mirror);
  mirror->quiet = mirror->how.quiet;
  mirror->status_stale = true;
  if (mirror->quiet) return;
  mirror->maybe_demoted = false;
  serve(mirror);
}

void sim_mirror_activate(struct sim_mirror *mirror, const struct mirror_activation *how) {
  mirror->how = how ? *how : (struct mirror_activation){0};
  if (mirror->maybe_demoted && !mirror->how.quiet && !mirror->how.promote) {
    mirror->how.promote = true;
    mirror->how.image = mirror->promoted_next;
    do mirror->promoted_next = (mirror->promoted_next + 1) % mirror->image_count;
    while (!mirror->images[mirror->promoted_next].configured);
  }
  operation_begin(mirror, mirror->how.quiet     ? "activate quietly"
                          : mirror->how.promote ? "activate, promoting"
                                                : "activate");
  mirror_activate(mirror->core, &mirror->how, activated, mirror);
}

static void deactivated(struct mirror *core, tarn_err err, const char *why, void *context) {
  struct sim_mirror *mirror = context;
  if (err == TARN_OK) mirror->world->counters.deactivated++;
  mirror->quiet = mirror->fallen = false;
  mirror->stopped = err == TARN_OK;
  operation_done(core, err, why, context);
}

void sim_mirror_deactivate(struct sim_mirror *mirror) {
  operation_begin(mirror, "deactivate");
  mirror->serving = mirror->keep = false;
  for (uint32_t v = 0; v < mirror->volume_count; v++) gate_fail(&mirror->gates[v]);
  mirror_deactivate(mirror->core, false, deactivated, mirror);
}

/* ---- images ---- */

static void count_op(struct sim_mirror *mirror, tarn_err err) {
  struct sim_counters *counters = &mirror->world->counters;
  uint64_t *const done[IMAGE_OP_COUNT] = {&counters->op_remove,  &counters->op_sync,    &counters->op_fracture,
                                          &counters->op_restore, &counters->op_promote, &counters->op_demote,
                                          &counters->op_assume};
  if (err == TARN_OK) ++*done[mirror->op];
  else if (err == TARN_REFUSED) counters->op_refused++;
  else counters->op_failed++;
}

static void image_done(struct mirror *core, tarn_err err, const char *why, void *context) {
  struct sim_mirror *mirror = context;
  count_op(mirror, err);
  operation_done(core, err, why, context);
  if (err == TARN_OK && mirror->op == IMAGE_OP_REMOVE) leave_alone(&mirror->images[mirror->op_image], true);
}

void sim_mirror_image_do(struct sim_mirror *mirror, uint32_t image, enum mirror_image_op op, bool force) {
  static const char *const names[IMAGE_OP_COUNT] = {"remove",  "sync",   "fracture", "restore",
                                                    "promote", "demote", "assume"};
  char what[TARN_NAME_MAX + 40];
  snprintf(what, sizeof what, "%s %s%s", names[op], mirror->images[image].name, force ? " by force" : "");
  mirror->op = op;
  mirror->op_image = image;
  mirror->operated = true;
  if (op == IMAGE_OP_DEMOTE) {
    mirror->maybe_demoted = true;
    mirror->promoted_next = image;
  }
  operation_begin(mirror, what);
  mirror_image_do(mirror->core, image, op, force, image_done, mirror);
}

static void image_added(struct mirror *core, tarn_err err, const char *why, void *context) {
  struct sim_mirror *mirror = context;
  struct sim_image *image = &mirror->images[mirror->op_image];
  if (err == TARN_OK) mirror->world->counters.op_add++;
  else if (err == TARN_REFUSED) mirror->world->counters.op_refused++;
  else mirror->world->counters.op_failed++;
  operation_done(core, err, why, context);
  if (err != TARN_OK) leave_alone(image, true); /* its disks are closed as soon as the mirror lets go of them */
}

void sim_mirror_image_add(struct sim_mirror *mirror, uint32_t slot, bool assumed) {
  struct sim_image *image = &mirror->images[slot];
  char what[TARN_NAME_MAX + 40];
  require(slot < mirror->image_count);
  require(!image->configured);
  require(!image->open);
  leave_alone(image, false);
  medium_erase(image->meta.medium);
  image->absent = false;
  sim_image_open(image);
  mirror->config.images[slot].assumed = assumed;
  mirror->op_image = slot;
  mirror->operated = true;
  snprintf(what, sizeof what, "add %s%s", image->name, assumed ? ", assumed to be equal" : "");
  operation_begin(mirror, what);
  mirror_image_add(mirror->core, slot, &mirror->config.images[slot], image_added, mirror);
}

/* ---- verify ---- */

static void verified(struct mirror *core, tarn_err err, const char *why, void *context) {
  struct sim_mirror *mirror = context;
  const struct verify_result *result = mirror_verify_result(core);
  require(mirror->verifying);
  mirror->verifying = false;
  mirror->verify_err = err;
  if (err == TARN_OK) mirror->world->counters.op_verify++;
  else mirror->world->counters.op_refused++;
  world_trace(mirror->world, "%s: verify: %s%s%s", mirror->name, tarn_err_text(err), why && why[0] ? ": " : "",
              why ? why : "");
  if (err != TARN_OK || !mirror->verify_must_agree || !result || result->differing_bytes == 0) return;
  world_fail(mirror->world, "verify found %" PRIu64 " bytes that differ, and nothing has changed them",
             result->differing_bytes);
}

void sim_mirror_verify(struct sim_mirror *mirror, uint32_t source) {
  require(!mirror->verifying);
  mirror->verifying = true;
  world_trace(mirror->world, "%s: verify", mirror->name);
  mirror_verify(mirror->core, source, verified, mirror);
}

/* ---- quiet ---- */

static void probed(struct disk_io *io) {
  struct sim_mirror *mirror = CONTAINER_OF(io, struct sim_mirror, probe);
  mirror->probing = false;
  mirror->world->counters.quiet_probe++;
  if (io->err != TARN_SHUTDOWN)
    world_fail(mirror->world, "%s works quietly, and answered a client's flush with '%s'", mirror->name,
               tarn_err_text(io->err));
}

void sim_mirror_probe(struct sim_mirror *mirror) {
  require(mirror->quiet);
  if (mirror->probing) return;
  disk_io_init(&mirror->probe);
  mirror->probe.op = DISK_FLUSH;
  mirror->probe.done = probed;
  mirror->probing = true;
  disk_submit(mirror_volume(mirror->core, 0), &mirror->probe);
}

/* ---- a good operator ---- */

/* Who cannot be brought back as it is, is copied in full; who cannot even be found is given up, some time. */
void sim_mirror_tend(struct sim_mirror *mirror) {
  if (mirror->busy || !mirror->serving || mirror->tended_ns > world_now(mirror->world)) return;
  mirror->tended_ns = world_now(mirror->world) + NS_PER_S;
  for (uint32_t i = 0; i < mirror->image_count && !mirror->busy; i++) {
    const struct mirror_image_status *status = &mirror->status.images[i];
    if (!status->present || status->missing == MISSING_NONE || status->returning) continue;
    bool again = mirror->op_image == i && mirror->op == IMAGE_OP_RESTORE && mirror->err != TARN_OK;
    sim_mirror_image_do(mirror, i, again ? IMAGE_OP_SYNC : IMAGE_OP_RESTORE, false);
  }
}
