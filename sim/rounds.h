/* rounds.h - BRINK_ROUNDS: ordinary changes of metadata, and a crash in the very round that carries them. No disk fails.
 *
 * Any part of a round may land (mirror_commit.c), so nothing may go out in it that is true only once another part of it is durable. Chance
 * leaves each block of a round or not, and hardly ever what shows such a mistake: all of it but the record, or the record alone. Here that
 * is drawn, for all stores or for each of them; what is not to land is held until the rest has, and then the process dies, or power is lost.
 *
 * The rounds are those of a mirror that is busy with itself: marks come and go, since there are fewer than regions; and so do witnesses, when
 * nobody writes for a while; images leave and come back, by command or because somebody says that they have failed; and it is activated to
 * serve, for operations only, or with another master. Or with one by force that is behind: then no record lands, so nothing has been
 * promoted, and nothing may be lost. */
#ifndef TARN_SIM_ROUNDS_H
#define TARN_SIM_ROUNDS_H

#include "sim/weather.h"

/* How fast its metadata is, from disks to be waited for to such that let rounds follow each other at once. */
void rounds_set_paces(struct sim_mirror *mirror, struct prng *prng);
/* How the activation at the beginning of this life is to be made. */
struct mirror_activation rounds_activation(struct weather *weather);
/* It serves, or works quietly: what changes metadata begins, if it has not yet. */
void rounds_begin(struct weather *weather);
/* No more of it in this life; and unless the process dies now nothing is held any more. */
void rounds_end(struct weather *weather, bool dies);
/* After each event. True: a round has landed as far as it is to, and the process dies. */
bool rounds_watch(struct weather *weather);

#endif
