"""What a newcomer types, and what lies where it should not: one clear line, exit status 1 or 2, nothing changed, the daemon alive.

Rows as in bad_input.py; those that change nothing share one daemon."""
import json
import os
import re
import signal
import socket
import subprocess

from lib import images
from lib.context import check, rows, wait_for
from lib.daemon import Daemon
from lib.images import MIB
from lib.load import open_handle
from lib.refusals import EITHER, World, check_message, check_table
from lib.small_disk import small_disk

NO_RANGE = (2,), ["range", r"OFFSET\+LENGTH"]
NO_FAULT = (2,), ["no fault", "delay=MS"]


def image(verb, *words):
    return ["image", verb, *words]


IMAGE_COMMANDS = [
    ("nothing", ["image"], (2,), ["image", "--help"]),
    ("add nothing", image("add", "vol0"), (2,), ["IMAGE"]),
    ("add its own file", lambda w: image("add", "vol0", w.a), (1,), [r"a\.img", "image a of mirror vol0"]),
    ("add its own metadata", lambda w: image("add", "vol0", w.a + ".tarn"), (1,), ["metadata"]),
    ("add a name that is there", lambda w: image("add", "vol0", "a=" + w.path("z.img")), (1,), ["'a'"]),
    ("add two", lambda w: image("add", "vol0", w.path("y.img"), w.path("z.img")), (2,), [r"z\.img"]),
    ("add to no mirror", lambda w: image("add", "vol", w.path("z.img")), (1,), ["'vol'", "'vol0'"]),
    ("add on another node", lambda w: image("add", "vol0", "n2:" + w.path("z.img")), EITHER, ["n2"]),
    ("add a device that is none", image("add", "vol0", "/dev/null"), (1,), ["/dev/null"]),
    ("add what cannot be equal", lambda w: image("add", "vol0", w.path("z.img"), "--assume-synchronized"), (1,),
     [r"z\.img", "equal"]),
    ("remove nothing", image("remove", "vol0"), (2,), ["IMAGE"]),
    ("remove with an empty name", image("remove", "vol0", ""), (2,), ["name", "empty"]),
    ("remove two at once", image("remove", "vol0", "a", "b"), (2,), ["'b'"]),
    ("an option and no name", image("remove", "--force"), (2,), ["MIRROR"]),
    *[(f"{verb} what is not there", image(verb, "vol0", "zz"), (1,), ["'zz'", "tarn status"])
      for verb in ("remove", "sync", "fracture", "restore", "promote", "demote")],
    ("promote the master", image("promote", "vol0", "a"), (1,), ["master already"]),
    ("force where nothing is forced", image("fracture", "--force", "vol0", "b"), (2,), ["--force"]),
    ("set nothing", image("set", "vol0", "a"), (2,), ["KEY=VALUE"]),
    ("set without a value", image("set", "vol0", "a", "hang"), (2,), ["KEY=VALUE"]),
    *[(f"set {text}", image("set", "vol0", "a", text), EITHER, [text.split("=")[0]]) for text in [
        "hang=0", "hang=601", "hang=1e3", "hang=", "rate=-1", "rate=99999999999999999999", "rate=1.5M", "return=perhaps",
        "return-after=86401", "timeout=5", "hagn=5", "nbd-settle=-1"]],
    ("one good and one bad", image("set", "vol0", "a", "hang=7", "rate=x"), EITHER, ["rate"]),
    ("get what is no setting", image("get", "vol0", "a", "colour"), EITHER, ["colour"]),
    ("get too much", image("get", "vol0", "a", "hang", "rate"), (2,), ["rate"]),
]

