"""Disks with a cache that a power cut loses: nbdkit's cache filter in write-back mode over a file, which is the medium.

    tarnd (kind "nbd") ------------------------------------------------------> nbdkit: cache -> medium
    tarnd -> file of nbdfuse (kind "fuse"), or a loop device above it ("loop") -^

What was written is in the cache only, until somebody asks for a flush. A flush by tarnd (fdatasync) comes down as a FUSE
or a block device flush, and from nbdfuse as an NBD flush. With cache="unsafe" it is ignored: a disk that lies.

The medium is served as the only partition of a made-up disk, because that plugin of nbdkit offers no trim: nbdfuse makes a
trim of FALLOC_FL_PUNCH_HOLE, and the cache filter hands it to the medium and keeps the old bytes in the cache, so that a
hole would not read as zeroes.

All but "nbd" need root, for loop devices and mounts. The mounts are in a namespace of the test's own and go with it. A loop device is
detached as soon as it is attached: it goes with the last who has it open, which is us, however we end."""
import os
import random
import signal
import subprocess
import threading

import nbd

from . import images
from .context import Failed, check, wait_for
from .disks import new_loop
from .small_disk import own_mounts


class LoopDevice:
    """A loop device above a file; it goes with close(), or with us."""

    def __init__(self, t, file):
        check(os.geteuid() == 0, "loop devices need root: run the tests as root")
        self.t = t
        self.path = new_loop()
        t.run("losetup", self.path, file)
        self.held = os.open(self.path, os.O_RDWR)
        t.run("losetup", "--detach", self.path)  # when the last one closes it

    def look_again(self):
        """The file has another size: so has the device."""
        self.t.run("losetup", "--set-capacity", self.path)

    def close(self):
        os.close(self.held)


def does_hang(path):
    """Does who looks at that file wait for the server of its file system?"""
    looking = subprocess.Popen(["stat", "--dereference", path], stdout=subprocess.DEVNULL)
    while looking.poll() is None:
        with open(f"/proc/{looking.pid}/stack", encoding="ascii") as file:
            if "fuse" in file.read():
                looking.kill()  # it ends when the server goes on: what that has taken already cannot be interrupted
                return True
    return False


class VolatileDisk:
    """One such disk. Off at first; power_on(), cut() and power_on() again, any number of times."""

    def __init__(self, t, name, size, kind="loop", cache="writeback", write_delay_ms=0):
        if kind != "nbd":
            check(os.geteuid() == 0, "loop devices and mounts need root: run the tests as root")
            own_mounts(t)
        self.t, self.name, self.kind, self.cache = t, name, kind, cache
        self.write_delay_ms = write_delay_ms  # of the medium: a flush takes a while, and is cut in its middle
        self.folder = t.path(f"volatile-{name}")
        os.mkdir(self.folder)
        os.mkdir(self._mountpoint())
        self.medium = images.make_sparse(self._at("medium"), size)
        self.path = self._at("disk") if kind != "nbd" else self.uri()  # what tarnd is given, always the same
        self.log = open(self._at("log"), "wb")  # both complain at each cut
        self.server = self.fuse = self.loop = None

    def _at(self, name):
        return os.path.join(self.folder, name)

    def _mountpoint(self):
        return self._at("mount")

    def _socket(self):
        return self._at("socket")

    def uri(self):
        return f"nbd+unix:///?socket={self._socket()}"

    # ---- on and off ----

    def power_on(self):
        for name in (self._socket(), self._at("ready")):
            if os.path.lexists(name):
                os.unlink(name)
        slow = ["--filter=delay"] if self.write_delay_ms else []
        delay = [f"wdelay={self.write_delay_ms}ms"] if self.write_delay_ms else []
        os.makedirs(self.t.shm(), exist_ok=True)
        self.server = self.t.spawn("nbdkit", "--foreground", "--exit-with-parent", "--unix", self._socket(),
                                   "--pidfile", self._at("ready"), "--filter=cache", *slow, "--filter=partition", "partitioning",
                                   self.medium, "partition=1", f"cache={self.cache}", *delay, stderr=self.log,
                                   env={**os.environ, "TMPDIR": self.t.shm()})
        wait_for(f"nbdkit of {self.name}", lambda: self._living(self.server) and os.path.exists(self._at("ready")))
        if self.kind == "nbd":
            return
        self.fuse = self.t.spawn("nbdfuse", f"{self._mountpoint()}/{self.name}", self.uri(), stderr=self.log)
        file = os.path.join(self._mountpoint(), self.name)
        wait_for(f"nbdfuse of {self.name}", lambda: self._living(self.fuse) and os.path.exists(file))
        if os.path.lexists(self.path):
            os.unlink(self.path)
        if self.kind == "loop":
            self.loop = LoopDevice(self.t, file)
            file = self.loop.path
        os.symlink(file, self.path)

    def _living(self, process):
        check(process.poll() is None, f"{process.args[0]} of {self.name} ended with status {process.returncode}")
        return True

    def cut(self):
        """SIGKILL to the server: its cache is gone. Does not wait."""
        if self.server.poll() is None:
            self.server.send_signal(signal.SIGKILL)

    def unplug(self):
        """Takes the rest away after cut(). Whoever still waits for the disk gets an error."""
        self.server.wait()
        if self.kind == "nbd":
            return
        if self.fuse.poll() is None:
            self.fuse.send_signal(signal.SIGKILL)  # what hangs in the kernel ends with an error
        self.fuse.wait()
        if self.loop:
            self.loop.close()
            self.loop = None
        subprocess.run(["umount", "--lazy", self._mountpoint()], check=True)

    def is_connected(self):
        """Does a client have a connection to the server (kind "nbd")?"""
        with open("/proc/net/unix", encoding="utf-8") as file:
            sockets = [line.split() for line in file]  # the sixth word is the state, the last the path, if there is one
        return any(words[-1] == self._socket() and words[5] == "03" for words in sockets)

    def hang(self):
        """The server answers nothing any more; requests stay in the kernel."""
        self.server.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.server.send_signal(signal.SIGCONT)


class Destager(threading.Thread):
    """Writes caches back at moments of its own choice, as real disks do: what nobody flushed may be there, or not."""

    def __init__(self, disks, seed, seconds_max=0.1):
        super().__init__(daemon=True)
        self.disks, self.random, self.seconds_max = disks, random.Random(seed), seconds_max
        self.over = threading.Event()
        self.flushes = 0

    def run(self):
        try:
            handles = [self._connect(disk) for disk in self.disks]
            while not self.over.wait(self.random.random() * self.seconds_max):
                self.random.choice(handles).flush()
                self.flushes += 1
        except nbd.Error:
            pass  # the power is cut

    @staticmethod
    def _connect(disk):
        handle = nbd.NBD()
        handle.connect_uri(disk.uri())
        return handle

    def end(self):
        self.over.set()
        self.join(20)
        if self.is_alive():
            raise Failed("a flush of a dead server does not end")
