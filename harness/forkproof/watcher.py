"""A supervisor of the user's own app: it boots it, asks it, does to it what was asked for, and ends it.

Nothing of the app answers for it: which worker took a request is told by who has the socket, how a loop fares by looks
that each process is asked for with a signal, and by /proc. Standard library only, as the supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from forkproof import proc, resp, subscriptions
from forkproof.supervisor import Supervisor, _catches, _Process, _Tail

PLAN = "check.json"
"""In the folder of a run whose app is the user's own: what is to be done."""
OUTPUT = "output"
"""In that folder: what the master prints, and in files of their own what each worker does."""
ALONE = 3
"""Looks of a window after which requests are sent that no other meets."""
AT_ONCE = 16
"""Connections that are held open until each slot has one."""
LOST = 5
"""Workers of each slot that may end before one has booted: gunicorn replaces them for ever, unless their exit code is
one of its own."""
NUMBER = "{n}"
"""In a path: stands for another number in each request."""
MOST_FAILED = 20
"""Requests to a path that may fail before a window has no more of them: one that kills its worker does each time."""
_HELD = 1.0
_POLL = 0.005
_LOOK_BOUND = 0.6
_HANGS = 2.5
_USUAL = ("127.0.0.1", 6379)
"""Where a Redis is that nobody names."""
_REDIS_SECONDS = 3.0
"""Seconds after TERM when one looks what keeps those that still live."""


