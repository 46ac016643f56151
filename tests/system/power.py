"""Power cuts: server and disks are killed together, and the disks lose what is in their caches."""
import errno

import nbd

from lib import images
from lib.context import Failed, check, limit, rows, wait_for
from lib.daemon import Daemon
from lib.images import KIB, MIB
from lib.load import open_handle
from lib.power import PowerCut, PowerVariant, check_power_totals
from lib.volatile_disk import VolatileDisk

CYCLES, CYCLES_MAX = 2, 12  # a busy machine may flush nothing before the first cuts
VARIANTS = [
    ("block devices, and the state directory", PowerVariant("loop", volatile_state=True)),
    ("files, a flush takes long", PowerVariant("fuse", kind="fuse", write_delay_ms=1)),
    ("NBD servers", PowerVariant("nbd", kind="nbd")),
]


@rows(VARIANTS)
def test_power_is_cut_under_load(t, row):
    """Issue 4 item 3; rules 1, 2, 3: what was flushed is there after a power cut, on images whose disks have a volatile
    cache; what was not may be lost, and the images end equal."""
    _, variant = row
    cut = PowerCut(t, variant, seed=len(variant.name), say=t.note)
    for number in range(CYCLES_MAX):
        if number >= CYCLES and cut.totals.flushed > 0:
            break
        cut.cycle()
    check_power_totals(cut.totals)


def test_disks_that_ignore_flushes_are_found(t):
    """The proof of the test above: with disks that answer a flush and do nothing, flushed data is lost, and it must find
    that, if the mirror's witnesses do not find it first (rule 16)."""
    cut = PowerCut(t, PowerVariant("liars", cache="unsafe", destage=False), seed=7)
    try:
        for _ in range(5):
            cut.cycle()
    except Failed as failure:
        found = "what was answered allows" in str(failure) or "it holds other bytes than were recorded" in str(failure)
        check(found, f"found for another reason: {failure}")
        return
    check(False, "flushed data was lost, and nobody saw it")


def write_and_fall(t, cut, **disk):
    """Two NBD servers with volatile caches below a mirror that allows none to be missing; a write is answered, and those of
    `cut` are lost. Returns the disks and the client, once the mirror is in ATTENTION and has closed its disks."""
    disks = {name: VolatileDisk(t, name, 16 * MIB, kind="nbd", **disk) for name in "ab"}
    for disk in disks.values():
        disk.power_on()
    daemon = Daemon(t).start()
    daemon.create("vol0", [f"{name}={disk.path},meta={t.path(name + '.meta')},overwrite" for name, disk in disks.items()],
                  settings=("max-missing=0", "suspend=600"))
    daemon.wait_synchronized("vol0")
    handle = open_handle(daemon.uri("vol0"))
    handle.pwrite(b"\x5a" * MIB, 0)
    for name in cut:
        disks[name].cut()
    for name in cut:
        disks[name].unplug()
    daemon.wait_state("vol0", "ATTENTION")
    return daemon, disks, handle


def power_on_again(daemon, disks, cut):
    for name in cut:
        disks[name].power_on()
    daemon.wait_state("vol0", "ACTIVE", seconds=120)


@limit(300)
def test_storage_servers_restart_one_after_the_other(t):
    """Rule 5: a mirror that falls flushes its healthy image before it closes it. That image's server restarts then, with all that is
    in its cache, and nobody sees it; the write that was answered is there all the same."""
    daemon, disks, handle = write_and_fall(t, "b", write_delay_ms=5)
    wait_for("image a to be closed", lambda: not disks["a"].is_connected(), seconds=120)
    check(images.read_at(disks["a"].medium, 0, MIB) == b"\x5a" * MIB, "image a is closed, and was not flushed")
    disks["a"].cut()
    disks["a"].unplug()
    power_on_again(daemon, disks, "ab")
    handle.flush()
    check(handle.pread(MIB, 0) == b"\x5a" * MIB, "a write that was answered and flushed is lost")
    check(daemon.mirror("vol0")["may_have_lost_since"] is None, "it says that something may be lost")
    handle.shutdown()
    daemon.stop()


@limit(300)
def test_a_flush_tells_of_what_a_fall_has_lost(t):
    """Rule 5: when no image can be flushed any more, the next flush on a connection that was there fails, once, and the status says
    why; one that is made later has nothing to be told."""
    daemon, disks, handle = write_and_fall(t, "ab")
    power_on_again(daemon, disks, "ab")
    try:
        handle.flush()
        check(False, "a flush is good, though what was answered before it was lost")
    except nbd.Error as error:
        check(error.errnum == errno.EIO, f"the flush failed with {error}")
    handle.pwrite(b"\xa5" * MIB, 0)
    handle.flush()
    status = daemon.mirror("vol0")
    check(status["may_have_lost_since"] and "may have been lost" in status["reason"], f"the status says {status['reason']}")
    handle.shutdown()
    handle = open_handle(daemon.uri("vol0"))
    handle.flush()
    check(handle.pread(MIB, 0) == b"\xa5" * MIB, "a flushed write is not there")
    handle.shutdown()
    daemon.stop()


ASKED = [
    ("a flush", lambda handle, data: (handle.pwrite(data, 0), handle.flush())),
    ("a write with FUA", lambda handle, data: handle.pwrite(data, 0, nbd.CMD_FLAG_FUA)),
    ("zeroes with FUA", lambda handle, data: handle.zero(len(data), 0, nbd.CMD_FLAG_FUA)),
]


@rows([("block devices", "loop"), ("files on FUSE", "fuse"), ("NBD servers", "nbd")])
def test_what_must_last_is_on_the_media(t, row):
    """Rule 3: when a flush, or a request with FUA, is answered, the data is behind the caches of both disks. Linux forgets
    RWF_DSYNC for asynchronous direct writes on FUSE: there it takes more."""
    cut = PowerCut(t, PowerVariant("power", kind=row[1]), seed=1)
    handle = open_handle(cut.daemon.uri("vol0"))
    for number, (what, ask) in enumerate(ASKED):
        for length in (512, 4 * KIB, 64 * KIB, MIB):
            data = bytes([number + 1]) * length
            ask(handle, data)
            if what.startswith("zeroes"):
                data = bytes(length)
            for disk in cut.data:
                check(images.read_at(disk.medium, 0, length) == data,
                      f"after {what}, {length} bytes: {disk.name} holds it in its cache only")
            handle.pwrite(b"\xee" * length, 0)
            check(any(images.read_at(disk.medium, 0, length) == data for disk in cut.data),
                  "the disks have no volatile cache: the test proves nothing")
    handle.shutdown()
