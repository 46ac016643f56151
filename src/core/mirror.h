/* mirror.h - a set of images kept equal: the heart of Tarn.
 *
 * A mirror is one or more volumes, each a `struct disk` for its clients, made of images; an image is one data disk per
 * volume and one metadata disk. Data disks hold the volume's bytes at the same offsets and nothing else. Promises, with
 * the rules of docs/rules.md that they rest on:
 *   - a write is answered only when every image in the set has it, or is durably recorded as behind on every other (6);
 *   - before a write touches any image, its region is marked durably on all of them (2); after a crash exactly the marked
 *     regions are copied from one source, and clients are served meanwhile (12);
 *   - reads come from the least loaded image that is fresh there; what overlaps a write in flight comes from the master;
 *   - the last good image is never dropped (8); nothing old is ever served as current (9, 10).
 *
 * Life of the object: mirror_open() -> mirror_format() once for a new mirror, or mirror_activate() -> serving ->
 * mirror_deactivate() -> mirror_close(). The object exists only while the mirror's disks are open (INACTIVE holds no
 * lock); its durable state is on its images and in the home store (the state directory's copy of the record).
 * An object is activated once: after a refusal, and after it *fell* (below), it is closed and, to try again, opened anew.
 * Each operation answers through its callback, from the event queue; one operation at a time (else TARN_REFUSED).
 *
 * Falling: when its last good image hangs or is gone, or more images are missing than max-missing allows, the mirror goes from
 * ACTIVE to ATTENTION by itself, as if its process had died: requests end with TARN_SHUTDOWN ("not done"), nothing is
 * recorded as clean; its images are flushed before it is idle (mirror_close.c). The owner sees it in `changed`, shuts the gates
 * of its clients (gate.h) first thing, closes the object once mirror_is_idle() and mirror_is_quiet(), or puts it aside, and tries
 * again with a new one, which recovers as after a crash. One thing it must not close by itself: disks of the last good image whose files have left their paths, since they may be all that is left of it.
 *
 * Images leave by themselves and by command, and come back: the core decides when, the owner opens disks (`reopen`). An image's
 * disks are used through a guard (guard.h), so no I/O waits longer than `hang`; what a dead disk still holds keeps its place.
 *
 * Memory: all of it comes from the arena given to mirror_open(); about as many operations as the limits say plus, for each
 * extent, two bits per image and one per mirror (touched pages only). */
#ifndef TARN_CORE_MIRROR_H
#define TARN_CORE_MIRROR_H

#include "base/arena.h"
#include "core/buffer.h"
#include "core/disk.h"
#include "format/record.h"

#define MIRROR_OPS_MAX 1024u /* client I/Os in flight in one mirror; more wait in line */

/* How much of everything there is. The daemon uses the defaults; the simulator also tiny ones, so that a mirror of a megabyte has
 * as many sectors of maps, checkpoints, generations that are forgotten and full pools as one of terabytes. Nothing of it lies on
 * a disk, but metadata that was written with some limits is read with the same. */
struct mirror_limits {
  uint32_t map_bits, log_entries; /* used of a sector (core/meta.h) */
  uint64_t checkpoint_bytes;      /* copied between two checkpoints of the maps */
  uint32_t history;               /* generations that are remembered: 1 to HISTORY_MAX */
  uint32_t ops;                   /* client I/Os in flight: 1 to MIRROR_OPS_MAX */
  uint32_t scratch;               /* read-modify-writes at once */
  uint32_t copies;                /* at once: 2 to 4; one is kept for reads that wait for recovery */
  uint32_t copy_bytes;            /* of a piece that is copied: 4096 to 256 KiB */
  uint32_t witnesses;             /* 0 (none are made) to WITNESSES_MAX */
};
extern const struct mirror_limits mirror_limits_default, mirror_limits_tiny;

/* Settings of an image (cli.md). All zeroes is not a policy: see image_policy_default. */
struct image_policy {
  uint64_t hang_ns;         /* until an I/O counts as failed */
  bool return_by_itself;    /* after a failure, or an absence */
  uint64_t return_after_ns; /* quiet time before that; doubled after each relapse */
  uint64_t rate;            /* synchronisation, bytes per second; 0 no limit */
};
extern const struct image_policy image_policy_default; /* 10 s, true, 60 s, 0 */

