#include "sim/weather.h"
#include <inttypes.h>

#include "sim/apart.h"
#include "sim/brink.h"
#include "sim/damage.h"
#include "sim/edits.h"

#define SURE_NS (30 * NS_PER_MS) /* SYNCHRONIZED for so long: that is recorded everywhere by now */

void weather_init(struct weather *weather, struct sim_mirror *mirror) {
  *weather = (struct weather){.mirror = mirror,
                              .settled = true,
                              .prng = world_stream(mirror->world, "weather", mirror->index),
                              .apart = world_stream(mirror->world, "apart", mirror->index)};
  if (mirror->images[0].blank)
    weather->anchor = (uint32_t)prng_below(&weather->prng, mirror->image_count); /* all are equal */
}

/* ---- one fault ---- */

static uint64_t draw_start(struct prng *prng, uint64_t now_ns) {
  static const uint64_t within_ns[] = {1, 2 * NS_PER_MS, 6 * NS_PER_MS, 20 * NS_PER_MS, 300 * NS_PER_MS, 6 * NS_PER_S};
  return now_ns + prng_below(prng, within_ns[prng_below(prng, COUNT_OF(within_ns))]);
}

/* Where clients are busy, more often than not. */
static uint64_t draw_bad_place(struct weather *weather, const struct sim_drive *drive) {
  struct sim_mirror *mirror = weather->mirror;
  struct prng *prng = &weather->prng;
  if (prng_one_in(prng, 4)) return prng_below(prng, drive->caps.size_bytes);
  uint32_t v = 0;
  for (uint32_t i = 0; i < mirror->image_count; i++)
    if (mirror->volume_count > 1 && drive == &mirror->images[i].data[1]) v = 1;
  const struct workload *workload = &mirror->workloads[v];
  uint32_t spot = (uint32_t)prng_below(prng, COUNT_OF(workload->hot));
  return workload->hot[spot].start + prng_below(prng, workload->hot[spot].bytes);
}

/* Several places at once, and at different times. */
static void strike_places(struct weather *weather, struct sim_drive *drive) {
  struct prng *prng = &weather->prng;
  bool flaky = prng_one_in(prng, 2);
  for (uint64_t count = prng_between(prng, 2, 8); count > 0; count--) {
    struct fault fault = {.kind = FAULT_BAD_SECTOR, .ops = FAULT_READ, .until_ns = UINT64_MAX, .err = TARN_IO};
    if (flaky) fault.kind = FAULT_FLAKY;
    fault.from_ns = world_now(weather->mirror->world);
    if (prng_one_in(prng, 3)) fault.from_ns = draw_start(prng, fault.from_ns);
    fault.start = align_down(draw_bad_place(weather, drive), 4096);
    fault.end = min_u64(fault.start + (4096ull << prng_below(prng, 3)), drive->caps.size_bytes);
    (void)faults_add(&drive->faults, &fault);
  }
}

static struct fault draw_fault(struct weather *weather) {
  static const uint32_t op_sets[] = {FAULT_READ, FAULT_WRITE, FAULT_WRITE, FAULT_FLUSH, FAULT_WRITE | FAULT_FLUSH,
                                     FAULT_ALL};
  static const enum fault_kind kinds[] = {FAULT_ONCE,  FAULT_ONCE, FAULT_ONCE, FAULT_WHILE,
                                          FAULT_WHILE, FAULT_GOOD, FAULT_SLOW};
  struct prng *prng = &weather->prng;
  struct fault fault = {.kind = kinds[prng_below(prng, COUNT_OF(kinds))], .end = UINT64_MAX, .err = TARN_IO};
  fault.ops = op_sets[prng_below(prng, COUNT_OF(op_sets))];
  fault.from_ns = draw_start(prng, world_now(weather->mirror->world));
  fault.until_ns = UINT64_MAX;
  if (fault.kind == FAULT_ONCE) {
    fault.from_ns = world_now(weather->mirror->world);
    fault.skip = (uint32_t)prng_below(prng, prng_one_in(prng, 2) ? 5 : 60);
  }
  if (fault.kind == FAULT_WHILE || fault.kind == FAULT_SLOW)
    fault.until_ns = fault.from_ns + prng_between(prng, NS_PER_MS, 300 * NS_PER_MS);
  if (prng_one_in(prng, 8)) fault.err = TARN_NO_SPACE;
  return fault;
}

