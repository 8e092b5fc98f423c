"""The plan of a corpus in sentences, as tables for people, and as data."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import polars as pl

from ocr_flops import units
from ocr_flops.reports.serving import WHAT
from ocr_flops.spec.catalog import load_attention, load_engine, load_mode
from ocr_flops.studies.corpus.batches import BATCHES
from ocr_flops.studies.corpus.flights import is_server
from ocr_flops.studies.corpus.folder import Folder
from ocr_flops.studies.corpus.kinds import PATCHES, TILES
from ocr_flops.studies.corpus.plans import Plan
from ocr_flops.timing.serving.result import CUTTING
from ocr_flops.timing.serving.steady import ENGINE
from ocr_flops.units import ENDS, attention_words, count, count_interval, counted, duration, escape_controls, share, si

MOST_KINDS = 5  # of files that are passed over
CHOICES = {  # of `Plan.alternatives`, as a sentence begins
    "mode": "All pages in another mode, which reads them in more or less detail",
    "engine": "Other engines",
    "attention": "Other attention",
}
LEAST_SAVING = 0.01  # that is worth a word
MOST_GRIDS = 5  # of which a sentence speaks
MOST_THREADS = 64  # that cut pages
MOST_ROWS = 50  # of a table of them


def figure(row: Mapping[str, Any], column: str, unit: str = "") -> str:
    """A figure of a plan's row with its range: 1,960 GPU-hours (472 to 2,780)."""
    low, high = (count(row[f"{column}{case}"]) for case in ENDS[1:])
    return f"{count(row[column])}{f' {unit}' if unit else ''}" + (f" ({low} to {high})" if low != high else "")


def describe_pages(plan: Plan) -> str:
    """What is to be done: pages, tokens, FLOPs."""
    totals, kinds = plan.totals, plan.kinds
    tokens = ", ".join(f"{si(totals[f'{kind}_tokens'])} {kind}" for kind in ("image", "prompt", "output"))
    names = ", ".join(dict.fromkeys(kind.mode.label for kind in kinds))
    flops = si(totals["total_flops"], "FLOPs")
    what = f"{counted(plan.pages, 'page')} in {names}, {describe_engine(plan)}"
    return f"{what}: {tokens} tokens, {flops} (every page by itself). Outputs: {kinds[0].lengths.basis}."


def describe_engine(plan: Plan) -> str:
    """By what pages are read: served by vLLM (modelled)."""
    engine = plan.run.engine
    return f"{'served by' if is_server(engine) else 'in batches under'} {plan.run.model.under(engine)}"


def describe_run(plan: Plan) -> str:
    """What runs."""
    run = plan.run
    return f"{run.model.label} under {run.model.under(run.engine)}, {attention_words(run.attention.name)}, {run.dtype}, cache {run.cache}."


def describe_refused(plan: Plan) -> list[str]:
    """What is left out, and why."""
    return [f"Left out: {one}." for one in plan.corpus.left_out]


def describe_folder(folder: Folder) -> list[str]:
    """What a folder holds, and what of it is left out."""
    passed = sum(folder.passed_over.values())
    said = [f"{counted(folder.files, 'file')} read" + (f", {folder.remembered:,} of them earlier" if folder.remembered else "")]
    if passed:
        kinds = ", ".join(f"{number:,} {kind}" for kind, number in Counter(folder.passed_over).most_common(MOST_KINDS))
        said[0] += f"; {counted(passed, 'other')} passed over ({kinds}{', ...' if len(folder.passed_over) > MOST_KINDS else ''})"
    reasons = ", ".join(f"{number:,} x {why}" for why, number in folder.reasons.items())
    return [f"{said[0]}.", *([f"Left out {len(folder.refused):,}: {reasons}."] if reasons else [])]


def refused_frame(folder: Folder) -> pl.DataFrame:
    """The files and pages of a folder that are left out, with the reason."""
    rows = [(escape_controls(name), why) for name, why in folder.refused]
    return pl.DataFrame(rows, schema={"file": pl.String, "reason": pl.String}, orient="row")


