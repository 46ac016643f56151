"""What a mirror of two images in memory costs the processor: per operation beside nbdkit's memory plugin, and what of it
is the intent log's. No disk waits, so all that is left is work. Time is user and system time of the server, all threads,
from /proc; a busy machine changes it much less than it changes speed."""
import os
import re
import shutil
import statistics
import subprocess
import tempfile

from fio import chosen, run_fio
from lib import processes
from lib.context import wait_for
from lib.daemon import Daemon
from lib.images import MIB

MIRROR = "bench"
CPU_WORKLOADS = {  # workload -> (how, Tarn may take so much more than nbdkit)
    "4K random read, depth 32": (["--rw=randread", "--bs=4k", "--iodepth=32"], 1.2),
    "4K random write, depth 32": (["--rw=randwrite", "--bs=4k", "--iodepth=32"], 2.0),
    "4K random read, depth 1": (["--rw=randread", "--bs=4k", "--iodepth=1"], None),
    "4K random write, depth 1": (["--rw=randwrite", "--bs=4k", "--iodepth=1"], None),
    "1M sequential read": (["--rw=read", "--bs=1m", "--iodepth=4"], None),
    "1M sequential write": (["--rw=write", "--bs=1m", "--iodepth=4"], None),
}
LOG_WORKLOADS = {
    "4K random write, depth 32": ["--rw=randwrite", "--bs=4k", "--iodepth=32"],
    "4K random write, depth 1": ["--rw=randwrite", "--bs=4k", "--iodepth=1"],
}
LOG_PERCENT_MAX = 5.0
FILL = ["--rw=write", "--bs=1m", "--iodepth=4"]


def cpu_us(test, pid, uri, arguments, words):
    """Per operation of one run of fio."""
    before = processes.cpu_seconds(pid)
    job = run_fio(test, uri, arguments.size, arguments.seconds, words, on_disk=False)
    spent = processes.cpu_seconds(pid) - before
    return spent * 1e6 / (job["read"]["total_ios"] + job["write"]["total_ios"])


class MemoryMirror:
    """A daemon with one mirror of two images on tmpfs."""

    def __init__(self, test, arguments, state, words=()):
        self.folder = tempfile.mkdtemp(prefix="tarn-bench-cost-", dir="/dev/shm")
        self.daemon = Daemon(test, state=test.path(state), arguments=words)
        self.daemon.start()
        self.daemon.create(MIRROR, [f"{name}={self.folder}/{name}.img" for name in "ab"], size=arguments.size * MIB)
        self.daemon.wait_synchronized(MIRROR)
        self.uri = self.daemon.uri(MIRROR)

    def close(self):
        if self.daemon.is_running():
            self.daemon.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class CpuBench:
    """Tarn and nbdkit stay up together, and are measured in turn."""

    def __init__(self, test, arguments):
        self.test, self.arguments = test, arguments
        self.samples = {}  # (workload, server) -> [µs]
        self.mirror = MemoryMirror(test, arguments, "state-cpu")

    def run(self, progress):
        socket = self.test.path("nbdkit-cpu.sock")
        nbdkit = self.test.spawn("nbdkit", "-f", "-U", socket, "memory", str(self.arguments.size * MIB),
                                 stdout=subprocess.DEVNULL)
        wait_for("nbdkit to listen", lambda: os.path.exists(socket), 10)
        servers = {"tarn": (self.mirror.daemon.pid(), self.mirror.uri),
                   "nbdkit": (nbdkit.pid, f"nbd+unix:///?socket={socket}")}
        for pid, uri in servers.values():  # whose pages are there before anything is measured
            cpu_us(self.test, pid, uri, self.arguments, FILL)
        for name, (words, _) in chosen(CPU_WORKLOADS, self.arguments).items():
            for number in range(self.arguments.rounds):
                for server, (pid, uri) in servers.items():
                    progress(f"CPU: {name}, round {number + 1}: {server}")
                    sample = cpu_us(self.test, pid, uri, self.arguments, words)
                    self.samples.setdefault((name, server), []).append(sample)

    def rows(self):
        for name, (_, at_most) in chosen(CPU_WORKLOADS, self.arguments).items():
            ours, theirs = self.samples[name, "tarn"], self.samples[name, "nbdkit"]
            yield {"workload": name, "tarn_us": statistics.median(ours), "nbdkit_us": statistics.median(theirs),
                   "ratio": statistics.median(ours) / statistics.median(theirs), "at_most": at_most,
                   "tarn_runs": ours, "nbdkit_runs": theirs}

    def close(self):
        self.mirror.close()


