/* disk_watch.h - is every open file still the one at its path? (thesis 3)
 *
 * Once a second a worker compares each file of a mirror's images with what its path names now: one that was removed,
 * replaced or made shorter is told of, once. Looking may hang with its file system: then there is no further look until it
 * is over, and nothing else waits. The worker has copies of all it needs, so the disks may be closed at any moment. */
#ifndef TARN_SHELL_DISK_WATCH_H
#define TARN_SHELL_DISK_WATCH_H

#include "shell/mirror_disks.h"

struct disk_watch;
/* `why` is a sentence, valid during the call. Called from the event queue, never after disk_watch_stop(). */
typedef void disk_watch_gone(void *owner, uint32_t slot, const char *why);
/* NULL when memory is short. */
struct disk_watch *disk_watch_start(const struct mirror_disks *disks, disk_watch_gone *gone, void *owner);
/* NULL is allowed. */
void disk_watch_stop(struct disk_watch *watch);

#endif
