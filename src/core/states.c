/* states.c - the tables of B8 and B9, and why a request is refused.
 *
 * A cell holds the next state + 1, so that an empty one is illegal: for a request that is a refusal, and it then has a
 * text in the second table; for a fact it is our mistake. The tables say what can be done at all. What else an operation
 * needs (another current image, an INACTIVE mirror, `force`) is asked where it is carried out.
 *
 * States are those of the record, with one exception that the caller makes: while the marked regions are being copied after
 * a crash, every image but the source is SYNCHRONIZING (B9) although its record says SYNCHRONIZED. Ask with that state:
 * an image that is cut off then is of no definite moment, and may not be called CONSISTENT. */
#include "core/states.h"

#define TO(state) (uint8_t)((state) + 1)

/* Where B8 leaves it open:
 *   - conditions are watched while ACTIVE or in ATTENTION only. Of an INACTIVE mirror (one that works quietly, too) they may
 *     come and go; that moves nothing, because B8 asks for them when it is activated;
 *   - "activate" in ATTENTION is an activation like any other: the administrator need not wait for the conditions to hold
 *     (with force they need not). It stands for two steps of B8, to INACTIVE and on;
 *   - ATTENTION is no state to destroy in: it would be ACTIVE again by itself, and its images may be the only good ones. */
static const uint8_t mirror_table[MIRROR_STATE_COUNT][MIRROR_EVENT_COUNT] = {
    [MIRROR_INACTIVE] = {[MIRROR_CONDITIONS_LOST] = TO(MIRROR_INACTIVE),
                         [MIRROR_CONDITIONS_HOLD] = TO(MIRROR_INACTIVE),
                         [MIRROR_ACTIVATED] = TO(MIRROR_ACTIVE),
                         [MIRROR_ACTIVATION_REFUSED] = TO(MIRROR_ATTENTION),
                         [MIRROR_DESTROY] = TO(MIRROR_INACTIVE)},
    [MIRROR_ACTIVE] = {[MIRROR_CONDITIONS_LOST] = TO(MIRROR_ATTENTION),
                       [MIRROR_CONDITIONS_HOLD] = TO(MIRROR_ACTIVE),
                       [MIRROR_DEACTIVATE] = TO(MIRROR_INACTIVE)},
    [MIRROR_ATTENTION] = {[MIRROR_CONDITIONS_LOST] = TO(MIRROR_ATTENTION),
                          [MIRROR_CONDITIONS_HOLD] = TO(MIRROR_INACTIVE),
                          [MIRROR_ACTIVATED] = TO(MIRROR_ACTIVE),
                          [MIRROR_ACTIVATION_REFUSED] = TO(MIRROR_ATTENTION),
                          [MIRROR_DEACTIVATE] = TO(MIRROR_INACTIVE)},
};

static const char *const mirror_refusals[MIRROR_STATE_COUNT][MIRROR_EVENT_COUNT] = {
    [MIRROR_INACTIVE] = {[MIRROR_DEACTIVATE] = "is INACTIVE already"},
    [MIRROR_ACTIVE] = {[MIRROR_ACTIVATED] = "is ACTIVE already",
                       [MIRROR_ACTIVATION_REFUSED] = "is ACTIVE already",
                       [MIRROR_DESTROY] = "is ACTIVE, only an INACTIVE one can be destroyed: deactivate it first"},
    [MIRROR_ATTENTION] = {[MIRROR_DESTROY] =
                              "is in ATTENTION, only an INACTIVE one can be destroyed: deactivate it first"},
};

