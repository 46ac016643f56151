/* Bounds and bad weather: little memory, stalled clients, images that hang, bytes in any bites, garbage, an end at any
 * moment. */
#include "test_nbd_world.h"
#include "unit.h"

#define MIB        (1u << 20)
#define SLOT_BYTES 65536u
#define SLOT_COUNT 24u
#define BIG_BYTES  (3 * MIB) /* one slot for long requests behind the others */
#define DISK_BYTES (SLOT_COUNT * SLOT_BYTES + BIG_BYTES)

/* ---- a random load whose outcome is known ---- */

struct load {
  uint8_t model[DISK_BYTES];
  uint32_t lengths[4096]; /* of READs, by cookie */
  uint64_t offsets[4096];
  uint64_t cookie;
};
static struct load load;
static uint32_t load_length(uint64_t cookie) { return load.lengths[cookie]; }
static uint64_t load_offset(uint64_t cookie) { return load.offsets[cookie]; }

/* One request inside [start, start + room): nobody else touches that part in this round. */
static void load_say(struct world *world, struct prng *prng, uint64_t start, uint64_t room, bool structured) {
  uint64_t unit = world->disk.caps.block_bytes, zero_unit = world->disk.caps.zero_block_bytes;
  uint64_t from = start + align_down(prng_below(prng, room), unit);
  uint32_t length = (uint32_t)align_down(1 + prng_below(prng, start + room - from), unit);
  uint64_t cookie = load.cookie++;
  uint16_t fua = prng_one_in(prng, 4) ? NBD_CMD_FLAG_FUA : 0;
  uint8_t byte = (uint8_t)(1 + prng_below(prng, 255));
  uint64_t trim_from = align_up(from, zero_unit), trim_to = align_down(from + length, zero_unit);
  require(cookie < COUNT_OF(load.lengths));
  load.lengths[cookie] = 0;
  switch (prng_below(prng, 6)) {
    case 0:
      say_request(world, fua, NBD_CMD_WRITE_ZEROES, cookie, from, length);
      memset(load.model + from, 0, length);
      break;
    case 1:
      say_request(world, fua, NBD_CMD_TRIM, cookie, from, length);
      if (trim_from < trim_to) memset(load.model + trim_from, 0, (size_t)(trim_to - trim_from));
      break;
    case 2:
    case 3:
      say_write(world, fua, cookie, from, length, byte);
      memset(load.model + from, byte, length);
      break;
    case 4: say_request(world, fua, NBD_CMD_FLUSH, cookie, 0, 0); break;
    default: {
      bool whole = structured && prng_one_in(prng, 3);
      say_request(world, whole ? NBD_CMD_FLAG_DF : fua, NBD_CMD_READ, cookie, from, length);
      load.lengths[cookie] = length;
      load.offsets[cookie] = from;
    }
  }
}

static void load_round(struct world *world, struct prng *prng, bool structured) {
  uint64_t first = load.cookie;
  uint64_t big = prng_below(prng, SLOT_COUNT);
  for (uint64_t slot = 0; slot < SLOT_COUNT; slot++) {
    load_say(world, prng, slot * SLOT_BYTES, SLOT_BYTES, structured);
    if (slot == big) load_say(world, prng, SLOT_COUNT * SLOT_BYTES, BIG_BYTES, structured);
  }
  world_run(world);
  assert_int_equal(world->input_at, world->input_bytes);
  assert_false(world_hangs_up(world));
  struct reply_reader how = {.length_of = load_length, .offset_of = load_offset, .image = load.model};
  const char *text = world_replies_with(world, &how);
  assert_null(strstr(text, "WRONG"));
  assert_null(strstr(text, " E"));
  size_t ends = 0;
  for (const char *at = text; (at = strstr(at, "\n")) != NULL; at++)
    if (at - text > 5 && (strncmp(at - 5, " done", 5) == 0)) ends++;
  for (const char *at = text; (at = strstr(at, "simple")) != NULL; at++) ends++;
  assert_int_equal(ends, load.cookie - first); /* each is answered once */
  assert_memory_equal(world->bytes, load.model, DISK_BYTES);
  assert_int_equal(nbd_session_requests_open(world->session), 0);
  world->input_at = world->input_bytes = world->output_at = world->output_bytes = 0;
}

