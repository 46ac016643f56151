"""libnbd's own programs: nbdinfo, nbdcopy, nbdsh."""
import json
import os
import re

from lib import images
from lib.context import check, rows
from lib.daemon import Daemon
from lib.images import MIB
from lib.served import SIZE, Served


def test_nbdinfo(t):
    """Issue 2 item 6: GO and INFO as nbdinfo sees them: size, what the export can do, block sizes."""
    served = Served(t)
    info = json.loads(t.run("nbdinfo", "--json", served.uri).out)
    check(info["protocol"] == "newstyle-fixed", f"protocol {info['protocol']}")
    (export,) = info["exports"]
    check(export["export-name"] == "vol0" and export["export-size"] == SIZE, f"export {export}")
    for key, expected in {"is_read_only": False, "can_flush": True, "can_fua": True, "can_trim": True, "can_zero": True,
                          "can_multi_conn": True}.items():
        check(export[key] is expected, f"{key} is {export[key]}")
    check(export["block_size_minimum"] == 1, f"minimum block {export['block_size_minimum']}: single bytes are served")
    check(export["block_size_maximum"] == 64 * MIB, f"maximum block {export['block_size_maximum']}")
    check(int(t.run("nbdinfo", "--size", served.uri).out) == SIZE, "nbdinfo --size")
    for can in ("flush", "fua", "trim", "zero", "multi-conn", "connect"):
        t.run("nbdinfo", "--can", can, served.uri)
    t.run("nbdinfo", "--is", "read-only", served.uri, status=2)


def test_list(t):
    """Cli: every export is listed; a volume as MIRROR if it is the only one, and as MIRROR/VOLUME always; the empty
    name stands for the only export there is; INACTIVE mirrors are not served (B8)."""
    daemon = Daemon(t).start()
    check(json.loads(t.run("nbdinfo", "--json", "--list", daemon.uri()).out).get("exports") in ([], None),
          "no export yet")
    daemon.create("vol0", [t.path("a.img")], size=MIB)
    for name in ("", "vol0", "vol0/0"):
        info = json.loads(t.run("nbdinfo", "--json", daemon.uri(name)).out)
        check(info["exports"][0]["export-size"] == MIB, f"export {name!r}: {info}")
    daemon.create("vol1", [t.path("b.img")], size=2 * MIB)
    daemon.create("idle", [t.path("c.img")], size=MIB, activate=False)
    listed = json.loads(t.run("nbdinfo", "--json", "--list", daemon.uri()).out)["exports"]
    names = {export["export-name"] for export in listed}
    check({"vol0", "vol1"} <= names, f"listed: {names}")
    check(not any(name.startswith("idle") for name in names), f"an INACTIVE mirror is listed: {names}")
    for name in ("idle", "nothing", "vol0/1", "vol0/", "VOL0", ""):
        result = t.run("nbdinfo", daemon.uri(name), status=1)
        check(result.err.strip(), f"export {name!r} is refused without a word")


@rows([("one connection", ["--connections=1", "--requests=1"]),
       ("several connections", ["--connections=4", "--requests=64"]),
       ("synchronous", ["--synchronous"]), ("large requests", ["--request-size=33554432", "--connections=2"]),
       ("with a flush", ["--flush", "--connections=4"])])
def test_nbdcopy(t, row):
    """Issue 2 item 10: nbdcopy to the mirror and back, with several connections; both images hold the file's bytes."""
    served = Served(t)
    source = images.make_random(t.shm("source"), SIZE, seed=2)
    t.run("nbdcopy", *row[1], source, served.uri)
    t.run("nbdcopy", *row[1], served.uri, t.shm("back"))
    images.check_same([source, t.shm("back")], SIZE)
    served.stop_and_compare()
    images.check_same([source, served.paths[0]], SIZE)


def test_nbdcopy_of_a_sparse_file(t):
    """Rule 14: holes are copied as zeroes and stay cheap where the images can be sparse."""
    served = Served(t)
    source = images.make_sparse(t.shm("source"), SIZE)
    with open(source, "r+b") as file:
        for number in range(16):
            file.seek(number * 4 * MIB)
            file.write(bytes([number + 1]) * 65536)
    t.run("nbdcopy", images.make_random(t.shm("full"), SIZE, seed=1), served.uri)
    t.run("nbdcopy", "--connections=4", source, served.uri)
    t.run("nbdcopy", served.uri, t.shm("back"))
    images.check_same([source, t.shm("back")], SIZE)
    served.stop_and_compare()
    images.check_same([source, served.paths[1]], SIZE)
    check(images.deallocated(served.paths[0], MIB, MIB) and images.deallocated(served.paths[1], MIB, MIB),
          "zeroes over data were not deallocated")


def test_between_two_mirrors(t):
    """A1: nbdcopy from one mirror of this daemon to another."""
    served = Served(t)
    served.daemon.create("vol1", [t.shm("c.img"), t.shm("d.img")], size=SIZE)
    t.run("nbdcopy", images.make_random(t.shm("source"), SIZE, seed=8), served.uri)
    t.run("nbdcopy", "--connections=2", served.uri, served.daemon.uri("vol1"))
    served.stop_and_compare()
    images.check_same([t.shm("source"), t.shm("c.img"), t.shm("d.img")], SIZE)


def test_nbdsh(t):
    """Issue 2 item 6: nbdsh (with the distribution's Python, whose module it needs): its view of the block sizes and of
    structured replies."""
    served = Served(t)
    script = ("print(h.get_size(), h.get_block_size(nbd.SIZE_MINIMUM), h.get_block_size(nbd.SIZE_MAXIMUM), "
              "h.get_structured_replies_negotiated())")
    shown = t.run("nbdsh", "-u", served.uri, "-c", script, env={**os.environ, "PATH": "/usr/bin:/bin"}).out
    check(re.fullmatch(rf"{SIZE} 1 {64 * MIB} True\s*", shown), f"nbdsh shows {shown!r}")
