"""Bodies and servers of other packages: what is refused, what is promised, and what each comes to in a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from histories import event, history, server, window
from probed import Probed

from forkproof import bodies, servers
from forkproof.bodies import Body
from forkproof.claims import judge
from forkproof.errors import MissingPackage, ScenarioError, UsageError
from forkproof.expectation import Expectation, expect
from forkproof.explore import abilities, drawn
from forkproof.faults import Life
from forkproof.judge import RunReport
from forkproof.plugin import Forkproof
from forkproof.reproducer.source import why_not
from forkproof.scenario import Loop, LoopBody, ParkPoint, Scenario, from_dict, parse, points_of
from forkproof.servers import GUNICORN, ServerKind, Start
from forkproof.target import Target, needs
from forkproof.verdict import Verdict
from forkproof_strategies import scenarios

GOOD = "class Mine(object):\n    def __init__(self, loop):\n        pass\n    def turn(self):\n        pass\n"
VERSIONS = {"python": "3.11.7", "gunicorn": "27.0.1", "gevent": "26.9.0"}
HERE = Target("/python", "3.11.7", {"gunicorn": "27.0.1", "flask": "3.1.3"}, ())
Add = Callable[..., Body]


@pytest.fixture
def add(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Add:
    """Registers a body called `mine`, as an installed package would."""

    def added(text: str = GOOD, **fields: Any) -> Body:
        path = tmp_path / "mine.py"
        path.write_text(text, encoding="utf-8")
        body = Body("mine", "It is mine.", str(path), "Mine", package="a 1.5", **fields)
        monkeypatch.setitem(bodies.REGISTRY, "mine", body)
        return body

    return added


def with_body(**fields: Any) -> Scenario:
    return from_dict({"loops": [{"name": "a", "body": "mine"}], **fields})


# Bodies


def test_our_bodies_are_known_to_whoever_looks_for_others() -> None:
    assert set(bodies.OURS) == set(LoopBody)
    assert {*bodies.LIKES} <= {"", *LoopBody}


def test_a_good_body(add: Add) -> None:
    assert bodies._wrong(add()) == ""


@pytest.mark.parametrize(
    ("text", "fields", "why"),
    [
        (GOOD, {"like": "lock"}, "it is like 'lock'; allowed: '', 'sleep'"),
        (GOOD, {"needs": "redis"}, "its needs must be a tuple"),
        ("class Mine:\n    def turn(self): match self:\n", {}, "its file is no Python 3.6: line 2"),
        ("class Mine:\n    def turn(self): return (x := 3)\n", {}, "its file is no Python 3.6: line 2"),
        (GOOD.replace("Mine", "Other"), {}, "its file has no class 'Mine' at its top"),
        (GOOD.replace("turn", "tick"), {}, "its class Mine has no turn"),
        (GOOD.replace("def turn", "async def turn"), {}, "its class Mine has no turn, which must be a plain function"),
        ("\0", {}, "its file "),
    ],
)
def test_a_bad_body_is_refused_with_the_reason(add: Add, text: str, fields: dict[str, Any], why: str) -> None:
    assert bodies._wrong(add(text, **fields)).startswith(why)


def test_a_body_without_a_file_or_a_definition() -> None:
    assert bodies._wrong(Body("mine", "x", "/nowhere.py", "Mine")).startswith("its file cannot be read: ")
    assert bodies._wrong(Body("mine", "x", None, "Mine")).startswith("its file cannot be read: ")  # type: ignore[arg-type]
    assert bodies._wrong(Body("mine", " ", "/nowhere.py", "Mine")) == "it has no definition"


def test_a_scenario_names_it_and_keeps_its_name(add: Add) -> None:
    with pytest.raises(ScenarioError, match=r"'mine' is no body; allowed: sleep, listen, .*, cpu$"):
        with_body()
    add()
    what = with_body()
    assert what.loops[0].body.value == "mine"
    assert parse(what.to_json()) == what
    assert what.digest != from_dict({"loops": [{"name": "a"}]}).digest


@pytest.mark.parametrize("like", ["", "sleep", "listen", "get_message", "blpop"])
def test_what_it_is_like_says_what_it_hears(add: Add, like: str) -> None:
    add(like=like)
    loop = with_body().loops[0]
    same = Loop(name="a", body=LoopBody(like or "sleep"))
    assert (loop.hears_redis, loop.subscribes, loop.competes, loop.body.waits) == (
        same.hears_redis, same.subscribes, same.competes, same.body.waits,
    )  # fmt: skip
    assert Life.begin(with_body().to_dict() | {"loops": [loop.seen()]}).uses_redis == same.hears_redis
    # Nobody knows its connection, or where a turn of it waits.
    assert ParkPoint.RECV not in points_of(loop)


def test_nothing_is_promised_of_what_is_like_no_other(add: Add) -> None:
    add()
    assert expect(with_body(), "exactly_one_listener", "a", VERSIONS)[0] is Expectation.MAY_BREAK
    # A body that forks, or ends its process, is nobody's promise either.
    assert expect(with_body(), "no_copied_thread", "a", VERSIONS)[0] is Expectation.MAY_BREAK
    add(like="sleep")
    assert expect(with_body(), "exactly_one_listener", "a", VERSIONS)[0] is Expectation.MUST_HOLD
    twice = with_body(server={"workers": 2}, patches=[{"site": "config_first_line"}])
    assert expect(twice, "no_copied_thread", "a", VERSIONS)[0] is Expectation.MUST_HOLD
    copied = with_body(server={"preload": True}, patches=[{"site": "config_first_line"}])
    assert expect(copied, "no_copied_thread", "a", VERSIONS)[0] is Expectation.MUST_BREAK


def test_what_it_needs_is_asked_of_the_target(add: Add) -> None:
    add(needs=("pika",))
    assert needs(with_body())["pika"] == "body 'mine'"
    with pytest.raises(MissingPackage, match="/python: has no pika, which body 'mine' needs"):
        HERE.require(with_body())


def test_messages_are_not_applicable_unless_it_hears_them(add: Add) -> None:
    add()
    found = judge(with_body(), history(server(1), window()), ["every_message_handled_once", "subscriptions_match"])
    assert [(one.verdict, one.explanation) for one in found] == [
        (Verdict.NOT_APPLICABLE, "the body 'mine' hears no messages"),
        (Verdict.NOT_APPLICABLE, "the body 'mine' subscribes to nothing"),
    ]


def test_it_is_drawn(add: Add) -> None:
    add()
    found = {loop.body.value for what in drawn(60, 1, scenarios()) for loop in what.loops}
    assert {"mine", "sleep"} <= found


def test_it_is_not_drawn_where_the_target_lacks_what_it_needs(add: Add) -> None:
    add(needs=("pika",))
    _, lacks = abilities(HERE)
    assert "body mine" in lacks
    assert "body mine" not in abilities(replace(HERE, versions={**HERE.versions, "pika": "1.3"}))[1]
    found = {loop.body.value for what in drawn(60, 1, scenarios(without=["body mine"])) for loop in what.loops}
    assert "mine" not in found


INSIDE = """
    import json
    from forkproof_payload import bodies
    told = {{"file": {file!r}, "of": "Mine", "like": "sleep", "plugin": "the body 'mine' (a 1.5)"}}
    with open(os.path.join(os.environ["FORKPROOF_RUN"], "launch.json"), "w") as file:
        json.dump({{"bodies": {{"mine": told}}}}, file)
    from forkproof_payload.loops import Loop
    spec = {{"name": "a", "kind": "thread", "daemon": True, "body": "mine", "guard": "none",
            "yields": {{"call": "time.sleep", "seconds": 0, "every": 1}}}}
    try:
        loop = Loop(spec, "app_import", {{"host": "h"}}, "channel")
        loop.begin()
        loop.body.turn()
        loop.body.use()
        probe.event("told", at=loop.ticker.event.__class__.__name__)
    except bodies.Defect as defect:
        probe.event("refused", address=str(defect))
