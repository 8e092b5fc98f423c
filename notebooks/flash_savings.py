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
    from html import escape

    import marimo as mo

    import ocr_flops as of
    from ocr_flops import charts, evidence, talk
    from ocr_flops.charts import talk as talk_charts
    from ocr_flops.config import names
    from ocr_flops.scenario import contexts
    from ocr_flops.setting import Setting

    GPUS = {of.load_hardware(name).label: name for name in names("hardware")}
    model = of.load_model("deepseek_ocr")


@app.cell(hide_code=True)
def controls():
    columns = mo.ui.slider(1, 12, value=2, show_value=True, label="tile columns")
    rows = mo.ui.slider(1, 12, value=3, show_value=True, label="rows")
    batch_size = mo.ui.slider(steps=[1, 2, 4, 8, 16, 32, 64, 128], value=8, show_value=True, label="batch")
    output_tokens = mo.ui.slider(steps=[0, *range(64, 4097, 64)], value=256, show_value=True, label="output tokens")
    gpu = mo.ui.dropdown({label: name for label, name in GPUS.items()}, value=of.load_hardware("l4").label, label="GPU")
    inputs = [columns, rows, batch_size, output_tokens, gpu]  # in a plain container: a slide shows them without depending on each
    return batch_size, columns, gpu, inputs, output_tokens, rows


@app.cell(hide_code=True)
def evaluated(batch_size, columns, gpu, output_tokens, rows):
    setting = Setting(
        source="grid", columns=columns.value, rows=rows.value, batch_size=batch_size.value, output_tokens=output_tokens.value, gpu=gpu.value
    )
    try:
        device, without = setting.device, None
    except of.SpecError as _problem:
        device, without = of.load_hardware("l4"), f"{_problem}; times are those of the L4."
    by_mode = setting.by_mode(model)
    timings = {mode: one.on(device) for mode, one in by_mode.items()}
    return by_mode, setting, timings, without


@app.function(hide_code=True)
def slide(said, *content, inputs=(), below=""):
    """A slide: a title that states the finding, a line below it, what shows it, and the sliders that move it."""
    title, line = said
    shown = "".join(f'<div class="chart">{mo.as_html(one).text}</div>' for one in content)
    strip = "".join(mo.as_html(one).text for one in inputs)
    return mo.Html(
        f'<div class="slide"><h1>{escape(title)}</h1><p class="below">{escape(line)}</p>{shown}'
        f'<div class="strip">{strip}<span class="keys">{escape(below)}</span></div></div>'
    )


@app.cell(hide_code=True)
def a_page(inputs, setting):
    slide(
        talk.page(setting.workload),
        talk_charts.enlarged(charts.tiling_picture(setting.workload), 340),
        inputs=inputs,
        below="Arrow keys turn the slides; on a slider they move it. Click beside it to turn again.",
    )
    return


@app.cell(hide_code=True)
def where_flops_go(by_mode, inputs, timings):
    slide(
        talk.work(by_mode["sdpa"], timings["sdpa"]),
        talk_charts.enlarged(charts.shares(by_mode["sdpa"], timings["sdpa"], wide=True), 290),
        inputs=inputs,
    )
    return


@app.cell(hide_code=True)
def why_quadratic(inputs, setting):
    _sweep = of.sweep(model, contexts(setting.workload), ["eager", "sdpa", "flash"], level="module", stages=["prefill"])
    slide(
        talk.quadratic(talk_charts.doubling(_sweep)),
        talk_charts.attention_traffic(_sweep, setting.workload.context_tokens),
        inputs=inputs,
    )
    return


@app.cell(hide_code=True)
def what_modes_move(by_mode, inputs):
    slide(talk.modes(by_mode), talk_charts.moved_and_held(by_mode), inputs=inputs)
    return


@app.cell(hide_code=True)
def against_tiles(inputs, setting):
    _sweep = of.sweep(model, setting.neighbours, ["eager", "sdpa", "flash"])
    _chart = charts.savings_by_tiles(_sweep, "io_bytes", setting.workload.tiles if setting.workload.tiles <= 9 else None)
    slide(
        (" ".join(_chart.title.text), "Vision stage, over the vendor's grids. The sliders' page is marked."),
        talk_charts.enlarged(_chart, 330),
        inputs=inputs,
    )
    return


@app.cell(hide_code=True)
def time_to_first_token(inputs, timings, without):
    slide(talk.first_token(timings), talk_charts.first_token(timings), inputs=inputs, below=without or "")
    return


@app.cell(hide_code=True)
def where_it_does_not_help(by_mode, inputs, setting):
    slide(talk.one_token(by_mode), *([talk_charts.one_token(by_mode)] if setting.output_tokens else []), inputs=inputs)
    return


@app.cell(hide_code=True)
def how_far_to_trust():
    slide(
        talk.evidence(evidence.recorded()),
        mo.Html("""<ul>
    <li><b>FLOPs</b>: PyTorch's own counter on the real model, module by module.</li>
    <li><b>Bytes, launches, live peak</b>: a trace of every operator it runs, eager and sdpa.</li>
    <li><b>flash</b>: traced in CLIP and the decoder; in SAM modelled, no engine has that kernel.</li>
    <li><b>Times</b>: roofline from datasheet peaks. They compare; they do not predict a clock.</li>
    </ul>"""),
    )
    return


if __name__ == "__main__":
    app.run()
