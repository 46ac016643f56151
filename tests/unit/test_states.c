/* The states of a mirror (B8) and of an image (B9, with the operations of B15), row by row as those lines say it. Written by
 * hand from them, not from the tables; every pair of a state and an event is visited exactly once. */
#include "core/states.h"

#include "unit.h"

/* ---- mirrors: B8 ---- */

#define MIRROR_REFUSED MIRROR_STATE_COUNT
static const struct mirror_row {
  const char *why;
  enum mirror_state from;
  enum mirror_event event;
  enum mirror_state to;
} mirror_rows[] = {
    {"conditions are asked for when it is activated; before that they move nothing", MIRROR_INACTIVE,
     MIRROR_CONDITIONS_LOST, MIRROR_INACTIVE},
    {"ACTIVE falls to ATTENTION when they stop holding", MIRROR_ACTIVE, MIRROR_CONDITIONS_LOST, MIRROR_ATTENTION},
    {"what does not hold stops holding in one more way", MIRROR_ATTENTION, MIRROR_CONDITIONS_LOST, MIRROR_ATTENTION},

    {"an INACTIVE mirror does not become ACTIVE because it could", MIRROR_INACTIVE, MIRROR_CONDITIONS_HOLD,
     MIRROR_INACTIVE},
    {"they held all the time", MIRROR_ACTIVE, MIRROR_CONDITIONS_HOLD, MIRROR_ACTIVE},
    {"ATTENTION goes to INACTIVE when they hold again; `auto` is one more event", MIRROR_ATTENTION,
     MIRROR_CONDITIONS_HOLD, MIRROR_INACTIVE},

    {"activate goes to ACTIVE if the minimum conditions hold", MIRROR_INACTIVE, MIRROR_ACTIVATED, MIRROR_ACTIVE},
    {"twice is a mistake of whoever asks", MIRROR_ACTIVE, MIRROR_ACTIVATED, MIRROR_REFUSED},
    {"by hand, or by itself when they hold again", MIRROR_ATTENTION, MIRROR_ACTIVATED, MIRROR_ACTIVE},

    {"... else to ATTENTION, saying which does not", MIRROR_INACTIVE, MIRROR_ACTIVATION_REFUSED, MIRROR_ATTENTION},
    {"an ACTIVE mirror is not being activated", MIRROR_ACTIVE, MIRROR_ACTIVATION_REFUSED, MIRROR_REFUSED},
    {"tried again, in vain", MIRROR_ATTENTION, MIRROR_ACTIVATION_REFUSED, MIRROR_ATTENTION},

    {"there is nothing to end", MIRROR_INACTIVE, MIRROR_DEACTIVATE, MIRROR_REFUSED},
    {"deactivate goes to INACTIVE", MIRROR_ACTIVE, MIRROR_DEACTIVATE, MIRROR_INACTIVE},
    {"also from ATTENTION: the administrator no longer wants it", MIRROR_ATTENTION, MIRROR_DEACTIVATE, MIRROR_INACTIVE},

    {"INACTIVE is needed to destroy one", MIRROR_INACTIVE, MIRROR_DESTROY, MIRROR_INACTIVE},
    {"not under its clients", MIRROR_ACTIVE, MIRROR_DESTROY, MIRROR_REFUSED},
    {"not while it would be ACTIVE again by itself", MIRROR_ATTENTION, MIRROR_DESTROY, MIRROR_REFUSED},
};

static void mirrors(void **state) {
  (void)state;
  int seen[MIRROR_STATE_COUNT][MIRROR_EVENT_COUNT] = {{0}};
  for (size_t i = 0; i < COUNT_OF(mirror_rows); i++) {
    const struct mirror_row *row = &mirror_rows[i];
    row_true(row->why, seen[row->from][row->event]++ == 0);
    row_true(row->why, mirror_next(row->from, row->event) == row->to);
    const char *text = mirror_refusal(row->from, row->event);
    row_true(row->why, (text != NULL) == (row->to == MIRROR_REFUSED));
    /* "mirror vol0 " + text: what is, and in which words `status` shows it */
    if (text) row_true(row->why, strncmp(text, "is ", 3) == 0 && strstr(text, mirror_state_name(row->from)));
  }
  assert_int_equal(COUNT_OF(mirror_rows), MIRROR_STATE_COUNT * MIRROR_EVENT_COUNT);
}

/* ---- images: B9, B15, B17 ---- */

