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

struct sim_image {
  char name[TARN_NAME_MAX + 1];
  char label[TARN_NAME_MAX + 9]; /* in the trace */
  struct sim_drive data[SIM_VOLUMES_MAX];
  struct sim_drive meta;
  struct sim_mirror *mirror;
  struct image_policy policy;
  bool absent;                /* cannot be opened */
  bool open;                  /* its disks are */
  bool blank;                 /* at format */
  bool rots;                  /* its metadata may rot; of others' metadata a write may go astray: not both */
  struct sim_event reopening; /* the mirror waits for its disks */
  uint64_t synced_ns;         /* since when it has been SYNCHRONIZED; 0: it is not */
  struct bitmap unverified[SIM_VOLUMES_MAX]; /* pages that changed anywhere since this image was found equal there */
};

struct node;
struct sim_mirror {
  struct node *node;
  struct world *world;
  uint32_t index;
  char name[8];
  struct mirror_config config;
  struct geometry layout;
  uint32_t image_count, volume_count;
  struct sim_image images[SIM_IMAGES_MAX];
  struct sim_drive home;
  struct model *models[SIM_VOLUMES_MAX];
  bool calm;   /* throughout */
  bool healed; /* nothing fails, until the weather says otherwise */
  struct prng prng;
  struct client_rules rules;

  /* the mirror object */
  struct arena arena;
  struct mirror *core;    /* NULL: closed */
  bool serving;           /* it was activated, and its gates are open */
  bool fallen;            /* it stopped by itself, or was refused: to be closed, and tried again while `keep` */
  bool keep;              /* ACTIVE is what its administrator wants */
  bool lost, lost_untold; /* when it fell: answered writes may be gone, and did it say so? */
  uint64_t suspend_ns;    /* how long requests wait then */
  struct sim_event again; /* another try */
  struct gate gates[SIM_VOLUMES_MAX];
  struct nbd_export exports[SIM_VOLUMES_MAX];
  char export_names[SIM_VOLUMES_MAX][24];
  bool busy; /* with an operation, then: */
  tarn_err err;
  char why[500];
  bool status_stale;
  struct mirror_status status, status_before; /* as it was when the mirror last said that it had changed */
  bool recovering;
  uint64_t status_next_ns, tended_ns;

  bool clients_started; /* in this life */
  uint32_t client_count;
  struct client clients[SIM_CLIENTS_MAX];
  struct workload workloads[SIM_VOLUMES_MAX];
  struct bitmap unreadable[SIM_VOLUMES_MAX]; /* pages that no image could read at some time of this life */
};

struct sim_mirror_options {
  uint32_t image_count, volume_count;
  uint64_t volume_bytes[SIM_VOLUMES_MAX];
  uint32_t extent_bytes, mark_count;
  bool calm;
};
void sim_mirror_init(struct sim_mirror *mirror, struct node *node, uint32_t index,
                     const struct sim_mirror_options *options);

/* The process begins: the gates that its clients will see. */
void sim_mirror_start(struct sim_mirror *mirror);
/* Opens the disks of all images that are not absent, and the mirror on them. */
void sim_mirror_open(struct sim_mirror *mirror);
/* Each begins an operation; sim_mirror_wait() runs the world until it is answered, or until `steps` events have passed: then
 * false. */
void sim_mirror_format(struct sim_mirror *mirror);
void sim_mirror_activate(struct sim_mirror *mirror);
void sim_mirror_deactivate(struct sim_mirror *mirror);
bool sim_mirror_wait(struct sim_mirror *mirror, uint64_t steps);
void sim_mirror_image_do(struct sim_mirror *mirror, uint32_t image, enum mirror_image_op op, bool force);
/* Compares the images on line, and fails the run if any differ; more often than not repairs from one of them. Ends when it ends. */
void sim_mirror_verify(struct sim_mirror *mirror);
/* What a good operator does when all is healed: asks back whoever stays out. Harmless while something is under way. */
void sim_mirror_tend(struct sim_mirror *mirror);
/* After a deactivation, or a refused activation, or a fall. False: something is with the disks or the gates still. */
bool sim_mirror_can_close(const struct sim_mirror *mirror);
void sim_mirror_close(struct sim_mirror *mirror);
/* After every event: one that fell is closed and, while `keep`, opened and activated again. */
void sim_mirror_keep(struct sim_mirror *mirror);
/* The process died, with `power` the whole machine. Closed or not. */
void sim_mirror_crash(struct sim_mirror *mirror, bool power);

void sim_mirror_clients_start(struct sim_mirror *mirror, uint32_t budget);
void sim_mirror_clients_leave(struct sim_mirror *mirror);
bool sim_mirror_clients_done(const struct sim_mirror *mirror);
bool sim_mirror_clients_gone(const struct sim_mirror *mirror);
/* Writes what no image can read, as an administrator would. Requires idle clients. */
void sim_mirror_write_unreadable(struct sim_mirror *mirror);
/* No faults, all images present, no error is excused. */
void sim_mirror_heal(struct sim_mirror *mirror);

/* ---- watch.c ---- */

/* What must hold after every event. */
void sim_mirror_watch(struct sim_mirror *mirror);
/* Fresh from the mirror. */
const struct mirror_status *sim_mirror_status(struct sim_mirror *mirror);
bool sim_mirror_all_synchronized(struct sim_mirror *mirror);
/* Compares the images that the mirror calls equal, where something changed. Returns how many it compared. */
uint32_t sim_mirror_compare(struct sim_mirror *mirror);
/* Every image, every byte, against each other and the models. Requires a quiet mirror. */
void sim_mirror_compare_all(struct sim_mirror *mirror);

#endif
