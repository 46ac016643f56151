/* Crash argument for the record: a commit overwrites one slot, flushes, and only then touches the other, which was durable all
 * the time; so at every moment one slot is whole, and it is of the last record that anybody relied on, or of a later one.
 * Which slot may go first is known while this object lives. After a load it is the one that is damaged, or the newer one: a
 * commit that did not complete had begun with it, and the older one was durable then. When both are of one commit nobody knows which
 * was the second, and the process that wrote it may have been killed before its flush; or a flush since has failed, which is told
 * once, and the next one's success proves nothing. So one of them is written again, as it is, and flushed: if it was durable no torn write
 * changes it, and if it was not, the other was. */
#include "core/store.h"

#include "core/guard.h"

#include <string.h>

#include "base/plant.h"

static void store_step(struct store *store);
static void store_io_done(struct disk_io *io);

tarn_err store_init(struct store *store, struct arena *arena, struct disk *disk, uint32_t slot, void *owner) {
  *store = (struct store){.disk = disk, .slot = slot, .owner = owner, .record_err = TARN_NOT_FOUND};
  for (uint32_t i = 0; i < STORE_DEPTH; i++) {
    disk_io_init(&store->ios[i].io);
    store->ios[i].store = store;
    if (!buffer_new_private(&store->ios[i].buffer, arena, RECORD_SLOT_BYTES)) return TARN_FULL;
  }
  if (!buffer_new_private(&store->load_buffer, arena, STORE_LOAD_BYTES)) return TARN_FULL;
  return TARN_OK;
}

void store_attach(struct store *store, struct disk *disk) {
  require(!store->busy && store->in_flight == 0);
  store->disk = disk;
  store->record_err = TARN_NOT_FOUND;
  store->first_slot = 0;
  store->settled = store->twins = false;
}

/* A disk that hangs may still read what is in these buffers. */
static bool buffers_are_held(const struct store *store) {
  bool held = buffer_is_shared(&store->load_buffer);
  for (uint32_t i = 0; i < STORE_DEPTH; i++) held |= buffer_is_shared(&store->ios[i].buffer);
  return held;
}

static struct store_io *free_io(struct store *store) {
  for (uint32_t i = 0; i < STORE_DEPTH; i++)
    if (!store->ios[i].busy) return &store->ios[i];
  return NULL;
}

static void submit_at(struct store *store, struct store_io *sio, enum disk_op op, uint64_t offset, uint32_t bytes,
                      struct buffer *buffer, uint32_t at) {
  require(!sio->busy);
  sio->busy = true;
  store->in_flight++;
  struct disk_io *io = &sio->io;
  io->op = op;
  io->flags = 0;
  io->offset = offset;
  io->length = bytes;
  io->buffer = buffer;
  io->data = buffer ? buffer->base + at : NULL;
  io->done = store_io_done;
  if (op == DISK_WRITE) store->writes++;
  if (op == DISK_FLUSH) store->flushes++;
  disk_submit(store->disk, io);
}

static void submit(struct store *store, struct store_io *sio, enum disk_op op, uint64_t offset, uint32_t bytes,
                   struct buffer *buffer) {
  submit_at(store, sio, op, offset, bytes, buffer, 0);
}

static void begin(struct store *store, enum store_step step, store_done *done) {
  require(!store->busy && store->in_flight == 0);
  require(store->disk);
  store->busy = true;
  store->err = TARN_OK;
  store->done = done;
  store->step = step;
  memset(&store->cursor, 0, sizeof store->cursor);
}

static void finish(struct store *store) {
  require(store->in_flight == 0);
  store->busy = false;
  store->done(store, store->err);
}

/* ---- commit ---- */

static bool cursor_advance(struct store *store, const struct bitmap *blocks) {
  store->cursor.block = bitmap_next_set(blocks, store->cursor.block);
  if (store->cursor.block < blocks->bit_count) return true;
  store->cursor.block = 0;
  if (++store->cursor.copy < 2) return cursor_advance(store, blocks);
  store->cursor.copy = 0;
  return false;
}

