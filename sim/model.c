#include "sim/model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NEVER UINT64_MAX

struct version {
  uint64_t op;        /* its write; 0: what was there at the start */
  uint64_t begun;     /* cannot have taken effect before */
  uint64_t effective; /* has taken effect by then, if ever; NEVER while its write is pending and unseen */
  uint64_t dead;      /* no read that begins later returns it; NEVER: alive */
  uint64_t firm;      /* from then on its death rests on answered writes; NEVER: not yet */
  uint64_t killer;    /* the pending write whose sight killed it; 0: none */
  uint32_t tag;
  /* Not of type bool, because that would leave padding: segments_equal(). */
  uint16_t gone;   /* cannot come back by a power loss */
  uint16_t failed; /* its write was answered with an error */
};
_Static_assert(sizeof(struct version) == 56, "compared by memcmp");

/* A run of bytes with the same history, within one block. */
struct segment {
  struct segment *next;
  uint32_t start, end; /* in the block */
  uint32_t count, capacity;
  struct version *versions;
};

struct model_block {
  struct segment *first;
};

/* ---- the bytes of writes ---- */

#define SALT_BYTES (1u << 20)
static uint8_t salts[SALT_BYTES + MODEL_BLOCK];

static void salts_init(void) {
  if (salts[0] != 0) return;
  for (uint32_t i = 0; i < SALT_BYTES; i++) salts[i] = (uint8_t)(mix_u64(i + 1) % 255);
  salts[0] = 1;
  memcpy(salts + SALT_BYTES, salts, MODEL_BLOCK);
}

static const uint8_t *salt_at(const struct model *model, uint64_t offset) {
  uint64_t mega = offset >> 20;
  return salts + ((offset + mega * 12347 + model->salt) & (SALT_BYTES - 1));
}

/* Sixteen bytes at a time, because the simulator spends much of its time here. 1 + (tag + salt) mod 255, in bytes that wrap. */
typedef uint8_t salt_lanes __attribute__((vector_size(16)));

static void fill_salted(uint32_t tag, const uint8_t *salt, uint64_t length, uint8_t *out) {
  uint8_t shift = (uint8_t)(1 + tag), wraps_from = (uint8_t)(255 - tag);
  uint64_t i = 0;
  for (; i + sizeof(salt_lanes) <= length; i += sizeof(salt_lanes)) {
    salt_lanes lanes;
    memcpy(&lanes, salt + i, sizeof lanes);
    lanes = lanes + shift - (salt_lanes)(lanes >= wraps_from); /* a comparison is -1 where it holds */
    memcpy(out + i, &lanes, sizeof lanes);
  }
  for (; i < length; i++) out[i] = (uint8_t)(salt[i] + shift + (salt[i] >= wraps_from));
}

static void fill_within_block(const struct model *model, uint32_t tag, uint64_t offset, uint64_t length, uint8_t *out) {
  if (tag == TAG_ZERO) memset(out, 0, length);
  else fill_salted(tag, salt_at(model, offset), length, out);
}

/* How many of these bytes, from the first on, are those of the tag. */
static uint64_t match_within_block(const struct model *model, uint32_t tag, uint64_t offset, uint64_t length,
                                   const uint8_t *data) {
  uint8_t expected[MODEL_BLOCK];
  require(length <= MODEL_BLOCK);
  fill_within_block(model, tag, offset, length, expected);
  if (memcmp(expected, data, length) == 0) return length;
  uint64_t same = 0;
  while (expected[same] == data[same]) same++;
  return same;
}

static uint32_t tag_of(const struct model *model, uint64_t offset, uint8_t byte) {
  if (byte == 0) return TAG_ZERO;
  return (uint32_t)(byte - 1 + 255 - *salt_at(model, offset)) % 255;
}

