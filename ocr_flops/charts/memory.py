"""What a run holds in memory against what a device has."""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from types import MappingProxyType

import altair as alt
import polars as pl

from ocr_flops.charts.bars import StageBars, briefly, row_axis, stacked
from ocr_flops.charts.chart import Chart, Row, Template, Title, compiled, data, title
from ocr_flops.charts.encoding import OWN_COLOUR, WORDS, from_zero, painted, tips, x_of, y_of
from ocr_flops.charts.overlay import MEASURED, mark_layers, measured_layer, origins
from ocr_flops.charts.theme import LIMIT, MEMORY_COLOURS, STAGE_COLOURS, conditions, module_name
from ocr_flops.spec.specs import CALL, HardwareSpec
from ocr_flops.timing.estimate import Estimate
from ocr_flops.units import attention_words, page_words, share, si, workload_words

BESIDE = 0.3  # of the axis: words this close to the line stand after it
ONE_CALL = "the call of vision and prefill"
BEYOND = "without the allocator's slack and the driver's own memory"
TRAFFIC = {  # what a step moves: its column and its colour
    "weights read": ("weight_io_bytes", MEMORY_COLOURS["weights"]),
    "activations": ("activation_io_bytes", MEMORY_COLOURS["peak activations"]),
    "KV cache": ("kv_io_bytes", MEMORY_COLOURS["KV cache"]),
}
HELD = STAGE_COLOURS["vision"]
NAME_GAP = 0.05  # of the chart's height: the least distance of two names
APPENDED = {
    "dynamic": "a dynamic cache is read for attention, and read and written again to append each token",
    "paged": "a cache in blocks is read for attention; each token is written in place",
    "static": "a static cache is read for attention; each token is written in place",
}


def memory(
    estimates: Mapping[str, Estimate] | Sequence[Estimate],
    hardware: HardwareSpec | None = None,
    *,
    narrow: bool = False,
    allocated: Mapping[str, tuple[int, str]] = MappingProxyType({}),
) -> Chart:
    """Weights, KV cache and peak activations stacked, a bar per estimate, against the device's memory.

    Args:
        estimates: of one point each, under their labels, or in a list of different attention modes, which then are the labels.
        hardware: the device; without one no line is drawn.
        narrow: for a place about 400 px wide: what the title says is not written beside the bars again.
        allocated: bytes that were measured, and where that comes from, by label.
    """
    labelled = dict(estimates) if isinstance(estimates, Mapping) else {one.config.attention.name: one for one in estimates}
    limit = hardware.memory_bytes if hardware else 0
    found = {label: one for label, one in allocated.items() if label in labelled}
    measured = [{"row": label, "end": size, "size": si(size, "B"), "origin": where} for label, (size, where) in found.items()]
    most = max([estimate.footprint.total_bytes for estimate in labelled.values()] + [limit])
    bars, ends = [], []
    for label, estimate in labelled.items():
        needs, whole = estimate.footprint, estimate.footprint.total_bytes
        stage, peak = max(estimate.together.peaks.items(), key=lambda item: item[1].live_bytes)
        where = f"{module_name(peak.module)} in {ONE_CALL if stage == CALL else stage}, at {peak.operator.strip('_')}"
        notes = ("every parameter", "at the last output token", f"largest in {where}")
        parts = dict(zip(MEMORY_COLOURS, needs[:3], strict=True))
        for (kind, size, at), note in zip(stacked(parts), notes, strict=True):
            about = {"size": si(size, "B"), "note": note, "part": share(size, whole), "total": si(whole, "B")}
            bars.append({"row": label, "kind": kind, **at, **about})
        end = max(whole, found.get(label, (0, ""))[0])
        beside = limit if limit and end <= limit < end + BESIDE * most else end  # clear of the line
        spare = f", {si(abs(limit - whole), 'B')} {'to spare' if whole <= limit else 'too much'}" if limit and not narrow else ""
        ends.append({"row": label, "end": beside, "text": si(whole, "B") + spare})
    line = [{"end": limit, "text": f"memory: {si(limit, 'B')}"}] if limit else []
    datasets = {"bars": bars, "ends": ends, "line": line, MEASURED: measured}
    params = {"rows": list(labelled), "room": max([most, *(point["end"] for point in measured)]) * 1.25}
    return Chart(_template(len(labelled), narrow), _title(labelled, hardware, narrow, origins(measured)), datasets, params)


