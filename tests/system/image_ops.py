"""Operations on images: in each state, under load, twice at once, cut off by a crash."""
import json
import os
import pty
import random
import re
import shutil
import signal
import subprocess
import time

from lib import images
from lib.context import check, rows, wait_for
from lib.images import MIB
from lib.load import open_handle
from lib.mirror import SIZE, Mirror, spoil

STATES = [("ACTIVE", True), ("INACTIVE", False)]


def check_line(result, *saying):
    """Refused, with one line that says what and why."""
    check(result.status == 1, f"exit status should be 1: {result}")
    lines = result.err.strip().splitlines()
    check(len(lines) == 1, f"not one line on standard error: {result.err!r}")
    for pattern in saying:
        check(re.search(pattern, lines[0]), f"the message does not say /{pattern}/: {lines[0]!r}")


def settled(mirror, expected):
    """What `status` shows of the mirror's state once no operation is under way."""
    wait_for("the operation to end", lambda: "busy" not in mirror.status())
    state = mirror.status()["state"]
    check(state == expected, f"the mirror is {state}, expected {expected}")


# ---- add ----

@rows([("on disk", "disk"), ("in memory", "tmpfs")])
def test_add_under_load(t, row):
    """B9, B10, B11, B15, C8: an image is added to an ACTIVE mirror; it is copied to while clients read and write, and is
    equal in the end. A file that is missing is made, sparse; the name is the first free letter."""
    mirror = Mirror(t, place=row[1])
    mirror.write(64)
    load = mirror.load(seed=3)
    load.run(0.3)
    mirror.daemon.tarn("image", "add", "vol0", mirror.path("c"))
    load.run(30, until=lambda: (mirror.image("c") or {}).get("state") == "SYNCHRONIZED")
    load.drain()
    load.close()
    mirror.wait_in("c")
    check(mirror.roles() == {"a": "master", "b": "slave", "c": "slave"}, f"roles: {mirror.roles()}")
    check(os.path.getsize(mirror.path("c")) == SIZE, "the new file has another size than the volume")
    mirror.check_content()
    mirror.stop_and_compare("abc")


def test_add_keeps_holes(t):
    """Rule 14: holes are copied as holes: an image of an empty volume takes no space."""
    mirror = Mirror(t)
    mirror.daemon.tarn("image", "add", "vol0", mirror.path("c"), "--wait")
    used = os.stat(mirror.path("c")).st_blocks * 512
    check(used < MIB, f"the copy of an empty volume takes {used} bytes")


def test_add_while_inactive(t):
    """B15: an image that is added while INACTIVE is copied to once the mirror is activated; the mirror is closed again
    after the command."""
    mirror = Mirror(t)
    mirror.write(32)
    mirror.daemon.tarn("mirror", "deactivate", "--wait", "vol0")
    mirror.daemon.tarn("image", "add", "vol0", f"spare={mirror.path('c')}", "--wait")
    settled(mirror, "INACTIVE")
    check(not mirror.image("spare")["missing"], f"it is {mirror.image('spare')}")
    check(not images.is_locked(mirror.path("a")), "INACTIVE, and a file is locked")
    mirror.daemon.tarn("mirror", "activate", "vol0")
    mirror.wait_in("spare")
    mirror.stop_and_compare("abc")


@rows([("equal as was said", True), ("not equal", False)])
def test_assume_synchronized(t, row):
    """B9: an image that the administrator says is equal is SYNCHRONIZED at once and nothing is copied; verify finds out
    if that was not so."""
    mirror = Mirror(t)
    mirror.write(32)
    mirror.daemon.tarn("mirror", "deactivate", "--wait", "vol0")
    shutil.copy(mirror.path("a"), mirror.path("c"))
    if not row[1]:
        spoil(mirror.path("c"))
    before = images.digest(mirror.path("c"))
    mirror.daemon.tarn("image", "add", "vol0", mirror.path("c"), "--assume-synchronized")
    settled(mirror, "INACTIVE")
    check(mirror.image("c")["state"] == "SYNCHRONIZED", f"it is {mirror.image('c')}")
    check(images.digest(mirror.path("c")) == before, "something was copied to it")
    mirror.daemon.tarn("mirror", "activate", "vol0")
    mirror.daemon.tarn("mirror", "verify", "vol0", status=0 if row[1] else 1)


