/* The record: round trip, every flipped bit, versions, and each bound of record_check(). */
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/prng.h"
#include "format/record.h"
#include "unit.h"

static struct record sample(void) {
  struct record record = {
      .version = RECORD_VERSION,
      .sequence = 77,
      .completed = 76,
      .mirror_uuid = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
      .self = 1,
      .name = "vol0",
      .epoch = 7,
      .epoch_node = "n1",
      .generation = {9, 0x1122334455667788},
      .history = {{9, 5}, {8, 4}, {3, 2}},
      .active = true,
      .master = 0,
      .recovery_source = RECORD_NO_SOURCE,
      .region_bytes = 4 << 20,
      .extent_bytes = 16 << 10,
      .mark_count = 4096,
      .volume_count = 2,
      .volumes = {{"0", {17}, 1 << 30, 0}, {"log", {18}, 512, 8 << 20}},
      .images = {{true, "a", "n1", {19}, IMAGE_SYNCHRONIZED, MISSING_NONE, false, 0, 0},
                 {true,
                  "b",
                  "n1",
                  {20},
                  IMAGE_UNSYNCHRONIZED,
                  MISSING_FAILED,
                  true,
                  8,
                  1234567890,
                  {3, 4},
                  0x71,
                  0x030201,
                  0x99},
                 {.present = false},
                 {true, "c-3_X", "node-2", {21}, IMAGE_CONSISTENT, MISSING_FRACTURED, false, 9, 99}},
      .unreadable = {2, {{8192, 4096}, {1 << 30, 512}}},
      .settled_number = 7,
      .layout = {57344, 1 << 20, 1 << 30},
      .witness_count = 2,
      .witnesses = {{4096, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}}, {1 << 30, {0xff}}},
  };
  return record;
}

/* Where a place of the content lies among the bytes: each sector ends with the CRC. */
static size_t at(size_t offset) { return offset / 508 * 512 + offset % 508; }

/* A test may change what it likes in an encoded record: this makes its CRC fit again. */
static void fix_crc(uint8_t *bytes) {
  static uint8_t content[16 * 508];
  memset(bytes + 12, 0, 4);
  for (size_t i = 0; i < 16; i++) memcpy(content + i * 508, bytes + i * 512, 508);
  uint32_t crc = crc32c(content, sizeof content);
  struct writer writer;
  for (size_t i = 0; i < 16; i++) {
    writer_init(&writer, bytes + i * 512 + 508, 4);
    put_le32(&writer, crc);
  }
  writer_init(&writer, bytes + 12, 4);
  put_le32(&writer, crc);
}

static void round_trip(void **state) {
  (void)state;
  struct record record = sample(), back;
  assert_null(record_check(&record));
  static uint8_t bytes[RECORD_BYTES], again[RECORD_BYTES];
  memset(bytes, 0xaa, sizeof(bytes));
  record_encode(&record, bytes);
  assert_int_equal(record_decode(&back, bytes), TARN_OK);
  assert_memory_equal(back.images, record.images, sizeof(back.images));
  assert_memory_equal(back.volumes, record.volumes, sizeof(back.volumes));
  assert_memory_equal(back.history, record.history, sizeof(back.history));
  assert_string_equal(back.name, "vol0");
  assert_string_equal(back.epoch_node, "n1");
  assert_true(back.sequence == 77 && back.completed == 76 && back.epoch == 7 && back.generation.number == 9 &&
              back.self == 1);
  assert_true(back.active);
  assert_false(back.clean);
  assert_false(back.demoted);
  assert_memory_equal(&back.unreadable, &record.unreadable, sizeof(back.unreadable));
  assert_memory_equal(&back.layout, &record.layout, sizeof(back.layout));
  assert_int_equal(back.witness_count, 2);
  assert_memory_equal(back.witnesses, record.witnesses, sizeof(back.witnesses));
  record_encode(&back, again);
  assert_memory_equal(bytes, again, sizeof(bytes));
}

