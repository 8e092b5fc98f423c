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
    from ocr_flops import charts, pages, spot_check, tables, verify
    from ocr_flops.charts.style import share, si
    from ocr_flops.config import load_engine, modes, names
    from ocr_flops.measure.client import Worker
    from ocr_flops.scenario import SIDE_BY_SIDE, Scenario

    TABS = ("Overview", "Grids", "Tiling", "Spot check", "Table", "Method")
    ATTENTION = {"vendor's mix": "vendor", "eager": "eager", "sdpa": "sdpa", "flash": "flash", "all side by side": SIDE_BY_SIDE}
    DEVICES = {"cuda if present, else meta": "auto", "meta (exact, no GPU)": "meta", "cpu (slow, 7 GB)": "cpu"}
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
    return attention, dtype, engine


@app.cell(hide_code=True)
def sidebar(attention, batch_size, columns, dtype, engine, height_px, mode, output_tokens, prompt_tokens, rows, source, upload, width_px):
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
    attention, batch_size, columns, dtype, engine, get_page, height_px, mode, output_tokens, prompt_tokens, rows, source, width_px
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
    )
    try:
        estimates, _notice = scenario.estimates(model), None
    except of.SpecError as _error:
        estimates = []
        _notice = mo.callout(mo.md(f"**This setting has no result.** {_error}."), kind="danger")
    _notice
    return estimates, scenario


@app.cell(hide_code=True)
def headline(estimates):
    mo.stop(not estimates)
    _first = estimates[0]
    _stages = {stage: row["total_flops"] for stage, row in _first.stage_numbers.items()}
    _total, _workload, _memory = sum(_stages.values()), _first.workload, _first.footprint
    _views = f"{_workload.tiles} tiles + page" if _workload.tiles else "one view"
    mo.Html(
        '<div class="figures">'
        + "".join(
            [
                figure("FLOPs", si(_total), f"batch {_workload.batch_size}, {_first.setup.attention.name}"),
                *(figure(_stage, si(_flops), f"{share(_flops, _total)} of FLOPs") for _stage, _flops in _stages.items()),
                figure("image tokens", f"{_workload.image_tokens:,}", _views),
                figure("context tokens", f"{_workload.context_tokens:,}", "incl. prompt"),
                figure("weights", si(_memory.weight_bytes, "B"), f"{si(sum(_first.setup.parameters.values()))} params"),
                figure("KV cache", si(_memory.kv_cache_bytes, "B"), "at the end"),
            ]
        )
        + "</div>"
    )
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
    _page = mo.md(r"""
    ### What the numbers mean

    | number | meaning |
    | :--- | :--- |
    | **tensor FLOPs** | matrix products and convolutions, which run on matrix units (tensor cores). A multiply and an add are 2 FLOPs. |
    | **vector FLOPs** | everything elementwise, which runs on CUDA cores: one per output element (one per input element of a sum); softmax 5, layer norm 8, GELU 5, SiLU and sigmoid 4 per element. Copies, casts and gathers are 0. |
    | **torch counts** | what `torch.utils.flop_counter.FlopCounterMode` reports for that run. It equals the tensor FLOPs except under *flash*, whose kernel it cannot see. |
    | **vision, prefill, decode** | the image encoders over all views; the language model over the context; all output tokens, one step each. |
    | **image tokens** | a view of *s* px gives q = ⌈s/64⌉ queries a side: the global view q·(q + 1) + 1 tokens, a grid of tiles (q·rows)·(q·columns + 1). |
    | **weights, KV cache** | parameters × bytes; keys and values of all layers for every token of the context and the output. |

    ### Conventions

    - Attention is counted dense, as PyTorch counts it: no discount for the causal mask.
    - **eager** writes scores and probabilities; **sdpa** is PyTorch's fused kernel; **flash** also fuses SAM's relative-position bias. The modes change traffic,
      memory and vector work, not matrix FLOPs. **vendor's mix** is what the engine does by itself.
    - Prefill computes the logits of the last position in `transformers` and of all positions in the published code, as their `generate` does.
    - Output token *i* attends to the context and *i* tokens, its own included.
    - Grids are columns × rows; 1 × 1 means no tiles. The vendor's rule picks among the 22 grids of 2 to 9 tiles by aspect ratio; larger grids are ours.
      The published `infer()` always cuts 640 px tiles: Gundam-M is reached through `forward()` only.

    ### How they are checked

    - **runnable**: that mode exists in that engine here, so `ocr-flops verify` counts it on the real model and compares module by module, as integers.
      **modelled**: computed by the same rules, but there is no runnable counterpart here (flash, and the code published with the weights).
    - The *spot check* does the same for the point on screen. A measured point is compared with the analytic value of the engine, attention, precision and
      logits that ran, not with what the sliders show since. Measured decode steps are drawn only where as many ran as tokens are shown.

    ### Limits

    - FLOPs are not time: decode is bound by memory traffic, not by these FLOPs.
    - Weights are random in the spot check. FLOPs do not depend on their values.
    - Batches are of equal pages.
    """)
    mo.Html(f'<div class="page">{_page.text}</div>') if tab.value == "Method" else None
    return


if __name__ == "__main__":
    app.run()
