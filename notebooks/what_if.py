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
    import marimo as mo

    import ocr_flops as of
    from ocr_flops.app import links, session, views
    from ocr_flops.app import served as served_on
    from ocr_flops.app.chart_widget import ChartWidget
    from ocr_flops.app.links import Link
    from ocr_flops.app.setting import Setting
    from ocr_flops.app.tabs import (
        DRAWN,
        FIRST,
        GROUPS,
        OVERLAID,
        RUNNING,
        TABS,
        compare,
        controls,
        corpus,
        export,
        group_of,
        headline,
        jobs,
        measured,
        method,
        models,
        plan,
        serving,
        spot_check,
    )
    from ocr_flops.app.tabs.elements import button, doors, plain_table, problem
    from ocr_flops.measure.job_queue import QUEUE
    from ocr_flops.reports import tables


@app.cell(hide_code=True)
def linked():
    link = links.read(mo.query_params().to_dict(), TABS)  # read once: the controls begin with it
    problem("The link was not used as a whole.", *link.notices, kind="warn") if link.notices else None
    return (link,)


@app.cell(hide_code=True)
def state(link):
    page = session.Session()
    charts, corpus_charts, serving_charts = ChartWidget(), ChartWidget(), ChartWidget()
    get_drawn, set_drawn = mo.state(False)  # whether the browser has drawn its first charts
    charts.observe(lambda _: set_drawn(True), "is_drawn")
    get_asked, set_asked = mo.state(0)  # how often a run was asked for, and ended
    get_arrived, set_arrived = mo.state(page.arrived)  # what there is to show of runs
    get_pins, set_pins = mo.state(link.pins, allow_self_loops=True)  # the cell of the remove buttons sets what it reads
    return charts, corpus_charts, get_arrived, get_asked, get_drawn, get_pins, page, serving_charts, set_arrived, set_asked, set_pins


@app.cell(hide_code=True)
def step_state():
    # Set by a step once its charts are on their way; each cell that a step runs before sends the page eight messages.
    get_results, set_results = mo.state(None)  # for tabs that say more than charts
    get_planned, set_planned = mo.state(None)  # the same for one tab each, whose cells others need not wait for
    get_corpus, set_corpus = mo.state(None)
    get_serving, set_serving = mo.state(None)
    get_beside, set_beside = mo.state("")  # what stands above the charts
    own_sets = dict.fromkeys(DRAWN, ()) | {"Plan": (set_planned, set_results), "Corpus": (set_corpus,), "Serving": (set_serving,)}  # by tab
    return get_beside, get_corpus, get_planned, get_results, get_serving, own_sets, set_beside, set_results


@app.cell(hide_code=True)
def setting_controls(link):
    model = controls.model_control(link.setting)
    mode, source = controls.encoding_controls(link.setting)
    workload = controls.workload_controls(link.setting)
    engine, device = controls.engine_controls(link.setting), controls.device_controls(link.setting)
    _request = mo.app_meta().request
    served = _request.meta if _request else {}
    upload = controls.upload_control(served)
    workload_inputs, upload_inputs = dict(workload.elements), [upload]  # in plain containers, so that the sidebar stays when one moves
    return device, engine, mode, model, served, source, upload, upload_inputs, workload, workload_inputs


@app.cell(hide_code=True)
def size_state(link):
    get_size, set_size = mo.state((link.setting.width_px, link.setting.height_px), allow_self_loops=True)
    return get_size, set_size


@app.cell(hide_code=True)
def size_controls(get_size, set_size):
    common, size = controls.size_controls(get_size(), set_size)
    size_inputs = [common, *size.elements.values()]
    return size, size_inputs


@app.cell(hide_code=True)
def figure_controls(device, link):
    figures, published = controls.figure_controls(link.setting, **device.value)
    figure_inputs = list(figures.elements.values())
    return figure_inputs, figures, published


@app.cell(hide_code=True)
def host_figure_controls(engine, link):
    host_figures, own_host = controls.host_figure_controls(link.setting, **engine.value)
    host_inputs = list(host_figures.elements.values())
    return host_figures, host_inputs, own_host


@app.cell(hide_code=True)
def document(page, source, upload):
    _problem = page.read_document(upload.value) if source.value == "file" else None
    pdf, pdf_inputs = controls.pdf_controls(page.document)
    problem("The file was not used.", f"{_problem}. The page keeps its previous size.") if _problem else None
    return pdf, pdf_inputs