static void the_layout_is_as_documented(void **state) {
  (void)state;
  struct record record = sample();
  static uint8_t bytes[RECORD_BYTES];
  record_encode(&record, bytes);
  static const struct {
    const char *why;
    size_t offset, count;
    uint8_t expected[8];
  } rows[] = {
      {"magic", 0, 8, {'T', 'A', 'R', 'N', 'R', 'E', 'C', '1'}},
      {"version", 8, 4, {2}},
      {"features", 16, 4, {0}},
      {"region_bytes", 20, 4, {0, 0, 0x40}},
      {"extent_bytes", 24, 4, {0, 0x40}},
      {"mark_count", 28, 4, {0, 0x10}},
      {"sequence", 32, 8, {77}},
      {"completed", 344, 8, {76}},
      {"mirror uuid", 40, 4, {1, 2, 3, 4}},
      {"epoch", 56, 8, {7}},
      {"name", 64, 5, {'v', 'o', 'l', '0'}},
      {"epoch_node", 128, 3, {'n', '1'}},
      {"generation number", 192, 8, {9}},
      {"generation id", 200, 8, {0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11}},
      {"history, second number", 224, 8, {8}},
      {"self, flags, master, recovery source", 336, 4, {1, 1, 0, 255}},
      {"volume_count", 340, 4, {2}},
      {"second volume's name", 448, 4, {'l', 'o', 'g'}},
      {"second volume's size", 528, 8, {0, 2}},
      {"second volume's address space", 536, 8, {0, 0, 0x80}},
      {"second image's name", 1312, 2, {'b'}},
      {"second image's state, missing, flags", 1456, 4, {IMAGE_UNSYNCHRONIZED, MISSING_FAILED, 3, 0}},
      {"second image's map_epoch", 1460, 4, {1, 2, 3, 0}},
      {"second image's left_number", 1464, 8, {8}},
      {"second image's seen_sequence", 1496, 8, {0x71}},
      {"fourth image's node", 1760, 7, {'n', 'o', 'd', 'e', '-', '2'}},
      {"unreadable places: how many", 4192, 8, {2}},
      {"the first one's start", 4200, 8, {0, 32}},
      {"the first one's length", 4208, 8, {0, 16}},
      {"the second one's start", 4216, 8, {0, 0, 0, 64}},
      {"the second one's length", 4224, 8, {0, 2}},
      {"no third one", 4232, 8, {0}},
      {"settled_number", 6248, 8, {7}},
      {"history, ninth generation", 6256, 8, {0}},
      {"order", 6896, 8, {0}},
      {"layout, map_offset", 6904, 8, {0, 0xe0}},
      {"layout, map_extents", 6912, 8, {0, 0, 0x10}},
      {"layout, moment_offset", 6920, 8, {0, 0, 0, 0x40}},
      {"second image's left_id", 6936, 8, {0x99}},
      {"witnesses: how many", 7056, 8, {2}},
      {"the first one's address", 7064, 8, {0, 16}},
      {"the first one's hash", 7072, 8, {1, 2, 3, 4, 5, 6, 7, 8}},
      {"the second one's address", 7088, 8, {0, 0, 0, 64}},
      {"the second one's hash", 7096, 8, {0xff}},
      {"no third one", 7112, 8, {0}},
      {"the reserve", 7832, 8, {0}},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++)
    row_true(rows[i].why, memcmp(bytes + at(rows[i].offset), rows[i].expected, rows[i].count) == 0);
}

/* The sample as a daemon of version 1 has it. */
static struct record sample_1(void) {
  struct record record = sample();
  record.version = RECORD_VERSION_1;
  record.layout = (struct record_layout){0};
  record.witness_count = 0;
  memset(record.witnesses, 0, sizeof record.witnesses);
  record.images[1].left_id = 0;
  record.volumes[1].space_bytes = 0;
  return record;
}

#include "record_version_1.h"

