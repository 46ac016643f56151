/* counters.h - what the simulator has shown to happen. The faults carry the names of docs/fault-model.md. After enough
 * seeds of the default mix a counter that is still zero means that a promise is not being tested: a failure. */
#ifndef TARN_SIM_COUNTERS_H
#define TARN_SIM_COUNTERS_H

#include "base/require.h"

#define SIM_COUNTERS(X)                                                                          \
  X(crash_kill, "F1  the process died")                                                          \
  X(crash_power, "F2  power was lost")                                                           \
  X(crash_in_activation, "F3  a crash before activation was answered")                           \
  X(crash_in_recovery, "F4  a crash while regions were being recovered")                         \
  X(sector_lost, "F5  a sector fell back to an older version")                                   \
  X(write_torn, "F6  a write in flight at a crash landed in part (rule 2)")                      \
  X(io_fails_once, "F7  I/Os failed by a fault that strikes once")                               \
  X(io_fails_for_a_while, "F8  I/Os failed by a fault that passes")                              \
  X(io_fails_for_good, "F9  I/Os failed by a fault that stays")                                  \
  X(bad_sector, "F10 reads failed on a bad sector")                                              \
  X(flush_fails, "F11 flushes failed")                                                           \
  X(meta_fails, "F12 metadata I/Os failed")                                                      \
  X(home_fails, "F13 I/Os to the home store failed")                                             \
  X(slow_disk, "F14 I/Os on a slow disk")                                                        \
  X(image_absent, "F15 an image was absent at an activation")                                    \
  X(connection_dropped, "F16 a client hung up with requests in flight")                          \
  X(failed_over, "F29 a client came again while its old requests were under way")                \
  X(old_overtaken, "writes answered over one of a session that had ended")                       \
  X(bytes_fragmented, "F17 deliveries that cut a message")                                       \
  X(client_stalled, "F28 clients that stalled in the middle of a payload")                       \
  X(client_died_in_payload, "F28 of them, those that hung up there (rule 17)")                   \
  X(io_hangs, "F18 I/Os that hang")                                                              \
  X(hung_io_lands_late, "F19 I/Os that landed when nobody waited any more (rule 7)")             \
  X(connection_lost, "F20 disks whose connection was lost for a moment")                         \
  X(loss_seen_idle, "F5  such that were seen while nothing was asked of the disk")               \
  X(failed_write_lands, "F33 writes that landed when their error had been answered")             \
  X(meta_rots, "F21 metadata that rotted between two lives (rules 4, 18)")                       \
  X(meta_misdirected, "F22 metadata writes that went to another place")                          \
  X(meta_unreadable, "F39 reads of metadata of which one copy cannot be read")                   \
  X(meta_lost, "F23 metadata of an image that was lost")                                         \
  X(home_lost, "F24 the home store was lost")                                                    \
  X(strangers_noticed, "F31 disks of another time or place: refused")                            \
  X(strangers_unseen, "F31 the same, where no witness differed")                                 \
  X(edit_refused, "F34 images that somebody wrote to, or replaced: refused")                     \
  X(edit_forced, "F34 such that were copied over by force, and nothing was lost")                \
  X(edit_all_forced, "F34 of them, those where all had been written to")                         \
  X(edit_used, "F34 only images that somebody wrote to: used as they are")                       \
  X(edit_behind, "F34 images that were replaced, or written to, while they were out")            \
  X(home_went_back, "F35 home stores of an earlier life")                                        \
  X(home_back_refused, "F35 such, with the newest image away, or too old to be known (rule 10)") \
  X(spoiled, "F38 images whose file was made shorter (rule 9)")                                  \
  X(spoiled_out, "F38 such that were out already")                                               \
  X(spoiled_fell, "F38 such that made the mirror fall")                                          \
  X(lost_in_activation, "activations refused: an image was lost in their own commit")            \
  X(fell_joining, "falls while it was being recorded that an image joins (rule 13)")             \
  X(source_asked, "commands by which the source of a recovery is to leave (rule 12)")            \
  X(source_asked_seen, "such, after a crash that cut off a write which had been seen")           \
  X(read_sees_pending, "reads that saw a write before it was answered")                          \
  X(seen_cut_off, "writes that had been seen when a crash cut them off (rule 2)")                \
  X(ended_beside_source, "lives that ended in a recovery from another image than the master")    \
  X(copied_past_block, "copies of a last good image with a block that cannot be written")        \
  X(home_alone, "F13 lives in which home failed, and no other disk")                             \
  X(home_alone_commands, "F13 commands in such")                                                 \
  X(image_put_back, "F32 images put back, data and metadata, to what they were")                 \
  X(witness_dropped, "witnesses dropped before a mark went (rule 16)")                           \
  X(witness_made, "witnesses made while a mirror served")                                        \
  X(fallen, "mirrors that stopped by themselves")                                                \
  X(fallen_whole, "such that had flushed all that they had answered")                            \
  X(closed_cache_lost, "F30 caches lost while nobody had the disks open")                        \
  X(loss_recorded, "F20 caches lost whose image was recorded as out before the process died")    \
  X(loss_told, "clients that were told by a flush of what a fall had lost (rule 19)")            \
  X(served_again, "mirrors that served again afterwards")                                        \
  X(cut_off, "images cut off at a moment")                                                       \
  X(op_remove, "images removed")                                                                 \
  X(op_add, "images added")                                                                      \
  X(op_sync, "full copies by command")                                                           \
  X(op_fracture, "images fractured")                                                             \
  X(op_restore, "images brought back by command")                                                \
  X(op_promote, "promotions while the mirror runs")                                              \
  X(op_demote, "demotions")                                                                      \
  X(op_assume, "images that were said to be equal")                                              \
  X(op_quiet, "activations for operations only")                                                 \
  X(op_limits, "changes of settings")                                                            \
  X(op_deactivate, "mirrors deactivated under load, for a while")                                \
  X(op_refused, "operations that were refused")                                                  \
  X(op_failed, "operations that failed")                                                         \
  X(op_intruded, "operations asked for during another")                                          \
  X(op_verify, "comparisons by the mirror that came to their end")                               \
  X(flaky_sector, "F27 reads failed on a flaky sector")                                          \
  X(image_unplugged, "F25 images taken away while their mirror served")                          \
  X(quiet_probe, "client I/Os that a quiet mirror refused")                                      \
  X(gate_misfit, "mirrors that came back able to do less than their clients know")               \
  X(place_left_behind, "places that no image could read")                                        \
  X(place_healed, "such places that were written")                                               \
  X(block_repaired, "blocks that were written again by read repair")                             \
  X(data_rots, "F26 bytes of data that rotted on an image")                                      \
  X(repair_cut_off, "crashes during such a repair (rule 15)")                                    \
  X(data_repaired, "repairs of such by verify (rule 15)")                                        \
  X(repaired_beside_join, "F26 repairs beside an image that was being copied to (rule 15)")      \
  X(served_apart, "images that another daemon served meanwhile")                                 \
  X(apart_in_ours, "... in a generation that is one of ours")                                    \
  X(tiny_limits, "mirrors with tiny limits")                                                     \
  X(image_reopened, "images whose disks were opened anew")                                       \
  X(disk_of_parts, "disks made of parts that were opened")                                       \
  X(sectors_large, "volumes on disks that all have blocks of 4096 bytes")                        \
  X(hung_harmless, "nodes on which a disk hung for good, and all requests were answered")        \
  X(several_mirrors, "seeds with several mirrors on the node")                                   \
  X(activated, "activations that succeeded")                                                     \
  X(refused, "activations that were refused")                                                    \
  X(deactivated, "clean stops")                                                                  \
  X(recovery_started, "recoveries from marks")                                                   \
  X(recovery_finished, "recoveries that ran to their end")                                       \
  X(image_failed, "images seen to leave the set")                                                \
  X(image_returned, "images that were brought back up to date")                                  \
  X(read_checked, "reads checked")                                                               \
  X(extents_checked, "answers checked of where the holes are")                                   \
  X(extents_zero, "runs of such that were said to be zero")                                      \
  X(extents_in_flight, "questions for holes that met a write in flight")                         \
  X(read_overlapping_write, "reads that met a write in flight")                                  \
  X(read_in_recovery, "reads answered during a recovery (rule 12)")                              \
  X(write_overlapping_write, "writes that met another in flight")                                \
  X(write_unaligned, "writes of odd offset or length")                                           \
  X(write_fua, "writes with FUA")                                                                \
  X(write_zeroes, "write-zeroes, hole allowed")                                                  \
  X(write_zeroes_no_hole, "write-zeroes, NO_HOLE")                                               \
  X(trim, "trims (rule 14)")                                                                     \
  X(flush_ok, "flushes answered")                                                                \
  X(flush_over_failure, "such that were asked for before another one failed (rule 5)")           \
  X(client_error, "requests answered with an error, in chaos")                                   \
  X(marks_high, "moments with all marks in use (rule 3)")                                        \
  X(out_and_missing, "images that were out while writes were answered (rule 1)")                 \
  X(failed_together, "writes, answered with an error, that put no image out (rule 6)")           \
  X(master_left, "masters that left, and others took their place (rule 8)")                      \
  X(judged_replaced, "images found to be other files than they were (rule 9)")                   \
  X(judged_edited, "images found to be written to (rule 9)")                                     \
  X(judged_apart, "images found to be written apart (rule 9)")                                   \
  X(unconfirmed, "activations refused: nothing confirms that no newer data is lost (rule 10)")   \
  X(none_newest, "activations refused: no image that is here has the newest data (rule 10)")     \
  X(crash_half_built, "crashes while an image was copied to (rule 13)")                          \
  X(ops_full, "moments with all operations in use")                                              \
  X(images_compared, "comparisons of images called equal")                                       \
  X(fua_poisons, "F37 FUAs that failed and lost older writes")                                   \
  X(fua_untold, "F37 good FUAs beside a FLUSH or FUA that failed, which are not durable")        \
  X(flush_behind_fua, "F37 power lost behind a flush that came after such (rule 5)")             \
  X(round_but_record, "F40 rounds of metadata cut off when all had landed but the record")       \
  X(round_record_alone, "F40 such of which the record alone had landed")                         \
  X(round_in_command, "F40 such that carried what a command changes")                            \
  X(round_promoting, "F40 such that would have made an image the master that was behind")        \
  X(io_in_line, "F36 I/Os that stood in a line of their disk's")                                 \
  X(bytes_settled, "bytes settled by the first read after a crash")

struct sim_counters {
#define X(name, text) uint64_t name;
  SIM_COUNTERS(X)
#undef X
};

enum {
#define X(name, text) COUNTER_##name,
  SIM_COUNTERS(X)
#undef X
      COUNTER_COUNT
};

void counters_add(struct sim_counters *sum, const struct sim_counters *part);
void counters_print(const struct sim_counters *counters);
/* How many of them are zero; names each on standard output. */
unsigned counters_report_zero(const struct sim_counters *counters);

#endif
