"""What each chart of a sweep finds, in words: the title, then lines below it. Every number is of the points shown."""

from __future__ import annotations

from collections.abc import Callable

from ocr_flops.charts.sweep.summary import Shown
from ocr_flops.charts.sweep.wording import at, balances, bytes_, of, pair, parts, span
from ocr_flops.units import seconds, share, si

Said = tuple[str, ...]
MOST_DEVICES = 3  # that are compared with


def flops(shown: Shown) -> Said:
    """The stage with most FLOPs at the dearest point, and from where to where the sum goes."""
    row = shown.most("total_flops")
    words = span(shown, "total_flops", lambda value: si(value, "FLOPs"))
    if len(shown.stages) == 1:
        return (f"{shown.stages[0].capitalize()} takes {words}",)
    top = max(shown.stages, key=lambda stage: row[f"{stage}.total_flops"])
    part = share(row[f"{top}.total_flops"], row["total_flops"])
    return f"{top.capitalize()} does {part} of the {si(row['total_flops'], 'FLOPs')}{at(shown, row, 'total_flops')}", *_together(words)


def _together(words: str) -> list[str]:
    """All stages, where they go from one number to another."""
    return [f"All stages together: {words}"] if " to " in words else []


def split(shown: Shown) -> Said:
    """How much of the work runs on matrix units at the dearest point."""
    row = shown.most("total_flops")
    if not row["total_flops"]:
        return ("No FLOPs",)
    part, place = 100 * row["tensor_flops"] / row["total_flops"], at(shown, row, "total_flops")
    return (f"Matrix units do {part:.3g} % of the FLOPs{place}, vector units the rest",)


def split_range(shown: Shown) -> Said:
    """From where to where both kinds of work go."""
    tensor, vector = (span(shown, name, lambda value: si(value, "FLOPs")) for name in ("tensor_flops", "vector_flops"))
    return (f"Matrix units: {tensor}; vector units: {vector}",)


def traffic(shown: Shown) -> Said:
    """What the leanest mode moves less than eager; without such a pair, the stage that moves most."""
    both = pair(shown)
    row = shown.most("io_bytes")
    words = _together(span(shown, "io_bytes", bytes_))
    if both and both[0]["io_bytes"] > both[1]["io_bytes"]:
        less = both[0]["io_bytes"] - both[1]["io_bytes"]
        place = at(shown, both[0], "io_bytes", "attention")
        finding = f"{both[1]['attention']} moves {share(less, both[0]['io_bytes'])} less than eager{place}: "
        return f"{finding}{bytes_(both[1]['io_bytes'])} instead of {bytes_(both[0]['io_bytes'])}", *words
    if len(shown.stages) == 1:
        return (f"{shown.stages[0].capitalize()} moves {span(shown, 'io_bytes', bytes_)}",)
    top = max(shown.stages, key=lambda stage: row[f"{stage}.io_bytes"])
    part, place = share(row[f"{top}.io_bytes"], row["io_bytes"]), at(shown, row, "io_bytes")
    return f"{top.capitalize()} moves {part} of the {bytes_(row['io_bytes'])}{place}", *words


def intensity(shown: Shown) -> Said:
    """The range of every stage."""
    ranges = []
    for stage in shown.stages:
        measure = f"{stage}.arithmetic_intensity"
        if shown.has(measure):
            ranges.append(f"{stage} {span(shown, measure, lambda value: f'{value:.3g}')}")
    found = balances(shown)
    told = [f"{device} {value:.3g}" for (_, device), value in found.items()]
    below = [f"In balance (matrix peak over bandwidth): {', '.join(told)}; below it memory bounds, above it matrix units"] if told else []
    return f"FLOPs per byte moved: {', '.join(ranges)}", *below


def memory(shown: Shown) -> Said:
    """The most that is needed."""
    row = shown.most("needed_bytes")
    words = span(shown, "needed_bytes", bytes_)
    return (
        f"It needs {words} of device memory",
        f"{'The most' + at(shown, row, 'needed_bytes') if ' to ' in words else 'Of it'}: {parts(row)}",
    )