OTHER_COMMANDS = [
    ("status of nothing", ["status", ""], (2,), ["name", "empty"]),
    ("a switch with a value", ["status", "--watch=3"], (2,), ["--watch"]),
    ("a letter as an option", ["status", "-w"], (2,), ["-w"]),
    ("an option that waits where nothing is waited for", ["mirror", "activate", "--wait", "vol0"], (2,), ["--wait"]),
    ("a size twice", lambda w: [*w.create(w.path("x.img")), "--size", "2M"], (2,), ["--size", "twice"]),
    ("volume and size", lambda w: [*w.create(w.path("x.img")), "--volume", "x:1M"], (2,), ["--volume", "--size"]),
    *[(f"volume {text!r}", lambda w, text=text: [*w.create(w.path("x.img"), size=None), "--volume", text], (2,), saying)
      for text, saying in [("x", ["VOL:SIZE"]), (":1M", ["name"]), ("x/y:1M", ["x/y"]), ("x:1M:2", ["1M:2"]),
                           ("x:", ["size|VOL:SIZE"]), ("x:0", ["0|size"])]],
    ("a volume twice", lambda w: [*w.create(f"{w.path('x')}+{w.path('y')}", size=None), "--volume", "v:1M", "--volume",
                                  "v:2M"], (2,), ["'v'"]),
    ("nine volumes", lambda w: [*w.create("+".join(w.path(f"v{n}") for n in range(9)), size=None),
                                *[word for n in range(9) for word in ("--volume", f"v{n}:1M")]], (2,), ["8"]),
    ("the same file for two volumes", lambda w: [*w.create(f"{w.path('x')}+{w.path('x')}", size=None), "--volume",
                                                 "v:1M", "--volume", "w:1M"], EITHER, ["same"]),
    ("an extent larger than a region", lambda w: [*w.create(w.path("x.img")), "--set", "region=64K", "--set",
                                                  "extent=1M"], EITHER, ["extent", "region"]),
    ("a path that is not UTF-8", lambda w: w.create(w.path("x") + os.fsdecode(b"\xff")), (2,), ["UTF-8"]),
    ("a path with a line break", lambda w: w.create(w.path("x\ny")), (2,), ["line break"]),
    ("a folder, said so", lambda w: w.create(w.path("x/")), (2,), ["folder"]),
    ("this folder", lambda w: w.create(w.folder + "/."), (1,), ["director|folder"]),
    ("a file of the kernel", lambda w: w.create("/proc/version", size=None), (1,), ["/proc/version"]),
    ("a device that never ends", lambda w: w.create("/dev/zero"), (1,), ["/dev/zero", "character device"]),
    ("verify nothing", ["mirror", "verify"], (2,), ["NAME"]),
    ("verify what is not served", ["mirror", "verify", "vol0", "--repair=zz"], (1,), ["zz"]),
    ("repair from nothing", ["mirror", "verify", "vol0", "--repair="], (2,), ["--repair"]),
    *[(f"later: {words}", words.split(), (2,), ["unknown command", words.split()[0]])
      for words in ("mirror split vol0", "mirror snapshot vol0", "node list", "group create x", "client list")],
    *[(f"mirror setting {text}", ["mirror", "set", "vol0", text], EITHER, [text.split("=")[0]])
      for text in ("suspend=86401", "suspend=-1", "read=fastest", "heartbeat=1", "auto=", "max-missing=99999999999999999999")],
    ("a fault without a mirror", ["fault"], (2,), ["MIRROR"]),
    ("a fault without a fault", ["fault", "vol0", "a"], (2,), ["FAULT"]),
    *[(f"fault {text!r}", ["fault", "vol0", "a", text], *NO_FAULT)
      for text in ("explode", "delay", "delay=", "delay=-5", "delay=0", "delay=1.5", "delay=99999999999999", "")],
    *[(f"range {text!r}", ["fault", "vol0", "a", "fail", "--range", text], *NO_RANGE)
      for text in ("5", "0+0", "-1+5", "5+", "+5", "512+18446744073709551615", "a+b")],
    ("a fault on what is no operation", ["fault", "vol0", "a", "fail", "--on", "erase"], (2,), ["erase"]),
    ("a fault on nothing", ["fault", "vol0", "a", "fail", "--on", ""], (2,), ["read, write, flush"]),
    ("heal a part", ["fault", "vol0", "a", "heal", "--range", "0+512"], (2,), ["heal"]),
    ("two faults", ["fault", "vol0", "a", "fail", "hang"], (2,), ["hang"]),
    ("a word after events", ["events", "please"], (2,), ["please"]),
    ("a socket that is a file", lambda w: ["--control", w.a, "status"], (1,), [r"a\.img"]),
    ("a socket path that is too long", ["--control", "/" + "x" * 200, "status"], (1,), ["long"]),
]


def wide_mirror(world):
    """On a device the metadata's size was asked for before the settings were looked at."""
    return [*world.create(f"{world.path('x.img')},meta=/dev/zero"), "--set", "region=64K", "--set", "extent=1M"]


