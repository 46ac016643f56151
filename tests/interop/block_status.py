"""Metadata contexts: where the holes are (base:allocation), and what is marked, missed or unreadable (tarn:state)."""
import json
import random

import nbd

from lib import images
from lib.context import check, rows, wait_for
from lib.daemon import Daemon
from lib.images import KIB, MIB
from lib.load import open_handle
from lib.served import SIZE, Served

ALLOCATION, STATE = "base:allocation", "tarn:state"
HOLE, ZERO = nbd.STATE_HOLE, nbd.STATE_ZERO
MARKED, MISSED, UNREADABLE = 1, 2, 4


def asking(uri, *contexts):
    """A connection that may ask for these contexts."""
    handle = nbd.NBD()
    for context in contexts:
        handle.add_meta_context(context)
    handle.connect_uri(uri)
    for context in contexts:
        check(handle.can_meta_context(context), f"{context} is not offered")
    return handle


def status(handle, length, offset, flags=0):
    """context -> [(length, flags), ...], as one request tells it: a prefix, in order, never more than was asked for."""
    told = {}

    def extent(context, start, entries, _error):
        check(start == offset and context not in told, f"{context} told twice, or of {start}")
        told[context] = list(zip(entries[::2], entries[1::2]))
    handle.block_status(length, offset, extent, flags)
    for context, runs in told.items():
        check(runs and all(run for run, _ in runs), f"{context}: an empty run in {runs}")
        check(sum(run for run, _ in runs) <= length, f"{context}: more than was asked for: {runs}")
        check(len(runs) == 1 or not flags & nbd.CMD_FLAG_REQ_ONE, f"{context}: {len(runs)} runs, one was asked for")
    return told


def whole_map(handle, context, size, step=None, start=0):
    """All of it, by as many requests as it takes: [(offset, length, flags)], alike ones joined."""
    found, at = [], start
    while at < size:
        for length, flags in status(handle, min(step or 1 << 30, size - at), at)[context]:
            if found and found[-1][2] == flags:
                found[-1] = (found[-1][0], found[-1][1] + length, flags)
            else:
                found.append((at, length, flags))
            at += length
    return found


def test_the_map_of_a_volume(t):
    """Issue 4 item 1: nbdinfo --map, --map=tarn:state, --totals and qemu-img map show what was written and zeroed."""
    served = Served(t)
    handle = open_handle(served.uri)
    handle.pwrite(b"\x01" * (4 * MIB), 8 * MIB)
    handle.zero(MIB, 9 * MIB)
    handle.pwrite(b"\x02" * 4096, 40 * MIB)
    handle.trim(4096, 8 * MIB)
    handle.shutdown()
    expected = [(0, 8 * MIB + 4096, True), (8 * MIB + 4096, MIB - 4096, False), (9 * MIB, MIB, True),
                (10 * MIB, 2 * MIB, False), (12 * MIB, 28 * MIB, True), (40 * MIB, 4096, False), (40 * MIB + 4096, SIZE - 40 * MIB - 4096, True)]
    shown = json.loads(t.run("nbdinfo", "--map", "--json", served.uri).out)
    found = [(run["offset"], run["length"], run["type"] == HOLE | ZERO) for run in shown]
    check(found == expected, f"nbdinfo: {shown}")
    shown = json.loads(t.run("qemu-img", "map", "--output=json", "-f", "raw", served.uri).out)
    check([(run["start"], run["length"], run["zero"]) for run in shown] == expected, f"qemu-img: {shown}")
    shown = json.loads(t.run("nbdinfo", "--map", "--totals", "--json", served.uri).out)
    check({run["type"]: run["size"] for run in shown} == {0: 3 * MIB, 3: SIZE - 3 * MIB}, f"totals: {shown}")
    shown = json.loads(t.run("nbdinfo", f"--map={STATE}", "--json", served.uri).out)
    marked = [(run["offset"], run["length"]) for run in shown if run["type"] == MARKED]
    check(marked == [(8 * MIB, 4 * MIB), (40 * MIB, 4 * MIB)], f"marked: {shown}")
    served.stop_and_compare()


