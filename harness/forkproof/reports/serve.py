"""A folder of runs, shown to this machine's browser alone: what each came to, its timeline, and the campaigns there.

Nothing is written, and nothing of the folder is handed out as it is: every page is made here from files that were
checked when they were read. A page on the web cannot reach it either: what does not ask for this machine by name is
refused, since a name that somebody else owns may lead to 127.0.0.1 too.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote, urlsplit

from pydantic import BaseModel, ValidationError

from forkproof import files
from forkproof.errors import ForkproofError, UsageError
from forkproof.reports import campaign, printable, timeline
from forkproof.reports.pages import document, escape, policy

HOST = "127.0.0.1"

LONGEST_VERDICT = 16 << 20
"""Bytes of a verdict that are read."""

LISTED = 1000
"""How many runs are listed, the newest."""

CAMPAIGNS = 20
"""How many campaigns are listed, the newest."""

PATIENCE = 10.0
"""Seconds that a client may take to say what it wants."""


class _Claim(BaseModel):
    name: str
    verdict: str
    surprise: bool = False


class _Verdict(BaseModel):
    """What is read of a run's `verdict.json`."""

    verdict: Literal["held", "unknown", "broken"]
    claims: list[_Claim]


@dataclass(frozen=True)
class Run:
    """A run's folder. `at` is when it was judged or begun, in seconds since the epoch; it may have no verdict."""

    name: str
    at: float
    verdict: _Verdict | None
    drawable: bool

    @property
    def broken(self) -> list[str]:
        """The broken claims, each once, surprises first."""
        claims = self.verdict.claims if self.verdict is not None else []
        found = sorted((claim for claim in claims if claim.verdict == "broken"), key=lambda claim: not claim.surprise)
        return list(dict.fromkeys(claim.name for claim in found))

    @property
    def surprises(self) -> list[str]:
        """The claims that surprised, each once."""
        claims = self.verdict.claims if self.verdict is not None else []
        return list(dict.fromkeys(claim.name for claim in claims if claim.surprise))


class Folder:
    """What of a folder is shown; UsageError where there is none, or it is a run itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            names = os.listdir(path)
        except OSError as error:
            raise UsageError(
                f"{path}: cannot be shown: {error.strerror}. Give the folder that runs were written to, as {DEFAULT}."
            ) from None
        if "launch.json" in names:
            raise UsageError(
                f"{path}: is one run. Give the folder that it lies in, or draw it: forkproof timeline {path}"
            )

    def runs(self) -> list[Run]:
        """The runs, newest first; what is a link, or no run's folder, is left out."""
        found = []
        for entry in os.scandir(self.path):
            try:
                if entry.is_dir(follow_symlinks=False) and (run := _run(Path(entry.path))) is not None:
                    found.append(run)
            except OSError:  # gone meanwhile, or not ours to see
                continue
        return sorted(found, key=lambda run: -run.at)

    def campaigns(self) -> list[tuple[str, campaign.Found]]:
        """The reports of campaigns, by file name, newest first."""
        told = []
        for entry in os.scandir(self.path):
            if entry.name.endswith(".json") and entry.is_file(follow_symlinks=False):
                told.append((-entry.stat(follow_symlinks=False).st_mtime, entry.name))
        found = []
        for _, name in sorted(told)[:CAMPAIGNS]:
            try:
                found.append((name, campaign.read(self.path / name)))
            except UsageError:  # another file of the user's
                continue
        return found

    def index(self) -> str:
        """The page that leads to all others."""
        return document(f"Runs in {self.path}", self._index(), style=_STYLE)

    def _index(self) -> Iterator[str]:
        runs = self.runs()
        counts = Counter(run.verdict.verdict if run.verdict is not None else "not judged" for run in runs)
        told = ", ".join(f"{number} {name}" for name, number in sorted(counts.items())) or "none"
        yield f"<header>\n<h1>{escape(f'Runs in {self.path}')}</h1><p>{escape(told)}</p></header>\n<main>"
        found = self.campaigns()
        if found:
            yield "<h2>Campaigns</h2><ul>"
            for name, one in found:
                words = f"{name}: {one.drawn} scenarios, {len(one.surprises)} surprises"
                yield f'<li><a href="/campaign/{_quoted(name)}">{escape(words)}</a></li>'
            yield "</ul>"
        yield '<h2>Runs</h2><div class="wide" tabindex="0" role="region" aria-label="Runs"><table><thead><tr>'
        yield "".join(
            f'<th scope="col">{title}</th>' for title in ("run", "at (UTC)", "verdict", "broken", "surprises")
        )
        yield "</tr></thead><tbody>"
        for run in runs[:LISTED]:
            yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in _cells(run)) + "</tr>"
        yield "</tbody></table></div>"
        if len(runs) > LISTED:
            yield f"<p>and {len(runs) - LISTED} older ones</p>"
        yield "</main>"

    def page(self, path: str) -> tuple[str, str] | None:
        """The page at a path, and the script that runs in it; None where there is none. ForkproofError: it has none."""
        kind, _, name = path.lstrip("/").partition("/")
        name = unquote(name, errors="surrogateescape")
        match kind:
            case "":
                return self.index(), ""
            case "run" if name in (run.name for run in self.runs() if run.drawable):
                return timeline.page(timeline.picture(self.path / name)), timeline.SCRIPT
            case "campaign" if name in (one for one, _ in self.campaigns()):
                there = {run.name for run in self.runs() if run.drawable}

                def link(run: str) -> str | None:
                    own = Path(run).name
                    return f"/run/{_quoted(own)}" if own in there else None

                return campaign.page(campaign.read(self.path / name), link), campaign.SCRIPT
        return None


