"""`patch_is_what_was_asked` and `no_stale_original` on hand-written histories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from histories import ARBITER, WORKER, Events, event, hook, judged, scenario, server, window

from forkproof.claims import REGISTRY
from forkproof.patching import KEYWORDS
from forkproof.scenario import Scenario
from forkproof.verdict import Verdict

ASKED, STALE = "patch_is_what_was_asked", "no_stale_original"

ALL = {
    "_thread.start_new_thread": "patched", "threading.Lock": "patched", "threading.Event": "patched",
    "time.sleep": "patched", "socket.socket": "patched", "socket.getaddrinfo": "patched", "select.select": "patched",
    "select.epoll": "removed", "ssl.SSLContext": "patched", "subprocess.Popen": "patched", "os.fork": "patched",
    "signal.signal": "patched", "queue.SimpleQueue": "patched",
}  # fmt: skip
NOTHING = dict.fromkeys(ALL, "original")
NO_THREAD = {name: "original" if "thread" in name else state for name, state in ALL.items()}

GEVENT = {"worker_class": "gevent"}
NO_PATCH = scenario()
BY_CLASS = scenario(server=GEVENT)
IN_CONFIG = scenario(patches=[{"site": "config_first_line"}])
KEPT_NATIVE = scenario(patches=[{"site": "config_first_line", "flags": {"thread": False}}])
UNDONE = scenario(patches=[{"site": "config_first_line", "flags": {"thread": False}}], server=GEVENT)
TOO_LATE = scenario(patches=[{"site": "config_first_line"}, {"site": "post_fork", "flags": {"thread": False}}])


def seen(pid: int, names: Mapping[str, str], keywords: tuple[str, ...] = KEYWORDS, off: tuple[str, ...] = ()) -> Events:
    when = "when_ready" if pid == ARBITER else "post_worker_init"
    return [
        *hook(when, pid),
        event(0.5, pid, "patched", when=when, keywords=list(keywords), off=list(off), names=dict(names), stale=[]),
    ]


def patch(t: float, pid: int, site: str, **flags: bool) -> Events:
    return [event(t, pid, "patch", site=site, flags=flags, saved=[])]


def test_as_it_was_asked() -> None:
    for what, arbiter, worker in [
        (BY_CLASS, NOTHING, ALL),
        (IN_CONFIG, ALL, ALL),
        (KEPT_NATIVE, NO_THREAD, NO_THREAD),
    ]:
        found = judged(ASKED, what, server(), seen(ARBITER, arbiter), seen(WORKER, worker), window())
        assert found.verdict is Verdict.HELD, found


def test_the_worker_class_undoes_thread_false() -> None:
    calls = patch(0.1, ARBITER, "config_first_line", thread=False) + patch(0.3, WORKER, "worker_class")
    found = judged(ASKED, UNDONE, server(), calls, seen(ARBITER, NO_THREAD), seen(WORKER, ALL), window())
    assert (found.verdict, found.how) == (Verdict.BROKEN, "undone")
    assert found.explanation == (
        "thread is patched in worker 0 (pid 110), though config_first_line said thread=False: worker_class patched it"
    )
    assert [one.event for one in found.evidence] == ["patched", "patch", "patch"]


def test_a_later_false_is_ignored() -> None:
    found = judged(ASKED, TOO_LATE, server(), seen(ARBITER, ALL), seen(WORKER, ALL), window())
    assert (found.verdict, found.how) == (Verdict.BROKEN, "ignored")


def test_not_patched_though_it_was_asked_for() -> None:
    found = judged(ASKED, IN_CONFIG, server(), seen(ARBITER, ALL), seen(WORKER, {**ALL, "time.sleep": "original"}))
    assert (found.verdict, found.how) == (Verdict.BROKEN, "not patched")
    assert "time is not patched in worker 0 (pid 110), though config_first_line asked for it" in found.explanation


def test_what_is_patched_in_the_arbiter_counts() -> None:
    found = judged(ASKED, IN_CONFIG, server(), seen(ARBITER, {**ALL, "time.sleep": "original"}), seen(WORKER, ALL))
    assert "time is not patched in arbiter (pid 100)" in found.explanation


def test_patched_though_nobody_asked_for_it() -> None:
    found = judged(ASKED, NO_PATCH, server(), seen(ARBITER, ALL), seen(WORKER, ALL), window())
    assert (found.verdict, found.how) == (Verdict.BROKEN, "unasked")


def test_what_the_target_has_no_keyword_or_no_name_for_is_not_asked() -> None:
    old = {name: state for name, state in {**ALL, "queue.SimpleQueue": "original"}.items() if name != "select.epoll"}
    lacks = tuple(keyword for keyword in KEYWORDS if keyword != "queue")
    found = judged(ASKED, IN_CONFIG, server(), seen(ARBITER, old, lacks), seen(WORKER, old, lacks), window())
    assert found.verdict is Verdict.HELD


def test_what_this_gevent_leaves_alone_unless_told_is_not_asked() -> None:
    """Until gevent 1.3 `patch_all()` left `threading.Event` alone."""
    left = {**ALL, "threading.Event": "original"}
    told = scenario(patches=[{"site": "config_first_line", "flags": {"Event": True}}])
    for what, names, off, verdict in [
        (IN_CONFIG, left, ("Event",), Verdict.HELD),
        (IN_CONFIG, left, (), Verdict.BROKEN),
        (IN_CONFIG, ALL, ("Event",), Verdict.BROKEN),
        (told, left, ("Event",), Verdict.BROKEN),
        (told, ALL, ("Event",), Verdict.HELD),
    ]:
        seen_by_both = (seen(ARBITER, names, off=off), seen(WORKER, names, off=off))
        assert judged(ASKED, what, server(), *seen_by_both, window()).verdict is verdict


def test_without_patches_there_is_nothing_to_ask() -> None:
    found = judged(ASKED, NO_PATCH, server(), seen(ARBITER, NOTHING), seen(WORKER, NOTHING), window())
    assert found.verdict is Verdict.NOT_APPLICABLE


def test_a_process_that_was_not_looked_at_leaves_it_open() -> None:
    assert judged(ASKED, IN_CONFIG, server()).verdict is Verdict.UNKNOWN
    assert judged(ASKED, UNDONE, server(), seen(ARBITER, NO_THREAD), window()).verdict is Verdict.UNKNOWN
    found = judged(ASKED, IN_CONFIG, server(), seen(ARBITER, ALL), hook("post_worker_init", WORKER), window())
    assert (found.verdict, found.explanation) == (
        Verdict.UNKNOWN, "what is patched in worker 0 (pid 110) was not seen",
    )  # fmt: skip


def early(what: str = "lock", where: str = "app", **rest: Any) -> Scenario:
    return scenario(surroundings={"early_imports": [{"what": what, "where": where}]}, **{"server": GEVENT, **rest})


def made(t: float, pid: int, name: str = "app.lock") -> Events:
    return [event(t, pid, "early.made", name=name)]


def used(
    t: float, pid: int = WORKER, *, user: str = "request", greenlet: bool = True, native: tuple[str, ...] = ("lock",)
) -> Events:
    parts = [["", kind] for kind in native]
    return [event(t, pid, "early.used", name="app.lock", user=user, greenlet=greenlet, native=parts)]


def test_a_greenlet_that_uses_a_lock_made_before_the_patch() -> None:
    what = early(server={**GEVENT, "preload": True})
    calls = patch(0.4, WORKER, "worker_class")
    found = judged(STALE, what, server(), made(0.1, ARBITER), calls, used(1.5), window())
    assert (found.verdict, found.how) == (Verdict.BROKEN, "lock")
    assert found.explanation == (
        "a request used, in a greenlet of worker 0 (pid 110) at +1.50s, app.lock, a native lock: "
        "it was made at +0.10s, before the patch of worker_class"
    )
    assert [one.event for one in found.evidence] == ["early.used", "early.made", "patch"]


def test_a_loop_that_uses_it_is_as_bad() -> None:
    found = judged(STALE, early(), server(), used(1.5, user="listen", native=("lock", "socket")), window())
    assert (found.verdict, found.how) == (Verdict.BROKEN, "lock and socket")
    assert found.explanation.startswith("loop 'listen' used, ")


def test_made_after_the_patch_nothing_in_it_is_native() -> None:
    calls = patch(0.2, WORKER, "worker_class")
    found = judged(STALE, early(), server(), calls, made(0.3, WORKER), used(1.5, native=()), window())
    assert found.verdict is Verdict.HELD


def test_what_nobody_used_is_open() -> None:
    found = judged(STALE, early(), server(), made(0.1, WORKER))
    assert found.verdict is Verdict.UNKNOWN
    assert "no use of app.lock was seen" in found.explanation


def test_where_no_greenlet_can_use_it() -> None:
    by_main = judged(STALE, early(server={}, patches=[{"site": "post_fork"}]), server(), used(1.5, greenlet=False))
    unpatched = judged(STALE, early(server={}), server(), used(1.5, greenlet=False, native=()), window())
    nothing = judged(STALE, BY_CLASS, server(), window())
    module = judged(STALE, early("import_redis"), server(), window())
    assert {one.verdict for one in (by_main, unpatched, nothing, module)} == {Verdict.NOT_APPLICABLE}


def test_both_are_of_the_server() -> None:
    assert {ASKED, STALE} <= REGISTRY.keys()
