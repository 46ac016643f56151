"""Which disk is it: block devices that change places or are replaced between two lives, and metadata that travels with its disk."""
import contextlib
import fcntl
import json
import os
import shutil
import struct
import time

from lib import images
from lib.context import check, limit, rows, wait_for
from lib.daemon import Daemon
from lib.disks import loop_device
from lib.images import MIB
from lib.ledger import SECTOR, Ledger
from lib.load import Load, open_handle, read_volume

SIZE = 16 * MIB


def image(daemon, name, mirror="vol0"):
    return next(found for found in daemon.mirror(mirror)["images"] if found["name"] == name)


def write(daemon, offset, data, mirror="vol0"):
    handle = open_handle(daemon.uri(mirror))
    handle.pwrite(data, offset)
    handle.flush()
    handle.shutdown()


def read(daemon, offset, length, mirror="vol0"):
    handle = open_handle(daemon.uri(mirror))
    data = handle.pread(length, offset)
    handle.shutdown()
    return data


@contextlib.contextmanager
def two_devices(t, size=SIZE):
    """Loop devices on a.raw and b.raw: their names and files."""
    files = [images.make_sparse(t.path(f"{name}.raw"), size) for name in "ab"]
    with loop_device(t, files[0]) as a, loop_device(t, files[1]) as b:
        yield (a, b), files


def attach(t, devices, files):
    """These files behind these devices, whatever was behind them."""
    for device in devices:
        t.run("losetup", "--detach", device)
    for device, file in zip(devices, files):
        t.run("losetup", device, file)


def told(daemon, *words):
    """Is there one line of the log with all of these?"""
    lines = [line for line in daemon.log().splitlines() if all(word in line for word in words)]
    check(lines, f"nothing in the log has {words}: {daemon.log()[-2000:]}")


# ---- devices that changed places ----

@rows([("b is behind", True), ("both are equal", False)])
def test_swapped_devices_are_found(t, row):
    """Two devices have each other's names after a restart, as sdb and sdc do: each is used as what it is, that is said, and
    nothing is overwritten."""
    with two_devices(t) as (devices, files):
        daemon = Daemon(t).start()
        daemon.create("vol0", [f"{device},overwrite" for device in devices])
        daemon.wait_synchronized("vol0")
        write(daemon, 0, b"1" * MIB)
        if row[1]:
            daemon.tarn("image", "fracture", "vol0", "b")
            write(daemon, 0, b"2" * MIB)
        daemon.stop()
        before = [images.read_at(file, 0, SIZE) for file in files]
        attach(t, devices, files[::-1])
        daemon.start()
        daemon.wait_state("vol0", "ACTIVE")
        check(read(daemon, 0, MIB) == (b"2" if row[1] else b"1") * MIB, "an old copy is served")
        for name, at in (("a", devices[1]), ("b", devices[0])):
            found = image(daemon, name)
            check(found["places"] == [at], f"image {name} is not said to be at {at}: {found}")
            check(f"is at {at} now" in daemon.tarn("status").out, "tarn status does not say it")
            told(daemon, f"image {name}", f"is at {at} now", "/dev/disk/by-id")
        check([images.read_at(file, 0, SIZE) for file in files] == before, "something was overwritten")
        if row[1]:
            daemon.tarn("image", "restore", "vol0", "b", "--wait")
        write(daemon, 2 * MIB, b"3" * MIB)
        daemon.tarn("mirror", "deactivate", "vol0")
        images.check_same(files, SIZE)
        attach(t, devices, files)  # and back
        daemon.tarn("mirror", "activate", "vol0")
        check(image(daemon, "a")["places"] is None, "a is at its path again, and it is not said")
        check(daemon.mirror("vol0")["reason"] is None, "all is well, and it is not said")
        daemon.stop()


def test_a_device_that_is_another(t):
    """At a's path is a device that nobody knows: it is not used by itself, what it is and what it was is said, and nothing is written
    to it. An administrator who means it gets a full copy."""
    with two_devices(t) as (devices, files):
        other = images.make_random(t.path("other.raw"), SIZE, seed=5)
        daemon = Daemon(t).start()
        daemon.create("vol0", [f"{device},overwrite" for device in devices])
        daemon.wait_synchronized("vol0")
        write(daemon, 0, b"1" * MIB)
        kept = image(daemon, "b")["devices"]
        check(kept[0]["path"] == devices[1] and any(fact.startswith("file ") for fact in kept[0]["facts"]), f"{kept}")
        check(kept == daemon.json("image", "get", "vol0", "b")["devices"], "image get says something else")
        check("file " in daemon.tarn("image", "get", "vol0", "b").out, "image get does not show it")
        daemon.stop()
        attach(t, devices, [files[0], other])
        daemon.start()
        found = daemon.mirror("vol0")
        check(found["state"] == "ATTENTION" and "another device than it was" in found["reason"], f"{found}")
        check(images.read_at(other, 0, SIZE) == images.read_at(images.make_random(t.path("same.raw"), SIZE, seed=5), 0, SIZE),
              "the other disk was written to")
        daemon.tarn("mirror", "activate", "vol0", "--force")
        daemon.wait_synchronized("vol0")
        check(image(daemon, "b")["devices"] != kept, "the new device is not remembered")
        daemon.stop()
        daemon.start()
        daemon.wait_state("vol0", "ACTIVE")
        daemon.tarn("mirror", "deactivate", "vol0")
        images.check_same([files[0], other], SIZE)
        daemon.stop()


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82f63b78 * (crc & 1)
    return crc ^ 0xffffffff


