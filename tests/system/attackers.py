"""Somebody who is not root owns the folder that an image lies in, and puts something in the place of the daemon's files. He can take his
image away; he cannot make the daemon read, write or believe anything else."""
import json
import os
import re
import socket

from lib import images
from lib.context import Failed, check, limit, rows, wait_for
from lib.daemon import Daemon
from lib.disks import loop_device
from lib.images import MIB
from lib.load import open_handle
from lib.raw_nbd import Raw

SIZE = 8 * MIB
NOBODY = 65534


class Attack:
    """`folder` is his; `victim` is a file that only root may touch, as long as an image."""

    def __init__(self, t):
        self.t = t
        os.chmod(t.path(), 0o711)
        self.folder, self.victim = t.path("his"), t.path("victim")
        os.mkdir(self.folder)
        os.chown(self.folder, NOBODY, NOBODY)
        images.make_random(self.victim, SIZE, seed=7)
        os.chmod(self.victim, 0o600)
        self.before = self.digests()
        self.daemon = Daemon(t).start()

    def digests(self):
        return images.digest(self.victim), os.stat(self.victim).st_size

    def path(self, name="a.img"):
        return os.path.join(self.folder, name)

    def create(self, *more):
        self.daemon.create("vol0", [self.path(), *more], size=SIZE)

    def refused(self, suffix=""):
        return self.daemon.tarn("mirror", "create", "vol0", "--size", str(SIZE), "--image", self.path() + suffix, status=1).err

    def do(self, *argv):
        """As he would."""
        self.t.run(*argv, user=NOBODY, group=NOBODY, extra_groups=[])

    def check_victim(self):
        check(self.digests() == self.before, "the file that only root may touch was written to")

    def image(self, name):
        return next(image for image in self.daemon.mirror("vol0")["images"] if image["name"] == name)

    def finish(self):
        self.check_victim()
        self.daemon.check_alive()
        self.daemon.stop()
        self.check_victim()


def link(attack, path):
    attack.do("ln", "-s", attack.victim, path)


def pipe(attack, path):
    attack.do("mkfifo", path)


def nothing(attack, path):
    attack.do("touch", path)


def planted(attack, path):
    """Metadata that was ours, in a file of his."""
    os.rename(path + ".away", path)
    os.chown(path, NOBODY, NOBODY)


def hard_link(attack, path):
    """Where the kernel does not keep him from that (fs.protected_hardlinks)."""
    os.link(attack.victim, path)


METADATA = [("a link", link, "symbolic link"), ("a pipe", pipe, "is a pipe"),
            ("an empty file of his", nothing, "belongs to another user"),
            ("metadata in a file of his", planted, "belongs to another user"),
            ("another name of a file of root's", hard_link, "has other names")]


@rows([("the only image", ()), ("one of two", ("b.img",))])
def test_a_link_in_place_of_an_image(t, row):
    """Issue 11, 1: what the link leads to is neither served nor copied over, and that is said."""
    attack = Attack(t)
    daemon = attack.daemon
    attack.create(*(t.path(name) for name in row[1]))
    daemon.stop()
    attack.do("mv", attack.path(), attack.path("x"))
    link(attack, attack.path())
    daemon.start()
    if row[1]:
        daemon.wait_state("vol0", "ACTIVE")
        refused = daemon.tarn("image", "restore", "vol0", "a", status=1)
    else:
        daemon.wait_state("vol0", "ATTENTION")
        refused = daemon.tarn("mirror", "activate", "--force", "vol0", status=1)
    check("symbolic link" in refused.err, refused.err)
    check("symbolic link" in daemon.tarn("status").out, daemon.tarn("status").out)
    attack.check_victim()
    os.remove(attack.path())
    os.rename(attack.path("x"), attack.path())
    daemon.tarn(*(("image", "restore", "vol0", "a") if row[1] else ("mirror", "activate", "vol0")))
    daemon.wait_synchronized("vol0")
    attack.finish()


