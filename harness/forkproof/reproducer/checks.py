"""The script that starts the server, does to it what the scenario does, and looks from outside whether a claim breaks.

What takes files and numbers is looked at by the shell, what takes requests, messages or ticks by check.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from packaging.version import Version

from forkproof.faults import REGISTRY as FAULTS
from forkproof.patching import asked, calls
from forkproof.reproducer.around import locks, point_of
from forkproof.reproducer.source import (
    SERVE,
    Watched,
    executes_itself,
    interpreter_options,
    packages,
    policy_in_words,
)
from forkproof.scenario import Fault, ForkHooks, Guard, Loop, LoopKind, LoopStart, Policy, Requests, Scenario

LOOK = 2.0
"""Seconds that one looks for who ticks: four turns of the slowest loop."""


BOOT = 30
"""Seconds that a server may take to boot, on a busy machine too."""


@dataclass(frozen=True)
class Broken:
    """What is to be shown: a claim, of a loop where it is about one, and the word for the way in which it broke."""

    claim: str
    loop: str | None = None
    how: str = ""

    def __str__(self) -> str:
        return f"{self.claim} ({self.loop})" if self.loop else self.claim


class NoProgramError(Exception):
    """Why no program of a few lines shows it, and what to do instead; `lines` that it would have, where it has any."""

    def __init__(self, why: str, lines: int = 0) -> None:
        super().__init__(why)
        self.lines = lines


@dataclass(frozen=True)
class Program:
    """check.py (empty where the shell does it), reproduce.sh, and what the deployment has to leave for them."""

    check: str
    script: str
    watched: Watched


@dataclass
class Plan:
    """What the check of one claim is, and what it needs.

    It is in `python`, which prints what is wrong, or in `script`, shell that calls `bug`; it comes after the boot and
    after each fault, or `at_end` alone, `looks` times. `before` is done before the last fault.
    """

    python: Sequence[str] = ()
    script: Sequence[str] = ()
    watched: Watched = field(default_factory=Watched)
    before: Sequence[str] = ()
    at_end: bool = False
    must_boot: bool = True
    looks: int = 1


OF_THE_END = ("clean_shutdown", "no_orphan_process", "quiet_runtime")
"""Claims that are about a server that was told to end, or killed, too: of others nothing can be seen in it any more."""


PATIENT = 10
"""Seconds that a server may take to stop where that is looked at: on a busy machine a sound one takes some."""


def with_time(scenario: Scenario, broken: Broken) -> Scenario:
    """The scenario in which a server that takes all its graceful_timeout does not only seem to."""
    if broken.claim != "clean_shutdown" or scenario.server.graceful_timeout >= PATIENT:
        return scenario
    server = scenario.server.model_copy(update={"graceful_timeout": PATIENT})
    return scenario.model_copy(update={"server": server})


def _lasting(scenario: Scenario) -> Scenario:
    """The scenario without a last fault that ends the server."""
    lasting = tuple(fault for fault in scenario.faults if not FAULTS[fault.fault].ends_the_run)
    return scenario.model_copy(update={"faults": lasting})


def _reloads_in_one(scenario: Scenario) -> Scenario:
    """The scenario in which faults that are all reloads are one, of as many times."""
    if {fault.fault for fault in scenario.faults} != {"hup"}:
        return scenario
    first = scenario.faults[0]
    times = sum(int(fault.options.get("times", 1)) for fault in scenario.faults)
    return scenario.model_copy(update={"faults": (first.model_copy(update={"options": {"times": times}}),)})


@dataclass
class Step:
    """One fault: the lines that do it, those that wait until the server has come through, and the workers then."""

    do: Sequence[str]
    heal: Sequence[str] = ()
    workers: int = 1


def program(scenario: Scenario, broken: Broken, versions: Mapping[str, str | None] = {}, redis: str = "") -> Program:
    """How a broken claim is shown with such versions; NoProgramError where it is not.

    `redis` is a package that Redis comes from, where that cannot be in the same environment.
    """
    if broken.claim not in OF_THE_END:
        scenario = _lasting(scenario)
    if broken.claim == "no_leak_on_reload":
        scenario = _reloads_in_one(scenario)
    plan = PLANS[broken.claim](scenario, broken)
    steps = _steps(scenario)
    counts = any("$count" in line for line in plan.script)
    course = [f"count={scenario.server.workers}"] if counts else []
    course += [] if steps and plan.at_end else ["check"]
    for index, step in enumerate(steps):
        last = index == len(steps) - 1
        course += list(plan.before) if last else []
        course += step.do
        course += [f"count={step.workers}"] if counts else []
        course += [] if last and plan.at_end else step.heal
        course += [] if plan.at_end and not last else ["check"] * (plan.looks if last else 1)
    around = scenario.surroundings
    requests = any(loop.start is LoopStart.FIRST_REQUEST or loop.body.is_shared for loop in scenario.loops)
    requests |= bool(around.early_imports or around.fork_hooks is ForkHooks.LOCK or point_of(scenario))
    asking = re.search(r"\b(answers|ask|serve)\b", "\n".join([*plan.python, *plan.script]))
    uses = _uses(scenario) if requests and not asking else []
    check = _check(scenario, uses, plan.python, plan.watched)
    return Program(check, _script(scenario, plan, course, bool(check), versions, redis), plan.watched)


def _check(scenario: Scenario, uses: Sequence[str], code: Sequence[str], watched: Watched) -> str:
    """What looks, after the requests that what is looked at takes; nothing where there is nothing to do."""
    if not uses and not code:
        return ""
    text = "\n".join(code)
    asking = re.search(r"\bask\b|answers", "\n".join([*uses, *code]))
    asks = [*(_ASK if asking else []), *(_ANSWERS if "answers()" in text else [])]
    found = [*asks, *uses, *(_look(scenario, watched, text) if re.search("ticking|moved", text) else []), *code]
    text = "\n".join(found)
    at_once = ", retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0)" if _disturbs_redis(scenario) else ""
    redis = [f'client = redis.Redis(port=int(os.environ["REDIS_PORT"]){at_once})'] if "client." in text else []
    pids = ["master, *workers = sys.argv[1:]"] if re.search(r"\b(master|workers)\b", text) else []
    found = [*pids, *redis, *found]
    text = "\n".join(found)
    imports = [f"import {name}" for name in _MODULES if re.search(rf"\b{re.escape(name)}[.]", text)]
    imports += ["", "import redis"] if redis else []
    said = '"""Looks at the server: MASTER WORKER... are its pids. Prints what is wrong, if anything is."""'
    return "\n".join([said, "", *imports, "", text.strip("\n"), ""])


_MODULES = ("concurrent.futures", "contextlib", "json", "os", "pathlib", "sys", "time", "urllib.request")

_ASK = [
    "",
    "def ask(number):",
    "    try:",
    '        return urllib.request.urlopen(os.environ["URL"], timeout=5).read().decode()',
    "    except OSError:",
    "        return None",
    "",
]

_ANSWERS = [
    "def answers():  # to 16 requests, 8 at once; None for no answer within 5 s",
    "    with concurrent.futures.ThreadPoolExecutor(8) as pool:",
    "        return set(pool.map(ask, range(16)))",
    "",
]


def _look(scenario: Scenario, watched: Watched, text: str) -> list[str]:
    """Whose files moved, and what ticks, as [loop, birth, pid]; who hears messages ticks by them."""
    hearing = [loop for loop in scenario.loops if loop.hears_redis and watched.of(loop).ticks]
    waiting = [f"time.sleep({LOOK:g})"]
    if hearing:
        gap = _gap(hearing)
        waiting = [f"for number in range({math.ceil(LOOK / gap)}):"]
        waiting += [f"    {_send(scenario, loop)}" for loop in hearing] + [f"    time.sleep({gap:g})"]
    return [
        'files = pathlib.Path("ticks")',
        "before = {file: file.stat().st_mtime_ns for file in files.iterdir()}",
        *waiting,
        "moved = [file for file in files.iterdir() if file.stat().st_mtime_ns != before.get(file)]",
        *(['ticking = [file.name.split(".") for file in moved]'] if "ticking" in text else []),
    ]


def _send(scenario: Scenario, loop: Loop) -> str:
    sent = f'client.{"lpush" if loop.competes else "publish"}("{loop.name}", number)'
    return f"with contextlib.suppress(redis.RedisError): {sent}" if _disturbs_redis(scenario) else sent


def _disturbs_redis(scenario: Scenario) -> bool:
    return any(fault.fault.startswith("redis_") for fault in scenario.faults)


def _gap(loops: Sequence[Loop]) -> float:
    """Seconds between two messages such that a healthy loop keeps up."""
    return max([0.05, *(1.5 * loop.yields.seconds + 0.05 for loop in loops)])


# --- reproduce.sh


def _script(
    scenario: Scenario,
    plan: Plan,
    course: Sequence[str],
    has_check: bool,
    versions: Mapping[str, str | None],
    redis: str,
) -> str:
    minor = ".".join((versions.get("python") or "3").split(".")[:2])
    # Older ones cannot be run by their own name.
    module = "gunicorn.app.wsgiapp" if Version(versions.get("gunicorn") or "99") < _BY_NAME else "gunicorn"
    options = interpreter_options(scenario)
    by_name = [SERVE] if executes_itself(scenario) else ["--module" if options else "-m", module]
    words = ['"$PYTHON"', *options, *by_name, "-c gunicorn.conf.py app:app"]
    has_redis = "redis" in packages(scenario)
    children = "sh -c 'sleep 3600 & exec \"$@\"' sh " * scenario.surroundings.foreign_children
    # A child from before gunicorn, as an entry point's, that exits with what it reads.
    has_gate = any(fault.fault == "foreign_child_exit" for fault in scenario.faults)
    children += 'sh -c \'(read -r code <gate && exit "$code") & exec "$@"\' sh ' if has_gate else ""
    start = f"setsid {children}{' '.join(words)} 2>server.log &"
    # What passes is no bug where it is about what lasts: a busy machine may be late.
    again = [] if plan.at_end else ['[ -z "$found" ] || { sleep 3 && look; } # it may be late']
    # Of a server that is not there there is nothing to see.
    first = "look" if plan.must_boot else '[ -z "$URL" ] || look'
    look = [first, *again, '[ -z "$found" ] || bug "$found"']
    check = [*(look if has_check else []), *plan.script]
    count = scenario.server.workers
    called = "\n".join([*check, *course])
    some = [line for name, lines in _SOME.items() if re.search(rf"\b{name}\b", called) for line in lines]
    return "\n".join(
        [
            *(line.replace("PYTHON_OF_THE_RUN", f"python{minor}") for line in _HEAD),
            *(line.replace("PACKAGE", redis) for line in _REDIS_APART if redis and has_redis),
            *_CLOCK,
            *(_REDIS if has_redis else []),
            *_FUNCTIONS,
            *some,
            *(_LOOK if has_check else []),
            "check() {",
            *_in(check),
            "}",
            "try() (",
            # In a folder of its own: what two of them leave is not mixed, and nothing is left.
            '    own=$(mktemp -d) && cp ./*.py "$own" && cd "$own" && mkdir ticks && : >server.log || exit 2',
            "    group='' redis=''",
            "    trap leave EXIT",
            "    trap 'exit 2' HUP INT PIPE QUIT TERM",
            *(["    mkfifo gate || exit 2"] if has_gate else []),
            *(["    redis_starts 0"] if has_redis else []),
            f"    {start}",
            "    master=$! group=$!",
            # What comes at the end needs a whole server; other bugs may be the reason that a worker is not there.
            f"    wait_for {BOOT} there {count}" + (" || untold" if plan.at_end else ""),
            "    URL=$(sed -n 's/.*Listening at: \\(http[^ ]*\\).*/\\1/p' server.log | head -n 1)",
            "    export URL",
            # Where nothing listens in time the machine may be late, too: nothing can be told.
            *([f"    {_BOOTED} || untold"] if plan.must_boot else []),
            "    sleep 1",
            *_in(course),
            ")",
            'for try in $(seq "${TRIES:-1}"); do',
            "    try || exit $?",
            "done",
            'echo "the bug did not show"',
            "",
        ]
    )


_BY_NAME = Version("20.1")
_BOOTED = '{ [ -e "/proc/$master/exe" ] && [ -n "$URL" ]; }'


def _in(lines: Sequence[str]) -> list[str]:
    return [f"    {line}" if line else "" for line in lines]


_HEAD = """#!/bin/sh
# Exits 1 while the bug is there, 0 when it is not, 2 when that could not be told.
# PYTHON names an interpreter that has requirements.txt installed; without it, one is made here in .venv.
# TRIES: how many servers to start at most, one after another.
case "$PYTHON" in */*) PYTHON=$(cd "$(dirname "$PYTHON")" && pwd)/${PYTHON##*/} ;; esac
cd "$(dirname "$0")" || exit 2
folder=$PWD
if [ -z "$PYTHON" ]; then
    PYTHON=$folder/.venv/bin/python
    [ -x "$PYTHON" ] || PYTHON_OF_THE_RUN -m venv .venv 2>/dev/null || python3 -m venv --clear .venv || exit 2
    "$PYTHON" -m pip install -q -r requirements.txt || exit 2