def file_of(mirror, name, size=SIZE):
    return images.make_sparse(mirror.path(name), size)


def another_mirror(mirror):
    mirror.daemon.create("other", [mirror.path("x")], size=MIB, activate=False)
    return mirror.path("x")


ADD = [
    ("a folder that is missing", lambda m: m.path("nowhere/c"), ["nowhere"]),
    ("a device that is missing", lambda m: "/dev/nothing-of-the-kind", ["device"]),
    ("a file that is too small", lambda m: file_of(m, "c", SIZE - 512), [r"c\.img", "small"]),
    ("a file with something in it", lambda m: images.make_random(m.path("c"), SIZE), [r"c\.img", "overwrite"]),
    ("an image's own file", lambda m: "c=" + m.path("b"), [r"b\.img", "belongs to image b"]),
    ("an image's metadata", lambda m: "c=" + m.path("b") + ".tarn,overwrite", ["metadata"]),
    ("a file of another mirror", lambda m: "c=" + another_mirror(m), ["image a of mirror other"]),
    ("a name that is taken", lambda m: "b=" + m.path("c"), ["name 'b'"]),
    ("two files for one volume", lambda m: f"{m.path('c')}+{m.path('d')}", None),
    ("a word that is no image", lambda m: "c", None),
    ("a directory", lambda m: m.folder, ["disks"]),
]


@rows([(f"{why}, {state}", active, prepare, saying) for why, prepare, saying in ADD for state, active in STATES])
def test_add_is_refused(t, row):
    """B15, bad input: what cannot be an image is refused with one line, and nothing is changed or left behind."""
    _, active, prepare, saying = row
    mirror = Mirror(t, activate=active)
    word = prepare(mirror)
    files, before = mirror.files(), mirror.status()
    with open(t.path("state/mirrors/vol0/config.json"), encoding="utf-8") as file:
        config = file.read()
    result = mirror.daemon.tarn("image", "add", "vol0", word, status=None)
    check(result.status == (1 if saying else 2), f"exit status: {result}")
    check(len(result.err.strip().splitlines()) == 1, f"not one line: {result.err!r}")
    for pattern in saying or ():
        check(re.search(pattern, result.err), f"the message does not say /{pattern}/: {result.err!r}")
    check(mirror.files() == files, f"files have come or gone: {mirror.files() ^ files}")
    after = mirror.status()
    check([image["name"] for image in after["images"]] == [image["name"] for image in before["images"]],
          f"refused, but the images are {after['images']}")
    check(after["state"] == before["state"], f"refused, but the mirror is {after['state']}")
    with open(t.path("state/mirrors/vol0/config.json"), encoding="utf-8") as file:
        check(file.read() == config, "refused, but config.json has changed")


def test_add_assuming_needs_an_inactive_mirror(t):
    """B9: only an INACTIVE mirror takes an image as equal; a file that does not exist cannot be equal."""
    mirror = Mirror(t)
    images.make_sparse(mirror.path("c"), SIZE)
    words = ["image", "add", "vol0", mirror.path("c"), "--assume-synchronized"]
    check_line(mirror.daemon.tarn(*words, status=None), "INACTIVE")
    mirror.daemon.tarn("mirror", "deactivate", "--wait", "vol0")
    os.unlink(mirror.path("c"))
    check_line(mirror.daemon.tarn(*words, status=None), r"c\.img", "exist")
    check(mirror.files() == {"a.img", "a.img.tarn", "b.img", "b.img.tarn"}, f"left behind: {mirror.files()}")


def test_sixteen_images_and_no_more(t):
    """A1, B14: a mirror has at most 16 images; a slot that became free is used again."""
    mirror = Mirror(t, count=15, size=MIB)
    mirror.daemon.tarn("image", "add", "vol0", mirror.path("p"), "--wait")
    check_line(mirror.daemon.tarn("image", "add", "vol0", mirror.path("q"), status=None), "16")
    mirror.op("remove", "c", "--wait")
    mirror.daemon.tarn("image", "add", "vol0", mirror.path("q"), "--wait")
    check(mirror.image("c")["disks"] == [mirror.path("q")], "the first free letter is not the name")
    mirror.write(8)
    mirror.daemon.restart()
    mirror.daemon.wait_synchronized("vol0")
    mirror.check_content()