def describe_row(row: Mapping[str, Any], plan: Plan) -> str:
    """What a device takes of time and money."""
    money = f"{figure(row, 'cost', plan.currency)}, " if row["cost"] is not None else ""
    price = f" at {units.hour_price(plan.prices[row['hardware']], plan.currency)}" if money else ""
    energy = f", at most {figure(row, 'energy_kwh', 'kWh')}" if row["energy_kwh"] is not None else ""
    of_them = "one of them takes" if plan.gpus == 1 else f"{plan.gpus} of them take"
    hours = duration(*(row[f"hours{case}"] for case in ENDS))
    limit = f" Limited by {WHAT[row['limited_by']]}." if row["limited_by"] else ""
    return f"{row['label']}{price}: {money}{figure(row, 'gpu_hours', 'GPU-hours')}{energy}; {of_them} {hours}.{limit}"


def describe_best(plan: Plan) -> list[str]:
    """The cheapest and the fastest device, and how far the others are from these."""
    best, fastest = plan.best, plan.fastest
    if best is None:
        reasons = (f"{row['label']}: {row['reason']}" for row in plan.rows)
        return [f"None of these GPUs runs it: {'; '.join(reasons)}."]
    able, priced = (sum(row[column] is not None for row in plan.rows) for column in ("gpu_hours", "cost"))
    if able == 1:
        return [f"Plan: {describe_row(best, plan)}"]
    cheap = f"Cheapest of {priced} GPUs{' with a price' * (priced < able)}" if priced > 1 else "The one GPU with a price"
    fast = f"astest of {able} GPUs"
    if best["cost"] is None:
        return [f"F{fast}: {describe_row(best, plan)}"]
    if best["hardware"] == fastest["hardware"]:
        return [f"{cheap if priced < able else 'Cheapest'} and f{fast}: {describe_row(best, plan)}", *_far(plan, best)]
    return [f"{cheap}: {describe_row(best, plan)}", f"F{fast}: {describe_row(fastest, plan)}", *_far(plan, best)]


def describe_threads(plan: Plan) -> list[str]:
    """Which devices wait for threads that cut pages, where some do, and what all take where these are as many as they need."""
    column, unit, first = ("cost", plan.currency, "cheapest") if plan.prices else ("gpu_hours", "GPU-hours", "fastest")
    given, other = plan.preprocess_workers or 1, plan
    threads = given
    while other.is_cut and threads < MOST_THREADS:
        threads *= 2
        other = plan.with_threads(threads)
    if other is plan:
        return []
    cut = [row["label"] for row in plan.rows if row["limited_by"] == CUTTING]
    which = "all of these GPUs" if 1 < len(cut) == len(plan.devices) else " and ".join(cut)
    found = "; ".join(f"{row['label']} {figure(row, column, unit)}" for row in other.sums if row[column] is not None)
    order = f", {first} first" if len(plan.devices) > 1 else ""
    return [f"The CPU limits {which}, with {counted(given, 'thread')} for each to cut pages. With {threads} threads{order}: {found}."]


def _far(plan: Plan, best: Mapping[str, Any]) -> list[str]:
    """Whether the cheapest device is cheapest for certain."""
    found = []
    for row in plan.rows:
        if row["cost"] is not None and row["hardware"] != best["hardware"]:
            times, certain = row["cost"] / best["cost"], row["cost_low"] > best["cost_high"]
            doubt = "" if certain else "; their ranges overlap"
            found.append(f"{row['label']} costs {times:.3g} times as much{doubt}.")
    return found


def describe_engines(plan: Plan) -> list[str]:
    """What the other way to run pages, served or in batches, takes on every device."""
    if plan.run.model.learned is not None:
        return []  # no other is known to run it
    other = plan.under(_other_engine(plan))
    column, unit = ("cost", plan.currency) if plan.prices else ("gpu_hours", "GPU-hours")
    rows, parts = {row["hardware"]: row for row in other.sums}, []
    for row in (one for one in plan.rows if one[column] is not None):
        found = rows[row["hardware"]]
        takes = f"{figure(found, column, unit)} instead of {count(row[column])}" if found[column] is not None else found["reason"]
        parts.append(f"{row['label']} {takes}")
    engine = describe_engine(other) + (", of pages cut beforehand" if is_server(plan.run.engine) else "")
    return [f"{engine[0].upper()}{engine[1:]}: {'; '.join(parts)}."] if parts else []