/* One image as its opener found it. A data or meta disk that could not be opened is NULL and `err_text` says why. */
struct mirror_image_config {
  char name[TARN_NAME_MAX + 1];
  char node[TARN_NAME_MAX + 1];
  struct disk *data[VOLUMES_MAX];
  struct disk *meta;        /* as long as there is room for it: at least mirror_meta_bytes() */
  const char *error;        /* NULL, or why the image is absent; static or outliving the mirror */
  struct image_stamp found; /* what its files were like before we touched them; zeroes: not known */
  bool blank;               /* for mirror_format(): known to hold no data (all zero), needs no copy */
  bool assumed;             /* for mirror_image_add() to a quiet mirror: the administrator says that it is equal */
  struct image_policy policy;
};

struct mirror_config {
  char name[TARN_NAME_MAX + 1];
  char node[TARN_NAME_MAX + 1];                    /* ours */
  uint32_t region_bytes, extent_bytes, mark_count; /* of a new mirror; a record that differs is refused */
  int32_t max_missing, min_images;                 /* -1 off */
  bool read_master;                                /* all reads go to the master; else to the least loaded image */
  uint32_t volume_count, image_count;
  struct {
    char name[TARN_NAME_MAX + 1];
    uint64_t size_bytes;
  } volumes[VOLUMES_MAX];
  struct mirror_image_config images[IMAGES_MAX]; /* by slot: the index is the image's slot in the record for ever */
  struct disk *home;                             /* the state directory's copy of the record: RECORD_AREA_BYTES long */
  const struct mirror_limits *limits;            /* static; NULL: mirror_limits_default */
};

/* What is wrong with a set of settings, as a sentence, or NULL. */
const char *mirror_config_check(const struct mirror_config *config);
/* Bytes that a metadata disk needs for this config; and how long it is best made, so that it has room for the second maps (meta.h). */
uint64_t mirror_meta_bytes(const struct mirror_config *config);
uint64_t mirror_meta_bytes_best(const struct mirror_config *config);

struct mirror;
struct mirror_options {
  struct env *env;
  struct arena *arena;
  const struct mirror_config *config; /* copied */
  void *owner;
  /* State changed (ACTIVE, ATTENTION, an image's state): the owner may want to look. From the event queue. May be NULL. */
  void (*changed)(struct mirror *mirror);
  /* Asks what an image's files are like now (thesis 3): when all is flushed, at format, at a fracture and at a clean stop; compared
   * with `found` of the next time. The owner answers by mirror_stamped(), at once or later; an answer that has not come when
   * an I/O would count as hanging is not waited for. May be NULL: then nothing is noticed. */
  void (*stamp)(struct mirror *mirror, uint32_t image, uint32_t round);
  /* An image may come back, or was asked back: the owner closes the disks that it has for it (nothing is in flight there,
   * the mirror has let go of them), opens them anew, and answers, once and later, by mirror_image_reopened(). `make`: the
   * administrator asked, so metadata that is missing is made anew, empty. NULL: images never come back while the mirror is
   * ACTIVE. */
  void (*reopen)(struct mirror *mirror, uint32_t image, bool make);
};
/* The answer to `stamp`, of the same `round`. Harmless when nobody waits for it any more; zeroes: it cannot be told. */
void mirror_stamped(struct mirror *mirror, uint32_t image, uint32_t round, const struct image_stamp *stamp);
/* NULL when the arena is short. Disks stay the caller's, who closes them after mirror_close(). */
struct mirror *mirror_open(const struct mirror_options *options);
void *mirror_owner(const struct mirror *mirror);

/* `why` is a sentence for people, valid during the call; empty on success unless something is worth saying. */
typedef void mirror_done(struct mirror *mirror, tarn_err err, const char *why, void *context);

/* Writes the first record, an empty log and the maps to every image and the home store. The mirror starts with what the
 * first image holds, which is the master; another is SYNCHRONIZED only if both are blank, else UNSYNCHRONIZED with everything
 * missed. The mirror stays INACTIVE. All images must be present. Refused (TARN_EXISTS) if a metadata disk already holds a
 * record, unless `overwrite`. */
void mirror_format(struct mirror *mirror, bool overwrite, mirror_done *done, void *context);

