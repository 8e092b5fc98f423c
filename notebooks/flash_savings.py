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
    from ocr_flops.app import delivered, links, talk
    from ocr_flops.app.links import Link
    from ocr_flops.app.records_overlay import conditions
    from ocr_flops.charts import slides
    from ocr_flops.charts.tiling import PAD, PAGE, TILE, VIEW
    from ocr_flops.evidence import verify
    from ocr_flops.spec.catalog import names
    from ocr_flops.spec.workload import growing_contexts

    GPUS = {of.load_hardware(name).label: name for name in names("hardware")}
    model = of.load_model("deepseek_ocr")


@app.cell(hide_code=True)
def linked():
    link = talk.read(mo.query_params().to_dict())
    start = talk.begin(link.setting)
    return link, start


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
    _modes = talk.attention_choices(start)
    attention = mo.ui.dropdown(_modes, value=next(name for name, mode in _modes.items() if mode == start.attention), label="attention")
    bits = mo.ui.dropdown({"16 bit": 16, "32 bit": 32}, value="32 bit" if start.dtype == "fp32" else "16 bit", label="precision")
    gpu = mo.ui.dropdown(GPUS, value=of.load_hardware(start.gpu).label, label="GPU")
    # In a plain container: a slide shows controls without depending on each.
    _grid = [columns, rows] if of.load_mode(start.mode).tile_px else []
    inputs = {
        "page": _grid,
        "pages": [*_grid, batch_size, bits],
        "mode": [*_grid, batch_size, attention, gpu, bits],
        "time": [*_grid, batch_size, gpu],
        "output": [batch_size, output_tokens, gpu],
        "money": [*_grid, batch_size, output_tokens, gpu],
        "served": [*_grid, batch_size, output_tokens, gpu],
    }
    return attention, batch_size, bits, columns, gpu, inputs, output_tokens, rows


@app.cell(hide_code=True)
def price_of_the_gpu(gpu, link):
    _price = talk.price_of(link.setting, gpu.value)
    price = mo.ui.number(min(0.01, _price), max(1000, _price), step=0.01, value=_price, label="price of a GPU hour")
    return (price,)


@app.cell(hide_code=True)
def before_the_first_token(batch_size, bits, columns, gpu, rows, start):
    page = replace(start, columns=columns.value, rows=rows.value, batch_size=batch_size.value, attention="all")
    page = talk.on_device(page, gpu.value, bits.value, 0)
    return (page,)


@app.cell(hide_code=True)
def on_a_device(output_tokens, page):
    setting = replace(page, output_tokens=output_tokens.value)
    timings = {mode: one.on(**conditions(model, setting)) for mode, one in talk.by_mode(model, setting).items()}
    return setting, timings


@app.cell(hide_code=True)
def address(attention, link, price, setting):
    _params, _kept = mo.query_params(), talk.keep(link.setting, replace(setting, attention=attention.value), price.value)
    if talk.read(_params.to_dict()).setting != _kept:
        _written = links.write(Link(_kept))
        for _key in links.write(Link(link.setting)) | _written:
            if _key not in _written:
                _params.remove(_key)
            elif _params.get(_key) != _written[_key]:
                _params[_key] = _written[_key]
    return


@app.function(hide_code=True)
def slide(show, inputs=(), below=""):
    """A slide: a title that states the finding, a line below it, what shows it, and the controls that move it.

    `show` returns the title with its line, and what shows it; where the setting has no answer, it raises, and the slide says why.
    """
    try:
        (title, line), *content = show()
    except of.SpecError as problem:
        (title, line), content = ("This setting has no answer", f"{problem}."), ()
    title, line = (escape(text).replace(" %", "&nbsp;%") for text in (title, line))
    shown = "".join(one if isinstance(one, str) else f'<div class="chart">{mo.as_html(one).text}</div>' for one in content)
    strip = "".join(mo.as_html(one).text for one in inputs)
    return mo.Html(
        f'<div class="talk"><h1>{title}</h1><p class="below">{line}</p><div class="content">{shown}</div>'
        f'<div class="strip">{strip}<span class="keys">{below}</span></div></div>'
    )


@app.cell(hide_code=True)
def a_page(columns, inputs, link, rows, start):
    def _show():
        workload = replace(start, columns=columns.value, rows=rows.value).workload
        title, line = talk.describe_page(workload)
        steps = "".join(
            f'<li style="border-color: {step.colour}">{step.name}<b>{step.number}</b>{escape(step.what)}</li>'
            for step in talk.model_steps(model, workload)
        )
        picture = slides.enlarged(charts.tiling_picture(workload), {PAGE: PAD, VIEW: TILE}, factor=1.45)
        return (title, " ".join(link.notices) or line), picture, f'<ol class="steps">{steps}</ol>'

    slide(
        _show,
        inputs=inputs["page"],
        below="Arrow keys turn the slides. On a slider they move it; Esc leaves it. <a class='with-setting' href='../'>The app</a>",
    )
    return


