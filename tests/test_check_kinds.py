"""`forkproof check` on apps that are started in other ways, and what it offers to cause work or to keep it here."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_check_servers import APP, _stack, places, write
from test_cli import Run, run, tmp_path

__all__ = ["_stack", "run", "tmp_path"]
pytestmark = pytest.mark.fork

CONF = "workers = 1\nworker_class = 'gthread'\n"
ANSWER = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
"""


def checked(run: Run, place: Path, *words: object, app: str = "app:app") -> tuple[int, dict[str, Any], str]:
    code, out, err = run("check", app, "--chdir", place, "--quick", "--json", "report.json", *words)
    path = place.parent / "report.json"
    return code, json.loads(path.read_bytes()) if path.exists() else {}, out + err


def test_a_factory(run: Run, tmp_path: Path) -> None:
    text = APP.replace("threading.Thread(target=listen, daemon=True).start()\n", "").replace("def app(", "def answer(")
    made = "\ndef create_app():\n    threading.Thread(target=listen, daemon=True).start()\n    return answer\n"
    place = write(tmp_path, text + made, CONF)
    (place / "shop").mkdir()
    (place / "app.py").rename(place / "shop" / "__init__.py")
    code, report, told = checked(run, place, app="shop:create_app()")
    assert code == 0, told
    assert places(report["loops"][0]) == [("worker", 0, False)]
    assert "listen: shop/__init__.py:3, started by call of create_app at shop/__init__.py:13" in " ".join(told.split())


def test_a_factory_that_spawns(run: Run, tmp_path: Path) -> None:
    text = APP.replace("threading.Thread(target=listen, daemon=True).start()\n", "").replace("def app(", "def answer(")
    made = "\nimport gevent\ndef create_app():\n    gevent.spawn(listen)\n    return answer\n"
    place = write(tmp_path, text + made, CONF.replace("gthread", "gevent"))
    code, _, told = checked(run, place, app="app:create_app()")
    assert code == 0, told
    assert "started by call of create_app at app.py:14" in " ".join(told.split())


def test_an_app_with_a_sitecustomize_of_its_own(run: Run, tmp_path: Path) -> None:
    text = "import sitecustomize\nassert sitecustomize.MINE\n" + APP
    place = write(tmp_path, text, CONF)
    own = tmp_path / "own"
    own.mkdir()
    (own / "sitecustomize.py").write_text("MINE = True\n", encoding="utf-8")
    code, report, told = checked(run, place, "--env", f"PYTHONPATH={own}")
    assert code == 0, told
    assert [loop["name"] for loop in report["loops"]] == ["listen"]
    assert [path.name for path in own.iterdir()] == ["sitecustomize.py"]


