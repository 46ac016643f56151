/* gate.h: the clients' disk outlives the mirror behind it; no request is lost or answered twice. */
#include "core/gate.h"

#include "held_disk.h"
#include "unit.h"

#define SLOTS    4u
#define PATIENCE (30 * NS_PER_S)

static struct env env;
static struct arena arena;
static struct buffer_pool pool;
static struct gate gate;
static struct held_disk first, second;

static int setup(void **state) {
  (void)state;
  env_init(&env);
  arena_init(&arena);
  held_disk_init(&first, &env);
  held_disk_init(&second, &env);
  said[0] = 0;
  if (buffer_pool_init(&pool, &env, &arena, 0) != TARN_OK) return -1;
  return gate_init(&gate, &env, &arena, SLOTS) == TARN_OK ? 0 : -1;
}

static int teardown(void **state) {
  (void)state;
  bool whole = buffer_pool_is_whole(&pool);
  arena_destroy(&arena);
  return whole && gate.disk.in_flight == 0 && gate.waiting == 0 && gate_is_idle(&gate) ? 0 : -1;
}

static void zero(uint32_t index) {
  ios[index] = (struct disk_io){.op = DISK_WRITE_ZEROES, .offset = 4096ull * index, .length = 4096, .done = io_done};
  disk_io_init(&ios[index]);
  disk_submit(&gate.disk, &ios[index]);
}
static void flush(uint32_t index) {
  ios[index] = (struct disk_io){.op = DISK_FLUSH, .done = io_done};
  disk_io_init(&ios[index]);
  disk_submit(&gate.disk, &ios[index]);
}
static void trim(uint32_t index) {
  ios[index] = (struct disk_io){.op = DISK_TRIM, .offset = 4096ull * index, .length = 4096, .done = io_done};
  disk_io_init(&ios[index]);
  disk_submit(&gate.disk, &ios[index]);
}

/* What a target has, in the order of arrival there: "abf", a flush as "!". */
static bool has(const struct held_disk *target, const char *expected) {
  char text[COUNT_OF(ios) + 1] = "";
  for (uint32_t i = 0; i < target->count; i++) {
    const struct disk_io *io = held_disk_io(target, i);
    text[i] = io->op == DISK_FLUSH ? '!' : (char)('a' + io->offset / 4096);
  }
  bool equal = strcmp(text, expected) == 0;
  if (!equal) fprintf(stderr, "has \"%s\", expected \"%s\"\n", text, expected);
  return equal;
}
static void answer(struct held_disk *target, uint32_t index, tarn_err err) {
  held_disk_answer(target, index, err);
  run_events(&env);
}
static void answer_all(struct held_disk *target, tarn_err err) {
  while (target->count > 0) held_disk_answer(target, 0, err);
  run_events(&env);
}

/* ---- open ---- */

static void open_passes_everything_on(void **state) {
  (void)state;
  static const struct {
    const char *why;
    enum disk_op op;
    uint32_t flags;
    uint64_t offset, length;
    tarn_err err;
  } rows[] = {
      {"read", DISK_READ, 0, 512, 1024, TARN_OK},
      {"a read that fails", DISK_READ, 0, 512, 1024, TARN_IO},
      {"write with FUA", DISK_WRITE, DISK_FUA, 1024, 512, TARN_OK},
      {"the target is gone: an answer like others", DISK_WRITE, 0, 1024, 512, TARN_GONE},
      {"extents", DISK_EXTENTS, 0, 4096, 65536, TARN_OK},
      {"flush", DISK_FLUSH, 0, 0, 0, TARN_OK},
      {"trim", DISK_TRIM, DISK_FUA, 4096, 8192, TARN_OK},
      {"zeroes", DISK_WRITE_ZEROES, DISK_FUA | DISK_NO_HOLE, 0, 1 << 20, TARN_NO_SPACE},
  };
  struct buffer *buffer = buffer_get(&pool, 4096);
  gate_open(&gate, &first.disk);
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    bool has_data = rows[i].op == DISK_READ || rows[i].op == DISK_WRITE || rows[i].op == DISK_EXTENTS;
    ios[0] = (struct disk_io){.op = rows[i].op,
                              .flags = rows[i].flags,
                              .offset = rows[i].offset,
                              .length = rows[i].length,
                              .buffer = has_data ? buffer : NULL,
                              .data = has_data ? buffer->base + rows[i].offset : NULL,
                              .done = io_done};
    disk_io_init(&ios[0]);
    disk_submit(&gate.disk, &ios[0]);
    struct disk_io *below = held_disk_io(&first, 0);
    row_true(rows[i].why, is_passed_on(below, &ios[0]));
    answer(&first, 0, rows[i].err);
    row_true(rows[i].why, said[0] == 'a' && ios[0].err == rows[i].err && gate.disk.in_flight == 0);
    row_true(rows[i].why, ios[0].extent_count == (rows[i].op == DISK_EXTENTS));
    said[0] = 0;
  }
  buffer_unref(buffer);
}

