"""The app's server: who may come in, what is refused, how it starts and ends."""

import ast
import builtins
import gc
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import closing, nullcontext
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from ocr_flops import cli
from ocr_flops.app import server as serve
from ocr_flops.app.chart_widget import LIBRARY
from ocr_flops.app.guard import HEADERS, is_loopback
from ocr_flops.errors import SpecError

SECRET = "a-secret-token"
MB = 1
SECONDS = 60
CALL = "/api/kernel/set_ui_element_value"


class Server:
    """`ocr-flops app` in a child process on a free port."""

    def __init__(self, *arguments):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ocr_flops", "app", "--headless", "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.link = self.process.stdout.readline().strip()
        self.port = urlsplit(self.link).port

    def ask(self, path, method="GET", body=None, **headers):
        """Status, headers and text of an answer. No redirect is followed."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)) as connection:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read().decode(errors="replace")

    def session(self, path="/ws", name="s_000000", **options):
        return connect(f"ws://127.0.0.1:{self.port}{path}?session_id={name}", open_timeout=SECONDS, max_queue=None, **options)

    def end(self, how=signal.SIGINT):
        """Exit code and what was written to stderr."""
        self.process.send_signal(how)
        try:
            _, error = self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, error = self.process.communicate()
        return self.process.returncode, error


@pytest.fixture(scope="module")
def local():
    """A server for this machine, with a small limit on uploads; in the end it ends cleanly with a session open."""
    server = Server("--max-upload-mb", str(MB))
    yield server
    with server.session(name="s_theend") as session:
        session.recv(timeout=SECONDS)
        code, errors = server.end()
        assert (code, errors) == (cli.INTERRUPTED, "")


@pytest.fixture(scope="module")
def shared():
    """A server for all, with a token; in the end a request that is half sent is cut off without a word."""
    server = Server("--host", "0.0.0.0", "--token", SECRET)
    yield server
    with socket.create_connection(("127.0.0.1", server.port), SECONDS) as connection:
        cookie = server.ask(f"/?access_token={SECRET}")[1]["set-cookie"].partition(";")[0]
        connection.sendall(
            f"POST {CALL} HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\nMarimo-Session-Id: s_0\r\nContent-Length: 9\r\n\r\n{{".encode()
        )
        assert server.end(signal.SIGTERM) == (-signal.SIGTERM, "")


@pytest.fixture(scope="module")
def cookie(shared):
    return shared.ask(f"/?access_token={SECRET}")[1]["set-cookie"].partition(";")[0]


def test_the_page_is_served_with_careful_headers(local):
    status, headers, text = local.ask("/?columns=3")
    assert status == 200 and "OCR FLOPs" in text
    assert headers.items() >= HEADERS.items()
    assert not [name for name in headers if name.startswith("access-control-") or name == "server"]
    assert json.loads(local.ask("/health")[2]) == {"status": "healthy"}


@pytest.mark.parametrize("mount", ["", "/talk"])
def test_vegas_script_is_served_once_for_all_pages_and_visits(local, mount):
    page = local.ask(f"{mount}/")[2]
    status, headers, script = local.ask(f"{mount}/{LIBRARY}")
    assert f'href="{LIBRARY}"' in page
    assert status == 200 and "immutable" in headers["cache-control"] and "javascript" in headers["content-type"]
    assert len(script) > 500_000 and "window.vegaEmbed" in script


def test_marimos_own_files_are_fetched_once(local):
    asset = re.search(r"assets/index-[\w-]+\.js", local.ask("/")[2]).group()
    for mount in ("", "/talk"):
        assert "immutable" in local.ask(f"{mount}/{asset}")[1]["cache-control"]
    assert "immutable" not in local.ask("/assets/none.js")[1].get("cache-control", "")


def test_answers_do_not_wait_for_a_delayed_acknowledgement():
    with serve.listen(serve.serving("localhost", 0, None, MB)) as listening:
        assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


EDITING = (
    "kernel/run", "kernel/execute", "kernel/scratchpad/run", "kernel/instantiate", "kernel/save", "kernel/rename", "kernel/copy",
    "kernel/read_code", "kernel/code_autocomplete", "kernel/install_missing_packages", "kernel/stdin", "kernel/pdb/pm", "kernel/shutdown",
    "kernel/restart_session", "kernel/takeover", "kernel/interrupt", "kernel/save_user_config", "kernel/save_app_config", "files/create",
    "files/delete", "files/update", "files/list_files", "files/open", "secrets/create", "secrets/keys", "packages/add", "packages/remove",
    "ai/completion", "ai/chat", "ai/invoke_tool", "ai/mcp/refresh", "datasources/preview_column", "sql/validate", "document/transaction",
    "home/tutorial/open", "home/workspace_files", "export/html", "export/script", "export/pdf", "export/requirements/install", "lsp/restart",
    "storage/download", "cache/clear",
)  # fmt: skip
READING = (
    "/api/kernel/status", "/api/files/roots", "/api/files/download?path=/etc/passwd", "/api/packages/list", "/api/environment", "/api/usage",
    "/api/sessions", "/api/ai/mcp/status", "/api/lsp/health", "/auth/token", "/mcp/server", "/lsp/pylsp",
)  # fmt: skip


def test_nothing_that_edits_or_runs_code_is_offered(local):
    for path in EDITING:
        assert local.ask(f"/api/{path}", "POST", "{}", content_type="application/json")[0] == 403, path
    for path in READING:
        assert local.ask(path)[0] == 403, path
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
        assert local.ask("/", method)[0] == 403


def test_marimo_itself_refuses_too(monkeypatch):
    """The first lock, without the guard's: no version of marimo that opens these to an app goes unnoticed."""
    from starlette.testclient import TestClient

    where = serve.serving("127.0.0.1", 0, None, 50)
    unguarded = TestClient(serve.build(where, 0)._app, raise_server_exceptions=False)
    with unguarded as client, client.websocket_connect("/ws?session_id=s_123456") as session:
        session.receive_text()
        headers = {"Marimo-Session-Id": "s_123456"}
        answers = {path: client.post(f"/api/{path}", json={}, headers=headers).status_code for path in EDITING}
    assert {path for path, status in answers.items() if status not in (401, 403, 404, 405)} <= {"home/workspace_files", "export/html"}


