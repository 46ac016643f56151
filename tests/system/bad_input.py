"""Bad input: each with one clear line, the right exit status, and nothing changed on disk.

A row is (why it is there, a function that prepares the world and returns the words after `tarn`, exit statuses that
fit, what the message must say). Exit status 1 is "refused or failed", 2 is "bad usage"; a value that no state of the
world would allow may be either."""
import os
import re
import socket

from lib import images
from lib.context import check, rows
from lib.daemon import Daemon
from lib.images import KIB, MIB
from lib.refusals import EITHER, World, check_message

RECORD_SLOTS = 16 * KIB  # both copies of the record lie at the start of the metadata (docs/disk-format.md)
RECORD_BYTES = 8 * KIB


def run_row(t, row):
    _, prepare, statuses, saying = row
    world = World(t)
    world.check_refused(prepare(world), statuses, saying)


# ---- files ----

def symlink(world):
    os.symlink(world.file("x.img"), world.path("y.img"))
    return world.create(world.path("x.img"), world.path("y.img"))


def hard_link(world):
    os.link(world.file("x.img"), world.path("y.img"))
    return world.create(world.path("x.img"), world.path("y.img"))


def used_mirror_by_link(world):
    os.symlink(world.a, world.path("y.img"))
    return world.create(world.path("y.img"))


def fifo(world):
    os.mkfifo(world.path("x.img"))
    return world.create(world.path("x.img"))


def dangling(world):
    os.symlink(world.path("nowhere/x.img"), world.path("y.img"))
    return world.create(world.path("y.img"))


def loop(world):
    os.symlink(world.path("y.img"), world.path("y.img"))
    return world.create(world.path("y.img"))


FILES = [
    ("first image too small", lambda w: w.create(w.file("x.img", MIB - 512)), (1,), [r"x\.img", "small|short|bytes"]),
    ("second image too small", lambda w: w.create(w.file("x.img"), w.file("y.img", 4096)), (1,),
     [r"y\.img", "small|short|bytes"]),
    ("second image smaller than the first, no size given",
     lambda w: w.create(w.full("x.img"), w.file("y.img", 4096), size=None), (1,), [r"y\.img", "small|short"]),
    ("empty file, no size given", lambda w: w.create(w.file("x.img", 0), size=None), (1,), ["size|empty"]),
    ("first file's size is no multiple of 512, no size given", lambda w: w.create(w.full("x.img", 1000), size=None),
     EITHER, ["512"]),
    ("the same file twice", lambda w: w.create(w.file("x.img"), w.path("x.img")), EITHER, ["same|twice", r"x\.img"]),
    ("the same file by another spelling", lambda w: w.create(w.file("x.img"), w.folder + "/../disks/./x.img"), EITHER,
     ["same|twice"]),
    ("the same file by a symbolic link", symlink, (1,), ["same|twice"]),
    ("the same file by a hard link", hard_link, (1,), ["same|twice"]),
    ("the same missing file twice", lambda w: w.create(w.path("x.img"), w.path("x.img")), EITHER, ["same|twice"]),
    ("a file of another mirror", lambda w: w.create(w.a), (1,), ["vol0", r"a\.img"]),
    ("a file of another mirror by a link", used_mirror_by_link, (1,), ["vol0"]),
    ("a second image that is another mirror's", lambda w: w.create(w.file("x.img"), w.b + ",overwrite"), (1,),
     ["vol0"]),
    ("another mirror's metadata file as a disk", lambda w: w.create(w.a + ".tarn", size=None), (1,), [r"\.tarn|vol0"]),
    ("second image holds something", lambda w: w.create(w.file("x.img"), w.full("y.img")), (1,),
     [r"y\.img", "overwrite"]),
    ("second image holds one sector at its end", lambda w: w.create(w.file("x.img"), one_sector(w)), (1,),
     [r"y\.img", "overwrite"]),
    ("missing file and no size", lambda w: w.create(w.path("x.img"), size=None), (1,),
     [r"x\.img", "no such|missing|exist|size"]),
    ("missing folder", lambda w: w.create(w.path("nowhere/x.img")), (1,), ["nowhere", "no such|missing|exist"]),
    ("missing folder of the second image", lambda w: w.create(w.path("x.img"), w.path("nowhere/y.img")), (1,),
     ["nowhere"]),
    ("a link to nowhere", dangling, (1,), [r"y\.img|nowhere"]),
    ("a link to itself", loop, (1,), [r"y\.img"]),
    ("a directory", lambda w: w.create(w.folder), (1,), ["directory|folder"]),
    ("a directory as second image", lambda w: w.create(w.path("x.img"), w.folder), (1,), ["directory|folder"]),
    ("a pipe", fifo, (1,), [r"x\.img", "neither|not a|pipe|fifo|regular"]),
    ("a character device", lambda w: w.create("/dev/null"), (1,), ["/dev/null"]),
    ("a missing device", lambda w: w.create("/dev/tarn-no-such-device"), (1,), ["/dev/tarn-no-such-device"]),
    ("a path through a file", lambda w: w.create(w.a + "/x.img"), (1,), ["a.img"]),
    ("a path that is too long", lambda w: w.create("/" + "x" * 5000), EITHER, ["long"]),
    ("metadata in a missing folder", lambda w: w.create(w.file("x.img") + f",meta={w.path('nowhere/m')}"), (1,),
     ["nowhere"]),
    ("metadata is the disk itself", lambda w: w.create(w.file("x.img") + f",meta={w.path('x.img')}"), EITHER,
     [r"x\.img"]),
    ("metadata of both images in one file", lambda w: w.create(f"{w.file('x.img')},meta={w.path('m')}",
                                                              f"{w.file('y.img')},meta={w.path('m')}"), EITHER,
     ["same|twice"]),
]


