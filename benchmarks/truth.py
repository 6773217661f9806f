"""What the apps of `examples/apps` really do in each deployment, counted where their work arrives.

    python benchmarks/truth.py [--runs 5] [-j 2] [--app NAME]... [--deployment NAME]... [--check]

Starts plain gunicorn with nothing of forkproof in it or beside it, gives the app work, and counts at the other end: a
Redis list and channel, a file of lines, an HTTP collector, a browser's long polling. Each line names the process that
did the work. That is done after the boot, after kill -9 of a worker and after a HUP, then TERM is sent. Writes
`examples/truth.toml`; with --check it writes nothing and exits 1 where a run does what the file says never happens.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import redis

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from forkproof import broker

ROOT = Path(__file__).resolve().parent.parent
APPS = ROOT / "examples" / "apps"
DEPLOYMENTS = ROOT / "examples" / "deployments"
TRUTH = ROOT / "examples" / "truth.toml"

WORKERS = 2
GRACEFUL_SECONDS = 5.0
"""As in every file of `examples/deployments`; counted here, so that waiting for a CPU does not make a server late."""

_READY_SECONDS = 8.0
_REQUEST_SECONDS = 10.0
_OVERLAP_SECONDS = 3.0  # for workers that a reload has told to end
_QUIET_SECONDS = 2.5  # in which nothing more arrives, so that nothing more is waited for
_FROZEN_SECONDS = 300.0
_LOOK_SECONDS = 0.2
_BEATS = 3
_REQUESTS, _MESSAGES = 10, 30

Work = dict[str, Counter[int]]
"""Each unit of work, and how often each process has done it."""


class Server:
    """A plain gunicorn with an app of the examples, and what arrives where its work goes."""

    def __init__(self, app: str, deployment: str, folder: Path, store: redis.Redis, collector: Collector) -> None:
        self.store = store
        self.collector = collector
        self.report = folder / "report.log"
        self.report.touch()
        self.log = folder / "gunicorn.log"
        where = store.connection_pool.connection_kwargs
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "PYTHONDONTWRITEBYTECODE": "1",
            "REDIS_URL": f"redis://{where['host']}:{where['port']}/0",
            "REPORT": str(self.report),
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "300",
        }
        command = [
            sys.executable, "-m", "gunicorn", "-c", str(DEPLOYMENTS / f"{deployment}.conf.py"), "-b", "127.0.0.1:0",
            "--control-socket", str(folder / "control"), "--graceful-timeout", "600", "app:app",
        ]  # fmt: skip
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=APPS / app, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self.pid = self.process.pid
        self.slots: list[int | None] = [None] * WORKERS
        self.former: set[int] = set()

    def workers(self) -> list[int]:
        """The live workers, as gunicorn's log names them, in the order of their slots."""
        booted = [int(pid) for pid in re.findall(r"Booting worker with pid: (\d+)", self._said())]
        live = [pid for pid in sorted(booted) if pid not in self.former and _parent(pid) == self.pid]
        self.slots = [pid if pid in live else None for pid in self.slots]
        for pid in live:
            if pid not in self.slots and None in self.slots:
                self.slots[self.slots.index(None)] = pid
        return [pid for pid in self.slots if pid is not None]

    def place(self, pid: int) -> str:
        """Where in the server a process is."""
        if pid == self.pid:
            return "arbiter"
        if pid in self.slots:
            return f"worker {self.slots.index(pid)}"
        return "former worker" if pid in self.former else "child"

    def retire(self, workers: Sequence[int]) -> None:
        """Count these as workers of the past from now on, whether they have ended or not."""
        self.former.update(workers)

    def ready(self) -> bool:
        """Wait until as many workers as there should be have answered, those of the past aside."""
        patience = Patience(self, _READY_SECONDS)
        answered: set[int] = set()
        while self.process.poll() is None and not patience.spent:
            workers = self.workers()
            if len(workers) == WORKERS and set(workers) <= answered:
                return True
            answered |= {pid for pid in self.ask("/", 4) if pid is not None}
        return False

    def ask(self, path: str, times: int) -> list[int | None]:
        """Send that many requests at once; which process answered each, None where none did."""
        with ThreadPoolExecutor(times) as pool:
            return list(pool.map(lambda _: self._ask(path), range(times)))

    def _ask(self, path: str) -> int | None:
        port = self.port()
        if port is None:
            time.sleep(0.1)
            return None
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_REQUEST_SECONDS)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            connection.request("GET", path, headers={"Connection": "close"})
            answer = connection.getresponse()
            return int(answer.read()) if answer.status == 200 else None
        time.sleep(0.1)
        return None

    def port(self) -> int | None:
        """The port that gunicorn took."""
        found = re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", self._said())
        return int(found[1]) if found else None

    def _said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def gone(self, pids: Sequence[int], seconds: float) -> bool:
        """Whether these processes end in that time."""
        patience = Patience(self, seconds)
        while any(_stat(pid) for pid in pids):
            self.process.poll()
            if patience.spent:
                return False
            time.sleep(_LOOK_SECONDS)
        return True

    def kill(self, pids: Sequence[int]) -> None:
        """SIGKILL, to those that are there."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def terminate(self) -> str:
        """Send TERM: all ends in time, or the workers do not and are killed as gunicorn would, or the master stays."""
        # A reload waits for workers that do not end, up to a graceful_timeout, which is longer here.
        self.kill([pid for pid in self.former if _parent(pid) == self.pid])
        self.ready()
        workers = self.workers()
        self.process.send_signal(signal.SIGTERM)
        if self.gone([self.pid, *workers], GRACEFUL_SECONDS):
            return "in time"
        self.kill(workers)
        return "workers killed" if self.gone([self.pid], GRACEFUL_SECONDS) else "master stays"

    def left(self) -> bool:
        """Whether processes of the server's session run on without the master."""
        return not self.gone(session(self.pid), 1.0)

    def close(self) -> None:
        """End all of it."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        while found := session(self.pid):
            self.kill(found)
            time.sleep(0.02)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; none where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
    return [] if fields[0] == "Z" else fields


def _parent(pid: int) -> int | None:
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def session(leader: int) -> list[int]:
    """The processes of a session, its leader aside."""
    found = []
    for name in os.listdir("/proc"):
        fields = _stat(int(name)) if name.isdigit() else []
        if fields and int(fields[3]) == leader and int(name) != leader:
            found.append(int(name))
    return found


def below(pid: int) -> list[int]:
    """The processes below one."""
    found = [int(word) for _, text in _of_tasks(pid, "children") for word in text.split()]
    return found + [each for child in found for each in below(child)]


def _of_tasks(pid: int, name: str) -> Iterator[tuple[int, str]]:
    """A file of each task of a process, as far as they have not ended."""
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                yield int(task), Path(f"/proc/{pid}/task/{task}/{name}").read_text()


class Patience:
    """So many seconds in which no process of the server waited for a CPU: a crowded machine does not make it late."""

    def __init__(self, server: Server, seconds: float) -> None:
        self._server = server
        self._left = seconds
        self._begun = self._last = time.monotonic()
        self._waited = self._waits()

    @property
    def spent(self) -> bool:
        """Whether they have passed; asking is what counts them."""
        now, waited = time.monotonic(), self._waits()
        worst = max((delay - self._waited.get(task, 0.0) for task, delay in waited.items()), default=0.0)
        self._left -= max(0.0, now - self._last - worst)
        self._last, self._waited = now, waited
        if now - self._begun > _FROZEN_SECONDS:
            raise TimeoutError(f"the machine gave the server almost no time in {_FROZEN_SECONDS:g} s: run it again")
        return self._left <= 0

    def _waits(self) -> dict[int, float]:
        """For each task, how long it has waited for a CPU so far (proc(5), schedstat)."""
        found = {}
        for pid in [self._server.pid, *below(self._server.pid)]:
            for tid, text in _of_tasks(pid, "schedstat"):
                found[tid] = int(text.split()[1]) / 1e9
        return found


class Collector:
    """Takes what OpenTelemetry sends, and counts the orders named in it."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.seen.update(text.decode() for text in re.findall(rb"unit-\d{6}", body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


