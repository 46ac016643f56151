"""The power-cut cycle: the daemon and the servers of all of its disks are killed together, under load.

    disks on -> start -> all that was flushed is there -> SYNCHRONIZED -> load -> everything is killed (at times while an image
    is copied to; at times again, during recovery) -> disks on -> start -> all that was flushed is there -> SYNCHRONIZED -> stop -> the media are equal, byte for byte

Data and metadata of every image lie on disks with a volatile cache (volatile_disk.py), so that what nobody flushed is lost."""
import os
import random
import subprocess
import time
from dataclasses import dataclass, field

from . import images
from .context import Failed, check
from .daemon import Daemon
from .images import KIB, MIB
from .ledger import SECTOR, Ledger
from .load import Load, Mix, open_handle, read_volume
from .volatile_disk import Destager, VolatileDisk

META_BYTES, STATE_BYTES = 4 * MIB, 16 * MIB


@dataclass
class PowerLedger(Ledger):
    """Answered writes may be lost with the power until a flush that was sent after their answer is answered, or if they
    were FUA. `lasting` is what a sector may hold after a power cut; `possible`, as ever, what it may hold now."""
    lasting: list = field(init=False)
    flushes: int = 0
    unflushed: list = field(default_factory=list)  # (write, point of its answer)

    def __post_init__(self):
        super().__post_init__()
        self.lasting = list(self.possible)

    def answered(self, write):
        super().answered(write)
        self._may_last(write)
        if write.forced:
            self._lasts(write)
        else:
            self.unflushed.append((write, self.clock))

    def unanswered(self, write):
        super().unanswered(write)
        self._may_last(write)

    def flush_sent(self):
        return self.clock

    def flushed(self, point):
        """Everything answered before that flush was sent lasts."""
        self.flushes += 1
        for write, answered in self.unflushed:
            if answered <= point:
                self._lasts(write)
        self.unflushed = [entry for entry in self.unflushed if entry[1] > point]

    def _may_last(self, write):
        entry = (write.value, self.clock)
        for sector in range(write.sector, write.sector + write.count):
            self.lasting[sector] = (*self.lasting[sector], entry)

    def _lasts(self, write):
        """What was answered before this write was sent is gone for good."""
        if write.keeps:
            return
        for sector in range(write.sector, write.sector + write.count):
            self.lasting[sector] = tuple(value for value in self.lasting[sector] if value[1] > write.sent)

    def power_cut(self):
        check(not self.in_flight, "power_cut() with writes in flight")
        self.possible = list(self.lasting)
        self.unflushed = []

    def check_all(self, read, piece_bytes=1 << 20, settle=True):
        super().check_all(read, piece_bytes, settle)
        if settle and not self.unflushed:
            self.lasting = list(self.possible)  # what was seen after the power was back stays, whatever comes


@dataclass
class PowerVariant:
    name: str
    kind: str = "loop"             # of the disks with the data: "loop", "fuse" or "nbd"; those with the metadata are loop devices
    image_count: int = 2
    size: int = 16 * MIB
    region: int = 256 * KIB
    marks: int = 16
    cache: str = "writeback"       # of the data; metadata is always on a disk that keeps its word
    write_delay_ms: int = 0
    destage: bool = True
    volatile_state: bool = False   # the state directory, too: on an ext4 above such a disk


@dataclass
class PowerTotals:
    """A run that met none of something proves nothing about it."""
    cycles: int = 0
    cuts: int = 0
    in_flight: int = 0
    at_stake: int = 0      # writes that were answered and never flushed
    lost: int = 0          # sectors whose newest answered content was gone afterwards
    flushed: int = 0       # answered writes that had to be there
    copied: int = 0
    destaged: int = 0
    copies_cut: int = 0    # images that were seen in the middle of a copy when the power was back


