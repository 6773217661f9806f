"""For each claim a deployment that breaks it, and the same one without what breaks it.

They show whether a claim can be told on a target; `foreign_child_ignored` breaks on gunicorn before 26.1.0 alone.
"""

from __future__ import annotations

from typing import Any

from forkproof.scenario import Scenario, from_dict

HOG = {"name": "hog", "kind": "greenlet", "body": "cpu", "start": "post_worker_init", "yields": {"call": "none"}}
GENTLE = {"call": "gevent.sleep", "seconds": 0.001}
VICTIM = {"name": "victim", "kind": "greenlet", "start": "post_worker_init", "yields": GENTLE}
GEVENT = {"worker_class": "gevent"}
IN_CONFIG = {"name": "a", "start": "config_import", "policy": "once_per_service"}
HEARS = {"name": "a", "body": "listen", "start": "post_worker_init", "policy": "once_per_service"}
READS_IN_ARBITER = {"name": "a", "body": "listen", "start": "on_starting", "policy": "inherit_allowed"}
RELOADS = {"fault": "hup", "options": {"times": 3}}
KILLS = {"fault": "kill_worker", "slot": 0}
ONE_EACH = {"name": "a", "start": "post_worker_init", "policy": "once_per_service"}
EXITS_3 = {"fault": "foreign_child_exit", "options": {"code": 3}}
NATIVE = {"site": "config_first_line", "flags": {"thread": False}}
STOPS = {"faults": [{"fault": "term"}]}


def _scenario(*loops: dict[str, Any], **rest: Any) -> Scenario:
    return from_dict({"loops": list(loops), **rest})


PLANTED: dict[str, tuple[Scenario, str, Scenario]] = {
    # claim: planted, how it must break, control
    "exactly_one_listener": (
        _scenario({"name": "a", "policy": "once_per_service"}, server={"workers": 2}),
        "double",
        _scenario(IN_CONFIG, server={"workers": 2}),
    ),
    "no_copied_thread": (
        _scenario(IN_CONFIG, patches=[{"site": "config_first_line"}]),
        "copied",
        _scenario(IN_CONFIG, patches=[{"site": "config_first_line", "flags": {"thread": False}}]),
    ),
    "no_dead_listener": (
        _scenario({"name": "a", "kind": "greenlet", "start": "post_worker_init"}),
        "alive but silent",
        _scenario({"name": "a", "kind": "greenlet", "start": "post_worker_init"}, server=GEVENT),
    ),
    "every_message_handled_once": (
        _scenario(HEARS, server={"workers": 2}),
        "doubled",
        _scenario(HEARS, server={"workers": 1}),
    ),
    "subscriptions_match": (
        _scenario(HEARS, server={"workers": 2}),
        "too many",
        _scenario(HEARS, server={"workers": 1}),
    ),
    "no_starved_greenlet": (
        _scenario(VICTIM, HOG, server=GEVENT),
        "beside a busy loop",
        _scenario(VICTIM, {**HOG, "yields": GENTLE}, server=GEVENT),
    ),
    "server_answers": (
        _scenario(HOG, server=GEVENT),
        "no answer",
        _scenario({**HOG, "yields": GENTLE}, server=GEVENT),
    ),
    "arbiter_responsive": (
        _scenario({**HOG, "start": "config_import"}, patches=[{"site": "config_first_line"}]),
        "does not act",
        _scenario({"name": "a", "start": "on_starting", "policy": "arbiter_only"}),
    ),
    "workers_boot": (
        _scenario({**HOG, "start": "config_import"}, patches=[{"site": "config_first_line"}], server={"workers": 2}),
        "too late",
        _scenario(
            {**HOG, "start": "config_import", "yields": GENTLE},
            patches=[{"site": "config_first_line"}],
            server={"workers": 2},
        ),
    ),
    "clean_shutdown": (
        _scenario({"name": "a", "daemon": False}, **STOPS),
        "killed",
        _scenario({"name": "a", "daemon": True}, **STOPS),
    ),
    "no_orphan_process": (
        _scenario({"name": "a", "kind": "process", "start": "post_worker_init"}, faults=[KILLS]),
        "left",
        _scenario({"name": "a"}, server={"timeout": 2}, faults=[{"fault": "kill_arbiter"}]),
    ),
    "handover_is_safe": (
        _scenario(ONE_EACH, faults=[{"fault": "usr2"}]),
        "two holders",
        _scenario(ONE_EACH, faults=[KILLS]),
    ),
    "no_leak_on_reload": (
        _scenario(IN_CONFIG, faults=[RELOADS]),
        "grows",
        _scenario({**IN_CONFIG, "start": "on_starting"}, faults=[RELOADS]),
    ),
    "no_socket_shared_across_fork": (
        # The successor of the killed worker is forked when the listener has surely subscribed.
        _scenario(READS_IN_ARBITER, patches=[{"site": "config_first_line"}], faults=[KILLS], server=GEVENT),
        "waited on by two",
        # A native thread there would do as well, but a fork beside one may catch it in an import.
        _scenario(
            {**READS_IN_ARBITER, "start": "post_worker_init"},
            patches=[{"site": "config_first_line"}],
            faults=[KILLS],
            server=GEVENT,
        ),
    ),
    "no_lock_held_at_fork": (
        _scenario(IN_CONFIG, parks=[{"who": "a", "at": "lock"}]),
        "blocks on a lock",
        # The copy of a greenlet that holds the lock gives it back.
        _scenario(IN_CONFIG, parks=[{"who": "a", "at": "lock"}], patches=[{"site": "config_first_line"}]),
    ),
    "no_half_imported_module": (
        _scenario(IN_CONFIG, parks=[{"who": "a", "at": "import"}]),
        "blocks on an import",
        _scenario({**IN_CONFIG, "start": "post_fork"}, parks=[{"who": "a", "at": "import"}]),
    ),
    "quiet_runtime": (
        _scenario({"name": "a", "kind": "process", "start": "first_request"}, server=GEVENT),
        "Parent changed",
        _scenario({"name": "a", "kind": "process", "start": "first_request"}),
    ),
    "patch_is_what_was_asked": (
        _scenario(IN_CONFIG, patches=[NATIVE], server=GEVENT),
        "undone",
        _scenario(IN_CONFIG, patches=[NATIVE, {"site": "post_fork", "flags": {"thread": False}}]),
    ),
    "no_stale_original": (
        _scenario({"name": "a"}, server=GEVENT, surroundings={"early_imports": [{"what": "lock", "where": "config"}]}),
        "lock",
        _scenario({"name": "a"}, server=GEVENT, surroundings={"early_imports": [{"what": "lock", "where": "app"}]}),
    ),
    "foreign_child_ignored": (
        _scenario({"name": "a"}, faults=[EXITS_3]),
        "the arbiter ended",
        _scenario({"name": "a"}, faults=[EXITS_3]),
    ),
}
