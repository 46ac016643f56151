/* record.c - the mirror's record as bytes. All numbers are little-endian, all texts NUL-padded, all gaps zero.
 *
 *      0    8  magic "TARNREC1"
 *      8    4  version: 2; of version 1 all that is marked * is zero
 *     12    4  CRC32C of the content's 8128 bytes, with this field zero
 *     16    4  features: none yet; a bit that the reader does not know is refused
 *     20    4  region_bytes: of one mark of the intent log, a power of two
 *     24    4  extent_bytes: of one bit of a map, a power of two
 *     28    4  mark_count: marked regions at most
 *     32    8  sequence
 *     40   16  mirror uuid
 *     56    8  epoch
 *     64   64  name of the mirror
 *    128   64  epoch_node
 *    192   16  generation: u64 number, u64 id
 *    208  128  history: the 8 newest generations, newest first; unused ones are zero, at the end
 *    336    1  self: image slot that this copy belongs to, 255 the state directory
 *    337    1  bit 0 active, bit 1 clean, bit 2 doubt, bit 3 demoted; others zero
 *    338    1  master: image slot
 *    339    1  recovery_source: image slot, 255 none
 *    340    4  volume_count
 *    344    8  completed: sequence of the last commit that was complete before this one
 *    352  768  volumes: 8 of 96 bytes each; from volume_count on zero
 *                0 64 name   64 16 uuid   80 8 size_bytes   88 8 *space_bytes
 *   1120 3072  images: 16 of 192 bytes each, by slot; a slot that is not in use is zero
 *                0 64 name   64 64 node   128 16 uuid   144 1 state   145 1 missing   146 1 bit 0 present, bit 1 all_missed
 *                147 1 zero   148 4 map_epoch   152 8 left_number   160 8 moment_ns   168 8 stamp identity   176 8 stamp modified   184 8 seen_sequence
 *   4192    4  places that no image can read: their number, 0 to 128
 *   4196    4  zero
 *   4200 2048  the places: 128 of u64 start, u64 length, mirror addresses, ascending and apart; unused ones are zero
 *   6248    8  settled_number
 *   6256  640  *history, continued: 40 older generations
 *   6896    8  *order: zero
 *   6904   24  *layout: u64 map_offset, u64 map_extents, u64 moment_offset
 *   6928  128  *left_id: 16 of u64, by image slot
 *   7056    4  *witnesses: their number, 0 to 32
 *   7060    4  zero
 *   7064  768  *the witnesses: 32 of u64 mirror address, 16 bytes hash; ascending; unused ones are zero
 *   7832  296  zero
 *
 * These are places in its content. Each sector of 512 bytes holds 508 bytes of that, and then the CRC again, so that sectors of
 * different records never make up a whole one: a slot torn by one write, then by the write of another record, could otherwise
 * be completed by a sector that both have alike, and bring back what was taken for lost (found by the simulator).
 *
 * Magic, version and CRC keep their places in every version to come, so that "newer" and "damaged" are told apart.
 *
 * Power lost while one is written: the slot may hold any mix of sectors and then fails its CRC; the other slot is whole,
 * because the two are never written without a flush in between. */
#include "format/record.h"

#include <string.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "format/log_sector.h"

#define NAME_BYTES        (TARN_NAME_MAX + 1)
#define CRC_OFFSET        12u
#define VOLUME_BYTES      96u
#define IMAGE_BYTES       192u
#define VOLUMES_OFFSET    352u
#define IMAGES_OFFSET     (VOLUMES_OFFSET + VOLUMES_MAX * VOLUME_BYTES)
#define UNREADABLE_OFFSET (IMAGES_OFFSET + IMAGES_MAX * IMAGE_BYTES)
#define UNREADABLE_BYTES  16u
#define SETTLED_OFFSET    (UNREADABLE_OFFSET + 8 + UNREADABLE_MAX * UNREADABLE_BYTES)
#define OLDER_OFFSET      (SETTLED_OFFSET + 8)
#define HISTORY_FIRST     8u /* so many stand in the record's head, the others here */
#define LAYOUT_OFFSET     (OLDER_OFFSET + (HISTORY_MAX - HISTORY_FIRST) * 16 + 8)
#define LEFT_OFFSET       (LAYOUT_OFFSET + 24)
#define WITNESSES_OFFSET  (LEFT_OFFSET + IMAGES_MAX * 8)
#define TAIL_OFFSET       (WITNESSES_OFFSET + 8 + WITNESSES_MAX * (8 + WITNESS_BYTES))
#define SECTOR_COUNT      (RECORD_BYTES / SECTOR_BYTES)
#define SECTOR_CONTENT    (SECTOR_BYTES - 4)
#define CONTENT_BYTES     (SECTOR_COUNT * SECTOR_CONTENT)

