"""Bad disks: parts that overlap, devices in use, NBD servers of every bad kind. Each is refused in one clear line, in bounded time,
and nothing is changed; or its image is out, and the others go on."""
import os
import shutil
import re
import time

from lib import images
from lib.context import check, rows
from lib.daemon import Daemon
from lib.disks import NbdServer, loop_device, talker
from lib.images import KIB, MIB
from lib.load import open_handle
from lib.small_disk import own_mounts
from system.bad_input import World

# ---- parts ----


def used_part(world):
    world.daemon.create("parts", [f"concat:{world.file('x.img', 8 * MIB)}@1M+1M"], activate=False)
    return world.path("x.img")


def by_symlink(world):
    os.symlink(used_part(world), world.path("y.img"))
    return world.create(f"concat:{world.path('y.img')}@1M+1M", size=None)


def by_hard_link(world):
    os.link(used_part(world), world.path("y.img"))
    return world.create(f"concat:{world.path('y.img')}@0+1028K", size=None)


def made_twice(world):
    return world.create(f"concat:{world.path('new.img')}@0+1M", f"concat:{world.path('new.img')}@512K+1M")


PARTS = [
    ("a part of a mirror's file", lambda w: w.create(f"concat:{w.a}@0+1M"), (1,), [r"a\.img", "overlap", "vol0"]),
    ("a mirror's metadata", lambda w: w.create(f"concat:{w.a}.tarn@0+4K", size="4K"), (1,), ["overlap", "metadata"]),
    ("a part of another mirror", lambda w: w.create(f"concat:{used_part(w)}@1M+1M", size=None), (1,), ["overlap", "parts"]),
    ("by a symbolic link", by_symlink, (1,), [r"y\.img", "overlap"]),
    ("by a hard link, at its edge", by_hard_link, (1,), [r"y\.img", "overlap"]),
    ("the whole of a file with used parts", lambda w: w.create(used_part(w), size=None), (1,), ["overlap"]),
    ("within one image, by two paths", lambda w: w.create(
        f"concat:{w.file('x.img', 2 * MIB)}@0+1M;{w.path('./x.img')}@512K+1M"), (1, 2), ["overlap"]),
    ("in two images", lambda w: w.create(f"{w.file('x.img')}", f"concat:{w.path('x.img')}@0+1M"), (1,), ["overlap"]),
    ("in two images, of a file that would be made", made_twice, (1,), ["overlap"]),
    ("not aligned", lambda w: w.create(f"concat:{w.file('x.img')}@0+1000"), (2,), ["4096"]),
    ("an odd file as a whole", lambda w: w.create(f"concat:{w.file('x.img', MIB + 512)};{w.file('y.img')}"), (1,),
     [r"x\.img", "4096", r"x\.img@0\+1048576"]),
    ("a part behind the end", lambda w: w.create(f"concat:{w.file('x.img')}@512K+1M"), (1,), ["small", "1572864"]),
    ("parts that are too small together", lambda w: w.create(f"concat:{w.file('x.img')};{w.file('y.img')}", size="3M"), (1,),
     ["small"]),
    ("a missing file without a range", lambda w: w.create(f"concat:{w.path('x.img')}"), (1,), [r"x\.img", "range"]),
    ("a missing folder", lambda w: w.create(f"concat:{w.path('no/x.img')}@0+1M"), (1,), ["no"]),
    ("a size that is no multiple of 4096", lambda w: w.create(f"concat:{w.file('x.img')}", size=512), (1,), ["4096"]),
    ("a second image with data in the part", lambda w: w.create(w.file("y.img"), f"concat:{w.full('x.img')}@0+1M"), (1,),
     ["data", "overwrite"]),
]


@rows(PARTS)
def test_parts(t, row):
    """A12: parts that overlap are found whatever their paths; parts that cannot be are refused with what to do."""
    _, prepare, statuses, saying = row
    world = World(t)
    world.check_refused(prepare(world), statuses, saying)


def test_parts_by_a_bind_mount(t):
    """A12: the same file by the path of a bind mount."""
    own_mounts(t)
    world, other = World(t), t.path("other")
    os.mkdir(other)
    used_part(world)
    t.run("mount", "--bind", world.folder, other)
    world.check_refused(world.create(f"concat:{other}/x.img@1M+1M"), (1,), ["overlap", "parts"])
    world.check_refused(world.create(f"{other}/a.img"), (1,), ["belongs to", "vol0"])


