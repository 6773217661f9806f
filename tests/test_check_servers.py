"""`forkproof check` on small apps with real servers: what it finds, and that it leaves nothing in their folders."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from schema import validate
from test_cli import Run, run, tmp_path

from forkproof import broker, target
from forkproof.plugin import Forkproof

__all__ = ["run", "tmp_path"]
pytestmark = pytest.mark.fork

APP = """\
import threading, time

def listen():
    while True:
        time.sleep(0.02)

threading.Thread(target=listen, daemon=True).start()

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
"""


@pytest.fixture(autouse=True)
def _stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    missing = {"gunicorn", "gevent"} - set(target.find(None).versions)
    if missing:
        pytest.skip(f"this Python has no {', '.join(sorted(missing))}")


def write(folder: Path, app: str, config: str) -> Path:
    place = folder / "app"
    place.mkdir()
    (place / "app.py").write_text(app, encoding="utf-8")
    (place / "gunicorn.conf.py").write_text(config, encoding="utf-8")
    return place


def places(loop: dict[str, Any], after: str = "boot") -> list[tuple[str, int | None, bool]]:
    return [(row["role"], row["slot"], row["copied"]) for row in loop["processes"] if row["after"] == after]


def test_a_healthy_app_through_every_fault(run: Run, tmp_path: Path) -> None:
    place = write(tmp_path, APP, "workers = 2\nworker_class = 'gthread'\n")
    code, out, err = run(
        "check",
        "app:app",
        "--chdir",
        place,
        "--policy",
        "listen=once_per_worker",
        "--json",
        "report.json",
        "--junit",
        "r.xml",
    )
    assert code == 0, out + err
    assert "started by import of app.py at app.py:7" in out
    report = json.loads((tmp_path / "report.json").read_bytes())
    validate(report, "check")
    (loop,) = report["loops"]
    assert (loop["name"], loop["kind"], loop["policy"]) == ("listen", "thread", "once_per_worker")
    for after in ("boot", "kill_worker", "hup"):
        assert places(loop, after) == [("worker", 0, False), ("worker", 1, False)]
    assert all(row["ticks"] > 3 for row in loop["processes"])
    verdicts = {claim["name"]: claim["verdict"] for claim in report["claims"]}
    assert verdicts["clean_shutdown"] == verdicts["workers_boot"] == verdicts["server_answers"] == "held"
    assert sorted(path.name for path in place.iterdir()) == ["app.py", "gunicorn.conf.py"]


def test_a_thread_that_a_patched_master_copies_into_its_workers(run: Run, tmp_path: Path) -> None:
    app = "from gevent import monkey; monkey.patch_all()\n" + APP
    place = write(tmp_path, app, "workers = 2\nworker_class = 'gevent'\npreload_app = True\n")
    code, out, _ = run("check", "app:app", "--chdir", place, "--quick", "--json", "report.json")
    assert code == 1
    report = json.loads((tmp_path / "report.json").read_bytes())
    (loop,) = report["loops"]
    assert places(loop) == [("arbiter", None, False), ("worker", 0, True), ("worker", 1, True)]
    broken = {claim["id"]: claim for claim in report["claims"] if claim["verdict"] == "broken"}
    assert "no_copied_thread:listen:copied" in broken
    words = " ".join(out.split())
    assert "app.py:4, is started by import of app.py at app.py:8" in words
    assert "preload_app (gunicorn.conf.py:3) and patch_all (app.py:1)" in words


def test_a_check_can_be_run_again_from_anywhere(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = "import os\nassert os.environ['REDIS_URL'] and os.environ['KEY'] == 'a b'\n" + APP
    place = write(tmp_path, app, "").rename(tmp_path / "an app")
    given = ("--policy", "listen=arbiter_only", "--redis", "embedded", "--env", "KEY=a b", "--faults", "")
    code, out, err = run("check", "app:app", "--chdir", "an app", "--target", sys.executable, *given, "--", "-w", "2")
    assert code == 1, out + err
    [line] = [line for line in out.splitlines() if line.startswith("Reproduce with:  forkproof ")]
    assert "a b" not in line, "it may be a secret"
    monkeypatch.chdir("/")
    monkeypatch.setenv("KEY", "a b")
    words = shlex.split(os.path.expandvars(line).partition("forkproof ")[2])
    more = ["--out", tmp_path / "again", "--json", tmp_path / "report.json"]
    code, out, err = run(words[0], *more, *words[1:])
    assert code == 1, out + err
    claims = json.loads((tmp_path / "report.json").read_bytes())["claims"]
    assert [claim["id"] for claim in claims if claim["verdict"] == "broken"] == ["exactly_one_listener:listen:double"]
    assert place.is_dir()


def test_in_a_suite_of_ones_own(forkproof: Forkproof, tmp_path: Path) -> None:
    app = APP.replace("time.sleep(0.02)", "raise OSError('no route')")
    place = write(tmp_path, app, "raw_env = ['ONE=1']\n")
    result = forkproof.check("app:app", folder=place, faults=["term"], policy={"listn": "once_per_worker"})
    assert result.broken == {"no_dead_listener", "quiet_runtime"}
    with pytest.raises(AssertionError, match=r"it died in worker 0 .* of OSError: no route") as failed:
        result.assert_held()
    assert "policy 'listn': no loop is called so" in str(failed.value)
    forkproof.forget(result)


def test_an_app_that_cannot_be_imported(run: Run, tmp_path: Path) -> None:
    place = write(tmp_path, "import os\nos.environ['NEEDED_URL']\n" + APP, "")
    code, out, err = run("check", "app:app", "--chdir", place, "--quick")
    assert (code, out) == (2, "")
    assert err.startswith("forkproof: app:app: cannot be imported, by gunicorn or without it: KeyError: 'NEEDED_URL'")
    assert "app.py:2" in err
    assert "Give it with --env NEEDED_URL=VALUE." in err
    code, out, _ = run("check", "app:app", "--chdir", place, "--quick", "--env", "NEEDED_URL=here")
    assert code == 0, out


def test_a_word_that_gunicorn_does_not_know(run: Run, tmp_path: Path) -> None:
    place = write(tmp_path, APP, "")
    code, out, err = run("check", "app:app", "--chdir", place, "--quick", "--", "--workerz", "2")
    assert (code, out) == (2, "")
    assert "gunicorn did not start" in err
    assert "--workerz" in err


IN_CHILDREN = """\
import os, threading, time