/* Loads all metadata, decides who is current (rules 9, 10), starts recovery (12) and serves. TARN_REFUSED leaves the mirror
 * in ATTENTION and `why` names what is missing; `force` goes on with what there is and `why` says what may be lost. */
struct mirror_activation {
  bool force;
  /* For operations on an INACTIVE mirror: loads, recovers and copies, but serves no client, is shown as INACTIVE, is not
   * recorded as active, and does not ask for max_missing and min_images. mirror_deactivate() ends it. */
  bool quiet;
  bool promote; /* with `image` as the master: see IMAGE_PROMOTE */
  uint32_t image;
};
void mirror_activate(struct mirror *mirror, const struct mirror_activation *how, mirror_done *done, void *context);

/* Stops taking requests (TARN_SHUTDOWN), waits for those in flight, flushes, clears the marks that it may, records INACTIVE. `stay`
 * records that the mirror was ACTIVE, so that it is activated again at the next start (`auto`). */
void mirror_deactivate(struct mirror *mirror, bool stay, mirror_done *done, void *context);

/* A fact from outside: a disk of this image is no longer what it was. The image is taken out as if a write had failed; the
 * mirror falls when it is the last good one. Harmless when the image is out already, or the mirror does not run. It need not be
 * told again: an image that is out for a moment is not taken in then before its disks are opened anew. */
void mirror_image_failed(struct mirror *mirror, uint32_t image, const char *why);
/* The same, and a part of what it held is lost (its file was made shorter): what is known of it counts no more, and when it comes
 * back everything is copied to it. Also of an image that is out. */
void mirror_image_spoiled(struct mirror *mirror, uint32_t image, const char *why);

/* ---- operations on images, while the mirror runs (ACTIVE, or quietly) ---- */

/* Each needs the state that states.h says, else TARN_REFUSED with the reason; `done` comes when the change is durable, and
 * before any long work (a copy) is over. TARN_IO: it could not be recorded, and nothing has changed. */
enum mirror_image_op {
  IMAGE_OP_REMOVE,   /* gone from the record; no slot but its own may be asked for again before the object is closed */
  IMAGE_OP_SYNC,     /* copied in full */
  IMAGE_OP_FRACTURE, /* no longer updated: CONSISTENT at this moment; what it misses is recorded */
  IMAGE_OP_RESTORE,  /* brought back: only what it missed is copied. Also for one that failed, or waits for `return` */
  IMAGE_OP_PROMOTE,  /* becomes the master; it must be SYNCHRONIZED (others: mirror_activate()) */
  IMAGE_OP_DEMOTE,   /* no master from the next activation on: that one needs `promote`. Quiet mirrors only */
  IMAGE_OP_ASSUME,   /* counts as equal. Quiet mirrors only */
  IMAGE_OP_COUNT
};
/* `force`: REMOVE does not wait for outstanding writes to finish. */
void mirror_image_do(struct mirror *mirror, uint32_t image, enum mirror_image_op op, bool force, mirror_done *done,
                     void *context);
/* A new image in a free slot, with its disks open and its metadata disk empty; it is copied to in full. Its name and node
 * are in `config`. On an error the disks are the caller's again, once mirror_image_is_quiet(). */
void mirror_image_add(struct mirror *mirror, uint32_t slot, const struct mirror_image_config *config, mirror_done *done,
                      void *context);
/* The answer to `reopen`: disks, and how they were found; NULL disks with the reason in `error` when that did not work. */
void mirror_image_reopened(struct mirror *mirror, uint32_t image, const struct mirror_image_config *config);
/* The mirror has no I/O with this image's disks and will submit none: its owner may close them (after IMAGE_OP_REMOVE). */
bool mirror_image_is_quiet(const struct mirror *mirror, uint32_t image);

/* Settings that hold at once. */
void mirror_set_policy(struct mirror *mirror, uint32_t image, const struct image_policy *policy);
void mirror_set_limits(struct mirror *mirror, int32_t max_missing, int32_t min_images, bool read_master);

/* ---- verify (C10, rule 15) ---- */

