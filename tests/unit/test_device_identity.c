/* src/shell/device_identity.h: what is read of a fake /sys and /run/udev, and how two identities are compared. */
#include "shell/device_identity.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "unit.h"

static char root[64];

/* Writes root/path, and makes its folders. */
static void put(const char *path, const char *text) {
  char full[512];
  (void)snprintf(full, sizeof full, "%s/%s", root, path);
  for (char *slash = full + strlen(root) + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
    *slash = 0;
    (void)mkdir(full, 0700);
    *slash = '/';
  }
  FILE *file = fopen(full, "w");
  assert_non_null(file);
  (void)fputs(text, file);
  assert_int_equal(fclose(file), 0);
}

/* sysfs has a link from the number to the device's folder; ../ of a partition is its disk's. */
static void device(const char *number, const char *folder) {
  char target[256], link[256];
  (void)snprintf(link, sizeof link, "%s/sys/dev/block/%s", root, number);
  (void)snprintf(target, sizeof target, "../../devices/%s", folder);
  put("sys/dev/block/.keep", "");
  assert_int_equal(symlink(target, link), 0);
}

static int set_up(void **state) {
  (void)state;
  strcpy(root, "/tmp/tarn_identity.XXXXXX");
  if (!mkdtemp(root)) return 1;
  put("sys/devices/scsi/sdb/device/wwid", "naa.5000c500a1b2c3d4\n");
  put("sys/devices/scsi/sdb/sdb1/partition", "1\n");
  put("sys/devices/scsi/sdb/sdb1/uevent", "DEVNAME=sdb1\nPARTUUID=6b0f-1\n");
  put("sys/devices/scsi/sdc/device/wwid", "naa.5000c500ffffffff\n");
  put("sys/devices/scsi/sdc/sdc1/partition", "1\n");
  put("sys/devices/scsi/sdc/sdc1/uevent", "DEVNAME=sdc1\nPARTUUID=6b0f-1\n"); /* a copy of sdb, byte by byte */
  put("sys/devices/pci/nvme0n1/wwid", "eui.0025385b71b00001\n");
  for (unsigned n = 1; n <= 2; n++) { /* namespaces of one controller, which has one serial */
    char path[64], text[32];
    (void)snprintf(path, sizeof path, "sys/devices/pci/nvme1n%u/device/serial", n);
    put(path, "S7\n");
    (void)snprintf(path, sizeof path, "sys/devices/pci/nvme1n%u/nsid", n);
    (void)snprintf(text, sizeof text, "%u\n", n);
    put(path, text);
    (void)snprintf(path, sizeof path, "sys/devices/pci/nvme1n%u/wwid", n);
    (void)snprintf(text, sizeof text, "uuid.1234-%u\n", n);
    put(path, text);
  }
  put("sys/devices/virtio/vda/serial", "  disk-7 \n");
  put("sys/devices/virtio/vdb/size", "8\n");
  put("sys/devices/virtual/dm-0/dm/uuid", "LVM-abc\n");
  put("sys/devices/virtual/loop0/loop/backing_file", "/x.img\n");
  put("sys/devices/virtual/loop0/loop/offset", "0\n");
  put("sys/devices/virtual/loop1/loop/backing_file", "/x.img\n");
  put("sys/devices/virtual/loop1/loop/offset", "4096\n");
  put("sys/devices/virtual/loop2/loop/backing_file", "/gone.img (deleted)\n");
  put("x.img", "");
  put("run/udev/data/b8:16",
      "S:disk/by-id/wwn-0x5000c500a1b2c3d4\nS:disk/by-path/pci-1\nS:disk/by-id/ata-DISK_7\nE:ID_SERIAL=DISK_7\n"
      "E:ID_WWN=0x5000c500a1b2c3d4\n");
  put("run/udev/data/b9:0", "E:MD_UUID=1:2:3:4\n");
  device("8:16", "scsi/sdb");
  device("8:17", "scsi/sdb/sdb1");
  device("8:32", "scsi/sdc");
  device("8:33", "scsi/sdc/sdc1");
  device("259:0", "pci/nvme0n1");
  device("259:1", "pci/nvme1n1");
  device("259:2", "pci/nvme1n2");
  device("252:0", "virtio/vda");
  device("252:16", "virtio/vdb");
  device("253:0", "virtual/dm-0");
  device("7:0", "virtual/loop0");
  device("7:1", "virtual/loop1");
  device("7:2", "virtual/loop2");
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  char command[96];
  (void)snprintf(command, sizeof command, "rm -rf '%s'", root);
  return system(command);
}

static void what_is_read(void **state) {
  (void)state;
  static const struct {
    const char *why;
    unsigned major, minor;
    const char *first;
    uint32_t count;
  } rows[] = {
      {"a SCSI disk: the kernel's WWID, and what udev knows", 8, 16, "wwid naa.5000c500a1b2c3d4", 3},
      {"a partition: its disk's, with its number, and its own uuid", 8, 17, "wwid naa.5000c500a1b2c3d4#1", 2},
      {"an NVMe disk has it one folder up", 259, 0, "wwid eui.0025385b71b00001", 1},
      {"a serial without the blanks around it", 252, 0, "serial disk-7", 1},
      {"a disk without a serial says nothing", 252, 16, NULL, 0},
      {"LVM", 253, 0, "dm LVM-abc", 1},
      {"an md array, by udev alone", 9, 0, "MD_UUID 1:2:3:4", 1},
      {"a loop device whose file is gone: its path", 7, 2, "path /gone.img (deleted)", 1},
      {"a device that is not there", 99, 99, NULL, 0},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct device_identity identity;
    device_identity_read(root, makedev(rows[i].major, rows[i].minor), &identity);
    row_true(rows[i].why, identity.count == rows[i].count);
    if (rows[i].first) row_true(rows[i].why, strcmp(identity.facts[0], rows[i].first) == 0);
    row_true(rows[i].why, (device_identity_number(&identity, 0) == 0) == (rows[i].count == 0));
  }
}

