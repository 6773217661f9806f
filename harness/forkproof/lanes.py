"""Lanes: stacks by name, each a Python and exact versions of what is installed in it, built when they are asked for.

`lanes.toml` pins the packages of each factor, what they depend on included, and a lane's name is its factors. Nothing
is installed that is not pinned (`pip install --no-deps`), and `pip check` sees that nothing is missing. No Python is
downloaded: a lane whose Python is not on this machine cannot be had, and that is what is said.

>>> lane = load().lane("py311-gevent259-gunicorn23")
>>> lane.python, [pin for pin in lane.pins if pin.startswith("g")]
('3.11', ['gevent-websocket==0.10.1', 'gevent==25.9.1', 'greenlet==3.2.4', 'gunicorn==23.0.0'])
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from pydantic import BaseModel, ConfigDict, Field, field_validator

from forkproof import files, tables
from forkproof.errors import LaneError, UsageError

PATH = Path(__file__).parent / "lanes.toml"

LONGEST = 1 << 20
"""Bytes that a file of lanes may have."""

NEWEST = "newest"
"""In place of a version: the newest Python that is on this machine."""

BINARY = "gevent,greenlet"
"""What is taken as a wheel or not at all: to compile these takes minutes and a compiler, and fails on most machines."""

_MARK = "forkproof-lane.json"


@dataclass(frozen=True)
class Lane:
    """A stack. `pins` are all that is installed; where `loose` are given instead, pip chooses, pre-releases too."""

    name: str
    python: str
    pins: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """What tells whether an environment was built for just this."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Lanes:
    """What a file says: factors that can be joined, lanes that have a name of their own, and those of `compat`."""

    source: str
    pythons: Mapping[str, tuple[str, tuple[str, ...]]]
    factors: Mapping[str, tuple[str, ...]]
    named: Mapping[str, Lane]
    compat: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The lanes that are listed: those of `compat` and those with a name of their own."""
        return list(dict.fromkeys([*self.compat, *self.named]))

    def knows(self, text: str) -> bool:
        """Whether a text is meant for a lane: one with a name, or one that begins with a Python of ours."""
        return text in self.named or text.partition("-")[0] in self.pythons

    def lane(self, name: str) -> Lane:
        """The lane of that name; UsageError names the factor that is none."""
        if name in self.named:
            return self.named[name]
        first, *rest = name.split("-")
        if first not in self.pythons:
            raise UsageError(
                f"{name}: is no lane of {self.source}: {first[:40]!r} is neither a Python nor a name there; "
                f"there are: {', '.join([*self.pythons, *self.named])}. See `forkproof lanes`."
            )
        version, base = self.pythons[first]
        pins = {_package(pin): pin for pin in base}
        for factor in rest:
            if factor not in self.factors:
                raise UsageError(
                    f"{name}: is no lane of {self.source}: there is no factor {factor[:40]!r}; there are: "
                    f"{', '.join(self.factors)}. See `forkproof lanes`."
                )
            pins |= {_package(pin): pin for pin in self.factors[factor]}
        return Lane(name, version, tuple(sorted(pins.values())))


def _package(pin: str) -> str:
    return canonicalize_name(Requirement(pin).name)


# --- the file


def _requirement(text: str) -> str:
    try:
        Requirement(text)
    except InvalidRequirement:
        raise ValueError(f"{text[:60]!r} is no requirement such as gunicorn==23.0.0") from None
    return text


def _pin(text: str) -> str:
    wanted = Requirement(_requirement(text))
    exact = [one for one in wanted.specifier if one.operator == "==" and not one.version.endswith(".*")]
    if len(wanted.specifier) != 1 or not exact or wanted.marker or wanted.url:
        raise ValueError(f"{text[:60]!r} is not pinned exactly, as gunicorn==23.0.0 is")
    return text


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    pins: list[str] = []

    @field_validator("pins")
    @classmethod
    def _exact(cls, pins: list[str]) -> list[str]:
        packages = [_package(_pin(pin)) for pin in pins]
        for package in packages:
            if packages.count(package) > 1:
                raise ValueError(f"{package} is pinned twice")
        return pins


_Version = Annotated[str, Field(pattern=r"^(3\.\d{1,3}(\.\d{1,3})?|newest)$")]
_Name = Annotated[str, Field(pattern="^[a-z][a-z0-9]*$")]


class _Python(_Entry):
    version: _Version
    like: str | None = None


class _Named(_Entry):
    python: _Version
    loose: list[str] = []

    @field_validator("loose")
    @classmethod
    def _sayable(cls, loose: list[str]) -> list[str]:
        return [_requirement(text) for text in loose]


class _File(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    python: dict[_Name, _Python] = {}
    factor: dict[_Name, _Entry] = {}
    lane: dict[_Name, _Named] = {}
    compat: list[str] = []


@functools.cache
def load(path: Path = PATH) -> Lanes:
    """The lanes of a file, by default forkproof's own; UsageError where it cannot be read or cannot be."""
    try:
        content = files.beginning(path, LONGEST + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}. Give --lanes another file.") from None
    return parse(content, source=str(path))


