"""Nothing is cut in the window sizes that people have: `pytest -m browser`."""

from io import BytesIO

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.support.driving import opened, sidebar

pytestmark = pytest.mark.browser
EDGES = """element => { const tabs = [...element.querySelectorAll('[role=tab]')].map(tab => tab.getBoundingClientRect());
  const box = element.getBoundingClientRect();
  return [tabs.length, Math.max(...tabs.map(tab => tab.right)) <= Math.min(box.right, innerWidth) + 1,
    Math.max(...tabs.map(tab => tab.bottom)) <= box.bottom + 1, new Set(tabs.map(tab => Math.round(tab.top))).size] }"""
OVERFLOW = "button => [button.scrollWidth - button.clientWidth, button.scrollHeight - button.clientHeight]"


@pytest.mark.parametrize("width, height, lines", [(1920, 1080, 1), (1280, 1100, 1), (1280, 720, 1), (1000, 900, 1), (700, 900, 2)])
def test_every_tab_is_seen(chromium, address, width, height, lines):
    with opened(chromium, address) as page:
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(500)
        count, within, above, found = page.get_by_role("tablist").first.evaluate(EDGES)
        assert (count, within, above) == (14, True, True) and found <= lines


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_upload_button_holds_its_text(chromium, address, scheme):
    with opened(chromium, address, color_scheme=scheme) as page:
        sidebar(page).get_by_label("tile grid from").select_option(label="image or PDF")
        button = sidebar(page).get_by_test_id("marimo-plugin-file-upload-button")
        expect(button).to_be_visible()
        assert all(over <= 2 for over in button.evaluate(OVERFLOW))
        file = BytesIO()
        Image.new("RGB", (400, 300)).save(file, "PNG")
        sidebar(page).locator("input[type=file]").set_input_files({"name": "page.png", "mimeType": "image/png", "buffer": file.getvalue()})
        expect(page.locator(".details")).to_contain_text("273")
        assert all(over <= 2 for over in button.evaluate(OVERFLOW))
        edges = [sidebar(page).get_by_text(text).last.bounding_box() for text in ("image or PDF", "Click to clear")]
        assert edges[0]["x"] + edges[0]["width"] <= edges[1]["x"] and edges[1]["x"] + edges[1]["width"] <= 310


@pytest.mark.parametrize("width", [1280, 390])
def test_a_long_explanation_stays_in_the_window(chromium, address, width):
    with opened(chromium, address) as page:
        page.set_viewport_size({"width": width, "height": 900})
        page.locator(".figures [data-tooltip]").first.hover()
        shown = page.get_by_role("tooltip").bounding_box()
        assert shown["x"] >= 0 and shown["x"] + shown["width"] <= width and "rest on" in page.locator(".basis").inner_text()
