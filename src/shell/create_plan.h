/* create_plan.h - `tarn mirror create` and `tarn image add`: from what was typed to files that are ready, or a refusal with
 * nothing changed.
 *
 *   plan_parse()    words only: names, sizes, counts, settings. Errors are bad usage. plan_parse_image(): of one more image.
 *   plan_check()    looks at every file and decides; touches nothing. Blocks.
 *   plan_list()     stores the list of what is to be made: file->unmake, or `adding` of the image. Blocks.
 *   plan_make()     makes it. Blocks. On an error the list has what was made.
 *
 * Files, parts of files and devices that overlap are found by device, inode and range (disk_space.h), NBD exports by their
 * address.
 *
 * With meta=tail the metadata lies behind the volume on the first disk (tail.h), which must be a device with room for it and
 * nothing there. A device whose metadata would lie in the state directory is said to have it there, since it is lost with that.
 *
 * The rule for data: what the first image holds is what the mirror starts with; any other that holds something needs
 * `overwrite`, unless the administrator says that it is equal. The rule for metadata that is there already: an empty file is
 * used; a record (whose is said), or damage, needs `overwrite`; a newer version's, and that of a mirror of this node, is never
 * replaced. */
#ifndef TARN_SHELL_CREATE_PLAN_H
#define TARN_SHELL_CREATE_PLAN_H

#include "shell/file_identity.h"
#include "shell/mirror_file.h"
#include "shell/request.h"
#include "shell/trusted.h"

/* A file or device that an image uses, or a part of one. */
struct plan_file {
  char owner[2 * TARN_NAME_MAX + 64]; /* "image a", for sentences */
  char path[META_PATH_BYTES_MAX + 1];
  char missing_at[META_PATH_BYTES_MAX + 1]; /* folder resolved; empty: it is there and `identity` tells */
  struct file_identity identity;
  enum trusted whose;
  uint64_t offset, length; /* of the part; length 0: the whole file */
};

/* A disk of an image. */
struct plan_disk {
  enum disk_kind kind;
  const char *text;      /* in plan->file */
  uint32_t first, count; /* its files, in plan->files; none of an NBD export */
  bool missing;          /* has a file that must be made */
  bool has_data;
  uint64_t size_bytes; /* 0: as long as its volume will be (a file that is missing) */
};

struct create_plan {
  struct mirror_file *file; /* the result; size_bytes of volumes 0 until plan_check() */
  uint32_t from, to;        /* slots of the images that are made: all, or the one that is added */
  bool adding, assume;      /* assume: what it holds counts as equal */
  bool sized;               /* sizes were given */
  bool overwrite[IMAGES_MAX];
  uint32_t overwritten; /* by image: a tail of an earlier mirror lies where its own is to be */
  struct plan_disk data[IMAGES_MAX][VOLUMES_MAX];
  struct {
    bool tail;             /* meta=tail; file->images[].tail says where */
    bool at_home;          /* nothing was said, so it lies in the state directory */
  } places[IMAGES_MAX];    /* of the metadata */
  size_t tails;            /* how many entries of that list are tails: the last ones */
  struct plan_file *files; /* of the disks, image by image, each followed by its metadata's */
  uint32_t file_count, files_from[IMAGES_MAX], meta[IMAGES_MAX] /* in `files` */;
  /* the owner's, before plan_check() */
  const char *state, *node;
  char folder[700]; /* STATE/mirrors/NAME */
  json_t
      *others; /* [[disk, whose], ...]: what mirrors of this node have or other commands have claimed (manager_files) */
  json_t *warnings;
};

CHECKED tarn_err plan_parse(struct create_plan *plan, const struct request *request, struct why *why);
/* plan->file is a copy of the mirror's, and gets the image in its first free slot: plan->from. TARN_REFUSED when there is none. */
CHECKED tarn_err plan_parse_image(struct create_plan *plan, const struct request *request, struct why *why);
CHECKED tarn_err plan_check(struct create_plan *plan, struct why *why);
/* For `mirror import`: plan->file is complete, and what it names is there, long enough, in no use, and of no mirror of this node.
 * Touches nothing. Blocks. */
CHECKED tarn_err plan_check_import(struct create_plan *plan, struct why *why);
CHECKED tarn_err plan_list(struct create_plan *plan, struct why *why);
CHECKED tarn_err plan_make(struct create_plan *plan, struct why *why);
/* Frees what plan_check() took. */
void plan_release(struct create_plan *plan);

#endif