fi
""".strip("\n").splitlines()

_REDIS_APART = """
if [ -z "$REDIS_PYTHON" ]; then # it does not go with the versions in requirements.txt
    REDIS_PYTHON=$folder/.venv-redis/bin/python
    [ -x "$REDIS_PYTHON" ] || python3 -m venv .venv-redis || exit 2
    "$REDIS_PYTHON" -m pip install -q PACKAGE || exit 2
fi
""".strip("\n").splitlines()

_CLOCK = """clock() { # hundredths of a second
    read -r now _ </proc/uptime
    echo "${now%.*}${now#*.}"
}
wait_for() { # SECONDS COMMAND...: whether it succeeds within so many seconds
    end=$(($(clock) + 100 * $1))
    shift
    until "$@"; do
        [ "$(clock)" -lt "$end" ] || return 1
        sleep 0.1
    done
}""".splitlines()

_REDIS = """redis_starts() { # one of our own, at PORT or, for 0, one that is free
    rm -f redis.port
    "${REDIS_PYTHON:-$PYTHON}" -c '
import sys
from fakeredis import TcpFakeServer
TcpFakeServer.allow_reuse_address = True
server = TcpFakeServer(("127.0.0.1", int(sys.argv[1])))
print(server.server_address[1], flush=True)
server.serve_forever()' "$1" >redis.port 2>redis.log &
    redis=$!
    wait_for 60 test -s redis.port || { echo "no Redis was started: $(tail -n 3 redis.log)"; exit 2; }
    REDIS_PORT=$(cat redis.port) RUN="$$.$redis"
    export REDIS_PORT RUN
}""".splitlines()

_FUNCTIONS = """ready() { # the pids of the workers that have booted and live
    sed -n 's/.*ready: //p' server.log | while read -r pid; do [ ! -e "/proc/$pid/exe" ] || echo "$pid"; done
}
there() { [ "$(ready | wc -l)" -eq "$1" ]; }
replaced() { # by one list: a worker that ends between two is in the first, and missing in the second
    live=$(ready)
    [ "$(echo "$live" | grep -c .)" -eq "$1" ] && ! echo "$live" | grep -qxF "$old"
}
bug() {
    echo "BUG: $*"
    exit 1
}
untold() {
    echo "this cannot be told: not all of the server was there within BOOT s; the end of what it said:"
    tail -n 5 server.log
    exit 2
}
leave() { # the output of the server stays
    trap '' HUP INT PIPE QUIT TERM
    [ -z "$group" ] || kill -9 "-$group" 2>/dev/null
    [ -z "$redis" ] || kill -9 "$redis" 2>/dev/null
    cp server.log "$folder" 2>/dev/null
    cd / && rm -rf "$own"
}""".replace("BOOT", str(BOOT)).splitlines()

_LOOK = """look() {
    found=$("$PYTHON" check.py "$master" $(ready)) || { tail -n 5 server.log; exit 2; }
}""".splitlines()

_SOME = {
    "others": ['others() { [ "$(ready)" != "$old" ]; }'],
    "children": ["""children() { cat "/proc/$1/task/"*/children | tr ' ' '\\n' | grep .; }"""],
    "parent": ["""parent() { sed 's/.*) . \\([0-9]*\\) .*/\\1/' "/proc/$1/stat"; }"""],
    "serve": [
        "serve() { # HOW MANY requests, one by one, until one gets no answer",
        """    "$PYTHON" -c 'import os, sys, urllib.request""",
        """for _ in range(int(sys.argv[1])):""",
        """    urllib.request.urlopen(os.environ["URL"], timeout=5).read()' "$1" 2>/dev/null""",
        "}",
    ],
    "told": [
        """told() { grep -q '[a-z]' "/proc/$master/wchan"; } # whether the kernel says what a process waits for"""
    ],
    "at_lock": [
        "at_lock() { # PID: how often its only thread was woken, where that waits for a lock",
        '    [ "$(ls "/proc/$1/task" | wc -l)" -eq 1 ] && grep -q ^futex "/proc/$1/wchan" &&',
        '        grep ^vol "/proc/$1/status"',
        "}",
    ],
}
"""Functions that there are where they are called."""


