"""What a server is started with, and where its folder may lie. Nothing is launched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from forkproof import launch
from forkproof.errors import RunFolderError, UsageError
from forkproof.scenario import Loop, Patch, PatchSite, Scenario, Surroundings, from_dict

PLAIN = Scenario(loops=(Loop(name="a"),))


def test_the_environment_is_an_allow_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PYTHONPATH", "PYTHONSTARTUP", "GUNICORN_CMD_ARGS", "HTTP_PROXY", "SECRET", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, "of the host")
    environment = launch.environment(tmp_path, PLAIN)
    assert "of the host" not in environment.values()
    own = {"FORKPROOF_RUN", "HOME", "TMPDIR", "PYTHONPATH", "PYTHONNOUSERSITE", "PYTHONDONTWRITEBYTECODE"}
    assert own <= environment.keys() <= own | set(launch.ENVIRONMENT)
    assert environment["PYTHONPATH"] == str(launch.PAYLOAD)
    inside = {path.name for path in launch.PAYLOAD.iterdir()} - {"__pycache__"}
    assert inside == {"forkproof_payload", "serve.py", "begin.py"}
    assert environment["HOME"].startswith(str(tmp_path))
    assert environment["TMPDIR"].startswith(str(tmp_path))


def test_a_patch_at_interpreter_start_is_gevents_own_command() -> None:
    patch = Patch(site=PatchSite.INTERPRETER_START, flags={"thread": False, "os": True})
    words = launch.command(PLAIN.model_copy(update={"patches": (patch,)}), "python", Path("run"))
    assert words[:4] == ["python", "-m", "gevent.monkey", "--no-thread"]
    assert launch.command(PLAIN, "python", Path("run"))[1].endswith("serve.py")


def test_foreign_children_are_there_before_gunicorn(tmp_path: Path) -> None:
    what = from_dict({"loops": [{"name": "a"}], "faults": [{"fault": "foreign_child_exit"}, {"fault": "term"}]})
    assert launch.foreign(what) == ["foreign-0"]
    more = what.model_copy(update={"surroundings": Surroundings(foreign_children=2)})
    assert launch.foreign(more) == ["foreign-0", "foreign-1"]
    os.mkfifo(tmp_path / "foreign-0")
    # A shell may wait for what it has started as long as it is there itself.
    server = [sys.executable, "-c", "import os; print('up', flush=True); print(os.wait()[1] >> 8)"]
    words = [*launch.command(what, "python", tmp_path)[:6], *server]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        (tmp_path / "foreign-0").write_text("3\n")  # opening a pipe waits for whoever reads it
        assert process.communicate()[0] == "3\n"


def test_a_folder_is_for_its_owner_alone_and_holds_the_scenario_first(tmp_path: Path) -> None:
    folder = launch.new_folder(Path("/tmp") if len(str(tmp_path)) > 50 else tmp_path, PLAIN)
    try:
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "scenario.json").read_text() == PLAIN.to_json()
    finally:
        launch.remove_folder(folder)


def test_a_path_that_leaves_no_room_for_sockets(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give a shorter --out"):
        launch.new_folder(tmp_path / ("x" * 60), PLAIN)


def test_a_folder_that_cannot_be_made_costs_no_scenario() -> None:
    with pytest.raises(RunFolderError, match=r"/proc/nowhere.*give another --out(.|\n)*\"name\": \"a\""):
        launch.new_folder(Path("/proc/nowhere"), PLAIN)
