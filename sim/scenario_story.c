/* Scripted scenarios: a small world in which everything takes a known time. Their traces are quoted in sim/golden and compared
 * line by line; and each is run again and again with one fault moved through it (sweep.h). Then a story goes as far as it can,
 * and ends like all others: healed, read in full, all images equal. */
#include "sim/scenario.h"

#define STEADY_NS (100 * 1000ull)
#define PATIENCE  (900 * NS_PER_S)

struct story {
  struct world *world;
  struct node *node;
  struct sim_mirror *mirror;
  struct client *client;
  bool swept;  /* a fault of the sweep may strike anywhere: whatever the script expects need not come */
  bool broken; /* and it has: the script ends here */
  bool exists; /* it was formatted */
  uint64_t step_deadline_ns;
};

/* ---- how a story goes on ---- */

static void tell(struct story *story, const char *text) {
  if (!story->broken) world_trace(story->world, "-- %s", text);
}

static void expect(struct story *story, bool true_now, const char *what) {
  if (true_now) return;
  if (!story->swept) world_fail(story->world, "the story goes another way: not %s", what);
  story->broken = true;
}

/* Each `until` is a condition that the story waits for. */
static bool until(struct story *story, bool (*holds)(struct story *story)) {
  uint64_t deadline_ns = world_now(story->world) + PATIENCE;
  while (!story->broken && !holds(story)) {
    bool stuck = world_now(story->world) > deadline_ns || !node_can_step(story->node);
    if (stuck && !story->swept) world_fail(story->world, "the story does not go on");
    if (stuck) story->broken = true;
    else node_step(story->node);
  }
  return !story->broken;
}

static bool is_answered(struct story *story) { return story->client->open == 0; }
static bool is_free(struct story *story) { return !story->mirror->busy; }
static bool is_ready(struct story *story) { return story->client->wire->ready; }
static bool is_gone(struct story *story) { return sim_mirror_clients_gone(story->mirror); }
static bool is_serving(struct story *story) { return story->mirror->serving; }
static bool has_fallen(struct story *story) { return story->mirror->fallen; }
static bool can_close(struct story *story) { return !story->mirror->core || sim_mirror_can_close(story->mirror); }
static const struct mirror_status *status_of(struct story *story) {
  static const struct mirror_status none;
  return story->mirror->core ? sim_mirror_status(story->mirror) : &none;
}

static bool all_synchronized(struct story *story) {
  return story->mirror->core && sim_mirror_all_synchronized(story->mirror);
}
static bool is_recovered(struct story *story) { return !status_of(story)->recovery.running; }
static bool b_is_out(struct story *story) { return status_of(story)->images[1].missing != MISSING_NONE; }
static bool b_is_copied_to(struct story *story) { return status_of(story)->images[1].state == IMAGE_SYNCHRONIZING; }

static void wait_ns(struct story *story, uint64_t ns) {
  uint64_t deadline_ns = world_now(story->world) + ns;
  while (!story->broken && world_now(story->world) < deadline_ns && node_can_step(story->node)) node_step(story->node);
}

/* ---- what a client asks ---- */

static void ask(struct story *story, enum model_kind kind, uint64_t offset, uint64_t length) {
  expect(story, story->client->connected && is_ready(story) && !story->client->wire->closing,
         "the client is connected");
  if (!story->broken) client_ask(story->client, kind, offset, length, false);
}

static void ask_and_wait(struct story *story, enum model_kind kind, uint64_t offset, uint64_t length) {
  ask(story, kind, offset, length);
  until(story, is_answered);
}

/* ---- what befalls a disk ---- */

static void strike(struct story *story, struct sim_drive *drive, enum fault_kind kind, uint32_t ops) {
  struct fault fault = {
      .kind = kind, .ops = ops, .until_ns = UINT64_MAX, .end = UINT64_MAX, .err = TARN_IO, .never = true};
  if (!story->broken) (void)faults_add(&drive->faults, &fault);
}

static struct sim_drive *data_of(struct story *story, uint32_t image) { return &story->mirror->images[image].data[0]; }