static const struct weather {
  const char *why;
  uint64_t pool_bytes;
  size_t bite, send_bite;
  uint32_t block_bytes, io_bytes_max;
  bool no_zero, keep_buffers, vary, give_back;
} weathers[] = {
    {"plenty of everything", 64 * MIB, SIZE_MAX, SIZE_MAX, 1, BUFFER_DATA_MAX, false, false, false, false},
    {"bites of any size", 64 * MIB, SIZE_MAX, SIZE_MAX, 1, BUFFER_DATA_MAX, false, false, true, false},
    {"the smallest pool there is", 0, SIZE_MAX, SIZE_MAX, 1, BUFFER_DATA_MAX, true, false, true, false},
    {"an image that hangs on buffers", 0, SIZE_MAX, SIZE_MAX, 1, BUFFER_DATA_MAX, true, true, true, false},
    {"a disk of blocks and short I/Os", 4 * MIB, SIZE_MAX, 1000, 512, 4096, false, false, true, false},
    {"a slow client", 4 * MIB, 777, 555, 1, BUFFER_DATA_MAX, false, true, false, false},
    {"answers that are given back", 64 * MIB, SIZE_MAX, SIZE_MAX, 1, BUFFER_DATA_MAX, false, false, true, true},
    {"and a small pool", 0, SIZE_MAX, SIZE_MAX, 1, BUFFER_DATA_MAX, true, false, true, true},
    {"and images that hang on buffers", 4 * MIB, SIZE_MAX, SIZE_MAX, 1, BUFFER_DATA_MAX, true, true, true, true},
    {"and a disk of blocks and short I/Os", 0, SIZE_MAX, 60000, 512, 4096, false, false, true, true},
};

static struct world *world_in(const struct weather *weather, bool structured, uint64_t seed) {
  struct world *world = world_new(DISK_BYTES, weather->pool_bytes);
  world->disk.caps.block_bytes = weather->block_bytes;
  world->disk.caps.io_bytes_max = weather->io_bytes_max;
  world->disk.caps.can_zero = !weather->no_zero;
  world->keep_buffers = weather->keep_buffers;
  world->log_on = false;
  world_transmit(world, structured);
  world->bite = weather->bite;
  world->send_bite = weather->send_bite;
  world->bites_vary = world->shuffles = weather->vary;
  world->order = ORDER_RANDOM;
  world->keep_reads = weather->give_back && weather->keep_buffers;
  prng_seed(&world->prng, seed);
  world->give_back_one_in = weather->give_back ? 8 : 0;
  memcpy(load.model, world->bytes, DISK_BYTES);
  load.cookie = 0;
  return world;
}

static void random_load(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(weathers); i++) {
    for (uint64_t seed = 0; seed < 8; seed++) {
      bool structured = seed % 2;
      struct prng prng;
      prng_seed(&prng, seed + 100);
      struct world *world = world_in(&weathers[i], structured, seed);
      for (int round = 0; round < 5; round++) load_round(world, &prng, structured);
      world_free(world);
    }
  }
}

/* ---- the same bytes in other bites ---- */