/* All of a disk hangs, or its writes, or its flushes, or one I/O in many. */
static struct fault draw_hang(struct weather *weather) {
  static const uint32_t op_sets[] = {FAULT_ALL, FAULT_ALL, FAULT_WRITE, FAULT_FLUSH, FAULT_READ};
  struct prng *prng = &weather->prng;
  struct fault fault = {.kind = FAULT_HANG, .end = UINT64_MAX, .until_ns = UINT64_MAX};
  fault.ops = op_sets[prng_below(prng, COUNT_OF(op_sets))];
  fault.from_ns = draw_start(prng, world_now(weather->mirror->world));
  if (!prng_one_in(prng, 4)) fault.until_ns = fault.from_ns + (NS_PER_MS << prng_below(prng, 12));
  fault.never = prng_one_in(prng, 5);
  return fault;
}

/* The home store hangs, or its connection is lost, in chaos only: without it nothing can be recorded, and the mirror stops. */
static void strike(struct weather *weather, struct sim_drive *drive) {
  struct prng *prng = &weather->prng;
  bool whole = drive->faults.role != ROLE_HOME || weather->kind == WEATHER_CHAOS;
  struct fault fault;
  if (whole && prng_one_in(prng, 6)) {
    sim_drive_lose(drive, draw_start(prng, world_now(weather->mirror->world)));
    return;
  }
  if (drive->faults.role == ROLE_DATA && prng_one_in(prng, 3)) {
    strike_places(weather, drive);
    return;
  }
  if (whole && prng_one_in(prng, 5)) fault = draw_hang(weather);
  else fault = draw_fault(weather);
  (void)faults_add(&drive->faults, &fault);
}

/* A write of metadata goes to another place. */
static void strike_astray(struct weather *weather, uint32_t image) {
  struct sim_image *victim = &weather->mirror->images[image];
  if (weather->kind != WEATHER_STORM || victim->rots || !prng_one_in(&weather->prng, 4)) return;
  struct fault fault = {.kind = FAULT_MISDIRECT, .ops = FAULT_WRITE, .end = UINT64_MAX, .until_ns = UINT64_MAX};
  fault.skip = (uint32_t)prng_below(&weather->prng, prng_one_in(&weather->prng, 2) ? 8 : 60);
  (void)faults_add(&victim->meta.faults, &fault);
}

static struct sim_drive *draw_drive(struct weather *weather, uint32_t image) {
  struct sim_mirror *mirror = weather->mirror;
  if (prng_one_in(&weather->prng, 3)) return &mirror->images[image].meta;
  return &mirror->images[image].data[prng_below(&weather->prng, mirror->volume_count)];
}

uint32_t weather_master(const struct sim_mirror *mirror) {
  for (uint32_t i = 0; i < mirror->image_count; i++)
    if (mirror->status.images[i].master) return i;
  return 0;
}

uint32_t weather_next_member(const struct sim_mirror *mirror, uint32_t i) {
  do i = (i + 1) % mirror->image_count;
  while (!mirror->images[i].configured);
  return i;
}

/* An image on which faults may fall, the master as often as all others; NO_ANCHOR if there is none. */
static uint32_t draw_victim(struct weather *weather) {
  const struct sim_mirror *mirror = weather->mirror;
  uint32_t image = weather_next_member(mirror, (uint32_t)prng_below(&weather->prng, mirror->image_count));
  if (prng_one_in(&weather->prng, 3)) image = weather_master(weather->mirror);
  if (weather->kind != WEATHER_STORM || image != weather->anchor) return image;
  image = weather_next_member(mirror, image);
  return image == weather->anchor ? NO_ANCHOR : image;
}