IN_THE_STATE = [
    ("as its configuration", lambda w: w.create(w.daemon.state + "/tarnd.conf"), (1,), ["state directory"]),
    ("anywhere", lambda w: w.create(w.daemon.state + "/x.img"), (1,), ["state directory"]),
    ("among the mirrors", lambda w: w.create(w.daemon.state + "/mirrors/x.img"), (1,), ["state directory"]),
    ("among the metadata", lambda w: w.create(w.daemon.state + "/meta/x.img"), (1,), ["state directory"]),
    ("by a way round", lambda w: w.create(f"{w.folder}/../state/x.img"), (1,), ["state directory"]),
    ("metadata, beside the mirrors", lambda w: w.create(f"{w.path('x.img')},meta={w.daemon.state}/x.tarn"), (1,),
     ["state directory"]),
    ("an image that is added", lambda w: ["image", "add", "vol0", w.daemon.state + "/x.img"], (1,), ["state directory"]),
    ("a record", lambda w: w.create(w.daemon.state + "/mirrors/vol0/record", size=None), (1,), ["vol0|state directory"]),
    ("the control socket", lambda w: w.create(w.daemon.state + "/control.sock"), (1,), ["socket"]),
    ("settings that do not fit, with a device", wide_mirror, EITHER, ["extent|/dev/zero"]),
]


@rows([("images", IMAGE_COMMANDS), ("all others", OTHER_COMMANDS), ("in the state directory", IN_THE_STATE)])
def test_what_is_typed(t, row):
    """Issue 4, bad input: every command with missing, wrong, too many or impossible words; B15."""
    world = World(t, arguments=["--enable-faults"])
    check_table(world, row[1])
    world.activate()  # and nothing is in its way now


def test_long_and_foreign_names(t):
    """Issue 4, bad input: what is allowed beside it works: metadata in STATE/meta, names of every letter."""
    world = World(t)
    name = "n" * 63
    world.daemon.tarn(*world.create(f"{name}={world.path('ümläut 日本.img')},meta={world.daemon.state}/meta/x.tarn", name=name))
    world.daemon.restart()
    check(world.daemon.mirror(name)["images"][0]["name"] == name, "the image's name")
    world.daemon.tarn("mirror", "destroy", name)
    check(not os.listdir(world.daemon.state + "/meta"), "metadata is left behind")


# ---- the state directory ----

def precious(t):
    path = t.path("precious")
    with open(path, "w", encoding="ascii") as file:
        file.write("precious\n")
    return path


def lock_is_link(t):
    os.symlink(precious(t), t.path("state/lock"))


def lock_is_hard_link(t):
    os.link(precious(t), t.path("state/lock"))


def a_file(name):
    def prepare(t):
        images.make_sparse(t.path("state", name), 0)
    return prepare


def a_folder(name):
    return lambda t: os.mkdir(t.path("state", name))


def a_pipe(name):
    return lambda t: os.mkfifo(t.path("state", name))


BROKEN_STATES = [
    ("its lock is a link", lock_is_link, ["lock", "link"]),
    ("its lock is another file by a hard link", lock_is_hard_link, ["lock"]),
    ("its lock is a pipe", a_pipe("lock"), ["lock"]),
    ("its lock is a folder", a_folder("lock"), ["lock"]),
    ("a file in the place of its control socket", a_file("control.sock"), ["control.sock", "not a socket"]),
    ("a folder in the place of its control socket", a_folder("control.sock"), ["control.sock", "folder"]),
    ("a file in the place of its NBD socket", a_file("nbd.sock"), ["nbd.sock", "not a socket"]),
    ("a file in the place of its mirrors", a_file("mirrors"), ["mirrors"]),
    ("a folder in the place of its configuration", a_folder("tarnd.conf"), ["tarnd.conf"]),
    ("a pipe in the place of its configuration", a_pipe("tarnd.conf"), ["tarnd.conf"]),
]


def start_and_fail(t, *words, seconds=120):
    """Runs tarnd, which must end by itself; its last line is the reason."""
    result = t.run("timeout", "-k", "1", str(seconds), t.program("tarnd"), *words, status=None)
    check(result.status in EITHER, f"exit status should be 1 or 2: {result}")
    return result.err.strip().splitlines()[-1]


