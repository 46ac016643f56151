/* Property: whatever lies in the metadata of a mirror, activating it never panics, is answered, and so is every request after it;
 * what is read is what an image holds. And where the metadata was damaged only as disks damage it (bursts of bits that no CRC
 * overlooks, zeroes, a sector in the place of another; any number, on any store, also reads that fail): the mirror
 * either refuses, or serves exactly what its clients had written, and images that it calls equal are equal.
 *
 * Eight lives of a mirror are lived once and remembered, from a fresh one to one that died while it recovered. An input is: the
 * life, flags, who is away, patches of the metadata, then what clients and the administrator do to the mirror that comes of it;
 * in the end it is stopped and activated again. Patches are either honest (above) or crafted: any bytes, with CRCs that fit. */
#include "../unit/mirror_world.h"

#include <stdlib.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "core/meta.h"
#include "fuzz.h"

#define VOLUME_BYTES (256u << 10)
#define SECTORS      (VOLUME_BYTES / SECTOR_BYTES)
#define IMAGES       3u
#define PATCHES_MAX  24u
#define OPS_MAX      24u

static struct mirror_world w;

/* ---- what clients were told ---- */

struct truth {
  uint8_t bytes[VOLUME_BYTES];
  bool maybe[SECTORS]; /* a write that was not answered may have come there: */
  uint8_t fill[SECTORS];
};
static struct truth truth;

struct life {
  uint8_t *data[IMAGES], *meta[IMAGES], home[RECORD_AREA_BYTES];
  struct truth truth;
  bool unreadable; /* some of it is lost, and reads may say so */
  uint64_t now_ns, random;
};
static struct life lives[8];
static uint64_t meta_bytes;
static bool faithful; /* no force, nothing crafted: `truth` holds */
static bool faults;   /* reads fail: errors are allowed */

/* ---- a client ---- */

static bool served_by_an_image(const uint8_t *sector, uint64_t at) {
  for (uint32_t i = 0; i < IMAGES; i++)
    if (memcmp(w.data[i].bytes + at, sector, SECTOR_BYTES) == 0) return true;
  return false;
}

static bool is_all(const uint8_t *sector, uint8_t fill) {
  return sector[0] == fill && memcmp(sector, sector + 1, SECTOR_BYTES - 1) == 0;
}

/* What is read once is read ever after. */
static void see(const uint8_t *bytes, uint64_t offset, uint64_t length) {
  for (uint64_t at = offset; at < offset + length; at += SECTOR_BYTES, bytes += SECTOR_BYTES) {
    require(served_by_an_image(bytes, at));
    if (!faithful) continue;
    uint64_t s = at / SECTOR_BYTES;
    bool new_one = truth.maybe[s] && is_all(bytes, truth.fill[s]);
    if (new_one) memcpy(truth.bytes + at, bytes, SECTOR_BYTES);
    require(memcmp(truth.bytes + at, bytes, SECTOR_BYTES) == 0);
    truth.maybe[s] = false;
  }
}

static void settle_io(struct client_io *client) {
  for (uint32_t step = 0; step < 400 && !client->done; step++) world_pass(&w, NS_PER_S / 10);
}

static tarn_err client_read(uint64_t offset, uint64_t length) {
  struct client_io client;
  client_begin(&w, &client, DISK_READ, offset, length, 0);
  settle_io(&client);
  require(client.done);
  if (client.io.err == TARN_OK) see(client.io.data, offset, length);
  buffer_unref(client.io.buffer);
  return client.io.err;
}

static void client_write(uint64_t offset, uint64_t length, uint8_t fill) {
  struct client_io client;
  client_begin(&w, &client, DISK_WRITE, offset, length, fill);
  settle_io(&client);
  require(client.done);
  for (uint64_t s = offset / SECTOR_BYTES; s < (offset + length) / SECTOR_BYTES; s++) {
    if (client.io.err == TARN_OK) memset(truth.bytes + s * SECTOR_BYTES, fill, SECTOR_BYTES), truth.maybe[s] = false;
    else if (truth.maybe[s] && truth.fill[s] != fill)
      faithful = false; /* two that may have happened: too much to model */
    else truth.maybe[s] = true, truth.fill[s] = fill;
  }
  buffer_unref(client.io.buffer);
}

/* ---- the lives ---- */

