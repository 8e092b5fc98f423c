"""What a sweep says, in sentences, and how far to trust them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ocr_flops.charts.sweep import wording
from ocr_flops.charts.sweep.summary import Shown
from ocr_flops.evidence.verify import summary
from ocr_flops.reports import tables
from ocr_flops.reports.conventions import EVIDENCE, NOT_FITTED, ROOFLINE
from ocr_flops.units import seconds, share, si

if TYPE_CHECKING:
    from ocr_flops.reports.sweep_report import SweepReport

PHASES = {"ttft": ("The first token comes after", "TTFT"), "tpot": ("An output token takes", "TPOT")}


def findings(report: SweepReport) -> list[str]:
    """Sentences with **bold** beginnings: time, targets, work, what attention saves, memory, the real model, the part shown."""
    shown = report.shown
    found = [*_times(shown), *_targets(report), _work(shown), *_saved(shown), *_memory(shown), *beside(report), *_part(report)]
    return [sentence for sentence in found if sentence]


def _times(shown: Shown) -> list[str]:
    found = []
    for phase, (begin, _) in PHASES.items():
        measure = f"{phase}.roofline_seconds"
        if shown.has(measure):
            fast, slow = shown.least(measure), shown.most(measure)
            if seconds(fast[measure]) == seconds(slow[measure]):
                found.append(f"**{begin} {seconds(fast[measure])}**, by roofline.")
            else:
                found.append(
                    f"**{begin} {seconds(fast[measure])} to {seconds(slow[measure])}**, by roofline: "
                    f"the least for {wording.named(shown, fast, measure)}, the most for {wording.named(shown, slow, measure)}."
                )
    return found


def _targets(report: SweepReport) -> list[str]:
    """How many points are within the targets."""
    shown, parts = report.shown, []
    for phase, target in report.results.targets.items():
        measure = f"{phase}.roofline_seconds"
        if shown.has(measure):
            known = shown.points[measure].drop_nulls()
            within = int((known <= target).sum())
            if shown.every > 1:
                words = f"about {share(within, len(known))} of the points are"
            elif len(known) == 1:
                words = "it is" if within else "it is not"
            else:
                words = f"{within:,} of {len(known):,} points are" if within < len(known) else f"all {len(known):,} points are"
            parts.append(f"{words} within a {PHASES[phase][1]} of {seconds(target)}")
    return [f"**Targets**, by roofline: {'; '.join(parts)}."] if parts else []


def _work(shown: Shown) -> str:
    row = shown.most("total_flops")
    words = wording.span(shown, "total_flops", lambda value: si(value, "FLOPs"))
    top = max(shown.stages, key=lambda stage: row[f"{stage}.total_flops"])
    pages = "A point" if shown.most("batch_size")["batch_size"] > 1 else "A page"
    if not row["total_flops"]:
        return "**No FLOPs**: none of the stages shown does anything here."
    whole = "the most" if " to " in words else "it"
    parts = f"; {top} does {share(row[f'{top}.total_flops'], row['total_flops'])} of {whole}" if len(shown.stages) > 1 else ""
    return f"**{pages} takes {words}** and moves {wording.span(shown, 'io_bytes', wording.bytes_)}{parts}."


def _saved(shown: Shown) -> list[str]:
    """What the leanest attention mode moves and holds less than eager."""
    both = wording.pair(shown)
    if both is None:
        return []
    (eager, lean), mode = both, both[1]["attention"]
    moved, held = (eager["io_bytes"], lean["io_bytes"]), (eager["peak_activation_bytes"], lean["peak_activation_bytes"])
    if moved[0] == moved[1]:
        return []
    timed, times = "", [row.get("ttft.roofline_seconds") for row in both]
    if None not in times and seconds(times[0]) != seconds(times[1]):
        on = f" on {eager['device']}" if len(wording.balances(shown)) > 1 else ""
        timed = f", and the first token comes after {seconds(times[1])} instead of {seconds(times[0])}{on}"
    less, place = moved[0] - moved[1], wording.at(shown, eager, "io_bytes", "attention")
    return [
        f"**{mode} moves {si(less, 'B')} ({share(less, moved[0])}) less than eager**{place}; "
        f"live activations peak at {si(held[1], 'B')} instead of {si(held[0], 'B')}{timed}. Matrix FLOPs are the same."
    ]


def _memory(shown: Shown) -> list[str]:
    row, needed = shown.most("needed_bytes"), wording.span(shown, "needed_bytes", wording.bytes_)
    parts = wording.parts(row)
    found = f"**It needs {needed} of device memory**, {'of the most' if ' to ' in needed else 'of it'} {parts}."
    if row["device"] is None:
        return [found]
    if not shown.too_large:
        return [f"{found} {'All points fit' if shown.count > 1 else 'It fits'}."]
    return [f"{found} **{shown.too_large:,} of {shown.count:,} points do not fit their device.**"]


def beside(report: SweepReport) -> list[str]:
    """What the real model said, where it ran."""
    if "measured" not in report.results.tables:
        return []
    measured = report.results.tables["measured"].frame()
    wrong = int((measured["difference"] != 0).sum())
    verdict = "all equal, as integers" if not wrong else f"{wrong:,} differ"
    points = measured["point"].n_unique()
    return [
        f"**The real model ran beside {points:,} of {report.sweep.points:,} points**: "
        f"{measured.height:,} numbers in the table `measured`, {verdict}."
    ]


def _part(report: SweepReport) -> list[str]:
    """What part of the sweep this is about, and what of it goes beyond the vendor's code."""
    shown, left_out = report.shown, len(report.sweep.skipped)
    found, told = [], ". ".join([*shown.part, *shown.pooled])
    if shown.count < shown.total:
        found.append(f"**All of this is about {shown.count:,} of {shown.total:,} points**; the data files have the others. {told}.")
    elif told:
        found.append(f"**All {shown.total:,} points are shown**. {told}.")
    if left_out:
        found.append(
            f"**{left_out:,} {'is' if left_out == 1 else 'are'} left out** of what was asked, with the reasons under What was asked."
        )
    if shown.vendor_points < shown.count:
        found.append(
            f"**{shown.vendor_points:,} of {shown.count:,} points** are on grids that the vendor's code cuts; "
            "the others go beyond it by the same arithmetic."
        )
    return found


def trust(report: SweepReport) -> list[str]:
    """How far to trust the numbers."""
    sweep, kinds = report.sweep, {"runnable": 0, "modelled": 0}
    for case in sweep.cases:
        config = case.estimate(case.keys.workload()).config
        for stage in sweep.stages:
            kinds[config.evidence(stage)] += sweep.points_per_case
    told = " and ".join(f"{number:,} are {kind}" for kind, number in kinds.items() if number)
    return [
        NOT_FITTED,
        f"Compared before this version was released: {tables.verification_words(summary.recorded())}",
        f"**Of the {sweep.rows:,} rows, {told}.** A row is one stage of one point. {EVIDENCE}.",
        *([ROOFLINE] if any(case.run.hardware for case in sweep.cases) else []),
    ]