def test_things_in_the_state_directory(t):
    """Issue 4, bad input: what lies in the state directory and is not tarnd's is not followed, waited for or written to."""
    for why, prepare, saying in BROKEN_STATES:
        state = t.path("state")
        subprocess.run(["rm", "-rf", state, t.path("precious")], check=True)
        os.mkdir(state)
        prepare(t)
        before = images.snapshot(t.directory)
        line = start_and_fail(t, "--state", state)
        for pattern in saying:
            check(re.search(pattern, line), f"{why}: the message does not say /{pattern}/: {line!r}")
        if os.path.exists(t.path("precious")):
            with open(t.path("precious"), encoding="ascii") as file:
                check(file.read() == "precious\n", f"{why}: somebody else's file was written to")
        check(all(images.snapshot(t.directory).get(path) == what for path, what in before.items()
                  if not path.endswith(".log")), f"{why}: something was changed")


def test_mirrors_that_cannot_be_read(t):
    """Issue 4, bad input: a mirror whose config.json is damaged, a pipe, a folder or another's is left alone, and said; the
    daemon and the other mirrors work, and nobody makes a mirror in its place."""
    world = World(t)
    world.daemon.stop()
    with open(world.daemon.state + "/mirrors/vol0/config.json", encoding="utf-8") as file:
        good = file.read()
    wide = json.loads(good)
    wide["name"], wide["settings"]["region"], wide["settings"]["extent"] = "wide", 65536, 1 << 20
    for name, make in [("garbage", lambda path: os.write(os.open(path, os.O_CREAT | os.O_WRONLY), b"{]" * 99)),
                       ("other", lambda path: os.write(os.open(path, os.O_CREAT | os.O_WRONLY), good.encode())),
                       ("wide", lambda path: os.write(os.open(path, os.O_CREAT | os.O_WRONLY), json.dumps(wide).encode())),
                       ("pipe", os.mkfifo), ("folder", os.mkdir)]:
        os.mkdir(f"{world.daemon.state}/mirrors/{name}")
        make(f"{world.daemon.state}/mirrors/{name}/config.json")
    os.mkdir(world.daemon.state + "/mirrors/empty")
    world.daemon.start()
    log = world.daemon.log()
    for name in ("garbage", "other", "wide", "pipe", "folder"):
        check(re.search(f"{name}: is left alone: .+", log), f"nothing is said of {name}: {log}")
        world.check_refused(world.create(world.path("x.img"), name=name), (1,), [name])
        check(os.path.exists(f"{world.daemon.state}/mirrors/{name}/config.json"), f"{name} is gone")
    world.activate()


@rows([("everybody may write there", 0o777, 0, "chmod o-w"), ("as in /tmp", 0o1777, 0, "chmod o-w"),
       ("it belongs to another user", 0o700, 65534, "belongs to another user")])
def test_a_state_directory_of_others(t, row):
    """Who may write to the state directory commands the daemon (its options, which image is current): nobody else may."""
    _, mode, owner, saying = row
    state = t.path("theirs")
    os.mkdir(state)
    os.chown(state, owner, -1)
    os.chmod(state, mode)
    refused = t.run("timeout", "-k", "1", "20", t.program("tarnd"), "--state", state, status=1)
    check_message(refused.err, [re.escape(saying)])
    check(os.listdir(state) == [], "something was made there")
    os.chown(state, 0, -1)
    os.chmod(state, 0o775)  # a group is the administrator's choice
    Daemon(t, state=state).start().stop()


def test_the_state_directory_vanishes(t):
    """Issue 4, bad input: the state directory is moved away while a mirror serves: what needs it is refused in one line,
    clients go on, and all is well when it is back."""
    world = World(t)
    world.activate()
    handle = open_handle(world.daemon.uri("vol0"))
    state, away = world.daemon.state, t.path("away")
    os.rename(state, away)
    control = away + "/control.sock"
    for words in (world.create(world.path("x.img")), ["image", "add", "vol0", world.path("y.img")],
                  ["mirror", "set", "vol0", "suspend=9"], ["image", "set", "vol0", "a", "hang=9"]):
        result = t.run(t.program("tarn"), "--control", control, *words, status=1)
        check_message(result.err, ["state|No such file"])
        handle.pwrite(b"1" * 4096, 0)
    check(sorted(os.listdir(world.folder)) == ["a.img", "a.img.tarn", "b.img", "b.img.tarn"], "files are left behind")
    check(not os.path.exists(state), "the state directory was made again")
    os.rename(away, state)
    handle.flush()
    handle.shutdown()
    world.daemon.tarn("mirror", "set", "vol0", "suspend=9")
    world.daemon.tarn(*world.create(world.path("x.img")))
    world.daemon.restart()
    world.daemon.wait_state("vol0", "ACTIVE")


