# /// script
# requires-python = ">=3.11"
#
# [tool.marimo.display]
# theme = "system"
# ///
import marimo

__generated_with = "0.25.2"
app = marimo.App(width="full", app_title="OCR FLOPs: what if?", css_file="what_if.css", html_head_file="what_if.html")

with app.setup(hide_code=True):
    from html import escape
    from urllib.parse import urlencode
    from uuid import uuid4

    import marimo as mo
    import polars as pl

    import ocr_flops as of
    from ocr_flops import audit, charts, comparison, evidence, links, pages, planning, reports, spot_check, tables, verify, views
    from ocr_flops.charts.audit import hidden_flops
    from ocr_flops.config import load_engine, modes, names, notebook_dir
    from ocr_flops.headline import figures as headline_figures
    from ocr_flops.links import Link
    from ocr_flops.measure.protocol import Request
    from ocr_flops.measure.queue import QUEUE
    from ocr_flops.measure.store import STORE
    from ocr_flops.scenario import SIDE_BY_SIDE
    from ocr_flops.setting import FIGURES, Setting

    TABS = (*views.VIEWS, "Compare", "Plan", "Spot check", "Table", "Export", "Method")
    SOURCES = {"page size": "page", "image or PDF": "file", "grid by hand": "grid"}
    ATTENTION = {"vendor's mix": "vendor", "eager": "eager", "sdpa": "sdpa", "flash": "flash", "all side by side": SIDE_BY_SIDE}
    MODES = {one.label: one.name for one in modes()}
    ENGINES = {load_engine(name).label: name for name in reversed(names("engine"))}
    GPUS = {of.load_hardware(name).label: name for name in names("hardware")}
    DEVICES = {"cuda if present, else meta": "auto", "meta (exact, no GPU)": "meta", "cpu (slow, 7 GB)": "cpu"}
    BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
    NOW = "now"
    model = of.load_model("deepseek_ocr")
    RECORD = evidence.recorded()


@app.function(hide_code=True)
def labelled(text: str, explanation: str) -> str:
    """A control's label, explained where the pointer rests on it."""
    return f'<span data-tooltip="{escape(explanation)}">{escape(text)}</span>'


@app.function(hide_code=True)
def problem(title: str, *texts: str, kind: str = "danger"):
    """A notice. Its texts may quote what somebody typed or sent, so nothing in them is taken for HTML or Markdown."""
    return mo.callout(mo.Html(f"<strong>{escape(title)}</strong> " + "<br>".join(escape(text) for text in texts)), kind=kind)


@app.function(hide_code=True)
def choice(options: dict, value: str, label: str):
    """A list that begins with the option that has this value."""
    return mo.ui.dropdown(options, value=next(name for name, known in options.items() if known == value), full_width=True, label=label)


@app.function(hide_code=True)
def plain_table(frame, **options):
    """A table to read."""
    return mo.ui.table(
        frame, selection=None, format_mapping=tables.formats(frame), show_column_summaries=False, show_data_types=False, **options
    )


@app.function(hide_code=True)
def headline(shown):
    """The headline figures: six as cards, the rest in a line."""
    found = headline_figures(shown.estimates[0], shown.timings[0] if shown.timings else None)
    cards = [
        f'<div class="{"alarm" if one.alarm else ""}"><span data-tooltip="{escape(one.explanation)}">{escape(one.label)}</span>'
        f"<strong>{escape(one.value)}</strong><span>{escape(one.caption)}</span></div>"
        for one in found[:6]
    ]
    details = [
        f'<div data-tooltip="{escape(one.explanation)}"><span>{escape(one.label)}</span> <strong>{escape(one.value)}</strong> '
        f"<span>{escape(one.caption)}</span></div>"
        for one in found[6:]
    ]
    wrong = sum(row["largest_difference"] != 0 for row in RECORD["rows"])
    details.append(
        '<div data-tooltip="How this version was compared with the real model before it was released; see Method."><span>checked</span> '
        f"<strong>{RECORD['numbers']:,} numbers</strong> <span>{f'{wrong} DIFFER' if wrong else 'all equal the real model'}</span></div>"
    )
    return mo.Html(f'<div class="figures">{"".join(cards)}</div><div class="details">{"".join(details)}</div>')


