"""Reading files that a server under test could have put there, or that a user names by mistake.

A pipe would make one wait, a device or a file with holes would fill the memory, a link would lead elsewhere.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path

MOST = 256 << 20
"""Bytes of one file that are read: what the folder of a run may take."""


def read(path: Path, most: int = MOST) -> bytes:
    """The content of a regular file; OSError where it is none, is a link, or is longer than `most` bytes."""
    descriptor = _open(path)
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(descriptor).st_size > most:
            raise OSError(errno.EFBIG, f"is longer than {most} bytes")
        return file.read(most)


def beginning(path: Path, most: int) -> bytes:
    """The first `most` bytes of whatever a user names; OSError where it cannot be read."""
    with path.open("rb") as file:
        return file.read(most)


def end_of(path: Path, most: int, start: int = 0) -> bytes:
    """The last `most` bytes of a regular file, from `start` on; OSError where it is none, or is a link."""
    descriptor = _open(path)
    with os.fdopen(descriptor, "rb") as file:
        file.seek(max(start, os.fstat(descriptor).st_size - most))
        return file.read(most)


def write(path: Path, text: str) -> None:
    """Write a regular file; OSError where it is none, is a link, or cannot be written."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with os.fdopen(os.open(path, flags, 0o666), "w", encoding="utf-8") as file:
        file.write(text)


def put(path: Path, text: str) -> None:
    """Write a file that the user names, whole or not at all; OSError where it cannot be written."""
    if path.is_symlink() or (path.exists() and not path.is_file()):  # as /dev/stdout, or a pipe
        path.write_text(text, encoding="utf-8")
        return
    beside = path.absolute().with_name(f".forkproof-{secrets.token_hex(8)}")
    try:
        with beside.open("x", encoding="utf-8") as file:
            file.write(text)
        if path.exists():
            beside.chmod(stat.S_IMODE(path.stat().st_mode))
        beside.replace(path)
    except PermissionError:  # the folder is another's, and the file may be ours
        path.write_text(text, encoding="utf-8")
    finally:
        beside.unlink(missing_ok=True)


def _open(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except ValueError as error:  # a NUL in its name
        raise OSError(errno.EINVAL, str(error)) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is no regular file")
    return descriptor