class PowerCut:
    """One mirror through many power cuts."""

    def __init__(self, t, variant, seed, say=print):
        self.t, self.variant, self.say = t, variant, say
        self.random = random.Random(seed)
        self.totals = PowerTotals()
        self.ledger = PowerLedger(variant.size // SECTOR)
        self.names = names = [chr(ord("a") + index) for index in range(variant.image_count)]
        self.data = [VolatileDisk(t, f"{variant.name}-{name}", variant.size, variant.kind, variant.cache,
                                  variant.write_delay_ms) for name in names]
        self.metas = [VolatileDisk(t, f"{variant.name}-{name}-meta", META_BYTES) for name in names]
        self.state = VolatileDisk(t, f"{variant.name}-state", STATE_BYTES) if variant.volatile_state else None
        self.daemon = Daemon(t)
        for disk in self.disks():
            disk.power_on()
        if self.state:
            t.run("mkfs.ext4", "-q", self.state.path)
            os.mkdir(self.daemon.state)
            self.mount_state()
        self.daemon.start()
        words = [f"{name}={data.path},meta={meta.path},overwrite" for name, data, meta in
                 zip(names, self.data, self.metas)]
        self.daemon.create("vol0", words, size=variant.size,
                           settings=[f"region={variant.region}", f"marks={variant.marks}"])
        for name in names:
            # An image may fail an instant before the rest. After a power cut no server has requests left to be waited for.
            self.daemon.tarn("image", "set", "vol0", name, "return-after=1", "nbd-settle=0")
        self.daemon.wait_synchronized("vol0")

    def disks(self):
        return self.data + self.metas + ([self.state] if self.state else [])

    def mount_state(self):
        self.t.run("mount", "-t", "ext4", os.path.realpath(self.state.path), self.daemon.state)

    def cycle(self):
        number = self.totals.cuts + 1
        try:
            copying = self.begin_copy(number) if self.totals.cycles % 3 == 1 and self.variant.image_count > 1 else None
            line = f"power cut {number} ({self.variant.name}): {self.load_and_cut(0.3 + self.random.random())}"
            if copying:
                line += f"; {self.cut_in_copy()} times in a {copying} copy"
            if self.totals.cycles % 3 == 2:
                self.start()
                line += f"; again {self.load_and_cut(self.random.random() * 0.1)}"
            recovery = self.start_and_check()
            self.daemon.stop()
            images.check_same([disk.medium for disk in self.data], self.variant.size)  # SIGTERM flushes, too
            self.daemon.start()
        except Failed as failure:
            raise Failed(f"power cut {number} of {self.variant.name}: {failure}") from failure
        self.totals.cycles += 1
        self.totals.copied += recovery["bytes_copied"]
        self.say(f"{line}; recovery marked {recovery['bytes_marked']} copied {recovery['bytes_copied']} bytes in "
                 f"{recovery['seconds']:.2f} s")

    def set_rate(self, rate):
        for name in self.names:
            self.daemon.tarn("image", "set", "vol0", name, f"rate={rate}")

    def begin_copy(self, number):
        """A slave begins to be copied to, slowly: in full, or what it missed while it was cut off."""
        slave = self.random.choice([image["name"] for image in self.daemon.mirror("vol0")["images"]
                                    if image["role"] == "slave"])
        self.set_rate("4M")
        if number % 2:
            self.daemon.tarn("image", "sync", "vol0", slave)
            return "full"
        self.daemon.tarn("image", "fracture", "vol0", slave)
        load = Load(self.ledger, self.daemon.uri("vol0"), seed=number, mix=Mix(trims=0, hot=0))
        load.run(0.5)
        load.drain()
        load.close()
        self.daemon.tarn("image", "restore", "vol0", slave)
        return "missed"

    def cut_in_copy(self):
        """What was copied and is recorded as copied must not go with a cache (rule 13): cut again in the middle of it."""
        self.start()
        seen = sum(image["state"] != "SYNCHRONIZED" for image in self.daemon.mirror("vol0")["images"])
        self.totals.copies_cut += seen
        self.load_and_cut(0.2 + self.random.random())
        return 1 + seen

    def start(self):
        for disk in self.disks():
            disk.power_on()
        if self.state:
            self.mount_state()
        self.daemon.start()
        self.daemon.wait_state("vol0", "ACTIVE")

    def load_and_cut(self, seconds):
        """Load, then SIGKILL to everything in the middle of it, in any order. Says what was at stake."""
        before = self.ledger.answered_writes
        mix = Mix(hot=self.random.choice((0, 30, 95)), bytes_max=self.random.choice((4 << 10, 64 << 10)),
                  flushes=self.random.choice((0, 1, 3)), fua=self.random.choice((0, 5)),
                  trims=0 if self.variant.kind == "fuse" else 4)  # nbdfuse cannot punch holes here
        load = Load(self.ledger, self.daemon.uri("vol0"), depth=self.random.choice((4, 16)),
                    connections=self.random.choice((1, 3)), seed=self.random.randrange(1 << 30), mix=mix)
        destager = Destager(self.disks(), self.random.randrange(1 << 30)) if self.variant.destage else None
        if destager:
            destager.start()
        load.run(seconds)
        if self.totals.flushed == 0:  # there must be something that has to last
            flushes = self.ledger.flushes
            load.send_flush(load.connections[0])
            load.run(30, until=lambda: self.ledger.flushes > flushes)
        load.send_flush(load.connections[0])
        load.run(self.random.random() * 0.05)  # the cut may come before, in or after that flush
        load.burst(depth=16)
        time.sleep(self.random.random() * 0.003)
        self.cut_all()
        in_flight = load.bury()
        if destager:
            destager.end()
            self.totals.destaged += destager.flushes
        at_stake = len(self.ledger.unflushed)
        self.newest = self.ledger.possible
        self.ledger.power_cut()
        self.totals.cuts += 1
        self.totals.in_flight += in_flight
        self.totals.at_stake += at_stake
        self.totals.flushed += self.ledger.answered_writes - before - at_stake
        return f"{in_flight} writes in flight, {at_stake} answered and not flushed"

    def cut_all(self):
        """There is no order in a power cut."""
        ends = [disk.cut for disk in self.disks()] + [lambda: self.daemon.process.kill()]
        self.random.shuffle(ends)
        for end in ends:
            end()
        self.daemon.process.wait()
        if self.state:
            subprocess.run(["umount", "--lazy", self.daemon.state], check=True)
        for disk in self.disks():
            disk.unplug()

    def start_and_check(self):
        self.start()
        self.set_rate("0")
        handle = open_handle(self.daemon.uri("vol0"))
        self.ledger.check_all(read_volume(handle))  # served at once, while it recovers
        self.totals.lost += sum(1 for seen, newest in zip(self.ledger.possible, self.newest)
                                if all(seen[0][0] != value for value, _ in newest))
        status = self.daemon.wait_synchronized("vol0")
        check(status["last_recovery"], "last_recovery is empty after a power cut")
        self.ledger.check_all(read_volume(handle))
        handle.shutdown()
        return status["last_recovery"]


def check_power_totals(totals, many=False):
    """With `many` cuts chance is no excuse."""
    check(totals.flushed > 0, "no write was flushed before a cut: the run proves nothing")
    check(totals.in_flight + totals.at_stake > 0, "every write was answered and flushed at every cut: the run proves nothing")
    if many:
        check(totals.lost > 0, "nothing was lost at any cut: the disks' caches are not volatile")
        check(totals.copies_cut > 0, "no copy was cut off under way")
