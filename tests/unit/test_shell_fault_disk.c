/* fault_disk.h: invisible with nothing injected; what each fault does, together and alone; healing. */
#include <stdlib.h>

#include "held_disk.h"
#include "shell/fault_disk.h"
#include "unit.h"

#define SIZE (1u << 20)

static struct env env;
static struct arena arena;
static struct buffer_pool pool;
static struct buffer *buffer;
static struct held_disk lower;
static struct faults faults;
static struct disk *disk;

static int setup(void **state) {
  (void)state;
  env_init(&env);
  arena_init(&arena);
  held_disk_init(&lower, &env);
  faults_init(&faults);
  said[0] = 0;
  if (buffer_pool_init(&pool, &env, &arena, 0) != TARN_OK) return -1;
  buffer = buffer_get(&pool, BUFFER_DATA_MAX);
  return fault_disk_new(&faults, 0, &lower.disk, &disk) == TARN_OK ? 0 : -1;
}

static int teardown(void **state) {
  (void)state;
  faults_heal(&faults);
  bool idle = disk->in_flight == 0;
  if (idle) disk_close(disk);
  buffer_unref(buffer);
  bool whole = buffer_pool_is_whole(&pool);
  arena_destroy(&arena);
  if (idle) faults_destroy(&faults);
  return whole && idle ? 0 : -1;
}

static void submit(uint32_t index, enum disk_op op, uint64_t offset, uint64_t length) {
  bool has_data = op == DISK_READ || op == DISK_WRITE || op == DISK_EXTENTS;
  ios[index] = (struct disk_io){.op = op,
                                .offset = offset,
                                .length = length,
                                .buffer = has_data ? buffer : NULL,
                                .data = has_data ? buffer->base + offset % BUFFER_ALIGN : NULL,
                                .done = io_done};
  disk_io_init(&ios[index]);
  disk_submit(disk, &ios[index]);
}
static void flush(uint32_t index) { submit(index, DISK_FLUSH, 0, 0); }
static void answer_all(void) {
  while (lower.count > 0) held_disk_answer(&lower, 0, TARN_OK);
  run_events(&env);
}
static void inject(struct fault_spec spec) {
  struct why why;
  assert_int_equal(faults_inject(&faults, &spec, &why), TARN_OK);
}

/* Reads zeroes from below: which sectors come back wrong, as text: ".#" for the second of two. */
static bool reads_as(uint64_t offset, uint64_t length, const char *expected) {
  char text[64] = "";
  submit(15, DISK_READ, offset, length);
  memset(ios[15].data, 0, length);
  answer_all();
  uint64_t count = 0;
  for (uint64_t at = offset; at < offset + length; at = align_down(at, 512) + 512) {
    uint64_t end = min_u64(align_down(at, 512) + 512, offset + length);
    unsigned bits = 0;
    for (uint64_t i = at; i < end; i++) bits += (unsigned)__builtin_popcount(ios[15].data[i - offset]);
    assert_true(bits <= 1);
    text[count++] = bits ? '#' : '.';
  }
  said[0] = 0;
  bool equal = strcmp(text, expected) == 0;
  return equal;
}

