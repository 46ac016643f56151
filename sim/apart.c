#include "sim/apart.h"

#include <string.h>

#define JUNK_BYTES 4096u

/* The newer one of both slots. */
static bool record_read(const struct medium *medium, struct record *record) {
  uint8_t bytes[RECORD_BYTES];
  struct record slots[2];
  bool good[2];
  for (uint32_t slot = 0; slot < 2; slot++) {
    medium_read(medium, slot * RECORD_SLOT_BYTES, RECORD_BYTES, bytes);
    good[slot] = record_decode(&slots[slot], bytes) == TARN_OK;
  }
  uint32_t best = good[0] && (!good[1] || slots[0].sequence > slots[1].sequence) ? 0 : 1;
  if (good[best]) *record = slots[best];
  return good[best];
}

static bool knows(const struct record *record, const struct generation *g) {
  bool known = record->generation.number == g->number && record->generation.id == g->id;
  for (uint32_t h = 0; h < HISTORY_MAX; h++) known |= record->history[h].id == g->id && g->number != 0;
  return known;
}

/* Out, by the record of the state directory. */
static bool is_out(const struct record *home, uint32_t i) {
  return home->images[i].present && home->images[i].state == IMAGE_UNSYNCHRONIZED &&
         home->images[i].missing == MISSING_FAILED;
}

/* By its own what it was when it left, or once before. */
static bool can_be_served(const struct record *own, const struct record *home, uint32_t i) {
  return own->images[i].state == IMAGE_SYNCHRONIZED && knows(home, &own->generation) &&
         memcmp(home->mirror_uuid, own->mirror_uuid, sizeof own->mirror_uuid) == 0;
}

void sim_image_remember(struct sim_image *image, struct prng *prng) {
  struct record home, own;
  if (image->past && !prng_one_in(prng, 12)) return;
  if (!record_read(image->mirror->home.medium, &home) || !record_read(image->meta.medium, &own)) return;
  if (!can_be_served(&own, &home, sim_image_slot(image))) return;
  if (!image->past) image->past = world_alloc(image->mirror->world, sizeof *image->past);
  *image->past = own;
}

static void begin_generation(struct record *own, uint32_t history, uint64_t id) {
  memmove(&own->history[1], &own->history[0], sizeof own->history[0] * (history - 1));
  own->history[0] = own->generation;
  own->generation.number++;
  own->generation.id = id;
}

/* As after a clean stop of that other daemon, so many records later. */
static void go_on_apart(struct record *own, uint64_t sequence, uint64_t records) {
  own->sequence = max_u64(own->sequence, sequence) + records;
  own->completed = own->sequence - 1;
  own->settled_number = own->generation.number;
  own->clean = true;
  own->doubt = false;
  own->recovery_source = RECORD_NO_SOURCE;
}

bool sim_image_serve_apart(struct sim_image *image, struct prng *prng) {
  struct sim_mirror *mirror = image->mirror;
  struct record home, own;
  uint8_t bytes[RECORD_BYTES], junk[JUNK_BYTES];
  uint32_t i = sim_image_slot(image);
  require(!mirror->core);
  if (!image->past || !record_read(mirror->home.medium, &home) || !is_out(&home, i)) return false;
  if (home.generation.number > home.settled_number)
    return false; /* nothing was answered since it left: it would be the newest */
  if (mirror->home.medium->dirty_count != 0)
    return false; /* a power loss may take that back: then it would be the newest */
  if (memcmp(home.mirror_uuid, image->past->mirror_uuid, sizeof home.mirror_uuid) != 0) return false;
  own = *image->past;
  bool goes_on = prng_one_in(prng, 3); /* in its generation: none of its images was out there either */
  if (!goes_on) begin_generation(&own, mirror->config.limits->history, prng_next(prng));
  /* So few that the generation alone tells, or more. */
  if (!goes_on && prng_one_in(prng, 2)) go_on_apart(&own, home.images[i].seen_sequence, 2);
  else go_on_apart(&own, home.sequence, 4);
  record_encode(&own, bytes);
  for (uint32_t slot = 0; slot < 2; slot++)
    medium_write(image->meta.medium, slot * RECORD_SLOT_BYTES, RECORD_BYTES, bytes, true);
  memset(junk, (int)prng_between(prng, 1, 255), sizeof junk);
  for (uint32_t v = 0; v < mirror->volume_count; v++) {
    uint64_t pages = mirror->config.volumes[v].size_bytes / JUNK_BYTES;
    for (uint64_t count = prng_between(prng, 1, 8); count > 0; count--)
      medium_write(image->data[v].medium, prng_below(prng, pages) * JUNK_BYTES, JUNK_BYTES, junk, true);
  }
  mirror->world->counters.served_apart++;
  mirror->world->counters.apart_in_ours += goes_on;
  world_trace(mirror->world, "image %s was served apart: generation %llu%s", image->label,
              (unsigned long long)own.generation.number, goes_on ? ", which is one of ours" : "");
  return true;
}