@pytest.mark.parametrize("path", ["/terminal/ws", "/ws_sync", "/lsp/pylsp", "/nowhere"])
def test_only_the_sessions_websocket_is_offered(local, path):
    with pytest.raises(InvalidStatus, match="403"), local.session(path):
        pass


def test_paths_do_not_lead_out(local):
    for path in (
        "/../../etc/passwd",
        "/assets/../../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/@file/9-/etc/passwd",
        "/public/../what_if.py",
    ):
        status, _, text = local.ask(path)
        assert status in (400, 403, 404) and "root:" not in text and "import marimo" not in text, path


def test_controls_can_report(local):
    with local.session(name="s_report") as session:
        session.recv(timeout=SECONDS)
        report = json.dumps({"objectIds": [], "values": []})
        status, _, text = local.ask(CALL, "POST", report, Marimo_Session_Id="s_report")
        assert (status, json.loads(text)) == (200, {"success": True})


@pytest.mark.parametrize("host", ["[", "a]b", "[::1"])
def test_what_is_no_address_is_refused(local, host):
    assert local.ask("/", Host=host)[0] == local.ask("/", Origin=f"http://{host}")[0] == 400
    with pytest.raises(InvalidStatus, match="403"), local.session(origin=f"http://{host}"):
        pass


def test_what_the_page_of_a_session_that_is_over_sends_is_said_to_it_alone(local):
    """And what is no report at all: `local` looks at what its terminal says."""
    report = json.dumps({"objectIds": [], "values": []})
    for body in (report, "", "{", "[]", '{"a":' * 50_000):
        assert local.ask(CALL, "POST", body, Marimo_Session_Id="s_gone00")[0] in (400, 404, 500)
    assert local.ask("/@file/9-gone.csv")[0] == 404
    with socket.create_connection(("127.0.0.1", local.port), SECONDS) as connection:
        connection.sendall(f"POST {CALL} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{{".encode())


def test_a_message_over_the_limit_ends_its_websocket_alone(local):
    with local.session() as session:
        session.recv(timeout=SECONDS)
        session.send("x" * (serve.WEBSOCKET_MESSAGE_BYTES + 1))
        with pytest.raises(ConnectionClosed, match="1009"):
            while True:
                session.recv(timeout=SECONDS)
    assert local.ask("/")[0] == 200


LIMIT = serve.serving("localhost", 0, None, MB).max_body_bytes


