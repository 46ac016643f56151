/* Data that rots on one image, where nobody looks: verify finds exactly those places, and repairs them from the image that it is
 * told, while clients work elsewhere. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "sim/scenario.h"

#define UNIT      4096u
#define UNITS_MAX 1024u
#define COPIED_NS (900 * NS_PER_S)

struct rot {
  struct sim_mirror *mirror;
  struct prng prng;
  uint64_t from; /* behind this clients neither read nor write, so that rot is there for verify alone to see */
  uint64_t size;
  uint8_t *source; /* what the image to repair from holds there */
};

/* ---- a mirror under load in its first half, with data at rest in its second ---- */

static void draw_mirror(struct rot *rot, struct world *world, struct node *node) {
  struct sim_mirror_options options = {.image_count = (uint32_t)prng_between(&rot->prng, 2, 4),
                                       .volume_count = 1,
                                       .volume_bytes = {(512u << 10) << prng_below(&rot->prng, 3)},
                                       .extent_bytes = prng_one_in(&rot->prng, 2) ? 4096 : 16384,
                                       .mark_count = 16,
                                       .slow_metadata = prng_one_in(&rot->prng, 2)};
  if (prng_one_in(&rot->prng, 3)) options.volume_bytes[0] -= 512 * prng_below(&rot->prng, 8);
  node_init(node, world, 4u << 20);
  sim_mirror_init(rot->mirror, node, 0, &options);
  node->mirror_count = 1;
  rot->size = options.volume_bytes[0];
  rot->from = align_down(rot->size / 2, 64 << 10);
  workload_draw(&rot->mirror->workloads[0], &rot->prng, rot->from);
}

/* The first client does as it is told, the others work. */
static void add_clients(struct sim_mirror *mirror) {
  static const char *const names[] = {"asker", "client0", "client1"};
  mirror->client_count = COUNT_OF(names);
  for (uint32_t c = 0; c < mirror->client_count; c++) {
    struct client_options options = {.name = names[c],
                                     .model = mirror->models[0],
                                     .workload = &mirror->workloads[0],
                                     .rules = &mirror->rules,
                                     .recovering = &mirror->recovering,
                                     .index = c};
    client_init(&mirror->clients[c], mirror->world, &options);
    mirror->clients[c].drop_one_in = 0;
  }
}

static void go_active(struct sim_mirror *mirror) {
  node_start(mirror->node);
  sim_mirror_open(mirror);
  sim_mirror_format(mirror);
  (void)sim_mirror_wait(mirror, UINT64_MAX);
  sim_mirror_close(mirror);
  sim_mirror_open(mirror);
  sim_mirror_activate(mirror, NULL);
  (void)sim_mirror_wait(mirror, UINT64_MAX);
  sim_mirror_clients_start(mirror, 0);
  while (!mirror->clients[0].wire->ready) node_step(mirror->node);
}

static void ask(struct rot *rot, enum model_kind kind, uint64_t offset, uint64_t length) {
  struct client *asker = &rot->mirror->clients[0];
  client_ask(asker, kind, offset, length, false);
  while (asker->open > 0) node_step(rot->mirror->node);
}

static void fill(struct rot *rot) {
  for (uint64_t at = rot->from; at < rot->size; at += 64 << 10)
    if (!prng_one_in(&rot->prng, 3)) ask(rot, MODEL_WRITE, at, min_u64(64 << 10, rot->size - at));
}

static void load_begins(struct rot *rot) {
  for (uint32_t c = 1; c < rot->mirror->client_count; c++) {
    struct client *client = &rot->mirror->clients[c];
    if (client->budget == 0) client_more(client, (uint32_t)prng_between(&rot->prng, 50, 300));
  }
}

static void wait_ns(struct rot *rot, uint64_t ns) {
  uint64_t deadline_ns = world_now(rot->mirror->world) + ns;
  while (world_now(rot->mirror->world) < deadline_ns) node_step(rot->mirror->node);
}

/* ---- rot, and what verify must find ---- */

static uint8_t *bytes_at(const struct rot *rot, uint32_t image, uint64_t offset) {
  return rot->mirror->images[image].data[0].medium->visible + offset;
}

