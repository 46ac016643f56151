/* Parts of one file for users that know nothing of each other: one descriptor, one lock, no range twice. */
#include "shell/file_share.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/syscall.h>

#include "shell/disk_space.h"
#include "unit.h"

#define MIB (1u << 20)

/* A file whose first block is bad, for whoever reads it. */
static bool first_block_is_bad;

ssize_t pread(int fd, void *to, size_t bytes, off_t offset) {
  if (!first_block_is_bad || offset != 0) return syscall(SYS_pread64, fd, to, bytes, offset);
  errno = EIO;
  return -1;
}

struct fixture {
  struct reactor *reactor;
  char folder[64], path[96], other[96];
};

static void fixture_init(struct fixture *fixture) {
  struct why why;
  fixture->reactor = reactor_create(&why);
  assert_non_null(fixture->reactor);
  strcpy(fixture->folder, "/tmp/tarn-test-XXXXXX");
  assert_non_null(mkdtemp(fixture->folder));
  snprintf(fixture->path, sizeof fixture->path, "%s/disk", fixture->folder);
  snprintf(fixture->other, sizeof fixture->other, "%s/link", fixture->folder);
  assert_int_equal(file_create(fixture->path, 16 * MIB, NULL), TARN_OK);
  assert_int_equal(link(fixture->path, fixture->other), 0);
}
static void fixture_free(struct fixture *fixture) {
  unlink(fixture->path);
  unlink(fixture->other);
  assert_int_equal(rmdir(fixture->folder), 0);
  reactor_destroy(fixture->reactor);
}

static bool is_locked(const char *path) {
  int fd = open(path, O_RDWR | O_CLOEXEC);
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  assert_true(fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0);
  close(fd);
  return lock.l_type != F_UNLCK;
}

static struct file_use *use_open(struct fixture *fixture, const char *path, uint64_t offset, uint64_t length) {
  struct file_use *use;
  struct why why = {""};
  if (file_share_open(fixture->reactor, path, offset, length, &use, &why) != TARN_OK) fail_msg("%s", why.text);
  return use;
}

static void one_descriptor_for_all(void **state) {
  (void)state;
  struct fixture fixture;
  struct file_identity identity;
  fixture_init(&fixture);
  assert_int_equal(file_inspect(fixture.path, &identity, NULL), TARN_OK);
  assert_false(file_share_has(&identity));
  struct file_use *a = use_open(&fixture, fixture.path, 0, MIB);
  struct file_use *b = use_open(&fixture, fixture.other, MIB, MIB); /* another name of the same file */
  assert_ptr_equal(file_use_disk(a), file_use_disk(b));
  assert_int_equal(file_use_disk(a)->caps.size_bytes, 16 * MIB);
  assert_true(file_share_has(&identity));
  assert_true(is_locked(fixture.path));
  file_share_close(a);
  assert_true(is_locked(fixture.path)); /* while there is a user */
  file_share_close(b);
  assert_false(is_locked(fixture.path));
  assert_false(file_share_has(&identity));
  fixture_free(&fixture);
}

static void no_range_twice(void **state) {
  (void)state;
  static const struct {
    const char *why;
    uint64_t offset, length;
    tarn_err err;
  } rows[] = {
      {"the same", MIB, MIB, TARN_FULL},
      {"the last byte before", 0, MIB + 1, TARN_FULL},
      {"the last byte of it", 2 * MIB - 1, MIB, TARN_FULL},
      {"inside", MIB + 4096, 4096, TARN_FULL},
      {"around", 0, 16 * MIB, TARN_FULL},
      {"right before", 0, MIB, TARN_OK},
      {"right behind", 2 * MIB, 14 * MIB, TARN_OK},
      {"over the end", 2 * MIB, 14 * MIB + 1, TARN_INVALID},
      {"behind the end", 17 * MIB, 1, TARN_INVALID},
  };
  struct fixture fixture;
  fixture_init(&fixture);
  struct file_use *used = use_open(&fixture, fixture.path, MIB, MIB), *use;
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct why why = {""};
    tarn_err err = file_share_open(fixture.reactor, fixture.other, rows[i].offset, rows[i].length, &use, &why);
    row_true(rows[i].why, err == rows[i].err);
    row_true(rows[i].why, (err == TARN_OK) == (use != NULL));
    row_true(rows[i].why, err == TARN_OK || strstr(why.text, fixture.other)); /* by the name that was asked for */
    if (use) file_share_close(use);
  }
  file_share_close(used);
  used = use_open(&fixture, fixture.path, MIB, MIB); /* a range that was given back is free */
  file_share_close(used);
  fixture_free(&fixture);
}

static void what_cannot_be_opened(void **state) {
  (void)state;
  struct fixture fixture;
  struct file_use *use;
  fixture_init(&fixture);
  int fd = open(fixture.path, O_RDWR | O_CLOEXEC);
  struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
  assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
  assert_int_equal(file_share_open(fixture.reactor, fixture.path, 0, MIB, &use, NULL), TARN_FULL);
  close(fd);
  file_share_close(use_open(&fixture, fixture.path, 0, MIB)); /* the failure has left nothing behind */
  assert_int_equal(file_share_open(fixture.reactor, "/nonexistent/x", 0, MIB, &use, NULL), TARN_NOT_FOUND);
  fixture_free(&fixture);
}

