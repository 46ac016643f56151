/* mirror_int.h - the inside of a mirror, shared by the mirror_*.c files only.
 *
 *   mirror.c           life of the object, state, images leaving, status of invariants
 *   mirror_commit.c    making metadata durable on all stores, one round at a time; who waits for it
 *   mirror_activate.c  format, activate, deactivate
 *   mirror_close.c     the last flush of a mirror that has fallen
 *   mirror_judge.c     who is current
 *   mirror_write.c     the path of a write, a zeroing, a flush; marks and their clearing; the judgement
 *   mirror_read.c      the path of a read
 *   mirror_extents.c   where data and holes are; what is marked, missed, unreadable
 *   mirror_copy.c      how one range is copied, and what becomes of a place that nobody can read
 *   mirror_sync.c      what is copied next: recovery, synchronisation, their checkpoints and their ends
 *   mirror_repair.c    what one image could not read is written to it again
 *   mirror_images.c    operations on images
 *   mirror_return.c    images that come back
 *   mirror_verify.c    compares the images on line
 *   mirror_witness.c   do the disks hold what the metadata tells of?
 *   mirror_stamp.c     what images' files are like, which their owner is asked
 *   mirror_status.c    what people see
 *
 * Order in which an operation takes things, so that nobody waits in a circle: operation slot, (of a write) place among the writes,
 * scratch buffer, marks, commit, range lock, disks.
 *
 * The place among the writes (`write_order`) keeps those that overlap in the order in which they were submitted, whatever each of
 * them has to wait for on its way; once it stands in the range lock, which is first come, first served, the place is given back.
 * Who waits for a place holds an operation slot and nothing else, and nobody but a later write waits for him. So the holder of
 * a place waits only for what he would wait for without it. Why not the range lock itself, taken that early: a copy that recovers
 * a region would then wait for a write that waits for a mark that only the end of such copies makes free. */
#ifndef TARN_CORE_MIRROR_INT_H
#define TARN_CORE_MIRROR_INT_H

#include "base/bitmap.h"
#include "base/plant.h"
#include "core/guard.h"
#include "core/intent.h"
#include "core/mirror.h"
#include "core/missed.h"
#include "core/range_lock.h"
#include "core/states.h"
#include "core/store.h"
#include "core/unreadable.h"

#define REGION_MIN (64u * 1024u)
#define OP_MARKS_MAX \
  ((BUFFER_DATA_MAX - 2) / REGION_MIN + 2) /* so many an I/O touches that begins with the last byte of one */
#define META_SLOTS  8u
#define COPY_COUNT  4u /* copies at once, unless the limits say fewer */
#define COPY_BYTES  (256u * 1024u)
#define UNIT_BYTES  4096u /* what cannot be read is found, and repaired, in these; no block is larger */
#define REPAIRS_MAX 16u   /* repairs that wait; who finds no room is asked again by the next read that fails */
/* Each copy has one, a verify one for each image that it reads; an image whose disk hangs keeps as many as there are copies at
 * most, takes part in nothing then, and does not come back before it has let go of them. */
#define COPY_BUFFERS  (COPY_COUNT * (1 + IMAGES_MAX))
#define CHECKPOINT_NS (5 * NS_PER_S) /* a checkpoint at least so often: a slow copy loses no more by a kill */
#define TICK_NS       NS_PER_S
#define MARK_IDLE_NS  (5 * NS_PER_S) /* a mark unused for that long is cleared */
#define RETRY_NS      NS_PER_S       /* after a copy that could not be done */
#define WITNESS_DEPTH 4u             /* read at once from one image */

enum hold_tag { HOLD_READ, HOLD_WRITE, HOLD_COPY };
enum op_kind { OP_READ, OP_WRITE, OP_ZERO, OP_FLUSH, OP_EXTENTS };

struct op;
struct leg {
  struct disk_io io;
  struct op *op;
  uint32_t image;
};

