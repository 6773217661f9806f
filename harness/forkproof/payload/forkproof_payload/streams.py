"""Log streams as a log file has them, whose pace is the scenario's.

A record passes through an `io.BufferedWriter`, which holds a lock of its own while it writes. Python renews that of
sys.stderr in a forked child (since 3.7), and no other's: an error log that is a file, `/dev/stdout` included, keeps
what the parent's threads held.
"""

import io
import os
import time

STDERR = 2
SLOW = 0.1
"""Seconds that a record takes."""

_native_sleep = time.sleep


class _Raw(io.RawIOBase):
    def __init__(self, pace, between):
        self._pace = pace
        self._between = between

    def writable(self):
        return True

    def write(self, data):
        data = bytes(data)
        if self._pace == "slow":
            _native_sleep(SLOW)
        elif self._pace == "yielding":
            time.sleep(0)  # cooperative, where time is patched
        if self._between is not None:
            self._between()
        return os.write(STDERR, data)


def log_file(pace="fast", between=None):
    """A stream onto the server's output; `between` is called in the middle of each write."""
    return io.TextIOWrapper(io.BufferedWriter(_Raw(pace, between)), encoding="utf-8", errors="backslashreplace")