#define REFUSED    IMAGE_STATE_COUNT
#define IMPOSSIBLE ((enum image_state)(IMAGE_STATE_COUNT + 1))
static const struct image_row {
  const char *why;
  enum image_state from;
  enum image_event event;
  enum image_state to;
} image_rows[] = {
    {"its last I/Os fail too, or its metadata does: it is out already", IMAGE_UNSYNCHRONIZED, IMAGE_FAILED,
     IMAGE_UNSYNCHRONIZED},
    {"SYNCHRONIZING -> UNSYNCHRONIZED on failure", IMAGE_SYNCHRONIZING, IMAGE_FAILED, IMAGE_UNSYNCHRONIZED},
    {"CONSISTENT -> UNSYNCHRONIZED when its disk fails or hangs", IMAGE_CONSISTENT, IMAGE_FAILED, IMAGE_UNSYNCHRONIZED},
    {"SYNCHRONIZED -> UNSYNCHRONIZED when its disk fails or hangs, or a flush is lost", IMAGE_SYNCHRONIZED,
     IMAGE_FAILED, IMAGE_UNSYNCHRONIZED},

    {"nobody copies to it: its way leads over SYNCHRONIZING", IMAGE_UNSYNCHRONIZED, IMAGE_COPIED, IMPOSSIBLE},
    {"SYNCHRONIZING -> CONSISTENT -> SYNCHRONIZED: writes were sent to it all the while", IMAGE_SYNCHRONIZING,
     IMAGE_COPIED, IMAGE_SYNCHRONIZED},
    {"CONSISTENT -> SYNCHRONIZED when it has them all", IMAGE_CONSISTENT, IMAGE_COPIED, IMAGE_SYNCHRONIZED},
    {"recovery copied the marked regions, and its state in the record never changed", IMAGE_SYNCHRONIZED, IMAGE_COPIED,
     IMAGE_SYNCHRONIZED},

    {"it was behind already", IMAGE_UNSYNCHRONIZED, IMAGE_FELL_BEHIND, IMAGE_UNSYNCHRONIZED},
    {"a copy that is cut short leaves its image UNSYNCHRONIZED (B17)", IMAGE_SYNCHRONIZING, IMAGE_FELL_BEHIND,
     IMAGE_UNSYNCHRONIZED},
    {"CONSISTENT -> UNSYNCHRONIZED when the write history is lost", IMAGE_CONSISTENT, IMAGE_FELL_BEHIND,
     IMAGE_UNSYNCHRONIZED},
    {"its node was lost with writes in flight, or it holds something older than it was recorded to hold",
     IMAGE_SYNCHRONIZED, IMAGE_FELL_BEHIND, IMAGE_UNSYNCHRONIZED},

    {"UNSYNCHRONIZED -> SYNCHRONIZING, by itself or by command", IMAGE_UNSYNCHRONIZED, IMAGE_COPY_STARTED,
     IMAGE_SYNCHRONIZING},
    {"a second `restore` changes nothing about the copy under way", IMAGE_SYNCHRONIZING, IMAGE_COPY_STARTED, REFUSED},
    {"`restore` of a fractured image copies what it missed (B15)", IMAGE_CONSISTENT, IMAGE_COPY_STARTED,
     IMAGE_SYNCHRONIZING},
    {"it misses nothing", IMAGE_SYNCHRONIZED, IMAGE_COPY_STARTED, REFUSED},

    {"a full copy is a copy", IMAGE_UNSYNCHRONIZED, IMAGE_SYNC, IMAGE_SYNCHRONIZING},
    {"all of it instead of what it missed: the copy begins anew", IMAGE_SYNCHRONIZING, IMAGE_SYNC, IMAGE_SYNCHRONIZING},
    {"CONSISTENT -> SYNCHRONIZING when the administrator forces it", IMAGE_CONSISTENT, IMAGE_SYNC, IMAGE_SYNCHRONIZING},
    {"the administrator doubts it: until the copy is through it is not a good one", IMAGE_SYNCHRONIZED, IMAGE_SYNC,
     IMAGE_SYNCHRONIZING},

    {"it is not updated, so there is nothing to stop", IMAGE_UNSYNCHRONIZED, IMAGE_FRACTURE, REFUSED},
    {"a copy that is cut short is of no definite moment (B17)", IMAGE_SYNCHRONIZING, IMAGE_FRACTURE,
     IMAGE_UNSYNCHRONIZED},
    {"on one node only a fractured image is CONSISTENT", IMAGE_CONSISTENT, IMAGE_FRACTURE, REFUSED},
    {"fractured: CONSISTENT at its last moment", IMAGE_SYNCHRONIZED, IMAGE_FRACTURE, IMAGE_CONSISTENT},

    {"UNSYNCHRONIZED -> SYNCHRONIZED by the administrator", IMAGE_UNSYNCHRONIZED, IMAGE_ASSUME, IMAGE_SYNCHRONIZED},
    {"B9 names UNSYNCHRONIZED and CONSISTENT only: half a copy is not equal to anything", IMAGE_SYNCHRONIZING,
     IMAGE_ASSUME, REFUSED},
    {"CONSISTENT -> SYNCHRONIZED by the administrator", IMAGE_CONSISTENT, IMAGE_ASSUME, IMAGE_SYNCHRONIZED},
    {"it is what it would be assumed to be", IMAGE_SYNCHRONIZED, IMAGE_ASSUME, REFUSED},

    {"only by override, but it can be (B17)", IMAGE_UNSYNCHRONIZED, IMAGE_PROMOTE, IMAGE_SYNCHRONIZED},
    {"a half-built copy is better than nothing, when the administrator says so (B15: all but the first)",
     IMAGE_SYNCHRONIZING, IMAGE_PROMOTE, IMAGE_SYNCHRONIZED},
    {"the image to be promoted is SYNCHRONIZED or CONSISTENT", IMAGE_CONSISTENT, IMAGE_PROMOTE, IMAGE_SYNCHRONIZED},
    {"the ordinary case", IMAGE_SYNCHRONIZED, IMAGE_PROMOTE, IMAGE_SYNCHRONIZED},

    {"removed on line, and the state does not matter", IMAGE_UNSYNCHRONIZED, IMAGE_REMOVE, IMAGE_UNSYNCHRONIZED},
    {"its copy ends with it", IMAGE_SYNCHRONIZING, IMAGE_REMOVE, IMAGE_SYNCHRONIZING},
    {"its moment is kept by whoever keeps its disks: data is left in place", IMAGE_CONSISTENT, IMAGE_REMOVE,
     IMAGE_CONSISTENT},
    {"whether it is the last good one is asked elsewhere (rule 8)", IMAGE_SYNCHRONIZED, IMAGE_REMOVE,
     IMAGE_SYNCHRONIZED},
};