/* Where B9 leaves it open:
 *   - SYNCHRONIZING goes to CONSISTENT when its copy is done, and from there to SYNCHRONIZED when it has all writes. A sync
 *     image is sent every write during the copy, so both happen at one moment and the table makes one step of them;
 *   - what is out already may fail again (a late I/O, its metadata), and stays out;
 *   - "fell behind" of a CONSISTENT one is said when what it holds is no longer what it held at its moment, so that its
 *     history is lost. That it is merely absent at an activation changes nothing about it: that is no such event;
 *   - a copy that goes on where a clean stop left it is no event: the image was SYNCHRONIZING and still is;
 *   - a full copy may be asked for in any state: during a copy it begins anew, and a SYNCHRONIZED image that is doubted is
 *     given up as a copy until it is through;
 *   - an image cut off in the middle of a copy is of no definite moment (B17): fractured, it is UNSYNCHRONIZED;
 *   - on one node CONSISTENT means cut off already, so there is nothing to fracture; nor is there with UNSYNCHRONIZED;
 *   - promoted as it is, an image is the new truth and so SYNCHRONIZED by definition. B15 lets all but "no master" be
 *     overridden, a copy cut short too (B17), so no state is impossible; which of them need `force` is not asked here. */
static const uint8_t image_table[IMAGE_STATE_COUNT][IMAGE_EVENT_COUNT] = {
    [IMAGE_UNSYNCHRONIZED] = {[IMAGE_FAILED] = TO(IMAGE_UNSYNCHRONIZED),
                              [IMAGE_FELL_BEHIND] = TO(IMAGE_UNSYNCHRONIZED),
                              [IMAGE_COPY_STARTED] = TO(IMAGE_SYNCHRONIZING),
                              [IMAGE_SYNC] = TO(IMAGE_SYNCHRONIZING),
                              [IMAGE_ASSUME] = TO(IMAGE_SYNCHRONIZED),
                              [IMAGE_PROMOTE] = TO(IMAGE_SYNCHRONIZED),
                              [IMAGE_REMOVE] = TO(IMAGE_UNSYNCHRONIZED)},
    [IMAGE_SYNCHRONIZING] = {[IMAGE_FAILED] = TO(IMAGE_UNSYNCHRONIZED),
                             [IMAGE_COPIED] = TO(IMAGE_SYNCHRONIZED),
                             [IMAGE_FELL_BEHIND] = TO(IMAGE_UNSYNCHRONIZED),
                             [IMAGE_SYNC] = TO(IMAGE_SYNCHRONIZING),
                             [IMAGE_FRACTURE] = TO(IMAGE_UNSYNCHRONIZED),
                             [IMAGE_PROMOTE] = TO(IMAGE_SYNCHRONIZED),
                             [IMAGE_REMOVE] = TO(IMAGE_SYNCHRONIZING)},
    [IMAGE_CONSISTENT] = {[IMAGE_FAILED] = TO(IMAGE_UNSYNCHRONIZED),
                          [IMAGE_COPIED] = TO(IMAGE_SYNCHRONIZED),
                          [IMAGE_FELL_BEHIND] = TO(IMAGE_UNSYNCHRONIZED),
                          [IMAGE_COPY_STARTED] = TO(IMAGE_SYNCHRONIZING),
                          [IMAGE_SYNC] = TO(IMAGE_SYNCHRONIZING),
                          [IMAGE_ASSUME] = TO(IMAGE_SYNCHRONIZED),
                          [IMAGE_PROMOTE] = TO(IMAGE_SYNCHRONIZED),
                          [IMAGE_REMOVE] = TO(IMAGE_CONSISTENT)},
    [IMAGE_SYNCHRONIZED] = {[IMAGE_FAILED] = TO(IMAGE_UNSYNCHRONIZED),
                            [IMAGE_COPIED] = TO(IMAGE_SYNCHRONIZED), /* the end of a recovery */
                            [IMAGE_FELL_BEHIND] = TO(IMAGE_UNSYNCHRONIZED),
                            [IMAGE_SYNC] = TO(IMAGE_SYNCHRONIZING),
                            [IMAGE_FRACTURE] = TO(IMAGE_CONSISTENT),
                            [IMAGE_PROMOTE] = TO(IMAGE_SYNCHRONIZED),
                            [IMAGE_REMOVE] = TO(IMAGE_SYNCHRONIZED)},
};

