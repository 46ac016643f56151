"""NBD by hand, for what a proper client would not say. Source: doc/proto.md of the NBD project."""
import socket
import struct

from .context import PATIENCE, Failed, check

INIT_MAGIC, OPTION_MAGIC, REPLY_MAGIC = 0x4E42444D41474943, 0x49484156454F5054, 0x3E889045565A9
REQUEST_MAGIC, SIMPLE_MAGIC = 0x25609513, 0x67446698
OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, OPT_INFO, OPT_GO, OPT_STRUCTURED = 1, 2, 3, 6, 7, 8
REP_ACK, REP_SERVER, REP_INFO = 1, 2, 3
REP_ERROR = 1 << 31
CMD_READ, CMD_WRITE, CMD_DISC, CMD_FLUSH, CMD_TRIM, CMD_CACHE, CMD_ZERO = range(7)
ERRORS = {"EPERM": 1, "EIO": 5, "ENOMEM": 12, "EINVAL": 22, "ENOSPC": 28, "EOVERFLOW": 75, "ENOTSUP": 95,
          "ESHUTDOWN": 108}


def request_bytes(command, offset=0, length=0, payload=b"", flags=0, cookie=1, magic=REQUEST_MAGIC):
    return struct.pack(">IHHQQI", magic, flags, command, cookie, offset, length) + payload


class Raw:
    """One connection. Everything blocks, at most as long as any test waits."""

    def __init__(self, address, source=None):
        """`address`: the path of a socket, or (host, port); `source`: the host that it comes from."""
        self.socket = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.socket.settimeout(PATIENCE)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect(address)

    def send(self, data):
        self.socket.sendall(data)

    def receive(self, length):
        data = b""
        while len(data) < length:
            piece = self.socket.recv(length - len(data))
            if not piece:
                raise Failed(f"the server closed the connection, {len(data)} of {length} bytes received")
            data += piece
        return data

    def is_closed(self, seconds=PATIENCE):
        """Waits for the server to hang up; whatever it still says is dropped."""
        self.socket.settimeout(seconds)
        try:
            while self.socket.recv(65536):
                pass
            return True
        except ConnectionError:
            return True
        except socket.timeout:
            return False

    def close(self):
        self.socket.close()

    # ---- handshake ----

    def hello(self, flags=3):
        init, option, server_flags = struct.unpack(">QQH", self.receive(18))
        check(init == INIT_MAGIC and option == OPTION_MAGIC, f"greeting {init:x} {option:x}")
        check(server_flags & 1, "the server does not speak fixed newstyle")
        self.send(struct.pack(">I", flags))
        return server_flags

    def option(self, number, data=b"", length=None):
        self.send(struct.pack(">QII", OPTION_MAGIC, number, len(data) if length is None else length) + data)

    def option_reply(self):
        magic, number, kind, length = struct.unpack(">QIII", self.receive(20))
        check(magic == REPLY_MAGIC, f"option reply magic {magic:x}")
        return number, kind, self.receive(length)

    def go(self, export, number=OPT_GO):
        name = export.encode()
        self.option(number, struct.pack(">I", len(name)) + name + struct.pack(">H", 0))
        while True:
            _, kind, data = self.option_reply()
            if kind == REP_ACK:
                return data
            check(kind == REP_INFO, f"GO was answered by {kind:x} {data!r}")

    def into(self, export):
        """As far as transmission."""
        self.hello()
        self.go(export)
        return self

    # ---- transmission, simple replies ----

    def request(self, command, offset=0, length=0, payload=b"", flags=0, cookie=1, magic=REQUEST_MAGIC):
        self.send(request_bytes(command, offset, length, payload, flags, cookie, magic))

    def reply(self):
        """(error, cookie); the payload of a read is the caller's to receive."""
        magic, error, cookie = struct.unpack(">IIQ", self.receive(16))
        check(magic == SIMPLE_MAGIC, f"reply magic {magic:x}")
        return error, cookie