void model_fill(const struct model *model, uint32_t tag, uint64_t offset, uint64_t length, uint8_t *out) {
  for (uint64_t at = offset, end = offset + length; at < end;) {
    uint64_t next = min_u64(align_down(at, MODEL_BLOCK) + MODEL_BLOCK, end);
    fill_within_block(model, tag, at, next - at, out + (at - offset));
    at = next;
  }
}

/* ---- segments: found, split, joined ---- */

static struct segment *segment_new(struct model *model, uint32_t start, uint32_t end) {
  struct segment *segment = world_alloc(model->world, sizeof *segment);
  segment->start = start;
  segment->end = end;
  segment->capacity = 4;
  segment->versions = world_alloc(model->world, segment->capacity * sizeof *segment->versions);
  return segment;
}

static void segment_free(struct segment *segment) {
  world_free(segment->versions);
  world_free(segment);
}

static struct version *segment_add(struct model *model, struct segment *segment) {
  if (segment->count == segment->capacity) {
    struct version *wider = world_alloc(model->world, 2 * segment->capacity * sizeof *wider);
    memcpy(wider, segment->versions, segment->count * sizeof *wider);
    world_free(segment->versions);
    segment->versions = wider;
    segment->capacity *= 2;
  }
  struct version *version = &segment->versions[segment->count++];
  *version = (struct version){.effective = 0, .dead = NEVER, .firm = NEVER};
  return version;
}

static struct segment *block_first(struct model *model, uint64_t index) {
  require(index < model->block_count);
  if (!model->blocks[index]) {
    model->blocks[index] = world_alloc(model->world, sizeof *model->blocks[index]);
    struct segment *segment = segment_new(model, 0, MODEL_BLOCK);
    segment_add(model, segment)->tag = TAG_ZERO;
    model->blocks[index]->first = segment;
  }
  return model->blocks[index]->first;
}

/* Cuts a segment in two at `at`, strictly inside it. */
static void segment_split(struct model *model, struct segment *segment, uint32_t at) {
  require(segment->start < at);
  require(at < segment->end);
  struct segment *right = world_alloc(model->world, sizeof *right);
  *right = *segment;
  right->start = at;
  right->versions = world_alloc(model->world, right->capacity * sizeof *right->versions);
  memcpy(right->versions, segment->versions, segment->count * sizeof *right->versions);
  segment->end = at;
  segment->next = right;
}

static bool segments_equal(const struct segment *a, const struct segment *b) {
  return a->count == b->count && memcmp(a->versions, b->versions, a->count * sizeof *a->versions) == 0;
}

static void block_join(struct model *model, uint64_t index) {
  if (!model->blocks[index]) return;
  for (struct segment *segment = model->blocks[index]->first; segment->next;) {
    struct segment *next = segment->next;
    if (!segments_equal(segment, next)) {
      segment = next;
      continue;
    }
    segment->end = next->end;
    segment->next = next->next;
    segment_free(next);
  }
}

/* Calls `each` for every segment of [offset, offset + length), which are cut to fit. `start` is the segment's place in the
 * volume. What it returns, if not NULL, ends the walk. */
typedef const char *segment_each(struct model *model, struct segment *segment, uint64_t start, void *context);
static const char *walk(struct model *model, uint64_t offset, uint64_t length, segment_each *each, void *context) {
  require(length > 0);
  require(offset + length <= model->size_bytes);
  uint64_t end = offset + length;
  for (uint64_t index = offset / MODEL_BLOCK; index * MODEL_BLOCK < end; index++) {
    uint64_t base = index * MODEL_BLOCK;
    uint32_t from = (uint32_t)(max_u64(offset, base) - base), to = (uint32_t)(min_u64(end, base + MODEL_BLOCK) - base);
    for (struct segment *segment = block_first(model, index); segment && segment->start < to; segment = segment->next) {
      if (segment->end <= from) continue;
      if (segment->start < from) {
        segment_split(model, segment, from);
        continue;
      }
      if (segment->end > to) segment_split(model, segment, to);
      const char *wrong = each(model, segment, base + segment->start, context);
      if (wrong) return wrong;
    }
    block_join(model, index);
  }
  return NULL;
}

