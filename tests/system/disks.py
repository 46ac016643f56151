"""Every kind of disk, alone and together: parts of disks, block devices (loop devices), NBD servers, sparse files."""
import json
import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time

from lib import images
from lib.context import check, rows, wait_for
from lib.daemon import Daemon
from lib.disks import LateServer, NbdServer, loop_device
from lib.images import KIB, MIB
from lib.ledger import SECTOR, Ledger
from lib.load import Load, Mix, open_handle, read_volume
from lib.small_disk import small_disk

SIZE = 16 * MIB


def image(daemon, name, mirror="vol0"):
    return next(found for found in daemon.mirror(mirror)["images"] if found["name"] == name)


def wait_image(daemon, name, what, condition, seconds=120):
    wait_for(f"image {name} to be {what}", lambda: condition(image(daemon, name)), seconds, every=0.05)
    return image(daemon, name)


def wait_out(daemon, name):
    return wait_image(daemon, name, "out", lambda found: found["missing"] == "failed")


def write(daemon, offset, data, mirror="vol0"):
    handle = open_handle(daemon.uri(mirror))
    handle.pwrite(data, offset)
    handle.flush()
    handle.shutdown()


def joined(parts):
    """What a disk made of (path, offset, length) holds."""
    return b"".join(images.read_at(path, offset, length) for path, offset, length in parts)


# ---- parts ----