class LogBench:
    """One daemon whose log is switched on and off between runs, on a working set that is marked."""

    def __init__(self, test, arguments):
        self.test, self.arguments = test, arguments
        self.samples = {}     # (workload, on) -> [µs]
        self.log_writes = {}  # workload -> [rounds of metadata during a run with the log on]
        self.mirror = MemoryMirror(test, arguments, "state-log", ["--enable-faults"])

    def run(self, progress):
        daemon = self.mirror.daemon
        cpu_us(self.test, daemon.pid(), self.mirror.uri, self.arguments, FILL)
        for name, words in chosen(LOG_WORKLOADS, self.arguments).items():
            for number in range(self.arguments.rounds):
                for switch in ("on", "off"):
                    progress(f"intent log: {name}, round {number + 1}: {switch}")
                    daemon.tarn("fault", MIRROR, "log", switch, quiet=True)
                    before = self.metadata_rounds(words if switch == "on" else None)
                    sample = cpu_us(self.test, daemon.pid(), self.mirror.uri, self.arguments, words)
                    self.samples.setdefault((name, switch), []).append(sample)
                    if switch == "on":
                        self.log_writes.setdefault(name, []).append(self.metadata_rounds() - before)
        daemon.tarn("fault", MIRROR, "log", "on", quiet=True)

    def metadata_rounds(self, mark=None):
        """How often metadata were written and flushed so far; `mark`: after a run that marks the working set again,
        because marks that rest for 5 s are cleared."""
        if mark:
            run_fio(self.test, self.mirror.uri, self.arguments.size, 1, mark, on_disk=False)
        return self.mirror.daemon.mirror(MIRROR)["log_writes"]

    def rows(self):
        for name in chosen(LOG_WORKLOADS, self.arguments):
            on, off = (statistics.median(self.samples[name, switch]) for switch in ("on", "off"))
            yield {"workload": name, "on_us": on, "off_us": off, "percent": (on / off - 1) * 100,
                   "percent_max": LOG_PERCENT_MAX, "log_writes": statistics.median(self.log_writes[name]),
                   "on_runs": self.samples[name, "on"], "off_runs": self.samples[name, "off"]}

    def close(self):
        self.mirror.close()


def nbdkit_version():
    result = subprocess.run(["nbdkit", "--version"], capture_output=True, text=True, check=False)
    return (re.findall(r"\d+\.\d+\.\d+", result.stdout) or ["?"])[0]


def print_cpu(rows):
    print("### The server's CPU time per operation, in memory\n")
    print(f"Tarn writes to two images on tmpfs and keeps its log; nbdkit {nbdkit_version()} is its memory plugin, "
          "one copy in its own memory.\n")
    print("| workload | tarn µs | nbdkit µs | ratio | goal, at most |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for row in rows:
        goal = "" if row["at_most"] is None else f"{row['at_most']:g}"
        print(f"| {row['workload']} | {row['tarn_us']:.2f} | {row['nbdkit_us']:.2f} | {row['ratio']:.2f} | {goal} |")
    print()


def print_log(rows):
    print("### The cost of the intent log, in memory\n")
    print("One daemon, its log switched on and off in turn. Metadata rounds: how often something was written and flushed "
          "during a run\nof which every region was marked before.\n")
    print("| workload | with, µs | without, µs | cost | goal, at most | metadata rounds |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        print(f"| {row['workload']} | {row['on_us']:.2f} | {row['off_us']:.2f} | {row['percent']:+.1f} % | "
              f"{row['percent_max']:g} % | {row['log_writes']:g} |")
    print()
