"""A QEMU guest (Linux 6.1, under emulation) that boots from a mirror."""
import hashlib
import os
import re

from lib import guest, images
from lib.context import check, limit
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


@limit(240)
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


# On Linux 6.1: the images on ext4 (direct I/O by io_uring), then in memory. Every step says what failed, and ends it.
SMOKE = """#!/bin/busybox sh
uname -r
die() { echo "$1"; cat /log | tail -n 5; echo "$1"; exit; }
start() {
  tarnd --state /state 2>>/log &
  daemon=$!
  for i in $(seq 200); do
    tarn --state /state --json status 2>/dev/null | tr -d ' \\n' >/status
    grep -q "$1" /status && return
    kill -0 $daemon 2>/dev/null || die "the daemon ended"
    usleep 100000
  done
  die "$2"
}
uri='nbd+unix:///vol0?socket=/state/nbd.sock'
head -c 8388608 /dev/urandom >/data
for place in /disks /dev/shm; do
  rm -rf /state; mkdir -p /state $place
  start '"mirrors":\\[\\]' "the daemon does not start"
  tarn --state /state mirror create vol0 --size 8M --image $place/a.img --image $place/b.img --activate || die "no mirror"
  nbdcopy --flush /data $uri || die "no copy in"
  nbdcopy $uri /back || die "no copy out"
  cmp /data /back || die "the copy differs"
  head -c 8388608 /dev/urandom >/data
  nbdcopy --request-size=65536 /data $uri 2>/dev/null & copy=$!
  usleep 150000
  kill -9 $daemon; wait $copy; wait $daemon
  start '"state":"ACTIVE".*SYNCHRONIZED.*SYNCHRONIZED' "no recovery"
  grep -q '"reason":"crash"' /status || die "it recovered from no crash"
  nbdcopy --flush /data $uri || die "no copy in, after the crash"
  nbdcopy $uri /back && cmp /data /back || die "the copy differs, after the crash"
  kill $daemon; wait $daemon || die "the daemon did not end well"
  cmp $place/a.img $place/b.img || die "the images differ"
  cmp $place/a.img /data || die "the images are not what was written"
  echo "$place is good"
done
echo OK
"""


@limit(240)
def test_the_daemon_on_linux_6_1(t):
    """Docs: the oldest Linux that is supported, 6.1: the daemon starts there, mirrors onto ext4 and memory, and recovers
    from SIGKILL."""
    disk = t.path("disk.img")
    guest.make_root(t, disk, 160 * MIB, SMOKE, programs=[t.program("tarnd"), t.program("tarn"), "/usr/bin/nbdcopy"])
    said = guest.Guest(t, [f"file={disk},cache=unsafe"], memory_mib=768).wait_verdict(220)
    check(re.search(r"^6\.1\.", said, re.M), f"the guest is no Linux 6.1: {said[:300]}")
    check(said.count("is good") == 2, f"it has not tried everything: {said[-500:]}")
