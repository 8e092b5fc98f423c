"""Records in the browser: laid over charts, calibrated figures, a new record while the page is open, and a file that is none."""

import pytest
from playwright.sync_api import expect

import ocr_flops as of
from tests.support import synthetic
from tests.support.driving import datasets, drawn, open_tab, opened, served, sidebar, until

pytestmark = pytest.mark.browser
PAGES = [("tiny", (1, 1)), ("base", (1, 1)), ("gundam", (1, 2)), ("gundam", (2, 3))]


def test_records_lie_over_the_charts_and_calibrate_the_figures(chromium, tmp_path, monkeypatch):
    monkeypatch.setenv("OCR_FLOPS_RECORDS", str(tmp_path))
    rows = synthetic.frame(synthetic.workloads(PAGES, lengths=((10, 256), (500, 32))), of.load_model(), hardware="l4", attention=("sdpa",))
    with served() as address, opened(chromium, address, "/?tab=Measured") as page:
        expect(page.get_by_text("There are no records yet")).to_be_visible(timeout=30_000)
        expect(page.locator(".basis summary", has_text="timed runs on NVIDIA L4")).to_have_count(0)
        synthetic.written(rows, tmp_path)
        (tmp_path / "broken.json").write_text("{", encoding="utf-8")
        expect(page.locator(".basis summary", has_text="timed runs on NVIDIA L4")).to_be_visible(timeout=30_000)  # looks again by itself
        expect(page.get_by_text("broken.json")).to_be_visible(timeout=30_000)  # drawn after the headline
        until(page, lambda: len(drawn(page)) == 3, "the calibration's charts")
        open_tab(page, "Roofline")
        until(page, lambda: any(found.get("measured") for found in datasets(page)), "diamonds")
        sidebar(page).get_by_role("slider").nth(3).press("ArrowRight")  # one that was not measured
        until(page, lambda: not any(found.get("measured") for found in datasets(page)), "none at another point")
        expect(page.locator(".basis summary", has_text="timed runs on NVIDIA L4")).to_be_visible()
