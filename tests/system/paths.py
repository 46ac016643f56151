"""What stands between the core and its disks and clients: one thing that fails, and one ordinary thing beside it."""
import contextlib
import fcntl
import os
import re
import signal
import socket
import threading
import time

import nbd

from lib import images
from lib.context import check, limit, rows, wait_for
from lib.daemon import Daemon
from lib.disks import NbdServer
from lib.images import KIB, MIB
from lib.load import open_handle

SIZE = 16 * MIB


def ends(function, seconds):
    """Does it end in time? It goes on in a thread of its own."""
    done = threading.Event()

    def run():
        try:
            function()
        finally:
            done.set()
    threading.Thread(target=run, daemon=True).start()
    return done.wait(seconds)


def test_a_log_that_nobody_reads(t):
    """Whoever takes the log (journald, a terminal after Ctrl-S, a pipe) has stopped reading: clients are served all the same."""
    pid_path = t.path("reader.pid")
    daemon = Daemon(t, wrapper=["bash", "-c", f'exec "$@" 2> >(echo $BASHPID >{pid_path}; exec cat)', "tarnd"]).start()
    with open(pid_path, encoding="ascii") as file:
        reader = int(file.read())
    daemon.create("vol0", [t.path("a.img"), t.path("b.img")], size=SIZE)
    with open(f"/proc/{daemon.process.pid}/fd/2", "w", encoding="ascii") as pipe:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)  # as if much had been written already
    handle = open_handle(daemon.uri("vol0"))
    handle.pwrite(b"1" * 4096, 0)
    os.kill(reader, signal.SIGSTOP)
    try:
        for _ in range(100):
            if not all(ends(lambda: daemon.tarn("image", how, "vol0", "b", status=None), 5)
                       for how in ("fracture", "restore")):  # pylint: disable=cell-var-from-loop
                break
        check(ends(lambda: handle.pread(4096, 0), 15), "a read is not answered while nobody reads the log")
    finally:
        os.kill(reader, signal.SIGCONT)


def test_memory_that_is_short(t):
    """A client on the same machine may have a file system on a mirror: a kernel that frees memory for the daemon must not wait for it."""
    Daemon(t, wrapper=["strace", "--daemonize", "--quiet=all", "--output", t.path("calls"), "--trace=prctl"]).start().stop()

    def calls():
        with open(t.path("calls"), encoding="utf-8") as file:
            return file.read()
    wait_for("the request", lambda: "PR_SET_IO_FLUSHER, 1" in calls())


def test_an_image_is_removed_while_files_have_changed_places(t):
    """The mounts of two images have changed places. That is found, and one image is removed: the metadata of the other, which lies at
    that one's path, stays."""
    paths = [t.path(f"{name}/d.img") for name in "abc"]
    for path in paths:
        os.makedirs(os.path.dirname(path))
    daemon = Daemon(t).start()
    daemon.create("vol0", paths, size=SIZE)
    daemon.wait_synchronized("vol0")
    daemon.stop()
    for old, new in (("b", "x"), ("c", "b"), ("x", "c")):
        os.rename(t.path(old), t.path(new))
    daemon.start()
    daemon.wait_state("vol0", "ACTIVE")
    daemon.tarn("image", "remove", "vol0", "b")
    check(os.path.exists(t.path("b/d.img.tarn")), "the metadata of image c was removed with image b")


def test_a_refused_restore_leaves_nothing_behind(t):
    """The disk of an image is not mounted: a restore is refused, and makes no file in the place where it will be mounted."""
    paths = [t.path("a.img"), t.path("disk/b.img")]
    os.mkdir(t.path("disk"))
    daemon = Daemon(t).start()
    daemon.create("vol0", paths, size=SIZE)
    daemon.wait_synchronized("vol0")
    daemon.stop()
    os.rename(t.path("disk"), t.path("away"))
    os.mkdir(t.path("disk"))
    daemon.start()
    daemon.wait_state("vol0", "ACTIVE")
    daemon.tarn("image", "restore", "vol0", "b", status=1)
    check(not os.listdir(t.path("disk")), f"it has made {os.listdir(t.path('disk'))}")