static void without_a_fault_it_is_not_there(void **state) {
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
      {"write with FUA", DISK_WRITE, DISK_FUA, 1024, 512, TARN_NO_SPACE},
      {"extents", DISK_EXTENTS, 0, 512, 65536, TARN_OK},
      {"flush", DISK_FLUSH, 0, 0, 0, TARN_GONE},
      {"trim", DISK_TRIM, DISK_FUA, 4096, 8192, TARN_OK},
      {"zeroes", DISK_WRITE_ZEROES, DISK_FUA | DISK_NO_HOLE, 0, SIZE, TARN_OK},
  };
  assert_memory_equal(&disk->caps, &lower.disk.caps, sizeof disk->caps);
  assert_ptr_equal(fault_disk_lower(disk), &lower.disk);
  assert_ptr_equal(fault_disk_lower(&lower.disk), &lower.disk);
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    submit(0, DISK_FLUSH, 0, 0); /* to fill in what the row then changes */
    answer_all();
    said[0] = 0;
    bool has_data = rows[i].op == DISK_READ || rows[i].op == DISK_WRITE || rows[i].op == DISK_EXTENTS;
    ios[0].op = rows[i].op;
    ios[0].flags = rows[i].flags;
    ios[0].offset = rows[i].offset;
    ios[0].length = rows[i].length;
    ios[0].buffer = has_data ? buffer : NULL;
    ios[0].data = has_data ? buffer->base + rows[i].offset : NULL;
    disk_submit(disk, &ios[0]);
    struct disk_io *below = held_disk_io(&lower, 0);
    row_true(rows[i].why, is_passed_on(below, &ios[0]));
    held_disk_answer(&lower, 0, rows[i].err);
    run_events(&env);
    row_true(rows[i].why, said[0] == 'a' && ios[0].err == rows[i].err && disk->in_flight == 0);
    row_true(rows[i].why, ios[0].extent_count == (rows[i].op == DISK_EXTENTS));
  }
  struct buffer *other = buffer_get(&pool, 512);
  submit(0, DISK_READ, 0, 512);
  held_disk_io(&lower, 0)->buffer = other;
  held_disk_io(&lower, 0)->data = other->base;
  answer_all();
  assert_ptr_equal(ios[0].buffer, other);
  assert_ptr_equal(ios[0].data, other->base);
  buffer_unref(other);
}

static void which_ios_meet_a_fault(void **state) {
  (void)state;
  static const struct {
    const char *why;
    uint32_t on;
    uint64_t offset, length;
    const char *fails; /* of the I/Os below, in their order */
  } rows[] = {
      {"everything", 0, 0, 0, "rwtzfe"},
      {"reads, and what is asked of extents", FAULT_ON_READ, 0, 0, "re"},
      {"writes: all that changes bytes", FAULT_ON_WRITE, 0, 0, "wtz"},
      {"flushes", FAULT_ON_FLUSH, 0, 0, "f"},
      {"two of them", FAULT_ON_READ | FAULT_ON_FLUSH, 0, 0, "rfe"},
      {"a range has no flushes", 0, 0, 4096, "rwtze"},
      {"unless they are asked for", FAULT_ON_FLUSH, 0, 4096, "f"},
      {"its last byte", 0, 4095, 1, "rwtze"},
      {"before it", 0, 0, 1024, ""},
      {"behind it", 0, 4096, 4096, ""},
      {"up to the end of everything", 0, 512, UINT64_MAX - 512, "rwtze"},
  };
  static const enum disk_op ops[] = {DISK_READ, DISK_WRITE, DISK_TRIM, DISK_WRITE_ZEROES, DISK_FLUSH, DISK_EXTENTS};
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    char fails[COUNT_OF(ops) + 1] = "";
    inject(
        (struct fault_spec){.kind = FAULT_FAIL, .on = rows[i].on, .offset = rows[i].offset, .length = rows[i].length});
    for (uint32_t k = 0; k < COUNT_OF(ops); k++) {
      uint32_t before = lower.submitted;
      submit(0, ops[k], ops[k] == DISK_FLUSH ? 0 : 1024, ops[k] == DISK_FLUSH ? 0 : 3072);
      answer_all();
      row_true(rows[i].why, (ios[0].err == TARN_IO) == (lower.submitted == before)); /* what fails does not reach it */
      if (ios[0].err) fails[strlen(fails)] = "rwtzfe"[k];
    }
    row_true(rows[i].why, strcmp(fails, rows[i].fails) == 0);
    faults_heal(&faults);
    said[0] = 0;
  }
}

static void a_hang_lets_writes_land_late(void **state) {
  (void)state;
  inject((struct fault_spec){.kind = FAULT_HANG, .on = FAULT_ON_WRITE | FAULT_ON_FLUSH});
  submit(0, DISK_WRITE, 512, 512);
  submit(1, DISK_READ, 0, 512);
  flush(2);
  submit(3, DISK_WRITE_ZEROES, 0, 512);
  pass(&env, 3600 * NS_PER_S);
  assert_int_equal(lower.count, 1);
  assert_int_equal(faults_kept(&faults), 3);
  answer_all();
  assert_true(said_so("b:ok "));
  faults_heal(&faults);
  assert_int_equal(faults_kept(&faults), 0);
  assert_int_equal(lower.count, 3);
  assert_int_equal(held_disk_io(&lower, 0)->op, DISK_WRITE); /* oldest first */
  assert_int_equal(held_disk_io(&lower, 0)->offset, 512);
  assert_int_equal(held_disk_io(&lower, 1)->op, DISK_FLUSH);
  answer_all();
  assert_true(said_so("a:ok c:ok d:ok "));
}

