"""What the documentation promises of deployments that many people have."""

from __future__ import annotations

from typing import Any

import pytest
from few import FEW
from hypothesis import given

from forkproof.claims import REGISTRY
from forkproof.expectation import Expectation, _merge, expect
from forkproof.scenario import Policy, Scenario, WorkerClass, from_dict
from forkproof_strategies import scenarios

HOLD, BREAK, MAY = Expectation.MUST_HOLD, Expectation.MUST_BREAK, Expectation.MAY_BREAK
ONE, COPY, DEAD = "exactly_one_listener", "no_copied_thread", "no_dead_listener"
STARVED, ANSWERS, BOOT, SHUTDOWN = "no_starved_greenlet", "server_answers", "workers_boot", "clean_shutdown"
ASKED, STALE = "patch_is_what_was_asked", "no_stale_original"
QUIET, MESSAGES = "quiet_runtime", "every_message_handled_once"
LOCKED, IMPORTED = "no_lock_held_at_fork", "no_half_imported_module"
NUMSUB, SHARED, LEAK = "subscriptions_match", "no_socket_shared_across_fork", "no_leak_on_reload"

VERSIONS = {"python": "3.11.7", "gunicorn": "27.0.1", "gevent": "26.9.0"}
WITHOUT_GEVENT = {"python": "3.11.7", "gunicorn": "27.0.1"}
EARLY = {"site": "config_first_line"}
IN_APP = {"site": "app_first_line"}
NATIVE = {"site": "config_first_line", "flags": {"thread": False}}
SERVICE, WORKER, ARBITER = "once_per_service", "once_per_worker", "arbiter_only"


SYNC = {"worker_class": "sync"}


def deployment(loop: dict[str, Any], *patches: dict[str, Any], **server: Any) -> Scenario:
    """Two workers of class gevent unless said; the loop is `a`."""
    server = {"worker_class": "gevent", "workers": 2, **server}
    return from_dict({"loops": [{"name": "a", **loop}], "patches": patches, "server": server})


def with_second(loop: dict[str, Any], second: dict[str, Any], **server: Any) -> Scenario:
    return from_dict({"loops": [{"name": "a", **loop}, {"name": "b", **second}], "server": server})


def parked(at: str, *patches: dict[str, Any], who: str = "a", **loop: Any) -> Scenario:
    """One worker; the loop is started by the configuration unless said, and somebody is parked."""
    loops = [{"name": "a", "start": "config_import", "policy": SERVICE, **loop}]
    return from_dict({"loops": loops, "patches": patches, "parks": [{"who": who, "at": at}]})


def expected(what: Scenario, claim: str, versions: dict[str, str] | None = None) -> Expectation:
    loop = "a" if claim in (ONE, COPY, DEAD, MESSAGES, STARVED) else None
    return expect(what, claim, loop, VERSIONS if versions is None else versions)[0]


LISTENS = {"body": "listen"}
CASE_ZERO = deployment({"policy": SERVICE}, EARLY, preload=True)
THREAD_FALSE = deployment({"policy": SERVICE}, NATIVE, preload=True)
CHILD = {"kind": "process", "start": "on_starting"}
INIT = {"start": "post_worker_init", "policy": WORKER}
GREENLET = {"kind": "greenlet", "start": "post_worker_init", "yields": {"call": "gevent.sleep"}}
FROM_SERVER = {**INIT, "kind": "process_forkserver"}
BY_REQUEST = {"start": "first_request", "kind": "process_spawn"}
LATE = {"site": "app_after_imports"}
OWN = {"kind": "run_in_thread", "body": "listen"}
TASK = {"kind": "socketio_task"}
FORKED = {"start": "first_request", "kind": "process"}
GREEDY = {"start": "post_worker_init", "body": "lock", "yields": {"call": "native_sleep"}}
STUBBORN = {"kind": "greenlet", "start": "post_worker_init", "body": "cpu", "yields": {"call": "none"}}

