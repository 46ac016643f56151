/* What clients see of a mirror: an export per volume, whose disk is a gate (core/gate.h). Exports outlive the mirror object:
 * while the mirror is in ATTENTION its clients stay connected, and their requests wait at the gate. */
#include <stdio.h>
#include <string.h>

#include "shell/manager_internal.h"

#define GATE_SLOTS MIRROR_OPS_MAX /* more would only wait in the mirror's line instead of the gate's */

tarn_err exports_prepare(struct managed *managed, struct why *why) {
  tarn_err err = TARN_OK;
  if (managed->gates_made) return TARN_OK;
  arena_init(&managed->gates);
  for (uint32_t i = 0; i < managed->file.volume_count && err == TARN_OK; i++) {
    managed->exports[i] = (struct managed_export){.managed = managed};
    err = gate_init(&managed->exports[i].gate, managed->manager->env, &managed->gates, GATE_SLOTS);
  }
  if (err != TARN_OK) {
    arena_destroy(&managed->gates);
    return because(why, err, "there is not enough memory for its exports");
  }
  arena_freeze(&managed->gates);
  managed->gates_made = true;
  return TARN_OK;
}

void exports_free(struct managed *managed) {
  require(managed->export_count == 0);
  if (!managed->gates_made) return;
  for (uint32_t i = 0; i < managed->file.volume_count; i++) {
    gate_fail(&managed->exports[i].gate); /* nobody is there: this only stops its timer */
    require(managed->exports[i].gate.disk.in_flight == 0);
  }
  arena_destroy(&managed->gates);
  managed->gates_made = false;
  managed->lost = false;
  managed->loss_ns = 0;
}

/* The runs of the context tarn:state: the bits are those of the core. */
_Static_assert(MIRROR_RANGE_MARKED == 1 && MIRROR_RANGE_MISSED == 2 && MIRROR_RANGE_UNREADABLE == 4,
               "docs/concepts.md says so to clients");

static uint32_t export_state(const struct nbd_export *nbd, uint64_t offset, uint64_t length, struct disk_extent *runs,
                             uint32_t max) {
  const struct managed_export *export = CONTAINER_OF(nbd, const struct managed_export, server.nbd);
  const struct managed *managed = export->managed;
  if (!managed->mirror) return 0;
  return mirror_range_runs(managed->mirror, (uint32_t)(export - managed->exports), offset, length, runs, max);
}

static void exports_add(struct managed *managed) {
  const struct mirror_file *file = &managed->file;
  for (uint32_t i = 0; i < file->volume_count; i++) {
    struct managed_export *export = &managed->exports[i];
    bool only = file->volume_count == 1;
    stpcpy(stpcpy(stpcpy(export->alias, file->name), "/"), file->volumes[i].name);
    strcpy(export->name, only ? file->name : export->alias);
    stpcpy(stpcpy(stpcpy(stpcpy(export->description, "mirror "), file->name), ", volume "), file->volumes[i].name);
    export->server.nbd = (struct nbd_export){.name = export->name,
                                             .description = export->description,
                                             .disk = &export->gate.disk,
                                             .account = &managed->account,
                                             .withdraw = gate_withdraw,
                                             .state = export_state};
    export->server.alias = only ? export->alias : NULL;
    tarn_err err = nbd_server_add(managed->manager->options.nbd, &export->server);
    require(err == TARN_OK); /* mirror names are unique and hold no slash */
  }
  managed->export_count = file->volume_count;
}

static void gates_open(struct managed *managed) {
  for (uint32_t i = 0; i < managed->file.volume_count; i++)
    gate_open(&managed->exports[i].gate, mirror_volume(managed->mirror, i));
  managed->lost = false;
}

/* Its clients are gone, and may come again. */
static void exports_anew(struct managed *managed) {
  void (*opened)(struct managed *) = managed->exports_opened;
  struct why why;
  managed->exports_opened = NULL;
  if (!managed_runs(managed)) { /* fallen again: the next activation sees to it */
  } else if (exports_prepare(managed, &why) != TARN_OK) {
    report(managed->manager->env, REPORT_ERROR, managed->file.name, "cannot be exported: %s", why.text);
  } else {
    gates_open(managed);
    exports_add(managed);
  }
  opened(managed);
}