/* A range where the images that could be compared do not all agree: images with the same letter agree. */
struct verify_difference {
  uint32_t volume;
  uint64_t offset, length;
  char groups[IMAGES_MAX]; /* 'A', 'B', ...; '-': not read: out, or still to be copied; '!': unreadable */
};
#define VERIFY_DIFFERENCES_MAX 64u
struct verify_result {
  uint64_t done_bytes, total_bytes, differing_bytes, repaired_bytes, unreadable_bytes;
  /* What no repair has undone: images that differ, or one that cannot read what another can. */
  uint64_t left_differing_bytes, left_unreadable_bytes;
  uint32_t compared;         /* by image: everywhere so far, and neither out nor still being copied to */
  uint32_t difference_count; /* may exceed those listed */
  struct verify_difference differences[VERIFY_DIFFERENCES_MAX];
};
/* Compares all images that are current, on line, range by range under its lock, by SHA-256. With `source` below IMAGES_MAX a
 * range that differs is copied from that image to the others. One at a time. Clients go first: one range is in flight. */
void mirror_verify(struct mirror *mirror, uint32_t source, mirror_done *done, void *context);
/* Ends it early; `done` comes with TARN_SHUTDOWN. Harmless when none runs. */
void mirror_verify_stop(struct mirror *mirror);
/* Of the running verify, or the last one. */
const struct verify_result *mirror_verify_result(const struct mirror *mirror);

/* Requires that nothing is in flight: after mirror_deactivate() or a failed activate answered, or a fall. In the simulator a
 * crash drops mirror and arena instead. */
bool mirror_is_idle(const struct mirror *mirror);
/* It fell (a quiet one, too, which goes on being shown as INACTIVE). */
bool mirror_has_fallen(const struct mirror *mirror);
/* Writes that were answered and not flushed may be lost: not all images that the next activation may believe could be flushed. To
 * be asked after a fall, once mirror_is_idle() and mirror_is_quiet(), and after a deactivation. Then the clients must learn of it:
 * gate_lose(). */
bool mirror_may_have_lost(const struct mirror *mirror);
/* No disk holds an I/O of this mirror any more: only then may its disks be closed and its arena go. An idle mirror whose disk
 * hangs may have to wait for that. */
bool mirror_is_quiet(const struct mirror *mirror);
void mirror_close(struct mirror *mirror);

/* What hangs must not keep the other disks of a mirror that is over: its owner may put it aside, and open a new object with the
 * disks that it lets go of (rule 7, thesis 8). To the new one the images that are still aside are absent.
 *
 * Why no write that lands late can do harm: from the end of the old life on nobody reads the disks of such an image, nor writes to
 * them, until they have answered all that they hold. So it makes no difference when in that time a held write lands, of data or of
 * metadata. It is as if the process had been killed, with what has landed by the end on disk at that moment, and the image had been
 * away since; and that is what recovery and a return are made for. A write is held where its region was marked, or missed already, when
 * it was issued (rules 2, 5); a mark goes only once the map of an absent image has it (rule 3), and a map's bit once it is copied to
 * that image. So whatever a late write has left is copied over when the image is back, and by then nothing can land any more. */

/* Idle, but not quiet, and worth it: the state directory's disk is well; and if it fell, so is one of the images that were current
 * then, since without any of them nothing could be activated. */
bool mirror_can_be_put_aside(const struct mirror *mirror);
/* Lets go of the home store, and of the images that hold nothing: their disks may be closed. Returns by image who still holds
 * something; `*lost`: as mirror_may_have_lost(), of those that were let go of by this call. Its owner hears no more of it. To be
 * called again, whenever it is idle, until nobody is left; then it may be closed. An image that may be believed by the next
 * activation is flushed when it has answered, as at any fall. Requires mirror_can_be_put_aside(), or one that is aside and idle. */
uint32_t mirror_put_aside(struct mirror *mirror, bool *lost);
/* The disks of this image can be opened again, after they could not: if it waits to come back by itself, its patience begins anew. */
void mirror_image_answered(struct mirror *mirror, uint32_t image);

/* The volume as a disk for clients: block_bytes 1, serialised overlapping writes, alive until mirror_close(). */
struct disk *mirror_volume(struct mirror *mirror, uint32_t volume);
/* Off: writes take no marks, from now on and until the mirror is closed or this is on again. To measure what the log costs, and
 * for nothing else: what a crash, or an image that fails, leaves different meanwhile is known to nobody. */
void mirror_set_log(struct mirror *mirror, bool on);