static void a_delay(void **state) {
  (void)state;
  inject((struct fault_spec){.kind = FAULT_DELAY, .delay_ns = 50 * NS_PER_MS});
  submit(0, DISK_WRITE, 0, 512);
  inject((struct fault_spec){.kind = FAULT_DELAY, .delay_ns = 20 * NS_PER_MS}); /* in its place: now it is 20 */
  assert_int_equal(faults.count, 1);
  pass(&env, 10 * NS_PER_MS);
  submit(1, DISK_WRITE, 512, 512);
  inject((struct fault_spec){.kind = FAULT_DELAY, .on = FAULT_ON_FLUSH, .delay_ns = 30 * NS_PER_MS});
  inject((struct fault_spec){.kind = FAULT_DELAY, .on = FAULT_ON_FLUSH | FAULT_ON_READ, .delay_ns = NS_PER_MS});
  flush(2); /* the longest of three */
  pass(&env, 20 * NS_PER_MS - 1);
  assert_int_equal(lower.submitted, 0);
  pass(&env, 1);
  assert_int_equal(held_disk_io(&lower, 0)->offset, 512); /* the second came first: each has its own time */
  pass(&env, 10 * NS_PER_MS);
  assert_int_equal(lower.submitted, 2);
  pass(&env, 10 * NS_PER_MS);
  assert_int_equal(lower.submitted, 3);
  answer_all();
  assert_true(said_so("b:ok c:ok a:ok "));
  flush(3);
  faults_heal(&faults); /* at once */
  assert_int_equal(lower.count, 1);
  answer_all();
  assert_true(said_so("d:ok "));
  assert_true(timers_next_ns(&env) == UINT64_MAX);
}

static void faults_together(void **state) {
  (void)state;
  inject((struct fault_spec){.kind = FAULT_FAIL});
  inject((struct fault_spec){.kind = FAULT_DELAY, .delay_ns = 5 * NS_PER_MS});
  flush(0);
  pass(&env, 5 * NS_PER_MS - 1);
  assert_true(said_so(""));
  pass(&env, 1);
  assert_true(said_so("a:io ")); /* late, and it fails */
  flush(1);
  faults_heal(&faults);
  answer_all();
  assert_true(said_so("b:ok ")); /* healed in time */
  inject((struct fault_spec){.kind = FAULT_FAIL});
  inject((struct fault_spec){.kind = FAULT_DELAY, .delay_ns = 5 * NS_PER_MS});
  inject((struct fault_spec){.kind = FAULT_HANG});
  flush(2);
  pass(&env, NS_PER_S);
  assert_true(said_so(""));
  assert_int_equal(faults_kept(&faults), 1);
  faults_heal(&faults);
  answer_all();
  assert_true(said_so("c:ok "));
}

static void corruption(void **state) {
  (void)state;
  assert_true(reads_as(0, 2048, "...."));
  inject((struct fault_spec){.kind = FAULT_CORRUPT, .offset = 512, .length = 1024});
  assert_true(reads_as(0, 2048, ".##."));
  assert_true(reads_as(0, 2048, ".##.")); /* the same each time */
  assert_true(reads_as(1024, 512, "#"));
  assert_true(reads_as(1536, 512, "."));
  submit(0, DISK_READ, 512, 512); /* a read that fails has nothing to change */
  ios[0].data[0] = 0;
  held_disk_answer(&lower, 0, TARN_IO);
  run_events(&env);
  assert_int_equal(ios[0].data[0], 0);
  faults_heal(&faults);
  assert_true(reads_as(0, 2048, "...."));
}

