/* src/core/mirror.h: mirror_config_check(). What it lets pass, a record can say: mirror_format() would stop the process else. */
#include "core/mirror.h"
#include "unit.h"

#define TIB (1ull << 40)

static void bounds(void **state) {
  (void)state;
  static const struct {
    const char *why;
    uint64_t sizes[2];
    uint32_t region_bytes, extent_bytes;
    const char *says; /* NULL: good */
  } rows[] = {
      {"the smallest", {512}, 64u << 10, 4u << 10, NULL},
      {"the largest number of regions", {((uint64_t)UINT32_MAX - 1) << 16}, 64u << 10, 64u << 10, NULL},
      {"one region more: a mark has 32 bits", {((uint64_t)UINT32_MAX << 16) - 512}, 64u << 10, 64u << 10, "regions"},
      {"so do regions of two volumes", {200 * TIB, 100 * TIB}, 64u << 10, 64u << 10, "regions"},
      {"sizes whose sum would wrap", {INT64_MAX / 512 * 512, INT64_MAX / 512 * 512}, 64u << 10, 4u << 10, "regions"},
      {"the largest file", {INT64_MAX / 512 * 512}, 256u << 20, 1u << 20, "regions"},
      {"beyond any file", {1ull << 63}, 256u << 20, 1u << 20, "file"},
      {"no whole sector", {513}, 64u << 10, 4u << 10, "512"},
      {"nothing", {0}, 64u << 10, 4u << 10, "512"},
      {"an extent larger than a region", {512}, 64u << 10, 128u << 10, "extent"},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct mirror_config config = {.name = "m",
                                   .region_bytes = rows[i].region_bytes,
                                   .extent_bytes = rows[i].extent_bytes,
                                   .mark_count = 4096,
                                   .volume_count = rows[i].sizes[1] ? 2 : 1,
                                   .image_count = 1};
    for (uint32_t v = 0; v < 2; v++) config.volumes[v].size_bytes = rows[i].sizes[v];
    const char *says = mirror_config_check(&config);
    row_true(rows[i].why, (says == NULL) == (rows[i].says == NULL));
    row_true(rows[i].why, !says || strstr(says, rows[i].says));
    if (says) continue;
    struct record record = {.version = RECORD_VERSION,
                            .name = "m",
                            .region_bytes = config.region_bytes,
                            .extent_bytes = config.extent_bytes,
                            .mark_count = config.mark_count,
                            .recovery_source = RECORD_NO_SOURCE,
                            .volume_count = config.volume_count,
                            .images = {{.present = true, .name = "a", .node = "n"}}};
    for (uint32_t v = 0; v < config.volume_count; v++) {
      record.volumes[v].name[0] = (char)('0' + v);
      record.volumes[v].size_bytes = config.volumes[v].size_bytes;
    }
    record.layout = (struct record_layout){.map_offset = 1 << 20, .map_extents = record_extent_count(&record)};
    row_true(rows[i].why, record_check(&record) == NULL);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(bounds)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
