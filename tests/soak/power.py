"""Power cuts, twenty of them."""
from lib.context import rows
from lib.power import PowerCut, PowerVariant, check_power_totals

CYCLES = 5
VARIANTS = [
    ("block devices, and the state directory", PowerVariant("loop", marks=64, volatile_state=True)),
    ("block devices, three images, a flush takes long, few marks", PowerVariant("three", image_count=3, write_delay_ms=1)),
    ("NBD servers, a flush takes long", PowerVariant("nbd", kind="nbd", write_delay_ms=1, marks=64)),
    ("files", PowerVariant("fuse", kind="fuse")),
    ("files, large regions, nothing is written back unasked", PowerVariant("lazy", kind="fuse", size=64 << 20,
                                                                          region=4 << 20, destage=False)),
]


@rows(VARIANTS)
def test_power_is_cut_under_load(t, row):
    """Issue 4 item 3; rules 1, 2, 3: as system.power, more of it; every third cut is followed by one during recovery."""
    cut = PowerCut(t, row[1], seed=t.soak_seed(), say=t.note)
    for _ in range(CYCLES):
        cut.cycle()
    t.note(cut.totals)
    check_power_totals(cut.totals, many=True)