def test_several_volumes(t):
    """B1, B15: images of a mirror with several volumes: added, compared, repaired, fractured, restored, removed; a path
    per volume."""
    mirror = Mirror(t, activate=False, size=MIB)
    daemon = mirror.daemon
    paths = {name: [mirror.path(f"{name}{volume}") for volume in (0, 1)] for name in "abc"}
    daemon.tarn("mirror", "create", "two", "--volume", "data:4M", "--volume", "log:1M", "--image", "+".join(paths["a"]),
                "--image", "+".join(paths["b"]), "--activate")
    for volume, size in (("data", 4 * MIB), ("log", MIB)):
        handle = open_handle(daemon.uri(f"two/{volume}"))
        handle.pwrite(images.random.Random(size).randbytes(256 * 1024), size - 256 * 1024)
        handle.shutdown()
    daemon.tarn("image", "add", "two", "+".join(paths["c"]), "--wait")
    spoil(paths["b"][1], offset=MIB - 4096, length=4096)
    found = json.loads(daemon.tarn("--json", "mirror", "verify", "two", status=1).out)["differences"][0]
    check(found["volume"] == "log" and found["offset"] == MIB - 4096, f"the place is {found}")
    check(found["images"]["a"] == found["images"]["c"] != found["images"]["b"], f"it says {found}")
    daemon.tarn("mirror", "verify", "two", "--repair=c")
    daemon.tarn("image", "fracture", "two", "b")
    daemon.tarn("image", "restore", "two", "b", "--wait")
    daemon.tarn("image", "remove", "two", "c")
    check(all(os.path.exists(path) for path in paths["c"]), "the data of the removed image is gone")
    check(not os.path.exists(paths["c"][0] + ".tarn"), "its metadata is still there")
    daemon.stop()
    for volume, size in ((0, 4 * MIB), (1, MIB)):
        images.check_same([paths[name][volume] for name in "abc"], size)


# ---- remove ----

@rows([("gracefully", ()), ("by force", ("--force",))])
def test_remove_under_load(t, row):
    """B15: a slave is removed on line; its data is left in place, its metadata is not; its file can be used again at
    once. Gracefully removed it holds what was answered until then."""
    mirror = Mirror(t, count=3)
    load = mirror.load(seed=5)
    load.run(0.4)
    mirror.op("remove", "c", *row[1])
    load.run(0.4)
    load.drain()
    load.close()
    check(mirror.image("c") is None, "it is still there")
    wait_for("its metadata to be removed", lambda: "c.img.tarn" not in mirror.files())
    check("c.img" in mirror.files(), "its data is gone")
    check(not images.is_locked(mirror.path("c")), "its file is still locked")
    mirror.daemon.create("other", [mirror.path("c")])
    mirror.check_content()
    mirror.daemon.restart()
    check(mirror.image("c") is None, "it is back after a restart")
    mirror.stop_and_compare("ab")


def test_a_removed_image_holds_what_was_answered(t):
    """B15: graceful: outstanding writes finish first."""
    mirror = Mirror(t, place="tmpfs")
    mirror.write(64, flush=False)
    mirror.op("remove", "b")
    mirror.ledger.check_all(lambda offset, length: images.read_at(mirror.path("b"), offset, length))


@rows(STATES)
def test_remove_and_destroy(t, row):
    """B15: images are removed in either state; the master, also when it is the only one, is not; destroy then works."""
    _, active = row
    mirror = Mirror(t, activate=active)
    check_line(mirror.op("remove", "a", status=None), r"\ba\b", "master")
    mirror.op("remove", "b")
    settled(mirror, "ACTIVE" if active else "INACTIVE")
    check_line(mirror.op("remove", "b", status=None), "'b'")
    check_line(mirror.op("remove", "a", status=None), r"\ba\b", "only", "destroy")
    check(mirror.files() == {"a.img", "a.img.tarn", "b.img"}, f"files: {mirror.files()}")
    if active:
        mirror.daemon.tarn("mirror", "deactivate", "--wait", "vol0")
    mirror.daemon.tarn("mirror", "destroy", "vol0")
    check(mirror.files() == {"a.img", "b.img"}, f"files: {mirror.files()}")


# ---- fracture, restore, sync ----

