"""Scenarios that surprised are kept, and the next campaign runs them first, wherever it is."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis.database import DirectoryBasedExampleDatabase
from test_cli import Run, run, tmp_path
from test_explore import BIG, PLAIN, Pretended, explorer

from forkproof import broker, corpus
from forkproof.errors import BrokerError, UsageError
from forkproof.expectation import Expectation
from forkproof.scenario import Scenario, Server

__all__ = ["run", "tmp_path"]

PRELOAD = Scenario(loops=PLAIN.loops, server=Server(preload=True))


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with broker.start(broker.parse("embedded"), tmp_path_factory.mktemp("redis")) as started:
        yield started.url


@pytest.fixture(params=["folder", "redis"])
def where(request: pytest.FixtureRequest, tmp_path: Path, redis: str) -> str:
    return redis if request.param == "redis" else str(tmp_path / "below" / "kept")


def test_what_is_kept_is_found_by_the_next_one(where: str) -> None:
    with corpus.opened(where) as one:
        for what in (BIG, PRELOAD, BIG):
            one.save(what)
    with corpus.opened(where) as another:
        assert another.fetch() == (sorted([BIG, PRELOAD], key=lambda what: what.digest), 0)


def test_what_another_forkproof_wrote_is_passed_over_and_left(tmp_path: Path) -> None:
    database = DirectoryBasedExampleDatabase(tmp_path)
    for content in (b"\xff", b"{", b'{"loops": [], "later": 1}', PRELOAD.to_json().encode()):
        database.save(corpus.KEY, content)
    with corpus.opened(str(tmp_path)) as kept:
        assert kept.fetch() == ([PRELOAD], 3)
    assert len(list(database.fetch(corpus.KEY))) == 4


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is no folder"),
        (__file__, "is no folder"),
        ("mysql://h", "is no kind of database"),
        ("rediss://h:1", "is no kind of database"),
        ("redis://", "no host"),
        ("redis://h:0", "0 is no port"),
        ("redis://h:port", "Port could not be cast"),
        ("redis://h/x", "'x' is no number of a database"),
        ("redis://h?db=1", "no options can follow"),
    ],
)
def test_what_is_no_database_is_told(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        corpus.opened(text).__enter__()
    assert str(caught.value).startswith(f"--database {text}: ")
    assert "give a folder, or redis://" in str(caught.value)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be made: Not a directory"):
        corpus.opened(str(tmp_path / "file" / "below")).__enter__()


def test_a_redis_that_does_not_answer_is_told_without_its_password() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"redis://me:secret@127.0.0.1:{bound.getsockname()[1]}/2"
        with (
            corpus.opened(url) as kept,
            pytest.raises(BrokerError, match=r"--database redis://\.\.\.@127.*refused.*Start that Redis") as caught,
        ):
            kept.fetch()
    assert "secret" not in str(caught.value)


def test_a_redis_that_refuses_is_told(redis: str) -> None:
    with corpus.opened(f"{redis.rpartition('/')[0]}/99") as kept, pytest.raises(BrokerError, match="--database redis"):
        kept.save(PLAIN)


def test_what_surprised_before_is_run_first_and_what_surprises_now_is_kept(tmp_path: Path) -> None:
    kept: list[Scenario] = []
    session = Pretended(tmp_path, lambda what: what.server.preload)
    first = explorer(session, find_causes=False, keep=kept.append).explore([[BIG]])
    assert (first.kept, first.drawn) == (0, 1)
    assert kept == [first.failures[0].scenario]
    again: list[Scenario] = []
    second = explorer(session, find_causes=False, kept=kept, keep=again.append).explore([[PLAIN]])
    assert (second.kept, second.drawn, second.exit_code()) == (1, 1, 1)
    assert second.phases[0].name == "what surprised before"
    assert again == kept
    assert second.to_dict()["kept"] == 1


@pytest.mark.parametrize("how", ["a known issue", "a break that is expected", "seen once"])
def test_what_is_no_news_is_not_kept(how: str, tmp_path: Path) -> None:
    kept: list[Scenario] = []
    session = Pretended(tmp_path, lambda what: how != "seen once" or session.launched == 1)
    if how == "a known issue":
        session.known_issue = "an-id"
    if how == "a break that is expected":
        session.expectation = Expectation.MUST_BREAK
    explorer(session, find_causes=False, jobs=1, shrink_expected=True, keep=kept.append).explore([[PLAIN]])
    assert kept == []


def test_what_cannot_be_run_or_tells_nothing_of_the_claims_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Pretended(tmp_path, lambda what: False)
    monkeypatch.setattr(session, "can_run", lambda what: what != BIG)
    assert explorer(session, kept=[BIG, PRELOAD]).explore([[PLAIN]]).kept == 1
    session.claims = ["every_message_handled_once"]
    assert explorer(session, kept=[BIG, PRELOAD]).explore([[PLAIN]]).kept == 0


def test_a_database_that_is_lost_ends_no_campaign(tmp_path: Path) -> None:
    def lost(what: Scenario) -> None:
        raise BrokerError("--database redis://h: gone")

    campaign = explorer(Pretended(tmp_path, lambda what: True), find_causes=False, keep=lost).explore([[PLAIN]])
    assert campaign.problems == ["--database redis://h: gone"]
    assert campaign.exit_code() == 1


def test_the_command_refuses_what_is_no_database_before_it_starts_anything(run: Run) -> None:
    code, out, err = run("explore", "--database", "redis://h:port")
    assert (code, out) == (2, "")
    assert err.startswith("forkproof: --database redis://h:port: Port could not be cast")


@pytest.mark.fork
def test_the_command_runs_first_what_another_machine_has_kept(run: Run, redis: str) -> None:
    database = f"{redis.rpartition('/')[0]}/7"
    with corpus.opened(database) as kept:
        kept.save(PRELOAD)
    words = ("-n", "1", "--seed", "4", "--claim", "workers_boot", "--database", database)
    code, out, err = run("explore", *words)
    assert code == 0, err
    assert "what surprised before: 1 run\n" in err
    assert "1 scenario (seed 4) and 1 that surprised before, 2 servers" in out