def test_a_body_over_the_limit_is_refused_before_it_is_read(local):
    with socket.create_connection(("127.0.0.1", local.port), SECONDS) as connection:
        head = f"POST {CALL} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {LIMIT + 1}\r\n\r\n"
        connection.sendall(head.encode())  # and not one byte of the body
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(("size", "status"), [(LIMIT, b"200"), (LIMIT + 1, b"413")])
def test_a_streamed_body_is_refused_once_it_is_over_the_limit(local, size, status):
    head = f"POST {CALL} HTTP/1.1\r\nHost: localhost\r\nMarimo-Session-Id: s_stream\r\nTransfer-Encoding: chunked\r\n\r\n{size:x}\r\n"
    body = json.dumps({"objectIds": [], "values": []}).ljust(size)
    with local.session(name="s_stream") as session, socket.create_connection(("127.0.0.1", local.port), SECONDS) as connection:
        session.recv(timeout=SECONDS)
        connection.sendall(f"{head}{body}\r\n0\r\n\r\n".encode())
        assert connection.recv(100).split()[1] == status


def test_an_upload_of_the_size_allowed_fits_in_base64():
    assert LIMIT > -(-MB * 1_000_000 // 3) * 4


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9", "[::1]:2718", "127.8.9.10"])
def test_loopback_names_are_served_without_a_token(local, host):
    assert local.ask("/", Host=host)[0] == 200


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Host": "localhost.evil.example"}, {"Host": ""}, {"Host": "10.0.0.1:80"}])
def test_a_name_that_was_made_to_point_here_is_refused(local, headers):
    assert local.ask("/", **headers)[0] == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost:9", "null"])
def test_another_sites_page_is_refused(local, origin):
    assert local.ask("/api/kernel/function_call", "POST", "{}", Host=f"localhost:{local.port}", Origin=origin)[0] == 403
    with pytest.raises(InvalidStatus, match="403"), local.session(origin=origin):
        pass


def test_the_token_opens_once_and_leaves_the_address(shared):
    assert shared.link == f"http://127.0.0.1:{shared.port}/?access_token={SECRET}"
    status, headers, _ = shared.ask(f"/?columns=3&access_token={SECRET}&rows=2")
    assert (status, headers["location"]) == (303, "?columns=3&rows=2")
    assert SECRET not in headers["set-cookie"]
    assert re.fullmatch(rf"ocr_flops_{shared.port}=[0-9a-f]{{64}}; HttpOnly; Path=/; SameSite=lax", headers["set-cookie"])


def test_who_has_the_cookie_is_served_and_still_edits_nothing(shared, cookie):
    assert shared.ask("/?columns=3", Cookie=cookie)[0] == 200
    assert shared.ask("/", Cookie=cookie, Host="ocr.example:80")[0] == 200
    for path in EDITING:
        assert shared.ask(f"/api/{path}", "POST", "{}", Cookie=cookie)[0] == 403, path
    with shared.session(additional_headers={"Cookie": cookie}) as session:
        assert session.recv(timeout=SECONDS)
    for origin, proxy, allowed in (("https://evil.example", {}, False), ("https://ocr.example", {"X-Forwarded-Host": "ocr.example"}, True)):
        headers, refused = {"Cookie": cookie, **proxy}, nullcontext() if allowed else pytest.raises(InvalidStatus, match="403")
        with refused, shared.session(origin=origin, additional_headers=headers) as session:
            assert session.recv(timeout=SECONDS)


@pytest.mark.parametrize("path", ["/", "/talk/", "/assets/x.js", "/favicon.ico", "/@file/1-x", "/api/kernel/function_call", "/api/version"])
def test_without_the_token_nothing_is_served(shared, path):
    for headers in (
        {},
        {"Cookie": f"ocr_flops_{shared.port}={SECRET}"},
        {"Cookie": "session=x; ;;="},
        {"Authorization": f"Bearer {SECRET}x"},
    ):
        for method in ("GET", "POST"):
            status, _, text = shared.ask(path, method, **headers)
            assert status == 401 and "Access token" in text
    assert shared.ask("/health")[0] == 200


def test_without_the_token_no_session_begins(shared):
    with pytest.raises(InvalidStatus, match="403"), shared.session():
        pass


def test_a_wrong_token_is_slow_and_keeps_the_scenario(shared):
    began = time.monotonic()
    status, headers, text = shared.ask("/?access_token=guess&columns=3&x=%22%3E%3Cscript%3E")
    assert status == 401 and "not the token" in text and 'name="columns" value="3"' in text
    assert "<script>" not in text and "guess" not in text and "set-cookie" not in headers
    assert time.monotonic() - began >= 0.5


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_apps_process_does_not_load_torch(local):
    with local.session(name="s_torch0") as session:
        while "completed-run" not in session.recv(timeout=SECONDS):
            pass
    libraries = Path(f"/proc/{local.process.pid}/maps").read_text()
    assert "polars" in libraries and "torch" not in libraries


BAD = {
    ("--port", "65536"): "port: 65536 is not from 0",
    ("--port", "-1"): "port: -1 is not from 0",
    ("--token", ""): "token: 0 characters; give at least 8",
    ("--token", "1234567"): "token: 7 characters; give at least 8",
    ("--host", ""): "host: empty; give an address of this machine",
    ("--host", "192.0.2.1"): "host: cannot listen on '192.0.2.1': Cannot assign requested address",
    ("--host", "no such host"): "host: 'no such host' is not the name or address of this machine",
    ("--host", "x" * 300): "is not the name or address of this machine",
    ("--max-upload-mb", "0"): "max-upload-mb: 0 is not from 1 to 1000",
    ("--max-upload-mb", "nan"): "max-upload-mb: nan is not from 1 to 1000",
    ("--max-upload-mb", "1e9"): "max-upload-mb: 1e+09 is not from 1 to 1000",
}


@pytest.mark.parametrize("arguments", BAD)
def test_what_cannot_be_served_is_one_line(capsys, arguments):
    assert cli.main(["app", "--headless", *arguments]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.count("\n") == 1
    assert error.startswith("ocr-flops app: ") and BAD[arguments] in error


def test_a_port_in_use_is_one_line(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["app", "--headless", "--port", str(port)]) == 2
    assert capsys.readouterr().err == f"ocr-flops app: port: {port} is in use on 127.0.0.1; give another with --port (0: any free one)\n"


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False), ("10.1.2.3", False),
     ("127.1", False), ("0", False), ("example.org", False), ("localhost.example.org", False)],
)  # fmt: skip
def test_beyond_loopback_a_token_is_made(host, local):
    assert is_loopback(host) is local
    one, other = (serve.serving(host, 2718, None, 50).token for _ in range(2))
    assert (one is None) is local
    assert local or (len(one) >= 32 and one != other)
    assert serve.serving(host, 2718, SECRET, 50).token == SECRET