static const char *walk_all(struct model *model, segment_each *each, void *context) {
  for (uint64_t index = 0; index < model->block_count; index++) {
    if (!model->blocks[index]) continue;
    for (struct segment *segment = model->blocks[index]->first; segment; segment = segment->next) {
      const char *wrong = each(model, segment, index * MODEL_BLOCK + segment->start, context);
      if (wrong) return wrong;
    }
    block_join(model, index);
  }
  return NULL;
}

/* ---- versions live and die ---- */

static struct version *version_of(struct segment *segment, uint64_t op) {
  for (uint32_t i = 0; i < segment->count; i++)
    if (segment->versions[i].op == op) return &segment->versions[i];
  return NULL;
}

static bool op_is_pending(const struct model *model, uint64_t id) {
  LIST_EACH(&model->pending, node) {
    if (LIST_ENTRY(node, struct model_op, link)->id == id) return true;
  }
  return false;
}

static bool op_comes_again(const struct model *model, uint64_t id) {
  LIST_EACH(&model->pending, node) {
    const struct model_op *op = LIST_ENTRY(node, struct model_op, link);
    if (op->id == id) return op->again;
  }
  return false;
}

static uint64_t oldest_read(const struct model *model) {
  LIST_EACH(&model->pending, node) {
    const struct model_op *op = LIST_ENTRY(node, struct model_op, link);
    if (op->kind == MODEL_READ) return op->begun; /* pending is in order of begin */
  }
  return NEVER;
}

/* Forgets versions that nobody can see any more. */
static void segment_tidy(struct model *model, struct segment *segment) {
  uint64_t oldest = oldest_read(model);
  uint32_t kept = 0;
  for (uint32_t i = 0; i < segment->count; i++) {
    const struct version *version = &segment->versions[i];
    if (version->gone && version->dead < oldest) continue;
    segment->versions[kept++] = *version;
  }
  segment->count = kept;
  require(kept > 0);
}

static bool segment_is_alive(const struct segment *segment) {
  for (uint32_t i = 0; i < segment->count; i++)
    if (segment->versions[i].dead == NEVER) return true;
  return false;
}

static const char *write_begin(struct model *model, struct segment *segment, uint64_t start, void *context) {
  (void)start;
  const struct model_op *op = context;
  segment_tidy(model, segment);
  struct version *version = segment_add(model, segment);
  version->op = op->id;
  version->begun = op->begun;
  version->effective = NEVER;
  version->tag = op->tag;
  return NULL;
}

/* Is it a write of a session that had ended at this tick? Then whatever began later comes after it. */
static bool op_had_ended(const struct model *model, uint64_t id, uint64_t tick) {
  LIST_EACH(&model->pending, node) {
    const struct model_op *op = LIST_ENTRY(node, struct model_op, link);
    if (op->id == id) return op->ended != 0 && op->ended <= tick;
  }
  return false;
}

/* An answered write: whatever took effect before it began is dead, for sure. */
static const char *write_done(struct model *model, struct segment *segment, uint64_t start, void *context) {
  (void)start;
  const struct model_op *op = context;
  struct version *mine = version_of(segment, op->id);
  if (mine) mine->effective = min_u64(mine->effective, model->tick);
  for (uint32_t i = 0; i < segment->count; i++) {
    struct version *version = &segment->versions[i];
    if (version->op == op->id) continue;
    bool older = version->effective <= op->begun;
    if (!older && model->ended_count > 0 && op_had_ended(model, version->op, op->begun)) {
      older = true;
      model->world->counters.old_overtaken++;
    }
    if (older) version->dead = min_u64(version->dead, model->tick);
    if (older || version->killer == op->id) {
      version->firm = min_u64(version->firm, model->tick);
      version->killer = 0;
    }
    if (older && op->fua) version->gone = 1;
  }
  segment_tidy(model, segment);
  return NULL;
}

