"""The app in a headless Chromium, as a user meets it: `pytest -m browser`."""

import re
from io import BytesIO

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.support.driving import RUN_MS, drawn, open_tab, opened, sidebar, until

pytestmark = pytest.mark.browser
CHARTS = {"Overview": 3, "Tiling": 1, "Sweep": 1, "Roofline": 4, "Memory": 2, "Savings": 3, "Compare": 1}
TABLES = {
    "Plan": "holds at most batch",
    "Corpus": "8 of them take",
    "Measured": "Time the real model here",
    "Table": "tensor GFLOPs",
    "Method": "How these numbers are made",
    "Export": "Make the HTML report",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_tab_draws_in_both_schemes(chromium, address, scheme):
    with opened(chromium, address, color_scheme=scheme) as page:
        expect(page.locator(".figures")).to_contain_text("4.60 T")
        for name, charts in CHARTS.items():
            open_tab(page, name)
            until(page, lambda charts=charts: len(drawn(page)) == charts, f"{charts} charts of {name}")
            until(page, lambda: all(len(picture) > 3000 for picture in drawn(page)), f"something drawn on {name}")
        for name, sign in TABLES.items():
            open_tab(page, name)
            expect(page.get_by_text(sign).filter(visible=True).first).to_be_visible(timeout=30_000)


@pytest.mark.parametrize("width", [1280, 1920])
def test_nothing_is_wider_than_the_window(chromium, address, width):
    with opened(chromium, address) as page:
        page.set_viewport_size({"width": width, "height": 1000})
        for name in ("Overview", "Roofline", "Compare", "Export", "Spot check", "Measured"):
            open_tab(page, name)
            page.wait_for_timeout(500)
            assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth"), name


def test_the_arrow_keys_of_a_slider_move_every_chart_and_figure(page):
    until(page, lambda: len(drawn(page)) == 3, "three charts")
    page.wait_for_timeout(500)  # they are drawn again when their width is known
    before, figures = drawn(page), page.locator(".figures").inner_text()
    sidebar(page).get_by_role("slider").nth(2).focus()  # output tokens
    for _ in range(5):
        page.keyboard.press("PageUp")
    until(page, lambda: page.locator(".figures").inner_text() != figures, "the figures change")
    until(page, lambda: len(drawn(page)) == 3 and not set(drawn(page)) & set(before), "all charts change")


def test_a_wrong_value_is_a_callout_and_the_app_lives_on(page):
    sidebar(page).get_by_label("precision").select_option("fp32")
    sidebar(page).get_by_label("attention").select_option("flash")
    expect(page.get_by_text("This setting has no result.")).to_be_visible()
    expect(page.get_by_text("flash kernels take bf16 or fp16")).to_be_visible()
    sidebar(page).get_by_label("attention").select_option("eager")
    prompt = sidebar(page).get_by_role("textbox", name="prompt")
    for typed, tokens in (("20", "923"), ("-1", "923"), ("99999999", "1,049,479")):  # none below 0; the most that the field takes
        prompt.fill(typed)
        prompt.press("Enter")
        expect(page.locator(".details")).to_contain_text(f"context {tokens}")
    expect(page.get_by_text("This setting has no result.")).to_have_count(0)


def test_files_set_the_page_size_and_bad_ones_are_a_callout(page):
    sidebar(page).get_by_label("tile grid from").select_option(label="image or PDF")
    chooser = sidebar(page).locator("input[type=file]")
    chooser.set_input_files({"name": "notes.png", "mimeType": "image/png", "buffer": b"not an image"})
    expect(page.get_by_text("The file was not used.")).to_be_visible()
    expect(page.locator(".details")).to_contain_text("903")
    chooser.set_input_files({"name": "page.bmp", "mimeType": "image/bmp", "buffer": bmp(400, 300)})
    expect(page.get_by_text("The file was not used.")).to_have_count(0)
    expect(page.locator(".details")).to_contain_text("273")
    chooser.set_input_files({"name": "paper.pdf", "mimeType": "application/pdf", "buffer": pdf((595, 842), (2000, 300))})
    number = sidebar(page).get_by_role("textbox", name="page, of 2")
    expect(number).to_be_visible()
    expect(page.locator(".details")).to_contain_text("2 × 3 tiles")
    number.fill("2")
    number.press("Enter")
    expect(page.locator(".details")).to_contain_text("7 × 1 tiles")
    expect(page).to_have_url(re.compile("width_px=5556&height_px=834"))


def bmp(width, height):
    file = BytesIO()
    Image.new("RGB", (width, height)).save(file, "BMP")
    return file.getvalue()


def pdf(*sizes):
    """A PDF of empty pages."""
    pages = [f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 {width} {height}]>>" for width, height in sizes]
    kids = " ".join(f"{number + 3} 0 R" for number in range(len(pages)))
    objects = ["<</Type/Catalog/Pages 2 0 R>>", f"<</Type/Pages/Kids[{kids}]/Count {len(pages)}>>", *pages]
    body = "".join(f"{number} 0 obj{text}endobj\n" for number, text in enumerate(objects, 1))
    return f"%PDF-1.4\n{body}trailer<</Root 1 0 R/Size {len(objects) + 1}>>\n%%EOF".encode()


def test_grid_controls_are_there_only_for_modes_with_tiles(page):
    sidebar(page).get_by_label("tile grid from").select_option(label="grid by hand")
    expect(sidebar(page).get_by_text("columns", exact=True)).to_be_visible()
    sidebar(page).get_by_label("resolution mode").select_option(label="Base")
    expect(sidebar(page).get_by_text("columns", exact=True)).to_have_count(0)
    expect(page.locator(".details")).to_contain_text("one view")


def test_the_audit_runs_again_here(page):
    open_tab(page, "Method")
    page.get_by_role("tab", name="What torch's counter misses").click()
    expect(page.get_by_text("25 demonstrations")).to_be_visible()
    page.get_by_role("button", name="Run it again, here").click()
    expect(page.locator(".job")).to_be_visible()
    expect(page.locator(".job")).to_have_count(0, timeout=RUN_MS)
    expect(page.get_by_text("25 demonstrations")).to_be_visible()
    assert page.get_by_text("ended early").count() == 0
