"""A few of the bad inputs of `benchmarks/fuzz.py`, and whether it would tell of a crash."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import fuzz

DIGITS = st.binary(max_size=30)


def planted(content: bytes) -> None:
    if b"7" in content:
        raise KeyError("seven")
    if b"8" in content:
        raise fuzz.ForkproofError("eight is refused")


def test_nothing_crashes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = fuzz.kinds(tmp_path, plans=1)
    quick = [kind for kind in kinds if kind.share > 5]  # what is judged takes longest
    for some, n in ((quick, 200), ([kind for kind in kinds if kind not in quick], 7)):
        code, told = fuzz.run(some, n, 1, tmp_path / "crashes")
        assert code == 0, told + capsys.readouterr().err
    assert not (tmp_path / "crashes").exists()


def test_a_reader_that_raises_is_told_with_its_smallest_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = [fuzz.Kind("planted", DIGITS, planted), fuzz.Kind("sound", DIGITS, lambda content: None)]
    code, told = fuzz.run(kinds, 300, 3, tmp_path)
    assert code == 1
    assert (tmp_path / "planted-0").read_bytes() == b"7"
    assert "planted: KeyError in test_fuzz.py, planted, line" in capsys.readouterr().err
    # The same again from the same seed.
    assert fuzz.run(kinds, 300, 3, tmp_path) == (code, told)
    rows = {row.split(" | ")[0]: [int(n) for n in row.strip("| ").split(" | ")[1:]] for row in told.splitlines()[2:]}
    assert rows["| sound"] == [150, 150, 0, 0]
    inputs, accepted, refused, crashes = rows["| planted"]
    assert inputs == 150 == accepted + refused + crashes
    assert min(accepted, refused, crashes) > 0


def test_what_is_no_message_is_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzz.by_command(["recheck", str(tmp_path)])
    monkeypatch.setattr(fuzz.cli, "_recheck", lambda arguments: 1 / 0)
    with pytest.raises(fuzz.Crash, match="recheck exits with 4 and says"):
        fuzz.by_command(["recheck", str(tmp_path)])
