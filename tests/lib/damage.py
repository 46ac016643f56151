"""Metadata that is damaged byte by byte: many mirrors at once, each with another byte, and one start of the daemon for all.

The files of all mirrors, and the state directory, are remembered as a daemon left them: after a clean stop, and after
SIGKILL. For each round they are put back as they were, into the same inodes and with the same times, so that nothing but the
damage is there to be noticed."""
import os
import random
import re
import shutil

from . import images
from .context import check
from .daemon import Daemon
from .images import KIB
from .load import open_handle

SIZE, REGION = 256 * KIB, 64 * KIB
RECORD_BYTES = 8192
# Bytes of a record's content that decide who is current (docs/disk-format.md): sequence and the like; generations, history,
# flags; state, generation and stamps of images a and b; the settled generation.
FIELDS = [*range(0, 64), *range(192, 352), *range(1120 + 144, 1120 + 192), *range(1312 + 144, 1312 + 192),
          *range(6248, 6256)]


def place_in_slot(field):
    """A sector holds 508 bytes of content, then the CRC."""
    return field // 508 * 512 + field % 508


SPOIL = {  # in one place
    "a bit": lambda old, chance: bytes([old[0] ^ 1 << chance.randrange(8)]) + old[1:],
    "zero": lambda old, chance: b"\0" + old[1:],
    "ff": lambda old, chance: b"\xff" + old[1:],
    "a sector of noise": lambda old, chance: chance.randbytes(512),
    "a sector of zeroes": lambda old, chance: bytes(512),
}

WRECK = {  # more than one copy can make good: the places, as (offset, bytes)
    "noise over both slots of the record": lambda length, chance: [(0, 512), (RECORD_BYTES, 512)],
    "a byte of noise in each slot of the record": lambda length, chance: [(chance.randrange(4096), 1),
                                                                       (RECORD_BYTES + chance.randrange(4096), 1)],
    "noise over everything behind the record": lambda length, chance: [(2 * RECORD_BYTES, length - 2 * RECORD_BYTES)],
    "noise over everything": lambda length, chance: [(0, length)],
}