def short():
    time.sleep(0.01)

def listen():
    while True:
        time.sleep(0.02)

first = threading.Thread(target=short)
first.start()
first.join()
os.register_at_fork(after_in_child=lambda: threading.Thread(target=listen, daemon=True).start())

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
"""


def test_native_threads_of_workers_that_gevent_patched_later(run: Run, tmp_path: Path) -> None:
    place = write(tmp_path, IN_CHILDREN, "workers = 2\nworker_class = 'gevent'\npreload_app = True\n")
    run("check", "app:app", "--chdir", place, "--quick", "--json", "report.json")
    loops = json.loads((tmp_path / "report.json").read_bytes())["loops"]
    assert [loop["name"] for loop in loops] == ["listen"]  # `short` has ended, whoever has its ident now
    assert places(loops[0]) == [("worker", 0, False), ("worker", 1, False)]


STAYS = APP.replace(", daemon=True", "")


def test_workers_that_a_reload_leaves_behind(run: Run, tmp_path: Path) -> None:
    place = write(tmp_path, STAYS, "workers = 1\nworker_class = 'gthread'\ngraceful_timeout = 1\n")
    code, out, _ = run("check", "app:app", "--chdir", place, "--faults", "hup,term", "--json", "report.json")
    assert code == 1
    claims = json.loads((tmp_path / "report.json").read_bytes())["claims"]
    told = {claim["id"]: claim for claim in claims if claim["verdict"] == "broken"}
    assert "handover_is_safe:old workers stay" in told
    assert not [name for name in told if name.startswith("workers_boot")]  # the new ones are there
    assert "in them: listen" in " ".join(out.split())


PRINTS = (
    """\
import atexit, os, threading

class Thing:
    def __del__(self):
        raise KeyError

Thing()
atexit.register(lambda: int("none"))
if os.path.exists(os.environ["MARK"]):
    threading.Thread(target=int, args=("none",)).start()
"""
    + APP
)


@pytest.mark.parametrize("again", [False, True])
def test_what_is_printed_at_a_reload_by_workers_that_end_and_by_new_ones(again: bool, run: Run, tmp_path: Path) -> None:
    config = "workers = 2\nworker_class = 'gthread'\n"
    config += "import os\ndef on_reload(server):\n    open(os.environ['MARK'], 'w').close()\n" * again
    place = write(tmp_path, PRINTS, config)
    words = ["--faults", "hup,term", "--env", f"MARK={tmp_path / 'mark'}", "--json", "report.json"]
    code, out, _ = run("check", "app:app", "--chdir", place, *words)
    report = json.loads((tmp_path / "report.json").read_bytes())
    said = (Path(report["run"]) / "server.log").read_text(encoding="utf-8")
    assert said.count("Exception ignored in atexit") >= 2, said
    broken = {claim["id"] for claim in report["claims"] if claim["verdict"] == "broken"}
    assert broken == (
        {"quiet_runtime:Exception in thread: ValueError", "no_dead_listener:int:died"} if again else set()
    )
    assert code == int(again)
    assert "printed, and no failure: Exception ignored in: <function Thing.__del__" in " ".join(out.split())


COLLECTS = """\
import collections, threading

