"""What a volume may hold, sector by sector, according to what its clients were answered.

Each write has an id and stamps it into every sector with that sector's number, so that lost, old, torn and misdirected
data are told apart. Per sector the ledger keeps every value that may be there: the last answered one, those answered
while it was in flight (the order of overlapping writes is the server's), and those that were never answered because the
server died. A value is ruled out when a write that was sent after its answer is answered. Reading narrows: what was
once seen there stays, until somebody writes."""
import struct
from dataclasses import dataclass, field

from .context import Failed

SECTOR = 512
STAMP = struct.Struct("<8sQQQ")
MAGIC = b"tarnload"
ZERO_SECTOR = bytes(SECTOR)
ZERO_ID = 0  # stands for "zeroes from the beginning on"


def stamp(write_id, sector, count):
    """The bytes of a write: each sector says who wrote it and where it belongs."""
    pack = STAMP.pack
    return b"".join(pack(MAGIC, write_id, number, write_id ^ ~number & 0xFFFFFFFFFFFFFFFF) * (SECTOR // STAMP.size)
                    for number in range(sector, sector + count))


def identify(content, sector):
    """The id of the write that a sector's content comes from; ZERO_ID if it is all zero."""
    if content == ZERO_SECTOR:
        return ZERO_ID
    head = content[:STAMP.size]
    magic, write_id, number, check = STAMP.unpack(head)
    if magic != MAGIC or check != write_id ^ ~number & 0xFFFFFFFFFFFFFFFF:
        raise Failed(f"sector {sector} holds bytes that nobody wrote: {head[:32].hex()}...")
    if content != head * (SECTOR // STAMP.size):
        raise Failed(f"sector {sector} is torn: it begins with write {write_id} and goes on otherwise")
    if number != sector:
        raise Failed(f"sector {sector} holds what write {write_id} wrote to sector {number}")
    return write_id


@dataclass
class Write:
    """A request that changes the volume, from its sending on."""
    id: int
    sector: int
    count: int
    value: int    # what a sector shows afterwards: the id, or ZERO_ID
    keeps: bool   # a trim may also leave what was there
    sent: int     # point in the ledger's order of events
    forced: bool = False  # FUA: on stable storage when it is answered


@dataclass
class Look:
    """A read, as sent: what was possible at that moment."""
    sector: int
    count: int
    values: list
    in_flight: frozenset
    last_id: int


@dataclass
class Ledger:
    """The volume's sectors and what each may hold."""
    sectors: int
    clock: int = 0
    last_id: int = 0
    answered_writes: int = 0
    possible: list = field(init=False)          # per sector: a tuple of (value, point of its answer)
    in_flight: dict = field(default_factory=dict)

    def __post_init__(self):
        self.possible = [((ZERO_ID, 0),)] * self.sectors

    # ---- writes ----

    def send(self, sector, count, zero=False, keeps=False):
        self.clock += 1
        self.last_id += 1
        write = Write(self.last_id, sector, count, ZERO_ID if zero else self.last_id, keeps, self.clock)
        self.in_flight[write.id] = write
        return write

    def answered(self, write):
        """It is there, and must stay."""
        self.clock += 1
        self.answered_writes += 1
        del self.in_flight[write.id]
        possible, sent, entry = self.possible, write.sent, (write.value, self.clock)
        for sector in range(write.sector, write.sector + write.count):
            before = possible[sector]
            if not write.keeps:
                before = tuple(value for value in before if value[1] > sent)
            possible[sector] = (*before, entry)

    def unanswered(self, write):
        """It may be there, or not, or in part; sectors are whole."""
        self.clock += 1
        del self.in_flight[write.id]
        entry = (write.value, self.clock)
        for sector in range(write.sector, write.sector + write.count):
            self.possible[sector] = (*self.possible[sector], entry)

    # ---- flushes: they matter to who loses power, see power.py ----

    def flush_sent(self):
        """The point that flushed() is given when it was answered."""
        return self.clock

    def flushed(self, point):
        pass

    # ---- reads ----

    def look(self, sector, count):
        return Look(sector, count, self.possible[sector:sector + count],
                    frozenset(write.value for write in self.in_flight.values()), self.last_id)

    def check_look(self, look, content):
        """What a read answered: old enough to be possible when it was sent, or newer."""
        newer_zero = any(write.value == ZERO_ID for write in self.in_flight.values())
        for index in range(look.count):
            sector = look.sector + index
            value = identify(content[index * SECTOR:(index + 1) * SECTOR], sector)
            if any(value == known for known, _ in look.values[index]):
                continue
            if value in look.in_flight or value > look.last_id:
                continue
            if value == ZERO_ID and (newer_zero or any(known == ZERO_ID for known, _ in self.possible[sector])):
                continue
            raise Failed(self.complaint(sector, value, look.values[index]))

    def check_all(self, read, piece_bytes=1 << 20, settle=True):
        """Reads the whole volume by read(offset, length); nothing may be in flight. What is seen is from then on the
        only thing possible: two reads of the same sector never differ."""
        if self.in_flight:
            raise Failed("check_all() with writes in flight")
        step = piece_bytes // SECTOR
        for start in range(0, self.sectors, step):
            count = min(step, self.sectors - start)
            content = read(start * SECTOR, count * SECTOR)
            for index in range(count):
                sector = start + index
                value = identify(content[index * SECTOR:(index + 1) * SECTOR], sector)
                possible = self.possible[sector]
                if len(possible) == 1 and possible[0][0] == value:
                    continue
                if not any(value == known for known, _ in possible):
                    raise Failed(self.complaint(sector, value, possible))
                if settle:
                    self.possible[sector] = ((value, self.clock),)

    @staticmethod
    def complaint(sector, value, possible):
        allowed = ", ".join("zeroes" if known == ZERO_ID else f"write {known}" for known, _ in possible)
        found = "zeroes" if value == ZERO_ID else f"write {value}"
        return f"sector {sector} (byte {sector * SECTOR}) holds {found}; what was answered allows {allowed}"
