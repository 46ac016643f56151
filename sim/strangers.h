/* strangers.h - disks that are not what the metadata tells of, between two lives: they have changed places, or went back to an
 * earlier state; or all metadata did (a state directory that was rolled back, with devices).
 *
 * Nobody but the core's witnesses can notice that (rule 16), and they are a sample. So what the checker knows decides first: does a
 * witness that counts differ on an image that is recorded as current? If none does, the excuse is named (`strangers_unseen`) and
 * everything is put where it was. If one does, activation must be refused; then, too, everything is put where it was, as an
 * administrator would who reads why. */
#ifndef TARN_SIM_STRANGERS_H
#define TARN_SIM_STRANGERS_H

#include "sim/sim_mirror.h"

/* ---- for all who change something between two lives ---- */

/* Nothing is in a cache, nothing fails, nobody is away, and no image has to be what it was at some moment. */
bool sim_all_is_still(const struct sim_mirror *mirror);
/* The newer one of both slots; false: neither is sound, or it lies in the wrong place. */
bool sim_record_load(const struct sim_drive *drive, uint32_t self, struct record *record);
/* Is this its generation, or one before? */
bool sim_record_knows(const struct record *record, const struct generation *generation);
/* Runs a process to an activation, which must be refused since `what` is so. */
void sim_must_be_refused(struct sim_mirror *mirror, const char *what);

/* To be called while no process runs. May run one, to a refused activation and no further. */
void strangers_come(struct sim_mirror *mirror, struct prng *prng);

/* One image, data and metadata, is kept, and put back between two lives, as if its disks were snapshots. Its records are old
 * then, and activation tells it by them: all is copied to it. Must be right if the image was kept between two lives, or while its
 * mirror served and then stopped cleanly, and if the others have all that was answered since. */
struct kept {
  bool taken, served; /* served: while its mirror did */
  uint32_t image;
};
void image_keep(struct sim_mirror *mirror, uint32_t image, struct kept *kept, bool served);
void image_put_back(struct sim_mirror *mirror, struct kept *kept);

#endif
