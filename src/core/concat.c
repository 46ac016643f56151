/* concat.c - see concat.h.
 *
 * Two kinds of places, each with a line of its own. A slot has one piece: for what lies in one part, which is nearly everything.
 * A fan has one for each part: for what crosses, and for flushes. An I/O is answered, and its place free, when no piece is
 * pending; nothing is remembered of the others but an error.
 *
 * Power lost: there is no state on disk. A write that crosses may be there in one part and not in the other, as any write may
 * be there in part (disk.h). */
#include "core/concat.h"

struct piece {
  struct place *place;
  bool pending;
  struct disk_io io;
};

struct place {
  struct list link; /* in its line's `free` */
  struct line *line;
  struct disk_io *upper;
  uint32_t pending;
  tarn_err err;
  struct piece *pieces;
};

struct line {
  struct concat *concat;
  struct place *places;
  struct list free;     /* struct place; none, or else nobody waits */
  struct list waiting;  /* struct disk_io */
  struct disk_io *last; /* begun last: not answered yet as long as anybody waits */
};

struct concat {
  struct disk disk;
  struct arena arena; /* that it lives in itself */
  uint32_t part_count;
  struct concat_part parts[CONCAT_PARTS_MAX];
  uint64_t starts[CONCAT_PARTS_MAX]; /* of each part, in the concat */
  uint32_t below_count;
  struct disk *below[CONCAT_PARTS_MAX];      /* the disks of the parts, each once, */
  struct disk_user *users[CONCAT_PARTS_MAX]; /* and who we are there */
  struct line slots, fans;
  uint32_t fuas_failing; /* with a part that has failed, and another one that has not answered */
  void (*closed)(void *owner);
  void *owner;
};

static struct concat *concat_of(const struct disk *disk) {
  return CONTAINER_OF((struct disk *)disk, struct concat, disk);
}

/* ---- where an I/O goes ---- */

static uint32_t part_at(const struct concat *concat, uint64_t offset) {
  uint32_t index = 0;
  while (index + 1 < concat->part_count && concat->starts[index + 1] <= offset) index++;
  return index;
}

static bool crosses(const struct concat *concat, const struct disk_io *io) {
  if (io->op == DISK_FLUSH) return concat->below_count > 1;
  if (io->op == DISK_EXTENTS) return false;
  uint32_t index = part_at(concat, io->offset);
  return io->offset + io->length > concat->starts[index] + concat->parts[index].length;
}

/* The piece of `upper` that begins at `offset` and lies in one part. */
static void piece_prepare(const struct concat *concat, const struct disk_io *upper, uint64_t offset,
                          struct disk_io *piece, struct disk **below) {
  uint32_t index = part_at(concat, offset);
  const struct concat_part *part = &concat->parts[index];
  uint64_t inside = offset - concat->starts[index];
  disk_io_same(piece, upper);
  piece->offset = part->offset + inside;
  piece->length = min_u64(upper->offset + upper->length - offset, part->length - inside);
  if (upper->op == DISK_READ || upper->op == DISK_WRITE) piece->data = upper->data + (offset - upper->offset);
  piece->user = part->user;
  *below = part->disk;
}

/* ---- the path of an I/O ---- */

/* A part that cannot tell: all that lies in it is data. */
static bool is_untold(const struct concat *concat, struct disk_io *upper) {
  if (upper->op != DISK_EXTENTS) return false;
  struct disk_io piece;
  struct disk *below;
  piece_prepare(concat, upper, upper->offset, &piece, &below);
  if (below->caps.can_extents) return false;
  bool added = disk_extents_add(upper, piece.length, 0);
  require(added);
  return true;
}

/* Those that wait depend on the one that was begun last, which may itself stand in a line further down: they are as young as that. */
static void line_moves(struct line *line, struct disk_io *last) {
  line->last = last;
  LIST_EACH(&line->waiting, node) LIST_ENTRY(node, struct disk_io, link)->under = last;
}

static void place_submit(struct place *place, struct disk_io *upper) {
  struct concat *concat = place->line->concat;
  struct disk *below[CONCAT_PARTS_MAX];
  uint32_t count = 0;
  place->upper = upper;
  place->err = TARN_OK;
  if (upper->op == DISK_FLUSH) {
    for (; count < concat->below_count; count++) {
      disk_io_same(&place->pieces[count].io, upper);
      place->pieces[count].io.user = concat->users[count];
      below[count] = concat->below[count];
    }
  } else {
    for (uint64_t at = upper->offset; at < upper->offset + upper->length && (count == 0 || upper->op != DISK_EXTENTS);
         count++) {
      piece_prepare(concat, upper, at, &place->pieces[count].io, &below[count]);
      at += place->pieces[count].io.length;
    }
  }
  place->pending = count;
  upper->under = &place->pieces[0].io;
  line_moves(place->line, upper);
  for (uint32_t i = 0; i < count; i++) {
    place->pieces[i].pending = true;
    disk_submit(below[i], &place->pieces[i].io);
  }
}

