"""docs/operations.md: every recipe is run as it stands there, against a real daemon. The document is the test.

A section is a recipe, with a daemon and a folder of its own. Its ```sh blocks are run by bash one after the other; a ```text block
behind one has lines that must be in that block's output, in this order (`...` stands for anything). What a reader does not do (a disk
that fails, for example) stands in comments, `<!-- test ... -->`. ```console is not run, ```xml must be well-formed."""
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree

from lib.context import Failed, check, rows
from lib.daemon import CLIENT_ENVIRONMENT, Daemon

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DOCUMENT = os.path.join(ROOT, "docs/operations.md")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$|^<!-- (test)\n(.*?)^-->$", re.M | re.S)
SECONDS = 300

# What `systemctl` does to the service, for a daemon that no systemd runs. Descriptor 9 keeps none of the test's pipes open.
SYSTEMCTL = """#!/bin/bash
[[ $2 == tarnd ]] || exit 5
if [[ $1 == stop || $1 == restart ]]; then
  pid=$(cat "$TARN_STATE/lock")
  kill "$pid" && while kill -0 "$pid" 2>/dev/null && ! grep -q ') Z' "/proc/$pid/stat" 2>/dev/null; do sleep 0.02; done
fi
if [[ $1 == start || $1 == restart ]]; then
  setsid tarnd --state "$TARN_STATE" --enable-faults </dev/null >"$TARN_STATE/../again.log" 2>&1 &
  until grep -q ' ready$' "$TARN_STATE/../again.log"; do kill -0 $! || exit 1; sleep 0.02; done
fi
"""


def sections():
    """(title, [(kind, text)]) of all sections that have something to run."""
    with open(DOCUMENT, encoding="utf-8") as file:
        parts = re.split(r"^## (.*)$", file.read(), flags=re.M)[1:]
    found = []
    for title, text in zip(parts[::2], parts[1::2]):
        blocks = [(match[1] or match[3], match[2] or match[4]) for match in BLOCK.finditer(text)]
        check(text.count("```") == 2 * sum(kind != "test" for kind, _ in blocks), f"a block of {title!r} has no end or no kind")
        if blocks:
            found.append((title, blocks))
    return found


def pattern_of(line):
    return re.compile(".*".join(re.escape(part) for part in line.rstrip().split("...")))


def check_output(title, script, output, expected):
    """The expected lines are there, in this order."""
    lines = [line.rstrip() for line in output.splitlines()]
    at = 0
    for line in expected.splitlines():
        if not line.strip():
            continue
        pattern = pattern_of(line)
        while at < len(lines) and not pattern.fullmatch(lines[at]):
            at += 1
        if at == len(lines):
            raise Failed(f"{title}: {script.strip()!r} does not print {line!r}; it prints: {output}")
        at += 1


class Recipe:
    """A folder that stands for the reader's machine: /disk1 is a folder in it, /var/lib/tarn its state directory."""

    def __init__(self, t, title):
        self.t, self.title = t, title
        for number in range(1, 5):
            os.mkdir(t.path(f"disk{number}"))
        os.mkdir(t.path("bin"))
        with open(t.path("bin/systemctl"), "w", encoding="utf-8") as file:
            file.write(SYSTEMCTL)
        os.chmod(t.path("bin/systemctl"), 0o755)
        for name in ("tarn", "tarnd"):
            os.symlink(t.program(name), t.path("bin", name))
        self.daemon = Daemon(t, arguments=["--enable-faults"]).start()
        self.environment = {**os.environ, **CLIENT_ENVIRONMENT, "TARN_STATE": self.daemon.state, "URI": "nbd+unix://",
                            "SOCKET": f"?socket={self.daemon.socket()}", "PATH": f"{t.path('bin')}:{os.environ['PATH']}"}

    def here(self, text):
        """The document's places, in this test's folder."""
        text = re.sub(r"/(disk\d|backup)\b", lambda match: self.t.path(match[1]), text)
        return text.replace("/var/lib/tarn", self.daemon.state)

    def run(self, script):
        """Its output; every command of it succeeds."""
        script = self.here(script)
        with open(self.t.path("output"), "w+", encoding="utf-8") as output:  # a job in the background may hold it open
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=self.t.directory, env=self.environment,
                                  stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, timeout=SECONDS,
                                  check=False)
            output.seek(0)
            text = output.read()
        print(f"$ {script.strip()}\n{text}", flush=True)
        check(done.returncode == 0, f"{self.title}: {script.strip()!r} ended with {done.returncode}: {text}")
        return text


@rows(sections())
def test_recipe(t, row):
    """Issue 4: the recipes of docs/operations.md work as they stand there."""
    title, blocks = row
    for tool in ("jq", "qemu-io", "nbdinfo"):
        check(shutil.which(tool), f"{tool} is not installed")
    recipe = Recipe(t, title)
    before = None
    for kind, text in blocks:
        if kind == "xml":
            xml.etree.ElementTree.fromstring(text)
        if kind == "text":
            check(before is not None, f"{title}: an output without a command")
            check_output(title, before[0], before[1], recipe.here(text))
        before = (text, recipe.run(text)) if kind in ("sh", "test") else before if kind == "text" else None


def test_every_recipe_is_there(t):
    """Issue 4: what an administrator does has a recipe, and the table of contents leads to each."""
    titles = [title for title, _ in sections()]
    for word in ("First mirror", "Grow from one copy to two", "Replace a disk", "Move to other disks", "Check copies",
                 "Read the events", "In ATTENTION", "A disk that comes and goes", "Restart and upgrade", "Back up", "QEMU",
                 "Uninstall"):
        check(any(word in title for title in titles), f"there is no recipe {word!r}: {titles}")
    with open(DOCUMENT, encoding="utf-8") as file:
        links = set(re.findall(r"\]\(#([\w-]+)\)", file.read()))
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    check(anchors == links, f"not linked: {anchors - links}; linked to nothing: {links - anchors}")
    print(t.directory)
