"""Lanes: the file itself, what a name means, which Python it takes, and environments, built, kept and removed."""

from __future__ import annotations

import configparser
import itertools
import json
import os
import platform
import re
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from forkproof import cli, lanes, target
from forkproof.errors import LaneError, UsageError
from forkproof.lanes import Lane, Shelf

ROOT = Path(__file__).parents[1]
KNOWN = lanes.load()
OURS = platform.python_version()
EMPTY = Lane("empty", OURS)


def test_the_lanes_that_people_ask_for_are_listed() -> None:
    assert len(KNOWN.names) >= 20
    assert {"museum", "latest", "py311-gevent259-gunicorn23"} <= set(KNOWN.names)
    museum = " ".join(KNOWN.lane("museum").pins)
    assert KNOWN.lane("museum").python == "3.6"
    for pin in ("gevent==1.2", "gunicorn==19.7", "gevent-websocket==0.10"):
        assert pin in museum


@pytest.mark.parametrize("name", KNOWN.names)
def test_a_listed_lane_has_what_a_run_needs(name: str) -> None:
    lane = KNOWN.lane(name)
    packages = {re.split(r"[\[=]", pin)[0] for pin in (*lane.pins, *lane.loose)}
    assert {"gunicorn", "gevent", "flask", "redis", "gevent-websocket"} <= packages
    assert bool(lane.pins) != bool(lane.loose)


def test_a_later_factor_takes_the_place_of_an_earlier_pin() -> None:
    lane = KNOWN.lane("py311-gevent269-gunicorn27-greenlet32-redis5")
    assert {pin for pin in lane.pins if pin.startswith(("greenlet=", "redis="))} == {"greenlet==3.2.4", "redis==5.3.1"}
    assert lane.digest != KNOWN.lane("py311-gevent269-gunicorn27").digest


def test_tox_has_the_factors_and_the_lanes() -> None:
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini")
    can_run = [name for name in KNOWN.pythons if tuple(map(int, KNOWN.pythons[name][0].split("."))) >= (3, 10)]
    for setting in ("description", "commands"):
        lines = tox["testenv"][setting].split()
        for kind in ("gevent", "gunicorn"):
            known = {name for name in KNOWN.factors if kind in name}
            conditions = [line[:-1] for line in lines if line.startswith(f"{kind}{{")]
            assert all(set(expanded(condition)) == known for condition in conditions)
            assert conditions or (kind, setting) == ("gevent", "commands")
            left_out = [line[:-1] for line in lines if line.startswith(f"!{kind}")]
            assert all({name[1:] for name in condition.split("-")} == known for condition in left_out)
            assert bool(left_out) is (kind == "gunicorn")
    named = {name for name in KNOWN.compat if name.partition("-")[0] in can_run} | set(KNOWN.named)
    _, _, label = tox["tox"]["labels"].partition("compat = ")
    assert {name for entry in label.split(", ") for name in expanded(entry)} == named


def expanded(entry: str) -> Iterator[str]:
    """The names that tox makes of one with braces."""
    parts = [part.split(",") for part in re.split(r"[{}]", entry)]
    yield from map("".join, itertools.product(*parts))


