"""Which processes are ours, and how they end: by process id, found through their parents, never by name."""
import ctypes
import os
import signal
import time

PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans():
    """A process whose parent died becomes our child instead of init's, so that descendants() still finds it."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def stat_fields(pid):
    """The fields of /proc/PID/stat after the command's name (which may hold spaces), or None. [0] is the state,
    [1] the parent, [11] and [12] are user and system time in clock ticks, of all threads."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def descendants(root):
    """Process ids of all that `root` started and what those started, nearest first."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := stat_fields(entry)):
            parents[int(entry)] = int(fields[1])
    found, todo = [], [root]
    while todo:
        parent = todo.pop(0)
        children = [pid for pid, its_parent in parents.items() if its_parent == parent]
        found += children
        todo += children
    return found


def signal_quietly(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def end_all(root, seconds=120.0):
    """SIGKILLs every descendant of `root` and waits until they are gone. Repeats, because they may be starting more."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        living = [pid for pid in descendants(root) if (fields := stat_fields(pid)) and fields[0] != "Z"]
        if not living:
            return
        for pid in living:
            signal_quietly(pid, signal.SIGKILL)
        time.sleep(0.02)


def cpu_seconds(pid):
    """User and system time that a process and all of its threads have used."""
    fields = stat_fields(pid)
    if not fields:
        raise ProcessLookupError(f"process {pid} is gone")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