def one_sector(world):
    path = world.file("y.img")
    with open(path, "r+b") as file:
        file.seek(MIB - 512)
        file.write(b"\x01" * 512)
    return path


@rows(FILES)
def test_files(t, row):
    """Issue 2, bad input: images too small, twice, in use, holding something, missing; B15 (refused, and nothing
    changed)."""
    run_row(t, row)


# ---- in use by others ----

@rows([("create, held by somebody's lock", "lock"), ("create, open in QEMU", "qemu"),
       ("activate, held by a lock", "activate")])
def test_in_use_by_another_process(t, row):
    """Issue 2, bad input; rule 7: a file that another process has locked is refused, naming it."""
    world = World(t)
    path = world.file("x.img")
    if row[1] == "lock":
        with images.locked(path):
            world.check_refused(world.create(path), (1,), [r"x\.img", "in use|lock"])
    elif row[1] == "qemu":
        address = t.path("other.sock")
        with t.running("qemu-nbd", "-f", "raw", "-t", "-k", address, path, ready=lambda: os.path.exists(address)):
            world.check_refused(world.create(path), (1,), [r"x\.img", "in use|lock"])
    else:
        before = images.snapshot(world.folder)
        with images.locked(world.b):
            result = world.daemon.tarn("mirror", "activate", "vol0", status=None)
            message = result.err + str(world.daemon.mirror("vol0")["images"][1])
            check(re.search("in use|lock", message), f"nothing says that b.img is locked: {message}")
            check(images.is_locked(world.b), "the other's lock is gone")
        if result.status != 0:
            images.check_unchanged(before, images.snapshot(world.folder))
        world.daemon.tarn("mirror", "deactivate", "--force", "vol0", status=None)
    world.daemon.check_alive()


def without_override():
    """The administrator's right to write what is read-only, taken away: tests may run as root."""
    drop = "-dac_override,-dac_read_search,-fowner"
    return ["setpriv", "--bounding-set", drop, "--inh-caps", drop] if os.geteuid() == 0 else []


