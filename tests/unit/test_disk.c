/* The rules of disk.h: what disk_check() tells strangers, what disk_submit() requires of us. */
#include "core/disk.h"

#include "unit.h"

static struct env env;
static struct arena arena;
static struct buffer_pool pool;
static struct disk disk;
static struct disk_io *submitted; /* what the disk holds */
static int done_count, close_count;

static void hold(struct disk *of, struct disk_io *io) {
  assert_ptr_equal(of, &disk);
  submitted = io;
}
static void closed(struct disk *of) {
  assert_ptr_equal(of, &disk);
  close_count++;
}
static const struct disk_ops hold_ops = {.kind = "hold", .submit = hold, .close = closed};

static void io_done(struct disk_io *io) {
  assert_ptr_equal(io, submitted);
  assert_int_equal(disk.in_flight, 0); /* no longer in flight when its completion runs */
  done_count++;
}

static int setup(void **state) {
  (void)state;
  env_init(&env);
  env.now_ns = 12345;
  arena_init(&arena);
  submitted = NULL;
  done_count = close_count = 0;
  disk = (struct disk){.ops = &hold_ops,
                       .env = &env,
                       .caps = {.size_bytes = 1 << 20,
                                .block_bytes = 512,
                                .align_bytes = 4096,
                                .io_bytes_max = 65536,
                                .zero_block_bytes = 1024,
                                .zero_bytes_max = 1 << 19,
                                .can_zero = true,
                                .can_trim = true}};
  return buffer_pool_init(&pool, &env, &arena, 0) == TARN_OK ? 0 : -1;
}

static int teardown(void **state) {
  (void)state;
  bool whole = buffer_pool_is_whole(&pool);
  arena_destroy(&arena);
  return whole ? 0 : -1;
}

static void what_strangers_are_told(void **state) {
  (void)state;
  static const struct {
    const char *why;
    enum disk_op op;
    uint32_t flags;
    uint64_t offset, length;
    tarn_err err;
  } rows[] = {
      {"one block", DISK_READ, 0, 0, 512, TARN_OK},
      {"the last block", DISK_WRITE, 0, (1 << 20) - 512, 512, TARN_OK},
      {"the longest", DISK_READ, 0, 512, 65536, TARN_OK},
      {"longer", DISK_READ, 0, 0, 65536 + 512, TARN_INVALID},
      {"nothing", DISK_READ, 0, 0, 0, TARN_INVALID},
      {"nothing at the end", DISK_READ, 0, 1 << 20, 0, TARN_INVALID},
      {"half a block", DISK_READ, 0, 0, 256, TARN_INVALID},
      {"from the middle of a block", DISK_WRITE, 0, 256, 512, TARN_INVALID},
      {"across the end", DISK_WRITE, 0, (1 << 20) - 512, 1024, TARN_RANGE},
      {"behind the end", DISK_READ, 0, (1 << 20) + 512, 512, TARN_RANGE},
      {"an end that wraps around", DISK_READ, 0, UINT64_MAX - 511, 1024, TARN_RANGE},
      {"a length that wraps around", DISK_WRITE, 0, 512, UINT64_MAX - 511, TARN_RANGE},
      {"FUA on a write", DISK_WRITE, DISK_FUA, 0, 512, TARN_OK},
      {"FUA means nothing for a read", DISK_READ, DISK_FUA, 0, 512, TARN_INVALID},
      {"nor for a flush", DISK_FLUSH, DISK_FUA, 0, 0, TARN_INVALID},
      {"NO_HOLE is for zeroes", DISK_WRITE, DISK_NO_HOLE, 0, 512, TARN_INVALID},
      {"an unknown flag", DISK_WRITE, 64, 0, 512, TARN_INVALID},
      {"flush has no place", DISK_FLUSH, 0, 0, 0, TARN_OK},
      {"zeroes in their own unit", DISK_WRITE_ZEROES, DISK_FUA | DISK_NO_HOLE, 1024, 1024, TARN_OK},
      {"zeroes in a smaller one", DISK_WRITE_ZEROES, 0, 512, 1024, TARN_INVALID},
      {"zeroes longer than any write", DISK_WRITE_ZEROES, 0, 0, 1 << 19, TARN_OK},
      {"too many zeroes", DISK_WRITE_ZEROES, 0, 0, 1 << 20, TARN_INVALID},
      {"trim", DISK_TRIM, DISK_FUA, 1024, 2048, TARN_OK},
      {"trim beyond the end", DISK_TRIM, 0, 1 << 20, 1024, TARN_RANGE},
      {"no hole cannot be asked of a trim", DISK_TRIM, DISK_NO_HOLE, 0, 1024, TARN_INVALID},
      {"no operation", DISK_OP_COUNT, 0, 0, 512, TARN_INVALID},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct disk_io io = {.op = rows[i].op, .flags = rows[i].flags, .offset = rows[i].offset, .length = rows[i].length};
    row_true(rows[i].why, disk_check(&disk, &io) == rows[i].err);
  }
}

