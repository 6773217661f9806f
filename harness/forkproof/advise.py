"""`forkproof advise`: searches deployments of the user's app for those in which everything holds, by running them.

The user's files stay as they are. A deployment with other files is a folder of links to the user's, in which the
changed files are real: what ran is what the diff makes, and nothing is claimed that did not run.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from forkproof import edits, files, launch
from forkproof.check import QUICK, Checker, CheckReport, Deployment, combine, identity
from forkproof.errors import CouldNotDecide, RunFolderError, UsageError
from forkproof.history import Event
from forkproof.judge import SCHEMA
from forkproof.observed import Loop
from forkproof.scenario import Policy
from forkproof.verdict import Verdict

_IN_WORKERS = ("post_worker_init", "post_fork")
_IN_ARBITER = ("when_ready",)
_CLASSES = ("gevent", "gthread")
_THREADS = 8
"""Of a gthread worker that takes the place of one that serves many requests at once."""
_NAMES = {"preload": "preload_app", "worker_class": "worker_class", "workers": "workers"}
"""What a run tells of its server, and gunicorn's names for that."""


@dataclass(frozen=True)
class Change:
    """One thing that differs from the deployment as it is; the cheaper, the sooner it is tried."""

    what: str
    before: str
    after: str
    cost: float

    def __str__(self) -> str:
        return f"{self.what}: {self.before} -> {self.after}"


@dataclass(frozen=True)
class Draft:
    """A deployment as files and words: what is not in `texts` is as the user has it."""

    texts: Mapping[Path, str]
    options: tuple[str, ...]
    expected: Mapping[str, Any] = field(default_factory=dict)
    """What its server must tell of itself, so that it is known to be the deployment that was meant."""
    sites: Mapping[str, str] = field(default_factory=dict)
    """Where loops must be started, by their names."""
    patched: bool = False
    """Whether a patch has been put into the configuration."""


@dataclass(frozen=True)
class Candidate:
    """A deployment to try."""

    changes: tuple[Change, ...]
    draft: Draft

    @property
    def cost(self) -> float:
        """Of all its changes."""
        return sum(change.cost for change in self.changes)

    def __str__(self) -> str:
        return "; ".join(map(str, self.changes))


@dataclass(frozen=True)
class Trial:
    """A deployment that was run, and what came of it."""

    candidate: Candidate
    verdict: Verdict
    why: tuple[str, ...]
    """The ids of what broke, or why it was not what was meant."""
    runs: int
    report: CheckReport | None = None
    diff: str = ""

    def to_dict(self) -> dict[str, Any]:
        """For the JSON report."""
        return {
            "changes": [
                {"what": one.what, "before": one.before, "after": one.after, "cost": one.cost}
                for one in self.candidate.changes
            ],
            "verdict": self.verdict.value,
            "why": list(self.why),
            "runs": self.runs,
            "run": str(self.report.folder) if self.report is not None else None,
            "options": list(self.candidate.draft.options),
            "diff": self.diff or None,
        }