@rows([("read-only file", "file"), ("read-only second file", "second"), ("read-only folder", "folder")])
def test_not_writable(t, row):
    """Issue 2, bad input: a path that is not writable."""
    world = World(t, wrapper=without_override())
    if row[1] == "folder":
        closed = world.path("closed")
        os.mkdir(closed, 0o555)
        words = world.create(closed + "/x.img")
    else:
        path = world.file("x.img")
        os.chmod(path, 0o444)
        words = world.create(path) if row[1] == "file" else world.create(world.file("w.img"), path)
    try:
        world.check_refused(words, (1,), [r"x\.img|closed", "permi|writ"])
    finally:
        if row[1] == "folder":
            os.chmod(closed, 0o755)


# ---- metadata ----

def patch_record(path, change):
    """Changes both copies of the record and makes their checksums right again: a forger's work, or a newer
    version's."""
    with open(path, "r+b") as file:
        for slot in range(2):
            file.seek(slot * RECORD_BYTES)
            record = bytearray(file.read(RECORD_BYTES))
            change(record)
            record[RECORD_CRC:RECORD_CRC + 4] = bytes(4)
            sectors = [record[at:at + 508] for at in range(0, RECORD_BYTES, 512)]
            crc = images.crc32c(b"".join(sectors)).to_bytes(4, "little")
            record[:] = b"".join(sector + crc for sector in sectors)
            record[RECORD_CRC:RECORD_CRC + 4] = crc
            file.seek(slot * RECORD_BYTES)
            file.write(record)


RECORD_VERSION, RECORD_CRC = 8, 12  # docs/disk-format.md: their places in every version to come


def newer_version(record):
    record[RECORD_VERSION:RECORD_VERSION + 4] = (999).to_bytes(4, "little")


def damage(path, length=RECORD_SLOTS):
    with open(path, "r+b") as file:
        content = bytearray(file.read(length))
        for index in range(16, length, 64):
            content[index] ^= 0x40
        file.seek(0)
        file.write(content)


@rows([("of another mirror", "foreign", ["another|other|belong|foreign|different"]),
       ("of a newer version", "newer", ["version|newer"]),
       ("damaged", "damaged", ["damage|corrupt|checksum|unreadable"]),
       ("missing", "missing", ["missing|no such|exist"]), ("too short", "short", ["short|small|bytes|damage|corrupt"])])
def test_metadata(t, row):
    """Issue 2, bad input; rule 10: metadata that cannot be trusted is never a source: a mirror whose only image has it
    is not activated, the reason says why, and no image is changed."""
    world = World(t)
    world.daemon.create("one", [world.path("one.img")], size=MIB, activate=False)
    world.daemon.stop()
    meta = world.path("one.img.tarn")
    if row[1] == "foreign":
        content = images.read_at(world.a + ".tarn", 0, os.path.getsize(world.a + ".tarn"))
        with open(meta, "wb") as file:
            file.write(content)
    elif row[1] == "newer":
        patch_record(meta, newer_version)
    elif row[1] == "damaged":
        damage(meta)
    elif row[1] == "missing":
        os.unlink(meta)
    else:
        os.truncate(meta, 4096)
    world.daemon.start()
    before = images.snapshot(world.folder)
    result = world.daemon.tarn("mirror", "activate", "one", status=1)
    check_message(result.err, row[2])
    images.check_unchanged(before, images.snapshot(world.folder))
    mirror = world.daemon.mirror("one")
    check(mirror["state"] != "ACTIVE", "it is ACTIVE")
    world.daemon.tarn("mirror", "activate", "vol0")  # the other mirror does not mind


@rows([("foreign metadata beside a new image", False), ("foreign metadata beside a second image", True)])
def test_metadata_in_the_way_of_create(t, row):
    """Issue 2, bad input: a PATH.tarn that lies there already is not overwritten unasked."""
    world = World(t)
    path = world.file("x.img")
    with open(path + ".tarn", "wb") as file:
        file.write(images.read_at(world.a + ".tarn", 0, os.path.getsize(world.a + ".tarn")))
    words = world.create(world.file("w.img"), path) if row[1] else world.create(path)
    world.check_refused(words, (1,), [r"x\.img"])


