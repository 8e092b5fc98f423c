# /// script
# requires-python = ">=3.11"
#
# [tool.marimo.display]
# theme = "system"
# ///
import marimo

__generated_with = "0.25.2"
app = marimo.App(width="full", app_title="OCR FLOPs: what if?", css_file="what_if.css")

with app.setup(hide_code=True):
    import marimo as mo
    import polars as pl

    import ocr_flops as of
    from ocr_flops import charts, evidence, pages, planning, spot_check, tables, verify
    from ocr_flops.charts.style import seconds, si
    from ocr_flops.config import load_engine, modes, names, notebook_dir
    from ocr_flops.measure.client import Worker
    from ocr_flops.scenario import SIDE_BY_SIDE, Scenario

    TABS = ("Overview", "Grids", "Tiling", "Time", "Memory", "Savings", "Plan", "Spot check", "Table", "Method")
    ATTENTION = {"vendor's mix": "vendor", "eager": "eager", "sdpa": "sdpa", "flash": "flash", "all side by side": SIDE_BY_SIDE}
    DEVICES = {"cuda if present, else meta": "auto", "meta (exact, no GPU)": "meta", "cpu (slow, 7 GB)": "cpu"}
    BOUND = {"matrix": "matrix", "vector": "vector", "bandwidth": "memory", "launch": "launch"}
    GPUS = {of.load_hardware(name).label: name for name in names("hardware")}
    model = of.load_model("deepseek_ocr")


@app.function(hide_code=True)
def labelled(text: str, explanation: str) -> str:
    """A control's label, explained where the pointer rests on it."""
    return f'<span data-tooltip="{explanation}">{text}</span>'


@app.function(hide_code=True)
def figure(label: str, value: str, caption: str) -> str:
    """One headline figure."""
    return f"<div><span>{label}</span><strong>{value}</strong><span>{caption}</span></div>"


@app.cell(hide_code=True)
def state():
    get_measured, set_measured = mo.state({})  # results of spot checks, kept while sliders move
    get_failure, set_failure = mo.state(None)
    get_page, set_page = mo.state(None)  # size of the last image that could be read
    return get_failure, get_measured, get_page, set_failure, set_measured, set_page


@app.cell(hide_code=True)
def mode_controls():
    mode = mo.ui.dropdown(
        {one.label: one.name for one in modes()},
        value="Gundam",
        full_width=True,
        label=labelled("resolution mode", "Tiny to Large encode one view of the page. Gundam and Gundam-M add tiles cut from it."),
    )
    source = mo.ui.dropdown(
        {"page size": "page", "image file": "file", "grid by hand": "grid"},
        value="page size",
        full_width=True,
        label=labelled("tile grid from", "The vendor's rule picks the grid from the page's size; by hand it can be any."),
    )
    return mode, source


@app.cell(hide_code=True)
def page_controls():
    width_px = mo.ui.slider(
        16, 8000, value=1654, include_input=True, full_width=True, label=labelled("page width (px)", "A4 at 200 dpi is 1654 × 2339 px.")
    )
    height_px = mo.ui.slider(
        16,
        8000,
        value=2339,
        include_input=True,
        full_width=True,
        label=labelled("page height (px)", "Up to 640 px on both sides the page is not tiled."),
    )
    upload = mo.ui.file(filetypes=list(pages.SUFFIXES), max_size=50_000_000, label="choose an image (only its size is read)")
    return height_px, upload, width_px


@app.cell(hide_code=True)
def grid_controls():
    columns = mo.ui.slider(
        1,
        32,
        value=2,
        include_input=True,
        full_width=True,
        label=labelled("columns", "Tiles across the page. 1 × 1 means no tiles; the vendor's own grids have 2 to 9."),
    )
    rows = mo.ui.slider(1, 32, value=3, include_input=True, full_width=True, label=labelled("rows", "Tiles down the page."))
    return columns, rows


@app.cell(hide_code=True)
def text_controls():
    prompt_tokens = mo.ui.number(
        value=10,
        step=1,
        full_width=True,
        label=labelled("prompt (tokens)", "Text beside the image, BOS included; the vendor's default prompt has 10."),
    )
    output_tokens = mo.ui.slider(
        0,
        8192,
        value=256,
        step=32,
        show_value=True,
        full_width=True,
        label=labelled("output (tokens)", "Tokens generated; each is one decode step."),
    )
    batch_size = mo.ui.slider(
        steps=[1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512],
        value=1,
        show_value=True,
        full_width=True,
        label=labelled("batch (pages)", "Equal pages run together."),
    )
    return batch_size, output_tokens, prompt_tokens


