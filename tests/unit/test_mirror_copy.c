/* Copies, and what they do about places that cannot be read: synchronisation, recovery, read repair, rate, hung buffers. */
#include "core/guard.h"
#include "mirror_world.h"

#define MIB (1u << 20)

/* Image a holds data, b nothing, and is copied to when the mirror is activated. */
static void begin(uint32_t images, uint64_t bytes, uint32_t block) {
  world_init(&w, images, bytes, block);
  world_format(&w);
}

static void begin_equal(uint32_t images, uint64_t bytes, uint32_t block) {
  begin(images, bytes, block);
  world_settle(&w);
}

static bool same(uint32_t a, uint32_t b, uint64_t start, uint64_t length) {
  return memcmp(w.data[a].bytes + start, w.data[b].bytes + start, length) == 0;
}

static tarn_err read_at(uint64_t offset, uint64_t length) { return client_do(&w, DISK_READ, offset, length, 0); }
static uint64_t lost_bytes(void) { return world_image(&w, 0).unreadable_bytes; }

/* A place of image a cannot be read, and so is on none; so many bytes are named as unreadable. */
static void begin_losing(uint32_t block, uint64_t start, uint64_t length, uint64_t lost) {
  begin(2, MIB, block);
  ram_spoil(&w.data[0], start, length, RAM_READS);
  world_activate(&w);
  world_pass(&w, 5 * NS_PER_S);
  assert_int_equal(lost_bytes(), lost);
}

/* ---- synchronisation ---- */

static void a_copy_makes_images_equal(void **state) {
  (void)state;
  begin(3, MIB, 512);
  memset(w.data[0].bytes + 262144, 0, 65536);
  world_activate(&w);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZING);
  assert_int_equal(world_image(&w, 1).sync.kind, SYNC_FULL);
  assert_int_equal(world_image(&w, 1).sync.total_bytes, MIB);
  world_pass(&w, 5 * NS_PER_S);
  for (uint32_t i = 1; i < 3; i++) {
    assert_int_equal(world_image(&w, i).state, IMAGE_SYNCHRONIZED);
    assert_int_equal(world_image(&w, i).missed_bytes, 0);
    assert_true(same(0, i, 0, MIB));
    assert_int_equal(w.data[i].bytes_written, MIB - 65536);
    assert_int_equal(w.data[i].bytes_zeroed, 65536); /* zeroes stay holes */
  }
  assert_int_equal(lost_bytes(), 0);
  world_deactivate(&w);
}

