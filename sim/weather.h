/* weather.h - the atlas of docs/fault-model.md: which disks may fail in one life of the mirror, and what that excuses. */
#ifndef TARN_SIM_WEATHER_H
#define TARN_SIM_WEATHER_H

#include "sim/sim_mirror.h"

enum weather_kind { WEATHER_CALM, WEATHER_STORM, WEATHER_CHAOS };
/* Seeds that live at one kind of edge, life upon life: brink.h. */
enum brink {
  BRINK_NONE,
  BRINK_MASTER,
  BRINK_SOURCE,
  BRINK_ALL,
  BRINK_HOME,
  BRINK_PLACES,
  BRINK_DOUBT,
  BRINK_MAPS,
  BRINK_READS,
  BRINK_BACK,
  BRINK_AGAIN,
  BRINK_CLOSE,
  BRINK_COPY,
  BRINK_TROUBLES,
  BRINK_COMMANDS,
  BRINK_FUA,
  BRINK_ROUNDS
};
/* Of BRINK_TROUBLES: troubles.h. */
enum trouble {
  TROUBLE_SPOILED,
  TROUBLE_ACTIVATION,
  TROUBLE_JOIN,
  TROUBLE_SOURCE,
  TROUBLE_BLOCK,
  TROUBLE_HOME,
  TROUBLE_COUNT
};

#define NO_ANCHOR UINT32_MAX
struct weather {
  struct sim_mirror *mirror;
  struct prng prng, apart;
  enum weather_kind kind;
  uint32_t storm_percent, chaos_percent; /* of the lives; the others are calm */
  enum brink brink;                      /* every life has one kind of trouble only */
  enum story { STORY_DOUBT, STORY_MARKS, STORY_COPYING, STORY_COUNT } story; /* BRINK_ALL: this life's */
  enum trouble trouble;                                                      /* BRINK_TROUBLES: this life's */
  bool armed;             /* it waits for an image to be copied to, or for the moment of its second trouble */
  uint64_t done_before;   /* TROUBLE_JOIN: what was answered when the image that joins had been flushed */
  bool seen_before;       /* BRINK_COMMANDS: the crash before this life cut off a write that had been seen; and */
  uint64_t seen_cut_off;  /* how many that were in all */
  struct {                /* BRINK_ROUNDS: */
    uint64_t seen;        /* the last round that was looked at, + 1 */
    uint32_t left;        /* so many pass before one is cut */
    bool cut, in_command; /* one is being cut, and carries the change of a command */
    uint64_t cut_ns;
  } rounds;
  uint32_t tries, hold;    /* the life goes on for so many events more */
  bool master_first;       /* it is lost before the write has failed on the others */
  uint32_t lives;          /* of a brink whose kinds take turns */
  struct sim_event report; /* somebody else notices that the files of image `reported` are gone */
  uint32_t reported;
  uint32_t anchor;    /* the image that is in the set for sure, and is kept whole in storms */
  bool home_troubled; /* the home store may be behind the images */
  bool settled;       /* the life before ended with all images and the home store equal and well */
};

void weather_init(struct weather *weather, struct sim_mirror *mirror);
/* Before sim_mirror_open(): draws the weather, who is absent, and the faults that are there from the start. */
void weather_begin(struct weather *weather);
/* Once it is active: the faults of this life. */
void weather_strike(struct weather *weather);
/* Have all images been in the set for so long that it is recorded everywhere? In a calm life that ends so, any of them can
 * become the anchor. */
bool weather_all_sure(const struct weather *weather);
/* Before the process ends: who is in the set for sure now? `clean`: the mirror was deactivated. */
void weather_end(struct weather *weather, bool clean);
/* The image shown as master, and the one that comes behind `i` in turn. */
uint32_t weather_master(const struct sim_mirror *mirror);
uint32_t weather_next_member(const struct sim_mirror *mirror, uint32_t i);
/* Must an activation in this weather succeed? */
bool weather_promises_activation(const struct weather *weather);

#endif
