"""Others between a client and a mirror: nbdfuse, qemu-storage-daemon, nbdkit's nbd plugin. What goes through them
arrives, and comes back."""
import json
import os
import random
import shutil

import nbd

from lib import images
from lib.context import check, end, rows, wait_for
from lib.images import KIB, MIB
from lib.ledger import SECTOR, Ledger
from lib.load import Load, open_handle, read_volume
from lib.served import SIZE, Served


def storage_daemon(t, served):
    """qemu-storage-daemon, a client of ours, exports what it sees. Returns the URI of that."""
    path = t.path("qsd.sock")
    node = ("driver=nbd,node-name=mirror,export=vol0,discard=unmap,server.type=unix,"
            f"server.path={served.daemon.socket()}")
    t.spawn("qemu-storage-daemon", "--blockdev", node, "--nbd-server", f"addr.type=unix,addr.path={path}",
            "--export", "type=nbd,id=e,node-name=mirror,name=vol0,writable=on")
    wait_for("qemu-storage-daemon to listen", lambda: os.path.exists(path))
    return f"nbd+unix:///vol0?socket={path}"


def nbdkit_plugin(t, served):
    """nbdkit's nbd plugin, a client of ours, serves what it sees."""
    path = t.path("nbdkit.sock")
    t.spawn("nbdkit", "--foreground", "--exit-with-parent", "--unix", path, "nbd", f"uri={served.uri}", "shared=true")
    wait_for("nbdkit to listen", lambda: os.path.exists(path))
    return f"nbd+unix:///?socket={path}"


BETWEEN = [("qemu-storage-daemon", storage_daemon), ("nbdkit's nbd plugin", nbdkit_plugin)]


def stop_between(t):
    for process in t.spawned:
        end(process)


@rows(BETWEEN)
def test_a_load_through(t, row):
    """Issue 4 item 5: many requests in flight through another program; every read is checked, the images are equal."""
    served = Served(t)
    uri = row[1](t, served)
    load = Load(Ledger(SIZE // SECTOR), uri, connections=1, depth=64, seed=4)
    load.run(3)
    load.drain(60)
    check(load.reads_checked > 50, f"only {load.reads_checked} reads")
    load.close()
    stop_between(t)
    handle = open_handle(served.uri)
    load.ledger.check_all(read_volume(handle))
    handle.shutdown()
    served.stop_and_compare()


@rows(BETWEEN)
def test_holes_through(t, row):
    """Issue 4 item 5: the other program tells where the holes are, and may trim, zero, flush, and use FUA."""
    served = Served(t)
    uri = row[1](t, served)
    shown = json.loads(t.run("nbdinfo", "--json", uri).out)["exports"][0]
    for able in ("can_flush", "can_fua", "can_trim", "can_zero"):
        check(shown[able], f"{able} is {shown[able]}")
    source = images.make_sparse(t.shm("source"), SIZE)
    with open(source, "r+b") as file:
        for number in range(4):
            file.seek(number * 16 * MIB)
            file.write(bytes([number + 1]) * MIB)
    t.run("nbdcopy", "--flush", source, uri)
    data = [(run["offset"], run["length"]) for run in json.loads(t.run("nbdinfo", "--map", "--json", uri).out)
            if not run["type"] & nbd.STATE_ZERO]
    check(data == [(number * 16 * MIB, MIB) for number in range(4)], f"data at {data}")
    t.run("nbdcopy", uri, t.shm("back"))
    images.check_same([source, t.shm("back")], SIZE)
    stop_between(t)
    served.stop_and_compare()
    images.check_same([source, served.paths[1]], SIZE)
    check(images.deallocated(served.paths[0], MIB, 15 * MIB), "the holes were filled")


def mounted(path):
    with open("/proc/mounts", encoding="utf-8") as mounts:
        return any(line.split()[1] == path for line in mounts)


def test_nbdfuse(t):
    """Issue 4 item 5: a mirror as a file, by nbdfuse: single bytes, long runs, fsync, a copy of all of it."""
    check(os.path.exists("/dev/fuse"), "there is no /dev/fuse: nbdfuse cannot be tried on this machine")
    served = Served(t)
    folder = t.path("fuse")
    os.mkdir(folder)
    file = os.path.join(folder, "volume")
    process = t.spawn("nbdfuse", file, served.uri)
    try:
        wait_for("nbdfuse to mount", lambda: mounted(file) or mounted(folder) or os.path.exists(file))
        source, model = random.Random(6), bytearray(SIZE)
        check(os.path.getsize(file) == SIZE, f"the file has {os.path.getsize(file)} bytes")
        with open(file, "r+b", buffering=0) as volume:
            for _ in range(300):
                length = source.choice((1, 511, 4096, 65537, source.randrange(1, 300 * KIB)))
                offset = source.randrange(0, SIZE - length)
                content = source.randbytes(length)
                volume.seek(offset)
                check(volume.write(content) == length, "a short write")
                model[offset:offset + length] = content
            os.fsync(volume.fileno())
            for _ in range(100):
                length = source.randrange(1, 100 * KIB)
                offset = source.randrange(0, SIZE - length)
                volume.seek(offset)
                check(volume.read(length) == model[offset:offset + length], f"{length} bytes at {offset} differ")
        shutil.copyfile(file, t.shm("copy"))
        check(images.read_at(t.shm("copy"), 0, SIZE) == bytes(model), "the whole file differs")
    finally:
        t.run("fusermount3", "-u", file, status=None)
        end(process)
    served.stop_and_compare()
    check(images.read_at(served.paths[1], 0, SIZE) == bytes(model), "the image differs")