def set_identity(path, slot, identity):
    """In both slots of a record (docs/disk-format.md): sectors of 508 bytes of content, then the CRC."""
    with open(path, "r+b") as file:
        for start in (0, 8192):
            file.seek(start)
            sectors = file.read(8192)
            content = bytearray(b"".join(sectors[at:at + 508] for at in range(0, 8192, 512)))
            at = 1120 + 192 * slot + 168
            content[at:at + 8] = identity.to_bytes(8, "little")
            content[12:16] = bytes(4)
            crc = crc32c(content).to_bytes(4, "little")
            content[12:16] = crc
            file.seek(start)
            file.write(b"".join(bytes(content[at:at + 508]) + crc for at in range(0, len(content), 508)))


def mix(value):
    bits = (1 << 64) - 1
    value = value + 0x9e3779b97f4a7c15 & bits
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9 & bits
    value = (value ^ value >> 27) * 0x94d049bb133111eb & bits
    return value ^ value >> 31


@rows([("nothing is kept, the record is of now", None, "ACTIVE"),
       ("nothing is kept, the record is from before devices were known", mix(mix(0)) | 1, "ACTIVE"),
       ("nothing is kept, the record is of another device", 12345, "ATTENTION")])
def test_from_before_devices_were_known(t, row):
    """A mirror of a tarnd that kept nothing of devices, or whose config.json was lost: the record tells, and what is there is kept from
    now on, also through a crash."""
    _, identity, state = row
    with two_devices(t) as (devices, _):
        daemon = Daemon(t).start()
        daemon.create("vol0", [f"{device},overwrite" for device in devices])
        daemon.wait_synchronized("vol0")
        daemon.stop()
        folder = os.path.join(daemon.state, "mirrors/vol0")
        path = os.path.join(folder, "config.json")
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        for entry in config["images"]:
            del entry["devices"]
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        stores = [os.path.join(folder, "record"), *(entry["meta"] for entry in config["images"])]
        for store in stores if identity else []:
            set_identity(store, 1, identity)
        daemon.start()
        check(daemon.mirror("vol0")["state"] == state, f"{daemon.mirror('vol0')}")
        if state == "ACTIVE":
            wait_for("the devices to be kept", lambda: "facts" in open(path, encoding="utf-8").read())
            daemon.kill()
            daemon.start()
            daemon.wait_state("vol0", "ACTIVE")
        daemon.stop()


# ---- metadata in the tail of a device ----

ROOM = 8 * MIB  # behind the volume: metadata, its locator, and more


def tail_mirror(t, daemon, devices, *more):
    words = []
    for device in devices:
        words += ["--image", f"{device},overwrite,meta=tail"]
    return daemon.tarn("mirror", "create", "vol0", "--size", SIZE, *words, *more)


