"""How soon a mirror serves again: a volume of 100 GiB on sparse files gets random writes all over it, tarnd is killed in
the middle of them, and started again. Measured from that start: until a client has read back what it wrote last before
the kill, which lies in a region that must be copied first; and until all marked regions are copied and the images are
equal."""
import random
import shutil
import statistics
import subprocess
import tempfile
import time

import nbd
from fio import fio_words
from lib.context import Failed, end, wait_for
from lib.daemon import Daemon
from lib.images import MIB

GIB = 1 << 30
SIZE = 100 * GIB
MIRROR = "recovery"
FIRST_ANSWER_SECONDS_MAX = 1.0
LOAD_SECONDS = 4
BLOCK = 4096


class RecoveryBench:
    """Two images in one place."""

    def __init__(self, test, arguments, place):
        self.test, self.arguments, self.place = test, arguments, place
        self.parent = "/dev/shm" if place == "memory" else arguments.dir
        self.samples = []

    def title(self):
        return f"2 images, {'in memory' if self.place == 'memory' else 'on disk'}"

    def run(self, progress):
        for number in range(self.arguments.rounds):
            progress(f"recovery, {self.title()}, round {number + 1}")
            folder = tempfile.mkdtemp(prefix="tarn-bench-recovery-", dir=self.parent)
            daemon = Daemon(self.test, state=self.test.path(f"state-recovery-{self.place}-{number}"))
            try:
                self.samples.append(self.round(daemon, folder))
            finally:
                if daemon.is_running():
                    daemon.kill()
                shutil.rmtree(folder)

    def round(self, daemon, folder):
        daemon.start()
        daemon.create(MIRROR, [f"{name}={folder}/{name}.img" for name in "ab"], size=SIZE)
        daemon.wait_synchronized(MIRROR)
        uri = daemon.uri(MIRROR)
        load = self.test.spawn(*fio_words(uri, SIZE // MIB, 600, ["--rw=randwrite", "--bs=4k", "--iodepth=32"]),
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.test.path())
        time.sleep(LOAD_SECONDS)
        client = nbd.NBD()
        client.connect_uri(uri)
        data, offset = random.randbytes(BLOCK), random.randrange(SIZE // BLOCK) * BLOCK
        client.pwrite(data, offset)
        daemon.kill()
        end(load)
        start = time.monotonic()
        daemon.launch()
        answer = self.read_back(daemon, offset, start)
        if answer != data:
            raise Failed(f"what was answered before the kill is not there after it, at {offset}")
        first_answer = time.monotonic() - start
        recovery = wait_for("recovery to end", lambda: self.recovery(daemon), 300, every=0.01)
        return {"first_answer_s": first_answer, "recovered_s": time.monotonic() - start,
                "marked_bytes": recovery["bytes_marked"], "copied_bytes": recovery["bytes_copied"]}

    @staticmethod
    def read_back(daemon, offset, start):
        """As a client does that comes back: again at once, until it is served."""
        while True:
            try:
                client = nbd.NBD()
                client.connect_uri(daemon.uri(MIRROR))
                return client.pread(BLOCK, offset)
            except nbd.Error as error:
                if time.monotonic() - start > 60 or not daemon.is_running():
                    raise Failed(f"no answer after the kill: {error}; {daemon.log()[-500:]}") from error
                time.sleep(0.002)

    @staticmethod
    def recovery(daemon):
        recovery = daemon.mirror(MIRROR)["last_recovery"]
        return recovery if recovery and not recovery["running"] else None

    def rows(self):
        row = {"setting": self.title(), "first_answer_s_max": FIRST_ANSWER_SECONDS_MAX}
        for what in ("first_answer_s", "recovered_s", "marked_bytes", "copied_bytes"):
            row[what] = statistics.median(sample[what] for sample in self.samples)
        row["runs"] = self.samples
        yield row

    def close(self):
        pass


def print_recovery(rows):
    print("### After SIGKILL, a volume of 100 GiB under random writes\n")
    print(f"Killed after {LOAD_SECONDS} s of them. Times are from the start of the new tarnd; the first answer is a read "
          "of what was written last.\n")
    print("| setting | first answer | goal, at most | images equal | marked | copied |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        print(f"| {row['setting']} | {row['first_answer_s']:.3f} s | {row['first_answer_s_max']:g} s | "
              f"{row['recovered_s']:.1f} s | {row['marked_bytes'] / GIB:.2f} GiB | {row['copied_bytes'] / GIB:.2f} GiB |")
    print()
