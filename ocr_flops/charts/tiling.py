"""The tiling drawn: the page with its grid, the tiles, the global view, and the tokens of each."""

from functools import cache

import altair as alt

from ocr_flops.charts.bars import briefly
from ocr_flops.charts.chart import Chart, Row, Template, compiled, data, title
from ocr_flops.charts.encoding import WORDS, tips, x_of, y_of
from ocr_flops.charts.theme import INK, MEMORY_COLOURS, STAGE_COLOURS
from ocr_flops.spec.tiling import global_tokens, queries, tile_tokens
from ocr_flops.spec.workload import Workload

SIDE = 100.0  # the larger side of each of the pictures, in units of the drawing
GAP, CAPTION, CAPTION_WIDTH = 14.0, 15.0, 52
MAX_DRAWN, MAX_LABELLED, LABEL_SIDE = 400, 30, 12  # tiles; the smallest that bears a number
MAX_CUTS = 60  # a side: lines closer than that the eye cannot tell
PAGE, PAD = MEMORY_COLOURS["peak activations"], "#8C8C8C"  # paper, and grey around it
TILE, VIEW = STAGE_COLOURS["vision"], STAGE_COLOURS["decode"]
STRETCHED_UP_TO_PX = 640  # a mode without tiles stretches the page into views up to this side, and pads it into larger ones


def tiling_picture(workload: Workload) -> Chart:
    """The page, its tiles and its global view, side by side, to one scale each.

    Args:
        workload: one point. A page whose size is not known is drawn in its grid's proportions.
    """
    is_known = bool(workload.image_width_px)
    width, height = (workload.image_width_px, workload.image_height_px) if is_known else (workload.columns, workload.rows)
    page = (SIDE * width / max(width, height), SIDE * height / max(width, height))
    size = f"{width:,} × {height:,} px" if is_known else "of any size"
    boxes, tokens = [_box(0, CAPTION, *page, PAGE, 0.25, f"page, {size}")], []
    captions = [{"x": 0.0, "text": "Page", "detail": size, "tokens": ""}]
    left = max(page[0], CAPTION_WIDTH) + GAP
    if workload.tiles:
        columns, rows, px = workload.columns, workload.rows, workload.tile_px
        drawn, pitch = _tiles(left, workload)
        boxes += drawn
        if workload.tiles <= MAX_LABELLED and pitch > LABEL_SIDE:
            middles = [((box["x"] + box["x2"]) / 2, (box["y"] + box["y2"]) / 2) for box in drawn]
            tokens = [{"x": x, "y": y, "text": str(queries(px) ** 2)} for x, y in middles]
        product = f"({queries(px)}·{rows})·({queries(px)}·{columns} + 1) = {tile_tokens(px, columns, rows):,} tokens"
        about = {"text": f"{columns} × {rows} tiles, {px} px each", "detail": product, "tokens": product.partition(" = ")[2]}
        captions.append({"x": left, **about})
        left += max(columns * pitch, 72) + GAP
    boxes += _global_view(left, page, workload)
    side = queries(workload.global_px)
    product = f"{side}·({side} + 1) + 1 = {global_tokens(workload.global_px):,} tokens"
    about = {"text": f"Global view, {workload.global_px} px", "detail": product, "tokens": product.partition(" = ")[2]}
    captions.append({"x": left, **about})
    lines, captions = _cuts(page, workload) if workload.tiles else [], [{**caption, "y": CAPTION} for caption in captions]
    datasets = {"boxes": boxes, "lines": lines, "captions": captions, "tokens": tokens}
    params = {"content_width": left + SIDE + 1, "content_height": CAPTION + SIDE + 1, "least_px": 600}
    return Chart(_template(), title(_finding(workload), _conditions(workload)), datasets, params)


def _box(x: float, y: float, width: float, height: float, colour: str, opacity: float, what: str) -> Row:
    return {"x": x, "y": y, "x2": x + width, "y2": y + height, "colour": colour, "opacity": opacity, "what": what}


