"""Limits that are reached: files, memory, processes, connections, numbers of things; clocks that jump; a process that is stopped."""
import os
import re
import subprocess
import time

import nbd

from lib.context import check, is_sanitized, rows, wait_for
from lib.daemon import Daemon
from lib.images import KIB, MIB
from lib.load import open_handle
from lib.mirror import Mirror
from lib.raw_nbd import Raw
from lib.refusals import EITHER, World, check_message

GIVEN = "--bounding-set=-sys_resource"  # root may raise what it likes


def limited(*limits):
    """A wrapper that starts tarnd with limits that it cannot raise."""
    prlimit = ["prlimit", *limits, "--"]
    return prlimit + (["setpriv", GIVEN, "--inh-caps=-sys_resource", "--"] if os.geteuid() == 0 else [])


def cpu_seconds(daemon):
    with open(f"/proc/{daemon.pid()}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_kib(daemon):
    with open(f"/proc/{daemon.pid()}/status", encoding="ascii") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read())[1])


def open_files(daemon):
    return len(os.listdir(f"/proc/{daemon.pid()}/fd"))


def start_or_refuse(t, wrapper):
    """Starts tarnd under limits: True when it is ready; else it must have said why in its last line, and ended by itself."""
    daemon = Daemon(t, wrapper=wrapper)
    daemon.launch()
    wait_for("tarnd to be ready, or to end", lambda: re.search(r"\bready\b", daemon.log()) or not daemon.is_running())
    if daemon.is_running():
        daemon.tarn("status", "--help")
        daemon.stop()
        return True
    check(daemon.process.returncode in EITHER, f"it ended with {daemon.process.returncode}: {daemon.log()}")
    check_message(daemon.log().strip().splitlines()[-1], ["memory|limit|files|descriptors|thread"])
    return False


