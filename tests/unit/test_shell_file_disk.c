/* File disks on a real file system and in memory: what is refused and how it is said, locks, and a random load of all
 * operations against a model of the bytes. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/prng.h"
#include "shell/file_disk.h"
#include "unit.h"

#define SIZE (1u << 20)

static const char *const places[] = {"/tmp", "/dev/shm"};

struct fixture {
  struct reactor *reactor;
  char folder[64], path[96];
  struct why why;
};

static struct fixture *fixture_new(struct fixture *fixture, const char *place) {
  *fixture = (struct fixture){0};
  fixture->reactor = reactor_create(&fixture->why);
  assert_non_null(fixture->reactor);
  snprintf(fixture->folder, sizeof(fixture->folder), "%s/tarn-test-XXXXXX", place);
  assert_non_null(mkdtemp(fixture->folder));
  snprintf(fixture->path, sizeof(fixture->path), "%s/disk", fixture->folder);
  return fixture;
}

static void fixture_free(struct fixture *fixture) {
  unlink(fixture->path);
  assert_int_equal(rmdir(fixture->folder), 0); /* nothing else was left behind */
  reactor_destroy(fixture->reactor);
}

static struct disk *disk_new(struct fixture *fixture, uint64_t bytes, struct file_disk_options options) {
  struct disk *disk;
  assert_int_equal(file_create(fixture->path, bytes, &fixture->why), TARN_OK);
  options.reactor = fixture->reactor;
  options.path = fixture->path;
  assert_int_equal(file_disk_open(&options, &disk, NULL, &fixture->why), TARN_OK);
  return disk;
}

static uint64_t file_bytes(const char *path) {
  struct stat status;
  assert_int_equal(stat(path, &status), 0);
  return (uint64_t)status.st_size;
}

/* ---- what is refused ---- */

static void make_nothing(const char *path) { (void)path; }
static void make_folder(const char *path) { assert_int_equal(mkdir(path, 0700), 0); }
static void make_pipe(const char *path) { assert_int_equal(mkfifo(path, 0600), 0); }
static void make_file(const char *path) { assert_int_equal(file_create(path, SIZE, NULL), TARN_OK); }
static void make_empty(const char *path) { assert_int_equal(file_create(path, 0, NULL), TARN_OK); }
static void make_odd(const char *path) { assert_int_equal(file_create(path, 1000, NULL), TARN_OK); }
static void make_socket(const char *path) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  snprintf(name.sun_path, sizeof(name.sun_path), "%s", path);
  assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof(name)), 0);
  close(fd);
}

static void test_refusals(void **state) {
  static const struct {
    const char *why;
    void (*make)(const char *path);
    uint64_t size_bytes;
    tarn_err err;
    const char *says;
  } rows[] = {
      {"missing", make_nothing, 0, TARN_NOT_FOUND, "does not exist"},
      {"a directory", make_folder, 0, TARN_INVALID, "is a directory"},
      {"a pipe must not be waited for", make_pipe, 0, TARN_INVALID, "is a pipe"},
      {"a socket", make_socket, 0, TARN_INVALID, "is a socket"},
      {"too small by a sector", make_file, SIZE + 512, TARN_INVALID, "is too small"},
      {"empty", make_empty, 0, TARN_INVALID, "is empty"},
      {"no multiple of 512", make_odd, 0, TARN_INVALID, "not a multiple of 512"},
      {"of an odd file a part that is a multiple will do", make_odd, 512, TARN_OK, ""},
      {"all of a file", make_file, 0, TARN_OK, ""},
      {"a part of a file", make_file, SIZE / 2, TARN_OK, ""},
  };
  (void)state;
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct fixture fixture;
    struct disk *disk;
    fixture_new(&fixture, places[i % 2]);
    rows[i].make(fixture.path);
    struct file_disk_options options = {
        .reactor = fixture.reactor, .path = fixture.path, .size_bytes = rows[i].size_bytes};
    tarn_err err = file_disk_open(&options, &disk, NULL, &fixture.why);
    row_true(rows[i].why, err == rows[i].err);
    row_true(rows[i].why, err == TARN_OK || strstr(fixture.why.text, rows[i].says));
    row_true(rows[i].why, (err == TARN_OK) == (disk != NULL));
    if (disk) disk_close(disk);
    rmdir(fixture.path);
    fixture_free(&fixture);
  }
}