static void a_read_may_come_back_with_another_buffer(void **state) {
  (void)state;
  struct buffer *given = buffer_get(&pool, 512), *other = buffer_get(&pool, 512);
  static const struct {
    const char *why;
    tarn_err err;
    bool reopen;
  } rows[] = {{"with its answer", TARN_OK, false},
              {"not done, and read again into it", TARN_SHUTDOWN, true},
              {"not done, and given up", TARN_SHUTDOWN, false}};
  for (size_t i = 0; i < 2 * COUNT_OF(rows); i++) {
    enum disk_op op = i < COUNT_OF(rows) ? DISK_READ : DISK_EXTENTS;
    gate_open(&gate, &first.disk);
    ios[0] = (struct disk_io){.op = op, .length = 512, .buffer = given, .data = given->base, .done = io_done};
    disk_io_init(&ios[0]);
    disk_submit(&gate.disk, &ios[0]);
    held_disk_io(&first, 0)->buffer = other;
    held_disk_io(&first, 0)->data = other->base;
    gate_shut(&gate, PATIENCE);
    const char *why = rows[i % COUNT_OF(rows)].why;
    answer(&first, 0, rows[i % COUNT_OF(rows)].err);
    if (rows[i % COUNT_OF(rows)].reopen) {
      gate_open(&gate, &second.disk);
      row_true(why, held_disk_io(&second, 0)->buffer == other);
      answer(&second, 0, TARN_OK);
    }
    gate_fail(&gate);
    run_events(&env);
    row_true(why, ios[0].buffer == other && ios[0].data == other->base && said[0] == 'a');
    said[0] = 0;
  }
  buffer_unref(given);
  buffer_unref(other);
}

/* Clients were told that they may ask. */
static void a_target_that_knows_no_extents_calls_everything_data(void **state) {
  (void)state;
  struct buffer *buffer = buffer_get(&pool, 4096);
  second.disk.caps.can_extents = false;
  for (uint32_t waits = 0; waits < 2; waits++) {
    gate_open(&gate, waits ? &first.disk : &second.disk);
    assert_true(gate.disk.caps.can_extents);
    ios[0] = (struct disk_io){
        .op = DISK_EXTENTS, .offset = 512, .length = 8192, .buffer = buffer, .data = buffer->base, .done = io_done};
    disk_io_init(&ios[0]);
    disk_submit(&gate.disk, &ios[0]);
    gate_shut(&gate, PATIENCE);
    if (waits) { /* it was with a target that knows, and comes back to one that does not */
      answer(&first, 0, TARN_SHUTDOWN);
      gate_open(&gate, &second.disk);
      gate_shut(&gate, PATIENCE);
    }
    run_events(&env);
    assert_true(said_so("a:ok "));
    assert_int_equal(second.count, 0);
    assert_int_equal(ios[0].extent_count, 1);
    assert_int_equal(disk_extents(&ios[0])[0].length, 8192);
    assert_int_equal(disk_extents(&ios[0])[0].flags, 0);
  }
  buffer_unref(buffer);
}

static void more_than_it_has_places_for_stand_in_line(void **state) {
  (void)state;
  gate_open(&gate, &first.disk);
  for (uint32_t i = 0; i < SLOTS + 3; i++) zero(i);
  assert_true(has(&first, "abcd"));
  assert_int_equal(gate.waiting, 3);
  answer(&first, 1, TARN_OK);
  assert_true(has(&first, "acde"));
  zero(7); /* does not pass those in line, though a place becomes free */
  answer(&first, 0, TARN_IO);
  assert_true(has(&first, "cdef"));
  while (first.count > 0) answer(&first, 0, TARN_OK);
  assert_true(said_so("b:ok a:io c:ok d:ok e:ok f:ok g:ok h:ok "));
}

/* ---- shut and opened again ---- */

