"""Images that are not there, or not what they were, when the daemon starts."""
import os
import re
import shutil
import threading

from lib import images
from lib.context import check, rows, wait_for
from lib.daemon import Daemon
from lib.disks import loop_device
from lib.images import KIB, MIB
from lib.load import open_handle
from lib.mirror import spoil
from lib.small_disk import loop_file_system, small_disk

SIZE = 16 * MIB
SEED = 21


def new_mirror(t, settings=()):
    paths = [t.path("a.img"), t.path("b.img")]
    daemon = Daemon(t).start()
    daemon.create("vol0", paths, size=SIZE, settings=settings)
    write(daemon, 0, b"first")
    return daemon, paths


def write(daemon, offset, word):
    handle = open_handle(daemon.uri("vol0"))
    handle.pwrite(word * 4096, offset)
    handle.flush()
    handle.shutdown()


def check_there(daemon, offset, word):
    handle = open_handle(daemon.uri("vol0"))
    check(handle.pread(len(word) * 4096, offset) == word * 4096, f"{word} is not there")
    handle.shutdown()


def take_away(path, meta=True):
    """The disk is unplugged, with its metadata."""
    for name in (path, path + ".tarn") if meta else (path,):
        os.rename(name, name + ".away")


def bring_back(path):
    for name in (path, path + ".tarn"):
        if os.path.exists(name + ".away"):
            os.rename(name + ".away", name)


@rows([("slave, after a clean stop", 1, "stop"), ("slave, after a crash", 1, "kill"),
       ("master, after a clean stop", 0, "stop"), ("master, after a crash", 0, "kill")])
def test_one_image_is_missing(t, row):
    """Rules 8, 9, 10; B9, B14: activation goes on without an image that is known not to be ahead, shows it as missing
    with the reason, and copies what it missed when it is back."""
    _, index, how = row
    daemon, paths = new_mirror(t)
    getattr(daemon, how)()
    take_away(paths[index])
    daemon.start()
    mirror = daemon.wait_state("vol0", "ACTIVE")
    gone = mirror["images"][index]
    check(gone["missing"], f"the image is not shown as missing: {gone}")
    check(gone["state"] != "SYNCHRONIZED", f"the missing image is shown as {gone['state']}")
    check(paths[index] in f"{gone['reason']} {gone['error']}", f"the reason does not name the file: {gone}")
    check(mirror["images"][1 - index]["role"] == "master", "the image that is there is not the master")
    check_there(daemon, 0, b"first")
    write(daemon, 8 * MIB, b"while it was away")
    daemon.stop()
    bring_back(paths[index])
    daemon.start()
    daemon.wait_synchronized("vol0")
    check_there(daemon, 0, b"first")
    check_there(daemon, 8 * MIB, b"while it was away")
    daemon.stop()
    images.check_same(paths, SIZE)


def test_only_what_was_missed_is_copied(t):
    """Rule 1, B16: an image that was away gets what it missed, not everything."""
    daemon, paths = new_mirror(t)
    daemon.stop()
    take_away(paths[1])
    daemon.start()
    daemon.wait_state("vol0", "ACTIVE")
    write(daemon, 8 * MIB, b"x")
    missed = daemon.mirror("vol0")["images"][1]["missed_bytes"]
    check(0 < missed <= 4 * MIB, f"{missed} bytes are missed after a write of 4 KiB")
    daemon.stop()
    bring_back(paths[1])
    before = images.read_at(paths[1], 12 * MIB, 4096)
    daemon.start()
    daemon.wait_synchronized("vol0")
    check(images.read_at(paths[1], 12 * MIB, 4096) == before, "a place that nobody wrote changed")
    daemon.stop()
    images.check_same(paths, SIZE)


def with_what_is_behind(t):
    """A daemon that has just been started, of whose mirror only image b is there, which has missed a write."""
    daemon, paths = new_mirror(t)
    daemon.stop()
    take_away(paths[1])
    daemon.start()
    daemon.wait_state("vol0", "ACTIVE")
    write(daemon, 0, b"newer")
    daemon.stop()
    bring_back(paths[1])
    take_away(paths[0])
    return daemon.start(), paths


