"""The checker's own tests: what it is given is spoilt on purpose, and it must find that. No daemon is needed."""
import os

from lib import images
from lib.context import Failed, check, rows
from lib.images import KIB
from lib.ledger import SECTOR, Ledger, stamp
from lib.power import PowerLedger

SECTORS = 64


class Volume:
    """A ledger and the bytes that a perfect server would hold."""

    def __init__(self):
        self.ledger, self.bytes = Ledger(SECTORS), bytearray(SECTORS * SECTOR)

    def send(self, sector, count, **kind):
        return self.ledger.send(sector, count, **kind)

    def apply(self, write):
        """The server does it."""
        content = stamp(write.id, write.sector, write.count) if write.value else bytes(write.count * SECTOR)
        self.bytes[write.sector * SECTOR:(write.sector + write.count) * SECTOR] = content

    def write(self, sector, count, **kind):
        """Sent, done, answered."""
        write = self.send(sector, count, **kind)
        self.apply(write)
        self.ledger.answered(write)
        return write

    def check(self):
        self.ledger.check_all(lambda offset, length: bytes(self.bytes[offset:offset + length]))


def lost(volume):
    before = bytes(volume.bytes)
    volume.write(5, 3)
    volume.bytes[:] = before


def lost_in_part(volume):
    before = bytes(volume.bytes)
    volume.write(5, 3)
    volume.bytes[6 * SECTOR:7 * SECTOR] = before[6 * SECTOR:7 * SECTOR]


def overwritten_by_older(volume):
    first = volume.write(5, 3)
    volume.write(4, 3)
    volume.apply(first)


def torn(volume):
    volume.write(5, 1)
    volume.bytes[5 * SECTOR + 256:6 * SECTOR] = bytes(256)


def misdirected(volume):
    write = volume.write(5, 1)
    volume.bytes[9 * SECTOR:10 * SECTOR] = stamp(write.id, 5, 1)


def one_bit(volume):
    volume.write(5, 1)
    volume.bytes[5 * SECTOR + 300] ^= 1


def foreign(volume):
    volume.bytes[7 * SECTOR:8 * SECTOR] = os.urandom(SECTOR)


def zeroes_lost(volume):
    write = volume.write(5, 1)
    volume.write(5, 1, zero=True)
    volume.apply(write)


def zeroes_instead(volume):
    volume.write(5, 1)
    volume.bytes[5 * SECTOR:6 * SECTOR] = bytes(SECTOR)


def back_and_forth(volume):
    """Never answered, seen, and then gone: two reads must not differ."""
    write = volume.send(5, 1)
    volume.ledger.unanswered(write)
    volume.apply(write)
    volume.check()
    volume.bytes[5 * SECTOR:6 * SECTOR] = bytes(SECTOR)


def after_the_next(volume):
    """An unanswered write that shows up when a later one was answered."""
    write = volume.send(5, 1)
    volume.ledger.unanswered(write)
    volume.write(5, 1)
    volume.apply(write)


@rows([(function.__name__.replace("_", " "), function) for function in (
    lost, lost_in_part, overwritten_by_older, torn, misdirected, one_bit, foreign, zeroes_lost, zeroes_instead,
    back_and_forth, after_the_next)])
def test_finds(_t, row):
    """Issue 2 item 10, "an honest simulator": wrong bytes planted in what the checker is given are found."""
    volume = Volume()
    volume.write(0, 32)
    volume.check()
    row[1](volume)
    try:
        volume.check()
    except Failed as failure:
        print(failure)
        return
    check(False, "the checker did not find it")


def test_allows(_t):
    """What a correct server may do is no finding: order of overlapping writes in flight, unanswered ones, trims."""
    volume = Volume()
    first, second = volume.send(3, 4), volume.send(5, 4)
    volume.ledger.answered(first)
    volume.ledger.answered(second)
    volume.apply(second)
    volume.apply(first)  # the server's order is not the order of the answers
    volume.check()
    volume.write(20, 4)
    volume.write(20, 2, zero=True, keeps=True)
    volume.check()
    volume.apply(volume.ledger.send(40, 1))
    for write in list(volume.ledger.in_flight.values()):
        volume.ledger.unanswered(write)
    volume.check()


