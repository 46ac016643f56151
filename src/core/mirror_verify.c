/* mirror_verify.c - compares the images on line, range by range. */
#include "core/mirror_int.h"

void mirror_verify(struct mirror *m, uint32_t source, mirror_done *done, void *context) {
  (void)source;
  done(m, TARN_UNSUPPORTED, "not built yet", context);
}
void mirror_verify_stop(struct mirror *m) { (void)m; }
const struct verify_result *mirror_verify_result(const struct mirror *m) {
  (void)m;
  return NULL;
}
