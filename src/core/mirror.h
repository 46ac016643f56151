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
 * An object is activated once: after a refusal it is closed and, to try again, opened anew.
 * Each operation answers through its callback, from the event queue; one operation at a time (else TARN_REFUSED).
 *
 * Memory: all of it comes from the arena given to mirror_open(); about MIRROR_OPS_MAX operations plus, for each
 * extent, two bits per image and one per mirror (touched pages only). */
#ifndef TARN_CORE_MIRROR_H
#define TARN_CORE_MIRROR_H

#include "base/arena.h"
#include "core/buffer.h"
#include "core/disk.h"
#include "format/record.h"

#define MIRROR_OPS_MAX 1024u /* client I/Os in flight in one mirror; more wait in line */

/* One image as its opener found it. A data or meta disk that could not be opened is NULL and `err_text` says why. */
struct mirror_image_config {
  char name[TARN_NAME_MAX + 1];
  char node[TARN_NAME_MAX + 1];
  struct disk *data[VOLUMES_MAX];
  struct disk *meta;        /* at least meta_bytes_needed() long */
  const char *error;        /* NULL, or why the image is absent; static or outliving the mirror */
  struct image_stamp found; /* what its files were like before we touched them; zeroes: not known */
  bool blank;               /* for mirror_format(): known to hold no data (all zero), needs no copy */
  uint64_t rate;            /* synchronisation, bytes per second; 0 no limit */
};

struct mirror_config {
  char name[TARN_NAME_MAX + 1];
  char node[TARN_NAME_MAX + 1]; /* ours */
  uint32_t region_bytes, extent_bytes,
      mark_count;                  /* of a new mirror; else what the record says is checked against them */
  int32_t max_missing, min_images; /* -1 off */
  uint32_t volume_count, image_count;
  struct {
    char name[TARN_NAME_MAX + 1];
    uint64_t size_bytes;
  } volumes[VOLUMES_MAX];
  struct mirror_image_config images[IMAGES_MAX]; /* by slot: the index is the image's slot in the record for ever */
  struct disk *home;                             /* the state directory's copy of the record: RECORD_AREA_BYTES long */
};

/* What is wrong with a set of settings, as a sentence, or NULL. */
const char *mirror_config_check(const struct mirror_config *config);
/* Bytes that a metadata disk needs for this config. */
uint64_t mirror_meta_bytes(const struct mirror_config *config);

struct mirror;
struct mirror_options {
  struct env *env;
  struct arena *arena;
  const struct mirror_config *config; /* copied */
  void *owner;
  /* State changed (ACTIVE, ATTENTION, an image's state): the owner may want to look. From the event queue. May be NULL. */
  void (*changed)(struct mirror *mirror);
  /* What an image's files are like now (thesis 3): asked when all is flushed, at format and at a clean stop; compared with
   * `found` of the next time. May be NULL: then nothing is noticed. */
  void (*stamp)(struct mirror *mirror, uint32_t image, struct image_stamp *stamp);
};
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
void mirror_activate(struct mirror *mirror, bool force, mirror_done *done, void *context);

/* Stops taking requests (TARN_SHUTDOWN), waits for those in flight, flushes, clears the marks that it may, records INACTIVE. `stay`
 * records that the mirror was ACTIVE, so that it is activated again at the next start (`auto`). */
void mirror_deactivate(struct mirror *mirror, bool stay, mirror_done *done, void *context);

/* A fact from outside: a disk of this image is no longer what it was. The image is taken out as if a write had failed;
 * TARN_REFUSED when it is the last good one, which stays (rule 8), or when the mirror is not ACTIVE. */
CHECKED tarn_err mirror_image_failed(struct mirror *mirror, uint32_t image, const char *why);

/* Requires that nothing is in flight: after mirror_deactivate() or a failed activate answered. In the simulator a crash
 * drops mirror and arena instead. */
bool mirror_is_idle(const struct mirror *mirror);
void mirror_close(struct mirror *mirror);

/* The volume as a disk for clients: block_bytes 1, serialised overlapping writes, alive until mirror_close(). */
struct disk *mirror_volume(struct mirror *mirror, uint32_t volume);

/* ---- what `tarn status` shows ---- */
struct mirror_image_status {
  char name[TARN_NAME_MAX + 1], node[TARN_NAME_MAX + 1];
  bool master;
  enum image_state state;
  enum image_missing missing;
  char reason[160]; /* empty when the state is the good one */
  uint64_t missed_bytes, unreadable_bytes;
  struct {
    enum { SYNC_NONE, SYNC_FULL, SYNC_MISSED, SYNC_INTENT } kind;
    uint64_t done_bytes, total_bytes, bytes_per_second, eta_seconds;
    char waiting_for[64]; /* empty: it is running */
  } sync;
  uint64_t reads, writes, read_errors, write_errors, repaired_blocks;
  uint32_t io_in_flight;
};
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
  uint64_t reads, writes, flushes, in_flight, log_writes;
  bool recovered; /* the fields below tell of the last recovery */
  struct {
    const char *reason; /* "crash" */
    uint64_t bytes_marked, bytes_copied, duration_ns;
    bool running;
  } recovery;
};
void mirror_status(const struct mirror *mirror, struct mirror_status *status);
enum mirror_state mirror_state_now(const struct mirror *mirror);

/* Invariants of the whole object; the simulator calls it after every event. */
void mirror_check(const struct mirror *mirror);
/* For the checker: may this image be called equal to the master right now (no write in flight, nothing marked as
 * recovering, nothing missed)? */
bool mirror_image_is_equal(const struct mirror *mirror, uint32_t image);

#endif
