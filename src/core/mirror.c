/* mirror.c - the life of a mirror object, its client-facing disks, and images that leave and join.
 *
 * Crash argument for image_drop(): the record that says "behind" is durable on every survivor and at home before any write
 * or flush is answered (drop_seq). Until then a crash finds the image still recorded as current, and then the marks, which
 * cover every write in flight and every answered one that was not flushed, make recovery copy what differs. Its map is
 * durable later; until then the same marks stay (map_seq). */
#include "core/mirror.h"
#include "base/text.h"

#include <stdarg.h>
#include <string.h>

#include "core/mirror_int.h"

static void volume_submit(struct disk *disk, struct disk_io *io);
static void volume_close(struct disk *disk) { (void)disk; /* lives in its mirror */ }
static const struct disk_ops volume_ops = {.kind = "mirror", .submit = volume_submit, .close = volume_close};

/* ---- opening ---- */

const struct image_policy image_policy_default = {
    .hang_ns = 10 * NS_PER_S, .return_by_itself = true, .return_after_ns = 60 * NS_PER_S};

const struct mirror_limits mirror_limits_default = {.map_bits = MAP_BITS_PER_SECTOR,
                                                    .log_entries = LOG_ENTRIES_PER_SECTOR,
                                                    .checkpoint_bytes = 64ull << 20,
                                                    .history = HISTORY_MAX,
                                                    .ops = MIRROR_OPS_MAX,
                                                    .scratch = 32,
                                                    .copies = COPY_COUNT,
                                                    .copy_bytes = COPY_BYTES,
                                                    .witnesses = WITNESSES_MAX};
const struct mirror_limits mirror_limits_tiny = {.map_bits = 64,
                                                 .log_entries = 4,
                                                 .checkpoint_bytes = 64u << 10,
                                                 .history = 3,
                                                 .ops = 8,
                                                 .scratch = 2,
                                                 .copies = 2,
                                                 .copy_bytes = 32u << 10,
                                                 .witnesses = 4};

static void config_sizes(const struct mirror_config *config, uint64_t sizes[VOLUMES_MAX]) {
  for (uint32_t v = 0; v < min_u64(config->volume_count, VOLUMES_MAX); v++) sizes[v] = config->volumes[v].size_bytes;
}

/* What a record would refuse can never be stored. */
const char *mirror_config_check(const struct mirror_config *config) {
  uint64_t sizes[VOLUMES_MAX];
  if (!record_name_is_valid(config->name, strlen(config->name)))
    return "a mirror's name is 1 to 63 of A-Z a-z 0-9 _ -, the first a letter or digit";
  if (config->image_count < 1 || config->image_count > IMAGES_MAX) return "a mirror has 1 to 16 images";
  config_sizes(config, sizes);
  return record_geometry_check(config->region_bytes, config->extent_bytes, config->mark_count, config->volume_count,
                               sizes);
}

static void config_geometry(const struct mirror_config *config, struct geometry *geometry) {
  uint64_t sizes[VOLUMES_MAX];
  config_sizes(config, sizes);
  const struct mirror_limits *limits = config->limits ? config->limits : &mirror_limits_default;
  const struct sector_limits sector = {limits->map_bits, limits->log_entries};
  geometry_init(geometry, config->volume_count, sizes, config->region_bytes, config->extent_bytes, config->mark_count,
                &sector);
}

uint64_t mirror_meta_bytes(const struct mirror_config *config) {
  struct geometry geometry;
  config_geometry(config, &geometry);
  return geometry.meta_bytes;
}

uint64_t mirror_meta_bytes_best(const struct mirror_config *config) {
  struct geometry geometry;
  config_geometry(config, &geometry);
  struct record_layout layout = geometry_layout(&geometry, true);
  const char *wrong = geometry_place(&geometry, &layout);
  require(!wrong);
  return geometry.moment_bytes;
}