@cache
def _template(labels: int, narrow: bool) -> Template:
    """So many bars and their words, the device's memory as a line, and what was measured."""
    bars = StageBars(row_axis(labels=labels > 1), from_zero("bytes of device memory", "room", "B", ticks=3 if narrow else 6))
    colour = painted("kind", MEMORY_COLOURS, alt.Legend(orient="top"))
    about = tips(row="setting", kind="what", size="bytes", part="share", note="how", total="in all")
    line, above = alt.Chart(data("line")), {"align": "center", "baseline": "bottom", "y": -4, "fontSize": 12, "fontWeight": "bold"}
    return compiled(
        bars.segments("bars", colour, about, start="start", band=0.62),
        bars.inside("size", "room"),
        bars.words(dx=9, fontSize=12, fontWeight="bold"),
        line.mark_rule(color=LIMIT, strokeWidth=2, strokeDash=[6, 4]).encode(bars.x("end")),
        line.mark_text(color=LIMIT, **above).encode(bars.x("end"), WORDS),
        measured_layer(bars.x("end"), bars.rows, row="setting", size="allocated at most"),
        height=max(90, 46 * labels),
    )


def _title(labelled: Mapping[str, Estimate], hardware: HardwareSpec | None, narrow: bool, origin: Sequence[str]) -> Title:
    finding = _fits(labelled, hardware) if hardware else _needs(labelled)
    if narrow:
        return title(finding, f"Peak activation memory of one call, {BEYOND}", *origin, width=48)
    run = conditions(next(iter(labelled.values())).stages.row(0, named=True), with_attention=False)
    return title(finding, run, f"Weights, KV cache at its end and peak activation memory of one call; {BEYOND}", *origin)


def _needs(labelled: Mapping[str, Estimate]) -> str:
    """What is needed where no device says what there is."""
    needs = {label: estimate.footprint.total_bytes for label, estimate in labelled.items()}
    least, largest = min(needs, key=needs.get), max(needs, key=needs.get)
    if len(needs) == 1:
        return f"The run needs {si(needs[largest], 'B')} of device memory"
    return f"{largest} needs {si(needs[largest], 'B')} of device memory, {least} {si(needs[least], 'B')}"


def _fits(labelled: Mapping[str, Estimate], hardware: HardwareSpec) -> str:
    """Which settings fit the device and which lack memory, those that fit first."""
    spare = {label: hardware.memory_bytes - estimate.footprint.total_bytes for label, estimate in labelled.items()}
    words: list[str] = []
    for label in sorted(spare, key=lambda label: spare[label] < 0):
        name, size = f"{label} " if len(spare) > 1 else "", si(abs(spare[label]), "B")
        if spare[label] >= 0:
            words.append(f"{name}with {size}" if words else f"{name}fits {hardware.label} with {size} to spare")
        else:
            words.append(f"{name}lacks {size}" if words else f"{name}does not fit {hardware.label}: lacks {size}")
    finding = ", ".join(words)
    return finding if len(spare) > 1 else finding[0].upper() + finding[1:]


def growth(sweep: pl.DataFrame, output_tokens: int | None = None) -> Chart:
    """KV cache held and bytes moved by a decode step, against output length.

    Args:
        sweep: `of.sweep` of one page over at least three ascending output_tokens; of several attention modes the first is drawn. A step's
            bytes are linear in the context, so those of any step follow from the differences of totals.
        output_tokens: the current output length, marked.
    """
    mode = sweep["attention"][0]
    found = [row for row in sweep.to_dicts() if row["stage"] == "decode" and row["attention"] == mode]
    steps = _steps(found)
    held = [
        {"output_tokens": row["output_tokens"], "bytes": row["kv_cache_bytes"], "size": si(row["kv_cache_bytes"], "B")} for row in found
    ]
    areas = []
    for step in steps:
        for kind, size, at in stacked({kind: step[column] for kind, (column, _) in TRAFFIC.items()}):
            about = {"size": si(size, "B"), "part": share(size, step["io_bytes"]), "total": si(step["io_bytes"], "B")}
            areas.append({"output_tokens": step["output_tokens"], "kind": kind, "start": at["start"], "bytes": at["end"], **about})
    names = [{**held[-1], "text": f"KV cache held: {held[-1]['size']}", "colour": HELD}] if steps else []
    for end in areas[-len(TRAFFIC) :]:
        middle = {"output_tokens": end["output_tokens"], "bytes": (end["start"] + end["bytes"]) / 2}
        names.append({**middle, "text": f"{end['kind']}: {end['size']} a step", "colour": TRAFFIC[end["kind"]][1]})
    names.sort(key=lambda name: name["bytes"])
    highest = max([row["bytes"] for row in (*areas, *held)], default=0)
    for below, name in pairwise(names):  # moved up where they would lie on one another
        name["bytes"] = max(name["bytes"], below["bytes"] + NAME_GAP * highest)
    mark = [{"output_tokens": output_tokens, "text": f"{output_tokens:,} tokens"}] if output_tokens else []
    datasets = {"areas": areas, "held": held, "mark": mark, "names": names}
    params = {"room": 1.4 * found[-1]["output_tokens"] or 1, "highest": highest or 1}
    return Chart(_growth_template(), _growth_title(found, steps, held), datasets, params)


