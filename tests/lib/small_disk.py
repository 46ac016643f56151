"""A file system of a few megabytes, to be filled."""
import ctypes
import os
import subprocess

from .context import Failed

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000


def own_mounts(t):
    """From here on this process, and what it starts, has mounts of its own: they go with it, however it ends."""
    if not getattr(t, "own_mounts", False):
        _own_mounts()
        t.own_mounts = True
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def _own_mounts():
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWNS if uid == 0 else CLONE_NEWNS | CLONE_NEWUSER) != 0:
        raise Failed(f"no mount namespace: {os.strerror(ctypes.get_errno())}")
    if uid == 0:
        return
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def small_disk(t, name, size):
    """Mounts an empty file system of `size` bytes in the test's folder; returns its path. Before any daemon is started."""
    path = t.path(name)
    os.mkdir(path)
    own_mounts(t)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], check=True)
    return path


def fill(path):
    """Leaves no byte free on that file system; returns the file that took it."""
    filler = os.path.join(path, "filler")
    with open(filler, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


def loop_file_system(t, name, size, kind="ext4"):
    """The same with a real file system on a loop device; needs root. Both go with the test's process."""
    own_mounts(t)
    path, file = t.path(name), t.path(f"{name}.ext4")
    os.mkdir(path)
    with open(file, "wb") as made:
        made.truncate(size)
    t.run(f"mkfs.{kind}", "-q", file)
    t.run("mount", "-t", kind, "-o", "loop", file, path)  # the loop device goes when it is unmounted
    return path