/* On any image but this one. */
static void rot_some(struct rot *rot, uint32_t spared) {
  uint64_t first = rot->from / UNIT, count = (rot->size - rot->from + UNIT - 1) / UNIT;
  for (uint64_t places = prng_between(&rot->prng, 1, 12); places > 0; places--) {
    uint32_t image = (uint32_t)prng_below(&rot->prng, rot->mirror->image_count);
    if (image == spared) continue;
    struct medium *medium = rot->mirror->images[image].data[0].medium;
    uint64_t start = (first + prng_below(&rot->prng, count)) * UNIT;
    uint64_t offset = start + prng_below(&rot->prng, min_u64(UNIT, rot->size - start));
    uint8_t mask = (uint8_t)(1u << prng_below(&rot->prng, 8));
    medium->visible[offset] ^= mask; /* in silence: the checker is not to see it before verify does */
    medium->durable[offset] ^= mask;
    rot->mirror->world->counters.data_rots++;
    world_trace(rot->mirror->world, "%s rots at %" PRIu64, medium->name, offset);
  }
}

/* Images that hold the same bytes in this unit have the same letter; false when all do. */
static bool group_unit(const struct rot *rot, uint64_t unit, char *groups) {
  uint64_t offset = unit * UNIT, length = min_u64(UNIT, rot->size - offset);
  uint32_t letters = 0;
  for (uint32_t i = 0; i < rot->mirror->image_count; i++) {
    uint32_t k = 0;
    while (k < i && memcmp(bytes_at(rot, i, offset), bytes_at(rot, k, offset), length) != 0) k++;
    groups[i] = k < i ? groups[k] : (char)('A' + letters++);
  }
  return letters > 1;
}

static void compare_with_report(struct rot *rot, const struct verify_result *result) {
  struct sim_mirror *mirror = rot->mirror;
  char reported[UNITS_MAX][SIM_IMAGES_MAX] = {0}, groups[SIM_IMAGES_MAX];
  uint64_t differing_bytes = 0, units = (rot->size + UNIT - 1) / UNIT;
  require(units <= UNITS_MAX);
  for (uint32_t d = 0; d < result->difference_count && d < VERIFY_DIFFERENCES_MAX; d++) {
    const struct verify_difference *difference = &result->differences[d];
    for (uint64_t at = difference->offset; at < difference->offset + difference->length; at += UNIT)
      memcpy(reported[at / UNIT], difference->groups, SIM_IMAGES_MAX);
  }
  for (uint64_t unit = 0; unit < units; unit++) {
    bool differs = unit >= rot->from / UNIT && group_unit(rot, unit, groups);
    if (!differs && reported[unit][0] != 0)
      world_fail(mirror->world, "verify reports unit %" PRIu64 ", where all images are the same", unit);
    if (!differs) continue;
    differing_bytes += min_u64(UNIT, rot->size - unit * UNIT);
    if (memcmp(reported[unit], groups, mirror->image_count) != 0)
      world_fail(mirror->world, "verify reports '%.*s' of unit %" PRIu64 ", it should be '%.*s'",
                 (int)mirror->image_count, reported[unit], unit, (int)mirror->image_count, groups);
  }
  if (differing_bytes != result->differing_bytes)
    world_fail(mirror->world, "verify counts %" PRIu64 " bytes that differ, there are %" PRIu64,
               result->differing_bytes, differing_bytes);
}

static const struct verify_result *run_verify(struct rot *rot, uint32_t source) {
  sim_mirror_verify(rot->mirror, source);
  while (rot->mirror->verifying) node_step(rot->mirror->node);
  return mirror_verify_result(rot->mirror->core);
}

static void must_have_verified(const struct rot *rot) {
  if (rot->mirror->verify_err != TARN_OK)
    world_fail(rot->mirror->world, "verify failed: %s", tarn_err_text(rot->mirror->verify_err));
}

/* ---- repair ---- */

static void check_repaired(struct rot *rot, uint32_t source) {
  for (uint32_t i = 0; i < rot->mirror->image_count; i++)
    if (memcmp(bytes_at(rot, i, rot->from), rot->source, rot->size - rot->from) != 0)
      world_fail(rot->mirror->world, "image %s was not repaired from image %s", rot->mirror->images[i].name,
                 rot->mirror->images[source].name);
  rot->mirror->world->counters.data_repaired++;
}

/* Where the image that was chosen had rotted itself, the rot is everywhere now: somebody has to write the right bytes. */
static void write_where_wrong(struct rot *rot) {
  for (uint64_t at = rot->from; at < rot->size; at += UNIT) {
    uint64_t length = min_u64(UNIT, rot->size - at);
    if (model_peek(rot->mirror->models[0], at, length, bytes_at(rot, 0, at))) ask(rot, MODEL_WRITE, at, length);
  }
}

