/* sim_mirror.h - one mirror under simulation: its disks, its clients with the models of what they may see, and the part of
 * a daemon that opens, activates, deactivates and closes it.
 *
 * Media and models outlive the process. A *life* of the mirror is what lies between sim_mirror_open() and a crash, or
 * sim_mirror_close(); it can be of several mirror objects, when one falls and the next takes over. */
#ifndef TARN_SIM_SIM_MIRROR_H
#define TARN_SIM_SIM_MIRROR_H

#include "core/gate.h"
#include "core/mirror.h"
#include "sim/client.h"
#include "sim/sim_disk.h"

#define SIM_IMAGES_MAX  8
#define SIM_VOLUMES_MAX 2
#define SIM_CLIENTS_MAX 6
#define HANG_MIN_NS     (NS_PER_S / 10) /* the shortest `hang` that is drawn */

/* What lay on an image's disks some time ago (strangers.h). */
struct sim_past {
  bool taken;
  uint8_t *data[SIM_VOLUMES_MAX], *meta;
};

struct sim_image {
  char name[TARN_NAME_MAX + 1];
  char label[TARN_NAME_MAX + 9]; /* in the trace */
  struct sim_drive data[SIM_VOLUMES_MAX];
  struct sim_drive meta;
  uint32_t part_count[SIM_VOLUMES_MAX]; /* its data disks are made of so many parts; 1: in one piece */
  uint64_t part_bytes[SIM_VOLUMES_MAX]; /* each; the last one has the rest */
  struct disk *whole[SIM_VOLUMES_MAX];  /* while they are open */
  struct disk *parts[SIM_VOLUMES_MAX];  /* NULL, or made of the whole */
  struct sim_mirror *mirror;
  struct image_policy policy;
  bool configured;            /* the mirror's file names it; else the slot is free */
  bool removed;               /* the mirror said so: it must leave its disks alone */
  bool absent;                /* cannot be opened */
  bool apart;                 /* another daemon had it, and it stays away (apart.h) */
  struct record *past;        /* for that daemon */
  bool open;                  /* its disks are */
  bool blank;                 /* at format */
  bool rots;                  /* its metadata may rot; of others' metadata a write may go astray: not both */
  struct sim_event reopening; /* the mirror waits for its disks */
  struct sim_event plugging;
  uint64_t synced_ns;         /* since when it has been SYNCHRONIZED; 0: it is not */
  enum image_state state;     /* as shown last, by the mirror object of now */
  enum image_missing missing; /* the same, by any */
  bool was_out;               /* when it was shown last, by a mirror that served */
  bool cut_off, had_moment;   /* it is, or was, CONSISTENT, and then these were its bytes */
  uint32_t moment_crc[SIM_VOLUMES_MAX];
  bool spoiled, spoiled_when_in, moment_spoiled; /* and that is not recorded yet (spoil.h): */
  uint64_t spoiled_sequence;                     /* of the newest record then */
  uint64_t spoiled_from[SIM_VOLUMES_MAX];
  uint8_t *spoiled_end[SIM_VOLUMES_MAX]; /* what was there */
  struct sim_past earlier;
  bool cache_lost;                           /* with a connection, and it has not been out and in again since */
  bool out_since;                            /* it was out since then */
  uint64_t identity;                         /* of its files; another number: other files */
  struct bitmap unverified[SIM_VOLUMES_MAX]; /* pages that changed anywhere since this image was found equal there */
};

#define SIM_STRANGE_TEXT "it holds other bytes" /* what the core says of disks that are not what they should be */

struct node;
struct sim_mirror {
  struct node *node;
  struct world *world;
  uint32_t index;
  char name[8];
  struct mirror_config config;
  struct mirror_limits limits;
  struct geometry layout;
  uint32_t image_count; /* slots that have disks, in use or not */
  uint32_t volume_count;
  struct sim_image images[SIM_IMAGES_MAX];
  struct sim_drive home;
  uint8_t *past_home; /* as struct sim_past; NULL: nothing is remembered */
  bool edited;        /* somebody wrote to its only current image, and no activation has taken notice yet */
  bool stampless;     /* nothing tells of what was done to its files */
  bool rotten;        /* some images hold what is wrong, and are called equal */
  bool strange;       /* its disks are not what its metadata tells of */
  struct model *models[SIM_VOLUMES_MAX];
  bool slow_metadata;
  bool calm;   /* throughout */
  bool parts;  /* some images lie on disks made of parts */
  bool healed; /* nothing fails, until the weather says otherwise */
  bool stalls; /* its clients stop in the middle of a payload now and then */
  struct prng prng, closed_prng;
  struct client_rules rules;
  uint64_t ill_round; /* an I/O of this round of metadata has failed; see mirror_rounds_ended() */