static void shut_holds_and_reopening_keeps_the_order(void **state) {
  (void)state;
  gate_open(&gate, &first.disk);
  for (uint32_t i = 0; i < 6; i++) zero(i); /* e and f stand in line */
  gate_shut(&gate, PATIENCE);
  zero(6);
  answer(&first, 2, TARN_SHUTDOWN); /* they come back in any order: c, a, d */
  answer(&first, 0, TARN_SHUTDOWN);
  answer(&first, 0, TARN_OK); /* b was done all the same */
  assert_true(said_so("b:ok "));
  assert_false(gate_is_idle(&gate));
  answer(&first, 0, TARN_SHUTDOWN);
  assert_true(gate_is_idle(&gate));
  assert_int_equal(gate.waiting, 6);
  zero(7);
  run_events(&env);
  assert_true(said_so(""));
  gate_open(&gate, &second.disk);
  assert_true(has(&second, "acde")); /* four places */
  zero(8);
  while (second.count > 0) answer(&second, 0, TARN_OK);
  assert_true(said_so("a:ok c:ok d:ok e:ok f:ok g:ok h:ok i:ok "));
  assert_int_equal(first.submitted, 4);
}

/* A client has gone: what it had asked for is in nobody's way, also not that of what comes after it. */
static void who_has_gone_takes_back_what_was_not_begun(void **state) {
  (void)state;
  gate_open(&gate, &first.disk);
  for (uint32_t i = 0; i < 6; i++) zero(i); /* e and f stand in line */
  gate_withdraw(&gate.disk, &ios[4]);
  gate_withdraw(&gate.disk, &ios[0]); /* the target has it */
  run_events(&env);
  assert_true(said_so("e:shutdown "));
  gate_shut(&gate, PATIENCE);
  answer(&first, 1, TARN_SHUTDOWN); /* b is back */
  assert_int_equal(gate.waiting, 2);
  gate_withdraw(&gate.disk, &ios[1]);
  gate_withdraw(&gate.disk, &ios[5]);
  assert_int_equal(gate.waiting, 0);
  run_events(&env);
  assert_true(said_so("b:shutdown f:shutdown "));
  answer_all(&first, TARN_OK);
  assert_true(said_so("a:ok c:ok d:ok "));
  gate_open(&gate, &second.disk);
  assert_true(has(&second, ""));
}

static void one_that_comes_back_before_the_gate_is_shut(void **state) {
  (void)state;
  gate_open(&gate, &first.disk);
  for (uint32_t i = 0; i < 3; i++) zero(i);
  answer(&first, 1, TARN_SHUTDOWN);
  assert_true(said_so("")); /* its client sees nothing of the fall */
  zero(3);                  /* nobody passes it */
  assert_true(has(&first, "ac"));
  answer(&first, 0, TARN_OK);
  gate_shut(&gate, PATIENCE);
  answer(&first, 0, TARN_SHUTDOWN);
  gate_open(&gate, &second.disk);
  assert_true(has(&second, "bcd"));
  answer_all(&second, TARN_OK);
  assert_true(said_so("a:ok b:ok c:ok d:ok "));
}

static void a_mirror_may_fall_again_and_again(void **state) {
  (void)state;
  gate_open(&gate, &first.disk);
  for (uint32_t i = 0; i < 5; i++) zero(i);
  for (int i = 0; i < 10; i++) {
    struct held_disk *old = i % 2 ? &second : &first, *next = i % 2 ? &first : &second;
    gate_shut(&gate, PATIENCE);
    answer_all(old, TARN_SHUTDOWN);
    pass(&env, PATIENCE - 1); /* patience begins anew each time */
    gate_open(&gate, &next->disk);
    assert_true(has(next, "abcd"));
  }
  answer(&first, 3, TARN_OK);
  assert_true(has(&first, "abce"));
  answer_all(&first, TARN_OK);
  assert_true(said_so("d:ok a:ok b:ok c:ok e:ok "));
  pass(&env, 2 * PATIENCE); /* and ends with the fall */
  assert_int_equal(gate.state, GATE_OPEN);
}

/* ---- patience ---- */