static void stop_one(struct rot *rot) {
  sim_mirror_verify(rot->mirror, IMAGES_MAX);
  for (uint64_t steps = prng_below(&rot->prng, 60); steps > 0 && rot->mirror->verifying; steps--)
    node_step(rot->mirror->node);
  mirror_verify_stop(rot->mirror->core);
  while (rot->mirror->verifying) node_step(rot->mirror->node);
}

static void one_round(struct rot *rot) {
  struct sim_mirror *mirror = rot->mirror;
  wait_ns(rot, prng_between(&rot->prng, 8, 12) *
                   NS_PER_S); /* so that nothing is marked there, and no recovery copies the rot */
  load_begins(rot);
  rot_some(rot, IMAGES_MAX);
  if (prng_one_in(&rot->prng, 3)) stop_one(rot);
  compare_with_report(rot, run_verify(rot, IMAGES_MAX));
  must_have_verified(rot);
  load_begins(rot);
  uint32_t source = (uint32_t)prng_below(&rot->prng, mirror->image_count);
  memcpy(rot->source, bytes_at(rot, source, rot->from), rot->size - rot->from);
  if (run_verify(rot, source)->left_differing_bytes != 0)
    world_fail(mirror->world, "a repair of all that differs leaves something");
  must_have_verified(rot);
  check_repaired(rot, source);
  if (run_verify(rot, IMAGES_MAX)->differing_bytes != 0)
    world_fail(mirror->world, "after a repair verify still finds something");
  write_where_wrong(rot);
}

/* ---- a repair that a crash cuts off ---- */

static void starts_again(struct rot *rot) {
  struct sim_mirror *mirror = rot->mirror;
  node_start(mirror->node);
  sim_mirror_open(mirror);
  sim_mirror_activate(mirror, NULL);
  (void)sim_mirror_wait(mirror, UINT64_MAX);
  sim_mirror_clients_start(mirror, 0);
  while (!mirror->clients[0].wire->ready) node_step(mirror->node);
}

/* In the first or second round that carries a record and something else: of that all lands but the record. */
static void crash_in_a_round(struct rot *rot) {
  struct sim_mirror *mirror = rot->mirror;
  uint64_t seen = 0, left = prng_one_in(&rot->prng, 4), cut_ns = 0;
  while (mirror->verifying && (cut_ns == 0 || !sim_mirror_is_cut(mirror))) {
    uint64_t round = mirror_rounds_ended(mirror->core) + 1;
    bool begins = cut_ns == 0 && mirror_round_runs(mirror->core) && round != seen;
    if (begins) seen = round;
    if (begins && sim_drive_writes_record(&mirror->home) && sim_mirror_writes_rest(mirror) && left-- == 0) {
      sim_mirror_cut(mirror, CUT_BUT_RECORD);
      cut_ns = world_now(mirror->world);
    }
    node_step(mirror->node);
  }
}

static void crash_between(struct rot *rot) {
  struct sim_mirror *mirror = rot->mirror;
  while (mirror->verifying && mirror_verify_result(mirror->core)->repaired_bytes == 0) node_step(mirror->node);
  for (uint64_t steps = prng_below(&rot->prng, 200); steps > 0 && mirror->verifying; steps--) node_step(mirror->node);
}

/* From the same image everything goes on: nothing of what only it may hold is lost to what was to be repaired. */
static void one_round_cut_off(struct rot *rot) {
  struct sim_mirror *mirror = rot->mirror;
  wait_ns(rot, prng_between(&rot->prng, 8, 12) * NS_PER_S);
  mirror->rotten = true;
  rot_some(rot, IMAGES_MAX);
  load_begins(rot);
  uint32_t source = (uint32_t)prng_below(&rot->prng, mirror->image_count);
  memcpy(rot->source, bytes_at(rot, source, rot->from), rot->size - rot->from);
  sim_mirror_verify(mirror, source);
  if (!prng_one_in(&rot->prng, 3)) crash_in_a_round(rot);
  else crash_between(rot);
  if (mirror->verifying) mirror->world->counters.repair_cut_off++;
  node_crash(mirror->node, false);
  starts_again(rot);
  load_begins(rot);
  wait_ns(rot, prng_between(&rot->prng, 8, 12) * NS_PER_S);
  if (memcmp(bytes_at(rot, source, rot->from), rot->source, rot->size - rot->from) != 0)
    world_fail(mirror->world, "a repair from image %s was cut off, and now it holds something else",
               mirror->images[source].name);
  run_verify(rot, source);
  must_have_verified(rot);
  check_repaired(rot, source);
  mirror->rotten = false;
  write_where_wrong(rot);
}