# --- what is done to the server


def _steps(scenario: Scenario) -> list[Step]:
    steps: list[Step] = []
    workers = scenario.server.workers
    if sum(fault.fault == "foreign_child_exit" for fault in scenario.faults) > 1:
        raise NoProgramError("only one child from before gunicorn can be told to exit; run it with one such fault")
    for fault in scenario.faults:
        step = _step(fault, workers, scenario.server.max_requests)
        if step is None:
            raise NoProgramError(
                f"the fault {fault.fault!r} is more than a few lines can do; `forkproof run` the scenario without it, "
                "and export that if it still breaks"
            )
        workers = step.workers
        delay = [f"sleep {fault.after.delay:g}"] if fault.after.delay else []
        steps.append(Step([*delay, *step.do], step.heal, workers))
    return steps


def _step(fault: Fault, n: int, limit: int) -> Step | None:
    signal = f'kill -{fault.fault.upper()} "$master"'
    seconds = fault.options.get("seconds", 0.5)
    times = int(fault.options.get("times", 1))
    one = f"old=$(ready | sed -n {(fault.slot or 0) + 1}p)"
    match fault.fault:
        case "max_requests":
            return Step(
                ["old=$(ready)", f"serve {n * limit}", f"wait_for {BOOT} others"], [f"wait_for {BOOT} there {n}"], n
            )
        case "kill_child":
            of = '"$master"' if fault.slot is None else f'"$(ready | sed -n {fault.slot + 1}p)"'
            return Step([f'kill -9 $(children {of} | grep -vxF "$(ready)" | head -n 1)'], ["sleep 1"], n)
        case "foreign_child_exit":
            return Step([f"echo {int(fault.options.get('code', 0))} >gate", "sleep 3"], [], n)
        case "redis_restart":
            return Step(['kill -9 "$redis"', 'redis_starts "$REDIS_PORT"'], ["sleep 1"], n)
        case "redis_gone" if fault.options.get("for_good"):
            return Step(['kill -9 "$redis"'], ["sleep 1"], n)
        case "redis_gone":
            return Step(['kill -9 "$redis"', f"sleep {seconds:g}", 'redis_starts "$REDIS_PORT"'], ["sleep 1"], n)
        case "redis_pause":
            return Step(['kill -STOP "$redis"', f"sleep {seconds:g}", 'kill -CONT "$redis"'], ["sleep 1"], n)
        case "term" | "int" | "usr1":
            return Step([signal], ["sleep 1"], n)
        case "kill_arbiter":
            return Step(['kill -9 "$master"'], [], n)
        case "kill_worker":
            return Step([one, 'kill -9 "$old"'], [f"wait_for {BOOT} replaced {n}"], n)
        case "hup" if times == 1:
            return Step(["old=$(ready)", signal], [f"wait_for {BOOT} replaced {n}"], n)
        case "hup":
            each = ["old=$(ready)", signal, f"wait_for {BOOT} replaced {n}", "sleep 0.5"]
            return Step([f"for _ in $(seq {times}); do", *_in(each), "done"], [], n)
        case "ttin" | "ttou":
            n += 1 if fault.fault == "ttin" else -1
            return Step([signal], [f"wait_for {BOOT} there {n}"], n)
        case "usr2":
            do = ["old=$(ready)", signal, f"wait_for {BOOT} there {2 * n}"]
            of_new = '"$(parent "$(ready | tail -n 1)")"'
            if fault.options.get("rollback"):
                return Step(do, [f"kill -TERM {of_new}", f"wait_for {BOOT} there {n}"], n)
            after = ['kill -QUIT "$master"', f"wait_for {BOOT} replaced {n}", f"master={of_new}"]
            return Step(do, after, n)
        case "stop_arbiter" | "stop_worker":
            do = ['old="$master"' if fault.fault == "stop_arbiter" else one]
            do += ['kill -STOP "$old"', f"sleep {seconds:g}", 'kill -CONT "$old"']
            return Step(do, [f"wait_for {BOOT} there {n}"], n)
    return None