def test_a_read_only_file_system(t):
    """Issue 4, bad input: images, metadata or the state directory on a file system that is read-only."""
    small = small_disk(t, "small", 4 * MIB)
    images.make_sparse(small + "/x.img", MIB)
    os.mkdir(small + "/state")
    subprocess.run(["mount", "-o", "remount,ro", small], check=True)
    world = World(t)
    check_table(world, [
        ("a file", lambda w: w.create(small + "/x.img"), (1,), [r"x\.img", "writ|[Rr]ead-only"]),
        ("a file to be made", lambda w: w.create(small + "/y.img"), (1,), [r"y\.img", "writ|[Rr]ead-only"]),
        ("metadata", lambda w: w.create(f"{w.path('x.img')},meta={small}/m"), (1,), ["writ|[Rr]ead-only"]),
        ("an image to be added", lambda w: ["image", "add", "vol0", small + "/x.img"], (1,), ["writ|[Rr]ead-only"])])
    line = start_and_fail(t, "--state", small + "/state")
    check(re.search("lock|state", line) and re.search("[Rr]ead-only", line), f"it says {line!r}")


def test_a_limit_on_file_sizes(t):
    """Issue 4, limits: a write beyond RLIMIT_FSIZE is an error like others, and not the end of the process."""
    world = World(t, wrapper=["prlimit", f"--fsize={2 * MIB}", "--"])
    world.check_refused(world.create(world.path("x.img"), size="8M"), (1,), [r"x\.img", "more than|large|limit"])
    world.activate()
    handle = open_handle(world.daemon.uri("vol0"))
    handle.pwrite(b"1" * 4096, MIB - 4096)
    handle.shutdown()


# ---- the control socket ----

def asking(daemon):
    """A connection of the control socket."""
    one = socket.socket(socket.AF_UNIX)
    one.settimeout(120)
    one.connect(daemon.control())
    return one


def line_of(one):
    """The next line; empty at the end."""
    text = b""
    while not text.endswith(b"\n"):
        try:
            more = one.recv(65536)
        except ConnectionError:
            break
        if not more:
            break
        text += more
    return text


def test_lines_to_the_control_socket(t):
    """Issue 4, bad input: garbage, half a message, a huge one, one byte at a time: an answer that says why, or silence until
    the rest comes; other connections work."""
    world = World(t)
    for why, text, saying in [("no JSON", b"hello\n", "JSON|request"), ("a list", b"[]\n", "object|request"),
                              ("no command", b"{}\n", "command"), ("a number", b'{"command": 5}\n', "command"),
                              ("unknown", b'{"command": "staus"}\n', "status"),
                              ("a word too many", b'{"command": "status", "colour": 1}\n', "colour"),
                              ("a name that is a list", b'{"command": "mirror get", "name": []}\n', "name"),
                              ("not UTF-8", b'{"command": "\xff"}\n', "JSON|UTF-8"),
                              ("a zero byte", b'{"command": "sta\\u0000tus"}\n', "."),
                              ("nested", b'{"command":' + b"[" * 5000 + b"\n", "JSON|request"),
                              ("twice", b'{"command": "status", "command": "events"}\n', "."),
                              ("huge", b'{"command": "' + b"x" * 300000 + b'"}\n', "long|unknown")]:
        with asking(world.daemon) as one:
            try:
                one.sendall(text)
            except ConnectionError:
                pass
            answer = json.loads(line_of(one) or b"null")
            check(answer and answer["ok"] is False and re.search(saying, answer["error"]), f"{why}: answered {answer}")
    with asking(world.daemon) as one, asking(world.daemon) as half:
        half.sendall(b'{"command": "mirror activate", "na')
        for byte in b'\n\n{"command":"status"}\n':
            one.sendall(bytes([byte]))
        check(json.loads(line_of(one))["ok"], "a request in single bytes")
        one.sendall(b'{"command":"status"}\n' * 300)  # all at once: answered one after the other
        check(all(json.loads(line)["ok"] for line in lines_of(one, 300)), "three hundred requests at once")
    check(world.daemon.mirror("vol0")["state"] == "INACTIVE", "half a request was carried out")


def lines_of(one, count):
    text = b""
    while text.count(b"\n") < count:
        text += one.recv(1 << 20)
    return text.splitlines()