/* Of a volume whose last region, extent and unit are not whole. */
static void progress_is_told_in_bytes_of_data(void **state) {
  (void)state;
  uint64_t bytes = MIB + 16384 + 1536;
  begin(2, bytes, 512);
  w.config.images[1].policy.rate = 64 << 10;
  world_activate(&w);
  world_run(&w);
  assert_int_equal(world_image(&w, 1).sync.kind, SYNC_FULL);
  assert_int_equal(world_image(&w, 1).sync.total_bytes, bytes);
  assert_int_equal(world_image(&w, 1).missed_bytes, bytes);
  uint64_t done = 0, seconds = 0;
  for (; world_image(&w, 1).state == IMAGE_SYNCHRONIZING; seconds++) {
    struct mirror_image_status b = world_image(&w, 1);
    assert_int_equal(b.sync.total_bytes, bytes);
    assert_true(b.sync.done_bytes >= done && b.sync.done_bytes <= bytes);
    assert_true(seconds < 5 || (b.sync.eta_seconds + seconds >= 10 && b.sync.eta_seconds + seconds <= 20));
    done = b.sync.done_bytes;
    world_pass(&w, NS_PER_S);
  }
  assert_true(done > bytes * 9 / 10);
  assert_int_equal(world_image(&w, 1).missed_bytes, 0);
  assert_true(same(0, 1, 0, bytes));
  /* What it missed is less. */
  mirror_image_failed(w.m, 1, "a test");
  assert_int_equal(world_write(&w, MIB, 4096), TARN_OK);
  world_deactivate(&w);
  w.data[0].holds = RAM_READS;
  world_activate(&w);
  world_run(&w);
  assert_int_equal(world_image(&w, 1).sync.kind, SYNC_MISSED);
  assert_true(world_image(&w, 1).sync.total_bytes <= 65536);
  ram_release(&w.data[0]);
  world_pass(&w, 5 * NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
  world_deactivate(&w);
}

static void a_place_is_left_behind(void **state) {
  (void)state;
  begin(2, MIB, 512);
  ram_spoil(&w.data[0], 20480, 512, RAM_READS);
  ram_spoil(&w.data[0], 135000, 10, RAM_READS);
  world_activate(&w);
  world_pass(&w, 5 * NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
  assert_int_equal(lost_bytes(), 2 * 4096);
  assert_int_equal(world_image(&w, 1).unreadable_bytes, 2 * 4096);
  assert_true(world_said(&w, "4096 bytes of volume vol0 at 20480 cannot be read from any image"));
  assert_true(world_said(&w, "4096 bytes of volume vol0 at 131072 cannot be read from any image"));
  assert_string_equal(world_image(&w, 1).reason,
                      "4096 bytes of volume vol0 at 20480 cannot be read from any image; writing them heals it");
  /* All but these places was copied, and nothing else is refused. */
  assert_true(same(0, 1, 0, 20480) && same(0, 1, 24576, 131072 - 24576) && same(0, 1, 135168, MIB - 135168));
  static const struct {
    const char *why;
    uint64_t offset, length;
    tarn_err err;
  } reads[] = {
      {"before it", 0, 20480, TARN_OK},
      {"its first byte", 20000, 481, TARN_IO},
      {"within it, though b can", 24000, 10, TARN_IO},
      {"its last byte", 24575, 100, TARN_IO},
      {"behind it", 24576, 1000, TARN_OK},
      {"between the two", 30000, 100000, TARN_OK},
      {"over both", 0, 200000, TARN_IO},
      {"behind both", 135168, 100000, TARN_OK},
  };
  for (size_t i = 0; i < COUNT_OF(reads); i++)
    row_true(reads[i].why, read_at(reads[i].offset, reads[i].length) == reads[i].err);
  /* It is on record: another life knows it. */
  world_deactivate(&w);
  world_activate(&w);
  assert_int_equal(lost_bytes(), 2 * 4096);
  assert_int_equal(read_at(24000, 10), TARN_IO);
  world_deactivate(&w);
}

/* An extent is copied in pieces: what is lost of it is a unit still. */
static void a_place_in_a_large_extent(void **state) {
  (void)state;
  world_init(&w, 2, 3 * MIB, 512);
  w.config.region_bytes = w.config.extent_bytes = MIB;
  world_format(&w);
  ram_spoil(&w.data[0], 2 * MIB - 1, 1, RAM_READS);
  ram_spoil(&w.data[0], MIB + 300000, 1, RAM_READS);
  world_activate(&w);
  world_pass(&w, 5 * NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
  assert_int_equal(lost_bytes(), 2 * 4096);
  assert_true(world_said(&w, "4096 bytes of volume vol0 at 1347584 cannot be read"));
  assert_true(world_said(&w, "4096 bytes of volume vol0 at 2093056 cannot be read"));
  assert_true(same(0, 1, 0, MIB + 299008) && same(0, 1, MIB + 303104, MIB - 303104 - 4096) && same(0, 1, 2 * MIB, MIB));
  assert_int_equal(client_do(&w, DISK_WRITE_ZEROES, MIB, MIB, 0), TARN_OK);
  assert_int_equal(lost_bytes(), 0);
  assert_true(same(0, 1, 0, 3 * MIB));
  world_deactivate(&w);
}

static void a_write_heals_what_it_covers(void **state) {
  (void)state;
  begin_losing(512, 20480, 4096, 4096);
  assert_int_equal(world_write(&w, 0, 512), TARN_OK); /* elsewhere: nothing changes, no FUA */
  assert_int_equal(w.data[0].last_flags & DISK_FUA, 0);
  assert_int_equal(lost_bytes(), 4096);
  assert_int_equal(world_write(&w, 21504, 1024), TARN_OK);
  assert_int_equal(w.data[0].last_flags & DISK_FUA, DISK_FUA); /* stable, before the record says that it is healed */
  assert_int_equal(w.data[1].last_flags & DISK_FUA, DISK_FUA);
  assert_int_equal(lost_bytes(), 3072);
  assert_true(world_said(&w, "1024 unreadable bytes of volume vol0 were written"));
  assert_int_equal(read_at(20480, 1024), TARN_IO);
  assert_int_equal(read_at(22528, 512), TARN_IO);
  w.data[0].bad_count = 0; /* a write of a part has not healed the disk */
  assert_int_equal(read_at(21504, 1024), TARN_OK);
  assert_int_equal(read_at(22528, 512), TARN_IO); /* readable now, but nobody knows what it is */
  /* The healing was durable when it was answered. */
  world_die(&w);
  world_activate(&w);
  assert_int_equal(lost_bytes(), 3072);
  assert_int_equal(read_at(21504, 1024), TARN_OK);
  assert_int_equal(client_do(&w, DISK_WRITE_ZEROES, 16384, 16384, 0), TARN_OK);
  assert_int_equal(lost_bytes(), 0);
  assert_int_equal(read_at(20480, 4096), TARN_OK);
  assert_string_equal(world_image(&w, 0).reason, "");
  world_pass(&w, 5 * NS_PER_S);
  assert_true(same(0, 1, 0, MIB));
  world_deactivate(&w);
}

static void a_merge_does_not_take_what_nobody_can_read(void **state) {
  (void)state;
  begin_losing(4096, 20480, 4096, 4096);
  assert_int_equal(world_write(&w, 20480, 512), TARN_IO);
  assert_int_equal(world_write(&w, 24000, 5000), TARN_IO);
  assert_int_equal(world_write(&w, 16000, 4096), TARN_OK); /* ends before it */
  assert_int_equal(world_write(&w, 24576, 100), TARN_OK);  /* begins behind it */
  assert_int_equal(lost_bytes(), 4096);
  assert_int_equal(world_write(&w, 20000, 5000), TARN_OK); /* covers it: only good bytes are merged */
  assert_int_equal(lost_bytes(), 0);
  world_pass(&w, 5 * NS_PER_S);
  assert_true(same(0, 1, 0, MIB));
  world_deactivate(&w);
}

/* A disk that reads nothing has no bad block: nothing is given up for it. */
static void an_ill_disk_is_waited_for(void **state) {
  (void)state;
  begin(2, MIB, 512);
  world_activate(&w);
  w.data[0].fails = RAM_READS;
  world_pass(&w, 10 * NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZING);
  assert_string_equal(world_image(&w, 1).sync.waiting_for, "a disk that cannot be read");
  assert_int_equal(lost_bytes(), 0);
  w.data[0].fails = 0;
  world_pass(&w, 10 * NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
  assert_true(same(0, 1, 0, MIB));
  world_deactivate(&w);
}

/* 64, 32, 16, 8, 4 KiB, and then it can be read. */
static void a_read_that_fails_for_a_while_is_no_bad_block(void **state) {
  (void)state;
  begin(2, 65536, 512);
  w.data[0].fail_once = 5;
  world_activate(&w);
  world_pass(&w, 10 * NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
  assert_int_equal(lost_bytes(), 0);
  assert_true(same(0, 1, 0, 65536));
  world_deactivate(&w);
}

static void a_full_list(void **state) {
  (void)state;
  begin(2, 2 * MIB, 512);
  for (uint32_t k = 0; k <= UNREADABLE_MAX; k++) ram_spoil(&w.data[0], k * 8192, 512, RAM_READS);
  world_activate(&w);
  world_pass(&w, 60 * NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZING);
  assert_string_equal(world_image(&w, 1).sync.waiting_for, "room in the list of unreadable places");
  assert_int_equal(lost_bytes(), UNREADABLE_MAX * 4096);
  /* What would make two of one is refused before it is issued; what makes none, or less, is not. */
  uint32_t writes = w.data[0].writes;
  assert_int_equal(world_write(&w, 1024, 512), TARN_IO);
  assert_int_equal(w.data[0].writes, writes);
  assert_int_equal(lost_bytes(), UNREADABLE_MAX * 4096);
  assert_int_equal(world_write(&w, 0, 512), TARN_OK);
  assert_int_equal(lost_bytes(), UNREADABLE_MAX * 4096 - 512);
  assert_int_equal(world_write(&w, 8192, 4096), TARN_OK);
  world_pass(&w, 60 * NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
  assert_int_equal(lost_bytes(), UNREADABLE_MAX * 4096 - 512);
  world_deactivate(&w);
}

static void a_rate_is_kept(void **state) {
  (void)state;
  begin(3, MIB, 512);
  w.config.images[1].policy.rate = 64 << 10;
  world_activate(&w);
  world_pass(&w, 4 * NS_PER_S);
  assert_int_equal(world_image(&w, 2).state, IMAGE_SYNCHRONIZED); /* it has none */
  struct mirror_image_status b = world_image(&w, 1);
  assert_int_equal(b.state, IMAGE_SYNCHRONIZING);
  assert_true(b.sync.done_bytes >= 256 << 10);
  assert_true(b.sync.done_bytes <= (256 << 10) + 3 * (64 << 10)); /* those that were begun at once */
  world_pass(&w, 20 * NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
  assert_true(same(0, 1, 0, MIB));
  world_deactivate(&w);
}

/* Far less than CHECKPOINT_BYTES between two kills: it comes to its end all the same. */
static void a_copy_that_is_killed_again_and_again_goes_on(void **state) {
  (void)state;
  begin(2, MIB, 512);
  w.config.images[1].policy.rate = 64 << 10;
  uint64_t missed = MIB + 1;
  for (uint32_t life = 0; life < 3; life++) {
    world_activate(&w);
    world_run(&w);
    assert_true(world_image(&w, 1).missed_bytes < missed);
    missed = world_image(&w, 1).missed_bytes;
    world_pass(&w, 8 * NS_PER_S);
    if (world_image(&w, 1).state == IMAGE_SYNCHRONIZED) break;
    world_die(&w);
  }
  assert_true(w.open);
  assert_true(same(0, 1, 0, MIB));
  world_deactivate(&w);
}

static void copies_give_way_to_clients(void **state) {
  (void)state;
  begin(2, MIB, 512);
  w.data[0].holds = RAM_READS;
  world_activate(&w);
  world_pass(&w, NS_PER_MS);
  assert_int_equal(w.data[0].held_count, 3); /* pipelined */
  struct client_io client;
  client_begin(&w, &client, DISK_READ, 0, 512, 0);
  world_run(&w);
  assert_int_equal(w.data[0].held_count, 4);
  for (uint32_t k = 0; k < 3; k++) ram_answer(&w.data[0]); /* the copies */
  world_run(&w);
  assert_int_equal(w.data[0].held_count, 2); /* the client's, and one copy */
  ram_answer(&w.data[0]);
  world_run(&w);
  assert_true(client.done);
  ram_answer(&w.data[0]); /* a copy, soon after the client's I/O */
  world_run(&w);
  assert_int_equal(w.data[0].held_count, 1);
  world_pass(&w, 20 * NS_PER_MS);
  ram_answer(&w.data[0]);
  world_run(&w);
  assert_int_equal(w.data[0].held_count, 3);
  assert_int_equal(client_end(&w, &client), TARN_OK);
  ram_release(&w.data[0]);
  world_pass(&w, 5 * NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
  world_deactivate(&w);
}

/* A target that is dropped while the flush of a checkpoint is under way does not join by it. */
static void a_target_leaves_during_a_checkpoint(void **state) {
  (void)state;
  begin(3, MIB, 512);
  w.data[1].holds = RAM_FLUSHES;
  world_activate(&w);
  world_pass(&w, NS_PER_S);
  assert_int_equal(w.data[1].held_count, 1);
  mirror_image_failed(w.m, 1, "a test");
  world_run(&w);
  ram_answer(&w.data[1]);
  w.data[1].holds = 0;
  world_pass(&w, 5 * NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_UNSYNCHRONIZED);
  assert_true(world_image(&w, 1).missed_bytes > 0);
  assert_int_equal(world_image(&w, 2).state, IMAGE_SYNCHRONIZED);
  assert_true(same(0, 2, 0, MIB));
  world_deactivate(&w);
}

/* Its bytes do not count any more: another image is read, and what that has is what all get. */
static void a_source_leaves_in_the_middle_of_a_read(void **state) {
  (void)state;
  begin_equal(3, MIB, 512);
  world_deactivate(&w);
  w.config.images[2].data[0] = NULL;
  w.config.images[2].error = "away";
  world_activate(&w);
  assert_int_equal(world_write(&w, 0, 4096), TARN_OK); /* c misses it */
  world_deactivate(&w);
  w.config.images[2].data[0] = &w.data[2].disk;
  w.data[0].holds = RAM_READS;
  world_activate(&w);
  world_pass(&w, NS_PER_MS);
  assert_int_equal(w.data[0].held_count, 1);
  assert_int_equal(world_image(&w, 2).sync.kind, SYNC_MISSED);
  mirror_image_failed(w.m, 0, "a test");
  memset(w.data[0].bytes, 0x99, 4096); /* whatever it says now */
  w.data[0].holds = 0;
  ram_answer(&w.data[0]);
  world_pass(&w, 5 * NS_PER_S);
  assert_int_equal(world_image(&w, 2).state, IMAGE_SYNCHRONIZED);
  assert_true(same(1, 2, 0, MIB));
  assert_int_equal(w.data[2].bytes[0], 0x55);
  world_deactivate(&w);
}

/* An image that was CONSISTENT is on record as half built before the first byte of it changes (rule 13). */
static void an_image_that_comes_back_is_recorded_first(void **state) {
  (void)state;
  begin_equal(2, MIB, 512);
  mirror_image_do(w.m, 1, IMAGE_OP_FRACTURE, false, world_done, &w);
  assert_int_equal(world_wait(&w), TARN_OK);
  assert_int_equal(world_image(&w, 1).state, IMAGE_CONSISTENT);
  assert_int_equal(world_write(&w, 0, 65536), TARN_OK);
  world_pass(&w, 5 * NS_PER_S);
  uint32_t writes = w.data[1].writes;
  mirror_image_do(w.m, 1, IMAGE_OP_RESTORE, false, world_done, &w);
  world_run(&w);
  assert_int_equal(w.reopened, 1 << 1);
  w.home.holds = RAM_WRITES;
  mirror_image_reopened(w.m, 1, &w.config.images[1]);
  struct client_io client[2];
  client_begin(&w, &client[0], DISK_WRITE, 4096, 512, 1);   /* where it misses something */
  client_begin(&w, &client[1], DISK_WRITE, 300000, 512, 2); /* and where it does not */
  world_pass(&w, 3 * NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZING);
  assert_true(w.home.held_count > 0);
  assert_int_equal(w.data[1].writes, writes);
  ram_release(&w.home);
  for (uint32_t k = 0; k < 2; k++) assert_int_equal(client_end(&w, &client[k]), TARN_OK);
  assert_int_equal(world_wait(&w), TARN_OK);
  world_pass(&w, 5 * NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
  assert_true(same(0, 1, 0, MIB));
  world_deactivate(&w);
}

/* ---- recovery ---- */

static void recovery_takes_a_bad_block_from_another_image(void **state) {
  (void)state;
  begin_equal(2, MIB, 512);
  assert_int_equal(world_write(&w, 65536, 65536), TARN_OK);
  world_die(&w);
  ram_spoil(&w.data[0], 69632, 4096, RAM_READS);
  world_activate(&w);
  world_pass(&w, 5 * NS_PER_S);
  assert_true(world_said(&w, "recovery is complete"));
  assert_int_equal(lost_bytes(), 0);
  assert_int_equal(w.data[0].bad[0].what, 0); /* it was written there too */
  assert_true(same(0, 1, 0, MIB));
  world_deactivate(&w);
}

/* The images differ where a crash left a mark. Once the source is out the other one counts, and may have been read: a merge
 * must not bring back what it has read from the source. */
static void a_merge_forgets_an_image_that_is_out(void **state) {
  (void)state;
  begin_equal(2, MIB, 4096);
  for (uint64_t region = 1; region <= 4; region++) assert_int_equal(world_write(&w, region * 65536, 4096), TARN_OK);
  world_die(&w);
  memset(w.data[1].bytes + 262144, 0xbb, 4096);
  w.data[0].holds = RAM_READS;
  world_activate(&w);
  world_run(&w); /* copies of the first three regions wait for the source ... */
  struct client_io client;
  client_begin(&w, &client, DISK_WRITE, 262144 + 512, 512, 0x77);
  world_pass(&w, NS_PER_S / 100); /* ... and so does the merge in the fourth */
  assert_int_equal(w.data[0].held_count, 4);
  mirror_image_failed(w.m, 0, "it was taken away");
  ram_release(&w.data[0]);
  assert_int_equal(client_end(&w, &client), TARN_OK);
  world_pass(&w, NS_PER_S);
  const uint8_t *block = w.data[1].bytes + 262144;
  for (uint32_t i = 0; i < 4096; i++) assert_int_equal(block[i], i >= 512 && i < 1024 ? 0x77 : 0xbb);
  world_deactivate(&w);
}

static void recovery_leaves_behind_what_nobody_can_read(void **state) {
  (void)state;
  begin_equal(2, MIB, 512);
  assert_int_equal(world_write(&w, 65536, 65536), TARN_OK);
  world_die(&w);
  ram_spoil(&w.data[0], 69632, 4096, RAM_READS);
  ram_spoil(&w.data[1], 69632 + 512, 512, RAM_READS);
  ram_spoil(&w.data[1], 73728, 4096, RAM_READS); /* a has this one */
  w.data[1].bytes[80000] ^= 1;
  world_activate(&w);
  struct client_io client; /* a read that waits for the copy is told */
  client_begin(&w, &client, DISK_READ, 69632, 512, 0);
  assert_int_equal(client_end(&w, &client), TARN_IO);
  world_pass(&w, 5 * NS_PER_S);
  assert_int_equal(lost_bytes(), 4096);
  assert_true(world_said(&w, "recovery is complete"));
  assert_true(same(0, 1, 0, 69632) && same(0, 1, 73728, MIB - 73728));
  assert_int_equal(world_flush(&w), TARN_OK);
  assert_int_equal(read_at(73728, 4096), TARN_OK);
  assert_int_equal(read_at(65536, 65536), TARN_IO);
  assert_int_equal(world_write(&w, 69632, 4096), TARN_OK);
  assert_int_equal(read_at(65536, 65536), TARN_OK);
  assert_int_equal(lost_bytes(), 0);
  world_deactivate(&w);
}

static uint64_t recovering_bytes(void) {
  static struct mirror_status status;
  mirror_status(w.m, &status);
  return status.recovering_bytes;
}

/* What says that a place is lost is durable before what says that it has to be copied goes. */
static void what_is_left_behind_is_recorded_first(void **state) {
  (void)state;
  for (uint32_t round = 0; round < 4; round++) {
    bool recovers = round & 1, dies = round & 2;
    if (recovers) {
      begin_equal(2, 65536, 512);
      assert_int_equal(world_write(&w, 0, 65536), TARN_OK);
      world_die(&w);
    } else {
      begin(2, 65536, 512);
    }
    ram_spoil(&w.data[0], 8192, 512, RAM_READS);
    if (recovers) ram_spoil(&w.data[1], 8192, 512, RAM_READS);
    world_activate(&w);
    w.home.holds = RAM_WRITES;
    world_pass(&w, 2 * NS_PER_S);
    assert_int_equal(lost_bytes(), 4096);
    assert_true(w.home.held_count > 0);
    if (recovers) assert_true(recovering_bytes() > 0);
    else assert_true(world_image(&w, 1).missed_bytes >= 16384);
    assert_int_not_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
    w.home.holds = 0;
    if (dies) { /* nothing knows of it: it is found again */
      list_init(&w.home.held);
      w.home.held_count = 0;
      world_die(&w);
      world_activate(&w);
      assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZING);
    }
    ram_answer_all(&w.home);
    world_pass(&w, 5 * NS_PER_S);
    assert_int_equal(lost_bytes(), 4096);
    assert_int_equal(recovering_bytes(), 0);
    assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
    world_deactivate(&w);
    world_end(&w);
  }
  world_init(&w, 1, 65536, 512); /* for the teardown */
}

/* Also when the first try to record it fails, and the copy is done again. */
static void what_is_left_behind_is_recorded_at_last(void **state) {
  (void)state;
  begin(2, 65536, 512);
  ram_spoil(&w.data[0], 8192, 512, RAM_READS);
  world_activate(&w);
  w.meta[0].fails = RAM_WRITES;
  world_pass(&w, 10 * NS_PER_S);
  assert_int_equal(lost_bytes(), 4096);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZING);
  assert_int_equal(world_image(&w, 1).missed_bytes, 65536);
  w.meta[0].fails = 0;
  world_pass(&w, 10 * NS_PER_S);
  assert_int_equal(lost_bytes(), 4096);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
  world_deactivate(&w);
}

/* What was healed in a bad unit is not lost again by a recovery. */
static void recovery_looks_beside_what_is_lost(void **state) {
  (void)state;
  begin_losing(512, 20480, 512, 4096);
  assert_int_equal(world_write(&w, 21504, 512), TARN_OK);
  assert_int_equal(lost_bytes(), 3584);
  world_die(&w);
  ram_spoil(&w.data[1], 20480, 512, RAM_READS);
  world_activate(&w);
  world_pass(&w, 5 * NS_PER_S);
  assert_int_equal(lost_bytes(), 3584);
  assert_int_equal(read_at(21504, 512), TARN_OK);
  world_deactivate(&w);
}

/* ---- read repair ---- */

/* Reads until image `i` was asked. */
static void read_from(uint32_t i, uint64_t offset, uint64_t length) {
  uint32_t reads = w.data[i].reads;
  for (uint32_t k = 0; k < 8 && w.data[i].reads == reads; k++) assert_int_equal(read_at(offset, length), TARN_OK);
  assert_true(w.data[i].reads > reads);
}

static void a_failed_read_is_repaired(void **state) {
  (void)state;
  begin_equal(3, MIB, 512);
  uint64_t written = w.data[1].bytes_written;
  ram_spoil(&w.data[1], 299100, 100, RAM_READS);
  read_from(1, 298496, 1024);
  world_pass(&w, NS_PER_S);
  assert_int_equal(w.data[1].bad[0].what, 0);
  assert_int_equal(w.data[1].bytes_written - written, 2 * 4096); /* whole units around what was asked for */
  assert_int_equal(world_image(&w, 1).repaired_blocks, 2);
  assert_int_equal(world_image(&w, 0).repaired_blocks, 0);
  assert_true(
      world_said(&w, "image b: 8192 bytes of volume vol0 at 294912 were written again, since they could not be read"));
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
  assert_int_equal(world_image(&w, 1).read_errors, 1);
  assert_true(same(0, 1, 0, MIB));
  world_deactivate(&w);
}

/* Rule 2: no image is written before all have the mark. */
static void a_repair_is_marked_first(void **state) {
  (void)state;
  begin_equal(2, MIB, 512);
  world_pass(&w, 20 * NS_PER_S); /* no region is marked any more */
  ram_spoil(&w.data[1], 300000, 100, RAM_READS);
  w.meta[0].holds = w.meta[1].holds = RAM_WRITES;
  uint32_t writes = w.data[1].writes;
  read_from(1, 299520, 1024);
  world_run(&w);
  assert_true(w.meta[0].held_count > 0 && w.meta[1].held_count > 0);
  assert_int_equal(w.data[1].writes, writes);
  ram_release(&w.meta[0]);
  world_run(&w);
  assert_int_equal(w.data[1].writes, writes); /* one of them has not got it */
  ram_release(&w.meta[1]);
  world_run(&w);
  assert_int_equal(w.data[1].writes, writes + 1);
  world_deactivate(&w);
}

static void what_cannot_be_repaired_puts_the_image_out(void **state) {
  (void)state;
  begin_equal(2, MIB, 512);
  ram_spoil(&w.data[1], 300000, 100, RAM_READS | RAM_WRITES);
  read_from(1, 299520, 1024);
  world_pass(&w, NS_PER_S);
  assert_int_equal(world_image(&w, 1).state, IMAGE_UNSYNCHRONIZED);
  assert_int_equal(world_image(&w, 1).missing, MISSING_FAILED);
  assert_int_equal(world_image(&w, 1).repaired_blocks, 0);
  assert_string_equal(world_image(&w, 1).reason, "what it could not read could not be written again");
  assert_int_equal(read_at(299520, 1024), TARN_OK);
  world_deactivate(&w);
}

static void the_last_image_is_not_repaired(void **state) {
  (void)state;
  begin(1, MIB, 512);
  world_activate(&w);
  ram_spoil(&w.data[0], 300000, 100, RAM_READS);
  assert_int_equal(read_at(299520, 1024), TARN_IO);
  world_pass(&w, NS_PER_S);
  assert_int_equal(w.data[0].writes, 0);
  assert_int_equal(read_at(0, 1024), TARN_OK);
  world_deactivate(&w);
}

static void many_failed_reads(void **state) {
  (void)state;
  begin(2, 4 * MIB, 512);
  w.pool_bytes = 4 * MIB;
  world_activate(&w);
  world_pass(&w, 5 * NS_PER_S);
  for (uint32_t k = 0; k < 60; k++) ram_spoil(&w.data[1], k * 65536 + 512, 512, RAM_READS);
  w.meta[1].holds = RAM_WRITES; /* no mark becomes durable: repairs wait, and the table overflows */
  struct client_io reads[120];
  for (uint32_t k = 0; k < 120; k++) client_begin(&w, &reads[k], DISK_READ, k / 2 * 65536, 4096, 0);
  for (uint32_t k = 0; k < 120; k++) assert_int_equal(client_end(&w, &reads[k]), TARN_OK);
  ram_release(&w.meta[1]);
  world_pass(&w, 20 * NS_PER_S);
  uint64_t repaired = world_image(&w, 1).repaired_blocks;
  assert_true(repaired >= 16 && repaired <= 17);
  for (uint32_t round = 0; round < 40; round++) {
    for (uint32_t k = 0; k < 60; k++) assert_int_equal(read_at(k * 65536, 4096), TARN_OK);
    world_pass(&w, NS_PER_S);
  }
  assert_int_equal(world_image(&w, 1).repaired_blocks, 60);
  assert_int_equal(world_image(&w, 1).state, IMAGE_SYNCHRONIZED);
  world_deactivate(&w);
}

/* A copy whose source needed another image's help has the source repaired as well. */
static void a_source_is_repaired(void **state) {
  (void)state;
  begin_equal(3, MIB, 512);
  world_deactivate(&w);
  w.config.images[2].data[0] = NULL;
  w.config.images[2].error = "away";
  world_activate(&w);
  assert_int_equal(world_write(&w, 0, 16384), TARN_OK);
  world_deactivate(&w);
  w.config.images[2].data[0] = &w.data[2].disk;
  ram_spoil(&w.data[0], 4096, 512, RAM_READS);
  world_activate(&w);
  world_pass(&w, 5 * NS_PER_S);
  assert_int_equal(world_image(&w, 2).state, IMAGE_SYNCHRONIZED);
  assert_int_equal(w.data[0].bad[0].what, 0);
  assert_true(world_image(&w, 0).repaired_blocks > 0);
  assert_int_equal(lost_bytes(), 0);
  assert_true(same(0, 2, 0, MIB) && same(1, 2, 0, MIB));
  world_deactivate(&w);
}

/* ---- reads ---- */

static void reads_from_the_master(void **state) {
  (void)state;
  begin_equal(2, MIB, 512);
  uint32_t reads = w.data[1].reads;
  for (uint32_t k = 0; k < 8; k++) assert_int_equal(read_at(k * 4096, 4096), TARN_OK);
  assert_true(w.data[1].reads > reads); /* shared, by default */
  mirror_set_limits(w.m, -1, -1, true);
  reads = w.data[1].reads;
  for (uint32_t k = 0; k < 8; k++) assert_int_equal(read_at(k * 4096, 4096), TARN_OK);
  assert_int_equal(w.data[1].reads, reads);
  ram_spoil(&w.data[0], 0, 512, RAM_READS);
  assert_int_equal(read_at(0, 4096), TARN_OK); /* unless it failed */
  assert_true(w.data[1].reads > reads);
  world_deactivate(&w);
}

/* What a disk that hung writes into a buffer later, the client does not see. */
static void a_hung_read_gets_another_buffer(void **state) {
  (void)state;
  begin_equal(2, MIB, 512);
  w.data[1].holds = RAM_READS;
  struct client_io reads[2];
  for (uint32_t k = 0; k < 2; k++) client_begin(&w, &reads[k], DISK_READ, 8192, 4096, 0);
  world_run(&w);
  assert_int_equal(w.data[1].held_count, 1); /* one of the two */
  struct buffer *given[2] = {reads[0].io.buffer, reads[1].io.buffer};
  world_pass(&w, 30 * NS_PER_S);
  assert_true(reads[0].done && reads[1].done);
  assert_int_equal(world_image(&w, 1).state, IMAGE_UNSYNCHRONIZED);
  uint32_t hung = given[1] != reads[1].io.buffer;
  assert_ptr_not_equal(reads[hung].io.buffer, given[hung]);
  assert_ptr_equal(reads[!hung].io.buffer, given[!hung]);
  memset(w.data[1].bytes, 0x99, MIB);
  w.data[1].holds = 0;
  ram_answer(&w.data[1]);
  world_run(&w);
  for (uint32_t k = 0; k < 2; k++) {
    assert_memory_equal(reads[k].io.data, w.data[0].bytes + 8192, 4096);
    assert_int_equal(client_end(&w, &reads[k]), TARN_OK);
  }
  assert_true(buffer_pool_is_whole(&w.pool));
  world_deactivate(&w);
}

/* With no buffer left in the pool such a read waits, and is ended when the mirror stops. */
static void a_hung_read_waits_for_a_buffer(void **state) {
  (void)state;
  for (uint32_t stops = 0; stops < 2; stops++) {
    begin_equal(2, MIB, 512);
    w.data[1].holds = RAM_READS;
    struct client_io reads[2];
    for (uint32_t k = 0; k < 2; k++) client_begin(&w, &reads[k], DISK_READ, 8192, 4096, 0);
    world_run(&w);
    struct buffer *taken[64];
    uint32_t count = 0;
    while ((taken[count] = buffer_get(&w.pool, 4096)) != NULL) count++;
    world_pass(&w, 30 * NS_PER_S);
    uint32_t hung = !reads[1].done;
    assert_true(reads[!hung].done && !reads[hung].done);
    if (stops) mirror_deactivate(w.m, false, world_done, &w);
    else buffer_unref(taken[--count]);
    world_run(&w);
    assert_true(reads[hung].done);
    for (uint32_t k = 0; k < count; k++) buffer_unref(taken[k]);
    w.data[1].holds = 0;
    ram_answer(&w.data[1]);
    world_run(&w);
    assert_int_equal(client_end(&w, &reads[hung]), stops ? TARN_SHUTDOWN : TARN_OK);
    assert_int_equal(client_end(&w, &reads[!hung]), TARN_OK);
    if (stops) {
      assert_int_equal(world_wait(&w), TARN_OK);
      assert_true(buffer_pool_is_whole(&w.pool));
      world_close(&w);
    } else {
      world_deactivate(&w);
    }
    if (!stops) world_end(&w);
  }
}

/* The same read, when an operation waits until nothing is in flight, and all the buffers are with requests that wait for that. */
static void a_read_without_a_buffer_makes_way_for_an_operation(void **state) {
  (void)state;
  static struct client_io reads[3], writes[64];
  struct buffer *taken[64];
  uint32_t count = 0, done = 0;
  begin_equal(3, MIB, 512);
  w.data[1].holds = RAM_READS;
  for (uint32_t k = 0; k < 3; k++) client_begin(&w, &reads[k], DISK_READ, 8192, 4096, 0);
  world_run(&w);
  while ((taken[count] = buffer_get(&w.pool, 4096)) != NULL) count++;
  world_pass(&w, 30 * NS_PER_S);
  for (uint32_t k = 0; k < 3; k++) done += reads[k].done;
  assert_int_equal(done, 2);
  mirror_image_do(w.m, 2, IMAGE_OP_FRACTURE, false, world_done, &w);
  for (uint32_t k = 0; k < count; k++) {
    writes[k] = (struct client_io){.io = {.op = DISK_WRITE, .offset = k * 4096, .length = 4096, .done = client_done}};
    disk_io_init(&writes[k].io);
    writes[k].io.buffer = taken[k];
    writes[k].io.data = taken[k]->base;
    disk_submit(mirror_volume(w.m, 0), &writes[k].io);
  }
  assert_int_equal(world_wait(&w), TARN_OK);
  for (uint32_t k = 0; k < count; k++) assert_int_equal(client_end(&w, &writes[k]), TARN_OK);
  ram_release(&w.data[1]);
  for (uint32_t k = 0; k < 3; k++) assert_int_equal(client_end(&w, &reads[k]), TARN_OK);
  world_deactivate(&w);
}

/* A copy goes on with another buffer than the one that its hung source still has. */
static void a_hung_copy_gets_another_buffer(void **state) {
  (void)state;
  begin_equal(3, MIB, 512);
  world_deactivate(&w);
  w.config.images[2].data[0] = NULL;
  w.config.images[2].error = "away";
  world_activate(&w);
  for (uint32_t k = 0; k < 4; k++) assert_int_equal(world_write(&w, k * 65536, 65536), TARN_OK);
  world_deactivate(&w);
  w.config.images[2].data[0] = &w.data[2].disk;
  w.data[0].holds = RAM_READS;
  w.data[2].holds = RAM_WRITES;
  w.config.images[2].policy.hang_ns = 600 * NS_PER_S;
  world_activate(&w);
  world_pass(&w, 60 * NS_PER_S);
  assert_int_equal(w.data[0].held_count, 3);
  assert_int_equal(world_image(&w, 0).state, IMAGE_UNSYNCHRONIZED);
  assert_int_equal(w.data[2].held_count, 3); /* with what was read from b */
  memset(w.data[0].bytes, 0x99, MIB);
  w.data[0].holds = w.data[2].holds = 0;
  ram_answer_all(&w.data[0]);
  ram_answer_all(&w.data[2]);
  world_pass(&w, 5 * NS_PER_S);
  assert_int_equal(world_image(&w, 2).state, IMAGE_SYNCHRONIZED);
  assert_true(same(1, 2, 0, MIB));
  world_deactivate(&w);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WORLD_TEST(a_copy_makes_images_equal),
      WORLD_TEST(progress_is_told_in_bytes_of_data),
      WORLD_TEST(a_place_is_left_behind),
      WORLD_TEST(a_place_in_a_large_extent),
      WORLD_TEST(a_write_heals_what_it_covers),
      WORLD_TEST(a_merge_does_not_take_what_nobody_can_read),
      WORLD_TEST(an_ill_disk_is_waited_for),
      WORLD_TEST(a_read_that_fails_for_a_while_is_no_bad_block),
      WORLD_TEST(a_full_list),
      WORLD_TEST(a_rate_is_kept),
      WORLD_TEST(a_copy_that_is_killed_again_and_again_goes_on),
      WORLD_TEST(copies_give_way_to_clients),
      WORLD_TEST(a_target_leaves_during_a_checkpoint),
      WORLD_TEST(a_source_leaves_in_the_middle_of_a_read),
      WORLD_TEST(an_image_that_comes_back_is_recorded_first),
      WORLD_TEST(recovery_takes_a_bad_block_from_another_image),
      WORLD_TEST(a_merge_forgets_an_image_that_is_out),
      WORLD_TEST(recovery_leaves_behind_what_nobody_can_read),
      WORLD_TEST(what_is_left_behind_is_recorded_first),
      WORLD_TEST(what_is_left_behind_is_recorded_at_last),
      WORLD_TEST(recovery_looks_beside_what_is_lost),
      WORLD_TEST(a_failed_read_is_repaired),
      WORLD_TEST(a_repair_is_marked_first),
      WORLD_TEST(what_cannot_be_repaired_puts_the_image_out),
      WORLD_TEST(the_last_image_is_not_repaired),
      WORLD_TEST(many_failed_reads),
      WORLD_TEST(a_source_is_repaired),
      WORLD_TEST(reads_from_the_master),
      WORLD_TEST(a_hung_read_gets_another_buffer),
      WORLD_TEST(a_hung_read_waits_for_a_buffer),
      WORLD_TEST(a_read_without_a_buffer_makes_way_for_an_operation),
      WORLD_TEST(a_hung_copy_gets_another_buffer),
  };
  return cmocka_run_group_tests_name("mirror_copy", tests, NULL, NULL);
}