def test_a_link_in_place_of_a_folder(t):
    """The same with a folder on the way: what is root's elsewhere under the same names is not taken."""
    attack = Attack(t)
    daemon = attack.daemon
    os.mkdir(attack.path("in"))
    os.chown(attack.path("in"), NOBODY, NOBODY)
    os.mkdir(t.path("other"))
    daemon.create("vol0", [attack.path("in/a.img")], size=SIZE)
    daemon.stop()
    os.rename(attack.victim, t.path("other/a.img"))
    attack.victim = t.path("other/a.img")
    attack.do("mv", attack.path("in"), attack.path("x"))
    attack.do("ln", "-s", t.path("other"), attack.path("in"))
    daemon.start()
    daemon.wait_state("vol0", "ATTENTION")
    refused = daemon.tarn("mirror", "activate", "--force", "vol0", status=1)
    check("'in' is a symbolic link" in refused.err, refused.err)
    check(sorted(os.listdir(t.path("other"))) == ["a.img"], "something was made there")
    attack.finish()


@rows([("a new image", False), ("one that is copied over", True)])
def test_a_link_before_the_image_is_made(t, row):
    """`create` and `add` write nothing through it, also with ,overwrite: what is meant must be typed."""
    attack = Attack(t)
    link(attack, attack.path())
    suffix = ",overwrite" if row[1] else ""
    refused = attack.daemon.tarn("mirror", "create", "vol0", "--size", str(SIZE), "--image", t.path("b.img"), "--image",
                                 attack.path() + suffix, status=1)
    check("symbolic link" in refused.err, refused.err)
    attack.daemon.create("vol0", [t.path("b.img")], size=SIZE)
    refused = attack.daemon.tarn("image", "add", "vol0", attack.path() + suffix, status=1)
    check("symbolic link" in refused.err, refused.err)
    attack.finish()


@rows([row for row in METADATA if row[1] is not planted])
def test_something_where_metadata_is_to_be_made(t, row):
    """Issue 11, 2, 3 and 6: a name that he guessed is neither followed nor adopted, also with ,overwrite."""
    _, make, says = row
    attack = Attack(t)
    make(attack, attack.path("a.img.tarn"))
    before = os.lstat(attack.path("a.img.tarn"))
    for suffix in ("", ",overwrite"):
        refused = attack.refused(suffix)
        check(says in refused, refused)
        check(not os.path.exists(attack.path()), "an image was made")
    after = os.lstat(attack.path("a.img.tarn"))
    check((before.st_ino, before.st_uid, before.st_mode) == (after.st_ino, after.st_uid, after.st_mode), "it was changed")
    attack.finish()


@rows(METADATA)
def test_something_in_place_of_metadata(t, row):
    """The image is away then, and nothing is read from there, or written to it: neither at the start, nor by `restore`; and `destroy`
    removes the name and nothing else."""
    _, make, says = row
    attack = Attack(t)
    daemon = attack.daemon
    attack.create(t.path("b.img"))
    daemon.stop()
    meta = attack.path("a.img.tarn")
    attack.do("mv", meta, meta + ".away")
    make(attack, meta)
    daemon.start()
    daemon.wait_state("vol0", "ACTIVE")
    check(attack.image("a")["state"] == "UNSYNCHRONIZED", f"it is {attack.image('a')['state']}")
    check(says in daemon.tarn("status").out, daemon.tarn("status").out)
    refused = daemon.tarn("image", "restore", "vol0", "a", status=1)
    check(says in refused.err, refused.err)
    attack.check_victim()
    daemon.tarn("mirror", "deactivate", "vol0")
    daemon.tarn("mirror", "destroy", "--force", "vol0")
    check(os.path.exists(attack.path()), "the image is gone")
    attack.finish()


def test_a_lease_on_an_image(t):
    """A lease that he holds on a file of his would keep whoever opens it waiting, 45 s as the kernel is set."""
    attack = Attack(t)
    attack.do("truncate", "-s", str(SIZE), attack.path())
    holder = t.spawn("python3", "-c", "import fcntl, signal, sys; signal.signal(signal.SIGIO, signal.SIG_IGN); "
                     "file = open(sys.argv[1], 'rb'); fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK); "
                     "print('held', flush=True); signal.pause()", attack.path(), user=NOBODY, group=NOBODY, extra_groups=[],
                     stdout=-1, text=True)
    check(holder.stdout.readline() == "held\n", "no lease")
    refused = attack.refused()
    check("holds a lease" in refused, refused)
    attack.finish()


@rows([("as it is without options", "", False), ("for a group that he is not in", ",mode=0660,group=12345", False),
       ("for his group", f",mode=0660,group={NOBODY}", True)])
