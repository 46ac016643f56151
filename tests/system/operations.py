"""Operations on images: each as an administrator would use it, and each in the states where it is refused."""
import os
import threading

from lib import images
from lib.context import check, rows, wait_for
from lib.daemon import Daemon
from lib.images import KIB, MIB
from lib.load import open_handle

SIZE = 16 * MIB
BLOCK = 4096


def new_mirror(t, names="ab", arguments=(), settings=(), activate=True):
    paths = [t.path(f"{name}.img") for name in names]
    daemon = Daemon(t, arguments=arguments).start()
    daemon.create("vol0", paths, size=SIZE, settings=settings, activate=activate)
    return daemon, paths


def write(daemon, offset, byte, length=BLOCK):
    handle = open_handle(daemon.uri("vol0"))
    handle.pwrite(byte * length, offset)
    handle.flush()
    handle.shutdown()


def check_there(daemon, offset, byte, length=BLOCK):
    handle = open_handle(daemon.uri("vol0"))
    check(handle.pread(length, offset) == byte * length, f"{byte} is not what is read at {offset}")
    handle.shutdown()


def image(daemon, name):
    for found in daemon.mirror("vol0")["images"]:
        if found["name"] == name:
            return found
    return None


def wait_image(daemon, name, what, reached, seconds=30):
    last = {}

    def look():
        last.update(image(daemon, name) or {})
        return reached(last)
    wait_for(f"image {name} {what}; it is {last}", look, seconds)
    return last


def is_in(found):
    return found["state"] == "SYNCHRONIZED" and not found["sync"]


def deactivated_equal(daemon, paths):
    daemon.wait_synchronized("vol0")
    daemon.tarn("mirror", "deactivate", "vol0")
    images.check_same(paths, SIZE)


# ---- fracture, restore ----

def test_fracture_and_restore(t):
    """B9, B15, B16: a fractured image keeps its moment, whatever is written; restored, it gets only what it missed."""
    daemon, paths = new_mirror(t)
    write(daemon, 0, b"a", 256 * KIB)
    daemon.tarn("image", "fracture", "vol0", "b")
    found = image(daemon, "b")
    check(found["state"] == "CONSISTENT" and found["missing"] == "fractured", f"image b is {found}")
    moment = images.digest(paths[1])
    write(daemon, 0, b"b", 64 * KIB)
    write(daemon, 8 * MIB, b"c")
    check(images.digest(paths[1]) == moment, "a fractured image was written to")
    found = image(daemon, "b")
    check(0 < found["missed_bytes"] <= 256 * KIB, f"{found['missed_bytes']} bytes are recorded as missed")
    daemon.restart()
    found = image(daemon, "b")
    check(found["state"] == "CONSISTENT", f"after a restart image b is {found}")
    check(images.digest(paths[1]) == moment, "a fractured image was copied to by an activation")
    writes = image(daemon, "b")["writes"]
    daemon.tarn("image", "restore", "vol0", "b", "--wait")
    check(is_in(image(daemon, "b")), f"restore --wait ended and image b is {image(daemon, 'b')}")
    check(image(daemon, "b")["writes"] - writes < 64, "more was copied than what was missed")
    deactivated_equal(daemon, paths)


