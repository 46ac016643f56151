/* The transmission phase: each command, what it does to the disk, what the client is answered. */
#include "test_nbd_world.h"
#include "unit.h"

#define MIB (1u << 20)

enum {
  DISK_PLAIN = 0,
  DISK_RO = 1,
  DISK_NO_ZERO = 2,
  DISK_NO_TRIM = 4,
  DISK_512 = 8,
  DISK_TINY = 16,
  DISK_ZERO_MAX = 32,
  DISK_HANGS = 64
};

static struct world *transmitting(unsigned kind, bool structured) {
  struct world *world = world_new(2 * MIB, kind & DISK_HANGS ? 0 : 16 * MIB); /* an image that hangs keeps buffers */
  world->keep_buffers = (kind & DISK_HANGS) != 0;
  struct disk_caps *caps = &world->disk.caps;
  caps->read_only = (kind & DISK_RO) != 0;
  caps->can_zero = !(kind & DISK_NO_ZERO);
  caps->can_trim = !(kind & DISK_NO_TRIM);
  if (kind & DISK_512) caps->block_bytes = 512;
  if (kind & DISK_TINY) caps->io_bytes_max = 4096;
  if (kind & DISK_ZERO_MAX) caps->zero_bytes_max = 65536;
  world_transmit(world, structured);
  return world;
}

#define FUA     NBD_CMD_FLAG_FUA
#define DF      NBD_CMD_FLAG_DF
#define NO_HOLE NBD_CMD_FLAG_NO_HOLE
#define FAST    NBD_CMD_FLAG_FAST_ZERO

