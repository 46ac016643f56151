/* manager.h - the mirrors of this node: keeps their files, opens and closes them, carries out commands on them.
 *
 *     STATE/mirrors/NAME/config.json   what there is (mirror_file.h); the mirror exists when this does
 *     STATE/mirrors/NAME/record        the core's home store: who is current
 *     STATE/meta/NAME-IMAGE.tarn       metadata of images on block devices; that of files lies beside them
 *
 * A mirror that is INACTIVE or waits in ATTENTION is closed: no file of it is open, no lock held; unless a disk of it has not
 * answered a request yet, or the data of its last good image can be reached by an open file only. For an operation on an
 * image of an INACTIVE mirror it is opened *quietly*: no client sees it. Opening, creating and removing files happens in
 * worker threads. One operation at a time per mirror; a command that meets one waits its turn.
 * Each command answers its call once. */
#ifndef TARN_SHELL_MANAGER_H
#define TARN_SHELL_MANAGER_H

#include "shell/call.h"
#include "shell/nbd_server.h"
#include "shell/reactor.h"

struct manager;
struct manager_options {
  struct reactor *reactor;
  struct buffer_pool *pool;
  struct nbd_server *nbd;
  const char *state; /* absolute path of the state directory; it and `node` must stay */
  const char *node;
  bool faults; /* --enable-faults */
};

/* NULL when memory is short. */
struct manager *manager_create(const struct manager_options *options);
/* Reads STATE/mirrors. Blocks: before the reactor runs. A mirror whose files are damaged is reported and left alone. */
CHECKED tarn_err manager_load(struct manager *manager, struct why *why);
/* Activates what was ACTIVE, and finishes what a crash interrupted; `started` runs when each of these has had its first try, or, of what
 * is being removed, GRACE_S. */
void manager_start(struct manager *manager, void *owner, void (*started)(void *owner));
/* Deactivates all, to be activated at the next start; `stopped` runs when that is done. Calls are refused from now on. */
void manager_stop(struct manager *manager, void *owner, void (*stopped)(void *owner));
/* No file is open any more. Not so when a disk has not answered all that it was asked: then the process just ends. */
bool manager_is_quiet(const struct manager *manager);
/* Requires a stopped and quiet manager. */
void manager_destroy(struct manager *manager);

/* ---- commands; the arguments are those of the request, see control.c ---- */
void manager_mirror_create(struct manager *manager, struct call *call);
void manager_mirror_import(struct manager *manager, struct call *call);
void manager_mirror_activate(struct manager *manager, struct call *call);
void manager_mirror_deactivate(struct manager *manager, struct call *call);
void manager_mirror_destroy(struct manager *manager, struct call *call);
void manager_mirror_set(struct manager *manager, struct call *call);
void manager_mirror_get(struct manager *manager, struct call *call);
void manager_mirror_verify(struct manager *manager, struct call *call);
void manager_image_add(struct manager *manager, struct call *call);
/* remove, sync, fracture, restore, promote, demote: the request's command tells */
void manager_image_operation(struct manager *manager, struct call *call);
void manager_image_set(struct manager *manager, struct call *call);
void manager_image_get(struct manager *manager, struct call *call);
void manager_fault(struct manager *manager, struct call *call);
void manager_status(struct manager *manager, struct call *call);
/* In one line for a service manager: "3 mirrors active, 1 needs attention, 2 inactive". */
void manager_summary(const struct manager *manager, char *out, size_t bytes);

#endif