def test_clients_that_never_read(t):
    """Issue 4, limits: connections whose clients ask and never read keep nobody out for good: who comes later is served, or told
    in one line; when they go all is well."""
    world = World(t)
    stuck = []
    for _ in range(100):
        one = asking(world.daemon)
        one.setblocking(False)
        try:
            for _ in range(40):
                one.send(b'{"command":"status"}\n' * 50)
        except OSError:
            pass
        stuck.append(one)
    result = world.daemon.tarn("status", status=None)
    check(result.status == 0 or re.search("connections", result.err), f"kept out without a word: {result}")
    for one in stuck:
        one.close()
    wait_for("a command to work", lambda: world.daemon.tarn("status", status=None, quiet=True).status == 0)
    world.activate()


def test_a_client_that_is_killed(t):
    """B15: what a client asked for is carried out when it is killed meanwhile, and its place is free again."""
    world = World(t)
    for _ in range(140):  # more than there are places
        one = subprocess.Popen(world.daemon.tarn_argv("events"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        one.send_signal(signal.SIGKILL)
        one.wait()
    with asking(world.daemon) as one:
        one.sendall(b'{"command":"mirror activate","name":"vol0"}\n')
    world.daemon.wait_state("vol0", "ACTIVE")


# ---- the programs' own files ----

def test_programs_without_standard_files(t):
    """Issue 4, bad input: started with standard input, output and error closed, tarnd works, and writes its log into nothing else."""
    state = t.path("state")
    os.mkdir(state)
    process = t.spawn("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", t.program("tarnd"), "--state", state)
    asked = (t.program("tarn"), "--state", state)
    wait_for("tarnd to answer", lambda: t.run(*asked, "status", status=None, quiet=True).status == 0)
    for number in range(3):
        place = os.readlink(f"/proc/{process.pid}/fd/{number}")
        check(place == "/dev/null", f"its descriptor {number} is {place}")
    t.run("sh", "-c", 'exec "$@" >&- 2>&-', "sh", *asked, "status")
    process.send_signal(signal.SIGTERM)
    check(process.wait(120) == 0, "it did not end well")


def test_an_answer_that_cannot_be_written(t):
    """Cli: an answer that finds no space is not a success."""
    daemon = Daemon(t).start()
    for words in (["status"], ["--json", "status"]):
        result = t.run("sh", "-c", 'exec "$@" >/dev/full', "sh", *daemon.tarn_argv(*words), status=1)
        check_message(result.err, ["written", "space"])


def test_destroy_leaves_what_another_daemon_serves(t):
    """A mirror that another daemon has imported, and serves, keeps its metadata when the daemon that had it before destroys it: what
    somebody has locked is in use, so it stays, and it is said why."""
    a, b = t.path("a.img"), t.path("b.img")
    old = Daemon(t, state=t.path("old")).start()
    old.create("vol0", [a, b], size=16 * MIB)
    old.tarn("mirror", "deactivate", "vol0")
    new = Daemon(t, state=t.path("new")).start()
    new.tarn("mirror", "import", a, b)
    new.tarn("mirror", "activate", "vol0")
    handle = open_handle(new.uri("vol0"))
    handle.pwrite(b"n" * 4096, 0)
    handle.flush()
    said = old.tarn("mirror", "destroy", "vol0", "--force")
    check(said.err.count("in use (locked) by another process") == 2, f"it is not told what was left: {said.err}")
    check(os.path.exists(a + ".tarn") and os.path.exists(b + ".tarn"), "the metadata of a mirror that is served is removed")
    handle.pwrite(b"n" * 4096, 0)
    check(new.mirror("vol0")["state"] == "ACTIVE", "the other daemon's mirror has stopped")


def test_a_removal_leaves_what_another_daemon_serves(t):
    """The same for one image that is removed, while another daemon serves it by itself."""
    a, b = t.path("a.img"), t.path("b.img")
    old = Daemon(t, state=t.path("old")).start()
    old.create("vol0", [a, b], size=16 * MIB)
    old.wait_synchronized("vol0")
    old.tarn("mirror", "deactivate", "vol0")
    new = Daemon(t, state=t.path("new")).start()
    new.tarn("mirror", "import", "--force", b, "test")
    new.tarn("mirror", "activate", "--force", "test")
    old.tarn("mirror", "activate", "--force", "vol0")
    said = old.tarn("image", "remove", "vol0", "b", "--force")
    check("in use (locked) by another process" in said.err, f"it is not told what was left: {said.err}")
    check(os.path.exists(b + ".tarn"), "the metadata of a mirror that is served is removed")