@app.function(hide_code=True)
def job_html(job, queue):
    """A spot check on its way: its place in the queue, or how far each stage of its current point is."""
    if job.state == "waiting":
        before = [escape(f"{other.label} ({other.state})") for other in queue if other.id < job.id]
        return f'<div class="job">Spot check of {escape(job.label)} waits: {job.position} in line, after {", ".join(before)}</div>'
    now = next((stage.point for stage in job.stages if stage.state == "running" and stage.point is not None), 0)
    stages = [stage for stage in job.stages if stage.point in (None, now)]
    items = [f'<li class="{one.state}">{escape(one.name)}{f" {one.seconds:.1f} s" if one.seconds else ""}</li>' for one in stages]
    waiting = sum(other.state == "waiting" for other in queue)
    return (
        f'<div class="job">Spot check of {escape(job.label)}: {escape(job.text)}, {job.running_seconds:.0f} s'
        f"{f'; {waiting} waiting' if waiting else ''}"
        f'<progress value="{job.done}" max="{job.total}"></progress><ol>{"".join(items)}</ol></div>'
    )


@app.cell(hide_code=True)
def linked():
    link = links.read(mo.query_params().to_dict(), TABS)  # read once: the controls begin with it
    problem("The link was not used as a whole.", *link.notices, kind="warn") if link.notices else None
    return (link,)


@app.cell(hide_code=True)
def state(link):
    owner = uuid4().hex  # of this session's spot checks
    presses = {"go": 0, "pin": 0, "audit": 0}  # those that have been answered: a cell may run several times for one
    get_asked, set_asked = mo.state(0)  # how often one was asked for, and ended
    get_arrived, set_arrived = mo.state(0)  # how many results it has brought; the results are the server's, see STORE
    get_refused, set_refused = mo.state(None)
    get_document, set_document = mo.state(None)  # the last that could be read
    get_pins, set_pins = mo.state(link.pins, allow_self_loops=True)  # the cell of the remove buttons sets what it reads
    return (
        get_arrived,
        get_asked,
        get_document,
        get_pins,
        get_refused,
        owner,
        presses,
        set_arrived,
        set_asked,
        set_document,
        set_pins,
        set_refused,
    )


@app.cell(hide_code=True)
def mode_controls(link):
    mode = choice(
        MODES,
        link.setting.mode,
        labelled("resolution mode", "Tiny to Large encode one view of the page. Gundam and Gundam-M add tiles cut from it."),
    )
    source = choice(
        SOURCES,
        link.setting.source,
        labelled("tile grid from", "The vendor's rule picks the grid from the page's size; by hand it can be any."),
    )
    return mode, source


@app.cell(hide_code=True)
def page_controls(link):
    _width, _height = link.setting.width_px, link.setting.height_px
    width_px = mo.ui.slider(
        min(16, _width),
        max(8000, _width),
        value=_width,
        include_input=True,
        full_width=True,
        label=labelled("page width (px)", "A4 at 200 dpi is 1654 × 2339 px."),
    )
    height_px = mo.ui.slider(
        min(16, _height),
        max(8000, _height),
        value=_height,
        include_input=True,
        full_width=True,
        label=labelled("page height (px)", "Up to 640 px on both sides the page is not tiled."),
    )
    upload = mo.ui.file(
        filetypes=list(pages.DOCUMENT_SUFFIXES), max_size=50_000_000, label="choose an image or a PDF (only sizes are read)"
    )
    page_inputs = {
        "page": [width_px, height_px],
        "file": [upload],
    }  # in a plain container, so that the sidebar stays as it is when one moves
    return height_px, page_inputs, upload, width_px