/* One request each, cookie 7; the disk completes in order. */
static const struct {
  const char *why;
  unsigned disk;
  bool structured;
  uint16_t flags, command;
  uint64_t offset;
  uint32_t length;
  const char *reply, *log;
} commands[] = {
    /* READ */
    {"a byte", 0, false, 0, NBD_CMD_READ, 5, 1, "simple 7 ok +1\n", "read 5+1\n"},
    {"the last byte", 0, false, 0, NBD_CMD_READ, 2 * MIB - 1, 1, "simple 7 ok +1\n", "read 2097151+1\n"},
    {"a byte, as a chunk", 0, true, 0, NBD_CMD_READ, 5, 1, "data 7 5+1 done\n", "read 5+1\n"},
    {"nothing", 0, false, 0, NBD_CMD_READ, 5, 0, "simple 7 ok\n", ""},
    {"nothing, as a chunk", 0, true, 0, NBD_CMD_READ, 5, 0, "none 7 done\n", ""},
    {"nothing, at the very end", 0, false, 0, NBD_CMD_READ, 2 * MIB, 0, "simple 7 ok\n", ""},
    {"FUA is allowed on everything", 0, false, FUA, NBD_CMD_READ, 0, 512, "simple 7 ok +512\n", "read 0+512\n"},
    {"past the end", 0, false, 0, NBD_CMD_READ, 2 * MIB - 1, 2, "simple 7 EINVAL\n", ""},
    {"past the end, structured", 0, true, 0, NBD_CMD_READ, 2 * MIB - 1, 2, "error 7 EINVAL done\n", ""},
    {"wrapping around", 0, false, 0, NBD_CMD_READ, UINT64_MAX, 2, "simple 7 EINVAL\n", ""},
    {"longer than can be", 0, false, 0, NBD_CMD_READ, 0, UINT32_MAX, "simple 7 EINVAL\n", ""},
    {"DF needs structured replies", 0, false, DF, NBD_CMD_READ, 0, 1, "simple 7 EINVAL\n", ""},
    {"a flag of another command", 0, false, NO_HOLE, NBD_CMD_READ, 0, 1, "simple 7 EINVAL\n", ""},
    {"an unknown flag", 0, true, 1 << 9, NBD_CMD_READ, 0, 1, "error 7 EINVAL done\n", ""},
    {"misaligned on a disk of blocks", DISK_512, false, 0, NBD_CMD_READ, 256, 512, "simple 7 EINVAL\n", ""},
    {"a part of a block", DISK_512, false, 0, NBD_CMD_READ, 512, 1, "simple 7 EINVAL\n", ""},
    {"a whole block", DISK_512, false, 0, NBD_CMD_READ, 512, 512, "simple 7 ok +512\n", "read 512+512\n"},
    {"a long one in pieces, cut where pages end", 0, false, 0, NBD_CMD_READ, 100, 600000, "simple 7 ok +600000\n",
     "read 100+262044\nread 262144+262144\nread 524288+75812\n"},
    {"in chunks", 0, true, 0, NBD_CMD_READ, 100, 600000,
     "data 7 100+262044\ndata 7 262144+262144\ndata 7 524288+75812 done\n",
     "read 100+262044\nread 262144+262144\nread 524288+75812\n"},
    {"in one chunk, because DF", 0, true, DF, NBD_CMD_READ, 100, 600000, "data 7 100+600000\nnone 7 done\n",
     "read 100+262044\nread 262144+262144\nread 524288+75812\n"},
    {"a short DF", 0, true, DF, NBD_CMD_READ, 0, 65536, "data 7 0+65536 done\n", "read 0+65536\n"},
    {"DF on a disk of short I/Os", DISK_TINY, true, DF, NBD_CMD_READ, 0, 16384, "data 7 0+16384\nnone 7 done\n",
     "read 0+4096\nread 4096+4096\nread 8192+4096\nread 12288+4096\n"},

    /* FLUSH */
    {"flush", 0, false, 0, NBD_CMD_FLUSH, 0, 0, "simple 7 ok\n", "flush\n"},
    {"flush, structured: a simple reply will do", 0, true, FUA, NBD_CMD_FLUSH, 0, 0, "simple 7 ok\n", "flush\n"},
    {"flush is allowed on a read-only one", DISK_RO, false, 0, NBD_CMD_FLUSH, 0, 0, "simple 7 ok\n", "flush\n"},
    {"flush has no offset", 0, false, 0, NBD_CMD_FLUSH, 1, 0, "simple 7 EINVAL\n", ""},
    {"flush has no length", 0, false, 0, NBD_CMD_FLUSH, 0, 1, "simple 7 EINVAL\n", ""},

    /* TRIM */
    {"trim", 0, false, 0, NBD_CMD_TRIM, 4096, 8192, "simple 7 ok\n", "trim 4096+8192\n"},
    {"trim, FUA", 0, false, FUA, NBD_CMD_TRIM, 4096, 8192, "simple 7 ok\n", "trim 4096+8192 fua\n"},
    {"trim rounds inwards", 0, false, 0, NBD_CMD_TRIM, 4095, 8194, "simple 7 ok\n", "trim 4096+8192\n"},
    {"less than a block of trim is nothing", 0, false, FUA, NBD_CMD_TRIM, 4097, 8190, "simple 7 ok\n", ""},
    {"inside one block", 0, false, 0, NBD_CMD_TRIM, 4097, 5, "simple 7 ok\n", ""},
    {"no trim", 0, false, 0, NBD_CMD_TRIM, 0, 0, "simple 7 ok\n", ""},
    {"trim past the end", 0, false, 0, NBD_CMD_TRIM, 2 * MIB - 4096, 8192, "simple 7 EINVAL\n", ""},
    {"trim on a read-only one", DISK_RO, false, 0, NBD_CMD_TRIM, 0, 4096, "simple 7 EPERM\n", ""},
    {"trim that was not offered", DISK_NO_TRIM, true, 0, NBD_CMD_TRIM, 0, 4096, "error 7 EINVAL done\n", ""},
    {"trim in pieces, then one flush for FUA", DISK_ZERO_MAX, false, FUA, NBD_CMD_TRIM, 0, 131072, "simple 7 ok\n",
     "trim 0+65536\ntrim 65536+65536\nflush\n"},

    /* WRITE_ZEROES */
    {"zeroes", 0, false, 0, NBD_CMD_WRITE_ZEROES, 4096, 8192, "simple 7 ok\n", "write-zeroes 4096+8192\n"},
    {"zeroes, FUA and no hole", 0, false, FUA | NO_HOLE, NBD_CMD_WRITE_ZEROES, 0, 4096, "simple 7 ok\n",
     "write-zeroes 0+4096 fua no-hole\n"},
    {"the edges are written", 0, false, 0, NBD_CMD_WRITE_ZEROES, 4000, 8292, "simple 7 ok\n",
     "write 4000+96\nwrite-zeroes 4096+8192\nwrite 12288+4\n"},
    {"edges, FUA: one flush", 0, false, FUA | NO_HOLE, NBD_CMD_WRITE_ZEROES, 4000, 8292, "simple 7 ok\n",
     "write 4000+96\nwrite-zeroes 4096+8192 no-hole\nwrite 12288+4\nflush\n"},
    {"inside one block", 0, false, FUA, NBD_CMD_WRITE_ZEROES, 5, 7, "simple 7 ok\n", "write 5+7 fua\n"},
    {"no zeroes", 0, false, FUA, NBD_CMD_WRITE_ZEROES, 5, 0, "simple 7 ok\n", ""},
    {"fast zeroes", 0, false, FAST, NBD_CMD_WRITE_ZEROES, 0, MIB, "simple 7 ok\n", "write-zeroes 0+1048576\n"},
    {"fast zeroes that are not, before anything is touched", DISK_NO_ZERO, true, FAST, NBD_CMD_WRITE_ZEROES, 0, MIB,
     "error 7 ENOTSUP done\n", ""},
    {"slow zeroes are written", DISK_NO_ZERO, false, 0, NBD_CMD_WRITE_ZEROES, 1, 524288, "simple 7 ok\n",
     "write 1+262143\nwrite 262144+262144\nwrite 524288+1\n"},
    {"slow zeroes, FUA", DISK_NO_ZERO, false, FUA, NBD_CMD_WRITE_ZEROES, 0, 4096, "simple 7 ok\n",
     "write 0+4096 fua\n"},
    {"more pieces than the window", DISK_ZERO_MAX, false, FUA, NBD_CMD_WRITE_ZEROES, 0, 6 * 65536, "simple 7 ok\n",
     "write-zeroes 0+65536\nwrite-zeroes 65536+65536\nwrite-zeroes 131072+65536\nwrite-zeroes 196608+65536\n"
     "write-zeroes 262144+65536\nwrite-zeroes 327680+65536\nflush\n"},
    {"zeroes past the end", 0, false, 0, NBD_CMD_WRITE_ZEROES, 2 * MIB - 1, 2, "simple 7 ENOSPC\n", ""},
    {"zeroes on a read-only one", DISK_RO, false, 0, NBD_CMD_WRITE_ZEROES, 0, 1, "simple 7 EPERM\n", ""},

    /* CACHE */
    {"a read that nobody is sent", 0, false, 0, NBD_CMD_CACHE, 5, 4096, "simple 7 ok\n", "read 5+4096\n"},
    {"the same, structured", 0, true, FUA, NBD_CMD_CACHE, 0, 4096, "simple 7 ok\n", "read 0+4096\n"},
    {"also of a read-only one", DISK_RO, false, 0, NBD_CMD_CACHE, 0, 4096, "simple 7 ok\n", "read 0+4096\n"},
    {"nothing", 0, false, 0, NBD_CMD_CACHE, 0, 0, "simple 7 ok\n", ""},
    {"a long one", 0, false, 0, NBD_CMD_CACHE, 100, 600000, "simple 7 ok\n",
     "read 100+262044\nread 262144+262144\nread 524288+75812\n"},
    {"more pieces than the window", DISK_TINY, false, 0, NBD_CMD_CACHE, 0, 6 * 4096, "simple 7 ok\n",
     "read 0+4096\nread 4096+4096\nread 8192+4096\nread 12288+4096\nread 16384+4096\nread 20480+4096\n"},
    {"past the end", 0, false, 0, NBD_CMD_CACHE, 2 * MIB - 4096, 8192, "simple 7 EINVAL\n", ""},
    {"longer than can be", 0, true, 0, NBD_CMD_CACHE, 0, UINT32_MAX, "error 7 EINVAL done\n", ""},
    {"a flag that it does not have", 0, false, DF, NBD_CMD_CACHE, 0, 4096, "simple 7 EINVAL\n", ""},

    /* what is not there */
    {"no context was negotiated", 0, true, 0, NBD_CMD_BLOCK_STATUS, 0, 4096, "error 7 EINVAL done\n", ""},
    {"RESIZE", 0, false, 0, NBD_CMD_RESIZE, 0, 4096, "simple 7 EINVAL\n", ""},
    {"a command of the future", 0, false, 0, 4711, 0, 4096, "simple 7 EINVAL\n", ""},
};