class Watcher(Supervisor):
    """Drives one run of the user's own app; see the module."""

    def __init__(self, folder: Path, host: int, nest: int | None = None) -> None:
        super().__init__(folder, host, nest)
        self.plan: dict[str, Any] = json.loads((folder / PLAN).read_bytes())
        self._looks = 0
        self._seen: set[str] = set()
        self._ready = False
        self._deaf: list[str] = []
        self._inodes: set[int] = set()
        self._silent = False  # whether a request of this window had no answer: each that hangs costs the whole bound
        self._failed = 0
        self._booted: set[str] = set()
        self._tls = False
        # Each worker has a file of its own there; `server.log` is what all of them print, for people.
        self._log_path = str(folder / OUTPUT / "server")
        self._logs = {self._log_path: _Tail(self._log_path)}
        self._merged = os.open(folder / "server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    # Watching

    def observe(self) -> None:
        """The same of workers' own output."""
        for name in os.listdir(self.folder / OUTPUT):
            path = str(self.folder / OUTPUT / name)
            if path not in self._logs:
                self._logs[path] = _Tail(path)
        super().observe()

    def _hear(self, path: str, line: bytes, **fields: Any) -> None:
        name = os.path.basename(path)
        super()._hear(path, line, **({} if path == self._log_path else {"by": name}), **fields)
        os.write(self._merged, line + b"\n")

    def close(self) -> None:
        """The same."""
        super().close()
        os.close(self._merged)

    def _note(self, key: str, event: dict[str, Any]) -> None:
        super()._note(key, event)
        if event["event"] == "look":
            self._seen.add(key)
        elif event["event"] == "server":
            self.scenario["server"] |= {name: event[name] for name in ("workers", "timeout", "graceful_timeout")}
            self.scenario["server"]["graceful_timeout"] = min(event["graceful_timeout"], self.plan["longest_stop"])
            self.life = replace(self.life, workers=event["workers"], slots=tuple(range(event["workers"])))
            address = event["address"]
            self.address = (str(address[0]), int(address[1])) if len(address) > 1 else None
            self._tls = bool(event.get("tls"))
            self._ready = True
            if int(event["pid"]) != self.arbiter_pid:  # it has gone into the background
                self.arbiter_pid, self.arbiter_ended = int(event["pid"]), False
                pidfd = os.pidfd_open(self.arbiter_pid)
                asyncio.get_running_loop().add_reader(pidfd, self._arbiter_gone, pidfd)

    def _arbiter_gone(self, pidfd: int) -> None:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        self.arbiter_ended = True

    async def look(self) -> None:
        """Ask every process that listens for a look, and look at all of them from outside."""
        living = self._living()
        number = self.plan["look_signal"]
        self._seen.clear()
        asked = []
        for process in self.processes.values():
            if not process.gone and _catches(process.pid, number):
                with contextlib.suppress(OSError):
                    os.kill(process.pid, number)
                    asked.append(process)
        tasks = {f"{stat.pid}-{stat.start}": proc.switches(stat.pid) for stat in living}
        self.record("tasks", tasks=tasks, locked={f"{stat.pid}-{stat.start}": proc.locked(stat.pid) for stat in living})
        self._outside.waits(living)
        await self.until(
            lambda: all(process.key in self._seen or process.gone for process in asked), _LOOK_BOUND, "look"
        )
        self._looks += 1
        deaf = [process.key for process in asked if process.key not in self._seen and not process.gone]
        self._deaf = deaf
        self.record("look.asked", number=self._looks, asked=[process.key for process in asked], deaf=deaf)

    # Asking

    async def ask_every_slot(self, path: str | None = None, alone: bool = False) -> bool:
        """Have a request answered by the worker of each slot, `alone` one after the other; whether that was so in time.

        Connections are held without a word until the worker of each slot has accepted one, and are then used: a worker
        that waits for the word takes no other. Not for long, since gunicorn closes a silent one after `keepalive`.
        """
        budget = self._budget(self.launch["bounds"]["answer"])
        asked = path or self.plan["health"]
        left = set(self.life.slots)
        held: list[_Connection] = []
        failed = self._failed
        try:
            while left and not budget.expired and not self.arbiter_ended:
                if path is not None and self._failed - failed > MOST_FAILED:
                    self._silent = True
                    break
                one = await self._connect()
                if one is None:
                    await asyncio.sleep(_POLL)
                    continue
                held.append(one)
                await self._accepted(one)
                wanted = {one.slot for one in held} >= left
                if wanted or one.slot is None or len(held) >= AT_ONCE or held[0].age > _HELD:
                    left -= await self._release(held, asked, alone)
        finally:
            for one in held:
                one.close()
        return not left

    async def _release(self, held: list[_Connection], path: str, alone: bool) -> set[int]:
        """Ask on each connection; the slots that have answered."""
        connections, held[:] = list(held), []
        if alone:
            answers = [await self._exchange(one, path) for one in connections]
        else:
            answers = await asyncio.gather(*(self._exchange(one, path) for one in connections))
        return {one.slot for one, answer in zip(connections, answers, strict=True) if answer and one.slot is not None}

    async def _burst(self, path: str) -> None:
        """Requests that meet: what was made before a patch may freeze a worker only then."""
        found = [await self._connect() for _ in range(2 * len(self.life.slots))]
        await asyncio.gather(*(self._exchange(one, path) for one in found if one is not None))

    async def _connect(self) -> _Connection | None:
        if self.address is None:
            return None
        host, port = _reached_at(self.address)
        one = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        one.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(one, (host, port))
        except OSError:
            one.close()
            return None
        return _Connection(one, tls=self._tls)

    async def _accepted(self, one: _Connection) -> None:
        """Wait for a worker to accept a connection, and note which."""
        while one.slot is None and one.age < _HELD:
            for slot, process in self.current_workers().items():
                with contextlib.suppress(OSError):
                    sockets = proc.resources(process.pid).sockets
                    new = {inode: (process.pid, fd) for fd, inode in sockets.items() if inode not in self._inodes}
                    self._inodes |= new.keys()
                    if any(found.peer == one.client for found in proc.describe(new).values()):
                        one.slot, one.worker = slot, process.key
            await asyncio.sleep(_POLL)

    async def _exchange(self, one: _Connection, path: str) -> bool:
        if one.closed:
            one.close()
            return False
        self._requests += 1
        number = self._requests
        self.record("request.invoke", request=number, path=path, work=path in self.plan["requests"])
        exchange = asyncio.ensure_future(one.ask(path.replace(NUMBER, str(number))))
        budget = self._budget(self.launch["bounds"]["answer"])
        while not exchange.done() and not budget.expired and not self.arbiter_ended:
            await asyncio.wait([exchange], timeout=_POLL)
        try:
            if not exchange.done():
                exchange.cancel()
                await asyncio.wait([exchange])
                self._silent = True
                self.record("request.info", request=number, error=f"no answer within {budget.spent:.1f} s")
                return False
            status = exchange.result()
        except (OSError, EOFError, ValueError) as error:
            if one.silent and one.age > _HELD:  # closed since we, on a crowded machine, took so long to say a word
                return False
            self._failed += 1
            self.record("request.fail", request=number, error=f"{type(error).__name__}: {error}")
            return False
        finally:
            one.close()
        self.record("request.ok", request=number, worker=one.worker, slot=one.slot, loops=[], status=status, path=path)
        return True

    async def _cause(self) -> None:
        """Have the user's own commands make work; where the server is, they are told."""
        environment = self.plan["environment"]
        if self.address is not None:
            environment = {
                **environment,
                "FORKPROOF_URL": f"http{'s' if self._tls else ''}://{_in_url(*_reached_at(self.address))}",
            }
        for command in self.plan["events"]:
            process = await asyncio.create_subprocess_exec(
                "/bin/sh", "-c", command, stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, env=environment,
                cwd=self.plan["cwd"],
            )  # fmt: skip
            code: int | None = None
            with contextlib.suppress(asyncio.TimeoutError):
                code = await resp.within(process.wait(), self.launch["bounds"]["answer"])
            if code is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            self.record("caused", command=command, code=code)

    # The course

    async def run(self) -> None:
        """Boot, a window, each fault with a window, and TERM."""
        os.chdir(self.plan["cwd"])
        self._spawn()
        try:
            if not await self._boot():
                await self.look()
                await self.collect_stacks(list(self.processes.values()))
                return
            await self._window(0, "boot")
            for index, name in enumerate(self.plan["faults"]):
                if self.arbiter_ended:
                    self.record("fault.fail", fault=name, index=index, error="the arbiter had ended before it")
                    return
                await self._do(index, name)
        finally:
            self._finish()

    async def _boot(self) -> bool:
        bound = self.launch["bounds"]["boot"]
        begun = time.monotonic()
        budget = self._budget(bound)
        while not budget.expired:
            if self.arbiter_ended and not self._living():
                self.observe()
                return False
            if self.address is not None and self.address[1] == 0:
                return False  # each worker has another
            if self._ready and (self.address is None or await self._all_there(())):
                self.record("booted", seconds=round(time.monotonic() - begun, 3))
                return True
            lost = self._never_boots()
            if lost:
                self.record("lost", workers=lost)
                return False
            await asyncio.sleep(_POLL)
        self.record("bound", what="boot", seconds=bound, stretch=round(budget.stretch, 2))
        return False

    def _never_boots(self) -> int:
        """How many workers have ended, once that is more than `LOST` of each slot and none has booted; 0 before."""
        lost = sum(one.role == "worker" and one.gone for one in self.processes.values())
        return lost if not self._booted and lost > LOST * len(self.life.slots) else 0

    async def _all_there(self, old: Collection[str], *, hangs: bool = False) -> bool:
        """Whether the newest worker of each slot is none of `old` and answers, or has booted where one `hangs`."""
        workers = self.current_workers()
        if not all(slot in workers and workers[slot].key not in old for slot in self.life.slots):
            return False
        waits = [self._is_waiting(workers[slot]) for slot in self.life.slots]
        return all(waits) and (hangs or await self.ask_every_slot())

    def _is_waiting(self, process: _Process) -> bool:
        """Whether a worker waits for connections: it has booted. One whose loop is never idle only looks for them."""
        if self._waits(process.pid):
            self._booted.add(process.key)
        return process.key in self._booted

    @staticmethod
    def _waits(pid: int) -> bool:
        try:
            if proc.waits(pid):
                return True
            polled = proc.polled(pid)
            sockets = proc.resources(pid).sockets if polled else {}
            mine = {inode: (pid, fd) for fd, inode in sockets.items() if inode in polled}
            return any(one.state == "listening" for one in proc.describe(mine).values())
        except (OSError, NotImplementedError):
            return True

    async def _window(self, index: int, after: str) -> None:
        needed = self.plan["turns"]
        self._silent = False
        self.observe()
        self.sample()
        first_turn, first_control = self.turn, self.gauge.turns

        def turns() -> int:
            return min(self.turn - first_turn, self.gauge.turns - first_control)

        self.record(
            "window.open", window=index, after=after, healed=True, slots=sorted(self.life.slots),
            arbiter=self.arbiter_pid,
        )  # fmt: skip
        self._outside.resources(self._living())
        await self.look()
        await self._make_work()
        for part in range(1, self.plan["looks"] + 1):
            await self._turns(turns, needed * part // self.plan["looks"])
            await self.look()
            if part <= ALONE:
                await self._ask_alone()
        self._outside.resources(self._living())
        await self._subscribers(index)
        self.observe()
        self.sample()
        await self.collect_stacks([self.processes[key] for key in self._deaf if not self.processes[key].gone])
        self.record(
            "window.close", window=index, turns=self.turn - first_turn, control=self.gauge.turns - first_control
        )

    async def _subscribers(self, index: int) -> None:
        """Ask each Redis that the app's environment names, and one at the usual port if the app is connected to it."""
        asked = {(host, int(port)) for host, port in self.plan["redis"]}
        if f"{_USUAL[0]}:{_USUAL[1]}" in self._outside.peers():
            asked.add(_USUAL)
        for host, port in sorted(asked):
            told, error = subscriptions.Subscriptions({}, {}), {}
            try:
                told = await subscriptions.ask(host, port, seconds=_REDIS_SECONDS)
            except (OSError, asyncio.TimeoutError, resp.ReplyError) as failed:
                error = {"error": str(failed) or "no answer"}
            self.record("redis", window=index, address=f"{host}:{port}", **told._asdict(), **error)

    async def _make_work(self) -> None:
        for path in self._paths():
            await self.ask_every_slot(path)
            if not self._silent:
                await self._burst(path)
        await self._cause()

    def _paths(self) -> list[str]:
        return (self.plan["requests"] or [self.plan["health"]]) if self.address is not None else []

    async def _ask_alone(self) -> None:
        """Requests that meet no other: what still grows with each of them is no store of things to be used again."""
        for path in self._paths():
            if not self._silent:
                await self.ask_every_slot(path, alone=True)

    async def _settled(self) -> None:
        """Let workers boot that have replaced others by themselves: gunicorn loses a TERM that comes before.

        One that hangs later, and waits for no connection any more, is not waited for.
        """
        budget = self._budget(self.launch["bounds"]["answer"])
        while not budget.expired and not self.arbiter_ended:
            young = [one for one in self.current_workers().values() if one.key not in self._booted]
            if all(self._is_waiting(one) for one in young):
                return
            await asyncio.sleep(_POLL)

    async def _do(self, index: int, name: str) -> None:
        await self._settled()
        self.record("fault.invoke", fault=name, index=index)
        done: Mapping[str, Callable[[], Awaitable[bool | None]]] = {
            "kill_worker": self._kill, "hup": self._reload, "term": self._end,
        }  # fmt: skip
        healed = await done[name]()
        if healed is None:
            return
        self.record("fault.healed", fault=name, index=index, healed=healed)
        if not healed:
            await self.look()
            await self.collect_stacks(list(self.processes.values()))
        if not self.arbiter_ended:
            await self._window(index + 1, name)

    async def _kill(self) -> bool:
        slot = self.life.slots[0]
        worker = self.current_workers().get(slot)
        if worker is None:
            return False
        self.record("fault.ok", fault="kill_worker", index=self.plan["faults"].index("kill_worker"), target=worker.pid)
        os.kill(worker.pid, signal.SIGKILL)
        return await self._back([worker.key])

    async def _reload(self) -> bool:
        old = self.workers()
        self.record("fault.ok", fault="hup", index=self.plan["faults"].index("hup"), target=self.arbiter_pid)
        begun = time.monotonic()
        os.kill(self.arbiter_pid, signal.SIGHUP)
        there = await self._back(old)
        if not await self.gone(old):
            left = [key for key in old if not self.processes[key].gone]
            self.record("outlived", fault="hup", processes=left, seconds=round(time.monotonic() - begun, 3))
            await self.collect_stacks([self.processes[key] for key in left])
        return there

    async def _back(self, old: Collection[str]) -> bool:
        """Whether other workers than `old` answer in each slot within the boot bound.

        Where one has hung before, that it answers is not waited for: it is none that the fault has kept from booting.
        """
        bound = self.plan["back"]
        budget = self._budget(bound)
        hangs = self._silent and any(worker.key not in old for worker in self.current_workers().values())
        while not budget.expired and not self.arbiter_ended:
            if await self._all_there(old, hangs=hangs):
                return True
            await asyncio.sleep(_POLL)
        self.record("bound", what="boot", seconds=bound, stretch=round(budget.stretch, 2))
        return False

    async def _end(self) -> None:
        self.record("fault.ok", fault="term", index=self.plan["faults"].index("term"), target=self.arbiter_pid)
        os.kill(self.arbiter_pid, signal.SIGTERM)
        begun = time.monotonic()

        def ended() -> bool:
            return self.arbiter_ended and not self._living()

        if not await self.until(ended, _HANGS, "look at the stop"):
            await self.look()
            await self.collect_stacks([process for process in self.processes.values() if not process.gone])
            bound = self.scenario["server"]["graceful_timeout"] + self.launch["bounds"]["stop_slack"] - _HANGS
            latest = begun + self.plan["longest_stop"] + bound  # of a machine that is crowded
            await self.until(lambda: ended() or time.monotonic() > latest, max(bound, 0.5), "stop")
        if ended():
            self.record("stopped", seconds=round(time.monotonic() - begun, 3))
        else:
            self.record("left", processes=[self._told(stat) for stat in self._living()])


def _reached_at(address: tuple[str, int]) -> tuple[str, int]:
    """Where to connect to a server that listens there."""
    host, port = address
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port


def _in_url(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Connection:
    """One connection to the server; `slot` and `worker` are those who have accepted it, once that is known."""

    def __init__(self, made: socket.socket, *, tls: bool) -> None:
        self._socket = made
        self._tls = tls
        self._writer: asyncio.StreamWriter | None = None
        self._server = proc.address_of(made.getpeername())
        self._made = time.monotonic()
        self.client = proc.address_of(made.getsockname())
        self.slot: int | None = None
        self.worker = ""
        self.silent = True
        """Whether nothing was asked; with TLS one has to agree on much before."""

    @property
    def age(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._made

    @property
    def closed(self) -> bool:
        """Whether the server has closed it before anything was asked."""
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    async def ask(self, path: str) -> int:
        """Send a GET, read all of the answer; its status."""
        given: dict[str, Any] = {"ssl": _any_certificate(), "server_hostname": "localhost"} if self._tls else {}
        reader, self._writer = await asyncio.open_connection(sock=self._socket, **given)
        self.silent = False
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: {self._server}\r\nConnection: close\r\n\r\n".encode())
        await self._writer.drain()
        head = await reader.readline()
        while await reader.read(1 << 16):
            pass
        words = head.split()
        if not words:
            raise EOFError("the connection was closed without an answer")
        if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
            raise ValueError(f"the answer is not HTTP: {head[:60]!r}")
        return int(words[1])

    def close(self) -> None:
        """Close it."""
        if self._writer is None:
            self._socket.close()
        else:
            self._writer.close()


def _any_certificate() -> Any:
    """How to talk with a server of this machine, whoever has signed for it."""
    import ssl  # which most runs do without

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
