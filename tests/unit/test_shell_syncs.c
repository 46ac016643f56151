/* file_disk.h: a sync that fails is told to all whom it may concern. Linux tells a lost write-back once to an open file, and here one
 * open file has the I/O of many: so fdatasync() is ours in this program, and tells it as the kernel does. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shell/data_disk.h"
#include "shell/file_share.h"
#include "shell/stamp.h"
#include "unit.h"

#define HALF (1u << 20)

/* ---- the kernel: calls wait, by the order in which they come, until they are told how they end ---- */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int came, results[16];
#define WAITS (-1)

static int always; /* an error of each call, at once */

int fdatasync(int fd) {
  (void)fd;
  if (always) {
    errno = always;
    return -1;
  }
  pthread_mutex_lock(&mutex);
  int mine = came++;
  while (results[mine] == WAITS) pthread_cond_wait(&changed, &mutex);
  int error = results[mine];
  pthread_mutex_unlock(&mutex);
  errno = error;
  return error ? -1 : 0;
}

static int fsyncs;
static off_t synced_at; /* where the open file stood: each has a place of its own */

int fsync(int fd) {
  fsyncs++;
  synced_at = lseek(fd, 0, SEEK_CUR);
  return 0;
}

static void kernel_reset(void) {
  came = 0;
  for (size_t i = 0; i < COUNT_OF(results); i++) results[i] = WAITS;
}

static int calls(void) {
  pthread_mutex_lock(&mutex);
  int count = came;
  pthread_mutex_unlock(&mutex);
  return count;
}

static void call_end(int which, int error) {
  pthread_mutex_lock(&mutex);
  results[which] = error;
  pthread_cond_broadcast(&changed);
  pthread_mutex_unlock(&mutex);
}

/* ---- two users of one file ---- */

static struct reactor *reactor;
static char path[] = "/tmp/tarn-test-syncs-XXXXXX";
static struct file_use *uses[3];
static struct why why;

static int setup(void **state) {
  (void)state;
  kernel_reset();
  strcpy(path, "/tmp/tarn-test-syncs-XXXXXX");
  int fd = mkstemp(path);
  reactor = reactor_create(&why);
  if (fd < 0 || !reactor || ftruncate(fd, 3 * HALF) != 0) return -1;
  close(fd);
  for (uint32_t i = 0; i < 2; i++)
    if (file_share_open(reactor, path, i * HALF, HALF, &uses[i], &why) != TARN_OK) return -1;
  /* As on a file system that is not known to obey RWF_DSYNC. */
  ((struct file_identity *)(uintptr_t)file_disk_identity(file_use_disk(uses[0])))->keeps_dsync = false;
  return 0;
}

static int teardown(void **state) {
  (void)state;
  file_share_close(uses[0]);
  file_share_close(uses[1]);
  reactor_destroy(reactor);
  return unlink(path);
}

struct io {
  struct disk_io io;
  struct buffer buffer;
  bool done;
};
static void io_done(struct disk_io *io) { CONTAINER_OF(io, struct io, io)->done = true; }

static void io_start(struct io *io, uint32_t user, enum disk_op op) {
  static _Alignas(4096) uint8_t block[8192];
  *io = (struct io){.io = {.op = op, .offset = user * HALF, .done = io_done},
                    .buffer = {.base = block, .bytes = sizeof block, .refs = 1}};
  disk_io_init(&io->io);
  io->io.user = &file_use_user(uses[user])->user;
  if (op == DISK_WRITE) {
    io->io.flags = DISK_FUA;
    io->io.length = 4096;
    io->io.buffer = &io->buffer;
    io->io.data = block;
  }
  disk_submit(file_use_disk(uses[user]), &io->io);
}

static void turn_until_calls(int count) {
  while (calls() < count) reactor_turn(reactor, NS_PER_MS);
}

static tarn_err io_end(struct io *io) {
  while (!io->done) reactor_turn(reactor, NS_PER_MS);
  return io->io.err;
}

/* Alone, and the kernel says so much of it. */
static tarn_err run(uint32_t user, enum disk_op op, int error) {
  struct io io;
  int which = calls();
  call_end(which, error);
  io_start(&io, user, op);
  return io_end(&io);
}