_Static_assert(RECORD_BYTES == RECORD_SLOT_BYTES, "a record fills its slot");
_Static_assert(IMAGES_OFFSET == 1120, "as documented");
_Static_assert(UNREADABLE_OFFSET == 4192, "as documented");
_Static_assert(OLDER_OFFSET == 6256, "as documented");
_Static_assert(LAYOUT_OFFSET == 6904, "as documented");
_Static_assert(WITNESSES_OFFSET == 7056, "as documented");
_Static_assert(TAIL_OFFSET == 7832, "as documented");
_Static_assert(TAIL_OFFSET <= CONTENT_BYTES, "it fits");
_Static_assert(NAME_BYTES == 64, "as documented");

static const char magic[8] = {'T', 'A', 'R', 'N', 'R', 'E', 'C', '1'};
enum { FLAG_ACTIVE = 1, FLAG_CLEAN = 2, FLAG_DOUBT = 4, FLAG_DEMOTED = 8, FLAGS_ALL = 15 };
enum { IMAGE_FLAG_PRESENT = 1, IMAGE_FLAG_ALL_MISSED = 2, IMAGE_FLAGS_ALL = 3 };

/* ---- bounds ---- */

static bool is_letter_or_digit(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

bool record_name_is_valid(const char *name, size_t bytes) {
  if (bytes == 0 || bytes > TARN_NAME_MAX || !is_letter_or_digit(name[0])) return false;
  for (size_t i = 1; i < bytes; i++)
    if (!is_letter_or_digit(name[i]) && name[i] != '_' && name[i] != '-') return false;
  return true;
}

static bool name_is_valid(const char *name) { return record_name_is_valid(name, strnlen(name, NAME_BYTES)); }

static bool is_power_within(uint32_t value, uint32_t min, uint32_t max) {
  return is_power_of_two(value) && value >= min && value <= max;
}

static bool slot_is_present(const struct record *record, uint8_t slot) {
  return slot < IMAGES_MAX && record->images[slot].present;
}

const char *record_geometry_check(uint32_t region_bytes, uint32_t extent_bytes, uint32_t mark_count,
                                  uint32_t volume_count, const uint64_t *volume_bytes) {
  if (!is_power_within(region_bytes, 64u << 10, 256u << 20)) return "region is a power of two from 64K to 256M";
  if (!is_power_within(extent_bytes, 4u << 10, 1u << 20)) return "extent is a power of two from 4K to 1M";
  if (extent_bytes > region_bytes)
    return "an extent cannot be larger than a region: set a smaller extent, or a larger region";
  if (mark_count < 16 || mark_count > 65536) return "marks is from 16 to 65536";
  if (volume_count < 1 || volume_count > VOLUMES_MAX) return "a mirror has 1 to 8 volumes";
  uint64_t regions = 0;
  for (uint32_t i = 0; i < volume_count; i++) {
    if (volume_bytes[i] == 0 || volume_bytes[i] % 512 != 0) return "a volume's size is a multiple of 512, and not 0";
    if (volume_bytes[i] > INT64_MAX) return "a volume's size is beyond any file";
    regions += (volume_bytes[i] - 1) / region_bytes + 1;
  }
  /* A mark names its region, and a sector of a map its index, by 32 bits. */
  if (regions >= UINT32_MAX) return "its volumes have too many regions: set a larger region, or make them smaller";
  if (regions * (region_bytes / extent_bytes) / MAP_BITS_PER_SECTOR >= UINT32_MAX)
    return "its volumes have too many extents: set a larger extent, or make them smaller";
  return NULL;
}

static uint64_t volume_space(const struct record *record, uint32_t i) {
  uint64_t space = record->volumes[i].space_bytes;
  return space ? space : align_up(record->volumes[i].size_bytes, record->region_bytes);
}

uint64_t record_extent_count(const struct record *record) {
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < record->volume_count; i++) bytes += volume_space(record, i);
  return bytes / record->extent_bytes;
}

