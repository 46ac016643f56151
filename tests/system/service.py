"""What a service manager does to the daemon: readiness and status (sd_notify), sockets that are passed on, limits, and the
configuration file."""
import os
import re
import resource
import socket
import subprocess

from lib.context import check, rows, wait_for
from lib.daemon import SANITIZER_ENVIRONMENT, Daemon
from lib.images import MIB

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Manager:
    """Listens where NOTIFY_SOCKET says, as systemd does."""

    def __init__(self, t, kind="path"):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        if kind == "path":
            self.name = t.path("notify")
            self.socket.bind(self.name)
        else:  # the abstract name space
            self.name = "@tarn-test-" + os.path.basename(t.directory)
            self.socket.bind("\0" + self.name[1:])
        self.said = []

    def listen(self):
        """All that was said so far."""
        self.socket.setblocking(False)
        try:
            while True:
                self.said.append(self.socket.recv(4096).decode())
        except BlockingIOError:
            return self.said

    def wait(self, text, seconds=120):
        wait_for(f"the daemon to tell {text!r}; it told {self.said}", lambda: text in self.listen(), seconds)


def service(t, environment, arguments=(), passed=(), before=None):
    """A daemon that is started with this environment, and with sockets as descriptors 3, 4, ..."""
    daemon = Daemon(t, arguments=arguments)
    program = t.program("tarnd")

    def become():
        if before:
            before()
        spare = [os.dup(one.fileno()) for one in passed]
        high = [os.dup2(one, 100 + index) for index, one in enumerate(spare)]
        for index, one in enumerate(high):
            os.dup2(one, 3 + index, inheritable=True)
            os.close(one)
        if passed and "LISTEN_PID" not in environment:
            os.environ["LISTEN_PID"] = str(os.getpid())
        os.environ.update({**SANITIZER_ENVIRONMENT, **environment})
        if passed:
            os.environ.setdefault("LISTEN_FDS", str(len(passed)))
        os.execv(program, daemon.argv())

    os.makedirs(daemon.state, exist_ok=True)
    with open(daemon.log_path, "ab") as log:
        daemon.process = subprocess.Popen([program], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          preexec_fn=become, close_fds=False)
    print(f"$ {environment} {' '.join(daemon.argv())} &", flush=True)
    return daemon


def wait_ready(daemon):
    wait_for("the daemon to be ready", lambda: not daemon.is_running() or re.search(r"\bready$", daemon.log(), re.M))
    check(daemon.is_running(), f"the daemon ended: {daemon.log()}")
    return daemon


def wait_refused(daemon, status=2):
    """It ends with this status and says one line, which is returned."""
    wait_for("the daemon to end", lambda: not daemon.is_running())
    lines = daemon.log().strip().splitlines()
    check(daemon.process.returncode == status, f"it ended with {daemon.process.returncode}: {lines}")
    check(len(lines) == 1, f"it is not one line: {lines}")
    return lines[0]


# ---- sd_notify ----

@rows([("a path", "path"), ("an abstract name", "abstract")])
def test_tells_the_service_manager(t, row):
    """Issue 4: READY=1 comes with `ready`, a status that follows what happens, STOPPING=1 when it is told to end."""
    manager = Manager(t, row[1])
    daemon = service(t, {"NOTIFY_SOCKET": manager.name}, ["--enable-faults"])
    wait_ready(daemon)
    manager.wait("STATUS=no mirrors yet")
    check(manager.said[0] == "READY=1", f"it said first {manager.said[0]!r}")
    check(not any("WATCHDOG" in one for one in manager.said), "nobody has asked for a watchdog")
    daemon.create("vol0", [t.path("a.img"), t.path("b.img")], size=4 * MIB)
    daemon.create("idle", [t.path("c.img")], size=4 * MIB, activate=False)
    manager.wait("STATUS=1 mirror active, 1 inactive")
    daemon.tarn("image", "fracture", "vol0", "b")
    manager.wait("STATUS=1 mirror active, 1 of them lacks a copy, 1 inactive")
    daemon.tarn("image", "set", "vol0", "a", "hang=1")
    daemon.tarn("mirror", "set", "vol0", "max-missing=0")
    manager.wait("STATUS=1 needs attention, 1 inactive")
    daemon.stop()
    check(any(one.startswith("STOPPING=1") for one in manager.listen()), f"it did not say that it stops: {manager.said}")


def test_not_ready_before_it_is(t):
    """Issue 4: a daemon that cannot start says neither READY=1 nor anything else."""
    manager = Manager(t)
    first = Daemon(t).start()
    second = service(t, {"NOTIFY_SOCKET": manager.name})
    wait_refused(second, status=1)
    check(manager.listen() == [], f"it said {manager.said}")
    first.stop()


@rows([("nobody listens there", "/nonexistent/socket"), ("no path", "x"), ("empty", ""), ("too long", "/" + "x" * 200)])
def test_a_manager_that_is_not_there(t, row):
    """Issue 4: whatever NOTIFY_SOCKET says, the daemon serves."""
    wait_ready(service(t, {"NOTIFY_SOCKET": row[1]})).stop()