_numbers = itertools.count(1)


def _unit() -> str:
    return f"unit-{next(_numbers):06d}"


def _until_quiet(server: Server, count: Callable[[], int]) -> None:
    """Wait until what is counted has not grown for a while."""
    seen, patience = count(), Patience(server, _QUIET_SECONDS)
    while not patience.spent:
        time.sleep(_LOOK_SECONDS)
        if count() != seen:
            seen, patience = count(), Patience(server, _QUIET_SECONDS)


def _pass(server: Server, seconds: float) -> None:
    patience = Patience(server, seconds)
    while not patience.spent:
        time.sleep(_LOOK_SECONDS)


def beats(server: Server) -> Work:
    """Which processes write a line five times a second to the report."""
    begun = server.report.stat().st_size
    _pass(server, _QUIET_SECONDS)
    with server.report.open() as file:
        file.seek(begun)
        lines = Counter(int(line) for line in file if line.strip().isdigit())
    return {"beat": Counter({pid: 1 for pid, times in lines.items() if times >= _BEATS})}


def messages(server: Server) -> Work:
    """Publish orders; who handled each is in a Redis list."""
    server.store.delete("handled")
    units = [_unit() for _ in range(_MESSAGES)]
    for unit in units:
        server.store.publish("orders", unit)
        time.sleep(0.03)  # who reads takes all that are there
    _until_quiet(server, lambda: int(server.store.llen("handled")))
    return _counted(units, (line.decode().split() for line in server.store.lrange("handled", 0, -1)))