# --- the claims


def _loop(scenario: Scenario, broken: Broken) -> Loop:
    assert broken.loop is not None
    return scenario.loop(broken.loop)


def _named(scenario: Scenario) -> str:
    return ", ".join(fault.fault for fault in scenario.faults) or "none"


def _places(loop: Loop) -> str:
    """The line that tells the pids in which a loop ticks; of a process its creator's, which is in its birth."""
    pid = 'birth.split("-")[0]' if loop.kind.is_process else "pid"
    return f'places = [{pid} for loop, birth, pid in ticking if loop == "{loop.name}"]'


def _wrong(loop: Loop, there: str) -> str:
    """The condition under which a loop runs where its policy does not want it, or not where it does."""
    match loop.policy:
        case Policy.ONCE_PER_WORKER:
            return f"sorted({there}) != sorted(workers)"
        case Policy.ARBITER_ONLY:
            return f"{there} != [master]"
        case Policy.INHERIT_ALLOWED:
            return f"not {there}"
        case _:
            return f"len({there}) != 1"


def _meant_and_seen(loop: Loop) -> str:
    meant = f"{loop.name} {policy_in_words(loop)}"
    return f"{meant}, and runs in {{places}}; the master is {{master}}, the workers {{workers}}"


def _most_workers(scenario: Scenario) -> int:
    """How many there are at most, of what is done to the server."""
    return max([scenario.server.workers, *(step.workers for step in _steps(scenario))])