def test_behind_is_never_served(t):
    """Rules 9, 10: an image that missed writes is not what a mirror is activated from when the better one is gone."""
    daemon, paths = with_what_is_behind(t)
    mirror = daemon.wait_state("vol0", "ATTENTION")
    check(re.search(r"\ba\b|a\.img", str(mirror["reason"])), f"the reason does not name image a: {mirror['reason']}")
    refused = daemon.tarn("mirror", "activate", "vol0", status=1)
    check(len(refused.err.strip().splitlines()) == 1, f"not one line: {refused.err}")
    check(re.search(r"\ba\b|a\.img", refused.err), f"the message does not name image a: {refused.err}")
    daemon.stop()
    bring_back(paths[0])
    daemon.start()
    daemon.wait_synchronized("vol0")
    check_there(daemon, 0, b"newer")
    daemon.stop()
    images.check_same(paths, SIZE)


def test_forced_activation_of_what_is_behind(t):
    """Rule 10: `--force` goes on with what there is, and says what may be lost."""
    daemon, paths = with_what_is_behind(t)
    daemon.wait_state("vol0", "ATTENTION")
    said = daemon.tarn("mirror", "activate", "--force", "vol0")
    check(re.search("lost|lose|miss|behind", said.out + said.err), f"it does not say what may be lost: {said}")
    check_there(daemon, 0, b"first")


def test_all_images_are_missing(t):
    """B8: ATTENTION, saying what is missing; no client access; active again when the disks are back."""
    daemon, paths = new_mirror(t)
    daemon.stop()
    for path in paths:
        take_away(path)
    daemon.start()
    mirror = daemon.wait_state("vol0", "ATTENTION")
    check(mirror["reason"], "no reason is shown")
    refused = daemon.tarn("mirror", "activate", "vol0", status=1)
    check(re.search(r"[ab]\.img|image", refused.err), f"the message does not say what is missing: {refused.err}")
    for path in paths:
        bring_back(path)
    if daemon.mirror("vol0")["state"] != "ACTIVE":
        daemon.tarn("mirror", "activate", "vol0", status=None)
    daemon.wait_synchronized("vol0")
    check_there(daemon, 0, b"first")


@rows([("max-missing 0", "max-missing=0"), ("min-images 2", "min-images=2")])
def test_counts_are_minimum_conditions(t, row):
    """B14, B8: too many images missing, or too few there: ATTENTION, with the setting named; ACTIVE when they are
    back."""
    daemon, paths = new_mirror(t, settings=[row[1]])
    daemon.stop()
    take_away(paths[1])
    daemon.start()
    mirror = daemon.wait_state("vol0", "ATTENTION")
    check(row[1].partition("=")[0] in str(mirror["reason"]),
          f"the reason does not name the setting: {mirror['reason']}")
    daemon.tarn("mirror", "activate", "vol0", status=1)
    bring_back(paths[1])
    daemon.restart()
    daemon.wait_synchronized("vol0")


def test_metadata_of_one_image_is_missing(t):
    """Rule 10: an image with unreadable metadata is UNSYNCHRONIZED, never a source, and is copied in full."""
    daemon, paths = new_mirror(t)
    daemon.stop()
    os.unlink(paths[0] + ".tarn")
    with open(paths[0], "r+b") as file:
        file.write(b"\xee" * 8192)  # nobody can tell any more whether it is current
    daemon.start()
    daemon.wait_state("vol0", "ACTIVE")
    check_there(daemon, 0, b"first")
    if daemon.mirror("vol0")["images"][0]["state"] == "SYNCHRONIZED":
        daemon.stop()
        images.check_same(paths, SIZE)


def change(daemon, path, how):
    """Somebody does that while the daemon is down."""
    if how == "bytes":
        with open(path, "r+b") as file:
            file.write(b"\xee" * 64 * KIB)
    elif how == "copy":
        shutil.copy(path, path + ".old")
        daemon.start()
        daemon.wait_state("vol0", "ACTIVE")
        write(daemon, 0, b"newer")
        daemon.stop()
        os.replace(path + ".old", path)
    elif how == "new":
        os.unlink(path)
        images.make_sparse(path, SIZE)
    else:
        os.truncate(path, SIZE - 4096)


