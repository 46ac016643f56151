"""What stands between the core and its disks and clients: one thing that fails, and one ordinary thing beside it."""
import fcntl
import os
import signal
import threading

from lib import images
from lib.context import check
from lib.daemon import Daemon
from lib.images import MIB
from lib.load import open_handle

SIZE = 16 * MIB


def ends(function, seconds):
    """Does it end in time? It goes on in a thread of its own."""
    done = threading.Event()

    def run():
        try:
            function()
        finally:
            done.set()
    threading.Thread(target=run, daemon=True).start()
    return done.wait(seconds)


def test_a_log_that_nobody_reads(t):
    """Whoever takes the log (journald, a terminal after Ctrl-S, a pipe) has stopped reading: clients are served all the same."""
    pid_path = t.path("reader.pid")
    daemon = Daemon(t, wrapper=["bash", "-c", f'exec "$@" 2> >(echo $BASHPID >{pid_path}; exec cat)', "tarnd"]).start()
    with open(pid_path, encoding="ascii") as file:
        reader = int(file.read())
    daemon.create("vol0", [t.path("a.img"), t.path("b.img")], size=SIZE)
    with open(f"/proc/{daemon.process.pid}/fd/2", "w", encoding="ascii") as pipe:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)  # as if much had been written already
    handle = open_handle(daemon.uri("vol0"))
    handle.pwrite(b"1" * 4096, 0)
    os.kill(reader, signal.SIGSTOP)
    try:
        for _ in range(100):
            if not all(ends(lambda: daemon.tarn("image", how, "vol0", "b", status=None), 5)
                       for how in ("fracture", "restore")):  # pylint: disable=cell-var-from-loop
                break
        check(ends(lambda: handle.pread(4096, 0), 15), "a read is not answered while nobody reads the log")
    finally:
        os.kill(reader, signal.SIGCONT)


def test_an_image_is_removed_while_files_have_changed_places(t):
    """The mounts of two images have changed places. That is found, and one image is removed: the metadata of the other, which lies at
    that one's path, stays."""
    paths = [t.path(f"{name}/d.img") for name in "abc"]
    for path in paths:
        os.makedirs(os.path.dirname(path))
    daemon = Daemon(t).start()
    daemon.create("vol0", paths, size=SIZE)
    daemon.wait_synchronized("vol0")
    daemon.stop()
    for old, new in (("b", "x"), ("c", "b"), ("x", "c")):
        os.rename(t.path(old), t.path(new))
    daemon.start()
    daemon.wait_state("vol0", "ACTIVE")
    daemon.tarn("image", "remove", "vol0", "b")
    check(os.path.exists(t.path("b/d.img.tarn")), "the metadata of image c was removed with image b")