  /* the mirror object */
  struct arena arena;
  struct mirror *core;   /* NULL: closed */
  bool served;           /* this object has, some time */
  bool stopped;          /* it was deactivated, and said that all is well */
  bool serving;          /* it was activated, and its gates are open */
  bool fallen;           /* it stopped by itself, or was refused: to be closed, and tried again while `keep` */
  uint64_t done_at_fall; /* writes and flushes that were answered as done until the core fell; UINT64_MAX: it has not */
  bool keep;             /* ACTIVE is what its administrator wants */
  bool quiet;            /* activated for operations only */
  bool maybe_demoted;    /* it may have no master: activations name one */
  uint32_t promoted_next; /* and this one next, if nobody knows better */
  bool lost;              /* when it fell it said that answered writes may be gone */
  uint64_t suspend_ns;    /* how long requests wait then */
  struct sim_event again; /* another try */
  struct gate gates[SIM_VOLUMES_MAX];
  struct buffer_account account;
  struct nbd_export exports[SIM_VOLUMES_MAX];
  char export_names[SIM_VOLUMES_MAX][24];
  bool busy; /* with an operation, then: */
  uint64_t busy_ns;
  struct mirror_activation how;
  uint32_t op_image; /* of an operation on an image */
  enum mirror_image_op op;
  bool operated;        /* in this life: who is SYNCHRONIZED may have changed */
  struct disk_io probe; /* of a mirror that works quietly */
  bool probing;
  bool verifying, verify_must_agree;
  tarn_err verify_err;
  tarn_err err;
  char why[500];
  bool status_stale;
  uint32_t witness_count;                     /* before the last event */
  struct mirror_status status, status_before; /* as it was when the mirror last said that it had changed */
  bool recovering;
  uint64_t status_next_ns, tended_ns;

  bool clients_started; /* in this life */
  uint32_t client_count;
  struct client clients[SIM_CLIENTS_MAX];
  struct workload workloads[SIM_VOLUMES_MAX];
  struct places places[SIM_VOLUMES_MAX];
};

struct sim_mirror_options {
  uint32_t image_count, volume_count;
  uint64_t volume_bytes[SIM_VOLUMES_MAX];
  uint32_t extent_bytes, mark_count;
  bool calm, slow_metadata;
  bool parts;     /* some images lie on disks made of parts */
  bool tiny;      /* small limits everywhere: mirror_limits_tiny */
  bool witnesses; /* as many as the limits say; else none, so that nothing is read that no client asked for */
};
void sim_mirror_init(struct sim_mirror *mirror, struct node *node, uint32_t index,
                     const struct sim_mirror_options *options);

/* Opens the disks of all images that are not absent, and the mirror on them. */
void sim_mirror_open(struct sim_mirror *mirror);
/* After a deactivation, or a refused activation, or a fall. False: something is with the disks or the gates still. */
bool sim_mirror_can_close(const struct sim_mirror *mirror);
void sim_mirror_close(struct sim_mirror *mirror);
/* The process died, with `power` the whole machine. Closed or not. */
void sim_mirror_crash(struct sim_mirror *mirror, bool power);
/* Taken away at that moment, with what its disks had in their caches, and back some time later; or, if absent, back then. */
void sim_image_unplug(struct sim_image *image, uint64_t at_ns);
void sim_image_plug(struct sim_image *image, uint64_t at_ns);
/* Slots up to `count` have disks from now on. */
void sim_mirror_grow(struct sim_mirror *mirror, uint32_t count);
/* What its files are like now. */
struct image_stamp sim_image_stamp(const struct sim_image *image);
/* The disks of one image, for mirror->config. */
void sim_image_open(struct sim_image *image);
void sim_image_close(struct sim_image *image);
static inline uint32_t sim_image_slot(const struct sim_image *image) {
  return (uint32_t)(image - image->mirror->images);
}

