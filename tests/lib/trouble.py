"""Disks that hang, that are slow, that change places, or that are put back to an earlier state: what stays true through all of it.

Each cycle serves clients, strikes once, and then looks at every sector. What is allowed after a strike between two lives is an
ACTIVE mirror that has everything that was answered, or one that refuses and says so; never an ACTIVE one that serves something
old. A refusal is followed by undoing what was done, and then everything must be there."""
import os
import random
import shutil
from dataclasses import dataclass

from . import images
from .context import Failed, check, wait_for
from .daemon import Daemon
from .disks import end_loop, new_loop
from .images import MIB
from .ledger import SECTOR, Ledger
from .load import Load, Mix, open_handle, read_volume

NAMES = "abc"
SETTLED = ("ACTIVE", "ATTENTION")


@dataclass
class Totals:
    """How often each strike fell, and what came of it."""
    hung: int = 0
    slow: int = 0
    swapped: int = 0
    image_rolled_back: int = 0
    state_rolled_back: int = 0
    refused: int = 0
    recovered: int = 0  # ACTIVE all the same, everything there
    answered: int = 0


class Trouble:
    """A mirror of three images on loop devices or on files. `kind`: "loop" or "file"."""

    def __init__(self, test, kind, seed, say=print):
        self.test, self.kind, self.say = test, kind, say
        self.random = random.Random(seed)
        self.totals, self.size = Totals(), 64 * MIB
        self.ledger = Ledger(self.size // SECTOR)
        self.files = {name: images.make_sparse(test.path(f"{name}.raw"), self.size) for name in NAMES}
        self.devices = {name: new_loop() for name in NAMES} if kind == "loop" else {}
        self.attach(self.files)
        self.daemon = Daemon(test, arguments=["--enable-faults"]).start()
        words = [f"{name}={self.path(name)}" + (",overwrite" if kind == "loop" and name != "a" else "") for name in NAMES]
        self.daemon.create("vol0", words, size=self.size, settings=["region=1M", "suspend=2"])
        for name in NAMES:
            self.daemon.tarn("image", "set", "vol0", name, "hang=2", "return-after=1")
        self.daemon.wait_synchronized("vol0")

    # ---- the disks ----

    def path(self, name):
        return self.devices[name] if self.kind == "loop" else self.files[name]

    def attach(self, files):
        """Binds each image's device to one of the files, always under the same name."""
        for name, device in self.devices.items():
            self.test.run("losetup", device, files[name], quiet=True)

    def detach(self):
        for device in self.devices.values():
            self.test.run("losetup", "--detach", device, status=None, quiet=True)

    def give_up(self):
        for device in self.devices.values():
            end_loop(self.test, device)

    def rebind(self, files):
        self.detach()
        self.attach(files)

    # ---- clients ----

    def load(self, seconds):
        """Clients at work; everything is answered in the end, without an error, and flushed."""
        load = Load(self.ledger, self.daemon.uri("vol0"), depth=8, connections=3, seed=self.random.randrange(1 << 30),
                    mix=Mix(hot=self.random.choice((0, 30, 95))))
        load.run(seconds)
        load.drain(seconds=120)
        load.close()
        handle = open_handle(self.daemon.uri("vol0"))
        handle.flush()
        handle.shutdown()
        self.totals.answered = self.ledger.answered_writes

    def check_content(self):
        handle = open_handle(self.daemon.uri("vol0"))
        self.ledger.check_all(read_volume(handle))
        handle.shutdown()

    def all_well(self):
        """Every image back, equal, and all that was answered is there."""
        self.daemon.wait_state("vol0", "ACTIVE", seconds=120)
        wait_for("all images to be SYNCHRONIZED", self.bring_back, seconds=300, every=0.5)
        self.daemon.wait_synchronized("vol0", seconds=300)
        self.check_content()

    def bring_back(self):
        """Asks for those that are out, again and again: one that is just coming back by itself, and finds that it cannot, refuses."""
        images_now = self.daemon.mirror("vol0")["images"]
        for image in images_now:
            if image["missing"]:
                self.daemon.tarn("image", "restore", "vol0", image["name"], status=None, quiet=True)
        return all(image["state"] == "SYNCHRONIZED" for image in images_now)

    # ---- strikes while clients are at work ----

    def strike_disk(self, what):
        name = self.random.choice(NAMES)
        where = self.random.choice(("read", "write", "flush", "read,write,flush"))
        self.daemon.tarn("fault", "vol0", name, what, "--on", where)
        self.load(2 + self.random.random() * 2)
        self.daemon.tarn("fault", "vol0", name, "heal")
        self.all_well()
        return f"{what} of {name} on {where}"

    def hang(self):
        self.totals.hung += 1
        return self.strike_disk("hang")

    def slow(self):
        self.totals.slow += 1
        return self.strike_disk(f"delay={self.random.choice((20, 200, 700))}")

    # ---- strikes between two lives ----

    def life_ends(self, kill):
        if kill:
            self.daemon.kill()
        else:
            self.daemon.stop()

    def life_begins(self, undo):
        """Starts, and undoes what was done if the mirror refuses. Returns what came of it."""
        self.daemon.start(seconds=120)
        seen = {}

        def settled():
            seen.update(self.daemon.mirror("vol0"))
            return seen["state"] in SETTLED
        wait_for("the mirror to be ACTIVE or in ATTENTION", settled, 120, every=0.05)
        if seen["state"] == "ACTIVE":
            self.totals.recovered += 1
            self.all_well()
            return "found its way"
        check(seen["reason"], "a mirror in ATTENTION says no reason")
        self.totals.refused += 1
        self.daemon.stop()
        undo()
        self.daemon.start(seconds=120)
        self.daemon.wait_state("vol0", "ACTIVE", seconds=120)
        self.all_well()
        return f"refused: {seen['reason'][:160]}"

    def slaves(self):
        return [image["name"] for image in self.daemon.mirror("vol0")["images"] if image["role"] == "slave"]

    def one_behind(self):
        """An image that misses what is written next. Its name."""
        name = self.random.choice(self.slaves())
        self.daemon.tarn("image", "fracture", "vol0", name)
        self.load(0.5)
        return name

    def swap(self):
        """Two disks change places, one of them behind."""
        self.totals.swapped += 1
        behind = self.one_behind()
        other = self.random.choice([name for name in NAMES if name != behind])
        self.life_ends(kill=self.random.randrange(3) == 0)
        if self.kind == "loop":
            swapped = {**self.files, behind: self.files[other], other: self.files[behind]}
            self.rebind(swapped)
            outcome = self.life_begins(lambda: self.rebind(self.files))
            if outcome.startswith("found"):  # with the disks where they are now
                self.daemon.stop()
                self.files = swapped
                self.daemon.start(seconds=120)
                self.all_well()
        else:
            self.exchange(behind, other)
            outcome = self.life_begins(lambda: self.exchange(behind, other))
        return f"{behind} (behind) and {other} changed places: {outcome}"

    def exchange(self, one, other):
        for suffix in ("", ".tarn"):
            first, second = self.files[one] + suffix, self.files[other] + suffix
            os.rename(first, first + ".tmp")
            os.rename(second, first)
            os.rename(first + ".tmp", second)

    def image_back(self):
        """One image's disk is put back to an earlier state, with the metadata that travels with it. Of a device nothing travels: after
        a crash what was marked is believed of the source, so it is put back after clean stops only (docs/rules.md, rule 16)."""
        self.totals.image_rolled_back += 1
        name, kept = self.random.choice(NAMES), self.test.path("kept")
        self.daemon.stop()
        suffixes = [suffix for suffix in ("", ".tarn") if os.path.exists(self.files[name] + suffix)]
        for suffix in suffixes:
            shutil.copyfile(self.files[name] + suffix, kept + suffix)
        self.daemon.start()
        self.load(1)
        self.life_ends(kill=self.kind == "file" and self.random.randrange(3) == 0)
        for suffix in suffixes:
            shutil.copyfile(self.files[name] + suffix, kept + suffix + ".new")
            shutil.copyfile(kept + suffix, self.files[name] + suffix)

        def undo():
            for suffix in suffixes:
                shutil.copyfile(kept + suffix + ".new", self.files[name] + suffix)
        return f"{name} put back to an earlier state: {self.life_begins(undo)}"

    def state_back(self):
        """The state directory is that of an earlier life, in which another image was current."""
        self.totals.state_rolled_back += 1
        old, new = self.test.path("state.old"), self.test.path("state.new")
        behind = self.one_behind()
        self.daemon.stop()
        shutil.copytree(self.daemon.state, old, ignore=shutil.ignore_patterns("*.sock"))
        self.daemon.start()
        self.daemon.tarn("image", "restore", "vol0", behind, "--wait", status=None, seconds=300)
        self.load(1)
        if self.random.randrange(2):
            self.daemon.tarn("image", "fracture", "vol0", self.random.choice([name for name in self.slaves() if name != behind]))
            self.load(0.5)
        self.daemon.stop()
        os.rename(self.daemon.state, new)
        os.rename(old, self.daemon.state)

        def undo():
            shutil.rmtree(self.daemon.state)
            os.rename(new, self.daemon.state)
        outcome = self.life_begins(undo)
        shutil.rmtree(new, ignore_errors=True)
        return f"the state directory put back to when {behind} was behind: {outcome}"

    # ---- one cycle ----

    STRIKES = (hang, slow, swap, image_back, state_back)

    def cycle(self, number):
        strike = self.STRIKES[number % len(self.STRIKES)]
        try:
            self.load(0.5 + self.random.random())
            self.say(f"{self.kind} cycle {number}: {strike(self)}; {self.totals.answered} writes answered so far")
        except Failed as failure:
            raise Failed(f"cycle {number} ({strike.__name__}, {self.kind}): {failure}") from failure

    def end(self):
        """After the last cycle: a clean stop leaves equal images."""
        self.all_well()
        self.daemon.stop()
        images.check_same(list(self.files.values()), self.size)