static void move_image(void *context) {
  const struct image_row *row = context;
  (void)image_next(row->from, row->event);
}

static void images(void **state) {
  (void)state;
  int seen[IMAGE_STATE_COUNT][IMAGE_EVENT_COUNT] = {{0}};
  for (size_t i = 0; i < COUNT_OF(image_rows); i++) {
    const struct image_row *row = &image_rows[i];
    row_true(row->why, seen[row->from][row->event]++ == 0);
    if (row->to == IMPOSSIBLE) {
      row_true(row->why, panics(move_image, &(struct image_row){NULL, row->from, row->event, row->to}));
      continue;
    }
    row_true(row->why, image_next(row->from, row->event) == row->to);
    const char *text = image_refusal(row->from, row->event);
    row_true(row->why, (text != NULL) == (row->to == REFUSED));
    if (text) row_true(row->why, strncmp(text, "is ", 3) == 0 && strstr(text, image_state_name(row->from)));
  }
  assert_int_equal(COUNT_OF(image_rows), IMAGE_STATE_COUNT * IMAGE_EVENT_COUNT);
}

/* B17: between a copy's beginning and its end there is no way to be counted as a copy but the administrator's word. */
static void half_a_copy_is_no_copy(void **state) {
  (void)state;
  for (enum image_event event = 0; event < IMAGE_EVENT_COUNT; event++) {
    if (event == IMAGE_COPIED || event == IMAGE_PROMOTE) continue;
    enum image_state to = image_next(IMAGE_SYNCHRONIZING, event);
    assert_true(to != IMAGE_SYNCHRONIZED && to != IMAGE_CONSISTENT);
  }
}

/* ---- names ---- */

static void names_are_told_apart(void **state) {
  (void)state;
  for (enum mirror_event a = 0; a < MIRROR_EVENT_COUNT; a++)
    for (enum mirror_event b = 0; b < a; b++) assert_string_not_equal(mirror_event_name(a), mirror_event_name(b));
  for (enum image_event a = 0; a < IMAGE_EVENT_COUNT; a++)
    for (enum image_event b = 0; b < a; b++) assert_string_not_equal(image_event_name(a), image_event_name(b));
}

/* What a person types is what is refused. */
static void requests_are_called_like_commands(void **state) {
  (void)state;
  assert_string_equal(mirror_event_name(MIRROR_ACTIVATED), "activate");
  assert_string_equal(mirror_event_name(MIRROR_DEACTIVATE), "deactivate");
  assert_string_equal(mirror_event_name(MIRROR_DESTROY), "destroy");
  assert_string_equal(image_event_name(IMAGE_COPY_STARTED), "restore");
  assert_string_equal(image_event_name(IMAGE_SYNC), "sync");
  assert_string_equal(image_event_name(IMAGE_FRACTURE), "fracture");
  assert_string_equal(image_event_name(IMAGE_PROMOTE), "promote");
  assert_string_equal(image_event_name(IMAGE_REMOVE), "remove");
}

static void no_such_state(void *context) {
  (void)context;
  (void)mirror_next(MIRROR_STATE_COUNT, MIRROR_DEACTIVATE);
}
static void no_such_event(void *context) {
  (void)context;
  (void)image_next(IMAGE_SYNCHRONIZED, IMAGE_EVENT_COUNT);
}
static void what_does_not_exist_stops_the_process(void **state) {
  (void)state;
  assert_true(panics(no_such_state, NULL));
  assert_true(panics(no_such_event, NULL));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(mirrors),
      cmocka_unit_test(images),
      cmocka_unit_test(half_a_copy_is_no_copy),
      cmocka_unit_test(names_are_told_apart),
      cmocka_unit_test(requests_are_called_like_commands),
      cmocka_unit_test(what_does_not_exist_stops_the_process),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
