"""The command `ocr-flops corpus`: from a folder or a table of pages to GPU-hours, days and money."""

from __future__ import annotations

import io
import re
import sys
from calendar import day_name
from collections.abc import Iterable
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ocr_flops.cli import console
from ocr_flops.cli.console import Form, Out, Overrides, Prices
from ocr_flops.errors import SpecError
from ocr_flops.files import user_cache_dir, write_whole

if TYPE_CHECKING:
    from ocr_flops.studies.corpus.folder import Folder
    from ocr_flops.studies.corpus.plans import Plan

GPUS = ("l4", "a100_80gb_sxm", "h100_sxm")  # where none is named
UNITS = {"m": 1 / 60, "h": 1, "d": 24, "w": 7 * 24}

Question = partial(typer.Option, rich_help_panel="Questions")
Lengths = partial(typer.Option, rich_help_panel="Pages")
Files = partial(typer.Option, rich_help_panel="Output")


def plan_corpus(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="A folder of images and PDFs; a table (.parquet, .csv, .arrow, Delta) or a glob of tables, a row a page, with width and "
            "height; or formats and sizes, as in a4@200:900000,1080x1920:100000.",
        ),
    ],
    overrides: Overrides = None,
    price: Prices = None,
    prices: Annotated[Path | None, typer.Option(metavar="FILE", help="YAML of prices by GPU, and currency.")] = None,
    currency: Annotated[str, typer.Option(help="Of the prices.", show_default="USD")] = "",
    gpus: Annotated[int, typer.Option(metavar="N", help="GPUs side by side.")] = 1,
    lengths: Annotated[
        str, Lengths(metavar="LAW", help="Output tokens: 800, lognormal:MEAN:P95, or quantiles:0.5=700,0.95=2000.", show_default="256")
    ] = "",
    loops: Annotated[float, Lengths(metavar="SHARE", help="Pages that repeat themselves up to the limit.")] = 0.0,
    limit: Annotated[int, Lengths(metavar="TOKENS", help="Most output tokens of a page.")] = 8192,
    dpi: Annotated[float, Lengths(help="At which the PDFs of a folder are rendered.")] = 200,
    refused: Annotated[
        Path | None,
        Lengths(
            metavar="FILE", help="Where files of a folder that cannot be read are listed.", show_default="refused.csv in --out or the cache"
        ),
    ] = None,
    preprocess_workers: Annotated[
        int | None, Lengths(metavar="N", help="CPU threads that cut pages, of an engine that serves.", show_default="the engine's own")
    ] = None,
    deadline: Annotated[
        str,
        Question(metavar="TIME", help="90m, 3d or 2w; or until the end of a day, friday or 2026-12-04: how many pages, how many GPUs?"),
    ] = "",
    budget: Annotated[float | None, Question(metavar="MONEY", help="How many pages does it pay for?")] = None,
    report: Annotated[Path | None, Files(metavar="FILE.html", help="A page with charts that works offline.")] = None,
    groups: Annotated[Path | None, Files(metavar="FILE", help="The groups of pages, as .parquet or .csv.")] = None,
    pages: Annotated[Path | None, Files(metavar="FILE.parquet", help="Every page with its grid, tokens, FLOPs and GPU-seconds.")] = None,
    form: Form = "table",
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.", rich_help_panel="Output")] = False,
    out: Out = None,
) -> int:
    """What a folder or a table of pages takes: GPU-hours, days, money; hardware=\\[l4,h100_sxm] compares GPUs."""
    from ocr_flops.reports import corpus as words
    from ocr_flops.spec.catalog import load_hardware
    from ocr_flops.studies.corpus.groups import group_pages
    from ocr_flops.studies.corpus.planner import groupings, plan_run
    from ocr_flops.studies.corpus.sources import open_pages

    run, devices, options = _read(list(overrides or ()), lengths, limit)
    chosen, money = _prices(price or (), prices, devices)
    devices = devices or [load_hardware(name) for name in (chosen if isinstance(chosen, dict) else GPUS)]
    if not isinstance(chosen, dict):
        chosen = dict.fromkeys((device.name for device in devices), chosen) if chosen else {}
    try:
        with console.show_bars() as bars:
            opened = open_pages(path, dpi, bars)
    except KeyboardInterrupt:
        console.complain("corpus", "stopped; the same command goes on from here")
        raise
    if opened.folder and options["lengths"] is None:
        options["lengths"] = opened.folder.lengths
    corpus = group_pages(opened.table, groupings(options["mode"]), run.model.page_rule)
    options |= {"loops": loops, "limit": limit, "preprocess_workers": preprocess_workers}
    plan = plan_run(run, corpus, devices, prices=chosen, currency=currency or money, gpus=gpus, **options)
    said = _answer(plan, deadline, budget)
    if opened.folder:
        said[1:1] = _tell_folder(opened.folder, refused or (out or user_cache_dir()) / "refused.csv")
    bases = plan.plans["time_basis"].drop_nulls().unique(maintain_order=True).to_list()
    values = {"said": said, "plans": words.plans_table(plan), "groups": words.groups_table(plan), "bases": bases}
    values |= {"run": words.describe_run(plan), "ranges": words.describe_range(plan)}
    written = _write(plan, opened.table, said, report, groups, pages)
    data = {"answer": said, **words.describe_plan(plan)}
    console.write_result("corpus", "json" if json else form, out, plan.groups, data, **values)
    for file in written:
        console.complain("corpus", f"wrote {file}")
    return 0


