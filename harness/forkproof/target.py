"""The interpreter that is put to the test, and what is installed in it.

>>> import sys
>>> inspect(sys.executable).python == ".".join(map(str, sys.version_info[:3]))
True
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from forkproof import bodies, servers
from forkproof.errors import MissingPackage, TargetError
from forkproof.scenario import PATCH_FLAGS, EarlyThing, ForkHooks, LoopKind, LoopStart, Scenario, WorkerClass, YieldCall

OLDEST = (3, 6)
_PAYLOAD = Path(__file__).parent / "payload"
LONGEST = 200
"""Characters of an answer that is none that are shown."""
PACKAGES = (
    "gunicorn", "gevent", "greenlet", "flask", "redis", "gevent-websocket", "flask-socketio", "tornado", "hiredis",
)  # fmt: skip

_QUESTION = r"""
import json, sys
found = {"python": list(sys.version_info[:3]), "versions": {}, "patch_flags": [], "worker_classes": None}
try:
    from importlib.metadata import version, PackageNotFoundError as Missing
except ImportError:  # before 3.8, where setuptools may be missing too
    import os, re
    Missing = LookupError
    def version(name):
        pattern = re.compile(name.replace("-", "[-_.]") + r"-([^-]+?)(-py.*)?\.(dist|egg)-info$", re.IGNORECASE)
        entries = [entry for folder in sys.path if os.path.isdir(folder) for entry in os.listdir(folder)]
        return [pattern.match(entry).group(1) for entry in entries if pattern.match(entry)][0]
payload = sys.argv.pop(1)
for name in sys.argv[1:]:
    try:
        found["versions"][name] = version(name)
    except Missing:
        pass
if "gunicorn" in found["versions"]:
    try:
        from gunicorn.workers import SUPPORTED_WORKERS
        found["worker_classes"] = sorted(SUPPORTED_WORKERS)
    except Exception:
        pass  # why gunicorn cannot be imported, a run tells
if "gevent" in found["versions"]:
    try:
        import inspect
        from gevent import monkey
        found["patch_flags"] = [
            name for name, parameter in inspect.signature(monkey.patch_all).parameters.items()
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
        ]
    except Exception as error:
        found["gevent_error"] = repr(error)
try:
    import compileall  # Python 2 would put it beside the source
    if sys.version_info[0] > 2:
        compileall.compile_dir(payload, quiet=2)
except Exception:
    pass  # then each server compiles it for itself