def _exactly_one_listener(scenario: Scenario, broken: Broken) -> Plan:
    loop = _loop(scenario, broken)
    told = f'print(f"{_meant_and_seen(loop)}")'
    return Plan([_places(loop), f"if {_wrong(loop, 'places')}:", f"    {told}"], watched=Watched(ticks=True))


def _no_copied_thread(scenario: Scenario, broken: Broken) -> Plan:
    loop = _loop(scenario, broken)
    if loop.kind.is_process:
        raise NoProgramError("a copied process is not told from the outside; export exactly_one_listener instead")
    if broken.how.endswith("stands still"):
        raise NoProgramError("a copied greenlet that never has a turn leaves nothing that can be seen from outside")
    code = [
        f"time.sleep({LOOK:g})",
        f'for file in pathlib.Path("ticks").glob("{loop.name}.*"):',
        '    _, birth, pid = file.name.split(".")',
        '    if not birth.startswith(pid + "-"):',
        f"        print(f\"{loop.name} was started in process {{birth.split('-')[0]}}, and ran in {{pid}} too\")",
    ]
    if loop.hears_redis:
        code[:1] = [f"for number in range({math.ceil(LOOK / _gap([loop]))}):", f"    {_send(scenario, loop)}",
                    f"    time.sleep({_gap([loop]):g})"]  # fmt: skip
    return Plan(code, watched=Watched(ticks=True))


def _no_dead_listener(scenario: Scenario, broken: Broken) -> Plan:
    loop = _loop(scenario, broken)
    if broken.how.startswith("silent"):
        told = f'print(f"{_meant_and_seen(loop)}; no line of the log says why")'
        quiet = f'if {_wrong(loop, "places")} and "Traceback" not in open("server.log").read():'
        return Plan([_places(loop), quiet, f"    {told}"], watched=Watched(ticks=True))
    unasked = (LoopKind.TIMER, LoopKind.NATIVE_THREAD, LoopKind.SOCKETIO_TASK)
    if loop.kind.is_process or loop.kind in unasked:
        raise NoProgramError("there is no handle to ask in a worker; export exactly_one_listener instead")
    each = "for pid, alive in map(json.loads, answers() - {None}):"
    if _most_workers(scenario) == 1:
        each = 'for pid, alive in [json.load(urllib.request.urlopen(os.environ["URL"], timeout=5))]:'
    # Alive is, too, who waits for what another one holds.
    waits = "" if loop.guard is Guard.NONE else " and not (is_alive and moved)"
    code = [
        each,
        "    for birth, is_alive in alive.items():",
        f'        if is_alive != (pathlib.Path(f"ticks/{loop.name}.{{birth}}.{{pid}}") in moved){waits}:',
        f'            print(f"{loop.name} in {{pid}}: is_alive() is {{is_alive}}; what ticks is {{moved}}")',
    ]
    return Plan(code, watched=Watched(ticks=True, handles=loop.name))


def _every_message_handled_once(scenario: Scenario, broken: Broken) -> Plan:
    loop = _loop(scenario, broken)
    if loop.kind.is_process and loop.policy is Policy.ONCE_PER_WORKER:
        raise NoProgramError("whose process handled a message is not told; export exactly_one_listener instead")
    # In which process is what exactly_one_listener asks, save for workers, each of which is to have it.
    anywhere = loop.policy is Policy.ARBITER_ONLY or (loop.competes and loop.policy is Policy.ONCE_PER_WORKER)
    gap = _gap([loop])
    many = f"range({max(10, round(LOOK / gap))})"
    code = [
        'pathlib.Path("handled").write_text("")',
        f"for number in {many}:",
        f"    {_send(scenario, loop)}",
        f"    time.sleep({gap:g})",
        "time.sleep(1)",
        'done = [line.split() for line in open("handled")]',
        f"for number in {many}:",
        f'    pids = [pid for loop, message, pid in done if (loop, message) == ("{loop.name}", str(number))]',
        f"    if {'len(pids) != 1' if anywhere else _wrong(loop, 'pids')}:",
        '        print(f"message {number} was handled by {pids}; the master is {master}, the workers {workers}")',
    ]
    return Plan(code, watched=Watched(handled=True))