def parse(content: bytes, *, source: str) -> Lanes:
    """The lanes of a file; UsageError names the entry and the field that cannot be."""
    if len(content) > LONGEST:
        raise UsageError(f"{source}: is no TOML: is longer than {LONGEST} bytes. Correct it there.")
    return _understood(tables.parse(_File, content, source=source, then="Correct it there."), source)


def _understood(data: _File, source: str) -> Lanes:
    pythons = {}
    for name, one in data.python.items():
        base = data.python.get(one.like or name)
        if base is None or (base is not one and base.like):
            raise UsageError(f"{source}: python.{name}.like: {str(one.like)[:40]!r} is no Python with pins of its own.")
        pins = {_package(pin): pin for pin in (*base.pins, *one.pins)}
        pythons[name] = one.version, tuple(pins.values())
    named = {name: Lane(name, one.python, tuple(one.pins), tuple(one.loose)) for name, one in data.lane.items()}
    found = Lanes(
        source, pythons, {name: tuple(one.pins) for name, one in data.factor.items()}, named, tuple(data.compat)
    )
    for several in (set(named) & set(pythons), set(data.factor) & set(pythons)):
        if several:
            raise UsageError(f"{source}: {min(several)!r} is the name of two things. Rename one.")
    for name in data.compat:
        found.lane(name)
    return found


# --- interpreters


