/* The sectors of the intent log and of the maps: round trip, every flipped bit, and every wrong place. */
#include "format/log_sector.h"
#include "unit.h"

static const struct sector_id log_id = {SECTOR_LOG, 0x1122334455667788, 5, 2};
static const struct sector_id map_id = {SECTOR_MAP, 0x1122334455667788, 9, 3 | 1 << 8};

static void fill(uint8_t *payload) {
  for (unsigned i = 0; i < SECTOR_PAYLOAD_BYTES; i++) payload[i] = (uint8_t)(i * 7 + 1);
}

static void round_trip(void **state) {
  (void)state;
  const struct sector_id *ids[] = {&log_id, &map_id};
  for (size_t i = 0; i < 2; i++) {
    uint8_t payload[SECTOR_PAYLOAD_BYTES], back[SECTOR_PAYLOAD_BYTES], bytes[SECTOR_BYTES];
    fill(payload);
    sector_encode(ids[i], 1000, payload, bytes);
    assert_int_equal(sector_decode(ids[i], bytes, back), TARN_OK);
    assert_memory_equal(back, payload, sizeof(payload));
  }
}

static void the_layout_is_as_documented(void **state) {
  (void)state;
  uint8_t payload[SECTOR_PAYLOAD_BYTES], bytes[SECTOR_BYTES];
  fill(payload);
  sector_encode(&map_id, 1000, payload, bytes);
  static const uint8_t head[] = {'T', 'M', 'A', 'P'};
  static const uint8_t rest[] = {0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 9, 0, 0, 0,
                                 3,    1,    0,    0,    0xe8, 3,    0,    0,    0, 0, 0, 0};
  assert_memory_equal(bytes, head, sizeof(head));
  assert_memory_equal(bytes + 8, rest, sizeof(rest));
  assert_memory_equal(bytes + 32, payload, sizeof(payload));
  sector_encode(&log_id, 1000, payload, bytes);
  assert_memory_equal(bytes, "TLOG", 4);
}

static void every_flipped_bit_is_caught(void **state) {
  (void)state;
  uint8_t payload[SECTOR_PAYLOAD_BYTES], back[SECTOR_PAYLOAD_BYTES], bytes[SECTOR_BYTES];
  static const uint8_t nothing[SECTOR_PAYLOAD_BYTES];
  fill(payload);
  sector_encode(&log_id, 3, payload, bytes);
  for (size_t bit = 0; bit < SECTOR_BYTES * 8; bit++) {
    bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    assert_int_equal(sector_decode(&log_id, bytes, back), TARN_CORRUPT);
    assert_memory_equal(back, nothing, sizeof(back)); /* nobody uses what is damaged by mistake */
    bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
  }
}

static void a_sector_passes_only_in_its_place(void **state) {
  (void)state;
  static const struct {
    const char *why;
    struct sector_id id;
    tarn_err err;
  } rows[] = {
      {"its own", {SECTOR_LOG, 0x1122334455667788, 5, 2}, TARN_OK},
      {"of another kind", {SECTOR_MAP, 0x1122334455667788, 5, 2}, TARN_CORRUPT},
      {"of another mirror", {SECTOR_LOG, 0x1122334455667789, 5, 2}, TARN_CORRUPT},
      {"misdirected within its area", {SECTOR_LOG, 0x1122334455667788, 6, 2}, TARN_CORRUPT},
      {"misdirected to another area", {SECTOR_LOG, 0x1122334455667788, 5, 3}, TARN_CORRUPT},
  };
  uint8_t payload[SECTOR_PAYLOAD_BYTES], bytes[SECTOR_BYTES];
  fill(payload);
  sector_encode(&log_id, 3, payload, bytes);
  for (size_t i = 0; i < COUNT_OF(rows); i++)
    row_true(rows[i].why, sector_decode(&rows[i].id, bytes, payload) == rows[i].err);
}

static void never_written_is_told_from_empty(void **state) {
  (void)state;
  uint8_t payload[SECTOR_PAYLOAD_BYTES] = {0}, bytes[SECTOR_BYTES] = {0};
  memset(payload, 1, sizeof(payload));
  assert_int_equal(sector_decode(&log_id, bytes, payload), TARN_NOT_FOUND);
  assert_int_equal(payload[0] | payload[SECTOR_PAYLOAD_BYTES - 1], 0);
  sector_encode(&log_id, 0, payload, bytes); /* an empty one, written */
  assert_int_equal(sector_decode(&log_id, bytes, payload), TARN_OK);
  memset(bytes, 0, sizeof(bytes));
  bytes[SECTOR_BYTES - 1] = 1;
  assert_int_equal(sector_decode(&log_id, bytes, payload), TARN_CORRUPT);
  memset(bytes, 0xff, sizeof(bytes));
  assert_int_equal(sector_decode(&log_id, bytes, payload), TARN_CORRUPT);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(round_trip),
      cmocka_unit_test(the_layout_is_as_documented),
      cmocka_unit_test(every_flipped_bit_is_caught),
      cmocka_unit_test(a_sector_passes_only_in_its_place),
      cmocka_unit_test(never_written_is_told_from_empty),
  };
  return cmocka_run_group_tests_name("log_sector", tests, NULL, NULL);
}