static void of_two_under_way_both_fail(void **state) {
  (void)state;
  static const struct {
    const char *why;
    enum disk_op first, second;
    int first_error, second_error;
  } rows[] = {
      {"two flushes, and the first is told", DISK_FLUSH, DISK_FLUSH, EIO, 0},
      {"two flushes, and the second is told", DISK_FLUSH, DISK_FLUSH, 0, EIO},
      {"a FUA beside a flush, which is told", DISK_WRITE, DISK_FLUSH, 0, EIO},
      {"a flush beside a FUA, which is told", DISK_WRITE, DISK_FLUSH, EIO, 0},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    for (uint32_t other = 0; other < 2; other++) { /* of one user, and of two */
      struct io first, second;
      int which = calls();
      io_start(&first, 0, rows[i].first);
      turn_until_calls(which + 1);
      io_start(&second, other, rows[i].second);
      turn_until_calls(which + 2);
      bool first_told =
          rows[i].first_error != 0; /* the one that is told comes back first: the other waited for the same writes */
      call_end(which + !first_told, EIO);
      row_true(rows[i].why, io_end(first_told ? &first : &second) == TARN_IO);
      call_end(which + first_told, 0);
      row_true(rows[i].why, io_end(first_told ? &second : &first) == TARN_IO);
      kernel_reset();
      (void)run(0, DISK_FLUSH, 0); /* whoever has still to be told is */
      (void)run(1, DISK_FLUSH, 0);
    }
  }
}

/* `io` may have been answered by now: many turns have gone by. */
static bool is_answered(const struct io *io) {
  for (uint32_t turns = 0; turns < 100 && !io->done; turns++) reactor_turn(reactor, NS_PER_MS);
  return io->done;
}

/* Who has taken the error may come back later than who was told nothing: a thread was slow, or the call had more to do. */
static void one_that_ends_before_the_one_that_is_told_fails(void **state) {
  (void)state;
  static const struct {
    const char *why;
    enum disk_op told, other;
    int error;
  } rows[] = {
      {"a flush beside a flush that is told", DISK_FLUSH, DISK_FLUSH, EIO},
      {"a flush beside a FUA that is told", DISK_WRITE, DISK_FLUSH, EIO},
      {"a FUA beside a flush that is told", DISK_FLUSH, DISK_WRITE, EIO},
      {"a FUA beside a FUA that is told", DISK_WRITE, DISK_WRITE, EIO},
      {"a flush beside one that is good, too", DISK_FLUSH, DISK_FLUSH, 0},
      {"a FUA beside one that is good, too", DISK_WRITE, DISK_WRITE, 0},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    for (uint32_t user = 0; user < 2; user++) { /* of one user, and of two */
      struct io told, other;
      tarn_err err = rows[i].error ? TARN_IO : TARN_OK;
      kernel_reset();
      io_start(&told, 0, rows[i].told);
      turn_until_calls(1);
      io_start(&other, user, rows[i].other);
      turn_until_calls(2);
      call_end(1, 0);
      row_true(rows[i].why, !is_answered(&other));
      row_true(rows[i].why,
               disk_io_line(&other.io) == NULL); /* what it waits for is with the kernel: it may be a hang */
      call_end(0, rows[i].error);
      row_true(rows[i].why, io_end(&told) == err);
      row_true(rows[i].why, io_end(&other) == err);
      (void)run(0, DISK_FLUSH, 0);
      (void)run(1, DISK_FLUSH, 0);
    }
  }
}

/* What began when it had ended cannot have been told of its writes; and those that wait do not wait for each other. */
static void who_waits_does_so_for_older_ones_only(void **state) {
  (void)state;
  struct io ios[4];
  for (uint32_t i = 0; i < 3; i++) {
    io_start(&ios[i], i % 2, DISK_FLUSH);
    turn_until_calls((int)i + 1);
  }
  call_end(1, 0);
  call_end(2, 0);
  assert_false(is_answered(&ios[1]) || is_answered(&ios[2]));
  io_start(&ios[3], 1, DISK_FLUSH);
  turn_until_calls(4);
  call_end(0, 0);
  assert_int_equal(io_end(&ios[1]), TARN_OK);
  assert_int_equal(io_end(&ios[2]), TARN_OK);
  assert_false(is_answered(&ios[0]) || is_answered(&ios[3])); /* these two were under way together */
  call_end(3, 0);
  assert_int_equal(io_end(&ios[0]), TARN_OK);
  assert_int_equal(io_end(&ios[3]), TARN_OK);
}

static void each_user_is_told_once(void **state) {
  (void)state;
  assert_int_equal(run(0, DISK_FLUSH, EIO), TARN_IO);
  assert_int_equal(run(0, DISK_FLUSH, 0), TARN_OK);
  assert_int_equal(run(1, DISK_WRITE, 0), TARN_OK); /* what was begun after it cannot be lost by it */
  assert_int_equal(run(1, DISK_FLUSH, 0), TARN_IO);
  assert_int_equal(run(1, DISK_FLUSH, 0), TARN_OK);
  assert_int_equal(run(1, DISK_WRITE, EIO), TARN_IO); /* a FUA that is told instead of them */
  assert_int_equal(run(1, DISK_FLUSH, 0), TARN_IO);
  assert_int_equal(run(0, DISK_FLUSH, 0), TARN_IO);
  assert_int_equal(run(0, DISK_FLUSH, 0), TARN_OK);
  assert_int_equal(run(1, DISK_FLUSH, 0), TARN_OK);
}