@app.cell(hide_code=True)
def grid_controls(link):
    columns = mo.ui.slider(
        1,
        max(32, link.setting.columns),
        value=link.setting.columns,
        include_input=True,
        full_width=True,
        label=labelled("columns", "Tiles across the page. 1 × 1 means no tiles; the vendor's own grids have 2 to 9."),
    )
    rows = mo.ui.slider(
        1,
        max(32, link.setting.rows),
        value=link.setting.rows,
        include_input=True,
        full_width=True,
        label=labelled("rows", "Tiles down the page."),
    )
    grid_inputs = [columns, rows]
    return columns, grid_inputs, rows


@app.cell(hide_code=True)
def text_controls(link):
    prompt_tokens = mo.ui.number(
        value=link.setting.prompt_tokens,
        step=1,
        full_width=True,
        label=labelled("prompt (tokens)", "Text beside the image, BOS included; the vendor's default prompt has 10."),
    )
    output_tokens = mo.ui.slider(
        steps=sorted({*range(0, 8193, 32), link.setting.output_tokens}),
        value=link.setting.output_tokens,
        show_value=True,
        full_width=True,
        label=labelled("output (tokens)", "Tokens generated; each is one decode step."),
    )
    batch_size = mo.ui.slider(
        steps=sorted({*BATCHES, link.setting.batch_size}),
        value=link.setting.batch_size,
        show_value=True,
        full_width=True,
        label=labelled("batch (pages)", "Equal pages run together."),
    )
    text_inputs = [prompt_tokens, output_tokens, batch_size]
    return batch_size, output_tokens, prompt_tokens, text_inputs


@app.cell(hide_code=True)
def software_controls(link):
    attention = choice(
        ATTENTION,
        link.setting.attention,
        labelled("attention", "What differs between modes is vector work, memory and traffic; matrix FLOPs are the same."),
    )
    engine = choice(
        ENGINES,
        link.setting.engine,
        labelled("engine", "The code that runs the model: transformers' own class, or the code published with the weights."),
    )
    dtype = mo.ui.dropdown(
        ["bf16", "fp16", "fp32"],
        value=link.setting.dtype,
        full_width=True,
        label=labelled("precision", "Of weights and activations. Does not change FLOPs; flash attention needs bf16 or fp16."),
    )
    cache = mo.ui.dropdown(
        ["dynamic", "static"],
        value=link.setting.cache,
        full_width=True,
        label=labelled("KV cache", "Dynamic grows by copying at every step, as both engines do; static is written in place."),
    )
    software_inputs = [attention, engine, dtype, cache]
    return attention, cache, dtype, engine, software_inputs


@app.cell(hide_code=True)
def gpu_controls(link):
    gpu = choice(
        GPUS,
        link.setting.gpu,
        labelled("GPU", "Dense datasheet peaks; the file of each device in configs/hardware names its sources."),
    )
    gpu_inputs = [gpu]
    return gpu, gpu_inputs


@app.cell(hide_code=True)
def gpu_figures(dtype, gpu, link):
    _device = of.load_hardware(gpu.value)
    _peaks = dict(_device.matrix_flops_per_second)
    _unknown = "" if dtype.value in _peaks or dtype.value == "fp32" else f" {_device.label} has no {dtype.value} figure: enter one."
    _own = {name: getattr(_device, name) for name in FIGURES[1:]}
    _own[FIGURES[0]] = None if _unknown else _peaks.get(dtype.value) or _device.vector_fp32_flops_per_second
    published = {name: value and value / 1e12 for name, value in _own.items()}
    _linked = link.setting if (link.setting.gpu, link.setting.dtype) == (gpu.value, dtype.value) else Setting()
    _labels = (
        labelled("matrix (TFLOP/s)", f"Dense peak in {dtype.value}.{_unknown}"),
        labelled("vector (TFLOP/s)", "fp32 peak of the vector units."),
        labelled("memory (TB/s)", "Peak bandwidth of the device's memory."),
        labelled("size (TB)", "Memory of the device; 0.024 is 24 GB."),
    )
    figures = mo.ui.dictionary(
        {
            name: mo.ui.number(value=(getattr(_linked, name) or 0) / 1e12 or published[name], label=label)
            for name, label in zip(FIGURES, _labels, strict=True)
        }
    )
    figure_inputs = list(figures.elements.values())
    return figure_inputs, figures, published