/* Submits the next block of the plan; false when there is none left. */
static bool commit_next(struct store *store, struct store_io *sio) {
  const struct commit_plan *plan = store->plan;
  const struct geometry *geometry = plan->geometry;
  uint8_t *out = sio->buffer.base;
  if (store->cursor.area == CURSOR_RECORD) {
    store->cursor.area = store->slot == RECORD_SELF_HOME ? CURSOR_END : CURSOR_LOG;
    if (plan->record) {
      struct record record = *plan->record;
      record.self = (uint8_t)store->slot;
      record_encode(&record, out);
      submit(store, sio, DISK_WRITE, store->first_slot * RECORD_SLOT_BYTES, RECORD_SLOT_BYTES, &sio->buffer);
      return true;
    }
  }
  if (store->cursor.area == CURSOR_LOG) {
    if (!(PLANTED(mark_on_one_image) && store->slot != 0) && cursor_advance(store, &plan->log_blocks)) {
      uint64_t block = store->cursor.block++;
      meta_log_encode(geometry, plan->mirror_id, store->slot, block,
                      plan->intent->entries + block * geometry_block_entries(geometry), plan->sequence, out);
      submit(store, sio, DISK_WRITE, meta_log_offset(geometry, store->cursor.copy, block), META_BLOCK_BYTES,
             &sio->buffer);
      return true;
    }
    store->cursor.area = CURSOR_TOP;
  }
  while (store->cursor.area != CURSOR_END) {
    uint32_t s = store->cursor.slot;
    struct missed *map = plan->maps[s];
    bool top = store->cursor.area == CURSOR_TOP;
    if (map && cursor_advance(store, top ? &plan->top_blocks[s] : &plan->page_blocks[s])) {
      uint64_t block = store->cursor.block++;
      enum map_level level = top ? MAP_TOP : MAP_PAGE;
      const struct bitmap *bits = top ? &map->top : &map->missed;
      const struct map_name name = {plan->mirror_id, s, map->epoch};
      meta_map_encode(geometry, &name, level, block, bits->words, bits->bit_count, plan->sequence, out);
      submit(store, sio, DISK_WRITE, meta_map_offset(geometry, s, level, store->cursor.copy, block), META_BLOCK_BYTES,
             &sio->buffer);
      return true;
    }
    if (top) {
      store->cursor.area = CURSOR_PAGE;
    } else if (++store->cursor.slot == IMAGES_MAX) {
      store->cursor.area = CURSOR_END;
    } else {
      store->cursor.area = CURSOR_TOP;
    }
  }
  return false;
}

static void commit_slot_2(struct store *store) {
  struct record record = *store->plan->record;
  record.self = (uint8_t)store->slot;
  record_encode(&record, store->ios[0].buffer.base);
  submit(store, &store->ios[0], DISK_WRITE, store->first_slot * RECORD_SLOT_BYTES, RECORD_SLOT_BYTES,
         &store->ios[0].buffer);
}

/* Of the slot that the next commit does not begin with. */
static uint64_t kept_offset(const struct store *store) { return (store->first_slot ^ 1) * RECORD_SLOT_BYTES; }

static void settle(struct store *store) {
  if (store->twins) {
    store->step = STORE_AGAIN_READ;
    submit(store, &store->ios[0], DISK_READ, kept_offset(store), RECORD_SLOT_BYTES, &store->ios[0].buffer);
  } else {
    store->step = STORE_SETTLE;
    submit(store, &store->ios[0], DISK_FLUSH, 0, 0, NULL);
  }
}

static void commit_step(struct store *store) {
  if (store->step == STORE_BLOCKS) {
    for (struct store_io *sio = free_io(store); sio && store->err == TARN_OK; sio = free_io(store))
      if (!commit_next(store, sio)) break;
  }
  if (store->in_flight != 0) return;
  if (store->err != TARN_OK) {
    finish(store);
    return;
  }
  switch (store->step) {
    case STORE_AGAIN_READ:
      store->step = STORE_AGAIN_WRITE;
      submit(store, &store->ios[0], DISK_WRITE, kept_offset(store), RECORD_SLOT_BYTES, &store->ios[0].buffer);
      break;
    case STORE_AGAIN_WRITE:
      store->step = STORE_SETTLE;
      submit(store, &store->ios[0], DISK_FLUSH, 0, 0, NULL);
      break;
    case STORE_SETTLE:
      store->settled = true;
      store->step = STORE_BLOCKS;
      commit_step(store);
      break;
    case STORE_BLOCKS:
      store->step = STORE_FLUSH_1;
      submit(store, &store->ios[0], DISK_FLUSH, 0, 0, NULL);
      break;
    case STORE_FLUSH_1:
      if (store->plan->record) store->first_slot ^= 1; /* this one is durable: the other may go */
      if (!store->plan->record) {
        finish(store);
        break;
      }
      store->step = STORE_SLOT_2;
      commit_slot_2(store);
      break;
    case STORE_SLOT_2:
      store->step = STORE_FLUSH_2;
      submit(store, &store->ios[0], DISK_FLUSH, 0, 0, NULL);
      break;
    case STORE_FLUSH_2: finish(store); break;
    case STORE_LOAD_RECORD:
    case STORE_LOAD_LOG:
    case STORE_LOAD_TOPS:
    case STORE_LOAD_PAGES: require(store->step < STORE_LOAD_RECORD);
  }
}

