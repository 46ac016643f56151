#include "sim/strangers.h"

#include <string.h>

#include "base/hash.h"
#include "sim/node.h"

#define UNIT 4096u

/* ---- what lies on the disks ---- */

static uint64_t volume_bytes(const struct sim_mirror *mirror, uint32_t v) {
  return mirror->config.volumes[v].size_bytes;
}

static uint8_t *copy_of(struct world *world, const uint8_t *bytes, uint64_t length) {
  uint8_t *copy = world_alloc(world, length);
  memcpy(copy, bytes, length);
  return copy;
}

static void exchange(struct sim_mirror *mirror, uint32_t a, uint32_t b) {
  for (uint32_t v = 0; v < mirror->volume_count; v++) {
    uint64_t length = volume_bytes(mirror, v);
    struct medium *one = mirror->images[a].data[v].medium, *other = mirror->images[b].data[v].medium;
    uint8_t *copy = copy_of(mirror->world, one->visible, length);
    medium_put(one, other->visible, length);
    medium_put(other, copy, length);
    world_free(copy);
  }
}

static bool is_still(const struct sim_drive *drive) {
  return drive->medium->dirty_count == 0 && !faults_any(&drive->faults);
}

/* Nothing is in a cache, nothing fails, nobody is away, and no image has to be what it was at some moment. */
bool sim_all_is_still(const struct sim_mirror *mirror) {
  bool still = is_still(&mirror->home) && !mirror->maybe_demoted && !mirror->edited;
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    const struct sim_image *image = &mirror->images[i];
    if (!image->configured) continue;
    still &=
        !image->absent && !image->apart && !image->cut_off && is_still(&image->meta) && !world_is_set(&image->plugging);
    for (uint32_t v = 0; v < mirror->volume_count; v++) still &= is_still(&image->data[v]);
  }
  return still;
}

/* ---- what is kept of an earlier moment ---- */

static void remember_image(struct sim_mirror *mirror, struct sim_image *image) {
  struct world *world = mirror->world;
  struct sim_past *past = &image->earlier;
  past->taken = image->configured;
  if (!past->taken) return;
  if (!past->meta) past->meta = world_alloc(world, image->meta.medium->size_bytes);
  memcpy(past->meta, image->meta.medium->visible, image->meta.medium->size_bytes);
  for (uint32_t v = 0; v < mirror->volume_count; v++) {
    if (!past->data[v]) past->data[v] = world_alloc(world, volume_bytes(mirror, v));
    memcpy(past->data[v], image->data[v].medium->visible, volume_bytes(mirror, v));
  }
}

static void remember(struct sim_mirror *mirror) {
  struct medium *home = mirror->home.medium;
  if (!mirror->past_home) mirror->past_home = world_alloc(mirror->world, home->size_bytes);
  memcpy(mirror->past_home, home->visible, home->size_bytes);
  for (uint32_t i = 0; i < mirror->image_count; i++) remember_image(mirror, &mirror->images[i]);
}

/* What is there changes places with what is remembered: so, done twice, all is as it was. */
static void swap_with_past(struct world *world, struct medium *medium, uint8_t *past, uint64_t length) {
  uint8_t *copy = copy_of(world, medium->visible, length);
  medium_put(medium, past, length);
  memcpy(past, copy, length);
  world_free(copy);
}

static bool is_other_data(const struct sim_mirror *mirror, uint32_t i, uint32_t other) {
  bool differs = false;
  for (uint32_t v = 0; v < mirror->volume_count; v++) {
    const uint8_t *bytes =
        i == other ? mirror->images[i].earlier.data[v] : mirror->images[other].data[v].medium->visible;
    differs |= memcmp(mirror->images[i].data[v].medium->visible, bytes, volume_bytes(mirror, v)) != 0;
  }
  return differs;
}

static void swap_data(struct sim_mirror *mirror, uint32_t i) {
  for (uint32_t v = 0; v < mirror->volume_count; v++)
    swap_with_past(mirror->world, mirror->images[i].data[v].medium, mirror->images[i].earlier.data[v],
                   volume_bytes(mirror, v));
}

static void swap_metadata(struct sim_mirror *mirror) {
  swap_with_past(mirror->world, mirror->home.medium, mirror->past_home, mirror->home.medium->size_bytes);
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    struct sim_image *image = &mirror->images[i];
    if (image->configured)
      swap_with_past(mirror->world, image->meta.medium, image->earlier.meta, image->meta.medium->size_bytes);
  }
}

/* ---- what the witnesses must tell ---- */

