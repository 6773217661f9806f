"""What the payload tells of patches, asked of fresh interpreters."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import forkproof

PAYLOAD = Path(forkproof.__file__).parent / "payload"

needs_gevent = pytest.mark.skipif(importlib.util.find_spec("gevent") is None, reason="gevent is not installed")

ASK = """
import sys
from forkproof_payload import originals
before = set(sys.modules)
told = [originals.states(), originals.stale_names(), originals.keywords(), originals.native_parts(object())]
told += [originals.in_greenlet(), sorted(set(sys.modules) - before)]
"""

PATCHED = """
import queue, socket, sys, threading, types
def things():
    queues = {"queue": queue.Queue(), "simple": queue.SimpleQueue()}
    return types.SimpleNamespace(lock=threading.Lock(), again=threading.RLock(), pool=[socket.socket()], **queues)
early = things()
sys.modules["user"] = types.ModuleType("user")
sys.modules["user"].__file__ = "/app/user.py"
sys.modules["user"].Sleep = __import__("time").sleep
from gevent import monkey
monkey.patch_all(signal=False)
import gevent
from forkproof_payload import originals
late = things()
loop = types.SimpleNamespace(me=early)
loop.itself = [loop]
told = [originals.states(), originals.keywords(), originals.native_parts(early), originals.native_parts(late)]
told += [originals.native_parts(loop) != [], originals.in_greenlet(), gevent.spawn(originals.in_greenlet).get()]
told += [[name for name in originals.stale_names() if name[0].startswith("user.")]]
"""


def told(code: str) -> Any:
    """What a program leaves in `told`."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code) + "\nimport json; print(json.dumps(told))"],
        env={"PYTHONPATH": str(PAYLOAD), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_without_gevent_everything_is_original_and_nothing_is_imported() -> None:
    states, stale, keywords, parts, in_greenlet, imported = told(ASK)
    assert set(states.values()) == {"original"}
    assert states["time.sleep"] == "original"
    assert [stale, keywords, parts, in_greenlet, imported] == [[], [], [], False, []]


@needs_gevent
def test_what_a_patch_replaced_and_what_escaped_it() -> None:
    states, keywords, early, late, through_a_circle, main, spawned, stale = told(PATCHED)
    assert states["threading.Lock"] == states["time.sleep"] == states["queue.Queue"] == "patched"
    assert (states["signal.signal"], states["select.epoll"]) == ("original", "removed")
    assert {"socket", "thread", "queue"} <= set(keywords)
    assert early == [
        [".again", "lock"], [".lock", "lock"], [".pool[]", "socket"], [".queue", "queue"], [".simple", "queue"],
    ]  # fmt: skip
    assert late == []
    assert (through_a_circle, main, spawned) == (True, False, True)
    assert stale == [["user.Sleep", "time.sleep"]]