def test_a_tail_lives_as_its_mirror_does(t):
    """meta=tail: nothing of an image lies in the state directory, a crash is recovered from, the data is where it always is, and what
    is destroyed leaves zeroes behind."""
    with two_devices(t, SIZE + ROOM) as (devices, files):
        daemon = Daemon(t).start()
        said = tail_mirror(t, daemon, devices, "--activate")
        check("not touched" not in said.err, f"the tail is written to: {said}")
        check("state directory" not in said.err, f"what is in the tail is said to be in the state directory: {said}")
        check(os.listdir(os.path.join(daemon.state, "meta")) == [], "there is metadata in the state directory")
        daemon.wait_synchronized("vol0")
        ledger = Ledger(SIZE // SECTOR)
        load = Load(ledger, daemon.uri("vol0"), seed=4)
        load.run(0.5)
        load.burst(64)
        daemon.kill()
        load.bury()
        daemon.start()
        daemon.wait_synchronized("vol0")
        handle = open_handle(daemon.uri("vol0"))
        ledger.check_all(read_volume(handle))
        handle.shutdown()
        daemon.tarn("mirror", "deactivate", "vol0")
        images.check_same([images_part(t, file) for file in files], SIZE)
        daemon.tarn("image", "remove", "vol0", "b", "--wait")
        check(images.read_at(files[1], SIZE, ROOM) == bytes(ROOM), "the tail of an image that was removed is not zeroed")
        daemon.tarn("mirror", "activate", "vol0")
        daemon.tarn("image", "add", "vol0", f"b={devices[1]},overwrite,meta=tail", "--wait", quiet=True)
        daemon.tarn("mirror", "deactivate", "vol0")
        images.check_same([images_part(t, file) for file in files], SIZE)
        daemon.tarn("mirror", "destroy", "vol0", "--force")
        for file in files:
            check(images.read_at(file, SIZE, ROOM) == bytes(ROOM), "something is left in the tail")
        tail_mirror(t, daemon, devices, "--activate")  # and again
        daemon.wait_synchronized("vol0")
        write(daemon, 0, b"9" * MIB)
        daemon.tarn("mirror", "deactivate", "vol0")
        for device, file in zip(devices, files):  # a larger device is still the same
            os.truncate(file, 2 * SIZE + ROOM)
            t.run("losetup", "--set-capacity", device)
        daemon.tarn("mirror", "activate", "vol0")
        check(read(daemon, 0, MIB) == b"9" * MIB and daemon.mirror("vol0")["reason"] is None, "a device that has grown")
        daemon.tarn("mirror", "deactivate", "vol0")
        daemon.tarn("mirror", "destroy", "vol0", "--force")
        daemon.stop()


@limit(180)
def test_a_tail_that_was_half_made(t):
    """SIGKILL while a mirror is made in tails: it is there, whole, or nothing is, and the tails are zero again."""
    with two_devices(t, SIZE + ROOM) as (devices, files):
        outcomes = set()
        daemon = Daemon(t)
        for number in range(10):
            daemon.start()
            words = [word for device in devices for word in ("--image", f"{device},overwrite,meta=tail")]
            client = t.spawn(*daemon.tarn_argv("mirror", "create", "vol0", "--size", str(SIZE), *words, "--json"))
            time.sleep(number * 0.02)
            daemon.kill()
            client.wait()
            daemon.start()
            there = daemon.json("status")["mirrors"]
            outcomes.add(len(there))
            if there:
                daemon.tarn("mirror", "activate", "vol0")
                daemon.wait_synchronized("vol0")
                daemon.tarn("mirror", "deactivate", "vol0")
                daemon.tarn("mirror", "destroy", "vol0", "--force")
            for file in files:
                check(images.read_at(file, SIZE, ROOM) == bytes(ROOM), f"something is left in a tail, round {number}")
            daemon.stop()
        check(0 in outcomes, f"never killed before it was there: {outcomes}")


@rows([("in the tail again", ",meta=tail"), ("in the state directory", "")])
def test_a_tail_of_an_earlier_mirror(t, row):
    """A device with the metadata of another node's mirror: refused, naming it; with `overwrite` that is given up, and nobody takes the
    device for what it was."""
    with two_devices(t, SIZE + ROOM) as (devices, files):
        daemon = Daemon(t).start()
        tail_mirror(t, daemon, devices)
        daemon.stop()
        lose_state(daemon)
        daemon.start()
        words = ("mirror", "create", "new", "--size", SIZE, "--image", f"{devices[0]}{row[1]}")
        result = daemon.tarn(*words, status=1)
        check("image a of mirror vol0" in result.err and len(result.err.splitlines()) == 1, f"{result}")
        daemon.tarn(*words[:-1], f"{words[-1]},overwrite", quiet=True)
        found = examine(daemon, devices[0], status=0 if row[1] else 1)[0]
        check(found["mirror"]["name"] == "new" if row[1] else found["where"] is None, f"{found}")
        check(examine(daemon, devices[1])[0]["mirror"]["name"] == "vol0", "the other device is not left alone")
        daemon.stop()


def locator(offset, length):
    """A sound one (docs/disk-format.md), as anybody can write it."""
    block = bytearray(b"TARNTAIL" + struct.pack("<II", 1, 0) + bytes(range(16)) + struct.pack("<QQ", offset, length) + bytes(4048))
    block[12:16] = struct.pack("<I", crc32c(block))
    return bytes(block)


@rows([("all but the first MiB of a device of 40G", 40960 * MIB, MIB, 40958 * MIB, ",meta=tail", True),
       ("a length that makes the sum wrap", SIZE + ROOM, MIB, 0xfffffffffff00000, ",meta=tail", False),
       ("the data, and the new metadata in the tail", SIZE + ROOM, MIB, SIZE + ROOM - 2 * MIB, ",meta=tail", True),
       ("the data, and the new metadata elsewhere", SIZE + ROOM, MIB, SIZE + ROOM - 2 * MIB, "", True),
       ("an end before the locator", SIZE + ROOM, MIB, MIB, ",meta=tail", False)])
def test_a_planted_tail(t, row):
    """A locator that names what is not metadata: what it names is never zeroed, `overwrite` or not, and the daemon goes on meanwhile."""
    _, size, offset, length, meta, believed = row
    with two_devices(t, size) as (devices, files):
        data = images.read_at(images.make_random(t.path("random"), SIZE, seed=6), 0, SIZE)
        with open(files[0], "r+b") as file:
            file.write(data)
            file.seek(size - MIB)
            file.write(locator(offset, length))
        daemon = Daemon(t).start()
        words = ("mirror", "create", "vol0", "--size", SIZE, "--image")
        if meta or believed:
            said = daemon.tarn(*words, f"{devices[0]}{meta}", status=1).err
            check(len(said.splitlines()) == 1 and "?" not in said, f"{said}")
            check("metadata of Tarn is in it" in said if believed else "not empty" in said, f"{said}")
        daemon.tarn(*words, f"{devices[0]}{meta},overwrite", status=0 if believed else 1, quiet=True)
        check(images.read_at(files[0], 0, SIZE) == data, "the data was written to")
        if believed:
            found = examine(daemon, devices[0], status=0 if meta else 1)[0]
            check(found["where"] == ("tail" if meta else None), f"{found}")
        daemon.stop()


def images_part(t, file):
    path = t.path("part-" + os.path.basename(file))
    with open(path, "wb") as out:
        out.write(images.read_at(file, 0, SIZE))
    return path


def signed(place, sign):
    def put(file):
        with open(file, "r+b") as out:
            out.seek(place, os.SEEK_END)
            out.write(sign)
    return put


@rows([("a GPT", signed(-512, b"EFI PART"), "GPT"),
       ("md 1.0", signed(-8192, b"\xfc\x4e\x2b\xa9"), "md array"),
       ("md 0.90", signed(-65536, b"\xfc\x4e\x2b\xa9"), "md array"),
       ("DDF", signed(-512, b"\xde\x11\xde\x11"), "DDF"),
       ("ZFS", signed(-131072, b"\x0c\xb1\xba" + bytes(5)), "ZFS"),
       ("one byte", signed(-1, b"x"), f"byte {SIZE + ROOM - 1}"),
       ("one byte where the metadata would begin", signed(-2 * MIB, b"x"), "byte")])
def test_a_tail_that_holds_something(t, row):
    """What somebody keeps at the end of a device is never written over: refused with one line that says what it is; nothing has changed."""
    _, put, word = row
    with two_devices(t, SIZE + ROOM) as (devices, files):
        put(files[1])
        before = images.read_at(files[1], 0, SIZE + ROOM)
        daemon = Daemon(t).start()
        result = daemon.tarn("mirror", "create", "vol0", "--size", SIZE, "--image", f"{devices[0]},meta=tail",
                             "--image", f"{devices[1]},overwrite,meta=tail", status=1)
        check(word in result.err and len(result.err.splitlines()) == 1, f"{result}")
        check(images.read_at(files[1], 0, SIZE + ROOM) == before, "it was written to")
        check(images.read_at(files[0], SIZE, ROOM) == bytes(ROOM), "the first tail was made all the same")
        check(daemon.json("status")["mirrors"] == [], "there is a mirror")
        daemon.stop()


def test_no_room_for_a_tail(t):
    """A device with no room, a file, a disk of parts: refused, one line says why; and what has room is told of it."""
    with two_devices(t, SIZE + ROOM) as (devices, _):
        daemon = Daemon(t).start()
        for image_spec, size, word in ((f"{devices[0]},meta=tail", SIZE + ROOM - MIB, "room"),
                                       (f"{t.path('a.img')},meta=tail", SIZE, "block device"),
                                       (f"concat:{devices[0]}@0+8M,meta=tail", 8 * MIB, "block device")):
            result = daemon.tarn("mirror", "create", "vol0", "--size", size, "--image", image_spec, status=1)
            check(word in result.err and len(result.err.splitlines()) == 1, f"{result}")
        said = daemon.tarn("mirror", "create", "vol0", "--size", SIZE, "--image", devices[0], quiet=True)
        check("meta=tail" in said.err and "state directory" in said.err, f"{said}")
        check(f"{devices[0]} may be the name of another device after a restart" in said.err, f"{said}")
        daemon.stop()


def test_tails_find_their_disks(t):
    """Swapped between two lives, by what lies on them; written over, the image is missing and nothing else is."""
    with two_devices(t, SIZE + ROOM) as (devices, files):
        daemon = Daemon(t).start()
        tail_mirror(t, daemon, devices, "--activate")
        daemon.wait_synchronized("vol0")
        write(daemon, 0, b"1" * MIB)
        daemon.stop()
        copies = [t.path("copy-a.raw"), t.path("copy-b.raw")]
        for file, copy in zip(files, copies):  # on other disks, of which no kernel knows anything
            t.run("cp", "--sparse=always", file, copy)
        attach(t, devices, copies[::-1])
        daemon.start()
        daemon.wait_state("vol0", "ACTIVE")
        check(image(daemon, "a")["places"] == [devices[1]], f"{image(daemon, 'a')}")
        write(daemon, MIB, b"2" * MIB)
        daemon.stop()
        with open(copies[1], "r+b") as file:
            file.seek(SIZE)
            file.write(bytes(ROOM))
        daemon.start()
        daemon.wait_state("vol0", "ACTIVE")
        found = image(daemon, "b")
        check(found["missing"] and "holds the device of image a" in (found["error"] or ""), f"{found}")
        daemon.stop()
        attach(t, devices, copies)
        daemon.start()
        daemon.wait_state("vol0", "ACTIVE")
        found = image(daemon, "b")
        check(found["missing"] and "holds no metadata" in (found["error"] or ""), f"{found}")
        check(images.read_at(copies[1], MIB, MIB) == b"2" * MIB, "it was written to")
        refused = daemon.tarn("image", "restore", "vol0", "b", status=1)
        check("holds data" in refused.err and "'tarn image sync vol0 b'" in refused.err, refused.err)
        check(images.read_at(copies[1], MIB, MIB) == b"2" * MIB, "it was written to")
        daemon.tarn("image", "sync", "vol0", "b", "--wait")
        daemon.wait_synchronized("vol0")
        daemon.stop()


@rows([("by facts, b goes", False, "b"), ("by tails, b goes", True, "b"), ("by tails, a goes", True, "a")])
def test_an_image_removed_while_swapped(t, row):
    """The devices have changed places, and one image is removed: its tail is zeroed where it is, and the other image is found where it is
    from then on, also after a restart."""
    _, tails, gone = row
    with two_devices(t, SIZE + ROOM) as (devices, files):
        daemon = Daemon(t).start()
        if tails:
            tail_mirror(t, daemon, devices, "--activate")
        else:
            daemon.create("vol0", [f"{device},overwrite" for device in devices], size=SIZE)
        daemon.wait_synchronized("vol0")
        write(daemon, 0, b"1" * MIB)
        daemon.stop()
        attach(t, devices, files[::-1])
        daemon.start()
        daemon.wait_state("vol0", "ACTIVE")
        if gone == "a":
            daemon.tarn("image", "promote", "vol0", "b")
        said = daemon.tarn("image", "remove", "vol0", gone, "--wait")
        check("left behind" not in said.err, f"{said}")
        left, lost, at = (("a", 1, devices[1]) if gone == "b" else ("b", 0, devices[0]))
        check(images.read_at(files[lost], SIZE, ROOM) == bytes(ROOM), "the tail of what was removed is not zeroed")
        for _ in range(2):
            found = image(daemon, left)
            check(found["disks"] == [at] and found["places"] is None, f"{found}")
            check(read(daemon, 0, MIB) == b"1" * MIB, "the data is not there")
            daemon.restart()
            daemon.wait_state("vol0", "ACTIVE")
        daemon.tarn("mirror", "deactivate", "vol0")
        daemon.tarn("mirror", "destroy", "vol0", "--force")
        check(images.read_at(files[1 - lost], SIZE, ROOM) == bytes(ROOM), "the tail of the last one is not zeroed")
        daemon.stop()


def test_tails_destroyed_while_swapped(t):
    """Both tails are zeroed where they are; one whose device is not there is said to be left behind."""
    with two_devices(t, SIZE + ROOM) as (devices, files):
        daemon = Daemon(t).start()
        for there in (files[::-1], [files[1], t.path("other.raw")]):
            images.make_sparse(t.path("other.raw"), SIZE + ROOM)
            attach(t, devices, files)
            tail_mirror(t, daemon, devices)
            attach(t, devices, there)
            said = daemon.tarn("mirror", "destroy", "vol0", "--force")
            swapped = there == files[::-1]
            check(images.read_at(files[1], SIZE, ROOM) == bytes(ROOM), "b's tail is not zeroed where it is")
            check((images.read_at(files[0], SIZE, ROOM) == bytes(ROOM)) is swapped, "a's tail")
            check(("image a: the metadata" in said.err and "left behind" in said.err) is not swapped, f"{said}")
        daemon.stop()


# ---- examine, import ----

def examine(daemon, *paths, status=0):
    result = daemon.tarn("image", "examine", *paths, "--json", status=status)
    return json.loads(result.out)


def lose_state(daemon):
    shutil.rmtree(daemon.state)


def file_mirror(t, daemon, names="ab", name="vol0", active=True):
    paths = [t.path(f"{name}-{letter}.img") for letter in names]
    daemon.create(name, paths, size=SIZE, activate=active)
    if active:
        daemon.wait_synchronized(name)
    return paths


@rows([("files, stopped", False, False), ("files, killed", False, True), ("tails, stopped", True, False), ("tails, killed", True, True)])
def test_import_after_the_state_is_lost(t, row):
    """The state directory is gone: the disks tell what they are, with no daemon; the mirror is rebuilt from them, INACTIVE, and has
    every answered write."""
    _, tails, kill = row
    with two_devices(t, SIZE + ROOM) as (devices, files):
        daemon = Daemon(t).start()
        if tails:
            tail_mirror(t, daemon, devices, "--activate")
            daemon.wait_synchronized("vol0")
        paths = list(devices) if tails else file_mirror(t, daemon)
        uuid = daemon.mirror("vol0")["uuid"]
        write(daemon, MIB, b"1" * MIB)
        found = examine(daemon, *paths)
        check([disk["in_use"] for disk in found] == [True, True], f"in use, and not said: {found}")
        daemon.kill() if kill else daemon.stop()
        lose_state(daemon)
        found = examine(daemon, *paths)
        for disk, name, role in zip(found, "ab", ("master", "slave")):
            check(disk["mirror"] == {"name": "vol0", "uuid": uuid} and disk["image"]["name"] == name, f"{disk}")
            check(disk["image"]["role"] == role and disk["image"]["state"] == "SYNCHRONIZED", f"{disk}")
            check(disk["where"] == ("tail" if tails else "beside") and disk["clean"] is (not kill), f"{disk}")
            check(disk["record_slots"] == ["sound", "sound"] and disk["volumes"][0]["size"] == SIZE, f"{disk}")
            check(not disk["in_use"] and disk["error"] is None, f"{disk}")
        said = daemon.tarn("image", "examine", *paths).out
        check(uuid in said and "image       b, slave, SYNCHRONIZED" in said, said)
        daemon.start()
        result = daemon.tarn("mirror", "import", paths[0], status=1)
        check("image b" in result.err and len(result.err.splitlines()) == 1, f"{result}")
        result = daemon.tarn("mirror", "import", *paths[::-1], "--json")
        mirror = daemon.mirror("vol0")
        check(mirror["state"] == "INACTIVE" and mirror["uuid"] == uuid, f"{mirror}")
        check([(one["name"], one["disks"]) for one in mirror["images"]] == [("a", [paths[0]]), ("b", [paths[1]])], f"{mirror}")
        daemon.restart()  # it is there for good
        check(daemon.mirror("vol0")["state"] == "INACTIVE", "imported, and not INACTIVE after a restart")
        daemon.tarn("mirror", "activate", "vol0")
        check(read(daemon, MIB, MIB) == b"1" * MIB, "an answered write is lost")
        daemon.wait_synchronized("vol0")
        write(daemon, 0, b"2" * MIB)
        daemon.tarn("mirror", "deactivate", "vol0")
        images.check_same([images_part(t, path) for path in paths], SIZE)
        daemon.stop()


@rows([("a sound one", False), ("a damaged one", True)])
def test_a_guest_writes_what_looks_like_a_tail(t, row):
    """What lies at the end of a volume is its guest's: an image in a file is what the metadata beside it says, whatever that looks like."""
    with two_devices(t, SIZE + ROOM) as (devices, files):
        daemon = Daemon(t).start()
        tail_mirror(t, daemon, devices)
        daemon.stop()
        forged = bytearray(images.read_at(files[0], SIZE, ROOM))
    check(examine(daemon, files[0])[0]["where"] == "tail", "a copy of a device is not known by its tail")
    if row[1]:
        for place in range(0, ROOM, 4096):  # the locators among them, too
            forged[place + 40] ^= 1
    lose_state(daemon)
    daemon.start()
    paths = [t.path(f"{name}.img") for name in "ab"]
    daemon.create("guest", paths, size=SIZE + ROOM)
    daemon.wait_synchronized("guest")
    write(daemon, SIZE, bytes(forged), "guest")
    daemon.stop()
    for path, name in zip(paths, "ab"):
        found = examine(daemon, path)[0]
        check(found["where"] == "beside" and found["mirror"]["name"] == "guest" and found["image"]["name"] == name, f"{found}")
    lose_state(daemon)
    daemon.start()
    daemon.tarn("mirror", "import", *paths, quiet=True)
    check([one["name"] for one in daemon.json("status")["mirrors"]] == ["guest"], "what the guest wrote was imported")
    daemon.stop()


def test_import_without_an_image(t):
    """An image is missing for good: named; --force goes on, activation asks once more, and the image is removed as one that is lost."""
    daemon = Daemon(t).start()
    paths = file_mirror(t, daemon, "abc")
    daemon.stop()
    lose_state(daemon)
    daemon.start()
    result = daemon.tarn("mirror", "import", paths[0], paths[1], "other", status=1)
    check("image c" in result.err and "--force" in result.err, f"{result}")
    daemon.tarn("mirror", "import", paths[0], paths[1], "other", "--force", quiet=True)
    check([one["name"] for one in daemon.mirror("other")["images"]] == ["a", "b", "c"], f"{daemon.mirror('other')}")
    for _ in range(2):
        said = daemon.tarn("status", status=None).out
        check("all is well" not in said and "the disk of image c is unknown" in said and "newer data" in said, said)
        check("mirror destroy --force other" in said and "mirror import" in said, said)
        found = {one["name"]: one["disk_unknown"] for one in daemon.mirror("other")["images"]}
        check(found == {"a": False, "b": False, "c": True}, f"{found}")
        daemon.restart()
    before = [images.read_at(f"{path}.tarn", 0, 16384) for path in paths]
    said = daemon.tarn("mirror", "destroy", "other", "--force")
    check("left in place" in said.err and "image c" in said.err, f"{said}")
    check([images.read_at(f"{path}.tarn", 0, 16384) for path in paths] == before, "metadata is gone with which c could be imported")
    daemon.tarn("mirror", "import", *paths, "all", quiet=True)  # c was found
    daemon.tarn("mirror", "activate", "all")
    daemon.wait_synchronized("all")
    daemon.stop()
    lose_state(daemon)
    daemon.start()
    daemon.tarn("mirror", "import", paths[0], paths[1], "other", "--force", quiet=True)
    result = daemon.tarn("mirror", "activate", "other", status=1)
    check("force" in result.err, f"{result}")
    daemon.tarn("mirror", "activate", "other", "--force")
    said = daemon.tarn("status", status=None).out
    check("image restore other c" not in said and "image remove other c" in said, said)
    daemon.tarn("image", "remove", "other", "c", "--wait")
    daemon.tarn("mirror", "deactivate", "other")
    daemon.tarn("mirror", "destroy", "other", "--force")
    check([os.path.exists(f"{path}.tarn") for path in paths] == [False, False, True], "told so, metadata is removed")
    daemon.stop()


def test_import_without_an_image_that_was_out(t):
    """As b knows, a was out before the state directory was lost. It may have been used by force since: activation asks, as import said."""
    daemon = Daemon(t).start()
    paths = file_mirror(t, daemon)
    daemon.tarn("image", "promote", "vol0", "b")
    daemon.tarn("image", "fracture", "vol0", "a")
    daemon.stop()
    lose_state(daemon)
    daemon.start()
    said = daemon.tarn("mirror", "import", paths[1], "--force", quiet=None)
    check("activation asks for --force" in said.err, f"{said}")
    refused = daemon.tarn("mirror", "activate", "vol0", status=1)
    check("nothing confirms that no newer data is lost" in refused.err, f"{refused}")
    daemon.tarn("mirror", "activate", "vol0", "--force", quiet=True)
    daemon.restart()
    daemon.wait_state("vol0", "ACTIVE")  # it is known now
    daemon.stop()


def test_import_keeps_what_is_known_of_devices(t):
    """Of an image that is out, too, which no activation opens: when devices change places later, that is said, and not that somebody
    else uses them."""
    with two_devices(t, SIZE + ROOM) as (devices, files):
        daemon = Daemon(t).start()
        tail_mirror(t, daemon, devices, "--activate")
        daemon.wait_synchronized("vol0")
        daemon.tarn("image", "fracture", "vol0", "b")
        write(daemon, 0, b"1" * MIB)
        daemon.stop()
        lose_state(daemon)
        daemon.start()
        daemon.tarn("mirror", "import", *devices, quiet=True)
        for _ in range(2):
            kept = daemon.json("image", "get", "vol0", "b")["devices"]
            check(kept and kept[0]["path"] == devices[1] and len(kept[0]["facts"]) > 1, f"{kept}")
            daemon.tarn("mirror", "activate", "vol0", status=None)
        daemon.stop()
        attach(t, devices, files[::-1])
        daemon.start()
        daemon.wait_state("vol0", "ACTIVE")
        daemon.tarn("image", "restore", "vol0", "b", "--wait")
        check(image(daemon, "b")["places"] == [devices[0]], f"{image(daemon, 'b')}")
        daemon.tarn("image", "fracture", "vol0", "b")
        daemon.stop()
        path = os.path.join(daemon.state, "mirrors/vol0/config.json")
        with open(path, encoding="utf-8") as file:
            config = json.load(file)
        del config["images"][1]["devices"]  # nothing is known of b's, and a's is at its path
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)
        daemon.start()
        daemon.wait_state("vol0", "ACTIVE")
        result = daemon.tarn("image", "restore", "vol0", "b", "--wait", status=1)
        found = image(daemon, "b")["error"] or ""
        check("holds the device of image a" in found and "in use" not in result.err + found, f"{result} {found}")
        daemon.stop()