@app.cell(hide_code=True)
def software_controls():
    attention = mo.ui.dropdown(
        ATTENTION,
        value="vendor's mix",
        full_width=True,
        label=labelled("attention", "What differs between modes is vector work, memory and traffic; matrix FLOPs are the same."),
    )
    engine = mo.ui.dropdown(
        {load_engine(name).label: name for name in reversed(names("engine"))},
        value=load_engine().label,
        full_width=True,
        label=labelled("engine", "The code that runs the model: transformers' own class, or the code published with the weights."),
    )
    dtype = mo.ui.dropdown(
        ["bf16", "fp16", "fp32"],
        value="bf16",
        full_width=True,
        label=labelled("precision", "Of weights and activations. Does not change FLOPs; flash attention needs bf16 or fp16."),
    )
    cache = mo.ui.dropdown(
        ["dynamic", "static"],
        value="dynamic",
        full_width=True,
        label=labelled("KV cache", "Dynamic grows by copying at every step, as both engines do; static is written in place."),
    )
    return attention, cache, dtype, engine


@app.cell(hide_code=True)
def gpu_controls():
    gpu = mo.ui.dropdown(
        GPUS,
        value=of.load_hardware("l4").label,
        full_width=True,
        label=labelled("GPU", "Dense datasheet peaks; the file of each device in configs/hardware names its sources."),
    )
    return (gpu,)


@app.cell(hide_code=True)
def gpu_figures(dtype, gpu):
    _device = of.load_hardware(gpu.value)
    _peaks = dict(_device.matrix_flops_per_second)
    _matrix = _peaks.get(dtype.value) or _device.vector_fp32_flops_per_second or max(_peaks.values())
    _unknown = "" if dtype.value in _peaks or dtype.value == "fp32" else f" {_device.label} has no {dtype.value} figure: enter one."
    figures = mo.ui.dictionary(
        {
            "matrix_flops_per_second": mo.ui.number(
                value=None if _unknown else _matrix / 1e12, label=labelled("matrix (TFLOP/s)", f"Dense peak in {dtype.value}.{_unknown}")
            ),
            "vector_fp32_flops_per_second": mo.ui.number(
                value=_device.vector_fp32_flops_per_second and _device.vector_fp32_flops_per_second / 1e12,
                label=labelled("vector (TFLOP/s)", "fp32 peak of the vector units."),
            ),
            "memory_bandwidth_bytes_per_second": mo.ui.number(
                value=_device.memory_bandwidth_bytes_per_second / 1e12,
                label=labelled("memory (TB/s)", "Peak bandwidth of the device's memory."),
            ),
            "memory_bytes": mo.ui.number(
                value=_device.memory_bytes / 1e12, label=labelled("size (TB)", "Memory of the device; 0.024 is 24 GB.")
            ),
        }
    )
    return (figures,)


@app.cell(hide_code=True)
def device_chosen(dtype, figures, gpu):
    gpu_device, _notice = None, None
    try:
        _given = {name: value * 1e12 for name, value in figures.value.items() if value is not None}
        gpu_device = of.load_hardware(gpu.value).edited(dtype.value, **_given)
        gpu_device.matrix_peak(dtype.value)
    except of.SpecError as _error:
        gpu_device = None
        _notice = mo.callout(mo.md(f"**No times on this GPU.** {_error}."), kind="warn")
    _notice
    return (gpu_device,)


@app.cell(hide_code=True)
def sidebar(
    attention,
    batch_size,
    cache,
    columns,
    dtype,
    engine,
    figures,
    gpu,
    height_px,
    mode,
    output_tokens,
    prompt_tokens,
    rows,
    source,
    upload,
    width_px,
):
    _tiled = of.load_mode(mode.value).tile_px > 0
    _grid = (
        {"page": [width_px, height_px], "file": [upload], "grid": [columns, rows]}[source.value]
        if _tiled
        else [mo.md("<small>This mode encodes the page as one view; its size does not change the cost.</small>")]
    )
    mo.sidebar(
        [
            mo.md("## OCR FLOPs"),
            mo.md(f"<small>What {model.label} computes for a page, stage by stage. Rest on a label for its meaning.</small>"),
            mo.md("**Page**"),
            mode,
            *([source] if _tiled else []),
            *_grid,
            mo.md("**Text and batch**"),
            prompt_tokens,
            output_tokens,
            batch_size,
            mo.md("**Software**"),
            attention,
            engine,
            dtype,
            cache,
            mo.md("**Hardware**"),
            gpu,
            mo.accordion({"edit its figures": mo.vstack(list(figures.elements.values()))}),
        ],
        width="330px",
    )