static const char *check_spaces(const struct record *record) {
  uint64_t spaces[VOLUMES_MAX];
  for (uint32_t i = 0; i < record->volume_count; i++) {
    spaces[i] = volume_space(record, i);
    if (spaces[i] % record->region_bytes != 0) return "a volume's address space is not a multiple of a region";
    if (spaces[i] < record->volumes[i].size_bytes) return "a volume is larger than its address space";
  }
  return record_geometry_check(record->region_bytes, record->extent_bytes, record->mark_count, record->volume_count,
                               spaces);
}

static const char *check_volumes(const struct record *record) {
  uint64_t sizes[VOLUMES_MAX];
  for (uint32_t i = 0; i < min_u64(record->volume_count, VOLUMES_MAX); i++) {
    sizes[i] = record->volumes[i].size_bytes;
    if (!name_is_valid(record->volumes[i].name)) return "a volume's name is not valid";
    for (uint32_t j = 0; j < i; j++)
      if (strcmp(record->volumes[i].name, record->volumes[j].name) == 0) return "two volumes have one name";
  }
  const char *wrong = record_geometry_check(record->region_bytes, record->extent_bytes, record->mark_count,
                                            record->volume_count, sizes);
  return wrong ? wrong : check_spaces(record);
}

static const char *check_images(const struct record *record) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < IMAGES_MAX; i++) {
    const struct record_image *image = &record->images[i];
    if (!image->present) continue;
    count++;
    if (!name_is_valid(image->name)) return "an image's name is not valid";
    if (!name_is_valid(image->node)) return "an image's node is not a valid name";
    for (uint32_t j = 0; j < i; j++)
      if (record->images[j].present && strcmp(image->name, record->images[j].name) == 0)
        return "two images have one name";
    if (image->state >= IMAGE_STATE_COUNT) return "an image's state is out of range";
    if (image->missing >= IMAGE_MISSING_COUNT) return "why an image is missing is out of range";
    if (image->map_epoch > MAP_EPOCH_MAX) return "the epoch of an image's map is out of range";
  }
  if (count == 0) return "no image";
  if (!slot_is_present(record, record->master)) return "the master is no image";
  if (record->recovery_source != RECORD_NO_SOURCE && !slot_is_present(record, record->recovery_source))
    return "the source of recovery is no image";
  if (record->self != RECORD_SELF_HOME && record->self >= IMAGES_MAX) return "its own slot is out of range";
  return NULL;
}

static const char *check_unreadable(const struct record *record) {
  const struct unreadable *unreadable = &record->unreadable;
  if (unreadable->count > UNREADABLE_MAX) return "too many unreadable places";
  uint64_t end = record_extent_count(record) * record->extent_bytes, before = 0;
  for (uint32_t i = 0; i < unreadable->count; i++) {
    uint64_t start = unreadable->ranges[i].start, length = unreadable->ranges[i].length;
    if (length == 0) return "an unreadable place of no bytes";
    if (i > 0 && start <= before) return "unreadable places that are out of order, or touch";
    if (start > end || length > end - start) return "an unreadable place beyond the volumes";
    before = start + length;
  }
  return NULL;
}

static const char *check_history(const struct record *record) {
  struct generation newer = record->generation;
  if (newer.number == 0 && newer.id != 0) return "a generation has an id and no number";
  for (uint32_t i = 0; i < HISTORY_MAX; i++) {
    struct generation older = record->history[i];
    if (older.number > newer.number) return "the history is not newest first";
    if (older.number == 0 && older.id != 0) return "a generation has an id and no number";
    newer = older;
  }
  return NULL;
}

static const char *check_witnesses(const struct record *record) {
  if (record->witness_count > WITNESSES_MAX) return "too many witnesses";
  uint64_t end = record_extent_count(record) * record->extent_bytes;
  for (uint32_t i = 0; i < record->witness_count; i++) {
    uint64_t address = record->witnesses[i].address;
    if (address % 512 != 0 || address >= end) return "a witness beyond the volumes";
    if (i > 0 && address <= record->witnesses[i - 1].address) return "witnesses that are out of order";
  }
  return NULL;
}

#define LAYOUT_ALIGN      4096u
#define LAYOUT_OFFSET_MAX (1ull << 60)

static bool is_place(uint64_t offset) { return offset % LAYOUT_ALIGN == 0 && offset <= LAYOUT_OFFSET_MAX; }

