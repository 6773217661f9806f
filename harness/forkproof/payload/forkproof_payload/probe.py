"""Records what this process does, without changing it.

The probe takes no lock, starts no thread and never switches greenlets: an event is one `os.write` of a whole line
(gevent does not replace it) to a file that is this process's own, a tick is one store into a mapped file. Both are in
the kernel's hands at once, so a kill -9 loses nothing. After a fork the first event or tick in the child opens files of
the child's own.

Does not see: what happens in a child before its first event or tick where Python has no at-fork hooks (3.6); threads
and greenlets that are not ours.
"""

import itertools
import json
import mmap
import os
import time

CELLS = 512
_TICKS_BYTES = CELLS * 8

# By name, once: a later patch must not reach the probe.
_getpid = os.getpid
_monotonic = time.monotonic
_write = os.write


class _Here(object):
    """The files of one process, and how many tick cells it has given out."""

    def __init__(self, folder):
        self.pid = _getpid()
        self.start = _start_time()
        name = "{}-{}".format(self.pid, self.start)
        self.events = _open(os.path.join(folder, "history", name + ".jsonl"), os.O_WRONLY | os.O_APPEND)
        ticks = _open(os.path.join(folder, "ticks", name), os.O_RDWR)
        try:
            # A hole would be filled when it is first written to, and a full disk would end the process there (SIGBUS).
            os.posix_fallocate(ticks, 0, _TICKS_BYTES)
            self.cells = memoryview(mmap.mmap(ticks, _TICKS_BYTES)).cast("Q")
        finally:
            os.close(ticks)
        self.used = 0
        self.numbers = itertools.count()


_folder = os.environ["FORKPROOF_RUN"]
_here = None


def _open(path, flags):
    return os.open(path, flags | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _start_time():
    with open("/proc/self/stat", "rb") as stat:
        return int(stat.read().rpartition(b")")[2].split()[19])


def here():
    """The files of the running process, opened at its first event."""
    global _here
    if _here is None or _here.pid != _getpid():
        _here = _Here(_folder)
        event("process", ppid=os.getppid())
    return _here


def key():
    """`pid-start` of the running process."""
    process = here()
    return "{}-{}".format(process.pid, process.start)


def event(_kind, **fields):
    """Append one event to this process's history."""
    process = here()
    # The number tells of an event that was lost.
    fields.update(
        t=round(_monotonic(), 6), pid=process.pid, start=process.start, event=_kind, n=next(process.numbers)
    )
    # A thread's name or an error may hold what Unicode does not allow; a history does not.
    _write(process.events, (json.dumps(fields, ensure_ascii=False) + "\n").encode("utf-8", "replace"))


def native_thread_id():
    """The kernel's id of the running thread (`threading.get_native_id` came with 3.8 only)."""
    return int(os.readlink("/proc/thread-self").rpartition("/")[2])


class Ticker(object):
    """Counts the turns of one loop, in each process that it runs in."""

    def __init__(self, loop, kind, site, defined_at, birth=None):
        """With the `birth` of a loop that another process has created, count its turns in this one."""
        self.loop = loop
        self.birth = birth
        self._pid = None
        if birth is None:
            self.birth = "".join("{:02x}".format(byte) for byte in bytearray(os.urandom(8)))
            event("loop.created", loop=loop, birth=self.birth, kind=kind, site=site, defined_at=defined_at)

    def tick(self):
        """One turn."""
        if self._pid != _getpid():
            self._begin()
        self._count += 1
        self._cells[self._cell] = self._count

    def _begin(self):
        process = here()
        self._cell = process.used
        process.used += 1
        self._cells = process.cells
        self._count = 0
        self._pid = process.pid
        self.event("loop.begin", cell=self._cell, tid=native_thread_id(), thread=_thread_class())

    def event(self, _kind, **fields):
        """An event of this loop."""
        event(_kind, loop=self.loop, birth=self.birth, **fields)


def _thread_class():
    """The class of what `threading.current_thread()` would answer, which would register a _DummyThread if asked."""
    import sys

    threading = sys.modules.get("threading")
    if threading is None:
        return None
    thread = threading._active.get(threading.get_ident())
    return "_DummyThread" if thread is None else type(thread).__name__