# ---- what a client that is gone has left behind ----

LONG, SHORT = 256 * KIB, 4 * KIB


def bytes_of(letter, length):
    return nbd.Buffer.from_bytearray(bytearray(letter * length))


def send(uri, buffer, places):
    """A client that has sent these writes, and waits for none of them. It is gone when nobody has it any more."""
    handle = open_handle(uri)
    for place in places:
        handle.aio_pwrite(buffer, place)
    while handle.poll(300) > 0:
        pass
    return handle


@limit(180)
@rows([("more requests than a session takes up, over TCP", "tcp", SHORT, 150, 0),
       ("one write that waits for memory, over a Unix socket", "unix", 128 * KIB, 1, 14)])
def test_a_dead_client_writes_nothing_more(t, row):
    """An image does not answer for a while, and a client has sent writes that its session cannot take up yet. It is killed, and another one
    takes its place (a guest that is started again), whose writes are answered. What the first one had sent must not land on top of them."""
    _, kind, length, count, others = row
    socket_path, memory = t.path("n.sock"), ["--memory", "16M"] if others else []
    daemon = Daemon(t, arguments=["--enable-faults", "--nbd", f"unix:{socket_path}", "--nbd", "127.0.0.1:0", *memory]).start()
    port = re.search(r"serves NBD at 127\.0\.0\.1:(\d+)", daemon.log())[1]
    uri = f"nbd+unix:///vol0?socket={socket_path}" if kind == "unix" else f"nbd://127.0.0.1:{port}/vol0"
    daemon.create("vol0", [t.path("a.img"), t.path("b.img")], size=2 * SIZE)
    daemon.tarn("image", "set", "vol0", "b", "hang=100")
    daemon.tarn("fault", "vol0", "b", "hang")
    places = [number * length for number in range(count)]
    crowd = [send(uri, bytes_of(b"x", LONG), [SIZE + number * LONG for number in range(4 * index, 4 * index + 8)])
             for index in range(others)]
    dead = send(uri, bytes_of(b"o", length), places)
    del dead
    answers, alive, new = [], open_handle(uri), bytes_of(b"n", SHORT)
    places = places[-100:]
    for place in places:
        alive.aio_pwrite(new, place, lambda error: answers.append(error.value) or 1)
    alive.poll(300)
    daemon.tarn("fault", "vol0", "b", "heal")
    wait_for("the writes to be answered", lambda: alive.poll(100) >= 0 and len(answers) == len(places))
    check(not any(answers), f"writes failed: {answers}")
    wait_for("the dead client to be gone", lambda: daemon.mirror("vol0")["volumes"][0]["clients"] == 1 + others)
    stale = [place for place in places if bytes(alive.pread(SHORT, place)) != b"n" * SHORT]
    check(not stale, f"what was answered is overwritten by what the dead client had sent, at {stale}")
    for handle in (alive, *crowd):
        handle.shutdown()
    daemon.stop()


# ---- a network that is cut ----

HERE, THERE = "10.213.77.1", "10.213.77.2"


@contextlib.contextmanager
def network(t):
    """Two machines, at HERE and THERE: how to run a program on each, and what cuts the network, or (True) makes it whole again."""
    names = [f"tarn-{os.getpid()}-{side}" for side in ("here", "there")]
    made = []
    try:
        for name in names:
            t.run("ip", "netns", "add", name)
            made.append(name)
        t.run("ip", "-n", names[0], "link", "add", "way", "type", "veth", "peer", "name", "way", "netns", names[1])
        for name, address in zip(names, (HERE, THERE)):
            t.run("ip", "-n", name, "addr", "add", f"{address}/30", "dev", "way")
            t.run("ip", "-n", name, "link", "set", "way", "up")
        there = t.run("ip", "netns", "exec", names[1], "cat", "/sys/class/net/way/address").out.strip()

        def plug(whole):
            """Else what is sent there is dropped on the way, and nobody is told."""
            address = there if whole else "02:00:00:00:00:01"
            t.run("ip", "-n", names[0], "neigh", "replace", THERE, "lladdr", address, "dev", "way", "nud", "permanent")
        plug(True)
        yield *(["ip", "netns", "exec", name] for name in names), plug
    finally:
        for name in made:
            t.run("ip", "netns", "del", name)


