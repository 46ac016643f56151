"""Verify: finds what differs, says who agrees, and repairs from the image that it is told."""
import json
import re
import signal
import subprocess

from lib import images
from lib.context import check, rows, wait_for
from lib.images import KIB, MIB
from lib.mirror import SIZE, Mirror, spoil

BAD = 3 * MIB + 20 * KIB  # where the tests write behind the daemon's back
BAD_BYTES = 8 * KIB


def new_mirror(t, count=3, place="disk", spoilt="b"):
    mirror = Mirror(t, count=count, place=place)
    mirror.write(64)
    for name in spoilt:
        spoil(mirror.path(name), BAD, BAD_BYTES)
        images.drop_cache(mirror.path(name))
    return mirror


def verify(mirror, *words, status):
    result = mirror.daemon.tarn("--json", "mirror", "verify", "vol0", *words, status=status)
    return json.loads(result.out)


@rows([("on disk", "disk"), ("in memory", "tmpfs")])
def test_equal_images(t, row):
    """C10, rule 15: images that are equal are said to be, with exit status 0; nothing is written."""
    mirror = new_mirror(t, place=row[1], spoilt="")
    before = [images.digest(mirror.path(name)) for name in "abc"]
    said = mirror.daemon.tarn("mirror", "verify", "vol0")
    check("agree" in said.out, f"it does not say that they agree: {said.out}")
    document = verify(mirror, status=0)
    check(document["equal"] and document["differing_bytes"] == 0, f"it says {document}")
    check(document["done_bytes"] == document["total_bytes"] == SIZE, f"it has not compared all: {document}")
    check([images.digest(mirror.path(name)) for name in "abc"] == before, "verify has written something")


@rows([("on disk", "disk"), ("in memory", "tmpfs")])
def test_a_difference_is_found_and_repaired(t, row):
    """C10, rule 15: what was written behind the daemon's back is found: where, and which images agree; exit status 1.
    Nothing is repaired without being told from which; then the place is equal, and a second look finds nothing."""
    mirror = new_mirror(t, place=row[1])
    bad = images.digest(mirror.path("b"))
    said = mirror.daemon.tarn("mirror", "verify", "vol0", status=1)
    check(re.search(r"a, c \| b", said.out), f"it does not say who agrees: {said.out}")
    check(len(said.err.strip().splitlines()) == 1 and "--repair" in said.err, f"it does not say what to do: {said.err}")
    document = verify(mirror, status=1)
    check(not document["equal"] and document["differing_bytes"] >= BAD_BYTES, f"it says {document}")
    first = document["differences"][0]
    check(first["offset"] <= BAD and BAD + BAD_BYTES <= first["offset"] + first["length"], f"the place is {first}")
    check(first["images"]["a"] == first["images"]["c"] != first["images"]["b"], f"it says {first}")
    check(images.digest(mirror.path("b")) == bad, "it was repaired without being asked")
    document = verify(mirror, "--repair=a", status=0)
    check(document["repaired_bytes"] == document["differing_bytes"] >= BAD_BYTES, f"it says {document}")
    verify(mirror, status=0)
    mirror.check_content()
    mirror.stop_and_compare()


def test_the_majority_is_not_always_right(t):
    """Rule 15: Tarn does not decide which copy is right: told so, it copies the one over the two."""
    mirror = new_mirror(t, spoilt="ab")
    check(verify(mirror, status=1)["differing_bytes"] > 0, "the difference was not found")
    verify(mirror, "--repair=c", status=0)
    mirror.check_content()
    mirror.stop_and_compare()


def test_three_images_three_contents(t):
    """Rule 15: each of three different contents is named by itself."""
    mirror = new_mirror(t)
    with open(mirror.path("c"), "r+b") as file:
        file.seek(BAD)
        file.write(b"\x11" * BAD_BYTES)
    groups = verify(mirror, status=1)["differences"][0]["images"]
    check(sorted(groups.values()) == ["A", "B", "C"], f"it says {groups}")


def test_while_clients_write(t):
    """C10, rule 15: verify reads stable data: what clients write meanwhile is no difference, and is not harmed by a
    repair."""
    mirror = new_mirror(t, spoilt="")
    load = mirror.load(seed=6)
    client = subprocess.Popen(mirror.daemon.tarn_argv("--json", "mirror", "verify", "vol0", "--repair=a"),
                              stdout=subprocess.PIPE, text=True)
    load.run(40, until=lambda: client.poll() is not None)
    document = json.load(client.stdout)
    check(client.wait() == 0 and document["differing_bytes"] == 0, f"it found {document}")
    load.drain()
    load.close()
    mirror.check_content()
    mirror.stop_and_compare()


def test_reads_that_are_wrong(t):
    """C10: a disk that returns wrong bytes without an error is found by comparing."""
    mirror = new_mirror(t, spoilt="")
    mirror.fault("b", "corrupt", "--range", f"{BAD}+{BAD_BYTES}")
    first = verify(mirror, status=1)["differences"][0]
    check(first["images"]["a"] == first["images"]["c"] != first["images"]["b"], f"it says {first}")
    mirror.fault("b", "heal")
    verify(mirror, status=0)


def test_an_image_that_is_out_is_not_compared(t):
    """Rule 15: what an image misses is no difference."""
    mirror = new_mirror(t, spoilt="")
    mirror.op("fracture", "c")
    mirror.write(16, seed=2)
    document = verify(mirror, status=0)
    check(document["equal"] and document["not_compared"] == ["c"], f"an image that is cut off was compared: {document}")
    said = mirror.daemon.tarn("mirror", "verify", "vol0")
    check("between a, b; not compared, or not everywhere: c" in said.out and "all images" not in said.out, f"it says {said.out}")


