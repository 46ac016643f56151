/* A disk made of parts: where each byte goes, what is passed on and how it is joined again, and what is refused. */
#include <stdlib.h>

#include "base/prng.h"
#include "core/concat.h"
#include "held_disk.h"
#include "unit.h"

#define KIB 1024u

/* ---- a disk of memory, which answers at once ---- */

struct ram_disk {
  struct disk disk;
  uint8_t bytes[64 * KIB];
};
static void ram_submit(struct disk *disk, struct disk_io *io) {
  struct ram_disk *ram = CONTAINER_OF(disk, struct ram_disk, disk);
  if (io->op == DISK_READ) memcpy(io->data, ram->bytes + io->offset, io->length);
  else if (io->op == DISK_WRITE) memcpy(ram->bytes + io->offset, io->data, io->length);
  else if (io->op != DISK_FLUSH) memset(ram->bytes + io->offset, 0, io->length);
  disk_complete(io, TARN_OK);
}
static void ram_init(struct ram_disk *ram, struct env *env) {
  static const struct disk_ops ops = {.kind = "ram", .submit = ram_submit, .close = held_disk_close};
  memset(ram->bytes, 0, sizeof ram->bytes);
  ram->disk = (struct disk){.ops = &ops,
                            .env = env,
                            .caps = {.size_bytes = sizeof ram->bytes,
                                     .block_bytes = 1,
                                     .align_bytes = 1,
                                     .io_bytes_max = BUFFER_DATA_MAX,
                                     .zero_block_bytes = 1,
                                     .zero_bytes_max = 1 << 20,
                                     .can_zero = true,
                                     .can_trim = true}};
}

/* ---- a submitter ---- */

struct one {
  struct disk_io io;
  bool done;
};
static void one_done(struct disk_io *io) { CONTAINER_OF(io, struct one, io)->done = true; }
static void submit(struct disk *disk, struct one *one, enum disk_op op, uint64_t offset, uint64_t length,
                   struct buffer *buffer) {
  *one = (struct one){.done = false};
  disk_io_init(&one->io);
  one->io.op = op;
  one->io.offset = offset;
  one->io.length = length;
  one->io.done = one_done;
  if (op == DISK_READ || op == DISK_WRITE || op == DISK_EXTENTS) {
    one->io.buffer = buffer;
    one->io.data = op == DISK_EXTENTS ? buffer->base : buffer->base + offset % BUFFER_ALIGN;
  }
  disk_submit(disk, &one->io);
}

struct fixture {
  struct env env;
  struct arena arena;
  struct buffer_pool pool;
  struct buffer *buffer;
};
static void fixture_init(struct fixture *fixture) {
  env_init(&fixture->env);
  arena_init(&fixture->arena);
  assert_int_equal(buffer_pool_init(&fixture->pool, &fixture->env, &fixture->arena, 4 << 20), TARN_OK);
  fixture->buffer = buffer_get(&fixture->pool, BUFFER_DATA_MAX);
}
static void fixture_free(struct fixture *fixture) {
  buffer_unref(fixture->buffer);
  assert_true(buffer_pool_is_whole(&fixture->pool));
  arena_destroy(&fixture->arena);
}

static struct disk *concat(struct fixture *fixture, const struct concat_part *parts, uint32_t count, uint64_t size,
                           uint32_t slots) {
  struct disk *disk;
  const char *wrong;
  struct concat_options options = {
      .env = &fixture->env, .parts = parts, .part_count = count, .size_bytes = size, .slots = slots};
  assert_int_equal(concat_new(&options, &disk, &wrong), TARN_OK);
  return disk;
}

/* ---- bytes ---- */

