"""Disks that really fail, hang and fill up: loop devices whose server is stopped or killed, a full ext4; daemons that want
one disk, or find one that a dead daemon has not let go; metadata damaged byte by byte."""
import os
import re
import shutil
import signal

from lib import images
from lib.context import Failed, check, rows, wait_for
from lib.daemon import Daemon
from lib.damage import Fleet
from lib.images import KIB, MIB
from lib.load import open_handle
from lib.mirror import SIZE, Mirror
from lib.small_disk import fill, loop_file_system
from lib.volatile_disk import LoopDevice, VolatileDisk

SOON = ("hang=2", "return-after=1")


def with_device(t, image_settings=SOON):
    """A mirror of image a, a file, and image d, a block device whose server is in our hands."""
    disk = VolatileDisk(t, "d", SIZE)
    disk.power_on()
    mirror = Mirror(t, count=1)
    mirror.daemon.tarn("image", "add", "vol0", f"d={disk.path},overwrite", "--wait")
    for name in "ad":
        mirror.op("set", name, *image_settings)
    mirror.wait_in("d")
    return mirror, disk


def compare(mirror, disk):
    """After a clean stop, which flushes: the medium holds what image a holds."""
    mirror.daemon.stop()
    images.check_same([mirror.path("a"), disk.medium], SIZE)
    mirror.ledger.check_all(lambda offset, length: images.read_at(disk.medium, offset, length))


# ---- disks that fail, hang, come back, fill up ----

def test_a_device_hangs(t):
    """Rules 6, 7; issue 4 item 3: a block device that answers nothing, with requests in the kernel, is taken out; clients go
    on. When it answers again, late, it comes back and is copied to."""
    mirror, disk = with_device(t)
    load = mirror.load(seed=3)
    load.run(0.3)
    disk.hang()
    load.run(40, until=lambda: mirror.image("d")["missing"])
    image = mirror.wait_out("d")
    check(image["held_requests"] > 0, f"it holds no requests: {image}")
    load.run(0.5)
    disk.go_on()
    load.run(40, until=lambda: not mirror.image("d")["missing"])
    load.drain()
    load.close()
    mirror.wait_in("d")
    mirror.check_content()
    compare(mirror, disk)


def test_a_device_dies_and_is_replugged(t):
    """Rules 5, 6; B9; issue 4 item 3: the server of a block device is killed, its cache is lost, and every request fails; the
    image is out, clients go on. Plugged in again, under another device number, it comes back, and what its cache lost is
    there again."""
    mirror, disk = with_device(t)
    load = mirror.load(seed=4)
    load.run(0.5)
    disk.cut()
    load.run(20, until=lambda: mirror.image("d")["missing"])
    mirror.wait_out("d")
    disk.unplug()
    load.run(0.3)
    disk.power_on()
    load.run(40, until=lambda: not mirror.image("d")["missing"])
    load.drain()
    load.close()
    mirror.wait_in("d")
    mirror.check_content()
    compare(mirror, disk)


