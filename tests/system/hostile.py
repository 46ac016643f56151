"""Strangers on the sockets: the daemon survives, and another client does not notice."""
import json
import os
import random
import re
import socket
import struct
import time

from lib import images
from lib.context import Failed, check, limit, rows, wait_for
from lib.daemon import Daemon
from lib.images import MIB
from lib.ledger import SECTOR, Ledger
from lib.load import Load, open_handle, read_volume
from lib.raw_nbd import (CMD_DISC, CMD_FLUSH, CMD_READ, CMD_TRIM, CMD_WRITE, CMD_ZERO, ERRORS, OPT_ABORT,
                         OPT_EXPORT_NAME,
                         OPT_GO, OPT_INFO, OPT_LIST, OPT_STRUCTURED, OPTION_MAGIC, REP_ACK, REP_ERROR, Raw,
                         request_bytes)

SIZE = 8 * MIB


def served(t, size=SIZE):
    daemon = Daemon(t).start()
    daemon.create("vol0", [t.shm("a.img"), t.shm("b.img")], size=size)
    return daemon


class GoodClient:
    """Somebody who works meanwhile; each look() proves that he still can."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.load = Load(Ledger(SIZE // SECTOR), daemon.uri("vol0"), connections=2, seed=3)

    def look(self):
        self.daemon.check_alive()
        answered = self.load.ledger.answered_writes
        self.load.run(5, until=lambda: self.load.ledger.answered_writes > answered + 20)
        check(self.load.ledger.answered_writes > answered, "another client got no answer any more")

    def finish(self):
        self.look()
        self.load.drain()
        self.load.close()
        handle = open_handle(self.daemon.uri("vol0"))
        self.load.ledger.check_all(read_volume(handle))
        handle.shutdown()
        self.daemon.tarn("status")


def option(number, length, data=b"", magic=OPTION_MAGIC):
    return struct.pack(">QII", magic, number, length) + data


def name_data(length, name=b"vol0", infos=0):
    return struct.pack(">I", length) + name + struct.pack(">H", infos)


FLAGS = struct.pack(">I", 3)
HANDSHAKES = [
    ("random bytes at once", random.Random(1).randbytes(4096)),
    ("a request for a web page", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    ("unknown client flags", struct.pack(">I", 0xFFFFFFFF)),
    ("zeroes", bytes(4096)),
    ("wrong magic of an option", FLAGS + option(OPT_GO, 10, name_data(4), magic=1)),
    ("an option of 4 GiB", FLAGS + option(OPT_GO, 0xFFFFFFFF) + bytes(65536)),
    ("an unknown option of 4 GiB", FLAGS + option(77, 0xFFFFFFFF) + bytes(65536)),
    ("an export name of 4 GiB", FLAGS + option(OPT_EXPORT_NAME, 0xFFFFFFFF) + bytes(65536)),
    ("a name longer than its option", FLAGS + option(OPT_GO, 10, name_data(5000))),
    ("a name of 4 GiB - 1 in a small option", FLAGS + option(OPT_GO, 10, name_data(0xFFFFFFFF))),
    ("more infos than the option has", FLAGS + option(OPT_INFO, 10, name_data(4, infos=0xFFFF))),
    ("an option without its data", FLAGS + option(OPT_GO, 0)),
    ("data on LIST", FLAGS + option(OPT_LIST, 8, bytes(8))),
    ("data on STRUCTURED_REPLY", FLAGS + option(OPT_STRUCTURED, 8, bytes(8))),
    ("an unknown export by EXPORT_NAME", FLAGS + option(OPT_EXPORT_NAME, 7, b"nothing")),
    ("a name with a zero byte", FLAGS + option(OPT_GO, 10, name_data(4, b"vo\0l"))),
    ("half a handshake", FLAGS + option(OPT_GO, 10)[:9]),
]


@rows(HANDSHAKES)
def test_garbage_in_the_handshake(t, row):
    """Issue 2, bad input: garbage on the NBD socket; the daemon survives, another client works."""
    daemon = served(t)
    good = GoodClient(daemon)
    for hang_up in (False, True):
        bad = Raw(daemon.socket())
        try:
            bad.send(row[1])
        except ConnectionError:
            pass  # it had enough
        good.look()
        if hang_up:
            bad.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        bad.close()
        good.look()
    good.finish()


def test_options_that_are_refused_politely(t):
    """Issue 2 item 6: an unknown option, an unknown export, a bad length get an error reply, and the handshake goes
    on."""
    daemon = served(t)
    raw = Raw(daemon.socket())
    raw.hello()
    for number, data in ((99, b"what"), (OPT_GO, name_data(7, b"nothing")), (OPT_GO, name_data(5000)),
                         (OPT_INFO, name_data(7, b"nothing")), (OPT_LIST, b"data"), (OPT_STRUCTURED, b"data")):
        raw.option(number, data)
        answered, kind, _ = raw.option_reply()
        check(answered == number and kind & REP_ERROR, f"option {number} with {data!r} is answered by {kind:x}")
    raw.go("vol0", OPT_INFO)
    raw.go("vol0")
    raw.request(CMD_READ, 0, 512)
    check(raw.reply() == (0, 1), "a read after all that")
    raw.receive(512)
    raw.request(CMD_DISC)
    check(raw.is_closed(), "the connection stays open after DISC")
    raw = Raw(daemon.socket())
    raw.hello()
    raw.option(OPT_ABORT)
    check(raw.option_reply()[:2] == (OPT_ABORT, REP_ACK), "ABORT is not acknowledged")
    check(raw.is_closed(), "the connection stays open after ABORT")


END = SIZE
REQUESTS = [
    ("read past the end", CMD_READ, END - 512, 1024, b"", 0, "EINVAL"),
    ("read at the end", CMD_READ, END, 1, b"", 0, "EINVAL"),
    ("read far away", CMD_READ, 1 << 63, 512, b"", 0, "EINVAL"),
    ("read that wraps around", CMD_READ, (1 << 64) - 512, 1024, b"", 0, "EINVAL"),
    ("write past the end", CMD_WRITE, END - 512, 1024, bytes(1024), 0, "ENOSPC"),
    ("write far away", CMD_WRITE, 1 << 63, 512, bytes(512), 0, "ENOSPC"),
    ("write that wraps around", CMD_WRITE, (1 << 64) - 512, 1024, bytes(1024), 0, "ENOSPC"),
    ("trim past the end", CMD_TRIM, END - 512, 1024, b"", 0, ("EINVAL", "ENOSPC")),
    ("trim that wraps around", CMD_TRIM, (1 << 64) - 512, 1024, b"", 0, ("EINVAL", "ENOSPC")),
    ("zeroes past the end", CMD_ZERO, END - 512, 1024, b"", 0, "ENOSPC"),
    ("zeroes of 4 GiB", CMD_ZERO, 0, 0xFFFFFFFF, b"", 0, "ENOSPC"),
    ("an unknown command", 99, 0, 0, b"", 0, "EINVAL"),
    ("an unknown flag on a read", CMD_READ, 0, 512, b"", 1 << 9, "EINVAL"),
    ("an unknown flag on a write", CMD_WRITE, 0, 512, b"\xff" * 512, 1 << 9, "EINVAL"),
    ("an unknown flag on a flush", CMD_FLUSH, 0, 0, b"", 1 << 9, "EINVAL"),
    ("structured flag without structured replies", CMD_READ, 0, 512, b"", 1 << 2, "EINVAL"),
]


@rows(REQUESTS)
def test_requests_that_are_refused(t, row):
    """Issue 2 item 6: errors as the protocol's text wants them; nothing is written, the connection goes on."""
    _, command, offset, length, payload, flags, error = row
    daemon = served(t)
    raw = Raw(daemon.socket()).into("vol0")
    raw.request(command, offset, length, payload, flags, cookie=0x1234567890)
    answer, cookie = raw.reply()
    allowed = [ERRORS[name] for name in ((error,) if isinstance(error, str) else error)]
    check(answer in allowed, f"answered by error {answer}, expected {error}")
    check(cookie == 0x1234567890, f"cookie {cookie:x}")
    raw.request(CMD_READ, 0, 512, cookie=2)
    check(raw.reply() == (0, 2), "the next request is not served")
    check(raw.receive(512) == bytes(512), "a refused request changed the volume")
    raw.request(CMD_READ, END - 512, 512, cookie=3)
    check(raw.reply() == (0, 3), "the last sector is not served")
    check(raw.receive(512) == bytes(512), "a refused request changed the last sector")


