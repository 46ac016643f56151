/* node.h - one simulated node: the disks of a mirror, the process that serves it, its clients, and the watch over it all.
 *
 * The media and the models outlive the process. node_start() opens disks and mirror as a daemon would; node_crash() ends the
 * process at any instant; node_stop() closes what was deactivated. node_step() is the one place where time passes: it runs
 * one event and then looks at everything that must hold after every event. */
#ifndef TARN_SIM_NODE_H
#define TARN_SIM_NODE_H

#include "core/mirror.h"
#include "sim/client.h"
#include "sim/sim_disk.h"

#define NODE_IMAGES_MAX  8
#define NODE_VOLUMES_MAX 2
#define NODE_CLIENTS_MAX 6

struct node_image {
  char name[8];
  struct sim_drive data[NODE_VOLUMES_MAX];
  struct sim_drive meta;
  bool absent;                                /* at the next start, or now */
  bool blank;                                 /* at format */
  uint64_t synced_ns;                         /* since when it has been SYNCHRONIZED; 0: it is not */
  struct bitmap unverified[NODE_VOLUMES_MAX]; /* pages that changed anywhere since this image was found equal there */
};

struct node {
  struct world *world;
  struct mirror_config config;
  uint32_t image_count, volume_count;
  uint64_t pool_bytes;
  struct node_image images[NODE_IMAGES_MAX];
  struct sim_drive home;
  struct model *models[NODE_VOLUMES_MAX];
  bool calm; /* throughout */
  struct client_rules rules;

  /* the process */
  bool running;
  struct arena arena;
  struct buffer_pool pool;
  struct mirror *mirror;
  struct nbd_exports exports;
  struct nbd_export export_list[NODE_VOLUMES_MAX];
  bool busy; /* with an operation on the mirror, then: */
  tarn_err err;
  char why[500];
  bool status_stale;
  struct mirror_status status, status_before; /* as it was when the mirror last said that it had changed */
  bool recovering;
  uint64_t status_next_ns, step_ns;
  uint32_t steps_at_once; /* without time passing */

  uint32_t client_count;
  struct client clients[NODE_CLIENTS_MAX];
  struct workload workloads[NODE_VOLUMES_MAX];
};

struct node_options {
  uint32_t image_count, volume_count;
  uint64_t volume_bytes[NODE_VOLUMES_MAX];
  uint32_t extent_bytes, mark_count;
  uint64_t pool_bytes;
  bool calm;
};
void node_init(struct node *node, struct world *world, const struct node_options *options);
void node_destroy(struct node *node);

/* Opens the disks of all images that are not absent, and the mirror on them. */
void node_start(struct node *node);
/* Each begins an operation and runs the world until it is answered, or until `steps` events have passed: then false. */
bool node_format(struct node *node);
bool node_activate(struct node *node, uint64_t steps);
bool node_deactivate(struct node *node, uint64_t steps);
/* After a deactivation, or a refused activation. */
void node_stop(struct node *node);
/* The process dies, with `power` the whole machine. */
void node_crash(struct node *node, bool power);

void node_clients_start(struct node *node, uint32_t budget);
void node_clients_leave(struct node *node);
bool node_clients_done(const struct node *node);
bool node_clients_gone(const struct node *node);

/* One event, then all checks. Fails the run when nothing can ever happen any more. */
void node_step(struct node *node);
/* Fresh from the mirror. */
const struct mirror_status *node_status(struct node *node);
/* Compares the images that the mirror calls equal, where something changed. Returns how many it compared. */
uint32_t node_compare_images(struct node *node);
/* Every image, every byte, against each other and the models. Requires a quiet node. */
void node_compare_all(struct node *node);
bool node_all_synchronized(struct node *node);
void node_heal(struct node *node);

#endif
