"""A mirror of 16 TiB with two images: how long people wait for it, and how much memory it takes. The images are sparse
files, and with nothing but holes they are in sync from the start; then one of them is to be copied in full, which is
when its map is fullest."""
import errno
import os
import shutil
import statistics
import tempfile
import time

from lib.context import wait_for
from lib.daemon import Daemon

TIB = 1 << 40
SIZE = 16 * TIB
MIRROR = "large"
SECONDS_MAX, MIB_PER_TIB_MAX = 1.0, 64.0  # what issue 3 promises

WHAT = {  # what is measured -> (unit, at most)
    "create": ("s", SECONDS_MAX),
    "activate": ("s", SECONDS_MAX),
    "status": ("s", SECONDS_MAX),
    "start, images equal": ("s", SECONDS_MAX),
    "memory, images equal": ("MiB/TiB", MIB_PER_TIB_MAX),
    "status, one image copied": ("s", SECONDS_MAX),
    "memory, one image copied": ("MiB/TiB", MIB_PER_TIB_MAX),
    "start after a crash, one image copied": ("s", SECONDS_MAX),
    "memory after it": ("MiB/TiB", MIB_PER_TIB_MAX),
}


def memory_mib(pid):
    """Resident memory, the most so far."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024


def timed(function, *arguments):
    start = time.monotonic()
    function(*arguments)
    return time.monotonic() - start


class LargeBench:
    """One place. Of a file system whose files end below 16 TiB (ext4) the mirror has two volumes of half of that."""

    def __init__(self, test, arguments, place):
        self.test, self.arguments, self.place = test, arguments, place
        parent = "/dev/shm" if place == "memory" else arguments.dir
        self.folder = tempfile.mkdtemp(prefix="tarn-bench-large-", dir=parent)
        self.volumes = 1 if self.takes(SIZE) else 2
        self.samples = {what: [] for what in WHAT}

    def title(self):
        volumes = "16 TiB" if self.volumes == 1 else "2 volumes of 8 TiB"
        return f"2 images of {volumes}, {'in memory' if self.place == 'memory' else 'on disk'}"

    def takes(self, size):
        path = os.path.join(self.folder, "probe")
        try:
            with open(path, "wb") as file:
                file.truncate(size)
            return True
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            return False
        finally:
            os.unlink(path)

    def run(self, progress):
        for number in range(self.arguments.rounds):
            progress(f"{self.title()}, round {number + 1}")
            daemon = Daemon(self.test, state=self.test.path(f"state-large-{self.place}-{number}"))
            try:
                self.round(daemon, os.path.join(self.folder, str(number)))
            finally:
                if daemon.is_running():
                    daemon.kill()

    def round(self, daemon, folder):
        os.mkdir(folder)
        daemon.start()
        empty = memory_mib(daemon.pid())

        def note(what, value):
            self.samples[what].append(value)

        def note_memory(what):
            note(what, (memory_mib(daemon.pid()) - empty) / (SIZE / TIB))
        volumes = [word for v in range(self.volumes) for word in ("--volume", f"v{v}:{SIZE // self.volumes}")]
        images = [word for name in "ab"
                  for word in ("--image", f"{name}=" + "+".join(f"{folder}/{name}{v}" for v in range(self.volumes)))]
        note("create", timed(daemon.tarn, "mirror", "create", MIRROR, *volumes, *images))
        note("activate", timed(daemon.tarn, "mirror", "activate", MIRROR))
        note("status", timed(daemon.tarn, "status"))
        daemon.stop()
        note("start, images equal", timed(self.start, daemon))
        daemon.wait_synchronized(MIRROR)
        note_memory("memory, images equal")
        daemon.tarn("image", "sync", MIRROR, "b")
        self.wait_copying(daemon)
        note("status, one image copied", timed(daemon.tarn, "status"))
        note_memory("memory, one image copied")
        daemon.kill()
        note("start after a crash, one image copied", timed(self.start, daemon))
        self.wait_copying(daemon)
        note_memory("memory after it")
        daemon.kill()
        shutil.rmtree(folder)

    @staticmethod
    def start(daemon):
        """Until clients are served."""
        daemon.start()
        daemon.wait_state(MIRROR, "ACTIVE")

    @staticmethod
    def wait_copying(daemon):
        wait_for("image b to be copied", lambda: daemon.mirror(MIRROR)["images"][1]["state"] == "SYNCHRONIZING")

    def rows(self):
        for what, (unit, at_most) in WHAT.items():
            yield {"setting": self.title(), "what": what, "unit": unit, "at_most": at_most,
                   "median": statistics.median(self.samples[what]), "runs": self.samples[what]}

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def print_large(rows):
    print("### A large mirror\n")
    print("Wall time of the command, or from the start of tarnd until clients are served; memory is resident, at most so")
    print("far, without that of an empty daemon.\n")
    print("| setting | what | median | promised |")
    print("| --- | --- | ---: | ---: |")
    for row in rows:
        value = f"{row['median']:.3f}" if row["unit"] == "s" else f"{row['median']:.1f}"
        print(f"| {row['setting']} | {row['what']} | {value} {row['unit']} | {row['at_most']:g} |")
    print()