def _counted(units: Sequence[str], lines: Iterable[list[str]]) -> Work:
    work: Work = {unit: Counter() for unit in units}
    for words in lines:
        if len(words) == 2 and words[1] in work:
            work[words[1]][int(words[0])] += 1
    return work


def _requests(server: Server) -> dict[str, int]:
    """Send orders as requests, several at once, until each worker has had some; which process took each."""
    taken: dict[str, int] = {}
    lock = threading.Lock()

    def one(unit: str) -> None:
        pid = server._ask(f"/orders/{unit}")
        if pid is not None:
            with lock:
                taken[unit] = pid

    patience = Patience(server, _READY_SECONDS)
    while not patience.spent:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(one, [_unit() for _ in range(_REQUESTS)]))
        counts = Counter(taken.values())
        if all(counts[pid] >= _BEATS for pid in server.workers()):
            break
    return taken


def lines_of_requests(server: Server) -> Work:
    """Send orders as requests; who dealt with each is in the report."""
    taken = _requests(server)
    _until_quiet(server, lambda: server.report.stat().st_size)
    return _counted(list(taken), [line.split() for line in server.report.read_text().splitlines()])


def spans(server: Server) -> Work:
    """Send orders as requests; the collector counts the spans that come, each from the process that answered."""
    taken = _requests(server)
    _until_quiet(server, lambda: server.collector.seen.total())
    return {unit: Counter({pid: server.collector.seen[unit]}) for unit, pid in taken.items()}


def emitted(server: Server) -> Work:
    """Which processes tell all browsers the report, five times a second, as the channel between them has it."""
    lines: Counter[int] = Counter()
    with server.store.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe("flask-socketio")
        patience = Patience(server, _QUIET_SECONDS)
        while not patience.spent:
            message = pubsub.get_message(timeout=_LOOK_SECONDS)
            if message:
                told = json.loads(message["data"])
                if told.get("event") == "report":
                    lines[told["data"][0]["process"]] += 1
    return {"beat": Counter({pid: 1 for pid, times in lines.items() if times >= _BEATS})}


class Browser:
    """Listens as a browser does, by long polling on one connection, and so to one worker."""

    def __init__(self, port: int | None) -> None:
        self.process: int | None = None
        self.heard: Counter[str] = Counter()
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_REQUEST_SECONDS)
        self._sid = ""
        self._on = True
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
            self._sid = json.loads(self._exchange("GET")[0][1:])["sid"]
            self._exchange("POST", "40")
            while self.process is None:
                self._take(self._exchange("GET"))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _exchange(self, method: str, body: str | None = None) -> list[str]:
        path = "/socket.io/?EIO=4&transport=polling" + (f"&sid={self._sid}" if self._sid else "")
        self._connection.request(method, path, body)
        answer = self._connection.getresponse()
        text = answer.read().decode()
        if answer.status != 200:
            raise ValueError(text)
        return text.split("\x1e")

    def _take(self, packets: Sequence[str]) -> None:
        for packet in packets:
            if packet == "2":
                self._exchange("POST", "3")
            if packet.startswith("42"):
                event, told = json.loads(packet[2:])
                if event == "welcome" and self.process is None:
                    self.process = told["process"]
                if event == "order":
                    self.heard[told] += 1

    def _listen(self) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            while self._on and self.process is not None:
                self._take(self._exchange("GET"))

    def close(self) -> None:
        """Hang up."""
        self._on = False
        self._thread.join()
        self._connection.close()