/* ---- begin, crash, begin again ---- */

static void make_steady(struct sim_mirror *mirror, uint32_t i) {
  struct sim_image *image = &mirror->images[i];
  struct sim_drive *data = &image->data[0];
  image->meta.steady_ns = data->steady_ns = STEADY_NS;
  image->meta.trace = TRACE_RECORDS;
  image->meta.caps.block_bytes = image->meta.caps.align_bytes = 512;
  data->caps.block_bytes = data->caps.align_bytes = 512;
  data->caps.io_bytes_max = BUFFER_DATA_MAX;
  image->policy = (struct image_policy){.hang_ns = NS_PER_S, .return_by_itself = true, .return_after_ns = 2 * NS_PER_S};
}

static void connect(struct story *story) {
  struct sim_mirror *mirror = story->mirror;
  struct wire_options wire = {.pool = &story->node->pool,
                              .exports = &story->node->exports,
                              .export_name = mirror->export_names[0],
                              .whole = true};
  if (story->broken) return;
  client_start(story->client, &wire, 0);
  until(story, is_ready);
}

static void activate(struct story *story) {
  if (story->broken) return;
  sim_mirror_open(story->mirror);
  sim_mirror_activate(story->mirror, NULL);
  until(story, is_free);
  expect(story, story->mirror->serving, "the mirror is ACTIVE");
}

static void go_active(struct story *story) {
  if (story->broken) return;
  node_start(story->node);
  activate(story);
  connect(story);
}

#define MIB (1u << 20)

/* Of images `a`, `b` ...: all blank and equal. */
static struct story begin(struct world *world, struct node *node, uint32_t image_count, uint64_t bytes) {
  struct sim_mirror_options options = {
      .image_count = image_count, .volume_count = 1, .volume_bytes = {bytes}, .extent_bytes = 4096, .mark_count = 16};
  struct story story = {.world = world, .node = node, .mirror = &node->mirrors[0], .swept = world->sweep.on};
  struct sim_mirror *mirror = story.mirror;
  node_init(node, world, 4u << 20);
  sim_mirror_init(mirror, node, 0, &options);
  node->mirror_count = 1;
  for (uint32_t i = 0; i < image_count; i++) make_steady(mirror, i);
  mirror->home.trace = TRACE_RECORDS;
  mirror->home.steady_ns = STEADY_NS;
  mirror->suspend_ns = 60 * NS_PER_S;
  mirror->healed = true;
  mirror->rules.errors_allowed = story.swept;
  mirror->client_count = 1;
  story.client = &mirror->clients[0];
  struct client_options client = {.name = "client",
                                  .model = mirror->models[0],
                                  .workload = &mirror->workloads[0],
                                  .rules = &mirror->rules,
                                  .recovering = &mirror->recovering};
  client_init(story.client, world, &client);
  story.client->drop_one_in = 0;
  node_start(node);
  sim_mirror_open(mirror);
  sim_mirror_format(mirror);
  until(&story, is_free);
  story.exists = mirror->err == TARN_OK;
  expect(&story, story.exists, "formatted");
  if (story.broken) return story;
  sim_mirror_close(mirror);
  node_stop(node);
  go_active(&story);
  return story;
}

static void crash(struct story *story, bool power) {
  if (!story->broken) node_crash(story->node, power);
}

static void stop(struct story *story) {
  if (story->broken) return;
  sim_mirror_clients_leave(story->mirror);
  if (!until(story, is_gone)) return;
  sim_mirror_deactivate(story->mirror);
  if (!until(story, is_free) || !until(story, can_close)) return;
  sim_mirror_close(story->mirror);
  node_stop(story->node);
}

static void image_do(struct story *story, uint32_t image, enum mirror_image_op op) {
  expect(story, story->mirror->serving && !story->mirror->busy, "the mirror is ACTIVE and free");
  if (story->broken) return;
  sim_mirror_image_do(story->mirror, image, op, false);
  until(story, is_free);
  expect(story, story->mirror->err == TARN_OK, "done");
}

/* ---- the end of every story ---- */

