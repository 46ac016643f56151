"""A real file system on a mirror: tarnd, nbdfuse, a loop device, and the kernel's ext4 or XFS above it.

The test's process mounts in a namespace of its own (see volatile_disk.py for what goes with whom), and never touches the
file system itself while the daemon may be killed: what could hang in the kernel is done by processes that are ended."""
import os
import signal
import subprocess
import sys

from .context import Failed, check, wait_for
from .file_load import expected
from .images import MIB
from .small_disk import own_mounts
from .volatile_disk import LoopDevice

FORMAT = {"ext4": ("mkfs.ext4", "-q", "-F"), "xfs": ("mkfs.xfs", "-q", "-f")}
CHECK = {"ext4": ("e2fsck", "-fn"), "xfs": ("xfs_repair", "-n")}
SIZE = {"ext4": 64 * MIB, "xfs": 320 * MIB}  # mkfs.xfs makes nothing smaller than 300 MiB


class FileSystem:
    """Attached, made, mounted, used, torn down; any number of times on the same mirror."""

    def __init__(self, t, kind, uri):
        check(os.geteuid() == 0, "loop devices and mounts need root: run the tests as root")
        own_mounts(t)
        self.t, self.kind, self.uri = t, kind, uri
        self.fuse_at, self.mounted_at = t.path("fuse"), t.path("mounted")
        for path in (self.fuse_at, self.mounted_at):
            os.mkdir(path)
        self.fuse = self.device = self.loop = None
        self.there, self.doubtful = set(), set()  # files that must be whole; files that may be gone
        self.rounds = 0

    def attach(self):
        self.fuse = self.t.spawn("nbdfuse", f"{self.fuse_at}/disk", self.uri, stderr=subprocess.DEVNULL)
        file = os.path.join(self.fuse_at, "disk")
        wait_for("nbdfuse", lambda: self.fuse.poll() is not None or os.path.exists(file))
        check(self.fuse.poll() is None, f"nbdfuse ended with status {self.fuse.returncode}")
        self.loop = LoopDevice(self.t, file)
        self.device = self.loop.path

    def format(self):
        self.t.run(*FORMAT[self.kind], self.device)

    def mount(self):
        self.t.run("mount", "-t", self.kind, self.device, self.mounted_at)

    def unmount(self):
        self.t.run("umount", self.mounted_at)

    def check(self):
        """What e2fsck and xfs_repair think of it, unmounted; they change nothing."""
        self.t.run(*CHECK[self.kind], self.device)

    def detach(self):
        """After unmount(), or after the daemon's end: then whoever waits in the kernel gets an error."""
        self.loop.close()
        if self.fuse.poll() is None:
            self.t.run("umount", "--lazy", self.fuse_at)
            try:
                self.fuse.wait(120)
            except subprocess.TimeoutExpired:
                self.fuse.kill()
        self.fuse.wait()

    # ---- use ----

    def load_until(self, kill, seconds, files_at_least=10):
        """Files are written and fsynced for that long, then kill() is called in the middle of it. Returns how many files
        were fsynced in this round."""
        self.rounds += 1
        before = len(self.there)
        with subprocess.Popen([sys.executable, os.path.join(os.path.dirname(__file__), "file_load.py"), self.mounted_at,
                               str(self.rounds)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as load:
            said = b""
            try:
                os.set_blocking(load.stdout.fileno(), False)

                def enough():
                    nonlocal said
                    said += load.stdout.read() or b""
                    check(load.poll() is None, f"the load ended by itself: {said[-200:]}")
                    return said.count(b"there") >= files_at_least
                wait_for("files to be fsynced", enough)
                try:
                    load.wait(seconds)
                except subprocess.TimeoutExpired:
                    pass
                check(load.poll() is None, f"the load ended by itself: {said[-200:]}")
                kill()
            finally:
                load.send_signal(signal.SIGKILL)
                self.end_of_fuse()
                os.set_blocking(load.stdout.fileno(), True)
                said += load.stdout.read()
        self.take(said.decode())
        return len(self.there) - before

    def end_of_fuse(self):
        """nbdfuse has lost its server: what hangs in it ends with an error when it is gone."""
        if self.fuse.poll() is None:
            self.fuse.kill()
        self.fuse.wait()

    def take(self, said):
        for line in said.splitlines(keepends=True):
            words = line.split()
            if not line.endswith("\n") or len(words) < 2:
                continue
            if words[0] == "there":
                self.there.add(words[1])
            elif words[0] == "leaving":
                self.there.discard(words[1])
                self.doubtful.add(words[1])

    def tear_down(self):
        """After load_until(): nothing below answers any more."""
        for path in (self.mounted_at, self.fuse_at):
            subprocess.run(["umount", "--lazy", path], check=True, timeout=120)
        self.loop.close()

    def check_files(self):
        """Every file that was fsynced is whole."""
        check(self.there, "no file was fsynced: the run proves nothing")
        for name in sorted(self.there):
            try:
                with open(os.path.join(self.mounted_at, name), "rb") as file:
                    content = file.read()
            except OSError as error:
                raise Failed(f"file {name}, which was fsynced, is lost: {error}") from error
            check(content == expected(name), f"file {name}, which was fsynced, is not what was written")
