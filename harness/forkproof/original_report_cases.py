"""The scenarios of docs/the-original-report.md in the order of the page, and what may differ from run to run."""

from __future__ import annotations

from dataclasses import dataclass

_PLACES = frozenset({"exactly_one_listener", "no_dead_listener", "every_message_handled_once", "no_starved_greenlet"})
"""What a copy that is lost in a name look-up, or original and copy that share a connection, can turn either way."""

_RESPAWN = frozenset({"workers_boot", "server_answers", "clean_shutdown"})
"""What hangs on whether a late-patched arbiter notices a death, and on whether a fork catches a thread in an import."""


@dataclass(frozen=True)
class Case:
    """One scenario file. Claims in `races` may differ from run to run."""

    name: str
    races: frozenset[str] = frozenset()
    copy_may_be_lost: bool = False
    """Whether the copy of a loop that hears Redis may never have a turn, so that no_copied_thread differs too."""
    more_runs: int = 1
    """How many times as often as the others it is run, for a race."""
    shows_messages: bool = False
    shows_patches: bool = False


@dataclass(frozen=True)
class Section:
    """A symptom, a claim or a proposal, with its scenarios."""

    name: str
    cases: tuple[Case, ...]
    counts_after_fork: bool = False


SECTIONS = (
    Section(
        "copy",
        (
            Case("symptom-a-copy-preload", _PLACES, copy_may_be_lost=True),
            Case("symptom-a-copy-config-import", _PLACES, copy_may_be_lost=True),
            Case("symptom-a-copy-no-preload"),
        ),
    ),
    Section(
        "stop",
        (
            Case("symptom-b-one-loop-stops-preload"),
            Case("symptom-b-one-loop-stops-config-import"),
            Case("symptom-b-one-loop-stops-no-preload"),
            Case(
                "symptom-b-copy-lost-in-lookup-preload",
                _PLACES | {"subscriptions_match", "arbiter_responsive"},
                copy_may_be_lost=True,
                more_runs=5,
                shows_messages=True,
            ),
            Case("symptom-b-copy-lost-in-lookup-forced", _PLACES | {"subscriptions_match"}, shows_messages=True),
            Case("symptom-b-shared-connection-config-import", _PLACES, shows_messages=True),
        ),
    ),
    Section(
        "after_fork",
        (
            Case("symptom-c-thread-false-preload", _RESPAWN),
            Case("symptom-c-thread-false-config-import", _RESPAWN),
            Case("symptom-c-thread-false-many-boots", _RESPAWN, more_runs=5),
            Case("symptom-c-thread-false-no-preload"),
        ),
        counts_after_fork=True,
    ),
    Section(
        "union",
        (
            Case("claim-union-of-flags-add", shows_patches=True),
            Case("claim-union-of-flags-remove", shows_patches=True),
            Case("claim-union-of-flags-worker-class", shows_patches=True),
        ),
    ),
    Section(
        "on_starting",
        (
            Case("proposal-on-starting-no-preload", _RESPAWN),
            Case("proposal-on-starting-preload", _PLACES | _RESPAWN, copy_may_be_lost=True),
            Case("proposal-on-starting-config-import", _PLACES, copy_may_be_lost=True),
            Case("proposal-on-starting-thread-false-preload", _RESPAWN),
            Case("proposal-on-starting-many-boots", _RESPAWN, more_runs=5),
        ),
    ),
    Section(
        "gevent_sleep",
        (
            Case("proposal-gevent-sleep-no-preload"),
            Case("proposal-gevent-sleep-preload", _PLACES, copy_may_be_lost=True),
            Case("proposal-gevent-sleep-config-import", _PLACES, copy_may_be_lost=True),
        ),
    ),
    Section(
        "plan_1",
        (
            Case("plan-1-thread-false-preload", _RESPAWN),
            Case("plan-1-thread-false-config-import", _RESPAWN),
            Case("plan-1-thread-false-no-preload"),
        ),
    ),
    Section(
        "plan_2",
        (
            Case("plan-2-process-no-preload"),
            Case("plan-2-process-preload", _PLACES | _RESPAWN | {"quiet_runtime"}, copy_may_be_lost=True),
            Case("plan-2-process-config-import", _PLACES | {"quiet_runtime"}, copy_may_be_lost=True),
        ),
    ),
)
"""The page, in its order."""
