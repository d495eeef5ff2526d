"""Metrics, health and a short status page, on a port of its own inside the same process.

Metrics carry no names. The page lists nodes and runs only for who holds a token: in the
`authorization` header, or once as `/?token=…`, which sets a cookie and redirects to the
page without it, so that the token stays in no history and no referrer.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import html
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from .errors import Unauthenticated
from .metrics import CONTENT_TYPE, Metrics
from .security.authentication import Authenticator, Caller
from .security.tokens import Role

_COOKIE = "opentailr_session"
_SESSION_SECONDS = 12 * 3600
_SESSIONS = 64
"""Browsers signed in at once; the oldest is signed out beyond that."""

_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid #8884; }
th { font-weight: 600; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
code { font-family: ui-monospace, monospace; font-size: .92em; }
.scroll { overflow-x: auto; } .dim { opacity: .7; }
"""


@dataclass(frozen=True, slots=True)
class NodeLine:
    """A node on the page."""

    name: str
    state: str
    attempts: int
    memory: str
    cpu: str


@dataclass(frozen=True, slots=True)
class RunLine:
    """A run on the page."""

    run_id: int
    job: str
    environment: str
    version: int
    state: str
    tasks: str
    submitted: int
    """Microseconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Overview:
    """What the page shows: counts to everybody on this machine, lists to who holds a token."""

    version: str
    counts: Sequence[tuple[str, str]]
    nodes: Sequence[NodeLine]
    runs: Sequence[RunLine]


OverviewSource = Callable[[Caller | None], Awaitable[Overview]]
"""Reads the overview for a caller; for None the lists stay empty."""


class _Sessions:
    """Browsers that showed a token: a random word in a cookie stands for it; only hashes are kept."""

    def __init__(self) -> None:
        self._callers: dict[bytes, tuple[Caller, float]] = {}

    def open(self, caller: Caller) -> str:
        word = secrets.token_urlsafe(32)
        while len(self._callers) >= _SESSIONS:
            self._callers.pop(next(iter(self._callers)))
        self._callers[self._hash(word)] = (caller, time.monotonic() + _SESSION_SECONDS)
        return word

    def find(self, word: str) -> Caller | None:
        caller, until = self._callers.get(self._hash(word), (None, 0.0))
        return caller if time.monotonic() < until else None

    @staticmethod
    def _hash(word: str) -> bytes:
        return hashlib.sha256(word.encode()).digest()


def make_app(
    metrics: Metrics, authenticator: Authenticator, overview: OverviewSource, healthy: Callable[[], bool]
) -> Starlette:
    """The application: `/metrics`, `/healthz` and `/`."""
    sessions = _Sessions()

    async def show_metrics(request: Request) -> Response:
        return Response(metrics.text(), headers={**_HEADERS, "content-type": CONTENT_TYPE})

    async def show_health(request: Request) -> Response:
        status = HTTPStatus.OK if healthy() else HTTPStatus.SERVICE_UNAVAILABLE
        return PlainTextResponse("ok\n" if healthy() else "not serving\n", status, headers=_HEADERS)

    async def show_page(request: Request) -> Response:
        token = request.query_params.get("token")
        try:
            if token is not None:
                caller = _person(authenticator.by_token(token))
                answer = RedirectResponse("/", HTTPStatus.SEE_OTHER, headers=_HEADERS)
                answer.set_cookie(
                    _COOKIE,
                    sessions.open(caller),
                    max_age=_SESSION_SECONDS,
                    httponly=True,
                    samesite="lax",
                    path="/",
                )
                return answer
            header = request.headers.get("authorization")
            viewer = _person(authenticator.by_header(header)) if header else None
        except Unauthenticated as error:
            return PlainTextResponse(
                f"{error.message}\nhint: {error.hint}\n", HTTPStatus.UNAUTHORIZED, headers=_HEADERS
            )
        viewer = viewer or sessions.find(request.cookies.get(_COOKIE, ""))
        page = _page(await overview(viewer), signed_in=viewer is not None)
        return Response(page, headers={**_HEADERS, "content-type": "text/html; charset=utf-8"})

    return Starlette(
        routes=[Route("/", show_page), Route("/metrics", show_metrics), Route("/healthz", show_health)]
    )


def _person(caller: Caller) -> Caller:
    if caller.role is not Role.USER:
        raise Unauthenticated(
            "not_a_person", "the token is not that of a user", hint="use the token in admin.token"
        )
    return caller


def _page(overview: Overview, *, signed_in: bool) -> str:
    counts = "".join(
        f"<tr><th>{html.escape(name)}</th><td class=n>{html.escape(value)}</td></tr>"
        for name, value in overview.counts
    )
    parts = [
        "<!doctype html><html lang=en><head><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width, initial-scale=1">',
        f"<title>Opentailr</title><style>{_STYLE}</style></head><body>",
        f"<h1>Opentailr <span class=dim>{html.escape(overview.version)}</span></h1>",
        f"<table>{counts}</table>",
    ]
    if signed_in:
        parts += ["<h2>Nodes</h2>", _nodes(overview.nodes), "<h2>Latest runs</h2>", _runs(overview.runs)]
    else:
        parts.append(
            "<p class=dim>Nodes and runs are shown with a token: open <code>/?token=…</code> once "
            "with the token of the configuration file or of <code>admin.token</code>.</p>"
        )
    return "".join([*parts, "</body></html>\n"])


def _nodes(nodes: Sequence[NodeLine]) -> str:
    if not nodes:
        return "<p>No node has joined yet. Start one with <code>datatailr agent</code>.</p>"
    rows = "".join(
        f"<tr><td>{html.escape(node.name)}</td><td>{html.escape(node.state)}</td>"
        f"<td class=n>{node.attempts}</td><td class=n>{html.escape(node.memory)}</td>"
        f"<td class=n>{html.escape(node.cpu)}</td></tr>"
        for node in nodes
    )
    head = (
        "<tr><th>Node</th><th>State</th><th class=n>Tasks</th>"
        "<th class=n>Memory</th><th class=n>CPU</th></tr>"
    )
    return f"<div class=scroll><table>{head}{rows}</table></div>"


def _runs(runs: Sequence[RunLine]) -> str:
    if not runs:
        return "<p>Nothing has run yet. Call a workflow, or <code>dt job start NAME</code>.</p>"
    rows = "".join(
        f"<tr><td class=n>{run.run_id}</td><td>{html.escape(run.job)}</td>"
        f"<td>{html.escape(run.environment)}</td><td class=n>{run.version}</td>"
        f"<td>{html.escape(run.state)}</td><td class=n>{html.escape(run.tasks)}</td>"
        f"<td>{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(run.submitted / 1e6))}</td></tr>"
        for run in runs
    )
    head = (
        "<tr><th class=n>Run</th><th>Job</th><th>Environment</th><th class=n>Version</th><th>State</th>"
        "<th class=n>Tasks</th><th>Submitted (UTC)</th></tr>"
    )
    return f"<div class=scroll><table>{head}{rows}</table></div>"


class HttpServer(uvicorn.Server):
    """uvicorn inside our loop: the process's signals belong to the control plane."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to answer, and says so."""
        await super().startup(sockets)
        self._ready.set()

    async def ready(self, serving: asyncio.Task[None]) -> None:
        """Returns when it answers; raises what ended it if it never does."""
        waiting = asyncio.create_task(self._ready.wait())
        await asyncio.wait({waiting, serving}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if serving.done():
            await serving

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signals alone."""
        yield


def make_server(app: Starlette) -> HttpServer:
    """A server for the application; run `serve(sockets=[…])` in a task, end it with `should_exit`."""
    return HttpServer(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=1,
            http="h11",
            ws="none",
        )
    )


def listen(bound: socket.socket) -> socket.socket:
    """Makes a bound socket ready for the server."""
    bound.setblocking(False)
    bound.listen(128)
    return bound
