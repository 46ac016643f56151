"""`tarn status` as somebody reads it who was called at night: for each situation the sentences that must be there, with
since when, what is at risk, what happens by itself and which command helps; and what a terminal gets."""
import fcntl
import os
import re
import shutil
import threading

import nbd

from lib import images
from lib.context import Failed, check, rows, wait_for
from lib.daemon import Daemon
from lib.images import KIB, MIB
from lib.load import open_handle
from lib.mirror import Mirror
from lib.small_disk import fill, small_disk
from lib.terminal import Terminal

CLOCK = r"\d\d:\d\d:\d\d"
SINCE = rf"since {CLOCK} \(\d+ (s|min)\)"


def in_background(function):
    """A client whose request may wait for long."""
    def run():
        try:
            function()
        except nbd.Error:
            pass
    threading.Thread(target=run, daemon=True).start()


def fails(request, *arguments):
    try:
        request(*arguments)
    except nbd.Error:
        return True
    return False


def shown(mirror):
    return mirror.daemon.tarn("status").out


def check_sentences(mirror, *sentences, seconds=120):
    """Until `status` has a line for each of these patterns; the first of them is its first line."""
    last = [""]

    def all_there():
        last[0] = shown(mirror)
        lines = last[0].splitlines()
        return re.match(sentences[0], lines[0]) and all(any(re.search(sentence, line) for line in lines)
                                                        for sentence in sentences[1:])
    try:
        wait_for("these sentences", all_there, seconds, every=0.2)
    except Failed:
        missing = [sentence for sentence in sentences[1:] if not re.search(sentence, last[0], re.M)]
        raise Failed(f"first line: {last[0].splitlines()[0]!r}; missing: {missing}; in: {last[0]}") from None
    return last[0]


# ---- the situations ----

def test_healthy(t):
    """Issue 4: the first line says that all is well, and nothing else is said than the table."""
    mirror = Mirror(t)
    text = check_sentences(mirror, r"all is well: mirror vol0 is ACTIVE, its 2 copies are good$")
    check("wrong" not in text and "to do" not in text, f"it finds something: {text}")
    mirror.daemon.create("idle", [t.path("i.img")], size=4 * MIB, activate=False)
    check_sentences(mirror, r"all is well: 1 of 2 mirrors are ACTIVE$")


def test_no_mirrors_yet(t):
    """Issue 4: a daemon without mirrors says how to make one."""
    daemon = Daemon(t).start()
    text = daemon.tarn("status").out
    check(text.startswith("all is well: there are no mirrors yet\n"), f"it says {text}")
    check("tarn mirror create" in text, f"it does not say how to make one: {text}")


def test_one_copy_by_intent(t):
    """Issue 4: a mirror of one image is well, but it is said that there is no second copy, and how to get one."""
    check_sentences(Mirror(t, count=1), r"all is well: .*one copy only: 'tarn image add vol0 PATH'")


def test_an_image_failed(t):
    """Issue 4: an image failed: since when, that one copy is left, and what is lost with it; when it is tried again; what to do."""
    mirror = Mirror(t)
    mirror.fault("b", "fail")
    mirror.write(4)
    check_sentences(mirror, rf"NOT WELL: mirror vol0: ONE COPY LEFT, image b is out {SINCE}$",
                    rf"  wrong +image b is out {SINCE}: a write failed$",
                    rf"  at risk +one copy left: losing image a's disk loses data written since {CLOCK}$",
                    r"  by itself +image b is tried again in \d+ s; if that works, what it missed \([\d.]+[KM]\) is copied to it$",
                    rf"  to do +see to {mirror.path('b')}; then: tarn image restore vol0 b; if it is lost: tarn image add vol0 PATH")
    mirror.fault("b", "heal")
    mirror.op("restore", "b", "--wait")
    check_sentences(mirror, "all is well")


def test_one_of_three_failed(t):
    """Issue 4: with two good copies left nothing is at risk yet, and it is said so."""
    mirror = Mirror(t, count=3)
    mirror.fault("c", "fail")
    mirror.write(4)
    check_sentences(mirror, rf"not quite well: mirror vol0: an image is out, two or more copies are good, image c is out {SINCE}$",
                    r"  at risk +nothing yet: 2 good copies are left$")


def test_an_image_hangs(t):
    """Issue 4: a disk that does not answer: what it still holds; that it waits for the administrator (return=manual)."""
    mirror = Mirror(t, image_settings=("hang=1", "return=manual"))
    mirror.fault("b", "hang")
    mirror.write(4)
    check_sentences(mirror, rf"NOT WELL: mirror vol0: ONE COPY LEFT, image b is out {SINCE}$",
                    rf"  wrong +image b is out {SINCE}: its disk does not answer; it still holds \d+ requests?$",
                    r"  by itself +nothing, before the disk of image b has answered$")
    mirror.fault("b", "heal")
    check_sentences(mirror, "NOT WELL", r"  by itself +nothing: image b waits for you \(its setting is return=manual\)$")


def test_fractured(t):
    """Issue 4: an image that was fractured: as of when it stands, how far it is behind, and the command that brings it back."""
    mirror = Mirror(t)
    mirror.op("fracture", "b")
    mirror.write(4)
    check_sentences(mirror, rf"NOT WELL: mirror vol0: ONE COPY LEFT, image b is fractured {SINCE}$",
                    rf"  wrong +image b is fractured {SINCE}: it stays as it was then, and is \d+K behind$",
                    rf"  at risk +one copy left: losing image a's disk loses data written since {CLOCK}$",
                    r"  by itself +nothing: image b stays as it is until you restore it$",
                    r"  to do +when you have done what you fractured it for: tarn image restore vol0 b$")