def _subscriptions_match(scenario: Scenario, broken: Broken) -> Plan:
    loop = _loop(scenario, broken)
    if broken.how == "nothing arrives":
        raise NoProgramError("what arrives shows better in every_message_handled_once: export that instead")
    wrong = {
        Policy.ONCE_PER_WORKER: "count != len(workers)",
        Policy.INHERIT_ALLOWED: "not count",
    }.get(loop.policy, "count != 1")
    code = [
        f'count = client.pubsub_numsub("{loop.name}")[0][1]',
        f"if {wrong}:",
        f'    print(f"Redis counts {{count}} subscriptions to {loop.name}; the workers are {{workers}}")',
    ]
    return Plan(code)


def _unless_waiting(loops: Sequence[Loop]) -> str:
    """The rest of the condition under which `loop` ought to tick: not while it waits for what another one holds."""
    guarded = ", ".join(f'"{loop.name}"' for loop in loops if loop.guard is not Guard.NONE)
    return f" and loop not in {{{guarded}}} & {{name for name, *_ in ticking}}" if guarded else ""


def _no_starved_greenlet(scenario: Scenario, broken: Broken) -> Plan:
    loop = _loop(scenario, broken)
    code = [
        f'for file in files.glob("{loop.name}.*"):',
        '    loop, birth, pid = file.name.split(".")',
        f'    if os.path.exists(f"/proc/{{pid}}/exe") and file not in moved{_unless_waiting([loop])}:',
        f'        print(f"{loop.name} stands still in process {{pid}}; what ticks is {{ticking}}")',
    ]
    return Plan(code, watched=Watched(ticks=True, created=True))


def _server_answers(scenario: Scenario, broken: Broken) -> Plan:
    told = '    print(f"of the workers {workers} and None for no answer there came {answered}")'
    if _most_workers(scenario) == 1:
        one_by_one = "answered = answers() | set(map(ask, range(2)))  # at once, and one by one"
        return Plan([one_by_one, "if answered != set(workers):", told])
    code = [
        "answered = answers()",
        "if None not in answered:  # one by one is another thing",
        "    answered |= set(map(ask, range(12)))",
        "for _ in range(9):",
        "    if None not in answered and not set(workers) <= answered:",
        "        answered |= answers()",
        "if None in answered or not set(workers) <= answered or not workers:",
        told,
    ]
    return Plan(code)


def _arbiter_responsive(scenario: Scenario, broken: Broken) -> Plan:
    if broken.how not in ("", "does not act"):
        code = [
            "for file in files.iterdir():",
            '    loop, birth, pid = file.name.split(".")',
            f"    if pid == master and file not in moved{_unless_waiting(scenario.loops)}:",
            '        print(f"{loop} stands still in the master; what ticks is {ticking}")',
        ]
        return Plan(code, watched=Watched(ticks=True, created=True))
    bound = scenario.server.graceful_timeout + 1
    code = [
        "rm -f before && cp server.log before",
        'kill -WINCH "$master"',
        f"wait_for {bound} heard || bug 'the master did not act on a signal within {bound} s'",
    ]
    heard = "heard() { [ $(grep -c 'signal: winch' server.log) -gt $(grep -c 'signal: winch' before) ]; }"
    return Plan(script=[heard, *code])


def _workers_boot(scenario: Scenario, broken: Broken) -> Plan:
    workers = scenario.server.workers
    code = [f'there "$count" || bug "$(ready | wc -l) of $count workers were ready after {BOOT} s"']
    if not scenario.faults:
        code.append(f"[ $(grep -c 'Booting worker' server.log) -le {workers} ] || bug 'a worker died and was replaced'")
    return Plan(script=code, must_boot=False)


def _ends(scenario: Scenario) -> list[str]:
    bound = scenario.server.graceful_timeout + PATIENT
    return [
        'gone() { ! kill -0 "-$group" 2>/dev/null; }',
        f"wait_for {bound} gone || bug 'not all of the server was gone {bound} s after it was told to stop'",
    ]


def _clean_shutdown(scenario: Scenario, broken: Broken) -> Plan:
    if not scenario.faults or scenario.faults[-1].fault not in ("term", "int"):
        raise NoProgramError("nothing tells this server to stop; end the faults with 'term'")
    bound = scenario.server.graceful_timeout
    code = [
        *_ends(scenario),
        f'[ $(($(clock) - begun)) -lt {100 * bound} ] || bug "it took all of graceful_timeout to stop"',
    ]
    return Plan(script=code, before=["begun=$(clock)"], at_end=True)


def _no_orphan_process(scenario: Scenario, broken: Broken) -> Plan:
    last = scenario.faults[-1] if scenario.faults else None
    if last is not None and last.fault in ("term", "int"):
        return Plan(script=_ends(scenario), at_end=True)
    if last is None or last.fault not in ("kill_worker", "kill_arbiter"):
        raise NoProgramError("it takes an end of the server, or a kill -9 of a worker or of the master, as last fault")
    of_master = last.fault == "kill_arbiter"
    victim = "$master" if of_master else f"$(ready | sed -n {(last.slot or 0) + 1}p)"
    bound = 3 + (max(1, math.ceil(scenario.server.timeout / 2)) if of_master else 0)
    code = [
        'gone() { for pid in $below; do [ ! -e "/proc/$pid/exe" ] || return 1; done; }',
        f'wait_for {bound} gone || bug "{bound} s after their parent was killed, of its children $below some live"',
    ]
    return Plan(script=code, before=[f'below=$(cat "/proc/{victim}/task/"*/children)'], at_end=True)


