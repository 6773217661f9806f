"""Gives forkproof bad input of every kind that it reads: it is accepted, or refused in plain words, and nothing else.

    python benchmarks/fuzz.py [-n 50000] [--seed 1] [--kind NAME]... [--out DIR]

Real files of each kind (`examples/`, `tests/recorded/`) are changed: bytes, lines, JSON values; others are drawn by
Hypothesis. Each goes through the functions that the commands call, and some through the command line. Any other
exception than those that a command answers with a message is a crash, a claim's check that raises is one too, and a
report that cannot be rendered. Prints a table; the smallest input of each crash is written to `--out`, and comes again
with the same seed. Exits 1 where anything crashed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import shutil
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from rich.console import Console

from forkproof import (
    baseline,
    check,
    cli,
    control,
    coverage,
    documented,
    events,
    expectation,
    judge,
    known_issues,
    lanes,
    launch,
    resp,
    scenario,
    storage,
    target,
)  # fmt: skip
from forkproof.claims import REGISTRY
from forkproof.errors import ForkproofError
from forkproof.explore import NOTHING, drawn
from forkproof.reports import cases, checked, github, junit, terminal
from forkproof.supervisor import Supervisor, _frames, understood
from forkproof.verdict import Finding, Verdict
from forkproof.watcher import PLAN
from forkproof_strategies import scenarios

ROOT = Path(__file__).resolve().parent.parent
RECORDED = ROOT / "tests" / "recorded"
BATCH = 200
"""Inputs that are drawn from one seed: Hypothesis varies what it has just drawn, so a long run has favourites."""
RENDERED, BY_COMMAND = 10, 40
"""Every so many runs of a folder also render all reports, and go through the command line."""
VERSIONS = {"python": "3.11.7", "gunicorn": "27.0.1", "gevent": "26.9.0"}


class Crash(Exception):
    """Something that must not be, found by looking at what came back."""


# --- inputs

_TEXT = st.text(st.characters() | st.just("\ud800"), max_size=8)
_NUMBERS = st.integers() | st.sampled_from([2**63, 10**400, -1]) | st.floats()
_LEAF = st.none() | st.booleans() | _NUMBERS | _TEXT
JUNK = _LEAF | st.recursive(
    _LEAF, lambda of: st.lists(of, max_size=3) | st.dictionaries(_TEXT, of, max_size=3), max_leaves=5
)
"""Any JSON, and what Python's json takes for it."""

_DEEP = st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b"*1\r\n" * 100_000, b"a=" + b"[" * 5000])


def _bytes_changed(content: bytes) -> st.SearchStrategy[bytes]:
    """A few bytes taken out, put in, said twice; or cut off."""

    @st.composite
    def changed(draw: st.DrawFn) -> bytes:
        now = content
        for _ in range(draw(st.integers(1, 3))):
            place = draw(st.integers(0, len(now)))
            gone = draw(st.sampled_from([0, 0, 1, 2, 7, len(now)]))
            put = draw(st.binary(max_size=4) | st.just(now[max(0, place - 9) : place]))
            now = now[:place] + put + now[place + gone :]
        return now

    return changed()


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in inside:
        yield from _places(inner, (*path, key))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)
        if isinstance(value, dict):
            yield from value
    else:
        yield value


def _json_changed(value: Any, pool: Sequence[Any]) -> st.SearchStrategy[Any]:
    """JSON with a few values replaced, by others of its kind or by anything; taken out; or under another name."""

    @st.composite
    def changed(draw: st.DrawFn) -> Any:
        now = json.loads(json.dumps(value))
        for _ in range(draw(st.integers(1, 3))):
            *around, last = draw(st.sampled_from(list(_places(now))[1:] or [(None,)]))
            if last is None:
                return draw(JUNK)
            where = now
            for key in around:
                where = where[key]
            how = draw(st.sampled_from(["like", "like", "like", "known", "junk", "gone", "renamed", "again"]))
            like = [value for value in pool if type(value) is type(where[last])] if how == "like" else []
            if like:
                where[last] = draw(st.sampled_from(like))
            elif how in ("like", "known", "junk"):
                where[last] = draw(st.sampled_from(pool) if how != "junk" else JUNK)
            elif how == "again":
                where[last] = [where[last], where[last]]
            elif how == "renamed" and isinstance(where, dict):
                where[str(draw(st.sampled_from(pool)))] = where.pop(last)
            else:
                del where[last]
        return now

    return changed()


