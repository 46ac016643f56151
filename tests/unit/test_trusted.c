/* src/shell/trusted.h, in folders of our own: what a stranger may do is told by modes and owners, which root can set. */
#include "shell/trusted.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "unit.h"

#define STRANGER 65534

static char root[64];

static const char *at(const char *name) {
  static char paths[4][128];
  static int turn;
  char *path = paths[turn = (turn + 1) % 4];
  snprintf(path, sizeof paths[0], "%s/%s", root, name);
  return path;
}

static void file_new(const char *name) {
  int fd = open(at(name), O_RDWR | O_CREAT | O_EXCL, 0600);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, "x", 1), 1);
  close(fd);
}

static int set_up(void **state) {
  (void)state;
  strcpy(root, "/tmp/tarn_trusted.XXXXXX");
  if (!mkdtemp(root)) return 1;
  const char *const folders[] = {"ours", "theirs", "shared", "sticky", "ours/in"};
  for (size_t i = 0; i < COUNT_OF(folders); i++)
    if (mkdir(at(folders[i]), 0755) != 0) return 1;
  if (chmod(at("shared"), 0775) != 0 || chmod(at("sticky"), 01777) != 0) return 1;
  const char *const files[] = {"ours/file", "theirs/file", "shared/file", "sticky/file", "ours/in/file"};
  for (size_t i = 0; i < COUNT_OF(files); i++) file_new(files[i]);
  return chown(at("theirs"), STRANGER, STRANGER);
}

static int tear_down(void **state) {
  (void)state;
  char command[128];
  snprintf(command, sizeof command, "rm -r %s", root);
  return system(command);
}

static tarn_err try_open(const char *path, int flags, enum trusted whose, struct why *why) {
  int fd;
  tarn_err err = trusted_open(path, flags, whose, &fd, why);
  assert_int_equal(err == TARN_OK, fd >= 0);
  if (fd >= 0) close(fd);
  return err;
}

static void links(void **state) {
  (void)state;
  static const struct {
    const char *why, *target, *link, *path;
    uid_t owner;
    tarn_err err;
  } rows[] = {
      {"in a folder of our own", "file", "ours/link", "ours/link", 0, TARN_OK},
      {"whoever owns the link there", "file", "ours/link", "ours/link", STRANGER, TARN_OK},
      {"in a folder of somebody else's", "../ours/file", "theirs/link", "theirs/link", 0, TARN_REFUSED},
      {"in a folder that a group may write to", "../ours/file", "shared/link", "shared/link", 0, TARN_REFUSED},
      {"our own in a sticky folder", "../ours/file", "sticky/link", "sticky/link", 0, TARN_OK},
      {"a stranger's in a sticky folder", "../ours/file", "sticky/link", "sticky/link", STRANGER, TARN_REFUSED},
      {"to a folder, on the way", "../ours", "theirs/link", "theirs/link/in/file", 0, TARN_REFUSED},
      {"to a folder, on the way, in ours", "in", "ours/link", "ours/link/file", 0, TARN_OK},
      {"back and forth", "../ours/in/../in", "ours/link", "ours/link/../in/file", 0, TARN_OK},
      {"from ours into theirs, to a file", "../theirs/file", "ours/link", "ours/link", 0, TARN_OK},
      {"to nowhere", "nowhere", "ours/link", "ours/link", 0, TARN_NOT_FOUND},
      {"to itself", "link", "ours/link", "ours/link", 0, TARN_IO},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct why why;
    struct statx status;
    assert_int_equal(symlink(rows[i].target, at(rows[i].link)), 0);
    assert_int_equal(lchown(at(rows[i].link), rows[i].owner, rows[i].owner), 0);
    errno = EPERM; /* of something before */
    tarn_err err = try_open(at(rows[i].path), O_RDWR, TRUSTED_DATA, &why);
    if (err == TARN_IO) assert_int_equal(errno, ELOOP);
    tarn_err look = trusted_look(at(rows[i].path), &status, &why);
    if (err != rows[i].err || look != rows[i].err) fail_msg("%s: %d, %d: %s", rows[i].why, err, look, why.text);
    if (err == TARN_REFUSED)
      assert_non_null(strstr(why.text, "'link' is a symbolic link in a folder that others may write to"));
    assert_int_equal(unlink(at(rows[i].link)), 0);
  }
}

/* A link of an absolute path, and one that leads on. */
static void far_links(void **state) {
  (void)state;
  struct why why;
  assert_int_equal(symlink(at("ours/in"), at("ours/absolute")), 0);
  assert_int_equal(symlink("absolute/file", at("ours/second")), 0);
  assert_int_equal(try_open(at("ours/second"), O_RDONLY, TRUSTED_DATA, &why), TARN_OK);
  assert_int_equal(symlink(at("ours/in"), at("theirs/absolute")), 0);
  assert_int_equal(symlink("../theirs/absolute/file", at("ours/third")), 0);
  assert_int_equal(try_open(at("ours/third"), O_RDONLY, TRUSTED_DATA, &why), TARN_REFUSED);
}

static void make_pipe(const char *path) { assert_int_equal(mkfifo(path, 0600), 0); }
static void make_folder(const char *path) { assert_int_equal(mkdir(path, 0700), 0); }
static void make_device(const char *path) { assert_int_equal(mknod(path, S_IFCHR | 0600, 0x103), 0); }
static void make_socket(const char *path) {
  struct sockaddr_un name = {.sun_family = AF_UNIX};
  int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  strcpy(name.sun_path, path);
  assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof name), 0);
  close(fd);
}

