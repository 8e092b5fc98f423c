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
    app_title="OCR FLOPs: what if?",
    css_file="what_if.css",
    html_head_file="what_if.html",
)

with app.setup(hide_code=True):
    from uuid import uuid4

    import marimo as mo

    import ocr_flops as of
    from ocr_flops.app import comparison, links, spot_checks, views
    from ocr_flops.app.links import Link
    from ocr_flops.app.records_overlay import OnRecord
    from ocr_flops.app.setting import Setting
    from ocr_flops.app.store import STORE
    from ocr_flops.app.tabs import compare, controls, export, headline, measured, method, plan
    from ocr_flops.app.tabs import spot_check as checks
    from ocr_flops.app.tabs.elements import counting_button, labelled, plain_table, problem, row
    from ocr_flops.evidence.records.cache import LIBRARY
    from ocr_flops.evidence.verify import summary
    from ocr_flops.measure.job_queue import QUEUE
    from ocr_flops.measure.plan import build_request
    from ocr_flops.measure.protocol import Request
    from ocr_flops.reports import tables
    from ocr_flops.spec import documents
    from ocr_flops.units import workload_label

    TABS = (*views.VIEWS, "Compare", "Plan", "Spot check", "Measured", "Table", "Export", "Method")
    model = of.load_model("deepseek_ocr")
    RECORD = summary.recorded()


@app.cell(hide_code=True)
def linked():
    link = links.read(mo.query_params().to_dict(), TABS)  # read once: the controls begin with it
    problem("The link was not used as a whole.", *link.notices, kind="warn") if link.notices else None
    return (link,)


@app.cell(hide_code=True)
def state(link):
    owner = uuid4().hex  # of this session's spot checks
    presses = {"go": 0, "pin": 0, "audit": 0, "time": 0}  # those that have been answered: a cell may run several times for one
    get_asked, set_asked = mo.state(0)  # how often one was asked for, and ended
    get_arrived, set_arrived = mo.state(None)  # which results there are: its own, and the server's, see STORE and LIBRARY
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
    mode, source = controls.mode(link.setting)
    return mode, source


@app.cell(hide_code=True)
def page_controls(link):
    width_px, height_px, upload = controls.page(link.setting)
    page_inputs = {  # in a plain container, so that the sidebar stays as it is when one moves
        "page": [width_px, height_px],
        "file": [upload],
    }
    return height_px, page_inputs, upload, width_px


@app.cell(hide_code=True)
def grid_controls(link):
    columns, rows = controls.grid(link.setting)
    grid_inputs = [columns, rows]
    return columns, grid_inputs, rows


@app.cell(hide_code=True)
def text_controls(link):
    prompt_tokens, output_tokens, batch_size = controls.text(link.setting)
    text_inputs = [prompt_tokens, output_tokens, batch_size]
    return batch_size, output_tokens, prompt_tokens, text_inputs


@app.cell(hide_code=True)
def software_controls(link):
    attention, engine, dtype, cache = controls.software(link.setting)
    software_inputs = [attention, engine, dtype, cache]
    return attention, cache, dtype, engine, software_inputs


@app.cell(hide_code=True)
def gpu_controls(link):
    gpu = controls.gpu(link.setting)
    gpu_inputs = [gpu]
    return gpu, gpu_inputs


@app.cell(hide_code=True)
def gpu_figures(dtype, gpu, link):
    own_figures, published = controls.gpu_figures(link.setting, gpu.value, dtype.value)
    figure_inputs = list(own_figures.elements.values())
    return figure_inputs, own_figures, published


