/* damage.h - metadata that rots, or is lost, while nobody looks: between two lives of a mirror. */
#ifndef TARN_SIM_DAMAGE_H
#define TARN_SIM_DAMAGE_H

#include "sim/sim_disk.h"

/* What of the metadata, as bits. */
enum damage_part {
  DAMAGE_RECORD = 1,
  DAMAGE_LOG_0 = 2, /* a copy of the intent log */
  DAMAGE_LOG_1 = 4,
  DAMAGE_MAPS = 8, /* both copies */
  DAMAGE_ALL = 15
};

/* What lies there, as " record 0", " log 1:3", " map of b 0:2". `layout` NULL: the home store. */
void damage_place(const struct geometry *layout, uint64_t offset, char *text, size_t bytes);
/* Flips bits in some sectors of these parts. */
void damage_rot(struct sim_drive *meta, uint32_t parts, struct prng *prng);
/* A block of which there is another copy: of the record, of the log, or of a map. */
uint64_t damage_draw_block(const struct geometry *layout, struct prng *prng);
/* Would a write at `offset` hit the other copy of what belongs at `meant`? Both of `length` bytes. */
bool meta_is_twin(const struct geometry *layout, uint64_t meant, uint64_t offset, uint64_t length);

#endif
