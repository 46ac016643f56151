"""SIGKILL under load: nothing answered is lost, and the images end equal."""
from lib.context import rows
from lib.crash import Crash, Variant, check_totals, run_for
from lib.images import KIB, MIB

CYCLES = 5
VARIANTS = [
    ("in memory", Variant("memory")),
    ("on disk", Variant("disk", place="disk")),
    ("on disk, small regions, so few marks that they must be recycled",
     Variant("few-marks", place="disk", region=64 * KIB, marks=16)),
    ("in memory, small regions, three images", Variant("three", region=64 * KIB, image_count=3)),
    ("in memory, one image: nothing to copy, nothing lost", Variant("one", image_count=1)),
]


@rows(VARIANTS)
def test_sigkill_under_load(t, row):
    """B4, B5, B6, B8 (auto-activation), B9; rules 1-3, 10, 12, 13: the daemon is killed under load, while it starts, while
    it recovers, and while an image is copied to."""
    _, variant = row
    totals = run_for(Crash(t, variant, seed=len(variant.name), say=t.note), cycles=CYCLES)
    several = variant.image_count > 1
    check_totals(totals, copies=several, recoveries=several and variant.marks * variant.region >= 16 * MIB)