static void reopen_asked(void) {
  for (uint32_t i = 0; i < IMAGES && w.m; i++) {
    if (!(w.reopened & 1u << i)) continue;
    w.reopened &= ~(1u << i);
    mirror_image_reopened(w.m, i, &w.config.images[i]);
  }
}

static void pass(uint64_t seconds) {
  for (uint64_t s = 0; s < seconds; s++) {
    world_pass(&w, NS_PER_S);
    reopen_asked();
  }
}

/* Until it is answered; false: never. */
static bool wait_done(void) {
  for (uint32_t s = 0; s < 600 && !w.done; s++) pass(1);
  bool done = w.done;
  w.done = false;
  return done;
}

static void write_held_by(uint32_t image, uint64_t offset, uint64_t length, uint8_t fill) {
  static struct client_io client; /* forgotten with the process */
  w.data[image].holds = RAM_WRITES;
  client_begin(&w, &client, DISK_WRITE, offset, length, fill);
  world_run(&w);
  require(!client.done);
  for (uint64_t s = offset / SECTOR_BYTES; s < (offset + length) / SECTOR_BYTES; s++)
    truth.maybe[s] = true, truth.fill[s] = fill;
}

static void fresh(uint32_t images) {
  for (uint32_t i = 0; i < IMAGES; i++) {
    struct ram_disk *const both[] = {&w.data[i], &w.meta[i]};
    for (uint32_t k = 0; k < 2; k++)
      both[k]->holds = both[k]->fails = both[k]->bad_count = 0, list_init(&both[k]->held);
    memset(w.meta[i].bytes, 0, meta_bytes);
    if (i) memset(w.data[i].bytes, 0, VOLUME_BYTES);
  }
  memset(w.home.bytes, 0, RECORD_AREA_BYTES);
  w.config.image_count = images;
  memset(&truth, 0, sizeof truth);
  for (uint32_t at = 0; at < VOLUME_BYTES; at++) truth.bytes[at] = w.data[0].bytes[at] = (uint8_t)(1 + at % 251);
  world_format(&w);
}

static void up(void) {
  world_activate(&w);
  pass(3);
}

/* Fresh, served and stopped: all equal. */
static void down(void) {
  mirror_deactivate(w.m, false, world_done, &w);
  require(wait_done() && w.err == TARN_OK);
  mirror_close(w.m);
  world_die(&w);
}

static void live(uint32_t which) {
  fresh(which == 4 || which == 5 ? 3 : 2);
  if (which == 0) return; /* never activated: b is to be copied in full */
  up();
  client_write(0, 8192, 0xa1);
  client_write(100 * SECTOR_BYTES, 65536, 0xa2);
  if (which == 1) { /* stopped cleanly */
    down();
  } else if (which == 2) { /* died in the middle of writes */
    write_held_by(1, 4096, 4096, 0xb1);
    write_held_by(0, 200 * SECTOR_BYTES, 8192, 0xb2);
    world_die(&w);
  } else if (which == 3) { /* b failed, missed writes, and the process died */
    w.data[1].fails = RAM_WRITES;
    client_write(8192, 16384, 0xc1);
    client_write(128u << 10, 65536, 0xc2);
    write_held_by(0, 300 * SECTOR_BYTES, 4096, 0xc3);
    world_die(&w);
  } else if (which == 4) { /* c was fractured, the mirror went on, and was stopped */
    mirror_image_do(w.m, 2, IMAGE_OP_FRACTURE, false, world_done, &w);
    require(wait_done());
    client_write(0, 65536, 0xd1);
    client_write(192u << 10, 4096, 0xd2);
    down();
  } else if (which == 5) { /* c is copied to, slowly, and the process died */
    mirror_image_do(w.m, 2, IMAGE_OP_FRACTURE, false, world_done, &w);
    require(wait_done());
    client_write(0, 131072, 0xd3);
    mirror_image_do(w.m, 2, IMAGE_OP_RESTORE, false, world_done, &w);
    require(wait_done());
    w.data[2].holds = RAM_WRITES;
    world_pass(&w, NS_PER_S);
    client_write(0, 4096, 0xd4);
    world_die(&w);
  } else if (which == 6) { /* died, then died again while it recovered */
    write_held_by(1, 0, 65536, 0xe1);
    world_die(&w);
    w.data[1].holds = 0;
    list_init(&w.data[1].held);
    world_open(&w);
    w.data[1].holds = RAM_WRITES;
    mirror_activate(w.m, &(struct mirror_activation){0}, world_done, &w);
    world_run(&w);
    world_die(&w);
  } else { /* a place that nobody can read, and b is behind */
    w.data[1].fails = RAM_WRITES;
    client_write(8192, 16384, 0xf1);
    down();
    w.data[1].fails = 0;
    ram_spoil(&w.data[0], 8192, 4096, RAM_READS);
    up();
    down();
    lives[which].unreadable = true;
  }
}

