/* mirror_commit.c - metadata becomes durable in rounds.
 *
 * At most one round runs. It takes all that is dirty at its start (log blocks, map blocks, the record), writes it to every
 * online image (the record also to the home store) and ends when all have answered; who needs a change durable waits for
 * the round that carries it. Many waiting writes share one round, which is what makes marks cheap under load.
 *
 * A store that fails takes its image out, unless it would be the last current one: then the round has failed, everything
 * is dirty again, and those who wait get the error. A home store that cannot take a record fails the round too, if the record
 * says something new of who is current: activation relies on it to know that an absent image is not ahead (rule 10).
 *
 * Crash argument: what a round carries is true in memory when the round starts and stays true (intent.h, missed.h), so any
 * part of it may land. Where one change needs another first (a map before its mark goes; a cleared map before the image
 * counts as SYNCHRONIZED; a record by which a map or a log no longer counts before that is emptied; whom a crash recovers from before
 * what is repaired from there is marked) the second is made only when the
 * round of the first is done. */
#include <string.h>

#include "core/mirror_int.h"

static void round_start(struct event *event);
static void round_done(struct mirror *m);

tarn_err commit_alloc(struct mirror *m, struct arena *arena) {
  const struct geometry *g = &m->geometry;
  if (!bitmap_new(&m->plan.log_blocks, arena, g->log_blocks)) return TARN_FULL;
  for (uint32_t i = 0; i < IMAGES_MAX; i++)
    if (!bitmap_new(&m->plan.page_blocks[i], arena, g->page_blocks) ||
        !bitmap_new(&m->plan.top_blocks[i], arena, g->top_blocks))
      return TARN_FULL;
  struct missed **maps = ARENA_NEW(arena, struct missed *, IMAGES_MAX);
  if (!maps) return TARN_FULL;
  for (uint32_t i = 0; i < IMAGES_MAX; i++) maps[i] = &m->images[i].map;
  m->plan.maps = maps;
  return TARN_OK;
}

void commit_init(struct mirror *m) {
  list_init(&m->commit.waiters);
  event_init(&m->commit.start, round_start);
  m->plan.geometry = &m->geometry;
  m->plan.intent = &m->intent;
}

const struct record *mirror_recorded(const struct mirror *m) {
  if (m->home_record.sequence != 0) return &m->home_record;
  return m->home.disk && m->home.record_err == TARN_OK ? &m->home.record : NULL;
}

uint64_t mirror_rounds_ended(const struct mirror *m) { return m->commit.started - m->commit.running; }

bool mirror_round_runs(const struct mirror *m) { return m->commit.running; }

uint64_t commit_want(struct mirror *m) {
  m->commit.wanted = true;
  if (!m->commit.running && !event_is_posted(&m->commit.start)) event_post(&m->env->queue, &m->commit.start);
  return m->commit.started + 1;
}

uint64_t commit_wait_for(struct mirror *m, uint64_t seq) {
  if (seq <= m->commit.done) return 0;
  if (seq == m->commit.started && m->commit.running) return seq;
  return commit_want(m);
}

void commit_wait(struct mirror *m, struct op *op, uint64_t seq, void (*resume)(struct op *op, tarn_err err)) {
  require(seq > m->commit.done);
  require(seq <= m->commit.started + 1);
  op->wait_seq = seq;
  op->resume = resume;
  list_push(&m->commit.waiters, &op->link);
}

void commit_admin(struct mirror *m, void (*done)(struct mirror *m, tarn_err err)) {
  require(!m->commit.admin_done);
  m->commit.admin_done = done;
  m->commit.admin_seq = commit_want(m);
}

/* Moves the bits of `dirty` into the plan. */
static void take_dirty(struct bitmap *plan, struct bitmap *dirty) {
  memcpy(plan->words, dirty->words, bitmap_bytes(dirty->bit_count));
  plan->set_count = dirty->set_count;
  if (dirty->set_count) bitmap_clear_range(dirty, 0, dirty->bit_count);
}

