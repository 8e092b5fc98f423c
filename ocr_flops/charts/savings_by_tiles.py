"""Lines of attention modes over what grows, named at their ends."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import altair as alt
import polars as pl

from ocr_flops.charts.bars import briefly
from ocr_flops.charts.chart import Chart, Row, Template, Title, compiled, data, title
from ocr_flops.charts.encoding import OWN_COLOUR, WORDS, from_zero, tips, x_of, y_of
from ocr_flops.charts.overlay import mark_layers
from ocr_flops.charts.savings import saved
from ocr_flops.charts.theme import attention_colour, grids_words
from ocr_flops.units import si

ROOM = 1.42  # of the longest line, with the words behind it
MEASURES = {"io_bytes": "DRAM traffic of vision", "peak_activation_bytes": "peak activation memory of vision"}


def mode_lines(
    rows: Sequence[Row], heading: Title, axes: tuple[str, str], mark: Row | None, words: Callable[[Row], str], **about: str
) -> Chart:
    """A line for each attention mode, of bytes.

    Args:
        rows: points with `mode`, `x` and `value`, ordered by `x`.
        heading: the title.
        axes: titles of x and y.
        mark: the current point's `x` and its `text`, drawn across; None for none.
        words: what stands behind a mode's name at the end of its line; modes that end in the same place share the words of the last one.
        about: what the tooltip calls further fields, all words.
    """
    points = [{**row, "colour": attention_colour(row["mode"]), "size": si(row["value"], "B")} for row in rows]
    most, ends = max(row["x"] for row in points), {}
    for point in points:
        if point["x"] == most:
            names = [*ends.get(point["value"], {}).get("modes", ()), point["mode"]]
            ends[point["value"]] = {**point, "modes": names, "text": f"{', '.join(names)}: {words(point)}"}
    datasets = {"points": points, "ends": list(ends.values()), "mark": [mark] if mark else []}
    params = {"room": ROOM * most or 1, "highest": max(point["value"] for point in points)}
    return Chart(_template(*axes, tuple(about.items())), heading, datasets, params)


@cache
def _template(x_title: str, y_title: str, about: tuple[tuple[str, str], ...]) -> Template:
    axis = alt.Axis(format=",d", tickMinStep=1, tickCount=10, grid=False)
    x = x_of("x", **from_zero(x_title, "room") | {"axis": axis})
    y = y_of("value", **from_zero(y_title, "highest", "B", nice=True))
    tooltip = [alt.Tooltip("x", type="quantitative", title=x_title, format=",d"), *tips(mode="attention", size="bytes", **dict(about))]
    points = alt.Chart(data("points"))
    return compiled(
        points.mark_line(strokeWidth=2.5).encode(x, y, OWN_COLOUR),
        points.mark_point(size=50, filled=True, opacity=1).encode(x, y, OWN_COLOUR, tooltip),
        briefly("ends").mark_text(align="left", baseline="middle", dx=9, fontSize=12, fontWeight="bold").encode(x, y, WORDS, OWN_COLOUR),
        *mark_layers(x),
        height=360,
    )


def savings_by_tiles(sweep: pl.DataFrame, work: str = "io_bytes", tiles: int | None = None) -> Chart:
    """DRAM traffic of the vision stage, or its peak activation memory, against the tiles of a page, per attention mode.

    Args:
        sweep: `of.sweep` over grids in several attention modes, a row per point and stage; of grids with the same tiles the first is drawn.
        work: "io_bytes" or "peak_activation_bytes".
        tiles: the current page's, marked.
    """
    vision = sweep.filter(stage="vision").unique(["attention", "tiles"], keep="first", maintain_order=True)
    found = {(row["attention"], row["tiles"]): row for row in vision.to_dicts()}
    base = next(mode for mode, _ in found)
    points = []
    for (mode, count), row in sorted(found.items(), key=lambda item: item[0][1]):
        about = {"saved": saved(row[work], found[base, count][work]) or "–", "tokens": f"{row['image_tokens']:,}"}
        points.append({"x": count, "mode": mode, "value": row[work], **about})
    return mode_lines(
        points,
        _title(found, work, grids_words(sweep.to_dicts())),
        ("tiles of a page, beside its global view", MEASURES[work]),
        None if tiles is None else {"x": tiles, "text": f"{tiles} tiles" if tiles else "no tiles"},
        lambda end: end["size"] if end["mode"] == base else f"{end['size']} ({end['saved']})",
        tokens="image tokens",
        saved=f"against {base}",
    )


def _title(found: Mapping[tuple[str, int], Row], work: str, grids: str) -> Title:
    counts, modes = [count for _, count in found], dict.fromkeys(mode for mode, _ in found)
    least, most = min(counts), max(counts)
    largest = {mode: found[mode, most][work] for mode in modes}
    each = {mode: (largest[mode] - found[mode, least][work]) / (most - least or 1) for mode in modes}
    values = ", ".join(f"{si(value, 'B')} in {mode}" for mode, value in (each if work == "io_bytes" else largest).items())
    finding = f"Each tile adds {values}" if work == "io_bytes" else f"With {most} tiles vision holds up to {values}"
    if most == least:
        finding = f"{MEASURES[work].capitalize()}: " + ", ".join(f"{mode} {si(value, 'B')}" for mode, value in largest.items())
    row = found[next(iter(modes)), most]
    views = f"{row['tile_px']} px tiles and a {row['global_px']} px view" if row["tile_px"] else f"{row['global_px']} px view"
    return title(
        finding,
        f"Vision stage, {views}, batch {row['batch_size']}; {row['engine']}, {row['dtype']}",
        grids,
        "Matrix FLOPs are the same in every mode; what falls away are scores, probabilities and, in flash, SAM's relative-position bias",
    )


def by_tiles(points: pl.DataFrame, tiles: int) -> dict[str, Chart]:
    """What leaner attention saves in vision against tiles, by names that serve as file names; none where all points have as many.

    Args:
        points: `of.sweep` over grids in several attention modes.
        tiles: the current page's.
    """
    works = {"traffic_by_tiles": "io_bytes", "peak_by_tiles": "peak_activation_bytes"} if points["tiles"].n_unique() > 1 else {}
    return {name: savings_by_tiles(points, work, tiles) for name, work in works.items()}