static void limits_check(const struct mirror_limits *limits) {
  require(limits->history >= 1 && limits->history <= HISTORY_MAX);
  require(limits->ops >= 1 && limits->ops <= MIRROR_OPS_MAX);
  require(limits->scratch >= 1);
  require(limits->copies >= 2 && limits->copies <= COPY_COUNT);
  require(limits->copy_bytes % UNIT_BYTES == 0 && limits->copy_bytes >= UNIT_BYTES && limits->copy_bytes <= COPY_BYTES);
  require(limits->witnesses <= WITNESSES_MAX);
}

static void guard_died(struct guard *guard);

/* Memory for every slot, so that images can be added while the mirror serves; what is not used is never touched. */
static tarn_err image_alloc(struct mirror *m, uint32_t i, struct arena *arena) {
  struct image *image = &m->images[i];
  image->m = m;
  disk_io_init(&image->probe_io);
  tarn_err err = missed_init(&image->map, arena, &m->geometry, i);
  if (err == TARN_OK) err = store_init(&image->store, arena, NULL, i, m);
  for (uint32_t v = 0; v < m->geometry.volume_count && err == TARN_OK; v++) {
    err = guard_init(&image->data[v], m->env, arena, guard_slots(m));
    image->data[v].owner = image;
    image->data[v].died = guard_died;
    image->data[v].quiet = close_guard_is_quiet;
  }
  if (err == TARN_OK) err = guard_init(&image->meta, m->env, arena, META_SLOTS);
  image->meta.owner = image;
  image->meta.died = guard_died;
  image->legs = ARENA_NEW(arena, struct leg, m->limits.ops + m->geometry.volume_count);
  return err == TARN_OK && !image->legs ? TARN_FULL : err;
}

static void home_died(struct guard *guard);

static tarn_err home_alloc(struct mirror *m, struct arena *arena) {
  tarn_err err = guard_init(&m->home_guard, m->env, arena, META_SLOTS);
  m->home_guard.owner = m;
  m->home_guard.died = home_died;
  if (m->config.home) guard_attach(&m->home_guard, m->config.home, image_policy_default.hang_ns);
  return err != TARN_OK ? err
                        : store_init(&m->home, arena, m->config.home ? &m->home_guard.disk : NULL, RECORD_SELF_HOME, m);
}

static tarn_err allocate(struct mirror *m, struct arena *arena) {
  const struct geometry *g = &m->geometry;
  tarn_err err = intent_init(&m->intent, arena, g);
  for (uint32_t i = 0; i < IMAGES_MAX && err == TARN_OK; i++) err = image_alloc(m, i, arena);
  if (err == TARN_OK) err = home_alloc(m, arena);
  if (err == TARN_OK) err = commit_alloc(m, arena);
  if (err == TARN_OK) err = copy_alloc(m, arena);
  if (err == TARN_OK) err = witness_alloc(m, arena);
  if (err != TARN_OK) return err;
  m->ops = ARENA_NEW(arena, struct op, m->limits.ops + g->volume_count);
  m->scratch = ARENA_NEW(arena, struct buffer, scratch_slots(m));
  if (!m->ops || !m->scratch) return TARN_FULL;
  m->flush_ops = m->ops + m->limits.ops;
  for (uint32_t k = 0; k < m->limits.ops + g->volume_count; k++) {
    m->ops[k].m = m;
    m->ops[k].index = k;
    list_init(&m->ops[k].link);
    if (k < m->limits.ops) list_push(&m->free_ops, &m->ops[k].link);
  }
  uint8_t *scratch = arena_take(arena, scratch_slots(m) * 2 * BUFFER_ALIGN, BUFFER_ALIGN);
  if (!scratch) return TARN_FULL;
  for (uint32_t k = 0; k < scratch_slots(m); k++) {
    buffer_init_private(&m->scratch[k], scratch + k * 2 * BUFFER_ALIGN, 2 * BUFFER_ALIGN);
    list_push(&m->free_scratch, &m->scratch[k].link);
  }
  return TARN_OK;
}

