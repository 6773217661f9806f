"""The check of the judge itself: each defect can be planted, a survivor is told, what cannot be planted is an error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forkproof.claims import REGISTRY

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benchmarks"))  # after ours: both have a planted.py

import mutants  # noqa: E402
from defects import DEFECTS, Defect  # noqa: E402
from mutants import HEADING, Ran, Unfit  # noqa: E402

FILE = "harness/forkproof/sums.py"
CAUGHT = Defect("wrong-sum", "it subtracts", FILE, "a + b", "a - b", ("tests/test_sums.py",))
SURVIVOR = Defect("other-words", "it says so otherwise", FILE, "Adds.", "Sums up.", ("tests/test_sums.py",))


def test_each_defect_can_be_planted() -> None:
    told = [told for told in (mutants.misplaced(defect, ROOT) for defect in DEFECTS) if told]
    assert not told, "follow what you changed in benchmarks/defects.py:\n" + "\n".join(told)


def test_each_defect_has_a_row() -> None:
    page = (ROOT / mutants.PAGE).read_text(encoding="utf-8")
    told = {row.name for row in mutants.rows_on(page, DEFECTS)}
    missing = [defect.name for defect in DEFECTS if defect.name not in told]
    assert not missing, f"run python benchmarks/mutants.py --missing: {missing}"


def test_each_claim_has_a_defect_and_no_name_stands_twice() -> None:
    names = [defect.name for defect in DEFECTS]
    assert len(set(names)) == len(names) >= 40
    assert {f"always-held-{claim}" for claim in REGISTRY} <= set(names)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A project of one function."""
    for path, text in {
        "harness/forkproof/__init__.py": "",
        "harness/forkproof/plugin.py": "",
        FILE: 'def total(a, b):\n    """Adds."""\n    return a + b\n',
        "tests/test_sums.py": "from forkproof.sums import total\n\ndef test_total():\n    assert total(2, 3) == 5\n",
        "pyproject.toml": '[tool.pytest.ini_options]\nmarkers = ["fork"]\n',
        "docs/trust.md": "# Trust\n\n## Bad input\n\nIt is refused.\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


class Suite:
    """Tests that look for a text in the copy; what was asked of them."""

    def __init__(self, red_without: str = "a + b") -> None:
        self.red_without = red_without
        self.asked: list[str] = []

    def __call__(self, copy: Path, tests: Sequence[str], marked: str) -> Ran:
        self.asked.append(f"{marked}: {' '.join(tests)}")
        if self.red_without in (copy / FILE).read_text():
            return Ran(passed=1)
        return Ran(f"{tests[0]}::test_total", "assert -1 == 5")


def test_what_is_caught_and_what_survives(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mutants.main([], tree, [CAUGHT], Suite()) == 0
    assert mutants.main([], tree, [CAUGHT, SURVIVOR], Suite()) == 1
    out = capsys.readouterr().out
    assert "wrong-sum: tests/test_sums.py::test_total: assert -1 == 5" in out
    assert "survived: other-words: it says so otherwise (harness/forkproof/sums.py)" in out
    page = (tree / "docs" / "trust.md").read_text()
    assert page.startswith("# Trust\n\n## Bad input\n\nIt is refused.\n\n## The judge itself\n")
    assert page.count(HEADING) == 1
    assert "| all | 2 | 1 | 0 | 1 |" in page
    assert "| it says so otherwise | `sums.py` | **survived** |" in page
    assert (tree / FILE).read_text().count("a + b") == 1  # the checkout is left alone


def test_a_part_of_the_defects_writes_no_page(tree: Path, tmp_path: Path) -> None:
    before = (tree / "docs" / "trust.md").read_text()
    assert mutants.main(["-k", "wrong", "--json", str(tmp_path / "rows")], tree, [CAUGHT, SURVIVOR], Suite()) == 0
    assert (tree / "docs" / "trust.md").read_text() == before
    assert '"survived": false' in (tmp_path / "rows").read_text()
    assert mutants.main(["-k", "nothing"], tree, [CAUGHT], Suite()) == 2


def test_rows_that_are_missing_are_added(tree: Path) -> None:
    served = replace(CAUGHT, name="served", tells="it serves wrong sums", quick=("tests/test_others.py",))
    served = replace(served, servers=("tests/test_sums.py::test_served",))
    (tree / "tests" / "test_others.py").touch()

    def only_a_server_tells(copy: Path, tests: Sequence[str], marked: str) -> Ran:
        return Suite()(copy, tests, marked) if marked == "fork" else Ran(passed=1)

    assert mutants.main([], tree, [served], only_a_server_tells) == 0
    suite = Suite()
    assert mutants.main(["--missing"], tree, [SURVIVOR, served], suite) == 1
    assert set(suite.asked) == {"not fork: tests/test_sums.py"}  # the other one was not run again
    page = (tree / "docs" / "trust.md").read_text()
    rows = mutants.rows_on(page, [SURVIVOR, served])
    assert [(row.name, row.caught_by != "", row.servers) for row in rows] == [
        ("other-words", False, False),
        ("served", True, True),
    ]
    assert "| all | 2 | 0 | 1 | 1 |" in page


def test_a_section_keeps_its_place() -> None:
    page = f"# Trust\n\n{HEADING}\n\nold\n\n## Bad input\n\nIt is refused.\n"
    assert mutants.with_section(page, f"{HEADING}\n\nnew\n") == page.replace("old", "new")


def test_servers_come_last(tree: Path) -> None:
    suite = Suite()
    both = [
        replace(CAUGHT, servers=("tests/test_sums.py::test_a",)),
        replace(SURVIVOR, servers=("tests/test_sums.py",)),
    ]
    rows = list(mutants.check(both, tree, suite))
    assert [row.servers for row in rows] == [False, True]
    assert suite.asked[2:] == [
        "not fork: tests/test_sums.py",
        *["not fork: tests/test_sums.py", "fork: tests/test_sums.py"],
    ]


def test_servers_are_red_when_they_are_red_again(tree: Path) -> None:
    reds = iter([True, False, True, True])

    def run(copy: Path, tests: Sequence[str], marked: str) -> Ran:
        return Ran("test_it", "late") if marked == "fork" and next(reds) else Ran(passed=1)

    [row] = mutants.check([replace(CAUGHT, servers=("tests/test_sums.py",))], tree, run)
    assert row.caught_by == "test_it"


@pytest.mark.parametrize(("lates", "caught"), [([True, False], False), ([True, True], True)])
def test_quick_tests_that_do_not_end_are_red_when_they_do_not_again(
    tree: Path, lates: list[bool], caught: bool
) -> None:
    late = iter([False, *lates])

    def run(copy: Path, tests: Sequence[str], marked: str) -> Ran:
        return Ran("test_it and others", "they did not end", late=True) if next(late) else Ran(passed=1)

    [row] = mutants.check([SURVIVOR], tree, run)
    assert bool(row.caught_by) == caught


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"old": "a * b"}, "its text stands 0 times in harness/forkproof/sums.py"),
        ({"old": "a"}, "its text stands 3 times"),
        ({"new": "a + b"}, "it changes nothing"),
        ({"new": "a +"}, "would be no Python"),
        ({"file": "harness/forkproof/none.py"}, "No such file"),
        ({"quick": ("tests/test_none.py",)}, "no such test: tests/test_none.py"),
        ({"quick": ()}, "no such test: none is named"),
    ],
)
def test_what_cannot_be_planted_is_an_error(
    tree: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], told: str
) -> None:
    suite = Suite()
    assert mutants.main([], tree, [CAUGHT, replace(CAUGHT, **changes)], suite) == 2
    assert told in capsys.readouterr().err
    assert not suite.asked


def test_a_suite_that_is_red_by_itself_catches_nothing(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mutants.main([], tree, [CAUGHT], Suite(red_without="nowhere")) == 4
    assert "tests/test_sums.py::test_total fails without any defect: assert -1 == 5" in capsys.readouterr().err


@pytest.mark.fork  # it starts no server, and takes as long
def test_with_a_real_suite(tree: Path) -> None:
    rows = {row.name: row for row in mutants.check([CAUGHT, SURVIVOR], tree)}
    assert rows["wrong-sum"].caught_by == "tests/test_sums.py::test_total"
    assert rows["wrong-sum"].why.startswith("assert -1 == 5")
    assert rows["other-words"].caught_by == ""
    with pytest.raises(Unfit, match="none of these tests ran"):
        mutants.run_tests(tree, ["tests/test_sums.py"], "fork")
    (tree / "harness" / "forkproof" / "__init__.py").unlink()
    (tree / "harness").rename(tree / "elsewhere")
    (tree / "tests" / "test_sums.py").write_text("def test_it():\n    pass\n")
    with pytest.raises(Unfit, match="is not the copy"):
        mutants.run_tests(tree, ["tests/test_sums.py"], "not fork")