/* Random I/Os of all kinds against a model that is one array; then each part holds its share, and nothing outside it. */
static void random_load(void **state) {
  (void)state;
  static struct ram_disk a, b;
  static uint8_t model[32 * KIB], outside[64 * KIB];
  struct fixture fixture;
  fixture_init(&fixture);
  ram_init(&a, &fixture.env);
  ram_init(&b, &fixture.env);
  memset(a.bytes, 0xee, sizeof a.bytes);
  memset(b.bytes, 0xee, sizeof b.bytes);
  memset(outside, 0xee, sizeof outside);
  const struct concat_part parts[] = {
      {&a.disk, 8 * KIB, 4 * KIB, NULL}, {&b.disk, 0, 16 * KIB, NULL}, {&a.disk, 32 * KIB, 12 * KIB, NULL}};
  struct disk *disk = concat(&fixture, parts, 3, 0, 4);
  assert_int_equal(disk->caps.size_bytes, sizeof model);
  memset(model, 0xee, sizeof model);
  struct prng prng;
  prng_seed(&prng, 7);
  uint32_t crossed = 0;
  for (uint32_t round = 0; round < 20000; round++) {
    uint64_t offset = prng_below(&prng, sizeof model), length = 1 + prng_below(&prng, sizeof model - offset);
    static const enum disk_op ops[] = {DISK_READ, DISK_WRITE, DISK_WRITE_ZEROES, DISK_TRIM, DISK_FLUSH};
    enum disk_op op = ops[prng_below(&prng, COUNT_OF(ops))];
    struct one one;
    crossed += offset < 4 * KIB && offset + length > 20 * KIB;
    uint8_t *data = fixture.buffer->base + offset % BUFFER_ALIGN;
    for (uint64_t i = 0; i < length && op == DISK_WRITE; i++) data[i] = model[offset + i] = (uint8_t)prng_next(&prng);
    if (op == DISK_TRIM || op == DISK_WRITE_ZEROES) memset(model + offset, 0, length);
    submit(disk, &one, op, offset, length, fixture.buffer);
    run_events(&fixture.env);
    assert_true(one.done);
    assert_int_equal(one.io.err, TARN_OK);
    if (op == DISK_READ) assert_memory_equal(data, model + offset, length);
  }
  assert_true(crossed > 500); /* all three parts in one I/O */
  assert_memory_equal(a.bytes, outside, 8 * KIB);
  assert_memory_equal(a.bytes + 8 * KIB, model, 4 * KIB);
  assert_memory_equal(b.bytes, model + 4 * KIB, 16 * KIB);
  assert_memory_equal(a.bytes + 12 * KIB, outside, 20 * KIB);
  assert_memory_equal(a.bytes + 32 * KIB, model + 20 * KIB, 12 * KIB);
  assert_memory_equal(b.bytes + 16 * KIB, outside, 48 * KIB);
  disk_close(disk);
  fixture_free(&fixture);
}

/* ---- pieces ---- */

static const struct concat_part *two_parts(struct held_disk *a, struct held_disk *b) {
  static struct concat_part parts[2];
  parts[0] = (struct concat_part){&a->disk, 0, 64 * KIB, NULL};
  parts[1] = (struct concat_part){&b->disk, 128 * KIB, 64 * KIB, NULL};
  return parts;
}

