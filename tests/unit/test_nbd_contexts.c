/* Metadata contexts: which there are, how they are chosen, and what BLOCK_STATUS tells of them. */
#include "test_nbd_world.h"
#include "unit.h"

#define MIB (1u << 20)

#define LIST NBD_OPT_LIST_META_CONTEXT
#define SET  NBD_OPT_SET_META_CONTEXT

static struct world *structured_world(void) {
  struct world *world = world_new(2 * MIB, 16 * MIB);
  say_flags(world, NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES);
  say_option(world, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
  world_run(world);
  world->output_at = world->output_bytes;
  return world;
}

static void go(struct world *world, const char *name) {
  say_info(world, NBD_OPT_GO, name, NULL, 0);
  world_run(world);
  require(nbd_session_export(world->session) != NULL);
  world->output_at = world->output_bytes;
}

static struct world *with_contexts(const char *one, const char *two) {
  struct world *world = structured_world();
  say_contexts(world, SET, "vol0", one, two);
  go(world, "vol0");
  return world;
}

static void which_a_query_finds(void **state) {
  (void)state;
  static const struct {
    const char *why;
    uint32_t option;
    const char *name, *one, *two;
    const char *answer;
  } rows[] = {
      {"LIST without a query: all", LIST, "vol0", NULL, NULL, "9 context 0 base:allocation\n9 context 0 tarn:state\n"},
      {"LIST of the default export", LIST, "", NULL, NULL, "9 context 0 base:allocation\n9 context 0 tarn:state\n"},
      {"LIST of an export that has fewer", LIST, "vol1", NULL, NULL, "9 context 0 base:allocation\n"},
      {"LIST of a namespace", LIST, "vol0", "base:", NULL, "9 context 0 base:allocation\n"},
      {"LIST of our own", LIST, "vol0", "tarn:", NULL, "9 context 0 tarn:state\n"},
      {"LIST of one", LIST, "vol0", "tarn:state", NULL, "9 context 0 tarn:state\n"},
      {"LIST of several", LIST, "vol0", "tarn:state", "base:", "9 context 0 base:allocation\n9 context 0 tarn:state\n"},
      {"LIST of a leaf that is not there", LIST, "vol0", "base:dirty", NULL, ""},
      {"LIST of a namespace that is not known", LIST, "vol0", "qemu:dirty-bitmap:x",
       "tarn:", "9 context 0 tarn:state\n"},
      {"SET of one", SET, "vol0", "base:allocation", NULL, "10 context 1 base:allocation\n"},
      {"SET of our own", SET, "vol0", "tarn:state", NULL, "10 context 2 tarn:state\n"},
      {"SET of both, in any order", SET, "vol0", "tarn:state", "base:allocation",
       "10 context 1 base:allocation\n10 context 2 tarn:state\n"},
      {"SET of one twice", SET, "vol0", "tarn:state", "tarn:state", "10 context 2 tarn:state\n"},
      {"SET of nothing", SET, "vol0", NULL, NULL, ""},
      {"SET takes no namespace", SET, "vol0", "base:", "tarn:", ""},
      {"SET of what is not known", SET, "vol0", "base:dirty", "qemu:x", ""},
      {"SET of what this export has not", SET, "vol1", "tarn:state", "base:allocation",
       "10 context 1 base:allocation\n"},
      {"no colon", SET, "vol0", "base:allocation", "allocation", "10 error 3\n"},
      {"LIST without a colon", LIST, "vol0", "allocation", NULL, "9 error 3\n"},
      {"no namespace", SET, "vol0", ":allocation", NULL, "10 error 3\n"},
      {"an empty query", SET, "vol0", "", NULL, "10 error 3\n"},
      {"LIST of no export", LIST, "nothing", NULL, NULL, "9 error 6\n"},
      {"SET of no export", SET, "nothing", "base:allocation", NULL, "10 error 6\n"},
  };
  struct world *world = structured_world();
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    char expected[256];
    snprintf(expected, sizeof expected, "%s%s", rows[i].answer,
             strstr(rows[i].answer, "error") ? ""
             : rows[i].option == LIST        ? "9 ack\n"
                                             : "10 ack\n");
    say_contexts(world, rows[i].option, rows[i].name, rows[i].one, rows[i].two);
    world_run(world);
    const char *answer = world_handshake(world);
    if (strcmp(answer, expected) != 0) fail_msg("row \"%s\": %s", rows[i].why, answer);
  }
  world->disk.caps.can_extents = false;
  say_contexts(world, LIST, "vol0", NULL, NULL);
  world_run(world);
  assert_string_equal(world_handshake(world), "9 ack\n"); /* a disk that does not know */
  world_free(world);
}