print("\n" + json.dumps(found))
"""
"""Beside answering, it compiles what runs inside its servers, which write no bytecode: that is 4 % of a boot."""


_BEHIND = {
    WorkerClass.GEVENT: ("gevent",),
    WorkerClass.GEVENT_PYWSGI: ("gevent",),
    WorkerClass.GEVENTWEBSOCKET: ("gevent", "gevent-websocket"),
    WorkerClass.TORNADO: ("tornado",),
}
"""The packages that a worker class needs beside gunicorn."""

IMPORTS = {"flask-socketio": ("gevent", "gevent-websocket", "greenlet"), "gevent": ("greenlet",)}
"""What packages import of the others; Flask-SocketIO takes gevent where it finds it."""


@dataclass(frozen=True)
class Target:
    """A Python, the versions of the packages that matter, and the keywords of its `patch_all`."""

    executable: str
    python: str
    versions: Mapping[str, str]
    patch_flags: tuple[str, ...]
    gevent_error: str = ""
    worker_classes: tuple[str, ...] | None = None
    """The worker classes that its gunicorn has a short name for; None where it does not tell."""

    def to_dict(self) -> dict[str, str | None]:
        """The versions as JSON reports give them; null for what is not installed."""
        return {"python": self.python, **{name: self.versions.get(name) for name in PACKAGES}}

    @property
    def has_fork_hooks(self) -> bool:
        """Whether it has `os.register_at_fork`, which came with Python 3.7."""
        return Version(self.python) >= Version("3.7")

    @property
    def has_simple_queue(self) -> bool:
        """Whether it has `queue.SimpleQueue`, which came with Python 3.7."""
        return Version(self.python) >= Version("3.7")

    def has_worker_class(self, worker_class: WorkerClass) -> bool:
        """Whether its gunicorn knows a worker class, and what that one needs is there."""
        names = self.worker_classes
        known = names is None or worker_class is WorkerClass.GEVENTWEBSOCKET or worker_class.value in names
        return known and all(name in self.versions for name in _BEHIND.get(worker_class, ()))

    def require(self, scenario: Scenario) -> None:
        """Raise where the target cannot run a scenario: MissingPackage, or TargetError for a keyword it lacks."""
        for name, why in needs(scenario).items():
            if name not in self.versions:
                raise MissingPackage(
                    f"{self.executable}: has no {name}, which {why} needs. "
                    f"Install it there ({self.executable} -m pip install {name}) or choose another --target."
                )
            if name == "gevent" and self.gevent_error:
                raise MissingPackage(
                    f"{self.executable}: gevent {self.versions[name]}, which {why} needs, cannot be imported: "
                    f"{self.gevent_error}. Install it again there, or choose another --target."
                )
        if not self.has_worker_class(scenario.server.worker_class):
            raise TargetError(
                f"{self.executable}: gunicorn {self.versions['gunicorn']} has no worker_class "
                f"{scenario.server.worker_class.value!r}. Take another one, or choose another --target."
            )
        for loop in scenario.loops:
            if loop.start is LoopStart.FORK_HOOK and not self.has_fork_hooks:
                raise TargetError(
                    f"{self.executable}: Python {self.python} has no os.register_at_fork, which loop {loop.name!r} "
                    "needs. Start it elsewhere, or choose another --target."
                )
        if scenario.surroundings.fork_hooks is not ForkHooks.NONE and not self.has_fork_hooks:
            raise TargetError(
                f"{self.executable}: Python {self.python} has no os.register_at_fork, which surroundings.fork_hooks "
                "needs. Leave it out, or choose another --target."
            )
        for early in scenario.surroundings.early_imports:
            if early.what is EarlyThing.SIMPLE_QUEUE and not self.has_simple_queue:
                raise TargetError(
                    f"{self.executable}: Python {self.python} has no queue.SimpleQueue, which "
                    "surroundings.early_imports needs. Leave it out, or choose another --target."
                )
        for patch in scenario.patches:
            for flag in patch.flags:
                if flag not in self.patch_flags:
                    raise TargetError(
                        f"{self.executable}: patch_all of gevent {self.versions['gevent']} has no keyword {flag!r}; "
                        f"it has {', '.join(self.patch_flags)}. Leave it out of patches, or choose another --target."
                    )


def needs(scenario: Scenario) -> dict[str, str]:
    """The packages that a scenario needs in its target, with what needs them."""
    by = scenario.server.started_by
    if by == servers.GUNICORN:
        found = {"gunicorn": "every scenario", "flask": "every scenario"}
    else:
        found = {"flask": "every scenario", **dict.fromkeys(servers.REGISTRY[by].needs, f"server {by!r}")}
    worker_class = scenario.server.worker_class
    for name in _BEHIND.get(worker_class, ()):
        found[name] = f"worker_class {worker_class.value!r}"
    if scenario.patches:
        found["gevent"] = "patches"
    if scenario.surroundings.hiredis:
        found["hiredis"] = "surroundings.hiredis"
    for early in scenario.surroundings.early_imports:
        if early.what.needs_redis:
            found["redis"] = f"surroundings.early_imports: {early.what.value!r}"
    for loop in scenario.loops:
        if loop.kind.needs_gevent or loop.yields.call is YieldCall.GEVENT_SLEEP:
            found["gevent"] = f"loop {loop.name!r}"
        if loop.kind is LoopKind.SOCKETIO_TASK:
            found["flask-socketio"] = f"loop {loop.name!r}"
        if loop.needs_redis:
            found["redis"] = f"loop {loop.name!r}"
        if loop.body in bodies.REGISTRY:
            found |= dict.fromkeys(bodies.REGISTRY[loop.body].needs, f"body {loop.body.value!r}")
    return found


def uses(scenario: Scenario) -> set[str]:
    """The packages that run in a scenario's processes, as far as forkproof knows: those it needs, and what they import.

    >>> from forkproof.scenario import from_dict
    >>> sorted(uses(from_dict({"loops": [{"name": "a", "kind": "greenlet"}]})))
    ['flask', 'gevent', 'greenlet', 'gunicorn']
    """
    found = {*needs(scenario)}
    for name, imports in IMPORTS.items():
        if name in found:
            found.update(imports)
    return found


def others_need() -> list[str]:
    """The packages that bodies and servers of other packages need, beside those that matter anyway."""
    found = [plugin.needs for plugin in bodies.REGISTRY.values()]
    found += [plugin.needs for plugin in servers.REGISTRY.values()]
    return sorted({name for names in found for name in names} - {*PACKAGES})


@functools.cache
def inspect(executable: str) -> Target:
    """Ask an interpreter what it is; TargetError where it is no Python or too old."""
    try:
        done = subprocess.run(
            [executable, "-c", _QUESTION, str(_PAYLOAD), *PACKAGES, *others_need()],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=60, check=False,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONNOUSERSITE": "1"},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        why = "it takes longer than 60 s" if isinstance(error, subprocess.TimeoutExpired) else error
        raise TargetError(f"{executable}: cannot be run as a Python: {why}. {_NEXT}") from None
    return understand(executable, done.stdout, done.stderr)


class _Answer(BaseModel):
    """What an interpreter says of itself."""

    model_config = ConfigDict(strict=True)

    python: Annotated[list[Annotated[int, Field(ge=0, lt=1000)]], Field(min_length=3, max_length=3)]
    versions: dict[str, str]
    patch_flags: list[str]
    gevent_error: str = ""
    worker_classes: list[str] | None = None


def understand(executable: str, answer: str, complaint: str = "") -> Target:
    """The target that an interpreter's answer describes; `complaint` is what it wrote to standard error.

    TargetError where it is no Python, is too old, or has something whose version cannot be compared.
    """
    try:
        found = _Answer.model_validate_json(answer.splitlines()[-1])
    except (ValueError, LookupError):
        last = (complaint or answer).strip().splitlines()[-1:] or ["it printed nothing"]
        raise TargetError(f"{executable}: is no Python that forkproof can test: {last[0][:LONGEST]}. {_NEXT}") from None
    version = ".".join(map(str, found.python))
    if tuple(found.python) < OLDEST:
        raise TargetError(f"{executable}: is Python {version}; 3.6 is the oldest. {_NEXT}")
    for name, installed in found.versions.items():
        if not is_version(installed):
            raise TargetError(
                f"{executable}: has {name} {installed[:LONGEST]!r}, which is no version. Install it again there, or "
                "choose another --target."
            )
    return Target(
        executable,
        version,
        found.versions,
        # Not `httplib`, which gevent 1.2 has but to refuse it, nor what a later gevent may add.
        tuple(flag for flag in found.patch_flags if flag in PATCH_FLAGS),
        found.gevent_error,
        None if found.worker_classes is None else tuple(found.worker_classes),
    )


_NEXT = (
    "Give --target the path of a Python, such as that of a virtual environment with gunicorn in it, or the name of a "
    "lane (`forkproof lanes`)."
)


_BROUGHT = r"""
import json, re, sys
try:
    from importlib.metadata import PackageNotFoundError, distribution
    def read(name):
        found = distribution(name)
        return found.version, [one for one in found.requires or () if "extra ==" not in one]
    missing = PackageNotFoundError