def pushed(server: Server) -> Work:
    """Tell the browsers of each worker something from outside, and count what they hear."""
    port = server.port()
    browsers: dict[int, Browser] = {}
    for _ in range(4 * WORKERS if port else 0):
        with ThreadPoolExecutor(WORKERS) as pool:
            new = list(pool.map(Browser, [port] * WORKERS))
        for browser in new:
            if browser.process is None or browsers.setdefault(browser.process, browser) is not browser:
                browser.close()
        if set(server.workers()) <= browsers.keys():
            break
    units = [_unit() for _ in range(_MESSAGES)]
    for unit in units:
        told = {"method": "emit", "event": "order", "data": [unit], "binary": False, "namespace": "/",
                "room": None, "skip_sid": None, "callback": None, "host_id": "outside"}  # fmt: skip
        server.store.publish("flask-socketio", json.dumps(told))
        time.sleep(0.03)
    _until_quiet(server, lambda: sum(browser.heard.total() for browser in browsers.values()))
    for browser in browsers.values():
        browser.close()
    return {
        unit: Counter({pid: browser.heard[unit] for pid, browser in browsers.items() if browser.heard[unit]})
        for unit in units
    }


LOOPS: Mapping[str, Mapping[str, Callable[[Server], Work]]] = {
    "redis-listener": {"listen": messages},
    "redis-run-in-thread": {"PubSubWorkerThread.run": messages},
    "apscheduler": {"BlockingScheduler._main_loop": beats},
    "process": {"report": beats},
    "executor": {"_worker": lines_of_requests},
    "queue-listener": {"QueueListener._monitor": lines_of_requests},
    "opentelemetry": {"BatchProcessor.worker": spans},
    "socketio": {"report": emitted, "PubSubManager._thread": pushed},
}
"""The loops of each app by the names of their bodies, and how the work of each is counted."""

PHASES = ("boot", "replaced", "reloaded")


@dataclass
class Seen:
    """What one run showed of one loop in one phase: the places that worked, and how often units were done."""

    places: set[str]
    times: set[int]


@dataclass
class Run:
    """What one run showed."""

    loops: dict[str, dict[str, Seen]] = field(default_factory=dict)
    ready: dict[str, bool] = field(default_factory=dict)
    term: str = ""
    left: bool = False


def run(app: str, deployment: str) -> Run:
    """One server from boot to TERM."""
    kind = "redis-server" if shutil.which("redis-server") else "embedded"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="truth-")))
        own = stack.enter_context(broker.start(broker.parse(kind), folder))
        store = stack.enter_context(redis.Redis(own.host, own.port))
        collector = stack.enter_context(contextlib.closing(Collector()))
        server = stack.enter_context(contextlib.closing(Server(app, deployment, folder, store, collector)))
        found = Run()
        for phase in PHASES:
            if phase == "replaced":
                first = server.workers()[:1]
                server.retire(first)
                server.kill(first)
            elif phase == "reloaded":
                server.retire(server.workers())
                server.process.send_signal(signal.SIGHUP)
            found.ready[phase] = server.ready()
            server.gone([pid for pid in server.former if _stat(pid)], _OVERLAP_SECONDS)
            for loop, count in LOOPS[app].items():
                found.loops.setdefault(loop, {})[phase] = _seen(server, count(server))
        found.term = server.terminate()
        found.left = found.term != "master stays" and server.left()
        return found


def _seen(server: Server, work: Work) -> Seen:
    places = {server.place(pid) for each in work.values() for pid, times in each.items() if times}
    return Seen(places, {sum(each.values()) for each in work.values()} or {0})


Table = dict[str, Any]
"""What the file says of an app in a deployment."""


def table(app: str, runs: Sequence[Run]) -> Table:
    """What several runs showed. A rate is the number of runs in which it was so, and of those that could show it."""

    def rates(names: Iterable[str]) -> dict[str, str]:
        return {name: f"{count}/{len(runs)}" for name, count in sorted(Counter(names).items())}

    def loop(name: str) -> dict[str, Any]:
        seen = [one.loops[name] for one in runs]
        survived = [one["boot"].places <= one["replaced"].places for one in seen if one["boot"].places]
        return {
            "survives": _rate(survived),
            **{
                phase: {
                    "works_in": rates(place for one in seen for place in one[phase].places),
                    "times": rates(",".join(map(str, sorted(one[phase].times))) for one in seen),
                }
                for phase in PHASES
            },
        }

    return {
        **{phase: _rate([one.ready[phase] for one in runs]) for phase in PHASES},
        "term": rates(one.term for one in runs),
        "left_processes": _rate([one.left for one in runs]),
        "loops": {name: loop(name) for name in LOOPS[app]},
    }


def _rate(cases: Sequence[bool]) -> str:
    return f"{sum(cases)}/{len(cases)}"