def test_fracture_and_restore_under_load(t):
    """B9, B15, C6: a fractured image is CONSISTENT and stays as it was at that moment, while what it misses is recorded;
    restore copies only that."""
    mirror = Mirror(t)
    mirror.write(32)
    mirror.op("fracture", "b")
    image = mirror.image("b")
    check(image["state"] == "CONSISTENT" and image["missing"] == "fractured", f"it is {image}")
    check(image["moment"] and image["moment"]["time"], f"its moment is {image['moment']}")
    mirror.ledger.check_all(lambda offset, length: images.read_at(mirror.path("b"), offset, length))
    frozen = images.digest(mirror.path("b"))
    mirror.write(16, seed=2)
    check(images.digest(mirror.path("b")) == frozen, "it is written to although it is fractured")
    mirror.daemon.restart()
    check(images.digest(mirror.path("b")) == frozen, "it is written to by an activation")
    check(mirror.image("b")["state"] == "CONSISTENT", f"after a restart it is {mirror.image('b')['state']}")
    missed = mirror.image("b")["moment"]["bytes_behind"]
    check(0 < missed < SIZE, f"{missed} bytes are missed after 16 small writes")
    load = mirror.load(seed=9)
    load.run(0.2)
    mirror.op("restore", "b")
    load.run(0.5)
    load.drain()
    load.close()
    mirror.wait_in("b")
    mirror.check_content()
    mirror.stop_and_compare("ab")


def test_a_fractured_image_that_was_written_to(t):
    """Thesis 3, rule 13: what was written to an image while it was cut off is noticed: everything is copied to it."""
    mirror = Mirror(t)
    mirror.write(8)
    mirror.op("fracture", "b")
    spoil(mirror.path("b"), offset=SIZE - 4096, length=4096)
    mirror.op("restore", "b", "--wait")
    mirror.stop_and_compare("ab")


def test_restore_copies_only_what_was_missed(t):
    """B16, rule 1: a place that nobody wrote is not copied."""
    mirror = Mirror(t)
    mirror.write(8)
    mirror.op("fracture", "b")
    handle = open_handle(mirror.daemon.uri("vol0"))
    mirror.write_with(handle, 0, 8)
    handle.shutdown()
    before = os.stat(mirror.path("b"))
    spoil(mirror.path("b"), offset=SIZE - 4096, length=4096)
    os.utime(mirror.path("b"), ns=(before.st_atime_ns, before.st_mtime_ns))  # or else it would be noticed
    mirror.op("restore", "b", "--wait")
    check(images.read_at(mirror.path("b"), SIZE - 4096, 4096) == b"\xee" * 4096, "a place that nobody wrote was copied")
    mirror.op("sync", "b", "--wait")
    check(images.read_at(mirror.path("b"), SIZE - 4096, 4096) != b"\xee" * 4096, "a full copy left something out")
    mirror.stop_and_compare("ab")


@rows(STATES)
def test_sync(t, row):
    """B15: a full copy, ACTIVE or INACTIVE: whatever the image held, it is equal in the end. INACTIVE stays INACTIVE."""
    _, active = row
    mirror = Mirror(t)
    mirror.write(32)
    if not active:
        mirror.daemon.tarn("mirror", "deactivate", "--wait", "vol0")
    before = os.stat(mirror.path("b"))
    spoil(mirror.path("b"))
    os.utime(mirror.path("b"), ns=(before.st_atime_ns, before.st_mtime_ns))  # or else it would be noticed
    mirror.op("sync", "b", "--wait")
    settled(mirror, "ACTIVE" if active else "INACTIVE")
    mirror.wait_in("b")
    mirror.stop_and_compare("ab")


def slow_sync(mirror):
    """A sync of image b while INACTIVE that takes long: it is limited to a few extents a second."""
    mirror.op("set", "b", "rate=64K")
    mirror.daemon.tarn("mirror", "deactivate", "--wait", "vol0")
    mirror.op("sync", "b")
    wait_for("the copy to begin", lambda: (mirror.image("b")["sync"] or {}).get("kind") == "full")
    check(mirror.status()["state"] == "INACTIVE", f"the mirror is shown as {mirror.status()['state']}")
    check(mirror.image("b")["state"] == "SYNCHRONIZING", f"image b is {mirror.image('b')['state']}")