static void test_create(void **state) {
  (void)state;
  struct fixture fixture;
  char path[160];
  fixture_new(&fixture, "/tmp");
  assert_int_equal(file_create(fixture.path, 12345, &fixture.why), TARN_OK);
  assert_int_equal(file_bytes(fixture.path), 12345);
  assert_int_equal(file_create(fixture.path, SIZE, &fixture.why), TARN_EXISTS);
  assert_int_equal(file_bytes(fixture.path), 12345);
  snprintf(path, sizeof(path), "%s/missing/disk", fixture.folder);
  assert_int_equal(file_create(path, SIZE, &fixture.why), TARN_NOT_FOUND);
  assert_non_null(strstr(fixture.why.text, "folder does not exist"));
  snprintf(path, sizeof(path), "%s/huge", fixture.folder);
  assert_int_equal(file_create(path, INT64_MAX, &fixture.why), TARN_NO_SPACE); /* and fixture_free() finds no remains */
  fixture_free(&fixture);
}

static void test_a_file_in_use_is_refused_until_it_is_closed(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(places); i++) {
    struct fixture fixture;
    struct disk *disk, *second, *third;
    disk = disk_new(fixture_new(&fixture, places[i]), SIZE, (struct file_disk_options){0});
    struct file_disk_options options = {.reactor = fixture.reactor, .path = fixture.path};
    assert_int_equal(file_disk_open(&options, &second, NULL, &fixture.why), TARN_FULL);
    assert_non_null(strstr(fixture.why.text, "in use"));
    options.read_only = true;
    assert_int_equal(file_disk_open(&options, &second, NULL, &fixture.why), TARN_FULL);
    disk_close(disk);
    assert_int_equal(file_disk_open(&options, &second, NULL, &fixture.why), TARN_OK);
    assert_int_equal(file_disk_open(&options, &third, NULL, &fixture.why), TARN_OK); /* two readers get along */
    assert_true(third->caps.read_only);
    options.read_only = false;
    assert_int_equal(file_disk_open(&options, &disk, NULL, &fixture.why), TARN_FULL);
    disk_close(second);
    disk_close(third);
    fixture_free(&fixture);
  }
}

static void test_identity(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(places); i++) {
    struct fixture fixture;
    struct file_identity found;
    char other[128];
    struct disk *disk = disk_new(fixture_new(&fixture, places[i]), SIZE, (struct file_disk_options){0});
    struct file_identity identity = *file_disk_identity(disk);
    snprintf(other, sizeof(other), "%s2", fixture.path);
    assert_false(identity.has_data);
    assert_int_equal(identity.size_bytes, SIZE);
    assert_int_equal(link(fixture.path, other), 0);
    assert_int_equal(file_inspect(other, &found, &fixture.why), TARN_OK); /* not hindered by the lock */
    assert_true(file_identity_same(&identity, &found));
    assert_int_equal(file_still_there(fixture.path, &identity, SIZE, &fixture.why), TARN_OK);

    assert_int_equal(truncate(fixture.path, SIZE - 512), 0);
    assert_int_equal(file_still_there(fixture.path, &identity, SIZE, &fixture.why), TARN_CORRUPT);
    assert_non_null(strstr(fixture.why.text, "shorter"));
    assert_int_equal(unlink(fixture.path), 0);
    assert_int_equal(file_still_there(fixture.path, &identity, SIZE, &fixture.why), TARN_GONE);
    assert_non_null(strstr(fixture.why.text, "removed"));
    assert_int_equal(file_create(fixture.path, SIZE, &fixture.why), TARN_OK);
    assert_int_equal(file_still_there(fixture.path, &identity, SIZE, &fixture.why), TARN_GONE);
    assert_non_null(strstr(fixture.why.text, "replaced"));

    int fd = open(fixture.path, O_WRONLY);
    assert_int_equal(pwrite(fd, "x", 1, 4096), 1);
    close(fd);
    assert_int_equal(file_inspect(fixture.path, &found, &fixture.why), TARN_OK);
    assert_true(found.has_data);
    unlink(other);
    disk_close(disk);
    fixture_free(&fixture);
  }
}

