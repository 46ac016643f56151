/* troubles.h - BRINK_TROUBLES: two troubles at once. While one thing goes wrong another one happens, in each life two that only matter
 * together:
 *
 *   TROUBLE_SPOILED     an image's file is made shorter, and the mirror may have no image missing: it falls (rule 9)
 *   TROUBLE_ACTIVATION  an image fails in the very commit of an activation, and none may be missing
 *   TROUBLE_JOIN        the mirror falls while the record is written by which an image joins; then only that one is there (rules 10, 13)
 *   TROUBLE_SOURCE      the source of a recovery is to leave by a command, which takes nothing back that was read from it (rule 12)
 *   TROUBLE_BLOCK       the last good image has a block that cannot be written, and another is to be copied from it
 *   TROUBLE_HOME        home cannot be written, while an image comes back and commands are given: nobody is told of an error */
#ifndef TARN_SIM_TROUBLES_H
#define TARN_SIM_TROUBLES_H

#include "sim/weather.h"

/* Draws what this life is about, and its weather. */
void troubles_draw(struct weather *weather);
/* The same moments as weather_begin() and weather_strike(). */
void troubles_begin(struct weather *weather);
void troubles_strike(struct weather *weather);
/* How the activation at the beginning of this life is to be made. */
struct mirror_activation troubles_activation(const struct weather *weather);
/* After each event. */
void troubles_watch(struct weather *weather);
/* Shall this life go on for another event? */
bool troubles_hold(struct weather *weather);
/* Before the life ends: what must come, whatever fails still, comes in time. */
void troubles_settle(struct weather *weather);

#endif