static void errors(void **state) {
  (void)state;
  static const struct {
    const char *why;
    tarn_err first, second, all;
    uint32_t order; /* which answers first */
  } rows[] = {
      {"both did it", TARN_OK, TARN_OK, TARN_OK, 0},
      {"one failed", TARN_OK, TARN_IO, TARN_IO, 0},
      {"the other failed", TARN_NO_SPACE, TARN_OK, TARN_NO_SPACE, 1},
      {"the first error that is heard counts", TARN_NO_SPACE, TARN_IO, TARN_IO, 1},
      {"but a lost disk is what must be known", TARN_IO, TARN_GONE, TARN_GONE, 0},
      {"in any order", TARN_IO, TARN_GONE, TARN_GONE, 1},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct fixture fixture;
    struct held_disk a, b;
    struct one one;
    fixture_init(&fixture);
    held_disk_init(&a, &fixture.env);
    held_disk_init(&b, &fixture.env);
    struct disk *disk = concat(&fixture, two_parts(&a, &b), 2, 0, 4);
    submit(disk, &one, DISK_WRITE, 60 * KIB, 8 * KIB, fixture.buffer);
    row_true(rows[i].why, a.count == 1 && b.count == 1);
    row_true(rows[i].why, held_disk_io(&a, 0)->offset == 60 * KIB && held_disk_io(&a, 0)->length == 4 * KIB);
    row_true(rows[i].why, held_disk_io(&b, 0)->offset == 128 * KIB && held_disk_io(&b, 0)->length == 4 * KIB);
    row_true(rows[i].why, held_disk_io(&b, 0)->data == one.io.data + 4 * KIB);
    held_disk_answer(rows[i].order ? &b : &a, 0, rows[i].order ? rows[i].second : rows[i].first);
    run_events(&fixture.env);
    row_true(rows[i].why, !one.done); /* not before all of it is answered */
    held_disk_answer(rows[i].order ? &a : &b, 0, rows[i].order ? rows[i].first : rows[i].second);
    run_events(&fixture.env);
    row_true(rows[i].why, one.done);
    row_true(rows[i].why, one.io.err == rows[i].all);
    disk_close(disk);
    fixture_free(&fixture);
  }
}

static void flush_goes_to_each_disk_once(void **state) {
  (void)state;
  struct fixture fixture;
  struct held_disk a, b;
  struct one one;
  fixture_init(&fixture);
  held_disk_init(&a, &fixture.env);
  held_disk_init(&b, &fixture.env);
  const struct concat_part parts[] = {
      {&a.disk, 0, 4 * KIB, NULL}, {&b.disk, 0, 4 * KIB, NULL}, {&a.disk, 8 * KIB, 4 * KIB, NULL}};
  struct disk *disk = concat(&fixture, parts, 3, 0, 4);
  submit(disk, &one, DISK_FLUSH, 0, 0, NULL);
  assert_int_equal(a.count, 1);
  assert_int_equal(b.count, 1);
  held_disk_answer(&a, 0, TARN_OK);
  run_events(&fixture.env);
  assert_false(one.done);
  held_disk_answer(&b, 0, TARN_IO);
  run_events(&fixture.env);
  assert_true(one.done);
  assert_int_equal(one.io.err, TARN_IO);
  disk_close(disk);
  fixture_free(&fixture);
}

/* Rule 6: one part of a FUA has failed, and may have been told what a flush was to be told; the other part still has to answer, and until
 * then the guard knows nothing of it. */
static void a_fua_that_will_fail_spoils_flushes(void **state) {
  (void)state;
  static struct one fua, before, between, after;
  struct fixture fixture;
  struct held_disk a, b;
  fixture_init(&fixture);
  held_disk_init(&a, &fixture.env);
  held_disk_init(&b, &fixture.env);
  struct disk *disk = concat(&fixture, two_parts(&a, &b), 2, 0, 4);
  fua = (struct one){.io = {.op = DISK_WRITE, .flags = DISK_FUA, .offset = 60 * KIB, .length = 8 * KIB}};
  disk_io_init(&fua.io);
  fua.io.buffer = fixture.buffer;
  fua.io.data = fixture.buffer->base;
  fua.io.done = one_done;
  disk_submit(disk, &fua.io);
  submit(disk, &before, DISK_FLUSH, 0, 0, NULL);
  held_disk_answer(&b, 0, TARN_IO);
  run_events(&fixture.env);
  submit(disk, &between, DISK_FLUSH, 0, 0, NULL);
  for (int i = 0; i < 2; i++) {
    held_disk_answer(&a, 1, TARN_OK);
    held_disk_answer(&b, 0, TARN_OK);
    run_events(&fixture.env);
  }
  assert_true(before.done && between.done && !fua.done);
  assert_int_equal(before.io.err, TARN_IO);
  assert_int_equal(between.io.err, TARN_IO);
  held_disk_answer(&a, 0, TARN_OK);
  run_events(&fixture.env);
  assert_true(fua.done);
  assert_int_equal(fua.io.err, TARN_IO);
  submit(disk, &after, DISK_FLUSH, 0, 0, NULL); /* whether that counts is the guard's affair */
  held_disk_answer(&a, 0, TARN_OK);
  held_disk_answer(&b, 0, TARN_OK);
  run_events(&fixture.env);
  assert_true(after.done && after.io.err == TARN_OK);
  disk_close(disk);
  fixture_free(&fixture);
}