bool sim_record_load(const struct sim_drive *drive, uint32_t self, struct record *record) {
  struct record found[2];
  tarn_err errs[2];
  for (uint32_t slot = 0; slot < 2; slot++)
    errs[slot] = record_decode(&found[slot], drive->medium->visible + slot * RECORD_SLOT_BYTES);
  if (errs[0] != TARN_OK && errs[1] != TARN_OK) return false;
  bool second = errs[0] != TARN_OK || (errs[1] == TARN_OK && found[1].sequence > found[0].sequence);
  *record = found[second];
  return record->self == self;
}

bool sim_record_knows(const struct record *record, const struct generation *generation) {
  bool known = record->generation.id == generation->id;
  for (uint32_t h = 0; h < HISTORY_MAX && record->history[h].number != 0; h++)
    known |= record->history[h].id == generation->id;
  return known;
}

/* Regions that some log calls marked, in any sound copy of a sector; false: a sector of some image has none. */
static bool load_marks(const struct sim_mirror *mirror, uint32_t i, uint64_t mirror_id, struct bitmap *marked) {
  const struct geometry *layout = &mirror->layout;
  const uint8_t *meta = mirror->images[i].meta.medium->visible;
  uint64_t sectors = (layout->mark_count + layout->sector.log_entries - 1) / layout->sector.log_entries;
  for (uint64_t sector = 0; sector < sectors; sector++) {
    uint32_t sound = 0, entries[LOG_ENTRIES_PER_SECTOR];
    for (uint32_t copy = 0; copy < 2; copy++) {
      if (meta_log_decode_sector(layout, mirror_id, i, sector, meta + layout->log_offset[copy] + sector * SECTOR_BYTES,
                                 entries) != TARN_OK)
        continue;
      sound++;
      for (uint32_t e = 0; e < layout->sector.log_entries; e++)
        if (entries[e] != 0 && entries[e] <= marked->bit_count) bitmap_set(marked, entries[e] - 1);
    }
    if (sound == 0) return false;
  }
  return true;
}

static bool holds(const struct sim_mirror *mirror, uint32_t i, const struct witness *witness) {
  uint8_t hash[HASH_BYTES];
  uint32_t v = geometry_volume_at(&mirror->layout, witness->address);
  uint64_t offset = witness->address - mirror->layout.volume_base[v];
  hash_sha256(mirror->images[i].data[v].medium->visible + offset, min_u64(UNIT, volume_bytes(mirror, v) - offset),
              hash);
  return memcmp(hash, witness->hash, WITNESS_BYTES) == 0;
}

static bool is_unreadable(const struct record *record, uint64_t address) {
  for (uint32_t r = 0; r < record->unreadable.count; r++)
    if (record->unreadable.ranges[r].start < address + UNIT &&
        address < record->unreadable.ranges[r].start + record->unreadable.ranges[r].length)
      return true;
  return false;
}

/* Differs one that counts for sure? Whatever is not quite clear counts as no. */
static bool witnesses_tell(struct sim_mirror *mirror) {
  struct record home, best, own[SIM_IMAGES_MAX];
  uint64_t mirror_id;
  uint32_t present = 0, current = 0;
  if (!sim_record_load(&mirror->home, RECORD_SELF_HOME, &home)) return false;
  best = home;
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    if (!mirror->images[i].configured) continue;
    if (!sim_record_load(&mirror->images[i].meta, i, &own[i])) return false;
    if (!record_is_newer(&own[i], &best)) continue;
    if (!sim_record_knows(&own[i], &home.generation)) return false; /* of a line that nothing was answered from */
    best = own[i];
  }
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    if (!best.images[i].present) continue;
    if (!mirror->images[i].configured) return false;
    present++;
    bool is_current = best.images[i].state == IMAGE_SYNCHRONIZED && own[i].sequence >= best.completed &&
                      own[i].generation.id == best.generation.id;
    current |= (uint32_t)is_current << i;
  }
  if (present < 2) return false;
  struct bitmap marked;
  uint64_t *words = world_alloc(mirror->world, bitmap_bytes(mirror->layout.region_count));
  bitmap_init(&marked, words, mirror->layout.region_count);
  memcpy(&mirror_id, best.mirror_uuid, sizeof mirror_id);
  bool sound = true, differs = false;
  for (uint32_t i = 0; i < mirror->image_count && !best.clean; i++)
    if (current >> i & 1) sound &= load_marks(mirror, i, mirror_id, &marked);
  for (uint32_t w = 0; w < best.witness_count && sound; w++)
    for (uint32_t i = 0; i < mirror->image_count; i++)
      differs |= (current >> i & 1) && !bitmap_test(&marked, best.witnesses[w].address / mirror->layout.region_bytes) &&
                 !is_unreadable(&best, best.witnesses[w].address) && !holds(mirror, i, &best.witnesses[w]);
  world_free(words);
  return differs;
}