static uint8_t *copy_of(const uint8_t *bytes, size_t count) {
  uint8_t *copy = malloc(count);
  require(copy != NULL);
  return memcpy(copy, bytes, count);
}

static void remember(struct life *life) {
  w.done = false;
  w.reopened = 0;
  for (uint32_t i = 0; i < IMAGES; i++) {
    life->data[i] = copy_of(w.data[i].bytes, VOLUME_BYTES);
    life->meta[i] = copy_of(w.meta[i].bytes, meta_bytes);
  }
  memcpy(life->home, w.home.bytes, RECORD_AREA_BYTES);
  life->truth = truth;
  life->now_ns = w.env.now_ns;
  life->random = w.random;
}

static void live_all(void) {
  world_init(&w, IMAGES, VOLUME_BYTES, 512);
  w.config.extent_bytes = 4096;
  meta_bytes = mirror_meta_bytes(&w.config);
  require(meta_bytes <= w.meta[0].disk.caps.size_bytes);
  for (uint32_t which = 0; which < COUNT_OF(lives); which++) {
    live(which);
    remember(&lives[which]);
  }
}

static void relive(uint32_t which) {
  const struct life *life = &lives[which];
  for (uint32_t i = 0; i < IMAGES; i++) {
    struct ram_disk *const both[] = {&w.data[i], &w.meta[i]};
    for (uint32_t k = 0; k < 2; k++) {
      both[k]->holds = both[k]->fails = both[k]->held_count = 0;
      list_init(&both[k]->held);
    }
    if (which != 7) w.data[i].bad_count = 0;
    w.meta[i].bad_count = 0;
    memcpy(w.data[i].bytes, life->data[i], VOLUME_BYTES);
    memcpy(w.meta[i].bytes, life->meta[i], meta_bytes);
    w.config.images[i].data[0] = &w.data[i].disk;
    w.config.images[i].meta = &w.meta[i].disk;
    w.config.images[i].error = NULL;
  }
  w.data[0].bad_count = which == 7;
  if (which == 7) w.data[0].bad[0].start = 8192, w.data[0].bad[0].end = 12288, w.data[0].bad[0].what = RAM_READS;
  memcpy(w.home.bytes, life->home, RECORD_AREA_BYTES);
  w.home.fails = 0;
  w.config.image_count = which == 4 || which == 5 ? 3 : 2;
  truth = life->truth;
  w.env.now_ns = life->now_ns;
  w.random = life->random;
  w.done = false;
  w.reopened = 0;
  w.log[0] = 0;
}

/* ---- patches ---- */

/* Where a patch goes: the bytes of a store, and the unit that has a CRC of its own there. */
struct place {
  uint8_t *store;
  uint64_t at;
};
static bool touched[IMAGES + 1][1024]; /* by sector: hit once already */

static struct geometry geometry_now(void) {
  struct geometry g;
  geometry_init(&g, 1, &(uint64_t){VOLUME_BYTES}, w.config.region_bytes, w.config.extent_bytes, w.config.mark_count,
                NULL);
  return g;
}

/* Area 0, 1: a slot of the record; 2, 3: the log; then the maps, top and pages, both copies, of each image. */
static uint64_t place_of(uint32_t store, uint8_t area, uint16_t offset) {
  struct geometry g = geometry_now();
  if (store == IMAGES || area % 16 < 2) return area % 2 * RECORD_SLOT_BYTES + offset % RECORD_SLOT_BYTES;
  if (area % 16 < 4) return meta_log_offset(&g, area % 2, 0) + offset % (g.log_blocks * META_BLOCK_BYTES);
  uint32_t k = area % 16 - 4u;
  return meta_map_offset(&g, k / 4, k & 2 ? MAP_TOP : MAP_PAGE, k & 1, 0) + offset % SECTOR_BYTES;
}