@rows([("activated", ("mirror", "activate", "vol0"), "ACTIVE"),
       ("deactivated", ("mirror", "deactivate", "--wait", "vol0"), "INACTIVE"),
       ("destroyed", ("mirror", "destroy", "--force", "vol0"), None),
       ("given another image", ("image", "add", "vol0", "c"), "INACTIVE"),
       ("set", ("mirror", "set", "vol0", "suspend=7"), "INACTIVE"),
       ("promoted another image", ("image", "promote", "--force", "vol0", "b"), "INACTIVE"),
       ("restarted", None, "INACTIVE"), ("killed", (), "INACTIVE")])
def test_anything_may_happen_during_a_quiet_sync(t, row):
    """B15: an INACTIVE mirror that is open for a copy takes every operation; what was copied is not forgotten, and
    nothing unfinished counts as finished."""
    _, words, state = row
    mirror = Mirror(t)
    mirror.write(32)
    slow_sync(mirror)
    if words is None:
        mirror.daemon.restart()
    elif not words:
        mirror.daemon.kill()
        mirror.daemon.start()
    else:
        mirror.daemon.tarn(*[mirror.path("c") if word == "c" else word for word in words], status=None)
    if state is None:
        check(mirror.daemon.json("status")["mirrors"] == [], "it is still there")
        return
    check(mirror.status()["state"] == state, f"it is {mirror.status()['state']}")
    if words and words[1] == "promote":
        return
    check(mirror.image("b")["state"] != "SYNCHRONIZED", "an unfinished copy counts as finished")
    mirror.op("set", "b", "rate=0")
    if mirror.status()["state"] != "ACTIVE":
        mirror.daemon.tarn("mirror", "activate", "vol0")
    mirror.wait_in("b")
    mirror.stop_and_compare("ab")


# ---- promote, demote ----

def test_promote_while_active(t):
    """B15, rule 8: a SYNCHRONIZED image becomes master under load, and stays it over a crash; the old master may then be
    removed."""
    mirror = Mirror(t)
    load = mirror.load(seed=2)
    load.run(0.2)
    mirror.op("promote", "b")
    check(mirror.roles() == {"a": "slave", "b": "master"}, f"roles: {mirror.roles()}")
    load.drain()
    load.close()
    mirror.daemon.kill()
    mirror.daemon.start()
    check(mirror.roles() == {"a": "slave", "b": "master"}, f"roles after a crash: {mirror.roles()}")
    load = mirror.load(seed=3)
    load.run(0.2)
    mirror.op("remove", "a")
    load.run(0.2)
    load.drain()
    load.close()
    mirror.check_content()
    mirror.stop_and_compare("b")


def test_demote_and_promote_while_inactive(t):
    """B15: demote needs INACTIVE; without a master nothing is activated; promote makes one."""
    mirror = Mirror(t)
    mirror.write(16)
    check_line(mirror.op("demote", "a", status=None), "ACTIVE", "deactivate")
    mirror.daemon.tarn("mirror", "deactivate", "--wait", "vol0")
    check_line(mirror.op("demote", "b", status=None), r"\bb\b", "master")
    mirror.op("demote", "a")
    check(set(mirror.roles().values()) == {"slave"}, f"roles: {mirror.roles()}")
    check("promote" in str(mirror.status()["reason"]), f"the reason does not say what to do: {mirror.status()}")
    check_line(mirror.daemon.tarn("mirror", "activate", "vol0", status=None), "master|promote")
    mirror.op("promote", "b")
    check(mirror.roles() == {"a": "slave", "b": "master"}, f"roles: {mirror.roles()}")
    if mirror.status()["state"] != "ACTIVE":
        mirror.daemon.tarn("mirror", "activate", "vol0")
    mirror.check_content()
    mirror.daemon.wait_synchronized("vol0")
    mirror.stop_and_compare("ab")