@app.cell(hide_code=True)
def sidebar(
    document_inputs,
    figure_inputs,
    gpu_inputs,
    grid_inputs,
    mode,
    page_inputs,
    software_inputs,
    source,
    text_inputs,
):
    _tiled = of.load_mode(mode.value).tile_px > 0
    _inputs = {"page": page_inputs["page"], "file": [*page_inputs["file"], *document_inputs], "grid": grid_inputs}
    _note = mo.md("<small>This mode encodes the page as one view; its size does not change the cost.</small>")
    mo.sidebar(
        [
            mo.md("## OCR FLOPs"),
            mo.md(f"<small>What {model.label} computes for a page, stage by stage. Rest on a label for its meaning.</small>"),
            mo.md("**Page**"),
            mode,
            *([source, *_inputs[source.value]] if _tiled else [_note]),
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
            set_document(documents.read_document(upload.value[0].contents, upload.value[0].name))
        except of.SpecError as _error:
            _notice = problem("The file was not used.", f"{_error}. The page keeps its previous size.")
    elif source.value == "file":
        set_document(None)  # none chosen, or taken back
    _notice
    return


@app.cell(hide_code=True)
def document_controls(get_document):
    page_number, dpi, _is_pdf = controls.document(get_document())
    document_inputs = [page_number, dpi] if _is_pdf else []
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
    get_arrived,
    get_document,
    gpu,
    height_px,
    mode,
    output_tokens,
    own_figures,
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
    _size, _notices, _page = (width_px.value, height_px.value), [], ""
    if source.value == "file" and get_document():
        try:
            _where = (page_number.value, dpi.value)
            _size, _page = get_document().page_px(*_where), get_document().page_label(*_where)
        except of.SpecError as _error:
            _notices.append(problem("The page's size was not used.", f"{_error}."))
    elif source.value == "file":
        _page = "no file yet: as set under page size"
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
        **{name: value * 1e12 for name, value in own_figures.value.items() if value is not None and value != published[name]},
    )
    on_record = OnRecord(LIBRARY.shelf(), model, setting)
    try:
        shown = views.Shown(model, setting, [*on_record.counted, *STORE.frames()], on_record)
        shown.estimates  # raises here what would be raised where it is shown
        _notices += [problem("No times on this GPU.", f"{shown.without_times}.", kind="warn")] if shown.without_times else []
        _head = headline.headline(shown, RECORD, on_record, _page)
    except of.SpecError as _error:
        shown, _head = None, problem("This setting has no result.", f"{_error}.")
    mo.vstack([*_notices, _head]) if _notices else _head
    return on_record, setting, shown


@app.cell(hide_code=True)
def clock(get_asked, owner, tab):
    get_asked()
    _job = QUEUE.latest(owner)
    _is_live = _job is not None and _job.is_live
    every = "0.5s" if _is_live else "3s" if tab.value in ("Spot check", "Measured") else None  # others may measure, too
    tick = mo.ui.refresh(options=[every], default_interval=every) if every else None
    cancel = mo.ui.run_button(label="Cancel", tooltip="ends the run at once", kind="warn")  # made anew for every run
    return cancel, every, tick


@app.cell(hide_code=True)
def progress(cancel, every, get_arrived, get_asked, get_refused, owner, set_arrived, set_asked, tick):
    if cancel.value and QUEUE.latest(owner):
        QUEUE.cancel(QUEUE.latest(owner).id)
    _job = QUEUE.latest(owner)
    _shown = checks.progress(_job, QUEUE.jobs(), get_refused(), cancel, tick)
    _arrived = (_job and (_job.id, len(_job.results)), STORE.changes, LIBRARY.shelf().number)
    if _arrived != get_arrived() and (_job is not None or tick is not None):
        set_arrived(_arrived)
    if _job is not None and not _job.is_live and every == "0.5s":
        set_asked(get_asked() + 1)  # slows the clock down
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
def address(get_pins, setting, tab):
    _params, _now = mo.query_params(), links.write(Link(setting, tab.value, get_pins()))
    if len(_params) or setting != Setting() or get_pins() or tab.value != TABS[0]:
        for _key in [key for key in _params.to_dict() if key not in _now and key not in links.FOREIGN]:
            _params.remove(_key)
        for _key, _value in _now.items():
            if _params.get(_key) != _value:
                _params[_key] = _value
    return


@app.cell(hide_code=True)
def pin_name(get_pins):
    get_pins()  # empty again once it has been used
    new_name = mo.ui.text(placeholder="name of the pin", max_length=links.MAX_NAME)
    return (new_name,)


@app.cell(hide_code=True)
def pin_controls():
    pin = counting_button("Pin the current setting")
    return (pin,)


@app.cell(hide_code=True)
def pinned(get_pins, new_name, pin, presses, set_pins, setting, shown):
    if pin.value > presses["pin"] and shown and len(get_pins()) < links.MAX_PINS:
        presses["pin"] = pin.value
        _name = new_name.value.strip() or comparison.short_name(setting)
        set_pins((*get_pins(), (links.pin_name(_name, [compare.NOW, *dict(get_pins())]), setting)))
    return


@app.cell(hide_code=True)
def pin_list(get_pins, set_pins):
    def _rename(old, new):
        _taken = [compare.NOW, *dict(get_pins())]
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
def compared(new_name, pin, pin_names, pin_removals, pins, setting, shown, tab):
    _is_open = shown and tab.value == "Compare"
    compare.compare(model, setting, pins, [new_name, pin], pin_names, pin_removals) if _is_open else None
    return


@app.cell(hide_code=True)
def plan_controls(link):
    ttft_ms, tpot_ms, price = controls.targets(link.setting)
    return price, tpot_ms, ttft_ms


@app.cell(hide_code=True)
def planned(price, shown, tab, tpot_ms, ttft_ms):
    _view = None
    if shown and tab.value == "Plan":
        _answer = plan.plan(shown, ttft_ms.value, tpot_ms.value, price.value)
        _view = mo.vstack([row(ttft_ms, tpot_ms, price, gap=2), *_answer])
    _view
    return


@app.cell(hide_code=True)
def spot_check_controls():
    device = mo.ui.dropdown(checks.DEVICES, value=next(iter(checks.DEVICES)), label="device")
    scope = mo.ui.radio(list(spot_checks.SCOPES), value=spot_checks.SCOPES[0], inline=True, label="points")
    go = counting_button("Run the vendor model")
    return device, go, scope


@app.cell(hide_code=True)
def submit(
    device,
    get_asked,
    go,
    owner,
    presses,
    scope,
    set_asked,
    set_refused,
    setting,
    shown,
):
    if go.value > presses["go"] and shown:
        presses["go"] = go.value
        try:
            _points = spot_checks.points(setting, scope.value)
            _label = workload_label(setting.workload) if len(_points) == 1 else f"{len(_points)} points, {setting.mode}"
            _request = build_request(model, _points, device=device.value, dtype=setting.dtype, prefill_logits=setting.prefill_logits)
            QUEUE.submit(_request, label=_label, owner=owner, on_result=lambda message: STORE.add(model, message))
            set_refused(None)
        except of.SpecError as _error:
            set_refused(str(_error))
        set_asked(get_asked() + 1)
    return


@app.cell(hide_code=True)
def spot_check_panel(device, get_arrived, go, output_tokens, scope, tab):
    get_arrived()
    checks.panel(device, scope, go, output_tokens.value) if tab.value == "Spot check" else None
    return


@app.cell(hide_code=True)
def timing_controls():
    timed_on = mo.ui.dropdown(measured.DEVICES, value=next(iter(measured.DEVICES)), label="device")
    time_it = counting_button("Time the real model here")
    return time_it, timed_on


@app.cell(hide_code=True)
def submit_timing(get_asked, owner, presses, set_asked, set_refused, setting, shown, time_it, timed_on):
    if time_it.value > presses["time"] and shown:
        presses["time"] = time_it.value
        try:
            measured.start(model, setting, timed_on.value, owner)
            set_refused(None)
        except of.SpecError as _error:
            set_refused(str(_error))
        set_asked(get_asked() + 1)
    return


@app.cell(hide_code=True)
def measured_panel(on_record, shown, tab, time_it, timed_on):
    measured.panel(shown, on_record, [timed_on, time_it]) if shown and tab.value == "Measured" else None
    return


@app.cell(hide_code=True)
def table(shown, tab):
    plain_table(tables.modules_table(shown.modules), pagination=False, max_height=1200) if shown and tab.value == "Table" else None
    return


@app.cell(hide_code=True)
def export_controls():
    export_rows = mo.ui.dropdown(list(export.ROWS), value="modules", label=labelled("rows", "Every column there is, with exact integers."))
    export_tab = mo.ui.dropdown(list(export.CHARTS), value=TABS[0], label=labelled("charts of", "As they are for the current setting."))
    make_report = mo.ui.run_button(label="Make the HTML report")
    return export_rows, export_tab, make_report


@app.cell(hide_code=True)
def exported(export_rows, export_tab, make_report, pins, shown, tab):
    export.export(shown, pins, export_rows, export_tab, make_report) if shown and tab.value == "Export" else None
    return


@app.cell(hide_code=True)
def method_controls():
    chapter = mo.ui.tabs(dict.fromkeys(method.CHAPTERS, ""), label="")
    chapter_inputs = [chapter]
    return chapter, chapter_inputs


@app.cell(hide_code=True)
def methods(chapter, chapter_inputs, tab):
    mo.vstack([*chapter_inputs, *method.chapter_of(chapter.value, RECORD)]) if tab.value == "Method" else None
    return


@app.cell(hide_code=True)
def audit_controls():
    run_audit = counting_button("Run it again, here")
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
def audited(audit_inputs, chapter, get_arrived, owner, shown, tab):
    get_arrived()
    _is_open = shown and (tab.value, chapter.value) == ("Method", method.MISSED)
    method.counted(shown, QUEUE.latest(owner), audit_inputs) if _is_open else None
    return


if __name__ == "__main__":
    app.run()
