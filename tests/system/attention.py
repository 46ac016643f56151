"""A mirror that falls out of ACTIVE: its clients wait, fail, or go on; and the ways back."""
import errno
import os
import re
import threading
import time

import nbd

from lib import images
from lib.context import Failed, check, limit, rows, wait_for
from lib.daemon import Daemon
from lib.images import KIB, MIB
from lib.ledger import SECTOR, stamp
from lib.load import open_handle
from lib.mirror import SIZE, Mirror

BY_HAND = ("hang=2", "return=manual")


class Request(threading.Thread):
    """One write by a client of its own, which may wait for long."""

    def __init__(self, mirror, sector=64, handle=None):
        super().__init__(daemon=True)
        self.mirror, self.sector = mirror, sector
        self.handle = handle or open_handle(mirror.daemon.uri("vol0"))
        self.write = mirror.ledger.send(sector, 8)
        self.error = None
        self.start()

    def run(self):
        try:
            self.handle.pwrite(stamp(self.write.id, self.sector, 8), self.sector * SECTOR)
        except nbd.Error as error:
            self.error = error

    def is_waiting(self):
        return self.is_alive()

    def answer(self, seconds=120):
        """None when it succeeded, else the error number."""
        self.join(seconds)
        if self.is_alive():
            raise Failed(f"a request was not answered within {seconds} s")
        if self.error is None:
            self.mirror.ledger.answered(self.write)
            return None
        self.mirror.ledger.unanswered(self.write)
        return self.error.errnum


def new_mirror(t, count=1, settings=("suspend=600",), image_settings=BY_HAND):
    mirror = Mirror(t, count=count, settings=settings, image_settings=image_settings)
    mirror.write(32)
    return mirror


def wait_attention(mirror, *saying):
    status = mirror.daemon.wait_state("vol0", "ATTENTION")
    for pattern in saying:
        check(re.search(pattern, str(status["reason"])), f"the reason does not say /{pattern}/: {status['reason']}")
    return status


# ---- the last disk hangs ----

@rows([("the only image", 1), ("the last of two", 2)])
def test_clients_wait_until_the_disk_answers(t, row):
    """B8, rule 8: when the last good image hangs the mirror is in ATTENTION; clients stay connected and their requests
    wait; when the disk is well they are answered, and nothing that was answered is lost."""
    mirror = new_mirror(t, count=row[1])
    for name in mirror.names:
        mirror.fault(name, "hang")
    request = Request(mirror)
    wait_attention(mirror, "does not answer", r"image a\b|image b\b")
    later = Request(mirror, sector=4096)  # a client that comes in the middle of it
    check(request.is_waiting(), f"a request was answered in ATTENTION: {request.error}")
    wait_for("both requests to stand in line", lambda: mirror.status()["waiting_requests"] >= 2)
    for name in mirror.names:
        mirror.fault(name, "heal")
    check(request.answer() is None, f"the request that waited failed: {request.error}")
    check(later.answer() is None, f"the request that came later failed: {later.error}")
    mirror.daemon.wait_state("vol0", "ACTIVE")
    if row[1] == 2 and mirror.image("a")["missing"]:
        mirror.op("restore", "a")
    if row[1] == 2 and mirror.image("b")["missing"]:
        mirror.op("restore", "b")
    mirror.daemon.wait_synchronized("vol0")
    mirror.check_content()
    mirror.stop_and_compare()


@rows([("after a moment", "suspend=1"), ("at once", "suspend=0")])
def test_suspended_requests_fail_in_the_end(t, row):
    """B8, B14: requests wait for `suspend` seconds, then end with ESHUTDOWN; later ones fail at once; the connection is
    used again when the mirror is back."""
    mirror = new_mirror(t, settings=(row[1],))
    handle = open_handle(mirror.daemon.uri("vol0"))
    mirror.write_with(handle, 0, 8)
    mirror.fault("a", "hang")
    check(Request(mirror, handle=handle).answer() == errno.ESHUTDOWN, "the request that waited did not get ESHUTDOWN")
    wait_attention(mirror)
    check(Request(mirror, handle=handle).answer() == errno.ESHUTDOWN, "a later request did not get ESHUTDOWN")
    mirror.fault("a", "heal")
    mirror.daemon.wait_state("vol0", "ACTIVE")
    mirror.write_with(handle, 8, 8)
    handle.shutdown()
    mirror.check_content()
    mirror.stop_and_compare()