def test_promote_what_is_behind(t):
    """B15, rule 10: an image that is cut off becomes master by force only; what is lost is said, and the others are
    copied over."""
    mirror = Mirror(t)
    mirror.write(16)
    mirror.op("fracture", "b")
    kept = images.digest(mirror.path("b"))
    mirror.write(16, seed=7)
    check_line(mirror.op("promote", "b", status=None), r"\bb\b", "SYNCHRONIZED")
    mirror.daemon.tarn("mirror", "deactivate", "--wait", "vol0")
    check_line(mirror.op("promote", "b", status=None), "--force", "lost|lose|newest")
    said = mirror.op("promote", "b", "--force")
    check(re.search("lost|copied over|behind", said.err + said.out), f"it does not say what is lost: {said}")
    mirror.daemon.tarn("mirror", "activate", "vol0")
    mirror.daemon.wait_synchronized("vol0")
    mirror.daemon.stop()
    images.check_same([mirror.path("a"), mirror.path("b")], SIZE)
    check(images.digest(mirror.path("a")) == kept, "what was promoted is not what is there now")


# ---- wrong states, wrong names ----

WRONG = [
    ("restore what is SYNCHRONIZED", ("restore", "b"), ["SYNCHRONIZED"]),
    ("fracture the master", ("fracture", "a"), ["master"]),
    ("sync the master", ("sync", "a"), ["master"]),
    ("promote the master", ("promote", "a"), ["master already"]),
    *[(f"{verb} what is not there", (verb, "z"), ["'z'"])
      for verb in ("remove", "sync", "fracture", "restore", "promote", "demote", "get")],
    ("set what is not there", ("set", "z", "hang=3"), ["'z'"]),
]


@rows([(f"{why}, {state}", active, words, saying) for why, words, saying in WRONG for state, active in STATES])
def test_wrong_states(t, row):
    """B9, bad input: an operation that its image's state does not allow, or on an image that is not there: one clear
    line, nothing changed."""
    _, active, words, saying = row
    mirror = Mirror(t, activate=active, size=MIB)
    before = [(image["name"], image["role"], image["state"], image["missing"]) for image in mirror.status()["images"]]
    check_line(mirror.daemon.tarn("image", words[0], "vol0", *words[1:], status=None), *saying)
    settled(mirror, "ACTIVE" if active else "INACTIVE")
    after = [(image["name"], image["role"], image["state"], image["missing"]) for image in mirror.status()["images"]]
    check(before == after, f"refused, but the images are {after}")


@rows([("fracture twice", "fracture", "CONSISTENT"), ("restore what is being copied to", "restore", "SYNCHRONIZING")])
def test_twice_in_a_row(t, row):
    """B9: what is done already is refused, with the state named."""
    _, verb, state = row
    mirror = Mirror(t)
    mirror.write(64)
    mirror.op("set", "b", "rate=64K")
    mirror.op("fracture", "b")
    mirror.write(256, seed=4)
    if verb == "restore":
        mirror.op("restore", "b")
    check_line(mirror.op(verb, "b", status=None), state)


@rows([(verb, verb) for verb in ("remove", "fracture", "sync", "promote")])
def test_twice_at_once(t, row):
    """Two administrators ask for the same at the same moment: one after the other, the second is refused or finds it
    done; the mirror is whole."""
    verb = row[1]
    mirror = Mirror(t, count=3)
    mirror.write(16)
    argv = mirror.daemon.tarn_argv("image", verb, "vol0", "c")
    both = [subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, stdout=subprocess.PIPE) for _ in range(2)]
    ends = [(process.communicate(timeout=120), process.returncode) for process in both]
    statuses = sorted(status for _, status in ends)
    check(statuses in ([0, 0], [0, 1]), f"{verb} twice at once: {ends}")
    mirror.check_content()
    mirror.daemon.wait_state("vol0", "ACTIVE")


def test_every_answer_in_json(t):
    """Cli: `--json` prints one document for every command."""
    mirror = Mirror(t)
    for words in (("image", "add", "vol0", mirror.path("c"), "--wait"), ("image", "fracture", "vol0", "c"),
                  ("image", "restore", "vol0", "c", "--wait"), ("image", "sync", "vol0", "c", "--wait"),
                  ("image", "promote", "vol0", "c"), ("image", "set", "vol0", "c", "hang=20"),
                  ("image", "get", "vol0", "c"), ("image", "get", "vol0", "c", "hang"), ("mirror", "verify", "vol0"),
                  ("fault", "vol0", "a", "delay=1"), ("fault", "vol0", "a", "heal"),
                  ("image", "remove", "vol0", "b", "--wait"), ("mirror", "deactivate", "vol0", "--wait")):
        result = mirror.daemon.tarn("--json", *words)
        check(isinstance(json.loads(result.out), dict), f"no JSON object: {result}")
    refused = mirror.daemon.tarn("--json", "image", "remove", "vol0", "z", status=1)
    check(json.loads(refused.out)["ok"] is False, f"a refusal: {refused.out}")