/* The fault is over. What is left must be well; where the story broke off, the process dies first. */
static void end(struct story *story) {
  struct sim_mirror *mirror = story->mirror;
  tell(story, "the end");
  story->world->sweep.on = false;
  if (story->node->running && !story->broken) stop(story);
  if (story->node->running) node_crash(story->node, false);
  story->broken = story->swept = false;
  sim_mirror_heal(mirror);
  if (!story->exists) return;
  mirror->rules.errors_allowed = true; /* a demotion, or a flush that failed, may ask for more than one try */
  mirror->keep = true;
  node_start(story->node);
  sim_mirror_open(mirror);
  sim_mirror_activate(mirror, NULL);
  until(story, is_serving);
  mirror->rules.errors_allowed = false;
  connect(story);
  while (!all_synchronized(story)) {
    sim_mirror_tend(mirror);
    wait_ns(story, NS_PER_S / 10);
  }
  for (uint64_t at = 0; at < story->client->model->size_bytes; at += 128 << 10)
    ask_and_wait(story, MODEL_READ, at, 128 << 10);
  ask_and_wait(story, MODEL_WRITE, 0, 65536);
  stop(story);
  sim_mirror_compare_all(mirror);
}

/* ---- the stories ---- */

void scenario_two_writes(struct world *world, struct node *node) {
  struct story story = begin(world, node, 2, MIB);
  ask_and_wait(&story, MODEL_WRITE, 0, 512); /* marks the region, so that what follows has no wait for that */
  tell(&story, "two disjoint writes are at both images before either is done: nobody waits for anybody");
  ask(&story, MODEL_WRITE, 4096, 4096);
  ask(&story, MODEL_WRITE, 12288, 4096);
  until(&story, is_answered);
  tell(&story, "of two overlapping ones the second reaches the images when the first is done on both");
  ask(&story, MODEL_WRITE, 4096, 4096);
  ask(&story, MODEL_WRITE, 6144, 4096);
  until(&story, is_answered);
  end(&story);
}

void scenario_write_fails(struct world *world, struct node *node) {
  struct story story = begin(world, node, 2, MIB);
  ask_and_wait(&story, MODEL_WRITE, 0, 512);
  tell(&story, "a write fails on image b: that b is out stands in the records of a and of home before the answer");
  strike(&story, data_of(&story, 1), FAULT_ONCE, FAULT_WRITE);
  ask_and_wait(&story, MODEL_WRITE, 8192, 4096);
  expect(&story, b_is_out(&story), "image b is out");
  tell(&story, "two seconds later b comes back by itself, and gets the region that was marked when it failed");
  until(&story, all_synchronized);
  end(&story);
}

void scenario_flush_fails(struct world *world, struct node *node) {
  struct story story = begin(world, node, 2, MIB);
  ask_and_wait(&story, MODEL_WRITE, 0, 512);
  tell(&story, "a flush fails on image b: nothing that b has not flushed is believed, and it is out before the answer");
  strike(&story, data_of(&story, 1), FAULT_ONCE, FAULT_FLUSH);
  ask_and_wait(&story, MODEL_FLUSH, 0, 0);
  expect(&story, b_is_out(&story), "image b is out");
  end(&story);
}

void scenario_crash_in_flight(struct world *world, struct node *node) {
  struct story story = begin(world, node, 2, MIB);
  data_of(&story, 1)->steady_ns = 4 * STEADY_NS;
  ask_and_wait(&story, MODEL_WRITE, 0, 512);
  tell(&story, "the process dies when a write is done on image a, and not on image b");
  ask(&story, MODEL_WRITE, 4096, 4096);
  wait_ns(&story, 2 * STEADY_NS);
  crash(&story, false);
  tell(&story,
       "the marked region is copied from one source, which is written too; a read that comes first has its place "
       "copied first");
  if (!story.broken) node_start(story.node);
  activate(&story);
  connect(&story);
  ask_and_wait(&story, MODEL_READ, 4096, 4096);
  until(&story, is_recovered);
  end(&story);
}

