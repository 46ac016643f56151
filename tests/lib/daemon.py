"""tarnd and tarn, as a user starts them."""
import json
import os
import re
import signal
import subprocess
import urllib.parse

from .context import BAD_WORDS, PATIENCE, Failed, Result, check, wait_for

# The sanitized build stops at the first finding, with a status that no test expects.
SANITIZER_ENVIRONMENT = {
    "ASAN_OPTIONS": "exitcode=99:detect_leaks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=99",
}
# The client lives for one command, and leaves its memory to the kernel where it exits on a mistake.
CLIENT_ENVIRONMENT = {**SANITIZER_ENVIRONMENT, "ASAN_OPTIONS": "exitcode=99:detect_leaks=0"}


class Daemon:
    """One node: a state directory, and the tarnd that runs on it from time to time."""

    def __init__(self, test, state=None, arguments=(), wrapper=()):
        self.test = test
        self.state = state or test.path("state")
        self.arguments = [str(word) for word in arguments]
        self.wrapper = list(wrapper)  # a command that starts tarnd, `setpriv ...`
        self.log_path = test.path(f"tarnd-{len(test.daemons)}.log")
        self.process = None
        test.daemons.append(self)

    # ---- life ----

    def argv(self):
        return [*self.wrapper, self.test.program("tarnd"), "--state", self.state, *self.arguments]

    def launch(self):
        """Starts tarnd and waits for nothing. Returns where in the log it begins."""
        check(not self.is_running(), "tarnd is running already")
        os.makedirs(self.state, exist_ok=True)
        with open(self.log_path, "ab") as log:
            start = log.tell()
            self.process = subprocess.Popen(self.argv(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env={**os.environ, **SANITIZER_ENVIRONMENT})
        print(f"$ {' '.join(self.argv())} &", flush=True)
        return start

    def start(self, seconds=PATIENCE):
        """Starts tarnd and waits until it says `ready`."""
        start = self.launch()

        def is_ready():
            text = self.log()[start:]
            if self.process.poll() is not None:
                raise Failed(f"tarnd ended with status {self.process.returncode} before it was ready: {text[-500:]}")
            return re.search(r"\bready\b", text)
        wait_for("tarnd to say `ready`", is_ready, seconds, every=0.005)
        return self

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """SIGKILL: the machine does not even say goodbye."""
        check(self.is_running(), f"tarnd is gone before it was killed: {self.log()[-1000:]}")
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def pause(self):
        """SIGSTOP: requests pile up in its sockets."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        self.process.send_signal(signal.SIGCONT)

    def stop(self, seconds=PATIENCE):
        """SIGTERM: flush, mark clean, exit 0."""
        check(self.is_running(), f"tarnd is gone before it was stopped: {self.log()[-1000:]}")
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"tarnd did not end within {seconds} s of SIGTERM") from error
        check(status == 0, f"tarnd ended with status {status} after SIGTERM: {self.log()[-1000:]}")

    def restart(self):
        self.stop()
        return self.start()

    def check_alive(self):
        check(self.is_running(), f"tarnd died: {self.log()[-1500:]}")

    def log(self):
        try:
            with open(self.log_path, encoding="utf-8", errors="replace") as log:
                return log.read()
        except FileNotFoundError:
            return ""

    def check_log(self):
        for line in self.log().splitlines():
            check(not BAD_WORDS.search(line), f"tarnd's log: {line}")

    # ---- the client ----

    def tarn_argv(self, *words):
        return [self.test.program("tarn"), "--state", self.state, *[str(word) for word in words]]

    def tarn(self, *words, status=0, seconds=PATIENCE, quiet=False) -> Result:
        """Runs `tarn WORDS`; fails unless it exits with `status` (None: any)."""
        return self.test.run(*self.tarn_argv(*words), status=status, seconds=seconds, quiet=quiet,
                             env={**os.environ, **CLIENT_ENVIRONMENT})

    def json(self, *words):
        """What `tarn --json WORDS` prints."""
        result = self.tarn("--json", *words, quiet=True)
        try:
            return json.loads(result.out)
        except ValueError as error:
            raise Failed(f"no JSON document ({error}): {result}") from error

    def mirror(self, name):
        """One mirror's part of `tarn status --json`."""
        document = self.json("status")
        for mirror in document["mirrors"]:
            if mirror["name"] == name:
                return mirror
        raise Failed(f"status shows no mirror {name}: {json.dumps(document)[:500]}")

    def create(self, name, images, size=None, settings=(), activate=True):
        """`images` are IMAGE words as cli.md has them."""
        words = ["mirror", "create", name]
        if size:
            words += ["--size", size]
        for image in images:
            words += ["--image", image]
        for setting in settings:
            words += ["--set", setting]
        self.tarn(*words, *(["--activate"] if activate else []))

    # ---- waiting ----

    def wait_state(self, name, state, seconds=PATIENCE):
        """Until the mirror is ACTIVE (or whatever): returns its status."""
        last = {}

        def reached():
            last.update(self.mirror(name))
            return last["state"] == state
        try:
            wait_for(f"{name} to be {state}", reached, seconds, every=0.05)
        except Failed as error:
            raise Failed(f"{error}; it is {last.get('state')} ({last.get('reason')})") from error
        return last

    def wait_synchronized(self, name, seconds=PATIENCE):
        """Until every image is SYNCHRONIZED and nothing is being copied."""
        self.wait_state(name, "ACTIVE")
        last = {}

        def reached():
            last.update(self.mirror(name))
            return all(image["state"] == "SYNCHRONIZED" and not image["sync"] for image in last["images"])
        try:
            wait_for(f"all images of {name} to be SYNCHRONIZED", reached, seconds, every=0.05)
        except Failed as error:
            states = [(image["name"], image["state"], image["reason"], image["sync"])
                      for image in last.get("images", [])]
            raise Failed(f"{error}; they are {states}") from error
        return last

    # ---- addresses ----

    def socket(self):
        return os.path.join(self.state, "nbd.sock")

    def control(self):
        return os.path.join(self.state, "control.sock")

    def uri(self, export="", socket=None):
        """An NBD URI on the Unix socket."""
        return f"nbd+unix:///{urllib.parse.quote(export)}?socket={urllib.parse.quote(socket or self.socket())}"

    def pid(self):
        return self.process.pid
