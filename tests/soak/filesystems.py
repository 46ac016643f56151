"""Real file systems on a mirror, through many crashes and power cuts."""
import random

from lib.context import rows
from lib.formatted import Formatted, OnVolatileDisks

CYCLES = 5


@rows([("ext4, SIGKILL", Formatted, "ext4"), ("XFS, SIGKILL", Formatted, "xfs"),
       ("ext4, power cut", OnVolatileDisks, "ext4"), ("XFS, power cut", OnVolatileDisks, "xfs")])
def test_fsynced_files_survive(t, row):
    """Issue 4 item 4; rules 2, 3: as system.filesystems, more of it, one crash after the other on the same file system."""
    chance = random.Random(t.soak_seed())
    formatted = row[1](t, row[2])
    for number in range(CYCLES):
        if number:
            formatted.go_on()
        t.note(f"{formatted.cycle(chance.random() * 2)} more files were fsynced before the crash")
    formatted.end()