/* ---- bytes ---- */

enum { IO_COUNT = 48 };
struct job {
  struct disk_io io;
  struct buffer buffer;
  const uint8_t *expected; /* of a read */
  bool busy, inside_submit;
};
struct load {
  struct disk *disk;
  struct prng prng;
  uint8_t *model;
  struct job jobs[IO_COUNT];
  uint32_t busy;
};

static uint8_t *data_at(struct job *job, uint64_t offset) { return job->buffer.base + offset % BUFFER_ALIGN; }

static void job_done(struct disk_io *io) {
  struct job *job = CONTAINER_OF(io, struct job, io);
  assert_false(job->inside_submit);
  assert_true(job->busy);
  assert_int_equal(io->err, TARN_OK);
  if (io->op == DISK_READ) assert_memory_equal(io->data, job->expected, io->length);
  job->busy = false;
}

static bool overlaps(const struct load *load, uint64_t offset, uint64_t length) {
  for (int i = 0; i < IO_COUNT; i++) {
    const struct disk_io *io = &load->jobs[i].io;
    if (load->jobs[i].busy && offset < io->offset + io->length && io->offset < offset + length) return true;
  }
  return false;
}

/* Ranges in flight never overlap, so the model can be changed at submit and compared at the completion. */
static void job_submit(struct load *load, struct job *job) {
  const struct disk_caps *caps = &load->disk->caps;
  enum disk_op op = (enum disk_op)prng_below(&load->prng, DISK_EXTENTS);
  bool zeroes = op == DISK_TRIM || op == DISK_WRITE_ZEROES;
  if (zeroes && !caps->can_zero) return;
  uint64_t unit = zeroes ? caps->zero_block_bytes : caps->block_bytes;
  uint64_t length = unit * (1 + prng_below(&load->prng, min_u64(64, 65536 / unit)));
  uint64_t offset = align_down(prng_below(&load->prng, caps->size_bytes - length + 1), unit);
  if (prng_one_in(&load->prng, 8)) offset = align_down(caps->size_bytes - length, unit); /* the end */
  if (op == DISK_FLUSH) offset = length = 0;
  if (overlaps(load, offset, length)) return;
  disk_io_init(&job->io);
  job->io.op = op;
  job->io.offset = offset;
  job->io.length = length;
  job->io.flags = 0;
  job->io.done = job_done;
  job->io.buffer = op == DISK_READ || op == DISK_WRITE ? &job->buffer : NULL;
  job->io.data = data_at(job, offset);
  job->expected = load->model + offset;
  if (op == DISK_WRITE || zeroes) job->io.flags |= prng_one_in(&load->prng, 4) ? DISK_FUA : 0;
  if (op == DISK_WRITE_ZEROES) job->io.flags |= prng_one_in(&load->prng, 2) ? DISK_NO_HOLE : 0;
  if (op == DISK_WRITE) {
    for (uint64_t i = 0; i < length; i++) job->io.data[i] = (uint8_t)prng_next(&load->prng);
    memcpy(load->model + offset, job->io.data, length);
  }
  if (zeroes) memset(load->model + offset, 0, length);
  job->busy = job->inside_submit = true;
  disk_submit(load->disk, &job->io);
  job->inside_submit = false;
}