def reads(count):
    """Many large reads in one piece, so that sending them does not wait for the server."""
    return b"".join(request_bytes(CMD_READ, 0, MIB, cookie=cookie) for cookie in range(count))


FATAL = [
    ("wrong magic of a request", lambda raw: raw.request(CMD_READ, 0, 512, magic=0x12345678), True),
    ("random bytes", lambda raw: raw.send(random.Random(2).randbytes(28 * 40)), True),
    ("half a request", lambda raw: raw.send(b"\x25\x60\x95\x13\0"), False),
    ("half a payload", lambda raw: raw.request(CMD_WRITE, 0, 1 * MIB, b"\xff" * 1000), False),
    ("a payload of 4 GiB that never comes", lambda raw: raw.request(CMD_WRITE, 0, 0xFFFFFFFF, b"\xff" * 65536), None),
    ("a read of 4 GiB", lambda raw: raw.request(CMD_READ, 0, 0xFFFFFFFF), None),
    ("hundreds of reads whose answers nobody takes", lambda raw: raw.send(reads(300)), False),
]


@rows(FATAL)
def test_garbage_in_transmission(t, row):
    """Issue 2, bad input: wrong magic ends the connection; half a request or an answer that nobody takes harms only its
    client."""
    _, act, must_close = row
    daemon = served(t)
    good = GoodClient(daemon)
    bad = [Raw(daemon.socket()).into("vol0") for _ in range(3)]
    for raw in bad:
        try:
            act(raw)
        except ConnectionError:
            pass
    if must_close:
        check(bad[0].is_closed(), "the connection goes on after garbage")
    good.look()
    for raw in bad:
        raw.close()
    good.finish()
    wait_for("the sessions to end", lambda: can_deactivate(daemon))


