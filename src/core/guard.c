/* guard.c - a place per I/O, and a timer that counts.
 *
 * Each I/O has a disk_io of its own with the disk below, in a place (`guard_io`) of the guard. A place is, in this order:
 *
 *     free --submit--> active, with an upper I/O --the disk answers--> free        the upper I/O is answered with it, at once
 *                             |
 *                             `--the guard dies--> active, held --the disk answers--> free       the answer goes nowhere
 *                                (the upper I/O is answered with the guard's error)
 *
 * A good FLUSH or FUA stays in its place, off the disk, until those that were under way when it ended have ended: see sync_failed().
 * Long work may stand in line between free and active: then the disk has nothing of it, and the death frees its place.
 *
 * So an upper I/O is answered once: by whoever takes it out of its place, which happens once. A held place is with the disk
 * below as before, with its own disk_io and, from the death on, its own reference to the buffer: the submitter's reference
 * goes back with the answer. A reference taken only then costs the common path nothing.
 *
 * Events keep the order: `died`, then the answers of the death, then `quiet`, each after all that was posted before. */
#include "core/guard.h"

#include "base/plant.h"

#define HANG_STEPS 4u /* steps in `hang` */

struct guard_io {
  struct list link; /* free or active */
  struct guard *guard;
  struct disk_io *upper;        /* NULL: held, its submitter was answered */
  bool referenced;              /* held, with a reference to io.buffer */
  bool in_doubt;                /* a FLUSH or a FUA, and another one failed before it was answered */
  uint64_t sync;                /* its number; when it has ended: that of the last one that it waits for */
  uint64_t step;                /* when it was submitted, or has come on last: */
  const struct disk_io *lowest; /* the I/O that it depends on, */
  const uint64_t *line;         /* the line where that stands, */
  uint64_t moved;               /* and how often the line had moved */
  struct disk_io io;
};

static uint64_t step_ns(const struct guard *guard) { return (guard->hang_ns + HANG_STEPS - 1) / HANG_STEPS; }

static void arm(struct guard *guard) {
  timer_set(guard->disk.env, &guard->timer, guard->disk.env->now_ns + step_ns(guard));
}

/* ---- death ---- */

/* The submitter gets its I/O back; what the disk below still has becomes ours. */
static void hold(struct guard_io *place) {
  struct disk_io *upper = place->upper;
  require(upper != NULL);
  place->upper = NULL;
  place->referenced = place->io.buffer != NULL && !PLANTED(hung_buffer_reused);
  if (place->referenced) {
    buffer_ref(place->io.buffer);
    buffer_hold(place->io.buffer);
  }
  place->guard->held++;
  disk_complete(upper, place->guard->err);
}

/* Of I/Os that the disk has not. */
static void line_end(struct guard *guard, struct list *line, tarn_err err) {
  for (struct list *node; (node = list_pop(line)) != NULL;) {
    struct guard_io *place = LIST_ENTRY(node, struct guard_io, link);
    struct disk_io *upper = place->upper;
    place->upper = NULL;
    list_push_front(&guard->free, &place->link);
    disk_complete(upper, err);
  }
}

void guard_kill(struct guard *guard, tarn_err err) {
  require(err != TARN_OK);
  if (guard->dead) return;
  require(guard->held == 0);
  guard->dead = true;
  guard->err = err;
  guard->died_ns = guard->disk.env->now_ns;
  timer_cancel(&guard->timer);
  event_post(&guard->disk.env->queue, &guard->died_event);
  LIST_EACH(&guard->active, node) hold(LIST_ENTRY(node, struct guard_io, link));
  line_end(guard, &guard->line, err);
  line_end(guard, &guard->synced, err);
}

void guard_spare(struct guard *guard) { line_end(guard, &guard->line, TARN_HUNG); }

void guard_look(struct guard *guard) {
  if (!guard->dead && disk_is_lost(guard->lower)) guard_kill(guard, TARN_GONE);
}