WRONG = {
    "[lane.a]": "lane.a.python: Field required",
    "compat = 1": "compat: Input should be a valid list",
    "x": "is no TOML",
    '[lane.a]\npython = "2.7"': "lane.a.python: String should match pattern",
    '[lane.a]\npython = "3.11"\npins = ["flask"]': "'flask' is not pinned exactly, as gunicorn==23.0.0 is",
    '[lane.a]\npython = "3.11"\npins = ["flask==3.*"]': "'flask==3.*' is not pinned exactly",
    '[lane.a]\npython = "3.11"\npins = ["no such"]': "'no such' is no requirement",
    '[lane.a]\npython = "3.11"\npins = ["a-b==1", "A_b==2"]': "a-b is pinned twice",
    '[python.py3]\nversion = "3.11"\nlike = "py4"': "python.py3.like: 'py4' is no Python with pins of its own",
    'compat = ["py9-x"]': "py9-x: is no lane of lanes.toml: 'py9' is neither a Python nor a name there",
    '[python.py3]\nversion = "3.11"\n[factor.py3]': "'py3' is the name of two things",
    "[lane.a]\npython = '3.11'\nmore = 1": "lane.a.more: Extra inputs are not permitted",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_with_a_file_is_told(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        lanes.parse(text.encode(), source="lanes.toml")
    assert WRONG[text] in str(caught.value)
    assert "lanes.toml" in str(caught.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot be read: No such file or directory\. Give --lanes another file"):
        lanes.load(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (None, None),
        ("museum", "museum"),
        ("./museum", None),
        ("py311-gunicorn23", "py311-gunicorn23"),
        ("venv", None),
        ("/usr/bin/python3", None),
    ],
)
def test_what_a_target_names(text: str | None, named: str | None) -> None:
    lane = lanes.meant(text, KNOWN)
    assert (lane.name if lane else None) == named


def test_a_factor_that_is_none_is_told() -> None:
    with pytest.raises(UsageError, match=r"py311-gevent99: is no lane of .*: there is no factor 'gevent99'; there are"):
        lanes.meant("py311-gevent99", KNOWN)


def test_the_newest_python_of_a_version_is_taken() -> None:
    here = {"3.9.18": "a", "3.10.2": "b", "3.10.13": "c", "3.12.1": "d"}
    assert [lanes.interpreter(wanted, here) for wanted in ("3.10", "3.10.2", "3.9", "newest")] == ["c", "b", "a", "d"]
    with pytest.raises(
        LaneError, match=r"no Python 3\.1 that has .*; there are: 3\.9\.18, 3\.10\.2, 3\.10\.13, 3\.12\.1"
    ):
        lanes.interpreter("3.1", here)
    with pytest.raises(LaneError, match="there are: none"):
        lanes.interpreter("newest", {})


@pytest.fixture
def no_other_pythons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No Python but ours is looked at, of which a machine may have many; more are found in `tmp_path`."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    lanes.pythons.cache_clear()
    yield
    lanes.pythons.cache_clear()


@pytest.mark.usefixtures("no_other_pythons")
def test_ours_is_among_the_pythons() -> None:
    assert OURS in lanes.pythons()


@pytest.mark.usefixtures("no_other_pythons")
def test_pyenvs_are_found_and_what_is_no_python_is_not(tmp_path: Path) -> None:
    for version, text in (("3.77.1", "echo 3.77.1"), ("3.78.1", "exit 1"), ("3.79.1", "echo words")):
        path = tmp_path / "versions" / version / "bin" / "python"
        path.parent.mkdir(parents=True)
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
    assert set(lanes.pythons()) == {OURS, "3.77.1"}


def test_where_environments_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert lanes.default_folder() == Path(".forkproof/lanes")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert lanes.default_folder() == Path("/somewhere/forkproof/lanes")


@pytest.mark.usefixtures("no_other_pythons")
def test_a_lane_is_built_once_kept_and_removed(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    said: list[str] = []
    known = replace(KNOWN, named={"empty": EMPTY})
    python = lanes.resolve("empty", known, shelf, said.append)
    assert python is not None
    assert said == [f"building lane empty in {tmp_path}"]
    assert target.find(python).python == OURS
    assert Path(python).is_relative_to(tmp_path)

    made = Path(python).lstat().st_mtime_ns
    assert lanes.resolve("empty", known, shelf, said.append) == python
    assert (len(said), Path(python).lstat().st_mtime_ns) == (1, made)

    assert shelf.python(replace(EMPTY, pins=("flask==3.1.3",))) is None, "it has other pins now"
    assert shelf.remove(EMPTY)
    assert not shelf.remove(EMPTY)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mark", ["", "[]", '{"digest": 1}', "{"])
def test_an_environment_that_was_not_finished_counts_as_none(tmp_path: Path, mark: str) -> None:
    folder = tmp_path / "empty"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text("")
    (folder / "forkproof-lane.json").write_text(mark)
    assert Shelf(tmp_path).python(EMPTY) is None
    (folder / "forkproof-lane.json").write_text(json.dumps({"digest": EMPTY.digest}))
    assert Shelf(tmp_path).python(EMPTY) is not None


@pytest.mark.fork  # it starts pip, which takes seconds
def test_what_cannot_be_installed_is_told_in_pips_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    wanted = Lane("wanting", OURS, ("no-such-package==1.0",))
    with pytest.raises(LaneError, match=r"No matching distribution found for no-such-package==1\.0"):
        Shelf(tmp_path).build(wanted)
    assert not list(tmp_path.iterdir()), "what could not be built is not left"


@pytest.mark.fork
def test_what_needs_something_that_is_not_pinned_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = "needy-1.0.dist-info"
    with zipfile.ZipFile(tmp_path / "needy-1.0-py3-none-any.whl", "w") as file:
        about = "Metadata-Version: 2.1\nName: needy\nVersion: 1.0\nRequires-Dist: no-such-package\n"
        file.writestr(f"{info}/METADATA", about)
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: us\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", f"{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(LaneError, match=r"needy 1\.0 requires no-such-package, which is not installed"):
        Shelf(tmp_path / "lanes").build(Lane("needy", OURS, ("needy==1.0",)))


@pytest.mark.usefixtures("no_other_pythons")
def test_a_program_that_is_called_leaves_no_temporary_files() -> None:
    made = lanes._call([sys.executable, "-c", "import tempfile; print(tempfile.mkdtemp())"]).strip()
    assert not Path(made).exists()


def test_the_command_lists_builds_and_removes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "lanes.toml"
    file.write_text(f'[lane.empty]\npython = "{OURS}"\n[lane.none]\npython = "3.99"\n')

    def call(*words: str) -> tuple[int, str]:
        options = ["--lanes", str(file), "--lanes-dir", str(tmp_path / "kept")]
        with pytest.raises(SystemExit) as left:
            cli.main(["lanes", *words, *options])
        told = capsys.readouterr()
        building = [f"building lane {name} in {tmp_path / 'kept'}" for name in ("empty", "none") if name in told.out]
        assert told.err.splitlines() == (building if words[:1] == ("build",) else [])
        return int(left.value.code or 0), told.out

    python = tmp_path / "kept" / "empty" / "bin" / "python"
    code, told = call()
    assert (code, "empty  not built: /" in told, "none   skipped: no Python 3.99 that has" in told) == (0, True, True)
    assert call("build", "none")[0] == 3
    code, told = call("build")
    assert (code, f"empty  built: {python}" in told, "none   skipped: no Python 3.99" in told) == (0, True, True)
    with pytest.raises(SystemExit):
        cli.main(["lanes", "build", "empty", "--lanes", str(file), "--lanes-dir", str(tmp_path / "kept")])
    assert not capsys.readouterr().err, "it is there"
    assert call("list", "empty", "--json", str(tmp_path / "x.json"))[0] == 0
    assert json.loads((tmp_path / "x.json").read_text())["lanes"][0]["state"] == "built"
    assert call("remove")[1].split() == ["empty", "removed", "none", "not", "there"]
    assert not python.exists()