@app.cell(hide_code=True)
def sidebar(document_inputs, figure_inputs, gpu_inputs, grid_inputs, mode, page_inputs, software_inputs, source, text_inputs):
    _tiled = of.load_mode(mode.value).tile_px > 0
    _note = mo.md("<small>This mode encodes the page as one view; its size does not change the cost.</small>")
    mo.sidebar(
        [
            mo.md("## OCR FLOPs"),
            mo.md(f"<small>What {model.label} computes for a page, stage by stage. Rest on a label for its meaning.</small>"),
            mo.md("**Page**"),
            mode,
            *([source, *(page_inputs | document_inputs | {"grid": grid_inputs})[source.value]] if _tiled else [_note]),
            mo.md("**Text and batch**"),
            *text_inputs,
            mo.md("**Software**"),
            *software_inputs,
            mo.md("**Hardware**"),
            *gpu_inputs,
            mo.accordion({"edit its figures": mo.vstack(figure_inputs)}),
        ],
        width="310px",
    )
    return


@app.cell(hide_code=True)
def read_document(set_document, source, upload):
    _notice = None
    if source.value == "file" and upload.value:
        try:
            set_document(pages.document(upload.value[0].contents, upload.value[0].name))
        except of.SpecError as _error:
            _notice = problem("The file was not used.", f"{_error}. The page keeps its previous size.")
    _notice
    return


@app.cell(hide_code=True)
def document_controls(get_document, upload):
    _document = get_document()
    _is_pdf = _document is not None and _document.unit == "pt"
    page_number = mo.ui.number(
        1,
        len(_document.sizes) if _is_pdf else 1,
        step=1,
        value=1,
        full_width=True,
        label=labelled(f"page, of {len(_document.sizes) if _is_pdf else 1}", "Whose size is taken."),
    )
    dpi = mo.ui.number(
        pages.MIN_DPI,
        pages.MAX_DPI,
        value=pages.DEFAULT_DPI,
        full_width=True,
        label=labelled("resolution (dpi)", "At which the page is rendered; the vendor's own script for PDFs uses 144."),
    )
    document_inputs = {"file": [upload, *([page_number, dpi] if _is_pdf else [])]}
    return document_inputs, dpi, page_number


@app.cell(hide_code=True)
def evaluated(
    attention,
    batch_size,
    cache,
    columns,
    dpi,
    dtype,
    engine,
    figures,
    get_arrived,
    get_document,
    gpu,
    height_px,
    mode,
    output_tokens,
    page_number,
    price,
    prompt_tokens,
    published,
    rows,
    source,
    tpot_ms,
    ttft_ms,
    width_px,
):
    get_arrived()  # runs again when the spot check brings a result
    _size, _notices = (width_px.value, height_px.value), []
    if source.value == "file" and get_document():
        try:
            _size = get_document().page_px(page_number.value, dpi.value)
        except of.SpecError as _error:
            _notices.append(problem("The page's size was not used.", f"{_error}."))
    setting = Setting(
        mode=mode.value,
        source="grid" if source.value == "grid" else "page",
        width_px=_size[0],
        height_px=_size[1],
        columns=columns.value,
        rows=rows.value,
        prompt_tokens=prompt_tokens.value,
        output_tokens=output_tokens.value,
        batch_size=batch_size.value,
        attention=attention.value,
        engine=engine.value,
        dtype=dtype.value,
        cache=cache.value,
        gpu=gpu.value,
        ttft_ms=ttft_ms.value,
        tpot_ms=tpot_ms.value,
        price=price.value,
        **{name: value * 1e12 for name, value in figures.value.items() if value is not None and value != published[name]},
    )
    shown = views.Shown(model, setting, STORE.frames())
    try:
        shown.estimates  # raises here what would be raised where it is shown
        _notices += [problem("No times on this GPU.", f"{shown.without_times}.", kind="warn")] if shown.without_times else []
        _head = headline(shown)
    except of.SpecError as _error:
        shown, _head = None, problem("This setting has no result.", f"{_error}.")
    mo.vstack([*_notices, _head]) if _notices else _head
    return setting, shown


