"""A process that has imported the supervisor, and forks one for each run.

An interpreter that starts and imports the supervisor takes 0.1 s of CPU, a fifth of what a plain verdict takes; a fork
of one that has done so takes a few ms. The server sees nothing of it: the supervisor starts it as before, as a program
with an environment of its own. Nothing runs here before a fork, neither a thread nor an event loop. Standard library
only, as of the supervisor.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from forkproof import containment, supervisor, watcher

_LONGEST_PATH = 4096
_BEGUN = b"+"
_STOP_EVERY = 0.2
"""Seconds between two looks whether a run is to be stopped."""


def main(control: int, namespace: str) -> None:
    """Fork a supervisor for each folder that is asked for at `control`, until nobody is there to ask."""
    gc.collect()
    gc.freeze()  # else the first collection in each child would copy all pages
    asked = socket.socket(fileno=control)
    waited: dict[int, tuple[int, socket.socket]] = {}
    poll = select.poll()
    poll.register(asked, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor != control:
                poll.unregister(descriptor)
                os.close(descriptor)
                pid, line = waited.pop(descriptor)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with line, contextlib.suppress(OSError):  # nobody may wait for it any more
                    line.sendall(b"%d" % code)
                continue
            folder, descriptors, _, _ = socket.recv_fds(asked, _LONGEST_PATH, 3)
            if not folder:
                return
            line, log, *nest = socket.socket(fileno=descriptors[0]), *descriptors[1:]
            for one in descriptors:
                os.set_inheritable(one, False)
            pid = os.fork()
            if pid == 0:
                asked.close()
                for pidfd, (_, other) in waited.items():
                    os.close(pidfd)
                    other.close()  # else another run's end would not be seen
                _begin(os.fsdecode(folder), line, log, namespace, nest)
            for one in (log, *nest):
                os.close(one)
            with contextlib.suppress(OSError):
                line.sendall(_BEGUN)
            pidfd = os.pidfd_open(pid)
            waited[pidfd] = pid, line
            poll.register(pidfd, select.POLLIN)


def _begin(folder: str, line: socket.socket, log: int, namespace: str, nest: Sequence[int]) -> NoReturn:
    """Become the supervisor of a run, or its parent where it is in a namespace of its own."""
    code = 1
    try:
        null = os.open(os.devnull, os.O_RDONLY)
        for source, descriptor in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, descriptor)
        os.close(null)
        os.close(log)
        os.setsid()
        host = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
        if namespace:
            os.chdir(folder)
            containment.unshare(user=namespace == "user")
            pid = os.fork()
            if pid:
                line.close()
                for one in nest:
                    os.close(one)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                os._exit(status if status >= 0 else 128 - status)
            containment.begin_namespace()
        kind = watcher.Watcher if os.path.exists(os.path.join(folder, watcher.PLAN)) else supervisor.Supervisor
        supervisor.main(folder, line.fileno(), host, kind, nest[0] if nest else None)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(code)


class Nursery:
    """A running nursery, as a context manager; safe to use from several threads. One that was killed is replaced."""

    def __init__(self, folder: Path, namespace: Sequence[str]) -> None:
        """`namespace` is `containment.namespace_prefix()`, or empty for none."""
        self._folder = folder
        self._namespace = "" if not namespace else "user" if "--user" in namespace else "root"
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def __enter__(self) -> Nursery:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def run(
        self, folder: Path, log: int, stop: threading.Event | None = None, nest: socket.socket | None = None
    ) -> int | None:
        """Supervise the run in `folder`, and return how the supervisor ended; None where nobody could tell.

        It writes what it has to say to the descriptor `log`. When `stop` is set, it is told that nobody waits. At
        `nest` it may ask for the server.
        """
        descriptors = [log] if nest is None else [log, nest.fileno()]
        for _ in range(2):
            answer = self._run(folder, descriptors, stop)
            if answer.startswith(_BEGUN):
                code = answer.removeprefix(_BEGUN)
                return int(code) if code else None
            # It was ended before it had heard.
        return None

    def _run(self, folder: Path, descriptors: Sequence[int], stop: threading.Event | None) -> bytes:
        answer = b""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self._ask(folder, (theirs.fileno(), *descriptors))
            told = select.poll()
            told.register(ours, select.POLLIN)
            try:
                while answer in (b"", _BEGUN) and not (stop is not None and stop.is_set()):
                    if told.poll(None if stop is None else _STOP_EVERY * 1000):
                        part = ours.recv(16)
                        if not part:
                            break
                        answer += part
            finally:
                with contextlib.suppress(OSError):
                    ours.shutdown(socket.SHUT_WR)
                while answer in (b"", _BEGUN) and (part := ours.recv(16)):  # which comes when the supervisor has ended
                    answer += part
        return answer

    def _ask(self, folder: Path, descriptors: Sequence[int]) -> None:
        with self._lock:
            for last in (False, True):
                assert self._control is not None
                try:
                    socket.send_fds(self._control, [os.fsencode(folder)], list(descriptors))
                    return
                except ConnectionError:
                    if last:
                        raise
                    self._end()
                    self._start()

    def _start(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent.parent)!r})\n"
        code += f"from forkproof.nursery import main; main({theirs.fileno()}, {self._namespace!r})"
        with theirs, (self._folder / "nursery.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", code, str(self._folder)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )  # fmt: skip

    def _end(self) -> None:
        assert self._control is not None
        assert self._process is not None
        self._control.close()
        self._process.send_signal(signal.SIGKILL)  # it has nothing to put away
        self._process.wait()

    def said(self) -> str:
        """What it has printed."""
        return (self._folder / "nursery.log").read_text(errors="replace").strip()
