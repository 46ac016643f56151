"""One disk that hangs harms nobody else (thesis 8): devices, file systems and servers that keep what they were asked, under load,
beside mirrors that lie elsewhere. What must go on is waited for while the hang still holds; nothing is measured."""
import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

import nbd

from lib import images
from lib.context import check, limit, rows, wait_for
from lib.daemon import Daemon
from lib.disks import NbdServer, new_loop
from lib.images import KIB, MIB
from lib.ledger import SECTOR, stamp
from lib.load import open_handle
from lib.mirror import SIZE, Mirror
from lib.small_disk import loop_file_system, own_mounts
from lib.volatile_disk import LoopDevice, VolatileDisk, does_hang

CONNECTIONS, DEPTH = 16, 128  # more than a disk takes and the kernel has threads for, of 256 for all files
OPENING = (257, 262, 332)  # openat, newfstatat, statx


def other_mirror(mirror, name="other", *settings):
    """A mirror in the same daemon that has nothing to do with the first one."""
    paths = [os.path.join(mirror.folder, f"{name}-{image}.img") for image in "ab"]
    mirror.daemon.create(name, paths, size=4 * MIB)
    for image in "ab":
        mirror.daemon.tarn("image", "set", name, image, *settings)
    return name


def use(mirror, name):
    """Everything that a client can ask, on this mirror: all of it is answered, and no image is the worse for it."""
    handle = nbd.NBD()
    handle.add_meta_context("base:allocation")
    handle.connect_uri(mirror.daemon.uri(name))
    for start in range(0, MIB, 64 * KIB):
        handle.pwrite(b"\x5a" * 64 * KIB, start)
        handle.flush()
        check(handle.pread(64 * KIB, start) == b"\x5a" * 64 * KIB, f"{name} reads back something else")
    handle.trim(256 * KIB, 2 * MIB)
    handle.zero(256 * KIB, 3 * MIB)
    handle.block_status(4 * MIB, 0, lambda *_: 0)
    handle.flush()
    handle.shutdown()


def check_well(mirror, name):
    for image in mirror.daemon.mirror(name)["images"]:
        check(not image["missing"], f"image {image['name']} of {name} is out: {image['reason']}")


class Flood:
    """Many writes in flight to a mirror at once, sent and taken by threads until they are told to end."""

    def __init__(self, mirror, connections, depth):
        self.handles = [open_handle(mirror.daemon.uri("vol0")) for _ in range(connections)]
        self.depth, self.done, self.over = depth, 0, False
        self.threads = [threading.Thread(target=self.run, args=(handle, i), daemon=True) for i, handle in enumerate(self.handles)]
        for thread in self.threads:
            thread.start()

    def run(self, handle, index):
        """Each in a part of the volume of its own, since writes that overlap would wait for each other, and leaving gaps: those that
        meet would be merged into few, which a disk can hold all of."""
        buffer, part, sent = nbd.Buffer.from_bytearray(bytearray(os.urandom(4 * KIB))), SIZE // len(self.handles), 0
        while not self.over or handle.aio_in_flight() > 0:
            while not self.over and handle.aio_in_flight() < self.depth:
                sent += 1
                handle.aio_pwrite(buffer, index * part + sent * 8 * KIB % part, self.ended)
            handle.poll(100)

    def ended(self, error):
        check(error.value == 0, f"a write failed: {os.strerror(error.value)}")
        self.done += 1
        return 1

    def end(self):
        self.over = True
        for thread in self.threads:
            thread.join()
        for handle in self.handles:
            handle.shutdown()


@limit(180)
def test_a_device_that_hangs_under_load_is_alone(t):
    """Rule 7, thesis 8: a block device hangs with as many requests as a client sends at once. Its image is put out, the other image of
    its mirror goes on, and so does a mirror on other files. 256 kernel threads for all files, and 1,024 requests for a file, were
    enough to take the healthy images of both out."""
    disk = VolatileDisk(t, "d", SIZE)
    disk.power_on()
    mirror = Mirror(t, count=1)
    mirror.daemon.tarn("image", "add", "vol0", f"d={disk.path},overwrite", "--wait")
    for name in "ad":
        mirror.op("set", name, "hang=2", "return=manual")
    mirror.wait_in("d")
    other = other_mirror(mirror, "other", "hang=2", "return=manual")
    flood = Flood(mirror, CONNECTIONS, DEPTH)
    wait_for("writes under way", lambda: flood.done > 1000)
    disk.hang()
    image = mirror.wait_out("d")
    check(image["held_requests"] > 0, f"it holds no requests: {image}")
    before = flood.done
    wait_for("the mirror to go on", lambda: flood.done > before + 1000)
    use(mirror, other)
    check_well(mirror, other)
    check(not mirror.image("a")["missing"], f"the healthy image is out: {mirror.image('a')['reason']}")
    check(mirror.image("d")["held_requests"] > 0, "the hang is over already")
    disk.go_on()
    flood.end()
    mirror.wait_image("d", "quiet", lambda image: image["held_requests"] == 0)
    mirror.op("restore", "d", "--wait")
    mirror.daemon.stop()
    images.check_same([mirror.path("a"), disk.medium], SIZE)


@limit(180)
def test_a_file_system_that_hangs_stops_nobody_else(t):
    """Thesis 8: the disk below an ext4 hangs, and a write comes now and then. Each changes the file's times, and that waits for the
    journal once that hangs, also where the write itself would not wait for anything: whoever writes stands still, and it must not
    be the reactor."""
    disk, folder = VolatileDisk(t, "d", 8 * SIZE), t.path("ext4")
    disk.power_on()
    t.run("losetup", "--direct-io=on", disk.path)  # else its writes would end in the page cache of what is below
    os.mkdir(folder)
    t.run("mkfs.ext4", "-q", "-F", disk.path)
    t.run("mount", "-o", "commit=1", disk.path, folder)
    path = images.make_random(f"{folder}/d.img", SIZE)
    mirror = Mirror(t, count=1)
    mirror.daemon.tarn("image", "add", "vol0", f"d={path},meta={mirror.folder}/d.tarn,overwrite", "--wait")
    mirror.wait_in("d")
    mirror.op("set", "d", "hang=12", "return=manual")
    other = other_mirror(mirror, "other", "hang=12", "return=manual")
    handle, answers = open_handle(mirror.daemon.uri("vol0")), []
    for start in range(0, SIZE, MIB):  # so that no write needs new blocks
        handle.pwrite(os.urandom(MIB), start)
    handle.flush()
    disk.hang()
    for sent in itertools.count():
        buffer = nbd.Buffer.from_bytearray(bytearray(os.urandom(4 * KIB)))
        handle.aio_pwrite(buffer, sent * 64 * KIB % SIZE, lambda error: answers.append(error.value) or 1)
        handle.poll(200)
        if mirror.image("d")["missing"]:
            break
    use(mirror, other)
    check_well(mirror, other)
    check(mirror.image("d")["held_requests"] > 0, "the hang is over already")
    disk.go_on()
    wait_for("the writes to be answered", lambda: handle.poll(100) and len(answers) > sent)
    check(not any(answers), f"writes failed: {answers}")
    handle.shutdown()
    mirror.wait_image("d", "quiet", lambda image: image["held_requests"] == 0)
    mirror.op("restore", "d", "--wait")
    mirror.daemon.stop()
    images.check_same([mirror.path("a"), path], SIZE)
    t.run("umount", folder)