/* One client I/O, or one flush of our own, from its start to its answer. */
struct op {
  struct list link; /* free, or in the one line where it waits */
  struct mirror *m;
  enum op_kind kind;
  struct disk_io *client; /* NULL: ours, then `done` */
  void (*done)(struct op *op);
  void (*resume)(struct op *op, tarn_err err); /* what goes on when its wait for a commit is over */
  uint32_t volume;
  uint64_t start, length;             /* mirror address; of the client's bytes */
  uint64_t outer_start, outer_length; /* aligned out to what the images take */
  bool holding, ordered;              /* has, or waits for: the range; its place among the writes */
  struct range_hold hold, place;
  struct buffer *scratch;
  uint32_t mark_count;
  uint32_t marks[OP_MARKS_MAX];
  uint64_t wait_seq;
  uint64_t
      tick; /* of a flush: when it was submitted; of a merge: how far it has come; of a read, EXTENTS: recover_sets */
  uint64_t issue_tick;     /* of a write: when it was issued */
  struct list group;       /* of a flush: others that it is for */
  uint32_t master;         /* when it was issued */
  uint32_t issued, failed; /* by image */
  uint32_t hung;           /* of those that failed, by image: what becomes of it is not known yet */
  uint32_t pending;
  uint32_t flags;  /* of a write: with which it was issued */
  uint32_t tried;  /* images that failed this read */
  uint32_t unread; /* of them, those that may be repaired; of a merge, the images that it has read from */
  struct buffer_wait buffer_wait;
  tarn_err err;
  uint32_t index; /* of its legs: op_leg() */
};

enum copy_kind {
  COPY_RECOVER, /* of a region that was marked at a crash: from one image to all */
  COPY_MISSED,  /* of what images miss that are being copied to */
  COPY_REPAIR,  /* of what an image could not read, or holds differently */
  COPY_VERIFY   /* nothing is copied: the images are compared */
};

struct copy_buffer {
  struct buffer buffer;
  bool used;
};

/* A copy of one range from one image to others. */
struct copy {
  struct mirror *m;
  bool busy, holding;
  enum copy_kind kind;
  uint64_t start, end;
  uint64_t at, piece;     /* the part of it that is under way */
  uint64_t piece_max;     /* halved when nobody can read a piece */
  uint32_t source, only;  /* only: of a repair that was told from which; IMAGES_MAX: any */
  uint32_t targets;       /* by image, like the next ones */
  uint32_t tried, unread; /* of this piece: could not read it; and may be repaired */
  uint32_t failed, left;  /* failed a write; are out, or were, since the copy began */
  uint32_t pending, mark;
  uint32_t tries, probing, probes; /* of a unit that nobody can read */
  uint64_t compared_ns;            /* of such a repair: struct repair */
  uint64_t lost_start, lost_bytes; /* the place that was left behind last */
  uint64_t repaired_bytes;
  const char *given_up; /* why it is not done; NULL: it is */
  uint64_t issue_tick;
  struct range_hold hold;
  struct copy_buffer *buffer;
  struct disk_io read;
  uint64_t wait_seq; /* 0: does not wait for a commit */
  void (*resume)(struct copy *copy, tarn_err err);
  void (*done)(struct copy *copy); /* of a repair, may be NULL; the slot is free again, and still as it was */
  struct copy_leg {
    struct disk_io io;
    struct copy *copy;
  } * legs;
};

struct witness_leg {
  struct disk_io io;
  struct image *image;
  struct witness witness;
  uint8_t found[WITNESS_BYTES];
};

/* What an image holds where there are witnesses. */
struct witness_look {
  struct witness_leg legs[WITNESS_DEPTH];
  struct buffer buffer; /* a unit for each */
  bool readable;
  uint32_t pending;       /* legs under way, while somebody looks */
  uint64_t next;          /* address */
  uint32_t counted;       /* that could be read, and count */
  uint32_t same, differs; /* by place in the list; `differs`: of those that count */
  uint64_t first;         /* address of the first that differs */
  void (*done)(struct mirror *m, uint32_t i);
};

/* New witnesses are made. */
struct witness_renewal {
  struct mirror *m;
  bool running, holding;
  uint32_t left;    /* places that may be tried yet */
  uint64_t address; /* of the one that is */
  uint64_t last_ns, changes_seen;
  uint32_t noted;
  uint64_t
      notes[WITNESSES_MAX]; /* what was written last in regions that are not marked any more; the newest at the end */
  struct range_hold hold;
  void (*done)(struct mirror *m); /* at a clean stop */
};

struct repair {
  uint64_t start, end;
  uint32_t images;
  uint64_t compared_ns; /* of a verify: it knows nothing of images that have joined since */
};

