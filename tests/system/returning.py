"""Images that fail, hang, or lose their files while clients are at work, and come back."""
import os
import re
import shutil
import signal
import subprocess

from lib import images
from lib.context import check, rows, wait_for
from lib.images import KIB, MIB
from lib.load import open_handle
from lib.mirror import SIZE, Mirror, spoil
from lib.volatile_disk import VolatileDisk, does_hang

SOON = ("hang=2", "return-after=1")
BY_HAND = ("hang=2", "return=manual")


def run_load(mirror, seconds, seed=1, until=None):
    load = mirror.load(seed=seed)
    load.run(seconds, until=until)
    load.drain()
    load.close()


# ---- disks that fail and hang ----

@rows([("writes fail", ("fail", "--on", "write"), 1), ("flushes fail", ("fail", "--on", "flush"), 1),
       ("everything fails", ("fail",), 1), ("writes hang", ("hang", "--on", "write"), 1),
       ("everything hangs", ("hang",), 1), ("reads hang", ("hang", "--on", "read"), 1),
       ("the master's writes fail", ("fail", "--on", "write"), 0), ("the master hangs", ("hang",), 0)])
def test_out_and_back(t, row):
    """Rules 5, 6, 7, 8; B9, C10, A5: an image that fails or hangs is taken out, clients go on without an error; when its
    disk is well again it comes back by itself and is copied to. What a hung disk does late harms nothing."""
    _, fault, index = row
    mirror = Mirror(t, count=3, image_settings=SOON)
    name, other = "ab"[index], "ab"[1 - index]
    load = mirror.load(seed=index + 2)
    load.run(0.3)
    mirror.fault(name, *fault)
    load.run(30, until=lambda: mirror.image(name)["missing"])
    image = mirror.wait_out(name)
    check(image["missing"] == "failed" and image["reason"], f"it is shown as {image}")
    check(mirror.image(other)["state"] == "SYNCHRONIZED", f"the other one is {mirror.image(other)}")
    if index == 0:
        check(mirror.image(name)["role"] == "slave", "the master's disk is lost, and it is master still")
    load.run(0.5)
    check(mirror.image(name)["missed_bytes"] > 0, "nothing is recorded as missed")
    mirror.fault(name, "heal")
    load.run(40, until=lambda: not mirror.image(name)["missing"])
    load.run(0.3)
    load.drain()
    load.close()
    mirror.wait_in(name)
    mirror.check_content()
    mirror.stop_and_compare()


def test_a_hung_write_that_lands_late(t):
    """Rule 7: the writes that a hung disk still holds land after newer data was written to the same places; they are not
    to be seen on any image in the end."""
    mirror = Mirror(t, image_settings=SOON)
    mirror.write(16)
    mirror.fault("b", "hang", "--on", "write")
    load = mirror.load(seed=8)
    load.run(30, until=lambda: mirror.image("b")["missing"])
    held = mirror.wait_out("b")["held_requests"]
    check(held > 0, "the hung disk holds nothing: the test proves nothing")
    load.run(1)  # the same places again
    load.drain()
    check(mirror.image("b")["held_requests"] == held, "what it holds has changed although it is out")
    check(mirror.image("b")["missing"], "it came back while its disk still holds requests")
    mirror.fault("b", "heal")
    load.run(0.5)
    load.drain()
    load.close()
    mirror.wait_in("b")
    mirror.check_content()
    mirror.stop_and_compare()


@rows([("reads are wrong once, repaired from the other", ("fail", "--on", "read"))])
def test_failed_reads_are_served_by_others(t, row):
    """C10: a read that fails is answered by another image; the client sees no error."""
    mirror = Mirror(t, image_settings=BY_HAND)
    mirror.write(64)
    mirror.fault("a", *row[1])
    for _ in range(3):
        mirror.check_content()
    mirror.fault("a", "heal")


def test_a_relapse_waits_longer(t):
    """Cli, `return-after`: after each relapse the quiet time is doubled."""
    mirror = Mirror(t, image_settings=SOON)
    mirror.fault("b", "fail", "--on", "write,flush")
    waits = []
    for seed in range(3):
        mirror.write(4, seed=seed)
        mirror.wait_out("b")
        waits.append(wait_for("a time to be said", lambda: mirror.image("b")["return_in_seconds"]))
        mirror.wait_image("b", "tried again", lambda image: not image["missing"] or image["return_in_seconds"] >
                          waits[-1])
    check(waits[-1] > waits[0] or mirror.image("b")["return_in_seconds"] > waits[0], f"it waited {waits} seconds")


