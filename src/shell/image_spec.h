/* image_spec.h - how people write an image:
 *
 *     [NAME=][NODE:]PATH[+PATH...][,KEY=VALUE...]          a PATH per volume
 *
 * NAME and NODE count only when a PATH follows. A PATH is a disk (disk_text.h): it starts with `/`, `./`, `../`, `concat:`,
 * `nbd://` or `nbd+unix://`. `+` and `,` inside a path are written %2B and %2C, and a % that would start one of these %25; any
 * other % stands for itself. The + before the LENGTH of a concat's part may stand as it is. In an NBD address nothing is decoded
 * here, for it is a URI. Keys: policy=sync, meta=PATH or meta=tail (META_TAIL), overwrite.
 *
 * The client parses what was typed, makes paths absolute and sends the canonical text; the daemon parses that again, so
 * there is one grammar. Pure. Property: format(parse(x)) parses to the same. */
#ifndef TARN_SHELL_IMAGE_SPEC_H
#define TARN_SHELL_IMAGE_SPEC_H

#include "format/record.h"
#include "shell/disk_text.h"
#include "shell/why.h"

#define META_TAIL       "tail"
#define IMAGE_SPEC_TEXT (VOLUMES_MAX * 3 * (PATH_BYTES_MAX + 1) + 3 * PATH_BYTES_MAX + 256)

struct image_spec {
  char name[TARN_NAME_MAX + 1]; /* empty: not given */
  char node[TARN_NAME_MAX + 1]; /* empty: not given */
  uint32_t path_count;          /* at least 1 */
  char paths[VOLUMES_MAX][PATH_BYTES_MAX + 1];
  char meta[PATH_BYTES_MAX + 1]; /* empty: the default place; META_TAIL: the device's tail */
  bool overwrite;
};

/* TARN_INVALID with a sentence. */
CHECKED tarn_err image_spec_parse(const char *text, struct image_spec *spec, struct why *why);
/* `out` has IMAGE_SPEC_TEXT bytes. */
void image_spec_format(const struct image_spec *spec, char *out);

#endif
