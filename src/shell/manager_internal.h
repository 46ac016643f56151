/* manager_internal.h - shared by manager*.c only.
 *
 *   manager.c           the set of mirrors; operations begin, wait and end; start and stop
 *   manager_life.c      one mirror's way up, down and back: opening, falling, closing
 *   manager_aside.c     what a past life has left with a disk that hangs
 *   manager_export.c    what clients see of it: exports and their gates
 *   manager_reopen.c    an image that comes back; files that leave their paths
 *   manager_commands.c  commands on a mirror        manager_settings.c   set, get
 *   manager_create.c    `mirror create`             manager_import.c     `mirror import`
 *   manager_make.c      what these two share
 *   manager_files.c     which files are whose
 *   manager_status.c    `status`
 *   manager_image.c     commands on an image        manager_add.c        `image add`
 *   manager_tidy.c      images half added or removed
 *   manager_verify.c    `mirror verify`             manager_unmake.c     removing files
 *   manager_fault.c     `fault`
 *
 * One operation at a time on a mirror: managed_begin() ... managed_finish(). It answers its call at its end, or earlier, when
 * what is left is long. What happens by itself (falling, another try, the end of a copy) takes its turn in managed_look(). */
#ifndef TARN_SHELL_MANAGER_INTERNAL_H
#define TARN_SHELL_MANAGER_INTERNAL_H

#include "core/gate.h"
#include "core/mirror.h"
#include "shell/disk_watch.h"
#include "shell/fault_disk.h"
#include "shell/manager.h"
#include "shell/mirror_disks.h"
#include "shell/mirror_file.h"
#include "shell/stamp.h"
#include "shell/work_limit.h"

#define STATE_PATH_MAX    512u                    /* of the state directory */
#define FOLDER_PATH_MAX   (STATE_PATH_MAX + 160u) /* of a mirror's folder in it */
#define ATTENTION_RETRY_S 5u
#define WAITING_MAX       32u /* commands in one line (manager_wait) */
#define GRACE_S           2u  /* a command whose end may take long answers by then that it has begun */
#define STOP_PATIENCE_S   5u  /* a stop waits so long for a worker, or a mirror that is being made */

struct managed;
struct managed_export {
  struct nbd_server_export server;
  struct gate gate;
  struct managed *managed;
  char name[2 * TARN_NAME_MAX + 2], alias[2 * TARN_NAME_MAX + 2];
  char description[2 * TARN_NAME_MAX + 24];
};

/* What the open mirror is for, from its activation until it is on its way down. */
enum service { SERVICE_NONE, SERVICE_CLIENTS, SERVICE_QUIET };

/* How far a mirror that is being created or imported has come. */
enum making {
  MAKING_NOTHING, /* its disks are looked at */
  MAKING_FILES,   /* its folder and files are being made, and its name is taken: it has to be undone */
  MAKING_MIRROR   /* its config.json is being written: it exists from then on, or not */
};

/* How something that takes a while ended; `why` is valid during the call. */
typedef void managed_done(struct managed *managed, tarn_err err, const char *why);

struct managed {
  struct list link; /* in manager->mirrors, sorted by name */
  struct manager *manager;
  struct mirror_file file;
  char folder[FOLDER_PATH_MAX];

  /* the operation under way */
  const char *busy;   /* NULL, or "is being ..." */
  struct call *call;  /* who asked for it; NULL: the daemon itself, or answered already */
  struct timer grace; /* then it is told that it has begun */
  bool force, starting /* its activation at start has not answered yet */;
  struct event look; /* something may have to be done that nobody asked for */

  /* what is known of it while it is closed */
  bool wanted;     /* was ACTIVE: comes back by itself if `auto` */
  bool has_record; /* as of the last close or load */
  struct record record;
  bool attention; /* it could not be activated, or fell: `last` and `attention_why` tell */
  struct why attention_why;
  uint64_t attention_since_ns; /* wall clock */
  struct mirror_status last;
  struct timer retry;