/* It has no effect after now. What its sight had killed stays dead, or may be seen again. */
static void write_settle(struct model *model, struct segment *segment, const struct model_op *op, bool stays) {
  struct version *mine = version_of(segment, op->id);
  if (mine) mine->effective = min_u64(mine->effective, model->tick);
  for (uint32_t i = 0; i < segment->count; i++) {
    struct version *version = &segment->versions[i];
    if (version->killer != op->id) continue;
    version->killer = 0;
    if (stays) version->firm = min_u64(version->firm, model->tick);
    else version->dead = NEVER;
  }
}

/* A write that may have happened or not. */
static const char *write_maybe(struct model *model, struct segment *segment, uint64_t start, void *context) {
  (void)start;
  write_settle(model, segment, context, model->calm);
  return NULL;
}

/* A write that has not happened, and never will. */
static const char *write_never(struct model *model, struct segment *segment, uint64_t start, void *context) {
  (void)start;
  const struct model_op *op = context;
  struct version *mine = version_of(segment, op->id);
  if (!mine) return NULL;
  mine->dead = min_u64(mine->dead, model->tick);
  mine->effective = min_u64(mine->effective, model->tick);
  mine->gone = 1;
  return NULL;
}

/* A write that was answered with an error. */
static const char *write_failed(struct model *model, struct segment *segment, uint64_t start, void *context) {
  const struct model_op *op = context;
  struct version *mine = version_of(segment, op->id);
  if (mine) mine->failed = 1;
  return write_maybe(model, segment, start, context);
}

/* A trim that was answered: it may have done nothing, but what was seen of it stays. */
static const char *trim_done(struct model *model, struct segment *segment, uint64_t start, void *context) {
  (void)start;
  write_settle(model, segment, context, true);
  return NULL;
}

/* ---- reads ---- */

struct read_context {
  const struct model_op *op;
  const uint8_t *data; /* of the read's first byte; NULL: zeroes */
  bool peek;
};

/* Versions with this tag that the read may return; *single is set if it is the only one. */
static uint32_t matches(const struct segment *segment, uint32_t tag, uint64_t begun, struct version **single) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < segment->count; i++) {
    struct version *version = &segment->versions[i];
    if (version->tag != tag || version->dead <= begun) continue;
    *single = version;
    count++;
  }
  if (count != 1) *single = NULL;
  return count;
}

static const char *wrong_byte(struct model *model, const struct segment *segment, uint64_t offset, uint8_t byte,
                              uint64_t begun) {
  size_t room = sizeof model->error;
  int used = snprintf(model->error, room, "byte %" PRIu64 " reads 0x%02x (tag %u); allowed:", offset, byte,
                      tag_of(model, offset, byte));
  for (uint32_t i = 0; i < segment->count && used > 0 && (size_t)used < room; i++) {
    const struct version *version = &segment->versions[i];
    used +=
        snprintf(model->error + used, room - (size_t)used, " %stag %u of #%" PRIu64 "%s",
                 version->dead <= begun ? "(not " : "", version->tag, version->op, version->dead <= begun ? ")" : "");
  }
  return model->error;
}