def _other_engine(plan: Plan) -> str:
    return "transformers" if is_server(plan.run.engine) else ENGINE


def describe_choices(plan: Plan) -> list[str]:
    """What other resolution modes, engines and attention modes would save on the best device, from 1 % on."""
    if plan.best is None:
        return []
    found = []
    worth = ~pl.col("is_plan") & (pl.col("name") != _other_engine(plan)) & (pl.col("saving").abs() >= LEAST_SAVING)
    for choice, opening in CHOICES.items():
        parts = []
        for row in plan.alternatives.filter(worth, pl.col("choice") == choice).sort("gpu_hours").iter_rows(named=True):
            less, times = row["saving"], 1 - row["saving"]
            words = (
                f"{times:.3g} times as many" if times >= units.FACTOR_FROM else f"{share(abs(less), 1)} {'fewer' if less >= 0 else 'more'}"
            )
            parts.append(f"{_choice_name(plan, choice, row['name'])} {words}")
        if parts:
            found.append(f"{opening}: {', '.join(parts)} GPU-hours of {plan.best['label']}.")
    return found


def _choice_name(plan: Plan, choice: str, name: str) -> str:
    """What a row of `alternatives` is called."""
    if choice == "mode":
        return load_mode(name).label
    if choice == "engine":
        engine = load_engine(name)
        return engine.label + (" in batches of pages cut beforehand" if is_server(plan.run.engine) and not is_server(engine) else "")
    return name if _runs(plan, name) else f"{name} (modelled)"


def _runs(plan: Plan, attention: str) -> bool:
    """Whether the engine really has these kernels."""
    engine = plan.run.engine
    kernels = load_attention(attention).resolved(plan.run.model, engine).kernels
    return all(kernel in engine.runnable_kernels(tower) for tower, kernel in kernels)


def describe_shares(plan: Plan) -> str:
    """Which grids take most of the time on the best device, or of the FLOPs where none runs it."""
    best = plan.best
    rows = plan.parts.filter(pl.col("hardware") == best["hardware"]) if best else plan.groups
    column, what = ("hours_share", "GPU-hours") if best else ("flops_share", "FLOPs")
    if len(rows) == 1:
        return f"All pages have one grid: {name_grid(rows.row(0, named=True))}."
    parts = []
    for row in rows.sort(column, descending=True).head(MOST_GRIDS).iter_rows(named=True):
        parts.append(f"{name_grid(row)} {share(row[column], 1)} ({share(row['pages'], plan.pages)} of the pages)")
    return f"Most {what}: {', '.join(parts)}."


def name_grid(row: Mapping[str, Any]) -> str:
    """A grid in words: 2 × 3 tiles."""
    if row["columns"] * row["rows"] == 1:
        return "no tiles"
    return f"{row['columns']} × {row['rows']} {(PATCHES if row['mode'] == PATCHES.name else TILES).name}"


def describe_deadline(plan: Plan, hours: float) -> list[str]:
    """How many of each device a deadline needs, and how far those given of the best one get."""
    needed = []
    for row in (one for one in plan.rows if one["gpu_hours"] is not None):
        counts = [f"{one:,}" if one else "no number" for one in plan.gpus_within(hours, row["hardware"])]
        spread = f" ({counts[1]} to {counts[2]})" if counts[1] != counts[2] else ""
        needed.append(f"{counts[0]}{spread} x {row['label']}")
    gpus, read = ("one", "reads") if plan.gpus == 1 else (f"{plan.gpus} x", "read")
    within = f"{gpus} {plan.best['label']} {read} {count_interval(plan.pages_within(hours))} pages" if plan.best else ""
    return [f"In {duration(hours)}: all pages take {' or '.join(needed)}; {within}."]


def describe_budget(plan: Plan, budget: float) -> list[str]:
    """How many pages a budget pays for."""
    return [f"{budget:,.10g} {plan.currency} pay for {count_interval(plan.pages_for(budget))} pages on {plan.best['label']}."]