@app.cell(hide_code=True)
def read_image(set_page, source, upload):
    _notice = None
    if source.value == "file" and upload.value:
        try:
            set_page(pages.page_size(upload.value[0].contents, upload.value[0].name))
        except of.SpecError as _error:
            _notice = mo.callout(mo.md(f"**The image was not used.** {_error}. The page keeps its previous size."), kind="danger")
    _notice
    return


@app.cell(hide_code=True)
def estimated(
    attention, batch_size, cache, columns, dtype, engine, get_page, height_px, mode, output_tokens, prompt_tokens, rows, source, width_px
):
    _width, _height = (get_page() if source.value == "file" else None) or (width_px.value, height_px.value)
    scenario = Scenario(
        mode=mode.value,
        source="grid" if source.value == "grid" else "page",
        width_px=_width,
        height_px=_height,
        columns=columns.value,
        rows=rows.value,
        prompt_tokens=prompt_tokens.value,
        output_tokens=output_tokens.value,
        batch_size=batch_size.value,
        attention=attention.value,
        engine=engine.value,
        dtype=dtype.value,
        cache=cache.value,
    )
    try:
        estimates, _notice = scenario.estimates(model), None
    except of.SpecError as _error:
        estimates = []
        _notice = mo.callout(mo.md(f"**This setting has no result.** {_error}."), kind="danger")
    _notice
    return estimates, scenario


@app.cell(hide_code=True)
def timed(estimates, gpu_device):
    timings = [_one.on(gpu_device) for _one in estimates] if gpu_device else []
    return (timings,)


@app.cell(hide_code=True)
def headline(estimates, timings):
    mo.stop(not estimates)
    _first = estimates[0]
    _total = sum(row["total_flops"] for row in _first.stage_numbers.values())
    _workload, _memory = _first.workload, _first.footprint
    _views = f"{_workload.tiles} tiles + page" if _workload.tiles else "one view"
    _cards = [figure("FLOPs", si(_total), f"batch {_workload.batch_size}")]
    if timings:
        _timing = timings[0]
        _binds, _spare = _timing.binding_ceilings, _timing.hardware.memory_bytes - _memory.total_bytes
        _cards += [
            figure("first token", seconds(_timing.ttft_seconds), f"bound {seconds(_timing.bound_ttft_seconds)}"),
            figure("per token", seconds(_timing.tpot_seconds) if _timing.tpot_seconds else "–", f"{BOUND[_binds['decode']]}-bound"),
            figure("pages", f"{_timing.pages_per_second:.3g}/s", "at best"),
            figure("memory", si(_memory.total_bytes, "B"), f"{si(abs(_spare), 'B')} {'spare' if _spare >= 0 else 'TOO MUCH'}"),
        ]
    else:
        _cards.append(figure("memory", si(_memory.total_bytes, "B"), "all together"))
    _cards += [
        figure("activations", si(_memory.peak_activation_bytes, "B"), "live peak"),
        figure("image tokens", f"{_workload.image_tokens:,}", _views),
        figure("context", f"{_workload.context_tokens:,}", "with prompt"),
        figure("weights", si(_memory.weight_bytes, "B"), f"{si(sum(_first.setup.parameters.values()))} params"),
        figure("KV cache", si(_memory.kv_cache_bytes, "B"), "at the end"),
    ]
    mo.Html('<div class="figures">' + "".join(_cards) + "</div>")
    return


@app.cell(hide_code=True)
def run_model(device, estimates, go, scenario, scope, set_failure, set_measured):
    mo.stop(not go.value or not estimates)
    _request = verify.request(
        model, spot_check.points(scenario, scope.value), device=device.value, dtype=scenario.dtype, prefill_logits=scenario.prefill_logits
    )
    _found, _failure = {}, None
    with Worker(_request) as _worker:
        _messages = iter(_worker)
        _first = next(_messages)
        with mo.status.progress_bar(
            total=_first.get("total", 1), title="Running the model", subtitle=_first.get("text", ""), remove_on_exit=True, show_rate=False
        ) as _bar:
            for _message in [_first, *([] if _first["event"] == "error" else _messages)]:
                if _message["event"] == "progress":
                    _bar.update(subtitle=_message["text"])
                elif _message["event"] == "result":
                    _found[spot_check.key(_message)] = spot_check.frame(model, _message)
                elif _message["event"] == "error":
                    _failure = _message
    set_measured(lambda known: {**{key: frame for key, frame in known.items() if key not in _found}, **_found})
    set_failure(_failure)
    return