def test_under_load(t):
    """B8, rules 5 to 8: many clients' requests over several falls: none is lost, none is answered twice, the checker
    finds every answered byte."""
    mirror = new_mirror(t)
    load = mirror.load(seed=4)
    for _ in range(3):
        load.run(0.5)
        mirror.fault("a", "hang")
        load.run(20, until=lambda: mirror.status()["state"] == "ATTENTION")
        load.run(0.3)
        mirror.fault("a", "heal")
        load.run(20, until=lambda: mirror.status()["state"] == "ACTIVE")
    load.run(0.5)
    load.drain()
    load.close()
    mirror.check_content()
    mirror.stop_and_compare()


def test_deactivated_while_clients_wait(t):
    """B8: deactivation in ATTENTION is refused while clients are connected, naming them; forced it hangs up on them, is
    answered though the disk hangs, and says which files stay open."""
    mirror = new_mirror(t)
    mirror.fault("a", "hang")
    request = Request(mirror)
    wait_attention(mirror)
    refused = mirror.daemon.tarn("mirror", "deactivate", "vol0", status=1)
    check("client" in refused.err, f"the clients are not named: {refused.err}")
    said = mirror.daemon.tarn("mirror", "deactivate", "--force", "--wait", "vol0")
    check("image a" in said.err, f"the disk is not named: {said}")
    check(request.answer() is not None, "a request was answered by a mirror that is INACTIVE")
    check(mirror.status()["state"] == "INACTIVE", f"it is {mirror.status()['state']}")
    check("image a" in mirror.daemon.tarn("mirror", "activate", "vol0", status=1).err, "activated over a hung disk")
    mirror.fault("a", "heal")
    wait_for("its files to be closed", lambda: not images.is_locked(mirror.path("a")))
    check(mirror.status()["state"] == "INACTIVE", "it came back although it was deactivated")
    mirror.daemon.tarn("mirror", "activate", "vol0")
    mirror.check_content()
    mirror.stop_and_compare()


def test_sigterm_in_attention(t):
    """Issue 3: SIGTERM ends a daemon whose mirror waits for a hung disk; the next one activates it."""
    mirror = new_mirror(t)
    mirror.fault("a", "hang")
    request = Request(mirror)
    wait_attention(mirror)
    mirror.daemon.stop()
    check(request.answer() is not None, "a request was answered by a daemon that is gone")
    mirror.daemon.start()
    mirror.daemon.wait_state("vol0", "ACTIVE")
    mirror.check_content()
    mirror.stop_and_compare()


def test_killed_in_attention(t):
    """Rule 7: SIGKILL in ATTENTION; the next daemon recovers as after any crash."""
    mirror = new_mirror(t)
    mirror.fault("a", "hang")
    request = Request(mirror)
    wait_attention(mirror)
    mirror.daemon.kill()
    request.answer()
    mirror.daemon.start()
    mirror.daemon.wait_state("vol0", "ACTIVE")
    mirror.check_content()
    mirror.stop_and_compare()


def test_auto_off(t):
    """B8, B14: with auto=off the mirror stays in ATTENTION until it is told to go on."""
    mirror = new_mirror(t, settings=("auto=off", "suspend=600"))
    mirror.fault("a", "hang")
    request = Request(mirror)
    wait_attention(mirror)
    mirror.fault("a", "heal")
    wait_for("its files to be closed", lambda: not images.is_locked(mirror.path("a")))
    check(mirror.status()["state"] == "ATTENTION", f"it is {mirror.status()['state']} although auto=off")
    check(request.is_waiting(), "a request was answered in ATTENTION")
    mirror.daemon.tarn("mirror", "activate", "vol0")
    check(request.answer() is None, f"the request that waited failed: {request.error}")
    mirror.check_content()


# ---- counts ----

def test_max_missing(t):
    """B14, B8: with more images missing than max-missing allows the mirror falls; clients wait; a new limit, or the
    image, brings it back."""
    mirror = new_mirror(t, count=2, settings=("max-missing=0", "suspend=600"))
    mirror.fault("b", "fail", "--on", "write")
    request = Request(mirror)
    wait_attention(mirror, "max-missing")
    check(request.is_waiting(), "a write that one image has was answered, where two must have it")
    mirror.daemon.tarn("mirror", "set", "vol0", "max-missing=1")
    check(request.answer() is None, f"the request that waited failed: {request.error}")
    mirror.daemon.wait_state("vol0", "ACTIVE")
    mirror.fault("b", "heal")
    if mirror.image("b")["missing"]:
        mirror.op("restore", "b")
    mirror.wait_in("b")
    mirror.check_content()
    mirror.stop_and_compare()