static void what_is_written_is_good_again(void **state) {
  (void)state;
  static const struct {
    const char *why;
    uint64_t offset, length; /* of the fault */
    enum disk_op op;
    tarn_err err;
    uint64_t write_offset, write_length;
    const char *before, *after; /* the first four blocks of 4 KiB: '#' if anything there is wrong */
  } rows[] = {
      {"a whole block", 0, 16384, DISK_WRITE, TARN_OK, 4096, 4096, "####", "#.##"},
      {"zeroes are a write", 0, 16384, DISK_WRITE_ZEROES, TARN_OK, 4096, 8192, "####", "#..#"},
      {"a trim may leave what was there", 0, 16384, DISK_TRIM, TARN_OK, 0, 16384, "####", "####"},
      {"a read does not repair", 0, 16384, DISK_READ, TARN_OK, 0, 16384, "####", "####"},
      {"a write that failed", 0, 16384, DISK_WRITE, TARN_IO, 0, 16384, "####", "####"},
      {"a part of a block", 0, 16384, DISK_WRITE, TARN_OK, 4096, 2048, "####", "####"},
      {"parts of two, and one whole", 0, 16384, DISK_WRITE, TARN_OK, 2048, 8192, "####", "#.##"},
      {"of a small fault it need not cover more", 4096, 512, DISK_WRITE, TARN_OK, 4096, 512, ".#..", "...."},
      {"nor of one that begins in a block", 512, 8192, DISK_WRITE, TARN_OK, 512, 8192, "###.", "...."},
      {"beside it", 4096, 4096, DISK_WRITE, TARN_OK, 8192, 4096, ".#..", ".#.."},
      {"everything", 0, 0, DISK_WRITE_ZEROES, TARN_OK, 0, SIZE, "####", "...."},
      {"everything, but only the disk's end is written", 0, 0, DISK_WRITE, TARN_OK, SIZE - 512, 512, "####", "####"},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    inject((struct fault_spec){.kind = FAULT_CORRUPT, .offset = rows[i].offset, .length = rows[i].length});
    for (int after = 0; after < 2; after++) {
      if (after) {
        submit(0, rows[i].op, rows[i].write_offset, rows[i].write_length);
        held_disk_answer(&lower, 0, rows[i].err);
        run_events(&env);
      }
      const char *expected = after ? rows[i].after : rows[i].before;
      for (uint64_t block = 0; block < 4; block++)
        row_true(rows[i].why, reads_as(block * 4096, 4096, "........") == (expected[block] == '.'));
    }
    faults_heal(&faults);
  }
}

static void the_last_block_may_be_short(void **state) {
  (void)state;
  disk_close(disk);
  held_disk_init(&lower, &env);
  lower.disk.caps.size_bytes = 16384 + 1024;
  assert_int_equal(fault_disk_new(&faults, 0, &lower.disk, &disk), TARN_OK);
  inject((struct fault_spec){.kind = FAULT_CORRUPT});
  assert_true(reads_as(16384, 1024, "##"));
  submit(0, DISK_WRITE, 16384, 1024);
  answer_all();
  assert_true(reads_as(16384, 1024, ".."));
  assert_true(reads_as(0, 512, "#"));
}

static void large_ranges_have_coarse_places(void **state) {
  (void)state;
  disk_close(disk);
  held_disk_init(&lower, &env);
  lower.disk.caps.size_bytes = 16ull << 40;
  lower.disk.caps.zero_bytes_max = 1ull << 30;
  assert_int_equal(fault_disk_new(&faults, 0, &lower.disk, &disk), TARN_OK);
  inject((struct fault_spec){.kind = FAULT_CORRUPT});
  uint64_t middle = 8ull << 40;
  assert_true(reads_as(middle, 1024, "##"));
  submit(0, DISK_WRITE, middle, 65536);
  answer_all();
  assert_true(reads_as(middle, 1024, "##"));
  submit(0, DISK_WRITE_ZEROES, middle, 64 << 20);
  answer_all();
  assert_true(reads_as(middle, 1024, ".."));
  assert_true(reads_as(middle - 512, 1024, "#."));
}

