"""What most interoperability tests start from: an ACTIVE mirror of two images, and a look at both at the end."""
import os

from . import images
from .daemon import Daemon
from .images import MIB

SIZE = 64 * MIB


class Served:
    """A mirror `vol0` that is ready for clients."""

    def __init__(self, t, size=SIZE, place="tmpfs", image_count=2, arguments=()):
        self.t, self.size = t, size
        folder = t.place(place)
        self.paths = [os.path.join(folder, f"image{index}.img") for index in range(image_count)]
        self.daemon = Daemon(t, arguments=arguments).start()
        self.daemon.create("vol0", self.paths, size=size)
        self.uri = self.daemon.uri("vol0")

    def stop_and_compare(self):
        """After a clean stop all images hold the same bytes."""
        self.daemon.stop()
        images.check_same(self.paths, self.size)