static const char *check_layout(const struct record *record) {
  const struct record_layout *layout = &record->layout;
  if (!is_place(layout->map_offset) || layout->map_offset < RECORD_AREA_BYTES) return "the maps lie in no good place";
  if (!is_place(layout->moment_offset)) return "the second maps lie in no good place";
  if (layout->map_extents < record_extent_count(record)) return "the maps have no room for the volumes";
  /* As with the volumes' own: a sector of a map has its index by 32 bits. */
  return layout->map_extents / MAP_BITS_PER_SECTOR < UINT32_MAX ? NULL : "the maps have room for too much";
}

/* What version 1 did not have. */
static const char *check_version_1(const struct record *record) {
  const struct record_layout *layout = &record->layout;
  bool none = record->history[HISTORY_FIRST].number == 0 && record->witness_count == 0 && layout->map_offset == 0 &&
              layout->map_extents == 0 && layout->moment_offset == 0;
  for (uint32_t i = 0; i < record->volume_count; i++) none &= record->volumes[i].space_bytes == 0;
  for (uint32_t i = 0; i < IMAGES_MAX; i++) none &= !record->images[i].present || record->images[i].left_id == 0;
  return none ? NULL : "a record of version 1 with what came later";
}

const char *record_check(const struct record *record) {
  if (record->version != RECORD_VERSION && record->version != RECORD_VERSION_1) return "unknown version";
  if (record->features != 0) return "unknown features";
  if (!name_is_valid(record->name)) return "the mirror's name is not valid";
  if (record->epoch_node[0] == 0 && record->epoch != 0) return "an epoch without its node";
  if (record->epoch_node[0] != 0 && !name_is_valid(record->epoch_node)) return "the epoch's node is not a valid name";
  if (record->completed > record->sequence) return "a completed commit that is later than this one";
  if (record->order != 0) return "an order number, which nobody gives yet";
  const char *wrong = check_volumes(record);
  if (!wrong) wrong = check_images(record);
  if (!wrong) wrong = check_history(record);
  if (!wrong) wrong = check_unreadable(record);
  if (!wrong) wrong = check_witnesses(record);
  if (!wrong) wrong = record->version == RECORD_VERSION_1 ? check_version_1(record) : check_layout(record);
  return wrong;
}

bool record_is_newer(const struct record *a, const struct record *b) {
  if (a->epoch != b->epoch) return a->epoch > b->epoch;
  if (a->generation.number != b->generation.number) return a->generation.number > b->generation.number;
  return a->sequence > b->sequence;
}

/* ---- encoding ---- */

/* `content` with its CRC field zero. */
static void put_sectors(const uint8_t *content, uint8_t *out) {
  uint32_t crc = crc32c(content, CONTENT_BYTES);
  for (uint32_t i = 0; i < SECTOR_COUNT; i++) {
    struct writer writer;
    writer_init(&writer, out + i * SECTOR_BYTES, SECTOR_BYTES);
    put_bytes(&writer, content + i * SECTOR_CONTENT, SECTOR_CONTENT);
    put_le32(&writer, crc);
  }
  struct writer field;
  writer_init(&field, out + CRC_OFFSET, sizeof crc);
  put_le32(&field, crc);
}

static void put_generation(struct writer *writer, const struct generation *generation) {
  put_le64(writer, generation->number);
  put_le64(writer, generation->id);
}

static void put_head(struct writer *writer, const struct record *record) {
  put_bytes(writer, magic, sizeof(magic));
  put_le32(writer, record->version);
  put_le32(writer, 0); /* the CRC, once all is there */
  put_le32(writer, record->features);
  put_le32(writer, record->region_bytes);
  put_le32(writer, record->extent_bytes);
  put_le32(writer, record->mark_count);
  put_le64(writer, record->sequence);
  put_bytes(writer, record->mirror_uuid, sizeof(record->mirror_uuid));
  put_le64(writer, record->epoch);
  put_text(writer, record->name, NAME_BYTES);
  put_text(writer, record->epoch_node, NAME_BYTES);
  put_generation(writer, &record->generation);
  for (uint32_t i = 0; i < HISTORY_FIRST; i++) put_generation(writer, &record->history[i]);
  put_u8(writer, record->self);
  put_u8(writer, (uint8_t)((record->active ? FLAG_ACTIVE : 0) | (record->clean ? FLAG_CLEAN : 0) |
                           (record->doubt ? FLAG_DOUBT : 0) | (record->demoted ? FLAG_DEMOTED : 0)));
  put_u8(writer, record->master);
  put_u8(writer, record->recovery_source);
  put_le32(writer, record->volume_count);
  put_le64(writer, record->completed);
}

