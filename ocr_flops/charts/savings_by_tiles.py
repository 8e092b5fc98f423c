"""What fused attention saves in the vision stage, against the tiles of a page."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

import altair as alt

from ocr_flops.charts.chart import Chart, Row, Template, Title, compiled, data, title
from ocr_flops.charts.overlay import mark_layers
from ocr_flops.charts.savings import saved
from ocr_flops.charts.theme import OWN_COLOUR, WORDS, attention_colour, grids_words, si_axis, tips, x_of, y_of
from ocr_flops.units import si

if TYPE_CHECKING:
    import polars as pl

MEASURES = {"io_bytes": "bytes moved in vision", "peak_activation_bytes": "peak of live activations in vision"}


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
    modes = list(dict.fromkeys(mode for mode, _ in found))
    points = []
    for (mode, count), row in sorted(found.items(), key=lambda item: item[0][1]):
        about = {"size": si(row[work], "B"), "saved": saved(row[work], found[modes[0], count][work]) or "–", "tokens": row["image_tokens"]}
        points.append({"tiles": count, "mode": mode, "colour": attention_colour(mode), "value": row[work], **about})
    most = max(count for _, count in found)
    ends: dict[int, Row] = {}  # modes that end in the same place share their words
    for point in [point for point in points if point["tiles"] == most]:
        named = f"{ends[point['value']]['named']}, {point['mode']}" if point["value"] in ends else point["mode"]
        difference = f" ({point['saved']})" if point["mode"] != modes[0] else ""
        text = f"{named}: {point['size']}{difference}"
        ends[point["value"]] = {**ends.get(point["value"], point), "named": named, "text": text}
    mark = [{"tiles": tiles, "text": f"{tiles} tiles" if tiles else "no tiles"}] if tiles is not None else []
    return Chart(
        _template(modes[0], work),
        _title(found, modes, work, grids_words(rows)),
        {"points": points, "ends": list(ends.values()), "mark": mark},
        {"room": 1.42 * most or 1, "highest": max(point["value"] for point in points)},
    )


@cache
def _template(base: str, work: str) -> Template:
    scale = alt.Scale(domain=[0, alt.ExprRef("room")], nice=False)
    x = x_of("tiles", title="tiles of a page, beside its global view", scale=scale, axis=alt.Axis(format=",d", tickMinStep=1, grid=False))
    scale = alt.Scale(domain=[0, alt.ExprRef("highest")], nice=True)
    y = y_of("value", title=MEASURES[work], scale=scale, axis=alt.Axis(labelExpr=si_axis("B"), tickCount=6))
    numbers = {"tiles": "tiles", "tokens": "image tokens"}
    about = [alt.Tooltip(name, type="quantitative", title=words, format=",d") for name, words in numbers.items()]
    points, ends = alt.Chart(data("points")), alt.Chart(data("ends"))
    return compiled(
        points.mark_line(strokeWidth=2.5).encode(x, y, OWN_COLOUR),
        points.mark_point(size=50, filled=True, opacity=1).encode(
            x, y, OWN_COLOUR, [*about, *tips(mode="attention", size="bytes", saved=f"against {base}")]
        ),
        ends.mark_text(align="left", baseline="middle", dx=9, fontSize=12, fontWeight="bold").encode(x, y, WORDS, OWN_COLOUR),
        *mark_layers(x),
        height=360,
    )


def _title(found: Mapping[tuple[str, int], Row], modes: list[str], work: str, grids: str) -> Title:
    counts = [count for _, count in found]
    least, most = min(counts), max(counts)
    row = found[modes[0], most]
    largest = {mode: found[mode, most][work] for mode in modes}
    each = {mode: (found[mode, most][work] - found[mode, least][work]) / (most - least or 1) for mode in modes}
    values = ", ".join(f"{si(value, 'B')} in {mode}" for mode, value in (each if work == "io_bytes" else largest).items())
    if most == least:
        finding = f"{MEASURES[work].capitalize()}: " + ", ".join(f"{mode} {si(value, 'B')}" for mode, value in largest.items())
    else:
        finding = f"Each tile adds {values}" if work == "io_bytes" else f"With {most} tiles vision holds up to {values}"
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
