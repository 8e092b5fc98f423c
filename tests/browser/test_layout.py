"""Nothing is cut in the window sizes that people have: `pytest -m browser`."""

from io import BytesIO

import pytest
from PIL import Image
from playwright.sync_api import expect

from ocr_flops.app.tabs import GROUPS, TABS
from tests.support.driving import open_tab, opened, sidebar, until

pytestmark = pytest.mark.browser
EDGES = """lists => lists.flatMap(list => [...list.querySelectorAll('[role=tab]')].map(tab => [tab.innerText, tab.getBoundingClientRect(), list])).map(
  ([name, box, list]) => [name, box.width > 20 && box.right <= Math.min(list.getBoundingClientRect().right, innerWidth) + 1 &&
    box.bottom <= list.getBoundingClientRect().bottom + 1, Math.round(box.top)])"""
OVERFLOW = "button => [button.scrollWidth - button.clientWidth, button.scrollHeight - button.clientHeight]"


@pytest.mark.parametrize("width, height, lines", [(1920, 1080, 1), (1440, 900, 1), (1280, 720, 1), (1024, 768, 2), (390, 844, 3)])
def test_every_tab_is_seen(chromium, address, width, height, lines):
    with opened(chromium, address, viewport={"width": width, "height": height}) as page:
        for group, tabs in GROUPS.items():
            page.get_by_role("tab", name=group, exact=True).click()
            expect(page.get_by_role("tab", name=tabs[0], exact=True)).to_be_visible(timeout=20_000)
            names, seen, tops = zip(*page.locator("[role=tablist]").evaluate_all(EDGES), strict=True)
            assert names[: len(GROUPS) + len(tabs)] == (*GROUPS, *tabs) and all(seen)
            assert len(set(tops[: len(GROUPS) + len(tabs)])) <= lines


def test_tabs_stay_where_they_are(chromium, address):
    with opened(chromium, address) as page:
        for name in TABS:
            open_tab(page, name)
            page.wait_for_timeout(400)
            assert page.get_by_role("tablist").first.bounding_box()["y"] < 260, name


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


def test_who_uses_keys_or_fingers_is_told_what_things_mean(chromium, address):
    with opened(chromium, address, has_touch=True) as page:
        names = sidebar(page).get_by_role("textbox").evaluate_all("all => all.map(one => one.getAttribute('aria-label'))")
        assert "prompt (tokens)" in names and not any("<" in name for name in names)
        sidebar(page).get_by_label("resolution mode").press("Tab")
        expect(page.locator(".tip")).to_contain_text("The tile rule picks the grid")
        page.keyboard.press("Escape")
        expect(page.locator(".tip")).to_be_hidden()
        page.locator(".figures [data-tooltip]").last.tap()
        expect(page.locator(".tip")).to_contain_text("Weights, KV cache")
        page.locator(".details [data-tooltip]").last.press("Tab")
        focus, seen = "() => { let at = document.activeElement; while (at.shadowRoot) at = at.shadowRoot.activeElement; return at", []
        for _ in range(3):  # both lists of tabs without their empty panels, and the first chart
            page.keyboard.press("Tab")
            seen.append(page.evaluate(focus + ".ariaLabel ?? at.textContent }"))
        assert seen[:2] == ["Why?", "Overview"] and "tensor FLOPs" in seen[2]
        assert page.locator("[role=tab][aria-selected=true]").all_inner_texts() == ["Why?", "Overview"]


def test_nothing_is_wider_than_a_phone(chromium, address):
    wide = """() => { const found = root => [...root.querySelectorAll('.chart-wrapper, table'), ...[...root.querySelectorAll('*')].filter(e => e.shadowRoot)
      .flatMap(e => found(e.shadowRoot))]; return found(document).filter(e => e.getClientRects().length)
      .map(e => [e.localName, e.getBoundingClientRect().left, e.getBoundingClientRect().right, e.scrollWidth - e.clientWidth]) }"""
    with opened(chromium, address, viewport={"width": 390, "height": 2600}) as page:
        for name in TABS:
            open_tab(page, name)
            page.wait_for_timeout(1500)

            def fits():
                return all(left >= 0 and right <= 390 and over <= 1 for _, left, right, over in page.evaluate(wide))

            until(page, fits, f"{name} fits: {page.evaluate(wide)}")
            assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth"), name


@pytest.mark.parametrize("width", [1280, 1440])
def test_tables_fit_their_room(chromium, address, width):
    wide = """() => { const found = root => [...root.querySelectorAll('table'), ...[...root.querySelectorAll('*')].filter(e => e.shadowRoot)
      .flatMap(e => found(e.shadowRoot))]; return found(document).map(e => e.getBoundingClientRect().right) }"""
    with opened(chromium, address, "/?price=0.8", viewport={"width": width, "height": 900}) as page:
        for name in ("Plan", "Serving", "Corpus", "Models"):
            open_tab(page, name)
            until(page, lambda: 0 < max(page.evaluate(wide), default=0) <= width, name)