@contextlib.contextmanager
def gated_disk(t, size):
    """A file whose fsync waits as long as a gate is shut: nbdfuse over nbdkit. Gives its path, and the gate's."""
    disk = VolatileDisk(t, "gated", size, kind="fuse")  # its folder and its mounts
    gate, file = t.path("gate"), disk.medium
    server = t.spawn("nbdkit", "--foreground", "--unix", disk._socket(), "eval", "thread_model=echo parallel",
                     f"get_size=echo {size}", "can_write=exit 0", "can_flush=exit 0", "can_zero=exit 0", "can_trim=exit 3",
                     f"pread=dd if={file} iflag=skip_bytes,count_bytes skip=$4 count=$3 status=none",
                     f"pwrite=dd of={file} oflag=seek_bytes conv=notrunc seek=$4 status=none",
                     f"zero=dd if=/dev/zero of={file} iflag=count_bytes count=$3 oflag=seek_bytes conv=notrunc seek=$4 status=none",
                     f"flush=while test -e {gate}; do touch {gate}.met; sleep 0.05; done")
    wait_for("nbdkit to listen", lambda: os.path.exists(disk._socket()))
    t.spawn("nbdfuse", f"{disk._mountpoint()}/gated", disk.uri())
    path = os.path.join(disk._mountpoint(), "gated")
    wait_for("the file", lambda: os.path.exists(path))
    try:
        yield path, gate
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(gate)
        check(server.poll() is None, "nbdkit ended")


@limit(180)
def test_an_fsync_that_hangs_holds_nobody_else(t):
    """Thesis 8: what an image's files are like is asked for at an activation, and their time is durable only after an fsync. On a file
    system where that hangs it kept the reactor, and with it every client of every mirror."""
    with gated_disk(t, MIB) as (path, gate):
        mirror = Mirror(t, count=2)
        mirror.daemon.create("slow", [f"g={path},meta={mirror.folder}/g.tarn,overwrite"], size=MIB, activate=False)
        mirror.daemon.tarn("image", "set", "slow", "g", "hang=600")
        open(gate, "wb").close()
        activating = subprocess.Popen(mirror.daemon.tarn_argv("mirror", "activate", "slow"))
        wait_for("an fsync under way", lambda: os.path.exists(f"{gate}.met"))
        use(mirror, "vol0")
        check_well(mirror, "vol0")
        check(mirror.daemon.mirror("slow")["state"] != "ACTIVE", "the fsync did not hang")
        os.unlink(gate)
        activating.wait()
        mirror.daemon.wait_state("slow", "ACTIVE")
        mirror.daemon.stop()


@contextlib.contextmanager
def mute_server(t):
    """Takes connections, and says nothing. Gives its address, and the list of those that it has."""
    path, connections = t.path("mute.sock"), []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(100)

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connections.append(server.accept()[0])

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"nbd+unix:///?socket={path}", connections
        finally:
            server.shutdown(socket.SHUT_RDWR)


@limit(180)
def test_a_mute_server_holds_nobody_else(t):
    """Thesis 8: each connect to an NBD server that says nothing waits for 10 s. As many as there were threads for all that
    blocks kept a question about holes waiting, and the healthy file that it was about was put out for it."""
    count = 24
    mirror = Mirror(t, count=2, image_settings=("hang=2", "return=manual"))
    for i in range(count):
        mirror.daemon.create(f"m{i}", [f"{mirror.folder}/m{i}.img"], size=MIB, activate=True)
    with mute_server(t) as (uri, connections):
        exports = [uri.replace("?", f"{i}?") for i in range(count)]
        adding = [subprocess.Popen(mirror.daemon.tarn_argv("image", "add", f"m{i}", f"n={exports[i]}"), stderr=subprocess.DEVNULL)
                  for i in range(count)]
        wait_for("connects under way", lambda: len(connections) >= 16)
        while any(one.poll() is None for one in adding):
            use(mirror, "vol0")
        check_well(mirror, "vol0")
        check(len(connections) == count, f"{len(connections)} connects of {count}")
    mirror.daemon.stop()


@limit(180)
def test_much_long_work_is_no_hang(t):
    """Rule 7: a server that zeroes 2 MiB in 0.4 s, four at a time, gets 32 of these at once. It does what it can, and its mirror does
    not fall with hang=1: it is given a little at a time, and its clock runs for that."""
    count, piece = 32, 2 * MIB
    server = NbdServer(t, size=count * piece, options=["--threads", "4", "--filter=delay"])
    server.plugin += ["delay-zero=400ms"]
    server.start()
    mirror = Mirror(t)
    mirror.daemon.create("long", [f"n={server.uri()},overwrite"], size=count * piece)
    mirror.daemon.tarn("image", "set", "long", "n", "hang=1")
    handle = open_handle(mirror.daemon.uri("long"))
    cookies = [handle.aio_zero(piece, i * piece) for i in range(count)]
    while cookies:
        handle.poll(100)
        cookies = [cookie for cookie in cookies if not handle.aio_command_completed(cookie)]
    check(mirror.daemon.mirror("long")["state"] == "ACTIVE", "the mirror fell")
    handle.shutdown()
    mirror.daemon.stop()


@limit(180)
def test_a_shared_device_that_hangs_is_noticed_by_all(t):
    """Rule 7: two mirrors have images on parts of one device, and it hangs with all that it takes from the first one. What the second
    one asks of it stands in a line of ours; but nothing moves there, so its image is put out, too, and its clients are answered."""
    disk = VolatileDisk(t, "d", 2 * SIZE)
    disk.power_on()
    mirror = Mirror(t, count=1)
    mirror.daemon.tarn("image", "add", "vol0", f"d=concat:{disk.path}@0+{SIZE},meta={mirror.folder}/d.tarn,overwrite", "--wait")
    mirror.daemon.create("other", [f"{mirror.folder}/other-a.img",
                                   f"d=concat:{disk.path}@{SIZE}+4M,meta={mirror.folder}/other-d.tarn,overwrite"], size=4 * MIB)
    for name, image in (("vol0", "a"), ("vol0", "d"), ("other", "a"), ("other", "d")):
        mirror.daemon.tarn("image", "set", name, image, "hang=2", "return=manual")
    mirror.wait_in("d")
    flood = Flood(mirror, CONNECTIONS, DEPTH)
    wait_for("writes under way", lambda: flood.done > 1000)
    disk.hang()
    mirror.wait_out("d")
    using = threading.Thread(target=use, args=(mirror, "other"), daemon=True)
    using.start()
    using.join(60)
    check(not using.is_alive(), "the clients of the other mirror wait for a disk that hangs")
    check(mirror.image("d")["held_requests"] > 0, "the hang is over already")
    disk.go_on()
    flood.end()
    mirror.daemon.stop()


# ---- what a past life of a mirror has left with a disk that hangs ----