  /* while it is open (manager_life.c) */
  struct mirror *mirror;
  struct arena arena;
  struct mirror_disks disks;
  enum service service;
  bool fallen, ending;  /* ending: closed as soon as no disk holds a request of it */
  bool close_wholly;    /* ... and only then `closed` runs */
  struct timer settle;  /* looks whether that is so */
  uint64_t up_ns;       /* when it was activated */
  uint32_t life;        /* how often it was */
  uint64_t aside_at_ns; /* it has not been quiet for long enough by then; 0: it is not idle yet */
  struct mirror_activation how;
  managed_done *up_done, *down_done;
  void (*closed)(struct managed *managed);
  bool stay;
  tarn_err end_err; /* of what ends it, until it is closed */
  struct why end_why;
  uint32_t last_good;           /* by image: SYNCHRONIZED when it fell */
  struct why noted[IMAGES_MAX]; /* what was told last of its devices */
  uint32_t gone, spoiled;       /* by image: files that are not at their paths; that lost a part of what they held */
  uint32_t quiet_for;           /* by image: a quiet service goes on until they are copied */
  struct disk_watch *watch;
  struct faults *faults[IMAGES_MAX]; /* manager_fault.c; NULL: none were asked for */
  struct list reopens;               /* manager_reopen.c */
  struct list stampings;             /* stamp.h */
  uint32_t reopen_refused;           /* by image: to be answered that it cannot be */

  /* its exports: from the first activation on, also while it is in ATTENTION after that (manager_export.c) */
  struct managed_export exports[VOLUMES_MAX];
  struct buffer_account account; /* what they, and images that hang, have of the buffers that all share */
  struct arena gates;
  bool gates_made, lost; /* lost: it was activated by force, so its clients are to be hung up on */
  uint64_t loss_ns;      /* wall clock: what was answered and not flushed may have been lost when it fell; 0: was not */
  uint32_t export_count, exports_leaving;
  void (*exports_left)(struct managed *managed), (*exports_opened)(struct managed *managed);

  struct create *creator;  /* manager_create.c, while it is being made */
  enum making making;      /* manager_make.c */
  bool refused;            /* ... it goes no further; `work_why` tells, or it was answered already */
  bool unmaking;           /* its files are being removed, and then it is gone */
  struct image_task *task; /* manager_image.c, manager_add.c: the operation on an image */
  uint32_t leaving;        /* by image: of the mirror no more; its files are released when they are quiet */
  uint32_t undecided;      /* ... of the mirror or not: what the next activation finds tells */
  uint32_t emptying;   /* ... a worker has its files: removes them, or still makes them, and nobody waits for that */
  uint32_t emptied;    /* ... they are removed */
  uint32_t forgetting; /* of those that leave, the one that is being forgotten */
  bool store_wanted;   /* config.json has still to be told that an image is added */
  struct call *verify_call; /* manager_verify.c */
  bool verifying;
  void (*verify_ended)(struct managed *managed);
  struct mirror_differs differs; /* config.json follows (manager_tidy.c) */

  /* a worker's job on its files (managed_work) */
  struct reactor_work work;
  void (*work_done)(struct reactor_work *work);
  bool working;
  bool left; /* the daemon stops, and waits for it no more */
  struct mirror_file *new_file;
  uint32_t set_slot; /* of settings that are being changed: whose; IMAGES_MAX: the mirror's */
  tarn_err work_err;
  struct why work_why;
  json_t *work_warnings;
};

struct manager {
  struct manager_options options;
  struct env *env;
  struct list mirrors; /* struct managed */
  struct list waiting; /* struct call, each to be run again by call->again */
  struct list asides;  /* manager_aside.c */
  struct list claims;  /* struct claim, manager_files.c */
  struct event resume;
  struct managed *creating;     /* not in the list yet; or NULL */
  struct work_limit make_limit; /* of what it does now */
  struct list given_up;         /* struct managed, too: nobody waits for these any more (manager_make.c) */
  bool stopping;
  struct timer patience; /* with workers, when the daemon stops */
  bool impatient;        /* it is over */
  uint32_t starting_count;
  uint32_t strays; /* workers that still open files which nobody waits for */
  void *started_owner, *stopped_owner;
  void (*started)(void *owner);
  void (*stopped)(void *owner);
};

/* ---- manager.c ---- */
struct managed *managed_new(struct manager *manager, const char *name);
void managed_free(struct managed *managed);
struct managed *managed_find(struct manager *manager, const char *name);
void managed_insert(struct managed *managed);
/* An operation begins; `busy` is "is being ...". */
void managed_begin(struct managed *managed, struct call *call, const char *busy);
/* If it has not ended after GRACE_S its call is answered that it has begun. */
void managed_grace(struct managed *managed);
/* Another try to activate it, if it is in ATTENTION, was ACTIVE before, and `auto` is on. */
void managed_retry(struct managed *managed, uint64_t delay_ns);
/* Ends the operation under way; calls that wait get their turn. */
void managed_finish(struct managed *managed);
/* The operation has succeeded, or failed: answers its call, if it still waits. `text` goes on after the mirror's name. */
void managed_answer(struct managed *managed);
void managed_refuse(struct managed *managed, const char *text);
/* The same for a sentence of its own. */
void managed_fail(struct managed *managed, const char *why);
/* Passes warnings (an array of texts, taken) on to the call, or to the event log. */
void managed_warn(struct managed *managed, json_t *warnings);
/* Sees to it that managed_look() runs soon. */
void managed_poke(struct managed *managed);
/* Begins a worker's job on its files. `done` does not run when the daemon stops before that, and has lost its patience. */
void managed_work(struct managed *managed, void (*run)(struct reactor_work *work),
                  void (*done)(struct reactor_work *work));