static void strike_some(struct weather *weather, uint64_t count) {
  while (count-- > 0) {
    uint32_t image = draw_victim(weather);
    if (image == NO_ANCHOR) continue;
    strike(weather, draw_drive(weather, image));
    strike_astray(weather, image);
    if (prng_one_in(&weather->prng, 8))
      sim_image_unplug(&weather->mirror->images[image], draw_start(&weather->prng, world_now(weather->mirror->world)));
  }
}

/* All images refuse writes for a moment, together: rule 6 is about that. */
static void strike_all(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  uint32_t volume = (uint32_t)prng_below(&weather->prng, mirror->volume_count);
  struct fault fault = {.kind = FAULT_WHILE, .ops = FAULT_WRITE, .end = UINT64_MAX, .err = TARN_IO};
  if (prng_one_in(&weather->prng, 3)) fault.ops = FAULT_FLUSH;
  fault.from_ns = draw_start(&weather->prng, world_now(mirror->world));
  fault.until_ns = fault.from_ns + prng_between(&weather->prng, NS_PER_MS / 10, 20 * NS_PER_MS);
  for (uint32_t i = 0; i < mirror->image_count; i++) (void)faults_add(&mirror->images[i].data[volume].faults, &fault);
}

/* All images hang for a while, or lose their connections, at about the same time: the last good one with them. */
static void take_all(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  struct prng *prng = &weather->prng;
  bool hang = prng_one_in(prng, 2);
  uint64_t at_ns = draw_start(prng, world_now(mirror->world));
  struct fault fault = {.kind = FAULT_HANG, .ops = FAULT_ALL, .end = UINT64_MAX, .from_ns = at_ns};
  fault.until_ns = at_ns + prng_between(prng, NS_PER_S / 10, 6 * NS_PER_S);
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    struct sim_drive *drive = draw_drive(weather, i);
    if (hang) (void)faults_add(&drive->faults, &fault);
    else sim_drive_lose(drive, at_ns + prng_below(prng, prng_one_in(prng, 2) ? 1 : 50 * NS_PER_MS));
  }
}

/* ---- a life ---- */

static void draw_kind(struct weather *weather) {
  uint64_t pick = prng_below(&weather->prng, 100);
  if (brink_draws_kind(weather)) return;
  weather->kind = WEATHER_CALM;
  if (weather->mirror->calm) return;
  if (pick < weather->storm_percent) weather->kind = WEATHER_STORM;
  else if (pick < weather->storm_percent + weather->chaos_percent) weather->kind = WEATHER_CHAOS;
  if (weather->kind == WEATHER_STORM && weather->anchor == NO_ANCHOR) weather->kind = WEATHER_CALM;
}

static void draw_absent(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    struct sim_image *image = &mirror->images[i];
    if (!image->configured || (weather->kind == WEATHER_STORM && i == weather->anchor)) continue;
    image->absent = prng_one_in(&weather->prng, 4);
    if (!image->absent) continue;
    mirror->world->counters.image_absent++;
    world_trace(mirror->world, "image %s is absent", image->label);
    if (prng_one_in(&weather->prng, 2)) sim_image_plug(image, draw_start(&weather->prng, world_now(mirror->world)));
  }
}

/* Drawn from a stream of its own. */
static void draw_apart(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    struct sim_image *image = &mirror->images[i];
    if (!image->configured || image->cut_off || i == weather->anchor) continue;
    sim_image_remember(image, &weather->apart);
    if (!image->apart && prng_one_in(&weather->apart, 2)) image->apart = sim_image_serve_apart(image, &weather->apart);
    if (!image->apart) continue;
    image->absent = image->apart = !prng_one_in(&weather->apart, 3);
    world_cancel(mirror->world, &image->plugging);
  }
}

static void heal_image(struct sim_image *image, uint32_t volume_count) {
  for (uint32_t v = 0; v < volume_count; v++) faults_heal(&image->data[v].faults);
  faults_heal(&image->meta.faults);
}

