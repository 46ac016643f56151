/* sim_disk.h - a medium that a process has open: a `struct disk` with latencies, faults, and I/Os in flight.
 *
 * An I/O takes effect at one instant between submission and completion, both drawn by chance. It requires every rule of
 * disk.h of its submitter, checks that the data it owns is left alone, and scribbles on the bytes around it where the rules
 * allow that. When the process dies, sim_drive_crash() decides what its I/Os in flight leave on the medium.
 *
 * An I/O that hangs is kept like any other, and takes effect late: a write then writes what its buffer holds, which must be what
 * it held at first, and a read then scribbles into its buffer. A connection that is lost for a moment fails the I/Os in flight,
 * or those that come until one of them was answered, and takes the disk's cache with it; no other I/O tells of it. Or only the way to it is cut: then the cache stays.
 * Or its file is made shorter (spoil.h).
 *
 * A write that failed so may land all the same, after its error was answered and before the disk is closed, or the process is gone. */
#ifndef TARN_SIM_SIM_DISK_H
#define TARN_SIM_SIM_DISK_H

#include "core/disk.h"
#include "core/meta.h"
#include "sim/faults.h"
#include "sim/medium.h"

/* What a crash leaves of the round of metadata that runs (rounds.h): what is not to land is held until then, and so is the flush behind
 * the rest. All that landed stays, also when power is lost. */
enum round_cut {
  CUT_NOT, /* nothing is held: a crash leaves any part */
  CUT_NOTHING,
  CUT_ALL,
  CUT_BUT_RECORD,
  CUT_RECORD_ALONE,
};

/* What a disk on this medium can do, and how it behaves: fixed for the medium's life. */
struct sim_drive {
  struct medium *medium;
  struct faults faults;
  struct disk_caps caps;
  struct prng prng;                                       /* latencies */
  uint64_t latency_ns;                                    /* typical; the rest of the distribution hangs on it */
  uint64_t steady_ns;                                     /* everything takes exactly so long; 0: the above */
  enum { TRACE_ALL, TRACE_RECORDS, TRACE_NOTHING } trace; /* of its I/Os; only records that were written, of metadata */
  bool forbidden;                                         /* nobody may write to it any more */
  struct sim_disk *open;                                  /* NULL while closed: one opener at a time (rule 7's lock) */
  const struct geometry *layout; /* of a metadata disk: so that a misdirected write does not hit its own second copy */
  struct sim_event loss;         /* of the connection */
  bool lost;                     /* and nobody was told yet: I/Os fail until one that failed has been answered */
  uint32_t depth;         /* so many I/Os are begun at once, the rest stands in a line (disk_io_line()); 0: all are */
  uint64_t longest_ns;    /* that it has taken for an I/O lately, without the line, */
  uint64_t longest_at_ns; /* and when that ended */
  uint64_t cache_losses;
  uint64_t ill_count;    /* I/Os in flight that hang, or will fail */
  uint64_t syncs_failed; /* FLUSHes and FUAs, ever */
  bool fua_failed;       /* the next flush is to fail for that (rule 5) */
  uint64_t
      told_ns; /* when the last such flush ended, or a flush or FUA that failed, as do those beside it; 0: none has */
  bool lands_late;     /* a write that fails may land later: whoever is told of it takes the image out */
  struct list late;    /* struct late_write: such that are on their way */
  uint64_t short_from; /* what is read beyond fails, until it is opened anew; UINT64_MAX: nothing */
  struct prng late_prng;
  enum round_cut cut;        /* until the process is gone */
  bool cut_record, cut_rest; /* the round's record has landed since it was cut; a block that is none */
};

/* Draws the caps (block sizes, zeroing, cache) and the latency from the seed. */
void sim_drive_init(struct sim_drive *drive, struct world *world, const char *name, uint64_t index, uint64_t size_bytes,
                    enum disk_role role);
/* Requires a drive that is not open. Closed by disk_close(), or by sim_disk_crash(). */
struct disk *sim_disk_open(struct sim_drive *drive);
/* The longest that it has taken for an I/O just now, or has one: that much it hung, whatever stood in its line. */
uint64_t sim_drive_hung_ns(const struct sim_drive *drive);
/* Has it a flush, or a FUA, that was submitted at that moment or before? */
bool sim_drive_syncs(const struct sim_drive *drive, uint64_t until_ns);
/* The connection to it is lost, at that moment, if it is open then. */
void sim_drive_lose(struct sim_drive *drive, uint64_t at_ns);
/* Of a metadata disk: is a record, or any other block, being written? */
bool sim_drive_writes_record(const struct sim_drive *drive);
bool sim_drive_writes_rest(const struct sim_drive *drive);
/* The round that has just begun is to be left like that. */
void sim_drive_cut(struct sim_drive *drive, enum round_cut cut);
/* All has landed of it that is to land. */
bool sim_drive_is_cut(const struct sim_drive *drive);
/* No faults any more: what hangs lands soon. */
void sim_drive_heal(struct sim_drive *drive);
/* The process died. `power`: and so did the machine. Also for a drive that is not open (then only power matters). */
void sim_drive_crash(struct sim_drive *drive, bool power);

#endif