class Fleet:
    """Mirrors m0, m1, ... of two images each. Of every third, or so, image b was cut off and is behind."""

    def __init__(self, t, count, seed, behind_every=3):
        self.t, self.random = t, random.Random(seed)
        self.folder, self.state = t.shm("fleet"), t.shm("fleet-state")
        os.mkdir(self.folder)
        self.daemon = Daemon(t, state=self.state).start()
        self.names = [f"m{number}" for number in range(count)]
        self.content = {}
        for number, name in enumerate(self.names):
            self.daemon.create(name, [self.path(name, "a"), self.path(name, "b")], size=SIZE,
                               settings=[f"region={REGION}", "marks=16"])
            self.write(name, b"older")
            if number % behind_every == 0:
                self.daemon.tarn("image", "fracture", name, "b", quiet=True)
            self.write(name, b"newer")
        self.daemon.stop()
        self.kept = {"a clean stop": self.keep("clean")}
        self.daemon.start()
        for name in self.names:
            self.daemon.wait_state(name, "ACTIVE")
            self.write(name, b"newest")
        self.daemon.kill()
        self.kept["SIGKILL"] = self.keep("killed")
        self.seen = {"ACTIVE": 0, "ATTENTION": 0, "INACTIVE": 0}

    def path(self, name, image):
        return os.path.join(self.folder, f"{name}-{image}.img")

    def write(self, name, word):
        """All of it, and answered; each mirror's content is its own."""
        piece = f"{name} holds the {word.decode()} content; ".encode()
        data = (piece * (SIZE // len(piece) + 1))[:SIZE]
        handle = open_handle(self.daemon.uri(name))
        handle.pwrite(data, 0)
        handle.shutdown()
        self.content[name] = data

    # ---- as it was ----

    def keep(self, label):
        kept = {"content": dict(self.content), "files": {}, "state": self.t.shm(f"state-{label}")}
        for file in os.listdir(self.folder):
            path = os.path.join(self.folder, file)
            with open(path, "rb") as opened:
                kept["files"][path] = (opened.read(), os.stat(path))
        shutil.copytree(self.state, kept["state"], ignore=lambda _, names: [n for n in names if n.endswith(".sock")])
        return kept

    def put_back(self, kept):
        for path, (content, stat) in kept["files"].items():
            with open(path, "r+b") as file:
                file.write(content)
                file.truncate(len(content))
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        shutil.rmtree(self.state)
        shutil.copytree(kept["state"], self.state)

    # ---- one round ----

    def damage(self, name, kept, wreck):
        """One place in one of a mirror's three records, of those parts that were ever written; or enough to make the metadata
        of an image useless. Returns what was done."""
        which = self.random.choice("ab" if wreck else ("a", "a", "b", "b", "state"))
        path = self.record_path(name, which)
        with open(path, "r+b") as file:
            content = file.read()
            if wreck:
                kind = self.random.choice(list(WRECK))
                for offset, length in WRECK[kind](len(content), self.random):
                    file.seek(offset)
                    file.write(bytes(byte ^ 0x5a for byte in content[offset:offset + length]) if length == 1 else
                               self.random.randbytes(length))
                what = f"{kind} of {which}.img.tarn"
                wrong = kind != "noise over everything behind the record"
                self.touch(path, kept)
                return which if wrong else None, what
            used = [start for start in range(0, len(content), 512) if any(content[start:start + 512])]
            kind = self.random.choice(list(SPOIL))
            offset = self.random.choice(used) + (0 if "sector" in kind else self.random.randrange(512))
            old = content[offset:offset + (512 if "sector" in kind else 1)]
            new = SPOIL[kind](old, self.random)
            file.seek(offset)
            file.write(new)
        self.touch(path, kept)
        return None, f"{kind} at byte {offset} of {'STATE/mirrors/NAME/record' if which == 'state' else which + '.img.tarn'}" + \
            (" (as it was)" if new == old else "")

    def damage_field(self, name, kept, field):
        """The same byte of both slots of one image's record, or of the two images' and the state directory's."""
        which = self.random.choice(("a", "b", "b", "all"))
        bits = 1 << self.random.randrange(8)
        for image in ("a", "b", "state") if which == "all" else (which,):
            path = self.record_path(name, image)
            with open(path, "r+b") as file:
                for slot in (0, RECORD_BYTES):
                    file.seek(slot + place_in_slot(field))
                    old = file.read(1)[0]
                    file.seek(-1, os.SEEK_CUR)
                    file.write(bytes([old ^ bits]))
            self.touch(path, kept)
        return which, f"bits {bits:02x} of byte {field} of the record of {which}, both slots"

    def record_path(self, name, which):
        return os.path.join(self.state, "mirrors", name, "record") if which == "state" else self.path(name, which) + ".tarn"

    @staticmethod
    def touch(path, kept):
        """Its times as they were: metadata rots without them."""
        if path in kept["files"]:
            stat = kept["files"][path][1]
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    def damage_data(self, name, kept):
        """The proof that wrong data would be seen: this is no metadata."""
        for image in "ab":
            with open(self.path(name, image), "r+b") as file:
                file.seek(self.random.randrange(SIZE))
                file.write(b"\xee")
            self.touch(self.path(name, image), kept)
        return None, "a byte of the data itself"

    def sweep(self, how, step=1):
        """Every byte that decides something (or every so many), in as many rounds as it takes."""
        fields = FIELDS[self.random.randrange(step)::step]
        for start in range(0, len(fields), len(self.names)):
            self.round(how, fields=fields[start:start + len(self.names)])

    def round(self, how, wreck=False, fields=None, data=False):
        kept = self.kept[how]
        self.put_back(kept)
        names = self.names[:len(fields)] if fields else self.names
        if data:
            done = {name: self.damage_data(name, kept) for name in names}
        elif fields:
            done = {name: self.damage_field(name, kept, field) for name, field in zip(names, fields)}
        else:
            done = {name: self.damage(name, kept, wreck) for name in names}
        start = len(self.daemon.log())
        self.daemon.start()
        status = {mirror["name"]: mirror for mirror in self.daemon.json("status")["mirrors"]}
        log = self.daemon.log()[start:]
        for name in names:
            image, what = done[name]
            what = f"{name}, after {how}, {what}"
            check(name in status, f"{what}: the mirror is not there any more")
            self.check_mirror(status[name], kept["content"][name], what)
            if image:
                said = [line for line in log.splitlines() if f" {name}: " in line] + [str(status[name])]
                check(re.search("metadata|unreadable|damaged", " ".join(said)), f"{what}: nobody says so: {said}")
        self.daemon.stop()
        for name in names:
            if status[name]["state"] == "ACTIVE" and all(image["state"] == "SYNCHRONIZED" and not image["sync"]
                                                         for image in status[name]["images"]):
                images.check_same([self.path(name, "a"), self.path(name, "b")], SIZE)

    def check_mirror(self, mirror, content, what):
        """Right data, or none and the reason; also when somebody asks for it."""
        name = mirror["name"]
        if mirror["state"] == "INACTIVE":
            check("damaged" in str(mirror["reason"]), f"{what}: INACTIVE, because {mirror['reason']}")
            self.daemon.tarn("mirror", "activate", name, status=None, quiet=True)
            mirror = self.daemon.mirror(name)
        check(mirror["state"] in self.seen, f"{what}: it is {mirror['state']} ({mirror['reason']})")
        self.seen[mirror["state"]] += 1
        if mirror["state"] != "ACTIVE":
            check(mirror["reason"], f"{what}: it is {mirror['state']} without a reason")
            return
        handle = open_handle(self.daemon.uri(name))
        for _ in range(2):  # reads are shared out over the images
            for offset in range(0, SIZE, REGION):
                check(handle.pread(REGION, offset) == content[offset:offset + REGION], f"{what}: wrong data is served")
        handle.shutdown()