/* The I/O goes on with this piece as the one that it depends on. */
static void piece_watch(struct place *place) {
  struct piece *piece = place->pieces;
  while (!piece->pending) piece++;
  place->upper->under = &piece->io;
}

static bool is_fua(const struct disk_io *io) { return io->op != DISK_FLUSH && io->flags & DISK_FUA; }

/* A FUA that fails may be told what a flush was to be told (guard.h), and it is heard of only when all its parts have answered: until
 * then no flush is good. Those that are under way at that moment are the guard's affair. */
static tarn_err place_end(struct place *place) {
  struct concat *concat = place->line->concat;
  tarn_err err = place->err;
  if (err != TARN_OK && is_fua(place->upper)) concat->fuas_failing--;
  if (err == TARN_OK && place->upper->op == DISK_FLUSH && concat->fuas_failing > 0) err = TARN_IO;
  return err;
}

static void piece_done(struct disk_io *io) {
  struct piece *piece = CONTAINER_OF(io, struct piece, io);
  struct place *place = piece->place;
  struct line *line = place->line;
  struct disk_io *upper = place->upper;
  require(place->pending > 0);
  if (io->err != TARN_OK && place->err == TARN_OK && is_fua(upper)) line->concat->fuas_failing++;
  if (io->err != TARN_OK && (place->err == TARN_OK || io->err == TARN_GONE)) place->err = io->err;
  if (line == &line->concat->slots) { /* the whole of it: also what came back otherwise than it went */
    disk_io_pass_back(upper, io);
  } else require(upper->op == DISK_FLUSH || io->buffer == upper->buffer);
  piece->pending = false;
  if (--place->pending > 0) {
    piece_watch(place);
    return;
  }
  tarn_err err = place_end(place);
  struct list *next = list_pop(&line->waiting);
  if (next) place_submit(place, LIST_ENTRY(next, struct disk_io, link));
  else list_push_front(&line->free, &place->link);
  disk_complete_now(upper, err); /* the last thing: its owner may do what it likes with the concat */
}

static void concat_submit(struct disk *disk, struct disk_io *upper) {
  struct concat *concat = concat_of(disk);
  if (is_untold(concat, upper)) {
    disk_complete(upper, TARN_OK);
    return;
  }
  struct line *line = crosses(concat, upper) ? &concat->fans : &concat->slots;
  struct list *free = list_pop(&line->free);
  if (free) {
    place_submit(LIST_ENTRY(free, struct place, link), upper);
    return;
  }
  upper->under = line->last;
  list_push(&line->waiting, &upper->link);
}

/* ---- its life ---- */

static void concat_close(struct disk *disk) {
  struct concat *concat = concat_of(disk);
  struct arena arena = concat->arena;
  if (concat->closed) concat->closed(concat->owner);
  arena_destroy(&arena);
}

static bool concat_is_lost(struct disk *disk) {
  struct concat *concat = concat_of(disk);
  bool lost = false;
  for (uint32_t i = 0; i < concat->below_count; i++) lost |= disk_is_lost(concat->below[i]);
  return lost;
}

static const struct disk_ops concat_ops = {
    .kind = "concat", .submit = concat_submit, .close = concat_close, .is_lost = concat_is_lost};

bool disk_is_concat(const struct disk *disk) { return disk->ops == &concat_ops; }
void *concat_owner(const struct disk *disk) { return concat_of(disk)->owner; }

static bool line_init(struct concat *concat, struct line *line, uint32_t count, uint32_t width) {
  list_init(&line->free);
  list_init(&line->waiting);
  line->concat = concat;
  line->places = ARENA_NEW(&concat->arena, struct place, count);
  struct piece *pieces = ARENA_NEW(&concat->arena, struct piece, count * width);
  if (!line->places || !pieces) return false;
  for (uint32_t i = 0; i < count; i++) {
    struct place *place = &line->places[i];
    *place = (struct place){.line = line, .pieces = pieces + (size_t)i * width};
    list_init(&place->link);
    list_push(&line->free, &place->link);
    for (uint32_t j = 0; j < width; j++) {
      place->pieces[j].place = place;
      disk_io_init(&place->pieces[j].io);
      place->pieces[j].io.done = piece_done;
    }
  }
  return true;
}

