"""What is said of an image after its disk was away and is back."""
import threading
import time

from lib import images
from lib.context import check, rows, wait_for
from lib.daemon import Daemon
from lib.disks import NbdServer
from lib.images import MIB
from lib.load import open_handle

SIZE = 16 * MIB


def test_reads_of_a_lost_connection_are_no_errors_of_the_next(t):
    """A server ends with a read under way, is started again, and its image is restored: the disk is opened anew, and has failed nothing
    "since it was opened"; all is well again."""
    server = NbdServer(t, options=["--filter=delay"], plugin=["file", t.path("n.raw"), "delay-read=2"]).start()
    daemon = Daemon(t).start()
    daemon.create("vol0", [t.path("a.img"), f"{server.uri()},overwrite"], size=SIZE)
    daemon.wait_synchronized("vol0")
    daemon.tarn("image", "promote", "vol0", "b")
    daemon.tarn("mirror", "set", "vol0", "read=master")
    daemon.tarn("image", "set", "vol0", "b", "nbd-settle=0")
    handle = open_handle(daemon.uri("vol0"))
    reader = threading.Thread(target=lambda: handle.pread(4096, 0))
    reader.start()
    wait_for("the read to be under way", lambda: daemon.mirror("vol0")["images"][1]["reads"])
    time.sleep(0.2)
    server.kill()
    reader.join()
    server.start()
    daemon.tarn("image", "restore", "vol0", "b", "--wait")
    daemon.wait_synchronized("vol0")
    status = daemon.tarn("status").out
    check(status.startswith("all is well"), f"the disk was opened anew, and has failed nothing since: {status[:400]}")


@rows([("restored after a failure", "fail"), ("restored after a fracture", "fracture"), ("while the daemon was stopped", "stop")])
def test_a_server_that_comes_back_with_another_disk(t, row):
    """The server's machine was started again and serves another disk at the same address, of zeroes. What was flushed there long ago is
    gone. What is SYNCHRONIZED afterwards is equal."""
    server = NbdServer(t).start()
    daemon = Daemon(t).start()
    daemon.create("vol0", [t.path("a.img"), f"{server.uri()},overwrite"], size=SIZE)
    daemon.wait_synchronized("vol0")
    daemon.tarn("image", "set", "vol0", "b", "nbd-settle=0")
    handle = open_handle(daemon.uri("vol0"))
    for place in range(0, SIZE, SIZE // 64):
        handle.pwrite(b"1" * 4096, place)
    handle.flush()
    handle.shutdown()
    wait_for("all marks to be cleared", lambda: "marked" not in daemon.tarn("status", quiet=True).out)
    time.sleep(2)
    if row[1] == "stop":
        daemon.stop()
    if row[1] == "fracture":
        daemon.tarn("image", "fracture", "vol0", "b")
    server.kill()
    images.make_sparse(server.file, SIZE)
    server.start()
    if row[1] == "stop":
        daemon.start()
    else:
        if row[1] == "fail":
            open_handle(daemon.uri("vol0")).pwrite(b"2" * 4096, 4096)
        wait_for("b to be out", lambda: daemon.mirror("vol0")["images"][1]["state"] != "SYNCHRONIZED")
        daemon.tarn("image", "restore", "vol0", "b", "--wait", status=None)
    if daemon.tarn("status").out.startswith("all is well"):
        images.check_same([t.path("a.img"), server.file], SIZE)


def test_a_server_that_ends_while_nothing_happens(t):
    """Nobody reads or writes when an image's server is killed: its connection is lost, so the image is out, and not "all is well"."""
    server = NbdServer(t).start()
    daemon = Daemon(t).start()
    daemon.create("vol0", [t.path("a.img"), f"{server.uri()},overwrite"], size=SIZE)
    daemon.wait_synchronized("vol0")
    time.sleep(8)  # until nothing is written any more, no mark cleared
    server.kill()
    wait_for("somebody to notice", lambda: not daemon.tarn("status", quiet=True).out.startswith("all is well"), 60, every=1)