static int compare_lines(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void any_bites_the_same_answers(void **state) {
  (void)state;
  static char expected[65536], got[65536], text[65536];
  static uint8_t image[MIB];
  static const size_t bites[] = {SIZE_MAX, 1, 2, 27, 28, 29, 8191, 8192, 16384, 20000};
  for (size_t i = 0; i < COUNT_OF(bites); i++) {
    struct world *world = world_new(MIB, 0);
    world->bite = bites[i];
    say_flags(world, 3);
    say_option(world, NBD_OPT_LIST, "", 0);
    say_option(world, 77, text, 20000);
    say_option(world, NBD_OPT_STRUCTURED_REPLY, "", 0);
    say_info(world, NBD_OPT_GO, "vol0", NULL, 0);
    world_run(world);
    assert_string_equal(world_handshake(world),
                        "greeting 3\n3 server vol0 (9)\n3 server vol1 (0)\n3 ack\n77 error 9\n8 ack\n"
                        "7 export size=1048576 flags=ded\n7 block-size 1 4096 67108864\n7 ack\n");
    say_write(world, 0, 1, 1, 100, 1);
    say_write(world, 0, 2, 5000, 8192, 2);
    say_write(world, 0, 3, 20001, 8193, 3);
    say_write(world, 0, 4, 40000, 300000, 4);
    say_write(world, 0, 5, MIB - 1, 30000, 5); /* past the end */
    say_request(world, 0, NBD_CMD_READ, 6, 900000, 100000);
    say_request(world, 0, NBD_CMD_WRITE_ZEROES, 7, 500001, 70000);
    say_request(world, 0, NBD_CMD_DISC, 8, 0, 0);
    world_run(world);
    assert_true(world_hangs_up(world));
    (void)strcpy(text, world_replies_with(world, &(struct reply_reader){.image = world->bytes}));
    char *lines[64];
    size_t count = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) lines[count++] = line;
    qsort(lines, count, sizeof *lines, compare_lines);
    got[0] = '\0';
    for (size_t k = 0; k < count; k++) text_add(got, sizeof got, "%s\n", lines[k]);
    if (i == 0) {
      (void)strcpy(expected, got);
      memcpy(image, world->bytes, MIB);
      assert_string_equal(expected,
                          "data 6 900000+100000 done\nerror 5 ENOSPC done\nsimple 1 ok\nsimple 2 ok\nsimple 3 ok\n"
                          "simple 4 ok\nsimple 7 ok\n");
    }
    assert_string_equal(got, expected);
    assert_memory_equal(image, world->bytes, MIB);
    memset(text, 0, sizeof text);
    world_free(world);
  }
}

/* ---- bounds ---- */

static void no_more_requests_than_slots(void **state) {
  (void)state;
  struct world *world = world_new(MIB, 64 * MIB);
  world_transmit(world, false);
  world->order = ORDER_HOLD;
  for (uint64_t i = 0; i < 3 * NBD_REQUESTS_MAX; i++) say_request(world, 0, NBD_CMD_FLUSH, i, 0, 0);
  world_run(world);
  assert_int_equal(nbd_session_requests_open(world->session), NBD_REQUESTS_MAX);
  assert_int_equal(world->disk.in_flight, NBD_REQUESTS_MAX);
  assert_int_equal(nbd_session_wants(world->session), 0);
  assert_true(world_disk_step(world, ORDER_FIRST));
  world_run(world);
  assert_int_equal(nbd_session_requests_open(world->session), NBD_REQUESTS_MAX); /* one out, one in */
  world->order = ORDER_FIRST;
  world_run(world);
  assert_int_equal(world->output_bytes - world->output_at, 3 * NBD_REQUESTS_MAX * NBD_SIMPLE_REPLY_BYTES);
  world_free(world);
}

static uint64_t pool_taken(const struct buffer_pool *pool) {
  uint64_t bytes = 0;
  for (unsigned i = 0; i < BUFFER_CLASS_COUNT; i++)
    bytes += (uint64_t)(pool->total_count[i] - pool->free_count[i]) * buffer_class_bytes[i];
  return bytes;
}

/* Who asks for much and does not take it holds a bounded part of the pool. */
static void a_session_holds_a_bounded_part_of_the_pool(void **state) {
  (void)state;
  for (int structured = 0; structured < 2; structured++) {
    struct world *world = world_new(4 * MIB, 256 * MIB);
    world_transmit(world, structured);
    for (uint64_t i = 0; i < 100; i++) say_request(world, 0, NBD_CMD_READ, i, 0, 3 * MIB);
    while (event_run_one(&world->env->queue) || world_receive(world) || world_disk_step(world, ORDER_FIRST)) continue;
    uint64_t taken = pool_taken(world->pool);
    assert_true(taken > 4 * MIB);
    assert_true(taken <= 9 * MIB);
    world_free(world);
  }
}