@app.cell(hide_code=True)
def failed(get_failure):
    _failure = get_failure()
    mo.callout(mo.md(f"**The spot check ended early: {_failure['message']}.** {_failure['advice']}"), kind="danger") if _failure else None
    return


@app.cell(hide_code=True)
def tabs():
    tab = mo.ui.tabs(dict.fromkeys(TABS, ""), label="")
    tab
    return (tab,)


@app.cell(hide_code=True)
def overview(estimates, get_measured, scenario, tab):
    _shown = None
    if estimates and tab.value == "Overview":
        _modules = pl.concat([_one.modules for _one in estimates])
        _tensor = charts.flops_by_module(_modules, spot_check.beside(get_measured().values(), scenario))
        _vector = charts.flops_by_module(_modules, work="vector_flops")
        _shown = mo.Html(f'<div class="panels"><div>{mo.as_html(_tensor)}</div><div>{mo.as_html(_vector)}</div></div>')
    _shown
    return


@app.cell(hide_code=True)
def grids(estimates, get_measured, scenario, tab):
    _chart = None
    if estimates and tab.value == "Grids":
        _sweep = of.sweep(model, scenario.neighbours, scenario.attention_modes[0], engine=scenario.engine, dtype=scenario.dtype)
        _chart = charts.flops_by_tokens(_sweep, estimates[0].stages, spot_check.beside(get_measured().values(), scenario))
    _chart
    return


@app.cell(hide_code=True)
def tiling(scenario, estimates, tab):
    charts.tiling_picture(scenario.workload) if estimates and tab.value == "Tiling" else None
    return


@app.cell(hide_code=True)
def time(tab, timings):
    _shown = None
    if timings and tab.value == "Time":
        _halves = [charts.time_by_module(timings[0], _stages) for _stages in (("vision", "prefill"), ("decode",))]
        _panels = "".join(f"<div>{mo.as_html(_half).text}</div>" for _half in _halves)
        _shown = mo.vstack([charts.roofline(timings[0]), mo.Html(f'<div class="halves">{_panels}</div>')])
    _shown
    return


@app.cell(hide_code=True)
def memory(estimates, gpu_device, scenario, tab):
    _shown = None
    if estimates and tab.value == "Memory":
        _options = {"engine": scenario.engine, "dtype": scenario.dtype, "cache": scenario.cache}
        _sweep = of.sweep(model, scenario.lengths, scenario.attention_modes[0], **_options)
        _shown = mo.vstack([charts.memory(estimates, gpu_device), charts.growth(_sweep, scenario.output_tokens)])
    _shown
    return


@app.cell(hide_code=True)
def savings(estimates, gpu_device, scenario, tab):
    _shown = None
    if estimates and tab.value == "Savings":
        _modes = scenario.by_mode(model)
        _timings = {mode: one.on(gpu_device) for mode, one in _modes.items()} if gpu_device else None
        _sweep = of.sweep(model, scenario.neighbours, list(_modes), engine=scenario.engine, dtype=scenario.dtype, cache=scenario.cache)
        _works = ("io_bytes", "peak_activation_bytes") if _sweep["tiles"].n_unique() > 1 else ()
        _by_tiles = [charts.savings_by_tiles(_sweep, _work, scenario.workload.tiles) for _work in _works]
        _shown = mo.vstack([charts.savings(_modes, _timings), *_by_tiles])
    _shown
    return


@app.cell(hide_code=True)
def plan_controls():
    ttft_ms = mo.ui.number(
        value=500.0, label=labelled("first token within (ms)", "Target for vision and prefill together; empty for none.")
    )
    tpot_ms = mo.ui.number(value=20.0, label=labelled("a token within (ms)", "Target for the mean time per output token; empty for none."))
    price = mo.ui.number(value=None, label=labelled("price of a GPU hour", "In any currency; empty for none."))
    return price, tpot_ms, ttft_ms


