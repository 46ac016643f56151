/* The handshake: one golden transcript byte by byte, then every option, well and badly asked. */
#include "test_nbd_world.h"
#include "unit.h"

/* nbd's own proto.md, spelled out: no constant of ours is used here. */
static void golden_transcript(void **state) {
  (void)state;
  static const char client[] =
      "\0\0\0\3"                                         /* flags: fixed newstyle, no zeroes */
      "IHAVEOPT\0\0\0\x08\0\0\0\0"                       /* structured replies */
      "IHAVEOPT\0\0\0\x07\0\0\0\x0c\0\0\0\4vol0\0\1\0\3" /* GO vol0, tell me the block size */
      "\x25\x60\x95\x13\0\0\0\0"                         /* read, cookie "cookieAA", 4 bytes at 256 */
      "cookieAA\0\0\0\0\0\0\1\0\0\0\0\4"
      "\x25\x60\x95\x13\0\1\0\1" /* write "abcd" at 0, FUA */
      "cookieBB\0\0\0\0\0\0\0\0\0\0\0\4abcd"
      "\x25\x60\x95\x13\0\0\0\2cookieCC\0\0\0\0\0\0\0\0\0\0\0\0"; /* disconnect */
  static const char server[] =
      "NBDMAGICIHAVEOPT\0\3"
      "\0\3\xe8\x89\4\x55\x65\xa9\0\0\0\x08\0\0\0\1\0\0\0\0" /* ACK */
      "\0\3\xe8\x89\4\x55\x65\xa9\0\0\0\x07\0\0\0\3\0\0\0\x0c"
      "\0\0\0\0\0\0\0\x10\0\0\x0d\xed" /* export: 1 MiB, flags */
      "\0\3\xe8\x89\4\x55\x65\xa9\0\0\0\x07\0\0\0\3\0\0\0\x0e"
      "\0\3\0\0\0\1\0\0\x10\0\4\0\0\0" /* block sizes: 1, 4096, 64 MiB */
      "\0\3\xe8\x89\4\x55\x65\xa9\0\0\0\x07\0\0\0\1\0\0\0\0"
      "\x66\x8e\x33\xef\0\1\0\1cookieAA\0\0\0\x0c\0\0\0\0\0\0\1\0\x01\x08\x0f\x16"
      "\x67\x44\x66\x98\0\0\0\0cookieBB";
  struct world *world = world_new(1 << 20, 0);
  say_bytes(world, client, sizeof client - 1);
  world_run(world);
  assert_int_equal(world->output_bytes, sizeof server - 1);
  assert_memory_equal(world->output, server, sizeof server - 1);
  assert_memory_equal(world->bytes, "abcd", 4);
  assert_true(world_hangs_up(world));
  world_free(world);
}

static void oldest_client(void **state) {
  (void)state;
  static const struct {
    const char *why;
    uint32_t flags;
    const char *name;
    size_t bytes; /* of the answer behind the greeting; 0: hung up */
  } rows[] = {
      {"the tail of zeroes is there unless both sides do without", 1, "vol0", 8 + 2 + 124},
      {"the same for a client that knows no fixed newstyle", 0, "vol0", 8 + 2 + 124},
      {"no zeroes", 3, "vol0", 8 + 2},
      {"the empty name stands for the default export", 3, "", 8 + 2},
      {"what is not there cannot be refused in words", 3, "nothing", 0},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct world *world = world_new(1 << 20, 0);
    say_flags(world, rows[i].flags);
    say_option(world, NBD_OPT_EXPORT_NAME, rows[i].name, strlen(rows[i].name));
    say_request(world, 0, NBD_CMD_FLUSH, 5, 0, 0);
    world_run(world);
    size_t expected = NBD_GREETING_BYTES + rows[i].bytes + (rows[i].bytes ? NBD_SIMPLE_REPLY_BYTES : 0);
    row_true(rows[i].why, world->output_bytes == expected);
    row_true(rows[i].why, world_hangs_up(world) == (rows[i].bytes == 0));
    row_true(rows[i].why, world->export.session_count == (rows[i].bytes ? 1 : 0));
    if (rows[i].bytes) row_true(rows[i].why, memcmp(world->output + 18, "\0\0\0\0\0\x10\0\0\x0d\x6d", 10) == 0);
    world_free(world);
  }
}