@contextlib.contextmanager
def write_under_way(mirror):
    """A write that nobody has answered yet; at the end it is, well."""
    handle = open_handle(mirror.daemon.uri("vol0"))
    ended = []
    write = mirror.ledger.send(8192, 8)
    handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(stamp(write.id, 8192, 8))), 8192 * SECTOR,
                      lambda error: ended.append(error.value) or 1)
    yield

    def has_ended():
        handle.poll(10)
        return ended
    wait_for("the write to be answered", has_ended)
    check(ended == [0], f"the write failed: {ended}")
    mirror.ledger.answered(write)
    handle.flush()
    handle.shutdown()


def fall(mirror):
    """The last good image hangs for a moment, and clients notice nothing but that it takes longer."""
    lives = mirror.daemon.log().count("vol0: is ACTIVE")
    mirror.fault("a", "hang")
    with write_under_way(mirror):
        mirror.daemon.wait_state("vol0", "ATTENTION")
        mirror.fault("a", "heal")
    mirror.daemon.wait_state("vol0", "ACTIVE")
    check(mirror.daemon.log().count("vol0: is ACTIVE") > lives, "it has not fallen")


def check_aside(mirror, name):
    """Its disk holds what a past life has asked, which everybody is told; and nobody opens or forgets it."""
    image = mirror.image(name)
    check(image["held_requests"] > 0, f"it holds no requests: {image}")
    check(image["missing"] and "not answered" in str(image["error"]), f"it is shown as {image}")
    check(f"disk of image {name} has answered" in mirror.daemon.tarn("status", "vol0").out, "people are not told who holds up what")
    check("not answered" in mirror.op("restore", name, status=1).err, "it is not said why it cannot come back")


@contextlib.contextmanager
def device_that_hangs(t, mirror, meta):
    """Image d of the mirror is on a device that hangs. Gives where its bytes are, and what lets it go on."""
    disk = VolatileDisk(t, "d", SIZE + 16 * MIB)
    disk.power_on()
    mirror.daemon.tarn("image", "add", "vol0", f"d={disk.path},overwrite{meta}", "--wait")
    yield disk.medium, disk.hang, disk.go_on


@contextlib.contextmanager
def part_that_hangs(t, mirror, meta):
    """Image d is on a part of a file that image a of another mirror has another part of, which must go on."""
    path = images.make_sparse(f"{mirror.folder}/shared", SIZE + 4 * MIB)
    mirror.daemon.tarn("image", "add", "vol0", f"d=concat:{path}@0+{SIZE},meta={mirror.folder}/d.tarn,overwrite{meta}", "--wait")
    mirror.daemon.create("other", [f"a=concat:{path}@{SIZE}+4M,meta={mirror.folder}/o.tarn,overwrite"], size=4 * MIB)
    yield path, lambda: mirror.fault("d", "hang"), lambda: mirror.fault("d", "heal")
    use(mirror, "other")
    check_well(mirror, "other")


@limit(180)
@rows([("a device", device_that_hangs, ""), ("with its metadata", device_that_hangs, ",meta=tail"), ("a part of a file", part_that_hangs, "")])
def test_a_fall_beside_a_hang(t, row):
    """Rule 7, thesis 8: image d hangs for good, and then the last good one for a moment, so that the mirror falls. It comes back without
    d, again and again, and its clients see no error. Only when d's disk has answered everything it is opened, and comes back by itself."""
    _, place, meta = row
    mirror = Mirror(t, count=1)
    with place(t, mirror, meta) as (medium, hang, go_on):
        mirror.op("set", "a", "hang=1")
        mirror.op("set", "d", "hang=1", "return-after=1")
        mirror.wait_in("d")
        hang()
        mirror.write(8)
        held = mirror.wait_out("d")["held_requests"]
        for life in range(2):
            fall(mirror)
            check(mirror.image("d")["held_requests"] == held, f"what it holds has changed: {mirror.image('d')}")
            check_aside(mirror, "d")
            mirror.write(8, seed=life)
        go_on()
        mirror.wait_in("d")
        check(mirror.image("d")["held_requests"] == 0, "it is opened while its disk holds requests")
        mirror.check_content()
    mirror.daemon.stop()
    images.check_same([mirror.path("a"), medium], SIZE)


@limit(180)
def test_deactivated_and_activated_beside_a_hang(t):
    """Rule 7, thesis 8: a mirror is deactivated and activated as ever while a disk of it hangs, and what is done to the mirror or to that
    image meanwhile leaves its files alone. Another image that hangs, too, is put aside beside the first one."""
    mirror = Mirror(t, count=3, image_settings=("hang=1", "return=manual"))
    for name, seed in (("b", 1), ("c", 2)):
        mirror.fault(name, "hang")
        mirror.write(8, seed=seed)
        mirror.wait_out(name)
        said = mirror.daemon.tarn("mirror", "deactivate", "vol0")
        check(f"image {name} (" in said.err, f"the disk is not named: {said}")
        refused = mirror.daemon.tarn("mirror", "destroy", "--force", "vol0", status=1)
        check(f"image {name} (" in refused.err, f"the disk is not named: {refused.err}")
        mirror.daemon.tarn("mirror", "activate", "vol0")
        check_aside(mirror, name)
    check_aside(mirror, "b")
    mirror.write(8, seed=3)
    mirror.op("remove", "c")
    for name in "bc":
        check(images.is_locked(mirror.path(name)), f"the files of image {name} were closed under the disk's feet")
    mirror.fault("b", "heal")
    mirror.wait_image("b", "nobody's", lambda image: image["held_requests"] == 0 and "not answered" not in str(image))
    check(images.is_locked(mirror.path("c")), "the files of image c were closed with those of image b")
    mirror.op("restore", "b", "--wait")
    mirror.daemon.tarn("fault", "vol0", "c", "heal")
    wait_for("image c to be forgotten", lambda: "c.img.tarn" not in mirror.files() and mirror.image("c") is None)
    check(not images.is_locked(mirror.path("c")), "the files of image c are not released")
    mirror.check_content()
    mirror.stop_and_compare("ab")
    check("panic" not in mirror.daemon.log(), "it panicked")


@limit(180)
def test_a_stop_while_something_is_aside(t):
    """Rule 7: what a past life has left with a disk that hangs keeps the daemon from ending no more than the hang does."""
    mirror = Mirror(t, image_settings=("hang=1", "return=manual"))
    mirror.fault("b", "hang")
    mirror.write(8)
    mirror.wait_out("b")
    fall(mirror)
    check_aside(mirror, "b")
    mirror.daemon.stop()
    mirror.daemon.start()
    mirror.daemon.wait_state("vol0", "ACTIVE")
    mirror.op("restore", "b", "--wait")
    mirror.check_content()
    mirror.stop_and_compare()


@limit(180)
def test_a_mirror_that_a_hang_makes_fall(t):
    """B8, rule 7: one that needs all images falls when a disk hangs. Whoever then says that it may do without goes on without it."""
    mirror = Mirror(t, settings=("max-missing=0", "suspend=600"), image_settings=("hang=1", "return-after=1"))
    mirror.fault("b", "hang")
    with write_under_way(mirror):
        mirror.daemon.wait_state("vol0", "ATTENTION")
        mirror.daemon.tarn("mirror", "set", "vol0", "max-missing=-1")
        mirror.daemon.wait_state("vol0", "ACTIVE")
    check_aside(mirror, "b")
    mirror.write(8)
    mirror.fault("b", "heal")
    mirror.wait_in("b")
    mirror.check_content()
    mirror.stop_and_compare()


