"""What a server may find imported when it starts, by its scenario. Nothing is launched."""

from __future__ import annotations

import pytest
from neutrality import deployment

from forkproof.nest import Plan, neutral

SERVER = "gunicorn.app.wsgiapp"
SYNC, GEVENT = "class:sync", "class:gevent"
APP = ("-hiredis", "logging", "ssl")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (deployment(), (SERVER, SYNC)),
        (deployment(preload=True), (SERVER, SYNC, *APP, "redis", "flask")),
        (deployment(preload=True, redis=False), (SERVER, SYNC, *APP, "flask")),
        (deployment(worker_class="gevent"), (SERVER, GEVENT)),
        # The class patches once the worker is forked: after a preloaded app, and before another one.
        (deployment(worker_class="gevent", preload=True), (SERVER, GEVENT, *APP, "redis", "flask")),
        (deployment("post_fork", preload=True), (SERVER, SYNC, *APP, "redis", "flask")),
        (deployment("interpreter_start", preload=True, redis=False), (SERVER, SYNC, *APP, "flask")),
        (deployment("app_after_imports", preload=True, redis=False), (SERVER, SYNC, *APP, "redis", "flask")),
        # What is imported after one of these patches is not what it was before.
        (deployment("app_first_line", preload=True), (SERVER, SYNC)),
        (deployment("config_first_line", preload=True), (SERVER, "gevent.monkey")),
        (deployment("config_after_imports", worker_class="gevent"), (SERVER, "gevent.monkey")),
    ],
)
def test_what_comes_before_the_first_patch_that_could_tell(what, words) -> None:  # type: ignore[no-untyped-def]
    assert neutral(what) == words


def test_all_servers_of_one_command_have_the_first_imports() -> None:
    plan = Plan(("python", "serve.py"), neutral(deployment(preload=True)))
    assert plan.first == Plan(("python", "serve.py"), (SERVER,))
    assert plan.first.first == plan.first
