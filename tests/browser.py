"""A page in a headless Chromium, over the pipe of its DevTools protocol: what it logs, asks for, shows and answers."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BINARY = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
SECONDS = 120.0
"""How long an answer may take on a busy machine."""


class Browser:
    """One page. `said` are console messages and exceptions, `asked` the addresses that it wanted."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back = to, back
        self._numbers = itertools.count(1)
        self._rest = b""
        self._session: str | None = None
        self.said: list[str] = []
        self.asked: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask for something, and wait for the answer."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer)
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self) -> dict[str, Any]:
        until = time.monotonic() + SECONDS
        while b"\0" not in self._rest:
            assert time.monotonic() < until, "Chromium gives no answer"
            data = os.read(self._back, 1 << 16)
            assert data, "Chromium has ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        parameters = message.get("params", {})
        match message.get("method"):
            case "Runtime.consoleAPICalled":
                self.said.append(str([one.get("value") for one in parameters["args"]]))
            case "Runtime.exceptionThrown":
                self.said.append(json.dumps(parameters["exceptionDetails"]))
            case "Log.entryAdded":
                self.said.append(parameters["entry"]["text"])
            case "Network.requestWillBeSent":
                self.asked.append(parameters["request"]["url"])
        return message

    def open(self, path: Path) -> float:
        """Open a file; seconds until its script has drawn it."""
        return self.open_at(path.as_uri())

    def open_at(self, address: str) -> float:
        """Open what is at an address; seconds until its script has drawn it."""
        begun = time.monotonic()
        self.call("Page.navigate", url=address)
        while self.js("document.readyState !== 'complete' || (document.querySelector('#plot') !== null"
                      " && document.documentElement.dataset.drawn !== 'true')"):  # fmt: skip
            assert time.monotonic() < begun + SECONDS, self.said
        return time.monotonic() - begun

    def js(self, expression: str) -> Any:
        """What an expression comes to in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def frame(self) -> None:
        """Wait until what is to be drawn is drawn."""
        self.js("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))")

    def key(self, key: str) -> None:
        """Press a key."""
        text = {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, **(text if kind == "keyDown" else {}))
        self.frame()

    def mouse(self, x: float, y: float) -> None:
        """Move the mouse."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def size(self, width: int, height: int) -> None:
        """Give the window another size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.frame()

    def scheme(self, name: str) -> None:
        """Prefer `light` or `dark`."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])
        self.frame()

    def nodes(self) -> list[dict[str, Any]]:
        """What a screen reader is told: role, name, and whether it can have the focus."""
        found = []
        for node in self.call("Accessibility.getFullAXTree")["nodes"]:
            if not node.get("ignored"):
                focusable = any(one["name"] == "focusable" and one["value"]["value"] for one in node["properties"])
                name = node.get("name", {}).get("value", "")
                found.append({"role": node["role"]["value"], "name": name, "focusable": focusable})
        return found

    def picture(self, path: Path) -> None:
        """Write what is seen, for people."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A Chromium with a profile of its own, which ends with this."""
    assert BINARY is not None
    read_end, to = os.pipe()
    back, write_end = os.pipe()

    def pipes() -> None:
        a, b = os.dup(read_end), os.dup(write_end)
        os.dup2(a, 3)
        os.dup2(b, 4)

    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
               "--remote-debugging-pipe", "--disable-background-networking", f"--user-data-dir={folder}"]  # fmt: skip
    process = subprocess.Popen(
        [BINARY, *options, "about:blank"], preexec_fn=pipes, close_fds=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(folder)},
    )  # fmt: skip
    os.close(read_end)
    os.close(write_end)
    try:
        yield Browser(to, back)
    finally:
        os.close(to)  # it ends when its pipe does
        os.close(back)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