def threads_that_open(daemon):
    """How many threads of the daemon are in a call that looks for a file, or opens one."""
    count = 0
    for task in os.listdir(f"/proc/{daemon.process.pid}/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError), \
                open(f"/proc/{daemon.process.pid}/task/{task}/syscall", encoding="ascii") as file:
            count += file.read().split()[0] in {str(number) for number in OPENING}
    return count


STOPPED, FROZEN, PIPE = b"fuse", b"mnt_want_write", b"fifo_open"  # where the kernel keeps who wants something of such


def hangs_in(daemon, where):
    """Does a thread of the daemon wait there? One that only looks at a file may wait for a disk that is well, for a moment."""
    for task in os.listdir(f"/proc/{daemon.process.pid}/task"):
        with contextlib.suppress(OSError), open(f"/proc/{daemon.process.pid}/task/{task}/stack", "rb") as file:
            if where in file.read():
                return True
    return False


@limit(180)
def test_a_file_system_that_hangs_keeps_few_threads(t):
    """Thesis 8: an image's files do not open, because their file system hangs, and its mirror falls and comes back over and over.
    Each time it was tried to open them once more, by a thread that stayed."""
    disk = VolatileDisk(t, "d", SIZE, kind="fuse")
    disk.power_on()
    daemon, good = Daemon(t).start(), t.path("a.img")
    daemon.create("vol0", [good, f"d={disk.path},meta={t.path('d.tarn')},overwrite"], size=SIZE)
    for name in "ad":
        daemon.tarn("image", "set", "vol0", name, "hang=1", "return=manual")
    daemon.wait_synchronized("vol0")
    daemon.tarn("image", "fracture", "vol0", "d")
    disk.fuse.send_signal(signal.SIGSTOP)
    wait_for("the kernel to ask the file system again", lambda: does_hang(disk.path))
    counts = []
    for _ in range(3):
        daemon.tarn("image", "restore", "vol0", "d", status=None)
        check(threads_that_open(daemon) > 0, "no thread waits for its files")
        os.rename(good, f"{good}.away")
        daemon.wait_state("vol0", "ATTENTION")
        os.rename(f"{good}.away", good)
        daemon.wait_state("vol0", "ACTIVE")
        counts.append(threads_that_open(daemon))
    check(counts[-1] == counts[0], f"threads that wait for its files, after each fall: {counts}")
    disk.fuse.send_signal(signal.SIGCONT)
    wait_for("its files to open", lambda: threads_that_open(daemon) == 0)
    for verb in ("deactivate", "activate"):
        daemon.tarn("mirror", verb, "vol0")
    daemon.tarn("image", "restore", "vol0", "d", "--wait")
    daemon.stop()
    images.check_same([good, disk.medium], SIZE)


@limit(180)
def test_a_state_directory_that_hangs_holds_only_what_needs_it(t):
    """Thesis 8: the file system of the state directory hangs, and a mirror falls and is closed. What its record says was read by the
    reactor then, and the daemon did not answer anybody any more."""
    disk, state = VolatileDisk(t, "d", 64 * MIB), t.path("state")
    disk.power_on()
    os.mkdir(state)
    t.run("mkfs.ext4", "-q", "-F", disk.path)
    t.run("mount", disk.path, state)
    daemon, good = Daemon(t).start(), t.path("a.img")
    daemon.create("vol0", [good], size=MIB)
    record = f"{state}/mirrors/vol0/record"
    wait_for("all to be recorded", lambda: time.time() - os.stat(record).st_mtime > 8, every=1)  # new witnesses come each 5 s
    t.run("sync", "--file-system", state)
    disk.hang()
    os.rename(good, f"{good}.away")
    daemon.wait_state("vol0", "ATTENTION")
    os.rename(f"{good}.away", good)
    wait_for("it to be closed and tried again", lambda: "cannot be activated" in daemon.log())
    check(daemon.mirror("vol0")["state"] == "ATTENTION", "the state directory does not hang")
    disk.go_on()
    daemon.wait_state("vol0", "ACTIVE")
    daemon.stop()
    t.run("umount", state)


def add(daemon, path, folder):
    return daemon.tarn_argv("image", "add", "vol0", f"x={path},meta={folder}/x.tarn")


def create(daemon, path, folder):
    return daemon.tarn_argv("mirror", "create", "vol1", "--size", "1M", "--image", f"{path},meta={folder}/x.tarn")


def take(daemon, path, _):
    return daemon.tarn_argv("mirror", "import", path)


@limit(180)
def test_one_file_for_two(t):
    """Two commands at the same time give one file to two mirrors that are INACTIVE, so that no lock is held for long (another meta= for
    each). The first takes its
    time, because another disk of its image hangs; the later one is refused."""
    disk = VolatileDisk(t, "d", SIZE, kind="fuse")
    disk.power_on()
    daemon, path = Daemon(t).start(), images.make_random(t.path("x.img"), MIB)
    daemon.create("two", [t.path("two.img")], size=MIB, activate=False)
    disk.fuse.send_signal(signal.SIGSTOP)
    wait_for("the kernel to ask the file system again", lambda: does_hang(disk.path))
    waiting = t.spawn(*daemon.tarn_argv("mirror", "create", "one", "--image", f"x={path}+{disk.path},meta={t.path('one.tarn')}"))
    wait_for("the daemon to look at it", lambda: hangs_in(daemon, STOPPED))
    second = daemon.tarn("image", "add", "two", f"x={path},meta={t.path('two.tarn')},overwrite", status=None)
    disk.fuse.send_signal(signal.SIGCONT)
    check(waiting.wait(60) == 0, "the first command was refused")
    check(second.status == 1, "both mirrors have the file")
    check("belongs to image x of mirror one, which is being created" in second.err, f"it is refused with: {second.err}")


@limit(180)
@rows([("add", add), ("create", create), ("import", take)])
def test_a_stop_while_a_new_disk_hangs(t, row):
    """Thesis 8: the disk of a new image hangs when it is looked at for the first time. The daemon ends all the same when it is told to, its
    mirrors are closed cleanly, and nothing was begun."""
    _, command = row
    disk = VolatileDisk(t, "d", SIZE, kind="fuse")
    disk.power_on()
    daemon = Daemon(t).start()
    daemon.create("vol0", [t.path("a.img")], size=MIB)
    disk.fuse.send_signal(signal.SIGSTOP)
    wait_for("the kernel to ask the file system again", lambda: does_hang(disk.path))
    waiting = subprocess.Popen(command(daemon, disk.path, t.path("")), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for("the daemon to look at it", lambda: hangs_in(daemon, STOPPED))
    daemon.stop()
    waiting.wait()
    check(waiting.returncode != 0, "the command succeeded")
    check("vol0: is closed cleanly" in daemon.log(), "the mirror was not closed cleanly")
    disk.fuse.send_signal(signal.SIGCONT)
    daemon.start()
    daemon.wait_state("vol0", "ACTIVE")
    check([mirror["name"] for mirror in daemon.json("status")["mirrors"]] == ["vol0"], "something was begun")
    check(len(daemon.mirror("vol0")["images"]) == 1, "an image was added")
    daemon.stop()


@limit(180)
def test_a_fua_that_waits_is_for_a_thread(t):
    """Thesis 8: an image on blocks of 4096 whose size is not a multiple of that goes through the page cache. Its FUA writes end with a
    sync, whatever RWF_NOWAIT says: when the disk hangs that must not be in the reactor."""
    disk, folder, size = VolatileDisk(t, "d", 330 * MIB), t.path("fs"), MIB + 512
    disk.power_on()
    device = new_loop()
    t.run("losetup", "--sector-size", "4096", "--direct-io=on", device, os.path.realpath(disk.path))
    held = os.open(device, os.O_RDWR)
    t.run("losetup", "--detach", device)
    os.mkdir(folder)
    t.run("mkfs.xfs", "-q", "-f", device)
    t.run("mount", device, folder)
    path = images.make_random(f"{folder}/d.img", size)
    daemon = Daemon(t).start()
    daemon.create("vol0", [f"d={path},meta={t.path('d.tarn')}"], size=size)
    daemon.create("other", [t.path("a.img")], size=MIB)
    for _ in range(2):
        handle = open_handle(daemon.uri("vol0"))
        for start in range(0, MIB, 64 * KIB):
            handle.pwrite(os.urandom(4096), start)
        handle.flush()
    disk.hang()
    for start in range(0, 12 * 64 * KIB, 64 * KIB):  # after a plain one: XFS can do it at once if the file's times are of this moment
        for place, flags in ((start, 0), (start, nbd.CMD_FLAG_FUA)):
            handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(os.urandom(4096))), place, flags=flags)
            handle.poll(100)
    asking = subprocess.Popen(daemon.tarn_argv("status"), stdout=subprocess.DEVNULL)
    try:
        wait_for("`tarn status` to end", lambda: asking.poll() is not None)
        check(asking.returncode == 0, "the daemon does not answer while a disk hangs")
    finally:
        disk.go_on()
        asking.wait()
    handle.shutdown()
    daemon.stop()
    t.run("umount", folder)
    os.close(held)


