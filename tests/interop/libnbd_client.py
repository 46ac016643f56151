"""libnbd in Python: hundreds of requests in flight, every kind of reply, every boundary."""
import ctypes
import errno
import os
import random
import socket
import stat
import time

import nbd

from lib import images
from lib.context import PATIENCE, check, rows
from lib.images import KIB, MIB
from lib.ledger import SECTOR, Ledger
from lib.load import Load, Mix, open_handle, read_volume
from lib.served import SIZE, Served

PIDFD_GETFD = 438  # the number of a system call that Python does not know
TARGETS = [("two images in memory", "tmpfs", 2), ("one image in memory", "tmpfs", 1), ("two images on disk", "disk", 2),
           ("one image on disk", "disk", 1)]


@rows(TARGETS)
def test_hundreds_in_flight(t, row):
    """Issue 2 items 3, 6, 10: hundreds of requests in flight on several connections, overlapping, all kinds; every read
    is checked against what may be there, the volume and the images at the end."""
    _, place, count = row
    served = Served(t, place=place, image_count=count)
    load = Load(Ledger(SIZE // SECTOR), served.uri, connections=6, depth=100, seed=count, mix=Mix(reads=35))
    load.run(4)
    load.run(PATIENCE, until=lambda: load.reads_checked > 100)
    load.drain()
    check(load.reads_checked > 100, f"only {load.reads_checked} reads")
    handle = open_handle(served.uri)
    load.ledger.check_all(read_volume(handle))
    handle.shutdown()
    load.close()
    served.stop_and_compare()


def test_everything_on_one_spot(t):
    """Rule lock, A7: many connections on a handful of sectors; overlapping writes are ordered, equally on all
    images."""
    served = Served(t, size=MIB, image_count=3)
    mix = Mix(reads=30, hot=100, hot_sectors=24, bytes_max=8 * KIB)
    load = Load(Ledger(MIB // SECTOR), served.uri, connections=8, depth=32, seed=9, mix=mix)
    load.run(4)
    load.drain()
    handle = open_handle(served.uri)
    load.ledger.check_all(read_volume(handle))
    handle.shutdown()
    load.close()
    served.stop_and_compare()


@rows([("structured", True), ("simple", False)])
def test_kinds_of_replies(t, row):
    """Issue 2 item 6: structured replies or simple ones, as the client asks."""
    served = Served(t)
    handle = open_handle(served.uri, structured=row[1])
    check(handle.get_structured_replies_negotiated() == row[1], "negotiated otherwise")
    content = random.Random(1).randbytes(3 * MIB + 17)
    handle.pwrite(content, 12345)
    check(handle.pread(len(content), 12345) == content, "what was written is not read back")
    check(handle.pread(1000, 0) == bytes(1000), "the beginning")
    check(handle.pread(64 * KIB, 32 * MIB) == bytes(64 * KIB), "a hole")
    if row[1]:
        check_chunks(handle, content)
    handle.shutdown()
    served.stop_and_compare()


def check_chunks(handle, content):
    """All chunks of a structured read together cover it exactly once."""
    covered = bytearray(len(content) + 2000)

    def chunk(data, offset, status, _error):
        check(status in (nbd.READ_DATA, nbd.READ_HOLE), f"chunk status {status}")
        for place in range(offset - 11345, offset - 11345 + len(data)):
            covered[place] += 1
    handle.pread_structured(len(covered), 11345, chunk)
    check(covered == b"\x01" * len(covered), "a byte was answered twice or not at all")
    data = handle.pread_structured(4096, 12345, lambda *_: 0, nbd.CMD_FLAG_DF)
    check(data == content[:4096], "a read with DF")


def test_a_model_of_bytes(t):
    """Issue 2 items 3, 6: single bytes, odd offsets and lengths, zeroes and trims, against a model in memory."""
    size = 512 * KIB
    served = Served(t, size=size, image_count=3)
    source, handle, model = random.Random(17), open_handle(served.uri), bytearray(size)
    for _ in range(1500):
        length = source.choice((1, 2, 511, 512, 513, 4095, 4096, 4097, source.randrange(1, 70000)))
        offset = source.randrange(0, size - length + 1)
        kind = source.randrange(10)
        if kind < 5:
            content = source.randbytes(length)
            handle.pwrite(content, offset, nbd.CMD_FLAG_FUA if kind == 0 else 0)
            model[offset:offset + length] = content
        elif kind < 7:
            handle.zero(length, offset, source.choice((0, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FUA)))
            model[offset:offset + length] = bytes(length)
        elif kind == 7:
            handle.trim(length, offset)
            model[offset:offset + length] = trimmed(handle, model, offset, length)
        else:
            check(handle.pread(length, offset) == model[offset:offset + length], f"{length} bytes at {offset} differ")
    check(handle.pread(size, 0) == model, "the whole volume differs")
    handle.shutdown()
    served.stop_and_compare()
    check(images.read_at(served.paths[2], 0, size) == model, "the image differs from the volume")


def trimmed(handle, model, offset, length):
    """After a trim each byte is what it was, or zero."""
    found = handle.pread(length, offset)
    for index, (old, new) in enumerate(zip(model[offset:offset + length], found)):
        check(new in (old, 0), f"trim left {new} at {offset + index}, it was {old}")
    return found


def test_64_mib_payloads(t):
    """Issue 2 item 6: payloads up to 64 MiB, in pieces; aligned and off by one."""
    size = 160 * MIB
    served = Served(t, size=size)
    handle = open_handle(served.uri)
    content = random.Random(3).randbytes(64 * MIB)
    for offset in (0, 64 * MIB + 1):
        handle.pwrite(content, offset)
        check(handle.pread(64 * MIB, offset) == content, f"64 MiB at {offset}")
    handle.zero(100 * MIB, MIB)
    check(handle.pread(MIB, 0) == content[:MIB], "before the zeroes")
    check(handle.pread(MIB, 50 * MIB) == bytes(MIB), "in the zeroes")
    handle.shutdown()
    served.stop_and_compare()


def test_two_of_64_mib_at_once(t):
    """Thesis 5: large requests on several connections wait for buffers, and for nobody for ever."""
    served = Served(t, size=512 * MIB)
    handles = [open_handle(served.uri) for _ in range(4)]
    content = nbd.Buffer.from_bytearray(bytearray(random.Random(4).randbytes(64 * MIB)))
    target = nbd.Buffer(64 * MIB)
    cookies = [[handle.aio_pwrite(content, index * 128 * MIB), handle.aio_pread(target, (index * 128 + 64) * MIB)]
               for index, handle in enumerate(handles)]
    complete("all payloads", dict(zip(handles, cookies)))
    for handle in handles:
        handle.shutdown()
    served.stop_and_compare()


def refused(call, *numbers):
    """The call fails with one of these error numbers."""
    try:
        call()
    except nbd.Error as error:
        check(error.errnum in numbers, f"refused with {error.errno} ({error.string})")
        return
    check(False, "it was not refused")


def test_past_the_end(t):
    """Issue 2 item 6: past the end a write is ENOSPC, a read EINVAL; exactly at the end all is well."""
    served = Served(t, size=MIB)
    handle = open_handle(served.uri)
    handle.set_strict_mode(0)
    handle.pwrite(b"\x01" * 512, MIB - 512)
    refused(lambda: handle.pwrite(b"\x02" * 513, MIB - 512), errno.ENOSPC)
    refused(lambda: handle.pwrite(b"\x02", MIB), errno.ENOSPC)
    refused(lambda: handle.pread(513, MIB - 512), errno.EINVAL)
    refused(lambda: handle.pread(1, MIB), errno.EINVAL)
    refused(lambda: handle.zero(513, MIB - 512), errno.ENOSPC)
    refused(lambda: handle.trim(513, MIB - 512), errno.EINVAL, errno.ENOSPC)
    check(handle.pread(512, MIB - 512) == b"\x01" * 512, "a refused write left something")
    handle.shutdown()
    served.stop_and_compare()


def test_flush_and_fua(t):
    """Issue 2 item 3: flush and FUA are answered, also many at once and with nothing written before."""
    served = Served(t, place="disk")
    handle = open_handle(served.uri)
    handle.flush()
    for number in range(50):
        handle.pwrite(bytes([number]) * 4096, number * 4096, nbd.CMD_FLAG_FUA)
    cookies = []
    for number in range(100):
        cookies.append(handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(b"\x07" * 512)), number * 512))
        cookies.append(handle.aio_flush())
    complete("all flushes", {handle: cookies})
    handle.zero(4096, 0, nbd.CMD_FLAG_FUA)
    handle.trim(4096, 4096, nbd.CMD_FLAG_FUA)
    handle.flush()
    handle.shutdown()
    served.stop_and_compare()


def complete(what, pending, seconds=120):
    """Drives libnbd until every command (handle -> its cookies) is answered."""
    deadline = time.monotonic() + seconds
    while any(pending.values()):
        check(time.monotonic() < deadline, f"waited {seconds} s for {what}")
        for handle, cookies in pending.items():
            if cookies:
                handle.poll(1)
                cookies[:] = [cookie for cookie in cookies if not handle.aio_command_completed(cookie)]


def connections_of(pid, family):
    """The TCP connections of another process, as sockets of ours."""
    process = os.pidfd_open(pid)
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        fd = ctypes.CDLL(None).syscall(PIDFD_GETFD, process, int(name), 0)
        if fd < 0:
            continue
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            os.close(fd)
            continue
        one = socket.socket(fileno=fd)
        if one.family == family and not one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            found.append(one)
    os.close(process)
    return found


def test_multi_conn(t):
    """Issue 2 item 6, multi-conn with its exact rule: what one connection wrote and was answered, another one reads at
    once; a flush on one covers what was answered on another."""
    served = Served(t)
    handles = [open_handle(served.uri) for _ in range(5)]
    check(all(handle.can_multi_conn() for handle in handles), "multi-conn is not offered")
    for number in range(400):
        writer, reader = handles[number % 5], handles[(number + 1 + number % 3) % 5]
        content = number.to_bytes(4, "little") * 1024
        writer.pwrite(content, (number % 7) * 4096)
        check(reader.pread(4096, (number % 7) * 4096) == content, f"write {number} is not seen on another connection")
    handles[0].flush()
    served.daemon.kill()
    served.daemon.start()
    served.daemon.wait_synchronized("vol0")
    handle = open_handle(served.uri)
    check(handle.pread(4096, (399 % 7) * 4096) == (399).to_bytes(4, "little") * 1024, "the last write is lost")
    handle.shutdown()
    served.stop_and_compare()


def test_no_read_goes_back(t):
    """Thesis 4: two reads never see new and then old, while one sector is written over and over."""
    served = Served(t, size=MIB, image_count=3)
    writer, readers = open_handle(served.uri), [open_handle(served.uri) for _ in range(3)]
    newest = 0
    for number in range(1, 1500):
        cookie = writer.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(number.to_bytes(8, "little") * 512)), 0)
        for reader in readers:
            seen = reader.pread(4096, 0)
            value = int.from_bytes(seen[:8], "little")
            check(seen == seen[:8] * 512, f"a read during write {number} is torn")
            check(value >= newest, f"a read saw {value} after {newest} had been seen")
            newest = value
        while not writer.aio_command_completed(cookie):
            writer.poll(100)
    for handle in (writer, *readers):
        handle.shutdown()
    served.stop_and_compare()


@rows([("127.0.0.1", "127.0.0.1:{port}", "nbd://127.0.0.1:{port}/vol0"),
       ("[::1]", "[::1]:{port}", "nbd://[::1]:{port}/vol0")])
def test_tcp(t, row):
    """Issue 2 item 6: TCP, IPv4 and IPv6: a load, large payloads, and no delay of small ones (TCP_NODELAY)."""

    family = socket.AF_INET6 if "::" in row[1] else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        port = probe.getsockname()[1]
    served = Served(t, arguments=["--nbd", row[1].format(port=port)])
    uri = row[2].format(port=port)
    load = Load(Ledger(SIZE // SECTOR), uri, connections=4, depth=64, seed=6)
    load.run(2)
    load.drain()
    handle = open_handle(uri)
    load.ledger.check_all(read_volume(handle))
    content = random.Random(5).randbytes(32 * MIB)
    handle.pwrite(content, 5)
    check(handle.pread(32 * MIB, 5) == content, "32 MiB over TCP")
    delays = [one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
              for one in connections_of(served.daemon.pid(), family)]
    check(len(delays) >= 5 and not any(delays), f"Nagle's delay is on: {delays}")
    handle.shutdown()
    load.close()
    served.stop_and_compare()
