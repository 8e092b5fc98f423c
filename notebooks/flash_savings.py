# /// script
# requires-python = ">=3.11"
#
# [tool.marimo.display]
# theme = "system"
# ///
import marimo

__generated_with = "0.25.2"
app = marimo.App(
    width="full",
    app_title="What FlashAttention saves",
    css_file="flash_savings.css",
    html_head_file="flash_savings.html",
    layout_file="layouts/flash_savings.slides.json",
)

with app.setup(hide_code=True):
    from dataclasses import replace
    from html import escape

    import marimo as mo

    import ocr_flops as of
    from ocr_flops import charts
    from ocr_flops.app import links, talk
    from ocr_flops.app.links import Link
    from ocr_flops.app.records_overlay import conditions
    from ocr_flops.app.setting import Setting
    from ocr_flops.charts import slides
    from ocr_flops.charts.tiling import PAD, PAGE, TILE, VIEW
    from ocr_flops.evidence import verify
    from ocr_flops.spec.catalog import names
    from ocr_flops.spec.workload import growing_contexts

    GPUS = {of.load_hardware(name).label: name for name in names("hardware")}
    model = of.load_model("deepseek_ocr")


@app.cell(hide_code=True)
def linked():
    start = talk.begin(links.read(mo.query_params().to_dict()).setting)  # as the app's link has it
    return (start,)


@app.cell(hide_code=True)
def controls(start):
    columns = mo.ui.slider(1, max(12, start.columns), value=start.columns, show_value=True, label="columns")
    rows = mo.ui.slider(1, max(12, start.rows), value=start.rows, show_value=True, label="rows")
    batch_size = mo.ui.slider(
        steps=sorted({1, 2, 4, 8, 16, 32, 64, 128, start.batch_size}), value=start.batch_size, show_value=True, label="batch"
    )
    output_tokens = mo.ui.slider(
        steps=sorted({*range(64, 4097, 64), start.output_tokens}), value=start.output_tokens, show_value=True, label="output tokens"
    )
    attention = mo.ui.dropdown(["eager", "sdpa", "flash"], value=start.attention, label="attention")
    bits = mo.ui.dropdown({"16 bit": 16, "32 bit": 32}, value="32 bit" if start.dtype == "fp32" else "16 bit", label="precision")
    gpu = mo.ui.dropdown(GPUS, value=of.load_hardware(start.gpu).label, label="GPU")
    price = mo.ui.number(0.01, 1000, step=0.01, value=start.price, label="price of a GPU hour")
    # In a plain container: a slide shows controls without depending on each.
    _grid = [columns, rows] if of.load_mode(start.mode).tile_px else []
    inputs = {
        "page": _grid,
        "pages": [*_grid, batch_size, bits],
        "mode": [*_grid, batch_size, attention, gpu, bits],
        "time": [*_grid, batch_size, gpu],
        "output": [batch_size, output_tokens, gpu],
        "money": [*_grid, batch_size, output_tokens, gpu, price],
        "served": [*_grid, batch_size, output_tokens, gpu],
    }
    return attention, batch_size, bits, columns, gpu, inputs, output_tokens, price, rows


@app.cell(hide_code=True)
def before_the_first_token(batch_size, bits, columns, rows, start):
    dtype = "fp32" if bits.value == 32 else "bf16"
    page = replace(
        start, columns=columns.value, rows=rows.value, batch_size=batch_size.value, output_tokens=0, attention="all", dtype=dtype
    )
    return (page,)


@app.cell(hide_code=True)
def on_a_device(bits, gpu, output_tokens, page):
    setting = talk.on_device(page, gpu.value, bits.value, output_tokens.value)
    timings = {mode: one.on(**conditions(model, setting)) for mode, one in setting.by_mode(model).items()}
    return setting, timings


@app.cell(hide_code=True)
def address(attention, price, setting):
    _params, _setting = mo.query_params(), replace(setting, attention=attention.value, price=price.value)
    if _params.to_dict() or _setting != talk.begin(Setting()):
        for _key, _value in links.write(Link(_setting)).items():
            if _params.get(_key) != _value:
                _params[_key] = _value
    return


@app.function(hide_code=True)
def slide(heading, *content, inputs=(), below=""):
    """A slide: a title that states the finding, a line below it, what shows it, and the controls that move it."""
    title, line = heading
    shown = "".join(one if isinstance(one, str) else f'<div class="chart">{mo.as_html(one).text}</div>' for one in content)
    strip = "".join(mo.as_html(one).text for one in inputs)
    return mo.Html(
        f'<div class="talk"><h1>{escape(title)}</h1><p class="below">{escape(line)}</p><div class="content">{shown}</div>'
        f'<div class="strip">{strip}<span class="keys">{below}</span></div></div>'
    )


