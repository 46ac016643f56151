"""Real file systems on a mirror, through nbdfuse and a loop device: what was fsynced is whole after a crash."""
from lib import images
from lib.context import Failed, check, limit, rows
from lib.daemon import Daemon
from lib.file_system import CHECK, SIZE, FileSystem
from lib.images import MIB
from lib.power import PowerCut, PowerVariant


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

    def end(self):
        """Each image by itself holds the file system."""
        self.files.detach()
        self.daemon.stop()
        images.check_same(self.paths, self.size)
        self.t.run(*CHECK[self.kind], self.paths[1])


@rows([("ext4", "ext4"), ("XFS", "xfs")])
@limit(150)
def test_fsynced_files_survive_a_crash(t, row):
    """Issue 4 item 4; rules 2, 3: after SIGKILL of the daemon the file system mounts once, its own checker finds nothing,
    and every file whose fsync had returned is whole."""
    formatted = Formatted(t, row[1])
    t.note(f"{formatted.cycle()} files were fsynced before the crash")
    formatted.end()


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


@rows([("ext4", "ext4"), ("XFS", "xfs")])
@limit(150)
def test_fsynced_files_survive_a_power_cut(t, row):
    """Issue 4 items 3, 4; rules 2, 3: the same when the disks of the images lose what they had not flushed."""
    formatted = OnVolatileDisks(t, row[1])
    t.note(f"{formatted.cycle()} files were fsynced before the power cut")
    formatted.end()


@limit(150)
def test_a_file_system_on_disks_that_ignore_flushes(t):
    """The proof of the tests above: what was fsynced is lost when the images' disks lie, and they must find that."""
    formatted = OnVolatileDisks(t, "ext4", cache="unsafe")
    try:
        formatted.cycle()
    except Failed as failure:
        check("fsynced" in str(failure) or "mount" in str(failure), f"found for another reason: {failure}")
        return
    check(False, "fsynced files were lost, and nobody saw it")