def test_the_only_good_copy_is_not_compared(t):
    """Rule 15, thesis 3: while an image is copied to, the other one is compared with nothing: that is no agreement."""
    mirror = new_mirror(t, count=2, spoilt="")
    mirror.op("fracture", "b")
    said = mirror.daemon.tarn("mirror", "verify", "vol0", status=1)
    check("image a is its only good copy now" in said.err and "agree" not in said.out, f"it says {said}")
    mirror.op("restore", "b", "--wait")
    check(verify(mirror, status=0)["not_compared"] == [], "all are compared again")


def test_an_image_leaves_while_it_is_compared(t):
    """Rule 15, thesis 3: an image that fails in the middle leaves one copy: what was compared before is no agreement of all."""
    mirror = new_mirror(t, count=2, spoilt="")
    slow(mirror)
    client = begin(mirror)
    mirror.op("fracture", "b")
    out, err = client.communicate(timeout=120)
    check(client.returncode == 1 and "all images agree" not in out and "not all was compared" in err, f"it says {out} {err}")


def slow(mirror):
    """Makes a verify take long."""
    mirror.op("set", "b", "hang=60")
    mirror.fault("b", "delay=300", "--on", "read")


def begin(mirror, *words):
    client = subprocess.Popen(mirror.daemon.tarn_argv("mirror", "verify", "vol0", *words), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True)
    wait_for("the verify to run", lambda: mirror.status()["verify"])
    return client


def test_it_ends_with_its_client(t):
    """Issue 3: a verify whose client has gone ends; another one may begin."""
    mirror = new_mirror(t, spoilt="")
    slow(mirror)
    client = begin(mirror)
    refused = mirror.daemon.tarn("mirror", "verify", "vol0", status=1)
    check("already" in refused.err, f"a second one at the same time: {refused.err}")
    client.send_signal(signal.SIGKILL)
    client.wait()
    wait_for("the verify to end", lambda: mirror.status()["verify"] is None)
    mirror.fault("b", "heal")
    verify(mirror, status=0)


@rows([("deactivated", ("mirror", "deactivate", "--wait", "vol0")), ("fractured", ("image", "fracture", "vol0", "c")),
       ("removed", ("image", "remove", "vol0", "c")), ("added to", ("image", "add", "vol0", "d")), ("stopped", None)])
def test_it_is_in_nobodys_way(t, row):
    """Issue 3: any operation is safe during a verify."""
    mirror = new_mirror(t, spoilt="")
    slow(mirror)
    client = begin(mirror)
    if row[1] is None:
        mirror.daemon.stop()
    else:
        mirror.daemon.tarn(*[mirror.path("d") if word == "d" else word for word in row[1]])
        if row[1][1] != "deactivate":
            mirror.fault("b", "heal")
    out, err = client.communicate(timeout=120)
    if row[1] is None or row[1][1] == "deactivate":
        check(client.returncode == 1 and len(err.strip().splitlines()) == 1, f"it ended with {client.returncode}: {err}")
    else:
        check(client.returncode == 0, f"it ended with {client.returncode}: {out} {err}")
        mirror.check_content()


@rows([("an image that is not there", True, ("--repair=z",), 1, ["'z'"]),
       ("a name that is none", True, ("--repair=",), 2, ["name"]), ("INACTIVE", False, (), 1, ["ACTIVE", "activate"])])
def test_refused(t, row):
    """Bad input: one line, nothing changed."""
    _, active, words, status, saying = row
    mirror = Mirror(t, activate=active, size=MIB)
    result = mirror.daemon.tarn("mirror", "verify", "vol0", *words, status=status)
    check(len(result.err.strip().splitlines()) == 1, f"not one line: {result.err!r}")
    for pattern in saying:
        check(re.search(pattern, result.err), f"the message does not say /{pattern}/: {result.err!r}")


def test_of_one_image(t):
    """Rule 15: a single image is read in full, and agrees with itself."""
    mirror = new_mirror(t, count=1, spoilt="")
    document = verify(mirror, status=0)
    check(document["equal"] and document["done_bytes"] == SIZE, f"it says {document}")


def test_a_place_that_one_image_cannot_read(t):
    """Rule 15: that an image cannot read a place is no difference, and is not called one."""
    mirror = new_mirror(t, spoilt="")
    mirror.fault("b", "fail", "--on", "read", "--range", f"{BAD}+{BAD_BYTES}")
    said = mirror.daemon.tarn("mirror", "verify", "vol0", status=1)
    check("what could be read agrees" in said.out and "b cannot be read" in said.out, f"it says {said.out}")
    check("cannot be read on every image" in said.err and "do not agree" not in said.err, f"it says {said.err}")
    check(mirror.status()["differs"] is None, "it is noted as a difference")
    mirror.fault("b", "heal")
    mirror.fault("b", "fail", "--on", "read", "--range", f"{BAD}+{BAD_BYTES}")
    document = json.loads(mirror.daemon.tarn("--json", "mirror", "verify", "vol0", "--repair=a").out)
    check(document["repaired_bytes"] >= BAD_BYTES and document["differing_bytes"] == 0, f"it says {document}")
    check(document["equal"] and mirror.status()["differs"] is None, f"what was repaired is called different: {document}")
    mirror.fault("b", "heal")
    verify(mirror, status=0)
