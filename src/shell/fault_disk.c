/* fault_disk.c - see fault_disk.h.
 *
 * An I/O is in one of these until it is answered:
 *
 *     kept       its own disk_io, in `kept`: a hang; only faults_heal() moves it
 *     waiting    its own disk_io, in `waiting`, for a place
 *     a place    `delayed`, by the time when it is due; or with the disk below
 *
 * `again` brings kept and waiting ones back to the start, where they are judged by the faults of that moment. */
#include "shell/fault_disk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PLACES         1024u
#define SECTOR_BYTES   512u
#define UNIT_BYTES_MIN 4096u
#define UNITS_MAX      (1u << 20) /* 128 KiB for a fault and a volume */

struct fault_disk;
struct place {
  struct list link; /* free, or delayed */
  struct fault_disk *owner;
  struct disk_io *upper;
  uint64_t due_ns;
  bool fails;
  struct disk_io io;
};

struct fault_disk {
  struct disk disk;
  struct disk *lower;
  struct faults *faults;
  uint32_t volume;
  struct list link; /* of faults->disks */
  struct place *places;
  struct list free, delayed, waiting, kept;
  uint32_t kept_count;
  uint64_t line_moved;
  struct timer timer;
};

static struct fault_disk *fault_disk_of(struct disk *disk) { return CONTAINER_OF(disk, struct fault_disk, disk); }

/* ---- which fault an I/O meets ---- */

static enum fault_on on_of(enum disk_op op) {
  switch (op) {
    case DISK_READ:
    case DISK_EXTENTS: return FAULT_ON_READ;
    case DISK_WRITE:
    case DISK_TRIM:
    case DISK_WRITE_ZEROES: return FAULT_ON_WRITE;
    case DISK_FLUSH: return FAULT_ON_FLUSH;
    case DISK_OP_COUNT: break;
  }
  tarn_panic("no operation", __FILE__, __LINE__);
}

static uint64_t end_of(const struct fault_spec *spec) {
  return spec->length ? spec->offset + spec->length : UINT64_MAX;
}

static bool meets(const struct fault_spec *spec, const struct disk_io *io) {
  if (!(spec->on & on_of(io->op))) return false;
  return io->op == DISK_FLUSH || (io->offset < end_of(spec) && spec->offset < io->offset + io->length);
}

struct judgement {
  bool hangs, fails;
  uint64_t delay_ns;
};

static struct judgement judge(const struct fault_disk *disk, const struct disk_io *io) {
  struct judgement judgement = {0};
  for (uint32_t i = 0; i < disk->faults->count; i++) {
    const struct fault_spec *spec = &disk->faults->list[i].spec;
    if (!meets(spec, io)) continue;
    judgement.hangs |= spec->kind == FAULT_HANG;
    judgement.fails |= spec->kind == FAULT_FAIL;
    if (spec->kind == FAULT_DELAY) judgement.delay_ns = max_u64(judgement.delay_ns, spec->delay_ns);
  }
  return judgement;
}

/* ---- bytes that come back wrong ---- */

static bool is_written(const struct fault_written *written, uint64_t at) {
  uint64_t unit = (at - written->first) / written->unit_bytes;
  return unit < written->units.bit_count && bitmap_test(&written->units, unit);
}

static void corrupt(const struct fault_disk *disk, const struct disk_io *io) {
  for (uint32_t i = 0; i < disk->faults->count; i++) {
    const struct fault *fault = &disk->faults->list[i];
    if (fault->spec.kind != FAULT_CORRUPT || !meets(&fault->spec, io)) continue;
    uint64_t end = min_u64(io->offset + io->length, end_of(&fault->spec));
    for (uint64_t at = max_u64(io->offset, fault->spec.offset); at < end;
         at = align_down(at, SECTOR_BYTES) + SECTOR_BYTES)
      if (!is_written(&fault->written[disk->volume], at)) io->data[at - io->offset] ^= 0x10;
  }
}