@app.cell(hide_code=True)
def a_page(columns, inputs, rows, start):
    _workload = replace(start, columns=columns.value, rows=rows.value).workload
    _steps = "".join(
        f'<li style="border-color: {step.colour}">{step.name}<b>{step.number}</b>{escape(step.what)}</li>'
        for step in talk.model_steps(model, _workload)
    )
    slide(
        talk.describe_page(_workload),
        slides.enlarged(charts.tiling_picture(_workload), {PAGE: PAD, VIEW: TILE}, factor=1.45),
        f'<ol class="steps">{_steps}</ol>',
        inputs=inputs["page"],
        below="Arrow keys turn the slides. On a slider they move it; Esc leaves it. <a class='with-setting' href='../'>The app</a>",
    )
    return


@app.cell(hide_code=True)
def where_flops_go(attention, inputs, timings):
    _timing = timings.get(attention.value, timings["sdpa"])
    slide(
        talk.describe_work(_timing, attention.value),
        slides.enlarged(charts.shares(_timing.estimate, _timing, wide=True)),
        inputs=inputs["mode"],
    )
    return


@app.cell(hide_code=True)
def why_quadratic(inputs, page):
    _sweep = of.sweep(model, growing_contexts(page.workload), page.attention_modes, dtype=page.dtype, level="module", stages=["prefill"])
    slide(
        talk.describe_growth(slides.doubling(_sweep), model.tower("decoder").heads, page.workload, page.dtype),
        slides.attention_traffic(_sweep, page.workload.context_tokens),
        inputs=inputs["pages"],
    )
    return


@app.cell(hide_code=True)
def what_modes_move(inputs, page):
    _estimates = page.by_mode(model)
    slide(talk.describe_modes(_estimates), slides.moved_and_held(_estimates), inputs=inputs["pages"])
    return


@app.cell(hide_code=True)
def time_to_first_token(inputs, timings):
    slide(talk.describe_first_token(timings), slides.first_token(timings), inputs=inputs["time"])
    return


@app.cell(hide_code=True)
def where_it_does_not_help(inputs, timings):
    slide(talk.describe_token(timings), slides.one_token(timings), inputs=inputs["output"])
    return


@app.cell(hide_code=True)
def in_money(inputs, price, setting, timings):
    _asked = timings, price.value, setting.hour_prices[1]
    _charts = [slides.pages_and_cost(*_asked)] if any(one.fits for one in timings.values()) else []
    slide(talk.describe_pages(*_asked), *_charts, inputs=inputs["money"])
    return


@app.cell(hide_code=True)
def served(setting):
    try:
        steps, refused = talk.serving_steps(model, setting.workload, setting.hardware), ""
    except of.SpecError as _error:
        steps, refused = {}, str(_error)
    return refused, steps


@app.cell(hide_code=True)
def from_eager_to_served(inputs, refused, setting, steps):
    _shown = (("This GPU does not serve it", f"{refused}."),)
    if steps:
        _shown = talk.describe_served(steps, setting.workload, setting.hardware), slides.from_eager_to_served(steps)
    slide(*_shown, inputs=inputs["served"])
    return


@app.cell(hide_code=True)
def how_far_to_trust(timings):
    _estimates = {mode: timing.estimate for mode, timing in timings.items()}
    _head = "".join(f"<th>{level}</th>" for level in ("compared", *(talk.LEVEL_NAMES[level] for level in verify.LEVELS)))
    _rows = "".join(
        f"<tr><td>{row.name}</td>{''.join(f'<td>{number:,}</td>' for number in row.numbers)}</tr>" for row in talk.evidence_rows(_estimates)
    )
    slide(
        talk.describe_evidence(_estimates),
        f"""<div class="evidence"><table><thead><tr>{_head}</tr></thead><tbody>{_rows}</tbody></table><dl>
    <dt>Equal to the real model</dt><dd>FLOPs by PyTorch's own counter; the rest by a trace of every operator that eager and sdpa run.</dd>
    <dt>Modelled in part</dt><dd>flash: traced in CLIP and the decoder. In SAM no engine has a kernel that builds its bias on chip.</dd>
    <dt>Expected times</dt><dd>From published efficiencies and a host that issues every operator; their range is in the app.</dd>
    </dl></div>""",
    )
    return


@app.cell(hide_code=True)
def what_is_asked(inputs, price, setting, steps, timings):
    _cost = f"a million pages cost {setting.hour_prices[1]}".strip()
    _head = "".join(f"<th>{escape(name)}</th>" for name in ("", "it needs", "first token", "pages a day of one GPU", _cost))
    _cells = (
        "".join(f"<td>{escape(cell).replace(' (', '<small>(')}</td>" for cell in row) for row in talk.ask_rows(timings, steps, price.value)
    )
    _rows = "".join(f"<tr>{cells}</tr>" for cells in _cells)
    slide(
        talk.describe_ask(timings),
        f'<div class="asked"><table><thead><tr>{_head}</tr></thead><tbody>{_rows}</tbody></table></div>',
        inputs=inputs["money"],
    )
    return


if __name__ == "__main__":
    app.run()
