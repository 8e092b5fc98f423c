"""The guard alone: what it lets through to whatever app is behind it, and how a visit ends."""

import pytest
from starlette.websockets import WebSocket, WebSocketDisconnect

from ocr_flops.app import guard


def test_the_guard_opens_one_websocket_whatever_the_app_behind_it_offers():
    opened = [path for path in ("/ws", "/ws_sync", "/terminal/ws", "/lsp/pylsp", "/") if guard._is_open({"type": "websocket"}, path)]
    assert opened == ["/ws"]


@pytest.mark.anyio
@pytest.mark.parametrize("problem", [RuntimeError("sent after 'websocket.close'"), OSError()])
async def test_a_page_that_closed_ends_its_visit_and_is_no_fault(problem):
    async def visited(scope, receive, send):
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        await websocket.send_text("a chart")
        with pytest.raises(WebSocketDisconnect):
            await websocket.receive_text()
        ended.append(True)

    async def send(message):
        if message["type"] == "websocket.send":
            raise problem

    async def receive():
        return next(received)

    ended, received = [], iter([{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1012}])
    scope = {"type": "websocket", "path": "/ws", "query_string": b"", "headers": [(b"host", b"localhost")]}
    await guard.Guard(visited, None, "cookie", 1, (), {})(scope, receive, send)
    assert ended