static void namespaces_of_one_controller(void **state) {
  (void)state;
  struct device_identity one, other;
  device_identity_read(root, makedev(259, 1), &one);
  device_identity_read(root, makedev(259, 2), &other);
  assert_int_equal(one.count, 2);
  assert_int_equal(device_identity_compare(&one, &one), DEVICE_SAME);
  assert_int_equal(device_identity_compare(&one, &other), DEVICE_OTHER);
}

static void loop_devices(void **state) {
  (void)state;
  struct device_identity whole, part, again;
  device_identity_read(root, makedev(7, 0), &whole);
  device_identity_read(root, makedev(7, 1), &part);
  assert_int_equal(whole.count, 2);
  assert_int_equal(device_identity_compare(&whole, &part), DEVICE_OTHER);
  char from[96], to[96];
  (void)snprintf(from, sizeof from, "%s/x.img", root);
  (void)snprintf(to, sizeof to, "%s/y.img", root);
  assert_int_equal(rename(from, to), 0);
  put("sys/devices/virtual/loop0/loop/backing_file", "/y.img\n");
  device_identity_read(root, makedev(7, 0), &again);
  assert_int_equal(device_identity_compare(&whole, &again), DEVICE_SAME); /* renamed, and still that file */
  assert_true(device_identity_number(&whole, 0) == device_identity_number(&again, 0));
}

static void a_copy_is_not_the_disk(void **state) {
  (void)state;
  struct device_identity b, c;
  device_identity_read(root, makedev(8, 17), &b);
  device_identity_read(root, makedev(8, 33), &c);
  assert_int_equal(device_identity_compare(&b, &c), DEVICE_OTHER); /* equal by PARTUUID */
}

static void compare(void **state) {
  (void)state;
  static const struct {
    const char *why, *a[3], *b[3];
    enum device_sameness sameness;
  } rows[] = {
      {"nothing known", {NULL}, {NULL}, DEVICE_UNKNOWN},
      {"nothing that both know", {"wwid 1"}, {"serial 1"}, DEVICE_UNKNOWN},
      {"equal", {"wwid 1", "serial 2"}, {"wwid 1"}, DEVICE_SAME},
      {"a driver that says its WWID in another way, and the same serial",
       {"wwid 1", "serial 2"},
       {"wwid x", "serial 2"},
       DEVICE_SAME},
      {"other", {"wwid 1", "serial 2"}, {"wwid 2", "serial 3"}, DEVICE_OTHER},
      {"what lies on it decides alone: one of the two is a copy",
       {"tail 1", "wwid 5"},
       {"tail 2", "wwid 5"},
       DEVICE_OTHER},
      {"the tail was moved to another disk", {"tail 1", "wwid 5"}, {"tail 1", "wwid 6"}, DEVICE_SAME},
      {"no tail yet", {"tail 1", "wwid 5"}, {"wwid 5"}, DEVICE_SAME},
      {"a partition's uuid where nothing else is known", {"partition 1"}, {"partition 1"}, DEVICE_SAME},
      {"a partition's uuid does not outweigh a disk",
       {"wwid 1", "partition 1"},
       {"wwid 2", "partition 1"},
       DEVICE_OTHER},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    struct device_identity a = {.count = 0}, b = {.count = 0};
    for (size_t j = 0; j < 3 && rows[i].a[j]; j++) strcpy(a.facts[a.count++], rows[i].a[j]);
    for (size_t j = 0; j < 3 && rows[i].b[j]; j++) strcpy(b.facts[b.count++], rows[i].b[j]);
    row_true(rows[i].why, device_identity_compare(&a, &b) == rows[i].sameness);
    row_true(rows[i].why, device_identity_compare(&b, &a) == rows[i].sameness);
  }
}

static void names(void **state) {
  (void)state;
  static const struct {
    const char *why, *path;
    unsigned minor;
    bool moves;
    const char *link;
  } rows[] = {
      {"the kernel's name; udev has one with the model in it", "/dev/sdb", 16, true, "/dev/disk/by-id/ata-DISK_7"},
      {"no udev", "/dev/sdc", 32, true, ""},
      {"a name that stays", "/dev/disk/by-id/ata-DISK_7", 16, false, ""},
      {"somebody's own link", "/dev/mine", 16, false, ""},
  };
  for (size_t i = 0; i < COUNT_OF(rows); i++) {
    char link[DEVICE_LINK_BYTES];
    row_true(rows[i].why, device_name_moves(root, rows[i].path, makedev(8, rows[i].minor), link) == rows[i].moves);
    row_true(rows[i].why, strcmp(link, rows[i].link) == 0);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_is_read), cmocka_unit_test(namespaces_of_one_controller), cmocka_unit_test(loop_devices),
      cmocka_unit_test(compare),      cmocka_unit_test(a_copy_is_not_the_disk),       cmocka_unit_test(names),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