def test_too_little_at_the_start(t):
    """Issue 4, limits: with too few files, too little memory or no second thread the daemon says so in one line and ends, or
    it starts; it never dies of it."""
    sizes = () if is_sanitized(t) else (90000, 120000, 150000, 180000, 220000, 400000)
    outcomes = {kib: start_or_refuse(t, limited(f"--as={kib * KIB}")) for kib in sizes}
    check(not sizes or (outcomes[400000] and not outcomes[90000]), f"with so much memory it started: {outcomes}")
    check(start_or_refuse(t, limited("--nofile=48:48")), "with 48 files it does not start")
    start_or_refuse(t, limited("--nofile=14:14"))
    if os.geteuid() == 0:  # root's processes are not counted
        os.chmod(t.directory, 0o777)
        wrapper = ["prlimit", "--nproc=1:1", "--", "setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "--"]
        os.mkdir(t.path("state"), 0o777) if not os.path.exists(t.path("state")) else None
        for place, names, files in os.walk(t.path("state")):
            for path in [place, *(os.path.join(place, name) for name in names + files)]:
                os.chown(path, 54321, 54321)
    else:
        wrapper = ["prlimit", "--nproc=1:1", "--"]
    wrapper = ["env", "ASAN_OPTIONS=exitcode=99:detect_leaks=0", *wrapper]  # which takes a process to look for leaks
    check(not start_or_refuse(t, wrapper), "it starts without a thread for what blocks")


def test_files_run_out(t):
    """Issue 4, limits: clients take all the descriptors that there are: those who are connected work, the administrator gets
    in, who comes later is hung up on, nobody burns the processor; when they go all is well."""
    world = World(t, wrapper=limited("--nofile=48:48"))
    world.activate()
    handle = open_handle(world.daemon.uri("vol0"))
    clients = [Raw(world.daemon.socket()) for _ in range(60)]
    wait_for("the descriptors to be used up", lambda: "nearly all files" in world.daemon.log())
    for _ in range(10):
        result = world.daemon.tarn("status", status=0)
        check("vol0" in result.out, f"status says {result}")
    handle.pwrite(b"1" * 4096, 0)
    made = 0
    while made < 6:  # the descriptors that were kept for this go, too
        result = world.daemon.tarn("mirror", "create", f"m{made}", "--size", "64K", "--image", world.path(f"m{made}.img"),
                                   "--activate", status=None)
        if result.status:
            check_message(result.err, ["[Tt]oo many open files|files"])
            break
        made += 1
    check(made < 6, "six more mirrors are open: the limit is not reached")
    used = cpu_seconds(world.daemon)
    time.sleep(1)
    check(cpu_seconds(world.daemon) - used < 0.5, "waiting for descriptors it keeps a processor busy")
    check(world.daemon.mirror("vol0")["state"] == "ACTIVE", "the mirror suffered")
    for client in clients:
        client.close()
    handle.shutdown()

    def is_made():
        return world.daemon.tarn(*world.create(world.path("x.img")), status=None, quiet=True).status == 0
    wait_for("a mirror to be made", is_made)


def test_memory_runs_out(t):
    """Issue 4, limits: with no memory left commands are refused in one line, what is served is served on, and nothing dies."""
    world = World(t)
    world.activate()
    handle = open_handle(world.daemon.uri("vol0"))
    handle.pwrite(b"1" * 64 * KIB, 0)
    with open(f"/proc/{world.daemon.pid()}/status", encoding="ascii") as file:
        now = int(re.search(r"VmSize:\s+(\d+)", file.read())[1])
    refused = 0
    for more in () if is_sanitized(t) else (4, 40, 400, 2000, 8000, 40000):  # KiB; the hard limit stays, so that it can be raised
        subprocess.run(["prlimit", "--pid", str(world.daemon.pid()), f"--as={(now + more) * KIB}:"], check=True)
        for words in (world.create(world.path("x.img"), world.path("y.img")), ["image", "add", "vol0", world.path("z.img")],
                      ["status"], ["mirror", "set", "vol0", "suspend=9"], ["mirror", "verify", "vol0"],
                      ["image", "fracture", "vol0", "b"], ["image", "restore", "vol0", "b"],
                      ["image", "remove", "--force", "vol0", "c"], ["mirror", "destroy", "new"]):
            result = world.daemon.tarn(*words, status=None)
            check(result.status in (0, 1), f"after {more} KiB more: {result}")
            if result.status:
                check_message(result.err, ["."])
                refused += "memory" in result.err
        world.daemon.check_alive()
        check(handle.pread(64 * KIB, 0) == b"1" * 64 * KIB, "a read")
        handle.pwrite(b"1" * 64 * KIB, 0)
        check(world.daemon.is_running(), "it is gone")
    check(refused > 0 or is_sanitized(t), "memory never ran out, so nothing was tested")
    subprocess.run(["prlimit", "--pid", str(world.daemon.pid()), "--as=unlimited:"], check=True)
    handle.shutdown()
    world.daemon.tarn("image", "add", "vol0", world.path("w.img"), "--wait")


def test_as_many_as_there_may_be(t):
    """Cli, limits: 16 images, 8 volumes, names of 63 letters; and one more is refused with the number."""
    world = World(t)
    daemon, name = world.daemon, "n" * 63
    letters = [f"{number:02}" + "i" * 61 for number in range(17)]
    daemon.tarn(*world.create(*(f"{letter}={world.path(letter)}.img" for letter in letters[:16]), name=name), "--activate")
    status = daemon.wait_synchronized(name)
    check([image["name"] for image in status["images"]] == letters[:16], f"images: {status['images']}")
    handle = open_handle(daemon.uri(name))
    handle.pwrite(b"1" * 4096, 0)
    handle.shutdown()
    world.check_refused(["image", "add", name, world.path("more.img")], (1,), ["16"])
    daemon.tarn("image", "remove", "--force", name, letters[7])
    daemon.tarn("image", "add", name, f"{letters[16]}={world.path('more.img')}", "--wait")
    daemon.wait_synchronized(name)
    volumes = [word for number in range(8) for word in ("--volume", f"v{number}{'x' * 61}:64K")]
    daemon.tarn("mirror", "create", "wide", *volumes, "--image", "+".join(world.path(f"w{n}.img") for n in range(8)), "--activate")
    for number in range(8):
        handle = open_handle(daemon.uri(f"wide/v{number}{'x' * 61}"))
        check(handle.get_size() == 64 * KIB, "a volume's size")
        handle.shutdown()
    daemon.restart()
    for one in (name, "wide"):
        daemon.wait_state(one, "ACTIVE")


def test_clients_too_many_to_name(t):
    """Cli: deactivate names the clients that are connected, also when their names are longer than a line has room for."""
    daemon = Daemon(t).start()
    daemon.tarn("mirror", "create", "vol0", "--volume", "x:64K", "--volume", "y:64K", "--image",
                f"{t.path('x.img')}+{t.path('y.img')}", "--activate")
    handles = [open_handle(daemon.uri("vol0/" + "xxxy"[number % 4])) for number in range(24)]
    result = daemon.tarn("mirror", "deactivate", "vol0", status=1)
    check_message(result.err, ["24 clients", "pid", "--force"])
    daemon.check_alive()
    for handle in handles:
        handle.shutdown()


def test_many_mirrors(t):
    """Limits: as many mirrors as an administrator makes; start, status and stop with all of them."""
    daemon = Daemon(t).start()
    os.mkdir(t.shm("many"))
    for number in range(40):
        daemon.create(f"m{number}", [t.shm("many", f"{number}.img")], size=64 * KIB)
    daemon.restart()
    mirrors = daemon.json("status")["mirrors"]
    check(len(mirrors) == 40 and all(mirror["state"] == "ACTIVE" for mirror in mirrors), f"they are {mirrors}"[:500])


# ---- nothing grows ----

def test_nothing_leaks(t):
    """Thesis 5: after many mirrors made, refused, activated, destroyed, and images added and removed, the daemon has the files
    open and about the memory in use that it had before."""
    daemon = Daemon(t, arguments=["--enable-faults"]).start()
    os.mkdir(t.shm("leak"))
    a, b, c = (t.shm("leak", name) for name in "abc")
    taken = t.shm("leak", "taken")
    daemon.create("kept", [taken], size=MIB)

    def cycle():
        daemon.tarn("mirror", "create", "m", "--size", "1M", "--image", a, "--image", b, "--activate", quiet=True)
        daemon.tarn("mirror", "create", "x", "--size", "1M", "--image", taken, status=1, quiet=True)
        daemon.tarn("mirror", "create", "x", "--size", "2M", "--image", a, "--image", c, status=1, quiet=True)
        daemon.tarn("image", "add", "m", c, quiet=True)
        daemon.tarn("image", "add", "m", taken, status=1, quiet=True)
        daemon.tarn("image", "remove", "--force", "m", "c", quiet=True)
        daemon.tarn("mirror", "verify", "m", quiet=True)
        daemon.tarn("fault", "m", "b", "fail", quiet=True)
        daemon.tarn("fault", "m", "b", "heal", quiet=True)
        daemon.tarn("mirror", "deactivate", "--force", "m", quiet=True)
        daemon.tarn("mirror", "destroy", "--force", "m", quiet=True)
        for path in (a, b, c):
            os.path.exists(path) and os.unlink(path)
    for _ in range(10):
        cycle()
    files, memory = open_files(daemon), resident_kib(daemon)
    for _ in range(40):
        cycle()
        daemon.json("status")
    wait_for(f"{files} files to be open", lambda: open_files(daemon) <= files)
    grown = resident_kib(daemon) - memory
    check(grown < 2048 or is_sanitized(t), f"it uses {grown} KiB more than before")
    t.note(f"40 cycles: {grown} KiB more in memory, {files} files open")


# ---- clocks ----

CLOCK = r"""
/* A wall clock that is wrong by so many seconds as the file says. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long wrong_by(void) {
  char text[32] = "";
  int fd = open(getenv("WRONG_CLOCK"), O_RDONLY | O_CLOEXEC);
  if (fd < 0 || read(fd, text, sizeof text - 1) < 0) text[0] = 0;
  if (fd >= 0) close(fd);
  return atol(text);
}
int clock_gettime(clockid_t clock, struct timespec *now) {
  int result = (int)syscall(SYS_clock_gettime, clock, now);
  if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += wrong_by();
  return result;
}
time_t time(time_t *out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return out ? *out = now.tv_sec : now.tv_sec;
}
int gettimeofday(struct timeval *out, void *zone) {
  struct timespec now;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &now);
  out->tv_sec = now.tv_sec, out->tv_usec = now.tv_nsec / 1000;
  return 0;
}
"""
HOURS = 3600
LIBRARY_FIRST = "ASAN_OPTIONS=exitcode=99:detect_leaks=1:verify_asan_link_order=0"


@rows([("it jumps ahead by days", 5 * 24 * HOURS), ("it jumps back by days", -5 * 24 * HOURS),
       ("it jumps back before 1970", -100 * 365 * 24 * HOURS)])
def test_the_wall_clock_jumps(t, row):
    """Issue 4, bad input: a clock that jumps while an image is out: it comes back in its time, nobody leaves, requests are
    answered, a restart finds all as it was; only what is shown as a time is wrong."""
    library, wrong = t.path("clock.so"), t.path("wrong")
    with open(t.path("clock.c"), "w", encoding="ascii") as file:
        file.write(CLOCK)
    t.run("cc", "-shared", "-fPIC", "-o", library, t.path("clock.c"))

    def jump(seconds):
        with open(wrong + ".new", "w", encoding="ascii") as file:
            file.write(str(seconds))
        os.rename(wrong + ".new", wrong)
    jump(0)
    daemon = Daemon(t, arguments=["--enable-faults"], wrapper=["env", LIBRARY_FIRST, f"LD_PRELOAD={library}", f"WRONG_CLOCK={wrong}"]).start()
    daemon.create("vol0", [t.path("a.img"), t.path("b.img")], size=MIB)
    for name in "ab":
        daemon.tarn("image", "set", "vol0", name, "hang=2", "return-after=1")
    handle = open_handle(daemon.uri("vol0"))

    def image_b():
        return daemon.mirror("vol0")["images"][1]
    daemon.tarn("fault", "vol0", "b", "fail")
    handle.pwrite(b"1" * 4096, 0)
    wait_for("b to be out", lambda: image_b()["missing"] == "failed")
    jump(row[1])
    handle.pwrite(b"2" * 4096, 4096)
    daemon.tarn("status")
    daemon.tarn("fault", "vol0", "b", "heal")
    wait_for("b to be back", lambda: image_b()["state"] == "SYNCHRONIZED")
    check(time.strftime("%Y-%m-%d", time.gmtime()) not in daemon.log().splitlines()[-1], "the daemon's clock is not wrong")
    for seconds in (0, row[1], -row[1], 0, row[1]):
        jump(seconds)
        handle.pwrite(b"3" * 4096, 8192)
        handle.flush()
    daemon.tarn("image", "fracture", "vol0", "b")
    handle.pwrite(b"4" * 4096, 12288)
    check(image_b()["missing"] == "fractured", "b is not fractured")
    daemon.tarn("status")
    handle.shutdown()
    jump(0)
    daemon.restart()
    daemon.tarn("image", "restore", "vol0", "b", "--wait")
    check(daemon.mirror("vol0")["images"][0]["state"] == "SYNCHRONIZED", "a left")
    daemon.tarn("mirror", "verify", "vol0")


def complete(handles):
    """Until every request on these connections is answered."""
    wait_for("all requests to be answered",
             lambda: [handle.poll(1) for handle in handles] and not any(handle.aio_in_flight() for handle in handles), every=0)


def test_what_a_hung_disk_keeps_harms_nobody(t):
    """Issue 10: one disk hangs with more writes of 256 KiB in flight than there are buffers: the mirror goes on with its other
    image, and an unrelated mirror does not notice, before that disk is healed."""
    daemon = Daemon(t, arguments=["--enable-faults"]).start()
    for name in ("vol0", "vol1"):
        daemon.create(name, [t.shm(f"{name}-{image}.img") for image in "ab"], size=96 * MIB)
    daemon.tarn("image", "set", "vol0", "b", "hang=1", "return=manual")
    daemon.tarn("fault", "vol0", "b", "hang")
    content = nbd.Buffer.from_bytearray(bytearray(b"\x5a" * (256 * KIB)))
    crowd = [open_handle(daemon.uri("vol0")) for _ in range(6)]
    for number in range(6 * 40):
        crowd[number % 6].aio_pwrite(content, number * 256 * KIB)
    wait_for("b to be out", lambda: [handle.poll(1) for handle in crowd] and
             daemon.mirror("vol0")["images"][1]["missing"] == "failed")
    held = daemon.mirror("vol0")["images"][1]["held_requests"]
    check(held > 20, f"b's disk keeps {held} requests: the test proves nothing")
    other = open_handle(daemon.uri("vol1"))
    cookies = [other.aio_pwrite(content, number * 256 * KIB) for number in range(64)]
    complete([other])
    check(all(other.aio_command_completed(cookie) for cookie in cookies), "the writes to vol1 are not answered")
    check(other.pread(MIB, 0) == b"\x5a" * MIB, "vol1 reads something else")
    complete(crowd)
    daemon.tarn("fault", "vol0", "b", "heal")
    wait_for("its disk to let go", lambda: daemon.mirror("vol0")["images"][1]["held_requests"] == 0)
    daemon.tarn("image", "restore", "vol0", "b", "--wait")
    daemon.tarn("mirror", "verify", "vol0")
    for handle in (*crowd, other):
        handle.shutdown()


def test_a_daemon_that_is_stopped_for_long(t):
    """Rule 7, limits: SIGSTOP for longer than `hang`, with requests in flight: no image is thrown out for that, and all are
    answered."""
    mirror = Mirror(t, image_settings=("hang=1", "return=manual"))
    load = mirror.load(seed=5)
    for _ in range(3):
        load.run(0.5)
        mirror.daemon.pause()
        load.run(2.2)
        mirror.daemon.resume()
    load.run(0.5)
    load.drain()
    load.close()
    for image in mirror.status()["images"]:
        check(image["state"] == "SYNCHRONIZED" and image["write_errors"] == 0, f"image {image['name']} left: {image}")
    mirror.check_content()
    mirror.stop_and_compare("ab")
