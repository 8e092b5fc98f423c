"""The talk in the browser: every slide at the sizes it is shown at, its live controls, and the keys that turn it."""

import pytest
from playwright.sync_api import expect

import ocr_flops as of
from ocr_flops.spec.catalog import names
from tests.support.driving import opened, until

pytestmark = pytest.mark.browser
GRID = ["columns", "rows"]
MONEY = [*GRID, "batch", "output tokens", "GPU", "price of a GPU hour"]
CONTROLS = [
    GRID,
    [*GRID, "batch", "attention", "GPU", "precision"],
    [*GRID, "batch", "precision"],
    [*GRID, "batch", "precision"],
    [*GRID, "batch", "GPU"],
    ["batch", "output tokens", "GPU"],
    MONEY,
    [*GRID, "batch", "output tokens", "GPU"],
    [],
    MONEY,
]
TABLES = (8, 9)  # slides without a chart
AT = "() => [...document.querySelectorAll('.slides > section')].findIndex(one => one.matches('.present'))"
DEEP = """const deep = (root, selector) => [...root.querySelectorAll(selector),
  ...[...root.querySelectorAll('*')].filter(e => e.shadowRoot).flatMap(e => deep(e.shadowRoot, selector))];
const box = e => e.getBoundingClientRect(), slide = document.querySelector('section.present .talk');"""
WRONG = f"""() => {{ {DEEP}
  const wrong = [], strip = box(slide.querySelector('.strip'));
  const shown = deep(slide, 'h1, p, td, th, dd, dt, li, label, select, span, svg text').filter(e => box(e).width && !e.closest('option'));
  for (const e of shown) {{
    const b = box(e), words = `${{e.tagName}} ${{e.textContent.slice(0, 40)}}`;
    if (b.left < 0 || b.top < 0 || b.right > innerWidth || b.bottom > innerHeight) wrong.push(`outside: ${{words}}`);
    if (e.clientWidth && !e.ownerSVGElement && e.scrollWidth > e.clientWidth + 1) wrong.push(`clipped: ${{words}}`);
    const svg = e.ownerSVGElement && box(e.ownerSVGElement);
    if (svg && (b.left < svg.left - 1 || b.right > svg.right + 1 || b.top < svg.top - 1 || b.bottom > svg.bottom + 1)) wrong.push(`cut: ${{words}}`);
    if (svg && b.bottom > strip.top && strip.height) wrong.push(`under the controls: ${{words}}`);
  }}
  const arrows = [...document.querySelectorAll('.reveal .controls button.enabled')].map(box);
  for (const e of slide.querySelectorAll('.strip > *')) for (const c of deep(e, 'label, select, .mo-label span')) for (const a of arrows)
    if (box(c).right > a.left && box(c).bottom > a.top) wrong.push(`under an arrow: ${{c.textContent.slice(0, 20)}}`);
  return wrong }}"""
SMALLEST = f"""() => {{ {DEEP}
  const words = deep(slide, 'h1, p, td, th, dd, dt, li, label, select, .keys, .text-xs, svg text').filter(e => box(e).width && e.textContent.trim());
  return Math.min(...words.map(e => parseFloat(getComputedStyle(e).fontSize))) }}"""
FILLED = f"""() => {{ {DEEP}
  const charts = deep(slide, 'svg.marks').map(box), left = Math.min(...charts.map(b => b.left)), strip = box(slide.querySelector('.strip'));
  const other = Math.max(...[...slide.querySelectorAll('ol')].map(e => box(e).right), ...charts.map(b => b.right));
  return [(other - left) / innerWidth, Math.max(...charts.map(b => b.height)) / innerHeight, (strip.top - charts[0].bottom) / innerHeight] }}"""
MARKED = f"""mark => {{ {DEEP}
  return [...document.querySelectorAll('.talk')].map(one => deep(one, 'svg.marks').map(e => mark ? (e.kept = true) : !e.kept).includes(true)) }}"""


def turned(page, number):
    """Turns on to a slide, counted from 0."""
    while (at := page.evaluate(AT)) < number:
        page.keyboard.press("ArrowRight")
        page.wait_for_function(f"at => ({AT})() > at", arg=at)
    page.wait_for_timeout(900)  # the slide has come to rest


def title(page):
    return page.locator(".present .talk h1").first


def slider(page, position):
    return page.locator(".present .strip").get_by_role("slider").nth(position)


@pytest.mark.parametrize(("width", "height", "scheme"), [
    (1280, 720, "light"), (1280, 720, "dark"), (1920, 1080, "light"), (1920, 1080, "dark"), (1024, 768, "light"),
])  # fmt: skip
def test_every_slide_fits_fills_the_screen_and_is_readable(chromium, address, width, height, scheme):
    size = {"width": width, "height": height}
    with opened(chromium, address, "/talk", ready=".talk", color_scheme=scheme, viewport=size) as page:
        page.wait_for_function("document.querySelectorAll('.talk').length == 10")
        titles, least = set(), 16 * min(width / 1280, height / 720)
        for number in range(len(CONTROLS)):
            turned(page, number)
            until(page, lambda: page.evaluate(WRONG) == [], f"nothing is cut on slide {number + 1}")  # charts are drawn anew after a resize
            assert page.evaluate(SMALLEST) >= least
            if number not in TABLES:
                across, down, gap = page.evaluate(FILLED)
                assert across > 0.9 and down > 0.5 and gap < 0.03
            labels = page.locator(".present .strip label")
            assert [label.strip() for label in labels.all_inner_texts()] == CONTROLS[number]
            titles.add(title(page).inner_text())
        assert len(titles) == 10