static void who_comes_later_has_lost_nothing(void **state) {
  (void)state;
  assert_int_equal(run(0, DISK_FLUSH, EIO), TARN_IO);
  assert_int_equal(file_share_open(reactor, path, 2 * HALF, HALF, &uses[2], &why), TARN_OK);
  assert_int_equal(run(2, DISK_FLUSH, 0), TARN_OK);
  assert_int_equal(run(1, DISK_FLUSH, 0), TARN_IO);
  file_share_close(uses[2]);
}

/* As a FUSE server may say for ever: that is an error then, and no I/O that begins again and again. */
static void again_and_again_is_an_error(void **state) {
  (void)state;
  static const int errors[] = {EAGAIN, EINTR};
  for (size_t i = 0; i < COUNT_OF(errors); i++) {
    struct io io;
    always = errors[i];
    io_start(&io, 0, DISK_FLUSH);
    for (uint32_t turns = 0; turns < 10000 && !io.done; turns++) reactor_turn(reactor, NS_PER_MS);
    assert_true(io.done);
    assert_int_equal(io.io.err, TARN_IO);
    always = 0;
  }
}

static bool stamped;
static struct image_stamp stamp;
static void stamp_done(struct stamping *stamping) {
  stamp = stamping->stamp;
  stamped = true;
}

static void stamp_take(const struct image_disks *disks) {
  static struct mirror_file file = {.volume_count = 1};
  struct list stampings;
  list_init(&stampings);
  fsyncs = 0;
  stamped = false;
  assert_true(stamping_start(reactor, disks, &file, &(struct stamping){.done = stamp_done}, &stampings));
  while (!stamped) reactor_turn(reactor, NS_PER_MS);
}

/* When a file was changed that others use too says nothing of our part: it is not synced for that. */
static void a_stamp_is_told_nothing(void **state) {
  (void)state;
  struct image_disks disks = {.has_data = false};
  bool has_data;
  assert_int_equal(data_disk_open_part(reactor, path, 2 * HALF, HALF, HALF, &disks.data[0], &has_data, &why), TARN_OK);
  stamp_take(&disks);
  assert_true(stamp.identity != 0 && stamp.modified == 0);
  assert_int_equal(fsyncs, 0);
  image_disks_close(&disks);
}

/* At an activation after a crash it is the first sync, and would hear alone what write-back has lost of the process before. So the open
 * file that has the disk's I/O is told by the disk's own syncs only. */
static void a_stamp_leaves_it_to_the_flush_to_be_told(void **state) {
  (void)state;
  struct image_disks disks = {.has_data = false};
  struct data_file files[DISK_PARTS_MAX];
  char alone[] = "/tmp/tarn-test-syncs-XXXXXX";
  bool has_data;
  int fd = mkstemp(alone);
  assert_true(fd >= 0 && ftruncate(fd, HALF) == 0);
  close(fd);
  assert_int_equal(data_disk_open(reactor, alone, HALF, &disks.data[0], &has_data, &why), TARN_OK);
  assert_int_equal(data_disk_files(disks.data[0], files), 1);
  assert_int_equal(lseek(file_disk_fd(files[0].file), 512, SEEK_SET), 512);
  stamp_take(&disks);
  assert_true(stamp.identity != 0 && stamp.modified != 0);
  assert_int_equal(fsyncs, 1);
  assert_int_equal(synced_at, 0);
  image_disks_close(&disks);
  unlink(alone);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(of_two_under_way_both_fail, setup, teardown),
      cmocka_unit_test_setup_teardown(one_that_ends_before_the_one_that_is_told_fails, setup, teardown),
      cmocka_unit_test_setup_teardown(who_waits_does_so_for_older_ones_only, setup, teardown),
      cmocka_unit_test_setup_teardown(each_user_is_told_once, setup, teardown),
      cmocka_unit_test_setup_teardown(who_comes_later_has_lost_nothing, setup, teardown),
      cmocka_unit_test_setup_teardown(again_and_again_is_an_error, setup, teardown),
      cmocka_unit_test_setup_teardown(a_stamp_is_told_nothing, setup, teardown),
      cmocka_unit_test_setup_teardown(a_stamp_leaves_it_to_the_flush_to_be_told, setup, teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