static uint32_t row_length;
static uint64_t row_offset;
static uint32_t length_of(uint64_t cookie) { return cookie == 7 ? row_length : 0; }
static uint64_t offset_of(uint64_t cookie) { return cookie == 7 ? row_offset : 0; }

/* What a zeroing or trimming row must leave. */
static void expect_bytes(const char *why, struct world *world, uint8_t *before, uint64_t from, uint64_t to) {
  memset(before + from, 0, (size_t)(to - from));
  row_true(why, memcmp(before, world->bytes, 2 * MIB) == 0);
}

static void each_command(void **state) {
  (void)state;
  static uint8_t before[2 * MIB];
  for (size_t i = 0; i < COUNT_OF(commands); i++) {
    struct world *world = transmitting(commands[i].disk, commands[i].structured);
    memcpy(before, world->bytes, sizeof before);
    say_request(world, commands[i].flags, commands[i].command, 7, commands[i].offset, commands[i].length);
    world_run(world);
    row_offset = commands[i].offset;
    row_length = commands[i].command == NBD_CMD_READ ? commands[i].length : 0;
    struct reply_reader how = {.length_of = length_of, .offset_of = offset_of, .image = before};
    const char *reply = world_replies_with(world, &how), *log = world_log(world);
    if (strcmp(reply, commands[i].reply) != 0) fail_msg("row \"%s\": %s", commands[i].why, reply);
    if (strcmp(log, commands[i].log) != 0) fail_msg("row \"%s\": %s", commands[i].why, log);
    bool ok = strstr(reply, "ok") != NULL;
    uint64_t from = commands[i].offset, to = from + commands[i].length;
    if (commands[i].command == NBD_CMD_TRIM && ok) {
      from = align_up(from, 4096);
      to = max_u64(align_down(to, 4096), from);
    } else if (commands[i].command != NBD_CMD_WRITE_ZEROES || !ok) {
      from = to = 0;
    }
    expect_bytes(commands[i].why, world, before, from, to);
    assert_int_equal(nbd_session_requests_open(world->session), 0);
    world_free(world);
  }
}

