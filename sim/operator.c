#include "sim/operator.h"

#include "sim/spoil.h"

static void operator_turn(struct sim_event *event);

void operator_init(struct operator* operator, struct sim_mirror * mirror) {
  *operator=(struct operator){.mirror = mirror, .turn = {.run = operator_turn}};
  operator->prng = world_stream(mirror->world, "operator", mirror->index);
  operator->spoil_prng = world_stream(mirror->world, "spoiled", mirror->index);
}

static void wait_for_turn(struct operator* operator) {
  struct world *world = operator->mirror->world;
  uint64_t most_ns = prng_one_in(&operator->prng, 8) ? 3 * NS_PER_S : operator->pause_ns;
  world_at(world, &operator->turn, world_now(world) + prng_between(&operator->prng, 1000, most_ns));
}

void operator_begin(struct operator* operator, uint32_t spared, bool bold) {
  operator->spared = spared;
  operator->bold = bold;
  operator->down = false;
  operator->pause_ns = NS_PER_MS << prng_below(&operator->prng, 9);
  operator->mirror->op_image = UINT32_MAX;
  wait_for_turn(operator);
}

void operator_end(struct operator* operator) { world_cancel(operator->mirror->world, &operator->turn); }

/* ---- on which image ---- */

static const struct mirror_image_status *status_of(const struct operator* operator, uint32_t i) {
  return &operator->mirror->status.images[i];
}

/* Any, but more often one on which it makes sense. */
static uint32_t draw_image(struct operator* operator, enum mirror_image_op op) {
  const struct sim_mirror *mirror = operator->mirror;
  uint32_t image = 0;
  for (uint32_t tries = 0; tries < 4; tries++) {
    image = (uint32_t)prng_below(&operator->prng, mirror->image_count);
    const struct mirror_image_status *status = status_of(operator, image);
    bool is_out = status->missing != MISSING_NONE, current = status->state == IMAGE_SYNCHRONIZED;
    if (!status->present) continue;
    switch (op) {
      case IMAGE_OP_RESTORE:
        if (is_out) return image;
        break;
      case IMAGE_OP_PROMOTE:
      case IMAGE_OP_FRACTURE:
        if (current && !status->master) return image;
        break;
      case IMAGE_OP_DEMOTE:
        if (status->master) return image;
        break;
      case IMAGE_OP_ASSUME:
        if (!current) return image;
        break;
      case IMAGE_OP_REMOVE:
      case IMAGE_OP_SYNC:
        if (!status->master) return image;
        break;
      case IMAGE_OP_COUNT: break;
    }
  }
  return image;
}

/* He says that an image is equal only if it is. */
static bool is_truly_equal(const struct operator* operator, uint32_t image) {
  const struct sim_mirror *mirror = operator->mirror;
  for (uint32_t i = 0; i < mirror->image_count; i++)
    if (i != image && status_of(operator, i)->present && status_of(operator, i)->state == IMAGE_SYNCHRONIZED)
      return sim_mirror_images_equal(mirror, image, i);
  return false;
}

static bool takes_out(enum mirror_image_op op) {
  return op == IMAGE_OP_REMOVE || op == IMAGE_OP_SYNC || op == IMAGE_OP_FRACTURE;
}

static void do_image(struct operator* operator, enum mirror_image_op op) {
  struct sim_mirror *mirror = operator->mirror;
  uint32_t image = draw_image(operator, op);
  if (takes_out(op) && image == operator->spared) return;
  if (op == IMAGE_OP_ASSUME && !is_truly_equal(operator, image)) return;
  sim_mirror_image_do(mirror, image, op, op == IMAGE_OP_REMOVE && prng_one_in(&operator->prng, 2));
}

/* ---- what ---- */

