"""Targets: what an interpreter is, what it lacks, and what is said of things that are none."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from forkproof import target
from forkproof.errors import MissingPackage, TargetError
from forkproof.scenario import Scenario, WorkerClass, from_dict
from forkproof.target import Target

NEXT = "Give --target the path of a Python"
PLAIN = from_dict({"loops": [{"name": "a"}]})


def script(folder: Path, text: str, mode: int = 0o755) -> Path:
    path = folder / "python"
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def printing(text: str) -> Callable[[Path], Path]:
    return lambda folder: script(folder, f"#!/bin/sh\nprintf '{text}'\n")


NONE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda folder: folder / "python", "there is no such file"),
    "folder": (lambda folder: folder, "is a folder without bin/python"),
    "not executable": (lambda folder: script(folder, "#!/bin/sh\n", 0o644), "Permission denied"),
    "no program": (lambda folder: script(folder, "words"), "Exec format error"),
    "no interpreter": (lambda folder: script(folder, "#!/nowhere/sh\n"), "No such file or directory"),
    "shell script": (printing("hello"), "is no Python that forkproof can test: hello"),
    "not text": (printing(r"\377\376"), "is no Python that forkproof can test"),
    "/bin/true": (lambda folder: Path("/bin/true"), "is no Python that forkproof can test: it printed nothing"),
    "JSON, but not ours": (printing('{"python": 3}'), "is no Python that forkproof can test"),
    "half of our JSON": (printing('{"python": [3, 11]}'), "is no Python that forkproof can test"),
    "too old": (
        printing('{"python": [2, 7, 18], "versions": {}, "patch_flags": []}'), "is Python 2.7.18; 3.6 is the oldest"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NONE)
def test_what_is_no_target(tmp_path: Path, name: str) -> None:
    make, cause = NONE[name]
    path = make(tmp_path)
    with pytest.raises(TargetError) as caught:
        target.find(str(path))
    told = str(caught.value)
    assert told.startswith(f"{path}: ")
    assert cause in told
    assert NEXT in told
    assert "\n" not in told


def test_a_python_2_is_too_old() -> None:
    found = sorted((Path.home() / ".pyenv" / "versions").glob("2.*"))
    if not found:
        pytest.skip("no Python 2 under pyenv")
    with pytest.raises(TargetError, match=r"is Python 2\.7\.\d+; 3\.6 is the oldest"):
        target.find(str(found[0]))


def test_a_keyword_of_patch_all_that_no_scenario_can_have_is_left_out() -> None:
    answer = '{"python": [3, 6, 15], "versions": {"gevent": "1.2.2"}, "patch_flags": ["socket", "httplib"]}'
    assert target.understand("python", answer).patch_flags == ("socket",)


def test_this_python_is_one() -> None:
    found = target.find(None)
    assert found.executable == sys.executable
    assert found.python == ".".join(map(str, sys.version_info[:3]))
    assert found.to_dict()["python"] == found.python
    assert target.describe(found.to_dict()).startswith(f"Python {found.python}")


def test_each_python_here_is_one(each_python: str) -> None:
    found = target.find(each_python)
    assert re.fullmatch(r"3\.\d+\.\d+", found.python)
    assert ("gevent" in found.versions) == bool(found.patch_flags)


def site(python: str, folder: Path) -> tuple[Path, Path]:
    """A virtual environment without pip, and its site-packages."""
    subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    return folder, next(folder.glob("lib/python3.*/site-packages"))


def install(packages: Path, name: str, version: str, code: str = "") -> None:
    """What an installed distribution looks like."""
    (packages / f"{name}-{version}.dist-info").mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (packages / f"{name}-{version}.dist-info" / "METADATA").write_text(metadata, encoding="utf-8")
    (packages / name).mkdir()
    (packages / name / "__init__.py").write_text(code, encoding="utf-8")


@pytest.mark.fork  # makes an environment
def test_what_a_virtual_environment_has_and_lacks(tmp_path: Path, python: str) -> None:
    folder, packages = site(python, tmp_path / "venv")
    bare = target.find(str(folder))
    assert bare.executable == str(folder / "bin" / "python")
    assert not bare.versions
    with pytest.raises(MissingPackage) as caught:
        bare.require(PLAIN)
    assert str(caught.value) == (
        f"{bare.executable}: has no gunicorn, which every scenario needs. "
        f"Install it there ({bare.executable} -m pip install gunicorn) or choose another --target."
    )
    install(packages, "gunicorn", "20.1.0")
    install(packages, "gevent_websocket", "0.10.1")
    install(packages, "gevent", "1.5.0", "raise ImportError('libev is broken')")
    target.inspect.cache_clear()
    found = target.find(str(folder))
    assert found.versions == {"gunicorn": "20.1.0", "gevent": "1.5.0", "gevent-websocket": "0.10.1"}
    assert not found.patch_flags
    assert "libev is broken" in found.gevent_error


def known(*names: str, flags: tuple[str, ...] = (), gevent_error: str = "") -> Target:
    return Target("/t/bin/python", "3.11.7", dict.fromkeys(("gunicorn", "flask", *names), "1.0"), flags, gevent_error)


def scenario(server: str = "sync", patches: tuple[dict[str, object], ...] = (), **loop: object) -> Scenario:
    return from_dict({"loops": [{"name": "a", **loop}], "server": {"worker_class": server}, "patches": patches})


def around(**surroundings: object) -> Scenario:
    return from_dict({"loops": [{"name": "a"}], "surroundings": surroundings})


@pytest.mark.parametrize(
    ("what", "missing", "why"),
    [
        (scenario("gevent"), "gevent", "worker_class 'gevent'"),
        (scenario("geventwebsocket"), "gevent", "worker_class 'geventwebsocket'"),
        (scenario("tornado"), "tornado", "worker_class 'tornado'"),
        (scenario(kind="greenlet"), "gevent", "loop 'a'"),
        (scenario(kind="socketio_task"), "flask-socketio", "loop 'a'"),
        (scenario(kind="run_in_thread", body="listen"), "redis", "loop 'a'"),
        (scenario(kind="gevent_threadpool"), "gevent", "loop 'a'"),
        (scenario(kind="native_thread"), "gevent", "loop 'a'"),
        (scenario(yields={"call": "gevent.sleep"}), "gevent", "loop 'a'"),
        (around(early_imports=[{"what": "redis_client"}]), "redis", "surroundings.early_imports: 'redis_client'"),
        (around(hiredis=True), "hiredis", "surroundings.hiredis"),
        (scenario(patches=({"site": "post_fork"},)), "gevent", "patches"),
        (scenario(body="listen"), "redis", "loop 'a'"),
        (scenario(body="get_message"), "redis", "loop 'a'"),
    ],
)
def test_what_a_scenario_needs(what: Scenario, missing: str, why: str) -> None:
    with pytest.raises(MissingPackage, match=f"has no {missing}, which {why} needs"):
        known().require(what)
    known("gevent", "redis", "gevent-websocket", "flask-socketio", "tornado", "hiredis").require(what)
    known().require(PLAIN)


def test_a_gevent_that_cannot_be_imported() -> None:
    broken = known("gevent", gevent_error="ImportError('libev is broken')")
    with pytest.raises(MissingPackage, match="which patches needs, cannot be imported: ImportError"):
        broken.require(scenario(patches=({"site": "post_fork", "flags": {"dns": False}},)))
    broken.require(PLAIN)


def test_a_keyword_that_patch_all_lacks() -> None:
    old = known("gevent", flags=("socket", "dns"))
    old.require(scenario(patches=({"site": "post_fork", "flags": {"dns": False}},)))
    with pytest.raises(TargetError) as caught:
        old.require(scenario(patches=({"site": "post_fork", "flags": {"queue": False}},)))
    assert "patch_all of gevent 1.0 has no keyword 'queue'; it has socket, dns. Leave it out" in str(caught.value)


def test_a_python_without_fork_hooks() -> None:
    old = replace(known(), python="3.6.15")
    with pytest.raises(TargetError, match=r"Python 3\.6\.15 has no os.register_at_fork, which loop 'a' needs"):
        old.require(scenario(start="fork_hook"))
    with pytest.raises(TargetError, match=r"has no os.register_at_fork, which surroundings\.fork_hooks needs"):
        old.require(around(fork_hooks="log"))
    with pytest.raises(TargetError, match=r"has no queue.SimpleQueue, which surroundings\.early_imports needs"):
        old.require(around(early_imports=[{"what": "simple_queue"}]))
    for what in (scenario(start="fork_hook"), around(early_imports=[{"what": "simple_queue"}], fork_hooks="lock")):
        replace(old, python="3.7.0").require(what)
    old.require(around(early_imports=[{"what": "queue"}]))
    old.require(PLAIN)


def test_a_worker_class_that_gunicorn_has_dropped() -> None:
    full = replace(known("gevent", "gevent-websocket", "tornado"), worker_classes=("gevent", "sync"))
    assert full.has_worker_class(WorkerClass.GEVENTWEBSOCKET)  # which has no short name
    assert not full.has_worker_class(WorkerClass.TORNADO)
    with pytest.raises(TargetError, match=r"gunicorn 1\.0 has no worker_class 'tornado'"):
        full.require(scenario("tornado"))
    assert replace(full, worker_classes=None).has_worker_class(WorkerClass.TORNADO)
    assert not known().has_worker_class(WorkerClass.TORNADO)