static const struct {
  const char *why;
  unsigned disk;
  uint16_t flags;
  uint64_t offset;
  uint32_t length;
  const char *reply, *log;
} writes[] = {
    {"a byte", 0, 0, 77, 1, "simple 7 ok\n", "write 77+1\n"},
    {"nothing", 0, FUA, 77, 0, "simple 7 ok\n", ""},
    {"FUA", 0, FUA, 0, 4096, "simple 7 ok\n", "write 0+4096 fua\n"},
    {"just what our own buffer holds", 0, 0, 0, 16384, "simple 7 ok\n", "write 0+16384\n"},
    {"a bit more", 0, 0, 3, 16385, "simple 7 ok\n", "write 3+16385\n"},
    {"one full piece", 0, FUA, 0, 262144, "simple 7 ok\n", "write 0+262144 fua\n"},
    {"pieces, cut where pages end", 0, 0, 4095, 300000, "simple 7 ok\n", "write 4095+258049\nwrite 262144+41951\n"},
    {"pieces with FUA: one flush after them", 0, FUA, 4095, 300000, "simple 7 ok\n",
     "write 4095+258049\nwrite 262144+41951\nflush\n"},
    {"short pieces", DISK_TINY, 0, 1, 10000, "simple 7 ok\n", "write 1+4095\nwrite 4096+4096\nwrite 8192+1809\n"},
    {"all of it", 0, 0, 0, 2 * MIB, "simple 7 ok\n",
     "write 0+262144\nwrite 262144+262144\nwrite 524288+262144\nwrite 786432+262144\n"
     "write 1048576+262144\nwrite 1310720+262144\nwrite 1572864+262144\nwrite 1835008+262144\n"},
    {"past the end", 0, 0, 2 * MIB - 1, 2, "simple 7 ENOSPC\n", ""},
    {"far past the end", 0, 0, UINT64_MAX - 5, 100000, "simple 7 ENOSPC\n", ""},
    {"longer than the disk", 0, 0, 0, 2 * MIB + 1, "simple 7 ENOSPC\n", ""},
    {"read-only", DISK_RO, 0, 0, 40000, "simple 7 EPERM\n", ""},
    {"a flag of another command", 0, NO_HOLE, 0, 512, "simple 7 EINVAL\n", ""},
    {"misaligned on a disk of blocks", DISK_512, 0, 512, 511, "simple 7 EINVAL\n", ""},
    {"blocks", DISK_512, 0, 512, 1024, "simple 7 ok\n", "write 512+1024\n"},
};