def test_return_manual(t):
    """B14: with return=manual an image waits for the administrator, also when its disk is well; restore brings it
    back."""
    mirror = Mirror(t, image_settings=("return=manual", "return-after=0"))
    mirror.fault("b", "fail")
    mirror.write(8)
    image = mirror.wait_out("b")
    check(image["return_in_seconds"] is None, f"it says that it comes back by itself: {image}")
    refused = mirror.op("restore", "b", status=1)
    check(len(refused.err.strip().splitlines()) == 1, f"not one line: {refused.err!r}")
    mirror.fault("b", "heal")
    run_load(mirror, 2.5, seed=3)  # longer than its quiet time, and a look of the timer
    check(mirror.image("b")["missing"], "it came back by itself")
    mirror.op("restore", "b", "--wait")
    mirror.stop_and_compare()


def test_a_setting_that_is_changed_while_it_is_out(t):
    """B14: return and return-after hold at once."""
    mirror = Mirror(t, image_settings=BY_HAND)
    mirror.fault("b", "fail")
    mirror.write(8)
    mirror.wait_out("b")
    mirror.fault("b", "heal")
    mirror.op("set", "b", "return=auto", "return-after=0")
    mirror.wait_in("b")
    mirror.stop_and_compare()


def test_out_over_a_restart(t):
    """Rule 5: that an image is behind survives SIGKILL and a restart; then it is copied to."""
    mirror = Mirror(t, image_settings=BY_HAND)
    mirror.write(16)
    mirror.fault("b", "fail")
    mirror.write(16, seed=2)
    mirror.wait_out("b")
    mirror.daemon.kill()
    mirror.daemon.start()  # without its faults
    mirror.daemon.wait_state("vol0", "ACTIVE")
    check(mirror.image("b")["missing"], "it came back by itself although return=manual")
    mirror.op("restore", "b", "--wait")
    mirror.check_content()
    mirror.stop_and_compare()


def test_sigterm_with_a_hung_disk(t):
    """Rule 7, issue 3: a disk that never answers does not keep the daemon from ending; the next one waits for its lock
    and copies what was missed."""
    mirror = Mirror(t, image_settings=BY_HAND)
    mirror.fault("b", "hang")
    mirror.write(8)
    check(mirror.wait_out("b")["held_requests"] > 0, "the hung disk holds nothing")
    mirror.daemon.stop()
    mirror.daemon.start()
    mirror.daemon.wait_state("vol0", "ACTIVE")
    mirror.op("restore", "b", "--wait")
    mirror.check_content()
    mirror.stop_and_compare()


def test_deactivate_with_a_hung_disk(t):
    """B8, rule 7: deactivation is answered, naming the disk that still holds requests; before it has answered them the mirror is not
    destroyed, and that image is not opened."""
    mirror = Mirror(t, image_settings=BY_HAND)
    mirror.fault("b", "hang")
    mirror.write(8)
    mirror.wait_out("b")
    said = mirror.daemon.tarn("mirror", "deactivate", "vol0", "--wait")
    check(re.search(r"\bb\b", said.err), f"the disk is not named: {said}")
    status = mirror.status()
    check(status["state"] == "INACTIVE" and re.search(r"image b", str(status["reason"])), f"it is shown as {status}")
    for words in (("mirror", "destroy", "--force", "vol0"), ("image", "sync", "vol0", "b")):
        refused = mirror.daemon.tarn(*words, status=1)
        check(re.search(r"image b", refused.err), f"the disk is not named: {refused.err}")
    mirror.fault("b", "heal")
    wait_for("its files to be closed", lambda: mirror.status()["reason"] is None)
    mirror.daemon.tarn("mirror", "activate", "vol0")
    mirror.op("restore", "b", "--wait")
    mirror.check_content()
    mirror.stop_and_compare()