/* ---- daemon.c: what a daemon does for a mirror ---- */

/* The process begins: the gates that its clients will see. */
void sim_mirror_start(struct sim_mirror *mirror);
/* Each begins an operation; sim_mirror_wait() runs the world until it is answered, or until `steps` events have passed: then
 * false. `how` may be NULL. */
void sim_mirror_format(struct sim_mirror *mirror);
void sim_mirror_activate(struct sim_mirror *mirror, const struct mirror_activation *how);
void sim_mirror_deactivate(struct sim_mirror *mirror);
bool sim_mirror_wait(struct sim_mirror *mirror, uint64_t steps);
void sim_mirror_image_do(struct sim_mirror *mirror, uint32_t image, enum mirror_image_op op, bool force);
/* Into a slot that is free, or was never used. */
void sim_mirror_image_add(struct sim_mirror *mirror, uint32_t slot, bool assumed);
/* `source` IMAGES_MAX: compares only. */
void sim_mirror_verify(struct sim_mirror *mirror, uint32_t source);
/* One that works quietly takes no client's I/O. */
void sim_mirror_probe(struct sim_mirror *mirror);
/* What a good operator does when all is healed: asks back whoever stays out. Harmless while something is under way. */
void sim_mirror_tend(struct sim_mirror *mirror);
/* The core asks for the disks of an image anew. */
void sim_mirror_reopens(struct mirror *core, uint32_t image, bool make);
void sim_mirror_has_changed(struct mirror *core);
/* After every event: one that fell is closed and, while `keep`, opened and activated again; disks of images that were removed are
 * closed. */
void sim_mirror_keep(struct sim_mirror *mirror);
/* The process is gone. */
void sim_mirror_forget(struct sim_mirror *mirror);

/* ---- clients ---- */

void sim_mirror_clients_start(struct sim_mirror *mirror, uint32_t budget);
void sim_mirror_clients_leave(struct sim_mirror *mirror);
bool sim_mirror_clients_done(const struct sim_mirror *mirror);
bool sim_mirror_clients_gone(const struct sim_mirror *mirror);
/* Writes what no image can read, as an administrator would. Requires idle clients. */
void sim_mirror_write_unreadable(struct sim_mirror *mirror);
/* No faults, all images present, no error is excused. */
void sim_mirror_heal(struct sim_mirror *mirror);

/* Does any fault strike now, or what it has left: an I/O that hangs, a round of metadata that will fail, a mirror that does not serve,
 * or recovers? After every event. */
bool sim_mirror_is_troubled(struct sim_mirror *mirror);

/* ---- watch.c ---- */

/* What must hold after every event. */
void sim_mirror_watch(struct sim_mirror *mirror);
/* Fresh from the mirror. */
const struct mirror_status *sim_mirror_status(struct sim_mirror *mirror);
bool sim_mirror_all_synchronized(struct sim_mirror *mirror);
/* Compares the images that the mirror calls equal, where something changed. Returns how many it compared. */
uint32_t sim_mirror_compare(struct sim_mirror *mirror);
/* The images that belong to the mirror, as bits. */
uint32_t sim_mirror_members(const struct sim_mirror *mirror);
/* Every image of the mirror, every byte, against each other and the models. Requires a closed mirror, all SYNCHRONIZED. */
void sim_mirror_compare_all(struct sim_mirror *mirror);
/* Do both hold the same bytes, and the first all of them on stable storage? */
bool sim_mirror_images_equal(const struct sim_mirror *mirror, uint32_t image, uint32_t other);
/* An image that was cut off still holds what it held then. */
void sim_mirror_check_moments(struct sim_mirror *mirror);
/* It was activated: a page whose healing was answered is not called unreadable again. */
void sim_mirror_check_healed(struct sim_mirror *mirror);

/* ---- what lands of a round of metadata ---- */

/* So much of the one that has just begun, on each store. CUT_NOT: nothing is held any more. */
void sim_mirror_cut(struct sim_mirror *mirror, enum round_cut cut);
/* All has landed of it that is to land. */
bool sim_mirror_is_cut(const struct sim_mirror *mirror);
/* It carries more than a record. */
bool sim_mirror_writes_rest(const struct sim_mirror *mirror);

#endif