/* ---- what `tarn status` shows ---- */
struct mirror_image_status {
  bool present; /* else the slot is free */
  char name[TARN_NAME_MAX + 1], node[TARN_NAME_MAX + 1];
  bool master;
  enum image_state state;
  enum image_missing missing;
  char reason[160]; /* empty when the state is the good one */
  uint64_t missed_bytes, unreadable_bytes;
  struct {
    enum { SYNC_NONE, SYNC_FULL, SYNC_MISSED, SYNC_INTENT, SYNC_VERIFY } kind;
    uint64_t done_bytes, total_bytes, bytes_per_second, eta_seconds;
    char waiting_for[64]; /* empty: it is running */
  } sync;
  uint64_t reads, writes, read_errors, write_errors, repaired_blocks;
  uint32_t io_in_flight;
  uint32_t io_held;      /* I/Os that a dead disk still has: until it answers them it is not opened again */
  bool returning;        /* its disks are being opened again */
  uint64_t return_in_ns; /* until it comes back by itself; 0: it does not */
  uint64_t out_since_ns; /* wall clock; 0: it is in */
};
/* How many places the record has a witness of (rule 16). */
uint32_t mirror_witness_count(const struct mirror *mirror);
/* What the home store holds, as far as it was read or has taken something; NULL: nothing is known. For the owner, who need not read
 * it anew when the mirror is closed. */
const struct record *mirror_recorded(const struct mirror *mirror);
/* How many rounds of metadata have ended, well or not (mirror_commit.c). */
uint64_t mirror_rounds_ended(const struct mirror *mirror);
/* Is one under way? */
bool mirror_round_runs(const struct mirror *mirror);
struct mirror_status {
  enum mirror_state state;
  char reason[240];
  uint8_t uuid[16];
  struct generation generation;
  uint64_t epoch;
  char epoch_node[TARN_NAME_MAX + 1];
  uint32_t image_count;
  struct mirror_image_status images[IMAGES_MAX];
  uint64_t marked_regions, recovering_bytes;
  uint64_t reads_done, changes_done; /* I/Os of clients that were answered as done; a flush is a change */
  uint64_t in_flight, log_writes;
  bool log_off;         /* mirror_set_log() */
  bool home_in_trouble; /* the last record could not be written to the state directory */
  const char *
      recovery_waits_for; /* what failed is to be written again, and that fails, too, for this reason; NULL: it goes on, or is not
                                   * needed. A static text. */
  bool flushes_fail; /* until then */
  bool recovered;    /* the fields below tell of the last recovery */
  struct {
    const char *reason; /* "crash" */
    uint64_t bytes_marked, bytes_copied, duration_ns;
    bool running;
  } recovery;
};
void mirror_status(const struct mirror *mirror, struct mirror_status *status);
enum mirror_state mirror_state_now(const struct mirror *mirror);

/* What is known of a range of a volume beyond its bytes, run by run from `offset` on: at most `max` runs, whose `flags` are these.
 * Returns how many: at least one; a prefix is described, as much as a bounded look finds. Reads memory only. */
enum mirror_range_flag {
  MIRROR_RANGE_MARKED = 1 << 0,     /* written lately: after a crash it would be recovered */
  MIRROR_RANGE_MISSED = 1 << 1,     /* at least one image has not got it */
  MIRROR_RANGE_UNREADABLE = 1 << 2, /* no image can read it */
};
uint32_t mirror_range_runs(const struct mirror *mirror, uint32_t volume, uint64_t offset, uint64_t length,
                           struct disk_extent *runs, uint32_t max);

/* Invariants of the whole object; the simulator calls it after every event. */
void mirror_check(const struct mirror *mirror);
/* Places that no image can read: what a read of them gets is TARN_IO, until they are written. Mirror addresses (core/meta.h). */
const struct unreadable *mirror_unreadable(const struct mirror *mirror);
/* For the checker: may this image be called equal to the master right now (no write in flight, nothing marked as
 * recovering, nothing missed)? */
bool mirror_image_is_equal(const struct mirror *mirror, uint32_t image);
/* Is there a place in this range that no image can read (it is named in the status)? There the images may differ, and reads
 * fail, until it is written. */
bool mirror_is_unreadable(const struct mirror *mirror, uint32_t volume, uint64_t offset, uint64_t length);

#endif