/* What is no file is not opened, and nobody waits for it. */
static void kinds(void **state) {
  (void)state;
  static const struct {
    const char *says;
    void (*make)(const char *path);
  } rows[] = {{"is a pipe", make_pipe},
              {"is a directory", make_folder},
              {"is a character device", make_device},
              {"is a socket", make_socket}};
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct why why;
    rows[i].make(at("ours/thing"));
    assert_int_equal(try_open(at("ours/thing"), O_RDONLY, TRUSTED_DATA, &why), TARN_INVALID);
    assert_non_null(strstr(why.text, rows[i].says));
    assert_int_equal(remove(at("ours/thing")), 0);
  }
}

static void own(void **state) {
  (void)state;
  static const struct {
    const char *says;
    uid_t owner;
    mode_t mode;
    bool linked;
  } rows[] = {{NULL, 0, 0600, false},
              {NULL, 0, 0644, false},
              {"belongs to another user (65534)", STRANGER, 0600, false},
              {"others may write", 0, 0620, false},
              {"others may write", 0, 0602, false},
              {"has other names", 0, 0600, true}};
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct why why;
    file_new("ours/mine");
    assert_int_equal(chown(at("ours/mine"), rows[i].owner, rows[i].owner), 0);
    assert_int_equal(chmod(at("ours/mine"), rows[i].mode), 0);
    if (rows[i].linked) assert_int_equal(link(at("ours/mine"), at("theirs/mine")), 0);
    assert_int_equal(try_open(at("ours/mine"), O_RDWR, TRUSTED_DATA, &why), TARN_OK);
    assert_int_equal(try_open(at("ours/mine"), O_RDWR, TRUSTED_OWN, &why), rows[i].says ? TARN_REFUSED : TARN_OK);
    if (rows[i].says) assert_non_null(strstr(why.text, rows[i].says));
    assert_int_equal(unlink(at("ours/mine")), 0);
    if (rows[i].linked) assert_int_equal(unlink(at("theirs/mine")), 0);
  }
}

static void making(void **state) {
  (void)state;
  struct why why;
  const int flags = O_RDWR | O_CREAT | O_EXCL;
  struct statx status;
  mode_t mask = umask(0);
  assert_int_equal(try_open(at("ours/new"), flags, TRUSTED_OWN, &why), TARN_OK);
  umask(mask);
  assert_int_equal(trusted_look(at("ours/new"), &status, &why), TARN_OK);
  assert_int_equal(status.stx_mode & 07777, 0600);
  assert_int_equal(try_open(at("ours/new"), flags, TRUSTED_OWN, &why), TARN_EXISTS);
  assert_int_equal(try_open(at("ours/none/new"), flags, TRUSTED_OWN, &why), TARN_NOT_FOUND);
  assert_int_equal(symlink(at("ours"), at("theirs/way")), 0);
  assert_int_equal(try_open(at("theirs/way/newer"), flags, TRUSTED_OWN, &why), TARN_REFUSED);
  assert_int_equal(access(at("ours/newer"), F_OK), -1);
  assert_int_equal(trusted_remove(at("theirs/way/file"), &why), TARN_REFUSED);
  assert_int_equal(access(at("ours/file"), F_OK), 0);
  assert_int_equal(trusted_remove(at("theirs/way"), &why), TARN_OK); /* the link itself */
  assert_int_equal(trusted_remove(at("ours/new"), &why), TARN_OK);
  assert_int_equal(trusted_remove(at("ours/new"), &why), TARN_NOT_FOUND);
  assert_int_equal(trusted_remove(at("ours/in"), &why), TARN_INVALID);
}

static void folders(void **state) {
  (void)state;
  struct why why;
  assert_int_equal(trusted_folder(at("ours/in"), &why), TARN_OK);
  assert_int_equal(trusted_folder(at("theirs"), &why), TARN_REFUSED);
  assert_non_null(strstr(why.text, "/theirs, or a folder on the way")); /* as it was given */
  assert_non_null(strstr(why.text, "another user (65534)"));
  assert_int_equal(trusted_folder(at("sticky"), &why), TARN_REFUSED);
  assert_non_null(strstr(why.text, "everybody may write"));
  assert_int_equal(mkdir(at("sticky/in"), 0700), 0);
  assert_int_equal(trusted_folder(at("sticky/in"), &why), TARN_OK);
  assert_int_equal(mkdir(at("theirs/in"), 0700), 0); /* they may put another one in its place */
  assert_int_equal(trusted_folder(at("theirs/in"), &why), TARN_REFUSED);
  assert_int_equal(symlink("../theirs/in", at("ours/way")), 0);
  assert_int_equal(trusted_folder(at("ours/way"), &why), TARN_REFUSED);
  assert_int_equal(trusted_folder("/", &why), TARN_OK);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(links, set_up, tear_down),
      cmocka_unit_test_setup_teardown(far_links, set_up, tear_down),
      cmocka_unit_test_setup_teardown(kinds, set_up, tear_down),
      cmocka_unit_test_setup_teardown(own, set_up, tear_down),
      cmocka_unit_test_setup_teardown(making, set_up, tear_down),
      cmocka_unit_test_setup_teardown(folders, set_up, tear_down),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
