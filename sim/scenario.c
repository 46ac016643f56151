#include "sim/scenario.h"

#include <string.h>

static const struct scenario scenarios[] = {
    {"mix", "everything, drawn from the seed: mirrors, images, loads, faults, administrators, crashes", scenario_mix,
     SCENARIO_COUNTED},
    {"crash-recovery", "crash upon crash while marked regions are being copied; no disk fails", scenario_crash_recovery,
     SCENARIO_DRAWN},
    {"brink", "crash upon crash around the moment when the master fails", scenario_brink, SCENARIO_DRAWN},
    {"source-lost", "the source of a recovery is lost, and often that cannot be recorded", scenario_source_lost,
     SCENARIO_DRAWN},
    {"doubt", "a flush fails everywhere, and power is lost behind the next good ones", scenario_doubt, SCENARIO_DRAWN},
    {"all-fail", "all images fail the same thing for a moment", scenario_all_fail, SCENARIO_DRAWN},
    {"home-fails", "an image fails while home cannot be written; the next life finds only that image",
     scenario_home_fails, SCENARIO_DRAWN},
    {"places", "places that no image can read, and writes that heal them", scenario_places, SCENARIO_DRAWN},
    {"maps", "an image is away, and marks are taken and cleared all the time, when the process dies", scenario_maps,
     SCENARIO_DRAWN},
    {"reads", "the master is lost that reads are under way at, a moment after a write failed everywhere",
     scenario_reads, SCENARIO_DRAWN},
    {"put-back", "an image is put back to what it was, with its metadata", scenario_put_back, SCENARIO_DRAWN},
    {"close", "caches are lost while disks are closed, behind a fall or a stop", scenario_close, SCENARIO_DRAWN},
    {"copy", "an image is copied to, and writes fail on all others", scenario_copy, SCENARIO_DRAWN},
    {"apart", "images are served apart while generations go by", scenario_apart, SCENARIO_DRAWN},
    {"again", "clients hang up and ask again, and what they had asked for waits for marks", scenario_again,
     SCENARIO_DRAWN},
    {"troubles", "two troubles at once: while one thing goes wrong another one happens", scenario_troubles,
     SCENARIO_DRAWN},
    {"commands", "commands beside a recovery, and crashes between them; no disk fails", scenario_commands,
     SCENARIO_DRAWN},
    {"fua", "a FUA of the master fails beside flushes, and power is lost behind the next one", scenario_fua,
     SCENARIO_DRAWN},
    {"rounds", "a crash leaves a certain part of a round of metadata, with ordinary changes in it", scenario_rounds,
     SCENARIO_DRAWN},
    {"failing-image", "images fail, leave and come back, one always stays whole", scenario_failing_image,
     SCENARIO_DRAWN},
    {"full-marks", "writes all over a volume that is much larger than the marks", scenario_full_marks, SCENARIO_DRAWN},
    {"hung-disk", "a disk hangs for good beside other mirrors, and few buffers are there", scenario_hung_disk,
     SCENARIO_DRAWN},
    {"verify", "data rots on an image; verify finds and repairs it while clients write", scenario_verify,
     SCENARIO_DRAWN},
    {"two-writes", "disjoint writes run together, overlapping ones in order", scenario_two_writes, SCENARIO_SCRIPTED},
    {"write-fails", "a write fails on one image: recorded before the answer", scenario_write_fails, SCENARIO_SCRIPTED},
    {"flush-fails", "a flush fails on one image", scenario_flush_fails, SCENARIO_SCRIPTED},
    {"crash-in-flight", "a crash with a write in flight: recovery from one source", scenario_crash_in_flight,
     SCENARIO_SCRIPTED},
    {"hang-and-return", "an image hangs, and comes back for what it missed", scenario_hang_and_return,
     SCENARIO_SCRIPTED},
    {"last-image-hangs", "the last image hangs: ATTENTION, and back", scenario_last_image_hangs, SCENARIO_SCRIPTED},
    {"fracture", "an image is fractured and restored", scenario_fracture, SCENARIO_SCRIPTED},
    {"stale-alone", "an image that is behind is refused alone", scenario_stale_alone, SCENARIO_SCRIPTED},
    {"half-built", "a crash while an image is copied to in full", scenario_half_built, SCENARIO_SCRIPTED},
    {"read-repair", "a block that cannot be read is answered from another image and written again",
     scenario_read_repair, SCENARIO_SCRIPTED},
    {"flush-doubt", "a flush fails on every image", scenario_flush_doubt, SCENARIO_SCRIPTED},
    {"self-test", "the checkers are shown wrong bytes, and must find them", scenario_self_test, SCENARIO_DRAWN},
};

const struct scenario *scenario_at(uint32_t index) { return index < COUNT_OF(scenarios) ? &scenarios[index] : NULL; }

const struct scenario *scenario_find(const char *name) {
  for (uint32_t i = 0; i < COUNT_OF(scenarios); i++)
    if (strcmp(scenarios[i].name, name) == 0) return &scenarios[i];
  return NULL;
}
