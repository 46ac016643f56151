/* manager_internal.h - shared by manager*.c only. */
#ifndef TARN_SHELL_MANAGER_INTERNAL_H
#define TARN_SHELL_MANAGER_INTERNAL_H

#include "core/mirror.h"
#include "shell/disk_watch.h"
#include "shell/manager.h"
#include "shell/mirror_disks.h"
#include "shell/mirror_file.h"

#define STATE_PATH_MAX    512u                    /* of the state directory */
#define FOLDER_PATH_MAX   (STATE_PATH_MAX + 160u) /* of a mirror's folder in it */
#define ATTENTION_RETRY_S 5u

struct managed;
struct managed_export {
  struct nbd_server_export server;
  struct managed *managed;
  char name[2 * TARN_NAME_MAX + 2], alias[2 * TARN_NAME_MAX + 2];
};

struct managed {
  struct list link; /* in manager->mirrors, sorted by name */
  struct manager *manager;
  struct mirror_file file;
  char folder[FOLDER_PATH_MAX];
  const char *busy;  /* NULL, or "is being ...": an operation is under way */
  struct call *call; /* who asked for it; NULL: the daemon itself */
  bool force, stay, then_activate;
  bool starting;   /* its activation at start has not answered yet */
  bool wanted;     /* was ACTIVE: comes back by itself if `auto` */
  bool has_record; /* as of the last close or load */
  struct record record;
  bool attention; /* closed, because it could not be activated: `last` and `attention_why` tell */
  char attention_why[sizeof((struct why){}).text];
  struct mirror_status last;
  /* while it is open */
  struct mirror *mirror;
  struct arena arena;
  struct mirror_disks disks;
  struct managed_export exports[VOLUMES_MAX];
  uint32_t export_count, exports_leaving;
  struct disk_watch *watch;
  struct timer retry;
  struct create *creator; /* manager_create.c, while it is being made */
  /* a worker's job on its files */
  struct reactor_work work;
  struct mirror_file *new_file;
  tarn_err work_err;
  struct why work_why;
  json_t *work_warnings;
};

struct manager {
  struct manager_options options;
  struct env *env;
  struct list mirrors; /* struct managed */
  struct list waiting; /* struct call, each to be run again by call->again */
  struct event resume;
  bool creating, stopping;
  uint32_t starting_count;
  void *started_owner, *stopped_owner;
  void (*started)(void *owner);
  void (*stopped)(void *owner);
};

/* ---- manager.c ---- */
struct managed *managed_new(struct manager *manager, const char *name);
void managed_free(struct managed *managed);
struct managed *managed_find(struct manager *manager, const char *name);
void managed_insert(struct managed *managed);
void managed_record_load(struct managed *managed);
/* The core's view of it: disks and reasons as opened, or NULLs. */
void managed_config(const struct managed *managed, struct mirror_config *config);
/* From disks that are open: the mirror object. False with the reason; then close. */
bool managed_open_mirror(struct managed *managed, struct why *why);
/* What a mirror asks of its files (core/mirror.h: stamp). */
void managed_stamp(struct mirror *mirror, uint32_t image, struct image_stamp *stamp);
void managed_close(struct managed *managed);
/* Requires a closed mirror with an operation begun. */
void managed_activate(struct managed *managed, bool wait_for_locks);
/* Requires an open mirror with an operation begun. Hangs up on its clients. */
void managed_deactivate(struct managed *managed, bool stay);
/* An operation begins; `busy` is "is being ...". */
void managed_begin(struct managed *managed, struct call *call, const char *busy);
/* Ends the operation under way; calls that wait get their turn. */
void managed_finish(struct managed *managed);
/* Puts the call in line, to be run again when something has finished. */
void manager_wait(struct manager *manager, struct call *call, void (*again)(void *owner, struct call *call));
void manager_resume(struct manager *manager);
/* Answers for the operation under way: the call if there is one, else the event log. `text` goes on after the name. */
void managed_refuse(struct managed *managed, const char *text);

/* Writes managed->new_file, or else managed->file, to the state directory; blocks. The result is in work_err, work_why. */
void managed_store_work(struct reactor_work *work);

/* ---- manager_unmake.c: removing what a mirror has on disk; all of these block ---- */
/* Removes the files in file->unmake, then the folder. What cannot be removed is added to `warnings` and stays. */
void unmake(const char *folder, const struct mirror_file *file, json_t *warnings);
/* Adds a path to file->unmake. */
void unmake_add(struct mirror_file *file, const char *path);

/* ---- manager_status.c ---- */
json_t *managed_status_json(const struct managed *managed);

#endif