/* BLOCK_STATUS is an error unless the last SET succeeded, was for this export, and chose something. */
static void which_choice_holds(void **state) {
  (void)state;
  static const struct {
    const char *why;
    struct {
      const char *name, *query;
    } sets[3];
    const char *go, *reply;
  } rows[] = {
      {"none", {{0}}, "vol0", "error 7 EINVAL done\n"},
      {"one", {{"vol0", "base:allocation"}}, "vol0", "status 7 context 1: 512=0 done\n"},
      {"by another name", {{"", "base:allocation"}}, "vol0", "status 7 context 1: 512=0 done\n"},
      {"of nothing", {{"vol0", "x:y"}}, "vol0", "error 7 EINVAL done\n"},
      {"the second replaces the first",
       {{"vol0", "base:allocation"}, {"vol0", "tarn:state"}},
       "vol0",
       "status 7 context 2: 512=2 done\n"},
      {"by nothing", {{"vol0", "base:allocation"}, {"vol0", "x:y"}}, "vol0", "error 7 EINVAL done\n"},
      {"also when it fails", {{"vol0", "base:allocation"}, {"vol0", "no colon"}}, "vol0", "error 7 EINVAL done\n"},
      {"also for no export", {{"vol0", "base:allocation"}, {"nothing", "tarn:state"}}, "vol0", "error 7 EINVAL done\n"},
      {"for another export", {{"vol1", "base:allocation"}}, "vol0", "error 7 EINVAL done\n"},
      {"for the other one",
       {{"vol0", "tarn:state"}, {"vol1", "base:allocation"}},
       "vol1",
       "status 7 context 1: 512=0 done\n"},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct world *world = structured_world();
    for (size_t k = 0; k < 3 && rows[i].sets[k].name; k++)
      say_contexts(world, SET, rows[i].sets[k].name, rows[i].sets[k].query, NULL);
    go(world, rows[i].go);
    say_request(world, 0, NBD_CMD_BLOCK_STATUS, 7, 0, 512);
    say_request(world, 0, NBD_CMD_FLUSH, 8, 0, 0);
    world_run(world);
    const char *replies = world_replies(world);
    row_true(rows[i].why, strncmp(replies, rows[i].reply, strlen(rows[i].reply)) == 0);
    row_true(rows[i].why, strcmp(replies + strlen(rows[i].reply), "simple 8 ok\n") == 0);
    world_free(world);
  }
  /* An option that is too long is a SET that failed, too. */
  static uint8_t data[9000];
  struct world *world = structured_world();
  say_contexts(world, SET, "vol0", "base:allocation", NULL);
  say_option(world, SET, data, sizeof data);
  go(world, "vol0");
  say_request(world, 0, NBD_CMD_BLOCK_STATUS, 7, 0, 512);
  world_run(world);
  assert_string_equal(world_replies(world), "error 7 EINVAL done\n");
  world_free(world);
}

#define ONE NBD_CMD_FLAG_REQ_ONE
#define FUA NBD_CMD_FLAG_FUA

