"""What each chart of a sweep finds, in words: the title, then the lines below it. Every number is of the points shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ocr_flops.charts.sweep.points import Row
from ocr_flops.charts.sweep.summary import SweepSummary
from ocr_flops.charts.sweep.wording import (
    Format,
    at_point,
    find_ridge_points,
    format_bytes,
    format_flops,
    format_part,
    format_range,
    name_memory,
    pair_kernels,
)
from ocr_flops.units import seconds, share, si

MAX_DEVICES = 3  # that are compared with
Words = tuple[str, ...]  # a finding, then the lines below it


def title_flops(summary: SweepSummary) -> Words:
    """The stage with most FLOPs at the most expensive point, and the range of all stages together."""
    if len(summary.stages) == 1:
        return (f"{summary.stages[0].capitalize()} takes {format_range(summary, 'total_flops', format_flops)}",)
    stage, part, row = find_top_stage(summary, "total_flops")
    finding = f"{stage.capitalize()} does {part} of the {format_flops(row['total_flops'])}{at_point(summary, row, 'total_flops')}"
    return finding, *_all_stages(summary, "total_flops", format_flops)


def find_top_stage(summary: SweepSummary, cost: str) -> tuple[str, str, Row]:
    """The stage with most of a cost at the point with most of it, its part in percent, and the point."""
    row = summary.most(cost)
    stage = max(summary.stages, key=lambda stage: row[f"{stage}.{cost}"])
    return stage, share(row[f"{stage}.{cost}"], row[cost]), row


def _all_stages(summary: SweepSummary, cost: str, form: Format) -> Sequence[str]:
    words = format_range(summary, cost, form)
    return [f"All stages together: {words}"] if " to " in words else []


def title_split(summary: SweepSummary) -> Words:
    """How much of the work runs on matrix units at the most expensive point."""
    row = summary.most("total_flops")
    if not row["total_flops"]:
        return ("No FLOPs",)
    part = 100 * row["tensor_flops"] / row["total_flops"]
    return (f"Matrix units do {part:.3g} % of the FLOPs{at_point(summary, row, 'total_flops')}, vector units the rest",)


def title_split_range(summary: SweepSummary) -> Words:
    """The range of both kinds of work."""
    tensor, vector = (format_range(summary, name, format_flops) for name in ("tensor_flops", "vector_flops"))
    return (f"Matrix units: {tensor}; vector units: {vector}",)


def title_traffic(summary: SweepSummary) -> Words:
    """What the leanest attention moves less than eager; without such a pair, the stage that moves most."""
    both, below = pair_kernels(summary), _all_stages(summary, "io_bytes", format_bytes)
    if both and both[0]["io_bytes"] > both[1]["io_bytes"]:
        (eager, lean), place = (row["io_bytes"] for row in both), at_point(summary, both[0], "io_bytes", "attention")
        finding = f"{both[1]['attention']} moves {share(eager - lean, eager)} less than eager{place}"
        return f"{finding}: {format_bytes(lean)} instead of {format_bytes(eager)}", *below
    if len(summary.stages) == 1:
        return (f"{summary.stages[0].capitalize()} moves {format_range(summary, 'io_bytes', format_bytes)}",)
    stage, part, row = find_top_stage(summary, "io_bytes")
    return f"{stage.capitalize()} moves {part} of the {format_bytes(row['io_bytes'])}{at_point(summary, row, 'io_bytes')}", *below


def title_intensity(summary: SweepSummary) -> Words:
    """The range of every stage, and the ridge points of devices."""
    measures = {stage: f"{stage}.arithmetic_intensity" for stage in summary.stages}
    ranges = [f"{stage} {format_range(summary, name, '{:.3g}'.format)}" for stage, name in measures.items() if summary.has(name)]
    ridges = [f"{device} {value:.3g}" for (_, device), value in find_ridge_points(summary).items()]
    below = [f"In balance (matrix peak over bandwidth): {', '.join(ridges)}; below it memory bounds, above it matrix units"]
    return f"FLOPs per byte moved: {', '.join(ranges)}", *(below if ridges else [])


def title_memory(summary: SweepSummary) -> Words:
    """The most that is needed."""
    row, words = summary.most("needed_bytes"), format_range(summary, "needed_bytes", format_bytes)
    begin = f"The most{at_point(summary, row, 'needed_bytes')}" if " to " in words else "Of it"
    return f"It needs {words} of device memory", f"{begin}: {name_memory(row)}"


def title_weights(summary: SweepSummary) -> Words:
    """The weights of every stage."""
    ranges = [f"{stage} {format_range(summary, f'{stage}.weight_bytes', format_bytes)}" for stage in summary.stages]
    return f"Weights used: {', '.join(ranges)}", f"All of the model's weights together: {format_range(summary, 'weights', format_bytes)}"


def title_activations(summary: SweepSummary) -> Words:
    """What the leanest attention holds less than eager; without such a pair, the largest peak."""
    both, measure = pair_kernels(summary), "peak_activation_bytes"
    row = summary.most(measure)
    stage = max(summary.stages, key=lambda name: row[f"{name}.{measure}"])
    where = f"in {stage}{at_point(summary, row, measure)}"
    if both and both[0][measure] > both[1][measure]:
        (eager, lean), place = (format_bytes(row[measure]) for row in both), at_point(summary, both[0], measure, "attention")
        finding = f"{both[1]['attention']} holds at most {lean} at once instead of eager's {eager}{place}"
        return finding, f"The largest: {format_bytes(row[measure])} {where}"
    least = format_bytes(summary.least(measure)[measure])
    return f"At most {format_bytes(row[measure])} of activations live at once, {where}", f"Least: {least}"


def title_kv_cache(summary: SweepSummary) -> Words:
    """Its range, and what a token of a page takes."""
    row, words = summary.most("kv_cache_bytes"), format_range(summary, "kv_cache_bytes", format_bytes)
    if not row["kv_cache_bytes"]:
        return ("No stage shown has a KV cache",)
    tokens = row["context_tokens"] + (row["output_tokens"] if "decode" in summary.stages else 0)
    each, rest = divmod(row["kv_cache_bytes"], tokens * row["batch_size"])
    pages = f"{row['batch_size']:,} pages" if row["batch_size"] > 1 else "a page"
    begin = f"The most{at_point(summary, row, 'kv_cache_bytes')}: " if " to " in words else ""
    return f"The KV cache takes {words}", *([] if rest else [f"{begin}{each:,} B for each of the {tokens:,} tokens of {pages}"])


def title_ttft(summary: SweepSummary) -> Words:
    """Roofline times to the first token."""
    return _title_times(summary, "ttft.roofline_seconds", "The first token comes after")


def title_tpot(summary: SweepSummary) -> Words:
    """Roofline times of an output token."""
    return _title_times(summary, "tpot.roofline_seconds", "An output token takes")


def _title_times(summary: SweepSummary, measure: str, begin: str) -> Words:
    both, words, model = pair_kernels(summary), format_range(summary, measure, seconds), "By roofline: a model, not a measurement"
    times = [seconds(row[measure]) for row in both] if both and both[0].get(measure) is not None else []
    if len(set(times)) == 2:
        place = at_point(summary, both[0], measure, "attention")
        return f"{begin} {times[1]} with {both[1]['attention']}, {times[0]} with eager{place}", f"All points: {words}. {model}"
    return f"{begin} {words}", model


def title_required(phase: str, cost: str, target: float) -> Callable[[SweepSummary], Words]:
    """The title of a chart of the rates that a target requires.

    Args:
        phase: "ttft" or "tpot".
        cost: "tensor_flops" or "io_bytes".
        target: in seconds.
    """
    unit, work, peak, peaks = ("FLOP/s", "matrix work", "matrix_flops_per_second", "dense peak")
    if cost == "io_bytes":
        unit, work, peak, peaks = ("B/s", "DRAM traffic", "bandwidth_bytes_per_second", "bandwidth")
    what, measure = "A first token" if phase == "ttft" else "An output token", f"{phase}.{cost}"

    def write_title(summary: SweepSummary) -> Words:
        rates = format_range(summary, measure, lambda value: si(value, unit), 1 / target)
        words = [
            f"{what} within {seconds(target)} takes {rates} of {work}",
            "Sustained, and beside the other rate: neither alone is enough",
        ]
        if summary.has(peak):
            row = summary.most(measure)
            devices = summary.points.select("device", peak).unique(maintain_order=True).drop_nulls().rows()[:MAX_DEVICES]
            parts = [format_part(row[measure] / target, value, f"the {peaks} of {device}") for device, value in devices]
            words.append(f"The most{at_point(summary, row, measure, 'hardware')} is {', '.join(parts)}")
        return tuple(words)

    return write_title