static void put_volume(struct writer *writer, const struct record *record, uint32_t index) {
  put_text(writer, record->volumes[index].name, NAME_BYTES);
  put_bytes(writer, record->volumes[index].uuid, sizeof(record->volumes[index].uuid));
  put_le64(writer, record->volumes[index].size_bytes);
  put_le64(writer, record->volumes[index].space_bytes);
}

static void put_image(struct writer *writer, const struct record_image *image) {
  put_text(writer, image->name, NAME_BYTES);
  put_text(writer, image->node, NAME_BYTES);
  put_bytes(writer, image->uuid, sizeof(image->uuid));
  put_u8(writer, (uint8_t)image->state);
  put_u8(writer, (uint8_t)image->missing);
  put_u8(writer, (uint8_t)(IMAGE_FLAG_PRESENT | (image->all_missed ? IMAGE_FLAG_ALL_MISSED : 0)));
  put_zeroes(writer, 1);
  put_le32(writer, image->map_epoch);
  put_le64(writer, image->left_number);
  put_le64(writer, image->moment_ns);
  put_le64(writer, image->stamp.identity);
  put_le64(writer, image->stamp.modified);
  put_le64(writer, image->seen_sequence);
}

static void put_unreadable(struct writer *writer, const struct unreadable *unreadable) {
  put_le32(writer, unreadable->count);
  put_zeroes(writer, 4);
  for (uint32_t i = 0; i < UNREADABLE_MAX; i++) {
    put_le64(writer, i < unreadable->count ? unreadable->ranges[i].start : 0);
    put_le64(writer, i < unreadable->count ? unreadable->ranges[i].length : 0);
  }
}

/* What came with version 2. */
static void put_later(struct writer *writer, const struct record *record) {
  for (uint32_t i = HISTORY_FIRST; i < HISTORY_MAX; i++) put_generation(writer, &record->history[i]);
  put_le64(writer, record->order);
  put_le64(writer, record->layout.map_offset);
  put_le64(writer, record->layout.map_extents);
  put_le64(writer, record->layout.moment_offset);
  for (uint32_t i = 0; i < IMAGES_MAX; i++) put_le64(writer, record->images[i].present ? record->images[i].left_id : 0);
  require(writer_used(writer) == WITNESSES_OFFSET);
  put_le32(writer, record->witness_count);
  put_zeroes(writer, 4);
  for (uint32_t i = 0; i < record->witness_count; i++) {
    put_le64(writer, record->witnesses[i].address);
    put_bytes(writer, record->witnesses[i].hash, WITNESS_BYTES);
  }
}

void record_encode(const struct record *record, uint8_t *out) {
  require(record_check(record) == NULL);
  struct writer writer;
  uint8_t content[CONTENT_BYTES];
  writer_init(&writer, content, CONTENT_BYTES);
  put_head(&writer, record);
  require(writer_used(&writer) == VOLUMES_OFFSET);
  for (uint32_t i = 0; i < record->volume_count; i++) put_volume(&writer, record, i);
  put_zeroes(&writer, IMAGES_OFFSET - writer_used(&writer));
  for (uint32_t i = 0; i < IMAGES_MAX; i++) {
    if (record->images[i].present) put_image(&writer, &record->images[i]);
    else put_zeroes(&writer, IMAGE_BYTES);
    require(writer_used(&writer) == IMAGES_OFFSET + (i + 1) * IMAGE_BYTES);
  }
  put_unreadable(&writer, &record->unreadable);
  put_le64(&writer, record->settled_number);
  require(writer_used(&writer) == OLDER_OFFSET);
  put_later(&writer, record);
  put_zeroes(&writer, CONTENT_BYTES - writer_used(&writer));
  require(!writer.bad);
  put_sectors(content, out);
}

/* ---- decoding ---- */

/* A gap: what is not zero was not written by us. */
static void get_zeroes(struct reader *reader, size_t bytes) {
  for (size_t i = 0; i < bytes; i++)
    if (get_u8(reader) != 0) reader->bad = true;
}

static uint8_t get_flags(struct reader *reader, uint8_t known) {
  uint8_t flags = get_u8(reader);
  if (flags & ~known) reader->bad = true;
  return flags;
}

