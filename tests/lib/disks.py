"""Disks that are no plain files: loop devices, and NBD servers that a test starts, kills and starts again."""
import contextlib
import fcntl
import itertools
import os
import socket
import threading
import time

from . import images
from .context import check, wait_for


LOOP_CTL_ADD, LOOP_CTL_REMOVE = 0x4C80, 0x4C81  # linux/loop.h
LOOP_CONTROL = "/dev/loop-control"
_numbers = itertools.count()


def new_loop():
    """The path of a loop device that nobody else has, with nothing behind it: `losetup --find` of another test would take one that
    is free for a moment."""
    while True:
        number = 1000 + os.getpid() % 10000 * 64 + next(_numbers)
        with open(LOOP_CONTROL, "rb") as control, contextlib.suppress(FileExistsError):
            fcntl.ioctl(control, LOOP_CTL_ADD, number)
            return f"/dev/loop{number}"


def end_loop(t, device):
    """Detached and gone, whatever became of it."""
    t.run("losetup", "--detach", device, status=None, quiet=True)
    with open(LOOP_CONTROL, "rb") as control, contextlib.suppress(OSError):  # busy: somebody has it open still
        fcntl.ioctl(control, LOOP_CTL_REMOVE, int(device.removeprefix("/dev/loop")))


@contextlib.contextmanager
def loop_device(t, path, *options):
    """A block device on a file, for the block."""
    device = new_loop()
    t.run("losetup", *options, device, path)
    try:
        yield device
    finally:
        end_loop(t, device)


class NbdServer:
    """nbdkit on a Unix socket, with what it serves in a file."""

    def __init__(self, t, name="n", size=16 * images.MIB, options=(), plugin=None):
        self.t = t
        self.socket = t.path(f"{name}.sock")
        self.file = t.path(f"{name}.raw")
        self.options, self.plugin = list(options), list(plugin or ["file", self.file])
        self.process = None
        images.make_sparse(self.file, size)

    def uri(self, export=""):
        return f"nbd+unix:///{export}?socket={self.socket}"

    def start(self):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.socket)
        self.process = self.t.spawn("nbdkit", "--foreground", "--unix", self.socket, *self.options, *self.plugin)
        wait_for("nbdkit to listen", lambda: self.process.poll() is not None or is_listening(self.socket))
        check(self.process.poll() is None, "nbdkit ended at once")
        return self

    def kill(self):
        self.process.kill()
        self.process.wait()


class LateServer:
    """In front of an NBD server: while `holds`, what a client sends is kept, and reaches the server only when it is released, also
    when that client has hung up long ago. So a server does requests of a lost connection late."""

    def __init__(self, t, server):
        self.path, self.target = t.path("late.sock"), server.socket
        self.holds, self.release = False, threading.Event()
        self.done = threading.Event()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    def uri(self):
        return f"nbd+unix:///?socket={self.path}"

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.socket(socket.AF_UNIX)
            server.connect(self.target)
            threading.Thread(target=self.forward, args=(client, server), daemon=True).start()
            threading.Thread(target=self.back, args=(server, client), daemon=True).start()

    def forward(self, client, server):
        kept = b""
        while True:
            try:
                data = client.recv(1 << 20)
            except OSError:
                data = b""
            if not data:
                break
            if self.holds or kept:
                kept += data
            else:
                server.sendall(data)
        if kept:
            self.release.wait()
            server.sendall(kept)
            time.sleep(0.3)
            self.done.set()
        server.close()

    def back(self, server, client):
        while True:
            try:
                data = server.recv(1 << 20)
            except OSError:
                return
            if not data:
                return
            try:
                client.sendall(data)
            except OSError:
                pass


def is_listening(path):
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(path)
            return True
        except OSError:
            return False


@contextlib.contextmanager
def talker(t, talk):
    """Something on a Unix socket that is no NBD server: talk(connection) for each client. Gives its address."""
    path = t.path("talker.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()

        def serve():
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with contextlib.suppress(OSError):
                    talk(client)

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield f"nbd+unix:///?socket={path}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