"""
MORE = "class Mine(object):\n    def __init__(self, loop):\n        self.loop = loop\n    def turn(self):\n        {}\n"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (GOOD, ""),
        (MORE.format("self.loop.handled(b'm-1'); self.loop.handled('m-2'); self.loop.subscribed()"), ""),
        ("import nothing_of_that_name\n" + GOOD, "it cannot be loaded: "),
        (GOOD.replace("Mine", "Yours"), "it cannot be loaded: AttributeError("),
        (GOOD.replace(", loop", ""), "Mine raised TypeError("),
        (MORE.format("return 3"), "turn returned 3"),
        (MORE.format("yield"), "turn returned <generator object Mine.turn"),
        (MORE.format("pass") + "    def begin(self):\n        return self.turn\n", "begin returned <bound method"),
        (MORE.format("pass") + "    def use(self):\n        return 'x'\n", "use returned 'x'"),
        (MORE.format("self.loop.handled(3)"), "handled() was given 3, which is no message"),
    ],
)
def test_a_body_that_is_bad_inside_the_server_is_named(python: str, tmp_path: Path, text: str, error: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text, encoding="utf-8")
    probed = Probed(python, tmp_path)
    assert probed.run(INSIDE.format(file=str(path))) == 0
    defects = probed.events("plugin.defect")
    if not error:
        assert not defects
        assert probed.events("told")
        [created] = probed.events("loop.created")
        assert created["defined_at"].endswith("/mine.py:4")
        assert list(probed.ticks().values()) == [1]
        assert {found["message"] for found in probed.events("handled")} in (set(), {"m-1", "m-2"})
        return
    [defect] = defects
    assert defect["plugin"] == "the body 'mine' (a 1.5)"
    assert defect["error"].startswith(error)
    assert probed.events("refused")[0]["address"].startswith("the body 'mine' (a 1.5): " + error)


def test_after_a_defect_nothing_is_known(add: Add) -> None:
    add()
    defect = [event(1.5, 1, "plugin.defect", plugin="the body 'mine' (a 1.5)", error="turn returned 3")]
    what = with_body()
    sound, judged = (judge(what, history(server(1), window(), *more), ["quiet_runtime"]) for more in ([], [defect]))
    assert [found.verdict for found in sound] == [Verdict.HELD]
    assert [found.verdict for found in judged] == [Verdict.UNKNOWN]
    assert judged[0].explanation.endswith(
        "but the body 'mine' (a 1.5) has a defect: turn returned 3. Correct it in the package that adds it"
    )


LISTENER = """
import redis