def test_who_may_connect_to_the_socket(t, row):
    """Issue 11, 8: to its owner alone, whatever the umask is, unless the address says otherwise."""
    _, options, may = row
    os.chmod(t.path(), 0o711)
    daemon = Daemon(t, wrapper=["sh", "-c", 'umask 000; exec "$@"', "sh"], arguments=["--nbd", f"unix:{t.path('nbd.sock')}{options}"])
    daemon.start()
    daemon.create("vol0", [t.path("a.img")], size=SIZE)
    uri = f"nbd+unix:///vol0?socket={t.path('nbd.sock')}"
    said = t.run("nbdinfo", "--size", uri, status=None, user=NOBODY, group=NOBODY, extra_groups=[])
    check((said.status == 0) == may, f"{said}")
    check(may or "Permission denied" in said.err, f"{said}")
    check(t.run("nbdinfo", "--size", uri).out.strip() == str(SIZE), "its owner cannot connect")
    daemon.stop()


def test_a_link_in_place_of_the_folder_of_a_socket(t):
    """The folder of an NBD socket belongs to him, and he puts a link in its place. Neither when it stops does the daemon remove a file of
    root's that has the same name, nor when it starts and replaces what was left there."""
    os.chmod(t.path(), 0o711)
    his, roots = t.path("his"), t.path("roots")
    for folder in (his, roots):
        os.mkdir(folder)
    os.chown(his, NOBODY, NOBODY)
    he = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    t.run("mkdir", f"{his}/run", **he)
    daemon = Daemon(t, arguments=["--nbd", f"unix:{his}/run/nbd.sock"]).start()
    with open(f"{roots}/nbd.sock", "w", encoding="ascii") as file:
        file.write("of root's alone")
    t.run("mv", f"{his}/run", f"{his}/away", **he)
    t.run("ln", "-s", roots, f"{his}/run", **he)
    daemon.stop()
    check(os.path.exists(f"{roots}/nbd.sock"), "a file that only root may touch was removed")
    os.unlink(f"{roots}/nbd.sock")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(f"{roots}/nbd.sock")
    said = t.run(t.program("tarnd"), "--state", daemon.state, "--nbd", f"unix:{his}/run/nbd.sock", status=None)
    check(said.status != 0 and "symbolic link" in said.err, f"{said}")
    check(os.path.exists(f"{roots}/nbd.sock"), "a socket that only root may touch was removed")


ANYBODY = 65533


class As:
    """Another user for a moment: a Unix socket belongs to whoever connects it."""

    def __init__(self, user):
        self.user = user

    def __enter__(self):
        os.seteuid(self.user)

    def __exit__(self, *_):
        os.seteuid(0)


def attached(address, user=0, source=None):
    """A client of vol0; None: it was refused."""
    with As(user):
        raw = Raw(address, source)
    try:
        return raw.into("vol0")
    except (Failed, ConnectionError):
        raw.close()
        return None


def open_socket(t, options=""):
    """A daemon whose socket anybody may open, and its path."""
    path = t.path("open.sock")
    os.chmod(t.path(), 0o711)
    daemon = Daemon(t, arguments=["--nbd", f"unix:{path},mode=0666{options}"]).start()
    daemon.create("vol0", [t.path("a.img")], size=SIZE)
    return daemon, path


def test_users_who_are_not_in_the_list(t):
    """Issue 11, 8: of those who may open the socket's file, only those whom the address names are let in, and root; what others try is said,
    a few times a minute."""
    daemon, path = open_socket(t, f",uid={NOBODY}+12345")
    check(all(attached(path, user) for user in (0, NOBODY, 12345)), "one who is in the list was refused")
    check(not any(attached(path, ANYBODY) for _ in range(30)), "one who is not in the list was let in")
    said = [line for line in daemon.log().splitlines() if "is not in the list of those who may connect there" in line]
    check(0 < len(said) <= 10 and f"uid {ANYBODY}" in said[0], f"{said}")
    daemon.stop()


