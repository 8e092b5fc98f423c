"""A chart that stays on its page: setting its signals and rows gives the picture that drawing it anew would give."""

import json
import re
from functools import cache
from itertools import pairwise

import pytest

import ocr_flops as of
from ocr_flops.app.setting import Setting
from ocr_flops.app.views import VIEWS, Results
from ocr_flops.reports.images import vega_javascript

pytestmark = pytest.mark.browser
MODEL = of.load_model("deepseek_ocr")
WALK = (  # settings, each a step from the one before
    Setting(gpu="l4"),
    Setting(gpu="l4", batch_size=8, width_px=3000),
    Setting(gpu="h200", batch_size=8, output_tokens=0),
    Setting(gpu="h200", mode="tiny", attention="flash", output_tokens=2048),
    Setting(gpu="h200", source="grid", columns=9, rows=1, attention="eager"),
)
DRAW = """async ([spec, step]) => {
  const place = document.body.appendChild(document.createElement("div"));
  place.style.width = "700px";
  const { view } = await vegaEmbed(place, spec, { renderer: "svg", actions: false });
  if (step) {
    for (const [name, value] of Object.entries(step.signals)) view.signal(name, value);
    for (const [name, rows] of Object.entries(step.datasets)) view.data(name, rows);
    await view.width(view.container().clientWidth).resize().runAsync();
  }
  const picture = place.querySelector("svg").outerHTML;
  view.finalize();
  place.remove();
  return picture;
}"""


@pytest.fixture(scope="module")
def page(chromium):
    page, wrong = chromium.new_page(viewport={"width": 900, "height": 900}), []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda problem: wrong.append(str(problem)))
    page.set_content("<body style='margin: 0'></body>")
    page.add_script_tag(content=vega_javascript(in_child=False))
    yield page
    page.close()
    assert not wrong


@cache
def drawn(view, number):
    return VIEWS[view](Results(MODEL, WALK[number]))


def picture(page, chart, then=None):
    """The elements of a chart, or of what it becomes; ticks stand in another order after a step, and descriptions stay."""
    step = then and {"signals": then.signals, "datasets": then.datasets}
    svg = page.evaluate(DRAW, json.loads(json.dumps([chart.embedded(), step])))
    return sorted(re.sub(r' (?:aria-\w+|role)="[^"]*"|(?<=clip)\d+', "", svg).split("<"))


@pytest.mark.parametrize("view", VIEWS)
def test_a_step_draws_what_a_new_chart_would(page, view):
    stepped = 0
    for before, after in pairwise(range(len(WALK))):
        for one, other in zip(drawn(view, before), drawn(view, after), strict=False):
            if one.template is other.template:
                assert picture(page, one, other) == picture(page, other)
                stepped += 1
    assert stepped >= len(WALK) - 1, "charts keep their template over most steps"