@dataclass(frozen=True)
class Advice:
    """What a search has found."""

    base: CheckReport
    wrong: tuple[str, ...]
    """What is wrong with the deployment as it is; empty where it holds."""
    trials: Sequence[Trial]
    left: int
    """Deployments that were not tried."""
    stays: Sequence[str]
    """Loops whose start could not be moved, with why."""
    launched: int
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether nothing need be changed."""
        return not self.wrong

    @property
    def found(self) -> list[Trial]:
        """The deployments in which everything holds, the cheapest first."""
        return [trial for trial in self.trials if trial.verdict is Verdict.HELD]

    @property
    def verdict(self) -> Verdict:
        """Held where there is one, broken where there is none, unknown where that is open."""
        if self.holds or self.found:
            return Verdict.HELD
        open_ = self.left or any(trial.verdict is Verdict.UNKNOWN for trial in self.trials)
        return Verdict.UNKNOWN if open_ else Verdict.BROKEN

    @property
    def exit_code(self) -> int:
        """0 there is one, 1 there is none, 3 that could not be decided."""
        return {Verdict.HELD: 0, Verdict.BROKEN: 1}.get(self.verdict, 3)

    def to_dict(self) -> dict[str, Any]:
        """The JSON report, schema 1."""
        return {
            "schema": SCHEMA,
            "verdict": self.verdict.value,
            "target": dict(self.base.versions),
            "base": {
                "server": self.base.server, "holds": self.holds, "wrong": list(self.wrong),
                "runs": self.base.runs, "run": str(self.base.folder),
            },
            "found": [trial.to_dict() for trial in self.found],
            "tried": [trial.to_dict() for trial in self.trials if trial.verdict is not Verdict.HELD],
            "left": self.left,
            "stays": list(self.stays),
            "launched": self.launched,
            "seconds": round(self.seconds, 3),
        }  # fmt: skip


Progress = Callable[[str], None]


@dataclass
class Adviser:
    """Searches on one target, for one app."""

    checker: Checker
    what: Deployment
    answers: int = 1
    """How many deployments are looked for."""
    repeat: int = 3
    """How often one must have held."""
    budget_seconds: float = 600.0
    progress: Progress = lambda text: None
    launched: int = 0

    def advise(self) -> Advice:
        """Run the deployment as it is, then others; raises what `Checker.check` does for the first."""
        begun = time.monotonic()
        _require_file(self.what)
        base = self._repeated(self.what, ())
        wrong = unfit(base, base, {}, {})
        if not wrong:
            return Advice(base, (), [], 0, [], self.launched, time.monotonic() - begun)
        todo, stays = candidates(self.what, base, has_gevent="gevent" in self.checker.target.versions)
        self.progress(f"as it is: {', '.join(wrong)}")
        self.progress(f"{len(todo)} other deployments can be tried, for {self.budget_seconds:.0f} s at most")
        trials: list[Trial] = []
        work = self.checker.out.absolute() / f"advise-{secrets.token_hex(3)}"
        try:
            for number, candidate in enumerate(todo):
                held = sum(trial.verdict is Verdict.HELD for trial in trials)
                if held >= self.answers or time.monotonic() - begun > self.budget_seconds:
                    break
                trials.append(self._try(candidate, base, work / str(number)))
                last = trials[-1]
                why = f" ({', '.join(last.why)})" if last.why else ""
                tried = f"{len(trials)} of {len(todo)} after {time.monotonic() - begun:.0f} s"
                self.progress(f"{tried}: {candidate}: {last.verdict.value}{why}")
        finally:
            launch.remove_folder(work)
        seconds = time.monotonic() - begun
        return Advice(base, wrong, trials, len(todo) - len(trials), stays, self.launched, seconds)

    def _try(self, candidate: Candidate, base: CheckReport, work: Path) -> Trial:
        draft = candidate.draft
        what = _laid_out(self.what, draft, work, self.checker.out)
        diff = _diff(self.what, draft)
        first: CheckReport | None = None
        try:
            if set(self.what.faults) > set(QUICK):
                first = self._decided(replace(what, faults=QUICK), work, draft, base)
                why = self._unfit(first, base, draft, work)
                if why:
                    return Trial(candidate, _judged(first), why, 1, first, diff)
            report = self._repeated(what, draft.sites, base)
        except (UsageError, CouldNotDecide) as error:
            verdict = Verdict.BROKEN if isinstance(error, UsageError) else Verdict.UNKNOWN
            return Trial(candidate, verdict, (str(error).splitlines()[0],), 1, first, diff)
        why = self._unfit(report, base, draft, work)
        verdict = _judged(report) if why else Verdict.HELD
        return Trial(candidate, verdict, why, report.runs, report, diff)

    def _decided(self, what: Deployment, work: Path, draft: Draft, base: CheckReport) -> CheckReport:
        """One run; a second where the first could not be decided."""
        report = self._check(what)
        if not self._unfit(report, base, draft, work) or report.verdict is Verdict.BROKEN:
            return report
        return self._check(what) if report.verdict is Verdict.UNKNOWN else report

    def _unfit(self, report: CheckReport, base: CheckReport, draft: Draft, work: Path) -> tuple[str, ...]:
        return unfit(report, base, draft.expected, draft.sites) + _elsewhere(report, self.what.folder, work)

    def _repeated(
        self, what: Deployment, sites: Mapping[str, str] | tuple[()], base: CheckReport | None = None
    ) -> CheckReport:
        """Runs, until one shows that something is wrong or there are enough of them."""
        reports: list[CheckReport] = []
        spare = 1
        while len(reports) < self.repeat:
            report = self._check(what)
            if report.verdict is Verdict.UNKNOWN and spare:
                spare -= 1
                continue
            reports.append(report)
            if unfit(report, base or report, {}, dict(sites)):
                break
        return combine(reports)

    def _check(self, what: Deployment) -> CheckReport:
        self.launched += 1
        return self.checker.check(what)


def unfit(
    report: CheckReport, base: CheckReport, expected: Mapping[str, Any], sites: Mapping[str, str]
) -> tuple[str, ...]:
    """Why a run shows no deployment to recommend: what broke, what is undecided, or that it is not what was meant."""
    server = report.observed.server
    found = []
    for name, value in expected.items():
        told = server[name] if server is not None else None
        told = _plain_class(told) if name == "worker_class" else told
        if told != value:
            found.append(f"not run as meant: {_NAMES[name]} is {told}, and not {value}: something else sets it")
    loops = {_bare(loop): loop for loop in report.observed.loops}
    for name, site in sites.items():
        if name in loops and loops[name].first["site"] != site:
            found.append(f"not run as meant: {name} is started by {loops[name].started}, and not by {site}")
    booted = base.observed.loops if base.observed.history.windows else []
    missing = {_bare(loop) for loop in booted} - loops.keys()
    found += [f"{name} is not started at all" for name in sorted(missing)]
    found += [f"no loop is called {name}" for name in report.observed.unmatched]
    for judgement in report.judgements:
        if judgement.finding.verdict is Verdict.BROKEN:
            found.append(identity(judgement.finding))
        elif judgement.finding.verdict is Verdict.UNKNOWN:
            found.append(f"undecided: {identity(judgement.finding)}")
    return tuple(dict.fromkeys(found))


def _judged(report: CheckReport) -> Verdict:
    """Of a run that is unfit: what is merely undecided may hold."""
    return Verdict.UNKNOWN if report.verdict is Verdict.UNKNOWN else Verdict.BROKEN


def _elsewhere(report: CheckReport, root: Path, work: Path) -> tuple[str, ...]:
    """Whether modules were loaded from the user's own folder, where nothing was changed."""
    user, ours = f"{root.absolute()}/", f"{work}/"
    for loop in report.observed.loops:
        for event in loop.births.values():
            for place in event.get("own") or ():
                if place.startswith(user) and not place.startswith(ours):
                    return (f"not run as meant: {place} was loaded, and not the changed file",)
    return ()