def _dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def of_json(contents: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Files that hold one JSON value."""
    values = [json.loads(content) for content in contents]
    pool = _pool(values)
    return st.one_of(
        *(_json_changed(value, pool).map(_dumped) for value in values),
        *(_bytes_changed(content) for content in contents),
        JUNK.map(_dumped), st.binary(max_size=40), _DEEP,
    )  # fmt: skip


def of_lines(contents: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Files of which each line is a JSON value."""
    pool = _pool([json.loads(line) for content in contents for line in content.splitlines()])

    @st.composite
    def changed(draw: st.DrawFn, content: bytes) -> bytes:
        lines = content.splitlines()
        for _ in range(draw(st.integers(1, 4))):
            place = draw(st.integers(0, len(lines) - 1))
            how = draw(st.sampled_from(["value", "value", "value", "bytes", "gone", "again", "junk"]))
            if how == "value":
                with contextlib.suppress(ValueError):
                    lines[place] = _dumped(draw(_json_changed(json.loads(lines[place]), pool)))
            elif how == "bytes":
                lines[place] = draw(_bytes_changed(lines[place]))
            elif how == "gone" and len(lines) > 1:
                del lines[place]
            elif how == "again":
                lines.insert(draw(st.integers(0, len(lines) - 1)), lines[place])
            else:
                lines.insert(place, draw(JUNK.map(_dumped) | st.binary(max_size=20)))
        return b"\n".join(lines) + draw(st.sampled_from([b"\n", b"\n", b""]))

    return st.one_of(*(changed(content) for content in contents), *(_bytes_changed(content) for content in contents))


def _pool(values: Sequence[Any]) -> list[Any]:
    """The plain values of files, each once."""
    return list({repr(leaf): leaf for value in values for leaf in _leaves(value)}.values())


def of_events(loops: Sequence[str]) -> st.SearchStrategy[bytes]:
    """Histories of events that are as the table says, one by one, and make no sense together."""
    words = [*loops, *WORDS]
    texts = st.sampled_from(words) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    wholes = st.sampled_from([0, 1, 2, 4, 5, 20, 40, 50]) | st.integers(0, 2**63 - 1)

    def of(schema: Any) -> st.SearchStrategy[Any]:
        match schema["type"]:
            case "str":
                pattern = schema.get("pattern")
                return texts.filter(bool) if pattern is None else st.from_regex(pattern, fullmatch=True)
            case "int":
                return wholes if schema["ge"] == 0 else wholes | st.integers(schema["ge"], schema["le"])
            case "float":
                return st.floats(0, 20) | st.floats(schema["ge"], schema["le"])
            case "bool":
                return st.booleans()
            case "literal":
                return st.sampled_from(schema["expected"])
            case "nullable":
                return st.none() | of(schema["schema"])
            case "union":
                return st.one_of(*map(of, schema["choices"]))
            case "list":
                least, most = schema.get("min_length") or 0, schema.get("max_length") or 3
                return st.lists(of(schema["items_schema"]), min_size=least, max_size=most)
            case "dict":
                return st.dictionaries(of(schema["keys_schema"]), of(schema["values_schema"]), max_size=3)
            case _:
                return of_fields(schema["fields"])

    def of_fields(fields: Any) -> st.SearchStrategy[Any]:
        must = {name: of(one["schema"]) for name, one in fields.items() if one["required"]}
        return st.fixed_dictionaries(
            must, optional={name: of(one["schema"]) for name, one in fields.items() if not one["required"]}
        )

    every = {
        "t": st.floats(0, 20), "pid": st.sampled_from([1, 2, 4, 5]), "start": st.sampled_from([10, 20, 40, 50]),
    }  # fmt: skip
    one = st.one_of(
        *(
            st.tuples(st.fixed_dictionaries(every | {"event": st.just(name)}), of_fields(fields)).map(
                lambda two: two[0] | two[1]
            )
            for name, fields in events.EVENTS.items()
        )
    )
    begin = b"\n".join(map(_dumped, _BOOTED)) + b"\n"
    return st.lists(one, min_size=1, max_size=25).map(lambda found: begin + b"\n".join(map(_dumped, found)) + b"\n")


WORDS = (
    "aa", "bb", "2-20", "4-40", "5-50", "kill_worker", "hup", "usr2", "term", "boot", "thread", "process", "connected",
    "foreign_child_exit", "processes", "post_worker_init", "worker", "request", "lock", "Exception ignored in: 4",
)  # fmt: skip
"""What claims look for."""

_BOOTED = (
    {"t": 0, "pid": 1, "start": 10, "event": "launch", "arbiter": 2},
    {"t": 0.1, "pid": 2, "start": 20, "event": "process", "ppid": 1},
    {"t": 0.1, "pid": 2, "start": 20, "event": "role", "role": "arbiter", "slot": None},
    {"t": 0.2, "pid": 4, "start": 40, "event": "process", "ppid": 2},
    {"t": 0.2, "pid": 4, "start": 40, "event": "role", "role": "worker", "slot": 0},
    {"t": 1, "pid": 1, "start": 10, "event": "window.open", "window": 0, "after": "boot", "healed": True},
    {"t": 9, "pid": 1, "start": 10, "event": "window.close", "window": 0, "turns": 500, "control": 500},
)
"""The beginning of a run, so that what is drawn happens to a server."""


# --- readers


@dataclass(frozen=True)
class Kind:
    """A kind of input: what is drawn, and what reads it. `refuses` are the exceptions by which it may say no."""

    name: str
    inputs: st.SearchStrategy[bytes]
    read: Callable[[bytes], None]
    share: int = 1
    refuses: tuple[type[Exception], ...] = (ForkproofError,)


class Folder:
    """A copy of a recorded run of which one file is another each time; judges it and renders what comes of it."""

    def __init__(self, name: str, below: Path) -> None:
        self.path = below / name
        shutil.copytree(RECORDED / name, self.path)

    def content(self, name: str) -> bytes:
        """A file as it was recorded."""
        return (RECORDED / self.path.name / name).read_bytes()

    def read(self, name: str, content: bytes) -> None:
        """Judge the run with other content of a file; a scenario may go with a history."""
        path = self.path / name
        path.write_bytes(content)
        chance = zlib.crc32(content)  # of the input alone, so that it does the same again
        try:
            if chance % BY_COMMAND == 0:
                by_command(["recheck", str(self.path), "-v", "--json", "-"])
            self._judged(chance % RENDERED == 0)
        except ForkproofError as error:
            if str(self.path) not in str(error):
                raise Crash(f"the message does not name the file: {error}") from None
            raise
        finally:
            path.write_bytes(self.content(name))

    def _judged(self, report_too: bool) -> None:
        report = judge.assess(self.path)
        for judgement in report.judgements:
            if "could not be judged" in judgement.finding.explanation:
                raise Crash(judgement.finding.explanation)
        if report_too:
            rendered(report, self.path)


def rendered(report: judge.RunReport, folder: Path) -> None:
    """Every report of a run."""
    Console(file=io.StringIO(), width=100).print(terminal.run(report, verbosity=1))
    json.dumps(report.to_dict(), allow_nan=False)
    machines(folder, "run", cases.of_run(report))
    coverage.Coverage().add(report)


def machines(folder: Path, command: str, found: list[cases.Case]) -> None:
    """What a report is for machines: JUnit, and GitHub's annotations and summary."""
    junit.text(command, found, 0.0, 0.0)
    for line in github.annotated(command, found, folder):
        if "\n" in line or "\r" in line:
            raise Crash("an annotation has two lines")
    github.summary(command, "broken", found)


def by_command(words: list[str]) -> None:
    """Run a command in this process: a documented exit code, and no traceback."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main(words)
    except SystemExit as left:
        code = left.code
    err.flush()
    said = err.buffer.getvalue().decode()  # type: ignore[attr-defined]
    # A server's own tracebacks are shown with what broke.
    if code not in (0, 1, 2, 3) or (code == 2 and "Traceback" in said) or "defect of forkproof" in said:
        raise Crash(f"{' '.join(words[:1])} exits with {code} and says {said[-2000:]}")
    if code == 2 and not said.startswith("forkproof: "):
        raise Crash(f"{' '.join(words[:1])} exits with 2 and says {said[:200]!r}")


def read_scenario(path: Path, content: bytes) -> None:
    """What `run` does before it starts anything, and what is made of a scenario that is one."""
    path.write_bytes(content)
    try:
        what = scenario.load(path)
    except ForkproofError as error:
        if not str(error).startswith(str(path)):
            raise Crash(f"the message does not name the file: {error}") from None
        if zlib.crc32(content) % BY_COMMAND == 0:
            by_command(["run", str(path)])
        raise
    if scenario.parse(what.to_json()) != what:
        raise Crash("it is another scenario when it is read again")
    launch.command(what, "python", path.parent)
    launch.environment(path.parent, what)
    for name in REGISTRY:
        for finding in REGISTRY[name].check(what, NOTHING):
            expectation.expect(what, name, finding.loop, VERSIONS, finding.how)


class Checked:
    """The folder of a `forkproof check` whose history is another each time; judges it and renders what comes of it."""

    def __init__(self, below: Path) -> None:
        self.folder = below / "checked"
        for name in ("history", "stacks"):
            (self.folder / name).mkdir(parents=True)
        policies = dict(zip(WORDS, [*(policy.value for policy in scenario.Policy), "once_per_worker"], strict=False))
        plan = {"policies": policies, "where": {"preload_app": "gunicorn.conf.py:1"}, "cwd": "/srv"}
        (self.folder / PLAN).write_bytes(_dumped(plan))
        (self.folder / "launch.json").write_bytes((RECORDED / "faults" / "launch.json").read_bytes())
        (self.folder / "scenario.json").write_bytes((RECORDED / "faults" / "scenario.json").read_bytes())

    def read(self, content: bytes) -> None:
        """Judge the run with this as its history."""
        (self.folder / "history" / "supervisor.jsonl").write_bytes(content)
        try:
            report = check.judge(self.folder)
        except ForkproofError as error:
            if str(self.folder) not in str(error):
                raise Crash(f"the message does not name the file: {error}") from None
            raise
        Console(file=io.StringIO(), width=100).print(checked.check(report, verbosity=1))
        json.dumps(report.to_dict(), allow_nan=False)
        machines(self.folder, "check", cases.of_check(report))


class Watching:
    """A supervisor that starts nothing, and reads what a server's processes leave in their folder."""

    def __init__(self, below: Path) -> None:
        self.folder = below / "watched"
        for name in ("history", "ticks", "stacks"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "control").write_bytes(bytes(control._SIZE))
        (self.folder / "scenario.json").write_bytes((RECORDED / "faults" / "scenario.json").read_bytes())
        launched = json.loads((RECORDED / "faults" / "launch.json").read_bytes())
        (self.folder / "launch.json").write_bytes(_dumped(launched | {"control": str(self.folder / "control")}))

    def read(self, content: bytes, *, ticks: bytes = bytes(512), log: bytes = b"") -> None:
        """Let it look once at one process's files."""
        (self.folder / "history" / "4-40.jsonl").write_bytes(content)
        (self.folder / "ticks" / "4-40").write_bytes(ticks)
        (self.folder / "server.log").write_bytes(log)
        supervisor = Supervisor(self.folder)
        try:
            for _ in range(2):
                supervisor.observe()
                supervisor.sample()
            supervisor.current_workers()
        finally:
            supervisor.close()
        own = self.folder / "history" / "supervisor.jsonl"
        recorded = own.read_bytes()
        own.unlink()
        for line in recorded.splitlines():
            try:
                events.parse(line)
            except ValueError as error:
                raise Crash(f"it recorded what is no event: {error}: {line[:200]!r}") from None


NOTHING_FOUND = Finding("exactly_one_listener", Verdict.BROKEN, None, "", how="double")

BEGUN = b"\n".join(
    map(
        _dumped,
        [
            {"t": 1, "pid": 4, "start": 40, "event": "process", "ppid": 2},
            {"t": 1, "pid": 4, "start": 40, "event": "loop.begin", "loop": "a", "birth": "aa", "cell": 0},
        ],
    )
)


def read_reply(content: bytes) -> None:
    """A reply of Redis."""

    async def ask() -> None:
        reader = asyncio.StreamReader(limit=resp._LIMIT)
        reader.feed_data(content)
        reader.feed_eof()
        await resp.Client(reader, _Nowhere(), timeout=5).command("PING")

    asyncio.run(ask())


class _Nowhere(asyncio.StreamWriter):
    def __init__(self) -> None:
        """Takes what is written and sends it nowhere."""

    def write(self, data: Any) -> None:
        """Take it."""

    async def drain(self) -> None:
        """Wait for nothing."""

    def close(self) -> None:
        """End nothing."""

    def __del__(self, *rest: Any) -> None:
        """Nothing was opened."""


_REPLIES = (
    b"+OK\r\n",
    b":12\r\n",
    b"$5\r\nhello\r\n",
    b"*2\r\n$1\r\na\r\n:-1\r\n",
    b"*-1\r\n",
    b"-ERR no\r\n",
    b"$-1\r\n",
)
_ANSWER = {
    "token": "t", "worker": "4-40", "slot": 0, "threads": [{"name": "a", "class": "Thread", "alive": True}],
    "loops": [{"loop": "a", "birth": "aa", "alive": True, "copied": False}],
}  # fmt: skip
_VERDICT = b'{"schema": 1, "verdict": "held", "claims": [{"name": "a", "verdict": "held", "surprise": false}]}'
_TARGET = {
    "python": [3, 11, 7], "versions": {"gunicorn": "27.0.1", "gevent": "26.9.0", "flask": "3.1.3"},
    "patch_flags": ["socket", "dns"], "worker_classes": ["sync", "gevent"], "gevent_error": "ImportError('x')",
}  # fmt: skip


def kinds(below: Path, plans: int = 20) -> list[Kind]:
    """Everything that is read, in a folder of its own."""
    folders = [Folder("faults", below), Folder("parks", below)]
    watching = Watching(below)
    examples = [path.read_bytes() for path in sorted((ROOT / "examples").glob("*/*.json"))]
    drawn_plans = [what.to_json().encode() for what in drawn(plans, 1, scenarios())]
    histories = [sorted(path.name for path in (folder.path / "history").iterdir()) for folder in folders]

    project = below / "project"
    project.mkdir()

    old = below / "out" / "0123456789ab-cdef01"
    old.mkdir(parents=True)

    def in_folders(name: str, make: Callable[[Sequence[bytes]], st.SearchStrategy[bytes]], share: int) -> Kind:
        return Kind(name, *_of_files(folders, [[name]] * len(folders), make), share)

    def of_process(folder: Folder, names: Sequence[str]) -> list[str]:
        return [f"history/{name}" for name in names if name != "supervisor.jsonl"]

    def nonsense(content: bytes) -> None:
        folder = folders[len(content) % 2]
        plan = drawn_plans[len(content) % len(drawn_plans)]
        (folder.path / "scenario.json").write_bytes(plan)
        try:
            folder.read("history/supervisor.jsonl", content)
        finally:
            (folder.path / "scenario.json").write_bytes(folder.content("scenario.json"))

    example = scenario.parse(examples[0].decode())

    def known(content: bytes) -> None:
        for issue in known_issues.parse(content, source="known_issues.toml"):
            issue.affects(VERSIONS)
            issue.meets(example)
            _ = issue.scenario

    def announced(content: bytes) -> None:
        for change in documented.parse(content, source="documented_changes.toml"):
            change.explains(example, NOTHING_FOUND, VERSIONS, VERSIONS, change.breaks)

    def wanted(content: bytes) -> None:
        (project / "pyproject.toml").write_bytes(content)
        check.policies({}, project)

    def accepted(content: bytes) -> None:
        (project / "baseline.json").write_bytes(content)
        baseline.read(project / "baseline.json")

    def stacks_by_name(content: bytes) -> None:
        found = lanes.parse(content, source="lanes.toml")
        for name in (*found.names, "py311-gevent259-gunicorn23"):
            if found.knows(name):
                lanes.Shelf(below).python(found.lane(name))

    def asked(content: bytes) -> None:
        found = target.understand("python", content.decode(errors="replace"))
        target.describe(found.to_dict())
        found.require(example)

    def pruned(content: bytes) -> None:
        (old / "verdict.json").write_bytes(content)
        list(storage.runs(old.parent))

    def answered(content: bytes) -> None:
        understood(content, "t")

    loops = [loop["name"] for plan in drawn_plans for loop in json.loads(plan)["loops"]]
    processes = [of_process(folder, names) for folder, names in zip(folders, histories, strict=True)]
    toml = known_issues.PATH.read_bytes()
    one = [
        b"\n".join(b"[[issue]]" + entry for entry in toml.split(b"[[issue]]")[start : start + 2]) for start in (1, 5)
    ]
    changes = documented.PATH.read_bytes()
    process_files = [folder.content(name) for folder, names in zip(folders, processes, strict=True) for name in names]
    stacks = [path.read_bytes() for path in sorted(RECORDED.glob("*/stacks/*"))]
    return [
        Kind("scenario", of_json([*examples[::4], *drawn_plans[:8]]), lambda c: read_scenario(below / "s.json", c), 30),
        in_folders("scenario.json", of_json, 1),
        in_folders("launch.json", of_json, 1),
        Kind("history, supervisor's", *_of_files(folders, [["history/supervisor.jsonl"]] * 2, of_lines), 4),
        Kind("history, a process's", *_of_files(folders, processes, of_lines), 3),
        Kind("history, valid events that make no sense", of_events(loops), nonsense, 5),
        in_folders("server.log", lambda contents: st.one_of(*map(_bytes_changed, contents), st.binary()), 1),
        Kind("stacks", st.one_of(*map(_bytes_changed, stacks), st.binary()), _stacks(folders[0]), 1),
        Kind("verdict.json, when folders are pruned", of_json([_VERDICT]), pruned, 10),
        Kind("history, of a check", of_events(loops), Checked(below).read, 5),
        Kind("known_issues.toml", st.one_of(*map(_bytes_changed, one), _toml("issue"), _DEEP), known, 16),
        Kind("documented_changes.toml", st.one_of(_bytes_changed(changes), _toml("change"), _DEEP), announced, 16),
        Kind("pyproject.toml", st.one_of(_bytes_changed(_PROJECT), _project(), _DEEP), wanted, 16),
        Kind("baseline", of_json([b'{"schema": 1, "accepted": ["no_dead_listener listen"]}']), accepted, 10),
        Kind("lanes.toml", st.one_of(_bytes_changed(lanes.PATH.read_bytes()), _lanes(), _DEEP), stacks_by_name, 16),
        Kind("a Python's answer", of_json([_dumped(_TARGET)]), asked, 20),
        Kind("a server's answer", of_json([_dumped(_ANSWER)]), answered, 24, (ValueError,)),
        Kind("Redis' reply", st.one_of(st.sampled_from(_REPLIES).flatmap(_bytes_changed), st.binary(), _DEEP),
             read_reply, 12, (OSError, resp.ReplyError)),
        Kind("a process's history, as the supervisor follows it", of_lines(process_files[:4]), watching.read, 6),
        Kind("tick counters", st.binary(max_size=40), lambda c: watching.read(BEGUN, ticks=c), 3),
        Kind("output, as the supervisor records it", st.binary(), lambda c: watching.read(BEGUN, log=c), 3),
    ]  # fmt: skip


def _of_files(
    folders: Sequence[Folder],
    names: Sequence[Sequence[str]],
    make: Callable[[Sequence[bytes]], st.SearchStrategy[bytes]],
) -> tuple[st.SearchStrategy[bytes], Callable[[bytes], None]]:
    """Inputs made of files of several folders; the first line tells which one an input is to take the place of."""
    places = [(folder, name) for folder, several in zip(folders, names, strict=True) for name in several]
    inputs = st.one_of(
        *(
            make([folder.content(name)]).map(lambda content, number=number: b"%d\n%s" % (number, content))
            for number, (folder, name) in enumerate(places)
        )
    )

    def read(content: bytes) -> None:
        number, _, rest = content.partition(b"\n")
        folder, name = places[int(number)]
        folder.read(name, rest)

    return inputs, read


def _stacks(folder: Folder) -> Callable[[bytes], None]:
    name = next(path.name for path in (folder.path / "stacks").iterdir())

    def read(content: bytes) -> None:
        _frames(content.decode(errors="replace"))
        folder.read(f"stacks/{name}", content)

    return read


def _toml(table: str) -> st.SearchStrategy[bytes]:
    """Entries with any values, as JSON writes most of them too."""
    fields = st.sampled_from(
        ["id", "title", "link", "claims", "versions", "when", "rate", "how", "breaks", "base", "head", "more"]
    )
    value = _LEAF.filter(lambda value: value is not None) | st.lists(_TEXT, max_size=2)
    entries = st.dictionaries(fields, value, max_size=8)
    return entries.map(
        lambda entry: (
            b"[[%s]]\n" % table.encode() + b"".join(b"%s = %s\n" % (k.encode(), _dumped(v)) for k, v in entry.items())
        )
    )


_PROJECT = b"""[project]
name = "a"

[tool.forkproof.policies]
listen = "once_per_service"
"*" = "best_effort"
"""


def _project() -> st.SearchStrategy[bytes]:
    """Our table with any values, and tables where values are to be."""
    policies = st.sampled_from([policy.value for policy in scenario.Policy])
    values = policies | _LEAF.filter(lambda one: one is not None) | st.lists(policies, max_size=2)
    headings = st.sampled_from(["tool.forkproof.policies", "tool.forkproof", "tool", "tool.forkproof.policies.a"])
    entries = st.dictionaries(st.sampled_from(["listen", "policies", "forkproof", "tool"]), values, max_size=3)
    return st.lists(st.tuples(headings, entries), max_size=3).map(
        lambda tables: b"".join(
            f"[{heading}]\n".encode() + b"".join(b"%s = %s\n" % (k.encode(), _dumped(v)) for k, v in entry.items())
            for heading, entry in tables
        )
    )


def _lanes() -> st.SearchStrategy[bytes]:
    """Tables of each kind with any values."""
    pins = st.lists(st.sampled_from(["gunicorn==23.0.0", "a==1", "a", "a==1.*", "a @ file:///x", "a[b]==1; c"]) | _TEXT)
    names = st.sampled_from(["py311", "gevent269", "museum", "a-b", '"' + "\\u0000" + '"'])
    value = (
        pins | st.sampled_from(["3.11", "newest", "3.6.15", "2.7", "py311"]) | _LEAF.filter(lambda one: one is not None)
    )
    fields = st.dictionaries(st.sampled_from(["version", "python", "pins", "loose", "like", "more"]), value, max_size=3)
    tables = st.lists(st.tuples(st.sampled_from(["python", "factor", "lane", "other"]), names, fields), max_size=4)
    compat = st.none() | st.lists(names | _TEXT, max_size=3)
    return st.tuples(compat, tables).map(
        lambda both: (
            (b"" if both[0] is None else b"compat = %s\n" % _dumped(both[0]))
            + b"".join(
                f"[{kind}.{name}]\n".encode()
                + b"".join(b"%s = %s\n" % (k.encode(), _dumped(v)) for k, v in entry.items())
                for kind, name, entry in both[1]
            )
        )
    )


# --- counting


@dataclass
class Tally:
    """What became of the inputs of one kind; crashes by where they came from, each with its smallest input."""

    kind: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    crashed: int = 0
    crashes: dict[str, tuple[bytes, str]] = field(default_factory=dict)

    def try_one(self, kind: Kind, content: bytes) -> str | None:
        """Read one input; what it crashed by."""
        self.inputs += 1
        try:
            kind.read(content)
        except kind.refuses:
            self.refused += 1
        except Exception as error:
            self.crashed += 1
            frame = traceback.extract_tb(error.__traceback__)[-1]
            told = str(error).partition(": ")[2] if isinstance(error, Crash) else f"{frame.name}, line {frame.lineno}"
            where = f"{type(error).__name__} in {Path(frame.filename).name}, {told[:120]}"
            known = self.crashes.get(where)
            if known is None or len(content) < len(known[0]):
                self.crashes[where] = content, traceback.format_exc()
            return where
        else:
            self.accepted += 1
        return None


def fuzz(kind: Kind, n: int, seed: int) -> Tally:
    """Read `n` inputs of a kind, the same for the same seed; what crashed is made as small as it can be."""
    tally = Tally(kind.name)
    for part in range(-(-n // BATCH)):
        many = min(BATCH, n - part * BATCH)
        before = set(tally.crashes)
        _each(kind, many, seed * 100_000 + part, lambda content: tally.try_one(kind, content), (Phase.generate,))
        for where in set(tally.crashes) - before:
            smaller = Tally(kind.name)

            def try_smaller(content: bytes, smaller: Tally = smaller, where: str = where) -> None:
                assert smaller.try_one(kind, content) != where

            with contextlib.suppress(AssertionError, Flaky):
                _each(kind, many, seed * 100_000 + part, try_smaller, (Phase.generate, Phase.shrink))
            tally.crashes |= {where: smaller.crashes[where]} if where in smaller.crashes else {}
    return tally


def _each(kind: Kind, many: int, seed: int, do: Callable[[bytes], object], phases: Sequence[Phase]) -> None:
    @seeded(seed)
    @settings(
        max_examples=many, phases=phases, database=None, deadline=None, suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False, print_blob=False,
    )  # fmt: skip
    @given(kind.inputs)
    def each(content: bytes) -> None:
        do(content)

    each()


def table(tallies: Sequence[Tally]) -> str:
    """What became of everything, as Markdown."""
    rows = ["| what is read | inputs | accepted | refused | crashes |", "|---|---|---|---|---|"]
    rows += [f"| {t.kind} | {t.inputs} | {t.accepted} | {t.refused} | {t.crashed} |" for t in tallies]
    sums = [sum(getattr(t, name) for t in tallies) for name in ("inputs", "accepted", "refused", "crashed")]
    return "\n".join([*rows, f"| all | {' | '.join(map(str, sums))} |"])


def run(several: Sequence[Kind], n: int, seed: int, out: Path) -> tuple[int, str]:
    """Exit code and table of `n` inputs, shared out among kinds; writes the smallest input of each crash."""
    tallies = []
    for kind in several:
        share = -(-n * kind.share // sum(kind.share for kind in several))
        begun = time.monotonic()
        tallies.append(fuzz(kind, share, seed))
        print(f"{kind.name}: {share} inputs in {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        for number, (where, (content, told)) in enumerate(tallies[-1].crashes.items()):
            out.mkdir(parents=True, exist_ok=True)
            path = out / f"{''.join(c if c.isalnum() else '-' for c in kind.name)}-{number}"
            path.write_bytes(content)
            print(f"{kind.name}: {where}: {len(content)} bytes in {path}, seed {seed}\n{told}", file=sys.stderr)
    return int(any(t.crashed for t in tallies)), table(tallies)


def main() -> int:
    """Read the options, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-n", type=int, default=50_000, help="inputs, all kinds together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", action="append", metavar="NAME", help="this one alone; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("crashes"), help="where inputs go that crashed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fpz-") as folder:
        every = kinds(Path(folder))
        several = [kind for kind in every if not options.kind or kind.name in options.kind]
        if not several:
            parser.error(f"there is no such kind; there are: {', '.join(kind.name for kind in every)}")
        code, told = run(several, options.n, options.seed, options.out)
    print(told)
    return code


if __name__ == "__main__":
    sys.exit(main())