def test_watchdog(t):
    """Issue 4: it is told at least twice in the time that it asks for; not when it is meant for another process."""
    manager = Manager(t)
    daemon = service(t, {"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "200000"})
    wait_for("three signs of life", lambda: manager.listen().count("WATCHDOG=1") >= 3)
    daemon.stop()
    manager.said.clear()
    other = service(t, {"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "200000", "WATCHDOG_PID": "1"})
    manager.wait("STATUS=no mirrors yet")
    other.stop()
    check("WATCHDOG=1" not in manager.listen(), "the watchdog of another process was told")


# ---- sockets that are passed on ----

def listening(t, name=None, family=socket.AF_UNIX, address=("127.0.0.1", 0)):
    one = socket.socket(family, socket.SOCK_STREAM)
    one.bind(t.path(name) if family == socket.AF_UNIX else address)
    one.listen(8)
    return one


def check_serves(t, daemon, uri):
    """It takes commands, and NBD clients come in at `uri`."""
    daemon.create("vol0", [t.path("a.img")], size=4 * MIB)
    t.run("nbdinfo", "--size", uri)


@rows([("a Unix socket", socket.AF_UNIX), ("TCP", socket.AF_INET), ("TCP over IPv6", socket.AF_INET6)])
def test_passed_socket(t, row):
    """Issue 4: socket activation: NBD is served at the socket that was passed, and not at the default place; its file is its
    owner's, and stays."""
    address = ("::1", 0) if row[1] == socket.AF_INET6 else ("127.0.0.1", 0)
    door = listening(t, "door.sock", row[1], address)
    door.setblocking(False)  # as systemd may leave it
    daemon = wait_ready(service(t, {"LISTEN_FDNAMES": "nbd"}, passed=[door]))
    check("a socket that was passed on" in daemon.log(), "it does not say so")
    if row[1] == socket.AF_UNIX:
        uri = f"nbd+unix:///?socket={t.path('door.sock')}"
    else:
        host = "[::1]" if row[1] == socket.AF_INET6 else "127.0.0.1"
        uri = f"nbd://{host}:{door.getsockname()[1]}/"
    check_serves(t, daemon, uri)
    check(not os.path.exists(daemon.socket()), "it listens at the default place too")
    daemon.stop()
    check(row[1] != socket.AF_UNIX or os.path.exists(t.path("door.sock")), "the socket's file is removed")


def test_passed_sockets_by_name(t):
    """Issue 4: LISTEN_FDNAMES tells the control socket from those for NBD; addresses that were asked for are served too; a
    daemon that is started anew on the same sockets goes on, and a client that came in between is served."""
    control, first, second = listening(t, "c.sock"), listening(t, "n1.sock"), listening(t, "n2.sock")
    for again in range(2):
        daemon = service(t, {"LISTEN_FDNAMES": "nbd:control:unknown"}, ["--nbd", f"unix:{t.path('asked.sock')}"],
                         passed=[first, control, second])
        wait_ready(daemon)
        tarn = [t.program("tarn"), "--control", t.path("c.sock")]
        if not again:
            t.run(*tarn, "mirror", "create", "vol0", "--size", "4M", "--image", t.path("a.img"), "--activate")
        check("ACTIVE" in t.run(*tarn, "status").out, "the mirror is not shown")
        for name in ("n1.sock", "n2.sock", "asked.sock"):
            t.run("nbdinfo", "--size", f"nbd+unix:///vol0?socket={t.path(name)}")
        check(not os.path.exists(daemon.control()), "it takes commands at the default place too")
        daemon.stop()


def test_sockets_of_another_process(t):
    """Issue 4: LISTEN_FDS with another process's LISTEN_PID is not for us: descriptor 3 is left alone."""
    door = listening(t, "door.sock")
    daemon = wait_ready(service(t, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, passed=[door]))
    check_serves(t, daemon, daemon.uri("vol0"))
    daemon.stop()


def plain_file(t):
    return open(t.path("file"), "w", encoding="utf-8")


def not_listening(_):
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)


def datagrams(t):
    one = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    one.bind(t.path("datagrams"))
    return one


@rows([("a file", plain_file, "nbd", "descriptor 3, .* is not a socket"),
       ("a socket that does not listen", not_listening, "nbd", "descriptor 3, .* does not listen"),
       ("a datagram socket", datagrams, "nbd", "descriptor 3, .* is no stream socket"),
       ("a name that nobody knows", lambda t: listening(t, "x"), "http", "descriptor 3 has the name 'http': .*'nbd' or 'control'"),
       ("a control socket over TCP", lambda t: listening(t, None, socket.AF_INET), "control",
        "control socket .* must be a Unix socket")])
def test_passed_wrongly(t, row):
    """Issue 4: wrong or foreign descriptors: one line that says which, why and what to do; nothing is served."""
    _, make, name, saying = row
    line = wait_refused(service(t, {"LISTEN_FDNAMES": name}, passed=[make(t)]))
    check(re.search(saying, line), f"it says {line!r}")


@rows([("more than are there", "2", "descriptor 4, .* is not open"), ("a number that is none", "many", "LISTEN_FDS='many' is no number"),
       ("far too many", "1000000", "LISTEN_FDS='1000000' is no number from 0 to 17")])
def test_passed_count_is_wrong(t, row):
    """Issue 4: LISTEN_FDS that does not fit what was passed: one line."""
    line = wait_refused(service(t, {"LISTEN_FDS": row[1]}, passed=[listening(t, "x")]))
    check(re.search(row[2], line), f"it says {line!r}")


def test_two_control_sockets(t):
    """Issue 4: two control sockets are a mistake of the unit."""
    line = wait_refused(service(t, {"LISTEN_FDNAMES": "control:control"}, passed=[listening(t, "x"), listening(t, "y")]))
    check("two control sockets" in line, f"it says {line!r}")


# ---- open files ----

def files_of(daemon):
    with open(f"/proc/{daemon.pid()}/limits", encoding="ascii") as file:
        return [int(word) for line in file if line.startswith("Max open files") for word in line.split()[3:5]]


def test_open_files_are_raised(t):
    """Issue 4: a small soft limit of open files is raised to what is allowed."""
    def low():
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 8192))
    daemon = wait_ready(service(t, {}, before=low))
    check(files_of(daemon)[0] >= 8192, f"the limits are {files_of(daemon)}")
    check("files may be open" not in daemon.log(), "it warns though there are enough")
    daemon.stop()


def test_too_few_open_files(t):
    """Issue 4: where the limit cannot be raised it is said, with what is missing and what to do."""
    daemon = Daemon(t, wrapper=["prlimit", "--nofile=256:256", "setpriv", "--bounding-set", "-sys_resource",
                                "--inh-caps", "-all"]).start()
    check(re.search(r"warning tarnd: only 256 files may be open, and \d+ can be needed: .*LimitNOFILE=", daemon.log()),
          f"it says nothing: {daemon.log()}")
    daemon.create("vol0", [t.path("a.img")], size=4 * MIB)
    daemon.stop()


# ---- tarnd.conf ----

def write_conf(t, content):
    os.makedirs(t.path("state"))
    if content is None:
        os.mkdir(t.path("state/tarnd.conf"))
        return
    with open(t.path("state/tarnd.conf"), "wb") as file:
        file.write(content)


@rows([("an unknown key", b"# mine\nnodename = n1\n", r"tarnd.conf:2: unknown key 'nodename'.*known are"),
       ("a bad value", b"memory = much\n", r"tarnd.conf:1: 'much' is no size"),
       ("a key twice", b"name = a\nname = b\n", r"tarnd.conf:2: 'name' is given twice"),
       ("not UTF-8", b"name = \xff\n", r"tarnd.conf:1: byte 8 of this line is not UTF-8"),
       ("binary", bytes(range(256)), r"tarnd.conf:1: byte 1 .*control character"),
       ("a very long line", b"\nnbd = unix:/" + b"x" * 100000 + b"\n", r"tarnd.conf is longer than|tarnd.conf:2: this line has"),
       ("a long line", b"\nnbd = unix:/" + b"x" * 5000 + b"\n", r"tarnd.conf:2: this line has 5012 bytes"),
       ("a folder", None, r"tarnd.conf is a directory")])
def test_a_mistake_in_the_file(t, row):
    """Issue 4, cli: a mistake in tarnd.conf is one line with file and line, what, why, what to do; exit status 2."""
    write_conf(t, row[1])
    line = wait_refused(service(t, {}))
    check(line.startswith(f"tarnd: {t.path('state')}/tarnd.conf"), f"it names no file: {line!r}")
    check(re.search(row[2], line), f"it says {line!r}")


def test_a_file_that_cannot_be_read(t):
    """Issue 4: a tarnd.conf that may not be read is a mistake, not an empty file."""
    write_conf(t, b"name = n1\n")
    os.chmod(t.path("state/tarnd.conf"), 0)
    daemon = Daemon(t, wrapper=["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all"])
    daemon.launch()
    check("permission denied" in wait_refused(daemon), "it says something else")


@rows([("empty", b"", None), ("ends of lines as DOS has them", b"name = n7\r\n\r\n# x\r\n", "n7"),
       ("comments", b"; a\n# b\nname = n8 ; c\n", "n8")])
def test_a_good_file(t, row):
    """Cli: what is in tarnd.conf holds; the command line wins."""
    write_conf(t, row[1])
    daemon = Daemon(t).start()
    check(row[2] in (None, daemon.json("status")["node"]), f"the node is {daemon.json('status')['node']}")
    daemon.stop()
    daemon.arguments = ["--name", "other"]
    daemon.start()
    check(daemon.json("status")["node"] == "other", "the command line does not win")
    daemon.stop()