struct image {
  struct mirror *m;
  bool present;                         /* the slot is in use */
  bool online;                          /* takes part in I/O: SYNCHRONIZED or SYNCHRONIZING */
  struct guard data[VOLUMES_MAX], meta; /* its disks, as the mirror uses them */
  struct leg *legs;                     /* one per operation */
  struct store store;
  struct missed map;
  uint64_t sync_total; /* extents when this synchronisation began */
  bool sync_full;      /* which were all */
  uint64_t sync_start_ns, sync_copied;
  uint64_t copy_next_ns; /* earliest next copy, by its rate */
  uint32_t in_flight;
  /* on its way back (mirror_return.c) */
  enum { COMING_NOT, COMING_REOPEN, COMING_LOAD, COMING_PROBE, COMING_LOOK, COMING_COMMIT } coming;
  bool coming_full, coming_asked; /* everything is to be copied; the administrator asked for it */
  uint64_t since_tick;            /* what was issued before is not to be held against it: it was out meanwhile */
  uint64_t come_seq;              /* the commit that makes it one of us */
  uint32_t probe;                 /* the volume that is tried */
  struct disk_io probe_io;
  /* its end (mirror_close.c) */
  uint64_t left_seq; /* the commit that records that it is out, of one that was current; 0: it did not leave */
  bool let_go;       /* its disks were closed before that was durable */
  bool
      sync_failed; /* a flush or a FUA has failed since they were attached: what was written before may be gone, whatever later ones say */
  enum { CLOSE_NOT, CLOSE_FLUSH, CLOSE_FLUSHED, CLOSE_UNFLUSHED } closing;
  bool close_failed;
  uint32_t close_pending;
  uint64_t return_at_ns; /* when it may come back by itself; 0: not set */
  uint32_t relapses;
  uint64_t joined_ns; /* when it became SYNCHRONIZED; 0: at activation */
  uint64_t reads, writes, read_errors, write_errors, repaired_blocks;
  struct witness_look look;
  /* What was told of it from outside, which nobody will say again: it holds until its disks are attached anew. */
  enum told { TOLD_NOTHING, TOLD_GONE, TOLD_SPOILED } told;
  char told_why[160];
  char reason[160];
};

struct volume {
  struct disk disk;
  struct mirror *m;
  uint32_t index;
  bool flushing;
  uint64_t written_tick;  /* when the last write without FUA ended; 0: none yet */
  struct list flush_line; /* flushes that wait for the one under way: the next one is for all of them */
};

struct flush_wait {
  struct list link;
  void (*done)(struct mirror *m, tarn_err err);
};

enum admin { ADMIN_NONE, ADMIN_FORMAT, ADMIN_ACTIVATE, ADMIN_DEACTIVATE, ADMIN_IMAGE };

struct mirror {
  struct env *env;
  void *owner;
  void (*changed)(struct mirror *m);
  void (*stamp)(struct mirror *m, uint32_t image, uint32_t round);
  void (*reopen)(struct mirror *m, uint32_t image, bool make);
  struct mirror_config config;
  struct mirror_limits limits;
  struct geometry geometry;
  struct record record; /* as it is now; `record_dirty`: not yet durable so */
  bool record_dirty;
  enum mirror_state state;
  bool running; /* activated: commits, copies and timers go on; true until it is deactivated or falls */
  bool serving; /* clients' I/O is taken */
  bool paused;  /* ... and kept in line: an operation on an image waits until what is in flight is done */
  bool quiet;   /* activated for operations only: shown as INACTIVE */
  bool fallen;
  bool log_off;     /* writes take no marks: for measurements only */
  bool log_was_off; /* ever: there may be writes under way that have none */
  bool lost;        /* the last good image's disk was lost with its cache */
  uint64_t
      master_seq; /* before this commit is done a crash may find another master, or source: what is read there may be undone */
  bool lost_drop; /* an image's was, and it counts again if that it is out is not recorded */
  char reason[240];
  struct image images[IMAGES_MAX];
  struct store home;
  struct guard home_guard;
  struct volume volumes[VOLUMES_MAX];
  uint32_t align; /* a client's data is congruent to its offset modulo this, for every image's disk */
  uint32_t block; /* every image's disk takes this; what is smaller is merged into whole blocks */
  struct range_lock lock, write_order;
  struct intent intent;

  /* operations */
  struct op *ops;
  struct list free_ops;
  struct list op_line;      /* client disk_io without an op yet */
  struct list mark_line;    /* ops without marks */
  struct list scratch_line; /* ops without scratch */
  struct list recover_line; /* reads that wait for a region to be copied */
  struct list buffer_line;  /* reads whose buffer a dead disk still holds: they wait for another */
  struct list extents_line; /* EXTENTS that wait for the one that is with an image */
  bool extents_busy;
  struct list doubt_line; /* flushes that wait until what a failed flush left in doubt is written again */
  struct buffer *scratch; /* scratch_slots() */
  struct list free_scratch, held_scratch; /* held: by a disk that hangs, perhaps still */
  uint32_t scratch_busy;
  uint32_t ops_busy;
  uint32_t read_turn; /* breaks ties between equally loaded images */

