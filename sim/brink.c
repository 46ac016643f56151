#include "sim/brink.h"

#include "sim/commands.h"
#include "sim/troubles.h"

/* ---- the kinds of weather take turns ---- */

/* At home's brink two lives belong together: in the second one those are absent that have stayed in the first. */
static bool is_second(const struct weather *weather) { return weather->lives % 3 == 1; }

bool brink_draws_kind(struct weather *weather) {
  weather->lives++;
  switch (weather->brink) {
    case BRINK_NONE:
    case BRINK_FUA:
    case BRINK_MASTER: return false;
    case BRINK_SOURCE:
    case BRINK_ALL:
    case BRINK_DOUBT:
    case BRINK_MAPS:
    case BRINK_READS:
    case BRINK_CLOSE:
    case BRINK_COPY:
    case BRINK_PLACES: weather->kind = weather->lives % 2 == 1 ? WEATHER_CHAOS : WEATHER_CALM; return true;
    case BRINK_BACK:
    case BRINK_COMMANDS:
    case BRINK_ROUNDS:
    case BRINK_AGAIN: weather->kind = WEATHER_CALM; return true;
    case BRINK_TROUBLES: troubles_draw(weather); return true;
    case BRINK_HOME: weather->kind = weather->lives % 3 == 2 ? WEATHER_CALM : WEATHER_CHAOS; return true;
  }
  return false;
}

/* ---- parts of a brink ---- */

static struct fault fault_of(uint32_t ops, uint64_t from_ns, uint64_t for_ns) {
  return (struct fault){.kind = FAULT_WHILE,
                        .ops = ops,
                        .end = UINT64_MAX,
                        .from_ns = from_ns,
                        .until_ns = from_ns + for_ns,
                        .err = TARN_IO};
}

static void slow_for(struct weather *weather, uint32_t image, uint32_t ops, uint64_t from_ns, uint64_t for_ns) {
  struct fault fault = fault_of(ops, from_ns, for_ns);
  fault.kind = FAULT_SLOW;
  (void)faults_add(&weather->mirror->images[image].data[0].faults, &fault);
}

static void slow_down(struct weather *weather, uint32_t image, uint64_t from_ns) {
  slow_for(weather, image, FAULT_ALL, from_ns, prng_between(&weather->prng, NS_PER_MS, 20 * NS_PER_MS));
}

static void report_next(struct weather *weather);

static void image_is_reported(struct sim_event *event) {
  struct weather *weather = CONTAINER_OF(event, struct weather, report);
  struct sim_mirror *mirror = weather->mirror;
  if (!mirror->core || !mirror->serving) return;
  mirror_image_failed(mirror->core, weather->reported, "its file was removed");
  if (weather->brink == BRINK_CLOSE && mirror->serving) report_next(weather);
}

/* Its file is gone, and all that is under way with it succeeds. */
static void report_gone(struct weather *weather, uint32_t image, uint64_t at_ns) {
  weather->report.run = image_is_reported;
  weather->reported = image;
  world_cancel(weather->mirror->world, &weather->report);
  world_at(weather->mirror->world, &weather->report, at_ns);
}

static void report_next(struct weather *weather) {
  uint64_t at_ns = world_now(weather->mirror->world) + prng_between(&weather->prng, NS_PER_MS, 20 * NS_PER_MS);
  report_gone(weather, weather_next_member(weather->mirror, weather->reported), at_ns);
}

/* ---- the master fails ---- */

static void strike_master(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  uint32_t master = weather_master(mirror);
  if (master == weather->anchor) return;
  struct sim_drive *drive = &mirror->images[master].data[prng_below(&weather->prng, mirror->volume_count)];
  struct fault fault = {
      .kind = FAULT_ONCE, .ops = FAULT_WRITE, .until_ns = UINT64_MAX, .end = UINT64_MAX, .err = TARN_IO};
  if (prng_below(&weather->prng, 4) != 0) fault.ops = FAULT_FLUSH;
  fault.skip = (uint32_t)prng_below(&weather->prng, fault.ops == FAULT_FLUSH ? 3 : 30);
  (void)faults_add(&drive->faults, &fault);
}