def _bare(loop: Loop) -> str:
    return loop.name.partition("@")[0]


def _plain_class(name: object) -> str:
    """gunicorn's short name of a worker class."""
    text = str(name).lower()
    for short in ("gevent_pywsgi", "geventwebsocket", "gthread", "gevent", "tornado", "sync"):
        if short in text or (short == "gthread" and "threadworker" in text):
            return short
    return text


# --- which deployments there are


def candidates(what: Deployment, base: CheckReport, *, has_gevent: bool) -> tuple[list[Candidate], list[str]]:
    """The deployments that differ from the one that ran, the cheapest first, and the loops that stay where they are."""
    server = base.observed.server
    if server is None:
        return [], []
    start = Draft({}, what.options)
    moves, stays = _moves(what, base)
    dimensions: list[list[_Option]] = [
        _daemons(what, base),  # first: it leaves every line where it is
        moves,
        _patches(what),
        _classes(what, server, has_gevent=has_gevent),
        [_set(what, "preload", bool(server["preload"]), not server["preload"], 1.0)],
        [_set(what, "workers", int(server["workers"]), 1, 8.0)] if server["workers"] > 1 else [],
    ]
    found: dict[str, Candidate] = {}
    for chosen in itertools.product(*([None, *options] for options in dimensions)):
        options = [option for option in chosen if option is not None]
        draft: Draft | None = start
        for option in options:
            draft = option.apply(draft) if draft is not None else None
        if options and draft is not None and _sensible(draft, server):
            candidate = Candidate(tuple(option.change for option in options), draft)
            text = repr((sorted(draft.texts.items()), draft.options))
            if text not in found or found[text].cost > candidate.cost:
                found[text] = candidate
    return sorted(found.values(), key=lambda one: (one.cost, len(one.changes))), stays


