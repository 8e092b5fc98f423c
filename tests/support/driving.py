"""What the browser tests share: a server of a page, a Chromium, and what can be read off a page."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing, contextmanager

from playwright.sync_api import sync_playwright

from ocr_flops.app.tabs import group_of

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
NOISE = "[handleFill"  # marimo's sidebar, when it is taken away and put back
START_SECONDS, RUN_MS = 60, 120_000
DEEP = """([selector, read]) => {
  const found = root => [...root.querySelectorAll(selector),
    ...[...root.querySelectorAll('*')].filter(e => e.shadowRoot).flatMap(e => found(e.shadowRoot))];
  return found(document).map(e => read == 'pixels' ? e.toDataURL() : e.drawn?.datasets).filter(Boolean) }"""  # through shadow roots


@contextmanager
def served(*options):
    """`ocr-flops app` on a free port of this machine: its address."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ocr_flops", "app", "--headless", "--port", str(port), *options]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(f"http://127.0.0.1:{port}/health", server)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


def _wait(address, server):
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(address, timeout=2):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise AssertionError("the server did not answer")


@contextmanager
def chromium_browser():
    """A headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def opened(browser, address, query="", ready="[role=tab]", **options):
    """A page that is drawn; afterwards: no traceback on it, no error on the console, no request to anywhere else."""
    page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, **options})
    wrong = []
    page.on(
        "console", lambda message: wrong.append(message.text) if message.type == "error" and not message.text.startswith(NOISE) else None
    )
    page.on("pageerror", lambda problem: wrong.append(str(problem)))
    page.on("request", lambda request: wrong.append(request.url) if not request.url.startswith((address, "data:", "blob:")) else None)
    page.goto(address + query)
    page.wait_for_selector(ready, timeout=30_000)
    yield page
    assert_no_traceback(page)
    page.close()
    assert not wrong, wrong


def assert_no_traceback(page):
    content = page.content()
    assert "Traceback" not in content and "internal error" not in content


def drawn(page):
    """The pixels of every chart."""
    return page.evaluate(DEEP, ["canvas.marks", "pixels"])


def datasets(page):
    """The rows of the charts on the page."""
    return page.evaluate(DEEP, [".of-charts > div", "rows"])


def sidebar(page):
    return page.get_by_role("complementary")


def until(page, check, message, timeout_ms=15_000):
    deadline = time.monotonic() + timeout_ms / 1000
    while not check():
        assert time.monotonic() < deadline, message
        page.wait_for_timeout(50)


def open_tab(page, name):
    page.get_by_role("tab", name=group_of(name), exact=True).click()
    page.get_by_role("tab", name=name, exact=True).click()