  /* commit (mirror_commit.c) */
  struct commit_plan plan;
  struct record plan_record;
  struct record home_record; /* what home has taken last, in this life; no sequence: nothing */
  struct {
    bool running, wanted;
    uint64_t started, done; /* sequence of the round that was started last, and of the last that is durable */
    uint32_t pending, failed;
    bool home_failed;
    bool home_in_trouble; /* and that was said */
    uint64_t home_done;   /* sequence of the last round whose record home has, whatever became of it elsewhere */
    struct list waiters;  /* ops, by wait_seq */
    struct event start;
    void (*admin_done)(struct mirror *m, tarn_err err);
    uint64_t admin_seq;
  } commit;
  struct generation completed_generation; /* the one in the last record that every store has, or may have */
  uint64_t settled_number;                /* of one that every store has */
  uint64_t drop_seq; /* nothing is answered, and no write under new marks issued, before this commit */
  uint64_t
      settle_seq; /* nothing is answered before this commit, which says that the generation is one that may be relied on */
  uint64_t healed_seq; /* nor is anything answered before this one, by which unreadable places are healed */
  bool doubt_is_loss;  /* and not because disks hung: what was written before is lost if it is not written again */
  uint64_t doubt_tick; /* of the last flush that failed everywhere: what was issued before may never come down */

  /* flushes of our own */
  struct op *flush_ops; /* one per volume */
  struct list flush_waiting, flush_running;
  uint32_t flush_pending;
  tarn_err flush_err;
  struct flush_wait room_flush, copy_flush, admin_flush;
  struct timer tick;

  /* its end (mirror_close.c) */
  uint32_t close_current; /* who was current when it fell */
  bool aside;             /* a new object has taken its place; then by image: whose disks it has not let go of */
  uint32_t aside_images;
  struct event close_event;

  /* copies (mirror_copy.c) */
  struct bitmap recover; /* extents of marked regions that have still to be copied */
  uint64_t recover_sets; /* how often something was added to it */
  uint64_t finish_sets;  /* the same when the flush began that ends the recovery */
  bool recovering;       /* until that is done, flushed and recorded */
  uint64_t recover_cursor, sync_cursor;
  uint64_t recover_total, recover_start_ns, recover_copied, recover_end_ns;
  uint64_t recover_marked; /* bytes */
  bool recovered;
  struct copy copies[COPY_COUNT];
  struct copy_buffer copy_buffers[COPY_BUFFERS];
  uint32_t copies_busy;
  uint64_t checkpoint_bytes, checkpoint_at_ns; /* copied since the last one; when the next is due, if anything was */
  enum { CHECKPOINT_NONE, CHECKPOINT_DRAIN, CHECKPOINT_FLUSH, CHECKPOINT_COMMIT } checkpoint;
  uint64_t checkpoint_seq;
  uint32_t checkpoint_images;               /* that it is for: those that came later wait for the next one */
  bool finishing;                           /* the flush that ends a recovery is under way */
  uint64_t copy_pause_ns;                   /* nothing in the background before: something could not be copied, */
  const char *copy_pause_why;               /* for this reason */
  bool recovery_pauses;                     /* and it is a recovery's */
  uint64_t clients_seen, clients_active_ns; /* to tell whether clients are active: how many I/Os had come, and when */
  struct repair repairs[REPAIRS_MAX];
  uint32_t repair_count;
  bool repairing;
  bool repair_sourced; /* a verify repairs from the record's recovery_source, so that a crash recovers from it, too */
  uint64_t repair_seq; /* the commit that says so; no mark of a repair goes with it */
  struct verify *verify;
  uint64_t unreadable_seq; /* the commit that carries what was last put on the list of unreadable places */
  struct flush_wait recover_flush;
  struct timer copy_timer;
  struct event copy_event;

