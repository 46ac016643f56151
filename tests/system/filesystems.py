"""Real file systems on a mirror, through nbdfuse and a loop device: what was fsynced is whole after a crash."""
from lib.context import Failed, check, rows
from lib.formatted import Formatted, OnVolatileDisks


@rows([("ext4", "ext4"), ("XFS", "xfs")])
def test_fsynced_files_survive_a_crash(t, row):
    """Issue 4 item 4; rules 2, 3: after SIGKILL of the daemon the file system mounts once, its own checker finds nothing,
    and every file whose fsync had returned is whole."""
    formatted = Formatted(t, row[1])
    t.note(f"{formatted.cycle()} files were fsynced before the crash")
    formatted.end()


def test_fsynced_files_survive_a_power_cut(t):
    """Issue 4 items 3, 4; rules 2, 3: the same when the disks of the images lose what they had not flushed."""
    formatted = OnVolatileDisks(t, "ext4")
    t.note(f"{formatted.cycle()} files were fsynced before the power cut")
    formatted.end()


def test_a_file_system_on_disks_that_ignore_flushes(t):
    """The proof of the tests above: what was fsynced is lost when the images' disks lie, and they must find that."""
    formatted = OnVolatileDisks(t, "ext4", cache="unsafe")
    try:
        formatted.cycle()
    except Failed as failure:
        check("fsynced" in str(failure) or "mount" in str(failure), f"found for another reason: {failure}")
        return
    check(False, "fsynced files were lost, and nobody saw it")
