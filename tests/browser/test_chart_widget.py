"""The charts of marimo and Jupyter in a headless Chromium without either: their script is given a model and an element as it would be."""

import json

import pytest

import ocr_flops as of
from ocr_flops.app import views
from ocr_flops.app.chart_widget import ChartWidget
from ocr_flops.app.setting import Setting

pytestmark = pytest.mark.browser
MODEL = """
  let traits = { templates: {}, view: "", charts: [] }, changed = null;
  window.show = next => { traits = next; changed?.(); };
  window.el = document.createElement("div");
  const model = { get: name => traits[name], set: (name, value) => { traits[name] = value; }, save_changes: () => {},
    on: (event, call) => { changed = call; }, off: () => { changed = null; } };
  const script = await import(URL.createObjectURL(new Blob([document.querySelector("#script").textContent], { type: "text/javascript" })));
  window.end = script.default.render({ model, el: window.el });
  window.ready = true;
"""
PANELS = "[...document.querySelectorAll('.of-charts > div')]"
DRAWN = f"{PANELS}.filter(e => e.drawn).map(e => [e.querySelector('canvas').clientWidth, e.drawn.signals.title_lines.join(' ')])"


@pytest.fixture
def page(chromium):
    page, wrong = chromium.new_page(viewport={"width": 900, "height": 3000}), []
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda problem: wrong.append(str(problem)))
    page.on("request", lambda request: wrong.append(request.url) if not request.url.startswith(("data:", "blob:", "about:")) else None)
    widget = ChartWidget()
    page.set_content(
        f"<style>{widget._css}</style><body style='margin:0; color: rgb(1, 2, 3)'><script type='text/plain' id='script'></script>"
    )
    page.evaluate("text => { document.querySelector('#script').textContent = text }", widget._esm)
    page.add_script_tag(type="module", content=MODEL)
    page.wait_for_function("() => window.ready")
    yield page
    page.close()
    assert not wrong


def traits(view="Overview", most=None, **values):
    """What Python would send for a setting."""
    widget = ChartWidget(views.VIEWS[view](views.Results(of.load_model("deepseek_ocr"), Setting(**values)))[:most], view.lower())
    return widget.get_state(("templates", "view", "charts"))


def until(page, condition):
    page.wait_for_function(f"() => {{ const drawn = {DRAWN}; return {condition}; }}", timeout=10_000)
    return page.evaluate(DRAWN)


def test_charts_wait_for_room_and_follow_it(page):
    page.evaluate("traits => show(traits)", traits())
    page.wait_for_timeout(300)
    assert not page.evaluate(DRAWN)
    page.evaluate("document.body.append(el)")
    drawn = until(page, "drawn.length == 3")
    assert any("4.58 T" in title for _, title in drawn)
    fitting = f"{PANELS}.every(e => e.clientWidth - e.querySelector('canvas').clientWidth < 60)"
    for width in (600, 1000):
        page.set_viewport_size({"width": width, "height": 3000})
        page.wait_for_function(f"() => {fitting} && {PANELS}.every(e => e.scrollWidth <= e.clientWidth)")


def test_a_step_keeps_the_views_and_the_last_of_many_is_what_stays(page):
    page.evaluate("traits => { show(traits); document.body.append(el); }", traits())
    until(page, "drawn.length == 3")
    page.evaluate("document.querySelectorAll('canvas').forEach(one => { one.kept = true; })")
    page.evaluate("all => all.forEach(traits => show(traits))", [traits(batch_size=number) for number in (2, 4, 8)])
    drawn = until(page, "drawn[0][1] && !drawn[0][1].includes('4.58')")
    assert drawn[0][1] == " ".join(json.loads(traits(batch_size=8)["charts"][0])["signals"]["title_lines"])
    assert page.evaluate("[...document.querySelectorAll('canvas')].every(one => one.kept)")
    page.evaluate("traits => show(traits)", traits(view="Savings"))
    until(page, "drawn.length == 3 && drawn[0][1].includes('less than eager')")
    assert not page.evaluate("[...document.querySelectorAll('canvas')].some(one => one.kept)")
    page.evaluate("traits => show(traits)", traits(most=1))
    until(page, "drawn.length == 1")