static void run_died(struct event *event) {
  struct guard *guard = CONTAINER_OF(event, struct guard, died_event);
  if (guard->died) guard->died(guard);
}

static void run_quiet(struct event *event) {
  struct guard *guard = CONTAINER_OF(event, struct guard, quiet_event);
  if (guard->quiet) guard->quiet(guard);
}

/* ---- the path of an I/O ---- */

static void held_done(struct guard_io *place) {
  struct guard *guard = place->guard;
  require(guard->dead);
  require(guard->held > 0);
  /* Whichever buffer it came back with: if that is another one, ours was exchanged for it. */
  if (place->io.err != TARN_OK) guard->held_failed = true;
  if (place->referenced) buffer_unref(place->io.buffer);
  place->referenced = false;
  list_push_front(&guard->free, &place->link);
  if (--guard->held == 0) event_post(&guard->disk.env->queue, &guard->quiet_event);
}

static bool is_long(const struct disk_io *io) { return io->op == DISK_TRIM || io->op == DISK_WRITE_ZEROES; }

static bool is_sync(const struct disk_io *io) { return io->op == DISK_FLUSH || (io->flags & DISK_FUA) != 0; }

static void doubt(struct list *places) {
  LIST_EACH(places, node) {
    struct guard_io *place = LIST_ENTRY(node, struct guard_io, link);
    if (is_sync(&place->io)) place->in_doubt = true;
  }
}

/* It may have been told what another one was to be told; which may have ended before. */
static void sync_failed(struct guard *guard, const struct disk_io *io) {
  if (io->op != DISK_FLUSH) guard->fua_failed = true;
  doubt(&guard->active);
  doubt(&guard->synced);
}

/* Of those that are with the disk: the first one's number. */
static uint64_t sync_oldest(const struct guard *guard) {
  LIST_EACH(&guard->active, node) {
    const struct guard_io *place = LIST_ENTRY(node, struct guard_io, link);
    if (is_sync(&place->io)) return place->sync;
  }
  return UINT64_MAX;
}

/* Does a good one depend on what others beside it are told? */
static bool sync_waits(const struct guard *guard, const struct disk_io *io) {
  if (!is_sync(io) || guard->disk.caps.tells_losses || sync_oldest(guard) == UINT64_MAX) return false;
  return !PLANTED(flush_passes_fua);
}

/* What a good one is worth. */
static tarn_err sync_judge(struct guard *guard, const struct guard_io *place, tarn_err err) {
  bool flush = place->io.op == DISK_FLUSH;
  if (err == TARN_OK && (place->in_doubt || (flush && guard->fua_failed))) err = TARN_IO;
  if (err != TARN_OK && flush) guard->fua_failed = false;
  return err;
}

/* One has ended: which of those that wait for others wait for none any more? */
static void synced_look(struct guard *guard) {
  uint64_t oldest = list_is_empty(&guard->synced) ? 0 : sync_oldest(guard);
  LIST_EACH(&guard->synced, node) {
    struct guard_io *place = LIST_ENTRY(node, struct guard_io, link);
    struct disk_io *upper = place->upper;
    if (place->sync >= oldest) break;
    tarn_err err = sync_judge(guard, place, TARN_OK);
    list_remove(node);
    place->upper = NULL;
    list_push_front(&guard->free, node);
    disk_complete(upper, err);
  }
}

/* The I/O that it depends on now: one of several, where it was cut into pieces. */
static const struct disk_io *lowest_of(const struct disk_io *io) {
  while (io->under) io = io->under;
  return io;
}

/* Where it stands now. False: where it stood before. */
static bool comes_on(struct guard_io *place) {
  const struct disk_io *lowest = lowest_of(&place->io);
  const uint64_t *line = PLANTED(line_counts_as_hang) ? NULL : disk_io_line(lowest);
  uint64_t moved = line ? *line : 0;
  bool on = lowest != place->lowest || line != place->line || moved != place->moved;
  place->lowest = lowest;
  place->line = line;
  place->moved = moved;
  return on;
}