static void patience_ends(void **state) {
  (void)state;
  gate_open(&gate, &first.disk);
  for (uint32_t i = 0; i < 6; i++) zero(i);
  gate_shut(&gate, PATIENCE);
  answer(&first, 1, TARN_SHUTDOWN);
  answer(&first, 0, TARN_SHUTDOWN);
  pass(&env, PATIENCE - 1);
  assert_true(said_so(""));
  pass(&env, 1);
  assert_true(said_so("a:shutdown b:shutdown e:shutdown f:shutdown "));
  assert_int_equal(gate.state, GATE_FAILING);
  zero(6); /* posted, not inside the call */
  assert_true(said_so(""));
  run_events(&env);
  assert_true(said_so("g:shutdown "));
  answer(&first, 0, TARN_SHUTDOWN); /* the target still had two */
  answer(&first, 0, TARN_OK);
  assert_true(said_so("c:shutdown d:ok "));
  gate_open(&gate, &second.disk); /* the mirror is back, and so is service */
  zero(7);
  answer(&second, 0, TARN_OK);
  assert_true(said_so("h:ok "));
  pass(&env, 2 * PATIENCE);
  assert_int_equal(gate.state, GATE_OPEN);
}

static void the_edges_of_patience(void **state) {
  (void)state;
  env.now_ns = 5;
  gate_open(&gate, &first.disk);
  zero(0);
  gate_shut(&gate, 0); /* `suspend` 0: nobody waits */
  assert_int_equal(gate.state, GATE_FAILING);
  answer(&first, 0, TARN_SHUTDOWN);
  assert_true(said_so("a:shutdown "));
  gate_open(&gate, &first.disk);
  gate_shut(&gate, UINT64_MAX); /* for ever */
  zero(0);
  pass(&env, 1ull << 62);
  assert_true(said_so(""));
  gate_fail(&gate);
  gate_fail(&gate);
  run_events(&env);
  assert_true(said_so("a:shutdown "));
  gate_open(&gate, &first.disk);
  gate_shut(&gate, PATIENCE);
  gate_fail(&gate);
  assert_true(timers_next_ns(&env) == UINT64_MAX);
}

static void failing_an_open_gate(void **state) {
  (void)state;
  gate_open(&gate, &first.disk);
  for (uint32_t i = 0; i < 6; i++) zero(i);
  gate_fail(&gate);
  run_events(&env);
  assert_true(said_so("e:shutdown f:shutdown ")); /* in line; the target answers for the others */
  answer_all(&first, TARN_OK);
  assert_true(said_so("a:ok b:ok c:ok d:ok "));
}

/* ---- what clients are told ---- */

static void which_target_fits(void **state) {
  (void)state;
  assert_true(gate_fits(&gate, &second.disk)); /* nobody was told anything */
  gate_open(&gate, &first.disk);
  gate_fail(&gate);
  struct disk_caps base = first.disk.caps;
  struct row {
    const char *why;
    struct disk_caps caps;
    bool fits;
  } rows[16] = {{"the same", base, true}};
  size_t count = 1;
#define ROW(say, field, value, expected)             \
  do {                                               \
    rows[count] = (struct row){say, base, expected}; \
    rows[count++].caps.field = (value);              \
  } while (0)
  ROW("larger", size_bytes, 1 << 21, true);
  ROW("smaller", size_bytes, (1 << 20) - 512, false);
  ROW("larger blocks", block_bytes, 4096, false);
  ROW("a stricter alignment", align_bytes, 4096, true);
  ROW("smaller zero blocks", zero_block_bytes, 1, true);
  ROW("larger zero blocks", zero_block_bytes, 4096, true);
  ROW("shorter I/Os", io_bytes_max, 32768, false);
  ROW("longer I/Os", io_bytes_max, BUFFER_DATA_MAX, true);
  ROW("shorter zeroes", zero_bytes_max, 1 << 19, false);
  ROW("no cheap zeroes", can_zero, false, false);
  ROW("no trim", can_trim, false, true);
  ROW("read-only", read_only, true, false);
  ROW("without a cache", volatile_cache, false, true);
#undef ROW
  for (size_t i = 0; i < count; i++) {
    second.disk.caps = rows[i].caps;
    row_true(rows[i].why, gate_fits(&gate, &second.disk) == rows[i].fits);
  }
}

