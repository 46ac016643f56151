"""A client that keeps many requests in flight on several connections, and remembers what it was answered."""
import errno
import random
import select
import time
from dataclasses import dataclass

import nbd

from .context import Failed
from .ledger import SECTOR, Ledger, stamp

READABLE = select.POLLIN | select.POLLHUP | select.POLLERR


@dataclass
class Mix:
    """What is asked, in per cent; the rest are plain writes."""
    reads: int = 20
    zeroes: int = 4
    trims: int = 4
    flushes: int = 3
    fua: int = 5             # of the writes
    hot: int = 30            # of all, in a small part of the volume, so that requests overlap
    hot_sectors: int = 512
    bytes_max: int = 64 << 10


class Connection:
    """One libnbd handle and what is in flight on it."""

    def __init__(self, uri, structured=True):
        self.handle = nbd.NBD()
        self.handle.set_request_structured_replies(structured)
        self.handle.connect_uri(uri)
        self.buffers = {}  # a request's buffer must outlive it

    def in_flight(self):
        return self.handle.aio_in_flight()

    def is_dead(self):
        return self.handle.aio_is_dead() or self.handle.aio_is_closed()


class Load:
    """Requests by a seeded random choice, at most `depth` open on each of `connections`."""

    def __init__(self, ledger: Ledger, uri, connections=4, depth=16, seed=1, mix=None):
        self.ledger = ledger
        self.uri = uri
        self.depth = depth
        self.random = random.Random(seed)
        self.mix = mix or Mix()
        self.connections = [Connection(uri, structured=index % 2 == 0) for index in range(connections)]
        self.failure = None
        self.dying = False   # the server was killed: errors are expected from now on
        self.requests = 0
        self.reads_checked = 0

    # ---- one request ----

    def choose_place(self):
        """Small requests are more frequent than large ones; a part of them meet in a hot area."""
        count = 1 << self.random.randrange(0, (self.mix.bytes_max // SECTOR).bit_length())
        count = self.random.randint(max(1, count // 2), count)
        span = self.mix.hot_sectors if self.random.randrange(100) < self.mix.hot else self.ledger.sectors
        count = min(count, span)
        return self.random.randint(0, min(span, self.ledger.sectors) - count), count

    def send(self, connection):
        kind = self.random.randrange(100)
        mix = self.mix
        self.requests += 1
        sector, count = self.choose_place()
        if kind < mix.reads:
            self.send_read(connection, sector, count)
        elif kind < mix.reads + mix.flushes:
            self.send_flush(connection)
        elif kind < mix.reads + mix.flushes + mix.zeroes:
            write = self.ledger.send(sector, count, zero=True)
            connection.handle.aio_zero(count * SECTOR, sector * SECTOR, self.completion(connection, write, None))
        elif kind < mix.reads + mix.flushes + mix.zeroes + mix.trims:
            write = self.ledger.send(sector, count, zero=True, keeps=True)
            connection.handle.aio_trim(count * SECTOR, sector * SECTOR, self.completion(connection, write, None))
        else:
            self.send_write(connection, sector, count)

    def send_write(self, connection, sector, count):
        write = self.ledger.send(sector, count)
        buffer = nbd.Buffer.from_bytearray(bytearray(stamp(write.id, sector, count)))
        write.forced = self.random.randrange(100) < self.mix.fua
        flags = nbd.CMD_FLAG_FUA if write.forced else 0
        connection.buffers[write.id] = buffer
        connection.handle.aio_pwrite(buffer, sector * SECTOR, self.completion(connection, write, write.id), flags)

    def send_flush(self, connection):
        point = self.ledger.flush_sent()

        def done(error):
            if error.value == 0:
                self.ledger.flushed(point)
            else:
                self.request_failed("flush", error.value)
            return 1
        connection.handle.aio_flush(done)

    def send_read(self, connection, sector, count):
        look = self.ledger.look(sector, count)
        buffer = nbd.Buffer(count * SECTOR)
        key = ("read", self.requests)
        connection.buffers[key] = buffer

        def done(error):
            del connection.buffers[key]
            if error.value == 0:
                self.guarded(lambda: self.ledger.check_look(look, bytes(buffer.to_bytearray())))
                self.reads_checked += 1
            else:
                self.request_failed("read", error.value)
            return 1
        connection.handle.aio_pread(buffer, sector * SECTOR, done)

    def completion(self, connection, write, key):
        def done(error):
            if key is not None:
                del connection.buffers[key]
            if error.value == 0:
                self.ledger.answered(write)
                return 1
            self.ledger.unanswered(write)
            self.request_failed("write", error.value)
            return 1
        return done

    def request_failed(self, what, number):
        if not self.dying:
            self.failure = self.failure or Failed(f"a {what} failed: {errno.errorcode.get(number, number)}")

    def guarded(self, call):
        """An exception inside a libnbd callback would only be printed; keep it for the loop."""
        try:
            call()
        except Failed as failure:
            self.failure = self.failure or failure

    # ---- the loop ----

    def step(self, timeout_ms=10, sending=True):
        """Sends what fits, waits for the sockets, takes answers."""
        poll, by_socket = select.poll(), {}
        for connection in self.connections:
            if connection.is_dead():
                if not self.dying:
                    raise Failed("the server closed a connection")
                continue
            if sending:
                self.fill(connection, self.depth)
                if connection.is_dead():
                    continue
            direction, socket = connection.handle.aio_get_direction(), connection.handle.aio_get_fd()
            wanted = (select.POLLIN if direction & nbd.AIO_DIRECTION_READ else 0) | \
                (select.POLLOUT if direction & nbd.AIO_DIRECTION_WRITE and not self.dying else 0)
            poll.register(socket, wanted)
            by_socket[socket] = connection
        for socket, events in poll.poll(timeout_ms) if by_socket else []:
            self.advance(by_socket[socket].handle, events)
        if self.failure:
            raise self.failure
        return bool(by_socket)

    def advance(self, handle, events):
        """libnbd asks for reading first: an answer may make the writing unnecessary."""
        direction = handle.aio_get_direction()
        try:
            if events & READABLE and direction & nbd.AIO_DIRECTION_READ:
                handle.aio_notify_read()
            elif events & select.POLLOUT and direction & nbd.AIO_DIRECTION_WRITE:
                handle.aio_notify_write()
            elif events & (select.POLLHUP | select.POLLERR):
                handle.aio_notify_write()  # it wanted to write only, and there is nobody any more
        except nbd.Error as error:
            if not self.dying:
                self.failure = self.failure or Failed(f"libnbd: {error}")

    def run(self, seconds, until=None):
        """Load for a time, or until until() is true."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not (until and until()):
            self.step()

    def burst(self, depth):
        """Sends much at once and takes no answer: what a SIGKILL should find in flight."""
        for connection in self.connections:
            self.fill(connection, depth)

    def fill(self, connection, depth):
        try:
            while not connection.is_dead() and connection.in_flight() < depth:
                self.send(connection)
        except nbd.Error as error:
            raise Failed(f"the server closed a connection: {error}") from error

    def drain(self, seconds=120):
        """Sends nothing more and waits for all answers."""
        deadline = time.monotonic() + seconds
        while any(connection.in_flight() for connection in self.connections):
            self.step(sending=False)
            if time.monotonic() > deadline:
                raise Failed(f"{len(self.ledger.in_flight)} writes were not answered within {seconds} s")

    def bury(self):
        """The server was killed. Takes the answers that it had still sent, and returns how many writes got none."""
        self.dying = True
        before = len(self.ledger.in_flight)
        unanswered_before = self.ledger.answered_writes
        deadline = time.monotonic() + 120  # the kernel closes a killed server's sockets when it comes to it
        while any(not connection.is_dead() for connection in self.connections):
            self.step(sending=False, timeout_ms=100)
            if time.monotonic() > deadline:
                raise Failed("a connection outlived its server")
        lost = before - (self.ledger.answered_writes - unanswered_before)
        for write in list(self.ledger.in_flight.values()):
            self.ledger.unanswered(write)
        return lost

    def close(self):
        for connection in self.connections:
            connection.handle.shutdown()
        self.connections = []


def open_handle(uri, structured=True):
    """A connected libnbd handle for synchronous calls."""
    return Connection(uri, structured).handle


def read_volume(handle):
    """For Ledger.check_all()."""
    return lambda offset, length: handle.pread(length, offset)
