"""What is written about the programs: man pages, `--help`, completion. All are compared with what the programs do know, so that they
cannot drift apart."""
import os
import re
import subprocess

from lib.context import check, rows, wait_for
from lib.daemon import Daemon
from lib.images import MIB
from lib.terminal import Terminal

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGES = {"tarn": "man/tarn.1", "tarnd": "man/tarnd.8", "tarn-sim": "man/tarn-sim.1"}


def help_of(t, *words):
    result = t.run(t.program(words[0]), *words[1:], "--help", quiet=True)
    check(not result.err, f"--help of {words} says on standard error: {result.err}")
    return result.out


def page(t, program):
    """The man page as a reader sees it, in one long line each paragraph."""
    text = t.run("mandoc", "-T", "utf8", "-O", "width=999", os.path.join(ROOT, PAGES[program]), quiet=True).out
    return re.sub(".\b", "", text)


def source(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


NO_DAEMON = {"image examine"}  # what the client does alone


def commands(t):
    """As `tarn --help` lists them, which prints the table that finds them."""
    names = re.findall(r"^  ((?:mirror|image) \w+|status|events|fault)  ", help_of(t, "tarn"), re.M)
    check(len(names) >= 19, f"only {names}")
    return names


def settings(text):
    """[(name, range, default)] of the table in a command's --help."""
    table = text.split("Settings (allowed, default):\n")[1]
    return [re.split(r"  +", line.strip())[:3] for line in table.splitlines() if line.strip()]


# ---- man pages ----

@rows([(name,) for name in PAGES])
def test_page_is_sound(t, row):
    """Issue 4: a man page without mistakes, that has the sections which people look for."""
    lint = t.run("mandoc", "-T", "lint", "-W", "warning", os.path.join(ROOT, PAGES[row[0]]), status=None).out
    check(not lint.strip(), f"mandoc says: {lint}")
    text = page(t, row[0])
    wanted = ["NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "EXAMPLES", "SEE ALSO"]
    wanted += {"tarn": ["COMMANDS", "IMAGES", "SIZES", "SETTINGS", "STATES", "ENVIRONMENT", "FILES"],
               "tarnd": ["EXPORTS", "SIGNALS", "FILES", "ENVIRONMENT"], "tarn-sim": []}[row[0]]
    for section in wanted:
        check(re.search(rf"^{section}$", text, re.M), f"{PAGES[row[0]]} has no section {section}")


def test_commands_are_in_the_page(t):
    """Issue 4: every command, with each of its options and arguments, is in tarn(1); and the page has no other."""
    text = page(t, "tarn")
    entries = re.split(r"\n\s*\n", text.split("\nCOMMANDS\n")[1].split("\nIMAGES\n")[0])
    heads = {}
    for entry in entries:
        head = entry.strip().splitlines()[0] if entry.strip() else ""
        for name in commands(t):
            if re.match(rf"{name}\b", head):
                heads[name] = heads.get(name, "") + head + "\n"
    for name in commands(t):
        check(name in heads, f"tarn(1) has no '{name}'")
        text_of = help_of(t, "tarn", *name.split())
        for option in re.findall(r"^  (--[\w-]+)", text_of, re.M):
            check(option in heads[name] or option == "--json", f"tarn(1), '{name}': no {option}: {heads[name]!r}")
        for option in re.findall(r"--[\w-]+", heads[name]):
            check(option in text_of, f"tarn(1), '{name}' has {option}, which the program does not know")
    listed = {re.match(r"(?:(?:mirror|image) )?[a-z]+", entry.strip())[0] for entry in entries
              if re.match(r"(?:(?:mirror|image) [a-z]+|status|events|fault) (?:\S|$)", entry.strip())}
    check(listed <= set(commands(t)), f"tarn(1) has commands that do not exist: {listed - set(commands(t))}")


@rows([("of a mirror", ("mirror", "create"), "Of a mirror:", "Of an image:"),
       ("of an image", ("image", "set"), "Of an image:", "\nSTATES\n")])
def test_settings_are_in_the_page(t, row):
    """Issue 4: every setting is in tarn(1) with its range and default, and the page has no other."""
    _, command, begin, end = row
    part = page(t, "tarn").split("\nSETTINGS\n")[1].split(begin)[1].split(end)[0]
    paragraphs = dict(re.findall(r"^ {5}([a-z-]+)\s+(.*)$", part, re.M))
    known = settings(help_of(t, "tarn", *command))
    check(len(known) >= 4, f"--help lists {known}")
    for name, allowed, default in known:
        check(name in paragraphs, f"tarn(1) has no setting '{name}': {sorted(paragraphs)}")
        said = paragraphs[name]
        for word in re.split(r", | to | or more", allowed):
            word = word.strip()
            check(not word or word in ("a power of two",) and "power of two" in said or re.search(rf"(^|\W){re.escape(word)}\b", said),
                  f"tarn(1), {name}: the range is {allowed}, and {word!r} is not in {said!r}")
        check(re.search(rf"Default {re.escape(default)}\b", said), f"tarn(1), {name}: the default is {default}; it says {said!r}")
    check(set(paragraphs) == {name for name, _, _ in known}, f"tarn(1) has {sorted(paragraphs)}, the program {known}")


@rows([("tarnd",), ("tarn-sim",), ("tarn",)])
def test_options_are_in_the_page(t, row):
    """Issue 4: the options of --help are those of the man page."""
    name = row[0]
    said, text = help_of(t, name), page(t, name)
    known = set(re.findall(r"^  (--[\w-]+)", said, re.M)) | {"--help", "--version"}
    known |= {"--complete"} if name == "tarn" else set()  # for shells, not for people
    described = set(re.findall(r"--[\w-]+", text.split("\nDESCRIPTION\n")[1].split("\nCOMMANDS\n")[0].split("\nEXAMPLES\n")[0]))
    check(known <= described, f"{PAGES[name]} has no {known - described}")
    check(described <= known | {"--nbd", "--wait", "--force"}, f"{PAGES[name]} has {described - known}, which {name} does not know")


def test_help_of_the_daemon_is_its_table(t):
    """Issue 4: tarnd's options, the keys of tarnd.conf, and what is said of them are one and the same."""
    table = set(re.findall(r'\[KEY_\w+\] = \{"([\w-]+)"', source("src/shell/config.c")))
    listed = set(re.findall(r"^  --([\w-]+)", help_of(t, "tarnd"), re.M)) - {"help"}
    check(table == listed, f"the table has {table}, --help {listed}")
    os.makedirs(t.path("state"))
    with open(t.path("state/tarnd.conf"), "w", encoding="utf-8") as file:
        file.write("nothing = x\n")
    said = t.run(t.program("tarnd"), "--state", t.path("state"), status=2).err
    keys = set(re.search(r"known are (.*)$", said).group(1).split(", "))
    check(keys == table - {"state"}, f"the file may have {table - {'state'}}, and is told {keys}")


def test_example_of_the_file(t):
    """Issue 4: the tarnd.conf that is shipped as an example has every key, and the daemon takes it, with and without its marks."""
    text = source("dist/tarnd.conf")
    keys = set(re.findall(r"^#([\w-]+) = ", text, re.M))
    table = set(re.findall(r'\[KEY_\w+\] = \{"([\w-]+)"', source("src/shell/config.c"))) - {"state"}
    check(keys == table, f"the example has {keys}, the table {table}")
    os.makedirs(t.path("state"))
    for content in (text, re.sub(r"^#([\w-]+ = )", r"\1", text, flags=re.M)):
        with open(t.path("state/tarnd.conf"), "w", encoding="utf-8") as file:
            file.write(content.replace("/run/tarn/", t.path("")).replace("10809", "0"))
        daemon = Daemon(t).start()
        daemon.stop()
    check("at 127.0.0.1:" in daemon.log(), "the options of the example are not obeyed")


def test_daemon_and_client_know_the_same_commands(t):
    """Issue 4: a command is in the client's table and in the daemon's, or in neither."""
    table = source("src/shell/control.c").split("} commands[] = {")[1].split("};")[0]
    daemon = set(re.findall(r'\{"([\w ]+)",', table))
    wanted = set(commands(t)) - NO_DAEMON
    check(daemon == wanted, f"the daemon has {daemon ^ wanted} more or less")


# ---- --help ----

def test_help_teaches(t):
    """Issue 4: the --help of every command has its usage, what it does, each argument, and an example of that very command."""
    for name in commands(t):
        text = help_of(t, "tarn", *name.split())
        check(text.startswith(f"Usage: tarn {name}"), f"'{name}': {text.splitlines()[0]}")
        examples = re.split(r"^Examples?:\n", text, flags=re.M)
        check(len(examples) == 2, f"'{name}' has no example, or several lists of them: {text}")
        check(re.search(rf"^  tarn (--json )?{name}( |$)", examples[1], re.M), f"'{name}': its example is of another command")
        check(all(len(line) <= 130 for line in text.splitlines()), f"'{name}': a line is too long for a terminal")


def test_examples_of_help_are_understood(t):
    """Issue 4: what --help gives as examples is taken by the program: none of them is bad usage."""
    for name in commands(t):
        part = re.split(r"^Examples?:\n", help_of(t, "tarn", *name.split()), flags=re.M)[1]
        for line in re.findall(r"^  tarn (.*)$", part, re.M):
            words = re.split(r"   +| \|", line)[0].split()
            result = t.run(t.program("tarn"), "--control", t.path("nobody.sock"), *words, status=1)
            known = "does not exist" if name in NO_DAEMON else "no daemon answers"
            check(known in result.err, f"{words}: {result.err}")


# ---- completion ----

SCRIPT = """
source "$1"; shift
COMP_LINE="$1"; COMP_POINT=${#1}; COMP_TYPE=9; COMP_KEY=9; COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
read -ra COMP_WORDS <<<"$1"; [[ $1 == *' ' ]] && COMP_WORDS+=("")
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
compopt() { :; }
function=$(complete -p "${COMP_WORDS[0]}" | sed 's/.*-F \\([a-z_]*\\) .*/\\1/')
"$function" "${COMP_WORDS[0]}" "${COMP_WORDS[COMP_CWORD]}" ""
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completions(t, daemon, line):
    """What bash offers behind this line."""
    environment = {**os.environ, "PATH": f"{os.path.dirname(t.program('tarn'))}:{os.environ['PATH']}",
                   "TARN_STATE": daemon.state}
    script = os.path.join(ROOT, "dist/tarnd.bash" if line.startswith("tarnd") else "dist/tarn.bash")
    done = subprocess.run(["bash", "--norc", "-c", SCRIPT, "bash", script, line], env=environment, capture_output=True,
                          text=True, timeout=120, check=False)
    check(not done.stderr, f"the completion of {line!r} says: {done.stderr}")
    return [word for word in done.stdout.split("\n") if word]


def mirrors(t):
    daemon = Daemon(t, arguments=["--enable-faults"]).start()
    daemon.create("vol0", ["left=" + t.path("a.img"), "right=" + t.path("b.img")], size=4 * MIB)
    daemon.create("videos", [t.path("v.img")], size=4 * MIB)
    return daemon


def test_completion(t):
    """Issue 4: bash completes commands, options, settings and their values, and names that it asks the daemon for."""
    daemon = mirrors(t)
    for line, wanted in (("tarn ", {"status", "events", "mirror", "image", "fault"}), ("tarn m", {"mirror"}),
                         ("tarn image re", {"remove", "restore"}), ("tarn mirror set ", {"vol0", "videos"}),
                         ("tarn --json status vo", {"vol0"}), ("tarn image restore vol0 ", {"left", "right"}),
                         ("tarn image restore videos ", {"a"}), ("tarn image restore nothing ", set()),
                         ("tarn mirror set vol0 max", {"max-missing="}), ("tarn mirror set vol0 read=", {"nearest", "master"}),
                         ("tarn mirror set vol0 read=n", {"nearest"}), ("tarn mirror set vol0 suspend=5 a", {"auto="}),
                         ("tarn image set vol0 left ret", {"return=", "return-after="}),
                         ("tarn image set vol0 left return=m", {"manual"}), ("tarn mirror get vol0 su", {"suspend"}),
                         ("tarn mirror set vol0 reg", set()), ("tarn mirror create x --set reg", {"region="}),
                         ("tarn mirror verify vol0 --repair ", {"left", "right"}), ("tarn fault vol0 left h", {"hang", "heal"}),
                         ("tarn fault vol0 l", {"left", "log"}), ("tarn fault vol0 log ", {"off", "on"}),
                         ("tarn mirror verify vol0 --repair=r", {"right"}), ("tarn mirror verify vol0 --nothing=r", set()),
                         ("tarn fault vol0 left fail --on r", {"read"}), ("tarn mirror create ", set()),
                         ("tarn image add vol0 x --", {"--assume-synchronized", "--wait", "--state", "--control", "--json", "--help",
                                                       "--version"}),
                         ("tarn nothing ", set()), ("tarnd --me", {"--memory"}), ("tarnd --state ", set())):
        found = completions(t, daemon, line)
        check(set(found) == wanted and len(found) == len(wanted), f"{line!r}: bash offers {found}, not {sorted(wanted)}")
    other = Daemon(t, t.path("other")).start()
    other.create("elsewhere", [t.path("e.img")], size=MIB)
    check(completions(t, daemon, f"tarn --state {other.state} mirror get ") == ["elsewhere"], "--state is not obeyed")


def test_completion_in_a_shell(t):
    """Issue 4: in a bash at a terminal, Tab completes: words with a blank behind them, KEY= without one, and its value in place."""
    daemon = mirrors(t)
    shell = Terminal(["bash", "--norc", "--noprofile", "-i"], columns=200, TARN_STATE=daemon.state, PS1="> ", INPUTRC="/dev/null",
                     PATH=f"{os.path.dirname(t.program('tarn'))}:{os.environ['PATH']}")
    shell.wait("> ")
    shell.type(f"source {ROOT}/dist/tarn.bash; echo loa''ded\n")
    shell.wait("loaded")
    for typed, completed in (("tarn im\tresto\tvo\tri\t#", "tarn image restore vol0 right #"),
                             ("tarn mirror set vol0 max\t7#", "tarn mirror set vol0 max-missing=7#"),
                             ("tarn mirror set vol0 read=n\t#", "tarn mirror set vol0 read=nearest #"),
                             ("tarn mirror verify vol0 --rep\tle\t#", "tarn mirror verify vol0 --repair left #")):
        shell.type(typed)
        shell.wait(re.escape(completed))
        shell.type("\x15")  # Ctrl-U: the line is gone
    shell.type("exit\n")
    shell.end()


def test_completion_knows_all_commands(t):
    """Issue 4: each command, and each of its options, is completed."""
    daemon = Daemon(t).start()
    for name in commands(t):
        words = name.split()
        before = "tarn " + (words[0] + " " if len(words) == 2 else "")
        check(words[-1] in completions(t, daemon, before + words[-1][:2]), f"'{name}' is not completed")
        options = re.findall(r"^  (--[\w-]+)", help_of(t, "tarn", *words), re.M)
        found = completions(t, daemon, f"tarn {name} --")
        check(set(options) <= set(found), f"'{name}': {set(options) - set(found)} is not completed")


def test_completion_without_a_daemon(t):
    """Issue 4: without a daemon, or with one that is stopped, names are not completed, nothing is printed, the shell goes on."""
    daemon = mirrors(t)
    daemon.pause()
    check(completions(t, daemon, "tarn mirror get ") == [], "a stopped daemon has told names")
    daemon.resume()
    wait_for("it to go on", lambda: daemon.tarn("status", status=None, quiet=True).status == 0)
    daemon.stop()
    check(completions(t, daemon, "tarn mirror get ") == [], "a daemon that is gone has told names")
    check(completions(t, daemon, "tarn mirror ge") == ["get"], "commands are not completed")


TESTS_NAMED = re.compile(r"\b(system|interop)\.(\w+)\.(\w+(?:\[[^\]]*\])?(?:,\s+(?:and\s+)?[a-z]+_\w+(?:\[[^\]]*\])?)*)")


def test_documents_name_tests_that_exist(t):
    """Whoever doubts a line of docs/ finds the test that shows it: `system.verify.equal_images, while_clients_write`."""
    there = set()
    for kind in ("system", "interop"):
        for name in os.listdir(os.path.join(ROOT, "tests", kind)):
            if name.endswith(".py"):
                there |= {(kind, name[:-3], test) for test in re.findall(r"^def test_(\w+)", source(f"tests/{kind}/{name}"), re.M)}
    documents = ["README.md", "sim/README.md"] + [f"docs/{name}" for name in os.listdir(os.path.join(ROOT, "docs"))]
    named, wrong = 0, []
    for document in documents:
        for kind, module, names in TESTS_NAMED.findall(source(document)):
            for name in re.split(r",\s+(?:and\s+)?", re.sub(r"\[[^\]]*\]", "", names)):
                named += 1
                if (kind, module, name) not in there:
                    wrong.append(f"{document}: {kind}.{module}.{name}")
    t.note(f"{named} tests are named")
    check(named > 100 and not wrong, f"of {named} tests that are named these do not exist: {wrong}")
