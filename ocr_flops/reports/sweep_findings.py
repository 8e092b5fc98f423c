"""What a sweep says, in sentences with **bold** beginnings, and how its numbers can be checked."""

from __future__ import annotations

from collections.abc import Mapping

from ocr_flops.charts.sweep.wording import Wording, format_bytes, format_flops, name_memory
from ocr_flops.studies.sweeps.plan import Sweep
from ocr_flops.studies.sweeps.results import MEASURED, Results
from ocr_flops.units import seconds, share

PHASES = {"ttft": ("The first token comes after", "TTFT"), "tpot": ("An output token takes", "TPOT")}


def list_findings(results: Results, words: Wording) -> list[str]:
    """Sentences on time, targets, work, what attention saves, memory, the real model, and what part of the sweep is shown.

    Args:
        results: of the sweep.
        words: of its summary.
    """
    return [
        *_find_times(words),
        *_find_targets(words, results.targets),
        _find_work(words),
        *_find_savings(words),
        _find_memory(words),
        *_find_measured(results),
        *_find_scope(results, words),
    ]


def _find_times(words: Wording) -> list[str]:
    found = []
    for phase, (begin, _) in PHASES.items():
        measure = f"{phase}.roofline_seconds"
        if words.summary.has(measure):
            rows = words.summary.least(measure), words.summary.most(measure)
            least, most = (words.name_views_and_point(row, measure) for row in rows)
            ends = f": the least for {least}, the most for {most}" if len({seconds(row[measure]) for row in rows}) > 1 else ""
            found.append(f"**{begin} {words.format_range(measure, seconds)}**, by roofline{ends}.")
    return found


def _find_targets(words: Wording, targets: Mapping[str, float]) -> list[str]:
    """How many points meet the targets."""
    parts = []
    for phase, target in targets.items():
        measure = f"{phase}.roofline_seconds"
        if not words.summary.has(measure):
            continue
        times = words.summary.points[measure].drop_nulls()
        met, count = int((times <= target).sum()), len(times)
        if words.summary.every > 1:
            who = f"about {share(met, count)} of the points are"
        elif count == 1:
            who = "it is" if met else "it is not"
        else:
            who = f"all {count:,} points are" if met == count else f"{met:,} of {count:,} points are"
        parts.append(f"{who} within a {PHASES[phase][1]} of {seconds(target)}")
    return [f"**Targets**, by roofline: {'; '.join(parts)}."] if parts else []


def _find_work(words: Wording) -> str:
    stage, part, row = words.find_top_stage("total_flops")
    if not row["total_flops"]:
        return "**No FLOPs**: none of the stages shown does anything here."
    flops, moved = words.format_range("total_flops", format_flops), words.format_range("io_bytes", format_bytes)
    what = "A point" if words.summary.most("batch_size")["batch_size"] > 1 else "A page"
    parts = f"; {stage} does {part} of {'the most' if ' to ' in flops else 'it'}" if len(words.summary.stages) > 1 else ""
    return f"**{what} takes {flops}** and moves {moved}{parts}."


def _find_savings(words: Wording) -> list[str]:
    """What the leanest attention moves and holds less than eager."""
    if words.kernels is None or words.kernels[0]["io_bytes"] == words.kernels[1]["io_bytes"]:
        return []
    eager, lean = words.kernels
    less, place = eager["io_bytes"] - lean["io_bytes"], words.at_point(eager, "io_bytes", "attention")
    peaks = [format_bytes(row["peak_activation_bytes"]) for row in words.kernels]
    sentence = (
        f"**{lean['attention']} moves {format_bytes(less)} ({share(less, eager['io_bytes'])}) less than eager**{place}; "
        f"its peak activation memory is {peaks[1]} instead of {peaks[0]}"
    )
    times = [seconds(row["ttft.roofline_seconds"]) for row in words.kernels if row.get("ttft.roofline_seconds") is not None]
    if len(set(times)) == 2:
        on = f" on {eager['device']}" if len(words.ridge_points) > 1 else ""
        sentence += f", and the first token comes after {times[1]} instead of {times[0]}{on}"
    return [f"{sentence}. Matrix FLOPs are the same."]


def _find_memory(words: Wording) -> str:
    row, needed = words.summary.most("needed_bytes"), words.format_range("needed_bytes", format_bytes)
    sentence = f"**It needs {needed} of device memory**, {'of the most' if ' to ' in needed else 'of it'} {name_memory(row)}."
    if row["device"] is None:
        return sentence
    if words.summary.too_large:
        return f"{sentence} **{words.summary.too_large:,} of {words.summary.count:,} points do not fit their device.**"
    return f"{sentence} {'All points fit' if words.summary.count > 1 else 'It fits'}."


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


def _find_scope(results: Results, words: Wording) -> list[str]:
    """What part of the sweep this is about, and what of it goes beyond the published code."""
    summary, found, notes = words.summary, [], ". ".join([*words.omissions, *words.ranges])
    if summary.count < summary.total:
        found.append(f"**All of this is about {summary.count:,} of {summary.total:,} points**; the data files have the others. {notes}.")
    elif notes:
        found.append(f"**All {summary.total:,} points are shown**. {notes}.")
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
