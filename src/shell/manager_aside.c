/* What is left of a mirror's past life while a disk keeps requests of it: put aside, so that the mirror can be opened anew without
 * that disk (core/mirror.h has why no request that is answered late can do harm).
 *
 *     fallen or ended, idle --aside_put()--> aside: the core's object, its memory, the disks that have not answered
 *                                              | a disk has answered: it is closed, and its image may come back
 *                                              `-- none is left: the object is closed, its memory goes
 *
 * The images that are aside are absent to the mirror's next lives: neither an activation nor a return opens their disks. Requests that
 * are kept still belong to the mirror's account of buffers, and its faults are theirs: so a mirror that has something aside is not
 * destroyed, and an image that has is not forgotten.
 *
 * Memory: each has at least one image that no other one of the mirror has, because a later life has not opened it. So there are at
 * most as many as images; a mirror whose images all answer has none. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shell/manager_internal.h"

#define LOOK_NS (50 * NS_PER_MS)

struct aside {
  struct list link; /* in manager->asides */
  struct managed *managed;
  struct mirror *mirror;
  struct arena arena;
  uint32_t images; /* by image: whose disks are here */
  struct image_disks disks[IMAGES_MAX];
  uint32_t life; /* of the mirror, when it was put aside: more since, and it was activated without these images */
  struct timer look;
};

/* ---- who is asked ---- */

static uint32_t images_of(const struct managed *managed) {
  uint32_t images = 0;
  LIST_EACH(&managed->manager->asides, node) {
    const struct aside *aside = LIST_ENTRY(node, struct aside, link);
    if (aside->managed == managed) images |= aside->images;
  }
  return images;
}

bool aside_has(const struct managed *managed, uint32_t slot) { return images_of(managed) & 1u << slot; }
bool aside_has_any(const struct managed *managed) { return images_of(managed) != 0; }

uint32_t aside_requests(const struct managed *managed, uint32_t slot) {
  uint32_t count = 0;
  struct mirror_status status;
  LIST_EACH(&managed->manager->asides, node) {
    const struct aside *aside = LIST_ENTRY(node, struct aside, link);
    if (aside->managed != managed || !(aside->images & 1u << slot)) continue;
    mirror_status(aside->mirror, &status);
    count += status.images[slot].io_held;
  }
  return count;
}

bool aside_image_explain(const struct managed *managed, uint32_t slot, struct why *why) {
  if (!aside_has(managed, slot)) return false;
  because(why, TARN_HUNG, "its disk has not answered yet what it was asked before");
  return true;
}

bool aside_explain(const struct managed *managed, struct why *why) {
  char names[sizeof why->text - 120] = "";
  for (uint32_t slot = 0; slot < IMAGES_MAX; slot++)
    if (aside_has(managed, slot))
      held_name(names, sizeof names, managed->file.images[slot].name, aside_requests(managed, slot));
  if (names[0]) held_tell(names, why);
  return names[0];
}

/* ---- its life ---- */

static void look_later(struct aside *aside) {
  timer_set(aside->managed->manager->env, &aside->look, aside->managed->manager->env->now_ns + LOOK_NS);
}

/* Lets go of the disks of those that have answered, and are flushed where that counts. */
static void answered(struct aside *aside) {
  struct managed *managed = aside->managed;
  bool lost;
  uint32_t held = mirror_put_aside(aside->mirror, &lost), free = aside->images & ~held;
  aside->images = held;
  /* Once the mirror was activated without an image, that is behind, and what it has lost counts no more. */
  if (lost && managed->life == aside->life) exports_lose(managed);
  for (uint32_t slot = 0; slot < IMAGES_MAX; slot++) {
    if (!(free & 1u << slot)) continue;
    image_disks_close(&aside->disks[slot]);
    report(managed->manager->env, REPORT_INFO, managed->file.name,
           "the disk of image %s has answered what it was asked before; its files are closed",
           managed->file.images[slot].name);
    managed->disks.images[slot].why.text[0] = 0;
    if (managed_runs(managed)) mirror_image_answered(managed->mirror, slot);
  }
  if (!free) return;
  managed_poke(managed);
  managed_retry(managed, 1);
}

static void aside_look(struct timer *timer) {
  struct aside *aside = CONTAINER_OF(timer, struct aside, look);
  if (mirror_is_idle(aside->mirror)) answered(aside);
  if (aside->images) {
    look_later(aside);
    return;
  }
  mirror_close(aside->mirror);
  arena_destroy(&aside->arena);
  list_remove(&aside->link);
  free(aside);
}

/* The core's object, its memory, and the disks of these images change hands. */
static void take(struct aside *aside, struct managed *managed, uint32_t images) {
  aside->managed = managed;
  aside->life = managed->life;
  aside->mirror = managed->mirror;
  managed->mirror = NULL;
  aside->arena = managed->arena;
  arena_init(&managed->arena);
  aside->images = images;
  for (uint32_t slot = 0; slot < IMAGES_MAX; slot++) {
    if (!(images & 1u << slot)) continue;
    aside->disks[slot] = managed->disks.images[slot];
    managed->disks.images[slot] = (struct image_disks){.locked = false};
    image_disks_abort(&aside->disks[slot]);
  }
}

bool aside_put(struct managed *managed) {
  struct aside *aside = calloc(1, sizeof *aside);
  struct why why;
  bool lost;
  if (!aside) return false; /* later, then */
  take(aside, managed, mirror_put_aside(managed->mirror, &lost));
  if (lost) exports_lose(managed);
  list_init(&aside->link);
  list_push(&managed->manager->asides, &aside->link);
  timer_init(&aside->look, aside_look);
  look_later(aside);
  if (aside_explain(managed, &why)) report(managed->manager->env, REPORT_WARNING, managed->file.name, "%s", why.text);
  return true;
}