class Mine(object):
    def __init__(self, loop):
        self.loop = loop

    def begin(self):
        self.pubsub = redis.Redis(**self.loop.redis).pubsub()
        self.pubsub.subscribe(self.loop.channel)

    def turn(self):
        message = self.pubsub.get_message(timeout=0.05)
        if message and message["type"] == "subscribe":
            self.loop.subscribed()
        elif message and TAKES:
            self.loop.handled(message["data"])
"""


@pytest.mark.fork
@pytest.mark.parametrize("takes", [True, False])
def test_a_body_that_hears_messages_is_judged_by_them(forkproof: Forkproof, add: Add, takes: bool) -> None:
    add(LISTENER.replace("TAKES", str(takes)), like="get_message", needs=("redis",))
    report = forkproof.session.run(with_body(server={"workers": 2}))
    assert verdict(report, "exactly_one_listener") is Verdict.HELD, report
    for claim in ("every_message_handled_once", "subscriptions_match"):
        assert verdict(report, claim) is (Verdict.HELD if takes else Verdict.BROKEN), report


@pytest.mark.fork
def test_a_body_that_is_bad_in_a_server_comes_to_unknown(forkproof: Forkproof, add: Add) -> None:
    add(MORE.format("yield"))
    report = forkproof.session.run(with_body())
    applicable = [found for found in report.judgements if found.finding.verdict is not Verdict.NOT_APPLICABLE]
    assert {found.finding.verdict for found in applicable} == {Verdict.UNKNOWN}
    assert "the body 'mine' (a 1.5) has a defect: turn returned <generator" in applicable[0].finding.explanation


def verdict(report: RunReport, claim: str, loop: str | None = "a") -> Verdict:
    found = report.judgement(claim, loop)
    assert found is not None
    return found.finding.verdict


# Servers

START = Start(("/python",), "/conf.py", "app:app", ("/python", "/serve.py", "-c", "/conf.py", "app:app"))
AddServer = Callable[..., ServerKind]


@pytest.fixture
def add_server(monkeypatch: pytest.MonkeyPatch) -> AddServer:
    """Registers a server called `mine`, as an installed package would."""

    def added(command: Any = lambda start: ["/usr/bin/env", *start.gunicorn], **fields: Any) -> ServerKind:
        kind = ServerKind("mine", "It is mine.", command, package="a 1.5", **fields)
        monkeypatch.setitem(servers.REGISTRY, "mine", kind)
        return kind

    return added


def by_mine(**fields: Any) -> Scenario:
    more = fields.pop("server", {})
    return from_dict({"loops": [{"name": "a"}], "server": {"started_by": "mine", **more}, **fields})


def test_a_server_says_its_command(add_server: AddServer) -> None:
    assert servers._wrong(add_server()) == ""
    assert servers.command("mine", START) == ["/usr/bin/env", *START.gunicorn]
    assert servers.command(GUNICORN, START) == list(START.gunicorn)


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (lambda start: None, "returned None, which is no list of words"),
        (lambda start: [], "returned [], which is no list of words"),
        (lambda start: "/bin/sh", "returned '/bin/sh', which is no list of words"),
        (lambda start: ["/bin/sh", 3], "returned ['/bin/sh', 3], which is no list of words"),
        (lambda start: ["gunicorn"], "begins with 'gunicorn', which is no whole path of a program"),
        (lambda start: start.nothing, "raised AttributeError: 'Start' object has no attribute 'nothing'"),
    ],
)
def test_a_command_that_is_none_is_told_in_the_servers_name(add_server: AddServer, command: Any, why: str) -> None:
    add_server(command)
    with pytest.raises(UsageError) as refused:
        servers.command("mine", START)
    assert str(refused.value) == f"command of the server 'mine' (a 1.5) {why}"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"refuses": lambda scenario: "not so"}, "server.started_by: 'mine' is not possible here: not so"),
        ({"refuses": lambda scenario: None}, "refuses of the server 'mine' (a 1.5) returned None"),
        ({"refuses": lambda scenario: 1 / 0}, "refuses of the server 'mine' (a 1.5) raised ZeroDivisionError"),
    ],
)
def test_a_scenario_that_it_refuses(add_server: AddServer, fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ScenarioError, match=r"started_by: 'mine' is no server; allowed: gunicorn$"):
        by_mine()
    add_server(**fields)
    with pytest.raises(ScenarioError) as refused:
        by_mine()
    assert why in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"command": 3}, "its command and its refuses must be functions"),
        ({"refuses": 3}, "its command and its refuses must be functions"),
        ({"needs": "gunicorn"}, "its needs must be a tuple"),
    ],
)
def test_a_bad_server_is_refused_with_the_reason(add_server: AddServer, fields: dict[str, Any], why: str) -> None:
    assert servers._wrong(add_server(**fields)).startswith(why)
    assert servers._wrong(ServerKind("mine", "", lambda start: [])) == "it has no definition"


def test_what_is_promised_and_needed_of_a_server(add_server: AddServer) -> None:
    add_server(needs=("pika",))
    assert expect(by_mine(), "workers_boot", None, VERSIONS)[0] is Expectation.MAY_BREAK
    assert needs(by_mine()) == {"flask": "every scenario", "pika": "server 'mine'"}
    add_server(as_documented=True)
    assert expect(by_mine(), "workers_boot", None, VERSIONS)[0] is Expectation.MUST_HOLD
    assert needs(by_mine())["gunicorn"] == "server 'mine'"


def test_a_server_is_drawn_where_it_does_not_refuse(add_server: AddServer) -> None:
    add_server(refuses=lambda scenario: "no" if scenario["faults"] else "")
    found = {(what.server.started_by, bool(what.faults)) for what in drawn(60, 1, scenarios())}
    assert ("mine", False) in found
    assert ("mine", True) not in found


def test_a_program_without_forkproof_has_neither(add: Add, add_server: AddServer) -> None:
    add(like="cpu")
    add_server()
    told = "more than a few lines can have; run it with {!r}, and export that if it still breaks"
    assert why_not(by_mine()) == f"server.started_by: the server 'mine' of another package is {told.format('gunicorn')}"
    assert why_not(with_body()) == f"loops.0.body: the body 'mine' of another package is {told.format('cpu')}"
    assert why_not(from_dict({"loops": [{"name": "a"}]})) == ""


@pytest.mark.fork
@pytest.mark.parametrize("preload", [False, True])
def test_a_server_that_is_no_gunicorn(forkproof: Forkproof, add_server: AddServer, preload: bool) -> None:
    script = str(Path(__file__).with_name("prefork.py"))
    add_server(lambda start: [*start.python, script, start.config, start.app], needs=())
    ends = [{"fault": "kill_worker", "slot": 0}, {"fault": "term"}]
    report = forkproof.session.run(by_mine(server={"workers": 2, "preload": preload}, faults=ends))
    # As under gunicorn: a native thread stays behind in the master.
    assert verdict(report, "exactly_one_listener") is (Verdict.BROKEN if preload else Verdict.HELD), report
    for claim in ("server_answers", "workers_boot", "clean_shutdown", "quiet_runtime"):
        assert verdict(report, claim, None) is Verdict.HELD, report


CHILD = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"


@pytest.mark.fork
@pytest.mark.parametrize(
    ("command", "error"),
    [
        (lambda start: [start.python[0], "-c", CHILD, *start.gunicorn], "has read the configuration file, and not the"),
        (lambda start: [start.python[0], "-c", "import time; time.sleep(60)"], "no process of it has read the conf"),
    ],
)
def test_a_server_that_is_not_the_master_is_named(
    forkproof: Forkproof, add_server: AddServer, command: Any, error: str
) -> None:
    add_server(command)
    report = forkproof.session.run(by_mine())
    applicable = [found for found in report.judgements if found.finding.verdict is not Verdict.NOT_APPLICABLE]
    assert {found.finding.verdict for found in applicable} == {Verdict.UNKNOWN}, report
    told = {found.finding.explanation for found in applicable}
    assert any("the server 'mine' (a 1.5) has a defect: " in one and error in one for one in told), told