def test_a_limit_that_is_broken_when_it_is_set(t):
    """B14: settings hold at once: a limit that does not hold makes the mirror fall."""
    mirror = new_mirror(t, count=2)
    mirror.op("fracture", "b")
    mirror.daemon.tarn("mirror", "set", "vol0", "max-missing=0")
    wait_attention(mirror, "max-missing")
    mirror.daemon.tarn("mirror", "set", "vol0", "max-missing=-1")
    mirror.daemon.wait_state("vol0", "ACTIVE")
    mirror.check_content()


@rows([("removed", ("remove", "b")), ("restored", ("restore", "b"))])
def test_operations_lead_out_of_attention(t, row):
    """B8, B15: what keeps a mirror in ATTENTION is removed, or restored; then it is ACTIVE again by itself."""
    mirror = new_mirror(t, count=2, settings=("max-missing=0", "suspend=600"))
    mirror.fault("b", "fail", "--on", "write")
    request = Request(mirror)
    wait_attention(mirror, "max-missing")
    mirror.fault("b", "heal")
    wait_for(f"image b to be {row[0]}", lambda: mirror.op(*row[1], status=None).status == 0)  # once all requests have ended
    check(request.answer() is None, f"the request that waited failed: {request.error}")
    mirror.daemon.wait_state("vol0", "ACTIVE")
    mirror.check_content()
    if row[1][0] == "restore":
        mirror.wait_in("b")
        mirror.stop_and_compare()


# ---- files ----

def test_the_last_good_file_is_renamed(t):
    """Thesis 3, rule 8: the file of the last good image leaves its path: clients wait; it is kept open, and the mirror
    comes back by itself when it is back."""
    mirror = new_mirror(t)
    os.rename(mirror.path("a"), mirror.path("a") + ".away")
    wait_attention(mirror, re.escape(mirror.path("a")), "put it back")
    request = Request(mirror)
    check(images.is_locked(mirror.path("a") + ".away"), "the file was closed")
    refused = mirror.daemon.tarn("mirror", "activate", "vol0", status=1)
    check("put it back" in refused.err, f"it does not say what to do: {refused.err}")
    os.rename(mirror.path("a") + ".away", mirror.path("a"))
    check(request.answer() is None, f"the request that waited failed: {request.error}")
    mirror.check_content()
    mirror.stop_and_compare()


@rows([("unlinked", lambda path: os.unlink(path)),
       ("replaced", lambda path: (os.unlink(path), images.make_sparse(path, SIZE)))])
def test_the_last_good_file_is_unlinked(t, row):
    """Thesis 3, rule 8: no name leads to the last good copy any more: it stays open, its data can be saved, and it is
    given up only when the administrator says so."""
    mirror = new_mirror(t)
    mirror.ledger.check_all(lambda offset, length: images.read_at(mirror.path("a"), offset, length))
    row[1](mirror.path("a"))
    status = wait_attention(mirror, r"/proc/\d+/fd/\d+")
    saved = re.search(r"/proc/\d+/fd/\d+", status["reason"]).group()
    mirror.ledger.check_all(lambda offset, length: images.read_at(saved, offset, length))
    with open(saved, "rb") as source, open(mirror.path("saved"), "wb") as target:
        target.write(source.read())
    mirror.daemon.tarn("mirror", "deactivate", "--wait", "vol0")
    check(not os.path.exists(saved) or os.readlink(saved) != mirror.path("a") + " (deleted)", "it is still open")
    os.rename(mirror.path("saved"), mirror.path("a"))
    mirror.daemon.tarn("mirror", "activate", "vol0", status=None)
    if mirror.status()["state"] != "ACTIVE":
        mirror.daemon.tarn("mirror", "activate", "--force", "vol0")
    mirror.check_content()