static void load_run(struct fixture *fixture, struct disk *disk, uint64_t seed, int steps) {
  static struct load load;
  load = (struct load){.disk = disk, .model = calloc(1, disk->caps.size_bytes)};
  prng_seed(&load.prng, seed);
  for (int i = 0; i < IO_COUNT; i++) {
    load.jobs[i].buffer = (struct buffer){
        .base = aligned_alloc(BUFFER_ALIGN, 68 * 1024 + BUFFER_ALIGN), .bytes = 68 * 1024 + BUFFER_ALIGN, .refs = 1};
  }
  for (int step = 0; step < steps || disk->in_flight > 0; step++) {
    struct job *job = &load.jobs[prng_below(&load.prng, IO_COUNT)];
    if (!job->busy && step < steps) job_submit(&load, job);
    if (prng_one_in(&load.prng, 4) || step >= steps) reactor_turn(fixture->reactor, NS_PER_MS);
  }
  /* Now all of it, through the disk, one block run at a time. */
  struct job *job = &load.jobs[0];
  for (uint64_t offset = 0; offset < disk->caps.size_bytes; offset += job->io.length) {
    disk_io_init(&job->io);
    job->io.op = DISK_READ;
    job->io.flags = 0;
    job->io.offset = offset;
    job->io.length = min_u64(65536, disk->caps.size_bytes - offset);
    job->io.buffer = &job->buffer;
    job->io.data = data_at(job, offset);
    job->expected = load.model + offset;
    job->busy = true;
    disk_submit(disk, &job->io);
    while (job->busy) reactor_turn(fixture->reactor, NS_PER_MS);
  }
  for (int i = 0; i < IO_COUNT; i++) free(load.jobs[i].buffer.base);
  free(load.model);
}

static void test_random_load(void **state) {
  static const struct {
    const char *why;
    uint64_t size;
    struct file_disk_options options;
  } rows[] = {
      {"whole pages", SIZE, {0}},
      {"a last half page", SIZE + 512, {0}},
      {"a part of the file: the rest stays as it is", SIZE + 8192, {.size_bytes = SIZE - 4096}},
      {"through the page cache", SIZE, {.no_direct = true}},
      {"more I/Os than slots: the rest waits in line", SIZE, {.io_count_max = 3}},
  };
  (void)state;
  for (size_t i = 0; i < COUNT_OF(rows) * COUNT_OF(places); i++) {
    const char *why = rows[i / 2].why;
    struct fixture fixture;
    struct disk *disk = disk_new(fixture_new(&fixture, places[i % 2]), rows[i / 2].size, rows[i / 2].options);
    load_run(&fixture, disk, i + 1, 4000);
    row_true(why, file_bytes(fixture.path) == rows[i / 2].size);
    disk_close(disk);
    fixture_free(&fixture);
  }
}

struct single {
  struct disk_io io;
  bool done;
};
static void single_done(struct disk_io *io) { CONTAINER_OF(io, struct single, io)->done = true; }

static tarn_err single_run(struct fixture *fixture, struct disk *disk, enum disk_op op, uint64_t offset,
                           uint64_t length, uint32_t flags, struct buffer *buffer) {
  struct single single = {.done = false};
  disk_io_init(&single.io);
  single.io.op = op;
  single.io.flags = flags;
  single.io.offset = offset;
  single.io.length = length;
  single.io.buffer = buffer;
  single.io.data = buffer ? buffer->base + offset % BUFFER_ALIGN : NULL;
  single.io.done = single_done;
  disk_submit(disk, &single.io);
  assert_false(single.done);
  while (!single.done) reactor_turn(fixture->reactor, NS_PER_MS);
  return single.io.err;
}

static uint64_t allocated_bytes(const char *path) {
  struct stat status;
  assert_int_equal(stat(path, &status), 0);
  return (uint64_t)status.st_blocks * 512;
}

static void test_holes_are_made_or_not_as_asked(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(places); i++) {
    struct fixture fixture;
    struct disk *disk = disk_new(fixture_new(&fixture, places[i]), SIZE, (struct file_disk_options){0});
    if (disk->caps.can_zero) {
      uint64_t before = allocated_bytes(fixture.path);
      assert_int_equal(single_run(&fixture, disk, DISK_WRITE_ZEROES, 0, 65536, DISK_NO_HOLE, NULL), TARN_OK);
      assert_true(allocated_bytes(fixture.path) >= before + 65536);
      assert_int_equal(single_run(&fixture, disk, DISK_TRIM, 0, 65536, DISK_FUA, NULL), TARN_OK);
      assert_true(allocated_bytes(fixture.path) <= before + 4096);
    }
    assert_int_equal(file_bytes(fixture.path), SIZE);
    disk_close(disk);
    fixture_free(&fixture);
  }
}