/* As the last daemon of that version wrote it. */
static void a_record_of_version_1(void **state) {
  (void)state;
  static uint8_t bytes[RECORD_BYTES], again[RECORD_BYTES];
  struct record back, expected = sample_1();
  memset(bytes, 0, sizeof bytes);
  for (size_t i = 0; i < COUNT_OF(record_version_1); i++) bytes[record_version_1[i].offset] = record_version_1[i].value;
  fix_crc(bytes);
  assert_int_equal(bytes[8], 1);
  assert_int_equal(record_decode(&back, bytes), TARN_OK);
  record_encode(&expected, again);
  assert_memory_equal(bytes, again, RECORD_BYTES);
  assert_int_equal(back.version, RECORD_VERSION_1);
  assert_string_equal(back.images[3].name, "c-3_X");
  assert_true(back.images[1].left_number == 8 && back.images[1].left_id == 0);
  assert_int_equal(back.layout.map_offset, 0);
  /* Nothing of what came later passes for version 1. */
  for (size_t offset = 6256; offset < 8128; offset += 8) {
    bytes[at(offset)] = 1;
    fix_crc(bytes);
    assert_int_equal(record_decode(&back, bytes), TARN_CORRUPT);
    bytes[at(offset)] = 0;
  }
  bytes[at(352 + 90)] = 8; /* address space of the first volume */
  fix_crc(bytes);
  assert_int_equal(record_decode(&back, bytes), TARN_CORRUPT);
}

/* By epoch, then generation, then sequence. */
static void which_record_is_newer(void **state) {
  (void)state;
  static const struct {
    const char *why;
    uint64_t epoch, number, sequence;
    bool newer;
  } rows[] = {
      {"the same", 7, 9, 77, false},
      {"a later sequence", 7, 9, 78, true},
      {"a later generation counts more than a sequence", 7, 10, 1, true},
      {"an earlier generation too", 7, 8, 100, false},
      {"a later epoch counts more than both", 8, 1, 1, true},
      {"an earlier epoch too", 6, 100, 100, false},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct record a = sample(), b = sample();
    a.epoch = rows[i].epoch, a.generation.number = rows[i].number, a.sequence = rows[i].sequence;
    row_true(rows[i].why, record_is_newer(&a, &b) == rows[i].newer);
  }
}

static void a_record_from_before_there_were_unreadable_places(void **state) {
  (void)state;
  struct record record = sample_1(), back;
  static uint8_t bytes[RECORD_BYTES];
  record_encode(&record, bytes);
  memset(bytes + at(4192), 0, RECORD_BYTES - at(4192));
  fix_crc(bytes);
  assert_int_equal(record_decode(&back, bytes), TARN_OK);
  assert_int_equal(back.unreadable.count, 0);
  assert_false(back.demoted);
}

static void the_flags(void **state) {
  (void)state;
  for (unsigned flags = 0; flags < 16; flags++) {
    struct record record = sample(), back;
    static uint8_t bytes[RECORD_BYTES];
    record.active = flags & 1, record.clean = flags & 2, record.doubt = flags & 4, record.demoted = flags & 8;
    record_encode(&record, bytes);
    assert_int_equal(bytes[337], flags);
    assert_int_equal(record_decode(&back, bytes), TARN_OK);
    assert_true(back.active == record.active && back.clean == record.clean && back.doubt == record.doubt &&
                back.demoted == record.demoted);
  }
}

static void every_flipped_bit_is_caught(void **state) {
  (void)state;
  struct record record = sample(), back;
  static uint8_t bytes[RECORD_BYTES];
  record_encode(&record, bytes);
  for (size_t bit = 0; bit < RECORD_BYTES * 8; bit++) {
    bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    assert_int_equal(record_decode(&back, bytes), TARN_CORRUPT);
    bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
  }
  assert_int_equal(record_decode(&back, bytes), TARN_OK);
}