def test_a_slider_moves_the_slide_it_is_on_and_does_not_turn_it(chromium, address):
    with opened(chromium, address, "/talk", ready=".talk") as page:
        page.wait_for_function("document.querySelectorAll('.talk').length == 10")
        expect(title(page)).to_have_text("A page becomes 6 tiles and a global view: 903 tokens")
        slider(page, 0).press("ArrowRight")
        expect(title(page)).to_have_text("A page becomes 9 tiles and a global view: 1,203 tokens")
        page.keyboard.press("ArrowRight")
        expect(title(page)).to_have_text("A page becomes 12 tiles and a global view: 1,503 tokens")
        page.keyboard.press("Escape")
        page.keyboard.press("ArrowRight")
        until(page, lambda: "TFLOPs" in title(page).inner_text(), "Escape leaves the slider: arrows turn the slides")
        expect(slider(page, 0)).to_have_attribute("aria-valuenow", "4")  # all slides show the same controls
        slider(page, 2).focus()
        page.keyboard.press("PageDown")
        until(page, lambda: "Twice the tokens" in title(page).inner_text(), "a clicker turns the slide from a slider, too")
        expect(slider(page, 2)).to_have_attribute("aria-valuenow", "3")  # batch 8, the fourth step


def test_a_slider_is_dragged_in_one_go(chromium, address):
    with opened(chromium, address, "/talk", ready=".talk") as page:
        page.wait_for_function("document.querySelectorAll('.talk').length == 10")
        expect(title(page)).to_contain_text("6 tiles")
        thumb = slider(page, 1).bounding_box()
        x, y = thumb["x"] + thumb["width"] / 2, thumb["y"] + thumb["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        for step in range(1, 40):
            page.mouse.move(x + 5 * step, y)
            page.wait_for_timeout(20)
        page.mouse.up()
        expect(title(page)).to_contain_text("24 tiles")


def test_a_change_repaints_only_the_slides_it_bears_on(chromium, address):
    with opened(chromium, address, "/talk", ready=".talk") as page:
        page.wait_for_function("document.querySelectorAll('.talk').length == 10")
        turned(page, 4)
        page.evaluate(MARKED, True)
        before = title(page).inner_text()
        page.locator(".present select").first.select_option(label=of.load_hardware("h200").label)
        until(page, lambda: title(page).inner_text() != before, "the title follows the GPU")
        page.wait_for_timeout(1500)
        assert page.evaluate(MARKED, False) == [False, True, False, False, True, True, True, True, False, False]


def test_attention_precision_and_gpu_can_be_chosen(chromium, address):
    with opened(chromium, address, "/talk", ready=".talk") as page:
        turned(page, 1)
        below = page.locator(".present .below")
        expect(below).to_contain_text("Attention sdpa")
        selects = page.locator(".present select")
        selects.nth(0).select_option(label="eager")
        expect(below).to_contain_text("Attention eager")
        selects.nth(0).select_option(label="flash")
        expect(below).to_contain_text("Attention flash")
        selects.nth(2).select_option(label="32 bit")
        expect(below).to_contain_text("Attention sdpa; no flash kernel takes fp32")
        selects.nth(2).select_option(label="16 bit")
        selects.nth(1).select_option(label=of.load_hardware("t4").label)
        expect(below).to_contain_text("NVIDIA T4 (16 GB) has no bf16, so fp16")
        longest = max((of.load_hardware(name).label for name in names("hardware")), key=len)
        selects.nth(1).select_option(label=longest)
        expect(below).to_contain_text(longest)
        page.set_viewport_size({"width": 1280, "height": 720})
        page.wait_for_timeout(900)
        assert page.evaluate(WRONG) == []


def test_the_address_carries_setting_and_slide(chromium, address):
    link = "/talk/?gpu=h200&batch_size=32&prices=h200%3D3.5+l4%3D0.8+EUR&engine=vllm&memory_bytes=2e11#/6"
    with opened(chromium, address, link, ready=".talk") as page:
        until(page, lambda: page.evaluate(AT) == 6, "the slide of the address")
        expect(title(page)).to_contain_text("EUR with flash")
        slider(page, 2).press("ArrowRight")
        told = "batch_size=64", "source=page", "prices=h200%3D3.5+l4%3D0.8+EUR", "engine=vllm", "memory_bytes=2"
        until(page, lambda: all(one in page.url for one in told), "a moved slider is in the address, and the rest of it stays")
        page.locator(".present select").first.select_option(label=of.load_hardware("l4").label)
        expect(page.locator(".present .below")).to_contain_text("0.8 EUR an hour")
        until(page, lambda: "gpu=l4" in page.url and "memory_bytes" not in page.url, "figures stay with their device")
        page.keyboard.press("Escape")
        page.keyboard.press("ArrowRight")
        until(page, lambda: page.url.endswith("#/7"), "so is the slide")
        page.keyboard.press("Home")
        page.get_by_role("link", name="The app").click()
        page.wait_for_selector("[role=tab]")
        assert "gpu=l4" in page.url and "batch_size=64" in page.url and "engine=vllm" in page.url
