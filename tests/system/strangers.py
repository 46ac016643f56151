"""Rule 16: disks that are not what the metadata tells of. They changed places, or the state directory with all metadata of devices
went back to an earlier state, while the daemon was down."""
import os
import shutil

from lib import images
from lib.context import check, limit, rows
from lib.daemon import Daemon
from lib.disks import loop_device
from lib.images import MIB
from lib.load import open_handle

SIZE = 16 * MIB


def write(daemon, offset, word):
    handle = open_handle(daemon.uri("vol0"))
    handle.pwrite(word * 1024, offset)
    handle.flush()
    handle.shutdown()


def read(daemon, offset, length):
    handle = open_handle(daemon.uri("vol0"))
    data = handle.pread(length, offset)
    handle.shutdown()
    return data


def make_b_old(daemon):
    """What is written after this only image a has."""
    write(daemon, 0, b"old ")
    daemon.tarn("image", "fracture", "vol0", "b")
    write(daemon, 0, b"new ")
    write(daemon, 5 * MIB, b"more")


def check_refused(daemon, *words):
    """It waits for an administrator, and says why."""
    daemon.wait_state("vol0", "ATTENTION")
    refused = daemon.tarn("mirror", "activate", "vol0", status=1)
    for word in words:
        check(word in refused.err, f"it does not say '{word}': {refused.err}")


def exchange_devices(t, first, second, files):
    """They hold each other's bytes from now on, and nothing that the kernel knows of them tells so."""
    for device in (first, second):
        t.run("losetup", "--detach", device)
    contents = [images.read_at(path, 0, SIZE) for path in files]
    for path, content in zip(files, reversed(contents)):
        with open(path, "r+b") as file:
            file.write(content)
    t.run("losetup", first, files[0])
    t.run("losetup", second, files[1])


def exchange_files(first, second):
    os.rename(first, first + ".x")
    os.rename(second, first)
    os.rename(first + ".x", second)


@limit(240)
def test_swapped_devices(t):
    """As /dev/sdb and /dev/sdc do after a reboot: the old copy is not taken for the new one, and nothing is written to either."""
    files = [images.make_random(t.path(f"{name}.raw"), SIZE, seed=index) for index, name in enumerate("ab")]
    with loop_device(t, files[0]) as a, loop_device(t, files[1]) as b:
        daemon = Daemon(t).start()
        daemon.create("vol0", [a, f"{b},overwrite"])
        daemon.wait_synchronized("vol0")
        make_b_old(daemon)
        daemon.stop()
        exchange_devices(t, a, b, files)
        before = [images.digest(path) for path in files]
        daemon.start()
        check_refused(daemon, "image a", "it holds other bytes", "have their disks changed places?")
        check([images.digest(path) for path in files] == before, "a disk was written to")
        daemon.stop()
        exchange_devices(t, a, b, files)
        daemon.start()
        daemon.wait_state("vol0", "ACTIVE")
        check(read(daemon, 0, 8) == b"new new ", "not what was written last")
        daemon.stop()


@limit(240)
def test_swapped_files(t):
    """The same with files that were renamed, and whose metadata stayed where it was."""
    paths = [t.path("a.img"), t.path("b.img")]
    daemon = Daemon(t).start()
    daemon.create("vol0", paths, size=SIZE)
    make_b_old(daemon)
    daemon.stop()
    exchange_files(*paths)
    daemon.start()
    check_refused(daemon, "image a")
    daemon.stop()
    exchange_files(*paths)
    daemon.start()
    daemon.wait_state("vol0", "ACTIVE")
    check(read(daemon, 0, 8) == b"new new ", "not what was written last")
    daemon.stop()


def exchange_images(first, second):
    exchange_files(first, second)
    exchange_files(f"{first}.tarn", f"{second}.tarn")


@limit(240)
def test_swapped_files_with_their_metadata(t):
    """File systems are mounted in each other's place: what lies at each path is said, also to --force, and putting them back is enough."""
    paths = [t.path("a.img"), t.path("b.img")]
    daemon = Daemon(t).start()
    daemon.create("vol0", paths, size=SIZE)
    make_b_old(daemon)
    daemon.stop()
    exchange_images(*paths)
    before = [images.digest(path) for path in paths]
    daemon.start()
    check_refused(daemon, "a.img.tarn is the metadata of image b of mirror vol0", "have files changed places?")
    daemon.tarn("mirror", "activate", "--force", "vol0", status=1)
    said = daemon.tarn("status").out
    check("put each file back at its own path" in said, said)
    check([images.digest(path) for path in paths] == before, "an image was written to")
    daemon.stop()
    exchange_images(*paths)
    daemon.start()
    daemon.wait_state("vol0", "ACTIVE")
    check(read(daemon, 0, 8) == b"new new ", "not what was written last")
    daemon.stop()