static void give_back(const struct bitmap *plan, struct bitmap *dirty) {
  for (uint64_t b = bitmap_next_set(plan, 0); b < plan->bit_count; b = bitmap_next_set(plan, b + 1))
    bitmap_set(dirty, b);
}

static void store_committed(struct store *store, tarn_err err) {
  struct mirror *m = store->owner;
  if (err != TARN_OK) {
    if (store->slot == RECORD_SELF_HOME) m->commit.home_failed = true;
    else m->commit.failed |= 1u << store->slot;
  }
  require(m->commit.pending > 0);
  if (--m->commit.pending == 0) round_done(m);
}

static void round_start(struct event *event) {
  struct mirror *m = CONTAINER_OF(event, struct mirror, commit.start);
  require(!m->commit.running && m->commit.wanted);
  m->commit.running = true;
  m->commit.wanted = false;
  m->commit.failed = 0;
  m->commit.home_failed = false;
  m->commit.started++;
  struct commit_plan *plan = &m->plan;
  memcpy(&plan->mirror_id, m->record.mirror_uuid, sizeof plan->mirror_id);
  take_dirty(&plan->log_blocks, &m->intent.dirty);
  for (uint32_t i = 0; i < m->config.image_count; i++) {
    take_dirty(&plan->page_blocks[i], &m->images[i].map.page_dirty);
    take_dirty(&plan->top_blocks[i], &m->images[i].map.top_dirty);
  }
  plan->record = NULL;
  /* The log's sequence has 32 bits for the rounds of one record: none may see them wrap. */
  if ((m->commit.started & INT32_MAX) == 0) m->record_dirty = true;
  if (m->record_dirty && !(PLANTED(generation_after_write) && m->running && plan->log_blocks.set_count != 0)) {
    m->record_dirty = false;
    m->record.sequence++;
    m->record.settled_number = m->settled_number;
    EACH_IMAGE(m, i) {
      if (m->images[i].online && m->images[i].coming == COMING_NOT)
        m->record.images[i].seen_sequence = m->record.completed;
    }
    m->plan_record = m->record;
    m->plan_record.doubt = m->doubt_is_loss; /* other doubt every process has by itself that comes after a crash */
    plan->record = &m->plan_record;
  }
  plan->sequence = m->record.sequence << 32 | (m->commit.started & UINT32_MAX); /* grows over all lives of the mirror */
  m->commit.pending = 1;
  EACH_IMAGE(m, i) {
    if (!m->images[i].online) continue;
    m->commit.pending++;
    store_commit(&m->images[i].store, plan, store_committed);
  }
  if (plan->record) {
    m->commit.pending++;
    store_commit(&m->home, plan, store_committed);
  }
  if (--m->commit.pending == 0) round_done(m);
}

/* Everything of the failed round is dirty again. */
static void round_undo(struct mirror *m) {
  if (!PLANTED(undo_forgets_log)) give_back(&m->plan.log_blocks, &m->intent.dirty);
  for (uint32_t i = 0; i < m->config.image_count; i++) {
    give_back(&m->plan.page_blocks[i], &m->images[i].map.page_dirty);
    give_back(&m->plan.top_blocks[i], &m->images[i].map.top_dirty);
  }
  if (m->plan.record) m->record_dirty = true;
}

static void wake(struct mirror *m, tarn_err err) {
  uint64_t seq = m->commit.started;
  struct list ready;
  list_init(&ready);
  LIST_EACH(&m->commit.waiters, node) {
    if (LIST_ENTRY(node, struct op, link)->wait_seq > seq) continue;
    list_remove(node);
    list_push(&ready, node);
  }
  for (struct list *node = list_pop(&ready); node; node = list_pop(&ready)) {
    struct op *op = LIST_ENTRY(node, struct op, link);
    op->resume(op, err);
  }
  if (m->commit.admin_done && m->commit.admin_seq <= seq) {
    void (*done)(struct mirror *, tarn_err) = m->commit.admin_done;
    m->commit.admin_done = NULL;
    done(m, m->commit.home_failed ? TARN_IO : err); /* a command needs the whole record, whoever else does not */
  }
}

