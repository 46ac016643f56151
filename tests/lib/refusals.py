"""What a refusal must be: one clear line, the right exit status, and nothing changed on disk or in what status shows."""
import os
import re

from . import images
from .context import Failed, check
from .daemon import Daemon
from .images import MIB

EITHER = (1, 2)


class World:
    """A daemon with a mirror `vol0` of two files, INACTIVE; folders to break things in."""

    def __init__(self, t, wrapper=(), arguments=()):
        self.t = t
        self.folder = t.path("disks")
        os.mkdir(self.folder)
        self.daemon = Daemon(t, wrapper=wrapper, arguments=arguments).start()
        self.a, self.b = self.path("a.img"), self.path("b.img")
        self.daemon.create("vol0", [self.a, self.b], size=MIB, activate=False)

    def path(self, name):
        return os.path.join(self.folder, name)

    def file(self, name, size=MIB):
        return images.make_sparse(self.path(name), size)

    def full(self, name, size=MIB):
        return images.make_random(self.path(name), size)

    def activate(self):
        self.daemon.tarn("mirror", "activate", "vol0")

    def create(self, *image_words, size="1M", name="new"):
        """The words that create a mirror; each image is one word."""
        words = ["mirror", "create", name]
        words += ["--size", size] if size else []
        for image in image_words:
            words += ["--image", image]
        return words

    def check_refused(self, words, statuses, saying):
        before = images.snapshot(self.folder, self.daemon.state)
        shown = self.daemon.json("status")["mirrors"]
        result = self.daemon.tarn(*words, status=None)
        check(result.status in statuses, f"exit status should be {' or '.join(map(str, statuses))}: {result}")
        check_message(result.err, saying)
        self.daemon.check_alive()
        images.check_unchanged(before, images.snapshot(self.folder, self.daemon.state))
        check(self.daemon.json("status")["mirrors"] == shown, "refused, but status shows something else than before")


def check_message(text, saying):
    """One line that says what and why."""
    lines = text.strip().splitlines()
    check(len(lines) == 1, f"not one line on standard error: {text!r}")
    check(len(lines[0]) > 12, f"the message says nothing: {text!r}")
    for pattern in saying:
        check(re.search(pattern, lines[0], re.IGNORECASE), f"the message does not say /{pattern}/: {lines[0]!r}")


def check_table(world, table):
    """Every row of a table on one world, which none of them changes; all rows that fail are named together."""
    wrong = []
    for why, words, statuses, saying in table:
        try:
            world.check_refused(words(world) if callable(words) else words, statuses, saying)
        except Failed as error:
            wrong.append(f"{why}: {error}")
            world.daemon.check_alive()
    check(not wrong, "; ".join(wrong))