void scenario_hang_and_return(struct world *world, struct node *node) {
  struct story story = begin(world, node, 2, MIB);
  ask_and_wait(&story, MODEL_WRITE, 0, 512);
  tell(&story, "image b hangs: a write waits for it no longer than a second and a half, then it is out");
  strike(&story, data_of(&story, 1), FAULT_HANG, FAULT_ALL);
  ask_and_wait(&story, MODEL_WRITE, 4096, 4096);
  expect(&story, b_is_out(&story), "image b is out");
  tell(&story, "b misses what is written now");
  ask_and_wait(&story, MODEL_WRITE, 524288, 4096);
  tell(&story, "b answers at last, and then comes back: only the marked region and what it missed is copied");
  wait_ns(&story, 3 * NS_PER_S);
  if (!story.broken) sim_drive_heal(data_of(&story, 1));
  until(&story, all_synchronized);
  end(&story);
}

void scenario_last_image_hangs(struct world *world, struct node *node) {
  struct story story = begin(world, node, 1, MIB);
  ask_and_wait(&story, MODEL_WRITE, 0, 512);
  tell(&story, "the only image hangs: the mirror goes to ATTENTION, and the request waits");
  if (!story.broken) story.mirror->keep = story.mirror->rules.errors_allowed = true;
  strike(&story, data_of(&story, 0), FAULT_HANG, FAULT_ALL);
  ask(&story, MODEL_WRITE, 4096, 4096);
  until(&story, has_fallen);
  tell(&story, "the image answers: the mirror is closed, opened anew, recovers as after a crash, and does the request");
  if (!story.broken) sim_drive_heal(data_of(&story, 0));
  until(&story, is_serving);
  until(&story, is_answered);
  end(&story);
}

void scenario_fracture(struct world *world, struct node *node) {
  struct story story = begin(world, node, 2, MIB);
  ask_and_wait(&story, MODEL_WRITE, 0, 4096);
  tell(&story, "image b is fractured: it is flushed, and keeps this moment");
  image_do(&story, 1, IMAGE_OP_FRACTURE);
  tell(&story, "a write goes to image a alone");
  ask_and_wait(&story, MODEL_WRITE, 524288, 4096);
  tell(&story, "restored, it gets what it missed, and nothing else");
  image_do(&story, 1, IMAGE_OP_RESTORE);
  until(&story, all_synchronized);
  end(&story);
}

void scenario_stale_alone(struct world *world, struct node *node) {
  struct story story = begin(world, node, 2, MIB);
  stop(&story);
  tell(&story, "image b is not there, and something is written");
  if (!story.broken) story.mirror->images[1].absent = true;
  go_active(&story);
  ask_and_wait(&story, MODEL_WRITE, 0, 4096);
  stop(&story);
  tell(&story, "then only b is there: it is refused, because a is known to be ahead");
  if (!story.broken) {
    story.mirror->images[1].absent = false;
    story.mirror->images[0].absent = true;
    story.mirror->rules.errors_allowed = true;
    node_start(story.node);
    sim_mirror_open(story.mirror);
    sim_mirror_activate(story.mirror, NULL);
    until(&story, is_free);
    expect(&story, !story.mirror->serving, "refused");
    until(&story, can_close);
    node_crash(story.node, false);
  }
  tell(&story, "both are there: b gets what it missed");
  if (!story.broken) story.mirror->images[0].absent = false;
  go_active(&story);
  until(&story, all_synchronized);
  end(&story);
}

void scenario_half_built(struct world *world, struct node *node) {
  struct story story = begin(world, node, 2, MIB / 4);
  ask_and_wait(&story, MODEL_WRITE, 131072, 4096);
  wait_ns(&story, 7 * NS_PER_S); /* nothing is marked any more */
  tell(&story,
       "image b is copied in full: it is recorded as SYNCHRONIZING first, and reads go where it has been copied to, or "
       "to a");
  image_do(&story, 1, IMAGE_OP_SYNC);
  until(&story, b_is_copied_to);
  ask_and_wait(&story, MODEL_READ, 131072, 4096);
  tell(&story, "power is lost before it is done");
  crash(&story, true);
  tell(&story, "b is still half-built, and is copied to again; it is read only where it has been copied to");
  go_active(&story);
  ask_and_wait(&story, MODEL_READ, 131072, 4096);
  until(&story, all_synchronized);
  end(&story);
}

