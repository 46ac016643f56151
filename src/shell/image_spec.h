/* image_spec.h - how people write an image:
 *
 *     [NAME=][NODE:]PATH[+PATH...][,KEY=VALUE...]          a PATH per volume
 *
 * NAME and NODE count only when a PATH follows. A PATH starts with `/`, `./` or `../` (also known: `nbd://`, `nbd+unix://`,
 * `concat:`, which this version refuses). `+` and `,` inside a path are written %2B and %2C, and a % that would start one
 * of these %25; any other % stands for itself. Keys: policy=sync, meta=PATH, overwrite.
 *
 * The client parses what was typed, makes paths absolute and sends the canonical text; the daemon parses that again, so
 * there is one grammar. Pure. Property: format(parse(x)) parses to the same. */
#ifndef TARN_SHELL_IMAGE_SPEC_H
#define TARN_SHELL_IMAGE_SPEC_H

#include "format/record.h"
#include "shell/why.h"

#define PATH_BYTES_MAX  1023u /* of one path; leaves room for what is put behind it, like .tarn */
#define IMAGE_SPEC_TEXT (VOLUMES_MAX * 3 * (PATH_BYTES_MAX + 1) + 3 * PATH_BYTES_MAX + 256)

struct image_spec {
  char name[TARN_NAME_MAX + 1]; /* empty: not given */
  char node[TARN_NAME_MAX + 1]; /* empty: not given */
  uint32_t path_count;          /* at least 1 */
  char paths[VOLUMES_MAX][PATH_BYTES_MAX + 1];
  char meta[PATH_BYTES_MAX + 1]; /* empty: the default place */
  bool overwrite;
};

/* TARN_INVALID, or TARN_UNSUPPORTED for what is known but comes later; with a sentence. */
CHECKED tarn_err image_spec_parse(const char *text, struct image_spec *spec, struct why *why);
/* `out` has IMAGE_SPEC_TEXT bytes. */
void image_spec_format(const struct image_spec *spec, char *out);
/* Makes `path` absolute in place by putting `folder` before it; a leading ./ is dropped, .. stays for the kernel. */
CHECKED tarn_err path_absolute(char path[PATH_BYTES_MAX + 1], const char *folder, struct why *why);

#endif
