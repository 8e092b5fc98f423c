"""Serves the notebooks as apps, what-if at `/` and the talk at `/talk`, in one process behind `guard.Guard`."""

from __future__ import annotations

import builtins
import contextlib
import errno
import functools
import importlib.util
import logging
import secrets
import socket
import sys
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ocr_flops.app.guard import TOKEN, Guard, is_loopback
from ocr_flops.app.setting import Setting
from ocr_flops.errors import SpecError
from ocr_flops.reports.images import DrawingError, vega_javascript
from ocr_flops.spec.catalog import load_model, notebook_dir

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

WHAT_IF, MOUNTS = "what_if.py", {"/talk": "flash_savings.py"}
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # all addresses, and this machine's among them
LEAST_TOKEN = 8  # characters
MOST_UPLOAD_MB = 1000
SESSION_SECONDS = 120  # a session outlives its page by so much, for reloads and lost connections
BESIDE_UPLOAD_BYTES = 1_000_000  # of the request that carries an upload
WEBSOCKET_MESSAGE_BYTES = 65_536  # pages listen and hardly speak: their controls report by POST


@dataclass(frozen=True)
class Serving:
    """Where to serve and for whom, checked by `serving`.

    Args:
        host, port: to listen on; port 0 is any free one.
        token: what visitors must show; None: nothing.
        max_upload_bytes: of the files chosen at once in one control.
    """

    host: str
    port: int
    token: str | None
    max_upload_bytes: int

    @property
    def max_body_bytes(self) -> int:
        """The limit on a request that lets such an upload through: marimo sends uploads in base64."""
        return -(-self.max_upload_bytes * 4 // 3) + BESIDE_UPLOAD_BYTES


def serving(host: str, port: int, token: str | None, max_upload_mb: float) -> Serving:
    """Checks where to serve and for whom. Beyond loopback a token is needed; where none is given, one is made.

    Args:
        host: a name or an address of this machine; 0.0.0.0 or :: for all its addresses.
        port: 0 to 65535; 0 is any free one.
        token: at least 8 characters; None for the default.
        max_upload_mb: 1 to 1000, in 10^6 bytes.

    Raises:
        SpecError: naming what is wrong.
    """
    host = host.strip().removeprefix("[").removesuffix("]")
    if not host:
        raise SpecError("host: empty; give an address of this machine, as 127.0.0.1, or 0.0.0.0 for all")
    if not 0 <= port <= 65535:
        raise SpecError(f"port: {port} is not from 0 (any free one) to 65535")
    if token is not None and len(token) < LEAST_TOKEN:
        raise SpecError(f"token: {len(token)} characters; give at least {LEAST_TOKEN}, or leave it out and one is made where it is needed")
    if not 1 <= max_upload_mb <= MOST_UPLOAD_MB:
        raise SpecError(f"max-upload-mb: {max_upload_mb:g} is not from 1 to {MOST_UPLOAD_MB}")
    if token is None and not is_loopback(host):
        token = secrets.token_urlsafe()
    return Serving(host, port, token, int(max_upload_mb * 1e6))


def listen(where: Serving) -> socket.socket:
    """A socket bound and listening, so that who opens the address while the app still loads waits and is not refused.

    Raises:
        SpecError: the host is none of this machine's, or the port is taken or reserved.
    """
    try:
        found = socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)
        family, *_, bound = min(found, key=lambda one: one[0] != socket.AF_INET)  # localhost: 127.0.0.1 rather than ::1
        both = bound[0] == "::" and socket.has_dualstack_ipv6()
        listening = socket.create_server(bound[:2], family=family, backlog=2048, dualstack_ipv6=both)
        # Those accepted inherit it; asyncio sets it only where the socket's protocol was given. Without it an answer takes 40 ms longer.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except (socket.gaierror, UnicodeError):
        raise SpecError(f"host: {where.host!r} is not the name or address of this machine") from None
    except OSError as problem:
        if problem.errno == errno.EADDRINUSE:
            raise SpecError(f"port: {where.port} is in use on {where.host}; give another with --port (0: any free one)") from None
        if problem.errno == errno.EACCES:
            raise SpecError(f"port: {where.port} is reserved by the system; give one above 1023") from None
        raise SpecError(f"host: cannot listen on {where.host!r}: {problem.strerror or problem}") from None


def links(where: Serving, port: int) -> tuple[str, ...]:
    """The addresses to open, token and all: the first on this machine; a second for others where it listens on all addresses.

    Args:
        where: as asked for.
        port: that is listened on.
    """
    hosts = (EVERYWHERE[where.host], _own_address()) if where.host in EVERYWHERE else (where.host,)
    query = f"?{TOKEN}={quote(where.token, safe='')}" if where.token else ""
    return tuple(f"http://{f'[{host}]' if ':' in host else host}:{port}/{query}" for host in hosts)