def test_links_can_be_opened():
    assert serve.links(serve.serving("[::1]", 1, None, 50), 80) == ("http://[::1]:80/",)
    first, second = serve.links(serve.serving("0.0.0.0", 1, "a+b&c=d/e", 50), 80)
    assert first == "http://127.0.0.1:80/?access_token=a%2Bb%26c%3Dd%2Fe"
    assert second.endswith(":80/?access_token=a%2Bb%26c%3Dd%2Fe") and "0.0.0.0" not in second


def test_localhost_is_bound_to_one_address_of_this_machine():
    with serve.listen(serve.serving("localhost", 0, None, 50)) as bound:
        assert is_loopback(bound.getsockname()[0])


def test_a_wrong_value_is_named():
    with pytest.raises(SpecError, match=r"^port: 70000 is not from 0"):
        serve.serving("localhost", 70_000, None, 50)


def test_pages_opened_at_the_same_moment_do_not_disturb_each_other(monkeypatch):
    """Before Python 3.11.8, an AST made by another thread while this one's is under construction ends this one in a SystemError."""
    monkeypatch.setattr(builtins, "compile", builtins.compile)  # put back afterwards
    serve._compile_one_at_a_time()
    source = "\n".join(f"a{number} = [b, (c, d)]" for number in range(500))
    others = []

    def in_the_middle(phase, info):
        if phase == "start" and not others:
            others.append(threading.Thread(target=ast.parse, args=("e = [f, (g, h)]",)))
            others[0].start()
            others[0].join(0.5)

    usual = gc.get_threshold()
    gc.callbacks.append(in_the_middle)
    gc.set_threshold(50)
    try:
        assert len(ast.parse(source).body) == 500
    finally:
        gc.set_threshold(*usual)
        gc.callbacks.remove(in_the_middle)
    assert others
    others[0].join()
