"""Which disk is it: block devices that change places or are replaced between two lives, and metadata that travels with its disk."""
import contextlib
import json
import os

from lib import images
from lib.context import check, rows, wait_for
from lib.daemon import Daemon
from lib.disks import loop_device
from lib.images import KIB, MIB
from lib.load import open_handle

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
