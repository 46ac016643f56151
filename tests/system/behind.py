"""Images that are behind, and not what they were when they left: what is recorded as missed of them says nothing then."""
import os
import shutil

from lib import images
from lib.context import check, wait_for
from lib.daemon import Daemon
from lib.images import MIB
from lib.load import open_handle

SIZE = 16 * MIB


def new_mirror(t):
    paths = [t.path("a.img"), t.path("b.img")]
    daemon = Daemon(t).start()
    daemon.create("vol0", paths, size=SIZE)
    write(daemon, 0, b"first")
    return daemon, paths


def write(daemon, offset, word):
    handle = open_handle(daemon.uri("vol0"))
    handle.pwrite(word * 4096, offset)
    handle.flush()
    handle.shutdown()


def take_away(path):
    for name in (path, path + ".tarn"):
        os.rename(name, name + ".away")


def equal_images(daemon, paths, what):
    daemon.wait_synchronized("vol0")
    daemon.tarn("mirror", "deactivate", "vol0")
    images.check_same(paths, SIZE)
    check(daemon.mirror("vol0")["images"][1]["state"] == "SYNCHRONIZED", f"{what}: not SYNCHRONIZED any more")


def stays_out(daemon, why):
    """Only the administrator may give up what is there: it is not copied over by itself, and the reason says what to do."""
    image = daemon.mirror("vol0")["images"][1]
    check(image["state"] == "UNSYNCHRONIZED" and image["missing"] == "failed", f"image b is {image}")
    check(why in image["reason"] and "restore" in image["reason"], f"the reason is {image['reason']!r}")


def test_replaced_while_inactive(t):
    """Rule 9, thesis 3, A5: an image that was away comes back as another file, with its old metadata: what it missed is not
    all that it lacks. It stays out until `restore`, and is then copied in full."""
    daemon, paths = new_mirror(t)
    daemon.tarn("mirror", "deactivate", "vol0")
    take_away(paths[1])
    daemon.tarn("mirror", "activate", "vol0")
    write(daemon, 1 * MIB, b"second")
    daemon.tarn("mirror", "deactivate", "vol0")
    os.rename(paths[1] + ".tarn.away", paths[1] + ".tarn")
    with open(paths[1], "wb") as file:
        file.truncate(SIZE)
    daemon.tarn("mirror", "activate", "vol0")
    stays_out(daemon, "another one")
    daemon.tarn("image", "restore", "vol0", "b")
    equal_images(daemon, paths, "replaced while INACTIVE")


def test_replaced_while_active(t):
    """Rule 9, A5: the file of an image is replaced while it is open; the image is out at once, and what comes back is
    another file."""
    daemon, paths = new_mirror(t)
    daemon.tarn("mirror", "deactivate", "vol0")  # nothing is marked any more
    daemon.tarn("mirror", "activate", "vol0")
    with open(paths[1] + ".new", "wb") as file:
        file.truncate(SIZE)
    os.rename(paths[1] + ".new", paths[1])
    wait_for("image b to be missing", lambda: daemon.mirror("vol0")["images"][1]["missing"])
    daemon.tarn("mirror", "deactivate", "vol0")
    daemon.tarn("mirror", "activate", "vol0")
    stays_out(daemon, "another one")
    daemon.tarn("image", "restore", "vol0", "b")
    equal_images(daemon, paths, "replaced while ACTIVE")


def test_older_content_put_back(t):
    """Rules 9, 10: an image that left holds something older when it comes back: a backup, with its metadata, in the same
    files. It is copied in full, by itself: nothing is lost by that."""
    daemon, paths = new_mirror(t)
    daemon.tarn("mirror", "deactivate", "vol0")
    for name in (paths[1], paths[1] + ".tarn"):
        shutil.copyfile(name, name + ".backup")
    daemon.tarn("mirror", "activate", "vol0")
    write(daemon, 8 * MIB, b"later")
    daemon.tarn("mirror", "deactivate", "vol0")
    take_away(paths[1])
    daemon.tarn("mirror", "activate", "vol0")
    write(daemon, 1 * MIB, b"second")
    daemon.tarn("mirror", "deactivate", "vol0")
    for name in (paths[1], paths[1] + ".tarn"):
        os.rename(name + ".away", name)
        with open(name + ".backup", "rb") as backup, open(name, "r+b") as file:
            file.write(backup.read())
    daemon.tarn("mirror", "activate", "vol0")
    equal_images(daemon, paths, "older content put back")
