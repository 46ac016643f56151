/* spoil.h - the file of an image is made shorter, and as long as before: its end is zero from then on, which nothing but the mirror's
 * watch has seen (F38). What a short file is asked for beyond its end fails until it is opened anew.
 *
 * Before that is recorded a process that dies would find an image that looks as it should: then the end is put back. */
#ifndef TARN_SIM_SPOIL_H
#define TARN_SIM_SPOIL_H

#include "sim/sim_mirror.h"

/* Is it another one than the last good image, of a mirror that runs? */
bool sim_image_can_be_spoiled(struct sim_mirror *mirror, uint32_t image);
/* It is, and the mirror is told. */
void sim_image_spoil(struct sim_image *image, struct prng *prng);
/* After every event: does the home store say so by now? */
void sim_mirror_watch_spoiled(struct sim_mirror *mirror);
/* The process ends, or the mirror has fallen and is closed: what was not recorded has not happened. */
void sim_mirror_undo_spoiled(struct sim_mirror *mirror);

#endif
