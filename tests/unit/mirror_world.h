/* mirror_world.h - a mirror on disks of memory, in virtual time: for tests of what the core does with them. It has one volume, or
 * two after world_add_volume().
 *
 * A RAM disk answers from the event queue at once, unless the test holds its answers back; places of it can be made to fail.
 * What a process leaves behind is the disks: world_die() forgets the mirror, and what its disks hold back, as a crash does, and
 * world_open() begins anew. A test program has one world, `w`, which WORLD_TEST() ends after each test, also after one that failed. */
#ifndef TARN_TESTS_MIRROR_WORLD_H
#define TARN_TESTS_MIRROR_WORLD_H

#include "core/mirror.h"
#include "unit.h"

#define RAM_BAD_MAX 200
enum ram_what { RAM_READS = 1, RAM_WRITES = 2, RAM_FLUSHES = 4, RAM_EXTENTS = 8 };

struct ram_disk {
  struct disk disk;
  uint8_t *bytes;
  struct {
    uint64_t start, end;
    uint32_t what; /* enum ram_what; a write that is done makes reads good again */
  } bad[RAM_BAD_MAX];
  uint32_t bad_count;
  uint32_t fails;     /* enum ram_what: everything of that kind */
  uint32_t fail_once; /* so many reads, then none */
  uint32_t holds;     /* enum ram_what: kept until ram_answer() */
  struct list held;   /* in order of arrival */
  uint32_t held_count;
  uint32_t reads, writes, flushes, extents;
  uint64_t bytes_written, bytes_zeroed;
  uint32_t last_flags; /* of a write */
};

#define WORLD_IMAGES 4
struct mirror_world {
  struct env env;
  struct arena arena, disks;
  struct buffer_pool pool;
  uint64_t pool_bytes; /* the smallest pool, unless the test says otherwise before world_open() */
  struct mirror_config config;
  struct mirror_limits limits; /* no witnesses, unless the test says otherwise: they read by themselves */
  struct ram_disk data[WORLD_IMAGES], meta[WORLD_IMAGES], home;
  struct ram_disk second[WORLD_IMAGES]; /* of the second volume */
  uint32_t volume;                      /* that clients use */
  struct mirror *m;
  bool open;
  uint64_t random;
  char log[16384]; /* what was reported, a line each */
  /* of the operation that was asked for last */
  bool done;
  tarn_err err;
  char why[400];
  uint32_t reopened;
};

/* ---- disks ---- */

static bool ram_overlaps(const struct ram_disk *ram, uint32_t i, const struct disk_io *io) {
  return ram->bad[i].start < io->offset + io->length && io->offset < ram->bad[i].end;
}

static tarn_err ram_judge(struct ram_disk *ram, const struct disk_io *io, uint32_t what) {
  if (ram->fails & what) return TARN_IO;
  if (what == RAM_READS && ram->fail_once > 0) {
    ram->fail_once--;
    return TARN_IO;
  }
  for (uint32_t i = 0; i < ram->bad_count && what != RAM_FLUSHES; i++)
    if (ram->bad[i].what & what && ram_overlaps(ram, i, io)) return TARN_IO;
  return TARN_OK;
}

/* A write that covers all of a place makes it good. */
static void ram_heal(struct ram_disk *ram, const struct disk_io *io) {
  for (uint32_t i = 0; i < ram->bad_count; i++)
    if (io->offset <= ram->bad[i].start && ram->bad[i].end <= io->offset + io->length)
      ram->bad[i].what &= ~(uint32_t)RAM_READS;
}

/* Blocks of zeroes are holes. */
static void ram_extents(const struct ram_disk *ram, struct disk_io *io) {
  static const uint8_t zeroes[4096];
  for (uint64_t at = io->offset, end = io->offset + io->length; at < end;) {
    uint64_t next = min_u64(align_down(at, 4096) + 4096, end);
    bool zero = memcmp(ram->bytes + at, zeroes, next - at) == 0;
    if (!disk_extents_add(io, next - at, zero ? EXTENT_HOLE | EXTENT_ZERO : 0)) return;
    at = next;
  }
}