/* Puts the call in the line of this mirror, or (NULL) of those that are to be made, to be run again when something has
 * finished; unless its client leaves before that. When WAITING_MAX are in that line already it is refused. */
void manager_wait(struct manager *manager, struct call *call, const struct managed *managed,
                  void (*again)(void *owner, struct call *call));
void manager_resume(struct manager *manager);
/* Writes managed->new_file, or else managed->file, to the state directory; blocks. The result is in work_err, work_why. */
void managed_store_work(struct reactor_work *work);
/* The mirror that the call names by argument `key`, when its turn has come. NULL: the call was answered, or waits in line. */
struct managed *call_mirror(struct manager *manager, struct call *call, const char *key, const char *const *known,
                            void (*again)(void *, struct call *));
/* The image that the call names by argument `key`. False: the call was answered. */
bool call_image(struct managed *managed, struct call *call, const char *key, uint32_t *slot);
bool managed_image(const struct managed *managed, const char *name, uint32_t *slot);

/* ---- manager_files.c ---- */
/* [[disk, whose], ...]: all that no new image may use: what mirrors have, and what is claimed. */
json_t *manager_files(const struct manager *manager);
/* What a command is about to give to a mirror, from its beginning until the mirror has it, or it is given up. Zeroed: none. */
struct claim {
  struct list link; /* in manager->claims */
  json_t *files;    /* as of manager_files(); NULL: none */
};
/* In the same turn of the reactor's thread as the command's manager_files(), and behind it. */
void claim_begin(struct manager *manager, struct claim *claim);
/* The disks of an image as parsed, and wherever its metadata may come to lie. `doing`: "created", "added". */
void claim_image(struct claim *claim, const struct mirror_file *file, uint32_t slot, const char *state,
                 const char *doing);
void claim_disk(struct claim *claim, const char *disk, const char *whose);
/* `meta` as it was typed; empty: not. */
void claim_meta(struct claim *claim, const char *meta, const char *first_disk, const char *whose);
/* Harmless twice. */
void claim_end(struct claim *claim);

/* ---- manager_make.c: a mirror that is being created or imported. One at a time, the others wait in line ----
 *
 * What it lies on may hang. So what it does has a limit, and when that is over, or the daemon stops, its call is answered and the
 * next one has its turn. It goes on by itself when its disks answer, as far as it must to undo what it has begun. Until then its
 * name and its disks are taken. */
/* True: not now; the call was refused, or waits in line. */
bool make_waits(struct manager *manager, struct call *call, void (*again)(void *owner, struct call *call));
/* Takes its turn. `work`: with which all that may hang is done. */
void make_begin(struct managed *managed, struct call *call, const struct reactor_work *work);
/* Something begins that may hang, at so many places one after the other: `hang` for each is allowed, and a little more,
 * and then it must have made a step (work_limit.h). */
void make_limit(struct managed *managed, uint32_t places);
/* It goes on with what has a limit of its own. */
void make_unlimited(struct managed *managed);
/* It has failed, and what was begun is being undone: if that takes long its call is answered before. */
void make_failed(struct managed *managed, const struct why *why);
/* May it go on? If so, it has come so far. TARN_REFUSED: it was given up. */
CHECKED tarn_err make_next(struct managed *managed, enum making making, struct why *why);
/* Ends its turn, before it is inserted or freed. Gives its call; NULL: that was answered. */
struct call *make_end(struct managed *managed);
/* Has no mirror this name, nor one that was given up and is being undone? */
CHECKED tarn_err make_name_check(struct manager *manager, const char *name, struct why *why);
/* The daemon stops. */
void make_stop(struct manager *manager);

/* ---- manager_life.c ---- */
/* What the home store holds is known from the core: for when it is closed. */
void managed_take_record(struct managed *managed);
/* The core's view of it: disks and reasons as opened, or NULLs. */
void managed_config(const struct managed *managed, struct mirror_config *config);
void managed_image_config(const struct managed *managed, uint32_t slot, struct mirror_image_config *config);
void managed_policy(const struct mirror_file_image *image, struct image_policy *policy);
void managed_disks_prepare(struct managed *managed, void (*opened)(struct mirror_disks *disks));
/* Tells what is odd about the devices of an image that was opened, unless it was told. */
void devices_note(struct managed *managed, uint32_t slot);
/* What a mirror asks of its files (core/mirror.h: stamp). */
void managed_stamp(struct mirror *mirror, uint32_t image, uint32_t round);
/* Opens and activates it. Requires a closed mirror with an operation begun. On an error it is closed again, and `last` tells
 * what was seen. */