def _steps(found: list[Row]) -> list[Row]:
    """The traffic of the decode step that ends at each output length, from decode's totals.

    The mean of the steps between two lengths is that of the step in their middle; two such means give the line that all steps lie on.
    """
    columns = ("io_bytes", *(column for column, _ in TRAFFIC.values()))
    if len(found) < 2:
        return []

    def mean(before: Row, after: Row) -> tuple[float, dict[str, float]]:
        steps = after["output_tokens"] - before["output_tokens"]
        middle = (before["output_tokens"] + 1 + after["output_tokens"]) / 2
        return middle, {column: (after[column] - before[column]) / steps for column in columns}

    (first, start), (last, end) = mean(*found[:2]), mean(*found[-2:])
    slope = {column: (end[column] - start[column]) / (last - first) if last > first else 0.0 for column in columns}
    ends = (max(1, row["output_tokens"]) for row in found)
    return [{"output_tokens": at, **{column: start[column] + slope[column] * (at - first) for column in columns}} for at in ends]


@cache
def _growth_template() -> Template:
    axis = alt.Axis(format=",d", tickCount=8, tickMinStep=1, grid=False)
    x = x_of("output_tokens", **from_zero("output tokens", "room") | {"axis": axis})
    y = y_of("bytes", **from_zero("bytes of the whole batch", "highest", "B", nice=True))
    colour = painted("kind", {kind: colour for kind, (_, colour) in TRAFFIC.items()})
    at = alt.Tooltip("output_tokens", type="quantitative", title="output token", format=",d")
    of_step = [at, *tips(kind="moved", size="bytes in this step", part="share of the step", total="whole step")]
    areas, held = (alt.Chart(data(name)) for name in ("areas", "held"))
    return compiled(
        areas.mark_area(opacity=0.55).encode(x, y_of("start"), alt.Y2("bytes"), colour),
        areas.mark_point(size=26, filled=True, opacity=0.9).encode(x, y, colour, of_step),
        held.mark_line(strokeWidth=3, color=HELD).encode(x, y),
        held.mark_point(size=40, filled=True, color=HELD).encode(x, y, [at, *tips(size="KV cache held")]),
        *mark_layers(x),
        briefly("names").mark_text(align="left", baseline="middle", dx=10, fontSize=12, fontWeight="bold").encode(x, y, WORDS, OWN_COLOUR),
        height=380,
    )


def _growth_title(found: list[Row], steps: list[Row], held: list[Row]) -> Title:
    row = found[-1]
    if not steps:
        return title("No output tokens: nothing grows", workload_words(row))
    first, last = steps[0], steps[-1]
    tokens = last["output_tokens"] - first["output_tokens"]
    per_token = (last["kv_io_bytes"] - first["kv_io_bytes"]) / tokens if tokens else 0
    added = (held[-1]["bytes"] - held[0]["bytes"]) or per_token * (row["output_tokens"] - found[0]["output_tokens"])  # 0 within a block
    times = per_token * (row["output_tokens"] - found[0]["output_tokens"]) / added if added else 1
    finding = (
        f"At output token {row['output_tokens']:,} the KV cache holds {held[-1]['size']}; its step moves {si(last['io_bytes'], 'B')}, "
        f"{share(last['kv_io_bytes'], last['io_bytes'])} of it cache"
    )
    how = APPENDED[row["cache"]]
    size = "its own size" if f"{times:.3g}" == "1" else f"{times:.3g} times its own size"
    grows = f"Each token cached adds {si(per_token, 'B')} to a step, {size}: {how}"
    if held[-1]["bytes"] == held[len(held) // 2]["bytes"]:  # blocks are smaller
        grows = "The model keeps its prompt and its newest output alone, so that the cache stops growing"
    where = f"{page_words(row)}, {row['context_tokens']:,} context tokens, batch {row['batch_size']}"
    run = f"{row['engine']}, {attention_words(row['attention'])}, {row['dtype']}"
    return title(finding, f"{where}; {run}", grows if per_token else how.capitalize())