/* Writes are slow there from then on, so that flushes come and go beside one that fails. */
static void strike_fua(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  uint32_t master = weather_master(mirror);
  if (master == weather->anchor) return;
  uint64_t from_ns = world_now(mirror->world) + prng_below(&weather->prng, 40 * NS_PER_MS);
  struct fault fault = fault_of(FAULT_WRITE, from_ns, UINT64_MAX - from_ns);
  fault.kind = FAULT_ONCE;
  fault.fua = fault.whole = true;
  (void)faults_add(&mirror->images[master].data[0].faults, &fault);
  slow_for(weather, master, FAULT_WRITE, from_ns, 200 * NS_PER_MS);
}

/* A source that goes on answering what it was asked before it was lost. */
static void report_source(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  uint64_t now = world_now(mirror->world);
  for (uint32_t i = 0; i < mirror->image_count; i++) slow_down(weather, i, now);
  report_gone(weather, weather_master(mirror), now + prng_below(&weather->prng, 8 * NS_PER_MS));
}

/* The source is lost within milliseconds, most likely in the middle of a recovery, and who takes its place can often not be
 * recorded. */
static void strike_source(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  struct prng *prng = &weather->prng;
  uint64_t now = world_now(mirror->world), victims = prng_one_in(prng, 3) ? 2 : 1;
  struct fault fault = {
      .kind = FAULT_GOOD, .ops = FAULT_WRITE | FAULT_FLUSH, .until_ns = UINT64_MAX, .end = UINT64_MAX, .err = TARN_IO};
  if (prng_one_in(prng, 3)) {
    report_source(weather);
    return;
  }
  fault.from_ns = now + prng_below(prng, NS_PER_MS);
  if (prng_one_in(prng, 4)) sim_drive_lose(&mirror->home, fault.from_ns);
  else if (prng_below(prng, 3) != 0) (void)faults_add(&mirror->home.faults, &fault);
  for (uint32_t image = weather_master(mirror); victims > 0; victims--, image = weather_next_member(mirror, image)) {
    fault.from_ns = now + prng_below(prng, 4 * NS_PER_MS);
    fault.ops = FAULT_ALL;
    fault.kind = prng_one_in(prng, 2) ? FAULT_GOOD : FAULT_HANG;
    if (prng_one_in(prng, 3)) sim_image_unplug(&mirror->images[image], fault.from_ns);
    else (void)faults_add(&mirror->images[image].data[0].faults, &fault);
  }
}

/* ---- all images fail together ---- */

static void strike_disks(struct weather *weather, const struct fault *fault, uint32_t spared) {
  struct sim_mirror *mirror = weather->mirror;
  for (uint32_t i = 0; i < mirror->image_count; i++)
    if (i != spared) (void)faults_add(&mirror->images[i].data[0].faults, fault);
}

/* What a flush leaves in doubt that fails, and writes that were issued before and end behind it. */
static void strike_flushes(struct weather *weather) {
  struct prng *prng = &weather->prng;
  uint64_t now = world_now(weather->mirror->world);
  for (uint64_t count = prng_between(prng, 1, 4); count > 0; count--) {
    uint64_t from_ns = now + prng_below(prng, prng_one_in(prng, 2) ? 5 * NS_PER_MS : 60 * NS_PER_MS);
    struct fault fault = fault_of(FAULT_FLUSH, from_ns, prng_between(prng, NS_PER_MS / 10, 3 * NS_PER_MS));
    if (prng_one_in(prng, 2)) fault.kind = FAULT_ONCE;
    if (fault.kind == FAULT_ONCE) fault.until_ns = UINT64_MAX;
    strike_disks(weather, &fault, IMAGES_MAX);
    if (prng_one_in(prng, 2)) slow_down(weather, weather_master(weather->mirror), from_ns);
  }
}

/* One flush of the mirror fails everywhere, and not the next: the same one of each disk. */
static void strike_same_flush(struct weather *weather) {
  for (uint64_t count = prng_between(&weather->prng, 2, 6); count > 0; count--) {
    struct fault fault = fault_of(FAULT_FLUSH, 0, UINT64_MAX);
    fault.kind = FAULT_ONCE;
    fault.skip = (uint32_t)prng_below(&weather->prng, 20);
    strike_disks(weather, &fault, IMAGES_MAX);
  }
}

