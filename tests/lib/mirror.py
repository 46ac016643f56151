"""A mirror `vol0` and what tests of its images ask of it."""
import os
import random

from . import images
from .context import PATIENCE, check, wait_for
from .daemon import Daemon
from .images import KIB, MIB
from .ledger import SECTOR, Ledger, stamp
from .load import Load, open_handle, read_volume

SIZE = 16 * MIB


class Mirror:
    """Images a, b, ... in one folder, a daemon that takes faults, and a ledger of all that is written."""

    def __init__(self, t, count=2, size=SIZE, place="disk", activate=True, settings=(), image_settings=()):
        self.t, self.size = t, size
        self.folder = os.path.join(t.place(place), "disks")
        os.mkdir(self.folder)
        self.names = "abcdefghijklmnop"[:count]
        self.daemon = Daemon(t, arguments=["--enable-faults"]).start()
        self.daemon.create("vol0", [self.path(name) for name in self.names], size=size, settings=settings,
                           activate=activate)
        self.ledger = Ledger(size // SECTOR)
        for name in self.names:
            if image_settings:
                self.daemon.tarn("image", "set", "vol0", name, *image_settings)

    def path(self, name):
        return os.path.join(self.folder, f"{name}.img")

    def files(self):
        """What lies in the folder."""
        return set(os.listdir(self.folder))

    # ---- asking ----

    def status(self):
        return self.daemon.mirror("vol0")

    def image(self, name):
        """That image's part of the status; None when the mirror has no such image."""
        return next((image for image in self.status()["images"] if image["name"] == name), None)

    def roles(self):
        return {image["name"]: image["role"] for image in self.status()["images"]}

    def wait_image(self, name, what, condition, seconds=PATIENCE):
        """Until condition(image) is true; returns the image's status."""
        last = {}

        def holds():
            last["image"] = self.image(name)
            return last["image"] is not None and condition(last["image"])
        wait_for(f"image {name} to be {what}; it is last seen as {last}", holds, seconds, every=0.05)
        return last["image"]

    def wait_out(self, name):
        return self.wait_image(name, "out", lambda image: image["missing"])

    def wait_in(self, name, seconds=PATIENCE):
        return self.wait_image(name, "SYNCHRONIZED", lambda image: image["state"] == "SYNCHRONIZED" and
                               not image["sync"], seconds)

    # ---- using ----

    def op(self, verb, name, *words, status=0):
        return self.daemon.tarn("image", verb, "vol0", name, *words, status=status)

    def fault(self, name, *words):
        self.daemon.tarn("fault", "vol0", name, *words)

    def load(self, seed=1, **options):
        return Load(self.ledger, self.daemon.uri("vol0"), seed=seed, **options)

    def write(self, count=8, seed=1, flush=True):
        """A few writes all over the volume, answered."""
        chance = random.Random(seed)
        handle = open_handle(self.daemon.uri("vol0"))
        for _ in range(count):
            self.write_with(handle, chance.randrange(self.ledger.sectors - 64), 8)
        if flush:
            handle.flush()
        handle.shutdown()

    def write_with(self, handle, sector, count):
        write = self.ledger.send(sector, count)
        handle.pwrite(stamp(write.id, sector, count), sector * SECTOR)
        self.ledger.answered(write)

    def check_content(self):
        """Every answered write is there."""
        handle = open_handle(self.daemon.uri("vol0"))
        self.ledger.check_all(read_volume(handle))
        handle.shutdown()

    def stop_and_compare(self, names=None):
        """After a clean stop these images hold the same bytes, and all that was answered."""
        self.daemon.stop()
        paths = [self.path(name) for name in names or self.names]
        images.check_same(paths, self.size)
        self.ledger.check_all(lambda offset, length: images.read_at(paths[0], offset, length))

    def check_no_strays(self, before):
        """Beside the files of its images, only what was there `before` lies in the folder."""
        known = set()
        for image in self.status()["images"]:
            for path in [*image["disks"], image["meta"]]:
                known.add(os.path.basename(path))
        strays = self.files() - known - set(before)
        check(not strays, f"files that belong to nothing: {sorted(strays)}")


def spoil(path, offset=MIB, length=16 * KIB):
    """Somebody writes into a file behind the daemon's back."""
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(b"\xee" * length)
        file.flush()
        os.fsync(file.fileno())
