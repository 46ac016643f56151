/* record.h - the mirror's record: who it is, who is current. The same bytes lie in each image's metadata and in the state
 * directory. docs/disk-format.md has the layout byte by byte; this header and record.c are its only readers.
 *
 * Two slots of RECORD_SLOT_BYTES, each whole with its CRC; an update writes one, flushes, writes the other, flushes (which
 * one first: core/store.c). A reader takes the valid one of the higher `sequence`: a torn or rotten slot never hides the
 * other. */
#ifndef TARN_FORMAT_RECORD_H
#define TARN_FORMAT_RECORD_H

#include "base/error.h"
#include "base/require.h"

#define TARN_NAME_MAX     63u
#define IMAGES_MAX        16u
#define VOLUMES_MAX       8u
#define HISTORY_MAX       48u
#define WITNESSES_MAX     32u
#define WITNESS_BYTES     16u
#define RECORD_BYTES      8192u
#define RECORD_SLOT_BYTES 8192u
#define RECORD_AREA_BYTES (2 * RECORD_SLOT_BYTES)
#define RECORD_VERSION    2u
#define RECORD_VERSION_1  1u /* read, and written anew as RECORD_VERSION at the next activation */
#define MAP_EPOCH_MAX     ((1u << 23) - 1)
#define RECORD_SELF_HOME  0xffu /* `self` of the copy in the state directory */

/* B8 */
enum mirror_state { MIRROR_INACTIVE, MIRROR_ACTIVE, MIRROR_ATTENTION, MIRROR_STATE_COUNT };
/* B9 */
enum image_state { IMAGE_UNSYNCHRONIZED, IMAGE_SYNCHRONIZING, IMAGE_CONSISTENT, IMAGE_SYNCHRONIZED, IMAGE_STATE_COUNT };
enum image_missing { MISSING_NONE, MISSING_FAILED, MISSING_FRACTURED, MISSING_UNREACHABLE, IMAGE_MISSING_COUNT };

/* Orders "who is current": a higher number is later; an equal number with another id was written apart. */
struct generation {
  uint64_t number; /* 0: none */
  uint64_t id;
};

/* What an image's files were like when they were last in our hands; 0: not known. */
struct image_stamp {
  uint64_t identity; /* changes when a file is replaced by another */
  uint64_t
      modified; /* changes when a file is written to; known of an image only that no activation writes to: 0 in each that does */
};

struct record_image {
  bool present; /* the slot is in use */
  char name[TARN_NAME_MAX + 1];
  char node[TARN_NAME_MAX + 1];
  uint8_t uuid[16];
  enum image_state state;
  enum image_missing missing;
  bool all_missed;      /* nothing about it is known: a copy is a full one, whatever its map says */
  uint64_t left_number; /* generation number in which it fell behind; 0: it did not, or it is of no definite moment */
  uint64_t moment_ns;   /* wall clock of that */
  struct image_stamp stamp;
  /* Its own record had at least this sequence when it was last with us: what is older is not what this record tells of. */
  uint64_t seen_sequence;
  uint32_t map_epoch; /* of the pages of its map: those from before it last missed everything belong to another one */
  uint64_t
      left_id; /* of the generation that its own record had when it left, which the history may have forgotten; 0: not known */
};

/* Places that no image can read: left behind by a copy, named in `status`, healed by the next write. Mirror addresses, in
 * order, apart from each other. */
#define UNREADABLE_MAX 128u
struct unreadable {
  uint32_t count;
  struct {
    uint64_t start, length; /* bytes */
  } ranges[UNREADABLE_MAX];
};

/* What every SYNCHRONIZED image holds at a place, and any other one whose map does not call that place missed. */
struct witness {
  uint64_t address;            /* mirror address */
  uint8_t hash[WITNESS_BYTES]; /* first half of the SHA-256 of what lies there */
};

/* Where the parts of an image's metadata that may move lie in it, in bytes: the same for all images. A mirror of version 1 has
 * none of this; core/meta.h knows where its maps lie. */