@limit(240)
@rows([("its slot is the same", "b"), ("its slot is another one", "a")])
def test_an_image_of_another_mirror_is_not_copied_over(t, row):
    """The only copy of another mirror lies at an image's path: neither `restore` nor `sync` writes to it."""
    daemon = Daemon(t).start()
    paths = {name: t.path(f"{name}.img") for name in ("a", "b", "other-a", "other-b")}
    daemon.create("vol0", [paths["a"], paths["b"]], size=SIZE)
    daemon.create("other", [paths["other-a"], paths["other-b"]], size=SIZE, activate=False)
    daemon.stop()
    stranger = paths[f"other-{row[1]}"]
    exchange_images(paths["b"], stranger)
    daemon.start()
    daemon.wait_state("vol0", "ACTIVE")
    before = images.digest(paths["b"]), images.digest(paths["b"] + ".tarn")
    for command in ("restore", "sync"):
        refused = daemon.tarn("image", command, "vol0", "b", status=1)
        check(f"is the metadata of image {row[1]} of mirror other" in refused.err, f"{command}: {refused}")
    check((images.digest(paths["b"]), images.digest(paths["b"] + ".tarn")) == before, "the other mirror's image was written to")
    daemon.stop()
    exchange_images(paths["b"], stranger)
    daemon.start()
    daemon.wait_synchronized("vol0")
    daemon.stop()


@limit(240)
@rows([("by force", True), ("put right", False)])
def test_a_state_directory_that_was_rolled_back(t, row):
    """A snapshot of the root file system, with all metadata of devices, is put back; the devices have gone on, without image b."""
    _, force = row
    files = [images.make_random(t.path(f"{name}.raw"), SIZE, seed=index) for index, name in enumerate("ab")]
    with loop_device(t, files[0]) as a, loop_device(t, files[1]) as b:
        daemon = Daemon(t).start()
        daemon.create("vol0", [a, f"{b},overwrite"])
        daemon.wait_synchronized("vol0")
        write(daemon, 0, b"old ")
        daemon.stop()
        shutil.copytree(daemon.state, daemon.state + ".old")
        daemon.start()
        make_b_old(daemon)
        daemon.stop()
        os.rename(daemon.state, daemon.state + ".new")
        shutil.copytree(daemon.state + ".old", daemon.state)
        daemon.start()
        check_refused(daemon, "it holds other bytes")
        if force:
            daemon.tarn("mirror", "activate", "--force", "vol0")
        else:
            daemon.stop()
            shutil.rmtree(daemon.state)
            os.rename(daemon.state + ".new", daemon.state)
            daemon.start()
            daemon.wait_state("vol0", "ACTIVE")
            daemon.tarn("image", "restore", "vol0", "b", "--wait")
        daemon.wait_synchronized("vol0")
        if not force:
            check(read(daemon, 0, 8) == b"new new ", "not what was written last")
        daemon.stop()
        images.check_same([a, b], SIZE)


class OneThere:
    """Of two files only this one, with its metadata."""

    def __init__(self, other):
        self.other = other

    def __enter__(self):
        for path in (self.other, self.other + ".tarn"):
            os.rename(path, path + ".away")

    def __exit__(self, *_):
        for path in (self.other, self.other + ".tarn"):
            os.rename(path + ".away", path)


def take_state(daemon, state):
    shutil.rmtree(daemon.state)
    shutil.copytree(state, daemon.state)


@rows([("by the state directory of who went on", "here", "b", "a"), ("by that of who was forced", "there", "a", "b")])
def test_two_lines_from_one_state_directory(t, row):
    """Rule 9: b serves, without a, by a state directory that is put back, or by another node; by the newer one, or on the other node, a was
    used by force. Neither is copied over the other unasked, whichever state directory is used next."""
    _, state, served, other = row
    daemon = Daemon(t).start()
    paths = {name: t.path(f"{name}.img") for name in "ab"}
    daemon.create("vol0", list(paths.values()), size=SIZE)
    daemon.wait_synchronized("vol0")
    daemon.stop()
    with OneThere(paths["a"]):
        daemon.start()
        daemon.wait_state("vol0", "ACTIVE")
        daemon.stop()
    shutil.copytree(daemon.state, t.path("here"))
    with OneThere(paths["b"]):
        daemon.start()
        daemon.tarn("mirror", "activate", "--force", "vol0", quiet=True)
        write(daemon, 0, b"is a")
        daemon.stop()
    shutil.copytree(daemon.state, t.path("there"))
    take_state(daemon, t.path("here"))
    with OneThere(paths["a"]):
        daemon.start()
        write(daemon, MIB, b"is b")
        daemon.stop()
        shutil.rmtree(t.path("here"))
        shutil.copytree(daemon.state, t.path("here"))
    take_state(daemon, t.path(state))
    for _ in range(2):
        daemon.start()
        daemon.wait_state("vol0", "ACTIVE")
        found = {image["name"]: image for image in daemon.mirror("vol0")["images"]}
        check(found[served]["state"] == "SYNCHRONIZED" and found[other]["state"] == "UNSYNCHRONIZED", f"{found}")
        said = daemon.tarn("status", status=None).out
        check("it was written apart from the others" in said and f"image {other} is not overwritten unasked" in said, said)
        daemon.stop()
    check(images.read_at(paths["a"], 0, 8) == b"is ais a" and images.read_at(paths["b"], MIB, 8) == b"is bis b", "something was lost")
    daemon.start()
    daemon.tarn("image", "sync", "vol0", other)
    daemon.wait_synchronized("vol0")
    daemon.stop()
    images.check_same(list(paths.values()), SIZE)
