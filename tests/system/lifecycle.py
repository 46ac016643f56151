"""A mirror from its creation to its end, and the daemon's own starts and stops."""
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import threading

from lib import images
from lib.context import Failed, check, end, rows, wait_for
from lib.daemon import Daemon
from lib.disks import loop_device
from lib.images import KIB, MIB
from lib.ledger import SECTOR, Ledger
from lib.load import Load, open_handle, read_volume

SIZE = 16 * MIB


def two_images(t, kind="disk"):
    return [f"{t.place(kind)}/a.img", f"{t.place(kind)}/b.img"]


def new_mirror(t, paths, **options):
    daemon = Daemon(t).start()
    daemon.create("vol0", paths, size=options.pop("size", SIZE), **options)
    return daemon


def write_some(daemon, export="vol0", seed=7, length=300 * KIB, offset=4 * KIB):
    """Writes bytes that a test can ask for again."""
    content = images.random.Random(seed).randbytes(length)
    handle = open_handle(daemon.uri(export))
    handle.pwrite(content, offset)
    handle.flush()
    handle.shutdown()
    return content


def read_back(daemon, content, export="vol0", offset=4 * KIB):
    handle = open_handle(daemon.uri(export))
    check(handle.pread(len(content), offset) == content, "what was written is not read back")
    handle.shutdown()


@rows([("on disk", "disk"), ("in memory", "tmpfs")])
def test_a_whole_life(t, row):
    """B8, B9, B15: create, activate, use, deactivate, activate, destroy; data is left."""
    paths = two_images(t, row[1])
    daemon = new_mirror(t, paths, activate=False)
    status = daemon.mirror("vol0")
    check(status["state"] == "INACTIVE", f"a new mirror is {status['state']}")
    check([image["name"] for image in status["images"]] == ["a", "b"], f"images are called {status['images']}")
    check([image["role"] for image in status["images"]] == ["master", "slave"], "the first image is the master")
    check(status["volumes"][0]["size"] == SIZE, f"volume {status['volumes']}")
    for path in paths:
        check(os.path.getsize(path) == SIZE, f"{path} was made with {os.path.getsize(path)} bytes")
        check(os.stat(path).st_blocks * 512 < MIB, f"{path} was not made sparse")

    daemon.tarn("mirror", "activate", "vol0")
    status = daemon.wait_synchronized("vol0")
    check(all(image["sync"] is None for image in status["images"]), "files without data need no synchronisation")
    content = write_some(daemon)
    read_back(daemon, content)

    daemon.tarn("mirror", "deactivate", "vol0")
    check(daemon.mirror("vol0")["state"] == "INACTIVE", "not INACTIVE after deactivate")
    images.check_same(paths, SIZE)
    check(images.read_at(paths[1], 4 * KIB, len(content)) == content, "the bytes are not at their place in the image")

    daemon.tarn("mirror", "activate", "vol0")
    read_back(daemon, content)
    daemon.tarn("mirror", "deactivate", "vol0")
    before = [images.digest(path) for path in paths]
    refused = daemon.tarn("mirror", "destroy", "vol0", status=1)
    check(re.search(r"\bb\b", refused.err), f"the image to remove first is not named: {refused.err}")
    daemon.tarn("image", "remove", "vol0", "b")
    daemon.tarn("mirror", "destroy", "vol0")
    check(daemon.json("status")["mirrors"] == [], "status still shows a mirror")
    check([images.digest(path) for path in paths] == before, "destroy changed the data")
    daemon.restart()
    check(daemon.json("status")["mirrors"] == [], "the mirror is back after a restart")


def test_files_of_a_destroyed_mirror_can_be_used_again(t):
    """B15: what destroy leaves is a plain file; the next mirror starts with its content."""
    paths = two_images(t)
    daemon = new_mirror(t, paths)
    content = write_some(daemon)
    daemon.tarn("mirror", "deactivate", "vol0")
    daemon.tarn("mirror", "destroy", "--force", "vol0")
    daemon.create("again", [paths[0], paths[1] + ",overwrite"])
    read_back(daemon, content, "again")
    daemon.wait_synchronized("again")