static void what_is_no_record_of_ours(void **state) {
  (void)state;
  static const struct {
    const char *why;
    size_t offset;
    uint8_t value;
    bool fix;
    tarn_err err;
  } rows[] = {
      {"a newer version is said to be newer", 8, 3, true, TARN_VERSION},
      {"far newer", 11, 1, true, TARN_VERSION},
      {"a damaged version is damage", 8, 3, false, TARN_CORRUPT},
      {"there never was a version 0", 8, 0, true, TARN_CORRUPT},
      {"a feature that we do not know", 16, 1, true, TARN_VERSION},
      {"another magic", 7, '2', true, TARN_CORRUPT},
      {"a flag that we do not know", 337, 16, true, TARN_CORRUPT},
      {"something in a gap", 440, 1, true, TARN_CORRUPT},
      {"an address space of half a region", 352 + 90, 0x20, true, TARN_CORRUPT},
      {"an address space that is smaller than its volume", 352 + 90, 0x40, true, TARN_CORRUPT},
      {"something in a volume that is not there", 352 + 2 * 96, 'x', true, TARN_CORRUPT},
      {"something in an image that is not there", 1120 + 2 * 192, 'x', true, TARN_CORRUPT},
      {"a flag of an image that is not there", 1120 + 2 * 192 + 146, 2, true, TARN_CORRUPT},
      {"an image's flag that we do not know", 1120 + 146, 5, true, TARN_CORRUPT},
      {"an image's state out of range", 1120 + 144, 4, true, TARN_CORRUPT},
      {"something in an image's gap", 1120 + 147, 1, true, TARN_CORRUPT},
      {"a map's epoch out of range", 1120 + 151, 1, true, TARN_CORRUPT},
      {"more unreadable places than there can be", 4192, 129, true, TARN_CORRUPT},
      {"something in their gap", 4196, 1, true, TARN_CORRUPT},
      {"an unreadable place that is not there", 4232, 1, true, TARN_CORRUPT},
      {"a ninth generation behind seven", 6256, 1, true, TARN_CORRUPT},
      {"an order number", 6896, 1, true, TARN_CORRUPT},
      {"maps in no block", 6904, 1, true, TARN_CORRUPT},
      {"an image that is not there has left", 6928 + 2 * 8, 1, true, TARN_CORRUPT},
      {"more witnesses than there can be", 7056, 33, true, TARN_CORRUPT},
      {"something in their gap", 7060, 1, true, TARN_CORRUPT},
      {"a witness that is not there", 7112, 1, true, TARN_CORRUPT},
      {"something behind all fields", 7832, 1, true, TARN_CORRUPT},
      {"something in the tail", 8127, 1, true, TARN_CORRUPT},
      {"a name without its NUL", 64 + 63, 'x', true, TARN_CORRUPT},
      {"something behind a name's NUL", 64 + 10, 'x', true, TARN_CORRUPT},
      {"the master is no image", 338, 2, true, TARN_CORRUPT},
      {"more volumes than there can be", 340, 9, true, TARN_CORRUPT},
  };
  static uint8_t bytes[RECORD_BYTES];
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct record record = sample(), back;
    record_encode(&record, bytes);
    bytes[at(rows[i].offset)] = rows[i].value;
    if (rows[i].fix) fix_crc(bytes);
    row_true(rows[i].why, record_decode(&back, bytes) == rows[i].err);
  }
  struct record back;
  memset(bytes, 0, sizeof(bytes));
  assert_int_equal(record_decode(&back, bytes), TARN_NOT_FOUND);
  bytes[RECORD_BYTES - 1] = 1;
  assert_int_equal(record_decode(&back, bytes), TARN_CORRUPT);
}

static void a_torn_record_is_caught(void **state) {
  (void)state;
  struct record old = sample(), new = sample(), back;
  new.sequence++;
  new.generation = (struct generation){10, 6};
  new.images[3].state = IMAGE_SYNCHRONIZED;
  static uint8_t before[RECORD_BYTES], after[RECORD_BYTES], torn[RECORD_BYTES];
  record_encode(&old, before);
  record_encode(&new, after);
  /* Whatever mix of its sectors that differ reached the disk. */
  for (unsigned mask = 1; mask < 15; mask++) {
    memcpy(torn, before, RECORD_BYTES);
    for (unsigned sector = 0; sector < 16; sector++)
      if (mask >> (sector % 4) & 1) memcpy(torn + 512 * sector, after + 512 * sector, 512);
    bool whole = memcmp(torn, before, RECORD_BYTES) == 0 || memcmp(torn, after, RECORD_BYTES) == 0;
    assert_int_equal(record_decode(&back, torn), whole ? TARN_OK : TARN_CORRUPT);
  }
}

/* A slot that one write has torn, and then the write of another record: a sector that both have alike must not bring the first
 * one back. */
static void two_torn_writes_do_not_make_a_record(void **state) {
  (void)state;
  struct record old = sample(), first = sample(), second, back;
  first.sequence++, first.settled_number++;
  second = first;
  second.generation.id ^= 1;
  static uint8_t bytes[3][RECORD_BYTES], torn[RECORD_BYTES];
  record_encode(&old, bytes[0]);
  record_encode(&first, bytes[1]);
  record_encode(&second, bytes[2]);
  size_t last = at(6248) / 512 * 512; /* the sector of settled_number, which the first write did not reach */
  memcpy(torn, bytes[1], RECORD_BYTES);
  memcpy(torn + last, bytes[0] + last, 512);
  assert_int_equal(record_decode(&back, torn), TARN_CORRUPT);
  memcpy(torn + last, bytes[2] + last, 512);
  assert_memory_equal(torn + last, bytes[1] + last, 508);
  assert_int_equal(record_decode(&back, torn), TARN_CORRUPT);
}