void managed_up(struct managed *managed, const struct mirror_activation *how, bool wait_for_locks, managed_done *done);
/* Ends the service of an open mirror, and closes it. Requires an operation begun. `hang_up`: its clients go too. `stay`: it
 * was ACTIVE, and is to be so again at the next start. When a disk still holds requests it stays open for now (`ending`). */
void managed_down(struct managed *managed, bool stay, bool hang_up, managed_done *done);
/* Closes it, at once or as soon as that is possible; `closed` runs when it is idle. NULL is allowed. */
void managed_close(struct managed *managed, void (*closed)(struct managed *managed));
/* Does the mirror run (for clients, or quietly)? */
static inline bool managed_runs(const struct managed *managed) {
  return managed->service != SERVICE_NONE && !managed->fallen;
}
/* It fell, and must stay open: no name leads to the data of its last good image any more. */
bool managed_is_kept(const struct managed *managed);
/* Why a mirror that does not run any more is still open, as a sentence; false: it is not. */
bool managed_explain(const struct managed *managed, struct why *why);
/* Adds "image b (2 requests)" to a list. */
void held_name(char *names, size_t bytes, const char *image, uint32_t requests);
/* A sentence about such a list. */
void held_tell(const char *names, struct why *why);
/* As managed_explain(), after closing it, or putting it aside, if that is possible by now. */
bool managed_is_stuck(struct managed *managed, struct why *why);
/* It is in ATTENTION from now on, or still. */
void managed_attention(struct managed *managed, const char *why);
/* The end of an activation that was not a quiet one. */
void managed_activate(struct managed *managed, bool wait_for_locks);
void managed_look(struct managed *managed);

/* ---- manager_aside.c ---- */
/* Takes over the mirror, which mirror_can_be_put_aside(), and the disks that have not answered; the others may be closed. False:
 * there is not enough memory, and nothing has changed. */
CHECKED bool aside_put(struct managed *managed);
/* Has a past life left requests with this image's disk? How many. */
bool aside_has(const struct managed *managed, uint32_t slot);
uint32_t aside_requests(const struct managed *managed, uint32_t slot);
bool aside_has_any(const struct managed *managed);
/* Why its disks are not opened, as part of a sentence; false: they may be. */
bool aside_image_explain(const struct managed *managed, uint32_t slot, struct why *why);
/* Which images that are, as a sentence; false: there are none. */
bool aside_explain(const struct managed *managed, struct why *why);

/* ---- manager_export.c ---- */
/* Takes the memory of its gates. */
CHECKED tarn_err exports_prepare(struct managed *managed, struct why *why);
/* The mirror runs: lets its clients in, or in again; `opened` runs when they may come, perhaps at once. */
void exports_open(struct managed *managed, void (*opened)(struct managed *managed));
/* Requests wait from now on, `suspend` seconds. */
void exports_shut(struct managed *managed);
/* What was answered and not flushed may be lost: its clients are told by a flush that fails. Before the mirror is closed. */
void exports_lose(struct managed *managed);
/* Hangs up on its clients; `left` runs when the last one is gone, at once if there are no exports. */
void exports_remove(struct managed *managed, void (*left)(struct managed *managed));
/* Gives the memory back. Requires that there are none. */
void exports_free(struct managed *managed);
bool exports_are_idle(const struct managed *managed);
/* "peer, peer" of all volumes; how many. */
uint32_t exports_clients(struct managed *managed, char *text, size_t bytes);
uint32_t exports_waiting(const struct managed *managed);

/* ---- manager_reopen.c ---- */
void managed_reopen(struct mirror *mirror, uint32_t image, bool make);
/* Answers what is under way: it will not be. */
void reopens_give_up(struct managed *managed, const char *why);
void reopens_look(struct managed *managed);
void watch_start(struct managed *managed);
/* What was seen of the image's files says nothing any more: there are none, or they are opened anew. */
void watch_forget(struct managed *managed, uint32_t slot);
/* The image's disks are others now. */
void watch_image(struct managed *managed, uint32_t slot);
/* "the file of image a ... /proc/1/fd/7": where the data of the images is that must not be closed. */
void kept_explain(const struct managed *managed, struct why *why);