def _handover_is_safe(scenario: Scenario, broken: Broken) -> Plan:
    loop = _loop(scenario, broken)
    told = f'print(f"{loop.name} {policy_in_words(loop)}, and runs in {{places}}; the workers are {{workers}}")'
    return Plan(
        [_places(loop), "if len(places) != 1:", f"    {told}"], watched=Watched(ticks=True), at_end=True, looks=3
    )


def _no_leak_on_reload(scenario: Scenario, broken: Broken) -> Plan:
    if [fault.fault for fault in scenario.faults] != ["hup"] or scenario.faults[0].options.get("times", 1) < 2:
        raise NoProgramError(f"it takes two or more reloads ('hup') and no other fault, not {_named(scenario)}")
    times = int(scenario.faults[0].options["times"])
    code = [
        'fds=$(($(ls "/proc/$master/fd" | wc -l) - fds)) threads=$(($(ls "/proc/$master/task" | wc -l) - threads))',
        f'[ "$fds" -lt {times} ] && [ "$threads" -lt {times} ] ||',
        f'    bug "{times} reloads left $fds descriptors and $threads threads in the master"',
    ]
    before = ['fds=$(ls "/proc/$master/fd" | wc -l) threads=$(ls "/proc/$master/task" | wc -l)']
    return Plan(script=code, before=before, at_end=True)


def _no_socket_shared_across_fork(scenario: Scenario, broken: Broken) -> Plan:
    code = [
        'words = [line.split() for line in open("/proc/net/tcp")]',
        'port = ":%04X" % int(os.environ["REDIS_PORT"])',
        'redis = {f"socket:[{word[9]}]" for word in words if word[2].endswith(port)}',
        "opened = {}",
        "for pid in [master, *workers]:",
        '    for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():',
        "        if fd.is_symlink():",
        "            opened.setdefault(os.readlink(fd), []).append(pid)",
        "for name in redis & opened.keys():",
        "    if len(opened[name]) > 1:",
        '        print(f"the connection {name} to Redis is open in {opened[name]}")',
    ]
    return Plan(code)


def _waits_for_ever(what: str) -> list[str]:
    """Shell that finds a process whose only thread waits for a lock: nobody is there who could give it back."""
    return [
        "wait_for 9 told || exit 2",
        'for pid in $(children "$master"); do',
        '    before=$(at_lock "$pid")',
        "    sleep 3",
        f'    [ -z "$before" ] || [ "$before" != "$(at_lock "$pid")" ] || bug "process $pid {what}"',
        "done",
    ]


def _uses(scenario: Scenario) -> list[str]:
    """Requests to each worker, several at once if that is how it was run: of two only one has a lock."""
    starts = any(loop.start is LoopStart.FIRST_REQUEST for loop in scenario.loops)
    wait = [f"time.sleep({LOOK:g})  # what they start may end soon"] if starts else []
    if scenario.surroundings.requests is Requests.ONE_BY_ONE:
        return ["ask(0)" if scenario.server.workers == 1 else "list(map(ask, range(12)))", *wait]
    return ["with concurrent.futures.ThreadPoolExecutor(8) as pool:", "    list(pool.map(ask, range(16)))", *wait]


def _no_answer(scenario: Scenario) -> str:
    return "if ask(0) is None:" if scenario.server.workers == 1 else "if None in answers():"


def _no_lock_held_at_fork(scenario: Scenario, broken: Broken) -> Plan:
    if broken.how == "is refused":
        told = 'print("a request was refused the lock that a thread of the master held at the fork")'
        return Plan([_no_answer(scenario), f"    {told}"])
    return Plan(_uses(scenario), _waits_for_ever("waits for ever for a lock that a thread of its parent held"))


def _no_half_imported_module(scenario: Scenario, broken: Broken) -> Plan:
    if point_of(scenario) is not None:
        told = 'print("a request that imports the module which was being imported at the fork gets no answer")'
        return Plan([_no_answer(scenario), f"    {told}"])
    waits = _waits_for_ever("waits for ever for an import that a thread of its parent was in")
    if broken.how == "left half imported":
        code = [
            f"for answer in {'{ask(0)}' if scenario.server.workers == 1 else 'answers()'} - {{None}}:",
            "    pid, *half = answer.split()",
            "    if half:",
            '        print(f"nobody goes on to import {half} in worker {pid}")',
        ]
        return Plan(code, waits, watched=Watched(half=True))
    return Plan(_uses(scenario), waits)


def _no_stale_original(scenario: Scenario, broken: Broken) -> Plan:
    if not locks(scenario):
        raise NoProgramError("nothing that requests use has a lock; export the hang that it leads to")
    told = 'print("a request used, in a greenlet, a native lock from before the patch")'
    code = ["answer = ask(0)", 'if pathlib.Path("native").exists():', f"    {told}"]
    code += ["elif answer is None:", '    sys.exit("no answer")']
    return Plan(code, watched=Watched(native=True))


def _quiet_runtime(scenario: Scenario, broken: Broken) -> Plan:
    pattern = "Exception ignored|Exception in thread|Exception in callback| failed with |Parent changed"
    if broken.how:
        kind = broken.how.removesuffix(" in gevent").partition(": ")[0]
        pattern = re.sub(r"^\w+ (?=failed with )", "", kind)
    code = ["sleep 2", f'line=$(grep -m 1 -E "{pattern}" server.log) && bug "$line"']
    # A server that did not boot may have said why; where it has not, nothing can be told.
    return Plan(script=["serve 12", *code, '[ -n "$URL" ] || untold'], must_boot=False)