static void each_write(void **state) {
  (void)state;
  static uint8_t image[2 * MIB];
  static const size_t bites[] = {SIZE_MAX, 1, 7, 4096, 40000};
  for (size_t i = 0; i < COUNT_OF(writes); i++) {
    for (size_t bite = 0; bite < COUNT_OF(bites); bite++) {
      struct world *world = transmitting(writes[i].disk, false);
      memcpy(image, world->bytes, sizeof image);
      world->bite = bites[bite];
      say_write(world, writes[i].flags, 7, writes[i].offset, writes[i].length, 0x5a);
      say_request(world, 0, NBD_CMD_READ, 8, 0, 0); /* the stream is still in step */
      world_run(world);
      const char *reply = world_replies(world), *log = world_log(world);
      row_true(writes[i].why, strstr(reply, "simple 8 ok\n") != NULL);
      row_true(writes[i].why, strstr(reply, writes[i].reply) != NULL);
      if (strcmp(log, writes[i].log) != 0) fail_msg("row \"%s\": %s", writes[i].why, log);
      if (strstr(writes[i].reply, "ok")) memset(image + writes[i].offset, 0x5a, writes[i].length);
      row_true(writes[i].why, memcmp(image, world->bytes, sizeof image) == 0);
      world_free(world);
    }
  }
}

/* ---- errors of the disk ---- */

static void every_error_has_its_number(void **state) {
  (void)state;
  static const char *const names[TARN_ERR_COUNT] = {
      [TARN_IO] = "EIO",     [TARN_REFUSED] = "EPERM",   [TARN_CORRUPT] = "EIO",        [TARN_STALE] = "EIO",
      [TARN_FULL] = "EIO",   [TARN_NO_SPACE] = "ENOSPC", [TARN_RANGE] = "EINVAL",       [TARN_UNSUPPORTED] = "ENOTSUP",
      [TARN_GONE] = "EIO",   [TARN_HUNG] = "EIO",        [TARN_SHUTDOWN] = "ESHUTDOWN", [TARN_NOT_FOUND] = "EIO",
      [TARN_EXISTS] = "EIO", [TARN_VERSION] = "EIO",     [TARN_INVALID] = "EINVAL",
  };
  static const uint16_t kinds[] = {NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_FLUSH, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES};
  for (int err = TARN_OK + 1; err < TARN_ERR_COUNT; err++) {
    for (size_t i = 0; i < 2 * COUNT_OF(kinds); i++) {
      uint16_t command = kinds[i / 2];
      bool structured = i % 2;
      struct world *world = transmitting(0, structured);
      world->fail_at = 1;
      world->fail_err = (tarn_err)err;
      if (command == NBD_CMD_WRITE) say_write(world, 0, 7, 0, 4096, 1);
      else say_request(world, 0, command, 7, 0, command == NBD_CMD_FLUSH ? 0 : 4096);
      world_run(world);
      const char *name = names[err];
      if (command == NBD_CMD_WRITE_ZEROES && err == TARN_UNSUPPORTED)
        name = "EIO"; /* the protocol: never ENOTSUP there */
      char expected[64];
      (void)snprintf(expected, sizeof expected, structured ? "error 7 %s done\n" : "simple 7 %s\n", name);
      assert_string_equal(world_replies(world), expected);
      assert_false(world_hangs_up(world));
      world_free(world);
    }
  }
}