# ---- words ----

SIZES = [(f"size {text!r}", lambda w, text=text: w.create(w.path("x.img"), size=text), EITHER, saying) for text,
         saying in [
    ("1000001", ["512"]), ("511", ["512"]), ("0", ["size|512|0"]), ("-1M", ["-1M"]), ("1X", ["1X"]), ("1MB", ["1MB"]),
    ("M", ["M"]), ("1.5M", ["1.5M"]), ("99999999999P", ["99999999999P"]), ("1 M", ["1 M"]), ("0x100000", ["0x100000"]),
    ("18446744073709551616", ["18446744073709551616"]), (" ", ["size"])]]

NAMES = [(f"name {text!r}", lambda w, text=text: w.create(w.path("x.img"), name=text), EITHER,
          ["-d" if text == "-dash" else "name"]) for text in [
    "", "a b", "a/b", "../x", ".hidden", "-dash", "_under", "a.b", "umläut", "new\nline", "x" * 64, "a=b", "a:b",
                                                              "%41"]]

SETTINGS = [(f"setting {text!r}", lambda w, text=text: [*w.create(w.path("x.img")), "--set", text], EITHER, saying)
            for text, saying in [
    ("region=1K", ["region", "64K"]), ("region=512M", ["region", "256M"]), ("region=100000", ["region"]),
    ("region=abc", ["region"]), ("region=", ["region"]), ("region", ["region|KEY=VALUE"]),
                                 ("=4M", ["KEY|name|setting|="]),
    ("marks=15", ["marks", "16"]), ("marks=65537", ["marks", "65536"]), ("marks=-1", ["marks"]),
                                 ("marks=1.5", ["marks"]),
    ("extent=2K", ["extent", "4K"]), ("extent=2M", ["extent", "1M"]), ("auto=maybe", ["auto", "on"]),
    ("max-missing=-2", ["max-missing"]), ("min-images=x", ["min-images"]),
    ("regoin=4M", ["regoin", r"\bregion\b"]), ("mark=16", ["mark", r"\bmarks\b"]), ("zzzzzzzz=1", ["zzzzzzzz"])]]

IMAGES = [
    ("image without a path", lambda w: w.create("a="), EITHER, ["path|a="]),
    ("image that is no path", lambda w: w.create("x.img"), EITHER, [r"x\.img", "/"]),
    ("empty image", lambda w: w.create(""), EITHER, ["image|path"]),
    ("unknown key", lambda w: w.create(w.path("x.img") + ",overwritten"), EITHER, ["overwritten", r"overwrite\b"]),
    ("unknown key with a value", lambda w: w.create(w.path("x.img") + ",polcy=sync"), EITHER, ["polcy", "policy"]),
    ("unknown policy", lambda w: w.create(w.path("x.img") + ",policy=often"), EITHER, ["often"]),
    ("two images of one name", lambda w: w.create("x=" + w.path("x.img"), "x=" + w.path("y.img")), EITHER,
     ["'x'|twice|same name"]),
    ("odd image name", lambda w: w.create("a b=" + w.path("x.img")), EITHER, ["a b|name|path"]),
    ("image name too long", lambda w: w.create("n" * 64 + "=" + w.path("x.img")), EITHER, ["name|long|path|starts"]),
    ("a node that nobody knows", lambda w: w.create("elsewhere:" + w.path("x.img")), EITHER, ["elsewhere"]),
    ("more paths than volumes", lambda w: w.create(w.path("x.img") + "+" + w.path("y.img")), EITHER, ["volume"]),
    ("seventeen images", lambda w: w.create(*[w.path(f"i{n}.img") for n in range(17)]), EITHER, ["16"]),
    ("no image", lambda w: ["mirror", "create", "new", "--size", "1M"], EITHER, ["image"]),
    ("image option without a value", lambda w: ["mirror", "create", "new", "--size", "1M", "--image"], (2,), ["image"]),
]