def test_parts_make_one_disk(t):
    """A12: parts of files, in this order, are one disk; what lies outside them is not touched."""
    daemon = Daemon(t).start()
    x, y = images.make_random(t.path("x.img"), 8 * MIB, seed=1), images.make_random(t.path("y.img"), 8 * MIB, seed=2)
    before = joined([(x, 0, 8 * MIB)]), joined([(y, 0, 8 * MIB)])
    parts = [(x, 2 * MIB, 3 * MIB), (y, 0, 8 * MIB), (x, 6 * MIB, MIB)]
    holds = bytearray(joined(parts))
    daemon.create("vol0", [f"concat:{x}@2M+3M;{y};{x}@6M+1M", t.path("b.img")])
    check(daemon.mirror("vol0")["volumes"][0]["size"] == 12 * MIB, "the size is not that of the parts")
    chance = random.Random(3)
    handle = open_handle(daemon.uri("vol0"))
    for edge in (3 * MIB, 11 * MIB):  # what crosses into the next part, aligned or not
        for _ in range(12):
            offset = edge - chance.randrange(1, 100 * KIB)
            data = chance.randbytes(edge - offset + chance.randrange(1, 100 * KIB))
            handle.pwrite(data, offset)
            holds[offset:offset + len(data)] = data
            check(handle.pread(len(data), offset) == data, f"{len(data)} bytes at {offset} are not what was written")
    handle.zero(9 * MIB, 5 * MIB // 2)  # over all three
    holds[5 * MIB // 2:5 * MIB // 2 + 9 * MIB] = bytes(9 * MIB)
    handle.trim(4096, 3 * MIB - 4096)
    holds[3 * MIB - 4096:3 * MIB] = handle.pread(4096, 3 * MIB - 4096)
    check(handle.pread(12 * MIB, 0) == bytes(holds), "what is read is not what was written")
    handle.shutdown()
    daemon.wait_synchronized("vol0")
    daemon.tarn("mirror", "deactivate", "vol0")
    check(joined(parts) == bytes(holds), "the parts do not hold the volume's bytes")
    check(images.read_at(t.path("b.img"), 0, 12 * MIB) == bytes(holds), "the other image is not equal")
    check(joined([(x, 0, 2 * MIB), (x, 5 * MIB, MIB), (x, 7 * MIB, MIB)]) ==
          before[0][:2 * MIB] + before[0][5 * MIB:6 * MIB] + before[0][7 * MIB:], "bytes outside the parts have changed")


def test_mirrors_share_a_file(t):
    """A12: mirrors use parts of one file at the same time; it is locked for others until the last one is closed, and a write of one
    is no reason for the other to think that somebody changed its image."""
    daemon = Daemon(t).start()
    pool = t.path("pool.img")
    daemon.create("one", [f"concat:{pool}@0+4M", f"concat:{pool}@8M+4M"])  # made: long enough for both
    check(os.path.getsize(pool) == 12 * MIB, "the file is not as long as its parts need it")
    daemon.create("two", [f"concat:{pool}@4M+4M"])
    write(daemon, 0, b"1" * MIB, "one")
    write(daemon, 0, b"2" * MIB, "two")
    check(images.is_locked(pool), "the file is not locked")
    daemon.tarn("mirror", "deactivate", "one")
    check(images.is_locked(pool), "the file is not locked while another mirror uses it")
    write(daemon, 2 * MIB, b"3" * MIB, "two")
    daemon.tarn("mirror", "activate", "one")
    daemon.tarn("mirror", "deactivate", "two")
    daemon.tarn("mirror", "deactivate", "one")
    check(not images.is_locked(pool), "INACTIVE, and still locked")
    check(joined([(pool, 0, MIB), (pool, 8 * MIB, MIB)]) == b"1" * (2 * MIB), "the first mirror's bytes are not there")
    check(joined([(pool, 4 * MIB, MIB), (pool, 6 * MIB, MIB)]) == b"2" * MIB + b"3" * MIB, "the second's are not there")


def test_a_part_is_lost(t):
    """A12: one part of an image is removed or made shorter: the image is out, and comes back when the part does."""
    daemon = Daemon(t).start()
    x, y = t.path("x.img"), t.path("y.img")
    daemon.create("vol0", [t.path("a.img"), f"concat:{x}@0+8M;{y}@0+8M"], size=SIZE)
    os.rename(y, t.path("away.img"))
    found = wait_out(daemon, "b")
    check("y.img" in (found["reason"] or "") + (found["error"] or ""), f"it is not said which: {found}")
    write(daemon, 10 * MIB, b"x" * MIB)
    os.rename(t.path("away.img"), y)
    daemon.tarn("image", "restore", "vol0", "b", "--wait")
    daemon.wait_synchronized("vol0")
    os.truncate(x, MIB)
    wait_out(daemon, "b")
    daemon.tarn("mirror", "deactivate", "vol0")
    check(images.read_at(y, 2 * MIB, MIB) == b"x" * MIB, "what was missed was not copied")


def test_holes_stay_holes(t):
    """Sparse files keep their holes: when they are copied to parts, and when they are zeroed or trimmed there."""
    daemon = Daemon(t).start()
    x, y = t.path("x.img"), t.path("y.img")
    a = images.make_sparse(t.path("a.img"), SIZE)
    with open(a, "r+b") as file:
        file.seek(7 * MIB)
        file.write(b"d" * (2 * MIB))  # over the boundary
    daemon.create("vol0", [a, f"concat:{x}@0+8M;{y}@0+8M"])
    daemon.wait_synchronized("vol0")
    check(joined([(x, 7 * MIB, MIB), (y, 0, MIB)]) == b"d" * (2 * MIB), "the data is not copied")
    check(images.deallocated(x, 0, 7 * MIB) and images.deallocated(y, MIB, 7 * MIB), "holes are copied as zeroes that take space")
    handle = open_handle(daemon.uri("vol0"))
    handle.zero(2 * MIB, 7 * MIB)
    handle.shutdown()
    check(images.deallocated(x, 0, 8 * MIB) and images.deallocated(y, 0, 8 * MIB), "zeroed, and still taking space")


def test_holes_are_told(t):
    """base:allocation comes through a disk made of parts, over its boundaries, and through an NBD server."""
    server = NbdServer(t)
    parts = images.make_sparse(t.path("x.img"), SIZE)
    for path in (server.file, parts):
        with open(path, "r+b") as file:
            file.seek(7 * MIB)
            file.write(b"d" * (2 * MIB))
    server.start()
    daemon = Daemon(t).start()
    daemon.create("parts", [f"concat:{parts}@0+8M;{parts}@8M+8M"])
    daemon.create("remote", [server.uri()])
    for name in ("parts", "remote"):
        runs = json.loads(t.run("nbdinfo", "--json", "--map", daemon.uri(name)).out)
        told = [(run["offset"], run["length"], run["type"]) for run in runs]
        check(told == [(0, 7 * MIB, 3), (7 * MIB, 2 * MIB, 0), (9 * MIB, 7 * MIB, 3)], f"{name}: {told}")


# ---- block devices ----

@rows([("sectors of 512 bytes", 512), ("sectors of 4096 bytes", 4096)])
def test_block_devices(t, row):
    """A device's size is its own; it is opened for nobody else; requests of any size and place work whatever its sectors;
    trimmed space is given back."""
    _, sector = row
    files = [images.make_random(t.path(f"{name}.raw"), SIZE, seed=index) for index, name in enumerate("ab")]
    with loop_device(t, files[0], "--sector-size", sector, "--direct-io=on") as a, loop_device(t, files[1]) as b:
        daemon = Daemon(t).start()
        daemon.create("vol0", [a, f"concat:{b}@0+8M;{b}@8M+8M,overwrite"])
        check(daemon.mirror("vol0")["volumes"][0]["size"] == SIZE, "the size is not the device's")
        daemon.wait_synchronized("vol0")
        for device in (a, b):
            result = t.run("python3", "-c", f"import os; os.open('{device}', os.O_RDWR | os.O_EXCL)", status=None)
            check("busy" in result.err.lower(), f"{device} can be had by others: {result}")
        handle = open_handle(daemon.uri("vol0"))
        handle.pwrite(b"odd" * 333, 8 * MIB - 500)  # over the boundary, and over sectors' edges
        handle.zero(MIB, 2 * MIB)
        handle.trim(MIB, 4 * MIB)
        handle.flush()
        check(handle.pread(999, 8 * MIB - 500) == b"odd" * 333, "unaligned bytes are not there")
        check(handle.pread(MIB, 2 * MIB) == bytes(MIB), "not zeroed")
        handle.shutdown()
        daemon.tarn("mirror", "deactivate", "vol0")
        images.check_same([a, b], SIZE)
        if sector == 4096:
            check(images.deallocated(files[0], 2 * MIB, MIB), "zeroes on a device that can discard still take space")
        daemon.stop()


def test_a_device_fails_and_grows(t):
    """A device in use that loses a part of what it holds is out; with more space than before it is used as far as the volume goes."""
    path = images.make_sparse(t.path("b.raw"), SIZE)
    with loop_device(t, path) as device:
        daemon = Daemon(t).start()
        a = images.make_random(t.path("a.img"), SIZE)
        daemon.create("vol0", [a, f"{device},overwrite"])
        daemon.wait_synchronized("vol0")
        os.truncate(path, SIZE // 2)
        t.run("losetup", "--set-capacity", device)
        found = wait_out(daemon, "b")
        check(device in (found["reason"] or "") + (found["error"] or ""), f"it is not said which: {found}")
        write(daemon, 12 * MIB, b"x" * MIB)
        result = daemon.tarn("image", "restore", "vol0", "b", status=1)
        check("small" in result.err, f"it does not say why: {result}")
        os.truncate(path, 2 * SIZE)
        t.run("losetup", "--set-capacity", device)
        daemon.tarn("image", "restore", "vol0", "b", "--wait")
        daemon.wait_synchronized("vol0")
        daemon.tarn("mirror", "deactivate", "vol0")
        images.check_same([a, device], SIZE)
        daemon.stop()


def test_a_device_that_fails_writes(t):
    """A device that cannot do a write any more (the disk that it lies on is full) is out, the other image has everything. Detached
    while it is in use it stays until it is closed; then it is missing, and said to be."""
    path = images.make_sparse(os.path.join(small_disk(t, "small", 6 * MIB), "b.raw"), SIZE)
    daemon = Daemon(t).start()
    with loop_device(t, path) as device:
        daemon.create("vol0", [t.path("a.img"), f"{device},overwrite"], size=SIZE)
        daemon.wait_synchronized("vol0")
        for offset in range(0, SIZE, MIB):
            write(daemon, offset, b"w" * MIB)
        wait_out(daemon, "b")
        t.run("losetup", "--detach", device)
        daemon.tarn("mirror", "deactivate", "vol0")
        daemon.tarn("mirror", "activate", "vol0")
        found = image(daemon, "b")
        check(found["missing"] and device in (found["reason"] or "") + (found["error"] or ""), f"it is not said: {found}")
    check(images.read_at(t.path("a.img"), 0, SIZE) == b"w" * SIZE, "the other image has not got everything")


# ---- NBD servers ----

def new_nbd_mirror(t, server, *settings, arguments=()):
    daemon = Daemon(t, arguments=arguments).start()
    daemon.create("vol0", [t.path("a.img"), f"{server.uri()},overwrite"], size=SIZE)
    daemon.wait_synchronized("vol0")
    if settings:
        daemon.tarn("image", "set", "vol0", "b", *settings)
    return daemon


ABILITIES = [
    ("all it can", [], Mix()),
    ("no FUA of its own", ["--filter=fua"], Mix(fua=50)),
    ("no zeroes", ["--filter=nozero"], Mix(zeroes=0, trims=0)),
    ("blocks of 4096", ["--filter=blocksize-policy", "blocksize-minimum=4096", "blocksize-preferred=4096",
                        "blocksize-maximum=64K", "blocksize-error-policy=error"], Mix()),
    ("slow, and in any order", ["--filter=delay", "rdelay=5ms", "wdelay=20ms"], Mix()),
]


@rows(ABILITIES)
def test_servers_of_every_ability(t, row):
    """A server is asked for no more than it can, and every byte is where it belongs."""
    _, words, mix = row
    server = NbdServer(t, options=[word for word in words if word.startswith("--")])
    server.plugin += [word for word in words if not word.startswith("--")]
    server.start()
    daemon = new_nbd_mirror(t, server)
    ledger = Ledger(SIZE // SECTOR)
    load = Load(ledger, daemon.uri("vol0"), connections=2, depth=32, seed=5, mix=mix)
    load.run(1.5)
    load.drain()
    load.close()
    check(image(daemon, "b")["state"] == "SYNCHRONIZED", f"its image is out: {image(daemon, 'b')}")
    daemon.tarn("mirror", "deactivate", "vol0")
    server.kill()
    images.check_same([t.path("a.img"), server.file], SIZE)
    ledger.check_all(lambda offset, length: images.read_at(server.file, offset, length))


def test_a_server_dies_and_returns(t):
    """Rules 5 and 7: a lost connection is a failure and a return, never silent: the image is out though its server is back at once,
    nothing is written there before nbd-settle has passed, and then only what it missed."""
    server = NbdServer(t).start()
    daemon = new_nbd_mirror(t, server, "nbd-settle=3")
    ledger = Ledger(SIZE // SECTOR)
    load = Load(ledger, daemon.uri("vol0"), connections=2, depth=16, seed=7)
    load.run(0.5)
    load.burst(16)
    server.kill()
    server.start()
    load.run(0.5)
    load.drain()
    load.close()
    check(wait_out(daemon, "b")["missing"] == "failed", "a server that was away is used as if nothing had been")
    images_before = images.digest(server.file)
    started = time.monotonic()
    restore = t.spawn(*daemon.tarn_argv("image", "restore", "vol0", "b", "--wait"))
    while restore.poll() is None and time.monotonic() < started + 1:
        check(images.digest(server.file) == images_before, "written to before nbd-settle has passed")
        time.sleep(0.2)
    check(restore.wait(40) == 0, "restore failed")
    daemon.wait_synchronized("vol0")
    daemon.tarn("mirror", "deactivate", "vol0")
    server.kill()
    images.check_same([t.path("a.img"), server.file], SIZE)
    ledger.check_all(lambda offset, length: images.read_at(server.file, offset, length))


def test_metadata_that_is_made_while_a_server_settles(t):
    """The metadata of an image is lost, and the image is restored while its server may still do old requests. Metadata is made for it: what
    lies at its path when nbd-settle has passed is what the image uses, not a file that was removed meanwhile."""
    server = NbdServer(t).start()
    daemon = new_nbd_mirror(t, server, "nbd-settle=5", "return=manual")
    load = Load(Ledger(SIZE // SECTOR), daemon.uri("vol0"), connections=2, depth=16, seed=7)
    load.burst(16)
    server.kill()
    server.start()
    load.drain()
    load.close()
    wait_out(daemon, "b")
    metadata = f"{daemon.state}/meta/vol0-b.tarn"
    os.unlink(metadata)
    daemon.tarn("image", "restore", "vol0", "b", "--wait")
    files = t.run("ls", "-l", f"/proc/{daemon.pid()}/fd", status=None, quiet=True).out
    check(f"{metadata} (deleted)" not in files and metadata in files, "the metadata of image b is not in the file at its path")
    daemon.restart()
    daemon.wait_synchronized("vol0")
    daemon.stop()


def test_settling_after_a_kill(t):
    """Rule 7: a daemon that was killed may have left requests in the server: the next one waits for nbd-settle, counted from its
    start. After a clean stop of a mirror whose images took part nobody waits."""
    server = NbdServer(t).start()
    daemon = new_nbd_mirror(t, server, "nbd-settle=2")
    daemon.restart()
    daemon.wait_synchronized("vol0")
    check("nbd-settle" not in daemon.log(), "it waits after a clean stop")
    daemon.kill()
    daemon.start()
    daemon.wait_synchronized("vol0")
    check(re.search(r"vol0: waits [12] s .*nbd-settle", daemon.log()), "it does not wait after a kill")
    check(image(daemon, "b")["missing"] is None, "the image is missing")
    daemon.stop()


def new_late_mirror(t):
    server = NbdServer(t).start()
    late = LateServer(t, server)
    daemon = Daemon(t).start()
    daemon.create("vol0", [t.path("a.img"), f"{late.uri()},overwrite,meta={t.path('b.tarn')}"], size=SIZE)
    daemon.wait_synchronized("vol0")
    daemon.tarn("image", "set", "vol0", "b", "hang=1", "return-after=0", "nbd-settle=5")
    return server, late, daemon


def overtake(daemon, late):
    """A write that image b's server keeps; image b is put out; then a newer one at the same place."""
    late.holds = True
    handle = open_handle(daemon.uri("vol0"))
    handle.pwrite(b"O" * 4096, MIB)
    threading.Timer(3, late.release.set).start()
    handle.pwrite(b"N" * 4096, MIB)
    handle.flush()
    handle.shutdown()
    late.holds = False


def check_newest(server, daemon, late):
    """The server does what the lost connection had asked for 3 s after that was lost, well within nbd-settle."""
    daemon.wait_synchronized("vol0")
    check(late.done.wait(30), "the late request was not done")
    daemon.wait_synchronized("vol0")
    found = images.read_at(server.file, MIB, 4096)
    check(found == b"N" * 4096, f"image b is SYNCHRONIZED, and holds {found[:1]} in place of what was flushed since")


def test_settling_after_a_clean_stop(t):
    """Rule 7: a connection was lost with requests under way, and the daemon is stopped cleanly and started again before nbd-settle
    has passed: nothing is written there before that."""
    server, late, daemon = new_late_mirror(t)
    overtake(daemon, late)
    daemon.restart()
    check_newest(server, daemon, late)


def test_settling_after_an_import(t):
    """Rule 7: a daemon was killed with requests under way, its state directory is lost, and the mirror is imported."""
    server, late, daemon = new_late_mirror(t)
    late.holds = True
    handle = open_handle(daemon.uri("vol0"))
    handle.aio_pwrite(bytearray(b"O" * 4096), MIB)
    wait_for("the write to be under way", lambda: images.read_at(t.path("a.img"), MIB, 4096) == b"O" * 4096)
    daemon.kill()
    threading.Timer(3, late.release.set).start()
    late.holds = False
    shutil.rmtree(daemon.state)
    daemon.start()
    daemon.tarn("mirror", "import", t.path("a.img"), f"{late.uri()},meta={t.path('b.tarn')}")
    daemon.tarn("mirror", "activate", "vol0")
    handle = open_handle(daemon.uri("vol0"))
    handle.pwrite(b"N" * 4096, MIB)
    handle.flush()
    handle.shutdown()
    check_newest(server, daemon, late)


@rows([("two mirrors", "image"), ("one that is being created", "create")])
def test_one_export_for_two(t, row):
    """Two commands at the same time give one export to two mirrors. The later one is refused: an export has no lock that would keep it
    out."""
    _, second = row
    server = NbdServer(t, options=["--filter=delay"])
    server.plugin.append("delay-open=1")
    server.start()
    daemon = Daemon(t).start()
    for name in ("one", "two"):
        daemon.create(name, [t.path(f"{name}.img")], size=SIZE)
    words = [["image", "add", "one", f"{server.uri()},overwrite,meta={t.path('m1.tarn')}", "--wait"],
             ["image", "add", "two", f"{server.uri()},overwrite,meta={t.path('m2.tarn')}", "--wait"] if second == "image" else
             ["mirror", "create", "three", "--image", f"{server.uri()},meta={t.path('m2.tarn')}", "--activate"]]
    adding = [t.spawn(*daemon.tarn_argv(*each), stderr=subprocess.PIPE, text=True) for each in words]
    said = [process.communicate(timeout=60)[1] for process in adding]
    statuses = [process.returncode for process in adding]
    check(sorted(statuses) == [0, 1], f"the commands ended with {statuses}: {said}")
    refused = said[statuses.index(1)]
    check("belongs to image" in refused and len(refused.splitlines()) == 1, f"it is refused with: {refused}")


def test_a_server_over_tcp(t):
    """The address of an export over TCP, with a port, by name; and its metadata in the state directory."""
    server = NbdServer(t, name="tcp")
    port = 20000 + os.getpid() % 20000
    process = t.spawn("nbdkit", "--foreground", "--ipaddr", "127.0.0.1", "--port", port, "--exportname", "x", "file",
                      server.file)
    daemon = Daemon(t).start()
    words = [t.path("a.img"), f"nbd://localhost:{port}/x,overwrite"]
    wait_for("nbdkit to listen", lambda: daemon.tarn(
        "mirror", "create", "vol0", "--size", SIZE, "--image", words[0], "--image", words[1], "--activate",
        status=None).status == 0, 10, every=0.2)
    daemon.wait_synchronized("vol0")
    write(daemon, MIB, b"t" * MIB)
    check(os.path.exists(os.path.join(daemon.state, "meta", "vol0-b.tarn")), "its metadata is not in the state directory")
    daemon.tarn("mirror", "deactivate", "vol0")
    daemon.tarn("mirror", "destroy", "--force", "vol0")
    check(images.read_at(server.file, MIB, MIB) == b"t" * MIB, "it is not there")
    check(not os.path.exists(os.path.join(daemon.state, "meta", "vol0-b.tarn")), "its metadata was not removed")
    process.terminate()


def test_added_and_removed(t):
    """B15: images on parts and on an NBD server are added to a mirror that serves, copied to, and removed; what they hold is left,
    their metadata goes."""
    server = NbdServer(t).start()
    daemon = Daemon(t).start()
    x = t.path("x.img")
    images.make_random(t.path("a.img"), SIZE)
    daemon.create("vol0", [t.path("a.img")])
    for image_word, words in ((f"p=concat:{x}@0+8M;{x}@8M+8M", ()), (f"n={server.uri()},overwrite", ())):
        daemon.tarn("image", "add", "vol0", image_word, "--wait", *words)
    refused = daemon.tarn("image", "add", "vol0", f"q={server.uri()},overwrite", status=1)
    check("same export" in refused.err, f"the same export again is not refused for that: {refused}")
    refused = daemon.tarn("image", "add", "vol0", f"q=concat:{x}@4M+16M", status=1)
    check("overlap" in refused.err or "small" in refused.err, f"used parts are not refused for that: {refused}")
    daemon.wait_synchronized("vol0")
    meta = os.path.join(daemon.state, "meta")
    check(sorted(os.listdir(meta)) == ["vol0-n.tarn", "vol0-p.tarn"], f"metadata: {os.listdir(meta)}")
    write(daemon, 5 * MIB, b"a" * MIB)
    for name in "pn":
        daemon.tarn("image", "remove", "vol0", name, "--wait")
    check(not os.listdir(meta), f"metadata that is left: {os.listdir(meta)}")
    daemon.stop()
    server.kill()
    images.check_same([t.path("a.img"), x, server.file], SIZE)


# ---- all together ----

def test_everything_at_once(t):
    """A12, C1, rules 2, 5, 7: a mirror of a file, parts, a device and an NBD export, with faults, kills of the server and of the daemon
    with requests in flight. What was answered is there, and all images are equal at the end."""
    server = NbdServer(t).start()
    x, y, raw = t.path("x.img"), t.path("y.img"), images.make_sparse(t.path("c.raw"), SIZE)
    with loop_device(t, raw) as device:
        daemon = Daemon(t, arguments=["--enable-faults"]).start()
        daemon.create("vol0", [t.path("a.img"), f"concat:{x}@4K+8M;{y}@0+8M", f"{device},overwrite",
                               f"{server.uri()},overwrite"], size=SIZE)
        for name in "bcd":
            daemon.tarn("image", "set", "vol0", name, "return-after=1", "nbd-settle=1")
        daemon.wait_synchronized("vol0")
        ledger = Ledger(SIZE // SECTOR)
        for cycle in range(3):
            load = Load(ledger, daemon.uri("vol0"), connections=2, depth=24, seed=cycle)
            load.run(0.5)
            if cycle == 0:
                daemon.tarn("fault", "vol0", "b", "fail", "--range", "8M+64K", "--on", "write")
                daemon.tarn("fault", "vol0", "d", "delay=5")
            load.run(0.5)
            if cycle == 0:
                daemon.tarn("fault", "vol0", "b", "heal")
                daemon.tarn("fault", "vol0", "d", "heal")
            if cycle == 1:
                server.kill()
                load.run(0.5)
                server.start()
            load.burst(64)
            daemon.process.send_signal(signal.SIGKILL)
            daemon.process.wait()
            load.bury()
            daemon.start()
            daemon.wait_state("vol0", "ACTIVE")
            handle = open_handle(daemon.uri("vol0"))
            ledger.check_all(read_volume(handle))
            handle.shutdown()
            daemon.wait_synchronized("vol0")
        daemon.stop()
        server.kill()
        images.check_same([t.path("a.img"), device, server.file], SIZE)
        check(joined([(x, 4 * KIB, 8 * MIB), (y, 0, 8 * MIB)]) == images.read_at(device, 0, SIZE), "the parts are not equal")
        ledger.check_all(lambda offset, length: images.read_at(device, offset, length))
