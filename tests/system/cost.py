"""What a mirror costs that can be told without a clock: memory that is touched, and rounds of metadata. The rest is the
matter of bench/run."""
import re

from lib.context import Failed, check, is_sanitized, rows
from lib.daemon import Daemon
from lib.images import KIB, MIB
from lib.load import open_handle
from lib.mirror import Mirror

REGION = 4 * MIB
SLACK_MIB = 8


def resident_mib(daemon):
    with open(f"/proc/{daemon.pid()}/status", encoding="utf-8") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) / 1024


def reserved_mib(daemon):
    """What it said at its start."""
    line = next(line for line in daemon.log().splitlines() if "reserved " in line)
    return sum(float(number) for number in re.findall(r"([\d.]+)M for", line))


def test_what_is_reserved_is_not_touched(t):
    """B17: memory for 1024 sessions and all buffers is set aside at the start; pages are used as they are needed."""
    daemon = Daemon(t).start()
    check(reserved_mib(daemon) > 100, f"only {reserved_mib(daemon)} MiB are reserved")
    check(resident_mib(daemon) < reserved_mib(daemon) * 0.3,
          f"{resident_mib(daemon):.0f} MiB are resident in an idle daemon, {reserved_mib(daemon):.0f} are reserved")


def test_a_mirror_that_is_opened_again_touches_no_more(t):
    """B17: memory that was given back once is not zeroed by hand when the mirror takes it again."""
    mirror = Mirror(t)
    before = resident_mib(mirror.daemon)
    for _ in range(3):
        mirror.daemon.tarn("mirror", "deactivate", "vol0")
        mirror.daemon.tarn("mirror", "activate", "vol0")
    grown = resident_mib(mirror.daemon) - before
    check(grown < SLACK_MIB or is_sanitized(t), f"{grown:.0f} MiB more are resident after the mirror was opened again three times")


def test_a_marked_working_set_costs_no_metadata(t):
    """B5: writes to regions that are marked neither write nor flush metadata."""
    mirror = Mirror(t)
    handle = open_handle(mirror.daemon.uri("vol0"))

    def write_all():
        for offset in range(0, mirror.size, REGION // 8):
            handle.pwrite(b"m" * 4 * KIB, offset)
    for _ in range(10):  # marks that rest for 5 s go, so a test that was stopped for long tries again
        write_all()
        before = mirror.status()["log_writes"]
        check(before > 0, "regions were marked without metadata being written")
        write_all()
        if mirror.status()["log_writes"] == before:
            return
    raise Failed("metadata were written though every region was marked")


def test_the_log_can_be_off_to_measure_it(t):
    """B5: `tarn fault MIRROR log off` takes no marks, and is forgotten when the mirror is closed."""
    mirror = Mirror(t)
    handle = open_handle(mirror.daemon.uri("vol0"))

    def marks_of_a_write(offset):
        handle.pwrite(b"m" * 4 * KIB, offset)
        return mirror.status()["log_writes"]
    result = mirror.daemon.tarn("fault", "vol0", "log", "off")
    check(result.out == "the intent log of mirror vol0 is off\n", f"it says: {result}")
    before = mirror.status()["log_writes"]
    check(marks_of_a_write(0) == before, "a write was marked with the log off")
    mirror.daemon.tarn("fault", "vol0", "log", "on")
    check(marks_of_a_write(REGION) > before, "a write was not marked with the log on again")
    mirror.daemon.tarn("fault", "vol0", "log", "off")
    mirror.daemon.tarn("mirror", "deactivate", "--force", "vol0")
    mirror.daemon.tarn("mirror", "activate", "vol0")
    before = mirror.status()["log_writes"]
    handle = open_handle(mirror.daemon.uri("vol0"))
    handle.pwrite(b"m" * 4 * KIB, 2 * REGION)
    check(mirror.status()["log_writes"] > before, "the log was off in a mirror that was opened anew")


@rows([
    ("an image is no log", ["--enable-faults"], ("vol0", "a", "off"), "'off' is for the intent log", 2),
    ("a word that is no switch", ["--enable-faults"], ("vol0", "log", "maybe"), "'maybe' is no fault", 2),
    ("no such mirror", ["--enable-faults"], ("vol1", "log", "off"), "there is no mirror 'vol1'", 1),
    ("a mirror that is not open", ["--enable-faults"], ("vol0", "log", "off"), "is not open", 1),
    ("a daemon for real data", [], ("vol0", "log", "off"), "this tarnd takes no faults", 1),
])
def test_the_log_is_not_put_off_by_mistake(t, row):
    """B5: the log is off only where `tarn fault` is allowed, and by the exact words."""
    _, arguments, words, why, status = row
    daemon = Daemon(t, arguments=arguments).start()
    daemon.create("vol0", [t.path("a.img"), t.path("b.img")], size=8 * MIB, activate=False)
    result = daemon.tarn("fault", *words, status=status)
    check(why in result.err, f"it says: {result}")
