"""Which mode: published accuracy of each against the pages a day that it is expected to do."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import altair as alt

from ocr_flops.charts.chart import Chart, Template, compiled, data, title
from ocr_flops.charts.encoding import WORDS, from_zero, painted, tips, x_of, y_of
from ocr_flops.charts.theme import INK, STAGE_COLOURS
from ocr_flops.spec.tiling import queries
from ocr_flops.spec.workload import Workload
from ocr_flops.timing.serving.result import CUTTING
from ocr_flops.timing.serving.steady import Server
from ocr_flops.units import counted, interval, si

LANGUAGES = {"English": STAGE_COLOURS["vision"], "Chinese": STAGE_COLOURS["prefill"]}


def accuracy_by_mode(servers: Mapping[str, Server], accuracy: Mapping[str, Any], also: Sequence[str] = ()) -> Chart:
    """Published edit distance against expected pages a day of an engine that serves, with as many in flight as fit.

    Args:
        servers: what serves the page on one device, by mode.
        accuracy: of `evidence.published.read_accuracy`.
        also: what else is said: of modes that are not there, of other ways to run them.
    """
    published, rows, names, ratios, cut = accuracy["omnidocbench"], [], [], [], []
    for name, server in servers.items():
        found, label, workload, theirs = server.solve(), mode_label(name), server.pages[0].workload, published[name]
        value, low, high = found.pages_per_day[:3]
        about = {"mode": label, "day": interval(found.pages_per_day, ""), "theirs": f"{theirs['tokens']:,} there"}
        about["ratio"] = f"{workload.output_tokens / vision_tokens(workload):.2g}"
        rows += [{"kind": kind, "distance": theirs[kind], "pages": value, "low": low, "high": high, **about} for kind in LANGUAGES]
        least, most = sorted(theirs[kind] for kind in LANGUAGES)
        names.append({"pages": value, "distance": most, "least": least, "text": label})
        ratios.append(f"{label} {about['ratio']}")
        cut += [label] * (found.limited_by == CUTTING)
    server = next(iter(servers.values()))
    findings = [f"{row['mode']} {row['distance']:.3g} at {si(row['pages'])} a day" for row in rows if row["kind"] == "English"]
    params = {"most": 1.1 * max(row["high"] for row in rows), "highest": 1.15 * max(row["distance"] for row in rows)}
    tokens, read = server.pages[0].workload.output_tokens, "On Fox they read about 97 % within 10, about 60 % near 20 (table 2)"
    for row in accuracy["fox"]:
        if row["from"] <= tokens < row["to"]:
            read += f"; of {row['from']} to {row['to']} text tokens: Tiny {100 * row['tiny']:.1f} %, Small {100 * row['small']:.1f} %"
    heading = title(
        f"Edit distance on English pages: {'; '.join(findings[:1] + findings[-1:])}",
        f"Pages a day are ours: {counted(tokens, 'output token')} a page on {server.hardware.label}, served by "
        f"{server.config.model.under(server.config.engine)} in {server.config.dtype}, as many pages in flight as fit",
        *([f"One CPU thread that cuts pages limits {', '.join(cut)}: see Serving"] if cut else []),
        *also,
        f"Text tokens for each vision token of this page: {', '.join(ratios)}",
        read,
        f"Accuracy is theirs, on OmniDocBench's pages, not on this one: {accuracy['source']}, table 3",
    )
    return Chart(_template(), heading, {"rows": rows, "names": names}, params)


def mode_label(name: str) -> str:
    """What a mode is called in the paper: Gundam-M."""
    return name.replace("_", "-").title()


def vision_tokens(workload: Workload) -> int:
    """Vision tokens as the paper counts them: without the separators of rows and views."""
    return workload.tiles * (queries(workload.tile_px) ** 2 if workload.tiles else 0) + queries(workload.global_px) ** 2


@cache
def _template() -> Template:
    x = x_of("pages", **from_zero("expected pages a day", "most"))
    up = from_zero("published edit distance, smaller is better", "highest") | {"axis": alt.Axis(format=".2f", tickCount=6)}
    y = y_of("distance", **up)
    rows, names, colour = alt.Chart(data("rows")), alt.Chart(data("names")), painted("kind", LANGUAGES, alt.Legend(orient="top"))
    about = tips(
        "mode", kind="pages in", distance="edit distance", day="pages a day", ratio="text tokens a vision token", theirs="vision tokens"
    )
    return compiled(
        rows.mark_rule(opacity=0.45).encode(x_of("low"), y, colour, alt.X2("high")),
        rows.mark_point(filled=True, size=90, opacity=1).encode(x, y, colour, about),
        names.mark_rule(opacity=0.45, color=INK).encode(x, y, alt.Y2("least")),
        names.mark_text(align="left", baseline="bottom", dx=5, dy=-5, fontSize=12, color=INK).encode(x, y, WORDS),
        height=380,
    )