@rows([("auto on, was ACTIVE", "on", True, "ACTIVE"), ("auto on, was INACTIVE", "on", False, "INACTIVE"),
       ("auto off, was ACTIVE", "off", True, "INACTIVE")])
def test_restart(t, row):
    """B8: a mirror that was ACTIVE when its node stopped becomes ACTIVE by itself, if `auto` is on."""
    _, auto, activate, expected = row
    daemon = new_mirror(t, two_images(t), settings=[f"auto={auto}"], activate=activate)
    content = write_some(daemon) if activate else b""
    daemon.restart()
    daemon.wait_state("vol0", expected)
    if expected == "INACTIVE" and content:
        daemon.tarn("mirror", "activate", "vol0")
    if content:
        read_back(daemon, content)
        status = daemon.mirror("vol0")
        check(not status["last_recovery"], f"recovery after a clean stop: {status['last_recovery']}")


def test_sigterm_under_load(t):
    """Rule 6, issue 2 item 7: SIGTERM flushes, marks clean, exits 0; what was answered is there, the images are
    equal."""
    paths = two_images(t)
    daemon = new_mirror(t, paths)
    ledger = Ledger(SIZE // SECTOR)
    load = Load(ledger, daemon.uri("vol0"), seed=11)
    load.run(0.7)
    load.dying = True
    daemon.process.terminate()
    load.bury()
    check(daemon.process.wait(120) == 0, f"SIGTERM under load: exit status {daemon.process.returncode}")
    images.check_same(paths, SIZE)
    daemon.start()
    daemon.wait_state("vol0", "ACTIVE")
    check(not daemon.mirror("vol0")["last_recovery"], "recovery after a clean stop")
    handle = open_handle(daemon.uri("vol0"))
    ledger.check_all(read_volume(handle))


def test_settings(t):
    """B14, B15: settings are shown, changed, and kept over a restart; defaults are those of the documentation."""
    daemon = new_mirror(t, two_images(t), settings=["marks=64"])
    expected = {"auto": "on", "max-missing": "-1", "min-images": "-1", "marks": "64"}
    for key, value in expected.items():
        shown = daemon.tarn("mirror", "get", "vol0", key).out
        check(value in shown.split(), f"{key} is shown as {shown!r}, expected {value}")
    shown = daemon.tarn("mirror", "get", "vol0").out
    for key in (*expected, "region", "extent"):
        check(re.search(rf"^\s*{key}\b", shown, re.MULTILINE), f"`get` does not list {key}: {shown}")
    daemon.tarn("mirror", "set", "vol0", "max-missing=7", "auto=off")
    daemon.restart()
    check("7" in daemon.tarn("mirror", "get", "vol0", "max-missing").out.split(), "max-missing=7 is forgotten")
    check("off" in daemon.tarn("mirror", "get", "vol0", "auto").out.split(), "auto=off is forgotten")


def test_one_daemon_per_state_directory(t):
    """Issue 2, item 7: the state directory is locked; a second daemon says so and goes."""
    daemon = Daemon(t).start()
    second = t.run(*daemon.argv(), status=None)
    check(second.status in (1, 2), f"a second daemon: {second}")
    check(daemon.state in second.err, f"the message does not name the directory: {second.err}")
    check(re.search(r"in use|another|running|locked", second.err), f"the message does not say why: {second.err}")
    daemon.tarn("status")
    daemon.kill()
    daemon.start()  # a killed daemon leaves nothing that keeps the next one out


def qemu_can_write(t, path):
    """qemu-io opens for writing, with its locks; it reads only, because a changed image would be noticed."""
    result = t.run("qemu-io", "-f", "raw", "-c", "read 0 512", path, status=None)
    if result.status != 0 or "lock" in result.err:
        check("lock" in result.err, f"refused for another reason than the lock: {result.err}")
        return False
    return True


def test_locks(t):
    """Rule 7, B12: an ACTIVE mirror's disks are locked against QEMU and all who ask; INACTIVE holds no lock."""
    paths = two_images(t)
    daemon = new_mirror(t, paths, activate=False)
    for path in paths:
        check(not images.is_locked(path), f"INACTIVE holds a lock on {path}")
    check(qemu_can_write(t, paths[0]), "INACTIVE keeps QEMU out")
    daemon.tarn("mirror", "activate", "vol0")
    for path in paths:
        check(images.is_locked(path), f"ACTIVE does not lock {path}")
        check(not qemu_can_write(t, path), f"QEMU could write {path} of an ACTIVE mirror")
    daemon.tarn("mirror", "deactivate", "vol0")
    check(qemu_can_write(t, paths[0]), "the lock is kept after deactivate")
    daemon.tarn("mirror", "activate", "vol0")
    daemon.kill()
    for path in paths:
        wait_for(f"the dead daemon's lock on {path} to go", lambda path=path: not images.is_locked(path))


@rows([("blank file", False), ("file to be made", True)])
def test_adopting_a_file_full_of_data(t, row):
    """Thesis 3, B9: the first image's content is what the mirror starts with; a second one is copied to until it is
    SYNCHRONIZED and equal, while clients read and write."""
    paths = two_images(t)
    images.make_random(paths[0], SIZE, seed=3)
    if not row[1]:
        images.make_sparse(paths[1], SIZE)
    before = images.read_at(paths[0], 0, SIZE)
    daemon = Daemon(t).start()
    daemon.create("vol0", paths)
    read_back(daemon, before[MIB:3 * MIB], offset=MIB)
    content = write_some(daemon, seed=4, length=MIB, offset=8 * MIB)
    status = daemon.wait_synchronized("vol0")
    check(status["volumes"][0]["size"] == SIZE, "the size is that of the first image")
    daemon.stop()
    images.check_same(paths, SIZE)
    check(images.read_at(paths[1], 0, SIZE) == before[:8 * MIB] + content + before[9 * MIB:], "not the adopted data")


def test_overwrite(t):
    """B15: a second image that holds something is taken only with `,overwrite`, and is then made equal."""
    paths = two_images(t)
    images.make_random(paths[0], SIZE, seed=3)
    images.make_random(paths[1], SIZE, seed=4)
    expected = images.digest(paths[0])
    daemon = Daemon(t).start()
    daemon.create("vol0", [paths[0], paths[1] + ",overwrite"])
    daemon.wait_synchronized("vol0")
    daemon.stop()
    check([images.digest(path) for path in paths] == [expected, expected], "the images are not the first one's data")


def test_synchronisation_survives_restarts(t):
    """B9, B10, rule 13: a copy that is cut short, by SIGTERM or SIGKILL, goes on and ends with equal images."""
    size = 256 * MIB
    paths = two_images(t, "tmpfs")
    images.make_random(paths[0], size, seed=5)
    expected = images.digest(paths[0])
    daemon = Daemon(t).start()
    daemon.create("vol0", paths)
    for stop in (daemon.stop, daemon.kill, daemon.kill):
        stop()
        daemon.start()
        daemon.wait_state("vol0", "ACTIVE")
    daemon.wait_synchronized("vol0")
    daemon.stop()
    check([images.digest(path) for path in paths] == [expected, expected], "the copy is not the original")


def test_a_larger_disk_is_not_touched_beyond_the_volume(t):
    """B1: a disk may be larger than its volume; the rest is not touched, and that is said."""
    paths = two_images(t)
    rest = 1 * MIB + 123
    images.make_random(paths[0], SIZE + rest, seed=1)
    images.make_sparse(paths[1], SIZE + 2 * rest)
    tails = [images.read_at(path, SIZE, 2 * rest) for path in paths]
    daemon = Daemon(t).start()
    said = daemon.tarn("mirror", "create", "vol0", "--size", SIZE, "--image", paths[0], "--image", paths[1],
                       "--activate")
    check(re.search(r"larger|rest|not touched|untouched|beyond", said.out + said.err),
          f"nothing said of the rest: {said}")
    daemon.wait_synchronized("vol0")
    handle = open_handle(daemon.uri("vol0"))
    check(handle.get_size() == SIZE, f"the export has {handle.get_size()} bytes")
    handle.pwrite(b"\xee" * MIB, SIZE - MIB)
    handle.zero(512, SIZE - 512)
    handle.shutdown()
    daemon.stop()
    images.check_same(paths, SIZE)
    check([images.read_at(path, SIZE, 2 * rest) for path in paths] == tails, "bytes behind the volume changed")
    check(os.path.getsize(paths[1]) == SIZE + 2 * rest, "the file's size changed")


@rows([("one image", 1), ("two", 2), ("three", 3), ("eight", 8)])
def test_number_of_images(t, row):
    """A1, issue 2 item 3: any number of images; all equal after a mixed load, writes counted on each."""
    count = row[1]
    paths = [t.shm(f"image{index}.img") for index in range(count)]
    daemon = new_mirror(t, paths)
    load = Load(Ledger(SIZE // SECTOR), daemon.uri("vol0"), seed=count)
    load.run(0.7)
    load.drain()
    load.close()
    status = daemon.wait_synchronized("vol0")
    check(all(image["writes"] > 0 for image in status["images"]), "an image without a write")
    handle = open_handle(daemon.uri("vol0"))
    load.ledger.check_all(read_volume(handle))
    handle.shutdown()
    daemon.stop()
    images.check_same(paths, SIZE)


def test_volumes(t):
    """B1: a mirror of several volumes: each has its export, its disks, its size."""
    paths = [t.path(name) for name in ("a0.img", "a1.img", "b0.img", "b1.img")]
    daemon = Daemon(t).start()
    daemon.tarn("mirror", "create", "db", "--volume", "data:8M", "--volume", "log:2M", "--activate",
                "--image", f"{paths[0]}+{paths[1]}", "--image", f"{paths[2]}+{paths[3]}")
    data = write_some(daemon, "db/data", seed=1)
    log = write_some(daemon, "db/log", seed=2)
    read_back(daemon, data, "db/data")
    read_back(daemon, log, "db/log")
    sizes = {volume["name"]: volume["size"] for volume in daemon.mirror("db")["volumes"]}
    check(sizes == {"data": 8 * MIB, "log": 2 * MIB}, f"volumes {sizes}")
    daemon.kill()
    daemon.start()
    daemon.wait_synchronized("db")
    daemon.stop()
    images.check_same([paths[0], paths[2]], 8 * MIB)
    images.check_same([paths[1], paths[3]], 2 * MIB)
    check(images.read_at(paths[3], 4 * KIB, len(log)) == log, "the second volume's bytes are elsewhere")


def test_many_mirrors(t):
    """A1, B2: many mirrors side by side do not mix, over a crash too."""
    daemon = Daemon(t).start()
    contents = {}
    for number in range(12):
        name = f"m{number}"
        daemon.create(name, [t.path(f"{name}-a.img"), t.path(f"{name}-b.img")], size=MIB)
        contents[name] = write_some(daemon, name, seed=number)
    daemon.kill()
    daemon.start()
    for name, content in contents.items():
        daemon.wait_synchronized(name)
        read_back(daemon, content, name)
    check(len(daemon.json("status")["mirrors"]) == 12, "not all mirrors are shown")


@rows([("a multiple of 512 only", 1000 * 512 + 512), ("one sector", 512),
       ("no multiple of a region", 9 * MIB + 4 * KIB)])
def test_odd_sizes(t, row):
    """Cli: sizes are multiples of 512; the last sector works like the first."""
    size = row[1]
    paths = two_images(t)
    daemon = new_mirror(t, paths, size=size)
    handle = open_handle(daemon.uri("vol0"))
    check(handle.get_size() == size, f"the export has {handle.get_size()} bytes")
    handle.pwrite(b"\x5a" * 512, size - 512)
    handle.pwrite(b"\xa5", size - 1)
    check(handle.pread(512, size - 512) == b"\x5a" * 511 + b"\xa5", "the last sector")
    handle.shutdown()
    daemon.stop()
    images.check_same(paths, size)
    check(os.path.getsize(paths[0]) == size, "the file has another size")


def test_a_larger_size_suffix(t):
    """Cli: SIZE is bytes, or with K M G T P; sparse files make a terabyte cheap."""
    daemon = new_mirror(t, two_images(t), size="1T")
    handle = open_handle(daemon.uri("vol0"))
    check(handle.get_size() == 1 << 40, f"1T is {handle.get_size()} bytes")
    handle.pwrite(b"\x77" * 4096, (1 << 40) - 4096)
    handle.pwrite(b"\x78" * 4096, 1 << 39)
    check(handle.pread(4096, (1 << 40) - 4096) == b"\x77" * 4096, "the end of the terabyte")
    handle.shutdown()
    daemon.kill()
    daemon.start()
    daemon.wait_synchronized("vol0")  # bounded by the marks, not by the size


def test_deactivate_with_clients(t):
    """Cli: refused with clients connected, naming them; `--force` ends them, and the mirror is clean."""
    daemon = new_mirror(t, two_images(t))
    handle = open_handle(daemon.uri("vol0"))
    handle.pwrite(b"\x01" * 512, 0)
    refused = daemon.tarn("mirror", "deactivate", "vol0", status=1)
    check(re.search(r"client|connect", refused.err), f"it does not name the clients: {refused.err}")
    check(handle.pread(512, 0) == b"\x01" * 512, "the refusal disturbed the client")
    daemon.tarn("mirror", "deactivate", "--force", "vol0")
    check(daemon.mirror("vol0")["state"] == "INACTIVE", "not INACTIVE after a forced deactivate")


def test_status_for_people(t):
    """Issue 2, item 8: the table names mirrors, states, images; `status NAME` only the one."""
    daemon = new_mirror(t, two_images(t))
    daemon.create("other", [t.path("c.img")], size=MIB, activate=False)
    table = daemon.tarn("status").out
    for word in ("vol0", "ACTIVE", "SYNCHRONIZED", "other", "INACTIVE"):
        check(word in table, f"status does not show {word}: {table}")
    one = daemon.tarn("status", "vol0").out
    check("vol0" in one and "other" not in one, f"status vol0 shows {one}")
    only = daemon.json("status", "vol0")["mirrors"]
    check([mirror["name"] for mirror in only] == ["vol0"], f"--json status vol0 shows {only}")


def test_status_json_has_every_field(t):
    """Cli: the document's fields and their types."""
    daemon = new_mirror(t, two_images(t))
    document = daemon.json("status")
    check(isinstance(document["node"], str) and isinstance(document["version"], str), "node, version")
    mirror = document["mirrors"][0]
    for key, kind in {"name": str, "uuid": str, "state": str, "split": bool, "epoch": str, "volumes": list,
                      "images": list, "marked_regions": int}.items():
        check(isinstance(mirror[key], kind), f"{key} is {mirror[key]!r}")
    for key in ("reason", "last_recovery"):
        check(mirror[key] is None, f"{key} is {mirror[key]!r} on a healthy new mirror")
    for image in mirror["images"]:
        for key, kind in {"name": str, "node": str, "role": str, "policy": str, "state": str, "disks": list,
                          "missed_bytes": int, "queued_bytes": int, "unreadable_bytes": int, "reads": int,
                          "writes": int,
                          "read_errors": int, "write_errors": int, "repaired_blocks": int}.items():
            check(isinstance(image[key], kind), f"{key} is {image[key]!r}")
        for key in ("reason", "missing", "error", "moment", "sync"):
            check(key in image and image[key] is None, f"{key} is {image.get(key)!r} on a healthy image")


def test_every_command_answers_in_json(t):
    """Cli: `--json` prints one JSON document on standard output, for every command."""
    daemon = Daemon(t).start()
    words = [("mirror", "create", "vol0", "--size", "1M", "--image", t.path("a.img")), ("mirror", "activate", "vol0"),
             ("status",), ("mirror", "set", "vol0", "max-missing=1"), ("mirror", "get", "vol0"),
             ("mirror", "get", "vol0", "max-missing"), ("mirror", "deactivate", "vol0"), ("mirror", "destroy", "vol0")]
    for command in words:
        daemon.json(*command)


def test_events(t):
    """Issue 2, item 8: `tarn events` is a stream of lines, `--json` of documents."""
    daemon = new_mirror(t, two_images(t), activate=False)
    paths = t.path("events.txt"), t.path("events.json")
    with open(paths[0], "wb") as plain, open(paths[1], "wb") as documents:
        watchers = [t.spawn(*daemon.tarn_argv("events"), stdout=plain),
                    t.spawn(*daemon.tarn_argv("--json", "events"), stdout=documents)]

    def both_show():
        daemon.tarn("mirror", "activate", "vol0", quiet=True)
        daemon.tarn("mirror", "deactivate", "vol0", quiet=True)
        return all("vol0" in open(path, encoding="utf-8").read() for path in paths)
    wait_for("both streams to tell of vol0", both_show, every=0.2)
    for watcher in watchers:
        end(watcher)
    for line in open(paths[1], encoding="utf-8").read().splitlines()[:-1]:
        check(isinstance(json.loads(line), dict), f"not a JSON object: {line}")


def test_events_of_a_long_life(t):
    """When more lines have been logged than are kept, a new reader gets those that are, and is told of no loss."""
    daemon = new_mirror(t, two_images(t), activate=False)
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(daemon.control())
        answers = control.makefile("rb")
        for number in range(1100):
            control.sendall(json.dumps({"command": "mirror set", "name": "vol0", "set": [f"suspend={number + 1}"]}).encode() + b"\n")
            answer = json.loads(answers.readline())
            check(answer["ok"], f"{answer}")
    with open(t.path("events.txt"), "wb") as shown:
        watcher = t.spawn(*daemon.tarn_argv("events"), stdout=shown)

    def lines():
        with open(t.path("events.txt"), encoding="utf-8") as file:
            return file.read().count("settings were changed")
    wait_for("the lines that are kept", lambda: lines() >= 1000)
    check(watcher.poll() is None, f"the reader ended by itself with {watcher.poll()}")
    end(watcher)


def test_status_watch(t):
    """Issue 2, item 8: `status --watch` shows the state again and again until it is interrupted."""
    daemon = new_mirror(t, two_images(t), activate=False)
    with open(t.path("watch.txt"), "wb") as shown:
        watcher = t.spawn(*daemon.tarn_argv("status", "--watch"), stdout=shown)

    def text():
        with open(t.path("watch.txt"), encoding="utf-8") as file:
            return file.read()
    wait_for("the first screen", lambda: "INACTIVE" in text())
    daemon.tarn("mirror", "activate", "vol0")
    wait_for("the change to be shown", lambda: "SYNCHRONIZED" in text() and re.search(r"\bACTIVE", text()))
    check(watcher.poll() is None, f"the watch ended by itself with {watcher.poll()}")
    watcher.send_signal(signal.SIGINT)
    watcher.wait(120)
    daemon.check_alive()


def free_port(family=socket.AF_INET):
    with socket.socket(family) as probe:
        probe.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        return probe.getsockname()[1]


def test_where_it_listens(t):
    """Cli: `--nbd` more than once, Unix and TCP, IPv6; `--name`; `tarn --control`; TARN_STATE."""
    port, port6, path = free_port(), free_port(socket.AF_INET6), t.path("other.sock")
    daemon = Daemon(t, arguments=["--name", "n1", "--nbd", f"unix:{path}", "--nbd", f"127.0.0.1:{port}",
                                  "--nbd", f"[::1]:{port6}"]).start()
    daemon.create("vol0", two_images(t), size=MIB)
    for uri in (daemon.uri("vol0", socket=path), f"nbd://127.0.0.1:{port}/vol0", f"nbd://[::1]:{port6}/vol0"):
        handle = open_handle(uri)
        check(handle.get_size() == MIB, f"{uri}: size {handle.get_size()}")
        handle.shutdown()
    check(daemon.json("status")["node"] == "n1", "the node's name")
    tarn = t.program("tarn")
    t.run(tarn, "--control", daemon.control(), "status")
    t.run(tarn, "status", env={**os.environ, "TARN_STATE": daemon.state})


def bound(blocker, port):
    """A killed process's ring keeps its sockets for a moment."""
    try:
        blocker.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


def test_a_port_just_used(t):
    """Cli: a port that was just in use is tried again for 2 s."""
    port = free_port()
    daemon = Daemon(t, arguments=["--nbd", f"127.0.0.1:{port}"])
    for _ in range(3):
        daemon.start()
        handle = socket.create_connection(("127.0.0.1", port))
        daemon.kill()
        handle.close()
    with socket.socket() as blocker:
        blocker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        wait_for("the killed daemon's socket to go", lambda: bound(blocker, port))
        blocker.listen()
        timer = threading.Timer(1.0, blocker.close)
        timer.start()
        try:
            daemon.start()
        finally:
            timer.join()


def test_configuration_file(t):
    """Cli: the same settings can stand in STATE/tarnd.conf; the command line wins."""
    os.makedirs(t.path("state"))
    path = t.path("conf.sock")
    with open(t.path("state", "tarnd.conf"), "w", encoding="utf-8") as file:
        file.write(f"name = from-file\nnbd = unix:{path}\n")
    daemon = Daemon(t).start()
    check(daemon.json("status")["node"] == "from-file", "the name of the file")
    daemon.create("vol0", [t.path("a.img")], size=MIB)
    open_handle(daemon.uri("vol0", socket=path)).shutdown()
    daemon.stop()
    daemon.arguments = ["--name", "from-line"]
    daemon.start()
    check(daemon.json("status")["node"] == "from-line", "the command line wins")


def test_data_outlives_everything(t):
    """Issue 2: written by nbdcopy, killed, started, read by nbdcopy: the same bytes; and in both images."""
    paths = two_images(t)
    source = images.make_random(t.path("source"), SIZE, seed=9)
    daemon = new_mirror(t, paths)
    t.run("nbdcopy", "--flush", source, daemon.uri("vol0"))
    daemon.kill()
    daemon.start()
    daemon.wait_synchronized("vol0")
    t.run("nbdcopy", daemon.uri("vol0"), t.path("back"))
    daemon.stop()
    expected = images.digest(source)
    for path in (t.path("back"), *paths):
        if images.digest(path, SIZE) != expected:
            raise Failed(f"{path} is not what was written")


def test_a_stop_beside_a_client_that_reads_nothing(t):
    """Thesis 8: a control client that asks and never takes its answers (a `tarn events` that was suspended) does not keep the daemon
    from ending, nor the next one from beginning."""
    daemon = Daemon(t).start()
    daemon.create("vol0", [t.path("a.img"), t.path("b.img")], size=MIB)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{daemon.state}/control.sock")
        client.settimeout(0.5)
        with contextlib.suppress(TimeoutError):  # until the daemon takes no more, because its answers are not taken
            while True:
                client.sendall(b'{"command":"status"}\n' * 100)
        daemon.stop()
        daemon.start()
        daemon.wait_state("vol0", "ACTIVE")


def edit_config(daemon, mirror, change):
    path = f"{daemon.state}/mirrors/{mirror}/config.json"
    with open(path, encoding="utf-8") as file:
        document = json.load(file)
    change(document)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(document, file)


def put(path, data):
    with open(path, "wb") as file:
        file.write(data)


LEFTOVERS = [
    ("nothing", True, lambda t, path: put(path, b"")),
    ("a hole", True, lambda t, path: os.truncate(images.make_sparse(path, MIB), MIB)),
    ("zeroes", True, lambda t, path: put(path, bytes(MIB + 100))),
    ("metadata of this mirror", True, lambda t, path: shutil.copy(t.path("a.img.tarn"), path)),
    ("... of which the record was torn", True, lambda t, path: put(path, b"TARNREC1" + bytes(504) + b"TLOG" + bytes(MIB))),
    ("metadata of another mirror", False, lambda t, path: shutil.copy(t.path("other.img.tarn"), path)),
    ("somebody's data", False, lambda t, path: put(path, b"mine" * 1024)),
    ("somebody's data far behind", False, lambda t, path: put(path, bytes(MIB) + b"mine")),
    ("a link", False, lambda t, path: os.symlink(t.path("other.img.tarn"), path)),
]


@rows(LEFTOVERS)
def test_what_a_crash_left_is_removed_if_it_is_ours(t, row):
    """mirror_file.h, `unmake`: a `create` or `image add` was cut off by a crash after it had written down which files it makes, and
    before the daemon starts again somebody puts something there: what is not ours stays, and is told."""
    _, goes, fill = row
    daemon = Daemon(t).start()
    for name, file in (("left", "a"), ("other", "other"), ("kept", "k")):
        daemon.create(name, [t.path(f"{file}.img")], size=MIB, activate=False)
    daemon.stop()
    made, added = t.path("b.img"), t.path("c.img")
    fill(t, made)
    fill(t, added)
    if "this mirror" in row[0]:
        shutil.copy(t.path("k.img.tarn"), added)
    edit_config(daemon, "left", lambda document: document.update(unmake=[made]))  # as plan_list() stores it before it makes a file
    edit_config(daemon, "kept", lambda document: document["images"].append(
        {"slot": 1, "name": "c", "paths": [added], "meta": f"{added}.tarn", "settings": {}, "adding": [added]}))
    daemon.start()
    wait_for("the leftovers to be gone", lambda: not os.path.exists(f"{daemon.state}/mirrors/left"))
    wait_for("the image to be forgotten", lambda: len(daemon.mirror("kept")["images"]) == 1)
    check([os.path.lexists(path) for path in (made, added)] == [not goes] * 2,
          f"{made}, {added} exist: {[os.path.lexists(path) for path in (made, added)]}, though they hold {row[0]}")
    wait_for("what was left in place to be told", lambda: daemon.log().count("is left in place") == (0 if goes else 2))
    check(os.path.exists(t.path("other.img.tarn")), "what the link leads to was removed")


def test_a_device_with_metadata_of_another_mirror_is_not_wiped(t):
    """mirror_file.h, `unmake`: as above, of metadata on a device that was given to another mirror meanwhile."""
    daemon = Daemon(t).start()
    for name in ("left", "other"):
        daemon.create(name, [t.path(f"{name}.img")], size=MIB, activate=False)
    daemon.stop()
    with loop_device(t, images.make_sparse(t.path("loop.raw"), 4 * MIB)) as device:
        t.run("dd", f"if={t.path('other.img.tarn')}", f"of={device}", "bs=64K", "count=1", "conv=notrunc,fsync", "status=none")
        edit_config(daemon, "left", lambda document: document.update(unmake=[device]))
        daemon.start()
        wait_for("the leftovers to be gone", lambda: not os.path.exists(f"{daemon.state}/mirrors/left"))
        check(images.read_at(device, 0, 8) == b"TARNREC1", "the record of another mirror was wiped")
        wait_for("what was left in place to be told", lambda: "it belongs to mirror other" in daemon.log())
        daemon.stop()