/* ---- where the data are ---- */

struct extents_run {
  struct disk_io io;
  bool done;
};
static void extents_are_done(struct disk_io *io) { CONTAINER_OF(io, struct extents_run, io)->done = true; }

static void extents_begin(struct disk *disk, struct extents_run *run, struct buffer *buffer, uint64_t offset,
                          uint64_t length) {
  *run = (struct extents_run){.io = {.op = DISK_EXTENTS, .offset = offset, .length = length}};
  disk_io_init(&run->io);
  run->io.buffer = buffer;
  run->io.data = buffer->base;
  run->io.done = extents_are_done;
  disk_submit(disk, &run->io);
}

/* Runs as text: "data 4096, hole 8192". */
static const char *extents_text(const struct extents_run *run) {
  static char text[8192];
  size_t used = 0;
  text[0] = 0;
  for (uint32_t i = 0; i < run->io.extent_count; i++) {
    const struct disk_extent *extent = &disk_extents(&run->io)[i];
    assert_true(extent->flags == 0 || extent->flags == (EXTENT_HOLE | EXTENT_ZERO));
    used += (size_t)snprintf(text + used, sizeof text - used, "%s%s %llu", i ? ", " : "",
                             extent->flags ? "hole" : "data", (unsigned long long)extent->length);
  }
  return text;
}

static void extents_wait(struct fixture *fixture, struct extents_run *run) {
  while (!run->done) reactor_turn(fixture->reactor, NS_PER_S);
}

static void test_extents(void **state) {
  (void)state;
  static const struct {
    const char *why;
    uint64_t offset, length;
    const char *runs;
  } rows[] = {
      {"all of it", 0, SIZE, "hole 65536, data 65536, hole 65536, data 4096, hole 847872"},
      {"within data", 70000, 1000, "data 1000"},
      {"within a hole, at any byte", 1, 65534, "hole 65534"},
      {"across an edge", 65535, 2, "hole 1, data 1"},
      {"up to the end", SIZE - 1, 1, "hole 1"},
  };
  for (size_t i = 0; i < COUNT_OF(places); i++) {
    struct fixture fixture;
    struct disk *disk = disk_new(fixture_new(&fixture, places[i]), SIZE, (struct file_disk_options){0});
    struct buffer buffer = {
        .base = aligned_alloc(BUFFER_ALIGN, 17 * BUFFER_ALIGN), .bytes = 17 * BUFFER_ALIGN, .refs = 1};
    struct extents_run runs[COUNT_OF(rows)];
    assert_true(disk->caps.can_extents);
    memset(buffer.base, 0x5a, buffer.bytes);
    assert_int_equal(single_run(&fixture, disk, DISK_WRITE, 65536, 65536, 0, &buffer), TARN_OK);
    assert_int_equal(single_run(&fixture, disk, DISK_WRITE, 196608, 4096, DISK_FUA, &buffer), TARN_OK);
    for (size_t k = 0; k < COUNT_OF(rows); k++) {
      extents_begin(disk, &runs[k], &buffer, rows[k].offset, rows[k].length);
      extents_wait(&fixture, &runs[k]);
      row_true(rows[k].why, runs[k].io.err == TARN_OK);
      row_true(rows[k].why, strcmp(extents_text(&runs[k]), rows[k].runs) == 0);
    }
    /* Several at once stand in line, and each is answered. */
    struct buffer *buffers[COUNT_OF(rows)];
    for (size_t k = 0; k < COUNT_OF(rows); k++) {
      buffers[k] = calloc(1, sizeof *buffers[k]);
      *buffers[k] =
          (struct buffer){.base = aligned_alloc(BUFFER_ALIGN, BUFFER_ALIGN), .bytes = BUFFER_ALIGN, .refs = 1};
      extents_begin(disk, &runs[k], buffers[k], rows[k].offset, rows[k].length);
    }
    for (size_t k = 0; k < COUNT_OF(rows); k++) {
      extents_wait(&fixture, &runs[k]);
      row_true(rows[k].why, strcmp(extents_text(&runs[k]), rows[k].runs) == 0);
      free(buffers[k]->base);
      free(buffers[k]);
    }
    /* What lies behind the end of a file that was made shorter is no hole. */
    assert_int_equal(truncate(fixture.path, SIZE / 2), 0);
    extents_begin(disk, &runs[0], &buffer, SIZE / 2, 4096);
    extents_wait(&fixture, &runs[0]);
    assert_int_equal(runs[0].io.err, TARN_IO);
    disk_close(disk);
    free(buffer.base);
    fixture_free(&fixture);
  }
}