static void faults_outlive_the_disk(void **state) {
  (void)state;
  inject((struct fault_spec){.kind = FAULT_CORRUPT, .length = 8192});
  submit(0, DISK_WRITE, 4096, 4096);
  answer_all();
  disk_close(disk);
  inject((struct fault_spec){.kind = FAULT_FAIL, .on = FAULT_ON_WRITE}); /* while it is closed */
  held_disk_init(&lower, &env);
  assert_int_equal(fault_disk_new(&faults, 0, &lower.disk, &disk), TARN_OK);
  said[0] = 0;
  submit(0, DISK_WRITE, 0, 512);
  run_events(&env);
  assert_true(said_so("a:io "));
  assert_true(reads_as(0, 512, "#"));
  assert_true(reads_as(4096, 512, "."));
  disk_close(disk);
  faults_heal(&faults);
  inject((struct fault_spec){.kind = FAULT_CORRUPT, .length = 8192}); /* its places are noted when a disk comes */
  held_disk_init(&lower, &env);
  assert_int_equal(fault_disk_new(&faults, 0, &lower.disk, &disk), TARN_OK);
  assert_true(reads_as(4096, 512, "#"));

  faults_heal(&faults);
  inject((struct fault_spec){.kind = FAULT_CORRUPT});
  disk_close(disk);
  held_disk_init(&lower, &env);
  lower.disk.caps.size_bytes = 2 * SIZE; /* another file, larger */
  assert_int_equal(fault_disk_new(&faults, 0, &lower.disk, &disk), TARN_OK);
  assert_true(reads_as(SIZE - 512, 1024, "##"));
  submit(0, DISK_WRITE, SIZE - 4096, 8192);
  answer_all();
  assert_true(reads_as(SIZE - 512, 1024, ".#"));
}

static void each_volume_has_its_own(void **state) {
  (void)state;
  struct held_disk lower_1;
  struct disk *disk_0 = disk, *disk_1;
  held_disk_init(&lower_1, &env);
  inject((struct fault_spec){.kind = FAULT_CORRUPT, .length = 4096});
  assert_int_equal(fault_disk_new(&faults, 1, &lower_1.disk, &disk_1), TARN_OK);
  submit(0, DISK_WRITE, 0, 4096); /* on volume 0 */
  answer_all();
  assert_true(reads_as(0, 512, "."));
  disk = disk_1;
  submit(0, DISK_READ, 0, 512);
  ios[0].data[0] = 0;
  held_disk_answer(&lower_1, 0, TARN_OK);
  run_events(&env);
  assert_int_equal(ios[0].data[0], 0x10);
  inject((struct fault_spec){.kind = FAULT_HANG});
  flush(0);
  disk = disk_0;
  flush(1);
  assert_int_equal(faults_kept(&faults), 2);
  faults_heal(&faults);
  held_disk_answer(&lower_1, 0, TARN_OK);
  answer_all();
  disk_close(disk_1);
}

static void more_than_it_has_places_for(void **state) {
  (void)state;
  enum { COUNT = 3000 };
  struct disk_io *many = calloc(COUNT, sizeof *many);
  assert_non_null(many);
  for (uint32_t i = 0; i < COUNT; i++) {
    many[i] = (struct disk_io){.op = DISK_WRITE_ZEROES, .offset = 512ull * (i % 2048), .length = 512, .done = io_done};
    disk_io_init(&many[i]);
    disk_submit(disk, &many[i]);
  }
  for (uint32_t i = 0; i < COUNT; i++) {
    assert_int_equal(held_disk_io(&lower, 0)->offset, 512ull * (i % 2048)); /* first come, first served */
    held_disk_answer(&lower, 0, TARN_OK);
    run_events(&env);
    said[0] = 0;
  }
  assert_int_equal(lower.count, 0);
  inject((struct fault_spec){.kind = FAULT_DELAY, .delay_ns = NS_PER_MS});
  inject((struct fault_spec){.kind = FAULT_FAIL});
  for (uint32_t i = 0; i < COUNT; i++) disk_submit(disk, &many[i]);
  pass(&env, 3 * NS_PER_MS); /* a place of one that failed is free for those who wait */
  assert_int_equal(disk->in_flight, 0);
  inject((struct fault_spec){.kind = FAULT_HANG});
  for (uint32_t i = 0; i < COUNT; i++) disk_submit(disk, &many[i]);
  faults_heal(&faults);
  answer_all();
  while (lower.count > 0) answer_all();
  assert_int_equal(disk->in_flight, 0);
  free(many);
}

