/* The log on disk is a table: entry i of the mark_count entries holds region + 1, or 0. Any subset of its sectors may be
 * old after a crash:
 *   - a mark that was not yet durable everywhere was not relied on: no image was written under it;
 *   - a mark that was cleared but is still there costs a needless copy;
 *   - a slot that was cleared and reused shows the old or the new region; the old one was equal everywhere, and the new
 *     one is relied on only when every image has it. */
#include "core/intent.h"

#include <string.h>

#include "base/plant.h"
#include "base/prng.h"

tarn_err intent_init(struct intent *intent, struct arena *arena, const struct geometry *geometry) {
  intent->geometry = geometry;
  intent->bucket_count = 16;
  while (intent->bucket_count < 2 * geometry->mark_count) intent->bucket_count *= 2;
  intent->marks = ARENA_NEW(arena, struct mark, geometry->mark_count);
  intent->entries = ARENA_NEW(arena, uint32_t, geometry->log_blocks * geometry_block_entries(geometry));
  intent->buckets = ARENA_NEW(arena, uint32_t, intent->bucket_count);
  uint32_t per_sector = geometry->sector.log_entries;
  uint64_t sectors = (geometry->mark_count + per_sector - 1) / per_sector;
  intent->loaded_sequence = ARENA_NEW(arena, uint64_t, sectors);
  if (!intent->marks || !intent->entries || !intent->buckets || !intent->loaded_sequence) return TARN_FULL;
  if (!bitmap_new(&intent->dirty, arena, geometry->log_blocks) || !bitmap_new(&intent->loaded, arena, sectors))
    return TARN_FULL;
  list_init(&intent->free);
  list_init(&intent->used);
  intent->used_count = 0;
  intent->tick = 1;
  for (uint32_t v = 0; v < VOLUMES_MAX; v++) intent->flushed_tick[v] = 0;
  for (uint32_t i = 0; i < geometry->mark_count; i++) {
    list_init(&intent->marks[i].link);
    list_push(&intent->free, &intent->marks[i].link);
  }
  return TARN_OK;
}

static uint32_t *bucket_of(const struct intent *intent, uint64_t region) {
  return &intent->buckets[mix_u64(region) & (intent->bucket_count - 1)];
}

uint32_t intent_find(const struct intent *intent, uint64_t region) {
  for (uint32_t next = *bucket_of(intent, region); next != 0; next = intent->marks[next - 1].chain)
    if (intent->marks[next - 1].region == region) return next - 1;
  return INTENT_NONE;
}

static void set_entry(struct intent *intent, uint32_t slot, uint32_t value) {
  intent->entries[slot] = value;
  bitmap_set(&intent->dirty, slot / geometry_block_entries(intent->geometry));
}

/* Makes a free slot the mark of a region that has none. */
static struct mark *mark_use(struct intent *intent, uint32_t slot, uint64_t region, uint64_t commit_seq) {
  struct mark *mark = &intent->marks[slot];
  require(!mark->used);
  list_remove(&mark->link);
  *mark = (struct mark){.region = region, .used = true, .commit_seq = commit_seq};
  list_init(&mark->link);
  uint32_t *bucket = bucket_of(intent, region);
  mark->chain = *bucket;
  *bucket = slot + 1;
  intent->used_count++;
  set_entry(intent, slot, (uint32_t)region + 1);
  return mark;
}

void intent_acquire_slot(struct intent *intent, uint32_t slot, uint64_t now_ns) {
  struct mark *mark = &intent->marks[slot];
  require(mark->used);
  list_remove(&mark->link);
  list_push(&intent->used, &mark->link);
  mark->refs++;
  mark->used_ns = now_ns;
}

uint32_t intent_acquire(struct intent *intent, uint64_t region, uint64_t commit_seq, uint64_t now_ns) {
  require(region < intent->geometry->region_count);
  uint32_t slot = intent_find(intent, region);
  if (slot == INTENT_NONE) {
    require(!list_is_empty(&intent->free));
    slot = (uint32_t)(LIST_ENTRY(list_first(&intent->free), struct mark, link) - intent->marks);
    (void)mark_use(intent, slot, region, commit_seq);
  }
  intent_acquire_slot(intent, slot, now_ns);
  require(intent->marks[slot].region == region);
  return slot;
}

