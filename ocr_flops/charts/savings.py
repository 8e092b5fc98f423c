"""What fused attention saves: bytes moved, peak activations and time of eager, sdpa and flash, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import altair as alt

from ocr_flops.charts.chart import Chart, Template, Title, compiled, data, title
from ocr_flops.charts.interactive.base import headed_rows
from ocr_flops.charts.theme import INK, grids_words, si_axis
from ocr_flops.units import seconds, share, si, workload_words

if TYPE_CHECKING:
    import polars as pl

    from ocr_flops.timing.estimate import Estimate
    from ocr_flops.timing.timing import Timing

Row = dict[str, Any]
Names = tuple[str, ...]
COLOURS = {"eager": "#A3622F", "sdpa": "#CC66FF", "flash": "#8348FF"}  # unlike those of stages, kinds of memory and modules
OTHER = "#DDAA33"
PANELS = {"io_bytes": "bytes moved", "peak_activation_bytes": "peak of live activations", "roofline_seconds": "roofline time"}
LETTER_PX = 5.6  # of the words beside bars
BAR = 0.42  # of a panel's width; the rest is for the words
WHOLE = "all stages"
TILES_Y = {"io_bytes": "bytes moved in vision", "peak_activation_bytes": "peak of live activations in vision"}


def savings(estimates: Mapping[str, Estimate], timings: Mapping[str, Timing] | None = None) -> Chart:
    """Bytes moved, peak activations and (with a device) roofline time per stage and attention mode; savings written at the bars.

    Each panel has a scale of its own, from zero. The thin inner bar marks weights and KV cache, which no attention mode changes.

    Args:
        estimates: of one point by attention mode, the one to compare with first: {"eager": ..., "sdpa": ..., "flash": ...}.
        timings: of the same modes on one device.
    """
    modes = tuple(estimates)
    measures = [name for name in PANELS if name != "roofline_seconds" or timings]
    table = {mode: _numbers(estimates[mode], timings and timings[mode]) for mode in modes}
    groups = [group for group in table[modes[0]] if any(table[modes[0]][group].values())]
    order = tuple(name for group in groups for name in (f"{group}|", *(f"{group}|{mode}" for mode in modes)))
    bars, fixed, texts, heads = [], [], [], []
    for position, measure in enumerate(measures):
        most = max(table[mode][group][measure] for mode in modes for group in groups) or 1
        words = seconds if measure == "roofline_seconds" else _bytes
        heads.append({"x": position, "text": PANELS[measure]})
        for group in groups:
            for number, mode in enumerate(modes):
                value, base = table[mode][group][measure], table[modes[0]][group][measure]
                before = table[modes[number - 1]][group][measure]
                end = position + BAR * value / most
                said = saved(value, base, words) if number else ""
                if number > 1 and value == before:
                    said = f"as {modes[number - 1]}"
                at = {"row": f"{group}|{mode}", "mode": mode, "colour": COLOURS.get(mode, OTHER), "stage": group, "x": position, "end": end}
                bars.append(
                    {
                        **at,
                        "what": PANELS[measure],
                        "value": words(value),
                        "saved": saved(value, base, words) or "–",
                        "kept": share(value, base),
                    }
                )
                brief = said.rpartition(", ")[2]  # where the panel is narrow: without the difference in bytes or seconds
                told = (
                    {"text": f"{words(value)} ({said})", "brief": f"{words(value)} ({brief})"}
                    if said
                    else dict.fromkeys(("text", "brief"), words(value))
                )
                texts.append({**at, **told})
                if measure == "io_bytes":
                    fixed.append({**at, "end": position + BAR * table[mode][group]["fixed"] / most})
    least = max(len(text["text"]) for text in texts) * LETTER_PX / (1 - BAR) * len(measures)
    return Chart(
        _savings_template(modes[0]),
        _savings_title(estimates, timings, table),
        {"bars": bars, "fixed": fixed, "texts": texts, "heads": heads, "room": [{"end": len(measures) - 0.02}, {"end": 0}]},
        {"rows": order, "least": round(least)},
    )


def _numbers(estimate: Estimate, timing: Timing | None) -> dict[str, Row]:
    """What is compared, by stage and over all stages (peaks: the largest)."""
    table = {}
    times = {row["stage"]: row["roofline_seconds"] for row in timing.stages.to_dicts()} if timing else {}
    for stage, row in estimate.stage_numbers.items():
        table[stage] = {name: row[name] for name in ("io_bytes", "peak_activation_bytes")}
        table[stage] |= {"fixed": row["weight_io_bytes"] + row["kv_io_bytes"], "roofline_seconds": times.get(stage, 0.0)}
    if len(table) > 1:
        rows = list(table.values())
        table[WHOLE] = {name: (max if name == "peak_activation_bytes" else sum)(row[name] for row in rows) for name in rows[0]}
    return table


def _bytes(value: float) -> str:
    return si(value, "B")


def saved(value: float, base: float, words: Any = _bytes) -> str:
    """A saving in absolute and relative terms: −36.5 GB, −65 %; empty where there is nothing to save."""
    if not base:
        return ""
    if value == base:
        return "no change"
    sign = "−" if value < base else "+"
    return f"{sign}{words(abs(base - value))}, {sign}{share(abs(base - value), base)}"


@cache
def _savings_template(base: str) -> Template:
    y = headed_rows()
    start, end = (
        alt.X("x", type="quantitative", axis=None),
        alt.X("end", type="quantitative", axis=None, scale=alt.Scale(nice=False, zero=True)),
    )
    colour = alt.Color("colour", type="nominal", scale=None)
    tooltip = [
        alt.Tooltip(name, type="nominal", title=words)
        for name, words in (
            ("stage", "stage"),
            ("mode", "attention"),
            ("what", "what"),
            ("value", "value"),
            ("saved", f"against {base}"),
            ("kept", f"of {base}'s"),
        )
    ]
    word = alt.Text("text", type="nominal")
    return compiled(
        alt.Chart(data("room")).mark_point(opacity=0, tooltip=None).encode(end),
        alt.Chart(data("heads"))
        .mark_text(align="left", baseline="bottom", y=-4, fontSize=13, fontWeight="bold", color=INK)
        .encode(start, word),
        alt.Chart(data("bars")).mark_bar(height={"band": 0.82}).encode(y, start, alt.X2("end"), colour, tooltip=tooltip),
        alt.Chart(data("fixed"))
        .mark_bar(height={"band": 0.26}, color="#333333", opacity=0.75, tooltip=None)
        .encode(y, start, alt.X2("end")),
        alt.Chart(data("texts"))
        .transform_calculate(fitting="width < least ? datum.brief : datum.text")
        .mark_text(align="left", baseline="middle", dx=5, fontSize=11, color=INK)
        .encode(y, end, alt.Text("fitting", type="nominal")),
        height=alt.Step(19),
    )


def _savings_title(estimates: Mapping[str, Estimate], timings: Mapping[str, Timing] | None, table: dict[str, dict[str, Row]]) -> Title:
    """What the last mode saves of the first one, where, and where it saves nothing."""
    modes = list(table)
    base, best, stages = table[modes[0]], table[modes[-1]], [group for group in table[modes[0]] if group != WHOLE]
    where = max(stages, key=lambda stage: base[stage]["io_bytes"] - best[stage]["io_bytes"])
    less = base[where]["io_bytes"] - best[where]["io_bytes"]
    finding = f"{modes[-1]} moves {si(less, 'B')} ({share(less, base[where]['io_bytes'])}) less than {modes[0]} in {where}"
    if timings and timings[modes[0]].ttft_seconds is not None:
        first, last = (timings[mode].ttft_seconds for mode in (modes[0], modes[-1]))
        finding += f"; to the first token {seconds(last)} instead of {seconds(first)} on {timings[modes[0]].hardware.label}"
    elif "decode" in base and base["decode"]["io_bytes"]:
        finding += f", and {share(base['decode']['io_bytes'] - best['decode']['io_bytes'], base['decode']['io_bytes'])} less in decode"
    flops = {mode: sum(row["tensor_flops"] for row in estimate.stage_numbers.values()) for mode, estimate in estimates.items()}
    same = f"Matrix FLOPs are the same in every mode: {si(flops[modes[0]], 'FLOPs')}"
    lines = [f"{same if len(set(flops.values())) == 1 else 'Matrix FLOPs differ'}. {_limits(base, best, modes)}"]
    row, config = estimates[modes[0]].stages.row(0, named=True), estimates[modes[0]].config
    lines.append(f"{workload_words(row)}; {config.engine.name}, {config.dtype}. {_evidence(estimates)}")
    return title(
        finding, *lines, "Inner bar: weights and KV cache, which no attention kernel changes. Each panel has its own scale", width=105
    )


def _limits(base: dict[str, Row], best: dict[str, Row], modes: list[str]) -> str:
    """Where fused attention helps little, and why."""
    if "decode" not in base or not base["decode"]["io_bytes"]:
        return ""
    of_decode = base["decode"]
    return (
        f"Decode is {share(of_decode['fixed'], of_decode['io_bytes'])} weights and KV cache: {modes[-1]} saves "
        f"{share(of_decode['io_bytes'] - best['decode']['io_bytes'], of_decode['io_bytes'])} of its bytes"
    )


def _evidence(estimates: Mapping[str, Estimate]) -> str:
    """Which modes were traced on the real model, and which are modelled."""
    modelled = [
        mode
        for mode, estimate in estimates.items()
        if any(estimate.config.evidence(stage) == "modelled" for stage in estimate.chosen_stages)
    ]
    return (
        f"Modelled: {', '.join(modelled)}; the others can be traced here"
        if modelled and len(modelled) < len(estimates)
        else ("Modelled" if modelled else "All can be traced here")
    )


def savings_by_tiles(sweep: pl.DataFrame, work: str = "io_bytes", tiles: int | None = None) -> Chart:
    """Bytes moved by the vision stage, or its peak of live activations, against the tiles of a page, per attention mode.

    Args:
        sweep: `of.sweep` over grids in several attention modes, a row per point and stage; of grids with the same tiles the first is drawn.
        work: "io_bytes" or "peak_activation_bytes".
        tiles: the current page's, marked.
    """
    found: dict[tuple[str, int], Row] = {}
    rows = sweep.to_dicts()
    for row in rows:
        if row["stage"] == "vision":
            found.setdefault((row["attention"], row["tiles"]), row)
    modes = tuple(dict.fromkeys(mode for mode, _ in found))
    base = {count: row[work] for (mode, count), row in found.items() if mode == modes[0]}
    points = [
        {
            "tiles": count,
            "mode": mode,
            "colour": COLOURS.get(mode, OTHER),
            "value": row[work],
            "size": si(row[work], "B"),
            "saved": saved(row[work], base[count]) or "–",
            "tokens": row["image_tokens"],
        }
        for (mode, count), row in sorted(found.items(), key=lambda item: item[0][1])
    ]
    most = max(count for _, count in found)
    ends: dict[int, Row] = {}  # modes that end in the same place share their words
    for point in [point for point in points if point["tiles"] == most]:
        named = f"{ends[point['value']]['named']}, {point['mode']}" if point["value"] in ends else point["mode"]
        told = f" ({point['saved']})" if point["mode"] != modes[0] else ""
        ends[point["value"]] = {**ends.get(point["value"], point), "named": named, "text": f"{named}: {point['size']}{told}"}
    mark = [{"tiles": tiles, "text": f"{tiles} tiles" if tiles else "no tiles"}] if tiles is not None else []
    return Chart(
        _tiles_template(modes[0], work),
        _tiles_title(found, modes, work, most, grids_words(rows)),
        {"points": points, "ends": list(ends.values()), "mark": mark, "room": [{"tiles": 1.42 * most or 1, "value": 0}]},
    )


@cache
def _tiles_template(base: str, work: str) -> Template:
    x = alt.X(
        "tiles",
        type="quantitative",
        title="tiles of a page, beside its global view",
        scale=alt.Scale(nice=False, zero=True),
        axis=alt.Axis(format=",d", tickMinStep=1, grid=False),
    )
    y = alt.Y("value", type="quantitative", title=TILES_Y[work], axis=alt.Axis(labelExpr=si_axis("B"), tickCount=6))
    colour = alt.Color("colour", type="nominal", scale=None)
    tooltip = [
        alt.Tooltip("tiles", type="quantitative", format=",d"),
        alt.Tooltip("tokens", type="quantitative", title="image tokens", format=",d"),
        *(
            alt.Tooltip(name, type="nominal", title=words)
            for name, words in (("mode", "attention"), ("size", "bytes"), ("saved", f"against {base}"))
        ),
    ]
    points, mark, word = alt.Chart(data("points")), alt.Chart(data("mark")), alt.Text("text", type="nominal")
    return compiled(
        points.mark_line(strokeWidth=2.5).encode(x, y, colour),
        points.mark_point(size=50, filled=True, opacity=1).encode(x, y, colour, tooltip=tooltip),
        alt.Chart(data("ends")).mark_text(align="left", baseline="middle", dx=9, fontSize=12, fontWeight="bold").encode(x, y, word, colour),
        mark.mark_rule(strokeDash=[4, 4], color=INK).encode(x),
        mark.mark_text(align="center", baseline="bottom", y=-4, color=INK, fontSize=12, fontWeight="bold").encode(x, word),
        alt.Chart(data("room")).mark_point(opacity=0, tooltip=None).encode(x, y),
        height=360,
    )


def _tiles_title(found: dict[tuple[str, int], Row], modes: Names, work: str, most: int, grids: str) -> Title:
    row = found[modes[0], most]
    least = min(count for _, count in found)
    if most == least:
        finding = f"{TILES_Y[work].capitalize()}: " + ", ".join(f"{mode} {si(found[mode, most][work], 'B')}" for mode in modes)
    else:
        each = {mode: (found[mode, most][work] - found[mode, least][work]) / (most - least) for mode in modes}
        finding = f"Each tile adds {si(each[modes[0]], 'B')} in {modes[0]}, " + ", ".join(
            f"{si(each[mode], 'B')} in {mode}" for mode in modes[1:]
        )
        if work == "peak_activation_bytes":
            finding = f"With {most} tiles vision holds up to " + ", ".join(
                f"{si(found[mode, most][work], 'B')} in {mode}" for mode in modes
            )
    views = f"{row['tile_px']} px tiles and a {row['global_px']} px view" if row["tile_px"] else f"{row['global_px']} px view"
    return title(
        finding,
        f"Vision stage, {views}, batch {row['batch_size']}; {row['engine']}, {row['dtype']}",
        grids,
        "Matrix FLOPs are the same in every mode; what falls away are scores, probabilities and SAM's relative-position bias",
    )


def by_tiles(points: pl.DataFrame, tiles: int) -> dict[str, Chart]:
    """What leaner attention saves in vision against tiles, by names that serve as file names; none where all points have as many.

    Args:
        points: `of.sweep` over grids in several attention modes.
        tiles: the current page's.
    """
    works = {"traffic_by_tiles": "io_bytes", "peak_by_tiles": "peak_activation_bytes"} if points["tiles"].n_unique() > 1 else {}
    return {name: savings_by_tiles(points, work, tiles) for name, work in works.items()}
