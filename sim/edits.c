#include "sim/edits.h"

#include <string.h>

#include "sim/node.h"
#include "sim/strangers.h"

#define PAGE_BYTES 4096u
#define SETTLE_NS  (900 * NS_PER_S)

/* ---- what the records say ---- */

struct look {
  struct record best, home, own[SIM_IMAGES_MAX];
  uint32_t current, recorded, images; /* bits; how many the best record calls SYNCHRONIZED, and has */
};

static bool look_at(const struct sim_mirror *mirror, struct look *look) {
  memset(look, 0, sizeof *look);
  if (!sim_record_load(&mirror->home, RECORD_SELF_HOME, &look->home)) return false;
  look->best = look->home;
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    if (!mirror->images[i].configured) continue;
    if (!sim_record_load(&mirror->images[i].meta, i, &look->own[i])) return false;
    if (record_is_newer(&look->own[i], &look->best)) look->best = look->own[i];
  }
  if (!sim_record_knows(&look->best, &look->home.generation)) return false; /* written apart: home's line counts */
  for (uint32_t i = 0; i < mirror->image_count; i++) {
    const struct record_image *recorded = &look->best.images[i];
    if (recorded->present != mirror->images[i].configured) return false;
    if (!recorded->present) continue;
    if (!sim_record_knows(&look->best, &look->own[i].generation))
      return false; /* written apart: the newest need not be the one that counts */
    bool synchronized = recorded->state == IMAGE_SYNCHRONIZED;
    look->images++;
    look->recorded += synchronized;
    if (synchronized && look->own[i].sequence >= look->best.completed &&
        look->own[i].generation.id == look->best.generation.id)
      look->current |= 1u << i;
  }
  return look->current != 0;
}

/* ---- somebody writes ---- */

static void write_junk(struct sim_image *image, struct prng *prng) {
  uint8_t junk[PAGE_BYTES];
  memset(junk, (int)prng_between(prng, 1, 255), sizeof junk);
  for (uint32_t v = 0; v < image->mirror->volume_count; v++) {
    uint64_t pages = image->mirror->config.volumes[v].size_bytes / PAGE_BYTES;
    for (uint64_t count = prng_between(prng, 1, 8); count > 0; count--)
      medium_write(image->data[v].medium, prng_below(prng, pages) * PAGE_BYTES, PAGE_BYTES, junk, true);
  }
}

/* As a client would, and for good. False: too much is open about these bytes. */
static bool write_known(struct sim_image *image, struct prng *prng) {
  struct sim_mirror *mirror = image->mirror;
  uint32_t v = (uint32_t)prng_below(prng, mirror->volume_count);
  uint8_t page[PAGE_BYTES];
  uint64_t pages = mirror->config.volumes[v].size_bytes / PAGE_BYTES;
  struct model_op op = {
      .kind = MODEL_WRITE, .offset = prng_below(prng, pages) * PAGE_BYTES, .length = PAGE_BYTES, .fua = true};
  if (!model_begin(mirror->models[v], &op)) return false;
  model_fill(mirror->models[v], op.tag, op.offset, op.length, page);
  medium_write(image->data[v].medium, op.offset, op.length, page, true);
  (void)model_end(mirror->models[v], &op, true, NULL);
  return true;
}

static void replace(struct sim_image *image, struct prng *prng) {
  image->identity = prng_next(prng) | 1;
  write_junk(image, prng);
}

/* ---- and back ---- */

struct kept_bytes {
  uint64_t identity;
  uint32_t sequence[SIM_VOLUMES_MAX];
  uint8_t *data[SIM_VOLUMES_MAX];
};

static void keep(const struct sim_image *image, struct kept_bytes *kept) {
  kept->identity = image->identity;
  for (uint32_t v = 0; v < image->mirror->volume_count; v++) {
    const struct medium *medium = image->data[v].medium;
    kept->sequence[v] = medium->sequence;
    kept->data[v] = world_alloc(image->mirror->world, medium->size_bytes);
    memcpy(kept->data[v], medium->visible, medium->size_bytes);
  }
}

static void put_back(struct sim_image *image, const struct kept_bytes *kept) {
  image->identity = kept->identity;
  for (uint32_t v = 0; v < image->mirror->volume_count; v++) {
    struct medium *medium = image->data[v].medium;
    medium_put(medium, kept->data[v], medium->size_bytes);
    medium->sequence = kept->sequence[v];
  }
}

static void forget(const struct sim_image *image, const struct kept_bytes *kept) {
  for (uint32_t v = 0; v < image->mirror->volume_count; v++) world_free(kept->data[v]);
}

/* ---- by force ---- */