COMMANDS = [
    ("unknown command", lambda w: ["staus"], (2,), ["staus", "status"]),
    ("unknown mirror command", lambda w: ["mirror", "crate", "x"], (2,), ["crate", "create"]),
    ("unknown option", lambda w: ["mirror", "create", "new", "--siez", "1M"], (2,), ["--siez", "--size"]),
    ("unknown option of the client", lambda w: ["--jsno", "status"], (2,), ["--jsno", "--json"]),
    ("a word too much", lambda w: ["mirror", "activate", "vol0", "vol1"], (2,), ["vol1"]),
    ("a word too few", lambda w: ["mirror", "activate"], (2,), ["name|NAME|mirror"]),
    ("no command after mirror", lambda w: ["mirror"], (2,), ["mirror"]),
    ("setting without a mirror", lambda w: ["mirror", "set"], (2,), ["NAME|name|mirror"]),
    ("unknown setting", lambda w: ["mirror", "set", "vol0", "atuo=on"], EITHER, ["atuo", "auto"]),
    ("unknown setting asked for", lambda w: ["mirror", "get", "vol0", "atuo"], EITHER, ["atuo", "auto"]),
    ("setting out of range", lambda w: ["mirror", "set", "vol0", "marks=3"], EITHER, ["marks", "16"]),
    ("one good and one bad setting", lambda w: ["mirror", "set", "vol0", "max-missing=1", "marks=3"], EITHER,
     ["marks"]),
    ("fixed at creation: region", lambda w: ["mirror", "set", "vol0", "region=1M"], (1, 2), ["region", "creat"]),
    ("fixed at creation: extent", lambda w: ["mirror", "set", "vol0", "extent=8K"], (1, 2), ["extent", "creat"]),
]


def activated(*words):
    def prepare(world):
        world.activate()
        return list(words)
    return prepare


STATES = [
    ("a name that exists", lambda w: w.create(w.path("x.img"), name="vol0"), (1,), ["vol0", "exist|already"]),
    ("activate what is ACTIVE", activated("mirror", "activate", "vol0"), (1,), ["vol0", "ACTIVE"]),
    ("deactivate what is INACTIVE", lambda w: ["mirror", "deactivate", "vol0"], (1,), ["vol0", "INACTIVE"]),
    ("destroy what has two images", lambda w: ["mirror", "destroy", "vol0"], (1,), [r"\bb\b", "remove", "--force"]),
    ("destroy what is ACTIVE", activated("mirror", "destroy", "vol0"), (1,), ["vol0", "ACTIVE|deactivate"]),
    *[(f"{verb} a mirror that is not there", lambda w, verb=verb: ["mirror", verb, "vol1"], (1,),
       ["vol1", "vol0|no mirror"])
      for verb in ("activate", "deactivate", "destroy", "get")],
    ("set a mirror that is not there", lambda w: ["mirror", "set", "vol1", "auto=on"], (1,), ["vol1"]),
    ("status of a mirror that is not there", lambda w: ["status", "vol1"], (1,), ["vol1"]),
]


@rows(SIZES + NAMES)
def test_sizes_and_names(t, row):
    """Issue 2, bad input: a size that is no multiple of 512 or no size; a name that is empty, too long, has odd
    characters."""
    run_row(t, row)


@rows(SETTINGS)
def test_settings(t, row):
    """Issue 2, bad input; B14: settings out of range, unknown ones with the nearest known one named."""
    run_row(t, row)


@rows(IMAGES)
def test_image_words(t, row):
    """Issue 2, bad input: IMAGE as cli.md has it, and nothing else."""
    run_row(t, row)


@rows(COMMANDS)
def test_commands(t, row):
    """Issue 2, bad input: unknown commands and keys, with the nearest known one named."""
    run_row(t, row)


@rows(STATES)
def test_states(t, row):
    """Issue 2, bad input; B8, B15: an operation in the wrong state, a name that exists, a mirror that does not."""
    run_row(t, row)


