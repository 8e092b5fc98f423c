"""The talk in the browser: every slide at the sizes it is shown at, and its live sliders."""

import pytest
from driving import opened, until
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
SLIDES = 8
# A word outside its slide, or over the controls below the chart.
MISPLACED = """() => { const slide = [...document.querySelectorAll('.slide')].find(e => e.checkVisibility({ visibilityProperty: true, opacityProperty: true })
    && e.getBoundingClientRect().width && e.closest('.present, .swiper-slide-active, section:not([hidden])'));
  if (!slide) return 'no slide';
  const controls = slide.querySelector('.strip').getBoundingClientRect();
  const parts = [...slide.querySelectorAll('h1, p, .chart, .strip')];
  const out = parts.filter(e => { const b = e.getBoundingClientRect(); return b.right > innerWidth + 1 || b.bottom > innerHeight + 1 || b.left < -1 });
  const over = [...slide.querySelectorAll('.chart')].filter(e => e.getBoundingClientRect().bottom > controls.top + 1 && controls.height);
  return [...out, ...over].map(e => e.className || e.tagName).join() }"""


@pytest.mark.parametrize(("width", "height", "scheme"), [(1280, 720, "light"), (1280, 720, "dark"), (1920, 1080, "light")])
def test_every_slide_fits_and_draws(chromium, address, width, height, scheme):
    with opened(chromium, address, "/talk", ready=".slide", color_scheme=scheme) as page:
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_selector(".marks", timeout=30_000)
        titles = set()
        for _ in range(SLIDES):
            page.wait_for_timeout(1200)
            assert page.evaluate(MISPLACED) == ""
            titles.add(page.locator(".present .slide h1").first.inner_text())
            page.keyboard.press("ArrowRight")
        assert len(titles) == SLIDES


def test_a_slider_moves_the_slide_it_is_on_and_does_not_turn_it(chromium, address):
    with opened(chromium, address, "/talk", ready=".slide") as page:
        title = page.locator(".present .slide h1").first
        expect(title).to_have_text("A page becomes 6 tiles and a global view: 903 tokens")
        slider = page.locator(".present .slide").get_by_role("slider").first
        slider.press("ArrowRight")
        expect(title).to_have_text("A page becomes 9 tiles and a global view: 1,203 tokens")
        slider.press("ArrowRight")
        until(page, lambda: "12 tiles" in title.inner_text(), "the slider keeps its focus and the slide stays")
