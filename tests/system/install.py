"""`make install`, and the Debian package: what is in them, that it works from where it is put, and that it leaves cleanly. Nothing is
installed on this machine: all goes into the test's folder."""
import os
import re
import stat
import subprocess

import nbd

from lib.context import check, is_sanitized, limit, wait_for
from lib.daemon import Daemon
from lib.disks import loop_device
from lib.images import MIB, digest, make_sparse
from lib.load import open_handle

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def files_below(folder):
    return {os.path.relpath(os.path.join(place, name), folder) for place, _, names in os.walk(folder) for name in names}


def check_modes(folder):
    """Everybody may read it, nobody but its owner may write it."""
    for name in files_below(folder):
        status = os.lstat(os.path.join(folder, name))
        if stat.S_ISREG(status.st_mode):
            wanted = (0o644, 0o755)
            check(stat.S_IMODE(status.st_mode) in wanted, f"{name} has mode {stat.S_IMODE(status.st_mode):o}")


class Placed(Daemon):
    """A daemon, and its client, from where they were installed."""

    def __init__(self, t, tarnd, tarn, state):
        super().__init__(t, state)
        self.programs = [tarnd, tarn]

    def argv(self):
        return [self.programs[0], "--state", self.state, *self.arguments]

    def tarn_argv(self, *words):
        return [self.programs[1], "--state", self.state, *[str(word) for word in words]]


# ---- make install ----

def installed(t):
    """What `make install DESTDIR=` does behind the build, which is done already. Returns the prefix, whichever it was built for."""
    build = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(t.program("tarnd")))))
    check(os.path.exists(os.path.join(build, "build.ninja")), f"{build} is no build of meson's")
    t.run("meson", "install", "-C", build, "--no-rebuild", "--destdir", t.path("root"), quiet=True)
    daemons = [name for name in files_below(t.path("root")) if name.endswith("/sbin/tarnd")]
    check(len(daemons) == 1, f"there is {daemons}")
    return os.path.join(t.path("root"), daemons[0].removesuffix("/sbin/tarnd"))


def test_make_install(t):
    """Issue 4: `make install` puts programs, man pages, completion, units, documents and the license below DESTDIR, and they work
    from there."""
    place = installed(t)
    want = {"sbin/tarnd", "bin/tarn", "bin/tarn-sim", "share/man/man1/tarn.1", "share/man/man1/tarn-sim.1", "share/man/man8/tarnd.8",
            "share/bash-completion/completions/tarn", "share/bash-completion/completions/tarnd",
            "lib/systemd/system/tarnd.service", "lib/systemd/system/tarnd-nbd.socket", "share/doc/tarn/LICENSE",
            "share/doc/tarn/README.md", "share/doc/tarn/operations.md", "share/doc/tarn/concepts.md", "share/doc/tarn/examples/tarnd.conf"}
    have = files_below(place)
    check(want <= have, f"missing: {want - have}")
    check(len(have) == len(files_below(t.path("root"))), f"outside of its prefix: {files_below(t.path('root'))}")
    check_modes(t.path("root"))
    daemon = Placed(t, f"{place}/sbin/tarnd", f"{place}/bin/tarn", t.path("state")).start()
    daemon.create("vol0", [t.path("a.img"), t.path("b.img")], size=4 * MIB)
    check(daemon.tarn("status").out.startswith("all is well"), "it does not work from there")
    check("passed, 0 failed" in t.run(f"{place}/bin/tarn-sim", "--seeds", "1-2").out, "tarn-sim does not work from there")
    check(t.run(f"{place}/bin/tarn-sim", "--seeds", "1-1", "--plant", "list").out, "tarn-sim lists no planted mistakes")
    daemon.stop()


def test_make_says_what_install_does(t):
    """Cli: DESTDIR and PREFIX are obeyed by `make install`."""
    said = t.run("make", "--no-print-directory", "-n", "-C", ROOT, "install", f"DESTDIR={t.path('x')}", "PREFIX=/opt/tarn", quiet=True).out
    check(re.search(r"-Dprefix=/opt/tarn\b", said) and f"DESTDIR={t.path('x')} meson install" in said, f"it does: {said}")


# ---- the units ----

def unit(path):
    """{section: {key: [values]}} of a unit; a line that is none fails."""
    found, section = {}, None
    with open(path, encoding="utf-8") as file:
        for line in file.read().splitlines():
            if not line or line[0] in "#;":
                continue
            head = re.fullmatch(r"\[(\w+)\]", line)
            if head:
                section = found.setdefault(head[1], {})
                continue
            pair = re.fullmatch(r"(\w+)=(.*)", line)
            check(pair and section is not None, f"{path}: {line!r}")
            section.setdefault(pair[1], []).append(pair[2])
    return found