/* Each I/O of a long request fails in turn, once or from then on, in any order of completion: one error is answered,
 * the stream stays in step, nothing leaks. */
static void sweep(uint16_t flags, uint16_t command, bool structured, unsigned kind, bool may_cut) {
  for (uint32_t fail_at = 1;; fail_at++) {
    bool done = false;
    for (int how = 0; how < 6; how++) {
      struct world *world = transmitting(kind, structured);
      world->fail_at = fail_at;
      world->order = (enum world_order)(how % 3);
      world->fail_for_good = how >= 3;
      if (command == NBD_CMD_WRITE) say_write(world, flags, 7, 100, MIB + 500000, 1);
      else say_request(world, flags, command, 7, 100, MIB + 500000);
      world_run(world);
      bool failed = world->ios_done >= fail_at;
      bool cut = world_hangs_up(world);
      assert_true(implies(cut, failed && may_cut));
      row_offset = 100;
      row_length = command == NBD_CMD_READ ? MIB + 500000 : 0;
      if (!cut) {
        const char *reply = world_replies_with(world, &(struct reply_reader){.length_of = length_of});
        assert_true(strstr(reply, "EIO") ? failed : !failed);
        assert_null(strstr(reply, "CUT"));
        assert_null(strstr(reply, "GARBAGE"));
        assert_int_equal(nbd_session_requests_open(world->session), 0);
        world->fail_at = 0;
        say_request(world, 0, NBD_CMD_FLUSH, 9, 0, 0);
        world_run(world);
        assert_string_equal(world_replies(world), "simple 9 ok\n");
      }
      done = !failed;
      world_free(world);
    }
    if (done) break;
  }
}
static void sweep_of_failures(void **state) {
  (void)state;
  sweep(0, NBD_CMD_READ, true, 0, false);
  sweep(DF, NBD_CMD_READ, true, 0, false);
  sweep(0, NBD_CMD_READ, false, 0, true);
  sweep(0, NBD_CMD_WRITE, true, 0, false);
  sweep(FUA, NBD_CMD_WRITE, false, 0, false);
  sweep(FUA, NBD_CMD_WRITE_ZEROES, true, DISK_NO_ZERO, false);
  sweep(0, NBD_CMD_WRITE_ZEROES, true, DISK_NO_ZERO | DISK_HANGS, false);
  sweep(FUA, NBD_CMD_WRITE, true, DISK_HANGS, false);
  sweep(FUA, NBD_CMD_WRITE_ZEROES, false, DISK_ZERO_MAX, false);
  sweep(FUA, NBD_CMD_TRIM, false, DISK_ZERO_MAX, false);
}

static void a_short_simple_read_fails_in_words(void **state) {
  (void)state;
  for (uint32_t fail_at = 1; fail_at <= 4; fail_at++) { /* one window: all is read before the header goes */
    struct world *world = transmitting(0, false);
    world->fail_at = fail_at;
    say_request(world, 0, NBD_CMD_READ, 7, 0, MIB);
    world_run(world);
    assert_string_equal(world_replies(world), "simple 7 EIO\n");
    assert_false(world_hangs_up(world));
    world_free(world);
  }
}

static void a_long_simple_read_is_cut_off(void **state) {
  (void)state;
  struct world *world = transmitting(0, false);
  world->fail_at = 6;
  say_request(world, 0, NBD_CMD_READ, 7, 0, 2 * MIB);
  world_run(world);
  assert_true(world_hangs_up(world));
  assert_true(world->output_bytes - world->output_at < 16 + 2 * MIB);
  world_free(world);
}