/* ---- metadata that is not what it was, at the next activation ---- */

/* Maps may rot anywhere, since damage there means "all of it"; of the log one copy, and always the same; all of it only of an
 * image that the others can do without. */
static void rot_some(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  struct prng *prng = &weather->prng;
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    struct sim_image *image = &mirror->images[i];
    if (!image->configured || !image->rots || !prng_one_in(prng, 3)) continue;
    bool spare = weather->kind == WEATHER_CHAOS || i == weather->anchor;
    uint32_t parts = DAMAGE_LOG_0 | DAMAGE_MAPS;
    if (!spare && !weather->home_troubled && prng_one_in(prng, 2)) parts = DAMAGE_ALL;
    if (weather->kind == WEATHER_CHAOS && prng_one_in(prng, 2)) parts |= DAMAGE_LOG_1;
    damage_rot(&image->meta, parts, prng);
  }
}

/* The metadata of all images but the anchor is empty. */
static void lose_some(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  bool all = prng_one_in(&weather->prng, 3);
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    if (!mirror->images[i].configured || i == weather->anchor || !(all || prng_one_in(&weather->prng, 2))) continue;
    mirror->world->counters.meta_lost++;
    world_trace(mirror->world, "%s is lost", mirror->images[i].meta.medium->name);
    medium_erase(mirror->images[i].meta.medium);
  }
}

/* The state directory is lost, or is put back from an earlier life, while all images are well: they do without it. */
static void lose_home(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  weather->home_troubled = true;
  if (prng_one_in(&weather->prng, 2) && edits_home_goes_back(mirror)) {
    mirror->world->counters.home_went_back++;
    world_trace(mirror->world, "%s goes back", mirror->home.medium->name);
    return;
  }
  mirror->world->counters.home_lost++;
  world_trace(mirror->world, "%s is lost", mirror->home.medium->name);
  medium_erase(mirror->home.medium);
}

static void damage_some(struct weather *weather) {
  struct prng *prng = &weather->prng;
  if (weather->kind == WEATHER_STORM && weather->settled && prng_one_in(prng, 12)) {
    lose_home(weather);
    return;
  }
  if (prng_one_in(prng, 4)) rot_some(weather);
  if (weather->kind == WEATHER_STORM && !weather->home_troubled && prng_one_in(prng, 12)) lose_some(weather);
}

/* ---- the beginning ---- */

static void clear_for_anchor(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  if (weather->kind != WEATHER_CHAOS) mirror->config.max_missing = mirror->config.min_images = -1;
  if (weather->kind != WEATHER_STORM) return;
  mirror->promoted_next = weather->anchor;
  heal_image(&mirror->images[weather->anchor], mirror->volume_count);
  faults_heal(&mirror->home.faults);
}

/* A failed write may land later where its image is out by then: not where all images may fail it, and none is dropped. */
static void draw_late(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  for (uint32_t i = 0; i < mirror->image_count; i++)
    for (uint32_t v = 0; v < mirror->volume_count; v++)
      mirror->images[i].data[v].lands_late = weather->kind == WEATHER_STORM && i != weather->anchor;
}

void weather_begin(struct weather *weather) {
  static const char *const names[] = {"calm", "storm", "chaos"};
  struct sim_mirror *mirror = weather->mirror;
  draw_kind(weather);
  if (weather->kind == WEATHER_CALM || weather->home_troubled || weather->brink || prng_one_in(&weather->prng, 2))
    sim_mirror_heal(mirror);
  world_trace(mirror->world, "---- %s: %s, anchor %s ----", mirror->name, names[weather->kind],
              weather->anchor == NO_ANCHOR ? "none" : mirror->images[weather->anchor].name);
  mirror->rules = (struct client_rules){.errors_allowed = weather->kind == WEATHER_CHAOS};
  mirror->healed = weather->kind == WEATHER_CALM;
  mirror->operated = false;
  clear_for_anchor(weather);
  draw_late(weather);
  for (uint32_t i = 0; i < mirror->image_count; i++) mirror->images[i].absent = false;
  if (weather->brink) brink_begin(weather);
  if (weather->kind == WEATHER_CALM || weather->brink) return;
  damage_some(weather);
  if (weather->kind == WEATHER_STORM && weather->home_troubled) return;
  draw_absent(weather);
  if (!weather->home_troubled) draw_apart(weather);
  if (prng_one_in(&weather->prng, 3)) strike_some(weather, prng_between(&weather->prng, 1, 2));
}