/* The bytes of this segment, all with one tag, were current at some instant of the read. */
static void read_settles(struct model *model, struct segment *segment, uint32_t tag, const struct model_op *op,
                         struct version *single) {
  if (op->begun < model->loss_tick) return; /* that may have been before the loss, and proves nothing of what is left */
  uint64_t floor = single ? max_u64(op->begun, single->begun) : op->begun;
  uint64_t killer = 0;
  bool durable = model->calm && model->power_tick != 0;
  for (uint32_t i = 0; i < segment->count; i++) {
    const struct version *version = &segment->versions[i];
    if (version->tag != tag || version->dead <= op->begun) continue;
    bool unsure = version->failed && op->lone;
    if (version->effective == NEVER || unsure || op_is_pending(model, version->op)) killer = version->op;
    if (version->effective == NEVER) model->world->counters.read_sees_pending++;
    if (version->effective > model->power_tick) durable = false;
  }
  if (single && single->effective == NEVER && !op_comes_again(model, single->op)) single->effective = model->tick;
  for (uint32_t i = 0; i < segment->count; i++) {
    struct version *version = &segment->versions[i];
    if (version->tag == tag || version->effective > floor) continue;
    if (version->dead == NEVER) {
      version->dead = model->tick;
      version->killer = killer;
      if (model->power_tick != 0 && version->effective <= model->power_tick)
        model->world->counters.bytes_settled += segment->end - segment->start;
    }
    if (killer == 0) {
      version->firm = min_u64(version->firm, model->tick);
      version->killer = 0;
    }
    if (durable && version->effective <= model->power_tick) version->gone = 1;
  }
}

static const char *read_done(struct model *model, struct segment *segment, uint64_t start, void *context) {
  const struct read_context *read = context;
  static const uint8_t zeroes[MODEL_BLOCK];
  const uint8_t *data = read->data ? read->data + (start - read->op->offset) : zeroes;
  uint64_t length = segment->end - segment->start;
  uint32_t tag = tag_of(model, start, data[0]);
  struct version *single = NULL;
  if (matches(segment, tag, read->op->begun, &single) == 0)
    return wrong_byte(model, segment, start, data[0], read->op->begun);
  uint64_t same = match_within_block(model, tag, start, length, data);
  require(same > 0);
  if (same < length)
    segment_split(model, segment, segment->start + (uint32_t)same); /* the walk goes on with the rest */
  if (read->peek) return NULL;
  if (single) single = version_of(segment, single->op);
  read_settles(model, segment, tag, read->op, single);
  if (!segment_is_alive(segment)) return wrong_byte(model, segment, start, data[0], model->tick); /* reads contradict */
  segment_tidy(model, segment);
  return NULL;
}

/* ---- sectors ---- */

#define SECTOR_PARTS_MAX 16u /* of one sector; what is cut finer is not looked at */

/* A part of a sector, with one history, as a read has shown it. */
struct part {
  struct segment *segment;
  uint32_t tag;
  const struct version *shown; /* NULL: there are several with this tag, or none any more */
  uint64_t newest;             /* tick by which all of those with this tag had taken effect */
};

static void part_look(const struct model *model, struct part *part, uint64_t at, uint8_t byte, uint64_t begun) {
  struct version *single = NULL;
  part->tag = tag_of(model, at, byte);
  part->newest = matches(part->segment, part->tag, begun, &single) == 0 ? NEVER : 0;
  part->shown = single;
  for (uint32_t i = 0; i < part->segment->count; i++) {
    const struct version *version = &part->segment->versions[i];
    if (version->tag == part->tag && version->dead > begun) part->newest = max_u64(part->newest, version->effective);
  }
}

/* One part shows this write, another one that it has written too does not: is that older for sure, or overwritten by it
 * where both are? */
static bool parts_contradict(const struct part *one, const struct part *other) {
  const struct version *write = one->shown;
  if (!write || write->tag == other->tag || !version_of(other->segment, write->op)) return false;
  if (other->newest <= write->begun) return true;
  return other->shown && version_of(one->segment, other->shown->op) != NULL;
}

static const char *torn_sector(struct model *model, uint64_t sector, const struct part *one, const struct part *other) {
  snprintf(model->error, sizeof model->error,
           "the sector of %u bytes at %" PRIu64 " is torn: it shows tag %u of #%" PRIu64 ", and tag %u beside it",
           model->sector_bytes, sector, one->tag, one->shown->op, other->tag);
  return model->error;
}