@limit(120)
def test_a_request_of_a_lost_connection_stays_in_the_socket(t):
    """The network is cut with a write on its way, and is whole again after the image was given up, and a while. What the kernel still has
    of the old connection must not reach the server over what was written since."""
    file = images.make_sparse(t.path("b.raw"), SIZE)
    with network(t) as (here, there, plug):
        t.spawn(*there, "nbdkit", "--foreground", "--port", "10809", "file", file)
        wait_for("the server", lambda: t.run(*here, "nbdinfo", "--size", f"nbd://{THERE}", status=None).status == 0)
        daemon = Daemon(t, wrapper=here).start()
        daemon.create("vol0", [t.path("a.img"), f"nbd://{THERE}/,overwrite"], size=SIZE)
        daemon.wait_synchronized("vol0")
        daemon.tarn("image", "set", "vol0", "b", "hang=2")
        handle = open_handle(daemon.uri("vol0"))
        handle.pwrite(b"0" * 4096, 0)
        handle.flush()
        plug(False)
        began = time.monotonic()
        handle.pwrite(b"1" * 4096, 0)  # answered when b was given up
        check("image b is out" in daemon.log(), "the network was not cut")
        time.sleep(max(began + 14 - time.monotonic(), 0))
        plug(True)
        daemon.tarn("image", "restore", "vol0", "b")
        daemon.wait_synchronized("vol0")
        handle.pwrite(b"2" * 4096, 0)
        handle.flush()
        while time.monotonic() < began + 28:  # a kernel doubles its patience: it tries again after 12.6 s, and then after 25.4 s
            time.sleep(0.2)
            check(images.read_at(file, 0, 4096) == b"2" * 4096, "b is SYNCHRONIZED, and has got a write of the lost connection")


# ---- a network that is slow ----

LINK_BYTES = 1 << 20  # a second


class Link:
    """In front of an NBD server: what a client sends arrives at LINK_BYTES a second. What it gets is not slowed down."""

    def __init__(self, t, server):
        self.path = t.path("link.sock")
        self.server = server
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(8)
        threading.Thread(target=self.accept, daemon=True).start()

    def uri(self):
        return f"nbd+unix:///?socket={self.path}"

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.socket(socket.AF_UNIX)
            server.connect(self.server.socket)
            threading.Thread(target=self.pass_on, args=(client, server, 1 / LINK_BYTES), daemon=True).start()
            threading.Thread(target=self.pass_on, args=(server, client, 0), daemon=True).start()

    @staticmethod
    def pass_on(source, target, seconds_per_byte):
        with contextlib.suppress(OSError):
            while data := source.recv(16384):
                time.sleep(len(data) * seconds_per_byte)
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def test_a_slow_network_is_no_hang(t):
    """Rule 7: a disk's clock starts when the disk has the request. What still stands in a line of ours, because the way there takes a
    megabyte a second, is not held against it, as long as that moves."""
    link = Link(t, NbdServer(t).start())
    daemon = Daemon(t).start()
    daemon.create("vol0", [t.path("a.img"), f"{link.uri()},overwrite"], size=SIZE)
    daemon.wait_synchronized("vol0")
    daemon.tarn("image", "set", "vol0", "b", "hang=5")
    handles = [open_handle(daemon.uri("vol0")) for _ in range(4)]
    data = nbd.Buffer.from_bytearray(bytearray(b"1" * 256 * KIB))
    for i in range(64):  # all at once
        handles[i % 4].aio_pwrite(data, i * 256 * KIB)
    while any(handle.aio_in_flight() for handle in handles):
        for handle in handles:
            handle.poll(10)
    check("does not answer" not in daemon.log(), "an image that is only slow was given up")