@rows([("without waiting", ()), ("waiting", ("--wait",))])
def test_a_deactivation_that_takes_long(t, row):
    """Cli: a deactivation whose disk is slow returns when it has begun, and says so; with --wait when it is done."""
    mirror = Mirror(t, image_settings=("hang=60",))
    mirror.write(4, flush=False)
    mirror.fault("b", "delay=6000", "--on", "flush")
    said = mirror.daemon.tarn("mirror", "deactivate", "vol0", *row[1])
    state = mirror.status()["state"]
    check(state == "INACTIVE" if row[1] else "being deactivated" in said.out, f"it said {said}, and is {state}")
    if not row[1]:
        mirror.daemon.wait_state("vol0", "INACTIVE")
    mirror.daemon.tarn("mirror", "activate", "vol0")


def test_remove_what_hangs(t):
    """B15, rule 7: an image whose disk hangs is removed at once; its files are released when it has answered."""
    mirror = Mirror(t, image_settings=BY_HAND)
    mirror.fault("b", "hang")
    mirror.write(8)
    mirror.wait_out("b")
    said = mirror.op("remove", "b")
    check(re.search("released|answered", said.err), f"it does not say what is left: {said}")
    check(images.is_locked(mirror.path("b")), "its files were closed under the disk's feet")
    mirror.write(8, seed=3)
    mirror.fault("b", "heal")
    wait_for("its files to be released", lambda: not images.is_locked(mirror.path("b")))
    wait_for("its metadata to be removed", lambda: "b.img.tarn" not in mirror.files())
    check(mirror.image("b") is None, "it is still there")
    mirror.check_content()


# ---- files that go and come back ----

