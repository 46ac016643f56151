/* edits.h - what others do to a mirror's files while it is closed (F34, F35): somebody writes to an image, or puts another file in
 * its place, and the image's stamp tells; or the home store is put back to what it was some lives ago.
 *
 * What may be lost is drawn so that the checker knows: nothing, since another image is sound, or what was written to the only
 * image, or to the master of all, which is a write like a client's then. */
#ifndef TARN_SIM_EDITS_H
#define TARN_SIM_EDITS_H

#include "sim/sim_mirror.h"

/* To be called while no process runs. May run one: to a refused activation, or through one by force to a clean stop. */
void edits_come(struct sim_mirror *mirror, struct prng *prng);
/* The home store goes back to an earlier moment, and stays so. False: nothing is remembered that the images know as their past. */
bool edits_home_goes_back(struct sim_mirror *mirror);

#endif