static void begin(struct guard *guard, struct guard_io *place) {
  place->step = guard->step;
  place->in_doubt = false;
  if (is_long(&place->io)) guard->long_count++;
  if (is_sync(&place->io)) place->sync = ++guard->sync_count;
  list_push(&guard->active, &place->link);
  if (!timer_is_armed(&guard->timer)) arm(guard);
  disk_submit(guard->lower, &place->io);
  (void)comes_on(place);
}

static void long_ended(struct guard *guard, bool lost) {
  require(guard->long_count > 0);
  guard->long_count--;
  struct list *next = lost ? NULL : list_pop(&guard->line);
  if (next) begin(guard, LIST_ENTRY(next, struct guard_io, link));
}

static void lower_done(struct disk_io *io) {
  struct guard_io *place = CONTAINER_OF(io, struct guard_io, io);
  struct guard *guard = place->guard;
  struct disk_io *upper = place->upper;
  bool lost = io->err == TARN_GONE && !guard->dead;
  if (lost && PLANTED(silent_reconnect)) {
    disk_submit(guard->lower, io);
    return;
  }
  list_remove(&place->link);
  if (is_long(io)) long_ended(guard, lost);
  if (!upper) {
    held_done(place);
    return;
  }
  require(!guard->dead);
  tarn_err err = io->err;
  if (err == TARN_OK && sync_waits(guard, io)) {
    place->sync = guard->sync_count;
    list_push(&guard->synced, &place->link);
    synced_look(guard);
    return;
  }
  if (is_sync(io)) {
    if (err != TARN_OK) sync_failed(guard, io);
    err = sync_judge(guard, place, err);
    synced_look(guard);
  }
  place->upper = NULL;
  list_push_front(&guard->free, &place->link);
  disk_io_pass_back(upper, io); /* perhaps another buffer */
  if (lost) {
    guard_kill(guard, TARN_GONE);
    disk_complete(upper, TARN_GONE); /* behind `died` */
    return;
  }
  disk_complete_now(upper, err); /* the last thing: its owner may do what it likes with the guard */
}

static void guard_submit(struct disk *disk, struct disk_io *upper) {
  struct guard *guard = CONTAINER_OF(disk, struct guard, disk);
  if (guard->dead) {
    disk_complete(upper, guard->err);
    return;
  }
  struct list *node = list_pop(&guard->free);
  require(node != NULL); /* more than `slots` */
  struct guard_io *place = LIST_ENTRY(node, struct guard_io, link);
  place->upper = upper;
  disk_io_same(&place->io, upper);
  place->io.done = lower_done;
  if (is_long(upper) && guard->long_count >= GUARD_LONG_MAX) list_push(&guard->line, &place->link);
  else begin(guard, place);
}

/* The disk has had one of these for too long. One that it has not got, because it stands in a line of ours, is as young as any as long
 * as that line moves; so is one that has come to another of its pieces. */
static bool is_hanging(struct guard *guard) {
  bool hangs = false;
  LIST_EACH(&guard->active, node) {
    struct guard_io *place = LIST_ENTRY(node, struct guard_io, link);
    if (comes_on(place)) place->step = guard->step;
    hangs |= guard->step - place->step > HANG_STEPS;
  }
  return hangs;
}

/* An I/O has seen the end of HANG_STEPS whole steps, and of the one in which it came, when it is judged. Found idle, the timer
 * rests until the next I/O arms it: at depth one it is not set anew for each. */
static void step_over(struct timer *timer) {
  struct guard *guard = CONTAINER_OF(timer, struct guard, timer);
  require(!guard->dead);
  /* We were stopped, or very busy: answers may be waiting for us that this turn has still to fetch. Only once in a row, or
   * else who is always late would wait for ever. */
  bool late = guard->disk.env->now_ns - timer->deadline_ns > step_ns(guard) && !guard->late;
  bool idle = list_is_empty(&guard->active);
  guard->late = late && !idle;
  if (idle) return;
  if (!late) guard->step++;
  if (is_hanging(guard)) guard_kill(guard, TARN_HUNG);
  else arm(guard);
}

