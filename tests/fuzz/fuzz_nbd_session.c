/* Property: whatever a client sends, in whatever bites, on whatever disk: no promise of ours is broken, all that the
 * session sends is well formed, each request is answered once, and every buffer is back after the close.
 *
 * The first four bytes choose the weather. Then either the rest is the client's stream as it is, or (odd second byte)
 * each twelve bytes of it are one request of a client that has been through the handshake, with contexts or without. */
#include "../unit/test_nbd_world.h"
#include "fuzz.h"

#define DISK_BYTES     (1u << 19)
#define REQUESTS_MAX   200u
#define READ_BYTES_MAX (4u << 20) /* by one input: more only takes time */

static uint32_t lengths[REQUESTS_MAX]; /* of READs, by cookie */
static uint64_t read_bytes;
static uint32_t length_of(uint64_t cookie) { return cookie < REQUESTS_MAX ? lengths[cookie] : 0; }

static struct world *world_of(const uint8_t *weather) {
  struct world *world = world_new(DISK_BYTES, 0);
  struct disk_caps *caps = &world->disk.caps;
  world->log_on = false;
  world->order = (enum world_order)(weather[0] % 3);
  world->shuffles = weather[0] & 4;
  world->bites_vary = weather[0] & 8;
  world->keep_buffers = weather[0] & 16;
  caps->can_zero = weather[0] & 32;
  caps->can_trim = weather[0] & 64;
  caps->block_bytes = weather[0] & 128 ? 512 : 1;
  if (weather[2] & 1) caps->io_bytes_max = 512u << (weather[2] >> 1) % 9;
  if (weather[2] & 32) caps->zero_bytes_max = 8192;
  world->bite = weather[2] & 64 ? 1u << (weather[2] >> 1) % 12 : SIZE_MAX;
  world->fail_at = weather[3] & 63;
  world->fail_for_good = weather[3] & 64;
  caps->read_only = weather[3] & 128;
  caps->can_extents = !(weather[2] & 128);
  return world;
}

/* ---- the client's stream as it is ---- */

/* What was sent is well formed as far as it describes itself: a simple READ does not say how long it is, the answer to
 * EXPORT_NAME has no magic. */
static void check_stream(struct world *world) {
  struct reader reader;
  reader_init(&reader, world->output, world->output_bytes);
  reader_skip(&reader, NBD_GREETING_BYTES);
  require(!reader.bad);
  bool structured = false, goes = false;
  while (!goes && reader_left(&reader) >= NBD_OPTION_REPLY_BYTES) {
    if (get_be64(&reader) != NBD_MAGIC_REPLY) return;
    uint32_t option = get_be32(&reader), type = get_be32(&reader), bytes = get_be32(&reader);
    require(type <= NBD_REP_META_CONTEXT || (type > NBD_REP_ERROR && type <= NBD_REP_ERR_TOO_BIG));
    require(bytes <= 4 + 2 * NBD_NAME_MAX);
    reader_skip(&reader, bytes);
    if (type == NBD_REP_ACK && option == NBD_OPT_STRUCTURED_REPLY) structured = true;
    if (type == NBD_REP_ACK && option == NBD_OPT_GO) goes = true;
  }
  require(!reader.bad);
  if (!goes || !structured) return;
  world->output_at = world->output_bytes - reader_left(&reader);
  const char *text = world_replies(world);
  require(!strstr(text, "GARBAGE"));
  require(implies(strstr(text, "CUT") != NULL, world_hangs_up(world)));
}

static void run_stream(struct world *world, const uint8_t *data, size_t bytes) {
  say_bytes(world, data, bytes);
  world_run(world);
  if (bytes % 2) world_stall(world);
  world_run(world);
  check_stream(world);
}

/* ---- requests ---- */

static void say_one(struct world *world, struct reader *script, uint64_t cookie) {
  uint8_t command = get_u8(script), flags = get_u8(script);
  uint64_t offset = get_le32(script) % (DISK_BYTES + 4096);
  uint32_t length = get_le32(script) >> get_u8(script) % 32, then = get_u8(script);
  if (world->disk.caps.block_bytes > 1 && !(flags & 128)) offset = align_down(offset, 512), length = length / 512 * 512;
  command %= 9;
  if (command == NBD_CMD_DISC) command = NBD_CMD_FLUSH;
  if (command == NBD_CMD_FLUSH) offset = length = 0;
  if (command == NBD_CMD_READ && read_bytes > READ_BYTES_MAX) length = 512;
  lengths[cookie] = command == NBD_CMD_READ ? length : 0;
  read_bytes += lengths[cookie] <= DISK_BYTES ? lengths[cookie] : 0;
  uint32_t write_max = (uint32_t)min_u64(world->bite, 1000) * 300; /* small bites of much only take time */
  if (command == NBD_CMD_WRITE) say_write(world, flags % 64, cookie, offset, length % write_max, (uint8_t)cookie);
  else say_request(world, flags % 64, command, cookie, offset, length);
  if (then % 4 == 0) return; /* more of them together */
  for (uint32_t turns = then; turns > 0 && world_turn(world); turns--) continue;
  if (then % 4 == 1) world_stall(world);
}

static void check_answers(struct world *world, uint64_t count) {
  const char *text = world_replies_with(world, &(struct reply_reader){.length_of = length_of});
  require(!strstr(text, "GARBAGE"));
  if (world_hangs_up(world)) return; /* a long simple read that failed in its middle */
  require(!strstr(text, "CUT"));
  uint64_t ends = 0;
  for (const char *at = text; (at = strstr(at, "done\n")) != NULL; at++) ends++;
  for (const char *at = text; (at = strstr(at, "simple")) != NULL; at++) ends++;
  require(ends == count);
  require(nbd_session_requests_open(world->session) == 0);
}

/* As world_transmit(), with contexts or without. */
static void transmit(struct world *world, bool structured, bool allocation, bool state) {
  say_flags(world, NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES);
  if (structured) say_option(world, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
  const char *one = allocation ? "base:allocation" : "tarn:state", *two = allocation && state ? "tarn:state" : NULL;
  if (structured && (allocation || state)) say_contexts(world, NBD_OPT_SET_META_CONTEXT, "vol0", one, two);
  say_info(world, NBD_OPT_GO, "vol0", NULL, 0);
  world_run(world);
  require(nbd_session_export(world->session) == &world->export);
  world->output_at = world->output_bytes;
}

static void run_requests(struct world *world, const uint8_t *data, size_t bytes, uint8_t how) {
  struct reader script;
  reader_init(&script, data, bytes);
  transmit(world, how & 2, how & 4, how & 8);
  uint64_t count = 0;
  read_bytes = 0;
  while (reader_left(&script) >= 12 && count < REQUESTS_MAX && world->input_bytes + 400000 < world->input_max)
    say_one(world, &script, count++);
  if (reader_left(&script) % 2) return; /* closed in the middle */
  world_run(world);
  check_answers(world, count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  if (bytes < 4 || bytes > 100000) return -1;
  struct world *world = world_of(data);
  prng_seed(&world->prng, data[1]);
  if (data[1] & 1) run_requests(world, data + 4, bytes - 4, data[1]);
  else run_stream(world, data + 4, bytes - 4);
  world_free(world);
  return 0;
}