static void get_name(struct reader *reader, char *out) {
  char name[NAME_BYTES + 1];
  get_text(reader, name, NAME_BYTES);
  if (name[TARN_NAME_MAX] != 0) reader->bad = true;
  memcpy(out, name, NAME_BYTES);
}

static void get_generation(struct reader *reader, struct generation *generation) {
  generation->number = get_le64(reader);
  generation->id = get_le64(reader);
}

static void get_head(struct reader *reader, struct record *record) {
  reader_skip(reader, sizeof(magic));
  record->version = get_le32(reader);
  reader_skip(reader, sizeof(uint32_t));
  record->features = get_le32(reader);
  record->region_bytes = get_le32(reader);
  record->extent_bytes = get_le32(reader);
  record->mark_count = get_le32(reader);
  record->sequence = get_le64(reader);
  get_bytes(reader, record->mirror_uuid, sizeof(record->mirror_uuid));
  record->epoch = get_le64(reader);
  get_name(reader, record->name);
  get_name(reader, record->epoch_node);
  get_generation(reader, &record->generation);
  for (uint32_t i = 0; i < HISTORY_FIRST; i++) get_generation(reader, &record->history[i]);
  record->self = get_u8(reader);
  uint8_t flags = get_flags(reader, FLAGS_ALL);
  record->active = (flags & FLAG_ACTIVE) != 0;
  record->clean = (flags & FLAG_CLEAN) != 0;
  record->doubt = (flags & FLAG_DOUBT) != 0;
  record->demoted = (flags & FLAG_DEMOTED) != 0;
  record->master = get_u8(reader);
  record->recovery_source = get_u8(reader);
  record->volume_count = get_le32(reader);
  record->completed = get_le64(reader);
}

static void get_volume(struct reader *reader, struct record *record, uint32_t index) {
  get_name(reader, record->volumes[index].name);
  get_bytes(reader, record->volumes[index].uuid, sizeof(record->volumes[index].uuid));
  record->volumes[index].size_bytes = get_le64(reader);
  record->volumes[index].space_bytes = get_le64(reader);
}

static void get_image(struct reader *reader, struct record_image *image) {
  struct reader slot = *reader;
  get_name(reader, image->name);
  get_name(reader, image->node);
  get_bytes(reader, image->uuid, sizeof(image->uuid));
  image->state = get_u8(reader);
  image->missing = get_u8(reader);
  uint8_t flags = get_flags(reader, IMAGE_FLAGS_ALL);
  image->present = (flags & IMAGE_FLAG_PRESENT) != 0;
  image->all_missed = (flags & IMAGE_FLAG_ALL_MISSED) != 0;
  get_zeroes(reader, 1);
  image->map_epoch = get_le32(reader);
  image->left_number = get_le64(reader);
  image->moment_ns = get_le64(reader);
  image->stamp.identity = get_le64(reader);
  image->stamp.modified = get_le64(reader);
  image->seen_sequence = get_le64(reader);
  if (image->present) return;
  get_zeroes(&slot, IMAGE_BYTES);
  if (slot.bad) reader->bad = true;
}

static void get_unreadable(struct reader *reader, struct unreadable *unreadable) {
  unreadable->count = get_le32(reader);
  get_zeroes(reader, 4);
  for (uint32_t i = 0; i < UNREADABLE_MAX; i++) {
    if (i >= unreadable->count) {
      get_zeroes(reader, UNREADABLE_BYTES);
      continue;
    }
    unreadable->ranges[i].start = get_le64(reader);
    unreadable->ranges[i].length = get_le64(reader);
  }
}

static void get_later(struct reader *reader, struct record *record) {
  for (uint32_t i = HISTORY_FIRST; i < HISTORY_MAX; i++) get_generation(reader, &record->history[i]);
  record->order = get_le64(reader);
  record->layout.map_offset = get_le64(reader);
  record->layout.map_extents = get_le64(reader);
  record->layout.moment_offset = get_le64(reader);
  for (uint32_t i = 0; i < IMAGES_MAX; i++) {
    record->images[i].left_id = get_le64(reader);
    if (!record->images[i].present && record->images[i].left_id != 0) reader->bad = true;
  }
  record->witness_count = get_le32(reader);
  get_zeroes(reader, 4);
  for (uint32_t i = 0; i < WITNESSES_MAX; i++) {
    if (i >= record->witness_count) {
      get_zeroes(reader, 8 + WITNESS_BYTES);
      continue;
    }
    record->witnesses[i].address = get_le64(reader);
    get_bytes(reader, record->witnesses[i].hash, WITNESS_BYTES);
  }
}

