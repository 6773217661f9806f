"""Which module may import which: strategies -> Scenario -> launch -> History -> claims -> Verdict -> reports."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import forkproof
import forkproof_strategies

HARNESS = Path(forkproof.__file__).parent
STRATEGIES = Path(forkproof_strategies.__file__).parent
PAYLOAD = HARNESS / "payload"
STANDARD = sys.stdlib_module_names | {"__future__"}
PROCESSES = {"asyncio", "multiprocessing", "os", "shutil", "socket", "subprocess", "threading"}


def modules() -> dict[str, Path]:
    """Every module of ours that runs in forkproof's own interpreter."""
    found = {}
    for root in (HARNESS, STRATEGIES):
        for path in root.rglob("*.py"):
            # An installed forkproof carries the findings, which are programs of their own.
            if PAYLOAD not in path.parents and "findings" not in path.relative_to(root).parts:
                parts = path.relative_to(root.parent).with_suffix("").parts
                found[".".join(part for part in parts if part != "__init__")] = path
    return found


MODULES = modules()


@functools.cache
def imports(path: Path, *, top_only: bool = False) -> frozenset[str]:
    """The modules that a file imports, at its top or anywhere."""
    found: set[str] = set()
    tree = ast.parse(path.read_bytes())
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute here"
            assert node.module is not None
            # `from forkproof import scenario` imports a module; `from forkproof.scenario import Loop` does not.
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & MODULES.keys()) or {node.module}
    return frozenset(found)


def below(name: str) -> dict[str, Path]:
    return {module: path for module, path in MODULES.items() if module == name or module.startswith(f"{name}.")}


def outside(path: Path, allowed: set[str]) -> set[str]:
    """What a file imports of ours, beyond `allowed` and what lies below it."""
    ours = {name for name in imports(path) if name.partition(".")[0] in ("forkproof", "forkproof_strategies")}
    return {name for name in ours if not any(name == one or name.startswith(f"{one}.") for one in allowed)}


def foreign(path: Path) -> set[str]:
    """What a file imports that is neither ours nor the standard library's."""
    roots = {name.partition(".")[0] for name in imports(path)}
    return roots - STANDARD - {"forkproof", "forkproof_strategies"}