void image_attach(struct mirror *m, uint32_t i) {
  struct image *image = &m->images[i];
  const struct mirror_image_config *config = &m->config.images[i];
  for (uint32_t v = 0; v < m->geometry.volume_count; v++)
    if (config->data[v]) guard_attach(&image->data[v], config->data[v], config->policy.hang_ns);
  if (config->meta) guard_attach(&image->meta, config->meta, config->policy.hang_ns);
  store_attach(&image->store, config->meta ? &image->meta.disk : NULL);
  image->told = TOLD_NOTHING;
  image->sync_failed = false;
  for (uint32_t k = 0; k < m->limits.ops + m->geometry.volume_count; k++) {
    struct leg *leg = &image->legs[k];
    if (leg->op) break; /* once is enough */
    disk_io_init(&leg->io);
    leg->op = &m->ops[k];
    leg->image = i;
  }
}

/* What the volumes can do is the least of what the images' disks can. */
static void volume_caps(struct mirror *m, uint32_t v) {
  struct disk_caps *caps = &m->volumes[v].disk.caps;
  *caps = (struct disk_caps){.size_bytes = m->geometry.volume_bytes[v],
                             .block_bytes = 1,
                             .align_bytes = m->align,
                             .io_bytes_max = BUFFER_DATA_MAX,
                             .zero_block_bytes = m->block,
                             .zero_bytes_max = m->geometry.region_bytes,
                             .can_zero = true,
                             .can_trim = true,
                             .can_extents = true};
  for (uint32_t i = 0; i < m->config.image_count; i++) {
    const struct disk *disk = m->config.images[i].data[v];
    if (!disk) continue;
    /* A request at any offset grows by up to a block when it is aligned out, to whole blocks. */
    uint32_t room = (uint32_t)align_down(disk->caps.io_bytes_max, m->block) - (m->block > 1 ? m->block : 0);
    if (room < caps->io_bytes_max) caps->io_bytes_max = room;
    caps->can_zero &= disk->caps.can_zero;
    caps->can_trim &= disk->caps.can_trim && disk->caps.can_zero;
    caps->volatile_cache |= disk->caps.volatile_cache;
    caps->rotational |= disk->caps.rotational;
    if (disk->caps.can_zero) {
      if (disk->caps.zero_block_bytes > caps->zero_block_bytes) caps->zero_block_bytes = disk->caps.zero_block_bytes;
      caps->zero_bytes_max = min_u64(caps->zero_bytes_max, disk->caps.zero_bytes_max);
    }
  }
  caps->zero_bytes_max = align_down(caps->zero_bytes_max, caps->zero_block_bytes);
}

static void init_lists(struct mirror *m) {
  struct list *heads[] = {&m->free_ops,      &m->op_line,       &m->mark_line,    &m->scratch_line,
                          &m->recover_line,  &m->doubt_line,    &m->free_scratch, &m->held_scratch,
                          &m->flush_waiting, &m->flush_running, &m->buffer_line,  &m->extents_line};
  for (size_t i = 0; i < COUNT_OF(heads); i++) list_init(heads[i]);
  list_init(&m->room_flush.link);
  list_init(&m->copy_flush.link);
  list_init(&m->recover_flush.link);
  list_init(&m->admin_flush.link);
  list_init(&m->admin_event.link);
}