static void a_part_that_hangs_keeps_only_its_own(void **state) {
  (void)state;
  static struct one ones[40];
  struct fixture fixture;
  struct held_disk a, b;
  fixture_init(&fixture);
  held_disk_init(&a, &fixture.env);
  held_disk_init(&b, &fixture.env);
  struct disk *disk = concat(&fixture, two_parts(&a, &b), 2, 0, 32);
  for (uint32_t i = 0; i < 12; i++) submit(disk, &ones[i], DISK_WRITE, 60 * KIB, 8 * KIB, fixture.buffer);
  for (uint32_t i = 12; i < 20; i++) submit(disk, &ones[i], DISK_WRITE, 0, 4 * KIB, fixture.buffer);
  for (uint32_t i = 20; i < 40; i++) submit(disk, &ones[i], DISK_WRITE, 64 * KIB, 4 * KIB, fixture.buffer);
  assert_int_equal(a.submitted, CONCAT_FANS + 8); /* those that cross are bounded */
  while (b.count > 0) held_disk_answer(&b, 0, TARN_OK);
  run_events(&fixture.env);
  for (uint32_t i = 20; i < 40; i++) assert_true(ones[i].done); /* the other part goes on */
  for (uint32_t i = 0; i < 20; i++) assert_false(ones[i].done);
  while (a.count > 0 || b.count > 0) {
    if (a.count > 0) held_disk_answer(&a, 0, TARN_OK);
    if (b.count > 0) held_disk_answer(&b, 0, TARN_OK);
    run_events(&fixture.env);
  }
  for (uint32_t i = 0; i < 40; i++) assert_true(ones[i].done);
  disk_close(disk);
  fixture_free(&fixture);
}

static void who_waits_gets_its_turn(void **state) {
  (void)state;
  static struct one ones[9];
  struct fixture fixture;
  struct held_disk a, b;
  fixture_init(&fixture);
  held_disk_init(&a, &fixture.env);
  held_disk_init(&b, &fixture.env);
  struct disk *disk = concat(&fixture, two_parts(&a, &b), 2, 0, 2);
  for (uint32_t i = 0; i < 9; i++) submit(disk, &ones[i], DISK_READ, i * 4096, 4096, fixture.buffer);
  for (uint32_t i = 0; i < 9; i++) {
    assert_int_equal(a.count, i == 8 ? 1 : 2);
    assert_int_equal(held_disk_io(&a, 0)->offset, i * 4096);
    held_disk_answer(&a, 0, TARN_OK);
    run_events(&fixture.env);
    assert_true(ones[i].done);
  }
  disk_close(disk);
  fixture_free(&fixture);
}

/* Whose turn has not come stands where the one stands that was begun last: in a line further down, or with the disk. The guard would
 * take it for a hang otherwise, as long as no turn ends. */
static void who_waits_is_as_young_as_the_last(void **state) {
  (void)state;
  static struct one ones[4];
  struct fixture fixture;
  struct held_disk a, b;
  uint64_t moved = 0;
  fixture_init(&fixture);
  held_disk_init(&a, &fixture.env);
  held_disk_init(&b, &fixture.env);
  struct disk *disk = concat(&fixture, two_parts(&a, &b), 2, 0, 2);
  for (uint32_t i = 0; i < 4; i++) submit(disk, &ones[i], DISK_READ, i * 4096, 4096, fixture.buffer);
  disk_io_set_line(held_disk_io(&a, 1), &moved);
  assert_null(disk_io_line(&ones[0].io));
  for (uint32_t i = 1; i < 4; i++) assert_ptr_equal(disk_io_line(&ones[i].io), &moved);
  held_disk_answer(&a, 0, TARN_OK);
  run_events(&fixture.env);
  assert_ptr_equal(ones[3].io.under, &ones[2].io); /* which the disk has now */
  assert_null(disk_io_line(&ones[3].io));
  for (uint32_t i = 1; i < 4; i++) {
    held_disk_answer(&a, 0, TARN_OK);
    run_events(&fixture.env);
    assert_true(ones[i].done);
  }
  disk_close(disk);
  fixture_free(&fixture);
}