static const char *sector_check(struct model *model, uint64_t sector, const struct model_op *op, const uint8_t *data) {
  struct part parts[SECTOR_PARTS_MAX];
  uint32_t count = 0, from = (uint32_t)(sector % MODEL_BLOCK);
  struct segment *segment = block_first(model, sector / MODEL_BLOCK);
  for (; segment && segment->start < from + model->sector_bytes; segment = segment->next) {
    if (segment->end <= from) continue;
    if (count == SECTOR_PARTS_MAX) return NULL;
    uint64_t at = sector + max_u64(segment->start, from) - from;
    parts[count].segment = segment;
    part_look(model, &parts[count++], at, data[at - op->offset], op->begun);
  }
  for (uint32_t i = 0; i < count; i++)
    for (uint32_t j = 0; j < count; j++)
      if (i != j && parts_contradict(&parts[i], &parts[j])) return torn_sector(model, sector, &parts[i], &parts[j]);
  return NULL;
}

/* After each byte was found to be allowed: what has more than one history within a sector is looked at again, as a
 * whole. */
static const char *sectors_check(struct model *model, const struct model_op *op, const uint8_t *data) {
  uint64_t unit = model->sector_bytes, end = align_down(op->offset + op->length, unit);
  for (uint64_t sector = align_up(op->offset, unit); sector < end; sector += unit) {
    const struct segment *segment = block_first(model, sector / MODEL_BLOCK);
    while (segment->end <= sector % MODEL_BLOCK) segment = segment->next;
    if (segment->end >= sector % MODEL_BLOCK + unit) continue;
    const char *wrong = sector_check(model, sector, op, data);
    if (wrong) return wrong;
  }
  return NULL;
}

/* ---- flushes and crashes ---- */

static const char *flush_done(struct model *model, struct segment *segment, uint64_t start, void *context) {
  (void)start;
  const struct model_op *op = context;
  if (segment->count == 1) return NULL;
  for (uint32_t i = 0; i < segment->count; i++)
    if (segment->versions[i].firm <= op->begun) segment->versions[i].gone = 1;
  segment_tidy(model, segment);
  return NULL;
}

static const char *power_lost(struct model *model, struct segment *segment, uint64_t start, void *context) {
  (void)start, (void)context;
  segment_tidy(model, segment);
  for (uint32_t i = 0; i < segment->count; i++) {
    struct version *version = &segment->versions[i];
    if (version->gone) continue;
    version->dead = version->firm = NEVER;
    version->killer = 0;
  }
  segment_tidy(model, segment);
  return NULL;
}

/* ---- the interface ---- */

struct model *model_new(struct world *world, uint32_t volume, uint64_t size_bytes, bool calm) {
  salts_init();
  struct model *model = world_alloc(world, sizeof *model);
  model->world = world;
  model->size_bytes = size_bytes;
  model->salt = volume * 77777;
  model->calm = calm;
  model->sector_bytes = 512;
  model->block_count = (size_bytes + MODEL_BLOCK - 1) / MODEL_BLOCK;
  model->blocks = world_alloc(world, model->block_count * sizeof *model->blocks);
  list_init(&model->pending);
  model->id_next = 1;
  return model;
}

static const char *adopt_each(struct model *model, struct segment *segment, uint64_t start, void *context) {
  (void)model, (void)start;
  segment->versions[0].tag = *(const uint32_t *)context;
  return NULL;
}

void model_adopt(struct model *model, uint64_t offset, uint64_t length, uint32_t tag) {
  require(model->tick == 0);
  require(tag < TAG_ZERO);
  (void)walk(model, offset, length, adopt_each, &tag);
}

struct tag_search {
  uint64_t used[4];
  uint32_t version_count_max;
};

static const char *collect_tags(struct model *model, struct segment *segment, uint64_t start, void *context) {
  (void)start;
  struct tag_search *search = context;
  segment_tidy(model, segment);
  search->version_count_max = (uint32_t)max_u64(search->version_count_max, segment->count);
  for (uint32_t i = 0; i < segment->count; i++)
    search->used[segment->versions[i].tag / 64] |= 1ull << segment->versions[i].tag % 64;
  return NULL;
}