struct mirror *mirror_open(const struct mirror_options *options) {
  require(!mirror_config_check(options->config));
  struct mirror *m = ARENA_NEW(options->arena, struct mirror, 1);
  if (!m) return NULL;
  m->env = options->env;
  m->owner = options->owner;
  m->changed = options->changed;
  m->stamp = options->stamp;
  stamps_init(m);
  m->reopen = options->reopen;
  m->config = *options->config;
  m->limits = m->config.limits ? *m->config.limits : mirror_limits_default;
  limits_check(&m->limits);
  m->state = MIRROR_INACTIVE;
  config_geometry(&m->config, &m->geometry);
  init_lists(m);
  range_lock_init(&m->lock, m->env);
  range_lock_init(&m->write_order, m->env);
  commit_init(m);
  copy_init(m);
  close_init(m);
  timer_init(&m->tick, marks_tick);
  if (allocate(m, options->arena) != TARN_OK) return NULL;
  m->align = m->block = 1;
  for (uint32_t i = 0; i < m->config.image_count; i++) image_attach(m, i);
  for (uint32_t i = 0; i < m->config.image_count; i++)
    for (uint32_t v = 0; v < m->geometry.volume_count; v++) {
      const struct disk *disk = m->config.images[i].data[v];
      if (disk && disk->caps.align_bytes > m->align) m->align = disk->caps.align_bytes;
      if (disk && disk->caps.block_bytes > m->block) m->block = disk->caps.block_bytes;
    }
  for (uint32_t v = 0; v < m->geometry.volume_count; v++) {
    m->volumes[v] = (struct volume){.disk = {.ops = &volume_ops, .env = m->env}, .m = m, .index = v};
    list_init(&m->volumes[v].flush_line);
    volume_caps(m, v);
  }
  return m;
}

void *mirror_owner(const struct mirror *m) { return m->owner; }

struct disk *mirror_volume(struct mirror *m, uint32_t volume) {
  require(volume < m->geometry.volume_count);
  return &m->volumes[volume].disk;
}

void mirror_set_log(struct mirror *m, bool on) {
  m->log_off = !on;
  m->log_was_off |= m->log_off;
  if (!on) witness_drop_all(m); /* nobody will notice when they are no longer true */
}

bool mirror_is_idle(const struct mirror *m) {
  return m->ops_busy == 0 && images_are_idle(m) && list_is_empty(&m->op_line) && copy_is_idle(m) &&
         witness_is_idle(m) && !m->commit.running && !event_is_posted(&m->commit.start) &&
         list_is_empty(&m->flush_running) && list_is_empty(&m->flush_waiting) && m->admin == ADMIN_NONE &&
         close_is_over(m);
}

void mirror_close(struct mirror *m) {
  require(mirror_is_idle(m));
  require(mirror_is_quiet(m));
  require(m->lock.hold_count == 0);
  for (uint32_t i = 0; i < IMAGES_MAX; i++) {
    for (uint32_t v = 0; v < m->geometry.volume_count; v++) guard_let_go(&m->images[i].data[v]);
    guard_let_go(&m->images[i].meta);
  }
  guard_let_go(&m->home_guard);
  timer_cancel(&m->tick);
  timer_cancel(&m->copy_timer);
  event_cancel(&m->copy_event);
}

enum mirror_state mirror_state_now(const struct mirror *m) { return m->state; }

/* ---- what clients submit ---- */

/* Where the last block of a volume ends: at its size, unless a disk has larger blocks than that is a multiple of. */
static uint64_t volume_end(const struct mirror *m, uint32_t v) {
  return m->geometry.volume_base[v] + align_up(m->geometry.volume_bytes[v], m->block);
}

static void op_start(struct op *op, struct disk_io *io) {
  struct mirror *m = op->m;
  struct volume *volume = CONTAINER_OF(io->disk, struct volume, disk);
  static const enum op_kind kinds[DISK_OP_COUNT] = {
      [DISK_READ] = OP_READ, [DISK_WRITE] = OP_WRITE,       [DISK_FLUSH] = OP_FLUSH,
      [DISK_TRIM] = OP_ZERO, [DISK_WRITE_ZEROES] = OP_ZERO, [DISK_EXTENTS] = OP_EXTENTS};
  *op = (struct op){.m = m, .index = op->index, .client = io, .kind = kinds[io->op], .volume = volume->index};
  list_init(&op->link);
  list_init(&op->group);
  op->start = m->geometry.volume_base[op->volume] + io->offset;
  op->length = io->length;
  op->outer_start = align_down(op->start, m->block);
  op->outer_length = min_u64(align_up(op->start + op->length, m->block), volume_end(m, op->volume)) - op->outer_start;
  m->ops_busy++;
  switch (op->kind) {
    case OP_READ: op_read(op); break;
    case OP_WRITE:
    case OP_ZERO: op_write(op); break;
    case OP_FLUSH: op_flush(op); break;
    case OP_EXTENTS: op_extents(op); break;
  }
}