#define INFO_VOL0  "export size=1048576 flags=d6d\n"
#define BLOCK_VOL0 "block-size 1 4096 67108864\n"

static void options(void **state) {
  (void)state;
#define DATA(text) text, sizeof(text) - 1
  static const struct {
    const char *why;
    uint32_t option;
    const char *data;
    size_t bytes;
    const char *answer;
  } rows[] = {
      {"both exports, with and without description", NBD_OPT_LIST, DATA(""),
       "3 server vol0 (9)\n3 server vol1 (0)\n3 ack\n"},
      {"LIST takes no data", NBD_OPT_LIST, DATA("x"), "3 error 3\n"},
      {"no TLS here", NBD_OPT_STARTTLS, DATA(""), "5 error 2\n"},
      {"STARTTLS takes no data", NBD_OPT_STARTTLS, DATA("x"), "5 error 3\n"},
      {"withdrawn option", 4, DATA("x"), "4 error 1\n"},
      {"extended headers are not known yet", NBD_OPT_EXTENDED_HEADERS, DATA(""), "11 error 1\n"},
      {"an option of the future", 4711, DATA("whatever it carries"), "4711 error 1\n"},
      {"INFO without questions", NBD_OPT_INFO, DATA("\0\0\0\4vol0\0\0"), "6 " INFO_VOL0 "6 " BLOCK_VOL0 "6 ack\n"},
      {"INFO of the default export", NBD_OPT_INFO, DATA("\0\0\0\0\0\0"), "6 " INFO_VOL0 "6 " BLOCK_VOL0 "6 ack\n"},
      {"INFO with every question, one unknown", NBD_OPT_INFO, DATA("\0\0\0\4vol0\0\5\0\0\0\1\0\2\0\3\x12\x34"),
       "6 " INFO_VOL0 "6 name vol0\n6 description the first\n6 " BLOCK_VOL0 "6 ack\n"},
      {"a description that is not there is left out", NBD_OPT_INFO, DATA("\0\0\0\4vol1\0\1\0\2"),
       "6 " INFO_VOL0 "6 " BLOCK_VOL0 "6 ack\n"},
      {"the default's name is its canonical one", NBD_OPT_INFO, DATA("\0\0\0\0\0\1\0\1"),
       "6 " INFO_VOL0 "6 name vol0\n6 " BLOCK_VOL0 "6 ack\n"},
      {"no such export", NBD_OPT_INFO, DATA("\0\0\0\4volX\0\0"), "6 error 6\n"},
      {"GO to no such export", NBD_OPT_GO, DATA("\0\0\0\4volX\0\0"), "7 error 6\n"},
      {"empty", NBD_OPT_GO, DATA(""), "7 error 3\n"},
      {"a name longer than the data", NBD_OPT_GO, DATA("\0\0\0\7vol0\0\0"), "7 error 3\n"},
      {"a name longer than names are", NBD_OPT_GO, DATA("\0\0\x10\1vol0\0\0"), "7 error 9\n"},
      {"a name with a NUL", NBD_OPT_GO, DATA("\0\0\0\4vo\0x\0\0"), "7 error 3\n"},
      {"no count of questions", NBD_OPT_GO, DATA("\0\0\0\4vol0"), "7 error 3\n"},
      {"fewer questions than counted", NBD_OPT_GO, DATA("\0\0\0\4vol0\0\2\0\1"), "7 error 3\n"},
      {"more questions than counted", NBD_OPT_GO, DATA("\0\0\0\4vol0\0\1\0\1\0\2"), "7 error 3\n"},
      {"contexts need structured replies", NBD_OPT_SET_META_CONTEXT, DATA("\0\0\0\4vol0\0\0\0\0"), "10 error 3\n"},
      {"structured replies take no data", NBD_OPT_STRUCTURED_REPLY, DATA("x"), "8 error 3\n"},
      {"structured replies", NBD_OPT_STRUCTURED_REPLY, DATA(""), "8 ack\n"},
      {"asked again", NBD_OPT_STRUCTURED_REPLY, DATA(""), "8 ack\n"},
      {"DF is offered now", NBD_OPT_INFO, DATA("\0\0\0\0\0\0"),
       "6 export size=1048576 flags=ded\n6 " BLOCK_VOL0 "6 ack\n"},
      {"all there are", NBD_OPT_LIST_META_CONTEXT, DATA("\0\0\0\4vol0\0\0\0\0"),
       "9 context 0 base:allocation\n9 context 0 tarn:state\n9 ack\n"},
      {"of another export", NBD_OPT_LIST_META_CONTEXT, DATA("\0\0\0\4vol1\0\0\0\0"),
       "9 context 0 base:allocation\n9 ack\n"},
      {"no context of that name", NBD_OPT_SET_META_CONTEXT, DATA("\0\0\0\4vol0\0\0\0\1\0\0\0\5x:abc"), "10 ack\n"},
      {"contexts of no export", NBD_OPT_SET_META_CONTEXT, DATA("\0\0\0\4volX\0\0\0\0"), "10 error 6\n"},
      {"a query cut short", NBD_OPT_SET_META_CONTEXT, DATA("\0\0\0\4vol0\0\0\0\1\0\0\0\6x:abc"), "10 error 3\n"},
      {"fewer queries than counted", NBD_OPT_SET_META_CONTEXT, DATA("\0\0\0\4vol0\xff\xff\xff\xff\0\0\0\1x"),
       "10 error 3\n"},
      {"more than was counted", NBD_OPT_SET_META_CONTEXT, DATA("\0\0\0\4vol0\0\0\0\0x"), "10 error 3\n"},
      {"GO at last", NBD_OPT_GO, DATA("\0\0\0\4vol1\0\0"), "7 export size=1048576 flags=ded\n7 " BLOCK_VOL0 "7 ack\n"},
  };
#undef DATA
  struct world *world = world_new(1 << 20, 0);
  say_flags(world, 3);
  world_run(world);
  assert_string_equal(world_handshake(world), "greeting 3\n");
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    row_true(rows[i].why, !nbd_session_export(world->session));
    say_option(world, rows[i].option, rows[i].data, rows[i].bytes);
    world_run(world);
    const char *answer = world_handshake(world);
    if (strcmp(answer, rows[i].answer) != 0) fail_msg("row \"%s\": %s", rows[i].why, answer);
  }
  assert_ptr_equal(nbd_session_export(world->session), &world->other);
  assert_int_equal(world->other.session_count, 1);
  nbd_session_close(world->session);
  world_run(world);
  assert_int_equal(world->other.session_count, 0);
  world_free(world);
}

