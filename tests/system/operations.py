"""What clients see when an image is fractured, fails or cannot be read; and operations that are refused. image_ops.py has the
operations themselves."""
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


def is_in(found):
    return found["state"] == "SYNCHRONIZED" and not found["sync"]


def deactivated_equal(daemon, paths):
    daemon.wait_synchronized("vol0")
    daemon.tarn("mirror", "deactivate", "vol0")
    images.check_same(paths, SIZE)


# ---- fracture, restore ----

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
    daemon.tarn("image", "set", "vol0", "b", "hang=2", "return-after=1")
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
    daemon.tarn("image", "set", "vol0", "b", "hang=2", "return=manual")
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
    if words[1] == "deactivate":
        daemon.wait_state("vol0", "INACTIVE")
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
    ("remove the master", active, ("image", "remove", "vol0", "a"), ("master", "promote")),
    ("remove the master by force", active, ("image", "remove", "vol0", "a", "--force"), ("master", "promote")),
    ("demote a slave", inactive, ("image", "demote", "vol0", "b"), ("not the master",)),
    ("promote what is fractured", fractured, ("image", "promote", "vol0", "b"), ("CONSISTENT",)),
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
