"""Metadata that is damaged, thousands of places of it."""
from lib.context import limit
from lib.damage import Fleet

ROUNDS = 60


def test_metadata_is_damaged_byte_by_byte(t):
    """Rules 4, 10; issue 4 item 3: as system.diskfaults, more of it, drawn anew each time."""
    fleet = Fleet(t, 48, seed=t.soak_seed())
    for how in ("a clean stop", "SIGKILL"):
        fleet.sweep(how)
    for number in range(ROUNDS):
        fleet.round("SIGKILL" if number % 2 else "a clean stop", wreck=number % 4 >= 2)
    t.note(f"{sum(fleet.seen.values())} places were damaged: {fleet.seen}")