def test_a_start_beside_a_leftover_that_hangs(t):
    """Thesis 8: a mirror was being made, or destroyed, when the daemon ended, and what it leaves lies on a file system that hangs. The
    other mirrors are served all the same, a stop does not wait for it, and the start after that removes it."""
    disk = VolatileDisk(t, "d", SIZE, kind="fuse")
    disk.power_on()
    daemon = Daemon(t).start()
    for name in ("good", "left"):
        daemon.create(name, [t.path(f"{name}.img")], size=MIB)
    daemon.stop()
    config = f"{daemon.state}/mirrors/left/config.json"
    with open(config, encoding="utf-8") as file:
        document = json.load(file)
    document["unmake"] = [os.path.realpath(disk.path)]  # as `create` and `destroy` write it down before they begin
    with open(config, "w", encoding="utf-8") as file:
        json.dump(document, file)
    disk.fuse.send_signal(signal.SIGSTOP)
    try:
        wait_for("the kernel to ask the file system again", lambda: does_hang(disk.path))
        daemon.start()
        daemon.wait_state("good", "ACTIVE")
        check("being removed" in daemon.mirror("left")["reason"], "it is not told that it is being removed")
        taken = daemon.tarn("mirror", "create", "new", "--image", t.path("left.img"), status=1)
        check("belongs to image a of mirror left" in taken.err, f"its file is free: {taken.err}")
        daemon.stop()
        check(os.path.exists(config), "it is forgotten, and was not removed")
    finally:
        disk.fuse.send_signal(signal.SIGCONT)
    daemon.start()
    wait_for("it to be removed", lambda: not os.path.exists(config))
    check([mirror["name"] for mirror in daemon.json("status")["mirrors"]] == ["good"], "it is still there")
    daemon.stop()


@limit(180)
def test_a_stop_beside_a_destruction_that_hangs(t):
    """Thesis 8: the metadata of a mirror lies on a file system that hangs while it is destroyed. A stop does not wait for it; the next
    start goes on with it."""
    disk = VolatileDisk(t, "d", SIZE, kind="fuse")
    disk.power_on()
    daemon = Daemon(t).start()
    daemon.create("vol0", [f"{disk.path},meta={t.path('d.tarn')},overwrite"], size=MIB, activate=False)
    os.rename(t.path("d.tarn"), t.path("d.tarn.away"))
    os.symlink(disk.path, t.path("d.tarn"))
    disk.fuse.send_signal(signal.SIGSTOP)
    try:
        wait_for("the kernel to ask the file system again", lambda: does_hang(disk.path))
        destroying = t.spawn(*daemon.tarn_argv("mirror", "destroy", "vol0"), stderr=subprocess.PIPE, text=True)
        wait_for("the daemon to look at it", lambda: hangs_in(daemon, STOPPED))
        daemon.stop()
        said = destroying.communicate(timeout=30)[1]
    finally:
        disk.fuse.send_signal(signal.SIGCONT)
    check(destroying.returncode == 1 and "at its next start" in said, f"it ended with {destroying.returncode}: {said}")
    daemon.start()
    daemon.stop()


@limit(180)
def test_an_import_that_a_stop_has_left(t):
    """Thesis 8: an import hangs in its disk, the daemon stops and refuses it, and the disk answers before the process is gone: what was
    asked for is not read any more (the sanitized build tells), and a mirror that was refused is not there at the next start."""
    disk = VolatileDisk(t, "d", SIZE, kind="fuse")
    disk.power_on()
    daemon = Daemon(t).start()
    daemon.create("old", [f"{disk.path},meta={t.path('old.tarn')},overwrite"], size=MIB, activate=False)
    shutil.copy(t.path("old.tarn"), t.path("new.tarn"))
    daemon.tarn("mirror", "destroy", "old", "--force")
    disk.fuse.send_signal(signal.SIGSTOP)
    wait_for("the kernel to ask the file system again", lambda: does_hang(disk.path))
    waiting = t.spawn(*daemon.tarn_argv("mirror", "import", f"{disk.path},meta={t.path('new.tarn')}", "newname"))
    wait_for("the daemon to look at it", lambda: hangs_in(daemon, STOPPED))
    daemon.process.send_signal(signal.SIGTERM)
    check(waiting.wait(30) == 1, "the import was not refused")
    disk.fuse.send_signal(signal.SIGCONT)
    check(daemon.process.wait(30) == 0, "tarnd did not end well")
    daemon.start()
    check(daemon.json("status")["mirrors"] == [], "what was refused is there")
    daemon.stop()


@limit(180)
def test_a_deactivation_that_is_refused_disturbs_no_restore(t):
    """`deactivate` gives up what waits for files that do not open, so that it need not wait for them; but not when it is refused because
    of clients: that changes nothing."""
    disk = VolatileDisk(t, "d", SIZE, kind="fuse")
    disk.power_on()
    daemon = Daemon(t).start()
    daemon.create("vol0", [t.path("a.img"), f"d={disk.path},meta={t.path('d.tarn')},overwrite"], size=SIZE)
    daemon.wait_synchronized("vol0")
    daemon.tarn("image", "set", "vol0", "d", "hang=60")  # so long it is waited for
    daemon.tarn("image", "fracture", "vol0", "d")
    handle = open_handle(daemon.uri("vol0"))
    disk.fuse.send_signal(signal.SIGSTOP)
    try:
        wait_for("the kernel to ask the file system again", lambda: does_hang(disk.path))
        restoring = t.spawn(*daemon.tarn_argv("image", "restore", "vol0", "d"), stderr=subprocess.PIPE, text=True)
        wait_for("the daemon to open its files", lambda: hangs_in(daemon, STOPPED))
        refused = daemon.tarn("mirror", "deactivate", "vol0", status=1)
    finally:
        disk.fuse.send_signal(signal.SIGCONT)
    check("connected" in refused.err, f"it is refused with: {refused.err}")
    said = restoring.communicate(timeout=60)[1]
    check(restoring.returncode == 0, f"the image is not restored: {said}")
    daemon.wait_synchronized("vol0")
    handle.shutdown()
    daemon.stop()


