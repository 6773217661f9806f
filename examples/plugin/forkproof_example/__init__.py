"""A claim: gunicorn logs no error."""

from __future__ import annotations

import re

from forkproof.claims import Claim
from forkproof.claims.base import Say
from forkproof.history import History
from forkproof.scenario import Scenario
from forkproof.verdict import Finding

_ERROR = re.compile(r"\] \[(ERROR|CRITICAL)\] ")


def no_error_logged(scenario: Scenario, history: History) -> list[Finding]:
    """One finding for the server."""
    say = Say("no_error_logged")
    if not history.windows:
        return [say.unknown("no window was seen to its end")]
    lines = history.of("log")
    bad = [event for event in lines if _ERROR.search(event["line"])]
    if bad:
        return [say.broken(f"{len(bad)} of {len(lines)} lines tell of an error: {bad[0]['line']!r}", bad, how="error")]
    return [say.held(f"none of {len(lines)} lines tells of an error", lines[-1:])]


def promised(scenario: Scenario) -> str:
    """A server to which nothing is done has no reason to complain."""
    return "" if scenario.faults or scenario.parks else "nothing is done to the server"


NO_ERROR_LOGGED = Claim("no_error_logged", "gunicorn logs nothing at ERROR or above.", no_error_logged, promised)