def can_deactivate(daemon):
    """Refused while a client is connected."""
    return daemon.tarn("mirror", "deactivate", "vol0", status=None, quiet=True).status == 0


def test_clients_that_vanish(t):
    """Issue 2 item 6: clients that die with requests in flight leave nothing behind; the images stay equal."""
    daemon = served(t)
    good = GoodClient(daemon)
    for number in range(20):
        raw = Raw(daemon.socket()).into("vol0")
        raw.send(b"".join(request_bytes(CMD_READ, 0, 65536, cookie=cookie) +
                          request_bytes(CMD_FLUSH, cookie=cookie + 100)
                          for cookie in range(50)))
        if number % 2:
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()
        good.look()
    good.finish()
    check(can_deactivate(daemon), "a client that is gone is still counted")


def test_many_connections(t):
    """Thesis 5: hundreds of idle connections; those beyond a limit are turned away, the rest are served."""
    daemon = served(t)
    good = GoodClient(daemon)
    idle = []
    for _ in range(300):
        try:
            idle.append(Raw(daemon.socket()))
        except OSError:
            break
    good.look()
    check(len(idle) >= 16, f"only {len(idle)} connections are taken")
    for raw in idle:
        raw.close()
    good.finish()


def test_a_crowd_at_the_door(t):
    """Issue 4, bad input: hundreds of clients that connect while the daemon is busy elsewhere (stopped) are not refused,
    and all are served when it goes on."""
    daemon = served(t)
    daemon.pause()
    crowd = [Raw(daemon.socket()) for _ in range(500)]
    for raw in crowd:  # what each has to say lies there before anybody is let in: a handshake may not take long
        raw.send(struct.pack(">I", 3) + option(OPT_GO, 10, name_data(4)))
    daemon.resume()
    for raw in crowd:
        raw.receive(18)
        while raw.option_reply()[1] != REP_ACK:
            pass
    good = GoodClient(daemon)
    good.look()
    for raw in crowd:
        raw.close()
    good.finish()


