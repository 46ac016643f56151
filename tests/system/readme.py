"""README.md, "Five minutes": the tour works as it stands there, from the first command to the last, in one shell."""
import os
import re
import subprocess

from lib.context import check

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PLACE = "/tmp/tour"  # the document's folder
# What a reader does with a built checkout, and what they wait for where the tour says how long.
BUILT = {"make": "true", "sleep 1": "until tarn status 2>&1 | grep '^mirror vol0 .*ACTIVE$'; do sleep 0.05; done",
         "sleep 3": "until tarn status | grep -q 'NOT WELL'; do sleep 0.05; done"}
READY = "until grep -q ' ready$' tarnd.log; do sleep 0.05; done"


def tour():
    """(commands, what `tarn status` shows in it)."""
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        section = re.search(r"^## Five minutes$(.*?)^## ", file.read(), re.M | re.S)[1]
    return re.findall(r"^    (\S.*)$", section, re.M), re.findall(r"^      (\S.*|  +\S.*)$", section, re.M)


def as_read(t, command):
    words = re.sub(r"\s+#.*", "", command)
    for what, instead in BUILT.items():
        words = re.sub(rf"(^|[;&] ){re.escape(what)}$", lambda match, instead=instead: match[1] + instead, words)
    return words.replace("$PWD/build", t.path("bin")).replace(PLACE, t.path("tour"))


def test_five_minutes(t):
    """Issues 2 and 4: a mirror is made, killed under a copy, loses an image, gets another disk, is fractured, verified, and given up."""
    commands, shown = tour()
    check(len(commands) > 25 and len(shown) == 6, f"the tour was not found: {commands} {shown}")
    os.mkdir(t.path("bin"))
    for name in ("tarn", "tarnd"):
        os.symlink(t.program(name), t.path("bin", name))
    lines = [as_read(t, command) for command in commands]
    first_daemon = next(number for number, line in enumerate(lines) if line.startswith("tarnd"))
    lines.insert(first_daemon + 1, READY)
    script = "\n".join([*lines, "wait"])
    with open(t.path("tour.log"), "w+", encoding="utf-8") as output:
        shell = subprocess.run(["bash", "-evm", "-c", script], cwd=t.directory, stdin=subprocess.DEVNULL, stdout=output,
                               stderr=subprocess.STDOUT, timeout=200, check=False)
        output.seek(0)
        text = output.read()
    print(text)
    check(shell.returncode == 0, f"the tour ends with {shell.returncode}: {text}")
    lines = {" ".join(line.split()) for line in text.splitlines()}
    for line in shown:
        expected = " ".join(line.replace(PLACE, t.path("tour")).split())
        check(expected in lines, f"it does not show {expected!r}: {text}")
    check(re.search(r"^equal$", text, re.M), f"the images do not hold the data: {text}")