static void ram_do(struct ram_disk *ram, struct disk_io *io) {
  static const uint32_t kinds[DISK_OP_COUNT] = {
      [DISK_READ] = RAM_READS,          [DISK_WRITE] = RAM_WRITES,  [DISK_TRIM] = RAM_WRITES,
      [DISK_WRITE_ZEROES] = RAM_WRITES, [DISK_FLUSH] = RAM_FLUSHES, [DISK_EXTENTS] = RAM_EXTENTS};
  tarn_err err = ram_judge(ram, io, kinds[io->op]);
  if (io->op == DISK_READ) {
    if (err == TARN_OK) memcpy(io->data, ram->bytes + io->offset, io->length);
    else memset(io->data, 0xee, io->length);
  } else if (io->op == DISK_EXTENTS) {
    if (err == TARN_OK) ram_extents(ram, io);
  } else if (io->op != DISK_FLUSH && err == TARN_OK) {
    ram->last_flags = io->flags;
    if (io->op == DISK_WRITE) memcpy(ram->bytes + io->offset, io->data, io->length);
    else memset(ram->bytes + io->offset, 0, io->length);
    if (io->op == DISK_WRITE) ram->bytes_written += io->length;
    else ram->bytes_zeroed += io->length;
    ram_heal(ram, io);
  }
  disk_complete(io, err);
}

static void ram_submit(struct disk *disk, struct disk_io *io) {
  struct ram_disk *ram = CONTAINER_OF(disk, struct ram_disk, disk);
  uint32_t what = io->op == DISK_READ      ? RAM_READS
                  : io->op == DISK_FLUSH   ? RAM_FLUSHES
                  : io->op == DISK_EXTENTS ? RAM_EXTENTS
                                           : RAM_WRITES;
  if (what == RAM_READS) ram->reads++;
  if (what == RAM_WRITES) ram->writes++;
  if (what == RAM_FLUSHES) ram->flushes++;
  if (what == RAM_EXTENTS) ram->extents++;
  if (ram->holds & what) {
    list_push(&ram->held, &io->link);
    ram->held_count++;
  } else {
    ram_do(ram, io);
  }
}

static void ram_close(struct disk *disk) { (void)disk; }

static inline void ram_init(struct ram_disk *ram, struct arena *arena, uint64_t bytes, uint32_t block) {
  static const struct disk_ops ops = {.kind = "ram", .submit = ram_submit, .close = ram_close};
  *ram = (struct ram_disk){.disk = {.ops = &ops,
                                    .caps = {.size_bytes = bytes,
                                             .block_bytes = block,
                                             .align_bytes = block,
                                             .io_bytes_max = BUFFER_DATA_MAX,
                                             .zero_block_bytes = 4096,
                                             .zero_bytes_max = 1 << 20,
                                             .can_zero = true,
                                             .can_trim = true,
                                             .can_extents = true,
                                             .volatile_cache = true}}};
  ram->bytes = arena_take(arena, bytes, 4096);
  list_init(&ram->held);
  assert_non_null(ram->bytes);
}

static inline void ram_spoil(struct ram_disk *ram, uint64_t start, uint64_t length, uint32_t what) {
  require(ram->bad_count < RAM_BAD_MAX);
  ram->bad[ram->bad_count].start = start;
  ram->bad[ram->bad_count].end = start + length;
  ram->bad[ram->bad_count++].what = what;
}

/* The oldest one that it holds is done now. */
static inline void ram_answer(struct ram_disk *ram) {
  require(ram->held_count > 0);
  ram->held_count--;
  ram_do(ram, LIST_ENTRY(list_pop(&ram->held), struct disk_io, link));
}

/* And the one that came last. */
static inline void ram_answer_last(struct ram_disk *ram) {
  struct list *node = ram->held.prev;
  require(ram->held_count > 0);
  list_remove(node);
  ram->held_count--;
  ram_do(ram, LIST_ENTRY(node, struct disk_io, link));
}

static inline void ram_answer_all(struct ram_disk *ram) {
  while (ram->held_count > 0) ram_answer(ram);
}

/* All that it holds is done now, and so is what comes from now on. */
static inline void ram_release(struct ram_disk *ram) {
  ram->holds = 0;
  ram_answer_all(ram);
}

static inline void ram_forget(struct ram_disk *ram) {
  list_init(&ram->held);
  ram->held_count = ram->disk.in_flight = 0;
}

/* ---- time ---- */

static inline void world_run(struct mirror_world *w) {
  while (event_run_one(&w->env.queue)) {
    if (w->m) mirror_check(w->m);
  }
}