def test_synchronising(t):
    """Issue 4: an image that is being copied to: how far, how fast, when it is done; until then there is one copy."""
    mirror = Mirror(t)
    mirror.op("set", "b", "rate=1M")
    mirror.op("sync", "b")
    check_sentences(mirror, r"NOT WELL: mirror vol0: ONE COPY LEFT, image b is being copied to$",
                    r"  wrong +image b is not complete yet: everything is being copied to it, \d+% \(\S+ of 16M\), \S+/s, done in \d+ s",
                    r"  at risk +one copy left: losing image a's disk loses all data of this mirror$",
                    r"  by itself +the copy goes on, and image b is good again at its end$")


def test_written_apart(t):
    """Issue 4: images that were written to behind the daemon's back: it is not served; Tarn cannot know which is right, and says
    how the administrator tells it."""
    mirror = Mirror(t)
    mirror.write(4)
    mirror.daemon.tarn("mirror", "deactivate", "vol0")
    for name in mirror.names:
        with open(mirror.path(name), "r+b") as file:
            file.write(name.encode() * 4096)
    mirror.daemon.tarn("mirror", "activate", "vol0", status=1)
    check_sentences(mirror, rf"NOT WELL: mirror vol0: STOPPED, it needs attention {SINCE}$",
                    rf"  wrong +it is stopped {SINCE}: image a: its file was written to while it was not in use; image b",
                    r"  at risk +the mirror is not served; no client is connected$",
                    r"  to do +put back what was there; or .* which one is right: tarn image promote --force vol0 IMAGE; "
                    r"then: tarn mirror activate vol0$")
    mirror.daemon.tarn("image", "promote", "--force", "vol0", "b")
    mirror.daemon.tarn("mirror", "activate", "vol0")
    mirror.wait_in("a")
    check_sentences(mirror, "all is well")


def test_attention_last_image_hangs(t):
    """Issue 4: the last good image hangs: which, since when, who waits and until when, what is lost without its disk."""
    mirror = Mirror(t, settings=("suspend=600",), image_settings=("hang=1", "return=manual"))
    mirror.fault("b", "fail")
    mirror.write(4)
    mirror.wait_out("b")
    mirror.fault("a", "hang")
    in_background(mirror.write)
    check_sentences(mirror, rf"NOT WELL: mirror vol0: STOPPED, it needs attention {SINCE}$",
                    rf"  wrong +it is stopped {SINCE}: image a is the last good one, and its disk does not answer",
                    rf"  wrong +image b is out {SINCE}: a write failed$",
                    r"  at risk +1 client is connected, and waiting \(1 request\); in \d+ min requests begin to fail \(ESHUTDOWN\)$",
                    rf"  at risk +one copy left: losing image a's disk loses data written since {CLOCK}$",
                    r"  by itself +it goes on when the disk answers$",
                    r"  to do +see to the disk that is named; if it will never answer: stop tarnd")
    mirror.fault("a", "heal")
    mirror.daemon.wait_state("vol0", "ACTIVE")


def test_attention_and_it_stays(t):
    """B8: with auto=off a mirror does not come back when its disk answers; nor does `status` say that it will, or that requests are held."""
    mirror = Mirror(t, count=1, settings=("auto=off", "suspend=0"), image_settings=("hang=1",))
    mirror.fault("a", "hang")
    in_background(mirror.write)
    check_sentences(mirror, r"NOT WELL: mirror vol0: STOPPED", r"by itself +nothing: its setting is auto=off$", r"image a \(\d+ request")
    mirror.fault("a", "heal")
    wait_for("its disk to hold nothing", lambda: mirror.image("a")["held_requests"] == 0)
    check("request)" not in shown(mirror), "it says that its disk holds requests")
    mirror.daemon.tarn("mirror", "activate", "vol0")


def test_attention_requests_fail(t):
    """Issue 4: when `suspend` is over it is said that requests fail."""
    mirror = Mirror(t, count=1, settings=("suspend=0",), image_settings=("hang=1",))
    handle = open_handle(mirror.daemon.uri("vol0"))
    mirror.fault("a", "hang")
    in_background(mirror.write)
    check_sentences(mirror, "NOT WELL", r"  at risk +.* connected, and all requests fail \(ESHUTDOWN\)$")
    mirror.fault("a", "heal")
    mirror.daemon.wait_state("vol0", "ACTIVE")
    handle.shutdown()


def test_attention_too_many_missing(t):
    """Issue 4: more images are missing than max-missing allows: what it is, and both ways out."""
    mirror = Mirror(t, settings=("suspend=600", "max-missing=0"))
    mirror.fault("b", "fail")
    in_background(mirror.write)
    check_sentences(mirror, rf"NOT WELL: mirror vol0: STOPPED, it needs attention {SINCE}$",
                    rf"  wrong +it is stopped {SINCE}: 1 image is missing, max-missing allows 0$",
                    r"  by itself +it is tried again in \d s, and goes on when the cause is over$",
                    r"  to do +bring images back, or go on with those that are left: tarn mirror set vol0 max-missing=-1$")
    mirror.daemon.tarn("mirror", "set", "vol0", "max-missing=-1")
    mirror.daemon.wait_state("vol0", "ACTIVE")


