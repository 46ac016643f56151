"""The cycle that everything is for: SIGKILL under load, start again, and look at every byte.

    start -> auto-activation -> everything answered is there -> load -> SIGKILL (at times while an image is copied to;
    at times again, and again, during recovery)
          -> start -> recovery stays within the marks -> everything answered is there -> SYNCHRONIZED -> stop
          -> the images are equal, byte for byte
"""
import json
import random
import subprocess
import time
from dataclasses import dataclass

from . import images
from .context import Failed, check, wait_for
from .daemon import Daemon
from .ledger import SECTOR, Ledger
from .load import Load, Mix, open_handle, read_volume

MARKS_AWAITED_EVERY = 5
SLOW = ("rate=64K",)  # a copy and a recovery that are not over before they can be killed
FAST = ("rate=0",)


@dataclass
class Variant:
    """What is run."""
    name: str
    place: str = "tmpfs"          # or "disk"
    image_count: int = 2
    size: int = 64 * images.MIB
    region: int = 4 * images.MIB
    marks: int = 4096
    settings: tuple = ()


@dataclass
class Totals:
    """What the run met; a run that met none of something proves nothing about it."""
    cycles: int = 0
    in_flight: int = 0
    marked: int = 0
    copied: int = 0
    answered: int = 0
    reads: int = 0
    second_kills: int = 0
    recoveries_killed: int = 0   # that were seen to be under way
    copies_killed: int = 0       # of an image that was not SYNCHRONIZED yet