def _answer(plan: Plan, deadline: str, budget: float | None) -> list[str]:
    """The plan in sentences, what was asked first."""
    from ocr_flops.reports import corpus as words

    said = [words.describe_pages(plan), *words.describe_refused(plan), *words.describe_threads(plan), *words.describe_best(plan)]
    if deadline:
        said += words.describe_deadline(plan, _hours(deadline))
    if budget is not None:
        said += words.describe_budget(plan, budget)
    return [*said, words.describe_shares(plan), *words.describe_engines(plan), *words.describe_choices(plan)]


def _write(plan: Plan, table: Any, said: list[str], report: Path | None, groups: Path | None, pages: Path | None) -> list[Path]:
    """The files that were asked for."""
    from ocr_flops.reports.corpus_report import write_report
    from ocr_flops.studies.corpus.costs import write_pages

    written = []
    if groups is not None:
        if groups.suffix not in (".csv", ".parquet"):
            raise SpecError(f"--groups: {groups} ends neither in .csv nor in .parquet")
        content = io.BytesIO()
        (plan.groups.write_csv if groups.suffix == ".csv" else plan.groups.write_parquet)(content)
        written.append(write_whole(groups, content.getvalue(), "--groups"))
    if pages is not None:
        written.append(write_pages(table, plan, pages))
    if report is not None:
        with console.show_progress("drawing charts"):
            written.append(write_report(report, plan, said, ["ocr-flops", *sys.argv[1:]]))
    return written


def _tell_folder(folder: Folder, path: Path) -> list[str]:
    """What was found in a folder; what was left out goes into a file."""
    from ocr_flops.reports import corpus as words

    said = words.describe_folder(folder)
    if folder.refused:
        said.append(f"Listed in {write_whole(path, words.refused_frame(folder).write_csv(), '--refused')}.")
    return said


def _read(overrides: list[str], lengths: str, limit: int) -> tuple[Any, list[Any], dict[str, Any]]:
    """What overrides choose: the run without a device, the devices, if any, and what else a plan needs."""
    from ocr_flops.spec.catalog import load_hardware, load_model
    from ocr_flops.spec.overrides import compose
    from ocr_flops.spec.run_spec import check_mode_keys, read_run, read_workload
    from ocr_flops.spec.specs import Mode
    from ocr_flops.studies.corpus.lengths import fixed, read_lengths
    from ocr_flops.studies.sweeps.ranges import split_overrides
    from ocr_flops.timing.serving.steady import ENGINE

    given = {text.partition("=")[0] for text in overrides}
    console.refuse_keys(given, console.PAGE_KEYS, "a corpus has pages of its own")
    if lengths and "workload.output_tokens" in given:
        raise SpecError("workload.output_tokens: given beside --lengths; leave out one of them")
    model = next((load_model(text.partition("=")[2]) for text in reversed(overrides) if text.startswith("model=")), None)
    if model and model.learned:
        check_mode_keys(model, overrides)
    elif "engine" not in given:  # no engine that serves is known for others
        overrides = [*overrides, f"engine={ENGINE}"]
    plain, several = split_overrides(overrides)
    for key in several:
        if key != "hardware":
            raise SpecError(f"{key}: one value; only hardware may be a list")
    config = compose(plain)
    run = read_run({**config, "hardware": None}).of_whole_pages()
    devices = [read_run(config).hardware] if config["hardware"] else [load_hardware(str(name)) for name in several.get("hardware", ())]
    keys = read_workload(config["workload"])
    law = read_lengths(lengths, limit) if lengths else fixed(keys.output_tokens) if "workload.output_tokens" in given else None
    batch = keys.batch_size if "workload.batch_size" in given else None
    return run, devices, {"mode": Mode(*keys[:5]), "lengths": law, "batch_size": batch}


def _prices(given: Iterable[str], file: Path | None, devices: Iterable[Any]) -> tuple[float | dict[str, float] | None, str]:
    """Prices as of `console.read_prices`, those of the command line after those of a file, and the file's currency."""
    import yaml

    found: dict[str, Any] = {}
    if file is not None:
        try:
            found = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
            raise SpecError(f"--prices: {file} cannot be read: {' '.join(str(problem).split())}") from None
        if not isinstance(found, dict):
            raise SpecError(f"--prices: {file} is no mapping of GPUs to prices, as in l4: 0.8")
    money = str(found.pop("currency", "USD"))
    return console.read_prices([*(f"{name}={price}" for name, price in found.items()), *given], devices), money


def _hours(text: str) -> float:
    """A time such as 90m, 12h, 3d or 2w in hours, or those until the end of a day, "friday" or "2026-12-04", or until a moment."""
    if found := re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([mhdw])", text):
        hours = float(found[1]) * UNITS[found[2]]
    else:
        hours = (_end_of(text) - datetime.now().astimezone()) / timedelta(hours=1)
    if hours <= 0:
        raise SpecError(f"--deadline: {text!r} is not ahead")
    return hours


def _end_of(text: str) -> datetime:
    """The end of a day by its date, or of the next of a name, today among them; or a moment, 2026-12-04T18:00. Local time by default."""
    name, today, names = text.lower(), date.today(), [name.lower() for name in day_name]
    with suppress(ValueError, OverflowError):
        day = today + timedelta((names.index(name) - today.weekday()) % 7) if name in names else date.fromisoformat(text)
        return datetime.combine(day + timedelta(1), time()).astimezone()
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise SpecError(f"--deadline: {text!r} is no time, as in 90m, 12h, 3d or 2w, no weekday and no date, as in 2026-12-04") from None
