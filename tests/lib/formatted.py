"""Mirrors with a real file system on them, and what a crash does to its files."""
from . import images
from .daemon import Daemon
from .file_system import CHECK, SIZE, FileSystem
from .images import MIB
from .power import PowerCut, PowerVariant


class Formatted:
    """A mirror of two files with a file system on it, mounted."""

    def __init__(self, t, kind):
        self.t, self.kind, self.size = t, kind, SIZE[kind]
        self.paths = [t.path("a.img"), t.path("b.img")]
        self.daemon = Daemon(t).start()
        self.daemon.create("vol0", self.paths, size=self.size)
        self.files = FileSystem(t, kind, self.daemon.uri("vol0"))
        self.files.attach()
        self.files.format()
        self.files.mount()

    def cycle(self, seconds=0.5):
        """SIGKILL while files are fsynced, a new daemon, recovery, one mount, and a look at everything."""
        count = self.files.load_until(self.daemon.kill, seconds)
        self.files.tear_down()
        self.daemon.start()
        self.daemon.wait_state("vol0", "ACTIVE")
        self.files.attach()
        self.files.mount()
        self.files.check_files()
        self.files.unmount()
        self.files.check()
        self.daemon.wait_synchronized("vol0")
        return count

    def go_on(self):
        """Ready for the next cycle."""
        self.files.mount()

    def end(self):
        """Each image by itself holds the file system."""
        self.files.detach()
        self.daemon.stop()
        images.check_same(self.paths, self.size)
        self.t.run(*CHECK[self.kind], self.paths[1])


class OnVolatileDisks(Formatted):
    """The same on images whose disks have a volatile cache; a crash is a power cut."""

    def __init__(self, t, kind, cache="writeback"):
        self.t, self.kind = t, kind
        self.power = PowerCut(t, PowerVariant("fs", size=SIZE[kind], region=4 * MIB, cache=cache), seed=5)
        self.files = FileSystem(t, kind, self.power.daemon.uri("vol0"))
        self.files.attach()
        self.files.format()
        self.files.mount()

    def cycle(self, seconds=0.5):
        count = self.files.load_until(self.power.cut_all, seconds)
        self.files.tear_down()
        self.power.start()
        self.files.attach()
        self.files.mount()
        self.files.check_files()
        self.files.unmount()
        self.files.check()
        self.power.daemon.wait_synchronized("vol0")
        return count

    def end(self):
        self.files.detach()
        self.power.daemon.stop()
        media = [disk.medium for disk in self.power.data]
        images.check_same(media, SIZE[self.kind])
        self.t.run(*CHECK[self.kind], media[1])