/* All is copied from those that count, and the mirror is stopped cleanly. */
static void force_and_settle(struct sim_mirror *mirror) {
  struct node *node = mirror->node;
  struct client_rules rules = mirror->rules;
  bool healed = mirror->healed;
  uint64_t deadline_ns = world_now(mirror->world) + SETTLE_NS;
  node_start(node);
  mirror->rules = (struct client_rules){0};
  mirror->strange = mirror->healed = true;
  mirror->config.max_missing = mirror->config.min_images = -1;
  sim_mirror_open(mirror);
  sim_mirror_activate(mirror, &(struct mirror_activation){.force = true});
  (void)sim_mirror_wait(mirror, UINT64_MAX);
  while (!sim_mirror_all_synchronized(mirror)) {
    if (world_now(mirror->world) > deadline_ns)
      world_fail(mirror->world, "after an activation by force the images do not become SYNCHRONIZED");
    sim_mirror_tend(mirror);
    node_step(node);
  }
  (void)sim_mirror_wait(mirror, UINT64_MAX);
  sim_mirror_deactivate(mirror);
  (void)sim_mirror_wait(mirror, UINT64_MAX);
  if (mirror->err != TARN_OK) world_fail(mirror->world, "deactivation failed: %s", mirror->why);
  while (!sim_mirror_can_close(mirror)) node_step(node);
  sim_mirror_close(mirror);
  mirror->strange = false;
  mirror->healed = healed;
  mirror->rules = rules;
  node_stop(node);
}

/* ---- what becomes of it ---- */

static uint32_t draw_bit(uint32_t bits, struct prng *prng) {
  require(bits != 0);
  uint32_t i;
  do i = (uint32_t)prng_below(prng, SIM_IMAGES_MAX);
  while (!(bits >> i & 1));
  return i;
}

/* One of several current images: it counts no more, and nobody is served before somebody says so. */
static void change_one(struct sim_mirror *mirror, const struct look *look, struct prng *prng) {
  struct sim_image *image = &mirror->images[draw_bit(look->current, prng)];
  bool replaced = !look->best.clean || prng_one_in(prng, 2), forced = !mirror->calm && prng_one_in(prng, 2);
  struct kept_bytes kept;
  if (look->current == (look->current & -look->current)) return; /* the only one */
  keep(image, &kept);
  if (replaced) replace(image, prng);
  else write_junk(image, prng);
  world_trace(mirror->world, "image %s was %s", image->label, replaced ? "replaced" : "written to");
  mirror->world->counters.edit_refused++;
  sim_must_be_refused(mirror, "a current image was changed by somebody else");
  if (forced) {
    mirror->world->counters.edit_forced++;
    force_and_settle(mirror);
  } else put_back(image, &kept);
  forget(image, &kept);
}

/* All of them: the master counts, as it is now. */
static void change_all(struct sim_mirror *mirror, const struct look *look, struct prng *prng) {
  uint32_t master = look->best.master, others = look->current & ~(1u << master);
  if (!look->best.clean || look->best.demoted || mirror->calm || !(look->current >> master & 1) || others == 0) return;
  if (!write_known(&mirror->images[master], prng)) return;
  for (; others != 0; others &= others - 1) write_junk(&mirror->images[__builtin_ctz(others)], prng);
  world_trace(mirror->world, "all images were written to; %s is the master", mirror->images[master].label);
  sim_must_be_refused(mirror, "all current images were changed by somebody else");
  mirror->world->counters.edit_all_forced++;
  force_and_settle(mirror);
}

/* The only one: it is used as it is, without a question. */
static void change_only(struct sim_mirror *mirror, const struct look *look, struct prng *prng) {
  uint32_t i = (uint32_t)__builtin_ctz(look->current);
  if (look->recorded != 1 || !look->best.clean || !write_known(&mirror->images[i], prng)) return;
  mirror->edited = true;
  mirror->world->counters.edit_used++;
  world_trace(mirror->world, "image %s was written to: it is the only one", mirror->images[i].label);
}

/* One that is out: what is known of it counts no more. */
static void change_behind(struct sim_mirror *mirror, const struct look *look, struct prng *prng) {
  uint32_t i = (uint32_t)prng_below(prng, mirror->image_count);
  struct sim_image *image = &mirror->images[i];
  const struct record_image *recorded = &look->best.images[i];
  bool is_dated = recorded->stamp.modified != 0;
  if (!recorded->present || recorded->state == IMAGE_SYNCHRONIZED || recorded->stamp.identity == 0) return;
  if (is_dated && prng_one_in(prng, 2)) write_junk(image, prng);
  else replace(image, prng);
  image->cut_off = image->had_moment = false;
  mirror->world->counters.edit_behind++;
  world_trace(mirror->world, "image %s was replaced, or written to, while it was out", image->label);
}