static inline void world_pass(struct mirror_world *w, uint64_t ns) {
  uint64_t end = w->env.now_ns + ns;
  world_run(w);
  while (timers_next_ns(&w->env) <= end) {
    w->env.now_ns = max_u64(w->env.now_ns, timers_next_ns(&w->env));
    timers_run(&w->env);
    world_run(w);
  }
  w->env.now_ns = end;
}

/* ---- the mirror ---- */

static struct mirror_world *world_of_env(struct env *env) { return CONTAINER_OF(env, struct mirror_world, env); }

static void world_report(struct env *env, enum report_level level, const char *subject, const char *text) {
  struct mirror_world *w = world_of_env(env);
  (void)level;
  size_t used = strlen(w->log);
  snprintf(w->log + used, sizeof w->log - used, "%s: %s\n", subject, text);
}

static uint64_t world_random(struct env *env) { return ++world_of_env(env)->random * 0x9e3779b97f4a7c15u; }

static void world_done(struct mirror *m, tarn_err err, const char *why, void *context) {
  struct mirror_world *w = context;
  (void)m;
  w->done = true;
  w->err = err;
  snprintf(w->why, sizeof w->why, "%s", why);
}

static void world_reopen(struct mirror *m, uint32_t i, bool make) {
  struct mirror_world *w = mirror_owner(m);
  (void)make;
  w->reopened |= 1u << i;
}

static inline void world_open(struct mirror_world *w) {
  require(!w->open);
  w->open = true;
  uint64_t now_ns = w->env.now_ns;
  env_init(&w->env);
  w->env.now_ns = now_ns;
  w->env.random = world_random;
  w->env.report = world_report;
  arena_init(&w->arena);
  assert_int_equal(buffer_pool_init(&w->pool, &w->env, &w->arena, w->pool_bytes), TARN_OK);
  struct mirror_options options = {
      .env = &w->env, .arena = &w->arena, .config = &w->config, .owner = w, .reopen = world_reopen};
  w->m = mirror_open(&options);
  assert_non_null(w->m);
}

/* Disks for `images` images; image 0 has a byte pattern, the others nothing. */
static inline void world_init(struct mirror_world *w, uint32_t images, uint64_t bytes, uint32_t block) {
  memset(w, 0, sizeof *w);
  w->env.now_ns = NS_PER_S;
  w->limits = mirror_limits_default;
  w->limits.witnesses = 0;
  arena_init(&w->disks);
  struct mirror_config *c = &w->config;
  *c = (struct mirror_config){.name = "m",
                              .node = "n1",
                              .region_bytes = 64 << 10,
                              .extent_bytes = 16 << 10,
                              .mark_count = 16,
                              .max_missing = -1,
                              .min_images = -1,
                              .limits = &w->limits,
                              .volume_count = 1,
                              .image_count = images,
                              .volumes = {{"vol0", bytes}}};
  ram_init(&w->home, &w->disks, RECORD_AREA_BYTES, 512);
  w->home.disk.env = &w->env;
  c->home = &w->home.disk;
  for (uint32_t i = 0; i < images; i++) {
    ram_init(&w->data[i], &w->disks, bytes, block);
    ram_init(&w->meta[i], &w->disks, mirror_meta_bytes(c), 512);
    w->data[i].disk.env = w->meta[i].disk.env = &w->env;
    c->images[i] = (struct mirror_image_config){
        .node = "n1", .data = {&w->data[i].disk}, .meta = &w->meta[i].disk, .policy = image_policy_default};
    c->images[i].name[0] = (char)('a' + i);
  }
  for (uint64_t at = 0; at < bytes; at++) w->data[0].bytes[at] = (uint8_t)(1 + (at * 7 + at / 4096) % 251);
}

/* To be called before world_format(). */
static inline void world_add_volume(struct mirror_world *w) {
  struct mirror_config *c = &w->config;
  uint64_t bytes = c->volumes[0].size_bytes;
  c->volumes[c->volume_count++] = c->volumes[0];
  c->volumes[1].name[3] = '1';
  for (uint32_t i = 0; i < c->image_count; i++) {
    ram_init(&w->second[i], &w->disks, bytes, w->data[i].disk.caps.block_bytes);
    ram_init(&w->meta[i], &w->disks, mirror_meta_bytes(c), 512);
    w->second[i].disk.env = w->meta[i].disk.env = &w->env;
    c->images[i].data[1] = &w->second[i].disk;
  }
}

