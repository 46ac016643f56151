"""Files that hold images: making, comparing, remembering, locking them."""
import contextlib
import fcntl
import hashlib
import os
import random
import stat
import struct

from .context import Failed

PIECE_BYTES = 1 << 20
KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


def make_sparse(path, size):
    with open(path, "wb") as file:
        file.truncate(size)
    return path


def make_random(path, size, seed=1):
    """A file full of bytes that no other seed gives."""
    source = random.Random(seed)
    with open(path, "wb") as file:
        left = size
        while left:
            piece = source.randbytes(min(left, PIECE_BYTES))
            file.write(piece)
            left -= len(piece)
    return path


def read_at(path, offset, length):
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(length)


def digest(path, size=None):
    """SHA-256 of a file, or of its first `size` bytes."""
    summary = hashlib.sha256()
    with open(path, "rb") as file:
        left = size if size is not None else os.fstat(file.fileno()).st_size
        while left:
            piece = file.read(min(left, PIECE_BYTES))
            if not piece:
                raise Failed(f"{path} is shorter than {size} bytes")
            summary.update(piece)
            left -= len(piece)
    return summary.hexdigest()


def first_difference(first, second, offset_base):
    for index, (one, other) in enumerate(zip(first, second)):
        if one != other:
            return offset_base + index
    return offset_base + min(len(first), len(second))


def check_same(paths, size):
    """All files hold the same `size` bytes; otherwise says where they first differ."""
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(path, "rb")) for path in paths]
        for offset in range(0, size, PIECE_BYTES):
            length = min(PIECE_BYTES, size - offset)
            pieces = [file.read(length) for file in files]
            for path, piece in zip(paths, pieces):
                if len(piece) != length:
                    raise Failed(f"{path} is shorter than {size} bytes")
                if piece != pieces[0]:
                    place = first_difference(pieces[0], piece, offset)
                    raise Failed(f"{paths[0]} and {path} differ from byte {place} on (sector {place // 512})")


def snapshot(*folders):
    """What lies in these folders: name -> (type, size, hash). Sockets come and go with the daemon and are left out."""
    found = {}
    for folder in folders:
        for place, names, files in os.walk(folder):
            for name in names + files:
                path = os.path.join(place, name)
                status = os.lstat(path)
                if stat.S_ISREG(status.st_mode):
                    found[path] = ("file", status.st_size, digest(path))
                elif stat.S_ISLNK(status.st_mode):
                    found[path] = ("link", os.readlink(path))
                elif not stat.S_ISSOCK(status.st_mode):
                    found[path] = (stat.S_IFMT(status.st_mode),)
    return found


def check_unchanged(before, after):
    gone, new = sorted(before.keys() - after.keys()), sorted(after.keys() - before.keys())
    changed = sorted(path for path in before.keys() & after.keys() if before[path] != after[path])
    if gone or new or changed:
        raise Failed(f"refused, but the disk changed: new {new}, gone {gone}, changed {changed}")


# ---- locks on the whole file, of the open file description, as the daemon takes them ----

F_OFD_GETLK, F_OFD_SETLK = 36, 37


def _lock_request(kind):
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)


@contextlib.contextmanager
def locked(path):
    """Another process's view: somebody holds the file for writing."""
    with open(path, "r+b") as file:
        fcntl.fcntl(file.fileno(), F_OFD_SETLK, _lock_request(fcntl.F_WRLCK))
        yield


def is_locked(path):
    """Would anybody who wants to write the file be kept out?"""
    with open(path, "r+b") as file:
        answer = fcntl.fcntl(file.fileno(), F_OFD_GETLK, _lock_request(fcntl.F_WRLCK))
        return struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK


# ---- the metadata's checksum, for tests that forge a block ----

_TABLE = []


def crc32c(data, crc=0):
    if not _TABLE:
        for byte in range(256):
            value = byte
            for _ in range(8):
                value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
            _TABLE.append(value)
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def deallocated(path, offset, length):
    """True if the range is a hole."""
    with open(path, "rb") as file:
        try:
            return os.lseek(file.fileno(), offset, os.SEEK_DATA) >= offset + length
        except OSError:
            return True


def drop_cache(path):
    """Asks the kernel to forget clean pages of a file, so that a read comes from the disk."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