  /* the running administrator's operation (mirror_activate.c) */
  enum admin admin;
  bool admin_force, admin_stay, admin_fallen;
  struct mirror_activation how; /* of the running activation */
  uint32_t admin_image;         /* of an operation on an image */
  enum mirror_image_op admin_op;
  enum { STEP_NONE, STEP_TRY, STEP_DRAIN, STEP_FLUSH, STEP_COMMIT, STEP_RETURN, STEP_ENDED } admin_step;
  struct record_image admin_undo;   /* of the image, before it */
  struct record_image admin_left;   /* ... and when it had left, of one that is removed */
  bool admin_online, admin_demoted; /* before it */
  bool admin_whole;                 /* nothing was to be recovered when its flush began */
  uint32_t admin_failed;            /* images that failed a round while it had them out */
  uint8_t admin_master;
  mirror_done *admin_done;
  void *admin_context;
  uint32_t admin_pending;
  struct event admin_event;
  bool admin_draining;
  tarn_err admin_err, admin_flush_err;
  char admin_why[400];
  struct {
    uint32_t round, wanted; /* wanted: by image */
    void (*taken)(struct mirror *m);
    struct timer timer;
  } stamps;                            /* that the owner is asked for (mirror_stamp.c) */
  void (*load_next)(struct mirror *m); /* when every store has answered */
  struct commit_plan load_plan;
  struct missed *load_maps[IMAGES_MAX];
  uint32_t load_failed, load_sources; /* by image */
  bool log_sound, log_lost;           /* after a crash: some image has a sound log; none has */
  bool log_waits;                     /* it is written when the record is durable */
  bool maps_moved;                    /* they lay elsewhere until now: an older version wrote them */
  uint32_t load_torn;                 /* images whose maps need another epoch */
  uint32_t judged;                    /* images that are here, and what was recorded of them is known */
  bool as_it_is;                      /* an image is used as it is, whatever was recorded of it */
  uint32_t line;    /* ... and by its own record the mirror goes on from where it left; IMAGES_MAX: by `record` */
  bool home_counts; /* the home store's record of the last activation was of this line, and not an old one */
  bool must_hold;   /* it is used if it holds what its witnesses say: nothing else speaks for it */
  bool looked;      /* at the witnesses: a second judgement knows what they say */
  struct witness_renewal renewal;

  uint64_t reads_done, changes_done;
};

#define EACH_IMAGE(m, i)                    \
  for (uint32_t i = 0; i < IMAGES_MAX; i++) \
    if ((m)->images[i].present)

/* mirror.c */
/* I/Os with one disk: operations, flushes, copies. */
static inline uint32_t guard_slots(const struct mirror *m) { return m->limits.ops + 64; }
/* So many can be held by disks that hang. */
static inline uint32_t scratch_slots(const struct mirror *m) { return m->limits.scratch * (1 + IMAGES_MAX); }
static inline struct leg *op_leg(const struct op *op, uint32_t image) { return &op->m->images[image].legs[op->index]; }
static inline enum image_state image_state_of(const struct mirror *m, uint32_t i) { return m->record.images[i].state; }
static inline const char *image_name(const struct mirror *m, uint32_t i) { return m->config.images[i].name; }
static inline bool image_is_current(const struct mirror *m, uint32_t i) {
  return m->images[i].online && image_state_of(m, i) == IMAGE_SYNCHRONIZED;
}
static inline void guard_let_go(struct guard *guard) {
  if (guard->lower) guard_detach(guard);
}
/* Is data written to it? */
static inline bool image_takes_data(const struct mirror *m, uint32_t i) {
  return m->images[i].online && m->images[i].coming != COMING_COMMIT;
}
uint32_t mirror_current_mask(const struct mirror *m);
uint32_t mirror_online_mask(const struct mirror *m);
/* Takes an image out: offline, UNSYNCHRONIZED, all that is marked and all later writes missed; recorded before the next
 * answer. Requires another current image if this one is current (rule 8). */
void image_drop(struct mirror *m, uint32_t i, enum image_missing missing, const char *why, const struct op *op);
/* Takes an image out without saying what it misses: for one that was flushed, and nothing in flight. */
void image_leave(struct mirror *m, uint32_t i, enum image_event event, enum image_missing missing);
/* A synchronised image counts from now on. */
void image_join(struct mirror *m, uint32_t i);
/* Moves an image by the table of B9. Requires that the table allows it. */
void image_move(struct mirror *m, uint32_t i, enum image_event event);
/* Acts on what was told of it while an operation had it out, which is undone now. */
void image_told_again(struct mirror *m, uint32_t i);
/* Its disks are those of m->config.images[i]: attaches the guards, sets up its store. */
void image_attach(struct mirror *m, uint32_t i);
/* Out of ACTIVE: conditions no longer hold. As if the process had died, but for the answers. */
__attribute__((format(printf, 2, 3))) void mirror_fall(struct mirror *m, const char *format, ...);
/* More images are missing than max_missing allows: falls. */
void mirror_check_missing(struct mirror *m);
uint32_t mirror_missing_count(const struct mirror *m);
/* Its first record is being written: if it fails now it was never there. */
bool image_is_being_added(const struct mirror *m, uint32_t i);
void mirror_changed(struct mirror *m);
/* A new generation begins: the set of current images has changed (rule 9). */
void mirror_new_generation(struct mirror *m);
void mirror_set_state(struct mirror *m, enum mirror_state state, const char *reason);

/* Starts the client I/Os that wait for an op; when the mirror no longer serves, ends them. */
void op_line_run(struct mirror *m);