/* The same client on two connections, of which it reads one only, with hardly a buffer in the house. */
static void who_does_not_read_leaves_something_to_others(void **state) {
  (void)state;
  struct world *deaf = world_new(4 * MIB, 0), *other = world_new_beside(deaf, 4 * MIB, 0);
  world_transmit(deaf, false);
  world_transmit(other, true);
  for (uint64_t i = 0; i < 20; i++) say_request(deaf, 0, NBD_CMD_READ, i, 0, 3 * MIB);
  while (event_run_one(&deaf->env->queue) || world_receive(deaf) || world_disk_step(deaf, ORDER_FIRST)) continue;
  say_write(other, 0, 1, 0, 3 * MIB, 7);
  say_request(other, 0, NBD_CMD_READ, 2, 0, 3 * MIB);
  world_run(other);
  const char *text = world_replies(other);
  assert_non_null(strstr(text, "simple 1 ok\n"));
  assert_non_null(strstr(text, " done\n"));
  world_free(other);
  world_free(deaf);
}

static bool is_filled(const uint8_t *bytes, size_t count, uint8_t with) {
  return bytes[0] == with && memcmp(bytes, bytes + 1, count - 1) == 0;
}

static const size_t stall_missing[] = {499900, 470000, 200000}; /* early, inside the first piece, inside the second */

/* 20 clients that stall inside a payload and a pool of four large buffers: the 21st works. */
static void stalled_clients_hold_nothing(void **state) {
  (void)state;
  static struct world *worlds[20];
  struct world *last = world_new(MIB, 0);
  for (size_t i = 0; i < COUNT_OF(worlds); i++) {
    struct world *world = worlds[i] = world_new_beside(last, MIB, 0);
    size_t missing = stall_missing[i % 3];
    world_transmit(world, false);
    say_write(world, 0, 1, 3, 500000, 9);
    world->input_bytes -= missing;
    world_run(world);
    assert_int_equal(buffer_pool_is_whole(last->pool), i % 3 == 0); /* for a few bytes no buffer is asked for */
    world_stall(world);
    world_run(world);
    assert_true(buffer_pool_is_whole(last->pool));
  }
  world_transmit(last, false);
  say_write(last, 0, 1, 0, 900000, 7);
  world_run(last);
  assert_string_equal(world_replies(last), "simple 1 ok\n");
  for (size_t i = 0; i < COUNT_OF(worlds); i++) { /* and they may go on */
    world_stall(worlds[i]);
    worlds[i]->input_bytes += stall_missing[i % 3];
    world_run(worlds[i]);
    assert_string_equal(world_replies(worlds[i]), "simple 1 ok\n");
    assert_true(is_filled(worlds[i]->bytes + 3, 500000, 9));
    world_free(worlds[i]);
  }
  world_free(last);
}

/* All but sending. */
static void run_unsent(struct world *world) {
  while (event_run_one(&world->env->queue) || world_receive(world) || world_disk_step(world, ORDER_LAST)) continue;
}

/* The client takes so much of what it asked for, and then no more, while others wait. */
static void take_and_stop(struct world *world, size_t bytes) {
  run_unsent(world);
  world->send_bite = bytes;
  world_pump(world, NBD_SEND);
  assert_true(world_send(world));
  run_unsent(world);
  world_give_back(world);
  run_unsent(world);
}

/* 20 clients that take nothing, or a bit, of the answers that they asked for, and a pool of four large buffers: the 21st works; and the 20
 * get theirs when they go on. */