static void get_record(struct reader *reader, struct record *record) {
  get_head(reader, record);
  for (uint32_t i = 0; i < VOLUMES_MAX; i++) {
    if (i < record->volume_count) get_volume(reader, record, i);
    else get_zeroes(reader, VOLUME_BYTES);
  }
  for (uint32_t i = 0; i < IMAGES_MAX; i++) get_image(reader, &record->images[i]);
  get_unreadable(reader, &record->unreadable);
  record->settled_number = get_le64(reader);
  get_later(reader, record);
  get_zeroes(reader, CONTENT_BYTES - TAIL_OFFSET);
}

static bool is_all_zero(const uint8_t *in) { return in[0] == 0 && memcmp(in, in + 1, RECORD_BYTES - 1) == 0; }

/* False: sectors of different records, or none. */
static bool get_sectors(const uint8_t *in, uint8_t *content, uint32_t crc) {
  bool whole = true;
  for (uint32_t i = 0; i < SECTOR_COUNT; i++) {
    struct reader reader;
    reader_init(&reader, in + i * SECTOR_BYTES, SECTOR_BYTES);
    get_bytes(&reader, content + i * SECTOR_CONTENT, SECTOR_CONTENT);
    whole &= get_le32(&reader) == crc;
  }
  memset(content + CRC_OFFSET, 0, sizeof crc);
  return whole && crc32c(content, CONTENT_BYTES) == crc;
}

/* Counters that nobody can have reached by counting. From here on they never wrap (the log has 32 bits for the sequence). */
#define LOADED_SEQUENCE_MAX   (UINT32_MAX / 2)
#define LOADED_GENERATION_MAX (UINT64_MAX / 2)

static bool has_room_to_count(const struct record *record) {
  return record->sequence <= LOADED_SEQUENCE_MAX && record->generation.number <= LOADED_GENERATION_MAX;
}

tarn_err record_decode(struct record *record, const uint8_t *in) {
  *record = (struct record){0};
  if (is_all_zero(in)) return TARN_NOT_FOUND;
  uint8_t content[CONTENT_BYTES];
  struct reader head;
  reader_init(&head, in, RECORD_BYTES);
  reader_skip(&head, sizeof(magic));
  uint32_t version = get_le32(&head), crc = get_le32(&head), features = get_le32(&head);
  if (memcmp(in, magic, sizeof(magic)) != 0) return TARN_CORRUPT;
  if (!get_sectors(in, content, crc)) return TARN_CORRUPT;
  if (version > RECORD_VERSION || features != 0) return TARN_VERSION;

  struct reader reader;
  reader_init(&reader, content, CONTENT_BYTES);
  get_record(&reader, record);
  if (reader.bad || record_check(record) != NULL || !has_room_to_count(record)) {
    *record = (struct record){0};
    return TARN_CORRUPT;
  }
  require(reader_left(&reader) == 0);
  return TARN_OK;
}

/* ---- names ---- */

const char *mirror_state_name(enum mirror_state state) {
  static const char *const names[MIRROR_STATE_COUNT] = {
      [MIRROR_INACTIVE] = "INACTIVE", [MIRROR_ACTIVE] = "ACTIVE", [MIRROR_ATTENTION] = "ATTENTION"};
  require(state < MIRROR_STATE_COUNT);
  return names[state];
}

const char *image_state_name(enum image_state state) {
  static const char *const names[IMAGE_STATE_COUNT] = {[IMAGE_UNSYNCHRONIZED] = "UNSYNCHRONIZED",
                                                       [IMAGE_SYNCHRONIZING] = "SYNCHRONIZING",
                                                       [IMAGE_CONSISTENT] = "CONSISTENT",
                                                       [IMAGE_SYNCHRONIZED] = "SYNCHRONIZED"};
  require(state < IMAGE_STATE_COUNT);
  return names[state];
}

const char *image_missing_name(enum image_missing missing) {
  static const char *const names[IMAGE_MISSING_COUNT] = {
      [MISSING_FAILED] = "failed", [MISSING_FRACTURED] = "fractured", [MISSING_UNREACHABLE] = "unreachable"};
  require(missing < IMAGE_MISSING_COUNT);
  return names[missing];
}