@dataclass(frozen=True)
class _Option:
    change: Change
    apply: Callable[[Draft], Draft | None]


def _sensible(draft: Draft, server: Event) -> bool:
    """A patch in a configuration is for gevent's workers."""
    kind = draft.expected.get("worker_class", _plain_class(server["worker_class"]))
    return not draft.patched or str(kind).startswith("gevent")


def _set(what: Deployment, name: str, before: object, after: object, cost: float) -> _Option:
    def apply(draft: Draft) -> Draft | None:
        path = _config(what)
        text = edits.setting(_text(draft, path), _NAMES[name], after)
        if text is None:
            return None
        options = _without(draft.options, _NAMES[name])
        return replace(
            draft, texts={**draft.texts, path: text}, options=options, expected={**draft.expected, name: after}
        )

    return _Option(Change(_NAMES[name], repr(before), repr(after), cost), apply)


def _classes(what: Deployment, server: Event, *, has_gevent: bool) -> list[_Option]:
    now = _plain_class(server["worker_class"])
    found = []
    for name in _CLASSES:
        if name == now or (name == "gevent" and not has_gevent):
            continue
        plain = _set(what, "worker_class", now, name, 5.0)

        def apply(draft: Draft, plain: _Option = plain, name: str = name) -> Draft | None:
            changed = plain.apply(draft)
            if changed is None or name != "gthread" or int(server.fields.get("threads", 1)) > 1:
                return changed
            path = _config(what)
            text = edits.setting(_text(changed, path), "threads", _THREADS)
            return replace(changed, texts={**changed.texts, path: text}) if text is not None else None

        found.append(_Option(plain.change, apply))
    return found


def _patches(what: Deployment) -> list[_Option]:
    """Other places and flags of gevent's patches than those in the configuration and the app's module."""
    config = _config(what)
    start = Draft({}, ())
    calls = {path: edits.patch_calls(_text(start, path)) for path in (config, *_app_files(what))}
    there = [path for path, found in calls.items() if found]
    flags = [one for found in calls.values() for one in found if one]
    now = ", ".join(f"{_relative(what, path)}{_flags(calls[path][0])}" for path in there) or "the worker's own"

    def each(paths: Sequence[Path], edit: Callable[[str], str | None]) -> Callable[[Draft], Draft | None]:
        def apply(draft: Draft) -> Draft | None:
            texts = dict(draft.texts)
            for path in paths:
                text = edit(_text(draft, path))
                if text is None:
                    return None
                texts[path] = text
            return replace(draft, texts=texts)

        return apply

    def first(draft: Draft) -> Draft | None:
        without = each([path for path in there if path != config], edits.unpatched)(draft)
        if without is None:
            return None
        text = edits.patched(_text(without, config))
        if text is None:
            return None
        return replace(without, texts={**without.texts, config: text}, patched=True)

    found = []
    if flags:
        change = Change("patch_all", now, "without flags", 3.0)
        found.append(_Option(change, each(there, edits.patching_everything)))
    if there:
        found.append(_Option(Change("patch_all", now, "the worker's own", 4.0), each(there, edits.unpatched)))
    if not calls[config]:
        found.append(_Option(Change("patch_all", now, f"first in {_relative(what, config)}", 4.0), first))
    return found


def _flags(given: Mapping[str, bool]) -> str:
    return f" ({', '.join(f'{name}={value}' for name, value in given.items())})" if given else ""


