"""A QEMU guest (Linux 6.1, under emulation) that boots from a mirror."""
import hashlib
import os
import re

from lib import guest, images
from lib.context import check
from lib.daemon import Daemon
from lib.images import MIB

SIZE = 48 * MIB
FILES = 6
FILE_BYTES = 2 * MIB

# Each file is written, fsynced, named, and read back from the disk.
SCRIPT = f"""#!/bin/busybox sh
uname -r
for number in $(seq {FILES}); do
  yes "file $number, line after line" | dd of=/file-$number bs=64k count={FILE_BYTES >> 16} iflag=fullblock conv=fsync 2>/dev/null ||
    {{ echo "file $number cannot be written"; exit; }}
  md5sum /file-$number >>/sums
  echo "wrote file $number"
done
sync
echo 3 >/proc/sys/vm/drop_caches
md5sum -c /sums >/dev/null || {{ echo "a file reads back otherwise"; exit; }}
echo OK
"""


def content(number):
    line = f"file {number}, line after line\n".encode()
    return (line * (FILE_BYTES // len(line) + 1))[:FILE_BYTES]


def test_boots_from_a_mirror(t):
    """Issue 4 item 4, A2: a guest whose root disk is a mirror boots, writes files and fsyncs them, while the daemon is
    killed and started again; both images then hold a sound file system and every file."""
    paths = [t.path("a.img"), t.path("b.img")]
    guest.make_root(t, paths[0], SIZE, SCRIPT)
    daemon = Daemon(t).start()
    daemon.create("vol0", paths)  # of that size, with that content
    machine = guest.Guest(t, [f"file.driver=nbd,file.server.type=unix,file.server.path={daemon.socket()},file.export=vol0,"
                              "file.reconnect-delay=60,cache=none,discard=unmap"])
    machine.wait_said("wrote file 2")
    daemon.kill()
    daemon.start()
    said = machine.wait_verdict()
    check(re.search(r"^6\.1\.", said, re.M), f"the guest is no Linux 6.1: {said[:300]}")
    daemon.wait_synchronized("vol0")
    daemon.stop()
    images.check_same(paths, SIZE)
    t.run("e2fsck", "-fn", paths[1])
    for number in range(1, FILES + 1):
        file = t.path(f"file-{number}")
        t.run("debugfs", "-R", f"dump /file-{number} {file}", paths[1])
        check(os.path.getsize(file) == FILE_BYTES, f"file {number} has {os.path.getsize(file)} bytes")
        check(images.digest(file) == hashlib.sha256(content(number)).hexdigest(), f"file {number} is not what was written")