def test_attention_too_few_images(t):
    """B14: an activation that was refused for a setting: changing it is not all that has to be done."""
    mirror = Mirror(t)
    mirror.daemon.tarn("mirror", "deactivate", "vol0", "--wait")
    mirror.daemon.tarn("mirror", "set", "vol0", "min-images=3")
    mirror.daemon.tarn("mirror", "activate", "vol0", status=1)
    check_sentences(mirror, r"NOT WELL: mirror vol0: STOPPED",
                    r"  to do +bring images back, or go on with those that are left: tarn mirror set vol0 min-images=-1; then: tarn mirror activate vol0$")


def test_attention_newest_is_away(t):
    """Issue 4: the image with the newest data is away: bring it back; what going on without it costs."""
    mirror = Mirror(t)
    mirror.op("fracture", "b")
    mirror.write(4)
    mirror.daemon.stop()
    os.rename(mirror.path("a"), mirror.path("a") + ".away")
    mirror.daemon.start()
    check_sentences(mirror, rf"NOT WELL: mirror vol0: STOPPED, it needs attention {SINCE}$",
                    rf"  wrong +it is stopped {SINCE}: image a is absent: {mirror.path('a')} does not exist; no image that is here has "
                    "the newest data",
                    r"  by itself +it is tried again in \d s",
                    r"  to do +bring back the disk that is named; only if it is lost for good.*: tarn mirror activate --force vol0$")
    os.rename(mirror.path("a") + ".away", mirror.path("a"))
    mirror.daemon.wait_state("vol0", "ACTIVE")


def test_attention_all_metadata_is_lost(t):
    """No image has a sound record, so force does not help: what `status` says instead works, and keeps the data of the right image."""
    mirror = Mirror(t)
    mirror.write(4)
    mirror.daemon.stop()
    paths = [mirror.path(name) for name in "ab"]
    for path in paths:
        os.unlink(path + ".tarn")
    before = images.digest(paths[0])
    mirror.daemon.start()
    check_sentences(mirror, "NOT WELL: mirror vol0: STOPPED",
                    r"  to do +bring back what is named, with its metadata .*; only if the metadata of all images is lost for good, .*"
                    r": tarn mirror deactivate vol0; tarn mirror destroy --force vol0; tarn mirror create vol0 --image PATH, .*,overwrite$")
    mirror.daemon.tarn("mirror", "activate", "--force", "vol0", status=1)
    mirror.daemon.tarn("mirror", "deactivate", "vol0")
    mirror.daemon.tarn("mirror", "destroy", "--force", "vol0", quiet=True)
    mirror.daemon.create("vol0", [paths[0], f"{paths[1]},overwrite"])
    mirror.daemon.wait_synchronized("vol0")
    check(images.digest(paths[0]) == before and images.digest(paths[1]) == before, "the data of the right image is not there")