def test_what_it_can_be_asked(t):
    """Issue 4 item 1: contexts are listed by name, by namespace and all; unknown ones are not there; a description."""
    served = Served(t)
    info = json.loads(t.run("nbdinfo", "--json", served.uri).out)["exports"][0]
    check(info["contexts"] == [ALLOCATION, STATE], f"contexts {info['contexts']}")
    check(info["description"] == "mirror vol0, volume 0", f"description {info['description']!r}")
    for able in ("cache", "df", "fast-zero", "flush", "fua", "multi-conn", "trim", "zero", "read", "write",
                 "structured-reply"):
        t.run("nbdinfo", "--can", able, served.uri)
    for state, answer in (("read-only", 2), ("tls", 2)):
        t.run("nbdinfo", "--is", state, served.uri, status=answer)
    for query, answer in ((None, [ALLOCATION, STATE]), ("base:", [ALLOCATION]), ("tarn:", [STATE]), (STATE, [STATE]),
                          ("qemu:", []), ("base:none", [])):
        handle = nbd.NBD()
        handle.set_opt_mode(True)
        handle.connect_uri(served.uri)
        if query:
            handle.add_meta_context(query)
        found = []
        handle.opt_list_meta_context(found.append)
        check(found == answer, f"{query}: {found}")
        handle.opt_abort()
    listed = json.loads(t.run("nbdinfo", "--list", "--json", served.uri).out)["exports"]
    check(listed[0]["description"] == "mirror vol0, volume 0", f"listed: {listed}")


@rows([("in memory", "tmpfs"), ("on disk", "disk")])
def test_against_a_model(t, row):
    """Issue 4 item 5: after each of many writes, zeroes and trims, what is called zero is zero, and what was zeroed is
    called so where the file can have a hole."""
    size = 2 * MIB
    served = Served(t, size=size, place=row[1])
    source, handle, model = random.Random(23), asking(served.uri, ALLOCATION, STATE), bytearray(size)
    for step in range(300):
        length = source.choice((1, 512, 4096, 65536, source.randrange(1, 200 * KIB)))
        offset = source.randrange(0, size - length + 1)
        if source.randrange(3):
            handle.pwrite(b"\xa5" * length, offset)
            model[offset:offset + length] = b"\xa5" * length
        else:
            offset, length = offset // 4096 * 4096, (length + 4095) // 4096 * 4096
            length = min(length, size - offset)
            handle.zero(length, offset)
            model[offset:offset + length] = bytes(length)
        start = source.randrange(0, size)
        flags = source.choice((0, nbd.CMD_FLAG_REQ_ONE))
        told = status(handle, source.randrange(1, size - start + 1), start, flags)
        at = start
        for length, what in told[ALLOCATION]:
            check(what in (0, HOLE | ZERO), f"flags {what}")
            check(not what or not any(model[at:at + length]), f"step {step}: {length} bytes at {at} are no zeroes")
            at += length
        check(all(what in (0, MARKED) for _, what in told[STATE]), f"state {told[STATE]}")
    holes = sum(length for _, length, what in whole_map(handle, ALLOCATION, size) if what)
    pages = sum(not any(model[at:at + 4096]) for at in range(0, size, 4096))
    check(holes > pages * 4096 * 0.9, f"{holes} bytes of holes, {pages * 4096} could be")
    handle.shutdown()
    served.stop_and_compare()