/* ---- its life ---- */

static void guard_close(struct disk *disk) {
  (void)disk;
  tarn_panic("a guard is not closed, it is detached", __FILE__, __LINE__);
}

static const struct disk_ops guard_ops = {.kind = "guard", .submit = guard_submit, .close = guard_close};

tarn_err guard_init(struct guard *guard, struct env *env, struct arena *arena, uint32_t slots) {
  require(slots > 0);
  /* The capabilities of nothing: whatever is asked is taken, and answered with the error. */
  static const struct disk_caps any = {.size_bytes = UINT64_MAX,
                                       .block_bytes = 1,
                                       .align_bytes = 1,
                                       .io_bytes_max = BUFFER_DATA_MAX,
                                       .zero_block_bytes = 1,
                                       .zero_bytes_max = UINT64_MAX,
                                       .can_zero = true,
                                       .can_trim = true,
                                       .can_extents = true,
                                       .volatile_cache = true};
  *guard = (struct guard){
      .disk = {.ops = &guard_ops, .env = env, .caps = any}, .dead = true, .err = TARN_GONE, .io_count = slots};
  list_init(&guard->free);
  list_init(&guard->active);
  list_init(&guard->line);
  list_init(&guard->synced);
  timer_init(&guard->timer, step_over);
  event_init(&guard->died_event, run_died);
  event_init(&guard->quiet_event, run_quiet);
  guard->ios = ARENA_NEW(arena, struct guard_io, slots);
  if (!guard->ios) return TARN_FULL;
  return TARN_OK;
}

/* Not before there is a disk: a guard that is never used costs no memory. */
static void link_places(struct guard *guard) {
  for (uint32_t i = 0; i < guard->io_count; i++) {
    struct guard_io *place = &guard->ios[i];
    if (place->guard) return;
    place->guard = guard;
    disk_io_init(&place->io);
    list_init(&place->link);
    list_push(&guard->free, &place->link);
  }
}

void guard_attach(struct guard *guard, struct disk *disk, uint64_t hang_ns) {
  require(!guard->lower);
  require(guard->dead);
  require(guard_is_quiet(guard));
  require(disk->env == guard->disk.env);
  require(hang_ns > 0);
  require(guard->long_count == 0);
  link_places(guard);
  guard->lower = disk;
  guard->disk.caps = disk->caps;
  guard->hang_ns = hang_ns;
  guard->dead = guard->late = guard->held_failed = guard->fua_failed = false;
  guard->err = TARN_OK;
  guard->died_ns = 0;
}

void guard_detach(struct guard *guard) {
  require(guard->lower != NULL);
  require(guard_is_quiet(guard));
  require(guard->held == 0);
  require(guard->disk.in_flight == 0);
  timer_cancel(&guard->timer);
  event_cancel(&guard->died_event);
  event_cancel(&guard->quiet_event);
  if (!guard->dead) guard->err = TARN_GONE;
  guard->dead = true;
  guard->lower = NULL;
}

void guard_set_hang(struct guard *guard, uint64_t hang_ns) {
  require(hang_ns > 0);
  if (guard->hang_ns == hang_ns) return;
  guard->hang_ns = hang_ns;
  if (guard->dead) return;
  LIST_EACH(&guard->active, node) LIST_ENTRY(node, struct guard_io, link)->step = guard->step;
  if (timer_is_armed(&guard->timer)) arm(guard);
}

uint64_t guard_oldest_ns(const struct guard *guard) {
  struct list *oldest = list_first(&guard->active);
  return oldest ? guard->disk.env->now_ns - LIST_ENTRY(oldest, struct guard_io, link)->io.submitted_ns : 0;
}
