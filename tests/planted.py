"""The planted bugs of `forkproof.planted`, and those that no deployment has."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from forkproof.planted import GENTLE, HOG, PLANTED, VICTIM
from forkproof.session import Session, open_session

__all__ = ["GENTLE", "HOG", "IN_GUNICORN", "PLANTED", "VICTIM", "session_with_the_bug"]

IN_GUNICORN = {
    # What gunicorn did until 26.1.0: the exit of any child was taken for that of a worker which could not boot.
    "foreign_child_ignored": (
        "arbiter.py",
        r"( +)if worker is None:\n",
        r"\1if worker is None and os.WIFEXITED(status) and os.WEXITSTATUS(status) == self.WORKER_BOOT_ERROR:\n"
        r"\1    raise HaltServer('Worker failed to boot.', self.WORKER_BOOT_ERROR)\n\g<0>",
    ),
}
"""Bugs that no deployment has: in which file of gunicorn, and what they make of its text."""


@contextlib.contextmanager
def session_with_the_bug(session: Session, claim: str) -> Iterator[Session]:
    """A session whose gunicorn has the bug that is planted for a claim; the session itself where none is needed."""
    if claim not in IN_GUNICORN:
        yield session
        return
    with tempfile.TemporaryDirectory(prefix="fp-") as folder:
        python = _doctored(session.target.executable, Path(folder), *IN_GUNICORN[claim])
        with open_session(target_name=str(python), out=Path(folder)) as other:
            yield other


def _doctored(python: str, folder: Path, name: str, pattern: str, bug: str) -> Path:
    """The same Python with the same packages, and a gunicorn that is changed."""
    code = (
        "import gunicorn, sys, sysconfig as s; print(gunicorn.__path__[0], s.get_path('purelib'), sys.version_info[1])"
    )
    asked = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    gunicorn, packages, minor = asked.stdout.split()
    subprocess.run([python, "-m", "venv", "--without-pip", "--symlinks", str(folder / "venv")], check=True)
    own = folder / "venv" / "lib" / f"python3.{minor}" / "site-packages"
    shutil.copytree(gunicorn, own / "gunicorn", ignore=shutil.ignore_patterns("__pycache__"))
    (own / "rest.pth").write_text(f"{packages}\n", encoding="utf-8")
    text = (own / "gunicorn" / name).read_text(encoding="utf-8")
    changed, times = re.subn(pattern, bug, text, count=1)
    assert times == 1, f"gunicorn's {name} is not what it was: {pattern}"
    (own / "gunicorn" / name).write_text(changed, encoding="utf-8")
    return folder / "venv" / "bin" / "python"