@limit(300)
def test_a_crowd_that_never_says_what_it_wants(t):
    """Issue 11, 4: as many silent clients as there are places, and more, all the time: who knows what he wants is let in, and who does not
    come to the point is hung up on."""
    daemon = served(t)
    silent = [Raw(daemon.socket()) for _ in range(1024)]
    good = GoodClient(daemon)
    for _ in range(5):
        silent += [Raw(daemon.socket()) for _ in range(100)]
        handle = open_handle(daemon.uri("vol0"))
        handle.pread(4096, 0)
        handle.shutdown()
    good.look()
    check(silent[0].is_closed(), "the first one is still there")
    check(silent[-1].is_closed(), "the last one is still there")
    said = [line for line in daemon.log().splitlines() if "has not finished its handshake" in line]
    check(0 < len(said) <= 20, f"{len(said)} lines of it")
    for raw in silent:
        raw.close()
    good.finish()


CONTROL = [
    ("random bytes", random.Random(4).randbytes(8192)),
    ("random bytes with line ends",
     b"\n".join(random.Random(5).randbytes(50).replace(b"\n", b"x") for _ in range(200)) + b"\n"),
    ("a line without end", b"x" * (4 << 20)),
    ("text that is no JSON", b"hello\n"),
    ("a number", b"42\n"),
    ("an empty object", b"{}\n"),
    ("an array", b"[1,2,3]\n"),
    ("deeply nested", b"[" * 100000 + b"\n"),
    ("a command of another type", b'{"command": 7}\n'),
    ("an unknown command", b'{"command": "no-such-command"}\n'),
    ("arguments of another type", b'{"command": "mirror activate", "name": {"a": []}}\n'),
    ("a name of a megabyte", b'{"command": "mirror activate", "name": "' + b"x" * 1000000 + b'"}\n'),
    ("bad UTF-8", b'{"command": "\xff\xfe"}\n'),
    ("a zero byte inside", b'{"command": "stat\\u0000us"}\n'),
    ("empty lines", b"\n" * 10000),
    ("a web request", b"GET / HTTP/1.1\r\n\r\n"),
]


@rows(CONTROL)
def test_garbage_on_the_control_socket(t, row):
    """Issue 2, bad input: garbage on the control socket; the daemon survives, says something or hangs up, and the next
    command works."""
    daemon = served(t)
    with socket.socket(socket.AF_UNIX) as bad:
        bad.settimeout(120)
        bad.connect(daemon.control())
        try:
            bad.sendall(row[1])
            bad.shutdown(socket.SHUT_WR)
            said = bad.recv(65536)
        except OSError:
            said = b""
    for line in said.splitlines()[:1]:
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise Failed(f"the answer to garbage is no JSON: {line!r}") from error
        check(answer.get("ok") is not True, f"garbage was answered by success: {line!r}")
    daemon.check_alive()
    check(daemon.mirror("vol0")["state"] == "ACTIVE", "garbage changed a state")


def ask(daemon, line):
    """What is answered to one line on the control socket, and the connection."""
    one = socket.socket(socket.AF_UNIX)
    one.settimeout(120)
    one.connect(daemon.control())
    one.sendall(line + b"\n")
    said = b""
    while not said.endswith(b"\n"):
        said += one.recv(65536)
    return json.loads(said.splitlines()[0]), one


def test_a_request_with_too_many_keys(t):
    """Issue 11, 9: a request of 80,000 keys, within the limit of a line, is refused for their number, before they are looked at."""
    daemon = served(t)
    line = b'{"command": "status"' + b"".join(b',"%d":1' % number for number in range(80000)) + b"}"
    answer, one = ask(daemon, line)
    check(not answer["ok"] and "more than 1000 keys" in answer["error"], f"{answer}")
    one.close()
    check(daemon.mirror("vol0")["state"] == "ACTIVE", "a long request changed a state")


def test_readers_of_events_leave_room_for_commands(t):
    """Issue 11, 9: as many followers of the events as there are connections, and more: the administrator gets in, and those beyond their
    share are told why not."""
    daemon = served(t)
    answers = [ask(daemon, b'{"command": "events"}') for _ in range(140)]
    taken = [one for answer, one in answers if answer["ok"]]
    check(len(taken) == 32, f"{len(taken)} of 140 follow the events")
    check("32 readers follow the events" in answers[-1][0]["error"], f"{answers[-1][0]}")
    daemon.tarn("status")
    refused = daemon.tarn("events", status=1)
    check("end one of them" in refused.err, f"{refused}")
    for _, one in answers:
        one.close()
    wait_for("the readers' places", lambda: ask(daemon, b'{"command": "events"}')[0]["ok"])