/* Bytes 128 KiB to 192 KiB and the last page are zero. */
static void each_request(void **state) {
  (void)state;
  static const struct {
    const char *why;
    const char *one, *two;
    uint16_t flags;
    uint64_t offset;
    uint32_t length;
    const char *replies;
  } rows[] = {
      {"data", "base:allocation", NULL, 0, 0, 131072, "status 7 context 1: 131072=0 done\n"},
      {"data and a hole", "base:allocation", NULL, 0, 65536, 262144,
       "status 7 context 1: 65536=0 65536=3 131072=0 done\n"},
      {"only one", "base:allocation", NULL, ONE, 65536, 262144, "status 7 context 1: 65536=0 done\n"},
      {"one that is longer than was asked for", "base:allocation", NULL, ONE, 131072, 512,
       "status 7 context 1: 512=3 done\n"},
      {"unaligned", "base:allocation", NULL, 0, 131071, 2, "status 7 context 1: 1=0 1=3 done\n"},
      {"the end", "base:allocation", NULL, FUA, 2 * MIB - 4097, 4097, "status 7 context 1: 1=0 4096=3 done\n"},
      {"our own", "tarn:state", NULL, 0, 0, 131072, "status 7 context 2: 4096=2 61440=0 65536=1 done\n"},
      {"our own, only one", "tarn:state", NULL, ONE, 100, 131072, "status 7 context 2: 3996=2 done\n"},
      {"both, a chunk for each", "base:allocation", "tarn:state", 0, 65536, 131072,
       "status 7 context 1: 65536=0 65536=3\nstatus 7 context 2: 65536=1 65536=0 done\n"},
      {"both, one each", "base:allocation", "tarn:state", ONE, 65536, 131072,
       "status 7 context 1: 65536=0\nstatus 7 context 2: 65536=1 done\n"},
      {"nothing", "base:allocation", NULL, 0, 0, 0, "error 7 EINVAL done\n"},
      {"past the end", "base:allocation", NULL, 0, 2 * MIB - 512, 1024, "error 7 EINVAL done\n"},
      {"far away", "base:allocation", "tarn:state", ONE, UINT64_MAX, 1, "error 7 EINVAL done\n"},
      {"a flag of another command", "base:allocation", NULL, NBD_CMD_FLAG_DF, 0, 512, "error 7 EINVAL done\n"},
      {"an unknown flag", "base:allocation", NULL, 1 << 9, 0, 512, "error 7 EINVAL done\n"},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct world *world = with_contexts(rows[i].one, rows[i].two);
    world_zero(world, 131072, 65536);
    world_zero(world, 2 * MIB - 4096, 4096);
    say_request(world, rows[i].flags, NBD_CMD_BLOCK_STATUS, 7, rows[i].offset, rows[i].length);
    world_run(world);
    const char *replies = world_replies(world);
    if (strcmp(replies, rows[i].replies) != 0) fail_msg("row \"%s\": %s", rows[i].why, replies);
    row_true(rows[i].why, nbd_session_requests_open(world->session) == 0);
    world_free(world);
  }
}

/* As many runs as a disk may tell, of both contexts, in small bites: all of it arrives, and a prefix is enough. */
static void as_many_runs_as_there_can_be(void **state) {
  (void)state;
  struct world *world = with_contexts("base:allocation", "tarn:state");
  world->send_bite = 7;
  for (uint32_t i = 0; i < 2 * MIB; i += 8192) world_zero(world, i, 4096);
  for (uint64_t cookie = 1; cookie <= 20; cookie++) say_request(world, 0, NBD_CMD_BLOCK_STATUS, cookie, 0, 2 * MIB);
  world_run(world);
  const char *text = world_replies(world);
  uint32_t runs = 0, ends = 0;
  for (const char *at = text; (at = strstr(at, "4096=")) != NULL; at++) runs++;
  for (const char *at = text; (at = strstr(at, "done\n")) != NULL; at++) ends++;
  assert_int_equal(runs, 20 * (DISK_EXTENTS_MAX + 1));
  assert_int_equal(ends, 20);
  world_free(world);
}

static uint32_t state_is_not_known(const struct nbd_export *export, uint64_t offset, uint64_t length,
                                   struct disk_extent *runs, uint32_t max) {
  (void)export, (void)offset, (void)length, (void)runs, (void)max;
  return 0;
}