/* The units of which the write covers all that the fault, and the disk, have of them. */
static void note_written(const struct fault_disk *disk, const struct disk_io *io) {
  uint64_t io_end = io->offset + io->length;
  for (uint32_t i = 0; i < disk->faults->count; i++) {
    struct fault *fault = &disk->faults->list[i];
    struct fault_written *written = &fault->written[disk->volume];
    if (written->units.bit_count == 0) continue;
    uint64_t units_end = written->first + written->units.bit_count * written->unit_bytes;
    uint64_t from = io->offset <= fault->spec.offset ? written->first : io->offset;
    uint64_t to = min_u64(io_end, units_end);
    if (io_end >= min_u64(end_of(&fault->spec), disk->disk.caps.size_bytes)) to = units_end;
    if (io_end <= written->first || io->offset >= units_end) continue;
    uint64_t first = align_up(from - written->first, written->unit_bytes) / written->unit_bytes;
    uint64_t end = (to - written->first) / written->unit_bytes;
    if (end > first) bitmap_set_range(&written->units, first, end - first);
  }
}

/* Room to note what is written, for a corrupting fault on one disk. Kept while the disk is closed. */
static bool written_new(struct fault *fault, const struct fault_disk *disk) {
  struct fault_written *written = &fault->written[disk->volume];
  uint64_t size = disk->disk.caps.size_bytes, end = min_u64(end_of(&fault->spec), size);
  if (fault->spec.kind != FAULT_CORRUPT || written->units.words || fault->spec.offset >= end) return true;
  uint64_t unit_bytes = UNIT_BYTES_MIN;
  while ((end - align_down(fault->spec.offset, unit_bytes)) / unit_bytes >= UNITS_MAX) unit_bytes *= 2;
  uint64_t first = align_down(fault->spec.offset, unit_bytes), count = (end - first + unit_bytes - 1) / unit_bytes;
  uint64_t *words = calloc(1, bitmap_bytes(count));
  if (!words) return false;
  bitmap_init(&written->units, words, count);
  written->first = first;
  written->unit_bytes = unit_bytes;
  return true;
}

static void fault_free(struct fault *fault) {
  for (uint32_t v = 0; v < VOLUMES_MAX; v++) free(fault->written[v].units.words);
  *fault = (struct fault){0};
}

/* ---- the path of an I/O ---- */

static void begin(struct fault_disk *disk, struct disk_io *upper);

static void again(struct fault_disk *disk, struct list *ios) {
  struct list all;
  list_init(&all);
  list_splice(&all, ios);
  for (struct list *node; (node = list_pop(&all)) != NULL;) begin(disk, LIST_ENTRY(node, struct disk_io, link));
}

static struct disk_io *vacate(struct place *place) {
  struct disk_io *upper = place->upper;
  place->upper = NULL;
  place->owner->line_moved++;
  list_push_front(&place->owner->free, &place->link);
  return upper;
}

static void lower_done(struct disk_io *io) {
  struct place *place = CONTAINER_OF(io, struct place, io);
  struct fault_disk *disk = place->owner;
  tarn_err err = io->err;
  disk_io_pass_back(place->upper, io); /* perhaps another buffer */
  if (!err && io->op == DISK_READ) corrupt(disk, io);
  if (!err && (io->op == DISK_WRITE || io->op == DISK_WRITE_ZEROES)) note_written(disk, io);
  struct disk_io *upper = vacate(place);
  if (!list_is_empty(&disk->waiting)) again(disk, &disk->waiting);
  disk_complete_now(upper, err);
}

/* The place's time has come. */
static void proceed(struct place *place) {
  if (place->fails) disk_complete(vacate(place), TARN_IO);
  else {
    place->upper->under = &place->io;
    disk_submit(place->owner->lower, &place->io);
  }
}

static void arm(struct fault_disk *disk) {
  struct list *first = list_first(&disk->delayed);
  if (first) timer_set(disk->disk.env, &disk->timer, LIST_ENTRY(first, struct place, link)->due_ns);
}

static void delay(struct place *place, uint64_t delay_ns) {
  struct fault_disk *disk = place->owner;
  place->due_ns = disk->disk.env->now_ns + delay_ns;
  struct list *at = disk->delayed.prev;
  while (at != &disk->delayed && LIST_ENTRY(at, struct place, link)->due_ns > place->due_ns) at = at->prev;
  list_insert_before(at->next, &place->link);
  arm(disk);
}