ALLOWED = {
    "forkproof.errors": set[str](),
    "forkproof.containment": set[str](),
    "forkproof.storage": {"forkproof.files"},
    "forkproof.control": set[str](),
    "forkproof.resp": set[str](),
    "forkproof.proc": set[str](),
    "forkproof.crowd": {"forkproof.proc"},
    "forkproof.outside": {"forkproof.proc", "forkproof.containment"},
    "forkproof.subscriptions": {"forkproof.resp"},
    "forkproof.subscribers": {"forkproof.history"},
    "forkproof.inspection": {
        "forkproof.proc", "forkproof.containment", "forkproof.resp", "forkproof.subscriptions", "forkproof.errors",
    },
    "forkproof.plugins": {"forkproof.errors"},
    "forkproof.registries": {
        "forkproof.bodies", "forkproof.claims", "forkproof.faults", "forkproof.plugins", "forkproof.servers",
    },
    "forkproof.faults": {"forkproof.faults", "forkproof.plugins"},
    "forkproof.bodies": {"forkproof.files", "forkproof.plugins"},
    "forkproof.servers": {"forkproof.errors", "forkproof.plugins"},
    "forkproof.scenario": {
        "forkproof.bodies", "forkproof.errors", "forkproof.faults", "forkproof.files", "forkproof.servers",
    },
    "forkproof.target": {"forkproof.bodies", "forkproof.errors", "forkproof.scenario", "forkproof.servers"},
    "forkproof.files": set[str](),
    "forkproof.tables": {"forkproof.errors"},
    "forkproof.edits": set[str](),
    "forkproof.lanes": {"forkproof.files", "forkproof.tables", "forkproof.errors"},
    "forkproof.rates": set[str](),
    "forkproof.documented": {
        "forkproof.known_issues", "forkproof.scenario", "forkproof.verdict", "forkproof.tables",
    },
    "forkproof.aim": {
        "forkproof.claims", "forkproof.coverage", "forkproof.dimensions", "forkproof.errors", "forkproof.faults",
        "forkproof.files", "forkproof.history", "forkproof.scenario", "forkproof.target", "forkproof.verdict",
    },
    "forkproof.events": {"forkproof.scenario"},
    "forkproof.history": {"forkproof.scenario", "forkproof.events", "forkproof.files", "forkproof.errors"},
    "forkproof.patching": {"forkproof.scenario"},
    "forkproof.verdict": {"forkproof.history"},
    "forkproof.claims": {
        "forkproof.claims", "forkproof.scenario", "forkproof.history", "forkproof.verdict", "forkproof.errors",
        "forkproof.patching", "forkproof.plugins",
    },
    "forkproof.expectation": {
        "forkproof.history", "forkproof.patching", "forkproof.scenario", "forkproof.faults", "forkproof.errors",
        "forkproof.servers",
    },
    "forkproof.known_issues": {"forkproof.scenario", "forkproof.verdict", "forkproof.tables"},
    "forkproof.dimensions": {
        "forkproof.bodies", "forkproof.faults", "forkproof.scenario", "forkproof.servers",
    },
    "forkproof.simplify": {
        "forkproof.dimensions", "forkproof.scenario", "forkproof.faults", "forkproof.errors",
    },
    "forkproof.supervisor": {
        "forkproof.containment", "forkproof.control", "forkproof.resp", "forkproof.faults", "forkproof.outside",
        "forkproof.proc", "forkproof.files", "forkproof.crowd",
    },
    "forkproof.reproducer.around": {"forkproof.scenario"},
    "forkproof.reproducer.source": {"forkproof.reproducer.around", "forkproof.scenario"},
    "forkproof.reproducer.checks": {
        "forkproof.faults", "forkproof.patching", "forkproof.reproducer.around", "forkproof.reproducer.source",
        "forkproof.scenario",
    },
    "forkproof.watcher": {
        "forkproof.control", "forkproof.proc", "forkproof.resp", "forkproof.subscriptions", "forkproof.supervisor",
    },
    "forkproof.observed": {"forkproof.claims", "forkproof.history", "forkproof.scenario", "forkproof.verdict"},
    "forkproof.cures": {
        "forkproof.claims.base", "forkproof.history", "forkproof.observed", "forkproof.scenario",
        "forkproof.tracebacks", "forkproof.verdict",
    },
    "forkproof.nursery": {"forkproof.containment", "forkproof.supervisor", "forkproof.watcher"},
    "forkproof.nest": {"forkproof.scenario"},
    "forkproof_strategies": {
        "forkproof_strategies", "forkproof.bodies", "forkproof.faults", "forkproof.scenario", "forkproof.servers",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", ALLOWED)
def test_a_module_imports_what_comes_before_it(name: str) -> None:
    assert below(name)
    for module, path in below(name).items():
        assert not outside(path, ALLOWED[name]), module


def test_judging_starts_nothing() -> None:
    for module in (
        "forkproof.claims", "forkproof.verdict", "forkproof.history", "forkproof.expectation", "forkproof.observed",
    ):  # fmt: skip
        for name, path in below(module).items():
            assert not {imported.partition(".")[0] for imported in imports(path)} & PROCESSES, name


def test_judging_launches_nothing() -> None:
    for name in ("forkproof.judge", "forkproof.known_issues", "forkproof.simplify"):
        launching = {
            "forkproof.launch", "forkproof.session", "forkproof.nursery", "forkproof.nest", "forkproof.supervisor",
            "forkproof.broker",
        }  # fmt: skip
        assert not imports(MODULES[name]) & (launching | PROCESSES), name


@pytest.mark.parametrize(
    "name",
    [
        "forkproof.supervisor",
        "forkproof.watcher",
        "forkproof.nursery",
        "forkproof.containment",
        "forkproof.control",
        "forkproof.resp",
        "forkproof.faults",
        "forkproof.outside",
        "forkproof.proc",
        "forkproof.files",
    ],
)
def test_what_the_supervisor_imports_is_the_standard_library(name: str) -> None:
    for module, path in below(name).items():
        assert not foreign(path), module


def test_strategies_need_hypothesis_alone() -> None:
    for module, path in below("forkproof_strategies").items():
        assert foreign(path) <= {"hypothesis"}, module
        assert not {name.partition(".")[0] for name in imports(path)} & PROCESSES, module


def test_reports_are_for_what_is_used_by_people() -> None:
    for module, path in MODULES.items():
        if not module.startswith("forkproof.reports"):
            wanted = {name for name in imports(path) if name.startswith("forkproof.reports")}
            assert not wanted or module in ("forkproof.cli", "forkproof.plugin"), module


def test_nothing_imports_the_entry_points() -> None:
    for module, path in MODULES.items():
        found = imports(path) & {"forkproof.cli", "forkproof.plugin"}
        assert not found or module == "forkproof.__main__", module


def test_nothing_of_ours_imports_what_is_under_test() -> None:
    for module, path in MODULES.items():
        assert not foreign(path) & {"gevent", "gunicorn", "flask", "greenlet", "forkproof_payload"}, module


def payload() -> Iterator[Path]:
    yield from PAYLOAD.rglob("*.py")


def test_the_payload_imports_nothing_of_the_host() -> None:
    under_test = {"gevent", "gunicorn", "flask", "flask_socketio", "redis"}
    for path in payload():
        roots = {name.partition(".")[0] for name in imports(path)}
        assert roots <= STANDARD | {"forkproof_payload"} | under_test, path


def test_the_payload_imports_what_is_under_test_only_where_a_scenario_says_so() -> None:
    for name in ("__init__", "probe", "deployment", "loops"):
        top = imports(PAYLOAD / "forkproof_payload" / f"{name}.py", top_only=True)
        assert {imported.partition(".")[0] for imported in top} <= STANDARD | {"forkproof_payload"}, name


def fresh(code: str) -> set[str]:
    """The modules that a fresh interpreter has after `code`, beyond those that it starts with."""
    program = f"import sys; before = set(sys.modules)\n{code}\n"
    program += "print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_importing_the_package_imports_nothing_else() -> None:
    assert fresh("import forkproof") == {"forkproof"}


def test_the_supervisor_runs_on_the_standard_library() -> None:
    found = {name.partition(".")[0] for name in fresh("import forkproof.supervisor")}
    assert found <= STANDARD | {"forkproof"}


def test_what_draws_nothing_does_not_wait_for_hypothesis() -> None:
    found = fresh("import forkproof.check, forkproof.session, forkproof.reports.cases, forkproof.reports.checked")
    assert "forkproof.explore" in found  # what reports knows what it may have to report
    assert not {"hypothesis", "forkproof_strategies"} & found