@app.cell(hide_code=True)
def where_flops_go(attention, inputs, timings):
    def _show():
        mode = {"vendor": talk.TODAY}.get(attention.value, attention.value)
        timing = timings.get(mode, timings["sdpa"])
        return talk.describe_work(timing, mode), slides.enlarged(charts.shares(timing.estimate, timing, wide=True))

    slide(_show, inputs=inputs["mode"])
    return


@app.cell(hide_code=True)
def why_quadratic(inputs, page):
    def _show():
        contexts, heads = growing_contexts(page.workload), model.tower("decoder").heads
        sweep = of.sweep(model, contexts, page.attention_modes, dtype=page.dtype, level="module", stages=["prefill"])
        heading = talk.describe_growth(slides.doubling(sweep), heads, page.workload, page.dtype)
        return heading, slides.attention_traffic(sweep, page.workload.context_tokens)

    slide(_show, inputs=inputs["pages"])
    return


@app.cell(hide_code=True)
def what_modes_move(inputs, page):
    _estimates = talk.by_mode(model, page)
    slide(lambda: (talk.describe_modes(_estimates), slides.moved_and_held(_estimates)), inputs=inputs["pages"])
    return


@app.cell(hide_code=True)
def time_to_first_token(inputs, timings):
    slide(lambda: (talk.describe_first_token(timings), slides.first_token(timings)), inputs=inputs["time"])
    return


@app.cell(hide_code=True)
def where_it_does_not_help(inputs, timings):
    slide(lambda: (talk.describe_token(timings), slides.one_token(timings)), inputs=inputs["output"])
    return


@app.cell(hide_code=True)
def in_money(inputs, price, setting, timings):
    def _show():
        asked = timings, price.value, setting.hour_prices[1]
        shown = [slides.pages_and_cost(*asked)] if any(one.fits for one in timings.values()) else []
        return delivered.describe_pages(*asked), *shown

    slide(_show, inputs=[*inputs["money"], price])
    return


@app.cell(hide_code=True)
def served(setting):
    steps, refused = delivered.serving_steps(model, setting)
    return refused, steps


@app.cell(hide_code=True)
def from_eager_to_served(inputs, refused, setting, steps):
    _chart = [slides.from_eager_to_served(steps)] if steps else []
    slide(lambda: (delivered.describe_served(steps, setting, refused), *_chart), inputs=inputs["served"])
    return


@app.cell(hide_code=True)
def how_far_to_trust(timings):
    _estimates = {mode: timing.estimate for mode, timing in timings.items()}
    _head = "".join(f"<th>{level}</th>" for level in ("compared", *(talk.LEVEL_NAMES[level] for level in verify.LEVELS)))
    _rows = "".join(
        f"<tr><td>{row.name}</td>{''.join(f'<td>{number:,}</td>' for number in row.numbers)}</tr>" for row in talk.evidence_rows(_estimates)
    )
    _table = f"""<div class="evidence"><table><thead><tr>{_head}</tr></thead><tbody>{_rows}</tbody></table><dl>
    <dt>Compared by</dt><dd>PyTorch's own counter for FLOPs; for the rest a trace of every operator that the real model runs.</dd>
    <dt>Modelled in part</dt><dd>flash: traced in CLIP and the decoder. In SAM no engine has a kernel that builds its bias on chip.</dd>
    <dt>Expected times</dt><dd>rest on {escape(next(iter(timings.values())).short_basis)}.</dd>
    </dl></div>"""
    slide(lambda: (talk.describe_evidence(_estimates), _table))
    return


@app.cell(hide_code=True)
def what_is_asked(inputs, price, setting, steps, timings):
    def _show():
        cost = f"a million pages {setting.hour_prices[1]}".strip()
        names = [escape(name) for name in ("", "it needs", "first token", "pages a day", cost)]
        head = "".join(f"<th>{name}</th>" for name in names)
        cells = [zip(names, row, strict=True) for row in delivered.ask_rows(timings, steps, price.value)]
        cells = ["".join(f"<td data-head='{name}'>{escape(cell)}</td>".replace(" (", "<small>(") for name, cell in row) for row in cells]
        rows = "".join(f"<tr>{row}</tr>" for row in cells)
        table = f'<div class="asked"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        return delivered.describe_ask(timings), table

    slide(_show, inputs=[*inputs["money"], price])
    return


if __name__ == "__main__":
    app.run()