@rows([(f"the {who} {what}", index, how) for who, index in (("slave", 1), ("master", 0)) for what, how in (
    ("was written to", "bytes"), ("is an older copy", "copy"), ("is a new empty file", "new"), ("is shorter",
                                                                                                "short"))])
def test_changed_behind_our_back(t, row):
    """Thesis 3: metadata remembers what the file was (inode, birth time, size, mtime) and notices. Either the changed
    image is left out and copied to again, or the mirror waits in ATTENTION, naming it, for an administrator's
    `--force`; what is in it is never served as current."""
    _, index, how = row
    daemon, paths = new_mirror(t)
    daemon.stop()
    change(daemon, paths[index], how)
    daemon.start()
    mirror = wait_for("a decision", lambda: decided(daemon))
    if mirror["state"] == "ATTENTION":
        name = "ab"[index]
        check(re.search(rf"\b{name}\b", str(mirror["reason"])),
              f"the reason does not name image {name}: {mirror['reason']}")
        daemon.tarn("mirror", "activate", "vol0", status=1)
        daemon.tarn("mirror", "activate", "--force", "vol0")
    for _ in range(8):  # reads are shared out over the images
        check_there(daemon, 0, b"newer" if how == "copy" else b"first")
    if how == "short":
        check(daemon.mirror("vol0")["images"][index]["missing"], "an image that is too short is not missing")
        return
    daemon.wait_synchronized("vol0")
    daemon.stop()
    images.check_same(paths, SIZE)


def decided(daemon):
    mirror = daemon.mirror("vol0")
    return mirror if mirror["state"] in ("ACTIVE", "ATTENTION") else None


@rows([("written to", "bytes"), ("a new empty file", "new")])
def test_changed_while_the_good_one_is_away(t, row):
    """Rule 10, thesis 3: a changed image is not taken for the newest because the unchanged one is only away."""
    _, how = row
    daemon, paths = new_mirror(t)
    daemon.stop()
    change(daemon, paths[0], how)
    take_away(paths[1])
    daemon.start()
    daemon.wait_state("vol0", "ATTENTION")
    refused = daemon.tarn("mirror", "activate", "vol0", status=1)
    check(re.search(r"image a\b", refused.err), f"the message does not name image a: {refused.err}")
    bring_back(paths[1])
    daemon.tarn("mirror", "activate", "vol0", status=1)
    daemon.tarn("mirror", "activate", "--force", "vol0")
    check_there(daemon, 0, b"first")
    daemon.wait_synchronized("vol0")
    daemon.stop()
    images.check_same(paths, SIZE)


@rows([("back after a restart", True, True), ("restored", False, True), ("the time of the write is set back", False, False)])
def test_written_to_while_it_was_away(t, row):
    """Thesis 3, rule 13: an image that was not there at a start is written to before it comes back. What it missed is not all that is to
    be copied to it. That is told by the time of the file alone."""
    _, restart, is_seen = row
    daemon, paths = new_mirror(t)
    daemon.tarn("image", "set", "vol0", "b", "return=manual")
    daemon.stop()
    take_away(paths[1])
    before = os.stat(paths[1] + ".away")
    daemon.start()
    daemon.wait_state("vol0", "ACTIVE")
    write(daemon, 0, b"newer")
    spoil(paths[1] + ".away", SIZE - 4096, 4096)
    if not is_seen:
        os.utime(paths[1] + ".away", ns=(before.st_atime_ns, before.st_mtime_ns))
    bring_back(paths[1])
    if restart:
        daemon.stop()
        daemon.start()
    daemon.wait_state("vol0", "ACTIVE")
    daemon.tarn("image", "restore", "vol0", "b", "--wait")
    daemon.wait_synchronized("vol0")
    daemon.stop()
    is_copied = images.read_at(paths[1], SIZE - 4096, 4096) == bytes(4096)
    check(is_copied == is_seen, "everything was copied" if is_copied else "what somebody wrote there is still there")


