"""The payload, on each Python that is here: it compiles, and importing it leaves everything for gevent to patch."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import forkproof
from forkproof.scenario import Loop, Park, Scenario

PAYLOAD = Path(forkproof.__file__).parent / "payload"

COMPILE = """
import sys
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        compile(file.read(), path, "exec")
print(len(sys.argv) - 1)
"""

IMPORT = """
import sys
before = set(sys.modules)
from forkproof_payload import deployment, loops, probe
print("\\n".join(sorted(set(sys.modules) - before)))
"""

PATCHED = {
    "asyncio", "concurrent", "contextvars", "logging", "multiprocessing", "queue", "_queue", "select", "selectors",
    "signal", "socket", "_socket", "ssl", "_ssl", "subprocess", "threading", "_threading_local",
}  # fmt: skip
"""What gevent patches, or what holds locks and sockets from the moment of its import."""


def run(python: str, code: str, *arguments: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [python, "-W", "error", "-c", code, *arguments],
        capture_output=True, text=True, check=False, timeout=60,
        env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_payload_compiles(python: str) -> None:
    files = sorted(map(str, PAYLOAD.rglob("*.py")))
    assert len(files) >= 7
    assert run(python, COMPILE, *files) == [str(len(files))]


def test_importing_the_payload_imports_nothing_that_gevent_patches(each_python: str, tmp_path: Path) -> None:
    (tmp_path / "scenario.json").write_text(Scenario(loops=(Loop(name="a"),), parks=(Park(who="a"),)).to_json())
    (tmp_path / "launch.json").write_text(json.dumps({"token": "t", "redis": {}}))
    imported = run(each_python, IMPORT, PYTHONPATH=str(PAYLOAD), FORKPROOF_RUN=str(tmp_path))
    assert "forkproof_payload.probe" in imported
    assert not PATCHED & {name.split(".")[0] for name in imported}
    assert not [name for name in imported if name.startswith(("gevent", "flask", "redis", "gunicorn"))]
