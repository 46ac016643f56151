#include "sim/spoil.h"

#include <inttypes.h>
#include <string.h>

#include "sim/strangers.h"

#define ALIGN 4096u

bool sim_image_can_be_spoiled(struct sim_mirror *mirror, uint32_t image) {
  if (!mirror->core || (!mirror->serving && !mirror->quiet) || mirror->images[image].spoiled) return false;
  const struct mirror_status *status = sim_mirror_status(mirror);
  if (!status->images[image].present || !mirror->images[image].open || mirror->calm) return false;
  for (uint32_t i = 0; i < mirror->image_count; i++)
    if (i != image && status->images[i].present && status->images[i].state == IMAGE_SYNCHRONIZED) return true;
  return false;
}

static void end_is_zero(struct sim_image *image, uint32_t v, uint64_t start) {
  struct medium *medium = image->data[v].medium;
  uint64_t bytes = medium->size_bytes - start;
  image->spoiled_from[v] = start;
  image->spoiled_end[v] = world_alloc(image->mirror->world, bytes);
  memcpy(image->spoiled_end[v], medium->visible + start, bytes);
  medium_write(medium, start, bytes, NULL, true);
  image->data[v].short_from = start;
  world_trace(image->mirror->world, "%s is made shorter: zero from %" PRIu64 " on", medium->name, start);
}

/* The next record that says something new has a higher sequence than this. */
static uint64_t sequence_now(const struct sim_mirror *mirror) {
  struct record record;
  uint64_t sequence = sim_record_load(&mirror->home, RECORD_SELF_HOME, &record) ? record.sequence : 0;
  for (uint32_t i = 0; i < mirror->image_count; i++)
    if (sim_record_load(&mirror->images[i].meta, i, &record)) sequence = max_u64(sequence, record.sequence);
  return sequence + mirror_round_runs(mirror->core); /* and that of a round which is under way */
}

void sim_image_spoil(struct sim_image *image, struct prng *prng) {
  struct sim_mirror *mirror = image->mirror;
  uint32_t i = sim_image_slot(image), v = (uint32_t)prng_below(prng, mirror->volume_count);
  require(!image->spoiled);
  image->spoiled = true;
  image->spoiled_sequence = sequence_now(mirror);
  image->spoiled_when_in = mirror->status.images[i].state == IMAGE_SYNCHRONIZED;
  image->moment_spoiled = image->had_moment;
  image->cut_off = image->had_moment = false;
  bool most = prng_one_in(prng, 2);
  uint64_t size = mirror->config.volumes[v].size_bytes;
  end_is_zero(image, v, align_down(prng_below(prng, most ? size / 4 : size), ALIGN));
  mirror->world->counters.spoiled++;
  mirror->world->counters.spoiled_out += mirror->status.images[i].missing != MISSING_NONE;
  mirror_image_spoiled(mirror->core, i, "its file was made shorter");
  mirror->world->counters.spoiled_fell += mirror_has_fallen(mirror->core);
}

static void forget(struct sim_image *image) {
  image->spoiled = image->moment_spoiled = false;
  for (uint32_t v = 0; v < image->mirror->volume_count; v++) {
    world_free(image->spoiled_end[v]);
    image->spoiled_end[v] = NULL;
  }
}

/* Of one that was in it is enough that it is out: the same record says that it misses everything. */
static bool is_recorded(const struct sim_image *image) {
  struct record home;
  const struct sim_drive *drive = &image->mirror->home;
  if (drive->medium->dirty_count != 0 || !sim_record_load(drive, RECORD_SELF_HOME, &home)) return false;
  if (home.sequence <= image->spoiled_sequence) return false;
  const struct record_image *recorded = &home.images[sim_image_slot(image)];
  if (!recorded->present || recorded->all_missed) return true;
  return image->spoiled_when_in && recorded->state != IMAGE_SYNCHRONIZED;
}

/* ... and nothing of what was there before is: its files were opened anew, and it is whole. */
static bool is_copied(const struct sim_image *image) {
  const struct sim_mirror *mirror = image->mirror;
  for (uint32_t v = 0; v < mirror->volume_count; v++)
    if (image->data[v].short_from != UINT64_MAX) return false;
  return mirror->core && mirror->serving && mirror->status.images[sim_image_slot(image)].state == IMAGE_SYNCHRONIZED;
}

void sim_mirror_watch_spoiled(struct sim_mirror *mirror) {
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    struct sim_image *image = &mirror->images[i];
    if (image->spoiled && (is_recorded(image) || is_copied(image))) forget(image);
  }
}

static void put_end_back(struct sim_image *image, uint32_t v) {
  struct medium *medium = image->data[v].medium;
  if (!image->spoiled_end[v]) return;
  uint64_t start = image->spoiled_from[v];
  medium_write(medium, start, medium->size_bytes - start, image->spoiled_end[v], true);
  world_trace(image->mirror->world, "%s is what it was", medium->name);
}

void sim_mirror_undo_spoiled(struct sim_mirror *mirror) {
  sim_mirror_watch_spoiled(mirror);
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    struct sim_image *image = &mirror->images[i];
    if (!image->spoiled) continue;
    for (uint32_t v = 0; v < mirror->volume_count; v++) put_end_back(image, v);
    image->had_moment |= image->moment_spoiled;
    forget(image);
  }
}
