"""Power cuts: server and disks are killed together, and the disks lose what is in their caches."""
import nbd

from lib import images
from lib.context import Failed, check, limit, rows
from lib.images import KIB, MIB
from lib.load import open_handle
from lib.power import PowerCut, PowerVariant, check_power_totals

CYCLES = 2
VARIANTS = [
    ("block devices, and the state directory", PowerVariant("loop", volatile_state=True)),
    ("files, a flush takes long", PowerVariant("fuse", kind="fuse", write_delay_ms=1)),
    ("NBD servers", PowerVariant("nbd", kind="nbd")),
]


@rows(VARIANTS)
@limit(120)
def test_power_is_cut_under_load(t, row):
    """Issue 4 item 3; rules 1, 2, 3: what was flushed is there after a power cut, on images whose disks have a volatile
    cache; what was not may be lost, and the images end equal."""
    _, variant = row
    cut = PowerCut(t, variant, seed=len(variant.name), say=t.note)
    for _ in range(CYCLES):
        cut.cycle()
    check_power_totals(cut.totals)


@limit(120)
def test_disks_that_ignore_flushes_are_found(t):
    """The proof of the test above: with disks that answer a flush and do nothing, flushed data is lost, and it must find
    that."""
    cut = PowerCut(t, PowerVariant("liars", cache="unsafe", destage=False), seed=7)
    try:
        for _ in range(5):
            cut.cycle()
    except Failed as failure:
        check("what was answered allows" in str(failure), f"found for another reason: {failure}")
        return
    check(False, "flushed data was lost, and nobody saw it")


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
