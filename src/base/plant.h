/* plant.h - planted mistakes: marked places in the core where the simulator can switch on one known bug.
 *
 * Only the archive that the simulator's planted build links is compiled with TARN_PLANTS; in the daemon, and in the
 * simulator's honest build, PLANTED() is the constant false. A planted mistake changes a line or two and draws nothing
 * from seed, workload or faults, so a run's trace is equal to the honest one until the first event that it changes. */
#ifndef TARN_BASE_PLANT_H
#define TARN_BASE_PLANT_H

#include <stdbool.h>

#define TARN_PLANT_LIST(X)                                                                                     \
  X(answer_before_intent, "writes go to the disks before their mark is durable")                               \
  X(mark_on_one_image, "the mark is written to the first image only")                                          \
  X(clear_in_flight, "a mark is cleared while a write to its region is in flight")                             \
  X(clear_by_older_flush, "a mark is cleared by a flush submitted before its last write completed")            \
  X(recover_from_any, "recovery reads each block from any image, not from the one source")                     \
  X(rmw_unlocked, "the read of a read-modify-write happens before the lock is held")                           \
  X(drop_after_answer, "a failed image is recorded after the write is answered")                               \
  X(missed_write_only, "an image that failed misses only the failed write, not all marked regions")            \
  X(clear_copied_unflushed, "the missed bits of copied blocks are cleared before the copy is flushed")         \
  X(read_unrecovered, "a marked region is read after a crash before it has been copied")                       \
  X(flush_error_ignored, "an image whose flush failed stays in")                                               \
  X(hung_buffer_reused, "the buffer of a hung I/O is given back before its disk has answered")                 \
  X(flush_rides_along, "a client's flush is answered with one of ours, though it is in doubt")                 \
  X(silent_reconnect, "a disk whose connection was lost is used on as if nothing had happened")                \
  X(source_changed, "after a second crash recovery goes on from another source than before")                   \
  X(generation_after_write, "who is current is recorded after the marks of the writes that rely on it")        \
  X(stale_activated, "an image that is known to be old is activated alone")                                    \
  X(damaged_map_clean, "a damaged part of a map counts as clean")                                              \
  X(clean_page_loaded, "a page of a map counts although its top says that it is clean")                        \
  X(forgotten_is_past, "a generation that is too old to be remembered counts as our past")                     \
  X(flush_in_doubt, "a flush is answered after a crash before what was marked is written again")               \
  X(repair_unlocked, "read repair writes back what was read before it had the lock")                           \
  X(close_unflushed, "a mirror that has fallen closes its disks without a flush")                              \
  X(doubt_left_at_stop, "a stop in the middle of a recovery tells nobody what it leaves in doubt")             \
  X(loss_untold, "what a mirror may have lost when it fell is told to nobody")                                 \
  X(read_over_recovery, "a read of before a recovery is answered after it")                                    \
  X(write_passes, "a write passes an earlier one that it overlaps and that waits for a mark")                  \
  X(half_built_read, "an image that is still being copied to is read as if it were whole")                     \
  X(answer_when_fallen, "a mirror that has fallen answers what fewer images have than there must be")          \
  X(completed_untold, "no record says that an activation's, or a stop's, first commit is complete")            \
  X(undo_forgets_log, "a round that failed leaves its blocks of the log as if they were written")              \
  X(write_ends_doubt, "a write that was issued before a flush failed everywhere counts as recovery")           \
  X(home_not_awaited, "a dropped image counts as recorded, though home does not have the record")              \
  X(healed_not_awaited, "what heals an unreadable place is answered before that is recorded")                  \
  X(copied_kept, "what an image misses again stays copied")                                                    \
  X(read_not_repeated, "a read that overlapped a write that failed everywhere is answered")                    \
  X(clear_before_map, "a mark is cleared before the map of an absent image is durable")                        \
  X(read_before_drop, "a read is answered before the record that puts a failed image out")                     \
  X(read_unrecorded, "what only one image has is read, though nobody records that the other is out")           \
  X(slave_unheld, "a read at a slave does not keep writes out of its range")                                   \
  X(torn_payload, "a write whose client stalls goes to the disk as far as it has come")                        \
  X(no_quota, "what a mirror's hung images hold of the shared buffers is not bounded")                         \
  X(witness_outlives_mark, "a witness stays on the list when the mark of its region is cleared")               \
  X(marked_witness_counts, "a witness counts though its region is marked")                                     \
  X(missed_witness_counts, "a witness counts for an image that has missed what was written there")             \
  X(edited_counts, "an image that was replaced, or written to, counts beside others that were not")            \
  X(replaced_known, "an image that was replaced while it was out is believed by its map")                      \
  X(old_home_confirms, "a home store of an earlier life confirms that nothing newer is away")                  \
  X(witness_ignored, "disks are not looked at before what was recorded of them is believed")                   \
  X(line_counts_as_hang, "an I/O that stands in a line of ours is held against the disk")                      \
  X(joined_unrepaired, "a verify does not repair an image that has joined since it compared")                  \
  X(recovery_first, "nothing is copied to an image while a recovery cannot go on")                             \
  X(joins_fallen, "an image joins a mirror that has fallen, and is not flushed")                               \
  X(conditions_unasked, "an activation that loses an image does not ask how many may be missing")              \
  X(home_stops_writes, "while home fails, an image that comes back, or a command, fails all writes")           \
  X(source_leaves, "the source of a recovery leaves by a command, or somebody takes its place")                \
  X(master_believed, "reads do not hold their range while a crash may choose another master")                  \
  X(flush_passes_fua, "a flush that ends beside a FUA is answered before that has been")                       \
  X(one_copy_read, "metadata of which one copy cannot be read counts as lost")                                 \
  X(promoted_too_early, "maps and logs go before it is recorded that an image is used as it is")               \
  X(repair_beside_its_record, "what is repaired may be recovered from the master, if a crash tears one round") \
  X(gone_on_unseen, "an image that was used with an old state directory counts as behind")                     \
  X(repair_from_master, "a crash while a verify repairs recovers from the master, as ever")

enum plant {
  PLANT_none,
#define X(name, text) PLANT_##name,
  TARN_PLANT_LIST(X)
#undef X
      PLANT_COUNT
};

#ifdef TARN_PLANTS
extern enum plant plant_active;
extern unsigned long plant_hits; /* how often the active mistake was reached: the simulator reports it */
#define PLANTED(name) (plant_active == PLANT_##name && ++plant_hits != 0)
#else
#define PLANTED(name) false
#endif

#endif