static void delay_over(struct timer *timer) {
  struct fault_disk *disk = CONTAINER_OF(timer, struct fault_disk, timer);
  for (struct list *node; (node = list_first(&disk->delayed)) != NULL;) {
    struct place *place = LIST_ENTRY(node, struct place, link);
    if (place->due_ns > disk->disk.env->now_ns) break;
    list_remove(node);
    proceed(place);
  }
  arm(disk);
  if (!list_is_empty(&disk->waiting)) again(disk, &disk->waiting);
}

static void begin(struct fault_disk *disk, struct disk_io *upper) {
  disk_io_set_line(upper, NULL);
  struct judgement judgement = judge(disk, upper);
  if (judgement.hangs) {
    list_push(&disk->kept, &upper->link);
    disk->kept_count++;
    return;
  }
  struct list *node = list_pop(&disk->free); /* none is free while others wait */
  if (!node) {
    disk_io_set_line(upper, &disk->line_moved);
    list_push(&disk->waiting, &upper->link);
    return;
  }
  struct place *place = LIST_ENTRY(node, struct place, link);
  place->upper = upper;
  place->fails = judgement.fails;
  disk_io_same(&place->io, upper);
  place->io.done = lower_done;
  place->io.user = upper->user;
  if (judgement.delay_ns > 0) delay(place, judgement.delay_ns);
  else proceed(place);
}

static void fault_disk_submit(struct disk *disk, struct disk_io *io) { begin(fault_disk_of(disk), io); }

/* ---- what is asked for ---- */

void faults_init(struct faults *faults) {
  *faults = (struct faults){0};
  list_init(&faults->disks);
}

void faults_destroy(struct faults *faults) {
  require(list_is_empty(&faults->disks));
  faults_heal(faults);
}

static tarn_err check(const struct fault_spec *spec, struct why *why) {
  const uint32_t all = FAULT_ON_READ | FAULT_ON_WRITE | FAULT_ON_FLUSH;
  if (spec->on & ~all) return because(why, TARN_INVALID, "a fault is on read, write or flush");
  if (spec->length > UINT64_MAX - spec->offset)
    return because(why, TARN_INVALID, "the range of a fault ends beyond 2^64");
  if (spec->offset > 0 && spec->length == 0) return because(why, TARN_INVALID, "the range of a fault has no length");
  if (spec->kind == FAULT_CORRUPT && spec->on & ~(uint32_t)FAULT_ON_READ)
    return because(why, TARN_INVALID, "corrupt changes what reads return: it is on read only");
  if (spec->kind != FAULT_DELAY) return TARN_OK;
  if (spec->delay_ns > 0 && spec->delay_ns <= FAULT_DELAY_NS_MAX) return TARN_OK;
  return because(why, TARN_INVALID, "a delay is from 1 ms to a day");
}

static uint32_t on_default(const struct fault_spec *spec) {
  if (spec->kind == FAULT_CORRUPT) return FAULT_ON_READ;
  return FAULT_ON_READ | FAULT_ON_WRITE | (spec->length == 0 ? FAULT_ON_FLUSH : 0u);
}

tarn_err faults_inject(struct faults *faults, const struct fault_spec *spec, struct why *why) {
  tarn_err err = check(spec, why);
  if (err) return err;
  struct fault fault = {.spec = *spec};
  if (fault.spec.on == 0) fault.spec.on = on_default(spec);
  LIST_EACH(&faults->disks, node) {
    if (written_new(&fault, LIST_ENTRY(node, struct fault_disk, link))) continue;
    fault_free(&fault);
    return because(why, TARN_FULL, "no memory for another fault");
  }
  for (uint32_t i = 0; i < faults->count; i++) {
    const struct fault_spec *old = &faults->list[i].spec;
    if (old->kind != fault.spec.kind || old->on != fault.spec.on) continue;
    if (old->offset != fault.spec.offset || old->length != fault.spec.length) continue;
    fault_free(&faults->list[i]);
    faults->list[i] = fault;
    return TARN_OK;
  }
  if (faults->count == FAULTS_MAX) {
    fault_free(&fault);
    return because(why, TARN_FULL, "%u faults are active already: heal them first", FAULTS_MAX);
  }
  faults->list[faults->count++] = fault;
  return TARN_OK;
}