def test_hosts_that_are_not_in_the_list(t):
    """Issue 11, 8: on TCP only those whom the address names are let in."""
    daemon = Daemon(t, arguments=["--nbd", "127.0.0.1:0,allow=127.0.0.2+127.1.0.0/16+fd00::/8"]).start()
    daemon.create("vol0", [t.path("a.img")], size=SIZE)
    address = ("127.0.0.1", int(re.search(r"serves NBD at 127\.0\.0\.1:(\d+)", daemon.log())[1]))
    for source, may in (("127.0.0.2", True), ("127.1.255.1", True), ("127.0.0.1", False), ("127.2.0.1", False)):
        check(bool(attached(address, source=source)) == may, f"{source} was {'refused' if may else 'let in'}")
    check("127.2.0.1:" in daemon.log(), "that it was refused is not said")
    daemon.stop()


def test_exports_that_are_not_at_an_address(t):
    """Issue 11, 8: where an address names its exports, whoever comes there, root too, finds and is shown no others; one that stands alone
    there is the default export; another address shows them all."""
    path, others = t.path("open.sock"), t.path("others.sock")
    daemon = Daemon(t, arguments=["--nbd", f"unix:{path},exports=vol1+vol2/log,uid={NOBODY}", "--nbd", f"unix:{others}"]).start()
    for name in ("vol0", "vol1"):
        daemon.create(name, [t.path(f"{name}.img")], size=SIZE)

    def found(at, name):
        raw = Raw(at)
        try:
            return bool(raw.into(name))
        except (Failed, ConnectionError):
            return False
        finally:
            raw.close()

    def listed(at):
        return sorted(json.loads(t.run("nbdinfo", "--list", "--json", f"nbd+unix:///?socket={at}").out)["exports"],
                      key=lambda export: export["export-name"])

    for at, name, may in ((path, "vol1", True), (path, "vol1/0", True), (path, "", True), (path, "vol0", False),
                          (path, "vol0/0", False), (others, "vol0", True), (others, "vol1", True), (others, "", False)):
        check(found(at, name) == may, f"{at}: '{name}' was {'not ' if may else ''}found")
    check([export["export-name"] for export in listed(path)] == ["vol1"], f"{listed(path)}")
    check([export["export-name"] for export in listed(others)] == ["vol0", "vol1"], f"{listed(others)}")
    refused = t.run(t.program("tarnd"), "--state", t.path("other"), "--nbd", f"unix:{path}x,exports=a/b/c", status=2)
    check("'a/b/c' is neither MIRROR nor MIRROR/VOLUME" in refused.err, refused.err)
    daemon.stop()


@rows([("all of this machine", "*"), ("all of IPv4", "0.0.0.0"), ("all of IPv6", "[::]"), ("all, as IPv6", "[::ffff:0.0.0.0]")])
def test_beyond_loopback(t, row):
    """Issue 11, 8: an address that other machines can reach is refused before anything is made, and says why; unless --nbd-insecure, or the
    file, says that this is meant."""
    address, alone = f"{row[1]}:0", ["unshare", "--net"]  # where nobody else can come
    refused = t.run(*alone, t.program("tarnd"), "--state", t.path("state"), "--nbd", address, status=2)
    check(len(refused.err.splitlines()) == 1 and re.search("no authentication and no TLS.*--nbd-insecure", refused.err), refused.err)
    check(not os.listdir(t.path("state")), "something was made")
    daemon = Daemon(t, arguments=["--nbd", address, "--nbd-insecure"], wrapper=alone).start()
    check("is not authenticated (nbd-insecure)" in daemon.log(), "the risk is not said")
    daemon.stop()
    with open(t.path("state/tarnd.conf"), "w", encoding="utf-8") as file:
        file.write(f"nbd = {address}\n")
    refused = t.run(*alone, t.program("tarnd"), "--state", t.path("state"), status=2)
    check("--nbd-insecure" in refused.err, refused.err)
    with open(t.path("state/tarnd.conf"), "a", encoding="utf-8") as file:
        file.write("nbd-insecure = on\n")
    Daemon(t, wrapper=alone).start().stop()


