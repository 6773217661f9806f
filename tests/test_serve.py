"""`forkproof serve`: what it shows of a folder, and what it does not hand out, to whom."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import browser as browsers
import pytest
from histories import server as processes
from histories import window
from test_campaign_page import ended
from test_cli import Run, run, tmp_path
from test_judge import CASE_ZERO, COPIED, run_folder
from test_timeline import BAD, in_a_browser

from forkproof.errors import UsageError
from forkproof.judge import judge
from forkproof.reports import serve

__all__ = ["run", "tmp_path"]
HOSTILE = BAD.replace("\x00", "").replace("\ud800", "").replace("/", "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two runs, one of them judged, and a campaign that names it; a secret lies beside."""
    out = tmp_path / "out"
    case = run_folder(out / "0123456789ab-000001", CASE_ZERO, processes(1), window(), COPIED)
    judge(case)
    run_folder(out / "0123456789ab-000002", CASE_ZERO, processes(1))
    (out / "last-campaign.json").write_text(json.dumps(ended(Path("gone") / case.name).to_dict()), encoding="utf-8")
    (tmp_path / "secret.json").write_text("secret", encoding="utf-8")
    return out


Ask = Callable[..., tuple[int, str]]


@pytest.fixture
def ask(folder: Path) -> Iterator[Ask]:
    """Asks a server of that folder; the answer's status and text."""
    with serve.Server(serve.Folder(folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def ask(path: str = "/", *, method: str = "GET", host: str | None = None) -> tuple[int, str]:
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
            connection.putrequest(method, path, skip_host=True)
            if host != "":
                connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
            connection.endheaders()
            answer = connection.getresponse()
            text = answer.read().decode()
            connection.close()
            assert answer.status == 501 or "default-src 'none'" in (answer.getheader("Content-Security-Policy") or "")
            return answer.status, text

        yield ask
        server.shutdown()
        thread.join()


def test_the_index_leads_to_runs_and_campaigns(ask: Ask) -> None:
    status, text = ask()
    assert status == 200
    assert '<a href="/run/0123456789ab-000001">' in text
    assert "exactly_one_listener" in text
    assert "not judged" in text
    status, page = ask("/run/0123456789ab-000001")
    assert status == 200
    assert '<div id="plot"' in page
    assert '<a href="/campaign/last-campaign.json">' in text
    status, page = ask("/campaign/last-campaign.json")
    assert status == 200
    assert '<a href="/run/0123456789ab-000001">Timeline of this run</a>' in page
    assert ask(method="HEAD") == (200, "")
    assert ask(host="localhost:1")[0] == 421


NOT_THERE = (
    "/run/../secret.json", "/run/..", "/run/.", "/run/", "/run/%2e%2e", "/run/..%2fout", "/campaign/../secret.json",
    "/campaign/..%2fsecret.json", "/campaign/%2e%2e%2fsecret.json", "//etc/passwd", "/../../../../etc/passwd",
    "/run/0123456789ab-000001/launch.json", "/run/0123456789ab-000001%00", "/run/%ff", "/nope", "/[", "//[",
    "http://[/", "/campaign/secret.json", "/run/link", "/campaign/link.json",
)  # fmt: skip


def test_nothing_else_is_handed_out(ask: Ask, folder: Path) -> None:
    (folder / "link").symlink_to(folder / "0123456789ab-000001")
    (folder / "link.json").symlink_to(folder / "last-campaign.json")
    for path in NOT_THERE:
        status, text = ask(path)
        assert (path, status) == (path, 404)
        assert "secret" not in text


def test_it_shows_only_and_to_nobody_else(ask: Ask) -> None:
    for host in ("", "example.org", "example.org:80", "127.0.0.1", "127.0.0.2:80", "[::1]:80"):
        status, text = ask(host=host)
        assert (host, status) == (host, 421)
        assert "0123456789ab" not in text
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(method=method)[0] == 501


def test_a_run_with_a_link_inside_is_not_drawn(ask: Ask, folder: Path) -> None:
    name = "0123456789ab-000001"
    (folder / name / "history").rename(folder / "elsewhere")
    (folder / name / "history").symlink_to(folder / "elsewhere")
    assert ask(f"/run/{name}")[0] == 404
    assert f'href="/run/{name}"' not in ask()[1]


def test_what_a_folder_is_called_speaks_for_no_page(ask: Ask, folder: Path) -> None:
    (folder / "0123456789ab-000001").rename(folder / HOSTILE)
    odd = os.fsdecode(b"odd-\xff")
    (folder / "0123456789ab-000002").rename(folder / odd)
    status, text = ask()
    assert status == 200
    assert "<script" not in text
    assert "<img" not in text
    assert ask("/run/odd-%FF")[0] == 200


def test_a_run_that_is_damaged_is_told(ask: Ask, folder: Path) -> None:
    name = "0123456789ab-000001"
    (folder / name / "verdict.json").write_text('{"verdict": "<b>"}', encoding="utf-8")
    (folder / name / "launch.json").write_text("{", encoding="utf-8")
    (folder / "many.json").write_text("[" * 9999, encoding="utf-8")
    assert ask()[1].count("not judged") == 3
    status, text = ask(f"/run/{name}")
    assert status == 422
    assert "is not the folder of a run" in text


def test_wrong_usage(run: Run, folder: Path, tmp_path: Path) -> None:
    code, _, err = run("serve", tmp_path / "nowhere")
    assert (code, err.count("\n")) == (2, 1)
    assert "nowhere: cannot be shown: No such file or directory. Give the folder" in err
    assert "Not a directory" in run("serve", tmp_path / "secret.json")[2]
    assert "is one run. Give the folder that it lies in" in run("serve", folder / "0123456789ab-000001")[2]
    assert "argument --port: '65536' is not allowed" in run("serve", folder, "--port", "65536")[2]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = run("serve", folder, "--port", taken.getsockname()[1])
    assert (code, err.count("\n")) == (2, 1)
    assert "something listens there already. Give another one, or none" in err


def test_a_port_that_is_listened_on_is_an_error(folder: Path) -> None:
    with serve.Server(serve.Folder(folder)) as first, pytest.raises(UsageError, match="something listens there"):
        serve.Server(serve.Folder(folder), first.server_port)


@pytest.mark.fork
def test_it_ends_on_ctrl_c(folder: Path) -> None:
    words = [sys.executable, "-m", "forkproof", "serve", str(folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[0]
            assert address.startswith("http://127.0.0.1:")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (0, "", "")


class TestInABrowser:
    pytestmark = in_a_browser

    def test_one_walks_from_page_to_page(self, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
        with (
            serve.Server(serve.Folder(folder)) as server,
            browsers.browser(tmp_path_factory.mktemp("chromium")) as chromium,
        ):
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                for link, title in (
                    ("campaign/", "Campaign of"),
                    ("run/0123456789ab-000001", "Run 0123456789ab-000001"),
                ):
                    chromium.asked.clear()
                    chromium.open_at(server.address)
                    assert chromium.js("document.title") == f"Runs in {folder}"
                    assert not [node for node in chromium.nodes() if node["focusable"] and not node["name"]
                                and node["role"] in ("link", "region")]  # fmt: skip
                    chromium.js(f"document.querySelector('a[href^=\"/{link}\"]').click()")
                    there = f"document.readyState === 'complete' && document.title.startsWith('{title}')"
                    until = time.monotonic() + 60
                    while not chromium.js(there):
                        assert time.monotonic() < until, chromium.js("document.title")
                        time.sleep(0.05)
                    assert all(asked.startswith(server.address) for asked in chromium.asked)
                chromium.frame()
                # A browser asks for an icon by itself, and there is none.
                assert [said for said in chromium.said if "404" not in said] == []
            finally:
                server.shutdown()
                thread.join()

    def test_a_long_name_leaves_room_on_a_phone(self, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
        (folder / "0123456789ab-000001").rename(folder / ("x" * 200))
        path = folder.parent / "index.html"
        path.write_text(serve.Folder(folder).index(), encoding="utf-8")
        with browsers.browser(tmp_path_factory.mktemp("chromium")) as chromium:
            chromium.size(375, 800)
            chromium.open(path)
            assert chromium.js("document.querySelector('tbody td').offsetWidth") < 330