def test_hundreds_in_flight(t):
    """Issue 4 item 5: hundreds of questions over several connections while the volume is written: what always holds
    data is never called zero, and each is answered."""
    served = Served(t, size=16 * MIB, image_count=3)
    handles = [asking(served.uri, ALLOCATION, STATE) for _ in range(4)]
    handles[0].pwrite(b"\x77" * (8 * MIB), 0)
    source, wrong, asked = random.Random(3), [], 0
    payload = nbd.Buffer.from_bytearray(bytearray(b"\x78" * 65536))
    for _ in range(20):
        pending = []
        for handle in handles:
            for _ in range(30):
                start = source.randrange(0, 8 * MIB)

                def extent(context, offset, entries, _error):
                    at = offset
                    for length, what in zip(entries[::2], entries[1::2]):
                        if context == ALLOCATION and what & ZERO and at < 8 * MIB:
                            wrong.append((at, length))
                        at += length
                pending.append((handle, handle.aio_block_status(source.randrange(1, 16 * MIB - start), start, extent)))
                asked += 1
            pending.append((handle, handle.aio_pwrite(payload, source.randrange(0, 8 * MIB - 65536))))
            pending.append((handle, handle.aio_zero(65536, 8 * MIB + source.randrange(0, 100) * 65536)))
            pending.append((handle, handle.aio_cache(300000, source.randrange(0, 15 * MIB))))
        for handle, cookie in pending:
            while not handle.aio_command_completed(cookie):
                handle.poll(1000)
    check(not wrong, f"of {asked} questions some found holes in data: {wrong[:3]}")
    for handle in handles:
        handle.shutdown()
    served.stop_and_compare()


def test_what_an_image_misses(t):
    """Issue 4 item 1: tarn:state shows what one image has not got while it is out, and nothing when it is back."""
    daemon = Daemon(t, arguments=["--enable-faults"]).start()
    daemon.create("vol0", [t.shm("a.img"), t.shm("b.img")], size=SIZE)
    handle = asking(daemon.uri("vol0"), STATE)
    check(whole_map(handle, STATE, SIZE) == [(0, SIZE, 0)], "a new mirror misses nothing")
    daemon.tarn("fault", "vol0", "b", "fail")
    handle.pwrite(b"\x01" * 4096, 20 * MIB)
    missed = [(at, length) for at, length, what in whole_map(handle, STATE, SIZE) if what & MISSED]
    check(missed == [(20 * MIB, 4 * MIB)], f"missed, all that was marked when it failed: {missed}")
    handle.pwrite(b"\x01" * 4096, 40 * MIB)
    missed = [(at, length) for at, length, what in whole_map(handle, STATE, SIZE) if what & MISSED]
    check(missed == [(20 * MIB, 4 * MIB), (40 * MIB, 16 * KIB)], f"missed: {missed}")
    daemon.tarn("fault", "vol0", "b", "heal")
    daemon.tarn("image", "restore", "--wait", "vol0", "b")
    wait_for("nothing to be missed", lambda: not any(what & MISSED for _, _, what in whole_map(handle, STATE, SIZE)))
    handle.shutdown()


def test_an_unreadable_place(t):
    """Issue 4 item 1: tarn:state shows what no image can read, until it is written; base:allocation calls it data."""
    daemon = Daemon(t, arguments=["--enable-faults"]).start()
    daemon.create("vol0", [t.shm("a.img")], size=MIB)
    handle = asking(daemon.uri("vol0"), ALLOCATION, STATE)
    daemon.tarn("fault", "vol0", "a", "fail", "--range", "65536+4096", "--on", "read")
    daemon.tarn("image", "add", "vol0", t.shm("b.img"))
    wait_for("the new image to be synchronized", lambda: all(image["state"] == "SYNCHRONIZED"
                                                             for image in daemon.mirror("vol0")["images"]))
    place = [(at, length) for at, length, what in whole_map(handle, STATE, MIB) if what & UNREADABLE]
    check(place == [(65536, 4096)], f"unreadable: {place}")
    check((65536, 4096, 0) in whole_map(handle, ALLOCATION, MIB), "an unreadable place is called a hole")
    daemon.tarn("fault", "vol0", "a", "heal")
    handle.pwrite(b"\x02" * 4096, 65536)
    check(not any(what & UNREADABLE for _, _, what in whole_map(handle, STATE, MIB)), "written, and still unreadable")
    handle.shutdown()