/* A tag that no byte of the range has, starting the search at a place that hangs on the op alone. */
static bool choose_tag(struct model *model, struct model_op *op) {
  struct tag_search search = {0};
  (void)walk(model, op->offset, op->length, collect_tags, &search);
  if (!op->must && search.version_count_max >= (op->kind == MODEL_TRIM ? MODEL_VERSIONS_HIGH : MODEL_VERSIONS_MAX))
    return false;
  op->tag = TAG_ZERO;
  if (op->kind != MODEL_WRITE) return true;
  for (uint32_t i = 0, first = (uint32_t)(mix_u64(model->id_next) % 255); i < 255; i++) {
    uint32_t tag = (first + i) % 255;
    if (search.used[tag / 64] >> tag % 64 & 1) continue;
    op->tag = tag;
    return true;
  }
  return false;
}

bool model_begin(struct model *model, struct model_op *op) {
  require(op->kind == MODEL_FLUSH || op->length > 0);
  bool writes = op->kind == MODEL_WRITE || op->kind == MODEL_ZERO || op->kind == MODEL_TRIM;
  if (writes && !choose_tag(model, op)) return false;
  op->id = model->id_next++;
  op->begun = ++model->tick;
  list_init(&op->link);
  list_push(&model->pending, &op->link);
  if (writes) (void)walk(model, op->offset, op->length, write_begin, op);
  return true;
}

const char *model_end(struct model *model, struct model_op *op, bool ok, const uint8_t *data) {
  require(list_is_linked(&op->link));
  require(implies(data != NULL, ok && op->kind == MODEL_READ));
  model->tick++;
  const char *wrong = NULL;
  bool sure = ok && (op->fua || op->begun > model->loss_tick); /* it may have been done before the loss */
  segment_each *unsure = ok ? write_maybe : write_failed;
  switch (op->kind) {
    case MODEL_READ: {
      struct read_context read = {.op = op, .data = data, .peek = false};
      if (ok) wrong = walk(model, op->offset, op->length, read_done, &read);
      if (ok && !wrong) wrong = sectors_check(model, op, data);
      break;
    }
    case MODEL_WRITE:
    case MODEL_ZERO: (void)walk(model, op->offset, op->length, sure ? write_done : unsure, op); break;
    case MODEL_TRIM: (void)walk(model, op->offset, op->length, sure ? trim_done : unsure, op); break;
    case MODEL_FLUSH:
      if (!ok) model->flush_failed_tick = model->tick;
      if (ok && op->begun < model->flush_failed_tick) model->world->counters.flush_over_failure++;
      if (ok) (void)walk_all(model, flush_done, op);
      break;
  }
  list_remove(&op->link);
  return wrong;
}

const char *model_end_extents(struct model *model, struct model_op *op, const struct disk_extent *runs,
                              uint32_t count) {
  require(list_is_linked(&op->link));
  require(op->kind == MODEL_READ);
  model->tick++;
  const char *wrong = NULL;
  uint64_t at = op->offset;
  for (uint32_t i = 0; i < count && !wrong; at += runs[i++].length) {
    struct read_context read = {.op = op, .data = NULL, .peek = false};
    require(at + runs[i].length <= op->offset + op->length);
    if (runs[i].flags & EXTENT_ZERO) wrong = walk(model, at, runs[i].length, read_done, &read);
  }
  list_remove(&op->link);
  return wrong;
}

void model_op_ended(struct model *model, struct model_op *op) {
  require(list_is_linked(&op->link));
  if (op->ended != 0) return;
  op->ended = ++model->tick;
  model->ended_count++;
}

void model_abandon(struct model *model, struct model_op *op) {
  require(list_is_linked(&op->link));
  if (op->ended != 0) model->ended_count--;
  model->tick++;
  if (op->kind != MODEL_READ && op->kind != MODEL_FLUSH) (void)walk(model, op->offset, op->length, write_maybe, op);
  list_remove(&op->link);
}

