"""What the runs of one command share: what becomes of a run that cannot be begun, and where scenarios come from."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from forkproof import launch
from forkproof.errors import BrokerError, CouldNotDecide
from forkproof.launch import Shared
from forkproof.scenario import from_dict
from forkproof.session import LocalSession

PLAIN = from_dict({"loops": [{"name": "a"}]})


def test_a_redis_of_a_run_that_is_late_leaves_that_run_undecided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(what: Any, around: Any, stop: threading.Event) -> Path:
        raise BrokerError("Broker: the embedded Redis did not answer within 20 s.")

    monkeypatch.setattr(launch, "launch", late)
    shared = cast(Shared, SimpleNamespace(out=tmp_path, target=None, broker=None))
    with pytest.raises(CouldNotDecide, match="the embedded Redis did not answer"):
        LocalSession(shared).run(PLAIN)


def test_a_scenario_comes_from_standard_input() -> None:
    code = "from pathlib import Path; from forkproof.session import load; print(load(Path('-')).digest)"
    told = subprocess.check_output([sys.executable, "-c", code], input=PLAIN.to_json(), text=True)
    assert told.strip() == PLAIN.digest