/* One round that carries the first marks. */
static void strike_marks(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  struct fault fault = fault_of(FAULT_WRITE, 0, UINT64_MAX);
  fault.kind = FAULT_ONCE;
  fault.whole = true;
  if (prng_one_in(&weather->prng, 3)) fault.skip = (uint32_t)prng_below(&weather->prng, 5);
  for (uint32_t i = 0; i < 2 * mirror->image_count; i++) /* both copies of a block */
    (void)faults_add(&mirror->images[i / 2].meta.faults, &fault);
}

/* An image leaves; when it is being copied to, which is a second later at least, the clients have more to ask, and writes fail on
 * all others now and then. */
static void strike_copying(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  weather->armed = true;
  report_gone(weather, weather_next_member(mirror, weather_master(mirror)), world_now(mirror->world) + 1);
}

void brink_watch(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  struct prng *prng = &weather->prng;
  uint32_t other = 0;
  if (!weather->armed || weather->kind != WEATHER_CHAOS) return;
  while (other < mirror->image_count && mirror->images[other].state != IMAGE_SYNCHRONIZING) other++;
  if (other == mirror->image_count) return;
  weather->armed = false;
  for (uint64_t count = 14, at_ns = world_now(mirror->world); count > 0; count--) {
    at_ns += prng_between(prng, NS_PER_MS / 2, (weather->brink == BRINK_COPY ? 40 : 8) * NS_PER_MS);
    struct fault fault = fault_of(FAULT_WRITE, at_ns, NS_PER_S);
    fault.kind = FAULT_ONCE; /* the same one of each disk */
    strike_disks(weather, &fault, other);
  }
  for (uint32_t c = 0; c < mirror->client_count; c++) client_more(&mirror->clients[c], 100);
}

/* Now and then one write fails on all; a moment later the master is gone, and reads of it are still under way, clients' and merges',
 * also when what the write has left is equal again. Or the master has the write, and is gone a moment before it fails on all others:
 * reads that saw it wait for the record of that. */
static void strike_and_lose_master(struct weather *weather) {
  struct prng *prng = &weather->prng;
  uint32_t master = weather_master(weather->mirror);
  uint64_t at_ns = world_now(weather->mirror->world);
  weather->master_first = prng_one_in(prng, 2);
  for (uint64_t count = 6; count > 0; count--) {
    at_ns += prng_between(prng, NS_PER_MS, 40 * NS_PER_MS);
    struct fault fault = fault_of(FAULT_WRITE, at_ns, NS_PER_S);
    fault.kind = FAULT_ONCE; /* the same one of each disk */
    strike_disks(weather, &fault, weather->master_first ? master : IMAGES_MAX);
    if (!weather->master_first)
      slow_for(weather, master, FAULT_READ, at_ns, prng_between(prng, NS_PER_MS, 8 * NS_PER_MS));
  }
}

static void lose_master(struct weather *weather, uint64_t within_ns) {
  if (weather->kind != WEATHER_CHAOS || world_is_set(&weather->report)) return;
  uint64_t at_ns = world_now(weather->mirror->world) + prng_below(&weather->prng, within_ns);
  report_gone(weather, weather_master(weather->mirror), at_ns);
}

void brink_error(struct weather *weather) {
  lose_master(weather, (prng_one_in(&weather->prng, 2) ? 2 : 8) * NS_PER_MS);
}

void brink_struck(struct weather *weather) {
  if (weather->master_first) lose_master(weather, NS_PER_MS);
}

static void strike_all_images(struct weather *weather) {
  weather->armed = false;
  weather->story = (enum story)prng_below(&weather->prng, STORY_COUNT);
  switch (weather->story) {
    case STORY_DOUBT: strike_flushes(weather); break;
    case STORY_MARKS: strike_marks(weather); break;
    case STORY_COPYING: strike_copying(weather); break;
    case STORY_COUNT: break;
  }
}

/* ---- home cannot be written ---- */

/* Those that the life before has ended with are away. */
static void leave_the_old(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    struct sim_image *image = &mirror->images[i];
    image->absent = image->configured && !image->was_out;
    if (image->absent) world_trace(mirror->world, "image %s is absent", image->label);
  }
}

