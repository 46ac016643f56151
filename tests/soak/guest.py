"""Linux 6.1, that of Debian 12, in a QEMU guest under emulation."""
import re

from lib import guest
from lib.context import check
from lib.images import MIB

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


def test_the_daemon_on_linux_6_1(t):
    """Issue 4 item 4: on the Linux of Debian 12 the daemon starts, mirrors onto ext4 and memory, and recovers
    from SIGKILL."""
    disk = t.path("disk.img")
    guest.make_root(t, disk, 160 * MIB, SMOKE, programs=[t.program("tarnd"), t.program("tarn"), "/usr/bin/nbdcopy"])
    said = guest.Guest(t, [f"file={disk},cache=unsafe"], memory_mib=768).wait_verdict(220)
    check(re.search(r"^6\.1\.", said, re.M), f"the guest is no Linux 6.1: {said[:300]}")
    check(said.count("is good") == 2, f"it has not tried everything: {said[-500:]}")
