"""The checker's own tests: what it is given is spoilt on purpose, and it must find that. No daemon is needed."""
import os

from lib import images
from lib.context import Failed, check, rows
from lib.images import KIB
from lib.ledger import SECTOR, Ledger, stamp

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