# ---- devices ----

def test_partition_and_its_device(t):
    """A12: a partition and the device that it is on overlap; another partition does not."""
    world = World(t)
    with loop_device(t, world.file("disk.raw", 16 * MIB)) as device:
        t.run("addpart", device, 1, 2048, 8192)
        t.run("addpart", device, 2, 16384, 8192)
        number = os.path.basename(device)
        parts = []
        for part in (1, 2):
            with open(f"/sys/class/block/{number}p{part}/dev", encoding="ascii") as file:
                major, minor = file.read().strip().split(":")
            parts.append(world.path(f"part{part}"))
            os.mknod(parts[-1], 0o600 | 0o060000, os.makedev(int(major), int(minor)))
        try:
            world.daemon.create("parts", [parts[0]], activate=False)
            world.check_refused(world.create(f"concat:{device}@4M+1M"), (1,), ["overlap", "parts"])
            world.check_refused(world.create(f"concat:{parts[0]}@0+1M"), (1,), ["overlap", "parts"])
            world.daemon.create("more", [f"concat:{parts[1]}@0+1M"], activate=False)
            world.daemon.tarn("mirror", "destroy", "more")
            world.daemon.tarn("mirror", "destroy", "parts")
        finally:
            t.run("delpart", device, 1)
            t.run("delpart", device, 2)


def test_mounted_device(t):
    """A device that is mounted is refused, as a whole and as a part, and not touched."""
    world = World(t)
    path, place = world.file("fs.raw", 16 * MIB), t.path("mounted")
    t.run("mkfs.ext4", "-q", path)
    os.mkdir(place)
    with loop_device(t, path) as device:
        t.run("mount", device, place)
        try:
            world.check_refused(world.create(f"{device}"), (1,), [device, "in use|mounted"])
            world.check_refused(world.create(f"concat:{device}@0+1M"), (1,), [device, "in use|mounted"])
        finally:
            t.run("umount", place)
        t.run("e2fsck", "-fn", device)


def test_a_metadata_device_that_holds_something(t):
    """A device for metadata that holds a file system is refused, also one that leaves its first blocks empty, as Btrfs and ISO 9660 do.
    What a mirror has left on it is no obstacle."""
    world = World(t)
    path, mark = world.file("meta.raw", 4 * MIB), b"_BHRfS_M"
    with open(path, "r+b") as file:
        file.seek(64 * KIB + 64)
        file.write(mark)
    with loop_device(t, path) as device:
        image = f"{world.path('x.img')},meta={device}"
        world.check_refused(world.create(image), (1,), [device, "holds something", "overwrite"])
        check(images.read_at(device, 64 * KIB + 64, len(mark)) == mark, "it was written over")
        with open(device, "r+b") as file:
            file.write(bytes(MIB))
        for _ in range(2):
            world.daemon.tarn(*world.create(image))
            for verb in ("activate", "deactivate"):
                world.daemon.tarn("mirror", verb, "new")
            world.daemon.tarn("mirror", "destroy", "new", "--force")
            os.unlink(world.path("x.img"))


def test_a_metadata_device_is_given_by_a_link(t):
    """Names that stay are links, as in /dev/disk/by-id: with its mirror the record goes, and not the link."""
    world = World(t)
    link = world.path("by-id")
    with loop_device(t, world.file("meta.raw", 4 * MIB)) as device:
        os.symlink(device, link)
        world.daemon.tarn(*world.create(f"{world.path('x.img')},meta={link}"))
        check(images.read_at(device, 0, 16 * KIB) != bytes(16 * KIB), "there is no record")
        world.daemon.tarn("mirror", "destroy", "new", "--force")
        check(os.path.islink(link), "the link was removed")
        check(images.read_at(device, 0, 16 * KIB) == bytes(16 * KIB), "the record is still there")


