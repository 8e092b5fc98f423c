"""Serving drawn: throughput against latency on GPUs, where the time of a step goes, and what the memory of a server holds."""

from collections.abc import Sequence
from functools import cache
from itertools import cycle

import altair as alt
import numpy as np

from ocr_flops.charts.bars import StageBars, row_axis, stacked
from ocr_flops.charts.chart import Chart, Row, Template, compiled, data, title
from ocr_flops.charts.encoding import OWN_COLOUR, WORDS, from_zero, painted, tips, x_of, y_of
from ocr_flops.charts.theme import FAMILIES, INK, LIMIT, MEMORY_COLOURS, STAGE_COLOURS
from ocr_flops.evidence.published.points import load_points
from ocr_flops.timing.serving.result import CUTTING, PARTS, Serving
from ocr_flops.timing.serving.steady import Server
from ocr_flops.timing.serving.targets import find_knee
from ocr_flops.units import SECONDS_PER_DAY, count, count_interval, interval, seconds, share, si

LINES = (STAGE_COLOURS["vision"], *(FAMILIES[name] for name in ("dense MLP", "projector, merge", "shared experts", "router", "lm_head")))
STEP_COLOURS = {**STAGE_COLOURS, "host": MEMORY_COLOURS["KV cache"]}
POOL = {"weights": MEMORY_COLOURS["weights"], "activations": MEMORY_COLOURS["peak activations"]}
POOL |= {"cache in use": MEMORY_COLOURS["KV cache"], "cache that is free": FAMILIES["projector, merge"], "left alone": INK}
KINDS = alt.Scale(domain=["chosen", "knee"], range=["circle", "diamond"])
FLYING = 48  # points of a curve: numbers of requests in flight


def throughput_by_latency(servers: Sequence[Server], chosen: Serving) -> Chart:
    """Pages a day of one replica against what one waits for a page, a curve for each GPU from one request in flight to as many as fit.

    Args:
        servers: an engine on each GPU.
        chosen: the load that is chosen, on one of them; its range is a cross.
    """
    rows, names, marks, lines = [], [], [], []
    for server, colour in zip(servers, cycle(LINES), strict=False):
        flying = np.unique(np.geomspace(1, server.max_concurrency, FLYING).round().astype(np.int64))
        found = server.solve(flying)
        pages, waits = np.asarray(found.pages_per_day.value), _page_seconds(server, found)
        knee = find_knee(found, waits)
        for number, (in_flight, x, y) in enumerate(zip(flying.tolist(), pages.tolist(), waits.tolist(), strict=True)):
            about = {"line": server.hardware.label, "colour": colour, "x": x, "y": y}
            about |= {"flying": f"{in_flight}", "day": count(x), "waits": seconds(y)}
            rows.append(about)
            if number == knee:
                marks.append({**about, "kind": "knee"})
        names.append({**rows[-1], "text": server.hardware.name})
        lines += _published(server, colour)
    if chosen.is_stable:
        server = next(one for one in servers if one.hardware.name == chosen.hardware.name)
        at = {"x": chosen.pages_per_day.value / chosen.replicas, "y": float(_page_seconds(server, chosen))}
        marks.append({**at, "kind": "chosen", "colour": INK, "line": chosen.hardware.label, "flying": f"{chosen.concurrency:.4g}"})
        marks[-1] |= {"day": count(at["x"]), "waits": seconds(at["y"])}
    params = {"most": 1.4 * max(row["x"] for row in rows), "longest": 1.05 * max(row["y"] for row in rows), "least_px": 480}
    datasets = {"curves": rows, "names": names, "marks": marks, "lines": lines}
    return Chart(_curve_template(), _curve_title(chosen, servers, lines), datasets, params)


def _page_seconds(server: Server, found: Serving) -> np.ndarray:
    """Mean seconds from a request to its last token."""
    return np.asarray(found.ttft_seconds.value) + server.later * np.asarray(found.tpot_seconds.value)


def _published(server: Server, colour: str) -> list[Row]:
    """Published pages a day of the engine on the GPU, whatever the pages, as lines."""
    known = [one for one in load_points() if one.quantity == "served_page_seconds" and one.hardware == (server.hardware.name,)]
    name = server.config.engine.name
    return [
        {"x": SECONDS_PER_DAY / one.published[0], "text": one.figure.partition(":")[0], "colour": colour, "line": server.hardware.label}
        | {"figure": one.figure, "conditions": one.conditions, "source": one.source}
        for one in known
        if name in one.engine
    ]


@cache
def _curve_template() -> Template:
    x = x_of("x", **from_zero("pages a day of one GPU", "most", ticks=4))
    y = y_of("y", **from_zero("from request to last token", "longest", "s"))
    about = tips(line="GPU", flying="in flight", day="pages a day", waits="a page takes")
    curves, marks, lines = (alt.Chart(data(name)) for name in ("curves", "marks", "lines"))
    shape = alt.Shape("kind", type="nominal", title=None, legend=alt.Legend(orient="bottom"), scale=KINDS)
    side = {"align": "left", "baseline": "middle", "dx": 8, "fontSize": 12}
    return compiled(
        lines.mark_rule(strokeDash=[3, 4], strokeWidth=1.4, opacity=0.8).encode(
            x, OWN_COLOUR, tooltip=tips(line="GPU", figure="published", conditions="conditions", source="source")
        ),
        lines.mark_text(align="left", baseline="top", dx=4, y=2, fontSize=11).encode(x, WORDS, OWN_COLOUR),
        curves.mark_line(strokeWidth=2.4).encode(x, y, OWN_COLOUR, alt.Detail("line", type="nominal")),
        curves.mark_point(size=18, filled=True).encode(x, y, OWN_COLOUR, tooltip=about),
        marks.mark_point(size=170, strokeWidth=2.6, filled=False).encode(x, y, OWN_COLOUR, shape, tooltip=about),
        alt.Chart(data("names")).mark_text(**side, fontWeight="bold").encode(x, y, WORDS, OWN_COLOUR),
        height=380,
    )