/* A prefix is a good answer: of a file with more holes than there is room for, and of one so large that to look at all of it at
 * once would take too long. */
static void test_extents_are_bounded(void **state) {
  (void)state;
  struct fixture fixture;
  uint64_t size = 4ull << 40;
  struct disk *disk = disk_new(fixture_new(&fixture, "/tmp"), size, (struct file_disk_options){0});
  struct buffer buffer = {.base = aligned_alloc(BUFFER_ALIGN, 2 * BUFFER_ALIGN), .bytes = 2 * BUFFER_ALIGN, .refs = 1};
  struct extents_run run;
  memset(buffer.base, 0x5a, buffer.bytes);
  for (uint64_t i = 0; i < 200; i++)
    assert_int_equal(single_run(&fixture, disk, DISK_WRITE, i * 131072, 4096, 0, &buffer), TARN_OK);
  extents_begin(disk, &run, &buffer, 0, size);
  extents_wait(&fixture, &run);
  assert_int_equal(run.io.extent_count, DISK_EXTENTS_MAX);
  assert_int_equal(disk_extents_bytes(&run.io), 64 * 131072);
  extents_begin(disk, &run, &buffer, 1ull << 30, size - (1ull << 30));
  extents_wait(&fixture, &run);
  assert_int_equal(run.io.extent_count, 1); /* a single hole costs nothing, however long */
  assert_int_equal(disk_extents(&run.io)[0].length, size - (1ull << 30));
  disk_close(disk);
  free(buffer.base);
  fixture_free(&fixture);
}

/* A file that shrinks under us is an error of that I/O, and a read-only disk refuses before it tries. */
static void test_a_shrunken_file_fails_reads(void **state) {
  (void)state;
  for (size_t i = 0; i < COUNT_OF(places); i++) {
    struct fixture fixture;
    struct disk *disk = disk_new(fixture_new(&fixture, places[i]), SIZE, (struct file_disk_options){0});
    struct buffer buffer = {
        .base = aligned_alloc(BUFFER_ALIGN, 2 * BUFFER_ALIGN), .bytes = 2 * BUFFER_ALIGN, .refs = 1};
    assert_int_equal(single_run(&fixture, disk, DISK_READ, 8192, 4096, 0, &buffer), TARN_OK);
    assert_int_equal(truncate(fixture.path, 8192 + 1024), 0);
    assert_int_equal(single_run(&fixture, disk, DISK_READ, 8192, 4096, 0, &buffer), TARN_IO);
    assert_int_equal(single_run(&fixture, disk, DISK_READ, 65536, 4096, 0, &buffer), TARN_IO);
    disk_close(disk);
    struct file_disk_options options = {
        .reactor = fixture.reactor, .path = fixture.path, .size_bytes = 8192, .read_only = true};
    assert_int_equal(file_disk_open(&options, &disk, NULL, &fixture.why), TARN_OK);
    struct disk_io io = {.op = DISK_WRITE, .offset = 0, .length = 4096};
    assert_int_equal(disk_check(disk, &io), TARN_UNSUPPORTED);
    assert_false(disk->caps.can_zero);
    disk_close(disk);
    free(buffer.base);
    fixture_free(&fixture);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_refusals),
      cmocka_unit_test(test_create),
      cmocka_unit_test(test_a_file_in_use_is_refused_until_it_is_closed),
      cmocka_unit_test(test_identity),
      cmocka_unit_test(test_random_load),
      cmocka_unit_test(test_holes_are_made_or_not_as_asked),
      cmocka_unit_test(test_extents),
      cmocka_unit_test(test_extents_are_bounded),
      cmocka_unit_test(test_a_shrunken_file_fails_reads),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