static void slow_readers_hold_nothing(void **state) {
  (void)state;
  static struct world *worlds[20];
  struct world *last = world_new(2 * MIB, 0);
  load.lengths[1] = load.lengths[2] = MIB;
  load.offsets[1] = load.offsets[2] = 0;
  for (size_t i = 0; i < COUNT_OF(worlds); i++) {
    struct world *world = worlds[i] = world_new_beside(last, 2 * MIB, 0);
    world_transmit(world, i % 2);
    for (uint64_t k = 1; k < 3; k++) say_request(world, 0, NBD_CMD_READ, k, load.offsets[k], load.lengths[k]);
    take_and_stop(world, 1 + 7000 * i);
    assert_true(buffer_pool_is_whole(last->pool));
  }
  world_transmit(last, false);
  say_request(last, 0, NBD_CMD_READ, 1, 0, MIB);
  world_run(last);
  for (size_t i = 0; i <= COUNT_OF(worlds); i++) {
    struct world *world = i < COUNT_OF(worlds) ? worlds[i] : last;
    struct reply_reader how = {.length_of = load_length, .offset_of = load_offset, .image = last->bytes};
    world_run(world);
    const char *text = world_replies_with(world, &how);
    assert_null(strstr(text, "WRONG"));
    assert_int_equal(nbd_session_requests_open(world->session), 0);
    assert_int_equal(nbd_session_held_bytes(world->session), 0);
    if (world != last) world_free(world);
  }
  world_free(last);
}

/* Ten clients with hardly a buffer in the house, or less than they may hold, whose answers are given back all the time: nobody waits for ever. */
static void slow_readers_do_not_wait_in_a_circle(void **state) {
  (void)state;
  static struct world *worlds[10];
  for (uint64_t seed = 0; seed < 40; seed++) {
    bool again = true;
    struct prng prng;
    prng_seed(&prng, seed);
    for (size_t i = 0; i < COUNT_OF(worlds); i++) {
      struct world *world = worlds[i] = world_new_beside(i ? worlds[0] : NULL, MIB, seed % 2 ? 0 : 8 * MIB);
      world_transmit(world, i % 2);
      world->log_on = false;
      world->shuffles = world->bites_vary = true;
      world->order = ORDER_RANDOM;
      prng_seed(&world->prng, seed * 10 + i);
      world->give_back_one_in = 6;
      for (uint64_t k = 0; k < 12; k++) {
        load.offsets[k] = 0, load.lengths[k] = MIB >> k % 5;
        say_request(world, i % 2 && k % 3 == 0 ? NBD_CMD_FLAG_DF : 0, NBD_CMD_READ, k, 0, load.lengths[k]);
      }
    }
    while (again) {
      again = false;
      for (size_t i = 0; i < COUNT_OF(worlds); i++)
        for (uint64_t turns = 1 + prng_below(&prng, 20); turns > 0 && world_turn(worlds[i]); turns--) again = true;
    }
    for (size_t i = COUNT_OF(worlds); i-- > 0;) {
      struct reply_reader how = {.length_of = load_length, .offset_of = load_offset, .image = worlds[i]->bytes};
      assert_null(strstr(world_replies_with(worlds[i], &how), "WRONG"));
      assert_int_equal(worlds[i]->input_at, worlds[i]->input_bytes);
      assert_int_equal(nbd_session_requests_open(worlds[i]->session), 0);
      world_free(worlds[i]);
    }
  }
}