/* Does anybody rely on home's copy of the record of this round? If it says nothing new of who is current it may come later:
 * the marks that went with it are durable, and so is, on every image that may be used, which places are unreadable. */
static bool record_is_needed(const struct mirror *m) {
  bool needed = m->plan_record.generation.number != m->completed_generation.number;
  /* Of who is current: that an image is out which was only being copied to may come later. */
  bool drops = m->drop_seq > m->commit.done && m->drop_seq <= m->commit.started;
  if (drops && PLANTED(home_not_awaited)) needed = false;
  /* By an activation, or a stop; a command that could not be recorded harms nobody else. */
  bool admin = m->commit.admin_done && m->commit.admin_seq <= m->commit.started;
  if (!PLANTED(home_stops_writes)) return needed || (admin && !m->running);
  EACH_IMAGE(m, i) needed |= m->images[i].coming == COMING_COMMIT;
  return needed || admin;
}

static void round_done(struct mirror *m) {
  require(m->commit.running);
  m->commit.running = false;
  uint32_t current = mirror_current_mask(m);
  uint32_t failed = m->commit.failed & mirror_online_mask(m);
  m->admin_failed |= m->commit.failed & ~failed;
  uint64_t completed = m->record.completed; /* what those that fail may have */
  tarn_err err = TARN_OK;
  if (current != 0 && (failed & current) == current) {
    err = TARN_IO; /* rule 8: the last good image stays */
    failed &= ~current;
    report(m->env, REPORT_ERROR, m->config.name, "no image can write its metadata; writes fail");
  }
  if (m->admin == ADMIN_FORMAT && failed != 0) {
    err = TARN_IO; /* a new mirror is whole or not at all */
    failed = 0;
  }
  if (m->commit.home_failed) {
    if (record_is_needed(m)) err = TARN_IO;
    else images_come_later(m);
    m->record_dirty = true;
    if (!m->commit.home_in_trouble)
      report(m->env, REPORT_ERROR, m->config.name,
             "the state directory cannot be written: who is current cannot be recorded");
  } else if (m->plan.record) {
    m->commit.home_done = m->commit.started;
    m->home_record = m->plan_record;
  }
  if (!m->commit.home_failed && m->plan.record && m->commit.home_in_trouble) {
    report(m->env, REPORT_INFO, m->config.name, "the state directory can be written again");
  }
  if (m->plan.record) m->commit.home_in_trouble = m->commit.home_failed;
  if (err == TARN_OK) {
    m->commit.done = m->commit.started;
    if (m->plan.record && !m->commit.home_failed) {
      m->record.completed = m->plan_record.sequence;
      m->completed_generation = m->plan_record.generation;
      m->settled_number = m->completed_generation.number;
      /* Others are to be able to tell that this generation was relied on, before it is. */
      bool answers = m->running || m->fallen || m->admin == ADMIN_DEACTIVATE;
      if (answers && m->completed_generation.number != m->plan_record.settled_number) {
        m->settle_seq = m->commit.started + 1;
        m->record_dirty = true;
        m->commit.wanted = true;
      }
    }
  } else {
    round_undo(m);
  }
  EACH_IMAGE(m, i) {
    if (!(failed & 1u << i)) continue;
    image_drop(m, i, MISSING_FAILED, "its metadata cannot be written", NULL);
    m->record.images[i].seen_sequence = min_u64(m->record.images[i].seen_sequence, completed);
  }
  wake(m, err);
  if (err == TARN_OK) mark_line_run(m);
  else mark_line_fail(m, err);
  images_committed(m, err);
  copy_committed(m);
  admin_check_idle(m);
  if (m->commit.wanted && !m->commit.running && !event_is_posted(&m->commit.start))
    event_post(&m->env->queue, &m->commit.start);
}
