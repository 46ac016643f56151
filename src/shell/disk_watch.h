/* disk_watch.h - is every open file still the one at its path? (thesis 3)
 *
 * Once a second a thread for each image compares its files with what their paths name now, and tells when that changes:
 * one that was removed, replaced or made shorter, or that is back. Looking may hang with its file system: then there is no
 * further look at this image until it is over, and nothing else waits. The thread has copies of all it needs.
 *
 * A file that was made shorter is also found by an I/O on it (file_disk.h). That is told at once, before that I/O is answered: whoever
 * takes the image out for its error knows already that a part of its data is lost. So the watch listens to the open files, and must
 * be told (disk_watch_set, disk_watch_stop) before they are closed. */
#ifndef TARN_SHELL_DISK_WATCH_H
#define TARN_SHELL_DISK_WATCH_H

#include "shell/mirror_disks.h"

enum watch_verdict {
  WATCH_THERE,
  WATCH_GONE,    /* removed, or replaced by another file: what is open is whole, and no name leads to it */
  WATCH_SPOILED, /* made shorter: a part of what it held is lost */
};

struct disk_watch;
/* An image's files are otherwise than at the last look (the first time: than WATCH_THERE). `why` is a sentence, valid
 * during the call. Called from the event queue, never after disk_watch_stop(). */
typedef void disk_watch_saw(void *owner, uint32_t slot, enum watch_verdict verdict, const char *why);
/* NULL when memory is short. */
struct disk_watch *disk_watch_start(struct reactor *reactor, disk_watch_saw *saw, void *owner);
/* From now on these are the image's files, until the next call, before they are closed; NULL: it has none. False when memory is short: then it is not watched. */
bool disk_watch_set(struct disk_watch *watch, uint32_t slot, const struct image_disks *disks, uint32_t volume_count);
/* NULL is allowed. */
void disk_watch_stop(struct disk_watch *watch);

#endif