/* What is read again may be newer, but no block is half old and half new (rule 17); wherever the client stopped. */
static void what_is_read_again_tears_no_block(void **state) {
  (void)state;
  enum { FROM = 1000, LENGTH = 600000 };
  for (size_t sent = 1; sent < LENGTH; sent += sent < 40 ? 1 : 1717) {
    struct world *world = world_new(MIB, sent % 2 ? 0 : 16 * MIB);
    world_transmit(world, false);
    memset(world->bytes, 0xaa, MIB);
    say_request(world, 0, NBD_CMD_READ, 1, FROM, LENGTH);
    size_t start = world->output_bytes + NBD_SIMPLE_REPLY_BYTES;
    take_and_stop(world, sent);
    memset(world->bytes, 0xee, MIB);
    world_dirty(world, 0, MIB);
    world->send_bite = SIZE_MAX;
    world_run(world);
    assert_int_equal(world->output_bytes, start + LENGTH);
    for (size_t at = 0; at < LENGTH; at++) {
      const uint8_t *byte = world->output + start + at;
      assert_true(*byte == 0xaa || *byte == 0xee);
      if (at > 0 && (FROM + at) % BUFFER_ALIGN != 0) assert_int_equal(byte[0], byte[-1]);
    }
    if (sent < LENGTH - 2 * BUFFER_ALIGN)
      assert_int_equal(world->output[start + LENGTH - 1], 0xee); /* it was read again */
    world_free(world);
  }
}

/* The disk cannot read again what it could before: half an answer cannot be called back. */
static void what_cannot_be_read_again_ends_the_session(void **state) {
  (void)state;
  struct world *world = world_new(MIB, 16 * MIB);
  world_transmit(world, true);
  say_request(world, 0, NBD_CMD_READ, 1, 0, 200000);
  take_and_stop(world, 30000);
  world->fail_at = 1;
  world->fail_for_good = true;
  world_run(world);
  assert_true(world_hangs_up(world));
  world_free(world);
}

/* Whoever hangs on the buffer of a piece: it is not read into again, and who must not wait before its turn does not. */
static void a_long_read_whose_buffers_do_not_come_back(void **state) {
  (void)state;
  for (int scarce = 0; scarce < 2; scarce++) {
    struct world *world = world_new(4 * MIB, scarce ? 0 : 16 * MIB);
    world_transmit(world, false);
    world->keep_reads = true;
    load.lengths[7] = 4 * MIB;
    load.offsets[7] = 0;
    say_request(world, 0, NBD_CMD_READ, 7, 0, 4 * MIB);
    world->order = ORDER_HOLD;
    world_run(world);
    struct buffer *taken[8] = {NULL}; /* by other sessions */
    for (size_t i = 0; scarce && (taken[i] = buffer_get(world->pool, BUFFER_DATA_MAX)) != NULL;)
      require(++i < COUNT_OF(taken));
    world->order = ORDER_FIRST;
    world_run(world);
    for (size_t i = 0; taken[i]; i++) buffer_unref(taken[i]);
    world_run(world);
    struct reply_reader how = {.length_of = load_length, .offset_of = load_offset, .image = world->bytes};
    assert_string_equal(world_replies_with(world, &how), "simple 7 ok +4194304\n");
    world_free(world);
  }
}

/* A stall at each byte of a payload, on a disk of blocks: what is here waits in our own memory. */
static void a_stall_anywhere(void **state) {
  (void)state;
  enum { LENGTH = 49152 };
  for (int fua = 0; fua < 2; fua++) {
    for (size_t at = 0; at < LENGTH; at += at < 530 ? 1 : 512 - 100 * (at % 3)) {
      struct world *world = world_new(65536, 0);
      world->disk.caps.block_bytes = 512;
      world->disk.caps.io_bytes_max = 16384;
      world_transmit(world, true);
      say_write(world, fua ? NBD_CMD_FLAG_FUA : 0, 1, 512, LENGTH, 0x66);
      world->input_bytes -= LENGTH - at;
      world_run(world);
      world_stall(world);
      world_run(world);
      world_stall(world);
      world->input_bytes += LENGTH - at;
      world_run(world);
      assert_string_equal(world_replies(world), "simple 1 ok\n");
      assert_true(is_filled(world->bytes + 512, LENGTH, 0x66));
      assert_int_equal(world->bytes[511], (uint8_t)(511 * 7 + 1));
      assert_int_equal(world->bytes[512 + LENGTH], (uint8_t)((512 + LENGTH) * 7 + (512 + LENGTH) / 256));
      if (fua) { /* each write must be on stable storage: by itself, or by a flush after it */
        const char *log = world_log(world);
        for (const char *line = strstr(log, "write"); line; line = strstr(line + 1, "write"))
          assert_true(strstr(line, " fua\n") == strchr(line, '\n') - 4 || strstr(line, "\nflush\n"));
      }
      world_free(world);
    }
  }
}