# ---- mirrors that are made, and stops, beside what hangs while it is written ----

@contextlib.contextmanager
def frozen_file_system(t):
    """Everything can be looked at, and whoever writes waits. Gives its folder, and what freezes and thaws it."""
    folder = loop_file_system(t, "frozen", 64 * MIB)
    try:
        yield folder, lambda: t.run("fsfreeze", "--freeze", folder), lambda: t.run("fsfreeze", "--unfreeze", folder)
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", folder], stderr=subprocess.DEVNULL, check=False)


@contextlib.contextmanager
def store_that_hangs(daemon, mirror):
    """Whoever writes the config.json of that mirror waits, as on a file system that hangs. Gives where."""
    path = f"{daemon.state}/mirrors/{mirror}/config.json.new"
    os.mkfifo(path)
    yield path
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def wait_told_that_it_stopped(daemon):
    """Its process may be there for as long as something hangs."""
    wait_for("the daemon to stop", lambda: "tarnd: stopped; a disk has not answered" in daemon.log())


def names(daemon):
    return [mirror["name"] for mirror in daemon.json("status")["mirrors"]]


def create_on(daemon, name, path):
    return daemon.tarn_argv("mirror", "create", name, "--size", "1M", "--image", path)


@limit(180)
def test_a_creation_that_hangs_is_given_up(t):
    """Thesis 8: the disk of a new mirror answers when it is looked at, and hangs when its files are made. Whoever asked is told after a
    while, and others make their mirrors meanwhile; its name and its disk are nobody's until it answers, and then anybody's."""
    with frozen_file_system(t) as (folder, freeze, thaw):
        daemon = Daemon(t).start()
        freeze()
        hanging = t.spawn(*create_on(daemon, "vol1", f"{folder}/x.img"), stderr=subprocess.PIPE, text=True)
        wait_for("a worker to hang", lambda: hangs_in(daemon, FROZEN))
        other = t.spawn(*create_on(daemon, "vol2", t.path("y.img")))
        wait_for("another mirror to be made", lambda: other.poll() is not None)
        check(other.returncode == 0, "another mirror was not made")
        said = hanging.communicate(timeout=60)[1]
        check(hanging.returncode == 1, f"it ended with {hanging.returncode}")
        check("vol1 is not made" in said and "does not answer" in said, f"it is refused with: {said}")
        refused = t.run(*create_on(daemon, "vol1", t.path("z.img")), status=1)
        check("still being removed" in refused.err, f"its name is refused with: {refused.err}")
        refused = t.run(*create_on(daemon, "vol3", f"{folder}/x.img"), status=1)
        check("belongs to image" in refused.err, f"its disk is refused with: {refused.err}")
        thaw()
        wait_for("it to be undone", lambda: "its disks have answered" in daemon.log())
        check(os.listdir(f"{daemon.state}/mirrors") == ["vol2"] and os.listdir(folder) == ["lost+found"], "something is left of it")
        t.run(*create_on(daemon, "vol1", f"{folder}/x.img"))
        check(names(daemon) == ["vol1", "vol2"], f"there are {names(daemon)}")
        daemon.stop()


@limit(180)
def test_a_stop_while_a_creation_hangs(t):
    """The same, and the daemon is stopped meanwhile. The next start finds no mirror, and nothing is left of it."""
    with frozen_file_system(t) as (folder, freeze, thaw):
        daemon = Daemon(t).start()
        daemon.create("vol0", [t.path("a.img")], size=MIB)
        freeze()
        hanging = t.spawn(*create_on(daemon, "vol1", f"{folder}/x.img"), stderr=subprocess.PIPE, text=True)
        wait_for("a worker to hang", lambda: hangs_in(daemon, FROZEN))
        daemon.process.send_signal(signal.SIGTERM)
        wait_told_that_it_stopped(daemon)
        said = hanging.communicate(timeout=60)[1]
        check(hanging.returncode == 1 and "vol1 is not made" in said, f"it ended with {hanging.returncode}: {said}")
        check("vol0: is closed cleanly" in daemon.log(), "the mirror was not closed cleanly")
        thaw()
        daemon.process.wait(60)
        daemon.start()
        wait_for("it to be removed", lambda: os.listdir(f"{daemon.state}/mirrors") == ["vol0"])
        check(names(daemon) == ["vol0"], f"there are {names(daemon)}")
        check(os.listdir(folder) == ["lost+found"], f"something is left of it: {os.listdir(folder)}")
        daemon.stop()


@limit(180)
@rows([("it goes on", False), ("the daemon stops", True)])
def test_a_format_that_hangs(t, row):
    """Thesis 8: the same when the first metadata is written, of which the disk then holds requests: whoever asked is told, others make
    their mirrors, the daemon ends when it is told to, and when the disk answers nothing is left."""
    _, stops = row
    with gated_disk(t, MIB) as (path, gate), frozen_file_system(t) as (folder, freeze, thaw):
        daemon = Daemon(t).start()
        words = daemon.tarn_argv("mirror", "create", "vol1", "--image", f"{path},meta={folder}/x.tarn")
        open(gate, "wb").close()
        hanging = t.spawn(*words, stderr=subprocess.PIPE, text=True)
        wait_for("a flush before that", lambda: os.path.exists(f"{gate}.met"))
        freeze()
        os.unlink(gate)
        if stops:
            daemon.process.send_signal(signal.SIGTERM)
            wait_told_that_it_stopped(daemon)
        else:
            other = t.spawn(*create_on(daemon, "vol2", t.path("y.img")))
            wait_for("another mirror to be made", lambda: other.poll() is not None)
            check(other.returncode == 0, "another mirror was not made")
        said = hanging.communicate(timeout=60)[1]
        check(hanging.returncode == 1, f"it ended with {hanging.returncode}")
        check(("its next start removes" if stops else "is removed when") in said, f"it is refused with: {said}")
        thaw()
        if stops:
            daemon.process.wait(60)
            daemon.start()
        wait_for("it to be undone", lambda: os.listdir(f"{daemon.state}/mirrors") == ([] if stops else ["vol2"]))
        wait_for("its metadata to be removed", lambda: os.listdir(folder) == ["lost+found"])
        wait_for("its name to be free", lambda: subprocess.run(words, check=False).returncode == 0, every=1)
        daemon.stop()