/* A new disk holds what it held somewhere else. */
static void spoil(struct operator* operator, struct sim_image * image) {
  static const uint8_t junk[4096] = {0xa5, 1, 2, 3};
  for (uint32_t v = 0; v < operator->mirror->volume_count; v++) {
    struct medium *medium = image->data[v].medium;
    for (uint32_t k = 0; k < 4; k++)
      medium_write(medium,
                   align_down(prng_below(&operator->prng, operator->mirror->config.volumes[v].size_bytes), 4096), 4096,
                   junk, true);
  }
}

static void do_add(struct operator* operator) {
  struct sim_mirror *mirror = operator->mirror;
  uint32_t slot = (uint32_t)prng_below(&operator->prng, SIM_IMAGES_MAX);
  if (prng_one_in(&operator->prng, 2)) slot = (uint32_t)prng_below(&operator->prng, mirror->image_count);
  if (slot < mirror->image_count && (mirror->images[slot].configured || mirror->images[slot].open)) return;
  uint32_t images = 0;
  for (uint32_t i = 0; i < mirror->image_count; i++) images += mirror->images[i].configured;
  if (images > mirror->limits.history) return; /* fill_config() says why */
  bool fresh = slot >= mirror->image_count;
  if (fresh) sim_mirror_grow(mirror, slot + 1);
  struct sim_image *image = &mirror->images[slot];
  for (uint32_t v = 0; v < mirror->volume_count && prng_below(&operator->prng, 4) != 0; v++) {
    uint64_t size_bytes = image->data[v].caps.size_bytes;
    image->data[v].caps =
        mirror->images[0].data[v].caps; /* of the same kind, as one who replaces a disk would choose */
    image->data[v].caps.size_bytes = align_up(size_bytes, image->data[v].caps.align_bytes);
  }
  if (fresh) spoil(operator, image);
  bool assumed = mirror->quiet && is_truly_equal(operator, slot);
  sim_mirror_image_add(mirror, slot, assumed);
}

static void do_settings(struct operator* operator) {
  struct sim_mirror *mirror = operator->mirror;
  struct prng *prng = &operator->prng;
  uint32_t i = (uint32_t)prng_below(prng, mirror->image_count);
  struct image_policy *policy = &mirror->images[i].policy;
  mirror->world->counters.op_limits++;
  if (prng_one_in(prng, 2) && mirror->images[i].configured) {
    policy->hang_ns = prng_between(prng, HANG_MIN_NS, 2 * NS_PER_S);
    policy->return_by_itself = !prng_one_in(prng, 3);
    policy->return_after_ns = prng_between(prng, NS_PER_S / 50, 2 * NS_PER_S);
    policy->rate = prng_one_in(prng, 4) ? prng_between(prng, 4u << 20, 64u << 20) : 0;
    mirror_set_policy(mirror->core, i, policy);
    return;
  }
  /* Limits that can stop it are for those who may. */
  mirror->config.max_missing = operator->bold && prng_one_in(prng, 3) ? (int32_t)prng_below(prng, 3) : -1;
  mirror->config.min_images = operator->bold && prng_one_in(prng, 3) ? (int32_t)prng_between(prng, 1, 3) : -1;
  mirror->config.read_master = prng_one_in(prng, 3);
  mirror_set_limits(mirror->core, mirror->config.max_missing, mirror->config.min_images, mirror->config.read_master);
}

static void do_verify(struct operator* operator) {
  struct sim_mirror *mirror = operator->mirror;
  if (mirror->verifying) mirror_verify_stop(mirror->core);
  else
    sim_mirror_verify(mirror, prng_one_in(&operator->prng, 3)
                                  ? (uint32_t)prng_below(&operator->prng, mirror->image_count)
                                  : IMAGES_MAX);
}

/* A file of an image has gone, or has become shorter, and the watch has noticed. */
static void do_fail(struct operator* operator) {
  struct sim_mirror *mirror = operator->mirror;
  uint32_t i = (uint32_t)prng_below(&operator->prng, mirror->image_count);
  if (!status_of(operator, i)->present || i == operator->spared) return;
  if (!operator->bold && status_of(operator, i)->master) return;
  if (prng_one_in(&operator->spoil_prng, 2) && sim_image_can_be_spoiled(mirror, i)) {
    sim_image_spoil(&mirror->images[i], &operator->spoil_prng);
    return;
  }
  mirror_image_failed(mirror->core, i, "its file was removed");
}

