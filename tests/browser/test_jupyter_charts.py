"""The charts of the Jupyter twin in a headless Chromium, without Jupyter: their script is given a model and an element as it would be."""

import json

import pytest

import ocr_flops as of
from ocr_flops.app import jupyter, views
from ocr_flops.app.setting import Setting

pytestmark = pytest.mark.browser
MODEL = """
  let specs = [], changed = null;
  window.show = next => { specs = next; changed?.(); };
  window.el = document.createElement("div");
  const model = { get: name => specs, on: (event, call) => { changed = call; }, off: () => { changed = null; } };
  const script = await import(URL.createObjectURL(new Blob([document.querySelector("#script").textContent], { type: "text/javascript" })));
  window.end = script.default.render({ model, el: window.el });
  window.ready = true;
"""
DRAWN = "() => [...document.querySelectorAll('svg.marks')].map(e => [e.clientWidth, e.textContent])"


@pytest.fixture
def page(chromium):
    page, wrong = chromium.new_page(viewport={"width": 900, "height": 900}), []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda problem: wrong.append(str(problem)))
    page.on("request", lambda request: wrong.append(request.url) if not request.url.startswith(("data:", "blob:", "about:")) else None)
    charts = jupyter.Charts()
    page.set_content(
        f"<style>{charts._css}</style><body style='margin:0; color: rgb(1, 2, 3)'><script type='text/plain' id='script'></script>"
    )
    page.evaluate("text => { document.querySelector('#script').textContent = text }", charts._esm)
    page.add_script_tag(type="module", content=MODEL)
    page.wait_for_function("() => window.ready")
    yield page
    page.close()
    assert not wrong


def specs(**values):
    shown = views.Results(of.load_model("deepseek_ocr"), Setting(**values))
    return json.loads(json.dumps([chart.to_dict() for chart in views.VIEWS["Overview"](shown)]))


def until(page, condition):
    page.wait_for_function(f"() => {{ const drawn = ({DRAWN})(); return {condition}; }}", timeout=10_000)
    return page.evaluate(DRAWN)


def test_charts_wait_for_room_and_follow_it(page):
    page.evaluate("specs => show(specs)", specs())
    page.wait_for_timeout(300)
    assert page.evaluate("el.children.length") == 0
    page.evaluate("document.body.append(el)")
    drawn = until(page, f"drawn.length == {len(specs())}")
    assert all(700 < width <= 900 for width, _ in drawn) and "4.60 TFLOPs" in drawn[0][1]
    page.set_viewport_size({"width": 600, "height": 900})
    until(page, f"drawn.length == {len(specs())} && drawn.every(([width]) => width > 400 && width <= 600)")


def test_the_last_of_many_changes_is_what_stays(page):
    page.evaluate("document.body.append(el)")
    page.evaluate("all => all.forEach(specs => show(specs))", [specs(batch_size=number) for number in (1, 2, 4, 8)])
    until(page, "drawn.length && drawn[0][1].includes('batch 8')")
    page.evaluate("specs => show(specs)", specs()[:1])
    drawn = until(page, "drawn.length == 1")
    assert "batch 1" in drawn[0][1] and page.evaluate("el.children.length") == 1


def test_black_text_takes_the_colour_of_the_page(page):
    page.evaluate("specs => { show(specs); document.body.append(el); }", specs())
    until(page, "drawn.length > 0")
    colours = page.evaluate("[...document.querySelectorAll('svg.marks text')].map(e => getComputedStyle(e).fill)")
    assert "rgb(1, 2, 3)" in colours and "rgb(0, 0, 0)" not in colours


def test_a_chart_that_cannot_be_drawn_says_so_and_the_next_is_drawn(page):
    page.evaluate("show([{ $schema: 'https://vega.github.io/schema/vega-lite/v6.json', nothing: 1 }]); document.body.append(el)")
    page.wait_for_function("() => el.textContent.includes('Invalid specification')")
    page.evaluate("specs => show(specs)", specs())
    until(page, f"drawn.length == {len(specs())}")
    assert "Invalid specification" not in page.evaluate("el.textContent")