@app.cell(hide_code=True)
def clock(get_asked, owner):
    get_asked()
    _job = QUEUE.latest(owner)
    _is_live = _job is not None and _job.is_live
    tick = mo.ui.refresh(options=["0.5s"], default_interval="0.5s") if _is_live else None
    cancel = mo.ui.run_button(label="Cancel", tooltip="ends the spot check at once", kind="warn")  # made anew for every run
    return cancel, tick


@app.cell(hide_code=True)
def progress(cancel, get_arrived, get_asked, get_refused, owner, set_arrived, set_asked, tick):
    if cancel.value and QUEUE.latest(owner):
        QUEUE.cancel(QUEUE.latest(owner).id)
    _job, _shown = QUEUE.latest(owner), None
    if get_refused():
        _shown = problem("The spot check was not started.", f"{get_refused()}.", kind="warn")
    elif _job is not None and _job.is_live:
        _shown = mo.hstack(
            [mo.Html(job_html(_job, QUEUE.jobs())), cancel, mo.Html(f'<div class="tick">{mo.as_html(tick).text}</div>')],
            justify="start",
            align="center",
        )
    elif _job is not None and _job.failure:
        _advice = [_job.failure.advice, *([f"{len(_job.results)} results that came before are kept."] if _job.results else [])]
        _shown = problem(
            f"The spot check ended early: {_job.failure.message}.", *_advice, kind="warn" if _job.state == "cancelled" else "danger"
        )
    if _job is not None:
        _arrived = 1000 * _job.id + len(_job.results)
        if _arrived != get_arrived():
            set_arrived(_arrived)
        if tick is not None and not _job.is_live:
            set_asked(get_asked() + 1)  # stops the clock
    _shown
    return


@app.cell(hide_code=True)
def tabs(link):
    tab = mo.ui.tabs(dict.fromkeys(TABS, ""), value=link.tab, label="")
    tab
    return (tab,)


@app.cell(hide_code=True)
def view(shown, tab):
    _panels = [mo.as_html(chart).text for chart in views.VIEWS[tab.value](shown)] if shown and tab.value in views.VIEWS else []
    _class = tab.value.lower()
    mo.Html(f'<div class="view {_class}">' + "".join(f"<div>{panel}</div>" for panel in _panels) + "</div>") if _panels else None
    return


@app.cell(hide_code=True)
def address(get_pins, link, setting, tab):
    _params, _now = mo.query_params(), links.write(Link(setting, tab.value, get_pins()))
    if len(_params) or setting != Setting() or get_pins() or tab.value != TABS[0]:
        for _key in [key for key in _params.to_dict() if key not in _now and key not in links.FOREIGN]:
            _params.remove(_key)
        for _key, _value in _now.items():
            if _params.get(_key) != _value:
                _params[_key] = _value
    return


@app.cell(hide_code=True)
def pin_controls():
    new_name = mo.ui.text(placeholder="name of the pin", max_length=links.MAX_NAME)
    pin = mo.ui.button(value=0, on_click=lambda number: number + 1, label="Pin the current setting", kind="success")
    pin_inputs = [new_name, pin]
    return new_name, pin, pin_inputs


@app.cell(hide_code=True)
def pinned(get_pins, new_name, pin, presses, set_pins, setting, shown):
    if pin.value > presses["pin"] and shown and len(get_pins()) < links.MAX_PINS:
        presses["pin"] = pin.value
        _name = new_name.value.strip() or comparison.short_name(setting)
        set_pins((*get_pins(), (links.pin_name(_name, [NOW, *dict(get_pins())]), setting)))
    return