def test_disks_that_cannot_tell(t):
    """Issue 4 item 1: a question that fails on every image is answered by "data", and puts nobody out."""
    daemon = Daemon(t, arguments=["--enable-faults"]).start()
    daemon.create("vol0", [t.shm("a.img"), t.shm("b.img")], size=MIB)
    handle = asking(daemon.uri("vol0"), ALLOCATION)
    handle.pwrite(b"\x01" * 4096, 65536)
    expected = [(0, 65536, HOLE | ZERO), (65536, 4096, 0), (69632, MIB - 69632, HOLE | ZERO)]
    for image, answer in (("a", expected), ("b", [(0, MIB, 0)])):
        daemon.tarn("fault", "vol0", image, "fail", "--on", "read")
        check(whole_map(handle, ALLOCATION, MIB) == answer, f"when {image} cannot tell either")
    for image in ("a", "b"):
        daemon.tarn("fault", "vol0", image, "heal")
    states = [image["state"] for image in daemon.mirror("vol0")["images"]]
    check(states == ["SYNCHRONIZED"] * 2, f"a question has put an image out: {states}")
    handle.shutdown()


def test_a_disk_that_hangs(t):
    """Issue 4 item 1: a question that hangs on one image's disk is answered from another one, and that image is out, as
    for any request."""
    daemon = Daemon(t, arguments=["--enable-faults"]).start()
    daemon.create("vol0", [t.shm("a.img"), t.shm("b.img")], size=MIB)
    daemon.tarn("image", "set", "vol0", "a", "hang=1")
    handle = asking(daemon.uri("vol0"), ALLOCATION)
    handle.pwrite(b"\x01" * 4096, 65536)
    daemon.tarn("fault", "vol0", "a", "hang", "--on", "read")
    check(whole_map(handle, ALLOCATION, MIB)[1] == (65536, 4096, 0), "the answer of the other image")
    check(daemon.mirror("vol0")["images"][0]["missing"] == "failed", "the image whose disk hangs is still in")
    daemon.tarn("fault", "vol0", "a", "heal")
    handle.shutdown()


def test_16_tib(t):
    """Issue 4 item 1: the map of 16 TiB, sparse, with more holes than an answer has room for: nobody else waits."""
    size = 16 << 40
    served = Served(t, size=size, image_count=1)  # ext4 has no file as large as that, tmpfs has
    handle, other = asking(served.uri, ALLOCATION, STATE), open_handle(served.uri)
    for number in range(300):
        other.pwrite(b"\x01" * 4096, number * 16384)
    found = whole_map(handle, ALLOCATION, 5 * MIB)
    check(len(found) == 600, f"{len(found)} runs")
    # All the rest is one hole; how much of it one answer tells is the server's choice, that it is much is not.
    at, requests = 300 * 16384, 0
    while at < size and requests < 100:
        ((length, what),) = status(handle, (1 << 32) - 4096, at)[ALLOCATION]
        check(what == HOLE | ZERO and length >= 1 << 30, f"{length} bytes at {at}: {what}")
        at += length + (1 << 37)
        requests += 1
        other.pread(512, 0)
    for one in (handle, other):
        one.shutdown()


def test_copies_leave_out_holes(t):
    """Issue 4 item 5: nbdcopy with many connections asks where the holes are, does not read them, and they stay holes."""
    served = Served(t)
    source = images.make_sparse(t.shm("source"), SIZE)
    with open(source, "r+b") as file:
        for number in range(8):
            file.seek(number * 8 * MIB)
            file.write(bytes([number + 1]) * 65536)
    t.run("nbdcopy", "--connections=4", source, served.uri)
    before = sum(image["reads"] for image in served.daemon.mirror("vol0")["images"])
    t.run("nbdcopy", "--connections=4", served.uri, t.shm("back"))
    reads = sum(image["reads"] for image in served.daemon.mirror("vol0")["images"]) - before
    images.check_same([source, t.shm("back")], SIZE)
    check(images.deallocated(t.shm("back"), MIB, 7 * MIB), "the hole was filled in the copy")
    check(reads < 64, f"{reads} reads for 512 KiB of data: were the holes read?")
    t.run("qemu-img", "convert", "-f", "raw", "-O", "raw", served.uri, t.shm("again"))
    images.check_same([source, t.shm("again")], SIZE)
    served.stop_and_compare()
    check(images.deallocated(served.paths[0], MIB, 7 * MIB), "the hole was filled in the image")