void scenario_read_repair(struct world *world, struct node *node) {
  struct story story = begin(world, node, 2, MIB);
  ask_and_wait(&story, MODEL_WRITE, 0, 65536);
  tell(&story, "a place of image a cannot be read: b answers, and a is written again under the lock");
  struct fault fault = {
      .kind = FAULT_BAD_SECTOR, .ops = FAULT_READ, .until_ns = UINT64_MAX, .err = TARN_IO, .start = 4096, .end = 8192};
  if (!story.broken) (void)faults_add(&data_of(&story, 0)->faults, &fault);
  for (uint32_t reads = 0; reads < 2; reads++) ask_and_wait(&story, MODEL_READ, 4096, 4096);
  wait_ns(&story, 20 * STEADY_NS);
  end(&story);
}

void scenario_flush_doubt(struct world *world, struct node *node) {
  struct story story = begin(world, node, 2, MIB);
  ask_and_wait(&story, MODEL_WRITE, 0, 4096);
  tell(&story, "a flush fails on both images: the client gets the error, and nobody is out");
  story.mirror->rules.errors_allowed = true;
  strike(&story, data_of(&story, 0), FAULT_ONCE, FAULT_FLUSH);
  strike(&story, data_of(&story, 1), FAULT_ONCE, FAULT_FLUSH);
  ask_and_wait(&story, MODEL_FLUSH, 0, 0);
  tell(&story, "the next flush waits until all that was in doubt has been written again");
  ask_and_wait(&story, MODEL_FLUSH, 0, 0);
  end(&story);
}

/* ---- the checkers are shown wrong bytes ---- */

/* Runs `wrong` in a copy of the failure path: it must fail the world. */
static void must_fail(struct story *story, const char *what, void (*wrong)(struct story *story)) {
  struct world *world = story->world;
  sigjmp_buf here, *outer = world->failed;
  volatile bool found = true;
  world->failed = &here;
  if (sigsetjmp(here, 0) == 0) {
    wrong(story);
    found = false;
  }
  world->failed = outer;
  if (!found) world_fail(world, "not found: %s", what);
  world_trace(world, "found %s: %s", what, world->failure);
}

static void flip(struct story *story, uint32_t image, uint64_t offset) {
  struct medium *medium = data_of(story, image)->medium;
  medium->visible[offset] ^= 0x10;
  bitmap_set(&medium->touched, offset / MEDIUM_PAGE);
}

static void wait_for_comparison(struct story *story) { wait_ns(story, 30 * NS_PER_S); }
static void read_back(struct story *story) { ask_and_wait(story, MODEL_READ, 0, 65536); }
static void check_moments(struct story *story) { sim_mirror_check_moments(story->mirror); }
static void write_to_removed(struct story *story) { ask_and_wait(story, MODEL_WRITE, 0, 4096); }

void scenario_self_test(struct world *world, struct node *node) {
  struct prng prng = world_stream(world, "self-test", 0);
  struct story story = begin(world, node, 3, MIB);
  ask_and_wait(&story, MODEL_WRITE, 0, 65536);
  uint64_t offset = prng_below(&prng, 65536);
  wait_for_comparison(&story);
  flip(&story, 1, offset);
  must_fail(&story, "a byte that differs between images called equal", wait_for_comparison);
  flip(&story, 0, offset); /* now they are wrong, and equal */
  flip(&story, 2, offset);
  wait_for_comparison(&story);
  must_fail(&story, "a byte that nobody wrote", read_back);
  for (uint32_t i = 0; i < 3; i++) flip(&story, i, offset);
  image_do(&story, 1, IMAGE_OP_FRACTURE);
  flip(&story, 1, offset);
  must_fail(&story, "an image that was cut off and changed", check_moments);
  data_of(&story, 2)->forbidden = true;
  must_fail(&story, "a write to an image that was removed", write_to_removed);
}