/* ---- extents ---- */

static void extents(void **state) {
  (void)state;
  struct fixture fixture;
  struct held_disk a, b;
  struct one one;
  fixture_init(&fixture);
  held_disk_init(&a, &fixture.env);
  held_disk_init(&b, &fixture.env);
  a.disk.caps.can_extents = false;
  b.disk.caps.can_extents = true;
  struct disk *disk = concat(&fixture, two_parts(&a, &b), 2, 0, 4);
  assert_true(disk->caps.can_extents);

  submit(disk, &one, DISK_EXTENTS, 10, 100 * KIB,
         fixture.buffer); /* a part that cannot tell: data, and no more than it */
  run_events(&fixture.env);
  assert_true(one.done);
  assert_int_equal(one.io.extent_count, 1);
  assert_int_equal(disk_extents(&one.io)[0].length, 64 * KIB - 10);
  assert_int_equal(disk_extents(&one.io)[0].flags, 0);
  assert_int_equal(a.count, 0);

  submit(disk, &one, DISK_EXTENTS, 64 * KIB + 3, 60 * KIB, fixture.buffer); /* one that can is asked */
  assert_int_equal(b.count, 1);
  struct disk_io *below = held_disk_io(&b, 0);
  assert_int_equal(below->offset, 128 * KIB + 3);
  assert_int_equal(below->length, 60 * KIB);
  assert_true(disk_extents_add(below, 5, EXTENT_HOLE | EXTENT_ZERO));
  assert_true(disk_extents_add(below, 7, 0));
  held_disk_answer(&b, 0, TARN_OK);
  run_events(&fixture.env);
  assert_true(one.done);
  assert_int_equal(one.io.extent_count, 2);
  assert_int_equal(disk_extents(&one.io)[0].flags, EXTENT_HOLE | EXTENT_ZERO);
  assert_int_equal(disk_extents(&one.io)[1].length, 7);
  disk_close(disk);
  fixture_free(&fixture);
}

/* ---- capabilities, and what is refused ---- */

static void least_able(void **state) {
  (void)state;
  struct fixture fixture;
  struct held_disk a, b;
  fixture_init(&fixture);
  held_disk_init(&a, &fixture.env);
  held_disk_init(&b, &fixture.env);
  a.disk.caps.volatile_cache = false;
  a.disk.caps.can_extents = b.disk.caps.can_extents = false;
  b.disk.caps.block_bytes = b.disk.caps.align_bytes = 4096;
  b.disk.caps.zero_block_bytes = 1024;
  a.disk.caps.zero_bytes_max = 2560;
  b.disk.caps.io_bytes_max = 32768;
  b.disk.caps.can_trim = false;
  b.disk.caps.rotational = true;
  struct disk *disk = concat(&fixture, two_parts(&a, &b), 2, 96 * KIB, 4);
  assert_int_equal(disk->caps.size_bytes, 96 * KIB);
  assert_int_equal(disk->caps.block_bytes, 4096);
  assert_int_equal(disk->caps.align_bytes, 4096);
  assert_int_equal(disk->caps.io_bytes_max, 32768);
  assert_int_equal(disk->caps.zero_block_bytes, 1024);
  assert_int_equal(disk->caps.zero_bytes_max, 2048);
  assert_true(disk->caps.can_zero);
  assert_false(disk->caps.can_trim);
  assert_true(disk->caps.volatile_cache);
  assert_true(disk->caps.rotational);
  assert_false(disk->caps.can_extents);
  assert_false(disk->caps.read_only);
  assert_false(disk->caps.tells_losses);
  disk_close(disk);

  a.disk.caps.read_only = a.disk.caps.tells_losses = true;
  b.disk.caps.can_zero = false;
  disk = concat(&fixture, two_parts(&a, &b), 2, 0, 4);
  assert_true(disk->caps.read_only);
  assert_false(disk->caps.can_zero);
  assert_false(disk->caps.tells_losses); /* of what the other part loses nobody is told */
  disk_close(disk);

  b.disk.caps.tells_losses = true;
  disk = concat(&fixture, two_parts(&a, &b), 2, 0, 4);
  assert_true(disk->caps.tells_losses);
  disk_close(disk);
  fixture_free(&fixture);
}