void model_never(struct model *model, struct model_op *op) {
  require(list_is_linked(&op->link));
  require(op->kind == MODEL_WRITE);
  if (op->ended != 0) model->ended_count--;
  model->tick++;
  list_remove(&op->link);
  (void)walk(model, op->offset, op->length, write_never, op);
}

static const char *seen_pending(struct model *model, struct segment *segment, uint64_t start, void *context) {
  (void)model, (void)start;
  const struct version *mine = version_of(segment, ((const struct model_op *)context)->id);
  return mine && mine->effective != NEVER ? "seen" : NULL;
}

static void count_seen(struct model *model, struct model_op *op) {
  if (op->kind == MODEL_WRITE || op->kind == MODEL_ZERO)
    model->world->counters.seen_cut_off += walk(model, op->offset, op->length, seen_pending, op) != NULL;
}

void model_crash(struct model *model, bool power) {
  LIST_EACH(&model->pending, node) count_seen(model, LIST_ENTRY(node, struct model_op, link));
  model->tick++;
  struct list *node;
  while ((node = list_first(&model->pending))) model_abandon(model, LIST_ENTRY(node, struct model_op, link));
  if (!power) return;
  (void)walk_all(model, power_lost, NULL);
  model->power_tick = ++model->tick;
}

/* A pending write may take effect from now on, whatever was seen of it. */
static const char *pending_again(struct model *model, struct segment *segment, uint64_t start, void *context) {
  const struct model_op *op = context;
  for (uint32_t i = 0; i < segment->count; i++) {
    struct version *version = &segment->versions[i];
    bool mine = version->op == op->id;
    if (mine && op->ended != 0 && version->firm != NEVER) continue; /* what came later is over it */
    if (mine) version->effective = NEVER;
    if (!mine && version->killer != op->id) continue;
    version->dead = version->firm = NEVER;
    version->killer = 0;
  }
  if (!version_of(segment, op->id) && op->ended == 0)
    (void)write_begin(model, segment, start, context); /* forgotten, since it was overwritten */
  return NULL;
}

void model_fell(struct model *model) { model->fell_tick = ++model->tick; }

void model_fall(struct model *model, bool lost) {
  model->tick++;
  LIST_EACH(&model->pending, node) {
    struct model_op *op = LIST_ENTRY(node, struct model_op, link);
    op->again |= op->begun < model->fell_tick;
    if (op->kind != MODEL_READ && op->kind != MODEL_FLUSH) (void)walk(model, op->offset, op->length, pending_again, op);
  }
  if (!lost) return;
  (void)walk_all(model, power_lost, NULL);
  model->loss_tick = model->tick;
}

const char *model_peek(struct model *model, uint64_t offset, uint64_t length, const uint8_t *data) {
  struct model_op op = {.kind = MODEL_READ, .offset = offset, .length = length, .begun = model->tick};
  struct read_context read = {.op = &op, .data = data, .peek = true};
  const char *wrong = walk(model, offset, length, read_done, &read);
  return wrong ? wrong : sectors_check(model, &op, data);
}

bool model_write_pending(const struct model *model, uint64_t offset, uint64_t length, const struct model_op *except) {
  LIST_EACH(&model->pending, node) {
    const struct model_op *op = LIST_ENTRY(node, struct model_op, link);
    if (op == except || op->kind == MODEL_READ || op->kind == MODEL_FLUSH) continue;
    if (op->offset < offset + length && offset < op->offset + op->length) return true;
  }
  return false;
}

void model_check(const struct model *model) {
  for (uint64_t index = 0; index < model->block_count; index++) {
    if (!model->blocks[index]) continue;
    uint32_t at = 0;
    for (const struct segment *segment = model->blocks[index]->first; segment; segment = segment->next) {
      require(segment->start == at);
      at = segment->end;
      require(segment_is_alive(segment));
    }
    require(at == MODEL_BLOCK);
  }
}