def test_an_only_image_may_be_edited_while_inactive(t):
    """Thesis 3: images stay plain; with one image there is nothing to differ from, and what a tool wrote is served."""
    path = t.path("a.img")
    daemon = Daemon(t).start()
    daemon.create("vol0", [path], size=SIZE)
    write(daemon, 0, b"first")
    daemon.tarn("mirror", "deactivate", "vol0")
    t.run("qemu-io", "-f", "raw", "-c", "write -P 0x61 1M 64k", path)
    daemon.tarn("mirror", "activate", "vol0")
    check_there(daemon, 0, b"first")
    check_there(daemon, MIB, b"a" * 16)


def test_the_state_directory_of_a_destroyed_image(t):
    """B8: a mirror whose files are gone for good can still be shown; the other mirrors are served."""
    daemon, paths = new_mirror(t)
    daemon.create("other", [t.path("c.img")], size=MIB)
    daemon.stop()
    for path in paths:
        os.unlink(path)
        os.unlink(path + ".tarn")
    daemon.start()
    daemon.wait_state("other", "ACTIVE")
    daemon.wait_state("vol0", "ATTENTION")
    for path in paths:
        check(not os.path.exists(path), f"{path} was made anew: an empty file must never pass for data")
    wait_for("status to tell why", lambda: daemon.mirror("vol0")["reason"])


@rows([("removed", lambda path: os.unlink(path)), ("renamed", take_away),
       ("replaced", lambda path: (os.unlink(path), images.make_sparse(path, SIZE))),
       ("made shorter", lambda path: os.truncate(path, SIZE - 4096))])
def test_an_open_file_is_lost(t, row):
    """Thesis 3: an open image is compared with its path every second. One that was removed, replaced or made shorter is
    taken out, and the mirror goes on; the last good image stays (rule 8): the mirror stops, and keeps it open."""
    what, lose = row
    daemon, paths = new_mirror(t)
    lose(paths[1])
    image = wait_for(f"image b to be missing, its file {what}",
                     lambda: (lambda found: found if found["missing"] else None)(daemon.mirror("vol0")["images"][1]))
    check(image["missing"] == "failed" and image["state"] == "UNSYNCHRONIZED", f"it is shown as {image}")
    check(paths[1] in str(image["reason"]), f"the reason does not name the file: {image['reason']}")
    write(daemon, 0, b"newer")
    check_there(daemon, 0, b"newer")
    if what == "removed":
        os.unlink(paths[0])
        mirror = daemon.wait_state("vol0", "ATTENTION")
        check(paths[0] in str(mirror["reason"]), f"the reason does not name the file: {mirror['reason']}")
        check(mirror["images"][0]["state"] == "SYNCHRONIZED", f"the last good image was dropped: {mirror['images'][0]}")
        rescued = re.search(r"/proc/\d+/fd/\d+", mirror["reason"])
        check(rescued, f"the reason does not say where the data still is: {mirror['reason']}")
        check(images.read_at(rescued.group(), 0, 20) == b"newernewernewernewer", "the data is not there")


FILE_SYSTEMS = {"the tests' own": lambda t: t.path("."), "tmpfs": lambda t: small_disk(t, "fs", 2 * SIZE),
                "XFS": lambda t: loop_file_system(t, "fs", 330 * MIB, "xfs")}


@rows([(f"{much}, {kind}", place, kind) for kind in FILE_SYSTEMS
       for much, place in (("as long as before", SIZE - 4096), ("a little", 8 * MIB))])
