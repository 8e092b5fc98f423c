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
    from ocr_flops.app import talk
    from ocr_flops.app.records_overlay import conditions
    from ocr_flops.app.setting import Setting
    from ocr_flops.charts import slides
    from ocr_flops.charts.tiling import PAD, PAGE, TILE, VIEW
    from ocr_flops.evidence import verify
    from ocr_flops.spec.catalog import names
    from ocr_flops.spec.workload import growing_contexts, neighbours

    GPUS = {of.load_hardware(name).label: name for name in names("hardware")}
    model = of.load_model("deepseek_ocr")


@app.cell(hide_code=True)
def controls():
    columns = mo.ui.slider(1, 12, value=2, show_value=True, label="tile columns")
    rows = mo.ui.slider(1, 12, value=3, show_value=True, label="rows")
    batch_size = mo.ui.slider(steps=[1, 2, 4, 8, 16, 32, 64, 128], value=8, show_value=True, label="batch")
    output_tokens = mo.ui.slider(64, 4096, step=64, value=256, show_value=True, label="output tokens")
    attention = mo.ui.dropdown(["eager", "sdpa", "flash"], value="sdpa", label="attention")
    bits = mo.ui.dropdown({"16 bit": 16, "32 bit": 32}, value="16 bit", label="precision")
    gpu = mo.ui.dropdown(GPUS, value=of.load_hardware("l4").label, label="GPU")
    # In a plain container: a slide shows controls without depending on each.
    inputs = {
        "page": [columns, rows],
        "pages": [columns, rows, batch_size, bits],
        "mode": [columns, rows, batch_size, attention, gpu, bits],
        "time": [columns, rows, batch_size, gpu, bits],
        "output": [batch_size, output_tokens, gpu],
        "served": [columns, rows, batch_size, output_tokens, gpu],
    }
    return attention, batch_size, bits, columns, gpu, inputs, output_tokens, rows


@app.cell(hide_code=True)
def before_the_first_token(batch_size, bits, columns, rows):
    dtype = "fp32" if bits.value == 32 else "bf16"
    page = Setting(
        source="grid", columns=columns.value, rows=rows.value, batch_size=batch_size.value, output_tokens=0, attention="all", dtype=dtype
    )
    return (page,)


@app.cell(hide_code=True)
def on_a_device(bits, gpu, output_tokens, page):
    _device = of.load_hardware(gpu.value)
    _setting = replace(page, output_tokens=output_tokens.value, dtype=talk.choose_dtype(bits.value, _device), gpu=gpu.value)
    timings = {mode: one.on(**conditions(model, _setting)) for mode, one in _setting.by_mode(model).items()}
    return (timings,)


@app.function(hide_code=True)
def slide(heading, *content, inputs=(), below=""):
    """A slide: a title that states the finding, a line below it, what shows it, and the controls that move it."""
    title, line = heading
    shown = "".join(one if isinstance(one, str) else f'<div class="chart">{mo.as_html(one).text}</div>' for one in content)
    strip = "".join(mo.as_html(one).text for one in inputs)
    return mo.Html(
        f'<div class="talk"><h1>{escape(title)}</h1><p class="below">{escape(line)}</p><div class="content">{shown}</div>'
        f'<div class="strip">{strip}<span class="keys">{escape(below)}</span></div></div>'
    )


@app.cell(hide_code=True)
def a_page(columns, inputs, rows):
    _workload = of.Workload.from_grid(columns.value, rows.value, "gundam")
    _steps = "".join(
        f'<li style="border-color: {step.colour}">{step.name}<b>{step.number}</b>{escape(step.what)}</li>'
        for step in talk.model_steps(model, _workload)
    )
    slide(
        talk.describe_page(_workload),
        slides.enlarged(charts.tiling_picture(_workload), {PAGE: PAD, VIEW: TILE}, factor=1.45),
        f'<ol class="steps">{_steps}</ol>',
        inputs=inputs["page"],
        below="Arrow keys turn the slides. On a slider they move it; Esc leaves it.",
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
def against_tiles(inputs, page):
    _sweep = of.sweep(model, neighbours(page.workload, itself=True), page.attention_modes, dtype=page.dtype, stages=["vision"])
    _chart = charts.savings_by_tiles(_sweep, "io_bytes", page.workload.tiles)
    slide(talk.describe_tiles(" ".join(_chart.title.text), page.workload), slides.savings_by_tiles(_chart), inputs=inputs["pages"])
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
def from_eager_to_served(batch_size, columns, gpu, inputs, output_tokens, rows):
    _device, _tokens = of.load_hardware(gpu.value), {"output_tokens": output_tokens.value, "batch_size": batch_size.value}
    _page = of.Workload.from_grid(columns.value, rows.value, "gundam", **_tokens)
    try:
        _steps = talk.serving_steps(model, _page, _device)
        _shown = talk.describe_served(_steps, _page, _device), slides.from_eager_to_served(_steps)
    except of.SpecError as _error:
        _shown = (("This GPU does not serve it", f"{_error}."),)
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


if __name__ == "__main__":
    app.run()