# ---- power cuts: what was answered and not flushed may be lost, and nothing else ----

class VolatileVolume(Volume):
    """A disk with a cache. `medium` is what a power cut leaves."""

    def __init__(self):
        super().__init__()
        self.ledger, self.medium = PowerLedger(SECTORS), bytearray(SECTORS * SECTOR)

    def write(self, sector, count, forced=False, **kind):
        write = self.send(sector, count, **kind)
        write.forced = forced
        self.apply(write)
        self.ledger.answered(write)
        return write

    def flush(self):
        point = self.ledger.flush_sent()
        self.medium[:] = self.bytes
        self.ledger.flushed(point)

    def cut(self, bytes_left=None):
        for write in list(self.ledger.in_flight.values()):
            self.ledger.unanswered(write)
        self.ledger.power_cut()
        self.bytes[:] = bytes_left if bytes_left is not None else self.medium
        self.check()


def flushed_and_lost(volume):
    before = bytes(volume.medium)
    volume.write(5, 3)
    volume.flush()
    volume.cut(before)


def forced_and_lost(volume):
    volume.write(5, 3, forced=True)
    volume.cut()  # this disk ignores FUA


def flushed_and_older_again(volume):
    """What comes back is not even the newest that was not flushed: it is from before the flush."""
    older = volume.write(5, 3)
    volume.write(5, 3)
    volume.flush()
    volume.apply(older)
    volume.cut(bytes(volume.bytes))


def flushed_zeroes_lost(volume):
    volume.write(5, 3)
    volume.flush()
    before = bytes(volume.medium)
    volume.write(5, 3, zero=True)
    volume.flush()
    volume.cut(before)


def seen_and_lost(volume):
    """What was read after the power was back is on the medium: it stays over the next power cut."""
    volume.write(5, 3)
    volume.cut(bytes(volume.bytes))
    volume.cut(bytes(SECTORS * SECTOR))


@rows([(function.__name__.replace("_", " "), function) for function in (
    flushed_and_lost, forced_and_lost, flushed_and_older_again, flushed_zeroes_lost, seen_and_lost)])
def test_finds_after_a_power_cut(_t, row):
    """Issue 4 item 3: what was flushed and is lost with the power is found."""
    volume = VolatileVolume()
    try:
        row[1](volume)
    except Failed as failure:
        print(failure)
        return
    check(False, "the checker did not find it")


def test_allows_after_a_power_cut(_t):
    """What a disk with a cache may do: any of the unflushed writes may be lost, and those in flight may be there."""
    volume = VolatileVolume()
    volume.write(0, 16)
    volume.flush()
    older = volume.write(0, 8)
    volume.write(0, 4)
    volume.apply(older)  # only the older one of two got to the medium
    volume.cut(bytes(volume.bytes))
    volume.write(20, 4)
    flight = volume.send(24, 4)
    point = volume.ledger.flush_sent()  # sent before that one is answered: it says nothing about it
    volume.medium[:] = volume.bytes
    volume.ledger.answered(flight)
    volume.ledger.flushed(point)
    volume.cut()
    volume.apply(volume.send(30, 2))
    volume.cut(bytes(volume.bytes))


def test_finds_unequal_images(t):
    """B6: images that differ in one byte, or in length, are found, with the place."""
    paths = [images.make_random(t.path(name), 64 * KIB, seed=1) for name in ("a", "b")]
    images.check_same(paths, 64 * KIB)
    with open(paths[1], "r+b") as file:
        file.seek(40000)
        byte = file.read(1)
        file.seek(40000)
        file.write(bytes([byte[0] ^ 1]))
    try:
        images.check_same(paths, 64 * KIB)
    except Failed as failure:
        check("40000" in str(failure), f"the place is missing: {failure}")
        return
    check(False, "the difference was not found")