def test_units(t):
    """Issue 4: the units are what systemd takes, and start what is installed: Type=notify, no second try after bad options, enough time
    for a disk that hangs, a socket by the name that the daemon expects."""
    place = installed(t)
    folder = os.path.join(place, "lib/systemd/system")
    service = unit(f"{folder}/tarnd.service")["Service"]
    check(service["Type"] == ["notify"] and service["RestartPreventExitStatus"] == ["2"], f"the service is {service}")
    program = service["ExecStart"][0].split()[0]
    check(os.access(t.path("root") + program, os.X_OK), f"ExecStart={program} is not installed")
    fences = [key for key in service if re.match(r"Protect|Private|Device|ReadOnly|Inaccessible|MountFlags|Dynamic", key)]
    check(not fences, f"{fences} would keep disks from it")
    check(int(service["LimitNOFILE"][0]) >= 4096, "too few files")
    check(unit(f"{folder}/tarnd-nbd.socket")["Socket"]["FileDescriptorName"] == ["nbd"], "the socket's name")
    os.mkdir(t.path("units"))
    for name in os.listdir(folder):  # systemd looks whether the program is there
        with open(f"{folder}/{name}", encoding="utf-8") as source, open(t.path("units", name), "w", encoding="utf-8") as target:
            target.write(source.read().replace(f"={program}", f"={t.path('root')}{program}"))
    result = t.run("systemd-analyze", "verify", "--man=no", *[t.path("units", name) for name in os.listdir(folder)], status=None)
    check(result.status == 0 and not result.err.strip(), f"systemd says: {result}")


def test_programs_are_hardened(t):
    """Issue 11, 10: what reads bytes of strangers is built so that a mistake is harder to use."""
    for name in ("tarnd", "tarn"):
        flags = t.run("readelf", "--dynamic", "--wide", t.program(name), quiet=True).out
        parts = t.run("readelf", "--program-headers", "--wide", t.program(name), quiet=True).out
        check(re.search(r"FLAGS_1.*PIE", flags), f"{name} is not position-independent")
        check(re.search(r"GNU_STACK .* RW +0x", parts), f"{name} has a stack that can be executed")
        if is_sanitized(t):
            continue
        symbols = t.run("readelf", "--symbols", "--wide", t.program(name), quiet=True).out
        check("BIND_NOW" in flags and "GNU_RELRO" in parts, f"{name} leaves its tables of addresses writable")
        check("__stack_chk_fail" in symbols and "__memcpy_chk" in symbols, f"{name} does not guard its stack, or its copies")


def calls_of(group):
    """The system calls of a group of systemd's, also by the groups in it."""
    lines = subprocess.run(["systemd-analyze", "--no-pager", "syscall-filter", group], capture_output=True, text=True, check=True).stdout
    found = set()
    for name in (line.strip() for line in lines.splitlines()[1:]):
        if name.startswith("@"):
            found |= calls_of(name)
        elif name and not name.startswith("#"):
            found.add(name)
    return found


@limit(300)
def test_the_unit_leaves_it_what_it_needs(t):
    """With the capabilities and system calls of the unit, and no others: files of other owners, devices, TCP, all that is done with them."""
    service = unit(os.path.join(installed(t), "lib/systemd/system/tarnd.service"))["Service"]
    names = [name.removeprefix("CAP_").lower() for name in service["CapabilityBoundingSet"][0].split()]
    check(service["SystemCallFilter"] == ["@system-service"], "the filter")
    theirs = make_sparse(t.path("theirs.img"), 8 * MIB)
    os.chmod(theirs, 0o600)
    os.chown(theirs, 65534, 65534)
    wrapper = ["setpriv", "--no-new-privs", "--bounding-set=-all," + ",".join("+" + name for name in names),
               "strace", "--daemonize", "--follow-forks", "--quiet=all", "--output", t.path("calls"), "--trace=all", "--signal=none"]
    with loop_device(t, make_sparse(t.path("loop.raw"), 8 * MIB)) as device:
        daemon = Daemon(t, wrapper=wrapper).start()
        daemon.create("vol0", [theirs, f"{device},overwrite"], size=4 * MIB)
        daemon.wait_synchronized("vol0")
        handle = open_handle(daemon.uri("vol0"))
        handle.pwrite(b"x" * 65536, 0)
        handle.pwrite(b"y" * 4096, MIB, nbd.CMD_FLAG_FUA)
        handle.zero(65536, 2 * MIB)
        handle.trim(65536, 3 * MIB)
        handle.flush()
        handle.shutdown()
        daemon.tarn("image", "add", "vol0", t.path("c.img"))
        daemon.wait_synchronized("vol0")
        daemon.tarn("mirror", "verify", "vol0")
        daemon.tarn("image", "remove", "vol0", "c")
        daemon.tarn("mirror", "deactivate", "vol0")
        daemon.tarn("mirror", "destroy", "--force", "vol0")
        daemon.stop()

    def calls():
        with open(t.path("calls"), encoding="utf-8", errors="replace") as file:
            return set(re.findall(r"^\d+ +(\w+)\(", file.read(), re.MULTILINE))
    wait_for("strace to have seen its end", lambda: "exit_group" in calls())
    used = calls()
    check("io_uring_enter" in used, f"{used} were seen")
    check(used <= calls_of("@system-service"), f"the unit forbids {sorted(used - calls_of('@system-service'))}")