@app.cell(hide_code=True)
def evaluated(
    charts,
    device,
    engine,
    figures,
    get_arrived,
    get_beside,
    get_pins,
    host_figures,
    mode,
    model,
    model_inputs,
    others,
    own_host,
    own_sets,
    page,
    pdf,
    published,
    set_beside,
    set_results,
    size,
    source,
    tab,
    targets,
    workload,
):
    get_arrived()  # runs again when a run brings a result
    _notices, _size, _origin = [], {}, ""
    if source.value == "file":
        try:
            _size, _origin = page.document_page(**pdf.value)
        except of.SpecError as _error:
            _notices.append(problem("The page's size was not used.", f"{_error}."))
    _edited = controls.edited_figures({**figures.value, **host_figures.value}, {**published, **own_host})
    setting = Setting(
        model=model.value,
        mode=mode.value,
        source="grid" if source.value == "grid" else "page",
        **{**workload.value, **size.value, **_size, **engine.value, **device.value, **targets.value, **_edited},
    )
    try:
        results = views.evaluate(setting.model_spec, setting, others.value)
        _notices += [problem("Another engine.", _instead, kind="warn")] if (_instead := setting.instead) else []
        _notices += [problem("There are no times.", f"{results.without_times}.", kind="warn")] if results.without_times else []
        _head = headline.headline(results, _origin)
    except of.SpecError as _error:
        results, _head = None, problem("This setting has no result.", f"{_error}.")
    page.results = results
    _drawn = {
        **{_name: (_view, lambda results: results.provenance) for _name, _view in views.VIEWS.items()},
        "Compare": (
            lambda results: compare.compared_charts(results, get_pins()),
            lambda results: compare.provenance_of(results, get_pins()),
        ),
        "Models": (
            lambda results: models.models_chart(results, model_inputs.value),
            lambda results: models.provenance_of(results, model_inputs.value),
        ),
    }
    _shows, _name = results and tab in _drawn and not views.why_not(results, tab), tab.lower().replace(" ", "_")
    if _shows and _name != charts.view:
        mo.output.replace(_head)  # a tab's first charts can take seconds
    try:
        _found = _drawn[tab][0](results) if _shows else ()
    except of.SpecError as _error:
        _found, _shows = (), False
        _notices.append(problem("This tab has no chart.", f"{_error}."))
    charts.show(_found, _name, _drawn[tab][1](results) if _found else "")
    _not_here = tab in OVERLAID and results and not all(row[OVERLAID[tab]] for row in results.beside)
    _is_empty = results and results.device and not _found and (tab != "Models" or model_inputs["models"].value)
    _beside = "none" if _shows and _is_empty else "others" if _not_here else ""
    if _beside != get_beside():
        set_beside(_beside)
    for _set in own_sets.get(tab, (set_results,)):
        _set(results)
    mo.vstack([*_notices, _head]) if _notices else _head
    return results, setting


@app.cell(hide_code=True)
def clock(get_asked, page, tab):
    get_asked()
    _is_live = page.job is not None and page.job.is_live
    every = "0.5s" if _is_live else "3s" if tab in RUNNING else None  # others may measure, too
    tick = mo.ui.refresh(options=[every], default_interval=every) if every else None
    return every, tick


@app.cell(hide_code=True)
def progress(cancel, every, get_arrived, get_asked, page, set_arrived, set_asked, tab, tick):
    get_asked()
    if page.arrived != get_arrived() and (page.job is not None or tick is not None):
        set_arrived(page.arrived)
    if page.job is not None and not page.job.is_live and every == "0.5s":
        set_asked(get_asked() + 1)  # slows the clock down
    jobs.progress(page, QUEUE.jobs(), cancel, tick, with_ended=tab in RUNNING)
    return


@app.cell(hide_code=True)
def tabs(link):
    _open = link.tab or FIRST
    group = mo.ui.tabs(dict.fromkeys(GROUPS, ""), value=group_of(_open), label="")
    group_tabs = mo.ui.dictionary(
        {_name: mo.ui.tabs(dict.fromkeys(_tabs, ""), value=_open if _open in _tabs else None, label="") for _name, _tabs in GROUPS.items()}
    )
    group_inputs = dict(group_tabs.elements)  # in a plain container, so that the tabs stay when one is chosen
    return group, group_inputs, group_tabs


@app.cell(hide_code=True)
def tab_list(group, group_inputs):
    mo.Html(f'<div class="tabs"><div class="questions">{group.text}</div><div>{group_inputs[group.value].text}</div></div>')
    return