static void caps_join(struct disk_caps *all, const struct disk_caps *one) {
  all->block_bytes = (uint32_t)max_u64(all->block_bytes, one->block_bytes);
  all->align_bytes = (uint32_t)max_u64(all->align_bytes, one->align_bytes);
  all->io_bytes_max = (uint32_t)min_u64(all->io_bytes_max, one->io_bytes_max);
  all->read_only = all->read_only || one->read_only;
  all->can_extents = all->can_extents || one->can_extents;
  all->volatile_cache = all->volatile_cache || one->volatile_cache;
  all->rotational = all->rotational || one->rotational;
  all->tells_losses = all->tells_losses && one->tells_losses;
  all->can_zero = all->can_zero && one->can_zero;
  all->can_trim = all->can_trim && one->can_trim;
  if (!one->can_zero && !one->can_trim) return;
  all->zero_block_bytes = (uint32_t)max_u64(all->zero_block_bytes, one->zero_block_bytes);
  all->zero_bytes_max = min_u64(all->zero_bytes_max, one->zero_bytes_max);
}

static tarn_err add_part(struct concat *concat, const struct concat_part *part, bool last, const char **wrong) {
  const struct disk_caps *caps = &part->disk->caps;
  bool known = false;
  require(part->length > 0);
  require(part->disk->env == concat->disk.env);
  *wrong = "a part ends behind the end of its disk";
  if (part->offset > caps->size_bytes || part->length > caps->size_bytes - part->offset) return TARN_INVALID;
  *wrong = "the offset of a part, or the length of one that is not the last, is no multiple of 4096";
  if (part->offset % CONCAT_ALIGN != 0 || (!last && part->length % CONCAT_ALIGN != 0)) return TARN_INVALID;
  concat->starts[concat->part_count] = concat->disk.caps.size_bytes;
  concat->parts[concat->part_count++] = *part;
  concat->disk.caps.size_bytes += part->length;
  for (uint32_t i = 0; i < concat->below_count; i++) known = known || concat->below[i] == part->disk;
  if (!known) {
    concat->users[concat->below_count] = part->user;
    concat->below[concat->below_count++] = part->disk;
  }
  caps_join(&concat->disk.caps, caps);
  return TARN_OK;
}

/* Lets the end be where the user wants it, and makes the limits what disk.h asks for. */
static tarn_err caps_finish(struct disk_caps *caps, uint64_t size_bytes, const char **wrong) {
  *wrong = "its parts are too small together";
  if (size_bytes > caps->size_bytes) return TARN_INVALID;
  if (size_bytes > 0) caps->size_bytes = size_bytes;
  *wrong = "its size is not a multiple of the block size";
  if (caps->size_bytes % caps->block_bytes != 0) return TARN_INVALID;
  caps->io_bytes_max = (uint32_t)align_down(caps->io_bytes_max, caps->block_bytes);
  caps->zero_bytes_max = align_down(caps->zero_bytes_max, caps->zero_block_bytes);
  if (caps->zero_bytes_max == 0) caps->can_zero = caps->can_trim = false;
  *wrong = "its parts cannot do I/Os of the same size";
  return caps->io_bytes_max > 0 ? TARN_OK : TARN_INVALID;
}

tarn_err concat_new(const struct concat_options *options, struct disk **disk, const char **wrong) {
  require(options->part_count >= 1 && options->part_count <= CONCAT_PARTS_MAX);
  require(options->slots > 0);
  struct arena arena;
  arena_init(&arena);
  *disk = NULL;
  *wrong = "there is not enough memory";
  struct concat *concat = ARENA_NEW(&arena, struct concat, 1);
  if (!concat) return TARN_FULL;
  *concat = (struct concat){.disk = {.ops = &concat_ops,
                                     .env = options->env,
                                     .caps = {.block_bytes = 1,
                                              .align_bytes = 1,
                                              .io_bytes_max = BUFFER_DATA_MAX,
                                              .zero_block_bytes = 1,
                                              .zero_bytes_max = UINT64_MAX,
                                              .can_zero = true,
                                              .can_trim = true,
                                              .tells_losses = true}},
                            .arena = arena,
                            .closed = options->closed,
                            .owner = options->owner};
  tarn_err err = line_init(concat, &concat->slots, options->slots, 1) &&
                         line_init(concat, &concat->fans, CONCAT_FANS, options->part_count)
                     ? TARN_OK
                     : TARN_FULL;
  for (uint32_t i = 0; i < options->part_count && err == TARN_OK; i++)
    err = add_part(concat, &options->parts[i], i + 1 == options->part_count, wrong);
  if (err == TARN_OK) err = caps_finish(&concat->disk.caps, options->size_bytes, wrong);
  if (err == TARN_OK) {
    arena_freeze(&concat->arena);
    *disk = &concat->disk;
  } else {
    arena = concat->arena;
    arena_destroy(&arena);
  }
  return err;
}