def test_charts_out_of_sight_follow_once_the_steps_have_ended(page):
    page.evaluate("traits => { show(traits); document.body.append(el); }", traits(view="Roofline"))
    page.set_viewport_size({"width": 900, "height": 300})
    until(page, "drawn.length == 4")
    rows = f"{PANELS}.map(e => JSON.stringify(e.drawn.datasets))"
    before = page.evaluate(rows)
    first, last = page.evaluate(
        f"""async traits => {{
      const rows = () => {rows};
      const before = rows();
      show(traits);
      while (rows()[0] == before[0]) await new Promise(requestAnimationFrame);
      return [rows()[0] != before[0], rows().at(-1) != before.at(-1)]; }}""",
        traits(view="Roofline", batch_size=64),
    )
    assert first and not last
    page.wait_for_function(f"before => {rows}[3] != before[3]", arg=before)


def test_text_takes_the_colour_of_the_page_and_follows_it(page):
    ink = """colour => [...document.querySelectorAll('canvas')].every(one => {
      const { data } = one.getContext('2d').getImageData(0, 0, one.width, one.height);
      for (let at = 0; at < data.length; at += 4) if (colour.every((part, n) => data[at + n] == part)) return true; return false; })"""
    page.evaluate("traits => { show(traits); document.body.append(el); }", traits())
    until(page, "drawn.length == 3")
    assert page.evaluate(ink, [1, 2, 3, 255]) and not page.evaluate(ink, [250, 200, 100, 255])
    page.evaluate("document.body.style.color = 'rgb(250, 200, 100)'")
    page.wait_for_function(f"({ink})([250, 200, 100, 255])")


def test_a_chart_that_cannot_be_drawn_says_so_and_the_next_is_drawn(page):
    wrong = traits(most=1)
    wrong["charts"] = [json.dumps(json.loads(wrong["charts"][0]) | {"template": "wrong"})]
    wrong["templates"]["wrong"] = json.dumps({"$schema": "https://vega.github.io/schema/vega-lite/v6.json", "nothing": 1, "params": []})
    page.evaluate("traits => { show(traits); document.body.append(el); }", wrong)
    page.wait_for_function("() => el.textContent.includes('Invalid specification')")
    page.evaluate("traits => show(traits)", traits())
    until(page, "drawn.length == 3")
    assert "Invalid specification" not in page.evaluate("el.textContent")


def test_views_end_with_the_widget(page):
    page.evaluate("traits => { show(traits); document.body.append(el); }", traits())
    until(page, "drawn.length == 3")
    page.evaluate("end()")
    assert page.evaluate("document.querySelectorAll('.of-charts canvas').length") == 0


def test_charts_are_a_phones_where_all_the_room_is_and_follow_it(page):
    shown = "[...document.querySelectorAll('.chart-wrapper')].every(e => e.scrollWidth <= e.clientWidth)"
    page.set_viewport_size({"width": 920, "height": 3000})  # two columns, the second below 400 px
    page.evaluate("traits => { show(traits); document.body.append(el); }", traits())
    until(page, "drawn.length == 3")
    page.evaluate("document.querySelectorAll('canvas').forEach(one => { one.kept = true; })")
    before = page.evaluate(DRAWN)
    page.set_viewport_size({"width": 1000, "height": 3000})
    until(page, f"drawn.every(([width], n) => width > {json.dumps(before)}[n][0]) && {shown}")
    assert page.evaluate("[...document.querySelectorAll('canvas')].every(one => one.kept)")
    page.set_viewport_size({"width": 390, "height": 3000})
    until(page, f"drawn.length == 3 && [...document.querySelectorAll('canvas')].every(one => !one.kept) && {shown}")


def test_words_beside_a_plot_end_before_a_phones_edge(page):
    page.set_viewport_size({"width": 374, "height": 3000})
    page.evaluate("traits => { show(traits); document.body.append(el); }", traits(view="Memory"))
    until(page, "drawn.length == 2")
    page.wait_for_timeout(500)
    edges = "all => all.map(c => c.getContext('2d').getImageData(c.width - 2, 0, 2, c.height).data.some(Boolean))"
    assert page.locator("canvas").evaluate_all(edges) == [False, False]


def test_a_panel_that_is_saved_says_its_finding(page):
    page.set_viewport_size({"width": 390, "height": 3000})
    page.evaluate("traits => { show(traits); document.body.append(el); }", traits(view="Savings"))
    until(page, "drawn.length == 6")
    panel = page.locator(".of-charts > div").nth(1)
    panel.locator("summary").click()
    with page.expect_download() as saved:
        panel.get_by_text("SVG").click()
    assert saved.value.suggested_filename.endswith("_1_2.svg") and "flash moves" in saved.value.path().read_text()