def test_fracture_under_load(t):
    """B9, B15: the moment of a fracture is whole: all that was answered before it, nothing after it."""
    daemon, paths = new_mirror(t)
    handle = open_handle(daemon.uri("vol0"))
    stop, numbers = threading.Event(), [0]

    def load():
        while not stop.is_set():
            number = numbers[0] + 1
            for block in range(4):
                handle.pwrite(number.to_bytes(8, "big") * (BLOCK // 8), block * 1 * MIB)
            numbers[0] = number
    thread = threading.Thread(target=load)
    thread.start()
    wait_for("the load to write", lambda: numbers[0] > 20)
    before = numbers[0]
    daemon.tarn("image", "fracture", "vol0", "b")
    after = numbers[0] + 1
    wait_for("the load to go on", lambda: numbers[0] > after + 20)
    stop.set()
    thread.join()
    handle.shutdown()
    daemon.tarn("mirror", "deactivate", "vol0")
    seen = [int.from_bytes(images.read_at(paths[1], block * MIB, 8), "big") for block in range(4)]
    check(all(before <= number <= after for number in seen), f"b holds {seen}, fractured between {before} and {after}")
    check(seen == sorted(seen, reverse=True) and seen[0] - seen[3] <= 1, f"blocks of different moments: {seen}")


def test_written_to_while_fractured(t):
    """Rule 9, thesis 3: who writes to a fractured image is noticed: it is copied in full."""
    daemon, paths = new_mirror(t)
    write(daemon, 0, b"a")
    daemon.tarn("image", "fracture", "vol0", "b")
    with open(paths[1], "r+b") as file:
        file.seek(5 * MIB)
        file.write(b"not ours" * 512)
    daemon.tarn("image", "restore", "vol0", "b", "--wait")
    deactivated_equal(daemon, paths)


# ---- sync, verify ----

def spoil(path, offset, length=BLOCK):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(b"\xee" * length)
        file.flush()
        os.fsync(file.fileno())


def test_sync(t):
    """B15: a full copy to an image that is doubted, though nothing is known to be missed."""
    daemon, paths = new_mirror(t)
    write(daemon, 0, b"a", 1 * MIB)
    spoil(paths[1], 3 * MIB)
    daemon.tarn("image", "sync", "vol0", "b", "--wait")
    check(is_in(image(daemon, "b")), f"sync --wait ended and image b is {image(daemon, 'b')}")
    deactivated_equal(daemon, paths)


def test_sync_while_inactive(t):
    """B15: synchronise ACTIVE or INACTIVE: opened for the copy, shown as INACTIVE, closed after it."""
    daemon, paths = new_mirror(t)
    write(daemon, 0, b"a", 1 * MIB)
    spoil(paths[1], 3 * MIB)
    daemon.tarn("mirror", "deactivate", "vol0")
    daemon.tarn("image", "sync", "vol0", "b", "--wait")
    check(daemon.mirror("vol0")["state"] == "INACTIVE", "it is not INACTIVE after the copy")
    wait_for("its files to be closed", lambda: not images.is_locked(paths[0]))
    images.check_same(paths, SIZE)


def test_verify(t):
    """Rule 15, C10: verify names the places that differ, and who agrees; repairs from the image that it is told, and only
    then."""
    daemon, paths = new_mirror(t, "abc")
    write(daemon, 0, b"a", 1 * MIB)
    daemon.tarn("mirror", "verify", "vol0")
    spoil(paths[1], 3 * MIB)
    spoil(paths[2], 5 * MIB)
    before = [images.digest(path) for path in paths]
    found = daemon.tarn("mirror", "verify", "vol0", status=1)
    check("b" in found.out + found.err and "c" in found.out + found.err, f"verify said: {found}")
    check([images.digest(path) for path in paths] == before, "verify changed something")
    document = daemon.tarn("--json", "mirror", "verify", "vol0", status=1).out
    check('"differences"' in document, f"no list of differences: {document}")
    daemon.tarn("mirror", "verify", "vol0", "--repair=a", status=None)
    daemon.tarn("mirror", "verify", "vol0")
    deactivated_equal(daemon, paths)
    check(images.digest(paths[0]) == before[0], "the image to repair from was changed")


def test_verify_under_load(t):
    """Rule 15: what is reported is true: writes in flight are no difference."""
    daemon, paths = new_mirror(t)
    write(daemon, 0, b"a", 8 * MIB)
    stop, threads = threading.Event(), []

    def load(number):
        handle = open_handle(daemon.uri("vol0"))
        while not stop.is_set():
            for offset in range(number * 512, 8 * MIB, 257 * 512):
                handle.pwrite(bytes([offset % 251]) * 3000, offset)
        handle.shutdown()
    for number in range(4):
        threads.append(threading.Thread(target=load, args=(number,)))
        threads[-1].start()
    for _ in range(3):
        daemon.tarn("mirror", "verify", "vol0")
    stop.set()
    for thread in threads:
        thread.join()
    deactivated_equal(daemon, paths)


# ---- add, remove ----

def test_add_while_active(t):
    """B9, B15: an image is added on line, copied to while clients write, and then is one like the others."""
    daemon, paths = new_mirror(t)
    write(daemon, 0, b"a", 1 * MIB)
    paths.append(t.path("c.img"))
    daemon.tarn("image", "add", "vol0", paths[2])
    for number in range(20):
        write(daemon, number * 700 * KIB, bytes([number]))
    daemon.wait_synchronized("vol0")
    check(image(daemon, "c")["role"] == "slave", "the new image is not a slave")
    daemon.kill()
    daemon.start()
    deactivated_equal(daemon, paths)


def test_add_while_inactive(t):
    """B9, B15: added while INACTIVE, copied to when ACTIVE; or, by the administrator's word, equal at once."""
    daemon, paths = new_mirror(t)
    write(daemon, 0, b"a", 1 * MIB)
    daemon.tarn("mirror", "deactivate", "vol0")
    paths += [t.path("c.img"), t.path("d.img")]
    daemon.tarn("image", "add", "vol0", paths[2])
    with open(paths[0], "rb") as source, open(paths[3], "wb") as target:
        target.write(source.read())
    daemon.tarn("image", "add", "vol0", paths[3], "--assume-synchronized")
    check(image(daemon, "d")["state"] == "SYNCHRONIZED", f"assumed, it is {image(daemon, 'd')}")
    daemon.tarn("mirror", "activate", "vol0")
    deactivated_equal(daemon, paths)


def test_remove(t):
    """B15: a slave is removed on line: its data is left, whole, its metadata and its lock are gone, the name is free."""
    daemon, paths = new_mirror(t, "abc")
    write(daemon, 0, b"a", 1 * MIB)
    daemon.tarn("image", "remove", "vol0", "c", "--wait")
    check(image(daemon, "c") is None, "it is still listed")
    images.check_same(paths, SIZE)
    moment = images.digest(paths[2])
    check(not os.path.exists(paths[2] + ".tarn"), "its metadata is left")
    check(not images.is_locked(paths[2]), "its file is still locked")
    write(daemon, 0, b"b")
    check(images.digest(paths[2]) == moment, "a removed image was written to")
    daemon.restart()
    check(image(daemon, "c") is None, "it is back after a restart")
    daemon.tarn("image", "add", "vol0", f"c={paths[2]},overwrite", "--wait")
    deactivated_equal(daemon, paths)


# ---- master ----

def test_promote_while_active(t):
    """B15: another image becomes master under load, and stays it over a crash."""
    daemon, paths = new_mirror(t)
    write(daemon, 0, b"a")
    daemon.tarn("image", "promote", "vol0", "b")
    check(image(daemon, "b")["role"] == "master" and image(daemon, "a")["role"] == "slave", "b is not the master")
    write(daemon, 1 * MIB, b"b")
    daemon.kill()
    daemon.start()
    check(image(daemon, "b")["role"] == "master", "b is not the master after a crash")
    check_there(daemon, 1 * MIB, b"b")
    daemon.tarn("image", "remove", "vol0", "a", "--wait")  # the old master is an image like any other
    check_there(daemon, 0, b"a")


def test_demote(t):
    """B15: demoted only while INACTIVE; then there is no master, and no activation before one is promoted."""
    daemon, paths = new_mirror(t)
    write(daemon, 0, b"a")
    refused = daemon.tarn("image", "demote", "vol0", "a", status=1)
    check("INACTIVE" in refused.err, f"{refused}")
    daemon.tarn("mirror", "deactivate", "vol0")
    daemon.tarn("image", "demote", "vol0", "a")
    refused = daemon.tarn("mirror", "activate", "vol0", status=1)
    check("master" in refused.err and "promote" in refused.err, f"{refused}")
    daemon.tarn("image", "promote", "vol0", "b")
    daemon.tarn("mirror", "activate", "vol0")
    check(image(daemon, "b")["role"] == "master", "b is not the master")
    check_there(daemon, 0, b"a")
    deactivated_equal(daemon, paths)


def test_promote_an_older_moment(t):
    """B15: an image that has not the newest data becomes master by force only, which says what is lost; the others are
    copied over."""
    daemon, paths = new_mirror(t)
    write(daemon, 0, b"a", 64 * KIB)
    daemon.tarn("image", "fracture", "vol0", "b")
    write(daemon, 0, b"b", 64 * KIB)
    daemon.tarn("mirror", "deactivate", "vol0")
    refused = daemon.tarn("image", "promote", "vol0", "b", status=1)
    check("lost" in refused.err and "--force" in refused.err, f"{refused}")
    daemon.tarn("image", "promote", "vol0", "b", "--force")
    daemon.tarn("mirror", "activate", "vol0")
    check_there(daemon, 0, b"a", 64 * KIB)
    daemon.wait_synchronized("vol0")
    deactivated_equal(daemon, paths)


# ---- disks that fail ----

FAULTS = ("--enable-faults",)


@rows([
    ("a write fails", ("fail", "--on", "write")),
    ("a flush fails", ("fail", "--on", "flush")),
    ("it hangs", ("hang",)),
])
def test_an_image_leaves_and_comes_back(t, row):
    """Rules 5, 6, 7; B9, C10, A5: an image that fails, or hangs, is out before the write is answered; clients notice nothing;
    it comes back by itself after a quiet time, and gets what it missed."""
    what, fault = row
    daemon, paths = new_mirror(t, arguments=FAULTS)
    daemon.tarn("image", "set", "vol0", "b", "hang=1", "return-after=1")
    write(daemon, 0, b"a", 1 * MIB)
    daemon.tarn("fault", "vol0", "b", *fault)
    write(daemon, 0, b"b", 1 * MIB)
    found = image(daemon, "b")
    check(found["state"] == "UNSYNCHRONIZED" and found["missing"] == "failed" and found["reason"],
          f"{what}, and image b is {found}")
    check_there(daemon, 0, b"b", 1 * MIB)
    daemon.tarn("fault", "vol0", "b", "heal")
    daemon.wait_synchronized("vol0")
    deactivated_equal(daemon, paths)


@rows([
    ("deactivate", ("mirror", "deactivate", "vol0")),
    ("remove", ("image", "remove", "vol0", "b")),
    ("remove by force", ("image", "remove", "vol0", "b", "--force")),
    ("fracture", ("image", "fracture", "vol0", "b")),
])
def test_operations_while_a_disk_hangs(t, row):
    """Rule 7, issue 3 bad input: an operation ends although a disk hangs; what the disk still holds harms nobody when it is
    answered at last, and then everything works again."""
    _, words = row
    daemon, paths = new_mirror(t, arguments=FAULTS)
    daemon.tarn("image", "set", "vol0", "b", "hang=1", "return=manual")
    write(daemon, 0, b"a", 1 * MIB)
    daemon.tarn("fault", "vol0", "b", "hang")
    ended = []

    def client():
        write(daemon, 0, b"b", 1 * MIB)
        ended.append(True)
    thread = threading.Thread(target=client)
    thread.start()
    daemon.tarn(*words, *(["--force"] if words[1] == "deactivate" else []), status=None)
    thread.join(30)
    daemon.check_alive()
    daemon.tarn("fault", "vol0", "b", "heal", status=None)
    if daemon.mirror("vol0")["state"] != "ACTIVE":
        wait_for("the mirror to be activated", lambda: daemon.tarn("mirror", "activate", "vol0", status=None).status == 0)
    check(ended or words[1] == "deactivate", "a write was not answered")
    write(daemon, 0, b"c", 1 * MIB)
    check_there(daemon, 0, b"c", 1 * MIB)
    if image(daemon, "b") is None:
        check(images.read_at(paths[0], 0, 1 * MIB) == b"c" * MIB, "image a has not what was written")
        return
    if not is_in(image(daemon, "b")):
        wait_for("image b to be restored", lambda: daemon.tarn("image", "restore", "vol0", "b", status=None).status == 0)
    deactivated_equal(daemon, paths)


def test_return_manual(t):
    """B14: recovery policy: with return=manual an image that failed waits for `restore`, over a restart too."""
    daemon, paths = new_mirror(t, arguments=FAULTS)
    daemon.tarn("image", "set", "vol0", "b", "return=manual", "return-after=0")
    daemon.tarn("fault", "vol0", "b", "fail", "--on", "write")
    write(daemon, 0, b"a")
    daemon.tarn("fault", "vol0", "b", "heal")
    daemon.restart()
    check(image(daemon, "b")["state"] == "UNSYNCHRONIZED", f"it came back by itself: {image(daemon, 'b')}")
    daemon.tarn("image", "restore", "vol0", "b", "--wait")
    deactivated_equal(daemon, paths)


def test_read_repair(t):
    """C10: what one image could not read is served by the other, and written to the first again."""
    daemon, paths = new_mirror(t, arguments=FAULTS)
    write(daemon, 0, b"a", 1 * MIB)
    daemon.tarn("fault", "vol0", "b", "fail", "--on", "read", "--range", "64K+64K")
    handle = open_handle(daemon.uri("vol0"))

    def repaired():
        for offset in range(0, 1 * MIB, 64 * KIB):
            check(handle.pread(64 * KIB, offset) == b"a" * 64 * KIB, "a read is wrong")
        return image(daemon, "b")["repaired_blocks"] > 0
    wait_for("a repaired block", repaired)
    handle.shutdown()
    found = image(daemon, "b")
    check(found["state"] == "SYNCHRONIZED" and found["read_errors"] > 0, f"image b is {found}")


def test_a_block_that_nobody_can_read(t):
    """Rule 12: a block that no image can read is left behind by a copy, counted, and healed by the next write."""
    daemon, paths = new_mirror(t, "a", arguments=FAULTS)
    write(daemon, 0, b"a", 1 * MIB)
    daemon.tarn("fault", "vol0", "a", "fail", "--on", "read", "--range", "128K+4K")
    paths.append(t.path("b.img"))
    daemon.tarn("image", "add", "vol0", paths[1])
    daemon.wait_synchronized("vol0")
    check(image(daemon, "a")["unreadable_bytes"] == 4 * KIB, f"image a is {image(daemon, 'a')}")
    daemon.tarn("fault", "vol0", "a", "heal")
    handle = open_handle(daemon.uri("vol0"))
    try:
        handle.pread(BLOCK, 128 * KIB)
        check(False, "what was left behind is read")
    except Exception as error:  # pylint: disable=broad-except
        check("what was left behind" not in str(error), str(error))
    handle.shutdown()
    check_there(daemon, 0, b"a", 128 * KIB)
    check_there(daemon, 132 * KIB, b"a", 64 * KIB)
    write(daemon, 128 * KIB, b"b")
    check_there(daemon, 128 * KIB, b"b")
    check(image(daemon, "a")["unreadable_bytes"] == 0, f"image a is {image(daemon, 'a')}")
    deactivated_equal(daemon, paths)


# ---- ATTENTION ----

def test_suspend(t):
    """B8, rule 6: the last good image hangs: ATTENTION, and a client's request waits at the gate until the disk is well
    again; then it is done."""
    daemon, paths = new_mirror(t, "a", arguments=FAULTS)
    daemon.tarn("image", "set", "vol0", "a", "hang=1")
    write(daemon, 0, b"a")
    daemon.tarn("fault", "vol0", "a", "hang")
    ended = []

    def client():
        write(daemon, 0, b"b")
        ended.append(True)
    thread = threading.Thread(target=client)
    thread.start()
    daemon.wait_state("vol0", "ATTENTION")
    check("hang" in daemon.mirror("vol0")["reason"] or "answer" in daemon.mirror("vol0")["reason"],
          f"the reason is {daemon.mirror('vol0')['reason']}")
    check(not ended, "a request was answered in ATTENTION")
    daemon.tarn("fault", "vol0", "a", "heal")
    daemon.wait_state("vol0", "ACTIVE")
    thread.join(30)
    check(ended, "the request was not answered when the mirror was ACTIVE again")
    check_there(daemon, 0, b"b")


def test_suspend_is_over(t):
    """B8, B14: `suspend=0`: in ATTENTION a client's request fails at once."""
    daemon, paths = new_mirror(t, "a", arguments=FAULTS, settings=("suspend=0",))
    daemon.tarn("image", "set", "vol0", "a", "hang=1")
    handle = open_handle(daemon.uri("vol0"))
    daemon.tarn("fault", "vol0", "a", "hang")
    try:
        handle.pwrite(b"x" * BLOCK, 0)
        answer = "success"
    except Exception as error:  # pylint: disable=broad-except
        answer = str(error)
    check("success" not in answer, "a write was answered though its only disk hangs")
    daemon.wait_state("vol0", "ATTENTION")
    daemon.tarn("fault", "vol0", "a", "heal")
    daemon.wait_state("vol0", "ACTIVE")


def test_max_missing(t):
    """B8, B14: with max-missing 0 the mirror falls to ATTENTION when an image fails, and is ACTIVE again when it may."""
    daemon, paths = new_mirror(t, arguments=FAULTS, settings=("max-missing=0", "suspend=0"))
    daemon.tarn("fault", "vol0", "b", "fail", "--on", "write")
    handle = open_handle(daemon.uri("vol0"))
    try:
        handle.pwrite(b"x" * BLOCK, 0)
    except Exception:  # pylint: disable=broad-except
        pass
    handle = None  # it hangs up
    found = daemon.wait_state("vol0", "ATTENTION")
    check("max-missing" in found["reason"], f"the reason is {found['reason']}")
    daemon.tarn("fault", "vol0", "b", "heal")
    daemon.tarn("mirror", "set", "vol0", "max-missing=1")
    daemon.wait_state("vol0", "ACTIVE")
    daemon.wait_synchronized("vol0")
    deactivated_equal(daemon, paths)


def test_read_policy(t):
    """B12: read=master sends all reads to the master; nearest (the default) uses both."""
    daemon, paths = new_mirror(t)
    write(daemon, 0, b"a", 1 * MIB)
    handle = open_handle(daemon.uri("vol0"))

    def reads():
        before = image(daemon, "b")["reads"]
        for number in range(64):
            handle.pread(BLOCK, number * BLOCK)
        return image(daemon, "b")["reads"] - before
    check(reads() > 0, "the slave serves no reads")
    daemon.tarn("mirror", "set", "vol0", "read=master")
    check(reads() == 0, "the slave serves reads though read=master")
    handle.shutdown()


# ---- refusals ----

def active(daemon):
    return daemon


def fractured(daemon):
    daemon.tarn("image", "fracture", "vol0", "b")


def inactive(daemon):
    daemon.tarn("mirror", "deactivate", "vol0")


@rows([
    ("fracture the master", active, ("image", "fracture", "vol0", "a"), ("master", "promote")),
    ("remove the master", active, ("image", "remove", "vol0", "a"), ("master", "promote")),
    ("remove the master by force", active, ("image", "remove", "vol0", "a", "--force"), ("master", "promote")),
    ("sync the master", active, ("image", "sync", "vol0", "a"), ("master", "promote")),
    ("promote the master", active, ("image", "promote", "vol0", "a"), ("master already",)),
    ("restore what is in", active, ("image", "restore", "vol0", "b"), ("SYNCHRONIZED", "sync")),
    ("demote while ACTIVE", active, ("image", "demote", "vol0", "a"), ("INACTIVE", "deactivate")),
    ("demote a slave", inactive, ("image", "demote", "vol0", "b"), ("not the master",)),
    ("fracture twice", fractured, ("image", "fracture", "vol0", "b"), ("CONSISTENT", "restore")),
    ("promote what is fractured", fractured, ("image", "promote", "vol0", "b"), ("CONSISTENT",)),
    ("an image that is not there", active, ("image", "sync", "vol0", "z"), ("z",)),
    ("a mirror that is not there", active, ("image", "sync", "vol9", "b"), ("vol9",)),
    ("assume while ACTIVE", active, ("image", "add", "vol0", "PATH", "--assume-synchronized"), ("INACTIVE",)),
    ("verify while INACTIVE", inactive, ("mirror", "verify", "vol0"), ("not ACTIVE", "activate")),
    ("repair from an image that is not there", active, ("mirror", "verify", "vol0", "--repair=z"), ("z",)),
    ("repair from what is fractured", fractured, ("mirror", "verify", "vol0", "--repair=b"), ("CONSISTENT",)),
    ("faults that are not enabled", active, ("fault", "vol0", "b", "hang"), ("--enable-faults",)),
])
def test_refused(t, row):
    """B9, B15, issue 3 bad input: every operation in the wrong state, or on what does not exist: one line that says what is
    and what to do, and nothing is changed."""
    what, prepare, words, said = row
    daemon, paths = new_mirror(t)
    write(daemon, 0, b"a")
    prepare(daemon)
    before = [(found["name"], found["role"], found["state"]) for found in daemon.mirror("vol0")["images"]]
    state = daemon.mirror("vol0")["state"]
    answer = daemon.tarn(*[t.path("new.img") if word == "PATH" else word for word in words], status=1)
    check(answer.err.count("\n") == 1, f"not one line: {answer.err!r}")
    for part in said:
        check(part in answer.err, f"{what}: {part!r} is not in {answer.err!r}")
    found = daemon.mirror("vol0")
    check(found["state"] == state, f"the mirror is {found['state']} now")
    after = [(one["name"], one["role"], one["state"]) for one in found["images"]]
    check(after == before, f"the images are {after}, before {before}")
    check(not os.path.exists(t.path("new.img")), "a file was made")
