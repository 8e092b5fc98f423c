"""The report as a colleague gets it: the file alone, opened in a headless Chromium without a network."""

import pytest
from playwright.sync_api import expect

import ocr_flops as of
from ocr_flops.app.setting import Setting
from ocr_flops.reports.estimate_report import write_report
from ocr_flops.units import seconds, si

pytestmark = pytest.mark.browser
MODEL, L4 = of.load_model("deepseek_ocr"), of.load_hardware("l4")
SUBJECT = Setting().subject(MODEL, L4)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    (path,) = write_report(tmp_path_factory.mktemp("report") / "report.html", SUBJECT, in_child=False)
    return path


@pytest.fixture(params=["light", "dark"])
def page(request, chromium, report):
    """The report with all charts drawn; afterwards: no error on the console, and no request but for the file."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, color_scheme=request.param, offline=True)
    page = context.new_page()
    wrong = []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda problem: wrong.append(str(problem)))
    page.on("request", lambda asked: wrong.append(asked.url) if not asked.url.startswith((report.as_uri(), "data:", "blob:")) else None)
    page.goto(report.as_uri())
    expect(page.locator(".chart.drawn")).to_have_count(page.locator(".chart").count())
    yield page
    context.close()
    assert not wrong


def chart(page, name):
    return page.locator(f"#{name} svg.marks")


def grid(page, name="explorer"):
    return page.locator(f"#{name} select[name=grid]")


def bars(page, name="explorer"):
    """The lengths of a chart's bars."""
    return page.locator(f"#{name} svg.marks .mark-rect path").evaluate_all("paths => paths.map(path => path.getAttribute('d'))")


def test_controls_inside_the_chart_change_bars_numbers_and_finding(page):
    before = bars(page)
    eager = SUBJECT.by_mode["eager"].with_workload(columns=3, rows=3, image_width_px=0, image_height_px=0)
    grid(page).select_option("3 × 3")
    page.locator("#explorer").get_by_role("radio", name="eager").check()
    for stage in ("vision", "prefill"):
        row = eager.stage_numbers[stage]
        for number in (si(row["total_flops"]), si(row["io_bytes"], "B"), si(row["peak_activation_bytes"], "B")):
            expect(chart(page, "explorer")).to_contain_text(number)
    expect(chart(page, "explorer")).to_contain_text(f"eager on {L4.label}: {seconds(eager.on(L4).expected_ttft.value)} to the first token")
    after = bars(page)
    assert len(after) == len(before) and sum(one != other for one, other in zip(before, after, strict=True)) > len(before) / 2


def test_the_comparison_of_modes_follows_and_leads(page):
    before = bars(page, "modes")
    grid(page).select_option("no tiles")
    expect(grid(page, "modes")).to_have_value("no tiles")
    expect(chart(page, "modes")).to_contain_text("1024 px view, 283 context")
    assert bars(page, "modes") != before
    grid(page, "modes").select_option("1 × 9")
    expect(grid(page)).to_have_value("1 × 9")
    expect(chart(page, "explorer")).to_contain_text("1 × 9 tiles")


def test_controls_answer_to_the_keyboard(page):
    grid(page).focus()
    page.keyboard.press("ArrowDown")
    expect(grid(page)).not_to_have_value("2 × 3")
    page.locator("#explorer").get_by_role("radio", name="sdpa").focus()
    page.keyboard.press("ArrowRight")
    expect(chart(page, "explorer")).to_contain_text("flash on")


def test_text_is_readable_in_both_schemes(page):
    """Contrast of text against the card it stands on, as WCAG counts it."""
    contrasts = page.evaluate("""() => {
      const parts = (color) => color.match(/[\\d.]+/g).slice(0, 3).map(Number);
      const light = (color) => parts(color).map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
      const card = light(getComputedStyle(document.querySelector("figure")).backgroundColor);
      return [".role-title-text text", ".role-title-subtitle text", ".role-axis-label text", ".mark-text text", "td", "td small"].map((one) => {
        const style = getComputedStyle(document.querySelector(one)), ink = light(one.startsWith("td") ? style.color : style.fill);
        return [one, (Math.max(ink, card) + 0.05) / (Math.min(ink, card) + 0.05)];
      });
    }""")
    assert all(ratio > 4.5 for _, ratio in contrasts), contrasts


@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_nothing_sticks_out(page, width):
    page.set_viewport_size({"width": width, "height": 1000})
    page.reload()
    expect(page.locator(".chart.drawn")).to_have_count(page.locator(".chart").count())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    wide = page.locator(".chart, .scroll").evaluate_all(
        "all => all.filter(one => one.checkVisibility({contentVisibilityAuto: true}) && one.scrollWidth > one.clientWidth + 1).map(one => one.id)"
    )
    assert not wide


def test_a_chart_can_be_saved_without_a_network(page):
    page.locator("#memory summary").click()
    with page.expect_download() as saved:
        page.get_by_text("Save as PNG").locator("visible=true").click()
    assert saved.value.suggested_filename == "memory.png"
    with open(saved.value.path(), "rb") as file:
        assert file.read(4) == b"\x89PNG"


def test_what_is_folded_opens_for_print_and_closes_again(page):
    folded = page.locator(".folded")
    shut = "all => all.map(one => one.open)"
    assert folded.evaluate_all(shut) == [False, False]
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert folded.evaluate_all(shut) == [True, True]
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert folded.evaluate_all(shut) == [False, False]
    assert page.pdf(format="A4").startswith(b"%PDF")
