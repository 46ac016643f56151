/* gate.c - requests in a line, and places for those that are with the target.
 *
 * Why no request is lost, or answered twice: from gate_submit() to its answer a request is in one of three, and moves as
 * follows, in one step each:
 *
 *     line      in its client's disk_io         --> a place, when the gate is OPEN, one is free and nobody stands before it
 *     a place,  with the target                 --> answered with what the target says; if that is TARN_SHUTDOWN: back
 *     a place,  back                            --> with the (new) target, by gate_open()
 *     line, and back                            --> answered TARN_SHUTDOWN by gate_fail(), or, that one alone, by gate_withdraw()
 *
 * Answering takes it out of the line, or frees its place, before anything else; and a place that is with the target is left
 * alone by all but the target's completion. So who answers holds the only trace of it, and when the line and the places are
 * empty nothing is owed. A request ends when the gate is OPEN (by the target), or FAILING; SHUT ends by gate_open() or by
 * patience, which is a timer.
 *
 * Order: places are taken from the head of the line, so all that was ever with a target came before all that stands in line.
 * Those that are back are kept by number of arrival, and go first. */
#include "core/gate.h"

static const struct disk_ops gate_ops;

struct gate_io {
  struct list link; /* free, or back */
  struct gate *gate;
  struct disk_io *upper;
  uint64_t arrival;
  struct disk_io io;
};

static void submit_place(struct gate_io *place) {
  place->gate->with_target++;
  disk_submit(place->gate->target, &place->io);
}

/* The client's request gets its buffer back, which may be another one by now, and is out of the gate. */
static struct disk_io *vacate(struct gate_io *place) {
  struct disk_io *upper = place->upper;
  place->upper = NULL;
  disk_io_pass_back(upper, &place->io);
  list_push_front(&place->gate->free, &place->link);
  return upper;
}

/* ---- the line ---- */

static void target_done(struct disk_io *io);

/* A target that cannot trim, or does not know where its data are. Clients were told that they may ask; to do nothing is a trim
 * too, and to know nothing is an answer. */
static bool is_vain(const struct gate *gate, const struct disk_io *io) {
  return (io->op == DISK_TRIM && !gate->target->caps.can_trim) ||
         (io->op == DISK_EXTENTS && !gate->target->caps.can_extents);
}

static void answer_vain(struct disk_io *upper) {
  if (upper->op == DISK_EXTENTS) disk_extents_unknown(upper, upper->length);
  disk_complete(upper, TARN_OK);
}

static void start(struct gate *gate, struct disk_io *upper) {
  require(!list_is_linked(&upper->link));
  if (is_vain(gate, upper)) {
    answer_vain(upper);
    return;
  }
  struct gate_io *place = LIST_ENTRY(list_pop(&gate->free), struct gate_io, link);
  place->upper = upper;
  place->arrival = ++gate->arrivals;
  disk_io_same(&place->io, upper);
  place->io.done = target_done;
  submit_place(place);
}

/* The line moves only while nothing is back: what came first goes first. */
static bool may_start(const struct gate *gate) {
  return gate->state == GATE_OPEN && !list_is_empty(&gate->free) && list_is_empty(&gate->back);
}

static void line_run(struct gate *gate) {
  while (may_start(gate)) {
    struct list *node = list_pop(&gate->line);
    if (!node) return;
    gate->waiting--;
    start(gate, LIST_ENTRY(node, struct disk_io, link));
  }
}

static void gate_submit(struct disk *disk, struct disk_io *upper) {
  struct gate *gate = CONTAINER_OF(disk, struct gate, disk);
  if (gate->state == GATE_FAILING) {
    disk_complete(upper, TARN_SHUTDOWN);
  } else if (may_start(gate)) {
    require(list_is_empty(&gate->line)); /* or else the one that left its place had taken the next along */
    start(gate, upper);
  } else {
    list_push(&gate->line, &upper->link);
    gate->waiting++;
  }
}

/* ---- and back ---- */

static void come_back(struct gate_io *place) {
  struct gate *gate = place->gate;
  struct list *at = gate->back.prev;
  while (at != &gate->back && LIST_ENTRY(at, struct gate_io, link)->arrival > place->arrival) at = at->prev;
  list_insert_before(at->next, &place->link);
  gate->waiting++;
}

static void target_done(struct disk_io *io) {
  struct gate_io *place = CONTAINER_OF(io, struct gate_io, io);
  struct gate *gate = place->gate;
  require(gate->with_target > 0);
  gate->with_target--;
  tarn_err err = io->err;
  if (err == TARN_SHUTDOWN && gate->state != GATE_FAILING) {
    come_back(place);
    return;
  }
  struct disk_io *upper = vacate(place);
  line_run(gate);                /* may use the place again */
  disk_complete_now(upper, err); /* the last thing: its owner may do what it likes with the gate */
}

/* ---- open, shut, failing ---- */

static bool fits_caps(const struct disk_caps *told, const struct disk_caps *caps) {
  if (caps->size_bytes < told->size_bytes || caps->io_bytes_max < told->io_bytes_max) return false;
  if (caps->block_bytes > told->block_bytes || (caps->read_only && !told->read_only)) return false;
  return !told->can_zero || (caps->can_zero && caps->zero_bytes_max >= told->zero_bytes_max);
}

