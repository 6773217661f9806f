"""A folder that shows a broken claim without forkproof: a program of a few lines, and what runs it.

>>> from forkproof.scenario import from_dict
>>> what = from_dict({"loops": [{"name": "listen", "policy": "once_per_service"}], "server": {"workers": 2}})
>>> made = reproducer(what, Broken("exactly_one_listener", "listen"), {"python": "3.11.7", "gunicorn": "27.0.1"})
>>> sorted(made.files)
['README.md', 'app.py', 'background.py', 'check.py', 'gunicorn.conf.py', 'reproduce.sh', 'requirements.txt']
>>> made.lines_of_python <= 60
True
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import metadata, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from forkproof.errors import RunFolderError, UsageError
from forkproof.judge import Judgement, RunReport
from forkproof.reproducer import checks, source
from forkproof.reproducer.checks import Broken, NoProgramError, expected
from forkproof.scenario import Policy, Scenario
from forkproof.simplify import neighbours
from forkproof.target import IMPORTS, describe
from forkproof.verdict import Verdict

__all__ = [
    "LONGEST",
    "Broken",
    "NoProgramError",
    "Reproducer",
    "options",
    "programs",
    "reproducer",
    "require_empty",
    "write",
]

LONGEST = 60
"""Lines of Python that a reproducer may have, empty ones not counted."""


@dataclass(frozen=True)
class Reproducer:
    """What it shows, of which scenario, and its files by name."""

    broken: Broken
    scenario: Scenario
    files: Mapping[str, str]
    left_out: Sequence[str] = ()
    """What the run had beside."""
    tries: int = 1
    """How many servers its script starts at most."""

    @property
    def shows(self) -> bool:
        """Whether it is of something broken, and no control."""
        return bool(self.broken.how)

    @property
    def lines_of_python(self) -> int:
        """Lines of its Python files that are not empty."""
        python = [text for name, text in self.files.items() if name.endswith(".py")]
        return sum(bool(line.strip()) for text in python for line in text.splitlines())

    @property
    def pinned(self) -> dict[str, str]:
        """The versions that requirements.txt names, of what has to be in the server's environment."""
        lines = [line.partition("==") for line in self.files["requirements.txt"].splitlines()]
        return {name.partition("[")[0]: pin for name, _, pin in lines if pin and name != "fakeredis"}

    def with_pins(self, installed: Mapping[str, str]) -> Reproducer:
        """The same, with the versions of all that its packages require; as it is where they are others there."""
        if any(installed.get(name) != pin for name, pin in self.pinned.items()):
            return self
        lines = self.files["requirements.txt"].splitlines()
        more = sorted(f"{name}=={pin}" for name, pin in installed.items() if name not in {*self.pinned, *_TOOLS})
        return replace(self, files={**self.files, "requirements.txt": "\n".join([*lines, *more]) + "\n"})

    def with_rate(self, failed: int, tried: int, seen: str = "", on: str = "") -> Reproducer:
        """The same, which tells how often it showed, and tries as often as it takes to show in 99 of 100 calls.

        `seen` is what it said then, `on` the versions where they are others than it names.
        """
        tries = 1 if failed in (0, tried) else math.ceil(math.log(0.01) / math.log(1 - failed / tried))
        told = f"in {failed} of {tried} tries when this was made" if failed else f"nothing, in {tried} tries"
        told += f", on {on}" if on else ""
        told += "".join(f"\n\n    {line}" if not index else f"\n    {line}" for index, line in enumerate(_head(seen)))
        files = dict(self.files)
        files["reproduce.sh"] = files["reproduce.sh"].replace("${TRIES:-1}", f"${{TRIES:-{tries}}}")
        files["README.md"] = files["README.md"].replace(_NOT_TRIED, told)
        return replace(self, files=files, tries=tries)


def _head(said: str) -> list[str]:
    lines = said.strip().splitlines()
    return lines[:_SAID] + (["..."] if len(lines) > _SAID else [])


_SAID = 5
"""Lines of what a program says that its page has."""


def reproducer(
    scenario: Scenario, broken: Broken, versions: Mapping[str, str | None], *, of: Scenario | None = None
) -> Reproducer:
    """The reproducer of a broken claim; NoProgramError, with what to do instead, where there is none.

    `of` is the scenario that this one is a part of.
    """
    left_out = tuple(_left_out(of.to_dict(), scenario.to_dict())) if of is not None else ()
    if why := source.why_not(scenario):
        raise NoProgramError(why)
    if broken.loop is not None and scenario.loop(broken.loop).policy is Policy.BEST_EFFORT:
        raise NoProgramError("a loop that is best_effort is not judged")
    patient = checks.with_time(scenario, broken)
    fake, goes_with = _fakeredis(versions)
    shown = checks.program(patient, broken, versions, "" if goes_with else fake)
    files = {
        **source.files(patient, shown.watched),
        **({"check.py": shown.check} if shown.check else {}),
        "requirements.txt": _requirements(scenario, versions),
        "reproduce.sh": shown.script,
        "README.md": _readme(scenario, broken, versions, left_out, has_check=bool(shown.check)),
    }
    made = Reproducer(broken, scenario, files, left_out)
    if made.lines_of_python > LONGEST:
        raise NoProgramError(
            f"it would have {made.lines_of_python} lines of Python, more than {LONGEST}; make the scenario smaller "
            "(fewer loops, no fault), as `forkproof explore` does",
            made.lines_of_python,
        )
    return made


