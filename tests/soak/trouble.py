"""Disks that hang, are slow, change places, are put back: minutes of it. `TARN_SOAK_MINUTES` says how many."""
import os
import time

from lib.context import check, limit, rows
from lib.trouble import Trouble

MINUTES = float(os.environ.get("TARN_SOAK_MINUTES") or 1)


@rows([("block devices", "loop"), ("files", "file")])
@limit(int(MINUTES * 60) + 900)
def test_disks_in_trouble(t, row):
    """Rules 5, 7, 10, 16; thesis 8: whatever disks do, clients see what was answered, or a mirror that refuses and says why."""
    trouble = Trouble(t, row[1], seed=t.soak_seed(), say=t.note)
    deadline, number = time.monotonic() + 60 * MINUTES, 0
    try:
        while number < len(Trouble.STRIKES) or time.monotonic() < deadline:
            trouble.cycle(number)
            number += 1
        trouble.end()
    finally:
        trouble.give_up()
    totals = trouble.totals
    t.note(totals)
    check(min(totals.hung, totals.slow, totals.swapped, totals.image_rolled_back, totals.state_rolled_back) > 0,
          "a kind of trouble never came up")
