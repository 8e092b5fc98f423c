"""What stands between the network and the app: who may come in, which doors are open, how much may be sent. One ASGI middleware.

marimo's own endpoints already refuse to edit or run code in an app (they need the scope "edit"). The doors below are a second lock, which
does not depend on marimo's version: whatever it adds, an app serves files, one websocket, and the three calls by which controls report.
marimo's own token would leave its assets open to everyone.
"""

import asyncio
import contextlib
import hmac
import logging
import re
from html import escape
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlencode, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN = "access_token"  # the parameter of the address that marimo, too, calls so
WRONG_TOKEN_SECONDS = 0.5  # slows guessing down
ALIVE = ("/health", "/healthz")
CALLS = ("/api/kernel/set_ui_element_value", "/api/kernel/function_call", "/api/kernel/set_model_value")
CLOSED = ("/api/", "/auth/", "/terminal/", "/lsp/", "/mcp/")  # to GET
FILES, FILE = "/@file/", re.compile(r"\d+-[\w-]+\.\w+")  # without its ending a name could be one of another program's shared memory
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "same-origin",  # an address carries the setting
    # nothing is loaded from or sent to anywhere else; charts compile expressions, hence unsafe-eval
    "content-security-policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
}
HASHED, FOR_EVER = "/assets/", "private, max-age=31536000, immutable"  # files whose names change with their content
LOGIN = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>OCR FLOPs</title>
<style>:root {{ color-scheme: light dark }} body {{ font: 16px system-ui; display: grid; place-content: center; min-height: 90vh }}</style>
<form><p>{text}</p><label>Access token <input name="{token}" type="password" autofocus autocomplete="off"></label>
<button>Open</button>{others}</form></html>"""


class Guard:
    """Refuses what an app has no need of, limits what is sent to it, and passes on the rest.

    Args:
        app: the ASGI app behind.
        token: what a visitor has to show once, as `?access_token=`; a cookie then stands for it. None where only this machine is served:
            then requests must name a loopback host and come from the app's own pages, so that no other site's page can make them.
        cookie: the name of that cookie, another one for every port: browsers share cookies between ports.
        max_body_bytes: of a request.
        mounts: paths without a last slash at which further apps live, as "/talk".
        meta: what notebooks find as `mo.app_meta().request.meta`.
    """

    def __init__(self, app: ASGIApp, token: str | None, cookie: str, max_body_bytes: int, mounts: tuple[str, ...], meta: dict[str, Any]):
        self._app, self._token, self._cookie, self._mounts, self._meta = app, token, cookie, mounts, meta
        self._max_body_bytes = max_body_bytes
        self._pass = hmac.digest(token.encode(), b"ocr-flops", "sha256").hex() if token else ""  # known to who knew the token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        request = HTTPConnection(scope)
        try:
            answer = self._answer(request)
        except ValueError:  # of urlsplit
            answer = PlainTextResponse("This request's host or origin is no address.", 400)
        scope = {**scope, "meta": self._meta}
        if scope["type"] == "websocket":
            # closed before it is accepted: status 403
            return await (send({"type": "websocket.close", "code": 1008}) if answer else self._app(scope, receive, _while_open(send)))
        if answer:
            await asyncio.sleep(WRONG_TOKEN_SECONDS if answer.status_code == 401 and TOKEN in request.query_params else 0)
            answer.headers["cache-control"] = "no-store"
            return await answer(scope, receive, _with_headers(scope, send))
        await self._pass_on(scope, request, receive, _with_headers(scope, send))

    def _answer(self, request: HTTPConnection) -> Response | None:
        """What to answer in place of the app, if anything."""
        path, query = request.scope["path"], request.query_params.multi_items()
        if path in ALIVE:
            return None
        host, origin = request.headers.get("host", ""), urlsplit(request.headers.get("origin", "")).netloc
        if (
            request.scope["type"] == "websocket"
            and "origin" in request.headers
            and origin not in (host, request.headers.get("x-forwarded-host"))
        ):
            return PlainTextResponse("No other site's page may use this server.", 403)
        if self._token is None:
            if not is_loopback(urlsplit(f"//{host}").hostname or ""):
                return PlainTextResponse("This server serves this machine only; start it with --token to open it to others.", 403)
            if "origin" in request.headers and origin != host:
                return PlainTextResponse("No other site's page may use this server.", 403)
        elif TOKEN in request.query_params:
            if not hmac.compare_digest(request.query_params[TOKEN].encode(), self._token.encode()):
                return _login(query, "That is not the token.")
            # on to the same address without the token, lest a link that is passed on carries it
            moved = _moved("", [pair for pair in query if pair[0] != TOKEN])
            moved.set_cookie(self._cookie, self._pass, httponly=True, samesite="lax")
            return moved
        elif not hmac.compare_digest(request.cookies.get(self._cookie, "").encode(), self._pass.encode()):
            return _login(query, "The terminal that runs this app shows its token.")
        if path in self._mounts:
            return _moved(f"{path.rsplit('/', 1)[1]}/", query)
        mount = next((mount for mount in self._mounts if path.startswith(f"{mount}/")), "")
        return None if _is_open(request.scope, path.removeprefix(mount)) else PlainTextResponse("An app does not offer this.", 403)

    async def _pass_on(self, scope: Scope, request: HTTPConnection, receive: Receive, send: Send) -> None:
        """Asks the app, and answers 413 once a body is, or says it is, over the limit.

        Where the app fails at what a control reports or at a file's name, as one of a session that is over, that is no fault of the server.
        """
        refusal = PlainTextResponse(f"A request may have {self._max_body_bytes} bytes at most.", 413)
        if int(request.headers.get("content-length", 0)) > self._max_body_bytes:
            return await refusal(scope, receive, send)
        received, begun, started = 0, None, False

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return {"type": "http.disconnect"} if received > self._max_body_bytes else message

        async def unless_over(message: Message) -> None:
            nonlocal begun, started
            if message["type"] == "http.response.start":
                begun = message  # which waits for the body: marimo looks for a file after its status
            elif received <= self._max_body_bytes:
                if not started:
                    started = True
                    await send(begun)
                await send(message)

        try:
            await self._app(scope, counted, unless_over)
        except Exception:
            if received <= self._max_body_bytes:
                if not (scope["path"].endswith(CALLS) or FILES in scope["path"]):
                    raise
                logging.getLogger(__name__).debug("%s failed", scope["path"], exc_info=True)
                refusal = PlainTextResponse("There is no such page or file, or this cannot be read.", 404)
        if not started:
            await refusal(scope, receive, send)


def is_loopback(host: str) -> bool:
    """Whether a host's name or address means this machine alone: localhost, 127.0.0.0/8, ::1."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _is_open(scope: Scope, path: str) -> bool:
    """Whether an app offers a path, below where it is mounted."""
    if scope["type"] == "websocket":
        return path == "/ws"
    if scope["method"] not in ("GET", "HEAD"):
        return scope["method"] == "POST" and path in CALLS
    if path.startswith(FILES):
        return FILE.fullmatch(path.removeprefix(FILES)) is not None
    return not path.startswith(CLOSED)


def _login(query: list[tuple[str, str]], text: str) -> Response:
    others = "".join(f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in query if name != TOKEN)
    return HTMLResponse(LOGIN.format(text=text, token=TOKEN, others=others), 401)


def _moved(where: str, query: list[tuple[str, str]]) -> Response:
    return RedirectResponse(f"{where}?{urlencode(query)}", 303)


def _while_open(send: Send) -> Send:
    """Drops what is sent after the end of a websocket: the app learns of the end by what it receives, and needs no second, louder news."""

    async def sent(message: Message) -> None:
        with contextlib.suppress(OSError, RuntimeError):  # what uvicorn raises while the connection goes, and once it is gone
            await send(message)

    return sent


def _with_headers(scope: Scope, send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name in [name for name in headers if name.startswith("access-control-")]:
                del headers[name]  # by which marimo lets pages of any origin read its answers
            headers.update(HEADERS)
            if HASHED in scope["path"] and message["status"] == 200:
                headers["cache-control"] = FOR_EVER
        await send(message)

    return sent