static void strike_home(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  struct prng *prng = &weather->prng;
  uint64_t at_ns = world_now(mirror->world) + prng_below(prng, 5 * NS_PER_MS);
  struct fault fault = {.kind = FAULT_GOOD,
                        .ops = FAULT_WRITE,
                        .from_ns = at_ns,
                        .until_ns = UINT64_MAX,
                        .end = UINT64_MAX,
                        .err = TARN_IO};
  (void)faults_add(&mirror->home.faults, &fault);
  fault.from_ns += prng_below(prng, 5 * NS_PER_MS);
  uint32_t victim = weather_master(mirror);
  if (prng_one_in(prng, 2)) victim = weather_next_member(mirror, victim);
  (void)faults_add(&mirror->images[victim].data[0].faults, &fault);
}

/* ---- disks are closed, with something in their caches ---- */

/* A flush fails on all images, and the life is stopped in the recovery that this makes necessary; or one image is gone after the
 * other, so that the mirror falls, and the last flushes of its images are good, or fail. */
static void strike_closing(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  struct prng *prng = &weather->prng;
  uint64_t at_ns = world_now(mirror->world) + prng_below(prng, 20 * NS_PER_MS);
  struct fault fault = fault_of(FAULT_FLUSH, at_ns, 40 * NS_PER_MS);
  fault.kind = FAULT_ONCE;
  uint64_t kind = prng_below(prng, 3);
  if (kind != 0) report_gone(weather, weather_next_member(mirror, weather_master(mirror)), at_ns);
  if (kind != 1) strike_disks(weather, &fault, IMAGES_MAX);
}

/* ---- marks come and go, and an image is away ---- */

static void strike_maps(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  report_gone(weather, weather_next_member(mirror, weather_master(mirror)), world_now(mirror->world) + 1);
}

/* ---- places that no image can read ---- */

static void strike_the_same_place(struct weather *weather) {
  struct sim_mirror *mirror = weather->mirror;
  struct prng *prng = &weather->prng;
  const struct workload *workload = &mirror->workloads[0];
  uint32_t spot = (uint32_t)prng_below(prng, COUNT_OF(workload->hot));
  struct fault fault = {.kind = FAULT_BAD_SECTOR, .ops = FAULT_READ, .until_ns = UINT64_MAX, .err = TARN_IO};
  fault.start = align_down(workload->hot[spot].start + prng_below(prng, workload->hot[spot].bytes), 4096);
  fault.end = min_u64(fault.start + 4096, mirror->config.volumes[0].size_bytes);
  for (uint32_t i = 0; i < mirror->image_count; i++) (void)faults_add(&mirror->images[i].data[0].faults, &fault);
}

/* ---- the moments of a life ---- */

void brink_begin(struct weather *weather) {
  if (weather->brink == BRINK_TROUBLES) troubles_begin(weather);
  if (weather->brink == BRINK_COMMANDS) commands_spoil(weather);
  if (weather->kind != WEATHER_CHAOS) return;
  if (weather->brink == BRINK_HOME && is_second(weather)) leave_the_old(weather);
  for (uint64_t count = 4; weather->brink == BRINK_PLACES && count > 0; count--) strike_the_same_place(weather);
}

void brink_strike(struct weather *weather) {
  bool chaos = weather->kind == WEATHER_CHAOS;
  switch (weather->brink) {
    case BRINK_NONE: break;
    case BRINK_MASTER: strike_master(weather); break;
    case BRINK_FUA: strike_fua(weather); break;
    case BRINK_SOURCE:
      if (chaos) strike_source(weather);
      break;
    case BRINK_ALL:
      if (chaos) strike_all_images(weather);
      break;
    case BRINK_HOME:
      if (chaos && !is_second(weather)) strike_home(weather);
      break;
    case BRINK_DOUBT:
      if (chaos) strike_same_flush(weather);
      break;
    case BRINK_MAPS:
      if (chaos) strike_maps(weather);
      break;
    case BRINK_READS:
      if (chaos) strike_and_lose_master(weather);
      break;
    case BRINK_CLOSE:
      if (chaos) strike_closing(weather);
      break;
    case BRINK_COPY:
      if (chaos) strike_copying(weather);
      break;
    case BRINK_TROUBLES: troubles_strike(weather); break;
    case BRINK_PLACES:
    case BRINK_BACK:
    case BRINK_COMMANDS:
    case BRINK_ROUNDS:
    case BRINK_AGAIN: break;
  }
}