@functools.cache
def pythons() -> Mapping[str, str]:
    """The Pythons on this machine that can make an environment, by version: ours, those on PATH, pyenv's."""
    found: dict[str, str] = {}
    for path in _candidates():
        try:
            done = subprocess.run(
                [path, "-c", "import ensurepip, platform, venv; print(platform.python_version())"],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False, cwd="/",
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            continue
        if done.returncode == 0 and re.fullmatch(r"3\.\d+\.\d+", done.stdout.strip()):
            found.setdefault(done.stdout.strip(), path)
    return found


def _candidates() -> Iterator[str]:
    yield getattr(sys, "_base_executable", None) or sys.executable
    for folder in os.get_exec_path():
        # pyenv's shims are there for versions that are not on; those below its root are looked at by themselves.
        if Path(folder).name != "shims":
            with contextlib.suppress(OSError):
                yield from sorted(str(path) for path in Path(folder).glob("python3*") if _is_python(path))
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(str(path) for path in (root / "versions").glob("3.*/bin/python"))


def _is_python(path: Path) -> bool:
    return re.fullmatch(r"python3(\.\d+)?", path.name) is not None and os.access(path, os.X_OK)


def interpreter(wanted: str, found: Mapping[str, str] | None = None) -> str:
    """The newest Python of a version that is here; LaneError where there is none."""
    here = pythons() if found is None else found
    fitting = [one for one in here if wanted in (NEWEST, one) or one.startswith(f"{wanted}.")]
    if not fitting:
        raise LaneError(
            f"no Python {wanted} that has venv and ensurepip is on PATH or under pyenv; there are: "
            f"{', '.join(sorted(here, key=Version)) or 'none'}"
        )
    return here[max(fitting, key=Version)]


# --- environments


def default_folder() -> Path:
    """Where environments are kept unless told otherwise: in XDG_CACHE_HOME, or else beside the run folders."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return Path(cache) / "forkproof" / "lanes" if cache else Path(".forkproof") / "lanes"


@dataclass(frozen=True)
class Shelf:
    """The folder where environments are kept, one a lane."""

    folder: Path

    def python(self, lane: Lane) -> Path | None:
        """The interpreter of a lane that was built; None where it was not, or for other pins."""
        mark = self._folder(lane) / _MARK
        python = self._folder(lane) / "bin" / "python"
        try:
            built = json.loads(files.read(mark))
        except (OSError, ValueError, RecursionError):
            return None
        return python if isinstance(built, dict) and built.get("digest") == lane.digest and python.exists() else None

    def build(self, lane: Lane, *, anew: bool = False) -> Path:
        """The interpreter of a lane, which is built if it is not there; LaneError where it cannot be had."""
        folder = self._folder(lane)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(f"{folder}: cannot be made: {error.strerror}. Give another --lanes-dir.") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)  # somebody else may be building it
            built = None if anew else self.python(lane)
            return built or self._built(lane, folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            os.close(lock)

    def remove(self, lane: Lane) -> bool:
        """Remove the environment of a lane; whether there was one."""
        there = self._folder(lane).exists()
        shutil.rmtree(self._folder(lane), ignore_errors=True)
        return there

    def _folder(self, lane: Lane) -> Path:
        return self.folder.absolute() / lane.name

    def _built(self, lane: Lane, folder: Path) -> Path:
        packages = lane.pins or lane.loose
        own = [] if packages else ["--without-pip"]
        _call([interpreter(lane.python), "-m", "venv", "--clear", *own, str(folder)])
        python = folder / "bin" / "python"
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--no-input"]
        how = ["--no-deps", "--prefer-binary"] if lane.pins else ["--pre"]
        if packages:
            _call([*pip, "install", "--quiet", f"--only-binary={BINARY}", *how, *packages])
            _call([*pip, "check"])
        freeze = _call([*pip, "freeze", "--all"]).split() if packages else []
        mark = {"schema": 1, "lane": lane.name, "digest": lane.digest, "packages": freeze}
        (folder / _MARK).write_text(json.dumps(mark, indent=1) + "\n", encoding="utf-8")
        return python


def _call(command: Sequence[str]) -> str:
    """What a program prints; LaneError with the last thing that it said where it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        # Its temporary files are in a folder of ours, since pip leaves them where it is killed, as by Ctrl-C.
        with tempfile.TemporaryDirectory(prefix="forkproof-", ignore_cleanup_errors=True) as scratch:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
                env={**environment, "PYTHONNOUSERSITE": "1", "TMPDIR": scratch},
            )  # fmt: skip
    except OSError as error:
        raise LaneError(f"{command[0]}: cannot be run: {error.strerror}") from None
    if done.returncode:
        raise LaneError(
            _last_error(done.stdout, done.stderr) or f"{' '.join(command[:4])} exits with {done.returncode}"
        )
    return done.stdout


def _last_error(out: str, err: str) -> str:
    """The line that tells most: pip's last error, else the last line.

    >>> _last_error("", "ERROR: no wheel\\n[notice] a new pip")
    'no wheel'
    """
    lines = [line.strip() for line in (out + "\n" + err).splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or [""])[-1][:300]


def resolve(text: str | None, lanes: Lanes, shelf: Shelf, say: Callable[[str], None]) -> str | None:
    """What `--target` names as the path of a Python: that of a lane, built if need be, which takes time and is said."""
    lane = meant(text, lanes)
    if lane is None:
        return text
    if shelf.python(lane) is None:
        say(f"building lane {lane.name} in {shelf.folder}")
    try:
        return str(shelf.build(lane))
    except LaneError as error:
        raise LaneError(f"lane {lane.name} cannot be had: {error}. Choose another --target.") from None


def meant(text: str | None, lanes: Lanes) -> Lane | None:
    """The lane that `--target` names, if it names one; a path that looks like a lane's name is told by a slash."""
    if text is None or "/" in text or not lanes.knows(text):
        return None
    return lanes.lane(text)
