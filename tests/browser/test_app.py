"""The app in a headless Chromium, as a user meets it: `pytest -m browser`."""

import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing

import pytest
from playwright.sync_api import expect, sync_playwright

from ocr_flops.config import notebook_dir

pytestmark = pytest.mark.browser
CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
START_SECONDS, RUN_MS = 60, 120_000
DEEP = """([selector, read]) => {
  const found = root => [...root.querySelectorAll(selector),
    ...[...root.querySelectorAll('*')].filter(e => e.shadowRoot).flatMap(e => found(e.shadowRoot))];
  return found(document).map(e => read == 'pixels' ? e.toDataURL() : e.dataset.data) }"""  # through shadow roots


@pytest.fixture(scope="module")
def address():
    """A server of the app on a free port."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "marimo",
        "run",
        str(notebook_dir() / "what_if.py"),
        "--headless",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
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


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, address):
    """A page of the app with its charts drawn; afterwards: no error on the console, and no request to anywhere else."""
    page = chromium.new_page(viewport={"width": 1280, "height": 900})
    wrong = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda problem: wrong.append(str(problem)))
    page.on("request", lambda request: wrong.append(request.url) if not request.url.startswith((address, "data:", "blob:")) else None)
    page.goto(address)
    page.wait_for_selector(".marks", timeout=30_000)
    yield page
    assert "Traceback" not in page.content() and "internal error" not in page.content()
    page.close()
    assert not wrong


def drawn(page):
    """The pixels of every chart."""
    return page.evaluate(DEEP, ["canvas.marks", "pixels"])


def datasets(page):
    """The rows of the charts on the overview."""
    texts = page.evaluate(DEEP, ["marimo-mime-renderer", "rows"])
    return [json.loads(json.loads(text))["datasets"] for text in texts]


def sidebar(page):
    return page.get_by_role("complementary")


def until(page, check, message, timeout_ms=10_000):
    deadline = time.monotonic() + timeout_ms / 1000
    while not check():
        assert time.monotonic() < deadline, message
        page.wait_for_timeout(50)


def open_tab(page, name):
    page.get_by_role("tab", name=name).click()


def test_the_app_opens_with_its_charts(page):
    expect(page.locator(".figures")).to_contain_text("4.60 T")
    until(page, lambda: len(drawn(page)) == 2, "two charts")
    assert all(len(picture) > 5000 for picture in drawn(page))


@pytest.mark.parametrize("name", ["Grids", "Tiling"])
def test_a_tab_draws_its_chart(page, name):
    before = drawn(page)
    open_tab(page, name)
    until(page, lambda: len(drawn(page)) == 1 and drawn(page)[0] not in before, f"the chart of {name}")


def test_the_arrow_keys_of_a_slider_move_every_chart_and_figure(page):
    until(page, lambda: len(drawn(page)) == 2, "two charts")
    page.wait_for_timeout(500)  # they are drawn again when their width is known
    before, figures = drawn(page), page.locator(".figures").inner_text()
    sidebar(page).get_by_role("slider").nth(2).focus()  # output tokens
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    until(page, lambda: page.locator(".figures").inner_text() != figures, "the figures change")
    until(page, lambda: len(drawn(page)) == 2 and not set(drawn(page)) & set(before), "both charts change")


def test_the_button_puts_measured_points_on_the_charts_and_they_stay(page):
    assert not any(rows.get("points") for rows in datasets(page))
    open_tab(page, "Spot check")
    page.get_by_label("device").select_option(label="meta (exact, no GPU)")
    page.get_by_role("button", name="Run the vendor model").click()
    expect(page.get_by_text(re.compile(r"^All \d+ module counts .* equal the analytic value, as integers\.$"))).to_be_visible(
        timeout=RUN_MS
    )
    differences = page.locator("table tbody tr td:nth-child(4)")
    expect(differences.first).to_be_visible()
    assert set(differences.all_inner_texts()) == {"0"} and differences.count() >= 20
    open_tab(page, "Overview")
    until(page, lambda: any(rows.get("points") for rows in datasets(page)), "measured points on the overview")
    points = next(rows["points"] for rows in datasets(page) if rows.get("points"))
    assert all(point["clear"] and point["difference"] == 0 for point in points) and len(points) > 10
    assert " ".join(points[0]["measured"].split()) == "measured: transformers, UnlimitedOcr class, random weights, eager, meta"
    sidebar(page).get_by_label("resolution mode").select_option(label="Base")
    until(
        page,
        lambda: any(rows.get("points") and not rows["points"][0]["clear"] for rows in datasets(page)),
        "points stay, marked as another's",
    )


def test_a_wrong_value_is_a_callout_and_the_app_lives_on(page):
    prompt = sidebar(page).get_by_role("textbox", name="prompt")
    prompt.fill("-1")
    prompt.press("Enter")
    expect(page.get_by_text("This setting has no result.")).to_be_visible()
    expect(page.get_by_text("prompt_tokens: -1 is not")).to_be_visible()
    prompt.fill("20")
    prompt.press("Enter")
    expect(page.locator(".figures")).to_contain_text("923")
    expect(page.get_by_text("This setting has no result.")).to_have_count(0)


def test_a_text_file_named_png_is_a_callout_and_the_app_lives_on(page):
    sidebar(page).get_by_label("tile grid from").select_option(label="image file")
    chooser = sidebar(page).locator("input[type=file]")
    chooser.set_input_files({"name": "notes.png", "mimeType": "image/png", "buffer": b"not an image"})
    expect(page.get_by_text("The image was not used.")).to_be_visible()
    expect(page.locator(".figures")).to_contain_text("903")
    chooser.set_input_files({"name": "page.bmp", "mimeType": "image/bmp", "buffer": _bmp(400, 300)})
    expect(page.get_by_text("The image was not used.")).to_have_count(0)
    expect(page.locator(".figures")).to_contain_text("273")


def _bmp(width, height):
    from io import BytesIO

    from PIL import Image

    file = BytesIO()
    Image.new("RGB", (width, height)).save(file, "BMP")
    return file.getvalue()


def test_grid_controls_are_there_only_for_modes_with_tiles(page):
    sidebar(page).get_by_label("tile grid from").select_option(label="grid by hand")
    expect(sidebar(page).get_by_text("columns", exact=True)).to_be_visible()
    sidebar(page).get_by_label("resolution mode").select_option(label="Base")
    expect(sidebar(page).get_by_text("columns", exact=True)).to_have_count(0)
    expect(page.locator(".figures")).to_contain_text("one view")