void intent_release(struct intent *intent, uint32_t slot, uint64_t now_ns) {
  struct mark *mark = &intent->marks[slot];
  if (PLANTED(clear_in_flight) && mark->refs == 0) return;
  require(mark->used);
  require(mark->refs > 0);
  mark->refs--;
  mark->write_tick = intent_next_tick(intent);
  mark->used_ns = now_ns;
  list_remove(&mark->link);
  list_push(&intent->used, &mark->link);
}

static uint64_t flushed_tick_of(const struct intent *intent, const struct mark *mark) {
  uint32_t v = geometry_volume_at(intent->geometry, mark->region * intent->geometry->region_bytes);
  require(v < intent->geometry->volume_count);
  return intent->flushed_tick[v];
}

bool intent_can_clear(const struct intent *intent, uint32_t slot, uint64_t done_seq) {
  const struct mark *mark = &intent->marks[slot];
  require(mark->used);
  if (mark->refs != 0 && !PLANTED(clear_in_flight)) return false;
  if (mark->commit_seq > done_seq) return false;
  if (mark->map_seq > done_seq && !PLANTED(clear_before_map)) return false;
  if (PLANTED(clear_by_older_flush)) return true;
  return mark->write_tick < flushed_tick_of(intent, mark);
}

bool intent_wants_flush(const struct intent *intent, uint32_t slot) {
  const struct mark *mark = &intent->marks[slot];
  require(mark->used);
  return mark->refs == 0 && mark->write_tick >= flushed_tick_of(intent, mark);
}

void intent_clear(struct intent *intent, uint32_t slot) {
  struct mark *mark = &intent->marks[slot];
  require(mark->used);
  uint32_t *link = bucket_of(intent, mark->region);
  while (*link != slot + 1) link = &intent->marks[*link - 1].chain;
  *link = mark->chain;
  list_remove(&mark->link);
  *mark = (struct mark){0};
  list_init(&mark->link);
  list_push(&intent->free, &mark->link);
  intent->used_count--;
  set_entry(intent, slot, 0);
}

void intent_flushed(struct intent *intent, uint32_t volume, uint64_t tick) {
  require(volume < intent->geometry->volume_count);
  require(tick <= intent->tick);
  intent->flushed_tick[volume] = max_u64(intent->flushed_tick[volume], tick);
}

void intent_load_sector(struct intent *intent, uint64_t sector, uint64_t sequence, const uint32_t *entries) {
  if (sector >= intent->loaded.bit_count) return; /* padding of the last block */
  if (bitmap_test(&intent->loaded, sector) && intent->loaded_sequence[sector] >= sequence) return;
  bitmap_set(&intent->loaded, sector);
  intent->loaded_sequence[sector] = sequence;
  uint32_t count = intent->geometry->sector.log_entries;
  memcpy(intent->entries + sector * count, entries, count * sizeof *entries);
}

bool intent_load_done(struct intent *intent, uint64_t commit_seq, uint64_t now_ns) {
  require(intent->used_count == 0);
  bool sound = bitmap_all_in(&intent->loaded, 0, intent->loaded.bit_count);
  uint32_t slots = intent->geometry->log_blocks * geometry_block_entries(intent->geometry);
  for (uint32_t slot = 0; slot < slots; slot++) {
    uint32_t entry = intent->entries[slot];
    intent->entries[slot] = 0;
    bool good = entry != 0 && slot < intent->geometry->mark_count && entry <= intent->geometry->region_count;
    /* A crash between two sectors of one commit can show a region in its old slot and in its new one. */
    if (!sound || !good || intent_find(intent, entry - 1) != INTENT_NONE) continue;
    struct mark *mark = mark_use(intent, slot, entry - 1, commit_seq);
    list_push(&intent->used, &mark->link);
    mark->used_ns = now_ns;
    mark->write_tick = intent_next_tick(intent); /* only a later flush clears it */
  }
  return sound;
}

void intent_check(const struct intent *intent) {
  uint32_t used = 0;
  for (const struct list *node = intent->used.next; node != &intent->used; node = node->next) {
    const struct mark *mark = LIST_ENTRY(node, const struct mark, link);
    uint32_t slot = (uint32_t)(mark - intent->marks);
    require(mark->used);
    require(intent->entries[slot] == mark->region + 1);
    require(intent_find(intent, mark->region) == slot);
    used++;
  }
  require(used == intent->used_count);
}