def weights(shown: Shown) -> Said:
    """Weights of every stage."""
    ranges = [f"{stage} {span(shown, f'{stage}.weight_bytes', bytes_)}" for stage in shown.stages]
    return f"Weights used: {', '.join(ranges)}", f"All of the model's weights together: {span(shown, 'weights', bytes_)}"


def activations(shown: Shown) -> Said:
    """What the leanest mode holds less than eager; without such a pair, the largest peak."""
    both, measure = pair(shown), "peak_activation_bytes"
    row = shown.most(measure)
    stage = max(shown.stages, key=lambda name: row[f"{name}.{measure}"])
    largest = f"The largest: {bytes_(row[measure])} in {stage}{at(shown, row, 'peak_activation_bytes')}"
    if both and both[0][measure] > both[1][measure]:
        place = at(shown, both[0], "peak_activation_bytes", "attention")
        mode = both[1]["attention"]
        return f"{mode} holds at most {bytes_(both[1][measure])} at once instead of eager's {bytes_(both[0][measure])}{place}", largest
    return (
        f"At most {bytes_(row[measure])} of activations live at once, in {stage}{at(shown, row, 'peak_activation_bytes')}",
        f"Least: {bytes_(shown.least(measure)[measure])}",
    )


def kv_cache(shown: Shown) -> Said:
    """Its range, and what a token of a page takes."""
    row, words = shown.most("kv_cache_bytes"), span(shown, "kv_cache_bytes", bytes_)
    if not row["kv_cache_bytes"]:
        return ("No stage shown has a KV cache",)
    tokens = row["context_tokens"] + (row["output_tokens"] if "decode" in shown.stages else 0)
    each, rest = divmod(row["kv_cache_bytes"], tokens * row["batch_size"]) if tokens else (0, 1)
    pages = f"{row['batch_size']:,} pages" if row["batch_size"] > 1 else "a page"
    told = f"{each:,} B for each of the {tokens:,} tokens of {pages}"
    finding = f"The KV cache takes {words}"
    return (finding, f"The most{at(shown, row, 'kv_cache_bytes')}: {told}" if " to " in words else told) if not rest else (finding,)


def ttft(shown: Shown) -> Said:
    """Roofline times to the first token."""
    return _times(shown, "ttft.roofline_seconds", "The first token comes after")


def tpot(shown: Shown) -> Said:
    """Roofline times of an output token."""
    return _times(shown, "tpot.roofline_seconds", "An output token takes")


def _times(shown: Shown, measure: str, begin: str) -> Said:
    both = pair(shown)
    model = "By roofline: a model, not a measurement"
    words = span(shown, measure, seconds)
    if both and both[0].get(measure) is not None and seconds(both[0][measure]) != seconds(both[1][measure]):
        place = at(shown, both[0], measure, "attention")
        return (
            f"{begin} {seconds(both[1][measure])} with {both[1]['attention']}, {seconds(both[0][measure])} with eager{place}",
            f"All points: {words}. {model}",
        )
    return f"{begin} {words}", model


def required(phase: str, column: str, target: float) -> Callable[[Shown], Said]:
    """The title of a chart of required rates."""
    unit, work, peak = (
        ("FLOP/s", "matrix work", "matrix_flops_per_second")
        if column == "tensor_flops"
        else ("B/s", "memory traffic", "bandwidth_bytes_per_second")
    )
    peaks = "dense peak" if unit == "FLOP/s" else "bandwidth"
    what = "A first token" if phase == "ttft" else "An output token"

    def say(shown: Shown) -> Said:
        measure = f"{phase}.{column}"
        finding = f"{what} within {seconds(target)} takes {span(shown, measure, lambda value: si(value, unit), 1 / target)} of {work}"
        told, row = "Sustained, and beside the other rate: neither alone is enough", shown.most(measure)
        if not shown.has(peak):
            return finding, told
        devices = shown.points.select("device", peak).unique(maintain_order=True).drop_nulls().rows()[:MOST_DEVICES]
        told_of = [of(row[measure] / target, value, f"the {peaks} of {device}") for device, value in devices]
        return finding, told, f"The most{at(shown, row, measure, 'hardware')} is {', '.join(told_of)}"

    return say