/* Each row spoils one thing in a good record; or not, where a limit is to be met exactly. */
#define SPOIL(name, ...) \
  static void name(struct record *r) { __VA_ARGS__; }
SPOIL(nothing, (void)r)
SPOIL(version_next, r->version++)
SPOIL(version_1_with_later_fields, r->version = RECORD_VERSION_1)
SPOIL(order_given, r->order = 1)
SPOIL(space_given, r->volumes[0].space_bytes = 2ull << 30; r->layout.map_extents = 1 << 21)
SPOIL(space_exact, r->volumes[0].space_bytes = 1 << 30)
SPOIL(space_small, r->volumes[0].space_bytes = (1 << 30) - (4 << 20))
SPOIL(space_odd, r->volumes[0].space_bytes = (1ull << 30) + 512)
SPOIL(space_huge, r->volumes[0].space_bytes = 1ull << 54)
SPOIL(maps_nowhere, r->layout.map_offset = 0)
SPOIL(maps_over_record, r->layout.map_offset = 12288)
SPOIL(maps_unaligned, r->layout.map_offset += 512)
SPOIL(maps_far, r->layout.map_offset = 1ull << 61)
SPOIL(maps_small, r->layout.map_extents = 66047)
SPOIL(maps_exact, r->layout.map_extents = 66048)
SPOIL(maps_huge, r->layout.map_extents = 1ull << 44)
SPOIL(moments_none, r->layout.moment_offset = 0)
SPOIL(moments_unaligned, r->layout.moment_offset += 512)
SPOIL(witnesses_none, r->witness_count = 0)
SPOIL(witnesses_many, r->witness_count = WITNESSES_MAX + 1)
SPOIL(witnesses_full, r->witness_count = WITNESSES_MAX;
      for (unsigned i = 0; i < WITNESSES_MAX; i++) r->witnesses[i].address = i * 4096ull)