/* ---- the home store of an earlier life ---- */

static bool past_home(const struct sim_mirror *mirror, struct record *record) {
  struct record slots[2];
  tarn_err errs[2];
  if (!mirror->past_home) return false;
  for (uint32_t slot = 0; slot < 2; slot++)
    errs[slot] = record_decode(&slots[slot], mirror->past_home + slot * RECORD_SLOT_BYTES);
  if (errs[0] != TARN_OK || errs[1] != TARN_OK) return false;
  *record = slots[slots[1].sequence > slots[0].sequence];
  return true;
}

static bool is_known_to_all(const struct sim_mirror *mirror, const struct look *look, const struct record *home) {
  for (uint32_t i = 0; i < mirror->image_count; i++)
    if (mirror->images[i].configured && !sim_record_knows(&look->own[i], &home->generation)) return false;
  return true;
}

bool edits_home_goes_back(struct sim_mirror *mirror) {
  struct look look;
  struct record home;
  if (!past_home(mirror, &home) || !look_at(mirror, &look) || !is_known_to_all(mirror, &look, &home)) return false;
  if (memcmp(home.mirror_uuid, look.best.mirror_uuid, sizeof home.mirror_uuid) != 0) return false;
  if (home.sequence >= look.best.completed) return false;
  medium_write(mirror->home.medium, 0, RECORD_AREA_BYTES, mirror->past_home, true);
  return true;
}

/* Has somebody that was current by this home store not come along? He may have gone on by it. */
static bool is_anybody_left(const struct sim_mirror *mirror, const struct look *look, const struct record *home) {
  for (uint32_t i = 0; i < IMAGES_MAX; i++) {
    if (!home->images[i].present || home->images[i].state != IMAGE_SYNCHRONIZED) continue;
    bool here = i < mirror->image_count && mirror->images[i].configured && !mirror->images[i].absent;
    if (!here || !sim_record_knows(&look->best, &look->own[i].generation)) return true;
  }
  return false;
}

/* While one of the newest images is away, an old home store cannot confirm that nothing is lost: nobody is served from the others. */
static void home_back(struct sim_mirror *mirror, const struct look *look, struct prng *prng) {
  struct record home;
  uint8_t *kept;
  uint64_t bytes = mirror->home.medium->size_bytes;
  if (!past_home(mirror, &home) || memcmp(home.mirror_uuid, look->best.mirror_uuid, sizeof home.mirror_uuid) != 0)
    return;
  bool forgotten = home.generation.number != 0 && home.sequence < look->best.completed;
  for (uint32_t i = 0; i < mirror->image_count; i++)
    forgotten &= !mirror->images[i].configured || !sim_record_knows(&look->own[i], &home.generation);
  if (forgotten && !is_anybody_left(mirror, look, &home)) return; /* it is an old one, and no more */
  struct sim_image *away = NULL;
  if (!forgotten) {
    uint32_t victim = draw_bit(look->current, prng), others = look->current & ~(1u << victim);
    away = &mirror->images[victim];
    for (uint32_t i = 0; i < mirror->image_count; i++) { /* the image that is away is current for all who stay */
      if (!mirror->images[i].configured || i == victim) continue;
      if (look->own[i].images[victim].state != IMAGE_SYNCHRONIZED) return;
      if (others >> i & 1 && home.sequence >= look->own[i].completed) return;
    }
    if (others == 0 || home.images[victim].state != IMAGE_SYNCHRONIZED) return;
  }
  kept = world_alloc(mirror->world, bytes);
  memcpy(kept, mirror->home.medium->visible, bytes);
  medium_put(mirror->home.medium, mirror->past_home, bytes);
  if (away) away->absent = true;
  world_trace(mirror->world, "the home store goes back%s%s", away ? ", without image " : "", away ? away->label : "");
  mirror->world->counters.home_back_refused++;
  sim_must_be_refused(mirror, "the home store is of an earlier life");
  if (away) away->absent = false;
  medium_put(mirror->home.medium, kept, bytes);
  world_free(kept);
}

/* ---- they come ---- */

void edits_come(struct sim_mirror *mirror, struct prng *prng) {
  struct look look;
  uint64_t kind = prng_below(prng, 12);
  if (!sim_all_is_still(mirror) || !look_at(mirror, &look)) return;
  switch (kind) {
    case 0:
    case 1: change_one(mirror, &look, prng); break;
    case 2: change_all(mirror, &look, prng); break;
    case 3:
    case 4:
    case 5: change_only(mirror, &look, prng); break;
    case 6:
    case 7: change_behind(mirror, &look, prng); break;
    case 8:
    case 9: home_back(mirror, &look, prng); break;
    default: break;
  }
}