TABLE: list[tuple[str, Scenario, dict[str, Expectation]]] = [
    ("case zero", CASE_ZERO, {ONE: BREAK, COPY: BREAK}),
    ("case zero, sync", deployment({"policy": SERVICE}, EARLY, preload=True, **SYNC), {COPY: BREAK}),
    ("thread=False and preload", THREAD_FALSE, {COPY: HOLD, ONE: HOLD, STARVED: HOLD}),
    ("thread=False, no preload", deployment({"policy": SERVICE}, NATIVE), {COPY: HOLD, ONE: BREAK}),
    ("no patch, preload", deployment({"policy": SERVICE}, preload=True, **SYNC), {ONE: HOLD, COPY: HOLD}),
    ("no patch, preload, one a worker", deployment({}, preload=True, **SYNC), {ONE: BREAK, COPY: HOLD}),
    ("forked in a request", deployment({"kind": "process", "start": "first_request"}), {ANSWERS: MAY}),
    ("odd flags", deployment({}, {"site": "config_first_line", "flags": {"queue": False}}), {ONE: MAY}),
    ("no patch, no preload", deployment({}, **SYNC), {ONE: HOLD, COPY: HOLD, DEAD: HOLD, ANSWERS: HOLD}),
    ("gevent worker, no preload", deployment({}), {ONE: HOLD, COPY: HOLD, ANSWERS: HOLD, BOOT: HOLD, SHUTDOWN: HOLD}),
    ("post_worker_init, gevent", deployment(INIT), {ONE: HOLD, COPY: HOLD, STARVED: HOLD, QUIET: HOLD}),
    ("post_worker_init, sync", deployment(INIT, **SYNC), {ONE: HOLD, COPY: HOLD, STARVED: HOLD}),
    ("post_worker_init, gthread", deployment(INIT, worker_class="gthread", threads=2), {ONE: HOLD, COPY: HOLD}),
    ("post_worker_init, patched early", deployment(INIT, EARLY), {ONE: HOLD, COPY: HOLD, STARVED: HOLD}),
    ("post_fork", deployment({"start": "post_fork"}, **SYNC), {ONE: HOLD, COPY: HOLD}),
    ("on_starting, native", deployment({"start": "on_starting", "policy": ARBITER}), {ONE: HOLD, COPY: HOLD}),
    ("on_starting, patched", deployment({"start": "on_starting", "policy": ARBITER}, EARLY), {ONE: BREAK, COPY: BREAK}),
    ("when_ready, native", deployment({"start": "when_ready", "policy": SERVICE}), {ONE: HOLD, COPY: HOLD}),
    ("pre_fork", deployment({"start": "pre_fork", "policy": SERVICE}, **SYNC), {ONE: BREAK, COPY: HOLD}),
    ("one worker", deployment({"policy": SERVICE}, **SYNC, workers=1), {ONE: HOLD}),
    ("two workers", deployment({"policy": SERVICE}, **SYNC), {ONE: BREAK}),
    ("timer, patched early", deployment({"kind": "timer", "policy": SERVICE}, EARLY, preload=True), {COPY: BREAK}),
    ("timer, native", deployment({"kind": "timer", "policy": SERVICE}, preload=True, **SYNC), {ONE: HOLD, COPY: HOLD}),
    ("timer, patched late", deployment({"kind": "timer", "start": "post_fork"}), {ONE: MAY}),
    ("executor", deployment({**INIT, "kind": "executor"}), {ONE: HOLD, COPY: HOLD, DEAD: HOLD, SHUTDOWN: MAY}),
    ("executor, preload", deployment({"kind": "executor", "policy": SERVICE}, preload=True), {ONE: HOLD, DEAD: BREAK}),
    ("executor, patched", deployment({"kind": "executor", "policy": SERVICE}, EARLY, preload=True), {COPY: BREAK}),
    ("gevent's threads", deployment({**INIT, "kind": "gevent_threadpool"}, EARLY), {ONE: HOLD, COPY: HOLD}),
    ("gevent's pool, copied", deployment({"kind": "gevent_threadpool"}, EARLY, preload=True), {COPY: HOLD, DEAD: MAY}),
    ("native", deployment({"kind": "native_thread", "policy": SERVICE}, EARLY, preload=True), {ONE: HOLD, COPY: HOLD}),
    ("fork hook", deployment({"start": "fork_hook"}, **SYNC), {ONE: HOLD, COPY: HOLD}),
    ("fork hook, patched", deployment({"start": "fork_hook"}, EARLY), {ONE: MAY, COPY: HOLD}),
    ("fork hook and process", with_second({"start": "fork_hook"}, {**CHILD, "name": "b"}, **SYNC), {ONE: BREAK}),
    ("lock in each worker", deployment({**INIT, "body": "lock"}), {ONE: HOLD, ANSWERS: HOLD, STARVED: HOLD}),
    ("lock that a fork copies", deployment({"body": "lock"}, preload=True, **SYNC), {ANSWERS: MAY, BOOT: MAY}),
    ("native lock, green holder", deployment({**GREENLET, "body": "lock"}, NATIVE, **SYNC), {ANSWERS: MAY, ONE: MAY}),
    ("queue in each worker", deployment({**INIT, "body": "queue_get"}), {ONE: HOLD, ANSWERS: HOLD}),
    ("gevent's queue, native", deployment({**INIT, "body": "queue_get"}, NATIVE, **SYNC), {ONE: MAY, ANSWERS: MAY}),
    ("greenlet on a native queue", deployment({**GREENLET, "body": "queue_get"}, **SYNC), {ANSWERS: MAY}),
    ("logger in each worker", deployment({**INIT, "body": "logger"}), {ONE: HOLD, ANSWERS: HOLD, QUIET: HOLD}),
    ("list, two workers", deployment({**INIT, "body": "blpop", "policy": SERVICE}), {ONE: BREAK, MESSAGES: HOLD}),
    ("list, each worker", deployment({**INIT, "body": "blpop"}), {ONE: HOLD, MESSAGES: HOLD}),
    ("list, nobody there", deployment({**GREENLET, "body": "blpop", "policy": SERVICE}, **SYNC), {MESSAGES: BREAK}),
    ("tornado", deployment(INIT, worker_class="tornado"), {ONE: HOLD, ANSWERS: HOLD, SHUTDOWN: HOLD}),
    ("greenlet, tornado", deployment(GREENLET, worker_class="tornado"), {ONE: BREAK, STARVED: BREAK}),
    ("greenlet, tornado, patched", deployment(GREENLET, EARLY, worker_class="tornado"), {ONE: MAY, STARVED: MAY}),
    ("forked in a request of tornado's", deployment(FORKED, worker_class="tornado"), {ANSWERS: MAY}),
    ("process beside the reloader", deployment({**INIT, "kind": "process"}, **SYNC, reload=True), {ONE: MAY}),
    ("socketio, gevent worker", deployment({**INIT, **TASK}), {ONE: HOLD, COPY: HOLD, ANSWERS: HOLD}),
    ("socketio, sync worker", deployment({**INIT, **TASK}, **SYNC), {ONE: BREAK, STARVED: BREAK}),
    ("socketio, copied", deployment(TASK, EARLY, preload=True), {COPY: MAY, ANSWERS: HOLD}),
    ("redis-py's thread", deployment({**INIT, **OWN}), {ONE: HOLD, MESSAGES: HOLD, ANSWERS: HOLD}),
    ("redis-py's thread, by default", deployment({**INIT, **OWN, "yields": {"seconds": 0}}), {ANSWERS: MAY, BOOT: MAY}),
    ("redis-py's thread, copied", deployment({**OWN, "policy": SERVICE}, EARLY, preload=True), {MESSAGES: MAY}),
    ("process, on_starting", deployment({**CHILD, "policy": SERVICE}), {ONE: HOLD, COPY: HOLD}),
    ("new process", deployment({**CHILD, "kind": "process_spawn", "policy": ARBITER}, EARLY), {ONE: HOLD, COPY: HOLD}),
    ("new process, in each worker", deployment({**INIT, "kind": "process_forkserver"}), {ONE: HOLD, ANSWERS: HOLD}),
    ("fork server of the arbiter", with_second({**CHILD, "kind": "process_forkserver"}, FROM_SERVER), {BOOT: MAY}),
    ("process, in each worker", deployment({"kind": "process", "policy": SERVICE}, **SYNC), {ONE: BREAK}),
    ("process, arbiter_only", deployment({**CHILD, "policy": ARBITER}), {ONE: HOLD, SHUTDOWN: HOLD}),
    ("process, patched", deployment(CHILD, EARLY), {SHUTDOWN: MAY}),
    ("process in a worker", deployment({**INIT, "kind": "process"}, **SYNC), {ONE: HOLD, SHUTDOWN: HOLD}),
    ("process, not daemon", deployment({**CHILD, "daemon": False}), {SHUTDOWN: MAY}),
    ("greenlet, gevent worker", deployment(GREENLET), {ONE: HOLD, STARVED: HOLD, ANSWERS: HOLD, DEAD: HOLD}),
    ("greenlet, unpatched sync worker", deployment(GREENLET, **SYNC), {STARVED: BREAK, ONE: BREAK, DEAD: BREAK}),
    ("never gives way", with_second(GREENLET, STUBBORN, worker_class="gevent"), {ANSWERS: BREAK, BOOT: MAY}),
    ("asked by a pool patched late", deployment(BY_REQUEST, LATE, worker_class="gthread"), {ONE: MAY, DEAD: MAY}),
    ("asked by a pool", deployment(BY_REQUEST, worker_class="gthread"), {ONE: HOLD}),
    (
        "never gives way, from a request on",
        with_second(GREENLET, {**STUBBORN, "start": "first_request"}, worker_class="gevent"),
        {ANSWERS: MAY},
    ),
    ("one that may hold a worker, beside", with_second(INIT, STUBBORN, worker_class="gevent"), {ONE: MAY, COPY: HOLD}),
    ("takes its lock again at once", deployment(GREEDY), {ANSWERS: MAY}),
    ("leaves its lock a while", deployment({**GREEDY, "yields": {"call": "gevent.sleep"}}), {ANSWERS: HOLD}),
    ("never gives way, sync", with_second(GREENLET, STUBBORN, **SYNC), {ANSWERS: HOLD}),
    ("not daemon", deployment({**INIT, "daemon": False}, **SYNC), {SHUTDOWN: MAY}),
    ("odd flags", deployment(INIT, {**EARLY, "flags": {"os": False}}), {ANSWERS: MAY, BOOT: MAY}),
    ("gthread, patched by the app", deployment(INIT, IN_APP, worker_class="gthread"), {ANSWERS: MAY}),
    ("patched twice", deployment(INIT, EARLY, {"site": "post_fork"}), {QUIET: MAY}),
    ("patched in a thread", deployment(INIT, {"site": "in_thread"}), {ANSWERS: MAY, QUIET: MAY}),
    ("listener in each worker", deployment({**LISTENS, **INIT}), {MESSAGES: HOLD, NUMSUB: HOLD, SHARED: HOLD}),
    (
        "listener, case zero",
        deployment({**LISTENS, "policy": SERVICE}, EARLY, preload=True), {MESSAGES: MAY, NUMSUB: MAY, SHARED: MAY},
    ),
    ("listener in the arbiter", deployment({**LISTENS, "start": "on_starting"}), {NUMSUB: BREAK, SHARED: HOLD}),
    ("one for one", deployment({**LISTENS, "start": "on_starting"}, **SYNC, workers=1), {ONE: BREAK, NUMSUB: HOLD}),
    ("two for one", deployment({**LISTENS, "policy": SERVICE}, **SYNC), {NUMSUB: BREAK, SHARED: HOLD}),
    ("two for some", deployment({**LISTENS, "policy": "inherit_allowed"}, **SYNC), {NUMSUB: HOLD}),
    ("a hub that nobody enters", deployment({**LISTENS, **GREENLET}, **SYNC), {NUMSUB: BREAK}),
    ("started in the configuration", deployment({"start": "config_import"}), {LEAK: BREAK}),
    ("started before each fork", deployment({"start": "pre_fork", "kind": "executor"}), {LEAK: MAY}),
    ("started once", deployment({"start": "on_starting"}), {LEAK: HOLD}),
    ("a lock at the fork", parked("lock"), {LOCKED: BREAK, IMPORTED: MAY, ANSWERS: BREAK, COPY: HOLD, ONE: MAY}),
    ("an import at the fork", parked("import"), {LOCKED: MAY, IMPORTED: BREAK, ANSWERS: BREAK}),
    ("a handler's lock at the fork", parked("log_handler_lock"), {LOCKED: MAY, ANSWERS: MAY}),
    ("a copied greenlet gives it back", parked("lock", EARLY), {LOCKED: MAY, IMPORTED: MAY, COPY: MAY}),
    ("a lock in a worker", parked("lock", **INIT), {LOCKED: HOLD, IMPORTED: HOLD, ANSWERS: HOLD, ONE: HOLD}),
    ("gunicorn's own thread", parked("log_record", who="gunicorn_control", **INIT), {LOCKED: HOLD, BOOT: HOLD}),
    ("started once, patched", deployment({"start": "on_starting"}, EARLY), {LEAK: MAY}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("what", "claim", "answer"),
    [
        pytest.param(what, claim, answer, id=f"{name}: {claim}")
        for name, what, told in TABLE
        for claim, answer in told.items()
    ],
)
def test_well_known_deployments(what: Scenario, claim: str, answer: Expectation) -> None:
    assert expected(what, claim) is answer


LOCK = {"early_imports": [{"what": "lock", "where": "config"}]}
IN_THE_APP = {"early_imports": [{"what": "lock"}]}


@pytest.mark.parametrize(
    ("around", "patches", "server", "answers"),
    [
        (LOCK, [], {}, {STALE: BREAK, ANSWERS: MAY, ONE: MAY, ASKED: HOLD}),
        (LOCK, [EARLY], {}, {STALE: HOLD, ANSWERS: HOLD, ONE: HOLD}),
        ({"early_imports": [{"what": "queue", "where": "config"}]}, [NATIVE], {}, {STALE: HOLD, ANSWERS: HOLD}),
        (IN_THE_APP, [], {}, {STALE: HOLD, ANSWERS: HOLD}),
        (IN_THE_APP, [], {"preload": True}, {STALE: BREAK, ANSWERS: MAY}),
        (IN_THE_APP, [{"site": "app_first_line"}], SYNC, {STALE: HOLD, ANSWERS: HOLD}),
        (IN_THE_APP, [{"site": "app_after_imports"}], SYNC, {STALE: MAY, ANSWERS: MAY}),
        ({"early_imports": [{"what": "simple_queue"}]}, [NATIVE], {"preload": True, **SYNC}, {STALE: HOLD}),
        ({"early_imports": [{"what": "import_redis"}]}, [], {"preload": True}, {STALE: HOLD, ANSWERS: HOLD}),
        ({"fork_hooks": "lock"}, [], {}, {STALE: BREAK, ANSWERS: HOLD, BOOT: HOLD, SHUTDOWN: HOLD}),
        ({"fork_hooks": "log"}, [], {}, {STALE: HOLD, ANSWERS: HOLD, BOOT: HOLD, QUIET: HOLD}),
        ({"fork_hooks": "log", "log": "yielding"}, [], {}, {BOOT: MAY, QUIET: MAY}),
    ],
)
def test_what_is_made_before_a_patch(
    around: dict[str, Any], patches: list[Any], server: dict[str, Any], answers: dict[str, Expectation]
) -> None:
    server = {"worker_class": "gevent", **server}
    what = from_dict({"loops": [{"name": "a", **INIT}], "patches": patches, "server": server, "surroundings": around})
    assert {claim: expected(what, claim) for claim in answers} == answers


def test_an_assertion_of_gevents_own_surprises_wherever_gevent_is_used_as_documented() -> None:
    shared = {"body": "listen", "start": "on_starting"}
    for what, usual, own in [
        (deployment(shared, EARLY), MAY, HOLD),
        (deployment(shared, {"site": "config_first_line", "flags": {"dns": False}}, {"site": "post_fork"}), MAY, HOLD),
        (deployment(shared, {"site": "in_thread"}), MAY, MAY),
        (deployment({"start": "config_import"}, {"site": "app_first_line"}, preload=True), MAY, MAY),
        (deployment(INIT, NATIVE, worker_class="gthread"), MAY, MAY),
        (deployment(INIT, NATIVE, worker_class="sync"), HOLD, HOLD),
    ]:
        assert expected(what, QUIET) is usual, what
        assert expect(what, QUIET, None, VERSIONS, "callback failed with AssertionError in gevent")[0] is own, what
        assert expect(what, QUIET, None, VERSIONS, "Exception in thread: ConnectionError")[0] is usual, what


def test_flags_that_contradict_each_other_cannot_be_kept() -> None:
    native = [NATIVE, {"site": "post_fork", "flags": {"thread": False}}]
    for what, answer in [
        (deployment(INIT, *native, **SYNC), HOLD),
        (deployment(INIT, *native), BREAK),
        (deployment(INIT, NATIVE, EARLY, **SYNC), BREAK),
        (deployment(INIT, EARLY, {"site": "post_fork", "flags": {"sys": True}}), HOLD),
        (deployment(INIT, **SYNC), HOLD),
    ]:
        assert expected(what, ASKED) is answer, what


def test_before_1_3_gevent_patched_event_only_where_it_was_asked_to() -> None:
    never = {"site": "in_thread", "flags": {"Event": False}}
    what = deployment(INIT, never, worker_class="gevent")
    assert expected(what, ASKED) is BREAK
    assert expect(what, ASKED, None, {**VERSIONS, "gevent": "1.2.2"})[0] is HOLD
    asked = deployment(INIT, {"site": "app_first_line", "flags": {"Event": True}}, never, worker_class="gevent")
    assert expect(asked, ASKED, None, {**VERSIONS, "gevent": "1.2.2"})[0] is BREAK


KILL_0 = {"fault": "kill_worker", "slot": 0}
EXIT_3 = {"fault": "foreign_child_exit", "options": {"code": 3}}
SERVICE_IN_WORKER = {"start": "post_worker_init", "policy": SERVICE}
IN_ARBITER = {"start": "on_starting", "policy": SERVICE}
IN_CONFIG = {"start": "config_import", "policy": SERVICE}
CHILD_OF_WORKER = {"kind": "process", "start": "post_worker_init"}
HANDOVER, ORPHAN, RESPONSIVE, FOREIGN = (
    "handover_is_safe", "no_orphan_process", "arbiter_responsive", "foreign_child_ignored",
)  # fmt: skip


@pytest.mark.parametrize(
    ("loop", "faults", "claim", "answer"),
    [
        (INIT, [{"fault": "hup"}], ONE, HOLD),
        (INIT, ["ttin", "ttou", "usr1"], ONE, HOLD),
        (INIT, [{"fault": "stop_worker", "slot": 0, "options": {"seconds": 5}}], ONE, HOLD),
        (IN_ARBITER, ["hup"], ONE, HOLD),
        (IN_CONFIG, ["hup"], ONE, BREAK),
        (IN_CONFIG, ["usr2"], ONE, HOLD),
        ({"start": "pre_fork", "kind": "process_spawn", "policy": ARBITER}, ["hup"], ONE, MAY),
        ({"start": "pre_fork", "kind": "thread", "policy": ARBITER}, ["hup"], ONE, BREAK),
        ({**CHILD_OF_WORKER, "policy": WORKER}, [{"fault": "kill_child", "slot": 0}], ONE, BREAK),
        (SERVICE_IN_WORKER, [KILL_0], HANDOVER, HOLD),
        (SERVICE_IN_WORKER, ["hup"], HANDOVER, MAY),
        (SERVICE_IN_WORKER, ["usr2"], HANDOVER, BREAK),
        (IN_ARBITER, ["hup"], HANDOVER, HOLD),
        (IN_ARBITER, ["usr2"], HANDOVER, BREAK),
        (IN_CONFIG, ["hup"], HANDOVER, BREAK),
        ({**SERVICE_IN_WORKER, "guard": "lease"}, [KILL_0], HANDOVER, MAY),
        (CHILD_OF_WORKER, [KILL_0], ORPHAN, BREAK),
        (CHILD_OF_WORKER, ["hup"], ORPHAN, MAY),
        (INIT, [KILL_0, "hup"], ORPHAN, HOLD),
        (INIT, ["kill_arbiter"], ORPHAN, MAY),
        (INIT, ["hup", KILL_0], RESPONSIVE, HOLD),
        ({"kind": "greenlet", "start": "on_starting"}, [], RESPONSIVE, BREAK),
        (INIT, [EXIT_3], FOREIGN, HOLD),
        ({"body": "listen", **INIT}, ["redis_restart"], ONE, MAY),
        ({"body": "listen", **INIT}, ["redis_restart"], ANSWERS, HOLD),
    ],
)
def test_what_faults_leave_of_a_sync_worker(
    loop: dict[str, Any], faults: list[Any], claim: str, answer: Expectation
) -> None:
    named = [fault if isinstance(fault, dict) else {"fault": fault} for fault in faults]
    what = from_dict({"loops": [{"name": "a", **loop}], "faults": named})
    assert expect(what, claim, "a" if claim in (ONE, HANDOVER) else None, VERSIONS)[0] is answer


@pytest.mark.parametrize(
    ("loop", "answer"), [(INIT, HOLD), ({**INIT, "daemon": False}, MAY), ({**INIT, "kind": "executor"}, MAY)]
)
def test_a_worker_that_waits_for_a_loop_is_not_replaced(loop: dict[str, Any], answer: Expectation) -> None:
    server, faults = {"max_requests": 100}, [{"fault": "max_requests"}]
    what = from_dict({"loops": [{"name": "a", **loop}], "server": server, "faults": faults})
    assert expect(what, ANSWERS, None, VERSIONS)[0] is answer


def test_a_queue_of_gevents_is_not_for_native_threads() -> None:
    shared = {"kind": "native_thread", "body": "queue_get", "start": "first_request"}
    assert expected(deployment(shared), QUIET) is MAY
    assert expected(deployment({**shared, "body": "sleep"}), QUIET) is HOLD


@pytest.mark.parametrize(
    ("server", "fault", "answer"),
    [
        ({}, {"fault": "int"}, MAY),
        ({}, {"fault": "usr2"}, MAY),
        ({}, {"fault": "usr2", "options": {"rollback": 1}}, HOLD),
        ({}, {"fault": "term"}, HOLD),
        (SYNC, {"fault": "int"}, HOLD),
    ],
    ids=str,
)
def test_a_gevent_worker_may_leave_before_the_greenlet_that_ends_it(
    server: dict[str, Any], fault: dict[str, Any], answer: Expectation
) -> None:
    what = from_dict({**deployment(INIT, **server).to_dict(), "faults": [fault]})
    assert expect(what, QUIET, None, VERSIONS, "greenlet failed with SystemExit")[0] is answer
    assert expect(what, QUIET, None, VERSIONS, "Greenlet failed with ValueError")[0] is HOLD


def test_a_copy_may_read_what_the_arbiter_waits_for() -> None:
    for body, answer in (("blpop", MAY), ("sleep", HOLD)):
        what = deployment({"start": "on_starting", "body": body, "policy": ARBITER}, EARLY, **SYNC)
        assert expected(what, RESPONSIVE) is answer


def test_what_is_made_by_gevent_is_not_for_native_threads() -> None:
    early = {"early_imports": [{"what": "queue", "where": "app"}]}
    loop = {"name": "a", "kind": "native_thread", "start": "post_worker_init", "policy": WORKER}
    plain = {"loops": [loop], "patches": [EARLY], "server": {"worker_class": "gevent"}}
    assert expected(from_dict({**plain, "surroundings": early}), ONE) is MAY
    assert expected(from_dict(plain), ONE) is HOLD
    in_thread = {"kind": "run_in_thread", "body": "listen", **INIT}
    for patch, answer in ((NATIVE, MAY), ({"site": "config_first_line", "flags": {}}, HOLD)):
        how = "Exception in thread: AssertionError in gevent"
        what = deployment(in_thread, patch, **SYNC)
        assert expect(what, QUIET, None, VERSIONS, how)[0] is answer


@pytest.mark.parametrize("claim", [ANSWERS, BOOT])
def test_a_hook_of_the_fork_comes_before_gevents_own(claim: str) -> None:
    hooked = {"start": "fork_hook", "kind": "run_in_thread", "body": "listen"}
    assert expected(deployment(hooked, EARLY, **SYNC), claim) is MAY
    assert expected(deployment(hooked, **SYNC), claim) is HOLD


def test_a_child_of_the_master_is_of_no_worker() -> None:
    spawned = {"kind": "process_spawn", "body": "blpop", "policy": WORKER}
    assert expected(deployment({**spawned, "start": "on_starting"}, **SYNC), MESSAGES) is MAY
    assert expected(deployment({**spawned, "start": "post_worker_init"}, **SYNC), MESSAGES) is HOLD


def test_nobody_takes_what_comes_when_the_only_one_was_killed() -> None:
    for start, workers, answer in (("on_starting", 1, BREAK), ("post_worker_init", 2, HOLD)):
        loop = {"kind": "process", "body": "blpop", "policy": SERVICE, "start": start}
        killed = {"fault": "kill_child", **({"slot": 0} if start == "post_worker_init" else {})}
        what = from_dict({**deployment(loop, workers=workers, **SYNC).to_dict(), "faults": [killed]})
        assert expected(what, MESSAGES) is answer


def test_a_queue_of_gevents_has_no_mutex() -> None:
    kind = {"kind": "native_thread", "body": "sleep"}
    assert expected(parked("queue_mutex", **kind), LOCKED) is BREAK
    assert expected(parked("queue_mutex", {"site": "interpreter_start"}, **kind), LOCKED) is not BREAK


def test_an_old_gunicorn_shuts_down_with_a_foreign_child() -> None:
    what = from_dict({"loops": [{"name": "a"}], "faults": [EXIT_3]})
    old = {**VERSIONS, "gunicorn": "26.0.0"}
    assert expect(what, BOOT, None, old)[0] is MAY
    assert expect(what, FOREIGN, None, old)[0] is HOLD


def test_what_a_greenlet_of_the_arbiter_does_depends_on_gunicorn() -> None:
    late = deployment({"policy": ARBITER}, {"site": "app_first_line"}, preload=True, **SYNC)
    assert {expected(late, COPY, {**VERSIONS, "gunicorn": "23.0.0"})} == {BREAK}
    assert expected(late, STARVED) is MAY


def test_a_socketio_task_is_a_thread_where_there_is_no_gevent() -> None:
    task = deployment({**INIT, **TASK}, **SYNC)
    assert expected(task, ONE, WITHOUT_GEVENT) is HOLD


@pytest.mark.parametrize("claim", REGISTRY)
@pytest.mark.parametrize("versions", [VERSIONS, {"gunicorn": "20.1.0"}, {"gunicorn": None}, {}], ids=str)
def test_every_claim_has_an_answer(claim: str, versions: dict[str, str | None]) -> None:
    answer, reason = expect(CASE_ZERO, claim, None, versions)
    assert isinstance(answer, Expectation)
    assert reason


@FEW
@given(scenarios())
def test_any_scenario_has_an_answer_with_a_reason(what: Scenario) -> None:
    for claim in REGISTRY:
        for loop in [None, *(loop.name for loop in what.loops)]:
            answer, reason = expect(what, claim, loop, VERSIONS)
            assert isinstance(answer, Expectation)
            assert reason


@FEW
@given(scenarios())
def test_best_effort_breaks_nothing(what: Scenario) -> None:
    for loop in what.loops:
        calm = what.model_copy(update={"loops": (loop.model_copy(update={"policy": Policy.BEST_EFFORT}),)})
        assert expect(calm, ONE, loop.name, VERSIONS)[0] is not BREAK


@FEW
@given(scenarios(without=["patches", "greenlets", "gevent sleeps", "processes"], worker_classes=[WorkerClass.SYNC]))
def test_without_gevent_nothing_is_copied_and_nothing_starves(what: Scenario) -> None:
    for loop in what.loops:
        assert expect(what, COPY, loop.name, WITHOUT_GEVENT)[0] is HOLD
        assert expect(what, STARVED, loop.name, WITHOUT_GEVENT)[0] is not BREAK


def test_a_claim_that_is_not_known_may_break() -> None:
    assert expect(CASE_ZERO, "nothing_of_ours", None, WITHOUT_GEVENT)[0] is MAY


def test_over_windows_what_must_break_decides_and_then_what_may() -> None:
    for answers, merged in [([HOLD, MAY, BREAK], BREAK), ([BREAK, MAY], BREAK), ([HOLD, MAY], MAY), ([HOLD], HOLD)]:
        assert _merge((answer, "") for answer in answers)[0] is merged