def test_attention_a_file_is_locked(t):
    """Another process has the metadata open: that is to be ended, no disk is to be brought back, and nothing is to be forced."""
    mirror = Mirror(t, count=1, settings=("auto=off",))
    mirror.daemon.tarn("image", "set", "vol0", "a", "hang=1")
    mirror.daemon.tarn("mirror", "deactivate", "vol0")
    with open(mirror.path("a") + ".tarn", "r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        mirror.daemon.tarn("mirror", "activate", "vol0", status=1)
        check_sentences(mirror, "NOT WELL: mirror vol0: STOPPED",
                        r"  to do +stop the process that has it open \('fuser -v FILE' names it; .*\); then: tarn mirror activate vol0$")
    mirror.daemon.tarn("mirror", "activate", "vol0")


def test_attention_says_nothing_of_maps_that_nobody_has_read(t):
    """An image that is behind has missed something, also while its mirror cannot be opened."""
    mirror = Mirror(t)
    mirror.op("fracture", "b")
    mirror.write(4)
    mirror.daemon.stop()
    os.rename(mirror.path("a"), mirror.path("a") + ".away")
    mirror.daemon.start()
    mirror.daemon.wait_state("vol0", "ATTENTION")
    check(mirror.image("b")["missed_bytes"] is None, f"how much it misses nobody knows: {mirror.image('b')}")
    check("has missed nothing" not in shown(mirror), shown(mirror))


def test_attention_last_file_is_unlinked(t):
    """Issue 4: the last good file has lost its name: the daemon must not be stopped before its data is saved, and that is said."""
    mirror = Mirror(t, count=1, settings=("suspend=600",))
    mirror.write(4)
    os.rename(mirror.path("a"), mirror.path("a") + ".away")
    check_sentences(mirror, rf"NOT WELL: mirror vol0: STOPPED, it needs attention {SINCE}$",
                    rf"  wrong +it is stopped {SINCE}: .*a file of image a, the last good one, is not at its path any more",
                    r"  by itself +it goes on when the file is back at its path$|  by itself +it is tried again in \d s",
                    r"  to do +do not stop tarnd, which alone still reaches the data: .* 'tarn mirror deactivate vol0' then")
    os.rename(mirror.path("a") + ".away", mirror.path("a"))
    mirror.daemon.wait_state("vol0", "ACTIVE")


def test_attention_no_master(t):
    """Issue 4: a mirror whose master was demoted says who must decide, and how."""
    mirror = Mirror(t)
    mirror.daemon.tarn("mirror", "deactivate", "vol0")
    mirror.op("demote", "a")
    mirror.daemon.tarn("mirror", "activate", "vol0", status=1)
    check_sentences(mirror, "NOT WELL: mirror vol0: STOPPED", r"  to do +say which image is right: tarn image promote vol0 IMAGE$")


def test_unreadable_blocks(t):
    """Issue 4: a place that no image can read: how much, where, that it is lost without a backup, and that writing heals it."""
    mirror = Mirror(t, count=1)
    mirror.write(100)
    mirror.fault("a", "fail", "--on", "read", "--range", "128K+4K")
    mirror.daemon.tarn("image", "add", "vol0", mirror.path("b"), "--wait")
    check_sentences(mirror, r"NOT WELL: mirror vol0: a part of its DATA CANNOT BE READ$",
                    r"  wrong +4K cannot be read from any image: 4096 bytes of volume 0 at 131072 cannot be read",
                    r"  at risk +reads of that place fail; what was there is lost, unless you have a backup$",
                    r"  by itself +nothing; whatever is written there heals it$",
                    r"  to do +find the file that lies there, and write it again from a backup")
    mirror.daemon.tarn("mirror", "deactivate", "vol0", "--wait")
    check_sentences(mirror, r"NOT WELL: mirror vol0: a part of its DATA CANNOT BE READ$")
    mirror.daemon.tarn("mirror", "activate", "vol0")
    mirror.fault("a", "heal")
    handle = open_handle(mirror.daemon.uri("vol0"))
    handle.pwrite(b"x" * 4 * KIB, 128 * KIB)
    handle.shutdown()
    wait_for("it to be healed", lambda: mirror.image("a")["unreadable_bytes"] == 0)
    check("CANNOT BE READ" not in shown(mirror), "it still finds it")


def test_images_that_do_not_agree(t):
    """Thesis 3, C10: what verify found is not forgotten, by `status`, the log, nor the next daemon, until a verify finds nothing."""
    mirror = Mirror(t)
    mirror.write(4)
    check(mirror.status()["differs"] is None, "it is known before anybody looked")
    with open(mirror.path("b"), "r+b") as file:
        file.seek(MIB)
        file.write(b"other")
    mirror.daemon.tarn("mirror", "verify", "vol0", status=1)
    check(mirror.status()["differs"]["bytes"] == 4096, f"differs: {mirror.status()['differs']}")
    check("error vol0: its images do not agree: 4096 bytes differ" in mirror.daemon.log(), "there is no event")
    sentences = (r"NOT WELL: mirror vol0: its images DO NOT AGREE$",
                 rf"  wrong +its images do not agree {SINCE}: 4K differ, as 'tarn mirror verify' found$",
                 r"  at risk +a read there gets what one of the images has; which of them is right only somebody who knows the data can tell$",
                 r"  to do +tarn mirror verify vol0, which lists the places; then say which image is right: tarn mirror verify vol0 --repair=IMAGE")
    check_sentences(mirror, *sentences)
    with_it = os.path.join(mirror.daemon.state, "mirrors/vol0/config.json")
    wait_for("config.json to know", lambda: "differs" in t.run("cat", with_it, quiet=True).out)
    mirror.daemon.kill()
    mirror.daemon.start()
    check_sentences(mirror, *sentences)
    mirror.daemon.wait_state("vol0", "ACTIVE")
    mirror.daemon.tarn("mirror", "verify", "vol0", "--repair=a", status=None)
    mirror.daemon.tarn("mirror", "verify", "vol0")
    check_sentences(mirror, "all is well")
    mirror.daemon.stop()
    mirror.daemon.start()
    check_sentences(mirror, "all is well")


def test_a_disk_with_errors(t):
    """Issue 4: reads that one image could not answer are said although clients did not notice."""
    mirror = Mirror(t)
    mirror.write(64)
    mirror.fault("b", "fail", "--on", "read", "--range", "0+1M")
    handle = open_handle(mirror.daemon.uri("vol0"))

    def has_failed():
        for offset in range(0, MIB, 64 * KIB):
            handle.pread(64 * KIB, offset)
        return mirror.image("b")["read_errors"] > 0
    wait_for("a read of image b to fail", has_failed)
    handle.shutdown()
    check_sentences(mirror, r"not quite well: mirror vol0: a disk has errors$",
                    rf"  wrong +the disk of image b \({mirror.path('b')}\) could not read \d+ times?",
                    r"  to do +look at that disk .*tarn mirror verify vol0; replace it: tarn image add vol0 PATH --wait")


def test_recovering(t):
    """Issue 4: after a crash: that images are made equal, and that clients are served meanwhile."""
    mirror = Mirror(t, size=256 * MIB, place="tmpfs")
    mirror.write(300, flush=False)
    mirror.fault("b", "delay=50")  # so that it is seen
    mirror.daemon.kill()
    mirror.daemon.launch()
    pattern = r"not quite well: mirror vol0: recovering from a crash$"
    wait_for("an answer", lambda: mirror.daemon.tarn("status", status=None, quiet=True).status == 0, every=0.01)
    text = shown(mirror)
    if not re.match(pattern, text):  # so quick that nobody sees it: then it says what was done
        check(re.search(r"recovery after crash: \S+ marked, \S+ copied", text), f"it says nothing of it: {text}")
        return
    for sentence in (r"  wrong +the mirror was not closed cleanly \(a crash, a power cut, a flush that failed\)",
                     r"  wrong +image b is not complete yet: what was being written at the crash is being copied to it, \d+%",
                     r"  at risk +nothing that was flushed",
                     r"  by itself +it ends soon; clients are served meanwhile$"):
        check(re.search(sentence, text, re.M), f"it does not say /{sentence}/: {text}")


def test_a_mirror_that_is_not_closed_cleanly(t):
    """The last flush of a deactivation fails: the events tell it, too, and the recovery that follows does not speak of the daemon's end."""
    mirror = Mirror(t)
    mirror.write(4, flush=False)
    for name in "ab":
        mirror.fault(name, "fail", "--on", "flush")
    mirror.daemon.tarn("mirror", "deactivate", "vol0", status=1)
    check("error vol0: is closed, but could not be deactivated cleanly: the last flush failed" in mirror.daemon.log(), "no event")
    check_sentences(mirror, "not quite well: mirror vol0: INACTIVE, and its images", r"  at risk +nothing that was flushed; but before")


def test_events_of_the_master(t):
    """Who became the master, and that there is none, is in the events."""
    mirror = Mirror(t)
    mirror.op("promote", "b")
    mirror.daemon.tarn("mirror", "deactivate", "vol0")
    mirror.op("demote", "b")
    log = mirror.daemon.log()
    check("info vol0: image b is the master\n" in log, log)
    check("info vol0: image b is not the master any more: there is none\n" in log, log)


def test_a_removed_image_that_hangs(t):
    """Its disk has not answered: it is named as a reason, not as an image of the mirror; and activation comes after the answer."""
    mirror = Mirror(t)
    for name in "ab":
        mirror.daemon.tarn("image", "set", "vol0", name, "hang=1")
    mirror.fault("b", "hang")
    mirror.write(1, flush=False)
    mirror.daemon.tarn("image", "remove", "vol0", "b", quiet=True)
    mirror.fault("a", "hang")
    in_background(lambda: mirror.write(1))
    text = check_sentences(mirror, "NOT WELL: mirror vol0: STOPPED", r"image b is removed, and its files are released once")
    check(not re.search(r"^  wrong +image b", text, re.M), f"it is called an image of the mirror: {text}")
    check([image["name"] for image in mirror.status()["images"]] == ["a"], f"{mirror.status()}")
    mirror.daemon.tarn("mirror", "deactivate", "--force", "vol0", quiet=True)
    check_sentences(mirror, "not quite well: mirror vol0: INACTIVE, and a disk has not answered yet$",
                    r"  wrong +a disk has not answered yet, .*image b \(",
                    r"  to do +see to that disk; when it has answered: tarn mirror activate vol0; if it never will: stop tarnd")
    mirror.fault("a", "heal")


def test_inactive_after_a_crash(t):
    """Thesis 3, rule 8: a mirror that was not stopped cleanly is not called well before it was active again."""
    mirror = Mirror(t, settings=("auto=off",))
    mirror.write(4, flush=False)
    mirror.daemon.kill()
    mirror.daemon.start()
    check(mirror.status()["unclean"], "unclean")
    check_sentences(mirror, r"not quite well: mirror vol0: INACTIVE, and its images are not known to be equal$",
                    r"  wrong +it was ACTIVE when the daemon ended; activation makes its images equal$",
                    r"  at risk +nothing that was flushed; but before it was active again, its images may differ where it was being written$",
                    r"  by itself +nothing, before it is activated$", r"  to do +tarn mirror activate vol0$")
    mirror.daemon.tarn("mirror", "activate", "vol0")
    check(not mirror.status()["unclean"], "unclean")
    mirror.daemon.wait_synchronized("vol0")
    wait_for("the recovery to end", lambda: not mirror.status()["last_recovery"]["running"])
    mirror.daemon.tarn("mirror", "deactivate", "vol0")
    check(not mirror.status()["unclean"], "unclean")
    check_sentences(mirror, "all is well")


def test_fractured_after_a_crash(t):
    """Thesis 3, C6: an image that is fractured before a crash was recovered from is no copy of any moment: the command and `status` say so."""
    mirror = Mirror(t, settings=("auto=off",))
    mirror.write(4, flush=False)
    mirror.daemon.kill()
    mirror.daemon.start()
    said = mirror.op("fracture", "b").out
    check("was not whole" in said and "stays as it is" not in said, f"it says: {said}")
    check(mirror.image("b")["missed_bytes"] is None, "how much it misses is told by maps that nobody has read")
    check_sentences(mirror, rf"NOT WELL: mirror vol0: ONE COPY LEFT, image b is fractured {SINCE}$",
                    rf"  wrong +image b is fractured {SINCE}: it was not whole then, and is of no use as a copy$",
                    r"  at risk +one copy left: losing image a's disk loses all data of this mirror$",
                    r"  by itself +nothing: image b stays as it is until you restore it$", r" +b +slave +UNSYNCHRONIZED \(fractured\) .* \? ")


def test_a_fractured_image_that_is_another_file(t):
    """Thesis 3, C6: it was whole when it was fractured, but its file is another one now: who is told that it was never whole may throw a
    good copy away."""
    mirror = Mirror(t, settings=("auto=off",))
    mirror.op("fracture", "b")
    mirror.daemon.stop()
    shutil.copyfile(mirror.path("b"), mirror.path("b") + ".new")
    os.replace(mirror.path("b") + ".new", mirror.path("b"))
    mirror.daemon.start()
    mirror.daemon.tarn("mirror", "activate", "vol0")
    check_sentences(mirror, "NOT WELL: mirror vol0: ONE COPY LEFT, image b is fractured",
                    rf"  wrong +image b is fractured {SINCE}, and is not what it was then: its file is another one than it was",
                    r"  to do +when you have done what you fractured it for: tarn image restore vol0 b$")


def test_an_image_that_was_written_apart(t):
    """C6: nothing overwrites it unasked, and `status` names the command that does, and no other."""
    mirror = Mirror(t, settings=("auto=off",))
    state, other = mirror.daemon.state, mirror.daemon.state + ".old"
    mirror.daemon.stop()
    shutil.copytree(state, other, symlinks=True)
    mirror.daemon.start()
    mirror.daemon.tarn("mirror", "activate", "vol0")
    mirror.op("promote", "b")
    mirror.op("fracture", "a")
    mirror.write(4)
    mirror.daemon.stop()
    shutil.rmtree(state)
    os.rename(other, state)
    names = [mirror.path("b"), mirror.path("b") + ".tarn"]
    for name in names:
        os.rename(name, name + ".away")
    mirror.daemon.start()
    mirror.daemon.tarn("mirror", "activate", "--force", "vol0")
    for name in names:
        os.rename(name + ".away", name)
    refused = mirror.op("restore", "b", status=1).err
    check("'tarn image sync' gives up what only it has" in refused, f"it is restored: {refused}")
    check_sentences(mirror, "NOT WELL: mirror vol0: ONE COPY LEFT, image b is out",
                    r"  wrong +image b is out.*: it was written apart from the others",
                    r"  by itself +nothing: image b is not overwritten unasked$",
                    r"  to do +put back what was there; or, if nothing is needed that only image b has: tarn image sync vol0 b copies it in full$")
    mirror.op("sync", "b", "--wait")
    check_sentences(mirror, "all is well")


def test_its_record_is_lost(t):
    """Thesis 3, A7: without a record nobody knows what an image of a closed mirror is: `status` claims nothing, and activation finds out."""
    mirror = Mirror(t)
    mirror.daemon.tarn("mirror", "deactivate", "--wait", "vol0")
    mirror.daemon.stop()
    os.unlink(os.path.join(mirror.daemon.state, "mirrors/vol0/record"))
    mirror.daemon.start()
    check([image["state"] for image in mirror.status()["images"]] == [None, None], "it claims a state")
    check_sentences(mirror, r"not quite well: mirror vol0: INACTIVE, and its images are not known to be equal$",
                    r"  wrong +its record in the state directory is missing or damaged; activation reads its images'$",
                    r"  to do +tarn mirror activate vol0$", r"^ +a +\? +\? ")
    mirror.daemon.tarn("mirror", "activate", "vol0")
    check_sentences(mirror, "all is well")


def test_the_last_good_image_has_a_block_that_cannot_be_written(t):
    """Rule 5: what failed is to be written again, and no flush is answered before: that is said, and the way out. Another image takes its
    place then."""
    mirror = Mirror(t, count=1)
    client = open_handle(mirror.daemon.uri("vol0"))
    mirror.fault("a", "fail", "--on", "write", "--range", "1M+4K")
    client.pwrite(bytes(4096), 0)
    for flags in (0, nbd.CMD_FLAG_FUA):
        check(fails(client.pwrite, bytes(4096), MIB, flags), "a write that failed is answered as good")
        check_sentences(mirror, r"NOT WELL: mirror vol0: something CANNOT BE WRITTEN$",
                        r"  wrong +.* on image a, the last good one, cannot be written again, because of a block that",
                        r"  at risk +every flush fails" if flags else r"  at risk +what failed was told",
                        r"  to do +give it another good image, .*tarn image add vol0 PATH")
    check(fails(client.flush), "a flush is answered as good")
    mirror.daemon.tarn("image", "add", "vol0", t.path("b.img"), "--wait")
    wait_for("image a to be out", lambda: mirror.daemon.mirror("vol0")["images"][0]["missing"])
    client.flush()
    check_sentences(mirror, r"NOT WELL: mirror vol0: ONE COPY LEFT, image a is out")
    check(mirror.daemon.mirror("vol0")["flushes_fail"] is False, "flushes are still said to fail")
    client.shutdown()


def test_state_directory_cannot_be_written(t):
    """Issue 4: where the daemon cannot record who is current: what that means, and what to do."""
    small = small_disk(t, "small", 2 * MIB)
    os.symlink(os.path.join(small, "state"), t.path("state"))
    os.mkdir(os.path.join(small, "state"))
    mirror = Mirror(t)
    mirror.write(4)
    filler = fill(small)
    os.truncate(os.path.join(small, "state/mirrors/vol0/record"), 0)  # its blocks are not kept for it any more
    fill(small + "/state")
    mirror.fault("b", "fail")
    in_background(mirror.write)
    check_sentences(mirror, r"NOT WELL: mirror vol0: the state directory cannot be written$",
                    rf"  wrong +the state directory {small}/state cannot be written",
                    r"  at risk +clients are served; but no image can come or go",
                    rf"  to do +make room on that file system, or repair it \(df {small}/state; 'tarn events'\)$")
    os.unlink(filler)
    os.unlink(small + "/state/filler")
    mirror.fault("b", "heal")
    mirror.op("restore", "b", "--wait")
    check_sentences(mirror, "all is well")


def test_daemon_does_not_run(t):
    """Issue 4: no daemon: one line that says what that means and how to start it."""
    mirror = Mirror(t)
    mirror.daemon.stop()
    result = mirror.daemon.tarn("status", status=1)
    check(re.fullmatch(rf"tarn: no daemon answers at {mirror.daemon.control()}, so nothing is served \(and nothing that was "
                       r"answered is lost\); start it with 'systemctl start tarnd' or .*\n", result.err), f"it says {result.err!r}")
    for words in (["--state", ""], ["--control", ""], ["--state="]):
        result = t.run(t.program("tarn"), *words, "status", status=2)
        check("the path that was given is empty" in result.err, f"{words}: {result.err!r}")
    mirror.daemon.start()
    mirror.daemon.kill()
    wait_for("it to be said after a crash, too",  # the kernel may take a moment to close what the daemon had
             lambda: "no daemon answers" in mirror.daemon.tarn("status", status=1).err)


def test_daemon_does_not_answer(t):
    """Issue 4: a daemon that is stuck is told from one that is not there, and what to do about it."""
    mirror = Mirror(t)
    mirror.daemon.pause()
    said = mirror.daemon.tarn("status", status=1).err
    mirror.daemon.resume()
    check(re.fullmatch(r"tarn: the daemon at \S+ is there, and does not answer within \d+ s: it is stopped or stuck; .*\n", said),
          f"it says {said!r}")


def test_odd_paths(t):
    """Issue 4: what a path holds does not get to the terminal as it is: no escapes."""
    daemon = Daemon(t).start()
    folder = t.path("odd\033[31mfolder")
    os.mkdir(folder)
    daemon.create("vol0", [f"{folder}/a.img", t.path("b.img")], size=4 * MIB)
    daemon.stop()
    os.rename(f"{folder}/a.img", t.path("away"))
    daemon.start()
    text = daemon.tarn("status").out
    check("\033" not in text and "odd?[31mfolder/a.img does not exist" in text, f"it prints {text!r}")


def test_the_worst_comes_first(t):
    """Issue 4: of several mirrors the first line names the worst, and how many are not well; each has its paragraph."""
    mirror = Mirror(t, image_settings=("hang=1",))
    for name in ("other", "third"):
        mirror.daemon.create(name, [t.path(f"{name}-a.img"), t.path(f"{name}-b.img")], size=4 * MIB)
    mirror.daemon.tarn("image", "fracture", "other", "b")
    mirror.fault("a", "hang")
    mirror.fault("b", "hang")
    in_background(mirror.write)
    mirror.daemon.wait_state("vol0", "ATTENTION")
    text = check_sentences(mirror, rf"NOT WELL: mirror vol0: STOPPED, it needs attention {SINCE}; 2 of 3 mirrors are not well$",
                           "^mirror other: ONE COPY LEFT$", "^mirror vol0: STOPPED, it needs attention$")
    check("mirror third:" not in text, f"a mirror that is well has a paragraph: {text}")
    for name in "ab":
        mirror.fault(name, "heal")


def test_the_log_is_off(t):
    """B5: a mirror whose intent log was switched off, to measure what it costs, is not called well."""
    mirror = Mirror(t)
    mirror.daemon.tarn("fault", "vol0", "log", "off")
    check(mirror.status()["log_off"], "log_off")
    check_sentences(mirror, r"NOT WELL: mirror vol0: its intent log is OFF$",
                    r"  wrong +its intent log was switched off, by 'tarn fault vol0 log off'$",
                    r"  at risk +what a crash, or an image that fails, leaves different from now on is known to nobody, and never made equal$",
                    r"  to do +when you have measured: tarn fault vol0 log on$")
    mirror.daemon.tarn("fault", "vol0", "log", "on")
    check(not mirror.status()["log_off"], "log_off")
    check_sentences(mirror, "all is well")


def test_json_says_it_too(t):
    """Cli: what the sentences are made of is in --json, beside what was there."""
    mirror = Mirror(t, settings=("suspend=600",), image_settings=("hang=1", "return=manual"))
    document = mirror.daemon.json("status")
    check(re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", document["time"]), f"time is {document['time']}")
    check(document["state_directory"] == mirror.daemon.state, f"the state directory is {document['state_directory']}")
    well = document["mirrors"][0]
    check([well[key] for key in ("since", "retry_in_seconds", "requests_fail_in_seconds", "state_unwritable")] ==
          [None, None, None, False], f"a mirror that is well has {well}")
    check([image["return"] for image in well["images"]] == ["manual", "manual"], "return")
    for name in mirror.names:
        mirror.fault(name, "hang")
    in_background(mirror.write)
    ill = mirror.daemon.wait_state("vol0", "ATTENTION")
    check(ill["since"] and 0 < ill["requests_fail_in_seconds"] <= 600, f"a mirror in ATTENTION has {ill}")
    for name in mirror.names:
        mirror.fault(name, "heal")


# ---- on a terminal ----

def on_terminal(daemon, *words, **options):
    """`tarn` on a terminal of its own."""
    return Terminal(daemon.tarn_argv(*words), **options)


def test_colours_on_a_terminal_only(t):
    """Issue 4: colours on a terminal, none with NO_COLOR, none elsewhere."""
    mirror = Mirror(t)
    mirror.op("fracture", "b")
    check("\033" not in shown(mirror), "there are escapes in what is no terminal")
    for environment, coloured in (({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)):
        screen = on_terminal(mirror.daemon, "status", **environment)
        check(screen.end() == 0, "its exit status")
        check(("\033[1;31m" in screen.text) == coloured, f"with {environment} there is {screen.text!r}")
        check("NOT WELL" in screen.text, f"it shows {screen.text!r}")


def test_long_lines_are_wrapped_on_a_terminal(t):
    """Issue 4: on a terminal sentences are wrapped between words; elsewhere they are one line, for grep."""
    mirror = Mirror(t)
    mirror.fault("b", "fail")
    mirror.write(4)
    mirror.wait_out("b")
    screen = on_terminal(mirror.daemon, "status", columns=72, NO_COLOR="1")
    check(screen.end() == 0, "its exit status")
    paragraph = [line.rstrip("\r") for line in screen.text.split("node ")[0].splitlines()[1:]]
    check(len(paragraph) > 6, f"nothing is wrapped: {paragraph}")
    check(all(len(line) <= 72 or " " not in line.strip() for line in paragraph), f"a line is too long: {paragraph}")
    check(re.search(r"tarn image restore vol0 b", " ".join(" ".join(paragraph).split())), f"the words are {paragraph}")


def test_watch_draws_over(t):
    """Issue 4: --watch draws the screen anew each second, and follows what happens."""
    mirror = Mirror(t)
    screen = on_terminal(mirror.daemon, "status", "--watch")
    screen.wait("all is well")
    screen.wait("Ctrl-C ends this view")
    mirror.op("fracture", "b")
    screen.wait(r"\033\[\d+A\r\033\[J[^\n]*NOT WELL")
    screen.press_ctrl_c()
    check(screen.end() == 0, "its exit status")


@rows([("a copy", ("image", "sync", "vol0", "b", "--wait"), r"image b \[#*\.+\] +\d+%  \S+ of 16M  \S+/s, \d+ s left",
        "the work goes on without this command; 'tarn status vol0' shows how far it is"),
       ("a return", ("image", "restore", "vol0", "b", "--wait"), r"image b \[#*\.+\] +\d+%  \S+ of \S+  \S+/s, \d+ s left",
        "the work goes on without this command; 'tarn status vol0' shows how far it is"),
       ("a removal", ("image", "remove", "vol0", "b", "--wait"), "image b is being removed",
        "the work goes on without this command; 'tarn status vol0' shows how far it is"),
       ("a comparison", ("mirror", "verify", "vol0"), r"comparing \[#*\.+\] +\d+%", "the comparison is stopped"),
       ("a deactivation", ("mirror", "deactivate", "vol0", "--wait"), "mirror vol0 is being deactivated",
        "the deactivation goes on without this command")])
def test_progress_and_ctrl_c(t, row):
    """Cli: long work shows progress on a terminal; Ctrl-C ends the command, not the work (only a comparison ends with it), and
    says so."""
    _, words, bar, said = row
    mirror = Mirror(t, image_settings=("hang=30",))
    mirror.write(40, flush=False)
    if words[1] in ("sync", "restore"):
        mirror.op("set", "b", "rate=1M")
    if words[1] == "restore":
        mirror.op("fracture", "b")
        handle = open_handle(mirror.daemon.uri("vol0"))
        for offset in range(0, mirror.size, MIB):
            handle.pwrite(b"x" * MIB, offset)
        handle.shutdown()
    elif words[1] == "remove":
        mirror.fault("b", "hang", "--on", "write")
        in_background(mirror.write)
        wait_for("the write to hang", lambda: mirror.status()["images"][0]["writes"] > 40)
    elif words[1] == "verify":
        mirror.fault("b", "delay=200", "--on", "read")
    elif words[1] == "deactivate":
        mirror.fault("b", "hang", "--on", "flush")
    screen = on_terminal(mirror.daemon, *words)
    screen.wait(bar)
    screen.press_ctrl_c()
    check(screen.end() == 1, f"its exit status is {screen.status}")
    check(said in screen.text.replace("\r\n", " "), f"it says {screen.text!r}")
    if words[1] in ("sync", "restore"):
        check(mirror.image("b")["state"] == "SYNCHRONIZING", "the copy has ended with the command")
        mirror.op("set", "b", "rate=0")
        mirror.wait_in("b")
    elif words[1] == "verify":
        wait_for("the comparison to end", lambda: not mirror.status()["verify"])
    else:
        mirror.fault("b", "heal")
        wait_for("it to be done", lambda: mirror.image("b") is None or mirror.status()["state"] == "INACTIVE")


def test_no_bar_elsewhere(t):
    """Cli: what is no terminal gets the result and no bar."""
    mirror = Mirror(t)
    out = mirror.op("sync", "b", "--wait").out
    check(out == "image b of mirror vol0 is SYNCHRONIZED\n", f"it prints {out!r}")


def test_a_long_path_that_is_not_ascii(t):
    """B14, thesis 8 ("all is well" is never said of a mirror with an image out): an image is shown, whatever its path is called. Its
    reason is too long, and was cut in the middle of a letter: that is no JSON."""
    daemon = Daemon(t).start()
    pad = "x" * (len(t.path("x")) % 2 + 1)
    folder = t.path(pad + "é" * 100)
    os.mkdir(folder)
    b = f"{folder}/x{'é' * 20}.img"
    daemon.create("vol0", [t.path("a.img"), b], size=MIB)
    daemon.wait_synchronized("vol0")
    os.unlink(b)
    wait_for("image b to be out", lambda: "vol0: image b is out" in daemon.log())
    shown = [found["name"] for found in daemon.mirror("vol0")["images"]]
    check(shown == ["a", "b"], f"status shows the images {shown}")
    check("all is well" not in daemon.tarn("status", status=None).out, "all is well, with an image out")