def test_a_device_is_made_shorter(t):
    """Thesis 3, rule 9: a block device that is shorter than its volume all of a sudden is out, with the reason; when it has its
    size again, and zeroes where data was, it comes back and is copied to."""
    file = images.make_sparse(t.path("device"), SIZE)
    device = LoopDevice(t, file)
    mirror = Mirror(t, count=1)
    mirror.daemon.tarn("image", "add", "vol0", f"d={device.path},overwrite", "--wait")
    mirror.op("set", "d", *SOON)
    mirror.write(64)
    wait_for("the marks to go", lambda: mirror.status()["marked_regions"] == 0)  # what is marked is copied anyway
    os.truncate(file, SIZE // 2)
    device.look_again()
    image = mirror.wait_out("d")
    check(re.search("shorter|size", str(image["reason"])), f"the reason is {image['reason']}")
    mirror.write(16, seed=2)
    os.truncate(file, SIZE)
    device.look_again()
    mirror.wait_in("d")
    mirror.check_content()
    mirror.daemon.stop()
    images.check_same([mirror.path("a"), device.path], SIZE)


def test_a_file_system_fills_up(t):
    """Rule 6, C10; issue 4 item 3: a sparse image on an ext4 that is full: the write fails with ENOSPC by io_uring, the image
    is out, clients go on; with space again it is restored, and holds everything."""
    small = loop_file_system(t, "small", 40 * MIB)
    mirror = Mirror(t, count=1)
    mirror.daemon.tarn("image", "add", "vol0", f"s={small}/s.img,meta={mirror.folder}/s.tarn", "--wait")
    mirror.op("set", "s", "return=manual")
    filler = fill(small)
    load = mirror.load(seed=5)
    load.run(30, until=lambda: mirror.image("s")["missing"])
    load.run(0.3)
    load.drain()
    load.close()
    image = mirror.wait_out("s")
    check(re.search("space|full", f"{image['reason']} {image['error']}"), f"the reason does not tell of space: {image}")
    os.unlink(filler)
    mirror.op("restore", "s", "--wait")
    mirror.check_content()
    mirror.daemon.stop()
    images.check_same([mirror.path("a"), f"{small}/s.img"], SIZE)


# ---- two daemons, and dead ones ----

def second_daemon(t, mirror):
    """Another node that was given the first one's state: it wants the same disks."""
    shutil.copytree(mirror.daemon.state, t.path("state2"), ignore=lambda _, names: [n for n in names if n.endswith(".sock")])
    return Daemon(t, state=t.path("state2"))


def reason_of(daemon):
    mirror = daemon.mirror("vol0")
    return f"{mirror['state']}: {mirror['reason']} " + " ".join(str(image["reason"]) for image in mirror["images"])


@rows([("files", False), ("block devices", True)])
def test_two_daemons_want_one_disk(t, row):
    """Rule 7, B12; issue 4 item 3: the second one serves nothing, touches nothing, and says who is in the way; it serves when
    the first is gone."""
    if row[1]:
        mirror, disk = with_device(t, ("hang=1",))
        mirror.op("promote", "d")
        mirror.op("remove", "a", "--wait")
    else:
        mirror = Mirror(t, image_settings=("hang=1",))  # it is also how long a lock is waited for
    mirror.write(16)
    second = second_daemon(t, mirror)
    second.start()
    said = second.mirror("vol0")
    check(said["state"] != "ACTIVE", "two daemons serve one disk")
    check(re.search("in use|locked", reason_of(second)), f"it does not say why: {reason_of(second)}")
    refused = second.tarn("mirror", "activate", "--force", "vol0", status=1)
    check(re.search("in use|locked", refused.err), f"it does not say why: {refused.err}")
    mirror.write(16, seed=2)
    mirror.check_content()
    mirror.daemon.stop()
    wait_for("the second one to serve", lambda: second.mirror("vol0")["state"] == "ACTIVE" or
             second.tarn("mirror", "activate", "vol0", status=None).status == 0, 30, every=0.3)
    second.wait_synchronized("vol0")
    handle = open_handle(second.uri("vol0"))
    mirror.ledger.check_all(lambda offset, length: handle.pread(length, offset))
    handle.shutdown()


def test_killed_with_requests_in_the_kernel(t):
    """Rule 7; issue 4 item 3: a daemon is killed while a device holds its writes, and cannot end before it answers. Until then
    the next one is refused, and says why; then it takes over, and what the dead one wrote late does no harm."""
    mirror, disk = with_device(t, ("hang=30", "return-after=1"))
    mirror.write(32)
    disk.hang()
    load = mirror.load(seed=6)
    load.run(1)
    stuck = mirror.daemon.process
    stuck.send_signal(signal.SIGKILL)
    check(stuck.poll() is None, "the killed one was gone at once: the test proves nothing")
    refused = t.run(*mirror.daemon.argv(), status=None)
    check(refused.status != 0 and re.search(rf"in use.*process {stuck.pid}\b", refused.err),
          f"the next one does not say what is in its way: {refused}")
    check("was killed, and cannot end before its disks have answered" in refused.err, f"it does not say why: {refused}")
    check(stuck.poll() is None, "the killed one ended before its disk answered: the test proves nothing")
    disk.go_on()
    stuck.wait(60)
    load.bury()  # only now are its sockets closed
    next_one = mirror.daemon.start()
    next_one.wait_state("vol0", "ACTIVE")
    mirror.wait_in("d", 90)
    mirror.check_content()
    compare(mirror, disk)


# ---- metadata ----

def test_metadata_is_damaged_byte_by_byte(t):
    """Rules 4, 10; issue 4 item 3: whatever byte or sector of the metadata of an image, or of the record in the state
    directory, is damaged, after a clean stop or SIGKILL: the daemon starts, and serves the newest data or nothing, and says
    why. Where both copies of something are lost it says that the metadata is damaged."""
    fleet = Fleet(t, 28, seed=24, behind_every=1)
    for how in ("a clean stop", "SIGKILL"):
        fleet.sweep(how, step=6)
        fleet.round(how)
        fleet.round(how, wreck=True)
    t.note(f"{sum(fleet.seen.values())} places were damaged: {fleet.seen}")
    check(fleet.seen["ATTENTION"] > 0, "no mirror was without its newest image: the run proves nothing")
    try:
        fleet.round("a clean stop", data=True)
    except Failed as failure:
        check("wrong data" in str(failure), f"wrong data was found for another reason: {failure}")
        return
    check(False, "wrong data was served, and nobody saw it")