/* Forgotten, as when the process dies. */
static inline void world_die(struct mirror_world *w) {
  for (uint32_t i = 0; i < WORLD_IMAGES; i++) {
    ram_forget(&w->data[i]);
    ram_forget(&w->second[i]);
    ram_forget(&w->meta[i]);
  }
  ram_forget(&w->home);
  arena_destroy(&w->arena);
  w->m = NULL;
  w->open = false;
}

/* What is over is closed. */
static inline void world_close(struct mirror_world *w) {
  mirror_close(w->m);
  world_die(w);
}

static inline void world_end(struct mirror_world *w) {
  if (w->open) world_die(w);
  arena_destroy(&w->disks);
}

/* Until the operation is done, and not a moment longer. */
static inline tarn_err world_wait(struct mirror_world *w) {
  for (uint32_t step = 0; step < 100000 && !w->done; step++) {
    if (event_run_one(&w->env.queue)) continue;
    w->env.now_ns = max_u64(w->env.now_ns, timers_next_ns(&w->env));
    timers_run(&w->env);
  }
  assert_true(w->done);
  w->done = false;
  return w->err;
}

static inline void world_format(struct mirror_world *w) {
  world_open(w);
  mirror_format(w->m, false, world_done, w);
  assert_int_equal(world_wait(w), TARN_OK);
  world_close(w);
}

static inline void world_activate(struct mirror_world *w) {
  world_open(w);
  mirror_activate(w->m, &(struct mirror_activation){0}, world_done, w);
  assert_int_equal(world_wait(w), TARN_OK);
}

static inline void world_deactivate(struct mirror_world *w) {
  mirror_deactivate(w->m, false, world_done, w);
  assert_int_equal(world_wait(w), TARN_OK);
  assert_true(buffer_pool_is_whole(&w->pool));
  world_close(w);
}

/* The newer of a store's two. */
static inline struct record world_record(const uint8_t *bytes) {
  struct record slots[2];
  for (uint32_t slot = 0; slot < 2; slot++)
    assert_int_equal(record_decode(&slots[slot], bytes + slot * RECORD_SLOT_BYTES), TARN_OK);
  return slots[0].sequence > slots[1].sequence ? slots[0] : slots[1];
}

static inline void world_put_record(uint8_t *bytes, const struct record *record) {
  for (uint32_t slot = 0; slot < 2; slot++) record_encode(record, bytes + slot * RECORD_SLOT_BYTES);
}

/* Before the mirror is opened: the disks of one volume. */
static inline void world_take_away(struct mirror_world *w, uint32_t i) {
  w->config.images[i].data[0] = w->config.images[i].meta = NULL;
}

static inline void world_give_back(struct mirror_world *w, uint32_t i) {
  w->config.images[i].data[0] = &w->data[i].disk;
  w->config.images[i].meta = &w->meta[i].disk;
}

static inline struct mirror_image_status world_image(const struct mirror_world *w, uint32_t i) {
  static struct mirror_status status;
  mirror_status(w->m, &status);
  return status.images[i];
}

static inline void world_check_synchronized(const struct mirror_world *w) {
  for (uint32_t i = 0; i < w->config.image_count; i++) assert_int_equal(world_image(w, i).state, IMAGE_SYNCHRONIZED);
}
/* Activates it, and waits until all images hold what image a does. */
static inline void world_settle(struct mirror_world *w) {
  world_activate(w);
  world_pass(w, 5 * NS_PER_S);
  world_check_synchronized(w);
}
/* All images hold what image a does, and the mirror serves. */
static inline void world_begin(struct mirror_world *w, uint32_t images, uint64_t bytes) {
  world_init(w, images, bytes, 512);
  world_format(w);
  world_settle(w);
}
/* Image `i` is out, and wanted back, by itself or by command: its owner opens its disks anew. */
static inline void world_bring_back(struct mirror_world *w, uint32_t i) {
  for (uint32_t step = 0; step < 1000 && !(w->reopened & 1u << i); step++) world_pass(w, NS_PER_S / 10);
  assert_true(w->reopened & 1u << i);
  w->reopened = 0;
  mirror_image_reopened(w->m, i, &w->config.images[i]);
}
static inline void world_restore(struct mirror_world *w, uint32_t i) {
  mirror_image_do(w->m, i, IMAGE_OP_RESTORE, false, world_done, w);
  world_bring_back(w, i);
  assert_int_equal(world_wait(w), TARN_OK);
}
/* The process dies as it starts: what the test holds back does not land. */
static inline void world_die_starting(struct mirror_world *w, struct mirror_activation how) {
  world_open(w);
  mirror_activate(w->m, &how, world_done, w);
  world_run(w);
  assert_false(w->done);
  world_die(w);
}