/* mirror_commit.c */
void commit_init(struct mirror *m);
CHECKED tarn_err commit_alloc(struct mirror *m, struct arena *arena);
/* Sees to it that a round starts after now; returns its sequence. */
uint64_t commit_want(struct mirror *m);
/* The sequence to wait for so that what `seq` was to carry is durable; 0 when it is already. */
uint64_t commit_wait_for(struct mirror *m, uint64_t seq);
/* The commit that has to be durable before anything is answered. */
static inline uint64_t answer_seq(const struct mirror *m) {
  return max_u64(max_u64(m->drop_seq, m->settle_seq), m->healed_seq);
}
/* op->resume(op, err) once the round is done; err when it failed. */
void commit_wait(struct mirror *m, struct op *op, uint64_t seq, void (*resume)(struct op *op, tarn_err err));
/* The same for the administrator's operation. */
void commit_admin(struct mirror *m, void (*done)(struct mirror *m, tarn_err err));

/* mirror_write.c */
void op_write(struct op *op);
void op_flush(struct op *op);
/* Ends an op: gives everything back, answers its client, starts who waits. */
void op_end(struct op *op, tarn_err err);
void op_release(struct op *op);
/* It has touched nothing and holds nothing: its request stands in line again, before all others. */
void op_put_back(struct op *op);
/* Retries the ops that wait for marks. */
void mark_line_run(struct mirror *m);
void mark_line_fail(struct mirror *m, tarn_err err);
/* Ends the ops that wait for scratch: the mirror no longer serves. */
void scratch_line_stop(struct mirror *m);
/* Flushes all volumes of all online images; `done` from the event queue. TARN_FULL: none failed, but one that began before did, and so this one
 * proves nothing. Requires that `wait` is not in use. */
void flush_all(struct mirror *m, struct flush_wait *wait, void (*done)(struct mirror *m, tarn_err err));
void marks_tick(struct timer *timer);
/* The extents that a range touches. */
static inline uint64_t extent_first(const struct mirror *m, uint64_t start) {
  return div_power(start, m->geometry.extent_bytes);
}
static inline uint64_t extent_span(const struct mirror *m, uint64_t start, uint64_t length) {
  return extent_first(m, start + length - 1) - extent_first(m, start) + 1;
}
/* Builds one I/O of a mirror address range on an image; offset is cut to its volume. */
void leg_submit(struct mirror *m, uint32_t image, struct disk_io *io, enum disk_op op, uint32_t flags, uint64_t start,
                uint64_t length, struct buffer *buffer, uint8_t *data, void (*done)(struct disk_io *io));
/* To be called first in each `done` of such an I/O. */
void leg_ended(struct mirror *m, uint32_t image, const struct disk_io *io);

/* mirror_read.c */
void op_read(struct op *op);
/* Ends an op that has told of bytes as they are on an image (a read, EXTENTS), once the records that this rests on are durable. */
void read_answer(struct op *op, tarn_err err);
/* Reads that wait for a buffer stand in line again: an operation waits until nothing is in flight. */
void read_pause(struct mirror *m);
/* Reads that wait for a buffer are told that the mirror stops. */
void read_stop(struct mirror *m);
/* The image that a write's merge, or a copy, reads from; `tried` are out. IMAGES_MAX: none left. */
uint32_t read_source(const struct mirror *m, uint64_t start, uint64_t length, uint32_t tried);

/* Does this client I/O touch a place that no image can read? Then a read fails. */
bool op_is_unreadable(const struct op *op);
/* Does the merge of this block take bytes from such a place? Then the write fails. */
bool merge_is_unreadable(const struct op *op, uint64_t block);
/* Before a write or zeroing is issued, under its lock: false, it must fail instead (TARN_IO), since what it would leave
 * of such a place cannot be recorded. Sets the flags to issue it with: what heals is written with FUA, because a power
 * loss must not bring back what nobody could read, once the record says that it was healed. */
CHECKED bool unreadable_may_write(const struct op *op, uint32_t *flags);
/* A write or zeroing was judged good: what it covers is readable again. Its answer waits for healed_seq. */
void unreadable_written(const struct op *op);

/* mirror_extents.c */
void op_extents(struct op *op);

/* mirror_copy.c */
CHECKED tarn_err copy_alloc(struct mirror *m, struct arena *arena);
bool copy_is_idle(const struct mirror *m);
/* A commit is done, or has failed: copies that wait for it, and a checkpoint, may go on. */
void copy_committed(struct mirror *m);
/* Nothing more is begun: reads, flushes and copies that wait for something are told so, a verify ends. What is in flight
 * ends by itself, until copy_is_idle(). When the clients are leaving, and when the mirror falls. */