/* The file at the path is another one now, while somebody has the old one open. */
static void a_replaced_file_is_not_shared(void **state) {
  (void)state;
  struct fixture fixture;
  fixture_init(&fixture);
  struct file_use *old = use_open(&fixture, fixture.path, 0, MIB);
  unlink(fixture.path);
  assert_int_equal(file_create(fixture.path, 16 * MIB, NULL), TARN_OK);
  struct file_use *new = use_open(&fixture, fixture.path, 0, MIB);
  assert_ptr_not_equal(file_use_disk(old), file_use_disk(new));
  file_share_close(old);
  file_share_close(new);
  fixture_free(&fixture);
}

/* Nobody can read the first block, whoever opens the file: bad blocks are the mirror's business, and keep nobody away. */
static void a_bad_block_is_no_death(void **state) {
  (void)state;
  struct fixture fixture;
  fixture_init(&fixture);
  struct file_use *a = use_open(&fixture, fixture.path, 0, MIB);
  first_block_is_bad = true;
  struct file_use *b = use_open(&fixture, fixture.path, MIB, MIB);
  first_block_is_bad = false;
  assert_ptr_equal(file_use_disk(a), file_use_disk(b));
  file_share_close(a);
  file_share_close(b);
  fixture_free(&fixture);
}

/* A file that cannot be read any more (here: it is empty) stays with who has it; who comes opens it anew. */
static void a_dead_file_is_not_shared(void **state) {
  (void)state;
  struct fixture fixture;
  struct file_use *use;
  struct why why = {""};
  fixture_init(&fixture);
  struct file_use *old = use_open(&fixture, fixture.path, 0, MIB);
  assert_int_equal(truncate(fixture.path, 0), 0);
  assert_int_not_equal(file_share_open(fixture.reactor, fixture.path, MIB, MIB, &use, &why), TARN_OK);
  struct disk *disk = file_use_disk(old);
  assert_int_equal(truncate(fixture.path, 16 * MIB), 0);
  file_share_close(old);
  use = use_open(&fixture, fixture.path, MIB, MIB);
  assert_true(disk != NULL);
  file_share_close(use);
  fixture_free(&fixture);
}

#define THREADS 6u
struct contender {
  struct fixture *fixture;
  uint64_t offset;
  pthread_t thread;
  uint32_t failures;
};
static void *contend(void *context) {
  struct contender *contender = context;
  for (uint32_t i = 0; i < 200; i++) {
    struct file_use *use;
    if (file_share_open(contender->fixture->reactor, contender->fixture->path, contender->offset, MIB, &use, NULL))
      contender->failures++;
    else file_share_close(use);
  }
  return NULL;
}

static void many_at_once(void **state) {
  (void)state;
  struct fixture fixture;
  struct contender contenders[THREADS];
  fixture_init(&fixture);
  for (uint32_t i = 0; i < THREADS; i++) {
    contenders[i] = (struct contender){.fixture = &fixture, .offset = i * MIB};
    assert_int_equal(pthread_create(&contenders[i].thread, NULL, contend, &contenders[i]), 0);
  }
  for (uint32_t i = 0; i < THREADS; i++) {
    pthread_join(contenders[i].thread, NULL);
    assert_int_equal(contenders[i].failures, 0);
  }
  for (uint32_t turn = 0; is_locked(fixture.path) && turn < 60000; turn++)
    usleep(1000); /* a close has some patience only */
  assert_false(is_locked(fixture.path));
  fixture_free(&fixture);
}

/* ---- disk_space.h ---- */

static void spaces(void **state) {
  (void)state;
  const struct file_identity a = {.device = 1, .inode = 2}, b = {.device = 1, .inode = 3},
                             c = {.device = 2, .inode = 2};
  static const struct {
    const char *why;
    int other;
    uint64_t offset, length;
    bool overlap;
  } rows[] = {{"itself", 0, 4096, 8192, true},        {"the whole", 0, 0, 0, true},
              {"its first byte", 0, 0, 4097, true},   {"up to it", 0, 0, 4096, false},
              {"its last byte", 0, 12287, 1, true},   {"from its end on", 0, 12288, 0, false},
              {"another file", 1, 4096, 8192, false}, {"another device", 2, 4096, 8192, false}};
  struct disk_space x, y;
  disk_space_of(&a, 4096, 8192, &x);
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    disk_space_of(rows[i].other == 0 ? &a : rows[i].other == 1 ? &b : &c, rows[i].offset, rows[i].length, &y);
    row_true(rows[i].why, disk_space_overlap(&x, &y) == rows[i].overlap);
    row_true(rows[i].why, disk_space_overlap(&y, &x) == rows[i].overlap);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(one_descriptor_for_all),
      cmocka_unit_test(no_range_twice),
      cmocka_unit_test(what_cannot_be_opened),
      cmocka_unit_test(a_replaced_file_is_not_shared),
      cmocka_unit_test(a_bad_block_is_no_death),
      cmocka_unit_test(a_dead_file_is_not_shared),
      cmocka_unit_test(many_at_once),
      cmocka_unit_test(spaces),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
