"""What stands between the network and the app: who may come in, which doors are open, how much may be sent. One ASGI middleware.

marimo's own endpoints already refuse to edit or run code in an app (they need the scope "edit"). The doors below are a second lock, which
does not depend on marimo's version: whatever it adds, an app serves files, one websocket, and the three calls by which controls report.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from collections.abc import Awaitable, Callable, MutableMapping
from html import escape
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

TOKEN = "access_token"  # the parameter of the address that marimo, too, calls so
WRONG_TOKEN_SECONDS = 0.5  # slows guessing down
ALIVE = ("/health", "/healthz")
CALLS = ("/api/kernel/set_ui_element_value", "/api/kernel/function_call", "/api/kernel/set_model_value")
CLOSED = ("/api/", "/auth/", "/terminal/", "/lsp/", "/mcp/")  # to GET
FILES, FILE = "/@file/", re.compile(r"\d+-[\w-]+\.\w+")  # without its ending a name could be one of another program's shared memory
HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"SAMEORIGIN"),
    (b"referrer-policy", b"same-origin"),  # an address carries the scenario
    (
        b"content-security-policy",  # nothing is loaded from or sent to anywhere else; charts compile expressions, hence unsafe-eval
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; "
        b"base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
    ),
)
REPLACED = {name for name, _ in HEADERS}
LOGIN = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>OCR FLOPs</title>
<style>:root {{ color-scheme: light dark }} body {{ font: 16px system-ui; display: grid; place-content: center; min-height: 90vh }}</style>
<form><p>{text}</p><label>Access token <input name="{token}" type="password" autofocus autocomplete="off"></label>
<button>Open</button>{others}</form></html>"""


class Answer(NamedTuple):
    """An answer that is given here, so that the app is not asked."""

    status: int
    text: str
    headers: tuple[tuple[bytes, bytes], ...] = ((b"content-type", b"text/plain; charset=utf-8"),)


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

    def __init__(self, app: App, token: str | None, cookie: str, max_body_bytes: int, mounts: tuple[str, ...], meta: dict[str, Any]):
        self._app, self._token, self._cookie, self._mounts, self._meta = app, token, cookie, mounts, meta
        self._max_body_bytes = max_body_bytes
        self._pass = hmac.digest(token.encode(), b"ocr-flops", "sha256").hex() if token else ""  # known to who knew the token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        answer = self._answer(scope, headers)
        if scope["type"] == "websocket":
            if answer:
                return await send({"type": "websocket.close", "code": 1008})  # before it is accepted: status 403
            return await self._app({**scope, "meta": self._meta}, receive, send)
        if answer:
            await asyncio.sleep(WRONG_TOKEN_SECONDS if answer.status == 401 and TOKEN in dict(_query(scope)) else 0)
            return await _respond(answer, send)
        await self._pass_on({**scope, "meta": self._meta}, headers, receive, _with_headers(send))

    def _answer(self, scope: Scope, headers: dict[str, str]) -> Answer | None:
        """What to answer in place of the app, if anything."""
        path, query = scope["path"], _query(scope)
        if path in ALIVE:
            return None
        if self._token is None:
            host = headers.get("host", "")
            if not is_loopback(urlsplit(f"//{host}").hostname or ""):
                return Answer(403, "This server serves this machine only; start it with --token to open it to others.")
            if "origin" in headers and urlsplit(headers["origin"]).netloc != host:
                return Answer(403, "No other site's page may use this server.")
        elif TOKEN in (given := dict(query)):
            if not hmac.compare_digest(given[TOKEN].encode(), self._token.encode()):
                return self._login(query, "That is not the token.")
            # on to the same address without the token, lest a link that is passed on carries it
            cookie = (b"set-cookie", f"{self._cookie}={self._pass}; Path=/; HttpOnly; SameSite=Lax".encode())
            return _moved("", [pair for pair in query if pair[0] != TOKEN], cookie)
        elif not self._known(headers):
            return self._login(query, "The terminal that runs this app shows its token.")
        if path in self._mounts:
            return _moved(f"{path.rsplit('/', 1)[1]}/", query)
        mount = next((mount for mount in self._mounts if path.startswith(f"{mount}/")), "")
        return None if _open(scope, path.removeprefix(mount)) else Answer(403, "An app does not offer this.")

    def _known(self, headers: dict[str, str]) -> bool:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return False
        return cookie is not None and hmac.compare_digest(cookie.value.encode(), self._pass.encode())

    def _login(self, query: list[tuple[str, str]], text: str) -> Answer:
        others = "".join(f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in query if name != TOKEN)
        return Answer(401, LOGIN.format(text=text, token=TOKEN, others=others), ((b"content-type", b"text/html; charset=utf-8"),))

    async def _pass_on(self, scope: Scope, headers: dict[str, str], receive: Receive, send: Send) -> None:
        """Asks the app, and answers 413 once a body is, or says it is, over the limit."""
        too_large = Answer(413, f"A request may have {self._max_body_bytes} bytes at most.")
        if int(headers.get("content-length", 0)) > self._max_body_bytes:
            return await _respond(too_large, send)
        received, started = 0, False

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return {"type": "http.disconnect"} if received > self._max_body_bytes else message

        async def unless_over(message: Message) -> None:
            nonlocal started
            if received <= self._max_body_bytes:
                started = True
                await send(message)

        try:
            await self._app(scope, counted, unless_over)
        except Exception:
            if received <= self._max_body_bytes:
                raise
        if received > self._max_body_bytes and not started:
            await _respond(too_large, send)


def is_loopback(host: str) -> bool:
    """Whether a host's name or address means this machine alone: localhost, 127.0.0.0/8, ::1."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _open(scope: Scope, path: str) -> bool:
    if scope["type"] == "websocket":
        return path == "/ws"
    if scope["method"] not in ("GET", "HEAD"):
        return scope["method"] == "POST" and path in CALLS
    if path.startswith(FILES):
        return FILE.fullmatch(path.removeprefix(FILES)) is not None
    return not path.startswith(CLOSED)


def _query(scope: Scope) -> list[tuple[str, str]]:
    return parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)


def _moved(where: str, query: list[tuple[str, str]], *headers: tuple[bytes, bytes]) -> Answer:
    return Answer(303, "", ((b"location", f"{where}?{urlencode(query)}".encode()), *headers))


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            # marimo lets pages of any origin read its answers
            kept = [(name, value) for name, value in message["headers"] if name not in REPLACED and not name.startswith(b"access-control-")]
            message = {**message, "headers": [*kept, *HEADERS]}
        await send(message)

    return sent


async def _respond(answer: Answer, send: Send) -> None:
    body = answer.text.encode()
    send = _with_headers(send)
    headers = [*answer.headers, (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