def differences(written: Table, found: Table, where: str = "") -> list[str]:
    """What `found` saw in some run that `written` never did, or missed in every run though `written` always saw it."""
    told = []
    for name in {**written, **found}:
        before, after = written.get(name, "0/1"), found.get(name, "0/1")
        if isinstance(before, dict) or isinstance(after, dict):
            told += differences(_as_table(before), _as_table(after), f"{where}.{name}")
        elif (_share(before), _share(after)) in ((0.0, 1.0), (1.0, 0.0)):
            told.append(f"{where}.{name}: was {before}, is {after}")
    return told


def _as_table(value: Table | str) -> Table:
    return value if isinstance(value, dict) else {}


def _share(rate: str) -> float | None:
    seen, tried = map(int, rate.split("/"))
    return seen / tried if tried else None


_PACKAGES = (
    "gunicorn", "gevent", "flask", "redis", "flask-socketio", "python-socketio", "apscheduler", "opentelemetry-sdk",
)  # fmt: skip

_HEADER = """\
# What the apps of examples/apps really do in each deployment of examples/deployments, with the stack below.
#
# Written by `python benchmarks/truth.py`, which starts plain gunicorn, gives the app work, and counts at the other end:
#   redis-listener, redis-run-in-thread   messages published; a Redis list says which process handled each
#   apscheduler, process                  a file, to which each process that works adds its pid five times a second
#   executor, queue-listener              orders sent as requests; a file says which process dealt with each
#   opentelemetry                         orders sent as requests; an HTTP collector gets a span for each
#   socketio                              the Redis channel between the processes names who emits `report`; browsers
#                                         that poll, one at each worker, hear what is told from outside
# once after the boot, once after kill -9 of a worker and its replacement, once after a HUP; then TERM is sent.
#
# A rate is the number of runs in which it was so, and of those that could show it. For a deployment: in which phases
# two workers came to answer, how the server ended at TERM within graceful_timeout ("workers killed": gunicorn has to
# do so, "master stays": it does not end even then), and whether processes ran on without the master. For a loop,
# named by its body: whether it works after the replacement wherever it did before, where it works in each phase, and
# how often one unit of work was done; a loop that works by the clock does one unit in each process in which it works.
# A "former worker" was told to end by the HUP. What the HUP left is killed before TERM is sent. All bounds count only
# time in which no process of the server waits for a CPU, graceful_timeout too.
"""


def page(stack: Mapping[str, str], apps: Table) -> str:
    """The file."""
    parts = [_HEADER, "[stack]", *(f'{name} = "{version}"' for name, version in stack.items())]
    for app, deployments in apps.items():
        for deployment, one in deployments.items():
            parts.append(f"\n[apps.{app}.{deployment}]")
            parts += [f"{key} = {_inline(value)}" for key, value in one.items() if key != "loops"]
            for loop, told in one["loops"].items():
                parts.append(f'\n[apps.{app}.{deployment}.loops."{loop}"]')
                parts += [f"{key} = {_inline(value)}" for key, value in told.items()]
    return "\n".join(parts) + "\n"


def _inline(value: Table | str) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    cells = (f"{key if key.isalpha() else _inline(key)} = {_inline(one)}" for key, one in value.items())
    return f"{{ {', '.join(cells)} }}" if value else "{}"


def read() -> Table:
    """What the file says of each app in each deployment."""
    apps: Table = tomllib.loads(TRUTH.read_text(encoding="utf-8"))["apps"]
    return apps


def deployments() -> list[str]:
    """The names of the deployments."""
    return sorted(path.name.removesuffix(".conf.py") for path in DEPLOYMENTS.glob("*.conf.py"))


def stack() -> dict[str, str]:
    """The versions on which the apps run."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}}


def main() -> int:
    """Run them, and write or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("-j", type=int, default=2)
    parser.add_argument("--app", action="append", choices=sorted(LOOPS))
    parser.add_argument("--deployment", action="append", choices=deployments())
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    written = read() if arguments.check else {}
    found: Table = {}
    told: list[str] = []
    with ThreadPoolExecutor(arguments.j) as pool:
        pairs = [(app, name) for app in arguments.app or LOOPS for name in arguments.deployment or deployments()]
        futures = {pair: [pool.submit(run, *pair) for _ in range(arguments.runs)] for pair in pairs}
        for (app, name), runs in futures.items():
            one = table(app, [future.result() for future in runs])
            found.setdefault(app, {})[name] = one
            print(f"{app} {name}: {one}", flush=True)
            if arguments.check:
                told += differences(written[app][name], one, f"{app} {name}")
    if told:
        print("\n".join(told), file=sys.stderr)
    elif not (arguments.check or arguments.app or arguments.deployment):
        TRUTH.write_text(page(stack(), found), encoding="utf-8")
    return bool(told)


if __name__ == "__main__":
    sys.exit(main())