def build(where: Serving, port: int) -> ASGIApp:
    """The ASGI app: the notebooks that there are, behind the guard.

    Args:
        where: as asked for.
        port: that is listened on.
    """
    import marimo
    from starlette.routing import Route

    from ocr_flops.app import chart_widget

    logging.getLogger("marimo").addFilter(lambda record: record.levelno > logging.WARNING)  # which name others' sessions, where one is over
    with contextlib.suppress(ImportError, AttributeError):  # no public name of marimo: where it has none, steps are slower
        from marimo._entrypoints import registry

        registry.entry_points = functools.cache(registry.entry_points)  # every step reads those of all installed packages
    chart_widget.ChartWidget.library = chart_widget.LIBRARY
    folder = notebook_dir()
    mounts = {path: folder / name for path, name in MOUNTS.items() if (folder / name).is_file()}
    head = f'<link rel="modulepreload" href="{chart_widget.LIBRARY}">'
    apps = marimo.create_asgi_app(quiet=True, session_ttl=SESSION_SECONDS, html_head=head).with_app(path="/", root=str(folder / WHAT_IF))
    for mount, path in mounts.items():
        apps = apps.with_app(path=mount, root=str(path))
    served = apps.build()
    served.router.routes[:0] = [Route(f"{mount}/{chart_widget.LIBRARY}", _library) for mount in ("", *mounts)]
    served.router.lifespan_context = _sessions_ended
    _warm_up(folder / WHAT_IF)
    meta = {"max_upload_bytes": where.max_upload_bytes, "talk": "/talk" in mounts}
    return Guard(served, where.token, f"ocr_flops_{port}", where.max_body_bytes, tuple(mounts), meta)


def serve(app: ASGIApp, listening: socket.socket) -> None:
    """Serves until Ctrl-C, which is raised again after a clean end, or a signal to end.

    Args:
        app: what `build` gave.
        listening: what `listen` gave.
    """
    import uvicorn

    _compile_one_at_a_time()
    settings = uvicorn.Config(
        app,
        log_level="error",
        server_header=False,
        timeout_keep_alive=300,
        timeout_graceful_shutdown=1,  # a page's websocket never ends by itself
        ws_max_size=WEBSOCKET_MESSAGE_BYTES,
    )
    server = uvicorn.Server(settings)
    logging.getLogger("uvicorn.error").addFilter(lambda _: not server.should_exit)  # what is cut off by the end is no fault
    server.run(sockets=[listening])


def _warm_up(notebook: Path) -> None:
    """Loads what every session uses and what then stays in this process, so that the first visitor need not wait for it."""
    spec = importlib.util.spec_from_file_location(notebook.stem, notebook)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))  # runs its set-up, no cell
    for work in (_make_library, _compile_charts):  # the one a child's, two seconds once for every version of Vega
        threading.Thread(target=work, daemon=True).start()


def _make_library() -> None:
    with contextlib.suppress(DrawingError):  # which who asks for it is told
        vega_javascript()


def _compile_charts() -> None:
    """Draws every view once, which compiles the templates of its charts."""
    from ocr_flops.app import views

    results = views.evaluate(load_model(), Setting())
    for draw in views.VIEWS.values():
        draw(results)


async def _library(request: Request) -> Response:
    """Vega's JavaScript, of which every version has an address of its own."""
    from starlette import concurrency, responses

    script = await concurrency.run_in_threadpool(vega_javascript)
    return responses.Response(script, media_type="text/javascript", headers={"cache-control": "public, max-age=31536000, immutable"})


def _compile_one_at_a_time() -> None:
    """Keeps threads from compiling Python at the same time, where Python fails at that: before 3.11.8, and in 3.12.0 and 3.12.1.

    There the depth of an AST under construction is counted for all threads together (github.com/python/cpython/issues/106905): a page is
    opened while another one's cells are compiled, and one of the two ends in a SystemError. `ast.parse` goes through `compile`, too.
    """
    if sys.version_info >= (3, 12, 2) or (3, 11, 8) <= sys.version_info < (3, 12):
        return
    compile_code, turn = builtins.compile, threading.RLock()

    @functools.wraps(compile_code)
    def compile_alone(*args: Any, **kwargs: Any) -> Any:
        if len(args) < 5:  # else what is compiled would inherit the __future__ of this file
            kwargs.setdefault("dont_inherit", True)
        with turn:
            return compile_code(*args, **kwargs)

    builtins.compile = compile_alone


@contextlib.asynccontextmanager
async def _sessions_ended(served: Starlette) -> AsyncIterator[None]:
    """Ends the sessions with the server: marimo leaves that to who hosts its apps, and their threads would keep the process alive."""
    from starlette.routing import Mount

    yield
    for route in served.routes:
        if isinstance(route, Mount):
            await route.app.state.session_manager.shutdown()


def _own_address() -> str:
    """The address by which this machine reaches others; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # set aside for documentation, RFC 5737
            return probe.getsockname()[0]
        except OSError:
            return socket.gethostname()
