"""What a client feels of a synchronisation: the latency of one mirror's client while an image is copied in full, again
and again, against the same with nothing being copied. In each round the two are measured one after the other."""
import shutil
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass

from fio import busy_side, chosen, run_fio
from lib.context import Failed, wait_for
from lib.daemon import Daemon
from lib.images import MIB, make_random

WORKLOADS = {
    "4K random read, depth 1": ["--rw=randread", "--bs=4k", "--iodepth=1"],
    "4K random read, depth 8": ["--rw=randread", "--bs=4k", "--iodepth=8"],
    "4K random write, depth 1": ["--rw=randwrite", "--bs=4k", "--iodepth=1"],
    "4K random write, depth 8": ["--rw=randwrite", "--bs=4k", "--iodepth=8"],
}
MIRROR = "bench"


@dataclass
class Latency:
    """One run of fio: submission to completion, and what was copied meanwhile."""
    p50_us: float
    p99_us: float
    operations_per_second: float
    copied_bytes_per_second: float


class Synchronisation(threading.Thread):
    """Image b is copied in full, and again as soon as that is done, until stop()."""

    def __init__(self, daemon, image_bytes):
        super().__init__(daemon=True)
        self.daemon_under_test, self.image_bytes = daemon, image_bytes
        self.over, self.error = threading.Event(), None
        self.copies = []  # (from, to) of those that are complete, by the clock

    def run(self):
        try:
            while not self.over.is_set():
                start = time.monotonic()
                self.daemon_under_test.tarn("image", "sync", MIRROR, "b", "--wait", quiet=True, seconds=600)
                self.copies.append((start, time.monotonic()))
        except Failed as failure:
            self.error = failure

    def begin(self):
        self.start()
        wait_for("image b to be copied", lambda: self.error or self.is_copying())

    def is_copying(self):
        images = self.daemon_under_test.mirror(MIRROR)["images"]
        return next(image for image in images if image["name"] == "b")["state"] == "SYNCHRONIZING"

    def stop(self):
        """The bytes per second that were copied while one copy followed the other."""
        self.over.set()
        self.join()
        if self.error:
            raise self.error
        return len(self.copies) * self.image_bytes / (self.copies[-1][1] - self.copies[0][0])


class LatencyBench:
    """Two images in one place."""

    def __init__(self, test, arguments, place):
        self.test, self.arguments, self.place = test, arguments, place
        parent = "/dev/shm" if place == "memory" else arguments.dir
        self.folder = tempfile.mkdtemp(prefix="tarn-bench-sync-", dir=parent)
        self.samples = {}  # (workload, syncing) -> [Latency]
        self.server = None

    def title(self):
        return f"2 images, {'in memory' if self.place == 'memory' else 'on disk'}"

    def start(self):
        daemon = self.server = Daemon(self.test, state=self.test.path(f"state-sync-{self.place}"))
        daemon.start()
        daemon.create(MIRROR, [f"{name}={self.folder}/{name}.img" for name in "ab"], size=self.arguments.size * MIB)
        daemon.wait_synchronized(MIRROR)
        source = f"{self.folder}/fill"
        make_random(source, self.arguments.size * MIB)
        self.test.run("nbdcopy", "--flush", source, daemon.uri(MIRROR), seconds=600, quiet=True)

    def run(self, progress):
        self.start()
        for name, words in chosen(WORKLOADS, self.arguments).items():
            for number in range(self.arguments.rounds):
                for syncing in (False, True):
                    beside = ", beside a synchronisation" if syncing else ""
                    progress(f"{self.title()}: {name}, round {number + 1}{beside}")
                    self.samples.setdefault((name, syncing), []).append(self.measure(words, syncing))

    def measure(self, words, syncing):
        copy = Synchronisation(self.server, self.arguments.size * MIB) if syncing else None
        if copy:
            copy.begin()
        job = run_fio(self.test, self.server.uri(MIRROR), self.arguments.size, self.arguments.seconds, words,
                      on_disk=self.place == "disk")
        copied = copy.stop() if copy else 0.0
        self.server.wait_synchronized(MIRROR)
        side = busy_side(job)
        percentiles = side["lat_ns"]["percentile"]
        return Latency(percentiles["50.000000"] / 1000, percentiles["99.000000"] / 1000, side["iops"], copied)

    def rows(self):
        for name in chosen(WORKLOADS, self.arguments):
            row = {"setting": self.title(), "workload": name}
            for syncing in (False, True):
                for what in ("p50_us", "p99_us", "operations_per_second", "copied_bytes_per_second"):
                    values = [getattr(sample, what) for sample in self.samples[name, syncing]]
                    row[f"{what}{'_syncing' if syncing else ''}"] = statistics.median(values)
            del row["copied_bytes_per_second"]
            yield row

    def close(self):
        if self.server and self.server.is_running():
            self.server.stop(seconds=60)
        shutil.rmtree(self.folder, ignore_errors=True)


def print_latency(rows, arguments):
    print("### A client's latency while an image is synchronised, against none\n")
    print(f"Image b, of {arguments.size} MiB, is copied in full and without a rate, again and again.\n")
    print("| setting | workload | p50 µs | with sync | ratio | p99 µs | with sync | ratio | copied |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        cells = [row["setting"], row["workload"]]
        for what in ("p50_us", "p99_us"):
            alone, syncing = row[what], row[f"{what}_syncing"]
            cells += [f"{alone:,.1f}", f"{syncing:,.1f}", f"{syncing / alone:.2f}"]
        cells.append(f"{row['copied_bytes_per_second_syncing'] / MIB:,.0f} MiB/s")
        print(f"| {' | '.join(cells)} |")
    print()