@app.cell(hide_code=True)
def pin_list(get_pins, set_pins):
    def _rename(old, new):
        _taken = [NOW, *dict(get_pins())]
        set_pins(tuple((links.pin_name(new, _taken, old) if name == old else name, kept) for name, kept in get_pins()))

    def _remove(old):
        set_pins(tuple((name, kept) for name, kept in get_pins() if name != old))

    pins = get_pins()  # as the two lists know them: what is shown beside each other is of one moment
    pin_names = mo.ui.array(
        [mo.ui.text(value=_name, max_length=links.MAX_NAME, on_change=lambda new, name=_name: _rename(name, new)) for _name, _ in pins]
    )
    pin_removals = mo.ui.array(
        [
            mo.ui.button(label="remove", value=0, on_click=lambda n: n + 1, on_change=lambda _, name=_name: _remove(name))
            for _name, _ in pins
        ]
    )
    return pin_names, pin_removals, pins


@app.cell(hide_code=True)
def compare(pin_inputs, pin_names, pin_removals, pins, setting, shown, tab):
    _view = None
    if shown and tab.value == "Compare":
        _found, _problems = comparison.compared(model, {NOW: setting, **dict(pins)})
        _rows = [
            mo.hstack(
                [
                    pin_names[_number],
                    mo.Html(
                        f'<span class="pin">{escape(comparison.in_words(_kept, setting))} · '
                        f'<a href="?{escape(urlencode(links.write(Link(_kept, "Compare", pins))))}">show it</a></span>'
                    ),
                    pin_removals[_number],
                ],
                justify="start",
                align="center",
                gap=1,
                wrap=True,
            )
            for _number, (_, _kept) in enumerate(pins)
        ]
        _view = mo.vstack(
            [
                mo.hstack(pin_inputs, justify="start", align="center", gap=1)
                if len(pins) < links.MAX_PINS
                else mo.md(f"{links.MAX_PINS} settings are pinned; remove one to pin another."),
                *([problem("Not everything can be compared.", *_problems, kind="warn")] if _problems else []),
                charts.comparison(_found),
                *([mo.md("**Pinned**, and what differs from the controls now")] if _rows else []),
                *_rows,
                *([plain_table(tables.comparison_table(_found), pagination=False)] if len(_found) > 1 else []),
            ]
        )
    _view
    return


@app.cell(hide_code=True)
def plan_controls(link):
    ttft_ms = mo.ui.number(
        value=link.setting.ttft_ms,
        label=labelled("first token within (ms)", "Target for vision and prefill together; empty for none."),
    )
    tpot_ms = mo.ui.number(
        value=link.setting.tpot_ms,
        label=labelled("a token within (ms)", "Target for the mean time per output token; empty for none."),
    )
    price = mo.ui.number(value=link.setting.price, label=labelled("price of a GPU hour", "In any currency; empty for none."))
    return price, tpot_ms, ttft_ms


@app.cell(hide_code=True)
def plan(price, shown, tab, tpot_ms, ttft_ms):
    _view = None
    if shown and tab.value == "Plan":
        _estimate = shown.estimates[0]
        try:
            _targets = {
                "ttft_seconds": None if ttft_ms.value is None else ttft_ms.value / 1e3,
                "tpot_seconds": None if tpot_ms.value is None or not _estimate.workload.output_tokens else tpot_ms.value / 1e3,
            }
            _all = [of.load_hardware(name) for name in GPUS.values()]
            _answer = [
                mo.md(tables.plan_words(_estimate, planning.required(_estimate, **_targets), shown.device)),
                plain_table(tables.devices_table(planning.devices(_estimate, _all, price_per_hour=price.value, **_targets)), page_size=50),
            ]
        except of.SpecError as _error:
            _answer = [problem("This target has no answer.", f"{_error}.")]
        _view = mo.vstack([mo.hstack([ttft_ms, tpot_ms, price], justify="start", gap=2, wrap=True), *_answer])
    _view
    return


@app.cell(hide_code=True)
def spot_check_controls():
    device = mo.ui.dropdown(DEVICES, value="cuda if present, else meta", label="device")
    scope = mo.ui.radio(list(spot_check.SCOPES), value=spot_check.SCOPES[0], inline=True, label="points")
    go = mo.ui.button(value=0, on_click=lambda number: number + 1, label="Run the vendor model", kind="success")
    return device, go, scope