void exports_open(struct managed *managed, void (*opened)(struct managed *)) {
  bool fit = true;
  require(managed->gates_made);
  for (uint32_t i = 0; i < managed->export_count; i++)
    fit = fit && gate_fits(&managed->exports[i].gate, mirror_volume(managed->mirror, i));
  /* A client that was told of capabilities that are gone is hung up on; and after an activation by force, which may have
   * brought back what was flushed away, all are. */
  if (managed->export_count > 0 && (managed->lost || !fit)) {
    report(managed->manager->env, REPORT_WARNING, managed->file.name,
           "its clients are disconnected, and may come again: %s",
           managed->lost ? "it was activated by force, and what they wrote may be lost"
                         : "the disks that are left can do less than those before");
    managed->exports_opened = opened;
    exports_remove(managed, exports_anew);
    return;
  }
  gates_open(managed);
  if (managed->export_count == 0) exports_add(managed);
  opened(managed);
}

void exports_lose(struct managed *managed) {
  if (managed->export_count == 0) return; /* its clients are gone, and know */
  managed->loss_ns = managed->manager->env->wall_ns;
  report(managed->manager->env, REPORT_WARNING, managed->file.name,
         "writes that were answered and not flushed may be lost, so the next flush of each client fails");
  for (uint32_t i = 0; i < managed->export_count; i++) gate_lose(&managed->exports[i].gate);
}

void exports_shut(struct managed *managed) {
  uint64_t patience_ns = (uint64_t)managed->file.settings.values[SET_SUSPEND] * NS_PER_S;
  if (managed->exports_leaving > 0) patience_ns = 0; /* they are hung up on: nobody waits */
  for (uint32_t i = 0; i < managed->export_count; i++)
    if (managed->exports[i].gate.state == GATE_OPEN) gate_shut(&managed->exports[i].gate, patience_ns);
}

static void exports_gone(struct managed *managed) {
  void (*left)(struct managed *) = managed->exports_left;
  managed->exports_left = NULL;
  managed->export_count = 0;
  if (exports_are_idle(managed)) exports_free(managed);
  left(managed);
}

static void export_removed(struct nbd_server_export *export) {
  struct managed *managed = CONTAINER_OF(export, struct managed_export, server)->managed;
  require(managed->exports_leaving > 0);
  if (--managed->exports_leaving == 0) exports_gone(managed);
}

void exports_remove(struct managed *managed, void (*left)(struct managed *)) {
  require(!managed->exports_left);
  managed->exports_left = left;
  managed->exports_leaving = managed->export_count;
  if (managed->export_count == 0) exports_gone(managed);
  for (uint32_t i = 0; i < managed->exports_leaving; i++) {
    struct managed_export *export = &managed->exports[i];
    if (export->gate.state == GATE_SHUT) gate_fail(&export->gate); /* or else who waits there would stay */
    nbd_server_remove(managed->manager->options.nbd, &export->server, export_removed);
  }
}

bool exports_are_idle(const struct managed *managed) {
  bool idle = true;
  for (uint32_t i = 0; i < managed->file.volume_count && managed->gates_made; i++)
    idle = idle && gate_is_idle(&managed->exports[i].gate);
  return idle;
}

uint32_t exports_clients(struct managed *managed, char *text, size_t bytes) {
  uint32_t count = 0;
  char names[240];
  text[0] = 0;
  for (uint32_t i = 0; i < managed->export_count; i++) {
    size_t used = strlen(text);
    uint32_t here = nbd_server_clients(managed->manager->options.nbd, &managed->exports[i].server, names, sizeof names);
    if (here > 0) snprintf(text + used, bytes - used, "%s%s", count > 0 ? ", " : "", names);
    count += here;
  }
  return count;
}

uint32_t exports_waiting(const struct managed *managed) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < managed->export_count; i++) count += managed->exports[i].gate.waiting;
  return count;
}