@app.cell(hide_code=True)
def plan(estimates, gpu_device, price, tab, tpot_ms, ttft_ms):
    _shown = None
    if estimates and tab.value == "Plan":
        _answer = []
        try:
            _targets = {
                "ttft_seconds": None if ttft_ms.value is None else ttft_ms.value / 1e3,
                "tpot_seconds": None if tpot_ms.value is None or not estimates[0].workload.output_tokens else tpot_ms.value / 1e3,
            }
            _all = [of.load_hardware(name) for name in GPUS.values()]
            _words = tables.plan_words(estimates[0], planning.required(estimates[0], **_targets), gpu_device)
            _table = tables.devices_table(planning.devices(estimates[0], _all, price_per_hour=price.value, **_targets))
            _answer = [
                mo.md(_words),
                mo.ui.table(
                    _table,
                    selection=None,
                    page_size=50,
                    format_mapping=tables.formats(_table),
                    show_column_summaries=False,
                    show_data_types=False,
                ),
            ]
        except of.SpecError as _error:
            _answer = [mo.callout(mo.md(f"**This target has no answer.** {_error}."), kind="danger")]
        _shown = mo.vstack([mo.hstack([ttft_ms, tpot_ms, price], justify="start", gap=2, wrap=True), *_answer])
    _shown
    return


@app.cell(hide_code=True)
def spot_check_controls():
    device = mo.ui.dropdown(DEVICES, value="cuda if present, else meta", label="device")
    scope = mo.ui.radio(list(spot_check.SCOPES), value=spot_check.SCOPES[0], inline=True, label="points")
    go = mo.ui.run_button(label="Run the vendor model", kind="success")
    return device, go, scope


@app.cell(hide_code=True)
def spot_check_panel(device, go, scope, tab):
    mo.vstack(
        [
            mo.md(f"""
    Builds the real model in a child process and counts its FLOPs with PyTorch's own counter, for the setting in the sidebar.

    What runs: **transformers, UnlimitedOcr class, random weights, eager, {device.selected_key}**. It is given DeepSeek-OCR's dimensions, with which
    it is the same architecture; no weights are downloaded. At most 3 decode steps are run and compared as such. About 8 s for a point on `meta`.
    """),
            mo.hstack([device, scope, go], justify="start", align="center", gap=2, wrap=True),
        ]
    ) if tab.value == "Spot check" else None
    return


@app.cell(hide_code=True)
def spot_check_results(get_measured, tab):
    _shown = None
    if tab.value == "Spot check":
        _shown = mo.md("Nothing has been measured yet.")
    if tab.value == "Spot check" and get_measured():
        _measured = pl.concat(reversed(get_measured().values()))
        _equal = not _measured["difference"].abs().sum()
        _unseen = spot_check.missed(_measured)
        _table = tables.measured_table(_measured)
        _shown = mo.vstack(
            [
                mo.callout(spot_check.verdict(_measured), kind="success" if _equal else "danger"),
                *(
                    [mo.callout(mo.md("**Not seen by torch's counter, so not compared.** " + "; ".join(_unseen)), kind="warn")]
                    if _unseen
                    else []
                ),
                mo.ui.table(
                    _table,
                    selection=None,
                    page_size=25,
                    format_mapping=tables.formats(_table),
                    show_column_summaries=False,
                    show_data_types=False,
                ),
            ]
        )
    _shown
    return


@app.cell(hide_code=True)
def table(estimates, tab):
    _shown = None
    if estimates and tab.value == "Table":
        _table = tables.modules_table(pl.concat([_one.modules for _one in estimates]))
        _shown = mo.ui.table(
            _table,
            selection=None,
            pagination=False,
            format_mapping=tables.formats(_table),
            show_column_summaries=False,
            show_data_types=False,
            max_height=1200,
        )
    _shown
    return


@app.cell(hide_code=True)
def method(tab):
    _shown = None
    if tab.value == "Method":
        _page = mo.md((notebook_dir() / "method.md").read_text(encoding="utf-8"))
        _record = evidence.recorded()
        _table = tables.verification_table(_record)
        _shown = mo.vstack(
            [
                mo.Html(f'<div class="page">{_page.text}</div>'),
                mo.md("## The comparison this version was released with\n\n" + tables.verification_words(_record)),
                mo.ui.table(
                    _table,
                    selection=None,
                    page_size=25,
                    format_mapping=tables.formats(_table),
                    show_column_summaries=False,
                    show_data_types=False,
                ),
            ]
        )
    _shown
    return


if __name__ == "__main__":
    app.run()