@rows([("a few", 8), ("more than it takes", 200)])
def test_silent_control_connections(t, row):
    """Issue 2, bad input: connections that say nothing, or half a line, keep nobody out while they are few; when they
    are many the next one is told so, and all is well when they are gone."""
    daemon = served(t)
    silent = []
    for number in range(row[1]):
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(2)
        try:
            one.connect(daemon.control())
            one.sendall(b'{"command": ' if number % 2 else b"")
        except OSError:
            pass
        silent.append(one)
    result = daemon.tarn("status", status=None)
    check(result.status == 0 or row[1] > 8, f"8 silent connections keep others out: {result}")
    check(result.status == 0 or re.search("connections|busy", result.err), f"refused without saying why: {result}")
    for one in silent:
        one.close()
    wait_for("the next command to work", lambda: daemon.tarn("status", status=None, quiet=True).status == 0)


def test_a_client_that_reads_slowly(t):
    """Thesis 5: a client that takes its answers slowly does not hold back another one."""
    daemon = served(t)
    slow = Raw(daemon.socket()).into("vol0")
    slow.send(reads(100))
    handle = open_handle(daemon.uri("vol0"))
    for number in range(200):  # held back by the slow one these would never end
        handle.pwrite(bytes([number]) * 4096, number * 4096)
    handle.shutdown()
    slow.close()


