/* brink.h - seeds whose lives are all about one moment that chance alone would bring about too rarely: what has to come together
 * for a rule to matter is drawn here together.
 *
 *   BRINK_MASTER  one write or flush of the master fails, and the process dies before that is recorded (rules 5 and 6)
 *   BRINK_SOURCE  the source of a recovery is lost, often unrecorded (rule 12)
 *   BRINK_ALL     all images fail the same thing for a moment: writes, flushes or metadata; often an image is being brought back
 *                 then (rules 3, 5 and 6)
 *   BRINK_HOME    an image fails while home cannot be written, and the next life finds only those that were out (rules 9 and 10)
 *   BRINK_DOUBT   a flush fails on all images with others behind it, and power is lost behind the next good one (rule 5)
 *   BRINK_PLACES  places that no image can read, and writes that heal them (rule 12)
 *   BRINK_MAPS    an image is away, and marks are taken and cleared all the time, when the process dies (rule 3)
 *   BRINK_READS   a write fails on all images, and a moment later the master is lost that reads are under way at (rules 6 and 12)
 *   BRINK_BACK    an image is put back, data and metadata, to what it was a moment ago (rules 10 and 16); no disk fails
 *   BRINK_CLOSE   a mirror falls, or is stopped behind a flush that failed on all images, and disks lose what they have in caches while
 *                 they are closed (rules 5, 6 and 19)
 *   BRINK_COPY    an image is copied to, and writes fail on all others (rules 6 and 13)
 *   BRINK_TROUBLES  two troubles at once (troubles.h)
 *   BRINK_COMMANDS  commands in the first moments of a recovery, and crashes between them; no disk fails (commands.h)
 *   BRINK_FUA     a FUA of the master fails beside flushes, and power is lost behind the next one that is answered (rule 5)
 *   BRINK_ROUNDS  ordinary changes of metadata, and a crash that leaves a certain part of the round that carries them; no disk fails
 *                 (rounds.h)
 *   BRINK_AGAIN   clients hang up and ask again, while what they had asked for waits for marks; no disk fails
 *
 * The kinds of weather take turns, so that what chaos has left is looked at in peace. */
#ifndef TARN_SIM_BRINK_H
#define TARN_SIM_BRINK_H

#include "sim/weather.h"

/* Sets weather->kind if the brink says what it is. */
bool brink_draws_kind(struct weather *weather);
/* The same moments as weather_begin() and weather_strike(). */
void brink_begin(struct weather *weather);
void brink_strike(struct weather *weather);
/* After each event. */
void brink_watch(struct weather *weather);
/* BRINK_READS: a client was told of an error; an I/O has begun that will fail. */
void brink_error(struct weather *weather);
void brink_struck(struct weather *weather);

#endif