def test_a_file_that_is_cut_and_grows_again(t, row):
    """Rules 8, 9, thesis 3: an image's file is made shorter, and a client's write would make it longer again at once, with zeroes in
    place of what was cut off. They are never read: the write fails, the image is out, and as what it had is lost, all of it is
    copied when it comes back, not only what it missed."""
    _, place, kind = row
    a, b = os.path.normpath(f"{FILE_SYSTEMS[kind](t)}/a.img"), t.path("b.img")
    daemon = Daemon(t).start()
    daemon.create("vol0", [a, b], size=SIZE, settings=["read=master"])
    daemon.tarn("image", "set", "vol0", "a", "return=manual")
    daemon.wait_synchronized("vol0")
    handle = open_handle(daemon.uri("vol0"))
    handle.pwrite(b"D" * MIB, 0)
    for start in range(0, SIZE, MIB):  # XFS writes without a thread where it has blocks already
        handle.pwrite(b"d" * 4096, start + MIB - 4096)
    handle.flush()
    os.truncate(a, 0)
    handle.pwrite(b"e" * 4096, place)
    found = handle.pread(4096, 0)
    check(found == b"D" * 4096, f"what was flushed is read as {found[:1]}")
    check(os.path.getsize(a) == 0, "the file has grown again")
    shown = daemon.mirror("vol0")["images"][0]
    check(shown["missing"] == "failed" and f"{a} was made shorter" in shown["reason"], f"image a is {shown}")
    os.truncate(a, SIZE)
    check(handle.pread(4096, 0) == b"D" * 4096, "zeroes are read once the file is as long as before")
    daemon.tarn("image", "restore", "vol0", "a")
    daemon.wait_synchronized("vol0")
    handle.shutdown()
    daemon.tarn("mirror", "deactivate", "vol0")
    images.check_same([a, b], SIZE)


def test_a_cut_file_spoils_no_other(t):
    """Rules 8, 17: an image's file is made shorter, a client's write would make it longer again, and a write of less than a block
    follows: what is around that in the block is still in the other image, and must stay there."""
    daemon = Daemon(t).start()
    with loop_device(t, images.make_sparse(t.path("loop.raw"), SIZE), "--sector-size", "4096") as device:
        a, b = t.path("a.img"), device
        daemon.create("vol0", [a, f"b={b},overwrite,meta={t.path('b.tarn')}"], size=SIZE, settings=["read=master"])
        daemon.wait_synchronized("vol0")
        handle = open_handle(daemon.uri("vol0"))
        handle.pwrite(b"D" * MIB, 0)
        handle.flush()
        os.truncate(a, 0)
        handle.pwrite(b"e" * 4096, 8 * MIB)
        handle.pwrite(b"n" * 512, 0)
        handle.flush()
        handle.shutdown()
        wait_for("image a to be out", lambda: daemon.mirror("vol0")["images"][0]["missing"])
        daemon.tarn("mirror", "deactivate", "vol0")
        found = images.read_at(t.path("loop.raw"), 0, 4096)
        check(found == b"n" * 512 + b"D" * 3584, f"the last good image holds {found[510:514]} around what was written")


# ---- images that are behind, and not what they were when they left: what is recorded as missed of them says nothing then ----

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


@rows([("with the old metadata", True), ("and nothing else", False)])
def test_another_file_that_holds_data_is_kept(t, row):
    """Rule 9, A5: where an image was there is another file, as when the right disk is not mounted. What it holds may be somebody's:
    `restore` leaves it alone, changes nothing beside it, and names the command that copies over it."""
    daemon, paths = new_mirror(t)
    daemon.tarn("image", "set", "vol0", "b", "return=manual")
    daemon.tarn("mirror", "deactivate", "vol0")
    take_away(paths[1])
    daemon.tarn("mirror", "activate", "vol0")
    daemon.tarn("mirror", "deactivate", "vol0")
    if row[1]:
        os.rename(paths[1] + ".tarn.away", paths[1] + ".tarn")
    images.make_random(paths[1], SIZE)
    before = images.read_at(paths[1], 0, SIZE)
    daemon.tarn("mirror", "activate", "vol0")
    refused = daemon.tarn("image", "restore", "vol0", "b", status=1)
    check(f"{paths[1]} is not what it was" in refused.err and "'tarn image sync vol0 b'" in refused.err, refused.err)
    check(images.read_at(paths[1], 0, SIZE) == before, "it was written to")
    check(os.path.exists(paths[1] + ".tarn") == row[1], "metadata was left beside it, or taken away")
    daemon.tarn("image", "sync", "vol0", "b")
    equal_images(daemon, paths, "copied over")


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