def test_import_is_refused(t):
    """What cannot be one mirror is refused, with one line that says what and what to do; no mirror is left behind."""
    daemon = Daemon(t).start()
    a, b = file_mirror(t, daemon)
    other = file_mirror(t, daemon, "x", "vol1")[0]
    daemon.tarn("image", "add", "vol1", f"gone={t.path('gone.img')}", "--wait")
    t.run("cp", t.path("gone.img"), t.path("removed.img"))
    daemon.tarn("mirror", "deactivate", "vol1")
    t.run("cp", t.path("gone.img.tarn"), t.path("removed.img.tarn"))
    daemon.tarn("image", "remove", "vol1", "gone")
    result = daemon.tarn("mirror", "import", a, b, status=1)
    check("mirror vol0 of this node is this one already" in result.err, f"what a mirror of this node uses: {result}")
    result = daemon.tarn("mirror", "import", a, status=1)
    check("mirror vol0 of this node is this one already" in result.err and "--force" not in result.err, f"{result}")
    daemon.stop()
    lose_state(daemon)
    copy = t.path("copy.img")
    t.run("cp", b, copy)
    t.run("cp", f"{b}.tarn", f"{copy}.tarn")
    bare, short = images.make_sparse(t.path("bare.img"), SIZE), images.make_sparse(t.path("short.img"), MIB)
    t.run("cp", f"{b}.tarn", f"{short}.tarn")
    damaged = images.make_sparse(t.path("damaged.img"), SIZE)
    with open(f"{damaged}.tarn", "wb") as file:
        file.write(b"x" * 16384)
    daemon.start()
    for paths, words in (((a, other), ("import one mirror at a time",)), ((a, b, copy), ("one is a copy",)),
                         ((a, a), ("same disk", "once")), ((bare,), ("no metadata", "no disk of a mirror")), ((damaged,), ("damaged",)),
                         ((f"{a}.tarn", b), ("is metadata",)), ((a, short), ("too small",)), ((a, t.path("no.img")), ("does not exist",)),
                         ((f"{a}+{a}", b), ("1 volumes",)), ((other, t.path("removed.img")), ("was removed",)), ((a,), ("image b",))):
        result = daemon.tarn("mirror", "import", *paths, status=1)
        check(all(word in result.err for word in words) and len(result.err.splitlines()) == 1, f"{paths}: {result}")
        check(daemon.json("status")["mirrors"] == [] and os.listdir(os.path.join(daemon.state, "mirrors")) == [], "something is left")
    for words in ((f"x={a}",), (f"{a},overwrite",), ("no-path",), (a, b, "../climbs")):
        daemon.tarn("mirror", "import", *words, status=2 if words[-1] != "../climbs" else 1)
    with open(b, "r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        result = daemon.tarn("mirror", "import", a, b, status=1)
        check("in use" in result.err, f"{result}")
    daemon.create("vol0", [t.path("taken.img")], size=SIZE)
    result = daemon.tarn("mirror", "import", a, b, status=1)
    check("exists already" in result.err and "NAME" in result.err, f"{result}")
    said = daemon.tarn("mirror", "import", a, b, "again", quiet=True)
    check("is not on the file" not in said.err, f"these are the very files: {said}")
    result = daemon.tarn("mirror", "import", a, b, "twice", status=1)
    check("mirror again of this node is this one already" in result.err, f"{result}")
    check(examine(daemon, bare, damaged, status=1)[1]["record_slots"] == ["damaged", "damaged"], "damage is not said")
    daemon.stop()


def test_import_of_copies(t):
    """Files that were copied to another place are imported; that they are no longer those that were recorded is said, and activation asks."""
    daemon = Daemon(t).start()
    paths = file_mirror(t, daemon)
    write(daemon, 0, b"1" * MIB)
    daemon.stop()
    lose_state(daemon)
    copies = [f"{path}-copy" for path in paths]
    for path, copy in zip(paths, copies):
        t.run("cp", path, copy)
        t.run("cp", f"{path}.tarn", f"{copy}.tarn")
    daemon.start()
    said = daemon.tarn("mirror", "import", *copies, quiet=True)
    check("image a is not on the file" in said.err and "--force" in said.err, f"{said}")
    daemon.tarn("mirror", "activate", "vol0", status=1)
    daemon.tarn("mirror", "activate", "vol0", "--force", quiet=True)
    daemon.wait_synchronized("vol0")
    check(read(daemon, 0, MIB) == b"1" * MIB, "the data is not there")
    daemon.stop()


def test_import_of_what_was_written_apart(t):
    """Both sides went on without the other: no mirror is made of them; one alone is, by force."""
    daemon = Daemon(t).start()
    a, b = file_mirror(t, daemon)
    daemon.stop()
    lone = {}
    for path in (a, b):  # each has its own state directory, and serves for itself
        lose_state(daemon)
        daemon.start()
        daemon.tarn("mirror", "import", path, "--force", quiet=True)
        daemon.tarn("mirror", "activate", "vol0", "--force", quiet=True)
        write(daemon, 0, path[-5:-4].encode() * MIB)
        daemon.stop()
        lone[path] = images.read_at(path, 0, SIZE)
    lose_state(daemon)
    daemon.start()
    result = daemon.tarn("mirror", "import", a, b, status=1)
    check("apart" in result.err and len(result.err.splitlines()) == 1, f"{result}")
    check({path: images.read_at(path, 0, SIZE) for path in (a, b)} == lone, "it was written to")
    daemon.stop()


def guests_disk(t, size):
    """What lies on a disk of `size` bytes on which a guest has a mirror of its own, with its metadata in the tail."""
    file = images.make_sparse(t.path("guest.raw"), size)
    with loop_device(t, file) as device:
        guest = Daemon(t, state=t.path("guest-state")).start()
        guest.tarn("mirror", "create", "inner", "--size", size - ROOM, "--image", f"{device},meta=tail", "--activate", quiet=True)
        write(guest, 0, b"i" * MIB, "inner")
        guest.stop()
    return images.read_at(file, 0, size)


@rows([("a mirror of its own", guests_disk), ("a locator that is damaged", lambda t, size: bytes(size - MIB) + b"TARNTAIL" + b"x" * 4088)])
def test_import_of_files_whose_guest_has_a_tail(t, row):
    """What a guest keeps at the end of the disk that it is given is at the end of the image's file, too: examined and imported is the
    mirror whose metadata lies beside the file, and not the guest's."""
    _, content = row
    daemon = Daemon(t).start()
    paths = file_mirror(t, daemon)
    data = content(t, SIZE)
    write(daemon, 0, data)
    daemon.stop()
    lose_state(daemon)
    daemon.start()
    for disk, name in zip(examine(daemon, *paths), "ab"):
        check(disk["where"] == "beside" and disk["mirror"]["name"] == "vol0" and disk["image"]["name"] == name, f"{disk}")
    daemon.tarn("mirror", "import", *paths, quiet=True)
    daemon.tarn("mirror", "activate", "vol0")
    check(read(daemon, 0, len(data)) == data, "the guest's disk is another one")
    daemon.stop()


@limit(180)
def test_import_killed_in_its_middle(t):
    """SIGKILL while a mirror is imported: it is there, whole, or is not, and can be imported then."""
    daemon = Daemon(t).start()
    paths = file_mirror(t, daemon)
    daemon.stop()
    lose_state(daemon)
    outcomes = set()
    for number in range(12):
        daemon.start()
        os.makedirs(os.path.join(daemon.state, "mirrors/half"))  # what a crash in the very middle leaves
        with open(os.path.join(daemon.state, "mirrors/half/config.json.new"), "w", encoding="utf-8") as file:
            file.write('{"version": 1, "na')
        client = t.spawn(*daemon.tarn_argv("mirror", "import", *paths, "--json"))
        time.sleep(number * 0.004)
        daemon.kill()
        client.wait()
        daemon.start()
        check(not os.path.exists(os.path.join(daemon.state, "mirrors/half")), "what was half made is left")
        there = [mirror["name"] for mirror in daemon.json("status")["mirrors"]]
        outcomes.add(len(there))
        if not there:
            daemon.tarn("mirror", "import", *paths, quiet=True)
        daemon.tarn("mirror", "activate", "vol0")
        daemon.wait_synchronized("vol0")
        daemon.stop()
        lose_state(daemon)
    check(0 in outcomes, f"never killed before it was there: {outcomes}")