struct record_layout {
  uint64_t map_offset;
  uint64_t map_extents;   /* so many extents the maps have room for */
  uint64_t moment_offset; /* a second map for each image slot, of what changed since a moment; 0: no room for them */
};

struct record {
  uint32_t version;   /* RECORD_VERSION, or as it was found: RECORD_VERSION_1 */
  uint32_t features;  /* reserved; unknown bits are refused */
  uint64_t sequence;  /* of this record; the highest valid one counts */
  uint64_t completed; /* sequence of the last commit that every store of that time has, as far as the writer knew */
  uint8_t mirror_uuid[16];
  uint8_t self; /* image slot in whose metadata this copy lies, or RECORD_SELF_HOME */
  char name[TARN_NAME_MAX + 1];
  uint64_t epoch; /* with epoch_node: the right to write (rule 11) */
  char epoch_node[TARN_NAME_MAX + 1];
  struct generation generation;
  struct generation history[HISTORY_MAX]; /* newest first; one that is missing in between was never ours */
  bool active;                            /* was ACTIVE (activate again at start if `auto`) */
  bool doubt;     /* a flush failed on every image: no flush is answered before recovery has written all again */
  bool clean;     /* stopped cleanly: no mark anywhere matters */
  bool demoted;   /* there is no master: activation needs one to be promoted */
  uint8_t master; /* image slot; of a demoted mirror: the last one */
  uint8_t recovery_source; /* image slot while a recovery is unfinished, else 0xff (rule 12) */
  uint32_t region_bytes, extent_bytes, mark_count;
  uint32_t volume_count;
  struct {
    char name[TARN_NAME_MAX + 1];
    uint8_t uuid[16];
    uint64_t size_bytes;
    uint64_t space_bytes; /* address space set aside for it; 0: its size, rounded up to regions */
  } volumes[VOLUMES_MAX];
  struct record_image images[IMAGES_MAX];
  struct unreadable unreadable;
  /* Generation number of the last record that every store has, as far as the writer knew. Nothing is answered in a generation before a record of it
   * has its own number here: one with a later generation is of a commit that nothing relied on, and may never have been completed. */
  uint64_t settled_number;
  uint64_t order; /* reserved: 0 */
  struct record_layout layout;
  uint32_t witness_count;
  struct witness witnesses[WITNESSES_MAX]; /* by address */
};
#define RECORD_NO_SOURCE 0xffu

/* `out` has RECORD_BYTES. Requires a record that record_check() accepts. */
void record_encode(const struct record *record, uint8_t *out);
/* TARN_NOT_FOUND: all zero, never written. TARN_CORRUPT: magic, CRC or bounds. TARN_VERSION: newer, or unknown features. */
CHECKED tarn_err record_decode(struct record *record, const uint8_t *in);
/* A name of a mirror, image, volume or node: 1 to TARN_NAME_MAX of A-Z a-z 0-9 _ -, the first a letter or digit. */
bool record_name_is_valid(const char *name, size_t bytes);
/* What a record can say of a mirror's geometry, for settings that are to become one: NULL, or what is wrong, as a sentence. */
const char *record_geometry_check(uint32_t region_bytes, uint32_t extent_bytes, uint32_t mark_count,
                                  uint32_t volume_count, const uint64_t *volume_bytes);
/* Bounds and cross-field invariants; NULL, or what is wrong. Whether the layout's areas lie apart core/meta.h can tell. */
const char *record_check(const struct record *record);
/* Extents of its volumes' address space. Requires a record that record_check() accepts. */
uint64_t record_extent_count(const struct record *record);
/* Which of two records of a mirror is newer: by epoch, then generation, then sequence. */
bool record_is_newer(const struct record *a, const struct record *b);

const char *mirror_state_name(enum mirror_state state);     /* "ACTIVE" */
const char *image_state_name(enum image_state state);       /* "SYNCHRONIZED" */
const char *image_missing_name(enum image_missing missing); /* "failed"; NULL for none */

#endif