def test_a_file_that_is_cut_during_a_stop(t):
    """Rule 9: while the mirror is being deactivated an image's file is made shorter, and as long as before. It is copied in full when the
    mirror is activated again."""
    a, b = t.path("a.img"), t.path("b.img")
    daemon = Daemon(t, arguments=["--enable-faults"]).start()
    daemon.create("vol0", [a, b], size=SIZE)
    daemon.wait_synchronized("vol0")
    daemon.tarn("image", "set", "vol0", "a", "hang=600")
    write(daemon, 0, b"first")
    daemon.tarn("fault", "vol0", "a", "hang", "--on", "flush")
    stop = t.spawn(*daemon.tarn_argv("mirror", "deactivate", "vol0"))
    wait_for("the stop to have begun", lambda: daemon.mirror("vol0").get("busy"))
    os.truncate(b, 0)
    wait_for("that to be found", lambda: "b.img was made shorter" in daemon.log())
    os.truncate(b, SIZE)
    daemon.tarn("fault", "vol0", "a", "heal")
    check(stop.wait(60) == 0, "the mirror is not deactivated")
    daemon.tarn("mirror", "activate", "vol0")
    daemon.wait_synchronized("vol0")
    daemon.tarn("mirror", "deactivate", "vol0")
    images.check_same([a, b], SIZE)


def test_what_was_copied_anew_is_not_spoiled_any_more(t):
    """An image whose file was cut, and that was copied in full since, is as good as any. When the mirror falls with it as its last
    good image, it comes back by itself: nobody has to save what is left of it."""
    a, b = t.path("a.img"), t.path("b.img")
    daemon = Daemon(t, arguments=["--enable-faults"]).start()
    daemon.create("vol0", [a, b], size=SIZE)
    for name in "ab":
        daemon.tarn("image", "set", "vol0", name, "return=manual", "hang=2")
    daemon.wait_synchronized("vol0")
    write(daemon, 0, b"first")
    os.truncate(b, 0)
    wait_for("image b to be out", lambda: daemon.mirror("vol0")["images"][1]["missing"])
    os.truncate(b, SIZE)
    daemon.tarn("image", "restore", "vol0", "b")
    daemon.wait_synchronized("vol0")
    take_away(a)
    wait_for("image a to be out", lambda: daemon.mirror("vol0")["images"][0]["missing"])
    daemon.tarn("fault", "vol0", "b", "hang")
    handle = open_handle(daemon.uri("vol0"))
    client = threading.Thread(target=handle.pwrite, args=(b"later" + bytes(4091), 0), daemon=True)
    client.start()
    daemon.wait_state("vol0", "ATTENTION")
    daemon.tarn("fault", "vol0", "b", "heal")
    daemon.wait_state("vol0", "ACTIVE", seconds=30)


def test_a_new_image_has_nothing_of_the_one_before(t):
    """A disk is lost, its image is removed, and another is added, which gets its place. When the mirror falls with that one as its
    last good image, it comes back by itself: no file of it has ever left its path."""
    a, b, c = t.path("a.img"), t.path("b.img"), t.path("c.img")
    daemon = Daemon(t, arguments=["--enable-faults"]).start()
    daemon.create("vol0", [a, b], size=SIZE)
    daemon.tarn("image", "set", "vol0", "a", "return=manual")
    daemon.wait_synchronized("vol0")
    take_away(b)
    wait_for("image b to be out", lambda: daemon.mirror("vol0")["images"][1]["missing"])
    daemon.tarn("image", "remove", "vol0", "b")
    daemon.tarn("image", "add", "vol0", f"c={c}", "--wait")
    daemon.tarn("image", "set", "vol0", "c", "return=manual", "hang=2")
    take_away(a)
    wait_for("image a to be out", lambda: daemon.mirror("vol0")["images"][0]["missing"])
    daemon.tarn("fault", "vol0", "c", "hang")
    handle = open_handle(daemon.uri("vol0"))
    client = threading.Thread(target=handle.pwrite, args=(b"later" + bytes(4091), 0), daemon=True)
    client.start()
    daemon.wait_state("vol0", "ATTENTION")
    daemon.tarn("fault", "vol0", "c", "heal")
    daemon.wait_state("vol0", "ACTIVE", seconds=30)



# ---- what somebody else may have there is kept ----