def _patch_is_what_was_asked(scenario: Scenario, broken: Broken) -> Plan:
    if not {"", "undone", "ignored"}.issuperset(broken.how.split(" and ")):
        raise NoProgramError("only what is patched although a call refused it is looked for")
    sequence = calls(scenario, "worker")
    refused = [keyword for keyword in _ONE_NAME if asked(sequence, keyword).refused_by]
    if not refused:
        raise NoProgramError("no call of patch_all refuses a keyword")
    said = ", ".join(f"{name}=False" for name in refused)
    code = [f'line=$(grep -m 1 "patched: .*True" server.log) && bug "patch_all was told {said}: $line"', "true"]
    return Plan(script=code, watched=Watched(patched=[_ONE_NAME[keyword] for keyword in refused]))


_ONE_NAME = {
    "socket": "socket.socket", "dns": "socket.getaddrinfo", "time": "time.sleep", "select": "select.select",
    "thread": "_thread.start_new_thread", "os": "os.fork", "ssl": "ssl.SSLContext", "subprocess": "subprocess.Popen",
    "signal": "signal.signal", "queue": "queue.SimpleQueue",
}  # fmt: skip


def _foreign_child_ignored(scenario: Scenario, broken: Broken) -> Plan:
    if [fault.fault for fault in scenario.faults] != ["foreign_child_exit"]:
        raise NoProgramError(f"it takes one fault, 'foreign_child_exit', not {_named(scenario)}")
    if broken.how == "told":
        raise NoProgramError("the master only wrote a line: see server.log in the run's folder")
    code = int(scenario.faults[0].options.get("code", 0))
    check = [
        f'[ -e "/proc/$master/exe" ] || bug "the master ended after a child that is no worker exited with {code}"',
        f'[ "$(ready)" = "$old" ] || bug "the workers are others since a child that is no worker exited with {code}"',
    ]
    return Plan(script=check, before=["old=$(ready)"], at_end=True)


PLANS: dict[str, Callable[[Scenario, Broken], Plan]] = {
    "exactly_one_listener": _exactly_one_listener,
    "no_copied_thread": _no_copied_thread,
    "no_dead_listener": _no_dead_listener,
    "every_message_handled_once": _every_message_handled_once,
    "subscriptions_match": _subscriptions_match,
    "no_starved_greenlet": _no_starved_greenlet,
    "server_answers": _server_answers,
    "arbiter_responsive": _arbiter_responsive,
    "workers_boot": _workers_boot,
    "clean_shutdown": _clean_shutdown,
    "no_orphan_process": _no_orphan_process,
    "handover_is_safe": _handover_is_safe,
    "no_leak_on_reload": _no_leak_on_reload,
    "no_socket_shared_across_fork": _no_socket_shared_across_fork,
    "no_lock_held_at_fork": _no_lock_held_at_fork,
    "no_half_imported_module": _no_half_imported_module,
    "quiet_runtime": _quiet_runtime,
    "patch_is_what_was_asked": _patch_is_what_was_asked,
    "no_stale_original": _no_stale_original,
    "foreign_child_ignored": _foreign_child_ignored,
}
"""By claim, what makes its check."""


def _often(loop: Loop | None) -> str:
    if loop is not None and loop.policy is Policy.ONCE_PER_WORKER:
        return "once, by any worker" if loop.competes else "once in each worker"
    return "at least once" if loop is not None and loop.policy is Policy.INHERIT_ALLOWED else "once"


def expected(scenario: Scenario, broken: Broken) -> str:
    """What is not so while the bug is there, for those who do not know forkproof."""
    loop = scenario.loop(broken.loop) if broken.loop is not None else None
    meant = f"`{loop.name}` {policy_in_words(loop)}" if loop is not None else ""
    name = f"`{broken.loop}`"
    if broken.claim == "no_dead_listener" and broken.how.startswith("silent"):
        return f"{meant}; where it does not, a line of the log says why."
    return {
        "exactly_one_listener": f"{meant}, and there once.",
        "handover_is_safe": f"{meant}, also after what is done to the server.",
        "no_copied_thread": f"{name} runs in the process that started it, and in no copy of that.",
        "no_dead_listener": f"in each process what `is_alive()` says of {name} is what it does.",
        "every_message_handled_once": f"each message to {name} is handled {_often(loop)}.",
        "subscriptions_match": f"Redis counts as many subscriptions as there are to be: {meant}.",
        "no_starved_greenlet": f"{name} goes on, in each process that has started it.",
        "server_answers": "each request is answered within 5 s, and each worker answers.",
        "arbiter_responsive": "the master acts on signals, and what runs in it goes on.",
        "workers_boot": "all workers boot, and go on.",
        "clean_shutdown": "the server, and all that it started, ends soon after it was told to.",
        "no_orphan_process": "what a process started ends with it, by kill -9 too.",
        "no_leak_on_reload": "reloads leave no descriptors and no threads in the master.",
        "no_socket_shared_across_fork": "no two processes have the same connection to Redis.",
        "no_lock_held_at_fork": "no worker waits for a lock that a thread of the master held at the fork.",
        "no_half_imported_module": "no worker waits for an import that a thread of the master was in at the fork.",
        "quiet_runtime": "nothing in the log of an error that was ignored, or in a thread or a callback.",
        "patch_is_what_was_asked": "what `patch_all` was told to leave is left.",
        "no_stale_original": "no greenlet uses a native lock from before the patch, which stops the whole process.",
        "foreign_child_ignored": "the exit of a child that is no worker changes nothing.",
    }[broken.claim]