def _cuts(page: tuple[float, float], workload: Workload) -> list[Row]:
    """The cuts over the page; none where they would be too close."""
    width, height = page
    columns, rows = (side if side <= MAX_CUTS else 1 for side in (workload.columns, workload.rows))
    down = [{"x": width * n / columns, "y": CAPTION, "x2": width * n / columns, "y2": CAPTION + height} for n in range(1, columns)]
    return down + [{"x": 0, "y": CAPTION + height * n / rows, "x2": width, "y2": CAPTION + height * n / rows} for n in range(1, rows)]


def _tiles(left: float, workload: Workload) -> tuple[list[Row], float]:
    """The tiles, or one box in their place where they are too many; and the distance from one to the next."""
    columns, rows = workload.columns, workload.rows
    gap = 0.06 * SIDE / max(columns, rows)
    pitch = (SIDE + gap) / max(columns, rows)
    if workload.tiles > MAX_DRAWN:
        what = f"{columns} × {rows} tiles, too many to draw"
        return [_box(left, CAPTION, columns * pitch, rows * pitch, TILE, 0.35, what)], pitch
    boxes = []
    for number in range(workload.tiles):
        row, column = divmod(number, columns)
        what = f"tile {number + 1} of {workload.tiles}: {queries(workload.tile_px) ** 2} queries"
        boxes.append(_box(left + column * pitch, CAPTION + row * pitch, pitch - gap, pitch - gap, TILE, 0.9, what))
    return boxes, pitch


def _global_view(left: float, page: tuple[float, float], workload: Workload) -> list[Row]:
    """A square with the page in its middle, unless the page is stretched to fill it."""
    is_stretched = not workload.tile_px and workload.global_px <= STRETCHED_UP_TO_PX
    inner = (SIDE, SIDE) if is_stretched else page
    padding = _box(left, CAPTION, SIDE, SIDE, PAD, 0.25, "grey padding: costs as many tokens as the page")
    what = f"the whole page, {'stretched to the square' if is_stretched else 'scaled to fit'}"
    view = _box(left + (SIDE - inner[0]) / 2, CAPTION + (SIDE - inner[1]) / 2, *inner, VIEW, 0.35, what)
    return [view] if inner == (SIDE, SIDE) else [padding, view]


@cache
def _template() -> Template:
    """All layers on one scale for x and y, as large as the space allows."""
    unit = "max(content_width / width, content_height / height)"
    across, down = (
        alt.Scale(domainMin=-0.5, domainMax={"expr": f"{unit} * {side} - 0.5"}, nice=False, zero=False, reverse=side == "height")
        for side in ("width", "height")
    )
    x, y = x_of("x", axis=None, scale=across), y_of("y", axis=None, scale=down)
    corners = (x, y, alt.X2("x2"), alt.Y2("y2"))
    fill, stroke = (channel("colour", type="nominal", scale=None) for channel in (alt.Fill, alt.Stroke))
    boxes, captions, tokens = (alt.Chart(data(name)) for name in ("boxes", "captions", "tokens"))
    above = {"align": "left", "baseline": "bottom", "color": INK}
    opacity = alt.FillOpacity("opacity", type="quantitative", scale=None)
    return compiled(
        boxes.mark_rect(strokeWidth=0.8).encode(*corners, fill, stroke, opacity, tips(what="this is")),
        alt.Chart(data("lines")).mark_rule(color=PAGE, strokeDash=[4, 3]).encode(*corners),
        briefly("captions").mark_text(dy=-22, fontSize=13, fontWeight="bold", **above).encode(x, y, WORDS),
        captions.transform_calculate(detail="narrow ? datum.tokens : datum.detail")
        .mark_text(dy=-6, fontSize=12, **above)
        .encode(x, y, alt.Text("detail", type="nominal")),
        tokens.mark_text(baseline="middle", fontSize=12, fontWeight="bold", color="white").encode(x, y, WORDS),
        height=380,
    )


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
    return "The published rule: of the 22 grids of 2 to 9 tiles, the one with the closest aspect ratio; the page is stretched to fill it."
