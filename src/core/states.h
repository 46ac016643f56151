/* states.h - the states of a mirror (B8) and of an image (B9) as tables: what may happen in which state, and what becomes of
 * it. Pure; the one place where a state is computed. mirror.c and its sisters move states by mirror_move() and image_move()
 * only; `tarn image` and `tarn mirror` commands are refused by these tables, with their words.
 *
 * An event is a fact (it has happened; never refused) or a request (refused where the cell is empty).
 *
 *   mirror:   INACTIVE --activate--> ACTIVE | ATTENTION      ACTIVE --conditions lost--> ATTENTION
 *             ACTIVE, ATTENTION --deactivate--> INACTIVE     ATTENTION --conditions hold--> INACTIVE (then, `auto`, ACTIVE)
 *             INACTIVE --destroy--> (gone)
 *
 *   image:    added --> UNSYNCHRONIZED --start copy--> SYNCHRONIZING --copied--> SYNCHRONIZED
 *             SYNCHRONIZED, SYNCHRONIZING --its disk fails--> UNSYNCHRONIZED
 *             SYNCHRONIZED --fracture--> CONSISTENT at its moment --restore--> SYNCHRONIZING
 *             SYNCHRONIZING --fracture--> UNSYNCHRONIZED
 *             UNSYNCHRONIZED or CONSISTENT --assumed by the administrator, mirror INACTIVE--> SYNCHRONIZED
 *             any --promoted as it is--> SYNCHRONIZED       any --sync (a full copy)--> SYNCHRONIZING
 *
 * SYNCHRONIZING as shown during recovery (B9: every image but the source) is derived (mirror_status.c), not stored: the image
 * is a member of the crash-time set and takes the source's place if that is lost (rule 12). Requests are asked with what is
 * shown: an image that is fractured before it is recovered is of no definite moment. */
#ifndef TARN_CORE_STATES_H
#define TARN_CORE_STATES_H

#include "format/record.h"

enum mirror_event {
  MIRROR_CONDITIONS_LOST, /* last image hung or gone, too many missing */
  MIRROR_CONDITIONS_HOLD, /* again */
  MIRROR_FACT_COUNT,
  MIRROR_ACTIVATED = MIRROR_FACT_COUNT, /* requests */
  MIRROR_ACTIVATION_REFUSED,
  MIRROR_DEACTIVATE,
  MIRROR_DESTROY,
  MIRROR_EVENT_COUNT
};

enum image_event {
  IMAGE_FAILED,      /* a write or flush failed, it hung, its disk or metadata was lost */
  IMAGE_COPIED,      /* it has every answered write */
  IMAGE_FELL_BEHIND, /* found at activation: absent (where every write was due), older than recorded, changed by others */
  IMAGE_FACT_COUNT,
  IMAGE_COPY_STARTED = IMAGE_FACT_COUNT, /* requests: by itself when first added or returned, or `restore` */
  IMAGE_SYNC,                            /* a full copy, by command */
  IMAGE_FRACTURE,
  IMAGE_ASSUME,  /* the administrator says that it is equal; mirror INACTIVE */
  IMAGE_PROMOTE, /* as it is, to be the master */
  IMAGE_REMOVE,
  IMAGE_EVENT_COUNT
};

/* The next state, or *_STATE_COUNT where the request is refused. For MIRROR_DESTROY and IMAGE_REMOVE, which leave no state, the
 * state itself means "allowed". Requires a fact to be possible in that state: IMAGE_COPIED is not, when UNSYNCHRONIZED. */
enum mirror_state mirror_next(enum mirror_state state, enum mirror_event event);
enum image_state image_next(enum image_state state, enum image_event event);
/* "fracture", "promote": as a person would say it. */
const char *mirror_event_name(enum mirror_event event);
const char *image_event_name(enum image_event event);
/* Why a request is refused in that state and what to do, as half a sentence: "is INACTIVE already". NULL where it is allowed. */
const char *mirror_refusal(enum mirror_state state, enum mirror_event event);
const char *image_refusal(enum image_state state, enum image_event event);

#endif