@app.cell(hide_code=True)
def opened_tab(group, group_tabs):
    tab = group_tabs.value[group.value]
    return (tab,)


@app.cell(hide_code=True)
def planned(evaluated_inputs, get_planned, tab):
    _results = get_planned()
    above, plan_table = plan.plan(_results, evaluated_inputs[1]) if _results and tab == "Plan" else (None, None)
    above
    return (plan_table,)


@app.cell(hide_code=True)
def beside(get_beside, others):
    _none = mo.md("No chart: nothing that it would show fits this device.")
    {"none": _none, "others": others}.get(get_beside())
    return


@app.cell(hide_code=True)
def view(charts):
    charts
    return


@app.cell(hide_code=True)
def tab_controls(link):
    targets = controls.target_controls(link.setting)
    spot_inputs, timing_inputs, export_inputs = controls.spot_check_controls(), controls.timing_controls(), export.export_controls()
    make_report = mo.ui.run_button(label="Make the HTML report")
    chapter = mo.ui.tabs(dict.fromkeys(method.CHAPTERS, ""), label="")
    model_inputs, others = models.models_controls(), controls.others_control()
    evaluated_inputs = model_inputs, targets  # in a plain container, so that what shows them runs once, with their results
    return chapter, evaluated_inputs, export_inputs, make_report, model_inputs, others, spot_inputs, targets, timing_inputs


@app.cell(hide_code=True)
def corpus_controls(link, served):
    corpus_source, corpus_asked = corpus.source_controls(served), corpus.question_controls(link)
    corpus_inputs = dict(corpus_asked.elements)  # in a plain container, so that they stay when one moves
    return corpus_asked, corpus_inputs, corpus_source


@app.cell(hide_code=True)
def corpus_opened(corpus_inputs, corpus_source, evaluated_inputs, model, tab):
    _prices = evaluated_inputs[1].elements["prices"]
    corpus.controls(corpus_source, corpus_inputs, _prices, of.load_model(model.value)) if tab == "Corpus" else None
    return


@app.cell(hide_code=True)
def corpus_grouped(corpus_source, model, tab):
    try:
        groups = corpus.read_groups(corpus_source.value, of.load_model(model.value).page_rule) if tab == "Corpus" else None
    except of.SpecError as _error:
        groups = _error
    return (groups,)


@app.cell(hide_code=True)
def corpus_answered(corpus_asked, corpus_charts, get_corpus, groups):
    _results = get_corpus()
    _plan = corpus.make_plan(_results, groups, corpus_asked.value) if _results and groups is not None else None
    corpus_charts.show(corpus.drawn(_plan), "corpus", corpus.provenance_of(_plan))
    mo.vstack([corpus.answer(_plan, corpus_asked.value["days"]), corpus_charts, corpus.numbers(_plan)]) if _plan is not None else None
    return


@app.cell(hide_code=True)
def serving_controls(link):
    serving_load, serving_asked = serving.load_control(link.load), serving.serving_controls(link.load)
    serving_inputs = dict(serving_asked.elements)  # in a plain container, so that they stay when one moves
    promise, find_rate = serving.promise_controls(link.load), mo.ui.run_button(label="Find the most pages")
    return find_rate, promise, serving_asked, serving_inputs, serving_load


@app.cell(hide_code=True)
def serving_opened(serving_inputs, serving_load, tab):
    serving.controls(serving_inputs, serving_load) if tab == "Serving" else None
    return


@app.cell(hide_code=True)
def serving_answered(get_serving, serving_asked, serving_charts, serving_load, tab):
    _results, _asked = get_serving(), serving_asked.value | {"load": serving_load.value}
    served_load = served_on.serve(_results, _asked) if _results and tab == "Serving" else None
    serving_charts.show(served_on.drawn(served_load), "serving", served_on.provenance_of(served_load))
    serving.answer(served_load) if served_load is not None else None
    return (served_load,)


@app.cell(hide_code=True)
def serving_promised(find_rate, promise, served_load):
    _found = [serving.promised(served_load, promise.value)] if served_load is not None and find_rate.value else []
    mo.vstack([mo.hstack([promise, find_rate], justify="start", gap=2, wrap=True), *_found]) if served_load is not None else None
    return


@app.cell(hide_code=True)
def serving_drawn(served_load, serving_charts):
    _parts = (lambda _: serving_charts, serving.command, serving.numbers)
    mo.vstack([_part(served_load) for _part in _parts]) if served_load is not None else None
    return