# ---- the Debian package ----

def dpkg(t, *words, status=0):
    """dpkg on a machine that is a folder."""
    return t.run("dpkg", f"--root={t.path('machine')}", "--force-not-root", "--force-depends", "--force-script-chrootless",
                 f"--log={t.path('dpkg.log')}", *words, status=status,
                 env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", "DEBIAN_FRONTEND": "noninteractive"})


def in_machine(t, path):
    return t.path("machine") + path


def start_service(t):
    """As systemd would, by the unit."""
    command = unit(in_machine(t, "/lib/systemd/system/tarnd.service"))["Service"]["ExecStart"][0].split()
    check(command[1:] == ["--state", "/var/lib/tarn"], f"the service starts {command}")
    os.makedirs(in_machine(t, "/var/lib/tarn"), mode=0o700, exist_ok=True)  # StateDirectory=
    return Placed(t, in_machine(t, command[0]), in_machine(t, "/usr/bin/tarn"), in_machine(t, "/var/lib/tarn")).start()


@limit(2400)
def test_debian_package(t):
    """Issue 4: a package is built, installs a service that is enabled, works, and leaves cleanly: what mirrors there are is remembered
    when it is removed, also when it is purged; with none left a purge leaves nothing. Images are never touched."""
    t.run(os.path.join(ROOT, "tools/make-deb"), t.path("deb"), seconds=1800)
    names = os.listdir(t.path("deb"))
    check(len(names) == 1 and re.fullmatch(r"tarn_[\d.]+_\w+\.deb", names[0]), f"there is {names}")
    package = t.path("deb", names[0])
    version = t.run(t.program("tarn"), "--version").out.split()[1]
    check(names[0].startswith(f"tarn_{version}_"), f"the package is {names[0]}, the programs are {version}")
    depends = t.run("dpkg-deb", "--field", package, "Depends").out
    for library in ("libc6", "liburing2", "libisal2", "libjansson4", "libnettle8", "libnbd0"):
        check(library in depends, f"it depends on {depends}, not on {library}")

    os.makedirs(in_machine(t, "/var/lib/dpkg/updates"))
    os.makedirs(in_machine(t, "/var/lib/dpkg/info"))
    with open(in_machine(t, "/var/lib/dpkg/status"), "w", encoding="utf-8"):
        pass
    before = files_below(t.path("machine"))
    dpkg(t, "--install", package)
    enabled = in_machine(t, "/etc/systemd/system/multi-user.target.wants/tarnd.service")
    check(os.path.islink(enabled), "the service is not enabled")
    check(not os.path.lexists(in_machine(t, "/etc/systemd/system/sockets.target.wants/tarnd-nbd.socket")), "the socket is enabled")
    for path in ("/usr/share/man/man8/tarnd.8.gz", "/usr/share/man/man1/tarn.1.gz", "/usr/share/doc/tarn/copyright",
                 "/usr/share/bash-completion/completions/tarn", "/lib/systemd/system/tarnd-nbd.socket", "/usr/bin/tarn-sim"):
        check(os.path.exists(in_machine(t, path)), f"{path} is not there")
    check_modes(in_machine(t, "/usr"))

    daemon = start_service(t)
    daemon.create("vol0", [t.path("a.img"), t.path("b.img")], size=4 * MIB)
    t.run("qemu-io", "-f", "raw", "-c", "write -P 7 0 1M", daemon.uri("vol0"))
    daemon.stop()
    data = digest(t.path("a.img"))

    dpkg(t, "--remove", "tarn")
    left = files_below(t.path("machine")) - before
    check(not any(name.startswith(("usr/", "lib/")) for name in left), f"left behind: {left}")
    check("var/lib/tarn/mirrors/vol0/record" in left, f"the state is gone: {left}")
    said = dpkg(t, "--purge", "tarn").out
    check("is kept, because there are mirrors: vol0" in said, f"it says {said}")
    check(os.path.exists(in_machine(t, "/var/lib/tarn/mirrors/vol0/record")), "the state of a mirror is gone")

    dpkg(t, "--install", package)
    daemon = start_service(t)
    check(daemon.mirror("vol0")["state"] == "ACTIVE", "the mirror is not active again after the package is installed again")
    daemon.tarn("mirror", "deactivate", "--wait", "vol0")
    daemon.tarn("mirror", "destroy", "--force", "vol0")
    daemon.stop()
    dpkg(t, "--purge", "tarn")
    left = {name for name in files_below(t.path("machine")) - before if not name.startswith("var/lib/dpkg/")}
    check(not left and not os.path.exists(in_machine(t, "/var/lib/tarn")), f"left behind: {left}")
    check(digest(t.path("a.img")) == digest(t.path("b.img")) == data, "the images were touched")
