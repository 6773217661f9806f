"""The commands of docs/tutorial.md, run in order; their outputs are those that the page shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = Path(__file__).parent.parent / "docs" / "tutorial.md"
BLOCK = re.compile(r"(?:`([\w.]+)`:\n\n)?```(\w+)\n(.*?)```", re.DOTALL)


def steps() -> Iterator[tuple[str, str]]:
    """A file's name and text, or a command and what it prints."""
    for name, kind, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if name:
            yield name, text
        elif kind == "console":
            command, _, output = text.removeprefix("$ ").partition("\n")
            yield command, output


def shown(output: str) -> re.Pattern[str]:
    """What an output has to look like: words, wherever the lines break; `...` stands for anything."""
    parts = [r"\s+".join(map(re.escape, part.split())) for part in output.split("...")]
    return re.compile(r"\s*" + r".*?".join(rf"\s*{part}\s*" for part in parts) + r"\s*", re.DOTALL)


def test_an_output_is_compared_word_by_word() -> None:
    assert shown("a  b\n...\nd\n").fullmatch("a b\nc c\nd")
    assert not shown("a b\n...\nd\n").fullmatch("a c\nd")
    assert not shown("a b\n").fullmatch("a b c")


def test_the_page_has_its_steps() -> None:
    names = [name.partition(" ")[0] for name, _ in steps()]
    assert names == ["app.py", "gunicorn.conf.py", "forkproof", "forkproof", "app.py", "gunicorn.conf.py", "forkproof"]


@pytest.mark.fork
def test_the_tutorial() -> None:
    scripts = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}", "COLUMNS": "200"}
    with tempfile.TemporaryDirectory(prefix="fp-") as folder:
        for name, text in steps():
            if not name.startswith("forkproof "):
                (Path(folder) / name).write_text(text, encoding="utf-8")
                continue
            words = [sys.executable, "-m", *name.split(), "--target", sys.executable]
            done = subprocess.run(
                words, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
            )
            assert shown(text).fullmatch(done.stdout), f"{name}\n{done.stdout}\n{done.stderr}"
            assert done.returncode == ("BROKEN" in text)
            assert "broken" not in text.splitlines()[-1] or done.returncode == 1