static void damage(uint8_t *bytes, uint32_t store, uint64_t at, uint8_t how, uint32_t pattern) {
  uint64_t sector = at / SECTOR_BYTES;
  uint8_t *in = bytes + sector * SECTOR_BYTES;
  bool again = touched[store][sector];
  touched[store][sector] = true;
  if (how == 0 && !again) {
    uint64_t start = min_u64(at % SECTOR_BYTES, SECTOR_BYTES - sizeof pattern);
    uint8_t burst[4];
    memcpy(burst, &pattern, 4);
    for (uint32_t i = 0; i < 4; i++) in[start + i] ^= i == 0 && pattern == 0 ? 1 : burst[i];
  } else if (how == 1) {
    memset(in, 0xff, SECTOR_BYTES);
  } else if (how == 2) {
    memset(in, 0, SECTOR_BYTES);
  } else if (how ==
             3) { /* a sector in the place of another: not of the record, whose sectors do not name their place */
    uint64_t from = RECORD_AREA_BYTES / SECTOR_BYTES + pattern % 64;
    bool record = store == IMAGES || sector < RECORD_AREA_BYTES / SECTOR_BYTES;
    if (record || touched[store][from]) memset(in, 0xff, SECTOR_BYTES);
    else if (from != sector) memcpy(in, bytes + from * SECTOR_BYTES, SECTOR_BYTES);
  }
}

static void craft(uint8_t *bytes, uint32_t store, uint64_t at, struct reader *script, uint32_t count) {
  touched[store][at / SECTOR_BYTES] = true;
  for (uint32_t i = 0; i < count && reader_left(script) > 0; i++) {
    uint8_t value = get_u8(script);
    if ((at + i) % SECTOR_BYTES < 508 || at >= RECORD_AREA_BYTES) bytes[at + i] = value;
    touched[store][(at + i) / SECTOR_BYTES] = true;
  }
}

static void put_crc(uint8_t *at, uint32_t crc) {
  struct writer writer;
  writer_init(&writer, at, sizeof crc);
  put_le32(&writer, crc);
}

/* A CRC that fits, wherever something was put. */
static void seal(uint8_t *bytes, uint32_t store) {
  for (uint32_t slot = 0; slot < 2; slot++) {
    uint8_t content[16 * 508], *record = bytes + slot * RECORD_SLOT_BYTES;
    bool hit = false;
    for (uint32_t s = 0; s < 16; s++) hit |= touched[store][slot * 16 + s];
    if (!hit) continue;
    put_crc(record + 12, 0);
    for (uint32_t s = 0; s < 16; s++) memcpy(content + s * 508, record + s * SECTOR_BYTES, 508);
    uint32_t crc = crc32c(content, sizeof content);
    for (uint32_t s = 0; s < 16; s++) put_crc(record + s * SECTOR_BYTES + 508, crc);
    put_crc(record + 12, crc);
  }
  for (uint64_t s = RECORD_AREA_BYTES / SECTOR_BYTES; store < IMAGES && s < meta_bytes / SECTOR_BYTES; s++)
    if (touched[store][s])
      put_crc(bytes + s * SECTOR_BYTES + 4, crc32c(bytes + s * SECTOR_BYTES + 8, SECTOR_BYTES - 8));
}

static uint8_t *bytes_of(uint32_t store) { return store == IMAGES ? w.home.bytes : w.meta[store].bytes; }

static void patch_all(struct reader *script, bool crafted) {
  memset(touched, 0, sizeof touched);
  uint32_t count = get_u8(script) % PATCHES_MAX;
  while (count-- > 0 && reader_left(script) >= 5) {
    uint8_t what = get_u8(script), area = get_u8(script);
    uint32_t store = what % 4;
    uint16_t offset = get_le16(script);
    uint8_t more = get_u8(script);
    if (crafted) {
      craft(bytes_of(store), store, place_of(store, area, offset), script, more % 17);
      continue;
    }
    uint32_t pattern = reader_left(script) >= 4 ? get_le32(script) : more;
    if (!(what & 64)) damage(bytes_of(store), store, place_of(store, area, offset), what / 4 % 4, pattern);
    for (store = 0; store < IMAGES && what & 64; store++) /* both copies, on every image */
      for (uint8_t copy = 0; copy < 2; copy++)
        damage(bytes_of(store), store, place_of(store, area ^ copy, offset), what / 4 % 4, pattern);
  }
  for (uint32_t store = 0; store <= IMAGES && crafted; store++) seal(bytes_of(store), store);
}