/* Of the first commit of an activation, of which a store's writes are held: all lands there but the record. */
static inline void world_land_all_but_the_record(struct mirror_world *w, struct ram_disk *meta) {
  assert_int_equal(meta->held_count, 1); /* what was found is written again first */
  ram_answer(meta);
  world_run(w);
  assert_true(meta->held_count > 0);
  while (meta->held_count > 1) {
    ram_answer_last(meta);
    world_run(w);
  }
}

static inline bool world_said(const struct mirror_world *w, const char *text) { return strstr(w->log, text) != NULL; }

/* Up to where home has to take the record that says that image `i` is out; it holds that. */
static inline void world_begin_removal(struct mirror_world *w, uint32_t i, bool force) {
  w->home.holds = RAM_WRITES;
  mirror_image_do(w->m, i, IMAGE_OP_REMOVE, force, world_done, w);
  for (uint32_t slot = 0; slot < 2; slot++) { /* that something can be recorded is tried first */
    world_run(w);
    ram_answer(&w->home);
  }
  world_run(w);
  assert_true(world_said(w, "is removed"));
}

/* ---- clients ---- */

struct client_io {
  struct disk_io io;
  bool done;
};

static void client_done(struct disk_io *io) { CONTAINER_OF(io, struct client_io, io)->done = true; }

/* Submits; `fill` is what a write writes. */
static inline void client_begin_with(struct mirror_world *w, struct client_io *client, enum disk_op op, uint32_t flags,
                                     uint64_t offset, uint64_t length, uint8_t fill) {
  memset(client, 0, sizeof *client);
  disk_io_init(&client->io);
  client->io.op = op;
  client->io.flags = flags;
  client->io.offset = offset;
  client->io.length = length;
  client->io.done = client_done;
  if (op == DISK_READ || op == DISK_WRITE) {
    client->io.buffer = buffer_get(&w->pool, (uint32_t)length);
    assert_non_null(client->io.buffer);
    client->io.data = client->io.buffer->base + offset % BUFFER_ALIGN;
    memset(client->io.data, fill, length);
  } else if (op == DISK_EXTENTS) {
    client->io.buffer = buffer_get(&w->pool, 4096);
    assert_non_null(client->io.buffer);
    client->io.data = client->io.buffer->base;
  }
  disk_submit(mirror_volume(w->m, w->volume), &client->io);
}

static inline void client_begin(struct mirror_world *w, struct client_io *client, enum disk_op op, uint64_t offset,
                                uint64_t length, uint8_t fill) {
  client_begin_with(w, client, op, 0, offset, length, fill);
}

static inline tarn_err client_end(struct mirror_world *w, struct client_io *client) {
  for (uint32_t step = 0; step < 1000 && !client->done; step++) world_pass(w, NS_PER_S / 100);
  assert_true(client->done);
  if (client->io.buffer) buffer_unref(client->io.buffer);
  return client->io.err;
}

static inline tarn_err client_do(struct mirror_world *w, enum disk_op op, uint64_t offset, uint64_t length,
                                 uint8_t fill) {
  struct client_io client;
  client_begin(w, &client, op, offset, length, fill);
  return client_end(w, &client);
}

static inline tarn_err world_write(struct mirror_world *w, uint64_t offset, uint64_t length) {
  return client_do(w, DISK_WRITE, offset, length, 0x55);
}
static inline tarn_err world_flush(struct mirror_world *w) { return client_do(w, DISK_FLUSH, 0, 0, 0); }

/* ---- the world of a test program ---- */

static struct mirror_world w;

static inline int world_teardown(void **state) {
  (void)state;
  world_end(&w);
  return 0;
}

#define WORLD_TEST(name) cmocka_unit_test_teardown(name, world_teardown)

#endif