void store_commit(struct store *store, const struct commit_plan *plan, store_done *done) {
  begin(store, STORE_BLOCKS, done);
  store->plan = plan;
  if (buffers_are_held(store)) {
    store->err = TARN_HUNG;
    finish(store);
    return;
  }
  if (store->settled) commit_step(store);
  else settle(store);
}

/* ---- load ---- */

#define UNREADABLE_BYTE 0xff /* nothing sound is made of these */

static void read_block(struct store *store) {
  submit_at(store, &store->ios[0], DISK_READ, store->load_offset + store->load_at, META_BLOCK_BYTES,
            &store->load_buffer, store->load_at);
}

/* A place that cannot be read is damage like any other: there is a second copy. So what cannot be read at once is read block by block.
 * True: another block is being read. Nothing of the record is an error still. */
static bool reads_on(struct store *store, tarn_err *err) {
  bool begins = !store->load_by_blocks && error_is_of_place(*err) && !PLANTED(one_copy_read);
  if (begins) {
    store->load_by_blocks = true;
    store->load_at = store->load_bad = 0;
  } else if (store->load_by_blocks && (*err == TARN_OK || error_is_of_place(*err))) {
    if (*err != TARN_OK) memset(store->load_buffer.base + store->load_at, UNREADABLE_BYTE, META_BLOCK_BYTES);
    store->load_bad += *err != TARN_OK;
    store->load_at += META_BLOCK_BYTES;
    bool nothing = store->load_bad * META_BLOCK_BYTES == store->load_bytes;
    *err = nothing && store->step == STORE_LOAD_RECORD ? TARN_IO : TARN_OK;
  }
  bool on = store->load_by_blocks && *err == TARN_OK && store->load_at < store->load_bytes;
  if (on || begins) read_block(store);
  return on || begins;
}

static void read_next(struct store *store, uint64_t offset, uint64_t bytes) {
  require(bytes <= STORE_LOAD_BYTES);
  store->load_offset = offset;
  store->load_bytes = (uint32_t)bytes;
  store->load_by_blocks = false;
  submit(store, &store->ios[0], DISK_READ, offset, (uint32_t)bytes, &store->load_buffer);
}

static void loaded_record(struct store *store) {
  struct record found[2];
  tarn_err errs[2];
  for (uint32_t slot = 0; slot < 2; slot++)
    errs[slot] = record_decode(&found[slot], store->load_buffer.base + slot * RECORD_SLOT_BYTES);
  bool both = errs[0] == TARN_OK && errs[1] == TARN_OK;
  uint32_t best = both ? found[1].sequence > found[0].sequence : errs[0] != TARN_OK;
  store->twins = both && found[0].sequence == found[1].sequence;
  store->first_slot = both && !store->twins ? best : !best;
  if (errs[best] == TARN_OK) store->record = found[best];
  store->slot_damaged = errs[best] == TARN_OK && errs[!best] == TARN_CORRUPT;
  store->record_err = errs[best] == TARN_NOT_FOUND ? errs[!best] : errs[best];
  if (store->record_err == TARN_OK && store->record.self != store->slot) store->record_err = TARN_CORRUPT;
}

void store_load_record(struct store *store, store_done *done) {
  begin(store, STORE_LOAD_RECORD, done);
  read_next(store, 0, RECORD_AREA_BYTES);
}

static void loaded_log(struct store *store, uint64_t first_block, uint64_t blocks) {
  for (uint64_t i = 0; i < blocks * META_SECTORS_PER_BLOCK; i++) {
    uint64_t sector = first_block * META_SECTORS_PER_BLOCK + i;
    uint32_t entries[LOG_ENTRIES_PER_SECTOR];
    const uint8_t *in = store->load_buffer.base + i * SECTOR_BYTES;
    if (meta_log_decode_sector(store->plan->geometry, store->plan->mirror_id, store->slot, sector, in, entries) !=
        TARN_OK)
      continue;
    intent_load_sector(store->intent, sector, sector_sequence(in), entries);
  }
}

static void loaded_map(struct store *store, enum map_level level, uint64_t first_block, uint64_t blocks) {
  for (uint64_t i = 0; i < blocks * META_SECTORS_PER_BLOCK; i++)
    missed_load_sector(store->plan->maps[store->cursor.slot], store->plan->mirror_id, level,
                       first_block * META_SECTORS_PER_BLOCK + i, store->load_buffer.base + i * SECTOR_BYTES);
}