static const char *const image_refusals[IMAGE_STATE_COUNT][IMAGE_EVENT_COUNT] = {
    [IMAGE_UNSYNCHRONIZED] = {[IMAGE_FRACTURE] = "is UNSYNCHRONIZED, it is not written to anyway: "
                                                 "set return=manual if it is not to come back by itself"},
    [IMAGE_SYNCHRONIZING] = {[IMAGE_COPY_STARTED] = "is SYNCHRONIZING, it is being copied to already: wait for the end",
                             [IMAGE_ASSUME] =
                                 "is SYNCHRONIZING, its copy has begun: wait for the end, or fracture it first"},
    [IMAGE_CONSISTENT] = {[IMAGE_FRACTURE] = "is CONSISTENT, it is not written to already: restore brings it back"},
    [IMAGE_SYNCHRONIZED] = {[IMAGE_COPY_STARTED] =
                                "is SYNCHRONIZED, it misses nothing: sync makes a full copy all the same",
                            [IMAGE_ASSUME] = "is SYNCHRONIZED already"},
};

static uint8_t mirror_cell(enum mirror_state state, enum mirror_event event) {
  require(state < MIRROR_STATE_COUNT);
  require(event < MIRROR_EVENT_COUNT);
  uint8_t cell = mirror_table[state][event];
  require(implies(event < MIRROR_FACT_COUNT, cell != 0));
  require((cell == 0) == (mirror_refusals[state][event] != NULL));
  return cell;
}

static uint8_t image_cell(enum image_state state, enum image_event event) {
  require(state < IMAGE_STATE_COUNT);
  require(event < IMAGE_EVENT_COUNT);
  uint8_t cell = image_table[state][event];
  require(implies(event < IMAGE_FACT_COUNT, cell != 0));
  require((cell == 0) == (image_refusals[state][event] != NULL));
  return cell;
}

enum mirror_state mirror_next(enum mirror_state state, enum mirror_event event) {
  uint8_t cell = mirror_cell(state, event);
  return cell ? (enum mirror_state)(cell - 1) : MIRROR_STATE_COUNT;
}

enum image_state image_next(enum image_state state, enum image_event event) {
  uint8_t cell = image_cell(state, event);
  return cell ? (enum image_state)(cell - 1) : IMAGE_STATE_COUNT;
}

const char *mirror_refusal(enum mirror_state state, enum mirror_event event) {
  return mirror_cell(state, event) ? NULL : mirror_refusals[state][event];
}

const char *image_refusal(enum image_state state, enum image_event event) {
  return image_cell(state, event) ? NULL : image_refusals[state][event];
}

const char *mirror_event_name(enum mirror_event event) {
  static const char *const names[MIRROR_EVENT_COUNT] = {[MIRROR_CONDITIONS_LOST] = "conditions lost",
                                                        [MIRROR_CONDITIONS_HOLD] = "conditions hold",
                                                        [MIRROR_ACTIVATED] = "activate",
                                                        [MIRROR_ACTIVATION_REFUSED] = "activation refused",
                                                        [MIRROR_DEACTIVATE] = "deactivate",
                                                        [MIRROR_DESTROY] = "destroy"};
  require(event < MIRROR_EVENT_COUNT);
  return names[event];
}

const char *image_event_name(enum image_event event) {
  static const char *const names[IMAGE_EVENT_COUNT] = {[IMAGE_FAILED] = "failed",
                                                       [IMAGE_COPIED] = "copied",
                                                       [IMAGE_FELL_BEHIND] = "fell behind",
                                                       [IMAGE_COPY_STARTED] = "restore",
                                                       [IMAGE_SYNC] = "sync",
                                                       [IMAGE_FRACTURE] = "fracture",
                                                       [IMAGE_ASSUME] = "assume synchronized",
                                                       [IMAGE_PROMOTE] = "promote",
                                                       [IMAGE_REMOVE] = "remove"};
  require(event < IMAGE_EVENT_COUNT);
  return names[event];
}