static uint32_t closed_count;
static void closed(void *owner) {
  assert_ptr_equal(owner, &closed_count);
  closed_count++;
}

static void refused(void **state) {
  (void)state;
  static const struct {
    const char *why;
    uint64_t offset[2], length[2], size;
    const char *says;
  } rows[] = {
      {"a part that ends behind its disk", {0, 1 << 20}, {4096, 4096}, 0, "behind the end"},
      {"... by its length", {0, 4096}, {4096, 1 << 20}, 0, "behind the end"},
      {"an odd offset", {512, 0}, {4096, 4096}, 0, "4096"},
      {"an odd length in the middle", {0, 0}, {512, 4096}, 0, "4096"},
      {"more than there is", {0, 0}, {4096, 4096}, 12288, "too small"},
      {"an end inside a block", {0, 0}, {4096, 4096}, 8192 - 256, "block size"},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct fixture fixture;
    struct held_disk a;
    struct disk *disk;
    const char *wrong;
    fixture_init(&fixture);
    held_disk_init(&a, &fixture.env);
    const struct concat_part parts[] = {{&a.disk, rows[i].offset[0], rows[i].length[0], NULL},
                                        {&a.disk, rows[i].offset[1], rows[i].length[1], NULL}};
    struct concat_options options = {.env = &fixture.env,
                                     .parts = parts,
                                     .part_count = 2,
                                     .size_bytes = rows[i].size,
                                     .slots = 1,
                                     .closed = closed,
                                     .owner = &closed_count};
    row_true(rows[i].why, concat_new(&options, &disk, &wrong) == TARN_INVALID);
    row_true(rows[i].why, strstr(wrong, rows[i].says) != NULL);
    row_true(rows[i].why, disk == NULL && closed_count == 0);
    fixture_free(&fixture);
  }
}

static void its_owner_hears_of_its_end(void **state) {
  (void)state;
  struct fixture fixture;
  struct held_disk a, b;
  struct disk *disk;
  const char *wrong;
  fixture_init(&fixture);
  held_disk_init(&a, &fixture.env);
  held_disk_init(&b, &fixture.env);
  struct concat_options options = {.env = &fixture.env,
                                   .parts = two_parts(&a, &b),
                                   .part_count = 2,
                                   .slots = 1,
                                   .closed = closed,
                                   .owner = &closed_count};
  assert_int_equal(concat_new(&options, &disk, &wrong), TARN_OK);
  assert_true(disk_is_concat(disk));
  assert_false(disk_is_concat(&a.disk));
  assert_ptr_equal(concat_owner(disk), &closed_count);
  disk_close(disk);
  assert_int_equal(closed_count, 1);
  fixture_free(&fixture);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(random_load),
      cmocka_unit_test(errors),
      cmocka_unit_test(flush_goes_to_each_disk_once),
      cmocka_unit_test(a_fua_that_will_fail_spoils_flushes),
      cmocka_unit_test(a_part_that_hangs_keeps_only_its_own),
      cmocka_unit_test(who_waits_gets_its_turn),
      cmocka_unit_test(who_waits_is_as_young_as_the_last),
      cmocka_unit_test(extents),
      cmocka_unit_test(least_able),
      cmocka_unit_test(refused),
      cmocka_unit_test(its_owner_hears_of_its_end),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
