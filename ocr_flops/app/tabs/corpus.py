"""The tab Corpus: what many pages take on GPUs and at prices of one's own; every control is answered from groups of pages alone."""

from dataclasses import replace
from html import escape
from typing import Any

import marimo as mo

from ocr_flops.app.links import Link
from ocr_flops.app.records_overlay import conditions
from ocr_flops.app.setting import HOST_US, OWN_HOST, REACHED, Setting
from ocr_flops.app.tabs.controls import ENGINES, MAX_UPLOAD_BYTES, MODES, OUTPUTS
from ocr_flops.app.tabs.elements import choice, grid, labelled, plain_table, problem
from ocr_flops.app.views import Results
from ocr_flops.charts import Chart
from ocr_flops.charts.corpus import costs_by_gpu, pages_by_grid
from ocr_flops.errors import SpecError
from ocr_flops.reports import corpus as words
from ocr_flops.reports.images import provenance
from ocr_flops.spec.catalog import modes
from ocr_flops.spec.page_rules import PageRule
from ocr_flops.spec.specs import ModelSpec
from ocr_flops.studies.corpus.flights import is_server
from ocr_flops.studies.corpus.groups import Groups, group_pages
from ocr_flops.studies.corpus.lengths import DEFAULT_LIMIT, DEFAULT_TOKENS, fixed
from ocr_flops.studies.corpus.planner import plan
from ocr_flops.studies.corpus.plans import Plan
from ocr_flops.studies.corpus.sources import FORMATS, MIX_EXAMPLE, TABLES, demo_table, mix_table, read_upload
from ocr_flops.timing.serving.steady import ENGINE

DEMO, MIX, TABLE = "a demonstration", "paper formats or sizes", "a table of mine"
OWN_LENGTHS = "output_tokens"
OF_ENGINE = ("attention", "cache", "engine_weights", "engine_cache")  # of a setting: chosen for its engine, and not for another one


def source_controls(meta: dict[str, Any]) -> mo.ui.dictionary:
    """Which pages: a demonstration, a mix of paper formats, or a table.

    Args:
        meta: what the server says of itself, its limit on uploads among it.
    """
    mix = f"FORMAT@DPI:PAGES or WIDTHxHEIGHT:PAGES, with commas between; formats are {', '.join(FORMATS)}."
    table = "A row a page, with width and height in pixels; optionally pages, output_tokens, prompt_tokens, mode."
    most = meta.get("max_upload_bytes", MAX_UPLOAD_BYTES)
    return mo.ui.dictionary(
        {
            "source": mo.ui.radio([DEMO, MIX, TABLE], value=DEMO, inline=True, label="pages"),
            "mix": mo.ui.text(MIX_EXAMPLE, full_width=True, label=labelled("how many of which", mix)),
            "table": mo.ui.file(filetypes=[*TABLES], max_size=most, label=labelled("table", table)),
        }
    )


def question_controls(link: Link) -> mo.ui.dictionary:
    """What may be moved: resolution mode, engine, output length, repeated pages and GPUs; as the command has them by default.

    Args:
        link: whose mode is taken, and whose engine where it names one.
    """
    names = "As ocr-flops list hardware names them; compared by cost where they have prices, else by time."
    mode, engine = link.setting.mode, link.corpus_engine or ENGINE
    output = labelled("output (tokens)", "Of every page, unless the table says.")
    cut = "On the CPU, for each GPU; batches under transformers are of pages cut beforehand."
    loops = "Pages that repeat themselves until 8,192 tokens."
    return mo.ui.dictionary(
        {
            "mode": choice(MODES, mode, "resolution mode", "Of all pages, unless the table says; only DeepSeek-OCR has modes."),
            "engine": choice(ENGINES, engine, "engine", "One that serves keeps as many pages in flight as fit; others run batches."),
            "output_tokens": mo.ui.slider(1, OUTPUTS[1], value=DEFAULT_TOKENS, include_input=True, full_width=True, label=output),
            "loops": mo.ui.slider(0, 20, 1, value=0, show_value=True, full_width=True, label=labelled("endless pages (%)", loops)),
            "gpus": mo.ui.number(1, 100_000, value=8, full_width=True, label=labelled("GPUs", "Side by side.")),
            "names": mo.ui.text("l4, h100_sxm", full_width=True, label=labelled("which GPUs", names)),
            "days": mo.ui.number(0.01, 10_000, value=7, full_width=True, label=labelled("deadline (days)", "How many GPUs it takes.")),
            "preprocess_workers": mo.ui.number(1, 1024, value=1, full_width=True, label=labelled("threads that cut pages", cut)),
        }
    )


