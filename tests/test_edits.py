"""Changes of a user's files: what they come to, that they can be applied, and what is left alone."""

from __future__ import annotations

import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest

from forkproof import edits


def text(words: str) -> str:
    return textwrap.dedent(words).lstrip("\n")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "preload_app = False\n"),
        ("workers = 2", "workers = 2\npreload_app = False\n"),
        ("preload_app = True  # quick\nworkers = 2\n", "preload_app = False  # quick\nworkers = 2\n"),
        ("preload_app = (\n    True\n)\n", "preload_app = (\n    False\n)\n"),
        ("é = 1; preload_app = True\n", "é = 1; preload_app = False\n"),
        # What is set again, or used, is set once more at the end: there it counts.
        (
            "preload_app = True\nif x: preload_app = x\n",
            "preload_app = True\nif x: preload_app = x\npreload_app = False\n",
        ),
    ],
)
def test_a_setting(before: str, after: str) -> None:
    assert edits.setting(before, "preload_app", False) == after


def test_what_is_no_python_is_left_alone() -> None:
    assert edits.setting("workers =", "workers", 2) is None
    assert edits.patched("(") is edits.unpatched("(") is edits.into_function("(", 1, "x") is None
    assert edits.in_hook("(", "post_fork", "app", "start") is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "from gevent import monkey\n\nmonkey.patch_all()\n"),
        ("import os\n", "from gevent import monkey\n\nmonkey.patch_all()\n\nimport os\n"),
        ('"""Doc."""\nx = 1\n', '"""Doc."""\n\nfrom gevent import monkey\n\nmonkey.patch_all()\n\nx = 1\n'),
        (
            "#!/usr/bin/python\nfrom __future__ import annotations\n",
            "#!/usr/bin/python\nfrom __future__ import annotations\n\n"
            "from gevent import monkey\n\nmonkey.patch_all()\n",
        ),
    ],
)
def test_patching_first(before: str, after: str) -> None:
    assert edits.patched(before) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from gevent import monkey\n\nmonkey.patch_all()\n\nworkers = 2\n", "workers = 2\n"),
        ("from gevent import monkey; monkey.patch_all()\nimport os\n", "import os\n"),
        ("import gevent.monkey\ngevent.monkey.patch_all(thread=False)\nx = 1\n", "x = 1\n"),
        ("from gevent.monkey import patch_all; patch_all(); x = 1\n", "x = 1\n"),
        # Used for more than that.
        (
            "import gevent.monkey\ngevent.monkey.patch_all()\ngevent.spawn(f)\n",
            "import gevent.monkey\ngevent.spawn(f)\n",
        ),
        # Not at the top: somebody else decides when.
        ("def post_fork(s, w):\n    monkey.patch_all()\n", "def post_fork(s, w):\n    monkey.patch_all()\n"),
    ],
)
def test_without_patches(before: str, after: str) -> None:
    assert edits.unpatched(before) == after


def test_flags_of_patches() -> None:
    before = "monkey.patch_all(thread=False, queue=True)\nx = 1\n"
    assert edits.patch_calls(before) == [{"thread": False, "queue": True}]
    assert edits.patching_everything(before) == "monkey.patch_all()\nx = 1\n"


APP = text("""
    import threading

    app = Flask(__name__)


    def listen():
        pass


    threading.Thread(target=listen).start()


    @app.route("/")
    def index():
        return "ok"
    """)


def test_a_statement_becomes_a_function() -> None:
    start = edits.into_function(APP, 10, "listen", keep="app")
    assert start is not None
    assert start.function == "start_listen"
    assert start.text == APP.replace(
        "threading.Thread(target=listen).start()\n",
        "def start_listen():\n    threading.Thread(target=listen).start()\n",
    )


def test_what_a_statement_makes_stays_known_to_the_module() -> None:
    before = "pubsub = 1\nthread = pubsub.run_in_thread(\n    sleep_time=0.1,\n)\n"
    start = edits.into_function(before, 3, "PubSubWorkerThread.run")
    assert start is not None
    assert start.text == text("""
        pubsub = 1


        def start_run():
            global thread
            thread = pubsub.run_in_thread(
                sleep_time=0.1,
            )
        """)


def test_a_call_of_a_function_of_the_module_needs_no_other() -> None:
    start = edits.into_function("def begin():\n    pass\n\n\nbegin()\nx = 1\n", 5, "listen")
    assert start == edits.Start("def begin():\n    pass\n\n\nx = 1\n", "begin")