static void do_deactivate(struct operator* operator) {
  struct sim_mirror *mirror = operator->mirror;
  mirror->rules.stopping = true;
  mirror->world->counters.op_deactivate += mirror->serving;
  operator->down = true;
  sim_mirror_deactivate(mirror);
}

static void do_something(struct operator* operator) {
  static const enum mirror_image_op serving_ops[] = {IMAGE_OP_FRACTURE, IMAGE_OP_FRACTURE, IMAGE_OP_RESTORE,
                                                     IMAGE_OP_RESTORE,  IMAGE_OP_RESTORE,  IMAGE_OP_PROMOTE,
                                                     IMAGE_OP_PROMOTE,  IMAGE_OP_SYNC,     IMAGE_OP_REMOVE};
  static const enum mirror_image_op quiet_ops[] = {IMAGE_OP_DEMOTE, IMAGE_OP_PROMOTE, IMAGE_OP_ASSUME,
                                                   IMAGE_OP_ASSUME, IMAGE_OP_ASSUME,  IMAGE_OP_FRACTURE,
                                                   IMAGE_OP_SYNC,   IMAGE_OP_RESTORE, IMAGE_OP_REMOVE};
  struct prng *prng = &operator->prng;
  bool quiet = operator->mirror->quiet;
  if (quiet && prng_one_in(prng, 4)) sim_mirror_probe(operator->mirror);
  switch (prng_below(prng, quiet ? 6 : 12)) {
    case 0: do_deactivate(operator); return;
    case 1:
    case 2: do_add(operator); return;
    case 3: do_settings(operator); return;
    case 4:
      if (!quiet) do_verify(operator);
      return;
    case 6: do_fail(operator); return;
    default: break;
  }
  if (quiet) do_image(operator, quiet_ops[prng_below(prng, COUNT_OF(quiet_ops))]);
  else do_image(operator, serving_ops[prng_below(prng, COUNT_OF(serving_ops))]);
}

/* ---- when ---- */

static void intruded(struct mirror *core, tarn_err err, const char *why, void *context) {
  (void)core, (void)why;
  *(tarn_err *)context = err;
}

/* During another operation: refused, at once. */
static void intrude(struct operator* operator) {
  struct sim_mirror *mirror = operator->mirror;
  tarn_err err = TARN_OK;
  mirror->world->counters.op_intruded++;
  mirror_image_do(mirror->core, 0, IMAGE_OP_PROMOTE, false, intruded, &err);
  if (err != TARN_REFUSED) world_fail(mirror->world, "two operations run at once on %s", mirror->name);
}

static void bring_up(struct operator* operator) {
  struct sim_mirror *mirror = operator->mirror;
  struct mirror_activation how = {0};
  if (world_is_set(&mirror->again)) return; /* it comes by itself */
  how.quiet = prng_one_in(&operator->prng, 2);
  if (!how.quiet && prng_one_in(&operator->prng, 4)) {
    how.promote = true;
    how.image = (uint32_t)prng_below(&operator->prng, mirror->image_count);
    if (!mirror->images[how.image].configured) how.promote = false;
  }
  if (!how.quiet) mirror->keep = true;
  sim_mirror_open(mirror);
  sim_mirror_activate(mirror, &how);
}

static void operator_turn(struct sim_event *event) {
  struct operator* operator= CONTAINER_OF(event, struct operator, turn);
  struct sim_mirror *mirror = operator->mirror;
  wait_for_turn(operator);
  if (!mirror->core) bring_up(operator);
  else if (mirror->busy) {
    if (prng_one_in(&operator->prng, 4)) intrude(operator);
  } else if (mirror->serving || mirror->quiet) do_something(operator);
  else if (!mirror->fallen && sim_mirror_can_close(mirror)) sim_mirror_close(mirror);
}