bool gate_fits(const struct gate *gate, const struct disk *target) {
  return !gate->opened || fits_caps(&gate->disk.caps, &target->caps);
}

/* What clients are told for good. Where caution costs them next to nothing it is the most that any disk asks for, so that an
 * image that joins later, on another kind of disk, does not make the mirror unfit for the clients that it has. */
static void tell_caps(struct gate *gate, const struct disk_caps *caps) {
  struct disk_caps *told = &gate->disk.caps;
  *told = *caps;
  told->align_bytes = BUFFER_ALIGN;
  /* Unaligned, a request grows by up to a block. Of plain files this leaves 256 KiB. */
  told->io_bytes_max = (uint32_t)min_u64(caps->io_bytes_max, BUFFER_DATA_MAX - BUFFER_ALIGN);
  told->zero_block_bytes = BUFFER_ALIGN;
  told->zero_bytes_max = align_down(caps->zero_bytes_max, BUFFER_ALIGN);
  if (told->zero_bytes_max == 0) told->can_zero = told->can_trim = false;
  told->volatile_cache = true;
  told->can_extents = true;
  gate->opened = true;
  require(fits_caps(told, caps));
}

void gate_open(struct gate *gate, struct disk *target) {
  require(gate->state != GATE_OPEN);
  require(gate_is_idle(gate));
  require(gate_fits(gate, target));
  require(target->env == gate->disk.env);
  timer_cancel(&gate->timer);
  if (!gate->opened) tell_caps(gate, &target->caps);
  gate->state = GATE_OPEN;
  gate->target = target;
  for (struct list *node; (node = list_pop(&gate->back)) != NULL;) {
    struct gate_io *place = LIST_ENTRY(node, struct gate_io, link);
    gate->waiting--;
    if (is_vain(gate, &place->io)) answer_vain(vacate(place));
    else submit_place(place);
  }
  line_run(gate);
}

void gate_shut(struct gate *gate, uint64_t patience_ns) {
  require(gate->state == GATE_OPEN);
  if (patience_ns == 0) {
    gate_fail(gate);
    return;
  }
  gate->state = GATE_SHUT;
  gate->target = NULL;
  uint64_t now = gate->disk.env->now_ns;
  timer_set(gate->disk.env, &gate->timer, now + min_u64(patience_ns, UINT64_MAX - now));
}

void gate_fail(struct gate *gate) {
  timer_cancel(&gate->timer);
  gate->state = GATE_FAILING;
  gate->target = NULL;
  for (struct list *node; (node = list_pop(&gate->back)) != NULL;)
    disk_complete(vacate(LIST_ENTRY(node, struct gate_io, link)), TARN_SHUTDOWN);
  for (struct list *node; (node = list_pop(&gate->line)) != NULL;)
    disk_complete(LIST_ENTRY(node, struct disk_io, link), TARN_SHUTDOWN);
  gate->waiting = 0;
}

static struct gate_io *find_back(struct gate *gate, const struct disk_io *upper) {
  LIST_EACH(&gate->back, node) {
    struct gate_io *place = LIST_ENTRY(node, struct gate_io, link);
    if (place->upper == upper) return place;
  }
  return NULL;
}

void gate_withdraw(struct disk *disk, struct disk_io *io) {
  require(disk->ops == &gate_ops);
  require(io->disk == disk);
  struct gate *gate = CONTAINER_OF(disk, struct gate, disk);
  struct gate_io *place = find_back(gate, io);
  if (place) {
    list_remove(&place->link);
    vacate(place);
  } else if (list_is_linked(&io->link)) list_remove(&io->link);
  else return; /* the target has it, or it is answered already */
  gate->waiting--;
  disk_complete(io, TARN_SHUTDOWN);
  line_run(gate); /* it may have been the last that was back */
}

void gate_lose(struct gate *gate) {
  require(gate->state != GATE_OPEN);
  gate->disk.losses++;
}

static void patience_over(struct timer *timer) {
  struct gate *gate = CONTAINER_OF(timer, struct gate, timer);
  require(gate->state == GATE_SHUT);
  gate_fail(gate);
}

bool gate_is_idle(const struct gate *gate) { return gate->with_target == 0; }

/* ---- its life ---- */

static void gate_close(struct disk *disk) {
  (void)disk;
  tarn_panic("a gate is not closed, its arena goes", __FILE__, __LINE__);
}

static const struct disk_ops gate_ops = {.kind = "gate", .submit = gate_submit, .close = gate_close};

tarn_err gate_init(struct gate *gate, struct env *env, struct arena *arena, uint32_t slots) {
  require(slots > 0);
  *gate = (struct gate){.disk = {.ops = &gate_ops, .env = env}, .state = GATE_SHUT};
  list_init(&gate->free);
  list_init(&gate->back);
  list_init(&gate->line);
  timer_init(&gate->timer, patience_over);
  gate->ios = ARENA_NEW(arena, struct gate_io, slots);
  if (!gate->ios) return TARN_FULL;
  for (uint32_t i = 0; i < slots; i++) {
    struct gate_io *place = &gate->ios[i];
    *place = (struct gate_io){.gate = gate};
    disk_io_init(&place->io);
    list_init(&place->link);
    list_push(&gate->free, &place->link);
  }
  return TARN_OK;
}