/* ---- the same beside an image that is copied to ---- */

static const struct mirror_image_status *status_of(const struct rot *rot, uint32_t image) {
  return &sim_mirror_status(rot->mirror)->images[image];
}

static void step_until(struct rot *rot, uint32_t image, enum image_state state, uint64_t missed_bytes) {
  uint64_t deadline_ns = world_now(rot->mirror->world) + COPIED_NS;
  while (status_of(rot, image)->state != state || status_of(rot, image)->missed_bytes > missed_bytes) {
    if (status_of(rot, image)->state == IMAGE_SYNCHRONIZED) return; /* sooner than that */
    if (world_now(rot->mirror->world) > deadline_ns)
      world_fail(rot->mirror->world, "image %s is not brought back", rot->mirror->images[image].name);
    node_step(rot->mirror->node);
  }
}

/* It misses what is written meanwhile, and does not come back by itself. */
static void leaves(struct rot *rot, uint32_t image) {
  struct sim_mirror *mirror = rot->mirror;
  struct image_policy policy = mirror->images[image].policy;
  policy.return_by_itself = false;
  policy.rate = prng_between(&rot->prng, 1u << 20, 16u << 20);
  mirror_set_policy(mirror->core, image, &policy);
  mirror_image_failed(mirror->core, image, "its file was removed");
  fill(rot);
}

/* It joins while what differs is being repaired: it may have been copied from an image that was wrong, and be none of those that were
 * compared. */
static void one_round_beside_a_join(struct rot *rot) {
  static const uint64_t missed[] = {0, 0, 32u << 10, 128u << 10};
  struct sim_mirror *mirror = rot->mirror;
  uint32_t joins = (uint32_t)prng_below(&rot->prng, mirror->image_count), source;
  do source = (uint32_t)prng_below(&rot->prng, mirror->image_count);
  while (source == joins);
  leaves(rot, joins);
  wait_ns(rot, prng_between(&rot->prng, 8, 12) * NS_PER_S);
  for (uint64_t count = prng_between(&rot->prng, 1, 4); count > 0; count--) rot_some(rot, joins);
  mirror->rotten = true;
  memcpy(rot->source, bytes_at(rot, source, rot->from), rot->size - rot->from);
  load_begins(rot);
  sim_mirror_image_do(mirror, joins, IMAGE_OP_RESTORE, false);
  step_until(rot, joins, IMAGE_SYNCHRONIZING, missed[prng_below(&rot->prng, COUNT_OF(missed))]);
  mirror->world->counters.repaired_beside_join += status_of(rot, joins)->state == IMAGE_SYNCHRONIZING;
  if (run_verify(rot, source)->left_differing_bytes != 0)
    world_fail(mirror->world, "a repair of all that differs leaves something");
  must_have_verified(rot);
  (void)sim_mirror_wait(mirror, UINT64_MAX);
  step_until(rot, joins, IMAGE_SYNCHRONIZED, 0);
  check_repaired(rot, source);
  mirror->rotten = false;
  write_where_wrong(rot);
}

void scenario_verify(struct world *world, struct node *node) {
  struct rot rot = {.mirror = &node->mirrors[0], .prng = world_stream(world, "rot", 0)};
  draw_mirror(&rot, world, node);
  rot.source = world_alloc(world, rot.size);
  struct sim_mirror *mirror = rot.mirror;
  add_clients(mirror);
  go_active(mirror);
  mirror->healed = true; /* disks that are opened anew are there */
  fill(&rot);
  for (uint64_t rounds = prng_between(&rot.prng, 1, 4); rounds > 0; rounds--) {
    if (prng_one_in(&rot.prng, 2)) one_round_cut_off(&rot);
    else if (mirror->image_count < 3 || prng_one_in(&rot.prng, 3)) one_round(&rot);
    else one_round_beside_a_join(&rot);
  }
  while (!sim_mirror_clients_done(mirror)) node_step(node);
  for (uint64_t at = 0; at < rot.size; at += 128 << 10) ask(&rot, MODEL_READ, at, min_u64(128 << 10, rot.size - at));
  sim_mirror_clients_leave(mirror);
  while (!sim_mirror_clients_gone(mirror)) node_step(node);
  sim_mirror_deactivate(mirror);
  (void)sim_mirror_wait(mirror, UINT64_MAX);
  sim_mirror_close(mirror);
  node_stop(node);
  sim_mirror_compare_all(mirror);
}
