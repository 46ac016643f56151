/* commands.h - BRINK_COMMANDS: commands in the first moments of a recovery, and crash upon crash between them. No disk fails, so what was
 * read stays read, whatever is asked (rule 12).
 *
 * The master is fast and the others are slow: reads see writes there that the others have not got when the process dies. Half of the
 * activations make another image master than the one that is recovered from. As soon as it serves, and then again and again, images are
 * to leave, above all the source of the recovery, to come back, or to become master. */
#ifndef TARN_SIM_COMMANDS_H
#define TARN_SIM_COMMANDS_H

#include "sim/weather.h"

/* Before the disks are opened: now and then the same block of metadata cannot be read on any image, nor, if it is of the record, at home;
 * there is a second copy. */
void commands_spoil(struct weather *weather);
/* How the activation at the beginning of this life is to be made. */
struct mirror_activation commands_activation(struct weather *weather);
/* It serves: the first command. */
void commands_begin(struct weather *weather);
/* No more of them in this life. */
void commands_end(struct weather *weather);
/* An image into the slot of one that was removed; false if there is none. */
bool commands_add(struct sim_mirror *mirror);
/* After each event. True: now is a moment to die. */
bool commands_watch(struct weather *weather, const struct sim_counters *before);

#endif