def refused_restore(daemon, what):
    """`restore` refuses: it says why, and names the command that gives up what is there. Returns its words."""
    refused = daemon.tarn("image", "restore", "vol0", "b", status=1).err
    check(what in refused and "'tarn image sync vol0 b'" in refused, refused)
    return refused


def out_with_return_manual(t):
    """Image b can be taken away; it comes back when somebody asks for it."""
    daemon, paths = new_mirror(t)
    daemon.tarn("image", "set", "vol0", "b", "return=manual")
    daemon.tarn("mirror", "deactivate", "vol0")
    return daemon, paths


def test_status_names_what_brings_it_back(t):
    """B21: where another file is that holds data, one of the commands that `tarn status` names brings the image back: `sync`, if
    `restore` is refused; and once that was refused, `sync` alone."""
    daemon, paths = new_mirror(t)
    daemon.tarn("image", "set", "vol0", "b", "return=auto", "return-after=1")
    os.rename(paths[1], paths[1] + ".away")
    wait_for("image b to be out", lambda: daemon.mirror("vol0")["images"][1]["missing"])
    images.make_random(paths[1], SIZE)
    wait_for("it to be tried again", lambda: "another one" in str(daemon.mirror("vol0")["images"][1]["reason"]))
    check_to_do(daemon, r"tarn image restore vol0 b copies it in full; where that is refused, .*: tarn image sync vol0 b$")
    daemon.tarn("image", "set", "vol0", "b", "return=manual")
    wait_for("no try to be under way", lambda: not daemon.mirror("vol0")["images"][1]["returning"])
    refused_restore(daemon, f"{paths[1]} is not what it was, and holds data")
    check_to_do(daemon, r"put back what was there; or, if what is there now may go: tarn image sync vol0 b$")
    daemon.tarn("image", "sync", "vol0", "b")
    equal_images(daemon, paths, "copied over")


def check_to_do(daemon, pattern):
    said = daemon.tarn("status").out
    check(re.search(r"^  to do +.*" + pattern, said, re.MULTILINE), said)


@rows([("too short for metadata", 5), ("as long as metadata", 64 * MIB)])
def test_a_refused_restore_changes_no_metadata_file(t, row):
    """A5: where the data was is a new, empty file, and where the metadata was one of somebody else's, as when meta= names a file on a disk
    that is not mounted. `restore` leaves that alone, its length, too; `sync` gives it up."""
    daemon, paths = out_with_return_manual(t)
    meta = paths[1] + ".tarn"
    take_away(paths[1])
    daemon.tarn("mirror", "activate", "vol0")
    images.make_sparse(paths[1], SIZE)
    images.make_random(meta, row[1])
    before = images.read_at(meta, 0, row[1])
    refused_restore(daemon, f"{meta} holds something other than metadata of Tarn")
    check(os.path.getsize(meta) == row[1], f"it has {os.path.getsize(meta)} bytes now")
    check(images.read_at(meta, 0, row[1]) == before, "it was written to")
    daemon.tarn("image", "sync", "vol0", "b")
    equal_images(daemon, paths, "written over")


def test_a_restore_keeps_what_is_no_metadata(t):
    """A5: the data is still what it was, and where the metadata was is a file of somebody else's."""
    daemon, paths = out_with_return_manual(t)
    meta = paths[1] + ".tarn"
    os.rename(meta, meta + ".away")
    daemon.tarn("mirror", "activate", "vol0")
    images.make_random(meta, 64 * MIB)
    before = images.read_at(meta, 0, 64 * MIB)
    refused_restore(daemon, f"{meta} holds something other than metadata of Tarn")
    check(images.read_at(meta, 0, 64 * MIB) == before, "it was written to")
    os.replace(meta + ".away", meta)
    daemon.tarn("image", "restore", "vol0", "b")
    equal_images(daemon, paths, "put back")


