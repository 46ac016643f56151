/* operator.h - an administrator who does any operation at any moment, drawn from the seed; the atlas says what he must spare. */
#ifndef TARN_SIM_OPERATOR_H
#define TARN_SIM_OPERATOR_H

#include "sim/sim_mirror.h"

struct operator{
  struct sim_mirror *mirror;
  struct prng prng, spoil_prng;
  struct sim_event turn;
  uint32_t spared;   /* the image that must stay SYNCHRONIZED; an impossible one: none */
  bool bold;         /* errors are allowed: he may also break the mirror's conditions */
  bool down;         /* he has stopped it, and will have it ACTIVE again */
  uint64_t pause_ns; /* between two operations, most of the time */
};

void operator_init(struct operator* operator, struct sim_mirror * mirror);
/* From now on, while the mirror serves. */
void operator_begin(struct operator* operator, uint32_t spared, bool bold);
/* No operation any more. What was begun goes on. */
void operator_end(struct operator* operator);

#endif
