"""File systems without a free byte: under an image, under its metadata, under the state directory."""
import errno
import os
import re

import nbd

from lib.context import check, rows, wait_for
from lib.daemon import Daemon
from lib.images import KIB, MIB
from lib.load import open_handle
from lib.mirror import Mirror
from lib.small_disk import fill, small_disk

BY_HAND = ("hang=5", "return=manual")


def test_an_image_without_space(t):
    """Rule 6, C10: a write that finds no space on one image takes that image out; the client goes on; with space again
    it is copied to."""
    small = small_disk(t, "small", 4 * MIB)
    mirror = Mirror(t)
    mirror.op("remove", "b", "--wait")
    mirror.daemon.tarn("image", "add", "vol0", f"small={small}/s.img,meta={mirror.folder}/s.tarn", "--wait")
    mirror.op("set", "small", *BY_HAND)
    filler = fill(small)
    load = mirror.load(seed=2)
    load.run(20, until=lambda: mirror.image("small")["missing"])
    load.run(0.3)
    load.drain()
    load.close()
    image = mirror.wait_out("small")
    check(image["missing"] == "failed" and image["reason"], f"it is shown as {image}")
    mirror.check_content()
    os.unlink(filler)
    mirror.op("remove", "small", "--wait")
    mirror.stop_and_compare("a")


@rows([("the only image", 1), ("every image", 2)])
def test_no_image_has_space(t, row):
    """Rules 6, 8: a write that fails everywhere is answered with the error; no image is dropped, the mirror stays
    ACTIVE; with space again it goes on."""
    small = small_disk(t, "small", 6 * MIB)
    daemon = Daemon(t).start()
    names = "ab"[:row[1]]
    daemon.create("vol0", [f"{small}/{name}.img,meta={t.path(name)}.tarn" for name in names], size=16 * MIB)
    handle = open_handle(daemon.uri("vol0"))
    handle.pwrite(b"1" * 64 * KIB, 0)
    filler = fill(small)
    try:
        handle.pwrite(b"2" * 64 * KIB, 8 * MIB)
        check(False, "a write without space for it was answered well")
    except nbd.Error as error:
        check(error.errnum in (errno.EIO, errno.ENOSPC), f"it was answered {error}")
    mirror = daemon.mirror("vol0")
    check(mirror["state"] == "ACTIVE", f"the mirror is {mirror['state']}")
    check(any(image["state"] == "SYNCHRONIZED" for image in mirror["images"]), f"images: {mirror['images']}")
    check(handle.pread(64 * KIB, 0) == b"1" * 64 * KIB, "what was written before is not there")
    os.unlink(filler)

    def goes_on():
        try:
            handle.pwrite(b"3" * 64 * KIB, 8 * MIB)
            return True
        except nbd.Error:
            return False
    wait_for("writes to go on", goes_on)
    check(handle.pread(64 * KIB, 8 * MIB) == b"3" * 64 * KIB, "what was written is not there")
    handle.shutdown()


def state_on_small_disk(t):
    """A mirror whose state directory lies on a file system that can be filled."""
    small = small_disk(t, "small", 2 * MIB)
    os.symlink(os.path.join(small, "state"), t.path("state"))
    os.mkdir(os.path.join(small, "state"))
    mirror = Mirror(t)
    mirror.write(16)
    return mirror, small


@rows([("an image is added", lambda m: ("image", "add", "vol0", m.path("c"))),
       ("a setting of the mirror", lambda m: ("mirror", "set", "vol0", "suspend=7")),
       ("a setting of an image", lambda m: ("image", "set", "vol0", "b", "hang=7")),
       ("another mirror", lambda m: ("mirror", "create", "new", "--size", "1M", "--image", m.path("x")))])