class Batcher:
    def __init__(self):
        self.items = collections.deque()
        self.some = threading.Condition()
        threading.Thread(target=self.send, daemon=True).start()

    def send(self):
        while True:
            with self.some:
                self.some.wait(8)
            self.items.clear()

batcher = Batcher()

def app(environ, start_response):
    batcher.items.append(1)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
"""


def test_a_thread_that_lets_work_collect_for_a_while_is_well(run: Run, tmp_path: Path) -> None:
    place = write(tmp_path, COLLECTS, "workers = 1\nworker_class = 'gthread'\n")
    code, out, err = run("check", "app:app", "--chdir", place, "--quick")
    assert code == 0, out + err


CHAIN = """\
import threading

def again():
    timer = threading.Timer(0.03, again)
    timer.daemon = True
    timer.start()

again()

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
"""


@pytest.mark.parametrize("patched", [True, False])
def test_a_chain_of_timers(patched: bool, run: Run, tmp_path: Path) -> None:
    # More turns than births are told of; in a patched master each fork takes a copy along.
    first = "from gevent import monkey; monkey.patch_all()\npreload_app = True\n" if patched else ""
    place = write(tmp_path, CHAIN, first + "workers = 1\nworker_class = 'gevent'\n")
    words = ("check", "app:app", "--chdir", place, "--faults", "kill_worker,term", "--json", "report.json")
    code, out, err = run(*words)
    (loop,) = json.loads((tmp_path / "report.json").read_bytes())["loops"]
    assert (loop["name"], loop["kind"]) == ("again", "timer")
    for after in ("boot", "kill_worker"):
        assert ("worker", 0, patched) in places(loop, after)
    assert code == (1 if patched else 0), out + err


def test_a_pool_of_processes_is_well(run: Run, tmp_path: Path) -> None:
    # The thread that feeds it waits on a condition, whose list of who waits is no queue.
    app = APP.replace("import threading, time", "import concurrent.futures, threading, time").replace(
        "threading.Thread(target=listen, daemon=True).start()",
        "pool = concurrent.futures.ProcessPoolExecutor(1)\npool.submit(int, 1).result()",
    )
    place = write(tmp_path, app, "workers = 1\nworker_class = 'gthread'\ngraceful_timeout = 2\n")
    _, out, _ = run("check", "app:app", "--chdir", place, "--quick", "--json", "report.json")
    claims = json.loads((tmp_path / "report.json").read_bytes())["claims"]
    assert not [claim for claim in claims if claim["name"] == "no_starved_greenlet" and claim["verdict"] == "broken"], (
        out
    )


HEARS = """\
import os, threading
import redis

def listen():
    pubsub = redis.Redis.from_url(os.environ["REDIS_URL"]).pubsub()
    pubsub.subscribe("orders")
    for _ in pubsub.listen():
        pass

threading.Thread(target=listen, daemon=True).start()

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
"""


@pytest.mark.parametrize("kind", ["embedded", "redis-server"])
def test_a_redis_tells_who_is_subscribed(kind: str, run: Run, tmp_path: Path) -> None:
    if kind != "embedded" and not shutil.which(kind):
        pytest.skip(f"no {kind} is installed")
    place = write(tmp_path, HEARS, "workers = 2\n")
    with broker.start(broker.parse(kind), tmp_path) as redis:  # as one's own, which is named by its URL
        code, out, err = run(
            "check", "app:app", "--chdir", place, "--quick", "--redis", redis.url, "--json", "report.json"
        )
    assert code == 0, out + err
    report = json.loads((tmp_path / "report.json").read_bytes())
    validate(report, "check")
    (told,) = report["redis"]
    assert (told["address"], told["after"], told["error"]) == (f"127.0.0.1:{redis.port}", "boot", None)
    assert told["channels"] == {"orders": 2}
    assert [(one["role"], one["slot"], one["connections"], one["subscriptions"]) for one in told["processes"]] == [
        ("worker", 0, 1, 1),
        ("worker", 1, 1, 1),
    ]
    assert "channel orders" in out
