/* apart.h - an image that is out is served by another daemon, with a copy of the state directory, from some moment of its past on: what
 * that leaves on its disks, between two lives. Short histories have often forgotten that moment. */
#ifndef TARN_SIM_APART_H
#define TARN_SIM_APART_H

#include "sim/sim_mirror.h"

/* Between two lives: the image's record, if it is a good one, is kept for later, now and then. */
void sim_image_remember(struct sim_image *image, struct prng *prng);
/* From what was remembered. Requires a closed mirror, whose home store is not behind. False: this image is not out. */
bool sim_image_serve_apart(struct sim_image *image, struct prng *prng);

#endif