/* ---- manager_image.c: an operation on an image, on a mirror that runs, or that is opened quietly for it ---- */
struct image_task {
  uint32_t slot;
  enum mirror_image_op op;
  bool force;
  bool opened;                  /* for this, and to be closed after it */
  bool stays;                   /* after success a quiet mirror goes on until the image is copied */
  struct mirror_activation how; /* ... it is opened */
  tarn_err err;
  struct why why;
  void (*act)(struct managed *managed); /* it runs: do it, then image_task_acted() */
  void (*end)(struct managed *managed); /* the mirror is again what it was, `err` and `why` tell how it went */
  /* manager_tidy.c */
  void (*released)(struct managed *managed);
  uint64_t release_deadline_ns;
  struct adding *adding; /* manager_add.c; NULL: it was given up */
};
/* Requires an operation begun, and managed->task. */
void image_task_run(struct managed *managed);
/* The daemon stops: if a new image's disks are looked at, that is not waited for any more; nor that its files are made,
 * when the manager is impatient. */
void adding_give_up(struct managed *managed);
void image_task_acted(struct managed *managed, tarn_err err, const char *why);
/* The quiet service has done what it is for: ends it. */
void image_look(struct managed *managed);

/* ---- manager_tidy.c: images that are half added or half removed ---- */
/* The image is none of the mirror's (any more): closes its files as soon as they are quiet, removes its metadata or what was
 * made for it, forgets it. `released` runs then, or when that takes long: it is done later by itself. */
void image_release(struct managed *managed, void (*released)(struct managed *managed));
void leaving_look(struct managed *managed);
/* Why this image's files are not to be touched, as part of a sentence: a worker has them. False: none has. */
bool emptying_image_explain(const struct managed *managed, uint32_t slot, struct why *why);
/* Which image that is, as a sentence; false: there is none. */
bool emptying_explain(const struct managed *managed, struct why *why);
/* What an activation has shown of images that were being added or removed at a crash. */
void reconcile(struct managed *managed);
/* Only the record knows this image: shown, to be removed by hand. */
void image_unknown(struct managed *managed, uint32_t slot, const char *name);
/* Is there any such image? At start: images that only the record knows are shown too. */
bool reconcile_wanted(struct managed *managed);

/* ---- manager_verify.c ---- */
/* Ends a verify that runs; `ended` runs then, at once if there is none. */
void verify_end(struct managed *managed, void (*ended)(struct managed *managed));
json_t *verify_json(const struct managed *managed);

/* ---- manager_unmake.c: removing what a mirror has on disk; all of these block ---- */
/* Whose metadata may go: of the mirror of this uuid; where that is not known, of this name; NULL, too: any. Of all its
 * images, or of one. What anything else lies in stays, and `warnings` says so. */
struct unmake_owner {
  bool has_uuid;
  uint8_t uuid[16];
  const char *name;
  bool one_image;
  uint32_t slot;
};
/* The mirror in this folder: by its record there, or else by its name. */
void unmake_owner_find(const char *folder, const struct mirror_file *file, struct unmake_owner *owner);
/* Removes the files in file->unmake, then the folder. What cannot be removed is added to `warnings` and stays. */
void unmake(const char *folder, const struct mirror_file *file, const struct unmake_owner *owner, json_t *warnings);
/* Adds a path to file->unmake. */
void unmake_add(struct mirror_file *file, const char *path);
/* Removes files that were made for an image. */
void unmake_files(const json_t *paths, const struct unmake_owner *owner, json_t *warnings);
/* Where the metadata of an image of that mirror lies now, for file->unmake; `out` has UNMAKE_TEXT_BYTES, and the uuid may
 * be NULL, not known. NULL: it belongs to another
 * mirror by now, or its device is at no path of this one; it is left behind, and `warnings` says so. */
const char *metadata_text(const uint8_t mirror_uuid[16], const struct mirror_file *file, uint32_t slot, char *out,
                          json_t *warnings);
/* Removes it. */
void unmake_metadata(const uint8_t mirror_uuid[16], const struct mirror_file *file, uint32_t slot, json_t *warnings);

/* ---- manager_fault.c ---- */
/* With --enable-faults: puts a fault disk over each data disk of the image. */
void faults_wrap(struct managed *managed, uint32_t slot, struct image_disks *disks);
/* The image is gone. Requires that its disks are closed. */
void faults_forget(struct managed *managed, uint32_t slot);
/* An array of texts. */
json_t *faults_json(const struct managed *managed, uint32_t slot);

/* ---- manager_status.c ---- */
json_t *managed_status_json(const struct managed *managed);

#endif