@limit(180)
def test_clients_that_leave_the_line(t):
    """Clients that are killed while their command waits for its turn: it is not carried out, and they keep no control connection. With
    64 of these nobody else got in."""
    disk = VolatileDisk(t, "d", SIZE, kind="fuse")
    disk.power_on()
    daemon = Daemon(t).start()
    disk.fuse.send_signal(signal.SIGSTOP)
    wait_for("the kernel to ask the file system again", lambda: does_hang(disk.path))
    hanging = t.spawn(*create(daemon, disk.path, t.path("")))
    wait_for("the daemon to look at it", lambda: hangs_in(daemon, STOPPED))
    for number in range(63):
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(daemon.control())
            control.sendall(json.dumps({"command": "mirror create", "name": f"left{number}", "size": "1M",
                                        "images": [t.path(f"left{number}.img")]}).encode() + b"\n")
    check(names(daemon) == [], "a mirror was made")
    disk.fuse.send_signal(signal.SIGCONT)
    hanging.wait(60)
    t.run(*create_on(daemon, "last", t.path("last.img")))  # it stands in the same line
    check([name for name in names(daemon) if name.startswith("left")] == [], f"nobody waits for these: {names(daemon)}")
    daemon.stop()


@limit(180)
def test_the_last_store_of_a_creation_hangs(t):
    """Thesis 8: the state directory hangs just when a new mirror's config.json is written for good: nobody can say whether it exists, and
    that is the answer. When it turns out that it could not be written nothing is left."""
    with gated_disk(t, MIB) as (path, gate):
        daemon, meta = Daemon(t).start(), t.path("x.tarn")
        open(gate, "wb").close()
        hanging = t.spawn(*daemon.tarn_argv("mirror", "create", "vol1", "--image", f"{path},meta={meta}"), stderr=subprocess.PIPE, text=True)
        wait_for("a flush under way", lambda: os.path.exists(f"{gate}.met"))
        with store_that_hangs(daemon, "vol1") as config:
            os.unlink(gate)
            said = hanging.communicate(timeout=60)[1]
            check(hanging.returncode == 1 and "whether it was made" in said, f"it ended with {hanging.returncode}: {said}")
            check(names(daemon) == [], "it is there")
            with open(config, "rb") as reader:
                reader.read()
            wait_for("it to be undone", lambda: "its disks have answered" in daemon.log())
        check(os.listdir(f"{daemon.state}/mirrors") == [] and not os.path.exists(meta), "something is left of it")
        t.run(*daemon.tarn_argv("mirror", "create", "vol1", "--image", f"{path},meta={meta}"))
        daemon.stop()


@limit(180)
@rows([("set", ["mirror", "set", "vol0", "suspend=7"], True), ("remove", ["image", "remove", "vol0", "b"], True),
       ("add", ["image", "add", "vol0", "c={}/c.img"], True), ("destroy", ["mirror", "destroy", "--force", "vol0"], False)])
def test_a_stop_beside_a_store_that_hangs(t, row):
    """Thesis 8: the state directory hangs when what a command has changed is written down. A stop does not wait for it, closes the mirror
    cleanly, and says that nobody knows whether that was done; the next start has the mirror as it was, or as it was to be."""
    _, words, active = row
    mirror = Mirror(t)
    daemon = mirror.daemon
    mirror.write(8)
    if not active:
        daemon.tarn("mirror", "deactivate", "vol0")
    with store_that_hangs(daemon, "vol0"):
        command = t.spawn(*daemon.tarn_argv(*[word.format(mirror.folder) for word in words]), stderr=subprocess.PIPE, text=True)
        wait_for("a worker to hang", lambda: hangs_in(daemon, PIPE))
        daemon.stop()
    said = command.communicate(timeout=60)[1]
    check(command.returncode == (0 if words[1] == "remove" else 1), f"it ended with {command.returncode}: {said}")
    check("at its next start" in daemon.log() + said, f"it is not said that this is open: {said}")
    if active:
        check("vol0: is closed cleanly" in daemon.log(), "the mirror was not closed cleanly")
    daemon.start()
    daemon.wait_state("vol0", "ACTIVE" if active else "INACTIVE")
    if words[1] == "remove":
        wait_for("image b to be forgotten", lambda: mirror.image("b") is None and "b.img.tarn" not in mirror.files())
    elif active:
        check([image["name"] for image in daemon.mirror("vol0")["images"]] == ["a", "b"], "it has other images")
        mirror.check_content()
    daemon.stop()


def ask_and_stay(daemon, command, **words):
    """A client that sends this, and waits for its answer."""
    control = socket.socket(socket.AF_UNIX)
    control.connect(daemon.control())
    control.sendall(json.dumps({"command": command, **words}).encode() + b"\n")
    return control


@limit(180)
def test_commands_that_wait_leave_room_for_status(t):
    """control.h: commands always find a place. One command hangs in the state directory, and scripts that wait for their turn on that mirror
    stay, more of them than there are connections: so many have a place in its line, the others are told, and `tarn status` is answered."""
    mirror = Mirror(t)
    daemon = mirror.daemon
    with store_that_hangs(daemon, "vol0") as config:
        command = t.spawn(*daemon.tarn_argv("mirror", "set", "vol0", "suspend=7"))
        wait_for("a worker to hang", lambda: hangs_in(daemon, PIPE))
        waiting = [ask_and_stay(daemon, "mirror get", name="vol0") for _ in range(140)]
        check("vol0" in daemon.tarn("status").out, "there is no mirror")
        refused = daemon.tarn("mirror", "get", "vol0", status=1)
        check("32 commands wait already for mirror vol0" in refused.err, f"{refused}")
        with open(config, "rb") as reader:
            reader.read()
        command.wait(60)
        answers = [json.loads(control.makefile().readline())["ok"] for control in waiting]
        check(answers.count(True) == 32, f"{answers.count(True)} were answered")
        for control in waiting:
            control.close()
    daemon.stop()


@limit(180)
def test_a_new_image_that_hangs_keeps_no_mirror(t):
    """Thesis 8: the file system of a new image hangs when its files are made. Whoever asked is told after a while, and its mirror can be
    commanded; the image's name and disks are taken until that answers, and nothing is left then."""
    with frozen_file_system(t) as (folder, freeze, thaw):
        mirror = Mirror(t)
        daemon = mirror.daemon
        add = daemon.tarn_argv("image", "add", "vol0", f"c={folder}/c.img")
        freeze()
        adding = t.spawn(*add, stderr=subprocess.PIPE, text=True)
        wait_for("a worker to hang", lambda: hangs_in(daemon, FROZEN))
        fracturing = t.spawn(*daemon.tarn_argv("image", "fracture", "vol0", "b"))
        said = adding.communicate(timeout=60)[1]
        check(adding.returncode == 1, f"it ended with {adding.returncode}")
        check("image c is not added" in said and "until then its name and its disks are taken" in said, f"it is refused with: {said}")
        check(fracturing.wait(60) == 0, "image b was not fractured")
        refused = t.run(*add, status=1)
        check("there is an image of the name 'c'" in refused.err, f"its name is refused with: {refused.err}")
        daemon.tarn("mirror", "deactivate", "vol0")
        refused = daemon.tarn("mirror", "destroy", "--force", "vol0", status=1)
        check("image c is none of its images" in refused.err, f"{refused}")
        daemon.tarn("mirror", "activate", "vol0")
        thaw()
        wait_for("it to be undone", lambda: os.listdir(folder) == ["lost+found"] and mirror.image("c") is None)
        wait_for("its name to be free", lambda: subprocess.run(add, check=False).returncode == 0, every=1)
        mirror.wait_in("c")
        daemon.stop()