static void disk_heal(struct fault_disk *disk) {
  timer_cancel(&disk->timer);
  for (struct list *node; (node = list_pop(&disk->delayed)) != NULL;) {
    struct place *place = LIST_ENTRY(node, struct place, link);
    place->fails = false;
    proceed(place);
  }
  disk->kept_count = 0;
  again(disk, &disk->kept);
}

void faults_heal(struct faults *faults) {
  while (faults->count > 0) fault_free(&faults->list[--faults->count]);
  LIST_EACH(&faults->disks, node) disk_heal(LIST_ENTRY(node, struct fault_disk, link));
}

uint32_t faults_kept(const struct faults *faults) {
  uint32_t count = 0;
  LIST_EACH(&faults->disks, node) count += LIST_ENTRY(node, struct fault_disk, link)->kept_count;
  return count;
}

void fault_spec_text(const struct fault_spec *spec, char text[FAULT_SPEC_TEXT_MAX]) {
  static const char *const kinds[] = {
      [FAULT_FAIL] = "fail", [FAULT_HANG] = "hang", [FAULT_DELAY] = "delay", [FAULT_CORRUPT] = "corrupt"};
  static const char *const ons[] = {"",      "read",       "write",       "read,write",
                                    "flush", "read,flush", "write,flush", "read,write,flush"};
  require(spec->on < COUNT_OF(ons));
  char value[24] = "", range[64] = "";
  if (spec->kind == FAULT_DELAY)
    snprintf(value, sizeof value, "=%llu", (unsigned long long)((spec->delay_ns + NS_PER_MS - 1) / NS_PER_MS));
  if (spec->length > 0)
    snprintf(range, sizeof range, " --range %llu+%llu", (unsigned long long)spec->offset,
             (unsigned long long)spec->length);
  snprintf(text, FAULT_SPEC_TEXT_MAX, "%s%s%s%s%s", kinds[spec->kind], value, range, spec->on ? " --on " : "",
           ons[spec->on]);
}

/* ---- its life ---- */

static void fault_disk_free(struct fault_disk *disk) {
  free(disk->places);
  free(disk);
}

static void fault_disk_close(struct disk *disk) {
  struct fault_disk *fault_disk = fault_disk_of(disk);
  require(list_is_empty(&fault_disk->kept));
  timer_cancel(&fault_disk->timer);
  list_remove(&fault_disk->link);
  disk_close(fault_disk->lower);
  fault_disk_free(fault_disk);
}

static bool fault_disk_is_lost(struct disk *disk) { return disk_is_lost(fault_disk_of(disk)->lower); }

static const struct disk_ops fault_disk_ops = {
    .kind = "fault", .submit = fault_disk_submit, .close = fault_disk_close, .is_lost = fault_disk_is_lost};

tarn_err fault_disk_new(struct faults *faults, uint32_t volume, struct disk *lower, struct disk **disk) {
  require(volume < VOLUMES_MAX);
  *disk = NULL;
  struct fault_disk *made = calloc(1, sizeof *made);
  if (!made) return TARN_FULL;
  made->places = calloc(PLACES, sizeof *made->places);
  made->disk = (struct disk){.ops = &fault_disk_ops, .env = lower->env, .caps = lower->caps};
  made->lower = lower;
  made->faults = faults;
  made->volume = volume;
  bool room = made->places != NULL;
  for (uint32_t i = 0; i < faults->count && room; i++) room = written_new(&faults->list[i], made);
  if (!room) {
    fault_disk_free(made);
    return TARN_FULL;
  }
  struct list *heads[] = {&made->link, &made->free, &made->delayed, &made->waiting, &made->kept};
  for (size_t i = 0; i < COUNT_OF(heads); i++) list_init(heads[i]);
  for (uint32_t i = 0; i < PLACES; i++) {
    struct place *place = &made->places[i];
    place->owner = made;
    disk_io_init(&place->io);
    list_init(&place->link);
    list_push(&made->free, &place->link);
  }
  timer_init(&made->timer, delay_over);
  list_push(&faults->disks, &made->link);
  *disk = &made->disk;
  return TARN_OK;
}

struct disk *fault_disk_lower(struct disk *disk) {
  return disk->ops == &fault_disk_ops ? fault_disk_of(disk)->lower : disk;
}