def test_a_port_that_is_in_use(run: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        place = write(tmp_path, APP, CONF + f"bind = '127.0.0.1:{busy.getsockname()[1]}'\n")
        code, report, told = checked(run, place, "--keep-bind")
        assert (code, report) == (2, {})
        assert "an address that it needs is in use" in told
        assert checked(run, place)[0] == 0  # at one of ours


def test_an_app_that_takes_its_time_to_boot(run: Run, tmp_path: Path) -> None:
    place = write(tmp_path, "import time\ntime.sleep(20)\n" + APP, CONF)
    code, report, told = checked(run, place)
    assert code == 0, told
    assert places(report["loops"][0]) == [("worker", 0, False)]


def test_an_app_that_hangs_at_its_boot_names_its_loops(run: Run, tmp_path: Path) -> None:
    hangs = "threading.Thread(target=int).start()\nimport time\ntime.sleep(1000)\n"
    place = write(tmp_path, APP + hangs, CONF + "timeout = 100\n")
    code, report, told = checked(run, place, "--boot", "3")
    assert (code, [loop["name"] for loop in report["loops"]]) == (1, ["listen"]), told
    assert "listen  thread  worker 0 (pid " in told
    assert "Until then it had started `listen`, app.py:" in told


def test_an_app_that_ends_its_workers_as_they_boot(run: Run, tmp_path: Path) -> None:
    """gunicorn replaces them for ever: that costs no bound of a boot, and the reason is told."""
    place = write(tmp_path, "import sys\nsys.exit('no licence')\n" + ANSWER, CONF)
    code, _, told = checked(run, place, "--boot", "500")
    assert code == 2
    assert told.splitlines()[-1].endswith("app:app: cannot be imported, by gunicorn or without it: no licence")
    (place / "app.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n" + ANSWER)
    assert "without it: it ends by SIGSEGV" in checked(run, place, "--boot", "500")[2]
    (place / "app.py").write_text(ANSWER)
    (place / "gunicorn.conf.py").write_text(CONF + "def post_fork(server, worker):\n    raise SystemExit(1)\n")
    code, _, told = checked(run, place, "--boot", "500")
    assert code == 1
    assert re.search(r"workers_boot BROKEN: the app did not boot: \d+ workers ended before one had booted", told), told


def test_a_configuration_that_gunicorn_refuses(run: Run, tmp_path: Path) -> None:
    place = write(tmp_path, ANSWER, "workers = 'many'\n")
    code, _, told = checked(run, place)
    assert (code, "did not start: Invalid value for workers: many: Error: invalid literal" in told) == (2, True), told
    (place / "gunicorn.conf.py").write_text("worker_class = 'nobody'\n")
    code, _, told = checked(run, place)
    assert (code, "Set worker_class to one that this gunicorn has." in told) == (2, True), told


def test_a_configuration_without_workers(run: Run, tmp_path: Path) -> None:
    code, _, told = checked(run, write(tmp_path, ANSWER, "workers = 0\n"), "--boot", "1")
    assert (code, "is configured to have no workers" in told) == (2, True), told


def test_an_error_in_a_hook_is_told_with_its_place(run: Run, tmp_path: Path) -> None:
    hook = "def post_worker_init(worker):\n    raise ValueError('nope')\n"
    code, _, told = checked(run, write(tmp_path, ANSWER, CONF + hook))
    assert code == 1
    assert "The last error that was printed: ValueError: nope (gunicorn.conf.py:4)." in told


def test_workers_that_listen_each_for_itself(run: Run, tmp_path: Path) -> None:
    place = write(tmp_path, ANSWER, CONF + "reuse_port = True\n")
    code, _, told = checked(run, place)
    assert (code, "with reuse_port each worker listens at a port of its own" in told) == (2, True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (place / "gunicorn.conf.py").write_text(CONF + f"reuse_port = True\nbind = '127.0.0.1:{port}'\n")
    code, _, told = checked(run, place, "--keep-bind")
    assert code == 0, told


def test_workers_that_max_requests_ends(run: Run, tmp_path: Path) -> None:
    place = write(tmp_path, APP, CONF.replace("workers = 1", "workers = 2") + "max_requests = 3\n")
    code, _, told = checked(run, place)
    assert code == 0, told


def test_an_app_of_more_threads_than_python_dumps(run: Run, tmp_path: Path) -> None:
    start = "threading.Thread(target=listen, daemon=True).start()\n"
    place = write(tmp_path, APP.replace(start, f"for _ in range(120):\n    {start}"), CONF)
    code, report, told = checked(run, place)
    assert code == 0, told
    assert report["loops"][0]["processes"][0]["units"] == 120


def test_a_check_is_judged_again_and_drawn(run: Run, tmp_path: Path) -> None:
    place = write(tmp_path, APP, CONF + "preload_app = True\n")
    code, report, _ = checked(run, place, "--policy", "listen=once_per_worker", "--request", "/it's")
    assert code == 1
    folder = Path(report["run"])
    (folder / "verdict.json").unlink()
    assert run("recheck", folder, "--json", "again.json")[0] == 1
    assert json.loads((tmp_path / "again.json").read_bytes())["claims"] == report["claims"]
    assert (folder / "verdict.json").exists()
    code, _, err = run("timeline", folder, "--html", "drawn.html")
    assert code == 0, err
    drawn = (tmp_path / "drawn.html").read_text(encoding="utf-8")
    assert "listen · thread: " in drawn
    assert f"created by import of app.py at {place}/app.py:" in drawn
    again = ["check", "app:app", "--chdir", str(place), "--target", sys.executable]
    again += ["--faults", "term", "--request", "/it's"]
    again += ["--policy", "listen=once_per_worker"]
    for command in (("replay", folder), ("export", folder, tmp_path / "to")):
        code, _, err = run(*command)
        assert (code, shlex.split(err.partition("again: forkproof ")[2])) == (2, again), err
    (folder / "check.json").write_text("{}")
    code, _, err = run("recheck", folder)
    assert (code, "check.json: app: Field required" in err) == (2, True), err


BY_KEY = """
import threading, time
todo = {}
def drain():
    while True:
        time.sleep(0.02)
        while todo:
            todo.popitem()
threading.Thread(target=drain, daemon=True).start()
def app(environ, start_response):
    todo[environ["PATH_INFO"]] = True
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
"""


def test_work_that_comes_under_a_key(run: Run, tmp_path: Path) -> None:
    place = write(tmp_path, BY_KEY, CONF + "preload_app = True\n")
    code, _, told = checked(run, place, "--request", "/orders/{n}")
    assert (code, "no_dead_listener (drain) BROKEN" in told) == (1, True), told
    (place / "gunicorn.conf.py").write_text(CONF)
    code, _, told = checked(run, place, "--request", "/orders/{n}")
    assert code == 0, told


LEAVES = """
import socket
try:
    socket.create_connection(("192.0.2.1", 80), timeout=0.5).close()
except PermissionError as error:
    assert "refused by forkproof check --offline" in str(error)
except OSError:
    pass
"""


def test_what_leaves_this_machine_is_refused(run: Run, tmp_path: Path) -> None:
    place = write(tmp_path, LEAVES + ANSWER, CONF)
    code, report, told = checked(run, place, "--offline")
    assert code == 0, told
    assert report["refused"] == ["192.0.2.1"]
    assert checked(run, place)[1]["refused"] == []


def test_an_embedded_redis(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("redis")
    text = "import os, redis\nassert redis.Redis.from_url(os.environ['REDIS_URL']).ping()\n" + ANSWER
    place = write(tmp_path, text, CONF)
    code, _, told = checked(run, place, "--redis", "embedded")
    assert code == 0, told


ON_WORK = """
import os, queue, threading, time

work = queue.Queue()

def consume():
    while True:
        work.get()
        time.sleep(0.05)

def app(environ, start_response):
    if environ["PATH_INFO"] == "/work":
        if not threading.active_count() > 5:
            threading.Thread(target=consume, daemon=True).start()
        work.put(1)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
"""


def test_work_that_requests_and_commands_cause(run: Run, tmp_path: Path) -> None:
    place = write(tmp_path, ON_WORK, CONF)
    assert checked(run, place)[1]["loops"] == []
    seen = tmp_path / "seen"
    code, report, told = checked(run, place, "--request", "/work", "--event", f"pwd > {seen}")
    assert code == 0, told
    (loop,) = report["loops"]
    assert (loop["name"], loop["started"].partition(" ")[0]) == ("consume", "request")
    assert os.path.samefile(seen.read_text(encoding="utf-8").strip(), place)
    ask = "import os, urllib.request as one; one.urlopen(os.environ['FORKPROOF_URL'] + '/work').read()"
    code, report, told = checked(run, place, "--event", f'{sys.executable} -c "{ask}"')
    assert [loop["name"] for loop in report["loops"]] == ["consume"], told


BUFFERS = """
import _thread, asyncio, collections, heapq, threading, time

class Buffer:
    def __init__(self, taken):
        self.taken = taken
        self.things, self.last = [], collections.deque(maxlen=99)
        threading.Thread(target=taken, args=(self,), daemon=True).start()

    def exchange(self):
        while True:
            self.things, things = [], self.things
            time.sleep(0.02)

    def remember(self):
        while True:
            print(end="".join(self.last), flush=True)
            time.sleep(0.02)

class Store:
    def __init__(self):
        self.waiting, self.free = [], []

    def take(self):
        if self.waiting:
            heapq.heappop(self.waiting)

    def use(self):
        thing = self.free.pop() if self.free else object()
        time.sleep(0.05)
        self.free.append(thing)

class Shop:
    def __init__(self, store):
        self.store = store

class Clerk:
    def __init__(self, work):
        self.shop = Shop(Store())
        threading.Thread(target=work, args=(self,), daemon=True).start()

    def sell(self):
        while True:
            self.shop.store.take()
            time.sleep(0.02)

    def tidy(self):
        while True:
            self.shop.store.use()

class Every(threading.Thread):
    def __init__(self, function):
        super().__init__(daemon=True)
        self.function = function

    def run(self):
        while True:
            self.function()
            time.sleep(0.02)

class Totals:
    def __init__(self):
        self.by_name = {}
        self.every = Every(lambda: self.send())
        self.every.start()

    def send(self):
        self.by_name.clear()

class Late:
    def consume(self):
        self.store = Store()
        while True:
            self.store.take()
            time.sleep(0.02)

loops = []

async def stay():
    loops.append(asyncio.get_running_loop())
    await asyncio.sleep(600)

def serve():
    asyncio.run(stay())

def beat():
    while True:
        time.sleep(0.02)

_thread.start_new_thread(beat, ())
late = Late()
threading.Thread(target=late.consume, daemon=True).start()
threading.Thread(target=serve, daemon=True).start()
while not loops or not hasattr(late, "store"):
    time.sleep(0.01)
lost, remembered = Buffer(Buffer.exchange), Buffer(Buffer.remember)
seller, tidier, totals = Clerk(Clerk.sell), Clerk(Clerk.tidy), Totals()

def app(environ, start_response):
    heapq.heappush(seller.shop.store.waiting, 1)
    heapq.heappush(late.store.waiting, 1)
    loops[0].call_soon_threadsafe(str)
    tidier.shop.store.use()
    totals.by_name.setdefault("order", []).append(1)
    lost.things.append("x")
    remembered.last.append("")
    remembered.things.append("x")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]
"""


def test_buffers_that_are_no_queues(run: Run, tmp_path: Path) -> None:
    """One is exchanged, one another object's, one counts by name, one is to remember by, one has what is used again.

    One was made by the thread itself, and one is an event loop's, which its thread alone knows.
    """
    place = write(tmp_path, BUFFERS, CONF + "preload_app = True\nthreads = 4\n")
    code, report, told = checked(run, place, "--request", "/")
    assert code == 1, told
    broken = [claim["id"] for claim in report["claims"] if claim["verdict"] == "broken"]
    assert broken == [
        f"no_dead_listener:{name}:dead in worker"
        for name in ("Late.consume", "serve", "Buffer.exchange", "Clerk.sell", "Every.run")
    ]
    found = {loop["name"]: places(loop)[0] for loop in report["loops"]}
    names = (
        "Late.consume", "serve", "Buffer.exchange", "Buffer.remember", "Clerk.sell", "Clerk.tidy", "Every.run", "beat",
    )  # fmt: skip
    assert found == dict.fromkeys(names, ("arbiter", None, False))


BUSY = (
    """
import gevent

def spin():
    while True:
        gevent.sleep(0)
"""
    + ANSWER
)


def test_a_worker_whose_loop_is_never_idle_has_booted(run: Run, tmp_path: Path) -> None:
    start = "\ndef post_worker_init(worker):\n    import app, gevent\n    gevent.spawn(app.spin)\n"
    place = write(tmp_path, BUSY, "workers = 1\nworker_class = 'gevent'\n" + start)
    code, report, told = checked(run, place)
    assert code == 0, told
    assert [loop["name"] for loop in report["loops"]] == ["spin"]


@pytest.mark.parametrize(
    ("app", "config", "words", "code", "told"),
    [
        ("app:app", "workers = (", (), 2, "did not start: SyntaxError: '(' was never closed (gunicorn.conf.py:1)"),
        ("app:app", "import os; os.environ['NEEDED']", (), 2, "(gunicorn.conf.py:1). Give it with --env NEEDED=VALUE."),
        ("app:app", "worker_class = 'lacks.Worker'", (), 3, "No module named 'lacks'. Install it in the target"),
        ("app:app", "", ("-c", "nowhere.py"), 2, "gunicorn did not start: Error: 'nowhere.py' doesn't exist"),
        ("app:other", "", (), 2, "Failed to find attribute 'other' in 'app'. Give MODULE:NAME"),
        ("app:nothing", "", (), 2, "Failed to find application object: 'nothing'. Give MODULE:NAME"),
        ("lacks:app", "chdir = '..'", (), 2, "lacks:app: cannot be imported, by gunicorn or without it: Module"),
        # Where gunicorn looks for it, it is found; what is wrong is told of that.
        ("inner:app", "chdir = 'src'", (), 2, "cannot be imported, by gunicorn or without it: OSError: no route"),
    ],
)  # fmt: skip
def test_what_never_starts_is_refused_with_its_cause(
    app: str, config: str, words: tuple[str, ...], code: int, told: str, run: Run, tmp_path: Path
) -> None:
    place = write(tmp_path, "nothing = None\n" + ANSWER, config)
    (place / "src").mkdir()
    (place / "src" / "inner.py").write_text("raise OSError('no route')\n", encoding="utf-8")
    found, report, said = checked(run, place, *words, app=app)
    assert (found, report) == (code, {}), said
    assert told in said


def test_a_folder_that_is_not_there(run: Run, tmp_path: Path) -> None:
    code, _, said = checked(run, tmp_path / "app")
    assert (code, "there is no such folder" in said) == (2, True)


@pytest.mark.parametrize("kind", ["sync", "gthread", "gevent"])
def test_a_server_that_talks_tls(kind: str, run: Run, tmp_path: Path) -> None:
    if not shutil.which("openssl"):
        pytest.skip("there is no openssl to make a certificate with")
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    words += ["-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(["openssl", *words], cwd=tmp_path, check=True, capture_output=True)
    config = f"workers = 2\nworker_class = {kind!r}\ncertfile = '../cert.pem'\nkeyfile = '../key.pem'\n"
    place = write(tmp_path, APP, config)
    ask = "import os, ssl, urllib.request as one; no = ssl._create_unverified_context(); "
    ask += f"open('{tmp_path}/seen', 'wb').write(one.urlopen(os.environ['FORKPROOF_URL'], context=no).read())"
    code, report, told = checked(run, place, "--event", f'{sys.executable} -c "{ask}"')
    assert code == 0, told
    assert report["server"]["tls"] is True
    assert places(report["loops"][0]) == [("worker", 0, False), ("worker", 1, False)]
    assert (tmp_path / "seen").read_bytes() == b"ok"


HELPER = """
import multiprocessing, os, subprocess, sys

def work(path):
    import other
    with open(path, "a") as file:
        file.write("spawned\\n")

def start(path):
    multiprocessing.get_context("spawn").Process(target=work, args=(path,), daemon=True).start()
    subprocess.run([sys.executable, "-c", f"import other; open({path!r}, 'a').write('program\\\\n')"], check=True)
"""


def test_no_bytecode_comes_into_the_apps_folder_from_whatever_it_starts(run: Run, tmp_path: Path) -> None:
    # The fixture has taken PYTHONDONTWRITEBYTECODE out of the environment.
    seen = tmp_path / "seen"
    start = f"\ndef post_worker_init(worker):\n    import helper\n    helper.start({str(seen)!r})\n"
    place = write(tmp_path, "import other\n" + ANSWER, CONF + "graceful_timeout = 2\n" + start)
    (place / "helper.py").write_text(HELPER, encoding="utf-8")
    (place / "other.py").write_text("", encoding="utf-8")
    before = sorted(place.rglob("*"))
    run("check", "app:app", "--chdir", place)
    told = seen.read_text(encoding="utf-8").splitlines()
    assert min(told.count("spawned"), told.count("program")) >= 3, told  # at the boot, after the kill, after the reload
    assert sorted(place.rglob("*")) == before


FORKS = (
    """
import multiprocessing, signal, threading, time

def work():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as gunicorn has set it, it would not end
    while True:
        time.sleep(0.02)

def manage():
    multiprocessing.get_context("fork").Process(target=work, daemon=True).start()
    while True:
        time.sleep(0.02)

threading.Thread(target=manage, daemon=True).start()
"""
    + ANSWER
)


def test_a_thread_that_forks_is_not_the_childs(run: Run, tmp_path: Path) -> None:
    """The child runs by it from then on, so that it counts as alive there, and is no loop there."""
    code, report, told = checked(run, write(tmp_path, FORKS, CONF))
    assert code == 0, told
    found = {loop["name"]: places(loop) for loop in report["loops"]}
    assert found == {"manage": [("worker", 0, False)], "work": [("child", 0, False)]}


INHERITED = """
import multiprocessing, time

def work():
    while True:
        time.sleep(0.1)

process = multiprocessing.get_context("fork").Process(target=work, daemon=True)
process.start()
"""
FORGOTTEN = "def post_fork(server, worker):\n    import multiprocessing.process as one\n    one._children.clear()\n"


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_process_of_the_masters_that_a_worker_ends(forgotten: bool, run: Run, tmp_path: Path) -> None:
    """As multiprocessing does, with what it knows of, when a worker exits that a reload has told to."""
    config = CONF + "preload_app = True\n" + FORGOTTEN * forgotten
    place = write(tmp_path, INHERITED + ANSWER, config)
    code, _, out = run("check", "app:app", "--chdir", place, "--faults", "hup,term", "--json", "report.json")
    report = json.loads((tmp_path / "report.json").read_bytes())
    found = [claim["id"] for claim in report["claims"] if claim["verdict"] == "broken"]
    assert found == ([] if forgotten else ["no_dead_listener:work:ended by another"]), out
    assert code == (not forgotten), out