def on_a_terminal(argv, until=None):
    """Runs a command whose standard output is a terminal; returns its exit status and all that it drew."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(argv, stdout=theirs, stderr=subprocess.PIPE, text=True)
    os.close(theirs)
    drawn = ""
    while True:
        try:
            piece = os.read(ours, 4096).decode(errors="replace")
        except OSError:  # the other end is closed
            break
        drawn += piece
        if until:
            until(drawn)
        if not piece:
            break
    os.close(ours)
    process.communicate(timeout=120)
    return process.returncode, drawn


@rows([("a copy", ("image", "sync", "vol0", "b", "--wait")), ("verify", ("mirror", "verify", "vol0"))])
def test_progress_on_a_terminal(t, row):
    """Cli: long work shows a progress bar on a terminal, and ends with its result on a line of its own."""
    mirror = Mirror(t)
    mirror.write(64)
    mirror.op("set", "b", "rate=256K", "hang=60")
    mirror.fault("b", "delay=400", "--on", "read")

    seen = []

    def go_on(drawn):
        if "%" in drawn and not seen:  # the rest may be quick
            seen.append(drawn)
            mirror.fault("b", "heal")
            mirror.op("set", "b", "rate=0")
    status, drawn = on_a_terminal(mirror.daemon.tarn_argv(*row[1]), go_on)
    check(status == 0, f"exit status {status}: {drawn!r}")
    check(re.search(r"\[[#.]+\] +\d+%", drawn), f"no progress bar: {drawn!r}")
    check(re.search(r"SYNCHRONIZED|agree", drawn.splitlines()[-1]), f"the last line is {drawn.splitlines()[-1]!r}")


def test_a_copy_is_stopped(t):
    """Issue 3: a copy can be given up: fracture stops it, and the image is of no definite moment."""
    mirror = Mirror(t)
    mirror.write(64)
    mirror.op("set", "b", "rate=64K")
    mirror.op("sync", "b")
    mirror.op("fracture", "b")
    image = mirror.image("b")
    check(image["state"] == "UNSYNCHRONIZED" and image["missing"] == "fractured", f"it is {image}")
    mirror.op("set", "b", "rate=0")
    mirror.op("restore", "b", "--wait")
    mirror.stop_and_compare("ab")


# ---- settings ----

def test_settings_of_an_image(t):
    """B14: hang, return, return-after and rate are shown, changed, kept; wrong ones are refused."""
    mirror = Mirror(t, size=MIB)
    shown = mirror.op("get", "b").out
    for key, value in (("hang", "10"), ("return", "auto"), ("return-after", "60"), ("rate", "0")):
        check(re.search(rf"^{key}\s+{value}\b", shown, re.MULTILINE), f"{key} is not shown as {value}: {shown}")
    mirror.op("set", "b", "hang=3", "return=manual", "return-after=5", "rate=2M")
    for bad in ("hang=0", "hang=601", "return=never", "return-after=-1", "rate=fast", "marks=5", "hang"):
        result = mirror.op("set", "b", bad, status=None)
        check(result.status == 2 and len(result.err.strip().splitlines()) == 1, f"{bad}: {result}")
    mirror.daemon.restart()
    for key, value in (("hang", "3"), ("return", "manual"), ("return-after", "5"), ("rate", "2M")):
        check(mirror.op("get", "b", key).out.strip() == value, f"{key} was not kept")
    check(mirror.op("get", "a", "hang").out.strip() == "10", "another image's setting has changed")


@rows([("mirror", ("read=master",), "read", "master"), ("suspend", ("suspend=0",), "suspend", "0"),
       ("limits", ("max-missing=1", "min-images=2"), "max-missing", "1")])
def test_settings_of_a_mirror_while_active(t, row):
    """B14: settings hold at once."""
    _, words, key, value = row
    mirror = Mirror(t)
    mirror.daemon.tarn("mirror", "set", "vol0", *words)
    check(mirror.daemon.tarn("mirror", "get", "vol0", key).out.strip() == value, f"{key} is not {value}")
    if key == "read":
        mirror.write(8)
        before = mirror.image("b")["reads"]
        mirror.check_content()
        check(mirror.image("b")["reads"] == before, "a slave was read although read=master")


# ---- cut off ----

def test_a_client_that_dies_changes_nothing(t):
    """Issue 3: an operation whose client dies is finished, or was never begun."""
    mirror = Mirror(t)
    mirror.write(16)
    for attempt in range(6):
        client = subprocess.Popen(mirror.daemon.tarn_argv("image", "add", "vol0", f"x={mirror.path('x')}"),
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(random.Random(attempt).random() * 0.03)
        client.kill()
        client.wait()
        wait_for("the operation to end", lambda: "busy" not in mirror.status())
        time.sleep(0.05)
        mirror.check_no_strays({"x.img"})
        if mirror.image("x"):
            mirror.wait_in("x")
            mirror.op("remove", "x", "--wait")
        if os.path.exists(mirror.path("x")):
            os.unlink(mirror.path("x"))
    mirror.check_content()


@rows([(f"{verb}, {state}", verb, active) for verb in ("add", "remove") for state, active in STATES])
def test_crash_in_the_middle(t, row):
    """B15, issue 3: SIGKILL at any moment of an add or a remove: afterwards the image is one of the mirror's, or it is
    not, and then nothing of it is left but its data."""
    _, verb, active = row
    mirror = Mirror(t, activate=active, size=4 * MIB)
    if active:
        mirror.write(16)
    seen = set()
    for attempt in range(12):
        present = mirror.image("x") is not None
        if verb == "remove" and not present:
            mirror.daemon.tarn("image", "add", "vol0", f"x={mirror.path('x')},overwrite", "--wait")
        elif verb == "add" and present:
            mirror.op("remove", "x", "--wait")
            os.unlink(mirror.path("x"))
        words = ["add", "vol0", f"x={mirror.path('x')}"] if verb == "add" else ["remove", "vol0", "x"]
        client = subprocess.Popen(mirror.daemon.tarn_argv("image", *words), stdout=subprocess.DEVNULL,
                                  stderr=subprocess.DEVNULL)
        time.sleep(random.Random(attempt).random() * (0.12 if attempt % 2 else 0.04))
        mirror.daemon.kill()
        client.wait()
        mirror.daemon.start()
        if active:
            mirror.daemon.wait_state("vol0", "ACTIVE")
        wait_for("what was interrupted to be cleared up", lambda: "busy" not in mirror.status())
        time.sleep(0.1)
        image = mirror.image("x")
        seen.add(image is not None)
        mirror.check_no_strays({"x.img"} if verb == "remove" else ())
        if active:
            mirror.check_content()
    t.note(f"{verb}: the image was {'there, and was not' if len(seen) == 2 else 'there' if True in seen else 'gone'}")
    if not active:
        mirror.daemon.tarn("mirror", "activate", "vol0")
    if mirror.image("x") and mirror.image("x")["missing"]:  # killed before its metadata was written: that is said, and what to do
        check("restore" in mirror.daemon.tarn("status").out, "it does not say how image x comes back")
        mirror.op("restore", "x", "--wait")
    mirror.daemon.wait_synchronized("vol0")
    mirror.stop_and_compare("ab")


def test_sigterm_during_an_operation(t):
    """Issue 2, item 7; issue 3: SIGTERM in the middle of a copy: exit 0; the copy goes on at the next start."""
    mirror = Mirror(t)
    mirror.write(64)
    mirror.op("set", "b", "rate=64K")
    mirror.op("sync", "b")
    done = wait_for("the copy to begin", lambda: (mirror.image("b")["sync"] or {}).get("done_bytes"))
    client = subprocess.Popen(mirror.daemon.tarn_argv("image", "remove", "vol0", "b"), stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    mirror.daemon.process.send_signal(signal.SIGTERM)
    client.wait()
    check(mirror.daemon.process.wait(120) == 0, "SIGTERM during an operation")
    mirror.daemon.start()
    mirror.daemon.wait_state("vol0", "ACTIVE")
    if mirror.image("b"):
        left = mirror.image("b")["missed_bytes"]
        check(left <= SIZE - done, f"{left} bytes are to be copied, {done} were copied before")
        mirror.op("set", "b", "rate=0")
        mirror.wait_in("b")
    mirror.check_content()