def test_a_metadata_device_of_another_mirror_is_overwritten(t):
    """What lies on a device for metadata is given up with ',overwrite', whichever image of whichever mirror it was of."""
    world = World(t)
    with loop_device(t, world.file("meta.raw", 4 * MIB)) as device:
        world.daemon.create("old", [world.path("o.img"), f"{world.path('p.img')},meta={device}"], size=MIB, activate=False)
        world.daemon.stop()
        shutil.rmtree(os.path.join(world.daemon.state, "mirrors", "old"))
        world.daemon.start()
        image = f"{world.path('x.img')},meta={device}"
        world.check_refused(world.create(image), (1,), [device, "belongs to image b of mirror old", "overwrite"])
        world.daemon.tarn(*world.create(f"{image},overwrite"))
        for verb in ("activate", "deactivate"):
            world.daemon.tarn("mirror", verb, "new")
        world.daemon.tarn("mirror", "destroy", "new", "--force")


# ---- NBD servers that are no use ----

def closes(client):
    client.close()


def banner(text):
    def talk(client):
        client.sendall(text)
        client.settimeout(120)
        while client.recv(4096):
            pass
        client.close()
    return talk


GREETING = b"NBDMAGIC" + b"IHAVEOPT"

TALKERS = [
    ("it hangs up", closes, ["NBD"]),
    ("another protocol", banner(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"), ["NBD"]),
    ("a web server", banner(b"HTTP/1.0 400 Bad Request\r\nContent-Length: 0\r\n\r\n"), ["NBD"]),
    # Flags that want options: without them eight bytes of garbage are a size, and a sixteenth of all garbage is a good export.
    ("garbage after the greeting", banner(GREETING + b"\0\3" + os.urandom(4096)), ["NBD"]),
    ("the greeting of 2007, with garbage", banner(b"NBDMAGIC" + b"\0" * 8), ["NBD"]),
    ("options nobody asked for", banner(GREETING + b"\0\3" + b"\0\3\xe8\x89\x04\x55\x65\xa9" + b"\xff" * 4096), ["NBD"]),
]


@rows(TALKERS)
def test_no_nbd_server(t, row):
    """Bad input: what answers speaks another protocol, or garbage."""
    _, talk, saying = row
    world = World(t)
    with talker(t, talk) as uri:
        world.check_refused(world.create(world.path("new.img"), f"{uri},overwrite"), (1,), [r"image b: nbd\+unix:", *saying])


def test_a_server_that_never_answers(t):
    """Bad input: it takes the connection and says nothing. Refused in bounded time, and the daemon serves meanwhile."""
    world = World(t)
    world.activate()
    held = []
    with talker(t, held.append) as uri:
        create = t.spawn(*world.daemon.tarn_argv(*world.create(world.path("new.img"), f"{uri},overwrite")))
        while create.poll() is None:
            handle = open_handle(world.daemon.uri("vol0"))
            handle.pwrite(b"x" * 4096, 0)
            handle.shutdown()
            time.sleep(0.2)
        check(create.returncode == 1, f"create exited {create.returncode}")
        check(not os.path.exists(world.path("new.img")), "refused, and a file was made")
        check("new" not in [mirror["name"] for mirror in world.daemon.json("status")["mirrors"]], "refused, and shown")


def eval_server(**scripts):
    """nbdkit's eval plugin with a disk of 16 MiB of zeroes that forgets what is written."""
    script = {"get_size": "echo 16M", "pread": "head -c $3 /dev/zero", "pwrite": "cat > /dev/null", "can_flush": "exit 0",
              "flush": "exit 0", **scripts}
    return ["eval", *[f"{key}={value}" for key, value in script.items() if value]]


SERVERS = [
    ("for reading only", {"options": ["--readonly"]}, "", ["reading only", "writable"]),
    ("it cannot flush", {"plugin": eval_server(can_flush="exit 3", flush="")}, "", ["flush", "stable"]),
    ("too small", {"size": MIB - 512}, "", ["small"]),
    ("empty", {"size": 0}, "", ["small|empty"]),
    ("no such export", {"options": ["--filter=exportname"], "extra": ["exportname=x", "exportname-strict=true"]}, "y",
     ["no export named 'y'"]),
    ("it refuses the export", {"plugin": eval_server(open="echo EPERM not for you >&2; exit 1")}, "", ["NBD|export"]),
    ("it wants TLS", {"options": ["--tls=require", "--tls-psk=PSK"]}, "", ["TLS", "not supported"]),
    ("blocks that are too large", {"options": ["--filter=blocksize-policy"],
                                   "extra": ["blocksize-minimum=65536", "blocksize-preferred=65536",
                                             "blocksize-maximum=1M", "blocksize-error-policy=error"]}, "", ["65536", "4096"]),
    ("requests that are too short", {"options": ["--filter=blocksize-policy"],
                                     "extra": ["blocksize-minimum=512", "blocksize-preferred=4096",
                                               "blocksize-maximum=4096", "blocksize-error-policy=error"]}, "", ["4096", "8192"]),
    ("a size that cannot be", {"plugin": eval_server(get_size="echo 9223372036854775807")}, "", ["NBD|512|bytes|multiple"]),
]


@rows(SERVERS)
def test_useless_server(t, row):
    """Bad input: an NBD server that cannot be a disk of an image says so before anything is made."""
    _, arguments, export, saying = row
    world = World(t)
    secret = t.path("psk")
    with open(secret, "w", encoding="ascii") as file:
        file.write(f"user:{'ab' * 32}\n")
    options = [word.replace("PSK", secret) for word in arguments.get("options", ())]
    server = NbdServer(t, size=arguments.get("size", 16 * MIB), options=options, plugin=arguments.get("plugin"))
    server.plugin += arguments.get("extra", [])
    server.start()
    if row[0] == "a size that cannot be":  # as the first image, whose size counts
        words = world.create(f"nbd+unix:///{export}?socket={server.socket}", size=None)
        world.check_refused(words, (1,), saying)
    else:
        world.check_refused(world.create(world.path("new.img"), f"{server.uri(export)},overwrite"), (1,),
                            ["image b: nbd", *saying])
    server.kill()


NOBODY = [
    ("no socket", "nbd+unix:///?socket=/nonexistent/x.sock", [r"No such file|not exist"]),
    ("no server at that port", "nbd://127.0.0.1:1/x", ["refused"]),
    ("no such host", "nbd://nobody.invalid/x", [r"nobody\.invalid"]),
    ("an image that may hold data", "NBD", ["overwrite"]),
    ("twice the same export", "TWICE", ["same export"]),
]


@rows(NOBODY)
def test_nobody_there(t, row):
    """Bad input: nobody answers at an NBD address; or its export is not free, or not said to be overwritten."""
    _, uri, saying = row
    world, server = World(t), None
    if uri in ("NBD", "TWICE"):
        server = NbdServer(t).start()
    if uri == "NBD":
        words = world.create(world.path("new.img"), server.uri())
    elif uri == "TWICE":
        words = world.create(server.uri(), f"nbd+unix:///?socket={server.socket.replace('/', '%2F')},overwrite")
    else:
        words = world.create(world.path("new.img"), f"{uri},overwrite")
    world.check_refused(words, (1,), saying)


def test_a_device_that_was_never_written_to(t):
    """Nobody knows what a device holds: it may be data, which is not said to be there."""
    world = World(t)
    with loop_device(t, images.make_sparse(t.path("empty.raw"), 16 * MIB)) as device:
        world.check_refused(world.create(world.path("new.img"), device, size=16 * MIB), (1,), [f"{device} may hold data", ",overwrite"])
        world.check_refused(world.create(world.path("new.img"), f"concat:{device}@1M+15M", size=15 * MIB), (1,), ["may hold data"])
    world.check_refused(world.create(world.path("new.img"), world.full("full.img", MIB), size=MIB), (1,), [r"full\.img holds data"])


@rows([("a Unix socket", "unix", "vol0"), ("a port", "tcp", "vol0"), ("another mirror's export", "unix", "small")])
def test_an_export_of_its_own(t, row):
    """An image that lies on an export of the same daemon would wait for itself: refused, by whatever address; another daemon's is a disk."""
    _, kind, export = row
    world = World(t)
    daemon = Daemon(t, state=t.path("served"), arguments=("--nbd", f"unix:{t.path('n.sock')}", "--nbd", "127.0.0.1:0")).start()
    port = re.search(r"serves NBD at 127\.0\.0\.1:(\d+)", daemon.log()).group(1)
    for name in ("vol0", "small"):
        daemon.create(name, [t.path(f"{name}-{letter}.img") for letter in "ab"], size=16 * MIB)
    uri = f"nbd+unix:///{export}?socket={t.path('n.sock')}" if kind == "unix" else f"nbd://127.0.0.1:{port}/{export}"
    refused = daemon.tarn("image", "add", "vol0", f"c={uri},overwrite", status=1)
    check("is served by this tarnd itself" in refused.err and len(refused.err.splitlines()) == 1, f"{refused}")
    check([image["name"] for image in daemon.mirror("vol0")["images"]] == ["a", "b"], "it was added")
    world.daemon.create("over", [world.path("over.img"), f"{uri},overwrite"], size=16 * MIB)
    world.daemon.wait_synchronized("over")


# ---- servers that turn out to be bad ----

SIZE = 16 * MIB


def image(daemon, name):
    return next(found for found in daemon.mirror("vol0")["images"] if found["name"] == name)


def wait_out(daemon, name):
    for _ in range(600):
        if image(daemon, name)["missing"] == "failed":
            return image(daemon, name)
        time.sleep(0.05)
    check(False, f"image {name} is not out: {image(daemon, name)}")
    return None


def test_a_server_that_lies_about_its_size(t):
    """Bad input: it says 16 MiB and fails beyond 8. Its image is out, the others have everything."""
    lie = "if [ $4 -ge 8388608 ]; then echo EIO beyond the end >&2; exit 1; fi; "
    server = NbdServer(t, plugin=eval_server(pread=lie + "head -c $3 /dev/zero", pwrite=lie + "cat > /dev/null")).start()
    daemon = Daemon(t).start()
    path = images.make_random(t.path("a.img"), SIZE)
    daemon.create("vol0", [path, f"{server.uri()},overwrite"])
    wait_out(daemon, "b")
    handle = open_handle(daemon.uri("vol0"))
    handle.pwrite(b"y" * MIB, 12 * MIB)
    check(handle.pread(MIB, 12 * MIB) == b"y" * MIB, "what was written is not there")
    handle.shutdown()


def test_a_server_that_shrinks(t):
    """Bad input: between two connections its export gets smaller. The image stays out, and says why."""
    server = NbdServer(t, size=SIZE).start()
    daemon = Daemon(t).start()
    daemon.create("vol0", [t.path("a.img"), f"{server.uri()},overwrite"], size=SIZE)
    daemon.wait_synchronized("vol0")
    daemon.tarn("image", "set", "vol0", "b", "nbd-settle=0")
    server.kill()
    with open(server.file, "r+b") as file:
        file.truncate(SIZE - MIB)
    server.start()
    handle = open_handle(daemon.uri("vol0"))
    handle.pwrite(b"y" * MIB, 0)
    handle.flush()
    handle.shutdown()
    wait_out(daemon, "b")
    result = daemon.tarn("image", "restore", "vol0", "b", status=1)
    check("too small" in result.err, f"it does not say that the export is too small: {result}")
    check(image(daemon, "b")["missing"] == "failed", "a disk that is too small is used")
    daemon.tarn("mirror", "deactivate", "vol0")
    daemon.tarn("mirror", "activate", "vol0")
    check("too small" in (image(daemon, "b")["reason"] or "") + (image(daemon, "b")["error"] or ""),
          f"status does not say why: {image(daemon, 'b')}")


def test_a_server_that_stops_answering(t):
    """Rule 7: requests that are never answered cost an image `hang` seconds, not the mirror; the image comes back, after the old
    connection was cut and its requests have settled."""
    server = NbdServer(t, size=SIZE).start()
    daemon = Daemon(t).start()
    daemon.create("vol0", [t.path("a.img"), f"{server.uri()},overwrite"], size=SIZE)
    daemon.wait_synchronized("vol0")
    daemon.tarn("image", "set", "vol0", "b", "hang=1", "nbd-settle=2")
    os.kill(server.process.pid, 19)  # SIGSTOP
    handle = open_handle(daemon.uri("vol0"))
    handle.pwrite(b"y" * (64 * KIB), MIB)
    handle.flush()
    wait_out(daemon, "b")
    os.kill(server.process.pid, 18)
    daemon.tarn("image", "restore", "vol0", "b", "--wait")
    daemon.wait_synchronized("vol0")
    handle.pwrite(b"z" * (64 * KIB), 2 * MIB)
    handle.shutdown()
    daemon.tarn("mirror", "deactivate", "vol0")
    server.kill()
    images.check_same([t.path("a.img"), server.file], SIZE)