# ---- programs without a daemon, and the daemon's own words ----

def test_client_without_daemon(t):
    """Cli: the client says what is wrong and what to do when nobody listens, and where it looked."""
    result = t.run(t.program("tarn"), "--state", t.path("nowhere"), "status", status=1)
    check_message(result.err, ["nowhere", "tarnd|daemon"])


def test_client_without_words(t):
    """Cli: usage on standard error, exit status 2; `--help` on standard output, 0."""
    check(t.run(t.program("tarn"), status=2).err.strip(), "no word of usage")
    shown = t.run(t.program("tarn"), "--help").out
    check("mirror create" in shown and "status" in shown, f"--help shows {shown}")
    check("tarn" in t.run(t.program("tarn"), "--version").out, "--version")
    check("--state" in t.run(t.program("tarnd"), "--help").out, "tarnd --help")


DAEMON = [
    ("unknown option", ["--stat", "/x"], ["--stat", "--state"]),
    ("option without its value", ["--state"], ["--state"]),
    ("address without a kind", ["--nbd", "somewhere"], ["somewhere"]),
    ("address with a bad port", ["--nbd", "127.0.0.1:99999"], ["99999"]),
    ("address with a word for a port", ["--nbd", "127.0.0.1:nbd!"], ["nbd!"]),
    ("unclosed bracket", ["--nbd", "[::1:10809"], [r"\[::1"]),
    ("empty socket path", ["--nbd", "unix:"], ["unix:"]),
    ("socket path too long", ["--nbd", "unix:/" + "x" * 200], ["long"]),
    ("odd node name", ["--name", "a b"], ["a b", "name"]),
    ("a word that is no option", ["start"], ["start"]),
]


@rows(DAEMON)
def test_daemon_arguments(t, row):
    """Cli: exit status 2, one line that says which argument and why; nothing is made."""
    state = t.path("state")
    words = row[1] if "--state" in row[1] else ["--state", state, *row[1]]
    result = t.run(t.program("tarnd"), *words, status=2)
    check_message(result.err, row[2])
    check(not os.path.exists(state) or not os.listdir(state), "bad arguments, but the state directory was filled")


def state_is_file(t):
    images.make_sparse(t.path("state"), 0)


def state_has_no_parent(t):
    check(not os.path.exists(t.path("state")), "the state is not there")
    return t.path("nowhere", "deep", "state")


def conf(text):
    def prepare(t):
        os.mkdir(t.path("state"))
        with open(t.path("state", "tarnd.conf"), "w", encoding="utf-8") as file:
            file.write(text)
    return prepare


@rows([("the state directory is a file", state_is_file, (1, 2), ["state", "director|folder"]),
       ("the state directory's place is missing", state_has_no_parent, (1, 2), ["nowhere|state"]),
       ("unknown key in tarnd.conf", conf("nmae = x\n"), (2,), ["nmae", "name", "tarnd.conf"]),
       ("bad value in tarnd.conf", conf("name = a b c\n"), (2,), ["name", "tarnd.conf"]),
       ("no key in tarnd.conf", conf("what is this\n"), (2,), ["tarnd.conf"])])
def test_state_directory(t, row):
    """Cli, issue 2 bad input: a daemon that cannot start says why in one line, and ends."""
    _, prepare, statuses, saying = row
    state = prepare(t) or t.path("state")
    result = t.run(t.program("tarnd"), "--state", state, status=None)
    check(result.status in statuses, f"exit status should be {statuses}: {result}")
    check_message(result.err, saying)


def test_port_in_use(t):
    """Cli: a port that stays in use is tried again for 2 s, then refused with its name."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = t.run(t.program("tarnd"), "--state", t.path("state"), "--nbd", f"127.0.0.1:{port}", status=None)
        check(result.status in EITHER, f"exit status: {result}")
        check(str(port) in result.err, f"the port is not named: {result.err}")