SPOIL(witness_odd, r->witnesses[0].address = 100)
SPOIL(witness_beyond, r->witnesses[1].address = (1 << 30) + (8 << 20))
SPOIL(witness_last, r->witnesses[1].address = (1 << 30) + (8 << 20) - 512)
SPOIL(witnesses_unordered, r->witnesses[0].address = 1 << 30)
SPOIL(some_feature, r->features = 8)
SPOIL(name_empty, r->name[0] = 0)
SPOIL(name_dash_first, memcpy(r->name, "-a", 3))
SPOIL(name_space, memcpy(r->name, "a b", 4))
SPOIL(name_slash, memcpy(r->name, "a/b", 4))
SPOIL(name_utf8, memcpy(r->name, "a\xc3\xa4", 4))
SPOIL(name_longest, memset(r->name, 'x', 63); r->name[63] = 0)
SPOIL(name_unterminated, memset(r->name, 'x', 64))
SPOIL(epoch_of_nobody, r->epoch_node[0] = 0)
SPOIL(no_epoch_yet, r->epoch_node[0] = 0; r->epoch = 0)
SPOIL(epoch_node_odd, memcpy(r->epoch_node, "?", 2))
SPOIL(region_odd, r->region_bytes = 3 << 20)
SPOIL(region_small, r->region_bytes = 32 << 10)
SPOIL(region_smallest, r->region_bytes = 64 << 10)
SPOIL(region_large, r->region_bytes = 512u << 20)
SPOIL(region_largest, r->region_bytes = 256u << 20; r->volumes[1].space_bytes = 0)
SPOIL(region_zero, r->region_bytes = 0)
SPOIL(extent_odd, r->extent_bytes = 5000)
SPOIL(extent_small, r->extent_bytes = 2048)
SPOIL(extent_smallest, r->extent_bytes = 4096)
SPOIL(extent_large, r->extent_bytes = 2 << 20)
SPOIL(extent_largest, r->extent_bytes = 1 << 20)
SPOIL(extent_over_region, r->extent_bytes = 128 << 10; r->region_bytes = 64 << 10)
SPOIL(extent_is_region, r->extent_bytes = 64 << 10; r->region_bytes = 64 << 10)
SPOIL(marks_few, r->mark_count = 15)
SPOIL(marks_fewest, r->mark_count = 16)
SPOIL(marks_many, r->mark_count = 65537)
SPOIL(marks_most, r->mark_count = 65536)
SPOIL(volumes_none, r->volume_count = 0)
SPOIL(volumes_nine, r->volume_count = 9)
SPOIL(volume_unnamed, r->volumes[1].name[0] = 0)
SPOIL(volume_twins, memcpy(r->volumes[1].name, "0", 2))
SPOIL(volume_empty, r->volumes[1].size_bytes = 0)
SPOIL(volume_odd, r->volumes[1].size_bytes = 513)
SPOIL(volume_negative, r->volumes[1].size_bytes = 1ull << 63)
SPOIL(regions_many, r->volumes[0].size_bytes = 1ull << 54)
SPOIL(extents_many, r->volumes[0].size_bytes = 1ull << 58; r->region_bytes = 256u << 20; r->extent_bytes = 4096)
SPOIL(images_none, for (int i = 0; i < 4; i++) r->images[i].present = false)
SPOIL(image_unnamed, r->images[1].name[0] = 0)
SPOIL(image_nowhere, r->images[1].node[0] = 0)
SPOIL(image_twins, memcpy(r->images[3].name, "a", 2))
SPOIL(image_state_odd, r->images[1].state = IMAGE_STATE_COUNT)
SPOIL(image_missing_odd, r->images[1].missing = IMAGE_MISSING_COUNT)
SPOIL(absent_image_odd, r->images[2].state = IMAGE_STATE_COUNT)
SPOIL(master_absent, r->master = 2)
SPOIL(master_outside, r->master = 16)
SPOIL(source_present, r->recovery_source = 3)
SPOIL(source_absent, r->recovery_source = 2)
SPOIL(source_outside, r->recovery_source = 16)
SPOIL(self_home, r->self = RECORD_SELF_HOME)
SPOIL(self_outside, r->self = 16)
SPOIL(history_rising, r->history[2].number = 9)
SPOIL(history_ahead, r->history[0].number = 10)
SPOIL(history_gap, r->history[1] = (struct generation){0})
SPOIL(history_id_only, r->history[5].id = 1)
SPOIL(history_full, r->generation.number = 60;
      for (unsigned i = 0; i < HISTORY_MAX; i++) r->history[i] = (struct generation){59 - i, i})
SPOIL(demoted, r->demoted = true)
SPOIL(unreadable_none, r->unreadable.count = 0)
SPOIL(unreadable_many, r->unreadable.count = UNREADABLE_MAX + 1)
SPOIL(unreadable_empty, r->unreadable.ranges[0].length = 0)
SPOIL(unreadable_touching, r->unreadable.ranges[0].length = (1 << 30) - 8192)
SPOIL(unreadable_apart, r->unreadable.ranges[0].length = (1 << 30) - 8193)
SPOIL(unreadable_unordered, r->unreadable.ranges[0].start = (1 << 30) + 8192)
SPOIL(unreadable_to_the_end, r->unreadable.ranges[1].length = 8 << 20)
SPOIL(unreadable_beyond, r->unreadable.ranges[1].length = (8 << 20) + 1)
SPOIL(unreadable_outside, r->unreadable.ranges[1].start = 1ull << 40)
SPOIL(unreadable_wraps, r->unreadable.ranges[1].length = UINT64_MAX)
SPOIL(unreadable_full, r->unreadable.count = UNREADABLE_MAX;
      for (unsigned i = 0; i < UNREADABLE_MAX; i++) r->unreadable.ranges[i].start = i * 8192ull,
      r->unreadable.ranges[i].length = 4096)
SPOIL(generation_id_only, r->generation.number = 0)