def options(report: RunReport, claim: str | None = None, loop: str | None = None) -> list[Reproducer]:
    """The programs that may show what a run broke, of the claim and loop that are named or of any, the best first.

    First come those that have all of the scenario, then those that leave something out: it takes a try to know whether
    they show it. Of a claim that held it is one that shows nothing, as a control. UsageError where there is none.
    """
    wanted = [
        judgement
        for judgement in report.judgements
        if claim in (None, judgement.finding.claim) and loop in (None, judgement.finding.loop)
    ]
    broken = [judgement for judgement in wanted if judgement.finding.verdict is Verdict.BROKEN]
    held = [judgement for judgement in wanted if judgement.finding.verdict is Verdict.HELD and claim is not None]
    if not broken and not held:
        about = (
            f"{claim or 'no claim'} {'neither broke nor held' if claim else 'broke'}{f' for {loop}' if loop else ''}"
        )
        raise UsageError(
            f"{report.folder}: {about} in this run, so there is nothing to show. Give another run, or with --claim a "
            "claim that broke, or one that held for a program that shows nothing."
        )
    exact: list[Reproducer] = []
    reduced: list[Reproducer] = []
    refused: dict[str, str] = {}
    for judgement in sorted(broken or held, key=lambda judgement: not judgement.surprise):
        finding = judgement.finding
        shown = Broken(finding.claim, finding.loop, finding.how)
        whole = _up_to(report.scenario, judgement)
        try:
            for made in programs(whole, shown, report.versions):
                (reduced if made.left_out else exact).append(made)
        except NoProgramError as error:
            refused.setdefault(str(error), f"{shown}: {error}")
    if not exact and not reduced:
        raise UsageError(f"{report.folder}: cannot be exported:\n" + "\n".join(refused.values()))
    return exact + reduced


def programs(scenario: Scenario, broken: Broken, versions: Mapping[str, str | None]) -> list[Reproducer]:
    """The one with all of the scenario, or where there is none, those of simpler ones; NoProgramError where none is."""
    try:
        return [reproducer(scenario, broken, versions)]
    except NoProgramError as error:
        found = _smaller(scenario, broken, versions, error) if broken.how else []
        if not found:
            raise
        return found


def _smaller(
    whole: Scenario, broken: Broken, versions: Mapping[str, str | None], obstacle: NoProgramError
) -> list[Reproducer]:
    """Programs of simpler scenarios of which there is one, the least simpler first.

    The way leads from neighbour to neighbour, by those that get around what is in the way or have fewer lines.
    """
    found: list[Reproducer] = []
    seen = {whole.digest}
    way = [(whole, obstacle)]
    for _ in range(_STEPS):
        further: list[tuple[Scenario, NoProgramError]] = []
        for what, before in way:
            for simpler in neighbours(what, keep=broken.loop):
                if simpler.digest in seen:
                    continue
                seen.add(simpler.digest)
                try:
                    found.append(reproducer(simpler, broken, versions, of=whole))
                except NoProgramError as error:
                    if error.lines < before.lines if error.lines and before.lines else str(error) != str(before):
                        further.append((simpler, error))
        if found:
            break
        further.sort(key=lambda one: one[1].lines)
        way = further[:_WIDTH]
    return sorted(found, key=lambda made: len(made.left_out))[:_WIDTH]


_STEPS, _WIDTH = 8, 3
"""How far, and on how many ways, a simpler scenario is looked for."""


def _left_out(whole: object, part: object, path: str = "") -> Iterator[str]:
    """What the plain data of a scenario has and that of a smaller one has not: members, and values that differ."""
    if isinstance(whole, dict) and isinstance(part, dict):
        for name in whole:
            yield from _left_out(whole[name], part.get(name), f"{path}.{name}" if path else name)
    elif isinstance(whole, list) and isinstance(part, list):
        if len(whole) == len(part):
            for index, (one, other) in enumerate(zip(whole, part, strict=True)):
                yield from _left_out(one, other, f"{path}.{index}")
        else:
            for index, one in enumerate(whole):
                if one not in part:
                    told = [one[name] for name in ("name", "fault", "site", "who", "what") if name in one]
                    yield f"{path}.{index} ({told[0]})"
    elif whole != part:
        yield f"{path} {whole}" if isinstance(whole, (str, int, float)) else path