@rows([("empty", b""), ("short and zero", bytes(5)), ("the log of before without its record", None)])
def test_a_restore_makes_metadata_where_nothing_is_lost(t, row):
    """Rule 10: what is there says nothing, so `restore` needs nobody's consent."""
    _, content = row
    daemon, paths = out_with_return_manual(t)
    meta = paths[1] + ".tarn"
    if content is None:
        spoil_with(meta, bytes(16 * KIB))
    else:
        os.unlink(meta)
        with open(meta, "wb") as file:
            file.write(content)
    daemon.tarn("mirror", "activate", "vol0")
    daemon.tarn("image", "restore", "vol0", "b")
    equal_images(daemon, paths, "its metadata made anew")


def spoil_with(path, content):
    with open(path, "r+b") as file:
        file.write(content)


@rows([("an ext4, restored", "ext4", False), ("an ext4, synced", "ext4", True), ("nothing", None, False)])
def test_a_restore_keeps_another_device_in_place_of_metadata(t, row):
    """A5: metadata lies on a device of its own, whose name is another device's by now. A file system there is kept until `sync` says
    that it may go; where nothing is, `restore` makes the metadata."""
    _, kind, syncs = row
    size, path = 64 * MIB, t.path("own.raw")
    images.make_sparse(path, size)
    other = images.make_sparse(t.path("other.raw"), size)
    if kind:
        t.run("mkfs.ext4", "-q", "-F", other)
    daemon = Daemon(t).start()
    paths = [t.path("a.img"), t.path("b.img")]
    with loop_device(t, path) as device, loop_device(t, other) as another:
        link = t.path("meta-device")
        os.symlink(device, link)
        daemon.create("vol0", [paths[0], f"b={paths[1]},meta={link}"], size=SIZE)
        daemon.tarn("image", "set", "vol0", "b", "return=manual")
        daemon.tarn("mirror", "deactivate", "vol0")
        os.unlink(link)
        os.symlink(another, link)
        before = images.read_at(other, 0, size)
        daemon.tarn("mirror", "activate", "vol0")
        if kind:
            refused_restore(daemon, f"{link} holds something other than metadata of Tarn")
            daemon.tarn("mirror", "deactivate", "vol0")
            check(images.read_at(other, 0, size) == before, "its file system was written over")
            daemon.tarn("mirror", "activate", "vol0")
        if syncs or not kind:
            daemon.tarn("image", "sync" if syncs else "restore", "vol0", "b")
            equal_images(daemon, paths, "its metadata on another device")
        daemon.stop()


@rows([("two volumes", "+", ""), ("two parts", ";", "concat:")])
def test_a_new_empty_file_beside_one_that_has_not_changed(t, row):
    """Rule 9, A5: one of an image's two files is lost, and a new, empty one is put in its place. Which one is another one is not known,
    so `restore` refuses while any of them holds data; and it says of none that it is not what it was."""
    _, joint, prefix = row
    size = 4 * MIB
    files = {name: [t.path(f"{name}{part}.img") for part in "12"] for name in "ab"}
    for paths in files.values():
        for path in paths:
            images.make_sparse(path, size)
    daemon = Daemon(t).start()
    sizes = ["--volume", f"x:{size}", "--volume", f"y:{size}"] if joint == "+" else ["--size", 2 * size]
    words = []
    for name, paths in files.items():
        words += ["--image", f"{name}={prefix}{joint.join(paths)},meta={t.path(name + '.tarn')}"]
    daemon.tarn("mirror", "create", "vol0", *sizes, *words, "--activate")
    handle = open_handle(daemon.uri("vol0/x" if joint == "+" else "vol0"))
    handle.pwrite(b"x" * MIB, 0)
    handle.flush()
    handle.shutdown()
    daemon.tarn("image", "set", "vol0", "b", "return=manual")
    os.rename(files["b"][1], files["b"][1] + ".away")
    wait_for("image b to be out", lambda: daemon.mirror("vol0")["images"][1]["missing"])
    images.make_sparse(files["b"][1], size)
    refused_restore(daemon, f"one of the files of image b is not what it was, and {files['b'][0]} holds data")
    daemon.tarn("image", "sync", "vol0", "b")
    daemon.wait_synchronized("vol0")
    daemon.tarn("mirror", "deactivate", "vol0")
    for one, other in zip(files["a"], files["b"]):
        images.check_same([one, other], size)