void copy_stop(struct mirror *m);
/* To be called when an image is put out: copies forget it, also if it should come back while they run. */
void copy_image_left(struct mirror *m, uint32_t image);
/* A slot for a copy, with a buffer, unless only `reserve` are left; NULL. Not busy until copy_begin(). */
struct copy *copy_find(struct mirror *m, uint32_t reserve);
void copy_begin(struct copy *copy, enum copy_kind kind, uint64_t start, uint64_t end);
void copy_lock(struct copy *copy);
void copy_wait(struct copy *copy, uint64_t seq, void (*resume)(struct copy *copy, tarn_err err));
void copy_give_up(struct copy *copy, const char *why);
/* Gives everything back. */
void copy_end(struct copy *copy);
/* The copy of one of these kinds that this address is in, if there is one. */
struct copy *copy_at(struct mirror *m, uint64_t address);
/* No copy that touches a current image is under way, those of a recovery apart. */
bool copy_is_aside(const struct mirror *m);
/* The longest I/O that every image's disk takes here. */
uint64_t copy_io_max(const struct mirror *m, uint64_t address);
struct copy_buffer *copy_buffer_take(struct mirror *m);
static inline uint8_t *copy_data(const struct copy_buffer *buffer, uint64_t address) {
  return buffer->buffer.base + address % BUFFER_ALIGN;
}
/* An error that tells of the bytes, not of the disk as a whole: writing them again may help. */

/* mirror_sync.c */
void copy_init(struct mirror *m);
/* Sees to it that what copies there are to start are started, soon; harmless at any time. */
void copy_pump(struct mirror *m);
/* This range, whose regions are marked, may differ between the images: it is copied from one before it is read again. */
bool one_is_current(const struct mirror *m);
void recover_set(struct mirror *m, uint64_t start, uint64_t length);
/* At most one image is current: what it holds is what every read sees. */
uint32_t syncing_mask(const struct mirror *m);
/* Is anything still to be copied over from the recovery's source, or to be flushed after that? */
bool mirror_recovers(const struct mirror *m);
/* What this image misses is copied from now on. */
void sync_begin(struct mirror *m, uint32_t i);
void sync_committed(struct mirror *m);
void end_line(struct list *line, tarn_err err);

/* mirror_repair.c */
/* These images could not read the range, another one could: they get it once more, soon. */
void repair_ask(struct mirror *m, uint32_t images, uint64_t start, uint64_t length);
void repair_run(struct mirror *m);
/* From `source` (IMAGES_MAX: any good one) to `images`, within one region; `done` when it has ended. False: not now. */
CHECKED bool repair_start(struct mirror *m, const struct repair *repair, uint32_t source,
                          void (*done)(struct copy *copy));
/* Others are to be repaired from it: a crash recovers from it, too, as soon as that is durable. Requires that no write is in flight, or that it
 * is the master. */
void repair_source_begins(struct mirror *m, uint32_t source);
/* All that was repaired from one image is flushed, or will be recovered. */
void repair_source_ends(struct mirror *m);
/* The lock is held: false when there is nothing to repair any more. */
bool repair_locked(struct copy *copy);
void repair_ended(struct copy *copy);

/* mirror_verify.c */
CHECKED tarn_err verify_alloc(struct mirror *m, struct arena *arena);
void verify_run(struct mirror *m);
void verify_locked(struct copy *copy);
bool verify_is_running(const struct mirror *m);
uint64_t verify_start_ns(const struct mirror *m);

/* mirror_judge.c */
/* The newest record that activation has loaded; NULL if there is none. */
const struct record *judge_best(struct mirror *m);
/* Why it does not fit the configuration, or this version; NULL if it does: then the geometry has its layout. */
const char *judge_misfit(struct mirror *m, const struct record *best);
/* Where a new mirror has its maps, and one of version 1. */
struct record_layout judge_layout(const struct mirror *m);
/* Sorts the images by m->record: who is online, whose log and maps count (load_sources), who fell behind. False when
 * activation must not go on; admin_explain() has been told why. */
bool judge_images(struct mirror *m);
/* Cuts what lies in no volume. */
void keep_to_volumes(const struct mirror *m, struct unreadable *list);
/* Was it written to, and that relied on, in another line than ours? */
bool judge_apart(const struct mirror *m, uint32_t i, const struct record *own);
/* Why the image is not what it was when it left, by its stamps and its own record; NULL if it is, as far as can be told. */
const char *judge_other(const struct mirror *m, uint32_t i, const struct record *own);
bool image_is_replaced(const struct mirror *m, uint32_t i);
/* Is this image's generation ours, or one of our past that is remembered, or the one that it left with? */
bool judge_knows(const struct mirror *m, uint32_t i, const struct record *own);
void image_fell_behind(struct mirror *m, uint32_t i);