static void volume_submit(struct disk *disk, struct disk_io *io) {
  struct mirror *m = CONTAINER_OF(disk, struct volume, disk)->m;
  if (!m->serving) {
    disk_complete(io, TARN_SHUTDOWN);
    return;
  }
  struct list *node = list_is_empty(&m->op_line) && !m->paused ? list_pop(&m->free_ops) : NULL;
  if (!node) {
    list_push(&m->op_line, &io->link);
    return;
  }
  op_start(LIST_ENTRY(node, struct op, link), io);
}

void op_line_run(struct mirror *m) {
  while (!list_is_empty(&m->op_line)) {
    if (m->paused && m->serving) return;
    if (!m->serving) {
      disk_complete(LIST_ENTRY(list_pop(&m->op_line), struct disk_io, link), TARN_SHUTDOWN);
      continue;
    }
    struct list *node = list_pop(&m->free_ops);
    if (!node) return;
    op_start(LIST_ENTRY(node, struct op, link), LIST_ENTRY(list_pop(&m->op_line), struct disk_io, link));
  }
}

void op_end(struct op *op, tarn_err err) {
  struct mirror *m = op->m;
  op_release(op);
  require(op->pending == 0 && !list_is_linked(&op->link));
  if (!op->client) {
    op->done(op);
    return;
  }
  struct disk_io *io = op->client;
  op->client = NULL;
  m->ops_busy--;
  list_push(&m->free_ops, &op->link);
  /* When the mirror has fallen no write and no flush counts as done, since fewer images may have it than there must be. Whoever
   * asked may ask again. */
  bool reads = op->kind == OP_READ || op->kind == OP_EXTENTS;
  if (m->fallen && !(err == TARN_OK && (reads || PLANTED(answer_when_fallen)))) err = TARN_SHUTDOWN;
  if (err == TARN_OK && reads) m->reads_done++;
  if (err == TARN_OK && !reads) m->changes_done++;
  disk_complete(io, err);
  op_line_run(m);
  if (m->ops_busy == 0) admin_check_idle(m);
}

void op_put_back(struct op *op) {
  struct mirror *m = op->m;
  require(op->pending == 0 && !op->holding && op->mark_count == 0 && !op->scratch);
  list_push_front(&m->op_line, &op->client->link);
  op->client = NULL;
  m->ops_busy--;
  list_push(&m->free_ops, &op->link);
  if (m->ops_busy == 0) admin_check_idle(m);
}

/* ---- images leave and join ---- */

uint32_t mirror_current_mask(const struct mirror *m) {
  uint32_t mask = 0;
  for (uint32_t i = 0; i < m->config.image_count; i++)
    if (image_is_current(m, i)) mask |= 1u << i;
  return mask;
}

uint32_t mirror_online_mask(const struct mirror *m) {
  uint32_t mask = 0;
  for (uint32_t i = 0; i < m->config.image_count; i++)
    if (m->images[i].online) mask |= 1u << i;
  return mask;
}

void mirror_changed(struct mirror *m) {
  if (m->changed) m->changed(m);
}

void mirror_set_state(struct mirror *m, enum mirror_state state, const char *reason) {
  m->state = state;
  text_set(m->reason, sizeof m->reason, "%s", reason ? reason : "");
  mirror_changed(m);
}