static void what_goes_wrong(void **state) {
  (void)state;
  static const struct {
    const char *why;
    tarn_err err;
    bool both;
    const char *replies;
  } rows[] = {
      {"an error says nothing: all is data", TARN_IO, false, "status 7 context 1: 8192=0 done\n"},
      {"a disk that is gone", TARN_GONE, true, "status 7 context 1: 8192=0\nstatus 7 context 2: 4096=2 done\n"},
      {"a disk that hangs", TARN_HUNG, true, "status 7 context 1: 8192=0\nstatus 7 context 2: 4096=2 done\n"},
      {"not even tried", TARN_SHUTDOWN, true, "error 7 ESHUTDOWN done\n"},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct world *world = with_contexts("base:allocation", rows[i].both ? "tarn:state" : NULL);
    world_zero(world, 0, 8192);
    world->fail_at = 1;
    world->fail_err = rows[i].err;
    say_request(world, 0, NBD_CMD_BLOCK_STATUS, 7, 0, 8192);
    world_run(world);
    const char *replies = world_replies(world);
    if (strcmp(replies, rows[i].replies) != 0) fail_msg("row \"%s\": %s", rows[i].why, replies);
    world_free(world);
  }
  struct world *world = with_contexts("tarn:state", NULL);
  world->export.state = state_is_not_known;
  say_request(world, 0, NBD_CMD_BLOCK_STATUS, 7, 0, 8192);
  world_run(world);
  assert_string_equal(world_replies(world), "error 7 ESHUTDOWN done\n");
  world_free(world);
}

/* The disk has given the I/O back with an error, and may still write to its buffer: nothing of ours is made there. */
static void a_buffer_that_a_hung_disk_holds_is_left_alone(void **state) {
  (void)state;
  struct world *world = with_contexts("base:allocation", NULL);
  world->order = ORDER_HOLD;
  say_request(world, 0, NBD_CMD_BLOCK_STATUS, 7, 0, 8192);
  world_run(world);
  struct disk_io *io = LIST_ENTRY(list_first(&world->in_disk), struct disk_io, link);
  world->kept = io->buffer;
  buffer_ref(world->kept);
  world->fail_at = 1;
  world->fail_err = TARN_HUNG;
  require(world_disk_step(world, ORDER_FIRST));
  world_run(world);
  assert_string_equal(world_replies(world), "status 7 context 1: 8192=0 done\n");
  assert_int_equal(world->kept->refs, 1);
  world_free(world);
}

/* A crowd of them waits here, not at the disk, where it would be in others' way; who comes behind waits, too. */
static void one_of_a_session_is_with_the_disk(void **state) {
  (void)state;
  struct world *world = with_contexts("base:allocation", NULL);
  world->order = ORDER_HOLD;
  say_request(world, 0, NBD_CMD_READ, 1, 0, 512);
  for (uint64_t cookie = 2; cookie < 100; cookie++) say_request(world, 0, NBD_CMD_BLOCK_STATUS, cookie, 0, 512);
  say_request(world, 0, NBD_CMD_FLUSH, 100, 0, 0);
  world_run(world);
  assert_string_equal(world_log(world), "read 0+512\nextents 0+512\n");
  assert_int_equal(nbd_session_requests_open(world->session), 2);
  world->order = ORDER_FIRST;
  world_run(world);
  const char *text = world_replies(world);
  assert_non_null(strstr(text, "status 99 context 1: 512=0 done\nsimple 100 ok\n"));
  world_free(world);
}

/* Many at once on the smallest pool: they wait in line, and all are answered. */
static void many_wait_for_buffers(void **state) {
  (void)state;
  struct world *world = world_new(2 * MIB, 0);
  say_flags(world, NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES);
  say_option(world, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
  say_contexts(world, SET, "vol0", "base:allocation", "tarn:state");
  go(world, "vol0");
  world->shuffles = true;
  world->order = ORDER_RANDOM;
  for (uint64_t cookie = 1; cookie <= 300; cookie++) {
    say_request(world, 0, cookie % 3 ? NBD_CMD_BLOCK_STATUS : NBD_CMD_CACHE, cookie, cookie * 512, 300000);
  }
  world_run(world);
  const char *text = world_replies(world);
  uint32_t ends = 0;
  for (const char *at = text; (at = strstr(at, "done\n")) != NULL; at++) ends++;
  for (const char *at = text; (at = strstr(at, "simple")) != NULL; at++) ends++;
  assert_int_equal(ends, 300);
  assert_null(strstr(text, "error"));
  world_free(world);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(which_a_query_finds),
      cmocka_unit_test(which_choice_holds),
      cmocka_unit_test(each_request),
      cmocka_unit_test(as_many_runs_as_there_can_be),
      cmocka_unit_test(what_goes_wrong),
      cmocka_unit_test(a_buffer_that_a_hung_disk_holds_is_left_alone),
      cmocka_unit_test(one_of_a_session_is_with_the_disk),
      cmocka_unit_test(many_wait_for_buffers),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
