/* mirror_stamp.c - the owner is asked what images' files are like now, and the record is told (thesis 3).
 *
 * It may take the owner long, since a file's time counts only once it is durable: then the image's stamp is "not known", as if the
 * file had none. So a file system that hangs keeps an activation, a stop or a fracture waiting as long as an I/O of that
 * image may take, and nothing else at all.
 *
 * When a file was last written to counts as long as we do not write to it ourselves: from a clean stop, or from a fracture, until the
 * image takes part again. So of an image that left while it was written to nothing is known, nor of any after a crash.
 *
 * Crash argument: a stamp counts by the record that carries it, which is written after it was taken. */
#include "core/mirror_int.h"

static void stamps_end(struct mirror *m) {
  void (*taken)(struct mirror *) = m->stamps.taken;
  timer_cancel(&m->stamps.timer);
  m->stamps.wanted = 0;
  m->stamps.taken = NULL;
  taken(m);
}

static void stamps_late(struct timer *timer) { stamps_end(CONTAINER_OF(timer, struct mirror, stamps.timer)); }

void stamps_init(struct mirror *m) { timer_init(&m->stamps.timer, stamps_late); }

void mirror_stamped(struct mirror *m, uint32_t image, uint32_t round, const struct image_stamp *stamp) {
  if (round != m->stamps.round || !(m->stamps.wanted & 1u << image)) return;
  m->record.images[image].stamp = *stamp;
  m->stamps.wanted &= ~(1u << image);
  if (m->stamps.wanted == 0 && m->stamps.taken) stamps_end(m);
}

void stamp_outdates(struct mirror *m, uint32_t i) { m->record.images[i].stamp.modified = 0; }

void stamps_take(struct mirror *m, uint32_t images, void (*taken)(struct mirror *m)) {
  require(m->stamps.wanted == 0 && !m->stamps.taken);
  uint64_t hang_ns = 0;
  m->stamps.round++;
  if (m->stamp) m->stamps.wanted = images;
  EACH_IMAGE(m, i) {
    if (!m->stamp || !(images & 1u << i)) continue;
    m->record.images[i].stamp = (struct image_stamp){0};
    hang_ns = max_u64(hang_ns, m->config.images[i].policy.hang_ns);
    m->stamp(m, i, m->stamps.round);
  }
  m->stamps.taken = taken;
  if (m->stamps.wanted == 0) stamps_end(m);
  else timer_set(m->env, &m->stamps.timer, m->env->now_ns + hang_ns);
}