def test_the_last_good_file_is_made_shorter(t):
    """Thesis 3: a last good image that lost a part of its data is not served again by itself, though its file is as long
    as before."""
    mirror = new_mirror(t)
    os.truncate(mirror.path("a"), SIZE // 2)
    wait_attention(mirror, "shorter")
    os.truncate(mirror.path("a"), SIZE)
    refused = mirror.daemon.tarn("mirror", "activate", "vol0", status=1)
    check("shorter" in refused.err, f"it does not say why: {refused.err}")
    check(mirror.status()["state"] == "ATTENTION", "it is served again")
    mirror.daemon.tarn("mirror", "deactivate", "--wait", "vol0")
    check(mirror.status()["state"] == "INACTIVE", f"it is {mirror.status()['state']}")


def test_a_file_made_shorter_stops_the_mirror(t):
    """Thesis 3, rule 5: an image that lost a part of its data is copied in full, also if the loss has stopped the mirror."""
    mirror = new_mirror(t, count=2, settings=("suspend=600", "max-missing=0"), image_settings=("hang=2",))
    handle, tail = open_handle(mirror.daemon.uri("vol0")), SIZE - 4 * KIB
    for at in [tail] + list(range(0, SIZE, 64 * KIB)):  # no witness lies where b loses something: it is a sample
        handle.pwrite(b"x" * 4 * KIB, at)
    handle.flush()
    handle.shutdown()
    time.sleep(12)  # nothing is marked any more
    os.truncate(mirror.path("b"), tail)
    mirror.daemon.wait_state("vol0", "ATTENTION")
    os.truncate(mirror.path("b"), SIZE)
    mirror.daemon.wait_state("vol0", "ACTIVE")
    wait_for("b", lambda: mirror.image("b")["state"] == "SYNCHRONIZED")
    with open(mirror.path("a"), "rb") as a, open(mirror.path("b"), "rb") as b:
        check(a.read() == b.read(), "a and b are called equal, and differ")


def test_the_record_in_the_state_directory_is_lost(t):
    """Rules 9, 10: the state directory's record is lost under a running mirror: the images tell who is current; nobody
    serves what is old."""
    mirror = new_mirror(t, count=2)
    os.unlink(t.path("state/mirrors/vol0/record"))
    mirror.fault("b", "fail", "--on", "write")
    mirror.write(8, seed=6)
    mirror.wait_out("b")
    mirror.daemon.kill()
    mirror.daemon.start()
    check("record" in str(mirror.status()["reason"]), f"it is shown as {mirror.status()}")
    mirror.daemon.tarn("mirror", "activate", "vol0")
    mirror.check_content()
    check(mirror.image("b")["state"] != "SYNCHRONIZED", "an image that is behind counts as equal")
    mirror.op("restore", "b", "--wait")
    mirror.stop_and_compare()


def test_the_record_in_the_state_directory_is_cut(t):
    """Rules 9, 10: a part of the record may be older than the whole was. It counts for nothing, and it is said what to do."""
    mirror = new_mirror(t, count=2)
    record = t.path("state/mirrors/vol0/record")
    mirror.daemon.stop()
    os.truncate(record, os.path.getsize(record) // 2)
    mirror.daemon.start()
    refused = mirror.daemon.tarn("mirror", "activate", "vol0", status=1)
    check(record in refused.err and "move it away" in refused.err, f"it does not say what to do: {refused.err}")
    os.rename(record, f"{record}.cut")
    mirror.daemon.tarn("mirror", "activate", "vol0")
    mirror.check_content()
    os.unlink(f"{record}.cut")
    mirror.stop_and_compare()


def test_two_mirrors_one_falls(t):
    """Thesis 5: a mirror in ATTENTION takes nothing from the others."""
    mirror = new_mirror(t)
    mirror.daemon.create("other", [mirror.path("x")], size=4 * MIB)
    mirror.fault("a", "hang")
    request = Request(mirror)
    wait_attention(mirror)
    handle = open_handle(mirror.daemon.uri("other"))
    handle.pwrite(b"x" * 64 * KIB, 0)
    handle.flush()
    check(handle.pread(64 * KIB, 0) == b"x" * 64 * KIB, "the other mirror lost what was written")
    handle.shutdown()
    mirror.fault("a", "heal")
    check(request.answer() is None, f"the request that waited failed: {request.error}")


@limit(180)
def test_clients_of_a_mirror_that_waits_leave_room_for_others(t):
    """B8, thesis 8: a mirror is in ATTENTION, its clients wait (`suspend`); one that loses patience hangs up and comes again, over and
    over. What it has asked for and does not want any more must not take the places of other mirrors' clients."""
    daemon, path = Daemon(t).start(), t.path("a.img")
    daemon.create("vol0", [path], size=MIB, settings=["suspend=86400"])
    daemon.create("other", [t.path("b.img")], size=MIB)
    keeper = open_handle(daemon.uri("vol0"))
    os.rename(path, path + ".away")
    daemon.wait_state("vol0", "ATTENTION")
    for _ in range(1100):  # more than there are places
        handle = nbd.NBD()
        handle.connect_uri(daemon.uri("vol0"))
        handle.aio_pread(nbd.Buffer(4096), 0)
        handle.poll(0)
        del handle
    other = open_handle(daemon.uri("other"))
    other.pwrite(b"x" * 4096, 0)
    other.shutdown()
    keeper.shutdown()