static void a_failed_piece_of_df_is_padded(void **state) {
  (void)state;
  struct world *world = transmitting(0, true);
  world->fail_at = 6;
  say_request(world, 0, NBD_CMD_READ, 8, 0, 16); /* the first I/O */
  say_request(world, DF, NBD_CMD_READ, 7, 0, 2 * MIB);
  world_run(world);
  assert_string_equal(world_replies(world), "data 8 0+16 done\ndata 7 0+2097152\nerror 7 EIO done\n");
  assert_memory_equal(world->output + world->output_bytes - 26 - MIB, (uint8_t[100]){0}, 100);
  world_free(world);
}

static void first_error_wins(void **state) {
  (void)state;
  struct world *world = transmitting(0, false);
  say_write(world, FUA, 7, 0, 300000, 1);
  world->order = ORDER_HOLD;
  world_run(world);
  world->fail_at = 1;
  world->fail_err = TARN_NO_SPACE;
  assert_true(world_disk_step(world, ORDER_FIRST));
  world->fail_at = 2;
  world->fail_err = TARN_IO;
  world->order = ORDER_FIRST;
  world_run(world);
  assert_string_equal(world_replies(world), "simple 7 ENOSPC\n");
  assert_string_equal(world_log(world), "write 0+262144\nwrite 262144+37856\n"); /* and no flush */
  world_free(world);
}

/* ---- order and durability ---- */

static void answers_come_when_they_are_true(void **state) {
  (void)state;
  struct world *world = transmitting(0, true);
  world->order = ORDER_HOLD;
  say_write(world, 0, 1, 0, 10, 1);
  say_write(world, FUA, 2, 0, 10, 2);
  say_request(world, 0, NBD_CMD_FLUSH, 3, 0, 0);
  say_request(world, 0, NBD_CMD_READ, 4, 4096, 10);
  world_run(world);
  assert_string_equal(world_log(world), "write 0+10\nwrite 0+10 fua\nflush\nread 4096+10\n");
  assert_int_equal(nbd_session_requests_open(world->session), 4);
  static const char *const answers[] = {"data 4 4096+10 done\n", "simple 3 ok\n", "simple 2 ok\n", "simple 1 ok\n"};
  for (size_t i = 0; i < COUNT_OF(answers); i++) {
    assert_string_equal(world_replies(world), "");
    assert_true(world_disk_step(world, ORDER_LAST));
    world_run(world);
    assert_string_equal(world_replies(world), answers[i]);
  }
  world_free(world);
}

/* `lost`: the disk loses what it has answered, before the last piece is there. */
static void long_fua(bool lost, const char *reply) {
  struct world *world = transmitting(0, false);
  world->order = ORDER_HOLD;
  say_write(world, FUA, 7, 0, 700000, 1);
  world_run(world);
  assert_string_equal(world_log(world), "write 0+262144\nwrite 262144+262144\nwrite 524288+175712\n");
  for (int i = 0; i < 3; i++) {
    assert_string_equal(world_log(world), "");
    if (i == 2 && lost) world->disk.losses++;
    assert_true(world_disk_step(world, ORDER_LAST));
    world_run(world);
  }
  assert_string_equal(world_log(world), "flush\n");
  assert_string_equal(world_replies(world), "");
  assert_true(world_disk_step(world, ORDER_FIRST));
  world_run(world);
  assert_string_equal(world_replies(world), reply);
  world_free(world);
}

static void flush_for_fua_waits_for_all_pieces(void **state) {
  (void)state;
  long_fua(false, "simple 7 ok\n");
}

/* The flush behind them is good, and proves nothing of those that were lost before it. */
static void flush_for_fua_tells_of_a_loss(void **state) {
  (void)state;
  long_fua(true, "simple 7 EIO\n");
}