static void what_a_disk_cannot_do(void **state) {
  (void)state;
  static const struct {
    const char *why;
    bool read_only, can_zero, can_trim;
    tarn_err expected[DISK_OP_COUNT]; /* read, write, flush, trim, zeroes, extents */
  } rows[] = {
      {"all", false, true, true, {TARN_OK, TARN_OK, TARN_OK, TARN_OK, TARN_OK, TARN_UNSUPPORTED}},
      {"read-only",
       true,
       true,
       true,
       {TARN_OK, TARN_UNSUPPORTED, TARN_OK, TARN_UNSUPPORTED, TARN_UNSUPPORTED, TARN_UNSUPPORTED}},
      {"zeroes but not trim",
       false,
       true,
       false,
       {TARN_OK, TARN_OK, TARN_OK, TARN_UNSUPPORTED, TARN_OK, TARN_UNSUPPORTED}},
      {"neither",
       false,
       false,
       false,
       {TARN_OK, TARN_OK, TARN_OK, TARN_UNSUPPORTED, TARN_UNSUPPORTED, TARN_UNSUPPORTED}},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    disk.caps.read_only = rows[i].read_only;
    disk.caps.can_zero = rows[i].can_zero;
    disk.caps.can_trim = rows[i].can_trim;
    for (unsigned op = 0; op < DISK_OP_COUNT; op++) {
      struct disk_io io = {.op = (enum disk_op)op, .length = op == DISK_FLUSH ? 0 : 1024};
      row_true(rows[i].why, disk_check(&disk, &io) == rows[i].expected[op]);
    }
  }
}

static void one_io_one_completion_from_the_queue(void **state) {
  (void)state;
  struct buffer *buffer = buffer_get(&pool, 512);
  struct disk_io io = {
      .op = DISK_WRITE, .offset = 512, .length = 512, .buffer = buffer, .data = buffer->base + 512, .done = io_done};
  disk_io_init(&io);
  for (int i = 1; i <= 3; i++) { /* the same disk_io may be used again */
    disk_submit(&disk, &io);
    assert_ptr_equal(submitted, &io);
    assert_int_equal(disk.in_flight, 1);
    assert_true(io.submitted_ns == 12345);
    disk_complete(&io, i == 2 ? TARN_IO : TARN_OK);
    assert_int_equal(done_count, i - 1); /* not inside the call */
    assert_int_equal(disk.in_flight, 1);
    assert_true(event_run_one(&env.queue));
    assert_int_equal(done_count, i);
    assert_int_equal(io.err, i == 2 ? TARN_IO : TARN_OK);
  }
  disk_close(&disk);
  assert_int_equal(close_count, 1);
  buffer_unref(buffer);
}

static void a_completion_passed_on(void **state) {
  (void)state;
  struct disk_io io = {.op = DISK_FLUSH, .done = io_done};
  disk_io_init(&io);
  disk_submit(&disk, &io);
  disk_complete_now(&io, TARN_IO);
  assert_int_equal(done_count, 1); /* inside the call */
  assert_int_equal(io.err, TARN_IO);
  assert_false(event_run_one(&env.queue));
}

