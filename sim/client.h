/* client.h - a simulated client: a workload drawn from the seed, sent over a wire, each answer checked by the model.
 *
 * A client keeps several requests open, prefers a few hot places that it shares with the other clients of the volume, and
 * rests now and then, so that the mirror's lazy work gets its turn. It may hang up at any moment and come back. */
#ifndef TARN_SIM_CLIENT_H
#define TARN_SIM_CLIENT_H

#include "base/bitmap.h"
#include "sim/model.h"
#include "sim/wire.h"

#define CLIENT_DEPTH_MAX 16

/* Why an error is acceptable, asked when a request was answered with one. */
struct client_rules {
  bool errors_allowed;  /* chaos: of what was asked for before the trouble had ended: */
  uint64_t troubled_ns; /* the last moment at which a fault struck, or the mirror did not serve, or recovered */
  uint64_t lone_ns;     /* the last moment at which one image was current, or none */
  bool stopping;        /* the mirror is being deactivated under load */
  bool in_doubt;        /* it was closed before a recovery had ended that a process before had left, too */
};

/* What the clients of one volume have in common. */
struct workload {
  uint64_t size_bytes;
  struct {
    uint64_t start, bytes;
  } hot[4];
  uint32_t hot_percent;
  uint32_t weight[5]; /* by enum model_kind */
  uint32_t fua_percent, aligned_percent;
  uint64_t write_bytes_max;
  uint32_t rest_one_in; /* a rest of seconds after one answer in so many; 0: never */
};
void workload_draw(struct workload *workload, struct prng *prng, uint64_t size_bytes);

/* Pages of one volume. */
struct places {
  struct bitmap unreadable; /* that no image could read at some time of this life, until a write of them was answered */
  struct bitmap listed;     /* that the core calls unreadable now */
  struct bitmap healed;     /* of which a write was answered since they were called so last */
};

struct client_op;
struct client {
  struct world *world;
  char name[16];
  struct model *model;
  const struct workload *workload;
  const struct client_rules *rules;
  const bool *recovering; /* the mirror is in a recovery right now */
  struct places *places;  /* NULL: no place is ever unreadable */
  struct wire_options wire_options;
  struct wire wires[2], *wire; /* the one in use; the other may still be ending what a session of before had begun: */
  bool lingers;
  struct prng prng, extents_prng, stall_prng;
  uint64_t seen_start, seen_bytes; /* a read was answered: where are the holes there? 0 bytes: not asked */
  uint64_t read_start, read_bytes; /* the same: is it still so? */
  uint32_t depth;
  uint32_t budget; /* requests still to be sent in this life */
  uint32_t open;   /* requests sent and not answered */
  uint32_t drop_one_in;
  bool resting, leaving, connected, asks_extents;
  bool untold; /* of a loss, at this tick of the model */
  uint64_t untold_tick;
  struct sim_event rest; /* also: reconnect */
  struct client_op *ops;
  struct list free_ops;
  uint64_t answered;
};

struct client_options {
  const char *name;
  struct model *model;
  const struct workload *workload;
  const struct client_rules *rules;
  const bool *recovering;
  struct places *places;
  uint64_t index;
  bool asks_extents; /* where the holes are, now and then */
};
void client_init(struct client *client, struct world *world, const struct client_options *options);
/* Connects (`wire`: pool, exports and export name) and sends `budget` requests. */
void client_start(struct client *client, const struct wire_options *wire, uint32_t budget);
/* What it was answered and has not flushed may be lost: its next flush must fail. */
void client_lose(struct client *client);
/* So many requests more. */
void client_more(struct client *client, uint32_t budget);
/* No new requests; disconnects when all are answered. */
void client_leave(struct client *client);
static inline bool client_is_done(const struct client *client) { return client->budget == 0 && client->open == 0; }
static inline bool client_is_gone(const struct client *client) { return !client->connected && !client->lingers; }
/* The server's process died. model_crash() is the caller's. */
void client_forget(struct client *client);

/* One request of the caller's choice, for scripted scenarios and the last reading of everything. `client` is connected and
 * its budget used up. */
void client_ask(struct client *client, enum model_kind kind, uint64_t offset, uint64_t length, bool fua);

#endif
