"""What is installed is what is tested: the wheel, in an environment of its own, without a checkout beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import pytest
from test_cli import tmp_path

import forkproof

__all__ = ["tmp_path"]
ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.fork

TEST = """
def test_loops(forkproof):
    forkproof.check("app:app", faults=["term"]).assert_held()
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of an environment that has the wheel, and of ours all but forkproof."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "-q", "--no-deps", "-w", folder, ROOT], check=True, timeout=300)
    [wheel] = folder.glob("forkproof-*.whl")
    venv.create(folder / "v", with_pip=False, symlinks=True)
    [packages] = (folder / "v").glob("lib/python*/site-packages")
    seen = [path for path in sys.path if Path(path).name == "site-packages"]
    (packages / "outer.pth").write_text("\n".join(seen), encoding="utf-8")
    python = folder / "v" / "bin" / "python"
    subprocess.run(
        [*pip, "--python", python, "install", "-q", "--no-deps", "--no-index", "--ignore-installed", wheel], check=True
    )
    return python.parent


def done(command: Sequence[object], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [str(word) for word in command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_it_works_outside_of_a_checkout(installed: Path, tmp_path: Path) -> None:
    where = done([installed / "python", "-c", "import forkproof; print(forkproof.__file__)"], tmp_path).stdout
    assert Path(where.strip()).is_relative_to(installed.parent)
    assert done([installed / "forkproof", "--version"], tmp_path).stdout == f"forkproof {forkproof.__version__}\n"
    assert "## How it is observed" in done([installed / "forkproof", "claims", "server_answers"], tmp_path).stdout
    app = (ROOT / "examples" / "apps" / "executor" / "app.py").read_text(encoding="utf-8")
    (tmp_path / "app.py").write_text(app, encoding="utf-8")
    (tmp_path / "test_app.py").write_text(TEST, encoding="utf-8")
    words = ["check", "app:app", "--quick", "--target", sys.executable, "--json", "-", "--out", tmp_path / "o"]
    checked = done([installed / "forkproof", *words], tmp_path)
    assert checked.returncode == 0, checked.stderr
    assert json.loads(checked.stdout)["verdict"] == "held"
    tested = done([installed / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_app.py"], tmp_path)
    assert "1 passed" in tested.stdout, tested.stdout + tested.stderr