/* ---- what is required of us ---- */

static struct disk_io bad;
static void submit_bad(void *context) {
  (void)context;
  disk_submit(&disk, &bad);
}
static void close_disk(void *context) {
  (void)context;
  disk_close(&disk);
}
static void complete_twice(void *context) {
  (void)context;
  disk_complete(&bad, TARN_OK);
  disk_complete(&bad, TARN_OK);
}
static void complete_now_too(void *context) {
  (void)context;
  disk_complete(&bad, TARN_OK);
  disk_complete_now(&bad, TARN_OK);
}

static void placement_is_required(void **state) {
  (void)state;
  struct buffer *buffer = buffer_get(&pool, 4096); /* 8 KiB of memory */
  static const struct {
    const char *why;
    uint64_t offset, length;
    int64_t data; /* from the buffer's base */
    bool good;
  } rows[] = {
      {"congruent", 512, 512, 512, true},
      {"not congruent", 512, 512, 0, false},
      {"any block of the buffer will do", 512, 512, 4096 + 512, true},
      {"the block around its end lies in the buffer", 3584, 4096, 3584, true},
      {"beyond the buffer", 512, 8192, 512, false},
      {"the block around its end does not", 4096 + 512, 512, 8192 + 512, false},
      {"before the buffer", 3584, 512, -512, false},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    bad = (struct disk_io){.op = DISK_READ,
                           .offset = rows[i].offset,
                           .length = rows[i].length,
                           .buffer = buffer,
                           .data = buffer->base + rows[i].data,
                           .done = io_done};
    disk_io_init(&bad);
    row_true(rows[i].why, panics(submit_bad, NULL) == !rows[i].good);
  }
  buffer_unref(buffer);
}

static void wrong_use_is_a_bug_of_ours(void **state) {
  (void)state;
  bad = (struct disk_io){.op = DISK_FLUSH, .done = io_done};
  assert_true(panics(submit_bad, NULL)); /* disk_io_init() forgotten */
  disk_io_init(&bad);
  assert_false(panics(submit_bad, NULL));
  disk_submit(&disk, &bad);
  assert_true(panics(close_disk, NULL)); /* one in flight */
  assert_true(panics(complete_twice, NULL));
  assert_true(panics(complete_now_too, NULL));
  disk_complete(&bad, TARN_OK);
  assert_true(panics(submit_bad, NULL)); /* its completion has not run */
  while (event_run_one(&env.queue)) continue;
  assert_false(panics(close_disk, NULL));
  bad.op = DISK_READ;
  bad.length = 512;
  assert_true(panics(submit_bad, NULL)); /* no buffer */
  bad.op = DISK_FLUSH;
  disk.caps.block_bytes = 3;
  assert_true(panics(submit_bad, NULL)); /* a disk that breaks the rules itself */
}

static void every_operation_has_a_name(void **state) {
  (void)state;
  static const char *const names[DISK_OP_COUNT] = {"read", "write", "flush", "trim", "write-zeroes", "extents"};
  for (unsigned op = 0; op < DISK_OP_COUNT; op++) assert_string_equal(disk_op_name((enum disk_op)op), names[op]);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(what_strangers_are_told, setup, teardown),
      cmocka_unit_test_setup_teardown(what_a_disk_cannot_do, setup, teardown),
      cmocka_unit_test_setup_teardown(one_io_one_completion_from_the_queue, setup, teardown),
      cmocka_unit_test_setup_teardown(a_completion_passed_on, setup, teardown),
      cmocka_unit_test_setup_teardown(placement_is_required, setup, teardown),
      cmocka_unit_test_setup_teardown(wrong_use_is_a_bug_of_ours, setup, teardown),
      cmocka_unit_test(every_operation_has_a_name),
  };
  return cmocka_run_group_tests_name("disk", tests, NULL, NULL);
}