/* Is an image absent, out of the set, or about to fail? */
static bool any_trouble(struct sim_mirror *mirror) {
  if (!sim_mirror_all_synchronized(mirror)) return true;
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    bool faulty = faults_any(&mirror->images[i].meta.faults);
    for (uint32_t v = 0; v < mirror->volume_count; v++) faulty |= faults_any(&mirror->images[i].data[v].faults);
    if (faulty) return true;
  }
  return false;
}

void weather_strike(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  if (weather->kind == WEATHER_CALM) return;
  if (weather->brink) {
    brink_strike(weather);
    return;
  }
  bool home = prng_one_in(&weather->prng, 5);
  if (home && (weather->kind == WEATHER_CHAOS || !any_trouble(mirror))) {
    strike(weather, &mirror->home);
    weather->home_troubled = true;
    if (weather->kind == WEATHER_STORM) return;
  }
  strike_some(weather, prng_between(&weather->prng, 1, 7));
  if (weather->kind == WEATHER_CHAOS && prng_one_in(&weather->prng, 2)) strike_all(weather);
  if (weather->kind == WEATHER_CHAOS && prng_one_in(&weather->prng, 2)) take_all(weather);
}

static bool is_sure(const struct sim_mirror *mirror, uint32_t i) {
  const struct sim_image *image = &mirror->images[i];
  return image->configured && image->synced_ns != 0 && world_now(mirror->world) - image->synced_ns >= SURE_NS;
}

bool weather_all_sure(const struct weather *weather) {
  for (uint32_t i = 0; i < weather->mirror->image_count; i++)
    if (weather->mirror->images[i].configured && !is_sure(weather->mirror, i)) return false;
  return true;
}

/* Any image that is in the set for sure; NO_ANCHOR if there is none. */
static uint32_t draw_anchor(struct weather *weather) {
  const struct sim_mirror *mirror = weather->mirror;
  uint32_t first = (uint32_t)prng_below(&weather->prng, mirror->image_count);
  for (uint32_t k = 0; k < mirror->image_count; k++)
    if (is_sure(mirror, (first + k) % mirror->image_count)) return (first + k) % mirror->image_count;
  return NO_ANCHOR;
}

void weather_end(struct weather *weather, bool clean) {
  struct sim_mirror *mirror = weather->mirror;
  world_cancel(mirror->world, &weather->report);
  bool active = mirror->core && mirror_state_now(mirror->core) == MIRROR_ACTIVE;
  weather->settled = false;
  if (weather->kind == WEATHER_CHAOS) {
    weather->anchor = NO_ANCHOR;
    weather->home_troubled = true;
    return;
  }
  if (active) (void)sim_mirror_status(mirror);
  if (weather->kind == WEATHER_CALM && (clean || active)) {
    uint32_t anchor = draw_anchor(weather);
    if (anchor != NO_ANCHOR || mirror->operated) weather->anchor = anchor;
    if (anchor != NO_ANCHOR) weather->home_troubled = false;
    weather->settled = anchor != NO_ANCHOR && weather_all_sure(weather);
  } else if (weather->kind == WEATHER_CALM && mirror->operated && weather->anchor != NO_ANCHOR &&
             !is_sure(mirror, weather->anchor)) {
    weather->anchor = NO_ANCHOR;
  }
}

bool weather_promises_activation(const struct weather *weather) { return weather->kind != WEATHER_CHAOS; }