static void bounds(void **state) {
  (void)state;
  static const struct {
    const char *why;
    void (*spoil)(struct record *record);
    bool good;
  } rows[] = {
      {"the sample itself", nothing, true},
      {"a version that is not ours", version_next, false},
      {"version 1 has nothing of what came later", version_1_with_later_fields, false},
      {"nobody gives order numbers yet", order_given, false},
      {"address space: given", space_given, true},
      {"address space: as much as the size", space_exact, true},
      {"address space: less than the size", space_small, false},
      {"address space: no whole regions", space_odd, false},
      {"address space: more regions than a mark can name", space_huge, false},
      {"maps: nowhere", maps_nowhere, false},
      {"maps: over the record", maps_over_record, false},
      {"maps: in whole blocks", maps_unaligned, false},
      {"maps: beyond any file", maps_far, false},
      {"maps: an extent short", maps_small, false},
      {"maps: room for all extents", maps_exact, true},
      {"maps: more than a sector's index", maps_huge, false},
      {"second maps: none", moments_none, true},
      {"second maps: in whole blocks", moments_unaligned, false},
      {"witnesses: none", witnesses_none, true},
      {"witnesses: too many", witnesses_many, false},
      {"witnesses: as many as there can be", witnesses_full, true},
      {"witnesses: at sectors", witness_odd, false},
      {"witnesses: not beyond the address space", witness_beyond, false},
      {"witnesses: its last sector", witness_last, true},
      {"witnesses: in order", witnesses_unordered, false},
      {"features are all reserved", some_feature, false},
      {"an empty name", name_empty, false},
      {"a name that looks like an option", name_dash_first, false},
      {"a name with a space", name_space, false},
      {"a name with a slash would be a path", name_slash, false},
      {"a name beyond ASCII", name_utf8, false},
      {"the longest name", name_longest, true},
      {"a name without NUL", name_unterminated, false},
      {"an epoch belongs to a node", epoch_of_nobody, false},
      {"before the first epoch there is no node", no_epoch_yet, true},
      {"the epoch's node has a bad name", epoch_node_odd, false},
      {"region: no power of two", region_odd, false},
      {"region: below", region_small, false},
      {"region: at the lower limit", region_smallest, true},
      {"region: above", region_large, false},
      {"region: at the upper limit", region_largest, true},
      {"region: zero", region_zero, false},
      {"extent: no power of two", extent_odd, false},
      {"extent: below", extent_small, false},
      {"extent: at the lower limit", extent_smallest, true},
      {"extent: above", extent_large, false},
      {"extent: at the upper limit", extent_largest, true},
      {"extent: a region has whole extents", extent_over_region, false},
      {"extent: one per region is allowed", extent_is_region, true},
      {"marks: below", marks_few, false},
      {"marks: at the lower limit", marks_fewest, true},
      {"marks: above", marks_many, false},
      {"marks: at the upper limit", marks_most, true},
      {"no volume", volumes_none, false},
      {"too many volumes", volumes_nine, false},
      {"a volume without a name", volume_unnamed, false},
      {"two volumes of one name", volume_twins, false},
      {"a volume of no bytes", volume_empty, false},
      {"a volume of half a sector", volume_odd, false},
      {"a size beyond any file", volume_negative, false},
      {"more regions than a mark can name", regions_many, false},
      {"more extents than a map can hold", extents_many, false},
      {"no image", images_none, false},
      {"an image without a name", image_unnamed, false},
      {"an image without a node", image_nowhere, false},
      {"two images of one name", image_twins, false},
      {"an image's state out of range", image_state_odd, false},
      {"why it is missing out of range", image_missing_odd, false},
      {"what an unused slot holds does not matter", absent_image_odd, true},
      {"the master's slot is not in use", master_absent, false},
      {"the master is no slot", master_outside, false},
      {"a source of recovery", source_present, true},
      {"the source's slot is not in use", source_absent, false},
      {"the source is no slot", source_outside, false},
      {"the copy in the state directory", self_home, true},
      {"its own slot is none", self_outside, false},
      {"history: an older one is not higher", history_rising, false},
      {"history: nothing is newer than now", history_ahead, false},
      {"history: unused ones are at the end", history_gap, false},
      {"history: no id without a number", history_id_only, false},
      {"history: full", history_full, true},
      {"a generation without a number", generation_id_only, false},
      {"a demoted mirror remembers its last master", demoted, true},
      {"unreadable places: none", unreadable_none, true},
      {"unreadable places: too many", unreadable_many, false},
      {"unreadable places: as many as there can be", unreadable_full, true},
      {"unreadable places: not of no bytes", unreadable_empty, false},
      {"unreadable places: those that touch are one", unreadable_touching, false},
      {"unreadable places: a byte apart", unreadable_apart, true},
      {"unreadable places: in order", unreadable_unordered, false},
      {"unreadable places: up to the end of the address space", unreadable_to_the_end, true},
      {"unreadable places: not beyond it", unreadable_beyond, false},
      {"unreadable places: nor altogether outside", unreadable_outside, false},
      {"unreadable places: lengths do not wrap", unreadable_wraps, false},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct record record = sample();
    rows[i].spoil(&record);
    row_true(rows[i].why, (record_check(&record) == NULL) == rows[i].good);
    if (!rows[i].good) continue;
    static uint8_t bytes[RECORD_BYTES], again[RECORD_BYTES];
    struct record back;
    record_encode(&record, bytes);
    row_true(rows[i].why, record_decode(&back, bytes) == TARN_OK);
    record_encode(&back, again);
    row_true(rows[i].why, memcmp(bytes, again, RECORD_BYTES) == 0);
  }
}