def _moves(what: Deployment, base: CheckReport) -> tuple[list[_Option], list[str]]:
    """Where what is wrong could be started instead of at import."""
    blamed = {judgement.finding.loop for judgement in base.broken}
    loops = [loop for loop in base.observed.loops if loop.name in blamed] or list(base.observed.loops)
    at_import = [loop for loop in loops if str(loop.first["site"]).startswith("import of")]
    movable, stays = [], []
    for loop in at_import:
        place = next((place for place in _own(loop) if _movable(what, place, loop) is not None), None)
        if place is None:
            stays.append(f"{loop.name} is started by {loop.started}, which cannot be moved without knowing the app")
        else:
            movable.append((loop, place))
    found = []
    for choice in range(len(_IN_WORKERS)):
        hooks = {_bare(loop): _hooks(loop.policy)[min(choice, len(_hooks(loop.policy)) - 1)] for loop, _ in movable}
        if not movable or (choice and all(len(_hooks(loop.policy)) == 1 for loop, _ in movable)):
            break
        told = ", ".join(sorted(set(hooks.values())))
        names = ", ".join(_bare(loop) for loop, _ in movable)
        change = Change(f"start of {names}", "at import", told, 2.0 + 0.5 * choice)
        found.append(_Option(change, _mover(what, movable, hooks)))
    return found, stays


def _daemons(what: Deployment, base: CheckReport) -> list[_Option]:
    """Threads and processes that keep others from ending, as daemons; those of the user's own files."""
    if not any(one.finding.claim == "clean_shutdown" or one.finding.how == "old workers stay" for one in base.broken):
        return []
    found: dict[Place, str] = {}
    for loop in base.observed.loops:
        place = next(_own(loop), None)
        if place is not None and loop.first.get("daemon") is False and _is_ours(what, place[0]):
            found.setdefault(place, _bare(loop))

    def apply(draft: Draft) -> Draft | None:
        texts = dict(draft.texts)
        for path, line in found:
            text = edits.as_daemon(texts.get(path, _text(draft, path)), line)
            if text is None:
                return None
            texts[path] = text
        return replace(draft, texts=texts)

    change = Change(f"daemon of {', '.join(dict.fromkeys(found.values()))}", "False", "True", 1.5)
    return [_Option(change, apply)] if found else []


def _is_ours(what: Deployment, path: Path) -> bool:
    """Whether a file is the configuration, or a module of the app's folder: one that may be changed."""
    return path == _config(what) or _module(what, path) is not None


def _hooks(policy: Policy | None) -> tuple[str, ...]:
    return _IN_ARBITER if policy in (Policy.ONCE_PER_SERVICE, Policy.ARBITER_ONLY) else _IN_WORKERS


Place = tuple[Path, int]


def _own(loop: Loop) -> Iterator[Place]:
    """The places in the user's files from where a loop is started, the innermost first."""
    for place in loop.first.get("own") or ():
        path, _, line = place.rpartition(":")
        yield Path(path), int(line)


def _movable(what: Deployment, place: Place, loop: Loop) -> edits.Start | None:
    path, line = place
    if _module(what, path) is None or path == _config(what):
        return None
    keep = (what.app or "").partition(":")[2].partition("(")[0]
    return edits.into_function(_text(Draft({}, ()), path), line, _bare(loop), keep)


def _mover(
    what: Deployment, movable: Sequence[tuple[Loop, Place]], hooks: Mapping[str, str]
) -> Callable[[Draft], Draft | None]:
    def apply(draft: Draft) -> Draft | None:
        config = _config(what)
        texts = dict(draft.texts)
        keep = (what.app or "").partition(":")[2].partition("(")[0]
        done: dict[Place, None] = {}
        for loop, place in sorted(movable, key=lambda one: one[1], reverse=True):  # lines above stay where they are
            if place in done:
                continue
            done[place] = None
            path, line = place
            start = edits.into_function(texts.get(path, _text(draft, path)), line, _bare(loop), keep)
            module = _module(what, path)
            if start is None or module is None:
                return None
            texts[path] = start.text
            conf = edits.in_hook(texts.get(config, _text(draft, config)), hooks[_bare(loop)], module, start.function)
            if conf is None:
                return None
            texts[config] = conf
        sites = {name: f"hook {hook}" for name, hook in hooks.items()}
        return replace(draft, texts=texts, sites={**draft.sites, **sites})

    return apply


# --- the user's files