static void abort_is_answered_and_ends(void **state) {
  (void)state;
  struct world *world = world_new(1 << 20, 0);
  say_flags(world, 3);
  say_option(world, NBD_OPT_ABORT, "", 0);
  say_option(world, NBD_OPT_LIST, "", 0);
  world_run(world);
  assert_string_equal(world_handshake(world), "greeting 3\n2 ack\n");
  assert_true(world_hangs_up(world));
  world_free(world);
}

static void what_ends_a_handshake(void **state) {
  (void)state;
  static const struct {
    const char *why, *data;
    size_t bytes;
    bool hangs_up;
  } rows[] = {
      {"unknown flags of a client", "\0\0\0\4", 4, true},
      {"all flags", "\xff\xff\xff\xff", 4, true},
      {"no option's magic", "\0\0\0\1GET / HTTP/1.1\r\n\r\n", 22, true},
      {"an endless option", "\0\0\0\1IHAVEOPT\0\0\0\7\x80\0\0\0", 20, true},
      {"an endless name", "\0\0\0\1IHAVEOPT\0\0\0\1\0\0\x40\0", 20, true},
      {"half a header is patience", "\0\0\0\1IHAVEOPT\0\0\0", 15, false},
      {"half an option is patience", "\0\0\0\1IHAVEOPT\0\0\0\7\0\0\0\7xx", 22, false},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct world *world = world_new(1 << 20, 0);
    say_bytes(world, rows[i].data, rows[i].bytes);
    world_run(world);
    row_true(rows[i].why, world_hangs_up(world) == rows[i].hangs_up);
    row_true(rows[i].why, world->output_bytes == NBD_GREETING_BYTES || rows[i].hangs_up);
    world_free(world);
  }
}