void mirror_new_generation(struct mirror *m) {
  struct record *r = &m->record;
  memmove(&r->history[1], &r->history[0], sizeof r->history[0] * (m->limits.history - 1));
  r->history[0] = r->generation;
  r->generation.number++;
  r->generation.id = m->env->random(m->env);
  m->record_dirty = true;
}

/* All regions that are marked at this instant are missed too, not just the write that failed (rule 5). */
static void miss_marked(struct mirror *m, uint32_t i, const struct op *op) {
  struct missed *map = &m->images[i].map;
  uint64_t per_region = m->geometry.region_bytes / m->geometry.extent_bytes;
  if (PLANTED(missed_write_only)) {
    if (op && op->kind != OP_FLUSH) missed_set(map, extent_first(m, op->start), extent_span(m, op->start, op->length));
    return;
  }
  LIST_EACH(&m->intent.used, node) {
    struct mark *mark = LIST_ENTRY(node, struct mark, link);
    missed_set(map, mark->region * per_region, per_region);
    mark->map_seq = m->commit.started + 1;
  }
}

void image_move(struct mirror *m, uint32_t i, enum image_event event) {
  struct record_image *ri = &m->record.images[i];
  enum image_state next = image_next(ri->state, event);
  require(next != IMAGE_STATE_COUNT);
  ri->state = next;
  m->record_dirty = true;
}

/* It takes no part any more, and others take its places; what it misses is the caller's to say. */
void image_leave(struct mirror *m, uint32_t i, enum image_event event, enum image_missing missing) {
  struct image *image = &m->images[i];
  struct record_image *ri = &m->record.images[i];
  bool was_current = image_is_current(m, i);
  if (image->coming == COMING_NOT) {
    ri->seen_sequence = m->record.completed;
    ri->left_id = m->completed_generation.id;
  }
  require(implies(was_current, (mirror_current_mask(m) & ~(1u << i)) != 0));
  image->online = false;
  for (uint32_t v = 0; v < m->geometry.volume_count; v++) guard_spare(&image->data[v]);
  copy_image_left(m, i);
  image_move(m, i, event);
  ri->missing = missing;
  missed_forget_copied(&image->map);
  if (!was_current) return;
  ri->left_number = m->completed_generation.number;
  ri->moment_ns = m->env->wall_ns;
  uint32_t heir = (uint32_t)__builtin_ctz(mirror_current_mask(m));
  if (m->record.master == i) m->record.master = (uint8_t)heir;
  if (m->record.recovery_source == i) m->record.recovery_source = (uint8_t)heir;
  mirror_new_generation(m);
}

void image_drop(struct mirror *m, uint32_t i, enum image_missing missing, const char *why, const struct op *op) {
  struct image *image = &m->images[i];
  if (!image->online) return;
  bool was_current = image_is_current(m, i);
  image_leave(m, i, IMAGE_FAILED, missing);
  text_set(image->reason, sizeof image->reason, "%s", why);
  miss_marked(m, i, op);
  uint64_t seq = commit_want(m);
  /* Nothing has been written to one that is only just coming back: nobody has to know that it is out again. */
  if (image->coming != COMING_COMMIT) m->drop_seq = seq;
  if (was_current) image->left_seq = seq;
  image_returns_later(m, i);
  report(m->env, REPORT_ERROR, m->config.name, "image %s is out: %s", m->config.images[i].name, why);
  mirror_changed(m);
  mirror_check_missing(m);
}

static void note_told(struct image *image, enum told told, const char *why) {
  if (image->told >= told) return;
  image->told = told;
  text_set(image->told_why, sizeof image->told_why, "%s", why);
}

/* Is there a record to come that says what becomes of an image now? A stop has its last one still. */
static bool can_record(const struct mirror *m) {
  return m->running || (m->admin == ADMIN_DEACTIVATE && !m->admin_fallen && m->admin_step != STEP_ENDED);
}