@app.cell(hide_code=True)
def address(corpus_asked, get_pins, promise, serving_asked, serving_load, setting, tab):
    # After what answers, as all below: charts do not wait for it.
    _load = served_on.Load(**serving_asked.value, load=serving_load.value, first_token_seconds=promise.value)
    _params, _now = mo.query_params(), links.write(Link(setting, tab, get_pins(), (), _load, corpus_asked.value["engine"]))
    if len(_params) or setting != Setting() or get_pins() or tab != FIRST:
        for _key in [key for key in _params.to_dict() if key not in _now and key not in links.FOREIGN]:
            _params.remove(_key)
        for _key, _value in _now.items():
            if _params.get(_key) != _value:
                _params[_key] = _value
    return


@app.cell(hide_code=True)
def run_buttons(page, set_asked, spot_inputs, timing_inputs):
    count = jobs.run_button("Run the real model", page, session.check_model, spot_inputs, set_asked)
    time = jobs.run_button("Time the real model here", page, session.time_model, timing_inputs, set_asked)
    audit = jobs.run_button("Run it again, here", page, session.audit_counter, None, set_asked)
    cancel = button("Cancel", page.cancel, kind="warn")
    return audit, cancel, count, time


@app.cell(hide_code=True)
def pins(get_pins, page, set_pins):
    pin_inputs = compare.PinControls(get_pins(), set_pins, page)
    return (pin_inputs,)


@app.cell(hide_code=True)
def opened(
    audit,
    chapter,
    count,
    evaluated_inputs,
    export_inputs,
    get_arrived,
    get_results,
    make_report,
    page,
    pin_inputs,
    plan_table,
    spot_inputs,
    tab,
    time,
    timing_inputs,
):
    get_arrived()
    _results = get_results()
    _tabs = {
        "Compare": lambda: compare.compare(_results, pin_inputs),
        "Models": lambda: models.compared_models(_results, *evaluated_inputs),
        "Plan": lambda: plan_table,
        "Spot check": lambda: spot_check.spot_check(_results, spot_inputs, count),
        "Measured": lambda: measured.measured(_results, timing_inputs, time),
        "Table": lambda: plain_table(tables.modules_table(_results.modules), pagination=False, max_height=1200),
        "Export": lambda: export.export(_results, links.read(mo.query_params().to_dict(), TABS), export_inputs, make_report),
        "Method": lambda: method.method(_results, chapter, page.job, audit),
    }
    _why = views.why_not(_results, tab) if _results else None
    mo.md(_why) if _why else _tabs[tab]() if _results and tab in _tabs else None
    return


@app.cell(hide_code=True)
def sidebar(
    device,
    engine,
    figure_inputs,
    get_drawn,
    host_inputs,
    mode,
    model,
    pdf_inputs,
    served,
    size_inputs,
    source,
    upload_inputs,
    workload_inputs,
):
    # Last, so that the first charts need not wait until the browser has made its controls.
    mo.stop(not get_drawn())
    _grid = [workload_inputs["columns"], workload_inputs["rows"]]
    _sources = {"page": size_inputs, "file": [*upload_inputs, *pdf_inputs], "grid": _grid}
    _is_own = of.load_model(model.value).learned is None  # whose resolution modes these are
    _serves = of.load_engine(engine.value["engine"]).block_tokens is not None
    _view = mo.md("<small>This mode encodes the page as one view; its size does not change the cost.</small>")
    mo.sidebar(
        [
            mo.md("## OCR FLOPs"),
            mo.md("<small>What a model computes for a page, stage by stage. Rest on a label for its meaning.</small>"),
            doors(served),
            mo.md("**Hardware**"),
            device.elements["gpu"],
            mo.accordion({"edit its figures": mo.vstack([*figure_inputs, mo.md("**Host**"), *host_inputs])}),
            mo.md("**Model**"),
            model,
            mo.md("**Page**"),
            *([mode] if _is_own else []),
            *([source, *_sources[source.value]] if not _is_own or of.load_mode(mode.value).tile_px else [_view]),
            mo.md("**Text and batch**"),
            *(workload_inputs[_name] for _name in ("prompt_tokens", "output_tokens", "batch_size")),
            mo.md("**Software**"),
            workload_inputs["attention"],
            *engine.elements.values(),
            device.elements["dtype"],
            *(workload_inputs[_name] for _name in (("engine_weights", "engine_cache") if _serves else ("cache",))),
        ],
        width="310px",
    )
    return


if __name__ == "__main__":
    app.run()