static void every_disk_may_be_added_to_a_mirror_of_plain_files(void **state) {
  (void)state;
  first.disk.caps = (struct disk_caps){.size_bytes = 1 << 20, /* what a mirror of two files on tmpfs can do */
                                       .block_bytes = 1,
                                       .align_bytes = 1,
                                       .io_bytes_max = BUFFER_DATA_MAX,
                                       .zero_block_bytes = 1,
                                       .zero_bytes_max = 4 << 20,
                                       .can_zero = true,
                                       .can_trim = true};
  gate_open(&gate, &first.disk);
  assert_int_equal(gate.disk.caps.block_bytes, 1);
  assert_int_equal(gate.disk.caps.align_bytes, 4096);
  assert_int_equal(gate.disk.caps.zero_block_bytes, 4096);
  assert_true(gate.disk.caps.volatile_cache);
  gate_shut(&gate, PATIENCE);
  second.disk.caps = first.disk.caps; /* and of a file and a device of 4 KiB blocks with a cache */
  second.disk.caps.align_bytes = second.disk.caps.zero_block_bytes = 4096;
  second.disk.caps.io_bytes_max = BUFFER_DATA_MAX - 4096;
  second.disk.caps.volatile_cache = true;
  assert_true(gate_fits(&gate, &second.disk));
  trim(0); /* what clients ask after the caps that they know, the new target takes (disk_submit() requires it) */
  zero(1);
  gate_open(&gate, &second.disk);
  assert_true(has(&second, "ab"));
  answer_all(&second, TARN_OK);
  assert_true(said_so("a:ok b:ok "));
}

static void a_trim_that_the_target_cannot_do_is_done(void **state) {
  (void)state;
  gate_open(&gate, &first.disk);
  trim(0);
  gate_shut(&gate, PATIENCE);
  answer(&first, 0, TARN_SHUTDOWN);
  trim(1);
  second.disk.caps.can_trim = false;
  gate_open(&gate, &second.disk);
  trim(2);
  assert_true(said_so(""));
  run_events(&env);
  assert_true(said_so("a:ok b:ok c:ok "));
  assert_int_equal(second.submitted, 0);
}

static void zeroes_in_small_pieces_only(void **state) {
  (void)state;
  first.disk.caps.zero_bytes_max = 2048; /* less than the zero block that clients are told */
  gate_open(&gate, &first.disk);
  assert_false(gate.disk.caps.can_zero);
  assert_false(gate.disk.caps.can_trim);
  flush(0); /* and it is a disk within the rules */
  answer(&first, 0, TARN_OK);
  assert_true(said_so("a:ok "));
}

/* ---- what is required of its user ---- */

static void open_second(void *context) {
  (void)context;
  gate_open(&gate, &second.disk);
}
static void shut(void *context) {
  (void)context;
  gate_shut(&gate, PATIENCE);
}
static void submit_early(void *context) {
  (void)context;
  flush(9);
}

static void wrong_use_is_a_bug_of_ours(void **state) {
  (void)state;
  assert_true(panics(submit_early, NULL)); /* no size, no clients */
  assert_true(panics(shut, NULL));         /* it is */
  gate_open(&gate, &first.disk);
  assert_true(panics(open_second, NULL)); /* OPEN */
  zero(0);
  gate_shut(&gate, PATIENCE);
  assert_true(panics(shut, NULL));
  assert_true(panics(open_second, NULL)); /* the old target has one of ours */
  answer(&first, 0, TARN_OK);
  second.disk.caps.size_bytes = 4096;
  assert_true(panics(open_second, NULL)); /* does not fit */
  second.disk.caps.size_bytes = 1 << 20;
  assert_false(panics(open_second, NULL));
}

#define GATE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      GATE_TEST(open_passes_everything_on),
      GATE_TEST(a_read_may_come_back_with_another_buffer),
      GATE_TEST(a_target_that_knows_no_extents_calls_everything_data),
      GATE_TEST(more_than_it_has_places_for_stand_in_line),
      GATE_TEST(shut_holds_and_reopening_keeps_the_order),
      GATE_TEST(who_has_gone_takes_back_what_was_not_begun),
      GATE_TEST(one_that_comes_back_before_the_gate_is_shut),
      GATE_TEST(a_mirror_may_fall_again_and_again),
      GATE_TEST(patience_ends),
      GATE_TEST(the_edges_of_patience),
      GATE_TEST(failing_an_open_gate),
      GATE_TEST(which_target_fits),
      GATE_TEST(every_disk_may_be_added_to_a_mirror_of_plain_files),
      GATE_TEST(a_trim_that_the_target_cannot_do_is_done),
      GATE_TEST(zeroes_in_small_pieces_only),
      GATE_TEST(wrong_use_is_a_bug_of_ours),
  };
  return cmocka_run_group_tests_name("gate", tests, NULL, NULL);
}