class Crash:
    """One mirror through many crashes."""

    def __init__(self, test, variant, seed, say=print):
        self.variant, self.say = variant, say
        self.random = random.Random(seed)
        self.totals = Totals()
        self.ledger = Ledger(variant.size // SECTOR)
        self.daemon = Daemon(test)
        folder = test.place(variant.place)
        self.names = [chr(ord("a") + index) for index in range(variant.image_count)]
        self.paths = [f"{folder}/{variant.name}-{name}.img" for name in self.names]
        self.daemon.start()
        settings = [f"region={variant.region}", f"marks={variant.marks}", *variant.settings]
        self.daemon.create("vol0", self.paths, size=variant.size, settings=settings)
        self.daemon.stop()

    # ---- one cycle ----

    def cycle(self):
        """Raises Failed with everything needed to look further."""
        number = self.totals.cycles + 1
        try:
            self.daemon.start()
            self.daemon.wait_state("vol0", "ACTIVE")
            copying = self.begin_copy(number) if number % 3 == 2 and self.variant.image_count > 1 else None
            in_flight, marked = self.load_and_kill(0.3 + self.random.random())
            line = f"cycle {number} ({self.variant.name}): {in_flight} writes in flight, {marked} marked regions"
            if number % 3 == 0:
                in_flight_again, marked_again = self.kill_again()
                line += f"; killed again {in_flight_again} / {marked_again}"
                in_flight, marked = in_flight + in_flight_again, max(marked, marked_again)
                if self.variant.image_count > 1:
                    seen, marked = self.kill_in_recovery()
                    line += f"; and {seen} times in its recovery"
            if number % 3 == 1:
                line += f"; killed after {self.kill_while_starting() * 1000:.0f} ms of its next start"
            if copying:
                seen, marked = self.kill_in_copy()
                line += f"; {copying} copy killed {seen} times"
            recovery = self.start_and_check(marked if number % 3 != 1 else 0)  # that start may have recovered it all
            self.daemon.stop()
            images.check_same(self.paths, self.variant.size)
        except Failed as failure:
            raise Failed(f"cycle {number} of {self.variant.name}: {failure}") from failure
        self.totals.cycles = number
        self.totals.in_flight += in_flight
        self.totals.marked += marked
        self.totals.copied += recovery["bytes_copied"]
        self.say(f"{line}; recovery marked {recovery['bytes_marked']} copied {recovery['bytes_copied']} bytes "
                 f"in {recovery['seconds']:.2f} s; {self.totals.answered} writes answered so far")

    # ---- killed in the middle of a copy ----

    def set_rate(self, words):
        for name in self.names:
            self.daemon.tarn("image", "set", "vol0", name, *words)

    def begin_copy(self, number):
        """An image begins to be copied to, slowly: in full, or what it missed while it was cut off."""
        slave = self.random.choice([image["name"] for image in self.daemon.mirror("vol0")["images"]
                                    if image["role"] == "slave"])
        self.set_rate(SLOW)
        kind = ("full", "missed")[number // 3 % 2]
        if kind == "full":
            self.daemon.tarn("image", "sync", "vol0", slave)
        else:
            self.daemon.tarn("image", "fracture", "vol0", slave)
            load = Load(self.ledger, self.daemon.uri("vol0"), seed=self.random.randrange(1 << 30))
            load.run(0.3)
            load.drain()
            load.close()
            self.daemon.tarn("image", "restore", "vol0", slave)
        return kind

    def kill_in_copy(self):
        """The copy goes on by itself after a crash, and is killed again, with clients at work. Returns how often an image
        was seen in the middle of it, and the marked regions at the last crash."""
        seen = 0
        for _ in range(2):
            self.daemon.start()
            status = self.daemon.wait_state("vol0", "ACTIVE")
            seen += any(image["state"] != "SYNCHRONIZED" for image in status["images"])
            self.load_and_kill(self.random.random() * 0.2)
        self.totals.copies_killed += seen
        self.daemon.start()
        self.daemon.wait_state("vol0", "ACTIVE")
        self.set_rate(FAST)
        return seen, self.load_and_kill(self.random.random() * 0.05)[1]

    def kill_in_recovery(self):
        """Crashes while the recovery of the crash before is seen to be under way. Returns how often, and the marked
        regions at the last crash."""
        self.daemon.start()
        self.daemon.wait_state("vol0", "ACTIVE")
        self.set_rate(SLOW)
        self.load_and_kill(0.2)
        seen = 0
        for _ in range(2):
            self.daemon.start()
            status = self.daemon.wait_state("vol0", "ACTIVE")
            seen += any(image["sync"] for image in status["images"])
            self.load_and_kill(self.random.random() * 0.1)
        self.totals.recoveries_killed += seen
        self.daemon.start()
        self.daemon.wait_state("vol0", "ACTIVE")
        self.set_rate(FAST)
        return seen, self.load_and_kill(self.random.random() * 0.05)[1]

    def load_and_kill(self, seconds):
        """Load, a look at the marks, SIGKILL in the middle of it. Returns writes in flight and marked regions."""
        load = Load(self.ledger, self.daemon.uri("vol0"), depth=self.random.choice((4, 16, 48)),
                    connections=self.random.choice((1, 3, 4)), seed=self.random.randrange(1 << 30),
                    mix=self.choose_mix())
        load.run(seconds)
        marked = self.marks_under(load)
        load.run(self.random.random() * 0.1)
        self.daemon.pause()       # this client is slower than the server: only so is there a queue
        load.burst(depth=64)
        self.daemon.resume()
        time.sleep(self.random.random() * 0.002)  # the server is at any point of the burst
        self.daemon.kill()
        in_flight = load.bury()
        self.totals.answered = self.ledger.answered_writes
        self.totals.reads += load.reads_checked
        return in_flight, marked

    def choose_mix(self):
        """At times all over the volume, at times in a corner of it."""
        return Mix(hot=self.random.choice((0, 30, 95)), bytes_max=self.random.choice((4 << 10, 64 << 10)))

    def marks_under(self, load):
        """`tarn status --json` while the load goes on."""
        query = subprocess.Popen(self.daemon.tarn_argv("--json", "status"), stdout=subprocess.PIPE, text=True)
        try:
            load.run(20, until=lambda: query.poll() is not None)
            check(query.poll() == 0, f"tarn status under load: {query.poll()}")
            (mirror,) = json.load(query.stdout)["mirrors"]
        finally:
            if query.poll() is None:
                query.kill()
            query.wait()
            query.stdout.close()
        marked = mirror["marked_regions"]
        check(marked <= self.variant.marks, f"{marked} marked regions, at most {self.variant.marks} allowed")
        return marked

    def kill_again(self):
        """A second crash at any moment of the recovery, with clients at work."""
        self.daemon.start()
        self.daemon.wait_state("vol0", "ACTIVE")
        self.totals.second_kills += 1
        return self.load_and_kill(self.random.random() * 0.05)

    def kill_while_starting(self):
        """A crash at any moment of the start: reading metadata, activating, recovering. Returns when."""
        seconds = self.random.random() * 0.25
        self.daemon.launch()
        time.sleep(seconds)
        self.daemon.kill()
        self.totals.second_kills += 1
        return seconds

    def start_and_check(self, marked):
        """After the crash: active by itself, recovered within the marks, everything there, equal in the end."""
        self.daemon.start()
        self.daemon.wait_state("vol0", "ACTIVE")
        handle = open_handle(self.daemon.uri("vol0"))
        self.ledger.check_all(read_volume(handle))  # served at once, while it recovers
        status = self.daemon.wait_synchronized("vol0")
        recovery = status["last_recovery"]
        check(recovery, "last_recovery is empty after a crash")
        self.check_recovery(recovery, marked)
        if self.totals.cycles % MARKS_AWAITED_EVERY == 0:  # clearing is lazy, so this takes seconds
            wait_for("marks to be cleared when nothing is written",
                     lambda: self.daemon.mirror("vol0")["marked_regions"] == 0, every=0.1)
        self.ledger.check_all(read_volume(handle))
        handle.shutdown()
        return recovery

    def check_recovery(self, recovery, marked):
        bound = min(self.variant.marks * self.variant.region, self.variant.size)
        check(recovery["reason"] == "crash", f"recovery's reason is {recovery['reason']}")
        check(recovery["bytes_marked"] <= bound, f"{recovery['bytes_marked']} bytes marked, the marks allow {bound}")
        check(recovery["bytes_copied"] <= bound, f"{recovery['bytes_copied']} bytes copied, the marks allow {bound}")
        # An extent may be copied a second time where a read and the copier meet, so this is not exact.
        check(recovery["bytes_copied"] <= 2 * recovery["bytes_marked"],
              f"{recovery['bytes_copied']} bytes copied, only {recovery['bytes_marked']} were marked")
        check(implies(self.variant.image_count > 1 and recovery["bytes_marked"] > 0, recovery["bytes_copied"] > 0),
              f"{recovery['bytes_marked']} bytes were marked, nothing was copied")
        check(implies(marked > 0, recovery["bytes_marked"] > 0), "regions were marked at the crash, none afterwards")


def implies(premise, conclusion):
    return not premise or conclusion


def run_for(crash, cycles=None, seconds=None):
    """Cycles until enough; the totals must show that something was at stake."""
    deadline = time.monotonic() + seconds if seconds else None
    while (cycles and crash.totals.cycles < cycles) or (deadline and time.monotonic() < deadline):
        crash.cycle()
    return crash.totals


def check_totals(totals, copies=True, recoveries=True):
    """`copies` and `recoveries`: there were so many, and long ones, that some must have been met under way."""
    check(totals.in_flight > 0, "no write was in flight at any crash: the run proves nothing")
    check(totals.marked > 0, "no region was marked at any crash: the run proves nothing")
    check(totals.answered > 0, "no write was answered")
    check(totals.reads > 0, "no read was checked under load")
    check(implies(recoveries, totals.recoveries_killed > 0), "no recovery was killed under way")
    check(implies(copies, totals.copies_killed > 0), "no copy was killed under way")