static void encode(void *context) {
  static uint8_t bytes[RECORD_BYTES];
  record_encode(context, bytes);
}

static void a_bad_record_is_never_written(void **state) {
  (void)state;
  struct record record = sample();
  assert_false(panics(encode, &record));
  record.master = 9;
  assert_true(panics(encode, &record));
}

static void noise_is_never_a_record(void **state) {
  (void)state;
  struct prng prng;
  prng_seed(&prng, 5);
  static uint8_t bytes[RECORD_BYTES];
  for (int round = 0; round < 300; round++) {
    struct record record = sample(), back;
    record_encode(&record, bytes);
    for (uint64_t count = 1 + prng_below(&prng, 20); count > 0; count--)
      bytes[prng_below(&prng, prng_one_in(&prng, 3) ? RECORD_BYTES : 1900)] = (uint8_t)prng_next(&prng);
    fix_crc(bytes);
    if (record_decode(&back, bytes) != TARN_OK) continue;
    static uint8_t again[RECORD_BYTES]; /* what passes has one form only */
    record_encode(&back, again);
    assert_memory_equal(bytes, again, RECORD_BYTES);
  }
}

static void the_words_of_B8_and_B9(void **state) {
  (void)state;
  assert_string_equal(mirror_state_name(MIRROR_INACTIVE), "INACTIVE");
  assert_string_equal(mirror_state_name(MIRROR_ACTIVE), "ACTIVE");
  assert_string_equal(mirror_state_name(MIRROR_ATTENTION), "ATTENTION");
  assert_string_equal(image_state_name(IMAGE_UNSYNCHRONIZED), "UNSYNCHRONIZED");
  assert_string_equal(image_state_name(IMAGE_SYNCHRONIZING), "SYNCHRONIZING");
  assert_string_equal(image_state_name(IMAGE_CONSISTENT), "CONSISTENT");
  assert_string_equal(image_state_name(IMAGE_SYNCHRONIZED), "SYNCHRONIZED");
  assert_null(image_missing_name(MISSING_NONE));
  assert_string_equal(image_missing_name(MISSING_FAILED), "failed");
  assert_string_equal(image_missing_name(MISSING_FRACTURED), "fractured");
  assert_string_equal(image_missing_name(MISSING_UNREACHABLE), "unreachable");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(round_trip),
      cmocka_unit_test(the_layout_is_as_documented),
      cmocka_unit_test(a_record_of_version_1),
      cmocka_unit_test(which_record_is_newer),
      cmocka_unit_test(a_record_from_before_there_were_unreadable_places),
      cmocka_unit_test(the_flags),
      cmocka_unit_test(every_flipped_bit_is_caught),
      cmocka_unit_test(what_is_no_record_of_ours),
      cmocka_unit_test(a_torn_record_is_caught),
      cmocka_unit_test(two_torn_writes_do_not_make_a_record),
      cmocka_unit_test(bounds),
      cmocka_unit_test(a_bad_record_is_never_written),
      cmocka_unit_test(noise_is_never_a_record),
      cmocka_unit_test(the_words_of_B8_and_B9),
  };
  return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
