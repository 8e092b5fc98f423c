"""What a sweep says, in sentences with **bold** beginnings, and how its numbers can be checked."""

from __future__ import annotations

from collections.abc import Mapping

from ocr_flops.charts.sweep import wording
from ocr_flops.charts.sweep.summary import SweepSummary
from ocr_flops.charts.sweep.titles import find_top_stage
from ocr_flops.studies.sweeps.plan import Sweep
from ocr_flops.studies.sweeps.results import MEASURED, Results
from ocr_flops.units import seconds, share

PHASES = {"ttft": ("The first token comes after", "TTFT"), "tpot": ("An output token takes", "TPOT")}


def list_findings(results: Results, summary: SweepSummary) -> list[str]:
    """Sentences on time, targets, work, what attention saves, memory, the real model, and what part of the sweep is shown.

    Args:
        results: of the sweep.
        summary: of its points.
    """
    return [
        *_find_times(summary),
        *_find_targets(summary, results.targets),
        _find_work(summary),
        *_find_savings(summary),
        _find_memory(summary),
        *_find_measured(results),
        *_find_scope(results, summary),
    ]


def _find_times(summary: SweepSummary) -> list[str]:
    found = []
    for phase, (begin, _) in PHASES.items():
        measure = f"{phase}.roofline_seconds"
        if not summary.has(measure):
            continue
        rows = summary.least(measure), summary.most(measure)
        fast, slow = (seconds(row[measure]) for row in rows)
        least, most = (wording.name_views_and_point(summary, row, measure) for row in rows)
        if fast == slow:
            found.append(f"**{begin} {fast}**, by roofline.")
        else:
            found.append(f"**{begin} {fast} to {slow}**, by roofline: the least for {least}, the most for {most}.")
    return found


def _find_targets(summary: SweepSummary, targets: Mapping[str, float]) -> list[str]:
    """How many points meet the targets."""
    parts = []
    for phase, target in targets.items():
        measure = f"{phase}.roofline_seconds"
        if not summary.has(measure):
            continue
        times = summary.points[measure].drop_nulls()
        met, count = int((times <= target).sum()), len(times)
        if summary.every > 1:
            words = f"about {share(met, count)} of the points are"
        elif count == 1:
            words = "it is" if met else "it is not"
        else:
            words = f"all {count:,} points are" if met == count else f"{met:,} of {count:,} points are"
        parts.append(f"{words} within a {PHASES[phase][1]} of {seconds(target)}")
    return [f"**Targets**, by roofline: {'; '.join(parts)}."] if parts else []


def _find_work(summary: SweepSummary) -> str:
    stage, part, row = find_top_stage(summary, "total_flops")
    if not row["total_flops"]:
        return "**No FLOPs**: none of the stages shown does anything here."
    flops = wording.format_range(summary, "total_flops", wording.format_flops)
    moved = wording.format_range(summary, "io_bytes", wording.format_bytes)
    what = "A point" if summary.most("batch_size")["batch_size"] > 1 else "A page"
    parts = f"; {stage} does {part} of {'the most' if ' to ' in flops else 'it'}" if len(summary.stages) > 1 else ""
    return f"**{what} takes {flops}** and moves {moved}{parts}."


def _find_savings(summary: SweepSummary) -> list[str]:
    """What the leanest attention moves and holds less than eager."""
    both = wording.pair_kernels(summary)
    if both is None or both[0]["io_bytes"] == both[1]["io_bytes"]:
        return []
    eager, lean = both
    less, place = eager["io_bytes"] - lean["io_bytes"], wording.at_point(summary, eager, "io_bytes", "attention")
    peaks = [wording.format_bytes(row["peak_activation_bytes"]) for row in both]
    sentence = (
        f"**{lean['attention']} moves {wording.format_bytes(less)} ({share(less, eager['io_bytes'])}) less than eager**{place}; "
        f"its peak activation memory is {peaks[1]} instead of {peaks[0]}"
    )
    times = [row.get("ttft.roofline_seconds") for row in both]
    if None not in times and seconds(times[0]) != seconds(times[1]):
        on = f" on {eager['device']}" if len(wording.find_ridge_points(summary)) > 1 else ""
        sentence += f", and the first token comes after {seconds(times[1])} instead of {seconds(times[0])}{on}"
    return [f"{sentence}. Matrix FLOPs are the same."]


def _find_memory(summary: SweepSummary) -> str:
    row, needed = summary.most("needed_bytes"), wording.format_range(summary, "needed_bytes", wording.format_bytes)
    sentence = f"**It needs {needed} of device memory**, {'of the most' if ' to ' in needed else 'of it'} {wording.name_memory(row)}."
    if row["device"] is None:
        return sentence
    if summary.too_large:
        return f"{sentence} **{summary.too_large:,} of {summary.count:,} points do not fit their device.**"
    return f"{sentence} {'All points fit' if summary.count > 1 else 'It fits'}."


def _find_measured(results: Results) -> list[str]:
    """What the real model said, where it ran."""
    if MEASURED not in results.tables:
        return []
    measured = results.tables[MEASURED].frame()
    wrong = int((measured["difference"] != 0).sum())
    verdict = f"{wrong:,} differ" if wrong else "all equal, as integers"
    return [
        f"**The real model ran beside {measured['point'].n_unique():,} of {results.sweep.points:,} points**: "
        f"{measured.height:,} numbers in the table `measured`, {verdict}."
    ]


def _find_scope(results: Results, summary: SweepSummary) -> list[str]:
    """What part of the sweep this is about, and what of it goes beyond the published code."""
    found, words = [], ". ".join([*wording.list_omissions(summary), *wording.explain_lines(summary)])
    if summary.count < summary.total:
        found.append(f"**All of this is about {summary.count:,} of {summary.total:,} points**; the data files have the others. {words}.")
    elif words:
        found.append(f"**All {summary.total:,} points are shown**. {words}.")
    if left_out := len(results.sweep.skipped):
        found.append(f"**{left_out:,} {'is' if left_out == 1 else 'are'} left out** of what was given, with the reasons under Settings.")
    if summary.published < summary.count:
        found.append(
            f"**{summary.published:,} of {summary.count:,} points** are on grids that the published code cuts; "
            "the others go beyond it by the same arithmetic."
        )
    return found


def describe_evidence(sweep: Sweep) -> str:
    """How many rows of a sweep can be counted and traced on the real model, and how many are modelled."""
    kinds = {"runnable": 0, "modelled": 0}
    for case in sweep.cases:
        config = case.estimate(case.keys.workload()).config
        for stage in sweep.stages:
            kinds[config.evidence(stage)] += sweep.points_per_case
    words = " and ".join(f"{number:,} are {kind}" for kind, number in kinds.items() if number)
    return f"**Of the {sweep.rows:,} rows, {words}.** A row is one stage of one point."
