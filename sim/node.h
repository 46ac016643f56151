/* node.h - one simulated node: a process with its memory and its mirrors. It can die at any instant.
 *
 * node_step() is the one place where time passes: it runs one event and then looks at everything that must hold after every
 * event. */
#ifndef TARN_SIM_NODE_H
#define TARN_SIM_NODE_H

#include "sim/sim_mirror.h"

#define NODE_MIRRORS_MAX 3

struct node {
  struct world *world;
  uint64_t pool_bytes;
  uint32_t mirror_count;
  struct sim_mirror mirrors[NODE_MIRRORS_MAX];

  /* the process */
  bool running;
  struct arena arena;
  struct buffer_pool pool;
  struct nbd_exports exports;
  uint64_t step_ns;
  uint32_t steps_at_once; /* without time passing */
};

/* With no mirrors yet: sim_mirror_init() each, then count them. */
void node_init(struct node *node, struct world *world, uint64_t pool_bytes);
void node_destroy(struct node *node);

#define EACH_MIRROR(node, mirror) \
  for (struct sim_mirror *mirror = (node)->mirrors; mirror < (node)->mirrors + (node)->mirror_count; mirror++)

/* The process begins: its mirrors are closed. */
void node_start(struct node *node);
/* It ends in peace. Requires that all its mirrors are closed. */
void node_stop(struct node *node);
/* The process dies, with `power` the whole machine. */
void node_crash(struct node *node, bool power);

/* Is there anything that could still happen? */
bool node_can_step(const struct node *node);
/* One event, then all checks. Fails the run when nothing can ever happen any more. */
void node_step(struct node *node);

#endif