/* While a long simple reply is being sent, others wait; two long ones take turns. */
static uint32_t two_long(uint64_t cookie) { return cookie <= 2 ? 2 * MIB : cookie == 3 ? 512 : 0; }
static uint64_t two_offset(uint64_t cookie) { return cookie == 3 ? 777 : 0; }
static void long_simple_replies_are_in_one_piece(void **state) {
  (void)state;
  for (unsigned order = ORDER_FIRST; order <= ORDER_RANDOM; order++) {
    for (uint64_t seed = 0; seed < 20; seed++) {
      struct world *world = transmitting(0, false);
      prng_seed(&world->prng, seed);
      world->order = (enum world_order)order;
      world->send_bite = seed % 2 ? SIZE_MAX : 50000;
      say_request(world, 0, NBD_CMD_READ, 1, 0, 2 * MIB);
      say_request(world, 0, NBD_CMD_READ, 2, 0, 2 * MIB);
      say_request(world, 0, NBD_CMD_READ, 3, 777, 512);
      say_request(world, 0, NBD_CMD_FLUSH, 4, 0, 0);
      world_run(world);
      struct reply_reader how = {.length_of = two_long, .offset_of = two_offset, .image = world->bytes};
      const char *reply = world_replies_with(world, &how);
      assert_non_null(strstr(reply, "simple 1 ok +2097152\n"));
      assert_non_null(strstr(reply, "simple 2 ok +2097152\n"));
      assert_non_null(strstr(reply, "simple 3 ok +512\n"));
      assert_non_null(strstr(reply, "simple 4 ok\n"));
      assert_null(strstr(reply, "WRONG"));
      world_free(world);
    }
  }
}

static void disconnect_finishes_what_is_open(void **state) {
  (void)state;
  struct world *world = transmitting(0, false);
  world->order = ORDER_HOLD;
  say_write(world, 0, 1, 0, 100000, 1);
  say_request(world, 0, NBD_CMD_DISC, 2, 0, 0);
  say_request(world, 0, NBD_CMD_FLUSH, 3, 0, 0);
  world_run(world);
  assert_false(world_hangs_up(world));
  assert_int_equal(nbd_session_wants(world->session) & NBD_RECEIVE, 0);
  world->order = ORDER_FIRST;
  world_run(world);
  assert_string_equal(world_replies(world), "simple 1 ok\n");
  assert_true(world_hangs_up(world));
  world_free(world);
}

static void what_ends_a_session(void **state) {
  (void)state;
  struct world *world = transmitting(0, false);
  say_request(world, 0, NBD_CMD_WRITE, 1, 0, NBD_PAYLOAD_MAX + 1);
  world_run(world);
  assert_true(world_hangs_up(world));
  world_free(world);
  world = transmitting(0, false);
  say_bytes(world, "GET /the/data HTTP/1.1\r\n\r\n      ", 28);
  world_run(world);
  assert_true(world_hangs_up(world));
  world_free(world);
}

static void the_longest_write(void **state) {
  (void)state;
  struct world *world = world_new(65 * MIB, 16 * MIB);
  world_transmit(world, true);
  world->log_on = false;
  say_write(world, 0, 1, 4097, NBD_PAYLOAD_MAX, 0x77);
  say_request(world, 0, NBD_CMD_READ, 2, 4097, NBD_PAYLOAD_MAX);
  world_run(world);
  const char *reply = world_replies_with(world, &(struct reply_reader){.image = world->bytes});
  assert_non_null(strstr(reply, "simple 1 ok\n"));
  assert_null(strstr(reply, "WRONG"));
  assert_int_equal(world->bytes[4096], (uint8_t)(4096 * 7 + 16));
  assert_int_equal(world->bytes[4097], 0x77);
  assert_int_equal(world->bytes[4096 + NBD_PAYLOAD_MAX], 0x77);
  world_free(world);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(each_command),
      cmocka_unit_test(each_write),
      cmocka_unit_test(every_error_has_its_number),
      cmocka_unit_test(sweep_of_failures),
      cmocka_unit_test(a_short_simple_read_fails_in_words),
      cmocka_unit_test(a_long_simple_read_is_cut_off),
      cmocka_unit_test(a_failed_piece_of_df_is_padded),
      cmocka_unit_test(first_error_wins),
      cmocka_unit_test(answers_come_when_they_are_true),
      cmocka_unit_test(flush_for_fua_waits_for_all_pieces),
      cmocka_unit_test(flush_for_fua_tells_of_a_loss),
      cmocka_unit_test(long_simple_replies_are_in_one_piece),
      cmocka_unit_test(disconnect_finishes_what_is_open),
      cmocka_unit_test(what_ends_a_session),
      cmocka_unit_test(the_longest_write),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