/* ---- what is done with it ---- */

static void check_equal(void) {
  if (!faithful) return;
  for (uint32_t i = 1; i < w.config.image_count; i++)
    if (mirror_image_is_equal(w.m, i) && mirror_image_is_equal(w.m, 0) &&
        !mirror_is_unreadable(w.m, 0, 0, VOLUME_BYTES))
      require(memcmp(w.data[0].bytes, w.data[i].bytes, VOLUME_BYTES) == 0);
}

static void operate(struct reader *script) {
  uint8_t what = get_u8(script), where = get_u8(script), more = get_u8(script);
  uint64_t offset = where % 128u * 2048u, length = min_u64((1u + more % 32u) * SECTOR_BYTES, VOLUME_BYTES - offset);
  uint32_t image = where % w.config.image_count;
  switch (what % 8) {
    case 0:
    case 1: {
      tarn_err err = client_read(offset, length);
      require(!faithful || faults || err == TARN_OK || mirror_is_unreadable(w.m, 0, offset, length) ||
              mirror_has_fallen(w.m));
      break;
    }
    case 2:
    case 3: client_write(offset, length, (uint8_t)(more | 0x80)); break;
    case 4: {
      struct client_io client;
      client_begin(&w, &client, DISK_FLUSH, 0, 0, 0);
      settle_io(&client);
      require(client.done);
      break;
    }
    case 5: /* ASSUME believes what is not so; nothing can be said then */
      mirror_image_do(w.m, image, (enum mirror_image_op)(more % (IMAGE_OP_ASSUME)), more & 128, world_done, &w);
      (void)wait_done();
      break;
    case 6:
      mirror_verify(w.m, more % 5, world_done, &w);
      if (more % 5 < w.config.image_count) faithful = false; /* a repair from an image that may be wrong */
      (void)wait_done();
      break;
    default: pass(more % 64);
  }
  reopen_asked();
  check_equal();
}

/* Reads all of it. */
static void look(void) {
  for (uint64_t at = 0; at < VOLUME_BYTES; at += 64u << 10) {
    tarn_err err = client_read(at, 64u << 10);
    require(!faithful || faults || err == TARN_OK || mirror_is_unreadable(w.m, 0, at, 64u << 10) ||
            mirror_has_fallen(w.m));
  }
}

static void end(bool activated) {
  if (activated) { /* also one that fell since */
    mirror_deactivate(w.m, false, world_done, &w);
    require(wait_done());
  }
  require(buffer_pool_is_whole(&w.pool));
  pass(1);
  mirror_close(w.m);
  world_die(&w);
}

static bool activate(bool force, bool quiet) {
  world_open(&w);
  mirror_activate(w.m, &(struct mirror_activation){.force = force, .quiet = quiet}, world_done, &w);
  require(wait_done());
  return w.err == TARN_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
  static bool lived;
  if (bytes < 4 || bytes > 4096) return -1;
  if (!lived) live_all();
  lived = true;
  struct reader script;
  reader_init(&script, data, bytes);
  uint8_t which = get_u8(&script) % COUNT_OF(lives), flags = get_u8(&script), away = get_u8(&script);
  relive(which);
  bool crafted = flags & 1, force = flags & 2;
  faithful = !crafted && !force;
  faults = lives[which].unreadable;
  patch_all(&script, crafted);
  for (uint32_t i = 0; i < w.config.image_count; i++) {
    if (away & 1u << i) {
      w.config.images[i].data[0] = w.config.images[i].meta = NULL;
      w.config.images[i].error = "it is away";
    }
    if (away & 8u << i) w.meta[i].fails = RAM_READS, faults = true;
  }
  if (away & 64) w.home.fails = RAM_READS;
  bool activated = activate(force, false);
  if (activated) {
    for (uint32_t ops = 0; ops < OPS_MAX && reader_left(&script) >= 3; ops++) operate(&script);
    if (flags & 4) pass(20);
    look();
    check_equal();
  }
  if (flags & 8) {
    end(activated);
    activated = activate(force, false);
    if (activated) look();
  }
  end(activated);
  return 0;
}