@limit(180)
def test_a_removed_image_that_hangs_keeps_no_mirror(t):
    """Thesis 8: an image is out, its file system hangs, and it is removed, to be replaced by another one. Its metadata goes when that
    answers, and then its name is free."""
    with frozen_file_system(t) as (folder, freeze, thaw):
        mirror = Mirror(t)
        daemon = mirror.daemon
        daemon.tarn("image", "add", "vol0", f"c={folder}/c.img", "--wait")
        mirror.wait_in("c")
        mirror.op("set", "c", "return=manual")
        mirror.op("fracture", "c")
        freeze()
        daemon.tarn("image", "remove", "vol0", "c")
        daemon.tarn("image", "add", "vol0", f"d={mirror.folder}/d.img")
        mirror.wait_in("d")
        check("files are released once its disk has answered" in daemon.mirror("vol0")["reason"], "status does not tell of it")
        daemon.tarn("mirror", "deactivate", "vol0")
        daemon.tarn("mirror", "activate", "vol0")
        thaw()
        wait_for("its metadata to be removed", lambda: "c.img.tarn" not in os.listdir(folder))
        add = daemon.tarn_argv("image", "add", "vol0", f"c={folder}/c.img,overwrite")
        wait_for("its name to be free", lambda: subprocess.run(add, check=False).returncode == 0, every=1)
        mirror.wait_in("c")
        daemon.restart()
        daemon.wait_state("vol0", "ACTIVE")
        check(sorted(image["name"] for image in daemon.mirror("vol0")["images"]) == ["a", "b", "c", "d"], "it has other images")
        mirror.check_content()
        daemon.stop()


@contextlib.contextmanager
def disk_of_some_speed(t, name, size, megabytes):
    """A block device that answers everything, and reads so many megabytes a second."""
    own_mounts(t)
    folder, sock = t.path(f"speed-{name}"), t.path(f"speed-{name}.sock")
    os.mkdir(folder)
    server = t.spawn("nbdkit", "--foreground", "--unix", sock, "--filter=rate", "memory", f"size={size}", f"rate={8 * megabytes}M")
    wait_for("nbdkit to listen", lambda: os.path.exists(sock))
    t.spawn("nbdfuse", f"{folder}/{name}", f"nbd+unix:///?socket={sock}")
    wait_for("the file", lambda: os.path.exists(f"{folder}/{name}"))
    loop = LoopDevice(t, f"{folder}/{name}")
    try:
        yield loop.path
    finally:
        loop.close()
        check(server.poll() is None, "nbdkit ended")


@limit(400)
def test_a_large_mirror_of_slow_disks_can_be_made(t):
    """Thesis 8: a disk that answers every read, but not many a second: the look whether its tail is empty (350 MiB for 640 GiB) takes longer
    than anything may hang, and nothing hangs. The same when an image is added."""
    size, tail = 640 << 30, 2 << 30
    with disk_of_some_speed(t, "a", size + tail, 8) as one, disk_of_some_speed(t, "b", size + tail, 8) as two:
        daemon = Daemon(t).start()
        daemon.tarn("mirror", "create", "vol0", "--size", size, "--image", f"{one},meta=tail", seconds=300)
        daemon.tarn("image", "add", "vol0", f"{two},meta=tail,overwrite", seconds=300)
        daemon.stop()


@limit(180)
def test_what_is_told_of_a_creation_that_made_nothing(t):
    """A create is given up before it has made anything: nothing is said later of what was made of it."""
    disk = VolatileDisk(t, "d", SIZE, kind="fuse")
    disk.power_on()
    daemon = Daemon(t).start()
    disk.fuse.send_signal(signal.SIGSTOP)
    wait_for("the kernel to ask the file system again", lambda: does_hang(disk.path))
    hanging = t.spawn(*daemon.tarn_argv("mirror", "create", "vol1", "--image", f"{disk.path},meta={t.path('x.tarn')}"))
    wait_for("it to be given up", lambda: hanging.poll() is not None)
    disk.fuse.send_signal(signal.SIGCONT)
    wait_for("its disk to be free", lambda: subprocess.run(create_on(daemon, "vol2", disk.path), check=False).returncode == 0, every=1)
    check("what was made of it" not in daemon.log(), "nothing was made, and it is said that it is removed")
    daemon.stop()


@limit(240)
@rows([("a command under way", True), ("none", False)])
def test_a_stop_while_the_state_directory_hangs(t, row):
    """Thesis 8: the file system of the state directory hangs, whole, as it does in reality. A stop ends all the same, and does not call
    clean what it could not record."""
    with frozen_file_system(t) as (folder, freeze, thaw):
        state, a, b = f"{folder}/state", t.path("a.img"), t.path("b.img")
        daemon = Daemon(t, state=state).start()
        daemon.create("vol0", [a, b], size=MIB)
        use_small(daemon)
        freeze()
        if row[1]:
            t.spawn(*daemon.tarn_argv("mirror", "set", "vol0", "suspend=7"))
            wait_for("a worker to hang", lambda: hangs_in(daemon, FROZEN))
        daemon.process.send_signal(signal.SIGTERM)
        wait_for("the daemon to say that it stopped", lambda: "tarnd: stopped" in daemon.log(), seconds=90)
        check("is closed cleanly" not in daemon.log(), "what could not be recorded is called clean")
        thaw()
        daemon.process.wait(60)
        daemon.start()
        daemon.wait_state("vol0", "ACTIVE")
        daemon.stop()


def use_small(daemon):
    handle = open_handle(daemon.uri("vol0"))
    handle.pwrite(b"x" * 4096, 0)
    handle.flush()
    handle.shutdown()


@limit(240)
@rows([("add", True), ("remove", False)])
def test_a_stop_while_an_image_operation_hangs(t, row):
    """Thesis 8: a stop while a new image's files are made, or an old one's removed, on a file system that hangs."""
    with frozen_file_system(t) as (folder, freeze, thaw):
        mirror = Mirror(t)
        daemon = mirror.daemon
        if not row[1]:
            daemon.tarn("image", "add", "vol0", f"c={folder}/c.img", "--wait")
            mirror.wait_in("c")
            mirror.op("fracture", "c")
        mirror.write(8)
        freeze()
        if row[1]:
            hanging = t.spawn(*daemon.tarn_argv("image", "add", "vol0", f"c={folder}/c.img"), stderr=subprocess.PIPE, text=True)
        else:
            hanging = t.spawn(*daemon.tarn_argv("image", "remove", "vol0", "c"), stderr=subprocess.PIPE, text=True)
        wait_for("a worker to hang", lambda: hangs_in(daemon, FROZEN))
        daemon.process.send_signal(signal.SIGTERM)
        wait_told_that_it_stopped(daemon)
        hanging.wait(60)
        check("vol0: is closed cleanly" in daemon.log(), "the mirror was not closed cleanly")
        thaw()
        daemon.process.wait(60)
        daemon.start()
        daemon.wait_state("vol0", "ACTIVE")
        wait_for("its files to be gone", lambda: not any(file.startswith("c.img.tarn") for file in os.listdir(folder)))
        check(mirror.image("c") is None, "it has image c")
        mirror.check_content()
        daemon.stop()
