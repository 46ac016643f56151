/* examine.h - what a disk is, from what lies on it and beside it: for `tarn image examine`, which needs no daemon, and for
 * `tarn mirror import`.
 *
 * Metadata is looked for in this order: where it was said to be; of a file, in PATH.tarn; in the tail of the disk (tail.h); in
 * PATH.tarn; at the beginning of the file itself, which then is metadata. What lies in the tail of a file may be a guest's, who has a
 * mirror of his own on the disk that he is given; so it may on a device whose own metadata is elsewhere, which only
 * ',meta=PATH' tells. Nothing is opened for writing and nothing is locked: while a daemon has the disk
 * open, what is read is that of some moment, and may be older than what the daemon knows.
 *
 * Blocks. */
#ifndef TARN_SHELL_EXAMINE_H
#define TARN_SHELL_EXAMINE_H

#include <jansson.h>

#include "format/locator.h"
#include "format/record.h"
#include "shell/file_identity.h"

#define EXAMINED_PATH_BYTES 1200u

enum examined_where { EXAMINED_NOWHERE, EXAMINED_GIVEN, EXAMINED_TAIL, EXAMINED_BESIDE, EXAMINED_ITSELF };

struct examined {
  struct file_identity identity;
  enum examined_where where;
  char meta[EXAMINED_PATH_BYTES]; /* the file or device that has the metadata */
  struct locator tail;            /* of EXAMINED_TAIL */
  bool in_use;                    /* locked by some process, as by a tarnd that has it open */
  tarn_err slots[2]; /* of the record: TARN_OK, TARN_NOT_FOUND (empty), TARN_CORRUPT, TARN_VERSION, TARN_IO */
  bool has_record;
  struct record record; /* the newer of the sound ones */
};

/* `meta`: where its metadata is; NULL: look for it. TARN_OK: there is a record. Else a sentence; what could be seen is in
 * `examined` all the same. */
CHECKED tarn_err examine(const char *path, const char *meta, struct examined *examined, struct why *why);
/* All of it. `why` is NULL, or what examine() said. A new reference. */
json_t *examined_json(const char *path, const struct examined *examined, const char *why);

#endif
