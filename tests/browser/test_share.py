"""Links, pins and downloads in the browser."""

import csv
import json
import re
from io import StringIO

import pytest
from playwright.sync_api import expect

import ocr_flops as of
from tests.support.driving import drawn, open_tab, opened, sidebar, until

pytestmark = pytest.mark.browser


def test_the_address_carries_the_setting_and_opens_it_again(chromium, address):
    with opened(chromium, address) as page:
        sidebar(page).get_by_label("attention").select_option(label="flash")
        sidebar(page).get_by_label("resolution mode").select_option(label="Gundam-M")
        sidebar(page).get_by_role("slider").nth(3).press("ArrowRight")
        open_tab(page, "Memory")
        expect(page).to_have_url(re.compile(r"mode=gundam_m&.*batch_size=2&attention=flash.*&tab=Memory"))
        link, figures = page.url, page.locator(".figures").inner_text()
    with opened(chromium, address, link.removeprefix(address)) as page:
        expect(page.get_by_role("tab", name="Memory")).to_have_attribute("aria-selected", "true")
        until(page, lambda: page.locator(".figures").inner_text() == figures, "the same figures")
        assert page.url == link


def test_the_link_is_copied_and_the_talk_opens_with_it(chromium, address):
    with opened(chromium, address, "/?tab=Plan&gpu=h200", permissions=["clipboard-read"]) as page:
        sidebar(page).get_by_label("a common page").select_option(label="A4 at 300 dpi")
        expect(page).to_have_url(re.compile("width_px=2480&height_px=3508"))
        sidebar(page).get_by_role("button", name="Copy link").click()
        expect(sidebar(page).get_by_text("Copied")).to_be_visible()
        assert page.evaluate("navigator.clipboard.readText()") == page.url
        sidebar(page).get_by_role("link", name="The talk").click()
        page.wait_for_selector(".talk")
        assert "gpu=h200" in page.url


def test_back_leaves_the_app(chromium, address):
    with opened(chromium, address) as page:
        before = page.evaluate("history.length")
        for _ in range(3):
            sidebar(page).get_by_role("slider").nth(3).press("ArrowRight")
        expect(page).to_have_url(re.compile("batch_size=4"))
        assert page.evaluate("history.length") == before


def test_a_hostile_link_is_a_notice_and_a_working_page(chromium, address):
    hostile = "/?mode=<img src=x onerror=alert(1)>&rows=-1&gpu=../x&attention=flash&dtype=fp32&foo=%00&pins=name%3D%253Cb%253E%26mode%3Dtiny|%|&tab=*"
    with opened(chromium, address, hostile) as page:
        expect(page.get_by_text("The link was not used as a whole.")).to_be_visible()
        expect(page.get_by_text("mode: '<img src=x onerror=alert(1)>' is not one of")).to_be_visible()
        expect(page.get_by_text("flash kernels take bf16 or fp16")).to_be_visible()
        assert page.locator("img[src=x]").count() == 0
        sidebar(page).get_by_label("precision").select_option("bf16")
        expect(page.locator(".figures")).to_contain_text("4.60 T")


def test_pins_are_compared_renamed_kept_in_the_link_and_removed(chromium, address):
    with opened(chromium, address, "/?attention=eager&tab=Compare") as page:
        page.get_by_placeholder("name of the pin").fill("before")
        page.get_by_placeholder("name of the pin").press("Enter")
        page.get_by_role("button", name="Pin the current setting").click()
        expect(page.locator(".pin")).to_contain_text("the same")
        sidebar(page).get_by_label("attention").select_option(label="flash")
        expect(page.locator(".pin")).to_contain_text("attention eager → flash")
        expect(page.get_by_role("cell", name=re.compile(r"6.94 GB \(−2.28 GB, −25 %\)"))).to_be_visible()
        page.get_by_role("button", name="Pin the current setting").click()
        expect(page.locator(".pin")).to_have_count(2)
        name = page.get_by_label("named").first
        name.fill("<b>eager</b>")
        name.press("Enter")
        expect(page).to_have_url(re.compile("%253Cb%253Eeager"))
        link = page.url
        page.get_by_role("button", name="remove").nth(1).click()
        expect(page.locator(".pin")).to_have_count(1)
    with opened(chromium, address, link.removeprefix(address)) as page:
        expect(page.locator(".pin")).to_have_count(2)
        assert page.get_by_label("named").first.input_value() == "<b>eager</b>"
        page.get_by_role("link", name="show it").first.click()
        expect(sidebar(page).get_by_label("attention")).to_have_value("eager", timeout=20_000)


def saved(page, name, button, nth=0):
    with page.expect_download(timeout=60_000) as found:
        page.get_by_text(button, exact=True).nth(nth).click()
    assert found.value.suggested_filename == name
    return found.value.path().read_bytes()


def test_tables_charts_and_the_report_can_be_downloaded(chromium, address):
    with opened(chromium, address, "/?tab=Export") as page:
        modules = of.estimate(of.load_model(), of.Workload.from_image(1654, 2339)).modules
        rows = list(csv.DictReader(StringIO(saved(page, "ocr_flops_modules.csv", "CSV").decode())))
        assert [int(row["tensor_flops"]) for row in rows] == modules["tensor_flops"].to_list()
        assert json.loads(saved(page, "ocr_flops_modules.json", "JSON"))[0]["tensor_flops"] == modules["tensor_flops"][0]
        assert saved(page, "ocr_flops_modules.parquet", "PARQUET").startswith(b"PAR1")
        assert b"<svg" in saved(page, "ocr_flops_overview_2.svg", "SVG", 1)[:200]
        assert saved(page, "ocr_flops_overview_3.png", "PNG", 2).startswith(b"\x89PNG")
        page.get_by_label("rows", exact=True).select_option("all grids of this mode")
        page.wait_for_timeout(1500)
        assert len(saved(page, "ocr_flops_all_grids_of_this_mode.csv", "CSV").splitlines()) == 1 + 3 * 23
        page.get_by_role("button", name="Make the HTML report").click()
        expect(page.get_by_text("Download the HTML report")).to_be_visible(timeout=30_000)
        report = saved(page, "ocr_flops_report.html", "Download the HTML report").decode()
        assert report.startswith("<!DOCTYPE html>") and "4.60" in report
        open_tab(page, "Overview")
        until(page, lambda: len(drawn(page)) == 3, "the app goes on")
        page.locator(".vega-embed summary").first.click()
        image = saved(page, "ocr_flops_overview_1.svg", "Save as SVG").decode()
        assert (
            image.count("<svg") == 2
            and "NVIDIA L4 (24 GB)" in image
            and f"{of.__version__}, 20" in " ".join(re.sub("<[^>]+>", " ", image).split())
        )