def describe_range(plan: Plan) -> str:
    """What the ranges span."""
    if is_server(plan.run.engine):
        return "Ranges are those of expected times, in the steady state of as many pages in flight as the GPU holds, at most all."
    sizes = "" if plan.batch_size else f", of the power of two up to {BATCHES[-1]} (or all pages at once) that fits and is fastest,"
    return (
        f"Pages of one grid run in batches{sizes} until the longest of them ends; batches are at random. Low ends: batches of pages of one "
        "length, and the low end of expected times; high ends: at random, at the high end of expected times. Energy is the board's full "
        "power."
    )


def plans_table(plan: Plan) -> pl.DataFrame:
    """Devices for people: a row each."""
    rows = []
    for row in plan.rows:
        if row["reason"]:
            rows.append({"GPU": row["label"], "why not": row["reason"]})
            continue
        days = count_interval([units.SECONDS_PER_DAY * row[f"pages_per_second{case}"] for case in ENDS])
        shown = {"GPU": row["label"], "pages a day, one GPU": days, "GPU-hours": figure(row, "gpu_hours")}
        shown[f"with {counted(plan.gpus, 'GPU')}"] = duration(*(row[f"hours{case}"] for case in ENDS))
        if plan.prices:
            shown[f"cost ({plan.currency})" if plan.currency else "cost"] = "–" if row["cost"] is None else figure(row, "cost")
        shown["kWh at most"] = "–" if row["energy_kwh"] is None else figure(row, "energy_kwh")
        together = {"pages in flight": row["concurrency"]} if is_server(plan.run.engine) else {"pages in a batch": row["batch_size"]}
        rows.append(shown | {name: f"{number:,}" for name, number in together.items()} | {"why not": "–"})
    frame = pl.concat([pl.DataFrame([row]) for row in rows], how="diagonal").fill_null("–")
    return frame.drop("why not") if (frame["why not"] == "–").all() else frame


def groups_table(plan: Plan) -> pl.DataFrame:
    """Grids for people: a row each, with the best device's hours; of very many those with most FLOPs."""
    frame = plan.groups
    if frame.height > MOST_ROWS:
        frame = frame.sort("total_flops", descending=True).head(MOST_ROWS)
    if plan.best:
        keys = ["mode", "columns", "rows"]
        hours = plan.parts.filter(pl.col("hardware") == plan.best["hardware"]).select(*keys, "batch_size", "hours_share")
        frame = frame.join(hours, on=keys, how="left")
    rows = []
    for row in frame.iter_rows(named=True):
        shown = {"grid": name_grid(row)} | ({"mode": row["mode"]} if frame["mode"].n_unique() > 1 else {})
        shown |= {"pages": f"{row['pages']:,}", "of pages": share(row["pages_share"], 1), "image tokens": f"{row['image_tokens']:,}"}
        shown |= {"output tokens": f"{row['output_tokens']:,.0f}", "FLOPs": si(row["total_flops"])}
        shown["of FLOPs"] = share(row["flops_share"], 1)
        if plan.best:
            shown |= {} if is_server(plan.run.engine) else {"batch": str(row["batch_size"])}
            shown["of hours"] = share(row["hours_share"], 1)
        rows.append(shown)
    return pl.DataFrame(rows)


def describe_plan(plan: Plan) -> dict[str, Any]:
    """The plan as plain data, for JSON."""
    run = plan.run
    return {
        "model": run.model.name,
        "engine": run.engine.name,
        "attention": run.attention.name,
        "dtype": run.dtype,
        "mode": None if run.model.learned else plan.mode.name,
        "output_lengths": plan.kinds[0].lengths.basis,
        "gpus": plan.gpus,
        "currency": plan.currency,
        "pages": plan.pages,
        "refused": plan.refused,
        "totals": plan.totals,
        "groups": _rows(plan.groups),
        "plans": _rows(plan.plans),
        "parts": _rows(plan.parts),
        "alternatives": _rows(plan.alternatives),
        "ranges": describe_range(plan),
    }


def _rows(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows with whole numbers as such."""
    wide = [name for name, kind in frame.schema.items() if kind.is_decimal()]
    return [row | {name: int(row[name]) for name in wide} for row in frame.iter_rows(named=True)]