except ImportError:  # before 3.8
    import pkg_resources
    def read(name):
        found = pkg_resources.working_set.by_key[name.lower()]
        return found.version, [str(one) for one in found.requires()]
    missing = KeyError
left, found = sys.argv[1:], {}
while left:
    name = re.match(r"[\w.-]+", left.pop()).group()
    key = re.sub("[-_.]+", "-", name).lower()
    if key not in found:
        try:
            found[key], more = read(name)
            left += more
        except missing:
            pass  # another system's, or another Python's
print(json.dumps(found))
"""


def brought_along(executable: str, names: Sequence[str]) -> dict[str, str]:
    """The versions of packages and of what they require, as they are installed there; none where that is not told."""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONNOUSERSITE": "1"}
    try:
        asked = subprocess.run(
            [executable, "-I", "-c", _BROUGHT, *names],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False, env=environment,
        )  # fmt: skip
        found = TypeAdapter(dict[str, str]).validate_json(asked.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
    return {name: version for name, version in found.items() if is_version(version)}


def find(text: str | None) -> Target:
    """The target that `--target` names; by default the interpreter that forkproof itself runs in."""
    if text is None:
        return inspect(sys.executable)
    path = Path(text)
    if path.is_dir() and (path / "bin" / "python").exists():
        path = path / "bin" / "python"
    if path.is_dir():
        raise TargetError(f"{text}: is a folder without bin/python. {_NEXT}")
    if not path.exists():
        raise TargetError(f"{text}: there is no such file. {_NEXT}")
    # Not resolved: a virtual environment is told by where its link stands.
    return inspect(str(path.absolute()))


def is_version(text: str) -> bool:
    """Whether a text is a version that can be compared with others.

    >>> is_version("27.0.1"), is_version("latest")
    (True, False)
    """
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


def describe(versions: Mapping[str, Any]) -> str:
    """One line for people: `Python 3.11.7, gunicorn 27.0.1, ...`."""
    named = [f"{name} {value}" for name, value in versions.items() if name != "python" and value]
    return ", ".join([f"Python {versions['python']}", *named])