/* What is on the disk when a client has stalled once or twice in mid-payload, and then died. */
static const struct {
  const char *why;
  uint64_t offset;
  uint32_t length, io_bytes_max, block_bytes;
  uint32_t first, second; /* bytes of the payload before each stall */
  uint64_t changed;       /* bytes of the disk that the write has changed, from its offset on */
} deaths[] = {
    {"a few bytes", 0, 4096, 262144, 1, 100, 0, 0},
    {"all but one byte", 512, 4096, 262144, 1, 4095, 0, 0},
    {"what a buffer was taken for", 0, 49152, 262144, 1, 20000, 0, 0},
    {"in the middle of a sector", 100, 49152, 262144, 1, 20000, 20000, 0},
    {"the longest that is taken whole, all but one byte", 0, 65536, 262144, 1, 65535, 0, 0},
    {"the same, unaligned", 4095, 65536, 262144, 1, 40000, 25535, 0},
    {"one of several pieces, all but the last of which are here", 0, 65536, 16384, 1, 65535, 0, 0},
    {"the same on a disk of blocks", 512, 65536, 16384, 512, 30000, 30000, 0},
    {"a longer one: whole blocks", 0, 65537, 262144, 1, 20000, 0, 16384},
    {"a longer one that is unaligned: up to a multiple of 4096 of the device", 100, 100000, 262144, 1, 20000, 0, 16284},
    {"a longer one: not up to the first multiple yet", 100, 100000, 262144, 1, 3000, 0, 0},
    {"twice: the second part is cut likewise", 1536, 199680, 262144, 512, 20000, 30000, 47616},
    {"in the second piece", 0, 600000, 262144, 1, 262144 + 10000, 0, 262144 + 8192},
    {"on a disk of short I/Os", 0, 100000, 8192, 1, 20000, 0, 16384},
};

static void who_dies_in_mid_payload_tears_no_sector(void **state) {
  (void)state;
  static uint8_t before[MIB];
  for (size_t i = 0; i < COUNT_OF(deaths); i++) {
    struct world *world = world_new(MIB, 0);
    world->disk.caps.block_bytes = deaths[i].block_bytes;
    world->disk.caps.io_bytes_max = deaths[i].io_bytes_max;
    memcpy(before, world->bytes, sizeof before);
    world_transmit(world, true);
    say_write(world, 0, 1, deaths[i].offset, deaths[i].length, 0x66);
    world->input_bytes -= deaths[i].length - deaths[i].first;
    for (int stall = 0; stall < 2; stall++) {
      world_run(world);
      row_true(deaths[i].why, nbd_session_in_payload(world->session));
      world_stall(world);
      world_run(world);
      row_true(deaths[i].why, buffer_pool_is_whole(world->pool));
      if (stall == 0) world->input_bytes += deaths[i].second;
    }
    world_session_close(world);
    if (deaths[i].changed > 0)
      row_true(deaths[i].why, is_filled(world->bytes + deaths[i].offset, deaths[i].changed, 0x66));
    memcpy(before + deaths[i].offset, world->bytes + deaths[i].offset, deaths[i].changed);
    row_true(deaths[i].why, memcmp(before, world->bytes, sizeof before) == 0);
    world_free(world);
  }
}

/* ---- an end at any moment ---- */

