/* gate.h - the disk that a volume's clients see: it outlives the mirror object behind it, and holds their requests while
 * the mirror is in ATTENTION (`suspend`, B8).
 *
 *        gate_open(target)            gate_shut(patience)
 *     ------------------> OPEN ---------------------------> SHUT --patience is over, or gate_fail()--> FAILING
 *                          ^                                  |                                          |
 *                          `---------- gate_open(target) -----+------------------------------------------'
 *
 * OPEN passes requests on to the target and answers back. SHUT keeps new requests in line, and also one that comes back from
 * the target with TARN_SHUTDOWN ("not done"): gate_open() submits them all, in the order of arrival, to the new target. FAILING
 * answers TARN_SHUTDOWN at once, also to who stood in line. A request that was answered by the target with anything else than
 * TARN_SHUTDOWN is answered so.
 *
 * A request that comes back with TARN_SHUTDOWN while the gate is OPEN keeps its place in line too, and all others stand behind
 * it: the target is going, and its owner will shut the gate any moment. He must.
 *
 * Who has gone takes back what it has asked for (gate_withdraw()): what is not with the target is answered TARN_SHUTDOWN at once,
 * and nothing of it was done. Clients that hang up and come again, over and over, would fill the node with their waiting requests.
 *
 * A flush promises what was written before it. When answered writes may not have survived (mirror_may_have_lost()) the owner says
 * gate_lose() before it opens the gate again: disk.losses grows, and each connection that was there before has its next flush
 * fail, once, also one that waits in line (rule 5: a failed flush is never retried as if nothing were lost). Not only those that
 * wrote: a flush on one connection promises what was answered on another.
 *
 * Capabilities are told for good when the first target comes: its own, but with the alignment, the zero blocks, the cache and the
 * longest I/O of the most demanding disk there may be, and EXTENTS. So a later target fits (gate_fits()) if it is as large,
 * zeroes cheaply if the first one did, and takes as long I/Os; one that cannot trim fits, trims are then answered and not done,
 * and so does one that does not know EXTENTS: all is data then. Before its first target a gate has no size and no clients.
 *
 * Memory: `slots` requests with the target at once; more wait in line, in their own disk_io. A gate ends with gate_fail(), and
 * then its arena may go once disk.in_flight is 0. */
#ifndef TARN_CORE_GATE_H
#define TARN_CORE_GATE_H

#include "core/disk.h"

enum gate_state { GATE_SHUT, GATE_OPEN, GATE_FAILING };
struct gate_io;
struct gate {
  struct disk disk;
  struct disk *target; /* while OPEN; after that, requests that it still has come back */
  enum gate_state state;
  uint32_t waiting; /* requests in line */
  /* private */
  struct gate_io *ios;
  struct list free, line;
  struct list back; /* from the target, not done: by arrival */
  uint64_t arrivals;
  uint32_t with_target;
  struct timer timer;
  bool opened; /* caps are known */
};

/* SHUT, with no time limit, until it is opened. TARN_FULL when the arena is short. */
CHECKED tarn_err gate_init(struct gate *gate, struct env *env, struct arena *arena, uint32_t slots);
/* Could this target serve clients that were told of the first one's capabilities? Any target fits a gate that was never open. */
bool gate_fits(const struct gate *gate, const struct disk *target);
/* Requires a gate that is not OPEN and has nothing with an old target (gate_is_idle), and a target that fits. */
void gate_open(struct gate *gate, struct disk *target);
/* Requires OPEN. `patience_ns` from now on requests wait; 0: FAILING at once. */
void gate_shut(struct gate *gate, uint64_t patience_ns);
/* What was answered and not flushed may be lost. Requires a gate that is not OPEN. */
void gate_lose(struct gate *gate);
/* Requires a request that is in flight at this gate; its answer comes later, as always. Harmless when the target has it. */
void gate_withdraw(struct disk *gate, struct disk_io *io);
/* FAILING, from any state. */
void gate_fail(struct gate *gate);
/* Nothing is with the target. */
bool gate_is_idle(const struct gate *gate);

#endif