DEFAULT = ".forkproof"
_STYLE = "td:first-child { min-width: 10rem; max-width: 20rem; overflow-wrap: anywhere; }\n"
"""A folder may be called anything: one name leaves room for what else there is, on a phone too."""


def _run(folder: Path) -> Run | None:
    with os.scandir(folder) as entries:
        inside = {entry.name: entry.is_symlink() for entry in entries}
    if "launch.json" not in inside:
        return None
    verdict, told = None, folder / "launch.json"
    try:
        verdict = _Verdict.model_validate_json(files.read(folder / "verdict.json", LONGEST_VERDICT))
        told = folder / "verdict.json"
    except (OSError, ValidationError):
        pass
    # A link inside could lead a reader out of the folder.
    drawable = {"launch.json", "scenario.json", "history"} <= inside.keys() and not any(inside.values())
    return Run(folder.name, told.lstat().st_mtime, verdict, drawable)


def _quoted(name: str) -> str:
    return quote(os.fsencode(name), safe="")


def _cells(run: Run) -> Iterator[str]:
    name = escape(run.name)
    yield f'<a href="/run/{_quoted(run.name)}">{name}</a>' if run.drawable else name
    yield time.strftime("%Y-%m-%d %H:%M", time.gmtime(run.at))
    verdict = run.verdict.verdict if run.verdict is not None else "not judged"
    yield f'<span class="bad">{verdict}</span>' if verdict == "broken" else verdict
    yield escape(", ".join(run.broken))
    yield f'<span class="bad">{escape(", ".join(run.surprises))}</span>' if run.surprises else ""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = PATIENCE
    server_version = "forkproof"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        if self.headers.get_all("Host", []) not in [[host] for host in self.server.hosts]:
            self._send(HTTPStatus.MISDIRECTED_REQUEST, *_plain("This is not who you asked for."))
            return
        try:
            with self.server.drawing:
                found = self.server.folder.page(urlsplit(self.path).path)
            answer = (HTTPStatus.OK, *found) if found else (HTTPStatus.NOT_FOUND, *_plain("There is no such page."))
        except ForkproofError as error:
            answer = (HTTPStatus.UNPROCESSABLE_ENTITY, *_plain(str(error)))
        except (OSError, ValueError):  # it was moved meanwhile, or its address is none
            answer = (HTTPStatus.NOT_FOUND, *_plain("There is no such page."))
        except Exception:
            traceback.print_exc()
            print("forkproof: this is a defect of forkproof; please report it with the above", file=sys.stderr)
            answer = (HTTPStatus.INTERNAL_SERVER_ERROR, *_plain("This page could not be made: see the terminal."))
        self._send(*answer)

    def _send(self, status: HTTPStatus, text: str, script: str) -> None:
        data = text.encode(errors="replace")
        self.send_response(status)
        for name, value in (
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Length", str(len(data))),
            ("Content-Security-Policy", f"{policy(script)}; frame-ancestors 'none'"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        if self.server.verbose:
            print(printable(f"{self.log_date_time_string()} {format % args}"), file=sys.stderr)


def _plain(words: str) -> tuple[str, str]:
    return document("forkproof", [f'<main><h1>{escape(words)}</h1><p><a href="/">All runs</a></p></main>']), ""


class Server(ThreadingHTTPServer):
    """Serves a folder on loopback; UsageError where the port cannot be had. `address` is what to open."""

    def __init__(self, folder: Folder, port: int = 0, *, verbose: bool = False) -> None:
        self.folder = folder
        self.verbose = verbose
        self.drawing = threading.Lock()
        """A long history takes memory: one is drawn at a time."""
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            why = {errno.EADDRINUSE: "something listens there already", errno.EACCES: "only root may listen there"}
            told = why.get(error.errno or 0, error.strerror)
            raise UsageError(f"--port {port}: {told}. Give another one, or none: a free one is then taken.") from None
        self.hosts = [f"{name}:{self.server_port}" for name in (HOST, "localhost")]
        if self.server_port == 80:
            self.hosts += [HOST, "localhost"]
        self.address = f"http://{HOST}:{self.server_port}/"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is none of ours to tell of."""
        if not isinstance(sys.exc_info()[1], OSError):
            traceback.print_exc()
