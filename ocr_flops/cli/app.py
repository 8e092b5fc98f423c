"""The command `ocr-flops app`."""

from __future__ import annotations

import threading
import webbrowser
from typing import Annotated

import typer


def serve_app(
    host: Annotated[str, typer.Option(help="Address to listen on; beyond loopback with a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 is any free one.")] = 2718,
    token: Annotated[str | None, typer.Option(help="What visitors must show; made and printed where it is needed and not given.")] = None,
    max_upload_mb: Annotated[float, typer.Option(metavar="MB", help="Largest upload.")] = 50,
    headless: Annotated[bool, typer.Option("--headless", help="Do not open a browser.")] = False,
) -> int:
    """Open the what-if app in a browser."""
    from ocr_flops.app import server

    where = server.serving(host, port, token, max_upload_mb)
    with server.listen(where) as listening:
        port = listening.getsockname()[1]
        links = server.links(where, port)
        print("\n".join((*links, "Ctrl-C ends it.")), flush=True)
        if not headless:
            threading.Thread(target=webbrowser.open, args=links[:1], daemon=True).start()  # may look for a browser for long
        server.run(server.build(where, port), listening)
    return 0
