/* mirror_file.h - what the daemon keeps about a mirror: STATE/mirrors/NAME/config.json.
 *
 * Which volumes and images there are, where their files lie, and the settings. Who is current is not here but in the
 * mirror's record (format/record.h), on every image and in STATE/mirrors/NAME/record.
 *
 * The file is written to a temporary name, synced, renamed, and the folder synced: after a crash it is the old one or the
 * new one. It exists before anything that belongs to the mirror is made, and until all of that is gone: while a mirror is
 * being made or unmade it carries the list `unmake`, the files to remove; a daemon that finds one at start finishes that
 * removal. So a crash in the middle of create or destroy leaves no stray file. An image that is being added carries the
 * list `adding` in the same way, until the mirror's record has it. What lies at such a path meanwhile may be somebody else's: only
 * what is empty, or metadata of this mirror, is removed (manager_unmake.c).
 *
 * Parsing and formatting are pure; load and store block. */
#ifndef TARN_SHELL_MIRROR_FILE_H
#define TARN_SHELL_MIRROR_FILE_H

#include <jansson.h>

#include "format/locator.h"
#include "shell/image_spec.h"
#include "shell/settings.h"

#define META_PATH_BYTES_MAX (PATH_BYTES_MAX + 160u)

struct mirror_file_image {
  bool present; /* the slot is in use: an image keeps its slot for ever */
  bool
      unknown; /* only the mirror's record knows it, where its files lie was lost, or was not said to `mirror import`: no paths */
  char name[TARN_NAME_MAX + 1];
  char paths[VOLUMES_MAX][PATH_BYTES_MAX + 1];
  char meta[META_PATH_BYTES_MAX + 1];
  struct locator
      tail; /* length not 0: its metadata lies there, in the tail of its first disk, whose path `meta` is too */
  struct image_settings settings;
  json_t *devices; /* what is known of the devices that it lies on (image_identity.h), or NULL; owned by the struct */
  json_t *adding;  /* array of the files that were made for it, or NULL; owned by the struct */
};

/* What `verify` found different between the images and did not repair. No bytes: nothing. */
struct mirror_differs {
  uint64_t bytes;
  uint64_t found_ns; /* wall clock, of the first verify that did */
};

struct mirror_file {
  char name[TARN_NAME_MAX + 1];
  uint32_t volume_count;
  struct {
    char name[TARN_NAME_MAX + 1];
    uint64_t size_bytes;
  } volumes[VOLUMES_MAX];
  uint32_t slot_count; /* highest slot in use + 1 */
  struct mirror_file_image images[IMAGES_MAX];
  struct settings settings;
  struct mirror_differs differs;
  /* Deactivated while its record could not be written: not activated at start, whatever the record says. */
  bool stay_inactive;
  json_t *unmake; /* array of paths, or NULL; owned by the struct */
};

/* Where an image's metadata is, in a list of what is to be removed: its path, or "tail:UUID:OFFSET+LENGTH:PATH". `out` has
 * UNMAKE_TEXT_BYTES. */
#define UNMAKE_TAIL       "tail:"
#define UNMAKE_TEXT_BYTES (META_PATH_BYTES_MAX + 96)
const char *mirror_file_meta_text(const struct mirror_file_image *image, char *out);
/* The same of a tail that is at another path now. */
const char *unmake_tail_text(const struct locator *tail, const char *path, char *out);
/* The path in an entry of such a list; of a tail with its place, else without (its length is 0). NULL: it is none. */
const char *unmake_text_path(const char *text, struct locator *tail);

/* A copy that shares nothing, or release: what the struct owns. */
void mirror_file_copy(struct mirror_file *to, const struct mirror_file *from);
void mirror_file_release(struct mirror_file *file);
void mirror_file_image_release(struct mirror_file_image *image);
/* The slot, which is free or unknown already, has an image whose disk is unknown. */
void mirror_file_unknown(struct mirror_file *file, uint32_t slot, const char *name);
/* A new reference; "host" fields that this version does not know are not kept. */
json_t *mirror_file_to_json(const struct mirror_file *file);
/* TARN_CORRUPT, TARN_VERSION with a sentence. On success mirror_file_release() is due. */
CHECKED tarn_err mirror_file_from_json(const json_t *json, struct mirror_file *file, struct why *why);

/* `folder` is STATE/mirrors/NAME. TARN_NOT_FOUND when there is no config.json in it. */
CHECKED tarn_err mirror_file_load(const char *folder, struct mirror_file *file, struct why *why);
/* After an error config.json is what it was, or is not there if it was not; but for a power cut after the new one was in its place and
 * could not be synced. */
CHECKED tarn_err mirror_file_store(const char *folder, const struct mirror_file *file, struct why *why);

/* Syncs the folder that holds `path`, so that a new, renamed or removed name is durable. */
CHECKED tarn_err folder_sync(const char *path, struct why *why);

#endif