static void script_say(struct world *world, bool structured) {
  say_flags(world, 3);
  say_option(world, NBD_OPT_LIST, "", 0);
  if (structured) say_option(world, NBD_OPT_STRUCTURED_REPLY, "", 0);
  say_info(world, NBD_OPT_GO, "vol0", NULL, 0);
  say_write(world, NBD_CMD_FLAG_FUA, 1, 100, 700000, 1);
  say_request(world, 0, NBD_CMD_READ, 2, 5, 2 * MIB);
  say_request(world, 0, NBD_CMD_WRITE_ZEROES, 3, 900001, 500000);
  say_request(world, 0, NBD_CMD_READ, 4, 5, 2 * MIB);
  say_write(world, 0, 5, MIB, 100000, 1);
  say_request(world, 0, NBD_CMD_TRIM, 6, 0, MIB);
  say_request(world, 0, NBD_CMD_FLUSH, 7, 0, 0);
  say_request(world, 0, NBD_CMD_DISC, 8, 0, 0);
}

static void closed_at_every_moment(void **state) {
  (void)state;
  for (int how = 0; how < 4; how++) {
    bool finished = false;
    for (uint32_t turns = 0; !finished; turns += turns < 60 ? 1 : 11) {
      struct world *world = world_new(3 * MIB, how & 2 ? 0 : 32 * MIB);
      world->disk.caps.can_zero = false;
      world->log_on = false;
      world->shuffles = world->bites_vary = true;
      world->order = ORDER_RANDOM;
      world->keep_buffers = turns % 2;
      world->give_back_one_in = turns % 3 ? 0 : 5;
      script_say(world, how & 1);
      for (uint32_t i = 0; i < turns && !finished; i++) {
        finished = world_hangs_up(world);
        (void)world_turn(world);
      }
      uint32_t in_flight = world->disk.in_flight;
      nbd_session_close(world->session);
      nbd_session_close(world->session); /* harmless */
      assert_false(world->closed);       /* never from inside the call */
      assert_int_equal(nbd_session_wants(world->session), 0);
      if (in_flight > 0) {
        while (event_run_one(&world->env->queue)) continue;
        assert_true(world->closed == (world->disk.in_flight == 0)); /* a hung disk keeps the session's memory */
      }
      while (event_run_one(&world->env->queue) || world_disk_step(world, ORDER_LAST)) continue;
      assert_true(world->closed);
      world_free(world);
    }
  }
}

/* ---- garbage ---- */

static void garbage(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 600; seed++) {
    struct world *world = world_new(3 * MIB, 0);
    struct prng prng;
    prng_seed(&prng, seed);
    world->log_on = false;
    world->order = ORDER_RANDOM;
    world->shuffles = world->bites_vary = true;
    world->give_back_one_in = seed % 5 ? 0 : 10;
    if (seed % 3 == 0) {
      for (int i = 0; i < 3000; i++) say_bytes(world, &(uint8_t){(uint8_t)prng_next(&prng)}, 1);
    } else {
      script_say(world, seed % 2);
      for (uint64_t i = prng_below(&prng, 12); i > 0; i--) /* the headers are where it hurts */
        world->input[prng_below(&prng, prng_one_in(&prng, 2) ? 130 : world->input_bytes)] ^=
            (uint8_t)(1u << prng_below(&prng, 8));
    }
    world_run(world);
    world_free(world);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(random_load),
      cmocka_unit_test(any_bites_the_same_answers),
      cmocka_unit_test(no_more_requests_than_slots),
      cmocka_unit_test(a_session_holds_a_bounded_part_of_the_pool),
      cmocka_unit_test(who_does_not_read_leaves_something_to_others),
      cmocka_unit_test(stalled_clients_hold_nothing),
      cmocka_unit_test(slow_readers_hold_nothing),
      cmocka_unit_test(slow_readers_do_not_wait_in_a_circle),
      cmocka_unit_test(what_is_read_again_tears_no_block),
      cmocka_unit_test(what_cannot_be_read_again_ends_the_session),
      cmocka_unit_test(a_long_read_whose_buffers_do_not_come_back),
      cmocka_unit_test(a_stall_anywhere),
      cmocka_unit_test(who_dies_in_mid_payload_tears_no_sector),
      cmocka_unit_test(closed_at_every_moment),
      cmocka_unit_test(garbage),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