/* mirror_witness.c: docs in its head; rule 16 */
CHECKED tarn_err witness_alloc(struct mirror *m, struct arena *arena);
/* Drops the witnesses of a region: they may not be true any more. True if there were any: then the region's mark must outlive the
 * commit that starts next. */
void witness_drop(struct mirror *m, uint64_t region);
void witness_drop_marked(struct mirror *m);
void witness_drop_all(struct mirror *m);
/* Reads them on image `i`, whose data disks are there and large enough; what cannot be read says nothing, and guards bound how long
 * that takes. `done` may be called from within. Requires that the marks and, of an image that is behind, its map are loaded. */
void witness_look(struct mirror *m, uint32_t i, void (*done)(struct mirror *m, uint32_t i));
/* Did image `i` hold other bytes, when it was last looked at, than a witness that counts says? And how to say that. */
bool witness_differs(const struct mirror *m, uint32_t i);
void witness_explain(const struct mirror *m, uint32_t i, char *text, size_t bytes);
/* This mark is being cleared: what was written last under it is worth a witness. */
void witness_note(struct mirror *m, const struct mark *mark);
/* From the tick: makes new ones, a few at a time. */
void witness_tick(struct mirror *m);
/* At a clean stop, when nothing is in flight, all is flushed and the marks are cleared: fills the list up. */
void witness_fill(struct mirror *m, void (*done)(struct mirror *m));
bool witness_is_idle(const struct mirror *m);
/* The record was loaded. */
void witness_loaded(struct mirror *m);
void witness_check(const struct mirror *m);

/* mirror_return.c */
/* From the tick: images that may come back by themselves. */
void images_tick(struct mirror *m);
/* A round has ended that did not write the record at home: images that it was to bring back come with the next one. Nobody else need wait
 * for that, since nothing has been written to them yet. */
void images_come_later(struct mirror *m);
/* A round has ended. */
void images_committed(struct mirror *m, tarn_err err);
/* The mirror stops: who is not recorded as back is out again. */
void images_stop(struct mirror *m);
/* It may come back by itself, after a while. */
void image_returns_later(struct mirror *m, uint32_t i);
bool images_are_idle(const struct mirror *m);
/* Asks the owner for its disks. Requires that it is quiet. `full`: everything is to be copied to it. */
void image_return(struct mirror *m, uint32_t i, bool asked, bool full);
/* Lets go of its disks. */
void image_detach(struct mirror *m, uint32_t i);
/* No disk of it has an I/O of ours. */
bool image_holds_nothing(const struct mirror *m, uint32_t i);
/* How many I/Os its dead disks still have. */
uint32_t image_held_count(const struct mirror *m, uint32_t i);
/* Are all disks there? */
bool image_is_complete(const struct mirror *m, const struct mirror_image_config *config);
/* Can these disks take what clients were told that the volumes can? NULL, or why not. */
const char *image_misfit(const struct mirror *m, const struct mirror_image_config *config);

/* mirror_close.c */
void close_init(struct mirror *m);
/* It falls. */
void close_begin(struct mirror *m);
/* Of a fallen mirror, when something has ended: perhaps now nothing is in flight. Harmless at any time. */
void close_look(struct mirror *m);
void close_guard_is_quiet(struct guard *guard);
/* Nothing is left to be flushed that can be now. */
bool close_is_over(const struct mirror *m);
/* Of these images. */
bool close_may_have_lost(const struct mirror *m, uint32_t images);

/* mirror_stamp.c */
void stamps_init(struct mirror *m);
/* Asks for the stamps of these images and puts them in the record; `taken` runs then, perhaps at once. One asker at a time. */
void stamps_take(struct mirror *m, uint32_t images, void (*taken)(struct mirror *m));
/* The image is written to from now on. */
void stamp_outdates(struct mirror *m, uint32_t i);

/* mirror_images.c */
/* An operation waits until nothing is in flight. */
void images_check_idle(struct mirror *m);

/* mirror_activate.c */
void image_start_syncing(struct mirror *m, uint32_t i);
/* Pages of its map that are on disk belong to the past. */
void image_new_epoch(struct mirror *m, uint32_t i);
void random_uuid(struct mirror *m, uint8_t *uuid);
bool admin_begin(struct mirror *m, enum admin admin, mirror_done *done, void *context);
void admin_end(struct mirror *m, tarn_err err);
/* Adds to what the administrator is told. */
__attribute__((format(printf, 2, 3))) void admin_explain(struct mirror *m, const char *format, ...);
void admin_check_idle(struct mirror *m);
bool no_commit_or_flush(const struct mirror *m);

#endif