static void what_is_refused(void **state) {
  (void)state;
  static const struct {
    const char *why;
    struct fault_spec spec;
    const char *says;
  } rows[] = {
      {"no such operation", {.kind = FAULT_FAIL, .on = 8}, "read, write or flush"},
      {"a delay of nothing", {.kind = FAULT_DELAY}, "a delay is"},
      {"of more than a day", {.kind = FAULT_DELAY, .delay_ns = FAULT_DELAY_NS_MAX + 1}, "a delay is"},
      {"a range that wraps around", {.kind = FAULT_FAIL, .offset = 512, .length = UINT64_MAX}, "beyond"},
      {"a place without a length", {.kind = FAULT_FAIL, .offset = 512}, "no length"},
      {"corrupted writes", {.kind = FAULT_CORRUPT, .on = FAULT_ON_READ | FAULT_ON_WRITE}, "read only"},
  };
  struct why why;
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    why.text[0] = 0;
    row_true(rows[i].why, faults_inject(&faults, &rows[i].spec, &why) == TARN_INVALID);
    row_true(rows[i].why, strstr(why.text, rows[i].says) != NULL);
    row_true(rows[i].why, faults.count == 0);
  }
  for (uint32_t i = 0; i < FAULTS_MAX; i++) inject((struct fault_spec){.kind = FAULT_CORRUPT, .length = i + 1});
  inject((struct fault_spec){.kind = FAULT_CORRUPT, .length = 1}); /* one of them again */
  struct fault_spec more = {.kind = FAULT_CORRUPT, .length = 4096};
  assert_int_equal(faults_inject(&faults, &more, &why), TARN_FULL);
  assert_int_equal(faults.count, FAULTS_MAX);
}

static void how_it_is_said(void **state) {
  (void)state;
  static const struct {
    struct fault_spec spec;
    const char *text;
  } rows[] = {
      {{.kind = FAULT_FAIL, .on = 7}, "fail --on read,write,flush"},
      {{.kind = FAULT_HANG, .on = FAULT_ON_WRITE | FAULT_ON_FLUSH}, "hang --on write,flush"},
      {{.kind = FAULT_DELAY, .on = FAULT_ON_READ, .delay_ns = 50 * NS_PER_MS}, "delay=50 --on read"},
      {{.kind = FAULT_CORRUPT, .on = FAULT_ON_READ, .offset = 4096, .length = 512},
       "corrupt --range 4096+512 --on read"},
      {{.kind = FAULT_DELAY,
        .on = 7,
        .offset = UINT64_MAX / 2,
        .length = UINT64_MAX / 2,
        .delay_ns = UINT64_MAX - NS_PER_MS},
       "delay=18446744073709 --range 9223372036854775807+9223372036854775807 --on read,write,flush"}, /* the longest */
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    char text[FAULT_SPEC_TEXT_MAX];
    fault_spec_text(&rows[i].spec, text);
    assert_string_equal(text, rows[i].text);
  }
}

#define FAULT_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void) {
  const struct CMUnitTest tests[] = {
      FAULT_TEST(without_a_fault_it_is_not_there),
      FAULT_TEST(which_ios_meet_a_fault),
      FAULT_TEST(a_hang_lets_writes_land_late),
      FAULT_TEST(a_delay),
      FAULT_TEST(faults_together),
      FAULT_TEST(corruption),
      FAULT_TEST(what_is_written_is_good_again),
      FAULT_TEST(the_last_block_may_be_short),
      FAULT_TEST(large_ranges_have_coarse_places),
      FAULT_TEST(faults_outlive_the_disk),
      FAULT_TEST(each_volume_has_its_own),
      FAULT_TEST(more_than_it_has_places_for),
      FAULT_TEST(what_is_refused),
      cmocka_unit_test(how_it_is_said),
  };
  return cmocka_run_group_tests_name("fault_disk", tests, NULL, NULL);
}