static void long_options_are_skipped(void **state) {
  (void)state;
  static uint8_t data[200000];
  struct world *world = world_new(1 << 20, 0);
  say_flags(world, 3);
  say_option(world, NBD_OPT_SET_META_CONTEXT, data, sizeof data);
  say_option(world, NBD_OPT_STRUCTURED_REPLY, data, 0);
  say_option(world, 99, data, 8192);
  world_run(world);
  assert_string_equal(world_handshake(world), "greeting 3\n10 error 9\n8 ack\n99 error 1\n");
  world_free(world);
}

static struct nbd_export many[300];
static char many_names[300][4097];
static struct nbd_export *many_at(struct nbd_exports *exports, uint32_t index) {
  (void)exports;
  return index < COUNT_OF(many) ? &many[index] : NULL;
}
static void a_list_longer_than_memory(void **state) {
  (void)state;
  struct world *world = world_new(1 << 20, 0);
  for (size_t i = 0; i < COUNT_OF(many); i++) {
    memset(many_names[i], 'a' + (int)(i % 26), i % 2 ? 4096 : i);
    many[i] = (struct nbd_export){.name = many_names[i], .description = many_names[i], .disk = &world->disk};
  }
  world->exports.at = many_at;
  say_flags(world, 3);
  say_option(world, NBD_OPT_LIST, "", 0);
  world->send_bite = 1000;
  world_run(world);
  const char *text = world_handshake(world);
  size_t lines = 0;
  for (const char *at = text; (at = strchr(at, '\n')) != NULL; at++) lines++;
  assert_int_equal(lines, 1 + COUNT_OF(many) + 1);
  assert_string_equal(text + strlen(text) - 6, "3 ack\n");
  world_free(world);
}

static void flags_tell_what_the_disk_can(void **state) {
  (void)state;
  static const struct {
    const char *why;
    bool read_only, can_trim, can_zero, rotational;
    uint32_t block_bytes;
    const char *answer;
  } rows[] = {
      {"zeroing is always offered", false, false, false, false, 1, "6 export size=1048576 flags=d4d\n6 block-size 1"},
      {"trim if it is one", false, true, true, true, 1, "6 export size=1048576 flags=d7d\n6 block-size 1"},
      {"nothing that writes on a read-only one", true, true, true, false, 1,
       "6 export size=1048576 flags=50f\n6 block-size 1"},
      {"blocks of 512", false, true, true, false, 512, "6 export size=1048576 flags=d6d\n6 block-size 512"},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct world *world = world_new(1 << 20, 0);
    struct disk_caps *caps = &world->disk.caps;
    caps->read_only = rows[i].read_only;
    caps->can_trim = rows[i].can_trim;
    caps->can_zero = rows[i].can_zero;
    caps->rotational = rows[i].rotational;
    caps->block_bytes = rows[i].block_bytes;
    say_flags(world, 3);
    world_run(world);
    (void)world_handshake(world);
    say_info(world, NBD_OPT_INFO, "vol0", NULL, 0);
    world_run(world);
    const char *answer = world_handshake(world);
    if (strncmp(answer, rows[i].answer, strlen(rows[i].answer)) != 0) fail_msg("row \"%s\": %s", rows[i].why, answer);
    world_free(world);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(golden_transcript),
      cmocka_unit_test(oldest_client),
      cmocka_unit_test(options),
      cmocka_unit_test(abort_is_answered_and_ends),
      cmocka_unit_test(what_ends_a_handshake),
      cmocka_unit_test(long_options_are_skipped),
      cmocka_unit_test(a_list_longer_than_memory),
      cmocka_unit_test(flags_tell_what_the_disk_can),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