/* The next page block with a sector that the top names; page_blocks if there is none. */
static uint64_t next_page_block(const struct missed *map, uint64_t block) {
  uint64_t sector = bitmap_next_set(&map->top, block * META_SECTORS_PER_BLOCK);
  return sector < map->top.bit_count ? sector / META_SECTORS_PER_BLOCK : map->geometry->page_blocks;
}

#define LOAD_BLOCKS (STORE_LOAD_BYTES / META_BLOCK_BYTES)

/* How many page blocks from this one on can be read together. */
static uint64_t page_run(const struct missed *map, uint64_t block) {
  uint64_t blocks = 1;
  while (blocks < LOAD_BLOCKS && next_page_block(map, block + blocks) == block + blocks &&
         block + blocks < map->geometry->page_blocks)
    blocks++;
  return blocks;
}

/* Submits the next read at the cursor; false when this store has nothing more to read in this step. */
static bool load_next(struct store *store) {
  const struct commit_plan *plan = store->plan;
  const struct geometry *geometry = plan->geometry;
  if (store->step == STORE_LOAD_LOG) {
    if (store->cursor.block == geometry->log_blocks) {
      store->cursor.block = 0;
      store->cursor.copy++;
    }
    if (store->cursor.copy == 2) return false;
    uint64_t blocks = min_u64(LOAD_BLOCKS, geometry->log_blocks - store->cursor.block);
    read_next(store, meta_log_offset(geometry, store->cursor.copy, store->cursor.block), blocks * META_BLOCK_BYTES);
    return true;
  }
  bool tops = store->step == STORE_LOAD_TOPS;
  enum map_level level = tops ? MAP_TOP : MAP_PAGE;
  uint64_t count = tops ? geometry->top_blocks : geometry->page_blocks;
  for (; store->cursor.slot < IMAGES_MAX; store->cursor.slot++, store->cursor.copy = 0) {
    struct missed *map = plan->maps[store->cursor.slot];
    for (; map && store->cursor.copy < 2; store->cursor.copy++, store->cursor.block = 0) {
      if (!tops) store->cursor.block = next_page_block(map, store->cursor.block);
      if (store->cursor.block >= count) continue;
      uint64_t blocks = tops ? min_u64(LOAD_BLOCKS, count - store->cursor.block) : page_run(map, store->cursor.block);
      read_next(store, meta_map_offset(geometry, store->cursor.slot, level, store->cursor.copy, store->cursor.block),
                blocks * META_BLOCK_BYTES);
      return true;
    }
  }
  return false;
}

static void load_step(struct store *store) {
  require(store->in_flight == 0);
  if (store->err != TARN_OK) {
    finish(store);
    return;
  }
  if (store->step == STORE_LOAD_RECORD) {
    loaded_record(store);
    finish(store);
    return;
  }
  if (!load_next(store)) finish(store);
}

static void loaded_rest(struct store *store) {
  uint64_t blocks = store->load_bytes / META_BLOCK_BYTES;
  if (store->step == STORE_LOAD_LOG) loaded_log(store, store->cursor.block, blocks);
  if (store->step == STORE_LOAD_TOPS) loaded_map(store, MAP_TOP, store->cursor.block, blocks);
  if (store->step == STORE_LOAD_PAGES) loaded_map(store, MAP_PAGE, store->cursor.block, blocks);
  store->cursor.block += blocks;
}

void store_load(struct store *store, enum store_step step, const struct commit_plan *plan, struct intent *intent,
                store_done *done) {
  require(step == STORE_LOAD_LOG || step == STORE_LOAD_TOPS || step == STORE_LOAD_PAGES);
  begin(store, step, done);
  store->plan = plan;
  store->intent = intent;
  load_step(store);
}

static bool is_load(const struct store *store) { return store->step >= STORE_LOAD_RECORD; }

static void store_step(struct store *store) {
  if (is_load(store)) {
    load_step(store);
  } else {
    commit_step(store);
  }
}

static void store_io_done(struct disk_io *io) {
  struct store_io *sio = CONTAINER_OF(io, struct store_io, io);
  struct store *store = sio->store;
  require(sio->busy && store->in_flight > 0);
  sio->busy = false;
  store->in_flight--;
  tarn_err err = io->err;
  if (store->step == STORE_AGAIN_READ && error_is_of_place(err)) { /* damage: then that one goes first */
    err = TARN_OK;
    store->first_slot ^= 1;
    store->step = STORE_AGAIN_WRITE;
  }
  if (is_load(store) && reads_on(store, &err)) return;
  if (err != TARN_OK && store->err == TARN_OK) store->err = err;
  if (store->err == TARN_OK && is_load(store) && store->step != STORE_LOAD_RECORD) loaded_rest(store);
  store_step(store);
}