@app.cell(hide_code=True)
def submit(device, get_asked, go, owner, presses, scope, set_asked, set_refused, setting, shown):
    if go.value > presses["go"] and shown:
        presses["go"] = go.value
        try:
            _points = spot_check.points(setting, scope.value)
            _label = spot_check.in_words(setting.workload) if len(_points) == 1 else f"{len(_points)} points, {setting.mode}"
            _request = verify.request(model, _points, device=device.value, dtype=setting.dtype, prefill_logits=setting.prefill_logits)
            QUEUE.submit(_request, label=_label, owner=owner, on_result=lambda message: STORE.add(model, message))
            set_refused(None)
        except of.SpecError as _error:
            set_refused(str(_error))
        set_asked(get_asked() + 1)
    return


@app.cell(hide_code=True)
def spot_check_panel(device, get_arrived, go, scope, tab):
    get_arrived()
    _shown = None
    if tab.value == "Spot check":
        _measured = STORE.table()
        _results = [mo.md("Nothing has been measured on this server yet.")]
        if len(_measured):
            _unseen = spot_check.missed(_measured)
            _is_equal = not _measured["difference"].abs().sum()
            _results = [
                mo.callout(spot_check.verdict(_measured), kind="success" if _is_equal else "danger"),
                *([problem("Not seen by torch's counter, so not compared.", *_unseen, kind="warn")] if _unseen else []),
                mo.md("Measured on this server, by anyone; the latest first."),
                plain_table(tables.measured_table(_measured), page_size=25),
            ]
        _shown = mo.vstack(
            [
                mo.md(f"""
    Builds the real model in a child process and counts its FLOPs with PyTorch's own counter, for the setting in the sidebar.

    What runs: **transformers, UnlimitedOcr class, random weights, eager, {device.selected_key}**. It is given DeepSeek-OCR's dimensions, with
    which it is the same architecture; no weights are downloaded. At most 3 decode steps are run and compared as such. About 8 s for a point on
    `meta`. One run at a time on a server; others wait their turn, and everything else stays live meanwhile.
    """),
                mo.hstack([device, scope, go], justify="start", align="center", gap=2, wrap=True),
                *_results,
            ]
        )
    _shown
    return


@app.cell(hide_code=True)
def table(shown, tab):
    plain_table(tables.modules_table(shown.modules), pagination=False, max_height=1200) if shown and tab.value == "Table" else None
    return


@app.cell(hide_code=True)
def export_controls():
    export_rows = mo.ui.dropdown(
        ["modules", "stages", "all grids of this mode", "pinned settings", "spot checks on this server"],
        value="modules",
        label=labelled("rows", "Every column there is, with exact integers."),
    )
    export_tab = mo.ui.dropdown(
        [*views.VIEWS, "Compare"], value=TABS[0], label=labelled("charts of", "As they are for the current setting.")
    )
    make_report = mo.ui.run_button(label="Make the HTML report")
    return export_rows, export_tab, make_report


@app.function(hide_code=True)
def row(*items):
    """Things side by side."""
    return mo.hstack(items, justify="start", align="center", gap=1, wrap=True)