static void image_failed(struct mirror *m, uint32_t i, const char *why) {
  if (!can_record(m) || !m->images[i].online) return;
  if (image_is_current(m, i) && mirror_current_mask(m) == 1u << i)
    mirror_fall(m, "image %s is the last good one, and %s", image_name(m, i), why);
  else image_drop(m, i, MISSING_FAILED, why, NULL);
}

void mirror_image_failed(struct mirror *m, uint32_t image, const char *why) {
  require(image < m->config.image_count);
  note_told(&m->images[image], TOLD_GONE, why);
  image_failed(m, image, why);
}

static void image_spoiled(struct mirror *m, uint32_t i, const char *why) {
  struct record_image *ri = &m->record.images[i];
  bool last = image_is_current(m, i) && mirror_current_mask(m) == 1u << i;
  /* Before it is out: with that the mirror may fall, and the record of its leaving is the last one. */
  if (can_record(m) && m->images[i].present && !last) ri->all_missed = true;
  image_failed(m, i, why);
  if (!last) ri->left_number = 0; /* it is not what it was then */
  if (!can_record(m) || !m->images[i].present || m->images[i].online) return;
  if (ri->state == IMAGE_CONSISTENT) image_move(m, i, IMAGE_FAILED); /* of no definite moment any more */
  ri->all_missed = true;
  text_set(m->images[i].reason, sizeof m->images[i].reason, "%s", why);
  m->record_dirty = true;
  m->drop_seq = commit_want(m);
  mirror_changed(m);
}

void mirror_image_spoiled(struct mirror *m, uint32_t i, const char *why) {
  require(i < m->config.image_count);
  note_told(&m->images[i], TOLD_SPOILED, why);
  image_spoiled(m, i, why);
}

void image_told_again(struct mirror *m, uint32_t i) {
  struct image *image = &m->images[i];
  if (image->told == TOLD_SPOILED) image_spoiled(m, i, image->told_why);
  else if (image->told == TOLD_GONE) image_failed(m, i, image->told_why);
}

/* A disk hangs, or its connection is lost: rule 5. The I/Os that it had are answered after this. */
static void guard_died(struct guard *guard) {
  struct image *image = guard->owner;
  struct mirror *m = image->m;
  uint32_t i = (uint32_t)(image - m->images);
  const char *why = guard->err == TARN_HUNG ? "its disk does not answer" : "its disk is gone";
  bool last = image_is_current(m, i) && mirror_current_mask(m) == 1u << i;
  if (!image->online) return;
  if (!last) m->lost_drop = true;
  else if (guard->err != TARN_HUNG) m->lost = true;
  if (!m->running && m->admin != ADMIN_DEACTIVATE) return; /* being activated: the I/O that fails will tell */
  if (!last) image_drop(m, i, MISSING_FAILED, why, NULL);
  else mirror_fall(m, "image %s is the last good one, and %s", image_name(m, i), why);
}

static void home_died(struct guard *guard) {
  struct mirror *m = guard->owner;
  mirror_fall(m, "the state directory %s", guard->err == TARN_HUNG ? "does not answer" : "is gone");
}

/* One that fails while it is being added was never there. */
static bool is_missing(const struct mirror *m, uint32_t i) {
  return !m->images[i].online && !image_is_being_added(m, i);
}

uint32_t mirror_missing_count(const struct mirror *m) {
  uint32_t count = 0;
  EACH_IMAGE(m, i) count += is_missing(m, i);
  return count;
}

void mirror_check_missing(struct mirror *m) {
  uint32_t missing = mirror_missing_count(m);
  if (m->serving && m->config.max_missing >= 0 && missing > (uint32_t)m->config.max_missing)
    mirror_fall(m, "%u image%s missing, max-missing allows %d", missing, missing == 1 ? " is" : "s are",
                m->config.max_missing);
}