def read_groups(chosen: dict[str, Any], rule: PageRule | None = None) -> Groups:
    """The pages that `source_controls` choose, as groups for every resolution mode, or for a model with a page rule of its own.

    Raises:
        SpecError: no table yet, or one that cannot be read.
    """
    if chosen["source"] == DEMO:
        table = demo_table()
    elif chosen["source"] == MIX:
        table = mix_table(chosen["mix"])
    elif chosen["table"]:
        table = read_upload(chosen["table"][0].contents, chosen["table"][0].name)
    else:
        raise SpecError("pages: no table yet; send one with the columns width and height")
    return group_pages(table, modes(), rule)


def make_plan(results: Results, groups: Groups | SpecError, wanted: dict[str, Any]) -> Plan | SpecError:
    """The plan of groups under what the sidebar and `question_controls` say; why there is none, where there is none."""
    if isinstance(groups, SpecError):
        return groups
    try:
        found = _plan(results, groups, wanted)
        found.groups, found.plans  # noqa: B018  computed here, where an error can be told
    except SpecError as error:
        return error
    return found


def _plan(results: Results, groups: Groups, wanted: dict[str, Any]) -> Plan:
    engine = wanted["engine"] if results.model.learned is None else Setting.engine
    left = () if engine == results.setting.engine else OF_ENGINE
    setting = replace(results.setting, engine=engine, **{name: getattr(Setting, name) for name in left})
    prices, currency = results.setting.hour_prices
    gpus = list(dict.fromkeys(wanted["names"].replace(",", " ").lower().split()))
    lengths = None if OWN_LENGTHS in groups.frame.columns else fixed(wanted["output_tokens"])
    is_own = setting.host != OWN_HOST or any(getattr(setting, name) is not None for name in (*HOST_US, *REACHED))
    lanes = conditions(results.model, setting) if is_own else {}
    return plan(
        groups,
        results.model,
        gpus,
        prices={name: prices[name] for name in gpus if name in prices},
        currency=currency,
        gpus=wanted["gpus"],
        mode=wanted["mode"],
        output_tokens=lengths,
        prompt_tokens=setting.prompt_tokens,
        loops=wanted["loops"] / 100,
        limit=DEFAULT_LIMIT,
        attention=setting.main_mode,
        **setting.options,
        preprocess_workers=wanted["preprocess_workers"] if is_server(setting.engine_spec) else None,
        host=lanes.get("host"),
        efficiency=lanes.get("efficiency"),
    )


def drawn(found: Plan | SpecError | None) -> tuple[Chart, ...]:
    """The charts of a plan; none without one."""
    return (costs_by_gpu(found), pages_by_grid(found)) if isinstance(found, Plan) else ()


def provenance_of(found: Plan | SpecError | None) -> str:
    """What a plan's charts say of themselves where they are taken away; "" without one."""
    return provenance(f"{words.describe_pages(found)} {words.describe_run(found)}") if isinstance(found, Plan) else ""


def controls(source: mo.ui.dictionary, fields: dict[str, Any], prices: mo.ui.text, model: ModelSpec) -> mo.Html:
    """The controls, those of the source that is chosen among them.

    Args:
        source: of `source_controls`.
        fields: the elements of `question_controls`, in a plain container, so that they stay when one moves.
        prices: of `target_controls`, which *Plan* and *Models* show, too.
        model: that reads the pages; of one that was learned, mode, engine and what serves have no choice.
    """
    own = () if model.learned else ("mode", "engine", "preprocess_workers")
    chosen = {DEMO: [], MIX: [source.elements["mix"]], TABLE: [source.elements["table"]]}[source.value["source"]]
    return mo.vstack(
        [
            source.elements["source"],
            *chosen,
            grid(*(fields[name] for name in (*own, "output_tokens", "loops", "gpus", "days", "names")), prices),
            mo.md("<small>GPUs and output lengths are those given here, not the sidebar's or *Plan*'s; prices are *Plan*'s.</small>"),
        ]
    )


def answer(found: Plan | SpecError, days: float | None = None) -> mo.Html:
    """A plan in sentences, how many GPUs finish within some days among them, or a notice where there is none."""
    if isinstance(found, SpecError):
        return problem("There is no plan.", f"{found}.")
    said = [words.describe_pages(found), *words.describe_refused(found), *words.describe_threads(found), *words.describe_best(found)]
    said += words.describe_deadline(found, 24 * days) if days and found.best else []
    said += [words.describe_shares(found), *words.describe_engines(found)]
    return mo.Html(f"<ul class='findings'>{''.join(f'<li>{escape(one)}</li>' for one in said)}</ul>")


def numbers(found: Plan | SpecError) -> mo.Html:
    """A plan in tables, and what it rests on."""
    if isinstance(found, SpecError):
        return mo.Html("")
    bases = found.plans["time_basis"].drop_nulls().unique(maintain_order=True).to_list()
    rests = " ".join([words.describe_run(found), words.describe_range(found), *(f"Expected times rest on {basis}." for basis in bases)])
    tables = plain_table(words.plans_table(found)), plain_table(words.groups_table(found), page_size=25)
    return mo.vstack([*tables, mo.Html(f"<small>{escape(rests)}</small>")])