def _require_file(what: Deployment) -> None:
    if (what.config or "").startswith("python:"):
        raise UsageError(
            f"-c {what.config}: advise changes a configuration file, and this is none. Give the file of that module."
        )


def _config(what: Deployment) -> Path:
    """The configuration file, or where a new one is to be."""
    path = what.folder.absolute() / (what.config or "gunicorn.conf.py").removeprefix("file:")
    return Path(os.path.normpath(path))  # links stay: the app's folder may be reached by one


def _app_files(what: Deployment) -> list[Path]:
    module = (what.app or "").partition(":")[0].replace(".", "/")
    places = [what.folder.absolute() / f"{module}.py", what.folder.absolute() / module / "__init__.py"]
    return [path for path in places if module and path.is_file()]


def _text(draft: Draft, path: Path) -> str:
    """A file as it is or is to be; empty where there is none."""
    if path in draft.texts:
        return draft.texts[path]
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return files.read(path).decode()
    return ""


def _module(what: Deployment, path: Path) -> str | None:
    """The name under which a file of the app is imported."""
    with contextlib.suppress(ValueError):
        parts = list(path.relative_to(what.folder.absolute()).with_suffix("").parts)
        parts = parts[:-1] if parts[-1:] == ["__init__"] else parts
        if parts and all(part.isidentifier() for part in parts) and path.suffix == ".py":
            return ".".join(parts)
    return None


def _relative(what: Deployment, path: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.relative_to(what.folder.absolute()))
    return path.name


_WORDS = {
    "preload_app": ((), ("--preload",)),
    "worker_class": (("-k", "--worker-class"), ()),
    "workers": (("-w", "--workers"), ()),
}
"""Of gunicorn's command line: those with a value, and those without."""


def _without(options: Sequence[str], name: str) -> tuple[str, ...]:
    """gunicorn's words without those that set one thing: they would count for more than the file."""
    valued, plain = _WORDS[name]
    short = tuple(word for word in valued if len(word) == 2)
    long = tuple(f"{word}=" for word in valued if len(word) > 2)
    found: list[str] = []
    words = iter(options)
    for word in words:
        if word in valued:
            next(words, None)
        elif word not in plain and not word.startswith((*short, *long)):
            found.append(word)
    return tuple(found)


def _diff(what: Deployment, draft: Draft) -> str:
    start = Draft({}, ())
    changes = {}
    for path, text in draft.texts.items():
        before = _text(start, path) if path.exists() else None
        if before != text:
            changes[_relative(what, path)] = (before, text)
    return edits.diff(dict(sorted(changes.items())))


def _laid_out(what: Deployment, draft: Draft, work: Path, out: Path) -> Deployment:
    """The deployment in a folder of its own: links to the user's files, and those that differ."""
    root, config = what.folder.absolute(), _config(what)
    place = work / "app"
    try:
        _mirror(root, {path: text for path, text in draft.texts.items() if path.is_relative_to(root)}, place, out)
        given = what.config
        if config in draft.texts and not config.is_relative_to(root):
            beside = work / "conf"
            _mirror(config.parent, {config: draft.texts[config]}, beside, out)
            given = str(beside / config.name)
        elif given is not None and config.is_relative_to(root):
            given = str(config.relative_to(root))
    except OSError as error:
        raise RunFolderError(
            f"{work}: cannot be written: {error.strerror}. Make room, or give another --out."
        ) from None
    return replace(what, folder=place, config=given, options=draft.options)


def _mirror(root: Path, changed: Mapping[Path, str], into: Path, out: Path) -> None:
    folders = {root}
    for path in changed:
        folders |= {parent for parent in path.parents if parent.is_relative_to(root)}
    for folder in sorted(folders):
        copy = into / folder.relative_to(root)
        copy.mkdir(parents=True, mode=0o700)
        for entry in folder.iterdir() if folder.is_dir() else ():
            # Bytecode of a file that has been changed would be read in its stead where nobody checks its age.
            if (
                entry not in changed
                and entry not in folders
                and entry.name != "__pycache__"
                and entry != out.absolute()
            ):
                (copy / entry.name).symlink_to(entry)
    for path, text in changed.items():
        (into / path.relative_to(root)).write_text(text, encoding="utf-8")