def test_a_block_is_moved_whole() -> None:
    before = "if not TESTING:\n    a = 1\n    begin(a)\nx = 1\n"
    start = edits.into_function(before, 3, "listen")
    assert start is not None
    assert "def start_listen():\n    global a\n    if not TESTING:\n        a = 1\n        begin(a)\n" in start.text


@pytest.mark.parametrize(
    ("before", "line"),
    [
        ("import background\n", 1),
        ("app = create()\n", 1),  # gunicorn needs it
        ("client = begin()\nclient.use()\n", 1),  # the next line does
        ("query(begin(), '''a\nb''')\n", 1),  # indenting would change the text
        ("if x:\n    def f(): pass\n    begin(f)\n", 3),
        ("class A:\n    begin()\n", 2),
        ("x = 1\n", 7),
    ],
)
def test_what_cannot_be_moved_stays(before: str, line: int) -> None:
    assert edits.into_function(before, line, "listen", keep="app") is None


FACTORY = text("""
    scheduler = Scheduler()


    def create_app():
        app = Flask(__name__)
        scheduler.init_app(app)
        if ENABLED:
            scheduler.start()
        return app
    """)


def test_what_a_factory_starts_without_its_own_names_can_be_moved() -> None:
    start = edits.into_function(FACTORY, 8, "Scheduler._main_loop")
    assert start is not None
    assert start.text.endswith(
        "            pass\n    return app\n\n\ndef start_main_loop():\n    scheduler.start()\n".replace(
            "            pass", "        pass"
        )
    )
    assert edits.into_function(FACTORY, 6, "loop") is None  # it needs `app`


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "def post_fork(server, worker):\n    from app import start\n\n    start()\n"),
        (
            "def post_fork(server, worker):\n  log()\n",
            "def post_fork(server, worker):\n  log()\n\n  from app import start\n\n  start()\n",
        ),
    ],
)
def test_a_hook(before: str, after: str) -> None:
    assert edits.in_hook(before, "post_fork", "app", "start") == after


@pytest.mark.parametrize(
    "before", ["post_fork = hooks.begin\n", "def post_fork(s, w): log()\n", "def post_fork(s, w):\n    return\n"]
)
def test_a_hook_that_cannot_be_added_to(before: str) -> None:
    assert edits.in_hook(before, "post_fork", "app", "start") is None


@pytest.mark.parametrize("before", [None, "workers = 2", "workers = 2\n", ""])
def test_a_diff_is_what_patch_applies(before: str | None, tmp_path: Path) -> None:
    if shutil.which("patch") is None:
        pytest.skip("there is no patch")
    place = tmp_path / "gunicorn.conf.py"
    if before is not None:
        place.write_text(before, encoding="utf-8")
    after = edits.setting(before or "", "preload_app", True)
    assert after is not None
    given = edits.diff({"gunicorn.conf.py": (before, after)})
    subprocess.run(["patch", "-p1", "-s"], cwd=tmp_path, input=given, text=True, check=True)
    assert place.read_text(encoding="utf-8") == after


@pytest.mark.parametrize(
    ("before", "line", "after"),
    [
        ("Thread(target=listen).start()\n", 1, "Thread(target=listen, daemon=True).start()\n"),
        ("x = 1\nthreading.Thread(\n    target=listen,\n).start()\n", 4,
         "x = 1\nthreading.Thread(\n    target=listen, daemon=True,\n).start()\n"),
        ("Process(target=f, daemon=False).start()\n", 1, "Process(target=f, daemon=True).start()\n"),
        ("t = Thread(None, f)\nt.start()\n", 2, "t = Thread(None, f, daemon=True)\nt.start()\n"),
        ("def f():\n    t = Thread()\n    t.start()\n", 3, "def f():\n    t = Thread(daemon=True)\n    t.start()\n"),
        # Which one it is cannot be told, or it is no thread, or another line.
        ("t = Thread()\nt = Thread()\nt.start()\n", 3, None),
        ("Scheduler().start()\n", 1, None),
        ("Thread(target=listen).start()\n", 2, None),
        ("(", 1, None),
    ],
)  # fmt: skip
def test_a_thread_as_a_daemon(before: str, line: int, after: str | None) -> None:
    assert edits.as_daemon(before, line) == after