def _curve_title(chosen: Serving, servers: Sequence[Server], lines: Sequence[Row]) -> object:
    days, sources = count_interval(chosen.pages_per_day), dict.fromkeys(line["source"] for line in lines)
    finding = f"{chosen.hardware.label}: {days} pages a day, first token after {interval(chosen.ttft_seconds)}"
    if chosen.ttft_seconds.value is None or chosen.ttft_seconds.high is None:
        finding = f"{chosen.hardware.label}: {days} pages a day"
    if not chosen.is_stable:
        finding = f"{chosen.hardware.label}: more arrive than it serves, the queue grows"
    return title(
        finding,
        "Each curve from one request in flight to as many as fit; ◇ where waiting begins to cost more than it brings",
        *([f"Dashed: published pages a day, whatever the pages ({', '.join(sources)})"] if sources else []),
        f"Engine {servers[0].config.model.under(servers[0].config.engine)}, as expected",
    )


def step_by_concurrency(server: Server, chosen: Serving) -> Chart:
    """Where the time of a step goes at growing numbers of requests in flight, and at the chosen one."""
    most = server.max_concurrency
    here = min(most, max(1, round(most if chosen.concurrency is None else chosen.concurrency)))
    sizes = sorted({*np.geomspace(1, most, 7).round().astype(int).tolist(), here})
    found = server.solve(np.array(sizes))
    bars, ends = [], []
    for number, size in enumerate(sizes):
        mark = "chosen: " if size == here else ""
        row, parts = f"{mark}{size} in flight", dict(zip(PARTS, found.step_parts[:, number].tolist(), strict=True))
        whole = sum(parts.values())
        bars += [
            {"row": row, "kind": kind, **at, "size": seconds(value), "part": share(value, whole)} for kind, value, at in stacked(parts)
        ]
        limit, days = found.limited_by[number].replace(CUTTING, "threads that cut pages"), si(found.pages_per_day.value[number])
        ends.append({"row": row, "end": whole, "text": f"{seconds(whole)}, {days} pages a day, by {limit}"})
    params = {"rows": [end["row"] for end in ends], "room": 1.7 * max(end["end"] for end in ends), "least_px": 620}
    largest = PARTS[int(np.argmax(found.step_parts[:, sizes.index(here)]))]
    heading = title(
        f"{chosen.hardware.label}: with {here} in flight the largest part of a step is {largest}",
        "Seconds of a step: a token for each running sequence, and the pages that are encoded and prefilled meanwhile",
    )
    return Chart(_step_template(), heading, {"bars": bars, "ends": ends}, params)


@cache
def _step_template() -> Template:
    bars = StageBars(row_axis(labelFontSize=12), from_zero("a step, as expected", "room", "s", ticks=5))
    about = tips(row="load", kind="part", size="seconds", part="share")
    colour = painted("kind", STEP_COLOURS, alt.Legend(orient="top"))
    return compiled(bars.segments("bars", colour, about, start="start", band=0.66), bars.words(dx=8, fontSize=12), height=alt.Step(30))


def memory_of_server(server: Server, chosen: Serving) -> Chart:
    """What the device's memory holds: weights, activations, the cache that is in use and that is free, and what the engine leaves alone."""
    pool, whole = server.pool, int(server.hardware.memory_bytes)
    cache = pool.tokens * pool.token
    used = chosen.kv_use_share * cache
    sizes = (pool.weights, pool.peak, used, cache - used, whole - pool.weights - pool.peak - cache)
    parts = dict(zip(POOL, sizes, strict=True))
    bars = [{"row": "memory", "kind": kind, **at, "size": si(size, "B"), "part": share(size, whole)} for kind, size, at in stacked(parts)]
    heading = title(
        f"The cache holds {pool.tokens:,} tokens, of which {share(used, cache)} are in use: {chosen.max_concurrency} requests at once",
        f"{server.options.gpu_memory_utilization:g} of {si(whole, 'B')} is for the engine; {si(pool.token, 'B')} a token, "
        f"blocks of {pool.block_size}",
    )
    line = [{"row": "memory", "end": pool.memory, "text": f"{server.options.gpu_memory_utilization:g} of it"}]
    return Chart(_memory_template(), heading, {"bars": bars, "line": line}, {"rows": ["memory"], "room": whole, "least_px": 480})


@cache
def _memory_template() -> Template:
    bars = StageBars(row_axis(labels=False), from_zero("bytes of device memory", "room", "B", ticks=4))
    about = tips(kind="what", size="bytes", part="share")
    rule = alt.Chart(data("line")).mark_rule(color=LIMIT, strokeWidth=2, strokeDash=[6, 4])
    return compiled(
        bars.segments("bars", painted("kind", POOL, alt.Legend(orient="top")), about, start="start", band=0.62),
        bars.inside("size", "room"),
        rule.encode(bars.x("end"), tooltip=tips(text="the engine may take")),
        height=70,
    )


def serving_charts(servers: Sequence[Server], chosen: Serving) -> dict[str, Chart]:
    """The charts of a load by names that serve as file names."""
    server = next(one for one in servers if one.hardware.name == chosen.hardware.name)
    return {
        "throughput_by_latency": throughput_by_latency(servers, chosen),
        "step_by_concurrency": step_by_concurrency(server, chosen),
        "memory_of_server": memory_of_server(server, chosen),
    }
