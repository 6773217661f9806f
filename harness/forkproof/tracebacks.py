"""What a printed traceback comes to: the last error in a text, with the user's own line that raised it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

_ERROR = re.compile(
    r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt|NotFound|Configured)\b.*|^Error: .*"
)
AT = re.compile(r'  File "(.*)", line (\d+)(?:, in |$)')


def last_error(lines: Sequence[str], is_own: Callable[[Path], bool], folder: Path) -> str:
    """The last exception that is printed, with its place in files that are the user's own; empty where there is none.

    >>> said = ['  File "/srv/app.py", line 3, in <module>', "ValueError: 7"]
    >>> last_error(said, lambda path: True, Path("/srv"))
    'ValueError: 7 (app.py:3)'
    """
    found = [number for number, line in enumerate(lines) if _ERROR.match(line)]
    if not found:
        return ""
    places = [match for line in lines[: found[-1]] if (match := AT.match(line)) and is_own(Path(match[1]))]
    return lines[found[-1]] + (f" ({short(Path(places[-1][1]), folder)}:{places[-1][2]})" if places else "")


def is_in(path: Path, folder: Path) -> bool:
    """Whether a file is in a folder, and no package that is installed there."""
    return path.is_relative_to(folder.absolute()) and "site-packages" not in path.parts


def short(path: Path, folder: Path) -> str:
    """A path as it is seen from a folder that it is in."""
    absolute = path.absolute()
    return str(absolute.relative_to(folder.absolute()) if absolute.is_relative_to(folder.absolute()) else path)