def take(raw, length):
    """What is there of so many bytes; it does not wait."""
    try:
        return raw.socket.recv(length, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return b""


@limit(300)
@rows([("forty", 40), ("more than there are buffers", 300)])
def test_readers_that_trickle(t, row):
    """Issue 11, 9: readers that have asked for much, and take a few KiB now and then, do not hold what others need; nobody is hung up on for
    it, and each gets what it asked for in the end."""
    daemon = served(t, size=32 * MIB)
    handle = open_handle(daemon.uri("vol0"))
    content = random.Random(6).randbytes(32 * MIB)
    for offset in range(0, len(content), MIB):
        handle.pwrite(content[offset:offset + MIB], offset)
    slow = [Raw(daemon.socket()).into("vol0") for _ in range(row[1])]
    for number, raw in enumerate(slow):
        raw.send(b"".join(request_bytes(CMD_READ, (number + k) % 32 * MIB, MIB, cookie=k) for k in range(20)))
    taken = [b"" for _ in slow]
    for number in range(60):  # held back by the others these would not end before those are hung up on
        offset = number % 31 * MIB + 512
        check(handle.pread(MIB, offset) == content[offset:offset + MIB], "another client reads something else")
        taken = [before + take(raw, 4096) for before, raw in zip(taken, slow)]
    check("takes nothing of its answers" not in daemon.log(), "somebody was hung up on")
    for number in (0, 1, len(slow) - 1):
        said = taken[number] + slow[number].receive(20 * (16 + MIB) - len(taken[number]))
        for at in range(0, len(said), 16 + MIB):
            _, error, cookie = struct.unpack(">IIQ", said[at:at + 16])
            offset = (number + cookie) % 32 * MIB
            check(error == 0 and said[at + 16:at + 16 + MIB] == content[offset:offset + MIB], f"answer {cookie} is wrong")
    for raw in slow:
        raw.close()
    handle.shutdown()


def reserved_bytes(daemon):
    """What the daemon said at its start that it keeps for clients."""
    amounts = re.search(r"reserved ([0-9.]+)([KMG]) for .*?, ([0-9.]+)([KMG]) for NBD", daemon.log())
    check(amounts, "the log does not say what is reserved")
    unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    return int(float(amounts[1]) * unit[amounts[2]] + float(amounts[3]) * unit[amounts[4]])


def resident_bytes(daemon):
    with open(f"/proc/{daemon.pid()}/status", encoding="utf-8") as status:
        return 1024 * int(re.search(r"VmRSS:\s+(\d+) kB", status.read())[1])


def stall_in_payload(raw, number):
    """64 MiB are announced; between nothing and 200 KB of them come."""
    raw.socket.setblocking(False)
    raw.socket.send(request_bytes(CMD_WRITE, SIZE + number * 4096, 64 * MIB, b"\xee" * (number * 7919 % 200000)))


def stall_in_answers(raw, number):
    """64 MiB are asked for, and never taken."""
    raw.socket.setblocking(False)
    raw.socket.send(request_bytes(CMD_READ, number * 4096, 64 * MIB) * 3)


@rows([("inside a payload that they send", stall_in_payload),
       ("inside answers that they do not take", stall_in_answers)])
def test_a_thousand_stalled_clients(t, row):
    """Issue 4 item 1: 1,000 clients that stall inside 64 MiB leave the daemon's memory under the reserve that it printed
    at start, and another client working; when they vanish their places are free at once."""
    _, stall = row
    daemon = served(t, size=128 * MIB)
    good = GoodClient(daemon)
    for _ in range(2):
        crowd = []
        for number in range(1000):
            raw = Raw(daemon.socket()).into("vol0")
            stall(raw, number)
            crowd.append(raw)
            if number % 250 == 0:
                good.look()
        for _ in range(3):
            good.look()
        resident, reserved = resident_bytes(daemon), reserved_bytes(daemon)
        check(resident < reserved, f"{resident >> 20} MiB are in use, {reserved >> 20} MiB were reserved")
        t.note(f"{resident >> 20} of {reserved >> 20} MiB in use with 1,000 clients that stall")
        for raw in crowd:  # and at once the next thousand
            raw.close()
    good.look()
    good.load.drain()
    good.load.close()
    wait_for("the sessions to end", lambda: can_deactivate(daemon))


KIB = 1024
# name, offset, length, bytes that are sent before the client stalls, bytes of it that the volume may show afterwards
DEATHS = [("4 KiB", 4096, 4 * KIB, 700, 0),
          ("32 KiB in the middle of a sector", 200, 32 * KIB, 20000, 0),
          ("64 KiB but for one byte", 0, 64 * KIB, 64 * KIB - 1, 0),
          ("100 KiB: whole blocks at most", 4096 + 100, 100 * KIB, 20100, 20100),
          ("1 MiB: whole blocks at most", 512, 1024 * KIB, 700000, 700000)]


@rows(DEATHS)
def test_a_client_that_stalls_in_mid_payload_and_dies(t, row):
    """Issue 10: no reader ever sees a torn sector. A write of up to 64 KiB whose payload never came whole has not happened;
    of a longer one there are whole blocks, cut at multiples of 4096 of the device. The images are equal."""
    _, offset, length, sent, most = row
    paths = [t.shm(f"{name}.img") for name in "ab"]
    daemon = Daemon(t).start()
    daemon.create("vol0", paths, size=4 * MIB)
    handle = open_handle(daemon.uri("vol0"))
    handle.pwrite(b"\xaa" * (2 * MIB), 0)
    bad = Raw(daemon.socket()).into("vol0")
    bad.request(CMD_WRITE, offset, length, b"\xee" * sent)
    for _ in range(30):  # what the stall lets through has come, and so has the moment at which its buffer is taken back
        check_cut(handle.pread(2 * MIB, 0), offset, most)
        time.sleep(0.05)
    bad.close()
    handle.shutdown()
    wait_for("the sessions to end", lambda: can_deactivate(daemon))
    contents = [images.read_at(path, 0, 2 * MIB) for path in paths]
    check_cut(contents[0], offset, most)
    check(contents[0] == contents[1], "the images differ")


def check_cut(content, offset, most):
    """New bytes from `offset` on, up to a multiple of 4096, and no further than they were sent; all else is old."""
    new = len(content[offset:]) - len(content[offset:].lstrip(b"\xee"))
    check(new <= most, f"{new} bytes of a write are seen that never came whole")
    check(new == 0 or (offset + new) % 4096 == 0, f"the write is cut at {offset + new}")
    check(content == b"\xaa" * offset + b"\xee" * new + b"\xaa" * (len(content) - offset - new), "there is something else")


def test_descriptors_do_not_leak(t):
    """Thesis 5: after many short connections the daemon has as many open files as before."""
    daemon = served(t)

    def count():
        return len(os.listdir(f"/proc/{daemon.pid()}/fd"))

    def visit(times):
        for _ in range(times):
            open_handle(daemon.uri("vol0")).shutdown()
            Raw(daemon.socket()).close()
            daemon.tarn("status", quiet=True)
    visit(5)
    before = count()
    visit(40)
    wait_for("the descriptors to be closed", lambda: count() <= before + 2)