@app.cell(hide_code=True)
def export(export_rows, export_tab, make_report, pins, setting, shown, tab):
    _view = None
    if shown and tab.value == "Export":
        _name = "ocr_flops_{}.{}".format
        _found = comparison.compared(model, {NOW: setting, **dict(pins)})[0]
        _frame = {
            "modules": lambda: shown.modules,
            "stages": lambda: pl.concat([one.stages for one in (shown.timings or shown.estimates)]),
            "all grids of this mode": lambda: shown.sweep,
            "pinned settings": lambda: comparison.frame(_found),
            "spot checks on this server": STORE.table,
        }[export_rows.value]()
        _drawn = views.VIEWS[export_tab.value](shown) if export_tab.value in views.VIEWS else [charts.comparison(_found)]

        def _image(chart, kind):  # drawn when it is asked for, by a child process
            return lambda: reports.chart_images({"": chart}, kind)[""]

        _report = make_report
        if make_report.value:
            _page = reports.html(reports.Subject.of(setting, model, shown.device)).encode()
            _report = mo.download(_page, _name("report", "html"), mimetype="text/html", label="Download the HTML report")
        _view = mo.vstack(
            [
                mo.md(
                    "**Link**: the address of this page carries the whole setting, the open tab and the pins. Copy it from the address bar."
                ),
                mo.md("**Report**: one file that works without a network, with controls for grid and attention mode inside its charts."),
                row(_report),
                mo.md("**Table**"),
                row(
                    export_rows,
                    *(
                        mo.download(reports.table_bytes(_frame, kind), _name(export_rows.value.replace(" ", "_"), kind), label=kind.upper())
                        for kind in ("csv", "parquet", "json")
                    ),
                ),
                mo.md("**Charts**, also from the ⋯ beside each chart"),
                export_tab,
                *(
                    row(
                        *(
                            mo.download(_image(chart, kind), _name(f"{export_tab.value.lower()}_{number}", kind), label=kind.upper())
                            for kind in ("svg", "png")
                        ),
                        mo.Html(f"<span>{escape(' '.join(chart.title.text))}</span>"),
                    )
                    for number, chart in enumerate(_drawn, 1)
                ),
            ]
        )
    _view
    return


@app.cell(hide_code=True)
def method_controls():
    chapter = mo.ui.tabs(
        dict.fromkeys(("How these numbers are made", "Compared with the real model", "What torch's counter misses"), ""), label=""
    )
    chapter_inputs = [chapter]
    return chapter, chapter_inputs


@app.cell(hide_code=True)
def method(chapter, chapter_inputs, tab):
    _view = None
    if tab.value == "Method":
        _page = mo.md((notebook_dir() / "method.md").read_text(encoding="utf-8"))
        _shown = {
            "How these numbers are made": [mo.Html(f'<div class="page">{_page.text}</div>')],
            "Compared with the real model": [
                mo.md("The comparison this version was released with: " + tables.verification_words(RECORD)),
                plain_table(tables.verification_table(RECORD), page_size=25),
            ],
        }
        _view = mo.vstack([*chapter_inputs, *_shown.get(chapter.value, [])])
    _view
    return


@app.cell(hide_code=True)
def audit_controls():
    run_audit = mo.ui.button(value=0, on_click=lambda number: number + 1, label="Run it again, here", kind="success")
    audit_inputs = [run_audit]
    return audit_inputs, run_audit


@app.cell(hide_code=True)
def submit_audit(get_asked, owner, presses, run_audit, set_asked, set_refused):
    if run_audit.value > presses["audit"]:
        presses["audit"] = run_audit.value
        try:
            QUEUE.submit(Request({}, [], kind="audit"), label="torch's FLOP counter", owner=owner)
            set_refused(None)
        except of.SpecError as _error:
            set_refused(str(_error))
        set_asked(get_asked() + 1)
    return


@app.cell(hide_code=True)
def audited(audit_inputs, chapter, get_arrived, owner, setting, shown, tab):
    get_arrived()
    _view = None
    if shown and (tab.value, chapter.value) == ("Method", "What torch's counter misses"):
        _message = audit.latest(QUEUE.latest(owner)) or audit.recorded()
        _estimate = audit.modelled(model, setting.workload, dtype=setting.dtype, prefill_logits=setting.prefill_logits)
        _bad = audit.failures(_message)
        _view = mo.vstack(
            [
                mo.md(
                    "What `FlopCounterMode` sees of this model and what it misses, shown by running small operators under it. Whoever measures "
                    "FLOPs with it on a plain CPU or with fused kernels gets too few."
                ),
                mo.Html(f"<p>{'<br>'.join(escape(line) for line in audit.words(_message, _estimate).splitlines())}</p>"),
                row(*audit_inputs),
                *([problem("Not every demonstration ran.", *_bad, kind="warn")] if _bad else []),
                hidden_flops(audit.hidden(_message, _estimate), _estimate, _message["ran"]["torch"]),
                plain_table(tables.audit_table(audit.frame(_message, _estimate)), page_size=30),
            ]
        )
    _view
    return


if __name__ == "__main__":
    app.run()
