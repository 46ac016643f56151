"""What a test is given, and how a test says what it is.

A test is a function `test_NAME(t)` whose docstring cites the behaviours it shows (B6, A12, ...). With `@rows(TABLE)` it
is one test per row, called with (t, row); the first item of a row is its name and says why it is there. It fails by
raising; `check(condition, text)` does that in one line."""
import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass

from . import processes

BAD_WORDS = re.compile(r"AddressSanitizer|LeakSanitizer|runtime error:|ThreadSanitizer|panic", re.IGNORECASE)

NOTE = "note: "
PATIENCE = 120  # seconds that anything is given which has no business waiting: the machine may be busy
SEED_VARIABLE = "TARN_SOAK_SEED"  # tests/soak: what is drawn


class Failed(AssertionError):
    """The one line that `FAIL` prints."""


def check(condition, text):
    if not condition:
        raise Failed(text)


def rows(table):
    """One test per row; the first item of each is its name."""
    def mark(function):
        function.rows = table
        return function
    return mark


def limit(seconds):
    """The longest that this test may take, where that is more than others are given (tests/run)."""
    def mark(function):
        function.limit_seconds = seconds
        return function
    return mark


def is_sanitized(t):
    """Its shadow memory is larger than any limit, and what it keeps for its reports grows."""
    return "libasan" in t.run("ldd", t.program("tarnd"), quiet=True).out


def wait_for(what, condition, seconds=PATIENCE, every=0.02):
    """Polls until condition() is true, and returns that; fails saying `what` did not happen."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise Failed(f"waited {seconds:g} s for {what}")
        time.sleep(every)


@dataclass
class Result:
    """How a command ended."""
    argv: list
    status: int
    out: str
    err: str

    def __str__(self):
        text = f"`{' '.join(self.argv)}` exited {self.status}"
        return text + (f", stderr: {self.err.strip()}" if self.err.strip() else "") + \
            (f", stdout: {self.out.strip()[:500]}" if self.out.strip() else "")


def shm_directory(directory):
    """The memory-backed twin of a test's folder."""
    return os.path.join("/dev/shm", os.path.basename(directory))


class Test:
    """A test's own folders, its processes, and the programs under test."""

    def __init__(self, directory, build):
        self.directory = directory
        self.build = os.path.abspath(build)
        self.daemons = []
        self._shm = shm_directory(directory)
        self.spawned = []

    # ---- where ----

    def path(self, *names):
        return os.path.join(self.directory, *names)

    def shm(self, *names):
        """A path in a folder of memory-backed files (tmpfs), made on first use."""
        os.makedirs(self._shm, exist_ok=True)
        return os.path.join(self._shm, *names)

    def place(self, kind):
        """A folder on "tmpfs" or on "disk"."""
        return self.shm() if kind == "tmpfs" else self.path()

    def program(self, name):
        """`tarnd`, `tarn` or `tarn-sim` as built; both `make` and plain meson put them somewhere below."""
        for place in ("", "src/shell", "sim"):
            path = os.path.join(self.build, place, name)
            if os.access(path, os.X_OK) and os.path.isfile(path):
                return path
        raise Failed(f"{name} is not built in {self.build}")

    # ---- processes ----

    def run(self, *argv, status=0, seconds=PATIENCE, stdin="", quiet=False, **options):
        """Runs a command to its end. `status` None: any. Its output is in the result and, unless `quiet`, in the
        test's log."""
        argv = [str(word) for word in argv]
        if not shutil.which(argv[0]):
            raise Failed(f"{argv[0]} is not installed")
        try:
            done = subprocess.run(argv, input=stdin, capture_output=True, text=True, errors="replace",
                                  timeout=seconds, check=False, **options)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"`{' '.join(argv)}` took longer than {seconds} s") from error
        result = Result(argv, done.returncode, done.stdout, done.stderr)
        if not quiet:
            print(f"$ {result}", flush=True)
        if status is not None and done.returncode != status:
            raise Failed(f"expected exit status {status}: {result}")
        return result

    def spawn(self, *argv, **options):
        """Starts a command that is ended with the test."""
        argv = [str(word) for word in argv]
        if not shutil.which(argv[0]):
            raise Failed(f"{argv[0]} is not installed")
        print(f"$ {' '.join(argv)} &", flush=True)
        process = subprocess.Popen(argv, **{"stdin": subprocess.DEVNULL, **options})
        self.spawned.append(process)
        return process

    @contextlib.contextmanager
    def running(self, *argv, ready=None, seconds=PATIENCE, **options):
        """A command that runs during the block; `ready()` says when it can be used."""
        process = self.spawn(*argv, **options)
        try:
            if ready:
                wait_for(f"{argv[0]} to be ready", lambda: process.poll() is not None or ready(), seconds)
                check(process.poll() is None, f"{argv[0]} ended at once, status {process.poll()}")
            yield process
        finally:
            end(process)

    @staticmethod
    def note(text):
        """A line that the runner shows also when the test passes: what it met."""
        print(f"{NOTE}{text}", flush=True)

    def soak_seed(self):
        """What a long test draws from: another number each time, unless somebody wants a run again."""
        seed = int(os.environ.get(SEED_VARIABLE) or time.time())
        self.note(f"{SEED_VARIABLE}={seed}")
        return seed

    # ---- the end ----

    def finish(self):
        """After a test that passed: every daemon still running stops cleanly and said nothing dreadful."""
        for daemon in self.daemons:
            if daemon.is_running():
                daemon.stop()
        for daemon in self.daemons:
            daemon.check_log()

    def clean(self):
        """In any case: nothing of ours goes on running, no memory stays in use."""
        processes.end_all(os.getpid())
        shutil.rmtree(self._shm, ignore_errors=True)


def end(process, seconds=PATIENCE):
    """Ends one process that we started; SIGTERM first."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode
