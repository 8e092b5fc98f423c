"""The tiling drawn: the page with its grid, the tiles, the global view, and the tokens of each."""

from __future__ import annotations

from functools import cache
from typing import Any

import altair as alt

from ocr_flops.charts.chart import Chart, Template, compiled, data, title
from ocr_flops.charts.theme import INK, STAGE_COLOURS
from ocr_flops.spec.tiling import global_tokens, queries, tile_tokens
from ocr_flops.spec.workload import Workload

SIDE = 100.0  # the larger side of each of the pictures, in units of the drawing
GAP, CAPTION = 14.0, 15.0
MAX_DRAWN, MAX_LABELLED = 400, 30  # tiles
PAGE, TILE, VIEW, PAD = "#EE7733", STAGE_COLOURS["vision"], "#009988", "#999999"
STRETCHED_UP_TO_PX = 640  # a mode without tiles stretches the page into views up to this side, and pads it into larger ones
TEXTS = {  # how each kind of text is set; captions stand above the picture at `y`
    "name": {"align": "left", "baseline": "bottom", "dy": -22, "fontSize": 13, "fontWeight": "bold"},
    "detail": {"align": "left", "baseline": "bottom", "dy": -6, "fontSize": 12},
    "tokens": {"align": "center", "baseline": "middle", "fontSize": 12, "fontWeight": "bold", "color": "white"},
}
Rect = dict[str, Any]


def tiling_picture(workload: Workload) -> Chart:
    """The page, its tiles and its global view, side by side, to one scale each.

    Args:
        workload: one point. A page whose size is not known is drawn in its grid's proportions.
    """
    width, height = (workload.image_width_px, workload.image_height_px) if workload.image_width_px else (workload.columns, workload.rows)
    page_w, page_h = SIDE * width / max(width, height), SIDE * height / max(width, height)
    boxes, texts, lines = [], [], []
    left = 0.0
    known = f"{workload.image_width_px:,} × {workload.image_height_px:,} px" if workload.image_width_px else "of any size"
    boxes.append(_box(left, CAPTION, page_w, page_h, PAGE, 0.25, f"page, {known}"))
    texts += _caption(left, "Page", known)
    if workload.tiles:
        lines += _grid_lines(left, page_w, page_h, workload)
    left += max(page_w, 52) + GAP
    if workload.tiles:
        tiles, labels, right = _tiles(left, workload)
        boxes += tiles
        texts += labels
        left = right + GAP
    boxes += _global_view(left, page_w, page_h, workload)
    side, tokens = queries(workload.global_px), global_tokens(workload.global_px)
    texts += _caption(left, f"Global view, {workload.global_px} px", f"{side}·({side} + 1) + 1 = {tokens:,} tokens")
    datasets = {kind: [text for text in texts if text["kind"] == kind] for kind in TEXTS}
    return Chart(
        _template(),
        title(_finding(workload), _conditions(workload)),
        {"boxes": boxes, "lines": lines, **datasets},
        {"content_width": left + SIDE + 1, "content_height": CAPTION + SIDE + 1},
    )


def _box(x: float, y: float, width: float, height: float, colour: str, opacity: float, what: str) -> Rect:
    return {"x": x, "y": y, "x2": x + width, "y2": y + height, "colour": colour, "opacity": opacity, "what": what}


def _caption(x: float, first: str, second: str) -> list[Rect]:
    return [{"x": x, "y": CAPTION, "text": first, "kind": "name"}, {"x": x, "y": CAPTION, "text": second, "kind": "detail"}]


def _grid_lines(left: float, width: float, height: float, workload: Workload) -> list[Rect]:
    """The cuts over the page; none where they would be closer than the eye can tell."""
    columns, rows_ = (side if side <= 60 else 1 for side in (workload.columns, workload.rows))
    cuts = [(left + width * n / columns, CAPTION, left + width * n / columns, CAPTION + height) for n in range(1, columns)]
    cuts += [(left, CAPTION + height * n / rows_, left + width, CAPTION + height * n / rows_) for n in range(1, rows_)]
    return [dict(zip(("x", "y", "x2", "y2"), cut, strict=True)) for cut in cuts]


def _tiles(left: float, workload: Workload) -> tuple[list[Rect], list[Rect], float]:
    """The tiles, their labels, and where they end on the right."""
    columns, rows_, px = workload.columns, workload.rows, workload.tile_px
    gap = 0.06 * SIDE / max(columns, rows_)
    pitch = (SIDE + gap) / max(columns, rows_)
    side, each = queries(px), queries(px) ** 2
    tokens = f"({side}·{rows_})·({side}·{columns} + 1) = {tile_tokens(px, columns, rows_):,} tokens"
    texts = _caption(left, f"{columns} × {rows_} tiles of {px} px", tokens)
    right = left + max(columns * pitch, 72)
    if workload.tiles > MAX_DRAWN:
        whole = _box(left, CAPTION, columns * pitch, rows_ * pitch, TILE, 0.35, f"{columns} × {rows_} tiles, too many to draw")
        return [whole], texts, right
    boxes = [
        _box(
            left + column * pitch,
            CAPTION + row * pitch,
            pitch - gap,
            pitch - gap,
            TILE,
            0.9,
            f"tile {row * columns + column + 1} of {workload.tiles}: {each} queries",
        )
        for row in range(rows_)
        for column in range(columns)
    ]
    if workload.tiles <= MAX_LABELLED and pitch > 12:
        texts += [{"x": (box["x"] + box["x2"]) / 2, "y": (box["y"] + box["y2"]) / 2, "text": str(each), "kind": "tokens"} for box in boxes]
    return boxes, texts, right


def _global_view(left: float, page_w: float, page_h: float, workload: Workload) -> list[Rect]:
    """A square with the page in its middle, unless the page is stretched to fill it."""
    stretched = not workload.tile_px and workload.global_px <= STRETCHED_UP_TO_PX
    inner = (SIDE, SIDE) if stretched else (page_w, page_h)
    boxes = [] if inner == (SIDE, SIDE) else [_box(left, CAPTION, SIDE, SIDE, PAD, 0.25, "grey padding: costs as many tokens as the page")]
    x, y = left + (SIDE - inner[0]) / 2, CAPTION + (SIDE - inner[1]) / 2
    return [*boxes, _box(x, y, *inner, VIEW, 0.35, f"the whole page, {'stretched to the square' if stretched else 'scaled to fit'}")]


@cache
def _template() -> Template:
    """All layers on one scale for x and y, as large as the space allows."""
    unit = "max(content_width / width, content_height / height)"
    x_scale = alt.Scale(domainMin=-0.5, domainMax={"expr": f"{unit} * width - 0.5"}, nice=False, zero=False)
    y_scale = alt.Scale(domainMin=-0.5, domainMax={"expr": f"{unit} * height - 0.5"}, nice=False, zero=False, reverse=True)
    x, y = (alt.X("x", type="quantitative", axis=None, scale=x_scale), alt.Y("y", type="quantitative", axis=None, scale=y_scale))
    box = (
        alt.Chart(data("boxes"))
        .mark_rect(strokeWidth=0.8)
        .encode(
            x,
            y,
            alt.X2("x2"),
            alt.Y2("y2"),
            alt.Fill("colour", type="nominal", scale=None),
            alt.Stroke("colour", type="nominal", scale=None),
            alt.FillOpacity("opacity", type="quantitative", scale=None),
            tooltip=alt.Tooltip("what", type="nominal", title="this is"),
        )
    )
    cut = alt.Chart(data("lines")).mark_rule(color=PAGE, strokeDash=[4, 3]).encode(x, y, alt.X2("x2"), alt.Y2("y2"))
    text = alt.Text("text", type="nominal")
    texts = [alt.Chart(data(kind)).mark_text(**{"color": INK} | looks).encode(x, y, text) for kind, looks in TEXTS.items()]
    return compiled(box, cut, *texts, height=380)


def _finding(workload: Workload) -> str:
    if not workload.tiles:
        return f"One {workload.global_px} px view: {workload.image_tokens:,} image tokens"
    part = 100 * global_tokens(workload.global_px) / workload.image_tokens
    grid = f"{workload.columns} × {workload.rows} tiles and a global view"
    return f"{grid}: {workload.image_tokens:,} image tokens, {part:.0f} % of them the global view's"


def _conditions(workload: Workload) -> str:
    if not workload.tile_px:
        return "This mode has no tiles."
    if not workload.image_width_px:
        return "Grid set by hand (columns × rows)."
    if not workload.tiles:
        return "Neither side is above 640 px, so the page is not tiled."
    return "The vendor's rule: of the 22 grids of 2 to 9 tiles, the one with the closest aspect ratio; the page is stretched to fill it."
