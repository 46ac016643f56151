/* mirror_images.c - images that come, go and come back, by themselves and by command. */
#include "core/mirror_int.h"

void mirror_image_do(struct mirror *m, uint32_t image, enum mirror_image_op op, bool force, mirror_done *done,
                     void *context) {
  (void)image, (void)op, (void)force;
  done(m, TARN_UNSUPPORTED, "not built yet", context);
}
void mirror_image_add(struct mirror *m, uint32_t slot, const struct mirror_image_config *config, mirror_done *done,
                      void *context) {
  (void)slot, (void)config;
  done(m, TARN_UNSUPPORTED, "not built yet", context);
}
void mirror_image_reopened(struct mirror *m, uint32_t image, const struct mirror_image_config *config) {
  (void)m, (void)image, (void)config;
}
bool mirror_image_is_quiet(const struct mirror *m, uint32_t image) {
  (void)m, (void)image;
  return true;
}
bool mirror_is_quiet(const struct mirror *m) {
  (void)m;
  return true;
}
void mirror_set_policy(struct mirror *m, uint32_t image, const struct image_policy *policy) {
  m->config.images[image].policy = *policy;
}
void mirror_set_limits(struct mirror *m, int32_t max_missing, int32_t min_images, bool read_master) {
  m->config.max_missing = max_missing;
  m->config.min_images = min_images;
  m->config.read_master = read_master;
}