def test_no_space_for_the_state(t, row):
    """Bad input, B15: with the state directory full an operation is refused with one line, and nothing is changed or left
    behind; with space again it works."""
    mirror, small = state_on_small_disk(t)
    words = row[1](mirror)
    files, before = mirror.files(), mirror.status()["images"]
    filler = fill(small)
    refused = mirror.daemon.tarn(*words, status=1)
    check(len(refused.err.strip().splitlines()) == 1, f"not one line: {refused.err!r}")
    check(re.search("space|written|made", refused.err), f"it does not say why: {refused.err!r}")
    check(mirror.files() == files, f"left behind: {mirror.files() - files}")
    check([image["name"] for image in mirror.status()["images"]] == [image["name"] for image in before], "images changed")
    mirror.write(16, seed=4)  # clients do not notice
    mirror.check_content()
    os.unlink(filler)
    mirror.daemon.tarn(*words)
    mirror.daemon.restart()
    mirror.daemon.wait_state("vol0", "ACTIVE")
    mirror.check_content()


@rows([("removed", ("image", "remove", "vol0", "b")), ("fractured", ("image", "fracture", "vol0", "b")),
       ("deactivated", ("mirror", "deactivate", "--wait", "vol0")), ("synchronized", ("image", "sync", "vol0", "b", "--wait")),
       ("promoted", ("image", "promote", "vol0", "b")), ("verified", ("mirror", "verify", "vol0"))])
def test_what_needs_no_space(t, row):
    """B15: what only rewrites records works on a full state directory, or is refused and changes nothing; a restart finds
    what was said."""
    mirror, small = state_on_small_disk(t)
    filler = fill(small)
    done = mirror.daemon.tarn(*row[1], status=None).status == 0
    after = {image["name"]: image["state"] for image in mirror.status()["images"]}
    state = mirror.status()["state"]
    os.unlink(filler)
    mirror.daemon.kill()
    mirror.daemon.start()
    wait_for("the mirror to be as it was", lambda: mirror.status()["state"] == state)
    wait_for("nothing to be under way", lambda: "busy" not in mirror.status())
    now = {image["name"]: image["state"] for image in mirror.status()["images"]}
    check(now.keys() == after.keys(), f"images were {after}, and are {now} after a restart (done: {done})")
    if state == "ACTIVE":
        mirror.check_content()


def test_a_whole_life_without_space(t):
    """B8, B15: a mirror on a full state directory is deactivated, activated, and one that is to be destroyed either goes wholly or
    is refused in one line and is there as before; the daemon starts and stops there."""
    mirror, small = state_on_small_disk(t)
    filler = fill(small)
    mirror.daemon.tarn("mirror", "deactivate", "--wait", "vol0")
    mirror.daemon.restart()
    mirror.daemon.tarn("mirror", "activate", "vol0")
    mirror.write(16, seed=5)
    mirror.daemon.kill()
    mirror.daemon.start()
    mirror.daemon.wait_state("vol0", "ACTIVE")
    mirror.check_content()
    mirror.daemon.tarn("mirror", "deactivate", "--wait", "vol0")
    result = mirror.daemon.tarn("mirror", "destroy", "--force", "vol0", status=None)
    if result.status:
        check(len(result.err.strip().splitlines()) == 1 and "space" in result.err, f"it says {result.err!r}")
        mirror.daemon.restart()
        check(mirror.status()["state"] == "INACTIVE", "it is not as before")
        os.unlink(filler)
        mirror.daemon.tarn("mirror", "destroy", "--force", "vol0")
    check(mirror.files() == {"a.img", "b.img"}, f"left behind: {mirror.files()}")
    check(not mirror.daemon.json("status")["mirrors"], "it is still there")


def test_metadata_without_space(t):
    """Rule 2: an image whose metadata cannot be written leaves; the others go on."""
    small = small_disk(t, "small", 1 * MIB)
    mirror = Mirror(t, image_settings=BY_HAND)
    filler = fill(small)
    refused = mirror.daemon.tarn("image", "add", "vol0", f"{mirror.path('c')},meta={small}/c.tarn", status=None)
    if refused.status == 0:  # sparse metadata was made: it finds no space once it is written
        load = mirror.load(seed=3)
        load.run(1)
        load.drain()
        load.close()
    mirror.check_content()
    os.unlink(filler)
    check(mirror.image("a")["state"] == "SYNCHRONIZED", f"it is {mirror.image('a')}")
    mirror.check_no_strays(())
    mirror.daemon.restart()
    mirror.daemon.wait_state("vol0", "ACTIVE")
    mirror.check_content()
    mirror.stop_and_compare("ab")