void mirror_fall(struct mirror *m, const char *format, ...) {
  char why[sizeof m->reason];
  va_list list;
  if (!m->running) return;
  va_start(list, format);
  (void)text_set_list(why, sizeof why, format, list);
  va_end(list);
  m->running = m->serving = m->paused = false;
  m->fallen = true;
  close_begin(m);
  timer_cancel(&m->tick);
  report(m->env, REPORT_ERROR, m->config.name, "stops: %s", why);
  mirror_set_state(m, mirror_next(m->state, MIRROR_CONDITIONS_LOST), why);
  copy_stop(m);
  images_stop(m);
  op_line_run(m);
  mark_line_run(m);
  scratch_line_stop(m);
  admin_check_idle(m);
}

bool mirror_has_fallen(const struct mirror *m) { return m->fallen; }

/* Of a disk that hung at a stop the last flush fails, too, if it is the last image's; another one's takes that image out. */
bool mirror_may_have_lost(const struct mirror *m) {
  if (m->fallen) return close_may_have_lost(m, UINT32_MAX);
  bool lost = m->lost || (m->lost_drop && m->commit.done < m->drop_seq) || close_may_have_lost(m, UINT32_MAX);
  lost |= m->admin_flush_err != TARN_OK; /* the last flush of a deactivation, which says so */
  /* That flush was good, but proves nothing of what is in doubt and was not written again. */
  lost |= m->record.doubt && m->doubt_is_loss && !PLANTED(doubt_left_at_stop);
  return lost;
}

void image_join(struct mirror *m, uint32_t i) {
  struct record_image *ri = &m->record.images[i];
  require(m->images[i].online && ri->state == IMAGE_SYNCHRONIZING);
  require(m->images[i].map.missed.set_count == 0);
  image_move(m, i, IMAGE_COPIED);
  m->images[i].joined_ns = m->env->now_ns;
  m->images[i].left_seq = 0;
  m->images[i].let_go = false;
  ri->missing = MISSING_NONE;
  ri->all_missed = false;
  ri->left_number = ri->left_id = 0;
  m->images[i].reason[0] = 0;
  m->record_dirty = true;
  commit_want(m);
  report(m->env, REPORT_INFO, m->config.name, "image %s is SYNCHRONIZED", m->config.images[i].name);
  mirror_changed(m);
}

/* ---- invariants ---- */

void mirror_check(const struct mirror *m) {
  uint32_t current = mirror_current_mask(m);
  if (m->state == MIRROR_ACTIVE) {
    require(current != 0);
    require(current & 1u << m->record.master);
  }
  require(implies(m->serving, m->state == MIRROR_ACTIVE && m->running));
  for (uint32_t i = 0; i < m->config.image_count; i++) {
    if (!m->images[i].present) continue;
    require(implies(image_is_current(m, i), m->images[i].map.missed.set_count == 0));
  }
  EACH_IMAGE(m, i) missed_check(&m->images[i].map);
  intent_check(&m->intent);
  range_lock_check(&m->lock);
  bitmap_check(&m->recover);
  if (m->running) witness_check(m);
  /* What has to be recovered is marked, and a mark that is needed is not cleared. */
  uint64_t per_region = m->geometry.region_bytes / m->geometry.extent_bytes;
  for (uint64_t e = bitmap_next_set(&m->recover, 0); e < m->recover.bit_count;) {
    uint64_t region = e / per_region;
    require(intent_find(&m->intent, region) != INTENT_NONE);
    if ((region + 1) * per_region >= m->recover.bit_count) break;
    e = bitmap_next_set(&m->recover, (region + 1) * per_region);
  }
  require(m->copies_busy <= m->limits.copies);
}

bool mirror_image_is_equal(const struct mirror *m, uint32_t image) {
  return m->state == MIRROR_ACTIVE && image_is_current(m, image) && m->recover.set_count == 0 &&
         m->lock.hold_count == 0;
}

bool mirror_is_unreadable(const struct mirror *m, uint32_t volume, uint64_t offset, uint64_t length) {
  require(volume < m->geometry.volume_count);
  return unreadable_overlaps(&m->record.unreadable, m->geometry.volume_base[volume] + offset, length);
}