/* ---- they come ---- */

void sim_must_be_refused(struct sim_mirror *mirror, const char *what) {
  struct node *node = mirror->node;
  struct client_rules rules = mirror->rules;
  node_start(node);
  mirror->rules = (struct client_rules){.errors_allowed = true};
  mirror->strange = true;
  sim_mirror_open(mirror);
  sim_mirror_activate(mirror, NULL);
  (void)sim_mirror_wait(mirror, UINT64_MAX);
  if (mirror->err == TARN_OK) world_fail(mirror->world, "%s, and %s is served", what, mirror->name);
  while (mirror->core && !sim_mirror_can_close(mirror)) node_step(node);
  if (mirror->core) sim_mirror_close(mirror);
  mirror->strange = false;
  mirror->rules = rules;
  node_stop(node);
}

static uint32_t draw_image(const struct sim_mirror *mirror, struct prng *prng) {
  uint32_t i;
  do i = (uint32_t)prng_below(prng, mirror->image_count);
  while (!mirror->images[i].configured);
  return i;
}

static bool all_remembered(const struct sim_mirror *mirror) {
  for (uint32_t i = 0; i < mirror->image_count; i++)
    if (mirror->images[i].configured != mirror->images[i].earlier.taken) return false;
  return mirror->past_home != NULL;
}

void strangers_come(struct sim_mirror *mirror, struct prng *prng) {
  enum { EXCHANGED, DATA_BACK, METADATA_BACK } kind = (uint32_t)prng_below(prng, 3);
  static const char *const names[] = {"disks have changed places, a witness differs",
                                      "a disk went back, a witness differs",
                                      "all metadata went back, a witness differs"};
  struct sim_counters *counters = &mirror->world->counters;
  uint32_t a = draw_image(mirror, prng), b = draw_image(mirror, prng);
  if (!sim_all_is_still(mirror)) return;
  bool able = kind == EXCHANGED ? a != b : all_remembered(mirror);
  if (kind == DATA_BACK) b = a;
  bool harmless = able && kind != METADATA_BACK && !is_other_data(mirror, a, b); /* equal disks */
  if (!able || harmless) {
    remember(mirror);
    return;
  }
  for (uint32_t turn = 0; turn < 2; turn++) { /* there and back */
    switch (kind) {
      case EXCHANGED: exchange(mirror, a, b); break;
      case DATA_BACK: swap_data(mirror, a); break;
      case METADATA_BACK: swap_metadata(mirror); break;
    }
    if (turn == 1) break;
    bool told = witnesses_tell(mirror);
    world_trace(mirror->world, "%s: %s%s", mirror->name, names[kind], told ? "" : ": no");
    counters->strangers_noticed += told;
    counters->strangers_unseen += !told;
    mirror->stampless = true; /* as devices are: nothing tells that somebody wrote to them */
    if (told) sim_must_be_refused(mirror, names[kind]);
    mirror->stampless = false;
  }
  if (prng_one_in(prng, 2)) remember(mirror);
}

/* ---- one image is put back, with its metadata ---- */

void image_keep(struct sim_mirror *mirror, uint32_t image, struct kept *kept, bool served) {
  *kept = (struct kept){.taken = true, .served = served, .image = image};
  remember_image(mirror, &mirror->images[image]);
  world_trace(mirror->world, "image %s is kept as it is", mirror->images[image].label);
}

static void put_back(struct medium *medium, const uint8_t *bytes, uint64_t length) {
  medium_erase(medium);
  medium_put(medium, bytes, length);
}

void image_put_back(struct sim_mirror *mirror, struct kept *kept) {
  struct sim_image *image = &mirror->images[kept->image];
  require(kept->taken && !mirror->core);
  kept->taken = false;
  put_back(image->meta.medium, image->earlier.meta, image->meta.medium->size_bytes);
  for (uint32_t v = 0; v < mirror->volume_count; v++)
    put_back(image->data[v].medium, image->earlier.data[v], volume_bytes(mirror, v));
  mirror->world->counters.image_put_back++;
  world_trace(mirror->world, "image %s is put back to what it was when it was kept", image->label);
}