def lose(mirror, how):
    path, meta = mirror.path("b"), mirror.path("b") + ".tarn"
    if how == "renamed":
        os.rename(path, path + ".away")
    elif how == "metadata renamed":
        os.rename(meta, meta + ".away")
    elif how == "replaced":
        os.unlink(path)
        images.make_sparse(path, SIZE)
    elif how == "metadata removed":
        os.unlink(meta)
    elif how == "made shorter":
        os.truncate(path, SIZE // 2)


def bring_back(mirror):
    for name in (mirror.path("b"), mirror.path("b") + ".tarn"):
        if os.path.exists(name + ".away"):
            os.rename(name + ".away", name)
    if os.path.getsize(mirror.path("b")) < SIZE:
        os.truncate(mirror.path("b"), SIZE)


@rows([("renamed", True), ("metadata renamed", True), ("made shorter", True), ("replaced", False),
       ("metadata removed", False)])
def test_a_file_is_lost_and_back(t, row):
    """Thesis 3, B9: an image whose file is lost leaves, and comes back by itself when the file is back; of one that was
    made shorter everything is copied. What is another file, or has lost its metadata, waits for the administrator."""
    how, by_itself = row
    mirror = Mirror(t, count=3, image_settings=SOON)
    mirror.write(64)
    wait_for("the marks to go", lambda: mirror.status()["marked_regions"] == 0)  # what is marked is copied anyway
    lose(mirror, how)
    image = mirror.wait_out("b")
    check(mirror.path("b") in str(image["reason"]), f"the reason does not name the file: {image['reason']}")
    run_load(mirror, 0.5, seed=4)
    bring_back(mirror)
    if by_itself:
        mirror.wait_in("b")
    else:
        mirror.wait_image("b", "tried, and left alone",
                          lambda image: re.search("restore|another|exist", str(image["reason"])))
        mirror.op("restore", "b", "--wait")
    mirror.check_content()
    mirror.stop_and_compare()


@rows([("a clean stop", "stop"), ("a crash", "kill")])
def test_a_file_that_was_shorter_over_a_restart(t, row):
    """Thesis 3: what a file lost when it was made shorter is copied, though it is as long as before and the daemon was
    restarted meanwhile."""
    mirror = Mirror(t, image_settings=SOON)
    mirror.write(64)
    wait_for("the marks to go", lambda: mirror.status()["marked_regions"] == 0)  # what is marked is copied anyway
    os.truncate(mirror.path("b"), SIZE // 2)
    mirror.wait_out("b")
    getattr(mirror.daemon, row[1])()
    bring_back(mirror)
    mirror.daemon.start()
    mirror.daemon.wait_synchronized("vol0")
    mirror.check_content()
    mirror.stop_and_compare()


@rows([("nothing but zeroes", bytes(64 * KIB)), ("noise", os.urandom(64 * KIB)), ("cut off", None)])
def test_metadata_is_damaged_while_running(t, row):
    """Rules 4, 10: metadata that is damaged under a running mirror does no harm until it is read: then it never counts as
    clean, and its image is copied."""
    _, content = row
    mirror = Mirror(t, image_settings=SOON)
    mirror.write(32)
    if content is None:
        os.truncate(mirror.path("b") + ".tarn", 4096)
        mirror.wait_out("b")
    else:
        with open(mirror.path("b") + ".tarn", "r+b") as file:
            file.write(content)
    mirror.write(32, seed=2)
    mirror.daemon.kill()
    mirror.daemon.start()
    mirror.daemon.wait_state("vol0", "ACTIVE")
    mirror.check_content()
    if mirror.image("b")["missing"]:
        mirror.op("restore", "b", "--wait")
    mirror.daemon.wait_synchronized("vol0")
    mirror.check_content()
    mirror.stop_and_compare()


@rows([("removed", lambda path: os.unlink(path)), ("damaged", lambda path: spoil(path, 0, 64 * KIB)),
       ("damaged, all but the magic", lambda path: spoil(path, 8, MIB)),
       ("not to be told from something else", lambda path: spoil(path, 0, MIB)),
       ("that of another image", lambda path: shutil.copy(path.replace("b.img", "a.img"), path))])
def test_metadata_is_lost_at_start(t, row):
    """Rule 10: an image with unreadable metadata is UNSYNCHRONIZED and never a source; restore copies it in full. Not over a file that
    may be another image's, as its metadata say; and not over metadata that may be a file of somebody else's."""
    name, lose = row
    mirror = Mirror(t, image_settings=SOON)
    mirror.write(32)
    mirror.daemon.stop()
    lose(mirror.path("b") + ".tarn")
    mirror.daemon.start()
    mirror.daemon.wait_state("vol0", "ACTIVE")
    mirror.check_content()
    if name == "that of another image":
        refused = mirror.op("restore", "b", "--wait", status=1)
        check("is the metadata of image a" in refused.err, f"whose metadata it is is not said: {refused.err}")
        os.unlink(mirror.path("b") + ".tarn")
    if name == "not to be told from something else":
        refused = mirror.op("restore", "b", "--wait", status=1)
        check("b.img.tarn holds something other than metadata of Tarn" in refused.err, refused.err)
        mirror.op("sync", "b", "--wait")
    if mirror.image("b")["missing"]:
        mirror.op("restore", "b", "--wait")
    mirror.wait_in("b")
    mirror.check_content()
    mirror.stop_and_compare()


class SlowToOpen:
    """A file at the path of image b whose file system does not answer while this lives."""

    def __init__(self, t):
        self.disk = VolatileDisk(t, "slow", SIZE, kind="fuse")
        self.disk.power_on()

    def replace(self, mirror):
        self.path = mirror.path("b")
        os.rename(self.path, self.path + ".away")
        mirror.wait_out("b")
        self.disk.fuse.send_signal(signal.SIGSTOP)
        wait_for("the kernel to ask the file system again", lambda: does_hang(self.disk.path))
        os.symlink(self.disk.path, self.path)

    def free(self):
        self.disk.fuse.send_signal(signal.SIGCONT)
        os.replace(self.path + ".away", self.path)

    def is_open(self, pid):
        folder = f"/proc/{pid}/fd"
        paths = []
        for name in os.listdir(folder):
            try:
                paths.append(os.readlink(os.path.join(folder, name)))
            except OSError:
                pass
        return os.path.realpath(self.disk.path) in paths


@rows([("deactivated", ("mirror", "deactivate", "--wait", "vol0"), SOON),
       ("deactivated during a restore", ("mirror", "deactivate", "--wait", "vol0"), BY_HAND), ("stopped", None, SOON),
       ("stopped during a restore", None, BY_HAND)])
def test_a_file_that_does_not_open(t, row):
    """Rule 7, issue 3: while an image's file cannot be opened clients are served, the mirror can be closed and the daemon
    ended; what was being opened is closed when it opens in the end."""
    _, words, settings = row
    slow = SlowToOpen(t)  # before the daemon: it has to see what is mounted
    mirror = Mirror(t, image_settings=settings)
    mirror.write(8)
    slow.replace(mirror)
    restore = None
    if settings is BY_HAND:
        restore = subprocess.Popen(mirror.daemon.tarn_argv("image", "restore", "vol0", "b"), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
    mirror.wait_image("b", "being opened", lambda image: image["returning"])
    mirror.write(8, seed=2)
    check(mirror.image("b")["returning"], "the file opened: the test proves nothing")
    if words:
        mirror.daemon.tarn(*words)
        check(mirror.status()["state"] == "INACTIVE", f"it is {mirror.status()['state']}")
    else:
        mirror.daemon.stop()
    if restore:
        check(restore.wait(120) == 1, "a restore that was cut off ended well")
    slow.free()
    if words:
        mirror.daemon.tarn("mirror", "activate", "vol0")
        wait_for("the file that opened too late to be closed", lambda: not slow.is_open(mirror.daemon.pid()))
    else:
        mirror.daemon.start()
        mirror.daemon.wait_state("vol0", "ACTIVE")
    if mirror.image("b")["missing"]:
        mirror.op("restore", "b", "--wait")
    mirror.wait_in("b")
    mirror.check_content()
    mirror.stop_and_compare()


# ---- the command `fault` ----

FAULTS = [
    ("no such fault", ["b", "explode"], 2, ["explode", "heal"]),
    ("a delay of nothing", ["b", "delay=0"], 2, ["delay=0"]),
    ("a delay that is no number", ["b", "delay=long"], 2, ["delay"]),
    ("a range that is none", ["b", "fail", "--range", "5"], 2, ["OFFSET"]),
    ("a range without a length", ["b", "fail", "--range", "1M+"], 2, ["OFFSET"]),
    ("on something else", ["b", "fail", "--on", "read,trim"], 2, ["trim", "flush"]),
    ("healing a range", ["b", "heal", "--range", "0+4096"], 2, ["heal"]),
    ("no such image", ["z", "fail"], 1, ["'z'"]),
]


@rows(FAULTS)
def test_fault_words(t, row):
    """Bad input: `tarn fault` with each mistake: one line, nothing injected."""
    _, words, status, saying = row
    mirror = Mirror(t, size=MIB)
    result = mirror.daemon.tarn("fault", "vol0", *words, status=status)
    check(len(result.err.strip().splitlines()) == 1, f"not one line: {result.err!r}")
    for pattern in saying:
        check(re.search(pattern, result.err), f"the message does not say /{pattern}/: {result.err!r}")
    check(all(image["faults"] == [] for image in mirror.status()["images"]), "something was injected")


def test_faults_need_a_switch(t):
    """Cli: without --enable-faults a fault is refused, and says what would be needed."""
    mirror = Mirror(t, size=MIB)
    mirror.daemon.stop()
    mirror.daemon.arguments = []
    mirror.daemon.start()
    result = mirror.daemon.tarn("fault", "vol0", "b", "fail", status=1)
    check("--enable-faults" in result.err, f"it does not name the switch: {result.err}")
    mirror.daemon.wait_state("vol0", "ACTIVE")
    mirror.write(4)
    check(not mirror.image("b")["missing"], "it failed all the same")


def test_faults_are_not_stored(t):
    """Cli: faults end with the daemon."""
    mirror = Mirror(t, image_settings=BY_HAND)
    mirror.fault("b", "fail")
    mirror.daemon.kill()
    mirror.daemon.start()
    mirror.daemon.wait_state("vol0", "ACTIVE")
    mirror.write(4)
    check(mirror.image("b")["state"] == "SYNCHRONIZED", f"it is {mirror.image('b')}")


def test_a_delay_only_delays(t):
    """Cli: `delay=MS` makes I/Os late, and nothing else."""
    mirror = Mirror(t, image_settings=("hang=10",))
    mirror.fault("b", "delay=50")
    handle = open_handle(mirror.daemon.uri("vol0"))
    for sector in range(0, 64, 8):
        mirror.write_with(handle, sector, 8)
    handle.shutdown()
    check(mirror.image("b")["state"] == "SYNCHRONIZED", f"it is {mirror.image('b')}")
    mirror.check_content()
    mirror.stop_and_compare()