@limit(300)
def test_one_stranger_does_not_take_all_places(t):
    """Issue 11, 4: of all 1,024 places one user may have half; another one then finds his, and when strangers have all that there are,
    root has some left."""
    daemon, path = open_socket(t)

    def crowd(user, most):
        clients = []
        while len(clients) < most and (client := attached(path, user)):
            clients.append(client)
        return clients
    first = crowd(NOBODY, 1100)
    check(len(first) == 512, f"one user has {len(first)} connections")
    check("has 512 connections already" in daemon.log(), "that it was refused is not said")
    second = crowd(ANYBODY, 1100)
    check(len(second) == 1024 - 16 - 512, f"another user has {len(second)}")
    check(not attached(path, ANYBODY - 1), "a third one found a place that is kept for root")
    ours = crowd(0, 16)
    check(len(ours) == 16, f"root finds {len(ours)} places")
    for client in ours + first[:1]:
        client.close()
    wait_for("the place of one that has left", lambda: attached(path, ANYBODY - 1))
    daemon.stop()


def mappings(pid):
    """(start, end, left out of a core) of what the process keeps in memory."""
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as file:
        for part in re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", file.read(), flags=re.M)[1:]:
            start, end = (int(word, 16) for word in part.split()[0].split("-"))
            if part.split()[1].startswith("rw") and not re.search(r"^Rss: +0 kB", part, re.M):
                yield start, end, " dd " in re.search(r"^VmFlags:(.*)$", part, re.M)[1] + " "


def places(pid, data):
    """How many mappings that a core has, and how many that it leaves out, hold `data`."""
    counts = {False: 0, True: 0}
    with open(f"/proc/{pid}/mem", "rb") as memory:
        for start, end, left_out in mappings(pid):
            memory.seek(start)
            counts[left_out] += data in memory.read(end - start)
    return counts[False], counts[True]


def test_a_core_dump_holds_no_data(t):
    """Issue 11, 9: what clients have written and read is in the daemon's memory for a while, and none of it would be in a core."""
    daemon = Daemon(t).start()
    daemon.create("vol0", [t.path("a.img"), t.path("b.img")], size=SIZE)
    secret = os.urandom(32)
    handle = open_handle(daemon.uri("vol0"))
    handle.pwrite(secret * (4 * MIB // len(secret)), 0)
    handle.pwrite(secret * 3, 5 * MIB + 100)  # merged with what is around it
    handle.pread(2 * MIB, 1024)
    daemon.tarn("image", "fracture", "vol0", "b")
    daemon.tarn("image", "sync", "vol0", "b")
    daemon.wait_synchronized("vol0")
    kept, left_out = places(daemon.pid(), secret)
    check(kept == 0, f"{kept} mappings that a core has hold what a client wrote")
    check(left_out > 0, "it is not found at all: the test looks at the wrong places")
    handle.shutdown()


def test_a_user_of_its_own(t):
    """Issue 11, 10: the daemon does not need root: only files, and a device, that its user owns. It finds them again after a SIGKILL, and
    what root alone may read stays closed to it."""
    os.chmod(t.path(), 0o711)
    folder = t.path("its")
    os.mkdir(folder)
    images.make_random(t.path("victim"), SIZE)
    os.chmod(t.path("victim"), 0o600)
    with loop_device(t, images.make_sparse(t.path("c.raw"), SIZE)) as device:
        for path in (folder, device):
            os.chown(path, NOBODY, NOBODY)
        daemon = Daemon(t, state=os.path.join(folder, "state"), wrapper=["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"])
        os.mkdir(daemon.state, 0o700)
        os.chown(daemon.state, NOBODY, NOBODY)
        daemon.start()
        a, b, meta = (os.path.join(folder, name) for name in ("a.img", "b.img", "c.tarn"))
        daemon.create("vol0", [a, b, f"c={device},overwrite,meta={meta}"], size=SIZE)
        daemon.wait_synchronized("vol0")
        refused = daemon.tarn("image", "add", "vol0", f"{t.path('victim')},overwrite", status=1)
        check("victim" in refused.err and "ermission" in refused.err, refused.err)
        handle = open_handle(daemon.uri("vol0"))
        handle.pwrite(b"x" * MIB, 0)
        handle.flush()
        daemon.kill()
        daemon.start()
        daemon.wait_synchronized("vol0")
        daemon.stop()
        images.check_same([a, b, t.path("c.raw")], SIZE)
        check(images.read_at(a, 0, MIB) == b"x" * MIB, "what was flushed is not there")
        check({os.stat(path).st_uid for path in (a, b, meta, a + ".tarn")} == {NOBODY}, "something is not its user's")
