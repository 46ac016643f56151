"""A machine under emulation, with Debian's cloud kernel (Linux 6.1): QEMU without KVM, a small initramfs, a serial console.

The initramfs finds the root file system (ext4) on the first virtio disk and runs /sbin/test there, a shell script of
busybox. What it prints comes out here; VERDICT in its last line is the result. Files come with the libraries they need."""
import os
import re
import shutil
import subprocess

from .context import Failed, check, wait_for

KERNEL = "/var/cache/tarn-tests/linux"  # tools/install-deps puts it there
BUSYBOX = "/bin/busybox"
MODULES = ("virtio_ring", "virtio", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk")
VERDICT = re.compile(r"^VERDICT (.*?)\r?$", re.M)

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
for module in {modules}; do insmod /$module.ko; done
waited=0
until [ -b /dev/vda ]; do
  waited=$((waited + 1))
  [ $waited -lt 1000 ] || {{ echo "VERDICT there is no disk"; poweroff -f; }}
  usleep 20000
done
mount -t ext4 /dev/vda /root || {{ echo "VERDICT the disk cannot be mounted"; poweroff -f; }}
exec switch_root /root /sbin/first
"""

# Process 1 must not end: it powers the machine off, whatever became of the test.
FIRST = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin:/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm
mount -t tmpfs shm /dev/shm
hostname guest
verdict=$(/sbin/test 2>&1 | tee /dev/console | tail -n 1)
sync
mount -o remount,ro / || verdict="the root file system cannot be made read-only"
echo "VERDICT $verdict"
poweroff -f
"""


def libraries_of(program):
    """The shared libraries of a program, and its loader, by ldd."""
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    return re.findall(r"(/\S+) \(0x", said)


def put(folder, guest_path, content, mode=0o755):
    path = os.path.join(folder, guest_path.lstrip("/"))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(content)
    os.chmod(path, mode)


def put_copy(folder, guest_path, path):
    target = os.path.join(folder, guest_path.lstrip("/"))
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if not os.path.exists(target):
        shutil.copy(path, target)


def make_initramfs(t):
    folder, archive = t.path("initramfs"), t.path("initramfs.cpio")
    check(os.path.exists(f"{KERNEL}/vmlinuz"), f"{KERNEL}/vmlinuz is missing; tools/install-deps brings it")
    for name in ("bin", "dev", "proc", "sys", "root"):
        os.makedirs(os.path.join(folder, name))
    put_copy(folder, "/bin/busybox", BUSYBOX)
    for module in MODULES:
        put_copy(folder, f"/{module}.ko", f"{KERNEL}/{module}.ko")
    put(folder, "/init", INIT.format(modules=" ".join(MODULES)))
    names = "\0".join(os.path.relpath(os.path.join(place, name), folder)
                      for place, folders, files in os.walk(folder) for name in folders + files)
    with open(archive, "wb") as file:
        subprocess.run(["cpio", "--null", "--create", "--format=newc", "--quiet"], input=names.encode(), stdout=file,
                       cwd=folder, check=True)
    return archive


def make_root(t, path, size, script, programs=(), files=()):
    """A file at `path` with an ext4 file system: busybox, `script` as /sbin/test, `programs` (paths on this machine, in
    /usr/bin there) with their libraries, and `files` (path there, text)."""
    folder = t.path("root")
    for name in ("bin", "dev", "proc", "sys", "sbin", "usr/bin", "tmp"):
        os.makedirs(os.path.join(folder, name))
    put_copy(folder, "/bin/busybox", BUSYBOX)
    put(folder, "/sbin/first", FIRST)
    put(folder, "/sbin/test", script)
    for program in programs:
        put_copy(folder, f"/usr/bin/{os.path.basename(program)}", os.path.realpath(program))
        for library in libraries_of(program):
            put_copy(folder, library, os.path.realpath(library))
    for guest_path, text in files:
        put(folder, guest_path, text)
    with open(path, "wb") as file:
        file.truncate(size)
    t.run("mkfs.ext4", "-q", "-F", "-d", folder, path)
    shutil.rmtree(folder)


class Guest:
    """One machine from its power switch to its end."""

    def __init__(self, t, drives, memory_mib=256):
        """`drives` are QEMU's -drive options, each a virtio disk."""
        self.t = t
        self.console_path = t.path(f"console-{len(t.spawned)}")
        words = ["qemu-system-x86_64", "-machine", "pc", "-accel", "tcg", "-cpu", "max", "-m", str(memory_mib), "-nodefaults",
                 "-no-user-config", "-display", "none", "-no-reboot", "-serial", f"file:{self.console_path}",
                 "-kernel", f"{KERNEL}/vmlinuz", "-initrd", make_initramfs(t),
                 "-append", "console=ttyS0 quiet panic=-1 mitigations=off"]
        for drive in drives:
            words += ["-drive", f"if=virtio,format=raw,{drive}"]
        self.process = t.spawn(*words)

    def console(self):
        try:
            with open(self.console_path, encoding="utf-8", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def wait_said(self, word, seconds=300):
        wait_for(f"the guest to say {word!r}", lambda: word in self.console() or self.process.poll() is not None, seconds)
        check(word in self.console(), f"the guest ended before it said {word!r}: {self.console()[-1500:]}")

    def wait_verdict(self, seconds=400):
        """Waits for the end of the machine, and for the word OK."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"the guest is not done within {seconds} s; it said: {self.console()[-1500:]}") from error
        print(self.console())
        verdict = VERDICT.search(self.console())
        check(verdict, f"the guest gave no verdict: {self.console()[-1500:]}")
        check(verdict.group(1) == "OK", f"the guest's verdict: {verdict.group(1)}")
        return self.console()
