"""Every word on the page can be read: a contrast of at least 4.5 to 1 in both themes (WCAG 2.1, 1.4.3). Words in charts: tests/charts/test_theme.py."""

from contextlib import suppress

import pytest

from ocr_flops.app.tabs import TABS
from tests.support.driving import open_tab, opened, until

pytestmark = pytest.mark.browser
FAINT = """() => {
  const pen = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d', { willReadFrequently: true });
  const read = colour => { pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255] };
  const over = (above, below) => [0, 1, 2].map(i => above[i] * above[3] + below[i] * (1 - above[3]));
  const luminance = colour => colour.slice(0, 3).map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + [0.2126, 0.7152, 0.0722][i] * v, 0);
  const around = e => e.parentElement ?? e.getRootNode().host;
  const contrast = e => {
    const backs = []; let opacity = 1;
    for (let p = e; p; p = around(p)) { backs.push(read(getComputedStyle(p).backgroundColor)); opacity *= getComputedStyle(p).opacity;
      if (backs.at(-1)[3] === 1) break }
    const behind = backs.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255]);
    const word = read(getComputedStyle(e).color);
    const [a, b] = [luminance(over([...word.slice(0, 3), word[3] * opacity], behind)), luminance(behind)].sort((x, y) => y - x);
    return opacity ? (a + 0.05) / (b + 0.05) : 21 };
  const all = root => [...root.querySelectorAll('*')].flatMap(e => [e, ...(e.shadowRoot ? all(e.shadowRoot) : [])]);
  return all(document).filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) && e.getBoundingClientRect().width
    && getComputedStyle(e).visibility !== 'hidden').map(e => [contrast(e), e.textContent.trim().slice(0, 40)]).filter(([value]) => value < 4.5) }"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_word_can_be_read(chromium, address, scheme):
    with opened(chromium, address, color_scheme=scheme) as page:
        for name in TABS:
            open_tab(page, name)
            page.wait_for_timeout(800)
            with suppress(AssertionError):  # what is being computed again is faded until it is there
                until(page, lambda: not page.evaluate(FAINT), "faint")
            assert page.evaluate(FAINT) == [], name