_LATE = (
    "clean_shutdown", "no_orphan_process", "no_leak_on_reload", "handover_is_safe", "foreign_child_ignored",
    "workers_boot",
)  # fmt: skip
"""Claims that are about what the last fault does."""


def _up_to(scenario: Scenario, judgement: Judgement) -> Scenario:
    """The scenario without the faults that came after the claim broke."""
    finding = judgement.finding
    if finding.verdict is not Verdict.BROKEN or finding.claim in _LATE or not finding.evidence:
        return scenario
    window = next((event["window"] for event in finding.evidence if event.event == "window.close"), None)
    return scenario if window is None else scenario.model_copy(update={"faults": scenario.faults[:window]})


def require_empty(folder: Path) -> None:
    """UsageError where a folder is there and has something in it, or where none can be made."""
    try:
        if any(folder.iterdir()):
            raise UsageError(f"{folder}: is not empty. Give a new folder.")
    except FileNotFoundError:
        above = next(one for one in folder.absolute().parents if one.exists())
        if not os.access(above, os.W_OK):
            raise UsageError(f"{folder}: nothing can be written to {above}. Give another folder.") from None
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror}. Give a new folder.") from None


def write(made: Reproducer, folder: Path) -> None:
    """Write the files to a new or empty folder; UsageError where it is neither, RunFolderError where that fails."""
    require_empty(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in made.files.items():
            (folder / name).write_text(text, encoding="utf-8")
        (folder / "reproduce.sh").chmod(0o755)
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be written: {error.strerror}. Give another folder.") from None


def _packages(scenario: Scenario, versions: Mapping[str, str | None]) -> list[str]:
    """What the program imports, and what that imports where it finds it."""
    names = source.packages(scenario)
    found = {other for name in names for other in IMPORTS.get(name, ()) if versions.get(other)}
    return names + sorted(found - {*names})


def _requirements(scenario: Scenario, versions: Mapping[str, str | None]) -> str:
    names = _packages(scenario, versions)
    lines = []
    for name in names:
        pinned = versions.get(name)
        # From 26.1 on gunicorn's gevent worker needs what that extra brings.
        extra = "[gevent]" if name == "gunicorn" and pinned and "gevent" in names and Version(pinned) >= _EXTRA else ""
        lines.append(f"{name}{extra}=={pinned}" if pinned else name)
    gevent = versions.get("gevent")
    if "gevent" in names and gevent and Version(gevent) < Version("23"):
        lines.append("setuptools<70")  # it imports pkg_resources
    fake, goes_with = _fakeredis(versions)
    if "redis" in names and goes_with:
        lines.append(fake)
    return "\n".join(lines) + "\n"


def _fakeredis(versions: Mapping[str, str | None]) -> tuple[str, bool]:
    """The package that a try's Redis is of, and whether it can be installed beside these versions."""
    told = metadata("fakeredis")
    python, redis = versions.get("python"), versions.get("redis")
    goes_with = python is None or python in SpecifierSet(told["Requires-Python"] or "")
    for needed in map(Requirement, requires("fakeredis") or ()):
        if needed.name == "redis" and redis and (needed.marker is None or needed.marker.evaluate({"extra": ""})):
            goes_with &= needed.specifier.contains(redis, prereleases=True)
    return f"fakeredis=={told['Version']}", goes_with


_EXTRA = Version("26.1")
_TOOLS = ("pip", "setuptools", "wheel", "fakeredis")

_NOT_TRIED = "not tried when this was made"


def _readme(
    scenario: Scenario,
    broken: Broken,
    versions: Mapping[str, str | None],
    left_out: Sequence[str],
    *,
    has_check: bool,
) -> str:
    loop = "" if broken.loop is None else f" (`{broken.loop}`)"
    used = {name: versions.get(name) for name in ("python", *_packages(scenario, versions))}
    meant = [f"`{loop.name}` {source.policy_in_words(loop)}" for loop in scenario.loops]
    rest = f"\n- Left out of what was run, since it shows without: {', '.join(left_out)}." if left_out else ""
    redis = "\nEach try has a Redis of its own, which is fakeredis'.\n" if "redis" in source.packages(scenario) else ""
    look = "starts it; `check.py` looks from outside" if has_check else "starts it and looks from outside"
    python = describe({"python": ".".join((versions.get("python") or "3").split(".")[:2])})
    return f"""# {broken.claim}{loop}

Expected: {expected(scenario, broken)}

Seen: {_NOT_TRIED}

`./reproduce.sh` starts the server and exits 1 while that is seen, 0 when it is as expected, 2 when that could not be
told. It needs Linux. It installs `requirements.txt` into `.venv`, with {python} where there is one; or give it a Python
that has them: `PYTHON=/path/to/python ./reproduce.sh`. The output of the last server is in `server.log` then.

- `gunicorn.conf.py`, `app.py`, `background.py`: the deployment. {"; ".join(meant)}.
- `reproduce.sh` {look}.
- Versions: {describe(used)}.{rest}
{redis}"""
